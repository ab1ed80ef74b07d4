/* Quantize, dequantize, observe and max pooling in portable C: requant.h's functions, one value at a time. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/epilogue.h"
#include "engine/kernels/rows.h"

#include <string.h>

void qd_quantize_u8__scalar(const float *x, size_t n, const struct qd_qparams *qp, uint8_t *q,
                            struct qd_observation *obs)
{
    for (size_t i = 0; i < n; i++)
        q[i] = qd_quantize_one(x[i], qp);
    if (obs)
        qd_observe_f32__scalar(x, n, qp, obs);
}

void qd_quantize_s16__scalar(const float *x, size_t n, const struct qd_qparams *qp, int16_t *q,
                             struct qd_observation *obs)
{
    for (size_t i = 0; i < n; i++)
        q[i] = qd_quantize_one_s16(x[i], qp);
    if (obs)
        qd_observe_f32__scalar(x, n, qp, obs);
}

void qd_requantize_u8__scalar(const float *x, size_t n, const struct qd_qparams *qp, uint8_t *q,
                              struct qd_observation *obs)
{
    struct qd_observation seen = qd_observation_empty();
    const float inv_scale = 1.0f / qp->scale;
    for (size_t i = 0; i < n; i++) {
        q[i] = qd_requantize_one(x[i], inv_scale, qp);
        qd_observe_one(&seen, x[i], x[i] * inv_scale, qp);
    }
    if (obs)
        observation_publish(&seen, obs);
}

void qd_dequantize_u8__scalar(const uint8_t *q, size_t n, const struct qd_qparams *qp, float *r)
{
    for (size_t i = 0; i < n; i++)
        r[i] = qd_dequantize_one(q[i], qp);
}

void qd_observe_f32__scalar(const float *x, size_t n, const struct qd_qparams *qp, struct qd_observation *obs)
{
    struct qd_observation seen = qd_observation_empty();
    for (size_t i = 0; i < n; i++)
        qd_observe_one(&seen, x[i], qp ? x[i] / qp->scale : 0.0f, qp);
    observation_publish(&seen, obs);
}

void qd_max_rows_u8__scalar(const uint8_t *const *in, size_t rows, size_t n, uint8_t *out)
{
    memcpy(out, in[0], n);
    for (size_t i = 1; i < rows; i++)
        for (size_t j = 0; j < n; j++)
            out[j] = in[i][j] > out[j] ? in[i][j] : out[j];
}

void qd_quantize_rows_u8__scalar(const float *x, size_t stride, const float *by, size_t rows, size_t n, bool symmetric,
                                 uint8_t *q, struct qd_row_scale *scales, struct qd_observation *obs)
{
    for (size_t i = 0; i < rows; i++, x += stride, q += n) {
        struct qd_observation row = qd_observation_empty();
        for (size_t j = 0; j < n; j++) {
            const float real = by ? x[j] * by[j] : x[j];
            qd_observe_f32__scalar(&real, 1, NULL, &row);
        }
        const struct qd_qparams qp = qd_qparams_of_row(&row, symmetric);
        scales[i] = (struct qd_row_scale){qp.scale, qp.zero_point};
        for (size_t j = 0; j < n; j++)
            q[j] = qd_requantize_one(by ? x[j] * by[j] : x[j], 1.0f / qp.scale, &qp);
        if (obs)
            qd_observation_merge(obs, &row);
    }
}

void qd_sum_rows_u8__scalar(const struct qd_rows *a, size_t rows, int32_t *sums)
{
    for (size_t i = 0; i < rows; i++) {
        sums[i] = 0;
        for (size_t tap = 0; tap < a->taps; tap++) {
            const uint8_t *piece = rows_piece(a, i, tap);
            for (size_t at = 0; at < a->tap_bytes; at++)
                sums[i] += piece[at];
        }
    }
}
