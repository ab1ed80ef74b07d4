/* Constant folding: runs once, when the plan is compiled, what would give the same in every request. */
#include "engine/ops/op.h"
#include "engine/plan/fuse.h"

#include <string.h>

/* A result may be so much larger than the node's inputs: a few bytes (ConstantOfShape, Expand, Tile, Range) must not
 * become gigabytes while a model loads. */
#define MAX_GROWTH_BYTES ((size_t)16 << 20)

/* Bytes of the results and of the scratch memory; SIZE_MAX when they are more than `left`, or more than the growth
 * allowed. */
static size_t cost(const struct qd_call *call, const struct qd_op *op, size_t left)
{
    size_t given = 0, all = 0;
    for (int i = 0; i < call->in_count; i++)
        given += call->in[i].data ? qd_tensor_bytes(&call->in[i]) : 0;
    for (int i = 0; i < call->out_count; i++) {
        int64_t elems;
        if (!qd_shape_elems(&call->out[i].shape, &elems) || (uint64_t)elems > left / 8)
            return SIZE_MAX;
        all += qd_tensor_bytes(&call->out[i]);
        if (all > left)
            return SIZE_MAX;
    }
    size_t scratch = op->scratch ? op->scratch(call) : 0;
    if (all > MAX_GROWTH_BYTES + 8 * given || scratch > left - all)
        return SIZE_MAX;
    return all + scratch;
}

static bool foldable(const struct qd_graph *graph, const struct qd_node *node, const struct qd_op *op)
{
    if (node->out_count == 0)
        return false;
    for (int i = 0; i < node->in_count; i++) {
        if (node->in[i] == QD_NO_VALUE)
            continue;
        const struct qd_value *value = &graph->values[node->in[i]];
        bool known = value->constant && !value->is_input && value->info.dtype != QD_STR;
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
                                struct qd_arena *arena, struct qd_call *call, size_t *left, bool *done,
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
    size_t taken = cost(call, op, *left);
    if (taken == SIZE_MAX)
        return QD_OK;
    *left -= taken;
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

enum qd_status qd_fold_constants(struct qd_graph *graph, struct qd_arena *arena, const struct qd_kernels *kernels,
                                 struct qd_parallel *parallel, size_t most_bytes, struct qd_error *error)
{
    size_t left = most_bytes;
    int kept = 0;
    for (int i = 0; i < graph->node_count; i++) {
        const struct qd_node *node = &graph->nodes[i];
        const struct qd_op *op = qd_op_find(node, error);
        if (!op)
            return error ? error->status : QD_ERR_UNSUPPORTED;
        bool done = false;
        if (foldable(graph, node, op)) {
            struct qd_call call = {.kernels = kernels, .parallel = parallel};
            enum qd_status status = fold_node(graph, node, op, arena, &call, &left, &done, error);
            if (status)
                return status;
        }
        if (!done)
            graph->nodes[kept++] = *node;
    }
    graph->node_count = kept;
    return QD_OK;
}
