/* Linear layers: one run. The output's rows (pixels, or rows of the matrix) and columns are cut into blocks; a task
 * takes a run of blocks, builds the table of tap pointers for its rows and calls the kernel. No sum is ever split, so
 * any number of tasks gives the same bytes. */
#include "engine/ops/linear_impl.h"

#include <string.h>

#define ROW_BLOCK     96 /* rows a kernel call gets: a multiple of every kernel's mr that is in use (12, 6, 4) */
#define MIN_TASK_MACS (1u << 18) /* below this a task costs more than it saves */

struct run {
    const struct qd_linear *l;
    const struct qd_linear_call *call;
    size_t images, rows, row_blocks, col_blocks, col_step, tasks; /* rows: of one image */
    int64_t begin[QD_MAX_SPATIAL], out_dims[QD_MAX_SPATIAL];
    bool direct; /* rows of A lie in the input as they are */
    size_t element_bytes;
    float *scale;                /* [groups * n] Sx * Sw; NULL in FP32 */
    int32_t *acc_init;           /* [groups * n] */
    void *padding;               /* one pixel of zero points */
    struct qd_observation *seen; /* [tasks] */
    unsigned char *task_scratch;
    size_t task_bytes;
};

static size_t table_bytes(const struct qd_linear *l)
{
    return qd_align_up(ROW_BLOCK * (size_t)l->geometry.taps * sizeof(void *));
}

static size_t kernel_scratch(const struct qd_linear *l)
{
    return qd_align_up(l->int8 ? l->kernels->gemm_q8.scratch_bytes(l->k) : l->kernels->gemm_f32.scratch_bytes(l->k));
}

static size_t task_limit(unsigned threads) { return threads > 1 ? 4 * (size_t)threads : 1; }

static size_t fixed_bytes(const struct qd_linear *l)
{
    size_t outputs = l->groups * l->n, element = l->int8 ? 1 : sizeof(float);
    return qd_align_up(outputs * sizeof(float)) + qd_align_up(outputs * sizeof(int32_t)) +
           qd_align_up(l->groups * l->channels * element);
}

size_t qd_linear_scratch_bytes(const struct qd_linear *l, const struct qd_shape *in, unsigned threads)
{
    (void)in;
    size_t per_task = table_bytes(l) + kernel_scratch(l) + qd_align_up(sizeof(struct qd_observation));
    return fixed_bytes(l) + task_limit(threads) * per_task;
}

/* Is a convolution's row of A just a pixel? 1x1, stride 1, no padding. */
static bool is_pointwise(const struct qd_linear *l, const struct run *r)
{
    for (int i = 0; i < l->geometry.spatial; i++)
        if (l->geometry.kernel[i] != 1 || l->geometry.stride[i] != 1 || r->begin[i] != 0 ||
            r->out_dims[i] != r->call->in->shape.dims[2 + i])
            return false;
    return true;
}

/* Tap pointers of output pixels [first, first + count) of one image. */
static void fill_table(const struct run *r, const unsigned char *image, size_t first, size_t count, const void **table)
{
    const struct qd_geometry *g = &r->l->geometry;
    const int64_t *size = r->call->in->shape.dims + 2;
    size_t pixel_bytes = r->l->groups * r->l->channels * r->element_bytes;
    for (size_t i = 0; i < count; i++) {
        int64_t origin[QD_MAX_SPATIAL], rest = (int64_t)(first + i);
        for (int d = g->spatial - 1; d >= 0; d--) {
            origin[d] = rest % r->out_dims[d] * g->stride[d] - r->begin[d];
            rest /= r->out_dims[d];
        }
        for (int64_t t = 0; t < g->taps; t++) {
            int64_t at[QD_MAX_SPATIAL], index = 0;
            bool inside = true;
            rest = t;
            for (int d = g->spatial - 1; d >= 0; d--) {
                at[d] = origin[d] + rest % g->kernel[d] * g->dilation[d];
                rest /= g->kernel[d];
                inside &= at[d] >= 0 && at[d] < size[d];
            }
            for (int d = 0; d < g->spatial; d++)
                index = index * size[d] + at[d];
            table[(int64_t)i * g->taps + t] = inside ? image + (size_t)index * pixel_bytes : r->padding;
        }
    }
}

static struct qd_rows rows_of(const struct run *r, size_t image, size_t first, size_t count, const void **table)
{
    const struct qd_linear *l = r->l;
    size_t row_bytes = l->groups * l->channels * r->element_bytes, group_bytes = l->channels * r->element_bytes;
    if (r->direct)
        return (struct qd_rows){.base = (const unsigned char *)r->call->in->data +
                                        (image * r->rows + first) * row_bytes,
                                .stride_bytes = row_bytes,
                                .taps = 1,
                                .tap_bytes = group_bytes};
    size_t pixels = (size_t)qd_shape_span(&r->call->in->shape, 2, r->call->in->shape.rank);
    fill_table(r, (const unsigned char *)r->call->in->data + image * pixels * row_bytes, first, count, table);
    return (struct qd_rows){.table = table, .taps = (size_t)l->geometry.taps, .tap_bytes = group_bytes};
}

/* One block of rows and columns, all groups. */
static void run_block(const struct run *r, size_t block, unsigned char *scratch, struct qd_observation *seen)
{
    const struct qd_linear *l = r->l;
    const struct qd_linear_call *call = r->call;
    size_t col_block = block % r->col_blocks, row_block = block / r->col_blocks % r->row_blocks;
    size_t image = block / r->col_blocks / r->row_blocks, first = row_block * ROW_BLOCK, outputs = l->groups * l->n;
    size_t count = r->rows - first < ROW_BLOCK ? r->rows - first : ROW_BLOCK;
    size_t col_begin = col_block * r->col_step,
           col_end = col_begin + r->col_step < l->n ? col_begin + r->col_step : l->n;
    bool u8 = call->out->dtype == QD_U8;
    unsigned char *out = (unsigned char *)call->out->data +
                         (image * r->rows + first) * outputs * (u8 ? 1 : sizeof(float));
    struct qd_gemm_args args = {.m = count,
                                .n = l->n,
                                .k = l->k,
                                .row_end = count,
                                .col_begin = col_begin,
                                .col_end = col_end,
                                .a = rows_of(r, image, first, count, (const void **)scratch),
                                .scratch = scratch + table_bytes(l)};
    if (r->direct)
        args.a.table = NULL;
    for (size_t g = 0; g < l->groups; g++) {
        size_t at = g * l->n;
        args.b = l->packed + g * l->group_bytes;
        if (r->direct)
            args.a.base = (const unsigned char *)args.a.base + (g ? args.a.tap_bytes : 0);
        else
            args.a.offset_bytes = g * args.a.tap_bytes;
        args.epilogue = (struct qd_epilogue){.acc_init = r->acc_init + at,
                                             .scale = r->scale ? r->scale + at : NULL,
                                             .bias = l->bias ? l->bias + at : NULL,
                                             .act = l->act,
                                             .out = out + at * (u8 ? 1 : sizeof(float)),
                                             .out_stride_elems = outputs,
                                             .quantize = u8 ? call->out_qp : NULL,
                                             .observe = seen};
        if (l->int8)
            l->kernels->gemm_q8.run(&args);
        else
            l->kernels->gemm_f32.run(&args);
    }
}

static void run_task(void *ctx, size_t task)
{
    const struct run *r = ctx;
    size_t blocks = r->images * r->row_blocks * r->col_blocks;
    size_t from = task * blocks / r->tasks, to = (task + 1) * blocks / r->tasks;
    unsigned char *scratch = r->task_scratch + task * r->task_bytes;
    struct qd_observation seen = qd_observation_empty();
    for (size_t b = from; b < to; b++)
        run_block(r, b, scratch, r->call->observe ? &seen : NULL);
    r->seen[task] = seen;
}

/* Rows, columns and how they are cut: more columns only when the rows alone can't feed the threads. */
static void cut(struct run *r, unsigned threads)
{
    const struct qd_linear *l = r->l;
    size_t nr = l->int8 ? l->kernels->gemm_q8.nr : l->kernels->gemm_f32.nr, limit = task_limit(threads);
    uint64_t macs = (uint64_t)r->images * r->rows * l->groups * l->n * l->k;
    r->row_blocks = (r->rows + ROW_BLOCK - 1) / ROW_BLOCK;
    r->col_step = l->n;
    r->tasks = macs / MIN_TASK_MACS < limit ? (size_t)(macs / MIN_TASK_MACS) + 1 : limit;
    if (r->images * r->row_blocks < r->tasks) {
        size_t panels = (l->n + nr - 1) / nr, parts = r->tasks < panels ? r->tasks : panels;
        r->col_step = (panels + parts - 1) / parts * nr;
    }
    r->col_blocks = (l->n + r->col_step - 1) / r->col_step;
    size_t blocks = r->images * r->row_blocks * r->col_blocks;
    r->tasks = r->tasks < blocks ? r->tasks : blocks;
}

/* What depends on the input's scale: Sx * Sw, -Zx * sum w, a pixel of zero points. Returns what is left of the scratch.
 */
static unsigned char *prepare(struct run *r, unsigned char *scratch)
{
    const struct qd_linear *l = r->l;
    size_t outputs = l->groups * l->n, pixel_bytes = l->groups * l->channels * r->element_bytes;
    r->scale = (float *)scratch;
    scratch += qd_align_up(outputs * sizeof(float));
    r->acc_init = (int32_t *)scratch;
    scratch += qd_align_up(outputs * sizeof(int32_t));
    r->padding = scratch;
    scratch += qd_align_up(pixel_bytes);
    if (!l->int8) {
        r->scale = NULL;
        memset(r->padding, 0, pixel_bytes);
        return scratch;
    }
    for (size_t i = 0; i < outputs; i++) {
        r->scale[i] = r->call->in_qp->scale * l->weight_scale[i];
        r->acc_init[i] = -r->call->in_qp->zero_point * l->sums[i];
    }
    memset(r->padding, r->call->in_qp->zero_point, pixel_bytes);
    return scratch;
}

void qd_linear_run(const struct qd_linear *l, const struct qd_linear_call *call)
{
    struct run r = {.l = l, .call = call, .element_bytes = l->int8 ? 1 : sizeof(float), .direct = true};
    const struct qd_shape *in = &call->in->shape;
    if (l->conv) {
        if (!qd_geometry_resolve(&l->geometry, in, r.begin, r.out_dims))
            return; /* refused when the shape was inferred */
        r.images = (size_t)in->dims[0];
        r.rows = (size_t)qd_shape_span(&call->out->shape, 2, call->out->shape.rank);
        r.direct = is_pointwise(l, &r);
    } else {
        r.images = 1;
        r.rows = (size_t)qd_shape_span(in, 0, in->rank - 1);
    }
    if (r.images == 0 || r.rows == 0)
        return;
    cut(&r, call->parallel->threads);
    unsigned char *scratch = prepare(&r, call->scratch);
    r.seen = (struct qd_observation *)scratch;
    r.task_scratch = scratch + task_limit(call->parallel->threads) * qd_align_up(sizeof *r.seen);
    r.task_bytes = table_bytes(l) + kernel_scratch(l);
    call->parallel->run(call->parallel, r.tasks, run_task, &r);
    for (size_t i = 0; call->observe && i < r.tasks; i++)
        qd_observation_merge(call->observe, &r.seen[i]);
}
