/* Operators that make tensors from numbers: Constant, ConstantOfShape, Range; and CumSum, CumProd. */
#include "engine/ops/helpers.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ------------------------------------------------------------------ Constant */

/* The constant as a tensor that borrows the attribute's memory; dtype QD_NONE when there is none we know. */
static struct qd_tensor constant_of(const struct qd_node *node)
{
    struct qd_tensor t = {.dtype = QD_NONE};
    for (int i = 0; i < node->attr_count; i++) {
        const struct qd_attr *a = &node->attrs[i];
        bool list = a->type == QD_ATTR_FLOATS || a->type == QD_ATTR_INTS;
        if (a->type == QD_ATTR_TENSOR && strcmp(a->name, "value") == 0)
            return a->t;
        if (strncmp(a->name, "value_", 6) != 0 || (!list && a->type != QD_ATTR_FLOAT && a->type != QD_ATTR_INT))
            continue;
        t.dtype = a->type == QD_ATTR_FLOATS || a->type == QD_ATTR_FLOAT ? QD_F32 : QD_I64;
        t.shape.rank = list ? 1 : 0;
        t.shape.dims[0] = (int64_t)a->count;
        t.data = (void *)(uintptr_t)(a->type == QD_ATTR_FLOATS  ? (const void *)a->floats
                                     : a->type == QD_ATTR_INTS  ? (const void *)a->ints
                                     : a->type == QD_ATTR_FLOAT ? (const void *)&a->f
                                                                : (const void *)&a->i);
    }
    return t;
}

static enum qd_status constant_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_tensor t = constant_of(call->node);
    enum qd_status status = qd_op_inputs(call, 0, 0, error);
    if (status)
        return status;
    if (!(QD_BIT(t.dtype) & QD_TYPES_ANY))
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "has no value of a supported type");
    return qd_op_out(call, 0, t.dtype, &t.shape, error);
}

static enum qd_status constant_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    struct qd_tensor t = constant_of(call->node);
    qd_op_copy(call->out[0].data, t.data, qd_tensor_bytes(&t));
    return QD_OK;
}

const struct qd_op qd_op_constant = {.flags = QD_OP_SHAPE_ONLY, .infer = constant_infer, .run = constant_run};

/* ------------------------------------------------------------------ ConstantOfShape */

static enum qd_status of_shape_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_shape out = {0};
    size_t count = 0;
    const struct qd_attr *value = qd_attr_find(call->node, "value");
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status)
        return status;
    if (value && (value->type != QD_ATTR_TENSOR || qd_tensor_elems(&value->t) != 1 || !value->t.data ||
                  !(QD_BIT(value->t.dtype) & QD_TYPES_ANY)))
        return qd_op_fail(call, error, QD_ERR_INVALID, "its value must be one number");
    if ((status = qd_op_ints(call, 0, out.dims, QD_MAX_RANK, &count, error)))
        return status;
    out.rank = (int)count;
    if (!qd_shape_known(&out))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the shape has a negative dimension");
    return qd_op_out(call, 0, value ? value->t.dtype : QD_F32, &out, error);
}

static enum qd_status of_shape_run(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_attr *value = qd_attr_find(call->node, "value");
    enum qd_status status = qd_op_recheck(call, of_shape_infer, error);
    if (status)
        return status;
    size_t bytes = qd_dtype_bytes(call->out[0].dtype);
    char *out = call->out[0].data;
    for (int64_t i = 0, n = qd_tensor_elems(&call->out[0]); i < n; i++, out += bytes) {
        if (value)
            memcpy(out, value->t.data, bytes);
        else
            memset(out, 0, bytes);
    }
    return QD_OK;
}

const struct qd_op qd_op_constant_of_shape = {.infer = of_shape_infer, .run = of_shape_run};

/* ------------------------------------------------------------------ Range: start, limit, delta */

#define RANGE_TYPES (QD_TYPES_FLOAT | QD_BIT(QD_F64) | QD_TYPES_INDEX | QD_BIT(QD_I16))

/* Elements between two integers; the distance is below 2^64, and so is the count. */
static uint64_t range_ints(int64_t start, int64_t limit, int64_t delta)
{
    if (delta > 0 ? start >= limit : start <= limit)
        return 0;
    uint64_t distance = delta > 0 ? (uint64_t)limit - (uint64_t)start : (uint64_t)start - (uint64_t)limit;
    uint64_t step = delta > 0 ? (uint64_t)delta : 0 - (uint64_t)delta;
    return (distance - 1) / step + 1;
}

static enum qd_status range_infer(const struct qd_call *call, struct qd_error *error)
{
    double v[3];
    enum qd_status status = qd_op_inputs(call, 3, 3, error);
    if (!status)
        status = qd_op_types(call, 0, RANGE_TYPES, error);
    for (int i = 0; i < 3 && !status; i++)
        if (!(status = qd_op_same_type(call, 0, i, error)))
            status = qd_op_scalar(call, i, &v[i], error);
    if (status)
        return status;
    enum qd_dtype dtype = call->in[0].dtype;
    double count = ceil((v[1] - v[0]) / v[2]);
    if (v[2] == 0)
        return qd_op_fail(call, error, QD_ERR_INVALID, "its delta is 0");
    if (dtype == QD_I32 || dtype == QD_I16)
        count = (double)range_ints((int64_t)v[0], (int64_t)v[1], (int64_t)v[2]);
    if (dtype == QD_I64)
        count = (double)range_ints(*(const int64_t *)call->in[0].data, *(const int64_t *)call->in[1].data,
                                   *(const int64_t *)call->in[2].data);
    if (!(count < 0x1p48))
        return qd_op_fail(call, error, QD_ERR_TOO_LARGE, "it has too many elements");
    struct qd_shape out = {.rank = 1, .dims = {count > 0 ? (int64_t)count : 0}};
    return qd_op_out(call, 0, dtype, &out, error);
}

static enum qd_status range_run(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_recheck(call, range_infer, error);
    if (status)
        return status;
    void *out = call->out[0].data;
    const void *start = call->in[0].data, *delta = call->in[2].data;
    for (int64_t i = 0, n = call->out[0].shape.dims[0]; i < n; i++) {
        switch (call->out[0].dtype) {
        case QD_F32:
            ((float *)out)[i] = *(const float *)start + (float)i * *(const float *)delta;
            break;
        case QD_F64:
            ((double *)out)[i] = *(const double *)start + (double)i * *(const double *)delta;
            break;
        case QD_I16:
            ((int16_t *)out)[i] = (int16_t)(*(const int16_t *)start + i * *(const int16_t *)delta);
            break;
        case QD_I32:
            ((int32_t *)out)[i] = (int32_t)(*(const int32_t *)start + i * *(const int32_t *)delta);
            break;
        default:
            ((int64_t *)out)[i] = (int64_t)(*(const uint64_t *)start +
                                            (uint64_t)i * *(const uint64_t *)delta); /* wraps, never beyond limit */
        }
    }
    return QD_OK;
}

const struct qd_op qd_op_range = {.infer = range_infer, .run = range_run};

/* ------------------------------------------------------------------ CumSum, CumProd */

#define CUMULATE_TYPES (QD_TYPES_FLOAT | QD_BIT(QD_F64) | QD_TYPES_INDEX | QD_BIT(QD_U32) | QD_BIT(QD_U64))

static enum qd_status cumulate_axis(const struct qd_call *call, int64_t *axis, struct qd_error *error)
{
    if (qd_tensor_elems(&call->in[1]) != 1)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "its axis must be one number");
    if (!call->in[1].data)
        return QD_ERR_NEEDS_DATA;
    *axis = call->in[1].dtype == QD_I64 ? *(const int64_t *)call->in[1].data : *(const int32_t *)call->in[1].data;
    return qd_op_axis(call, axis, call->in[0].shape.rank, error);
}

static enum qd_status cumulate_infer(const struct qd_call *call, struct qd_error *error)
{
    int64_t axis = 0;
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (status || (status = qd_op_types(call, 0, CUMULATE_TYPES, error)) ||
        (status = qd_op_types(call, 1, QD_TYPES_INDEX, error)) ||
        (call->in[1].data && (status = cumulate_axis(call, &axis, error))))
        return status;
    return qd_op_out(call, 0, call->in[0].dtype, &call->in[0].shape, error); /* the shape doesn't depend on the axis */
}

#define CUMULATE(name, type, sum_type, none, with)                                                                     \
    static void name(const type *in, type *out, int64_t n, int64_t stride, bool exclusive, bool reverse)               \
    {                                                                                                                  \
        sum_type sum = none;                                                                                           \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            int64_t at = (reverse ? n - 1 - i : i) * stride;                                                           \
            sum_type before = sum;                                                                                     \
            sum with(sum_type) in[at];                                                                                 \
            out[at] = (type)(exclusive ? before : sum);                                                                \
        }                                                                                                              \
    }
/* Of integers, signed and unsigned ones give the same bits. */
CUMULATE(sum_f32, float, double, 0, +=)
CUMULATE(sum_f64, double, double, 0, +=)
CUMULATE(sum_i32, int32_t, uint32_t, 0, +=)
CUMULATE(sum_i64, int64_t, uint64_t, 0, +=)
CUMULATE(product_f32, float, double, 1, *=)
CUMULATE(product_f64, double, double, 1, *=)
CUMULATE(product_i32, int32_t, uint32_t, 1, *=)
CUMULATE(product_i64, int64_t, uint64_t, 1, *=)

static enum qd_status cumulate_run(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_tensor *in = &call->in[0];
    bool exclusive = qd_attr_int(call->node, "exclusive", 0) != 0, reverse = qd_attr_int(call->node, "reverse", 0) != 0;
    bool product = strcmp(call->node->op, "CumProd") == 0;
    int64_t axis = 0, elems = qd_tensor_elems(in);
    enum qd_status status = cumulate_axis(call, &axis, error);
    if (status || elems == 0)
        return status;
    int64_t n = in->shape.dims[axis], inner = qd_shape_span(&in->shape, (int)axis + 1, in->shape.rank);
    void *out = call->out[0].data;
    for (int64_t s = 0; s < elems / n; s++) {
        int64_t at = s / inner * n * inner + s % inner;
        switch (in->dtype) {
        case QD_F32:
            (product ? product_f32 : sum_f32)((const float *)in->data + at, (float *)out + at, n, inner, exclusive,
                                              reverse);
            break;
        case QD_F64:
            (product ? product_f64 : sum_f64)((const double *)in->data + at, (double *)out + at, n, inner, exclusive,
                                              reverse);
            break;
        case QD_I32:
        case QD_U32:
            (product ? product_i32 : sum_i32)((const int32_t *)in->data + at, (int32_t *)out + at, n, inner, exclusive,
                                              reverse);
            break;
        default:
            (product ? product_i64 : sum_i64)((const int64_t *)in->data + at, (int64_t *)out + at, n, inner, exclusive,
                                              reverse);
            break;
        }
    }
    return QD_OK;
}

const struct qd_op qd_op_cumulate = {.infer = cumulate_infer, .run = cumulate_run};
