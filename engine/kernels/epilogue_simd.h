/* The epilogue of one tile, for the matrix products and whoever else has accumulators [rows][TILE_COLS]: what
 * <isa>/epilogue.c offers to the ISA's kernels, bit by bit what epilogue.h does. The code is epilogue_tile_simd.h,
 * compiled once per ISA for each activation. Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_EPILOGUE_SIMD_H
#define QD_ENGINE_KERNELS_EPILOGUE_SIMD_H

#include "engine/kernels/observe_simd.h"

#ifdef QD_SIMD_FLOATS

enum { TILE_VECTORS = 2, TILE_COLS = TILE_VECTORS * QD_SIMD_FLOATS };

/* Rows [row, row + rows) and columns [col, col + cols) of the output; cols <= TILE_COLS. acc[rows][TILE_COLS]: int32
 * with acc_init in it, or float in the same place; overwritten. With cols <= QD_SIMD_FLOATS nobody reads the second
 * vector of a row. */
struct tile_block {
    int32_t *acc;
    size_t rows, cols, row, col;
};

/* One call of a kernel. */
struct tile_epilogue {
    const struct qd_epilogue *e;
    /* NULL, or brings accumulators to real values where they are: residual and activation. */
    void (*prepare)(struct tile_epilogue *t, const struct tile_block *b);
    /* Observes and writes. */
    void (*finish)(struct tile_epilogue *t, const struct tile_block *b);
    struct scaling scaling;
    struct observing seen;
    bool integer;
};

/* Of columns [col_begin, col_end). depth_bound: no |accumulator| before acc_init is larger; ignored for floats. */
void QD_SIMD_NAME(qd_tile_epilogue_begin)(struct tile_epilogue *t, const struct qd_epilogue *e, bool integer,
                                          size_t col_begin, size_t col_end, float depth_bound);
/* Merges what was seen of `elems` values into e->observe. */
void QD_SIMD_NAME(qd_tile_epilogue_end)(struct tile_epilogue *t, uint64_t elems);

static inline void tile_epilogue_run(struct tile_epilogue *t, const struct tile_block *b)
{
    if (t->prepare)
        t->prepare(t, b);
    t->finish(t, b);
}

#endif
#endif
