/* Normalizations: BatchNormalization (what fusion left over), InstanceNormalization, LayerNormalization.
 */
#include "engine/ops/helpers.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ------------------------------------------------------------------ BatchNormalization */

static int64_t channels_of(const struct qd_shape *shape) { return shape->rank > 1 ? shape->dims[1] : 1; }

/* Inputs 1..last are one number per channel. */
static enum qd_status per_channel(const struct qd_call *call, int last, struct qd_error *error)
{
    enum qd_status status = qd_op_types(call, 0, QD_TYPES_FLOAT, error);
    int64_t channels = channels_of(&call->in[0].shape);
    for (int i = 1; i <= last && !status; i++) {
        const struct qd_shape *shape = &call->in[i].shape;
        status = qd_op_types(call, i, QD_TYPES_FLOAT, error);
        if (!status && (shape->rank != 1 || shape->dims[0] != channels))
            return qd_op_fail(call, error, QD_ERR_SHAPE,
                              "input %d must have one element for each of %" PRId64 " channels", i, channels);
    }
    return status;
}

/* In training mode (opset 14 and later) the statistics are those of the batch, and outputs 1 and 2 the running ones. */
static bool trains(const struct qd_call *call)
{
    return call->node->opset >= 14 && qd_attr_int(call->node, "training_mode", 0) != 0;
}

static enum qd_status batch_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 5, 5, error);
    if (status || (status = per_channel(call, 4, error)))
        return status;
    bool extra = false;
    for (int i = trains(call) ? 3 : 1; i < call->out_count; i++)
        extra = extra || qd_op_wants(call, i);
    if (extra || qd_attr_int(call->node, "spatial", 1) == 0)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED,
                          "outputs of training before opset 14 and spatial=0 are not supported");
    if (call->in[0].shape.rank < 1)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the input must not be a scalar");
    if (trains(call) && qd_tensor_elems(&call->in[0]) == 0)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "an empty batch has no mean");
    for (int i = 1; i < call->out_count; i++)
        if (qd_op_wants(call, i) && (status = qd_op_out(call, i, QD_F32, &call->in[3].shape, error)))
            return status;
    return qd_op_out(call, 0, QD_F32, &call->in[0].shape, error);
}

static void batch_part(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    const struct qd_shape *shape = &call->in[0].shape;
    int64_t channels = channels_of(shape), plane = shape->rank > 1 ? qd_shape_span(shape, 2, shape->rank) : 1;
    float epsilon = qd_attr_float(call->node, "epsilon", 1e-5f);
    const float *p[5];
    for (int i = 0; i < 5; i++)
        p[i] = call->in[i].data;
    if (trains(call)) {
        p[3] = call->scratch;
        p[4] = p[3] + channels;
    }
    for (int64_t s = begin; s < end; s++) {
        int64_t c = s % channels;
        float factor = p[1][c] / sqrtf(p[4][c] + epsilon), mean = p[3][c], bias = p[2][c];
        for (int64_t i = s * plane; i < (s + 1) * plane; i++)
            ((float *)call->out[0].data)[i] = (p[0][i] - mean) * factor + bias;
    }
}

static size_t batch_scratch(const struct qd_call *call)
{
    return trains(call) ? (size_t)channels_of(&call->in[0].shape) * 2 * sizeof(float) : 0;
}

/* Mean and variance of each channel over the batch, in double, into the scratch; running ones into the outputs. */
static void batch_statistics(const struct qd_call *call)
{
    const struct qd_shape *shape = &call->in[0].shape;
    int64_t channels = channels_of(shape), plane = shape->rank > 1 ? qd_shape_span(shape, 2, shape->rank) : 1;
    float momentum = qd_attr_float(call->node, "momentum", 0.9f),
          *now[2] = {call->scratch, (float *)call->scratch + channels};
    for (int64_t c = 0; c < channels; c++) {
        double sum[2] = {0, 0};
        for (int m = 0; m < 2; m++) {
            for (int64_t n = 0; n < shape->dims[0]; n++)
                for (int64_t i = 0; i < plane; i++) {
                    double x = (double)((const float *)call->in[0].data)[(n * channels + c) * plane + i];
                    sum[m] += m == 0 ? x : (x - (double)now[0][c]) * (x - (double)now[0][c]);
                }
            now[m][c] = (float)(sum[m] / (double)(shape->dims[0] * plane));
            if (qd_op_wants(call, 1 + m))
                ((float *)call->out[1 + m].data)[c] = ((const float *)call->in[3 + m].data)[c] * momentum +
                                                      now[m][c] * (1 - momentum);
        }
    }
}

static enum qd_status batch_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct qd_shape *shape = &call->in[0].shape;
    if (trains(call))
        batch_statistics(call);
    if (qd_tensor_elems(&call->out[0]))
        qd_op_split(call, shape->dims[0] * channels_of(shape), 16, batch_part, (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_batch_norm = {.infer = batch_infer, .scratch = batch_scratch, .run = batch_run};

/* ------------------------------------------------------------------ mean and variance of a row, in double */

static void moments(const float *x, int64_t n, double *mean, double *variance)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i];
    *mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++)
        squares += ((double)x[i] - *mean) * ((double)x[i] - *mean);
    *variance = squares / (double)n;
}

/* ------------------------------------------------------------------ InstanceNormalization */

static enum qd_status instance_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 3, 3, error);
    if (status || (status = per_channel(call, 2, error)))
        return status;
    if (call->in[0].shape.rank < 3)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "an input of rank %d has no spatial dimensions",
                          call->in[0].shape.rank);
    return qd_op_out(call, 0, QD_F32, &call->in[0].shape, error);
}

static void instance_part(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    const struct qd_shape *shape = &call->in[0].shape;
    int64_t plane = qd_shape_span(shape, 2, shape->rank);
    double mean, variance, epsilon = (double)qd_attr_float(call->node, "epsilon", 1e-5f);
    for (int64_t s = begin; s < end; s++) {
        const float *x = (const float *)call->in[0].data + s * plane;
        float *y = (float *)call->out[0].data + s * plane;
        moments(x, plane, &mean, &variance);
        double factor = 1.0 / sqrt(variance + epsilon);
        float scale = ((const float *)call->in[1].data)[s % shape->dims[1]];
        float bias = ((const float *)call->in[2].data)[s % shape->dims[1]];
        for (int64_t i = 0; i < plane; i++)
            y[i] = (float)(((double)x[i] - mean) * factor) * scale + bias;
    }
}

static enum qd_status instance_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    if (qd_tensor_elems(&call->out[0]))
        qd_op_split(call, qd_shape_span(&call->in[0].shape, 0, 2), 4, instance_part, (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_instance_norm = {.infer = instance_infer, .run = instance_run};

/* ------------------------------------------------------------------ LayerNormalization */

static enum qd_status layer_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *x = &call->in[0].shape;
    int64_t axis = qd_attr_int(call->node, "axis", -1);
    enum qd_status status = qd_op_inputs(call, 2, 3, error);
    for (int i = 0; i < 3 && !status; i++)
        status = qd_op_types(call, i, QD_TYPES_FLOAT, error);
    if (status || (status = qd_op_axis(call, &axis, x->rank, error)))
        return status;
    struct qd_shape row = {.rank = x->rank - (int)axis}, all, stats = *x;
    memcpy(row.dims, x->dims + axis, (size_t)row.rank * sizeof row.dims[0]);
    for (int i = 1; i < 3; i++)
        if (qd_op_has(call, i) && (!qd_broadcast(&row, &call->in[i].shape, &all) || !qd_shape_equal(&all, &row)))
            return qd_op_fail(call, error, QD_ERR_SHAPE, "input %d doesn't fit the normalized dimensions", i);
    for (int i = (int)axis; i < stats.rank; i++)
        stats.dims[i] = 1;
    for (int i = 1; i < 3 && !status; i++)
        if (qd_op_wants(call, i))
            status = qd_op_out(call, i, QD_F32, &stats, error);
    return status ? status : qd_op_out(call, 0, QD_F32, x, error);
}

struct layer_work {
    const struct qd_call *call;
    int64_t n;           /* elements of a row */
    float *scale, *bias; /* expanded to a row, in scratch */
};

static int64_t layer_row(const struct qd_call *call, struct qd_shape *row)
{
    const struct qd_shape *x = &call->in[0].shape;
    int64_t axis = qd_attr_int(call->node, "axis", -1);
    axis += axis < 0 ? x->rank : 0;
    row->rank = x->rank - (int)axis;
    memcpy(row->dims, x->dims + axis, (size_t)row->rank * sizeof row->dims[0]);
    return qd_shape_span(row, 0, row->rank);
}

static size_t layer_scratch(const struct qd_call *call)
{
    struct qd_shape row;
    return 2 * qd_align_up((size_t)layer_row(call, &row) * sizeof(float));
}

static void layer_part(void *ctx, int64_t begin, int64_t end)
{
    const struct layer_work *w = ctx;
    const struct qd_call *call = w->call;
    double mean, variance, epsilon = (double)qd_attr_float(call->node, "epsilon", 1e-5f);
    for (int64_t r = begin; r < end; r++) {
        const float *x = (const float *)call->in[0].data + r * w->n;
        float *y = (float *)call->out[0].data + r * w->n;
        moments(x, w->n, &mean, &variance);
        double factor = 1.0 / sqrt(variance + epsilon);
        for (int64_t i = 0; i < w->n; i++)
            y[i] = (float)(((double)x[i] - mean) * factor) * w->scale[i] + (w->bias ? w->bias[i] : 0.0f);
        if (qd_op_wants(call, 1))
            ((float *)call->out[1].data)[r] = (float)mean;
        if (qd_op_wants(call, 2))
            ((float *)call->out[2].data)[r] = (float)factor;
    }
}

static enum qd_status layer_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    struct qd_shape row;
    struct layer_work work = {.call = call, .n = layer_row(call, &row)};
    int64_t elems = qd_tensor_elems(&call->out[0]);
    if (elems == 0)
        return QD_OK;
    work.scale = call->scratch;
    work.bias = qd_op_has(call, 2) ? work.scale + qd_align_up((size_t)work.n * sizeof(float)) / sizeof(float) : NULL;
    for (int i = 1; i < 3; i++) {
        struct qd_walk walk;
        if (!qd_op_has(call, i))
            continue;
        qd_walk_begin(&walk, &row);
        qd_walk_broadcast(&walk, &call->in[i].shape);
        qd_walk_join(&walk);
        qd_walk_copy(&walk, call, call->in[i].data, i == 1 ? work.scale : work.bias, sizeof(float));
    }
    qd_op_split(call, elems / work.n, 4096 / work.n + 1, layer_part, &work);
    return QD_OK;
}

const struct qd_op qd_op_layer_norm = {.infer = layer_infer, .scratch = layer_scratch, .run = layer_run};
