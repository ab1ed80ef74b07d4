/* Attention, QAttention and MultiHeadAttention as products, masks and Softmax, in the spelling that the plan's search
 * for attention knows (engine/plan/attention.c). */
#include "engine/plan/contrib_impl.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Query, key and value of three dimensions, heads side by side. */
struct heads {
    int q, k, v;                     /* k and v become all that is attended to, past and new: [B, heads, T, size] */
    int64_t count, size, value_size; /* columns of one head; -1: not known */
    int past_k, past_v;              /* [B, heads, P, size], or QD_NO_VALUE */
    int all_k, all_v;                /* outputs for them, or QD_NO_VALUE */
    bool split;                      /* k and v come with axes for heads */
    int mask, bias;                  /* added to the scores: [B or 1, heads or 1, S or 1, T], or QD_NO_VALUE */
    bool causal;
    float scale; /* 0: one over the root of a head's size */
};

/* [B, S, heads * size] as [B, heads, S, size]. */
static int split_heads(struct qd_rewriter *r, int x, int64_t heads, int64_t size)
{
    int shape = QD_RW_LIST(r, 0, 0, heads, size > 0 ? size : -1);
    int rows = QD_RW(r, "Reshape", QD_RW_NEW, x, shape);
    return qd_rw_transpose(r, rows, (const int64_t[]){0, 2, 1, 3}, 4);
}

static int joined(struct qd_rewriter *r, int past, int now, int out)
{
    if (past == QD_NO_VALUE)
        return out == QD_NO_VALUE ? now : QD_RW(r, "Identity", out, now);
    int all = QD_RW(r, "Concat", out == QD_NO_VALUE ? QD_RW_NEW : out, past, now);
    qd_rw_int(r, "axis", 2);
    return all;
}

static int numbers_below(struct qd_rewriter *r, int list_of_one)
{
    int axes = QD_RW_LIST(r, 0), end = QD_RW(r, "Squeeze", QD_RW_NEW, list_of_one, axes);
    int begin = qd_rw_one_int(r, 0), step = qd_rw_one_int(r, 1);
    return QD_RW(r, "Range", QD_RW_NEW, begin, end, step);
}

/* [S, T] that hides what comes later than a row; rows end where the keys end. */
static int causal_mask(struct qd_rewriter *r, int q, int k)
{
    int rows = qd_rw_size(r, q, -2), columns = qd_rw_size(r, k, -2), axes = QD_RW_LIST(r, 1);
    int before = QD_RW(r, "Sub", QD_RW_NEW, columns, rows);
    int at = QD_RW(r, "Add", QD_RW_NEW, numbers_below(r, rows), before);
    at = QD_RW(r, "Unsqueeze", QD_RW_NEW, at, axes);
    int later = QD_RW(r, "Greater", QD_RW_NEW, numbers_below(r, columns), at);
    int hidden = qd_rw_one_float(r, -FLT_MAX), shown = qd_rw_one_float(r, 0);
    return QD_RW(r, "Where", QD_RW_NEW, later, hidden, shown);
}

static int added(struct qd_rewriter *r, int a, int b)
{
    return a == QD_NO_VALUE ? b : b == QD_NO_VALUE ? a : QD_RW(r, "Add", QD_RW_NEW, a, b);
}

static void write_attention(struct qd_rewriter *r, struct heads *h)
{
    int q = split_heads(r, h->q, h->count, h->size);
    int k = joined(r, h->past_k, h->split ? h->k : split_heads(r, h->k, h->count, h->size), h->all_k);
    int v = joined(r, h->past_v, h->split ? h->v : split_heads(r, h->v, h->count, h->value_size), h->all_v);
    int scale, mask = added(r, h->mask, h->bias);
    if (h->scale != 0 || h->size > 0) {
        scale = qd_rw_one_float(r, h->scale != 0 ? h->scale : 1 / sqrtf((float)h->size));
    } else {
        int size = qd_rw_cast(r, QD_RW_NEW, qd_rw_size(r, q, -1), QD_F32);
        scale = QD_RW(r, "Reciprocal", QD_RW_NEW, QD_RW(r, "Sqrt", QD_RW_NEW, size));
    }
    if (h->causal)
        mask = added(r, mask, causal_mask(r, q, k));
    int turned = qd_rw_transpose(r, k, (const int64_t[]){0, 1, 3, 2}, 4);
    int scores = QD_RW(r, "Mul", QD_RW_NEW, QD_RW(r, "MatMul", QD_RW_NEW, q, turned), scale);
    int weights = QD_RW(r, "Softmax", QD_RW_NEW, added(r, scores, mask));
    qd_rw_int(r, "axis", -1);
    int y = QD_RW(r, "MatMul", QD_RW_NEW, weights, v);
    y = qd_rw_transpose(r, y, (const int64_t[]){0, 2, 1, 3}, 4);
    int shape = QD_RW_LIST(r, 0, 0, h->value_size > 0 ? h->count * h->value_size : -1);
    QD_RW(r, "Reshape", qd_rw_out(r, 0), y, shape);
    h->k = k;
    h->v = v;
}

/* ------------------------------------------------------------------ masks */

/* Where a mask of integers is 0 the filter's value is added. It gets axes until it has four. */
static int mask_scores(struct qd_rewriter *r, int keep, const int64_t *axes, size_t count)
{
    int filter = qd_rw_one_float(r, qd_rw_get_float(r, "mask_filter_value", -10000)), zero = qd_rw_one_float(r, 0);
    int scores = QD_RW(r, "Where", QD_RW_NEW, keep, zero, filter);
    return count ? QD_RW(r, "Unsqueeze", QD_RW_NEW, scores, qd_rw_list(r, axes, count)) : scores;
}

/* Of one dimension: how many keys of each sequence count. Two: [B, T]; three: [B, S, T]; four: [B, 1, S, T]. `like` has
 * B and S first. */
static int read_mask(struct qd_rewriter *r, int mask, int like, bool past)
{
    static const int64_t both[] = {1, 2}, one[] = {1};
    int rank = mask == QD_NO_VALUE ? 0 : qd_rw_rank(r, mask);
    if (mask == QD_NO_VALUE)
        return mask;
    if (rank == 1 && !past) {
        int shape = QD_RW(r, "Concat", QD_RW_NEW, qd_rw_size(r, like, 0), QD_RW_LIST(r, 1)); /* [2B] does not fit */
        qd_rw_int(r, "axis", 0);
        int lengths = QD_RW(r, "Reshape", QD_RW_NEW, qd_rw_cast(r, QD_RW_NEW, mask, QD_I64), shape);
        int keep = QD_RW(r, "Less", QD_RW_NEW, numbers_below(r, qd_rw_size(r, like, 1)), lengths);
        return mask_scores(r, keep, both, 2);
    }
    if (rank < 2 || rank > 4) {
        qd_rw_fail(r, QD_ERR_UNSUPPORTED,
                   rank < 0 ? "has a mask whose number of dimensions is not known"
                            : "has a mask of %d dimensions that is not supported",
                   rank);
        return mask;
    }
    int keep = QD_RW(r, "Greater", QD_RW_NEW, qd_rw_cast(r, QD_RW_NEW, mask, QD_I64), qd_rw_one_int(r, 0));
    return mask_scores(r, keep, rank == 2 ? both : one, rank == 4 ? 0 : rank == 3 ? 1 : 2);
}

/* ------------------------------------------------------------------ operators */

static int64_t head_count(struct qd_rewriter *r)
{
    int64_t heads = qd_rw_get_int(r, "num_heads", 0);
    if (heads < 1 || heads > INT32_MAX)
        qd_rw_fail(r, QD_ERR_INVALID, "has %lld heads", (long long)heads);
    return heads < 1 ? 1 : heads;
}

/* [2, B, heads, P, size]: past keys and values in one tensor. */
static int past_part(struct qd_rewriter *r, int past, int64_t part)
{
    return past == QD_NO_VALUE ? past : QD_RW(r, "Gather", QD_RW_NEW, past, qd_rw_one_int(r, part));
}

static void write_present(struct qd_rewriter *r, int k, int v, int out)
{
    int axes = QD_RW_LIST(r, 0);
    k = QD_RW(r, "Unsqueeze", QD_RW_NEW, k, axes);
    v = QD_RW(r, "Unsqueeze", QD_RW_NEW, v, axes);
    QD_RW(r, "Concat", out, k, v);
    qd_rw_int(r, "axis", 0);
}

/* Columns of query, key and value in the packed weights: a third each, or as the attribute says. */
static bool packed_sizes(struct qd_rewriter *r, int64_t columns, int64_t heads, int64_t sizes[3])
{
    const struct qd_attr *given = qd_rw_get_list(r, "qkv_hidden_sizes", QD_ATTR_INTS);
    for (int i = 0; i < 3; i++)
        sizes[i] = given && given->count == 3 ? given->ints[i] : columns / 3;
    bool fit = !given || given->count == 3 || given->count == 0;
    for (int i = 0; i < 3; i++)
        fit = fit && sizes[i] > 0 && sizes[i] <= columns && sizes[i] % heads == 0;
    if (!fit || sizes[0] != sizes[1] || sizes[0] + sizes[1] + sizes[2] != columns)
        qd_rw_fail(r, QD_ERR_INVALID,
                   "has weights of %lld columns that don't split into query, key and value of %lld heads",
                   (long long)columns, (long long)heads);
    return !r->status;
}

static void write_packed(struct qd_rewriter *r, int x, int weights, int bias, int mask, int past, int extra)
{
    int64_t heads = head_count(r), columns = qd_rw_dim(r, weights, -1), sizes[3];
    int parts[3] = {QD_RW_NEW, QD_RW_NEW, QD_RW_NEW}, present = qd_rw_out(r, 1);
    if (columns < 0)
        qd_rw_fail(r, QD_ERR_UNSUPPORTED, "has weights whose shape is not known");
    if (qd_rw_get_int(r, "do_rotary", 0) != 0)
        qd_rw_fail(r, QD_ERR_UNSUPPORTED, "with do_rotary is not supported");
    if (qd_rw_get_int(r, "past_present_share_buffer", 0) != 0)
        qd_rw_fail(r, QD_ERR_UNSUPPORTED, "with past_present_share_buffer is not supported");
    qd_rw_no_outputs(r, 2);
    if (r->status || !packed_sizes(r, columns, heads, sizes))
        return;
    int wide = QD_RW(r, "MatMul", QD_RW_NEW, x, weights);
    wide = added(r, wide, bias);
    int cuts = qd_rw_list(r, sizes, 3);
    QD_RW(r, "Split", QD_RW_NEW, wide, cuts);
    qd_rw_int(r, "axis", 2);
    qd_rw_outputs(r, parts, 3);
    struct heads h = {.q = parts[0],
                      .k = parts[1],
                      .v = parts[2],
                      .count = heads,
                      .size = sizes[0] / heads,
                      .value_size = sizes[2] / heads,
                      .past_k = past_part(r, past, 0),
                      .past_v = past_part(r, past, 1),
                      .all_k = QD_NO_VALUE,
                      .all_v = QD_NO_VALUE,
                      .mask = read_mask(r, mask, x, past != QD_NO_VALUE),
                      .bias = extra,
                      .causal = qd_rw_get_int(r, "unidirectional", 0) != 0,
                      .scale = qd_rw_get_float(r, "scale", 0)};
    write_attention(r, &h);
    if (present != QD_NO_VALUE)
        write_present(r, h.k, h.v, present);
}

static void attention(struct qd_rewriter *r)
{
    if (qd_rw_in(r, 6) != QD_NO_VALUE)
        qd_rw_fail(r, QD_ERR_UNSUPPORTED, "with past_sequence_length is not supported");
    write_packed(r, qd_rw_in(r, 0), qd_rw_in(r, 1), qd_rw_in(r, 2), qd_rw_in(r, 3), qd_rw_in(r, 4), qd_rw_in(r, 5));
}

/* As Attention, its input and weights of 8 bits: x, weights, bias, their scales, mask, their zero points, past. */
static void quantized_attention(struct qd_rewriter *r)
{
    int x = QD_RW(r, "DequantizeLinear", QD_RW_NEW, qd_rw_in(r, 0), qd_rw_in(r, 3), qd_rw_in(r, 6));
    int weights = QD_RW(r, "DequantizeLinear", QD_RW_NEW, qd_rw_in(r, 1), qd_rw_in(r, 4), qd_rw_in(r, 7));
    if (!r->status) /* what is known of its columns */
        r->graph->values[weights].info.shape = r->graph->values[qd_rw_in(r, 1)].info.shape;
    write_packed(r, x, weights, qd_rw_in(r, 2), qd_rw_in(r, 5), qd_rw_in(r, 8), QD_NO_VALUE);
}

/* Its part of a bias of query, key and value side by side; ends[] are the borders, as lists of one. */
static int with_bias(struct qd_rewriter *r, int x, int bias, int from, int to)
{
    int axes = QD_RW_LIST(r, 0);
    return QD_RW(r, "Add", QD_RW_NEW, x, QD_RW(r, "Slice", QD_RW_NEW, bias, from, to, axes));
}

static void add_biases(struct qd_rewriter *r, struct heads *h, int bias)
{
    int64_t columns = qd_rw_dim(r, h->q, -1), all = qd_rw_dim(r, bias, 0);
    int first, second;
    if (columns > 0 && columns < INT32_MAX) {
        first = QD_RW_LIST(r, columns);
        second = QD_RW_LIST(r, 2 * columns);
        if (h->value_size < 1 && all > 2 * columns)
            h->value_size = (all - 2 * columns) / h->count;
    } else {
        first = qd_rw_size(r, h->q, -1);
        second = QD_RW(r, "Add", QD_RW_NEW, first, first);
    }
    h->q = with_bias(r, h->q, bias, QD_RW_LIST(r, 0), first);
    h->k = with_bias(r, h->k, bias, first, second);
    h->v = with_bias(r, h->v, bias, second, QD_RW_LIST(r, INT64_MAX));
}

/* Columns of one head, when those of all are known. */
static int64_t head_size(const struct qd_rewriter *r, int value, int64_t heads)
{
    int64_t columns = qd_rw_dim(r, value, -1);
    return columns > 0 && columns % heads == 0 ? columns / heads : -1;
}

/* query, key, value, bias, padding of keys, bias of scores, past keys and values. */
static void multi_head_attention(struct qd_rewriter *r)
{
    int64_t heads = head_count(r);
    int bias = qd_rw_in(r, 3), q = qd_rw_in(r, 0), k = qd_rw_in(r, 1), v = qd_rw_in(r, 2);
    int rank = qd_rw_rank(r, q), rank_k = qd_rw_rank(r, k);
    if (k == QD_NO_VALUE || v == QD_NO_VALUE || rank == 5 || rank_k == 5)
        qd_rw_fail(r, QD_ERR_UNSUPPORTED, "with query, key and value packed into one tensor is not supported");
    qd_rw_no_inputs(r, 8);
    qd_rw_no_outputs(r, 3);
    struct heads h = {.q = q,
                      .k = k,
                      .v = v,
                      .count = heads,
                      .size = head_size(r, q, heads),
                      .split = rank_k == 4,
                      .past_k = qd_rw_in(r, 6),
                      .past_v = qd_rw_in(r, 7),
                      .all_k = qd_rw_out(r, 1),
                      .all_v = qd_rw_out(r, 2),
                      .bias = qd_rw_in(r, 5),
                      .causal = qd_rw_get_int(r, "unidirectional", 0) != 0,
                      .scale = qd_rw_get_float(r, "scale", 0)};
    h.value_size = h.split ? qd_rw_dim(r, v, -1) : head_size(r, v, heads);
    h.mask = read_mask(r, qd_rw_in(r, 4), h.split ? QD_NO_VALUE : k, h.past_k != QD_NO_VALUE || h.split);
    if ((h.past_k == QD_NO_VALUE) != (h.past_v == QD_NO_VALUE))
        qd_rw_fail(r, QD_ERR_INVALID, "has only one of past keys and values");
    if (bias != QD_NO_VALUE && h.split) {
        int only_q = QD_RW_LIST(r, 0);
        h.q = with_bias(r, q, bias, only_q, qd_rw_size(r, q, -1));
    } else if (bias != QD_NO_VALUE) {
        add_biases(r, &h, bias);
    }
    if (!r->status)
        write_attention(r, &h);
}

const struct qd_contrib qd_contrib_attention[] = {
    {"com.microsoft", "Attention", "MatMul", 2, 7, attention, 0},
    {"com.microsoft", "MultiHeadAttention", "MatMul", 1, 10, multi_head_attention, 0},
    {"com.microsoft", "QAttention", "MatMul", 5, 9, quantized_attention, 0},
};
const size_t qd_contrib_attention_count = sizeof qd_contrib_attention / sizeof *qd_contrib_attention;
