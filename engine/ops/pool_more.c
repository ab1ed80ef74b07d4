/* Further pools: LpPool, GlobalLpPool, MaxUnpool, RoiAlign and MaxRoiPool, in FP32 and plain layout. Not for those that
 * stay in INT8 (pool.c). */
#include "engine/ops/window.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ------------------------------------------------------------------ LpPool: the p-norm of each window */

static enum qd_status lp_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                 struct qd_error *error)
{
    struct qd_window_attrs *attrs = QD_PREP_NEW(arena, struct qd_window_attrs);
    if (!attrs)
        return qd_op_no_memory(node, error);
    if (qd_attr_int(node, "p", 2) < 1)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "p must be positive");
    *prep = attrs;
    return qd_window_attrs(node, attrs, error);
}

static enum qd_status lp_window(const struct qd_call *call, struct qd_window *window, struct qd_shape *out,
                                struct qd_error *error)
{
    const struct qd_window_attrs *attrs = call->prep;
    const struct qd_shape *in = &call->in[0].shape;
    *out = *in;
    if ((size_t)in->rank != attrs->kernel_count + 2)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "an input of rank %d doesn't fit a kernel_shape of %zu", in->rank,
                          attrs->kernel_count);
    return qd_window_fit(call, attrs, in, attrs->kernel, true, window, out, error);
}

static enum qd_status lp_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_window window;
    struct qd_shape out;
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)) ||
        (status = lp_window(call, &window, &out, error)))
        return status;
    return qd_op_out(call, 0, QD_F32, &out, error);
}

struct lp {
    const struct qd_call *call;
    struct qd_window w;
    double p;
};

static float norm_at(const struct lp *lp, const float *plane, int64_t o)
{
    const struct qd_window *w = &lp->w;
    const int64_t at[3] = {o / w->out[2] / w->out[1], o / w->out[2] % w->out[1], o % w->out[2]};
    int64_t a[3], b[3], s[3];
    double sum = 0;
    for (int d = 0; d < 3; d++) {
        qd_window_taps(w, d, at[d], &a[d], &b[d]);
        s[d] = at[d] * w->stride[d] - w->before[d];
    }
    for (int64_t z = a[0]; z < b[0]; z++)
        for (int64_t y = a[1]; y < b[1]; y++)
            for (int64_t x = a[2]; x < b[2]; x++)
                sum += pow(
                    fabs((double)plane[((s[0] + z * w->dilation[0]) * w->in[1] + s[1] + y * w->dilation[1]) * w->in[2] +
                                       s[2] + x * w->dilation[2]]),
                    lp->p);
    return (float)pow(sum, 1 / lp->p);
}

static void lp_planes(void *ctx, int64_t begin, int64_t end)
{
    const struct lp *lp = ctx;
    const int64_t plane = lp->w.in[0] * lp->w.in[1] * lp->w.in[2], each = lp->w.out[0] * lp->w.out[1] * lp->w.out[2];
    for (int64_t i = begin * each; i < end * each; i++)
        ((float *)lp->call->out[0].data)[i] = norm_at(lp, (const float *)lp->call->in[0].data + i / each * plane,
                                                      i % each);
}

static enum qd_status lp_run(const struct qd_call *call, struct qd_error *error)
{
    struct lp lp = {.call = call, .p = (double)qd_attr_int(call->node, "p", 2)};
    struct qd_shape out;
    enum qd_status status = lp_window(call, &lp.w, &out, error);
    if (!status && qd_tensor_elems(&call->out[0]))
        qd_op_split(call, qd_shape_span(&out, 0, 2), 4, lp_planes, &lp);
    return status;
}

const struct qd_op qd_op_lp_pool = {.prepare = lp_prepare, .infer = lp_infer, .run = lp_run};

/* ------------------------------------------------------------------ MaxUnpool: elements back to where they stood */

/* What the pool would have read: its indices count in this shape, which the output may be larger than. */
static bool unpooled(const struct qd_call *call, struct qd_shape *shape)
{
    struct qd_window_attrs attrs;
    if (qd_window_attrs(call->node, &attrs, NULL))
        return false;
    *shape = call->in[0].shape;
    if (shape->rank < 3 || attrs.kernel_count != (size_t)shape->rank - 2 ||
        (attrs.stride_count && attrs.stride_count != attrs.kernel_count) ||
        (attrs.pad_count && attrs.pad_count != 2 * attrs.kernel_count))
        return false;
    for (size_t d = 0; d < attrs.kernel_count; d++) {
        int64_t size, pads = attrs.pad_count ? attrs.pads[d] + attrs.pads[attrs.kernel_count + d] : 0;
        if (!qd_i64_mul(shape->dims[d + 2] - 1, attrs.stride_count ? attrs.strides[d] : 1, &size) || size > INT32_MAX ||
            attrs.kernel[d] > INT32_MAX || pads < 0 || size - pads + attrs.kernel[d] < 0)
            return false;
        shape->dims[d + 2] = size - pads + attrs.kernel[d];
    }
    return true;
}

static enum qd_status unpool_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_shape shape;
    enum qd_status status = qd_op_inputs(call, 2, 3, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)) ||
        (status = qd_op_types(call, 1, QD_BIT(QD_I64), error)))
        return status;
    if (!qd_shape_equal(&call->in[0].shape, &call->in[1].shape) || !unpooled(call, &shape))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "its window doesn't fit the input");
    const struct qd_shape least = shape;
    size_t count = 0;
    if (qd_op_has(call, 2) && (status = qd_op_ints(call, 2, shape.dims, QD_MAX_RANK, &count, error)))
        return status;
    for (int d = 0; d < shape.rank; d++)
        if ((count && count != (size_t)shape.rank) || shape.dims[d] < least.dims[d])
            return qd_op_fail(call, error, QD_ERR_SHAPE, "output_shape is smaller than what was pooled");
    return qd_op_out(call, 0, QD_F32, &shape, error);
}

/* An index into `least` as one into `shape`. */
static int64_t moved(int64_t at, const struct qd_shape *least, const struct qd_shape *shape)
{
    int64_t to = 0, step = 1;
    for (int d = least->rank - 1; d >= 0; d--) {
        to += at % least->dims[d] * step;
        at /= least->dims[d];
        step *= shape->dims[d];
    }
    return to;
}

static enum qd_status unpool_run(const struct qd_call *call, struct qd_error *error)
{
    struct qd_shape least;
    enum qd_status status = qd_op_recheck(call, unpool_infer, error);
    if (status || !unpooled(call, &least))
        return status;
    const int64_t *indices = call->in[1].data, room = qd_shape_span(&least, 0, least.rank);
    float *y = call->out[0].data;
    if (qd_tensor_elems(&call->out[0]))
        memset(y, 0, qd_tensor_bytes(&call->out[0]));
    for (int64_t i = 0; i < qd_tensor_elems(&call->in[0]); i++) {
        if (indices[i] < 0 || indices[i] >= room)
            return qd_op_fail(call, error, QD_ERR_INVALID, "index %" PRId64 " lies outside", indices[i]);
        y[moved(indices[i], &least, &call->out[0].shape)] = ((const float *)call->in[0].data)[i];
    }
    return QD_OK;
}

const struct qd_op qd_op_max_unpool = {.infer = unpool_infer, .run = unpool_run};

/* ------------------------------------------------------------------ RoiAlign: boxes of an image, pooled */

struct roi_align {
    const struct qd_call *call;
    int64_t height, width, ratio; /* of the output; points a side of a bin, 0: by the bin's size */
    float scale, shift;
    bool largest, shifted;
};

static struct roi_align roi_read(const struct qd_call *call)
{
    struct roi_align r = {.call = call,
                          .height = qd_attr_int(call->node, "output_height", 1),
                          .width = qd_attr_int(call->node, "output_width", 1),
                          .ratio = qd_attr_int(call->node, "sampling_ratio", 0),
                          .scale = qd_attr_float(call->node, "spatial_scale", 1),
                          .largest = qd_attr_is(call->node, "mode", "avg", "max")};
    const char *otherwise = call->node->opset < 16 ? "output_half_pixel" : "half_pixel";
    r.shifted = qd_attr_is(call->node, "coordinate_transformation_mode", otherwise, "half_pixel");
    r.shift = r.shifted ? 0.5f : 0;
    return r;
}

static enum qd_status roi_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct roi_align r = roi_read(call);
    enum qd_status status = qd_op_inputs(call, 3, 3, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)) ||
        (status = qd_op_types(call, 1, QD_TYPES_FLOAT, error)) ||
        (status = qd_op_types(call, 2, QD_BIT(QD_I64), error)))
        return status;
    const struct qd_shape *x = &call->in[0].shape, *rois = &call->in[1].shape, *batch = &call->in[2].shape;
    if (x->rank != 4 || rois->rank != 2 || rois->dims[1] != 4 || batch->rank != 1 || batch->dims[0] != rois->dims[0])
        return qd_op_fail(call, error, QD_ERR_SHAPE, "needs images [N, C, H, W], boxes [R, 4] and an image each");
    if (r.height < 1 || r.width < 1 || r.ratio < 0 || r.ratio > 1024)
        return qd_op_fail(call, error, QD_ERR_INVALID, "its output size or sampling_ratio makes no sense");
    if (!r.largest && !qd_attr_is(call->node, "mode", "avg", "avg"))
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "mode must be avg or max");
    const struct qd_shape out = {.rank = 4, .dims = {rois->dims[0], x->dims[1], r.height, r.width}};
    return qd_op_out(call, 0, QD_F32, &out, error);
}

/* The four pixels about a point and their weights; nothing when it lies outside. */
struct corners {
    int64_t at[4];
    float weight[4];
};

static struct corners corners_of(float y, float x, int64_t height, int64_t width)
{
    struct corners c = {{0}, {0}};
    if (!(y >= -1 && y <= (float)height && x >= -1 && x <= (float)width))
        return c;
    y = y > 0 ? y : 0;
    x = x > 0 ? x : 0;
    int64_t top = (int64_t)y, left = (int64_t)x, bottom = top + 1, right = left + 1;
    if (top >= height - 1) {
        top = bottom = height - 1;
        y = (float)top;
    }
    if (left >= width - 1) {
        left = right = width - 1;
        x = (float)left;
    }
    const float down = y - (float)top, along = x - (float)left;
    const int64_t rows[2] = {top, bottom}, columns[2] = {left, right};
    for (int i = 0; i < 4; i++) {
        c.at[i] = rows[i / 2] * width + columns[i % 2];
        c.weight[i] = (i / 2 ? down : 1 - down) * (i % 2 ? along : 1 - along);
    }
    return c;
}

/* Points a side of a bin; boxes of hostile size are not walked pixel by pixel for ever. */
static int64_t points(const struct roi_align *r, float size, int64_t bins)
{
    const float n = ceilf(size / (float)bins);
    return r->ratio ? r->ratio : n > 0 ? (n < 4096 ? (int64_t)n : 4096) : 0;
}

static float roi_bin(const struct roi_align *r, const float *image, const float start[2], const float size[2],
                     int64_t row, int64_t column)
{
    const struct qd_shape *x = &r->call->in[0].shape;
    const int64_t down = points(r, size[0], r->height), along = points(r, size[1], r->width);
    const float step[2] = {size[0] / (float)r->height, size[1] / (float)r->width};
    float sum = 0, best = 0;
    for (int64_t i = 0; i < down * along; i++) {
        const float y = start[0] + (float)row * step[0] + ((float)(i / along) + 0.5f) * step[0] / (float)down;
        const float at = start[1] + (float)column * step[1] + ((float)(i % along) + 0.5f) * step[1] / (float)along;
        const struct corners c = corners_of(y, at, x->dims[2], x->dims[3]);
        float most = c.weight[0] * image[c.at[0]], all = most;
        for (int k = 1; k < 4; k++) {
            const float v = c.weight[k] * image[c.at[k]];
            most = v > most ? v : most;
            all += v;
        }
        best = i == 0 || most > best ? most : best;
        sum += all;
    }
    return r->largest ? best : sum / (float)(down * along > 1 ? down * along : 1);
}

static void roi_boxes(void *ctx, int64_t begin, int64_t end)
{
    const struct roi_align *r = ctx;
    const struct qd_call *call = r->call;
    const struct qd_shape *x = &call->in[0].shape;
    const int64_t plane = x->dims[2] * x->dims[3], each = r->height * r->width;
    for (int64_t box = begin; box < end; box++) {
        const float *roi = (const float *)call->in[1].data + box * 4;
        const int64_t image = ((const int64_t *)call->in[2].data)[box];
        const float start[2] = {roi[1] * r->scale - r->shift, roi[0] * r->scale - r->shift};
        float size[2] = {roi[3] * r->scale - r->shift - start[0], roi[2] * r->scale - r->shift - start[1]};
        for (int i = 0; i < 2 && !r->shifted; i++)
            size[i] = size[i] > 1 ? size[i] : 1;
        for (int64_t o = 0; o < x->dims[1] * each; o++)
            ((float *)call->out[0].data)[box * x->dims[1] * each + o] = roi_bin(
                r, (const float *)call->in[0].data + (image * x->dims[1] + o / each) * plane, start, size,
                o % each / r->width, o % r->width);
    }
}

static enum qd_status roi_run(const struct qd_call *call, struct qd_error *error)
{
    struct roi_align r = roi_read(call);
    const int64_t boxes = call->in[1].shape.dims[0], images = call->in[0].shape.dims[0];
    for (int64_t i = 0; i < boxes; i++) {
        const int64_t image = ((const int64_t *)call->in[2].data)[i];
        if (image < 0 || image >= images)
            return qd_op_fail(call, error, QD_ERR_INVALID, "there is no image %" PRId64, image);
    }
    if (qd_tensor_elems(&call->out[0]) && qd_tensor_elems(&call->in[0]))
        qd_op_split(call, boxes, 1, roi_boxes, &r);
    else if (qd_tensor_elems(&call->out[0]))
        memset(call->out[0].data, 0, qd_tensor_bytes(&call->out[0]));
    return QD_OK;
}

const struct qd_op qd_op_roi_align = {.infer = roi_infer, .run = roi_run};

/* ------------------------------------------------------------------ MaxRoiPool: the largest of each bin of a box */

static enum qd_status max_roi_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    const struct qd_shape *x = &call->in[0].shape, *rois = &call->in[1].shape;
    size_t count;
    const int64_t *sizes = qd_attr_ints(call->node, "pooled_shape", &count);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)) ||
        (status = qd_op_types(call, 1, QD_TYPES_FLOAT, error)))
        return status;
    if (x->rank != 4 || rois->rank != 2 || rois->dims[1] != 5)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "it needs images [N,C,H,W] and boxes [n,5]");
    if (count != 2 || sizes[0] < 1 || sizes[1] < 1 || sizes[0] > INT32_MAX || sizes[1] > INT32_MAX)
        return qd_op_fail(call, error, QD_ERR_INVALID, "pooled_shape must be two positive numbers");
    return qd_op_out(call, 0, QD_F32, &(struct qd_shape){4, {rois->dims[0], x->dims[1], sizes[0], sizes[1]}}, error);
}

/* A box's first and last pixel along one axis; hostile numbers end at the edges of what an int32 holds. */
static void roi_edge(float from, float to, float scale, int64_t *start, int64_t *size)
{
    const float most = 1e9f, a = roundf(from * scale), b = roundf(to * scale);
    *start = (int64_t)(a > -most ? a < most ? a : most : -most);
    int64_t end = (int64_t)(b > -most ? b < most ? b : most : -most);
    *size = end - *start + 1 > 1 ? end - *start + 1 : 1;
}

/* Pixels [*from, *to) of bin `i` of `bins`, within `limit`. */
static void roi_bin_edges(int64_t start, int64_t size, int64_t i, int64_t bins, int64_t limit, int64_t *from,
                          int64_t *to)
{
    const float step = (float)size / (float)bins;
    *from = (int64_t)floorf((float)i * step) + start;
    *to = (int64_t)ceilf((float)(i + 1) * step) + start;
    *from = *from < 0 ? 0 : *from > limit ? limit : *from;
    *to = *to < 0 ? 0 : *to > limit ? limit : *to;
}

static void max_roi_boxes(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    const struct qd_shape *x = &call->in[0].shape, *out = &call->out[0].shape;
    const float scale = qd_attr_float(call->node, "spatial_scale", 1);
    const int64_t each = out->dims[2] * out->dims[3];
    for (int64_t box = begin; box < end; box++) {
        const float *roi = (const float *)call->in[1].data + box * 5;
        int64_t start[2], size[2], a[2], b[2];
        roi_edge(roi[2], roi[4], scale, &start[0], &size[0]);
        roi_edge(roi[1], roi[3], scale, &start[1], &size[1]);
        for (int64_t o = 0; o < x->dims[1] * each; o++) {
            const float *plane = (const float *)call->in[0].data +
                                 ((int64_t)roi[0] * x->dims[1] + o / each) * x->dims[2] * x->dims[3];
            roi_bin_edges(start[0], size[0], o % each / out->dims[3], out->dims[2], x->dims[2], &a[0], &b[0]);
            roi_bin_edges(start[1], size[1], o % out->dims[3], out->dims[3], x->dims[3], &a[1], &b[1]);
            bool empty = a[0] >= b[0] || a[1] >= b[1];
            float best = empty ? 0 : plane[a[0] * x->dims[3] + a[1]];
            for (int64_t i = a[0]; i < b[0] && !empty; i++)
                for (int64_t j = a[1]; j < b[1]; j++)
                    best = plane[i * x->dims[3] + j] > best ? plane[i * x->dims[3] + j] : best;
            ((float *)call->out[0].data)[box * x->dims[1] * each + o] = best;
        }
    }
}

static enum qd_status max_roi_run(const struct qd_call *call, struct qd_error *error)
{
    const int64_t boxes = call->in[1].shape.dims[0], images = call->in[0].shape.dims[0];
    for (int64_t i = 0; i < boxes; i++) {
        const float image = ((const float *)call->in[1].data)[i * 5];
        if (!(image >= 0 && image < (float)images))
            return qd_op_fail(call, error, QD_ERR_INVALID, "there is no image %g", (double)image);
    }
    qd_op_split(call, boxes, 1, max_roi_boxes, (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_max_roi_pool = {.infer = max_roi_infer, .run = max_roi_run};

/* ------------------------------------------------------------------ GlobalLpPool */

static enum qd_status global_lp_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    struct qd_shape out = call->in[0].shape;
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)))
        return status;
    if (out.rank < 2)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "an input of rank %d has no spatial dimensions", out.rank);
    if (qd_attr_int(call->node, "p", 2) < 1)
        return qd_op_fail(call, error, QD_ERR_INVALID, "p must be positive");
    for (int d = 2; d < out.rank; d++)
        out.dims[d] = 1;
    return qd_op_out(call, 0, QD_F32, &out, error);
}

static void global_lp_planes(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    const double p = (double)qd_attr_int(call->node, "p", 2);
    const int64_t plane = qd_shape_span(&call->in[0].shape, 2, call->in[0].shape.rank);
    for (int64_t i = begin; i < end; i++) {
        const float *x = (const float *)call->in[0].data + i * plane;
        double sum = 0;
        for (int64_t k = 0; k < plane; k++)
            sum += pow(fabs((double)x[k]), p);
        ((float *)call->out[0].data)[i] = (float)pow(sum, 1 / p);
    }
}

static enum qd_status global_lp_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    qd_op_split(call, qd_tensor_elems(&call->out[0]), 4, global_lp_planes, (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_global_lp_pool = {.infer = global_lp_infer, .run = global_lp_run};
