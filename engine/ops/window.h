/* The sliding windows of convolutions and pools: attributes read once, output sizes from input sizes with checked
 * arithmetic. One to three spatial dimensions, always handled as three (leading ones of size 1). Private to engine/ops.
 */
#ifndef QD_ENGINE_OPS_WINDOW_H
#define QD_ENGINE_OPS_WINDOW_H

#include "engine/ops/helpers.h"

enum qd_auto_pad { QD_PAD_NOTSET, QD_PAD_VALID, QD_PAD_SAME_UPPER, QD_PAD_SAME_LOWER };

/* Attributes as written; lists that are absent have count 0. */
struct qd_window_attrs {
    enum qd_auto_pad auto_pad;
    bool ceil_mode;
    size_t kernel_count, stride_count, dilation_count, pad_count;
    const int64_t *kernel, *strides, *dilations, *pads; /* borrowed from the node */
};

/* Resolved for one input shape; [3] is depth, height, width. */
struct qd_window {
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], before[3], after[3];
};

/* For prepare functions. Errors: INVALID. */
enum qd_status qd_window_attrs(const struct qd_node *node, struct qd_window_attrs *attrs,
                               struct qd_error *error) QD_MUST_CHECK;
/* `in` is [N, C, d1..dn], n in 1..3; kernel[n] the kernel's sizes. `pool`: pads must stay below the kernel.
 * Fills *window and the spatial dims of *out (rank and the first two set by the caller). Errors: SHAPE, UNSUPPORTED. */
enum qd_status qd_window_fit(const struct qd_call *call, const struct qd_window_attrs *attrs, const struct qd_shape *in,
                             const int64_t *kernel, bool pool, struct qd_window *window, struct qd_shape *out,
                             struct qd_error *error) QD_MUST_CHECK;

/* Taps [*first, *last) of dimension d that fall into the input when the window stands at output o. */
static inline void qd_window_taps(const struct qd_window *w, int d, int64_t o, int64_t *first, int64_t *last)
{
    int64_t start = o * w->stride[d] - w->before[d], dilation = w->dilation[d], room = w->in[d] - start;
    *first = start < 0 ? (-start - 1) / dilation + 1 : 0;
    *last = room <= 0 ? 0 : (room - 1) / dilation + 1;
    *last = *last < w->kernel[d] ? *last : w->kernel[d];
    *first = *first < *last ? *first : *last;
}

#endif
