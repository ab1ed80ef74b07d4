/* The table of operators whose work isn't what they read and write together. */
#include "engine/plan/work.h"

#include "engine/ops/attention.h"

#include <string.h>

enum growth {
    ROWS,     /* outputs times the last dimension of input 0 */
    LONGEST,  /* outputs times the longest dimension of input 0 (which one is multiplied depends on attributes) */
    FILTERS,  /* outputs times the elements of one filter */
    WINDOWS,  /* outputs times the elements of a window */
    SQUARE,   /* everything with everything */
    PRODUCTS, /* all inputs' elements multiplied: no more than that, whatever the attributes */
};

static const struct row {
    const char *op;
    enum growth growth;
    int input; /* the filters' */
} rows[] = {
    {"MatMul", ROWS, 0},
    {"MatMulInteger", ROWS, 0},
    {"QLinearMatMul", ROWS, 0},
    {"Gemm", LONGEST, 0},
    {"Conv", FILTERS, 1},
    {"ConvInteger", FILTERS, 1},
    {"QLinearConv", FILTERS, 3},
    {"DeformConv", FILTERS, 1},
    {"AveragePool", WINDOWS, 0},
    {"MaxPool", WINDOWS, 0},
    {"LpPool", WINDOWS, 0},
    {"LRN", WINDOWS, 0},
    {"DFT", LONGEST, 0},
    {"Det", SQUARE, 0},
    {"NonMaxSuppression", SQUARE, 0},
    {"Resize", LONGEST, 0}, /* with antialiasing a window is as wide as the scale */
    {"RoiAlign", SQUARE, 0},
    {"MaxRoiPool", SQUARE, 0},
    {"STFT", LONGEST, 0},
    {"TfIdfVectorizer", SQUARE, 0},
    {"Attention", PRODUCTS, 0},
    {"CausalConvWithState", PRODUCTS, 0},
    {"ConvTranspose", PRODUCTS, 0},
    {"Einsum", PRODUCTS, 0},
    {"GRU", PRODUCTS, 0},
    {"LSTM", PRODUCTS, 0},
    {"LinearAttention", PRODUCTS, 0},
    {"RNN", PRODUCTS, 0},
};

static double elems(const struct qd_tensor *tensor)
{
    double all = 1;
    for (int d = 0; d < tensor->shape.rank; d++)
        all *= (double)tensor->shape.dims[d];
    return tensor->dtype == QD_NONE ? 0 : all;
}

static double per_output(const struct qd_call *call, const struct row *row)
{
    double most = 1;
    if (row->input >= call->in_count)
        return 1;
    const struct qd_shape *shape = &call->in[row->input].shape;
    if (row->growth == FILTERS)
        return shape->rank > 0 && shape->dims[0] > 0 ? elems(&call->in[row->input]) / (double)shape->dims[0] : 1;
    for (int d = row->growth == ROWS && shape->rank > 0 ? shape->rank - 1 : 0; d < shape->rank; d++)
        most = (double)shape->dims[d] > most ? (double)shape->dims[d] : most;
    return most;
}

static double window(const struct qd_node *node)
{
    size_t count;
    const int64_t *sizes = qd_attr_ints(node, "kernel_shape", &count);
    double all = (double)qd_attr_int(node, "size", 1); /* LRN's */
    for (size_t i = 0; sizes && i < count; i++)
        all *= (double)sizes[i];
    return all > 1 ? all : 1;
}

double qd_op_work(const struct qd_call *call)
{
    double in = 0, out = 0, products = 1;
    for (int i = 0; i < call->in_count; i++) {
        double n = elems(&call->in[i]);
        in += n;
        products *= n > 1 ? n : 1;
    }
    for (int i = 0; i < call->out_count; i++)
        out += elems(&call->out[i]);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].op, call->node->op) != 0)
            continue;
        switch (rows[i].growth) {
        case SQUARE:
            return (in + out) * (in + out);
        case PRODUCTS:
            return products + in + out;
        case WINDOWS:
            return in + out * window(call->node);
        default:
            return in + out * per_output(call, &rows[i]);
        }
    }
    return in + out;
}

/* ------------------------------------------------------------------ multiply-adds */

static double matmul(const struct qd_call *call)
{
    const struct qd_shape *a = &call->in[0].shape;
    return a->rank ? elems(&call->out[0]) * (double)a->dims[a->rank - 1] : 0;
}

static double gemm(const struct qd_call *call)
{
    bool turned = qd_attr_int(call->node, "transA", 0) != 0;
    return elems(&call->out[0]) * (double)call->in[0].shape.dims[turned ? 0 : 1];
}

static double convolution(const struct qd_call *call)
{
    int at = strcmp(call->node->op, "QLinearConv") == 0 ? 3 : 1;
    const struct qd_tensor *w = &call->in[at];
    return w->shape.dims[0] ? elems(&call->out[0]) * elems(w) / (double)w->shape.dims[0] : 0;
}

static double transposed(const struct qd_call *call)
{
    const struct qd_tensor *w = &call->in[1];
    return w->shape.dims[0] ? elems(&call->in[0]) * elems(w) / (double)w->shape.dims[0] : 0;
}

/* Every step multiplies by all of W and R. */
static double recurrent(const struct qd_call *call)
{
    const struct qd_shape *x = &call->in[0].shape;
    return (double)x->dims[0] * (double)x->dims[1] * (elems(&call->in[1]) + elems(&call->in[2]));
}

/* Scores, and values by scores: the first has as many products an element as heads are wide in Q and K, the second as
 * in V, and both as many elements as there are keys. */
static double attention(const struct qd_call *call)
{
    const struct qd_attention *p = call->node->domain[0] ? call->prep : NULL;
    const struct qd_shape *q = &call->in[0].shape, *k = &call->in[1].shape, *v = &call->in[2].shape;
    const struct qd_tensor *past = !p && call->in_count > 4 ? &call->in[4] : NULL;
    bool split = p ? !p->k.rows && k->rank == 4 : k->rank == 4;
    double keys = (double)k->dims[split ? 2 : 1], size, value_size;
    if (past && past->dtype != QD_NONE)
        keys += (double)past->shape.dims[2];
    if (p) {
        size = p->q.rows ? (double)p->size : (double)q->dims[q->rank - 1];
        value_size = p->v.rows ? (double)p->value_size : (double)v->dims[v->rank - 1];
    } else {
        double heads = (double)qd_attr_int(call->node, "q_num_heads", 1), groups = heads;
        groups = (double)qd_attr_int(call->node, "kv_num_heads", (int64_t)groups);
        size = (double)q->dims[q->rank - 1] / (q->rank == 3 && heads > 0 ? heads : 1);
        value_size = (double)v->dims[v->rank - 1] / (v->rank == 3 && groups > 0 ? groups : 1);
    }
    return value_size > 0 ? elems(&call->out[0]) * keys * (size + value_size) / value_size : 0;
}

uint64_t qd_op_macs(const struct qd_call *call)
{
    static const struct {
        const char *op;
        double (*count)(const struct qd_call *call);
    } products[] = {
        {"MatMul", matmul},
        {"MatMulInteger", matmul},
        {"QLinearMatMul", matmul},
        {"Gemm", gemm},
        {"Conv", convolution},
        {"ConvInteger", convolution},
        {"DeformConv", convolution},
        {"QLinearConv", convolution},
        {"ConvTranspose", transposed},
        {"GRU", recurrent},
        {"LSTM", recurrent},
        {"RNN", recurrent},
        {"Attention", attention},
    };
    for (size_t i = 0; i < sizeof products / sizeof products[0]; i++)
        if (strcmp(products[i].op, call->node->op) == 0) {
            double count = products[i].count(call);
            return count < 1e18 ? (uint64_t)count : (uint64_t)1e18;
        }
    return 0;
}
