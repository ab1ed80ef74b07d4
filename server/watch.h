/* What happens once a second beside requests: histories get their points, drift is measured, and clients that wait on
 * .../ranges/stream are told what is new. All [loop]. */
#ifndef QD_SERVER_WATCH_H
#define QD_SERVER_WATCH_H

#include "server/serve.h"

struct qd_http_request;
struct qd_watch;

#define QD_STREAMS_MAX 64 /* clients that wait at a time */

/* What a client of a stream has seen. */
struct qd_stream_seen {
    uint64_t epoch, requests;
    bool epochs_only; /* it waits for epochs, not for every request */
};

/* `server` outlives it. Errors: NO_MEMORY. */
enum qd_status qd_watch_create(uv_loop_t *loop, struct qd_server *server, struct qd_watch **out,
                               struct qd_error *error) QD_MUST_CHECK;
/* Suspends the request until there is something new, or half a minute has gone. Errors: UNAVAILABLE (too many). */
enum qd_status qd_watch_wait(struct qd_watch *watch, struct qd_http_request *request,
                             const struct qd_model_entry *entry, const struct qd_stream_seen *seen,
                             struct qd_error *error) QD_MUST_CHECK;
/* Answers all that wait: the server is stopping. `watch` may be NULL. */
void qd_watch_end_streams(struct qd_watch *watch);
/* The same, and its handle closes with the loop's next turns. Clears the pointer, which may be NULL. */
void qd_watch_destroy(struct qd_watch **watch);

/* In server/api_stream.c: answers with what is new since `seen`; with a comment when nothing is. */
void qd_api_respond_events(struct qd_http_request *request, const struct qd_model_entry *entry,
                           const struct qd_stream_seen *seen);
bool qd_api_has_events(const struct qd_model_entry *entry, const struct qd_stream_seen *seen);

#endif
