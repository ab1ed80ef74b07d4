/* Equation (8a) in plain arithmetic, for the judges of the kernels' tests. */
#ifndef QD_TESTS_KERNELS_FOLDED_H
#define QD_TESTS_KERNELS_FOLDED_H

#include "engine/quant/requant.h"

/* clip: lower and upper bound, or NULL; by: what the channel is multiplied by behind them. */
static inline uint8_t folded_byte(float acc, float scale, float bias, float by, const float clip[2],
                                  const struct qd_qparams *qp)
{
    const float inv = 1.0f / qp->scale, factor = scale * by * inv, term = bias * by * inv + (float)qp->zero_point;
    float low = (float)qp->qmin, high = (float)qp->qmax;
    if (clip) {
        low = qd_requantize_one(clip[0] * by, inv, qp);
        high = qd_requantize_one(clip[1] * by, inv, qp);
    }
    return (uint8_t)rintf(fminf(fmaxf(low, fmaf(acc, factor, term)), high)); /* of NaN: the lower limit */
}

#endif
