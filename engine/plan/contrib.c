/* Spelling contrib operators in the standard's: the walk over the graph and the writer that rewrites use. */
#include "engine/plan/contrib_impl.h"

#include "engine/plan/dims.h"
#include "engine/plan/types.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MOST_LOOKS = 256 };

static const struct qd_contrib *find_row(const struct qd_node *node)
{
    const struct {
        const struct qd_contrib *rows;
        size_t count;
    } parts[] = {{qd_contrib_fused, qd_contrib_fused_count},         {qd_contrib_quantized, qd_contrib_quantized_count},
                 {qd_contrib_attention, qd_contrib_attention_count}, {qd_contrib_einsum, qd_contrib_einsum_count},
                 {qd_contrib_flex, qd_contrib_flex_count},           {qd_contrib_sequence, qd_contrib_sequence_count}};
    for (size_t p = 0; p < sizeof parts / sizeof *parts; p++)
        for (size_t i = 0; i < parts[p].count; i++) {
            const struct qd_contrib *row = &parts[p].rows[i];
            if (strcmp(node->op, row->op) == 0 && strcmp(node->domain, row->domain) == 0 &&
                (!row->until || node->opset < row->until))
                return row;
        }
    return NULL;
}

bool qd_contrib_knows(const struct qd_node *node) { return find_row(node) != NULL; }

void qd_rw_no_memory(struct qd_rewriter *r)
{
    if (!r->status)
        r->status = qd_fail(r->error, QD_ERR_NO_MEMORY, "no memory to compile the model");
}

void qd_rw_fail(struct qd_rewriter *r, enum qd_status status, const char *format, ...)
{
    char text[200];
    va_list args;
    if (r->status)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->status = qd_fail(r->error, status, "%s node '%s' %s", r->node.op, r->node.name, text);
}

/* ------------------------------------------------------------------ reading the node */

int qd_rw_in(const struct qd_rewriter *r, int i) { return i < r->node.in_count ? r->node.in[i] : QD_NO_VALUE; }

int qd_rw_out(const struct qd_rewriter *r, int i) { return i < r->node.out_count ? r->node.out[i] : QD_NO_VALUE; }

int qd_rw_need(struct qd_rewriter *r, int i)
{
    int value = qd_rw_in(r, i);
    if (value == QD_NO_VALUE)
        qd_rw_fail(r, QD_ERR_INVALID, "lacks input %d", i);
    return value;
}

static const struct qd_attr *typed(struct qd_rewriter *r, const char *name, enum qd_attr_type type)
{
    const struct qd_attr *attr = qd_attr_find(&r->node, name);
    if (!attr || attr->type == type)
        return attr;
    qd_rw_fail(r, QD_ERR_INVALID, "has an attribute '%s' of another type than it should", name);
    return NULL;
}

int64_t qd_rw_get_int(struct qd_rewriter *r, const char *name, int64_t otherwise)
{
    const struct qd_attr *attr = typed(r, name, QD_ATTR_INT);
    return attr ? attr->i : otherwise;
}

float qd_rw_get_float(struct qd_rewriter *r, const char *name, float otherwise)
{
    const struct qd_attr *attr = typed(r, name, QD_ATTR_FLOAT);
    return attr ? attr->f : otherwise;
}

const struct qd_text *qd_rw_get_text(struct qd_rewriter *r, const char *name)
{
    const struct qd_attr *attr = typed(r, name, QD_ATTR_STRING);
    return attr ? &attr->s : NULL;
}

const struct qd_attr *qd_rw_get_list(struct qd_rewriter *r, const char *name, enum qd_attr_type type)
{
    return typed(r, name, type);
}

bool qd_rw_text_is(const struct qd_text *text, const char *to)
{
    return text && text->length == strlen(to) && memcmp(text->bytes, to, text->length) == 0;
}

/* What is declared, or follows from the nodes written so far. Each search walks them all, hence the limit, and leaves
 * nothing behind. */
static struct qd_type look(struct qd_rewriter *r, int value)
{
    struct qd_type type = {.dtype = QD_NONE, .rank = -1};
    if (value < 0 || r->status || r->looks++ >= MOST_LOOKS)
        return type;
    struct qd_graph so_far = *r->graph;
    so_far.nodes = r->nodes;
    so_far.node_count = r->count;
    if (!r->aside && qd_arena_create(64 << 10, &r->aside) != QD_OK) {
        qd_rw_no_memory(r);
        return type;
    }
    const struct qd_type *types = qd_types(&so_far, r->aside);
    const struct qd_dims *dims = qd_dims_find(&so_far, r->aside);
    if (types && dims) {
        type = types[value];
        type.rank = type.rank < 0 ? dims[value].rank : type.rank;
    } else {
        qd_rw_no_memory(r);
    }
    qd_arena_reset(r->aside);
    return type;
}

enum qd_dtype qd_rw_dtype(struct qd_rewriter *r, int value)
{
    enum qd_dtype declared = value < 0 ? QD_NONE : r->graph->values[value].info.dtype;
    return declared != QD_NONE ? declared : look(r, value).dtype;
}

int qd_rw_rank(struct qd_rewriter *r, int value)
{
    int declared = value < 0 ? -1 : r->graph->values[value].info.shape.rank;
    return declared >= 0 ? declared : look(r, value).rank;
}

int64_t qd_rw_dim(const struct qd_rewriter *r, int value, int axis)
{
    if (value < 0)
        return -1;
    const struct qd_shape *shape = &r->graph->values[value].info.shape;
    if (axis < 0)
        axis += shape->rank;
    return axis >= 0 && axis < shape->rank ? shape->dims[axis] : -1;
}

void qd_rw_no_inputs(struct qd_rewriter *r, int from)
{
    for (int i = from; i < r->node.in_count; i++)
        if (r->node.in[i] != QD_NO_VALUE)
            qd_rw_fail(r, QD_ERR_UNSUPPORTED, "with an input %d is not supported", i);
}

void qd_rw_no_outputs(struct qd_rewriter *r, int from)
{
    for (int i = from; i < r->node.out_count; i++)
        if (r->node.out[i] != QD_NO_VALUE)
            qd_rw_fail(r, QD_ERR_UNSUPPORTED, "with an output %d is not supported", i);
}

/* ------------------------------------------------------------------ writing nodes */

/* Doubles an array of the arena; what it was stays there until the plan goes. */
static bool grow(struct qd_rewriter *r, void **array, int count, int *room, size_t size)
{
    int more = *room > INT32_MAX / 2 ? 0 : *room * 2 + 64;
    void *to = more ? qd_arena_alloc(r->arena, (size_t)more, size) : NULL;
    if (!to) {
        qd_rw_no_memory(r);
        return false;
    }
    if (count)
        memcpy(to, *array, (size_t)count * size);
    *array = to;
    *room = more;
    return true;
}

static const char *made_name(struct qd_rewriter *r, const char *op)
{
    char text[256];
    int n = snprintf(text, sizeof text, "%.200s/%s_%d", r->node.name, op, r->count - r->first);
    const char *name = qd_arena_strndup(r->arena, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    if (!name)
        qd_rw_no_memory(r);
    return name ? name : "";
}

int qd_rw_new_value(struct qd_rewriter *r, const char *name)
{
    struct qd_graph *graph = r->graph;
    void *values = graph->values;
    if (graph->value_count == r->value_room &&
        !grow(r, &values, graph->value_count, &r->value_room, sizeof *graph->values))
        return 0;
    graph->values = values;
    graph->values[graph->value_count] = (struct qd_value){
        .name = name, .info.shape.rank = -1, .producer = -1, .outer = QD_NO_VALUE};
    return graph->value_count++;
}

bool qd_rw_append(struct qd_rewriter *r, const struct qd_node *node)
{
    void *nodes = r->nodes;
    if (r->count == r->room && !grow(r, &nodes, r->count, &r->room, sizeof *r->nodes))
        return false;
    r->nodes = nodes;
    r->nodes[r->count++] = *node;
    return true;
}

int qd_rw_make(struct qd_rewriter *r, const char *op, int out, const int *in, int count)
{
    while (count > 0 && in[count - 1] == QD_NO_VALUE)
        count--;
    int *ids = r->status ? NULL : qd_arena_alloc(r->arena, (size_t)count + 1, sizeof *ids);
    if (!ids) {
        qd_rw_no_memory(r);
        return 0;
    }
    const char *name = made_name(r, op);
    struct qd_node node = {.name = name, .op = op, .domain = "", .opset = QD_RW_OPSET, .in_count = count};
    if (count)
        memcpy(ids, in, (size_t)count * sizeof *ids);
    ids[count] = out == QD_RW_NEW ? qd_rw_new_value(r, name) : out;
    node.in = ids;
    node.out = ids + count;
    node.out_count = 1;
    if (!r->named && strcmp(op, r->row->main) == 0) {
        node.name = r->node.name;
        r->named = true;
    }
    if (r->status || !qd_rw_append(r, &node))
        return 0;
    return ids[count];
}

int qd_rw_copy_value(struct qd_rewriter *r, const struct qd_value *value)
{
    int id = r->status ? 0 : qd_rw_new_value(r, value->name);
    if (r->status)
        return 0;
    r->graph->values[id] = *value;
    r->graph->values[id].producer = -1;
    r->graph->values[id].outer = QD_NO_VALUE;
    r->graph->values[id].is_input = r->graph->values[id].is_output = false;
    return id;
}

void qd_rw_copy_node(struct qd_rewriter *r, const struct qd_node *node, const int *map)
{
    int count = node->in_count + node->out_count;
    int *ids = r->status ? NULL : qd_arena_alloc(r->arena, (size_t)count + 1, sizeof *ids);
    if (!ids) {
        qd_rw_no_memory(r);
        return;
    }
    for (int i = 0; i < count; i++) {
        int id = i < node->in_count ? node->in[i] : node->out[i - node->in_count];
        ids[i] = id == QD_NO_VALUE ? QD_NO_VALUE : map[id];
    }
    struct qd_node copy = *node;
    copy.in = ids;
    copy.out = ids + node->in_count;
    qd_rw_append(r, &copy);
}

void qd_rw_outputs(struct qd_rewriter *r, int *out, int count)
{
    int *ids = r->status ? NULL : qd_arena_alloc(r->arena, (size_t)count, sizeof *ids);
    if (!ids) {
        qd_rw_no_memory(r);
        return;
    }
    for (int i = 0; i < count; i++) {
        if (out[i] == QD_RW_NEW)
            out[i] = qd_rw_new_value(r, made_name(r, "out"));
        ids[i] = out[i];
    }
    if (r->status)
        return;
    r->nodes[r->count - 1].out = ids;
    r->nodes[r->count - 1].out_count = count;
}

static void put_attr(struct qd_rewriter *r, const struct qd_attr *attr)
{
    if (r->status)
        return;
    struct qd_node *node = &r->nodes[r->count - 1];
    struct qd_attr *attrs = qd_arena_alloc(r->arena, (size_t)node->attr_count + 1, sizeof *attrs);
    if (!attrs) {
        qd_rw_no_memory(r);
        return;
    }
    if (node->attr_count)
        memcpy(attrs, node->attrs, (size_t)node->attr_count * sizeof *attrs);
    attrs[node->attr_count++] = *attr;
    node->attrs = attrs;
}

void qd_rw_int(struct qd_rewriter *r, const char *name, int64_t i)
{
    put_attr(r, &(struct qd_attr){.name = name, .type = QD_ATTR_INT, .count = 1, .i = i});
}

void qd_rw_float(struct qd_rewriter *r, const char *name, float f)
{
    put_attr(r, &(struct qd_attr){.name = name, .type = QD_ATTR_FLOAT, .count = 1, .f = f});
}

void qd_rw_text(struct qd_rewriter *r, const char *name, const char *text)
{
    put_attr(r, &(struct qd_attr){.name = name, .type = QD_ATTR_STRING, .count = 1, .s = {text, strlen(text)}});
}

void qd_rw_ints(struct qd_rewriter *r, const char *name, const int64_t *ints, size_t count)
{
    int64_t *copy = r->status ? NULL : qd_arena_alloc(r->arena, count, sizeof *copy);
    if (!copy) {
        qd_rw_no_memory(r);
        return;
    }
    memcpy(copy, ints, count * sizeof *copy);
    put_attr(r, &(struct qd_attr){.name = name, .type = QD_ATTR_INTS, .count = count, .ints = copy});
}

void qd_rw_keep(struct qd_rewriter *r, const char *name)
{
    const struct qd_attr *attr = qd_attr_find(&r->node, name);
    if (attr)
        put_attr(r, attr);
}

static int constant(struct qd_rewriter *r, enum qd_dtype dtype, int rank, const void *data, size_t count)
{
    struct qd_tensor tensor = {.dtype = dtype, .shape = {.rank = rank, .dims = {(int64_t)count}}};
    size_t bytes = count * qd_dtype_bytes(dtype);
    tensor.data = r->status ? NULL : qd_arena_alloc_raw(r->arena, bytes);
    if (!tensor.data) {
        qd_rw_no_memory(r);
        return 0;
    }
    if (bytes)
        memcpy(tensor.data, data, bytes);
    int value = qd_rw_new_value(r, "");
    if (r->status)
        return 0;
    r->graph->values[value].info = tensor;
    r->graph->values[value].constant = true;
    return value;
}

int qd_rw_list(struct qd_rewriter *r, const int64_t *ints, size_t count) { return constant(r, QD_I64, 1, ints, count); }

int qd_rw_one_int(struct qd_rewriter *r, int64_t i) { return constant(r, QD_I64, 0, &i, 1); }

int qd_rw_one_float(struct qd_rewriter *r, float f) { return constant(r, QD_F32, 0, &f, 1); }

int qd_rw_zero(struct qd_rewriter *r, enum qd_dtype dtype)
{
    static const uint64_t zero;
    return constant(r, dtype, 0, &zero, 1);
}

int qd_rw_transpose(struct qd_rewriter *r, int x, const int64_t *perm, size_t rank)
{
    int out = QD_RW(r, "Transpose", QD_RW_NEW, x);
    qd_rw_ints(r, "perm", perm, rank);
    return out;
}

int qd_rw_cast(struct qd_rewriter *r, int out, int x, enum qd_dtype to)
{
    out = QD_RW(r, "Cast", out, x);
    qd_rw_int(r, "to", qd_dtype_to_onnx(to));
    return out;
}

int qd_rw_size(struct qd_rewriter *r, int x, int64_t axis)
{
    int shape = QD_RW(r, "Shape", QD_RW_NEW, x);
    return QD_RW(r, "Gather", QD_RW_NEW, shape, QD_RW_LIST(r, axis));
}

/* ------------------------------------------------------------------ the walk */

/* Weights and channels in blocks of a vector register's size, which the file doesn't tell. */
static bool blocked(const struct qd_node *node) { return strcmp(node->domain, "com.microsoft.nchwc") == 0; }

static void rewrite_node(struct qd_rewriter *r)
{
    int inputs = r->node.in_count;
    r->first = r->count;
    r->named = false;
    if (inputs < r->row->least || inputs > r->row->most)
        qd_rw_fail(r, QD_ERR_INVALID, "has %d inputs, not %d to %d", inputs, r->row->least, r->row->most);
    for (int i = 0; i < r->row->least; i++)
        qd_rw_need(r, i);
    if (qd_rw_out(r, 0) == QD_NO_VALUE)
        qd_rw_fail(r, QD_ERR_INVALID, "has no output 0");
    if (!r->status)
        r->row->rewrite(r);
    if (!r->status && !r->named && r->count > r->first)
        r->nodes[r->count - 1].name = r->node.name;
}

/* Whoever is left that reads what a node made of which nothing is left: a sequence. `gone` by old node. */
static void check_gone(struct qd_rewriter *r, const bool *gone)
{
    const struct qd_graph *graph = r->graph;
    for (int n = 0; n < r->count; n++)
        for (int i = 0; i < r->nodes[n].in_count; i++) {
            const int value = r->nodes[n].in[i];
            if (value != QD_NO_VALUE && graph->values[value].producer >= 0 && gone[graph->values[value].producer]) {
                r->node = r->nodes[n];
                qd_rw_fail(r, QD_ERR_UNSUPPORTED, "reads a sequence: only tensors are supported");
            }
        }
    for (int i = 0; i < graph->output_count; i++) {
        const struct qd_value *value = &graph->values[graph->outputs[i]];
        if (!r->status && value->producer >= 0 && gone[value->producer])
            r->status = qd_fail(r->error, QD_ERR_UNSUPPORTED, "output '%s' is a sequence: only tensors are supported",
                                value->name);
    }
}

enum qd_status qd_contrib_rewrite(struct qd_graph *graph, struct qd_arena *arena, struct qd_error *error)
{
    struct qd_rewriter r = {.graph = graph, .arena = arena, .error = error, .value_room = graph->value_count};
    bool any = false;
    for (int n = 0; !any && n < graph->node_count; n++)
        any = find_row(&graph->nodes[n]) != NULL || blocked(&graph->nodes[n]);
    bool *gone = any ? qd_arena_alloc(arena, (size_t)graph->node_count, sizeof *gone) : NULL;
    if (any && !gone)
        qd_rw_no_memory(&r);
    for (int n = 0; any && !r.status && n < graph->node_count; n++) {
        r.node = graph->nodes[n];
        r.row = find_row(&r.node);
        if (blocked(&r.node))
            r.status = qd_fail(
                error, QD_ERR_UNSUPPORTED,
                "node '%s' is %s.%s, whose layout is that of one kind of processor: write the model with "
                "the optimizer's level 'extended' instead of 'all'",
                r.node.name, r.node.domain, r.node.op);
        else if (r.row)
            rewrite_node(&r);
        else
            qd_rw_append(&r, &r.node);
        gone[n] = r.row && r.count == r.first;
    }
    if (any && !r.status)
        check_gone(&r, gone);
    if (!r.status && any) {
        graph->nodes = r.nodes;
        graph->node_count = r.count;
    }
    qd_arena_destroy(&r.aside);
    return r.status;
}
