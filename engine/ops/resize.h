/* Resizing by tables: what is left when every axis knows which input elements an output element takes. Private to
 * engine/ops; who makes the tables: resize.c. [worker] */
#ifndef QD_ENGINE_OPS_RESIZE_H
#define QD_ENGINE_OPS_RESIZE_H

#include "engine/ops/helpers.h"

/* Output 0 picks elements of input 0 (any dtype, both in the same layout): index[axis][x] by axis of the shape, NULL
 * for an axis that stays. */
void qd_resize_nearest(const struct qd_call *call, const int64_t *const index[QD_MAX_RANK]);

/* One axis in floats: in[outer][dim_in][inner] -> out[outer][dim_out][inner]; element x takes `taps` elements. */
struct qd_resize_axis {
    const struct qd_kernels *kernels;
    const float *in;
    float *out;
    const int64_t *index; /* [dim_out][taps] */
    const float *weight;
    int64_t taps, dim_in, dim_out, inner;
};

/* rows: outer * dim_out. */
void qd_resize_axis(const struct qd_call *call, const struct qd_resize_axis *axis, int64_t rows);

#endif
