/* Scale and zero point from a range: equations (3) and (4) of docs/QUANTIZATION.md. Worked in double, so that any two
 * floats make a range; the scale is rounded to float once, and the zero point fits that float. Not for the moving
 * average (engine/quant/range) nor for the arithmetic on tensors (requant.h). */
#include "engine/quant/qparams.h"

#include <float.h>
#include <math.h>

/* A scale that no float can hold as a normal number counts as that of a constant zero tensor. */
static float usable_scale(double scale)
{
    if (scale > (double)FLT_MAX)
        return FLT_MAX;
    float rounded = (float)scale;
    return rounded >= FLT_MIN ? rounded : 0.0f;
}

struct qd_qparams qd_qparams_from_range_bits(double lo, double hi, bool symmetric, int bits)
{
    const int32_t most = (1 << bits) - 1, half = most / 2;
    lo = lo < 0.0 ? lo : 0.0;
    hi = hi > 0.0 ? hi : 0.0;
    if (symmetric) {
        float scale = usable_scale((hi > -lo ? hi : -lo) / half);
        return (struct qd_qparams){scale > 0.0f ? scale : 1.0f, QD_CARRIER_OFFSET, QD_CARRIER_OFFSET - half,
                                   QD_CARRIER_OFFSET + half};
    }
    struct qd_qparams qp = {usable_scale((hi - lo) / most), 0, 0, most};
    if (!(qp.scale > 0.0f)) {
        qp.scale = 1.0f;
        return qp;
    }
    double zero_point = rint(most - hi / (double)qp.scale);
    qp.zero_point = zero_point < 0.0 ? 0 : zero_point > most ? most : (int32_t)zero_point;
    return qp;
}

struct qd_qparams qd_qparams_from_range(double lo, double hi, bool symmetric)
{
    return qd_qparams_from_range_bits(lo, hi, symmetric, 8);
}

struct qd_qparams qd_qparams_from_range_s16(double lo, double hi)
{
    float scale = usable_scale((hi > -lo ? hi : -lo) / 32767.0);
    return (struct qd_qparams){scale > 0.0f ? scale : 1.0f, 0, -32767, 32767};
}

double qd_qparams_lo(const struct qd_qparams *qp) { return (double)qp->scale * (qp->qmin - qp->zero_point); }

double qd_qparams_hi(const struct qd_qparams *qp) { return (double)qp->scale * (qp->qmax - qp->zero_point); }

float qd_weight_scale(float absmax, int bits)
{
    float scale = usable_scale((double)absmax / ((1 << (bits - 1)) - 1));
    return scale > 0.0f ? scale : 1.0f;
}

float qd_weight_scale_s8(float absmax) { return qd_weight_scale(absmax, 8); }
