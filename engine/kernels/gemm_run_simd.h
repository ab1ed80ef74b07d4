/* The loops around a tile (gemm_simd.h), the same for every matrix product of every ISA: a block of A's rows, then
 * panel after panel of B's columns, then blocks of the depth, then the row panels, each tile ended by the epilogue.
 * Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_GEMM_RUN_SIMD_H
#define QD_ENGINE_KERNELS_GEMM_RUN_SIMD_H

#include "engine/kernels/gemm_rows_simd.h"

#ifdef QD_SIMD_FLOATS

/* A panel of B and what its accumulators begin with. */
struct gemm_columns {
    size_t col, cols, depths;
    const int32_t *start;
};

/* Every row panel against block d of the depth. */
static inline void gemm_multiply(struct gemm *r, const struct gemm_columns *c, size_t d)
{
    const struct gemm_shape *g = r->g;
    const struct qd_rows *rows = &r->args->a;
    const struct gemm_depth depth = gemm_depth_of(r, d, c->depths);
    const size_t step = TILE_COLS * UNIT_BYTES / g->growth, bytes = depth.units * depth.taps * step;
    const bool widen = g->growth > 1 && r->rows > 2 * g->mr, wait = d != 0;
    const bool last = d + 1 == c->depths;
    const uint8_t *b = (const uint8_t *)r->args->b + (c->col / TILE_COLS * r->units + depth.begin) * step;
    const uint8_t *next = b + bytes, *end = next + bytes; /* the next depth, or the next panel */
    const size_t most_held = r->units <= SHALLOW_UNITS ? HELD_ROWS : g->mr;
    size_t held = 0; /* rows that wait for the epilogue */
    if (widen) {
        bytes_widen_s8(b, bytes, r->widened);
        b = r->widened;
    }
    for (size_t i = 0; i < r->rows; i += g->mr, next += depth.units * depth.taps * 32) {
        const size_t here = r->rows - i < g->mr ? r->rows - i : g->mr;
        int32_t *acc = r->acc + (c->depths > 1 ? i : held) * TILE_COLS;
        struct tile t = {.b = b,
                         .units = depth.units,
                         .vectors = c->cols > QD_SIMD_FLOATS ? 2 : 1,
                         .from = wait ? acc : c->start,
                         .from_step = wait ? TILE_COLS : 0,
                         .acc = acc,
                         .ahead = r->far && next < end ? next : NULL};
        if (r->by_taps) {
            t.table = rows->table + (r->row + i) * rows->taps + depth.tap;
            t.table_step = rows->taps;
            t.taps = depth.taps;
            t.offset = rows->offset_bytes + depth.offset;
            g->taps[here - 1](&t);
        } else {
            t.a = r->a + i * r->stride + depth.begin * UNIT_BYTES;
            t.stride = r->stride;
            (g->growth > 1 && !widen ? g->narrow : g->tiles)[here - 1](&t);
        }
        held += here;
        if (last && (held + g->mr > most_held || i + here == r->rows)) {
            const size_t first = i + here - held;
            int32_t *const all = r->acc + (c->depths > 1 ? first * TILE_COLS : 0);
            tile_epilogue_run(&r->epilogue, &(struct tile_block){all, held, c->cols, r->row + first, c->col});
            held = 0;
        }
    }
}

static inline void gemm_columns(struct gemm *r, size_t col, size_t cols)
{
    int32_t room[TILE_COLS];
    const struct gemm_columns c = {col, cols, gemm_depth_count(r), gemm_start(r, col, cols, room)};
    for (size_t d = 0; d < c.depths; d++)
        gemm_multiply(r, &c, d);
}

/* A single row: B is read once, several panels side by side. */
static inline size_t gemm_wide(struct gemm *r)
{
    const struct qd_gemm_args *args = r->args;
    const size_t panel_bytes = TILE_COLS * r->units * UNIT_BYTES / r->g->growth;
    static const int32_t zeros[WIDE_PANELS * TILE_COLS];
    const int32_t *init = r->g->integer && !args->epilogue.rows ? args->epilogue.acc_init : NULL;
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
    r.widened = (uint8_t *)(r.acc + (most > HELD_ROWS ? most : HELD_ROWS) * TILE_COLS);
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
