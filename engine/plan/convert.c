/* Conversion steps between the forms of one tensor. Both layouts are matrices per image: plain [C, S], channels last
 * [S, C]; a change of layout goes tile by tile, so that integers between two layouts stay in the cache. */
#include "engine/plan/convert.h"

#include <string.h>

enum {
    TILE_BYTES = 32 << 10,  /* integers between two layouts */
    TASK_ELEMS = 32 << 10,  /* what pays for a thread's attention */
    FLAT_ELEMS = 128 << 10, /* elements of a task without a change of layout */
    MOST_TASKS = 64
};

struct work {
    const struct qd_kernels *kernels;
    const struct qd_tensor *in;
    struct qd_tensor *out;
    const struct qd_qparams *qp;
    uint8_t *scratch;
    const float *by; /* of rows: what they are multiplied by, or NULL */
    struct qd_row_scale *scales;
    bool symmetric;
    int bits; /* of rows that become floats again */
    void (*quantize)(const float *x, size_t n, const struct qd_qparams *qp, uint8_t *q, struct qd_observation *seen);
    size_t images, channels, span; /* span: spatial elements of an image */
    size_t step, tiles;            /* spatial elements of a tile, tiles of an image */
    size_t items, each;            /* tiles of all images, or pieces of FLAT_ELEMS; items of a task */
    struct qd_observation *seen;   /* [tasks] or NULL */
    void (*item)(const struct work *work, size_t item, struct qd_observation *seen);
};

struct tile {
    size_t image_at, begin, count; /* the image's first element; spatial elements [begin, begin + count) */
};

static struct tile tile_of(const struct work *w, size_t item)
{
    size_t begin = item % w->tiles * w->step;
    return (struct tile){item / w->tiles * w->channels * w->span, begin,
                         w->span - begin < w->step ? w->span - begin : w->step};
}

static void run_task(void *ctx, size_t task)
{
    const struct work *w = ctx;
    for (size_t i = task * w->each; i < w->items && i < (task + 1) * w->each; i++)
        w->item(w, i, w->seen ? w->seen + task : NULL);
}

/* Items in order, in as many tasks as pay, on `parallel` (NULL: here). */
static void run_items(struct work *w, size_t items, size_t elems, struct qd_parallel *parallel,
                      struct qd_observation *observe)
{
    struct qd_observation seen[MOST_TASKS];
    size_t tasks = parallel ? 4 * (size_t)parallel->threads : 1;
    tasks = parallel && parallel->threads == 1 ? 1 : tasks < MOST_TASKS ? tasks : MOST_TASKS;
    tasks = tasks < elems / TASK_ELEMS ? tasks : elems / TASK_ELEMS;
    tasks = tasks < items ? tasks : items;
    w->items = items;
    w->each = tasks > 1 ? (items - 1) / tasks + 1 : items;
    if (tasks <= 1) {
        w->seen = observe;
        run_task(w, 0);
        return;
    }
    tasks = (items - 1) / w->each + 1;
    w->seen = observe ? seen : NULL;
    for (size_t i = 0; i < tasks; i++)
        seen[i] = qd_observation_empty();
    parallel->run(parallel, tasks, run_task, w);
    for (size_t i = 0; observe && i < tasks; i++)
        qd_observation_merge(observe, &seen[i]);
}

/* False when nothing turns: the same layout, or one channel or one spatial element. */
static bool turns(const struct qd_tensor *in, const struct qd_tensor *out, struct work *w)
{
    const struct qd_shape *shape = &in->shape;
    if (in->layout == out->layout || shape->rank < 2)
        return false;
    w->images = (size_t)shape->dims[0];
    w->channels = (size_t)shape->dims[1];
    w->span = (size_t)qd_shape_span(shape, 2, shape->rank);
    if (w->channels < 2 || w->span < 2)
        return false;
    w->step = TILE_BYTES / w->channels & ~(size_t)63;
    w->step = w->step < 64 ? 64 : w->step;
    w->tiles = (w->span + w->step - 1) / w->step;
    return true;
}

static void run_work(struct work *w, bool turn, void (*tile)(const struct work *, size_t, struct qd_observation *),
                     void (*flat)(const struct work *, size_t, struct qd_observation *), struct qd_parallel *parallel,
                     struct qd_observation *observe)
{
    size_t elems = (size_t)qd_tensor_elems(w->in);
    if (elems == 0)
        return;
    w->item = turn ? tile : flat;
    run_items(w, turn ? w->images * w->tiles : (elems - 1) / FLAT_ELEMS + 1, elems, parallel, observe);
}

static size_t flat_of(const struct work *w, size_t item, size_t *at)
{
    size_t elems = (size_t)qd_tensor_elems(w->in);
    *at = item * FLAT_ELEMS;
    return elems - *at < FLAT_ELEMS ? elems - *at : FLAT_ELEMS;
}

/* ------------------------------------------------------------------ layout alone */

static void relayout_tile(const struct work *w, size_t item, struct qd_observation *seen)
{
    (void)seen;
    struct tile t = tile_of(w, item);
    size_t plain = t.image_at + t.begin, last = t.image_at + t.begin * w->channels;
    bool to_last = w->in->layout == QD_PLAIN;
    size_t rows = to_last ? w->channels : t.count, cols = to_last ? t.count : w->channels;
    size_t in_stride = to_last ? w->span : w->channels, out_stride = to_last ? w->channels : w->span;
    size_t from = to_last ? plain : last, to = to_last ? last : plain;
    if (qd_dtype_bytes(w->in->dtype) == 1)
        w->kernels->transpose_u8((const uint8_t *)w->in->data + from, in_stride, rows, cols,
                                 (uint8_t *)w->out->data + to, out_stride);
    else
        w->kernels->transpose_f32((const float *)w->in->data + from, in_stride, rows, cols, (float *)w->out->data + to,
                                  out_stride);
}

static void relayout_flat(const struct work *w, size_t item, struct qd_observation *seen)
{
    (void)seen;
    size_t at, n = flat_of(w, item, &at), bytes = qd_dtype_bytes(w->in->dtype);
    memcpy((char *)w->out->data + at * bytes, (const char *)w->in->data + at * bytes, n * bytes);
}

void qd_convert_relayout(const struct qd_kernels *kernels, const struct qd_tensor *in, struct qd_tensor *out,
                         struct qd_parallel *parallel)
{
    struct work w = {.kernels = kernels, .in = in, .out = out};
    run_work(&w, turns(in, out, &w), relayout_tile, relayout_flat, parallel, NULL);
}

/* ------------------------------------------------------------------ to integers */

static void quantize_tile(const struct work *w, size_t item, struct qd_observation *seen)
{
    struct tile t = tile_of(w, item);
    const float *in = w->in->data;
    uint8_t *between = w->scratch + t.image_at + t.begin * w->channels, *out = w->out->data;
    if (w->in->layout == QD_PLAIN) {
        size_t rows = t.count == w->span ? 1 : w->channels, row = t.count == w->span ? t.count * w->channels : t.count;
        for (size_t c = 0; c < rows; c++)
            w->quantize(in + t.image_at + c * w->span + t.begin, row, w->qp, between + c * row, seen);
        w->kernels->transpose_u8(between, t.count, w->channels, t.count, out + t.image_at + t.begin * w->channels,
                                 w->channels);
    } else {
        w->quantize(in + t.image_at + t.begin * w->channels, t.count * w->channels, w->qp, between, seen);
        w->kernels->transpose_u8(between, w->channels, t.count, w->channels, out + t.image_at + t.begin, w->span);
    }
}

static void quantize_flat(const struct work *w, size_t item, struct qd_observation *seen)
{
    size_t at, n = flat_of(w, item, &at);
    w->quantize((const float *)w->in->data + at, n, w->qp, (uint8_t *)w->out->data + at, seen);
}

static void quantize_words(const struct work *w, size_t item, struct qd_observation *seen)
{
    size_t at, n = flat_of(w, item, &at);
    w->kernels->quantize_s16((const float *)w->in->data + at, n, w->qp, (int16_t *)w->out->data + at, seen);
}

void qd_convert_quantize(const struct qd_kernels *kernels, const struct qd_tensor *in, struct qd_tensor *out,
                         const struct qd_qparams *qp, struct qd_observation *observe, void *scratch,
                         struct qd_parallel *parallel)
{
    struct work w = {
        .kernels = kernels, .in = in, .out = out, .qp = qp, .scratch = scratch, .quantize = kernels->quantize_u8};
    const bool words = out->dtype == QD_I16;
    run_work(&w, !words && turns(in, out, &w), quantize_tile, words ? quantize_words : quantize_flat, parallel,
             observe);
}

void qd_convert_requantize(const struct qd_kernels *kernels, const struct qd_tensor *in, struct qd_tensor *out,
                           const struct qd_qparams *qp, struct qd_observation *observe, void *scratch,
                           struct qd_parallel *parallel)
{
    struct work w = {
        .kernels = kernels, .in = in, .out = out, .qp = qp, .scratch = scratch, .quantize = kernels->requantize_u8};
    run_work(&w, turns(in, out, &w), quantize_tile, quantize_flat, parallel, observe);
}

/* As quantize_rows_u8 does it, and back. */
static void fake_rows(const struct work *w, size_t item, struct qd_observation *seen)
{
    const float *in = (const float *)w->in->data + item * w->channels;
    uint8_t *between = w->scratch + item * w->channels;
    struct qd_observation row = qd_observation_empty();
    w->kernels->observe_f32(in, w->channels, NULL, &row);
    const bool finite = row.min <= row.max;
    const struct qd_qparams qp = qd_qparams_from_range_bits(finite ? (double)row.min : 0, finite ? (double)row.max : 0,
                                                            w->symmetric, w->bits);
    w->kernels->requantize_u8(in, w->channels, &qp, between, NULL);
    w->kernels->dequantize_u8(between, w->channels, &qp, (float *)w->out->data + item * w->channels);
    if (seen)
        qd_observation_merge(seen, &row);
}

void qd_convert_fake_rows(const struct qd_kernels *kernels, const struct qd_tensor *in, struct qd_tensor *out,
                          bool symmetric, int bits, struct qd_observation *observe, void *scratch,
                          struct qd_parallel *parallel)
{
    const size_t rows = (size_t)qd_shape_span(&in->shape, 0, in->shape.rank - 1);
    struct work w = {.kernels = kernels,
                     .in = in,
                     .out = out,
                     .scratch = scratch,
                     .symmetric = symmetric,
                     .bits = bits,
                     .channels = (size_t)in->shape.dims[in->shape.rank - 1],
                     .item = fake_rows};
    run_items(&w, rows, rows * w.channels, parallel, observe);
}

static void quantize_rows(const struct work *w, size_t item, struct qd_observation *seen)
{
    w->kernels->quantize_rows_u8((const float *)w->in->data + item * w->channels, w->channels, w->by, 1, w->channels,
                                 w->symmetric, (uint8_t *)w->out->data + item * w->channels, w->scales + item, seen);
}

void qd_convert_quantize_rows(const struct qd_kernels *kernels, const struct qd_tensor *in, struct qd_tensor *out,
                              const float *by, struct qd_row_scale *scales, bool symmetric,
                              struct qd_observation *observe, struct qd_parallel *parallel)
{
    const size_t rows = (size_t)qd_shape_span(&in->shape, 0, in->shape.rank - 1);
    struct work w = {.kernels = kernels,
                     .in = in,
                     .out = out,
                     .by = by,
                     .scales = scales,
                     .symmetric = symmetric,
                     .channels = (size_t)in->shape.dims[in->shape.rank - 1],
                     .item = quantize_rows};
    run_items(&w, rows, rows * w.channels, parallel, observe);
}

/* ------------------------------------------------------------------ to real values */

static void dequantize_tile(const struct work *w, size_t item, struct qd_observation *seen)
{
    (void)seen;
    struct tile t = tile_of(w, item);
    const uint8_t *in = w->in->data;
    uint8_t *between = w->scratch + t.image_at + t.begin * w->channels;
    float *out = w->out->data;
    if (w->in->layout == QD_PLAIN) {
        w->kernels->transpose_u8(in + t.image_at + t.begin, w->span, w->channels, t.count, between, w->channels);
        w->kernels->dequantize_u8(between, t.count * w->channels, w->qp, out + t.image_at + t.begin * w->channels);
        return;
    }
    w->kernels->transpose_u8(in + t.image_at + t.begin * w->channels, w->channels, t.count, w->channels, between,
                             t.count);
    size_t rows = t.count == w->span ? 1 : w->channels, row = t.count == w->span ? t.count * w->channels : t.count;
    for (size_t c = 0; c < rows; c++)
        w->kernels->dequantize_u8(between + c * row, row, w->qp, out + t.image_at + c * w->span + t.begin);
}

static void dequantize_flat(const struct work *w, size_t item, struct qd_observation *seen)
{
    (void)seen;
    size_t at, n = flat_of(w, item, &at);
    w->kernels->dequantize_u8((const uint8_t *)w->in->data + at, n, w->qp, (float *)w->out->data + at);
}

void qd_convert_dequantize(const struct qd_kernels *kernels, const struct qd_tensor *in, struct qd_tensor *out,
                           const struct qd_qparams *qp, void *scratch, struct qd_parallel *parallel)
{
    struct work w = {.kernels = kernels, .in = in, .out = out, .qp = qp, .scratch = scratch};
    run_work(&w, turns(in, out, &w), dequantize_tile, dequantize_flat, parallel, NULL);
}
