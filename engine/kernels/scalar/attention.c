/* Rows of a softmax before their division, in portable C. */
#include "engine/kernels/attention_plain.h"
#include "engine/kernels/dispatch.h"
#include "engine/kernels/functions.h"

void qd_exp_rows_f32__scalar(float *x, size_t rows, size_t n, size_t stride, float *sums)
{
    for (size_t i = 0; i < rows; i++, x += stride) {
        const float most = attention_largest(x, n);
        float parts[ATTENTION_PARTS] = {0};
        for (size_t j = 0; j < n; j++) {
            x[j] = qd_f_exp_below(x[j] - most);
            parts[j % ATTENTION_PARTS] += x[j];
        }
        sums[i] = attention_join(parts);
    }
}

void qd_exp_rows_u8__scalar(const float *x, size_t rows, size_t n, size_t stride, uint8_t *q, size_t q_stride,
                            float *sums)
{
    for (size_t i = 0; i < rows; i++, x += stride, q += q_stride) {
        const float most = attention_largest(x, n);
        uint32_t sum = 0;
        for (size_t j = 0; j < n; j++)
            sum += q[j] = attention_byte(x[j] - most);
        for (size_t j = n; j % 4; j++)
            q[j] = 0;
        sums[i] = (float)sum;
    }
}
