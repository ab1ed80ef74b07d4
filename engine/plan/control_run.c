/* Running If and Loop, and what Scan shares with them. A body is a plan of its own; it runs in a lane of its own whose
 * sites are a stretch of the parent's and whose memory counts as the request's. Not for Scan's axes (control_scan.c).
 */
#include "engine/plan/control_run.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

static bool failed(struct qd_lane *lane, enum qd_status status)
{
    lane->status = status;
    return false;
}

static bool no_memory(struct qd_lane *lane)
{
    return failed(lane, qd_fail(&lane->error, QD_ERR_NO_MEMORY, "no memory for the request"));
}

static bool too_large(struct qd_lane *lane, const struct qd_step *step)
{
    return failed(lane,
                  qd_fail(&lane->error, QD_ERR_TOO_LARGE, "no memory left for node '%s': a request may take %zu MiB",
                          step->node->name, lane->plan->options.request_bytes >> 20));
}

/* ---------------------------------------------------------------- one body */

static bool open_arenas(struct qd_body_run *run)
{
    struct qd_arena **arenas[] = {&run->work, &run->carry[0], &run->carry[1]};
    for (int i = 0; i < 3; i++)
        if (qd_arena_create(4 << 10, arenas[i]) != QD_OK)
            return no_memory(run->lane);
    return true;
}

bool qd_body_open(struct qd_body_run *run, struct qd_lane *lane, const struct qd_step *step, int branch, bool repeats)
{
    *run = (struct qd_body_run){.lane = lane, .step = step, .branch = &step->control->branches[branch]};
    size_t inputs = (size_t)run->branch->plan->graph.input_count;
    run->inputs = qd_arena_alloc(lane->arena, inputs, sizeof *run->inputs);
    run->shapes = qd_arena_alloc(lane->arena, inputs, sizeof *run->shapes);
    run->dtypes = qd_arena_alloc(lane->arena, inputs, sizeof *run->dtypes);
    if (!run->inputs || !run->shapes || !run->dtypes)
        return no_memory(lane);
    for (size_t i = (size_t)run->branch->declared; i < inputs; i++)
        run->inputs[i] = lane->slots[step->in[run->branch->source[i - (size_t)run->branch->declared]]];
    return !repeats || open_arenas(run);
}

void qd_body_close(struct qd_body_run *run)
{
    struct qd_arena *arenas[] = {run->work, run->carry[0], run->carry[1]};
    if (run->body.plan)
        qd_lane_release(&run->body);
    qd_shaped_unref(&run->shaped);
    for (int i = 0; i < 3; i++)
        if (arenas[i])
            qd_arena_destroy(&arenas[i]);
}

bool qd_body_shape(struct qd_body_run *run)
{
    struct qd_plan *plan = run->branch->plan;
    bool same = run->shaped != NULL;
    for (int i = 0; i < plan->graph.input_count; i++) {
        const struct qd_tensor *in = &run->inputs[i];
        same = same && run->dtypes[i] == in->dtype && qd_shape_equal(&run->shapes[i], &in->shape);
        run->shapes[i] = in->shape;
        run->dtypes[i] = in->dtype;
    }
    if (same)
        return true;
    qd_shaped_unref(&run->shaped);
    enum qd_status status = qd_plan_shape_typed(plan, run->shapes, run->dtypes, &run->shaped, &run->lane->error);
    return status ? failed(run->lane, status) : true;
}

/* What bounds the time of a request: iterations, and its deadline. */
static bool may_go_on(struct qd_body_run *run)
{
    struct qd_lane *lane = run->lane;
    struct timespec now;
    const char *name = run->step->node->name;
    if (++lane->iterations > QD_MAX_ITERATIONS)
        return failed(lane,
                      qd_fail(&lane->error, QD_ERR_TOO_LARGE,
                              "node '%s': more than %" PRIu64 " iterations in one request", name, QD_MAX_ITERATIONS));
    if (!lane->deadline_ns)
        return true;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if ((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec <= lane->deadline_ns)
        return true;
    return failed(lane, qd_fail(&lane->error, QD_ERR_DEADLINE,
                                "the request's time was over after %" PRIu64 " iterations, in node '%s'",
                                lane->iterations, name));
}

bool qd_body_run(struct qd_body_run *run)
{
    struct qd_lane *lane = run->lane, *body = &run->body;
    if (body->plan)
        qd_lane_release(body);
    if (!qd_body_shape(run))
        return false;
    if (!may_go_on(run))
        return false;
    *body = (struct qd_lane){.plan = run->branch->plan,
                             .shaped = run->shaped,
                             .arena = run->work ? run->work : lane->arena,
                             .taken_bytes = lane->taken_bytes + run->carried_bytes[0] + run->carried_bytes[1],
                             .iterations = lane->iterations,
                             .deadline_ns = lane->deadline_ns};
    enum qd_status status = qd_lane_bind_body(body, lane, run->branch->site_base, run->inputs, &lane->error);
    if (status)
        return failed(lane, status);
    qd_exec_run(&(struct qd_lane *){body}, 1);
    lane->iterations = body->iterations;
    if (!run->work)
        lane->taken_bytes = body->taken_bytes - run->shaped->workspace_bytes; /* the rest stays with the request */
    if (body->status) {
        lane->error = body->error;
        return failed(lane, body->status);
    }
    return true;
}

const struct qd_tensor *qd_body_output(const struct qd_body_run *run, int output)
{
    return &run->body.slots[run->branch->plan->output_slots[output]];
}

struct qd_tensor qd_body_unrun(const struct qd_body_run *run, int output)
{
    const struct qd_plan *plan = run->branch->plan;
    struct qd_tensor tensor = {0};
    if (run->shaped)
        tensor = run->shaped->slots[plan->output_slots[output]];
    if (tensor.dtype == QD_NONE)
        tensor = plan->graph.values[plan->graph.outputs[output]].info;
    for (int i = 0; i < tensor.shape.rank; i++)
        if (tensor.shape.dims[i] < 0)
            tensor.shape.dims[i] = 0;
    if (tensor.shape.rank < 0)
        tensor.shape.rank = 0;
    tensor.data = NULL;
    return tensor;
}

void qd_body_turn(struct qd_body_run *run)
{
    qd_arena_reset(run->carry[run->turn]);
    run->carried_bytes[run->turn] = 0;
}

bool qd_body_carry(struct qd_body_run *run, int output, struct qd_tensor *was)
{
    const struct qd_tensor *out = qd_body_output(run, output);
    struct qd_lane *lane = run->lane;
    size_t bytes = qd_tensor_bytes(out), held = lane->taken_bytes + run->carried_bytes[0] + run->carried_bytes[1];
    if (out->dtype != was->dtype)
        return failed(lane, qd_fail(&lane->error, QD_ERR_TYPE, "%s node '%s': its body's output %d is %s, was %s",
                                    run->step->node->op, run->step->node->name, output, qd_dtype_name(out->dtype),
                                    qd_dtype_name(was->dtype)));
    size_t most = lane->plan->options.request_bytes;
    if (held > most || bytes > most - held)
        return too_large(lane, run->step);
    void *data = qd_arena_alloc_raw(run->carry[run->turn], bytes);
    if (!data)
        return no_memory(lane);
    if (bytes)
        memcpy(data, out->data, bytes);
    *was = *out;
    was->data = data;
    run->carried_bytes[run->turn] += bytes;
    return true;
}

/* ---------------------------------------------------------------- outputs of the step */

/* The slot of an output whose shape, and so whose place, the plan knew beforehand; NULL when it didn't. */
static const struct qd_tensor *planned(const struct qd_lane *lane, const struct qd_step *step, int output)
{
    bool wanted = output < step->out_count && step->out[output] != QD_NO_VALUE;
    return wanted && step - lane->plan->steps < lane->shaped->static_steps ? &lane->slots[step->out[output]] : NULL;
}

bool qd_control_make(struct qd_lane *lane, const struct qd_step *step, int output, struct qd_tensor *tensor)
{
    int64_t elems;
    size_t bytes;
    if (tensor->dtype == QD_NONE || tensor->dtype == QD_STR)
        return failed(lane,
                      qd_fail(&lane->error, QD_ERR_UNSUPPORTED, "%s node '%s': an output's type is %s", step->node->op,
                              step->node->name, tensor->dtype == QD_STR ? "not supported" : "not known"));
    bool fits = qd_shape_elems(&tensor->shape, &elems) &&
                qd_size_mul((size_t)elems, qd_dtype_bytes(tensor->dtype), &bytes);
    tensor->layout = QD_PLAIN;
    const struct qd_tensor *slot = planned(lane, step, output);
    if (slot && (slot->dtype != tensor->dtype || !qd_shape_equal(&slot->shape, &tensor->shape)))
        return failed(lane, qd_fail(&lane->error, QD_ERR_INTERNAL, "node '%s': output %d is not what was planned",
                                    step->node->name, output));
    tensor->data = slot ? slot->data : fits ? qd_lane_take(lane, bytes) : NULL;
    return tensor->data || too_large(lane, step);
}

void qd_control_bind(struct qd_lane *lane, const struct qd_step *step, int output, const struct qd_tensor *tensor)
{
    if (step->out[output] != QD_NO_VALUE)
        lane->slots[step->out[output]] = *tensor;
}

bool qd_control_give(struct qd_lane *lane, const struct qd_step *step, int output, const struct qd_tensor *from)
{
    struct qd_tensor tensor = *from;
    if (output >= step->out_count || step->out[output] == QD_NO_VALUE)
        return true;
    if (!qd_control_make(lane, step, output, &tensor))
        return false;
    if (qd_tensor_bytes(&tensor))
        memcpy(tensor.data, from->data, qd_tensor_bytes(&tensor));
    qd_control_bind(lane, step, output, &tensor);
    return true;
}

bool qd_control_stack_shape(struct qd_lane *lane, const struct qd_step *step, const struct qd_shape *part, int axis,
                            int64_t count, struct qd_shape *out)
{
    if (part->rank >= QD_MAX_RANK)
        return failed(lane,
                      qd_fail(&lane->error, QD_ERR_UNSUPPORTED, "%s node '%s': an output of more than %d dimensions",
                              step->node->op, step->node->name, QD_MAX_RANK));
    out->rank = part->rank + 1;
    for (int i = 0; i < out->rank; i++)
        out->dims[i] = i == axis ? count : part->dims[i < axis ? i : i - 1];
    return true;
}

/* ---------------------------------------------------------------- If and Loop */

/* A condition or a trip count: one element of that type. */
static bool read_scalar(struct qd_lane *lane, const struct qd_step *step, const struct qd_tensor *tensor,
                        enum qd_dtype dtype, const char *what)
{
    if (tensor->dtype == dtype && qd_tensor_elems(tensor) == 1)
        return true;
    char text[128];
    return failed(lane, qd_fail(&lane->error, tensor->dtype == dtype ? QD_ERR_SHAPE : QD_ERR_TYPE,
                                "%s node '%s': its %s is %s %s, not one element of %s", step->node->op,
                                step->node->name, what, qd_dtype_name(tensor->dtype),
                                qd_shape_text(&tensor->shape, text, sizeof text), qd_dtype_name(dtype)));
}

static bool is_true(const struct qd_tensor *tensor) { return *(const unsigned char *)tensor->data != 0; }

static void run_if(struct qd_lane *lane, const struct qd_step *step)
{
    struct qd_body_run run;
    const struct qd_tensor *condition = &lane->slots[step->in[0]];
    if (!read_scalar(lane, step, condition, QD_BOOL, "condition"))
        return;
    if (qd_body_open(&run, lane, step, is_true(condition) ? 0 : 1, false) && qd_body_run(&run))
        for (int o = 0; o < step->out_count; o++)
            if (!qd_control_give(lane, step, o, qd_body_output(&run, o)))
                break;
    qd_body_close(&run);
}

/* Parts of all iterations one behind the other, in memory that doubles. */
struct pile {
    struct qd_tensor part; /* type and shape of one */
    unsigned char *bytes;
    size_t used, room;
};

static bool add_part(struct qd_lane *lane, const struct qd_step *step, struct pile *pile, const struct qd_tensor *part)
{
    size_t bytes = qd_tensor_bytes(part);
    if (pile->part.dtype == QD_NONE)
        pile->part = *part;
    if (pile->part.dtype != part->dtype || !qd_shape_equal(&pile->part.shape, &part->shape))
        return failed(lane,
                      qd_fail(&lane->error, QD_ERR_SHAPE, "%s node '%s': an output to be joined changes its shape",
                              step->node->op, step->node->name));
    if (bytes > pile->room - pile->used) {
        size_t room = pile->room ? pile->room : bytes;
        if (!qd_size_add(room, bytes > room ? bytes : room, &room))
            return too_large(lane, step);
        unsigned char *more = qd_lane_take(lane, room);
        if (!more)
            return too_large(lane, step);
        if (pile->used)
            memcpy(more, pile->bytes, pile->used);
        pile->bytes = more;
        pile->room = room;
    }
    if (bytes)
        memcpy(pile->bytes + pile->used, part->data, bytes);
    pile->used += bytes;
    return true;
}

struct loop {
    struct qd_body_run run;
    int carried, piled;
    struct qd_tensor *values; /* [carried] */
    struct pile *piles;       /* [piled] */
    int64_t trip, most;
    _Alignas(8) unsigned char condition;
};

static bool start_loop(struct loop *loop, struct qd_lane *lane, const struct qd_step *step)
{
    const struct qd_tensor *trip = step->in[0] == QD_NO_VALUE ? NULL : &lane->slots[step->in[0]];
    const struct qd_tensor *condition = step->in[1] == QD_NO_VALUE ? NULL : &lane->slots[step->in[1]];
    if (!qd_body_open(&loop->run, lane, step, 0, true))
        return false;
    if (trip && !read_scalar(lane, step, trip, QD_I64, "trip count"))
        return false;
    if (condition && !read_scalar(lane, step, condition, QD_BOOL, "condition"))
        return false;
    loop->most = trip ? *(const int64_t *)trip->data : INT64_MAX;
    loop->condition = condition ? is_true(condition) : 1;
    loop->carried = step->control->own_inputs - 2;
    loop->piled = step->out_count > loop->carried ? step->out_count - loop->carried : 0;
    loop->values = loop->run.inputs + 2;
    loop->piles = qd_arena_alloc(lane->arena, (size_t)loop->piled, sizeof *loop->piles);
    if (!loop->piles)
        return no_memory(lane);
    for (int i = 0; i < loop->carried; i++) {
        if (step->in[2 + i] == QD_NO_VALUE)
            return failed(lane, qd_fail(&lane->error, QD_ERR_INVALID, "Loop node '%s': carried value %d is absent",
                                        step->node->name, i));
        loop->values[i] = lane->slots[step->in[2 + i]];
    }
    loop->run.inputs[0] = (struct qd_tensor){.dtype = QD_I64, .data = &loop->trip};
    loop->run.inputs[1] = (struct qd_tensor){.dtype = QD_BOOL, .data = &loop->condition};
    for (int i = 0; i < 2; i++)
        qd_loop_declare(loop->run.branch, i, &loop->run.inputs[i]);
    return true;
}

static bool iterate(struct loop *loop, struct qd_lane *lane, const struct qd_step *step)
{
    qd_arena_reset(loop->run.work);
    if (!qd_body_run(&loop->run))
        return false;
    const struct qd_tensor *condition = qd_body_output(&loop->run, 0);
    if (!read_scalar(lane, step, condition, QD_BOOL, "body's condition"))
        return false;
    bool goes_on = is_true(condition);
    for (int i = 0; i < loop->piled; i++)
        if (!add_part(lane, step, &loop->piles[i], qd_body_output(&loop->run, 1 + loop->carried + i)))
            return false;
    qd_body_turn(&loop->run);
    for (int i = 0; i < loop->carried; i++)
        if (!qd_body_carry(&loop->run, 1 + i, &loop->values[i]))
            return false;
    loop->run.turn ^= 1;
    loop->condition = goes_on;
    return true;
}

static void finish_loop(struct loop *loop, struct qd_lane *lane, const struct qd_step *step)
{
    for (int i = 0; i < loop->carried; i++)
        if (!qd_control_give(lane, step, i, &loop->values[i]))
            return;
    if (loop->trip == 0 && loop->piled && !qd_body_shape(&loop->run))
        lane->status = QD_OK; /* it never ran, so what is declared must do */
    for (int i = 0; i < loop->piled; i++) {
        struct pile *pile = &loop->piles[i];
        struct qd_tensor part = loop->trip ? pile->part : qd_body_unrun(&loop->run, 1 + loop->carried + i);
        struct qd_tensor all = part;
        if (!qd_control_stack_shape(lane, step, &part.shape, 0, loop->trip, &all.shape))
            return;
        all.data = pile->bytes;
        if (!pile->used && !qd_control_make(lane, step, loop->carried + i, &all))
            return;
        qd_control_bind(lane, step, loop->carried + i, &all);
    }
}

static void run_loop(struct qd_lane *lane, const struct qd_step *step)
{
    struct loop loop = {0};
    bool sound = start_loop(&loop, lane, step);
    for (; sound && loop.trip < loop.most && loop.condition; loop.trip++)
        sound = iterate(&loop, lane, step);
    if (sound)
        finish_loop(&loop, lane, step);
    qd_body_close(&loop.run);
}

void qd_control_run(struct qd_lane *lane, const struct qd_step *step)
{
    if (step->control->kind == QD_CONTROL_IF)
        run_if(lane, step);
    else if (step->control->kind == QD_CONTROL_LOOP)
        run_loop(lane, step);
    else
        qd_scan_run(lane, step);
}
