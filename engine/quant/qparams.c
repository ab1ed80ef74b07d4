/* Scale and zero point from a range: equations (3) and (4) of docs/QUANTIZATION.md. Worked in double, so that any two
 * floats make a range; the scale is rounded to float once, and the zero point fits that float. Not for the moving
 * average (engine/quant/range) nor for the arithmetic on tensors (requant.h). */
#include "engine/quant/requant.h"

struct qd_qparams qd_qparams_from_range_bits(double lo, double hi, bool symmetric, int bits)
{
    return qd_range_qparams(lo, hi, symmetric, bits);
}

struct qd_qparams qd_qparams_from_range(double lo, double hi, bool symmetric)
{
    return qd_qparams_from_range_bits(lo, hi, symmetric, 8);
}

struct qd_qparams qd_qparams_from_range_s16(double lo, double hi)
{
    float scale = qd_usable_scale((hi > -lo ? hi : -lo) / 32767.0);
    return (struct qd_qparams){scale > 0.0f ? scale : 1.0f, 0, -32767, 32767};
}

double qd_qparams_lo(const struct qd_qparams *qp) { return (double)qp->scale * (qp->qmin - qp->zero_point); }

double qd_qparams_hi(const struct qd_qparams *qp) { return (double)qp->scale * (qp->qmax - qp->zero_point); }

float qd_weight_scale(float absmax, int bits)
{
    float scale = qd_usable_scale((double)absmax / ((1 << (bits - 1)) - 1));
    return scale > 0.0f ? scale : 1.0f;
}

float qd_weight_scale_s8(float absmax) { return qd_weight_scale(absmax, 8); }

enum { WINDOW_SCALES = 64 };
#define WINDOW_STEP   (1.0 / 512) /* from one to the next, of the least */
#define WINDOW_WEIGHT 16.0        /* of a squared sum, a single weight's squared error being 1 */

static double window_cost(const struct qd_window_weights *weights, float scale)
{
    double cost = 0;
    for (size_t c = 0; c < weights->channels; c++) {
        double sum = 0;
        for (size_t t = 0; t < weights->taps; t++) {
            const float w = weights->w[c * weights->channel_step + t * weights->tap_step];
            const double error = (double)w - (double)scale * (double)rintf(w / scale);
            sum += error;
            cost += error * error;
        }
        cost += WINDOW_WEIGHT * sum * sum;
    }
    return cost;
}

float qd_weight_scale_window(const struct qd_window_weights *weights, int bits)
{
    float absmax = 0;
    for (size_t c = 0; c < weights->channels; c++)
        for (size_t t = 0; t < weights->taps; t++)
            absmax = fmaxf(absmax, fabsf(weights->w[c * weights->channel_step + t * weights->tap_step]));
    const float least = qd_weight_scale(absmax, bits);
    float best = least;
    double best_cost = absmax > 0 && isfinite(absmax) ? window_cost(weights, least) : 0;
    for (int i = 1; i < WINDOW_SCALES && best_cost > 0; i++) {
        const float scale = (float)((double)least * (1 + i * WINDOW_STEP));
        const double cost = window_cost(weights, scale);
        if (cost < best_cost) {
            best = scale;
            best_cost = cost;
        }
    }
    return best;
}
