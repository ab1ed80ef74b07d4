/* Quantized to 8 bits and back, by a scale and zero point that a quantized file gives, or by the tensor's own
 * range where the file says so: the operator "RoundTrip" of
 * domain "quantd", which engine/plan/qdq.h makes of QuantizeLinear and DequantizeLinear. Where integers are wanted it
 * never runs: engine/plan/place.c carries its output as them. Not for learned ranges. */
#ifndef QD_ENGINE_OPS_ROUND_TRIP_H
#define QD_ENGINE_OPS_ROUND_TRIP_H

#include "engine/ops/op.h"
#include "engine/quant/qparams.h"

/* node->program */
struct qd_round_trip {
    struct qd_qparams qp; /* as carried, 0..255 whatever the file's type */
    bool is_signed;       /* the file's type is int8 */
    bool own;             /* DynamicQuantizeLinear: by the tensor's own range; qp isn't read */
};

extern const struct qd_op qd_op_round_trip;

bool qd_round_trip_same(const struct qd_round_trip *a, const struct qd_round_trip *b);

/* Of such a node, else NULL. */
const struct qd_round_trip *qd_round_trip_of(const struct qd_node *node);

#endif
