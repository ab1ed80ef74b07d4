/* One HTTP request as handlers see it: route, path parameters, query, headers, body, and the ways to answer. Knows
 * nothing of models. All [loop]. A request is reference counted: a job that outlives its connection holds its own
 * reference. */
#ifndef QD_SERVER_REQUEST_H
#define QD_SERVER_REQUEST_H

#include "base/status.h"
#include "server/target.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct MHD_Connection;
struct MHD_Response;
struct qd_server;
struct qd_connection;
struct qd_route;
struct qd_job;

struct qd_http_request {
    int refs;
    struct qd_server *server;
    struct qd_connection *connection; /* NULL once the client has gone */
    const struct qd_route *route;     /* NULL: no route matched */
    const char *method;               /* one of the methods the server knows, or "OTHER" */
    struct qd_target target;
    unsigned char *body; /* of routes without a `body` callback */
    size_t body_bytes, body_room;
    uint64_t body_limit, received_bytes;
    int64_t content_length;  /* -1: not told */
    uint64_t started_ns;     /* monotonic, when the headers were there */
    struct qd_error refusal; /* decided before the body was there; answered after it */
    bool begun;              /* past the first handler call */
    bool suspended;
    /* the answer, once there is one */
    struct MHD_Response *response;
    int code;
    uint64_t response_bytes;
    /* of the handler: freed with the request */
    void *state;
    void (*state_free)(void *state);
};

/* {model}, {tensor}... of the route's pattern; NULL when the pattern has none of that name. Decoded. */
const char *qd_http_param(const struct qd_http_request *request, const char *name);
/* The i-th value of a query key, decoded; NULL when there are fewer. */
const char *qd_http_query(const struct qd_http_request *request, const char *key, size_t i);
/* A header by its full name, any case; NULL when absent. Valid during the callback. */
const char *qd_http_header(const struct qd_http_request *request, const char *name);

struct qd_http_piece {
    const void *bytes;
    size_t n;
};

/* Answers once; later calls are ignored. Pieces stay valid until free_fn(ctx) is called (at once if the client has
 * gone); free_fn may be NULL for static bytes. content_type NULL: none. */
void qd_http_respond(struct qd_http_request *request, int code, const char *content_type,
                     const struct qd_http_piece *pieces, size_t count, void (*free_fn)(void *ctx), void *ctx);
/* A header of the answer, after qd_http_respond; control characters make it be left out. */
void qd_http_respond_header(struct qd_http_request *request, const char *name, const char *value);
/* Static or copied JSON text, Content-Type exactly application/json. */
void qd_http_respond_json(struct qd_http_request *request, int code, const char *text, size_t n);
/* {"error":"..."} with the status's HTTP code; 503 carries Retry-After. */
void qd_http_fail(struct qd_http_request *request, const struct qd_error *error);

/* The connection waits for an answer that comes later (from a job). `job` is cancelled when the client goes. Errors:
 * none; after it the handler must not touch the body. Answering resumes. */
void qd_http_suspend(struct qd_http_request *request, struct qd_job *job);

void qd_http_request_ref(struct qd_http_request *request);
void qd_http_request_unref(struct qd_http_request **request);

#endif
