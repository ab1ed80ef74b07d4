/* Softmax and LogSoftmax: since opset 13 along one axis, before over everything from the axis on. */
#include "engine/ops/rowwise.h"

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

static struct softmax_work work_of(const struct qd_call *call)
{
    const struct softmax *softmax = call->prep;
    const struct qd_shape *in = &call->in[0].shape;
    int axis = in->rank ? (int)(softmax->axis < 0 ? softmax->axis + in->rank : softmax->axis) : 0;
    struct softmax_work work = {.call = call, .dim = 1, .inner = 1, .log = softmax->log};
    if (softmax->flat) {
        work.dim = qd_shape_span(in, axis, in->rank);
    } else if (in->rank > 0) {
        work.dim = in->dims[axis];
        work.inner = qd_shape_span(in, axis + 1, in->rank);
    }
    return work;
}

/* Sums across `inner` columns: one block of dim rows. A column at a time; the largest element is taken off first, so
 * that nothing overflows. */
static void softmax_columns(const struct softmax_work *w, const float *in, float *out)
{
    for (int64_t c = 0; c < w->inner; c++, in++, out++) {
        float largest = -INFINITY;
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

static void softmax_rows(void *ctx, int64_t begin, int64_t count, float *y)
{
    const struct softmax_work *w = ctx;
    int64_t n = w->dim * w->inner;
    const float *x = (const float *)w->call->in[0].data + begin * n;
    if (w->inner == 1)
        w->call->kernels->softmax(x, (size_t)count, (size_t)n, w->log, y);
    for (int64_t i = 0; i < count && w->inner > 1; i++)
        softmax_columns(w, x + i * n, y + i * n);
}

static size_t softmax_scratch(const struct qd_call *call)
{
    struct softmax_work work = work_of(call);
    return qd_rows_scratch(call, work.dim * work.inner);
}

static enum qd_status softmax_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    struct softmax_work work = work_of(call);
    int64_t elems = qd_tensor_elems(&call->in[0]), n = work.dim * work.inner;
    if (elems)
        qd_rows_run(call, elems / n, n, softmax_rows, &work, call->scratch);
    return QD_OK;
}

const struct qd_op qd_op_softmax = {.flags = QD_OP_WRITES_Q8,
                                    .prepare = softmax_prepare,
                                    .infer = softmax_infer,
                                    .scratch = softmax_scratch,
                                    .run = softmax_run};
