/* Finding attention. From a Softmax the search goes back to the two products and from their operands through
 * transposes, slices and reshapes to rows, with a label on every axis; forwards to where the heads are joined. */
#include "engine/plan/attention.h"

#include "engine/ops/attention.h"
#include "engine/plan/dims.h"

#include <math.h>
#include <string.h>

struct seeker {
    struct qd_graph *graph;
    struct qd_arena *arena;
    struct qd_dims *dims;
    int *producer; /* [value_count] node, or -1 */
    bool *needed;  /* [value_count] while marking */
    bool *alive;   /* [node_count] */
};

/* What an axis of an operand is. PART: one of several packed matrices, chosen by `part`. */
enum label { BATCH, HEAD, ROW, DEPTH, PART, GONE };

/* An operand on its way back to rows. */
struct trail {
    int value, rank;
    enum label labels[QD_MAX_RANK];
    int64_t part;
    double scale;
};

static bool is(const struct qd_node *node, const char *op) { return node && qd_node_is(node, op); }

static const struct qd_node *maker(const struct seeker *s, int value)
{
    int n = value == QD_NO_VALUE ? -1 : s->producer[value];
    return n < 0 ? NULL : &s->graph->nodes[n];
}

static bool number(const struct seeker *s, int value, int rank, double *out)
{
    const struct qd_dims *d = &s->dims[value];
    *out = d->number;
    return d->has_number && d->rank >= 0 && d->rank <= rank && isfinite(d->number);
}

/* Is a node `x` times or divided by a number? Then the tensor it scales. */
static int scaled(const struct seeker *s, const struct qd_node *node, double *scale)
{
    double factor;
    if (!node || node->in_count != 2 || !(is(node, "Mul") || is(node, "Div")))
        return QD_NO_VALUE;
    for (int i = 0; i < 2; i++) {
        int x = node->in[i], by = node->in[1 - i];
        if (x == QD_NO_VALUE || by == QD_NO_VALUE || (i == 1 && is(node, "Div")) ||
            !number(s, by, s->dims[x].rank, &factor))
            continue;
        if (is(node, "Div") && factor == 0)
            return QD_NO_VALUE;
        *scale *= is(node, "Mul") ? factor : 1 / factor;
        return x;
    }
    return QD_NO_VALUE;
}

/* ------------------------------------------------------------------ back to rows */

/* One constant int at input i, or an attribute's. */
static bool one_int(const struct seeker *s, const struct qd_node *node, int i, const char *name, int64_t *out)
{
    size_t count;
    const int64_t *given = qd_attr_ints(node, name, &count);
    if (given) {
        *out = given[0];
        return count == 1;
    }
    if (i >= node->in_count || node->in[i] == QD_NO_VALUE)
        return false;
    const struct qd_dims *d = &s->dims[node->in[i]];
    *out = d->list[0];
    return d->length == 1 && qd_dim_known(d->list[0]);
}

static bool insert(struct trail *t, int64_t axis, enum label label)
{
    if (t->rank == QD_MAX_RANK || axis < 0 || axis > t->rank)
        return false;
    memmove(t->labels + axis + 1, t->labels + axis, (size_t)(t->rank - axis) * sizeof t->labels[0]);
    t->labels[axis] = label;
    t->rank++;
    return true;
}

static bool back_transpose(const struct qd_node *node, struct trail *t)
{
    enum label labels[QD_MAX_RANK];
    size_t count;
    const int64_t *perm = qd_attr_ints(node, "perm", &count);
    if (perm && count != (size_t)t->rank)
        return false;
    for (int i = 0; i < t->rank; i++) {
        int64_t from = perm ? perm[i] : t->rank - 1 - i;
        if (from < 0 || from >= t->rank)
            return false;
        labels[from] = t->labels[i];
    }
    memcpy(t->labels, labels, (size_t)t->rank * sizeof labels[0]);
    return true;
}

static bool back_squeeze(const struct seeker *s, const struct qd_node *node, struct trail *t)
{
    int64_t axis;
    return one_int(s, node, 1, "axes", &axis) && insert(t, axis < 0 ? axis + t->rank + 1 : axis, GONE);
}

static bool back_gather(const struct seeker *s, const struct qd_node *node, struct trail *t)
{
    int64_t axis = qd_attr_int(node, "axis", 0), at;
    const struct qd_dims *in = &s->dims[node->in[0]];
    if (!one_int(s, node, 1, "", &at) || s->dims[node->in[1]].rank != 0 ||
        !insert(t, axis < 0 ? axis + t->rank + 1 : axis, PART) || in->rank != t->rank)
        return false;
    int64_t size = in->dims[axis < 0 ? axis + t->rank : axis];
    if (!qd_dim_known(size))
        return false;
    t->part = at < 0 ? at + size : at;
    return t->part >= 0 && t->part < size;
}

/* A range [*begin, *begin + *size) along one axis of known size: Slice, or one output of Split. */
static bool cut(const struct seeker *s, const struct qd_node *node, int value, int64_t *axis, int64_t *begin,
                int64_t *size)
{
    if (!is(node, "Slice") && !is(node, "Split"))
        return false;
    int rank = s->dims[node->in[0]].rank;
    int64_t whole, step = 1;
    *begin = 0;
    if (is(node, "Split")) {
        *axis = qd_attr_int(node, "axis", 0);
    } else if (node->opset < 10) {
        *axis = 0;
        if (!one_int(s, node, QD_MAX_RANK, "starts", begin) ||
            (qd_attr_find(node, "axes") && !one_int(s, node, QD_MAX_RANK, "axes", axis)))
            return false;
    } else if (!one_int(s, node, 1, "", begin) || !one_int(s, node, 3, "", axis) ||
               (node->in_count > 4 && node->in[4] != QD_NO_VALUE && !one_int(s, node, 4, "", &step))) {
        return false;
    }
    *axis = *axis < 0 && rank > 0 ? *axis + rank : *axis;
    if (step != 1 || rank < 1 || *axis < 0 || *axis >= rank || s->dims[value].rank != rank)
        return false;
    whole = s->dims[node->in[0]].dims[*axis];
    *size = s->dims[value].dims[*axis];
    for (int o = 0; is(node, "Split") && o < node->out_count && node->out[o] != value; o++) {
        int64_t before = node->out[o] == QD_NO_VALUE ? -1 : s->dims[node->out[o]].dims[*axis];
        if (before < 0)
            return false;
        *begin += before;
    }
    if (*begin < 0)
        *begin += whole;
    return qd_dim_known(whole) && qd_dim_known(*size) && *begin >= 0 && *size > 0 && *begin + *size <= whole;
}

/* One of several packed matrices, along an axis that a Squeeze has taken away. */
static bool back_cut(const struct seeker *s, const struct qd_node *node, struct trail *t)
{
    int64_t axis, begin, size;
    if (!cut(s, node, t->value, &axis, &begin, &size) || s->dims[t->value].rank != t->rank || t->labels[axis] != GONE ||
        size != 1)
        return false;
    t->labels[axis] = PART;
    t->part = begin;
    return true;
}

static bool back(const struct seeker *s, struct trail *t)
{
    const struct qd_node *node = maker(s, t->value);
    if (!node || node->in_count < 1 || node->in[0] == QD_NO_VALUE)
        return false;
    int from = scaled(s, node, &t->scale);
    if (from != QD_NO_VALUE) {
        t->value = from;
        return s->dims[from].rank == t->rank;
    }
    bool done = is(node, "Transpose")                    ? back_transpose(node, t)
                : is(node, "Squeeze")                    ? back_squeeze(s, node, t)
                : is(node, "Gather")                     ? back_gather(s, node, t)
                : is(node, "Slice") || is(node, "Split") ? back_cut(s, node, t)
                                                         : false;
    t->value = node->in[0];
    return done && s->dims[t->value].rank == t->rank;
}

/* Is this Reshape [B, S, C] -> [B, S, ...] where the labels behind are head, depth and perhaps part? */
static bool splits_rows(const struct seeker *s, const struct qd_node *node, const struct trail *t)
{
    if (!is(node, "Reshape") || t->rank < 4 || t->rank > 5 || node->in[0] == QD_NO_VALUE || t->labels[0] != BATCH ||
        t->labels[1] != ROW || t->labels[t->rank - 1] != DEPTH)
        return false;
    const struct qd_dims *from = &s->dims[node->in[0]], *to = &s->dims[t->value];
    int64_t columns = 1;
    if (from->rank != 3 || to->rank != t->rank || from->dims[0] != to->dims[0] || from->dims[1] != to->dims[1])
        return false;
    for (int i = 2; i < t->rank; i++) {
        if (!qd_dim_known(to->dims[i]) || to->dims[i] < 1 || to->dims[i] > INT32_MAX / columns)
            return false;
        columns *= to->dims[i];
    }
    return from->dims[2] == columns;
}

struct operand {
    int value;
    struct qd_attention_side side;
    int64_t heads, size; /* of rows */
    double scale;
};

static void read_rows(const struct seeker *s, const struct trail *t, const struct qd_node *reshape, struct operand *out)
{
    const struct qd_dims *to = &s->dims[t->value];
    int64_t stride = 1, axis, begin, size;
    *out = (struct operand){.value = reshape->in[0], .side.rows = true, .heads = 1, .scale = t->scale};
    for (int i = t->rank - 1; i >= 2; i--) {
        if (t->labels[i] == DEPTH)
            out->size = to->dims[i];
        else if (t->labels[i] == HEAD)
            out->heads = to->dims[i];
        if (t->labels[i] == HEAD)
            out->side.head_stride = stride;
        else if (t->labels[i] == PART)
            out->side.offset += t->part * stride;
        stride *= to->dims[i];
    }
    for (const struct qd_node *node; (node = maker(s, out->value)) != NULL;) { /* rows cut out of wider ones */
        if (!cut(s, node, out->value, &axis, &begin, &size) || axis != 2 || s->dims[node->in[0]].rank != 3)
            break;
        out->side.offset += begin;
        out->value = node->in[0];
    }
}

static bool plain(const struct trail *t)
{
    static const enum label order[2][4] = {{BATCH, ROW, DEPTH}, {BATCH, HEAD, ROW, DEPTH}};
    return (t->rank == 3 || t->rank == 4) &&
           memcmp(t->labels, order[t->rank - 3], (size_t)t->rank * sizeof(enum label)) == 0;
}

/* Follows an operand back; the last place where it lies row by row counts. `turned`: it comes as K^T. */
static bool find_operand(const struct seeker *s, int value, bool turned, struct operand *out)
{
    int rank = s->dims[value].rank;
    struct trail t = {.value = value, .rank = rank, .labels = {BATCH, HEAD, ROW, DEPTH}, .scale = 1};
    bool found = false;
    if (rank != 3 && rank != 4)
        return false;
    if (rank == 3) {
        t.labels[1] = ROW;
        t.labels[2] = DEPTH;
    }
    if (turned) {
        t.labels[rank - 2] = DEPTH;
        t.labels[rank - 1] = ROW;
    }
    do {
        const struct qd_node *node = maker(s, t.value);
        if (node && splits_rows(s, node, &t)) {
            read_rows(s, &t, node, out);
            return true;
        }
        if (plain(&t) && t.rank == rank) {
            found = true;
            *out = (struct operand){.value = t.value, .scale = t.scale};
        }
    } while (back(s, &t));
    return found;
}

/* ------------------------------------------------------------------ the pattern */

struct found {
    int softmax, last; /* nodes; the node that stands last is replaced */
    struct operand q, k, v;
    int rank, mask; /* of the operands; value, or QD_NO_VALUE */
    double scale;
    bool out_rows;
};

/* The only node that reads a value, those that ask for its shape not counted; *i: at which input. -1: none, or more. */
static int reader(const struct seeker *s, int value, int *at)
{
    int found = -1;
    if (s->graph->values[value].is_output)
        return -1;
    for (int n = 0; n < s->graph->node_count; n++) {
        const struct qd_node *node = &s->graph->nodes[n];
        for (int i = 0; i < node->in_count; i++) {
            if (node->in[i] != value || is(node, "Shape"))
                continue;
            if (found >= 0)
                return -1;
            found = n;
            *at = i;
        }
    }
    return found;
}

/* Scores back to the first product: at most one mask, and scales before it. */
static const struct qd_node *find_scores(const struct seeker *s, int value, struct found *f)
{
    f->mask = QD_NO_VALUE;
    f->scale = 1;
    const struct qd_node *node = maker(s, value);
    if (is(node, "Add") && node->in_count == 2) {
        for (int i = 0; i < 2; i++) {
            const struct qd_node *from = maker(s, node->in[i]);
            double ignored = 1;
            if (!is(from, "MatMul") && scaled(s, from, &ignored) == QD_NO_VALUE)
                continue;
            struct found tried = *f;
            const struct qd_node *product = find_scores(s, node->in[i], &tried);
            if (!product || tried.mask != QD_NO_VALUE)
                continue;
            int mask = node->in[1 - i];
            if (mask == QD_NO_VALUE || s->dims[mask].rank > s->dims[node->in[i]].rank)
                return NULL; /* one of unknown rank is looked at when it is there */
            f->scale = tried.scale;
            f->mask = mask;
            return product;
        }
        return NULL;
    }
    for (int from; (from = scaled(s, node, &f->scale)) != QD_NO_VALUE; node = maker(s, from))
        ;
    return is(node, "MatMul") ? node : NULL;
}

/* Where the heads are joined again: Transpose and Reshape behind the second product, when nothing else reads it. */
static void find_end(const struct seeker *s, int product, struct found *f)
{
    int at, out = s->graph->nodes[product].out[0];
    size_t count;
    f->last = product;
    if (s->dims[out].rank != 4)
        return;
    int transpose = reader(s, out, &at);
    const struct qd_node *node = transpose < 0 ? NULL : &s->graph->nodes[transpose];
    if (!is(node, "Transpose"))
        return;
    const int64_t *perm = qd_attr_ints(node, "perm", &count);
    if (!perm || count != 4 || perm[0] != 0 || perm[1] != 2 || perm[2] != 1 || perm[3] != 3)
        return;
    const struct qd_dims *heads = &s->dims[node->out[0]];
    int reshape = reader(s, node->out[0], &at);
    node = reshape < 0 || at != 0 ? NULL : &s->graph->nodes[reshape];
    if (!is(node, "Reshape"))
        return;
    const struct qd_dims *rows = &s->dims[node->out[0]];
    if (heads->rank != 4 || rows->rank != 3 || rows->dims[0] != heads->dims[0] || rows->dims[1] != heads->dims[1] ||
        !qd_dim_known(heads->dims[2]) || !qd_dim_known(heads->dims[3]) || heads->dims[2] > INT32_MAX ||
        heads->dims[3] > INT32_MAX || rows->dims[2] != heads->dims[2] * heads->dims[3])
        return;
    f->last = reshape;
    f->out_rows = true;
}

static bool last_axis(const struct qd_node *softmax, int rank)
{
    int64_t axis = qd_attr_int(softmax, "axis", softmax->opset < 13 ? 1 : -1);
    return axis == -1 || axis == rank - 1;
}

/* Sides that are rows agree on their heads; Q and K on their size. */
static bool agree(const struct operand *a, const struct operand *b, bool sizes)
{
    return !a->side.rows || !b->side.rows || (a->heads == b->heads && (!sizes || a->size == b->size));
}

static bool find(const struct seeker *s, int softmax, struct found *f)
{
    const struct qd_node *node = &s->graph->nodes[softmax];
    int at;
    *f = (struct found){.softmax = softmax};
    if (!is(node, "Softmax"))
        return false;
    int second = reader(s, node->out[0], &at);
    const struct qd_node *scores = find_scores(s, node->in[0], f);
    if (second < 0 || at != 0 || !scores || !is(&s->graph->nodes[second], "MatMul"))
        return false;
    int q = scores->in[0], k = scores->in[1], v = s->graph->nodes[second].in[1], rank = s->dims[q].rank;
    if (!last_axis(node, rank) || s->dims[k].rank != rank || s->dims[v].rank != rank ||
        !find_operand(s, q, false, &f->q) || !find_operand(s, k, true, &f->k) || !find_operand(s, v, false, &f->v) ||
        !agree(&f->q, &f->k, true) || !agree(&f->q, &f->v, false) || !agree(&f->k, &f->v, false) ||
        s->graph->values[f->k.value].constant || s->graph->values[f->v.value].constant)
        return false;
    f->rank = rank;
    f->scale *= f->q.scale * f->k.scale;
    find_end(s, second, f);
    return f->v.scale == 1 && isfinite(f->scale);
}

/* ------------------------------------------------------------------ rewriting */

static void need_outer(struct seeker *s, const struct qd_graph *body)
{
    for (int v = 0; v < body->value_count; v++)
        if (body->values[v].outer != QD_NO_VALUE)
            s->needed[body->values[v].outer] = true;
}

/* Which nodes the outputs need. */
static void mark(struct seeker *s)
{
    struct qd_graph *graph = s->graph;
    memset(s->needed, 0, (size_t)graph->value_count * sizeof *s->needed);
    for (int i = 0; i < graph->output_count; i++)
        s->needed[graph->outputs[i]] = true;
    for (int n = graph->node_count - 1; n >= 0; n--) {
        const struct qd_node *node = &graph->nodes[n];
        s->alive[n] = node->out_count == 0;
        for (int o = 0; o < node->out_count; o++)
            s->alive[n] |= node->out[o] != QD_NO_VALUE && s->needed[node->out[o]];
        for (int i = 0; s->alive[n] && i < node->in_count; i++)
            if (node->in[i] != QD_NO_VALUE)
                s->needed[node->in[i]] = true;
        for (int a = 0; s->alive[n] && a < node->attr_count; a++) {
            if (node->attrs[a].type == QD_ATTR_GRAPH)
                need_outer(s, node->attrs[a].g);
            for (size_t g = 0; node->attrs[a].type == QD_ATTR_GRAPHS && g < node->attrs[a].count; g++)
                need_outer(s, node->attrs[a].graphs[g]);
        }
    }
}

/* Puts the new node in the place of the last one; takes it back when the pieces would still run. False: no memory. */
static bool rewrite(struct seeker *s, const struct found *f, bool *changed)
{
    struct qd_node *node = &s->graph->nodes[f->last], before = *node;
    struct qd_attention *program = qd_arena_alloc(s->arena, 1, sizeof *program);
    int *in = qd_arena_alloc(s->arena, 4, sizeof *in);
    const struct operand *sized = f->q.side.rows ? &f->q : &f->k;
    if (!program || !in)
        return false;
    *program = (struct qd_attention){.rank = f->rank,
                                     .heads = sized->side.rows ? sized->heads : f->v.heads,
                                     .size = sized->size,
                                     .value_size = f->v.size,
                                     .scale = (float)f->scale,
                                     .q = f->q.side,
                                     .k = f->k.side,
                                     .v = f->v.side,
                                     .out_rows = f->out_rows};
    in[0] = f->q.value;
    in[1] = f->k.value;
    in[2] = f->v.value;
    in[3] = f->mask;
    *node = (struct qd_node){.name = before.name,
                             .op = "Attention",
                             .domain = "quantd",
                             .opset = 1,
                             .in_count = f->mask == QD_NO_VALUE ? 3 : 4,
                             .out_count = 1,
                             .in = in,
                             .out = before.out,
                             .program = program};
    mark(s);
    if (s->alive[f->softmax])
        *node = before;
    else
        *changed = true;
    return true;
}

static bool begin(struct seeker *s)
{
    size_t values = (size_t)s->graph->value_count + 1, nodes = (size_t)s->graph->node_count + 1;
    s->dims = qd_dims_find(s->graph, s->arena);
    s->producer = qd_arena_alloc(s->arena, values, sizeof *s->producer);
    s->needed = qd_arena_alloc(s->arena, values, sizeof *s->needed);
    s->alive = qd_arena_alloc(s->arena, nodes, sizeof *s->alive);
    if (!s->dims || !s->producer || !s->needed || !s->alive)
        return false;
    for (int v = 0; v < s->graph->value_count; v++)
        s->producer[v] = -1;
    for (int n = 0; n < s->graph->node_count; n++)
        for (int o = 0; o < s->graph->nodes[n].out_count; o++)
            if (s->graph->nodes[n].out[o] != QD_NO_VALUE)
                s->producer[s->graph->nodes[n].out[o]] = n;
    return true;
}

static bool has_softmax(const struct qd_graph *graph)
{
    for (int n = 0; n < graph->node_count; n++)
        if (is(&graph->nodes[n], "Softmax"))
            return true;
    return false;
}

enum qd_status qd_find_attention(struct qd_graph *graph, struct qd_arena *arena, struct qd_error *error)
{
    struct seeker s = {.graph = graph, .arena = arena};
    bool changed = false, ok = !has_softmax(graph) || begin(&s);
    struct found f;
    for (int n = 0; ok && s.dims && n < graph->node_count; n++)
        if (find(&s, n, &f))
            ok = rewrite(&s, &f, &changed);
    if (!ok)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
    if (!changed)
        return QD_OK;
    int kept = 0;
    mark(&s);
    for (int n = 0; n < graph->node_count; n++)
        if (s.alive[n])
            graph->nodes[kept++] = graph->nodes[n];
    graph->node_count = kept;
    return QD_OK;
}
