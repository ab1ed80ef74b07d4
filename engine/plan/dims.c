/* Dimensions by one pass over the nodes: a rule an operator. What no rule says gets a symbol of its own, which equals
 * nothing else and so is always right. */
#include "engine/plan/dims_impl.h"

#include "engine/ops/round_trip.h"

#include <math.h>

static int64_t broadcast_dim(struct dims_tracer *t, int64_t a, int64_t b)
{
    if (a == b || b == 1)
        return a;
    if (a == 1)
        return b;
    return qd_dim_known(a) ? a : qd_dim_known(b) ? b : dims_fresh(t); /* a number above 1 wins over a symbol */
}

static void broadcast(struct dims_tracer *t, const struct qd_dims *a, const struct qd_dims *b, struct qd_dims *out)
{
    int rank = a->rank > b->rank ? a->rank : b->rank;
    out->rank = a->rank < 0 || b->rank < 0 ? -1 : rank;
    for (int i = 0; i < out->rank; i++) {
        int ia = i - (rank - a->rank), ib = i - (rank - b->rank);
        out->dims[i] = broadcast_dim(t, ia < 0 ? 1 : a->dims[ia], ib < 0 ? 1 : b->dims[ib]);
    }
}

/* ------------------------------------------------------------------ rules: they fill out->rank and dims, or lists */

static void rule_same(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *in = dims_input(t, node, 0);
    out->rank = in->rank;
    memcpy(out->dims, in->dims, sizeof out->dims);
}

static void rule_cast(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *in = dims_input(t, node, 0);
    enum qd_dtype to = qd_dtype_from_onnx(qd_attr_int(node, "to", 0));
    rule_same(t, node, out);
    if (to == QD_I64 || to == QD_I32) {
        out->length = in->length;
        memcpy(out->list, in->list, sizeof out->list);
    } else if (to == QD_F32 && (in->has_number || (in->length == 1 && qd_dim_known(in->list[0])))) {
        out->has_number = true;
        out->number = in->has_number ? in->number : (double)in->list[0];
    }
}

static void rule_sqrt(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *in = dims_input(t, node, 0);
    rule_same(t, node, out);
    out->has_number = in->has_number && in->number >= 0;
    out->number = out->has_number ? sqrt(in->number) : 0;
}

/* One of Add, Sub, Mul, Div, Pow on two numbers; false: not defined. */
static bool calculate(const char *op, double a, double b, double *out)
{
    switch (op[0]) {
    case 'A':
        *out = a + b;
        return true;
    case 'S':
        *out = a - b;
        return true;
    case 'M':
        *out = a * b;
        return true;
    case 'D':
        *out = b != 0 ? a / b : 0;
        return b != 0;
    default:
        *out = pow(a, b);
        return isfinite(*out);
    }
}

/* Two lists of one length, or one of them a single number; sets out->length. */
static bool pair_up(const struct qd_dims *a, const struct qd_dims *b, struct qd_dims *out)
{
    if (a->length < 1 || b->length < 1 || (a->length != b->length && a->length != 1 && b->length != 1))
        return false;
    out->length = a->length > b->length ? a->length : b->length;
    return true;
}

static int64_t element(const struct qd_dims *list, int i) { return list->list[list->length == 1 ? 0 : i]; }

static bool small(int64_t x) { return x > -INT32_MAX && x < INT32_MAX; }

static void rule_arithmetic(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *a = dims_input(t, node, 0), *b = dims_input(t, node, 1);
    double number;
    broadcast(t, a, b, out);
    if (a->has_number && b->has_number)
        out->has_number = calculate(node->op, a->number, b->number, &out->number);
    if (node->op[0] == 'P' || !pair_up(a, b, out))
        return;
    for (int i = 0; i < out->length; i++) {
        int64_t x = element(a, i), y = element(b, i);
        bool known = qd_dim_known(x) && qd_dim_known(y) && small(x) && small(y) &&
                     calculate(node->op, (double)x, (double)y, &number) && (node->op[0] != 'D' || (x >= 0 && y > 0));
        out->list[i] = known ? (int64_t)number : dims_fresh(t);
    }
}

/* Truth of lists: 0 or 1; dimensions are never negative. */
static void rule_equal(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *a = dims_input(t, node, 0), *b = dims_input(t, node, 1);
    broadcast(t, a, b, out);
    if (!pair_up(a, b, out))
        return;
    for (int i = 0; i < out->length; i++) {
        int64_t x = element(a, i), y = element(b, i);
        bool differ = qd_dim_known(x) ? x < 0 || qd_dim_known(y) : qd_dim_known(y) && y < 0;
        out->list[i] = x == y ? 1 : differ ? 0 : dims_fresh(t);
    }
}

static void rule_where(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *c = dims_input(t, node, 0), *a = dims_input(t, node, 1), *b = dims_input(t, node, 2);
    struct qd_dims both;
    broadcast(t, a, b, &both);
    broadcast(t, c, &both, out);
    if (!pair_up(a, b, out) || c->length != out->length)
        return;
    for (int i = 0; i < out->length; i++)
        out->list[i] = c->list[i] == 1 ? element(a, i) : c->list[i] == 0 ? element(b, i) : dims_fresh(t);
}

static void rule_broadcast(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    struct qd_dims sum = *dims_input(t, node, 0);
    for (int i = 1; i < node->in_count; i++) {
        struct qd_dims left = sum;
        broadcast(t, &left, dims_input(t, node, i), &sum);
    }
    out->rank = sum.rank;
    memcpy(out->dims, sum.dims, sizeof out->dims);
}

static void rule_matmul(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *a = dims_input(t, node, 0), *b = dims_input(t, node, 1);
    if (a->rank < 2 || b->rank < 2)
        return;
    struct qd_dims lead_a = *a, lead_b = *b;
    lead_a.rank -= 2;
    lead_b.rank -= 2;
    broadcast(t, &lead_a, &lead_b, out);
    out->dims[out->rank++] = a->dims[a->rank - 2];
    out->dims[out->rank++] = b->dims[b->rank - 1];
}

static void rule_gemm(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *a = dims_input(t, node, 0), *b = dims_input(t, node, 1);
    if (a->rank != 2 || b->rank != 2)
        return;
    out->rank = 2;
    out->dims[0] = a->dims[qd_attr_int(node, "transA", 0) ? 1 : 0];
    out->dims[1] = b->dims[qd_attr_int(node, "transB", 0) ? 0 : 1];
}

static void rule_conv(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *x = dims_input(t, node, 0), *w = dims_input(t, node, qd_node_is(node, "QLinearConv") ? 3 : 1);
    dims_all_fresh(t, out, w->rank);
    if (out->rank < 3)
        return;
    if (w->rank == x->rank)
        out->dims[0] = x->dims[0];
    out->dims[1] = w->dims[0];
}

/* Pools: batch and channels stay. */
static void rule_pool(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *in = dims_input(t, node, 0);
    dims_all_fresh(t, out, in->rank);
    for (int i = 0; i < 2 && i < out->rank; i++)
        out->dims[i] = in->dims[i];
}

static void rule_transpose(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *in = dims_input(t, node, 0);
    size_t count;
    const int64_t *perm = qd_attr_ints(node, "perm", &count);
    if (in->rank < 0 && perm && count <= QD_MAX_RANK)
        dims_all_fresh(t, out, (int)count);
    if (in->rank < 0 || (perm && count != (size_t)in->rank))
        return;
    for (int i = 0; i < in->rank; i++)
        if (perm && (perm[i] < 0 || perm[i] >= in->rank))
            return;
    out->rank = in->rank;
    for (int i = 0; i < in->rank; i++)
        out->dims[i] = in->dims[perm ? perm[i] : in->rank - 1 - i];
}

/* What -1 stands for: all of `in` without the other dimensions, when symbols cancel and numbers divide. */
static int64_t remainder_of(struct dims_tracer *t, const struct qd_dims *in, const struct qd_dims *out, int hole)
{
    int64_t above = 1, below = 1, left = 0;
    bool used[QD_MAX_RANK] = {false};
    int symbols = 0;
    for (int i = 0; i < out->rank; i++) {
        int k = 0;
        if (i == hole)
            continue;
        if (qd_dim_known(out->dims[i])) {
            if (out->dims[i] <= 0 || out->dims[i] > INT32_MAX || below > INT32_MAX)
                return dims_fresh(t);
            below *= out->dims[i];
            continue;
        }
        while (k < in->rank && (used[k] || in->dims[k] != out->dims[i]))
            k++;
        if (k == in->rank)
            return dims_fresh(t);
        used[k] = true;
    }
    for (int k = 0; k < in->rank; k++) {
        if (qd_dim_known(in->dims[k])) {
            if (in->dims[k] > INT32_MAX || above > INT32_MAX)
                return dims_fresh(t);
            above *= in->dims[k];
        } else if (!used[k]) {
            left = in->dims[k];
            symbols++;
        }
    }
    if (symbols == 0 && above % below == 0)
        return above / below;
    return symbols == 1 && above == below ? left : dims_fresh(t);
}

static void rule_reshape(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *in = dims_input(t, node, 0), *target = dims_input(t, node, 1);
    int hole = -1;
    if (target->length < 0) {
        const struct qd_dims *shape = dims_input(t, node, 1);
        dims_all_fresh(t, out, shape->rank == 1 && qd_dim_known(shape->dims[0]) ? (int)shape->dims[0] : -1);
        return;
    }
    out->rank = target->length;
    for (int i = 0; i < out->rank; i++) {
        int64_t dim = target->list[i];
        if (dim == 0 && !qd_attr_int(node, "allowzero", 0))
            dim = i < in->rank ? in->dims[i] : dims_fresh(t);
        if (dim == -1)
            hole = i;
        out->dims[i] = dim;
    }
    if (hole >= 0)
        out->dims[hole] = in->rank < 0 ? dims_fresh(t) : remainder_of(t, in, out, hole);
    out->length = out->rank <= 1 ? in->length : -1; /* a list stays one */
    memcpy(out->list, in->list, sizeof out->list);
}

/* ConstantOfShape, Expand: `i` is the input that holds the dimensions. */
static void by_list(struct dims_tracer *t, const struct qd_node *node, int i, struct qd_dims *out)
{
    const struct qd_dims *list = dims_input(t, node, i);
    if (list->length < 0) {
        dims_all_fresh(t, out, list->rank == 1 && qd_dim_known(list->dims[0]) ? (int)list->dims[0] : -1);
        return;
    }
    out->rank = list->length;
    memcpy(out->dims, list->list, sizeof out->dims);
}

static void rule_constant_of_shape(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_attr *value = qd_attr_find(node, "value");
    size_t count;
    by_list(t, node, 0, out);
    if (out->rank != 1 || !qd_dim_known(out->dims[0]) || out->dims[0] > QD_MAX_RANK || !value ||
        value->type != QD_ATTR_TENSOR || !qd_tensor_ints(&value->t, out->list, 1, &count) || count != 1)
        return;
    out->length = (int)out->dims[0];
    for (int i = 1; i < out->length; i++)
        out->list[i] = out->list[0];
}

static void rule_expand(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    struct qd_dims target = {.rank = -1};
    by_list(t, node, 1, &target);
    broadcast(t, dims_input(t, node, 0), &target, out);
}

static const struct {
    const char *op;
    void (*rule)(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out);
} rows[] = {
    {"Abs", rule_same},
    {"Add", rule_arithmetic},
    {"And", rule_broadcast},
    {"AveragePool", rule_pool},
    {"BatchNormalization", rule_same},
    {"Cast", rule_cast},
    {"Clip", rule_same},
    {"Concat", qd_dims_concat},
    {"ConstantOfShape", rule_constant_of_shape},
    {"Conv", rule_conv},
    {"Cos", rule_same},
    {"CumSum", rule_same},
    {"DequantizeLinear", rule_same},
    {"Div", rule_arithmetic},
    {"Dropout", rule_same},
    {"Elu", rule_same},
    {"Equal", rule_equal},
    {"Erf", rule_same},
    {"Exp", rule_same},
    {"Expand", rule_expand},
    {"Gather", qd_dims_gather},
    {"Gelu", rule_same},
    {"Gemm", rule_gemm},
    {"Greater", rule_broadcast},
    {"GlobalAveragePool", rule_pool},
    {"GlobalMaxPool", rule_pool},
    {"GreaterOrEqual", rule_broadcast},
    {"GroupNormalization", rule_same},
    {"HardSigmoid", rule_same},
    {"HardSwish", rule_same},
    {"Identity", rule_same},
    {"InstanceNormalization", rule_same},
    {"LayerNormalization", rule_same},
    {"LeakyRelu", rule_same},
    {"Less", rule_broadcast},
    {"LessOrEqual", rule_broadcast},
    {"LogSoftmax", rule_same},
    {"MatMul", rule_matmul},
    {"Max", rule_broadcast},
    {"MaxPool", rule_pool},
    {"Min", rule_broadcast},
    {"Mish", rule_same},
    {"Mul", rule_arithmetic},
    {"Neg", rule_same},
    {"Not", rule_same},
    {"Or", rule_broadcast},
    {"Pow", rule_arithmetic},
    {"QLinearConv", rule_conv},
    {"QuantizeLinear", rule_same},
    {"RMSNormalization", rule_same},
    {"Relu", rule_same},
    {"Range", qd_dims_range},
    {"Reshape", rule_reshape},
    {"Shape", qd_dims_shape},
    {"Sigmoid", rule_same},
    {"Sin", rule_same},
    {"Slice", qd_dims_slice},
    {"Softmax", rule_same},
    {"Softplus", rule_same},
    {"Split", qd_dims_split},
    {"Sqrt", rule_sqrt},
    {"Squeeze", qd_dims_squeeze},
    {"Sub", rule_arithmetic},
    {"Swish", rule_same},
    {"Tanh", rule_same},
    {"Transpose", rule_transpose},
    {"Unsqueeze", qd_dims_unsqueeze},
    {"Where", rule_where},
};

/* What the model declares fills what no rule said. */
static void declared(struct dims_tracer *t, int value)
{
    const struct qd_tensor *info = &t->graph->values[value].info;
    struct qd_dims *out = &t->dims[value];
    if (out->rank < 0)
        dims_all_fresh(t, out, info->shape.rank);
    for (int i = 0; i < out->rank && out->rank == info->shape.rank; i++)
        if (!qd_dim_known(out->dims[i]) && info->shape.dims[i] >= 0)
            out->dims[i] = info->shape.dims[i];
}

static void constant(struct dims_tracer *t, int value)
{
    const struct qd_value *v = &t->graph->values[value];
    struct qd_dims *out = &t->dims[value];
    size_t count;
    if (!v->constant || v->is_input || !v->info.data)
        return;
    if (v->info.shape.rank <= 1 && qd_tensor_ints(&v->info, out->list, QD_MAX_RANK, &count))
        out->length = (int)count;
    out->has_number = v->info.dtype == QD_F32 && v->info.shape.rank <= 1 && qd_tensor_elems(&v->info) == 1;
    if (out->has_number)
        out->number = (double)*(const float *)v->info.data;
}

struct qd_dims *qd_dims_find(const struct qd_graph *graph, struct qd_arena *arena)
{
    struct dims_tracer t = {graph, qd_arena_alloc(arena, (size_t)graph->value_count + 1, sizeof(struct qd_dims)), 0};
    bool *made = qd_arena_alloc(arena, (size_t)graph->value_count + 1, sizeof *made);
    if (!t.dims || !made)
        return NULL;
    for (int v = 0; v < graph->value_count; v++)
        t.dims[v] = (struct qd_dims){.rank = -1, .length = -1};
    for (int n = 0; n < graph->node_count; n++)
        for (int o = 0; o < graph->nodes[n].out_count; o++)
            if (graph->nodes[n].out[o] != QD_NO_VALUE)
                made[graph->nodes[n].out[o]] = true;
    for (int v = 0; v < graph->value_count; v++)
        if (!made[v]) {
            constant(&t, v);
            declared(&t, v);
        }
    for (int n = 0; n < graph->node_count; n++) {
        const struct qd_node *node = &graph->nodes[n];
        for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
            if (node->out_count > 0 && node->out[0] != QD_NO_VALUE && qd_node_is(node, rows[r].op))
                rows[r].rule(&t, node, &t.dims[node->out[0]]);
        if (qd_round_trip_of(node))
            rule_same(&t, node, &t.dims[node->out[0]]);
        for (int o = 0; o < node->out_count; o++)
            if (node->out[o] != QD_NO_VALUE)
                declared(&t, node->out[o]);
    }
    return t.dims;
}
