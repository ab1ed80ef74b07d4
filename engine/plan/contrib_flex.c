/* FlexAttention (domain ai.onnx.preview): products and Softmax of the standard, the model's own graphs for scores and
 * probabilities put between them. So it runs as an attention that an exporter spelled out. Not for the fused contrib
 * ones (contrib_attention.c). */
#include "engine/plan/contrib_impl.h"

#include "engine/plan/control.h"

#include <math.h>
#include <string.h>

/* Puts the graph of attribute `name` behind x; returns its result, x itself where there is none. */
static int modified(struct qd_rewriter *r, const char *name, int x)
{
    const struct qd_attr *attr = qd_attr_find(&r->node, name);
    if (!attr)
        return x;
    if (attr->type != QD_ATTR_GRAPH || attr->g->input_count != 1 || attr->g->output_count != 1) {
        qd_rw_fail(r, QD_ERR_INVALID, "has a %s that is no graph of one input and one output", name);
        return x;
    }
    const struct qd_graph *graph = attr->g;
    int *map = qd_arena_alloc(r->arena, (size_t)graph->value_count + 1, sizeof *map);
    for (int v = 0; map && v < graph->value_count && !r->status; v++)
        map[v] = v == graph->inputs[0]                   ? x
                 : graph->values[v].outer != QD_NO_VALUE ? graph->values[v].outer
                                                         : qd_rw_copy_value(r, &graph->values[v]);
    if (!map)
        qd_rw_no_memory(r);
    for (int n = 0; n < graph->node_count && !r->status; n++) {
        if (qd_control_kind(&graph->nodes[n]) != QD_CONTROL_NONE)
            qd_rw_fail(r, QD_ERR_UNSUPPORTED, "has control flow in its %s", name);
        qd_rw_copy_node(r, &graph->nodes[n], map);
    }
    return r->status ? x : map[graph->outputs[0]];
}

/* Keys or values, each head as often as queries share it. */
static int shared(struct qd_rewriter *r, int x, int64_t q_heads)
{
    int64_t heads = qd_rw_dim(r, x, 1), size = qd_rw_dim(r, x, 3);
    if (heads == q_heads && heads >= 0)
        return x;
    if (heads < 1 || q_heads < 1 || q_heads % heads || size < 0) {
        qd_rw_fail(r, QD_ERR_UNSUPPORTED, "has heads of which the numbers are not declared, or don't divide");
        return x;
    }
    x = QD_RW(r, "Unsqueeze", QD_RW_NEW, x, QD_RW_LIST(r, 2));
    x = QD_RW(r, "Expand", QD_RW_NEW, x, QD_RW_LIST(r, 1, 1, q_heads / heads, 1, 1));
    return QD_RW(r, "Reshape", QD_RW_NEW, x, QD_RW_LIST(r, 0, q_heads, -1, size));
}

static int cast(struct qd_rewriter *r, int x, enum qd_dtype from, enum qd_dtype to)
{
    return from == to || from == QD_NONE ? x : qd_rw_cast(r, QD_RW_NEW, x, to);
}

static void flex_attention(struct qd_rewriter *r)
{
    int q = qd_rw_in(r, 0), k = qd_rw_in(r, 1), v = qd_rw_in(r, 2), out = qd_rw_out(r, 0);
    const enum qd_dtype type = qd_rw_dtype(r, q);
    const int64_t size = qd_rw_dim(r, q, 3), heads = qd_rw_dim(r, q, 1),
                  asked = qd_rw_get_int(r, "softmax_precision", 0);
    const enum qd_dtype inner = asked ? qd_dtype_from_onnx((int)asked) : type == QD_F64 ? QD_F64 : QD_F32;
    float scale = qd_rw_get_float(r, "scale", size > 0 ? 1 / sqrtf((float)size) : 0);
    if (inner != QD_F32 && inner != QD_F64 && inner != QD_F16 && inner != QD_BF16)
        qd_rw_fail(r, QD_ERR_INVALID, "has a softmax_precision that is no floating-point type");
    if (size < 1 && !qd_attr_find(&r->node, "scale"))
        qd_rw_fail(r, QD_ERR_UNSUPPORTED, "has no declared size of heads, and no scale");
    k = shared(r, k, heads);
    v = shared(r, v, heads);
    int x = QD_RW(r, "MatMul", QD_RW_NEW, cast(r, q, type, inner),
                  cast(r, qd_rw_transpose(r, k, (const int64_t[]){0, 1, 3, 2}, 4), type, inner));
    x = QD_RW(r, "Mul", QD_RW_NEW, x, cast(r, qd_rw_one_float(r, scale), QD_F32, inner));
    x = QD_RW(r, "Softmax", QD_RW_NEW, modified(r, "score_mod", x));
    qd_rw_int(r, "axis", 3);
    x = QD_RW(r, "MatMul", QD_RW_NEW, modified(r, "prob_mod", x), cast(r, v, type, inner));
    if (type != QD_NONE && type != inner)
        qd_rw_cast(r, out, x, type);
    else
        qd_rw_outputs(r, &out, 1);
}

const struct qd_contrib qd_contrib_flex[] = {{"ai.onnx.preview", "FlexAttention", "Softmax", 3, 3, flex_attention, 0}};
const size_t qd_contrib_flex_count = sizeof qd_contrib_flex / sizeof qd_contrib_flex[0];
