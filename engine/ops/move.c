/* Operators that move elements by a fixed pattern: Transpose, Slice, Concat, Split, Expand. Strided walks do the work.
 * Not for padding (pad.c) or patterns found in data (gather.c). */
#include "engine/ops/carry.h"

#include <inttypes.h>
#include <string.h>

/* ------------------------------------------------------------------ Transpose */

/* perm[], the reverse order by default; false when it is no permutation. */
static bool permutation(const struct qd_call *call, int64_t perm[QD_MAX_RANK])
{
    int rank = call->in[0].shape.rank;
    size_t count = 0;
    const int64_t *attr = qd_attr_ints(call->node, "perm", &count);
    if (attr && count != (size_t)rank)
        return false;
    unsigned seen = 0;
    for (int i = 0; i < rank; i++) {
        perm[i] = attr ? attr[i] : rank - 1 - i;
        if (perm[i] < 0 || perm[i] >= rank || seen >> perm[i] & 1)
            return false;
        seen |= 1u << perm[i];
    }
    return true;
}

static enum qd_status transpose_infer(const struct qd_call *call, struct qd_error *error)
{
    int64_t perm[QD_MAX_RANK];
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)))
        return status;
    struct qd_shape out = {.rank = call->in[0].shape.rank};
    if (!permutation(call, perm))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "perm is no permutation of %d dimensions", out.rank);
    for (int i = 0; i < out.rank; i++)
        out.dims[i] = call->in[0].shape.dims[perm[i]];
    return qd_op_out(call, 0, call->in[0].dtype, &out, error);
}

/* A transposition of bytes or floats that moves the input's innermost dimension: matrices are turned in registers. The
 * output's dimension `turned` is the one whose elements are neighbours in the input. */
struct turning {
    const struct qd_call *call;
    const struct qd_walk *walk; /* joined */
    int turned;
    int64_t out_strides[QD_MAX_RANK], pieces; /* pieces of `turned`, COLUMNS each */
    size_t bytes;
};

enum { COLUMNS = 64, LEAST_SIDE = 4 };

/* Items: every place of the dimensions outside the matrix, times the pieces of `turned`. */
static void turn_items(void *ctx, int64_t begin, int64_t end)
{
    const struct turning *t = ctx;
    const struct qd_walk *w = t->walk;
    int last = w->rank - 1;
    for (int64_t item = begin; item < end; item++) {
        int64_t first = item % t->pieces * COLUMNS, rest = item / t->pieces, left = w->dims[t->turned] - first;
        int64_t from = first, to = first * t->out_strides[t->turned];
        for (int d = last - 1; d >= 0; d--) {
            if (d == t->turned)
                continue;
            from += rest % w->dims[d] * w->strides[0][d];
            to += rest % w->dims[d] * t->out_strides[d];
            rest /= w->dims[d];
        }
        size_t rows = (size_t)w->dims[last], cols = (size_t)(left < COLUMNS ? left : COLUMNS);
        size_t in_stride = (size_t)w->strides[0][last], out_stride = (size_t)t->out_strides[t->turned];
        if (t->bytes == 1)
            t->call->kernels->transpose_u8((const uint8_t *)t->call->in[0].data + from, in_stride, rows, cols,
                                           (uint8_t *)t->call->out[0].data + to, out_stride);
        else
            t->call->kernels->transpose_f32((const float *)t->call->in[0].data + from, in_stride, rows, cols,
                                            (float *)t->call->out[0].data + to, out_stride);
    }
}

/* False when a walk does as well: the innermost dimension stays, or sides are short. */
static bool turn(const struct qd_call *call, const struct qd_walk *walk)
{
    struct turning t = {call, walk, -1, {0}, 0, qd_dtype_bytes(call->in[0].dtype)};
    int last = walk->rank - 1;
    int64_t stride = 1;
    for (int d = last; d >= 0; d--) {
        t.turned = walk->strides[0][d] == 1 ? d : t.turned;
        t.out_strides[d] = stride;
        stride *= walk->dims[d];
    }
    if ((t.bytes != 1 && call->in[0].dtype != QD_F32) || t.turned < 0 || t.turned == last ||
        walk->dims[last] < LEAST_SIDE || walk->dims[t.turned] < LEAST_SIDE)
        return false;
    t.pieces = (walk->dims[t.turned] + COLUMNS - 1) / COLUMNS;
    int64_t items = walk->elems / walk->dims[last] / walk->dims[t.turned] * t.pieces;
    qd_op_split(call, items, 16384 / (walk->dims[last] * COLUMNS) + 1, turn_items, &t);
    return true;
}

static enum qd_status transpose_run(const struct qd_call *call, struct qd_error *error)
{
    int64_t perm[QD_MAX_RANK], own[QD_MAX_RANK] = {0}, strides[QD_MAX_RANK] = {0};
    struct qd_walk walk;
    if (!permutation(call, perm))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "perm is no permutation");
    qd_op_strides(&call->in[0].shape, own);
    for (int i = 0; i < call->out[0].shape.rank; i++)
        strides[i] = own[perm[i]];
    qd_walk_begin(&walk, &call->out[0].shape);
    qd_walk_operand(&walk, strides);
    qd_walk_join(&walk);
    if (walk.elems && !turn(call, &walk))
        qd_walk_copy(&walk, call, call->in[0].data, call->out[0].data, qd_dtype_bytes(call->in[0].dtype));
    return QD_OK;
}

const struct qd_op qd_op_transpose = {.flags = QD_OP_MOVES, .infer = transpose_infer, .run = transpose_run};

/* ------------------------------------------------------------------ Slice */

struct slice {
    int64_t start[QD_MAX_RANK], step[QD_MAX_RANK];
    struct qd_shape out;
};

/* The lists starts, ends, axes, steps by input (opset 10) or attribute; counts[i] is 0 for an absent one. */
static enum qd_status slice_lists(const struct qd_call *call, int64_t lists[4][QD_MAX_RANK], size_t counts[4],
                                  struct qd_error *error)
{
    static const char *const names[4] = {"starts", "ends", "axes", "steps"};
    for (int i = 0; i < 4; i++) {
        enum qd_status status = QD_OK;
        counts[i] = 0;
        if (call->node->opset < 10) {
            const int64_t *attr = i < 3 ? qd_attr_ints(call->node, names[i], &counts[i]) : NULL;
            if (counts[i] > QD_MAX_RANK)
                return qd_op_fail(call, error, QD_ERR_SHAPE, "%s has %zu elements", names[i], counts[i]);
            if (counts[i])
                memcpy(lists[i], attr, counts[i] * sizeof attr[0]);
        } else if (qd_op_has(call, i + 1)) {
            status = qd_op_ints(call, i + 1, lists[i], QD_MAX_RANK, &counts[i], error);
        }
        if (status)
            return status;
        if (i > 0 && counts[i] != counts[0] && (i == 1 || counts[i]))
            return qd_op_fail(call, error, QD_ERR_SHAPE, "%s has %zu elements, starts has %zu", names[i], counts[i],
                              counts[0]);
    }
    return QD_OK;
}

/* start, end of a dimension into the first index and the number of elements. step is not 0. */
static int64_t slice_one(int64_t dim, int64_t end, int64_t step, int64_t *start)
{
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? dim - 1 : dim, from = *start;
    from += from < 0 ? dim : 0;
    end += end < 0 ? dim : 0;
    from = from < low + (step < 0) ? low + (step < 0) : from > high ? high : from;
    end = end < low ? low : end > high ? high : end;
    *start = from;
    if (dim == 0)
        return 0;
    if (step > 0)
        return end > from ? (end - from - 1) / step + 1 : 0;
    return from > end ? (from - end - 1) / (step == INT64_MIN ? INT64_MAX : -step) + 1 : 0;
}

static enum qd_status slice_plan(const struct qd_call *call, struct slice *slice, struct qd_error *error)
{
    int64_t lists[4][QD_MAX_RANK] = {{0}};
    size_t counts[4];
    const struct qd_shape *in = &call->in[0].shape;
    enum qd_status status = slice_lists(call, lists, counts, error);
    slice->out = *in;
    for (int i = 0; i < in->rank; i++) {
        slice->start[i] = 0;
        slice->step[i] = 1;
    }
    unsigned seen = 0;
    for (size_t i = 0; i < counts[0] && !status; i++) {
        int64_t axis = counts[2] ? lists[2][i] : (int64_t)i, step = counts[3] ? lists[3][i] : 1;
        if ((status = qd_op_axis(call, &axis, in->rank, error)))
            break;
        if (step == 0 || seen >> axis & 1)
            return qd_op_fail(call, error, QD_ERR_SHAPE, step ? "axis %d is sliced twice" : "the step of axis %d is 0",
                              (int)axis);
        seen |= 1u << axis;
        slice->start[axis] = lists[0][i];
        slice->step[axis] = step;
        slice->out.dims[axis] = slice_one(in->dims[axis], lists[1][i], step, &slice->start[axis]);
        if (slice->out.dims[axis] <= 1)
            slice->step[axis] = 1; /* never taken; a huge one could overflow the stride */
    }
    return status;
}

static enum qd_status slice_infer(const struct qd_call *call, struct qd_error *error)
{
    struct slice slice;
    bool by_attr = call->node->opset < 10;
    enum qd_status status = qd_op_inputs(call, by_attr ? 1 : 3, by_attr ? 1 : 5, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)) || (status = slice_plan(call, &slice, error)))
        return status;
    status = qd_op_out(call, 0, call->in[0].dtype, &slice.out, error);
    call->out[0].layout = call->in[0].layout;
    return status;
}

static enum qd_status slice_run(const struct qd_call *call, struct qd_error *error)
{
    struct slice slice;
    enum qd_status status = slice_plan(call, &slice, error);
    if (status)
        return status;
    const struct qd_tensor *in = &call->in[0], *out = &call->out[0];
    if (!qd_shape_equal(&slice.out, &out->shape))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the output's shape is not the planned one");
    if (qd_tensor_elems(out) == 0)
        return QD_OK;
    int64_t strides[QD_MAX_RANK] = {0}, base = 0;
    const struct qd_shape from = qd_memory_shape(in), to = qd_memory_shape(out);
    qd_memory_order(in, slice.start);
    qd_memory_order(in, slice.step);
    qd_op_strides(&from, strides);
    for (int i = 0; i < from.rank; i++) {
        base += slice.start[i] * strides[i];
        strides[i] *= slice.step[i];
    }
    struct qd_walk walk;
    qd_walk_begin(&walk, &to);
    qd_walk_operand(&walk, strides);
    qd_walk_join(&walk);
    size_t bytes = qd_dtype_bytes(in->dtype);
    qd_walk_copy(&walk, call, (const char *)in->data + (size_t)base * bytes, out->data, bytes);
    return QD_OK;
}

const struct qd_op qd_op_slice = {.flags = QD_OP_MOVES | QD_OP_CHANNELS_LAST, .infer = slice_infer, .run = slice_run};

/* ------------------------------------------------------------------ Concat */

static enum qd_status concat_infer(const struct qd_call *call, struct qd_error *error)
{
    int count = call->in_count > 1 ? call->in_count : 1;
    enum qd_status status = qd_op_inputs(call, count, count, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)))
        return status;
    struct qd_shape out = call->in[0].shape;
    int64_t axis = qd_attr_int(call->node, "axis", 0);
    if ((status = qd_op_axis(call, &axis, out.rank, error)))
        return status;
    for (int k = 1; k < count; k++) {
        struct qd_shape one = call->in[k].shape, rest = out;
        if ((status = qd_op_same_type(call, 0, k, error)))
            return status;
        int64_t here = one.rank > axis ? one.dims[axis] : 0;
        rest.dims[axis] = one.dims[axis] = 0;
        if (!qd_shape_equal(&rest, &one) || !qd_i64_add(out.dims[axis], here, &out.dims[axis]))
            return qd_op_fail(call, error, QD_ERR_SHAPE, "the shape of input %d doesn't fit input 0's along axis %d", k,
                              (int)axis);
    }
    status = qd_op_out(call, 0, call->in[0].dtype, &out, error);
    call->out[0].layout = call->in[0].layout;
    return status;
}

/* One input: `outer` pieces of `piece` elements, each at the same place of a row of the output. */
struct concat_part {
    const struct qd_call *call;
    int input;
    size_t piece, row, at; /* elements: of a piece, of a whole row, before the piece in its row */
};

/* An input that is carried as the output is: bytes are copied. */
static bool concat_same(const struct qd_call *call, int input)
{
    const struct qd_qparams *in = qd_carry_in(call, input), *out = call->out_qp;
    return (!in && !out) || (in && out && in->scale == out->scale && in->zero_point == out->zero_point &&
                             in->qmin == out->qmin && in->qmax == out->qmax);
}

#define SCATTER(type)                                                                                                  \
    for (size_t o = 0; o < pieces; o++)                                                                                \
    ((type *)(void *)to)[o * (row_bytes / sizeof(type))] = ((const type *)(const void *)from)[o]

/* Whole pieces of `bytes` bytes each to the same place of consecutive rows; single channels without a call for each. */
static void scatter(char *to, size_t row_bytes, const char *from, size_t bytes, size_t pieces)
{
    if (bytes == 1)
        SCATTER(uint8_t);
    else if (bytes == 4 && row_bytes % 4 == 0)
        SCATTER(uint32_t);
    else
        for (size_t o = 0; o < pieces; o++)
            memcpy(to + o * row_bytes, from + o * bytes, bytes);
}

static void concat_copy(void *ctx, int64_t begin, int64_t end)
{
    const struct concat_part *p = ctx;
    size_t elem = qd_dtype_bytes(p->call->out[0].dtype), bytes = p->piece * elem;
    scatter((char *)p->call->out[0].data + ((size_t)begin * p->row + p->at) * elem, p->row * elem,
            (const char *)p->call->in[p->input].data + (size_t)begin * bytes, bytes, (size_t)(end - begin));
}

/* Through real values, many pieces at once; elements begin..end of the input. */
static void concat_convert(void *ctx, int64_t begin, int64_t end, struct qd_observation *seen)
{
    const struct concat_part *p = ctx;
    const struct qd_call *call = p->call;
    float buffer[QD_CARRY_PIECE];
    uint8_t bytes[QD_CARRY_PIECE];
    bool same = concat_same(call, p->input);
    for (size_t at = (size_t)begin; at < (size_t)end;) {
        size_t n = (size_t)end - at < QD_CARRY_PIECE ? (size_t)end - at : QD_CARRY_PIECE, elem = call->out_qp ? 1 : 4;
        const float *real = qd_carry_load(call, p->input, at, n, buffer);
        if (same)
            call->kernels->observe_f32(real, n, NULL, seen);
        else if (call->out_qp)
            call->kernels->requantize_u8(real, n, call->out_qp, bytes, seen);
        const char *from = call->out_qp ? (const char *)bytes : (const char *)real;
        for (size_t done = 0; done < n && !same;) {
            size_t o = (at + done) / p->piece, inside = (at + done) % p->piece, some = p->piece - inside;
            char *to = (char *)call->out[0].data + (o * p->row + p->at + inside) * elem;
            size_t whole = inside ? 0 : (n - done) / p->piece;
            if (whole)
                scatter(to, p->row * elem, from + done * elem, p->piece * elem, whole);
            some = whole ? whole * p->piece : some < n - done ? some : n - done;
            if (!whole)
                memcpy(to, from + done * elem, some * elem);
            done += some;
        }
        at += n;
    }
}

static enum qd_status concat_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct qd_tensor *out = &call->out[0];
    int64_t axis = qd_attr_int(call->node, "axis", 0);
    axis = qd_memory_axis(out, (int)(axis + (axis < 0 ? out->shape.rank : 0)));
    const struct qd_shape shape = qd_memory_shape(out);
    int64_t outer = qd_shape_span(&shape, 0, (int)axis);
    struct concat_part part = {.call = call, .row = (size_t)qd_shape_span(&shape, (int)axis, shape.rank)};
    for (part.input = 0; part.input < call->in_count; part.input++, part.at += part.piece) {
        const struct qd_shape one = qd_memory_shape(&call->in[part.input]);
        part.piece = (size_t)qd_shape_span(&one, (int)axis, one.rank);
        if (part.piece == 0 || outer == 0)
            continue;
        bool same = concat_same(call, part.input);
        if (same)
            qd_op_split(call, outer, 65536 / (int64_t)part.piece + 1, concat_copy, &part);
        if (!same || (call->out_qp && call->observe))
            qd_carry_split(call, outer * (int64_t)part.piece, 16384, concat_convert, &part);
    }
    return QD_OK;
}

const struct qd_op qd_op_concat = {.flags = QD_OP_CHANNELS_LAST | QD_OP_ALL_CHANNELS_LAST | QD_OP_READS_Q8 |
                                            QD_OP_WRITES_Q8,
                                   .infer = concat_infer,
                                   .run = concat_run};

/* ------------------------------------------------------------------ Split */

/* Sizes along the axis: given (attribute, or input 1 from opset 13), or equal parts, the last one smaller (opset 18).
 */
static enum qd_status split_sizes(const struct qd_call *call, int64_t dim, int64_t sizes[QD_MAX_OUTPUTS],
                                  struct qd_error *error)
{
    size_t count = 0, outputs = (size_t)call->out_count;
    const int64_t *attr = call->node->opset < 13 ? qd_attr_ints(call->node, "split", &count) : NULL;
    enum qd_status status = QD_OK;
    bool given = attr || (call->node->opset >= 13 && qd_op_has(call, 1));
    if (attr && count <= QD_MAX_OUTPUTS)
        memcpy(sizes, attr, count * sizeof sizes[0]);
    else if (given)
        status = qd_op_ints(call, 1, sizes, QD_MAX_OUTPUTS, &count, error);
    if (status)
        return status;
    if (!given) {
        int64_t parts = qd_attr_int(call->node, "num_outputs", (int64_t)outputs), each = 0;
        if (parts != (int64_t)outputs || (call->node->opset < 18 && dim % parts != 0))
            return qd_op_fail(call, error, QD_ERR_SHAPE,
                              "can't split %" PRId64 " into %" PRId64 " parts for %zu outputs", dim, parts, outputs);
        each = dim / parts + (dim % parts != 0);
        for (size_t i = 0; i < outputs; i++)
            sizes[i] = dim - (int64_t)i * each < each ? (dim > (int64_t)i * each ? dim - (int64_t)i * each : 0) : each;
        return QD_OK;
    }
    int64_t left = dim;
    for (size_t i = 0; i < count; i++) {
        left = sizes[i] >= 0 && sizes[i] <= left ? left - sizes[i] : -1;
        if (left < 0)
            break;
    }
    if (count != outputs || left != 0)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the %zu parts don't split %" PRId64 " into %zu outputs", count,
                          dim, outputs);
    return QD_OK;
}

static enum qd_status split_infer(const struct qd_call *call, struct qd_error *error)
{
    int64_t axis = qd_attr_int(call->node, "axis", 0), sizes[QD_MAX_OUTPUTS];
    enum qd_status status = qd_op_inputs(call, 1, 2, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)) ||
        (status = qd_op_axis(call, &axis, call->in[0].shape.rank, error)))
        return status;
    if (call->out_count > QD_MAX_OUTPUTS)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "has more than %d outputs", QD_MAX_OUTPUTS);
    struct qd_shape shape = call->in[0].shape;
    status = split_sizes(call, shape.dims[axis], sizes, error);
    for (int i = 0; i < call->out_count && !status; i++) {
        shape.dims[axis] = sizes[i];
        if (qd_op_wants(call, i))
            status = qd_op_out(call, i, call->in[0].dtype, &shape, error);
        if (qd_op_wants(call, i))
            call->out[i].layout = call->in[0].layout;
    }
    return status;
}

static enum qd_status split_run(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_tensor *in = &call->in[0];
    int64_t axis = qd_attr_int(call->node, "axis", 0), sizes[QD_MAX_OUTPUTS];
    axis += axis < 0 ? in->shape.rank : 0;
    enum qd_status status = qd_op_recheck(call, split_infer, error);
    if (status || (status = split_sizes(call, in->shape.dims[axis], sizes, error)))
        return status;
    const struct qd_shape shape = qd_memory_shape(in);
    axis = qd_memory_axis(in, (int)axis);
    int64_t outer = qd_shape_span(&shape, 0, (int)axis);
    size_t unit = (size_t)qd_shape_span(&shape, (int)axis + 1, shape.rank) * qd_dtype_bytes(in->dtype);
    size_t row = unit * (size_t)shape.dims[axis];
    const char *from = in->data;
    for (int k = 0; k < call->out_count; k++) {
        size_t piece = (size_t)sizes[k] * unit;
        if (piece == 0)
            continue;
        for (int64_t o = 0; o < outer && qd_op_wants(call, k); o++)
            memcpy((char *)call->out[k].data + (size_t)o * piece, from + (size_t)o * row, piece);
        from += piece;
    }
    return QD_OK;
}

const struct qd_op qd_op_split_op = {
    .flags = QD_OP_MOVES | QD_OP_CHANNELS_LAST, .infer = split_infer, .run = split_run};

/* ------------------------------------------------------------------ Expand */

static enum qd_status expand_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_shape want = {0}, out;
    size_t count = 0;
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)) ||
        (status = qd_op_ints(call, 1, want.dims, QD_MAX_RANK, &count, error)))
        return status;
    want.rank = (int)count;
    char a[160], b[160];
    if (!qd_shape_known(&want) || !qd_broadcast(&call->in[0].shape, &want, &out))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "shape %s can't be expanded to %s",
                          qd_shape_text(&call->in[0].shape, a, sizeof a), qd_shape_text(&want, b, sizeof b));
    return qd_op_out(call, 0, call->in[0].dtype, &out, error);
}

static enum qd_status expand_run(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_recheck(call, expand_infer, error);
    if (status)
        return status;
    struct qd_walk walk;
    qd_walk_begin(&walk, &call->out[0].shape);
    qd_walk_broadcast(&walk, &call->in[0].shape);
    qd_walk_join(&walk);
    qd_walk_copy(&walk, call, call->in[0].data, call->out[0].data, qd_dtype_bytes(call->in[0].dtype));
    return QD_OK;
}

const struct qd_op qd_op_expand = {.flags = QD_OP_MOVES, .infer = expand_infer, .run = expand_run};
