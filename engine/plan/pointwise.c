/* Finding elementwise programs: from the last unit on, each takes in the units before it whose results only it reads.
 */
#include "engine/plan/pointwise_impl.h"

#include <stdio.h>
#include <string.h>

enum { PINNED = 1 << 28, MOST_MEMBERS = QD_POINTWISE_STEPS };

struct joiner {
    struct qd_pw_finder f;
    struct qd_unit *units;
    int unit_count, value_count;
    int *readers, *maker; /* [value_count] inputs that read it; the unit that makes it, or -1 */
    bool *small;          /* [value_count] what is left after a reduction, and what is made of that */
    bool *gone;           /* [unit_count] */
};

/* ------------------------------------------------------------------ facts */

static void pin_outer(struct joiner *j, const struct qd_graph *body)
{
    for (int v = 0; v < body->value_count; v++)
        if (body->values[v].outer != QD_NO_VALUE)
            j->readers[body->values[v].outer] += PINNED;
}

static void count_readers(struct joiner *j)
{
    const struct qd_graph *graph = j->f.graph;
    for (int n = 0; n < graph->node_count; n++) {
        const struct qd_node *node = &graph->nodes[n];
        for (int i = 0; i < node->in_count; i++)
            if (node->in[i] != QD_NO_VALUE)
                j->readers[node->in[i]]++;
        for (int a = 0; a < node->attr_count; a++) {
            if (node->attrs[a].type == QD_ATTR_GRAPH)
                pin_outer(j, node->attrs[a].g);
            for (size_t g = 0; node->attrs[a].type == QD_ATTR_GRAPHS && g < node->attrs[a].count; g++)
                pin_outer(j, node->attrs[a].graphs[g]);
        }
    }
    for (int i = 0; i < graph->output_count; i++)
        j->readers[graph->outputs[i]] += PINNED;
    for (int v = 0; v < j->value_count; v++)
        j->maker[v] = -1;
    for (int u = 0; u < j->unit_count; u++)
        if (j->units[u].out != QD_NO_VALUE)
            j->maker[j->units[u].out] = u;
}

static bool starts_with(const char *text, const char *start) { return strncmp(text, start, strlen(start)) == 0; }

/* Operators whose result may be larger than what they read. */
static bool enlarges(const struct qd_node *node)
{
    static const char *const ops[] = {"Expand", "Resize", "Upsample", "Tile", "Gather", "Concat", "ConstantOfShape"};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (strcmp(node->op, ops[i]) == 0)
            return true;
    return false;
}

static bool makes_small(const struct joiner *j, const struct qd_node *node)
{
    bool any = false;
    if (starts_with(node->op, "Reduce") || starts_with(node->op, "Global"))
        return true;
    if (enlarges(node))
        return false;
    for (int i = 0; i < node->in_count; i++) {
        if (node->in[i] == QD_NO_VALUE || j->f.graph->values[node->in[i]].constant)
            continue;
        if (!j->small[node->in[i]])
            return false;
        any = true;
    }
    return any;
}

static void find_small(struct joiner *j)
{
    for (int n = 0; n < j->f.graph->node_count; n++) {
        const struct qd_node *node = &j->f.graph->nodes[n];
        const bool small = makes_small(j, node);
        for (int o = 0; o < node->out_count; o++)
            if (node->out[o] != QD_NO_VALUE)
                j->small[node->out[o]] = small;
    }
}

/* Has a value as many elements as the program's result, or would its steps be repeated for each of their copies?
 * Declared shapes decide where they can. */
static bool same_size(const struct joiner *j, int value, int out)
{
    const struct qd_shape *a = &j->f.graph->values[value].info.shape, *b = &j->f.graph->values[out].info.shape;
    bool known = a->rank >= 0 && b->rank >= 0;
    for (int d = 1; known && d <= b->rank; d++) {
        const int64_t of_b = b->dims[b->rank - d], of_a = d <= a->rank ? a->dims[a->rank - d] : 1;
        if (of_a != of_b && (of_a == 1 || of_b == 1 || (of_a >= 0 && of_b >= 0)))
            return false;
        known = of_a >= 0 && of_b >= 0;
    }
    return known || j->small[value] == j->small[out];
}

/* ------------------------------------------------------------------ joining */

/* Units of one program in execution order; the last one is its root. */
struct group {
    int members[MOST_MEMBERS], count;
    struct qd_pw_writer writer;
};

static bool write_group(struct joiner *j, struct group *g)
{
    g->writer = (struct qd_pw_writer){.finder = &j->f};
    for (int m = 0; m < g->count; m++)
        if (!qd_pw_write(&g->writer, j->units[g->members[m]].node))
            return false;
    return true;
}

static int reads(const struct joiner *j, const struct group *g, int value)
{
    int count = 0;
    for (int m = 0; m < g->count; m++) {
        const struct qd_node *node = &j->f.graph->nodes[j->units[g->members[m]].node];
        for (int i = 0; i < node->in_count; i++)
            count += node->in[i] == value;
    }
    return count;
}

/* With unit u taken in; false leaves the group as it was. */
static bool take_in(struct joiner *j, struct group *g, int u)
{
    struct group bigger = *g;
    if (g->count == MOST_MEMBERS)
        return false;
    int at = bigger.count++;
    for (; at > 0 && bigger.members[at - 1] > u; at--)
        bigger.members[at] = bigger.members[at - 1];
    bigger.members[at] = u;
    if (!write_group(j, &bigger))
        return false;
    *g = bigger;
    return true;
}

/* One unit more, when there is one that fits. */
static bool grow(struct joiner *j, struct group *g)
{
    const int out = j->units[g->members[g->count - 1]].out;
    for (int i = 0; i < g->writer.in_count; i++) {
        const int value = g->writer.inputs[i], u = value < j->value_count ? j->maker[value] : -1;
        if (u >= 0 && !j->units[u].linear && !j->gone[u] && j->readers[value] == reads(j, g, value) &&
            same_size(j, value, out) && take_in(j, g, u))
            return true;
    }
    return false;
}

static const char *names_of(struct joiner *j, const struct group *g)
{
    size_t room = 1;
    for (int m = 0; m + 1 < g->count; m++)
        room += strlen(j->f.graph->nodes[j->units[g->members[m]].node].name) + 1;
    char *text = qd_arena_alloc(j->f.arena, room, 1);
    for (int m = 0, at = 0; text && m + 1 < g->count; m++)
        at += snprintf(text + at, room - (size_t)at, "%s%s", m ? "," : "",
                       j->f.graph->nodes[j->units[g->members[m]].node].name);
    return text;
}

/* The root's node becomes the program; the other units go. */
static bool put(struct joiner *j, const struct group *g)
{
    struct qd_unit *root = &j->units[g->members[g->count - 1]];
    struct qd_node *node = &j->f.graph->nodes[root->node];
    struct qd_pointwise_program *program = qd_arena_alloc(j->f.arena, 1, sizeof *program);
    int *in = qd_arena_alloc(j->f.arena, (size_t)g->writer.in_count + 1, sizeof *in);
    const char *names = names_of(j, g);
    if (!program || !in || !names)
        return false;
    *program = g->writer.program;
    memcpy(in, g->writer.inputs, (size_t)g->writer.in_count * sizeof *in);
    in[g->writer.in_count] = node->out[0];
    *node = (struct qd_node){.name = node->name,
                             .op = "Pointwise",
                             .domain = "quantd",
                             .opset = 1,
                             .in_count = g->writer.in_count,
                             .out_count = 1,
                             .in = in,
                             .out = in + g->writer.in_count,
                             .program = program};
    root->fused = names;
    for (int m = 0; m + 1 < g->count; m++)
        j->gone[g->members[m]] = true;
    return true;
}

static bool begin(struct joiner *j)
{
    struct qd_graph *graph = j->f.graph;
    struct qd_arena *arena = j->f.arena;
    const size_t values = (size_t)graph->value_count;
    size_t norms = 0;
    j->readers = qd_arena_alloc(arena, values, sizeof(int));
    j->maker = qd_arena_alloc(arena, values, sizeof(int));
    j->small = qd_arena_alloc(arena, values, sizeof(bool));
    j->gone = qd_arena_alloc(arena, (size_t)j->unit_count, sizeof(bool));
    j->f.types = qd_types(graph, arena);
    j->f.norms = qd_arena_alloc(arena, (size_t)graph->node_count, sizeof *j->f.norms);
    for (int n = 0; n < graph->node_count; n++)
        norms += strcmp(graph->nodes[n].op, "BatchNormalization") == 0;
    struct qd_value *room = qd_arena_alloc(arena, values + 2 * norms, sizeof *room);
    if (!j->readers || !j->maker || !j->small || !j->gone || !j->f.types || !j->f.norms || !room)
        return false;
    if (values)
        memcpy(room, graph->values, values * sizeof *room);
    graph->values = room;
    j->f.readers = j->readers;
    count_readers(j);
    find_small(j);
    return true;
}

enum qd_status qd_fuse_pointwise(struct qd_graph *graph, struct qd_arena *arena, struct qd_unit *units, int *unit_count,
                                 struct qd_error *error)
{
    struct joiner j = {.f = {.graph = graph, .arena = arena},
                       .units = units,
                       .unit_count = *unit_count,
                       .value_count = graph->value_count};
    bool ok = begin(&j);
    for (int u = j.unit_count - 1; ok && u >= 0; u--) {
        struct group g = {.members = {u}, .count = 1};
        if (j.gone[u] || units[u].linear || !write_group(&j, &g))
            continue;
        while (grow(&j, &g))
            ;
        ok = put(&j, &g);
    }
    if (!ok || j.f.out_of_memory)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
    *unit_count = 0;
    for (int u = 0; u < j.unit_count; u++)
        if (!j.gone[u])
            units[(*unit_count)++] = units[u];
    return QD_OK;
}
