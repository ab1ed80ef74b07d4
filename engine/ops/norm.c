/* Normalizations: BatchNormalization (what fusion left over), InstanceNormalization, LayerNormalization,
 * RMSNormalization. Rows go to the kernels; their sums have one order, so threads never change a result. */
#include "engine/ops/rowwise.h"

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

static int64_t plane_of(const struct qd_call *call)
{
    return qd_shape_span(&call->in[0].shape, 2, call->in[0].shape.rank);
}

static void instance_rows(void *ctx, int64_t begin, int64_t count, float *y)
{
    const struct qd_call *call = ctx;
    int64_t channels = call->in[0].shape.dims[1], plane = plane_of(call);
    float epsilon = qd_attr_float(call->node, "epsilon", 1e-5f);
    for (int64_t s = begin; s < begin + count; s++, y += plane) {
        const float *x = (const float *)call->in[0].data + s * plane;
        float scale = ((const float *)call->in[1].data)[s % channels], mean, variance;
        call->kernels->moments(x, (size_t)plane, &mean, &variance);
        call->kernels->centre(x, (size_t)plane, mean, scale / sqrtf(variance + epsilon),
                              ((const float *)call->in[2].data)[s % channels], y);
    }
}

static size_t instance_scratch(const struct qd_call *call) { return qd_rows_scratch(call, plane_of(call)); }

static enum qd_status instance_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    if (qd_tensor_elems(&call->out[0]))
        qd_rows_run(call, qd_shape_span(&call->in[0].shape, 0, 2), plane_of(call), instance_rows,
                    (void *)(uintptr_t)call, call->scratch);
    return QD_OK;
}

const struct qd_op qd_op_instance_norm = {
    .flags = QD_OP_WRITES_Q8, .infer = instance_infer, .scratch = instance_scratch, .run = instance_run};

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
    int64_t n;                 /* elements of a row */
    const float *scale, *bias; /* of a row */
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
    int64_t n = layer_row(call, &row);
    return 2 * qd_align_up((size_t)n * sizeof(float)) + qd_rows_scratch(call, n);
}

/* Input i (scale or bias) as a whole row: itself, or expanded into `room`. NULL when it is absent. */
static const float *whole_row(const struct qd_call *call, int i, const struct qd_shape *row, float *room)
{
    struct qd_walk walk;
    if (!qd_op_has(call, i))
        return NULL;
    if (qd_tensor_elems(&call->in[i]) == qd_shape_span(row, 0, row->rank))
        return call->in[i].data;
    qd_walk_begin(&walk, row);
    qd_walk_broadcast(&walk, &call->in[i].shape);
    qd_walk_join(&walk);
    qd_walk_copy(&walk, call, call->in[i].data, room, sizeof(float));
    return room;
}

static void layer_rows(void *ctx, int64_t begin, int64_t count, float *y)
{
    const struct layer_work *w = ctx;
    const struct qd_call *call = w->call;
    struct qd_norm norm = {.x = (const float *)call->in[0].data + begin * w->n,
                           .rows = (size_t)count,
                           .n = (size_t)w->n,
                           .scale = w->scale,
                           .bias = w->bias,
                           .epsilon = qd_attr_float(call->node, "epsilon", 1e-5f),
                           .y = y};
    if (strcmp(call->node->op, "RMSNormalization") == 0) {
        call->kernels->rms_norm(&norm);
        return;
    }
    norm.mean = qd_op_wants(call, 1) ? (float *)call->out[1].data + begin : NULL;
    norm.inv = qd_op_wants(call, 2) ? (float *)call->out[2].data + begin : NULL;
    call->kernels->layer_norm(&norm);
}

static enum qd_status layer_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    struct qd_shape row;
    struct layer_work work = {.call = call, .n = layer_row(call, &row)};
    int64_t elems = qd_tensor_elems(&call->out[0]);
    size_t row_bytes = qd_align_up((size_t)work.n * sizeof(float));
    unsigned char *room = call->scratch;
    if (elems == 0)
        return QD_OK;
    work.scale = whole_row(call, 1, &row, (float *)(void *)room);
    work.bias = whole_row(call, 2, &row, (float *)(void *)(room + row_bytes));
    qd_rows_run(call, elems / work.n, work.n, layer_rows, &work, room + 2 * row_bytes);
    return QD_OK;
}

const struct qd_op qd_op_layer_norm = {
    .flags = QD_OP_WRITES_Q8, .infer = layer_infer, .scratch = layer_scratch, .run = layer_run};

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

const struct qd_op qd_op_rms_norm = {
    .flags = QD_OP_WRITES_Q8, .infer = rms_infer, .scratch = layer_scratch, .run = layer_run};
