/* Normalizations and reductions of rows for this instruction set: engine/kernels/rows_simd.h and rows_norm_simd.h under
 * its names. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/rows_norm_simd.h"

void qd_layer_norm__avx2(const struct qd_norm *norm) { rows_norm(norm, true); }

void qd_rms_norm__avx2(const struct qd_norm *norm) { rows_norm(norm, false); }

void qd_softmax__avx2(const float *x, size_t rows, size_t n, bool logarithm, float *y)
{
    if (logarithm)
        rows_softmax(x, rows, n, true, y);
    else
        rows_softmax(x, rows, n, false, y);
}

void qd_moments__avx2(const float *x, size_t n, float *mean, float *variance) { rows_moments(x, n, mean, variance); }

void qd_centre__avx2(const float *x, size_t n, float mean, float factor, float bias, float *y)
{
    rows_centre(x, n, mean, factor, bias, y);
}

void qd_reduce_rows__avx2(enum qd_reduction kind, const float *x, size_t rows, size_t n, float *out)
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

void qd_reduce_columns__avx2(enum qd_reduction kind, const float *x, size_t rows, size_t stride, size_t n, float *out)
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
