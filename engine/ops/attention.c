/* Attention of many heads: shapes and strides, the choice between integers and floats, memory. What runs is in
 * attention_run.c. The node's program says how Q, K and V lie (attention.h). */
#include "engine/ops/attention_impl.h"

#include <string.h>

/* Products of unsigned and signed bytes add up in 32 bits: so many keys at most. */
#define INTEGER_KEYS 60000

/* ------------------------------------------------------------------ shapes */

/* Sizes and strides of one side; false when the tensor does not fit the program. */
static bool read_side(const struct qd_attention *p, const struct qd_attention_side *side, int64_t size,
                      const struct qd_shape *shape, struct attention_side *out)
{
    const int64_t *d = shape->dims;
    *out = (struct attention_side){.offset = 0};
    if (side->rows) {
        if (shape->rank != 3 || side->offset < 0 || d[2] < side->offset + (p->heads - 1) * side->head_stride + size)
            return false;
        *out = (struct attention_side){
            {d[0], p->heads, d[1], size}, d[1] * d[2], side->head_stride, d[2], side->offset};
        return true;
    }
    if (shape->rank != p->rank)
        return false;
    if (p->rank == 3)
        *out = (struct attention_side){{d[0], 1, d[1], d[2]}, d[1] * d[2], 0, d[2], 0};
    else
        *out = (struct attention_side){{d[0], d[1], d[2], d[3]}, d[1] * d[2] * d[3], d[2] * d[3], d[3], 0};
    return true;
}

/* a or b, the other being 1; -1 when they don't fit. */
static int64_t common(int64_t a, int64_t b) { return a == b || b == 1 ? a : a == 1 ? b : -1; }

/* A dimension that is repeated has no stride. */
static void repeat(struct attention_side *side)
{
    side->batch_stride = side->dims[0] == 1 ? 0 : side->batch_stride;
    side->head_stride = side->dims[1] == 1 ? 0 : side->head_stride;
}

/* The mask against [B, H, M, N], or [B, M, N] in rank 3. */
static bool read_mask(struct attention *a, const struct qd_attention *p, const struct qd_shape *mask)
{
    int64_t stride = 1, *strides = a->mask_strides;
    if (mask->rank > p->rank)
        return false;
    for (int i = 0; i < 4; i++)
        strides[i] = 0;
    for (int i = mask->rank - 1; i >= 0; i--) {
        int axis = p->rank - mask->rank + i; /* of the scores */
        axis = p->rank == 3 && axis == 0 ? 0 : axis + 4 - p->rank;
        int64_t *whole = axis == 0 ? &a->batch : axis == 1 ? &a->heads : axis == 2 ? &a->m : &a->n;
        if (axis == 0)
            *whole = common(*whole, mask->dims[i]);
        else if (mask->dims[i] != 1 && mask->dims[i] != *whole)
            return false;
        strides[axis] = mask->dims[i] == 1 ? 0 : stride;
        stride *= mask->dims[i];
    }
    return a->batch >= 0;
}

bool qd_attention_fit(const struct qd_call *call, struct attention *a)
{
    const struct qd_attention *p = call->prep;
    *a = (struct attention){.scale = p->scale};
    if (!read_side(p, &p->q, p->size, &call->in[0].shape, &a->q) ||
        !read_side(p, &p->k, p->size, &call->in[1].shape, &a->k) ||
        !read_side(p, &p->v, p->value_size, &call->in[2].shape, &a->v))
        return false;
    a->batch = common(common(a->q.dims[0], a->k.dims[0]), a->v.dims[0]);
    a->heads = common(common(a->q.dims[1], a->k.dims[1]), a->v.dims[1]);
    a->m = a->q.dims[2];
    a->n = a->k.dims[2];
    a->d = a->q.dims[3];
    a->dv = a->v.dims[3];
    a->masked = qd_op_has(call, 3);
    if (a->batch < 0 || a->heads < 0 || a->d < 1 || a->k.dims[3] != a->d || a->v.dims[2] != a->n ||
        (a->masked && !read_mask(a, p, &call->in[3].shape)))
        return false;
    repeat(&a->q);
    repeat(&a->k);
    repeat(&a->v);
    a->out_row = p->out_rows ? a->heads * a->dv : a->dv;
    a->out_head = p->out_rows ? a->dv : a->m * a->dv;
    a->out_batch = a->m * a->heads * a->dv;
    a->by_row = p->by_row && a->n <= INTEGER_KEYS;
    a->integer = a->n <= INTEGER_KEYS;
    for (int i = 0; i < 2 && !a->by_row; i++)
        a->integer = a->integer && call->in[i].dtype == QD_U8;
    return true;
}

static enum qd_status prepare(const struct qd_node *node, struct qd_arena *arena, void **prep, struct qd_error *error)
{
    struct qd_attention *copy = QD_PREP_NEW(arena, struct qd_attention);
    if (!copy)
        return qd_op_no_memory(node, error);
    if (!node->program)
        return qd_op_refuse(node, error, QD_ERR_UNSUPPORTED, "only the plan makes this operator");
    memcpy(copy, node->program, sizeof *copy);
    *prep = copy;
    return QD_OK;
}

static enum qd_status pack(const struct qd_packing *packing, void **prep, struct qd_error *error)
{
    struct qd_attention *p = *prep;
    (void)error;
    p->by_row = packing->int8 && packing->rows;
    return QD_OK;
}

static unsigned wants_q8(const struct qd_packing *packing)
{
    const int *in = packing->node->in;
    return in[2] == in[0] || in[2] == in[1] ? 7 : 3; /* V stays in floats, unless it lies in one tensor with others */
}

static enum qd_status infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_attention *p = call->prep;
    struct attention a;
    enum qd_status status = qd_op_inputs(call, 3, 4, error);
    for (int i = 0; !status && i < 4; i++)
        status = qd_op_types(call, i, QD_TYPES_FLOAT, error);
    if (status)
        return status;
    char q[160], k[160], v[160];
    if (!qd_attention_fit(call, &a))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "queries %s, keys %s and values %s (or the mask) don't fit",
                          qd_shape_text(&call->in[0].shape, q, sizeof q),
                          qd_shape_text(&call->in[1].shape, k, sizeof k),
                          qd_shape_text(&call->in[2].shape, v, sizeof v));
    struct qd_shape out = {.rank = 3, .dims = {a.batch, a.m, p->out_rows ? a.heads * a.dv : a.dv}};
    if (!p->out_rows && p->rank == 4)
        out = (struct qd_shape){.rank = 4, .dims = {a.batch, a.heads, a.m, a.dv}};
    return qd_op_out(call, 0, QD_F32, &out, error);
}

/* ------------------------------------------------------------------ memory */

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

/* Rows of queries at a time: their scores stay in the second cache, and are whole tiles. */
static size_t rows_at_once(const struct attention *a, size_t mr)
{
    size_t row = (size_t)a->n * (a->integer ? 6 : 4), rows = ATTENTION_BLOCK_BYTES / (row + 1);
    size_t blocks, m = (size_t)a->m;
    rows = rows < mr ? mr : rows > ATTENTION_ROWS_MAX ? ATTENTION_ROWS_MAX / mr * mr : rows / mr * mr;
    if (m == 0)
        return mr;
    blocks = (m - 1) / rows + 1;
    rows = ((m - 1) / blocks + mr) / mr * mr; /* evenly, in whole tiles */
    return rows;
}

/* Between rows: no multiple of 2048 bytes, so that they don't fight for the same places of the first cache. */
static size_t row_bytes(size_t bytes)
{
    size_t stride = (bytes + 63) / 64 * 64;
    return stride % 2048 == 0 ? stride + 64 : stride;
}

void qd_attention_memory(const struct qd_call *call, const struct attention *a, struct attention_memory *m)
{
    const struct qd_gemm_q8 *q8 = &call->kernels->gemm_q8;
    const struct qd_gemm_f32 *f32 = &call->kernels->gemm_f32;
    size_t n = (size_t)a->n, d = (size_t)a->d, dv = (size_t)a->dv, depth = (n + 3) / 4 * 4;
    *m = (struct attention_memory){.rows = rows_at_once(a, a->integer ? q8->mr : f32->mr)};
    m->depth = a->integer ? depth : n;
    m->score_bytes = row_bytes(n * sizeof(float));
    m->weight_bytes = a->integer ? row_bytes(depth) : m->score_bytes;
    m->k_bytes = qd_align_up(a->integer ? q8->packed_bytes(n, d) : f32->packed_bytes(n, d));
    m->v_bytes = qd_align_up(a->integer ? q8->packed_bytes(dv, depth) : f32->packed_bytes(dv, n));
    m->start_bytes = a->integer ? qd_align_up(n * sizeof(int32_t)) : 0;
    m->key_scale_bytes = a->by_row ? qd_align_up(n * sizeof(float)) : 0;
    m->head_bytes = m->k_bytes + m->v_bytes + m->start_bytes + (a->integer ? qd_align_up(2 * dv * sizeof(float)) : 0) +
                    m->key_scale_bytes;
    m->gemm_bytes = qd_align_up(a->integer ? most(q8->scratch_bytes(d), q8->scratch_bytes(depth))
                                           : most(f32->scratch_bytes(d), f32->scratch_bytes(n)));
    m->signed_bytes = a->integer ? qd_align_up(most(n * d, qd_align_up(depth * dv) + dv * sizeof(int32_t))) : 0;
    m->block_bytes = qd_align_up(m->rows * (m->score_bytes + (a->integer ? 2 * m->weight_bytes : 0)));
    size_t tail = qd_align_up(2 * m->rows * dv * sizeof(float)) + qd_align_up(m->rows * dv) +
                  qd_align_up(m->rows * sizeof(float));
    m->query_bytes = a->by_row ? qd_align_up(m->rows * d) + qd_align_up(m->rows * sizeof(struct qd_row_scale)) : 0;
    m->task_bytes = most(m->signed_bytes, m->block_bytes + tail + m->gemm_bytes + m->query_bytes) +
                    qd_align_up(sizeof(struct qd_observation));
    m->scale_bytes = qd_align_up(n * sizeof(float)) + qd_align_up(dv * sizeof(int32_t));
    for (int i = 0; i < 3; i++)
        if (!a->integer && call->in[i].dtype == QD_U8)
            m->float_bytes[i] = qd_align_up((size_t)qd_tensor_elems(&call->in[i]) * sizeof(float));
}

static size_t scratch(const struct qd_call *call)
{
    struct attention a;
    struct attention_memory m;
    if (!qd_attention_fit(call, &a))
        return 0;
    qd_attention_memory(call, &a, &m);
    return m.scale_bytes + (size_t)(a.batch * a.heads) * m.head_bytes + qd_op_threads(call) * m.task_bytes +
           m.float_bytes[0] + m.float_bytes[1] + m.float_bytes[2];
}

const struct qd_op qd_op_attention = {.flags = QD_OP_READS_Q8 | QD_OP_WRITES_Q8 | QD_OP_ROWS_INSIDE,
                                      .prepare = prepare,
                                      .wants_q8 = wants_q8,
                                      .pack = pack,
                                      .infer = infer,
                                      .scratch = scratch,
                                      .run = qd_attention_run};
