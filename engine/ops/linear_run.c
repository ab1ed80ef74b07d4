/* Linear layers: one run. The output's rows (pixels, or rows of the matrix) and columns are cut into blocks; a task
 * takes a run of blocks, finds the input of each (linear_taps.c) and calls the kernel. No sum is ever split, so any
 * number of tasks gives the same bytes. */
#include "engine/ops/linear_impl.h"

#include <string.h>

#define ROW_BLOCK      192     /* most rows a kernel call gets: a multiple of every kernel's mr (32, 12, 6, 4) */
#define ROWS_MIN       48      /* fewer would not pay for reading all weights */
#define LEAST_TASK_NS  6000.0  /* below this a task costs more than it saves */
#define LEAST_SPLIT_NS 15000.0 /* below this waking a thread costs more than it saves */

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static size_t task_limit(unsigned threads) { return threads > 1 ? 2 * (size_t)threads : 1; }

/* Roughly, on one thread: enough to choose between one task and many. */
static double estimate_ns(const struct qd_linear *l, double elements)
{
    static const double INT8_MACS[QD_ISA_COUNT] = {2, 40, 150, 300}; /* a nanosecond */
    double macs_per_ns = l->kind == QD_LINEAR_DEPTHWISE ? 20
                         : l->int8                      ? INT8_MACS[l->kernels->isa]
                         : l->weight_bits               ? 60
                                                        : 40;
    double product = elements * (double)l->depth / macs_per_ns;
    double weights = (double)l->groups * (double)l->group_bytes / 10;
    return (product > weights ? product : weights) + elements * 0.25;
}

/* How rows and columns are cut: more columns only when the rows alone can't feed the threads. */
static void cut(struct qd_linear_run *r, unsigned threads)
{
    const struct qd_linear *l = r->l;
    const struct qd_kernels *k = l->kernels;
    const size_t nr = l->int8 ? k->gemm_q8.nr : l->weight_bits ? k->gemm_q16.nr : k->gemm_f32.nr;
    const size_t mr = l->int8 ? k->gemm_q8.mr : l->weight_bits ? k->gemm_q16.mr : k->gemm_f32.mr;
    double ns = estimate_ns(l, (double)r->images * (double)r->rows * (double)(l->groups * l->n));
    size_t tasks = ns < LEAST_SPLIT_NS ? 1 : least(task_limit(threads), (size_t)(ns / LEAST_TASK_NS));
    size_t share = r->images ? (tasks + r->images - 1) / r->images : 1; /* blocks an image should give */
    r->col_step = l->n;
    if (l->kind == QD_LINEAR_DEPTHWISE) {
        const size_t line = (size_t)r->out_dims[l->geometry.spatial - 1];
        r->row_step = qd_depthwise_block_pixels(l, r->out_dims, share);
        r->width = r->row_step < line ? line : r->rows;
    } else {
        size_t step = (r->rows + share - 1) / share;
        step = step < ROWS_MIN ? ROWS_MIN : step;
        r->row_step = least((step + mr - 1) / mr * mr, ROW_BLOCK);
    }
    r->row_step = least(r->row_step, r->width);
    r->row_blocks = r->rows / r->width * ((r->width + r->row_step - 1) / r->row_step);
    if (l->kind != QD_LINEAR_DEPTHWISE && r->images * r->row_blocks < tasks) {
        size_t panels = (l->n + nr - 1) / nr,
               parts = (tasks + r->images * r->row_blocks - 1) / (r->images * r->row_blocks);
        parts = least(parts, panels);
        r->col_step = (panels + parts - 1) / parts * nr;
    }
    r->col_blocks = (l->n + r->col_step - 1) / r->col_step;
    r->tasks = least(tasks, r->images * r->row_blocks * r->col_blocks);
}

/* Is a convolution's row of A just a pixel? 1x1, stride 1, no padding. */
static bool is_pointwise(const struct qd_linear_run *r)
{
    const struct qd_geometry *g = &r->l->geometry;
    for (int i = 0; i < g->spatial; i++)
        if (g->kernel[i] != 1 || g->stride[i] != 1 || r->begin[i] != 0 ||
            r->out_dims[i] != r->call->in->shape.dims[2 + i])
            return false;
    return true;
}

/* Dimension d of the grid of rows of one image. */
static size_t grid(const struct qd_linear_run *r, int d)
{
    const struct qd_geometry *g = &r->l->geometry;
    int64_t step = qd_linear_has_window(r->l) ? 1 : g->stride[d]; /* tiled: as wide as the kernel */
    return (size_t)((r->out_dims[d] + step - 1) / step);
}

static void count_rows(struct qd_linear_run *r, const struct qd_shape *in)
{
    const struct qd_linear *l = r->l;
    const int last = l->geometry.spatial - 1;
    r->rows = l->kind == QD_LINEAR_ROWS ? (size_t)qd_shape_span(in, 0, in->rank - 1) : 1;
    for (int d = 0; l->kind != QD_LINEAR_ROWS && d <= last; d++)
        r->rows *= grid(r, d);
    r->width = l->kind == QD_LINEAR_TILED || l->kind == QD_LINEAR_TRANSPOSED ? grid(r, last) : r->rows;
}

/* Everything that follows from the input's shape. False when there is nothing to compute. */
static bool shape_run(struct qd_linear_run *r, const struct qd_shape *in, unsigned threads)
{
    const struct qd_linear *l = r->l;
    r->images = l->kind == QD_LINEAR_ROWS ? 1 : (size_t)in->dims[0];
    r->direct = true;
    if (qd_linear_has_window(l)
            ? !qd_geometry_resolve(&l->geometry, in, r->begin, r->out_dims)
            : l->kind != QD_LINEAR_ROWS && !qd_transposed_resolve(&l->geometry, in, r->begin, r->out_dims))
        return false; /* refused when the shape was inferred */
    count_rows(r, in);
    if (r->images == 0 || r->rows == 0)
        return false;
    cut(r, threads);
    if (l->kind == QD_LINEAR_CONV)
        r->direct = is_pointwise(r);
    if (l->kind == QD_LINEAR_TRANSPOSED)
        r->direct = false;
    return true;
}

/* Room for what is copied too much; not a multiple of the cache's way, or rows would drive each other out. */
static size_t line_bytes(const struct qd_linear_run *r)
{
    size_t bytes = (r->l->k * r->element_bytes + 31) / 16 * 16;
    return bytes % 512 ? bytes : bytes + 16;
}

/* Of one task: pointers or copied rows. */
static size_t table_bytes(const struct qd_linear_run *r)
{
    const struct qd_linear *l = r->l;
    if (l->kind == QD_LINEAR_DEPTHWISE)
        return qd_depthwise_table_bytes(r);
    if (r->direct)
        return 0;
    if (l->lines)
        return qd_align_up(r->row_step * line_bytes(r));
    return qd_align_up(r->row_step * (l->k / l->channels) * sizeof(void *));
}

/* Of one task: sums of the rows of A. */
static size_t sums_bytes(const struct qd_linear_run *r)
{
    return r->l->weight_zeros ? qd_align_up(r->row_step * sizeof(int32_t)) : 0;
}

static size_t kernel_scratch(const struct qd_linear *l)
{
    if (l->kind == QD_LINEAR_DEPTHWISE)
        return 0;
    return qd_align_up(l->int8          ? l->kernels->gemm_q8.scratch_bytes(l->k)
                       : l->weight_bits ? l->kernels->gemm_q16.scratch_bytes(l->k)
                                        : l->kernels->gemm_f32.scratch_bytes(l->k));
}

static size_t fixed_bytes(const struct qd_linear *l)
{
    size_t columns = l->groups * l->n, element = qd_linear_element(l);
    return qd_align_up(columns * sizeof(float)) + qd_align_up(columns * sizeof(int32_t)) +
           qd_align_up(l->inputs * element);
}

size_t qd_linear_scratch_bytes(const struct qd_linear *l, const struct qd_shape *in, unsigned threads)
{
    const struct qd_tensor tensor = {.shape = *in};
    const struct qd_linear_call call = {.in = &tensor};
    struct qd_linear_run r = {.l = l, .call = &call, .element_bytes = qd_linear_element(l)};
    if (!shape_run(&r, in, threads))
        return 0;
    return fixed_bytes(l) + r.tasks * (table_bytes(&r) + sums_bytes(&r) + kernel_scratch(l) +
                                       qd_align_up(sizeof(struct qd_observation)));
}

struct qd_epilogue qd_linear_epilogue(const struct qd_linear_run *r, size_t col, size_t at, size_t stride,
                                      struct qd_observation *seen)
{
    const struct qd_linear *l = r->l;
    const struct qd_linear_call *call = r->call;
    const bool u8 = call->out->dtype == QD_U8;
    const float *bias = call->bias ? call->bias : l->bias;
    struct qd_epilogue e = {.acc_init = r->acc_init + col,
                            .scale = r->scale ? r->scale + col : NULL,
                            .bias = bias ? bias + col : NULL,
                            .act = l->act,
                            .by = call->by ? call->by + col : NULL,
                            .out = (unsigned char *)call->out->data + at * (u8 ? 1 : sizeof(float)),
                            .out_stride_elems = stride,
                            .quantize = u8 ? call->out_qp : NULL,
                            .observe = seen};
    if (call->residual) {
        const bool bytes = call->residual->dtype == QD_U8;
        e.residual = (struct qd_residual){.data = (const unsigned char *)call->residual->data +
                                                  at * (bytes ? 1 : sizeof(float)),
                                          .stride_elems = stride,
                                          .qp = bytes ? call->residual_qp : NULL};
    }
    return e;
}

/* Rows of one product that are computed together. */
struct part {
    size_t image, first, count, group;
    size_t element, stride; /* of the output: where the first row goes, and from row to row */
    struct qd_phase phase;  /* transposed */
    int64_t line[QD_MAX_SPATIAL];
};

/* The rows of A. */
static struct qd_rows rows_of(const struct qd_linear_run *r, const struct part *p, unsigned char *table)
{
    const struct qd_linear *l = r->l;
    const size_t pixel_bytes = qd_linear_pixel_bytes(r), tap_bytes = l->channels * r->element_bytes;
    const size_t offset = l->kind == QD_LINEAR_CONV ? p->group * tap_bytes : 0;
    if (r->direct)
        return (struct qd_rows){.base = (const unsigned char *)r->call->in->data +
                                        (p->image * r->rows + p->first) * pixel_bytes + offset,
                                .stride_bytes = pixel_bytes,
                                .taps = 1,
                                .tap_bytes = tap_bytes};
    const unsigned char *pixels = qd_linear_image(r, p->image);
    if (l->lines) {
        qd_taps_lines(r, pixels, p->first, p->count, offset, line_bytes(r), table);
        return (struct qd_rows){
            .base = table, .stride_bytes = line_bytes(r), .taps = 1, .tap_bytes = l->k * r->element_bytes};
    }
    const void **pointers = (const void **)(void *)table;
    if (l->kind == QD_LINEAR_TRANSPOSED)
        qd_phase_table(r, pixels, &p->phase, p->line, p->first % r->width, p->count, pointers);
    else if (p->group == 0) /* all groups see the same pixels */
        qd_taps_table(r, pixels, p->first, p->count, pointers);
    return (struct qd_rows){
        .table = pointers, .taps = l->k / l->channels, .tap_bytes = tap_bytes, .offset_bytes = offset};
}

/* Tiled: each kernel row of an image row is a row of the output. */
static void place_tiled(const struct qd_linear_run *r, struct part *p)
{
    const struct qd_geometry *g = &r->l->geometry;
    const int last = g->spatial - 1;
    int64_t tap = (int64_t)p->group, index = 0, scale = 1;
    for (int d = last - 1; d >= 0; d--) {
        index += (p->line[d] * g->kernel[d] + tap % g->kernel[d]) * scale;
        scale *= r->out_dims[d];
        tap /= g->kernel[d];
    }
    p->stride = r->l->n;
    p->element = ((p->image * (size_t)scale + (size_t)index) * r->width + p->first % r->width) * r->l->n;
}

/* Transposed: pixels of a phase are a stride apart. Phases may be smaller than the largest. */
static void place_phase(const struct qd_linear_run *r, struct part *p)
{
    const struct qd_geometry *g = &r->l->geometry;
    const int last = g->spatial - 1;
    const int64_t first = (int64_t)(p->first % r->width);
    p->phase = qd_phase_of(r, p->group);
    int64_t left = p->phase.count[last] - first, index = (int64_t)p->image;
    for (int d = 0; d < last; d++) {
        left = p->line[d] < p->phase.count[d] ? left : 0;
        index = index * r->out_dims[d] + p->phase.first[d] + p->line[d] * g->stride[d];
    }
    index = index * r->out_dims[last] + p->phase.first[last] + first * g->stride[last];
    p->count = left > 0 ? least(p->count, (size_t)left) : 0;
    p->stride = (size_t)g->stride[last] * r->l->outputs;
    p->element = (size_t)index * r->l->outputs;
}

static void place(const struct qd_linear_run *r, struct part *p)
{
    const struct qd_linear *l = r->l;
    if (l->kind == QD_LINEAR_TILED) {
        place_tiled(r, p);
    } else if (l->kind == QD_LINEAR_TRANSPOSED) {
        place_phase(r, p);
    } else {
        p->stride = l->outputs;
        p->element = (p->image * r->rows + p->first) * l->outputs + p->group * l->n;
    }
}

/* Which rows block number `block` of an image has. */
static struct part part_of(const struct qd_linear_run *r, size_t image, size_t block)
{
    const struct qd_geometry *g = &r->l->geometry;
    const size_t parts = (r->width + r->row_step - 1) / r->row_step, begin = block % parts * r->row_step;
    struct part p = {
        .image = image, .first = block / parts * r->width + begin, .count = least(r->row_step, r->width - begin)};
    size_t line = block / parts;
    for (int d = g->spatial - 2; d >= 0 && r->width != r->rows; d--) {
        p.line[d] = (int64_t)(line % grid(r, d));
        line /= grid(r, d);
    }
    return p;
}

/* One block of rows and columns, all products. */
static void run_block(const struct qd_linear_run *r, size_t block, unsigned char *scratch, struct qd_observation *seen)
{
    const struct qd_linear *l = r->l;
    const size_t col_begin = block % r->col_blocks * r->col_step, row_block = block / r->col_blocks % r->row_blocks;
    struct part part = part_of(r, block / r->col_blocks / r->row_blocks, row_block);
    const size_t count = part.count;
    if (l->kind == QD_LINEAR_DEPTHWISE) {
        qd_depthwise_block(r, part.image, part.first, count, (const void **)(void *)scratch, seen);
        return;
    }
    for (part.group = 0; part.group < l->groups; part.group++) {
        part.count = count;
        place(r, &part);
        if (part.count == 0)
            continue;
        struct qd_gemm_args args = {
            .m = part.count,
            .n = l->n,
            .k = l->k,
            .row_end = part.count,
            .col_begin = col_begin,
            .col_end = least(col_begin + r->col_step, l->n),
            .a = rows_of(r, &part, scratch),
            .b = l->packed + part.group * l->group_bytes,
            .epilogue = qd_linear_epilogue(r, part.group * l->n, part.element, part.stride, seen),
            .scratch = scratch + table_bytes(r) + sums_bytes(r)};
        if (l->weight_zeros) {
            int32_t *sums = (int32_t *)(void *)(scratch + table_bytes(r));
            l->kernels->sum_rows_u8(&args.a, part.count, sums);
            args.epilogue.weight_zeros = l->weight_zeros + part.group * l->n;
            args.epilogue.row_sums = sums;
        }
        if (r->call->rows) {
            args.epilogue.rows = r->call->rows + part.first;
            args.epilogue.row_count = part.count;
            args.epilogue.sums = l->sums;
        }
        if (l->int8)
            l->kernels->gemm_q8.run(&args);
        else if (l->weight_bits)
            l->kernels->gemm_q16.run(&args);
        else
            l->kernels->gemm_f32.run(&args);
    }
}

static void run_task(void *ctx, size_t task)
{
    const struct qd_linear_run *r = ctx;
    size_t blocks = r->images * r->row_blocks * r->col_blocks;
    size_t from = task * blocks / r->tasks, to = (task + 1) * blocks / r->tasks;
    unsigned char *scratch = r->task_scratch + task * r->task_bytes;
    struct qd_observation seen = qd_observation_empty();
    for (size_t b = from; b < to; b++)
        run_block(r, b, scratch, r->call->observe ? &seen : NULL);
    r->seen[task] = seen;
}

/* What depends on the input's scale: Sx * Sw, -Zx * sum w, a pixel of zero points. Returns what is left of the scratch.
 */
static unsigned char *prepare(struct qd_linear_run *r, unsigned char *scratch)
{
    const struct qd_linear *l = r->l;
    size_t columns = l->groups * l->n, pixel_bytes = qd_linear_pixel_bytes(r);
    r->scale = (float *)(void *)scratch;
    scratch += qd_align_up(columns * sizeof(float));
    r->acc_init = (int32_t *)(void *)scratch;
    scratch += qd_align_up(columns * sizeof(int32_t));
    r->padding = scratch;
    scratch += qd_align_up(pixel_bytes);
    if (!l->int8 && !l->weight_bits) {
        r->scale = NULL;
        memset(r->padding, 0, pixel_bytes);
        return scratch;
    }
    if (l->weight_bits) {
        for (size_t i = 0; i < columns; i++)
            r->scale[i] = r->call->in_qp->scale * l->weight_scale[i];
        memset(r->padding, 0, pixel_bytes);
        return scratch;
    }
    if (r->call->rows) {
        memcpy(r->scale, l->weight_scale, columns * sizeof *r->scale);
        return scratch;
    }
    for (size_t i = 0; i < columns; i++) {
        r->scale[i] = r->call->in_qp->scale * l->weight_scale[i];
        r->acc_init[i] = -r->call->in_qp->zero_point * l->sums[i];
    }
    memset(r->padding, r->call->in_qp->zero_point, pixel_bytes);
    return scratch;
}

void qd_linear_run(const struct qd_linear *l, const struct qd_linear_call *call)
{
    struct qd_linear_run r = {.l = l, .call = call, .element_bytes = qd_linear_element(l)};
    if (!shape_run(&r, &call->in->shape, call->parallel->threads))
        return;
    unsigned char *scratch = prepare(&r, call->scratch);
    r.seen = (struct qd_observation *)(void *)scratch;
    r.task_scratch = scratch + r.tasks * qd_align_up(sizeof *r.seen);
    r.task_bytes = table_bytes(&r) + sums_bytes(&r) + kernel_scratch(l);
    call->parallel->run(call->parallel, r.tasks, run_task, &r);
    for (size_t i = 0; call->observe && i < r.tasks; i++)
        qd_observation_merge(call->observe, &r.seen[i]);
}
