/* Extents: forms are numbered by what makes them, so that equal recipes get equal numbers. */
#include "engine/plan/extent.h"

#include "engine/ops/round_trip.h"

#include <string.h>

#define SPATIAL_MAX 3

enum recipe { OF_VALUE, OF_WINDOW, OF_ONES };

/* How a form comes about. WINDOW: each dimension d becomes (d + extra) / stride + 1 with `extra` = padding - reach. */
struct form {
    enum recipe recipe;
    int from; /* a form, or a value for OF_VALUE */
    int rule; /* of WINDOW: rounding and automatic padding */
    int64_t stride[SPATIAL_MAX], extra[SPATIAL_MAX];
};

struct extents {
    const struct qd_graph *graph;
    struct qd_extent *of; /* [value_count] */
    struct form *forms;   /* [room] */
    int *batch;           /* [room] form of the tensor that the batch comes from */
    int *buckets;         /* [bucket_count] form, or -1 */
    size_t bucket_count;
    int count;
};

static bool is_one_of(const struct qd_node *node, const char *const *names)
{
    for (; *names; names++)
        if (qd_node_is(node, *names))
            return true;
    return false;
}

static uint64_t hash(const struct form *form)
{
    const int64_t words[] = {form->recipe,    form->from,     form->rule,     form->stride[0], form->stride[1],
                             form->stride[2], form->extra[0], form->extra[1], form->extra[2]};
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        h = (h ^ (uint64_t)words[i]) * 1099511628211u;
    return h ^ h >> 29;
}

static bool same(const struct form *a, const struct form *b)
{
    return a->recipe == b->recipe && a->from == b->from && a->rule == b->rule &&
           memcmp(a->stride, b->stride, sizeof a->stride) == 0 && memcmp(a->extra, b->extra, sizeof a->extra) == 0;
}

static int number_of(struct extents *e, const struct form *form)
{
    size_t at = (size_t)hash(form) % e->bucket_count;
    for (; e->buckets[at] >= 0; at = (at + 1) % e->bucket_count)
        if (same(&e->forms[e->buckets[at]], form))
            return e->buckets[at];
    int id = e->count++;
    e->forms[id] = *form;
    e->batch[id] = form->recipe == OF_VALUE ? id : e->batch[form->from];
    return e->buckets[at] = id;
}

static struct qd_extent fresh(struct extents *e, int value)
{
    struct form form = {.recipe = OF_VALUE, .from = value};
    const struct qd_shape *shape = &e->graph->values[value].info.shape;
    int64_t channels = shape->rank >= 3 && shape->dims[1] > 0 ? shape->dims[1] : -2 - (int64_t)value;
    return (struct qd_extent){number_of(e, &form), channels};
}

/* Reads a list of `count` ints, or fills it. */
static bool ints(const struct qd_node *node, const char *name, int64_t otherwise, int count, int64_t *out)
{
    size_t n;
    const int64_t *values = qd_attr_ints(node, name, &n);
    for (int i = 0; i < count; i++)
        out[i] = values ? (n == (size_t)count ? values[i] : -1) : otherwise;
    return !values || n == (size_t)count;
}

/* Convolution or pooling with this window. False: nothing can be said. */
static bool slide(struct extents *e, const struct qd_node *node, int spatial, const int64_t *kernel,
                  struct qd_extent *extent)
{
    int64_t pads[2 * SPATIAL_MAX], dilation[SPATIAL_MAX];
    struct form form = {.recipe = OF_WINDOW, .from = extent->form, .rule = qd_attr_int(node, "ceil_mode", 0) != 0};
    if (spatial < 1 || spatial > SPATIAL_MAX || !ints(node, "strides", 1, spatial, form.stride) ||
        !ints(node, "dilations", 1, spatial, dilation) || !ints(node, "pads", 0, 2 * spatial, pads))
        return false;
    bool same_size = true;
    bool padded = qd_attr_is(node, "auto_pad", "NOTSET", "SAME_UPPER") ||
                  qd_attr_is(node, "auto_pad", "NOTSET", "SAME_LOWER");
    bool valid = qd_attr_is(node, "auto_pad", "NOTSET", "VALID");
    form.rule |= padded ? 2 : 0;
    for (int i = 0; i < spatial; i++) {
        if (kernel[i] < 1 || kernel[i] > INT32_MAX || dilation[i] < 1 || dilation[i] > INT32_MAX || pads[i] < 0 ||
            pads[i] > INT32_MAX || pads[spatial + i] < 0 || pads[spatial + i] > INT32_MAX)
            return false;
        int64_t reach = (kernel[i] - 1) * dilation[i], padding = valid ? 0 : pads[i] + pads[spatial + i];
        form.extra[i] = padded ? 0 : padding - reach;
        same_size &= form.stride[i] == 1 && form.extra[i] == 0;
    }
    if (!same_size)
        extent->form = number_of(e, &form);
    return true;
}

static bool convolve(struct extents *e, const struct qd_node *node, struct qd_extent *extent)
{
    if (node->in_count < 2 || node->in[1] == QD_NO_VALUE)
        return false;
    const struct qd_shape *w = &e->graph->values[node->in[1]].info.shape;
    if (!e->graph->values[node->in[1]].constant || w->rank < 3 || w->rank > 2 + SPATIAL_MAX)
        return false;
    extent->channels = w->dims[0];
    return slide(e, node, w->rank - 2, w->dims + 2, extent);
}

static bool pool(struct extents *e, const struct qd_node *node, struct qd_extent *extent)
{
    size_t spatial;
    const int64_t *kernel = qd_attr_ints(node, "kernel_shape", &spatial);
    return kernel && spatial <= SPATIAL_MAX && slide(e, node, (int)spatial, kernel, extent);
}

/* A constant that leaves a tensor of `channels` channels as large as it is: one number, or one a channel. */
static bool spreads(const struct qd_tensor *t, int64_t channels)
{
    int64_t elems;
    if (!qd_shape_elems(&t->shape, &elems))
        return false;
    if (elems == 1)
        return t->shape.rank <= 3;
    return elems == channels && t->shape.rank >= 3 && qd_shape_span(&t->shape, 2, t->shape.rank) == 1 &&
           (t->shape.rank == 3 ? t->shape.dims[0] == channels && t->shape.dims[1] == 1 : t->shape.dims[1] == channels);
}

/* Broadcasting of two operands. */
static bool combine(struct extents *e, const struct qd_node *node, struct qd_extent *extent)
{
    if (node->in_count != 2 || node->in[0] == QD_NO_VALUE || node->in[1] == QD_NO_VALUE)
        return false;
    struct qd_extent side[2];
    for (int i = 0; i < 2; i++) {
        side[i] = e->of[node->in[i]];
        if (e->graph->values[node->in[i]].constant &&
            spreads(&e->graph->values[node->in[i]].info, e->of[node->in[1 - i]].channels)) {
            *extent = e->of[node->in[1 - i]];
            return extent->form >= 0;
        }
    }
    if (side[0].form < 0 || side[1].form < 0 || side[0].channels != side[1].channels)
        return false;
    for (int i = 0; i < 2; i++) {
        const struct form *form = &e->forms[side[i].form];
        bool ones = form->recipe == OF_ONES && e->batch[side[i].form] == e->batch[side[1 - i].form];
        if (ones || side[0].form == side[1].form) {
            *extent = side[1 - i];
            return true;
        }
    }
    return false;
}

static struct qd_extent extent_of(struct extents *e, const struct qd_node *node)
{
    static const char *const unary[] = {"Relu",
                                        "Clip",
                                        "LeakyRelu",
                                        "Sigmoid",
                                        "HardSigmoid",
                                        "HardSwish",
                                        "Tanh",
                                        "Elu",
                                        "Selu",
                                        "Gelu",
                                        "Swish",
                                        "Mish",
                                        "Softplus",
                                        "Softsign",
                                        "Erf",
                                        "Exp",
                                        "Abs",
                                        "Neg",
                                        "Sqrt",
                                        "Identity",
                                        "Dropout",
                                        "BatchNormalization",
                                        "InstanceNormalization",
                                        "Softmax",
                                        "PRelu",
                                        "LRN",
                                        NULL};
    static const char *const binary[] = {"Add", "Sub", "Mul", "Div", "Min", "Max", "Pow", NULL};
    static const char *const pools[] = {"MaxPool", "AveragePool", "LpPool", NULL};
    static const char *const globals[] = {"GlobalAveragePool", "GlobalMaxPool", NULL};
    int first = node->in_count ? node->in[0] : QD_NO_VALUE;
    struct qd_extent extent = first == QD_NO_VALUE ? (struct qd_extent){-1, -1} : e->of[first];
    bool known = false;
    if (extent.form >= 0 && (is_one_of(node, unary) || qd_round_trip_of(node))) {
        known = true;
    } else if (is_one_of(node, binary)) {
        known = combine(e, node, &extent);
    } else if (extent.form >= 0 && qd_node_is(node, "Conv")) {
        known = convolve(e, node, &extent);
    } else if (extent.form >= 0 && is_one_of(node, pools)) {
        known = pool(e, node, &extent);
    } else if (extent.form >= 0 && is_one_of(node, globals)) {
        struct form form = {.recipe = OF_ONES, .from = e->batch[extent.form]};
        extent.form = number_of(e, &form);
        known = true;
    }
    return known ? extent : fresh(e, node->out[0]);
}

struct qd_extent *qd_extents(const struct qd_graph *graph, struct qd_arena *arena)
{
    size_t values = (size_t)graph->value_count, room = 2 * values + 1;
    struct extents e = {.graph = graph,
                        .of = qd_arena_alloc(arena, values, sizeof *e.of),
                        .forms = qd_arena_alloc(arena, room, sizeof *e.forms),
                        .batch = qd_arena_alloc(arena, room, sizeof *e.batch),
                        .buckets = qd_arena_alloc(arena, 2 * room, sizeof *e.buckets),
                        .bucket_count = 2 * room};
    if (!e.of || !e.forms || !e.batch || !e.buckets)
        return NULL;
    for (size_t i = 0; i < e.bucket_count; i++)
        e.buckets[i] = -1;
    for (size_t v = 0; v < values; v++)
        e.of[v] = (struct qd_extent){-1, -1};
    for (int i = 0; i < graph->input_count; i++)
        e.of[graph->inputs[i]] = fresh(&e, graph->inputs[i]);
    for (int n = 0; n < graph->node_count; n++)
        for (int o = graph->nodes[n].out_count - 1; o >= 0; o--)
            if (graph->nodes[n].out[o] != QD_NO_VALUE)
                e.of[graph->nodes[n].out[o]] = o ? (struct qd_extent){-1, -1} : extent_of(&e, &graph->nodes[n]);
    return e.of;
}
