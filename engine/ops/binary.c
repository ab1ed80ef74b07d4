/* Elementwise functions of two tensors (of any number: Min, Max, Sum, Mean) with numpy broadcasting: a table of rows,
 * one function per element type, one vtable for all of them; Where besides. Integers wrap around, and division by zero
 * gives 0: nothing here may trap. Not for fused additions of quantized tensors. */
#include "engine/ops/helpers.h"

#include <math.h>
#include <string.h>

/* y[i] = f(a[i * sa], b[i * sb]); sa, sb are 0 or a stride. y may be a. */
#define BINARY(name, type, result, value)                                                                              \
    static void name(const void *a_, int64_t sa, const void *b_, int64_t sb, void *y_, int64_t n)                      \
    {                                                                                                                  \
        const type *a = a_, *b = b_;                                                                                   \
        result *out = y_;                                                                                              \
        if (sa == 1 && sb == 1) { /* written out so that these are vectorized */                                       \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                type x = a[i], y = b[i];                                                                               \
                out[i] = (result)(value);                                                                              \
            }                                                                                                          \
        } else if (sa == 1 && sb == 0) {                                                                               \
            type y = n > 0 ? b[0] : (type)0;                                                                           \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                type x = a[i];                                                                                         \
                out[i] = (result)(value);                                                                              \
            }                                                                                                          \
        } else {                                                                                                       \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                type x = a[i * sa], y = b[i * sb];                                                                     \
                out[i] = (result)(value);                                                                              \
            }                                                                                                          \
        }                                                                                                              \
    }

/* Integer results are computed modulo 2^64, which is right for every narrower type as well. */
#define U(v) ((uint64_t)(v))
#define ARITHMETIC(type, t)                                                                                            \
    BINARY(add_##t, type, type, U(x) + U(y))                                                                           \
    BINARY(sub_##t, type, type, U(x) - U(y))                                                                           \
    BINARY(mul_##t, type, type, U(x) * U(y))
#define ORDER(type, t)                                                                                                 \
    BINARY(min_##t, type, type, y < x ? y : x)                                                                         \
    BINARY(max_##t, type, type, y > x ? y : x)                                                                         \
    BINARY(equal_##t, type, uint8_t, x == y)                                                                           \
    BINARY(less_##t, type, uint8_t, x < y)                                                                             \
    BINARY(greater_##t, type, uint8_t, x > y)                                                                          \
    BINARY(less_or_equal_##t, type, uint8_t, x <= y)                                                                   \
    BINARY(greater_or_equal_##t, type, uint8_t, x >= y)
/* C truncates towards zero as the standard wants; x / -1 through negation, which wraps for the smallest number. */
#define SIGNED_DIVISION(type, t)                                                                                       \
    BINARY(div_##t, type, type, y == 0 ? 0 : y == -1 ? (type)(0 - U(x)) : (type)(x / y))                               \
    BINARY(mod_##t, type, type, y == 0 || y == -1 ? 0 : x % y != 0 && (x < 0) != (y < 0) ? x % y + y : x % y)          \
    BINARY(fmod_##t, type, type, y == 0 || y == -1 ? 0 : x % y)
#define UNSIGNED_DIVISION(type, t)                                                                                     \
    BINARY(div_##t, type, type, y == 0 ? 0 : x / y)                                                                    \
    BINARY(mod_##t, type, type, y == 0 ? 0 : x % y)

#define SIGNED(type, t)   ARITHMETIC(type, t) ORDER(type, t) SIGNED_DIVISION(type, t)
#define UNSIGNED(type, t) ARITHMETIC(type, t) ORDER(type, t) UNSIGNED_DIVISION(type, t)
SIGNED(int8_t, i8)
SIGNED(int16_t, i16)
SIGNED(int32_t, i32)
SIGNED(int64_t, i64)
UNSIGNED(uint8_t, u8)
UNSIGNED(uint16_t, u16)
UNSIGNED(uint32_t, u32)
UNSIGNED(uint64_t, u64)

/* Min and Max of a NaN and anything are NaN, as in numpy. */
#define REAL(type, t, fmod_fn)                                                                                         \
    BINARY(add_##t, type, type, x + y)                                                                                 \
    BINARY(sub_##t, type, type, x - y)                                                                                 \
    BINARY(mul_##t, type, type, x *y)                                                                                  \
    BINARY(div_##t, type, type, x / y)                                                                                 \
    BINARY(fmod_##t, type, type, fmod_fn(x, y))                                                                        \
    BINARY(min_##t, type, type, y < x || isnan(y) ? y : x)                                                             \
    BINARY(max_##t, type, type, y > x || isnan(y) ? y : x)                                                             \
    BINARY(equal_##t, type, uint8_t, x == y)                                                                           \
    BINARY(less_##t, type, uint8_t, x < y)                                                                             \
    BINARY(greater_##t, type, uint8_t, x > y)                                                                          \
    BINARY(less_or_equal_##t, type, uint8_t, x <= y)                                                                   \
    BINARY(greater_or_equal_##t, type, uint8_t, x >= y)
REAL(float, f32, fmodf)
REAL(double, f64, fmod)

/* The remainder with the divisor's sign, as in numpy: also that of a zero. */
static double floor_mod(double x, double y)
{
    double rest = fmod(x, y);
    if (rest == 0)
        return copysign(0.0, y);
    return (rest < 0) != (y < 0) ? rest + y : rest;
}
BINARY(mod_f32, float, float, floor_mod((double)x, (double)y))
BINARY(mod_f64, double, double, floor_mod(x, y))
BINARY(prelu_f32, float, float, x < 0.0f ? x * y : x)
BINARY(prelu_i32, int32_t, int32_t, x < 0 ? (int32_t)(U(x) * U(y)) : x)
BINARY(prelu_i64, int64_t, int64_t, x < 0 ? (int64_t)(U(x) * U(y)) : x)
BINARY(prelu_u32, uint32_t, uint32_t, ((void)y, x)) /* nothing is below 0 */
BINARY(prelu_u64, uint64_t, uint64_t, ((void)y, x))
BINARY(and_bool, uint8_t, uint8_t, x &&y)
BINARY(or_bool, uint8_t, uint8_t, x || y)
BINARY(xor_bool, uint8_t, uint8_t, !x != !y)
BINARY(equal_bool, uint8_t, uint8_t, !x == !y)

#define INTEGERS(f)                                                                                                    \
    [QD_I8] = f##_i8, [QD_I16] = f##_i16, [QD_I32] = f##_i32, [QD_I64] = f##_i64, [QD_U8] = f##_u8,                    \
    [QD_U16] = f##_u16, [QD_U32] = f##_u32, [QD_U64] = f##_u64
#define NUMBERS(f) [QD_F32] = f##_f32, [QD_F64] = f##_f64, INTEGERS(f)
#define REALS(f)   [QD_F32] = f##_f32, [QD_F64] = f##_f64

enum { ALL = 1, COMPARES = 2, MEAN = 4, FMOD = 8, ONE_WAY = 16 };

struct binary_row {
    const char *op;
    unsigned flags; /* ALL: any number of inputs; COMPARES: the result is bool; ONE_WAY: only input 1 is broadcast */
    void (*fn[QD_DTYPE_COUNT])(const void *a, int64_t sa, const void *b, int64_t sb, void *y, int64_t n);
};

static bool same_string(struct qd_string a, struct qd_string b)
{
    return a.length == b.length && (a.length == 0 || memcmp(a.bytes, b.bytes, a.length) == 0);
}

static void equal_string(const void *a, int64_t sa, const void *b, int64_t sb, void *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        ((uint8_t *)y)[i] = same_string(((const struct qd_string *)a)[i * sa], ((const struct qd_string *)b)[i * sb]);
}

static const struct binary_row rows[] = {
    {"Add", 0, {NUMBERS(add)}},
    {"Sub", 0, {NUMBERS(sub)}},
    {"Mul", 0, {NUMBERS(mul)}},
    {"Div", 0, {NUMBERS(div)}},
    {"Mod", 0, {NUMBERS(mod)}},
    {"Mod",
     FMOD,
     {REALS(fmod), [QD_I8] = fmod_i8, [QD_I16] = fmod_i16, [QD_I32] = fmod_i32, [QD_I64] = fmod_i64, [QD_U8] = mod_u8,
      [QD_U16] = mod_u16, [QD_U32] = mod_u32, [QD_U64] = mod_u64}},
    {"Min", ALL, {NUMBERS(min)}},
    {"Max", ALL, {NUMBERS(max)}},
    {"Sum", ALL, {REALS(add)}},
    {"Mean", ALL | MEAN, {[QD_F32] = add_f32}},
    {"Equal", COMPARES, {NUMBERS(equal), [QD_BOOL] = equal_bool, [QD_STR] = equal_string}},
    {"Less", COMPARES, {NUMBERS(less)}},
    {"Greater", COMPARES, {NUMBERS(greater)}},
    {"LessOrEqual", COMPARES, {NUMBERS(less_or_equal)}},
    {"GreaterOrEqual", COMPARES, {NUMBERS(greater_or_equal)}},
    {"And", COMPARES, {[QD_BOOL] = and_bool}},
    {"Or", COMPARES, {[QD_BOOL] = or_bool}},
    {"Xor", COMPARES, {[QD_BOOL] = xor_bool}},
    {"PRelu",
     ONE_WAY,
     {[QD_F32] = prelu_f32, [QD_I32] = prelu_i32, [QD_I64] = prelu_i64, [QD_U32] = prelu_u32, [QD_U64] = prelu_u64}},
};

static enum qd_status binary_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                     struct qd_error *error)
{
    const struct binary_row **row = QD_PREP_NEW(arena, const struct binary_row *);
    if (!row)
        return qd_op_no_memory(node, error);
    bool by_fmod = qd_attr_int(node, "fmod", 0) != 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(rows[i].op, node->op) == 0 && (!*row || (rows[i].flags & FMOD && by_fmod)))
            *row = &rows[i];
    if (!*row)
        return qd_op_refuse(node, error, QD_ERR_INTERNAL, "has no row in the table of binary operators");
    *prep = row;
    return QD_OK;
}

static const struct binary_row *row_of(const struct qd_call *call)
{
    return *(const struct binary_row *const *)call->prep;
}

static enum qd_status misfit(const struct qd_call *call, int i, const struct qd_shape *other, struct qd_error *error)
{
    char a[160], b[160];
    return qd_op_fail(call, error, QD_ERR_SHAPE, "input %d of shape %s can't be broadcast together with %s", i,
                      qd_shape_text(&call->in[i].shape, a, sizeof a), qd_shape_text(other, b, sizeof b));
}

static enum qd_status binary_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct binary_row *row = row_of(call);
    int count = row->flags & ALL ? (call->in_count > 1 ? call->in_count : 1) : 2;
    enum qd_status status = qd_op_inputs(call, count, count, error);
    unsigned types = 0;
    for (int t = 0; t < QD_DTYPE_COUNT; t++)
        types |= row->fn[t] ? QD_BIT(t) : 0;
    if (status || (status = qd_op_types(call, 0, types, error)))
        return status;
    struct qd_shape shape = call->in[0].shape;
    for (int i = 1; i < count; i++) {
        if ((status = qd_op_same_type(call, 0, i, error)))
            return status;
        struct qd_shape before = shape;
        if (!qd_broadcast(&before, &call->in[i].shape, &shape) ||
            (row->flags & ONE_WAY && !qd_shape_equal(&before, &shape)))
            return misfit(call, i, &before, error);
    }
    return qd_op_out(call, 0, row->flags & COMPARES ? QD_BOOL : call->in[0].dtype, &shape, error);
}

struct binary_work {
    void (*fn)(const void *a, int64_t sa, const void *b, int64_t sb, void *y, int64_t n);
    const char *a, *b;
    char *y;
    size_t in_bytes, out_bytes; /* of an element */
    int64_t sa, sb;
};

static void binary_piece(void *ctx, int64_t out_at, const int64_t *at, int64_t n)
{
    const struct binary_work *w = ctx;
    w->fn(w->a + at[0] * (int64_t)w->in_bytes, w->sa, w->b + at[1] * (int64_t)w->in_bytes, w->sb,
          w->y + (size_t)out_at * w->out_bytes, n);
}

static void apply(const struct qd_call *call, const struct qd_tensor *a, const struct qd_tensor *b)
{
    const struct qd_tensor *out = &call->out[0];
    struct qd_walk walk;
    qd_walk_begin(&walk, &out->shape);
    qd_walk_broadcast(&walk, &a->shape);
    qd_walk_broadcast(&walk, &b->shape);
    qd_walk_join(&walk);
    struct binary_work work = {
        .fn = row_of(call)->fn[a->dtype],
        .a = a->data,
        .b = b->data,
        .y = out->data,
        .in_bytes = qd_dtype_bytes(a->dtype),
        .out_bytes = qd_dtype_bytes(out->dtype),
        .sa = walk.strides[0][walk.rank - 1],
        .sb = walk.strides[1][walk.rank - 1],
    };
    qd_walk_run(&walk, call, binary_piece, &work);
}

static enum qd_status binary_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct qd_tensor *in = call->in, *out = &call->out[0];
    if (call->in_count == 1) { /* of any number: the input itself */
        qd_op_copy(out->data, in[0].data, qd_tensor_bytes(out));
        return QD_OK;
    }
    apply(call, &in[0], &in[1]);
    for (int i = 2; i < call->in_count; i++)
        apply(call, out, &in[i]);
    float *mean = out->data;
    for (int64_t i = 0, n = qd_tensor_elems(out); row_of(call)->flags & MEAN && i < n; i++)
        mean[i] /= (float)call->in_count;
    return QD_OK;
}

const struct qd_op qd_op_binary = {.prepare = binary_prepare, .infer = binary_infer, .run = binary_run};

/* ------------------------------------------------------------------ Pow: the exponent may have another type */

#define POW_TYPES (QD_TYPES_FLOAT | QD_TYPES_INDEX | QD_BIT(QD_F64))
#define POW_EXPONENTS                                                                                                  \
    (POW_TYPES | QD_BIT(QD_I8) | QD_BIT(QD_I16) | QD_BIT(QD_U8) | QD_BIT(QD_U16) | QD_BIT(QD_U32) | QD_BIT(QD_U64))

static enum qd_status pow_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_shape shape;
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (status || (status = qd_op_types(call, 0, POW_TYPES, error)) ||
        (status = qd_op_types(call, 1, POW_EXPONENTS, error)))
        return status;
    if (!qd_broadcast(&call->in[0].shape, &call->in[1].shape, &shape))
        return misfit(call, 1, &call->in[0].shape, error);
    return qd_op_out(call, 0, call->in[0].dtype, &shape, error);
}

static double real_at(const struct qd_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case QD_F32:
        return (double)((const float *)t->data)[i];
    case QD_F64:
        return ((const double *)t->data)[i];
    case QD_I8:
        return (double)((const int8_t *)t->data)[i];
    case QD_I16:
        return (double)((const int16_t *)t->data)[i];
    case QD_I32:
        return (double)((const int32_t *)t->data)[i];
    case QD_I64:
        return (double)((const int64_t *)t->data)[i];
    case QD_U8:
        return (double)((const uint8_t *)t->data)[i];
    case QD_U16:
        return (double)((const uint16_t *)t->data)[i];
    case QD_U32:
        return (double)((const uint32_t *)t->data)[i];
    default:
        return (double)((const uint64_t *)t->data)[i];
    }
}

/* Without the undefined behaviour of a cast out of range. */
static int64_t to_int(double v, double lowest, double highest)
{
    v = v > lowest ? v : lowest;
    return v < highest ? (int64_t)v : highest > 4e18 ? INT64_MAX : (int64_t)highest;
}

/* Modulo 2^64, for bases and exponents beyond what double holds exactly. */
static int64_t int_power(int64_t base, int64_t exponent)
{
    if (exponent < 0)
        return base == 1 ? 1 : base == -1 ? (exponent % 2 ? -1 : 1) : 0;
    uint64_t result = 1;
    for (uint64_t square = (uint64_t)base; exponent; exponent >>= 1, square *= square)
        result *= exponent & 1 ? square : 1;
    return (int64_t)result;
}

struct pow_work {
    const struct qd_call *call;
    int64_t sa, sb;
};

static void pow_piece(void *ctx, int64_t out_at, const int64_t *at, int64_t n)
{
    const struct pow_work *w = ctx;
    const struct qd_tensor *a = &w->call->in[0], *b = &w->call->in[1];
    void *out = w->call->out[0].data;
    for (int64_t i = 0; i < n; i++) {
        int64_t p = at[0] + i * w->sa, q = at[1] + i * w->sb;
        if (a->dtype == QD_F32) {
            float x = ((const float *)a->data)[p], y = (float)real_at(b, q);
            ((float *)out)[out_at + i] = y == 2.0f ? x * x : powf(x, y);
        } else if (a->dtype == QD_F64) {
            ((double *)out)[out_at + i] = pow(((const double *)a->data)[p], real_at(b, q));
        } else if (a->dtype == QD_I32) {
            int32_t x = ((const int32_t *)a->data)[p];
            ((int32_t *)out)[out_at + i] = b->dtype == QD_I32 ? (int32_t)int_power(x, ((const int32_t *)b->data)[q])
                                                              : (int32_t)to_int(pow((double)x, real_at(b, q)),
                                                                                -2147483648.0, 2147483647.0);
        } else {
            int64_t x = ((const int64_t *)a->data)[p];
            ((int64_t *)out)[out_at + i] = b->dtype == QD_I64 || b->dtype == QD_I32
                                               ? int_power(x, b->dtype == QD_I64 ? ((const int64_t *)b->data)[q]
                                                                                 : ((const int32_t *)b->data)[q])
                                               : to_int(pow((double)x, real_at(b, q)), -0x1p63, 0x1p63);
        }
    }
}

static enum qd_status pow_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    struct qd_walk walk;
    qd_walk_begin(&walk, &call->out[0].shape);
    qd_walk_broadcast(&walk, &call->in[0].shape);
    qd_walk_broadcast(&walk, &call->in[1].shape);
    qd_walk_join(&walk);
    struct pow_work work = {call, walk.strides[0][walk.rank - 1], walk.strides[1][walk.rank - 1]};
    qd_walk_run(&walk, call, pow_piece, &work);
    return QD_OK;
}

const struct qd_op qd_op_pow = {.infer = pow_infer, .run = pow_run};

/* ------------------------------------------------------------------ Where */

static enum qd_status where_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_shape some, shape;
    enum qd_status status = qd_op_inputs(call, 3, 3, error);
    if (status || (status = qd_op_types(call, 0, QD_BIT(QD_BOOL), error)) ||
        (status = qd_op_types(call, 1, QD_TYPES_MOVED, error)) || (status = qd_op_same_type(call, 1, 2, error)))
        return status;
    if (!qd_broadcast(&call->in[0].shape, &call->in[1].shape, &some))
        return misfit(call, 1, &call->in[0].shape, error);
    if (!qd_broadcast(&some, &call->in[2].shape, &shape))
        return misfit(call, 2, &some, error);
    return qd_op_out(call, 0, call->in[1].dtype, &shape, error);
}

struct where_work {
    const struct qd_call *call;
    size_t elem_bytes;
    int64_t strides[3];
};

static void where_piece(void *ctx, int64_t out_at, const int64_t *at, int64_t n)
{
    const struct where_work *w = ctx;
    const uint8_t *condition = (const uint8_t *)w->call->in[0].data + at[0];
    const char *yes = w->call->in[1].data, *no = w->call->in[2].data;
    char *out = (char *)w->call->out[0].data + (size_t)out_at * w->elem_bytes;
    for (int64_t i = 0; i < n; i++, out += w->elem_bytes) {
        bool is = condition[i * w->strides[0]];
        memcpy(out,
               is ? yes + (size_t)(at[1] + i * w->strides[1]) * w->elem_bytes
                  : no + (size_t)(at[2] + i * w->strides[2]) * w->elem_bytes,
               w->elem_bytes);
    }
}

static enum qd_status where_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    struct qd_walk walk;
    struct where_work work = {.call = call, .elem_bytes = qd_dtype_bytes(call->out[0].dtype)};
    qd_walk_begin(&walk, &call->out[0].shape);
    for (int i = 0; i < 3; i++)
        qd_walk_broadcast(&walk, &call->in[i].shape);
    qd_walk_join(&walk);
    for (int i = 0; i < 3; i++)
        work.strides[i] = walk.strides[i][walk.rank - 1];
    qd_walk_run(&walk, call, where_piece, &work);
    return QD_OK;
}

const struct qd_op qd_op_where = {.infer = where_infer, .run = where_run};
