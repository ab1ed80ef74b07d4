/* Cast and CastLike between all number types. Elements pass through the widest type of their kind (double, int64,
 * uint64), so there is one rounding. Floats to integers truncate and saturate, NaN becomes 0; integers to narrower ones
 * keep the low bits. Not for quantization (QuantizeLinear) or text. */
#include "engine/ops/strings.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define PIECE 256 /* elements converted at a time */

union wide {
    double real[PIECE];
    int64_t sint[PIECE];
    uint64_t uint[PIECE];
};

enum kind { REAL, SINT, UINT };

/* ------------------------------------------------------------------ half floats: bits of sign, exponent, mantissa */

struct half {
    int exponent_bits, mantissa_bits;
};
static const struct half f16 = {5, 10}, bf16 = {8, 7};

/* 1.mantissa * 2^exponent, put together from bits: weights are read so by the million. */
static double normal(int exponent, int mantissa, int mantissa_bits)
{
    const uint32_t bits = (uint32_t)(exponent + 127) << 23 | (uint32_t)mantissa << (23 - mantissa_bits);
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

static double half_to_real(uint16_t bits, struct half h)
{
    int bias = (1 << (h.exponent_bits - 1)) - 1, exponent = bits >> h.mantissa_bits & ((1 << h.exponent_bits) - 1);
    int mantissa = bits & ((1 << h.mantissa_bits) - 1);
    double value;
    if (exponent == (1 << h.exponent_bits) - 1)
        value = mantissa ? (double)NAN : (double)INFINITY;
    else if (exponent == 0)
        value = ldexp((double)mantissa, 1 - bias - h.mantissa_bits);
    else
        value = normal(exponent - bias, mantissa, h.mantissa_bits);
    return bits >> 15 ? -value : value;
}

/* Rounds to nearest, ties to even, once. */
static uint16_t half_from_real(double value, struct half h)
{
    int bias = (1 << (h.exponent_bits - 1)) - 1, most = (1 << h.exponent_bits) - 1, exponent = 0;
    unsigned sign = signbit(value) ? 0x8000u : 0u, infinity = (unsigned)most << h.mantissa_bits;
    value = fabs(value);
    if (isnan(value))
        return (uint16_t)(sign | infinity | 1u << (h.mantissa_bits - 1));
    if (isinf(value))
        return (uint16_t)(sign | infinity);
    if (value == 0)
        return (uint16_t)sign; /* frexp knows no exponent of it */
    frexp(value, &exponent);   /* value = [0.5, 1) * 2^exponent */
    int least = 1 - bias;      /* exponent of the smallest normal number */
    int scale = exponent - 1 > least ? exponent - 1 : least;
    double units = rint(
        ldexp(value, h.mantissa_bits - scale)); /* in units of the last place; may round up to the next power */
    if (scale > bias)
        return (uint16_t)(sign | infinity);
    unsigned bits = (unsigned)units + ((unsigned)(scale - least) << h.mantissa_bits);
    return (uint16_t)(sign | (bits < infinity ? bits : infinity));
}

/* ------------------------------------------------------------------ into the wide type, and out of it */

#define LOAD(name, type, member, expression)                                                                           \
    static void name(const void *in_, union wide *wide, int n)                                                         \
    {                                                                                                                  \
        const type *in = in_;                                                                                          \
        for (int i = 0; i < n; i++)                                                                                    \
            wide->member[i] = expression;                                                                              \
    }
LOAD(load_f32, float, real, (double)in[i])
LOAD(load_f64, double, real, in[i])
LOAD(load_f16, uint16_t, real, half_to_real(in[i], f16))
LOAD(load_bf16, uint16_t, real, half_to_real(in[i], bf16))
LOAD(load_i8, int8_t, sint, in[i])
LOAD(load_i16, int16_t, sint, in[i])
LOAD(load_i32, int32_t, sint, in[i])
LOAD(load_i64, int64_t, sint, in[i])
LOAD(load_u8, uint8_t, uint, in[i])
LOAD(load_u16, uint16_t, uint, in[i])
LOAD(load_u32, uint32_t, uint, in[i])
LOAD(load_u64, uint64_t, uint, in[i])
LOAD(load_bool, uint8_t, uint, in[i] != 0)

/* low and high are exact in double and high + 1 is out of range; the comparison sorts NaN out. */
#define TO_INT(v, type, low, high_plus_1, high)                                                                        \
    ((v) > (low) && (v) < (high_plus_1) ? (type)(v)                                                                    \
     : (v) >= (high_plus_1)             ? (high)                                                                       \
     : (v) <= (low)                     ? (type)(low)                                                                  \
                                        : (type)0)

#define STORE(name, type, from_real, from_int)                                                                         \
    static void name(const union wide *wide, enum kind kind, void *out_, int n)                                        \
    {                                                                                                                  \
        type *out = out_;                                                                                              \
        for (int i = 0; i < n; i++) {                                                                                  \
            if (kind == REAL) {                                                                                        \
                double v = wide->real[i];                                                                              \
                out[i] = from_real;                                                                                    \
            } else if (kind == SINT) {                                                                                 \
                int64_t v = wide->sint[i];                                                                             \
                out[i] = from_int;                                                                                     \
            } else {                                                                                                   \
                uint64_t v = wide->uint[i];                                                                            \
                out[i] = from_int;                                                                                     \
            }                                                                                                          \
        }                                                                                                              \
    }
STORE(store_f32, float, (float)v, (float)v)
STORE(store_f64, double, v, (double)v)
STORE(store_f16, uint16_t, half_from_real(v, f16), half_from_real((double)v, f16))
STORE(store_bf16, uint16_t, half_from_real(v, bf16), half_from_real((double)v, bf16))
STORE(store_i8, int8_t, TO_INT(v, int8_t, -128.0, 128.0, INT8_MAX), (int8_t)v)
STORE(store_i16, int16_t, TO_INT(v, int16_t, -32768.0, 32768.0, INT16_MAX), (int16_t)v)
STORE(store_i32, int32_t, TO_INT(v, int32_t, -0x1p31, 0x1p31, INT32_MAX), (int32_t)v)
STORE(store_i64, int64_t, TO_INT(v, int64_t, -0x1p63, 0x1p63, INT64_MAX), (int64_t)v)
STORE(store_u8, uint8_t, TO_INT(v, uint8_t, 0.0, 256.0, UINT8_MAX), (uint8_t)v)
STORE(store_u16, uint16_t, TO_INT(v, uint16_t, 0.0, 65536.0, UINT16_MAX), (uint16_t)v)
STORE(store_u32, uint32_t, TO_INT(v, uint32_t, 0.0, 0x1p32, UINT32_MAX), (uint32_t)v)
STORE(store_u64, uint64_t, TO_INT(v, uint64_t, 0.0, 0x1p64, UINT64_MAX), (uint64_t)v)
STORE(store_bool, uint8_t, (uint8_t)(v != 0), (uint8_t)(v != 0))

static const struct number {
    enum kind kind;
    void (*load)(const void *in, union wide *wide, int n);
    void (*store)(const union wide *wide, enum kind kind, void *out, int n);
} numbers[QD_DTYPE_COUNT] = {
    [QD_F32] = {REAL, load_f32, store_f32},    [QD_F64] = {REAL, load_f64, store_f64},
    [QD_F16] = {REAL, load_f16, store_f16},    [QD_BF16] = {REAL, load_bf16, store_bf16},
    [QD_I8] = {SINT, load_i8, store_i8},       [QD_I16] = {SINT, load_i16, store_i16},
    [QD_I32] = {SINT, load_i32, store_i32},    [QD_I64] = {SINT, load_i64, store_i64},
    [QD_U8] = {UINT, load_u8, store_u8},       [QD_U16] = {UINT, load_u16, store_u16},
    [QD_U32] = {UINT, load_u32, store_u32},    [QD_U64] = {UINT, load_u64, store_u64},
    [QD_BOOL] = {UINT, load_bool, store_bool},
};

/* ------------------------------------------------------------------ the operators */

static enum qd_status infer_to(const struct qd_call *call, enum qd_dtype to, struct qd_error *error)
{
    enum qd_status status = qd_op_types(call, 0, QD_TYPES_MOVED, error);
    const enum qd_dtype from = call->in[0].dtype;
    if (!status && (from == QD_STR || to == QD_STR) && !(qd_string_cast_known(from) && qd_string_cast_known(to)))
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "a cast from %s to %s is not supported", qd_dtype_name(from),
                          qd_dtype_name(to));
    return status ? status : qd_op_out(call, 0, to, &call->in[0].shape, error);
}

static enum qd_status cast_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status)
        return status;
    int64_t onnx = qd_attr_int(call->node, "to", 0);
    enum qd_dtype to = qd_dtype_from_onnx(onnx);
    if (!numbers[to].load && to != QD_STR)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "a cast to element type %" PRId64 " is not supported", onnx);
    return infer_to(call, to, error);
}

static enum qd_status cast_like_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (status || (status = qd_op_types(call, 1, QD_TYPES_MOVED, error)))
        return status;
    return infer_to(call, call->in[1].dtype, error);
}

static void cast_part(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    const struct qd_tensor *in = &call->in[0], *out = &call->out[0];
    const struct number *from = &numbers[in->dtype], *to = &numbers[out->dtype];
    size_t in_bytes = qd_dtype_bytes(in->dtype), out_bytes = qd_dtype_bytes(out->dtype);
    union wide wide;
    for (int64_t i = begin; i < end; i += PIECE) {
        int n = (int)(end - i < PIECE ? end - i : PIECE);
        from->load((const char *)in->data + (size_t)i * in_bytes, &wide, n);
        to->store(&wide, from->kind, (char *)out->data + (size_t)i * out_bytes, n);
    }
}

static enum qd_status cast_run(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_tensor *in = &call->in[0], *out = &call->out[0];
    if (in->dtype == out->dtype)
        qd_op_copy(out->data, in->data, qd_tensor_bytes(out));
    else if (in->dtype == QD_STR || out->dtype == QD_STR)
        return qd_string_cast(call, error);
    else
        qd_op_split(call, qd_tensor_elems(out), 16384, cast_part, (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_cast = {.infer = cast_infer, .run = cast_run};
const struct qd_op qd_op_cast_like = {.infer = cast_like_infer, .run = cast_run};

/* ------------------------------------------------------------------ BitCast: the same bytes under another type */

static enum qd_status bit_cast_infer(const struct qd_call *call, struct qd_error *error)
{
    const int64_t onnx = qd_attr_int(call->node, "to", 0);
    const enum qd_dtype to = qd_dtype_from_onnx(onnx);
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_ANY, error)))
        return status;
    if (!numbers[to].load)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "element type %" PRId64 " is not supported", onnx);
    if (qd_dtype_bytes(to) != qd_dtype_bytes(call->in[0].dtype))
        return qd_op_fail(call, error, QD_ERR_TYPE, "%s and %s are not of one size", qd_dtype_name(call->in[0].dtype),
                          qd_dtype_name(to));
    return qd_op_out(call, 0, to, &call->in[0].shape, error);
}

static enum qd_status bit_cast_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    qd_op_copy(call->out[0].data, call->in[0].data, qd_tensor_bytes(&call->out[0]));
    return QD_OK;
}

const struct qd_op qd_op_bit_cast = {.infer = bit_cast_infer, .run = bit_cast_run};
