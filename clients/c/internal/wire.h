/*
 * What the files of the client library share: failing, growing text, one HTTP exchange, reading JSON. Not installed,
 * and hidden in the shared library.
 */
#ifndef QUANTD_CLIENT_INTERNAL_WIRE_H
#define QUANTD_CLIENT_INTERNAL_WIRE_H

#include "clients/c/quantd_client.h"

#include <jansson.h>

#pragma GCC visibility push(hidden)

/* Fills error (if not NULL) with a sentence and gives the status back. */
__attribute__((format(printf, 3, 4), cold)) enum quantd_client_status
quantd_client_fail(struct quantd_client_error *error, enum quantd_client_status status, const char *format, ...);

/* ------------------------------------------------------------------ text.c: bytes that grow; zeroed is empty */
struct quantd_client_text {
    char *bytes; /* bytes[length] is 0 once something was put */
    size_t length, capacity;
    bool failed; /* out of memory: everything put since was dropped */
};
void quantd_client_text_put(struct quantd_client_text *text, const void *bytes, size_t length);
__attribute__((format(printf, 2, 3))) void quantd_client_text_printf(struct quantd_client_text *text,
                                                                     const char *format, ...);
/* As a JSON string; what is not UTF-8 goes out as it came, for the daemon to refuse. */
void quantd_client_text_json(struct quantd_client_text *text, const char *string);
/* As one segment of a path: all but letters, digits and -._~ is percent-encoded. */
void quantd_client_text_segment(struct quantd_client_text *text, const char *segment);
void quantd_client_text_free(struct quantd_client_text *text);

/* ------------------------------------------------------------------ socket.c: bytes with a deadline */
int64_t quantd_client_now_ms(void);
/* A connected socket in *fd, or CONNECT or TIMEOUT. Each address of the name gets timeout_ms. */
enum quantd_client_status quantd_client_socket_open(const char *host, const char *port, int timeout_ms, int *fd,
                                                    struct quantd_client_error *error);
/* false when the other side closed a kept connection or said something unasked */
bool quantd_client_socket_idle(int fd);
struct quantd_client_piece {
    const void *bytes;
    size_t length;
};
/* All the pieces; *answered when the other side spoke before it took them all, which ends the sending. */
enum quantd_client_status quantd_client_socket_send(int fd, const struct quantd_client_piece *pieces, size_t count,
                                                    int64_t deadline_ms, bool *answered,
                                                    struct quantd_client_error *error);
/* Up to `length` bytes; *got 0 is the end. */
enum quantd_client_status quantd_client_socket_receive(int fd, char *bytes, size_t length, size_t *got,
                                                       int64_t deadline_ms, struct quantd_client_error *error);

/* ------------------------------------------------------------------ http.c: one request, one reply */
struct quantd_client {
    char *host, *port, *authority, *prefix; /* prefix: of every path, without the last slash */
    struct quantd_client_options options;
    int fd; /* -1: not connected */
};
struct quantd_client_reply {
    int status;
    size_t json_bytes; /* of the body, the rest is binary tensors */
    struct quantd_client_text body;
};
/*
 * method GET or POST; path without the prefix; pieces: the body, json_bytes of it JSON before binary tensors (0: no
 * such header). The reply is any status. quantd_client_text_free(&reply->body) after OK only.
 */
struct quantd_client_exchange {
    const char *method, *path;
    const struct quantd_client_piece *pieces;
    size_t piece_count, json_bytes;
};
enum quantd_client_status quantd_client_http_ask(struct quantd_client *client,
                                                 const struct quantd_client_exchange *exchange,
                                                 struct quantd_client_reply *reply, struct quantd_client_error *error);
void quantd_client_http_close(struct quantd_client *client);

/* ------------------------------------------------------------------ client.c */
/* Asks, turns any status but 200 into REFUSED with the daemon's sentence. */
enum quantd_client_status quantd_client_ask(struct quantd_client *client, const struct quantd_client_exchange *exchange,
                                            struct quantd_client_reply *reply, struct quantd_client_error *error);
/* Asks for /v2/models/MODEL<rest> (rest as in "/ranges") and parses the answer, an object; json_decref(*root) after OK.
 */
enum quantd_client_status quantd_client_ask_json(struct quantd_client *client, const char *method, const char *model,
                                                 const char *rest, json_t **root, struct quantd_client_error *error);
enum quantd_client_status quantd_client_parse(const char *bytes, size_t length, json_t **root,
                                              struct quantd_client_error *error);

/* ------------------------------------------------------------------ json.c: fields of an object by a table */
enum quantd_client_kind {
    QUANTD_CLIENT_TEXT,
    QUANTD_CLIENT_REAL,
    QUANTD_CLIENT_COUNT,
    QUANTD_CLIENT_INTEGER,
    QUANTD_CLIENT_FLAG
};
struct quantd_client_field {
    const char *key;
    enum quantd_client_kind kind;
    size_t offset; /* in the struct: const char *, double, uint64_t, int64_t, bool */
    bool optional; /* missing or null leaves the struct as it is */
};
/* Texts stay the object's: keep it alive. `what` names the object in a sentence. PROTOCOL. */
enum quantd_client_status quantd_client_read_fields(const json_t *object, const struct quantd_client_field *fields,
                                                    size_t count, void *into, const char *what,
                                                    struct quantd_client_error *error);
/* "shape": [..] */
enum quantd_client_status quantd_client_read_shape(const json_t *object, int *rank,
                                                   int64_t shape[QUANTD_CLIENT_MAX_RANK], const char *what,
                                                   struct quantd_client_error *error);
/* "datatype": ".." */
enum quantd_client_status quantd_client_read_datatype(const json_t *object, enum quantd_client_datatype *type,
                                                      const char *what, struct quantd_client_error *error);

/* Bytes of a dense tensor; false for a negative dimension, an overflow, or BYTES, whose size the shape doesn't tell. */
bool quantd_client_tensor_bytes(enum quantd_client_datatype type, int rank, const int64_t *shape, size_t *bytes);

#pragma GCC visibility pop

#endif
