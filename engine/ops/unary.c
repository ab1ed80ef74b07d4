/* Elementwise functions of one tensor: a table of rows with a function per element type, one vtable for all of them;
 * and Clip, whose limits are attributes or inputs. Not for casts (cast.c) or fused activations (linear.h). */
#include "engine/ops/helpers.h"

#include <math.h>
#include <string.h>

struct unary; /* a row with a node's attributes */

struct unary_row {
    const char *op;
    const char *first, *second; /* names of its float attributes, or NULL */
    float first_default, second_default;
    void (*fn[QD_DTYPE_COUNT])(const struct unary *u, const void *in, void *out,
                               int64_t n); /* NULL: not for this type */
};

struct unary {
    const struct unary_row *row;
    float a, b; /* its attributes */
};

#define UNARY(name, type, value)                                                                                       \
    static void name(const struct unary *u, const void *in, void *out, int64_t n)                                      \
    {                                                                                                                  \
        const type *x_ = in;                                                                                           \
        type *y_ = out;                                                                                                \
        float a = u->a, b = u->b;                                                                                      \
        (void)a, (void)b;                                                                                              \
        for (int64_t i_ = 0; i_ < n; i_++) {                                                                           \
            type x = x_[i_];                                                                                           \
            y_[i_] = (type)(value);                                                                                    \
        }                                                                                                              \
    }

UNARY(relu_f32, float, x < 0.0f ? 0.0f : x)
UNARY(leaky_relu_f32, float, x < 0.0f ? a * x : x)
UNARY(thresholded_relu_f32, float, x > a ? x : 0.0f)
UNARY(elu_f32, float, x < 0.0f ? a * expm1f(x) : x)
UNARY(selu_f32, float, x > 0.0f ? b * x : b * a * expm1f(x))
UNARY(celu_f32, float, fmaxf(0.0f, x) + fminf(0.0f, a *expm1f(x / a)))
UNARY(hard_sigmoid_f32, float, fmaxf(0.0f, fminf(1.0f, a *x + b)))
UNARY(hard_swish_f32, float, x *fmaxf(0.0f, fminf(1.0f, x / 6.0f + 0.5f)))
UNARY(sigmoid_f32, float, x < 0.0f ? expf(x) / (1.0f + expf(x)) : 1.0f / (1.0f + expf(-x)))
UNARY(tanh_f32, float, tanhf(x))
UNARY(softplus_f32, float, fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))))
UNARY(softsign_f32, float, x / (1.0f + fabsf(x)))
UNARY(mish_f32, float, x *tanhf(fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)))))
UNARY(swish_f32, float, a *x < 0.0f ? x * (expf(a * x) / (1.0f + expf(a * x))) : x / (1.0f + expf(-a * x)))
UNARY(shrink_f32, float, x<-b ? x + a : x> b ? x - a : 0.0f)
UNARY(exp_f32, float, expf(x))
UNARY(log_f32, float, logf(x))
UNARY(sqrt_f32, float, sqrtf(x))
UNARY(erf_f32, float, erff(x))
UNARY(floor_f32, float, floorf(x))
UNARY(ceil_f32, float, ceilf(x))
UNARY(round_f32, float, rintf(x))
UNARY(reciprocal_f32, float, 1.0f / x)
UNARY(sin_f32, float, sinf(x))
UNARY(cos_f32, float, cosf(x))
UNARY(tan_f32, float, tanf(x))
UNARY(asin_f32, float, asinf(x))
UNARY(acos_f32, float, acosf(x))
UNARY(atan_f32, float, atanf(x))
UNARY(sinh_f32, float, sinhf(x))
UNARY(cosh_f32, float, coshf(x))
UNARY(asinh_f32, float, asinhf(x))
UNARY(acosh_f32, float, acoshf(x))
UNARY(atanh_f32, float, atanhf(x))
UNARY(not_bool, uint8_t, !x)

UNARY(abs_f32, float, fabsf(x))
UNARY(neg_f32, float, -x)
UNARY(sign_f32, float, x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x)

/* Integers: through the unsigned type, because -INT_MIN has no value. */
#define SIGNED_INTEGERS(type, bits)                                                                                    \
    UNARY(relu_##bits, type, x < 0 ? 0 : x)                                                                            \
    UNARY(abs_##bits, type, x < 0 ? 0u - (uint64_t)x : (uint64_t)x)                                                    \
    UNARY(neg_##bits, type, 0u - (uint64_t)x)                                                                          \
    UNARY(sign_##bits, type, (x > 0) - (x < 0))
SIGNED_INTEGERS(int8_t, i8)
SIGNED_INTEGERS(int16_t, i16)
SIGNED_INTEGERS(int32_t, i32)
SIGNED_INTEGERS(int64_t, i64)

#define UNSIGNED_INTEGERS(type, bits)                                                                                  \
    UNARY(abs_##bits, type, x)                                                                                         \
    UNARY(sign_##bits, type, x > 0)
UNSIGNED_INTEGERS(uint8_t, u8)
UNSIGNED_INTEGERS(uint16_t, u16)
UNSIGNED_INTEGERS(uint32_t, u32)
UNSIGNED_INTEGERS(uint64_t, u64)

#define ONLY_F32(f)                                                                                                    \
    {                                                                                                                  \
        [QD_F32] = f##_f32                                                                                             \
    }
#define SIGNED(f) [QD_F32] = f##_f32, [QD_I8] = f##_i8, [QD_I16] = f##_i16, [QD_I32] = f##_i32, [QD_I64] = f##_i64
#define ALL(f)    SIGNED(f), [QD_U8] = f##_u8, [QD_U16] = f##_u16, [QD_U32] = f##_u32, [QD_U64] = f##_u64

static const struct unary_row rows[] = {
    {"Relu", NULL, NULL, 0, 0, {SIGNED(relu)}},
    {"LeakyRelu", "alpha", NULL, 0.01f, 0, ONLY_F32(leaky_relu)},
    {"ThresholdedRelu", "alpha", NULL, 1.0f, 0, ONLY_F32(thresholded_relu)},
    {"Elu", "alpha", NULL, 1.0f, 0, ONLY_F32(elu)},
    {"Selu", "alpha", "gamma", 1.67326319217681884765625f, 1.05070102214813232421875f, ONLY_F32(selu)},
    {"Celu", "alpha", NULL, 1.0f, 0, ONLY_F32(celu)},
    {"HardSigmoid", "alpha", "beta", 0.2f, 0.5f, ONLY_F32(hard_sigmoid)},
    {"HardSwish", NULL, NULL, 0, 0, ONLY_F32(hard_swish)},
    {"Sigmoid", NULL, NULL, 0, 0, ONLY_F32(sigmoid)},
    {"Tanh", NULL, NULL, 0, 0, ONLY_F32(tanh)},
    {"Softplus", NULL, NULL, 0, 0, ONLY_F32(softplus)},
    {"Softsign", NULL, NULL, 0, 0, ONLY_F32(softsign)},
    {"Mish", NULL, NULL, 0, 0, ONLY_F32(mish)},
    {"Swish", "alpha", NULL, 1.0f, 0, ONLY_F32(swish)},
    {"Shrink", "bias", "lambd", 0, 0.5f, ONLY_F32(shrink)},
    {"Exp", NULL, NULL, 0, 0, ONLY_F32(exp)},
    {"Log", NULL, NULL, 0, 0, ONLY_F32(log)},
    {"Sqrt", NULL, NULL, 0, 0, ONLY_F32(sqrt)},
    {"Erf", NULL, NULL, 0, 0, ONLY_F32(erf)},
    {"Floor", NULL, NULL, 0, 0, ONLY_F32(floor)},
    {"Ceil", NULL, NULL, 0, 0, ONLY_F32(ceil)},
    {"Round", NULL, NULL, 0, 0, ONLY_F32(round)},
    {"Reciprocal", NULL, NULL, 0, 0, ONLY_F32(reciprocal)},
    {"Sin", NULL, NULL, 0, 0, ONLY_F32(sin)},
    {"Cos", NULL, NULL, 0, 0, ONLY_F32(cos)},
    {"Tan", NULL, NULL, 0, 0, ONLY_F32(tan)},
    {"Asin", NULL, NULL, 0, 0, ONLY_F32(asin)},
    {"Acos", NULL, NULL, 0, 0, ONLY_F32(acos)},
    {"Atan", NULL, NULL, 0, 0, ONLY_F32(atan)},
    {"Sinh", NULL, NULL, 0, 0, ONLY_F32(sinh)},
    {"Cosh", NULL, NULL, 0, 0, ONLY_F32(cosh)},
    {"Asinh", NULL, NULL, 0, 0, ONLY_F32(asinh)},
    {"Acosh", NULL, NULL, 0, 0, ONLY_F32(acosh)},
    {"Atanh", NULL, NULL, 0, 0, ONLY_F32(atanh)},
    {"Not", NULL, NULL, 0, 0, {[QD_BOOL] = not_bool}},
    {"Neg", NULL, NULL, 0, 0, {SIGNED(neg)}},
    {"Abs", NULL, NULL, 0, 0, {ALL(abs)}},
    {"Sign", NULL, NULL, 0, 0, {ALL(sign)}},
};

static enum qd_status unary_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                    struct qd_error *error)
{
    struct unary *u = QD_PREP_NEW(arena, struct unary);
    if (!u)
        return qd_op_no_memory(node, error);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(rows[i].op, node->op) == 0)
            u->row = &rows[i];
    if (!u->row)
        return qd_op_refuse(node, error, QD_ERR_INTERNAL, "has no row in the table of unary operators");
    u->a = u->row->first ? qd_attr_float(node, u->row->first, u->row->first_default) : 0.0f;
    u->b = u->row->second ? qd_attr_float(node, u->row->second, u->row->second_default) : 0.0f;
    *prep = u;
    return QD_OK;
}

/* Elementwise: the order in memory is the input's. */
static enum qd_status same_as_input(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_out(call, 0, call->in[0].dtype, &call->in[0].shape, error);
    call->out[0].layout = call->in[0].layout;
    return status;
}

static enum qd_status unary_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct unary *u = call->prep;
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status)
        return status;
    unsigned types = 0;
    for (int t = 0; t < QD_DTYPE_COUNT; t++)
        types |= u->row->fn[t] ? QD_BIT(t) : 0;
    if ((status = qd_op_types(call, 0, types, error)))
        return status;
    return same_as_input(call, error);
}

static void unary_part(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    const struct unary *u = call->prep;
    enum qd_dtype dtype = call->in[0].dtype;
    size_t at = (size_t)begin * qd_dtype_bytes(dtype);
    u->row->fn[dtype](u, (const char *)call->in[0].data + at, (char *)call->out[0].data + at, end - begin);
}

static enum qd_status unary_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    qd_op_split(call, qd_tensor_elems(&call->in[0]), 8192, unary_part, (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_unary = {
    .flags = QD_OP_ELEMENTWISE, .prepare = unary_prepare, .infer = unary_infer, .run = unary_run};

/* ------------------------------------------------------------------ Gelu: two formulas by a string attribute */

static enum qd_status gelu_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                   struct qd_error *error)
{
    bool *by_tanh = QD_PREP_NEW(arena, bool);
    if (!by_tanh)
        return qd_op_no_memory(node, error);
    *by_tanh = qd_attr_is(node, "approximate", "none", "tanh");
    if (!*by_tanh && !qd_attr_is(node, "approximate", "none", "none"))
        return qd_op_refuse(node, error, QD_ERR_INVALID, "attribute approximate must be \"none\" or \"tanh\"");
    *prep = by_tanh;
    return QD_OK;
}

static enum qd_status gelu_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)))
        return status;
    return same_as_input(call, error);
}

static void gelu_part(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    const float *in = call->in[0].data;
    float *out = call->out[0].data;
    bool by_tanh = *(const bool *)call->prep;
    for (int64_t i = begin; i < end; i++) {
        float x = in[i];
        out[i] = by_tanh ? 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)))
                         : 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
    }
}

static enum qd_status gelu_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    qd_op_split(call, qd_tensor_elems(&call->in[0]), 8192, gelu_part, (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_gelu = {
    .flags = QD_OP_ELEMENTWISE, .prepare = gelu_prepare, .infer = gelu_infer, .run = gelu_run};

/* ------------------------------------------------------------------ Clip */

struct clip {
    float lo, hi;
};

static enum qd_status clip_6_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                     struct qd_error *error)
{
    struct clip *clip = QD_PREP_NEW(arena, struct clip);
    if (!clip)
        return qd_op_no_memory(node, error);
    clip->lo = qd_attr_float(node, "min", -INFINITY);
    clip->hi = qd_attr_float(node, "max", INFINITY);
    *prep = clip;
    return QD_OK;
}

#define CLIP(name, type, lowest, highest)                                                                              \
    static void name(const struct qd_call *call, int64_t begin, int64_t end)                                           \
    {                                                                                                                  \
        const type *in = call->in[0].data;                                                                             \
        type *out = call->out[0].data;                                                                                 \
        type lo = qd_op_has(call, 1) ? *(const type *)call->in[1].data : (type)(lowest);                               \
        type hi = qd_op_has(call, 2) ? *(const type *)call->in[2].data : (type)(highest);                              \
        for (int64_t i = begin; i < end; i++) {                                                                        \
            type x = in[i];                                                                                            \
            x = x < lo ? lo : x;                                                                                       \
            out[i] = x > hi ? hi : x;                                                                                  \
        }                                                                                                              \
    }
CLIP(clip_f32, float, call->prep ? ((const struct clip *)call->prep)->lo : -INFINITY,
     call->prep ? ((const struct clip *)call->prep)->hi : INFINITY)
CLIP(clip_f64, double, -INFINITY, INFINITY)
CLIP(clip_i8, int8_t, INT8_MIN, INT8_MAX)
CLIP(clip_i16, int16_t, INT16_MIN, INT16_MAX)
CLIP(clip_i32, int32_t, INT32_MIN, INT32_MAX)
CLIP(clip_i64, int64_t, INT64_MIN, INT64_MAX)
CLIP(clip_u8, uint8_t, 0, UINT8_MAX)
CLIP(clip_u16, uint16_t, 0, UINT16_MAX)
CLIP(clip_u32, uint32_t, 0, UINT32_MAX)
CLIP(clip_u64, uint64_t, 0, UINT64_MAX)

static void (*const clips[QD_DTYPE_COUNT])(const struct qd_call *, int64_t, int64_t) = {
    [QD_F32] = clip_f32, [QD_F64] = clip_f64, [QD_I8] = clip_i8,   [QD_I16] = clip_i16, [QD_I32] = clip_i32,
    [QD_I64] = clip_i64, [QD_U8] = clip_u8,   [QD_U16] = clip_u16, [QD_U32] = clip_u32, [QD_U64] = clip_u64,
};

static enum qd_status clip_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, call->prep ? 1 : 3, error);
    if (status)
        return status;
    if (!clips[call->in[0].dtype] || (call->prep && call->in[0].dtype != QD_F32))
        return qd_op_types(call, 0, 0, error);
    for (int i = 1; i < 3; i++) {
        if (!qd_op_has(call, i))
            continue;
        if ((status = qd_op_same_type(call, 0, i, error)))
            return status;
        if (qd_tensor_elems(&call->in[i]) != 1)
            return qd_op_fail(call, error, QD_ERR_SHAPE, "%s must have one element", i == 1 ? "min" : "max");
    }
    return same_as_input(call, error);
}

static void clip_part(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    clips[call->in[0].dtype](call, begin, end);
}

static enum qd_status clip_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    qd_op_split(call, qd_tensor_elems(&call->in[0]), 16384, clip_part, (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_clip_6 = {
    .flags = QD_OP_ELEMENTWISE, .prepare = clip_6_prepare, .infer = clip_infer, .run = clip_run};
const struct qd_op qd_op_clip_11 = {.flags = QD_OP_ELEMENTWISE, .infer = clip_infer, .run = clip_run};

/* ------------------------------------------------------------------ IsNaN, IsInf: not in place, the type changes */

static enum qd_status is_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)))
        return status;
    return qd_op_out(call, 0, QD_BOOL, &call->in[0].shape, error);
}

static enum qd_status is_nan_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const float *in = call->in[0].data;
    uint8_t *out = call->out[0].data;
    for (int64_t i = 0, n = qd_tensor_elems(&call->in[0]); i < n; i++)
        out[i] = (uint8_t)(isnan(in[i]) != 0);
    return QD_OK;
}

static enum qd_status is_inf_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const float *in = call->in[0].data;
    uint8_t *out = call->out[0].data;
    bool positive = qd_attr_int(call->node, "detect_positive", 1),
         negative = qd_attr_int(call->node, "detect_negative", 1);
    for (int64_t i = 0, n = qd_tensor_elems(&call->in[0]); i < n; i++)
        out[i] = isinf(in[i]) && (in[i] > 0.0f ? positive : negative);
    return QD_OK;
}

const struct qd_op qd_op_is_nan = {.infer = is_infer, .run = is_nan_run};
const struct qd_op qd_op_is_inf = {.infer = is_infer, .run = is_inf_run};

/* ------------------------------------------------------------------ SwiGLU: one tensor gates another */

static enum qd_status swiglu_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)) ||
        (status = qd_op_same_type(call, 0, 1, error)))
        return status;
    if (!qd_shape_equal(&call->in[0].shape, &call->in[1].shape))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "its inputs must have one shape");
    return qd_op_out(call, 0, QD_F32, &call->in[0].shape, error);
}

static void swiglu_part(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    const struct unary swish = {.a = qd_attr_float(call->node, "alpha", 1)};
    float *y = (float *)call->out[0].data + begin;
    swish_f32(&swish, (const float *)call->in[0].data + begin, y, end - begin);
    for (int64_t i = 0; i < end - begin; i++)
        y[i] *= ((const float *)call->in[1].data)[begin + i];
}

static enum qd_status swiglu_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    qd_op_split(call, qd_tensor_elems(&call->out[0]), 4096, swiglu_part, (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_swiglu = {.infer = swiglu_infer, .run = swiglu_run};
