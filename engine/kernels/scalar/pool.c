/* Pooling of rows (channels last) in portable C. */
#include "engine/kernels/dispatch.h"

void qd_max_rows_f32__scalar(const float *const *in, size_t rows, size_t n, float *out)
{
    for (size_t j = 0; j < n; j++) {
        float best = in[0][j];
        for (size_t i = 1; i < rows; i++)
            best = in[i][j] > best || isnan(in[i][j]) ? in[i][j] : best;
        out[j] = best;
    }
}

void qd_mean_rows_f32__scalar(const float *const *in, size_t rows, size_t n, float factor, float *out)
{
    for (size_t j = 0; j < n; j++) {
        float sum = in[0][j];
        for (size_t i = 1; i < rows; i++)
            sum += in[i][j];
        out[j] = sum * factor;
    }
}

void qd_mean_rows_u8__scalar(const uint8_t *const *in, size_t rows, size_t n, int32_t offset, float factor, float *out)
{
    for (size_t j = 0; j < n; j++) {
        int32_t sum = offset;
        for (size_t i = 0; i < rows; i++)
            sum += in[i][j];
        out[j] = (float)sum * factor;
    }
}

void qd_weigh_rows_f32__scalar(const float *const *in, const float *weight, size_t rows, size_t n, float *out)
{
    for (size_t j = 0; j < n; j++) {
        float sum = in[0][j] * weight[0];
        for (size_t i = 1; i < rows; i++)
            sum += in[i][j] * weight[i];
        out[j] = sum;
    }
}
