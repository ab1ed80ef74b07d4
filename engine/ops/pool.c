/* Pools: MaxPool (float and 8 bit, with Indices) and AveragePool, plain or channels last. Not for the global ones
 * (pool_global.c). */
#include "engine/ops/carry.h"
#include "engine/ops/window.h"

#include <math.h>
#include <string.h>

struct pool {
    struct qd_window_attrs attrs;
    bool count_pads; /* AveragePool: count_include_pad */
    bool by_column;  /* MaxPool's storage_order 1, for Indices */
};

static enum qd_status pool_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                   struct qd_error *error)
{
    struct pool *pool = QD_PREP_NEW(arena, struct pool);
    if (!pool)
        return qd_op_no_memory(node, error);
    pool->count_pads = qd_attr_int(node, "count_include_pad", 0) != 0;
    pool->by_column = qd_attr_int(node, "storage_order", 0) != 0;
    *prep = pool;
    return qd_window_attrs(node, &pool->attrs, error);
}

static enum qd_status pool_window(const struct qd_call *call, struct qd_window *window, struct qd_shape *out,
                                  struct qd_error *error)
{
    const struct pool *pool = call->prep;
    const struct qd_shape *in = &call->in[0].shape;
    *out = *in;
    if ((size_t)in->rank != pool->attrs.kernel_count + 2)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "an input of rank %d doesn't fit a kernel_shape of %zu", in->rank,
                          pool->attrs.kernel_count);
    return qd_window_fit(call, &pool->attrs, in, pool->attrs.kernel, true, window, out, error);
}

/* ------------------------------------------------------------------ MaxPool */

static enum qd_status max_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_window window;
    struct qd_shape shape;
    const struct qd_tensor *in = &call->in[0];
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT | QD_BIT(QD_U8) | QD_BIT(QD_I8), error)) ||
        (status = pool_window(call, &window, &shape, error)))
        return status;
    bool last = in->layout == QD_CHANNELS_LAST;
    if (last && (in->dtype == QD_I8 || qd_op_wants(call, 1)))
        return qd_op_fail(call, error, QD_ERR_INTERNAL, "only FP32 and UINT8 without Indices run with channels last");
    if (qd_op_wants(call, 1) && (status = qd_op_out(call, 1, QD_I64, &shape, error)))
        return status;
    if ((status = qd_op_out(call, 0, in->dtype, &shape, error)))
        return status;
    call->out[0].layout = in->layout;
    return QD_OK;
}

struct pool_work {
    const struct qd_call *call;
    struct qd_window w;
    int64_t planes, tasks; /* channels last: output pixels, tasks with a table of `taps` pointers each */
    size_t taps;
};

/* Taps of dimension d up to the end of the padding, which rounding up may pass, for a window that starts at `start`. */
static int64_t taps_with_pads(const struct qd_window *w, int d, int64_t start)
{
    int64_t room = w->in[d] + w->after[d] - start, padded = room <= 0 ? 0 : (room - 1) / w->dilation[d] + 1;
    return padded < w->kernel[d] ? padded : w->kernel[d];
}

/* A window's maximum over a plane, and where it stands; a NaN wins. */
#define MAX_PLANES(name, type, lowest, newer)                                                                          \
    static void name(void *ctx, int64_t begin, int64_t end)                                                            \
    {                                                                                                                  \
        const struct pool_work *work = ctx;                                                                            \
        const struct qd_window *w = &work->w;                                                                          \
        int64_t plane = w->in[0] * w->in[1] * w->in[2], to = begin * w->out[0] * w->out[1] * w->out[2];                \
        int64_t *indices = qd_op_wants(work->call, 1) ? work->call->out[1].data : NULL;                                \
        type *out = work->call->out[0].data;                                                                           \
        for (int64_t p = begin; p < end; p++)                                                                          \
            for (int64_t o = 0; o < w->out[0] * w->out[1] * w->out[2]; o++, to++) {                                    \
                const type *in = (const type *)work->call->in[0].data + p * plane;                                     \
                int64_t pos[3] = {o / w->out[2] / w->out[1], o / w->out[2] % w->out[1], o % w->out[2]}, a[3], b[3],    \
                        s[3];                                                                                          \
                for (int d = 0; d < 3; d++) {                                                                          \
                    qd_window_taps(w, d, pos[d], &a[d], &b[d]);                                                        \
                    s[d] = pos[d] * w->stride[d] - w->before[d];                                                       \
                }                                                                                                      \
                type best = lowest;                                                                                    \
                int64_t at = -1;                                                                                       \
                for (int64_t z = a[0]; z < b[0]; z++)                                                                  \
                    for (int64_t y = a[1]; y < b[1]; y++)                                                              \
                        for (int64_t x = a[2]; x < b[2]; x++) {                                                        \
                            int64_t i = ((s[0] + z * w->dilation[0]) * w->in[1] + s[1] + y * w->dilation[1]) *         \
                                            w->in[2] +                                                                 \
                                        s[2] + x * w->dilation[2];                                                     \
                            type v = in[i];                                                                            \
                            if (at < 0 || newer) {                                                                     \
                                best = v;                                                                              \
                                at = i;                                                                                \
                            }                                                                                          \
                        }                                                                                              \
                out[to] = best;                                                                                        \
                if (indices)                                                                                           \
                    indices[to] = at < 0 ? -1 : p * plane + place_of(work, at);                                        \
            }                                                                                                          \
    }

/* Index within a plane as Indices wants it: rows first, or (storage_order 1) columns first. */
static int64_t place_of(const struct pool_work *work, int64_t at)
{
    const struct qd_window *w = &work->w;
    if (!((const struct pool *)work->call->prep)->by_column)
        return at;
    int64_t x = at % w->in[2], y = at / w->in[2] % w->in[1], z = at / w->in[2] / w->in[1];
    return (x * w->in[1] + y) * w->in[0] + z;
}

MAX_PLANES(max_f32, float, -INFINITY, v > best || (isnan(v) && !isnan(best)))
MAX_PLANES(max_u8, uint8_t, 0, v > best)
MAX_PLANES(max_i8, int8_t, INT8_MIN, v > best)

/* Channels last: the rows of the input under the window of an output pixel; returns how many. *count: taps that an
 * average divides by. */
static size_t rows_under(const struct pool_work *work, int64_t pixel, bool count_pads, const unsigned char **rows,
                         int64_t *count)
{
    const struct qd_window *w = &work->w;
    const struct qd_tensor *t = &work->call->in[0];
    size_t row_bytes = (size_t)t->shape.dims[1] * qd_dtype_bytes(t->dtype), n = 0;
    int64_t per_image = w->out[0] * w->out[1] * w->out[2], image = w->in[0] * w->in[1] * w->in[2];
    int64_t o = pixel % per_image, a[3], b[3], s[3];
    int64_t pos[3] = {o / w->out[2] / w->out[1], o / w->out[2] % w->out[1], o % w->out[2]};
    const unsigned char *in = (const unsigned char *)t->data + (size_t)(pixel / per_image * image) * row_bytes;
    *count = 1;
    for (int d = 0; d < 3; d++) {
        qd_window_taps(w, d, pos[d], &a[d], &b[d]);
        s[d] = pos[d] * w->stride[d] - w->before[d];
        *count *= count_pads ? taps_with_pads(w, d, s[d]) : b[d] - a[d];
    }
    for (int64_t z = a[0]; z < b[0]; z++)
        for (int64_t y = a[1]; y < b[1]; y++)
            for (int64_t x = a[2]; x < b[2]; x++)
                rows[n++] = in +
                            (size_t)(((s[0] + z * w->dilation[0]) * w->in[1] + s[1] + y * w->dilation[1]) * w->in[2] +
                                     s[2] + x * w->dilation[2]) *
                                row_bytes;
    return n;
}

/* Pixels of task `task` of all: [*begin, *end). */
static void pixels_of(const struct pool_work *work, int64_t task, int64_t *begin, int64_t *end)
{
    int64_t each = work->planes / work->tasks, more = work->planes % work->tasks;
    *begin = task * each + (task < more ? task : more);
    *end = *begin + each + (task < more);
}

/* Tasks begin..end, each with its own table of row pointers in scratch. */
static void max_channels_last(void *ctx, int64_t begin, int64_t end)
{
    const struct pool_work *work = ctx;
    const struct qd_call *call = work->call;
    size_t c = (size_t)call->in[0].shape.dims[1];
    for (int64_t task = begin; task < end; task++) {
        const unsigned char **rows = (const unsigned char **)call->scratch + (size_t)task * work->taps;
        int64_t pixel, last, count;
        for (pixels_of(work, task, &pixel, &last); pixel < last; pixel++) {
            size_t n = rows_under(work, pixel, false, rows, &count), at = (size_t)pixel * c;
            if (call->in[0].dtype == QD_U8 && n)
                call->kernels->max_rows_u8(rows, n, c, (uint8_t *)call->out[0].data + at);
            else if (call->in[0].dtype == QD_U8)
                memset((uint8_t *)call->out[0].data + at, 0, c);
            else if (n)
                call->kernels->max_rows_f32((const float *const *)(const void *)rows, n, c,
                                            (float *)call->out[0].data + at);
            else
                for (size_t i = 0; i < c; i++)
                    ((float *)call->out[0].data)[at + i] = -INFINITY;
        }
    }
}

/* Row pointers one task needs at most: taps that fall into the input. */
static size_t most_taps(const struct qd_window *w)
{
    size_t taps = 1;
    for (int d = 0; d < 3; d++)
        taps *= (size_t)(w->kernel[d] < w->in[d] ? w->kernel[d] : w->in[d]);
    return taps;
}

static size_t max_scratch(const struct qd_call *call)
{
    struct qd_window window;
    struct qd_shape shape;
    if (call->in[0].layout != QD_CHANNELS_LAST || pool_window(call, &window, &shape, NULL))
        return 0;
    return most_taps(&window) * sizeof(void *) * qd_op_threads(call);
}

static enum qd_status max_run(const struct qd_call *call, struct qd_error *error)
{
    struct pool_work work = {.call = call};
    struct qd_shape shape;
    enum qd_status status = pool_window(call, &work.w, &shape, error);
    if (status || qd_tensor_elems(&call->out[0]) == 0)
        return status;
    if (call->in[0].layout == QD_CHANNELS_LAST) {
        work.planes = shape.dims[0] * work.w.out[0] * work.w.out[1] * work.w.out[2];
        work.tasks = qd_op_threads(call);
        work.taps = most_taps(&work.w);
        qd_op_split(call, work.tasks, 1, max_channels_last, &work);
        return QD_OK;
    }
    void (*fn)(void *, int64_t, int64_t) = call->in[0].dtype == QD_F32  ? max_f32
                                           : call->in[0].dtype == QD_U8 ? max_u8
                                                                        : max_i8;
    qd_op_split(call, shape.dims[0] * shape.dims[1], 4, fn, &work);
    return QD_OK;
}

const struct qd_op qd_op_max_pool = {.flags = QD_OP_MOVES | QD_OP_CHANNELS_LAST,
                                     .prepare = pool_prepare,
                                     .infer = max_infer,
                                     .scratch = max_scratch,
                                     .run = max_run};

/* ------------------------------------------------------------------ AveragePool */

static enum qd_status average_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_window window;
    struct qd_shape shape;
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)) ||
        (status = pool_window(call, &window, &shape, error)))
        return status;
    status = qd_op_out(call, 0, QD_F32, &shape, error);
    call->out[0].layout = call->in[0].layout;
    return status;
}

/* The mean of one window of a plane that starts at element `plane_at`. */
static float mean_at(const struct pool_work *work, int64_t plane_at, int64_t o)
{
    const struct qd_window *w = &work->w;
    const struct qd_qparams *qp = qd_carry_in(work->call, 0);
    bool count_pads = ((const struct pool *)work->call->prep)->count_pads;
    int64_t a[3], b[3], s[3], count = 1;
    int64_t pos[3] = {o / w->out[2] / w->out[1], o / w->out[2] % w->out[1], o % w->out[2]};
    for (int d = 0; d < 3; d++) {
        qd_window_taps(w, d, pos[d], &a[d], &b[d]);
        s[d] = pos[d] * w->stride[d] - w->before[d];
        count *= count_pads ? taps_with_pads(w, d, s[d]) : b[d] - a[d];
    }
    double sum = 0;
    for (int64_t z = a[0]; z < b[0]; z++)
        for (int64_t y = a[1]; y < b[1]; y++)
            for (int64_t x = a[2]; x < b[2]; x++) {
                int64_t at = plane_at + s[2] + x * w->dilation[2] +
                             ((s[0] + z * w->dilation[0]) * w->in[1] + s[1] + y * w->dilation[1]) * w->in[2];
                sum += qp ? (double)qd_dequantize_one(((const uint8_t *)work->call->in[0].data)[at], qp)
                          : (double)((const float *)work->call->in[0].data)[at];
            }
    return (float)(sum / (double)count);
}

static void average_planes(void *ctx, int64_t begin, int64_t end, struct qd_observation *seen)
{
    const struct pool_work *work = ctx;
    const struct qd_window *w = &work->w;
    int64_t each = w->out[0] * w->out[1] * w->out[2], plane = w->in[0] * w->in[1] * w->in[2];
    float piece[QD_CARRY_PIECE];
    for (int64_t to = begin * each; to < end * each;) {
        int64_t n = end * each - to < QD_CARRY_PIECE ? end * each - to : QD_CARRY_PIECE;
        for (int64_t i = 0; i < n; i++)
            piece[i] = mean_at(work, (to + i) / each * plane, (to + i) % each);
        qd_carry_store(work->call, piece, (size_t)to, (size_t)n, seen);
        to += n;
    }
}

/* Pixels whose means are quantized together: their real values wait in a task's scratch. */
static size_t pixels_together(size_t channels) { return channels >= QD_CARRY_PIECE ? 1 : QD_CARRY_PIECE / channels; }

static size_t task_bytes(const struct pool_work *work)
{
    size_t c = (size_t)work->call->in[0].shape.dims[1];
    return qd_align_up(work->taps * sizeof(void *)) + (c ? qd_align_up(pixels_together(c) * c * sizeof(float)) : 0);
}

static void average_channels_last(void *ctx, int64_t begin, int64_t end, struct qd_observation *seen)
{
    const struct pool_work *work = ctx;
    const struct qd_call *call = work->call;
    const struct qd_qparams *qp = qd_carry_in(call, 0);
    bool count_pads = ((const struct pool *)call->prep)->count_pads;
    size_t c = (size_t)call->in[0].shape.dims[1], most = pixels_together(c);
    for (int64_t task = begin; task < end; task++) {
        unsigned char *own = (unsigned char *)call->scratch + (size_t)task * task_bytes(work);
        const unsigned char **rows = (const unsigned char **)(void *)own;
        float *wait = (float *)(void *)(own + qd_align_up(work->taps * sizeof(void *)));
        int64_t pixel, last, count;
        size_t waiting = 0;
        for (pixels_of(work, task, &pixel, &last); pixel < last; pixel++) {
            size_t n = rows_under(work, pixel, count_pads, rows, &count);
            float *to = call->out_qp ? wait + waiting * c : (float *)call->out[0].data + (size_t)pixel * c;
            if (n == 0) /* padding only: zeros, or nothing to divide by */
                for (size_t i = 0; i < c; i++)
                    to[i] = count ? 0 : NAN;
            else if (qp)
                call->kernels->mean_rows_u8(rows, n, c, -(int32_t)n * qp->zero_point, qp->scale / (float)count, to);
            else
                call->kernels->mean_rows_f32((const float *const *)(const void *)rows, n, c, 1.0f / (float)count, to);
            if (call->out_qp && (++waiting == most || pixel + 1 == last)) {
                qd_carry_store(call, wait, ((size_t)pixel + 1 - waiting) * c, waiting * c, seen);
                waiting = 0;
            }
        }
    }
}

static void average_work(const struct qd_call *call, const struct qd_shape *shape, struct pool_work *work)
{
    work->call = call;
    work->planes = shape->dims[0] * work->w.out[0] * work->w.out[1] * work->w.out[2];
    work->tasks = qd_op_threads(call);
    work->taps = most_taps(&work->w);
}

static size_t average_scratch(const struct qd_call *call)
{
    struct pool_work work;
    struct qd_shape shape;
    if (call->in[0].layout != QD_CHANNELS_LAST || pool_window(call, &work.w, &shape, NULL))
        return 0;
    average_work(call, &shape, &work);
    return task_bytes(&work) * (size_t)work.tasks;
}

/* Integer sums of more taps than this could pass 2^31. */
#define MOST_TAPS_U8 ((size_t)1 << 22)

static enum qd_status average_run(const struct qd_call *call, struct qd_error *error)
{
    struct pool_work work = {.call = call};
    struct qd_shape shape;
    enum qd_status status = pool_window(call, &work.w, &shape, error);
    if (status || qd_tensor_elems(&call->out[0]) == 0)
        return status;
    average_work(call, &shape, &work);
    if (qd_carry_in(call, 0) && work.taps > MOST_TAPS_U8)
        return qd_op_fail(call, error, QD_ERR_TOO_LARGE, "a window of %zu taps is too large", work.taps);
    if (call->in[0].layout == QD_CHANNELS_LAST)
        qd_carry_split(call, work.tasks, 1, average_channels_last, &work);
    else
        qd_carry_split(call, shape.dims[0] * shape.dims[1], 4, average_planes, &work);
    return QD_OK;
}

const struct qd_op qd_op_average_pool = {.flags = QD_OP_CHANNELS_LAST | QD_OP_READS_Q8 | QD_OP_WRITES_Q8,
                                         .prepare = pool_prepare,
                                         .infer = average_infer,
                                         .scratch = average_scratch,
                                         .run = average_run};
