/* DeformConv: a convolution whose every tap is read at a place of its own, given by a second input. FP32, images of two
 * dimensions. Not for ordinary convolutions (conv.c, linear.c). */
#include "engine/ops/window.h"

#include <math.h>

enum input { IN_X, IN_W, IN_OFFSET, IN_BIAS, IN_MASK };

struct deform {
    const struct qd_call *call;
    struct qd_window w;
    int64_t groups, offset_groups;
};

static enum qd_status deform_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                     struct qd_error *error)
{
    struct qd_window_attrs *attrs = QD_PREP_NEW(arena, struct qd_window_attrs);
    if (!attrs)
        return qd_op_no_memory(node, error);
    if (qd_attr_int(node, "group", 1) < 1 || qd_attr_int(node, "offset_group", 1) < 1)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "groups must be positive");
    *prep = attrs;
    return qd_window_attrs(node, attrs, error);
}

static bool groups_fit(const struct deform *d)
{
    const int64_t *x = d->call->in[IN_X].shape.dims, *w = d->call->in[IN_W].shape.dims;
    return x[1] % d->groups == 0 && x[1] % d->offset_groups == 0 && w[0] % d->groups == 0 && w[1] == x[1] / d->groups;
}

/* [N, offset groups * `each` * taps, out height, out width] */
static bool per_tap(const struct deform *d, int input, int64_t each, const struct qd_shape *out)
{
    const struct qd_shape *s = &d->call->in[input].shape;
    return s->rank == 4 && s->dims[0] == out->dims[0] &&
           s->dims[1] == d->offset_groups * each * d->w.kernel[1] * d->w.kernel[2] && s->dims[2] == out->dims[2] &&
           s->dims[3] == out->dims[3];
}

static enum qd_status deform_read(const struct qd_call *call, struct deform *d, struct qd_shape *out,
                                  struct qd_error *error)
{
    const struct qd_shape *x = &call->in[IN_X].shape, *w = &call->in[IN_W].shape;
    *d = (struct deform){.call = call,
                         .groups = qd_attr_int(call->node, "group", 1),
                         .offset_groups = qd_attr_int(call->node, "offset_group", 1)};
    if (x->rank != 4 || w->rank != 4)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "only images of two dimensions are supported");
    *out = *x;
    out->dims[1] = w->dims[0];
    enum qd_status status = qd_window_fit(call, call->prep, x, w->dims + 2, false, &d->w, out, error);
    if (!status && (!groups_fit(d) || !per_tap(d, IN_OFFSET, 2, out) ||
                    (qd_op_has(call, IN_MASK) && !per_tap(d, IN_MASK, 1, out)) ||
                    (qd_op_has(call, IN_BIAS) && qd_tensor_elems(&call->in[IN_BIAS]) != w->dims[0])))
        status = qd_op_fail(call, error, QD_ERR_SHAPE, "the shapes of its inputs don't fit together");
    return status;
}

static enum qd_status deform_infer(const struct qd_call *call, struct qd_error *error)
{
    struct deform d;
    struct qd_shape out;
    enum qd_status status = qd_op_inputs(call, 3, 5, error);
    for (int i = 0; i < call->in_count && !status; i++)
        status = qd_op_types(call, i, QD_TYPES_FLOAT, error);
    if (status || (status = deform_read(call, &d, &out, error)))
        return status;
    return qd_op_out(call, 0, QD_F32, &out, error);
}

/* The image between its pixels; zero outside. */
static float at_place(const float *image, const struct qd_window *w, float y, float x)
{
    if (!(y > -1 && y < (float)w->in[1] && x > -1 && x < (float)w->in[2]))
        return 0;
    const float top = floorf(y), left = floorf(x), down = y - top, along = x - left;
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        const int64_t row = (int64_t)top + i / 2, column = (int64_t)left + i % 2;
        if (row >= 0 && row < w->in[1] && column >= 0 && column < w->in[2])
            sum += (i / 2 ? down : 1 - down) * (i % 2 ? along : 1 - along) * image[row * w->in[2] + column];
    }
    return sum;
}

/* One output element. */
static float value_at(const struct deform *d, int64_t batch, int64_t channel, int64_t pixel)
{
    const struct qd_call *call = d->call;
    const struct qd_window *w = &d->w;
    const int64_t channels = call->in[IN_X].shape.dims[1], each = channels / d->groups,
                  taps = w->kernel[1] * w->kernel[2], pixels = w->out[1] * w->out[2], plane = w->in[1] * w->in[2],
                  first = channel / (call->in[IN_W].shape.dims[0] / d->groups) * each;
    float sum = qd_op_has(call, IN_BIAS) ? ((const float *)call->in[IN_BIAS].data)[channel] : 0;
    for (int64_t c = 0; c < each; c++) {
        const float *image = (const float *)call->in[IN_X].data + (batch * channels + first + c) * plane;
        const int64_t group = batch * d->offset_groups + (first + c) / (channels / d->offset_groups);
        for (int64_t t = 0; t < taps; t++) {
            const int64_t tap = group * taps + t;
            const float *offset = (const float *)call->in[IN_OFFSET].data + 2 * tap * pixels + pixel;
            const float y = (float)(pixel / w->out[2] * w->stride[1] - w->before[1] +
                                    t / w->kernel[2] * w->dilation[1]),
                        x = (float)(pixel % w->out[2] * w->stride[2] - w->before[2] +
                                    t % w->kernel[2] * w->dilation[2]);
            float v = at_place(image, w, y + offset[0], x + offset[pixels]);
            if (qd_op_has(call, IN_MASK))
                v *= ((const float *)call->in[IN_MASK].data)[tap * pixels + pixel];
            sum += v * ((const float *)call->in[IN_W].data)[(channel * each + c) * taps + t];
        }
    }
    return sum;
}

static void deform_planes(void *ctx, int64_t begin, int64_t end)
{
    const struct deform *d = ctx;
    const int64_t outputs = d->call->out[0].shape.dims[1], pixels = d->w.out[1] * d->w.out[2];
    for (int64_t i = begin * pixels; i < end * pixels; i++)
        ((float *)d->call->out[0].data)[i] = value_at(d, i / pixels / outputs, i / pixels % outputs, i % pixels);
}

static enum qd_status deform_run(const struct qd_call *call, struct qd_error *error)
{
    struct deform d;
    struct qd_shape out;
    enum qd_status status = deform_read(call, &d, &out, error);
    if (!status && qd_tensor_elems(&call->out[0]))
        qd_op_split(call, qd_shape_span(&out, 0, 2), 1, deform_planes, &d);
    return status;
}

const struct qd_op qd_op_deform_conv = {.prepare = deform_prepare, .infer = deform_infer, .run = deform_run};
