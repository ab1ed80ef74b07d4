/* Depthwise convolution by vpdpbusd. Four taps of 64 channels are interleaved to four vectors of [channel][tap]; where
 * the kernel is 3 x 3 or 5 x 5 and the stride 1 or 2, a column of the image is interleaved once for all the pixels of
 * the tile that see it. Four pixels by 64 channels: 16 registers of accumulators, four of interleaved taps. */
#include "engine/kernels/depthwise_simd.h"
#include "engine/kernels/dispatch.h"

enum { TILE = 64, PIXELS = 4, PIXELS_F32 = 6, QUAD_BYTES = 4 * TILE };

/* Kernels that share columns keep their columns apart; all others are one long column. */
static size_t columns_of(size_t kh, size_t kw) { return kh == kw && (kh == 3 || kh == 5) ? kw : 1; }

static size_t height_of(size_t kh, size_t kw) { return kh * kw / columns_of(kh, kw); }

static size_t quads_of(size_t kh, size_t kw) { return (height_of(kh, kw) + 3) / 4 * columns_of(kh, kw); }

/* Packed: [tile of channels][quad of a column][column][channel][4]; taps that don't exist have weight 0. */
static void pack_q8(size_t channels, size_t kh, size_t kw, const int8_t *w, void *packed, int32_t *sums)
{
    const size_t columns = columns_of(kh, kw), height = height_of(kh, kw);
    int8_t *to = packed;
    for (size_t c = 0; c < channels; c++)
        sums[c] = 0;
    for (size_t block = 0; block < channels; block += TILE)
        for (size_t quad = 0; quad < height; quad += 4)
            for (size_t column = 0; column < columns; column++)
                for (size_t c = block; c < block + TILE; c++)
                    for (size_t i = quad; i < quad + 4; i++) {
                        size_t entry = column * height + i;
                        int8_t weight = 0;
                        if (c < channels && i < height)
                            weight = w[(c * kh + entry % kh) * kw + entry / kh];
                        if (c < channels)
                            sums[c] += weight;
                        *to++ = weight;
                    }
}

/* Bytes of a tap, in the order that makes the four results of unpacking consecutive channels. */
QD_INLINE __m512i load_tap(const void *pixel, size_t channel, __mmask64 mask, const bool full)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const uint8_t *p = (const uint8_t *)pixel + channel;
    return _mm512_permutexvar_epi32(order, full ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(mask, p));
}

/* quad[v] = channels [16 v, 16 v + 16) of `taps` pixels, four bytes a channel; bytes of missing taps are anything. */
QD_INLINE void interleave(const void *const *entries, const size_t taps, size_t channel, __mmask64 mask,
                          const bool full, const size_t vectors, __m512i quad[4])
{
    if (taps == 1) {
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) {
            const uint8_t *p = (const uint8_t *)entries[0] + channel + 16 * v;
            const __m128i bytes = full ? _mm_loadu_si128((const __m128i *)(const void *)p)
                                       : _mm_maskz_loadu_epi8((__mmask16)(mask >> (16 * v)), p);
            quad[v] = _mm512_cvtepu8_epi32(bytes);
        }
        return;
    }
    const __m512i t0 = load_tap(entries[0], channel, mask, full), t1 = load_tap(entries[1], channel, mask, full);
    const __m512i t2 = taps > 2 ? load_tap(entries[2], channel, mask, full) : t0;
    const __m512i t3 = taps > 3 ? load_tap(entries[3], channel, mask, full) : t2;
    const __m512i low = _mm512_unpacklo_epi8(t0, t1), low2 = _mm512_unpacklo_epi8(t2, t3);
    quad[0] = _mm512_unpacklo_epi16(low, low2);
    quad[1] = _mm512_unpackhi_epi16(low, low2);
    if (vectors > 2) {
        const __m512i high = _mm512_unpackhi_epi8(t0, t1), high2 = _mm512_unpackhi_epi8(t2, t3);
        quad[2] = _mm512_unpacklo_epi16(high, high2);
        quad[3] = _mm512_unpackhi_epi16(high, high2);
    }
}

/* acc += (or =, when first) one quad of `columns` columns, of `taps` taps each; pixels are `stride` columns apart,
 * which are column_entries pointers each. All but `t`, `first`, entries and weights are constants where this is
 * inlined. */
QD_INLINE void tile_columns_q8(const struct depthwise_tile *t, bool first, const void *const *entries,
                               size_t column_entries, const int8_t *weights, const size_t pixels, const size_t columns,
                               const size_t stride, const size_t taps, const size_t vectors, const bool full)
{
    const __mmask64 mask = t->count < TILE ? ((__mmask64)1 << t->count) - 1 : ~(__mmask64)0;
    __m512i sum[PIXELS][4];
#pragma GCC unroll 4
    for (size_t p = 0; p < pixels; p++)
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++)
            sum[p][v] = vi_load(first ? t->init + 16 * v : depthwise_acc(t, p, v));
#pragma GCC unroll 16
    for (size_t column = 0; column < (pixels - 1) * stride + columns; column++) {
        __m512i quad[4];
        __asm__("" : "+r"(weights)); /* read again: kept for all columns, they would push accumulators out */
        interleave(entries + column * column_entries, taps, t->channel, mask, full, vectors, quad);
#pragma GCC unroll 4
        for (size_t p = 0; p < pixels; p++)
            if (column >= p * stride && column - p * stride < columns) {
                const int8_t *w = weights + (column - p * stride) * QUAD_BYTES;
#pragma GCC unroll 4
                for (size_t v = 0; v < vectors; v++)
                    sum[p][v] = _mm512_dpbusd_epi32(sum[p][v], quad[v], _mm512_loadu_si512(w + 64 * v));
            }
    }
#pragma GCC unroll 4
    for (size_t p = 0; p < pixels; p++)
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++)
            vi_store(depthwise_acc(t, p, v), sum[p][v]);
}

/* Columns seen by several pixels. */
QD_INLINE void tile_shared(const struct depthwise_tile *t, const size_t size, const size_t stride, const size_t vectors,
                           const bool full)
{
    const int8_t *w = (const int8_t *)t->weights;
    if (size == 3) {
        tile_columns_q8(t, true, t->entries, 3, w, PIXELS, 3, stride, 3, vectors, full);
    } else {
        tile_columns_q8(t, true, t->entries, 5, w, PIXELS, 5, stride, 4, vectors, full);
        tile_columns_q8(t, false, t->entries + 4, 5, w + 5 * QUAD_BYTES, PIXELS, 5, stride, 1, vectors, full);
    }
}

/* One quad of `taps` taps of every pixel. */
QD_INLINE void tile_quad(const struct depthwise_tile *t, bool first, size_t entry, const int8_t *w, const size_t taps,
                         const size_t vectors, const bool full)
{
    const void *const *entries = t->entries + entry;
    if (t->pixels == PIXELS) {
        /* Every pixel has columns of its own here: one column, `pixels` of them beside each other. */
        const __mmask64 mask = t->count < TILE ? ((__mmask64)1 << t->count) - 1 : ~(__mmask64)0;
#pragma GCC unroll 4
        for (size_t p = 0; p < PIXELS; p++) {
            __m512i quad[4];
            interleave(entries + p * t->args->pixel_entries, taps, t->channel, mask, full, vectors, quad);
#pragma GCC unroll 4
            for (size_t v = 0; v < vectors; v++) {
                int32_t *acc = depthwise_acc(t, p, v);
                const __m512i sum = vi_load(first ? t->init + 16 * v : acc);
                vi_store(acc, _mm512_dpbusd_epi32(sum, quad[v], _mm512_loadu_si512(w + 64 * v)));
            }
        }
    } else {
        tile_columns_q8(t, first, entries, 1, w, 1, 1, 1, taps, vectors, full);
    }
}

QD_INLINE void tile_apart(const struct depthwise_tile *t, const size_t vectors, const bool full)
{
    const size_t kh = t->args->kh, kw = t->args->kw, columns = columns_of(kh, kw), height = height_of(kh, kw);
    const int8_t *w = (const int8_t *)t->weights;
    for (size_t i = 0; i < height; i += 4)
        for (size_t column = 0; column < columns; column++, w += QUAD_BYTES) {
            size_t entry = column * height + i;
            bool first = entry == 0;
            if (height - i >= 4)
                tile_quad(t, first, entry, w, 4, vectors, full);
            else if (height - i == 3)
                tile_quad(t, first, entry, w, 3, vectors, full);
            else if (height - i == 2)
                tile_quad(t, first, entry, w, 2, vectors, full);
            else
                tile_quad(t, first, entry, w, 1, vectors, full);
        }
}

QD_INLINE void tile_sized(const struct depthwise_tile *t, const size_t vectors, const bool full)
{
    const size_t size = columns_of(t->args->kh, t->args->kw), step = t->args->pixel_entries;
    if (size == 1 || t->pixels != PIXELS || (step != size && step != 2 * size))
        tile_apart(t, vectors, full);
    else if (size == 3 && step == 3)
        tile_shared(t, 3, 1, vectors, full);
    else if (size == 3)
        tile_shared(t, 3, 2, vectors, full);
    else if (step == 5)
        tile_shared(t, 5, 1, vectors, full);
    else
        tile_shared(t, 5, 2, vectors, full);
}

static void tile_q8(const struct depthwise_tile *t)
{
    if (t->count == TILE)
        tile_sized(t, 4, true);
    else if (t->count <= TILE / 2)
        tile_sized(t, 2, false);
    else
        tile_sized(t, 4, false);
}

static void tile_f32(const struct depthwise_tile *t)
{
    if (t->pixels != PIXELS_F32)
        depthwise_tile_f32(t, TILE, 1, 4, false);
    else if (t->count == TILE)
        depthwise_tile_f32(t, TILE, PIXELS_F32, 4, true);
    else if (t->count <= TILE / 2)
        depthwise_tile_f32(t, TILE, PIXELS_F32, 2, false);
    else
        depthwise_tile_f32(t, TILE, PIXELS_F32, 4, false);
}

static const struct depthwise_shape SHAPE_Q8 = {
    .pixels = PIXELS, .channels = TILE, .integer = true, .tap_bytes = QUAD_BYTES, .taps = quads_of, .tile = tile_q8};
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

const struct qd_depthwise_q8 qd_depthwise_q8__avx512vnni = {
    .name = "qd_depthwise_u8s8_4x64__avx512vnni",
    .tile = TILE,
    .packed_bytes = packed_bytes_q8,
    .pack = pack_q8,
    .run = run_q8,
};

const struct qd_depthwise_f32 qd_depthwise_f32__avx512vnni = {
    .name = "qd_depthwise_f32_6x64__avx512vnni",
    .tile = TILE,
    .packed_bytes = packed_bytes_f32,
    .pack = pack_f32,
    .run = run_f32,
};
