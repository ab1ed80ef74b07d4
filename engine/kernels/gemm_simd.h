/* Matrix products of every type and ISA: the tile and the loops around it. Everything is counted in units of four
 * bytes: four u8, two s16 or one float. A tile multiplies rows of A, `stride` bytes apart, by a panel of B's columns,
 * [unit][nr]: it reads one unit of A at a time and two vectors of B. Rows lie where the caller has them or are copied
 * together in the scratch. Depth is cut into blocks whose panel stays in the first cache; accumulators wait in the
 * scratch meanwhile, so each stays one chain in ascending k. Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_GEMM_SIMD_H
#define QD_ENGINE_KERNELS_GEMM_SIMD_H

#include "engine/kernels/epilogue_simd.h"
#include "engine/kernels/rows.h"

#ifdef QD_SIMD_FLOATS

enum {
    UNIT_BYTES = 4,
    TILE_ROWS = QD_SIMD_FLOATS == 16 ? 12 : 6,
    DEPTH_UNITS = 192,         /* of a block: a panel of 24 KB beside the tile's rows */
    BLOCK_PANELS_MAX = 24,     /* row panels that meet a panel of B together */
    BLOCK_BYTES = 1024 * 1024, /* of their rows: they stay in the second cache */
    SHALLOW_UNITS = 48,
    HELD_ROWS = 48, /* whose accumulators the epilogue gets at once, where they are soon made */
    FAR_BYTES = 64 * 1024,
    TAP_BYTES_MIN = 16, /* shorter pieces of rows are copied together */
    WIDE_PANELS = 4,    /* of B, for a single row */
    AHEAD_BYTES = 1536  /* that a single row asks for beforehand, in each of its panels */
};

/* One product. `from`: accumulators to begin with, row by row from_step apart (0: all rows alike). */
struct tile {
    const uint8_t *a;
    size_t stride;
    const uint8_t *b;
    size_t b_step;         /* bytes from panel to panel of B, for the wide tile */
    const uint8_t *ahead;  /* NULL, or what a whole tile asks for meanwhile, half a line a unit: the next panel of B */
    size_t units, vectors; /* units: of a tap, for a tile that reads by taps */
    /* Instead of a and stride: row i has its tap t at table[i * table_step + t] + offset. */
    const void *const *table;
    size_t table_step, taps, offset;
    const int32_t *from;
    size_t from_step;
    int32_t *acc; /* [rows][TILE_COLS] */
};

struct gemm_shape {
    size_t mr;
    void (*const *tiles)(const struct tile *t); /* for 1 .. mr rows */
    void (*const *taps)(const struct tile *t);  /* the same by taps; NULL with growth 2 */
    void (*wide)(const struct tile *t);         /* one row, WIDE_PANELS panels; acc [WIDE_PANELS][TILE_COLS] */
    bool integer;
    float product_max; /* of one element of A by one of B */
    size_t growth;     /* A and B grow by this before they meet: 2 where bytes are widened to 16 bits, else 1 */
    void (*const *narrow)(const struct tile *t); /* growth 2: tiles that widen B as they read it */
};

static inline int32_t unit_load(const uint8_t *p)
{
    int32_t unit;
    memcpy(&unit, p, sizeof unit);
    return unit;
}

QD_INLINE vi column_load(const uint8_t *b, size_t vector, const size_t growth)
{
    if (growth == 1)
        return vi_load_bytes(b + vector * QD_SIMD_FLOATS * UNIT_BYTES);
    return vi_load_widened(b + vector * QD_SIMD_FLOATS * UNIT_BYTES / 2);
}

/* `rows` and `vectors` are constants wherever the next four are inlined. */
QD_INLINE void tile_begin(const size_t rows, const size_t vectors, const struct tile *t,
                          vi sum[TILE_ROWS][TILE_VECTORS])
{
#pragma GCC unroll 12
    for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (size_t v = 0; v < vectors; v++)
            sum[i][v] = vi_load(t->from + i * t->from_step + v * QD_SIMD_FLOATS);
}

QD_INLINE void tile_end(const size_t rows, const size_t vectors, const struct tile *t, vi sum[TILE_ROWS][TILE_VECTORS])
{
#pragma GCC unroll 12
    for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (size_t v = 0; v < vectors; v++)
            vi_store(t->acc + i * TILE_COLS + v * QD_SIMD_FLOATS, sum[i][v]);
}

/* `dot`, `growth` (of B, here) and `ask` are constants too. Four pointers and
 * the stride reach twelve rows without a register for each. */
QD_INLINE void tile_rows(const enum dot dot, const size_t rows, const size_t vectors, const size_t growth,
                         const bool ask, const struct tile *t)
{
    const uint8_t *ahead = t->ahead;
    const size_t stride = t->stride;
    const uint8_t *a0 = t->a, *a3 = a0 + 3 * stride, *a6 = a3 + 3 * stride, *a9 = a6 + 3 * stride, *b = t->b;
    vi sum[TILE_ROWS][TILE_VECTORS];
    tile_begin(rows, vectors, t, sum);
    for (size_t unit = t->units; unit; unit--) {
        if (ask) {
            _mm_prefetch((const char *)ahead, _MM_HINT_T1);
            ahead += 32;
        }
        vi column[TILE_VECTORS];
#pragma GCC unroll 2
        for (size_t v = 0; v < vectors; v++)
            column[v] = column_load(b, v, growth);
#pragma GCC unroll 12
        for (size_t i = 0; i < rows; i++) {
            const uint8_t *third = i < 3 ? a0 : i < 6 ? a3 : i < 9 ? a6 : a9;
            const vi x = vi_set(unit_load(i % 3 == 0 ? third : i % 3 == 1 ? third + stride : third + 2 * stride));
#pragma GCC unroll 2
            for (size_t v = 0; v < vectors; v++)
                sum[i][v] = vi_dot(dot, sum[i][v], x, column[v]);
        }
        a0 += UNIT_BYTES;
        a3 += UNIT_BYTES;
        a6 += UNIT_BYTES;
        a9 += UNIT_BYTES;
        b += TILE_COLS * UNIT_BYTES / growth;
    }
    tile_end(rows, vectors, t, sum);
}

/* The same with a pointer for each row and tap: no row is ever copied together. */
QD_INLINE void tile_taps(const enum dot dot, const size_t rows, const size_t vectors, const bool ask,
                         const struct tile *t)
{
    const size_t bytes = t->units * UNIT_BYTES;
    const uint8_t *ahead = t->ahead, *b = t->b;
    vi sum[TILE_ROWS][TILE_VECTORS];
    tile_begin(rows, vectors, t, sum);
    for (size_t tap = 0; tap < t->taps; tap++) {
        const uint8_t *row[TILE_ROWS];
#pragma GCC unroll 12
        for (size_t i = 0; i < rows; i++)
            row[i] = (const uint8_t *)t->table[i * t->table_step + tap] + t->offset;
        for (size_t line = 0; ask && line < bytes; line += 2 * UNIT_BYTES, ahead += 64)
            _mm_prefetch((const char *)ahead, _MM_HINT_T1);
        for (size_t at = 0; at < bytes; at += UNIT_BYTES, b += TILE_COLS * UNIT_BYTES) {
            vi column[TILE_VECTORS];
#pragma GCC unroll 2
            for (size_t v = 0; v < vectors; v++)
                column[v] = column_load(b, v, 1);
#pragma GCC unroll 12
            for (size_t i = 0; i < rows; i++) {
                const vi x = vi_set(unit_load(row[i] + at));
#pragma GCC unroll 2
                for (size_t v = 0; v < vectors; v++)
                    sum[i][v] = vi_dot(dot, sum[i][v], x, column[v]);
            }
        }
    }
    tile_end(rows, vectors, t, sum);
}

/* One row and several panels side by side: limited by how fast B comes, so it is asked for early. */
QD_INLINE void tile_wide(const enum dot dot, const size_t growth, const struct tile *t)
{
    const uint8_t *a = t->a, *b = t->b;
    const size_t step = t->b_step, advance = TILE_COLS * UNIT_BYTES / growth;
    vi sum[WIDE_PANELS][TILE_VECTORS];
#pragma GCC unroll 4
    for (size_t p = 0; p < WIDE_PANELS; p++)
#pragma GCC unroll 2
        for (size_t v = 0; v < TILE_VECTORS; v++)
            sum[p][v] = vi_load(t->from + p * t->from_step + v * QD_SIMD_FLOATS);
    for (size_t unit = t->units; unit; unit--, a += UNIT_BYTES, b += advance) {
        const vi x = vi_set(unit_load(a));
#pragma GCC unroll 4
        for (size_t p = 0; p < WIDE_PANELS; p++) {
            const uint8_t *panel = b + p * step;
            for (size_t ahead = 0; ahead < advance; ahead += 64)
                _mm_prefetch((const char *)panel + AHEAD_BYTES + ahead, _MM_HINT_T0);
#pragma GCC unroll 2
            for (size_t v = 0; v < TILE_VECTORS; v++)
                sum[p][v] = vi_dot(dot, sum[p][v], x, column_load(panel, v, growth));
        }
    }
#pragma GCC unroll 4
    for (size_t p = 0; p < WIDE_PANELS; p++)
#pragma GCC unroll 2
        for (size_t v = 0; v < TILE_VECTORS; v++)
            vi_store(t->acc + p * TILE_COLS + v * QD_SIMD_FLOATS, sum[p][v]);
}

#define TILE_OF(name, dot, rows, growth)                                                                               \
    static void name##_##rows(const struct tile *t)                                                                    \
    {                                                                                                                  \
        if (t->vectors == 1)                                                                                           \
            tile_rows(dot, rows, 1, growth, false, t);                                                                 \
        else if (rows == TILE_ROWS && t->ahead)                                                                        \
            tile_rows(dot, rows, 2, growth, true, t);                                                                  \
        else                                                                                                           \
            tile_rows(dot, rows, 2, growth, false, t);                                                                 \
    }

#define TAPS_OF(name, dot, rows)                                                                                       \
    static void name##_##rows(const struct tile *t)                                                                    \
    {                                                                                                                  \
        if (t->vectors == 1)                                                                                           \
            tile_taps(dot, rows, 1, false, t);                                                                         \
        else                                                                                                           \
            tile_taps(dot, rows, 2, rows == TILE_ROWS && t->ahead, t);                                                 \
    }

#endif
#endif
