/* FP32 inside: casts where other floating types come in, and where they go out. See floats.h. */
#include "engine/plan/floats.h"

#include "engine/plan/control.h"
#include "engine/plan/types.h"

#include <stdio.h>
#include <string.h>

enum { SELF = -1, PENDING = -2 };

#define CAST_OPSET 13 /* for models of other domains only, that import no opset of the standard's */

/* They only move what stands at input 0 (Concat: at each), whatever its type is: no twin is needed before them. */
static const char MOVERS[] =
    " Compress Concat DepthToSpace Expand Flatten Gather GatherElements GatherND Identity Reshape "
    "Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze ";

struct unifier {
    struct qd_graph *graph;
    struct qd_arena *arena;
    const struct qd_type *types; /* [value count at the start] */
    int *twins; /* [value_room] of a value that really is of another floating type: its FP32 twin, PENDING before it is
                   read; SELF: it is FP32, or no float */
    struct qd_node *nodes;
    int node_count;
    bool out_of_memory;
};

static bool other_float(enum qd_dtype dtype) { return dtype == QD_F16 || dtype == QD_BF16 || dtype == QD_F64; }

/* The other floating type that an attribute names for output 0, or QD_NONE. */
static enum qd_dtype named_float(const struct qd_node *node)
{
    static const char *const names[] = {"to", "dtype", "output_dtype", "output_datatype"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        enum qd_dtype dtype = qd_dtype_from_onnx(qd_attr_int(node, names[i], 0));
        if (other_float(dtype))
            return dtype;
    }
    const struct qd_attr *value = qd_attr_find(node, "value");
    return value && value->type == QD_ATTR_TENSOR && other_float(value->t.dtype) ? value->t.dtype : QD_NONE;
}

static bool concerned(const struct qd_graph *graph)
{
    for (int v = 0; v < graph->value_count; v++)
        if (other_float(graph->values[v].info.dtype))
            return true;
    for (int n = 0; n < graph->node_count; n++)
        if (named_float(&graph->nodes[n]) != QD_NONE)
            return true;
    return false;
}

/* Room for all that could be added: a twin of each value, a cast before each boundary's input, one per output. */
static bool make_room(struct unifier *u)
{
    struct qd_graph *graph = u->graph;
    size_t inputs = 0, values, nodes;
    for (int n = 0; n < graph->node_count; n++)
        inputs += (size_t)graph->nodes[n].in_count;
    values = 2 * (size_t)graph->value_count + inputs + (size_t)graph->output_count;
    nodes = (size_t)graph->node_count + values;
    struct qd_value *more = qd_arena_alloc(u->arena, values, sizeof *more);
    int *outputs = qd_arena_alloc(u->arena, (size_t)graph->output_count, sizeof *outputs);
    u->types = qd_types(graph, u->arena);
    u->twins = qd_arena_alloc(u->arena, values, sizeof *u->twins);
    u->nodes = qd_arena_alloc(u->arena, nodes, sizeof *u->nodes);
    if (!more || !outputs || !u->types || !u->twins || !u->nodes)
        return false;
    if (graph->value_count)
        memcpy(more, graph->values, (size_t)graph->value_count * sizeof *more);
    if (graph->output_count)
        memcpy(outputs, graph->outputs, (size_t)graph->output_count * sizeof *outputs);
    for (size_t v = 0; v < values; v++)
        u->twins[v] = SELF;
    graph->values = more;
    graph->outputs = outputs;
    return true;
}

/* A new value: `from` cast to a type. */
static int add_cast(struct unifier *u, int from, enum qd_dtype to)
{
    struct qd_graph *graph = u->graph;
    const int made = graph->value_count++;
    int *ids = qd_arena_alloc(u->arena, 2, sizeof *ids);
    struct qd_attr *attr = qd_arena_alloc(u->arena, 1, sizeof *attr);
    if (!ids || !attr) {
        u->out_of_memory = true;
        return from;
    }
    const struct qd_value *source = &graph->values[from];
    graph->values[made] = (struct qd_value){
        .name = source->name, .info = source->info, .producer = u->node_count, .outer = QD_NO_VALUE};
    graph->values[made].info.dtype = to;
    graph->values[made].info.data = NULL;
    ids[0] = from;
    ids[1] = made;
    *attr = (struct qd_attr){.name = "to", .type = QD_ATTR_INT, .count = 1, .i = qd_dtype_to_onnx(to)};
    u->nodes[u->node_count++] = (struct qd_node){.name = source->name,
                                                 .op = "Cast",
                                                 .domain = "",
                                                 .opset = graph->opset ? graph->opset : CAST_OPSET,
                                                 .in_count = 1,
                                                 .out_count = 1,
                                                 .attr_count = 1,
                                                 .in = ids,
                                                 .out = ids + 1,
                                                 .attrs = attr};
    return made;
}

/* The FP32 value to read in the place of another. */
static int twin_of(struct unifier *u, int value)
{
    if (u->twins[value] == PENDING)
        u->twins[value] = add_cast(u, value, QD_F32);
    return u->twins[value] == SELF ? value : u->twins[value];
}

/* ------------------------------------------------------------------ nodes */

/* What the model says the output of a body, and so of its node, is. */
static enum qd_dtype body_output(const struct qd_node *node, int output)
{
    const struct qd_bodies *bodies = node->program;
    const struct qd_graph *body = &bodies->bodies[0].graph;
    const int at = output + (qd_control_kind(node) == QD_CONTROL_LOOP); /* behind the condition */
    return at < body->output_count ? body->values[body->outputs[at]].info.dtype : QD_NONE;
}

/* Input i in the type that the model gives it. */
static int as_declared(struct unifier *u, int value, enum qd_dtype dtype)
{
    return u->twins[value] == SELF && other_float(dtype) ? add_cast(u, value, dtype) : value;
}

/* The type that a mover hands on as it is, or QD_NONE. */
static enum qd_dtype moved_float(const struct unifier *u, const struct qd_node *node)
{
    char name[32];
    snprintf(name, sizeof name, " %.28s ", node->op);
    if (node->domain[0] || !strstr(MOVERS, name) || node->in_count < 1 || node->in[0] == QD_NO_VALUE)
        return QD_NONE;
    const enum qd_dtype dtype = u->graph->values[node->in[0]].info.dtype;
    for (int i = 0; i < (qd_node_is(node, "Concat") ? node->in_count : 1); i++)
        if (node->in[i] == QD_NO_VALUE || u->twins[node->in[i]] == SELF ||
            u->graph->values[node->in[i]].info.dtype != dtype)
            return QD_NONE;
    return dtype;
}

static int input_of(struct unifier *u, const struct qd_node *node, int value)
{
    if (moved_float(u, node) != QD_NONE)
        return value;
    if (qd_control_kind(node) != QD_CONTROL_NONE)
        return as_declared(u, value, u->graph->values[value].info.dtype);
    return qd_node_is(node, "BitCast") ? as_declared(u, value, u->types[value].dtype) : twin_of(u, value);
}

static enum qd_dtype output_of(const struct unifier *u, const struct qd_node *node, int output)
{
    const enum qd_dtype moved = moved_float(u, node);
    if (qd_control_kind(node) != QD_CONTROL_NONE)
        return body_output(node, output);
    return moved != QD_NONE ? moved : output == 0 ? named_float(node) : QD_NONE;
}

/* CastLike by the type that its second input has in the model. */
static void cast_as(struct unifier *u, struct qd_node *node)
{
    if (!qd_node_is(node, "CastLike") || node->in_count < 2 || node->in[1] == QD_NO_VALUE ||
        !other_float(u->types[node->in[1]].dtype))
        return;
    struct qd_attr *attr = qd_arena_alloc(u->arena, 1, sizeof *attr);
    if (!attr) {
        u->out_of_memory = true;
        return;
    }
    *attr = (struct qd_attr){
        .name = "to", .type = QD_ATTR_INT, .count = 1, .i = qd_dtype_to_onnx(u->types[node->in[1]].dtype)};
    node->op = "Cast";
    node->in_count = 1;
    node->attrs = attr;
    node->attr_count = 1;
}

static void take_node(struct unifier *u, struct qd_node node)
{
    struct qd_value *values = u->graph->values;
    cast_as(u, &node);
    int *in = qd_arena_alloc(u->arena, (size_t)node.in_count, sizeof *in);
    if (!in) {
        u->out_of_memory = true;
        return;
    }
    for (int i = 0; i < node.in_count; i++)
        in[i] = node.in[i] == QD_NO_VALUE ? QD_NO_VALUE : input_of(u, &node, node.in[i]);
    node.in = in;
    for (int o = 0; o < node.out_count; o++)
        if (node.out[o] != QD_NO_VALUE)
            values[node.out[o]].producer = u->node_count;
    u->nodes[u->node_count++] = node;
    for (int o = 0; o < node.out_count; o++) {
        if (node.out[o] == QD_NO_VALUE)
            continue;
        enum qd_dtype dtype = output_of(u, &node, o);
        struct qd_tensor *info = &values[node.out[o]].info;
        if (other_float(dtype)) {
            info->dtype = dtype;
            u->twins[node.out[o]] = PENDING;
        } else if (other_float(info->dtype)) {
            info->dtype = QD_F32;
        }
    }
}

/* ------------------------------------------------------------------ the graph */

/* An output that is FP32 now, in the type the model declares. */
static void give_out(struct unifier *u, int output, enum qd_dtype dtype)
{
    const int value = u->graph->outputs[output];
    if (!other_float(dtype) || u->twins[value] != SELF)
        return;
    const int made = add_cast(u, value, dtype);
    u->graph->values[made].is_output = true;
    u->graph->values[value].is_output = false;
    u->graph->outputs[output] = made;
}

enum qd_status qd_unify_floats(struct qd_graph *graph, struct qd_arena *arena, struct qd_error *error)
{
    struct unifier u = {.graph = graph, .arena = arena};
    const int values = graph->value_count;
    if (!concerned(graph))
        return QD_OK;
    if (!make_room(&u))
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
    enum qd_dtype *declared = qd_arena_alloc(arena, (size_t)graph->output_count, sizeof *declared);
    for (int i = 0; declared && i < graph->output_count; i++)
        declared[i] = graph->values[graph->outputs[i]].info.dtype;
    for (int v = 0; v < values; v++)
        if ((graph->values[v].is_input || graph->values[v].constant) && other_float(graph->values[v].info.dtype))
            u.twins[v] = PENDING;
    for (int n = 0; n < graph->node_count; n++)
        take_node(&u, graph->nodes[n]);
    for (int i = 0; declared && i < graph->output_count; i++)
        give_out(&u, i, declared[i]);
    if (!declared || u.out_of_memory)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
    graph->nodes = u.nodes;
    graph->node_count = u.node_count;
    return QD_OK;
}
