/* What control flow does to graphs before they are compiled: captured values become inputs, and an If whose condition
 * is known gives way to its branch. Not for plans (control.c) or running (control_run.c). */
#include "engine/plan/contrib.h"
#include "engine/plan/control.h"

#include <string.h>

static enum qd_status no_memory(struct qd_error *error)
{
    return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
}

static const struct kind_row {
    const char *op, *bodies[QD_CONTROL_MAX_BODIES];
} kinds[] = {
    [QD_CONTROL_IF] = {"If", {"then_branch", "else_branch"}},
    [QD_CONTROL_LOOP] = {"Loop", {"body", NULL}},
    [QD_CONTROL_SCAN] = {"Scan", {"body", NULL}},
};

enum qd_control_kind qd_control_kind(const struct qd_node *node)
{
    for (size_t k = 1; !node->domain[0] && k < sizeof kinds / sizeof kinds[0]; k++)
        if (strcmp(node->op, kinds[k].op) == 0)
            return (enum qd_control_kind)k;
    return QD_CONTROL_NONE;
}

/* A copy with room for `more` behind it. NULL: out of memory. */
static void *copy_array(struct qd_arena *arena, const void *from, int count, int more, size_t size)
{
    void *to = qd_arena_alloc(arena, (size_t)count + (size_t)more, size);
    if (to && count)
        memcpy(to, from, (size_t)count * size);
    return to;
}

static int count_captured(const struct qd_graph *graph)
{
    int n = 0;
    for (int v = 0; v < graph->value_count; v++)
        n += graph->values[v].outer != QD_NO_VALUE && !graph->values[v].constant;
    return n;
}

/* A body with arrays of its own; `captured` receives what of the graph around it the inputs behind the declared ones
 * are. */
static enum qd_status open_body(const struct qd_graph *inner, struct qd_body *body, int *captured,
                                struct qd_arena *arena, struct qd_error *error)
{
    int more = count_captured(inner);
    struct qd_graph *graph = &body->graph;
    *graph = *inner;
    body->declared = inner->input_count;
    graph->nodes = copy_array(arena, inner->nodes, inner->node_count, 0, sizeof *graph->nodes);
    graph->values = copy_array(arena, inner->values, inner->value_count, 0, sizeof *graph->values);
    graph->inputs = copy_array(arena, inner->inputs, inner->input_count, more, sizeof *graph->inputs);
    if (!graph->nodes || !graph->values || !graph->inputs)
        return no_memory(error);
    for (int v = 0; v < graph->value_count; v++) {
        struct qd_value *value = &graph->values[v];
        if (value->outer != QD_NO_VALUE && !value->constant) {
            *captured++ = value->outer;
            graph->inputs[graph->input_count++] = v;
            value->is_input = true;
        }
        value->outer = QD_NO_VALUE;
    }
    enum qd_status status = qd_contrib_rewrite(graph, arena, error); /* before it may be inlined */
    return status ? status : qd_control_open(graph, arena, error);
}

static enum qd_status open_node(struct qd_node *node, enum qd_control_kind kind, struct qd_arena *arena,
                                struct qd_error *error)
{
    const struct qd_graph *inner[QD_CONTROL_MAX_BODIES] = {NULL};
    struct qd_bodies *bodies = qd_arena_alloc(arena, 1, sizeof *bodies);
    int captured = 0;
    if (!bodies)
        return no_memory(error);
    bodies->own_inputs = node->in_count;
    for (; bodies->count < QD_CONTROL_MAX_BODIES && kinds[kind].bodies[bodies->count]; bodies->count++) {
        const char *name = kinds[kind].bodies[bodies->count];
        const struct qd_attr *attr = qd_attr_find(node, name);
        if (!attr || attr->type != QD_ATTR_GRAPH)
            return qd_fail(error, QD_ERR_FORMAT, "%s node '%s' has no graph '%s'", node->op, node->name, name);
        bodies->bodies[bodies->count].attr = name;
        bodies->bodies[bodies->count].captured_at = node->in_count + captured;
        inner[bodies->count] = attr->g;
        captured += count_captured(attr->g);
    }
    int *in = copy_array(arena, node->in, node->in_count, captured, sizeof *in);
    if (!in)
        return no_memory(error);
    node->in = in;
    node->in_count += captured;
    node->program = bodies;
    enum qd_status status = QD_OK;
    for (int b = 0; !status && b < bodies->count; b++)
        status = open_body(inner[b], &bodies->bodies[b], in + bodies->bodies[b].captured_at, arena, error);
    return status;
}

enum qd_status qd_control_open(struct qd_graph *graph, struct qd_arena *arena, struct qd_error *error)
{
    for (int n = 0; n < graph->node_count; n++) {
        enum qd_control_kind kind = qd_control_kind(&graph->nodes[n]);
        if (kind == QD_CONTROL_NONE || graph->nodes[n].program)
            continue; /* a body's nodes are opened with it, before it is compiled */
        enum qd_status status = open_node(&graph->nodes[n], kind, arena, error);
        if (status)
            return status;
    }
    return QD_OK;
}

/* ---------------------------------------------------------------- a branch in the place of its If */

struct inliner {
    struct qd_graph *graph;
    const struct qd_graph *inner;
    struct qd_arena *arena;
    int *map; /* [inner->value_count] ids in the graph, QD_NO_VALUE: not yet */
};

/* Constant results need no node, results that come from elsewhere need an Identity; *extra counts those. */
static enum qd_status map_outputs(struct inliner *in, const struct qd_node *node, struct qd_node *extra, int *count)
{
    static const struct qd_node identity = {.op = "Identity", .domain = "", .in_count = 1, .out_count = 1};
    for (int o = 0; o < node->out_count; o++) {
        if (node->out[o] == QD_NO_VALUE)
            continue;
        int from = in->inner->outputs[o];
        const struct qd_value *value = &in->inner->values[from];
        struct qd_value *to = &in->graph->values[node->out[o]];
        if (to->info.dtype == QD_NONE || to->info.shape.rank < 0)
            to->info = value->info;
        to->info.data = NULL;
        if (value->constant && !value->is_input) {
            to->info = value->info;
            to->constant = true;
        } else if (in->map[from] == QD_NO_VALUE) {
            in->map[from] = node->out[o];
        } else {
            int *ids = qd_arena_alloc(in->arena, 1, sizeof *ids);
            if (!ids)
                return QD_ERR_NO_MEMORY;
            ids[0] = in->map[from];
            extra[*count] = identity;
            extra[*count].name = node->name;
            extra[*count].opset = node->opset;
            extra[*count].in = ids;
            extra[(*count)++].out = &node->out[o];
        }
    }
    return QD_OK;
}

/* Values of the body that are not yet somebody in the graph. */
static bool append_values(struct inliner *in)
{
    struct qd_graph *graph = in->graph;
    graph->values = copy_array(in->arena, graph->values, graph->value_count, in->inner->value_count,
                               sizeof *graph->values);
    if (!graph->values)
        return false;
    for (int v = 0; v < in->inner->value_count; v++) {
        if (in->map[v] != QD_NO_VALUE)
            continue;
        in->map[v] = graph->value_count++;
        graph->values[in->map[v]] = in->inner->values[v];
        graph->values[in->map[v]].is_input = graph->values[in->map[v]].is_output = false;
    }
    return true;
}

static const int *map_ids(const struct inliner *in, const int *ids, int count)
{
    int *to = qd_arena_alloc(in->arena, (size_t)count, sizeof *to);
    for (int i = 0; to && i < count; i++)
        to[i] = ids[i] == QD_NO_VALUE ? QD_NO_VALUE : in->map[ids[i]];
    return to;
}

enum qd_status qd_control_inline(struct qd_graph *graph, int index, int body, struct qd_arena *arena,
                                 struct qd_error *error)
{
    const struct qd_node *node = &graph->nodes[index];
    const struct qd_body *branch = &((const struct qd_bodies *)node->program)->bodies[body];
    struct inliner in = {graph, &branch->graph, arena, NULL};
    const struct qd_graph *inner = in.inner;
    int extras = 0, rest = graph->node_count - index - 1;
    if (inner->output_count < node->out_count || branch->declared > 0)
        return qd_fail(error, QD_ERR_FORMAT, "If node '%s': its %s has %d inputs and %d outputs, not 0 and %d",
                       node->name, branch->attr, branch->declared, inner->output_count, node->out_count);
    in.map = qd_arena_alloc(arena, (size_t)inner->value_count, sizeof *in.map);
    struct qd_node *extra = qd_arena_alloc(arena, (size_t)node->out_count, sizeof *extra);
    if (!in.map || !extra)
        return no_memory(error);
    for (int v = 0; v < inner->value_count; v++)
        in.map[v] = QD_NO_VALUE;
    for (int i = 0; i < inner->input_count; i++)
        in.map[inner->inputs[i]] = node->in[branch->captured_at + i];
    if (map_outputs(&in, node, extra, &extras) != QD_OK || !append_values(&in))
        return no_memory(error);
    struct qd_node *nodes = copy_array(arena, graph->nodes, index, inner->node_count + extras + rest, sizeof *nodes);
    if (!nodes)
        return no_memory(error);
    int at = index;
    for (int n = 0; n < inner->node_count; n++) {
        nodes[at] = inner->nodes[n];
        nodes[at].in = map_ids(&in, inner->nodes[n].in, inner->nodes[n].in_count);
        nodes[at].out = map_ids(&in, inner->nodes[n].out, inner->nodes[n].out_count);
        if (!nodes[at].in || !nodes[at].out)
            return no_memory(error);
        at++;
    }
    memcpy(nodes + at, extra, (size_t)extras * sizeof *nodes);
    memcpy(nodes + at + extras, graph->nodes + index + 1, (size_t)rest * sizeof *nodes);
    graph->nodes = nodes;
    graph->node_count = at + extras + rest;
    return QD_OK;
}
