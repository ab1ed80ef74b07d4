/* Linear layers: a block of output rows of a depthwise convolution. */
#include "engine/ops/linear_impl.h"

#define BLOCK_INPUT_BYTES                                                                                              \
    (64u << 10) /* of input rows that a block walks over, tile of channels by tile of channels                         \
                 */

/* Columns from pixel to pixel in the table: shared where the taps of a row lie beside each other. */
static size_t step_of(const struct qd_geometry *g)
{
    int last = g->spatial - 1;
    bool shared = g->dilation[last] == 1 && g->stride[last] < g->kernel[last];
    return (size_t)(shared ? g->stride[last] : g->kernel[last]);
}

static size_t row_entries(const struct qd_linear *l, const int64_t *out_dims)
{
    const struct qd_geometry *g = &l->geometry;
    size_t pixels = (size_t)out_dims[g->spatial - 1];
    return ((pixels - 1) * step_of(g) + qd_kernel_columns(g)) * qd_kernel_rows(g);
}

size_t qd_depthwise_block_rows(const struct qd_linear *l, const struct qd_shape *in, const int64_t *out_dims,
                               size_t tasks)
{
    const struct qd_geometry *g = &l->geometry;
    size_t rows = 1, stride = g->spatial > 1 ? (size_t)g->stride[g->spatial - 2] : 1;
    for (int d = 0; d < g->spatial - 1; d++)
        rows *= (size_t)out_dims[d];
    size_t row_bytes = (size_t)in->dims[in->rank - 1] * l->inputs * (l->int8 ? 1 : sizeof(float)) * stride;
    size_t fitting = row_bytes && row_bytes < BLOCK_INPUT_BYTES ? BLOCK_INPUT_BYTES / row_bytes : 1;
    size_t share = (rows + tasks - 1) / tasks;
    fitting = fitting < share ? fitting : share;
    return fitting ? fitting : 1;
}

size_t qd_depthwise_table_bytes(const struct qd_linear *l, const int64_t *out_dims, size_t block_rows)
{
    return qd_align_up(row_entries(l, out_dims) * block_rows * sizeof(void *));
}

void qd_depthwise_block(const struct qd_linear_run *r, size_t image, size_t first, size_t rows, const void **table,
                        struct qd_observation *seen)
{
    const struct qd_linear *l = r->l;
    const struct qd_geometry *g = &l->geometry;
    const size_t pixels = (size_t)r->out_dims[g->spatial - 1], entries = row_entries(l, r->out_dims);
    const unsigned char *pixels_in = qd_linear_image(r, image);
    for (size_t row = 0; row < rows; row++)
        qd_taps_columns(r, pixels_in, first + row, step_of(g), table + row * entries);
    size_t at = (image * r->rows + first * pixels) * l->outputs;
    struct qd_depthwise_args args = {.rows = rows,
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
