/* The JSON bodies that routes answer with, and what their handlers (declared in server/routes.h) share. A body writer
 * only reads models and writes text, so that it can be tested without a connection; a handler takes the request apart
 * and answers. All [loop]. */
#ifndef QD_SERVER_API_H
#define QD_SERVER_API_H

#include "server/codec_infer.h"
#include "server/metrics.h"
#include "server/repository.h"
#include "server/request.h"
#include "server/text.h"

#include <jansson.h>

#define QD_API_MAX_FILTERS 64

/* ------------------------------------------------------------------ handlers' common part */

/* The model that the path names; NULL after it has filled *error: NOT_FOUND, or UNAVAILABLE when it is not READY. */
struct qd_model_entry *qd_api_ready_model(const struct qd_http_request *request, struct qd_error *error);
/* The same, also when it is not READY. */
struct qd_model_entry *qd_api_model(const struct qd_http_request *request, struct qd_error *error);
/* Answers with the text, or with NO_MEMORY when a write had failed; takes its memory. */
void qd_api_respond(struct qd_http_request *request, int code, const char *content_type, struct qd_text *text);
void qd_api_respond_json(struct qd_http_request *request, struct qd_text *text);
/* A tree as it is; NULL: NO_MEMORY. */
void qd_api_respond_document(struct qd_http_request *request, const json_t *document);
/* The body as a JSON object, the caller's; NULL after it has filled *error. */
json_t *qd_api_body(const struct qd_http_request *request, struct qd_error *error);
struct qd_snapshot;
/* Errors: NOT_FOUND. */
enum qd_status qd_api_snapshot(const struct qd_model_entry *entry, const char *name, const struct qd_snapshot **out,
                               struct qd_error *error) QD_MUST_CHECK;

/* ------------------------------------------------------------------ bodies */

/* Protocol metadata of a READY model. `batch_max` = largest first dimension the batcher makes. */
void qd_api_write_model(struct qd_text *out, const struct qd_model_entry *entry);
void qd_api_write_config(struct qd_text *out, const struct qd_model_entry *entry, uint32_t batch_max);
/* {"model_stats": [...]} of one entry, or of all when `only` is NULL. */
void qd_api_write_stats(struct qd_text *out, struct qd_repository *repository, const struct qd_model_entry *only);
/* [{"name","version","state","reason"}], all models or the READY ones. */
void qd_api_write_index(struct qd_text *out, struct qd_repository *repository, bool ready_only);

/* The tensors to tell of; none = all. Names are borrowed. */
struct qd_api_filter {
    const char *tensors[QD_API_MAX_FILTERS];
    size_t count;
};

/* Every name of the filter must be one of the model's sites, else NOT_FOUND names it. */
enum qd_status qd_api_check_filter(const struct qd_model *model, const struct qd_api_filter *filter,
                                   struct qd_error *error) QD_MUST_CHECK;
void qd_api_write_ranges(struct qd_text *out, const struct qd_model_entry *entry, const struct qd_api_filter *filter);
void qd_api_write_ranges_csv(struct qd_text *out, const struct qd_model_entry *entry,
                             const struct qd_api_filter *filter);
/* An entity tag, with its quotes, that changes whenever the ranges may have. */
void qd_api_ranges_etag(char out[96], const struct qd_model_entry *entry);
/* Whether an If-None-Match header (may be NULL) names the tag. */
bool qd_api_etag_matches(const char *if_none_match, const char *etag);

/* Measures the error of a request that was served, when its turn has come and no other is being measured. */
void qd_api_shadow(struct qd_server *server, struct qd_model_entry *entry, const struct qd_infer *infer);
void qd_api_write_accuracy(struct qd_text *out, const struct qd_model_entry *entry);

void qd_api_write_quantization(struct qd_text *out, const struct qd_model_entry *entry);

/* Brings the gauges and the counters that are kept elsewhere (process, log, models, ranges) up to date. */
void qd_api_collect(struct qd_metrics *metrics, struct qd_repository *repository);

#endif
