/* The choice between INT8 and FP32 by time: each linear step of a compiled plan is timed in both on this machine, on
 * its own tensors' shapes. The caller compiles again with what came out. Not for accuracy (which layers may be INT8).
 */
#ifndef QD_ENGINE_PLAN_CHOOSE_H
#define QD_ENGINE_PLAN_CHOOSE_H

#include "engine/plan/plan.h"

/* Longest that timing a whole plan may take; steps beyond it stay as they are, untimed. */
#define QD_CHOOSE_BUDGET_NS ((uint64_t)400000000)

/* Times the INT8 linear steps of `plan` with tensors of `inputs` (as qd_plan_shape takes them) and notes both times in
 * each step. *choices, in the plan's arena, then tells qd_plan_options what to compile instead; NULL when nothing
 * changes, or when no shapes are known before running. `plan` is not shared yet. Errors: NO_MEMORY. */
enum qd_status qd_plan_time(struct qd_plan *plan, const struct qd_shape *inputs, const struct qd_choice **choices,
                            struct qd_error *error) QD_MUST_CHECK;

#endif
