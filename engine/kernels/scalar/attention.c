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

void qd_exp_rows_u16__scalar(const float *x, size_t rows, size_t n, size_t stride, uint8_t *high, uint8_t *low,
                             size_t out_stride, float *sums)
{
    for (size_t i = 0; i < rows; i++, x += stride, high += out_stride, low += out_stride)
        sums[i] = (float)attention_rest(x, 0, n, attention_largest(x, n), high, low);
}

void qd_quantize_columns_s8__scalar(const float *x, size_t rows, size_t stride, size_t n, int8_t *q, float *scale)
{
    for (size_t j = 0; j < n; j++)
        attention_column(x + j, rows, stride, q + j, n, scale + j);
}

void qd_join_rows__scalar(const struct qd_join *join)
{
    for (size_t i = 0; i < join->rows; i++)
        for (size_t j = 0; j < join->n; j++) {
            const size_t at = i * join->n + j;
            const float x = join->b ? join->a[at] + join->b[at] : join->a[at];
            join->out[i * join->out_stride + j] = x * join->factor[i] + join->shift;
        }
}
