/* Further normalizations: GroupNormalization, LpNormalization, MeanVarianceNormalization, LRN and
 * Hardmax. Sums run in double and in a fixed order. Not for those that fuse with linear layers (norm.c). */
#include "engine/ops/rowwise.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ------------------------------------------------------------------ along one axis: LpNormalization, Hardmax */

static int64_t axis_default(const struct qd_call *call)
{
    return strcmp(call->node->op, "Hardmax") == 0 && call->node->opset < 13 ? 1 : -1;
}

static enum qd_status along_infer(const struct qd_call *call, struct qd_error *error)
{
    int64_t axis = qd_attr_int(call->node, "axis", axis_default(call)), p = qd_attr_int(call->node, "p", 2);
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)) ||
        (status = qd_op_axis(call, &axis, call->in[0].shape.rank, error)))
        return status;
    if (p != 1 && p != 2)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "p must be 1 or 2");
    return qd_op_out(call, 0, QD_F32, &call->in[0].shape, error);
}

/* The rows of an axis: element i of row r at start + i * step. Old Hardmax joins all dimensions from the axis on. */
struct rows {
    int64_t count, n, step;
};

static struct rows rows_of(const struct qd_call *call)
{
    const struct qd_shape *x = &call->in[0].shape;
    int64_t axis = qd_attr_int(call->node, "axis", axis_default(call));
    axis += axis < 0 ? x->rank : 0;
    if (axis_default(call) == 1)
        return (struct rows){qd_shape_span(x, 0, (int)axis), qd_shape_span(x, (int)axis, x->rank), 1};
    int64_t inner = qd_shape_span(x, (int)axis + 1, x->rank);
    return (struct rows){qd_shape_span(x, 0, (int)axis) * inner, x->dims[axis], inner};
}

static enum qd_status along_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    struct rows rows = rows_of(call);
    bool hardmax = strcmp(call->node->op, "Hardmax") == 0, square = qd_attr_int(call->node, "p", 2) == 2;
    for (int64_t r = 0; r < rows.count && rows.n; r++) {
        int64_t start = r / rows.step * rows.n * rows.step + r % rows.step, best = 0;
        const float *x = (const float *)call->in[0].data + start;
        float *y = (float *)call->out[0].data + start;
        double norm = 0;
        for (int64_t i = 0; i < rows.n; i++) {
            double v = (double)x[i * rows.step];
            norm += square ? v * v : fabs(v);
            best = x[i * rows.step] > x[best * rows.step] ? i : best;
        }
        norm = square ? sqrt(norm) : norm;
        for (int64_t i = 0; i < rows.n; i++)
            y[i * rows.step] = hardmax ? (float)(i == best) : norm > 0 ? (float)((double)x[i * rows.step] / norm) : 0;
    }
    return QD_OK;
}

const struct qd_op qd_op_along_axis = {.infer = along_infer, .run = along_run};

/* ------------------------------------------------------------------ MeanVarianceNormalization */

#define MVN_EPSILON 1e-9

/* The dimensions that share a mean. */
static bool mvn_axes(const struct qd_call *call, bool *shared)
{
    static const int64_t usual[] = {0, 2, 3};
    size_t count;
    const int64_t *axes = qd_attr_ints(call->node, "axes", &count);
    const int rank = call->in[0].shape.rank;
    if (!axes) {
        axes = usual;
        count = 3;
    }
    for (int d = 0; d < rank; d++)
        shared[d] = false;
    for (size_t i = 0; i < count; i++) {
        if (axes[i] < -rank || axes[i] >= rank)
            return false;
        shared[axes[i] + (axes[i] < 0 ? rank : 0)] = true;
    }
    return true;
}

static enum qd_status mvn_infer(const struct qd_call *call, struct qd_error *error)
{
    bool shared[QD_MAX_RANK];
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)))
        return status;
    if (!mvn_axes(call, shared))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "its axes don't fit the input");
    return qd_op_out(call, 0, QD_F32, &call->in[0].shape, error);
}

struct mvn {
    const struct qd_shape *x;
    const bool *shared;
    int64_t strides[QD_MAX_RANK];
};

/* Element number `i` among those dimensions that are shared (or not). */
static int64_t mvn_at(const struct mvn *m, bool shared, int64_t i)
{
    int64_t at = 0;
    for (int d = m->x->rank - 1; d >= 0; d--)
        if (m->shared[d] == shared) {
            at += i % m->x->dims[d] * m->strides[d];
            i /= m->x->dims[d];
        }
    return at;
}

static enum qd_status mvn_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    bool shared[QD_MAX_RANK];
    struct mvn m = {.x = &call->in[0].shape, .shared = shared};
    const float *x = call->in[0].data;
    float *y = call->out[0].data;
    int64_t each = 1, groups = 1;
    if (!mvn_axes(call, shared) || qd_tensor_elems(&call->in[0]) == 0)
        return QD_OK;
    qd_op_strides(m.x, m.strides);
    for (int d = 0; d < m.x->rank; d++)
        *(shared[d] ? &each : &groups) *= m.x->dims[d];
    for (int64_t g = 0; g < groups; g++) {
        const int64_t start = mvn_at(&m, false, g);
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < each; i++)
            sum += (double)x[start + mvn_at(&m, true, i)];
        const double mean = sum / (double)each;
        for (int64_t i = 0; i < each; i++) {
            const double v = (double)x[start + mvn_at(&m, true, i)] - mean;
            squares += v * v;
        }
        const double deviation = sqrt(squares / (double)each) + MVN_EPSILON;
        for (int64_t i = 0; i < each; i++) {
            const int64_t at = start + mvn_at(&m, true, i);
            y[at] = (float)(((double)x[at] - mean) / deviation);
        }
    }
    return QD_OK;
}

const struct qd_op qd_op_mean_variance = {.infer = mvn_infer, .run = mvn_run};

/* ------------------------------------------------------------------ LRN */

static enum qd_status lrn_infer(const struct qd_call *call, struct qd_error *error)
{
    int64_t size = qd_attr_int(call->node, "size", 0);
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)))
        return status;
    if (size < 1 || size > 1 << 20 || call->in[0].shape.rank < 2)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "a size of %" PRId64 " or the input's rank makes no sense", size);
    return qd_op_out(call, 0, QD_F32, &call->in[0].shape, error);
}

static void lrn_part(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    const struct qd_shape *x = &call->in[0].shape;
    int64_t channels = x->dims[1], plane = qd_shape_span(x, 2, x->rank), size = qd_attr_int(call->node, "size", 1);
    double alpha = (double)qd_attr_float(call->node, "alpha", 1e-4f) / (double)size;
    double beta = (double)qd_attr_float(call->node, "beta", 0.75f), bias = (double)qd_attr_float(call->node, "bias", 1);
    for (int64_t s = begin; s < end; s++) { /* one channel of one image */
        int64_t c = s % channels, low = c - (size - 1) / 2, high = c + size / 2;
        low = low < 0 ? 0 : low;
        high = high < channels ? high : channels - 1;
        const float *image = (const float *)call->in[0].data + (s - c) * plane;
        for (int64_t i = 0; i < plane; i++) {
            double sum = 0;
            for (int64_t k = low; k <= high; k++)
                sum += (double)image[k * plane + i] * (double)image[k * plane + i];
            ((float *)call->out[0].data)[s * plane + i] = (float)((double)image[c * plane + i] /
                                                                  pow(bias + alpha * sum, beta));
        }
    }
}

static enum qd_status lrn_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    if (qd_tensor_elems(&call->out[0]))
        qd_op_split(call, qd_shape_span(&call->in[0].shape, 0, 2), 4, lrn_part, (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_lrn = {.infer = lrn_infer, .run = lrn_run};

/* ------------------------------------------------------------------ GroupNormalization */

static enum qd_status group_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *x = &call->in[0].shape;
    int64_t groups = qd_attr_int(call->node, "num_groups", 0);
    enum qd_status status = qd_op_inputs(call, 3, 3, error);
    for (int i = 0; i < 3 && !status; i++)
        status = qd_op_types(call, i, QD_TYPES_FLOAT, error);
    if (status)
        return status;
    if (x->rank < 2 || groups < 1 || x->dims[1] % groups != 0)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "%" PRId64 " groups don't fit the input", groups);
    int64_t each = call->node->opset < 21 ? groups : x->dims[1]; /* the first version scaled by group */
    for (int i = 1; i < 3; i++)
        if (call->in[i].shape.rank != 1 || call->in[i].shape.dims[0] != each)
            return qd_op_fail(call, error, QD_ERR_SHAPE, "input %d must have %" PRId64 " elements", i, each);
    return qd_op_out(call, 0, QD_F32, x, error);
}

/* Groups begin..: each is a row of its channels' planes. */
static void group_rows(void *ctx, int64_t begin, int64_t count, float *y)
{
    const struct qd_call *call = ctx;
    const struct qd_shape *x = &call->in[0].shape;
    int64_t groups = qd_attr_int(call->node, "num_groups", 1), plane = qd_shape_span(x, 2, x->rank);
    int64_t channels = x->dims[1] / groups, n = channels * plane;
    float epsilon = qd_attr_float(call->node, "epsilon", 1e-5f), mean, variance;
    for (int64_t g = begin; g < begin + count; g++) {
        const float *from = (const float *)call->in[0].data + g * n;
        call->kernels->moments(from, (size_t)n, &mean, &variance);
        float factor = 1 / sqrtf(variance + epsilon);
        for (int64_t c = 0; c < channels; c++, y += plane) {
            int64_t k = call->node->opset < 21 ? g % groups : g % groups * channels + c;
            call->kernels->centre(from + c * plane, (size_t)plane, mean, factor * ((const float *)call->in[1].data)[k],
                                  ((const float *)call->in[2].data)[k], y);
        }
    }
}

static int64_t group_size(const struct qd_call *call)
{
    const struct qd_shape *x = &call->in[0].shape;
    return x->dims[1] / qd_attr_int(call->node, "num_groups", 1) * qd_shape_span(x, 2, x->rank);
}

static size_t group_scratch(const struct qd_call *call) { return qd_rows_scratch(call, group_size(call)); }

static enum qd_status group_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    if (qd_tensor_elems(&call->out[0]))
        qd_rows_run(call, call->in[0].shape.dims[0] * qd_attr_int(call->node, "num_groups", 1), group_size(call),
                    group_rows, (void *)(uintptr_t)call, call->scratch);
    return QD_OK;
}

const struct qd_op qd_op_group_norm = {
    .flags = QD_OP_WRITES_Q8, .infer = group_infer, .scratch = group_scratch, .run = group_run};
