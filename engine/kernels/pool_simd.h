/* Pooling of rows (channels last), many values at a time; each ISA's pool.c gives them their names. Bit by bit what
 * scalar/pool.c does. Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_POOL_SIMD_H
#define QD_ENGINE_KERNELS_POOL_SIMD_H

#include "engine/kernels/simd.h"

#ifdef QD_SIMD_FLOATS

#include <math.h>
#include <stdbool.h>

QD_INLINE void pool_max_rows_f32(const float *const *in, size_t rows, size_t n, float *out)
{
    for (size_t j = 0; j < n; j += QD_SIMD_FLOATS) {
        size_t lanes = n - j < QD_SIMD_FLOATS ? n - j : QD_SIMD_FLOATS;
        vm mask = vm_first(lanes);
        vf best = vf_load_some(in[0] + j, mask);
        vm nan = vm_unordered(best);
        for (size_t i = 1; i < rows; i++) {
            vf x = vf_load_some(in[i] + j, mask);
            nan = vm_or(nan, vm_unordered(x));
            best = vf_max(x, best);
        }
        if (!vm_count(nan)) {
            vf_store_some(out + j, mask, best);
            continue;
        }
        for (size_t l = j; l < j + lanes; l++) { /* rare: a NaN wins, and vf_max forgets it */
            float one = in[0][l];
            for (size_t i = 1; i < rows; i++)
                one = in[i][l] > one || isnan(in[i][l]) ? in[i][l] : one;
            out[l] = one;
        }
    }
}

QD_INLINE void pool_mean_rows_f32(const float *const *in, size_t rows, size_t n, float factor, float *out)
{
    const vf by = vf_set(factor);
    for (size_t j = 0; j < n; j += QD_SIMD_FLOATS) {
        vm mask = vm_first(n - j < QD_SIMD_FLOATS ? n - j : QD_SIMD_FLOATS);
        vf sum = vf_load_some(in[0] + j, mask);
        for (size_t i = 1; i < rows; i++)
            sum = vf_add(sum, vf_load_some(in[i] + j, mask));
        vf_store_some(out + j, mask, vf_mul(sum, by));
    }
}

QD_INLINE void pool_weigh_rows_f32(const float *const *in, const float *weight, size_t rows, size_t n, float *out)
{
    for (size_t j = 0; j < n; j += QD_SIMD_FLOATS) {
        vm mask = vm_first(n - j < QD_SIMD_FLOATS ? n - j : QD_SIMD_FLOATS);
        vf sum = vf_mul(vf_load_some(in[0] + j, mask), vf_set(weight[0]));
        for (size_t i = 1; i < rows; i++)
            sum = vf_add(sum, vf_mul(vf_load_some(in[i] + j, mask), vf_set(weight[i])));
        vf_store_some(out + j, mask, sum);
    }
}

QD_INLINE void pool_mean_rows_u8(const uint8_t *const *in, size_t rows, size_t n, int32_t offset, float factor,
                                 float *out)
{
    const vf by = vf_set(factor);
    for (size_t j = 0; j < n; j += QD_SIMD_FLOATS) {
        size_t lanes = n - j < QD_SIMD_FLOATS ? n - j : QD_SIMD_FLOATS;
        vi sum = vi_set(offset);
        if (lanes == QD_SIMD_FLOATS)
            for (size_t i = 0; i < rows; i++)
                sum = vi_add(sum, vi_load_u8(in[i] + j, QD_SIMD_FLOATS));
        else
            for (size_t i = 0; i < rows; i++)
                sum = vi_add(sum, vi_load_u8(in[i] + j, lanes));
        vf_store_some(out + j, vm_first(lanes), vf_mul(vf_from_vi(sum), by));
    }
}

#endif
#endif
