/* s16 x s8 or s16 matrix product, exact for any depth and any values, at the speed of sums in int32. Arithmetic of 32
 * bits wraps, so only where a sum is read must it lie within int32, and by Cauchy and Schwarz |sum x w|^2 <= sum x^2 *
 * sum w^2: sums of squares of blocks of 16 deep (of the weights when packing, of the rows once a call) say how far a
 * sum may run. There its bits from 16 on move to a second sum, and the lower go on. A block in which even 16 products
 * might not fit is multiplied twice, by the high and by the low bytes of its weights. Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_GEMM_Q16_SIMD_H
#define QD_ENGINE_KERNELS_GEMM_Q16_SIMD_H

#include "engine/kernels/gemm_q16_tile_simd.h"

#ifdef QD_SIMD_FLOATS

/* (2^31 - 2^16)^2, and a part in four hundred for the roundings of the sums of squares. */
#define Q16_LIMIT 4.60e18f

/* One call. Scratch: rows of A, accumulators, carried sums, whole sums, two planes of a block of B, squares of A. */
struct q16 {
    struct gemm rows; /* of which only the part about A is used */
    struct tile_epilogue epilogue;
    void (*const *tiles)(const struct q16_tile *t);
    size_t blocks, panel_bytes;
    int32_t *acc, *high;             /* [TILE_ROWS][TILE_COLS] */
    int64_t *sums;                   /* [rows of a block][TILE_COLS] */
    uint8_t *high_plane, *low_plane; /* [Q16_BLOCK_PAIRS][TILE_COLS] units */
    float *squares;                  /* [row panels][blocks] */
};

/* Columns [col, col + cols), `vectors` wide. */
struct q16_columns {
    size_t col, cols, vectors;
    const uint8_t *words;
    const float *squares;
};

enum { Q16_TILE_BYTES = TILE_ROWS * TILE_COLS * 4, Q16_PLANE_BYTES = Q16_BLOCK_PAIRS * TILE_COLS * UNIT_BYTES };

static const struct gemm_shape Q16_SHAPE = {.mr = TILE_ROWS, .integer = true, .growth = 1};

static inline size_t q16_scratch_bytes(size_t k)
{
    const size_t rows = gemm_block_rows(&Q16_SHAPE, q16_pairs(k));
    return rows * gemm_copy_stride(q16_pairs(k)) + 2 * Q16_TILE_BYTES + rows * TILE_COLS * sizeof(int64_t) +
           2 * Q16_PLANE_BYTES + rows / TILE_ROWS * q16_blocks(k) * sizeof(float);
}

/* Sums of squares of a row, block by block, a little rounded up; merged into the largest of its panel. */
static inline void q16_row_squares(const uint8_t *row, size_t units, float *most)
{
    enum { BLOCKS = QD_SIMD_FLOATS / Q16_BLOCK_PAIRS, VECTOR_BYTES = QD_SIMD_FLOATS * UNIT_BYTES };
    uint8_t tail[VECTOR_BYTES] = {0};
    for (size_t unit = 0; unit < units; unit += QD_SIMD_FLOATS, row += VECTOR_BYTES, most += BLOCKS) {
        const size_t left = units - unit;
        if (left < QD_SIMD_FLOATS) {
            memcpy(tail, row, left * UNIT_BYTES);
            row = tail;
        }
        const vi x = vi_load_bytes(row);
        int32_t sums[BLOCKS];
        vi_sums(vi_add(vi_high_bytes(vi_dot(DOT_S16, vi_set(0), x, x)), vi_set(1)), sums);
        for (size_t i = 0; i < BLOCKS && i * Q16_BLOCK_PAIRS < left; i++) {
            const float squares = (float)sums[i] * 256.0f;
            most[i] = squares > most[i] ? squares : most[i];
        }
    }
}

static inline void q16_squares(struct q16 *r)
{
    for (size_t i = 0; i < r->rows.rows; i++) {
        float *most = r->squares + i / TILE_ROWS * r->blocks;
        if (i % TILE_ROWS == 0)
            memset(most, 0, r->blocks * sizeof *most);
        q16_row_squares(r->rows.a + i * r->rows.stride, r->rows.units, most);
    }
}

/* Block `block` of B: w = 256 * high + low, low in [-128, 127], high in [-128, 128]. */
static inline void q16_planes(const uint8_t *words, size_t units, uint8_t *high, uint8_t *low)
{
    for (size_t at = 0; at < units * TILE_COLS * UNIT_BYTES; at += QD_SIMD_FLOATS * UNIT_BYTES) {
        const vi w = vi_load_bytes(words + at), upper = vi_high_of_words(w);
        vi_store((int32_t *)(void *)(high + at), upper);
        vi_store((int32_t *)(void *)(low + at), vi_low_of_words(w, upper));
    }
}

/* sums = sums (0 when `first`) + high * 2^shift + low */
static inline void q16_join(const int32_t *high, unsigned shift, const int32_t *low, size_t rows, bool first,
                            int64_t *sums)
{
    for (size_t i = 0; i < rows * TILE_COLS; i += QD_SIMD_FLOATS)
        sums_join(sums + i, vi_load(high + i), shift, vi_load(low + i), first);
}

/* A block whose products might leave int32. */
static inline void q16_twice(const struct q16 *r, const struct q16_columns *c, const uint8_t *a, size_t rows,
                             size_t block, bool first, int64_t *sums)
{
    const size_t begin = block * Q16_BLOCK_PAIRS, left = r->rows.units - begin;
    const size_t units = left < Q16_BLOCK_PAIRS ? left : Q16_BLOCK_PAIRS;
    q16_planes(c->words + begin * TILE_COLS * UNIT_BYTES, units, r->high_plane, r->low_plane);
    struct q16_tile t = {.a = a + begin * UNIT_BYTES,
                         .stride = r->rows.stride,
                         .b = r->high_plane,
                         .vectors = c->vectors,
                         .count = 1,
                         .units = &units,
                         .acc = r->high};
    r->tiles[rows - 1](&t);
    t.b = r->low_plane;
    t.acc = r->acc;
    r->tiles[rows - 1](&t);
    q16_join(r->high, 8, r->acc, rows, first, sums);
}

/* Blocks [from, to) cut into runs whose sums stay within int32, as far as the first block that might not; returns how
 * many blocks they are. */
static inline size_t q16_runs(const struct q16 *r, const struct q16_columns *c, const float *squares, size_t from,
                              size_t to, size_t *units, size_t *count)
{
    float x = 0, w = 0;
    size_t block = from;
    *count = 0;
    for (; block < to && squares[block] * c->squares[block] < Q16_LIMIT; block++) {
        const size_t left = r->rows.units - block * Q16_BLOCK_PAIRS;
        x += squares[block];
        w += c->squares[block];
        if (*count == 0 || x * w >= Q16_LIMIT) {
            x = squares[block];
            w = c->squares[block];
            units[(*count)++] = 0;
        }
        units[*count - 1] += left < Q16_BLOCK_PAIRS ? left : Q16_BLOCK_PAIRS;
    }
    return block - from;
}

/* Row panel i against the blocks of depth [from, to). True: r->acc has the whole sums, and nothing else has. */
static inline bool q16_panel(struct q16 *r, const struct q16_columns *c, size_t i, size_t rows, size_t from, size_t to)
{
    const uint8_t *a = r->rows.a + i * r->rows.stride;
    const float *squares = r->squares + i / TILE_ROWS * r->blocks;
    int64_t *sums = r->sums + i * TILE_COLS;
    for (size_t block = from; block < to;) {
        size_t units[Q16_DEPTH_BLOCKS], count;
        const bool first = block == 0;
        const size_t blocks = q16_runs(r, c, squares, block, to, units, &count);
        if (blocks) {
            const struct q16_tile t = {.a = a + block * Q16_BLOCK_PAIRS * UNIT_BYTES,
                                       .stride = r->rows.stride,
                                       .b = c->words + block * Q16_BLOCK_PAIRS * TILE_COLS * UNIT_BYTES,
                                       .vectors = c->vectors,
                                       .count = count,
                                       .units = units,
                                       .acc = r->acc,
                                       .high = r->high};
            memset(r->high, 0, count > 1 || r->blocks > blocks ? rows * TILE_COLS * sizeof *r->high : 0);
            r->tiles[rows - 1](&t);
            if (count == 1 && blocks == r->blocks)
                return true;
            q16_join(r->high, Q16_CARRY_BITS, r->acc, rows, first, sums);
        } else {
            q16_twice(r, c, a, rows, block, first, sums);
        }
        block += blocks ? blocks : 1;
    }
    return false;
}

/* Exact sums become floats by one rounding. */
static inline void q16_round(const int64_t *sums, size_t rows, int32_t *acc)
{
    for (size_t i = 0; i < rows * TILE_COLS; i += QD_SIMD_FLOATS)
        vi_store(acc + i, vi_from_bits(sums ? vf_from_sums(sums + i) : vf_from_vi(vi_load(acc + i))));
}

static inline void q16_column_panel(struct q16 *r, const struct q16_columns *c)
{
    for (size_t from = 0; from < r->blocks; from += Q16_DEPTH_BLOCKS) {
        const size_t to = r->blocks - from < Q16_DEPTH_BLOCKS ? r->blocks : from + Q16_DEPTH_BLOCKS;
        for (size_t i = 0; i < r->rows.rows; i += TILE_ROWS) {
            const size_t rows = r->rows.rows - i < TILE_ROWS ? r->rows.rows - i : TILE_ROWS;
            const bool whole = q16_panel(r, c, i, rows, from, to);
            if (to < r->blocks)
                continue;
            q16_round(whole ? NULL : r->sums + i * TILE_COLS, rows, r->acc);
            tile_epilogue_run(&r->epilogue, &(struct tile_block){r->acc, rows, c->cols, r->rows.row + i, c->col});
        }
    }
}

static inline void q16_place_scratch(struct q16 *r, size_t most, void *scratch)
{
    uint8_t *at = scratch;
    r->rows.panel = at;
    r->acc = (int32_t *)(void *)(at += most * gemm_copy_stride(r->rows.units));
    r->high = (int32_t *)(void *)(at += Q16_TILE_BYTES);
    r->sums = (int64_t *)(void *)(at += Q16_TILE_BYTES);
    r->high_plane = at += most * TILE_COLS * sizeof(int64_t);
    r->low_plane = at += Q16_PLANE_BYTES;
    r->squares = (float *)(void *)(at + Q16_PLANE_BYTES);
}

static inline void q16_run(void (*const *tiles)(const struct q16_tile *t), const struct qd_gemm_args *args)
{
    struct q16 r = {.rows = {.g = &Q16_SHAPE, .args = args, .units = q16_pairs(args->k)},
                    .tiles = tiles,
                    .blocks = q16_blocks(args->k),
                    .panel_bytes = q16_panel_bytes(args->k, TILE_COLS)};
    const size_t most = gemm_block_rows(&Q16_SHAPE, r.rows.units), rows = args->row_end - args->row_begin;
    const size_t panels = (rows + TILE_ROWS - 1) / TILE_ROWS, blocks = (rows + most - 1) / most;
    const size_t step = blocks ? (panels + blocks - 1) / blocks * TILE_ROWS : TILE_ROWS;
    q16_place_scratch(&r, most, args->scratch);
    QD_SIMD_NAME(qd_tile_epilogue_begin)(&r.epilogue, &args->epilogue, false, args->col_begin, args->col_end, 0);
    for (size_t row = args->row_begin; row < args->row_end; row += step) {
        gemm_take_rows(&r.rows, row, args->row_end - row < step ? args->row_end - row : step);
        q16_squares(&r);
        for (size_t col = args->col_begin; col < args->col_end; col += TILE_COLS) {
            const size_t cols = args->col_end - col < TILE_COLS ? args->col_end - col : TILE_COLS;
            const uint8_t *panel = (const uint8_t *)args->b + col / TILE_COLS * r.panel_bytes;
            const struct q16_columns c = {col, cols, cols > QD_SIMD_FLOATS ? 2 : 1, panel,
                                          (const float *)(const void *)(panel + q16_words_bytes(args->k, TILE_COLS))};
            q16_column_panel(&r, &c);
        }
    }
    QD_SIMD_NAME(qd_tile_epilogue_end)
    (&r.epilogue, (uint64_t)(args->row_end - args->row_begin) * (args->col_end - args->col_begin));
}

#endif
#endif
