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
    size_t planes, plane_bytes; /* of B, whose sums continue in int64; 0: in int32 */
    int64_t *sums;              /* [rows][TILE_COLS] */
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

/* `strict`: none longer than DEPTH_UNITS, else half as much again for a single one. */
static inline size_t gemm_depths(size_t units, bool strict)
{
    return !strict && units <= DEPTH_UNITS + DEPTH_UNITS / 2 ? 1 : (units + DEPTH_UNITS - 1) / DEPTH_UNITS;
}

static inline size_t gemm_scratch_bytes(const struct gemm_shape *g, size_t units)
{
    size_t rows = gemm_block_rows(g, units), acc = rows > WIDE_PANELS ? rows : WIDE_PANELS;
    size_t widened = g->growth > 1 ? (DEPTH_UNITS + DEPTH_UNITS / 2) * TILE_COLS * UNIT_BYTES : 0;
    size_t line = g->growth > 1 ? (units * UNIT_BYTES / g->growth + 63) / 64 * 64 : 0;
    size_t sums = g->continues ? rows * TILE_COLS * sizeof(int64_t) : 0;
    return rows * gemm_copy_stride(units) + acc * TILE_COLS * sizeof(int32_t) + sums + widened + line;
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

/* Sums of another block of the depth, `shift` bits below what is there. */
static inline void gemm_continue(const int32_t *acc, size_t rows, bool first, unsigned shift, int64_t *sums)
{
    for (size_t i = 0; i < rows * TILE_COLS; i += QD_SIMD_FLOATS)
        sums_add(sums + i, vi_load(acc + i), first, shift);
}

static inline void gemm_round(const int64_t *sums, size_t rows, int32_t *acc)
{
    for (size_t i = 0; i < rows * TILE_COLS; i += QD_SIMD_FLOATS)
        vi_store(acc + i, vi_from_bits(vf_from_sums(sums + i)));
}

/* A panel of B and what its accumulators begin with. */
struct gemm_columns {
    size_t col, cols, depths;
    const int32_t *start;
};

/* Every row panel against block d of the depth of plane `plane`. */
static inline void gemm_depth(struct gemm *r, const struct gemm_columns *c, size_t plane, size_t d)
{
    const struct gemm_shape *g = r->g;
    const size_t begin = d * r->units / c->depths, units = (d + 1) * r->units / c->depths - begin;
    const size_t step = TILE_COLS * UNIT_BYTES / g->growth;
    const bool widen = g->growth > 1 && r->rows > 2 * g->mr, wait = !r->planes && d;
    const bool last = d + 1 == c->depths && plane + 1 >= r->planes;
    const unsigned shift = plane && d == 0 ? 8 : 0;
    const uint8_t *b = (const uint8_t *)r->args->b + plane * r->plane_bytes + c->col / TILE_COLS * r->units * step +
                       begin * step;
    const uint8_t *next = b + units * step, *end = next + units * step; /* the next depth, or the next panel */
    if (widen) {
        bytes_widen_s8(b, units * step, r->widened);
        b = r->widened;
    }
    for (size_t i = 0; i < r->rows; i += g->mr, next += units * 32) {
        const size_t here = r->rows - i < g->mr ? r->rows - i : g->mr;
        int32_t *acc = r->acc + (c->depths > 1 && !r->planes ? i * TILE_COLS : 0);
        const struct tile t = {.a = r->a + i * r->stride + begin * UNIT_BYTES,
                               .stride = r->stride,
                               .b = b,
                               .ahead = r->far && next < end ? next : NULL,
                               .units = units,
                               .vectors = c->cols > QD_SIMD_FLOATS ? 2 : 1,
                               .from = wait ? acc : c->start,
                               .from_step = wait ? TILE_COLS : 0,
                               .acc = acc};
        (g->growth > 1 && !widen ? g->narrow : g->tiles)[here - 1](&t);
        if (r->planes) {
            gemm_continue(acc, here, d == 0 && plane == 0, shift, r->sums + i * TILE_COLS);
            if (last)
                gemm_round(r->sums + i * TILE_COLS, here, acc);
        }
        if (last)
            tile_epilogue_run(&r->epilogue, &(struct tile_block){acc, here, c->cols, r->row + i, c->col});
    }
}

static inline void gemm_columns(struct gemm *r, size_t col, size_t cols)
{
    int32_t room[TILE_COLS];
    const struct gemm_columns c = {col, cols, gemm_depths(r->units, r->planes != 0), gemm_start(r, col, cols, room)};
    for (size_t plane = 0; plane < (r->planes ? r->planes : 1); plane++)
        for (size_t d = 0; d < c.depths; d++)
            gemm_depth(r, &c, plane, d);
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

/* planes: 0, or of B, from the highest on, eight bits apart; sums then continue in int64. */
static inline void gemm_run(const struct gemm_shape *g, const struct qd_gemm_args *args, size_t units, size_t planes)
{
    const size_t most = gemm_block_rows(g, units), rows = args->row_end - args->row_begin;
    const size_t panels = (rows + g->mr - 1) / g->mr, blocks = (rows + most - 1) / most;
    const size_t block = blocks ? (panels + blocks - 1) / blocks * g->mr : g->mr;
    struct gemm r = {.g = g, .args = args, .units = units, .planes = planes, .panel = args->scratch};
    r.plane_bytes = (args->n + TILE_COLS - 1) / TILE_COLS * TILE_COLS * units * UNIT_BYTES;
    QD_SIMD_NAME(qd_tile_epilogue_begin)
    (&r.epilogue, &args->epilogue, g->integer && !planes, args->col_begin, args->col_end,
     (float)args->k * g->product_max);
    r.far = (args->col_end - args->col_begin) * units * UNIT_BYTES / g->growth > FAR_BYTES;
    r.acc = (int32_t *)(void *)(r.panel + most * gemm_copy_stride(units));
    r.sums = (int64_t *)(void *)(r.acc + (most > WIDE_PANELS ? most : WIDE_PANELS) * TILE_COLS);
    r.widened = (uint8_t *)(r.sums + (g->continues ? most * TILE_COLS : 0));
    r.line = r.widened + (g->growth > 1 ? (DEPTH_UNITS + DEPTH_UNITS / 2) * TILE_COLS * UNIT_BYTES : 0);
    for (size_t row = args->row_begin; row < args->row_end; row += block) {
        gemm_take_rows(&r, row, args->row_end - row < block ? args->row_end - row : block);
        size_t col = r.rows == 1 && !planes ? gemm_wide(&r) : args->col_begin;
        for (; col < args->col_end; col += TILE_COLS)
            gemm_columns(&r, col, args->col_end - col < TILE_COLS ? args->col_end - col : TILE_COLS);
    }
    QD_SIMD_NAME(qd_tile_epilogue_end)
    (&r.epilogue, (uint64_t)(args->row_end - args->row_begin) * (args->col_end - args->col_begin));
}

#endif
#endif
