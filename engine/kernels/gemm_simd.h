/* The loops around a tile, the same for every matrix product of every ISA: rows of A are packed into panels in the
 * caller's scratch, then each panel of B's columns meets all of them while it is in the cache. Both are counted in
 * units of four bytes (four u8 or one float): A's panels are [unit][lanes], B's [unit][nr]. Private to the kernel
 * folders. */
#ifndef QD_ENGINE_KERNELS_GEMM_SIMD_H
#define QD_ENGINE_KERNELS_GEMM_SIMD_H

#include "engine/kernels/epilogue_simd.h"
#include "engine/kernels/rows.h"

#ifdef QD_SIMD_FLOATS

enum { UNIT_BYTES = 4, BLOCK_PANELS_MAX = 16, BLOCK_BYTES = 128 * 1024, TILE_ACC_MAX = 12 * 32 };

struct gemm_shape {
    size_t mr, nr;
    size_t unit_bytes; /* of A in its panel: 4, or 8 when u8 is widened to 16 bits there */
    bool integer;
    /* acc[rows][nr] = panel of A (lanes = gemm_lanes(rows)) times panel of B. */
    void (*tile)(size_t rows, size_t units, const void *a, const void *b, int32_t *acc);
};

/* Rows of a panel are stored in fours, so that they are turned by 4 x 4 transposes; the tile skips those that don't
 * exist. */
static inline size_t gemm_lanes(size_t rows) { return (rows + 3) & ~(size_t)3; }

static inline size_t gemm_panel_bytes(const struct gemm_shape *g, size_t units)
{
    return gemm_lanes(g->mr) * units * g->unit_bytes;
}

/* Panels of A that stay in the second cache together. */
static inline size_t gemm_block_panels(const struct gemm_shape *g, size_t units)
{
    size_t bytes = gemm_panel_bytes(g, units ? units : 1), panels = BLOCK_BYTES / bytes;
    return panels < 1 ? 1 : panels > BLOCK_PANELS_MAX ? BLOCK_PANELS_MAX : panels;
}

static inline size_t gemm_line_bytes(const struct gemm_shape *g, size_t units)
{
    return (g->unit_bytes > UNIT_BYTES ? gemm_lanes(g->mr) + 4 : 4) * units * UNIT_BYTES;
}

static inline size_t gemm_scratch_bytes(const struct gemm_shape *g, size_t units)
{
    return gemm_block_panels(g, units) * gemm_panel_bytes(g, units) + gemm_line_bytes(g, units);
}

/* Four pieces of `bytes` bytes into to[unit][lanes], the last unit filled up with zeros. */
static inline void pack_four(const uint8_t *const from[4], size_t bytes, size_t lanes, uint8_t *to)
{
    size_t at = 0, step = lanes * UNIT_BYTES;
    for (; at + 16 <= bytes; at += 16, to += 4 * step) {
        __m128i r0 = _mm_loadu_si128((const __m128i *)(const void *)(from[0] + at));
        __m128i r1 = _mm_loadu_si128((const __m128i *)(const void *)(from[1] + at));
        __m128i r2 = _mm_loadu_si128((const __m128i *)(const void *)(from[2] + at));
        __m128i r3 = _mm_loadu_si128((const __m128i *)(const void *)(from[3] + at));
        __m128i t0 = _mm_unpacklo_epi32(r0, r1), t1 = _mm_unpacklo_epi32(r2, r3);
        __m128i t2 = _mm_unpackhi_epi32(r0, r1), t3 = _mm_unpackhi_epi32(r2, r3);
        _mm_storeu_si128((__m128i *)(void *)to, _mm_unpacklo_epi64(t0, t1));
        _mm_storeu_si128((__m128i *)(void *)(to + step), _mm_unpackhi_epi64(t0, t1));
        _mm_storeu_si128((__m128i *)(void *)(to + 2 * step), _mm_unpacklo_epi64(t2, t3));
        _mm_storeu_si128((__m128i *)(void *)(to + 3 * step), _mm_unpackhi_epi64(t2, t3));
    }
    for (; at < bytes; at += UNIT_BYTES, to += step)
        for (size_t i = 0; i < 4; i++) {
            uint8_t unit[UNIT_BYTES] = {0};
            for (size_t b = 0; b < UNIT_BYTES && at + b < bytes; b++)
                unit[b] = from[i][at + b];
            memcpy(to + i * UNIT_BYTES, unit, UNIT_BYTES);
        }
}

/* Rows [row, row + rows) of A into to[unit][lanes]; missing rows repeat the last. `line`: room for four rows. */
static inline void pack_rows(const struct qd_rows *a, size_t row, size_t rows, size_t units, uint8_t *line, uint8_t *to)
{
    size_t lanes = gemm_lanes(rows);
    for (size_t i = 0; i < lanes; i += 4) {
        size_t at[4];
        for (size_t r = 0; r < 4; r++)
            at[r] = row + (i + r < rows ? i + r : rows - 1);
        const uint8_t *from[4];
        if (a->taps == 1 || a->tap_bytes % UNIT_BYTES == 0) {
            uint8_t *piece = to + i * UNIT_BYTES;
            for (size_t tap = 0; tap < a->taps; tap++) {
                for (size_t r = 0; r < 4; r++)
                    from[r] = rows_piece(a, at[r], tap);
                pack_four(from, a->tap_bytes, lanes, piece);
                piece += a->tap_bytes * lanes; /* whole units, or the only piece */
            }
        } else {
            for (size_t r = 0; r < 4; r++)
                from[r] = rows_line(a, at[r], line + r * units * UNIT_BYTES);
            pack_four(from, a->taps * a->tap_bytes, lanes, to + i * UNIT_BYTES);
        }
    }
}

/* Bytes to 16 bits, in order: what vpmaddwd multiplies. */
static inline void widen_u8(const uint8_t *from, size_t bytes, uint8_t *to)
{
    for (size_t i = 0; i < bytes; i += 16) {
        __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(from + i)));
        _mm256_storeu_si256((__m256i *)(void *)(to + 2 * i), wide);
    }
}

QD_INLINE void gemm_run(const struct gemm_shape *g, const struct qd_gemm_args *args, size_t units)
{
    struct tile_epilogue epilogue = tile_epilogue_begin(&args->epilogue);
    size_t block = gemm_block_panels(g, units) * g->mr, panel_bytes = gemm_panel_bytes(g, units);
    uint8_t *panels = args->scratch, *line = panels + gemm_block_panels(g, units) * panel_bytes;
    uint8_t *narrow = line + 4 * units * UNIT_BYTES;
    for (size_t row = args->row_begin; row < args->row_end; row += block) {
        size_t rows = args->row_end - row < block ? args->row_end - row : block;
        for (size_t i = 0; i < rows; i += g->mr) {
            size_t here = rows - i < g->mr ? rows - i : g->mr;
            uint8_t *panel = panels + i / g->mr * panel_bytes;
            pack_rows(&args->a, row + i, here, units, line, g->unit_bytes > UNIT_BYTES ? narrow : panel);
            if (g->unit_bytes > UNIT_BYTES)
                widen_u8(narrow, gemm_lanes(here) * units * UNIT_BYTES, panel);
        }
        for (size_t col = args->col_begin; col < args->col_end; col += g->nr) {
            size_t cols = args->col_end - col < g->nr ? args->col_end - col : g->nr;
            const uint8_t *b = (const uint8_t *)args->b + col * units * UNIT_BYTES;
            struct tile_columns columns;
            tile_columns_load(&columns, &args->epilogue, col, cols, g->nr);
            for (size_t i = 0; i < rows; i += g->mr) {
                size_t here = rows - i < g->mr ? rows - i : g->mr;
                _Alignas(64) int32_t acc[TILE_ACC_MAX];
                g->tile(here, units, panels + i / g->mr * panel_bytes, b, acc);
                tile_epilogue_run(&epilogue, &columns, acc, g->nr, here,
                                  (row + i) * args->epilogue.out_stride_elems + col, g->integer);
            }
        }
    }
    tile_epilogue_end(&epilogue, (uint64_t)(args->row_end - args->row_begin) * (args->col_end - args->col_begin));
}

#endif
#endif
