/* NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss: what a classifier's scores say of given classes. Models that
 * were exported in training mode carry them. Not for gradients. */
#include "engine/ops/helpers.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum reduction { EACH, SUM, MEAN };

struct loss {
    enum reduction reduction;
    bool softmax; /* input 0 holds scores instead of logarithms of probabilities */
    bool ignores;
    int64_t ignored; /* class that counts for nothing */
};

static enum qd_status prepare(const struct qd_node *node, struct qd_arena *arena, void **prep, struct qd_error *error)
{
    static const char *const names[] = {[EACH] = "none", [SUM] = "sum", [MEAN] = "mean"};
    struct loss *loss = QD_PREP_NEW(arena, struct loss);
    if (!loss)
        return qd_op_no_memory(node, error);
    loss->softmax = node->op[0] == 'S';
    loss->ignores = qd_attr_find(node, "ignore_index") != NULL;
    loss->ignored = qd_attr_int(node, "ignore_index", 0);
    *prep = loss;
    for (int i = EACH; i <= MEAN; i++)
        if (qd_attr_is(node, "reduction", "mean", names[i])) {
            loss->reduction = (enum reduction)i;
            return QD_OK;
        }
    return qd_op_refuse(node, error, QD_ERR_FORMAT, "reduction must be none, sum or mean");
}

static enum qd_status infer(const struct qd_call *call, struct qd_error *error)
{
    const struct loss *loss = call->prep;
    const struct qd_shape *x = &call->in[0].shape, *target = &call->in[1].shape;
    enum qd_status status = qd_op_inputs(call, 2, 3, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)) ||
        (status = qd_op_types(call, 1, QD_TYPES_INDEX, error)) ||
        (status = qd_op_types(call, 2, QD_TYPES_FLOAT, error)))
        return status;
    bool fits = x->rank >= 2 && target->rank == x->rank - 1 && x->dims[1] > 0;
    for (int i = 0; fits && i < target->rank; i++)
        fits = target->dims[i] == x->dims[i ? i + 1 : 0];
    fits = fits && (!qd_op_has(call, 2) || (call->in[2].shape.rank == 1 && call->in[2].shape.dims[0] == x->dims[1]));
    if (!fits)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "scores, classes and weights don't fit together");
    struct qd_shape scalar = {.rank = 0};
    status = qd_op_out(call, 0, QD_F32, loss->reduction == EACH ? target : &scalar, error);
    return status || !qd_op_wants(call, 1) ? status : qd_op_out(call, 1, QD_F32, x, error);
}

/* Logarithms of the probabilities of [classes] scores, `step` apart. */
static void log_softmax(const float *x, int64_t classes, int64_t step, float *out)
{
    double most = -INFINITY, sum = 0;
    for (int64_t c = 0; c < classes; c++)
        most = x[c * step] > most ? x[c * step] : most;
    for (int64_t c = 0; c < classes; c++)
        sum += exp(x[c * step] - most);
    for (int64_t c = 0; c < classes; c++)
        out[c * step] = (float)(x[c * step] - most - log(sum));
}

static size_t scratch(const struct qd_call *call)
{
    const struct loss *loss = call->prep;
    return loss->softmax && !qd_op_wants(call, 1) ? qd_tensor_bytes(&call->in[0]) : 0;
}

static int64_t class_at(const struct qd_tensor *t, int64_t i)
{
    return t->dtype == QD_I64 ? ((const int64_t *)t->data)[i] : ((const int32_t *)t->data)[i];
}

static enum qd_status run(const struct qd_call *call, struct qd_error *error)
{
    const struct loss *loss = call->prep;
    const struct qd_shape *shape = &call->in[0].shape;
    int64_t batch = shape->dims[0], classes = shape->dims[1], span = qd_shape_span(shape, 2, shape->rank);
    const float *x = call->in[0].data, *weight = qd_op_has(call, 2) ? call->in[2].data : NULL;
    float *out = call->out[0].data;
    if (loss->softmax) {
        float *logs = qd_op_wants(call, 1) ? call->out[1].data : call->scratch;
        for (int64_t i = 0; i < batch * span; i++) {
            int64_t at = i / span * classes * span + i % span;
            log_softmax(x + at, classes, span, logs + at);
        }
        x = logs;
    }
    double sum = 0, weights = 0;
    for (int64_t i = 0; i < batch * span; i++) {
        int64_t class = class_at(&call->in[1], i);
        bool counts = !loss->ignores || class != loss->ignored;
        if (counts && (class < 0 || class >= classes))
            return qd_op_fail(call, error, QD_ERR_INVALID, "class %" PRId64 " is not below %" PRId64, class, classes);
        float w = !counts ? 0 : weight ? weight[class] : 1;
        float value = counts ? -x[(i / span * classes + class) * span + i % span] * w : 0;
        if (loss->reduction == EACH)
            out[i] = value;
        sum += value;
        weights += w;
    }
    if (loss->reduction != EACH)
        out[0] = (float)(loss->reduction == SUM ? sum : sum / weights);
    return QD_OK;
}

const struct qd_op qd_op_loss = {.prepare = prepare, .infer = infer, .scratch = scratch, .run = run};
