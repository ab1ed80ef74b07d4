/* Which input pixels lie under a convolution's window: pointers for the kernels' tables, or copies where pixels are too
 * small to be worth a pointer. Works row by row of the output, so that nothing is divided per pixel or tap. */
#include "engine/ops/linear_impl.h"

#include <string.h>

/* One row of output pixels: all dimensions but the last are fixed. */
struct window_row {
    const unsigned char *image;
    const struct qd_linear_run *r;
    int64_t origin[QD_MAX_SPATIAL]; /* input position under the first tap; of the last dimension: not set */
    size_t pixel_bytes;
    int64_t width, stride, dilation, before, kernel; /* of the last dimension */
};

static struct window_row window_row_at(const struct qd_linear_run *r, const unsigned char *image, size_t row)
{
    const struct qd_geometry *g = &r->l->geometry;
    int last = g->spatial - 1;
    struct window_row w = {.image = image,
                           .r = r,
                           .pixel_bytes = qd_linear_pixel_bytes(r),
                           .width = r->call->in->shape.dims[2 + last],
                           .stride = g->stride[last],
                           .dilation = g->dilation[last],
                           .before = r->begin[last],
                           .kernel = g->kernel[last]};
    int64_t rest = (int64_t)row;
    for (int d = last - 1; d >= 0; d--) {
        w.origin[d] = rest % r->out_dims[d] * g->stride[d] - r->begin[d];
        rest /= r->out_dims[d];
    }
    return w;
}

/* First pixel of the image row under kernel row t, or NULL in the padding. */
static const unsigned char *row_base(const struct window_row *w, int64_t t)
{
    const struct qd_geometry *g = &w->r->l->geometry;
    const int64_t *size = w->r->call->in->shape.dims + 2;
    int64_t tap[QD_MAX_SPATIAL] = {0}, index = 0;
    for (int d = g->spatial - 2; d >= 0; d--) {
        tap[d] = t % g->kernel[d];
        t /= g->kernel[d];
    }
    for (int d = 0; d < g->spatial - 1; d++) {
        int64_t at = w->origin[d] + tap[d] * g->dilation[d];
        if (at < 0 || at >= size[d])
            return NULL;
        index = index * size[d] + at;
    }
    return w->image + (size_t)(index * w->width) * w->pixel_bytes;
}

/* Output pixels [*from, *to) of [first, last) whose whole row of taps lies inside the image. */
static void interior(const struct window_row *w, int64_t first, int64_t last, int64_t *from, int64_t *to)
{
    int64_t reach = (w->kernel - 1) * w->dilation;
    *from = (w->before + w->stride - 1) / w->stride;
    *to = w->width + w->before - reach > 0 ? (w->width + w->before - reach - 1) / w->stride + 1 : 0;
    *from = *from < first ? first : *from > last ? last : *from;
    *to = *to < *from ? *from : *to > last ? last : *to;
}

static void table_pixel(const struct window_row *w, const unsigned char *base, int64_t pixel, const void **table)
{
    int64_t at = pixel * w->stride - w->before;
    for (int64_t x = 0; x < w->kernel; x++, at += w->dilation)
        table[x] = base && at >= 0 && at < w->width ? base + (size_t)at * w->pixel_bytes : w->r->padding;
}

/* Output pixels [first, last) of one row. */
static void table_row(const struct window_row *w, int64_t first, int64_t last, const void **table)
{
    const int64_t taps = w->r->l->geometry.taps;
    int64_t from, to;
    interior(w, first, last, &from, &to);
    for (int64_t t = 0; t < taps / w->kernel; t++, table += w->kernel) {
        const unsigned char *base = row_base(w, t);
        const void **entry = table;
        int64_t pixel = first;
        for (; pixel < (base ? from : last); pixel++, entry += taps)
            table_pixel(w, base, pixel, entry);
        const unsigned char *at = base ? base + (size_t)((pixel * w->stride - w->before)) * w->pixel_bytes : NULL;
        const size_t step = (size_t)w->stride * w->pixel_bytes, next = (size_t)w->dilation * w->pixel_bytes;
        for (; base && pixel < to; pixel++, entry += taps, at += step)
            for (int64_t x = 0; x < w->kernel; x++)
                entry[x] = at + (size_t)x * next;
        for (; pixel < last; pixel++, entry += taps)
            table_pixel(w, base, pixel, entry);
    }
}

void qd_taps_table(const struct qd_linear_run *r, const unsigned char *image, size_t first, size_t count,
                   const void **table)
{
    const struct qd_geometry *g = &r->l->geometry;
    size_t width = (size_t)r->out_dims[g->spatial - 1];
    for (size_t done = 0; done < count;) {
        size_t pixel = (first + done) % width, here = width - pixel < count - done ? width - pixel : count - done;
        struct window_row w = window_row_at(r, image, (first + done) / width);
        table_row(&w, (int64_t)pixel, (int64_t)(pixel + here), table + done * (size_t)g->taps);
        done += here;
    }
}

void qd_taps_columns(const struct qd_linear_run *r, const unsigned char *image, size_t row, size_t step,
                     const void **table)
{
    const struct qd_geometry *g = &r->l->geometry;
    struct window_row w = window_row_at(r, image, row);
    const bool shared = step != (size_t)w.kernel;
    const int64_t pixels = r->out_dims[g->spatial - 1], rows = (int64_t)qd_kernel_rows(g);
    const int64_t columns = shared ? (pixels - 1) * (int64_t)step + w.kernel : pixels * w.kernel;
    for (int64_t t = 0; t < rows; t++) {
        const unsigned char *base = row_base(&w, t);
        for (int64_t c = 0; c < columns; c++) {
            int64_t at = shared ? c - w.before : c / w.kernel * w.stride + c % w.kernel * w.dilation - w.before;
            table[c * rows + t] = base && at >= 0 && at < w.width ? base + (size_t)at * w.pixel_bytes : r->padding;
        }
    }
}

/* `bytes` bytes; whole blocks of 16 where source and target have room for them. */
static inline void copy_piece(unsigned char *to, const unsigned char *from, size_t bytes, const unsigned char *end)
{
    if (bytes <= QD_LINE_SLACK && (size_t)(end - from) >= QD_LINE_SLACK)
        for (size_t i = 0; i < bytes; i += 16)
            memcpy(to + i, from + i, 16);
    else
        memcpy(to, from, bytes);
}

/* Pixel by pixel: near the edges, or when a row of taps is not one piece. */
static unsigned char *line_apart(const struct window_row *w, const unsigned char *base, int64_t at, size_t offset,
                                 const unsigned char *end, unsigned char *to)
{
    const size_t bytes = w->r->l->channels * w->r->element_bytes;
    for (int64_t x = 0; x < w->kernel; x++, at += w->dilation, to += bytes) {
        if (base && at >= 0 && at < w->width)
            copy_piece(to, base + (size_t)at * w->pixel_bytes + offset, bytes, end);
        else
            memcpy(to, (const unsigned char *)w->r->padding + offset, bytes);
    }
    return to;
}

void qd_taps_lines(const struct qd_linear_run *r, const unsigned char *image, size_t first, size_t count,
                   size_t offset_bytes, size_t stride, unsigned char *lines)
{
    const struct qd_geometry *g = &r->l->geometry;
    const size_t width = (size_t)r->out_dims[g->spatial - 1], bytes = r->l->channels * r->element_bytes;
    const unsigned char *end = (const unsigned char *)r->call->in->data +
                               r->images * (size_t)(qd_linear_image(r, 1) - qd_linear_image(r, 0));
    for (size_t done = 0; done < count;) {
        size_t pixel = (first + done) % width, here = width - pixel < count - done ? width - pixel : count - done;
        struct window_row w = window_row_at(r, image, (first + done) / width);
        const bool whole = w.dilation == 1 && w.pixel_bytes == bytes; /* a row of taps is one piece */
        int64_t from, to;
        interior(&w, (int64_t)pixel, (int64_t)(pixel + here), &from, &to);
        /* Kernel rows inside, so that what a copy writes too much is overwritten by the next. */
        const unsigned char *bases[64];
        const int64_t rows = (int64_t)qd_kernel_rows(g);
        for (int64_t t = 0; t < rows && t < 64; t++)
            bases[t] = row_base(&w, t);
        for (size_t i = pixel; i < pixel + here; i++, lines += stride) {
            unsigned char *line = lines;
            int64_t at = (int64_t)i * w.stride - w.before;
            for (int64_t t = 0; t < rows; t++) {
                const unsigned char *base = t < 64 ? bases[t] : row_base(&w, t);
                if (whole && base && (int64_t)i >= from && (int64_t)i < to) {
                    copy_piece(line, base + (size_t)at * w.pixel_bytes, (size_t)w.kernel * bytes, end);
                    line += (size_t)w.kernel * bytes;
                } else {
                    line = line_apart(&w, base, at, offset_bytes, end, line);
                }
            }
        }
        done += here;
    }
}
