/* Graph patterns: what exporters wrote in pieces becomes one operator again (LayerNormalization, Gelu, HardSwish...),
 * and what changes nothing goes (Identity, Cast to the same type, pairs of Transpose). Works on the plan's own copy of
 * the graph, between folding and fusing. Not for what runs inside a linear layer's epilogue (engine/plan/fuse.h). */
#ifndef QD_ENGINE_PLAN_PATTERNS_H
#define QD_ENGINE_PLAN_PATTERNS_H

#include "engine/ir/graph.h"

/* Rewrites graph->nodes (and appends to graph->values, whose old ids stay what they are); new arrays and constants lie
 * in `arena`. A rewritten node bears the name of the pattern's last node. Values that are the graph's outputs, or that
 * a subgraph reads, stay. Results agree with the pieces' within float rounding. Errors: NO_MEMORY. [any] */
enum qd_status qd_find_patterns(struct qd_graph *graph, struct qd_arena *arena, struct qd_error *error) QD_MUST_CHECK;

#endif
