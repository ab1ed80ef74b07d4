/* Det: determinants of the last two dimensions, by elimination with pivots, in double. Not for solving systems. */
#include "engine/ops/helpers.h"

#include <math.h>

static enum qd_status det_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)))
        return status;
    struct qd_shape out = call->in[0].shape;
    if (out.rank < 2 || out.dims[out.rank - 1] != out.dims[out.rank - 2])
        return qd_op_fail(call, error, QD_ERR_SHAPE, "needs square matrices");
    out.rank -= 2;
    return qd_op_out(call, 0, QD_F32, &out, error);
}

static size_t det_scratch(const struct qd_call *call)
{
    const struct qd_shape *x = &call->in[0].shape;
    return (size_t)qd_shape_span(x, x->rank - 2, x->rank) * sizeof(double);
}

/* Of a[n][n], which is used up. */
static double determinant(double *a, int64_t n)
{
    double product = 1;
    for (int64_t k = 0; k < n; k++) {
        int64_t pivot = k;
        for (int64_t i = k + 1; i < n; i++)
            if (fabs(a[i * n + k]) > fabs(a[pivot * n + k]))
                pivot = i;
        if (a[pivot * n + k] == 0)
            return 0;
        for (int64_t j = k; j < n && pivot != k; j++) {
            const double swap = a[k * n + j];
            a[k * n + j] = a[pivot * n + j];
            a[pivot * n + j] = swap;
        }
        product *= pivot == k ? a[k * n + k] : -a[k * n + k];
        for (int64_t i = k + 1; i < n; i++)
            for (int64_t j = n - 1; j >= k; j--)
                a[i * n + j] -= a[i * n + k] / a[k * n + k] * a[k * n + j];
    }
    return product;
}

static enum qd_status det_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct qd_shape *x = &call->in[0].shape;
    const int64_t n = x->dims[x->rank - 1];
    double *a = call->scratch;
    for (int64_t m = 0; m < qd_tensor_elems(&call->out[0]); m++) {
        for (int64_t i = 0; i < n * n; i++)
            a[i] = (double)((const float *)call->in[0].data)[m * n * n + i];
        ((float *)call->out[0].data)[m] = (float)determinant(a, n);
    }
    return QD_OK;
}

const struct qd_op qd_op_det = {.infer = det_infer, .scratch = det_scratch, .run = det_run};
