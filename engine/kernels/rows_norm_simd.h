/* Normalizations and softmax of rows of floats, many at a time; each ISA's rows.c gives them their names. Bit by bit
 * what scalar/rows.c does. Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_ROWS_NORM_SIMD_H
#define QD_ENGINE_KERNELS_ROWS_NORM_SIMD_H

#include "engine/kernels/functions_simd.h"
#include "engine/kernels/rows_simd.h"

#ifdef QD_SIMD_FLOATS

/* (x - mean) * inv * scale + bias */
QD_INLINE void rows_write(const float *x, size_t n, float mean, float inv, const float *scale, const float *bias,
                          float *y)
{
    const vf m = vf_set(-mean), f = vf_set(inv);
    size_t i = 0;
    for (; i + QD_SIMD_FLOATS <= n; i += QD_SIMD_FLOATS) {
        vf v = vf_mul(vf_add(vf_load(x + i), m), f);
        if (scale && bias)
            v = vf_fma(v, vf_load(scale + i), vf_load(bias + i));
        else if (scale)
            v = vf_mul(v, vf_load(scale + i));
        else if (bias)
            v = vf_add(v, vf_load(bias + i));
        vf_store(y + i, v);
    }
    if (i < n) {
        const vm some = vm_first(n - i);
        vf v = vf_mul(vf_add(vf_load_some(x + i, some), m), f);
        vf s = scale ? vf_load_some(scale + i, some) : vf_set(1);
        v = bias ? vf_fma(v, s, vf_load_some(bias + i, some)) : vf_mul(v, s);
        vf_store_some(y + i, some, v);
    }
}

QD_INLINE void rows_norm(const struct qd_norm *norm, const bool centred)
{
    for (size_t r = 0; r < norm->rows; r++) {
        const float *x = norm->x + r * norm->n;
        float *y = norm->y + r * norm->n, mean = 0, variance;
        if (centred)
            rows_moments(x, norm->n, &mean, &variance);
        else
            variance = (float)(rows_reduce(QD_SUM_OF_SQUARES, x, norm->n, 0) / (double)norm->n);
        float inv = rows_inverse_root(variance, norm->epsilon);
        if (norm->scale && norm->bias)
            rows_write(x, norm->n, mean, inv, norm->scale, norm->bias, y);
        else if (norm->scale)
            rows_write(x, norm->n, mean, inv, norm->scale, NULL, y);
        else
            rows_write(x, norm->n, mean, inv, NULL, norm->bias, y);
        if (norm->mean)
            norm->mean[r] = mean;
        if (norm->inv)
            norm->inv[r] = inv;
    }
}

/* ------------------------------------------------------------------ softmax */

/* Sixty-four values: e^(x - most) into the parts, and to y when they are to be kept. */
QD_INLINE void parts_add_exp(struct parts *p, const float *x, vf minus_most, const bool keep, float *y)
{
#pragma GCC unroll 8
    for (int i = 0; i < ROWS_VECTORS; i++) {
        vf e = vf_exp_below(vf_add(vf_load(x + i * QD_SIMD_FLOATS), minus_most));
        p->v[i] = vf_add(p->v[i], e);
        if (keep)
            vf_store(y + i * QD_SIMD_FLOATS, e);
    }
}

QD_INLINE float rows_exp_block(const float *x, size_t n, float most, const bool keep, float *y)
{
    const vf minus_most = vf_set(-most);
    struct parts p;
#pragma GCC unroll 8
    for (int i = 0; i < ROWS_VECTORS; i++)
        p.v[i] = vf_set(0);
    p.nan = vm_none();
    size_t i = 0;
    for (; i + QD_ROWS_PARTS <= n; i += QD_ROWS_PARTS)
        parts_add_exp(&p, x + i, minus_most, keep, y + i);
    if (i < n) {
        _Alignas(64) float rest[QD_ROWS_PARTS];
        for (size_t j = 0; j < QD_ROWS_PARTS; j += QD_SIMD_FLOATS)
            vf_store(rest + j, vf_set(-INFINITY));
        memcpy(rest, x + i, (n - i) * sizeof *x);
        parts_add_exp(&p, rest, minus_most, true, rest);
        if (keep)
            memcpy(y + i, rest, (n - i) * sizeof *y);
    }
    return parts_join(QD_SUM_OF, false, &p);
}

QD_INLINE float rows_exp(const float *x, size_t n, float most, const bool keep, float *y)
{
    if (n <= QD_ROWS_BLOCK)
        return rows_exp_block(x, n, most, keep, y);
    double sum = 0;
    for (size_t i = 0; i < n; i += QD_ROWS_BLOCK)
        sum += (double)rows_exp_block(x + i, n - i < QD_ROWS_BLOCK ? n - i : QD_ROWS_BLOCK, most, keep, y + i);
    return (float)sum;
}

/* The largest value, NaN passed over: it comes back in the sum. */
QD_INLINE float rows_most(const float *x, size_t n)
{
    float most = -INFINITY;
    for (size_t i = 0; i < n; i += QD_ROWS_BLOCK) {
        float block = rows_block(QD_MAX_OF, false, x + i, n - i < QD_ROWS_BLOCK ? n - i : QD_ROWS_BLOCK, 0);
        most = block > most ? block : most;
    }
    return most;
}

QD_INLINE void rows_softmax(const float *x, size_t rows, size_t n, const bool logarithm, float *y)
{
    for (size_t r = 0; r < rows; r++, x += n, y += n) {
        const float most = rows_most(x, n);
        const float sum = rows_exp(x, n, most, !logarithm, y);
        const vf minus_most = vf_set(-most), minus_log = vf_set(-qd_f_log(sum)), factor = vf_set(1 / sum);
        size_t i = 0;
        for (; i + QD_SIMD_FLOATS <= n; i += QD_SIMD_FLOATS)
            vf_store(y + i, logarithm ? vf_add(vf_add(vf_load(x + i), minus_most), minus_log)
                                      : vf_mul(vf_load(y + i), factor));
        if (i < n) {
            const vm some = vm_first(n - i);
            vf_store_some(y + i, some,
                          logarithm ? vf_add(vf_add(vf_load_some(x + i, some), minus_most), minus_log)
                                    : vf_mul(vf_load_some(y + i, some), factor));
        }
    }
}

/* ------------------------------------------------------------------ one factor for all */

QD_INLINE void rows_centre(const float *x, size_t n, float mean, float factor, float bias, float *y)
{
    const vf m = vf_set(-mean), f = vf_set(factor), b = vf_set(bias);
    size_t i = 0;
    for (; i + QD_SIMD_FLOATS <= n; i += QD_SIMD_FLOATS)
        vf_store(y + i, vf_fma(vf_add(vf_load(x + i), m), f, b));
    if (i < n) {
        const vm some = vm_first(n - i);
        vf_store_some(y + i, some, vf_fma(vf_add(vf_load_some(x + i, some), m), f, b));
    }
}

#endif
#endif
