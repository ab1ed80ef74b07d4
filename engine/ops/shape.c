/* Operators that give a tensor another shape without moving an element (Reshape, Flatten, Squeeze, Unsqueeze, Identity,
 * Dropout), and those that read only shapes (Shape, Size). Not for what reorders elements (move.c). */
#include "engine/ops/helpers.h"

#include <inttypes.h>
#include <string.h>

/* A view: usually the executor has given the same memory, then nothing is left to do. */
static enum qd_status view_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    qd_op_copy(call->out[0].data, call->in[0].data, qd_tensor_bytes(&call->out[0]));
    return QD_OK;
}

/* For views whose shape came from data: no more bytes than there are. */
static enum qd_status checked_view_run(const struct qd_call *call, struct qd_error *error)
{
    if (qd_tensor_elems(&call->in[0]) != qd_tensor_elems(&call->out[0]))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the output's shape is not the planned one");
    return view_run(call, error);
}

/* ------------------------------------------------------------------ Identity */

static enum qd_status identity_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)))
        return status;
    status = qd_op_out(call, 0, call->in[0].dtype, &call->in[0].shape, error);
    call->out[0].layout = call->in[0].layout;
    return status;
}

const struct qd_op qd_op_identity = {
    .flags = QD_OP_VIEW | QD_OP_MOVES | QD_OP_ELEMENTWISE, .infer = identity_infer, .run = view_run};

/* ------------------------------------------------------------------ Dropout: at inference the input, and a mask of
 * ones */

static enum qd_status dropout_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 3, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)) ||
        (status = qd_op_types(call, 2, QD_BIT(QD_BOOL), error)))
        return status;
    if (qd_op_has(call, 2)) {
        double training = 0, ratio = 0.5;
        if ((status = qd_op_scalar(call, 2, &training, error)) ||
            (training != 0 && qd_op_has(call, 1) && (status = qd_op_scalar(call, 1, &ratio, error))))
            return status;
        if (training != 0 && ratio != 0)
            return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "is in training mode");
    }
    enum qd_dtype mask = call->node->opset < 10 ? call->in[0].dtype : QD_BOOL;
    if (qd_op_wants(call, 1) && mask != QD_BOOL && mask != QD_F32)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "a mask of type %s is not supported", qd_dtype_name(mask));
    if (qd_op_wants(call, 1) && (status = qd_op_out(call, 1, mask, &call->in[0].shape, error)))
        return status;
    return qd_op_out(call, 0, call->in[0].dtype, &call->in[0].shape, error);
}

static enum qd_status dropout_run(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_has(call, 2) ? qd_op_recheck(call, dropout_infer, error) : QD_OK;
    if (status)
        return status;
    struct qd_tensor *mask = qd_op_wants(call, 1) ? &call->out[1] : NULL;
    int64_t n = mask ? qd_tensor_elems(mask) : 0;
    if (mask && mask->dtype == QD_F32)
        for (int64_t i = 0; i < n; i++)
            ((float *)mask->data)[i] = 1.0f;
    else if (mask && n)
        memset(mask->data, 1, (size_t)n);
    return view_run(call, error);
}

const struct qd_op qd_op_dropout = {.flags = QD_OP_VIEW | QD_OP_MOVES, .infer = dropout_infer, .run = dropout_run};

/* ------------------------------------------------------------------ Flatten */

static enum qd_status flatten_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)))
        return status;
    const struct qd_shape *in = &call->in[0].shape;
    int64_t axis = qd_attr_int(call->node, "axis", 1);
    if (axis < -in->rank || axis > in->rank)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "axis %" PRId64 " is out of range for rank %d", axis, in->rank);
    int split = (int)(axis < 0 ? axis + in->rank : axis);
    struct qd_shape left = {.rank = split}, right = {.rank = in->rank - split}, out = {.rank = 2};
    memcpy(left.dims, in->dims, (size_t)split * sizeof in->dims[0]);
    memcpy(right.dims, in->dims + split, (size_t)right.rank * sizeof in->dims[0]);
    if (!qd_shape_elems(&left, &out.dims[0]) || !qd_shape_elems(&right, &out.dims[1]))
        return qd_op_fail(call, error, QD_ERR_TOO_LARGE, "the flattened shape is too large");
    return qd_op_out(call, 0, call->in[0].dtype, &out, error);
}

const struct qd_op qd_op_flatten = {.flags = QD_OP_VIEW | QD_OP_MOVES, .infer = flatten_infer, .run = view_run};

/* ------------------------------------------------------------------ Reshape */

static enum qd_status reshape_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_shape out = {0};
    const struct qd_shape *in = &call->in[0].shape;
    size_t count = 0;
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)) ||
        (status = qd_op_ints(call, 1, out.dims, QD_MAX_RANK, &count, error)))
        return status;
    bool zero_is_zero = qd_attr_int(call->node, "allowzero", 0) != 0;
    out.rank = (int)count;
    int free_dim = -1;
    for (int i = 0; i < out.rank; i++) {
        if (out.dims[i] == 0 && !zero_is_zero) {
            if (i >= in->rank)
                return qd_op_fail(call, error, QD_ERR_SHAPE,
                                  "dimension %d of the new shape is copied, but there is none", i);
            out.dims[i] = in->dims[i];
        } else if (out.dims[i] < -1 || (out.dims[i] == -1 && free_dim >= 0)) {
            return qd_op_fail(call, error, QD_ERR_SHAPE, "the new shape has a second -1, or a dimension below -1");
        } else if (out.dims[i] == -1) {
            free_dim = i;
            out.dims[i] = 1;
        }
    }
    int64_t have = qd_tensor_elems(&call->in[0]), want = 0;
    if (qd_shape_elems(&out, &want) && free_dim >= 0 && want > 0 && have % want == 0) {
        out.dims[free_dim] = have / want;
        want = have;
    }
    char a[160], b[160];
    if (!qd_shape_elems(&out, &want) || want != have)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "shape %s can't become %s", qd_shape_text(in, a, sizeof a),
                          qd_shape_text(&out, b, sizeof b));
    return qd_op_out(call, 0, call->in[0].dtype, &out, error);
}

const struct qd_op qd_op_reshape = {.flags = QD_OP_VIEW | QD_OP_MOVES, .infer = reshape_infer, .run = checked_view_run};

/* ------------------------------------------------------------------ Squeeze, Unsqueeze */

/* The axes as a set of bits, from input 1 (opset 13) or the attribute; *given: there are any. */
static enum qd_status axes_of(const struct qd_call *call, int rank, unsigned *set, bool *given, struct qd_error *error)
{
    int64_t axes[QD_MAX_RANK];
    size_t count = 0;
    const int64_t *attr = call->node->opset < 13 ? qd_attr_ints(call->node, "axes", &count) : NULL;
    if (count > QD_MAX_RANK)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "has %zu axes, at most %d make sense", count, QD_MAX_RANK);
    if (count)
        memcpy(axes, attr, count * sizeof axes[0]);
    *given = attr || qd_op_has(call, 1);
    *set = 0;
    enum qd_status status = !attr && *given ? qd_op_ints(call, 1, axes, QD_MAX_RANK, &count, error) : QD_OK;
    for (size_t i = 0; i < count && !status; i++) {
        if ((status = qd_op_axis(call, &axes[i], rank, error)))
            break;
        if (*set >> axes[i] & 1)
            status = qd_op_fail(call, error, QD_ERR_SHAPE, "axis %" PRId64 " is named twice", axes[i]);
        *set |= 1u << axes[i];
    }
    return status;
}

static enum qd_status squeeze_infer(const struct qd_call *call, struct qd_error *error)
{
    unsigned set = 0;
    bool given = false;
    enum qd_status status = qd_op_inputs(call, 1, call->node->opset < 13 ? 1 : 2, error);
    const struct qd_shape *in = &call->in[0].shape;
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)) ||
        (status = axes_of(call, in->rank, &set, &given, error)))
        return status;
    struct qd_shape out = {0};
    for (int i = 0; i < in->rank; i++) {
        if (given && set >> i & 1 && in->dims[i] != 1)
            return qd_op_fail(call, error, QD_ERR_SHAPE, "dimension %d is %" PRId64 " and can't be squeezed", i,
                              in->dims[i]);
        if (given ? !(set >> i & 1) : in->dims[i] != 1)
            out.dims[out.rank++] = in->dims[i];
    }
    return qd_op_out(call, 0, call->in[0].dtype, &out, error);
}

static enum qd_status unsqueeze_infer(const struct qd_call *call, struct qd_error *error)
{
    unsigned set = 0;
    bool given = false;
    bool by_attr = call->node->opset < 13;
    enum qd_status status = qd_op_inputs(call, by_attr ? 1 : 2, by_attr ? 1 : 2, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)))
        return status;
    size_t count = by_attr ? 0 : (size_t)qd_tensor_elems(&call->in[1]);
    if (by_attr)
        qd_attr_ints(call->node, "axes", &count);
    const struct qd_shape *in = &call->in[0].shape;
    if (count > (size_t)(QD_MAX_RANK - in->rank))
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "the output's rank would be above %d", QD_MAX_RANK);
    struct qd_shape out = {.rank = in->rank + (int)count};
    if ((status = axes_of(call, out.rank, &set, &given, error)))
        return status;
    for (int i = 0, from = 0; i < out.rank; i++)
        out.dims[i] = set >> i & 1 ? 1 : in->dims[from++];
    return qd_op_out(call, 0, call->in[0].dtype, &out, error);
}

const struct qd_op qd_op_squeeze = {.flags = QD_OP_VIEW | QD_OP_MOVES, .infer = squeeze_infer, .run = checked_view_run};
const struct qd_op qd_op_unsqueeze = {
    .flags = QD_OP_VIEW | QD_OP_MOVES, .infer = unsqueeze_infer, .run = checked_view_run};

/* ------------------------------------------------------------------ Shape, Size */

/* start and end count from the back when negative and are clamped. */
static void shape_span(const struct qd_call *call, int *start, int *end)
{
    int64_t rank = call->in[0].shape.rank, limits[2];
    limits[0] = qd_attr_int(call->node, "start", 0);
    limits[1] = qd_attr_int(call->node, "end", rank);
    for (int i = 0; i < 2; i++) {
        limits[i] += limits[i] < 0 ? rank : 0;
        limits[i] = limits[i] < 0 ? 0 : limits[i] > rank ? rank : limits[i];
    }
    *start = (int)limits[0];
    *end = (int)(limits[1] < limits[0] ? limits[0] : limits[1]);
}

static enum qd_status shape_infer(const struct qd_call *call, struct qd_error *error)
{
    int start = 0, end = 0;
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status)
        return status;
    shape_span(call, &start, &end);
    struct qd_shape out = {.rank = 1, .dims = {end - start}};
    return qd_op_out(call, 0, QD_I64, &out, error);
}

static enum qd_status shape_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    int start = 0, end = 0;
    shape_span(call, &start, &end);
    for (int i = start; i < end; i++)
        ((int64_t *)call->out[0].data)[i - start] = call->in[0].shape.dims[i];
    return QD_OK;
}

static enum qd_status size_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_shape out = {0};
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    return status ? status : qd_op_out(call, 0, QD_I64, &out, error);
}

static enum qd_status size_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    *(int64_t *)call->out[0].data = qd_tensor_elems(&call->in[0]);
    return QD_OK;
}

const struct qd_op qd_op_shape = {.flags = QD_OP_SHAPE_ONLY, .infer = shape_infer, .run = shape_run};
const struct qd_op qd_op_size = {.flags = QD_OP_SHAPE_ONLY, .infer = size_infer, .run = size_run};
