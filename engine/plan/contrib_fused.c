/* Contrib operators in floats: layers with an activation, Gelu's kinds, normalizations with a sum before them, products
 * of transposed matrices, embeddings. */
#include "engine/plan/contrib_impl.h"

#include <string.h>

/* ------------------------------------------------------------------ layers with an activation */

/* Activation parameters by position, as attributes of the standard's operator. */
static const struct activation {
    const char *op, *params[2];
} activations[] = {
    {"Relu", {NULL}},
    {"Sigmoid", {NULL}},
    {"Tanh", {NULL}},
    {"LeakyRelu", {"alpha"}},
    {"HardSigmoid", {"alpha", "beta"}},
    {"Elu", {"alpha"}},
    {"Softplus", {NULL}},
    {"Softsign", {NULL}},
    {"ThresholdedRelu", {"alpha"}},
};

static void write_clip(struct qd_rewriter *r, int x, int out, const float *params, size_t count)
{
    if (count != 2) {
        qd_rw_fail(r, QD_ERR_INVALID, "has %zu parameters for its Clip, not 2", count);
        return;
    }
    int low = qd_rw_one_float(r, params[0]), high = qd_rw_one_float(r, params[1]);
    QD_RW(r, "Clip", out, x, low, high);
}

static void write_activation(struct qd_rewriter *r, const struct qd_text *name, int x, int out, const float *params,
                             size_t count)
{
    if (qd_rw_text_is(name, "Clip")) {
        write_clip(r, x, out, params, count);
        return;
    }
    for (size_t a = 0; a < sizeof activations / sizeof *activations; a++) {
        if (!qd_rw_text_is(name, activations[a].op))
            continue;
        QD_RW(r, activations[a].op, out, x);
        for (size_t p = 0; p < 2 && p < count && activations[a].params[p]; p++)
            qd_rw_float(r, activations[a].params[p], params[p]);
        return;
    }
    int shown = name->length > 60 ? 60 : (int)name->length;
    qd_rw_fail(r, QD_ERR_UNSUPPORTED, "has an activation '%.*s' that is not supported", shown, name->bytes);
}

static void fused_conv(struct qd_rewriter *r)
{
    static const char *const kept[] = {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"};
    const struct qd_text *activation = qd_rw_get_text(r, "activation");
    const struct qd_attr *params = qd_rw_get_list(r, "activation_params", QD_ATTR_FLOATS);
    int more = qd_rw_in(r, 3), last = qd_rw_out(r, 0);
    int y = QD_RW(r, "Conv", activation || more != QD_NO_VALUE ? QD_RW_NEW : last, qd_rw_in(r, 0), qd_rw_in(r, 1),
                  qd_rw_in(r, 2));
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        qd_rw_keep(r, kept[i]);
    if (more != QD_NO_VALUE)
        y = QD_RW(r, "Add", activation ? QD_RW_NEW : last, y, more);
    if (activation)
        write_activation(r, activation, y, last, params ? params->floats : NULL, params ? params->count : 0);
}

static void fused_gemm(struct qd_rewriter *r)
{
    static const char *const kept[] = {"alpha", "beta", "transA", "transB"};
    const struct qd_text *activation = qd_rw_get_text(r, "activation");
    float params[2] = {qd_rw_get_float(r, "activation_alpha", 0), qd_rw_get_float(r, "activation_beta", 0)};
    bool given = qd_attr_find(&r->node, "activation_alpha") != NULL;
    int y = QD_RW(r, "Gemm", activation ? QD_RW_NEW : qd_rw_out(r, 0), qd_rw_in(r, 0), qd_rw_in(r, 1), qd_rw_in(r, 2));
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        qd_rw_keep(r, kept[i]);
    if (activation)
        write_activation(r, activation, y, qd_rw_out(r, 0), params, given ? 2 : 0);
}

/* ------------------------------------------------------------------ Gelu's kinds */

static void gelu(struct qd_rewriter *r)
{
    int x = qd_rw_in(r, 0), bias = qd_rw_in(r, 1);
    if (bias != QD_NO_VALUE)
        x = QD_RW(r, "Add", QD_RW_NEW, x, bias);
    QD_RW(r, "Gelu", qd_rw_out(r, 0), x);
    if (strcmp(r->node.op, "FastGelu") == 0)
        qd_rw_text(r, "approximate", "tanh");
}

static void quick_gelu(struct qd_rewriter *r)
{
    int x = qd_rw_in(r, 0), alpha = qd_rw_one_float(r, qd_rw_get_float(r, "alpha", 1.702f));
    int gate = QD_RW(r, "Sigmoid", QD_RW_NEW, QD_RW(r, "Mul", QD_RW_NEW, x, alpha));
    QD_RW(r, "Mul", qd_rw_out(r, 0), x, gate);
}

/* ------------------------------------------------------------------ normalizations */

/* scale is one of the last dimension, as all of these have it; means[0], means[1]: the statistics, or QD_NO_VALUE. */
static void write_norm(struct qd_rewriter *r, int x, int scale, int bias, float epsilon, int64_t axis, int out,
                       const int means[2])
{
    int outs[3] = {out, means[0], means[1]};
    QD_RW(r, "LayerNormalization", out, x, scale, bias);
    qd_rw_float(r, "epsilon", epsilon);
    qd_rw_int(r, "axis", axis);
    if (means[1] != QD_NO_VALUE || means[0] != QD_NO_VALUE)
        qd_rw_outputs(r, outs, means[1] == QD_NO_VALUE ? 2 : 3);
}

static void write_rms_norm(struct qd_rewriter *r, int x, int scale, float epsilon, int64_t axis, int out)
{
    QD_RW(r, "RMSNormalization", out, x, scale);
    qd_rw_float(r, "epsilon", epsilon);
    qd_rw_int(r, "axis", axis);
}

static void layer_norm(struct qd_rewriter *r)
{
    write_norm(r, qd_rw_in(r, 0), qd_rw_in(r, 1), qd_rw_in(r, 2), qd_rw_get_float(r, "epsilon", 1e-5f),
               qd_rw_get_int(r, "axis", -1), qd_rw_out(r, 0), (const int[]){qd_rw_out(r, 1), qd_rw_out(r, 2)});
}

static void simplified_norm(struct qd_rewriter *r)
{
    qd_rw_no_outputs(r, 1);
    write_rms_norm(r, qd_rw_in(r, 0), qd_rw_in(r, 1), qd_rw_get_float(r, "epsilon", 1e-5f),
                   qd_rw_get_int(r, "axis", -1), qd_rw_out(r, 0));
}

/* Outputs: the norm, its mean, its inverse deviation, the sum. */
static void skip_norm(struct qd_rewriter *r)
{
    bool simple = strcmp(r->node.op, "SkipSimplifiedLayerNormalization") == 0;
    int bias = qd_rw_in(r, simple ? 3 : 4), sum = qd_rw_out(r, 3), last = sum == QD_NO_VALUE ? QD_RW_NEW : sum;
    float epsilon = qd_rw_get_float(r, "epsilon", 1e-12f);
    int x = QD_RW(r, "Add", bias == QD_NO_VALUE ? last : QD_RW_NEW, qd_rw_in(r, 0), qd_rw_in(r, 1));
    if (bias != QD_NO_VALUE)
        x = QD_RW(r, "Add", last, x, bias);
    if (!simple) {
        write_norm(r, x, qd_rw_in(r, 2), qd_rw_in(r, 3), epsilon, -1, qd_rw_out(r, 0),
                   (const int[]){qd_rw_out(r, 1), qd_rw_out(r, 2)});
        return;
    }
    if (qd_rw_out(r, 1) != QD_NO_VALUE || qd_rw_out(r, 2) != QD_NO_VALUE)
        qd_rw_fail(r, QD_ERR_UNSUPPORTED, "with outputs of its statistics is not supported");
    write_rms_norm(r, x, qd_rw_in(r, 2), epsilon, -1, qd_rw_out(r, 0));
}

/* ------------------------------------------------------------------ embeddings */

static int embedded(struct qd_rewriter *r, int table, int ids) { return QD_RW(r, "Gather", QD_RW_NEW, table, ids); }

/* How many of each row's mask are 1; without a mask all are 0. */
static void write_mask_index(struct qd_rewriter *r, int ids, int mask, int out)
{
    if (mask == QD_NO_VALUE) {
        int zeros = QD_RW(r, "Mul", QD_RW_NEW, ids, qd_rw_zero(r, QD_I32)), axes = QD_RW_LIST(r, 1);
        QD_RW(r, "ReduceSum", out, zeros, axes);
    } else {
        int one = qd_rw_cast(r, QD_RW_NEW, qd_rw_one_int(r, 1), QD_I32);
        int equal = QD_RW(r, "Equal", QD_RW_NEW, mask, one), axes = QD_RW_LIST(r, 1);
        QD_RW(r, "ReduceSum", out, qd_rw_cast(r, QD_RW_NEW, equal, QD_I32), axes);
    }
    qd_rw_int(r, "keepdims", 0);
}

/* ids, segments, table of words, of positions, of segments, gamma, beta, mask, positions. */
static void embed_norm(struct qd_rewriter *r)
{
    int ids = qd_rw_in(r, 0), segments = qd_rw_in(r, 1), positions = qd_rw_in(r, 8), sum = qd_rw_out(r, 2);
    int words = embedded(r, qd_rw_need(r, 2), ids), places = qd_rw_need(r, 3), gamma = qd_rw_need(r, 5),
        beta = qd_rw_need(r, 6);
    if (positions != QD_NO_VALUE) {
        places = embedded(r, places, positions);
    } else { /* the first rows of the table */
        int from = QD_RW_LIST(r, 0), to = qd_rw_size(r, ids, 1), axes = QD_RW_LIST(r, 0);
        places = QD_RW(r, "Slice", QD_RW_NEW, places, from, to, axes);
    }
    int last = sum == QD_NO_VALUE ? QD_RW_NEW : sum;
    int x = QD_RW(r, "Add", segments == QD_NO_VALUE ? last : QD_RW_NEW, words, places);
    if (segments != QD_NO_VALUE)
        x = QD_RW(r, "Add", last, x, embedded(r, qd_rw_need(r, 4), segments));
    write_norm(r, x, gamma, beta, qd_rw_get_float(r, "epsilon", 1e-12f), -1, qd_rw_out(r, 0),
               (const int[]){QD_NO_VALUE, QD_NO_VALUE});
    if (qd_rw_out(r, 1) != QD_NO_VALUE)
        write_mask_index(r, ids, qd_rw_in(r, 7), qd_rw_out(r, 1));
}

/* ------------------------------------------------------------------ products of transposed matrices */

/* Which axis stands where: with `batch` the first axis is the matrix's row axis, behind those of the batch. */
static int turned(struct qd_rewriter *r, int x, int rank, bool transpose, bool batch)
{
    int64_t perm[QD_MAX_RANK];
    if (!(transpose || batch) || rank == 1) /* a vector has nothing to turn */
        return x;
    if (rank < 2) {
        qd_rw_fail(r, QD_ERR_UNSUPPORTED, "turns an operand whose number of dimensions is not known");
        return x;
    }
    for (int i = 0; i < rank; i++)
        perm[i] = i;
    for (int i = 0; batch && i < rank - 1; i++)
        perm[i] = i == rank - 2 ? 0 : i + 1;
    if (transpose) {
        int64_t row = perm[rank - 2];
        perm[rank - 2] = perm[rank - 1];
        perm[rank - 1] = row;
    }
    return qd_rw_transpose(r, x, perm, (size_t)rank);
}

/* Einsum needs no ranks, but has no integer form. */
static int write_einsum(struct qd_rewriter *r, int out, bool trans_a, bool trans_b)
{
    static const char *const equations[2][2] = {{"...ij,...jk->...ik", "...ij,...kj->...ik"},
                                                {"...ji,...jk->...ik", "...ji,...kj->...ik"}};
    int y = QD_RW(r, "Einsum", out, qd_rw_in(r, 0), qd_rw_in(r, 1));
    qd_rw_text(r, "equation", equations[trans_a][trans_b]);
    return y;
}

static void fused_matmul(struct qd_rewriter *r)
{
    float alpha = qd_rw_get_float(r, "alpha", 1);
    bool trans_a = qd_rw_get_int(r, "transA", 0) != 0, trans_b = qd_rw_get_int(r, "transB", 0) != 0;
    bool batch_a = qd_rw_get_int(r, "transBatchA", 0) != 0, batch_b = qd_rw_get_int(r, "transBatchB", 0) != 0;
    int a = qd_rw_in(r, 0), b = qd_rw_in(r, 1), y = alpha == 1.0f ? qd_rw_out(r, 0) : QD_RW_NEW;
    int rank_a = trans_a || batch_a ? qd_rw_rank(r, a) : 0, rank_b = trans_b || batch_b ? qd_rw_rank(r, b) : 0;
    if ((rank_a < 0 || rank_b < 0) && !batch_a && !batch_b) {
        y = write_einsum(r, y, trans_a, trans_b);
    } else {
        a = turned(r, a, rank_a, trans_a, batch_a);
        b = turned(r, b, rank_b, trans_b, batch_b);
        y = QD_RW(r, "MatMul", y, a, b);
    }
    if (alpha != 1.0f)
        QD_RW(r, "Mul", qd_rw_out(r, 0), y, qd_rw_one_float(r, alpha));
}

const struct qd_contrib qd_contrib_fused[] = {
    {"com.microsoft", "BiasGelu", "Gelu", 2, 2, gelu, 0},
    {"com.microsoft", "EmbedLayerNormalization", "LayerNormalization", 1, 9, embed_norm, 0},
    {"com.microsoft", "FastGelu", "Gelu", 1, 2, gelu, 0},
    {"com.microsoft", "FusedConv", "Conv", 2, 4, fused_conv, 0},
    {"com.microsoft", "FusedGemm", "Gemm", 2, 3, fused_gemm, 0},
    {"com.microsoft", "FusedMatMul", "MatMul", 2, 2, fused_matmul, 0},
    {"com.microsoft", "Gelu", "Gelu", 1, 1, gelu, 0},
    {"com.microsoft", "LayerNormalization", "LayerNormalization", 2, 3, layer_norm, 0},
    {"", "LayerNormalization", "LayerNormalization", 2, 3, layer_norm, 17},
    {"com.microsoft", "QuickGelu", "Mul", 1, 1, quick_gelu, 0},
    {"com.microsoft", "SimplifiedLayerNormalization", "RMSNormalization", 2, 2, simplified_norm, 0},
    {"", "SimplifiedLayerNormalization", "RMSNormalization", 2, 2, simplified_norm, 0},
    {"com.microsoft", "SkipLayerNormalization", "LayerNormalization", 3, 5, skip_norm, 0},
    {"com.microsoft", "SkipSimplifiedLayerNormalization", "RMSNormalization", 3, 4, skip_norm, 0},
    {"com.microsoft", "TransposeMatMul", "MatMul", 2, 2, fused_matmul, 0},
};
const size_t qd_contrib_fused_count = sizeof qd_contrib_fused / sizeof *qd_contrib_fused;
