/* Rules of single layers while a plan is compiled: what they make of sites, and of its digest. What they make of layers
 * themselves is asked for where it is decided, with qd_plan_rule. Private to engine/plan. */
#ifndef QD_ENGINE_PLAN_RULES_H
#define QD_ENGINE_PLAN_RULES_H

#include "engine/plan/plan.h"

/* Puts a copy in the plan's arena in the place of plan->options.rules. Errors: NO_MEMORY. */
enum qd_status qd_rules_copy(struct qd_plan *plan, struct qd_error *error) QD_MUST_CHECK;
/* Scheme, mode and guard of every site, once slots and steps are there. */
void qd_rules_apply(struct qd_plan *plan);
/* What rules made of a step's bytes other than the options say, as text; "" where that is nothing, so that a plan
 * without rules keeps its digest. Returns text. */
const char *qd_rules_digest(const struct qd_plan *plan, const struct qd_step *step, char *text, size_t room);

#endif
