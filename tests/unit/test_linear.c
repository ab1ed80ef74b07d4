/* The fused linear layer against equations (6) to (8) of docs/QUANTIZATION.md, written here once more and plainly:
 * integers bit for bit, FP32 within rounding, observations, any number of threads, dirty scratch. */
#include "engine/ops/linear.h"
#include "engine/plan/team.h"
#include "tests/kernels/folded.h"
#include "tests/unit/linear_layers.h"
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <math.h>

/* Everything a layer needs, built from its row. */
struct bed {
    const struct qd_test_layer *l;
    struct qd_arena *arena;
    struct qd_node node;
    struct qd_attr *attrs;
    struct qd_tensor w, in, out;             /* logical shapes; in.data in the layer's own layout */
    struct qd_tensor residual, residual_f32; /* as the INT8 form takes it; the same real values */
    struct qd_qparams residual_qp;
    float *factor, *bias;
    bool conv, transposed;
    int spatial;
    int64_t begin[3];
};

static void *get(struct bed *b, size_t count, size_t size)
{
    void *p = qd_arena_alloc(b->arena, count + 1, size);
    assert_non_null(p);
    return p;
}

static void add_ints(struct bed *b, const char *name, size_t n, const int64_t *values)
{
    b->attrs[b->node.attr_count++] = (struct qd_attr){.name = name, .type = QD_ATTR_INTS, .count = n, .ints = values};
}

/* Output size and first padding of one dimension, from the standard's text. */
static int64_t out_size(const struct qd_test_layer *l, int d, int spatial, int64_t in, int64_t kernel, int64_t *begin)
{
    int64_t stride = l->strides[d] ? l->strides[d] : 1,
            reach = (kernel - 1) * (l->dilations[d] ? l->dilations[d] : 1) + 1;
    if (strcmp(l->op, "ConvTranspose") == 0) {
        int64_t full = (in - 1) * stride + reach + l->out_padding[d];
        *begin = l->auto_pad ? (full - in * stride + (strcmp(l->auto_pad, "SAME_LOWER") == 0)) / 2 : l->pads[d];
        return l->auto_pad ? in * stride : full - l->pads[d] - l->pads[spatial + d];
    }
    *begin = 0;
    if (!l->auto_pad) {
        *begin = l->pads[d];
        return (in + l->pads[d] + l->pads[spatial + d] - reach) / stride + 1;
    }
    if (strcmp(l->auto_pad, "VALID") == 0)
        return (in - reach) / stride + 1;
    int64_t out = (in + stride - 1) / stride, pad = (out - 1) * stride + reach - in;
    pad = pad < 0 ? 0 : pad;
    *begin = strcmp(l->auto_pad, "SAME_UPPER") == 0 ? pad / 2 : (pad + 1) / 2;
    return out;
}

static void add_residual(struct bed *b, uint64_t seed)
{
    size_t n = (size_t)qd_tensor_elems(&b->out);
    b->residual = b->residual_f32 = b->out;
    b->residual_f32.dtype = QD_F32;
    float *real = b->residual_f32.data = get(b, n, sizeof(float));
    qd_mb_fill(real, n, seed, 3);
    b->residual_qp = (struct qd_qparams){.scale = 0.02f, .zero_point = 99, .qmin = 0, .qmax = 255};
    if (b->l->residual == RESIDUAL_F32) {
        b->residual = b->residual_f32;
        return;
    }
    b->residual.dtype = QD_U8;
    uint8_t *q = b->residual.data = get(b, n, 1);
    for (size_t i = 0; i < n; i++) {
        q[i] = (uint8_t)qd_mb_random(&seed);
        real[i] = b->residual_qp.scale * (float)(q[i] - b->residual_qp.zero_point);
    }
}

static struct bed bed_new(const struct qd_test_layer *l, uint64_t seed)
{
    static const int ids[] = {0, 1, 2};
    struct bed b = {.l = l, .transposed = strcmp(l->op, "ConvTranspose") == 0};
    b.conv = b.transposed || strcmp(l->op, "Conv") == 0;
    assert_int_equal(qd_arena_create(1 << 16, &b.arena), QD_OK);
    b.node = (struct qd_node){.name = "layer",
                              .op = l->op,
                              .domain = "",
                              .opset = 17,
                              .in_count = 2,
                              .out_count = 1,
                              .in = ids,
                              .out = ids + 2};
    b.node.attrs = b.attrs = get(&b, 8, sizeof *b.attrs);
    b.w = (struct qd_tensor){.dtype = QD_F32, .shape = qd_mb_shape(l->w)};
    b.in = (struct qd_tensor){.shape = qd_mb_shape(l->in), .layout = b.conv ? QD_CHANNELS_LAST : QD_PLAIN};
    b.out = b.in;
    b.spatial = b.conv ? b.in.shape.rank - 2 : 0;
    int64_t outputs = b.w.shape.dims[(b.conv && !b.transposed) || l->trans_b ? 0 : 1];
    b.out.shape.dims[b.conv ? 1 : b.in.shape.rank - 1] = outputs;
    for (int d = 0; d < b.spatial; d++)
        b.out.shape.dims[2 + d] = out_size(l, d, b.spatial, b.in.shape.dims[2 + d], b.w.shape.dims[2 + d], &b.begin[d]);
    if (l->groups)
        b.attrs[b.node.attr_count++] = (struct qd_attr){
            .name = "group", .type = QD_ATTR_INT, .count = 1, .i = l->groups};
    if (l->strides[0])
        add_ints(&b, "strides", (size_t)b.spatial, l->strides);
    if (l->dilations[0])
        add_ints(&b, "dilations", (size_t)b.spatial, l->dilations);
    for (int i = 0; i < 6; i++)
        if (l->pads[i]) {
            add_ints(&b, "pads", (size_t)b.spatial * 2, l->pads);
            break;
        }
    if (l->out_padding[0] || l->out_padding[1])
        add_ints(&b, "output_padding", (size_t)b.spatial, l->out_padding);
    if (l->auto_pad)
        b.attrs[b.node.attr_count++] = (struct qd_attr){
            .name = "auto_pad", .type = QD_ATTR_STRING, .count = 1, .s = {l->auto_pad, strlen(l->auto_pad)}};
    if (l->trans_b)
        b.attrs[b.node.attr_count++] = (struct qd_attr){.name = "transB", .type = QD_ATTR_INT, .count = 1, .i = 1};
    if (l->alpha != 0)
        b.attrs[b.node.attr_count++] = (struct qd_attr){
            .name = "alpha", .type = QD_ATTR_FLOAT, .count = 1, .f = l->alpha};
    size_t weights = (size_t)qd_tensor_elems(&b.w);
    b.w.data = get(&b, weights, sizeof(float));
    qd_mb_fill(b.w.data, weights, seed, 0.5f);
    b.bias = l->bias ? get(&b, (size_t)outputs, sizeof(float)) : NULL;
    b.factor = l->factor ? get(&b, (size_t)outputs, sizeof(float)) : NULL;
    if (b.bias)
        qd_mb_fill(b.bias, (size_t)outputs, seed + 1, 1);
    if (b.factor)
        qd_mb_fill(b.factor, (size_t)outputs, seed + 2, 2);
    if (l->residual)
        add_residual(&b, seed + 3);
    return b;
}

static void bed_free(struct bed *b) { qd_arena_destroy(&b->arena); }

/* Weight of output j at depth p, p = channel * taps + tap; both orders of summation give the same integer. */
static float weight(const struct bed *b, int64_t j, int64_t p)
{
    const float *w = b->w.data;
    if (b->transposed) {
        int64_t taps = qd_shape_span(&b->w.shape, 2, b->w.shape.rank);
        float v = w[(p / taps * b->w.shape.dims[1] + j) * taps + p % taps];
        return v * (b->factor ? b->factor[j] : 1);
    }
    int64_t k = b->conv || b->l->trans_b ? qd_shape_span(&b->w.shape, 1, b->w.shape.rank) : b->w.shape.dims[0];
    float v = b->conv || b->l->trans_b ? w[j * k + p] : w[p * b->w.shape.dims[1] + j];
    float factor = b->factor ? b->factor[j] : 1;
    return b->l->alpha != 0 ? v * (b->l->alpha * factor) : v * factor;
}

/* Index into in.data for output element (row, j) at depth p; -1: padding. Rows count images and pixels together. */
static int64_t source(const struct bed *b, int64_t row, int64_t j, int64_t p)
{
    const int64_t *in = b->in.shape.dims, *w = b->w.shape.dims, *out = b->out.shape.dims;
    if (!b->conv)
        return row * in[b->in.shape.rank - 1] + p;
    int64_t taps = qd_shape_span(&b->w.shape, 2, b->w.shape.rank), channel = p / taps, tap = p % taps;
    int64_t groups = b->l->groups ? b->l->groups : 1, group = j / (out[1] / groups), index = 0, scale = 1;
    channel += b->transposed ? 0 : group * w[1];
    for (int d = b->spatial - 1; d >= 0 && b->transposed; d--) {
        int64_t stride = b->l->strides[d] ? b->l->strides[d] : 1;
        int64_t at = row % out[2 + d] + b->begin[d] - tap % w[2 + d];
        row /= out[2 + d];
        tap /= w[2 + d];
        if (at < 0 || at % stride || at / stride >= in[2 + d])
            return -1;
        index += at / stride * scale;
        scale *= in[2 + d];
    }
    for (int d = b->spatial - 1; d >= 0 && !b->transposed; d--) {
        int64_t at = row % out[2 + d] * (b->l->strides[d] ? b->l->strides[d] : 1) - b->begin[d] +
                     tap % w[2 + d] * (b->l->dilations[d] ? b->l->dilations[d] : 1);
        row /= out[2 + d];
        tap /= w[2 + d];
        if (at < 0 || at >= in[2 + d])
            return -1;
        index += at * scale;
        scale *= in[2 + d];
    }
    return (row * scale + index) * in[1] + channel;
}

static int64_t depth(const struct bed *b)
{
    if (b->transposed)
        return b->w.shape.dims[0] * qd_shape_span(&b->w.shape, 2, b->w.shape.rank);
    return b->conv || b->l->trans_b ? qd_shape_span(&b->w.shape, 1, b->w.shape.rank) : b->w.shape.dims[0];
}

/* How INT8 weights are quantized. */
enum { PER_TENSOR = 1, ASYMMETRIC = 2 };

static bool is_depthwise(const struct bed *b)
{
    const int64_t *w = b->w.shape.dims;
    return b->conv && !b->transposed && b->l->groups > 1 && w[1] == 1 && w[0] == b->l->groups;
}

/* Of weights from lo to hi, zero included, as u8 carries them: equation (4) or (3). */
static struct qd_qparams weight_qp(const struct bed *b, int how, float lo, float hi)
{
    bool zeros = (how & ASYMMETRIC) && !is_depthwise(b) && depth(b) <= QD_ASYMMETRIC_K;
    return qd_qparams_from_range((double)lo, (double)hi, !zeros);
}

/* (4b), of output j of a convolution, or what it is otherwise. */
static float window_scale(const struct bed *b, int how, int64_t j, float usual)
{
    const size_t channels = (size_t)b->w.shape.dims[1], all = (size_t)depth(b), taps = channels ? all / channels : 0;
    if (!b->conv || b->transposed || (how & PER_TENSOR) || ((how & ASYMMETRIC) && !is_depthwise(b)) ||
        !qd_window_is_small(channels, taps))
        return usual;
    float row[QD_WINDOW_WEIGHTS];
    for (size_t p = 0; p < all; p++)
        row[p] = weight(b, j, (int64_t)p);
    return qd_weight_scale_window(&(struct qd_window_weights){row, channels, taps, taps, 1}, 8);
}

/* What the bytes of an element without residual are made of, equation (8a). */
struct element {
    float acc, scale, bias;
};

static int64_t expected_byte(const struct bed *b, float real, const struct element *e, const struct qd_qparams *qp)
{
    static const float relu6[2] = {0, 6};
    if (!b->l->residual)
        return folded_byte(e->acc, e->scale, e->bias, 1.0f, b->l->relu6 ? relu6 : NULL, qp);
    const float scaled = rintf(real * (1.0f / qp->scale)) + (float)qp->zero_point;
    return (int64_t)fminf(fmaxf(scaled, (float)qp->qmin), (float)qp->qmax);
}

/* What must come out: real values by (6), (6b) and (7). */
static void expect_int8(const struct bed *b, int how, const struct qd_qparams *in_qp, float *real,
                        struct element *elements)
{
    const uint8_t *x = b->in.data;
    int64_t outputs = b->out.shape.dims[b->conv ? 1 : b->out.shape.rank - 1], k = depth(b);
    int64_t rows = outputs ? qd_tensor_elems(&b->out) / outputs : 0;
    int16_t *q = test_malloc((size_t)k * sizeof *q + 1);
    float lo = 0, hi = 0;
    for (int64_t j = 0; (how & PER_TENSOR) && j < outputs; j++)
        for (int64_t p = 0; p < k; p++) {
            lo = fminf(lo, weight(b, j, p));
            hi = fmaxf(hi, weight(b, j, p));
        }
    for (int64_t j = 0; j < outputs; j++) {
        for (int64_t p = 0; !(how & PER_TENSOR) && p < k; p++) {
            lo = fminf(p ? lo : 0, weight(b, j, p));
            hi = fmaxf(p ? hi : 0, weight(b, j, p));
        }
        struct qd_qparams w_qp = weight_qp(b, how, lo, hi);
        w_qp.scale = window_scale(b, how, j, w_qp.scale);
        for (int64_t p = 0; p < k; p++) {
            float r = rintf(weight(b, j, p) / w_qp.scale) + (float)w_qp.zero_point;
            q[p] = (int16_t)(fminf(fmaxf(r, (float)w_qp.qmin), (float)w_qp.qmax) - (float)w_qp.zero_point);
        }
        float product = in_qp->scale * w_qp.scale;
        for (int64_t row = 0; row < rows; row++) {
            int64_t acc = 0;
            for (int64_t p = 0; p < k; p++) {
                int64_t at = source(b, row, j, p);
                if (at >= 0)
                    acc += ((int64_t)x[at] - in_qp->zero_point) * q[p];
            }
            assert_true(acc >= INT32_MIN && acc <= INT32_MAX);
            const struct element e = {(float)(int32_t)acc, product, b->bias ? b->bias[j] : 0};
            elements[row * outputs + j] = e;
            float r = e.acc * e.scale;
            r = r + e.bias;
            if (b->l->residual)
                r = r + ((const float *)b->residual_f32.data)[row * outputs + j];
            real[row * outputs + j] = b->l->relu6 ? fminf(fmaxf(r, 0), 6) : r;
        }
    }
    test_free(q);
}

/* The same for 16-bit activations and weights of so many bits: sums in int64, rounded once. */
static void expect_int16(const struct bed *b, int bits, float in_scale, float *real)
{
    const int16_t *x = b->in.data;
    int64_t outputs = b->out.shape.dims[b->conv ? 1 : b->out.shape.rank - 1], k = depth(b);
    int64_t rows = outputs ? qd_tensor_elems(&b->out) / outputs : 0;
    const float limit = (float)((1 << (bits - 1)) - 1);
    int16_t *q = test_malloc((size_t)k * 2 + 1);
    for (int64_t j = 0; j < outputs; j++) {
        float most = 0;
        for (int64_t p = 0; p < k; p++)
            most = fmaxf(most, fabsf(weight(b, j, p)));
        float sw = most > 0 ? (float)((double)most / (double)limit) : 1;
        for (int64_t p = 0; p < k; p++)
            q[p] = (int16_t)fminf(fmaxf(rintf(weight(b, j, p) / sw), -limit), limit);
        float product = in_scale * sw;
        for (int64_t row = 0; row < rows; row++) {
            int64_t acc = 0;
            for (int64_t p = 0; p < k; p++) {
                int64_t at = source(b, row, j, p);
                acc += at >= 0 ? (int64_t)x[at] * q[p] : 0;
            }
            float r = (float)acc * product;
            r = r + (b->bias ? b->bias[j] : 0);
            if (b->l->residual)
                r = r + ((const float *)b->residual_f32.data)[row * outputs + j];
            real[row * outputs + j] = b->l->relu6 ? fminf(fmaxf(r, 0), 6) : r;
        }
    }
    test_free(q);
}

static struct qd_observation observe(const float *real, int64_t n, const struct qd_qparams *qp)
{
    struct qd_observation o = qd_observation_empty();
    for (int64_t i = 0; i < n; i++)
        qd_observe_one(&o, real[i], qp ? real[i] * (1.0f / qp->scale) : 0, qp);
    return o;
}

static void assert_observation(const struct qd_test_layer *l, const struct qd_observation *got,
                               const struct qd_observation *want)
{
    if (got->min != want->min || got->max != want->max || got->elems != want->elems || got->nonfinite ||
        got->clipped_low != want->clipped_low || got->clipped_high != want->clipped_high)
        fail_msg("%s: observation [%g, %g] %llu elems, %llu low, %llu high; want [%g, %g] %llu, %llu, %llu", l->label,
                 (double)got->min, (double)got->max, (unsigned long long)got->elems,
                 (unsigned long long)got->clipped_low, (unsigned long long)got->clipped_high, (double)want->min,
                 (double)want->max, (unsigned long long)want->elems, (unsigned long long)want->clipped_low,
                 (unsigned long long)want->clipped_high);
}

static const struct qd_kernels *kernels_in_use(void)
{
    const struct qd_kernels *kernels;
    struct qd_error error;
    assert_int_equal(qd_kernels_get(&kernels, &error), QD_OK);
    return kernels;
}

/* A layer under test and its team. */
static struct qd_linear *make(struct bed *b, bool int8, int weight_bits, int how)
{
    struct qd_linear_spec spec = {.node = &b->node,
                                  .weights = &b->w,
                                  .factor = b->factor,
                                  .bias = b->bias,
                                  .act = {b->l->relu6 ? QD_ACT_CLIP : QD_ACT_NONE, .a = 0, .b = 6},
                                  .int8 = int8,
                                  .weight_bits = weight_bits,
                                  .residual = b->l->residual != NO_RESIDUAL,
                                  .per_tensor = how & PER_TENSOR,
                                  .asymmetric = how & ASYMMETRIC};
    struct qd_linear *linear = NULL;
    struct qd_shape out;
    struct qd_error error = {0};
    if (qd_linear_create(&spec, kernels_in_use(), b->arena, &linear, &error) != QD_OK ||
        qd_linear_infer(linear, &b->in.shape, &out, &error) != QD_OK)
        fail_msg("%s: %s", b->l->label, error.text);
    if (!qd_shape_equal(&out, &b->out.shape))
        fail_msg("%s: wrong output shape", b->l->label);
    assert_int_equal(qd_linear_is_conv(linear), b->conv);
    int64_t macs = depth(b);
    for (int d = 0; d < b->spatial && b->transposed; d++)
        macs /= b->l->strides[d] ? b->l->strides[d] : 1;
    assert_int_equal(qd_linear_macs(linear, &out), qd_tensor_elems(&b->out) * macs);
    return linear;
}

/* Runs with scratch and output full of rubbish and a guard behind both. */
static void run(struct bed *b, const struct qd_linear *linear, unsigned threads, const struct qd_qparams *in_qp,
                const struct qd_qparams *out_qp, struct qd_observation *observation, void *out, int poison)
{
    struct qd_team *team;
    assert_int_equal(qd_team_create(threads, &team, NULL), QD_OK);
    size_t scratch_bytes = qd_linear_scratch_bytes(linear, &b->in.shape, threads);
    size_t out_bytes = (size_t)qd_tensor_elems(&b->out) * (out_qp ? 1 : 4);
    unsigned char *scratch = qd_alloc_aligned(scratch_bytes + 64);
    assert_non_null(scratch);
    memset(scratch, poison, scratch_bytes + 64);
    memset(out, poison, out_bytes + 4);
    b->out.data = out;
    b->out.dtype = out_qp ? QD_U8 : QD_F32;
    const struct qd_tensor *residual = in_qp ? &b->residual : &b->residual_f32;
    struct qd_linear_call call = {.in = &b->in,
                                  .out = &b->out,
                                  .in_qp = in_qp,
                                  .out_qp = out_qp,
                                  .residual = b->l->residual ? residual : NULL,
                                  .residual_qp = residual->dtype == QD_U8 ? &b->residual_qp : NULL,
                                  .observe = observation,
                                  .scratch = scratch,
                                  .parallel = qd_team_parallel(team)};
    qd_linear_run(linear, &call);
    for (int i = 0; i < 64; i++)
        assert_int_equal(scratch[scratch_bytes + (size_t)i], (unsigned char)poison);
    for (int i = 0; i < 4; i++)
        assert_int_equal(((unsigned char *)out)[out_bytes + (size_t)i], (unsigned char)poison);
    qd_free(scratch);
    qd_team_destroy(&team);
}

static const unsigned thread_counts[] = {1, 2, 3, 5};

static void int8_layer(const struct qd_test_layer *l, uint64_t seed, int how, bool symmetric)
{
    struct bed b = bed_new(l, seed);
    size_t n = (size_t)qd_tensor_elems(&b.out), elems = (size_t)qd_tensor_elems(&b.in);
    struct qd_qparams in_qp = qd_qparams_from_range(-0.7, 1.3, symmetric);
    uint8_t *x = b.in.data = get(&b, elems, 1);
    uint64_t state = seed ^ 77;
    b.in.dtype = QD_U8;
    for (size_t i = 0; i < elems; i++)
        x[i] = (uint8_t)(qd_mb_random(&state) % (symmetric ? 255 : 256) + symmetric);
    struct qd_linear *linear = make(&b, true, 0, how);
    float *want = get(&b, n, 4), *got = get(&b, n, 4);
    uint8_t *q = get(&b, n + 4, 1);
    struct element *elements = get(&b, n, sizeof *elements);
    expect_int8(&b, how, &in_qp, want, elements);
    struct qd_observation whole = observe(want, (int64_t)n, NULL);
    /* narrower than what comes out, so that some is clipped on both sides */
    double lo = n ? (double)whole.min * 0.8 : 0, hi = n ? (double)whole.max * 0.8 : 0;
    struct qd_qparams out_qp = qd_qparams_from_range(lo < 0 ? lo : 0, hi > 0 ? hi : 0, symmetric);
    struct qd_observation clipped = observe(want, (int64_t)n, &out_qp);
    for (size_t t = 0; t < sizeof thread_counts / sizeof thread_counts[0]; t++) {
        struct qd_observation seen = qd_observation_empty();
        run(&b, linear, thread_counts[t], &in_qp, NULL, &seen, got, 0xa5);
        if (memcmp(got, want, n * 4) != 0)
            fail_msg("%s: seed %llu, %u threads: reals differ", l->label, (unsigned long long)seed, thread_counts[t]);
        assert_observation(l, &seen, &whole);
        seen = qd_observation_empty();
        run(&b, linear, thread_counts[t], &in_qp, &out_qp, &seen, q, 0xff);
        for (size_t i = 0; i < n; i++) {
            const int64_t expected = expected_byte(&b, want[i], &elements[i], &out_qp);
            if (q[i] != expected)
                fail_msg("%s: seed %llu, %u threads: element %zu is %d, want %d", l->label, (unsigned long long)seed,
                         thread_counts[t], i, q[i], (int)expected);
        }
        assert_observation(l, &seen, &clipped);
    }
    bed_free(&b);
}

static void test_int8(void **state)
{
    (void)state;
    for (size_t i = 0; i < qd_test_layer_count; i++) {
        const struct qd_test_layer *l = &qd_test_layers[i];
        int8_layer(l, 100 + i, 0, false);
        int8_layer(l, 200 + i, PER_TENSOR, false);
        if (strcmp(l->label, "deep") != 0)
            int8_layer(l, 300 + i, i & 1 ? PER_TENSOR : 0, true);
        int8_layer(l, 800 + i, ASYMMETRIC, false);
        int8_layer(l, 900 + i, ASYMMETRIC | (i & 1 ? PER_TENSOR : 0), true);
    }
}

/* Depthwise layers have no such form. */
static void test_int16(void **state)
{
    static const int bits[] = {8, 14, 16};
    (void)state;
    for (size_t i = 0; i < qd_test_layer_count * 3; i++) {
        const struct qd_test_layer *l = &qd_test_layers[i / 3];
        struct bed b = bed_new(l, 600 + i);
        b.residual = b.residual_f32;
        size_t n = (size_t)qd_tensor_elems(&b.out), elems = (size_t)qd_tensor_elems(&b.in);
        int16_t *x = b.in.data = get(&b, elems, 2);
        uint64_t state_of = 700 + i;
        b.in.dtype = QD_I16;
        for (size_t e = 0; e < elems; e++) /* so small now and then that sums run far, else as large as can be */
            x[e] = (int16_t)(((int64_t)(qd_mb_random(&state_of) % 65535) - 32767) >> (i % 2 ? 5 : 0));
        struct qd_qparams in_qp = {.scale = 0.0003f, .qmin = -32767, .qmax = 32767};
        float *want = get(&b, n, 4), *got = get(&b, n + 1, 4);
        if (!is_depthwise(&b)) {
            struct qd_linear *linear = make(&b, false, bits[i % 3], 0);
            expect_int16(&b, bits[i % 3], in_qp.scale, want);
            for (size_t t = 0; t < sizeof thread_counts / sizeof thread_counts[0]; t++) {
                run(&b, linear, thread_counts[t], &in_qp, NULL, NULL, got, 0xa5);
                if (memcmp(got, want, n * 4) != 0)
                    fail_msg("%s: %d bits, %u threads: reals differ", l->label, bits[i % 3], thread_counts[t]);
            }
        }
        bed_free(&b);
    }
}

static void test_fp32(void **state)
{
    (void)state;
    for (size_t i = 0; i < qd_test_layer_count; i++) {
        struct bed b = bed_new(&qd_test_layers[i], 400 + i);
        size_t n = (size_t)qd_tensor_elems(&b.out), elems = (size_t)qd_tensor_elems(&b.in);
        float *x = b.in.data = get(&b, elems, 4), *got = get(&b, n + 1, 4), *first = get(&b, n + 1, 4);
        b.in.dtype = QD_F32;
        qd_mb_fill(x, elems, 500 + i, 1);
        struct qd_linear *linear = make(&b, false, 0, 0);
        int64_t outputs = b.out.shape.dims[b.conv ? 1 : b.out.shape.rank - 1], k = depth(&b);
        for (size_t t = 0; t < sizeof thread_counts / sizeof thread_counts[0]; t++) {
            run(&b, linear, thread_counts[t], NULL, NULL, NULL, t ? got : first, 0xa5 + (int)t);
            if (t && memcmp(got, first, n * 4) != 0)
                fail_msg("%s: %u threads give other bytes", qd_test_layers[i].label, thread_counts[t]);
        }
        for (size_t e = 0; e < n; e++) {
            int64_t j = (int64_t)e % outputs, row = (int64_t)e / outputs;
            double sum = b.bias ? (double)b.bias[j] : 0, size = fabs(sum);
            for (int64_t p = 0; p < k; p++) {
                int64_t at = source(&b, row, j, p);
                double term = at < 0 ? 0 : (double)x[at] * (double)weight(&b, j, p);
                sum += term;
                size += fabs(term);
            }
            if (b.l->residual) {
                sum += (double)((const float *)b.residual_f32.data)[e];
                size += fabs((double)((const float *)b.residual_f32.data)[e]);
            }
            if (b.l->relu6)
                sum = sum < 0 ? 0 : sum > 6 ? 6 : sum;
            if (!(fabs((double)first[e] - sum) <= 1e-5 * size))
                fail_msg("%s: seed %zu: element %zu is %.9g, want %.9g", qd_test_layers[i].label, 400 + i, e,
                         (double)first[e], sum);
        }
        bed_free(&b);
    }
}

/* The worst sums int32 has to hold. */
static void test_extremes(void **state)
{
    (void)state;
    for (int sign = -1; sign <= 1; sign += 2) {
        struct bed b = bed_new(&qd_test_layers[qd_test_layer_count - 1], 1);
        assert_int_equal(depth(&b), 66000);
        float *w = b.w.data;
        uint8_t *x = b.in.data = get(&b, 2 * 66000, 1);
        b.in.dtype = QD_U8;
        memset(x, 255, 66000);
        for (size_t i = 0; i < 3 * 66000; i++)
            w[i] = (float)sign;
        struct qd_qparams low = {.scale = 1, .zero_point = 0, .qmin = 0, .qmax = 255};
        struct qd_qparams high = {.scale = 1, .zero_point = 255, .qmin = 0, .qmax = 255};
        struct qd_linear *linear = make(&b, true, 0, 0);
        float out[7], whole = 255.0f * 127 * 66000;
        float scale = 1.0f * qd_weight_scale_s8(1);
        run(&b, linear, 2, &low, NULL, NULL, out, 1);
        assert_true(out[0] == (float)sign * whole * scale && out[3] == 0);
        run(&b, linear, 2, &high, NULL, NULL, out, 1);
        assert_true(out[0] == 0 && out[3] == -(float)sign * whole * scale);
        bed_free(&b);
    }
}

static void test_refused_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *layer, *in;
    } rows[] = {{"3x3", "2,4,9,7"},
                {"3x3", "2,3,2,7"},
                {"3x3", "2,3,9"},
                {"3x3", "2,3,9,7,1"},
                {"3x3", "1,3,0,7"},
                {"Gemm", "5,32"},
                {"Gemm", ""},
                {"depthwise", "1,32,9,9"},
                {"transposed", "2,24,9"},
                {"transposed", "2,20,9,11"},
                {"transposed", "2,24,0,11"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t layer = 0;
        while (strcmp(qd_test_layers[layer].label, rows[i].layer) != 0)
            layer++;
        struct bed b = bed_new(&qd_test_layers[layer], 9);
        struct qd_linear *linear = make(&b, true, 0, 0);
        struct qd_shape in = qd_mb_shape(rows[i].in), out;
        struct qd_error error = {0};
        assert_int_equal(qd_linear_infer(linear, &in, &out, &error), QD_ERR_SHAPE);
        assert_non_null(strstr(error.text, "'layer'"));
        bed_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_int8),     cmocka_unit_test(test_int16),          cmocka_unit_test(test_fp32),
        cmocka_unit_test(test_extremes), cmocka_unit_test(test_refused_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
