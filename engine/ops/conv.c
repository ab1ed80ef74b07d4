/* Conv of any inputs in FP32: per image, group and block of output pixels, the input is unrolled into a matrix (one row
 * a pixel) that is the product's B. Convolutions with constant weights run in linear.h instead. */
#include "engine/ops/product.h"
#include "engine/ops/window.h"

#include <inttypes.h>
#include <string.h>

struct conv {
    struct qd_window_attrs attrs;
    int64_t group;
};

static enum qd_status conv_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                   struct qd_error *error)
{
    struct conv *conv = QD_PREP_NEW(arena, struct conv);
    if (!conv)
        return qd_op_no_memory(node, error);
    conv->group = qd_attr_int(node, "group", 1);
    *prep = conv;
    return qd_window_attrs(node, &conv->attrs, error);
}

static enum qd_status conv_plan(const struct qd_call *call, struct qd_window *window, struct qd_shape *out,
                                struct qd_error *error)
{
    const struct conv *conv = call->prep;
    const struct qd_shape *x = &call->in[0].shape, *w = &call->in[1].shape;
    char tx[160], tw[160];
    int64_t channels = 0;
    if (x->rank != w->rank || x->rank < 3 || conv->group < 1 || !qd_i64_mul(w->dims[1], conv->group, &channels) ||
        channels != x->dims[1] || w->dims[0] % conv->group != 0)
        return qd_op_fail(call, error, QD_ERR_SHAPE,
                          "weights of shape %s in %" PRId64 " groups don't fit an input of shape %s",
                          qd_shape_text(w, tw, sizeof tw), conv->group, qd_shape_text(x, tx, sizeof tx));
    bool kernel_fits = !conv->attrs.kernel_count || conv->attrs.kernel_count == (size_t)(w->rank - 2);
    for (size_t i = 0; i < conv->attrs.kernel_count && kernel_fits; i++)
        kernel_fits = conv->attrs.kernel[i] == w->dims[2 + i];
    if (!kernel_fits)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "kernel_shape is not that of the weights, %s",
                          qd_shape_text(w, tw, sizeof tw));
    out->rank = x->rank;
    out->dims[0] = x->dims[0];
    out->dims[1] = w->dims[0];
    return qd_window_fit(call, &conv->attrs, x, w->dims + 2, false, window, out, error);
}

static enum qd_status conv_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_window window;
    struct qd_shape out;
    enum qd_status status = qd_op_inputs(call, 2, 3, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)) ||
        (status = qd_op_same_type(call, 0, 1, error)) || (status = qd_op_types(call, 2, QD_TYPES_FLOAT, error)) ||
        (status = conv_plan(call, &window, &out, error)))
        return status;
    if (qd_op_has(call, 2) && (call->in[2].shape.rank != 1 || call->in[2].shape.dims[0] != out.dims[1]))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the bias must have %" PRId64 " elements", out.dims[1]);
    return qd_op_out(call, 0, QD_F32, &out, error);
}

struct conv_work {
    const struct qd_call *call;
    struct qd_window w;
    int64_t group, images, blocks, tasks;
    size_t channels, outputs; /* of one group */
    size_t pixels, k;         /* output pixels of an image; channels * taps */
    size_t block;             /* output pixels unrolled at a time */
    size_t unrolled_bytes, slot_bytes;
};

/* What does not depend on data. Blocks hold about a megabyte, so that scratch is bounded and B stays in the cache. */
static enum qd_status conv_work(const struct qd_call *call, struct conv_work *work, struct qd_error *error)
{
    struct qd_shape out;
    enum qd_status status = conv_plan(call, &work->w, &out, error);
    if (status)
        return status;
    work->call = call;
    work->group = ((const struct conv *)call->prep)->group;
    work->images = out.dims[0];
    work->channels = (size_t)call->in[1].shape.dims[1];
    work->outputs = (size_t)(out.dims[1] / work->group);
    work->pixels = (size_t)qd_shape_span(&out, 2, out.rank);
    work->k = (size_t)qd_shape_span(&call->in[1].shape, 1, call->in[1].shape.rank);
    size_t fitting = work->k ? ((size_t)256 << 10) / work->k : 1;
    work->block = fitting < 32 ? 32 : fitting;
    work->block = work->block < work->pixels ? work->block : work->pixels;
    work->blocks = work->pixels ? (int64_t)((work->pixels - 1) / work->block + 1) : 0;
    work->tasks = qd_op_threads(call);
    work->unrolled_bytes = qd_align_up(work->block * work->k * sizeof(float));
    work->slot_bytes = work->unrolled_bytes + qd_product_bytes(call->kernels, work->block, work->k);
    return QD_OK;
}

static size_t conv_scratch(const struct qd_call *call)
{
    struct conv_work work;
    return conv_work(call, &work, NULL) ? 0 : work.slot_bytes * (size_t)work.tasks;
}

/* rows[j][c, z, y, x] = the input under tap (z, y, x) of channel c at pixel first + j, 0 in the padding. */
static void unroll(const struct conv_work *work, const float *image, size_t first, size_t count, float *rows)
{
    const struct qd_window *w = &work->w;
    int64_t plane = w->in[0] * w->in[1] * w->in[2];
    memset(rows, 0, count * work->k * sizeof(float));
    for (size_t j = 0; j < count; j++, rows += work->k) {
        int64_t o = (int64_t)(first + j), a[3], b[3], s[3];
        int64_t pos[3] = {o / w->out[2] / w->out[1], o / w->out[2] % w->out[1], o % w->out[2]};
        for (int d = 0; d < 3; d++) {
            qd_window_taps(w, d, pos[d], &a[d], &b[d]);
            s[d] = pos[d] * w->stride[d] - w->before[d];
        }
        for (int64_t c = 0; c < (int64_t)work->channels; c++)
            for (int64_t z = a[0]; z < b[0]; z++)
                for (int64_t y = a[1]; y < b[1]; y++) {
                    int64_t from = c * plane +
                                   ((s[0] + z * w->dilation[0]) * w->in[1] + s[1] + y * w->dilation[1]) * w->in[2] +
                                   s[2];
                    float *to = rows + ((c * w->kernel[0] + z) * w->kernel[1] + y) * w->kernel[2];
                    for (int64_t x = a[2]; x < b[2]; x++)
                        to[x] = image[from + x * w->dilation[2]];
                }
    }
}

static bool pointwise(const struct qd_window *w)
{
    for (int d = 0; d < 3; d++)
        if (w->kernel[d] != 1 || w->stride[d] != 1 || w->before[d] || w->after[d])
            return false;
    return true;
}

/* One block of pixels of one group of one image. */
static void conv_block(const struct conv_work *work, int64_t item, char *slot)
{
    const struct qd_call *call = work->call;
    int64_t group = item / work->blocks % work->group, image = item / work->blocks / work->group;
    size_t first = (size_t)(item % work->blocks) * work->block, m = work->outputs,
           set = (size_t)(image * work->group + group);
    size_t plane = (size_t)(work->w.in[0] * work->w.in[1] * work->w.in[2]);
    const float *x = call->in[0].data,
                *bias = qd_op_has(call, 2) ? (const float *)call->in[2].data + (size_t)group * m : NULL;
    x = work->k ? x + set * work->channels * plane : x;
    struct qd_product product = {
        .m = m,
        .n = work->pixels - first < work->block ? work->pixels - first : work->block,
        .k = work->k,
        .a = (const float *)call->in[1].data,
        .a_stride = work->k,
        .out = (float *)call->out[0].data + set * m * work->pixels + first,
        .out_stride = work->pixels,
    };
    product.a += work->k ? (size_t)group * m * work->k : 0;
    if (pointwise(&work->w)) { /* the input itself is the matrix */
        product.b = work->k ? x + first : x;
        product.b_column = 1;
        product.b_depth = plane;
    } else if (work->k) {
        unroll(work, x, first, product.n, (float *)(void *)slot);
        product.b = (const float *)(const void *)slot;
        product.b_column = work->k;
        product.b_depth = 1;
    }
    qd_product_run(&product, call->kernels, slot + work->unrolled_bytes);
    for (size_t i = 0; bias && i < m; i++)
        for (size_t j = 0; j < product.n; j++)
            product.out[i * work->pixels + j] += bias[i];
}

static void conv_tasks(void *ctx, int64_t begin, int64_t end)
{
    const struct conv_work *work = ctx;
    for (int64_t task = begin; task < end; task++)
        for (int64_t item = task; item < work->images * work->group * work->blocks; item += work->tasks)
            conv_block(work, item, (char *)work->call->scratch + (size_t)task * work->slot_bytes);
}

static enum qd_status conv_run(const struct qd_call *call, struct qd_error *error)
{
    struct conv_work work;
    enum qd_status status = conv_work(call, &work, error);
    if (!status && qd_tensor_elems(&call->out[0]))
        qd_op_split(call, work.tasks, 1, conv_tasks, &work);
    return status;
}

const struct qd_op qd_op_conv = {
    .prepare = conv_prepare, .infer = conv_infer, .scratch = conv_scratch, .run = conv_run};
