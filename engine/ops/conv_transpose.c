/* ConvTranspose of any inputs in FP32, and Col2Im: both add overlapping windows into an image. Per image, group and
 * block of output channels, weights times input gives a column per input pixel, which is then added where it belongs,
 * in a fixed order. */
#include "engine/ops/product.h"
#include "engine/ops/window.h"

#include <inttypes.h>
#include <string.h>

#define LIMIT ((int64_t)1 << 40)

struct transposed {
    struct qd_window_attrs attrs;
    int64_t group;
    const int64_t *output_padding, *output_shape;
    size_t output_padding_count, output_shape_count;
};

static enum qd_status transposed_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                         struct qd_error *error)
{
    struct transposed *t = QD_PREP_NEW(arena, struct transposed);
    if (!t)
        return qd_op_no_memory(node, error);
    t->group = qd_attr_int(node, "group", 1);
    t->output_padding = qd_attr_ints(node, "output_padding", &t->output_padding_count);
    t->output_shape = qd_attr_ints(node, "output_shape", &t->output_shape_count);
    *prep = t;
    return qd_window_attrs(node, &t->attrs, error);
}

/* One dimension: w->in, kernel, stride, dilation, before and after are set; false when nothing fits. `asked` < 0: not
 * given. The roles of in and out are a convolution's turned round: in is small, out is large. */
static bool fit(struct qd_window *w, int d, enum qd_auto_pad pad, int64_t extra, int64_t asked)
{
    if (w->in[d] < 1 || w->in[d] > LIMIT || w->kernel[d] < 1 || w->kernel[d] > LIMIT || w->stride[d] < 1 ||
        w->stride[d] > LIMIT || w->dilation[d] < 1 || w->dilation[d] > LIMIT || w->before[d] < 0 ||
        w->before[d] > LIMIT || w->after[d] < 0 || w->after[d] > LIMIT || extra < 0 || extra > LIMIT || asked > LIMIT)
        return false;
    int64_t span, full;
    if (!qd_i64_mul(w->kernel[d] - 1, w->dilation[d], &span) || !qd_i64_mul(w->in[d] - 1, w->stride[d], &full) ||
        span > LIMIT || full > LIMIT)
        return false;
    full += span + 1 + extra;
    if (asked < 0 && (pad == QD_PAD_SAME_UPPER || pad == QD_PAD_SAME_LOWER) &&
        !qd_i64_mul(w->in[d], w->stride[d], &asked))
        return false;
    if (asked >= 0) {
        int64_t total = full > asked ? full - asked : 0, half = total / 2;
        w->before[d] = pad == QD_PAD_SAME_UPPER ? half : total - half;
        w->after[d] = total - w->before[d];
        w->out[d] = asked;
        return true;
    }
    w->out[d] = full - w->before[d] - w->after[d];
    return w->out[d] >= 0;
}

/* Lists are absent or have `spatial` elements (pads twice as many). */
static enum qd_status windows(const struct qd_call *call, int spatial, const int64_t *in, const int64_t *kernel,
                              struct qd_window *w, struct qd_shape *out, struct qd_error *error)
{
    const struct transposed *t = call->prep;
    const struct qd_window_attrs *a = &t->attrs;
    size_t n = (size_t)spatial;
    const int64_t *asked = t->output_shape_count > n ? t->output_shape + (t->output_shape_count - n) : t->output_shape;
    if ((a->stride_count && a->stride_count != n) || (a->dilation_count && a->dilation_count != n) ||
        (a->pad_count && a->pad_count != 2 * n) || (t->output_padding_count && t->output_padding_count != n) ||
        (t->output_shape_count && t->output_shape_count != n && t->output_shape_count != n + 2))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "its attributes are not for %d dimensions", spatial);
    for (int d = 0; d < 3; d++) {
        int i = d - (3 - spatial);
        bool pads = a->pad_count && a->auto_pad == QD_PAD_NOTSET;
        w->in[d] = i < 0 ? 1 : in[i];
        w->kernel[d] = i < 0 ? 1 : kernel[i];
        w->stride[d] = i < 0 || !a->stride_count ? 1 : a->strides[i];
        w->dilation[d] = i < 0 || !a->dilation_count ? 1 : a->dilations[i];
        w->before[d] = i < 0 || !pads ? 0 : a->pads[i];
        w->after[d] = i < 0 || !pads ? 0 : a->pads[i + spatial];
        int64_t extra = i < 0 || !t->output_padding_count ? 0 : t->output_padding[i];
        if (i >= 0 && t->output_shape_count && asked[i] < 0)
            return qd_op_fail(call, error, QD_ERR_SHAPE, "output_shape is negative");
        if (!fit(w, d, i < 0 ? QD_PAD_NOTSET : a->auto_pad, extra, i < 0 || !t->output_shape_count ? -1 : asked[i]))
            return qd_op_fail(call, error, QD_ERR_SHAPE,
                              "the window doesn't fit an input of %" PRId64 " in dimension %d", w->in[d], i);
        if (i >= 0)
            out->dims[2 + i] = w->out[d];
    }
    return QD_OK;
}

static enum qd_status plan(const struct qd_call *call, struct qd_window *w, struct qd_shape *out,
                           struct qd_error *error)
{
    const struct transposed *t = call->prep;
    const struct qd_shape *x = &call->in[0].shape, *weights = &call->in[1].shape;
    char tx[160], tw[160];
    if (x->rank < 3 || x->rank > 5)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "an input of rank %d is not supported (3 to 5 are)",
                          x->rank);
    *out = (struct qd_shape){.rank = x->rank, .dims = {x->dims[0]}};
    bool fits = weights->rank == x->rank && weights->dims[0] == x->dims[1] && t->group >= 1 &&
                x->dims[1] % t->group == 0 && qd_i64_mul(weights->dims[1], t->group, &out->dims[1]);
    for (size_t i = 0; fits && i < t->attrs.kernel_count; i++)
        fits = t->attrs.kernel_count == (size_t)(x->rank - 2) && t->attrs.kernel[i] == weights->dims[2 + i];
    if (!fits)
        return qd_op_fail(call, error, QD_ERR_SHAPE,
                          "weights of shape %s in %" PRId64 " groups don't fit an input of shape %s",
                          qd_shape_text(weights, tw, sizeof tw), t->group, qd_shape_text(x, tx, sizeof tx));
    return windows(call, x->rank - 2, x->dims + 2, weights->dims + 2, w, out, error);
}

struct work {
    const struct qd_call *call;
    struct qd_window w;
    int64_t group, images, blocks, tasks;
    size_t channels, outputs, taps, pixels, plane; /* of one group; input pixels; output pixels */
    size_t block;                                  /* output channels at a time */
    size_t weight_bytes, column_bytes, slot_bytes;
};

static enum qd_status work_of(const struct qd_call *call, struct work *k, struct qd_error *error)
{
    struct qd_shape out;
    enum qd_status status = plan(call, &k->w, &out, error);
    if (status)
        return status;
    size_t column, bytes;
    k->call = call;
    k->group = ((const struct transposed *)call->prep)->group;
    k->images = out.dims[0];
    k->channels = (size_t)(call->in[0].shape.dims[1] / k->group);
    k->outputs = (size_t)call->in[1].shape.dims[1];
    k->taps = (size_t)(k->w.kernel[0] * k->w.kernel[1] * k->w.kernel[2]);
    k->pixels = (size_t)(k->w.in[0] * k->w.in[1] * k->w.in[2]);
    k->plane = (size_t)qd_shape_span(&out, 2, out.rank);
    if (!qd_size_mul(k->taps, k->pixels, &column) || column > (size_t)LIMIT ||
        !qd_size_mul(k->channels, k->taps, &bytes) || bytes > (size_t)LIMIT)
        return qd_op_fail(call, error, QD_ERR_TOO_LARGE, "the windows are too large");
    k->block = ((size_t)256 << 10) / (column ? column : 1);
    k->block = k->block < 1 ? 1 : k->block < k->outputs ? k->block : k->outputs;
    k->blocks = k->block ? (int64_t)((k->outputs - 1) / k->block + 1) : 0;
    k->tasks = qd_op_threads(call);
    k->weight_bytes = qd_align_up(k->block * bytes * sizeof(float));
    k->column_bytes = qd_align_up(k->block * column * sizeof(float));
    k->slot_bytes = k->weight_bytes + k->column_bytes + qd_product_bytes(call->kernels, k->pixels, k->channels);
    return QD_OK;
}

static enum qd_status transposed_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_window w;
    struct qd_shape out;
    enum qd_status status = qd_op_inputs(call, 2, 3, error);
    for (int i = 0; i < 3 && !status; i++)
        status = qd_op_types(call, i, QD_TYPES_FLOAT, error);
    if (status || (status = plan(call, &w, &out, error)))
        return status;
    if (qd_op_has(call, 2) && (call->in[2].shape.rank != 1 || call->in[2].shape.dims[0] != out.dims[1]))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the bias must have %" PRId64 " elements", out.dims[1]);
    if ((status = qd_op_out(call, 0, QD_F32, &out, error)) || !call->kernels)
        return status;
    struct work work;
    return work_of(call, &work, error);
}

static size_t transposed_scratch(const struct qd_call *call)
{
    struct work work;
    return work_of(call, &work, NULL) ? 0 : work.slot_bytes * (size_t)work.tasks;
}

/* image[out pixel] += columns[tap][in pixel] for all taps whose place is on the image. */
static void add_columns(const struct qd_window *w, const float *columns, float *image)
{
    for (int64_t z = 0; z < w->kernel[0]; z++)
        for (int64_t y = 0; y < w->kernel[1]; y++)
            for (int64_t x = 0; x < w->kernel[2]; x++)
                for (int64_t i = 0; i < w->in[0]; i++)
                    for (int64_t j = 0; j < w->in[1]; j++, columns += w->in[2]) {
                        int64_t oz = i * w->stride[0] - w->before[0] + z * w->dilation[0];
                        int64_t oy = j * w->stride[1] - w->before[1] + y * w->dilation[1];
                        if (oz < 0 || oz >= w->out[0] || oy < 0 || oy >= w->out[1])
                            continue;
                        float *row = image + (oz * w->out[1] + oy) * w->out[2];
                        int64_t ox = x * w->dilation[2] - w->before[2];
                        for (int64_t l = 0; l < w->in[2]; l++, ox += w->stride[2])
                            if (ox >= 0 && ox < w->out[2])
                                row[ox] += columns[l];
                    }
}

static void transposed_item(const struct work *k, int64_t item, char *slot)
{
    const struct qd_call *call = k->call;
    int64_t group = item / k->blocks % k->group, image = item / k->blocks / k->group;
    size_t first = (size_t)(item % k->blocks) * k->block, set = (size_t)(image * k->group + group);
    size_t count = k->outputs - first < k->block ? k->outputs - first : k->block, rows = count * k->taps;
    float *weights = (float *)(void *)slot, *columns = (float *)(void *)(slot + k->weight_bytes);
    float *out = (float *)call->out[0].data + (set * k->outputs + first) * k->plane;
    for (size_t c = 0; c < k->channels; c++) { /* [channels, outputs * taps] turned into rows of channels */
        const float *from = (const float *)call->in[1].data +
                            (((size_t)group * k->channels + c) * k->outputs + first) * k->taps;
        for (size_t r = 0; r < rows; r++)
            weights[r * k->channels + c] = from[r];
    }
    struct qd_product product = {
        .m = rows,
        .n = k->pixels,
        .k = k->channels,
        .a = weights,
        .a_stride = k->channels,
        .b = k->channels ? (const float *)call->in[0].data + set * k->channels * k->pixels : NULL,
        .b_depth = k->pixels,
        .b_column = 1,
        .out = columns,
        .out_stride = k->pixels,
    };
    qd_product_run(&product, call->kernels, slot + k->weight_bytes + k->column_bytes);
    for (size_t o = 0; o < count; o++) {
        float bias = qd_op_has(call, 2) ? ((const float *)call->in[2].data)[(size_t)group * k->outputs + first + o] : 0;
        for (size_t i = 0; i < k->plane; i++)
            out[o * k->plane + i] = bias;
        add_columns(&k->w, columns + o * k->taps * k->pixels, out + o * k->plane);
    }
}

static void transposed_tasks(void *ctx, int64_t begin, int64_t end)
{
    const struct work *k = ctx;
    for (int64_t task = begin; task < end; task++)
        for (int64_t item = task; item < k->images * k->group * k->blocks; item += k->tasks)
            transposed_item(k, item, (char *)k->call->scratch + (size_t)task * k->slot_bytes);
}

static enum qd_status transposed_run(const struct qd_call *call, struct qd_error *error)
{
    struct work work;
    enum qd_status status = work_of(call, &work, error);
    if (!status && qd_tensor_elems(&call->out[0]))
        qd_op_split(call, work.tasks, 1, transposed_tasks, &work);
    return status;
}

const struct qd_op qd_op_conv_transpose = {
    .prepare = transposed_prepare, .infer = transposed_infer, .scratch = transposed_scratch, .run = transposed_run};

/* ------------------------------------------------------------------ Col2Im: input [N, C * block, L], image_shape,
 * block_shape */

static enum qd_status col2im_plan(const struct qd_call *call, struct qd_window *w, struct qd_shape *out,
                                  struct qd_error *error)
{
    struct qd_window_attrs attrs = ((const struct transposed *)call->prep)->attrs;
    const struct qd_shape *x = &call->in[0].shape;
    int64_t image[3], block[3], area = 1, columns = 1;
    size_t n = 0, blocks = 0;
    enum qd_status status = qd_op_ints(call, 1, image, 3, &n, error);
    if (status || (status = qd_op_ints(call, 2, block, 3, &blocks, error)))
        return status;
    if (n < 1 || n != blocks || x->rank != 3)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "image_shape, block_shape and the input don't fit");
    attrs.ceil_mode = false;
    attrs.auto_pad = QD_PAD_NOTSET;
    struct qd_shape picture = {.rank = 2 + (int)n, .dims = {1, 1}};
    for (size_t i = 0; i < n; i++) {
        picture.dims[2 + i] = image[i];
        if (image[i] < 0 || block[i] < 1 || !qd_i64_mul(area, block[i], &area))
            return qd_op_fail(call, error, QD_ERR_SHAPE, "image_shape or block_shape makes no sense");
    }
    struct qd_shape fitted = picture;
    if ((status = qd_window_fit(call, &attrs, &picture, block, false, w, &fitted, error)))
        return status;
    for (int d = 0; d < 3; d++) { /* from the image's window to the one that fills it */
        int64_t small = w->out[d];
        w->out[d] = w->in[d];
        w->in[d] = small;
        if (!qd_i64_mul(columns, small, &columns))
            columns = -1;
    }
    if (x->dims[1] % area != 0 || columns != x->dims[2])
        return qd_op_fail(call, error, QD_ERR_SHAPE, "an image of these blocks needs %" PRId64 " columns, has %" PRId64,
                          columns, x->dims[2]);
    *out = picture;
    out->dims[0] = x->dims[0];
    out->dims[1] = x->dims[1] / area;
    return QD_OK;
}

static enum qd_status col2im_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_window w;
    struct qd_shape out;
    enum qd_status status = qd_op_inputs(call, 3, 3, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)) ||
        (status = col2im_plan(call, &w, &out, error)))
        return status;
    return qd_op_out(call, 0, QD_F32, &out, error);
}

static enum qd_status col2im_run(const struct qd_call *call, struct qd_error *error)
{
    struct qd_window w;
    struct qd_shape out;
    enum qd_status status = col2im_plan(call, &w, &out, error);
    if (status)
        return status;
    if (!qd_shape_equal(&out, &call->out[0].shape))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the output's shape is not the planned one");
    if (qd_tensor_bytes(&call->out[0]))
        memset(call->out[0].data, 0, qd_tensor_bytes(&call->out[0]));
    int64_t plane = qd_shape_span(&out, 2, out.rank), taps = w.kernel[0] * w.kernel[1] * w.kernel[2];
    for (int64_t i = 0; i < out.dims[0] * out.dims[1]; i++)
        add_columns(&w, (const float *)call->in[0].data + i * taps * call->in[0].shape.dims[2],
                    (float *)call->out[0].data + i * plane);
    return QD_OK;
}

const struct qd_op qd_op_col2im = {.prepare = transposed_prepare, .infer = col2im_infer, .run = col2im_run};
