/* Further normalizations: RMSNormalization, GroupNormalization, LpNormalization, MeanVarianceNormalization, LRN and
 * Hardmax. Sums run in double and in a fixed order. Not for those that fuse with linear layers (norm.c). */
#include "engine/ops/helpers.h"

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

/* ------------------------------------------------------------------ RMSNormalization */

static enum qd_status rms_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *x = &call->in[0].shape;
    int64_t axis = qd_attr_int(call->node, "axis", -1), stash = qd_attr_int(call->node, "stash_type", 1);
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)) ||
        (status = qd_op_types(call, 1, QD_TYPES_FLOAT, error)) || (status = qd_op_axis(call, &axis, x->rank, error)))
        return status;
    struct qd_shape row = {.rank = x->rank - (int)axis}, all;
    memcpy(row.dims, x->dims + axis, (size_t)row.rank * sizeof row.dims[0]);
    if (stash != 1 || !qd_broadcast(&row, &call->in[1].shape, &all) || !qd_shape_equal(&all, &row))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the scale doesn't fit the normalized dimensions");
    return qd_op_out(call, 0, QD_F32, x, error);
}

static enum qd_status rms_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct qd_shape *x = &call->in[0].shape, *scale = &call->in[1].shape;
    int64_t axis = qd_attr_int(call->node, "axis", -1), total = qd_tensor_elems(&call->out[0]);
    double epsilon = (double)qd_attr_float(call->node, "epsilon", 1e-5f);
    axis += axis < 0 ? x->rank : 0;
    int64_t n = qd_shape_span(x, (int)axis, x->rank), strides[QD_MAX_RANK] = {0};
    bool whole = qd_tensor_elems(&call->in[1]) == n;
    qd_op_strides(scale, strides);
    for (int64_t r = 0; total && r < total / n; r++) {
        const float *from = (const float *)call->in[0].data + r * n;
        double sum = 0;
        for (int64_t i = 0; i < n; i++)
            sum += (double)from[i] * (double)from[i];
        double factor = 1 / sqrt(sum / (double)n + epsilon);
        for (int64_t i = 0; i < n; i++) {
            int64_t at = whole ? i : 0;
            for (int64_t d = 1, rest = i; d <= scale->rank && !whole; rest /= x->dims[x->rank - d], d++)
                at += scale->dims[scale->rank - d] == 1 ? 0 : rest % x->dims[x->rank - d] * strides[scale->rank - d];
            ((float *)call->out[0].data)[r * n + i] = (float)((double)from[i] * factor) *
                                                      ((const float *)call->in[1].data)[at];
        }
    }
    return QD_OK;
}

const struct qd_op qd_op_rms_norm = {.infer = rms_infer, .run = rms_run};

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

static void group_part(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    const struct qd_shape *x = &call->in[0].shape;
    int64_t groups = qd_attr_int(call->node, "num_groups", 1), plane = qd_shape_span(x, 2, x->rank);
    int64_t channels = x->dims[1] / groups, n = channels * plane;
    double epsilon = (double)qd_attr_float(call->node, "epsilon", 1e-5f);
    for (int64_t g = begin; g < end; g++) {
        const float *from = (const float *)call->in[0].data + g * n;
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < n; i++)
            sum += (double)from[i];
        double mean = sum / (double)n;
        for (int64_t i = 0; i < n; i++)
            squares += ((double)from[i] - mean) * ((double)from[i] - mean);
        double factor = 1 / sqrt(squares / (double)n + epsilon);
        for (int64_t i = 0; i < n; i++) {
            int64_t k = call->node->opset < 21 ? g % groups : g % groups * channels + i / plane;
            ((float *)call->out[0].data)[g * n + i] = (float)(((double)from[i] - mean) * factor) *
                                                          ((const float *)call->in[1].data)[k] +
                                                      ((const float *)call->in[2].data)[k];
        }
    }
}

static enum qd_status group_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    if (qd_tensor_elems(&call->out[0]))
        qd_op_split(call, call->in[0].shape.dims[0] * qd_attr_int(call->node, "num_groups", 1), 1, group_part,
                    (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_group_norm = {.infer = group_infer, .run = group_run};
