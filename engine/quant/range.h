/* The moving average of one site: docs/QUANTIZATION.md, section 3, equations (5) and (6). Fed with observations of real
 * values taken before any clamp, so a range can grow. Not for publishing (engine/quant/epoch.h). One thread at a time.
 */
#ifndef QD_ENGINE_QUANT_RANGE_H
#define QD_ENGINE_QUANT_RANGE_H

#include "engine/quant/observers.h"
#include "engine/quant/requant.h"

struct qd_range_rules {
    double averaging_constant; /* c */
    double max_step; /* one observation moves a bound by at most c_n * max_step widths; where it lies farther out, only
                        when the two before did so too */
    struct qd_observer_rules observer; /* whose average it is; QD_COMPAT_QUANTD: equations (5) and (6) */
};

struct qd_range {
    double lo, hi; /* the moving average, without zero; meaningless while n == 0 */
    uint64_t n;    /* observations folded */
    uint64_t far;  /* so many, the last ones, lay more than max_step widths beyond a bound */
    double observed_min, observed_max, last_min, last_max;
    uint64_t elems, nonfinite, clipped_low, clipped_high, guarded;
    int64_t updated_unix_ms; /* 0: never */
};

/* c_n = max(c, 1 / (n + 1)) */
double qd_range_rate(const struct qd_range_rules *rules, uint64_t n);
/* Width of the range with zero included: what steps and tolerances are measured in. */
double qd_range_width(double lo, double hi);
/* Counts one observation (counters, last and observed bounds) without moving the average: also while learning stands
 * still. */
void qd_range_count(struct qd_range *range, const struct qd_observation *observation, uint32_t guarded,
                    int64_t now_unix_ms);
/* Counts one observation and folds it into the average. Without a finite value only the counters move; and where
 * another library's average would become infinite, the observation is left out. */
void qd_range_fold(struct qd_range *range, const struct qd_range_rules *rules, const struct qd_observation *observation,
                   uint32_t guarded, int64_t now_unix_ms);

#endif
