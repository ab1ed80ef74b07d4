/* One floating type inside: FP16, BF16 and FP64 are read and written where the model says so (inputs, outputs, casts,
 * bodies of control flow) and computed with in FP32 between. So every operator, pattern and INT8 kernel serves them,
 * and neighbours don't round to 16 bits between each other. Not for integers. */
#ifndef QD_ENGINE_PLAN_FLOATS_H
#define QD_ENGINE_PLAN_FLOATS_H

#include "engine/ir/graph.h"

/* Rewrites a graph of own arrays, opened by qd_control_open; what is made lies in `arena`. Constants get a Cast that
 * folding does away with. Errors: NO_MEMORY. */
enum qd_status qd_unify_floats(struct qd_graph *graph, struct qd_arena *arena, struct qd_error *error) QD_MUST_CHECK;

#endif
