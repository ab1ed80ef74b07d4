/* Fusing elementwise operators: what the linear layers left of them becomes programs (engine/ops/pointwise.h), the
 * longest that compute nothing twice. Not for what runs in a linear layer's epilogue (engine/plan/fuse.h). */
#ifndef QD_ENGINE_PLAN_POINTWISE_H
#define QD_ENGINE_PLAN_POINTWISE_H

#include "engine/plan/fuse.h"

/* After qd_fuse, on its list of units, which gets shorter: units of float elementwise nodes are joined where their last
 * one stands. That node (in graph->nodes, the caller's own copy) becomes "quantd" Pointwise with a program, keeps its
 * name, and unit->fused names the others. graph->values may move and grow by constants. A value that disappears has no
 * reader outside and is no output of the model. Errors: NO_MEMORY. [any] */
enum qd_status qd_fuse_pointwise(struct qd_graph *graph, struct qd_arena *arena, struct qd_unit *units, int *unit_count,
                                 struct qd_error *error) QD_MUST_CHECK;

#endif
