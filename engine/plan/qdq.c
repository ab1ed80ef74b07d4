/* Quantized files become RoundTrip nodes and constants that know their integers. See qdq.h. */
#include "engine/plan/qdq.h"

#include "engine/ops/round_trip.h"
#include "engine/plan/contrib_impl.h"
#include "engine/plan/control.h"

#include <float.h>
#include <string.h>

struct carried { /* by integer value: the floats it stands for, and under which scale */
    int real;    /* QD_NO_VALUE: none */
    const struct qd_round_trip *trip;
};

struct rewriter {
    struct qd_rewriter r;
    int known;               /* values of the graph before; arrays go so far */
    int *alias;              /* [known] what is read in a value's place */
    int *constant_of;        /* [known] the node made that dequantizes constants into it, or -1 */
    struct carried *carried; /* [known] */
    bool *kept;              /* [known] an output of the model */
};

static bool is_quantize(const struct qd_node *node) { return qd_node_is(node, "QuantizeLinear"); }
static bool is_dequantize(const struct qd_node *node) { return qd_node_is(node, "DequantizeLinear"); }

static bool is_constant(const struct qd_graph *graph, int value)
{
    return value != QD_NO_VALUE && graph->values[value].constant && !graph->values[value].is_input;
}

static bool eight_bits(enum qd_dtype dtype) { return dtype == QD_U8 || dtype == QD_I8; }

bool qd_qdq_keeps(const struct qd_graph *graph, const struct qd_node *node)
{
    return is_dequantize(node) && node->in_count >= 2 && node->in[0] != QD_NO_VALUE &&
           eight_bits(graph->values[node->in[0]].info.dtype);
}

static int input(const struct qd_node *node, int i) { return i < node->in_count ? node->in[i] : QD_NO_VALUE; }

/* ------------------------------------------------------------------ scales */

static int32_t zero_point(const struct qd_tensor *t)
{
    return t->dtype == QD_U8 ? *(const uint8_t *)t->data : *(const int8_t *)t->data;
}

/* What a QuantizeLinear or DequantizeLinear does, when it has 8 bits, one scale and one zero point, all constant; else
 * NULL. `type`: of the integers as far as known otherwise. */
static const struct qd_round_trip *trip_of(struct rewriter *w, const struct qd_node *node, enum qd_dtype type)
{
    const struct qd_graph *graph = w->r.graph;
    const int scale = input(node, 1), zero = input(node, 2);
    const struct qd_tensor *s = is_constant(graph, scale) ? &graph->values[scale].info : NULL;
    const struct qd_tensor *z = is_constant(graph, zero) ? &graph->values[zero].info : NULL;
    const int64_t asked = qd_attr_int(node, "output_dtype", 0);
    if (zero != QD_NO_VALUE)
        type = z ? z->dtype : QD_NONE;
    else if (is_quantize(node))
        type = asked ? qd_dtype_from_onnx(asked) : QD_U8;
    if (!s || s->dtype != QD_F32 || qd_tensor_elems(s) != 1 || s->shape.rank > 1 || !eight_bits(type) ||
        (z && qd_tensor_elems(z) != 1) || (is_dequantize(node) && asked && qd_dtype_from_onnx(asked) != QD_F32))
        return NULL;
    float value = *(const float *)s->data;
    if (!(value >= FLT_MIN && value <= FLT_MAX) || qd_attr_int(node, "block_size", 0) != 0)
        return NULL;
    struct qd_round_trip *trip = qd_arena_alloc(w->r.arena, 1, sizeof *trip);
    if (!trip) {
        w->r.status = qd_fail(w->r.error, QD_ERR_NO_MEMORY, "no memory to compile the model");
        return NULL;
    }
    trip->is_signed = type == QD_I8;
    trip->qp = (struct qd_qparams){value, (z ? zero_point(z) : 0) + (trip->is_signed ? QD_CARRIER_OFFSET : 0), 0, 255};
    return trip;
}

/* ------------------------------------------------------------------ writing */

/* A value's type and, where it has none yet, the shape of another's. */
static void like(struct qd_rewriter *r, int value, int other, enum qd_dtype dtype)
{
    if (r->status)
        return;
    struct qd_tensor *info = &r->graph->values[value].info;
    info->dtype = info->dtype == QD_NONE ? dtype : info->dtype;
    if (info->shape.rank < 0)
        info->shape = r->graph->values[other].info.shape;
}

/* The node under a name of its own, writing `out` (QD_RW_NEW: a new value) for its output 0; returns that. */
static int again(struct rewriter *w, const struct qd_node *node, int in0, int out)
{
    int *ids = w->r.status ? NULL : qd_arena_alloc(w->r.arena, (size_t)node->in_count + 1, sizeof *ids);
    if (!ids) {
        if (!w->r.status)
            w->r.status = qd_fail(w->r.error, QD_ERR_NO_MEMORY, "no memory to compile the model");
        return 0;
    }
    struct qd_node copy = *node;
    for (int i = 0; i < node->in_count; i++)
        ids[i] = node->in[i];
    ids[0] = in0;
    ids[node->in_count] = out == QD_RW_NEW ? qd_rw_new_value(&w->r, w->r.graph->values[node->out[0]].name) : out;
    copy.in = ids;
    copy.out = ids + node->in_count;
    copy.out_count = 1;
    if (out == QD_RW_NEW)
        like(&w->r, ids[node->in_count], node->out[0], QD_F32);
    return qd_rw_append(&w->r, &copy) ? ids[node->in_count] : 0;
}

static int put_round_trip(struct qd_rewriter *r, int x, const struct qd_round_trip *trip, int out)
{
    const bool is_new = out == QD_RW_NEW;
    bool second = false;
    for (int n = r->count; is_new && n-- > 0;) { /* the same twice */
        const struct qd_node *node = &r->nodes[n];
        const struct qd_round_trip *other = qd_round_trip_of(node);
        if (other && node->in[0] == x && qd_round_trip_same(other, trip))
            return node->out[0];
        second |= other && node->in[0] == x;
        if (node->out_count && node->out[0] == x)
            break;
    }
    out = QD_RW(r, "RoundTrip", out, x);
    if (r->status)
        return 0;
    if (is_new) /* sites are named after values */
        r->graph->values[out].name = r->graph->values[second ? r->node.out[0] : x].name;
    struct qd_node *node = &r->nodes[r->count - 1];
    node->domain = "quantd";
    node->opset = 1;
    node->program = trip;
    like(r, out, x, QD_F32);
    return out;
}

/* ------------------------------------------------------------------ reading */

/* An operator that only moves elements of its input 0, which is carried. */
static bool moves(struct rewriter *w, const struct qd_node *node)
{
    if (node->in_count < 1 || node->out_count != 1 || node->out[0] >= w->known || node->in[0] == QD_NO_VALUE ||
        node->in[0] >= w->known || w->carried[node->in[0]].real == QD_NO_VALUE)
        return false;
    const struct qd_op *op = qd_op_find(node, NULL);
    return op && (op->flags & (QD_OP_MOVES | QD_OP_VIEW));
}

static void quantize(struct rewriter *w, const struct qd_node *node)
{
    const struct qd_round_trip *trip = trip_of(w, node, QD_NONE);
    if (trip && node->in[0] != QD_NO_VALUE && !is_constant(w->r.graph, node->in[0]))
        w->carried[node->out[0]] = (struct carried){put_round_trip(&w->r, node->in[0], trip, QD_RW_NEW), trip};
    qd_rw_append(&w->r, node);
}

/* Constants remember their integers. */
static void dequantize_constant(struct rewriter *w, const struct qd_node *node)
{
    struct qd_integers *from = qd_arena_alloc(w->r.arena, 1, sizeof *from);
    if (!from) {
        w->r.status = qd_fail(w->r.error, QD_ERR_NO_MEMORY, "no memory to compile the model");
        return;
    }
    int64_t axis = qd_attr_int(node, "axis", 1);
    const int rank = w->r.graph->values[node->in[0]].info.shape.rank;
    *from = (struct qd_integers){node->in[0], node->in[1], input(node, 2), (int)(axis < 0 ? axis + rank : axis)};
    if (qd_attr_int(node, "block_size", 0) == 0)
        w->r.graph->values[node->out[0]].integers = from;
    w->constant_of[node->out[0]] = w->r.count;
    qd_rw_append(&w->r, node);
}

static void dequantize(struct rewriter *w, const struct qd_node *node)
{
    const int q = node->in[0], out = node->out[0];
    const struct carried *from = q < w->known && w->carried[q].real != QD_NO_VALUE ? &w->carried[q] : NULL;
    enum qd_dtype known = from ? (from->trip->is_signed ? QD_I8 : QD_U8) : w->r.graph->values[q].info.dtype;
    const struct qd_round_trip *trip = trip_of(w, node, known);
    if (!trip)
        qd_rw_append(&w->r, node);
    else if (!from || !qd_round_trip_same(from->trip, trip))
        put_round_trip(&w->r, again(w, node, q, QD_RW_NEW), trip, out);
    else if (w->kept[out])
        QD_RW(&w->r, "Identity", out, from->real);
    else
        w->alias[out] = from->real;
}

/* Transpose of dequantized constants: of the integers, and the axis goes along. False: it isn't one that can. */
static bool transpose_constant(struct rewriter *w, const struct qd_node *node)
{
    const int at = node->in[0] != QD_NO_VALUE && node->in[0] < w->known ? w->constant_of[node->in[0]] : -1;
    if (at < 0 || !qd_node_is(node, "Transpose"))
        return false;
    const struct qd_node from = w->r.nodes[at];
    const struct qd_integers *integers = w->r.graph->values[from.out[0]].integers;
    const int rank = w->r.graph->values[from.in[0]].info.shape.rank;
    size_t count = 0;
    const int64_t *perm = qd_attr_ints(node, "perm", &count);
    int axis = 0;
    if (!integers || rank < 1 || (perm && count != (size_t)rank))
        return false;
    while (axis < rank && (perm ? perm[axis] : rank - 1 - axis) != integers->axis)
        axis++;
    struct qd_integers *turned = qd_arena_alloc(w->r.arena, 1, sizeof *turned);
    if (!turned) {
        w->r.status = qd_fail(w->r.error, QD_ERR_NO_MEMORY, "no memory to compile the model");
        return true;
    }
    const int q = again(w, node, from.in[0], QD_RW_NEW);
    if (!w->r.status)
        w->r.graph->values[q].info.dtype = w->r.graph->values[from.in[0]].info.dtype;
    QD_RW(&w->r, "DequantizeLinear", node->out[0], q, from.in[1], input(&from, 2));
    qd_rw_int(&w->r, "axis", axis < rank ? axis : 0);
    *turned = (struct qd_integers){q, integers->scale, integers->zero, axis};
    w->r.graph->values[node->out[0]].integers = turned;
    return true;
}

static void follow(struct rewriter *w, struct qd_node *node)
{
    int *in = qd_arena_alloc(w->r.arena, (size_t)node->in_count + 1, sizeof *in);
    if (!in) {
        w->r.status = qd_fail(w->r.error, QD_ERR_NO_MEMORY, "no memory to compile the model");
        return;
    }
    for (int i = 0; i < node->in_count; i++)
        in[i] = node->in[i] == QD_NO_VALUE ? QD_NO_VALUE : w->alias[node->in[i]];
    node->in = in;
    w->r.node = *node;
    w->r.first = w->r.count;
    w->r.named = false;
    const bool sound = node->in_count >= 2 && node->out_count == 1 && in[0] != QD_NO_VALUE && in[1] != QD_NO_VALUE &&
                       node->out[0] != QD_NO_VALUE;
    if (sound && is_quantize(node)) {
        quantize(w, node);
    } else if (sound && is_dequantize(node)) {
        (is_constant(w->r.graph, in[0]) ? dequantize_constant : dequantize)(w, node);
    } else if (moves(w, node)) {
        const struct carried from = w->carried[in[0]];
        w->carried[node->out[0]] = (struct carried){again(w, node, from.real, QD_RW_NEW), from.trip};
        qd_rw_append(&w->r, node);
    } else if (node->in_count < 1 || node->out_count != 1 || !transpose_constant(w, node)) {
        qd_rw_append(&w->r, node);
    }
}

/* ------------------------------------------------------------------ what nobody reads any more */

static enum qd_status drop_unread(struct qd_graph *graph, struct qd_arena *arena, struct qd_error *error)
{
    int *readers = qd_arena_alloc(arena, (size_t)graph->value_count + 1, sizeof *readers);
    if (!readers)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
    for (int i = 0; i < graph->output_count; i++)
        readers[graph->outputs[i]]++;
    for (int n = 0; n < graph->node_count; n++)
        for (int i = 0; i < graph->nodes[n].in_count; i++)
            if (graph->nodes[n].in[i] != QD_NO_VALUE)
                readers[graph->nodes[n].in[i]]++;
    int first = graph->node_count;
    for (int n = graph->node_count; n-- > 0;) {
        const struct qd_node node = graph->nodes[n];
        bool read = false;
        for (int o = 0; o < node.out_count; o++)
            read |= node.out[o] != QD_NO_VALUE && readers[node.out[o]] > 0;
        if (read || qd_control_kind(&node)) {
            graph->nodes[--first] = node;
            continue;
        }
        for (int i = 0; i < node.in_count; i++)
            if (node.in[i] != QD_NO_VALUE)
                readers[node.in[i]]--;
    }
    graph->node_count -= first;
    memmove(graph->nodes, graph->nodes + first, (size_t)graph->node_count * sizeof *graph->nodes);
    return QD_OK;
}

/* ------------------------------------------------------------------ QLinearConv, QLinearMatMul */

static bool all_constant(const struct qd_graph *graph, const struct qd_node *node, const int *which, int count)
{
    for (int i = 0; i < count; i++) {
        const int value = input(node, which[i]);
        if (!is_constant(graph, value) || !graph->values[value].info.data)
            return false;
    }
    return true;
}

/* DequantizeLinear of x; a single zero point of several scales is repeated. */
static int dequantized(struct qd_rewriter *r, int x, int scale, int zero, int64_t axis)
{
    const struct qd_tensor *s = &r->graph->values[scale].info;
    if (zero != QD_NO_VALUE && qd_tensor_elems(s) != 1 && qd_tensor_elems(&r->graph->values[zero].info) == 1)
        zero = QD_RW(r, "Expand", QD_RW_NEW, zero, QD_RW_LIST(r, qd_tensor_elems(s)));
    int out = QD_RW(r, "DequantizeLinear", QD_RW_NEW, x, scale, zero);
    qd_rw_int(r, "axis", axis);
    return out;
}

/* The same with scale and zero point at inputs at.. of the node. */
static int opened(struct qd_rewriter *r, int x, int at, int64_t axis)
{
    return dequantized(r, x, qd_rw_in(r, at), qd_rw_in(r, at + 1), axis);
}

static void open_conv(struct qd_rewriter *r)
{
    static const char *const kept[] = {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"};
    int x = opened(r, qd_rw_in(r, 0), 1, 1), w = opened(r, qd_rw_in(r, 3), 4, 0), bias = qd_rw_in(r, 8);
    if (bias != QD_NO_VALUE) {
        int scale = QD_RW(r, "Mul", QD_RW_NEW, qd_rw_in(r, 1), qd_rw_in(r, 4));
        bias = QD_RW(r, "Mul", QD_RW_NEW, qd_rw_cast(r, QD_RW_NEW, bias, QD_F32), scale);
    }
    int y = QD_RW(r, "Conv", QD_RW_NEW, x, w, bias);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        qd_rw_keep(r, kept[i]);
    QD_RW(r, "QuantizeLinear", qd_rw_out(r, 0), y, qd_rw_in(r, 6), qd_rw_in(r, 7));
}

static void open_matmul(struct qd_rewriter *r)
{
    int a = opened(r, qd_rw_in(r, 0), 1, -1), b = opened(r, qd_rw_in(r, 3), 4, -1);
    int y = QD_RW(r, "MatMul", QD_RW_NEW, a, b);
    QD_RW(r, "QuantizeLinear", qd_rw_out(r, 0), y, qd_rw_in(r, 6), qd_rw_in(r, 7));
}

static const struct opening {
    struct qd_contrib row;
    int constants[7], constant_count; /* inputs that must be constants; the others are data */
} openings[] = {
    {{"", "QLinearConv", "Conv", 8, 9, open_conv, 0}, {1, 2, 3, 4, 5, 6, 7}, 7},
    {{"", "QLinearMatMul", "MatMul", 8, 8, open_matmul, 0}, {1, 2, 4, 5, 6, 7}, 6},
};

static const struct opening *opening_of(const struct qd_graph *graph, const struct qd_node *node)
{
    for (size_t i = 0; i < sizeof openings / sizeof *openings; i++)
        if (qd_node_is(node, openings[i].row.op) && node->in_count >= openings[i].row.least &&
            node->in_count <= openings[i].row.most && node->out_count == 1 && node->out[0] != QD_NO_VALUE &&
            node->in[0] != QD_NO_VALUE && node->in[3] != QD_NO_VALUE &&
            all_constant(graph, node, openings[i].constants, openings[i].constant_count) &&
            (input(node, 8) == QD_NO_VALUE || is_constant(graph, node->in[8])) &&
            qd_tensor_elems(&graph->values[node->in[1]].info) == 1 &&
            qd_tensor_elems(&graph->values[node->in[6]].info) == 1 &&
            (is_constant(graph, node->in[3]) || qd_tensor_elems(&graph->values[node->in[4]].info) == 1))
            return &openings[i];
    return NULL;
}

/* ------------------------------------------------------------------ dynamic quantization */

/* x -> DynamicQuantizeLinear -> MatMulInteger or ConvInteger of constant weights -> Cast -> Mul by both scales. */
struct dynamic {
    const struct qd_node *product;
    int x, weights, scale, zero;
    int64_t axis;
};

struct uses {
    int *maker; /* [value_count] node, or -1 */
};

static const struct qd_node *made_by(const struct qd_graph *graph, const struct uses *uses, int value, const char *op)
{
    const int n = value == QD_NO_VALUE ? -1 : uses->maker[value];
    return n >= 0 && qd_node_is(&graph->nodes[n], op) ? &graph->nodes[n] : NULL;
}

/* Inputs a and b of a node in either order: `first` made by `op`. */
static const struct qd_node *operand(const struct qd_graph *graph, const struct uses *uses, const struct qd_node *node,
                                     const char *op, int *other)
{
    for (int i = 0; node && node->in_count == 2 && i < 2; i++) {
        const struct qd_node *found = made_by(graph, uses, node->in[i], op);
        *other = node->in[1 - i];
        if (found && *other != QD_NO_VALUE)
            return found;
    }
    return NULL;
}

/* Constant scales and zero points that follow the outputs, or one of each. */
static bool fits(const struct qd_graph *graph, const struct dynamic *d, bool conv)
{
    if (!is_constant(graph, d->weights) || !is_constant(graph, d->scale) ||
        (d->zero != QD_NO_VALUE && !is_constant(graph, d->zero)))
        return false;
    const struct qd_tensor *w = &graph->values[d->weights].info, *s = &graph->values[d->scale].info;
    const int64_t scales = qd_tensor_elems(s);
    const int64_t zeros = d->zero == QD_NO_VALUE ? 1 : qd_tensor_elems(&graph->values[d->zero].info);
    if (!eight_bits(w->dtype) || s->dtype != QD_F32 || s->shape.rank > 1 || (zeros != 1 && zeros != scales))
        return false;
    return scales == 1 || (!conv && w->shape.rank == 2 && scales == w->shape.dims[1]);
}

static bool find_dynamic(const struct qd_graph *graph, const struct uses *uses, const struct qd_node *mul,
                         struct dynamic *d)
{
    int scales, cast_in = QD_NO_VALUE;
    if (!qd_node_is(mul, "Mul") || mul->out_count != 1 || mul->out[0] == QD_NO_VALUE)
        return false;
    const struct qd_node *cast = operand(graph, uses, mul, "Cast", &scales);
    if (cast && cast->in_count == 1 && qd_attr_int(cast, "to", 0) == qd_dtype_to_onnx(QD_F32))
        cast_in = cast->in[0];
    const struct qd_node *matmul = made_by(graph, uses, cast_in, "MatMulInteger");
    d->product = matmul ? matmul : made_by(graph, uses, cast_in, "ConvInteger");
    if (!d->product || d->product->in_count < 3)
        return false;
    const struct qd_node *from = made_by(graph, uses, d->product->in[0], "DynamicQuantizeLinear");
    const struct qd_node *both = made_by(graph, uses, scales, "Mul");
    if (!from || !both || both->in_count != 2 || from->out_count != 3 || d->product->in[0] != from->out[0] ||
        d->product->in[2] != from->out[2])
        return false;
    const int at = both->in[0] == from->out[1] ? 0 : 1;
    if (both->in[at] != from->out[1] || both->in[1 - at] == QD_NO_VALUE)
        return false;
    d->x = from->in[0];
    d->weights = d->product->in[1];
    d->scale = both->in[1 - at];
    d->zero = input(d->product, 3);
    d->axis = matmul ? 1 : 0;
    return fits(graph, d, !matmul);
}

static void write_dynamic(struct qd_rewriter *r, const struct dynamic *d)
{
    static const char *const kept[] = {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"};
    static const struct qd_round_trip own = {.qp = {1, 0, 0, 255}, .own = true};
    const int out = r->node.out[0], x = put_round_trip(r, d->x, &own, QD_RW_NEW);
    const int w = dequantized(r, d->weights, d->scale, d->zero, d->axis);
    r->node = *d->product; /* its name and attributes */
    QD_RW(r, d->axis ? "MatMul" : "Conv", out, x, w);
    for (size_t i = 0; !d->axis && i < sizeof kept / sizeof *kept; i++)
        qd_rw_keep(r, kept[i]);
    if (!r->status)
        r->nodes[r->count - 1].name = d->product->name;
}

/* ------------------------------------------------------------------ both */

static bool find_uses(const struct qd_graph *graph, struct qd_arena *arena, struct uses *uses)
{
    uses->maker = qd_arena_alloc(arena, (size_t)graph->value_count, sizeof *uses->maker);
    if (!uses->maker)
        return false;
    for (int v = 0; v < graph->value_count; v++)
        uses->maker[v] = -1;
    for (int n = 0; n < graph->node_count; n++)
        for (int o = 0; o < graph->nodes[n].out_count; o++)
            if (graph->nodes[n].out[o] != QD_NO_VALUE)
                uses->maker[graph->nodes[n].out[o]] = n;
    return true;
}

static enum qd_status open_all(struct qd_graph *graph, struct qd_arena *arena, struct qd_error *error)
{
    static const struct qd_contrib unnamed = {"quantd", "", "", 0, 0, NULL, 0};
    struct qd_rewriter r = {.graph = graph, .arena = arena, .error = error, .value_room = graph->value_count};
    struct uses uses;
    if (!find_uses(graph, arena, &uses))
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
    for (int n = 0; n < graph->node_count && !r.status; n++) {
        const struct opening *opening = opening_of(graph, &graph->nodes[n]);
        struct dynamic dynamic;
        r.node = graph->nodes[n];
        r.row = opening ? &opening->row : &unnamed;
        r.first = r.count;
        r.named = false;
        if (opening)
            opening->row.rewrite(&r);
        else if (find_dynamic(graph, &uses, &graph->nodes[n], &dynamic))
            write_dynamic(&r, &dynamic);
        else
            qd_rw_append(&r, &r.node);
    }
    if (!r.status) {
        graph->nodes = r.nodes;
        graph->node_count = r.count;
    }
    return r.status;
}

/* ------------------------------------------------------------------ the walk */

static bool quantized(const struct qd_graph *graph)
{
    for (int n = 0; n < graph->node_count; n++)
        if (is_quantize(&graph->nodes[n]) || is_dequantize(&graph->nodes[n]) || opening_of(graph, &graph->nodes[n]) ||
            qd_node_is(&graph->nodes[n], "DynamicQuantizeLinear"))
            return true;
    return false;
}

enum qd_status qd_qdq_rewrite(struct qd_graph *graph, struct qd_arena *arena, bool *any, struct qd_error *error)
{
    static const struct qd_contrib unnamed = {"quantd", "", "", 0, 0, NULL, 0};
    *any = quantized(graph);
    enum qd_status status = *any ? open_all(graph, arena, error) : QD_OK;
    if (status || !*any)
        return status;
    const size_t values = (size_t)graph->value_count;
    struct rewriter w = {
        .r = {.graph = graph, .arena = arena, .error = error, .row = &unnamed, .value_room = graph->value_count},
        .known = graph->value_count,
        .alias = qd_arena_alloc(arena, values, sizeof *w.alias),
        .constant_of = qd_arena_alloc(arena, values, sizeof *w.constant_of),
        .carried = qd_arena_alloc(arena, values, sizeof *w.carried),
        .kept = qd_arena_alloc(arena, values, sizeof *w.kept)};
    if (!w.alias || !w.constant_of || !w.carried || !w.kept)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
    for (int v = 0; v < w.known; v++) {
        w.alias[v] = v;
        w.constant_of[v] = -1;
        w.carried[v].real = QD_NO_VALUE;
    }
    for (int i = 0; i < graph->output_count; i++)
        w.kept[graph->outputs[i]] = true;
    for (int n = 0; n < graph->node_count && !w.r.status; n++) {
        struct qd_node node = graph->nodes[n];
        follow(&w, &node);
    }
    if (w.r.status)
        return w.r.status;
    graph->nodes = w.r.nodes;
    graph->node_count = w.r.count;
    return drop_unread(graph, arena, error);
}
