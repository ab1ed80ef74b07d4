/* Rows over threads, as floats or as integers. Observations are gathered by task and merged at the end: counts, least
 * and largest values don't depend on the order. */
#include "engine/ops/rowwise.h"

#define TASK_FLOATS  8192 /* below this a task costs more than it saves */
#define PIECE_FLOATS 2048 /* that are computed before they are quantized: they stay in the first-level cache */

struct rows {
    const struct qd_call *call;
    int64_t rows, n, each, piece; /* rows in all, of a task, of a piece */
    qd_rows_fn *fn;
    void *ctx;
    struct qd_observation *seen; /* [tasks] */
    unsigned char *pieces;
    size_t piece_bytes;
};

static size_t most_tasks(const struct qd_call *call)
{
    unsigned threads = qd_op_threads(call);
    return threads > 1 ? 4 * (size_t)threads : 1;
}

static int64_t piece_rows(int64_t n) { return n > 0 && n < PIECE_FLOATS ? PIECE_FLOATS / n : 1; }

static size_t piece_bytes(int64_t n) { return qd_align_up((size_t)(piece_rows(n) * n) * sizeof(float)); }

size_t qd_rows_scratch(const struct qd_call *call, int64_t n)
{
    if (call->out[0].dtype != QD_U8)
        return 0;
    return most_tasks(call) * (qd_align_up(sizeof(struct qd_observation)) + piece_bytes(n));
}

static void quantize_rows(const struct rows *r, size_t task, int64_t begin, int64_t end)
{
    const struct qd_call *call = r->call;
    float *piece = (float *)(void *)(r->pieces + task * r->piece_bytes);
    for (int64_t i = begin; i < end; i += r->piece) {
        int64_t count = end - i < r->piece ? end - i : r->piece;
        r->fn(r->ctx, i, count, piece);
        call->kernels->requantize_u8(piece, (size_t)(count * r->n), call->out_qp,
                                     (uint8_t *)call->out[0].data + i * r->n, call->observe ? &r->seen[task] : NULL);
    }
}

static void rows_task(void *ctx, size_t task)
{
    const struct rows *r = ctx;
    int64_t begin = (int64_t)task * r->each, end = r->rows - begin < r->each ? r->rows : begin + r->each;
    if (r->call->out_qp)
        quantize_rows(r, task, begin, end);
    else
        r->fn(r->ctx, begin, end - begin, (float *)r->call->out[0].data + begin * r->n);
}

void qd_rows_run(const struct qd_call *call, int64_t rows, int64_t n, qd_rows_fn *fn, void *ctx, void *scratch)
{
    if (rows <= 0 || n <= 0)
        return;
    struct rows r = {.call = call, .rows = rows, .n = n, .piece = piece_rows(n), .fn = fn, .ctx = ctx};
    int64_t tasks = rows / (TASK_FLOATS / n + 1), most = (int64_t)most_tasks(call);
    tasks = tasks < 1 ? 1 : tasks < most ? tasks : most;
    r.each = (rows - 1) / tasks + 1;
    tasks = (rows - 1) / r.each + 1;
    if (call->out_qp) {
        r.seen = scratch;
        r.pieces = (unsigned char *)scratch + most_tasks(call) * qd_align_up(sizeof *r.seen);
        r.piece_bytes = piece_bytes(n);
        for (int64_t i = 0; i < tasks; i++)
            r.seen[i] = qd_observation_empty();
    }
    if (tasks == 1)
        rows_task(&r, 0);
    else
        call->parallel->run(call->parallel, (size_t)tasks, rows_task, &r);
    for (int64_t i = 0; call->out_qp && call->observe && i < tasks; i++)
        qd_observation_merge(call->observe, &r.seen[i]);
}
