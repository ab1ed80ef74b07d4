/* Fuzz target: any bytes as a model and as a tensor. What the importer accepts must hold its promises
 * (engine/onnx/import.h): everything is walked and every byte it points to is read. */
#include "engine/onnx/import.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned char sink;

#define PROMISE(that)                                                                                                  \
    do {                                                                                                               \
        if (!(that))                                                                                                   \
            abort();                                                                                                   \
    } while (0)

static void touch(const void *bytes, size_t n)
{
    unsigned char sum = 0;
    for (size_t i = 0; i < n; i++)
        sum ^= ((const unsigned char *)bytes)[i];
    sink = sum;
}

static void touch_text(const char *text) { touch(text, strlen(text) + 1); }

static void walk_tensor(const struct qd_tensor *t, bool whole)
{
    int64_t elems, ints[16];
    char text[64];
    size_t count;
    PROMISE((unsigned)t->dtype < QD_DTYPE_COUNT && t->shape.rank <= QD_MAX_RANK);
    if (t->shape.rank < 0) {
        PROMISE(!whole && !t->data);
        return;
    }
    touch_text(qd_shape_text(&t->shape, text, sizeof text));
    for (int i = 0; i < t->shape.rank; i++)
        PROMISE(t->shape.dims[i] >= -1);
    if (!whole)
        return;
    PROMISE(qd_shape_elems(&t->shape, &elems) && elems == qd_tensor_elems(t));
    PROMISE(t->data || elems == 0);
    bool large = t->dtype == QD_F32 && qd_tensor_bytes(t) >= QD_ONNX_VIEW_BYTES;
    PROMISE(!t->data || large || (uintptr_t)t->data % (t->dtype == QD_STR ? 8 : qd_dtype_bytes(t->dtype)) == 0);
    for (int64_t i = 0; t->dtype == QD_STR && i < elems; i++)
        touch(((const struct qd_string *)t->data)[i].bytes, ((const struct qd_string *)t->data)[i].length);
    touch(t->data, t->data ? qd_tensor_bytes(t) : 0);
    if (qd_tensor_ints(t, ints, 16, &count))
        touch(ints, count * sizeof ints[0]);
}

static void walk_graph(const struct qd_graph *graph, const struct qd_graph *parent, int depth);

static void walk_attr(const struct qd_graph *graph, const struct qd_attr *a, int depth)
{
    touch_text(a->name);
    for (size_t i = 0; i < a->count; i++) {
        if (a->type == QD_ATTR_STRINGS)
            touch(a->strings[i].bytes, a->strings[i].length);
        else if (a->type == QD_ATTR_TENSORS)
            walk_tensor(&a->tensors[i], true);
        else if (a->type == QD_ATTR_GRAPHS)
            walk_graph(a->graphs[i], graph, depth + 1);
    }
    if (a->type == QD_ATTR_STRING)
        touch(a->s.bytes, a->s.length);
    else if (a->type == QD_ATTR_TENSOR)
        walk_tensor(&a->t, true);
    else if (a->type == QD_ATTR_GRAPH)
        walk_graph(a->g, graph, depth + 1);
    else if (a->type == QD_ATTR_FLOATS || a->type == QD_ATTR_INTS)
        touch(a->floats, a->count * (a->type == QD_ATTR_FLOATS ? sizeof(float) : sizeof(int64_t)));
}

static void walk_node(const struct qd_graph *graph, int id, int depth)
{
    const struct qd_node *node = &graph->nodes[id];
    char text[128];
    size_t count;
    touch_text(qd_node_text(node, text, sizeof text));
    touch_text(node->name);
    PROMISE(node->op[0] && node->opset > 0);
    for (int i = 0; i < node->in_count; i++) {
        int in = node->in[i];
        PROMISE(in >= QD_NO_VALUE && in < graph->value_count);
        PROMISE(in == QD_NO_VALUE || graph->values[in].producer < id);
    }
    for (int i = 0; i < node->out_count; i++) {
        int out = node->out[i];
        PROMISE(out >= QD_NO_VALUE && out < graph->value_count);
        PROMISE(out == QD_NO_VALUE || graph->values[out].producer == id);
    }
    for (int i = 0; i < node->attr_count; i++) {
        const struct qd_attr *a = &node->attrs[i];
        PROMISE(qd_attr_find(node, a->name) == a);
        qd_attr_int(node, a->name, 0);
        qd_attr_is(node, a->name, "", "SAME_UPPER");
        qd_attr_ints(node, a->name, &count);
        qd_attr_floats(node, a->name, &count);
        walk_attr(graph, a, depth);
    }
}

static void walk_graph(const struct qd_graph *graph, const struct qd_graph *parent, int depth)
{
    PROMISE(graph->parent == parent && depth < 16);
    touch_text(graph->name);
    for (int i = 0; i < graph->value_count; i++) {
        const struct qd_value *v = &graph->values[i];
        touch_text(v->name);
        for (int d = 0; d < QD_MAX_RANK; d++)
            if (v->dim_names[d])
                touch_text(v->dim_names[d]);
        PROMISE(v->producer >= -1 && v->producer < graph->node_count);
        PROMISE(v->outer == QD_NO_VALUE || (parent && v->outer >= 0 && v->outer < parent->value_count));
        walk_tensor(&v->info, v->constant);
    }
    for (int i = 0; i < graph->input_count; i++)
        PROMISE(graph->values[graph->inputs[i]].is_input);
    for (int i = 0; i < graph->output_count; i++)
        PROMISE(graph->values[graph->outputs[i]].is_output);
    for (int i = 0; i < graph->node_count; i++)
        walk_node(graph, i, depth);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct qd_error error = {0};
    struct qd_graph *graph = NULL;
    enum qd_status status = qd_onnx_import(data, size, &graph, &error);
    PROMISE(status == QD_OK ? graph != NULL : !graph && error.status == status && error.text[0]);
    if (graph) {
        walk_graph(graph, NULL, 0);
        PROMISE(qd_arena_bytes(graph->arena) <= 256 * size + ((size_t)4 << 20));
    }
    qd_graph_destroy(&graph);
    struct qd_arena *arena;
    struct qd_tensor tensor;
    const char *name;
    if (qd_arena_create(1024, &arena) != QD_OK)
        return 0;
    if (qd_onnx_tensor(data, size, arena, &tensor, &name, &error) == QD_OK) {
        walk_tensor(&tensor, true);
        touch_text(name);
    }
    qd_arena_destroy(&arena);
    return 0;
}
