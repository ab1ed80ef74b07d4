/* How much work one application of an operator is, in elementary steps and within a power of ten: what folding and
 * shaping ask before they compute something on the spot. Not for choosing between kernels (engine/plan/choose.h). */
#ifndef QD_ENGINE_PLAN_WORK_H
#define QD_ENGINE_PLAN_WORK_H

#include "engine/ops/op.h"

/* `call` after infer: types and shapes of inputs and outputs are known. Rather too much than too little: a bound where
 * the attributes would have to be read to know (Einsum), and then it may be 1e60. [any] */
double qd_op_work(const struct qd_call *call);

/* Multiply-adds of an operator that is a sum of products (a matrix product, convolution, attention, recurrent network),
 * exactly; 0 of others. `call` as above. [any] */
uint64_t qd_op_macs(const struct qd_call *call);

#endif
