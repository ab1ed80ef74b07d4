/* Depthwise convolution in portable C: the judge of every other ISA. Weights stand as [tap in the table's order]
 * [channel]; one pixel at a time. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/epilogue.h"

enum { TILE = 16 };

static size_t packed_bytes_q8(size_t channels, size_t kh, size_t kw) { return channels * kh * kw; }

static void pack_q8(size_t channels, size_t kh, size_t kw, const int8_t *w, void *packed, int32_t *sums)
{
    int8_t *to = packed;
    for (size_t c = 0; c < channels; c++)
        sums[c] = 0;
    for (size_t x = 0; x < kw; x++)
        for (size_t y = 0; y < kh; y++)
            for (size_t c = 0; c < channels; c++) {
                int8_t weight = w[(c * kh + y) * kw + x];
                sums[c] += weight;
                *to++ = weight;
            }
}

static size_t packed_bytes_f32(size_t channels, size_t kh, size_t kw) { return channels * kh * kw * sizeof(float); }

static void pack_f32(size_t channels, size_t kh, size_t kw, const float *w, void *packed)
{
    float *to = packed;
    for (size_t x = 0; x < kw; x++)
        for (size_t y = 0; y < kh; y++)
            for (size_t c = 0; c < channels; c++)
                *to++ = w[(c * kh + y) * kw + x];
}

static int32_t sum_q8(const struct qd_depthwise_args *args, const void *const *entries, size_t channel)
{
    int32_t acc = args->epilogue.acc_init[channel];
    for (size_t t = 0; t < args->kh * args->kw; t++)
        acc += ((const uint8_t *)entries[t])[channel] * ((const int8_t *)args->weights)[t * args->channels + channel];
    return acc;
}

static float sum_f32(const struct qd_depthwise_args *args, const void *const *entries, size_t channel)
{
    float acc = 0.0f;
    for (size_t t = 0; t < args->kh * args->kw; t++)
        acc = fmaf(((const float *)entries[t])[channel], ((const float *)args->weights)[t * args->channels + channel],
                   acc);
    return acc;
}

static void run_pixel(const struct qd_depthwise_args *args, bool integer, float inv_scale, size_t i,
                      struct qd_observation *seen)
{
    const struct qd_epilogue *e = &args->epilogue;
    const void *const *entries = args->table + i / args->pixels * args->row_entries +
                                 i % args->pixels * args->pixel_entries;
    for (size_t c = args->channel_begin; c < args->channel_end; c++) {
        const float bias = e->bias ? e->bias[c] : 0.0f;
        if (integer) {
            const int32_t acc = sum_q8(args, entries, c);
            epilogue_finish_integer(e, inv_scale, acc, qd_real_one(acc, e->scale[c], bias), i, c, seen);
        } else {
            const float scale = e->scale ? e->scale[c] : 1.0f;
            epilogue_finish(e, inv_scale, sum_f32(args, entries, c) * scale + bias, i, c, seen);
        }
    }
}

static void run(const struct qd_depthwise_args *args, bool integer)
{
    const float inv_scale = epilogue_inv_scale(&args->epilogue);
    struct qd_observation seen = qd_observation_empty();
    for (size_t i = 0; i < args->rows * args->pixels; i++)
        run_pixel(args, integer, inv_scale, i, &seen);
    if (args->epilogue.observe)
        observation_publish(&seen, args->epilogue.observe);
}

static void run_q8(const struct qd_depthwise_args *args) { run(args, true); }
static void run_f32(const struct qd_depthwise_args *args) { run(args, false); }

const struct qd_depthwise_q8 qd_depthwise_q8__scalar = {
    .name = "qd_depthwise_u8s8__scalar",
    .tile = TILE,
    .packed_bytes = packed_bytes_q8,
    .pack = pack_q8,
    .run = run_q8,
};

const struct qd_depthwise_f32 qd_depthwise_f32__scalar = {
    .name = "qd_depthwise_f32__scalar",
    .tile = TILE,
    .packed_bytes = packed_bytes_f32,
    .pack = pack_f32,
    .run = run_f32,
};
