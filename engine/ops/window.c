/* The sliding windows of convolutions and pools. See window.h. */
#include "engine/ops/window.h"

#include <inttypes.h>

enum qd_status qd_window_attrs(const struct qd_node *node, struct qd_window_attrs *attrs, struct qd_error *error)
{
    static const char *const names[] = {"NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"};
    int found = -1;
    for (int i = 0; i < 4; i++)
        if (qd_attr_is(node, "auto_pad", "NOTSET", names[i]))
            found = i;
    if (found < 0)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "auto_pad is none of NOTSET, VALID, SAME_UPPER, SAME_LOWER");
    attrs->auto_pad = (enum qd_auto_pad)found;
    attrs->ceil_mode = qd_attr_int(node, "ceil_mode", 0) != 0;
    attrs->kernel = qd_attr_ints(node, "kernel_shape", &attrs->kernel_count);
    attrs->strides = qd_attr_ints(node, "strides", &attrs->stride_count);
    attrs->dilations = qd_attr_ints(node, "dilations", &attrs->dilation_count);
    attrs->pads = qd_attr_ints(node, "pads", &attrs->pad_count);
    return QD_OK;
}

/* Sizes beyond this make no sense and would need care in every sum of two or three of them. */
#define LIMIT ((int64_t)1 << 40)

/* One dimension; false when nothing fits. */
static bool fit(struct qd_window *w, int d, const struct qd_window_attrs *attrs, bool pool)
{
    int64_t in = w->in[d], stride = w->stride[d], span = 0;
    if (in > LIMIT || w->kernel[d] < 1 || stride < 1 || stride > LIMIT || w->dilation[d] < 1 || w->before[d] < 0 ||
        w->before[d] > LIMIT || w->after[d] < 0 || w->after[d] > LIMIT)
        return false;
    if (!qd_i64_mul(w->kernel[d] - 1, w->dilation[d], &span) || span > 4 * LIMIT)
        return false;
    span += 1;
    if (attrs->auto_pad == QD_PAD_SAME_UPPER || attrs->auto_pad == QD_PAD_SAME_LOWER) {
        w->out[d] = in / stride + (in % stride != 0);
        int64_t total = w->out[d] > 0 ? (w->out[d] - 1) * stride + span - in : 0, half;
        total = total > 0 ? total : 0;
        half = total / 2;
        w->before[d] = attrs->auto_pad == QD_PAD_SAME_UPPER ? half : total - half;
        w->after[d] = total - w->before[d];
        return true;
    }
    int64_t room = in + w->before[d] + w->after[d] - span;
    if (room < 0 || (pool && (w->before[d] >= span || w->after[d] >= span)))
        return false;
    w->out[d] = room / stride + 1;
    /* Rounded up, but no window may start in the padding behind. */
    if (attrs->ceil_mode && room % stride != 0 && w->out[d] * stride < in + w->before[d])
        w->out[d]++;
    return true;
}

enum qd_status qd_window_fit(const struct qd_call *call, const struct qd_window_attrs *attrs, const struct qd_shape *in,
                             const int64_t *kernel, bool pool, struct qd_window *window, struct qd_shape *out,
                             struct qd_error *error)
{
    int spatial = in->rank - 2;
    if (spatial < 1 || spatial > 3)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "an input of rank %d is not supported (3 to 5 are)",
                          in->rank);
    size_t n = (size_t)spatial;
    if ((attrs->stride_count && attrs->stride_count != n) || (attrs->dilation_count && attrs->dilation_count != n) ||
        (attrs->pad_count && attrs->pad_count != 2 * n))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "strides, dilations or pads are not for %d dimensions", spatial);
    for (int d = 0; d < 3; d++) {
        int i = d - (3 - spatial);
        bool explicit_pads = attrs->pad_count && attrs->auto_pad == QD_PAD_NOTSET;
        window->in[d] = i < 0 ? 1 : in->dims[2 + i];
        window->kernel[d] = i < 0 ? 1 : kernel[i];
        window->stride[d] = i < 0 || !attrs->stride_count ? 1 : attrs->strides[i];
        window->dilation[d] = i < 0 || !attrs->dilation_count ? 1 : attrs->dilations[i];
        window->before[d] = i < 0 || !explicit_pads ? 0 : attrs->pads[i];
        window->after[d] = i < 0 || !explicit_pads ? 0 : attrs->pads[i + spatial];
        char text[160];
        if (!fit(window, d, attrs, pool))
            return qd_op_fail(call, error, QD_ERR_SHAPE,
                              "kernel %" PRId64 ", stride %" PRId64 ", dilation %" PRId64 " and pads %" PRId64
                              ", %" PRId64 " of spatial dimension %d don't fit an input of shape %s",
                              window->kernel[d], window->stride[d], window->dilation[d], window->before[d],
                              window->after[d], i, qd_shape_text(in, text, sizeof text));
        if (i >= 0)
            out->dims[2 + i] = window->out[d];
    }
    return QD_OK;
}
