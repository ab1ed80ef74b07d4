/* Resize and Upsample: every mode is a table per axis (which input elements an output element takes, with which
 * weights); nearest picks by the tables, the others go through the axes one after the other in float. Not for sampling
 * at free positions (sample.c). */
#include "engine/ops/resize.h"
#include "engine/ops/carry.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum mode { NEAREST, LINEAR, CUBIC };
enum coordinates {
    HALF_PIXEL,
    HALF_PIXEL_SYMMETRIC,
    PYTORCH_HALF_PIXEL,
    ALIGN_CORNERS,
    ASYMMETRIC,
    TF_HALF_PIXEL,
    TF_CROP
};
enum rounding { PREFER_FLOOR, PREFER_CEIL, FLOOR, CEIL, SIMPLE };

struct resize {
    enum mode mode;
    enum coordinates coordinates;
    enum rounding rounding;
    bool antialias, exclude_outside;
    float cubic, outside;
};

/* Number of the name that the string attribute has; -1 for another one. */
static int choice(const struct qd_node *node, const char *attr, const char *otherwise, const char *const *names,
                  int count)
{
    for (int i = 0; i < count; i++)
        if (qd_attr_is(node, attr, otherwise, names[i]))
            return i;
    return -1;
}

static enum qd_status prepare(const struct qd_node *node, struct qd_arena *arena, void **prep, struct qd_error *error)
{
    static const char *const modes[] = {"nearest", "linear", "cubic", "bilinear"};
    static const char *const coordinates[] = {"half_pixel",        "half_pixel_symmetric", "pytorch_half_pixel",
                                              "align_corners",     "asymmetric",           "tf_half_pixel_for_nn",
                                              "tf_crop_and_resize"};
    static const char *const roundings[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"};
    struct resize *r = QD_PREP_NEW(arena, struct resize);
    if (!r)
        return qd_op_no_memory(node, error);
    int mode = choice(node, "mode", "nearest", modes, 4);
    int where = choice(node, "coordinate_transformation_mode", "half_pixel", coordinates, 7);
    int rounding = choice(node, "nearest_mode", "round_prefer_floor", roundings, 4);
    if (mode < 0 || where < 0 || rounding < 0)
        return qd_op_refuse(node, error, QD_ERR_UNSUPPORTED,
                            "its mode, coordinate_transformation_mode or nearest_mode is not known");
    r->mode = mode == 3 ? LINEAR : (enum mode)mode;
    r->coordinates = (enum coordinates)where;
    r->rounding = (enum rounding)rounding;
    if (node->opset < 11 || strcmp(node->op, "Upsample") == 0) {
        r->coordinates = ASYMMETRIC;
        r->rounding = SIMPLE;
    }
    r->antialias = qd_attr_int(node, "antialias", 0) != 0 && r->mode != NEAREST;
    r->exclude_outside = qd_attr_int(node, "exclude_outside", 0) != 0;
    r->cubic = qd_attr_float(node, "cubic_coeff_a", -0.75f);
    r->outside = qd_attr_float(node, "extrapolation_value", 0);
    *prep = r;
    return QD_OK;
}

/* ------------------------------------------------------------------ sizes */

struct plan {
    struct qd_shape out;
    double scale[QD_MAX_RANK], roi[2][QD_MAX_RANK];
    bool touched[QD_MAX_RANK];
    bool single; /* positions in FP32 */
};

/* A list of floats, input i: at most `room`. */
static enum qd_status floats_of(const struct qd_call *call, int i, float *list, size_t room, size_t *count,
                                struct qd_error *error)
{
    *count = 0;
    if (!qd_op_has(call, i))
        return QD_OK;
    enum qd_status status = qd_op_types(call, i, QD_BIT(QD_F32), error);
    if (status)
        return status;
    *count = (size_t)qd_tensor_elems(&call->in[i]);
    if (*count > room || call->in[i].shape.rank > 1)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "input %d must be a list of at most %zu numbers", i, room);
    if (*count && !call->in[i].data)
        return QD_ERR_NEEDS_DATA;
    if (*count)
        memcpy(list, call->in[i].data, *count * sizeof *list);
    return QD_OK;
}

/* The axes that scales, sizes and roi speak of. */
static enum qd_status axes_of(const struct qd_call *call, int64_t axes[QD_MAX_RANK], size_t *count,
                              struct qd_error *error)
{
    int rank = call->in[0].shape.rank;
    unsigned seen = 0;
    const int64_t *attr = call->node->opset >= 18 ? qd_attr_ints(call->node, "axes", count) : NULL;
    if (!attr) {
        *count = (size_t)rank;
        for (int i = 0; i < rank; i++)
            axes[i] = i;
        return QD_OK;
    }
    if (*count > (size_t)rank)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "has %zu axes for rank %d", *count, rank);
    for (size_t i = 0; i < *count; i++) {
        axes[i] = attr[i];
        enum qd_status status = qd_op_axis(call, &axes[i], rank, error);
        if (status)
            return status;
        if (seen >> axes[i] & 1)
            return qd_op_fail(call, error, QD_ERR_SHAPE, "an axis is named twice");
        seen |= 1u << axes[i];
    }
    return QD_OK;
}

static bool plausible(double size) { return size >= 0 && size < 1e15; }

static enum qd_status by_scales(const struct qd_call *call, const int64_t *axes, size_t count, const float *scales,
                                struct plan *plan, struct qd_error *error)
{
    for (size_t i = 0; i < count; i++) {
        int axis = (int)axes[i];
        double size = floor((double)((float)call->in[0].shape.dims[axis] * scales[i]));
        if (!(scales[i] > 0) || !plausible(size))
            return qd_op_fail(call, error, QD_ERR_SHAPE, "a scale of %g for a dimension of %" PRId64 " makes no sense",
                              (double)scales[i], call->in[0].shape.dims[axis]);
        plan->scale[axis] = (double)scales[i];
        plan->out.dims[axis] = (int64_t)size;
    }
    return QD_OK;
}

static enum qd_status by_sizes(const struct qd_call *call, const int64_t *axes, size_t count, const int64_t *sizes,
                               struct plan *plan, struct qd_error *error)
{
    const struct qd_shape *in = &call->in[0].shape;
    static const char *const policies[] = {"stretch", "not_larger", "not_smaller"};
    int policy = choice(call->node, "keep_aspect_ratio_policy", "stretch", policies, 3);
    if (policy < 0)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "its keep_aspect_ratio_policy is not known");
    double common = policy == 1 ? INFINITY : 0;
    for (size_t i = 0; i < count; i++) {
        int64_t dim = in->dims[axes[i]];
        if (sizes[i] < 0 || (dim == 0 && sizes[i] != 0))
            return qd_op_fail(call, error, QD_ERR_SHAPE, "a dimension of %" PRId64 " can't become %" PRId64, dim,
                              sizes[i]);
        double scale = dim ? (double)sizes[i] / (double)dim : 1;
        common = (policy == 1 ? scale < common : scale > common) ? scale : common;
        plan->scale[axes[i]] = scale;
        plan->out.dims[axes[i]] = sizes[i];
    }
    for (size_t i = 0; i < count && policy; i++) {
        double size = floor(common * (double)in->dims[axes[i]] + 0.5);
        if (!plausible(size))
            return qd_op_fail(call, error, QD_ERR_SHAPE, "the sizes make no sense");
        plan->scale[axes[i]] = common;
        plan->out.dims[axes[i]] = (int64_t)size;
    }
    return QD_OK;
}

static enum qd_status read_roi(const struct qd_call *call, const int64_t *axes, size_t count, struct plan *plan,
                               struct qd_error *error)
{
    float roi[2 * QD_MAX_RANK];
    size_t given = 0;
    enum qd_status status = floats_of(call, 1, roi, 2 * QD_MAX_RANK, &given, error);
    if (status)
        return status;
    if (given != 2 * count)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "roi has %zu numbers, not %zu", given, 2 * count);
    for (size_t i = 0; i < count; i++) {
        if (!(fabsf(roi[i]) < 1e6f && fabsf(roi[count + i]) < 1e6f))
            return qd_op_fail(call, error, QD_ERR_INVALID, "roi is out of range");
        plan->roi[0][axes[i]] = (double)roi[i];
        plan->roi[1][axes[i]] = (double)roi[count + i];
    }
    return QD_OK;
}

/* Which input holds scales; -1: the attribute of the oldest Upsample. */
static int scales_input(const struct qd_call *call)
{
    return call->node->opset >= 11 ? 2 : strcmp(call->node->op, "Upsample") != 0 || call->node->opset >= 9 ? 1 : -1;
}

static enum qd_status make_plan(const struct qd_call *call, struct plan *plan, struct qd_error *error)
{
    const struct resize *r = call->prep;
    const struct qd_shape *in = &call->in[0].shape;
    int64_t axes[QD_MAX_RANK], sizes[QD_MAX_RANK];
    float scales[QD_MAX_RANK];
    size_t count = 0, n_scales = 0, n_sizes = 0;
    int at = scales_input(call);
    enum qd_status status = axes_of(call, axes, &count, error);
    *plan = (struct plan){.out = *in};
    plan->single = r->mode == NEAREST || (call->in[0].dtype != QD_F32 && !qd_carry_in(call, 0));
    for (int i = 0; i < in->rank; i++)
        plan->scale[i] = plan->roi[1][i] = 1;
    if (status)
        return status;
    if (at < 0) {
        const float *attr = qd_attr_floats(call->node, "scales", &n_scales);
        if (n_scales > QD_MAX_RANK)
            return qd_op_fail(call, error, QD_ERR_SHAPE, "has %zu scales", n_scales);
        if (n_scales)
            memcpy(scales, attr, n_scales * sizeof *scales);
    } else if ((status = floats_of(call, at, scales, QD_MAX_RANK, &n_scales, error)) ||
               (at == 2 && qd_op_has(call, 3) && (status = qd_op_ints(call, 3, sizes, QD_MAX_RANK, &n_sizes, error)))) {
        return status;
    }
    if ((n_scales != 0) == (n_sizes != 0) ? in->rank != 0 : n_scales + n_sizes != count)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "has %zu scales and %zu sizes for %zu axes", n_scales, n_sizes,
                          count);
    status = n_sizes ? by_sizes(call, axes, count, sizes, plan, error)
                     : by_scales(call, axes, n_scales, scales, plan, error);
    if (!status && r->coordinates == TF_CROP)
        status = read_roi(call, axes, count, plan, error);
    for (int i = 0; i < in->rank && !status; i++) {
        bool named = false;
        for (size_t k = 0; k < count; k++)
            named = named || axes[k] == i;
        plan->touched[i] = named && (plan->out.dims[i] != in->dims[i] || plan->scale[i] != 1 || plan->roi[0][i] != 0 ||
                                     plan->roi[1][i] != 1);
        if (in->dims[i] == 0 && plan->out.dims[i] != 0)
            return qd_op_fail(call, error, QD_ERR_SHAPE, "dimension %d has no elements to resize", i);
    }
    return status;
}

/* ------------------------------------------------------------------ tables */

/* How many input elements one output element of the axis takes; 0 when it makes no sense. */
static int64_t taps_of(const struct resize *r, double scale)
{
    int64_t plain = r->mode == NEAREST ? 1 : r->mode == LINEAR ? 2 : 4;
    if (!r->antialias || scale >= 1)
        return plain;
    double first = floor(-(r->mode == LINEAR ? 1.0 : 2.0) / scale) + 1;
    return first < -1e8 ? 0 : 2 - 2 * (int64_t)first;
}

/* Which element is nearest, and what is cut off an integer, is decided in FP32, as the models' makers do: half a pixel
 * is half a pixel to both. */
static double rounded(const struct plan *plan, double at) { return plan->single ? (double)(float)at : at; }

/* Where output x of an axis lies on the input. */
static double position(const struct resize *r, const struct plan *plan, int axis, int64_t in, int64_t x)
{
    double scale = plan->scale[axis], n = (double)in, at = (double)x, start = plan->roi[0][axis],
           end = plan->roi[1][axis];
    double length = scale * n, out = (double)plan->out.dims[axis];
    switch (r->coordinates) {
    case HALF_PIXEL_SYMMETRIC:
        at = rounded(plan, (at + 0.5) / scale);
        start = rounded(plan, 1 - rounded(plan, out / rounded(plan, length)));
        return rounded(plan, rounded(plan, n / 2 * start) + at) - 0.5;
    case PYTORCH_HALF_PIXEL:
        return out > 1 ? rounded(plan, (at + 0.5) / scale) - 0.5 : 0;
    case ALIGN_CORNERS:
        return length == 1 || out == 1 ? 0 : rounded(plan, at * (n - 1) / (length - 1));
    case ASYMMETRIC:
        return rounded(plan, at / scale);
    case TF_HALF_PIXEL:
        return rounded(plan, (at + 0.5) / scale);
    case TF_CROP:
        return out > 1 ? start * (n - 1) + at * (end - start) * (n - 1) / (out - 1) : 0.5 * (start + end) * (n - 1);
    case HALF_PIXEL:
    default:
        return rounded(plan, (at + 0.5) / scale) - 0.5;
    }
}

static int64_t nearest(const struct resize *r, double at, double scale, int64_t in)
{
    double whole = floor(at), part = at - whole;
    bool up = r->rounding == PREFER_FLOOR  ? part > 0.5
              : r->rounding == PREFER_CEIL ? part >= 0.5
              : r->rounding == CEIL        ? part > 0
              : r->rounding == SIMPLE      ? scale < 1 && part > 0
                                           : false;
    whole += up ? 1 : 0;
    return whole < 0 ? 0 : whole > (double)(in - 1) ? in - 1 : (int64_t)whole;
}

static double kernel(const struct resize *r, double t)
{
    double a = (double)r->cubic, x = fabs(t);
    if (r->mode == LINEAR)
        return x < 1 ? 1 - x : 0;
    return x <= 1 ? ((a + 2) * x - (a + 3)) * x * x + 1 : x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/* The weights of one output element; index[] clamped into the input. */
static void fill_taps(const struct resize *r, double at, double scale, int64_t in, int64_t taps, int64_t *index,
                      float *weight)
{
    double whole = floor(at), sum = 0, squeeze = r->antialias && scale < 1 ? scale : 1;
    int64_t first = (whole < -1e15 ? (int64_t)-1e15 : whole > 1e15 ? (int64_t)1e15 : (int64_t)whole) - taps / 2 + 1;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t t = 0; t < taps; t++) {
            int64_t i = first + t;
            double w = kernel(r, ((double)i - at) * squeeze);
            if (r->exclude_outside && (i < 0 || i >= in))
                w = 0;
            if (pass == 0) {
                sum += w;
                continue;
            }
            index[t] = i < 0 ? 0 : i >= in ? in - 1 : i;
            weight[t] = (float)(sum != 0 ? w / sum : w);
        }
}

/* ------------------------------------------------------------------ infer, scratch */

struct layout {
    size_t index[QD_MAX_RANK], weight[QD_MAX_RANK], buffer[2], real_in, real_out, end; /* offsets in bytes */
};

/* False when scratch can't be counted. */
static bool layout_of(const struct qd_call *call, const struct plan *plan, struct layout *at)
{
    const struct resize *r = call->prep;
    struct qd_shape shape = call->in[0].shape;
    size_t bytes, most = 0;
    int64_t elems, entries;
    memset(at, 0, sizeof *at);
    for (int i = 0; i < shape.rank; i++) {
        if (!plan->touched[i])
            continue;
        int64_t taps = taps_of(r, plan->scale[i]);
        if (taps == 0 || !qd_i64_mul(taps, plan->out.dims[i], &entries) || entries > (int64_t)1 << 40)
            return false;
        at->index[i] = at->end;
        at->end += qd_align_up((size_t)entries * sizeof(int64_t));
        at->weight[i] = at->end;
        at->end += qd_align_up((size_t)entries * sizeof(float));
        shape.dims[i] = plan->out.dims[i];
        if (!qd_shape_elems(&shape, &elems) || !qd_size_mul((size_t)elems, sizeof(float), &bytes) ||
            bytes > PTRDIFF_MAX / 8)
            return false;
        most = bytes > most ? bytes : most;
    }
    for (int i = 0; i < 2 && r->mode != NEAREST; i++) {
        at->buffer[i] = at->end;
        at->end += qd_align_up(most);
    }
    /* Real values of tensors that are integers, or are carried as such. */
    at->real_in = at->end;
    if (r->mode != NEAREST && call->in[0].dtype != QD_F32)
        at->end += qd_align_up((size_t)qd_tensor_elems(&call->in[0]) * sizeof(float));
    at->real_out = at->end;
    if (r->mode != NEAREST && call->out[0].dtype != QD_F32)
        at->end += qd_align_up((size_t)qd_tensor_elems(&call->out[0]) * sizeof(float));
    return true;
}

#define LINEAR_TYPES (QD_TYPES_FLOAT | QD_BIT(QD_U8) | QD_BIT(QD_I8) | QD_BIT(QD_I32))

static enum qd_status infer(const struct qd_call *call, struct qd_error *error)
{
    const struct resize *r = call->prep;
    struct plan plan;
    struct layout at;
    int most = scales_input(call) == 2 ? 4 : scales_input(call) == 1 ? 2 : 1;
    unsigned types = r->mode == NEAREST ? QD_TYPES_ANY : r->mode == LINEAR ? LINEAR_TYPES : QD_TYPES_FLOAT;
    enum qd_status status = qd_op_inputs(call, 1, most, error);
    if (status || (status = qd_op_types(call, 0, types, error)) || (status = make_plan(call, &plan, error)))
        return status;
    if (!layout_of(call, &plan, &at))
        return qd_op_fail(call, error, QD_ERR_TOO_LARGE, "the sizes in between are too large");
    status = qd_op_out(call, 0, call->in[0].dtype, &plan.out, error);
    call->out[0].layout = call->in[0].layout;
    return status;
}

static size_t scratch(const struct qd_call *call)
{
    struct plan plan;
    struct layout at;
    return make_plan(call, &plan, NULL) || !layout_of(call, &plan, &at) ? 0 : at.end;
}

/* ------------------------------------------------------------------ run */

/* tf_crop_and_resize: what lies outside the input is a given number. */
static void fill_outside(const struct qd_call *call, const struct plan *plan)
{
    const struct resize *r = call->prep;
    const struct qd_shape *out = &call->out[0].shape;
    for (int d = 0; d < out->rank && call->out[0].dtype == QD_F32; d++) {
        int64_t inner = qd_shape_span(out, d + 1, out->rank), rows = qd_shape_span(out, 0, d + 1),
                in = call->in[0].shape.dims[d];
        for (int64_t row = 0; row < rows && plan->touched[d]; row++) {
            double at = position(r, plan, d, in, row % out->dims[d]);
            for (int64_t i = 0; i < inner && (at < 0 || at > (double)(in - 1)); i++)
                ((float *)call->out[0].data)[row * inner + i] = r->outside;
        }
    }
}

/* Real values of the input into `real`, or of the output out of it. */
struct real_work {
    const struct qd_call *call;
    float *real;
};

static void real_in(void *ctx, int64_t begin, int64_t end)
{
    const struct real_work *w = ctx;
    const void *in = w->call->in[0].data;
    if (qd_carry_in(w->call, 0)) {
        w->call->kernels->dequantize_u8((const uint8_t *)in + begin, (size_t)(end - begin), w->call->in_qp[0],
                                        w->real + begin);
        return;
    }
    for (int64_t i = begin; i < end; i++)
        w->real[i] = w->call->in[0].dtype == QD_U8   ? ((const uint8_t *)in)[i]
                     : w->call->in[0].dtype == QD_I8 ? ((const int8_t *)in)[i]
                                                     : (float)((const int32_t *)in)[i];
}

/* Integers: what stands behind the point is cut off. */
static void integers_out(void *ctx, int64_t begin, int64_t end)
{
    const struct real_work *w = ctx;
    void *out = w->call->out[0].data;
    for (int64_t i = begin; i < end; i++)
        if (w->call->out[0].dtype == QD_U8)
            ((uint8_t *)out)[i] = (uint8_t)w->real[i];
        else if (w->call->out[0].dtype == QD_I8)
            ((int8_t *)out)[i] = (int8_t)w->real[i];
        else
            ((int32_t *)out)[i] = w->real[i] >= 0x1p31f ? INT32_MAX : (int32_t)fmaxf(w->real[i], -0x1p31f);
}

static void real_out(void *ctx, int64_t begin, int64_t end, struct qd_observation *seen)
{
    const struct real_work *w = ctx;
    qd_carry_store(w->call, w->real + begin, (size_t)begin, (size_t)(end - begin), seen);
}

static void run_axes(const struct qd_call *call, const struct plan *plan, const struct layout *at)
{
    const struct resize *r = call->prep;
    struct qd_shape shape = qd_memory_shape(&call->in[0]);
    char *base = call->scratch;
    struct real_work in = {call, (float *)(void *)(base + at->real_in)};
    bool real = call->out[0].dtype == QD_F32;
    struct real_work out = {call, real ? call->out[0].data : (float *)(void *)(base + at->real_out)};
    const float *from = call->in[0].data;
    int left = 0, next = 0;
    if (call->in[0].dtype != QD_F32) {
        qd_op_split(call, qd_tensor_elems(&call->in[0]), 16384, real_in, &in);
        from = in.real;
    }
    for (int d = 0; d < shape.rank; d++)
        left += plan->touched[d];
    if (!left)
        qd_op_copy(out.real, from, (size_t)qd_tensor_elems(&call->out[0]) * sizeof(float));
    for (int d = 0; d < shape.rank; d++) {
        if (!plan->touched[d])
            continue;
        int axis = qd_memory_axis(&call->in[0], d);
        float *to = --left ? (float *)(void *)(base + at->buffer[next]) : out.real;
        struct qd_resize_axis work = {call->kernels,
                                      from,
                                      to,
                                      (const int64_t *)(void *)(base + at->index[d]),
                                      (const float *)(void *)(base + at->weight[d]),
                                      taps_of(r, plan->scale[d]),
                                      shape.dims[axis],
                                      plan->out.dims[d],
                                      qd_shape_span(&shape, axis + 1, shape.rank)};
        int64_t rows = qd_shape_span(&shape, 0, axis) * work.dim_out;
        qd_resize_axis(call, &work, rows);
        shape.dims[axis] = plan->out.dims[d];
        from = to;
        next = !next;
    }
    if (call->out_qp)
        qd_carry_split(call, qd_tensor_elems(&call->out[0]), 16384, real_out, &out);
    else if (!real)
        qd_op_split(call, qd_tensor_elems(&call->out[0]), 16384, integers_out, &out);
}

static enum qd_status run(const struct qd_call *call, struct qd_error *error)
{
    const struct resize *r = call->prep;
    const struct qd_shape *in = &call->in[0].shape;
    struct plan plan;
    struct layout at;
    const int64_t *tables[QD_MAX_RANK] = {NULL};
    enum qd_status status = make_plan(call, &plan, error);
    if (status)
        return status;
    if (!qd_shape_equal(&plan.out, &call->out[0].shape) || !layout_of(call, &plan, &at))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the output's shape is not the planned one");
    if (qd_tensor_elems(&call->out[0]) == 0)
        return QD_OK;
    for (int d = 0; d < in->rank; d++) {
        int64_t *index = (int64_t *)(void *)((char *)call->scratch + at.index[d]), taps = taps_of(r, plan.scale[d]);
        float *weight = (float *)(void *)((char *)call->scratch + at.weight[d]);
        for (int64_t x = 0; x < plan.out.dims[d] && plan.touched[d]; x++) {
            double where = position(r, &plan, d, in->dims[d], x);
            where = where == where ? where : 0;
            if (r->mode == NEAREST)
                index[x] = nearest(r, where, plan.scale[d], in->dims[d]);
            else
                fill_taps(r, where, plan.scale[d], in->dims[d], taps, index + x * taps, weight + x * taps);
        }
        tables[d] = plan.touched[d] ? index : NULL;
    }
    if (r->mode == NEAREST)
        qd_resize_nearest(call, tables);
    else
        run_axes(call, &plan, &at);
    if (r->coordinates == TF_CROP)
        fill_outside(call, &plan);
    return QD_OK;
}

/* With TF_CROP an output may hold a number that is nowhere in the input. */
static const struct qd_op resize_nearest = {
    .flags = QD_OP_MOVES | QD_OP_CHANNELS_LAST, .prepare = prepare, .infer = infer, .scratch = scratch, .run = run};
static const struct qd_op resize_smooth = {.flags = QD_OP_CHANNELS_LAST | QD_OP_READS_Q8 | QD_OP_WRITES_Q8,
                                           .prepare = prepare,
                                           .infer = infer,
                                           .scratch = scratch,
                                           .run = run};
static const struct qd_op resize_crop = {.prepare = prepare, .infer = infer, .scratch = scratch, .run = run};

static const struct qd_op *choose(const struct qd_node *node)
{
    if (qd_attr_is(node, "coordinate_transformation_mode", "half_pixel", "tf_crop_and_resize"))
        return &resize_crop;
    return qd_attr_is(node, "mode", "nearest", "nearest") ? &resize_nearest : &resize_smooth;
}

const struct qd_op qd_op_resize = {
    .choose = choose, .prepare = prepare, .infer = infer, .scratch = scratch, .run = run};
