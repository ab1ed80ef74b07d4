/* Attention, computed: K and V of every head are packed once, then blocks of queries go through scores, exponentials
 * and the product with V while they are in the cache; the division by the row's sum comes last. In integers, K's zero
 * point adds the same to all scores of a row, which a softmax does not see; V's adds the same to all rows of a column.
 * By row, queries become integers with a scale and a zero point each, keys symmetric ones with a scale each: (7b).
 * Every result depends on its own row only, so blocks, threads and batch change nothing. */
#include "engine/ops/attention_impl.h"

#include <string.h>

enum { ROWS_AT_ONCE = 64 }; /* of keys that are quantized by row */

struct work {
    const struct qd_call *call;
    struct attention a;
    struct attention_memory mem;
    const void *data[3]; /* of Q, K, V: bytes when `integer`, else floats */
    float *score_scale;
    int32_t *no_start; /* zeros, for the product with V */
    char *heads, *tasks;
    int64_t task_count, blocks; /* of rows, a head */
    bool mask_repeats;          /* its rows are all alike */
};

/* The scratch of one task. */
struct block {
    char *scores, *weights; /* integer weights: all high bytes, then all low ones */
    float *result, *factor;
    uint8_t *bytes;
    void *gemm;
    uint8_t *queries; /* by row */
    struct qd_row_scale *query_scales;
    struct qd_observation *seen;
};

static struct block block_of(const struct work *w, int64_t task)
{
    const struct attention_memory *m = &w->mem;
    char *at = w->tasks + (size_t)task * m->task_bytes;
    struct block b = {.seen = (struct qd_observation *)(void *)at};
    size_t dv = (size_t)w->a.dv;
    b.scores = at + qd_align_up(sizeof *b.seen);
    b.weights = w->a.integer ? b.scores + m->rows * m->score_bytes : b.scores;
    at = b.scores + m->block_bytes;
    b.result = (float *)(void *)at;
    b.bytes = (uint8_t *)at + qd_align_up(2 * m->rows * dv * sizeof(float));
    b.factor = (float *)(void *)(b.bytes + qd_align_up(m->rows * dv));
    b.gemm = (char *)b.factor + qd_align_up(m->rows * sizeof(float));
    b.queries = (uint8_t *)b.gemm + m->gemm_bytes;
    b.query_scales = (struct qd_row_scale *)(void *)(b.queries + qd_align_up(m->rows * (size_t)w->a.d));
    return b;
}

static int64_t side_at(const struct attention_side *side, int64_t batch, int64_t head)
{
    return side->offset + batch * side->batch_stride + head * side->head_stride;
}

/* ------------------------------------------------------------------ packing K and V */

static void fill(float *x, int64_t n, float value)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = value;
}

/* rows x cols bytes as signed ones: less 128. Rows from `rows` to `whole` are zero. */
static void make_signed(const uint8_t *from, int64_t stride, size_t rows, size_t cols, size_t whole, int8_t *to)
{
    for (size_t i = 0; i < rows; i++, from += stride, to += cols) {
        size_t j = 0;
        for (uint64_t eight; j + 8 <= cols; j += 8) {
            memcpy(&eight, from + j, 8);
            eight ^= UINT64_C(0x8080808080808080);
            memcpy(to + j, &eight, 8);
        }
        for (; j < cols; j++)
            to[j] = (int8_t)(from[j] ^ 0x80);
    }
    memset(to, 0, (whole - rows) * cols);
}

/* Of a packed head: for the high bytes of the weights, then for the low ones. */
static float *value_scale(const struct work *w, const char *packed)
{
    return (float *)(uintptr_t)(packed + w->mem.k_bytes + w->mem.v_bytes + w->mem.start_bytes);
}

/* By row, of a packed head: of its keys, times the scale of the scores. */
static float *key_scale(const struct work *w, const char *packed)
{
    return (float *)(uintptr_t)(packed + w->mem.head_bytes - w->mem.key_scale_bytes);
}

/* K of one head as signed bytes, rows of d; by row with their scales, too. */
static void pack_keys(const struct work *w, int64_t batch, int64_t head, int8_t *to, float *scale)
{
    const struct attention *a = &w->a;
    const size_t n = (size_t)a->n, d = (size_t)a->d;
    const int64_t at = side_at(&a->k, batch, head);
    if (!a->by_row) {
        make_signed((const uint8_t *)w->data[1] + at, a->k.row_stride, n, d, n, to);
        return;
    }
    const float *row = (const float *)w->data[1] + at;
    for (size_t j = 0; j < n; j += ROWS_AT_ONCE) {
        struct qd_row_scale own[ROWS_AT_ONCE];
        const size_t rows = n - j < ROWS_AT_ONCE ? n - j : ROWS_AT_ONCE;
        w->call->kernels->quantize_rows_u8(row + (int64_t)j * a->k.row_stride, (size_t)a->k.row_stride, NULL, rows, d,
                                           true, (uint8_t *)to + j * d, own, NULL);
        for (size_t i = 0; i < rows; i++)
            scale[j + i] = a->scale * own[i].scale;
    }
    make_signed((const uint8_t *)to, a->d, n, d, n, to);
}

/* V of one head as signed bytes, rows of dv, and their scales. */
static void pack_values(const struct work *w, int64_t batch, int64_t head, int8_t *to, float *scale)
{
    const struct attention *a = &w->a;
    size_t n = (size_t)a->n, dv = (size_t)a->dv, depth = w->mem.depth;
    int64_t at = side_at(&a->v, batch, head);
    if (w->call->in[2].dtype == QD_U8) {
        make_signed((const uint8_t *)w->data[2] + at, a->v.row_stride, n, dv, depth, to);
        fill(scale, a->dv, w->call->in_qp[2]->scale);
        return;
    }
    w->call->kernels->quantize_columns_s8((const float *)w->data[2] + at, n, (size_t)a->v.row_stride, dv, to, scale);
    memset(to + n * dv, 0, (depth - n) * dv);
}

static void pack_integers(const struct work *w, int64_t batch, int64_t head, char *to, int8_t *room)
{
    const struct attention *a = &w->a;
    const struct qd_gemm_q8 *gemm = &w->call->kernels->gemm_q8;
    size_t n = (size_t)a->n, d = (size_t)a->d, dv = (size_t)a->dv, depth = w->mem.depth;
    int32_t *start = (int32_t *)(void *)(to + w->mem.k_bytes + w->mem.v_bytes);
    pack_keys(w, batch, head, room, key_scale(w, to));
    gemm->pack(n, d, room, d, 1, to, start);
    for (size_t j = 0; !a->by_row && j < n; j++) /* by row they stay sums of columns */
        start[j] *= -w->call->in_qp[0]->zero_point;
    float *scale = value_scale(w, to);
    pack_values(w, batch, head, room, scale + dv);
    for (size_t j = 0; j < dv; j++)
        scale[j] = 256.0f * scale[dv + j];
    gemm->pack(dv, depth, room, 1, dv, to + w->mem.k_bytes, (int32_t *)(void *)(room + qd_align_up(depth * dv)));
}

static void pack_floats(const struct work *w, int64_t batch, int64_t head, char *to)
{
    const struct attention *a = &w->a;
    const struct qd_gemm_f32 *gemm = &w->call->kernels->gemm_f32;
    const float *k = (const float *)w->data[1] + side_at(&a->k, batch, head);
    const float *v = (const float *)w->data[2] + side_at(&a->v, batch, head);
    gemm->pack((size_t)a->n, (size_t)a->d, k, (size_t)a->k.row_stride, 1, NULL, to);
    gemm->pack((size_t)a->dv, (size_t)a->n, v, 1, (size_t)a->v.row_stride, NULL, to + w->mem.k_bytes);
}

static void pack_heads(void *ctx, int64_t begin, int64_t end)
{
    const struct work *w = ctx;
    int64_t items = w->a.batch * w->a.heads;
    for (int64_t task = begin; task < end; task++)
        for (int64_t i = items * task / w->task_count; i < items * (task + 1) / w->task_count; i++) {
            char *to = w->heads + (size_t)i * w->mem.head_bytes;
            if (w->a.integer)
                pack_integers(w, i / w->a.heads, i % w->a.heads, to, (int8_t *)block_of(w, task).scores);
            else
                pack_floats(w, i / w->a.heads, i % w->a.heads, to);
        }
}

/* ------------------------------------------------------------------ a block of rows */

/* Where one block lies. */
struct place {
    int64_t batch, head;
    size_t first, rows;
    const char *packed;
};

static void run_product(const struct work *w, struct qd_gemm_args *args)
{
    if (w->a.integer)
        w->call->kernels->gemm_q8.run(args);
    else
        w->call->kernels->gemm_f32.run(args);
}

/* The queries of a block as bytes, and what the product takes for it. */
static void take_queries(const struct work *w, const struct place *p, const struct block *b, struct qd_gemm_args *args)
{
    const struct attention *a = &w->a;
    const size_t d = (size_t)a->d;
    const float *row = (const float *)w->data[0] + side_at(&a->q, p->batch, p->head) +
                       (int64_t)p->first * a->q.row_stride;
    w->call->kernels->quantize_rows_u8(row, (size_t)a->q.row_stride, NULL, p->rows, d, false, b->queries,
                                       b->query_scales, NULL);
    args->a.base = b->queries;
    args->a.stride_bytes = d;
    args->epilogue.rows = b->query_scales;
    args->epilogue.row_count = p->rows;
    args->epilogue.sums = args->epilogue.acc_init;
    args->epilogue.scale = key_scale(w, p->packed);
}

static void make_scores(const struct work *w, const struct place *p, const struct block *b)
{
    const struct attention *a = &w->a;
    const int64_t *ms = a->mask_strides;
    size_t elem = a->integer ? 1 : sizeof(float);
    const float *mask = a->masked ? w->call->in[3].data : NULL;
    if (mask)
        mask += p->batch * ms[0] + p->head * ms[1] + (int64_t)p->first * ms[2];
    struct qd_gemm_args args = {
        .m = p->rows,
        .n = (size_t)a->n,
        .k = (size_t)a->d,
        .row_end = p->rows,
        .col_end = (size_t)a->n,
        .a = {.base = (const char *)w->data[0] +
                      (size_t)(side_at(&a->q, p->batch, p->head) + (int64_t)p->first * a->q.row_stride) * elem,
              .stride_bytes = (size_t)a->q.row_stride * elem,
              .taps = 1,
              .tap_bytes = (size_t)a->d * elem},
        .b = p->packed,
        .epilogue = {.acc_init = (const int32_t *)(const void *)(p->packed + w->mem.k_bytes + w->mem.v_bytes),
                     .scale = w->score_scale,
                     .out = b->scores,
                     .out_stride_elems = w->mem.score_bytes / sizeof(float)},
        .scratch = b->gemm,
    };
    if (a->by_row)
        take_queries(w, p, b, &args);
    if (mask && ms[3] && (ms[2] == 0 || w->mask_repeats))
        args.epilogue.bias = mask;
    else if (mask && ms[3])
        args.epilogue.residual = (struct qd_residual){.data = mask, .stride_elems = (size_t)ms[2]};
    run_product(w, &args);
    for (size_t i = 0; mask && ms[3] == 0 && i < p->rows; i++) /* one number for a whole row */
        for (int64_t j = 0; j < a->n; j++)
            ((float *)(void *)(b->scores + i * w->mem.score_bytes))[j] += mask[(int64_t)i * ms[2]];
}

/* Exponentials in place of scores; what each row is to be divided by, as a factor. */
static void make_weights(const struct work *w, const struct place *p, const struct block *b)
{
    size_t n = (size_t)w->a.n, stride = w->mem.score_bytes / sizeof(float);
    if (w->a.integer)
        w->call->kernels->exp_rows_u16((const float *)(void *)b->scores, p->rows, n, stride, (uint8_t *)b->weights,
                                       (uint8_t *)b->weights + w->mem.rows * w->mem.weight_bytes, w->mem.weight_bytes,
                                       b->factor);
    else
        w->call->kernels->exp_rows_f32((float *)(void *)b->scores, p->rows, n, stride, b->factor);
    for (size_t i = 0; i < p->rows; i++)
        b->factor[i] = 1.0f / b->factor[i];
}

/* In integers twice: with the high bytes of the weights, then with the low ones, into the second half. */
static void apply_weights(const struct work *w, const struct place *p, const struct block *b)
{
    const struct attention *a = &w->a;
    struct qd_gemm_args args = {
        .m = p->rows,
        .n = (size_t)a->dv,
        .k = w->mem.depth,
        .row_end = p->rows,
        .col_end = (size_t)a->dv,
        .a = {.base = b->weights,
              .stride_bytes = w->mem.weight_bytes,
              .taps = 1,
              .tap_bytes = w->mem.depth * (a->integer ? 1 : sizeof(float))},
        .b = p->packed + w->mem.k_bytes,
        .epilogue = {.acc_init = w->no_start,
                     .scale = a->integer ? value_scale(w, p->packed) : NULL,
                     .out = b->result,
                     .out_stride_elems = (size_t)a->dv},
        .scratch = b->gemm,
    };
    run_product(w, &args);
    if (!a->integer)
        return;
    args.a.base = b->weights + w->mem.rows * w->mem.weight_bytes;
    args.epilogue.scale += a->dv;
    args.epilogue.out = b->result + w->mem.rows * (size_t)a->dv;
    run_product(w, &args);
}

/* Divides, takes V's zero point off, and writes rows of the output. */
static void finish(const struct work *w, const struct place *p, const struct block *b)
{
    const struct attention *a = &w->a;
    const struct qd_call *call = w->call;
    size_t dv = (size_t)a->dv;
    int64_t at = p->batch * a->out_batch + p->head * a->out_head + (int64_t)p->first * a->out_row;
    float shift = a->integer && call->in[2].dtype == QD_U8
                      ? call->in_qp[2]->scale * (float)(128 - call->in_qp[2]->zero_point)
                      : 0.0f;
    float *out = call->out_qp ? b->result : (float *)call->out[0].data + at;
    size_t stride = call->out_qp ? dv : (size_t)a->out_row;
    const struct qd_join join = {.a = b->result,
                                 .b = a->integer ? b->result + w->mem.rows * dv : NULL,
                                 .rows = p->rows,
                                 .n = dv,
                                 .factor = b->factor,
                                 .shift = shift,
                                 .out = out,
                                 .out_stride = stride};
    call->kernels->join_rows(&join);
    if (!call->out_qp)
        return;
    call->kernels->requantize_u8(b->result, p->rows * dv, call->out_qp, b->bytes, call->observe ? b->seen : NULL);
    for (size_t i = 0; i < p->rows; i++)
        memcpy((uint8_t *)call->out[0].data + at + (int64_t)i * a->out_row, b->bytes + i * dv, dv);
}

static void run_blocks(void *ctx, int64_t begin, int64_t end)
{
    const struct work *w = ctx;
    int64_t items = w->a.batch * w->a.heads * w->blocks;
    size_t m = (size_t)w->a.m;
    for (int64_t task = begin; task < end; task++) {
        struct block b = block_of(w, task);
        *b.seen = qd_observation_empty();
        for (int64_t i = items * task / w->task_count; i < items * (task + 1) / w->task_count; i++) {
            int64_t head = i / w->blocks;
            struct place p = {.batch = head / w->a.heads,
                              .head = head % w->a.heads,
                              .first = (size_t)(i % w->blocks) * w->mem.rows,
                              .packed = w->heads + (size_t)head * w->mem.head_bytes};
            p.rows = m - p.first < w->mem.rows ? m - p.first : w->mem.rows;
            make_scores(w, &p, &b);
            make_weights(w, &p, &b);
            apply_weights(w, &p, &b);
            finish(w, &p, &b);
        }
    }
}

/* ------------------------------------------------------------------ the call */

/* Divides the scratch; inputs that came as bytes become floats where not all three did. */
static void lay_out(struct work *w)
{
    const struct qd_call *call = w->call;
    struct attention *a = &w->a;
    char *at = call->scratch;
    float score = a->integer && !a->by_row ? a->scale * call->in_qp[0]->scale * call->in_qp[1]->scale : a->scale;
    w->score_scale = (float *)(void *)at;
    fill(w->score_scale, a->n, score);
    w->no_start = (int32_t *)(void *)(at + qd_align_up((size_t)a->n * sizeof(float)));
    memset(w->no_start, 0, (size_t)a->dv * sizeof(int32_t));
    w->heads = at + w->mem.scale_bytes;
    w->tasks = w->heads + (size_t)(a->batch * a->heads) * w->mem.head_bytes;
    at = w->tasks + (size_t)w->task_count * w->mem.task_bytes;
    for (int i = 0; i < 3; i++) {
        w->data[i] = call->in[i].data;
        if (!w->mem.float_bytes[i])
            continue;
        call->kernels->dequantize_u8(w->data[i], (size_t)qd_tensor_elems(&call->in[i]), call->in_qp[i],
                                     (float *)(void *)at);
        w->data[i] = at;
        at += w->mem.float_bytes[i];
    }
}

/* A mask of which columns exist comes spread over all rows: then one of them, as a bias, is as good. */
static bool mask_repeats(const struct qd_call *call, const struct attention *a)
{
    size_t bytes = (size_t)a->n * sizeof(float);
    const char *at = call->in[3].data;
    if (!a->masked || a->mask_strides[3] == 0 || a->mask_strides[2] == 0)
        return false;
    int64_t rows = qd_tensor_elems(&call->in[3]) / a->n;
    for (int64_t i = 0; i < rows; i++, at += bytes)
        if (i % a->m && memcmp(at, at - bytes, bytes) != 0)
            return false;
    return true;
}

/* Nothing to attend to. */
static void write_zeros(const struct qd_call *call)
{
    size_t elems = (size_t)qd_tensor_elems(&call->out[0]);
    if (call->out_qp)
        memset(call->out[0].data, call->out_qp->zero_point, elems);
    else
        memset(call->out[0].data, 0, elems * sizeof(float));
}

enum qd_status qd_attention_run(const struct qd_call *call, struct qd_error *error)
{
    struct work w = {.call = call, .task_count = qd_op_threads(call)};
    if (!qd_attention_fit(call, &w.a))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the shapes don't fit");
    if (qd_tensor_elems(&call->out[0]) == 0)
        return QD_OK;
    if (w.a.n == 0) {
        write_zeros(call);
        return QD_OK;
    }
    qd_attention_memory(call, &w.a, &w.mem);
    lay_out(&w);
    w.mask_repeats = mask_repeats(call, &w.a);
    w.blocks = (w.a.m - 1) / (int64_t)w.mem.rows + 1;
    qd_op_split(call, w.task_count, 1, pack_heads, &w);
    qd_op_split(call, w.task_count, 1, run_blocks, &w);
    for (int64_t task = 0; call->observe && task < w.task_count; task++)
        qd_observation_merge(call->observe, block_of(&w, task).seen);
    return QD_OK;
}
