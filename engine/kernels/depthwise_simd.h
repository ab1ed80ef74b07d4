/* Depthwise convolution, many channels at a time: the loops over tiles of channels, rows and pixels, and the whole of
 * the float kernel. A tile is a few neighbouring pixels of one row; where a row is no multiple of it, the last tile
 * starts earlier and only its new pixels are written. Each ISA's depthwise.c brings the integer tile. Private to the
 * kernel folders. */
#ifndef QD_ENGINE_KERNELS_DEPTHWISE_SIMD_H
#define QD_ENGINE_KERNELS_DEPTHWISE_SIMD_H

#include "engine/kernels/epilogue_simd.h"

#ifdef QD_SIMD_FLOATS

#include <string.h>

enum {
    DEPTHWISE_CHANNELS_MAX = 64,
    DEPTHWISE_PIXELS_MAX = 6,
    DEPTHWISE_HELD = 24,                                   /* pixels whose accumulators the epilogue gets at once */
    DEPTHWISE_ROWS = DEPTHWISE_HELD + DEPTHWISE_PIXELS_MAX /* of acc: before the held ones, those computed again */
};

/* What a tile function gets: `pixels` is the shape's, or 1 when a row is shorter than that. */
struct depthwise_tile {
    const struct qd_depthwise_args *args;
    const void *const *entries; /* of the first pixel */
    size_t pixels, channel, count;
    const unsigned char *weights; /* of this tile of channels */
    const int32_t *init;          /* [shape's channels] what accumulators begin with */
    int32_t *acc;                 /* first pixel of [channels / TILE_COLS][DEPTHWISE_ROWS][TILE_COLS] */
};

/* Where vector v of pixel p is in acc. */
QD_INLINE int32_t *depthwise_acc(const struct depthwise_tile *t, size_t p, size_t v)
{
    return t->acc + (v / TILE_VECTORS * DEPTHWISE_ROWS + p) * TILE_COLS + v % TILE_VECTORS * QD_SIMD_FLOATS;
}

struct depthwise_shape {
    size_t pixels, channels; /* of a tile */
    bool integer;
    size_t tap_bytes; /* packed weights: bytes of a whole tile of channels for every tap, rounded up by taps() */
    size_t (*taps)(size_t kh, size_t kw);
    void (*tile)(const struct depthwise_tile *tile);
};

static inline size_t depthwise_packed_bytes(const struct depthwise_shape *g, size_t channels, size_t kh, size_t kw)
{
    return (channels + g->channels - 1) / g->channels * g->taps(kh, kw) * g->tap_bytes;
}

/* The `held` pixels before `end`, counted over all rows of the call. */
static inline void depthwise_finish(struct tile_epilogue *epilogue, const struct depthwise_tile *t, int32_t *acc,
                                    size_t held, size_t end)
{
    for (size_t at = 0; held && at < t->count; at += TILE_COLS) {
        const struct tile_block block = {.acc = acc + at / TILE_COLS * DEPTHWISE_ROWS * TILE_COLS,
                                         .rows = held,
                                         .cols = t->count - at < TILE_COLS ? t->count - at : TILE_COLS,
                                         .row = end - held,
                                         .col = t->channel + at};
        tile_epilogue_run(epilogue, &block);
    }
}

/* One tile of channels of all pixels. */
static inline void depthwise_channels(const struct depthwise_shape *g, struct depthwise_tile *t,
                                      struct tile_epilogue *epilogue)
{
    const struct qd_depthwise_args *args = t->args;
    _Alignas(64) int32_t room[DEPTHWISE_CHANNELS_MAX * DEPTHWISE_ROWS];
    int32_t *const acc = room + DEPTHWISE_PIXELS_MAX * TILE_COLS;
    size_t held = 0;
    t->pixels = args->pixels < g->pixels ? 1 : g->pixels;
    for (size_t row = 0; row < args->rows; row++)
        for (size_t i = 0; i < args->pixels; i += t->pixels) {
            size_t again = args->pixels - i < t->pixels ? t->pixels - (args->pixels - i) : 0;
            t->entries = args->table + row * args->row_entries + (i - again) * args->pixel_entries;
            t->acc = acc + held * TILE_COLS - again * TILE_COLS;
            g->tile(t);
            held += t->pixels - again;
            if (held + t->pixels > DEPTHWISE_HELD) {
                depthwise_finish(epilogue, t, acc, held, row * args->pixels + i + t->pixels - again);
                held = 0;
            }
        }
    depthwise_finish(epilogue, t, acc, held, args->rows * args->pixels);
}

static inline void depthwise_run(const struct depthwise_shape *g, const struct qd_depthwise_args *args)
{
    struct tile_epilogue epilogue;
    QD_SIMD_NAME(qd_tile_epilogue_begin)
    (&epilogue, &args->epilogue, g->integer, args->channel_begin, args->channel_end,
     (float)(args->kh * args->kw * 255 * 128));
    const size_t block_bytes = g->taps(args->kh, args->kw) * g->tap_bytes;
    for (size_t channel = args->channel_begin; channel < args->channel_end; channel += g->channels) {
        size_t count = args->channel_end - channel < g->channels ? args->channel_end - channel : g->channels;
        _Alignas(64) int32_t init[DEPTHWISE_CHANNELS_MAX] = {0};
        if (g->integer)
            memcpy(init, args->epilogue.acc_init + channel, count * sizeof *init);
        struct depthwise_tile tile = {.args = args,
                                      .channel = channel,
                                      .count = count,
                                      .weights = (const unsigned char *)args->weights +
                                                 channel / g->channels * block_bytes,
                                      .init = init};
        depthwise_channels(g, &tile, &epilogue);
    }
    QD_SIMD_NAME(qd_tile_epilogue_end)
    (&epilogue, (uint64_t)(args->rows * args->pixels) * (args->channel_end - args->channel_begin));
}

/* ---- float: weights as [tile of channels][tap in the table's order][channel] */

static inline size_t depthwise_taps_f32(size_t kh, size_t kw) { return kh * kw; }

static inline void depthwise_pack_f32(size_t tile, size_t channels, size_t kh, size_t kw, const float *w, float *to)
{
    for (size_t block = 0; block < channels; block += tile)
        for (size_t x = 0; x < kw; x++)
            for (size_t y = 0; y < kh; y++)
                for (size_t c = block; c < block + tile; c++)
                    *to++ = c < channels ? w[(c * kh + y) * kw + x] : 0.0f;
}

/* All but `t` are constants wherever this is inlined; tile: floats from tap to tap. */
QD_INLINE void depthwise_tile_f32(const struct depthwise_tile *t, size_t tile, const size_t pixels,
                                  const size_t vectors, const bool full)
{
    const size_t taps = t->args->kh * t->args->kw, step = t->args->pixel_entries, channel = t->channel;
    const float *w = (const float *)(const void *)t->weights;
    vf sum[DEPTHWISE_PIXELS_MAX][4];
    vm mask[4];
#pragma GCC unroll 4
    for (size_t v = 0; v < vectors; v++) {
        size_t begin = v * QD_SIMD_FLOATS, left = t->count > begin ? t->count - begin : 0;
        mask[v] = vm_first(left < QD_SIMD_FLOATS ? left : QD_SIMD_FLOATS);
    }
#pragma GCC unroll 6
    for (size_t p = 0; p < pixels; p++)
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++)
            sum[p][v] = vf_set(0.0f);
    for (size_t tap = 0; tap < taps; tap++, w += tile) {
        vf weight[4];
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++)
            weight[v] = vf_load(w + v * QD_SIMD_FLOATS);
#pragma GCC unroll 6
        for (size_t p = 0; p < pixels; p++) {
            const float *x = (const float *)t->entries[p * step + tap] + channel;
#pragma GCC unroll 4
            for (size_t v = 0; v < vectors; v++) {
                const vf value = full ? vf_load(x + v * QD_SIMD_FLOATS) : vf_load_some(x + v * QD_SIMD_FLOATS, mask[v]);
                sum[p][v] = vf_fma(value, weight[v], sum[p][v]);
            }
        }
    }
#pragma GCC unroll 6
    for (size_t p = 0; p < pixels; p++)
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++)
            vf_store((float *)(void *)depthwise_acc(t, p, v), sum[p][v]);
}

#endif
#endif
