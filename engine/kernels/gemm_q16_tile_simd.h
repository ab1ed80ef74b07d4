/* The tile of the s16 matrix product: one row panel against a panel of B, sums carried out of int32 before they could
 * leave it. Private to gemm_q16_simd.h, which says where. */
#ifndef QD_ENGINE_KERNELS_GEMM_Q16_TILE_SIMD_H
#define QD_ENGINE_KERNELS_GEMM_Q16_TILE_SIMD_H

#include "engine/kernels/gemm_rows_simd.h"
#include "engine/kernels/pack_q16.h"

#ifdef QD_SIMD_FLOATS

enum {
    Q16_DEPTH_BLOCKS = DEPTH_UNITS / Q16_BLOCK_PAIRS, /* of one pass: their panel stays in the first cache */
    Q16_CARRY_BITS = 16
};

/* One row panel against a panel of B: `count` runs of units[i] pairs of depth, after each but the last of which the
 * upper bits of the sums are added to high. */
struct q16_tile {
    const uint8_t *a;
    size_t stride;
    const uint8_t *b;
    size_t vectors, count;
    const size_t *units;
    int32_t *acc, *high; /* [rows][TILE_COLS]; high: zeros before */
};

QD_INLINE void q16_carry(const size_t rows, const size_t vectors, vi sum[TILE_ROWS][TILE_VECTORS], int32_t *high)
{
#pragma GCC unroll 12
    for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (size_t v = 0; v < vectors; v++) {
            int32_t *to = high + i * TILE_COLS + v * QD_SIMD_FLOATS;
            vi_store(to, vi_add(vi_load(to), vi_high_words(sum[i][v])));
            sum[i][v] = vi_low_words(sum[i][v]);
        }
}

/* `rows` and `vectors` are constants. */
QD_INLINE void q16_tile(const size_t rows, const size_t vectors, const struct q16_tile *t)
{
    const size_t stride = t->stride;
    const uint8_t *a0 = t->a, *a3 = a0 + 3 * stride, *a6 = a3 + 3 * stride, *a9 = a6 + 3 * stride, *b = t->b;
    vi sum[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 12
    for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (size_t v = 0; v < vectors; v++)
            sum[i][v] = vi_set(0);
    for (size_t run = 0; run < t->count; run++) {
        if (run)
            q16_carry(rows, vectors, sum, t->high);
        for (size_t unit = t->units[run]; unit; unit--) {
            vi column[TILE_VECTORS];
#pragma GCC unroll 2
            for (size_t v = 0; v < vectors; v++)
                column[v] = column_load(b, v, 1);
#pragma GCC unroll 12
            for (size_t i = 0; i < rows; i++) {
                const uint8_t *third = i < 3 ? a0 : i < 6 ? a3 : i < 9 ? a6 : a9;
                const vi x = vi_set(unit_load(i % 3 == 0 ? third : i % 3 == 1 ? third + stride : third + 2 * stride));
#pragma GCC unroll 2
                for (size_t v = 0; v < vectors; v++)
                    sum[i][v] = vi_dot(DOT_S16, sum[i][v], x, column[v]);
            }
            a0 += UNIT_BYTES;
            a3 += UNIT_BYTES;
            a6 += UNIT_BYTES;
            a9 += UNIT_BYTES;
            b += TILE_COLS * UNIT_BYTES;
        }
    }
#pragma GCC unroll 12
    for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (size_t v = 0; v < vectors; v++)
            vi_store(t->acc + i * TILE_COLS + v * QD_SIMD_FLOATS, sum[i][v]);
}

#define Q16_TILE_OF(rows)                                                                                              \
    static void tile_##rows(const struct q16_tile *t)                                                                  \
    {                                                                                                                  \
        if (t->vectors == 1)                                                                                           \
            q16_tile(rows, 1, t);                                                                                      \
        else                                                                                                           \
            q16_tile(rows, 2, t);                                                                                      \
    }

#endif
#endif
