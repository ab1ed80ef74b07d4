/* The table's entries for rows, under the ISA's names: each ISA's rows.c is this file. Private to the kernel folders.
 */
#ifndef QD_ENGINE_KERNELS_ROWS_ENTRIES_SIMD_H
#define QD_ENGINE_KERNELS_ROWS_ENTRIES_SIMD_H

#include "engine/kernels/dispatch.h"
#include "engine/kernels/rows_norm_simd.h"

#ifdef QD_SIMD_FLOATS

void QD_SIMD_NAME(qd_layer_norm)(const struct qd_norm *norm) { rows_norm(norm, true); }

void QD_SIMD_NAME(qd_rms_norm)(const struct qd_norm *norm) { rows_norm(norm, false); }

void QD_SIMD_NAME(qd_softmax)(const float *x, size_t rows, size_t n, bool logarithm, float *y)
{
    if (logarithm)
        rows_softmax(x, rows, n, true, y);
    else
        rows_softmax(x, rows, n, false, y);
}

void QD_SIMD_NAME(qd_moments)(const float *x, size_t n, float *mean, float *variance)
{
    rows_moments(x, n, mean, variance);
}

void QD_SIMD_NAME(qd_centre)(const float *x, size_t n, float mean, float factor, float bias, float *y)
{
    rows_centre(x, n, mean, factor, bias, y);
}

void QD_SIMD_NAME(qd_reduce_rows)(enum qd_reduction kind, const float *x, size_t rows, size_t n, float *out)
{
    switch (kind) {
    case QD_SUM_OF:
        rows_reduce_rows(QD_SUM_OF, x, rows, n, out);
        break;
    case QD_SUM_OF_ABS:
        rows_reduce_rows(QD_SUM_OF_ABS, x, rows, n, out);
        break;
    case QD_SUM_OF_SQUARES:
        rows_reduce_rows(QD_SUM_OF_SQUARES, x, rows, n, out);
        break;
    case QD_MAX_OF:
        rows_reduce_rows(QD_MAX_OF, x, rows, n, out);
        break;
    default:
        rows_reduce_rows(QD_MIN_OF, x, rows, n, out);
        break;
    }
}

void QD_SIMD_NAME(qd_reduce_columns)(enum qd_reduction kind, const float *x, size_t rows, size_t stride, size_t n,
                                     float *out)
{
    switch (kind) {
    case QD_SUM_OF:
        rows_reduce_columns(QD_SUM_OF, x, rows, stride, n, out);
        break;
    case QD_SUM_OF_ABS:
        rows_reduce_columns(QD_SUM_OF_ABS, x, rows, stride, n, out);
        break;
    case QD_SUM_OF_SQUARES:
        rows_reduce_columns(QD_SUM_OF_SQUARES, x, rows, stride, n, out);
        break;
    case QD_MAX_OF:
        rows_reduce_columns(QD_MAX_OF, x, rows, stride, n, out);
        break;
    default:
        rows_reduce_columns(QD_MIN_OF, x, rows, stride, n, out);
        break;
    }
}

#endif
#endif
