/* The choice between INT8 and FP32 by time: each linear step of a compiled plan is timed in both on this machine, and
 * in 16 bits where error decides too, on its own tensors' shapes. The caller compiles again with what came out. Not for
 * accuracy (engine/mixed.h), which uses these times. */
#ifndef QD_ENGINE_PLAN_CHOOSE_H
#define QD_ENGINE_PLAN_CHOOSE_H

#include "engine/plan/plan.h"

/* Longest that timing a whole plan may take; steps beyond it stay as they are, untimed. */
#define QD_CHOOSE_BUDGET_NS ((uint64_t)400000000)

/* Times the INT8 linear steps of `plan` with tensors of `inputs` (as qd_plan_shape takes them) in INT8 and FP32, with
 * `words` in 16 bits as well, and notes the times in each step. *choices, by node of plan->graph and in the plan's
 * arena, is what to tell qd_plan_options; NULL when no shapes are known before running. *changes: some layer is to run
 * otherwise. `plan` is not shared yet. Errors: NO_MEMORY. */
enum qd_status qd_plan_time(struct qd_plan *plan, const struct qd_shape *inputs, bool words,
                            const struct qd_choice **choices, bool *changes, struct qd_error *error) QD_MUST_CHECK;

/* Times outlive the plan they were taken with. qd_choices_copy returns NULL when memory is out. */
struct qd_choice *qd_choices_copy(const struct qd_choice *choices, int count);
void qd_choices_free(struct qd_choice **choices, int count); /* clears the pointer; NULL is fine */
/* Has any layer a time in 16 bits? */
bool qd_choices_have_words(const struct qd_choice *choices, int count);

#endif
