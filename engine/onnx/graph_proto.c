/* GraphProto: values, nodes and how they hang together. First every name of the graph is declared, then nodes are
 * filled, because a node's subgraphs may use any of them. Not for what a model has besides graphs (import.c). */
#include "engine/onnx/internal.h"

#include <limits.h>
#include <string.h>

enum { NODE = 1, NAME = 2, INITIALIZER = 5, INPUT = 11, OUTPUT = 12, VALUE_INFO = 13, SPARSE_INITIALIZER = 15 };
enum { FUNCTION_NODE = 7 };
enum { NODE_INPUT = 1, NODE_OUTPUT, NODE_NAME, NODE_OP, NODE_ATTRIBUTE, NODE_DOMAIN = 7, NODE_OVERLOAD = 8 };

static enum qd_status no_memory(struct qd_import *im)
{
    return qd_fail(im->error, QD_ERR_NO_MEMORY, "no memory to import the model");
}

/* ---------------------------------------------------------------- values */

static bool is_known(const struct qd_scope *scope, const char *name)
{
    int id;
    return qd_map_find(&scope->names, name, strlen(name), &id);
}

static enum qd_status add_initializer(struct qd_scope *scope, struct qd_text message)
{
    struct qd_tensor tensor;
    const char *name;
    int id;
    enum qd_status status = qd_import_tensor(scope->im, message, &tensor, &name);
    if (status)
        return status;
    if (!*name)
        return qd_fail(scope->im->error, QD_ERR_FORMAT, "an initializer has no name");
    if (is_known(scope, name))
        return qd_fail(scope->im->error, QD_ERR_FORMAT, "two initializers are called '%s'", name);
    status = qd_scope_add(scope, name, &id);
    if (status)
        return status;
    scope->values[id].info = tensor;
    scope->values[id].constant = true;
    return QD_OK;
}

static enum qd_status refuse_sparse(struct qd_scope *scope, struct qd_text message)
{
    struct qd_cursor cursor = qd_wire_open(message), inner;
    struct qd_wire_field field;
    struct qd_text text = {0};
    const char *name;
    while (qd_wire_next(&cursor, &field))
        if (field.number == 1) /* the values: a TensorProto, which bears the name */
            for (inner = qd_wire_open(field.bytes); qd_wire_next(&inner, &field);)
                if (field.number == 8)
                    text = field.bytes;
    enum qd_status status = qd_import_name(scope->im, text, "a sparse tensor's name", &name);
    return status
               ? status
               : qd_fail(scope->im->error, QD_ERR_UNSUPPORTED, "tensor '%s': sparse tensors are not supported", name);
}

/* Before this version every initializer had to be listed as an input as well: there it is no default, but a constant.
 */
#define FIRST_IR_WITH_CONSTANTS 4

/* An input that has an initializer too: that is its default, and must be of the declared type. */
static enum qd_status check_default(struct qd_scope *scope, const struct qd_value *value,
                                    const struct qd_tensor *declared)
{
    bool fits = declared->dtype == QD_NONE || declared->dtype == value->info.dtype;
    bool ranked = declared->shape.rank >= 0;
    fits = fits && (!ranked || declared->shape.rank == value->info.shape.rank);
    for (int i = 0; fits && ranked && i < declared->shape.rank; i++)
        fits = declared->shape.dims[i] < 0 || declared->shape.dims[i] == value->info.shape.dims[i];
    return fits ? QD_OK
                : qd_fail(scope->im->error, QD_ERR_FORMAT, "input '%s': its initializer has another type or shape",
                          value->name);
}

static enum qd_status add_input(struct qd_scope *scope, struct qd_text message)
{
    const char *name, *dim_names[QD_MAX_RANK];
    struct qd_tensor info;
    int id;
    enum qd_status status = qd_import_value_name(scope->im, message, "an input", &name);
    if (status == QD_OK)
        status = qd_import_value_info(scope->im, message, name, &info, dim_names, false);
    if (status)
        return status;
    bool known = qd_map_find(&scope->names, name, strlen(name), &id);
    if (known && scope->values[id].is_input)
        return qd_fail(scope->im->error, QD_ERR_FORMAT, "two inputs are called '%s'", name);
    status = known ? check_default(scope, &scope->values[id], &info) : qd_scope_add(scope, name, &id);
    if (status || (known && scope->im->ir_version < FIRST_IR_WITH_CONSTANTS))
        return status;
    if (!known && !scope->parent && info.dtype == QD_NONE)
        return qd_fail(scope->im->error, QD_ERR_FORMAT, "input '%s' has no type", name);
    struct qd_value *value = &scope->values[id];
    if (!known)
        value->info = info;
    memcpy(value->dim_names, dim_names, sizeof value->dim_names);
    value->is_input = true;
    scope->graph->inputs[scope->graph->input_count++] = id;
    return QD_OK;
}

/* A list of maps by its type, which is carried as the matrix of its numbers. */
static bool from_zipmap(const struct qd_scope *scope, const struct qd_value *value)
{
    const struct qd_node *node = value->producer >= 0 ? &scope->graph->nodes[value->producer] : NULL;
    return node && strcmp(node->op, "ZipMap") == 0 && strcmp(node->domain, "ai.onnx.ml") == 0;
}

/* What the file declares of a value made by a node. The first declaration counts; constants know better. */
static enum qd_status declare(struct qd_scope *scope, struct qd_text message, const char *name, int id, bool inner)
{
    const char *dim_names[QD_MAX_RANK] = {NULL};
    struct qd_tensor info = {.dtype = QD_F32, .shape = {.rank = 2, .dims = {-1, -1}}};
    struct qd_value *value = &scope->values[id];
    enum qd_status status = QD_OK;
    if (!from_zipmap(scope, value))
        status = qd_import_value_info(scope->im, message, name, &info, dim_names, inner);
    if (status || value->info.dtype != QD_NONE || value->outer != QD_NO_VALUE)
        return status;
    value->info = info;
    memcpy(value->dim_names, dim_names, sizeof value->dim_names);
    return QD_OK;
}

static enum qd_status add_output(struct qd_scope *scope, struct qd_text message)
{
    const char *name;
    bool found;
    int id;
    enum qd_status status = qd_import_value_name(scope->im, message, "an output", &name);
    if (status == QD_OK)
        status = qd_scope_find(scope, scope->space, (struct qd_text){name, strlen(name)}, &id, &found);
    if (status)
        return status;
    if (id == QD_NO_VALUE)
        return qd_fail(scope->im->error, QD_ERR_FORMAT, "output '%s' is produced by no node", name);
    if (scope->values[id].is_output && !scope->parent) /* a loop's body may hand out one value twice */
        return qd_fail(scope->im->error, QD_ERR_FORMAT, "two outputs are called '%s'", name);
    scope->values[id].is_output = true;
    scope->graph->outputs[scope->graph->output_count++] = id;
    return declare(scope, message, scope->values[id].name, id, false);
}

/* Exporters leave declarations of values that are gone: those are passed over. */
static enum qd_status add_value_info(struct qd_scope *scope, struct qd_text message)
{
    const char *name;
    int id;
    enum qd_status status = qd_import_value_name(scope->im, message, "a value", &name);
    if (status || !qd_map_find(&scope->names, name, strlen(name), &id))
        return status;
    return declare(scope, message, scope->values[id].name, id, true);
}

/* ---------------------------------------------------------------- nodes */

/* Puts the node before the sentence that is there. */
static enum qd_status name_in_error(struct qd_import *im, const struct qd_node *node)
{
    char text[200];
    if (!im->node_named)
        qd_error_prefix(im->error, "%s", qd_node_text(node, text, sizeof text));
    im->node_named = true;
    return im->error->status;
}

static enum qd_status bad_node(struct qd_import *im, const struct qd_node *node, const char *format, const char *name)
{
    qd_fail(im->error, QD_ERR_FORMAT, format, name);
    return name_in_error(im, node);
}

/* A name for a sentence; "" when it is no text. */
static const char *name_of(struct qd_scope *scope, struct qd_text bytes)
{
    const char *name;
    struct qd_error *error = scope->im->error, unheard;
    scope->im->error = &unheard;
    if (qd_import_name(scope->im, bytes, "a name", &name) != QD_OK)
        name = "";
    scope->im->error = error;
    return name;
}

struct node_parts {
    struct qd_text name, op, domain, overload;
    size_t in_count, out_count, attr_count;
};

static enum qd_status read_parts(struct qd_import *im, struct qd_text message, struct node_parts *parts)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    bool sound = true;
    *parts = (struct node_parts){0};
    while (qd_wire_next(&cursor, &field)) {
        sound = sound && (field.number > NODE_OVERLOAD || field.type == QD_WIRE_BYTES);
        parts->in_count += field.number == NODE_INPUT;
        parts->out_count += field.number == NODE_OUTPUT;
        parts->attr_count += field.number == NODE_ATTRIBUTE;
        if (field.number == NODE_NAME)
            parts->name = field.bytes;
        else if (field.number == NODE_OP)
            parts->op = field.bytes;
        else if (field.number == NODE_DOMAIN)
            parts->domain = field.bytes;
        else if (field.number == NODE_OVERLOAD)
            parts->overload = field.bytes;
    }
    if (cursor.bad || !sound)
        return qd_import_malformed(im, "node");
    if (parts->in_count > INT_MAX || parts->out_count > INT_MAX)
        return qd_fail(im->error, QD_ERR_TOO_LARGE, "a node has too many inputs or outputs");
    return QD_OK;
}

/* Name, operator, domain and opset: what sentences need. *function: the model's own that it calls, or -1. */
static enum qd_status name_node(struct qd_import *im, struct qd_text message, const struct node_parts *parts,
                                const struct qd_call_space *space, struct qd_node *node, int *function)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text name = parts->name;
    for (bool found = name.length > 0; !found && qd_wire_next(&cursor, &field);)
        if (field.number == NODE_OUTPUT && field.bytes.length > 0) {
            name = field.bytes;
            found = true;
        }
    enum qd_status status = qd_import_name(im, name, "a node's name", &node->name);
    if (status == QD_OK)
        status = qd_scope_qualify(im, space, &node->name);
    if (status == QD_OK)
        status = qd_import_name(im, parts->op, "an operator's name", &node->op);
    if (status == QD_OK)
        status = qd_import_domain(im, parts->domain, &node->domain);
    if (status)
        return status;
    if (!*node->op)
        return qd_fail(im->error, QD_ERR_FORMAT, "node '%s' names no operator", node->name);
    status = qd_import_find_function(im, node->domain, node->op, parts->overload, function);
    if (status || *function >= 0)
        return status;
    node->opset = qd_import_opset(im, space, node->domain);
    if (node->opset == 0)
        return qd_fail(im->error, QD_ERR_FORMAT, "node '%s': the model imports no opset of domain '%s' for its %s",
                       node->name, *node->domain ? node->domain : "ai.onnx", node->op);
    return QD_OK;
}

static enum qd_status declare_outputs(struct qd_scope *scope, struct qd_text message, struct qd_call_space *space,
                                      struct qd_node *node, size_t count, int producer)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    int *out = qd_import_alloc(scope->im, count, sizeof *out);
    if (!out)
        return scope->im->error->status;
    node->out = out;
    while (qd_wire_next(&cursor, &field)) {
        if (field.number != NODE_OUTPUT)
            continue;
        int id = QD_NO_VALUE;
        bool taken = false;
        enum qd_status status = QD_OK;
        if (field.bytes.length > 0)
            status = qd_scope_declare(scope, space, field.bytes, &id, &taken);
        if (status)
            return status;
        if (taken)
            return bad_node(scope->im, node, "output '%s' has a name that is taken", name_of(scope, field.bytes));
        if (id != QD_NO_VALUE)
            scope->values[id].producer = producer;
        out[node->out_count++] = id;
    }
    return QD_OK;
}

static enum qd_status read_attrs(struct qd_scope *scope, struct qd_text message, struct qd_node *node, size_t count)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    if (count > QD_IMPORT_MAX_ATTRS)
        return bad_node(scope->im, node, "more than %s attributes", "256");
    struct qd_attr *attrs = qd_import_alloc(scope->im, count, sizeof *attrs);
    if (!attrs)
        return scope->im->error->status;
    node->attrs = attrs;
    while (qd_wire_next(&cursor, &field)) {
        if (field.number != NODE_ATTRIBUTE)
            continue;
        struct qd_attr *attr = &attrs[node->attr_count];
        bool given;
        if (qd_import_attr(scope, field.bytes, attr, &given) != QD_OK)
            return name_in_error(scope->im, node);
        if (!given)
            continue;
        if (qd_attr_find(node, attr->name))
            return bad_node(scope->im, node, "two attributes are called '%s'", attr->name);
        node->attr_count++;
    }
    return QD_OK;
}

/* A list of numbers or strings as a constant of rank 1, or one as a scalar. The data are the attribute's own. */
static struct qd_tensor list_tensor(struct qd_attr *attr)
{
    const bool strings = attr->type == QD_ATTR_STRING || attr->type == QD_ATTR_STRINGS;
    const bool ints = attr->type == QD_ATTR_INT || attr->type == QD_ATTR_INTS;
    const bool list = attr->type == QD_ATTR_FLOATS || attr->type == QD_ATTR_INTS || attr->type == QD_ATTR_STRINGS;
    struct qd_tensor tensor = {.dtype = strings ? QD_STR : ints ? QD_I64 : QD_F32, .shape = {.rank = list}};
    tensor.shape.dims[0] = list ? (int64_t)attr->count : 0;
    tensor.data = !list ? (void *)&attr->i : (void *)(uintptr_t)attr->floats;
    return tensor;
}

/* A Constant node: its output becomes a constant of the graph, and the node is gone. */
static enum qd_status take_constant(struct qd_scope *scope, struct qd_text message, struct qd_node *node,
                                    size_t attr_count)
{
    static const struct {
        const char *name;
        enum qd_attr_type type;
    } forms[] = {{"value", QD_ATTR_TENSOR},         {"value_float", QD_ATTR_FLOAT}, {"value_floats", QD_ATTR_FLOATS},
                 {"value_int", QD_ATTR_INT},        {"value_ints", QD_ATTR_INTS},   {"value_string", QD_ATTR_STRING},
                 {"value_strings", QD_ATTR_STRINGS}};
    enum qd_status status = read_attrs(scope, message, node, attr_count);
    if (status)
        return status;
    if (node->attr_count != 1 || node->out_count != 1 || node->out[0] == QD_NO_VALUE)
        return bad_node(scope->im, node, "a constant has one %s and one output", "attribute");
    struct qd_attr *attr = (struct qd_attr *)(uintptr_t)node->attrs; /* ours, of a moment ago */
    bool known = false;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        known = known || (attr->type == forms[i].type && strcmp(attr->name, forms[i].name) == 0);
    if (!known)
        return bad_node(scope->im, node, "attribute '%s' makes no constant", attr->name);
    struct qd_value *value = &scope->values[node->out[0]];
    value->info = attr->type == QD_ATTR_TENSOR ? attr->t : list_tensor(attr);
    value->constant = true;
    return QD_OK;
}

/* Room for one more node. */
static enum qd_status grow_nodes(struct qd_scope *scope)
{
    struct qd_graph *graph = scope->graph;
    if (graph->node_count < scope->node_room)
        return QD_OK;
    size_t room = (size_t)scope->node_room * 2 + 16;
    struct qd_node *nodes = room > INT_MAX / 2 ? NULL : qd_import_alloc(scope->im, room, sizeof *nodes);
    if (!nodes)
        return room > INT_MAX / 2 ? qd_fail(scope->im->error, QD_ERR_TOO_LARGE, "the graph has too many parts")
                                  : scope->im->error->status;
    struct qd_pending *pending = qd_realloc(scope->pending, room, sizeof *pending);
    if (!pending)
        return no_memory(scope->im);
    if (graph->node_count)
        memcpy(nodes, graph->nodes, (size_t)graph->node_count * sizeof *nodes);
    scope->pending = pending;
    graph->nodes = nodes;
    scope->node_room = (int)room;
    return QD_OK;
}

/* An output of a function that is one of its inputs: what the call calls it is a value of its own. */
static enum qd_status hand_on(struct qd_scope *scope, struct qd_call_space *space, struct qd_text from,
                              struct qd_text to)
{
    bool taken;
    int *id = qd_import_alloc(scope->im, 1, sizeof *id);
    enum qd_status status = id ? grow_nodes(scope) : scope->im->error->status;
    if (status == QD_OK)
        status = qd_scope_declare(scope, space->caller, to, id, &taken);
    if (status)
        return status;
    if (taken)
        return qd_fail(scope->im->error, QD_ERR_FORMAT, "node '%s': an output's name is taken", space->name);
    struct qd_graph *graph = scope->graph;
    scope->values[*id].producer = graph->node_count;
    scope->pending[graph->node_count] = (struct qd_pending){.handed_on = from, .space = space};
    graph->nodes[graph->node_count++] = (struct qd_node){
        .name = space->name, .op = "Identity", .domain = "", .opset = graph->opset, .out_count = 1, .out = id};
    return QD_OK;
}

static enum qd_status declare_node(struct qd_scope *scope, struct qd_text message, struct qd_call_space *space);

/* The body of a function in the place of a call. */
static enum qd_status expand(struct qd_scope *scope, struct qd_text message, struct qd_call_space *caller, int function,
                             const char *name)
{
    struct qd_call_space *space;
    struct qd_wire_field field;
    enum qd_status status = qd_import_open_call(scope, caller, function, message, name, &space);
    if (status)
        return status;
    struct qd_cursor cursor = qd_wire_open(space->function);
    while (status == QD_OK && qd_wire_next(&cursor, &field))
        if (field.number == FUNCTION_NODE)
            status = field.type == QD_WIRE_BYTES ? declare_node(scope, field.bytes, space)
                                                 : qd_import_malformed(scope->im, "function");
    for (int i = 0; status == QD_OK && i < space->given_output_count; i++) {
        int id;
        bool made = false;
        struct qd_text output = space->outputs[i];
        if (space->given_outputs[i].length == 0 || qd_map_find(&space->names, output.bytes, output.length, &id))
            continue;
        for (int k = 0; k < space->input_count; k++)
            made = made || (space->inputs[k].length == output.length &&
                            memcmp(space->inputs[k].bytes, output.bytes, output.length) == 0);
        status = made ? hand_on(scope, space, output, space->given_outputs[i])
                      : qd_fail(scope->im->error, QD_ERR_FORMAT, "node '%s': its function never makes output %d", name,
                                i);
    }
    return status;
}

static enum qd_status declare_node(struct qd_scope *scope, struct qd_text message, struct qd_call_space *space)
{
    struct qd_graph *graph = scope->graph;
    struct qd_node node = {.name = "", .op = "", .domain = ""};
    struct node_parts parts;
    int function;
    enum qd_status status = read_parts(scope->im, message, &parts);
    if (status == QD_OK)
        status = name_node(scope->im, message, &parts, space, &node, &function);
    if (status)
        return status;
    if (function >= 0)
        return expand(scope, message, space, function, node.name); /* as deep as calls nest */
    bool constant = !*node.domain && strcmp(node.op, "Constant") == 0;
    status = declare_outputs(scope, message, space, &node, parts.out_count, constant ? -1 : graph->node_count);
    if (status == QD_OK)
        status = grow_nodes(scope);
    if (status)
        return status;
    scope->now = space;
    if (constant)
        return take_constant(scope, message, &node, parts.attr_count);
    scope->pending[graph->node_count] = (struct qd_pending){.message = message, .space = space};
    graph->nodes[graph->node_count++] = node;
    return QD_OK;
}

static enum qd_status declare_own_node(struct qd_scope *scope, struct qd_text message)
{
    return declare_node(scope, message, scope->space);
}

static enum qd_status find_input(struct qd_scope *scope, const struct qd_call_space *space, struct qd_node *node,
                                 struct qd_text name, int *id)
{
    bool found = true;
    *id = QD_NO_VALUE;
    enum qd_status status = name.length > 0 ? qd_scope_find(scope, space, name, id, &found) : QD_OK;
    return status || found ? status : bad_node(scope->im, node, "input '%s' comes from nowhere", name_of(scope, name));
}

static enum qd_status fill_node(struct qd_scope *scope, const struct qd_pending *pending, struct qd_node *node)
{
    struct qd_wire_field field;
    struct node_parts parts = {.in_count = 1};
    scope->now = pending->space;
    enum qd_status status = pending->message.bytes ? read_parts(scope->im, pending->message, &parts) : QD_OK;
    if (status == QD_OK && pending->message.bytes)
        status = read_attrs(scope, pending->message, node, parts.attr_count);
    int *in = status ? NULL : qd_import_alloc(scope->im, parts.in_count, sizeof *in);
    if (!in)
        return scope->im->error->status;
    node->in = in;
    if (!pending->message.bytes)
        status = find_input(scope, pending->space, node, pending->handed_on, &in[node->in_count++]);
    for (struct qd_cursor c = qd_wire_open(pending->message); status == QD_OK && qd_wire_next(&c, &field);)
        if (field.number == NODE_INPUT)
            status = find_input(scope, pending->space, node, field.bytes, &in[node->in_count++]);
    return status;
}

/* ---------------------------------------------------------------- the whole graph */

static enum qd_status each(struct qd_scope *scope, struct qd_text message, uint32_t number,
                           enum qd_status (*visit)(struct qd_scope *scope, struct qd_text part))
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    enum qd_status status = QD_OK;
    while (status == QD_OK && qd_wire_next(&cursor, &field))
        if (field.number == number)
            status = visit(scope, field.bytes);
    return status;
}

/* Checks the outer form, counts, and makes room. */
static enum qd_status open_graph(struct qd_scope *scope, struct qd_text message)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text name = {0};
    struct qd_import *im = scope->im;
    struct qd_graph *graph = scope->graph;
    size_t counts[SPARSE_INITIALIZER + 1] = {0}, parts = 0;
    bool sound = true;
    while (qd_wire_next(&cursor, &field)) {
        if (field.number > SPARSE_INITIALIZER)
            continue;
        sound = sound && field.type == QD_WIRE_BYTES;
        counts[field.number]++;
        parts++;
        if (field.number == NAME)
            name = field.bytes;
    }
    if (cursor.bad || !sound)
        return qd_import_malformed(im, "graph");
    if (parts > INT_MAX / 2)
        return qd_fail(im->error, QD_ERR_TOO_LARGE, "the graph has too many parts");
    graph->inputs = qd_import_alloc(im, counts[INPUT], sizeof *graph->inputs);
    graph->outputs = graph->inputs ? qd_import_alloc(im, counts[OUTPUT], sizeof *graph->outputs) : NULL;
    graph->nodes = graph->outputs ? qd_import_alloc(im, counts[NODE], sizeof *graph->nodes) : NULL;
    if (!graph->nodes)
        return im->error->status;
    scope->pending = qd_calloc(counts[NODE], sizeof *scope->pending);
    scope->node_room = (int)counts[NODE];
    return scope->pending ? qd_import_name(im, name, "a graph's name", &graph->name) : no_memory(im);
}

static enum qd_status fill_graph(struct qd_scope *scope, struct qd_text message)
{
    static const struct {
        uint32_t field;
        enum qd_status (*visit)(struct qd_scope *scope, struct qd_text part);
    } steps[] = {{SPARSE_INITIALIZER, refuse_sparse},
                 {INITIALIZER, add_initializer},
                 {INPUT, add_input},
                 {NODE, declare_own_node},
                 {OUTPUT, add_output},
                 {VALUE_INFO, add_value_info}};
    struct qd_graph *graph = scope->graph;
    enum qd_status status = open_graph(scope, message);
    for (size_t i = 0; status == QD_OK && i < sizeof steps / sizeof steps[0]; i++)
        status = each(scope, message, steps[i].field, steps[i].visit);
    for (int i = 0; status == QD_OK && i < graph->node_count; i++)
        status = fill_node(scope, &scope->pending[i], &graph->nodes[i]);
    if (status)
        return status;
    graph->values = qd_import_alloc(scope->im, (size_t)scope->value_count, sizeof *graph->values);
    if (!graph->values)
        return scope->im->error->status;
    if (scope->value_count)
        memcpy(graph->values, scope->values, (size_t)scope->value_count * sizeof *graph->values);
    graph->value_count = scope->value_count;
    return qd_import_sort(scope->im, graph);
}

enum qd_status qd_import_graph(struct qd_import *im, struct qd_scope *parent, struct qd_text message,
                               struct qd_graph **out)
{
    struct qd_scope scope = {
        .im = im, .parent = parent, .space = parent ? parent->now : NULL, .depth = parent ? parent->depth + 1 : 0};
    if (scope.depth >= QD_IMPORT_MAX_DEPTH)
        return qd_fail(im->error, QD_ERR_UNSUPPORTED, "more than %d graphs within each other", QD_IMPORT_MAX_DEPTH);
    scope.graph = qd_import_alloc(im, 1, sizeof *scope.graph);
    if (!scope.graph)
        return im->error->status;
    *scope.graph = (struct qd_graph){
        .arena = im->arena,
        .parent = parent ? parent->graph : NULL,
        .name = "",
        .opset = qd_import_opset(im, NULL, ""),
        .ir_version = im->ir_version,
        .digest = im->digest,
    };
    enum qd_status status = fill_graph(&scope, message);
    qd_map_clear(&scope.names);
    qd_free(scope.values);
    qd_free(scope.pending);
    *out = scope.graph;
    return status;
}
