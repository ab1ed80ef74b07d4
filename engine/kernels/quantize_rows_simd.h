/* Rows that get a scale and a zero point each from their own least and largest value, many values at a time; bit by bit
 * what scalar/vector.c does. A row whose values are all finite needs no clamp: packing saturates. Only for
 * <isa>/vector.c. */
#ifndef QD_ENGINE_KERNELS_QUANTIZE_ROWS_SIMD_H
#define QD_ENGINE_KERNELS_QUANTIZE_ROWS_SIMD_H

#include "engine/kernels/vector_simd.h"

#ifdef QD_SIMD_FLOATS

/* Values from x on, multiplied by those from `by` on when there are any. */
QD_INLINE vf row_load(const float *x, const float *by, size_t i)
{
    return by ? vf_mul(vf_load(x + i), vf_load(by + i)) : vf_load(x + i);
}

QD_INLINE vf row_load_some(const float *x, const float *by, size_t i, vm mask)
{
    const vf real = vf_load_some(x + i, mask);
    return by ? vf_mul(real, vf_load_some(by + i, mask)) : real;
}

/* Least and largest value, NaN left out; false when something is not finite (x * 0 is then NaN). Four chains at once: a
 * single one would wait for itself. */
QD_INLINE bool row_ends(const float *x, const float *by, size_t n, float *min, float *max)
{
    enum { CHAINS = 4 };
    const vf zero = vf_set(0.0f);
    vf least[CHAINS], most[CHAINS], odd[CHAINS];
    size_t i = 0;
    for (size_t c = 0; c < CHAINS; c++) {
        least[c] = vf_set(INFINITY);
        most[c] = vf_set(-INFINITY);
        odd[c] = zero;
    }
    for (; i + CHAINS * QD_SIMD_FLOATS <= n; i += CHAINS * QD_SIMD_FLOATS)
#pragma GCC unroll 4
        for (size_t c = 0; c < CHAINS; c++) {
            const vf real = row_load(x, by, i + c * QD_SIMD_FLOATS);
            least[c] = vf_min(real, least[c]);
            most[c] = vf_max(real, most[c]);
            odd[c] = vf_fma(real, zero, odd[c]);
        }
    for (; i < n; i += QD_SIMD_FLOATS) {
        const vm mask = vm_first(n - i < QD_SIMD_FLOATS ? n - i : QD_SIMD_FLOATS);
        const vf real = i + QD_SIMD_FLOATS <= n ? row_load(x, by, i) : row_load_some(x, by, i, mask);
        least[0] = vf_min_some(least[0], mask, real);
        most[0] = vf_max_some(most[0], mask, real);
        odd[0] = vf_fma(real, zero, odd[0]);
    }
    *min = vf_reduce_min(vf_min(vf_min(least[0], least[1]), vf_min(least[2], least[3])));
    *max = vf_reduce_max(vf_max(vf_max(most[0], most[1]), vf_max(most[2], most[3])));
    return vm_count(vm_unordered(vf_add(vf_add(odd[0], odd[1]), vf_add(odd[2], odd[3])))) == 0;
}

/* Whatever the values are; q may be NULL. */
QD_INLINE void row_slowly(const float *x, const float *by, size_t n, const struct qd_qparams *qp, uint8_t *q,
                          struct qd_observation *obs)
{
    if (!by) {
        vector_quantize(x, n, qp, q, obs, false);
        return;
    }
    float products[4 * QD_SIMD_FLOATS];
    for (size_t i = 0, count; i < n; i += count) {
        count = n - i < 4 * QD_SIMD_FLOATS ? n - i : 4 * QD_SIMD_FLOATS;
        for (size_t j = 0; j < count; j++)
            products[j] = x[i + j] * by[i + j];
        vector_quantize(products, count, qp, q ? q + i : NULL, obs, false);
    }
}

QD_INLINE void row_quantize(const float *x, const float *by, size_t n, const struct qd_qparams *qp, uint8_t *q)
{
    const vf factor = vf_set(1.0f / qp->scale);
    size_t i = 0;
    for (; i + 4 * QD_SIMD_FLOATS <= n; i += 4 * QD_SIMD_FLOATS) {
        vi part[4];
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
            part[v] = vi_from_vf(vf_mul(row_load(x, by, i + v * QD_SIMD_FLOATS), factor));
        vi_store_halves(q + i, q + i + 2 * QD_SIMD_FLOATS,
                        vi_pack_u8(part, part + 2, qp->zero_point, qp->qmin, qp->qmax), 2 * QD_SIMD_FLOATS);
    }
    for (; i < n; i += 2 * QD_SIMD_FLOATS) {
        const size_t left = n - i < 2 * QD_SIMD_FLOATS ? n - i : 2 * QD_SIMD_FLOATS;
        vi part[2];
#pragma GCC unroll 2
        for (size_t v = 0; v < 2; v++) {
            const size_t at = v * QD_SIMD_FLOATS, some = left > at ? left - at : 0;
            const vm mask = vm_first(some < QD_SIMD_FLOATS ? some : QD_SIMD_FLOATS);
            part[v] = vi_from_vf(vf_mul(row_load_some(x, by, i + at, mask), factor));
        }
        const vi bytes = vi_pack_u8(part, part, qp->zero_point, qp->qmin, qp->qmax);
        vi_store_halves(q + i, q + i, bytes, left); /* the same bytes twice */
    }
}

QD_INLINE void rows_quantize(const float *x, size_t stride, const float *by, size_t rows, size_t n, bool symmetric,
                             uint8_t *q, struct qd_row_scale *scales, struct qd_observation *obs)
{
    struct qd_observation seen = qd_observation_empty();
    for (size_t i = 0; i < rows; i++, x += stride, q += n) {
        float min, max;
        struct qd_observation row = qd_observation_empty();
        const bool finite = row_ends(x, by, n, &min, &max);
        if (finite) {
            row.min = min;
            row.max = max;
            row.elems = n;
        } else {
            row_slowly(x, by, n, NULL, NULL, &row);
        }
        const struct qd_qparams qp = qd_qparams_of_row(&row, symmetric);
        scales[i] = (struct qd_row_scale){qp.scale, qp.zero_point};
        if (finite)
            row_quantize(x, by, n, &qp, q);
        else
            row_slowly(x, by, n, &qp, q, NULL);
        if (obs)
            qd_observation_merge(&seen, &row);
    }
    if (obs)
        observation_publish(&seen, obs);
}

QD_INLINE void vector_quantize_rows(const float *x, size_t stride, const float *by, size_t rows, size_t n,
                                    bool symmetric, uint8_t *q, struct qd_row_scale *scales, struct qd_observation *obs)
{
    if (by)
        rows_quantize(x, stride, by, rows, n, symmetric, q, scales, obs);
    else
        rows_quantize(x, stride, NULL, rows, n, symmetric, q, scales, obs);
}

#endif
#endif
