/* Packing of B for matrix products at run time, where a side of it is contiguous: columns of floats are copied or
 * transposed in registers. Bytes for VNNI are in avx512vnni/gemm_q8.c. Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_PACK_SIMD_H
#define QD_ENGINE_KERNELS_PACK_SIMD_H

#include "engine/kernels/dispatch.h"
#include "engine/kernels/gemm_simd.h"

#ifdef QD_SIMD_FLOATS

/* Whole panels of [k][TILE_COLS] floats; returns how many columns it did. Not for factors. */
static inline size_t pack_panels_f32(size_t n, size_t k, const float *w, size_t row_stride, size_t col_stride,
                                     float *to)
{
    size_t col = 0;
    if (row_stride != 1 && col_stride != 1)
        return 0;
    for (; col + TILE_COLS <= n; col += TILE_COLS, to += k * TILE_COLS) {
        if (col_stride == 1) {
            qd_transpose_f32__avx2(w + col * row_stride, row_stride, TILE_COLS, k, to, TILE_COLS);
            continue;
        }
        for (size_t p = 0; p < k; p++)
#pragma GCC unroll 2
            for (size_t v = 0; v < TILE_VECTORS; v++)
                vf_store(to + p * TILE_COLS + v * QD_SIMD_FLOATS,
                         vf_load(w + p * col_stride + col + v * QD_SIMD_FLOATS));
    }
    return col;
}

#endif
#endif
