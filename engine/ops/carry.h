/* Tensors in the form in which they are carried: u8 with a scale instead of floats, channels last instead of plain.
 * What operators with QD_OP_READS_Q8, QD_OP_WRITES_Q8 or QD_OP_CHANNELS_LAST share. Private to engine/ops. [worker] */
#ifndef QD_ENGINE_OPS_CARRY_H
#define QD_ENGINE_OPS_CARRY_H

#include "engine/ops/helpers.h"

/* Most values that go through a buffer on the stack at once. */
enum { QD_CARRY_PIECE = 1024 };

/* The scale of input i when it is carried as u8, else NULL. */
const struct qd_qparams *qd_carry_in(const struct qd_call *call, int i);
/* Values [at, at + n) of input i in memory order, n <= QD_CARRY_PIECE: the tensor's own floats, or dequantized into
 * buffer. */
const float *qd_carry_load(const struct qd_call *call, int i, size_t at, size_t n, float *buffer);
/* Writes n values to output 0 from element `at` (memory order) on: as floats, or by equation (8) with observation. Real
 * values may stand in place already. */
void qd_carry_store(const struct qd_call *call, const float *real, size_t at, size_t n, struct qd_observation *seen);

/* qd_op_split for functions that observe: each piece gets an observation of its own (NULL when nobody wants one), and
 * all of them are merged into call->observe. */
void qd_carry_split(const struct qd_call *call, int64_t items, int64_t grain,
                    void (*fn)(void *ctx, int64_t begin, int64_t end, struct qd_observation *seen), void *ctx);

/* The shape in the order of memory: [N, d1..dn, C] when channels last. */
struct qd_shape qd_memory_shape(const struct qd_tensor *tensor);
/* Where axis `axis` of the shape stands in memory. */
int qd_memory_axis(const struct qd_tensor *tensor, int axis);
/* list[rank] by axis, put into the order of memory. */
void qd_memory_order(const struct qd_tensor *tensor, int64_t list[QD_MAX_RANK]);

#endif
