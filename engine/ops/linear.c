/* Linear layers with constant weights: what a node says, quantizing and packing its weights, output shapes. */
#include "engine/ops/linear_impl.h"

#include <math.h>
#include <string.h>

/* k * 255 * 127 must stay below 2^31. */
#define MAX_INT8_K 66000

static bool is_op(const struct qd_node *node, const char *op)
{
    return node->domain[0] == 0 && strcmp(node->op, op) == 0;
}

static const struct qd_tensor *constant_weights(const struct qd_graph *graph, const struct qd_node *node)
{
    if (node->in_count < 2 || node->in[0] == QD_NO_VALUE || node->in[1] == QD_NO_VALUE)
        return NULL;
    const struct qd_value *value = &graph->values[node->in[1]];
    bool usable = value->constant && !value->is_input && value->info.dtype == QD_F32 && value->info.data;
    return usable && !graph->values[node->in[0]].constant ? &value->info : NULL;
}

/* Columns and depth of the product as a whole group sees them. */
struct dims {
    size_t groups, n, k, channels;
};

/* False when the node has no linear form. */
static bool read_dims(const struct qd_node *node, const struct qd_tensor *w, struct dims *d)
{
    const int64_t *s = w->shape.dims;
    if (is_op(node, "Conv")) {
        int64_t groups = qd_attr_int(node, "group", 1);
        if (w->shape.rank < 3 || w->shape.rank > 2 + QD_MAX_SPATIAL || groups < 1 || s[0] < groups || s[0] % groups)
            return false;
        d->groups = (size_t)groups;
        d->n = (size_t)(s[0] / groups);
        d->channels = (size_t)s[1];
        d->k = (size_t)qd_shape_span(&w->shape, 1, w->shape.rank);
    } else {
        bool gemm = is_op(node, "Gemm"), trans_b = gemm && qd_attr_int(node, "transB", 0) != 0;
        if ((!gemm && !is_op(node, "MatMul")) || w->shape.rank != 2 || (gemm && qd_attr_int(node, "transA", 0) != 0))
            return false;
        d->groups = 1;
        d->n = (size_t)s[trans_b ? 0 : 1];
        d->k = d->channels = (size_t)s[trans_b ? 1 : 0];
    }
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
    return w && read_dims(node, w, &d) ? (int64_t)(d.groups * d.n) : 0;
}

bool qd_linear_node_is_conv(const struct qd_node *node) { return is_op(node, "Conv"); }

const char *qd_linear_int8_refusal(const struct qd_graph *graph, const struct qd_node *node)
{
    struct dims d;
    const struct qd_tensor *w = constant_weights(graph, node);
    if (!w || !read_dims(node, w, &d))
        return "weights are not constant";
    if (d.k > MAX_INT8_K)
        return "too deep for exact 32-bit accumulation";
    for (size_t i = 0, total = d.groups * d.n * d.k; i < total; i++)
        if (!isfinite(weight_at(w, i)))
            return "a weight is not finite";
    return NULL;
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
        !read_list(node, "pads", 0, 0, 2 * g->spatial, pads))
        return qd_fail(error, QD_ERR_FORMAT, "Conv node '%s': strides, dilations or pads are out of range", node->name);
    for (int i = 0; i < g->spatial; i++) {
        g->kernel[i] = w->dims[2 + i];
        g->pad_begin[i] = pads[i];
        g->pad_end[i] = pads[g->spatial + i];
        if (!read_list(node, "kernel_shape", 1, -1, g->spatial, kernel))
            kernel[i] = qd_attr_find(node, "kernel_shape") ? -1 : g->kernel[i];
        if (kernel[i] != g->kernel[i])
            return qd_fail(error, QD_ERR_FORMAT, "Conv node '%s': kernel_shape differs from the weights", node->name);
    }
    for (size_t i = 0; i < sizeof pads_by_name / sizeof pads_by_name[0]; i++)
        if (qd_attr_is(node, "auto_pad", "NOTSET", pads_by_name[i].name)) {
            g->auto_pad = pads_by_name[i].value;
            return QD_OK;
        }
    return qd_fail(error, QD_ERR_FORMAT, "Conv node '%s': unknown auto_pad", node->name);
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

/* Row j of a group's weights as the kernels want it: taps outside, channels inside, multiplied by the factor. */
static void gather_row(const struct qd_linear_spec *spec, const struct qd_linear *l, size_t group, size_t j, float *row)
{
    size_t output = group * l->n + j, taps = l->k / l->channels;
    float factor = spec->factor ? spec->factor[output] : 1;
    bool rows = l->conv || (is_op(spec->node, "Gemm") && qd_attr_int(spec->node, "transB", 0) != 0);
    for (size_t t = 0; t < taps; t++)
        for (size_t c = 0; c < l->channels; c++) {
            size_t at = rows ? output * l->k + c * taps + t : c * l->n + j;
            row[t * l->channels + c] = weight_at(spec->weights, at) * factor;
        }
}

static float absmax(const float *values, size_t n, float start)
{
    for (size_t i = 0; i < n; i++)
        start = fabsf(values[i]) > start ? fabsf(values[i]) : start;
    return start;
}

static enum qd_status pack_int8(const struct qd_linear_spec *spec, struct qd_linear *l, float *row, int8_t *quantized)
{
    float whole = 0;
    for (size_t g = 0; spec->per_tensor && g < l->groups; g++)
        for (size_t j = 0; j < l->n; j++) {
            gather_row(spec, l, g, j, row);
            whole = absmax(row, l->k, whole);
        }
    for (size_t g = 0; g < l->groups; g++) {
        for (size_t j = 0; j < l->n; j++) {
            gather_row(spec, l, g, j, row);
            float scale = qd_weight_scale_s8(spec->per_tensor ? whole : absmax(row, l->k, 0));
            if (!isfinite(scale))
                return QD_ERR_UNSUPPORTED;
            struct qd_qparams qp = {.scale = scale, .zero_point = 0, .qmin = -127, .qmax = 127};
            l->weight_scale[g * l->n + j] = scale;
            for (size_t p = 0; p < l->k; p++)
                quantized[j * l->k + p] = (int8_t)qd_round_clamp(row[p] / scale, &qp);
        }
        l->kernels->gemm_q8.pack(l->n, l->k, quantized, l->k, 1, l->packed + g * l->group_bytes, l->sums + g * l->n);
    }
    return QD_OK;
}

static enum qd_status pack_fp32(const struct qd_linear_spec *spec, struct qd_linear *l, float *rows)
{
    for (size_t g = 0; g < l->groups; g++) {
        for (size_t j = 0; j < l->n; j++)
            gather_row(spec, l, g, j, rows + j * l->k);
        l->kernels->gemm_f32.pack(l->n, l->k, rows, l->k, 1, NULL, l->packed + g * l->group_bytes);
    }
    return QD_OK;
}

static enum qd_status pack(const struct qd_linear_spec *spec, struct qd_linear *l, struct qd_arena *arena)
{
    enum qd_status status = QD_ERR_NO_MEMORY;
    size_t outputs = l->groups * l->n;
    float *row = NULL;
    int8_t *quantized = NULL;
    l->group_bytes = qd_align_up(spec->int8 ? l->kernels->gemm_q8.packed_bytes(l->n, l->k)
                                            : l->kernels->gemm_f32.packed_bytes(l->n, l->k));
    l->packed = qd_arena_alloc_raw(arena, l->groups * l->group_bytes);
    l->sums = qd_arena_alloc(arena, outputs, sizeof *l->sums);
    l->weight_scale = qd_arena_alloc(arena, outputs, sizeof *l->weight_scale);
    if (!l->packed || !l->sums || !l->weight_scale)
        return status;
    if (spec->int8) {
        row = qd_calloc(l->k, sizeof *row);
        quantized = qd_calloc(l->n * l->k, 1);
        if (row && quantized)
            status = pack_int8(spec, l, row, quantized);
    } else {
        row = qd_calloc(l->n * l->k, sizeof *row);
        if (row)
            status = pack_fp32(spec, l, row);
    }
    qd_free(quantized);
    qd_free(row);
    return status;
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
                            .int8 = spec->int8,
                            .conv = is_op(spec->node, "Conv"),
                            .groups = d.groups,
                            .n = d.n,
                            .k = d.k,
                            .channels = d.channels,
                            .geometry = {.taps = 1},
                            .act = spec->act};
    enum qd_status status = l->conv ? read_geometry(spec->node, &spec->weights->shape, &l->geometry, error) : QD_OK;
    if (status)
        return status;
    struct qd_linear_spec scaled = *spec;
    float alpha = is_op(spec->node, "Gemm") ? qd_attr_float(spec->node, "alpha", 1) : 1;
    size_t outputs = d.groups * d.n;
    if (alpha != 1) {
        float *factor = qd_arena_alloc(arena, outputs, sizeof *factor);
        if (!factor)
            return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for node '%s'", spec->node->name);
        for (size_t i = 0; i < outputs; i++)
            factor[i] = alpha * (spec->factor ? spec->factor[i] : 1);
        scaled.factor = factor;
    }
    if (spec->bias) {
        l->bias = qd_arena_alloc(arena, outputs, sizeof *l->bias);
        if (l->bias)
            memcpy(l->bias, spec->bias, outputs * sizeof *l->bias);
    }
    status = spec->bias && !l->bias ? QD_ERR_NO_MEMORY : pack(&scaled, l, arena);
    if (status == QD_ERR_UNSUPPORTED)
        return qd_fail(error, status, "node '%s' has weights that are not finite", spec->node->name);
    if (status)
        return qd_fail(error, status, "no memory for the weights of node '%s'", spec->node->name);
    *out = l;
    return QD_OK;
}

size_t qd_linear_packed_bytes(const struct qd_linear *l) { return l->groups * l->group_bytes; }
bool qd_linear_is_conv(const struct qd_linear *l) { return l->conv; }

uint64_t qd_linear_macs(const struct qd_linear *l, const struct qd_shape *out)
{
    return (uint64_t)qd_shape_span(out, 0, out->rank) * l->k; /* every output element is one dot product */
}

enum qd_status qd_linear_infer(const struct qd_linear *l, const struct qd_shape *in, struct qd_shape *out,
                               struct qd_error *error)
{
    char text[160];
    int64_t begin[QD_MAX_SPATIAL];
    bool fits;
    *out = *in;
    if (l->conv) {
        fits = in->rank == 2 + l->geometry.spatial && in->dims[1] == (int64_t)(l->groups * l->channels) &&
               qd_geometry_resolve(&l->geometry, in, begin, out->dims + 2);
        out->dims[1] = (int64_t)(l->groups * l->n);
    } else {
        fits = in->rank >= 1 && in->dims[in->rank - 1] == (int64_t)l->k;
        if (fits)
            out->dims[in->rank - 1] = (int64_t)l->n;
    }
    if (fits)
        return QD_OK;
    return qd_fail(error, QD_ERR_SHAPE, "node '%s' can't take a tensor of shape %s", l->name,
                   qd_shape_text(in, text, sizeof text));
}
