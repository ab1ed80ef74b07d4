/* Linear layers: a block of a depthwise convolution's pixels, whole lines of the output or a piece of one line. */
#include "engine/ops/linear_impl.h"

/* Of the input under a block: the kernel walks over it once for each of its tiles of channels. */
#define BLOCK_INPUT_BYTES (64u << 10)
#define LEAST_PIXELS      32 /* of a piece: less would not pay for its table */

/* Columns from pixel to pixel in the table: shared where the taps of a row lie beside each other. */
static size_t step_of(const struct qd_geometry *g)
{
    int last = g->spatial - 1;
    bool shared = g->dilation[last] == 1 && g->stride[last] < g->kernel[last];
    return (size_t)(shared ? g->stride[last] : g->kernel[last]);
}

/* Pointers under `pixels` pixels of one line. */
static size_t line_entries(const struct qd_geometry *g, size_t pixels)
{
    return ((pixels - 1) * step_of(g) + qd_kernel_columns(g)) * qd_kernel_rows(g);
}

size_t qd_depthwise_block_pixels(const struct qd_linear *l, const int64_t *out_dims, size_t share)
{
    const struct qd_geometry *g = &l->geometry;
    const size_t line = (size_t)out_dims[g->spatial - 1], stride = (size_t)g->stride[g->spatial - 1];
    size_t lines = 1, pixel_bytes = l->inputs * qd_linear_element(l) * stride;
    for (int d = 0; d < g->spatial - 1; d++)
        lines *= (size_t)out_dims[d];
    if (g->spatial > 1)
        pixel_bytes *= (size_t)g->stride[g->spatial - 2];
    size_t pixels = BLOCK_INPUT_BYTES / pixel_bytes, most = (lines * line + share - 1) / share;
    pixels = pixels < most ? pixels : most;
    if (pixels >= line)
        return pixels / line * line;
    /* Lines are cut only when they are much too long, or too few. */
    if (lines >= share && pixels * 4 >= line)
        return line;
    pixels = pixels < LEAST_PIXELS ? LEAST_PIXELS : pixels;
    return pixels < line ? pixels : line;
}

size_t qd_depthwise_table_bytes(const struct qd_linear_run *r)
{
    const struct qd_geometry *g = &r->l->geometry;
    const size_t line = (size_t)r->out_dims[g->spatial - 1], pixels = r->row_step < line ? r->row_step : line;
    return qd_align_up(line_entries(g, pixels) * (r->row_step / pixels) * sizeof(void *));
}

void qd_depthwise_block(const struct qd_linear_run *r, size_t image, size_t first, size_t count, const void **table,
                        struct qd_observation *seen)
{
    const struct qd_linear *l = r->l;
    const struct qd_geometry *g = &l->geometry;
    const size_t line = (size_t)r->out_dims[g->spatial - 1], pixels = count < line ? count : line;
    const size_t entries = line_entries(g, pixels);
    const unsigned char *pixels_in = qd_linear_image(r, image);
    for (size_t row = 0; row < count / pixels; row++)
        qd_taps_columns(r, pixels_in, first + row * line, pixels, step_of(g), table + row * entries);
    size_t at = (image * r->rows + first) * l->outputs;
    struct qd_depthwise_args args = {.rows = count / pixels,
                                     .pixels = pixels,
                                     .kh = qd_kernel_rows(g),
                                     .kw = qd_kernel_columns(g),
                                     .channels = l->n,
                                     .channel_end = l->n,
                                     .table = table,
                                     .row_entries = entries,
                                     .pixel_entries = step_of(g) * qd_kernel_rows(g),
                                     .weights = l->packed,
                                     .epilogue = qd_linear_epilogue(r, 0, at, l->outputs, seen)};
    if (l->int8)
        l->kernels->depthwise_q8.run(&args);
    else
        l->kernels->depthwise_f32.run(&args);
}
