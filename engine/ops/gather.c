/* Operators that pick elements by indices found in data: Gather, GatherElements, GatherND. The indices are the user's,
 * so they are checked while running. Not for fixed patterns (move.c). */
#include "engine/ops/helpers.h"

#include <inttypes.h>
#include <string.h>

static int64_t index_at(const struct qd_tensor *indices, int64_t i)
{
    return indices->dtype == QD_I64 ? ((const int64_t *)indices->data)[i] : ((const int32_t *)indices->data)[i];
}

/* Every index within [-limit, limit). */
static enum qd_status check(const struct qd_call *call, int64_t limit, struct qd_error *error)
{
    for (int64_t i = 0, n = qd_tensor_elems(&call->in[1]); i < n; i++) {
        int64_t index = index_at(&call->in[1], i);
        if (index < -limit || index >= limit)
            return qd_op_fail(call, error, QD_ERR_INVALID,
                              "index %" PRId64 " is out of range for a dimension of %" PRId64, index, limit);
    }
    return QD_OK;
}

static enum qd_status start(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)))
        return status;
    return qd_op_types(call, 1, QD_TYPES_INDEX, error);
}

/* ------------------------------------------------------------------ Gather */

static enum qd_status gather_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *in = &call->in[0].shape, *indices = &call->in[1].shape;
    int64_t axis = qd_attr_int(call->node, "axis", 0);
    enum qd_status status = start(call, error);
    if (status || (status = qd_op_axis(call, &axis, in->rank, error)))
        return status;
    struct qd_shape out = {.rank = in->rank - 1 + indices->rank};
    if (out.rank > QD_MAX_RANK)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "the output's rank would be above %d", QD_MAX_RANK);
    for (int i = 0; i < out.rank; i++) { /* the gathered dimension is replaced by those of the indices */
        bool of_indices = i >= axis && i < axis + indices->rank;
        out.dims[i] = of_indices ? indices->dims[i - axis] : in->dims[i < axis ? i : i - indices->rank + 1];
    }
    return qd_op_out(call, 0, call->in[0].dtype, &out, error);
}

static enum qd_status gather_run(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *in = &call->in[0].shape;
    int64_t axis = qd_attr_int(call->node, "axis", 0);
    axis += axis < 0 ? in->rank : 0;
    enum qd_status status = check(call, in->dims[axis], error);
    if (status || qd_tensor_elems(&call->out[0]) == 0)
        return status;
    int64_t outer = qd_shape_span(in, 0, (int)axis), count = qd_tensor_elems(&call->in[1]), dim = in->dims[axis];
    size_t bytes = (size_t)qd_shape_span(in, (int)axis + 1, in->rank) * qd_dtype_bytes(call->in[0].dtype);
    char *to = call->out[0].data;
    for (int64_t o = 0; o < outer; o++) {
        const char *from = (const char *)call->in[0].data + (size_t)(o * dim) * bytes;
        for (int64_t i = 0; i < count; i++, to += bytes) {
            int64_t index = index_at(&call->in[1], i);
            memcpy(to, from + (size_t)(index < 0 ? index + dim : index) * bytes, bytes);
        }
    }
    return QD_OK;
}

/* ------------------------------------------------------------------ GatherElements */

static enum qd_status elements_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *in = &call->in[0].shape, *indices = &call->in[1].shape;
    int64_t axis = qd_attr_int(call->node, "axis", 0);
    enum qd_status status = start(call, error);
    if (status || (status = qd_op_axis(call, &axis, in->rank, error)))
        return status;
    if (indices->rank != in->rank)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "indices must have the rank of the data");
    for (int i = 0; i < in->rank; i++)
        if (i != axis && indices->dims[i] > in->dims[i])
            return qd_op_fail(call, error, QD_ERR_SHAPE, "dimension %d of the indices is larger than the data's", i);
    return qd_op_out(call, 0, call->in[0].dtype, indices, error);
}

static enum qd_status elements_run(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *in = &call->in[0].shape, *out = &call->out[0].shape;
    int64_t axis = qd_attr_int(call->node, "axis", 0), strides[QD_MAX_RANK] = {0};
    axis += axis < 0 ? in->rank : 0;
    enum qd_status status = check(call, in->dims[axis], error);
    if (status)
        return status;
    qd_op_strides(in, strides);
    size_t bytes = qd_dtype_bytes(call->in[0].dtype);
    for (int64_t i = 0, n = qd_tensor_elems(&call->out[0]); i < n; i++) {
        int64_t rest = i, at = 0, index = index_at(&call->in[1], i);
        for (int d = out->rank - 1; d >= 0; d--) {
            int64_t here = d == axis ? (index < 0 ? index + in->dims[d] : index) : rest % out->dims[d];
            at += here * strides[d];
            rest /= out->dims[d];
        }
        memcpy((char *)call->out[0].data + (size_t)i * bytes, (const char *)call->in[0].data + (size_t)at * bytes,
               bytes);
    }
    return QD_OK;
}

/* ------------------------------------------------------------------ GatherND */

static enum qd_status nd_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *in = &call->in[0].shape, *indices = &call->in[1].shape;
    int64_t batch = qd_attr_int(call->node, "batch_dims", 0);
    enum qd_status status = start(call, error);
    if (status)
        return status;
    if (in->rank < 1 || indices->rank < 1 || batch < 0 || batch >= in->rank || batch >= indices->rank)
        return qd_op_fail(call, error, QD_ERR_SHAPE,
                          "data of rank %d, indices of rank %d and batch_dims %" PRId64 " don't fit", in->rank,
                          indices->rank, batch);
    int64_t depth = indices->dims[indices->rank - 1];
    if (depth < 1 || depth > in->rank - batch)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "index tuples of %" PRId64 " don't fit data of rank %d", depth,
                          in->rank);
    for (int i = 0; i < batch; i++)
        if (in->dims[i] != indices->dims[i])
            return qd_op_fail(call, error, QD_ERR_SHAPE, "batch dimension %d of data and indices differ", i);
    struct qd_shape out = {.rank = indices->rank - 1 + in->rank - (int)batch - (int)depth};
    if (out.rank > QD_MAX_RANK)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "the output's rank would be above %d", QD_MAX_RANK);
    for (int i = 0; i < out.rank; i++)
        out.dims[i] = i < indices->rank - 1 ? indices->dims[i] : in->dims[i - (indices->rank - 1) + batch + depth];
    return qd_op_out(call, 0, call->in[0].dtype, &out, error);
}

static enum qd_status nd_run(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *in = &call->in[0].shape, *indices = &call->in[1].shape;
    int batch = (int)qd_attr_int(call->node, "batch_dims", 0), depth = (int)indices->dims[indices->rank - 1];
    int64_t strides[QD_MAX_RANK] = {0}, tuples = qd_shape_span(indices, 0, indices->rank - 1);
    int64_t each = qd_shape_span(indices, batch, indices->rank - 1); /* tuples of one batch */
    qd_op_strides(in, strides);
    int64_t batch_stride = qd_shape_span(in, batch, in->rank);
    size_t elem = qd_dtype_bytes(call->in[0].dtype), bytes = (size_t)qd_shape_span(in, batch + depth, in->rank) * elem;
    for (int64_t t = 0; t < tuples; t++) {
        int64_t at = t / each * batch_stride;
        for (int d = 0; d < depth; d++) {
            int64_t index = index_at(&call->in[1], t * depth + d), dim = in->dims[batch + d];
            if (index < -dim || index >= dim)
                return qd_op_fail(call, error, QD_ERR_INVALID,
                                  "index %" PRId64 " is out of range for a dimension of %" PRId64, index, dim);
            at += (index < 0 ? index + dim : index) * strides[batch + d];
        }
        if (bytes)
            memcpy((char *)call->out[0].data + (size_t)t * bytes, (const char *)call->in[0].data + (size_t)at * elem,
                   bytes);
    }
    return QD_OK;
}

const struct qd_op qd_op_gather = {.flags = QD_OP_MOVES, .infer = gather_infer, .run = gather_run};
const struct qd_op qd_op_gather_elements = {.flags = QD_OP_MOVES, .infer = elements_infer, .run = elements_run};
const struct qd_op qd_op_gather_nd = {.flags = QD_OP_MOVES, .infer = nd_infer, .run = nd_run};
