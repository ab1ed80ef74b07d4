/* Steps of training that models may carry: Momentum, Adagrad and Adam. One rule a family; inputs are the learning rate,
 * the count of updates, and lists of weights, gradients and running sums. FP32. Not for fine-tuning itself. */
#include "engine/ops/helpers.h"

#include <math.h>
#include <string.h>

struct rates {
    double r, alpha, beta, epsilon, norm, norm_after;
    bool nesterov;
};

/* One element: x is the weight, g its gradient, sums what the rule remembers of it. */
struct element {
    double x, g, sums[2];
};

static void momentum(const struct rates *r, struct element *e)
{
    const double g = r->norm * e->x + e->g;
    e->sums[0] = r->alpha * e->sums[0] + r->beta * g;
    e->x -= r->r * (r->nesterov ? g + r->alpha * e->sums[0] : e->sums[0]);
}

static void adagrad(const struct rates *r, struct element *e)
{
    const double g = r->norm * e->x + e->g;
    e->sums[0] += g * g;
    e->x -= r->r * g / (sqrt(e->sums[0]) + r->epsilon);
}

static void adam(const struct rates *r, struct element *e)
{
    const double g = r->norm * e->x + e->g;
    e->sums[0] = r->alpha * e->sums[0] + (1 - r->alpha) * g;
    e->sums[1] = r->beta * e->sums[1] + (1 - r->beta) * g * g;
    e->x = (1 - r->norm_after) * (e->x - r->r * e->sums[0] / (sqrt(e->sums[1]) + r->epsilon));
}

/* Rates of the t-th update, t counted from 0. */
static void momentum_rates(const struct qd_node *node, struct rates *r, double t)
{
    r->alpha = (double)qd_attr_float(node, "alpha", 0);
    r->beta = t > 0 ? (double)qd_attr_float(node, "beta", 0) : 1;
    r->nesterov = qd_attr_is(node, "mode", "standard", "nesterov");
}

static void adagrad_rates(const struct qd_node *node, struct rates *r, double t)
{
    r->epsilon = (double)qd_attr_float(node, "epsilon", 1e-6f);
    r->r /= 1 + t * (double)qd_attr_float(node, "decay_factor", 0);
}

static void adam_rates(const struct qd_node *node, struct rates *r, double t)
{
    r->alpha = (double)qd_attr_float(node, "alpha", 0.9f);
    r->beta = (double)qd_attr_float(node, "beta", 0.999f);
    r->epsilon = (double)qd_attr_float(node, "epsilon", 1e-6f);
    r->norm_after = (double)qd_attr_float(node, "norm_coefficient_post", 0);
    if (t > 0)
        r->r *= sqrt(1 - pow(r->beta, t)) / (1 - pow(r->alpha, t));
}

static const struct rule {
    const char *op;
    int sums;
    void (*rates)(const struct qd_node *node, struct rates *r, double t);
    void (*step)(const struct rates *r, struct element *e);
} rules[] = {
    {"Momentum", 1, momentum_rates, momentum},
    {"Adagrad", 1, adagrad_rates, adagrad},
    {"Adam", 2, adam_rates, adam},
};

static const struct rule *rule_of(const struct qd_node *node)
{
    const struct rule *rule = rules;
    while (strcmp(rule->op, node->op) != 0)
        rule++;
    return rule;
}

/* Inputs: r, t, then weights, gradients and each kind of sums, `n` of each; outputs: weights and sums. */
static int tensors(const struct qd_call *call, const struct rule *rule)
{
    return (call->in_count - 2) / (2 + rule->sums);
}

static enum qd_status optimizer_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct rule *rule = rule_of(call->node);
    const int n = tensors(call, rule), kinds = 2 + rule->sums;
    if (n < 1 || call->in_count != 2 + n * kinds || call->out_count != n * (kinds - 1))
        return qd_op_fail(call, error, QD_ERR_INVALID, "its numbers of inputs and outputs don't fit together");
    enum qd_status status = qd_op_inputs(call, call->in_count, call->in_count, error);
    for (int i = 0; i < call->in_count && !status; i++)
        status = qd_op_types(call, i, i == 1 ? QD_BIT(QD_I64) : QD_TYPES_FLOAT, error);
    for (int i = 0; i < call->in_count && !status; i++) {
        const bool scalar = i < 2;
        if (scalar ? qd_tensor_elems(&call->in[i]) != 1
                   : !qd_shape_equal(&call->in[i].shape, &call->in[2 + (i - 2) % n].shape))
            status = qd_op_fail(call, error, QD_ERR_SHAPE, "input %d does not have the shape it should", i);
    }
    for (int o = 0; o < call->out_count && !status; o++)
        status = qd_op_out(call, o, QD_F32, &call->in[2 + o % n].shape, error);
    return status;
}

static enum qd_status optimizer_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct rule *rule = rule_of(call->node);
    const int n = tensors(call, rule);
    struct rates r = {.r = (double)*(const float *)call->in[0].data,
                      .norm = (double)qd_attr_float(call->node, "norm_coefficient", 0)};
    rule->rates(call->node, &r, (double)*(const int64_t *)call->in[1].data);
    for (int k = 0; k < n; k++)
        for (int64_t i = 0; i < qd_tensor_elems(&call->in[2 + k]); i++) {
            struct element e = {.x = (double)((const float *)call->in[2 + k].data)[i],
                                .g = (double)((const float *)call->in[2 + n + k].data)[i]};
            for (int s = 0; s < rule->sums; s++)
                e.sums[s] = (double)((const float *)call->in[2 + (2 + s) * n + k].data)[i];
            rule->step(&r, &e);
            ((float *)call->out[k].data)[i] = (float)e.x;
            for (int s = 0; s < rule->sums; s++)
                ((float *)call->out[(1 + s) * n + k].data)[i] = (float)e.sums[s];
        }
    return QD_OK;
}

const struct qd_op qd_op_optimizer = {.infer = optimizer_infer, .run = optimizer_run};
