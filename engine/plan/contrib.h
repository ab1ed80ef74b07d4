/* Operators that optimizers and quantizers leave in files: domain com.microsoft, and the fused normalizations that they
 * write into the standard's domain before its opset had them. Each is spelled out in operators of the standard before
 * any other pass, so that patterns, INT8 paths and shapes know only those. So are the standard's Einsum and sequences.
 * Not for arithmetic, nor for finding speed. */
#ifndef QD_ENGINE_PLAN_CONTRIB_H
#define QD_ENGINE_PLAN_CONTRIB_H

#include "engine/ir/graph.h"

/* Rewrites a graph of own arrays; what is made lies in `arena`. Values keep their ids, new ones stand behind them. The
 * node that does the main work keeps the contrib node's name. A contrib operator without a row stays as it is: the
 * table of operators refuses it by name. Errors name the node: INVALID (a missing input, an attribute of another type),
 * UNSUPPORTED (a variant that isn't served), NO_MEMORY. [any] */
enum qd_status qd_contrib_rewrite(struct qd_graph *graph, struct qd_arena *arena, struct qd_error *error) QD_MUST_CHECK;

/* Whether there is a row for the node's operator (which may still refuse the node itself). [any] */
bool qd_contrib_knows(const struct qd_node *node);

#endif
