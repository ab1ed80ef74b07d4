/* RotaryEmbedding: pairs of a head's elements turned by the angle of their position. Not for attention itself. */
#include "engine/ops/helpers.h"

#include <inttypes.h>
#include <string.h>

struct rotary {
    int64_t heads, turned; /* of the attributes; 0: not given, all of the head */
    bool interleaved;
};

/* X as [batch][row][head][size], wherever heads lie. */
struct layout {
    int64_t batch, rows, heads, size, half; /* half: pairs that are turned */
    int64_t batch_step, row_step, head_step;
};

static enum qd_status rotary_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                     struct qd_error *error)
{
    struct rotary *r = QD_PREP_NEW(arena, struct rotary);
    if (!r)
        return qd_op_no_memory(node, error);
    r->heads = qd_attr_int(node, "num_heads", 0);
    r->turned = qd_attr_int(node, "rotary_embedding_dim", 0);
    r->interleaved = qd_attr_int(node, "interleaved", 0) != 0;
    *prep = r;
    return QD_OK;
}

/* False when the attributes don't fit the shape. */
static bool layout_of(const struct qd_call *call, struct layout *l)
{
    const struct rotary *r = call->prep;
    const struct qd_shape *x = &call->in[0].shape;
    if (x->rank == 4) {
        *l = (struct layout){.batch = x->dims[0], .heads = x->dims[1], .rows = x->dims[2], .size = x->dims[3]};
        l->row_step = l->size;
        l->head_step = l->rows * l->size;
    } else if (x->rank == 3 && r->heads > 0 && x->dims[2] % r->heads == 0) {
        *l = (struct layout){.batch = x->dims[0], .rows = x->dims[1], .heads = r->heads, .size = x->dims[2] / r->heads};
        l->row_step = x->dims[2];
        l->head_step = l->size;
    } else {
        return false;
    }
    l->batch_step = l->rows * l->heads * l->size;
    int64_t turned = r->turned ? r->turned : l->size;
    l->half = turned / 2;
    return turned >= 0 && turned % 2 == 0 && turned <= l->size;
}

static enum qd_status rotary_infer(const struct qd_call *call, struct qd_error *error)
{
    struct layout l;
    enum qd_status status = qd_op_inputs(call, 3, 4, error);
    for (int i = 0; i < 3 && !status; i++)
        status = qd_op_types(call, i, QD_TYPES_FLOAT, error);
    if (status || (status = qd_op_types(call, 3, QD_BIT(QD_I64), error)))
        return status;
    if (!layout_of(call, &l))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the heads don't fit the input's shape");
    const bool ids = qd_op_has(call, 3);
    const struct qd_shape *p = &call->in[3].shape;
    if (ids && (p->rank != 2 || p->dims[0] != l.batch || p->dims[1] != l.rows))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "position_ids must have shape [batch, rows]");
    for (int i = 1; i < 3; i++) {
        const struct qd_shape *c = &call->in[i].shape;
        if (c->rank != (ids ? 2 : 3) || c->dims[c->rank - 1] != l.half || !qd_shape_equal(c, &call->in[1].shape) ||
            (!ids && (c->dims[0] != l.batch || c->dims[1] != l.rows)))
            return qd_op_fail(call, error, QD_ERR_SHAPE, "input %d must have %" PRId64 " elements a position", i,
                              l.half);
    }
    return qd_op_out(call, 0, QD_F32, &call->in[0].shape, error);
}

static void turn(const float *x, const float *cosine, const float *sine, int64_t half, bool interleaved, float *y)
{
    const int64_t step = interleaved ? 2 : 1, second = interleaved ? 1 : half;
    for (int64_t i = 0; i < half; i++) {
        float a = x[i * step], b = x[i * step + second];
        y[i * step] = cosine[i] * a - sine[i] * b;
        y[i * step + second] = sine[i] * a + cosine[i] * b;
    }
}

static enum qd_status rotary_run(const struct qd_call *call, struct qd_error *error)
{
    const struct rotary *r = call->prep;
    const int64_t *ids = qd_op_has(call, 3) ? call->in[3].data : NULL;
    const int64_t positions = call->in[1].shape.dims[0];
    struct layout l;
    if (!layout_of(call, &l))
        return QD_OK; /* refused when the shape was inferred */
    for (int64_t i = 0; i < l.batch * l.rows; i++) {
        int64_t at = ids ? ids[i] : i;
        if (ids && (at < 0 || at >= positions))
            return qd_op_fail(call, error, QD_ERR_INVALID, "position %" PRId64 " is not in the tables", at);
        for (int64_t h = 0; h < l.heads; h++) {
            int64_t start = i / l.rows * l.batch_step + i % l.rows * l.row_step + h * l.head_step;
            const float *x = (const float *)call->in[0].data + start;
            float *y = (float *)call->out[0].data + start;
            turn(x, (const float *)call->in[1].data + at * l.half, (const float *)call->in[2].data + at * l.half,
                 l.half, r->interleaved, y);
            qd_op_copy(y + 2 * l.half, x + 2 * l.half, (size_t)(l.size - 2 * l.half) * sizeof *y);
        }
    }
    return QD_OK;
}

const struct qd_op qd_op_rotary = {.prepare = rotary_prepare, .infer = rotary_infer, .run = rotary_run};
