/* Pools: MaxPool (float and 8 bit, plain or channels last, with Indices), AveragePool, GlobalAveragePool,
 * GlobalMaxPool. Not for ReduceMean and ReduceMax (reduce.c). */
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
    if (last && (in->dtype != QD_U8 || qd_op_wants(call, 1)))
        return qd_op_fail(call, error, QD_ERR_INTERNAL, "only UINT8 without Indices runs with channels last");
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

/* Tasks begin..end, each with its own table of row pointers in scratch and every tasks-th output pixel. */
static void max_channels_last(void *ctx, int64_t begin, int64_t end)
{
    const struct pool_work *work = ctx;
    const struct qd_window *w = &work->w;
    const struct qd_tensor *t = &work->call->in[0];
    size_t c = (size_t)t->shape.dims[1];
    int64_t per_image = w->out[0] * w->out[1] * w->out[2], image = w->in[0] * w->in[1] * w->in[2];
    for (int64_t task = begin; task < end; task++) {
        const uint8_t **rows = (const uint8_t **)work->call->scratch + (size_t)task * work->taps;
        for (int64_t pixel = task; pixel < work->planes; pixel += work->tasks) {
            int64_t o = pixel % per_image, a[3], b[3], s[3];
            int64_t pos[3] = {o / w->out[2] / w->out[1], o / w->out[2] % w->out[1], o % w->out[2]};
            const uint8_t *in = (const uint8_t *)t->data + (size_t)(pixel / per_image * image) * c;
            uint8_t *out = (uint8_t *)work->call->out[0].data + (size_t)pixel * c;
            size_t n = 0;
            for (int d = 0; d < 3; d++) {
                qd_window_taps(w, d, pos[d], &a[d], &b[d]);
                s[d] = pos[d] * w->stride[d] - w->before[d];
            }
            for (int64_t z = a[0]; z < b[0]; z++)
                for (int64_t y = a[1]; y < b[1]; y++)
                    for (int64_t x = a[2]; x < b[2]; x++)
                        rows[n++] = in + (size_t)(((s[0] + z * w->dilation[0]) * w->in[1] + s[1] + y * w->dilation[1]) *
                                                      w->in[2] +
                                                  s[2] + x * w->dilation[2]) *
                                             c;
            if (n)
                work->call->kernels->max_rows_u8(rows, n, c, out);
            else
                memset(out, 0, c);
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
    return qd_op_out(call, 0, QD_F32, &shape, error);
}

static void average_planes(void *ctx, int64_t begin, int64_t end)
{
    const struct pool_work *work = ctx;
    const struct qd_window *w = &work->w;
    int64_t each = w->out[0] * w->out[1] * w->out[2], plane = w->in[0] * w->in[1] * w->in[2];
    bool count_pads = ((const struct pool *)work->call->prep)->count_pads;
    for (int64_t to = begin * each; to < end * each; to++) {
        const float *in = (const float *)work->call->in[0].data + to / each * plane;
        int64_t o = to % each, a[3], b[3], s[3], count = 1;
        int64_t pos[3] = {o / w->out[2] / w->out[1], o / w->out[2] % w->out[1], o % w->out[2]};
        for (int d = 0; d < 3; d++) {
            qd_window_taps(w, d, pos[d], &a[d], &b[d]);
            s[d] = pos[d] * w->stride[d] - w->before[d];
            /* With pads: taps up to the end of the padding, which rounding up may pass. */
            int64_t room = w->in[d] + w->after[d] - s[d], padded = room <= 0 ? 0 : (room - 1) / w->dilation[d] + 1;
            count *= count_pads ? (padded < w->kernel[d] ? padded : w->kernel[d]) : b[d] - a[d];
        }
        double sum = 0;
        for (int64_t z = a[0]; z < b[0]; z++)
            for (int64_t y = a[1]; y < b[1]; y++)
                for (int64_t x = a[2]; x < b[2]; x++)
                    sum += (double)in[((s[0] + z * w->dilation[0]) * w->in[1] + s[1] + y * w->dilation[1]) * w->in[2] +
                                      s[2] + x * w->dilation[2]];
        ((float *)work->call->out[0].data)[to] = (float)(sum / (double)count);
    }
}

static enum qd_status average_run(const struct qd_call *call, struct qd_error *error)
{
    struct pool_work work = {.call = call};
    struct qd_shape shape;
    enum qd_status status = pool_window(call, &work.w, &shape, error);
    if (!status && qd_tensor_elems(&call->out[0]))
        qd_op_split(call, shape.dims[0] * shape.dims[1], 4, average_planes, &work);
    return status;
}

const struct qd_op qd_op_average_pool = {.prepare = pool_prepare, .infer = average_infer, .run = average_run};

/* ------------------------------------------------------------------ global pools */

static enum qd_status global_infer(const struct qd_call *call, unsigned types, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    const struct qd_tensor *in = &call->in[0];
    if (status || (status = qd_op_types(call, 0, types, error)))
        return status;
    if (in->shape.rank < 2 || (in->layout == QD_CHANNELS_LAST && in->dtype != QD_U8))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "an input of rank %d has no spatial dimensions", in->shape.rank);
    struct qd_shape shape = in->shape;
    for (int i = 2; i < shape.rank; i++)
        shape.dims[i] = 1;
    status = qd_op_out(call, 0, in->dtype, &shape, error);
    call->out[0].layout = in->layout;
    return status;
}

static enum qd_status global_average_infer(const struct qd_call *call, struct qd_error *error)
{
    return global_infer(call, QD_TYPES_FLOAT, error);
}

static enum qd_status global_max_infer(const struct qd_call *call, struct qd_error *error)
{
    return global_infer(call, QD_TYPES_FLOAT | QD_BIT(QD_U8), error);
}

static void global_average_part(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    int64_t plane = qd_shape_span(&call->in[0].shape, 2, call->in[0].shape.rank);
    for (int64_t p = begin; p < end; p++) {
        const float *in = (const float *)call->in[0].data + (plane ? p * plane : 0);
        double sum = 0;
        for (int64_t i = 0; i < plane; i++)
            sum += (double)in[i];
        ((float *)call->out[0].data)[p] = (float)(sum / (double)plane);
    }
}

static enum qd_status global_average_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    qd_op_split(call, qd_tensor_elems(&call->out[0]), 16, global_average_part, (void *)(uintptr_t)call);
    return QD_OK;
}

/* channels last: element (pixel i, channel c) at i * channels + c; plain: one plane after another. */
static void global_max_part(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    const struct qd_tensor *in = &call->in[0];
    int64_t plane = qd_shape_span(&in->shape, 2, in->shape.rank), channels = in->shape.dims[1];
    bool last = in->layout == QD_CHANNELS_LAST;
    int64_t step = last ? channels : 1;
    for (int64_t p = begin; p < end; p++) {
        int64_t at = last ? p / channels * channels * plane + p % channels : p * plane;
        if (in->dtype == QD_F32) {
            float best = -INFINITY;
            for (int64_t i = 0; i < plane; i++) {
                float v = ((const float *)in->data)[at + i * step];
                best = v > best || isnan(v) ? v : best;
            }
            ((float *)call->out[0].data)[p] = best;
        } else {
            uint8_t best = 0;
            for (int64_t i = 0; i < plane; i++) {
                uint8_t v = ((const uint8_t *)in->data)[at + i * step];
                best = v > best ? v : best;
            }
            ((uint8_t *)call->out[0].data)[p] = best;
        }
    }
}

static enum qd_status global_max_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    qd_op_split(call, qd_tensor_elems(&call->out[0]), 16, global_max_part, (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_global_average_pool = {.infer = global_average_infer, .run = global_average_run};
const struct qd_op qd_op_global_max_pool = {
    .flags = QD_OP_MOVES | QD_OP_CHANNELS_LAST, .infer = global_max_infer, .run = global_max_run};
