/* Finding patterns: the graph under work, and the rounds over it until nothing changes. */
#include "engine/plan/patterns_impl.h"

#include <string.h>

enum { PINNED = 1 << 28, MOST_ROUNDS = 16 }; /* PINNED: more readers than a graph has, so never a pattern's alone */

int qd_finder_in(const struct qd_finder *f, const struct qd_node *node, int i)
{
    if (i >= node->in_count || node->in[i] == QD_NO_VALUE)
        return QD_NO_VALUE;
    int value = node->in[i];
    while (f->alias[value] != value)
        value = f->alias[value];
    return value;
}

const struct qd_node *qd_finder_maker(const struct qd_finder *f, int value)
{
    int n = value == QD_NO_VALUE ? -1 : f->producer[value];
    const struct qd_node *node = n < 0 ? NULL : &f->graph->nodes[n];
    for (int i = 1; node && i < node->out_count; i++)
        if (node->out[i] != QD_NO_VALUE)
            return NULL;
    return node;
}

const struct qd_tensor *qd_finder_constant(const struct qd_finder *f, int value)
{
    const struct qd_value *v = value == QD_NO_VALUE ? NULL : &f->graph->values[value];
    return v && v->constant && !v->is_input && v->info.data ? &v->info : NULL;
}

bool qd_finder_number(const struct qd_finder *f, int value, int rank, double *out)
{
    const struct qd_tensor *t = qd_finder_constant(f, value);
    if (!t || t->dtype != QD_F32 || qd_tensor_elems(t) != 1 || t->shape.rank > (rank > 0 ? rank : 0))
        return false;
    *out = (double)*(const float *)t->data;
    return true;
}

bool qd_finder_ints(const struct qd_finder *f, const struct qd_node *node, int i, int64_t *out, size_t room,
                    size_t *count)
{
    const struct qd_tensor *t = qd_finder_constant(f, qd_finder_in(f, node, i));
    return t && qd_tensor_ints(t, out, room, count);
}

int qd_finder_add(struct qd_finder *f, const struct qd_tensor *tensor)
{
    struct qd_graph *graph = f->graph;
    if (graph->value_count == f->value_room)
        return QD_NO_VALUE;
    int id = graph->value_count++;
    graph->values[id] = (struct qd_value){
        .name = "", .info = *tensor, .producer = -1, .constant = true, .outer = QD_NO_VALUE};
    f->alias[id] = id;
    f->producer[id] = -1;
    f->dtype[id] = tensor->dtype;
    f->rank[id] = tensor->shape.rank;
    f->length[id] = tensor->shape.rank == 1 ? (int)tensor->shape.dims[0] : -1;
    return id;
}

static void count_inputs(struct qd_finder *f, const struct qd_node *node, int by)
{
    for (int i = 0; i < node->in_count; i++) {
        int value = qd_finder_in(f, node, i);
        if (value != QD_NO_VALUE)
            f->readers[value] += by;
    }
}

void qd_finder_remove(struct qd_finder *f, int n)
{
    count_inputs(f, &f->graph->nodes[n], -1);
    f->removed[n] = true;
    for (int i = 0; i < f->graph->nodes[n].out_count; i++)
        if (f->graph->nodes[n].out[i] != QD_NO_VALUE && f->producer[f->graph->nodes[n].out[i]] == n)
            f->producer[f->graph->nodes[n].out[i]] = -1;
}

bool qd_finder_set_inputs(struct qd_finder *f, int n, const int *in, int count)
{
    struct qd_node *node = &f->graph->nodes[n];
    int *copy = qd_arena_alloc(f->arena, (size_t)count, sizeof *copy);
    f->out_of_memory |= !copy;
    if (!copy)
        return false;
    memcpy(copy, in, (size_t)count * sizeof *copy);
    count_inputs(f, node, -1);
    node->in = copy;
    node->in_count = count;
    count_inputs(f, node, 1);
    return true;
}

/* An output of the graph keeps its value: whoever makes `value`, for this node alone, writes it instead. */
static bool rename_output(struct qd_finder *f, int n, int value)
{
    struct qd_graph *graph = f->graph;
    int out = graph->nodes[n].out[0], maker = f->producer[value];
    if (maker < 0 || f->readers[value] != 1 || graph->values[value].is_output)
        return false;
    struct qd_node *node = &graph->nodes[maker];
    int *outs = qd_arena_alloc(f->arena, (size_t)node->out_count, sizeof *outs);
    f->out_of_memory |= !outs;
    for (int i = 0; outs && i < node->out_count; i++)
        outs[i] = node->out[i] == value ? out : node->out[i];
    if (!outs)
        return false;
    qd_finder_remove(f, n);
    node->out = outs;
    f->producer[value] = -1;
    f->producer[out] = maker;
    return true;
}

bool qd_finder_bypass(struct qd_finder *f, int n, int value)
{
    int out = f->graph->nodes[n].out[0], readers = f->readers[out];
    if (value == QD_NO_VALUE || value == out)
        return false;
    if (readers >= PINNED)
        return rename_output(f, n, value);
    qd_finder_remove(f, n);
    f->alias[out] = value;
    f->readers[value] += readers;
    return true;
}

static void pin(struct qd_finder *f, int value)
{
    if (f->readers[value] < PINNED)
        f->readers[value] += PINNED;
}

/* What the bodies of a node read from outside must stay. */
static void pin_outer(struct qd_finder *f, const struct qd_graph *body)
{
    for (int v = 0; v < body->value_count; v++)
        if (body->values[v].outer != QD_NO_VALUE)
            pin(f, body->values[v].outer);
}

static void count_readers(struct qd_finder *f)
{
    struct qd_graph *graph = f->graph;
    for (int n = 0; n < graph->node_count; n++) {
        const struct qd_node *node = &graph->nodes[n];
        count_inputs(f, node, 1);
        for (int i = 0; i < node->out_count; i++)
            if (node->out[i] != QD_NO_VALUE)
                f->producer[node->out[i]] = n;
        for (int a = 0; a < node->attr_count; a++) {
            if (node->attrs[a].type == QD_ATTR_GRAPH)
                pin_outer(f, node->attrs[a].g);
            for (size_t g = 0; node->attrs[a].type == QD_ATTR_GRAPHS && g < node->attrs[a].count; g++)
                pin_outer(f, node->attrs[a].graphs[g]);
        }
    }
    for (int i = 0; i < graph->output_count; i++)
        pin(f, graph->outputs[i]);
}

static bool begin(struct qd_finder *f)
{
    struct qd_graph *graph = f->graph;
    size_t room = (size_t)(f->value_room = graph->value_count + 2 * graph->node_count + 8);
    size_t nodes = (size_t)graph->node_count + 1;
    struct qd_value *values = qd_arena_alloc(f->arena, room, sizeof *values);
    f->alias = qd_arena_alloc(f->arena, room, sizeof(int));
    f->readers = qd_arena_alloc(f->arena, room, sizeof(int));
    f->producer = qd_arena_alloc(f->arena, room, sizeof(int));
    f->dtype = qd_arena_alloc(f->arena, room, sizeof *f->dtype);
    f->rank = qd_arena_alloc(f->arena, room, sizeof(int));
    f->length = qd_arena_alloc(f->arena, room, sizeof(int));
    f->removed = qd_arena_alloc(f->arena, nodes, sizeof(bool));
    f->extra = qd_arena_alloc(f->arena, nodes, sizeof *f->extra);
    if (!values || !f->alias || !f->readers || !f->producer || !f->dtype || !f->rank || !f->length || !f->removed ||
        !f->extra)
        return false;
    if (graph->value_count)
        memcpy(values, graph->values, (size_t)graph->value_count * sizeof *values);
    graph->values = values;
    for (int v = 0; v < f->value_room; v++) {
        f->alias[v] = v;
        f->producer[v] = -1;
    }
    count_readers(f);
    return true;
}

/* From the last node on, so that what fed only dead nodes dies too. */
static void remove_unread(struct qd_finder *f)
{
    for (int n = f->graph->node_count - 1; n >= 0; n--) {
        const struct qd_node *node = &f->graph->nodes[n];
        bool read = f->removed[n] || f->extra[n].op || node->out_count == 0;
        for (int i = 0; i < node->out_count; i++)
            read = read || (node->out[i] != QD_NO_VALUE && f->readers[node->out[i]] > 0);
        if (!read)
            qd_finder_remove(f, n);
    }
}

/* One round. Expressions are tried from the last node on, so that the longest that ends in a node wins. */
static bool search(struct qd_finder *f)
{
    bool changed = false;
    qd_patterns_facts(f);
    for (int n = 0; n < f->graph->node_count; n++)
        changed = (!f->removed[n] && (qd_patterns_tidy(f, n) || qd_patterns_move(f, n))) || changed;
    for (int n = f->graph->node_count - 1; n >= 0; n--)
        changed = (!f->removed[n] && qd_patterns_table(f, n)) || changed;
    remove_unread(f);
    return changed;
}

/* The nodes that are left, reading what stands for their inputs now. */
static bool finish(struct qd_finder *f)
{
    struct qd_graph *graph = f->graph;
    int count = 0, kept = 0;
    for (int n = 0; n < graph->node_count; n++)
        count += (f->removed[n] ? 0 : 1) + (f->extra[n].op ? 1 : 0);
    struct qd_node *nodes = qd_arena_alloc(f->arena, (size_t)count + 1, sizeof *nodes);
    if (!nodes)
        return false;
    for (int n = 0; n < graph->node_count; n++) {
        if (f->extra[n].op)
            nodes[kept++] = f->extra[n];
        if (!f->removed[n])
            nodes[kept++] = graph->nodes[n];
    }
    for (int n = 0; n < count; n++) {
        int *in = qd_arena_alloc(f->arena, (size_t)nodes[n].in_count + 1, sizeof *in);
        if (!in)
            return false;
        for (int i = 0; i < nodes[n].in_count; i++)
            in[i] = qd_finder_in(f, &nodes[n], i);
        nodes[n].in = in;
    }
    graph->nodes = nodes;
    graph->node_count = count;
    return true;
}

enum qd_status qd_find_patterns(struct qd_graph *graph, struct qd_arena *arena, struct qd_error *error)
{
    struct qd_finder f = {.graph = graph, .arena = arena};
    bool ok = begin(&f);
    for (int round = 0; ok && round < MOST_ROUNDS && search(&f); round++)
        ;
    if (!ok || f.out_of_memory || !finish(&f))
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
    return QD_OK;
}
