/* What the operator families share. See helpers.h. */
#include "engine/ops/helpers.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static enum qd_status fail_at(const struct qd_node *node, struct qd_error *error, enum qd_status status,
                              const char *format, va_list list)
{
    char text[QD_ERROR_TEXT_BYTES], name[256];
    vsnprintf(text, sizeof text, format, list);
    return qd_fail(error, status, "%s: %s", qd_node_text(node, name, sizeof name), text);
}

enum qd_status qd_op_fail(const struct qd_call *call, struct qd_error *error, enum qd_status status, const char *format,
                          ...)
{
    va_list list;
    va_start(list, format);
    enum qd_status result = fail_at(call->node, error, status, format, list);
    va_end(list);
    return result;
}

enum qd_status qd_op_refuse(const struct qd_node *node, struct qd_error *error, enum qd_status status,
                            const char *format, ...)
{
    va_list list;
    va_start(list, format);
    enum qd_status result = fail_at(node, error, status, format, list);
    va_end(list);
    return result;
}

enum qd_status qd_op_no_memory(const struct qd_node *node, struct qd_error *error)
{
    return qd_op_refuse(node, error, QD_ERR_NO_MEMORY, "no memory for its attributes");
}

bool qd_broadcast(const struct qd_shape *a, const struct qd_shape *b, struct qd_shape *out)
{
    struct qd_shape result = {.rank = a->rank > b->rank ? a->rank : b->rank};
    for (int i = 1; i <= result.rank; i++) {
        int64_t x = i <= a->rank ? a->dims[a->rank - i] : 1, y = i <= b->rank ? b->dims[b->rank - i] : 1;
        if (x != y && x != 1 && y != 1)
            return false;
        result.dims[result.rank - i] = x == 1 ? y : x;
    }
    *out = result;
    return true;
}

/* ------------------------------------------------------------------ checks */

bool qd_op_has(const struct qd_call *call, int i) { return i < call->in_count && call->in[i].dtype != QD_NONE; }

bool qd_op_wants(const struct qd_call *call, int i)
{
    return i < call->out_count && (i >= call->node->out_count || call->node->out[i] != QD_NO_VALUE);
}

enum qd_status qd_op_inputs(const struct qd_call *call, int least, int most, struct qd_error *error)
{
    if (call->in_count > most)
        return qd_op_fail(call, error, QD_ERR_INVALID, "has %d inputs, at most %d are allowed", call->in_count, most);
    for (int i = 0; i < least; i++)
        if (!qd_op_has(call, i))
            return qd_op_fail(call, error, QD_ERR_INVALID, "input %d is missing", i);
    if (call->out_count < 1 || !qd_op_wants(call, 0))
        return qd_op_fail(call, error, QD_ERR_INVALID, "has no output");
    return QD_OK;
}

enum qd_status qd_op_types(const struct qd_call *call, int i, unsigned set, struct qd_error *error)
{
    if (!qd_op_has(call, i) || set & QD_BIT(call->in[i].dtype))
        return QD_OK;
    return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "input %d of type %s is not supported", i,
                      qd_dtype_name(call->in[i].dtype));
}

enum qd_status qd_op_same_type(const struct qd_call *call, int i, int j, struct qd_error *error)
{
    if (call->in[i].dtype == call->in[j].dtype)
        return QD_OK;
    return qd_op_fail(call, error, QD_ERR_TYPE, "inputs %d and %d have types %s and %s, which must be the same", i, j,
                      qd_dtype_name(call->in[i].dtype), qd_dtype_name(call->in[j].dtype));
}

enum qd_status qd_op_axis(const struct qd_call *call, int64_t *axis, int rank, struct qd_error *error)
{
    if (*axis < -(int64_t)rank || *axis >= rank)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "axis %" PRId64 " is out of range for rank %d", *axis, rank);
    *axis += *axis < 0 ? rank : 0;
    return QD_OK;
}

enum qd_status qd_op_out(const struct qd_call *call, int i, enum qd_dtype dtype, const struct qd_shape *shape,
                         struct qd_error *error)
{
    int64_t elems = 0, bytes = 0;
    char text[160];
    if (!qd_shape_elems(shape, &elems) || !qd_i64_mul(elems, (int64_t)qd_dtype_bytes(dtype), &bytes) ||
        bytes > PTRDIFF_MAX)
        return qd_op_fail(call, error, QD_ERR_TOO_LARGE, "output %d of shape %s is too large", i,
                          qd_shape_text(shape, text, sizeof text));
    call->out[i].dtype = dtype;
    call->out[i].layout = QD_PLAIN;
    call->out[i].shape = *shape;
    return QD_OK;
}

enum qd_status qd_op_ints(const struct qd_call *call, int i, int64_t *out, size_t room, size_t *count,
                          struct qd_error *error)
{
    const struct qd_tensor *in = &call->in[i];
    if (!(QD_TYPES_INDEX & QD_BIT(in->dtype)))
        return qd_op_fail(call, error, QD_ERR_TYPE, "input %d must be INT64 or INT32, not %s", i,
                          qd_dtype_name(in->dtype));
    if (in->shape.rank > 1)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "input %d must be a list, not of rank %d", i, in->shape.rank);
    *count = (size_t)qd_tensor_elems(in);
    if (*count > room)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "input %d has %zu elements, at most %zu make sense", i, *count,
                          room);
    if (*count == 0)
        return QD_OK;
    if (!in->data)
        return QD_ERR_NEEDS_DATA;
    for (size_t j = 0; j < *count; j++)
        out[j] = in->dtype == QD_I64 ? ((const int64_t *)in->data)[j] : ((const int32_t *)in->data)[j];
    return QD_OK;
}

enum qd_status qd_op_scalar(const struct qd_call *call, int i, double *out, struct qd_error *error)
{
    const struct qd_tensor *in = &call->in[i];
    if (qd_tensor_elems(in) != 1)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "input %d must have one element", i);
    if (!in->data)
        return QD_ERR_NEEDS_DATA;
    switch (in->dtype) {
    case QD_F32:
        *out = (double)*(const float *)in->data;
        break;
    case QD_F64:
        *out = *(const double *)in->data;
        break;
    case QD_I64:
        *out = (double)*(const int64_t *)in->data;
        break;
    case QD_I32:
        *out = (double)*(const int32_t *)in->data;
        break;
    case QD_I16:
        *out = (double)*(const int16_t *)in->data;
        break;
    case QD_I8:
        *out = (double)*(const int8_t *)in->data;
        break;
    case QD_U64:
        *out = (double)*(const uint64_t *)in->data;
        break;
    case QD_U32:
        *out = (double)*(const uint32_t *)in->data;
        break;
    case QD_U16:
        *out = (double)*(const uint16_t *)in->data;
        break;
    case QD_U8:
    case QD_BOOL:
        *out = (double)*(const uint8_t *)in->data;
        break;
    default:
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "input %d of type %s is not supported", i,
                          qd_dtype_name(in->dtype));
    }
    return QD_OK;
}

enum qd_status qd_op_recheck(const struct qd_call *call,
                             enum qd_status (*infer)(const struct qd_call *, struct qd_error *), struct qd_error *error)
{
    struct qd_tensor now[QD_MAX_OUTPUTS] = {0};
    struct qd_call copy = *call;
    if (call->out_count > QD_MAX_OUTPUTS)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "has more than %d outputs", QD_MAX_OUTPUTS);
    copy.out = now;
    enum qd_status status = infer(&copy, error);
    if (status)
        return status;
    for (int i = 0; i < call->out_count; i++)
        if (qd_op_wants(call, i) && !qd_shape_equal(&now[i].shape, &call->out[i].shape))
            return qd_op_fail(call, error, QD_ERR_SHAPE, "the shape of output %d is not the planned one", i);
    return QD_OK;
}

/* ------------------------------------------------------------------ work */

void qd_op_copy(void *out, const void *in, size_t bytes)
{
    if (bytes && out != in)
        memcpy(out, in, bytes);
}

unsigned qd_op_threads(const struct qd_call *call)
{
    return call->parallel && call->parallel->threads > 1 ? call->parallel->threads : 1;
}

struct split {
    void (*fn)(void *ctx, int64_t begin, int64_t end);
    void *ctx;
    int64_t items, each;
};

static void split_task(void *ctx, size_t task)
{
    const struct split *split = ctx;
    int64_t begin = (int64_t)task * split->each, left = split->items - begin;
    split->fn(split->ctx, begin, begin + (left < split->each ? left : split->each));
}

void qd_op_split(const struct qd_call *call, int64_t items, int64_t grain,
                 void (*fn)(void *ctx, int64_t begin, int64_t end), void *ctx)
{
    if (items <= 0)
        return;
    int64_t tasks = items / (grain > 0 ? grain : 1), most = 4 * (int64_t)qd_op_threads(call);
    tasks = tasks < most ? tasks : most;
    if (qd_op_threads(call) == 1 || tasks <= 1) {
        fn(ctx, 0, items);
        return;
    }
    struct split split = {fn, ctx, items, (items - 1) / tasks + 1};
    tasks = (items - 1) / split.each + 1; /* rounding up may leave fewer */
    call->parallel->run(call->parallel, (size_t)tasks, split_task, &split);
}

/* ------------------------------------------------------------------ walks */

void qd_op_strides(const struct qd_shape *shape, int64_t strides[QD_MAX_RANK])
{
    int64_t stride = 1;
    for (int i = shape->rank - 1; i >= 0; i--) {
        strides[i] = stride;
        stride *= shape->dims[i];
    }
}

void qd_walk_begin(struct qd_walk *walk, const struct qd_shape *out)
{
    memset(walk, 0, sizeof *walk);
    walk->rank = out->rank;
    walk->elems = qd_shape_span(out, 0, out->rank);
    memcpy(walk->dims, out->dims, (size_t)out->rank * sizeof out->dims[0]);
}

void qd_walk_operand(struct qd_walk *walk, const int64_t *strides)
{
    memcpy(walk->strides[walk->operands++], strides, (size_t)walk->rank * sizeof strides[0]);
}

void qd_walk_broadcast(struct qd_walk *walk, const struct qd_shape *shape)
{
    int64_t own[QD_MAX_RANK] = {0}, strides[QD_MAX_RANK] = {0};
    qd_op_strides(shape, own);
    for (int i = 1; i <= shape->rank; i++)
        strides[walk->rank - i] = shape->dims[shape->rank - i] == 1 ? 0 : own[shape->rank - i];
    qd_walk_operand(walk, strides);
}

/* Dimension i can be joined with the one before it when every operand steps over the border evenly. */
static bool joins(const struct qd_walk *walk, int before, int i)
{
    for (int k = 0; k < walk->operands; k++)
        if (walk->strides[k][before] != walk->strides[k][i] * walk->dims[i])
            return false;
    return true;
}

void qd_walk_join(struct qd_walk *walk)
{
    int last = -1;
    for (int i = 0; i < walk->rank && walk->elems; i++) {
        if (walk->dims[i] == 1)
            continue;
        bool join = last >= 0 && joins(walk, last, i);
        int64_t dim = walk->dims[i] * (join ? walk->dims[last] : 1);
        last += join ? 0 : 1;
        walk->dims[last] = dim;
        for (int k = 0; k < walk->operands; k++)
            walk->strides[k][last] = walk->strides[k][i];
    }
    if (last < 0) {
        walk->dims[0] = walk->elems;
        for (int k = 0; k < walk->operands; k++)
            walk->strides[k][0] = 0;
        last = 0;
    }
    walk->rank = last + 1;
}

struct walk_work {
    const struct qd_walk *walk;
    void (*piece)(void *ctx, int64_t out_at, const int64_t *at, int64_t n);
    void *ctx;
};

static void walk_range(void *ctx, int64_t begin, int64_t end)
{
    const struct walk_work *work = ctx;
    const struct qd_walk *w = work->walk;
    int inner = w->rank - 1;
    int64_t index[QD_MAX_RANK], at[QD_WALK_OPERANDS] = {0}, rest = begin;
    for (int i = inner; i >= 0; i--) {
        index[i] = rest % w->dims[i];
        rest /= w->dims[i];
        for (int k = 0; k < w->operands; k++)
            at[k] += index[i] * w->strides[k][i];
    }
    while (begin < end) {
        int64_t n = w->dims[inner] - index[inner];
        n = n < end - begin ? n : end - begin;
        work->piece(work->ctx, begin, at, n);
        begin += n;
        index[inner] += n;
        for (int k = 0; k < w->operands; k++)
            at[k] += n * w->strides[k][inner];
        for (int i = inner; i > 0 && index[i] == w->dims[i]; i--) {
            index[i] = 0;
            index[i - 1]++;
            for (int k = 0; k < w->operands; k++)
                at[k] += w->strides[k][i - 1] - w->dims[i] * w->strides[k][i];
        }
    }
}

void qd_walk_run(const struct qd_walk *walk, const struct qd_call *call,
                 void (*piece)(void *ctx, int64_t out_at, const int64_t *at, int64_t n), void *ctx)
{
    struct walk_work work = {walk, piece, ctx};
    qd_op_split(call, walk->elems, 16384, walk_range, &work);
}

struct copy {
    const void *in;
    void *out;
    size_t elem_bytes;
    int64_t stride;
};

#define COPY(name, type)                                                                                               \
    static void copy_##name(void *ctx, int64_t out_at, const int64_t *at, int64_t n)                                   \
    {                                                                                                                  \
        const struct copy *c = ctx;                                                                                    \
        const type *in = (const type *)c->in + at[0];                                                                  \
        type *out = (type *)c->out + out_at;                                                                           \
        for (int64_t i = 0, j = 0; i < n; i++, j += c->stride)                                                         \
            out[i] = in[j];                                                                                            \
    }
COPY(1, uint8_t)
COPY(2, uint16_t)
COPY(4, uint32_t)
COPY(8, uint64_t)
COPY(16, struct qd_string)

static void copy_dense(void *ctx, int64_t out_at, const int64_t *at, int64_t n)
{
    const struct copy *c = ctx;
    int64_t bytes = (int64_t)c->elem_bytes; /* offsets into the input are negative in a walk backwards */
    memcpy((char *)c->out + out_at * bytes, (const char *)c->in + at[0] * bytes, (size_t)(n * bytes));
}

void qd_walk_copy(const struct qd_walk *walk, const struct qd_call *call, const void *in, void *out, size_t elem_bytes)
{
    static void (*const copies[17])(void *, int64_t, const int64_t *,
                                    int64_t) = {[1] = copy_1, [2] = copy_2, [4] = copy_4, [8] = copy_8, [16] = copy_16};
    struct copy copy = {in, out, elem_bytes, walk->strides[0][walk->rank - 1]};
    qd_walk_run(walk, call, copy.stride == 1 ? copy_dense : copies[elem_bytes], &copy);
}
