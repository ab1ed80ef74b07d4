/* Running Scan: its body over slices of the scanned inputs along an axis, forwards or backwards, results stacked along
 * an axis of theirs. Opset 8 scans each row of a batch for itself, as long as the row's own sequence is. */
#include "engine/plan/control_run.h"

#include <inttypes.h>
#include <string.h>

static bool failed(struct qd_lane *lane, enum qd_status status)
{
    lane->status = status;
    return false;
}

/* Results of all iterations, and of all rows of a batch. */
struct stack {
    struct qd_tensor all;
    struct qd_shape part;
    int axis;
};

struct scan {
    struct qd_body_run run;
    struct qd_lane *lane;
    const struct qd_step *step;
    const struct qd_scan *how;
    const struct qd_tensor *given; /* [states + inputs] */
    struct qd_tensor *rows;        /* [inputs] what is scanned: the inputs, or a row of each */
    int *axes;                     /* [inputs] */
    struct stack *stacks;          /* [states + outputs] */
    int64_t batch, length;         /* 1 without a batch */
};

/* One slice of `from` along `axis`; a view where its bytes lie together. */
static bool slice(struct scan *s, const struct qd_tensor *from, int axis, int64_t index, struct qd_tensor *out)
{
    size_t size = qd_dtype_bytes(from->dtype);
    size_t outer = (size_t)qd_shape_span(&from->shape, 0, axis), n = (size_t)from->shape.dims[axis];
    size_t inner = (size_t)qd_shape_span(&from->shape, axis + 1, from->shape.rank) * size;
    const unsigned char *bytes = (const unsigned char *)from->data + (size_t)index * inner;
    *out = (struct qd_tensor){.dtype = from->dtype, .shape = {.rank = from->shape.rank - 1}};
    for (int i = 0; i < out->shape.rank; i++)
        out->shape.dims[i] = from->shape.dims[i < axis ? i : i + 1];
    if (outer <= 1) {
        out->data = (void *)(uintptr_t)bytes;
        return true;
    }
    unsigned char *to = qd_arena_alloc_raw(s->run.work, outer * inner); /* less than `from` has */
    if (!to)
        return failed(s->lane, qd_fail(&s->lane->error, QD_ERR_NO_MEMORY, "no memory for the request"));
    for (size_t o = 0; o < outer; o++)
        memcpy(to + o * inner, bytes + o * n * inner, inner);
    out->data = to;
    return true;
}

/* Room for a result of that part, once: [length] put in at the axis, and [batch] before all. */
static bool open_stack(struct scan *s, struct stack *stack, enum qd_dtype dtype, const struct qd_shape *part, int axis,
                       int64_t length)
{
    struct qd_shape shape = *part;
    stack->part = *part;
    stack->axis = axis;
    stack->all = (struct qd_tensor){.dtype = dtype};
    if (length >= 0 && !qd_control_stack_shape(s->lane, s->step, part, axis, length, &shape))
        return false;
    stack->all.shape = shape;
    if (s->how->batched && !qd_control_stack_shape(s->lane, s->step, &shape, 0, s->batch, &stack->all.shape))
        return false;
    if (!qd_control_make(s->lane, s->step, (int)(stack - s->stacks), &stack->all))
        return false;
    if (s->how->batched && qd_tensor_bytes(&stack->all)) /* shorter rows end in zeros */
        memset(stack->all.data, 0, qd_tensor_bytes(&stack->all));
    return true;
}

/* Puts a part of iteration `index` of row `row` in its place. length -1: the part is the row. */
static bool put(struct scan *s, struct stack *stack, const struct qd_tensor *part, int64_t row, int64_t index,
                int64_t length)
{
    if (stack->all.dtype != part->dtype || !qd_shape_equal(&stack->part, &part->shape))
        return failed(s->lane,
                      qd_fail(&s->lane->error, QD_ERR_SHAPE, "%s node '%s': a result changes its type or shape",
                              s->step->node->op, s->step->node->name));
    size_t bytes = qd_tensor_bytes(part), n = length < 0 ? 1 : (size_t)length;
    size_t outer = (size_t)qd_shape_span(&part->shape, 0, stack->axis), inner = outer ? bytes / outer : 0;
    unsigned char *to = (unsigned char *)stack->all.data + (size_t)row * n * bytes + (size_t)index * inner;
    for (size_t o = 0; inner && o < outer; o++)
        memcpy(to + o * n * inner, (const unsigned char *)part->data + o * inner, inner);
    return true;
}

/* An axis of a tensor of that rank, negative ones counted from the end. */
static bool find_axis(struct scan *s, int64_t axis, int rank, int *out)
{
    if (axis < -rank || axis >= rank)
        return failed(s->lane,
                      qd_fail(&s->lane->error, QD_ERR_INVALID, "%s node '%s': axis %" PRId64 " of a tensor of rank %d",
                              s->step->node->op, s->step->node->name, axis, rank));
    *out = (int)(axis < 0 ? axis + rank : axis);
    return true;
}

/* All scanned inputs have the same length; with a batch, everything has the same first dimension. */
static bool measure(struct scan *s)
{
    int batched = s->how->batched;
    s->batch = 1;
    s->length = -1;
    for (int i = 0; i < s->how->states + s->how->inputs; i++) {
        const struct qd_tensor *in = &s->given[i];
        int scanned = i - s->how->states;
        if (batched && (in->shape.rank < 1 || (i > 0 && in->shape.dims[0] != s->batch)))
            return failed(s->lane, qd_fail(&s->lane->error, QD_ERR_SHAPE, "Scan node '%s': its inputs' batches differ",
                                           s->step->node->name));
        s->batch = batched ? in->shape.dims[0] : 1;
        if (scanned < 0)
            continue;
        if (!find_axis(s, s->how->in_axes[scanned], in->shape.rank - batched, &s->axes[scanned]))
            return false;
        int64_t length = in->shape.dims[s->axes[scanned] + batched];
        if (s->length >= 0 && length != s->length)
            return failed(s->lane, qd_fail(&s->lane->error, QD_ERR_SHAPE,
                                           "Scan node '%s': scanned inputs of %" PRId64 " and %" PRId64 " elements",
                                           s->step->node->name, s->length, length));
        s->length = length;
    }
    return true;
}

/* Length of one row's sequence. */
static bool row_length(struct scan *s, int64_t row, int64_t *length)
{
    *length = s->length;
    if (!s->how->batched || s->step->in[0] == QD_NO_VALUE)
        return true;
    const struct qd_tensor *lengths = &s->lane->slots[s->step->in[0]];
    bool fits = lengths->dtype == QD_I64 && qd_tensor_elems(lengths) == s->batch;
    *length = fits ? ((const int64_t *)lengths->data)[row] : -1;
    if (*length >= 0 && *length <= s->length)
        return true;
    return failed(s->lane, qd_fail(&s->lane->error, QD_ERR_INVALID,
                                   "Scan node '%s': sequence lengths must be one INT64 per row in 0..%" PRId64,
                                   s->step->node->name, s->length));
}

static bool iterate(struct scan *s, int64_t row, int64_t index, int64_t length)
{
    const struct qd_scan *how = s->how;
    struct qd_body_run *run = &s->run;
    qd_arena_reset(run->work);
    for (int i = 0; i < how->inputs; i++)
        if (!slice(s, &s->rows[i], s->axes[i], how->in_reverse[i] ? length - 1 - index : index,
                   &run->inputs[how->states + i]))
            return false;
    if (!qd_body_run(run))
        return false;
    for (int o = 0; o < how->outputs; o++) {
        const struct qd_tensor *part = qd_body_output(run, how->states + o);
        struct stack *stack = &s->stacks[how->states + o];
        int axis;
        if (stack->all.dtype == QD_NONE && (!find_axis(s, how->out_axes[o], part->shape.rank + 1, &axis) ||
                                            !open_stack(s, stack, part->dtype, &part->shape, axis, s->length)))
            return false;
        if (!put(s, stack, part, row, how->out_reverse[o] ? length - 1 - index : index, s->length))
            return false;
    }
    qd_body_turn(run);
    for (int i = 0; i < how->states; i++)
        if (!qd_body_carry(run, i, &run->inputs[i]))
            return false;
    run->turn ^= 1;
    return true;
}

static bool scan_row(struct scan *s, int64_t row)
{
    int64_t length;
    for (int i = 0; i < s->how->states + s->how->inputs; i++) {
        struct qd_tensor *to = i < s->how->states ? &s->run.inputs[i] : &s->rows[i - s->how->states];
        *to = s->given[i];
        if (s->how->batched && !slice(s, &s->given[i], 0, row, to))
            return false;
    }
    if (!row_length(s, row, &length))
        return false;
    for (int64_t i = 0; i < length; i++)
        if (!iterate(s, row, i, length))
            return false;
    for (int i = 0; i < s->how->states; i++) {
        const struct qd_tensor *last = &s->run.inputs[i];
        struct stack *stack = &s->stacks[i];
        if ((stack->all.dtype == QD_NONE && !open_stack(s, stack, last->dtype, &last->shape, 0, -1)) ||
            !put(s, stack, last, row, 0, -1))
            return false;
    }
    return true;
}

/* Results that no iteration has made: nothing was scanned. */
static bool open_unrun(struct scan *s)
{
    const struct qd_scan *how = s->how;
    for (int o = 0; o < how->states + how->outputs; o++) {
        struct stack *stack = &s->stacks[o];
        int axis = 0;
        if (stack->all.dtype != QD_NONE)
            continue;
        struct qd_tensor part = qd_body_unrun(&s->run, o);
        bool stacked = o >= how->states;
        if (stacked && !find_axis(s, how->out_axes[o - how->states], part.shape.rank + 1, &axis))
            return false;
        if (!open_stack(s, stack, part.dtype, &part.shape, axis, stacked ? s->length : -1))
            return false;
    }
    return true;
}

static bool open_scan(struct scan *s, struct qd_lane *lane, const struct qd_step *step)
{
    const struct qd_scan *how = step->control->scan;
    int first = how->batched, count = how->states + how->inputs;
    *s = (struct scan){.lane = lane, .step = step, .how = how};
    if (!qd_body_open(&s->run, lane, step, 0, true))
        return false;
    struct qd_tensor *given = qd_arena_alloc(lane->arena, (size_t)count, sizeof *given);
    s->given = given;
    s->rows = qd_arena_alloc(lane->arena, (size_t)how->inputs, sizeof *s->rows);
    s->axes = qd_arena_alloc(lane->arena, (size_t)how->inputs, sizeof *s->axes);
    s->stacks = qd_arena_alloc(lane->arena, (size_t)how->states + (size_t)how->outputs, sizeof *s->stacks);
    if (!given || !s->rows || !s->axes || !s->stacks)
        return failed(lane, qd_fail(&lane->error, QD_ERR_NO_MEMORY, "no memory for the request"));
    for (int i = 0; i < count; i++) {
        if (step->in[first + i] == QD_NO_VALUE)
            return failed(lane, qd_fail(&lane->error, QD_ERR_INVALID, "Scan node '%s': input %d is absent",
                                        step->node->name, first + i));
        given[i] = lane->slots[step->in[first + i]];
    }
    return measure(s);
}

void qd_scan_run(struct qd_lane *lane, const struct qd_step *step)
{
    struct scan s;
    bool sound = open_scan(&s, lane, step);
    for (int64_t row = 0; sound && row < s.batch; row++)
        sound = scan_row(&s, row);
    if (sound && open_unrun(&s))
        for (int o = 0; o < step->out_count; o++)
            qd_control_bind(lane, step, o, &s.stacks[o].all);
    qd_body_close(&s.run);
}
