/* Reductions over any set of axes: ReduceSum, -Mean, -Max, -Min, -Prod, -L1, -L2, -SumSquare, -LogSum, -LogSumExp, and
 * ArgMax, ArgMin. Dimensions that lie together are reduced by the row kernels; other floats are summed in double in the
 * order of the input. Neither depends on threads. */
#include "engine/ops/helpers.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum reduce_kind { SUM, MEAN, PROD, MAX, MIN, L1, L2, SUM_SQUARE, LOG_SUM, LOG_SUM_EXP };

static const struct reduce_row {
    const char *op;
    enum reduce_kind kind;
    int64_t axes_input_since; /* opset from which the axes are input 1 */
} rows[] = {
    {"ReduceSum", SUM, 13},        {"ReduceMean", MEAN, 18},
    {"ReduceProd", PROD, 18},      {"ReduceMax", MAX, 18},
    {"ReduceMin", MIN, 18},        {"ReduceL1", L1, 18},
    {"ReduceL2", L2, 18},          {"ReduceSumSquare", SUM_SQUARE, 18},
    {"ReduceLogSum", LOG_SUM, 18}, {"ReduceLogSumExp", LOG_SUM_EXP, 18},
};

struct reduce {
    const struct reduce_row *row;
    bool keep, none_is_none; /* keepdims, noop_with_empty_axes */
};

static enum qd_status reduce_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                     struct qd_error *error)
{
    struct reduce *reduce = QD_PREP_NEW(arena, struct reduce);
    if (!reduce)
        return qd_op_no_memory(node, error);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(rows[i].op, node->op) == 0)
            reduce->row = &rows[i];
    if (!reduce->row)
        return qd_op_refuse(node, error, QD_ERR_INTERNAL, "has no row in the table of reductions");
    reduce->keep = qd_attr_int(node, "keepdims", 1) != 0;
    reduce->none_is_none = qd_attr_int(node, "noop_with_empty_axes", 0) != 0;
    *prep = reduce;
    return QD_OK;
}

/* The reduced axes as a set of bits. */
static enum qd_status reduce_axes(const struct qd_call *call, unsigned *set, struct qd_error *error)
{
    const struct reduce *reduce = call->prep;
    int rank = call->in[0].shape.rank;
    int64_t axes[QD_MAX_RANK];
    size_t count = 0;
    enum qd_status status = QD_OK;
    if (call->node->opset < reduce->row->axes_input_since) {
        const int64_t *attr = qd_attr_ints(call->node, "axes", &count);
        if (count > QD_MAX_RANK)
            return qd_op_fail(call, error, QD_ERR_SHAPE, "has %zu axes, at most %d make sense", count, QD_MAX_RANK);
        if (count)
            memcpy(axes, attr, count * sizeof axes[0]);
    } else if (qd_op_has(call, 1)) {
        status = qd_op_ints(call, 1, axes, QD_MAX_RANK, &count, error);
    }
    *set = count || reduce->none_is_none ? 0 : (1u << rank) - 1;
    for (size_t i = 0; i < count && !status; i++) {
        if (!(status = qd_op_axis(call, &axes[i], rank, error)))
            *set |= 1u << axes[i];
    }
    return status;
}

static void reduced_shape(const struct qd_shape *in, unsigned set, bool keep, struct qd_shape *out)
{
    out->rank = 0;
    for (int i = 0; i < in->rank; i++)
        if (keep || !(set >> i & 1))
            out->dims[out->rank++] = set >> i & 1 ? 1 : in->dims[i];
}

static enum qd_status reduce_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct reduce *reduce = call->prep;
    unsigned set = 0, types = QD_TYPES_FLOAT | QD_BIT(QD_F64) | QD_TYPES_INDEX;
    if (reduce->row->kind == MAX || reduce->row->kind == MIN)
        types |= QD_BIT(QD_U8) | QD_BIT(QD_I8) | (call->node->opset >= 20 ? QD_BIT(QD_BOOL) : 0u);
    struct qd_shape out;
    enum qd_status status = qd_op_inputs(call, 1, call->node->opset < reduce->row->axes_input_since ? 1 : 2, error);
    if (status || (status = qd_op_types(call, 0, types, error)) || (status = reduce_axes(call, &set, error)))
        return status;
    reduced_shape(&call->in[0].shape, set, reduce->keep, &out);
    status = qd_op_out(call, 0, call->in[0].dtype, &out, error);
    if (reduce->keep)
        call->out[0].layout = call->in[0].layout;
    return status;
}

struct reduce_work {
    const struct qd_call *call;
    enum reduce_kind kind;
    int kept, gone; /* number of dimensions kept and reduced */
    int64_t kept_dims[QD_MAX_RANK], kept_strides[QD_MAX_RANK];
    int64_t gone_dims[QD_MAX_RANK], gone_strides[QD_MAX_RANK];
    int64_t count; /* elements reduced to one */
};

/* Calls BODY for each reduced element in order, with `at` its index. */
#define EACH(w, base, BODY)                                                                                            \
    do {                                                                                                               \
        int64_t index_[QD_MAX_RANK] = {0}, at = (base);                                                                \
        for (int64_t i_ = 0; i_ < (w)->count; i_++) {                                                                  \
            BODY;                                                                                                      \
            for (int d_ = (w)->gone - 1; d_ >= 0; d_--) {                                                              \
                at += (w)->gone_strides[d_];                                                                           \
                if (++index_[d_] < (w)->gone_dims[d_])                                                                 \
                    break;                                                                                             \
                at -= (w)->gone_strides[d_] * (w)->gone_dims[d_];                                                      \
                index_[d_] = 0;                                                                                        \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

static int64_t base_of(const struct reduce_work *w, int64_t o)
{
    int64_t at = 0;
    for (int d = w->kept - 1; d >= 0; d--) {
        at += o % w->kept_dims[d] * w->kept_strides[d];
        o /= w->kept_dims[d];
    }
    return at;
}

#define REDUCE_REAL(name, type)                                                                                        \
    static type name(const struct reduce_work *w, int64_t base)                                                        \
    {                                                                                                                  \
        const type *x = w->call->in[0].data;                                                                           \
        double sum = 0, most = -INFINITY;                                                                              \
        switch (w->kind) {                                                                                             \
        case SUM:                                                                                                      \
            EACH(w, base, sum += (double)x[at]);                                                                       \
            return (type)sum;                                                                                          \
        case MEAN:                                                                                                     \
            EACH(w, base, sum += (double)x[at]);                                                                       \
            return (type)(sum / (double)w->count);                                                                     \
        case LOG_SUM:                                                                                                  \
            EACH(w, base, sum += (double)x[at]);                                                                       \
            return (type)log(sum);                                                                                     \
        case L1:                                                                                                       \
            EACH(w, base, sum += fabs((double)x[at]));                                                                 \
            return (type)sum;                                                                                          \
        case L2:                                                                                                       \
            EACH(w, base, sum += (double)x[at] * (double)x[at]);                                                       \
            return (type)sqrt(sum);                                                                                    \
        case SUM_SQUARE:                                                                                               \
            EACH(w, base, sum += (double)x[at] * (double)x[at]);                                                       \
            return (type)sum;                                                                                          \
        case PROD:                                                                                                     \
            sum = 1;                                                                                                   \
            EACH(w, base, sum *= (double)x[at]);                                                                       \
            return (type)sum;                                                                                          \
        case MAX:                                                                                                      \
            EACH(w, base, most = (double)x[at] > most || isnan(x[at]) ? (double)x[at] : most);                         \
            return (type)most;                                                                                         \
        case MIN:                                                                                                      \
            most = INFINITY;                                                                                           \
            EACH(w, base, most = (double)x[at] < most || isnan(x[at]) ? (double)x[at] : most);                         \
            return (type)most;                                                                                         \
        case LOG_SUM_EXP:                                                                                              \
            EACH(w, base, most = (double)x[at] > most ? (double)x[at] : most);                                         \
            if (!isfinite(most))                                                                                       \
                return (type)most;                                                                                     \
            EACH(w, base, sum += exp((double)x[at] - most));                                                           \
            return (type)(most + log(sum));                                                                            \
        }                                                                                                              \
        return 0;                                                                                                      \
    }
REDUCE_REAL(reduce_f32, float)
REDUCE_REAL(reduce_f64, double)

/* Truncated, within int32 (roots and logarithms of integers seldom get there), 0 for NaN. */
static int32_t int_of(double v)
{
    if (v > -2147483648.0 && v < 2147483647.0)
        return (int32_t)v;
    return v > 0 ? INT32_MAX : v < 0 ? INT32_MIN : 0;
}

/* Integers: exact modulo 2^64; means truncate; what goes through a logarithm or a root is computed in double. */
#define REDUCE_INT(name, type, least, greatest)                                                                        \
    static type name(const struct reduce_work *w, int64_t base)                                                        \
    {                                                                                                                  \
        const type *x = w->call->in[0].data;                                                                           \
        uint64_t sum = 0;                                                                                              \
        double real = 0;                                                                                               \
        type best = w->kind == MAX ? (least) : (greatest);                                                             \
        switch (w->kind) {                                                                                             \
        case SUM:                                                                                                      \
            EACH(w, base, sum += (uint64_t)x[at]);                                                                     \
            return (type)sum;                                                                                          \
        case MEAN:                                                                                                     \
            EACH(w, base, sum += (uint64_t)x[at]);                                                                     \
            return (type)(w->count ? (int64_t)sum / w->count : 0);                                                     \
        case L1:                                                                                                       \
            EACH(w, base, sum += (uint64_t)(x[at] < 0 ? 0 - (uint64_t)x[at] : (uint64_t)x[at]));                       \
            return (type)sum;                                                                                          \
        case SUM_SQUARE:                                                                                               \
            EACH(w, base, sum += (uint64_t)x[at] * (uint64_t)x[at]);                                                   \
            return (type)sum;                                                                                          \
        case PROD:                                                                                                     \
            sum = 1;                                                                                                   \
            EACH(w, base, sum *= (uint64_t)x[at]);                                                                     \
            return (type)sum;                                                                                          \
        case MAX:                                                                                                      \
            EACH(w, base, best = x[at] > best ? x[at] : best);                                                         \
            return best;                                                                                               \
        case MIN:                                                                                                      \
            EACH(w, base, best = x[at] < best ? x[at] : best);                                                         \
            return best;                                                                                               \
        case L2:                                                                                                       \
            EACH(w, base, real += (double)x[at] * (double)x[at]);                                                      \
            return (type)int_of(sqrt(real));                                                                           \
        case LOG_SUM:                                                                                                  \
            EACH(w, base, real += (double)x[at]);                                                                      \
            return (type)int_of(log(real));                                                                            \
        case LOG_SUM_EXP:                                                                                              \
            EACH(w, base, real += exp((double)x[at]));                                                                 \
            return (type)int_of(log(real));                                                                            \
        }                                                                                                              \
        return 0;                                                                                                      \
    }

REDUCE_INT(reduce_i64, int64_t, INT64_MIN, INT64_MAX)
REDUCE_INT(reduce_i32, int32_t, INT32_MIN, INT32_MAX)
REDUCE_INT(reduce_i8, int8_t, INT8_MIN, INT8_MAX)
REDUCE_INT(reduce_u8, uint8_t, 0, UINT8_MAX)

static void reduce_part(void *ctx, int64_t begin, int64_t end)
{
    const struct reduce_work *w = ctx;
    void *out = w->call->out[0].data;
    for (int64_t o = begin; o < end; o++) {
        int64_t base = base_of(w, o);
        switch (w->call->in[0].dtype) {
        case QD_F32:
            ((float *)out)[o] = reduce_f32(w, base);
            break;
        case QD_F64:
            ((double *)out)[o] = reduce_f64(w, base);
            break;
        case QD_I64:
            ((int64_t *)out)[o] = reduce_i64(w, base);
            break;
        case QD_I32:
            ((int32_t *)out)[o] = reduce_i32(w, base);
            break;
        case QD_I8:
            ((int8_t *)out)[o] = reduce_i8(w, base);
            break;
        case QD_BOOL: /* an empty set of a Min is true, not 255 */
            ((uint8_t *)out)[o] = reduce_u8(w, base) != 0;
            break;
        default:
            ((uint8_t *)out)[o] = reduce_u8(w, base);
            break;
        }
    }
}

/* Dimensions in the order of memory, and the set of reduced ones likewise: channels last is a plain tensor of another
 * shape, and so is its result. */
static struct qd_shape in_memory(const struct qd_tensor *in, unsigned *set)
{
    struct qd_shape shape = in->shape;
    int last = shape.rank - 1;
    if (in->layout != QD_CHANNELS_LAST)
        return shape;
    for (int i = 1; i < last; i++)
        shape.dims[i] = in->shape.dims[i + 1];
    shape.dims[last] = in->shape.dims[1];
    *set = (*set & 1u) | (*set >> 1 & ((1u << last) - 2u)) | (*set >> 1 & 1u) << last;
    return shape;
}

/* ------------------------------------------------------------------ by the row kernels */

/* F32 in memory [outer, count, inner], reduced over count; inner 1: rows. */
struct reduce_block {
    const struct qd_call *call;
    enum reduce_kind kind;
    enum qd_reduction reduction;
    int64_t outer, count, inner;
};

static const struct {
    enum reduce_kind kind;
    enum qd_reduction reduction;
} by_kernel[] = {
    {SUM, QD_SUM_OF}, {MEAN, QD_SUM_OF},   {LOG_SUM, QD_SUM_OF},    {MAX, QD_MAX_OF},
    {MIN, QD_MIN_OF}, {L1, QD_SUM_OF_ABS}, {L2, QD_SUM_OF_SQUARES}, {SUM_SQUARE, QD_SUM_OF_SQUARES},
};

enum { SHORT_ROW = 16, COLUMNS = 128 }; /* rows that a kernel isn't worth; columns that one item of work has at most */

/* True when the reduced dimensions lie together and the kernels have the operation. */
static bool reduce_block(struct reduce_block *b, const struct qd_shape *in, unsigned set, enum reduce_kind kind)
{
    int state = 0; /* 0: before, 1: in, 2: behind the reduced dimensions */
    bool known = false;
    b->outer = b->count = b->inner = 1;
    b->kind = kind;
    for (size_t i = 0; i < sizeof by_kernel / sizeof by_kernel[0]; i++)
        if (by_kernel[i].kind == kind) {
            b->reduction = by_kernel[i].reduction;
            known = true;
        }
    for (int i = 0; i < in->rank; i++) {
        bool gone = set >> i & 1;
        if (in->dims[i] == 1)
            continue;
        if (gone && state == 2)
            return false;
        state = gone ? 1 : state ? 2 : 0;
        *(state == 0 ? &b->outer : state == 1 ? &b->count : &b->inner) *= in->dims[i];
    }
    if (b->inner == 1 && b->count < SHORT_ROW)
        return false;
    return known && b->outer > 0 && b->count > 0 && b->inner > 0;
}

static void reduce_finish(const struct reduce_block *b, float *out, int64_t n)
{
    float count = (float)b->count;
    for (int64_t i = 0; i < n && b->kind == MEAN; i++)
        out[i] /= count;
    for (int64_t i = 0; i < n && b->kind == L2; i++)
        out[i] = sqrtf(out[i]);
    for (int64_t i = 0; i < n && b->kind == LOG_SUM; i++)
        out[i] = logf(out[i]);
}

static void reduce_rows_part(void *ctx, int64_t begin, int64_t end)
{
    const struct reduce_block *b = ctx;
    float *out = (float *)b->call->out[0].data + begin;
    b->call->kernels->reduce_rows(b->reduction, (const float *)b->call->in[0].data + begin * b->count,
                                  (size_t)(end - begin), (size_t)b->count, out);
    reduce_finish(b, out, end - begin);
}

static void reduce_columns_part(void *ctx, int64_t begin, int64_t end)
{
    const struct reduce_block *b = ctx;
    int64_t pieces = (b->inner - 1) / COLUMNS + 1;
    for (int64_t i = begin; i < end; i++) {
        int64_t o = i / pieces, c = i % pieces * COLUMNS, n = b->inner - c < COLUMNS ? b->inner - c : COLUMNS;
        float *out = (float *)b->call->out[0].data + o * b->inner + c;
        b->call->kernels->reduce_columns(b->reduction, (const float *)b->call->in[0].data + o * b->count * b->inner + c,
                                         (size_t)b->count, (size_t)b->inner, (size_t)n, out);
        reduce_finish(b, out, n);
    }
}

static void run_block(struct reduce_block *b)
{
    if (b->inner == 1)
        qd_op_split(b->call, b->outer, 16384 / (b->count + 1) + 1, reduce_rows_part, b);
    else
        qd_op_split(b->call, b->outer * ((b->inner - 1) / COLUMNS + 1), 16384 / (b->count * COLUMNS) + 1,
                    reduce_columns_part, b);
}

/* ------------------------------------------------------------------ one by one */

/* Splits the dimensions into kept and reduced ones. */
static void reduce_plan(struct reduce_work *w, const struct qd_shape *in, unsigned set)
{
    int64_t strides[QD_MAX_RANK] = {0};
    qd_op_strides(in, strides);
    w->count = 1;
    for (int i = 0; i < in->rank; i++) {
        if (set >> i & 1) {
            w->gone_dims[w->gone] = in->dims[i];
            w->gone_strides[w->gone++] = strides[i];
            w->count *= in->dims[i];
        } else {
            w->kept_dims[w->kept] = in->dims[i];
            w->kept_strides[w->kept++] = strides[i];
        }
    }
}

static enum qd_status reduce_run(const struct qd_call *call, struct qd_error *error)
{
    const struct reduce *reduce = call->prep;
    struct reduce_work work = {.call = call, .kind = reduce->row->kind};
    unsigned set = 0;
    enum qd_status status = qd_op_has(call, 1) ? qd_op_recheck(call, reduce_infer, error) : QD_OK;
    if (status || (status = reduce_axes(call, &set, error)))
        return status;
    struct qd_shape shape = in_memory(&call->in[0], &set);
    struct reduce_block block = {.call = call};
    if (call->in[0].dtype == QD_F32 && reduce_block(&block, &shape, set, reduce->row->kind)) {
        run_block(&block);
        return QD_OK;
    }
    reduce_plan(&work, &shape, set);
    qd_op_split(call, qd_tensor_elems(&call->out[0]), 8192 / (work.count + 1) + 1, reduce_part, &work);
    return QD_OK;
}

/* With keepdims the result has the input's rank, so that it may lie channels last too. */
static const struct qd_op reduce_kept = {
    .flags = QD_OP_CHANNELS_LAST, .prepare = reduce_prepare, .infer = reduce_infer, .run = reduce_run};
static const struct qd_op reduce_gone = {.prepare = reduce_prepare, .infer = reduce_infer, .run = reduce_run};

static const struct qd_op *reduce_choose(const struct qd_node *node)
{
    return qd_attr_int(node, "keepdims", 1) ? &reduce_kept : &reduce_gone;
}

const struct qd_op qd_op_reduce = {
    .choose = reduce_choose, .prepare = reduce_prepare, .infer = reduce_infer, .run = reduce_run};

/* ------------------------------------------------------------------ ArgMax, ArgMin */

#define ARG_TYPES                                                                                                      \
    (QD_TYPES_FLOAT | QD_TYPES_INDEX | QD_BIT(QD_U8) | QD_BIT(QD_I8) | QD_BIT(QD_U16) | QD_BIT(QD_I16) |               \
     QD_BIT(QD_U32) | QD_BIT(QD_U64))

static enum qd_status arg_infer(const struct qd_call *call, struct qd_error *error)
{
    int64_t axis = qd_attr_int(call->node, "axis", 0);
    struct qd_shape out;
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, ARG_TYPES, error)) ||
        (status = qd_op_axis(call, &axis, call->in[0].shape.rank, error)))
        return status;
    if (call->in[0].shape.dims[axis] == 0)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "axis %" PRId64 " has no elements", axis);
    reduced_shape(&call->in[0].shape, 1u << axis, qd_attr_int(call->node, "keepdims", 1) != 0, &out);
    return qd_op_out(call, 0, QD_I64, &out, error);
}

#define ARG(name, type)                                                                                                \
    static int64_t name(const void *data, int64_t first, int64_t n, int64_t stride, bool most, bool last)              \
    {                                                                                                                  \
        const type *x = (const type *)data + first;                                                                    \
        int64_t best = 0;                                                                                              \
        for (int64_t i = 1; i < n; i++) {                                                                              \
            type v = x[i * stride], b = x[best * stride];                                                              \
            if ((most ? v > b : v < b) || (last && v == b))                                                            \
                best = i;                                                                                              \
        }                                                                                                              \
        return best;                                                                                                   \
    }
ARG(arg_f32, float)
ARG(arg_u8, uint8_t)
ARG(arg_i8, int8_t)
ARG(arg_u16, uint16_t)
ARG(arg_i16, int16_t)
ARG(arg_u32, uint32_t)
ARG(arg_i32, int32_t)
ARG(arg_u64, uint64_t)
ARG(arg_i64, int64_t)

static int64_t (*const args[QD_DTYPE_COUNT])(const void *, int64_t, int64_t, int64_t, bool, bool) = {
    [QD_F32] = arg_f32, [QD_U8] = arg_u8,   [QD_I8] = arg_i8,   [QD_U16] = arg_u16, [QD_I16] = arg_i16,
    [QD_U32] = arg_u32, [QD_I32] = arg_i32, [QD_U64] = arg_u64, [QD_I64] = arg_i64,
};

static enum qd_status arg_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct qd_tensor *in = &call->in[0];
    int64_t axis = qd_attr_int(call->node, "axis", 0);
    axis += axis < 0 ? in->shape.rank : 0;
    bool last = qd_attr_int(call->node, "select_last_index", 0) != 0, most = strcmp(call->node->op, "ArgMax") == 0;
    int64_t n = in->shape.dims[axis], inner = qd_shape_span(&in->shape, (int)axis + 1, in->shape.rank);
    int64_t *out = call->out[0].data;
    for (int64_t o = 0, count = qd_tensor_elems(&call->out[0]); o < count; o++) {
        int64_t at = o / inner * n * inner + o % inner;
        out[o] = args[in->dtype](in->data, at, n, inner, most, last);
    }
    return QD_OK;
}

const struct qd_op qd_op_arg = {.infer = arg_infer, .run = arg_run};
