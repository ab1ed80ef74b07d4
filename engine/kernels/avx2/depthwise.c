/* Depthwise convolution without VNNI: the bytes of two taps interleaved and widened to 16 bits, vpmaddwd, exact. Four
 * pixels by 16 channels: eight registers of accumulators. */
#include "engine/kernels/depthwise_simd.h"
#include "engine/kernels/dispatch.h"

enum { TILE = 16, PIXELS = 4, PIXELS_F32 = 6 };

static size_t pairs_of(size_t kh, size_t kw) { return (kh * kw + 1) / 2; }

/* Packed: [tile of channels][pair of taps][channel][2], 16 bits each; a missing last tap has weight 0. */
static void pack_q8(size_t channels, size_t kh, size_t kw, const int8_t *w, void *packed, int32_t *sums)
{
    int16_t *to = packed;
    for (size_t c = 0; c < channels; c++)
        sums[c] = 0;
    for (size_t block = 0; block < channels; block += TILE)
        for (size_t pair = 0; pair < kh * kw; pair += 2)
            for (size_t c = block; c < block + TILE; c++)
                for (size_t entry = pair; entry < pair + 2; entry++) {
                    int8_t weight = 0;
                    if (c < channels && entry < kh * kw)
                        weight = w[(c * kh + entry % kh) * kw + entry / kh];
                    if (c < channels)
                        sums[c] += weight;
                    *to++ = weight;
                }
}

QD_INLINE __m128i load_tap(const void *pixel, size_t channel, size_t count, const bool full)
{
    const uint8_t *p = (const uint8_t *)pixel + channel;
    if (full)
        return _mm_loadu_si128((const __m128i *)(const void *)p);
    if (count == 8)
        return _mm_loadl_epi64((const __m128i *)(const void *)p);
    uint8_t line[TILE] = {0};
    for (size_t i = 0; i < count; i++)
        line[i] = p[i];
    return _mm_loadu_si128((const __m128i *)(const void *)line);
}

QD_INLINE void tile_pairs(const struct depthwise_tile *t, const size_t pixels, const bool full)
{
    const size_t taps = t->args->kh * t->args->kw, step = t->args->pixel_entries, channel = t->channel;
    const size_t count = t->count;
    const unsigned char *w = t->weights;
    __m256i sum[PIXELS][2];
#pragma GCC unroll 4
    for (size_t p = 0; p < pixels; p++) {
        sum[p][0] = vi_load(t->init);
        sum[p][1] = vi_load(t->init + 8);
    }
    for (size_t tap = 0; tap < taps; tap += 2, w += 64) {
        const __m256i w0 = _mm256_loadu_si256((const __m256i *)(const void *)w);
        const __m256i w1 = _mm256_loadu_si256((const __m256i *)(const void *)(w + 32));
        const size_t next = tap + 1 < taps ? tap + 1 : tap; /* its weight is 0 when it doesn't exist */
#pragma GCC unroll 4
        for (size_t p = 0; p < pixels; p++) {
            const __m128i t0 = load_tap(t->entries[p * step + tap], channel, count, full);
            const __m128i t1 = load_tap(t->entries[p * step + next], channel, count, full);
            const __m256i low = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(t0, t1));
            const __m256i high = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(t0, t1));
            sum[p][0] = _mm256_add_epi32(sum[p][0], _mm256_madd_epi16(low, w0));
            sum[p][1] = _mm256_add_epi32(sum[p][1], _mm256_madd_epi16(high, w1));
        }
    }
#pragma GCC unroll 4
    for (size_t p = 0; p < pixels; p++) {
        vi_store(depthwise_acc(t, p, 0), sum[p][0]);
        vi_store(depthwise_acc(t, p, 1), sum[p][1]);
    }
}

static void tile_q8(const struct depthwise_tile *t)
{
    if (t->pixels != PIXELS)
        tile_pairs(t, 1, false);
    else if (t->count == TILE)
        tile_pairs(t, PIXELS, true);
    else
        tile_pairs(t, PIXELS, false);
}

static void tile_f32(const struct depthwise_tile *t)
{
    if (t->pixels != PIXELS_F32)
        depthwise_tile_f32(t, TILE, 1, 2, false);
    else if (t->count == TILE)
        depthwise_tile_f32(t, TILE, PIXELS_F32, 2, true);
    else
        depthwise_tile_f32(t, TILE, PIXELS_F32, 2, false);
}

static const struct depthwise_shape SHAPE_Q8 = {
    .pixels = PIXELS, .channels = TILE, .integer = true, .tap_bytes = 64, .taps = pairs_of, .tile = tile_q8};
static const struct depthwise_shape SHAPE_F32 = {.pixels = PIXELS_F32,
                                                 .channels = TILE,
                                                 .integer = false,
                                                 .tap_bytes = TILE * sizeof(float),
                                                 .taps = depthwise_taps_f32,
                                                 .tile = tile_f32};

static size_t packed_bytes_q8(size_t channels, size_t kh, size_t kw)
{
    return depthwise_packed_bytes(&SHAPE_Q8, channels, kh, kw);
}

static size_t packed_bytes_f32(size_t channels, size_t kh, size_t kw)
{
    return depthwise_packed_bytes(&SHAPE_F32, channels, kh, kw);
}

static void pack_f32(size_t channels, size_t kh, size_t kw, const float *w, void *packed)
{
    depthwise_pack_f32(TILE, channels, kh, kw, w, packed);
}

static void run_q8(const struct qd_depthwise_args *args) { depthwise_run(&SHAPE_Q8, args); }
static void run_f32(const struct qd_depthwise_args *args) { depthwise_run(&SHAPE_F32, args); }

const struct qd_depthwise_q8 qd_depthwise_q8__avx2 = {
    .name = "qd_depthwise_u8s8_4x16__avx2",
    .tile = TILE,
    .packed_bytes = packed_bytes_q8,
    .pack = pack_q8,
    .run = run_q8,
};

const struct qd_depthwise_f32 qd_depthwise_f32__avx2 = {
    .name = "qd_depthwise_f32_6x16__avx2",
    .tile = TILE,
    .packed_bytes = packed_bytes_f32,
    .pack = pack_f32,
    .run = run_f32,
};
