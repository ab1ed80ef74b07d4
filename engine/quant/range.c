/* The moving average of one site. */
#include "engine/quant/range.h"

#define BELIEVED 3 /* far observations in a row: the data have changed */

double qd_range_rate(const struct qd_range_rules *rules, uint64_t n)
{
    double warm = 1.0 / ((double)n + 1.0);
    return rules->averaging_constant > warm ? rules->averaging_constant : warm;
}

double qd_range_width(double lo, double hi) { return (hi > 0 ? hi : 0) - (lo < 0 ? lo : 0); }

/* One bound towards one value, winsorised to `limit`; an infinite limit (a range of no width yet) lets it through
 * whole. */
static double step(double bound, double value, double rate, double limit)
{
    double move = rate * (value - bound);
    if (move > limit)
        move = limit;
    if (move < -limit)
        move = -limit;
    return bound + move;
}

static bool has_finite(const struct qd_observation *observation) { return observation->min <= observation->max; }

void qd_range_count(struct qd_range *range, const struct qd_observation *observation, uint32_t guarded,
                    int64_t now_unix_ms)
{
    range->elems += observation->elems;
    range->nonfinite += observation->nonfinite;
    range->clipped_low += observation->clipped_low;
    range->clipped_high += observation->clipped_high;
    range->guarded += guarded;
    if (!has_finite(observation))
        return;
    double min = observation->min, max = observation->max;
    bool first = range->updated_unix_ms == 0;
    range->observed_min = first || min < range->observed_min ? min : range->observed_min;
    range->observed_max = first || max > range->observed_max ? max : range->observed_max;
    range->last_min = min;
    range->last_max = max;
    range->updated_unix_ms = now_unix_ms;
}

/* Another library's average. Its floats are kept in our doubles unchanged. */
static void fold_like(struct qd_range *range, const struct qd_observer_rules *rules,
                      const struct qd_observation *observation)
{
    struct qd_observer observer = qd_observer_start(rules);
    if (range->n > 0)
        observer = (struct qd_observer){(float)range->lo, (float)range->hi};
    qd_observer_fold(&observer, rules, observation->min, observation->max);
    if (!isfinite(observer.lo) || !isfinite(observer.hi))
        return;
    range->lo = (double)observer.lo;
    range->hi = (double)observer.hi;
    range->n++;
}

void qd_range_fold(struct qd_range *range, const struct qd_range_rules *rules, const struct qd_observation *observation,
                   uint32_t guarded, int64_t now_unix_ms)
{
    qd_range_count(range, observation, guarded, now_unix_ms);
    if (!has_finite(observation))
        return;
    if (rules->observer.compat != QD_COMPAT_QUANTD) {
        fold_like(range, &rules->observer, observation);
        return;
    }
    double min = observation->min, max = observation->max;
    if (range->n == 0) {
        range->lo = min;
        range->hi = max;
    } else {
        double rate = qd_range_rate(rules, range->n), width = qd_range_width(range->lo, range->hi);
        double far = width > 0 ? rules->max_step * width : INFINITY;
        range->far = min < range->lo - far || max > range->hi + far ? range->far + 1 : 0;
        if (range->far == 0 || range->far >= BELIEVED) {
            range->lo = step(range->lo, min, rate, rate * far);
            range->hi = step(range->hi, max, rate, rate * far);
        }
    }
    range->n++;
}
