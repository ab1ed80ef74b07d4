/* Softmax and LogSoftmax: since opset 13 along one axis, before over everything from the axis on. */
#include "engine/ops/helpers.h"

#include <math.h>
#include <string.h>

struct softmax {
    bool log, flat; /* flat: opset < 13 */
    int64_t axis;
};

static enum qd_status softmax_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                      struct qd_error *error)
{
    struct softmax *softmax = QD_PREP_NEW(arena, struct softmax);
    if (!softmax)
        return qd_op_no_memory(node, error);
    softmax->log = strcmp(node->op, "LogSoftmax") == 0;
    softmax->flat = node->opset < 13;
    softmax->axis = qd_attr_int(node, "axis", softmax->flat ? 1 : -1);
    *prep = softmax;
    return QD_OK;
}

static enum qd_status softmax_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct softmax *softmax = call->prep;
    int64_t axis = softmax->axis;
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)))
        return status;
    int rank = call->in[0].shape.rank;
    if (!(softmax->flat && axis == rank) && !(rank == 0 && (axis == 0 || axis == -1)) &&
        (status = qd_op_axis(call, &axis, rank, error)))
        return status;
    return qd_op_out(call, 0, QD_F32, &call->in[0].shape, error);
}

struct softmax_work {
    const struct qd_call *call;
    int64_t dim, inner; /* elements of one sum, `inner` apart */
    bool log;
};

/* Sums begin..end; the largest element is taken off first, so that nothing overflows. */
static void softmax_part(void *ctx, int64_t begin, int64_t end)
{
    const struct softmax_work *w = ctx;
    for (int64_t s = begin; s < end; s++) {
        int64_t at = s / w->inner * w->dim * w->inner + s % w->inner;
        const float *in = (const float *)w->call->in[0].data + at;
        float *out = (float *)w->call->out[0].data + at, largest = -INFINITY;
        double sum = 0;
        for (int64_t i = 0; i < w->dim; i++)
            largest = in[i * w->inner] > largest ? in[i * w->inner] : largest;
        for (int64_t i = 0; i < w->dim; i++) {
            float e = expf(in[i * w->inner] - largest);
            sum += (double)e;
            if (!w->log)
                out[i * w->inner] = e;
        }
        float factor = (float)(1.0 / sum), offset = (float)log(sum);
        for (int64_t i = 0; i < w->dim; i++)
            out[i * w->inner] = w->log ? in[i * w->inner] - largest - offset : out[i * w->inner] * factor;
    }
}

static enum qd_status softmax_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct softmax *softmax = call->prep;
    const struct qd_shape *in = &call->in[0].shape;
    int axis = in->rank ? (int)(softmax->axis < 0 ? softmax->axis + in->rank : softmax->axis) : 0;
    int64_t elems = qd_tensor_elems(&call->in[0]);
    struct softmax_work work = {.call = call, .dim = 1, .inner = 1, .log = softmax->log};
    if (elems == 0)
        return QD_OK;
    if (softmax->flat) {
        work.dim = qd_shape_span(in, axis, in->rank);
    } else if (in->rank > 0) {
        work.dim = in->dims[axis];
        work.inner = qd_shape_span(in, axis + 1, in->rank);
    }
    qd_op_split(call, elems / work.dim, 4096 / work.dim + 1, softmax_part, &work);
    return QD_OK;
}

const struct qd_op qd_op_softmax = {.prepare = softmax_prepare, .infer = softmax_infer, .run = softmax_run};
