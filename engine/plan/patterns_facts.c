/* What is known of values before any input is there: element type, rank, and the length of lists of dimensions. It
 * follows from the nodes where it can; else what the model declares counts. */
#include "engine/plan/patterns_impl.h"

#include <string.h>

/* How rank and type of output 0 follow from the inputs. */
enum rule {
    SAME,      /* input 0's */
    BROADCAST, /* the largest rank; input 0's type */
    TRUTH,     /* as BROADCAST, of type BOOL */
    CHOICE,    /* Where: the largest rank; input 1's type */
    WEIGHTS,   /* rank of input 1, type of input 0 */
    TWO,       /* rank 2 */
    CAST,
    SHAPE,
    GATHER,
    CONCAT,
    MATMUL,
    REDUCE,
    RESHAPE,
    SQUEEZE,
    UNSQUEEZE,
};

static const struct {
    const char *op;
    enum rule rule;
} rows[] = {
    {"Abs", SAME},
    {"Add", BROADCAST},
    {"And", TRUTH},
    {"AveragePool", SAME},
    {"BatchNormalization", SAME},
    {"Cast", CAST},
    {"Clip", SAME},
    {"Concat", CONCAT},
    {"Conv", WEIGHTS},
    {"ConvTranspose", WEIGHTS},
    {"DepthToSpace", SAME},
    {"Div", BROADCAST},
    {"Dropout", SAME},
    {"Elu", SAME},
    {"Equal", TRUTH},
    {"Erf", SAME},
    {"Exp", SAME},
    {"Flatten", TWO},
    {"Gather", GATHER},
    {"Gelu", SAME},
    {"Gemm", TWO},
    {"GlobalAveragePool", SAME},
    {"GlobalMaxPool", SAME},
    {"Greater", TRUTH},
    {"GroupNormalization", SAME},
    {"HardSigmoid", SAME},
    {"HardSwish", SAME},
    {"Identity", SAME},
    {"InstanceNormalization", SAME},
    {"LayerNormalization", SAME},
    {"LeakyRelu", SAME},
    {"Less", TRUTH},
    {"Log", SAME},
    {"LogSoftmax", SAME},
    {"MatMul", MATMUL},
    {"Max", BROADCAST},
    {"MaxPool", SAME},
    {"Min", BROADCAST},
    {"Mul", BROADCAST},
    {"Neg", SAME},
    {"Pad", SAME},
    {"Pow", BROADCAST},
    {"PRelu", SAME},
    {"RMSNormalization", SAME},
    {"Reciprocal", SAME},
    {"ReduceMax", REDUCE},
    {"ReduceMean", REDUCE},
    {"ReduceMin", REDUCE},
    {"ReduceSum", REDUCE},
    {"Relu", SAME},
    {"Reshape", RESHAPE},
    {"Resize", SAME},
    {"Shape", SHAPE},
    {"Sigmoid", SAME},
    {"Slice", SAME},
    {"Softmax", SAME},
    {"Softplus", SAME},
    {"SpaceToDepth", SAME},
    {"Sqrt", SAME},
    {"Squeeze", SQUEEZE},
    {"Sub", BROADCAST},
    {"Swish", SAME},
    {"Tanh", SAME},
    {"Tile", SAME},
    {"Transpose", SAME},
    {"Unsqueeze", UNSQUEEZE},
    {"Where", CHOICE},
};

static int rank_in(const struct qd_finder *f, const struct qd_node *node, int i)
{
    int value = qd_finder_in(f, node, i);
    return value == QD_NO_VALUE ? -1 : f->rank[value];
}

static int length_in(const struct qd_finder *f, const struct qd_node *node, int i)
{
    int value = qd_finder_in(f, node, i);
    return value == QD_NO_VALUE ? -1 : f->length[value];
}

static int largest_rank(const struct qd_finder *f, const struct qd_node *node)
{
    int most = 0;
    for (int i = 0; i < node->in_count; i++) {
        int rank = rank_in(f, node, i);
        if (rank < 0)
            return -1;
        most = rank > most ? rank : most;
    }
    return most;
}

/* How many axes a node names, by attribute or by input `at`; -1: not known; 0: none named. */
static int axes_of(const struct qd_finder *f, const struct qd_node *node, int at)
{
    size_t count;
    if (qd_attr_ints(node, "axes", &count))
        return (int)count;
    return qd_finder_in(f, node, at) == QD_NO_VALUE ? 0 : length_in(f, node, at);
}

static int rank_after(const struct qd_finder *f, const struct qd_node *node, enum rule rule)
{
    int rank = rank_in(f, node, 0), axes;
    switch (rule) {
    case SAME:
    case CAST:
    case CONCAT:
        return rank;
    case BROADCAST:
    case TRUTH:
    case CHOICE:
        return largest_rank(f, node);
    case WEIGHTS:
        return rank_in(f, node, 1);
    case TWO:
        return 2;
    case SHAPE:
        return 1;
    case GATHER:
        return rank < 1 || rank_in(f, node, 1) < 0 ? -1 : rank - 1 + rank_in(f, node, 1);
    case MATMUL:
        return rank < 2 || rank_in(f, node, 1) < 2 ? -1 : largest_rank(f, node);
    case RESHAPE:
        return length_in(f, node, 1);
    case REDUCE:
        axes = axes_of(f, node, 1);
        return qd_attr_int(node, "keepdims", 1) ? rank : axes > 0 && rank >= axes ? rank - axes : -1;
    case SQUEEZE:
        axes = axes_of(f, node, 1);
        return axes > 0 && rank >= axes ? rank - axes : -1;
    case UNSQUEEZE:
        axes = axes_of(f, node, 1);
        return axes > 0 && rank >= 0 ? rank + axes : -1;
    }
    return -1;
}

static enum qd_dtype dtype_after(const struct qd_finder *f, const struct qd_node *node, enum rule rule)
{
    int from = qd_finder_in(f, node, rule == CHOICE ? 1 : 0);
    if (rule == CAST)
        return qd_dtype_from_onnx(qd_attr_int(node, "to", 0));
    if (rule == SHAPE)
        return QD_I64;
    return rule == TRUTH ? QD_BOOL : from == QD_NO_VALUE ? QD_NONE : f->dtype[from];
}

/* Elements of an output of rank 1. */
static int length_after(const struct qd_finder *f, const struct qd_node *node, enum rule rule)
{
    int length = 0;
    switch (rule) {
    case SHAPE:
        return node->attr_count ? -1 : rank_in(f, node, 0);
    case CAST:
        return length_in(f, node, 0);
    case GATHER:
        return rank_in(f, node, 0) == 1 ? length_in(f, node, 1) : -1;
    case UNSQUEEZE:
        return rank_in(f, node, 0) == 0 ? 1 : -1;
    case CONCAT:
        for (int i = 0; i < node->in_count; i++) {
            if (length_in(f, node, i) < 0)
                return -1;
            length += length_in(f, node, i);
        }
        return length;
    default:
        return -1;
    }
}

static void follow(struct qd_finder *f, const struct qd_node *node)
{
    if (node->out_count < 1 || node->out[0] == QD_NO_VALUE)
        return;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        if (node->op[0] != rows[r].op[0] || !qd_node_is(node, rows[r].op))
            continue;
        int out = node->out[0], rank = rank_after(f, node, rows[r].rule);
        enum qd_dtype dtype = dtype_after(f, node, rows[r].rule);
        f->dtype[out] = dtype == QD_NONE ? f->dtype[out] : dtype;
        f->rank[out] = rank < 0 ? f->rank[out] : rank;
        int length = f->rank[out] == 1 ? length_after(f, node, rows[r].rule) : -1;
        f->length[out] = length < 0 ? f->length[out] : length;
        return;
    }
}

void qd_patterns_facts(struct qd_finder *f)
{
    for (int v = 0; v < f->graph->value_count; v++) {
        const struct qd_tensor *info = &f->graph->values[v].info;
        f->dtype[v] = info->dtype;
        f->rank[v] = info->shape.rank;
        f->length[v] = info->shape.rank == 1 && info->shape.dims[0] <= QD_MAX_RANK ? (int)info->shape.dims[0] : -1;
    }
    for (int n = 0; n < f->graph->node_count; n++)
        if (!f->removed[n])
            follow(f, &f->graph->nodes[n]);
}
