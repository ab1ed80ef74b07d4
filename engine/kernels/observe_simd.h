/* Observations, many values at a time. The common case costs a min, a max and a test for NaN a vector; only a piece in
 * which something is not finite, or cut by the range in force, is counted value by value. Exact: scaling and rounding
 * are monotone, so a piece whose min and max are not cut has no value that is. Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_OBSERVE_SIMD_H
#define QD_ENGINE_KERNELS_OBSERVE_SIMD_H

#include "engine/kernels/epilogue.h"
#include "engine/kernels/simd.h"

#include <float.h>

#ifdef QD_SIMD_FLOATS

/* How a real value is brought to the scale of integers: the epilogue multiplies (8), the quantize step divides (1). */
struct scaling {
    vf factor;  /* 1 / S, or S when dividing */
    vf lo, hi;  /* qmin - Z, qmax - Z */
    bool clips; /* a range is in force */
};

struct observing {
    vf min, max; /* of all pieces in which nothing was to count */
    struct qd_observation rare;
};

struct piece {
    vf min, max; /* NaN left out */
    vm nan;
};

static inline struct scaling scaling_of(const struct qd_qparams *qp, float factor)
{
    if (!qp)
        return (struct scaling){vf_set(0.0f), vf_set(0.0f), vf_set(0.0f), false};
    return (struct scaling){vf_set(factor), vf_set((float)(qp->qmin - qp->zero_point)),
                            vf_set((float)(qp->qmax - qp->zero_point)), true};
}

static inline struct observing observing_begin(void)
{
    return (struct observing){vf_set(INFINITY), vf_set(-INFINITY), qd_observation_empty()};
}

static inline struct piece piece_begin(void) { return (struct piece){vf_set(INFINITY), vf_set(-INFINITY), vm_none()}; }

/* No NaN among the values. */
QD_INLINE void piece_add_finite(struct piece *p, vf real, vm lanes)
{
    p->min = vf_min_some(p->min, lanes, real);
    p->max = vf_max_some(p->max, lanes, real);
}

QD_INLINE void piece_add(struct piece *p, vf real, vm lanes)
{
    p->min = vf_min_some(p->min, lanes, real);
    p->max = vf_max_some(p->max, lanes, real);
    p->nan = vm_or(p->nan, vm_and(lanes, vm_unordered(real)));
}

QD_INLINE vf scaled_by(const struct scaling *s, vf real, bool divide)
{
    return divide ? vf_div(real, s->factor) : vf_mul(real, s->factor);
}

/* True: nothing to count, the piece is merged. False: the caller counts its values by observing_count. */
QD_INLINE bool observing_take(struct observing *o, const struct piece *p, const struct scaling *s, bool divide)
{
    /* Lanes that saw no value hold min = +inf, max = -inf: only the other two infinities were values. */
    vm infinite = vm_or(vm_lt(p->min, vf_set(-FLT_MAX)), vm_lt(vf_set(FLT_MAX), p->max));
    vm rare = vm_or(p->nan, infinite);
    if (s->clips) {
        vm cut_low = vm_lt(vf_round(scaled_by(s, p->min, divide)), s->lo);
        vm cut_high = vm_lt(s->hi, vf_round(scaled_by(s, p->max, divide)));
        rare = vm_or(rare, vm_or(cut_low, cut_high));
    }
    if (vm_count(rare))
        return false;
    o->min = vf_min(p->min, o->min);
    o->max = vf_max(p->max, o->max);
    return true;
}

QD_INLINE void observing_count(struct observing *o, vf real, vm lanes, const struct scaling *s, bool divide)
{
    vm finite = vm_and(lanes, vm_lt(vf_abs(real), vf_set(INFINITY)));
    o->rare.nonfinite += vm_count(lanes) - vm_count(finite);
    o->min = vf_min_some(o->min, finite, real);
    o->max = vf_max_some(o->max, finite, real);
    if (s->clips) {
        vf rounded = vf_round(scaled_by(s, real, divide));
        o->rare.clipped_low += vm_count(vm_and(finite, vm_lt(rounded, s->lo)));
        o->rare.clipped_high += vm_count(vm_and(finite, vm_lt(s->hi, rounded)));
    }
}

static inline void observing_end(struct observing *o, uint64_t elems, struct qd_observation *into)
{
    o->rare.elems = elems;
    o->rare.min = vf_reduce_min(o->min);
    o->rare.max = vf_reduce_max(o->max);
    observation_publish(&o->rare, into);
}

#endif
#endif
