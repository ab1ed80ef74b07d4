/* Matching: which node of the file a layer of the plan came from, which of the file's readers of a tensor read its
 * integers, and what nobody needs once layers have taken the place of their nodes. Names tie both together: a plan
 * keeps the names of the file's tensors. What finds no match stays as the file has it, in floats. */
#include "engine/export_impl.h"
#include "engine/plan/place.h"
#include "engine/plan/types.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MODEL_GRAPH = 7, MODEL_OPSET = 8 };
enum { GRAPH_NODE = 1, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12, GRAPH_INITIALIZER = 5 };
enum { NODE_INPUT = 1, NODE_OUTPUT = 2, NODE_OP = 4, NODE_ATTRIBUTE = 5, NODE_DOMAIN = 7 };
enum { ATTRIBUTE_GRAPH = 6, ATTRIBUTE_GRAPHS = 11 };

static enum qd_status no_memory(struct qd_export *x)
{
    return qd_fail(x->error, QD_ERR_NO_MEMORY, "no memory to export the model");
}

static bool is_text(struct qd_text text, const char *word)
{
    return text.length == strlen(word) && memcmp(text.bytes, word, text.length) == 0;
}

static bool is_standard(struct qd_text domain) { return domain.length == 0 || is_text(domain, "ai.onnx"); }

static int find(const struct qd_map *map, struct qd_text name)
{
    int at = -1;
    return name.length && qd_map_find(map, name.bytes, name.length, &at) ? at : -1;
}

/* The first of a name counts. */
static bool put(struct qd_map *map, struct qd_text name, int value)
{
    int before;
    return name.length == 0 || qd_map_find(map, name.bytes, name.length, &before) ||
           qd_map_put(map, name.bytes, name.length, value) == QD_OK;
}

static struct qd_text text_of(const char *name) { return (struct qd_text){name, strlen(name)}; }

/* ------------------------------------------------------------------ the file */

static void read_opset(struct qd_export *x, struct qd_text message)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text domain = {0};
    int64_t version = 0;
    while (qd_wire_next(&cursor, &field))
        if (field.number == 1)
            domain = field.bytes;
        else if (field.number == 2)
            version = (int64_t)field.value;
    if (is_standard(domain))
        x->opset = version;
    x->has_contrib |= is_text(domain, "com.microsoft");
}

static bool read_node(struct qd_export *x, struct qd_export_node *node, struct qd_text message)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    size_t in = 0, out = 0;
    while (qd_wire_next(&cursor, &field)) {
        in += field.number == NODE_INPUT;
        out += field.number == NODE_OUTPUT;
        if (field.number == NODE_OP)
            node->op = field.bytes;
        else if (field.number == NODE_DOMAIN)
            node->domain = field.bytes;
    }
    node->message = message;
    node->layer = -1;
    node->in = qd_arena_alloc(x->arena, in + 1, sizeof *node->in);
    node->out = qd_arena_alloc(x->arena, out + 1, sizeof *node->out);
    node->tensor = qd_arena_alloc(x->arena, in + 1, sizeof *node->tensor);
    if (!node->in || !node->out || !node->tensor || in > INT_MAX || out > INT_MAX)
        return false;
    for (cursor = qd_wire_open(message); qd_wire_next(&cursor, &field);)
        if (field.number == NODE_INPUT) {
            node->tensor[node->in_count] = -1;
            node->in[node->in_count++] = field.bytes;
        } else if (field.number == NODE_OUTPUT) {
            node->out[node->out_count++] = field.bytes;
        }
    return true;
}

static struct qd_text name_of(struct qd_text message, uint32_t number)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text name = {0};
    while (qd_wire_next(&cursor, &field))
        if (field.number == number && field.type == QD_WIRE_BYTES)
            name = field.bytes;
    return name;
}

static enum qd_status read_file(struct qd_export *x)
{
    struct qd_cursor cursor = qd_wire_open(x->model->bytes);
    struct qd_wire_field field;
    size_t count = 0;
    while (qd_wire_next(&cursor, &field))
        if (field.number == MODEL_GRAPH)
            x->graph = field.bytes;
        else if (field.number == MODEL_OPSET)
            read_opset(x, field.bytes);
    for (cursor = qd_wire_open(x->graph); qd_wire_next(&cursor, &field);)
        count += field.number == GRAPH_NODE;
    x->nodes = qd_arena_alloc(x->arena, count + 1, sizeof *x->nodes);
    if (!x->nodes)
        return no_memory(x);
    for (cursor = qd_wire_open(x->graph); qd_wire_next(&cursor, &field);) {
        if (field.number == GRAPH_INPUT && !put(&x->inputs, name_of(field.bytes, 1), 1))
            return no_memory(x);
        if (field.number != GRAPH_NODE)
            continue;
        struct qd_export_node *node = &x->nodes[x->node_count];
        if (!read_node(x, node, field.bytes))
            return no_memory(x);
        for (int o = 0; o < node->out_count; o++)
            if (!put(&x->makers, node->out[o], x->node_count))
                return no_memory(x);
        x->node_count++;
    }
    return QD_OK;
}

static bool begins(struct qd_text name, const char *prefix)
{
    size_t n = strlen(prefix);
    return name.length >= n && memcmp(name.bytes, prefix, n) == 0;
}

/* New names begin with something that no name of the file begins with, be it an earlier export's. */
static void choose_prefix(struct qd_export *x)
{
    bool taken = true;
    for (unsigned i = 1; taken; i++) {
        snprintf(x->prefix, sizeof x->prefix, i > 1 ? "quantd%u:" : "quantd:", i);
        taken = false;
        for (int n = 0; n < x->node_count && !taken; n++)
            for (int o = 0; o < x->nodes[n].out_count; o++)
                taken |= begins(x->nodes[n].out[o], x->prefix);
    }
}

/* ------------------------------------------------------------------ tensors and layers */

static bool is_q8(enum qd_form form) { return form == QD_FORM_Q8 || form == QD_FORM_Q8_CL; }

/* Values that the plan carries as integers and that the file knows by name, as floats of 32 bits. */
/* Of a tensor whose channels its maker multiplies: a Conv, or a ConvTranspose. */
static void note_channels(struct qd_export_tensor *tensor, const struct qd_plan *plan, const struct qd_step *step)
{
    tensor->by = step->out_by;
    tensor->channels = (size_t)step->unit->outputs;
    tensor->spatial = plan->graph.values[step->node->in[1]].info.shape.rank - 2;
}

static enum qd_status find_tensors(struct qd_export *x)
{
    const struct qd_plan *plan = x->plan;
    const struct qd_graph *graph = &plan->graph, *original = x->model->graph;
    const struct qd_type *types = qd_types(original, x->arena);
    bool *seen = qd_arena_alloc(x->arena, (size_t)graph->value_count, sizeof *seen);
    x->tensors = qd_arena_alloc(x->arena, (size_t)graph->value_count, sizeof *x->tensors);
    if (!types || !seen || !x->tensors)
        return no_memory(x);
    for (int v = 0; v < graph->value_count; v++)
        if (!put(&x->values, text_of(graph->values[v].name), v))
            return no_memory(x);
    for (int s = 0; s < plan->slot_count; s++) {
        const struct qd_slot *slot = &plan->slots[s];
        const bool first = !seen[slot->value];
        seen[slot->value] = true;
        if (!is_q8(slot->form) || slot->site < 0)
            continue;
        struct qd_text name = text_of(graph->values[slot->value].name);
        struct qd_export_tensor *tensor = &x->tensors[slot->value];
        tensor->whole |= first;
        if (slot->value >= original->value_count || types[slot->value].dtype != QD_F32 || tensor->name ||
            find(&x->values, name) != slot->value || (find(&x->makers, name) < 0 && find(&x->inputs, name) < 0))
            continue;
        if (!x->epoch->sites[slot->site].ready)
            return qd_fail(x->error, QD_ERR_CONFLICT,
                           "tensor '%.128s' has no range yet under epoch %llu: send requests, calibrate, or give one",
                           name.bytes, (unsigned long long)x->epoch->id);
        tensor->name = name.bytes;
        tensor->qp = &x->epoch->sites[slot->site].qp;
    }
    for (int s = 0; s < plan->step_count; s++)
        if (plan->steps[s].out_by)
            note_channels(&x->tensors[plan->slots[plan->steps[s].out[0]].value], plan, &plan->steps[s]);
    return QD_OK;
}

/* Nodes of the file between `from` and a step's inputs read those inputs as the step does. `stop`: where the search
 * ends too. */
static enum qd_status follow(struct qd_export *x, struct qd_text from, int stop, const struct qd_step *step,
                             int first_in)
{
    const struct qd_plan *plan = x->plan;
    int *stack = qd_calloc((size_t)x->node_count + 1, sizeof *stack), depth = 0;
    if (!stack)
        return no_memory(x);
    x->search++;
    stack[depth] = find(&x->makers, from);
    depth += stack[0] >= 0 && stack[0] != stop;
    while (depth > 0) {
        struct qd_export_node *node = &x->nodes[stack[--depth]];
        node->visit = x->search;
        for (int i = 0; i < node->in_count; i++) {
            const int value = find(&x->values, node->in[i]), maker = find(&x->makers, node->in[i]);
            int k = first_in;
            while (k < step->in_count &&
                   (value < 0 || step->in[k] == QD_NO_VALUE || plan->slots[step->in[k]].value != value))
                k++;
            if (k < step->in_count) {
                const bool integers = is_q8(plan->slots[step->in[k]].form) || x->tensors[value].whole;
                if (integers && x->tensors[value].name)
                    node->tensor[i] = value;
                continue;
            }
            if ((value >= 0 && plan->graph.values[value].constant) || maker < 0 || maker == stop ||
                x->nodes[maker].visit == x->search)
                continue;
            x->nodes[maker].visit = x->search;
            stack[depth++] = maker;
        }
    }
    qd_free(stack);
    return QD_OK;
}

/* The bias under the epoch, by output. A transposed convolution's corrections, of which each phase has its own, are
 * averaged. */
static enum qd_status make_bias(struct qd_export *x, struct qd_export_layer *layer, const struct qd_step *step)
{
    const struct qd_biases *biases = x->epoch->biases;
    const ptrdiff_t at = step - x->plan->steps;
    const float *corrected = biases && (size_t)at < biases->count ? biases->of[at] : NULL;
    const size_t columns = qd_linear_bias_count(step->linear), phases = columns / layer->outputs;
    if (!corrected && !layer->spec.bias)
        return QD_OK;
    layer->bias = qd_arena_alloc(x->arena, layer->outputs, sizeof *layer->bias);
    if (!layer->bias)
        return no_memory(x);
    for (size_t j = 0; j < layer->outputs; j++) {
        double sum = 0;
        for (size_t p = 0; corrected && p < phases; p++)
            sum += (double)corrected[p * layer->outputs + j];
        layer->bias[j] = corrected ? (float)(sum / (double)phases) : layer->spec.bias[j];
    }
    return QD_OK;
}

/* As int32 in units of the products, which is what other engines' integer kernels take. A bias that would be too large
 * is one that the products hardly change: their weights then get a coarser scale (some engines can't have it in floats
 * beside integer weights). */
static enum qd_status scale_bias(struct qd_export *x, struct qd_export_layer *layer)
{
    const float input = layer->input >= 0 ? x->tensors[layer->input].qp->scale : 0, most = 1e9f;
    if (!layer->bias || layer->input < 0 || is_text(x->nodes[layer->node].op, "MatMul"))
        return QD_OK; /* of a product: added behind it */
    layer->bias_scale = qd_arena_alloc(x->arena, layer->outputs, sizeof *layer->bias_scale);
    if (!layer->bias_scale)
        return no_memory(x);
    for (size_t j = 0; j < layer->outputs; j++) {
        const float least = fabsf(layer->bias[j]) / most / input;
        if (!isfinite(least)) {
            layer->bias_scale = NULL;
            return QD_OK;
        }
        layer->scale[j] = layer->scale[j] > least ? layer->scale[j] : least;
        layer->bias_scale[j] = input * layer->scale[j];
        if (!isnormal(layer->bias_scale[j])) { /* both tiny: the product of nothing */
            layer->scale[j] = 1;
            layer->bias_scale[j] = input;
        }
    }
    return QD_OK;
}

/* The node of the file that makes a value, behind those that hand values on and that a plan leaves out. */
static int maker_of(const struct qd_export *x, struct qd_text name)
{
    int at = find(&x->makers, name);
    for (int i = 0; at >= 0 && i < x->node_count; i++) {
        const struct qd_export_node *node = &x->nodes[at];
        if (node->in_count < 1 || !is_standard(node->domain) ||
            (!is_text(node->op, "Identity") && !is_text(node->op, "Dropout")))
            break;
        at = find(&x->makers, node->in[0]);
    }
    return at;
}

/* Gives a layer its place in the file; *found says whether there is one. */
static enum qd_status place_layer(struct qd_export *x, const struct qd_step *step, bool *found)
{
    const struct qd_graph *graph = &x->plan->graph;
    const struct qd_unit *unit = step->unit;
    const struct qd_text raw = text_of(graph->values[step->node->out[0]].name),
                         made = text_of(graph->values[unit->folded].name);
    const bool rows = qd_step_rows(step) != QD_NO_VALUE; /* each its own scale: no file says that of activations */
    const int input = x->plan->slots[step->in[0]].value, at = maker_of(x, raw), last = find(&x->makers, made);
    *found = at >= 0 && last >= 0 && (rows || x->tensors[input].name) && x->nodes[at].layer < 0 &&
             !x->nodes[last].superseded && is_text(x->nodes[at].op, step->node->op) &&
             is_standard(x->nodes[at].domain) && x->nodes[at].in_count >= 2;
    if (!*found)
        return QD_OK;
    struct qd_export_layer *layer = &x->layers[x->layer_count];
    *layer = (struct qd_export_layer){.spec = qd_place_spec(x->plan, unit, true, false),
                                      .name = made.bytes,
                                      .node = at,
                                      .input = rows ? -1 : input,
                                      .by = rows ? step->by : NULL,
                                      .outputs = (size_t)unit->outputs};
    layer->spec.columns = step->columns;
    layer->scale = qd_arena_alloc(x->arena, layer->outputs, sizeof *layer->scale);
    if (!layer->scale || !put(&x->layers_by_name, made, x->layer_count))
        return no_memory(x);
    layer->axis = qd_linear_weight_scales(&layer->spec, layer->scale);
    x->nodes[at].layer = x->layer_count++;
    x->nodes[last].superseded = true;
    const struct qd_text reads = x->nodes[at].in[0];
    enum qd_status status = make_bias(x, layer, step);
    if (!status)
        status = scale_bias(x, layer);
    x->report.rows += rows;
    if (rows)
        layer->reads = reads;
    if (!status && !rows && find(&x->values, reads) != input) {
        layer->reads = reads;
        status = follow(x, reads, -1, step, 0);
    }
    return status ? status : follow(x, text_of(graph->values[unit->out].name), at, step, 1);
}

static enum qd_status find_layers(struct qd_export *x)
{
    const struct qd_plan *plan = x->plan;
    enum qd_status status = QD_OK;
    x->layers = qd_arena_alloc(x->arena, (size_t)plan->step_count + 1, sizeof *x->layers);
    if (!x->layers)
        return no_memory(x);
    for (int s = 0; s < plan->step_count && !status; s++) {
        const struct qd_step *step = &plan->steps[s];
        bool found = true;
        if (step->kind == QD_STEP_LINEAR && step->int8)
            status = place_layer(x, step, &found);
        else if (step->kind == QD_STEP_OP || step->kind == QD_STEP_LINEAR)
            for (int o = 0; o < step->out_count && !status; o++)
                if (step->out[o] != QD_NO_VALUE)
                    status = follow(x, text_of(plan->graph.values[plan->slots[step->out[o]].value].name), -1, step, 0);
        const bool inside = step->kind == QD_STEP_OP && step->int8 && (step->op->flags & QD_OP_INT8_INSIDE);
        x->report.left += !found || inside || (step->kind == QD_STEP_LINEAR && step->int16) ||
                          (step->kind == QD_STEP_CONTROL && step->int8);
    }
    return status;
}

/* ------------------------------------------------------------------ what is needed */

static bool need(struct qd_export *x, struct qd_text name);

static bool need_node(struct qd_export *x, struct qd_export_node *node)
{
    if (node->live)
        return true;
    node->live = true;
    for (int i = 0; i < node->in_count; i++) {
        struct qd_text name = node->tensor[i] >= 0 ? text_of(x->tensors[node->tensor[i]].name) : node->in[i];
        if (node->tensor[i] >= 0)
            x->tensors[node->tensor[i]].live = true;
        if (!need(x, name))
            return false;
    }
    return qd_export_names_inside(node->message, need, x);
}

static bool need_layer(struct qd_export *x, struct qd_export_layer *layer)
{
    layer->live = true;
    if (layer->reads.length == 0)
        x->tensors[layer->input].live = true;
    return need(x, layer->reads.length ? layer->reads : text_of(x->tensors[layer->input].name));
}

/* Marks a name; what makes it is visited by find_needed. */
static bool need(struct qd_export *x, struct qd_text name) { return put(&x->needed, name, 1); }

/* From the last node to the first: a file's nodes stand behind what they read, and a layer stands where its node did,
 * before all that its output's readers are. Until nothing is new, should a file's order be another. */
static enum qd_status find_needed(struct qd_export *x)
{
    struct qd_cursor cursor;
    struct qd_wire_field field;
    for (cursor = qd_wire_open(x->graph); qd_wire_next(&cursor, &field);)
        if (field.number == GRAPH_OUTPUT && !need(x, name_of(field.bytes, 1)))
            return no_memory(x);
    for (size_t before = 0; before != x->needed.count;) {
        before = x->needed.count;
        for (int n = x->node_count - 1; n >= 0; n--) {
            struct qd_export_node *node = &x->nodes[n];
            struct qd_export_layer *layer = node->layer >= 0 ? &x->layers[node->layer] : NULL;
            bool wanted = false;
            if (layer && !layer->live && find(&x->needed, text_of(layer->name)) >= 0 && !need_layer(x, layer))
                return no_memory(x);
            for (int o = 0; o < node->out_count; o++)
                wanted |= find(&x->needed, node->out[o]) >= 0;
            if (wanted && !node->superseded && !need_node(x, node))
                return no_memory(x);
        }
    }
    return QD_OK;
}

bool qd_export_names_inside(struct qd_text node, bool (*visit)(struct qd_export *x, struct qd_text name),
                            struct qd_export *x)
{
    struct qd_cursor fields = qd_wire_open(node), inside, graph;
    struct qd_wire_field field, part, inner;
    while (qd_wire_next(&fields, &field)) {
        if (field.number != NODE_ATTRIBUTE)
            continue;
        for (inside = qd_wire_open(field.bytes); qd_wire_next(&inside, &part);) {
            if ((part.number != ATTRIBUTE_GRAPH && part.number != ATTRIBUTE_GRAPHS) || part.type != QD_WIRE_BYTES)
                continue;
            for (graph = qd_wire_open(part.bytes); qd_wire_next(&graph, &inner);) {
                if (inner.number == GRAPH_OUTPUT && !visit(x, name_of(inner.bytes, 1)))
                    return false;
                if (inner.number != GRAPH_NODE)
                    continue;
                struct qd_cursor names = qd_wire_open(inner.bytes);
                struct qd_wire_field name;
                while (qd_wire_next(&names, &name))
                    if (name.number == NODE_INPUT && !visit(x, name.bytes))
                        return false;
                if (!qd_export_names_inside(inner.bytes, visit, x))
                    return false;
            }
        }
    }
    return true;
}

enum qd_status qd_export_find(struct qd_export *x)
{
    enum qd_status status = read_file(x);
    if (!status && x->opset < QD_EXPORT_LEAST_OPSET)
        return qd_fail(x->error, QD_ERR_UNSUPPORTED,
                       "the model is of opset %lld: engines run quantized models from opset %d on, convert it first",
                       (long long)x->opset, QD_EXPORT_LEAST_OPSET);
    if (!status)
        choose_prefix(x);
    if (!status)
        status = find_tensors(x);
    if (!status)
        status = find_layers(x);
    if (!status)
        status = find_needed(x);
    for (int i = 0; i < x->layer_count; i++)
        x->report.layers += x->layers[i].live;
    for (int v = 0; !status && v < x->plan->graph.value_count; v++)
        x->report.tensors += x->tensors[v].live;
    return status;
}
