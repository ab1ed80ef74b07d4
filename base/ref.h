/* Reference counts for objects that several threads borrow (models, plans, epochs). The object embeds a struct
 * qd_ref and frees itself through the callback given at the last unref. Not for single-owner objects. */
#ifndef QD_BASE_REF_H
#define QD_BASE_REF_H

#include <stdatomic.h>
#include <stdbool.h>

struct qd_ref {
    atomic_int count;
};

static inline void qd_ref_init(struct qd_ref *ref) { atomic_init(&ref->count, 1); }
static inline void qd_ref_take(struct qd_ref *ref) { atomic_fetch_add_explicit(&ref->count, 1, memory_order_relaxed); }
/* True when this was the last reference: the caller then frees the object. [any] */
static inline bool qd_ref_drop(struct qd_ref *ref)
{
    return atomic_fetch_sub_explicit(&ref->count, 1, memory_order_acq_rel) == 1;
}

#endif
