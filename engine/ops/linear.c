/* Linear layers with constant weights: what a node says, quantizing and packing its weights, output shapes. */
#include "engine/ops/linear_impl.h"

#include <math.h>
#include <string.h>

/* k * 255 * 127 must stay below 2^31. */
#define MAX_INT8_K 66000

static const struct qd_tensor *constant_weights(const struct qd_graph *graph, const struct qd_node *node)
{
    if (node->in_count < 2 || node->in[0] == QD_NO_VALUE || node->in[1] == QD_NO_VALUE)
        return NULL;
    const struct qd_value *value = &graph->values[node->in[1]];
    bool usable = value->constant && !value->is_input && value->info.dtype == QD_F32 && value->info.data;
    return usable && !graph->values[node->in[0]].constant ? &value->info : NULL;
}

/* A product as the kernels see it (linear_impl.h). */
struct dims {
    enum qd_linear_kind kind;
    size_t groups, n, k, channels, joined, outputs, inputs, depth;
};

/* [M, C / group, kernel...]. Small groups are joined to one product while its columns still fit one panel: the zeros
 * between them cost no time then, for a panel is computed as a whole. */
static bool read_conv(const struct qd_node *node, const struct qd_shape *w, struct dims *d)
{
    enum { PANEL = 32 };
    int64_t groups = qd_attr_int(node, "group", 1);
    if (w->rank < 3 || w->rank > 2 + QD_MAX_SPATIAL || groups < 1 || w->dims[0] < groups || w->dims[0] % groups)
        return false;
    size_t taps = (size_t)qd_shape_span(w, 2, w->rank), n = (size_t)(w->dims[0] / groups), own = (size_t)w->dims[1];
    d->outputs = (size_t)w->dims[0];
    d->inputs = own * (size_t)groups;
    d->depth = own * taps;
    d->joined = 1;
    if (groups > 1 && n == 1 && own == 1) {
        d->kind = QD_LINEAR_DEPTHWISE;
        d->groups = 1;
        d->n = d->channels = (size_t)groups;
        d->k = taps;
        return taps > 0;
    }
    for (size_t joined = 2; joined <= (size_t)groups && joined * n <= PANEL; joined++)
        if ((size_t)groups % joined == 0 && joined * d->depth <= MAX_INT8_K)
            d->joined = joined;
    d->kind = QD_LINEAR_CONV;
    d->groups = (size_t)groups / d->joined;
    d->n = n * d->joined;
    d->channels = own * d->joined;
    d->k = d->depth * d->joined;
    return d->k > 0;
}

/* True when the attribute is absent or all its numbers are `value`. */
static bool all_are(const struct qd_node *node, const char *name, int64_t value)
{
    size_t n = 0;
    const int64_t *values = qd_attr_ints(node, name, &n);
    for (size_t i = 0; values && i < n; i++)
        if (values[i] != value)
            return false;
    return true;
}

/* [C, M, kernel...], one group, no dilation. Where the stride is as wide as the kernel, every output pixel has one
 * input pixel and one tap. */
static bool read_transposed(const struct qd_node *node, const struct qd_shape *w, struct dims *d)
{
    size_t count = 0, strides = 1, taps = 1;
    const int64_t *stride = qd_attr_ints(node, "strides", &count);
    int spatial = w->rank - 2;
    bool tiled = all_are(node, "pads", 0) && all_are(node, "output_padding", 0);
    if (spatial < 1 || spatial > QD_MAX_SPATIAL || qd_attr_int(node, "group", 1) != 1 ||
        !all_are(node, "dilations", 1) || qd_attr_find(node, "output_shape") || (stride && count != (size_t)spatial))
        return false;
    for (int i = 0; i < spatial; i++) {
        int64_t kernel = w->dims[2 + i], step = stride ? stride[i] : 1;
        if (step < 1 || kernel < step) /* a phase without taps */
            return false;
        tiled = tiled && kernel == step;
        strides *= (size_t)step;
        taps *= (size_t)((kernel + step - 1) / step);
    }
    d->joined = 1;
    d->inputs = d->channels = (size_t)w->dims[0];
    d->outputs = d->n = (size_t)w->dims[1];
    d->depth = d->inputs * (size_t)qd_shape_span(w, 2, w->rank) / strides;
    d->kind = tiled ? QD_LINEAR_TILED : QD_LINEAR_TRANSPOSED;
    d->k = d->inputs * taps;
    d->groups = strides;
    if (tiled) {
        d->groups = (size_t)qd_shape_span(w, 2, w->rank - 1);
        d->n *= (size_t)w->dims[w->rank - 1];
    }
    return d->n > 0 && d->k > 0;
}

/* False when the node has no linear form. */
static bool read_dims(const struct qd_node *node, const struct qd_tensor *w, struct dims *d)
{
    const int64_t *s = w->shape.dims;
    if (qd_node_is(node, "Conv"))
        return read_conv(node, &w->shape, d);
    if (qd_node_is(node, "ConvTranspose"))
        return read_transposed(node, &w->shape, d);
    bool gemm = qd_node_is(node, "Gemm"), trans_b = gemm && qd_attr_int(node, "transB", 0) != 0;
    if ((!gemm && !qd_node_is(node, "MatMul")) || w->shape.rank != 2 || (gemm && qd_attr_int(node, "transA", 0) != 0))
        return false;
    d->kind = QD_LINEAR_ROWS;
    d->groups = d->joined = 1;
    d->n = d->outputs = (size_t)s[trans_b ? 0 : 1];
    d->k = d->channels = d->inputs = d->depth = (size_t)s[trans_b ? 1 : 0];
    return d->n > 0 && d->k > 0;
}

/* Element i of the weights, which may lie misaligned in the mapped file. */
static float weight_at(const struct qd_tensor *w, size_t i)
{
    float value;
    memcpy(&value, (const unsigned char *)w->data + i * sizeof value, sizeof value);
    return value;
}

int64_t qd_linear_outputs(const struct qd_graph *graph, const struct qd_node *node)
{
    struct dims d;
    const struct qd_tensor *w = constant_weights(graph, node);
    return w && read_dims(node, w, &d) ? (int64_t)d.outputs : 0;
}

bool qd_linear_node_is_depthwise(const struct qd_graph *graph, const struct qd_node *node)
{
    struct dims d;
    return qd_node_is(node, "Conv") && read_conv(node, &graph->values[node->in[1]].info.shape, &d) &&
           d.kind == QD_LINEAR_DEPTHWISE;
}

bool qd_linear_node_is_conv(const struct qd_node *node)
{
    return qd_node_is(node, "Conv") || qd_node_is(node, "ConvTranspose");
}

static const char *weights_refusal(const struct qd_tensor *w)
{
    for (size_t i = 0, total = (size_t)qd_tensor_elems(w); i < total; i++)
        if (!isfinite(weight_at(w, i)))
            return "a weight is not finite";
    return NULL;
}

const char *qd_linear_int8_refusal(const struct qd_graph *graph, const struct qd_node *node)
{
    struct dims d;
    const struct qd_tensor *w = constant_weights(graph, node);
    if (!w || !read_dims(node, w, &d))
        return "weights are not constant";
    if (d.k > MAX_INT8_K)
        return "too deep for exact 32-bit accumulation";
    return weights_refusal(w);
}

const char *qd_linear_int16_refusal(const struct qd_graph *graph, const struct qd_node *node)
{
    struct dims d;
    const struct qd_tensor *w = constant_weights(graph, node);
    if (!w || !read_dims(node, w, &d))
        return "weights are not constant";
    if (d.kind == QD_LINEAR_DEPTHWISE)
        return "a depthwise layer waits for memory: FP32 is as fast as 16 bits, and closer";
    return weights_refusal(w);
}

static bool read_list(const struct qd_node *node, const char *name, int64_t least, int64_t otherwise, int count,
                      int64_t *out)
{
    size_t n;
    const int64_t *values = qd_attr_ints(node, name, &n);
    for (int i = 0; i < count; i++) {
        out[i] = values ? (n == (size_t)count ? values[i] : -1) : otherwise;
        if (out[i] < least || out[i] > INT32_MAX)
            return false;
    }
    return true;
}

static enum qd_status read_geometry(const struct qd_node *node, const struct qd_shape *w, struct qd_geometry *g,
                                    struct qd_error *error)
{
    static const struct {
        const char *name;
        enum qd_auto_pad value;
    } pads_by_name[] = {{"NOTSET", QD_PAD_EXPLICIT},
                        {"VALID", QD_PAD_VALID},
                        {"SAME_UPPER", QD_PAD_SAME_UPPER},
                        {"SAME_LOWER", QD_PAD_SAME_LOWER}};
    int64_t pads[2 * QD_MAX_SPATIAL], kernel[QD_MAX_SPATIAL];
    g->spatial = w->rank - 2;
    g->taps = qd_shape_span(w, 2, w->rank);
    if (!read_list(node, "strides", 1, 1, g->spatial, g->stride) ||
        !read_list(node, "dilations", 1, 1, g->spatial, g->dilation) ||
        !read_list(node, "output_padding", 0, 0, g->spatial, g->out_padding) ||
        !read_list(node, "pads", 0, 0, 2 * g->spatial, pads))
        return qd_fail(error, QD_ERR_FORMAT, "%s node '%s': strides, dilations or pads are out of range", node->op,
                       node->name);
    for (int i = 0; i < g->spatial; i++) {
        g->kernel[i] = w->dims[2 + i];
        g->pad_begin[i] = pads[i];
        g->pad_end[i] = pads[g->spatial + i];
        if (!read_list(node, "kernel_shape", 1, -1, g->spatial, kernel))
            kernel[i] = qd_attr_find(node, "kernel_shape") ? -1 : g->kernel[i];
        if (kernel[i] != g->kernel[i])
            return qd_fail(error, QD_ERR_FORMAT, "%s node '%s': kernel_shape differs from the weights", node->op,
                           node->name);
    }
    for (size_t i = 0; i < sizeof pads_by_name / sizeof pads_by_name[0]; i++)
        if (qd_attr_is(node, "auto_pad", "NOTSET", pads_by_name[i].name)) {
            g->auto_pad = pads_by_name[i].value;
            return QD_OK;
        }
    return qd_fail(error, QD_ERR_FORMAT, "%s node '%s': unknown auto_pad", node->op, node->name);
}

bool qd_geometry_resolve(const struct qd_geometry *g, const struct qd_shape *in, int64_t *begin, int64_t *out)
{
    for (int i = 0; i < g->spatial; i++) {
        int64_t size = in->dims[2 + i], reach = (g->kernel[i] - 1) * g->dilation[i] + 1, total;
        begin[i] = g->auto_pad == QD_PAD_EXPLICIT ? g->pad_begin[i] : 0;
        if (g->auto_pad == QD_PAD_EXPLICIT || g->auto_pad == QD_PAD_VALID) {
            total = size + begin[i] + (g->auto_pad == QD_PAD_EXPLICIT ? g->pad_end[i] : 0) - reach;
            if (total < 0)
                return false;
            out[i] = total / g->stride[i] + 1;
        } else {
            out[i] = (size + g->stride[i] - 1) / g->stride[i];
            total = (out[i] - 1) * g->stride[i] + reach - size;
            total = total > 0 ? total : 0;
            begin[i] = g->auto_pad == QD_PAD_SAME_UPPER ? total / 2 : total - total / 2;
        }
        if (out[i] <= 0)
            return false;
    }
    return true;
}

/* Pixels of few bytes, or of an odd number of bytes. */
static bool wants_lines(const struct dims *d, size_t element)
{
    size_t tap_bytes = d->channels * element;
    return d->kind == QD_LINEAR_CONV && d->k > d->channels && (tap_bytes < 16 || tap_bytes % 4 != 0);
}

enum qd_status qd_linear_create(const struct qd_linear_spec *spec, const struct qd_kernels *kernels,
                                struct qd_arena *arena, struct qd_linear **out, struct qd_error *error)
{
    struct dims d;
    if (!read_dims(spec->node, spec->weights, &d))
        return qd_fail(error, QD_ERR_SHAPE, "node '%s' has no linear form", spec->node->name);
    struct qd_linear *l = qd_arena_alloc(arena, 1, sizeof *l);
    if (!l)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for node '%s'", spec->node->name);
    *l = (struct qd_linear){.kernels = kernels,
                            .name = spec->node->name,
                            .kind = d.kind,
                            .int8 = spec->int8,
                            .groups = d.groups,
                            .n = d.n,
                            .k = d.k,
                            .channels = d.channels,
                            .joined = d.joined,
                            .outputs = d.outputs,
                            .inputs = d.inputs,
                            .depth = d.depth,
                            .weight_bits = spec->weight_bits,
                            .fake_bits = spec->fake_bits,
                            .geometry = {.spatial = 1, .kernel = {1}, .taps = 1},
                            .act = spec->act};
    enum qd_status status = QD_OK;
    l->lines = wants_lines(&d, qd_linear_element(l));
    if (l->lines) /* whole units of four bytes */
        l->k = (l->k * qd_linear_element(l) + 3) / 4 * 4 / qd_linear_element(l);
    l->asymmetric = spec->asymmetric && (l->int8 || l->fake_bits) && l->kind != QD_LINEAR_DEPTHWISE &&
                    l->k <= QD_ASYMMETRIC_K && (!spec->given.q || spec->columns); /* given ones bring none */
    if (l->kind != QD_LINEAR_ROWS)
        status = read_geometry(spec->node, &spec->weights->shape, &l->geometry, error);
    if (status)
        return status;
    struct qd_linear_spec scaled = *spec;
    float alpha = qd_node_is(spec->node, "Gemm") ? qd_attr_float(spec->node, "alpha", 1) : 1;
    size_t outputs = d.outputs;
    if (alpha != 1) {
        float *factor = qd_arena_alloc(arena, outputs, sizeof *factor);
        if (!factor)
            return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for node '%s'", spec->node->name);
        for (size_t i = 0; i < outputs; i++)
            factor[i] = alpha * (spec->factor ? spec->factor[i] : 1);
        scaled.factor = factor;
    }
    if (spec->bias) {
        l->bias = qd_arena_alloc(arena, l->groups * l->n, sizeof *l->bias);
        for (size_t i = 0; l->bias && i < l->groups * l->n; i++)
            l->bias[i] = spec->bias[i % outputs];
    }
    status = spec->bias && !l->bias ? QD_ERR_NO_MEMORY : qd_linear_pack(&scaled, l, arena);
    if (status == QD_ERR_UNSUPPORTED)
        return qd_fail(error, status, "node '%s' has weights that are not finite", spec->node->name);
    if (status)
        return qd_fail(error, status, "no memory for the weights of node '%s'", spec->node->name);
    *out = l;
    return QD_OK;
}

bool qd_linear_asymmetric(const struct qd_linear *l) { return l->asymmetric; }
size_t qd_linear_packed_bytes(const struct qd_linear *l) { return l->groups * l->group_bytes; }
bool qd_linear_is_conv(const struct qd_linear *l) { return l->kind != QD_LINEAR_ROWS; }
bool qd_linear_is_depthwise(const struct qd_linear *l) { return l->kind == QD_LINEAR_DEPTHWISE; }

uint64_t qd_linear_macs(const struct qd_linear *l, const struct qd_shape *out)
{
    return (uint64_t)qd_shape_span(out, 0, out->rank) * l->depth; /* every output element is one dot product */
}

/* Output shape of a layer whose input has channels; false when it doesn't fit. */
static bool infer_image(const struct qd_linear *l, const struct qd_shape *in, struct qd_shape *out)
{
    const struct qd_geometry *g = &l->geometry;
    int64_t begin[QD_MAX_SPATIAL];
    if (in->rank != 2 + g->spatial || in->dims[1] != (int64_t)l->inputs)
        return false;
    out->dims[1] = (int64_t)l->outputs;
    return qd_linear_has_window(l) ? qd_geometry_resolve(g, in, begin, out->dims + 2)
                                   : qd_transposed_resolve(g, in, begin, out->dims + 2);
}

enum qd_status qd_linear_infer(const struct qd_linear *l, const struct qd_shape *in, struct qd_shape *out,
                               struct qd_error *error)
{
    char text[160];
    *out = *in;
    bool fits = in->rank >= 1 && in->dims[in->rank - 1] == (int64_t)l->k;
    if (l->kind != QD_LINEAR_ROWS)
        fits = infer_image(l, in, out);
    else if (fits)
        out->dims[in->rank - 1] = (int64_t)l->n;
    if (fits)
        return QD_OK;
    return qd_fail(error, QD_ERR_SHAPE, "node '%s' can't take a tensor of shape %s", l->name,
                   qd_shape_text(in, text, sizeof text));
}
