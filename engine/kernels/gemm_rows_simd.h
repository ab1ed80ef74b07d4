/* What a call of a matrix product works on: a block of A's rows, read where it is, by taps or from a copy, and the
 * blocks its depth is cut into. Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_GEMM_ROWS_SIMD_H
#define QD_ENGINE_KERNELS_GEMM_ROWS_SIMD_H

#include "engine/kernels/gemm_simd.h"

#ifdef QD_SIMD_FLOATS

/* One call. Scratch: rows of A, accumulators, a widened panel of B, a line of A before it is widened. */
struct gemm {
    const struct gemm_shape *g;
    const struct qd_gemm_args *args;
    struct tile_epilogue epilogue;
    size_t units, row, rows; /* of the block */
    bool by_taps;            /* tiles follow the table; else a and stride */
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

/* None longer than DEPTH_UNITS, or half as much again for a single one. */
static inline size_t gemm_depths(size_t units)
{
    return units <= DEPTH_UNITS + DEPTH_UNITS / 2 ? 1 : (units + DEPTH_UNITS - 1) / DEPTH_UNITS;
}

static inline size_t gemm_scratch_bytes(const struct gemm_shape *g, size_t units)
{
    size_t rows = gemm_block_rows(g, units), acc = rows > HELD_ROWS ? rows : HELD_ROWS;
    size_t widened = g->growth > 1 ? (DEPTH_UNITS + DEPTH_UNITS / 2) * TILE_COLS * UNIT_BYTES : 0;
    size_t line = g->growth > 1 ? (units * UNIT_BYTES / g->growth + 63) / 64 * 64 : 0;
    return rows * gemm_copy_stride(units) + acc * TILE_COLS * sizeof(int32_t) + widened + line;
}

/* Can tiles read A where it is? Rows that lie a multiple of the cache's way apart would drive each other out. */
static inline bool gemm_reads_in_place(const struct gemm_shape *g, const struct qd_rows *a)
{
    return g->growth == 1 && !a->table && a->taps == 1 && a->tap_bytes % UNIT_BYTES == 0 && a->stride_bytes % 4096 != 0;
}

static inline bool gemm_reads_by_taps(const struct gemm_shape *g, const struct qd_rows *a)
{
    return g->taps && a->table && a->tap_bytes % UNIT_BYTES == 0 && a->tap_bytes >= TAP_BYTES_MIN;
}

static inline void gemm_take_rows(struct gemm *r, size_t row, size_t rows)
{
    const struct qd_rows *a = &r->args->a;
    r->row = row;
    r->rows = rows;
    r->by_taps = rows > 1 && gemm_reads_by_taps(r->g, a);
    if (r->by_taps)
        return;
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
    const int32_t *init = r->args->epilogue.rows ? NULL : r->args->epilogue.acc_init;
    if (r->g->integer && init && cols == TILE_COLS)
        return init + col;
    for (size_t j = 0; j < TILE_COLS; j++)
        room[j] = r->g->integer && init && j < cols ? init[col + j] : 0;
    return room;
}

/* A block of the depth: `units` units from `begin` on, or by taps `units` of each of `taps` taps from `tap` on. */
struct gemm_depth {
    size_t begin, units, tap, taps, offset;
};

/* How many of them. By taps: whole taps as long as one is not too long by itself, else parts of each. */
static inline size_t gemm_depth_count(const struct gemm *r)
{
    const struct qd_rows *a = &r->args->a;
    if (!r->by_taps || gemm_depths(r->units) == 1)
        return gemm_depths(r->units);
    const size_t tap_units = a->tap_bytes / UNIT_BYTES, each = DEPTH_UNITS / tap_units;
    return each ? (a->taps + each - 1) / each : a->taps * gemm_depths(tap_units);
}

static inline struct gemm_depth gemm_depth_of(const struct gemm *r, size_t d, size_t depths)
{
    const struct qd_rows *a = &r->args->a;
    if (!r->by_taps) {
        const size_t begin = d * r->units / depths;
        return (struct gemm_depth){begin, (d + 1) * r->units / depths - begin, 0, 1, 0};
    }
    const size_t tap_units = a->tap_bytes / UNIT_BYTES, parts = depths > a->taps ? depths / a->taps : 1;
    if (parts > 1) {
        const size_t tap = d / parts, part = d % parts, begin = part * tap_units / parts;
        return (struct gemm_depth){tap * tap_units + begin, (part + 1) * tap_units / parts - begin, tap, 1,
                                   begin * UNIT_BYTES};
    }
    const size_t tap = d * a->taps / depths;
    return (struct gemm_depth){tap * tap_units, tap_units, tap, (d + 1) * a->taps / depths - tap, 0};
}

#endif
#endif
