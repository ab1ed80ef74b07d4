/* A linear layer's weights as integers in the model's own order: for writing them out, where packing (linear_pack.c)
 * puts them in the kernels'. The same scales and the same integers, by the same equations. */
#include "engine/ops/linear.h"
#include "engine/quant/requant.h"

#include <string.h>

/* The axis of the output channels, as the operators define it. */
static int channel_axis(const struct qd_node *node)
{
    if (qd_node_is(node, "Conv"))
        return 0;
    return qd_node_is(node, "Gemm") && qd_attr_int(node, "transB", 0) != 0 ? 0 : 1;
}

static float alpha_of(const struct qd_node *node)
{
    return qd_node_is(node, "Gemm") ? qd_attr_float(node, "alpha", 1) : 1;
}

/* Element i times what is folded into it, in the order of packing. */
static float weight_at(const struct qd_linear_spec *spec, int axis, float alpha, size_t i, size_t output)
{
    const size_t last = (size_t)spec->weights->shape.dims[1]; /* of a matrix */
    const bool channels = qd_node_is(spec->node, "Conv");     /* a depthwise one: an input for each output */
    const float factor = spec->factor ? spec->factor[output] : 1;
    float value;
    memcpy(&value, (const unsigned char *)spec->weights->data + i * sizeof value, sizeof value);
    value *= alpha != 1 ? alpha * factor : factor;
    return spec->columns ? value * spec->columns[channels ? output : axis ? i / last : i % last] : value;
}

/* (4b), of output j. */
static float window_scale(const struct qd_linear_spec *spec, size_t j)
{
    const struct qd_shape *shape = &spec->weights->shape;
    const size_t channels = (size_t)shape->dims[1], taps = (size_t)qd_shape_span(shape, 2, shape->rank);
    float row[QD_WINDOW_WEIGHTS];
    for (size_t i = 0; i < channels * taps; i++)
        row[i] = weight_at(spec, 0, 1, j * channels * taps + i, j);
    return qd_weight_scale_window(&(struct qd_window_weights){row, channels, taps, taps, 1}, 8);
}

int qd_linear_weight_scales(const struct qd_linear_spec *spec, float *scale)
{
    const int axis = channel_axis(spec->node);
    const float alpha = alpha_of(spec->node);
    const struct qd_shape *shape = &spec->weights->shape;
    const size_t outputs = (size_t)shape->dims[axis], inner = (size_t)qd_shape_span(shape, axis + 1, shape->rank),
                 total = (size_t)qd_tensor_elems(spec->weights);
    float whole = 0;
    memset(scale, 0, outputs * sizeof *scale);
    for (size_t i = 0; i < total; i++) {
        const size_t output = i / inner % outputs;
        const float magnitude = fabsf(weight_at(spec, axis, alpha, i, output));
        scale[output] = magnitude > scale[output] ? magnitude : scale[output];
        whole = magnitude > whole ? magnitude : whole;
    }
    const bool window = qd_node_is(spec->node, "Conv") && !spec->per_tensor &&
                        qd_window_is_small((size_t)shape->dims[1], (size_t)qd_shape_span(shape, 2, shape->rank));
    for (size_t j = 0; j < outputs; j++)
        scale[j] = window ? window_scale(spec, j) : qd_weight_scale_s8(spec->per_tensor ? whole : scale[j]);
    return axis;
}

void qd_linear_weight_integers(const struct qd_linear_spec *spec, const float *scale, size_t first, size_t count,
                               int8_t *out)
{
    const int axis = channel_axis(spec->node);
    const float alpha = alpha_of(spec->node);
    const struct qd_shape *shape = &spec->weights->shape;
    const size_t outputs = (size_t)shape->dims[axis], inner = (size_t)qd_shape_span(shape, axis + 1, shape->rank);
    for (size_t i = 0; i < count; i++) {
        const size_t output = (first + i) / inner % outputs;
        const struct qd_qparams qp = {scale[output], 0, -127, 127};
        out[i] = (int8_t)qd_round_clamp(weight_at(spec, axis, alpha, first + i, output) / scale[output], &qp);
    }
}
