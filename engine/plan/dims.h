/* Dimensions of values before any input is there: each is a number or a symbol, and the same symbol means the same size
 * wherever it stands. Also what lists of dimensions (Shape and what exporters compute from it) and single numbers hold.
 * For patterns that must know that a Reshape only splits or joins an axis. Not for computing shapes (qd_step_infer). */
#ifndef QD_ENGINE_PLAN_DIMS_H
#define QD_ENGINE_PLAN_DIMS_H

#include "engine/ir/graph.h"

#define QD_DIM_SYMBOLS (-((int64_t)1 << 40)) /* what lies below is a symbol */

struct qd_dims {
    int rank; /* -1: not known */
    int64_t dims[QD_MAX_RANK];
    int length; /* of a list of ints (a scalar counts as one) whose elements are known as below; -1: no such list */
    int64_t list[QD_MAX_RANK];
    bool has_number; /* one float, and known */
    double number;
};

static inline bool qd_dim_known(int64_t dim) { return dim > QD_DIM_SYMBOLS; }

/* One of each value, in the arena, as far as the nodes and what the model declares tell. NULL: out of memory. */
struct qd_dims *qd_dims_find(const struct qd_graph *graph, struct qd_arena *arena);

#endif
