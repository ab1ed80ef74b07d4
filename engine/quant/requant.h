/* The arithmetic of quantization to the last rounding bit: the specification every kernel is held to.
 * Plain C, one function an equation of docs/QUANTIZATION.md; round half to even throughout; no fused multiply-add
 * but where one is written (the build sets -ffp-contract=off). Included by kernels: no graph, no allocation. */
#ifndef QD_ENGINE_QUANT_REQUANT_H
#define QD_ENGINE_QUANT_REQUANT_H

#include "engine/quant/qparams.h"

#include <float.h>
#include <math.h>
#include <stdint.h>

/* What one request's rows of a site showed. Real values, before any clamp. */
struct qd_observation {
    float min, max; /* of the finite values; +inf, -inf when there was none */
    uint64_t elems, nonfinite;
    uint64_t clipped_low,
        clipped_high; /* finite values that the range in force cut: q before clamping < qmin, > qmax */
};

static inline struct qd_observation qd_observation_empty(void)
{
    return (struct qd_observation){.min = INFINITY, .max = -INFINITY};
}

static inline void qd_observation_merge(struct qd_observation *into, const struct qd_observation *from)
{
    into->min = from->min < into->min ? from->min : into->min;
    into->max = from->max > into->max ? from->max : into->max;
    into->elems += from->elems;
    into->nonfinite += from->nonfinite;
    into->clipped_low += from->clipped_low;
    into->clipped_high += from->clipped_high;
}

/* A scale that no float can hold as a normal number counts as that of a constant zero tensor. */
static inline float qd_usable_scale(double scale)
{
    if (scale > (double)FLT_MAX)
        return FLT_MAX;
    float rounded = (float)scale;
    return rounded >= FLT_MIN ? rounded : 0.0f;
}

/* (3), (4): what qparams.h says of qd_qparams_from_range_bits. */
static inline struct qd_qparams qd_range_qparams(double lo, double hi, bool symmetric, int bits)
{
    const int32_t most = (1 << bits) - 1, half = most / 2;
    lo = lo < 0.0 ? lo : 0.0;
    hi = hi > 0.0 ? hi : 0.0;
    if (symmetric) {
        float scale = qd_usable_scale((hi > -lo ? hi : -lo) / half);
        return (struct qd_qparams){scale > 0.0f ? scale : 1.0f, QD_CARRIER_OFFSET, QD_CARRIER_OFFSET - half,
                                   QD_CARRIER_OFFSET + half};
    }
    struct qd_qparams qp = {qd_usable_scale((hi - lo) / most), 0, 0, most};
    if (!(qp.scale > 0.0f)) {
        qp.scale = 1.0f;
        return qp;
    }
    double zero_point = rint(most - hi / (double)qp.scale);
    qp.zero_point = zero_point < 0.0 ? 0 : zero_point > most ? most : (int32_t)zero_point;
    return qp;
}

/* Scale and zero point of a row from what it showed of itself; of one without a finite value, those of zeros. */
static inline struct qd_qparams qd_qparams_of_row(const struct qd_observation *seen, bool symmetric)
{
    bool finite = seen->min <= seen->max;
    return qd_range_qparams(finite ? (double)seen->min : 0.0, finite ? (double)seen->max : 0.0, symmetric, 8);
}

/* Clamp in float, then round: the same integer as rounding first, because the limits are integers; NaN gives qmin. */
static inline int32_t qd_round_clamp(float scaled, const struct qd_qparams *qp)
{
    float lo = (float)(qp->qmin - qp->zero_point), hi = (float)(qp->qmax - qp->zero_point);
    scaled = scaled > lo ? scaled : lo;
    scaled = scaled < hi ? scaled : hi;
    return (int32_t)rintf(scaled) + qp->zero_point;
}

/* (1) q = clamp(round(r / S) + Z): the quantize step, exact division. */
static inline uint8_t qd_quantize_one(float real, const struct qd_qparams *qp)
{
    return (uint8_t)qd_round_clamp(real / qp->scale, qp);
}

/* The same with 16 bits, limits within int16. */
static inline int16_t qd_quantize_one_s16(float real, const struct qd_qparams *qp)
{
    return (int16_t)qd_round_clamp(real / qp->scale, qp);
}

/* (2) r = S (q - Z) */
static inline float qd_dequantize_one(uint8_t q, const struct qd_qparams *qp)
{
    return qp->scale * (float)((int32_t)q - qp->zero_point);
}

/* (7) real value of an accumulator: r = acc * scale + bias, two roundings after the conversion's own. `acc` already has
 * the zero point's part taken off: acc = sum_k x_k w_k - Z sum_k w_k; scale = Sx * Sw. */
static inline float qd_real_one(int32_t acc, float scale, float bias) { return (float)acc * scale + bias; }

/* (8) the epilogue's form of (1): multiply by the reciprocal rounded to float, inv = 1 / S. */
static inline uint8_t qd_requantize_one(float real, float inv_scale, const struct qd_qparams *qp)
{
    return (uint8_t)qd_round_clamp(real * inv_scale, qp);
}

/* (8a) the same where nothing is between (7) and (8) but limits, one rounding for two: what an accumulator is
 * multiplied by, and what is added. */
struct qd_folded {
    float scale, bias;
};

static inline struct qd_folded qd_fold(float scale, float bias, float inv_scale, int32_t zero_point)
{
    return (struct qd_folded){scale * inv_scale, bias * inv_scale + (float)zero_point};
}

static inline uint8_t qd_requantize_folded(int32_t acc, struct qd_folded folded, int32_t qmin, int32_t qmax)
{
    const struct qd_qparams limits = {.scale = 1.0f, .zero_point = 0, .qmin = qmin, .qmax = qmax};
    return (uint8_t)qd_round_clamp(fmaf((float)acc, folded.scale, folded.bias), &limits);
}

/* One value into an observation; `scaled` = real / S (or real * inv), `qp` the range in force or NULL to count no
 * clipping. */
static inline void qd_observe_one(struct qd_observation *obs, float real, float scaled, const struct qd_qparams *qp)
{
    obs->elems++;
    if (!isfinite(real)) {
        obs->nonfinite++;
        return;
    }
    obs->min = real < obs->min ? real : obs->min;
    obs->max = real > obs->max ? real : obs->max;
    if (qp) {
        float rounded = rintf(scaled);
        obs->clipped_low += rounded < (float)(qp->qmin - qp->zero_point);
        obs->clipped_high += rounded > (float)(qp->qmax - qp->zero_point);
    }
}

#endif
