/* The vector kernels of this instruction set: engine/kernels/vector_simd.h and quantize_rows_simd.h compiled for it,
 * under its names. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/quantize_rows_simd.h"
#include "engine/kernels/sum_rows_simd.h"

void qd_quantize_u8__avx2(const float *x, size_t n, const struct qd_qparams *qp, uint8_t *q, struct qd_observation *obs)
{
    if (obs)
        vector_quantize(x, n, qp, q, obs, true);
    else
        vector_quantize(x, n, qp, q, NULL, true);
}

void qd_quantize_s16__avx2(const float *x, size_t n, const struct qd_qparams *qp, int16_t *q,
                           struct qd_observation *obs)
{
    if (obs)
        vector_quantize_to(x, n, qp, q, obs, true, true);
    else
        vector_quantize_to(x, n, qp, q, NULL, true, true);
}

void qd_requantize_u8__avx2(const float *x, size_t n, const struct qd_qparams *qp, uint8_t *q,
                            struct qd_observation *obs)
{
    if (obs)
        vector_quantize(x, n, qp, q, obs, false);
    else
        vector_quantize(x, n, qp, q, NULL, false);
}

void qd_dequantize_u8__avx2(const uint8_t *q, size_t n, const struct qd_qparams *qp, float *r)
{
    vector_dequantize(q, n, qp, r);
}

void qd_observe_f32__avx2(const float *x, size_t n, const struct qd_qparams *qp, struct qd_observation *obs)
{
    vector_quantize(x, n, qp, NULL, obs, true);
}

void qd_max_rows_u8__avx2(const uint8_t *const *in, size_t rows, size_t n, uint8_t *out)
{
    vector_max_rows(in, rows, n, out);
}

void qd_quantize_rows_u8__avx2(const float *x, size_t stride, const float *by, size_t rows, size_t n, bool symmetric,
                               uint8_t *q, struct qd_row_scale *scales, struct qd_observation *obs)
{
    vector_quantize_rows(x, stride, by, rows, n, symmetric, q, scales, obs);
}

void qd_sum_rows_u8__avx2(const struct qd_rows *a, size_t rows, int32_t *sums) { vector_sum_rows(a, rows, sums); }
