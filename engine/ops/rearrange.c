/* Operators that rearrange an image: DepthToSpace, SpaceToDepth (a transposition of six dimensions) and CenterCropPad.
 * Not for general transposition or slices (move.c). */
#include "engine/ops/carry.h"

#include <inttypes.h>
#include <string.h>

/* ------------------------------------------------------------------ DepthToSpace, SpaceToDepth */

static bool to_space(const struct qd_call *call) { return strcmp(call->node->op, "DepthToSpace") == 0; }

static enum qd_status space_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *x = &call->in[0].shape;
    int64_t block = qd_attr_int(call->node, "blocksize", 0), area = 0;
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_ANY, error)))
        return status;
    bool fits = x->rank == 4 && block > 0 && block < (int64_t)1 << 31 && qd_i64_mul(block, block, &area);
    fits = fits && (to_space(call) ? x->dims[1] % area == 0 : x->dims[2] % block == 0 && x->dims[3] % block == 0);
    if (!fits)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "a block size of %" PRId64 " doesn't fit the input", block);
    if (!qd_attr_is(call->node, "mode", "DCR", "DCR") && !qd_attr_is(call->node, "mode", "DCR", "CRD"))
        return qd_op_fail(call, error, QD_ERR_INVALID, "mode is neither DCR nor CRD");
    struct qd_shape out = *x;
    for (int i = 1; i < 4; i++) {
        int64_t by = i == 1 ? area : block;
        if ((i == 1) == to_space(call))
            out.dims[i] = x->dims[i] / by;
        else if (!qd_i64_mul(x->dims[i], by, &out.dims[i]))
            return qd_op_fail(call, error, QD_ERR_TOO_LARGE, "the output is too large");
    }
    status = qd_op_out(call, 0, call->in[0].dtype, &out, error);
    call->out[0].layout = call->in[0].layout;
    return status;
}

/* The dimensions and strides of a walk over the output, as if it were plain, put into the order of memory: the
 * channel's dimensions go last. */
static void channels_to_the_end(struct qd_shape *seen, int64_t strides[QD_MAX_RANK], int first, int count)
{
    int64_t dims[QD_MAX_RANK], moved[QD_MAX_RANK];
    int at = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < seen->rank; i++)
            if ((i >= first && i < first + count) == (pass == 1)) {
                dims[at] = seen->dims[i];
                moved[at++] = strides[i];
            }
    memcpy(seen->dims, dims, (size_t)at * sizeof *dims);
    memcpy(strides, moved, (size_t)at * sizeof *moved);
}

static enum qd_status space_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct qd_shape *x = &call->in[0].shape, *y = &call->out[0].shape;
    int64_t b = qd_attr_int(call->node, "blocksize", 1), in[QD_MAX_RANK] = {0};
    struct qd_walk walk;
    struct qd_shape seen;
    int64_t strides[QD_MAX_RANK] = {0};
    if (qd_tensor_elems(&call->out[0]) == 0)
        return QD_OK;
    const struct qd_shape memory = qd_memory_shape(&call->in[0]);
    bool last = call->in[0].layout == QD_CHANNELS_LAST;
    qd_op_strides(&memory, in);
    if (last) /* back into the order of the shape */
        memcpy(in, (int64_t[4]){in[0], in[3], in[1], in[2]}, 4 * sizeof *in);
    if (to_space(call)) { /* [n, c, h, i, w, j] from channel i, j, c (DCR) or c, i, j (CRD) */
        bool dcr = qd_attr_is(call->node, "mode", "DCR", "DCR");
        seen = (struct qd_shape){.rank = 6, .dims = {y->dims[0], y->dims[1], x->dims[2], b, x->dims[3], b}};
        int64_t channel = dcr ? 1 : b * b, row = dcr ? b * y->dims[1] : b, column = dcr ? y->dims[1] : 1;
        memcpy(strides, (int64_t[6]){in[0], channel * in[1], in[2], row * in[1], in[3], column * in[1]},
               6 * sizeof *in);
    } else if (!qd_attr_is(call->node, "mode", "DCR", "DCR")) { /* [n, c, i, j, h, w] */
        seen = (struct qd_shape){.rank = 6, .dims = {x->dims[0], x->dims[1], b, b, y->dims[2], y->dims[3]}};
        memcpy(strides, (int64_t[6]){in[0], in[1], in[2], in[3], b * in[2], b * in[3]}, 6 * sizeof *in);
    } else { /* [n, i, j, c, h, w] from row h * b + i, column w * b + j */
        seen = (struct qd_shape){.rank = 6, .dims = {x->dims[0], b, b, x->dims[1], y->dims[2], y->dims[3]}};
        memcpy(strides, (int64_t[6]){in[0], in[2], in[3], in[1], b * in[2], b * in[3]}, 6 * sizeof *in);
    }
    if (last)
        channels_to_the_end(&seen, strides, 1, to_space(call) ? 1 : 3);
    qd_walk_begin(&walk, &seen);
    qd_walk_operand(&walk, strides);
    qd_walk_join(&walk);
    qd_walk_copy(&walk, call, call->in[0].data, call->out[0].data, qd_dtype_bytes(call->in[0].dtype));
    return QD_OK;
}

const struct qd_op qd_op_depth_space = {
    .flags = QD_OP_MOVES | QD_OP_CHANNELS_LAST, .infer = space_infer, .run = space_run};

/* ------------------------------------------------------------------ CenterCropPad */

static enum qd_status center_plan(const struct qd_call *call, struct qd_shape *out, struct qd_error *error)
{
    int64_t sizes[QD_MAX_RANK];
    size_t count = 0, axes = 0;
    unsigned seen = 0;
    *out = call->in[0].shape;
    const int64_t *attr = qd_attr_ints(call->node, "axes", &axes);
    enum qd_status status = qd_op_ints(call, 1, sizes, QD_MAX_RANK, &count, error);
    if (status)
        return status;
    if (count != (attr ? axes : (size_t)out->rank))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the new shape has %zu dimensions", count);
    for (size_t i = 0; i < count && !status; i++) {
        int64_t axis = attr ? attr[i] : (int64_t)i;
        if ((status = qd_op_axis(call, &axis, out->rank, error)))
            break;
        if (sizes[i] < 0 || seen >> axis & 1)
            return qd_op_fail(call, error, QD_ERR_SHAPE, "the new shape makes no sense");
        seen |= 1u << axis;
        out->dims[axis] = sizes[i];
    }
    return status;
}

static enum qd_status center_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_shape out;
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_ANY, error)) || (status = center_plan(call, &out, error)))
        return status;
    return qd_op_out(call, 0, call->in[0].dtype, &out, error);
}

static enum qd_status center_run(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *x = &call->in[0].shape, *y = &call->out[0].shape;
    struct qd_shape planned;
    enum qd_status status = center_plan(call, &planned, error);
    if (status)
        return status;
    if (!qd_shape_equal(&planned, y))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the output's shape is not the planned one");
    size_t bytes = qd_dtype_bytes(call->in[0].dtype);
    int64_t strides[QD_MAX_RANK] = {0};
    qd_op_strides(x, strides);
    if (qd_tensor_bytes(&call->out[0]))
        memset(call->out[0].data, 0, qd_tensor_bytes(&call->out[0]));
    for (int64_t i = 0, n = qd_tensor_elems(&call->out[0]); i < n; i++) {
        int64_t rest = i, at = 0;
        bool inside = true;
        for (int d = y->rank - 1; d >= 0; d--) {
            int64_t crop = x->dims[d] > y->dims[d] ? (x->dims[d] - y->dims[d]) / 2 : 0;
            int64_t pad = y->dims[d] > x->dims[d] ? (y->dims[d] - x->dims[d]) / 2 : 0;
            int64_t here = rest % y->dims[d] - pad + crop;
            inside = inside && here >= 0 && here < x->dims[d];
            at += here * strides[d];
            rest /= y->dims[d];
        }
        if (inside)
            memcpy((char *)call->out[0].data + (size_t)i * bytes, (const char *)call->in[0].data + (size_t)at * bytes,
                   bytes);
    }
    return QD_OK;
}

const struct qd_op qd_op_center_crop_pad = {.infer = center_infer, .run = center_run};
