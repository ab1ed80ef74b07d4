/* Fused elementwise programs: a chain or net of float operations on broadcast inputs that runs over tiles small enough
 * to stay in the first cache, one kernel (engine/kernels/pointwise.def) a step. The operator "Pointwise" of domain
 * "quantd"; engine/plan/pointwise.h makes its nodes. Not for integers or anything that looks beyond its own element. */
#ifndef QD_ENGINE_OPS_POINTWISE_H
#define QD_ENGINE_OPS_POINTWISE_H

#include "engine/kernels/pointwise.h"

#include <stdbool.h>

enum { QD_POINTWISE_INPUTS = 16, QD_POINTWISE_STEPS = 32 };

/* An operand: input i of the node as i, the result of step s as ~s. b is not looked at where the operation has none. */
struct qd_pointwise_step {
    enum qd_pw op;
    int a, b;
    float p, q;
};

/* node->program. The result of the last step is output 0; every step reads inputs or steps before it. All inputs are
 * broadcast together: what a step would give with fewer of them is the same, repeated. */
struct qd_pointwise_program {
    int step_count;
    struct qd_pointwise_step steps[QD_POINTWISE_STEPS];
};

/* Has the operation a second operand? */
static inline bool qd_pointwise_binary(enum qd_pw op) { return op <= QD_PW_PRELU; }

#endif
