/* Tensors in the form in which they are carried. See carry.h. */
#include "engine/ops/carry.h"

#include <string.h>

const struct qd_qparams *qd_carry_in(const struct qd_call *call, int i)
{
    return call->in_qp && call->in[i].dtype == QD_U8 ? call->in_qp[i] : NULL;
}

const float *qd_carry_load(const struct qd_call *call, int i, size_t at, size_t n, float *buffer)
{
    const struct qd_qparams *qp = qd_carry_in(call, i);
    if (!qp)
        return (const float *)call->in[i].data + at;
    call->kernels->dequantize_u8((const uint8_t *)call->in[i].data + at, n, qp, buffer);
    return buffer;
}

void qd_carry_store(const struct qd_call *call, const float *real, size_t at, size_t n, struct qd_observation *seen)
{
    if (call->out_qp)
        call->kernels->requantize_u8(real, n, call->out_qp, (uint8_t *)call->out[0].data + at, seen);
    else
        qd_op_copy((float *)call->out[0].data + at, real, n * sizeof *real);
}

enum { MOST_TASKS = 64 };

struct split {
    void (*fn)(void *ctx, int64_t begin, int64_t end, struct qd_observation *seen);
    void *ctx;
    int64_t items, each;
    struct qd_observation *seen; /* [tasks] or NULL */
};

static void split_task(void *ctx, size_t task)
{
    const struct split *split = ctx;
    int64_t begin = (int64_t)task * split->each, left = split->items - begin;
    split->fn(split->ctx, begin, begin + (left < split->each ? left : split->each),
              split->seen ? split->seen + task : NULL);
}

void qd_carry_split(const struct qd_call *call, int64_t items, int64_t grain,
                    void (*fn)(void *ctx, int64_t begin, int64_t end, struct qd_observation *seen), void *ctx)
{
    if (items <= 0)
        return;
    struct qd_observation seen[MOST_TASKS];
    int64_t tasks = items / (grain > 0 ? grain : 1), most = 4 * (int64_t)qd_op_threads(call);
    most = most < MOST_TASKS ? most : MOST_TASKS;
    tasks = tasks < most ? tasks : most;
    if (qd_op_threads(call) == 1 || tasks <= 1) {
        fn(ctx, 0, items, call->observe);
        return;
    }
    struct split split = {fn, ctx, items, (items - 1) / tasks + 1, call->observe ? seen : NULL};
    tasks = (items - 1) / split.each + 1; /* rounding up may leave fewer */
    for (int64_t i = 0; i < tasks; i++)
        seen[i] = qd_observation_empty();
    call->parallel->run(call->parallel, (size_t)tasks, split_task, &split);
    for (int64_t i = 0; i < tasks && call->observe; i++)
        qd_observation_merge(call->observe, &seen[i]);
}

int qd_memory_axis(const struct qd_tensor *tensor, int axis)
{
    if (tensor->layout != QD_CHANNELS_LAST || axis == 0)
        return axis;
    return axis == 1 ? tensor->shape.rank - 1 : axis - 1;
}

void qd_memory_order(const struct qd_tensor *tensor, int64_t list[QD_MAX_RANK])
{
    if (tensor->layout != QD_CHANNELS_LAST || tensor->shape.rank < 3)
        return;
    int64_t channel = list[1];
    memmove(list + 1, list + 2, (size_t)(tensor->shape.rank - 2) * sizeof *list);
    list[tensor->shape.rank - 1] = channel;
}

struct qd_shape qd_memory_shape(const struct qd_tensor *tensor)
{
    struct qd_shape shape = tensor->shape;
    qd_memory_order(tensor, shape.dims);
    return shape;
}
