/* What a model has learned, and the plan it learned it under, as one JSON object: in state files, in snapshots and
 * between replicas. Not for files (server/state_file.h). Fields: docs/QUANTIZATION.md, section 8. [loop] */
#ifndef QD_SERVER_STATE_DOCUMENT_H
#define QD_SERVER_STATE_DOCUMENT_H

#include "server/repository.h"

#include <jansson.h>

#define QD_STATE_VERSION 1

/* Of options it has what differs from the configuration's. NULL: out of memory. */
json_t *qd_state_document(const struct qd_model_entry *entry);

/* Is it a state of this model, with sound bounds? For documents from outside. Errors: INVALID, UNSUPPORTED (version),
 * CONFLICT (another model). */
enum qd_status qd_state_document_check(const json_t *root, const struct qd_model *model,
                                       struct qd_error *error) QD_MUST_CHECK;
/* Its tensors; the names are the document's. qd_free'd by the caller. Errors: NO_MEMORY. */
enum qd_status qd_state_document_ranges(const json_t *root, struct qd_range_state **out, size_t *n,
                                        struct qd_error *error) QD_MUST_CHECK;
/* Compiles its plan: options of the configuration with what was changed while serving. Slow. Errors: those of
 * qd_change_create. [any] */
enum qd_status qd_state_document_change(struct qd_model *model, const struct qd_quant_options *base, const json_t *root,
                                        struct qd_change **out, struct qd_error *error) QD_MUST_CHECK;
/* Does the model run under the plan that the document names? */
bool qd_state_document_has_plan(const struct qd_model *model, const json_t *root);
/* Takes the list of merged replicas into the entry. */
void qd_state_document_merged(const json_t *root, struct qd_model_entry *entry);
/* A number that counts, 0 when there is none; a word, "" when there is none. */
uint64_t qd_state_document_count(const json_t *root, const char *key);
const char *qd_state_document_word(const json_t *root, const char *key);

#endif
