/* The loops around a tile (gemm_simd.h), the same for every matrix product of every ISA: a block of A's rows, then
 * panel after panel of B's columns, then blocks of the depth, then the row panels, each tile ended by the epilogue.
 * Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_GEMM_RUN_SIMD_H
#define QD_ENGINE_KERNELS_GEMM_RUN_SIMD_H

#include "engine/kernels/gemm_simd.h"

#ifdef QD_SIMD_FLOATS

/* One call. Scratch: rows of A, accumulators, a widened panel of B, a line of A before it is widened. */
struct gemm {
    const struct gemm_shape *g;
    const struct qd_gemm_args *args;
    struct tile_epilogue epilogue;
    size_t units, row, rows; /* of the block */
    const uint8_t *a;
    size_t stride;
    uint8_t *panel, *widened, *line;
    bool far; /* B is larger than what the second cache keeps beside A */
    int32_t *acc;
};

/* Between rows of the copy of A; not a multiple of 512, so that rows don't fight for the same places of the cache. */
static inline size_t gemm_copy_stride(size_t units)
{
    size_t stride = (units * UNIT_BYTES + 63) & ~(size_t)63;
    return stride % 512 == 0 ? stride + 64 : stride;
}

static inline size_t gemm_block_rows(const struct gemm_shape *g, size_t units)
{
    size_t panels = BLOCK_BYTES / (g->mr * gemm_copy_stride(units));
    return (panels < 1 ? 1 : panels > BLOCK_PANELS_MAX ? BLOCK_PANELS_MAX : panels) * g->mr;
}

static inline size_t gemm_depths(size_t units)
{
    return units <= DEPTH_UNITS + DEPTH_UNITS / 2 ? 1 : (units + DEPTH_UNITS - 1) / DEPTH_UNITS;
}

static inline size_t gemm_scratch_bytes(const struct gemm_shape *g, size_t units)
{
    size_t rows = gemm_block_rows(g, units), acc = rows > WIDE_PANELS ? rows : WIDE_PANELS;
    size_t widened = g->growth > 1 ? (DEPTH_UNITS + DEPTH_UNITS / 2) * TILE_COLS * UNIT_BYTES : 0;
    size_t line = g->growth > 1 ? (units * UNIT_BYTES / g->growth + 63) / 64 * 64 : 0;
    return rows * gemm_copy_stride(units) + acc * TILE_COLS * sizeof(int32_t) + widened + line;
}

/* Can tiles read A where it is? Rows that lie a multiple of the cache's way apart would drive each other out. */
static inline bool gemm_reads_in_place(const struct gemm_shape *g, const struct qd_rows *a)
{
    return g->growth == 1 && !a->table && a->taps == 1 && a->tap_bytes % UNIT_BYTES == 0 && a->stride_bytes % 4096 != 0;
}

static inline void gemm_take_rows(struct gemm *r, size_t row, size_t rows)
{
    const struct qd_rows *a = &r->args->a;
    r->row = row;
    r->rows = rows;
    if (gemm_reads_in_place(r->g, a)) {
        r->a = rows_piece(a, row, 0);
        r->stride = a->stride_bytes;
        return;
    }
    size_t bytes = a->taps * a->tap_bytes, growth = r->g->growth, whole = r->units * UNIT_BYTES / growth;
    r->a = r->panel;
    r->stride = gemm_copy_stride(r->units);
    for (size_t i = 0; i < rows; i++) {
        uint8_t *to = r->panel + i * r->stride, *line = growth > 1 ? r->line : to;
        rows_gather(a, row + i, line);
        for (size_t at = bytes; at < whole; at++)
            line[at] = 0;
        if (growth > 1)
            bytes_widen_u8(line, whole, to);
    }
}

/* What accumulators begin with: the columns' own values, or a copy of those that exist; zeros for floats. */
static inline const int32_t *gemm_start(const struct gemm *r, size_t col, size_t cols, int32_t *room)
{
    const int32_t *init = r->args->epilogue.acc_init;
    if (r->g->integer && init && cols == TILE_COLS)
        return init + col;
    for (size_t j = 0; j < TILE_COLS; j++)
        room[j] = r->g->integer && init && j < cols ? init[col + j] : 0;
    return room;
}

static inline void gemm_columns(struct gemm *r, size_t col, size_t cols)
{
    const struct gemm_shape *g = r->g;
    const size_t depths = gemm_depths(r->units), step = TILE_COLS * UNIT_BYTES / g->growth;
    const bool widen = g->growth > 1 && r->rows > 2 * g->mr;
    int32_t room[TILE_COLS];
    const int32_t *start = gemm_start(r, col, cols, room);
    for (size_t d = 0; d < depths; d++) {
        size_t begin = d * r->units / depths, units = (d + 1) * r->units / depths - begin;
        const uint8_t *b = (const uint8_t *)r->args->b + col * r->units * UNIT_BYTES / g->growth + begin * step;
        const uint8_t *next = b + units * step, *end = next + units * step; /* the next depth, or the next panel */
        if (widen) {
            bytes_widen_s8(b, units * step, r->widened);
            b = r->widened;
        }
        for (size_t i = 0; i < r->rows; i += g->mr) {
            size_t here = r->rows - i < g->mr ? r->rows - i : g->mr;
            int32_t *acc = r->acc + (depths > 1 ? i * TILE_COLS : 0);
            const struct tile t = {.a = r->a + i * r->stride + begin * UNIT_BYTES,
                                   .stride = r->stride,
                                   .b = b,
                                   .ahead = r->far && next < end ? next : NULL,
                                   .units = units,
                                   .vectors = cols > QD_SIMD_FLOATS ? 2 : 1,
                                   .from = d ? acc : start,
                                   .from_step = d ? TILE_COLS : 0,
                                   .acc = acc};
            (g->growth > 1 && !widen ? g->narrow : g->tiles)[here - 1](&t);
            next += units * 32;
            if (d + 1 == depths)
                tile_epilogue_run(&r->epilogue, &(struct tile_block){acc, here, cols, r->row + i, col});
        }
    }
}

/* A single row: B is read once, several panels side by side. */
static inline size_t gemm_wide(struct gemm *r)
{
    const struct qd_gemm_args *args = r->args;
    const size_t panel_bytes = TILE_COLS * r->units * UNIT_BYTES / r->g->growth;
    static const int32_t zeros[WIDE_PANELS * TILE_COLS];
    const int32_t *init = r->g->integer ? args->epilogue.acc_init : NULL;
    size_t col = args->col_begin;
    for (; col + WIDE_PANELS * TILE_COLS <= args->col_end; col += WIDE_PANELS * TILE_COLS) {
        const struct tile t = {.a = r->a,
                               .b = (const uint8_t *)args->b + col / TILE_COLS * panel_bytes,
                               .b_step = panel_bytes,
                               .units = r->units,
                               .from = init ? init + col : zeros,
                               .from_step = TILE_COLS,
                               .acc = r->acc};
        r->g->wide(&t);
        for (size_t p = 0; p < WIDE_PANELS; p++)
            tile_epilogue_run(&r->epilogue,
                              &(struct tile_block){r->acc + p * TILE_COLS, 1, TILE_COLS, r->row, col + p * TILE_COLS});
    }
    return col;
}

static inline void gemm_run(const struct gemm_shape *g, const struct qd_gemm_args *args, size_t units)
{
    const size_t most = gemm_block_rows(g, units), rows = args->row_end - args->row_begin;
    const size_t panels = (rows + g->mr - 1) / g->mr, blocks = (rows + most - 1) / most;
    const size_t block = blocks ? (panels + blocks - 1) / blocks * g->mr : g->mr;
    struct gemm r = {.g = g, .args = args, .units = units, .panel = args->scratch};
    QD_SIMD_NAME(qd_tile_epilogue_begin)
    (&r.epilogue, &args->epilogue, g->integer, args->col_begin, args->col_end, (float)args->k * g->product_max);
    r.far = (args->col_end - args->col_begin) * units * UNIT_BYTES / g->growth > FAR_BYTES;
    r.acc = (int32_t *)(void *)(r.panel + most * gemm_copy_stride(units));
    r.widened = (uint8_t *)(r.acc + (most > WIDE_PANELS ? most : WIDE_PANELS) * TILE_COLS);
    r.line = r.widened + (g->growth > 1 ? (DEPTH_UNITS + DEPTH_UNITS / 2) * TILE_COLS * UNIT_BYTES : 0);
    for (size_t row = args->row_begin; row < args->row_end; row += block) {
        gemm_take_rows(&r, row, args->row_end - row < block ? args->row_end - row : block);
        size_t col = r.rows == 1 ? gemm_wide(&r) : args->col_begin;
        for (; col < args->col_end; col += TILE_COLS)
            gemm_columns(&r, col, args->col_end - col < TILE_COLS ? args->col_end - col : TILE_COLS);
    }
    QD_SIMD_NAME(qd_tile_epilogue_end)
    (&r.epilogue, (uint64_t)(args->row_end - args->row_begin) * (args->col_end - args->col_begin));
}

#endif
#endif
