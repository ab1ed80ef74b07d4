/* Corrected biases, smoothed columns, and the means they come from, in a state file: an array of layers whose floats
 * are hexadecimal, eight digits each, so that they come back to the bit. Private to server/state.c. [loop] */
#ifndef QD_SERVER_STATE_BIASES_H
#define QD_SERVER_STATE_BIASES_H

#include "engine/engine.h"

#include <jansson.h>

/* NULL: out of memory. */
json_t *qd_state_biases(const struct qd_model *model);
/* Before qd_model_restore. What doesn't fit the plan is passed over; `same_plan`: else biases are not taken, only
 * means. Errors: NO_MEMORY. */
enum qd_status qd_state_biases_restore(struct qd_model *model, const json_t *biases, bool same_plan,
                                       struct qd_error *error) QD_MUST_CHECK;

/* What is smoothed, as options have it: an array of tensors; NULL: out of memory. */
json_t *qd_state_smoothed(const struct qd_quant_options *options);
/* The same back, into smoothed[json_array_size(list)]; what is no such tensor is passed over. Returns how many; their s
 * is the caller's to free with qd_state_smoothed_free, their names are the list's. */
size_t qd_state_smoothed_read(const json_t *list, struct qd_smoothed_tensor *smoothed);
void qd_state_smoothed_free(struct qd_smoothed_tensor *smoothed, size_t count);

#endif
