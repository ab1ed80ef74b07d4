/* Pooling of rows for this instruction set: engine/kernels/pool_simd.h compiled for it, under its names. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/pool_simd.h"

void qd_max_rows_f32__avx512vnni(const float *const *in, size_t rows, size_t n, float *out)
{
    pool_max_rows_f32(in, rows, n, out);
}

void qd_mean_rows_f32__avx512vnni(const float *const *in, size_t rows, size_t n, float factor, float *out)
{
    pool_mean_rows_f32(in, rows, n, factor, out);
}

void qd_mean_rows_u8__avx512vnni(const uint8_t *const *in, size_t rows, size_t n, int32_t offset, float factor,
                                 float *out)
{
    pool_mean_rows_u8(in, rows, n, offset, factor, out);
}

void qd_weigh_rows_f32__avx512vnni(const float *const *in, const float *weight, size_t rows, size_t n, float *out)
{
    pool_weigh_rows_f32(in, weight, rows, n, out);
}
