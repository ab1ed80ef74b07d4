/* Pad and Tile: an output index is mapped to an input index, dimension by dimension, or to the constant. Not for the
 * padding of convolutions and pools (conv.c, pool.c), which never becomes a tensor. */
#include "engine/ops/carry.h"

#include <inttypes.h>
#include <string.h>

enum pad_mode { PAD_CONSTANT, PAD_EDGE, PAD_REFLECT, PAD_WRAP };

struct pad {
    enum pad_mode mode;
    int64_t before[QD_MAX_RANK]; /* elements in front of dimension i; negative: cut off */
    struct qd_shape out;
};

/* Index `i` (negative or too large in the padding) into a dimension of `dim` >= 1; -1: the constant. */
static int64_t map(enum pad_mode mode, int64_t i, int64_t dim)
{
    if (i >= 0 && i < dim)
        return i;
    if (mode == PAD_CONSTANT)
        return -1;
    if (mode == PAD_EDGE || dim == 1)
        return i < 0 ? 0 : dim - 1;
    int64_t period = mode == PAD_WRAP ? dim : 2 * (dim - 1);
    i %= period;
    i += i < 0 ? period : 0;
    return i < dim ? i : period - i;
}

/* The output is seen as rows of units, a unit being what neighbours in memory along dimensions without pads. */
struct pad_work {
    const struct qd_call *call;
    enum pad_mode mode;
    const char *from;
    struct qd_shape in, out; /* this and the next two in the order of memory, without the dimensions inside a unit */
    int64_t before[QD_MAX_RANK], strides[QD_MAX_RANK]; /* strides in units */
    unsigned char value[8];
    size_t bytes, unit_bytes; /* of an element, of a unit */
};

static void pad_fill(char *to, const unsigned char *value, size_t elem_bytes, size_t bytes)
{
    if (elem_bytes == 1)
        memset(to, value[0], bytes);
    else
        for (size_t at = 0; at < bytes; at += elem_bytes)
            memcpy(to + at, value, elem_bytes);
}

/* Rows (of the last dimension) begin..end of the output. */
static void pad_rows(void *ctx, int64_t begin, int64_t end)
{
    const struct pad_work *w = ctx;
    const struct qd_shape *in = &w->in, *out = &w->out;
    int last = out->rank - 1;
    int64_t n = out->dims[last], dim = in->dims[last], shift = w->before[last];
    for (int64_t r = begin; r < end; r++) {
        int64_t rest = r, at = 0;
        for (int d = last - 1; d >= 0; d--) {
            int64_t i = map(w->mode, rest % out->dims[d] - w->before[d], in->dims[d]);
            at = i < 0 || at < 0 ? -1 : at + i * w->strides[d];
            rest /= out->dims[d];
        }
        char *to = (char *)w->call->out[0].data + (size_t)(r * n) * w->unit_bytes;
        for (int64_t j = 0, run; j < n; j += run) {
            int64_t i = at < 0 ? -1 : map(w->mode, j - shift, dim);
            run = 1;
            if (i >= 0 && i == j - shift) /* the input itself: all of it at once */
                run = dim - i < n - j ? dim - i : n - j;
            else if (i < 0) /* the constant: up to the input, or to the end */
                run = at >= 0 && j < shift && shift < n ? shift - j : n - j;
            if (i < 0)
                pad_fill(to + (size_t)j * w->unit_bytes, w->value, w->bytes, (size_t)run * w->unit_bytes);
            else
                memcpy(to + (size_t)j * w->unit_bytes, w->from + (size_t)(at + i) * w->unit_bytes,
                       (size_t)run * w->unit_bytes);
        }
    }
}

/* `pad` was checked: the input has elements wherever the mode reads them. `from`: the input's elements as the output
 * is carried; value: one such element, NULL: zero bytes. */
static void pad_apply(const struct qd_call *call, const struct pad *pad, const void *from, const void *value)
{
    const struct qd_tensor *in = &call->in[0];
    struct pad_work work = {.call = call,
                            .mode = pad->mode,
                            .from = from,
                            .in = qd_memory_shape(in),
                            .out = qd_memory_shape(&call->out[0]),
                            .bytes = qd_dtype_bytes(call->out[0].dtype)};
    if (qd_tensor_elems(&call->out[0]) == 0)
        return;
    if (value)
        memcpy(work.value, value, work.bytes);
    memcpy(work.before, pad->before, sizeof work.before);
    qd_memory_order(in, work.before);
    int rank = work.out.rank;
    work.unit_bytes = work.bytes;
    while (rank > 0 && work.before[rank - 1] == 0 && work.in.dims[rank - 1] == work.out.dims[rank - 1])
        work.unit_bytes *= (size_t)work.in.dims[--rank];
    work.in.rank = work.out.rank = rank;
    if (rank == 0) {
        memcpy(call->out[0].data, from, work.unit_bytes);
        return;
    }
    qd_op_strides(&work.in, work.strides);
    int64_t row_bytes = work.out.dims[rank - 1] * (int64_t)work.unit_bytes;
    qd_op_split(call, qd_shape_span(&work.out, 0, rank - 1), 65536 / row_bytes + 1, pad_rows, &work);
}

/* ------------------------------------------------------------------ Pad */

static enum qd_status pad_mode(const struct qd_call *call, enum pad_mode *mode, struct qd_error *error)
{
    static const char *const names[] = {"constant", "edge", "reflect", "wrap"};
    int known = call->node->opset < 19 ? 3 : 4;
    for (int i = 0; i < known; i++) {
        if (qd_attr_is(call->node, "mode", "constant", names[i])) {
            *mode = (enum pad_mode)i;
            return QD_OK;
        }
    }
    return qd_op_fail(call, error, QD_ERR_INVALID, "its mode is none of constant, edge, reflect%s",
                      known == 4 ? ", wrap" : "");
}

/* The list of pads (begins, then ends) and the axes they are for. */
static enum qd_status pad_lists(const struct qd_call *call, int64_t pads[2 * QD_MAX_RANK], int64_t axes[QD_MAX_RANK],
                                size_t *count, struct qd_error *error)
{
    int rank = call->in[0].shape.rank;
    size_t axis_count = (size_t)rank;
    enum qd_status status = QD_OK;
    for (int i = 0; i < rank; i++)
        axes[i] = i;
    if (call->node->opset < 11) {
        const int64_t *attr = qd_attr_ints(call->node, "pads", count);
        if (attr && *count <= 2 * QD_MAX_RANK)
            memcpy(pads, attr, *count * sizeof pads[0]);
    } else {
        status = qd_op_ints(call, 1, pads, 2 * QD_MAX_RANK, count, error);
        if (!status && qd_op_has(call, 3))
            status = qd_op_ints(call, 3, axes, QD_MAX_RANK, &axis_count, error);
    }
    if (!status && *count != 2 * axis_count)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "has %zu pads for %zu axes", *count, axis_count);
    *count = axis_count;
    return status;
}

static enum qd_status pad_plan(const struct qd_call *call, struct pad *pad, struct qd_error *error)
{
    int64_t pads[2 * QD_MAX_RANK] = {0}, axes[QD_MAX_RANK] = {0};
    size_t count = 0;
    memset(pad, 0, sizeof *pad);
    pad->out = call->in[0].shape;
    enum qd_status status = pad_mode(call, &pad->mode, error);
    if (status || (status = pad_lists(call, pads, axes, &count, error)))
        return status;
    unsigned seen = 0;
    for (size_t i = 0; i < count; i++) {
        if ((status = qd_op_axis(call, &axes[i], pad->out.rank, error)))
            return status;
        int64_t dim = pad->out.dims[axes[i]], begin = pads[i], end = pads[count + i], size = 0;
        if (seen >> axes[i] & 1 || begin < -(INT64_MAX / 2) || !qd_i64_add(dim, begin, &size) ||
            !qd_i64_add(size, end, &size) || size < 0)
            return qd_op_fail(call, error, QD_ERR_SHAPE,
                              "pads %" PRId64 " and %" PRId64 " don't fit dimension %d of %" PRId64, begin, end,
                              (int)axes[i], dim);
        if (dim == 0 && size > 0 && pad->mode != PAD_CONSTANT)
            return qd_op_fail(call, error, QD_ERR_SHAPE, "dimension %d has no elements to pad with", (int)axes[i]);
        seen |= 1u << axes[i];
        pad->before[axes[i]] = begin;
        pad->out.dims[axes[i]] = size;
    }
    return QD_OK;
}

static enum qd_status pad_infer(const struct qd_call *call, struct qd_error *error)
{
    struct pad pad;
    bool by_attr = call->node->opset < 11;
    enum qd_status status = qd_op_inputs(call, by_attr ? 1 : 2, by_attr ? 1 : 4, error);
    if (status || (status = qd_op_types(call, 0, by_attr ? QD_TYPES_FLOAT | QD_BIT(QD_U8) : QD_TYPES_ANY, error)))
        return status;
    if (qd_op_has(call, 2)) {
        if ((status = qd_op_same_type(call, 0, 2, error)))
            return status;
        if (qd_tensor_elems(&call->in[2]) != 1)
            return qd_op_fail(call, error, QD_ERR_SHAPE, "constant_value must have one element");
    }
    if ((status = pad_plan(call, &pad, error)))
        return status;
    status = qd_op_out(call, 0, call->in[0].dtype, &pad.out, error);
    call->out[0].layout = call->in[0].layout;
    return status;
}

static void pad_convert(void *ctx, int64_t begin, int64_t end, struct qd_observation *seen)
{
    const struct qd_call *call = ctx;
    float buffer[QD_CARRY_PIECE];
    for (int64_t at = begin; at < end; at += QD_CARRY_PIECE) {
        size_t n = end - at < QD_CARRY_PIECE ? (size_t)(end - at) : QD_CARRY_PIECE;
        const float *real = qd_carry_load(call, 0, (size_t)at, n, buffer);
        if (call->out_qp)
            call->kernels->requantize_u8(real, n, call->out_qp, (uint8_t *)call->scratch + at, seen);
        else
            memcpy((float *)call->scratch + at, real, n * sizeof *real);
    }
}

/* The input in the output's form: itself, or converted into scratch. */
static size_t pad_scratch(const struct qd_call *call)
{
    bool converts = call->in[0].dtype == QD_U8 || call->out[0].dtype == QD_U8;
    return converts ? (size_t)qd_tensor_elems(&call->in[0]) * sizeof(float) : 0;
}

/* The constant as one element of the output's form. */
static void pad_value(const struct qd_call *call, const struct qd_qparams *qp, unsigned char value[8])
{
    bool by_attr = call->node->opset < 11;
    float real = by_attr ? qd_attr_float(call->node, "value", 0.0f) : 0.0f;
    if (!by_attr && qd_op_has(call, 2)) {
        memcpy(value, call->in[2].data, qd_dtype_bytes(call->in[2].dtype));
        if (!qp)
            return;
        memcpy(&real, value, sizeof real);
    }
    if (qp)
        value[0] = qd_requantize_one(real, 1.0f / qp->scale, qp);
    else if (call->out[0].dtype == QD_F32)
        memcpy(value, &real, sizeof real);
    if (call->observe && call->out_qp && qd_tensor_elems(&call->out[0]) > qd_tensor_elems(&call->in[0]))
        call->kernels->observe_f32(&real, 1, call->out_qp, call->observe);
}

static enum qd_status pad_run(const struct qd_call *call, struct qd_error *error)
{
    struct pad pad;
    enum qd_status status = pad_plan(call, &pad, error);
    if (status)
        return status;
    if (!qd_shape_equal(&pad.out, &call->out[0].shape))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the output's shape is not the planned one");
    const struct qd_qparams *in_qp = qd_carry_in(call, 0);
    bool keeps = !call->out_qp && call->out[0].dtype == call->in[0].dtype; /* u8 with the input's scale, too */
    unsigned char value[8] = {0};
    const void *from = call->in[0].data;
    if (!keeps) {
        qd_carry_split(call, qd_tensor_elems(&call->in[0]), 16384, pad_convert, (void *)(uintptr_t)call);
        from = call->scratch;
    }
    pad_value(call, keeps ? in_qp : call->out_qp, value);
    pad_apply(call, &pad, from, value);
    return QD_OK;
}

/* Without a constant of its own Pad adds zeros or elements of the input: integers keep their scale. */
static const struct qd_op pad_keeps = {.flags = QD_OP_MOVES | QD_OP_CHANNELS_LAST, .infer = pad_infer, .run = pad_run};

static const struct qd_op *pad_choose(const struct qd_node *node)
{
    bool constant = qd_attr_is(node, "mode", "constant", "constant");
    bool keeps = node->opset < 11 ? !constant || qd_attr_float(node, "value", 0.0f) == 0
                                  : node->in_count < 3 || node->in[2] == QD_NO_VALUE;
    return keeps ? &pad_keeps : &qd_op_pad;
}

const struct qd_op qd_op_pad = {.flags = QD_OP_CHANNELS_LAST | QD_OP_READS_Q8 | QD_OP_WRITES_Q8,
                                .choose = pad_choose,
                                .infer = pad_infer,
                                .scratch = pad_scratch,
                                .run = pad_run};

/* ------------------------------------------------------------------ Tile: wrapping, with all padding at the end */

static enum qd_status tile_infer(const struct qd_call *call, struct qd_error *error)
{
    int64_t repeats[QD_MAX_RANK];
    size_t count = 0;
    struct qd_shape out = call->in[0].shape;
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)) ||
        (status = qd_op_ints(call, 1, repeats, QD_MAX_RANK, &count, error)))
        return status;
    for (int i = 0; i < out.rank; i++)
        if (count != (size_t)out.rank || repeats[i] < 0 || !qd_i64_mul(out.dims[i], repeats[i], &out.dims[i]))
            return qd_op_fail(call, error, QD_ERR_SHAPE, "the repeats don't fit %d dimensions", out.rank);
    return qd_op_out(call, 0, call->in[0].dtype, &out, error);
}

static enum qd_status tile_run(const struct qd_call *call, struct qd_error *error)
{
    struct pad pad = {.mode = PAD_WRAP, .out = call->out[0].shape};
    enum qd_status status = qd_op_recheck(call, tile_infer, error);
    if (!status)
        pad_apply(call, &pad, call->in[0].data, NULL);
    return status;
}

const struct qd_op qd_op_tile = {.flags = QD_OP_MOVES, .infer = tile_infer, .run = tile_run};
