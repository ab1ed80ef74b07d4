/* MatMul of any ranks and Gemm, of any inputs in FP32; MatMul of integers by plain loops. Those with constant weights
 * run in linear.h instead. */
#include "engine/ops/product.h"

#include <string.h>

/* Columns of B packed at a time: bounds the scratch, gives threads something to share. */
#define COLUMNS 512
/* Rows that are worth packing B once more for another thread. */
#define LEAST_ROWS 64

/* ------------------------------------------------------------------ MatMul */

struct matmul {
    int64_t m, n, k;
    struct qd_shape a_batch, b_batch, batch; /* dimensions in front of the matrices */
    struct qd_shape out;
};

static struct qd_shape leading(const struct qd_shape *shape, int matrix)
{
    struct qd_shape lead = {.rank = shape->rank > matrix ? shape->rank - matrix : 0};
    memcpy(lead.dims, shape->dims, (size_t)lead.rank * sizeof lead.dims[0]);
    return lead;
}

/* A vector counts as one row on the left and one column on the right; its dimension is then left out. */
static bool matmul_fit(const struct qd_shape *a, const struct qd_shape *b, struct matmul *mm)
{
    if (a->rank < 1 || b->rank < 1)
        return false;
    mm->m = a->rank > 1 ? a->dims[a->rank - 2] : 1;
    mm->k = a->dims[a->rank - 1];
    mm->n = b->rank > 1 ? b->dims[b->rank - 1] : 1;
    mm->a_batch = leading(a, 2);
    mm->b_batch = leading(b, 2);
    if (b->dims[b->rank > 1 ? b->rank - 2 : 0] != mm->k || !qd_broadcast(&mm->a_batch, &mm->b_batch, &mm->batch))
        return false;
    mm->out = mm->batch;
    if (a->rank > 1)
        mm->out.dims[mm->out.rank++] = mm->m;
    if (b->rank > 1)
        mm->out.dims[mm->out.rank++] = mm->n;
    if (qd_shape_span(&mm->b_batch, 0, mm->b_batch.rank) == 1 && b->rank >= 2 && mm->batch.rank == mm->a_batch.rank) {
        mm->m *= qd_shape_span(&mm->batch, 0, mm->batch.rank); /* one B for all: one tall product */
        mm->a_batch.rank = mm->b_batch.rank = mm->batch.rank = 0;
    }
    return true;
}

#define MATMUL_TYPES (QD_TYPES_FLOAT | QD_TYPES_INDEX | QD_BIT(QD_U32) | QD_BIT(QD_U64))

static enum qd_status matmul_infer(const struct qd_call *call, struct qd_error *error)
{
    struct matmul mm;
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (status || (status = qd_op_types(call, 0, MATMUL_TYPES, error)) || (status = qd_op_same_type(call, 0, 1, error)))
        return status;
    char a[160], b[160];
    if (!matmul_fit(&call->in[0].shape, &call->in[1].shape, &mm))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "matrices of shape %s and %s can't be multiplied",
                          qd_shape_text(&call->in[0].shape, a, sizeof a),
                          qd_shape_text(&call->in[1].shape, b, sizeof b));
    return qd_op_out(call, 0, call->in[0].dtype, &mm.out, error);
}

static size_t columns(int64_t n) { return n < COLUMNS ? (size_t)n : COLUMNS; }

static size_t matmul_scratch(const struct qd_call *call)
{
    struct matmul mm;
    if (call->in[0].dtype != QD_F32 || !matmul_fit(&call->in[0].shape, &call->in[1].shape, &mm))
        return 0;
    return qd_op_threads(call) * qd_product_bytes(call->kernels, columns(mm.n), (size_t)mm.k);
}

struct matmul_work {
    const struct qd_call *call;
    struct matmul mm;
    struct qd_walk walk;          /* over the batches; offsets in matrices */
    int64_t blocks, parts, tasks; /* of columns, of rows; parts only where threads would have nothing to do */
    size_t slot_bytes;
};

/* Matrix number of operand k for batch `batch`. */
static int64_t matrix_of(const struct qd_walk *walk, int k, int64_t batch)
{
    int64_t at = 0;
    for (int i = walk->rank - 1; i >= 0; i--) {
        at += batch % walk->dims[i] * walk->strides[k][i];
        batch /= walk->dims[i];
    }
    return at;
}

/* Tasks begin..end: each has a place in scratch and every tasks-th block of columns and part of rows of a batch. */
static void matmul_tasks(void *ctx, int64_t begin, int64_t end)
{
    const struct matmul_work *w = ctx;
    const struct matmul *mm = &w->mm;
    const struct qd_call *call = w->call;
    size_t m = (size_t)mm->m, n = (size_t)mm->n, k = (size_t)mm->k;
    int64_t batches = qd_shape_span(&mm->batch, 0, mm->batch.rank);
    for (int64_t task = begin; task < end; task++)
        for (int64_t item = task; item < batches * w->blocks * w->parts; item += w->tasks) {
            int64_t batch = item / w->parts / w->blocks, part = item % w->parts;
            size_t first = (size_t)(item / w->parts % w->blocks) * COLUMNS;
            size_t row = m * (size_t)part / (size_t)w->parts, stop = m * (size_t)(part + 1) / (size_t)w->parts;
            const float *a = call->in[0].data, *b = call->in[1].data;
            struct qd_product product = {
                .m = stop - row,
                .n = n - first < COLUMNS ? n - first : COLUMNS,
                .k = k,
                .a = k ? a + ((size_t)matrix_of(&w->walk, 0, batch) * m + row) * k : a,
                .a_stride = k,
                .b = k ? b + (size_t)matrix_of(&w->walk, 1, batch) * n * k + first : b,
                .b_depth = n,
                .b_column = 1,
                .out = (float *)call->out[0].data + ((size_t)batch * m + row) * n + first,
                .out_stride = n,
            };
            qd_product_run(&product, call->kernels, (char *)call->scratch + (size_t)task * w->slot_bytes);
        }
}

/* Rows of the output, of integers: sums wrap, so signed and unsigned ones are the same. */
#define INTEGER_ROWS(name, type)                                                                                       \
    static void name(void *ctx, int64_t begin, int64_t end)                                                            \
    {                                                                                                                  \
        const struct matmul_work *w = ctx;                                                                             \
        const struct matmul *mm = &w->mm;                                                                              \
        for (int64_t row = begin; row < end; row++) {                                                                  \
            int64_t batch = row / mm->m, a_row = matrix_of(&w->walk, 0, batch) * mm->m + row % mm->m;                  \
            const type *a = (const type *)w->call->in[0].data + a_row * mm->k;                                         \
            const type *b = (const type *)w->call->in[1].data + matrix_of(&w->walk, 1, batch) * mm->k * mm->n;         \
            type *out = (type *)w->call->out[0].data + row * mm->n;                                                    \
            memset(out, 0, (size_t)mm->n * sizeof *out);                                                               \
            for (int64_t k = 0; k < mm->k; k++)                                                                        \
                for (int64_t n = 0; n < mm->n; n++)                                                                    \
                    out[n] += a[k] * b[k * mm->n + n];                                                                 \
        }                                                                                                              \
    }
INTEGER_ROWS(rows_u32, uint32_t)
INTEGER_ROWS(rows_u64, uint64_t)

static enum qd_status matmul_run(const struct qd_call *call, struct qd_error *error)
{
    struct matmul_work work = {.call = call, .tasks = qd_op_threads(call)};
    if (!matmul_fit(&call->in[0].shape, &call->in[1].shape, &work.mm))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the shapes don't fit");
    if (qd_tensor_elems(&call->out[0]) == 0)
        return QD_OK;
    qd_walk_begin(&work.walk, &work.mm.batch);
    qd_walk_broadcast(&work.walk, &work.mm.a_batch);
    qd_walk_broadcast(&work.walk, &work.mm.b_batch);
    if (call->in[0].dtype != QD_F32) {
        int64_t rows = qd_tensor_elems(&call->out[0]) / work.mm.n;
        qd_op_split(call, rows, 16, qd_dtype_bytes(call->in[0].dtype) == 4 ? rows_u32 : rows_u64, &work);
        return QD_OK;
    }
    work.blocks = (work.mm.n - 1) / COLUMNS + 1;
    int64_t pieces = qd_shape_span(&work.mm.batch, 0, work.mm.batch.rank) * work.blocks;
    work.parts = pieces < work.tasks ? (work.tasks - 1) / pieces + 1 : 1;
    if (work.parts > work.mm.m / LEAST_ROWS)
        work.parts = work.mm.m < LEAST_ROWS ? 1 : work.mm.m / LEAST_ROWS;
    work.slot_bytes = qd_product_bytes(call->kernels, columns(work.mm.n), (size_t)work.mm.k);
    qd_op_split(call, work.tasks, 1, matmul_tasks, &work);
    return QD_OK;
}

const struct qd_op qd_op_matmul = {.infer = matmul_infer, .scratch = matmul_scratch, .run = matmul_run};

/* ------------------------------------------------------------------ Gemm: alpha op(A) op(B) + beta C */

struct gemm {
    bool trans_a, trans_b;
    float alpha, beta;
};

static enum qd_status gemm_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                   struct qd_error *error)
{
    struct gemm *gemm = QD_PREP_NEW(arena, struct gemm);
    if (!gemm)
        return qd_op_no_memory(node, error);
    gemm->trans_a = qd_attr_int(node, "transA", 0) != 0;
    gemm->trans_b = qd_attr_int(node, "transB", 0) != 0;
    gemm->alpha = qd_attr_float(node, "alpha", 1.0f);
    gemm->beta = qd_attr_float(node, "beta", 1.0f);
    *prep = gemm;
    return QD_OK;
}

static void gemm_sizes(const struct qd_call *call, size_t *m, size_t *n, size_t *k)
{
    const struct gemm *gemm = call->prep;
    *m = (size_t)call->in[0].shape.dims[gemm->trans_a ? 1 : 0];
    *k = (size_t)call->in[0].shape.dims[gemm->trans_a ? 0 : 1];
    *n = (size_t)call->in[1].shape.dims[gemm->trans_b ? 0 : 1];
}

static enum qd_status gemm_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct gemm *gemm = call->prep;
    enum qd_status status = qd_op_inputs(call, 2, 3, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)) ||
        (status = qd_op_same_type(call, 0, 1, error)) || (status = qd_op_types(call, 2, QD_TYPES_FLOAT, error)))
        return status;
    const struct qd_shape *a = &call->in[0].shape, *b = &call->in[1].shape;
    char ta[160], tb[160];
    if (a->rank != 2 || b->rank != 2 || a->dims[gemm->trans_a ? 0 : 1] != b->dims[gemm->trans_b ? 1 : 0])
        return qd_op_fail(call, error, QD_ERR_SHAPE, "matrices of shape %s%s and %s%s can't be multiplied",
                          qd_shape_text(a, ta, sizeof ta), gemm->trans_a ? " transposed" : "",
                          qd_shape_text(b, tb, sizeof tb), gemm->trans_b ? " transposed" : "");
    struct qd_shape out = {.rank = 2}, with_c;
    out.dims[0] = a->dims[gemm->trans_a ? 1 : 0];
    out.dims[1] = b->dims[gemm->trans_b ? 0 : 1];
    if (qd_op_has(call, 2) && (!qd_broadcast(&out, &call->in[2].shape, &with_c) || !qd_shape_equal(&out, &with_c)))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "C of shape %s can't be broadcast to %s",
                          qd_shape_text(&call->in[2].shape, ta, sizeof ta), qd_shape_text(&out, tb, sizeof tb));
    return qd_op_out(call, 0, QD_F32, &out, error);
}

/* A transposed needs a copy; then the packed blocks of B, one per task. */
static size_t gemm_scratch(const struct qd_call *call)
{
    const struct gemm *gemm = call->prep;
    size_t m, n, k;
    gemm_sizes(call, &m, &n, &k);
    return (gemm->trans_a ? qd_align_up(m * k * sizeof(float)) : 0) +
           qd_op_threads(call) * qd_product_bytes(call->kernels, columns((int64_t)n), k);
}

struct gemm_work {
    const struct qd_call *call;
    const float *a;
    char *scratch;
    size_t slot_bytes, m, n, k;
    int64_t blocks, tasks;
};

static void gemm_tasks(void *ctx, int64_t begin, int64_t end)
{
    const struct gemm_work *w = ctx;
    const struct gemm *gemm = w->call->prep;
    size_t depth = gemm->trans_b ? 1 : w->n, column = gemm->trans_b ? w->k : 1;
    for (int64_t task = begin; task < end; task++)
        for (int64_t block = task; block < w->blocks; block += w->tasks) {
            size_t first = (size_t)block * COLUMNS;
            struct qd_product product = {
                .m = w->m,
                .n = w->n - first < COLUMNS ? w->n - first : COLUMNS,
                .k = w->k,
                .a = w->a,
                .a_stride = w->k,
                .b = (const float *)w->call->in[1].data + (w->k ? first * column : 0),
                .b_depth = depth,
                .b_column = column,
                .out = (float *)w->call->out[0].data + first,
                .out_stride = w->n,
            };
            qd_product_run(&product, w->call->kernels, w->scratch + (size_t)task * w->slot_bytes);
        }
}

struct gemm_tail {
    float *y;
    const float *c;
    int64_t stride;
    float alpha, beta;
};

static void gemm_add(void *ctx, int64_t out_at, const int64_t *at, int64_t n)
{
    const struct gemm_tail *t = ctx;
    for (int64_t i = 0; i < n; i++)
        t->y[out_at + i] = t->alpha * t->y[out_at + i] + (t->c ? t->beta * t->c[at[0] + i * t->stride] : 0.0f);
}

static enum qd_status gemm_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct gemm *gemm = call->prep;
    struct gemm_work work = {
        .call = call, .a = call->in[0].data, .scratch = call->scratch, .tasks = qd_op_threads(call)};
    gemm_sizes(call, &work.m, &work.n, &work.k);
    if (work.m == 0 || work.n == 0)
        return QD_OK;
    if (gemm->trans_a) {
        float *copy = call->scratch;
        for (size_t i = 0; i < work.m; i++)
            for (size_t p = 0; p < work.k; p++)
                copy[i * work.k + p] = work.a[p * work.m + i];
        work.a = copy;
        work.scratch += qd_align_up(work.m * work.k * sizeof(float));
    }
    work.blocks = (int64_t)((work.n - 1) / COLUMNS + 1);
    work.slot_bytes = qd_product_bytes(call->kernels, columns((int64_t)work.n), work.k);
    qd_op_split(call, work.tasks, 1, gemm_tasks, &work);
    bool c = qd_op_has(call, 2) && gemm->beta != 0.0f;
    if (!c && gemm->alpha == 1.0f)
        return QD_OK;
    static const struct qd_shape scalar = {0};
    struct qd_walk walk;
    qd_walk_begin(&walk, &call->out[0].shape);
    qd_walk_broadcast(&walk, c ? &call->in[2].shape : &scalar);
    qd_walk_join(&walk);
    struct gemm_tail tail = {call->out[0].data, c ? call->in[2].data : NULL, walk.strides[0][walk.rank - 1],
                             gemm->alpha, gemm->beta};
    qd_walk_run(&walk, call, gemm_add, &tail);
    return QD_OK;
}

const struct qd_op qd_op_gemm = {
    .prepare = gemm_prepare, .infer = gemm_infer, .scratch = gemm_scratch, .run = gemm_run};
