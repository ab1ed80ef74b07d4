/* Resizing by tables, see resize.h: nearest copies runs of memory, the other modes weigh rows axis by axis. */
#include "engine/ops/carry.h"
#include "engine/ops/resize.h"

#include <string.h>

enum { TAPS_AT_ONCE = 16, WIDE = 8 /* values side by side from which on a kernel pays */ };

/* Rows [begin, end) of outer * dim_out. */
static void axis_part(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_resize_axis *w = ctx;
    for (int64_t row = begin; row < end; row++) {
        int64_t x = row % w->dim_out;
        const float *from = w->in + row / w->dim_out * w->dim_in * w->inner, *weight = w->weight + x * w->taps;
        const int64_t *index = w->index + x * w->taps;
        float *to = w->out + row * w->inner;
        if (w->inner >= WIDE && w->taps <= TAPS_AT_ONCE) {
            const float *rows[TAPS_AT_ONCE];
            for (int64_t t = 0; t < w->taps; t++)
                rows[t] = from + index[t] * w->inner;
            w->kernels->weigh_rows_f32(rows, weight, (size_t)w->taps, (size_t)w->inner, to);
            continue;
        }
        for (int64_t i = 0; i < w->inner; i++) {
            float sum = 0;
            for (int64_t t = 0; t < w->taps; t++)
                sum += from[index[t] * w->inner + i] * weight[t];
            to[i] = sum;
        }
    }
}

void qd_resize_axis(const struct qd_call *call, const struct qd_resize_axis *axis, int64_t rows)
{
    qd_op_split(call, rows, 8192 / (axis->inner ? axis->inner : 1) + 1, axis_part, (void *)(uintptr_t)axis);
}

/* The output is seen as rows of `count` units, a unit being what neighbours in memory along untouched axes. */
struct nearest_work {
    const struct qd_call *call;
    struct qd_shape out;               /* in the order of memory, without the axes inside a unit */
    const int64_t *index[QD_MAX_RANK]; /* NULL: untouched */
    int64_t strides[QD_MAX_RANK];      /* of the input, in units */
    size_t unit_bytes;
};

#define COPY_UNITS(type)                                                                                               \
    for (int64_t x = 0; x < count; x++)                                                                                \
    ((type *)(void *)to)[x] = ((const type *)(const void *)from)[index[x]]

static void copy_units(char *to, const char *from, const int64_t *index, int64_t count, size_t unit)
{
    if (unit == 1)
        COPY_UNITS(uint8_t);
    else if (unit == 4)
        COPY_UNITS(uint32_t);
    else
        for (int64_t x = 0; x < count; x++)
            memcpy(to + (size_t)x * unit, from + (size_t)index[x] * unit, unit);
}

static void nearest_part(void *ctx, int64_t begin, int64_t end)
{
    const struct nearest_work *w = ctx;
    int last = w->out.rank - 1;
    int64_t count = w->out.dims[last], before = -1;
    size_t row_bytes = (size_t)count * w->unit_bytes;
    char *to = (char *)w->call->out[0].data + (size_t)begin * row_bytes;
    for (int64_t row = begin; row < end; row++, to += row_bytes) {
        int64_t rest = row, base = 0;
        for (int d = last - 1; d >= 0; d--) {
            int64_t x = rest % w->out.dims[d];
            base += (w->index[d] ? w->index[d][x] : x) * w->strides[d];
            rest /= w->out.dims[d];
        }
        if (base == before) /* the same row once more */
            memcpy(to, to - row_bytes, row_bytes);
        else
            copy_units(to, (const char *)w->call->in[0].data + (size_t)base * w->unit_bytes, w->index[last], count,
                       w->unit_bytes);
        before = base;
    }
}

void qd_resize_nearest(const struct qd_call *call, const int64_t *const index[QD_MAX_RANK])
{
    const struct qd_tensor *in = &call->in[0];
    struct nearest_work work = {
        .call = call, .out = qd_memory_shape(&call->out[0]), .unit_bytes = qd_dtype_bytes(in->dtype)};
    struct qd_shape from = qd_memory_shape(in);
    for (int d = 0; d < from.rank; d++)
        work.index[qd_memory_axis(in, d)] = index[d];
    while (from.rank > 0 && !work.index[from.rank - 1])
        work.unit_bytes *= (size_t)from.dims[--from.rank];
    work.out.rank = from.rank;
    if (from.rank == 0) {
        qd_op_copy(call->out[0].data, in->data, work.unit_bytes);
        return;
    }
    qd_op_strides(&from, work.strides);
    int64_t row_bytes = work.out.dims[from.rank - 1] * (int64_t)work.unit_bytes;
    qd_op_split(call, qd_shape_span(&work.out, 0, from.rank - 1), 65536 / row_bytes + 1, nearest_part, &work);
}
