/* Linear layers: weights from the model's layout to the kernels'. One panel of columns at a time goes through a small
 * buffer, so that loading a model never holds a second copy of its weights. */
#include "engine/ops/linear_impl.h"

#include <math.h>
#include <string.h>

/* Element i of the weights, which may lie misaligned in the mapped file. */
static float weight_at(const struct qd_tensor *w, size_t i)
{
    float value;
    memcpy(&value, (const unsigned char *)w->data + i * sizeof value, sizeof value);
    return value;
}

struct packer {
    const struct qd_linear_spec *spec;
    struct qd_linear *l;
    bool columns;      /* a matrix whose rows are inputs: [k][n] in the model */
    size_t panel;      /* columns at a time */
    float *rows;       /* [panel][k] */
    int8_t *integers;  /* [panel][k] INT8 */
    int16_t *words;    /* [panel][k] INT16 */
    const float *mean; /* [inputs] nothing is packed: what rounding costs goes to the bias; else NULL */
    void (*see)(void *ctx, const float *weights); /* nothing is quantized: rows are shown; else NULL */
    void *ctx;
    const float *share; /* [taps] then */
    float *bias;        /* [groups * n] then */
    struct span *spans; /* [outputs] where one scale serves several columns; else NULL */
};

/* Least and largest weight; zero is always between them. */
struct span {
    float lo, hi;
};

/* Integer weights that are taken as they are: rows then hold integers without their zero points. Smoothed ones are
 * quantized again, and who looks at weights sees real ones. */
static bool is_given(const struct packer *p) { return p->l->int8 && p->spec->given.q && !p->spec->columns && !p->see; }

/* Weight i of an output, times its factor. */
static float element(const struct packer *p, size_t output, size_t i, float factor)
{
    return is_given(p) ? (float)qd_given_weight(&p->spec->given, output, i) : weight_at(p->spec->weights, i) * factor;
}

/* Output channel of column j of product g. */
static size_t output_of(const struct qd_linear *l, size_t g, size_t j)
{
    return l->kind == QD_LINEAR_TILED || l->kind == QD_LINEAR_TRANSPOSED ? j % l->outputs : g * l->n + j;
}

/* Convolutions: weights of the model are [outputs][channels of a node's group][taps], depth here is [tap][channel of
 * the joined groups]. */
static void gather_conv(const struct packer *p, size_t output, float factor, float *row)
{
    const struct qd_linear *l = p->l;
    const size_t taps = (size_t)l->geometry.taps, own = l->channels / l->joined,
                 group = output / (l->outputs / (l->inputs / own));
    const size_t first = group % l->joined * own;
    memset(row, 0, l->k * sizeof *row);
    for (size_t c = 0; c < own; c++)
        for (size_t t = 0; t < taps; t++)
            row[t * l->channels + first + c] = element(p, output, (output * own + c) * taps + t, factor);
}

/* Taps of one phase of a transposed convolution: weights of the model are [inputs][outputs][taps]. */
static void gather_phase(const struct packer *p, size_t phase, size_t output, float factor, float *row)
{
    const struct qd_linear *l = p->l;
    const struct qd_geometry *g = &l->geometry;
    const size_t taps = l->k / l->channels;
    for (size_t t = 0; t < taps; t++) {
        size_t rest = t, remainder = phase, scale = 1, at = 0;
        bool exists = true;
        for (int d = g->spatial - 1; d >= 0; d--) {
            size_t stride = (size_t)g->stride[d], own = (size_t)qd_phase_taps(g, d);
            size_t tap = remainder % stride + rest % own * stride;
            exists &= tap < (size_t)g->kernel[d];
            at += tap * scale;
            scale *= (size_t)g->kernel[d];
            remainder /= stride;
            rest /= own;
        }
        for (size_t c = 0; c < l->channels; c++)
            row[t * l->channels + c] = exists ? element(p, output, (c * l->outputs + output) * scale + at, factor) : 0;
    }
}

/* Depth of column j of product g as the kernels want it, multiplied by the factor. */
static void gather_row(const struct packer *p, size_t g, size_t j, float *row)
{
    const struct qd_linear *l = p->l;
    const size_t output = output_of(l, g, j), taps = (size_t)l->geometry.taps;
    const float factor = p->spec->factor ? p->spec->factor[output] : 1;
    switch (l->kind) {
    case QD_LINEAR_CONV:
        gather_conv(p, output, factor, row);
        return;
    case QD_LINEAR_TRANSPOSED:
        gather_phase(p, g, output, factor, row);
        return;
    case QD_LINEAR_TILED: /* [inputs][outputs][taps] */
        for (size_t c = 0; c < l->k; c++)
            row[c] = element(p, output, (c * l->outputs + output) * taps + g * (l->n / l->outputs) + j / l->outputs,
                             factor);
        return;
    case QD_LINEAR_ROWS:
    case QD_LINEAR_DEPTHWISE:
        for (size_t i = 0; i < l->k; i++)
            row[i] = element(p, output, output * l->k + i, factor);
        return;
    }
}

static void gather_plainly(const struct packer *p, size_t g, size_t first, size_t count)
{
    const struct qd_linear *l = p->l;
    if (!p->columns) {
        for (size_t j = 0; j < count; j++)
            gather_row(p, g, first + j, p->rows + j * l->k);
        return;
    }
    const float *factor = p->spec->factor; /* read along the model's rows, whole cache lines at a time */
    for (size_t i = 0; i < l->k; i++)
        for (size_t j = 0; j < count; j++)
            p->rows[j * l->k + i] = element(p, first + j, i * l->n + first + j, factor ? factor[first + j] : 1);
}

/* Columns [first, first + count) of product g into p->rows. */
static void gather(const struct packer *p, size_t g, size_t first, size_t count)
{
    gather_plainly(p, g, first, count);
    for (size_t j = 0; p->spec->columns && j < count; j++)
        for (size_t i = 0; i < p->l->k; i++)
            p->rows[j * p->l->k + i] *= p->spec->columns[p->l->kind == QD_LINEAR_DEPTHWISE ? first + j : i];
}

static struct span span_of(const float *values, size_t n, struct span start)
{
    for (size_t i = 0; i < n; i++) {
        start.lo = values[i] < start.lo ? values[i] : start.lo;
        start.hi = values[i] > start.hi ? values[i] : start.hi;
    }
    return start;
}

static float absmax(const struct span *s) { return -s->lo > s->hi ? -s->lo : s->hi; }

/* Of column j of product g, whose weights are row[k]. */
static struct span column_span(const struct packer *p, size_t g, size_t j, const float *row)
{
    return p->spans ? p->spans[output_of(p->l, g, j)] : span_of(row, p->l->k, (struct span){0, 0});
}

/* One scale for several columns: the span of all taps of an output, or of everything. */
static void find_spans(const struct packer *p)
{
    const struct qd_linear *l = p->l;
    for (size_t g = 0; g < l->groups; g++)
        for (size_t first = 0; first < l->n; first += p->panel) {
            size_t count = l->n - first < p->panel ? l->n - first : p->panel;
            gather(p, g, first, count);
            for (size_t j = 0; j < count; j++) {
                struct span *all = &p->spans[p->spec->per_tensor ? 0 : output_of(l, g, first + j)];
                *all = span_of(p->rows + j * l->k, l->k, *all);
            }
        }
    for (size_t j = 1; p->spec->per_tensor && j < l->outputs; j++)
        p->spans[j] = p->spans[0];
}

/* Symmetric, of an output whose weights, [tap][channel], are row[k]. */
static float weight_scale(const struct packer *p, const struct span *span, const float *row, int bits)
{
    const struct qd_linear *l = p->l;
    const size_t channels = l->kind == QD_LINEAR_DEPTHWISE ? 1 : l->channels;
    if (!qd_linear_has_window(l) || p->spans ||
        !qd_window_is_small((size_t)p->spec->weights->shape.dims[1], (size_t)l->geometry.taps))
        return qd_weight_scale(absmax(span), bits);
    return qd_weight_scale_window(&(struct qd_window_weights){row, channels, (size_t)l->geometry.taps, 1, channels},
                                  bits);
}

/* Of 8 bits; an s8 value as it is carried by u8. */
static struct qd_qparams weight_qparams(const struct packer *p, const struct span *span, const float *row)
{
    if (p->l->weight_zeros)
        return qd_qparams_from_range((double)span->lo, (double)span->hi, false);
    return (struct qd_qparams){.scale = weight_scale(p, span, row, 8),
                               .zero_point = QD_CARRIER_OFFSET,
                               .qmin = QD_CARRIER_OFFSET - 127,
                               .qmax = 255};
}

/* False when a scale is not finite. */
static bool quantize(const struct packer *p, size_t g, size_t first, size_t count)
{
    const struct qd_linear *l = p->l;
    for (size_t j = 0; j < count; j++) {
        const float *row = p->rows + j * l->k;
        int8_t *to = p->integers + j * l->k;
        const struct span span = column_span(p, g, first + j, row);
        if (!isfinite(absmax(&span)))
            return false;
        const struct qd_qparams qp = weight_qparams(p, &span, row);
        if (l->weight_zeros)
            l->weight_zeros[g * l->n + first + j] = qp.zero_point - QD_CARRIER_OFFSET;
        l->weight_scale[g * l->n + first + j] = qp.scale;
        l->kernels->quantize_u8(row, l->k, &qp, (uint8_t *)to, NULL);
        for (size_t i = 0; i < l->k; i++)
            to[i] = (int8_t)((uint8_t)to[i] ^ QD_CARRIER_OFFSET);
    }
    return true;
}

/* Integers of the file: the factor goes into their scale. */
static bool take(const struct packer *p, size_t g, size_t first, size_t count)
{
    const struct qd_linear *l = p->l;
    const struct qd_given_weights *given = &p->spec->given;
    for (size_t j = 0; j < count; j++) {
        const size_t output = output_of(l, g, first + j);
        const float scale = given->scale[given->one_scale ? 0 : output] *
                            (p->spec->factor ? p->spec->factor[output] : 1);
        if (!isfinite(scale))
            return false;
        l->weight_scale[g * l->n + first + j] = scale;
        for (size_t i = 0; i < l->k; i++)
            p->integers[j * l->k + i] = (int8_t)p->rows[j * l->k + i];
    }
    return true;
}

/* The same in 16 bits, of which the weights use weight_bits. */
static bool quantize_words(const struct packer *p, size_t g, size_t first, size_t count)
{
    const struct qd_linear *l = p->l;
    const int32_t most = (1 << (l->weight_bits - 1)) - 1;
    for (size_t j = 0; j < count; j++) {
        const float *row = p->rows + j * l->k;
        const struct span span = column_span(p, g, first + j, row);
        struct qd_qparams qp = {.scale = qd_weight_scale(absmax(&span), l->weight_bits), .qmin = -most, .qmax = most};
        if (!isfinite(qp.scale))
            return false;
        l->weight_scale[g * l->n + first + j] = qp.scale;
        l->kernels->quantize_s16(row, l->k, &qp, p->words + j * l->k, NULL);
    }
    return true;
}

/* To integers of few bits and back, in place: by the reciprocal of the scale, as epilogues do and as PyTorch's
 * fake_quantize does. */
static bool fake(const struct packer *p, size_t g, size_t first, size_t count)
{
    const struct qd_linear *l = p->l;
    const int32_t most = (1 << (l->fake_bits - 1)) - 1;
    for (size_t j = 0; j < count; j++) {
        float *row = p->rows + j * l->k;
        const struct span span = column_span(p, g, first + j, row);
        if (!isfinite(absmax(&span)))
            return false;
        struct qd_qparams qp = {.scale = weight_scale(p, &span, row, l->fake_bits),
                                .zero_point = QD_CARRIER_OFFSET,
                                .qmin = QD_CARRIER_OFFSET - most,
                                .qmax = QD_CARRIER_OFFSET + most};
        if (l->asymmetric)
            qp = qd_qparams_from_range_bits((double)span.lo, (double)span.hi, false, l->fake_bits);
        l->weight_scale[g * l->n + first + j] = qp.scale;
        l->kernels->requantize_u8(row, l->k, &qp, (uint8_t *)p->integers, NULL);
        l->kernels->dequantize_u8((const uint8_t *)p->integers, l->k, &qp, row);
    }
    return true;
}

/* A panel of a product's columns to its place: panels stand one after the other. */
static void pack_panel(const struct packer *p, size_t g, size_t first, size_t count)
{
    const struct qd_linear *l = p->l;
    const struct qd_kernels *kernels = l->kernels;
    unsigned char *to = l->packed + g * l->group_bytes;
    int32_t *sums = l->sums + g * l->n + first;
    if (l->kind == QD_LINEAR_DEPTHWISE) {
        size_t kw = qd_kernel_columns(&l->geometry), kh = qd_kernel_rows(&l->geometry);
        if (l->int8)
            kernels->depthwise_q8.pack(count, kh, kw, p->integers, to, sums);
        else
            kernels->depthwise_f32.pack(count, kh, kw, p->rows, to);
    } else if (l->int8) {
        to += first ? kernels->gemm_q8.packed_bytes(first, l->k) : 0;
        kernels->gemm_q8.pack(count, l->k, p->integers, l->k, 1, to, sums);
        for (size_t j = 0; l->weight_zeros && j < count; j++)
            sums[j] -= (int32_t)l->k * l->weight_zeros[g * l->n + first + j];
    } else if (l->weight_bits) {
        to += first ? kernels->gemm_q16.packed_bytes(first, l->k) : 0;
        kernels->gemm_q16.pack(count, l->k, NULL, p->words, l->k, 1, to);
    } else {
        to += first ? kernels->gemm_f32.packed_bytes(first, l->k) : 0;
        kernels->gemm_f32.pack(count, l->k, p->rows, l->k, 1, NULL, to);
    }
}

/* The input channel that weight i of column j of product g meets. */
static size_t channel_of(const struct qd_linear *l, size_t g, size_t j, size_t i)
{
    switch (l->kind) {
    case QD_LINEAR_DEPTHWISE:
        return j;
    case QD_LINEAR_CONV:
        return g * l->channels + i % l->channels;
    case QD_LINEAR_TRANSPOSED:
        return i % l->channels;
    case QD_LINEAR_ROWS:
    case QD_LINEAR_TILED:
        break;
    }
    return i;
}

/* Equation (9) for a panel of columns, in double and in the order of the depth. */
static void correct_panel(const struct packer *p, size_t g, size_t first, size_t count)
{
    const struct qd_linear *l = p->l;
    for (size_t j = 0; j < count; j++) {
        const size_t column = g * l->n + first + j;
        const float *row = p->rows + j * l->k;
        const int8_t *q = p->integers + j * l->k;
        const double scale = (double)l->weight_scale[column];
        const int32_t zero = l->weight_zeros ? l->weight_zeros[column] : 0;
        const size_t tap = l->kind == QD_LINEAR_DEPTHWISE ? 1 : l->channels; /* weights of one */
        const bool window = qd_linear_has_window(l);
        const size_t deep = window ? (size_t)l->geometry.taps * tap : l->k; /* l->k may be rounded up */
        double sum = 0;
        for (size_t i = 0; i < deep; i++)
            sum += ((double)row[i] - scale * (q[i] - zero)) * (double)p->mean[channel_of(l, g, first + j, i)] *
                   (window ? (double)p->share[i / tap] : 1);
        p->bias[column] += (float)sum;
    }
}

static enum qd_status pack_all(const struct packer *p)
{
    const struct qd_linear *l = p->l;
    if (p->spans)
        find_spans(p);
    for (size_t g = 0; g < l->groups; g++)
        for (size_t first = 0; first < l->n; first += p->panel) {
            size_t count = l->n - first < p->panel ? l->n - first : p->panel;
            gather(p, g, first, count);
            for (size_t j = 0; p->see && j < count; j++)
                p->see(p->ctx, p->rows + j * l->k);
            if (p->see)
                continue;
            if ((l->int8 && !(is_given(p) ? take : quantize)(p, g, first, count)) ||
                (l->weight_bits && !quantize_words(p, g, first, count)) || (l->fake_bits && !fake(p, g, first, count)))
                return QD_ERR_UNSUPPORTED;
            if (p->mean)
                correct_panel(p, g, first, count);
            else
                pack_panel(p, g, first, count);
        }
    return QD_OK;
}

static size_t packed_bytes(const struct qd_linear *l)
{
    size_t kw = qd_kernel_columns(&l->geometry), kh = qd_kernel_rows(&l->geometry);
    if (l->kind == QD_LINEAR_DEPTHWISE)
        return l->int8 ? l->kernels->depthwise_q8.packed_bytes(l->n, kh, kw)
                       : l->kernels->depthwise_f32.packed_bytes(l->n, kh, kw);
    return l->int8          ? l->kernels->gemm_q8.packed_bytes(l->n, l->k)
           : l->weight_bits ? l->kernels->gemm_q16.packed_bytes(l->n, l->k)
                            : l->kernels->gemm_f32.packed_bytes(l->n, l->k);
}

static bool is_columns(const struct qd_linear_spec *spec, const struct qd_linear *l)
{
    const bool trans_b = strcmp(spec->node->op, "Gemm") == 0 && qd_attr_int(spec->node, "transB", 0) != 0;
    return l->kind == QD_LINEAR_ROWS && !trans_b;
}

/* Buffers for a panel, then all panels. */
static enum qd_status go_through(struct packer *p)
{
    const struct qd_linear *l = p->l;
    enum qd_status status = QD_ERR_NO_MEMORY;
    p->columns = is_columns(p->spec, l);
    p->panel = l->kind == QD_LINEAR_DEPTHWISE ? l->n
               : l->int8                      ? l->kernels->gemm_q8.nr
               : l->weight_bits               ? l->kernels->gemm_q16.nr
                                              : l->kernels->gemm_f32.nr;
    p->rows = qd_calloc(p->panel * l->k, sizeof *p->rows);
    const bool integers = l->int8 || l->fake_bits;
    p->integers = integers ? qd_calloc(p->panel * l->k, 1) : NULL;
    p->words = l->weight_bits ? qd_calloc(p->panel * l->k, sizeof *p->words) : NULL;
    bool whole = (integers || l->weight_bits) && !is_given(p) &&
                 (p->spec->per_tensor || l->kind == QD_LINEAR_TILED || l->kind == QD_LINEAR_TRANSPOSED);
    p->spans = whole ? qd_calloc(l->outputs, sizeof *p->spans) : NULL;
    if (p->rows && (p->integers || !integers) && (p->words || !l->weight_bits) && (p->spans || !whole))
        status = pack_all(p);
    qd_free(p->spans);
    qd_free(p->integers);
    qd_free(p->words);
    qd_free(p->rows);
    return status;
}

enum qd_status qd_linear_pack(const struct qd_linear_spec *spec, struct qd_linear *l, struct qd_arena *arena)
{
    struct packer p = {.spec = spec, .l = l};
    l->group_bytes = qd_align_up(packed_bytes(l));
    l->packed = qd_arena_alloc_raw(arena, l->groups * l->group_bytes);
    l->sums = qd_arena_alloc(arena, l->groups * l->n, sizeof *l->sums);
    l->weight_scale = qd_arena_alloc(arena, l->groups * l->n, sizeof *l->weight_scale);
    if (l->asymmetric && l->int8)
        l->weight_zeros = qd_arena_alloc(arena, l->groups * l->n, sizeof *l->weight_zeros);
    if (!l->packed || !l->sums || !l->weight_scale || (l->asymmetric && l->int8 && !l->weight_zeros))
        return QD_ERR_NO_MEMORY;
    return go_through(&p);
}

enum qd_status qd_linear_correct(const struct qd_linear_spec *spec, const struct qd_linear *linear, const float *mean,
                                 const float *share, float *bias)
{
    struct qd_linear mine = *linear; /* requests run the other: its scales are found again in memory of our own */
    const size_t columns = qd_linear_bias_count(linear);
    struct packer p = {.spec = spec, .l = &mine, .mean = mean, .share = share, .bias = bias};
    for (size_t i = 0; i < columns; i++)
        bias[i] = linear->bias ? linear->bias[i] : 0;
    if (is_given(&p)) /* nothing was rounded */
        return QD_OK;
    mine.weight_scale = qd_calloc(columns, sizeof *mine.weight_scale);
    mine.weight_zeros = mine.asymmetric ? qd_calloc(columns, sizeof *mine.weight_zeros) : NULL;
    const bool room = mine.weight_scale && (mine.weight_zeros || !mine.asymmetric);
    enum qd_status status = room ? go_through(&p) : QD_ERR_NO_MEMORY;
    qd_free(mine.weight_zeros);
    qd_free(mine.weight_scale);
    return status;
}

enum qd_status qd_linear_visit(const struct qd_linear_spec *spec, const struct qd_linear *linear,
                               void (*see)(void *ctx, const float *weights), void *ctx)
{
    struct qd_linear mine = *linear;
    struct packer p = {.spec = spec, .l = &mine, .see = see, .ctx = ctx};
    return go_through(&p);
}

/* Outputs of dimension d under which tap k meets the image. */
static double inside(const struct qd_geometry *g, int d, int64_t k, int64_t begin, int64_t out, int64_t in)
{
    int64_t count = 0;
    for (int64_t o = 0; o < out; o++) {
        const int64_t at = o * g->stride[d] - begin + k * g->dilation[d];
        count += at >= 0 && at < in;
    }
    return (double)count / (double)out;
}

void qd_linear_tap_shares(const struct qd_linear *linear, const struct qd_shape *in, float *share)
{
    const struct qd_geometry *g = &linear->geometry;
    int64_t begin[QD_MAX_SPATIAL], out[QD_MAX_SPATIAL];
    const bool known = qd_linear_has_window(linear) && qd_geometry_resolve(g, in, begin, out);
    for (size_t t = 0; t < qd_linear_taps(linear); t++) {
        double product = 1;
        int64_t rest = (int64_t)t;
        for (int d = g->spatial - 1; known && d >= 0; d--) {
            product *= inside(g, d, rest % g->kernel[d], begin[d], out[d], in->dims[2 + d]);
            rest /= g->kernel[d];
        }
        share[t] = (float)product;
    }
}

size_t qd_linear_taps(const struct qd_linear *linear)
{
    return qd_linear_has_window(linear) ? (size_t)linear->geometry.taps : 0;
}
size_t qd_linear_inputs(const struct qd_linear *linear) { return linear->inputs; }
size_t qd_linear_bias_count(const struct qd_linear *linear) { return linear->groups * linear->n; }
