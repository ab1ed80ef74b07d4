/* Rows of a softmax before their division. */
#include "engine/kernels/attention_simd.h"
#include "engine/kernels/dispatch.h"

void qd_exp_rows_f32__avx512vnni(float *x, size_t rows, size_t n, size_t stride, float *sums)
{
    attention_exp_rows_f32(x, rows, n, stride, sums);
}

void qd_exp_rows_u8__avx512vnni(const float *x, size_t rows, size_t n, size_t stride, uint8_t *q, size_t q_stride,
                          float *sums)
{
    attention_exp_rows_u8(x, rows, n, stride, q, q_stride, sums);
}
