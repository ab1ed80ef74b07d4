/* Sums of the bytes of rows of A, a register of bytes at a time: what zero points of weights need of the activations.
 * Only for <isa>/vector.c. */
#ifndef QD_ENGINE_KERNELS_SUM_ROWS_SIMD_H
#define QD_ENGINE_KERNELS_SUM_ROWS_SIMD_H

#include "engine/kernels/rows.h"
#include "engine/kernels/simd.h"

#ifdef QD_SIMD_FLOATS

static inline void vector_sum_rows(const struct qd_rows *a, size_t rows, int32_t *sums)
{
    for (size_t i = 0; i < rows; i++) {
        int32_t lanes[QD_SIMD_FLOATS];
        vi sum = vi_set(0);
        for (size_t tap = 0; tap < a->taps; tap++) {
            const uint8_t *piece = rows_piece(a, i, tap);
            size_t left = a->tap_bytes;
            for (; left >= QD_SIMD_BYTES; left -= QD_SIMD_BYTES, piece += QD_SIMD_BYTES)
                sum = vi_add_bytes(sum, vi_load_bytes(piece));
            if (left) {
                uint8_t line[QD_SIMD_BYTES] = {0};
                rows_copy(line, piece, left);
                sum = vi_add_bytes(sum, vi_load_bytes(line));
            }
        }
        vi_store(lanes, sum);
        sums[i] = 0;
        for (size_t lane = 0; lane < QD_SIMD_FLOATS; lane++)
            sums[i] += lanes[lane];
    }
}

#endif
#endif
