/* Sums, extremes and moments of rows and columns of floats, many at a time; each ISA's rows.c gives them their names.
 * Bit by bit what scalar/rows.c does (rows_plain.h says in which order). Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_ROWS_SIMD_H
#define QD_ENGINE_KERNELS_ROWS_SIMD_H

#include "engine/kernels/rows_plain.h"
#include "engine/kernels/simd.h"

#ifdef QD_SIMD_FLOATS

#include <string.h>

#define ROWS_VECTORS (QD_ROWS_PARTS / QD_SIMD_FLOATS) /* registers that hold the parts */
#define ROWS_QUARTER (16 / QD_SIMD_FLOATS)

struct parts {
    vf v[ROWS_VECTORS];
    vm nan; /* of MAX and MIN */
};

QD_INLINE vf rows_vector_step(const enum qd_reduction kind, vf part, vf x, vf minus_mean)
{
    if (kind == QD_SUM_OF_SQUARES) {
        vf d = vf_add(x, minus_mean);
        return vf_fma(d, d, part);
    }
    if (kind == QD_MAX_OF)
        return vf_max(x, part);
    if (kind == QD_MIN_OF)
        return vf_min(x, part);
    return vf_add(part, kind == QD_SUM_OF_ABS ? vf_abs(x) : x);
}

QD_INLINE vf rows_vector_join(const enum qd_reduction kind, vf a, vf b)
{
    return kind == QD_MAX_OF ? vf_max(b, a) : kind == QD_MIN_OF ? vf_min(b, a) : vf_add(a, b);
}

/* Sixty-four values into the parts. */
QD_INLINE void parts_add(const enum qd_reduction kind, const bool nan, struct parts *p, const float *x, vf minus_mean)
{
#pragma GCC unroll 8
    for (int i = 0; i < ROWS_VECTORS; i++) {
        vf v = vf_load(x + i * QD_SIMD_FLOATS);
        p->v[i] = rows_vector_step(kind, p->v[i], v, minus_mean);
        if (nan)
            p->nan = vm_or(p->nan, vm_unordered(v));
    }
}

/* rows_join of lanes, and rows_join_16 of the sixteen floats that registers hold. */
QD_INLINE __m256 rows_join_256(const enum qd_reduction kind, __m256 a, __m256 b)
{
    return kind == QD_MAX_OF ? _mm256_max_ps(b, a) : kind == QD_MIN_OF ? _mm256_min_ps(b, a) : _mm256_add_ps(a, b);
}
QD_INLINE __m128 rows_join_128(const enum qd_reduction kind, __m128 a, __m128 b)
{
    return kind == QD_MAX_OF ? _mm_max_ps(b, a) : kind == QD_MIN_OF ? _mm_min_ps(b, a) : _mm_add_ps(a, b);
}

QD_INLINE float parts_join(const enum qd_reduction kind, const bool nan, struct parts *p)
{
    vf t[ROWS_QUARTER];
#pragma GCC unroll 2
    for (int i = 0; i < ROWS_QUARTER; i++) {
        vf low = rows_vector_join(kind, p->v[i], p->v[i + ROWS_QUARTER]);
        vf high = rows_vector_join(kind, p->v[i + 2 * ROWS_QUARTER], p->v[i + 3 * ROWS_QUARTER]);
        t[i] = rows_vector_join(kind, low, high);
    }
#if QD_SIMD_FLOATS == 16
    __m256 eight = rows_join_256(kind, _mm512_castps512_ps256(t[0]), _mm512_extractf32x8_ps(t[0], 1));
#else
    __m256 eight = rows_join_256(kind, t[0], t[1]);
#endif
    __m128 four = rows_join_128(kind, _mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = rows_join_128(kind, four, _mm_movehl_ps(four, four));
    float all = _mm_cvtss_f32(rows_join_128(kind, two, _mm_shuffle_ps(two, two, 1)));
    return nan && vm_count(p->nan) ? NAN : all;
}

/* At most QD_ROWS_BLOCK values. What is missing to whole sixty-fours is filled up with values that change nothing.
 * `nan`: MAX and MIN look for NaN. */
QD_INLINE float rows_block(const enum qd_reduction kind, const bool nan, const float *x, size_t n, float mean)
{
    const vf minus_mean = vf_set(-mean), empty = vf_set(rows_empty(kind));
    struct parts p;
#pragma GCC unroll 8
    for (int i = 0; i < ROWS_VECTORS; i++)
        p.v[i] = empty;
    p.nan = vm_none();
    size_t i = 0;
    for (; i + QD_ROWS_PARTS <= n; i += QD_ROWS_PARTS)
        parts_add(kind, nan, &p, x + i, minus_mean);
    if (i < n) {
        _Alignas(64) float rest[QD_ROWS_PARTS];
        vf fill = kind == QD_SUM_OF_SQUARES ? vf_set(mean) : empty;
        for (size_t j = 0; j < QD_ROWS_PARTS; j += QD_SIMD_FLOATS)
            vf_store(rest + j, fill);
        memcpy(rest, x + i, (n - i) * sizeof *x);
        parts_add(kind, nan, &p, rest, minus_mean);
    }
    return parts_join(kind, nan, &p);
}

QD_INLINE double rows_reduce(const enum qd_reduction kind, const float *x, size_t n, float mean)
{
    if (n <= QD_ROWS_BLOCK)
        return (double)rows_block(kind, rows_picks(kind), x, n, mean);
    double all = (double)rows_empty(kind);
    for (size_t i = 0; i < n; i += QD_ROWS_BLOCK) {
        float block = rows_block(kind, rows_picks(kind), x + i, n - i < QD_ROWS_BLOCK ? n - i : QD_ROWS_BLOCK, mean);
        if (!rows_picks(kind))
            all += (double)block;
        else if (isnan(block))
            return NAN;
        else
            all = (double)rows_join(kind, (float)all, block);
    }
    return all;
}

QD_INLINE void rows_moments(const float *x, size_t n, float *mean, float *variance)
{
    *mean = (float)(rows_reduce(QD_SUM_OF, x, n, 0) / (double)n);
    *variance = (float)(rows_reduce(QD_SUM_OF_SQUARES, x, n, *mean) / (double)n);
}

/* `vectors` registers of columns; `some` lanes of each. */
QD_INLINE void rows_columns(const enum qd_reduction kind, const float *x, size_t rows, size_t stride, const int vectors,
                            vm some, float *out)
{
    const vf zero = vf_set(0), empty = vf_set(rows_empty(kind));
    vf all[4] = {empty, empty, empty, empty};
    vm nan[4] = {vm_none(), vm_none(), vm_none(), vm_none()};
    for (size_t r = 0; r < rows;) {
        size_t end = rows - r < QD_ROWS_COLUMN_BLOCK ? rows : r + QD_ROWS_COLUMN_BLOCK;
        vf block[4] = {empty, empty, empty, empty};
        for (; r < end; r++)
#pragma GCC unroll 4
            for (int i = 0; i < vectors; i++) {
                vf v = vf_load_some(x + r * stride + (size_t)i * QD_SIMD_FLOATS, some);
                block[i] = rows_vector_step(kind, block[i], v, zero);
                if (rows_picks(kind))
                    nan[i] = vm_or(nan[i], vm_unordered(v));
            }
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++)
            all[i] = rows_vector_join(kind, all[i], block[i]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++) {
        vf_store_some(out + (size_t)i * QD_SIMD_FLOATS, some, all[i]);
        if (rows_picks(kind))
            vf_store_some(out + (size_t)i * QD_SIMD_FLOATS, vm_and(some, nan[i]), vf_set(NAN));
    }
}

QD_INLINE void rows_reduce_columns(const enum qd_reduction kind, const float *x, size_t rows, size_t stride, size_t n,
                                   float *out)
{
    size_t j = 0;
    for (; j + 4 * QD_SIMD_FLOATS <= n; j += 4 * QD_SIMD_FLOATS)
        rows_columns(kind, x + j, rows, stride, 4, vm_first(QD_SIMD_FLOATS), out + j);
    for (; j < n; j += QD_SIMD_FLOATS)
        rows_columns(kind, x + j, rows, stride, 1, vm_first(n - j < QD_SIMD_FLOATS ? n - j : QD_SIMD_FLOATS), out + j);
}

QD_INLINE void rows_reduce_rows(const enum qd_reduction kind, const float *x, size_t rows, size_t n, float *out)
{
    for (size_t r = 0; r < rows; r++)
        out[r] = (float)rows_reduce(kind, x + r * n, n, 0);
}

#endif
#endif
