/* Linear layers whose weights a quantized file gives as integers. INT8 takes them as they are: quantizing their real
 * values again would give others wherever a scale isn't the largest magnitude's. */
#include "engine/ops/linear_impl.h"

#include <float.h>

static int32_t integer_at(const struct qd_tensor *t, size_t i)
{
    return t->dtype == QD_U8 ? ((const uint8_t *)t->data)[i] : ((const int8_t *)t->data)[i];
}

int32_t qd_given_weight(const struct qd_given_weights *given, size_t output, size_t i)
{
    int32_t zero = given->zero ? integer_at(given->zero, qd_tensor_elems(given->zero) == 1 ? 0 : output) : 0;
    return integer_at(given->q, i) - zero;
}

static const struct qd_tensor *constant_of(const struct qd_graph *graph, int value)
{
    const struct qd_value *v = value == QD_NO_VALUE ? NULL : &graph->values[value];
    return v && v->constant && !v->is_input && v->info.data ? &v->info : NULL;
}

/* The axis of the weights that the outputs lie along. */
static int output_axis(const struct qd_node *node)
{
    if (qd_node_is(node, "Conv"))
        return 0;
    return qd_node_is(node, "Gemm") && qd_attr_int(node, "transB", 0) != 0 ? 0 : 1;
}

/* So deep sums stay exact when a weight is -128; our own weights are -127 at the least. */
#define MOST_DEPTH 65700

static bool in_s8(const struct qd_given_weights *given, const struct qd_shape *shape, int axis)
{
    const int64_t inner = qd_shape_span(shape, axis + 1, shape->rank), dim = shape->dims[axis];
    const int64_t total = qd_tensor_elems(given->q);
    const int32_t least = total / dim > MOST_DEPTH ? -INT8_MAX : INT8_MIN;
    for (int64_t i = 0; i < total; i++) {
        int32_t w = qd_given_weight(given, (size_t)(i / inner % dim), (size_t)i);
        if (w < least || w > INT8_MAX)
            return false;
    }
    return true;
}

static bool usable(const float *scales, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!(scales[i] >= FLT_MIN && scales[i] <= FLT_MAX))
            return false;
    return true;
}

const char *qd_linear_given(const struct qd_graph *graph, const struct qd_node *node, struct qd_given_weights *out)
{
    const struct qd_value *weights = &graph->values[node->in[1]];
    const struct qd_integers *from = weights->integers;
    const struct qd_tensor *q = from ? constant_of(graph, from->q) : NULL;
    const struct qd_tensor *scale = from ? constant_of(graph, from->scale) : NULL;
    const struct qd_tensor *zero = from ? constant_of(graph, from->zero) : NULL;
    const int axis = output_axis(node);
    *out = (struct qd_given_weights){.q = NULL};
    if (!q || !scale || (from->zero != QD_NO_VALUE && !zero) || weights->info.shape.rank <= axis ||
        !qd_shape_equal(&q->shape, &weights->info.shape) || (q->dtype != QD_I8 && q->dtype != QD_U8) ||
        scale->dtype != QD_F32 || (zero && zero->dtype != q->dtype))
        return "its weights are in full precision in the file";
    const int64_t outputs = q->shape.dims[axis], scales = qd_tensor_elems(scale),
                  zeros = zero ? qd_tensor_elems(zero) : 1;
    if ((scales != 1 && (scales != outputs || from->axis != axis || scale->shape.rank != 1)) ||
        (zeros != 1 && zeros != scales))
        return "its weights have several scales for one output in the file";
    if (!usable(scale->data, scales))
        return "its weights have a scale in the file that is no positive, finite, normal number";
    struct qd_given_weights given = {q, zero, scale->data, scales == 1};
    if (!in_s8(&given, &q->shape, axis))
        return "its asymmetric weights in the file take more than 8 bits with a sign";
    *out = given;
    return NULL;
}
