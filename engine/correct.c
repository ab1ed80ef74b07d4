/* Bias correction. See correct.h. */
#include "engine/model.h"
#include "engine/plan/place.h"

#include <math.h>
#include <string.h>

#define ROWS_READ   256  /* of an input, evenly spread: enough for an average over requests */
#define ALL_AT      64   /* this many requests are all averaged, of those after it a 16th */
#define SAMPLES     32   /* rows that are kept, one of a request; then their columns are known */
#define FIRST_AT    16   /* biases are made after so many averaged requests, ... */
#define LOOK_AGAIN  4    /* ... again after so many times as many ... */
#define LOOK_MOST   256  /* ... and then, every so many, when ... */
#define TRIED_FIRST 16   /* measured requests after which biases that harm are undone, ... */
#define TRIED_MOST  64   /* ... and looked at once more */
#define MOVED       0.25 /* ... a layer's averages have moved by so much of their length */

/* What one layer's input is like. */
struct layer_means {
    /* Channels of the input; taps of the window: the shares of them that padding leaves; where it can be smoothed,
     * largest magnitude and square of each column, as they are before that. */
    size_t size;
    bool asleep; /* the layer isn't in INT8 now: kept for when it is again */
    uint64_t n;  /* requests folded */
    float *mean; /* [size] NULL: not an INT8 layer, or not seen yet */
    float
        *samples; /* [samples_kept][columns] rows of requests, before smoothing; NULL: not of a step that reads rows */
    int samples_kept;
    float *used; /* [size] what the bias in force was made of; NULL: none */
};

struct qd_means {
    uint64_t requests, next, made;
    struct {
        uint64_t compared;
        double with, without; /* sums */
        bool harms, undone;
    } trial; /* of the biases in force */
    size_t count;
    struct layer_means layers[]; /* by step of the plan */
};

struct qd_means *qd_means_create(const struct qd_plan *plan)
{
    struct qd_means *means = qd_calloc(1, sizeof *means + (size_t)plan->step_count * sizeof means->layers[0]);
    if (means) {
        means->count = (size_t)plan->step_count;
        means->next = FIRST_AT;
    }
    return means;
}

static void forget(struct layer_means *layer)
{
    qd_free(layer->mean);
    qd_free(layer->used);
    qd_free(layer->samples);
    *layer = (struct layer_means){.size = 0};
}

void qd_means_reset(struct qd_means *means)
{
    for (size_t i = 0; i < means->count; i++)
        forget(&means->layers[i]);
    means->requests = 0;
    means->next = FIRST_AT;
    memset(&means->trial, 0, sizeof means->trial);
}

void qd_means_destroy(struct qd_means **means)
{
    if (*means)
        qd_means_reset(*means);
    qd_free(*means);
    *means = NULL;
}

static bool is_corrected(const struct qd_plan *plan, const struct qd_step *step)
{
    if (step->kind != QD_STEP_LINEAR || !step->int8)
        return false;
    const enum qd_form form = plan->slots[step->in[0]].form;
    return form == QD_FORM_Q8 || form == QD_FORM_Q8_CL || form == QD_FORM_Q8_ROWS;
}

static bool has_columns(const struct qd_step *step)
{
    return qd_step_rows(step) != QD_NO_VALUE || qd_linear_is_depthwise(step->linear);
}

static size_t size_of(const struct qd_step *step)
{
    const size_t columns = has_columns(step) ? 2 * qd_linear_inputs(step->linear) : 0;
    return qd_linear_inputs(step->linear) + qd_linear_taps(step->linear) + columns;
}

/* Means of columns as another plan smooths them. */
static void rescale(float *mean, const float *old, const float *now, const struct qd_linear *linear)
{
    for (size_t c = 0; (old || now) && c < qd_linear_inputs(linear); c++)
        mean[c] *= (old ? old[c] : 1) / (now ? now[c] : 1);
}

void qd_means_continue(struct qd_means *means, const struct qd_plan *plan, struct qd_means *old,
                       const struct qd_plan *old_plan)
{
    means->requests = old->requests;
    means->made = old->made;
    means->next = old->requests > FIRST_AT ? old->requests : FIRST_AT; /* the new plan's biases are its own */
    for (int i = 0; i < plan->step_count; i++)
        for (int j = 0; plan->steps[i].kind == QD_STEP_LINEAR && j < old_plan->step_count; j++) {
            struct layer_means *from = &old->layers[j];
            const bool asleep = !is_corrected(plan, &plan->steps[i]);
            if (!from->mean || (!asleep && from->size != size_of(&plan->steps[i])) ||
                strcmp(old_plan->steps[j].node->name, plan->steps[i].node->name) != 0)
                continue;
            means->layers[i] = (struct layer_means){
                .size = from->size, .asleep = asleep, .n = from->n, .mean = from->mean};
            from->mean = NULL;
            rescale(means->layers[i].mean, old_plan->steps[j].columns, plan->steps[i].columns, plan->steps[i].linear);
            break;
        }
}

/* ------------------------------------------------------------------ averaging [worker], [loop] */

/* One layer's input as bytes, of one scale or, with `scales`, of one a row; of `rows` rows so many are read. */
struct rows_seen {
    const struct qd_kernels *kernels;
    const uint8_t *bytes;
    size_t rows, taken, channels;
    const struct qd_qparams *qp;
    const struct qd_row_scale *scales;
    const float *smoothed; /* s of each column, or NULL */
    float *row;            /* [channels] room */
};

/* Row r of those that are read, in real values. */
static void read_row(const struct rows_seen *seen, size_t r)
{
    const size_t at = r * seen->rows / seen->taken;
    struct qd_qparams qp = *seen->qp;
    if (seen->scales) {
        qp.scale = seen->scales[at].scale;
        qp.zero_point = seen->scales[at].zero_point;
    }
    seen->kernels->dequantize_u8(seen->bytes + at * seen->channels, seen->channels, &qp, seen->row);
}

static void apply(const struct rows_seen *seen, enum qd_pw op, const float *a, const float *b, float p, float *out)
{
    seen->kernels->pointwise[op].run(a, b, p, 0.0f, out, seen->channels);
}

/* The means by channel. */
static void average(const struct rows_seen *seen, float *mean)
{
    memset(mean, 0, seen->channels * sizeof *mean);
    for (size_t r = 0; r < seen->taken; r++) {
        read_row(seen, r);
        apply(seen, QD_PW_MUL_P, seen->row, NULL, 1.0f / (float)seen->taken, seen->row);
        apply(seen, QD_PW_ADD, mean, seen->row, 0.0f, mean);
    }
}

/* Of the same rows, before smoothing: largest magnitudes and mean squares by column. */
static void look_at_columns(const struct rows_seen *seen, float *largest)
{
    float *row = seen->row, *square = largest + seen->channels;
    for (size_t r = 0; r < seen->taken; r++) {
        read_row(seen, r);
        if (seen->smoothed)
            apply(seen, QD_PW_MUL, row, seen->smoothed, 0.0f, row);
        apply(seen, QD_PW_ABS, row, NULL, 0.0f, row);
        apply(seen, QD_PW_MAX, largest, row, 0.0f, largest);
        apply(seen, QD_PW_SQUARE, row, NULL, 0.0f, row);
        apply(seen, QD_PW_MUL_P, row, NULL, 1.0f / (float)seen->taken, row);
        apply(seen, QD_PW_ADD, square, row, 0.0f, square);
    }
}

/* A row as it was before smoothing; NULL: out of memory. */
static float *take_sample(const struct qd_lane *lane, const struct qd_step *step, size_t row, size_t columns)
{
    const uint8_t *bytes = (const uint8_t *)lane->slots[step->in[0]].data + row * columns;
    const struct qd_row_scale scale = ((const struct qd_row_scale *)lane->slots[qd_step_rows(step)].data)[row];
    float *sample = qd_arena_alloc(lane->arena, columns, sizeof *sample);
    for (size_t c = 0; sample && c < columns; c++)
        sample[c] = scale.scale * (float)(bytes[c] - scale.zero_point) * (step->columns ? step->columns[c] : 1);
    return sample;
}

static void keep_sample(struct layer_means *layer, const float *sample, size_t columns)
{
    if (!layer->samples)
        layer->samples = qd_calloc(SAMPLES * columns, sizeof *sample);
    if (!layer->samples || layer->samples_kept == SAMPLES)
        return;
    memcpy(layer->samples + (size_t)layer->samples_kept * columns, sample, columns * sizeof *sample);
    layer->samples_kept++;
}

static void look(struct qd_probe *probe, const struct qd_lane *lane, const struct qd_step *step)
{
    struct qd_averaging *mine = (struct qd_averaging *)probe;
    if (!is_corrected(lane->plan, step))
        return;
    const struct qd_tensor *in = &lane->slots[step->in[0]];
    const int scales = qd_step_rows(step);
    const size_t channels = qd_linear_inputs(step->linear), rows = (size_t)qd_tensor_elems(in) / channels;
    const struct rows_seen seen = {.kernels = lane->plan->kernels,
                                   .bytes = in->data,
                                   .rows = rows,
                                   .taken = rows < ROWS_READ ? rows : ROWS_READ,
                                   .channels = channels,
                                   .qp = &lane->qparams[lane->plan->slots[step->in[0]].site],
                                   .scales = scales == QD_NO_VALUE ? NULL : lane->slots[scales].data,
                                   .smoothed = step->columns,
                                   .row = qd_arena_alloc(lane->arena, channels, sizeof(float))};
    float *mean = rows && seen.row ? qd_arena_alloc(lane->arena, size_of(step), sizeof *mean) : NULL;
    if (mean) {
        average(&seen, mean);
        qd_linear_tap_shares(step->linear, &in->shape, mean + channels);
        struct rows_seen all = seen;
        if (scales == QD_NO_VALUE) /* of channels the largest counts, which few pixels have */
            all.taken = rows;
        if (has_columns(step))
            look_at_columns(&all, mean + channels + qd_linear_taps(step->linear));
    }
    mine->mean[step - lane->plan->steps] = mean;
    mine->sample[step - lane->plan->steps] = mean && scales != QD_NO_VALUE
                                                 ? take_sample(lane, step, mine->number % rows, channels)
                                                 : NULL;
}

bool qd_means_enough(const struct qd_means *means, bool rows) { return means->requests >= (rows ? SAMPLES : FIRST_AT); }

bool qd_means_columns(const struct qd_means *means, const struct qd_plan *plan, int step, struct qd_columns_seen *out)
{
    const struct layer_means *layer = &means->layers[step];
    if (!layer->mean || !has_columns(&plan->steps[step]) ||
        (qd_step_rows(&plan->steps[step]) != QD_NO_VALUE && layer->samples_kept < SAMPLES / 4))
        return false;
    const struct qd_linear *linear = plan->steps[step].linear;
    const size_t columns = qd_linear_inputs(linear);
    const float *largest = layer->mean + columns + qd_linear_taps(linear);
    *out = (struct qd_columns_seen){largest, largest + columns, layer->samples, layer->samples_kept};
    return true;
}

/* A 16th of the numbers, 13, 21 or 34 apart: with every 16th, traffic that repeats itself would show one request only.
 */
static bool is_in_share(uint64_t number) { return number * 0x9E3779B97F4A7C15u >> 60 == 0; }

bool qd_means_wanted(const struct qd_model *model)
{
    const uint64_t served = qd_learner_requests(model->learner);
    return (model->options.bias_correction || model->options.smoothing) && !qd_learner_frozen(model->learner) &&
           (model->means->requests < ALL_AT || is_in_share(served));
}

void qd_averaging_begin(struct qd_averaging *averaging, struct qd_lane *lane)
{
    const size_t steps = (size_t)lane->plan->step_count;
    averaging->probe.look = look;
    averaging->sample = qd_arena_alloc(lane->arena, steps, sizeof *averaging->sample);
    averaging->mean = averaging->sample ? qd_arena_alloc(lane->arena, steps, sizeof *averaging->mean) : NULL;
    lane->probe = averaging->mean ? &averaging->probe : NULL;
}

/* Means are not winsorised as ranges are: a request far from what a tensor's range has learned is left out. */
static bool is_foreign(const struct qd_learner *learner, const struct qd_observation *seen, size_t sites)
{
    for (size_t i = 0; i < sites; i++) {
        const struct qd_range *range = qd_learner_range(learner, i);
        const double width = range->hi - range->lo;
        if (seen[i].nonfinite || (range->n > 0 && seen[i].elems > 0 &&
                                  ((double)seen[i].min < range->lo - width || (double)seen[i].max > range->hi + width)))
            return true;
    }
    return false;
}

void qd_means_fold(struct qd_model *model, const struct qd_averaging *averaging, const struct qd_observation *seen)
{
    struct qd_means *means = model->means;
    if (is_foreign(model->learner, seen, (size_t)model->plan->site_count))
        return;
    means->requests++;
    for (size_t i = 0; i < means->count; i++) {
        struct layer_means *layer = &means->layers[i];
        const float *mine = averaging->mean[i];
        if (!mine)
            continue;
        layer->size = size_of(&model->plan->steps[i]);
        if (!layer->mean)
            layer->mean = qd_calloc(layer->size, sizeof *layer->mean);
        const double c = model->options.averaging_constant, first = 1 / (double)(layer->n + 1),
                     weight = c > first ? c : first;
        for (size_t k = 0; layer->mean && k < layer->size; k++)
            layer->mean[k] += (float)(weight * ((double)mine[k] - (double)layer->mean[k]));
        layer->n += layer->mean != NULL;
        if (averaging->sample[i])
            keep_sample(layer, averaging->sample[i], qd_linear_inputs(model->plan->steps[i].linear));
    }
}

/* ------------------------------------------------------------------ correcting */

struct qd_correction {
    struct qd_model *model; /* references, as the next */
    struct qd_plan *plan;
    struct qd_biases *biases;
    float **mean; /* [step_count] copies */
    bool made;
};

/* A layer that comes to INT8 later has seen little at first: its means would be those of one request. */
static bool is_known(const struct layer_means *layer) { return layer->mean && !layer->asleep && layer->n >= FIRST_AT; }

static bool has_moved(const struct layer_means *layer)
{
    double length = 0, way = 0;
    if (!is_known(layer) || !layer->used)
        return is_known(layer);
    for (size_t k = 0; k < layer->size; k++) {
        const double was = (double)layer->used[k], is = (double)layer->mean[k];
        length += was * was;
        way += (is - was) * (is - was);
    }
    return way > MOVED * MOVED * length;
}

static bool has_newcomer(const struct qd_means *means)
{
    for (size_t i = 0; i < means->count; i++)
        if (is_known(&means->layers[i]) && !means->layers[i].used && means->layers[i].n == FIRST_AT)
            return true;
    return false;
}

bool qd_model_correction_due(const struct qd_model *model)
{
    const struct qd_means *means = model->means;
    if (!model->options.bias_correction || qd_learner_frozen(model->learner) || means->trial.undone)
        return false;
    if (means->requests < means->next)
        return has_newcomer(means);
    bool due = false;
    for (size_t i = 0; !due && means->requests < LOOK_MOST && i < means->count; i++)
        due = is_known(&means->layers[i]);
    for (size_t i = 0; !due && i < means->count; i++)
        due = has_moved(&means->layers[i]);
    return due;
}

static uint64_t next_after(uint64_t requests)
{
    return requests < LOOK_MOST / LOOK_AGAIN ? requests * LOOK_AGAIN : requests + LOOK_MOST;
}

static float *copy_floats(const float *values, size_t n)
{
    float *copy = qd_calloc(n, sizeof *copy);
    if (copy)
        memcpy(copy, values, n * sizeof *copy);
    return copy;
}

static void destroy(struct qd_correction **correction)
{
    struct qd_correction *c = *correction;
    *correction = NULL;
    for (int i = 0; c->mean && i < c->plan->step_count; i++)
        qd_free(c->mean[i]);
    qd_free(c->mean);
    qd_biases_unref(&c->biases);
    qd_plan_unref(&c->plan);
    qd_model_unref(&c->model);
    qd_free(c);
}

enum qd_status qd_correction_create(struct qd_model *model, struct qd_correction **out, struct qd_error *error)
{
    struct qd_means *means = model->means;
    struct qd_correction *c = qd_calloc(1, sizeof *c);
    if (!c)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to correct the biases");
    c->model = qd_model_ref(model);
    c->plan = qd_plan_ref(model->plan);
    c->biases = qd_biases_create(means->count);
    c->mean = qd_calloc(means->count + 1, sizeof *c->mean);
    bool good = c->biases && c->mean;
    for (size_t i = 0; good && i < means->count; i++)
        if (is_known(&means->layers[i])) {
            c->mean[i] = copy_floats(means->layers[i].mean, means->layers[i].size);
            good = c->mean[i] != NULL;
        }
    means->next = next_after(means->requests);
    if (good) {
        *out = c;
        return QD_OK;
    }
    destroy(&c);
    return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to correct the biases");
}

void qd_correction_run(struct qd_correction *c)
{
    c->made = true;
    for (int i = 0; c->made && i < c->plan->step_count; i++) {
        const struct qd_step *step = &c->plan->steps[i];
        if (!c->mean[i])
            continue;
        struct qd_linear_spec spec = qd_place_spec(c->plan, step->unit, true, false);
        spec.columns = step->columns;
        const float *share = c->mean[i] + qd_linear_inputs(step->linear);
        float *bias = c->biases->of[i] = qd_calloc(qd_linear_bias_count(step->linear), sizeof *bias);
        c->made = bias && qd_linear_correct(&spec, step->linear, c->mean[i], share, bias) == QD_OK;
    }
    qd_model_release_weights(c->model);
}

bool qd_correction_finish(struct qd_correction **correction)
{
    struct qd_correction *c = *correction;
    struct qd_model *model = c->model;
    bool in_force = c->made && c->plan == model->plan && model->options.bias_correction &&
                    qd_learner_correct(model->learner, c->biases) == QD_OK;
    if (in_force) {
        c->biases = NULL; /* the learner's */
        model->means->made++;
        memset(&model->means->trial, 0, sizeof model->means->trial);
        for (size_t i = 0; i < model->means->count; i++) {
            qd_free(model->means->layers[i].used);
            model->means->layers[i].used = c->mean[i];
            c->mean[i] = NULL;
        }
    }
    destroy(correction);
    return in_force;
}

void qd_model_correction(const struct qd_model *model, struct qd_correction_report *out)
{
    const struct qd_biases *biases = qd_learner_current(model->learner)->biases;
    *out = (struct qd_correction_report){
        .requests = model->means->requests, .made = model->means->made, .steps = model->means->count};
    for (size_t i = 0; biases && i < biases->count; i++)
        out->layers += biases->of[i] != NULL;
    out->compared = model->means->trial.compared;
    out->undone = model->means->trial.undone;
    out->with = out->compared ? model->means->trial.with / (double)out->compared : (double)NAN;
    out->without = out->compared ? model->means->trial.without / (double)out->compared : (double)NAN;
}

/* ------------------------------------------------------------------ is it better by it? */

bool qd_correction_is_tried(const struct qd_model *model, const struct qd_biases *biases)
{
    return biases && biases == qd_learner_current(model->learner)->biases && model->means->trial.compared < TRIED_MOST;
}

/* Every layer is better by its correction, but the errors of layers add up with their signs: where they happen to
 * cancel, correcting a part of them makes the sum larger. That is seen in answers only. */
void qd_correction_compare(struct qd_model *model, const struct qd_biases *biases, double with, double without)
{
    struct qd_means *means = model->means;
    if (!qd_correction_is_tried(model, biases))
        return;
    means->trial.with += with;
    means->trial.without += without;
    means->trial.compared++;
    if (means->trial.compared == TRIED_FIRST || means->trial.compared == TRIED_MOST)
        means->trial.harms = means->trial.with > means->trial.without;
}

bool qd_model_correction_harms(const struct qd_model *model)
{
    return model->means->trial.harms && !model->means->trial.undone && !qd_learner_frozen(model->learner);
}

bool qd_model_correction_undo(struct qd_model *model)
{
    struct qd_means *means = model->means;
    if (qd_learner_correct(model->learner, NULL) != QD_OK)
        return false;
    for (size_t i = 0; i < means->count; i++) {
        qd_free(means->layers[i].used);
        means->layers[i].used = NULL;
    }
    means->trial.undone = true;
    return true;
}

/* ------------------------------------------------------------------ over a restart */

bool qd_model_layer_correction(const struct qd_model *model, size_t i, struct qd_layer_correction *out)
{
    const struct layer_means *layer = &model->means->layers[i];
    const struct qd_step *step = &model->plan->steps[i];
    const struct qd_biases *biases = qd_learner_current(model->learner)->biases;
    if (!layer->mean)
        return false;
    *out = (struct qd_layer_correction){.node = step->node->name,
                                        .n = layer->n,
                                        .mean_count = layer->size,
                                        .mean = layer->mean,
                                        .bias_count = qd_linear_bias_count(step->linear),
                                        .bias = biases ? biases->of[i] : NULL};
    return true;
}

static bool are_finite(const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

/* One layer from outside to step i. False: out of memory. */
static bool take_layer(struct qd_model *model, int i, const struct qd_layer_correction *from, struct qd_biases *biases)
{
    const struct qd_step *step = &model->plan->steps[i];
    struct layer_means *layer = &model->means->layers[i];
    if (from->mean_count != size_of(step) || !are_finite(from->mean, from->mean_count))
        return true;
    forget(layer);
    layer->size = from->mean_count;
    layer->n = from->n;
    layer->mean = copy_floats(from->mean, from->mean_count);
    if (!from->bias || from->bias_count != qd_linear_bias_count(step->linear) ||
        !are_finite(from->bias, from->bias_count))
        return layer->mean != NULL;
    layer->used = copy_floats(from->mean, from->mean_count); /* near enough to those it was made of */
    qd_free(biases->of[i]);
    biases->of[i] = copy_floats(from->bias, from->bias_count);
    return layer->mean && layer->used && biases->of[i];
}

enum qd_status qd_model_restore_corrections(struct qd_model *model, const struct qd_layer_correction *layers,
                                            size_t count, uint64_t requests, uint64_t made, struct qd_error *error)
{
    struct qd_means *means = model->means;
    struct qd_biases *biases = qd_biases_create(means->count);
    bool good = biases != NULL, any = false;
    for (int i = 0; good && i < model->plan->step_count; i++)
        for (size_t l = 0; good && is_corrected(model->plan, &model->plan->steps[i]) && l < count; l++)
            if (strcmp(layers[l].node, model->plan->steps[i].node->name) == 0) {
                good = take_layer(model, i, &layers[l], biases);
                any |= biases->of[i] != NULL;
            }
    if (!good) {
        qd_means_reset(means);
        qd_biases_unref(&biases);
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the model's biases");
    }
    means->requests = requests;
    means->made = made;
    if (!any)
        qd_biases_unref(&biases);
    else
        means->next = next_after(requests);
    qd_learner_start_with(model->learner, biases);
    return QD_OK;
}
