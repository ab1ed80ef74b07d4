/* Shapes of what control flow gives out, as far as they follow from shapes: then the step is placed and planned like
 * any other. What can't be told before running is told while running (control_run.c). */
#include "engine/plan/control_run.h"

#include <string.h>

/* Types and shapes of a body's inputs. */
struct given {
    struct qd_shape *shapes;
    enum qd_dtype *dtypes;
};

static void set(struct given *given, int i, const struct qd_tensor *tensor)
{
    given->shapes[i] = tensor->shape;
    given->dtypes[i] = tensor->dtype;
}

static bool open_given(const struct qd_step *step, const struct qd_branch *branch, const struct qd_tensor *slots,
                       struct given *given)
{
    size_t count = (size_t)branch->plan->graph.input_count;
    *given = (struct given){qd_calloc(count, sizeof *given->shapes), qd_calloc(count, sizeof *given->dtypes)};
    for (size_t i = (size_t)branch->declared; given->shapes && given->dtypes && i < count; i++)
        set(given, (int)i, &slots[step->in[branch->source[i - (size_t)branch->declared]]]);
    return given->shapes && given->dtypes;
}

/* The body under these shapes; QD_ERR_NEEDS_DATA for whatever keeps it from being shaped, as it may never run. */
static enum qd_status shape_body(const struct qd_branch *branch, const struct given *given, struct qd_shaped **out)
{
    struct qd_error unheard;
    enum qd_status status = qd_plan_shape_typed(branch->plan, given->shapes, given->dtypes, out, &unheard);
    return status && status != QD_ERR_NO_MEMORY ? QD_ERR_NEEDS_DATA : status;
}

static const struct qd_tensor *output_of(const struct qd_branch *branch, const struct qd_shaped *shaped, int output)
{
    return &shaped->slots[branch->plan->output_slots[output]];
}

static bool same(const struct qd_tensor *a, const struct qd_tensor *b)
{
    return a->dtype == b->dtype && qd_shape_equal(&a->shape, &b->shape);
}

static void put(const struct qd_step *step, struct qd_tensor *slots, int output, enum qd_dtype dtype,
                const struct qd_shape *shape)
{
    if (step->out[output] == QD_NO_VALUE)
        return;
    slots[step->out[output]] = (struct qd_tensor){.dtype = dtype, .shape = *shape};
    qd_plan_place_empty(&slots[step->out[output]]);
}

/* Branches that can be taken: the one whose condition is known, or both, which must then agree. */
static enum qd_status infer_if(const struct qd_step *step, struct qd_tensor *slots)
{
    const struct qd_control *control = step->control;
    const struct qd_tensor *condition = &slots[step->in[0]];
    bool known = condition->dtype == QD_BOOL && condition->data && qd_tensor_elems(condition) == 1;
    int first = known && !*(const unsigned char *)condition->data, last = known ? first : control->branch_count - 1;
    enum qd_status status = QD_OK;
    for (int b = first; !status && b <= last; b++) {
        const struct qd_branch *branch = &control->branches[b];
        struct qd_shaped *shaped = NULL;
        struct given given;
        status = open_given(step, branch, slots, &given) ? shape_body(branch, &given, &shaped) : QD_ERR_NO_MEMORY;
        for (int o = 0; !status && o < step->out_count; o++) {
            const struct qd_tensor *out = output_of(branch, shaped, o);
            bool fits = out->dtype != QD_NONE && out->dtype != QD_STR &&
                        (b == first || step->out[o] == QD_NO_VALUE || same(out, &slots[step->out[o]]));
            if (fits)
                put(step, slots, o, out->dtype, &out->shape);
            else
                status = QD_ERR_NEEDS_DATA;
        }
        qd_shaped_unref(&shaped);
        qd_free(given.shapes);
        qd_free(given.dtypes);
    }
    return status;
}

/* Values that keep their shapes from one iteration to the next; `carried` of a body's outputs from `from` on. */
static bool keeps_shapes(const struct qd_branch *branch, const struct qd_shaped *shaped, const struct given *given,
                         int from, int inputs_from, int carried)
{
    for (int i = 0; i < carried; i++) {
        const struct qd_tensor *out = output_of(branch, shaped, from + i);
        if (out->dtype == QD_NONE || out->dtype == QD_STR || out->dtype != given->dtypes[inputs_from + i] ||
            !qd_shape_equal(&out->shape, &given->shapes[inputs_from + i]))
            return false;
    }
    return true;
}

void qd_loop_declare(const struct qd_branch *branch, int input, struct qd_tensor *tensor)
{
    const struct qd_graph *graph = &branch->plan->graph;
    if (graph->values[graph->inputs[input]].info.shape.rank == 1)
        tensor->shape = (struct qd_shape){.rank = 1, .dims = {1}};
}

/* A loop without results to be joined, whose values keep their shapes. */
static enum qd_status infer_loop(const struct qd_step *step, struct qd_tensor *slots, const struct qd_branch *branch,
                                 struct given *given)
{
    int carried = step->control->own_inputs - 2;
    struct qd_tensor own[2] = {{.dtype = QD_I64}, {.dtype = QD_BOOL}};
    struct qd_shaped *shaped = NULL;
    for (int i = 0; i < 2; i++) {
        qd_loop_declare(branch, i, &own[i]);
        set(given, i, &own[i]);
    }
    for (int i = 0; i < carried; i++) {
        if (step->in[2 + i] == QD_NO_VALUE)
            return QD_ERR_NEEDS_DATA;
        set(given, 2 + i, &slots[step->in[2 + i]]);
    }
    enum qd_status status = shape_body(branch, given, &shaped);
    if (!status && (step->out_count > carried || !keeps_shapes(branch, shaped, given, 1, 2, carried)))
        status = QD_ERR_NEEDS_DATA;
    for (int i = 0; !status && i < step->out_count; i++)
        put(step, slots, i, given->dtypes[2 + i], &given->shapes[2 + i]);
    qd_shaped_unref(&shaped);
    return status;
}

/* Index of an axis, or -1. */
static int axis_of(int64_t axis, int rank)
{
    return axis < -rank || axis >= rank ? -1 : (int)(axis < 0 ? axis + rank : axis);
}

/* The slices that a scan's body gets; -1: they don't fit together. */
static int64_t give_slices(const struct qd_step *step, const struct qd_tensor *slots, struct given *given)
{
    const struct qd_scan *scan = step->control->scan;
    int64_t length = -1;
    for (int i = 0; i < scan->states + scan->inputs; i++) {
        if (step->in[i] == QD_NO_VALUE)
            return -1;
        set(given, i, &slots[step->in[i]]);
        if (i < scan->states)
            continue;
        struct qd_shape *shape = &given->shapes[i];
        int axis = axis_of(scan->in_axes[i - scan->states], shape->rank);
        if (axis < 0 || (length >= 0 && shape->dims[axis] != length))
            return -1;
        length = shape->dims[axis];
        shape->rank--;
        memmove(shape->dims + axis, shape->dims + axis + 1, (size_t)(shape->rank - axis) * sizeof shape->dims[0]);
    }
    return length;
}

static enum qd_status infer_scan(const struct qd_step *step, struct qd_tensor *slots, const struct qd_branch *branch,
                                 struct given *given)
{
    const struct qd_scan *scan = step->control->scan;
    struct qd_shaped *shaped = NULL;
    int64_t length = scan->batched ? -1 : give_slices(step, slots, given);
    enum qd_status status = length < 0 ? QD_ERR_NEEDS_DATA : shape_body(branch, given, &shaped);
    if (!status && !keeps_shapes(branch, shaped, given, 0, 0, scan->states))
        status = QD_ERR_NEEDS_DATA;
    for (int o = 0; !status && o < step->out_count; o++) {
        const struct qd_tensor *out = output_of(branch, shaped, o);
        struct qd_shape shape = out->shape;
        int axis = o < scan->states ? 0 : axis_of(scan->out_axes[o - scan->states], shape.rank + 1);
        if (out->dtype == QD_NONE || out->dtype == QD_STR || axis < 0 || shape.rank == QD_MAX_RANK)
            status = QD_ERR_NEEDS_DATA;
        else if (o >= scan->states) {
            memmove(shape.dims + axis + 1, shape.dims + axis, (size_t)(shape.rank - axis) * sizeof shape.dims[0]);
            shape.dims[axis] = length;
            shape.rank++;
        }
        if (!status)
            put(step, slots, o, out->dtype, &shape);
    }
    qd_shaped_unref(&shaped);
    return status;
}

enum qd_status qd_control_infer(const struct qd_step *step, struct qd_tensor *slots, struct qd_error *error)
{
    const struct qd_branch *branch = &step->control->branches[0];
    struct given given = {NULL, NULL};
    enum qd_status status = QD_OK;
    if (step->control->kind == QD_CONTROL_IF)
        status = infer_if(step, slots);
    else if (!open_given(step, branch, slots, &given))
        status = QD_ERR_NO_MEMORY;
    else if (step->control->kind == QD_CONTROL_LOOP)
        status = infer_loop(step, slots, branch, &given);
    else
        status = infer_scan(step, slots, branch, &given);
    qd_free(given.shapes);
    qd_free(given.dtypes);
    int64_t elems, bytes;
    for (int o = 0; !status && o < step->out_count; o++)
        if (step->out[o] != QD_NO_VALUE &&
            !(qd_shape_elems(&slots[step->out[o]].shape, &elems) && qd_i64_mul(elems, 8, &bytes)))
            return qd_fail(error, QD_ERR_TOO_LARGE, "node '%s' would make a tensor too large to address",
                           step->node->name);
    return status == QD_ERR_NO_MEMORY ? qd_fail(error, status, "no memory for a plan of these shapes") : status;
}
