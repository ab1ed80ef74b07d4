/* What a tensor's values look like, in a fixed size: counts by sign and magnitude, exact bounds. For estimating ranges
 * from any number of samples. The bins are logarithmic (a float's exponent and leading bits), so an outlier costs no
 * precision elsewhere, and the state depends only on which values came: not on their order, nor on how they were split
 * and merged. Not for the moving average (engine/quant/range.h). One thread at a time. */
#ifndef QD_ENGINE_QUANT_SKETCH_H
#define QD_ENGINE_QUANT_SKETCH_H

#include <stddef.h>
#include <stdint.h>

#define QD_SKETCH_BITS    8  /* leading bits of the mantissa: 256 bins an octave */
#define QD_SKETCH_OCTAVES 16 /* below the largest magnitude; what is smaller counts as `small` */
#define QD_SKETCH_BINS    (QD_SKETCH_OCTAVES << QD_SKETCH_BITS)

struct qd_sketch {
    float min, max;                   /* exact, of the finite values; +inf, -inf when there was none */
    uint64_t elems, nonfinite;        /* elems counts all */
    uint64_t zeros, small;            /* small: nearer to zero than the lowest bin, not zero */
    uint32_t base;                    /* key of bin 0: a magnitude's bits >> (23 - QD_SKETCH_BITS) */
    uint64_t bins[2][QD_SKETCH_BINS]; /* [negative] by magnitude, rising */
};

void qd_sketch_init(struct qd_sketch *sketch);
void qd_sketch_add(struct qd_sketch *sketch, const float *values, size_t count);
/* The same state as if `into` had been given all that `from` was given. */
void qd_sketch_merge(struct qd_sketch *into, const struct qd_sketch *from);
/* Where the magnitudes of bin i begin; i = QD_SKETCH_BINS: where the last one ends (may be infinite). */
double qd_sketch_edge(const struct qd_sketch *sketch, size_t i);

#endif
