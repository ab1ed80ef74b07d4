/* Pools over all that is spatial: GlobalAveragePool and GlobalMaxPool, float or u8, plain or channels last. Not for
 * ReduceMean and ReduceMax (reduce.c). */
#include "engine/ops/carry.h"

#include <math.h>
#include <string.h>

enum {
    CHANNELS = 64,    /* channels last: what one task takes at once */
    ROWS_AT_ONCE = 64 /* whose integer sums are exact in float */
};

static enum qd_status global_infer(const struct qd_call *call, unsigned types, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    const struct qd_tensor *in = &call->in[0];
    if (status || (status = qd_op_types(call, 0, types, error)))
        return status;
    if (in->shape.rank < 2)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "an input of rank %d has no spatial dimensions", in->shape.rank);
    struct qd_shape shape = in->shape;
    for (int i = 2; i < shape.rank; i++)
        shape.dims[i] = 1;
    status = qd_op_out(call, 0, in->dtype, &shape, error);
    call->out[0].layout = in->layout;
    return status;
}

/* Blocks of channels of all images: block `index` starts at channel *first of image *image. Returns its channels. */
static size_t block_of(const struct qd_call *call, int64_t index, size_t *image, size_t *first)
{
    size_t channels = (size_t)call->in[0].shape.dims[1], blocks = (channels + CHANNELS - 1) / CHANNELS;
    *image = (size_t)index / blocks;
    *first = (size_t)index % blocks * CHANNELS;
    return channels - *first < CHANNELS ? channels - *first : CHANNELS;
}

static int64_t block_count(const struct qd_call *call)
{
    const struct qd_shape *shape = &call->in[0].shape;
    return shape->dims[0] * ((shape->dims[1] + CHANNELS - 1) / CHANNELS);
}

/* Channels last: pointers to a block's channels in `count` pixels from `pixel` of image `image` on. */
static void point_at(const struct qd_call *call, size_t image, size_t pixel, size_t first, size_t count,
                     const unsigned char *rows[ROWS_AT_ONCE])
{
    const struct qd_tensor *in = &call->in[0];
    size_t channels = (size_t)in->shape.dims[1], bytes = qd_dtype_bytes(in->dtype);
    size_t pixels = (size_t)qd_shape_span(&in->shape, 2, in->shape.rank);
    for (size_t i = 0; i < count; i++)
        rows[i] = (const unsigned char *)in->data + ((image * pixels + pixel + i) * channels + first) * bytes;
}

/* ------------------------------------------------------------------ GlobalAveragePool */

static enum qd_status average_infer(const struct qd_call *call, struct qd_error *error)
{
    return global_infer(call, QD_TYPES_FLOAT, error);
}

static void average_blocks(void *ctx, int64_t begin, int64_t end, struct qd_observation *seen)
{
    const struct qd_call *call = ctx;
    const struct qd_qparams *qp = qd_carry_in(call, 0);
    size_t pixels = (size_t)qd_shape_span(&call->in[0].shape, 2, call->in[0].shape.rank), image, first;
    for (int64_t b = begin; b < end; b++) {
        size_t n = block_of(call, b, &image, &first);
        const unsigned char *rows[ROWS_AT_ONCE];
        float some[CHANNELS], mean[CHANNELS];
        double sum[CHANNELS] = {0};
        for (size_t pixel = 0; pixel < pixels; pixel += ROWS_AT_ONCE) {
            size_t count = pixels - pixel < ROWS_AT_ONCE ? pixels - pixel : ROWS_AT_ONCE;
            point_at(call, image, pixel, first, count, rows);
            if (qp)
                call->kernels->mean_rows_u8(rows, count, n, -(int32_t)count * qp->zero_point, 1, some);
            else
                call->kernels->mean_rows_f32((const float *const *)(const void *)rows, count, n, 1, some);
            for (size_t j = 0; j < n; j++)
                sum[j] += (double)some[j];
        }
        for (size_t j = 0; j < n; j++)
            mean[j] = (float)(sum[j] / (double)pixels * (qp ? (double)qp->scale : 1));
        qd_carry_store(call, mean, image * (size_t)call->in[0].shape.dims[1] + first, n, seen);
    }
}

/* Plain: one plane after another. */
static void average_planes(void *ctx, int64_t begin, int64_t end, struct qd_observation *seen)
{
    const struct qd_call *call = ctx;
    size_t plane = (size_t)qd_shape_span(&call->in[0].shape, 2, call->in[0].shape.rank);
    float buffer[QD_CARRY_PIECE];
    for (int64_t p = begin; p < end; p++) {
        double sum = 0;
        for (size_t at = 0; at < plane; at += QD_CARRY_PIECE) {
            size_t n = plane - at < QD_CARRY_PIECE ? plane - at : QD_CARRY_PIECE;
            const float *in = qd_carry_load(call, 0, (size_t)p * plane + at, n, buffer);
            for (size_t i = 0; i < n; i++)
                sum += (double)in[i];
        }
        float mean = (float)(sum / (double)plane);
        qd_carry_store(call, &mean, (size_t)p, 1, seen);
    }
}

static enum qd_status average_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    if (call->in[0].layout == QD_CHANNELS_LAST)
        qd_carry_split(call, block_count(call), 1, average_blocks, (void *)(uintptr_t)call);
    else
        qd_carry_split(call, qd_tensor_elems(&call->out[0]), 16, average_planes, (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_global_average_pool = {
    .flags = QD_OP_CHANNELS_LAST | QD_OP_READS_Q8 | QD_OP_WRITES_Q8, .infer = average_infer, .run = average_run};

/* ------------------------------------------------------------------ GlobalMaxPool */

static enum qd_status max_infer(const struct qd_call *call, struct qd_error *error)
{
    return global_infer(call, QD_TYPES_FLOAT | QD_BIT(QD_U8), error);
}

/* best[j] = the largest element j of `count` rows, `stride` bytes apart; j < n <= CHANNELS. */
static void max_of_rows(const struct qd_call *call, const unsigned char *first, size_t stride, size_t count, size_t n,
                        void *best)
{
    const bool floats = call->in[0].dtype == QD_F32;
    const unsigned char *rows[ROWS_AT_ONCE + 1] = {best};
    for (size_t j = 0; j < n && floats; j++)
        ((float *)best)[j] = -INFINITY;
    for (size_t j = 0; j < n && !floats; j++)
        ((uint8_t *)best)[j] = 0;
    for (size_t row = 0; row < count; row += ROWS_AT_ONCE) {
        const size_t some = count - row < ROWS_AT_ONCE ? count - row : ROWS_AT_ONCE;
        for (size_t i = 0; i < some; i++)
            rows[1 + i] = first + (row + i) * stride;
        if (floats)
            call->kernels->max_rows_f32((const float *const *)(const void *)rows, some + 1, n, best);
        else
            call->kernels->max_rows_u8(rows, some + 1, n, best);
    }
}

static void max_blocks(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    const struct qd_tensor *in = &call->in[0];
    size_t channels = (size_t)in->shape.dims[1], pixels = (size_t)qd_shape_span(&in->shape, 2, in->shape.rank);
    size_t bytes = qd_dtype_bytes(in->dtype), image, first;
    for (int64_t b = begin; b < end; b++) {
        float best[CHANNELS];
        size_t n = block_of(call, b, &image, &first);
        max_of_rows(call, (const unsigned char *)in->data + (image * pixels * channels + first) * bytes,
                    channels * bytes, pixels, n, best);
        memcpy((unsigned char *)call->out[0].data + (image * channels + first) * bytes, best, n * bytes);
    }
}

/* A plane as rows of CHANNELS elements; what comes of them, and what was left, as shorter rows; that one by one. */
static void max_planes(void *ctx, int64_t begin, int64_t end)
{
    static const size_t widths[] = {CHANNELS, 8, 1};
    const struct qd_call *call = ctx;
    const struct qd_tensor *in = &call->in[0];
    const size_t plane = (size_t)qd_shape_span(&in->shape, 2, in->shape.rank), bytes = qd_dtype_bytes(in->dtype);
    for (int64_t p = begin; p < end; p++) {
        const unsigned char *from = (const unsigned char *)in->data + (size_t)p * plane * bytes;
        float held[2][2 * CHANNELS];
        size_t count = plane;
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
            const size_t width = widths[i], rows = count / width, made = rows || width == 1 ? width : 0;
            unsigned char *to = (unsigned char *)held[i % 2];
            max_of_rows(call, from, width * bytes, rows, made, to);
            memcpy(to + made * bytes, from + rows * width * bytes, count % width * bytes);
            count = made + count % width;
            from = to;
        }
        memcpy((unsigned char *)call->out[0].data + (size_t)p * bytes, from, bytes);
    }
}

static enum qd_status max_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    if (call->in[0].layout == QD_CHANNELS_LAST)
        qd_op_split(call, block_count(call), 1, max_blocks, (void *)(uintptr_t)call);
    else
        qd_op_split(call, qd_tensor_elems(&call->out[0]), 16, max_planes, (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_global_max_pool = {
    .flags = QD_OP_MOVES | QD_OP_CHANNELS_LAST, .infer = max_infer, .run = max_run};
