/* Types and ranks, in one pass over the nodes. An operator that has no row makes values of which nothing is known. */
#include "engine/plan/types.h"

#include <string.h>

enum rule {
    LIKE,      /* type and rank of input 0 */
    BROADCAST, /* type of input 0, the largest rank */
    CHOICE,    /* type of input 1, the largest rank */
    TYPE,      /* type of input 0, for all outputs; nothing is said of ranks */
    TRUTH,     /* BOOL, the largest rank */
    INDEX,     /* I64 */
    CAST,
};

static const struct {
    enum rule rule;
    const char *ops; /* each between spaces */
} ROWS[] = {
    {LIKE, " Abs Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv "
           "ConvTranspose Cos Cosh DepthToSpace Dropout Elu Erf Exp Floor Gelu GlobalAveragePool GlobalLpPool "
           "GlobalMaxPool GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LRN "
           "LayerNormalization LeakyRelu Log LogSoftmax LpNormalization LpPool MaxPool MeanVarianceNormalization "
           "Mish Neg PRelu Pad RMSNormalization Reciprocal Relu Resize Round Selu Shrink Sigmoid Sign Sin Sinh "
           "Slice Softmax Softplus Softsign SpaceToDepth Sqrt Swish Tan Tanh ThresholdedRelu Tile Transpose "
           "Upsample "},
    {BROADCAST, " Add Div Max Mean Min Mul Pow Sub Sum "},
    {CHOICE, " Where "},
    {TYPE, " Compress Concat Einsum Expand Flatten GRU Gather GatherElements GatherND Gemm GridSample LSTM MatMul "
           "RNN ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
           "ReduceSum ReduceSumSquare Reshape ScatterElements ScatterND Split Squeeze Unsqueeze "},
    {TRUTH, " And Equal Greater GreaterOrEqual Less LessOrEqual Or Xor "},
    {INDEX, " ArgMax ArgMin NonZero Shape Size "},
    {CAST, " Cast "},
};

static bool listed(const char *ops, const char *op)
{
    const size_t n = strlen(op);
    for (const char *at = strstr(ops, op); at; at = strstr(at + 1, op))
        if (at > ops && at[-1] == ' ' && at[n] == ' ')
            return true;
    return false;
}

static int largest_rank(const struct qd_type *types, const struct qd_node *node)
{
    int most = 0;
    for (int i = 0; i < node->in_count; i++) {
        if (node->in[i] == QD_NO_VALUE || types[node->in[i]].rank < 0)
            return -1;
        most = types[node->in[i]].rank > most ? types[node->in[i]].rank : most;
    }
    return most;
}

static struct qd_type type_after(const struct qd_type *types, const struct qd_node *node, enum rule rule)
{
    const struct qd_type unknown = {QD_NONE, -1};
    const int from = rule == CHOICE ? 1 : 0;
    struct qd_type type = from < node->in_count && node->in[from] != QD_NO_VALUE ? types[node->in[from]] : unknown;
    switch (rule) {
    case LIKE:
        break;
    case BROADCAST:
    case CHOICE:
        type.rank = largest_rank(types, node);
        break;
    case TYPE:
        type.rank = -1;
        break;
    case TRUTH:
        type = (struct qd_type){QD_BOOL, largest_rank(types, node)};
        break;
    case INDEX:
        type = (struct qd_type){QD_I64, -1};
        break;
    case CAST:
        type.dtype = qd_dtype_from_onnx(qd_attr_int(node, "to", 0));
        break;
    }
    return type;
}

static void follow(struct qd_type *types, const struct qd_node *node)
{
    for (size_t r = 0; r < sizeof ROWS / sizeof *ROWS; r++) {
        if (node->domain[0] != 0 || !listed(ROWS[r].ops, node->op))
            continue;
        const struct qd_type type = type_after(types, node, ROWS[r].rule);
        for (int o = 0; o < (ROWS[r].rule == TYPE ? node->out_count : 1); o++) {
            if (o >= node->out_count || node->out[o] == QD_NO_VALUE)
                continue;
            struct qd_type *out = &types[node->out[o]];
            out->dtype = out->dtype == QD_NONE ? type.dtype : out->dtype;
            out->rank = out->rank < 0 ? type.rank : out->rank;
        }
        return;
    }
}

struct qd_type *qd_types(const struct qd_graph *graph, struct qd_arena *arena)
{
    struct qd_type *types = qd_arena_alloc(arena, (size_t)graph->value_count, sizeof *types);
    for (int v = 0; types && v < graph->value_count; v++)
        types[v] = (struct qd_type){graph->values[v].info.dtype, graph->values[v].info.shape.rank};
    for (int n = 0; types && n < graph->node_count; n++)
        follow(types, &graph->nodes[n]);
    return types;
}
