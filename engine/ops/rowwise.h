/* Operators whose output 0 is rows that don't depend on each other (norms, softmax): split over threads, and written as
 * floats or, when the call asks for integers, through a few rows of floats in the scratch. Private to engine/ops. */
#ifndef QD_ENGINE_OPS_ROWWISE_H
#define QD_ENGINE_OPS_ROWWISE_H

#include "engine/ops/helpers.h"

/* Rows [begin, begin + count) of n floats to y. */
typedef void qd_rows_fn(void *ctx, int64_t begin, int64_t count, float *y);

/* Bytes that qd_rows_run wants at `scratch` for rows of n. Known once output 0's dtype is (U8: written as integers). */
size_t qd_rows_scratch(const struct qd_call *call, int64_t n);
/* Runs fn over all rows into output 0 as call->out_qp and call->observe say. `scratch` is 64-byte aligned. */
void qd_rows_run(const struct qd_call *call, int64_t rows, int64_t n, qd_rows_fn *fn, void *ctx, void *scratch);

#endif
