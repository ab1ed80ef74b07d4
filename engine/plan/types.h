/* What is known of every value before any input is there: element type and rank. Declared ones count, the rest follows
 * from the nodes where it does. Works on any graph, also between the passes that rewrite a plan's own. */
#ifndef QD_ENGINE_PLAN_TYPES_H
#define QD_ENGINE_PLAN_TYPES_H

#include "engine/ir/graph.h"

struct qd_type {
    enum qd_dtype dtype; /* QD_NONE: not known */
    int rank;            /* -1: not known */
};

/* One of each value, in the arena. NULL: out of memory. [any] */
struct qd_type *qd_types(const struct qd_graph *graph, struct qd_arena *arena);

#endif
