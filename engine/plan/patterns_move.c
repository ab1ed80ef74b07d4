/* Work that another operator does on the way: zero padding before a convolution, the mean over a picture, a product
 * with rows of a single one. */
#include "engine/plan/patterns_impl.h"

#include <string.h>

/* A copy of a node's attributes with one set to a list (replaced or appended) and one, if not NULL, left out. */
static bool set_ints(struct qd_finder *f, struct qd_node *node, const char *name, const int64_t *list, size_t count,
                     const char *without)
{
    struct qd_attr *attrs = qd_arena_alloc(f->arena, (size_t)node->attr_count + 1, sizeof *attrs);
    int64_t *copy = qd_arena_alloc(f->arena, count + 1, sizeof *copy);
    int kept = 0;
    f->out_of_memory |= !attrs || !copy;
    if (!attrs || !copy)
        return false;
    memcpy(copy, list, count * sizeof *copy);
    for (int i = 0; i < node->attr_count; i++)
        if (strcmp(node->attrs[i].name, name) != 0 && (!without || strcmp(node->attrs[i].name, without) != 0))
            attrs[kept++] = node->attrs[i];
    attrs[kept++] = (struct qd_attr){.name = name, .type = QD_ATTR_INTS, .count = count, .ints = copy};
    node->attrs = attrs;
    node->attr_count = kept;
    return true;
}

/* ------------------------------------------------------------------ Pad into Conv */

/* Amounts of a Pad with zeros, [begin of each axis, end of each axis]; false when it is another Pad. */
static bool zero_padding(const struct qd_finder *f, const struct qd_node *pad, int64_t *amounts, size_t *count)
{
    double value = 0;
    if (!qd_attr_is(pad, "mode", "constant", "constant"))
        return false;
    if (pad->opset < 11) {
        const int64_t *given = qd_attr_ints(pad, "pads", count);
        if (!given || *count > 2 * QD_MAX_RANK || qd_attr_float(pad, "value", 0) != 0)
            return false;
        memcpy(amounts, given, *count * sizeof *amounts);
        return true;
    }
    int filler = qd_finder_in(f, pad, 2);
    if (filler != QD_NO_VALUE && (!qd_finder_number(f, filler, 1, &value) || value != 0))
        return false;
    return qd_finder_in(f, pad, 3) == QD_NO_VALUE && qd_finder_ints(f, pad, 1, amounts, 2 * QD_MAX_RANK, count);
}

static bool pad_into_conv(struct qd_finder *f, int n)
{
    struct qd_node *node = &f->graph->nodes[n];
    const struct qd_node *pad = qd_finder_maker(f, qd_finder_in(f, node, 0));
    const struct qd_tensor *w = qd_finder_constant(f, qd_finder_in(f, node, 1));
    int64_t amounts[2 * QD_MAX_RANK], pads[2 * QD_MAX_RANK];
    size_t count, own;
    bool valid = qd_attr_is(node, "auto_pad", "NOTSET", "VALID");
    if (!pad || !qd_node_is(pad, "Pad") || f->readers[pad->out[0]] != 1 || !w ||
        (!valid && !qd_attr_is(node, "auto_pad", "NOTSET", "NOTSET")) || !zero_padding(f, pad, amounts, &count) ||
        count != 2 * (size_t)w->shape.rank || count < 6)
        return false;
    size_t rank = count / 2, spatial = rank - 2;
    const int64_t *given = qd_attr_ints(node, "pads", &own);
    if (given && !valid && own != 2 * spatial)
        return false;
    for (size_t i = 0; i < 2; i++) {
        if (amounts[i * rank] != 0 || amounts[i * rank + 1] != 0)
            return false;
        for (size_t d = 0; d < spatial; d++) {
            int64_t more = amounts[i * rank + 2 + d], at = given && !valid ? given[i * spatial + d] : 0;
            if (more < 0 || more > INT32_MAX || at < 0 || at > INT32_MAX)
                return false;
            pads[i * spatial + d] = at + more;
        }
    }
    int in[3] = {qd_finder_in(f, pad, 0), qd_finder_in(f, node, 1), qd_finder_in(f, node, 2)};
    return in[0] != QD_NO_VALUE && set_ints(f, node, "pads", pads, 2 * spatial, "auto_pad") &&
           qd_finder_set_inputs(f, n, in, node->in_count > 2 ? 3 : 2);
}

/* ------------------------------------------------------------------ ReduceMean into GlobalAveragePool */

/* Axes 2 and 3 of four, in any order and sign. */
static bool over_picture(const struct qd_finder *f, const struct qd_node *node)
{
    int64_t list[QD_MAX_RANK];
    size_t count;
    const int64_t *axes = qd_attr_ints(node, "axes", &count);
    unsigned set = 0;
    if (!axes && qd_finder_ints(f, node, 1, list, QD_MAX_RANK, &count))
        axes = list;
    for (size_t i = 0; axes && i < count; i++) {
        int64_t axis = axes[i] < 0 ? axes[i] + 4 : axes[i];
        if (axis < 0 || axis > 3)
            return false;
        set |= 1u << axis;
    }
    return set == 0xcu;
}

/* With keepdims the same node, else a view of it behind. */
static bool mean_into_pool(struct qd_finder *f, int n)
{
    struct qd_node *node = &f->graph->nodes[n];
    int value = qd_finder_in(f, node, 0);
    if (value == QD_NO_VALUE || f->rank[value] != 4 || f->dtype[value] != QD_F32 || !over_picture(f, node))
        return false;
    struct qd_node pool = {.name = node->name,
                           .op = "GlobalAveragePool",
                           .domain = "",
                           .opset = node->opset,
                           .in_count = 1,
                           .out_count = 1};
    if (qd_attr_int(node, "keepdims", 1)) {
        if (!qd_finder_set_inputs(f, n, &value, 1))
            return false;
        node->op = pool.op;
        node->attr_count = 0;
        return true;
    }
    int *in = qd_arena_alloc(f->arena, 2, sizeof *in);
    f->out_of_memory |= !in;
    struct qd_tensor pooled = {.dtype = QD_F32, .shape = {.rank = 4, .dims = {-1, -1, 1, 1}}};
    int made = in ? qd_finder_add(f, &pooled) : QD_NO_VALUE;
    if (made == QD_NO_VALUE)
        return false;
    f->graph->values[made].constant = false;
    in[0] = value;
    in[1] = made;
    pool.in = in;
    pool.out = in + 1;
    if (!qd_finder_set_inputs(f, n, &made, 1))
        return false;
    f->readers[value]++; /* the pool's */
    f->extra[n] = pool;
    node->op = "Flatten";
    node->attr_count = 0;
    return true;
}

/* ------------------------------------------------------------------ a one-hot product into rows of its matrix */

static int64_t int_at(const struct qd_tensor *t, int64_t i)
{
    return t->dtype == QD_I64 ? ((const int64_t *)t->data)[i] : ((const int32_t *)t->data)[i];
}

/* first, first + 1, ... along the last dimension of an otherwise flat tensor of ints. */
static bool counts_up(const struct qd_tensor *t, int64_t count, int64_t *first)
{
    if (!t || (t->dtype != QD_I32 && t->dtype != QD_I64) || count < 1 || qd_tensor_elems(t) != count ||
        t->shape.rank < 1 || t->shape.dims[t->shape.rank - 1] != count)
        return false;
    *first = int_at(t, 0);
    for (int64_t i = 1; i < count; i++)
        if (*first > INT64_MAX - count || int_at(t, i) != *first + i)
            return false;
    return true;
}

/* MatMul(Cast(Equal(ids, [first, first + 1, ...])), w) */
static bool one_hot_into_rows(struct qd_finder *f, int n)
{
    struct qd_node *node = &f->graph->nodes[n];
    const struct qd_node *cast = qd_finder_maker(f, qd_finder_in(f, node, 0));
    const struct qd_node *equal = cast ? qd_finder_maker(f, qd_finder_in(f, cast, 0)) : NULL;
    const struct qd_tensor *w = qd_finder_constant(f, qd_finder_in(f, node, 1)), *numbers = NULL;
    if (!equal || !w || w->dtype != QD_F32 || w->shape.rank != 2 || !qd_node_is(cast, "Cast") ||
        !qd_node_is(equal, "Equal") || f->readers[cast->out[0]] != 1 || f->readers[equal->out[0]] != 1 ||
        qd_dtype_from_onnx(qd_attr_int(cast, "to", 0)) != QD_F32)
        return false;
    int ids = QD_NO_VALUE;
    int64_t first = 0;
    for (int i = 0; i < 2 && ids == QD_NO_VALUE; i++) {
        numbers = qd_finder_constant(f, qd_finder_in(f, equal, i));
        if (counts_up(numbers, w->shape.dims[0], &first))
            ids = qd_finder_in(f, equal, 1 - i);
    }
    struct qd_attr *attrs = ids == QD_NO_VALUE ? NULL : qd_arena_alloc(f->arena, 2, sizeof *attrs);
    int in[2] = {ids, qd_finder_in(f, node, 1)};
    if (!attrs || qd_finder_constant(f, ids) || !qd_finder_set_inputs(f, n, in, 2))
        return false;
    attrs[0] = (struct qd_attr){.name = "first", .type = QD_ATTR_INT, .count = 1, .i = first};
    attrs[1] = (struct qd_attr){.name = "rank", .type = QD_ATTR_INT, .count = 1, .i = numbers->shape.rank};
    f->graph->values[node->out[0]].info.dtype = QD_F32; /* nobody else knows this operator */
    node->op = "OneHotMatMul";
    node->domain = "quantd";
    node->opset = 1;
    node->attrs = attrs;
    node->attr_count = 2;
    return true;
}

bool qd_patterns_move(struct qd_finder *f, int n)
{
    const struct qd_node *node = &f->graph->nodes[n];
    if (f->extra[n].op)
        return false;
    if (qd_node_is(node, "Conv"))
        return pad_into_conv(f, n);
    if (qd_node_is(node, "MatMul"))
        return one_hot_into_rows(f, n);
    return qd_node_is(node, "ReduceMean") && mean_into_pool(f, n);
}
