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

/* Constants of a block's columns, by value: stores of bytes could otherwise change them in the compiler's eyes. */
struct tile_columns {
    vf scale, bias, by;
    vm mask; /* columns that exist */
    size_t count;
};

/* Columns whose bytes come from accumulators at once (8a). */
struct tile_folded {
    size_t col, cols; /* 0: none yet */
    struct tile_columns columns[TILE_VECTORS];
    vf scale[TILE_VECTORS], bias[TILE_VECTORS];
    vi low, high;                   /* bytes of two rows */
    bool bounded_low, bounded_high; /* CLIP's bound isn't cut, so nothing is on that side */
    bool seen;
    vi least[TILE_VECTORS], most[TILE_VECTORS]; /* accumulators of the blocks so far that nothing was cut of */
};

/* One call of a kernel. */
struct tile_epilogue {
    const struct qd_epilogue *e;
    /* NULL, or brings accumulators to real values: where they are, or without finish in the output. */
    void (*prepare)(struct tile_epilogue *t, const struct tile_block *b);
    /* Observes and writes; NULL after a prepare that has. */
    void (*finish)(struct tile_epilogue *t, const struct tile_block *b);
    struct scaling scaling;
    struct observing seen;
    bool integer;
    bool centre;                  /* weights have zero points */
    struct tile_folded folded[2]; /* of two neighbouring blocks of columns */
    bool low;                     /* the least value that CLIP allows was seen, and isn't cut: no other can be less */
};

/* Of columns [col_begin, col_end). depth_bound: no |accumulator| before acc_init is larger; ignored for floats. */
void QD_SIMD_NAME(qd_tile_epilogue_begin)(struct tile_epilogue *t, const struct qd_epilogue *e, bool integer,
                                          size_t col_begin, size_t col_end, float depth_bound);
/* Merges what was seen of `elems` values into e->observe. */
void QD_SIMD_NAME(qd_tile_epilogue_end)(struct tile_epilogue *t, uint64_t elems);

/* (6b): what the zero points of weights make of the rows, for all columns that exist. */
static inline void tile_centre(const struct qd_epilogue *e, const struct tile_block *b)
{
    for (size_t at = 0; at < b->cols; at += QD_SIMD_FLOATS) {
        const vm mask = vm_first(b->cols - at < QD_SIMD_FLOATS ? b->cols - at : QD_SIMD_FLOATS);
        const void *from = e->weight_zeros + b->col + at;
        const vi zeros = vi_from_bits(vf_load_some((const float *)from, mask));
        for (size_t i = 0; i < b->rows; i++) {
            int32_t *acc = b->acc + i * TILE_COLS + at;
            vi_store(acc, vi_sub(vi_load(acc), vi_mul(zeros, vi_set(e->row_sums[b->row + i]))));
        }
    }
}

static inline void tile_epilogue_run(struct tile_epilogue *t, const struct tile_block *b)
{
    if (t->centre)
        tile_centre(t->e, b);
    if (t->prepare)
        t->prepare(t, b);
    if (t->finish)
        t->finish(t, b);
}

#endif
#endif
