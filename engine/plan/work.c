/* The table of operators whose work isn't what they read and write together. */
#include "engine/plan/work.h"

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
