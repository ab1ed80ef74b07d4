/* Running fused elementwise programs. See pointwise.h. */
#include "engine/ops/pointwise.h"

#include "engine/ops/carry.h"

#include <string.h>

enum { TILE = 1024, MOST_TASKS = 64, TASK_ELEMS = 8192 };

struct prep {
    const struct qd_pointwise_program *program;
    int registers;              /* tiles that results of steps need at once */
    int at[QD_POINTWISE_STEPS]; /* register of each step's result */
};

/* How an input reaches the tiles. */
enum source {
    FLAT,  /* it has the output's elements in the output's order */
    FIXED, /* every tile sees the same values: expanded once a run */
    WALKED /* expanded tile by tile */
};

struct operand {
    enum source source;
    bool integers;
    int64_t elems, period;        /* period: the output repeats it after so many elements */
    int64_t strides[QD_MAX_RANK]; /* by dimension of the run; 0 where it is repeated */
    const float *real;            /* its values, or one expanded tile; NULL: flat integers */
};

/* One run: the output as dimensions in the order of memory, neighbours joined where every input allows it. */
struct run {
    const struct qd_call *call;
    const struct prep *prep;
    int rank;
    int64_t dims[QD_MAX_RANK], elems, tile;
    struct operand in[QD_POINTWISE_INPUTS];
    size_t tasks, tiles_each, shared_floats, task_floats;
    float *scratch; /* what is shared, then each task's tiles */
    struct qd_observation *seen;
};

/* ------------------------------------------------------------------ preparing */

static enum qd_status pointwise_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                        struct qd_error *error)
{
    const struct qd_pointwise_program *program = node->program;
    int last[QD_POINTWISE_STEPS] = {0};
    bool taken[QD_POINTWISE_STEPS] = {false};
    if (!program || program->step_count < 1 || node->in_count > QD_POINTWISE_INPUTS)
        return qd_op_refuse(node, error, QD_ERR_INTERNAL, "has no program");
    struct prep *made = QD_PREP_NEW(arena, struct prep);
    if (!made)
        return qd_op_no_memory(node, error);
    made->program = program;
    for (int s = 0; s < program->step_count; s++) {
        const struct qd_pointwise_step *step = &program->steps[s];
        if (step->a < 0)
            last[~step->a] = s;
        if (qd_pointwise_binary(step->op) && step->b < 0)
            last[~step->b] = s;
    }
    for (int s = 0; s < program->step_count; s++) {
        for (int before = 0; before < s; before++) /* a result may take the place of what it is made from */
            if (last[before] == s)
                taken[made->at[before]] = false;
        while (taken[made->at[s]])
            made->at[s]++;
        taken[made->at[s]] = true;
        made->registers = made->registers > made->at[s] + 1 ? made->registers : made->at[s] + 1;
    }
    *prep = made;
    return QD_OK;
}

/* ------------------------------------------------------------------ shapes */

static enum qd_status pointwise_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_shape shape = {0};
    enum qd_status status = qd_op_inputs(call, call->in_count, call->in_count, error);
    enum qd_layout layout = QD_PLAIN;
    for (int i = 0; !status && i < call->in_count; i++) {
        const struct qd_shape before = shape;
        status = qd_op_types(call, i, QD_TYPES_FLOAT, error);
        if (!status && !qd_broadcast(&before, &call->in[i].shape, &shape)) {
            char a[96], b[96];
            return qd_op_fail(call, error, QD_ERR_SHAPE, "can't broadcast %s and %s",
                              qd_shape_text(&before, a, sizeof a), qd_shape_text(&call->in[i].shape, b, sizeof b));
        }
        if (call->in[i].layout == QD_CHANNELS_LAST)
            layout = QD_CHANNELS_LAST;
    }
    if (!status)
        status = qd_op_out(call, 0, QD_F32, &shape, error);
    call->out[0].layout = layout;
    return status;
}

/* Strides of an input by axis of the output's shape, then in the order of the output's memory. */
static void find_strides(const struct qd_tensor *in, const struct qd_tensor *out, int64_t strides[QD_MAX_RANK])
{
    const struct qd_shape memory = qd_memory_shape(in);
    const int lead = out->shape.rank - in->shape.rank;
    int64_t own[QD_MAX_RANK];
    qd_op_strides(&memory, own);
    for (int i = 0; i < QD_MAX_RANK; i++)
        strides[i] = 0;
    for (int i = 0; i < in->shape.rank; i++)
        if (in->shape.dims[i] != 1)
            strides[lead + i] = own[qd_memory_axis(in, i)];
    qd_memory_order(out, strides);
}

/* Does every input cross from dimension d + 1 into d evenly? */
static bool joins(const struct run *run, int inputs, int d, int64_t inner)
{
    for (int i = 0; i < inputs; i++)
        if (run->in[i].strides[d] != run->in[i].strides[d + 1] * inner)
            return false;
    return true;
}

static void join_dims(struct run *run, int inputs)
{
    int kept = 0;
    for (int d = 0; d < run->rank; d++) { /* dimensions of 1 say nothing */
        if (run->dims[d] == 1)
            continue;
        run->dims[kept] = run->dims[d];
        for (int i = 0; i < inputs; i++)
            run->in[i].strides[kept] = run->in[i].strides[d];
        kept++;
    }
    run->rank = kept;
    for (int d = kept - 2; d >= 0; d--) {
        if (!joins(run, inputs, d, run->dims[d + 1]))
            continue;
        run->dims[d] *= run->dims[d + 1];
        for (int i = 0; i < inputs; i++)
            run->in[i].strides[d] = run->in[i].strides[d + 1];
        run->rank--;
        for (int next = d + 1; next < run->rank; next++) {
            run->dims[next] = run->dims[next + 1];
            for (int i = 0; i < inputs; i++)
                run->in[i].strides[next] = run->in[i].strides[next + 1];
        }
    }
}

static bool is_flat(const struct run *run, const struct operand *o)
{
    int64_t stride = 1;
    for (int d = run->rank - 1; d >= 0; stride *= run->dims[d--])
        if (o->strides[d] != stride)
            return false;
    return true;
}

/* Elements of a tile: whole periods of the longest operand that fits, else an even part of a row. */
static int64_t choose_tile(const struct run *run, int inputs)
{
    int64_t longest = 0;
    bool walked = false;
    for (int i = 0; i < inputs; i++) {
        const struct operand *o = &run->in[i];
        if (o->source != FLAT && o->period <= TILE && o->period > longest)
            longest = o->period;
        walked |= o->source != FLAT && o->period > TILE;
    }
    if (longest > 1) {
        const int64_t whole = longest * 16 <= TILE ? longest * 16 : longest; /* no short vector but the last */
        return TILE / whole * whole;
    }
    const int64_t row = walked ? run->dims[run->rank - 1] : 0;
    return row > TILE ? (row - 1) / ((row - 1) / TILE + 1) + 1 : TILE;
}

/* Everything that follows from shapes, types and the number of threads. */
static void plan_run(struct run *run, const struct qd_call *call)
{
    const struct qd_tensor *out = &call->out[0];
    const struct qd_shape memory = qd_memory_shape(out);
    *run = (struct run){.call = call, .prep = call->prep, .rank = memory.rank, .elems = qd_tensor_elems(out)};
    if (!run->elems)
        return;
    memcpy(run->dims, memory.dims, sizeof run->dims);
    for (int i = 0; i < call->in_count; i++)
        find_strides(&call->in[i], out, run->in[i].strides);
    join_dims(run, call->in_count);
    for (int i = 0; i < call->in_count; i++) {
        struct operand *o = &run->in[i];
        o->integers = call->in[i].dtype == QD_U8;
        o->elems = qd_tensor_elems(&call->in[i]);
        o->source = is_flat(run, o) ? FLAT : WALKED;
        o->period = 1;
        int first = 0;
        while (first < run->rank && o->strides[first] == 0)
            first++;
        for (int d = first; d < run->rank; d++)
            o->period *= run->dims[d];
    }
    run->tile = choose_tile(run, call->in_count);
    run->task_floats = (size_t)run->prep->registers * TILE;
    for (int i = 0; i < call->in_count; i++) {
        struct operand *o = &run->in[i];
        if (o->source == WALKED && o->period <= TILE && run->tile % o->period == 0)
            o->source = FIXED;
        run->shared_floats += o->integers && o->source != FLAT ? qd_align_up((size_t)o->elems * 4) / 4 : 0;
        run->shared_floats += o->source == FIXED ? TILE : 0;
        run->task_floats += o->source == WALKED || (o->integers && o->source == FLAT) ? TILE : 0;
    }
    const int64_t tiles = run->elems ? (run->elems - 1) / run->tile + 1 : 0;
    int64_t tasks = run->elems / TASK_ELEMS, most = 4 * (int64_t)qd_op_threads(call);
    tasks = tasks < most ? tasks : most;
    tasks = tasks < MOST_TASKS ? tasks : MOST_TASKS;
    if (tasks < 1 || qd_op_threads(call) == 1)
        tasks = 1;
    run->tiles_each = (size_t)(tiles ? (tiles - 1) / tasks + 1 : 1);
    run->tasks = ((size_t)tiles + run->tiles_each - 1) / run->tiles_each; /* rounding up may leave fewer */
}

static size_t pointwise_scratch(const struct qd_call *call)
{
    struct run run;
    plan_run(&run, call);
    return (run.shared_floats + run.tasks * run.task_floats) * sizeof(float);
}

/* ------------------------------------------------------------------ running */

static void fill(float *out, float value, size_t n)
{
    size_t done = n < 16 ? n : 16;
    for (size_t i = 0; i < done; i++)
        out[i] = value;
    for (; done < n; done *= 2)
        memcpy(out + done, out, (done < n - done ? done : n - done) * sizeof *out);
}

/* Where element `at` of the output's order finds its value in an input, and its index by dimension. */
static int64_t locate(const struct run *run, const struct operand *o, int64_t at, int64_t index[QD_MAX_RANK])
{
    int64_t from = 0;
    for (int d = run->rank - 1; d >= 0; d--) {
        index[d] = at % run->dims[d];
        at /= run->dims[d];
        from += index[d] * o->strides[d];
    }
    return from;
}

/* Values [at, at + n) of the output's order from a repeated or strided input: in `out`, or where they lie in one piece.
 */
static const float *expand(const struct run *run, const struct operand *o, int64_t at, int64_t n, float *out)
{
    const int last = run->rank - 1;
    int64_t index[QD_MAX_RANK], from = locate(run, o, at, index);
    const int64_t stride = o->strides[last];
    if (stride == 1 && n <= run->dims[last] - index[last])
        return o->real + from;
    for (float *to = out; n > 0;) {
        int64_t piece = run->dims[last] - index[last];
        piece = piece < n ? piece : n;
        if (stride == 1)
            memcpy(to, o->real + from, (size_t)piece * sizeof *to);
        else if (stride == 0)
            fill(to, o->real[from], (size_t)piece);
        else
            for (int64_t i = 0; i < piece; i++)
                to[i] = o->real[from + i * stride];
        to += piece;
        n -= piece;
        from -= index[last] * stride;
        index[last] = 0;
        for (int d = last - 1; d >= 0; d--) {
            from += o->strides[d];
            if (++index[d] < run->dims[d])
                break;
            from -= index[d] * o->strides[d];
            index[d] = 0;
        }
    }
    return out;
}

/* The one number that an input is throughout [at, at + n), or NULL. */
static const float *single(const struct run *run, const struct operand *o, int64_t at, int64_t n)
{
    int64_t index[QD_MAX_RANK];
    const int last = run->rank - 1;
    if (o->source != WALKED || o->strides[last] != 0)
        return NULL;
    const int64_t from = locate(run, o, at, index);
    return n <= run->dims[last] - index[last] ? o->real + from : NULL;
}

/* Once a run: what repeats is made into floats and one tile. */
static void fix_inputs(struct run *run)
{
    const struct qd_call *call = run->call;
    float *shared = run->scratch;
    for (int i = 0; i < call->in_count; i++) {
        struct operand *o = &run->in[i];
        o->real = o->integers ? NULL : call->in[i].data;
        if (o->source == FLAT)
            continue;
        if (o->integers) {
            call->kernels->dequantize_u8(call->in[i].data, (size_t)o->elems, call->in_qp[i], shared);
            o->real = shared;
            shared += qd_align_up((size_t)o->elems * 4) / 4;
        }
        if (o->source == FIXED) {
            const int64_t n = run->elems < run->tile ? run->elems : run->tile;
            const float *whole = expand(run, o, 0, n, shared);
            if (whole != shared)
                memcpy(shared, whole, (size_t)n * sizeof *shared);
            o->real = shared;
            shared += TILE;
        }
    }
}

/* A tile on its way. An input that is one number all over it is expanded only when an operation has no form for that.
 */
struct tile {
    const struct run *run;
    int64_t at;
    size_t n;
    float *results, *buffers; /* of registers; of inputs that are not used where they lie */
    const float *in[QD_POINTWISE_INPUTS], *single[QD_POINTWISE_INPUTS];
};

static void load_inputs(struct tile *tile)
{
    const struct run *run = tile->run;
    const struct qd_call *call = run->call;
    for (int i = 0; i < call->in_count; i++) {
        const struct operand *o = &run->in[i];
        tile->single[i] = single(run, o, tile->at, (int64_t)tile->n);
        tile->in[i] = NULL;
        if (o->source == FLAT && o->integers) {
            tile->in[i] = tile->buffers;
            call->kernels->dequantize_u8((const uint8_t *)call->in[i].data + tile->at, tile->n, call->in_qp[i],
                                         tile->buffers);
            tile->buffers += TILE;
        } else if (o->source != WALKED) {
            tile->in[i] = o->source == FLAT ? o->real + tile->at : o->real;
        }
    }
}

static const float *operand_of(struct tile *tile, int operand)
{
    if (operand < 0)
        return tile->results + tile->run->prep->at[~operand] * TILE;
    if (!tile->in[operand]) {
        tile->in[operand] = expand(tile->run, &tile->run->in[operand], tile->at, (int64_t)tile->n, tile->buffers);
        tile->buffers += TILE;
    }
    return tile->in[operand];
}

/* A step of two operands, one of which is a number here, as the operation with a parameter; the same to the last bit.
 */
static bool with_number(const struct tile *tile, const struct qd_pointwise_step *step, struct qd_pointwise_step *simple)
{
    static const struct {
        enum qd_pw two, number_last, number_first;
    } rows[] = {{QD_PW_ADD, QD_PW_ADD_P, QD_PW_ADD_P},
                {QD_PW_SUB, QD_PW_ADD_P, QD_PW_P_SUB},
                {QD_PW_MUL, QD_PW_MUL_P, QD_PW_MUL_P},
                {QD_PW_DIV, QD_PW_DIV_P, QD_PW_P_DIV}};
    const bool last = step->b >= 0 && tile->single[step->b], first = step->a >= 0 && tile->single[step->a];
    for (size_t i = 0; i < sizeof rows / sizeof *rows && (last || first); i++) {
        if (rows[i].two != step->op)
            continue;
        const float value = *tile->single[last ? step->b : step->a];
        *simple = (struct qd_pointwise_step){.op = last ? rows[i].number_last : rows[i].number_first,
                                             .a = last ? step->a : step->b,
                                             .p = last && step->op == QD_PW_SUB ? -value : value};
        return true;
    }
    return false;
}

static void run_tile(const struct run *run, int64_t at, size_t n, float *tiles, struct qd_observation *seen)
{
    const struct qd_call *call = run->call;
    const struct qd_pointwise_program *program = run->prep->program;
    struct tile tile = {.run = run, .at = at, .n = n, .results = tiles};
    float *result = NULL;
    tile.buffers = tiles + (size_t)run->prep->registers * TILE;
    load_inputs(&tile);
    for (int s = 0; s < program->step_count; s++) {
        const struct qd_pointwise_step *step = &program->steps[s];
        struct qd_pointwise_step simple;
        const bool two = qd_pointwise_binary(step->op) && !with_number(&tile, step, &simple);
        if (qd_pointwise_binary(step->op) && !two)
            step = &simple;
        const float *a = operand_of(&tile, step->a), *b = two ? operand_of(&tile, step->b) : NULL;
        bool store = s == program->step_count - 1 && !call->out_qp;
        result = store ? (float *)call->out[0].data + at : tiles + run->prep->at[s] * TILE;
        call->kernels->pointwise[step->op].run(a, b, step->p, step->q, result, n);
    }
    if (call->out_qp)
        call->kernels->requantize_u8(result, n, call->out_qp, (uint8_t *)call->out[0].data + at, seen);
}

static void run_task(void *ctx, size_t task)
{
    const struct run *run = ctx;
    float *tiles = run->scratch + run->shared_floats + task * run->task_floats;
    const int64_t begin = (int64_t)(task * run->tiles_each) * run->tile, most = (int64_t)run->tiles_each * run->tile;
    const int64_t end = run->elems - begin < most ? run->elems : begin + most;
    for (int64_t at = begin; at < end; at += run->tile) {
        const int64_t left = end - at;
        run_tile(run, at, (size_t)(left < run->tile ? left : run->tile), tiles, run->seen ? &run->seen[task] : NULL);
    }
}

static enum qd_status pointwise_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    struct run run;
    struct qd_observation seen[MOST_TASKS];
    plan_run(&run, call);
    if (!run.elems)
        return QD_OK;
    run.scratch = call->scratch;
    run.seen = call->observe ? seen : NULL;
    for (size_t i = 0; run.seen && i < run.tasks; i++)
        seen[i] = qd_observation_empty();
    fix_inputs(&run);
    if (run.tasks == 1)
        run_task(&run, 0);
    else
        call->parallel->run(call->parallel, run.tasks, run_task, &run);
    for (size_t i = 0; run.seen && i < run.tasks; i++)
        qd_observation_merge(call->observe, &seen[i]);
    return QD_OK;
}

const struct qd_op qd_op_pointwise = {.flags = QD_OP_CHANNELS_LAST | QD_OP_ALL_CHANNELS_LAST | QD_OP_READS_Q8 |
                                               QD_OP_WRITES_Q8,
                                      .prepare = pointwise_prepare,
                                      .infer = pointwise_infer,
                                      .scratch = pointwise_scratch,
                                      .run = pointwise_run};
