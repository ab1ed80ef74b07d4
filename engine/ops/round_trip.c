/* The operator RoundTrip in FP32: what the file's quantization does to the values. See round_trip.h. */
#include "engine/ops/round_trip.h"

#include "engine/ops/helpers.h"

#include <math.h>
#include <string.h>

enum { PIECE = 1024 };

const struct qd_round_trip *qd_round_trip_of(const struct qd_node *node)
{
    return node->program && strcmp(node->op, "RoundTrip") == 0 && strcmp(node->domain, "quantd") == 0 ? node->program
                                                                                                      : NULL;
}

bool qd_round_trip_same(const struct qd_round_trip *a, const struct qd_round_trip *b)
{
    return a->own == b->own && (a->own || (a->qp.scale == b->qp.scale && a->qp.zero_point == b->qp.zero_point &&
                                           a->is_signed == b->is_signed));
}

static enum qd_status round_trip_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                         struct qd_error *error)
{
    (void)arena;
    *prep = NULL;
    return node->program ? QD_OK : qd_op_refuse(node, error, QD_ERR_INTERNAL, "has no scale");
}

static enum qd_status round_trip_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_BIT(QD_F32), error)) ||
        (status = qd_op_out(call, 0, QD_F32, &call->in[0].shape, error)))
        return status;
    call->out[0].layout = call->in[0].layout;
    return QD_OK;
}

struct work {
    const struct qd_call *call;
    struct qd_qparams qp;
};

static void round_trip_part(void *ctx, int64_t begin, int64_t end)
{
    const struct work *w = ctx;
    const struct qd_call *call = w->call;
    const struct qd_qparams *qp = &w->qp;
    const float *in = call->in[0].data;
    float *out = call->out[0].data;
    uint8_t bytes[PIECE];
    for (int64_t at = begin; at < end; at += PIECE) {
        const size_t n = (size_t)(end - at < PIECE ? end - at : PIECE);
        call->kernels->quantize_u8(in + at, n, qp, bytes, NULL);
        call->kernels->dequantize_u8(bytes, n, qp, out + at);
    }
}

/* Equation (3) of the finite values. */
static struct qd_qparams own_scale(const float *x, int64_t n)
{
    float low = 0, high = 0;
    for (int64_t i = 0; i < n; i++) {
        low = x[i] < low && isfinite(x[i]) ? x[i] : low;
        high = x[i] > high && isfinite(x[i]) ? x[i] : high;
    }
    return qd_qparams_from_range((double)low, (double)high, false);
}

static enum qd_status round_trip_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct qd_round_trip *trip = qd_round_trip_of(call->node);
    struct work w = {call, trip->qp};
    if (trip->own)
        w.qp = own_scale(call->in[0].data, qd_tensor_elems(&call->in[0]));
    qd_op_split(call, qd_tensor_elems(&call->out[0]), 16384, round_trip_part, &w);
    return QD_OK;
}

const struct qd_op qd_op_round_trip = {.flags = QD_OP_CHANNELS_LAST | QD_OP_ELEMENTWISE,
                                       .prepare = round_trip_prepare,
                                       .infer = round_trip_infer,
                                       .run = round_trip_run};
