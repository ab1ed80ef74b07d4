/* Which tensors of a plan are smoothed (docs/QUANTIZATION.md, section 4), of those that its options list. Private to
 * engine/plan: while a plan is placed. */
#ifndef QD_ENGINE_PLAN_SMOOTHED_H
#define QD_ENGINE_PLAN_SMOOTHED_H

#include "engine/plan/forms.h"

/* Of a tensor that this matrix layer reads row by row; NULL: it isn't. */
const struct qd_smoothed *qd_smoothed_rows(const struct qd_plan *plan, int value, const struct qd_node *node);
/* Of a tensor's channels; NULL: they aren't, or can't be here: only what a linear layer writes as bytes and depthwise
 * convolutions read, and nobody else. */
const struct qd_smoothed *qd_smoothed_channels(const struct qd_plan *plan, const struct qd_unit *units, int unit_count,
                                               const struct qd_forms *forms, int value);

#endif
