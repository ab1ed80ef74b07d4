/* Operators that write elements to indices found in data: ScatterElements (Scatter), ScatterND, TensorScatter. They
 * work in the order of the updates on one thread, so that repeated indices always give the same. Not for reading by
 * index (gather.c). */
#include "engine/ops/helpers.h"

#include <inttypes.h>
#include <string.h>

enum reduction { SET, ADD, MUL, MAX, MIN };

static int reduction_of(const struct qd_node *node)
{
    static const char *const names[] = {"none", "add", "mul", "max", "min"};
    for (int i = 0; i < 5; i++)
        if (qd_attr_is(node, "reduction", "none", names[i]))
            return i;
    return -1;
}

/* Integers wrap: the arithmetic is unsigned and 64 bits wide. */
#define COMBINE(name, type, wide)                                                                                      \
    static void name(void *to_bytes, const void *from_bytes, int64_t n, enum reduction how)                            \
    {                                                                                                                  \
        type *to = to_bytes;                                                                                           \
        const type *from = from_bytes;                                                                                 \
        for (int64_t i = 0; i < n; i++)                                                                                \
            to[i] = how == ADD   ? (type)((wide)to[i] + (wide)from[i])                                                 \
                    : how == MUL ? (type)((wide)to[i] * (wide)from[i])                                                 \
                    : how == MAX ? (from[i] > to[i] ? from[i] : to[i])                                                 \
                                 : (from[i] < to[i] ? from[i] : to[i]);                                                \
    }
COMBINE(combine_f32, float, float)
COMBINE(combine_f64, double, double)
COMBINE(combine_u8, uint8_t, uint64_t)
COMBINE(combine_i8, int8_t, uint64_t)
COMBINE(combine_u16, uint16_t, uint64_t)
COMBINE(combine_i16, int16_t, uint64_t)
COMBINE(combine_u32, uint32_t, uint64_t)
COMBINE(combine_u64, uint64_t, uint64_t)
COMBINE(combine_i32, int32_t, uint64_t)
COMBINE(combine_i64, int64_t, uint64_t)

static void (*const combiners[QD_DTYPE_COUNT])(void *, const void *, int64_t, enum reduction) = {
    [QD_F32] = combine_f32, [QD_F64] = combine_f64, [QD_U8] = combine_u8,   [QD_I8] = combine_i8,
    [QD_U16] = combine_u16, [QD_I16] = combine_i16, [QD_U32] = combine_u32, [QD_I32] = combine_i32,
    [QD_U64] = combine_u64, [QD_I64] = combine_i64,
};

static void put(const struct qd_call *call, int64_t to, int64_t from, int64_t n, enum reduction how)
{
    size_t bytes = qd_dtype_bytes(call->out[0].dtype);
    char *out = (char *)call->out[0].data + (size_t)to * bytes;
    const char *updates = (const char *)call->in[2].data + (size_t)from * bytes;
    if (n && how == SET)
        memcpy(out, updates, (size_t)n * bytes);
    else if (n)
        combiners[call->out[0].dtype](out, updates, n, how);
}

static int64_t index_at(const struct qd_tensor *indices, int64_t i)
{
    return indices->dtype == QD_I64 ? ((const int64_t *)indices->data)[i] : ((const int32_t *)indices->data)[i];
}

/* The index made non-negative, or -1 and *status with a sentence. */
static int64_t checked(const struct qd_call *call, int64_t index, int64_t dim, enum qd_status *status,
                       struct qd_error *error)
{
    if (index >= -dim && index < dim)
        return index < 0 ? index + dim : index;
    *status = qd_op_fail(call, error, QD_ERR_INVALID, "index %" PRId64 " is out of range for a dimension of %" PRId64,
                         index, dim);
    return -1;
}

static enum qd_status start(const struct qd_call *call, struct qd_error *error)
{
    int how = reduction_of(call->node);
    enum qd_status status = qd_op_inputs(call, 3, 3, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)) ||
        (status = qd_op_types(call, 1, QD_TYPES_INDEX, error)) || (status = qd_op_same_type(call, 0, 2, error)))
        return status;
    if (how < 0 || (how > 0 && !combiners[call->in[0].dtype]))
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "its reduction is not supported for %s",
                          qd_dtype_name(call->in[0].dtype));
    return QD_OK;
}

/* ------------------------------------------------------------------ ScatterElements */

static enum qd_status elements_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *data = &call->in[0].shape, *indices = &call->in[1].shape;
    int64_t axis = qd_attr_int(call->node, "axis", 0);
    enum qd_status status = start(call, error);
    if (status || (status = qd_op_axis(call, &axis, data->rank, error)))
        return status;
    bool fits = indices->rank == data->rank && qd_shape_equal(indices, &call->in[2].shape);
    for (int i = 0; i < data->rank && fits; i++)
        fits = i == axis || indices->dims[i] <= data->dims[i];
    if (!fits)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "indices and updates must have one shape that fits the data");
    return qd_op_out(call, 0, call->in[0].dtype, data, error);
}

static enum qd_status elements_run(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *data = &call->in[0].shape, *indices = &call->in[1].shape;
    int64_t axis = qd_attr_int(call->node, "axis", 0), strides[QD_MAX_RANK] = {0};
    enum reduction how = (enum reduction)reduction_of(call->node);
    enum qd_status status = QD_OK;
    axis += axis < 0 ? data->rank : 0;
    qd_op_copy(call->out[0].data, call->in[0].data, qd_tensor_bytes(&call->out[0]));
    qd_op_strides(data, strides);
    for (int64_t i = 0, n = qd_tensor_elems(&call->in[1]); i < n; i++) {
        int64_t rest = i, at = 0, index = checked(call, index_at(&call->in[1], i), data->dims[axis], &status, error);
        if (index < 0)
            return status;
        for (int d = indices->rank - 1; d >= 0; d--) {
            at += (d == axis ? index : rest % indices->dims[d]) * strides[d];
            rest /= indices->dims[d];
        }
        put(call, at, i, 1, how);
    }
    return QD_OK;
}

const struct qd_op qd_op_scatter_elements = {.infer = elements_infer, .run = elements_run};

/* ------------------------------------------------------------------ ScatterND */

static enum qd_status nd_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *data = &call->in[0].shape, *indices = &call->in[1].shape;
    enum qd_status status = start(call, error);
    if (status)
        return status;
    int64_t depth = indices->rank > 0 ? indices->dims[indices->rank - 1] : -1;
    if (data->rank < 1 || depth < 0 || depth > data->rank || indices->rank - 1 + data->rank - depth > QD_MAX_RANK)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "index tuples of %" PRId64 " don't fit data of rank %d", depth,
                          data->rank);
    struct qd_shape want = {.rank = indices->rank - 1 + data->rank - (int)depth};
    for (int i = 0; i < want.rank; i++)
        want.dims[i] = i < indices->rank - 1 ? indices->dims[i] : data->dims[i - (indices->rank - 1) + depth];
    if (!qd_shape_equal(&want, &call->in[2].shape))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the updates don't have the shape that data and indices give");
    return qd_op_out(call, 0, call->in[0].dtype, data, error);
}

static enum qd_status nd_run(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *data = &call->in[0].shape, *indices = &call->in[1].shape;
    int depth = (int)indices->dims[indices->rank - 1];
    int64_t strides[QD_MAX_RANK] = {0}, tuples = qd_shape_span(indices, 0, indices->rank - 1);
    int64_t each = qd_shape_span(data, depth, data->rank);
    enum reduction how = (enum reduction)reduction_of(call->node);
    enum qd_status status = QD_OK;
    qd_op_copy(call->out[0].data, call->in[0].data, qd_tensor_bytes(&call->out[0]));
    qd_op_strides(data, strides);
    for (int64_t t = 0; t < tuples && each; t++) {
        int64_t at = 0;
        for (int d = 0; d < depth; d++) {
            int64_t index = checked(call, index_at(&call->in[1], t * depth + d), data->dims[d], &status, error);
            if (index < 0)
                return status;
            at += index * strides[d];
        }
        put(call, at, t * each, each, how);
    }
    return QD_OK;
}

const struct qd_op qd_op_scatter_nd = {.infer = nd_infer, .run = nd_run};

/* ------------------------------------------------------------------ TensorScatter: a cache is written from an index
 * per batch on */

static enum qd_status tensor_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *cache = &call->in[0].shape, *update = &call->in[1].shape;
    int64_t axis = qd_attr_int(call->node, "axis", -2);
    enum qd_status status = qd_op_inputs(call, 2, 3, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_ANY, error)) ||
        (status = qd_op_same_type(call, 0, 1, error)) || (status = qd_op_types(call, 2, QD_BIT(QD_I64), error)) ||
        (status = qd_op_axis(call, &axis, cache->rank, error)))
        return status;
    bool fits = cache->rank == update->rank && axis > 0;
    for (int i = 0; i < cache->rank && fits; i++)
        fits = i == axis ? update->dims[i] <= cache->dims[i] : update->dims[i] == cache->dims[i];
    if (!fits || (qd_op_has(call, 2) && (call->in[2].shape.rank != 1 || call->in[2].shape.dims[0] != cache->dims[0])))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "cache, update and write_indices don't fit");
    if (!qd_attr_is(call->node, "mode", "linear", "linear") && !qd_attr_is(call->node, "mode", "linear", "circular"))
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "its mode is not supported");
    return qd_op_out(call, 0, call->in[0].dtype, cache, error);
}

static enum qd_status tensor_run(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *cache = &call->in[0].shape, *update = &call->in[1].shape;
    int64_t axis = qd_attr_int(call->node, "axis", -2);
    axis += axis < 0 ? cache->rank : 0;
    bool circular = qd_attr_is(call->node, "mode", "linear", "circular");
    int64_t outer = qd_shape_span(cache, 0, (int)axis), inner = qd_shape_span(cache, (int)axis + 1, cache->rank);
    int64_t dim = cache->dims[axis], rows = update->dims[axis], each = cache->dims[0] ? outer / cache->dims[0] : 1;
    size_t bytes = (size_t)inner * qd_dtype_bytes(call->in[0].dtype);
    qd_op_copy(call->out[0].data, call->in[0].data, qd_tensor_bytes(&call->out[0]));
    for (int64_t row = 0; row < outer * rows && bytes; row++) {
        int64_t batch = row / rows / each;
        int64_t first = qd_op_has(call, 2) ? ((const int64_t *)call->in[2].data)[batch] : 0;
        if (first < 0 || (circular ? first >= dim : first > dim - rows))
            return qd_op_fail(call, error, QD_ERR_INVALID, "write index %" PRId64 " is out of range", first);
        int64_t to = row / rows * dim + (first + row % rows) % dim;
        memcpy((char *)call->out[0].data + (size_t)to * bytes, (const char *)call->in[1].data + (size_t)row * bytes,
               bytes);
    }
    return QD_OK;
}

const struct qd_op qd_op_tensor_scatter = {.infer = tensor_infer, .run = tensor_run};
