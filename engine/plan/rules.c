/* Rules of single layers. See rules.h. */
#include "engine/plan/rules.h"

#include "engine/plan/place.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

int qd_plan_rule(const struct qd_plan *plan, const struct qd_node *node, enum qd_rule_kind kind, int otherwise)
{
    for (int i = plan->options.rule_count; i-- > 0;)
        if (plan->options.rules[i].kind == kind && fnmatch(plan->options.rules[i].node, node->name, 0) == 0)
            return plan->options.rules[i].value;
    return otherwise;
}

enum qd_status qd_rules_copy(struct qd_plan *plan, struct qd_error *error)
{
    const size_t count = (size_t)plan->options.rule_count;
    struct qd_plan_rule *rules = qd_arena_alloc(plan->arena, count, sizeof *rules);
    bool good = rules != NULL;
    for (size_t i = 0; good && i < count; i++) {
        const char *node = plan->options.rules[i].node;
        char *copy = qd_arena_alloc_raw(plan->arena, strlen(node) + 1);
        rules[i] = plan->options.rules[i];
        rules[i].node = copy ? strcpy(copy, node) : NULL;
        good = copy != NULL;
    }
    plan->options.rules = rules;
    return good ? QD_OK : qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
}

/* One more reader of a site: its rules beside those of the others. */
static void add_rules(const struct qd_plan *plan, struct qd_site *site, const struct qd_node *node, int *symmetric)
{
    const int mode = qd_plan_rule(plan, node, QD_RULE_MODE, QD_SITE_AS_ALL),
              guard = qd_plan_rule(plan, node, QD_RULE_GUARD, -1),
              scheme = qd_plan_rule(plan, node, QD_RULE_SYMMETRIC, -1);
    site->mode = mode > (int)site->mode ? (enum qd_site_mode)mode : site->mode;
    site->guard = guard > site->guard ? guard : site->guard;
    *symmetric = scheme > *symmetric ? scheme : *symmetric;
}

/* What the rules of the layers that read a site make of it. */
void qd_rules_apply(struct qd_plan *plan)
{
    for (int i = 0; i < plan->site_count; i++) {
        struct qd_site *site = &plan->sites[i];
        int symmetric = -1;
        for (int s = 0; plan->options.rule_count && s < plan->step_count; s++) {
            const struct qd_step *step = &plan->steps[s];
            bool reads = false;
            for (int in = 0; in < step->in_count; in++)
                reads |= step->in[in] >= 0 && plan->slots[step->in[in]].site == i;
            if (reads && (step->kind == QD_STEP_LINEAR || step->kind == QD_STEP_OP))
                add_rules(plan, site, step->node, &symmetric);
        }
        site->symmetric = symmetric < 0 ? plan->options.symmetric : symmetric;
    }
}

const char *qd_rules_digest(const struct qd_plan *plan, const struct qd_step *step, char *text, size_t room)
{
    const struct qd_plan_options *o = &plan->options;
    const bool layer = o->rule_count && step->kind == QD_STEP_LINEAR && (step->int8 || step->int16 || step->fake);
    const struct qd_linear_spec spec = layer ? qd_place_spec(plan, step->unit, step->int8, step->int16)
                                             : (struct qd_linear_spec){0};
    size_t used = 0;
    text[0] = 0;
    if (layer && (spec.per_tensor != o->weights_per_tensor || spec.asymmetric != o->weights_asymmetric ||
                  (step->int16 && spec.weight_bits != o->weight_bits)))
        used = (size_t)snprintf(text, room, "weights %d %d %d", spec.per_tensor, spec.asymmetric, spec.weight_bits);
    if (step->site >= 0 && plan->sites[step->site].symmetric != o->symmetric)
        snprintf(text + used, room - used, "%s", o->symmetric ? "asymmetric" : "symmetric");
    return text;
}
