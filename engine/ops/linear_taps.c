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
        bool inside = base && pixel < to;
        const unsigned char *at = inside ? base + (size_t)(pixel * w->stride - w->before) * w->pixel_bytes : NULL;
        const size_t step = (size_t)w->stride * w->pixel_bytes, next = (size_t)w->dilation * w->pixel_bytes;
        for (; inside && pixel < to; pixel++, entry += taps, at += step)
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

/* Columns [0, count) of one kernel row, the first at input position `at`, `rows` entries apart. */
static void column_row(const struct window_row *w, const unsigned char *base, int64_t at, int64_t count, size_t rows,
                       const void **entry)
{
    const void *const padding = w->r->padding;
    const int64_t inside = base ? (at < 0 ? -at : 0) : count, from = inside < count ? inside : count;
    const int64_t left = w->width - at, to = left < from ? from : left < count ? left : count;
    int64_t c = 0;
    for (; c < from; c++, entry += rows)
        *entry = padding;
    const unsigned char *pixel = c < to ? base + (size_t)(at + c) * w->pixel_bytes : NULL;
    for (; c < to; c++, entry += rows, pixel += w->pixel_bytes)
        *entry = pixel;
    for (; c < count; c++, entry += rows)
        *entry = padding;
}

void qd_taps_columns(const struct qd_linear_run *r, const unsigned char *image, size_t first, size_t count, size_t step,
                     const void **table)
{
    const struct qd_geometry *g = &r->l->geometry;
    const size_t rows = qd_kernel_rows(g), width = (size_t)r->out_dims[g->spatial - 1];
    struct window_row w = window_row_at(r, image, first / width);
    const size_t kernel = (size_t)w.kernel;
    int64_t at = (int64_t)(first % width) * w.stride - w.before;
    for (size_t t = 0; t < rows; t++) {
        const unsigned char *base = row_base(&w, (int64_t)t);
        if (step != kernel) { /* shared: neighbouring positions are neighbouring columns */
            column_row(&w, base, at, (int64_t)((count - 1) * step + kernel), rows, table + t);
            continue;
        }
        for (size_t p = 0; p < count; p++)
            for (size_t x = 0; x < kernel; x++)
                column_row(&w, base, at + (int64_t)p * w.stride + (int64_t)x * w.dilation, 1, rows,
                           table + (p * kernel + x) * rows + t);
    }
}

/* `count` pieces of `bytes` bytes, from `step` bytes apart to `stride` bytes apart; up to 15 bytes behind each are
 * written too. Nothing at or behind `end` is read. */
static void copy_pieces(const unsigned char *from, size_t step, size_t count, size_t bytes, const unsigned char *end,
                        unsigned char *to, size_t stride)
{
    const size_t whole = (bytes + 15) / 16 * 16, room = (size_t)(end - from);
    size_t safe = room < whole ? 0 : (room - whole) / step + 1, i = 0;
    safe = safe < count ? safe : count;
    if (whole == 16)
        for (; i < safe; i++)
            memcpy(to + i * stride, from + i * step, 16);
    else if (whole == 32)
        for (; i < safe; i++) {
            memcpy(to + i * stride, from + i * step, 16);
            memcpy(to + i * stride + 16, from + i * step + 16, 16);
        }
    else if (whole <= 128)
        for (; i < safe; i++)
            for (size_t at = 0; at < whole; at += 16)
                memcpy(to + i * stride + at, from + i * step + at, 16);
    for (; i < count; i++)
        memcpy(to + i * stride, from + i * step, bytes);
}

/* One kernel row of one line, tap by tap: near the edges, or where a row of taps is not one piece. */
static void line_apart(const struct window_row *w, const unsigned char *base, int64_t pixel, size_t offset,
                       unsigned char *to)
{
    const size_t bytes = w->r->l->channels * w->r->element_bytes;
    int64_t at = pixel * w->stride - w->before;
    for (int64_t x = 0; x < w->kernel; x++, at += w->dilation, to += bytes)
        memcpy(to,
               base && at >= 0 && at < w->width ? base + (size_t)at * w->pixel_bytes + offset
                                                : (const unsigned char *)w->r->padding + offset,
               bytes);
}

/* Kernel row t of the lines of output pixels [first, last) of one row. */
static void lines_row(const struct window_row *w, int64_t t, int64_t first, int64_t last, size_t offset, size_t stride,
                      const unsigned char *end, unsigned char *to)
{
    const size_t bytes = w->r->l->channels * w->r->element_bytes;
    const unsigned char *base = row_base(w, t);
    int64_t from = last, until = last, pixel = first;
    if (base && w->dilation == 1 && w->pixel_bytes == bytes) /* a row of taps is one piece */
        interior(w, first, last, &from, &until);
    for (; pixel < from; pixel++, to += stride)
        line_apart(w, base, pixel, offset, to);
    if (pixel < until) {
        const size_t step = (size_t)w->stride * w->pixel_bytes, count = (size_t)(until - pixel);
        copy_pieces(base + (size_t)(pixel * w->stride - w->before) * w->pixel_bytes, step, count,
                    (size_t)w->kernel * bytes, end, to, stride);
        to += count * stride;
        pixel = until;
    }
    for (; pixel < last; pixel++, to += stride)
        line_apart(w, base, pixel, offset, to);
}

void qd_taps_lines(const struct qd_linear_run *r, const unsigned char *image, size_t first, size_t count,
                   size_t offset_bytes, size_t stride, unsigned char *lines)
{
    const struct qd_geometry *g = &r->l->geometry;
    const size_t width = (size_t)r->out_dims[g->spatial - 1], rows = qd_kernel_rows(g);
    const size_t row_bytes = qd_kernel_columns(g) * r->l->channels * r->element_bytes;
    const unsigned char *end = qd_linear_image(r, r->images);
    for (size_t done = 0; done < count;) {
        size_t pixel = (first + done) % width, here = width - pixel < count - done ? width - pixel : count - done;
        struct window_row w = window_row_at(r, image, (first + done) / width);
        /* In ascending order: what is written too much is overwritten by the next kernel row, or is the line's tail. */
        for (size_t t = 0; t < rows; t++)
            lines_row(&w, (int64_t)t, (int64_t)pixel, (int64_t)(pixel + here), offset_bytes, stride, end,
                      lines + done * stride + t * row_bytes);
        done += here;
    }
}
