/* Operators that choose elements by their values or by a rule: TopK, NonZero, Compress, OneHot, Trilu, EyeLike,
 * ReverseSequence. The shapes of NonZero and Compress depend on data. Not for indices given (gather.c). */
#include "engine/ops/helpers.h"

#include <inttypes.h>
#include <string.h>

#define TYPES_ORDERED                                                                                                  \
    (QD_BIT(QD_F32) | QD_BIT(QD_F64) | QD_BIT(QD_U8) | QD_BIT(QD_I8) | QD_BIT(QD_U16) | QD_BIT(QD_I16) |               \
     QD_BIT(QD_I32) | QD_BIT(QD_I64) | QD_BIT(QD_U32) | QD_BIT(QD_U64) | QD_BIT(QD_BOOL))

/* -1, 0, 1: element i before, equal to or after element j; NaN after all numbers. */
#define COMPARE(name, type)                                                                                            \
    static int name(const void *data, int64_t i, int64_t j)                                                            \
    {                                                                                                                  \
        type a = ((const type *)data)[i], b = ((const type *)data)[j];                                                 \
        return a < b ? -1 : a > b ? 1 : (a != a) - (b != b);                                                           \
    }
COMPARE(compare_f32, float)
COMPARE(compare_f64, double)
COMPARE(compare_u8, uint8_t)
COMPARE(compare_i8, int8_t)
COMPARE(compare_u16, uint16_t)
COMPARE(compare_i16, int16_t)
COMPARE(compare_u32, uint32_t)
COMPARE(compare_i32, int32_t)
COMPARE(compare_u64, uint64_t)
COMPARE(compare_i64, int64_t)

static int (*const compares[QD_DTYPE_COUNT])(const void *, int64_t, int64_t) = {
    [QD_F32] = compare_f32, [QD_F64] = compare_f64, [QD_U8] = compare_u8,   [QD_BOOL] = compare_u8,
    [QD_I8] = compare_i8,   [QD_U16] = compare_u16, [QD_I16] = compare_i16, [QD_U32] = compare_u32,
    [QD_I32] = compare_i32, [QD_U64] = compare_u64, [QD_I64] = compare_i64,
};

/* An order of positions: by `compare` (of runs of `span` elements), ties by position. */
struct order {
    int (*compare)(const void *data, int64_t i, int64_t j);
    const void *data;
    int64_t first, stride;       /* position p is element first + p * stride ... */
    int64_t outer, outer_stride; /* ... and `outer` further runs of `inner` neighbours outer_stride apart */
    int64_t inner;
    bool descending;
};

static int runs_compare(const struct order *o, int64_t p, int64_t q)
{
    for (int64_t k = 0; k < o->outer; k++)
        for (int64_t i = 0; i < o->inner; i++) {
            int64_t at = o->first + k * o->outer_stride + i;
            int c = o->compare(o->data, at + p * o->stride, at + q * o->stride);
            if (c)
                return o->descending ? -c : c;
        }
    return 0;
}

static bool before(const struct order *o, int64_t p, int64_t q)
{
    int c = runs_compare(o, p, q);
    return c ? c < 0 : p < q;
}

static void sift(const struct order *o, int64_t *heap, int64_t at, int64_t n)
{
    int64_t p = heap[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        child += child + 1 < n && before(o, heap[child], heap[child + 1]);
        if (!before(o, p, heap[child]))
            break;
        heap[at] = heap[child];
    }
    heap[at] = p;
}

/* The first k of n positions in order, into list[0..k): a heap with the last of them on top. */
static void first_of(const struct order *o, int64_t n, int64_t k, int64_t *list)
{
    for (int64_t i = 0; i < k; i++)
        list[i] = i;
    for (int64_t i = k / 2 - 1; i >= 0; i--)
        sift(o, list, i, k);
    for (int64_t i = k; i < n && k; i++)
        if (before(o, i, list[0])) {
            list[0] = i;
            sift(o, list, 0, k);
        }
    for (int64_t left = k - 1; left > 0; left--) {
        int64_t last = list[0];
        list[0] = list[left];
        list[left] = last;
        sift(o, list, 0, left);
    }
}

static void copy_elem(const struct qd_tensor *out, int64_t to, const struct qd_tensor *in, int64_t from)
{
    size_t bytes = qd_dtype_bytes(out->dtype);
    memcpy((char *)out->data + (size_t)to * bytes, (const char *)in->data + (size_t)from * bytes, bytes);
}

/* ------------------------------------------------------------------ TopK */

static enum qd_status topk_plan(const struct qd_call *call, int64_t *axis, struct qd_shape *out, struct qd_error *error)
{
    int64_t k = qd_attr_int(call->node, "k", -1);
    size_t count = 1;
    *axis = qd_attr_int(call->node, "axis", -1);
    *out = call->in[0].shape;
    enum qd_status status = qd_op_axis(call, axis, out->rank, error);
    if (!status && call->node->opset >= 10)
        status = qd_op_ints(call, 1, &k, 1, &count, error);
    if (status)
        return status;
    if (count != 1 || k < 0 || k > out->dims[*axis])
        return qd_op_fail(call, error, QD_ERR_SHAPE, "k = %" PRId64 " doesn't fit a dimension of %" PRId64, k,
                          out->dims[*axis]);
    out->dims[*axis] = k;
    return QD_OK;
}

static enum qd_status topk_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_shape out;
    int64_t axis;
    int inputs = call->node->opset >= 10 ? 2 : 1;
    if (call->in_count != inputs || !qd_op_has(call, 0) || !qd_op_has(call, inputs - 1))
        return qd_op_fail(call, error, QD_ERR_INVALID, "must have %d inputs", inputs);
    enum qd_status status = qd_op_types(call, 0, TYPES_ORDERED, error);
    if (status || (status = topk_plan(call, &axis, &out, error)) ||
        (qd_op_wants(call, 0) && (status = qd_op_out(call, 0, call->in[0].dtype, &out, error))))
        return status;
    return qd_op_wants(call, 1) ? qd_op_out(call, 1, QD_I64, &out, error) : QD_OK;
}

static size_t topk_scratch(const struct qd_call *call)
{
    int64_t axis;
    struct qd_shape out;
    return topk_plan(call, &axis, &out, NULL) ? 0 : (size_t)out.dims[axis] * sizeof(int64_t);
}

static enum qd_status topk_run(const struct qd_call *call, struct qd_error *error)
{
    struct qd_shape out;
    int64_t axis, *list = call->scratch;
    enum qd_status status = topk_plan(call, &axis, &out, error);
    for (int i = 0; i < 2 && !status; i++)
        if (qd_op_wants(call, i) && !qd_shape_equal(&out, &call->out[i].shape))
            status = qd_op_fail(call, error, QD_ERR_SHAPE, "the output's shape is not the planned one");
    if (status || qd_shape_span(&out, 0, out.rank) == 0)
        return status;
    const struct qd_shape *in = &call->in[0].shape;
    int64_t n = in->dims[axis], k = out.dims[axis], inner = qd_shape_span(in, (int)axis + 1, in->rank);
    int64_t rows = qd_shape_span(in, 0, (int)axis) * inner;
    struct order order = {.compare = compares[call->in[0].dtype],
                          .data = call->in[0].data,
                          .stride = inner,
                          .outer = 1,
                          .inner = 1,
                          .descending = qd_attr_int(call->node, "largest", 1) != 0};
    for (int64_t row = 0; row < rows; row++) {
        order.first = row / inner * n * inner + row % inner;
        int64_t to = row / inner * k * inner + row % inner;
        first_of(&order, n, k, list);
        for (int64_t i = 0; i < k; i++) {
            if (qd_op_wants(call, 0))
                copy_elem(&call->out[0], to + i * inner, &call->in[0], order.first + list[i] * inner);
            if (qd_op_wants(call, 1))
                ((int64_t *)call->out[1].data)[to + i * inner] = list[i];
        }
    }
    return QD_OK;
}

const struct qd_op qd_op_topk = {.infer = topk_infer, .scratch = topk_scratch, .run = topk_run};

/* ------------------------------------------------------------------ NonZero, Compress */

static bool is_zero(const struct qd_tensor *t, int64_t i)
{
    static const char zeros[8];
    size_t bytes = qd_dtype_bytes(t->dtype);
    if (t->dtype == QD_F32)
        return ((const float *)t->data)[i] == 0;
    if (t->dtype == QD_F64)
        return ((const double *)t->data)[i] == 0;
    return memcmp((const char *)t->data + (size_t)i * bytes, zeros, bytes) == 0;
}

static int64_t count_set(const struct qd_tensor *t, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += !is_zero(t, i);
    return count;
}

static enum qd_status nonzero_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_tensor *x = &call->in[0];
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, TYPES_ORDERED, error)))
        return status;
    int64_t n = qd_tensor_elems(x);
    if (n && !x->data)
        return QD_ERR_NEEDS_DATA;
    struct qd_shape out = {.rank = 2, .dims = {x->shape.rank ? x->shape.rank : 1, count_set(x, n)}};
    return qd_op_out(call, 0, QD_I64, &out, error);
}

static enum qd_status nonzero_run(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_tensor *x = &call->in[0];
    int64_t n = qd_tensor_elems(x), count = call->out[0].shape.dims[1], at = 0, *out = call->out[0].data;
    if (count_set(x, n) != count)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the output's shape is not the planned one");
    for (int64_t i = 0; i < n; i++) {
        if (is_zero(x, i))
            continue;
        int64_t rest = i;
        for (int d = x->shape.rank - 1; d >= 0; d--) {
            out[d * count + at] = rest % x->shape.dims[d];
            rest /= x->shape.dims[d];
        }
        if (x->shape.rank == 0)
            out[at] = 0;
        at++;
    }
    return QD_OK;
}

const struct qd_op qd_op_nonzero = {.infer = nonzero_infer, .run = nonzero_run};

/* Without an axis the input counts as one list: outer 1, dim n, inner 1. */
static enum qd_status compress_plan(const struct qd_call *call, int64_t *outer, int64_t *dim, int64_t *inner,
                                    struct qd_shape *out, struct qd_error *error)
{
    const struct qd_shape *x = &call->in[0].shape;
    const struct qd_tensor *condition = &call->in[1];
    bool flat = !qd_attr_find(call->node, "axis");
    int64_t axis = qd_attr_int(call->node, "axis", 0), n = qd_tensor_elems(condition);
    enum qd_status status = flat ? QD_OK : qd_op_axis(call, &axis, x->rank, error);
    if (status)
        return status;
    *outer = flat ? 1 : qd_shape_span(x, 0, (int)axis);
    *dim = flat ? qd_shape_span(x, 0, x->rank) : x->dims[axis];
    *inner = flat ? 1 : qd_shape_span(x, (int)axis + 1, x->rank);
    if (condition->shape.rank != 1 || n > *dim)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the condition must be a list of at most %" PRId64, *dim);
    if (n && !condition->data)
        return QD_ERR_NEEDS_DATA;
    *out = flat ? (struct qd_shape){.rank = 1} : *x;
    out->dims[flat ? 0 : axis] = count_set(condition, n);
    return QD_OK;
}

static enum qd_status compress_infer(const struct qd_call *call, struct qd_error *error)
{
    int64_t outer, dim, inner;
    struct qd_shape out;
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)) ||
        (status = qd_op_types(call, 1, QD_BIT(QD_BOOL), error)) ||
        (status = compress_plan(call, &outer, &dim, &inner, &out, error)))
        return status;
    return qd_op_out(call, 0, call->in[0].dtype, &out, error);
}

static enum qd_status compress_run(const struct qd_call *call, struct qd_error *error)
{
    int64_t outer, dim, inner, n = qd_tensor_elems(&call->in[1]);
    struct qd_shape out;
    enum qd_status status = compress_plan(call, &outer, &dim, &inner, &out, error);
    if (!status && !qd_shape_equal(&out, &call->out[0].shape))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the output's shape is not the planned one");
    size_t bytes = (size_t)inner * qd_dtype_bytes(call->in[0].dtype);
    char *to = call->out[0].data;
    for (int64_t o = 0; o < outer && !status && bytes; o++)
        for (int64_t i = 0; i < n; i++) {
            if (is_zero(&call->in[1], i))
                continue;
            memcpy(to, (const char *)call->in[0].data + (size_t)(o * dim + i) * bytes, bytes);
            to += bytes;
        }
    return status;
}

const struct qd_op qd_op_compress = {.infer = compress_infer, .run = compress_run};

/* ------------------------------------------------------------------ OneHot */

static double number_at(const struct qd_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case QD_F32:
        return (double)((const float *)t->data)[i];
    case QD_I64:
        return (double)((const int64_t *)t->data)[i];
    case QD_I32:
        return (double)((const int32_t *)t->data)[i];
    case QD_I8:
        return (double)((const int8_t *)t->data)[i];
    default:
        return (double)((const uint8_t *)t->data)[i];
    }
}

static enum qd_status onehot_plan(const struct qd_call *call, int64_t *axis, struct qd_shape *out,
                                  struct qd_error *error)
{
    const struct qd_shape *indices = &call->in[0].shape;
    double depth = 0;
    *axis = qd_attr_int(call->node, "axis", -1);
    enum qd_status status = qd_op_axis(call, axis, indices->rank + 1, error);
    if (status || (status = qd_op_scalar(call, 1, &depth, error)))
        return status;
    if (!(depth >= 0 && depth < 1e15) || indices->rank >= QD_MAX_RANK)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "a depth of %g makes no sense, or the rank is too high", depth);
    out->rank = indices->rank + 1;
    for (int i = 0; i < out->rank; i++)
        out->dims[i] = i == *axis ? (int64_t)depth : indices->dims[i > *axis ? i - 1 : i];
    return QD_OK;
}

static enum qd_status onehot_infer(const struct qd_call *call, struct qd_error *error)
{
    unsigned numbers = QD_BIT(QD_F32) | QD_TYPES_INDEX | QD_BIT(QD_U8) | QD_BIT(QD_I8);
    int64_t axis;
    struct qd_shape out;
    enum qd_status status = qd_op_inputs(call, 3, 3, error);
    if (status || (status = qd_op_types(call, 0, numbers, error)) || (status = qd_op_types(call, 1, numbers, error)) ||
        (status = qd_op_types(call, 2, QD_TYPES_ANY, error)) || (status = onehot_plan(call, &axis, &out, error)))
        return status;
    if (qd_tensor_elems(&call->in[2]) != 2)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "values must have two elements");
    return qd_op_out(call, 0, call->in[2].dtype, &out, error);
}

static enum qd_status onehot_run(const struct qd_call *call, struct qd_error *error)
{
    int64_t axis;
    struct qd_shape out;
    enum qd_status status = onehot_plan(call, &axis, &out, error);
    if (status)
        return status;
    if (!qd_shape_equal(&out, &call->out[0].shape))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the output's shape is not the planned one");
    int64_t depth = out.dims[axis], inner = qd_shape_span(&out, (int)axis + 1, out.rank);
    for (int64_t i = 0, n = qd_tensor_elems(&call->out[0]); i < n; i++) {
        double index = number_at(&call->in[0], i / inner / depth * inner + i % inner);
        index += index < 0 ? (double)depth : 0;
        copy_elem(&call->out[0], i, &call->in[2], (double)(i / inner % depth) == index);
    }
    return QD_OK;
}

const struct qd_op qd_op_onehot = {.infer = onehot_infer, .run = onehot_run};

/* ------------------------------------------------------------------ Trilu, EyeLike */

static enum qd_status trilu_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 2, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_ANY, error)) ||
        (status = qd_op_types(call, 1, QD_BIT(QD_I64), error)))
        return status;
    if (call->in[0].shape.rank < 2 || (qd_op_has(call, 1) && qd_tensor_elems(&call->in[1]) != 1))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "needs matrices, and k one number");
    return qd_op_out(call, 0, call->in[0].dtype, &call->in[0].shape, error);
}

static enum qd_status trilu_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct qd_shape *x = &call->in[0].shape;
    int64_t rows = x->dims[x->rank - 2], columns = x->dims[x->rank - 1];
    int64_t k = qd_op_has(call, 1) ? *(const int64_t *)call->in[1].data : 0;
    bool upper = qd_attr_int(call->node, "upper", 1) != 0;
    size_t bytes = qd_dtype_bytes(call->in[0].dtype);
    k = k < -rows ? -rows : k > columns ? columns : k;
    qd_op_copy(call->out[0].data, call->in[0].data, qd_tensor_bytes(&call->out[0]));
    for (int64_t r = 0, all = qd_shape_span(x, 0, x->rank - 1); r < all && columns; r++) {
        int64_t edge = r % rows + k + (upper ? 0 : 1); /* the first column that stays, or that goes */
        edge = edge < 0 ? 0 : edge > columns ? columns : edge;
        int64_t first = upper ? 0 : edge, n = upper ? edge : columns - edge;
        memset((char *)call->out[0].data + (size_t)(r * columns + first) * bytes, 0, (size_t)n * bytes);
    }
    return QD_OK;
}

const struct qd_op qd_op_trilu = {.infer = trilu_infer, .run = trilu_run};

static enum qd_status eye_infer(const struct qd_call *call, struct qd_error *error)
{
    int64_t asked = qd_attr_int(call->node, "dtype", 0);
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_ANY, error)))
        return status;
    enum qd_dtype type = asked ? qd_dtype_from_onnx(asked) : call->in[0].dtype;
    if (!(TYPES_ORDERED & QD_BIT(type)) || type == QD_NONE)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "an output of type %s is not supported",
                          qd_dtype_name(type));
    if (call->in[0].shape.rank != 2)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the input must be a matrix");
    return qd_op_out(call, 0, type, &call->in[0].shape, error);
}

static enum qd_status eye_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    struct qd_tensor *out = &call->out[0];
    int64_t rows = out->shape.dims[0], columns = out->shape.dims[1], k = qd_attr_int(call->node, "k", 0);
    if (qd_tensor_bytes(out))
        memset(out->data, 0, qd_tensor_bytes(out));
    for (int64_t r = 0; r < rows && k > -rows && k < columns; r++) {
        if (r + k < 0 || r + k >= columns)
            continue;
        int64_t at = r * columns + r + k;
        if (out->dtype == QD_F32)
            ((float *)out->data)[at] = 1;
        else if (out->dtype == QD_F64)
            ((double *)out->data)[at] = 1;
        else if (qd_dtype_bytes(out->dtype) == 1)
            ((uint8_t *)out->data)[at] = 1;
        else if (qd_dtype_bytes(out->dtype) == 2)
            ((uint16_t *)out->data)[at] = 1;
        else if (qd_dtype_bytes(out->dtype) == 4)
            ((uint32_t *)out->data)[at] = 1;
        else
            ((uint64_t *)out->data)[at] = 1;
    }
    return QD_OK;
}

const struct qd_op qd_op_eye_like = {.flags = QD_OP_SHAPE_ONLY, .infer = eye_infer, .run = eye_run};

/* ------------------------------------------------------------------ ReverseSequence */

static enum qd_status reverse_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *x = &call->in[0].shape;
    int64_t time = qd_attr_int(call->node, "time_axis", 0), batch = qd_attr_int(call->node, "batch_axis", 1);
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_MOVED, error)) ||
        (status = qd_op_types(call, 1, QD_BIT(QD_I64), error)))
        return status;
    if (x->rank < 2 || time < 0 || time > 1 || batch != 1 - time || call->in[1].shape.rank != 1 ||
        call->in[1].shape.dims[0] != x->dims[batch])
        return qd_op_fail(call, error, QD_ERR_SHAPE, "its axes or sequence_lens don't fit the input");
    return qd_op_out(call, 0, call->in[0].dtype, x, error);
}

static enum qd_status reverse_run(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *x = &call->in[0].shape;
    bool time_first = qd_attr_int(call->node, "time_axis", 0) == 0;
    int64_t steps = x->dims[time_first ? 0 : 1], batch = x->dims[time_first ? 1 : 0];
    size_t bytes = (size_t)qd_shape_span(x, 2, x->rank) * qd_dtype_bytes(call->in[0].dtype);
    for (int64_t b = 0; b < batch; b++) {
        int64_t length = ((const int64_t *)call->in[1].data)[b];
        if (length < 0 || length > steps)
            return qd_op_fail(call, error, QD_ERR_INVALID, "sequence_lens has %" PRId64 " of %" PRId64 " steps", length,
                              steps);
        for (int64_t t = 0; t < steps && bytes; t++) {
            int64_t from = t < length ? length - 1 - t : t;
            memcpy((char *)call->out[0].data + (size_t)(time_first ? t * batch + b : b * steps + t) * bytes,
                   (const char *)call->in[0].data + (size_t)(time_first ? from * batch + b : b * steps + from) * bytes,
                   bytes);
        }
    }
    return QD_OK;
}

const struct qd_op qd_op_reverse_sequence = {.infer = reverse_infer, .run = reverse_run};
