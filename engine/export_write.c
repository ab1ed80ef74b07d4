/* Writing an exported model: the file's own fields as they are, but for the nodes that layers take the place of. See
 * export.h. */
#include "engine/export_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MODEL_IR_VERSION = 1, MODEL_GRAPH = 7, MODEL_OPSET = 8 };
/* Before this version each constant is listed among the inputs, too. */
enum { FIRST_IR_WITH_CONSTANTS = 4 };
enum { GRAPH_NODE = 1, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_VALUE_INFO = 13 };
enum { NODE_INPUT = 1, NODE_OUTPUT, NODE_NAME, NODE_OP, NODE_ATTRIBUTE, NODE_DOMAIN = 7 };
enum { ATTR_NAME = 1, ATTR_I = 3, ATTR_TYPE = 20, ATTR_TYPE_INT = 2 };
enum { TENSOR_DIMS = 1, TENSOR_TYPE, TENSOR_NAME = 8, TENSOR_RAW = 9, TENSOR_EXTERNAL = 13, TENSOR_LOCATION = 14 };
enum { ONNX_FLOAT = 1, ONNX_UINT8, ONNX_INT8, ONNX_INT32 = 6 };

/* A field again, as it was read. */
static void copy_field(struct qd_writer *w, const struct qd_wire_field *field)
{
    switch (field->type) {
    case QD_WIRE_VARINT:
        qd_write_varint(w, field->number, field->value);
        break;
    case QD_WIRE_FIXED64:
        qd_write_fixed64(w, field->number, field->value);
        break;
    case QD_WIRE_FIXED32:
        qd_write_fixed32(w, field->number, (uint32_t)field->value);
        break;
    case QD_WIRE_BYTES:
        qd_write_bytes(w, field->number, field->bytes.bytes, field->bytes.length);
        break;
    }
}

/* Our names: the prefix, the tensor's name, and a word for what it is. */
static void write_name(struct qd_writer *w, uint32_t number, const struct qd_export *x, const char *name,
                       const char *what)
{
    const size_t a = strlen(x->prefix), b = strlen(name), c = strlen(what);
    qd_write_head(w, number, a + b + c);
    qd_write_raw(w, x->prefix, a);
    qd_write_raw(w, name, b);
    qd_write_raw(w, what, c);
}

/* ------------------------------------------------------------------ tensors */

/* A constant of the exported model. Exactly one source: `raw`, or `layer` for its weights. */
struct constant {
    const struct qd_export *x;
    const char *name, *what;
    int type, rank;
    const int64_t *dims;
    size_t bytes;
    const void *raw;
    const struct qd_export_layer *layer;
};

static void write_weights(struct qd_writer *w, const struct constant *c)
{
    if (!w->put) {
        qd_write_pass(w, c->bytes);
        return;
    }
    for (size_t at = 0; at < c->bytes && !w->failed; at += QD_EXPORT_PIECE) {
        const size_t count = c->bytes - at < QD_EXPORT_PIECE ? c->bytes - at : QD_EXPORT_PIECE;
        qd_linear_weight_integers(&c->layer->spec, c->layer->scale, at, count, c->x->integers);
        qd_write_raw(w, c->x->integers, count);
    }
}

static void emit_constant(struct qd_writer *w, const void *context)
{
    const struct constant *c = context;
    for (int i = 0; i < c->rank; i++)
        qd_write_varint(w, TENSOR_DIMS, (uint64_t)c->dims[i]);
    qd_write_varint(w, TENSOR_TYPE, (uint64_t)c->type);
    write_name(w, TENSOR_NAME, c->x, c->name, c->what);
    qd_write_head(w, TENSOR_RAW, c->bytes);
    if (c->layer)
        write_weights(w, c);
    else
        qd_write_raw(w, c->raw, c->bytes);
}

static void write_constant(struct qd_writer *w, const struct constant *c)
{
    qd_write_message(w, GRAPH_INITIALIZER, emit_constant, c);
}

/* Scale and zero point of a tensor; symmetric ones are s8 in the file, u8 with 128 for 0 here. */
static bool is_symmetric(const struct qd_qparams *qp) { return qp->qmin > 0; }

static void write_parameters(struct qd_writer *w, const struct qd_export *x, const struct qd_export_tensor *t)
{
    const bool symmetric = is_symmetric(t->qp);
    const uint8_t zero = (uint8_t)(symmetric ? t->qp->zero_point - QD_CARRIER_OFFSET : t->qp->zero_point);
    struct constant c = {
        .x = x, .name = t->name, .what = "/scale", .type = ONNX_FLOAT, .bytes = sizeof(float), .raw = &t->qp->scale};
    write_constant(w, &c);
    c = (struct constant){.x = x,
                          .name = t->name,
                          .what = "/zero_point",
                          .type = symmetric ? ONNX_INT8 : ONNX_UINT8,
                          .bytes = 1,
                          .raw = &zero};
    write_constant(w, &c);
    if (!t->by)
        return;
    const int64_t dims[QD_MAX_RANK] = {(int64_t)t->channels, 1, 1, 1};
    c = (struct constant){.x = x,
                          .name = t->name,
                          .what = "/channels",
                          .type = ONNX_FLOAT,
                          .rank = 1 + t->spatial,
                          .dims = dims,
                          .bytes = t->channels * sizeof(float),
                          .raw = t->by};
    write_constant(w, &c);
}

static void emit_floats(struct qd_writer *w, const struct qd_export *x, const struct qd_export_layer *l,
                        const char *what, const float *values, size_t count)
{
    const int64_t dims[1] = {(int64_t)count};
    write_constant(w, &(struct constant){.x = x,
                                         .name = l->name,
                                         .what = what,
                                         .type = ONNX_FLOAT,
                                         .rank = 1,
                                         .dims = dims,
                                         .bytes = count * sizeof(float),
                                         .raw = values});
}

/* Zero points of the weights (`size` 1) or the integers of a bias, a piece at a time through the buffer. */
struct integers {
    const struct qd_export *x;
    const struct qd_export_layer *layer;
    bool bias;
};

static void emit_integers(struct qd_writer *w, const void *context)
{
    const struct integers *c = context;
    const struct qd_export_layer *l = c->layer;
    const size_t size = c->bias ? sizeof(int32_t) : 1;
    qd_write_varint(w, TENSOR_DIMS, l->outputs);
    qd_write_varint(w, TENSOR_TYPE, c->bias ? ONNX_INT32 : ONNX_INT8);
    write_name(w, TENSOR_NAME, c->x, l->name, c->bias ? "/bias_integers" : "/weight_zero_point");
    qd_write_head(w, TENSOR_RAW, l->outputs * size);
    for (size_t j = 0; j < l->outputs; j++) {
        const int32_t value = c->bias ? (int32_t)rintf(l->bias[j] / l->bias_scale[j]) : 0;
        qd_write_raw(w, &value, size); /* little endian, as this machine is */
    }
}

static void write_layer_constants(struct qd_writer *w, const struct qd_export *x, const struct qd_export_layer *l)
{
    const struct qd_shape *shape = &l->spec.weights->shape;
    write_constant(w, &(struct constant){.x = x,
                                         .name = l->name,
                                         .what = "/weight_integers",
                                         .type = ONNX_INT8,
                                         .rank = shape->rank,
                                         .dims = shape->dims,
                                         .bytes = (size_t)qd_tensor_elems(l->spec.weights),
                                         .layer = l});
    emit_floats(w, x, l, "/weight_scale", l->scale, l->outputs);
    qd_write_message(w, GRAPH_INITIALIZER, emit_integers, &(struct integers){x, l, false});
    if (l->by)
        emit_floats(w, x, l, "/columns", l->by,
                    (size_t)qd_tensor_elems(l->spec.weights) / l->outputs); /* a matrix: one of each input */
    if (!l->bias)
        return;
    if (!l->bias_scale) {
        emit_floats(w, x, l, "/bias", l->bias, l->outputs);
        return;
    }
    qd_write_message(w, GRAPH_INITIALIZER, emit_integers, &(struct integers){x, l, true});
    emit_floats(w, x, l, "/bias_scale", l->bias_scale, l->outputs);
}

/* ------------------------------------------------------------------ nodes */

/* A node of ours. Its inputs: `plain` as it is when not NULL, else our own names by the words. */
struct made {
    const struct qd_export *x;
    const char *op, *name, *plain, *in[3], *out; /* out NULL: the name itself */
    int axis;                                    /* -1: no such attribute */
    bool quantizes;                              /* an operator that old opsets lack */
};

static void emit_axis(struct qd_writer *w, const void *context)
{
    qd_write_text(w, ATTR_NAME, "axis");
    qd_write_varint(w, ATTR_I, (uint64_t)(int64_t) * (const int *)context);
    qd_write_varint(w, ATTR_TYPE, ATTR_TYPE_INT);
}

static void emit_made(struct qd_writer *w, const void *context)
{
    const struct made *m = context;
    if (m->plain)
        qd_write_text(w, NODE_INPUT, m->plain);
    for (int i = 0; i < 3 && m->in[i]; i++)
        write_name(w, NODE_INPUT, m->x, m->name, m->in[i]);
    if (m->out)
        write_name(w, NODE_OUTPUT, m->x, m->name, m->out);
    else
        qd_write_text(w, NODE_OUTPUT, m->name);
    write_name(w, NODE_NAME, m->x, m->name, m->out ? m->out : "/add");
    qd_write_text(w, NODE_OP, m->op);
    if (m->quantizes && m->x->opset < QD_EXPORT_FIRST_OPSET)
        qd_write_text(w, NODE_DOMAIN, "com.microsoft");
    if (m->axis >= 0)
        qd_write_message(w, NODE_ATTRIBUTE, emit_axis, &m->axis);
}

static void write_made(struct qd_writer *w, struct made m) { qd_write_message(w, GRAPH_NODE, emit_made, &m); }

static void write_tensor_nodes(struct qd_writer *w, const struct qd_export *x, const struct qd_export_tensor *t)
{
    if (!t->live)
        return;
    struct made quantize = {.x = x,
                            .op = "QuantizeLinear",
                            .name = t->name,
                            .plain = t->name,
                            .in = {"/scale", "/zero_point"},
                            .out = "/integers",
                            .axis = -1,
                            .quantizes = true};
    if (t->by) {
        write_made(w, (struct made){.x = x,
                                    .op = "Mul",
                                    .name = t->name,
                                    .plain = t->name,
                                    .in = {"/channels"},
                                    .out = "/smoothed",
                                    .axis = -1});
        quantize.plain = NULL;
        quantize.in[0] = "/smoothed";
        quantize.in[1] = "/scale";
        quantize.in[2] = "/zero_point";
    }
    write_made(w, quantize);
    write_made(w, (struct made){.x = x,
                                .op = "DequantizeLinear",
                                .name = t->name,
                                .in = {"/integers", "/scale", "/zero_point"},
                                .out = "/dequantized",
                                .axis = -1,
                                .quantizes = true});
}

static const struct qd_export_tensor *tensor_named(const struct qd_export *x, struct qd_text name)
{
    int value;
    if (!name.length || !qd_map_find(&x->values, name.bytes, name.length, &value) || !x->tensors[value].live)
        return NULL;
    return &x->tensors[value];
}

struct rewritten {
    const struct qd_export *x;
    const struct qd_export_node *node;
    const struct qd_export_layer *layer;
};

/* The file's node with other inputs where integers are read. */
static void emit_node(struct qd_writer *w, const void *context)
{
    const struct rewritten *r = context;
    struct qd_cursor cursor = qd_wire_open(r->node->message);
    struct qd_wire_field field;
    for (int i = 0; qd_wire_next(&cursor, &field);) {
        const int tensor = field.number == NODE_INPUT ? r->node->tensor[i++] : -1;
        if (tensor >= 0)
            write_name(w, NODE_INPUT, r->x, r->x->tensors[tensor].name, "/dequantized");
        else
            copy_field(w, &field);
    }
}

/* Gemm's factors are in the weights and in the bias. */
static bool is_folded_attribute(struct qd_text message)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text name = {0};
    while (qd_wire_next(&cursor, &field))
        if (field.number == ATTR_NAME)
            name = field.bytes;
    return (name.length == 5 && memcmp(name.bytes, "alpha", 5) == 0) ||
           (name.length == 4 && memcmp(name.bytes, "beta", 4) == 0);
}

static bool adds_bias(const struct qd_export_layer *l) { return l->bias && qd_node_is(l->spec.node, "MatMul"); }

/* A layer in the place of its node: name, operator and attributes are the node's. */
static void emit_layer(struct qd_writer *w, const void *context)
{
    const struct rewritten *r = context;
    const struct qd_export_layer *l = r->layer;
    struct qd_cursor cursor = qd_wire_open(r->node->message);
    struct qd_wire_field field;
    if (l->by)
        write_name(w, NODE_INPUT, r->x, l->name, "/smoothed");
    else if (l->reads.length)
        qd_write_bytes(w, NODE_INPUT, l->reads.bytes, l->reads.length);
    else
        write_name(w, NODE_INPUT, r->x, r->x->tensors[l->input].name, "/dequantized");
    write_name(w, NODE_INPUT, r->x, l->name, "/weight");
    if (l->bias && !adds_bias(l))
        write_name(w, NODE_INPUT, r->x, l->name, "/bias");
    if (adds_bias(l))
        write_name(w, NODE_OUTPUT, r->x, l->name, "/product");
    else
        qd_write_text(w, NODE_OUTPUT, l->name);
    while (qd_wire_next(&cursor, &field))
        if (field.number != NODE_INPUT && field.number != NODE_OUTPUT &&
            !(field.number == NODE_ATTRIBUTE && qd_node_is(l->spec.node, "Gemm") && is_folded_attribute(field.bytes)))
            copy_field(w, &field);
}

/* Columns of a smoothed layer's input are divided by what its weights were multiplied by. */
static void emit_smoothing(struct qd_writer *w, const void *context)
{
    const struct rewritten *r = context;
    qd_write_bytes(w, NODE_INPUT, r->layer->reads.bytes, r->layer->reads.length);
    write_name(w, NODE_INPUT, r->x, r->layer->name, "/columns");
    write_name(w, NODE_OUTPUT, r->x, r->layer->name, "/smoothed");
    write_name(w, NODE_NAME, r->x, r->layer->name, "/smooth");
    qd_write_text(w, NODE_OP, "Mul");
}

static void write_layer(struct qd_writer *w, const struct qd_export *x, const struct qd_export_node *node)
{
    const struct qd_export_layer *l = &x->layers[node->layer];
    struct made m = {.x = x,
                     .op = "DequantizeLinear",
                     .name = l->name,
                     .in = {"/weight_integers", "/weight_scale", "/weight_zero_point"},
                     .out = "/weight",
                     .axis = l->axis,
                     .quantizes = true};
    write_made(w, m);
    if (l->bias_scale) {
        m.in[0] = "/bias_integers";
        m.in[1] = "/bias_scale";
        m.in[2] = NULL;
        m.out = "/bias";
        m.axis = 0;
        write_made(w, m);
    }
    if (l->by)
        qd_write_message(w, GRAPH_NODE, emit_smoothing, &(struct rewritten){x, node, l});
    qd_write_message(w, GRAPH_NODE, emit_layer, &(struct rewritten){x, node, l});
    if (adds_bias(l))
        write_made(w, (struct made){
                          .x = x, .op = "Add", .name = l->name, .in = {"/product", "/bias"}, .out = NULL, .axis = -1});
}

static void write_node(struct qd_writer *w, const struct qd_export *x, const struct qd_export_node *node)
{
    const struct qd_export_tensor *t;
    const struct qd_export_layer *layer = node->layer >= 0 && x->layers[node->layer].live ? &x->layers[node->layer]
                                                                                          : NULL;
    if (layer) {
        write_layer(w, x, node);
        t = tensor_named(x, (struct qd_text){layer->name, strlen(layer->name)});
        if (t)
            write_tensor_nodes(w, x, t);
    }
    if (!node->live)
        return;
    qd_write_message(w, GRAPH_NODE, emit_node, &(struct rewritten){x, node, NULL});
    for (int o = 0; o < node->out_count; o++) {
        t = tensor_named(x, node->out[o]);
        if (t)
            write_tensor_nodes(w, x, t);
    }
}

/* ------------------------------------------------------------------ graph and model */

static struct qd_text field_of(struct qd_text message, uint32_t number)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text found = {0};
    while (qd_wire_next(&cursor, &field))
        if (field.number == number && field.type == QD_WIRE_BYTES)
            found = field.bytes;
    return found;
}

static bool is_in(const struct qd_map *map, struct qd_text name)
{
    int value;
    return name.length && qd_map_find(map, name.bytes, name.length, &value);
}

/* A constant of the file, and not the default of an input. */
static bool is_constant(const struct qd_export *x, struct qd_text name)
{
    const struct qd_graph *graph = x->model->graph;
    int value;
    return name.length && qd_map_find(&x->values, name.bytes, name.length, &value) && value < graph->value_count &&
           graph->values[value].constant && !graph->values[value].is_input;
}

/* Data that lie in other files come into this one. */
static void emit_external(struct qd_writer *w, const void *context)
{
    const struct rewritten *r = context; /* node->message: the TensorProto */
    const struct qd_text name = field_of(r->node->message, TENSOR_NAME);
    struct qd_cursor cursor = qd_wire_open(r->node->message);
    struct qd_wire_field field;
    int value;
    while (qd_wire_next(&cursor, &field))
        if (field.number != TENSOR_EXTERNAL && field.number != TENSOR_LOCATION && field.number != TENSOR_RAW)
            copy_field(w, &field);
    if (!qd_map_find(&r->x->values, name.bytes, name.length, &value) ||
        value >= r->x->model->graph->value_count) { /* cannot be: the import knew it */
        w->failed = true;
        return;
    }
    const struct qd_tensor *data = &r->x->model->graph->values[value].info;
    qd_write_bytes(w, TENSOR_RAW, data->data, qd_tensor_bytes(data));
}

static void write_initializer(struct qd_writer *w, const struct qd_export *x, const struct qd_wire_field *field)
{
    struct qd_cursor cursor = qd_wire_open(field->bytes);
    struct qd_wire_field part;
    const struct qd_text name = field_of(field->bytes, TENSOR_NAME);
    bool external = false;
    if (is_constant(x, name) && !is_in(&x->needed, name))
        return;
    while (qd_wire_next(&cursor, &part))
        external |= part.number == TENSOR_LOCATION && part.value == 1;
    const struct qd_export_node node = {.message = field->bytes};
    if (external)
        qd_write_message(w, GRAPH_INITIALIZER, emit_external, &(struct rewritten){x, &node, NULL});
    else
        copy_field(w, field);
}

static void emit_graph(struct qd_writer *w, const void *context)
{
    const struct qd_export *x = context;
    struct qd_cursor cursor = qd_wire_open(x->graph);
    struct qd_wire_field field;
    while (qd_wire_next(&cursor, &field))
        if (field.number == GRAPH_INITIALIZER)
            write_initializer(w, x, &field);
        else if (field.number != GRAPH_NODE &&
                 (field.number != GRAPH_INPUT || !is_constant(x, field_of(field.bytes, 1))) &&
                 (field.number != GRAPH_VALUE_INFO || is_in(&x->needed, field_of(field.bytes, 1))))
            copy_field(w, &field);
    for (cursor = qd_wire_open(x->graph); qd_wire_next(&cursor, &field);) {
        const struct qd_export_tensor *t = field.number == GRAPH_INPUT ? tensor_named(x, field_of(field.bytes, 1))
                                                                       : NULL;
        if (t)
            write_tensor_nodes(w, x, t);
    }
    for (int n = 0; n < x->node_count; n++)
        write_node(w, x, &x->nodes[n]);
    for (int v = 0; v < x->plan->graph.value_count; v++)
        if (x->tensors[v].live)
            write_parameters(w, x, &x->tensors[v]);
    for (int i = 0; i < x->layer_count; i++)
        if (x->layers[i].live)
            write_layer_constants(w, x, &x->layers[i]);
}

static void emit_contrib(struct qd_writer *w, const void *context)
{
    (void)context;
    qd_write_text(w, 1, "com.microsoft");
    qd_write_varint(w, 2, 1);
}

void qd_export_emit_model(struct qd_writer *writer, const struct qd_export *x)
{
    struct qd_cursor cursor = qd_wire_open(x->model->bytes);
    struct qd_wire_field field;
    while (qd_wire_next(&cursor, &field))
        if (field.number == MODEL_GRAPH)
            qd_write_message(writer, MODEL_GRAPH, emit_graph, x);
        else if (field.number == MODEL_IR_VERSION && field.value < FIRST_IR_WITH_CONSTANTS)
            qd_write_varint(writer, MODEL_IR_VERSION, FIRST_IR_WITH_CONSTANTS);
        else
            copy_field(writer, &field);
    if (x->opset < QD_EXPORT_FIRST_OPSET && !x->has_contrib)
        qd_write_message(writer, MODEL_OPSET, emit_contrib, NULL);
}
