/* Nodes that change nothing, or that one node can do instead of two. */
#include "engine/plan/patterns_impl.h"

#include <math.h>
#include <string.h>

static bool one_output(const struct qd_node *node)
{
    for (int i = 1; i < node->out_count; i++)
        if (node->out[i] != QD_NO_VALUE)
            return false;
    return node->out_count > 0 && node->out[0] != QD_NO_VALUE;
}

/* The node that makes input 0, when it is such an operator with one output. */
static const struct qd_node *before(const struct qd_finder *f, const struct qd_node *node, const char *op)
{
    const struct qd_node *maker = qd_finder_maker(f, qd_finder_in(f, node, 0));
    return maker && qd_node_is(maker, op) ? maker : NULL;
}

static bool identity(struct qd_finder *f, int n)
{
    return qd_finder_bypass(f, n, qd_finder_in(f, &f->graph->nodes[n], 0));
}

/* In inference it is the identity, as long as nobody asks for the mask or for training. */
static bool dropout(struct qd_finder *f, int n)
{
    const struct qd_node *node = &f->graph->nodes[n];
    int training = qd_finder_in(f, node, 2);
    const struct qd_tensor *flag = qd_finder_constant(f, training);
    bool off = training == QD_NO_VALUE || (flag && flag->dtype == QD_BOOL && !*(const uint8_t *)flag->data);
    return off && one_output(node) && identity(f, n);
}

static bool cast(struct qd_finder *f, int n)
{
    const struct qd_node *node = &f->graph->nodes[n];
    int value = qd_finder_in(f, node, 0);
    enum qd_dtype to = qd_dtype_from_onnx(qd_attr_int(node, "to", 0));
    return value != QD_NO_VALUE && to != QD_NONE && f->dtype[value] == to && identity(f, n);
}

static bool single(struct qd_finder *f, int n) { return f->graph->nodes[n].in_count == 1 && identity(f, n); }

/* Of two it is an addition, which convolutions take in. */
static bool sum(struct qd_finder *f, int n)
{
    struct qd_node *node = &f->graph->nodes[n];
    if (node->in_count != 2)
        return single(f, n);
    node->op = "Add";
    node->opset = node->opset < 8 ? 8 : node->opset;
    return true;
}

/* x * 1, x / 1, x + 0, x - 0 in floats. */
static bool neutral(struct qd_finder *f, int n)
{
    const struct qd_node *node = &f->graph->nodes[n];
    bool product = qd_node_is(node, "Mul") || qd_node_is(node, "Div");
    bool ordered = qd_node_is(node, "Sub") || qd_node_is(node, "Div");
    double number;
    for (int i = ordered ? 1 : 0; i < 2 && node->in_count == 2; i++) {
        int other = qd_finder_in(f, node, 1 - i);
        if (other != QD_NO_VALUE && qd_finder_number(f, qd_finder_in(f, node, i), f->rank[other], &number) &&
            number == (product ? 1 : 0))
            return qd_finder_bypass(f, n, other);
    }
    return false;
}

/* A Slice of everything: starts of 0, ends beyond any size, steps of 1. */
static bool slice(struct qd_finder *f, int n)
{
    const struct qd_node *node = &f->graph->nodes[n];
    int64_t starts[QD_MAX_RANK], ends[QD_MAX_RANK], steps[QD_MAX_RANK];
    size_t count[3] = {0, 0, 0};
    if (node->opset < 10 || !qd_finder_ints(f, node, 1, starts, QD_MAX_RANK, &count[0]) ||
        !qd_finder_ints(f, node, 2, ends, QD_MAX_RANK, &count[1]) || count[0] != count[1])
        return false;
    bool stepped = qd_finder_in(f, node, 4) != QD_NO_VALUE;
    if (stepped && (!qd_finder_ints(f, node, 4, steps, QD_MAX_RANK, &count[2]) || count[2] != count[0]))
        return false;
    for (size_t i = 0; i < count[0]; i++)
        if (starts[i] != 0 || ends[i] < INT32_MAX || (stepped && steps[i] != 1))
            return false;
    return identity(f, n);
}

/* ------------------------------------------------------------------ Transpose */

static bool permutation(const struct qd_finder *f, const struct qd_node *node, int64_t *perm, size_t *rank)
{
    const int64_t *given = qd_attr_ints(node, "perm", rank);
    int value = qd_finder_in(f, node, 0);
    if (!given && (value == QD_NO_VALUE || f->rank[value] < 0))
        return false;
    *rank = given ? *rank : (size_t)f->rank[value];
    if (*rank > QD_MAX_RANK)
        return false;
    for (size_t i = 0; i < *rank; i++) {
        perm[i] = given ? given[i] : (int64_t)(*rank - 1 - i);
        if (perm[i] < 0 || perm[i] >= (int64_t)*rank)
            return false;
    }
    return true;
}

/* One that leaves the order goes; two in a row become one. */
static bool transpose(struct qd_finder *f, int n)
{
    struct qd_node *node = &f->graph->nodes[n];
    const struct qd_node *first = before(f, node, "Transpose");
    int64_t outer[QD_MAX_RANK], inner[QD_MAX_RANK];
    size_t rank, inner_rank;
    bool still = true;
    if (!permutation(f, node, outer, &rank))
        return false;
    bool pair = first && permutation(f, first, inner, &inner_rank) && inner_rank == rank;
    for (size_t i = 0; i < rank; i++)
        still = still && (pair ? inner[outer[i]] : outer[i]) == (int64_t)i;
    if (still && qd_finder_bypass(f, n, qd_finder_in(f, pair ? first : node, 0)))
        return true;
    int value = pair ? qd_finder_in(f, first, 0) : QD_NO_VALUE;
    struct qd_attr *attr = pair ? qd_arena_alloc(f->arena, 1, sizeof *attr) : NULL;
    int64_t *perm = pair ? qd_arena_alloc(f->arena, rank + 1, sizeof *perm) : NULL;
    f->out_of_memory |= pair && (!attr || !perm);
    if (!attr || !perm || !qd_finder_set_inputs(f, n, &value, 1))
        return false;
    for (size_t i = 0; i < rank; i++)
        perm[i] = inner[outer[i]];
    *attr = (struct qd_attr){.name = "perm", .type = QD_ATTR_INTS, .count = rank, .ints = perm};
    node->attrs = attr;
    node->attr_count = 1;
    return true;
}

/* ------------------------------------------------------------------ views */

static const char *const views[] = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"};

/* A Reshape to constant dimensions, none copied from the input, of another view reads what that one reads. */
static bool reshape(struct qd_finder *f, int n)
{
    const struct qd_node *node = &f->graph->nodes[n], *first = NULL;
    int64_t dims[QD_MAX_RANK];
    size_t count;
    for (size_t i = 0; i < sizeof views / sizeof views[0] && !first; i++)
        first = before(f, node, views[i]);
    if (!first || node->in_count != 2 || !qd_finder_ints(f, node, 1, dims, QD_MAX_RANK, &count))
        return false;
    for (size_t i = 0; i < count; i++)
        if (dims[i] == 0)
            return false;
    int in[2] = {qd_finder_in(f, first, 0), qd_finder_in(f, node, 1)};
    return in[0] != QD_NO_VALUE && qd_finder_set_inputs(f, n, in, 2);
}

/* The axes of a Squeeze or Unsqueeze, as written. */
static bool axes_of(const struct qd_finder *f, const struct qd_node *node, int64_t *axes, size_t *count)
{
    const int64_t *given = qd_attr_ints(node, "axes", count);
    if (given && *count <= QD_MAX_RANK)
        memcpy(axes, given, *count * sizeof *axes);
    return (given && *count <= QD_MAX_RANK) || qd_finder_ints(f, node, 1, axes, QD_MAX_RANK, count);
}

static bool same_axes(const struct qd_finder *f, const struct qd_node *a, const struct qd_node *b, int64_t *axes,
                      size_t *count)
{
    int64_t other[QD_MAX_RANK];
    size_t other_count;
    return axes_of(f, a, axes, count) && axes_of(f, b, other, &other_count) && *count == other_count && *count > 0 &&
           memcmp(axes, other, *count * sizeof *axes) == 0;
}

/* Unsqueeze of a Squeeze of the same axes, and the other way round: both count them where they exist. */
static bool unsqueeze(struct qd_finder *f, int n)
{
    const struct qd_node *node = &f->graph->nodes[n];
    const struct qd_node *first = before(f, node, qd_node_is(node, "Squeeze") ? "Unsqueeze" : "Squeeze");
    int64_t axes[QD_MAX_RANK];
    size_t count;
    return first && same_axes(f, node, first, axes, &count) && qd_finder_bypass(f, n, qd_finder_in(f, first, 0));
}

/* Squeeze(MatMul(Unsqueeze(x), w)) by axis 0 with a matrix w is MatMul(x, w). The MatMul's node goes, its work moves
 * here: so the step bears the name of the last node. */
static bool squeeze(struct qd_finder *f, int n)
{
    struct qd_node *node = &f->graph->nodes[n];
    const struct qd_node *product = before(f, node, "MatMul"), *first;
    const struct qd_tensor *w = product ? qd_finder_constant(f, qd_finder_in(f, product, 1)) : NULL;
    int64_t axes[QD_MAX_RANK];
    size_t count;
    if (unsqueeze(f, n))
        return true;
    if (!w || w->shape.rank != 2 || !(first = before(f, product, "Unsqueeze")) || f->readers[product->out[0]] != 1 ||
        !same_axes(f, node, first, axes, &count) || count != 1 || axes[0] != 0)
        return false;
    int in[2] = {qd_finder_in(f, first, 0), qd_finder_in(f, product, 1)};
    if (in[0] == QD_NO_VALUE || f->rank[in[0]] < 1 || !qd_finder_set_inputs(f, n, in, 2))
        return false;
    node->op = product->op;
    node->opset = product->opset;
    node->attrs = product->attrs;
    node->attr_count = product->attr_count;
    qd_finder_remove(f, (int)(product - f->graph->nodes));
    return true;
}

/* ------------------------------------------------------------------ Relu and Clip in a row */

static bool bounds(const struct qd_finder *f, const struct qd_node *node, float *lo, float *hi)
{
    double bound;
    *lo = qd_node_is(node, "Relu") ? 0.0f : -INFINITY;
    *hi = INFINITY;
    if (qd_node_is(node, "Relu"))
        return true;
    if (!qd_node_is(node, "Clip"))
        return false;
    if (node->opset < 11) {
        *lo = qd_attr_float(node, "min", -INFINITY);
        *hi = qd_attr_float(node, "max", INFINITY);
        return *lo <= *hi;
    }
    for (int i = 1; i < 3; i++) {
        int value = qd_finder_in(f, node, i);
        if (value == QD_NO_VALUE)
            continue;
        if (!qd_finder_number(f, value, 1, &bound))
            return false;
        *(i == 1 ? lo : hi) = (float)bound;
    }
    return *lo <= *hi;
}

/* A new constant scalar. */
static int scalar(struct qd_finder *f, float number)
{
    float *data = qd_arena_alloc(f->arena, 1, sizeof *data);
    struct qd_tensor tensor = {.dtype = QD_F32, .data = data};
    f->out_of_memory |= !data;
    if (!data)
        return QD_NO_VALUE;
    *data = number;
    return qd_finder_add(f, &tensor);
}

/* Clip of a Clip (Relu is one, from 0): one with both bounds, unless they leave nothing. */
static bool clip(struct qd_finder *f, int n)
{
    struct qd_node *node = &f->graph->nodes[n];
    const struct qd_node *first = qd_finder_maker(f, qd_finder_in(f, node, 0));
    float lo, hi, first_lo, first_hi;
    int value = qd_finder_in(f, node, 0);
    if (!first || f->dtype[value] != QD_F32 || f->readers[value] != 1 || !bounds(f, node, &lo, &hi) ||
        !bounds(f, first, &first_lo, &first_hi))
        return false;
    lo = lo > first_lo ? lo : first_lo;
    hi = hi < first_hi ? hi : first_hi;
    int in[3] = {qd_finder_in(f, first, 0), scalar(f, lo), scalar(f, hi)};
    if (!(lo <= hi) || in[0] == QD_NO_VALUE || in[1] == QD_NO_VALUE || in[2] == QD_NO_VALUE ||
        !qd_finder_set_inputs(f, n, in, 3))
        return false;
    node->op = "Clip";
    node->opset = node->opset < 11 ? 11 : node->opset;
    node->attr_count = 0;
    return true;
}

/* ------------------------------------------------------------------ all of them */

static const struct {
    const char *op;
    bool (*tidy)(struct qd_finder *f, int n);
} rows[] = {
    {"Add", neutral},     {"Cast", cast},           {"Clip", clip},           {"Concat", single},
    {"Div", neutral},     {"Dropout", dropout},     {"Identity", identity},   {"Max", single},
    {"Mean", single},     {"Min", single},          {"Mul", neutral},         {"Relu", clip},
    {"Reshape", reshape}, {"Slice", slice},         {"Squeeze", squeeze},     {"Sub", neutral},
    {"Sum", sum},         {"Transpose", transpose}, {"Unsqueeze", unsqueeze},
};

bool qd_patterns_tidy(struct qd_finder *f, int n)
{
    const struct qd_node *node = &f->graph->nodes[n];
    if (!one_output(node) || f->extra[n].op)
        return false;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (qd_node_is(node, rows[i].op) && rows[i].tidy(f, n))
            return true;
    return false;
}
