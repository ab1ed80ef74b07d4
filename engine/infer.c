/* Requests: inputs checked against the signature, run under one plan and one epoch, observations folded afterwards. */
#include "engine/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Largest input accepted, in bytes: a bound for arithmetic, far above any body limit. */
#define MAX_INPUT_BYTES ((int64_t)1 << 36)

struct qd_infer_options qd_infer_defaults(void)
{
    return (struct qd_infer_options){.epoch = 0, .precision = QD_PRECISION_AUTO, .observe = true};
}

static enum qd_status borrow_epoch(struct qd_infer *infer, uint64_t id, struct qd_error *error)
{
    struct qd_model *model = infer->model;
    struct qd_epoch *now = qd_learner_current(model->learner), *epoch = id ? qd_learner_find(model->learner, id) : now;
    struct qd_plan *plan = model->plan;
    for (int i = 0; !epoch && i < QD_GENERATIONS_KEPT && model->older[i].plan; i++) {
        epoch = qd_learner_find(model->older[i].learner, id);
        plan = model->older[i].plan;
    }
    if (!epoch)
        return qd_fail(error, QD_ERR_CONFLICT, "epoch %" PRIu64 " is not kept; the current one is %" PRIu64, id,
                       now->id);
    qd_epoch_unref(&infer->epoch);
    qd_plan_unref(&infer->base);
    infer->epoch = qd_epoch_ref(epoch);
    infer->base = qd_plan_ref(plan);
    infer->guard = model->options.guard;
    infer->guard_tolerance = model->options.guard_tolerance;
    infer->averages = qd_means_wanted(model);
    infer->averaging.number = qd_learner_requests(model->learner) * 7919; /* any rows, but the same in every run */
    return QD_OK;
}

enum qd_status qd_infer_set_options(struct qd_infer *infer, const struct qd_infer_options *options,
                                    struct qd_error *error)
{
    if (infer->prepared)
        return qd_fail(error, QD_ERR_INVALID, "options come before the request is prepared");
    if (options->precision == QD_INT16 || options->precision == QD_FAKE)
        return qd_fail(error, QD_ERR_UNSUPPORTED,
                       "a request can't ask for precision '%s': the model, or its layers, can have it",
                       qd_precision_name(options->precision));
    enum qd_status status = borrow_epoch(infer, options->epoch, error);
    if (!status)
        infer->options = *options;
    return status;
}

enum qd_status qd_infer_create(struct qd_model *model, const struct qd_infer_options *options, struct qd_infer **out,
                               struct qd_error *error)
{
    struct qd_infer *infer = qd_calloc(1, sizeof *infer);
    if (!infer)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the request");
    infer->model = qd_model_ref(model);
    enum qd_status status = qd_arena_create(8 << 10, &infer->arena);
    if (!status) {
        infer->inputs = qd_arena_alloc(infer->arena, qd_model_input_count(model), sizeof *infer->inputs);
        status = infer->inputs ? QD_OK : QD_ERR_NO_MEMORY;
    }
    if (status)
        status = qd_fail(error, status, "no memory for the request");
    else
        status = qd_infer_set_options(infer, options, error);
    if (status)
        qd_infer_destroy(&infer);
    else
        *out = infer;
    return status;
}

/* One element may be given as [1] (or [1, 1]...) where the model wants a scalar, as peers allow: it becomes the scalar.
 */
static struct qd_shape as_declared(const struct qd_infer *infer, size_t input, const struct qd_shape *shape)
{
    bool scalar = input < qd_model_input_count(infer->model) && qd_model_input(infer->model, input)->shape.rank == 0;
    for (int i = 0; i < shape->rank; i++)
        scalar = scalar && shape->dims[i] == 1;
    return scalar ? (struct qd_shape){.rank = 0} : *shape;
}

/* "[batch, 3, ?]": the signature's shape, by names where it has them. */
static const char *declared_text(const struct qd_io *io, char *text, size_t room)
{
    size_t used = 0;
    for (int i = 0; i < io->shape.rank && used < room; i++) {
        int64_t dim = io->shape.dims[i];
        int n = dim >= 0 ? snprintf(text + used, room - used, "%s%" PRId64, i ? ", " : "[", dim)
                         : snprintf(text + used, room - used, "%s%.40s", i ? ", " : "[",
                                    io->dim_names[i] ? io->dim_names[i] : "?");
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < room)
        snprintf(text + used, room - used, io->shape.rank ? "]" : "[]");
    return text;
}

static enum qd_status check_input(const struct qd_infer *infer, size_t input, enum qd_dtype dtype,
                                  const struct qd_shape *shape, struct qd_error *error)
{
    char got[160], want[QD_MAX_RANK * 48];
    int64_t elems;
    if (input >= qd_model_input_count(infer->model))
        return qd_fail(error, QD_ERR_INVALID, "the model has no input %zu", input);
    const struct qd_io *io = qd_model_input(infer->model, input);
    if (infer->inputs[input].dtype != QD_NONE)
        return qd_fail(error, QD_ERR_INVALID, "input '%s' is given twice", io->name);
    if (dtype != io->dtype)
        return qd_fail(error, QD_ERR_TYPE, "input '%s' has datatype %s, the model wants %s", io->name,
                       qd_dtype_name(dtype), qd_dtype_name(io->dtype));
    bool fits = shape->rank == io->shape.rank;
    for (int i = 0; fits && i < shape->rank; i++)
        fits = shape->dims[i] >= 0 && (io->shape.dims[i] < 0 || io->shape.dims[i] == shape->dims[i]);
    if (!fits)
        return qd_fail(error, QD_ERR_SHAPE, "input '%s' has shape %s, the model wants %s", io->name,
                       qd_shape_text(shape, got, sizeof got), declared_text(io, want, sizeof want));
    if (!qd_shape_elems(shape, &elems) || elems > MAX_INPUT_BYTES / 8)
        return qd_fail(error, QD_ERR_TOO_LARGE, "input '%s' has shape %s: too large", io->name,
                       qd_shape_text(shape, got, sizeof got));
    return QD_OK;
}

enum qd_status qd_infer_input_alloc(struct qd_infer *infer, size_t input, enum qd_dtype dtype,
                                    const struct qd_shape *shape, void **data, struct qd_error *error)
{
    struct qd_tensor tensor = {.dtype = dtype, .shape = as_declared(infer, input, shape)};
    enum qd_status status = check_input(infer, input, dtype, &tensor.shape, error);
    if (status)
        return status;
    tensor.data = qd_arena_alloc_raw(infer->arena, qd_tensor_bytes(&tensor));
    if (!tensor.data)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for input '%s'", qd_model_input(infer->model, input)->name);
    if (dtype == QD_STR && qd_tensor_bytes(&tensor))
        memset(tensor.data, 0, qd_tensor_bytes(&tensor)); /* empty, until the caller says what they are */
    infer->inputs[input] = tensor;
    *data = tensor.data;
    return QD_OK;
}

void *qd_infer_take(struct qd_infer *infer, size_t bytes) { return qd_arena_alloc_raw(infer->arena, bytes); }

enum qd_status qd_infer_input_borrow(struct qd_infer *infer, size_t input, const struct qd_tensor *tensor,
                                     struct qd_error *error)
{
    struct qd_shape shape = as_declared(infer, input, &tensor->shape);
    enum qd_status status = check_input(infer, input, tensor->dtype, &shape, error);
    if (!status) {
        infer->inputs[input] = *tensor;
        infer->inputs[input].shape = shape;
    }
    return status;
}

/* Dimensions that share a name share a size. */
static enum qd_status check_names(const struct qd_infer *infer, struct qd_error *error)
{
    size_t count = qd_model_input_count(infer->model);
    for (size_t a = 0; a < count; a++)
        for (int i = 0; i < infer->inputs[a].shape.rank; i++) {
            const char *name = qd_model_input(infer->model, a)->dim_names[i];
            for (size_t b = 0; name && b <= a; b++)
                for (int j = 0; j < infer->inputs[b].shape.rank; j++) {
                    const char *other = qd_model_input(infer->model, b)->dim_names[j];
                    int64_t x = infer->inputs[a].shape.dims[i], y = infer->inputs[b].shape.dims[j];
                    if (other && x != y && infer->inputs[b].dtype != QD_NONE && strcmp(name, other) == 0)
                        return qd_fail(error, QD_ERR_SHAPE,
                                       "dimension '%s' is %" PRId64 " in input '%s' and %" PRId64 " in input '%s'",
                                       name, x, qd_model_input(infer->model, a)->name, y,
                                       qd_model_input(infer->model, b)->name);
                }
        }
    return QD_OK;
}

static enum qd_status choose_plan(struct qd_infer *infer, struct qd_error *error)
{
    qd_plan_unref(&infer->plan); /* of an attempt that failed */
    if ((infer->options.precision == QD_FP32 || infer->calibration) && !infer->base->options.fp32)
        return qd_model_plan_fp32(infer->model, &infer->plan, error);
    infer->plan = qd_plan_ref(infer->base);
    return QD_OK;
}

static enum qd_guard guard_of(const struct qd_infer *infer)
{
    return infer->options.has_guard ? infer->options.guard : infer->guard;
}

static bool escalates(const struct qd_infer *infer, int site)
{
    const int rule = infer->options.has_guard ? -1 : infer->plan->sites[site].guard;
    return rule < 0 ? guard_of(infer) == QD_GUARD_ESCALATE : rule == QD_GUARDED_ESCALATE;
}

/* Under the guard `escalate` a request can end in full precision: what that needs is made now, while it may fail. */
static enum qd_status prepare_twin(struct qd_infer *infer, const struct qd_shape *shapes, struct qd_error *error)
{
    int site = 0;
    qd_shaped_unref(&infer->twin_shaped); /* of an attempt that failed */
    qd_plan_unref(&infer->twin_plan);
    while (site < infer->plan->site_count && !escalates(infer, site))
        site++;
    if (site == infer->plan->site_count)
        return QD_OK;
    enum qd_status status = qd_model_plan_fp32(infer->model, &infer->twin_plan, error);
    return status ? status : qd_plan_shape(infer->twin_plan, shapes, &infer->twin_shaped, error);
}

enum qd_status qd_infer_prepare(struct qd_infer *infer, struct qd_error *error)
{
    size_t count = qd_model_input_count(infer->model);
    if (infer->prepared)
        return qd_fail(error, QD_ERR_INVALID, "the request is prepared already");
    struct qd_shape *shapes = qd_arena_alloc(infer->arena, count, sizeof *shapes);
    if (!shapes)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the request");
    for (size_t i = 0; i < count; i++) {
        const struct qd_io *io = qd_model_input(infer->model, i);
        if (infer->inputs[i].dtype == QD_NONE && !io->optional)
            return qd_fail(error, QD_ERR_INVALID, "input '%s' is missing", io->name);
        shapes[i] = infer->inputs[i].dtype == QD_NONE ? io->shape : infer->inputs[i].shape;
    }
    enum qd_status status = check_names(infer, error);
    if (!status)
        status = choose_plan(infer, error);
    qd_shaped_unref(&infer->shaped);
    if (!status && infer->calibration)
        status = qd_calibration_tap(infer, error);
    if (!status)
        status = qd_plan_shape(infer->plan, shapes, &infer->shaped, error);
    if (!status)
        status = prepare_twin(infer, shapes, error);
    if (status)
        return status;
    static const enum qd_guard_action actions[] = {
        [QD_GUARD_WIDEN] = QD_GUARDED_WIDEN,
        [QD_GUARD_CLIP] = QD_GUARDED_CLIP,
        [QD_GUARD_REJECT] = QD_GUARDED_REJECT,
        [QD_GUARD_ESCALATE] = QD_GUARDED_ESCALATE,
    };
    qd_lane_release(&infer->lane); /* of an attempt that failed */
    infer->lane = (struct qd_lane){
        .plan = infer->plan,
        .shaped = infer->shaped,
        .epoch = infer->epoch,
        .rules = {actions[guard_of(infer)], infer->guard_tolerance, infer->options.has_guard,
                  infer->options.own_ranges},
        .tap = infer->calibration ? &infer->tap : NULL,
        .arena = infer->arena,
    };
    status = qd_lane_bind(&infer->lane, infer->inputs, error);
    infer->prepared = !status;
    if (!status && infer->averages && infer->options.observe && infer->plan == infer->base)
        qd_averaging_begin(&infer->averaging, &infer->lane);
    return status;
}

void qd_infer_set_deadline(struct qd_infer *infer, uint64_t deadline_ns) { infer->deadline_ns = deadline_ns; }

static bool was_guarded(const struct qd_infer *infer)
{
    for (int i = 0; i < infer->plan->site_count; i++)
        if (infer->lane.guarded[i] && escalates(infer, i))
            return true;
    return false;
}

/* Once more in full precision, when the guard says so; the integer run has given its observations, and gives its memory
 * back first. */
static void escalate(struct qd_infer *infer)
{
    if (!infer->twin_plan || infer->lane.status || !was_guarded(infer))
        return;
    struct qd_lane *twin = &infer->twin;
    infer->escalated = true;
    qd_lane_release(&infer->lane);
    *twin = (struct qd_lane){.plan = infer->twin_plan, .shaped = infer->twin_shaped, .arena = infer->arena};
    enum qd_status status = qd_lane_bind(twin, infer->inputs, &twin->error);
    twin->status = status;
    twin->deadline_ns = infer->deadline_ns;
    if (!status)
        qd_exec_run(&twin, 1);
}

void qd_infer_run(struct qd_infer *const *lanes, size_t count)
{
    struct qd_lane *group[64];
    for (size_t i = 0; i < count; i++) {
        if (lanes[i]->ran || !lanes[i]->prepared)
            continue;
        size_t n = 0;
        for (size_t j = i; j < count && n < sizeof group / sizeof group[0]; j++)
            if (lanes[j]->prepared && !lanes[j]->ran && lanes[j]->plan == lanes[i]->plan) {
                lanes[j]->lane.deadline_ns = lanes[j]->deadline_ns;
                group[n++] = &lanes[j]->lane;
                lanes[j]->ran = true;
            }
        qd_exec_run(group, n);
    }
    for (size_t i = 0; i < count; i++)
        if (lanes[i]->ran && !lanes[i]->escalated)
            escalate(lanes[i]);
}

/* The lane that answers. */
static const struct qd_lane *answer_of(const struct qd_infer *infer)
{
    return infer->escalated ? &infer->twin : &infer->lane;
}

enum qd_status qd_infer_status(const struct qd_infer *infer, struct qd_error *error)
{
    if (!infer->ran)
        return qd_fail(error, QD_ERR_INVALID, "the request has not run");
    const struct qd_lane *lane = answer_of(infer);
    if (lane->status && error)
        *error = lane->error;
    return lane->status;
}

static int64_t unix_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void qd_infer_finish(struct qd_infer *infer)
{
    struct qd_model *model = infer->model;
    if (!infer->ran || infer->finished)
        return;
    infer->finished = true;
    if (infer->calibration)
        qd_calibration_fold(infer);
    bool learns = infer->options.observe && answer_of(infer)->status == QD_OK && infer->plan == model->plan;
    if (!learns) {
        qd_learner_skip(model->learner, infer->plan == model->plan ? infer->lane.guarded : NULL);
        return;
    }
    if (infer->averaging.mean)
        qd_means_fold(model, &infer->averaging, infer->lane.observations);
    qd_learner_fold(model->learner, infer->lane.observations, infer->lane.guarded, unix_ms());
    memcpy(model->utilization, infer->lane.utilization, (size_t)model->plan->site_count * sizeof *model->utilization);
}

const struct qd_tensor *qd_infer_output(const struct qd_infer *infer, size_t output)
{
    const struct qd_lane *lane = answer_of(infer);
    return &lane->slots[lane->plan->output_slots[output]];
}

void qd_infer_report(const struct qd_infer *infer, struct qd_infer_report *out)
{
    *out = (struct qd_infer_report){.epoch = infer->epoch->id, .plan = infer->plan->digest, .precision = QD_FP32};
    for (int i = 0; infer->ran && i < infer->plan->site_count; i++) {
        out->guarded += infer->lane.guarded[i];
        out->nonfinite += infer->lane.observations[i].nonfinite;
    }
    for (int i = 0; i < infer->plan->step_count && !infer->escalated; i++)
        if (infer->plan->steps[i].fake)
            out->precision = out->precision == QD_FP32 ? QD_FAKE : out->precision;
        else if (infer->plan->steps[i].int8)
            out->precision = QD_INT8;
        else if (infer->plan->steps[i].int16 && out->precision != QD_INT8)
            out->precision = QD_INT16;
}

void qd_infer_destroy(struct qd_infer **infer)
{
    struct qd_infer *r = *infer;
    *infer = NULL;
    if (!r)
        return;
    qd_lane_release(&r->lane);
    qd_lane_release(&r->twin);
    qd_shaped_unref(&r->twin_shaped);
    qd_plan_unref(&r->twin_plan);
    qd_calibration_unref(&r->calibration);
    qd_shaped_unref(&r->shaped);
    qd_plan_unref(&r->plan);
    qd_plan_unref(&r->base);
    qd_epoch_unref(&r->epoch);
    qd_arena_destroy(&r->arena);
    qd_model_unref(&r->model);
    qd_free(r);
}
