/* Integer products as quantized files spell them: MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv. Exact int32
 * sums (they wrap, as the standard's do) in plain loops, for any mix of signed and unsigned 8-bit. Not for quantd's own
 * quantized layers (linear.h). */
#include "engine/ops/window.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define TYPES_8 (QD_BIT(QD_U8) | QD_BIT(QD_I8))
#define BLOCK   256 /* sums on the stack at a time */

static int32_t at8(const struct qd_tensor *t, int64_t i)
{
    return t->dtype == QD_I8 ? ((const int8_t *)t->data)[i] : ((const uint8_t *)t->data)[i];
}

/* acc[i] += factor * (x[i * step] - zeros[i * zero_step]), wrapping. */
#define ACCUMULATE(name, type)                                                                                         \
    static void name(uint32_t *acc, int64_t n, int32_t factor, const type *x, int64_t step, const int32_t *zeros,      \
                     int64_t zero_step)                                                                                \
    {                                                                                                                  \
        for (int64_t i = 0; i < n; i++)                                                                                \
            acc[i] += (uint32_t)(factor * ((int32_t)x[i * step] - zeros[i * zero_step]));                              \
    }
ACCUMULATE(accumulate_u8, uint8_t)
ACCUMULATE(accumulate_i8, int8_t)

static void accumulate(uint32_t *acc, int64_t n, int32_t factor, const struct qd_tensor *x, int64_t first, int64_t step,
                       const int32_t *zeros, int64_t zero_step)
{
    if (x->dtype == QD_I8)
        accumulate_i8(acc, n, factor, (const int8_t *)x->data + first, step, zeros, zero_step);
    else
        accumulate_u8(acc, n, factor, (const uint8_t *)x->data + first, step, zeros, zero_step);
}

/* Where each operator has its inputs; -1: it has none of the kind. */
struct places {
    int a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero, bias;
};
static const struct places plain = {0, -1, 2, 1, -1, 3, -1, -1, -1};
static const struct places scaled = {0, 1, 2, 3, 4, 5, 6, 7, 8};

static const struct places *places_of(const struct qd_call *call)
{
    return strncmp(call->node->op, "QLinear", 7) == 0 ? &scaled : &plain;
}

static bool given(const struct qd_call *call, int i) { return i >= 0 && qd_op_has(call, i); }

/* Types and the number of inputs; scales and zero points of the output have one element. */
static enum qd_status start(const struct qd_call *call, bool conv, struct qd_error *error)
{
    const struct places *p = places_of(call);
    enum qd_status status = qd_op_inputs(call, p == &scaled ? 8 : 2, p == &scaled ? 8 + conv : 4, error);
    if (status || (status = qd_op_types(call, p->a, TYPES_8, error)) ||
        (status = qd_op_types(call, p->b, TYPES_8, error)) ||
        (given(call, p->a_zero) && (status = qd_op_same_type(call, p->a, p->a_zero, error))) ||
        (given(call, p->b_zero) && (status = qd_op_same_type(call, p->b, p->b_zero, error))))
        return status;
    if (p == &plain)
        return QD_OK;
    if ((status = qd_op_types(call, p->a_scale, QD_BIT(QD_F32), error)) ||
        (status = qd_op_types(call, p->b_scale, QD_BIT(QD_F32), error)) ||
        (status = qd_op_types(call, p->y_scale, QD_BIT(QD_F32), error)) ||
        (status = qd_op_types(call, p->y_zero, TYPES_8, error)) ||
        (status = qd_op_types(call, p->bias, QD_BIT(QD_I32), error)))
        return status;
    if (qd_tensor_elems(&call->in[p->y_scale]) != 1 || qd_tensor_elems(&call->in[p->y_zero]) != 1)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "an output scale that is not one number is not supported");
    return QD_OK;
}

/* Input i (a scale or zero point, may be absent) has one element, or `many` in a list or in [..., many, 1], [..., 1,
 * many] with `batches` of them. */
static enum qd_status per(const struct qd_call *call, int i, int64_t many, int64_t batches, struct qd_error *error)
{
    if (!given(call, i))
        return QD_OK;
    int64_t n = qd_tensor_elems(&call->in[i]), all = 0;
    bool list = call->in[i].shape.rank == 1 && n == many;
    bool grid = call->in[i].shape.rank > 1 && qd_i64_mul(many, batches, &all) && n == all;
    if (n == 1 || list || grid)
        return QD_OK;
    return qd_op_fail(call, error, QD_ERR_SHAPE, "input %d has %" PRId64 " elements, must have 1 or %" PRId64, i, n,
                      many);
}

/* Which element of such an input counts for `index` of batch `batch`. */
static int64_t pick(const struct qd_call *call, int i, int64_t index, int64_t many, int64_t batch)
{
    int64_t n = qd_tensor_elems(&call->in[i]);
    return n == 1 ? 0 : call->in[i].shape.rank == 1 ? index : batch * many + index;
}

static float scale_of(const struct qd_call *call, int i, int64_t index, int64_t many, int64_t batch)
{
    return ((const float *)call->in[i].data)[pick(call, i, index, many, batch)];
}

static int32_t zero_of(const struct qd_call *call, int i, int64_t index, int64_t many, int64_t batch)
{
    return given(call, i) ? at8(&call->in[i], pick(call, i, index, many, batch)) : 0;
}

/* out[at] from a sum: itself, or under the output's scale. */
static void store(const struct qd_call *call, int64_t at, uint32_t acc, float factor)
{
    struct qd_tensor *out = &call->out[0];
    int32_t sum;
    memcpy(&sum, &acc, sizeof sum);
    if (out->dtype == QD_I32) {
        ((int32_t *)out->data)[at] = sum;
        return;
    }
    double low = out->dtype == QD_I8 ? -128 : 0, high = out->dtype == QD_I8 ? 127 : 255;
    double q = rint((double)((float)sum * factor)) + zero_of(call, scaled.y_zero, 0, 1, 0);
    q = q > low ? q : low; /* NaN too */
    ((uint8_t *)out->data)[at] = (uint8_t)(int32_t)(q < high ? q : high);
}

static enum qd_dtype out_type(const struct qd_call *call)
{
    return places_of(call) == &scaled ? call->in[scaled.y_zero].dtype : QD_I32;
}

/* ------------------------------------------------------------------ matrices */

struct matmul {
    int64_t m, n, k;
    struct qd_shape a_batch, b_batch, batch, out;
};

static bool matmul_fit(const struct qd_call *call, struct matmul *mm)
{
    const struct qd_shape *a = &call->in[places_of(call)->a].shape, *b = &call->in[places_of(call)->b].shape;
    if (a->rank < 1 || b->rank < 1)
        return false;
    mm->m = a->rank > 1 ? a->dims[a->rank - 2] : 1;
    mm->k = a->dims[a->rank - 1];
    mm->n = b->rank > 1 ? b->dims[b->rank - 1] : 1;
    mm->a_batch = *a;
    mm->b_batch = *b;
    mm->a_batch.rank = a->rank > 2 ? a->rank - 2 : 0;
    mm->b_batch.rank = b->rank > 2 ? b->rank - 2 : 0;
    if (b->dims[b->rank > 1 ? b->rank - 2 : 0] != mm->k || !qd_broadcast(&mm->a_batch, &mm->b_batch, &mm->batch))
        return false;
    mm->out = mm->batch;
    if (a->rank > 1)
        mm->out.dims[mm->out.rank++] = mm->m;
    if (b->rank > 1)
        mm->out.dims[mm->out.rank++] = mm->n;
    return true;
}

static enum qd_status matmul_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct places *p = places_of(call);
    struct matmul mm;
    char a[160], b[160];
    enum qd_status status = start(call, false, error);
    if (status)
        return status;
    if (!matmul_fit(call, &mm))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "matrices of shape %s and %s can't be multiplied",
                          qd_shape_text(&call->in[p->a].shape, a, sizeof a),
                          qd_shape_text(&call->in[p->b].shape, b, sizeof b));
    int64_t a_count = qd_shape_span(&mm.a_batch, 0, mm.a_batch.rank),
            b_count = qd_shape_span(&mm.b_batch, 0, mm.b_batch.rank);
    if ((status = per(call, p->a_zero, mm.m, a_count, error)) ||
        (status = per(call, p->a_scale, mm.m, a_count, error)) ||
        (status = per(call, p->b_zero, mm.n, b_count, error)) || (status = per(call, p->b_scale, mm.n, b_count, error)))
        return status;
    return qd_op_out(call, 0, out_type(call), &mm.out, error);
}

struct matmul_work {
    const struct qd_call *call;
    struct matmul mm;
    struct qd_walk walk;
};

static int64_t matrix_of(const struct qd_walk *walk, int operand, int64_t batch)
{
    int64_t at = 0;
    for (int i = walk->rank - 1; i >= 0; i--) {
        at += batch % walk->dims[i] * walk->strides[operand][i];
        batch /= walk->dims[i];
    }
    return at;
}

/* Rows [begin, end) of all batches. */
static void matmul_part(void *ctx, int64_t begin, int64_t end)
{
    const struct matmul_work *w = ctx;
    const struct qd_call *call = w->call;
    const struct places *p = places_of(call);
    const struct matmul *mm = &w->mm;
    for (int64_t row = begin; row < end; row++) {
        int64_t i = row % mm->m, a = matrix_of(&w->walk, 0, row / mm->m), b = matrix_of(&w->walk, 1, row / mm->m);
        int32_t a_zero = zero_of(call, p->a_zero, i, mm->m, a);
        for (int64_t first = 0; first < mm->n; first += BLOCK) {
            int64_t n = mm->n - first < BLOCK ? mm->n - first : BLOCK;
            uint32_t acc[BLOCK] = {0};
            int32_t zeros[BLOCK];
            for (int64_t j = 0; j < n; j++)
                zeros[j] = zero_of(call, p->b_zero, first + j, mm->n, b);
            for (int64_t k = 0; k < mm->k; k++)
                accumulate(acc, n, at8(&call->in[p->a], (a * mm->m + i) * mm->k + k) - a_zero, &call->in[p->b],
                           (b * mm->k + k) * mm->n + first, 1, zeros, 1);
            for (int64_t j = 0; j < n; j++) {
                float factor = p == &plain ? 0
                                           : scale_of(call, p->a_scale, i, mm->m, a) *
                                                 scale_of(call, p->b_scale, first + j, mm->n, b) /
                                                 *(const float *)call->in[p->y_scale].data;
                store(call, row * mm->n + first + j, acc[j], factor);
            }
        }
    }
}

static enum qd_status matmul_run(const struct qd_call *call, struct qd_error *error)
{
    struct matmul_work work = {.call = call};
    if (!matmul_fit(call, &work.mm))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the shapes don't fit");
    if (qd_tensor_elems(&call->out[0]) == 0)
        return QD_OK;
    qd_walk_begin(&work.walk, &work.mm.batch);
    qd_walk_broadcast(&work.walk, &work.mm.a_batch);
    qd_walk_broadcast(&work.walk, &work.mm.b_batch);
    qd_op_split(call, qd_shape_span(&work.mm.batch, 0, work.mm.batch.rank) * work.mm.m, 1, matmul_part, &work);
    return QD_OK;
}

const struct qd_op qd_op_matmul_integer = {.infer = matmul_infer, .run = matmul_run};

/* ------------------------------------------------------------------ convolutions */

struct conv {
    struct qd_window_attrs attrs;
    int64_t group;
};

static enum qd_status conv_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                   struct qd_error *error)
{
    struct conv *conv = QD_PREP_NEW(arena, struct conv);
    if (!conv)
        return qd_op_no_memory(node, error);
    conv->group = qd_attr_int(node, "group", 1);
    *prep = conv;
    return qd_window_attrs(node, &conv->attrs, error);
}

static enum qd_status conv_plan(const struct qd_call *call, struct qd_window *window, struct qd_shape *out,
                                struct qd_error *error)
{
    const struct conv *conv = call->prep;
    const struct qd_shape *x = &call->in[places_of(call)->a].shape, *w = &call->in[places_of(call)->b].shape;
    int64_t channels = 0;
    bool fits = x->rank == w->rank && x->rank >= 3 && conv->group >= 1 &&
                qd_i64_mul(w->dims[1], conv->group, &channels) && channels == x->dims[1] &&
                w->dims[0] % conv->group == 0;
    fits = fits && (!conv->attrs.kernel_count || conv->attrs.kernel_count == (size_t)(w->rank - 2));
    for (size_t i = 0; fits && i < conv->attrs.kernel_count; i++)
        fits = conv->attrs.kernel[i] == w->dims[2 + i];
    char tx[160], tw[160];
    if (!fits)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "weights of shape %s don't fit an input of shape %s",
                          qd_shape_text(w, tw, sizeof tw), qd_shape_text(x, tx, sizeof tx));
    *out = (struct qd_shape){.rank = x->rank, .dims = {x->dims[0], w->dims[0]}};
    return qd_window_fit(call, &conv->attrs, x, w->dims + 2, false, window, out, error);
}

static enum qd_status conv_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct places *p = places_of(call);
    struct qd_window window;
    struct qd_shape out;
    enum qd_status status = start(call, true, error);
    if (status || (status = conv_plan(call, &window, &out, error)) || (status = per(call, p->a_zero, 1, 1, error)) ||
        (status = per(call, p->a_scale, 1, 1, error)) || (status = per(call, p->b_zero, out.dims[1], 1, error)) ||
        (status = per(call, p->b_scale, out.dims[1], 1, error)))
        return status;
    if (given(call, p->bias) && (call->in[p->bias].shape.rank != 1 || call->in[p->bias].shape.dims[0] != out.dims[1]))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the bias must have %" PRId64 " elements", out.dims[1]);
    return qd_op_out(call, 0, out_type(call), &out, error);
}

struct conv_work {
    const struct qd_call *call;
    struct qd_window w;
    int64_t outputs, channels, each; /* of all groups, of one group, output channels of one group */
    int64_t plane_in, rows;          /* input pixels; output rows of one channel (depth * height) */
};

/* One input row's part of a block of outputs: pixels [first, first + n) of an output row. */
static void conv_taps(const struct conv_work *k, uint32_t *acc, int64_t first, int64_t n, int64_t input, int64_t weight,
                      int32_t w_zero, const int32_t *x_zero)
{
    const struct places *p = places_of(k->call);
    const struct qd_window *w = &k->w;
    for (int64_t t = 0; t < w->kernel[2]; t++) {
        int64_t stride = w->stride[2], shift = t * w->dilation[2] - w->before[2]; /* of the input behind the output */
        int64_t low = shift >= 0 ? 0 : (-shift - 1) / stride + 1;
        int64_t high = w->in[2] - 1 - shift < 0 ? 0 : (w->in[2] - 1 - shift) / stride + 1;
        low = low > first ? low : first;
        high = high < first + n ? high : first + n;
        if (low < high)
            accumulate(acc + (low - first), high - low, at8(&k->call->in[p->b], weight + t) - w_zero,
                       &k->call->in[p->a], input + low * stride + shift, stride, x_zero, 0);
    }
}

/* Output rows [begin, end) of all images and channels. */
static void conv_part(void *ctx, int64_t begin, int64_t end)
{
    const struct conv_work *k = ctx;
    const struct qd_call *call = k->call;
    const struct places *p = places_of(call);
    const struct qd_window *w = &k->w;
    int32_t x_zero = zero_of(call, p->a_zero, 0, 1, 0);
    for (int64_t row = begin; row < end; row++) {
        int64_t o = row / k->rows % k->outputs, image = row / k->rows / k->outputs, z0, z1, y0, y1;
        int64_t oz = row % k->rows / w->out[1], oy = row % w->out[1];
        int32_t w_zero = zero_of(call, p->b_zero, o, k->outputs, 0);
        float factor = p == &plain
                           ? 0
                           : scale_of(call, p->a_scale, 0, 1, 0) * scale_of(call, p->b_scale, o, k->outputs, 0) /
                                 *(const float *)call->in[p->y_scale].data;
        qd_window_taps(w, 0, oz, &z0, &z1);
        qd_window_taps(w, 1, oy, &y0, &y1);
        for (int64_t first = 0; first < w->out[2]; first += BLOCK) {
            int64_t n = w->out[2] - first < BLOCK ? w->out[2] - first : BLOCK;
            uint32_t acc[BLOCK];
            for (int64_t i = 0; i < n; i++)
                acc[i] = given(call, p->bias) ? (uint32_t)((const int32_t *)call->in[p->bias].data)[o] : 0;
            for (int64_t c = 0; c < k->channels; c++)
                for (int64_t z = z0; z < z1; z++)
                    for (int64_t y = y0; y < y1; y++) {
                        int64_t iz = oz * w->stride[0] - w->before[0] + z * w->dilation[0];
                        int64_t iy = oy * w->stride[1] - w->before[1] + y * w->dilation[1];
                        int64_t plane = (image * (k->outputs / k->each) + o / k->each) * k->channels + c;
                        int64_t weight = (((o * k->channels + c) * w->kernel[0] + z) * w->kernel[1] + y) * w->kernel[2];
                        conv_taps(k, acc, first, n, plane * k->plane_in + (iz * w->in[1] + iy) * w->in[2], weight,
                                  w_zero, &x_zero);
                    }
            for (int64_t i = 0; i < n; i++)
                store(call, row * w->out[2] + first + i, acc[i], factor);
        }
    }
}

static enum qd_status conv_run(const struct qd_call *call, struct qd_error *error)
{
    struct conv_work k = {.call = call};
    struct qd_shape out;
    enum qd_status status = conv_plan(call, &k.w, &out, error);
    if (status || qd_tensor_elems(&call->out[0]) == 0)
        return status;
    k.outputs = out.dims[1];
    k.channels = call->in[places_of(call)->b].shape.dims[1];
    k.each = k.outputs / ((const struct conv *)call->prep)->group;
    k.plane_in = k.w.in[0] * k.w.in[1] * k.w.in[2];
    k.rows = k.w.out[0] * k.w.out[1];
    qd_op_split(call, out.dims[0] * k.outputs * k.rows, 4, conv_part, &k);
    return QD_OK;
}

const struct qd_op qd_op_conv_integer = {.prepare = conv_prepare, .infer = conv_infer, .run = conv_run};
