/* Fusing: which nodes run together. A unit is an anchor node with what was merged into it. Knows nothing of precision
 * or memory. */
#ifndef QD_ENGINE_PLAN_FUSE_H
#define QD_ENGINE_PLAN_FUSE_H

#include "base/parallel.h"
#include "engine/ir/graph.h"
#include "engine/ops/linear.h"

struct qd_unit {
    int node, last;       /* the anchor; the last node merged, where the unit runs */
    int out;              /* value id of its (last merged node's) output 0 */
    bool linear;          /* Conv, Gemm, MatMul with constant weights */
    int64_t outputs;      /* of a linear unit: channels */
    float *factor, *bias; /* [outputs] or NULL; bias includes the node's own */
    int folded;           /* of a linear unit: the value that weights, factor and bias alone make */
    struct qd_activation act;
    int residual;      /* value added before the activation, or QD_NO_VALUE */
    const char *fused; /* names of merged nodes */
};

/* What a linear unit is made from; `int8` is the caller's to set. Pointers are the graph's and the unit's. */
struct qd_linear_spec qd_unit_spec(const struct qd_graph *graph, const struct qd_unit *unit);

/* Units in execution order, in the arena. A merged node's intermediate value has no other reader and is no output of
 * the model. */
enum qd_status qd_fuse(const struct qd_graph *graph, struct qd_arena *arena, struct qd_unit **units, int *unit_count,
                       struct qd_error *error) QD_MUST_CHECK;

/* Replaces nodes all of whose inputs are constants by their results (in `arena`) and drops them: edits graph's arrays,
 * which are the caller's own copies. `keep`: nodes that stay all the same; NULL: none. `Shape` of a fully known shape
 * counts as constant. What would take far more memory than the model's constants, or more than `most_bytes` in all, is
 * left to the requests. */
enum qd_status qd_fold_constants(struct qd_graph *graph, struct qd_arena *arena, const struct qd_kernels *kernels,
                                 struct qd_parallel *parallel, size_t most_bytes,
                                 bool (*keep)(const struct qd_graph *graph, const struct qd_node *node),
                                 struct qd_error *error) QD_MUST_CHECK;

#endif
