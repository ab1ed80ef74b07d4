/* See smoothed.h. */
#include "engine/plan/smoothed.h"

#include "engine/plan/rules.h"

#include <string.h>

static const struct qd_smoothed *find(const struct qd_plan *plan, int value, int64_t columns)
{
    for (int i = 0; i < plan->options.smoothed_count; i++) {
        const struct qd_smoothed *one = &plan->options.smoothed[i];
        if (strcmp(one->tensor, plan->graph.values[value].name) == 0 && (int64_t)one->columns == columns)
            return one;
    }
    return NULL;
}

const struct qd_smoothed *qd_smoothed_rows(const struct qd_plan *plan, int value, const struct qd_node *node)
{
    const struct qd_shape *weights = &plan->graph.values[node->in[1]].info.shape;
    const bool transposed = qd_node_is(node, "Gemm") && qd_attr_int(node, "transB", 0) != 0;
    return find(plan, value, weights->dims[transposed]);
}

static bool reads(const struct qd_unit *unit, const struct qd_node *node, int value)
{
    bool found = unit->linear && unit->residual == value;
    for (int i = 0; i < node->in_count; i++)
        found |= node->in[i] == value;
    return found;
}

/* Does this unit, which reads the value, take channels that are divided? Its weights have a scale for each then. */
static bool takes_divided(const struct qd_plan *plan, const struct qd_unit *unit, bool int8, int value)
{
    const struct qd_node *node = &plan->graph.nodes[unit->node];
    return unit->linear && int8 && node->in[0] == value && unit->residual != value &&
           qd_linear_node_is_depthwise(&plan->graph, node) &&
           !qd_plan_rule(plan, node, QD_RULE_WEIGHTS_PER_TENSOR, plan->options.weights_per_tensor);
}

const struct qd_smoothed *qd_smoothed_channels(const struct qd_plan *plan, const struct qd_unit *units, int unit_count,
                                               const struct qd_forms *forms, int value)
{
    const struct qd_smoothed *found = NULL;
    bool made = false;
    if (!plan->options.smoothed_count || !forms->only_q8[value] || forms->fixed[value] || forms->faked[value])
        return NULL;
    for (int u = 0; u < unit_count; u++) {
        const struct qd_node *node = &plan->graph.nodes[units[u].node];
        made |= units[u].linear && units[u].out == value;
        if (!reads(&units[u], node, value))
            continue;
        if (!takes_divided(plan, &units[u], forms->int8[u] && !forms->given[u], value))
            return NULL;
        found = find(plan, value, plan->graph.values[node->in[1]].info.shape.dims[0]);
    }
    return made ? found : NULL;
}
