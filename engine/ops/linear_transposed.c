/* Linear layers: transposed convolutions whose windows overlap. Output positions that leave the same remainder when
 * divided by the stride (a phase) see the same taps, so that each phase is an ordinary convolution of stride 1 with its
 * own weights, whose output pixels lie a stride apart. Phases and taps count with the last dimension fastest. */
#include "engine/ops/linear_impl.h"

bool qd_transposed_resolve(const struct qd_geometry *g, const struct qd_shape *in, int64_t *begin, int64_t *out)
{
    for (int d = 0; d < g->spatial; d++) {
        int64_t size = in->dims[2 + d], full, wanted;
        bool same = g->auto_pad == QD_PAD_SAME_UPPER || g->auto_pad == QD_PAD_SAME_LOWER;
        if (size < 1 || !qd_i64_mul(size, g->stride[d], &wanted))
            return false;
        full = wanted - g->stride[d] + g->kernel[d] + g->out_padding[d];
        begin[d] = g->auto_pad == QD_PAD_EXPLICIT ? g->pad_begin[d] : 0;
        out[d] = g->auto_pad == QD_PAD_EXPLICIT ? full - g->pad_begin[d] - g->pad_end[d] : full;
        if (same) {
            int64_t total = full > wanted ? full - wanted : 0;
            begin[d] = g->auto_pad == QD_PAD_SAME_UPPER ? total / 2 : total - total / 2;
            out[d] = wanted;
        }
        if (full < 1 || out[d] < 1)
            return false;
    }
    return true;
}

struct qd_phase qd_phase_of(const struct qd_linear_run *r, size_t phase)
{
    const struct qd_geometry *g = &r->l->geometry;
    struct qd_phase p;
    for (int d = g->spatial - 1; d >= 0; d--) {
        int64_t stride = g->stride[d];
        p.tap[d] = (int64_t)phase % stride;
        phase /= (size_t)stride;
        p.first[d] = ((p.tap[d] - r->begin[d]) % stride + stride) % stride;
        p.count[d] = p.first[d] < r->out_dims[d] ? (r->out_dims[d] - p.first[d] - 1) / stride + 1 : 0;
        p.input[d] = (p.first[d] + r->begin[d] - p.tap[d]) / stride;
    }
    return p;
}

/* The input row under outer taps `outer` of the phase's line at[], or NULL in the padding. */
static const unsigned char *row_base(const struct qd_linear_run *r, const unsigned char *image,
                                     const struct qd_phase *p, const int64_t *at, int64_t outer)
{
    const struct qd_geometry *g = &r->l->geometry;
    const int64_t *size = r->call->in->shape.dims + 2;
    int64_t index = 0, scale = size[g->spatial - 1];
    for (int d = g->spatial - 2; d >= 0; d--) {
        int64_t taps = qd_phase_taps(g, d), tap = outer % taps, row = p->input[d] + at[d] - tap;
        outer /= taps;
        if (p->tap[d] + tap * g->stride[d] >= g->kernel[d] || row < 0 || row >= size[d])
            return NULL;
        index += row * scale;
        scale *= size[d];
    }
    return image + (size_t)index * qd_linear_pixel_bytes(r);
}

void qd_phase_table(const struct qd_linear_run *r, const unsigned char *image, const struct qd_phase *p,
                    const int64_t *at, size_t first, size_t count, const void **table)
{
    const struct qd_geometry *g = &r->l->geometry;
    const int last = g->spatial - 1;
    const size_t taps = r->l->k / r->l->channels, inner = (size_t)qd_phase_taps(g, last);
    const size_t pixel_bytes = qd_linear_pixel_bytes(r);
    const int64_t width = r->call->in->shape.dims[2 + last];
    for (size_t outer = 0; outer < taps / inner; outer++) {
        const unsigned char *base = row_base(r, image, p, at, (int64_t)outer);
        for (size_t tap = 0; tap < inner; tap++) {
            const bool exists = base && p->tap[last] + (int64_t)tap * g->stride[last] < g->kernel[last];
            const void **entry = table + outer * inner + tap;
            int64_t column = p->input[last] + (int64_t)first - (int64_t)tap;
            for (size_t i = 0; i < count; i++, entry += taps, column++)
                *entry = exists && column >= 0 && column < width ? base + (size_t)column * pixel_bytes : r->padding;
        }
    }
}
