/* Constant folding: runs once, when the plan is compiled, what would give the same in every request. */
#include "engine/ops/op.h"
#include "engine/plan/control.h"
#include "engine/plan/fuse.h"
#include "engine/plan/work.h"

#include <string.h>

/* Results together may be GROWTH times the model's constants, and so much more: a few bytes (ConstantOfShape, Expand,
 * Tile, Range) must not become gigabytes while a model loads. */
#define GROWTH            8
#define MORE_GROWTH_BYTES ((size_t)64 << 20)
/* And all steps together may be so many for each byte that results may take, about two seconds for a small model: nor
 * must a few bytes (Einsum, pooling by large windows) become minutes. */
#define WORK_PER_BYTE 8

/* What folding may still take. */
struct budget {
    size_t bytes;
    double work;
};

/* Bytes; a Constant node's tensor lies in the file, whatever its size. */
static size_t budget_bytes(const struct qd_graph *graph, size_t most_bytes)
{
    size_t all = MORE_GROWTH_BYTES;
    for (int v = 0; v < graph->value_count; v++)
        if (graph->values[v].constant && all < most_bytes)
            all += GROWTH * qd_tensor_bytes(&graph->values[v].info); /* in the file, so the sum can't overflow */
    for (int n = 0; n < graph->node_count; n++)
        for (int a = 0; a < graph->nodes[n].attr_count && all < most_bytes; a++)
            if (graph->nodes[n].attrs[a].type == QD_ATTR_TENSOR)
                all += GROWTH * qd_tensor_bytes(&graph->nodes[n].attrs[a].t);
    return all < most_bytes ? all : most_bytes;
}

/* Bytes of the results and of the scratch memory; SIZE_MAX when they are more than `left`. */
static size_t cost(const struct qd_call *call, const struct qd_op *op, size_t left)
{
    size_t all = 0;
    for (int i = 0; i < call->out_count; i++) {
        int64_t elems;
        if (!qd_shape_elems(&call->out[i].shape, &elems) || (uint64_t)elems > SIZE_MAX / 16)
            return SIZE_MAX;
        all += qd_tensor_bytes(&call->out[i]);
        if (all > left)
            return SIZE_MAX;
    }
    size_t scratch = op->scratch ? op->scratch(call) : 0;
    return scratch > left - all ? SIZE_MAX : all + scratch;
}

/* Of a node whose results have no names nothing can come. */
static bool is_read(const struct qd_node *node)
{
    for (int i = 0; i < node->out_count; i++)
        if (node->out[i] != QD_NO_VALUE)
            return true;
    return false;
}

static bool foldable(const struct qd_graph *graph, const struct qd_node *node, const struct qd_op *op)
{
    for (int i = 0; i < node->in_count; i++) {
        if (node->in[i] == QD_NO_VALUE)
            continue;
        const struct qd_value *value = &graph->values[node->in[i]];
        bool known = value->constant && !value->is_input;
        int64_t elems;
        if (!known && !((op->flags & QD_OP_SHAPE_ONLY) && value->info.shape.rank >= 0 &&
                        qd_shape_elems(&value->info.shape, &elems)))
            return false;
    }
    return true;
}

/* Infers and runs one node on constants; the results become constants of the graph. `*done` stays false when it can't
 * be known yet. */
static enum qd_status fold_node(struct qd_graph *graph, const struct qd_node *node, const struct qd_op *op,
                                struct qd_arena *arena, struct qd_call *call, struct budget *left, bool *done,
                                struct qd_error *error)
{
    struct qd_tensor *in = qd_arena_alloc(arena, (size_t)node->in_count, sizeof *in);
    struct qd_tensor *out = qd_arena_alloc(arena, (size_t)node->out_count, sizeof *out);
    void *prep = NULL;
    if (!in || !out)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to fold constants");
    if (op->prepare) {
        enum qd_status status = op->prepare(node, arena, &prep, error);
        if (status)
            return status;
    }
    for (int i = 0; i < node->in_count; i++)
        if (node->in[i] != QD_NO_VALUE)
            in[i] = graph->values[node->in[i]].info;
    call->node = node;
    call->prep = prep;
    call->in_count = node->in_count;
    call->out_count = node->out_count;
    call->in = in;
    call->out = out;
    enum qd_status status = op->infer(call, error);
    if (status == QD_ERR_NEEDS_DATA)
        return QD_OK;
    if (status)
        return status;
    for (int i = 0; i < node->out_count; i++)
        if (out[i].dtype == QD_STR)
            return QD_OK; /* nobody lends memory for their bytes here */
    size_t taken = cost(call, op, left->bytes);
    double work = qd_op_work(call);
    if (taken == SIZE_MAX || work > left->work)
        return QD_OK;
    for (int i = 0; i < node->out_count; i++)
        if (node->out[i] != QD_NO_VALUE && out[i].dtype == QD_NONE)
            return qd_fail(error, QD_ERR_INVALID, "%s node '%s' has no output %d", node->op, node->name, i);
    left->bytes -= taken;
    left->work -= work;
    for (int i = 0; i < node->out_count; i++) {
        out[i].data = qd_arena_alloc_raw(arena, qd_tensor_bytes(&out[i]));
        if (!out[i].data)
            return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to fold constants");
    }
    call->scratch = op->scratch ? qd_arena_alloc_raw(arena, op->scratch(call)) : NULL;
    if (op->scratch && !call->scratch)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to fold constants");
    status = op->run(call, error);
    if (status)
        return status;
    for (int i = 0; i < node->out_count; i++) {
        if (node->out[i] == QD_NO_VALUE)
            continue;
        struct qd_value *value = &graph->values[node->out[i]];
        value->info = out[i];
        value->constant = true;
        value->producer = -1;
    }
    *done = true;
    return QD_OK;
}

/* The branch that an If with a known condition takes, or -1. */
static int known_branch(const struct qd_graph *graph, const struct qd_node *node)
{
    if (qd_control_kind(node) != QD_CONTROL_IF || node->in_count < 1 || node->in[0] == QD_NO_VALUE)
        return -1;
    const struct qd_value *value = &graph->values[node->in[0]];
    bool known = value->constant && !value->is_input && value->info.dtype == QD_BOOL && value->info.data &&
                 qd_tensor_elems(&value->info) == 1;
    return known ? !*(const unsigned char *)value->info.data : -1;
}

enum qd_status qd_fold_constants(struct qd_graph *graph, struct qd_arena *arena, const struct qd_kernels *kernels,
                                 struct qd_parallel *parallel, size_t most_bytes,
                                 bool (*keep)(const struct qd_graph *graph, const struct qd_node *node),
                                 struct qd_error *error)
{
    size_t bytes = budget_bytes(graph, most_bytes);
    struct budget left = {bytes, WORK_PER_BYTE * (double)bytes};
    int kept = 0;
    for (int i = 0; i < graph->node_count; i++) {
        int branch = known_branch(graph, &graph->nodes[i]);
        if (branch >= 0) {
            enum qd_status status = qd_control_inline(graph, i--, branch, arena, error);
            if (status)
                return status;
            continue;
        }
        const struct qd_node *node = &graph->nodes[i];
        if (qd_control_kind(node)) {
            graph->nodes[kept++] = *node;
            continue;
        }
        const struct qd_op *op = qd_op_find(node, error);
        if (!op)
            return error ? error->status : QD_ERR_UNSUPPORTED;
        bool done = false;
        if (is_read(node) && foldable(graph, node, op) && !(keep && keep(graph, node))) {
            struct qd_call call = {.kernels = kernels, .parallel = parallel};
            enum qd_status status = fold_node(graph, node, op, arena, &call, &left, &done, error);
            if (status)
                return status;
        }
        if (!done && is_read(node))
            graph->nodes[kept++] = *node;
    }
    graph->node_count = kept;
    return QD_OK;
}
