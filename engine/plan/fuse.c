/* Fusing: batch normalization, constant additions, sums with a tensor of the same shape, activations and what scales
 * them go into the linear layer before them. */
#include "engine/plan/fuse.h"

#include "engine/plan/extent.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fuser {
    const struct qd_graph *graph;
    struct qd_arena *arena;
    int *readers; /* [value_count] how often a node or the model's outputs read it */
    int *reader;  /* [value_count] the last node that reads it */
    bool *merged; /* [node_count] */
    const struct qd_extent *extents;
    bool out_of_memory; /* what could not be merged for that would make another plan: compiling stops */
};

/* The only reader of a value, or NULL when there are more, none, or the model gives it out. */
static const struct qd_node *sole_reader(const struct fuser *f, int value)
{
    return f->readers[value] == 1 && f->reader[value] >= 0 ? &f->graph->nodes[f->reader[value]] : NULL;
}

/* Output 0 and no other: what a linear step, or a node merged into one, can make. */
static bool one_output(const struct qd_node *node)
{
    for (int i = 1; i < node->out_count; i++)
        if (node->out[i] != QD_NO_VALUE)
            return false;
    return node->out_count > 0 && node->out[0] != QD_NO_VALUE;
}

static const struct qd_tensor *constant_f32(const struct qd_graph *graph, int value)
{
    if (value == QD_NO_VALUE)
        return NULL;
    const struct qd_value *v = &graph->values[value];
    return v->constant && !v->is_input && v->info.dtype == QD_F32 && v->info.data ? &v->info : NULL;
}

/* A constant of one number per channel, whatever its rank: [N], or [N, 1, 1] against a convolution's [B, N, H, W]; also
 * a scalar. */
static bool per_channel(const struct qd_tensor *t, const struct qd_unit *unit, int out_rank, bool conv)
{
    int64_t elems;
    if (!t || !qd_shape_elems(&t->shape, &elems))
        return false;
    if (elems == 1)
        return t->shape.rank <= (out_rank > 0 ? out_rank : 1);
    if (elems != unit->outputs || out_rank <= 0 || t->shape.rank > out_rank)
        return false;
    int channel_axis = conv ? 1 : out_rank - 1, axis = channel_axis - (out_rank - t->shape.rank);
    return axis >= 0 && t->shape.dims[axis] == unit->outputs;
}

static float *floats(struct fuser *f, struct qd_unit *unit, float fill)
{
    float *values = qd_arena_alloc(f->arena, (size_t)unit->outputs, sizeof *values);
    f->out_of_memory |= !values;
    for (int64_t i = 0; values && i < unit->outputs; i++)
        values[i] = fill;
    return values;
}

static bool ensure(struct fuser *f, struct qd_unit *unit)
{
    if (!unit->factor)
        unit->factor = floats(f, unit, 1);
    if (!unit->bias)
        unit->bias = floats(f, unit, 0);
    return unit->factor && unit->bias;
}

static float at(const struct qd_tensor *t, int64_t i)
{
    return ((const float *)t->data)[qd_tensor_elems(t) == 1 ? 0 : i];
}

static bool merge_batch_norm(struct fuser *f, struct qd_unit *unit, const struct qd_node *node)
{
    const struct qd_tensor *p[4]; /* scale, bias, mean, variance */
    if (node->in_count < 5 || qd_attr_int(node, "training_mode", 0) != 0)
        return false;
    for (int i = 0; i < 4; i++) {
        p[i] = constant_f32(f->graph, node->in[i + 1]);
        if (!p[i] || qd_tensor_elems(p[i]) != unit->outputs)
            return false;
    }
    if (!ensure(f, unit))
        return false;
    float epsilon = qd_attr_float(node, "epsilon", 1e-5f);
    for (int64_t i = 0; i < unit->outputs; i++)
        if (!isfinite(at(p[0], i) / sqrtf(at(p[3], i) + epsilon) * unit->factor[i]))
            return false; /* weights times that could not be quantized */
    for (int64_t i = 0; i < unit->outputs; i++) {
        float g = at(p[0], i) / sqrtf(at(p[3], i) + epsilon);
        unit->bias[i] = (unit->bias[i] - at(p[2], i)) * g + at(p[1], i);
        unit->factor[i] *= g;
    }
    return true;
}

/* Add, Sub (constant second), Mul, Div (constant second) with one number per channel. */
static bool merge_arithmetic(struct fuser *f, struct qd_unit *unit, const struct qd_node *node, bool conv)
{
    if (node->in_count != 2)
        return false;
    bool first = node->in[0] == unit->out;
    const struct qd_tensor *c = constant_f32(f->graph, node->in[first ? 1 : 0]);
    const struct qd_node *anchor = &f->graph->nodes[unit->node];
    int rank = f->graph->values[conv ? anchor->in[1] : unit->out].info.shape.rank;
    if (!first && (qd_node_is(node, "Sub") || qd_node_is(node, "Div")))
        return false;
    if (rank < 0 && c && qd_tensor_elems(c) == unit->outputs && !conv && c->shape.rank == 1)
        rank = 2; /* a vector added to rows fits whatever their rank is */
    if (!per_channel(c, unit, rank, conv) || !ensure(f, unit))
        return false;
    bool scales = qd_node_is(node, "Mul") || qd_node_is(node, "Div");
    for (int64_t i = 0; scales && i < unit->outputs; i++)
        if (!isfinite(qd_node_is(node, "Mul") ? at(c, i) * unit->factor[i] : 1 / at(c, i) * unit->factor[i]))
            return false; /* weights times that could not be quantized */
    for (int64_t i = 0; i < unit->outputs; i++) {
        float v = at(c, i);
        if (qd_node_is(node, "Add"))
            unit->bias[i] += v;
        else if (qd_node_is(node, "Sub"))
            unit->bias[i] -= v;
        else {
            float scale = qd_node_is(node, "Mul") ? v : 1 / v;
            unit->bias[i] *= scale;
            unit->factor[i] *= scale;
        }
    }
    return true;
}

/* Bounds of a Relu or Clip. */
static bool read_clip(const struct fuser *f, const struct qd_node *node, struct qd_activation *act)
{
    float lo = -INFINITY, hi = INFINITY;
    if (qd_node_is(node, "Relu")) {
        lo = 0;
    } else if (node->opset < 11) {
        lo = qd_attr_float(node, "min", -INFINITY);
        hi = qd_attr_float(node, "max", INFINITY);
    } else {
        float *bound[2] = {&lo, &hi};
        for (int i = 1; i <= 2 && i < node->in_count; i++) {
            if (node->in[i] == QD_NO_VALUE)
                continue;
            const struct qd_tensor *t = constant_f32(f->graph, node->in[i]);
            if (!t || qd_tensor_elems(t) != 1)
                return false;
            *bound[i - 1] = *(const float *)t->data;
        }
    }
    *act = (struct qd_activation){.kind = QD_ACT_CLIP, .a = lo, .b = hi};
    return !(lo > hi) && lo == lo && hi == hi;
}

static bool append_name(struct fuser *f, struct qd_unit *unit, const char *name)
{
    size_t old = strlen(unit->fused), n = strlen(name);
    char *text = qd_arena_alloc(f->arena, old + n + 2, 1);
    f->out_of_memory |= !text;
    if (!text)
        return false;
    snprintf(text, old + n + 2, "%s%s%s", unit->fused, old ? "," : "", name);
    unit->fused = text;
    return true;
}

/* The activation that a node is; false: none that an epilogue has. */
static bool read_activation(const struct fuser *f, const struct qd_node *node, struct qd_activation *act)
{
    static const struct {
        const char *op;
        enum qd_act kind;
        float a, b; /* the attributes' defaults */
    } rows[] = {
        {"HardSigmoid", QD_ACT_HARD_SIGMOID, 0.2f, 0.5f},
        {"HardSwish", QD_ACT_HARD_SWISH, 1.0f / 6, 0.5f},
        {"Sigmoid", QD_ACT_SIGMOID, 0, 0},
        {"Swish", QD_ACT_SILU, 0, 0},
        {"Gelu", QD_ACT_GELU, 0, 0},
        {"Tanh", QD_ACT_TANH, 0, 0},
        {"LeakyRelu", QD_ACT_LEAKY_RELU, 0.01f, 0},
    };
    if (qd_node_is(node, "Relu") || qd_node_is(node, "Clip"))
        return read_clip(f, node, act);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!qd_node_is(node, rows[i].op))
            continue;
        *act = (struct qd_activation){.kind = rows[i].kind, .a = rows[i].a, .b = rows[i].b};
        if (act->kind == QD_ACT_HARD_SIGMOID || act->kind == QD_ACT_LEAKY_RELU)
            act->a = qd_attr_float(node, "alpha", act->a);
        if (act->kind == QD_ACT_HARD_SIGMOID)
            act->b = qd_attr_float(node, "beta", act->b);
        if (act->kind == QD_ACT_GELU && qd_attr_is(node, "approximate", "none", "tanh"))
            act->kind = QD_ACT_GELU_TANH;
        return act->kind != QD_ACT_SILU || qd_attr_float(node, "alpha", 1) == 1.0f;
    }
    return false;
}

/* After the activation: one constant number times, or plus, all values; each once, in this order. */
static bool merge_affine(struct fuser *f, struct qd_unit *unit, const struct qd_node *node)
{
    struct qd_activation *act = &unit->act;
    bool mul = qd_node_is(node, "Mul"), first = node->in_count == 2 && node->in[0] == unit->out;
    if ((!mul && !qd_node_is(node, "Add")) || node->in_count != 2)
        return false;
    const struct qd_tensor *c = constant_f32(f->graph, node->in[first ? 1 : 0]);
    if (!c || qd_tensor_elems(c) != 1 || c->shape.rank > 1 || (mul && act->affine) || (!mul && act->add != 0))
        return false;
    if (!act->affine)
        act->mul = 1;
    act->affine = true;
    *(mul ? &act->mul : &act->add) = at(c, 0);
    return isfinite(act->mul) && isfinite(act->add);
}

/* A sum with another tensor that surely has the same shape. */
static bool merge_residual(struct fuser *f, struct qd_unit *unit, const struct qd_node *node)
{
    if (!qd_node_is(node, "Add") || node->in_count != 2 || unit->residual != QD_NO_VALUE)
        return false;
    int other = node->in[node->in[0] == unit->out ? 1 : 0];
    if (other == QD_NO_VALUE || other == unit->out || f->graph->values[other].constant ||
        !qd_extent_equal(f->extents[other], f->extents[unit->out]))
        return false;
    unit->residual = other;
    return true;
}

static bool merge_one(struct fuser *f, struct qd_unit *unit, const struct qd_node *next, bool conv)
{
    if (unit->act.kind != QD_ACT_NONE)
        return merge_affine(f, unit, next);
    if (read_activation(f, next, &unit->act)) {
        if (next->in[0] == unit->out)
            return true;
        unit->act = (struct qd_activation){.kind = QD_ACT_NONE};
        return false;
    }
    unit->act = (struct qd_activation){.kind = QD_ACT_NONE};
    if (unit->residual != QD_NO_VALUE)
        return false;
    if (qd_node_is(next, "BatchNormalization"))
        return conv && next->in[0] == unit->out && merge_batch_norm(f, unit, next);
    bool arithmetic = qd_node_is(next, "Add") || qd_node_is(next, "Sub") || qd_node_is(next, "Mul") ||
                      qd_node_is(next, "Div");
    return (arithmetic && merge_arithmetic(f, unit, next, conv)) || (conv && merge_residual(f, unit, next));
}

/* Merges the sole reader of the unit's output when it can be; false ends the chain. */
static bool merge_next(struct fuser *f, struct qd_unit *unit, bool conv)
{
    const struct qd_node *next = sole_reader(f, unit->out);
    struct qd_unit before = *unit;
    if (!next || !one_output(next) || f->merged[next - f->graph->nodes])
        return false;
    if (!merge_one(f, unit, next, conv)) {
        before.factor = unit->factor; /* made, but still neutral */
        before.bias = unit->bias;
        *unit = before;
        return false;
    }
    f->merged[next - f->graph->nodes] = true;
    unit->out = next->out[0];
    unit->last = (int)(next - f->graph->nodes);
    if (unit->act.kind == QD_ACT_NONE && unit->residual == QD_NO_VALUE)
        unit->folded = unit->out;
    return append_name(f, unit, next->name);
}

/* A unit runs where its last node stood: by then all that it reads is there. */
static int by_last(const void *a, const void *b)
{
    const struct qd_unit *x = a, *y = b;
    return x->last < y->last ? -1 : x->last > y->last;
}

/* The node's own bias input becomes the unit's. False when there is one that is no constant vector. */
static bool own_bias(struct fuser *f, struct qd_unit *unit, const struct qd_node *node)
{
    if (node->in_count < 3 || node->in[2] == QD_NO_VALUE)
        return true;
    const struct qd_tensor *bias = constant_f32(f->graph, node->in[2]);
    int64_t elems = bias ? qd_tensor_elems(bias) : 0;
    if (!bias || (elems != unit->outputs && (elems != 1 || qd_node_is(node, "Conv"))) ||
        (elems > 1 && bias->shape.dims[bias->shape.rank - 1] != elems))
        return false;
    float beta = qd_node_is(node, "Gemm") ? qd_attr_float(node, "beta", 1) : 1;
    unit->bias = floats(f, unit, 0);
    for (int64_t i = 0; unit->bias && i < unit->outputs; i++)
        unit->bias[i] = beta * at(bias, i);
    return unit->bias != NULL;
}

static void count_readers(struct fuser *f)
{
    for (int v = 0; v < f->graph->value_count; v++)
        f->reader[v] = -1;
    for (int n = 0; n < f->graph->node_count; n++)
        for (int i = 0; i < f->graph->nodes[n].in_count; i++)
            if (f->graph->nodes[n].in[i] != QD_NO_VALUE) {
                f->readers[f->graph->nodes[n].in[i]]++;
                f->reader[f->graph->nodes[n].in[i]] = n;
            }
    for (int i = 0; i < f->graph->output_count; i++)
        f->readers[f->graph->outputs[i]] += 2; /* never the sole reader's */
}

struct qd_linear_spec qd_unit_spec(const struct qd_graph *graph, const struct qd_unit *unit)
{
    const struct qd_node *node = &graph->nodes[unit->node];
    struct qd_linear_spec spec = {.node = node,
                                  .weights = &graph->values[node->in[1]].info,
                                  .factor = unit->factor,
                                  .bias = unit->bias,
                                  .act = unit->act,
                                  .residual = unit->residual != QD_NO_VALUE};
    if (qd_linear_given(graph, node, &spec.given))
        spec.given.q = NULL; /* quantized here */
    return spec;
}

enum qd_status qd_fuse(const struct qd_graph *graph, struct qd_arena *arena, struct qd_unit **units, int *unit_count,
                       struct qd_error *error)
{
    struct fuser f = {graph,
                      arena,
                      qd_arena_alloc(arena, (size_t)graph->value_count, sizeof(int)),
                      qd_arena_alloc(arena, (size_t)graph->value_count, sizeof(int)),
                      qd_arena_alloc(arena, (size_t)graph->node_count, sizeof(bool)),
                      qd_extents(graph, arena),
                      false};
    *units = qd_arena_alloc(arena, (size_t)graph->node_count, sizeof **units);
    *unit_count = 0;
    if (!f.readers || !f.reader || !f.merged || !f.extents || !*units)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
    count_readers(&f);
    for (int n = 0; n < graph->node_count; n++) {
        const struct qd_node *node = &graph->nodes[n];
        if (f.merged[n])
            continue;
        struct qd_unit *unit = &(*units)[(*unit_count)++];
        *unit = (struct qd_unit){.node = n,
                                 .last = n,
                                 .out = node->out_count ? node->out[0] : QD_NO_VALUE,
                                 .residual = QD_NO_VALUE,
                                 .fused = ""};
        unit->folded = unit->out;
        unit->outputs = qd_linear_outputs(graph, node);
        unit->linear = unit->outputs > 0 && one_output(node) && own_bias(&f, unit, node);
        bool conv = qd_node_is(node, "Conv") || qd_node_is(node, "ConvTranspose");
        while (unit->linear && merge_next(&f, unit, conv))
            ;
    }
    qsort(*units, (size_t)*unit_count, sizeof **units, by_last);
    return f.out_of_memory ? qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model") : QD_OK;
}
