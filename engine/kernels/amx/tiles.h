/* What AMX's kernels share: how the eight tiles are laid out. Private to this folder. */
#ifndef QD_ENGINE_KERNELS_AMX_TILES_H
#define QD_ENGINE_KERNELS_AMX_TILES_H

#include "engine/kernels/epilogue_simd.h"

#include <stdatomic.h>

enum {
    NR = TILE_COLS,
    UNIT_BYTES = 4,
    UNIT_COLS_BYTES = NR * UNIT_BYTES, /* of a panel of B */
    GROUP_ROWS = 16,                   /* of a tile */
    BLOCK_ROWS = 2 * GROUP_ROWS,
    STEP_UNITS = 16, /* at most, of a tile's depth */
    ACC_STEP = NR * sizeof(int32_t)
};

static inline size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

/* Tiles 0 to 3 accumulate, 4 and 5 are of A, 6 and 7 of B, `units` deep. The intrinsics are macros around statements
 * that the compiler does not take for accesses to memory, hence the fences here and wherever they are used. */
static inline void tiles_configure(size_t units)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (size_t tile = 0; tile < 8; tile++) {
        config.bytes[tile] = (uint16_t)(tile == 4 || tile == 5 ? units * UNIT_BYTES : 64);
        config.rows[tile] = (uint8_t)(tile < 6 ? GROUP_ROWS : units);
    }
    atomic_signal_fence(memory_order_seq_cst);
    _tile_loadconfig(&config);
}

/* Between rows of a copy of A; not a multiple of 512, so that rows don't fight for the same places of the cache. */
static inline size_t copy_stride_of(size_t units)
{
    const size_t stride = ceil_div(units, STEP_UNITS) * STEP_UNITS * UNIT_BYTES;
    return stride % 512 == 0 ? stride + 64 : stride;
}

#endif
