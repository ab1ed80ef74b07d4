/* The route table: which handler answers which method and path. One row per endpoint (docs/openapi.yaml has them in the
 * same words). */
#ifndef QD_SERVER_ROUTES_H
#define QD_SERVER_ROUTES_H

#include "server/request.h"

struct qd_route {
    const char *method;  /* GET rows answer HEAD too */
    const char *pattern; /* "/v2/models/{model}/infer"; below {model} an optional /versions/1 is understood */
    /* Called when the whole body is there (or at once without one). Answers or suspends. */
    void (*handle)(struct qd_http_request *request);
    /* With `body`, the body goes there piece by piece instead of into memory. `begin` is called when the headers are
     * there; a failure of either fills request->refusal's twin *error: the rest of the body is read and dropped, then
     * the error answered. */
    enum qd_status (*begin)(struct qd_http_request *request, struct qd_error *error);
    enum qd_status (*body)(struct qd_http_request *request, const void *bytes, size_t n, struct qd_error *error);
};

/* The rows, in server/routes.c. */
extern const struct qd_route qd_routes[];
extern const size_t qd_route_count;

/* Matches method and segments. NULL: *allowed == "" means unknown path (404), otherwise it lists the methods that exist
 * (405). */
const struct qd_route *qd_routes_find(const char *method, const struct qd_target *target, char *allowed,
                                      size_t allowed_room);
/* The value of {name} in the pattern for this target, or NULL. */
const char *qd_route_param(const struct qd_route *route, const struct qd_target *target, const char *name);

/* Handlers (server/api_*.c and server/api_handlers.c). */
void qd_handle_live(struct qd_http_request *request);
void qd_handle_ready(struct qd_http_request *request);
void qd_handle_server(struct qd_http_request *request);
void qd_handle_model(struct qd_http_request *request);
void qd_handle_model_ready(struct qd_http_request *request);
void qd_handle_model_config(struct qd_http_request *request);
void qd_handle_stats(struct qd_http_request *request); /* with and without {model} */
void qd_handle_index(struct qd_http_request *request);
void qd_handle_ranges(struct qd_http_request *request);
enum qd_status qd_ranges_begin(struct qd_http_request *request, struct qd_error *error);
enum qd_status qd_ranges_body(struct qd_http_request *request, const void *bytes, size_t n, struct qd_error *error);
void qd_handle_ranges_put(struct qd_http_request *request);
void qd_handle_ranges_delete(struct qd_http_request *request);
void qd_handle_export(struct qd_http_request *request);
void qd_handle_ranges_reset(struct qd_http_request *request);
void qd_handle_ranges_freeze(struct qd_http_request *request);
void qd_handle_ranges_unfreeze(struct qd_http_request *request);
void qd_handle_snapshots(struct qd_http_request *request);
void qd_handle_snapshot(struct qd_http_request *request);
void qd_handle_snapshot_make(struct qd_http_request *request);
void qd_handle_snapshot_delete(struct qd_http_request *request);
void qd_handle_diff(struct qd_http_request *request);
void qd_handle_rollback(struct qd_http_request *request);
void qd_handle_state(struct qd_http_request *request);
void qd_handle_state_put(struct qd_http_request *request);
void qd_handle_merge(struct qd_http_request *request);
void qd_handle_stream(struct qd_http_request *request);
void qd_handle_history(struct qd_http_request *request);
void qd_handle_drift(struct qd_http_request *request);
/* Bodies that may be as large as an infer request's, kept whole. */
enum qd_status qd_document_begin(struct qd_http_request *request, struct qd_error *error);
enum qd_status qd_document_body(struct qd_http_request *request, const void *bytes, size_t n, struct qd_error *error);
void qd_handle_quantization(struct qd_http_request *request);
void qd_handle_calibrate(struct qd_http_request *request);
void qd_handle_quantization_change(struct qd_http_request *request);
void qd_handle_accuracy(struct qd_http_request *request);
void qd_handle_metrics(struct qd_http_request *request);
void qd_handle_openapi(struct qd_http_request *request);
enum qd_status qd_infer_begin(struct qd_http_request *request, struct qd_error *error);
enum qd_status qd_infer_body(struct qd_http_request *request, const void *bytes, size_t n, struct qd_error *error);
void qd_handle_infer(struct qd_http_request *request);

#endif
