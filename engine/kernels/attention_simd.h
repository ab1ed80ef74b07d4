/* Rows of a softmax before their division, many values at a time; bit by bit what scalar/attention.c does. Private to
 * the kernel folders. */
#ifndef QD_ENGINE_KERNELS_ATTENTION_SIMD_H
#define QD_ENGINE_KERNELS_ATTENTION_SIMD_H

#include "engine/kernels/attention_plain.h"
#include "engine/kernels/functions_simd.h"

#ifdef QD_SIMD_FLOATS

/* Of equal zeros any, NaN passed over: neither shows in a difference. */
static inline float attention_row_largest(const float *x, size_t n)
{
    vf most[4];
    size_t j = 0;
    for (size_t v = 0; v < 4; v++)
        most[v] = vf_set(-INFINITY);
    for (; j + 4 * QD_SIMD_FLOATS <= n; j += 4 * QD_SIMD_FLOATS)
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
            most[v] = vf_max(vf_load(x + j + v * QD_SIMD_FLOATS), most[v]);
    for (; j < n; j += QD_SIMD_FLOATS) {
        const vm m = vm_first(n - j < QD_SIMD_FLOATS ? n - j : QD_SIMD_FLOATS);
        most[0] = vf_max_some(most[0], m, vf_load_some(x + j, m));
    }
    return vf_reduce_max(vf_max(vf_max(most[0], most[1]), vf_max(most[2], most[3])));
}

/* Columns j of one row, n of them or a whole vector. */
QD_INLINE vf attention_exp(float *x, vf most, const bool whole, size_t n)
{
    const vm m = vm_first(n);
    const vf e = vf_exp_below(vf_sub(whole ? vf_load(x) : vf_load_some(x, m), most));
    if (whole)
        vf_store(x, e);
    else
        vf_store_some(x, m, e);
    return whole ? e : vf_pick(m, e, vf_set(0.0f));
}

static inline void attention_exp_rows_f32(float *x, size_t rows, size_t n, size_t stride, float *sums)
{
    enum { VECTORS = ATTENTION_PARTS / QD_SIMD_FLOATS };
    for (size_t i = 0; i < rows; i++, x += stride) {
        const vf most = vf_set(attention_row_largest(x, n));
        float parts[ATTENTION_PARTS];
        vf sum[VECTORS];
        size_t j = 0;
        for (size_t v = 0; v < VECTORS; v++)
            sum[v] = vf_set(0.0f);
        for (; j + ATTENTION_PARTS <= n; j += ATTENTION_PARTS)
#pragma GCC unroll 2
            for (size_t v = 0; v < VECTORS; v++)
                sum[v] = vf_add(sum[v], attention_exp(x + j + v * QD_SIMD_FLOATS, most, true, QD_SIMD_FLOATS));
        for (size_t v = 0; v < VECTORS && j < n; v++, j += QD_SIMD_FLOATS)
            sum[v] = vf_add(sum[v], attention_exp(x + j, most, false, n - j < QD_SIMD_FLOATS ? n - j : QD_SIMD_FLOATS));
        for (size_t v = 0; v < VECTORS; v++)
            vf_store(parts + v * QD_SIMD_FLOATS, sum[v]);
        sums[i] = attention_join(parts);
    }
}

/* attention_weight of a vector. */
QD_INLINE vi attention_weights(vf below)
{
    const vf rounder = vf_set(ATTENTION_ROUND);
    const vf y = vf_max(vf_mul(below, vf_set(ATTENTION_LOG2E)), vf_set(ATTENTION_LEAST));
    const vf rounded = vf_add(y, rounder), f = vf_sub(y, vf_sub(rounded, rounder));
    vf p = vf_fma(vf_set(ATTENTION_C3), f, vf_set(ATTENTION_C2));
    p = vf_fma(p, f, vf_set(ATTENTION_C1));
    p = vf_fma(p, f, vf_set(ATTENTION_C0));
    return vi_from_vf(vf_from_bits(vi_add(vi_from_bits(p), vi_exponent_up(vi_from_bits(rounded)))));
}

static inline void attention_exp_rows_u16(const float *x, size_t rows, size_t n, size_t stride, uint8_t *high,
                                          uint8_t *low, size_t out_stride, float *sums)
{
    for (size_t i = 0; i < rows; i++, x += stride, high += out_stride, low += out_stride) {
        const vf most = vf_set(attention_row_largest(x, n));
        int32_t parts[QD_SIMD_FLOATS];
        uint32_t sum = 0;
        vi total = vi_set(0);
        size_t j = 0;
        for (; j + QD_SIMD_FLOATS <= n; j += QD_SIMD_FLOATS) {
            const vi weights = attention_weights(vf_sub(vf_load(x + j), most));
            vi_store_u8(high + j, vi_high_bytes(weights), QD_SIMD_FLOATS);
            vi_store_u8(low + j, vi_low_byte(weights), QD_SIMD_FLOATS);
            total = vi_add(total, weights);
        }
        vi_store(parts, total);
        for (size_t v = 0; v < QD_SIMD_FLOATS; v++)
            sum += (uint32_t)parts[v];
        sum += attention_rest(x, j, n, vf_reduce_max(most), high, low);
        sums[i] = (float)sum;
    }
}

static inline void attention_quantize_columns_s8(const float *x, size_t rows, size_t stride, size_t n, int8_t *q,
                                                 float *scale)
{
    const vf zero = vf_set(0.0f), least = vf_set(-127.0f), highest = vf_set(127.0f);
    size_t j = 0;
    for (; j + QD_SIMD_FLOATS <= n; j += QD_SIMD_FLOATS) {
        vf most = zero, poison = zero;
        float inv[QD_SIMD_FLOATS];
        for (size_t i = 0; i < rows; i++) {
            const vf column = vf_load(x + i * stride + j);
            most = vf_max(vf_abs(column), most);
            poison = vf_fma(column, zero, poison); /* NaN from NaN and infinities, else 0 */
        }
        vf_store(scale + j, most);
        for (size_t v = 0; v < QD_SIMD_FLOATS; v++) {
            scale[j + v] = qd_weight_scale_s8(scale[j + v]);
            inv[v] = 1.0f / scale[j + v];
        }
        vf_store(scale + j, vf_add(vf_load(scale + j), poison));
        const vf factor = vf_load(inv);
        for (size_t i = 0; i < rows; i++) {
            const vf y = vf_min(vf_max(vf_mul(vf_load(x + i * stride + j), factor), least), highest);
            vi_store_u8((uint8_t *)q + i * n + j, vi_low_byte(vi_from_vf(y)), QD_SIMD_FLOATS);
        }
    }
    for (; j < n; j++)
        attention_column(x + j, rows, stride, q + j, n, scale + j);
}

static inline void attention_join_rows(const struct qd_join *join)
{
    const vf shift = vf_set(join->shift);
    const size_t n = join->n;
    for (size_t i = 0; i < join->rows; i++) {
        const float *a = join->a + i * n, *b = join->b ? join->b + i * n : NULL;
        const vf factor = vf_set(join->factor[i]);
        float *out = join->out + i * join->out_stride;
        for (size_t j = 0; j < n; j += QD_SIMD_FLOATS) {
            const vm some = vm_first(n - j < QD_SIMD_FLOATS ? n - j : QD_SIMD_FLOATS);
            vf x = vf_load_some(a + j, some);
            if (b)
                x = vf_add(x, vf_load_some(b + j, some));
            vf_store_some(out + j, some, vf_add(vf_mul(x, factor), shift));
        }
    }
}

#endif
#endif
