/* Conversion steps between the forms of one tensor: quantize, dequantize, change of layout; work is split on `parallel`
 * (NULL: done by the caller). Private to engine/plan. [worker] */
#ifndef QD_ENGINE_PLAN_CONVERT_H
#define QD_ENGINE_PLAN_CONVERT_H

#include "base/parallel.h"
#include "engine/ir/tensor.h"
#include "engine/kernels/kernels.h"

/* out (u8, its layout, or s16 in the layout of in) = quantized in (F32, its layout); scratch: qd_tensor_elems bytes.
 * Merges into *observe when not NULL. */
void qd_convert_quantize(const struct qd_kernels *kernels, const struct qd_tensor *in, struct qd_tensor *out,
                         const struct qd_qparams *qp, struct qd_observation *observe, void *scratch,
                         struct qd_parallel *parallel);
/* The same to u8 by the reciprocal of the scale, equation (8). */
void qd_convert_requantize(const struct qd_kernels *kernels, const struct qd_tensor *in, struct qd_tensor *out,
                           const struct qd_qparams *qp, struct qd_observation *observe, void *scratch,
                           struct qd_parallel *parallel);
/* out (F32) = what integers of `bits` bits stand for to which each row of in (F32) is rounded by its own range, both
 * plain; scratch as above. Merges into *observe. */
void qd_convert_fake_rows(const struct qd_kernels *kernels, const struct qd_tensor *in, struct qd_tensor *out,
                          bool symmetric, int bits, struct qd_observation *observe, void *scratch,
                          struct qd_parallel *parallel);
/* out (u8) = in (F32), both plain, each row (last dimension), multiplied by by[] (NULL: as it is), by its own range,
 * which goes to scales[rows]. Merges into *observe. */
void qd_convert_quantize_rows(const struct qd_kernels *kernels, const struct qd_tensor *in, struct qd_tensor *out,
                              const float *by, struct qd_row_scale *scales, bool symmetric,
                              struct qd_observation *observe, struct qd_parallel *parallel);
/* out (F32, its layout) = real values of in (u8, its layout); scratch as above. */
void qd_convert_dequantize(const struct qd_kernels *kernels, const struct qd_tensor *in, struct qd_tensor *out,
                           const struct qd_qparams *qp, void *scratch, struct qd_parallel *parallel);
/* Same elements in the other layout; elements of 1 or 4 bytes. */
void qd_convert_relayout(const struct qd_kernels *kernels, const struct qd_tensor *in, struct qd_tensor *out,
                         struct qd_parallel *parallel);

#endif
