/* Contrib operators of quantized models: those of 8 bits become the float operator between DequantizeLinear and
 * QuantizeLinear, as the standard writes them; products of integers become the standard's integer products. */
#include "engine/plan/contrib_impl.h"

#include <string.h>

static int dequantized(struct qd_rewriter *r, int x, int scale, int zero)
{
    return QD_RW(r, "DequantizeLinear", QD_RW_NEW, x, scale, zero);
}

/* Without a zero point the result has the type of `like`. */
static void quantize(struct qd_rewriter *r, int x, int scale, int zero, int like)
{
    if (zero == QD_NO_VALUE && qd_rw_dtype(r, like) == QD_I8)
        zero = qd_rw_zero(r, QD_I8);
    QD_RW(r, "QuantizeLinear", qd_rw_out(r, 0), x, scale, zero);
}

/* ------------------------------------------------------------------ 8 bits in, 8 bits out */

/* a, its scale and zero point, b and its own, those of the result. */
static void binary(struct qd_rewriter *r)
{
    int a = dequantized(r, qd_rw_need(r, 0), qd_rw_need(r, 1), qd_rw_in(r, 2));
    int b = dequantized(r, qd_rw_need(r, 3), qd_rw_need(r, 4), qd_rw_in(r, 5));
    int y = QD_RW(r, r->row->main, QD_RW_NEW, a, b);
    quantize(r, y, qd_rw_need(r, 6), qd_rw_in(r, 7), qd_rw_in(r, 0));
}

static void where(struct qd_rewriter *r)
{
    int a = dequantized(r, qd_rw_need(r, 1), qd_rw_need(r, 2), qd_rw_in(r, 3));
    int b = dequantized(r, qd_rw_need(r, 4), qd_rw_need(r, 5), qd_rw_in(r, 6));
    int y = QD_RW(r, "Where", QD_RW_NEW, qd_rw_in(r, 0), a, b);
    quantize(r, y, qd_rw_need(r, 7), qd_rw_in(r, 8), qd_rw_in(r, 1));
}

/* Scale and zero point of the result, then those of each part behind it. */
static void concat(struct qd_rewriter *r)
{
    int count = (r->node.in_count - 2) / 3;
    if (count < 1 || (r->node.in_count - 2) % 3)
        qd_rw_fail(r, QD_ERR_INVALID, "has %d inputs, not 2 and three for each part", r->node.in_count);
    int *parts = r->status ? NULL : qd_arena_alloc(r->arena, (size_t)count, sizeof *parts);
    if (!parts) {
        if (!r->status)
            r->status = qd_fail(r->error, QD_ERR_NO_MEMORY, "no memory to compile the model");
        return;
    }
    for (int i = 0; i < count; i++)
        parts[i] = dequantized(r, qd_rw_need(r, 2 + 3 * i), qd_rw_need(r, 3 + 3 * i), qd_rw_in(r, 4 + 3 * i));
    int y = qd_rw_make(r, "Concat", QD_RW_NEW, parts, count);
    qd_rw_int(r, "axis", qd_rw_get_int(r, "axis", 1));
    quantize(r, y, qd_rw_in(r, 0), qd_rw_in(r, 1), qd_rw_in(r, 2));
}

/* x, its scale and zero point, those of the result. */
static int opened(struct qd_rewriter *r) { return dequantized(r, qd_rw_in(r, 0), qd_rw_in(r, 1), qd_rw_in(r, 2)); }

static void closed(struct qd_rewriter *r, int y) { quantize(r, y, qd_rw_need(r, 3), qd_rw_in(r, 4), qd_rw_in(r, 0)); }

static void unary(struct qd_rewriter *r)
{
    int y = QD_RW(r, r->row->main, QD_RW_NEW, opened(r));
    qd_rw_keep(r, "alpha");
    closed(r, y);
}

static void softmax(struct qd_rewriter *r)
{
    int64_t opset = qd_rw_get_int(r, "opset", 13);
    int y = QD_RW(r, "Softmax", QD_RW_NEW, opened(r));
    qd_rw_int(r, "axis", qd_rw_get_int(r, "axis", opset < 13 ? 1 : -1));
    if (!r->status && opset < 13) /* flattened from the axis on */
        r->nodes[r->count - 1].opset = 11;
    closed(r, y);
}

/* Channels stand behind everything else, or come in front of the places again. */
static int moved_channels(struct qd_rewriter *r, int x, int rank, bool to_front)
{
    int64_t perm[QD_MAX_RANK], back[QD_MAX_RANK];
    if (rank < 3) {
        qd_rw_fail(r, QD_ERR_UNSUPPORTED, "has channels that are last of an unknown number of dimensions");
        return x;
    }
    for (int i = 0; i < rank; i++) {
        perm[i] = i == 0 ? 0 : i == 1 ? rank - 1 : i - 1;
        back[perm[i]] = i;
    }
    return qd_rw_transpose(r, x, to_front ? perm : back, (size_t)rank);
}

/* How many dimensions a convolution's or a pool's input has: as its kernel says, else as far as the graph tells. */
static int rank_by_kernel(struct qd_rewriter *r, int weights)
{
    const struct qd_attr *kernel = qd_rw_get_list(r, "kernel_shape", QD_ATTR_INTS);
    int rank = weights == QD_NO_VALUE ? -1 : qd_rw_rank(r, weights);
    return rank >= 0                                    ? rank
           : kernel && kernel->count <= QD_MAX_RANK - 2 ? (int)kernel->count + 2
                                                        : qd_rw_rank(r, qd_rw_in(r, 0));
}

static void keep_all(struct qd_rewriter *r, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        qd_rw_keep(r, names[i]);
}

static const char *const POOL_ATTRS[] = {"auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape",
                                         "pads",     "strides"};
static const char *const CONV_ATTRS[] = {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"};

static void pool(struct qd_rewriter *r)
{
    bool last = qd_rw_get_int(r, "channels_last", 0) != 0;
    int rank = last ? rank_by_kernel(r, QD_NO_VALUE) : 0, x = opened(r);
    if (last)
        x = moved_channels(r, x, rank, true);
    int y = QD_RW(r, r->row->main, QD_RW_NEW, x);
    keep_all(r, POOL_ATTRS, sizeof POOL_ATTRS / sizeof *POOL_ATTRS);
    if (last)
        y = moved_channels(r, y, rank, false);
    closed(r, y);
}

/* Of integers, which pooling keeps as they are. */
static void max_pool(struct qd_rewriter *r)
{
    int rank = rank_by_kernel(r, QD_NO_VALUE);
    int y = QD_RW(r, "MaxPool", QD_RW_NEW, moved_channels(r, qd_rw_in(r, 0), rank, true));
    keep_all(r, POOL_ATTRS, sizeof POOL_ATTRS / sizeof *POOL_ATTRS);
    y = moved_channels(r, y, rank, false);
    QD_RW(r, "Identity", qd_rw_out(r, 0), y);
}

/* The standard's own, but for channels that may be last. */
static void conv(struct qd_rewriter *r)
{
    bool last = qd_rw_get_int(r, "channels_last", 0) != 0;
    int rank = last ? rank_by_kernel(r, qd_rw_in(r, 3)) : 0;
    int x = last ? moved_channels(r, qd_rw_in(r, 0), rank, true) : qd_rw_in(r, 0);
    int y = QD_RW(r, "QLinearConv", last ? QD_RW_NEW : qd_rw_out(r, 0), x, qd_rw_in(r, 1), qd_rw_in(r, 2),
                  qd_rw_in(r, 3), qd_rw_in(r, 4), qd_rw_in(r, 5), qd_rw_in(r, 6), qd_rw_in(r, 7), qd_rw_in(r, 8));
    keep_all(r, CONV_ATTRS, sizeof CONV_ATTRS / sizeof *CONV_ATTRS);
    if (last)
        QD_RW(r, "Identity", qd_rw_out(r, 0), moved_channels(r, y, rank, false));
}

static void reduce_mean(struct qd_rewriter *r)
{
    const struct qd_attr *axes = qd_rw_get_list(r, "axes", QD_ATTR_INTS);
    int x = opened(r), list = axes && axes->count ? qd_rw_list(r, axes->ints, axes->count) : QD_NO_VALUE;
    int y = QD_RW(r, "ReduceMean", QD_RW_NEW, x, list);
    qd_rw_int(r, "keepdims", qd_rw_get_int(r, "keepdims", 1));
    closed(r, y);
}

/* ------------------------------------------------------------------ products */

/* Integers to floats: the sum's scale is the product of both scales, of the second perhaps one per column. */
static void write_product(struct qd_rewriter *r, int a, int b, int scale_a, int scale_b, int zero_a, int zero_b,
                          int bias)
{
    int sums = QD_RW(r, "MatMulInteger", QD_RW_NEW, a, b, zero_a, zero_b);
    int scale = QD_RW(r, "Mul", QD_RW_NEW, scale_a, scale_b);
    int floats = qd_rw_cast(r, QD_RW_NEW, sums, QD_F32);
    int y = QD_RW(r, "Mul", bias == QD_NO_VALUE ? qd_rw_out(r, 0) : QD_RW_NEW, floats, scale);
    if (bias != QD_NO_VALUE)
        QD_RW(r, "Add", qd_rw_out(r, 0), y, bias);
}

static void integer_to_float(struct qd_rewriter *r)
{
    write_product(r, qd_rw_in(r, 0), qd_rw_in(r, 1), qd_rw_in(r, 2), qd_rw_in(r, 3), qd_rw_in(r, 4), qd_rw_in(r, 5),
                  qd_rw_in(r, 6));
}

static void dynamic_matmul(struct qd_rewriter *r)
{
    int outs[3] = {QD_RW_NEW, QD_RW_NEW, QD_RW_NEW};
    QD_RW(r, "DynamicQuantizeLinear", QD_RW_NEW, qd_rw_in(r, 0));
    qd_rw_outputs(r, outs, 3);
    write_product(r, outs[0], qd_rw_in(r, 1), outs[1], qd_rw_in(r, 2), outs[2], qd_rw_in(r, 3), qd_rw_in(r, 4));
}

/* a, b with scales and zero points, c in integers of alpha times both scales, scale and zero point of the result. */
static void gemm(struct qd_rewriter *r)
{
    int c = qd_rw_in(r, 6), scale_y = qd_rw_in(r, 7), scale_a = qd_rw_need(r, 1), scale_b = qd_rw_need(r, 4);
    int64_t turned = qd_rw_get_int(r, "transB", 0) != 0;
    float alpha = qd_rw_get_float(r, "alpha", 1);
    int a = dequantized(r, qd_rw_need(r, 0), scale_a, qd_rw_in(r, 2));
    int b = dequantized(r, qd_rw_need(r, 3), scale_b, qd_rw_in(r, 5));
    qd_rw_int(r, "axis", turned ? 0 : 1);
    if (c != QD_NO_VALUE) {
        int scale = QD_RW(r, "Mul", QD_RW_NEW, QD_RW(r, "Mul", QD_RW_NEW, scale_a, scale_b), qd_rw_one_float(r, alpha));
        c = QD_RW(r, "Mul", QD_RW_NEW, qd_rw_cast(r, QD_RW_NEW, c, QD_F32), scale);
    }
    int y = QD_RW(r, "Gemm", scale_y == QD_NO_VALUE ? qd_rw_out(r, 0) : QD_RW_NEW, a, b, c);
    qd_rw_float(r, "alpha", alpha);
    qd_rw_int(r, "transA", qd_rw_get_int(r, "transA", 0));
    qd_rw_int(r, "transB", turned);
    if (scale_y != QD_NO_VALUE)
        quantize(r, y, scale_y, qd_rw_in(r, 8), qd_rw_in(r, 0));
}

/* x, w and r as int8 of [directions, in, gates], bias, lengths, first states, peepholes; scales and zero points. */
static void lstm(struct qd_rewriter *r)
{
    static const char *const kept[] = {"activation_alpha", "activation_beta", "activations",  "clip",
                                       "direction",        "hidden_size",     "input_forget", "layout"};
    int weights[2];
    for (int i = 0; i < 2; i++) {
        int scale = qd_rw_need(r, 8 + 2 * i), zero = qd_rw_in(r, 9 + 2 * i), rank = qd_rw_rank(r, scale);
        if (rank > 1 &&
            qd_rw_dim(r, scale, 1) != 1) { /* by gate: [directions, gates] against [directions, in, gates] */
            int x = qd_rw_cast(r, QD_RW_NEW, qd_rw_need(r, 1 + i), QD_F32), axes = QD_RW_LIST(r, 1);
            if (zero != QD_NO_VALUE) {
                int at = QD_RW(r, "Unsqueeze", QD_RW_NEW, qd_rw_cast(r, QD_RW_NEW, zero, QD_F32), axes);
                x = QD_RW(r, "Sub", QD_RW_NEW, x, at);
            }
            weights[i] = QD_RW(r, "Mul", QD_RW_NEW, x, QD_RW(r, "Unsqueeze", QD_RW_NEW, scale, axes));
        } else { /* by direction */
            weights[i] = dequantized(r, qd_rw_need(r, 1 + i), scale, zero);
            qd_rw_int(r, "axis", 0);
        }
        weights[i] = qd_rw_transpose(r, weights[i], (const int64_t[]){0, 2, 1}, 3);
    }
    int outs[3] = {qd_rw_out(r, 0), qd_rw_out(r, 1), qd_rw_out(r, 2)};
    QD_RW(r, "LSTM", outs[0], qd_rw_in(r, 0), weights[0], weights[1], qd_rw_in(r, 3), qd_rw_in(r, 4), qd_rw_in(r, 5),
          qd_rw_in(r, 6), qd_rw_in(r, 7));
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        qd_rw_keep(r, kept[i]);
    qd_rw_outputs(r, outs, 3);
}

/* The standard's own, of the time when only this domain had types and axes. */
static void plain_linear(struct qd_rewriter *r)
{
    QD_RW(r, r->row->main, qd_rw_out(r, 0), qd_rw_in(r, 0), qd_rw_in(r, 1), qd_rw_in(r, 2));
    qd_rw_int(r, "axis", qd_rw_get_int(r, "axis", 1));
}

const struct qd_contrib qd_contrib_quantized[] = {
    {"com.microsoft", "DequantizeLinear", "DequantizeLinear", 2, 3, plain_linear, 0},
    {"com.microsoft", "DynamicQuantizeLSTM", "LSTM", 3, 12, lstm, 0},
    {"com.microsoft", "DynamicQuantizeMatMul", "MatMulInteger", 3, 5, dynamic_matmul, 0},
    {"com.microsoft", "MatMulIntegerToFloat", "MatMulInteger", 4, 7, integer_to_float, 0},
    {"com.microsoft", "NhwcMaxPool", "MaxPool", 1, 1, max_pool, 0},
    {"com.microsoft", "QGemm", "Gemm", 5, 9, gemm, 0},
    {"com.microsoft", "QLinearAdd", "Add", 7, 8, binary, 0},
    {"com.microsoft", "QLinearAveragePool", "AveragePool", 2, 5, pool, 0},
    {"com.microsoft", "QLinearConcat", "Concat", 1, 1 << 20, concat, 0},
    {"com.microsoft", "QLinearConv", "QLinearConv", 8, 9, conv, 0},
    {"com.microsoft", "QLinearGlobalAveragePool", "GlobalAveragePool", 2, 5, pool, 0},
    {"com.microsoft", "QLinearLeakyRelu", "LeakyRelu", 2, 5, unary, 0},
    {"com.microsoft", "QLinearMul", "Mul", 7, 8, binary, 0},
    {"com.microsoft", "QLinearReduceMean", "ReduceMean", 2, 5, reduce_mean, 0},
    {"com.microsoft", "QLinearSigmoid", "Sigmoid", 2, 5, unary, 0},
    {"com.microsoft", "QLinearSoftmax", "Softmax", 2, 5, softmax, 0},
    {"com.microsoft", "QLinearWhere", "Where", 1, 9, where, 0},
    {"com.microsoft", "QuantizeLinear", "QuantizeLinear", 2, 3, plain_linear, 0},
};
const size_t qd_contrib_quantized_count = sizeof qd_contrib_quantized / sizeof *qd_contrib_quantized;
