/* The standard's own quantization operators, as quantized files carry them: QuantizeLinear, DequantizeLinear (one scale
 * for all, one per index of an axis, or one per block) and DynamicQuantizeLinear. Not for quantd's own ranges
 * (engine/quant, engine/plan). */
#include "engine/ops/helpers.h"

#include <inttypes.h>
#include <math.h>

#define TYPES_8_16 (QD_BIT(QD_U8) | QD_BIT(QD_I8) | QD_BIT(QD_U16) | QD_BIT(QD_I16))

/* The tensor seen as [outer, dim, inner]; every run of `inner` elements lies under scale number scale_at(o, d) + i *
 * step. */
struct grid {
    int64_t outer, dim, inner;
    int64_t block, blocks; /* blocked: indices of the axis under one scale, and scales along the axis */
    int64_t step;          /* 1 when blocked */
};

/* Reads how scales lie over input 0; checks input 1 and, when given, input 2. */
static enum qd_status grid_of(const struct qd_call *call, struct grid *grid, struct qd_error *error)
{
    const struct qd_shape *x = &call->in[0].shape, *scale = &call->in[1].shape;
    int64_t block = call->node->opset >= 21 ? qd_attr_int(call->node, "block_size", 0) : 0;
    int64_t axis = qd_attr_int(call->node, "axis", 1); /* before opset 13 not the standard's, but files have it */
    char a[160], b[160];
    if (block < 0)
        return qd_op_fail(call, error, QD_ERR_INVALID, "block_size %" PRId64 " is negative", block);
    if (qd_op_has(call, 2) && !qd_shape_equal(scale, &call->in[2].shape) &&
        (qd_tensor_elems(&call->in[1]) != 1 || qd_tensor_elems(&call->in[2]) != 1))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "scale and zero point have shapes %s and %s",
                          qd_shape_text(scale, a, sizeof a), qd_shape_text(&call->in[2].shape, b, sizeof b));
    if (block == 0 && scale->rank <= 1 && qd_tensor_elems(&call->in[1]) == 1) {
        *grid = (struct grid){1, 1, qd_tensor_elems(&call->in[0]), 1, 1, 0};
        return QD_OK;
    }
    enum qd_status status = qd_op_axis(call, &axis, x->rank, error);
    if (status)
        return status;
    int ax = (int)axis;
    *grid = (struct grid){qd_shape_span(x, 0, ax), x->dims[ax], qd_shape_span(x, ax + 1, x->rank), 1, x->dims[ax], 0};
    bool fits = scale->rank == 1 && scale->dims[0] == x->dims[ax];
    if (block) {
        grid->block = block;
        grid->blocks = x->dims[ax] / block + (x->dims[ax] % block != 0);
        grid->step = 1;
        fits = scale->rank == x->rank;
        for (int i = 0; i < x->rank && fits; i++)
            fits = scale->dims[i] == (i == ax ? grid->blocks : x->dims[i]);
    }
    if (!fits)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "scales of shape %s don't fit an input of shape %s on axis %d",
                          qd_shape_text(scale, a, sizeof a), qd_shape_text(x, b, sizeof b), ax);
    return QD_OK;
}

struct work {
    const struct qd_call *call;
    struct grid grid;
};

static int64_t scale_at(const struct grid *g, int64_t row)
{
    int64_t d = row % g->dim;
    return g->step ? (row / g->dim * g->blocks + d / g->block) * g->inner : d;
}

static enum qd_status run_rows(const struct qd_call *call, void (*fn)(void *ctx, int64_t begin, int64_t end),
                               struct qd_error *error)
{
    struct work work = {.call = call};
    enum qd_status status = grid_of(call, &work.grid, error);
    if (!status && qd_tensor_elems(&call->out[0]))
        qd_op_split(call, work.grid.outer * work.grid.dim, 16384 / work.grid.inner + 1, fn, &work);
    return status;
}

/* An element of an integer tensor of up to 32 bits; 0 for an absent one. */
static int32_t int_at(const struct qd_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case QD_U8:
        return ((const uint8_t *)t->data)[i];
    case QD_I8:
        return ((const int8_t *)t->data)[i];
    case QD_U16:
        return ((const uint16_t *)t->data)[i];
    case QD_I16:
        return ((const int16_t *)t->data)[i];
    case QD_I32:
        return ((const int32_t *)t->data)[i];
    default:
        return 0;
    }
}

/* ------------------------------------------------------------------ QuantizeLinear */

static enum qd_status quantize_type(const struct qd_call *call, enum qd_dtype *type, struct qd_error *error)
{
    int64_t asked = call->node->opset >= 21 ? qd_attr_int(call->node, "output_dtype", 0) : 0;
    *type = qd_op_has(call, 2) ? call->in[2].dtype : asked ? qd_dtype_from_onnx(asked) : QD_U8;
    if (*type == QD_NONE || !(TYPES_8_16 & QD_BIT(*type)))
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "an output of type %s (%" PRId64 ") is not supported",
                          qd_dtype_name(*type), asked);
    return QD_OK;
}

static enum qd_status quantize_infer(const struct qd_call *call, struct qd_error *error)
{
    struct grid grid;
    enum qd_dtype type;
    enum qd_status status = qd_op_inputs(call, 2, 3, error);
    if (status || (status = qd_op_types(call, 0, QD_BIT(QD_F32) | QD_BIT(QD_I32), error)) ||
        (status = qd_op_types(call, 1, QD_BIT(QD_F32), error)) || (status = quantize_type(call, &type, error)) ||
        (status = grid_of(call, &grid, error)))
        return status;
    return qd_op_out(call, 0, type, &call->in[0].shape, error);
}

/* Nearest, ties to even, then the zero point, then clamped; NaN gives the zero point. */
static int32_t quantized(float x, float scale, int32_t zero, int32_t low, int32_t high)
{
    double q = (double)rintf(x / scale) + zero;
    return q != q ? zero : q < low ? low : q > high ? high : (int32_t)q;
}

static void limits(enum qd_dtype type, int32_t *low, int32_t *high)
{
    *low = type == QD_I8 ? INT8_MIN : type == QD_I16 ? INT16_MIN : 0;
    *high = type == QD_I8 ? INT8_MAX : type == QD_U8 ? UINT8_MAX : type == QD_I16 ? INT16_MAX : UINT16_MAX;
}

static void quantize_part(void *ctx, int64_t begin, int64_t end)
{
    const struct work *w = ctx;
    const struct qd_call *call = w->call;
    const struct qd_tensor *x = &call->in[0], *out = &call->out[0];
    struct qd_tensor none = {0};
    const struct qd_tensor *zeros = qd_op_has(call, 2) ? &call->in[2] : &none;
    const float *scales = call->in[1].data;
    int32_t low, high;
    limits(out->dtype, &low, &high);
    for (int64_t row = begin; row < end; row++) {
        int64_t s = scale_at(&w->grid, row), first = row * w->grid.inner;
        for (int64_t i = 0; i < w->grid.inner; i++) {
            int64_t k = s + i * w->grid.step, at = first + i;
            float v = x->dtype == QD_F32 ? ((const float *)x->data)[at] : (float)((const int32_t *)x->data)[at];
            int32_t q = quantized(v, scales[k], int_at(zeros, k), low, high);
            if (qd_dtype_bytes(out->dtype) == 1)
                ((uint8_t *)out->data)[at] = (uint8_t)q;
            else
                ((uint16_t *)out->data)[at] = (uint16_t)q;
        }
    }
}

static enum qd_status quantize_run(const struct qd_call *call, struct qd_error *error)
{
    return run_rows(call, quantize_part, error);
}

const struct qd_op qd_op_quantize_linear = {.infer = quantize_infer, .run = quantize_run};

/* ------------------------------------------------------------------ DequantizeLinear */

static enum qd_status dequantize_infer(const struct qd_call *call, struct qd_error *error)
{
    struct grid grid;
    enum qd_status status = qd_op_inputs(call, 2, 3, error);
    if (status || (status = qd_op_types(call, 0, TYPES_8_16 | QD_BIT(QD_I32), error)) ||
        (status = qd_op_types(call, 1, QD_BIT(QD_F32), error)) ||
        (qd_op_has(call, 2) && (status = qd_op_same_type(call, 0, 2, error))) || (status = grid_of(call, &grid, error)))
        return status;
    int64_t asked = call->node->opset >= 23 ? qd_attr_int(call->node, "output_dtype", 0) : 0;
    if (asked && qd_dtype_from_onnx(asked) != QD_F32)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "an output of another type than float is not supported");
    return qd_op_out(call, 0, QD_F32, &call->in[0].shape, error);
}

static void dequantize_part(void *ctx, int64_t begin, int64_t end)
{
    const struct work *w = ctx;
    const struct qd_call *call = w->call;
    struct qd_tensor none = {0};
    const struct qd_tensor *zeros = qd_op_has(call, 2) ? &call->in[2] : &none;
    const float *scales = call->in[1].data;
    for (int64_t row = begin; row < end; row++) {
        int64_t s = scale_at(&w->grid, row), first = row * w->grid.inner;
        for (int64_t i = 0; i < w->grid.inner; i++) {
            int64_t k = s + i * w->grid.step;
            int64_t q = (int64_t)int_at(&call->in[0], first + i) - int_at(zeros, k);
            ((float *)call->out[0].data)[first + i] = (float)q * scales[k];
        }
    }
}

static enum qd_status dequantize_run(const struct qd_call *call, struct qd_error *error)
{
    return run_rows(call, dequantize_part, error);
}

const struct qd_op qd_op_dequantize_linear = {.infer = dequantize_infer, .run = dequantize_run};

/* ------------------------------------------------------------------ DynamicQuantizeLinear */

static enum qd_status dynamic_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_shape scalar = {0};
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_BIT(QD_F32), error)) ||
        (qd_op_wants(call, 1) && (status = qd_op_out(call, 1, QD_F32, &scalar, error))) ||
        (qd_op_wants(call, 2) && (status = qd_op_out(call, 2, QD_U8, &scalar, error))))
        return status;
    return qd_op_out(call, 0, QD_U8, &call->in[0].shape, error);
}

static enum qd_status dynamic_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const float *x = call->in[0].data;
    uint8_t *y = call->out[0].data;
    float low = 0, high = 0;
    int64_t n = qd_tensor_elems(&call->in[0]);
    for (int64_t i = 0; i < n; i++) { /* NaN changes neither */
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    float scale = (high - low) / 255.0f;
    scale = scale > 0 ? scale : 1.0f;
    int32_t zero = quantized(-low, scale, 0, 0, 255);
    for (int64_t i = 0; i < n; i++)
        y[i] = (uint8_t)quantized(x[i], scale, zero, 0, 255);
    if (qd_op_wants(call, 1))
        *(float *)call->out[1].data = scale;
    if (qd_op_wants(call, 2))
        *(uint8_t *)call->out[2].data = (uint8_t)zero;
    return QD_OK;
}

const struct qd_op qd_op_dynamic_quantize_linear = {.infer = dynamic_infer, .run = dynamic_run};
