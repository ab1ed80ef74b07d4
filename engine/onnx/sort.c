/* Topological order of a graph's nodes by Kahn's method, linear in nodes and edges. Not for the order that runs best
 * (engine/plan). */
#include "engine/onnx/internal.h"

#include <string.h>

/* Who needs whom: needs[need_start[n] .. need_start[n + 1]) are the nodes whose results node n reads. */
struct edges {
    size_t *need_start, *user_start;
    int *needs, *users, *waiting, *order;
};

static size_t add_need(const struct qd_graph *graph, int value, int *out, size_t n)
{
    int producer = value == QD_NO_VALUE ? -1 : graph->values[value].producer;
    if (producer < 0)
        return n;
    if (out)
        out[n] = producer;
    return n + 1;
}

/* What a node reads itself and what its subgraphs read of this graph. Counts; writes unless `out` is NULL. */
static size_t list_needs(const struct qd_graph *graph, const struct qd_node *node, int *out)
{
    size_t n = 0;
    for (int i = 0; i < node->in_count; i++)
        n = add_need(graph, node->in[i], out, n);
    for (int a = 0; a < node->attr_count; a++) {
        const struct qd_attr *attr = &node->attrs[a];
        bool graphs = attr->type == QD_ATTR_GRAPH || attr->type == QD_ATTR_GRAPHS;
        for (size_t g = 0; graphs && g < attr->count; g++) {
            const struct qd_graph *inner = attr->type == QD_ATTR_GRAPH ? attr->g : attr->graphs[g];
            for (int v = 0; v < inner->value_count; v++)
                n = add_need(graph, inner->values[v].outer, out, n);
        }
    }
    return n;
}

static void free_edges(struct edges *e)
{
    qd_free(e->need_start);
    qd_free(e->user_start);
    qd_free(e->needs);
    qd_free(e->users);
    qd_free(e->waiting);
    qd_free(e->order);
}

static bool make_edges(const struct qd_graph *graph, struct edges *e)
{
    size_t n = (size_t)graph->node_count;
    e->need_start = qd_calloc(n + 1, sizeof *e->need_start);
    e->user_start = qd_calloc(n + 2, sizeof *e->user_start);
    e->waiting = qd_calloc(n, sizeof *e->waiting);
    e->order = qd_calloc(n, sizeof *e->order);
    if (!e->need_start || !e->user_start || !e->waiting || !e->order)
        return false;
    for (size_t i = 0; i < n; i++)
        e->need_start[i + 1] = e->need_start[i] + list_needs(graph, &graph->nodes[i], NULL);
    e->needs = qd_calloc(e->need_start[n], sizeof *e->needs);
    e->users = qd_calloc(e->need_start[n], sizeof *e->users);
    if (!e->needs || !e->users)
        return false;
    for (size_t i = 0; i < n; i++)
        list_needs(graph, &graph->nodes[i], e->needs + e->need_start[i]);
    /* The other way round: count, add up, put (which moves user_start[i + 1] to where it belongs). */
    for (size_t k = 0; k < e->need_start[n]; k++)
        e->user_start[e->needs[k] + 2]++;
    for (size_t i = 0; i < n; i++)
        e->user_start[i + 2] += e->user_start[i + 1];
    for (size_t i = 0; i < n; i++)
        for (size_t k = e->need_start[i]; k < e->need_start[i + 1]; k++)
            e->users[e->user_start[e->needs[k] + 1]++] = (int)i;
    return true;
}

static bool is_sorted(const struct edges *e, int n)
{
    for (int i = 0; i < n; i++)
        for (size_t k = e->need_start[i]; k < e->need_start[i + 1]; k++)
            if (e->needs[k] >= i)
                return false;
    return true;
}

/* Fills order; returns how many nodes got a place. Those left over stand on a cycle or behind one. */
static int order_nodes(struct edges *e, int n)
{
    int placed = 0;
    for (int i = 0; i < n; i++) {
        e->waiting[i] = (int)(e->need_start[i + 1] - e->need_start[i]);
        if (e->waiting[i] == 0)
            e->order[placed++] = i;
    }
    for (int next = 0; next < placed; next++) {
        int node = e->order[next];
        for (size_t k = e->user_start[node]; k < e->user_start[node + 1]; k++)
            if (--e->waiting[e->users[k]] == 0)
                e->order[placed++] = e->users[k];
    }
    return placed;
}

/* A node on a cycle: from any node left over, step to a need left over until one comes again. */
static int node_on_cycle(struct edges *e, int n)
{
    int node = 0;
    while (node < n - 1 && e->waiting[node] <= 0)
        node++;
    while (e->waiting[node] > 0) {
        e->waiting[node] = -1; /* seen */
        for (size_t k = e->need_start[node]; k < e->need_start[node + 1]; k++)
            if (e->waiting[e->needs[k]] != 0) {
                node = e->needs[k];
                break;
            }
    }
    return node;
}

static enum qd_status reorder(struct qd_import *im, struct qd_graph *graph, const int *order)
{
    struct qd_node *nodes = qd_import_alloc(im, (size_t)graph->node_count, sizeof *nodes);
    if (!nodes)
        return im->error->status;
    for (int i = 0; i < graph->node_count; i++) {
        nodes[i] = graph->nodes[order[i]];
        for (int o = 0; o < nodes[i].out_count; o++)
            if (nodes[i].out[o] != QD_NO_VALUE)
                graph->values[nodes[i].out[o]].producer = i;
    }
    graph->nodes = nodes;
    return QD_OK;
}

enum qd_status qd_import_sort(struct qd_import *im, struct qd_graph *graph)
{
    struct edges edges = {0};
    enum qd_status status = QD_OK;
    int n = graph->node_count;
    char text[200];
    if (!make_edges(graph, &edges))
        status = qd_fail(im->error, QD_ERR_NO_MEMORY, "no memory to import the model");
    else if (is_sorted(&edges, n))
        status = QD_OK;
    else if (order_nodes(&edges, n) < n)
        status = qd_fail(im->error, QD_ERR_FORMAT, "the graph has a cycle through %s",
                         qd_node_text(&graph->nodes[node_on_cycle(&edges, n)], text, sizeof text));
    else
        status = reorder(im, graph, edges.order);
    free_edges(&edges);
    return status;
}
