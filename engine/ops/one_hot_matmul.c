/* OneHotMatMul(ids, table), made by the plan of comparisons with 0, 1, 2... whose truth values are multiplied by a
 * matrix: row ids - first of the table, zeros where there is none. Not for indices that must exist (gather.c). */
#include "engine/ops/helpers.h"

#include <string.h>

static int64_t id_at(const struct qd_tensor *ids, int64_t i)
{
    return ids->dtype == QD_I64 ? ((const int64_t *)ids->data)[i] : ((const int32_t *)ids->data)[i];
}

/* ids [..., 1] -> [..., n], or [..., v] when each of them is compared with its own number: of a rank that the numbers
 * may have raised. */
static enum qd_status infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    const struct qd_shape *ids = &call->in[0].shape, *table = &call->in[1].shape;
    if (status || (status = qd_op_types(call, 0, QD_TYPES_INDEX, error)) ||
        (status = qd_op_types(call, 1, QD_TYPES_FLOAT, error)))
        return status;
    const int rank = (int)qd_attr_int(call->node, "rank", 1);
    struct qd_shape shape = {.rank = ids->rank > rank ? ids->rank : rank};
    const int64_t last = ids->rank ? ids->dims[ids->rank - 1] : 1;
    if (table->rank != 2 || shape.rank > QD_MAX_RANK || (last != 1 && last != table->dims[0]))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "can't multiply rows of %lld by a table of %lld", (long long)last,
                          table->rank == 2 ? (long long)table->dims[0] : -1);
    for (int d = 0; d < shape.rank; d++) {
        const int at = d - (shape.rank - ids->rank);
        shape.dims[d] = at < 0 ? 1 : ids->dims[at];
    }
    shape.dims[shape.rank - 1] = table->dims[1];
    return qd_op_out(call, 0, QD_F32, &shape, error);
}

static void rows(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    const struct qd_tensor *ids = &call->in[0], *table = &call->in[1];
    const int64_t count = table->shape.dims[0], n = table->shape.dims[1];
    const int64_t last = ids->shape.rank ? ids->shape.dims[ids->shape.rank - 1] : 1;
    const int64_t first = qd_attr_int(call->node, "first", 0);
    const float *from = table->data;
    for (int64_t i = begin; i < end; i++) {
        float *to = (float *)call->out[0].data + i * n;
        const int64_t id = last == 1 ? id_at(ids, i) : 0;
        if (last == 1 && id >= first && id - first < count) {
            memcpy(to, from + (id - first) * n, (size_t)n * sizeof *to);
            continue;
        }
        memset(to, 0, (size_t)n * sizeof *to);
        for (int64_t v = 0; last != 1 && v < count; v++)
            for (int64_t j = 0; id_at(ids, i * last + v) == first + v && j < n; j++)
                to[j] += from[v * n + j];
    }
}

static enum qd_status run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const int64_t n = call->in[1].shape.dims[1];
    qd_op_split(call, n ? qd_tensor_elems(&call->out[0]) / n : 0, 1 + 16384 / (n + 1), rows, (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_one_hot_matmul = {.infer = infer, .run = run};
