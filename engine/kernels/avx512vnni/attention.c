/* Rows of a softmax before their division. */
#include "engine/kernels/attention_simd.h"
#include "engine/kernels/dispatch.h"

void qd_exp_rows_f32__avx512vnni(float *x, size_t rows, size_t n, size_t stride, float *sums)
{
    attention_exp_rows_f32(x, rows, n, stride, sums);
}

void qd_exp_rows_u16__avx512vnni(const float *x, size_t rows, size_t n, size_t stride, uint8_t *high, uint8_t *low,
                                 size_t out_stride, float *sums)
{
    attention_exp_rows_u16(x, rows, n, stride, high, low, out_stride, sums);
}

void qd_quantize_columns_s8__avx512vnni(const float *x, size_t rows, size_t stride, size_t n, int8_t *q, float *scale)
{
    attention_quantize_columns_s8(x, rows, stride, n, q, scale);
}

void qd_join_rows__avx512vnni(const struct qd_join *join) { attention_join_rows(join); }
