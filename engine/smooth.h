/* Smoothing while a model serves (docs/QUANTIZATION.md, section 4): columns of a tensor of rows, or channels of what
 * depthwise convolutions read, that are far larger than others make every quantum coarse. Their size goes over into the
 * weights: columns are divided by s, weights multiplied, as another plan. Part of the installed interface, by
 * engine/engine.h. When: the caller's, who is told by qd_model_smoothing_due. */
#ifndef QD_ENGINE_SMOOTH_H
#define QD_ENGINE_SMOOTH_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

struct qd_model;
struct qd_smoothing;

/* Enough was seen, and nothing is smoothed yet. Unless `measured`, of channels only: each gets finer, at no other's
 * cost, so nothing has to be compared. [loop] */
bool qd_model_smoothing_due(const struct qd_model *model, bool measured);
/* Rows will be smoothed soon, or something is: who chooses precisions waits for it. Not for ever. [loop] */
bool qd_model_smoothing_awaited(const struct qd_model *model);
/* Of what is due: copies what was learned of the columns; not due again by itself. Errors: NO_MEMORY. [loop] */
enum qd_status qd_smoothing_create(struct qd_model *model, bool measured, struct qd_smoothing **out,
                                   struct qd_error *error) QD_MUST_CHECK;
/* One that takes back, for good, what is smoothed but for the first `kept` tensors. Errors: NO_MEMORY. [loop] */
enum qd_status qd_smoothing_undo(struct qd_model *model, size_t kept, struct qd_smoothing **out,
                                 struct qd_error *error) QD_MUST_CHECK;
/* Chooses s by the least expected error, and compiles the plan when that is worth it. [any] */
void qd_smoothing_run(struct qd_smoothing *smoothing);
/* Puts the plan in force, as qd_change_adopt, unless nothing was worth it or the plan is another by now; true when it
 * did. Clears the pointer. [loop] */
bool qd_smoothing_finish(struct qd_smoothing **smoothing);
/* Tensors that are smoothed now. [loop] */
size_t qd_model_smoothed(const struct qd_model *model);

#endif
