/* Other libraries' observers. Each is a row of `observers`: where it starts, how it folds, how it makes a scale. The
 * formulas are those of docs/QUANTIZATION.md, section 3; tests/unit/test_observers.c holds them to recordings of the
 * libraries themselves. */
#include "engine/quant/observers.h"

#include <float.h>
#include <math.h>

/* Of a signed range of 8 bits, as carried. */
#define CARRIED(q) ((q) + QD_CARRIER_OFFSET)

static float least(float a, float b) { return a < b ? a : b; }
static float most(float a, float b) { return a > b ? a : b; }

static float towards(float bound, float value, float c)
{
    float difference = value - bound, move = c * difference;
    return bound + move;
}

static struct qd_qparams carried(float scale, double zero_point, int32_t qmin)
{
    double inside = zero_point < 0 ? 0 : zero_point > 255 ? 255 : zero_point;
    return (struct qd_qparams){scale, (int32_t)inside, qmin, 255};
}

/* ------------------------------------------------------------------ torch */

static const struct qd_observer nothing_seen = {INFINITY, -INFINITY};

static void torch_fold(struct qd_observer *observer, const struct qd_observer_rules *rules, float min, float max)
{
    if (observer->lo == INFINITY && observer->hi == -INFINITY)
        *observer = (struct qd_observer){min, max};
    else {
        observer->lo = towards(observer->lo, min, rules->averaging_constant);
        observer->hi = towards(observer->hi, max, rules->averaging_constant);
    }
}

/* Symmetric: absmax / 127.5, limits -128..127. */
static struct qd_qparams torch_qparams(float lo, float hi, bool symmetric)
{
    lo = least(lo, 0);
    hi = most(hi, 0);
    float scale = most(symmetric ? most(-lo, hi) / 127.5f : (hi - lo) / 255.0f, FLT_EPSILON);
    return carried(scale, symmetric ? QD_CARRIER_OFFSET : -(double)rintf(lo / scale), 0);
}

/* ------------------------------------------------------------------ torch_fused */

static void fused_fold(struct qd_observer *observer, const struct qd_observer_rules *rules, float min, float max)
{
    observer->lo = isinf(observer->lo) ? min : towards(observer->lo, min, rules->averaging_constant);
    observer->hi = isinf(observer->hi) ? max : towards(observer->hi, max, rules->averaging_constant);
}

#define FUSED_LEAST_SCALE 6.1e-5f /* smaller ones count as this, and the range grows with it */

/* Theirs works with the scale rounded to float. The zero point from whichever end of the range loses fewer bits. */
static double fused_zero_point(float lo, float hi, double scale, int qmin, int qmax)
{
    double from_lo = qmin - (double)lo / scale, from_hi = qmax - (double)hi / scale;
    double error_lo = fabs((double)qmin) - fabs((double)lo / scale);
    double error_hi = fabs((double)qmax) - fabs((double)hi / scale);
    return error_lo < error_hi ? from_lo : from_hi;
}

static struct qd_qparams fused_qparams(float lo, float hi, bool symmetric)
{
    const int qmin = symmetric ? -128 : 0, qmax = symmetric ? 127 : 255;
    if (symmetric && lo < 0 && hi > 0) {
        double scale = (double)most(fabsf(lo / -128.0f), fabsf(hi / 127.0f));
        lo = (float)(scale * -128);
        hi = (float)(scale * 127);
    }
    lo = least(lo, 0);
    hi = most(hi, 0);
    float scale = (float)(((double)hi - (double)lo) / 255);
    if (scale == 0.0f || isinf(1.0f / scale))
        scale = 0.1f;
    if (scale < FUSED_LEAST_SCALE) {
        float grown = FUSED_LEAST_SCALE / scale;
        scale = FUSED_LEAST_SCALE;
        if (lo == 0.0f)
            hi = FUSED_LEAST_SCALE * 255;
        else if (hi == 0.0f)
            lo = -FUSED_LEAST_SCALE * 255;
        else {
            lo *= grown;
            hi *= grown;
        }
    }
    double zero_point = symmetric && lo < 0 && hi > 0 ? (double)(qmin + qmax) / 2
                                                      : fused_zero_point(lo, hi, (double)scale, qmin, qmax);
    return carried(scale, nearbyint(zero_point) + (symmetric ? QD_CARRIER_OFFSET : 0), 0);
}

/* ------------------------------------------------------------------ tf */

static const struct qd_observer plus_minus_six = {-6, 6};

static float tf_towards(float bound, float value, float c)
{
    float difference = bound - value, move = difference * c;
    return bound - move;
}

/* Symmetric: the negative side of two's complement is larger by one quantum; zero is inside without asking. */
static void tf_fold(struct qd_observer *observer, const struct qd_observer_rules *rules, float min, float max)
{
    const float ratio = -254.0f / 256.0f;
    float lo = rules->symmetric ? least(min, max / ratio) : least(min, 0);
    float hi = rules->symmetric ? most(max, min * ratio) : most(max, 0);
    observer->lo = tf_towards(observer->lo, lo, rules->averaging_constant);
    observer->hi = tf_towards(observer->hi, hi, rules->averaging_constant);
}

static struct qd_qparams tf_qparams(float lo, float hi, bool symmetric)
{
    (void)symmetric; /* it is in the range */
    float scale = (hi - lo) / 255.0f;
    return carried(scale, (double)roundf(least(most(0.0f - lo / scale, 0), 255)), 0);
}

/* ------------------------------------------------------------------ ort */

static void ort_fold(struct qd_observer *observer, const struct qd_observer_rules *rules, float min, float max)
{
    if (rules->symmetric) {
        max = most(fabsf(min), fabsf(max));
        min = -max;
    }
    torch_fold(observer, rules, min, max);
}

static struct qd_qparams ort_qparams(float lo, float hi, bool symmetric)
{
    lo = least(lo, 0);
    hi = most(hi, 0);
    if (symmetric) {
        hi = most(fabsf(lo), fabsf(hi));
        lo = -hi;
    }
    double scale = ((double)hi - (double)lo) / (symmetric ? 254 : 255);
    if (scale < (double)FLT_MIN)
        return carried(1, symmetric ? QD_CARRIER_OFFSET : 0, symmetric);
    return carried((float)scale, symmetric ? QD_CARRIER_OFFSET : rint(0 - (double)lo / scale), symmetric);
}

/* ------------------------------------------------------------------ the table */

static const struct {
    const struct qd_observer *start;
    void (*fold)(struct qd_observer *observer, const struct qd_observer_rules *rules, float min, float max);
    struct qd_qparams (*qparams)(float lo, float hi, bool symmetric);
} observers[] = {
    [QD_COMPAT_TORCH] = {&nothing_seen, torch_fold, torch_qparams},
    [QD_COMPAT_TORCH_FUSED] = {&nothing_seen, fused_fold, fused_qparams},
    [QD_COMPAT_TF] = {&plus_minus_six, tf_fold, tf_qparams},
    [QD_COMPAT_ORT] = {&nothing_seen, ort_fold, ort_qparams},
};

struct qd_observer qd_observer_start(const struct qd_observer_rules *rules) { return *observers[rules->compat].start; }

void qd_observer_fold(struct qd_observer *observer, const struct qd_observer_rules *rules, float min, float max)
{
    observers[rules->compat].fold(observer, rules, min, max);
}

bool qd_observer_qparams(const struct qd_observer *observer, const struct qd_observer_rules *rules,
                         struct qd_qparams *out)
{
    if (!isfinite(observer->lo) || !isfinite(observer->hi) || !(observer->lo <= observer->hi))
        return false;
    struct qd_qparams qp = observers[rules->compat].qparams(observer->lo, observer->hi, rules->symmetric);
    if (!isnormal(qp.scale) || qp.scale < 0)
        return false;
    *out = qp;
    return true;
}
