/* A range from what a tensor's values look like: min-max, percentile, entropy, mean-squared error
 * (docs/QUANTIZATION.md, section 11). Not for the moving average, which needs the requests one by one
 * (engine/quant/range.h). [any] */
#ifndef QD_ENGINE_QUANT_ESTIMATE_H
#define QD_ENGINE_QUANT_ESTIMATE_H

#include "engine/quant/sketch.h"

#include <stdbool.h>

enum qd_method {
    QD_METHOD_MINMAX,     /* all that came */
    QD_METHOD_EMA,        /* the moving average of the requests' bounds: not made from a sketch */
    QD_METHOD_PERCENTILE, /* leaves out (100 - percentile) / 2 per cent at each end; symmetric: 100 - percentile of |x|
                           */
    QD_METHOD_ENTROPY,    /* least Kullback-Leibler divergence, as ONNX Runtime's EntropyCalibrater does */
    QD_METHOD_MSE,        /* least mean-squared error of quantize and dequantize */
};

struct qd_estimate_rules {
    enum qd_method method; /* not QD_METHOD_EMA */
    bool symmetric;
    int bits;          /* 8 or 16 */
    double percentile; /* 0 < percentile <= 100 */
};

#define QD_DEFAULT_PERCENTILE 99.999

/* Bounds within the finite values' own, without zero. False: the sketch holds no finite value. */
bool qd_estimate(const struct qd_sketch *sketch, const struct qd_estimate_rules *rules, double *lo, double *hi);

/* The mean of the squared error that quantizing by this range makes of what the sketch holds: exact for values spread
 * evenly over each bin. */
double qd_estimate_error(const struct qd_sketch *sketch, const struct qd_estimate_rules *rules, double lo, double hi);

/* ONNX Runtime's search over a histogram of `bins` equal bins around zero: how many bins right of the middle one the
 * best threshold lies; the window is bins middle - i .. middle + i. `bins` is odd and at least levels + 1, `levels`
 * even. */
size_t qd_entropy_threshold(const uint64_t *histogram, size_t bins, size_t levels);

#endif
