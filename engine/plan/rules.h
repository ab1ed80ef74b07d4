/* Rules of single layers: what they are, and what they make of sites and of the plan's digest. What they make of layers
 * themselves is asked for where it is decided, with qd_plan_rule. For those who compile plans. */
#ifndef QD_ENGINE_PLAN_RULES_H
#define QD_ENGINE_PLAN_RULES_H

#include "engine/plan/plan.h"

/* What rules can say of single layers. The first four are of the tensors that a layer reads: of all readers' rules the
 * largest value counts. */
enum qd_rule_kind {
    QD_RULE_MODE,      /* enum qd_site_mode */
    QD_RULE_GUARD,     /* enum qd_guard_action */
    QD_RULE_SYMMETRIC, /* its integers: bool */
    QD_RULE_ROWS,      /* enum qd_rows_rule */
    QD_RULE_WEIGHTS_PER_TENSOR,
    QD_RULE_WEIGHTS_ASYMMETRIC,
    QD_RULE_WEIGHT_BITS,
};

struct qd_plan_rule {
    const char *node; /* its name, or a pattern as of fnmatch(3) */
    enum qd_rule_kind kind;
    int value;
};

/* What the rules say of a node, else `otherwise`. */
int qd_plan_rule(const struct qd_plan *plan, const struct qd_node *node, enum qd_rule_kind kind, int otherwise);

/* Puts a copy in the plan's arena in the place of plan->options.rules. Errors: NO_MEMORY. */
enum qd_status qd_rules_copy(struct qd_plan *plan, struct qd_error *error) QD_MUST_CHECK;
/* Scheme, mode and guard of every site, once slots and steps are there. */
void qd_rules_apply(struct qd_plan *plan);
/* What rules made of a step's bytes other than the options say, as text; "" where that is nothing, so that a plan
 * without rules keeps its digest. Returns text. */
const char *qd_rules_digest(const struct qd_plan *plan, const struct qd_step *step, char *text, size_t room);

#endif
