/* Smoothing. See smooth.h. */
#include "engine/model.h"
#include "engine/plan/place.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define LEAST_GAIN_DB     0.5 /* of the expected error, for a tensor to be smoothed */
#define LEAST_CHANNELS_DB 3.0 /* the same of channels, each counting alike */
#define LEAST_S           1e-6
#define LONGEST_WAIT      64        /* requests served */
#define LEAST_CHANNEL     0.015625f /* of the largest: smaller ones stay coarser */
#define CHANNEL_EXPONENT  0.7f

/* s = a^p / w^(1 - p), a: the column's largest values, w: its weights'. */
static const double exponents[] = {0.35, 0.5, 0.65, 0.8};
enum { EXPONENTS = sizeof exponents / sizeof exponents[0] };

/* One tensor, and the layers that read it. */
struct tensor {
    const char *name; /* the plan's */
    int slot;         /* of its integers */
    size_t columns;
    float *largest, *square; /* [columns] copies of what was learned, as the next */
    float *samples;          /* [sample_count][columns] */
    int sample_count;
    float *weight, *power;       /* [columns] over all layers: largest magnitude, sum of squares */
    float *s[EXPONENTS];         /* [columns] */
    double peaks[EXPONENTS + 1]; /* sum over the outputs of the squared largest weight; the last: unsmoothed */
    const float *chosen;         /* one of s; NULL: stays as it is */
    bool channels;               /* of a depthwise convolution's input: their sizes alone count */
};

struct qd_smoothing {
    struct qd_model *model; /* references, as the next */
    struct qd_plan *plan;
    struct qd_quant_options options;
    struct qd_arena *arena;
    struct tensor *tensors;
    size_t count;
    size_t kept; /* of the options' smoothed tensors: all, or fewer where others are taken back */
    struct qd_change *change;
};

/* ------------------------------------------------------------------ what was learned */

static bool reads_rows(const struct qd_step *step)
{
    return step->kind == QD_STEP_LINEAR && qd_step_rows(step) != QD_NO_VALUE;
}

/* Each of its channels has weights of its own, whose scale takes s up for nothing. */
static bool reads_channels(const struct qd_plan *plan, const struct qd_step *step)
{
    return step->kind == QD_STEP_LINEAR && step->int8 && !step->given && qd_linear_is_depthwise(step->linear) &&
           !plan->sites[plan->slots[step->in[0]].site].fixed;
}

/* The kinds that enough was seen of, that aren't smoothed, and that nobody tried to. */
static unsigned kinds_due(const struct qd_model *model, bool measured)
{
    const struct qd_plan *plan = model->plan;
    struct qd_columns_seen seen;
    unsigned due = 0, settled = model->smoothing_tried;
    if (!model->options.smoothing || qd_learner_frozen(model->learner))
        return 0;
    for (int i = 0; i < plan->step_count; i++) {
        const struct qd_step *step = &plan->steps[i];
        const unsigned kind = reads_rows(step)             ? QD_SMOOTHED_ROWS
                              : reads_channels(plan, step) ? QD_SMOOTHED_CHANNELS
                                                           : 0;
        if (kind && qd_means_columns(model->means, plan, i, &seen) &&
            qd_means_enough(model->means, kind == QD_SMOOTHED_ROWS))
            due |= kind;
        settled |= step->columns ? kind : 0;
    }
    return due & ~settled & (measured ? ~0u : QD_SMOOTHED_CHANNELS);
}

bool qd_model_smoothing_due(const struct qd_model *model, bool measured) { return kinds_due(model, measured) != 0; }

bool qd_model_smoothing_awaited(const struct qd_model *model)
{
    if (!model->options.smoothing || qd_learner_frozen(model->learner) ||
        qd_learner_requests(model->learner) >= LONGEST_WAIT || (model->smoothing_tried & QD_SMOOTHED_ROWS))
        return false;
    for (int i = 0; i < model->plan->step_count; i++)
        if (reads_rows(&model->plan->steps[i]))
            return !model->plan->steps[i].columns;
    return false;
}

static void destroy(struct qd_smoothing **smoothing)
{
    struct qd_smoothing *s = *smoothing;
    *smoothing = NULL;
    qd_change_discard(&s->change);
    qd_arena_destroy(&s->arena);
    qd_plan_unref(&s->plan);
    qd_model_unref(&s->model);
    qd_free(s);
}

static bool has_tensor(const struct qd_smoothing *s, int slot)
{
    for (size_t t = 0; t < s->count; t++)
        if (s->tensors[t].slot == slot)
            return true;
    return false;
}

static float *floats(struct qd_smoothing *s, size_t n) { return qd_arena_alloc(s->arena, n, sizeof(float)); }

/* False: out of memory. */
static bool take_tensor(struct qd_smoothing *s, const struct qd_step *step, const struct qd_columns_seen *seen)
{
    struct tensor *t = &s->tensors[s->count];
    const size_t n = qd_linear_inputs(step->linear);
    *t = (struct tensor){.name = s->plan->graph.values[s->plan->slots[step->in[0]].value].name,
                         .slot = step->in[0],
                         .columns = n,
                         .samples = floats(s, n * (size_t)seen->sample_count),
                         .sample_count = seen->sample_count,
                         .largest = floats(s, n),
                         .square = floats(s, n),
                         .weight = floats(s, n),
                         .power = floats(s, n),
                         .channels = !reads_rows(step)};
    bool good = t->samples && t->largest && t->square && t->weight && t->power;
    for (int e = 0; good && e < EXPONENTS; e++)
        good = (t->s[e] = floats(s, n)) != NULL;
    if (!good)
        return false;
    memcpy(t->largest, seen->largest, n * sizeof *t->largest);
    memcpy(t->square, seen->square, n * sizeof *t->square);
    if (seen->sample_count)
        memcpy(t->samples, seen->samples, n * (size_t)seen->sample_count * sizeof *t->samples);
    s->count++;
    return true;
}

static struct qd_smoothing *begin(struct qd_model *model, unsigned kinds)
{
    struct qd_smoothing *s = qd_calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->model = qd_model_ref(model);
    s->plan = qd_plan_ref(model->plan);
    s->options = model->options;
    s->kept = model->options.smoothed_count;
    model->smoothing_tried |= kinds;
    if (qd_arena_create(64 << 10, &s->arena) != QD_OK)
        destroy(&s);
    return s;
}

enum qd_status qd_smoothing_undo(struct qd_model *model, size_t kept, struct qd_smoothing **out, struct qd_error *error)
{
    *out = begin(model, QD_SMOOTHED_ROWS | QD_SMOOTHED_CHANNELS);
    if (!*out)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to take smoothing back");
    (*out)->kept = kept < model->options.smoothed_count ? kept : model->options.smoothed_count;
    return QD_OK;
}

/* A range that was given is of the tensor as it is. */
static bool learns(const struct qd_model *model, int step)
{
    const int site = model->plan->slots[model->plan->steps[step].in[0]].site;
    return site >= 0 && !qd_learner_given(model->learner, (size_t)site)->set;
}

enum qd_status qd_smoothing_create(struct qd_model *model, bool measured, struct qd_smoothing **out,
                                   struct qd_error *error)
{
    const struct qd_plan *plan = model->plan;
    const unsigned kinds = kinds_due(model, measured);
    struct qd_smoothing *s = begin(model, kinds);
    if (!s)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to smooth the layers");
    s->tensors = qd_arena_alloc(s->arena, (size_t)plan->step_count, sizeof *s->tensors);
    bool good = s->tensors != NULL;
    for (int i = 0; good && i < plan->step_count; i++) {
        struct qd_columns_seen seen;
        const bool reads = ((kinds & QD_SMOOTHED_ROWS) && reads_rows(&plan->steps[i])) ||
                           ((kinds & QD_SMOOTHED_CHANNELS) && reads_channels(plan, &plan->steps[i]) &&
                            learns(model, i));
        if (reads && !has_tensor(s, plan->steps[i].in[0]) && qd_means_columns(model->means, plan, i, &seen))
            good = take_tensor(s, &plan->steps[i], &seen);
    }
    if (good) {
        *out = s;
        return QD_OK;
    }
    destroy(&s);
    return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to smooth the layers");
}

/* ------------------------------------------------------------------ choosing s */

static void see_weights(void *ctx, const float *row)
{
    struct tensor *t = ctx;
    for (size_t k = 0; k < t->columns; k++) {
        const float size = fabsf(row[k]);
        t->weight[k] = size > t->weight[k] ? size : t->weight[k];
        t->power[k] += size * size;
    }
}

static void see_peaks(void *ctx, const float *row)
{
    struct tensor *t = ctx;
    float most[EXPONENTS + 1] = {0};
    for (size_t k = 0; k < t->columns; k++) {
        const float size = fabsf(row[k]);
        for (int e = 0; e < EXPONENTS; e++)
            most[e] = size * t->s[e][k] > most[e] ? size * t->s[e][k] : most[e];
        most[EXPONENTS] = size > most[EXPONENTS] ? size : most[EXPONENTS];
    }
    for (int e = 0; e <= EXPONENTS; e++)
        t->peaks[e] += (double)most[e] * (double)most[e];
}

static bool visit_readers(const struct qd_smoothing *s, struct tensor *t, void (*see)(void *ctx, const float *row))
{
    bool good = true;
    for (int i = 0; good && i < s->plan->step_count; i++) {
        const struct qd_step *step = &s->plan->steps[i];
        const struct qd_linear_spec spec = step->unit ? qd_place_spec(s->plan, step->unit, true, false)
                                                      : (struct qd_linear_spec){.node = NULL};
        if (reads_rows(step) && step->in[0] == t->slot)
            good = qd_linear_visit(&spec, step->linear, see, t) == QD_OK;
    }
    return good;
}

/* Mean of the squared widths of the sampled rows. */
static double squared_widths(const struct tensor *t, const float *s)
{
    double sum = 0;
    for (int r = 0; r < t->sample_count; r++) {
        const float *row = t->samples + (size_t)r * t->columns;
        float lo = 0, hi = 0;
        for (size_t k = 0; k < t->columns; k++) {
            const float value = s ? row[k] / s[k] : row[k];
            lo = value < lo ? value : lo;
            hi = value > hi ? value : hi;
        }
        sum += ((double)hi - (double)lo) * ((double)hi - (double)lo);
    }
    return sum / t->sample_count;
}

/* Expected squared error of all outputs of the tensor's layers, times 12: a row's quantum is its width over 255, and
 * goes through the weights; an output's weights' quantum is its largest weight over 127, and goes through the values.
 */
static double expected_error(const struct tensor *t, const float *s, double peaks)
{
    double weights = 0, values = 0;
    for (size_t k = 0; k < t->columns; k++) {
        const double by = s ? (double)s[k] : 1;
        weights += (double)t->power[k] * by * by;
        values += (double)t->square[k] / by / by;
    }
    return squared_widths(t, s) / (255.0 * 255.0) * weights + peaks / (127.0 * 127.0) * values;
}

/* Every channel nearly to the size of the largest. A channel's quantum, and with it its error, becomes s times as
 * large: where that is not worth the multiplication, the tensor stays as it is. */
static void choose_channels(struct tensor *t)
{
    float most = 0;
    double squares = 0;
    for (size_t k = 0; k < t->columns; k++)
        most = fmaxf(most, t->largest[k]);
    for (size_t k = 0; most > 0 && k < t->columns; k++) {
        t->s[0][k] = powf(fmaxf(t->largest[k] / most, LEAST_CHANNEL), CHANNEL_EXPONENT);
        squares += (double)t->s[0][k] * (double)t->s[0][k];
    }
    if (most > 0 && squares < (double)t->columns * pow(10, -LEAST_CHANNELS_DB / 10))
        t->chosen = t->s[0];
}

static bool choose(const struct qd_smoothing *s, struct tensor *t)
{
    if (t->channels) {
        choose_channels(t);
        return true;
    }
    if (!visit_readers(s, t, see_weights))
        return false;
    for (int e = 0; e < EXPONENTS; e++)
        for (size_t k = 0; k < t->columns; k++) {
            const double a = (double)t->largest[k], w = (double)t->weight[k];
            const double wanted = a > 0 && w > 0 ? pow(a, exponents[e]) / pow(w, 1 - exponents[e]) : 1;
            t->s[e][k] = (float)(wanted < LEAST_S ? LEAST_S : wanted > 1 / LEAST_S ? 1 / LEAST_S : wanted);
        }
    if (!visit_readers(s, t, see_peaks))
        return false;
    double least = expected_error(t, NULL, t->peaks[EXPONENTS]) * pow(10, -LEAST_GAIN_DB / 10);
    for (int e = 0; e < EXPONENTS; e++) {
        const double error = expected_error(t, t->s[e], t->peaks[e]);
        if (error < least) {
            least = error;
            t->chosen = t->s[e];
        }
    }
    return true;
}

void qd_smoothing_run(struct qd_smoothing *s)
{
    struct qd_error ignored;
    const size_t kept = s->kept, before = s->options.smoothed_count;
    struct qd_smoothed_tensor *smoothed = qd_arena_alloc(s->arena, kept + s->count + 1, sizeof *smoothed);
    if (!smoothed)
        return; /* the plan stays as it is */
    if (kept)
        memcpy(smoothed, s->options.smoothed, kept * sizeof *smoothed);
    s->options.smoothed = smoothed;
    s->options.smoothed_count = kept;
    for (size_t t = 0; t < s->count; t++) {
        if (!choose(s, &s->tensors[t]))
            return;
        if (s->tensors[t].chosen)
            smoothed[s->options.smoothed_count++] = (struct qd_smoothed_tensor){
                s->tensors[t].name, s->tensors[t].columns, s->tensors[t].chosen};
    }
    if (s->options.smoothed_count != before && qd_change_create(s->model, &s->options, &s->change, &ignored) != QD_OK)
        s->change = NULL;
    qd_model_release_weights(s->model);
}

bool qd_smoothing_finish(struct qd_smoothing **smoothing)
{
    struct qd_smoothing *s = *smoothing;
    struct qd_error ignored;
    const bool in_force = s->change && s->plan == s->model->plan && qd_change_adopt(&s->change, &ignored) == QD_OK;
    destroy(smoothing);
    return in_force;
}

size_t qd_model_smoothed(const struct qd_model *model) { return model->options.smoothed_count; }
