/* Which image tensors surely have the same shape, before any shape is known: what fusing must know of a sum's operands.
 * Two tensors [N, C, d...] are alike when N and d... came about in the same way from the same tensor, and C is the
 * same. Not for computing shapes (qd_step_infer). */
#ifndef QD_ENGINE_PLAN_EXTENT_H
#define QD_ENGINE_PLAN_EXTENT_H

#include "engine/ir/graph.h"

struct qd_extent {
    int form;         /* how batch and spatial dimensions came about; -1: nothing is known */
    int64_t channels; /* below 0: unknown, but the same wherever the same number stands */
};

/* One of each value, in the arena. NULL: out of memory. */
struct qd_extent *qd_extents(const struct qd_graph *graph, struct qd_arena *arena);

static inline bool qd_extent_equal(struct qd_extent a, struct qd_extent b)
{
    return a.form >= 0 && a.form == b.form && a.channels == b.channels;
}

#endif
