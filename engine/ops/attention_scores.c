/* The standard's Attention (opset 23 and later) in FP32: grouped heads, masks, causal and sliding windows, caches.
 * Heads are read where they lie, in either layout; scores live in scratch, one head at a time. Not for the attention
 * that the plan recognises in exporters' graphs and runs in INT8 (attention.c). */
#include "engine/ops/product.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum input { IN_Q, IN_K, IN_V, IN_MASK, IN_PAST_K, IN_PAST_V, IN_VALID };
enum output { OUT_Y, OUT_PRESENT_K, OUT_PRESENT_V, OUT_SCORES };
enum scores_mode { SCORES_RAW, SCORES_CAPPED, SCORES_BIASED, SCORES_SOFTMAX };

struct attributes {
    int64_t q_heads, kv_heads, mode, left, right; /* heads: 0 = not given; windows: -1 = unbounded */
    float scale, softcap;                         /* scale: 0 = 1 / sqrt(head size) */
    bool causal;
};

static enum qd_status attention_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                        struct qd_error *error)
{
    struct attributes *a = QD_PREP_NEW(arena, struct attributes);
    if (!a)
        return qd_op_no_memory(node, error);
    *a = (struct attributes){.q_heads = qd_attr_int(node, "q_num_heads", 0),
                             .kv_heads = qd_attr_int(node, "kv_num_heads", 0),
                             .mode = qd_attr_int(node, "qk_matmul_output_mode", SCORES_RAW),
                             .left = qd_attr_int(node, "left_window_size", -1),
                             .right = qd_attr_int(node, "right_window_size", -1),
                             .scale = qd_attr_float(node, "scale", 0),
                             .softcap = qd_attr_float(node, "softcap", 0),
                             .causal = qd_attr_int(node, "is_causal", 0) != 0};
    if (a->mode < SCORES_RAW || a->mode > SCORES_SOFTMAX)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "qk_matmul_output_mode must lie in 0..3");
    if (a->left < -1 || a->right < -1)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "window sizes must be -1 or more");
    if (a->q_heads < 0 || a->kv_heads < 0)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "numbers of heads must be positive");
    *prep = a;
    return QD_OK;
}

/* ------------------------------------------------------------------ sizes */

/* Element (batch, head, row, i) of Q, K, V or Y: at the sum of index times stride, i next to each other. */
struct heads {
    int64_t batch, head, row;
};

struct sizes {
    int64_t batch, q_heads, kv_heads, q, kv, past, total; /* rows of queries, of new keys, of cached keys, of both */
    int64_t size, v_size;                                 /* of a head */
    bool joined;                                          /* heads side by side: [batch, row, head * size] */
};

static struct heads heads_of(const struct sizes *s, int64_t heads, int64_t rows, int64_t size)
{
    if (s->joined)
        return (struct heads){rows * heads * size, size, heads * size};
    return (struct heads){heads * rows * size, rows * size, size};
}

/* Sizes that follow from Q, K and V. False when they don't fit together. */
static bool sizes_of(const struct qd_call *call, struct sizes *s)
{
    const struct attributes *a = call->prep;
    const int64_t *q = call->in[IN_Q].shape.dims, *k = call->in[IN_K].shape.dims, *v = call->in[IN_V].shape.dims;
    const int rank = call->in[IN_Q].shape.rank;
    if ((rank != 3 && rank != 4) || call->in[IN_K].shape.rank != rank || call->in[IN_V].shape.rank != rank)
        return false;
    *s = (struct sizes){.joined = rank == 3, .batch = q[0]};
    s->q_heads = rank == 4 ? q[1] : a->q_heads;
    s->kv_heads = rank == 4 ? k[1] : a->kv_heads;
    if (s->q_heads < 1 || s->kv_heads < 1 || s->q_heads % s->kv_heads != 0 || k[0] != q[0] || v[0] != q[0])
        return false;
    s->q = q[rank - 2];
    s->kv = k[rank - 2];
    if (v[rank - 2] != s->kv || (rank == 4 && v[1] != s->kv_heads))
        return false;
    if (rank == 3 && (q[2] % s->q_heads || k[2] % s->kv_heads || v[2] % s->kv_heads))
        return false;
    s->size = rank == 4 ? q[3] : q[2] / s->q_heads;
    s->v_size = rank == 4 ? v[3] : v[2] / s->kv_heads;
    s->past = qd_op_has(call, IN_PAST_K) ? call->in[IN_PAST_K].shape.dims[2] : 0;
    s->total = s->past + s->kv;
    return s->size == (rank == 4 ? k[3] : k[2] / s->kv_heads);
}

/* A cache must be [batch, kv heads, rows, size]. */
static bool is_cache(const struct qd_tensor *t, const struct sizes *s, int64_t size)
{
    const int64_t *d = t->shape.dims;
    return t->shape.rank == 4 && d[0] == s->batch && d[1] == s->kv_heads && d[3] == size;
}

/* The mask, right-aligned with [batch, heads, q, total]; its last dimension may be shorter. */
static bool mask_fits(const struct qd_shape *mask, const struct sizes *s)
{
    const int64_t full[4] = {s->batch, s->q_heads, s->q, s->total};
    if (mask->rank < 1 || mask->rank > 4 || mask->dims[mask->rank - 1] > s->total)
        return false;
    for (int i = 0; i + 1 < mask->rank; i++)
        if (mask->dims[i] != 1 && mask->dims[i] != full[4 - mask->rank + i])
            return false;
    return true;
}

static enum qd_status check_inputs(const struct qd_call *call, const struct sizes *s, struct qd_error *error)
{
    static const char caches[] = "past_key and past_value come together, as [batch, heads, rows, size]";
    const bool past = qd_op_has(call, IN_PAST_K);
    if (past != qd_op_has(call, IN_PAST_V))
        return qd_op_fail(call, error, QD_ERR_INVALID, caches);
    if (past && (!is_cache(&call->in[IN_PAST_K], s, s->size) || !is_cache(&call->in[IN_PAST_V], s, s->v_size) ||
                 call->in[IN_PAST_V].shape.dims[2] != s->past))
        return qd_op_fail(call, error, QD_ERR_SHAPE, caches);
    if (qd_op_has(call, IN_MASK) && !mask_fits(&call->in[IN_MASK].shape, s))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the mask can't be broadcast to the scores");
    if (!qd_op_has(call, IN_VALID))
        return QD_OK;
    if (past)
        return qd_op_fail(call, error, QD_ERR_INVALID, "nonpad_kv_seqlen and past_key exclude each other");
    if (call->in[IN_VALID].shape.rank != 1 || call->in[IN_VALID].shape.dims[0] != s->batch)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "nonpad_kv_seqlen must have an element a batch");
    return QD_OK;
}

static enum qd_status check_types(const struct qd_call *call, struct qd_error *error)
{
    static const unsigned types[] = {
        [IN_Q] = QD_TYPES_FLOAT,      [IN_K] = QD_TYPES_FLOAT,
        [IN_V] = QD_TYPES_FLOAT,      [IN_MASK] = QD_TYPES_FLOAT | QD_BIT(QD_BOOL),
        [IN_PAST_K] = QD_TYPES_FLOAT, [IN_PAST_V] = QD_TYPES_FLOAT,
        [IN_VALID] = QD_BIT(QD_I64),
    };
    enum qd_status status = qd_op_inputs(call, 3, 7, error);
    for (int i = 0; i < call->in_count && !status; i++)
        status = qd_op_types(call, i, types[i], error);
    return status;
}

static enum qd_status attention_infer(const struct qd_call *call, struct qd_error *error)
{
    struct sizes s;
    enum qd_status status = check_types(call, error);
    if (status)
        return status;
    if (qd_op_has(call, IN_PAST_K) && call->in[IN_PAST_K].shape.rank != 4)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "past_key must have rank 4");
    if (!sizes_of(call, &s))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the shapes of Q, K and V don't fit together");
    if ((status = check_inputs(call, &s, error)))
        return status;
    const struct qd_shape shapes[] = {
        [OUT_Y] = s.joined ? (struct qd_shape){.rank = 3, .dims = {s.batch, s.q, s.q_heads * s.v_size}}
                           : (struct qd_shape){.rank = 4, .dims = {s.batch, s.q_heads, s.q, s.v_size}},
        [OUT_PRESENT_K] = {.rank = 4, .dims = {s.batch, s.kv_heads, s.total, s.size}},
        [OUT_PRESENT_V] = {.rank = 4, .dims = {s.batch, s.kv_heads, s.total, s.v_size}},
        [OUT_SCORES] = {.rank = 4, .dims = {s.batch, s.q_heads, s.q, s.total}},
    };
    for (int i = 0; i <= OUT_SCORES && !status; i++)
        if (qd_op_wants(call, i))
            status = qd_op_out(call, i, QD_F32, &shapes[i], error);
    return status;
}

/* ------------------------------------------------------------------ scratch */

/* A cache that has to be joined without an output to hold it. */
static size_t joined_bytes(const struct qd_call *call, const struct sizes *s, int past, int present, int64_t size)
{
    return qd_op_has(call, past) && !qd_op_wants(call, present)
               ? qd_align_up((size_t)(s->batch * s->kv_heads * s->total * size) * sizeof(float))
               : 0;
}

static size_t head_bytes(const struct qd_call *call, const struct sizes *s)
{
    size_t keys = qd_product_bytes(call->kernels, (size_t)s->total, (size_t)s->size),
           values = qd_product_bytes(call->kernels, (size_t)s->v_size, (size_t)s->total);
    return qd_align_up((size_t)(s->q * s->total) * sizeof(float)) + (keys > values ? keys : values);
}

static size_t attention_scratch(const struct qd_call *call)
{
    struct sizes s;
    if (!sizes_of(call, &s))
        return 0; /* refused when the shape was inferred */
    return joined_bytes(call, &s, IN_PAST_K, OUT_PRESENT_K, s.size) +
           joined_bytes(call, &s, IN_PAST_V, OUT_PRESENT_V, s.v_size) + qd_op_threads(call) * head_bytes(call, &s);
}

/* ------------------------------------------------------------------ running */

struct work {
    const struct qd_call *call;
    struct sizes s;
    const float *k, *v;
    struct heads q_at, k_at, v_at, y_at;
    float scale;
    char *scratch;
    size_t bytes;
    int64_t tasks;
};

/* Keys or values as they are used: the input, or past and input one after the other. Moves *scratch. */
static const float *joined(const struct work *w, int input, int past, int present, int64_t size, struct heads *at,
                           char **scratch)
{
    const struct qd_call *call = w->call;
    const struct sizes *s = &w->s;
    const float *in = call->in[input].data;
    *at = heads_of(s, s->kv_heads, s->kv, size);
    if (!qd_op_has(call, past) && !qd_op_wants(call, present))
        return in;
    float *to = qd_op_wants(call, present) ? call->out[present].data : (void *)*scratch;
    *scratch += joined_bytes(call, s, past, present, size);
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t h = 0; h < s->kv_heads; h++) {
            float *head = to + (b * s->kv_heads + h) * s->total * size;
            if (s->past)
                qd_op_copy(head, (const float *)call->in[past].data + (b * s->kv_heads + h) * s->past * size,
                           (size_t)(s->past * size) * sizeof *head);
            for (int64_t r = 0; r < s->kv; r++)
                qd_op_copy(head + (s->past + r) * size, in + b * at->batch + h * at->head + r * at->row,
                           (size_t)size * sizeof *head);
        }
    *at = (struct heads){s->kv_heads * s->total * size, s->total * size, size};
    return to;
}

/* Keys [from, to) that query i of a batch may see, the mask aside. */
static void window(const struct work *w, int64_t batch, int64_t i, int64_t *from, int64_t *to)
{
    const struct attributes *a = w->call->prep;
    const struct sizes *s = &w->s;
    const bool has_valid = qd_op_has(w->call, IN_VALID);
    const int64_t valid = has_valid ? ((const int64_t *)w->call->in[IN_VALID].data)[batch] : s->total;
    const int64_t last = valid < 0 ? 0 : valid < s->total ? valid : s->total;
    const int64_t at = i + (has_valid ? last - s->q : s->past);
    *from = a->left >= 0 && at - a->left > 0 ? at - a->left : 0;
    *to = last;
    if (a->causal && at + 1 < *to)
        *to = at + 1;
    if (a->right >= 0 && a->right < s->total && at + a->right + 1 < *to)
        *to = at + a->right + 1;
    *to = *to > 0 ? *to : 0;
    *from = *from < *to ? *from : *to;
}

/* The mask's row for a query; sets its length. NULL without a mask. */
static const char *mask_row(const struct work *w, int64_t batch, int64_t head, int64_t i, int64_t *length)
{
    const struct qd_tensor *mask = &w->call->in[IN_MASK];
    const int64_t index[4] = {batch, head, i, 0};
    int64_t at = 0;
    if (!qd_op_has(w->call, IN_MASK))
        return NULL;
    const int rank = mask->shape.rank;
    *length = mask->shape.dims[rank - 1];
    for (int d = 0; d + 1 < rank; d++)
        at = at * mask->shape.dims[d] + (mask->shape.dims[d] == 1 ? 0 : index[4 - rank + d]);
    return (const char *)mask->data + (size_t)(at * *length) * (mask->dtype == QD_BOOL ? 1 : sizeof(float));
}

/* Adds masks to a row of scores; false when no key is left. */
static bool add_bias(const struct work *w, int64_t batch, int64_t head, int64_t i, float *row)
{
    int64_t from, to, length = w->s.total;
    const char *mask = mask_row(w, batch, head, i, &length);
    const bool flags = mask && w->call->in[IN_MASK].dtype == QD_BOOL;
    bool any = false;
    window(w, batch, i, &from, &to);
    for (int64_t j = 0; j < w->s.total; j++) {
        float bias = j < from || j >= to || j >= length ? -INFINITY : 0;
        if (mask && bias == 0)
            bias = flags ? (((const bool *)mask)[j] ? 0 : -INFINITY) : ((const float *)(const void *)mask)[j];
        any |= bias != -INFINITY;
        row[j] = row[j] + bias;
    }
    return any;
}

static void cap(const struct work *w, float *scores)
{
    const float softcap = ((const struct attributes *)w->call->prep)->softcap;
    const int64_t n = w->s.q * w->s.total;
    for (int64_t i = 0; i < n; i++)
        scores[i] *= w->scale;
    for (int64_t i = 0; i < n && softcap > 0; i++)
        scores[i] = softcap * tanhf(scores[i] / softcap);
}

static void run_head(const struct work *w, int64_t batch, int64_t head, char *scratch)
{
    const struct qd_call *call = w->call;
    const struct attributes *a = call->prep;
    const struct sizes *s = &w->s;
    const int64_t shared = head / (s->q_heads / s->kv_heads);
    const size_t score_bytes = (size_t)(s->q * s->total) * sizeof(float);
    float *scores = (float *)(void *)scratch, *shown = NULL;
    scratch += qd_align_up(score_bytes);
    if (qd_op_wants(call, OUT_SCORES))
        shown = (float *)call->out[OUT_SCORES].data + (batch * s->q_heads + head) * s->q * s->total;
    qd_product_run(
        &(struct qd_product){.m = (size_t)s->q,
                             .n = (size_t)s->total,
                             .k = (size_t)s->size,
                             .a = (const float *)call->in[IN_Q].data + batch * w->q_at.batch + head * w->q_at.head,
                             .a_stride = (size_t)w->q_at.row,
                             .b = w->k + batch * w->k_at.batch + shared * w->k_at.head,
                             .b_depth = 1,
                             .b_column = (size_t)w->k_at.row,
                             .out = scores,
                             .out_stride = (size_t)s->total},
        call->kernels, scratch);
    cap(w, scores);
    if (shown && (a->mode == SCORES_RAW || a->mode == SCORES_CAPPED))
        qd_op_copy(shown, scores, score_bytes);
    for (int64_t i = 0; i < s->q; i++) {
        float *row = scores + i * s->total;
        bool any = add_bias(w, batch, head, i, row);
        if (shown && a->mode == SCORES_BIASED)
            qd_op_copy(shown + i * s->total, row, (size_t)s->total * sizeof *row);
        if (any)
            call->kernels->softmax(row, 1, (size_t)s->total, false, row);
        else
            memset(row, 0, (size_t)s->total * sizeof *row);
    }
    if (shown && a->mode == SCORES_SOFTMAX)
        qd_op_copy(shown, scores, score_bytes);
    qd_product_run(
        &(struct qd_product){.m = (size_t)s->q,
                             .n = (size_t)s->v_size,
                             .k = (size_t)s->total,
                             .a = scores,
                             .a_stride = (size_t)s->total,
                             .b = w->v + batch * w->v_at.batch + shared * w->v_at.head,
                             .b_depth = (size_t)w->v_at.row,
                             .b_column = 1,
                             .out = (float *)call->out[OUT_Y].data + batch * w->y_at.batch + head * w->y_at.head,
                             .out_stride = (size_t)w->y_at.row},
        call->kernels, scratch);
}

static void attention_tasks(void *ctx, int64_t begin, int64_t end)
{
    const struct work *w = ctx;
    for (int64_t task = begin; task < end; task++)
        for (int64_t i = task; i < w->s.batch * w->s.q_heads; i += w->tasks)
            run_head(w, i / w->s.q_heads, i % w->s.q_heads, w->scratch + (size_t)task * w->bytes);
}

static enum qd_status attention_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct attributes *a = call->prep;
    struct work w = {.call = call, .tasks = qd_op_threads(call)};
    char *scratch = call->scratch;
    if (!sizes_of(call, &w.s))
        return QD_OK; /* refused when the shape was inferred */
    w.k = joined(&w, IN_K, IN_PAST_K, OUT_PRESENT_K, w.s.size, &w.k_at, &scratch);
    w.v = joined(&w, IN_V, IN_PAST_V, OUT_PRESENT_V, w.s.v_size, &w.v_at, &scratch);
    w.q_at = heads_of(&w.s, w.s.q_heads, w.s.q, w.s.size);
    w.y_at = heads_of(&w.s, w.s.q_heads, w.s.q, w.s.v_size);
    w.scale = a->scale != 0 ? a->scale : 1 / sqrtf((float)w.s.size);
    w.scratch = scratch;
    w.bytes = head_bytes(call, &w.s);
    qd_op_split(call, w.tasks, 1, attention_tasks, &w);
    return QD_OK;
}

const struct qd_op qd_op_attention_scores = {
    .prepare = attention_prepare, .infer = attention_infer, .scratch = attention_scratch, .run = attention_run};
