/* Attention as exporters write it (heads split by Reshape and Transpose, two MatMuls, scale, mask, Softmax, heads
 * joined again) becomes one node of engine/ops/attention.h. After the other patterns, before fusing. */
#ifndef QD_ENGINE_PLAN_ATTENTION_H
#define QD_ENGINE_PLAN_ATTENTION_H

#include "engine/ir/graph.h"

/* Rewrites graph->nodes; new arrays lie in `arena`. The new node bears the name of the last node of the pattern. What
 * somebody else reads of the pieces (scores, probabilities) keeps the pieces as they are. Results agree with the
 * pieces' within float rounding. Errors: NO_MEMORY. [any] */
enum qd_status qd_find_attention(struct qd_graph *graph, struct qd_arena *arena, struct qd_error *error) QD_MUST_CHECK;

#endif
