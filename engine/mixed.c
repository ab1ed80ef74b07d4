/* Automatic mixed precision: what shadow runs found is kept by layer, over all plans; when the budget says so
 * (engine/quant/budget.h), a decision is made of it as pins. See mixed.h. */
#include "engine/mixed_impl.h"

#include "engine/shadow_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBED_ENOUGH 8  /* runs in which a layer's error in the answer is measured */
#define PROBED_FIRST  2  /* so often are three layers of four to be measured before a decision for more accuracy, ... */
#define GUESSED_MOST  32 /* ... unless so many requests have been */
#define TIMED_ENOUGH  4  /* runs in which steps in FP32 are timed */
#define HELD_MOST     32 /* requests that a first correction of the biases is waited for */
#define FIRST_AFTER   16 /* requests served: ranges and biases are new until then */
#define SETTLED       64 /* measured requests under a plan, after which it is known */
#define WATCHED_MOST  1000  /* and after so many all the same */
#define FREE_US       40e3  /* a run in FP32 as short as this is free: as many layers as can be are probed */
#define SHORT_US      100e3 /* half as many */
#define USUAL         1.0   /* runs that a guess by the layer's own error counts for: of few runs the largest is luck */
#define WORDS_DB      65.0  /* what a layer in 16 bits has at least */

/* Costs of layers that were not timed, by their time in INT8. */
static const double linear_ratio[QD_WAYS] = {1, 2, 4}, operator_ratio[QD_WAYS] = {1, 2, 2};
#define WORDS_OF_FP32                                                                                                  \
    0.6 /* of its time in FP32, at least: where tiles multiply bytes, words take far more than twice theirs */

struct qd_rebalance {
    struct qd_model *model; /* a reference */
    struct qd_quant_options options;
    enum qd_budget_verdict verdict;
    size_t count, moved; /* layers; moves */
    struct qd_budget_layer *layers;
    enum qd_budget_way *ways;
    size_t *records;           /* of each layer, in model->mixed */
    bool *follows;             /* of each layer: in FP32 only because its neighbours are */
    int *steps;                /* of each layer, in the plan */
    struct qd_arena *arena;    /* of the layers' tensors */
    struct qd_layer_pin *pins; /* the options' */
    struct qd_precision_move *moves;
    char reason[200];
};

/* In force: 0 for none. */
static double target_cosine(const struct qd_quant_options *o)
{
    if (o->target_cosine >= 0)
        return o->target_cosine;
    return o->precision == QD_PRECISION_AUTO && !(o->target_sqnr_db > 0) ? QD_TARGET_COSINE : 0;
}

static bool has_target(const struct qd_quant_options *o) { return target_cosine(o) > 0 || o->target_sqnr_db > 0; }

void qd_mixed_free(struct qd_mixed **mixed)
{
    struct qd_mixed *m = *mixed;
    *mixed = NULL;
    if (!m)
        return;
    for (size_t i = 0; i < m->count; i++)
        qd_free(m->layers[i].node);
    qd_free(m->layers);
    qd_free(m);
}

/* ------------------------------------------------------------------ what is known */

/* The layer's record, made when there is none; NULL: out of memory. */
static struct qd_mixed_layer *record_of(struct qd_mixed *m, const char *node)
{
    for (size_t i = 0; i < m->count; i++)
        if (strcmp(m->layers[i].node, node) == 0)
            return &m->layers[i];
    if (m->count == m->room) {
        const size_t room = m->room ? m->room * 2 : 64;
        void *grown = qd_realloc(m->layers, room, sizeof *m->layers);
        if (!grown)
            return NULL;
        m->layers = grown;
        m->room = room;
    }
    char *name = qd_strndup(node, strlen(node));
    if (!name)
        return NULL;
    m->layers[m->count] = (struct qd_mixed_layer){.node = name};
    return &m->layers[m->count++];
}

static double ratio(const struct qd_squares *s) { return s->signal > 0 ? s->noise / s->signal : 0; }

int qd_mixed_next(struct qd_model *model, int steps[QD_PROBES])
{
    const struct qd_plan *plan = model->plan;
    int count = 0, most;
    double worth[QD_PROBES];
    if (!has_target(&model->options) || !model->mixed)
        return 0;
    most = model->mixed->fp32_us < FREE_US ? QD_PROBES : model->mixed->fp32_us < SHORT_US ? QD_PROBES / 2 : 2;
    for (int s = 0; s < plan->step_count; s++) {
        if (!qd_step_errs(plan, &plan->steps[s]) || plan->steps[s].int16)
            continue;
        const struct qd_mixed_layer *layer = record_of(model->mixed, plan->steps[s].node->name);
        if (!layer || layer->probed >= PROBED_ENOUGH)
            continue;
        /* those measured least, of these the worst */
        const double mine = fmin(ratio(&layer->alone), 0.9) - (double)layer->probed;
        int at = count < most ? count++ : most;
        for (; at > 0 && worth[at - 1] < mine; at--)
            if (at < most) {
                steps[at] = steps[at - 1];
                worth[at] = worth[at - 1];
            }
        if (at < most) {
            steps[at] = s;
            worth[at] = mine;
        }
    }
    return count;
}

bool qd_mixed_wants_times(const struct qd_model *model)
{
    return has_target(&model->options) && model->mixed && model->mixed->timed < TIMED_ENOUGH;
}

/* Under a plan of other hands (another scheme, smoothed columns) layers in INT8 err otherwise: they are measured again.
 * What is known of others can't be. */
static void forget_errors(struct qd_mixed *m, const struct qd_plan *plan)
{
    for (int s = 0; s < plan->step_count; s++) {
        if (!qd_step_errs(plan, &plan->steps[s]) || plan->steps[s].int16)
            continue;
        struct qd_mixed_layer *layer = record_of(m, plan->steps[s].node->name);
        if (!layer)
            continue;
        layer->alone = layer->answer = (struct qd_squares){0};
        layer->cosine = 0;
        layer->probed = 0;
    }
}

static bool aims_at(const struct qd_mixed *m, const struct qd_quant_options *o)
{
    return m->target_cosine == target_cosine(o) && m->target_sqnr_db == o->target_sqnr_db;
}

/* A new target begins anew, and so does the count of observations under another plan. */
static bool follow(struct qd_model *model)
{
    const struct qd_quant_options *o = &model->options;
    struct qd_mixed *m = model->mixed;
    if (!has_target(o))
        return false;
    if (!m && !(m = model->mixed = qd_calloc(1, sizeof *m)))
        return false;
    const double cosine = target_cosine(o);
    if (!aims_at(m, o)) {
        m->target_cosine = cosine;
        m->dear = false;
        m->target_sqnr_db = o->target_sqnr_db;
        model->watched = 0;
        qd_budget_aim(&m->budget, cosine > 0 ? 1 - cosine : pow(10, -o->target_sqnr_db / 10));
        for (size_t i = 0; i < m->count; i++)
            m->layers[i].fell = m->layers[i].settled = false;
    } else if (m->plan != model->plan->digest) {
        qd_budget_restart(&m->budget);
        forget_errors(m, model->plan);
    }
    m->plan = model->plan->digest;
    return true;
}

/* Corrected biases change every layer's error: what was found before would say little. */
static bool wait_for_biases(struct qd_model *model)
{
    struct qd_correction_report report;
    qd_model_correction(model, &report);
    return model->options.bias_correction && !report.made && !qd_learner_frozen(model->learner) &&
           model->mixed->held++ < HELD_MOST;
}

bool qd_model_wants_shadow(const struct qd_model *model)
{
    const struct qd_mixed *m = model->mixed;
    if (!has_target(&model->options) || qd_learner_frozen(model->learner) ||
        qd_learner_requests(model->learner) < FIRST_AFTER)
        return false;
    return !m || !aims_at(m, &model->options) || m->plan != model->plan->digest ||
           (m->budget.observed < SETTLED && model->watched < WATCHED_MOST);
}

static void keep_times(struct qd_mixed_layer *layer, const struct qd_layer_found *f)
{
    if (f->fp32_us <= 0 || (layer->us > 0 && layer->us + layer->fp32_us <= f->us + f->fp32_us))
        return;
    layer->us = f->us;
    layer->fp32_us = f->fp32_us;
    layer->float_us = f->float_us;
    memcpy(layer->in_us, f->in_us, sizeof layer->in_us);
}

void qd_mixed_fold(struct qd_model *model, const struct qd_mixed_found *found)
{
    const struct qd_plan *plan = model->plan;
    if (!follow(model))
        return;
    struct qd_mixed *m = model->mixed;
    if (wait_for_biases(model))
        return;
    bool times = false;
    m->fp32_us = found->fp32_us;
    for (int s = 0; s < plan->step_count; s++) {
        const struct qd_layer_found *f = &found->layers[s];
        struct qd_mixed_layer *layer = f->us > 0 && !plan->steps[s].int16 ? record_of(m, plan->steps[s].node->name)
                                                                          : NULL;
        if (!layer)
            continue;
        layer->alone.signal += f->squares.signal;
        layer->alone.noise += f->squares.noise;
        keep_times(layer, f);
        layer->rows = plan->steps[s].kind == QD_STEP_LINEAR && qd_step_rows(&plan->steps[s]) != QD_NO_VALUE;
        times |= f->fp32_us > 0;
    }
    m->timed += times;
    for (int p = 0; p < found->probe_count; p++) {
        struct qd_mixed_layer *layer = record_of(m, plan->steps[found->probes[p].step].node->name);
        if (!layer)
            continue;
        layer->cosine += 1 - found->probes[p].cosine;
        layer->answer.signal += found->probes[p].answer.signal;
        layer->answer.noise += found->probes[p].answer.noise;
        layer->probed++;
    }
    m->verdict = m->target_cosine > 0 ? qd_budget_observe(&m->budget, 1 - found->cosine, 1)
                                      : qd_budget_observe(&m->budget, found->answer.noise, found->answer.signal);
}

/* ------------------------------------------------------------------ layers as the budget sees them */

/* The layer's part of the answer's error, as it was measured; below 0: it was not. */
static double measured_error(const struct qd_mixed *m, const struct qd_mixed_layer *layer)
{
    if (!layer->probed)
        return -1;
    const double error = m->target_cosine > 0 ? layer->cosine / (double)layer->probed : ratio(&layer->answer);
    return error > 0 ? error : 0;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* By what a layer's own error reaches the answer, of the layer in the middle; 1: nothing is known. */
static double usual_gain(const struct qd_mixed *m)
{
    double *gains = qd_calloc(m->count + 1, sizeof *gains), gain = 1;
    size_t count = 0;
    for (size_t i = 0; gains && i < m->count; i++)
        if (measured_error(m, &m->layers[i]) > 0 && ratio(&m->layers[i].alone) > 0)
            gains[count++] = measured_error(m, &m->layers[i]) / ratio(&m->layers[i].alone);
    if (count) {
        qsort(gains, count, sizeof *gains, by_size);
        gain = gains[count / 2];
    }
    qd_free(gains);
    return gain;
}

/* By the times of shadow runs, which know the requests' shapes; in 16 bits, for which weights are not at hand there, by
 * the proportion that was timed while loading. */
static void set_costs(struct qd_budget_layer *out, const struct qd_step *step, const struct qd_mixed_layer *layer)
{
    const double *usual = step->kind == QD_STEP_LINEAR ? linear_ratio : operator_ratio;
    const double int8 = layer->us > 0 ? layer->us : (double)step->int8_us;
    const bool timed = step->int8_us > 0;
    out->cost[QD_WAY_INT8] = int8;
    out->cost[QD_WAY_FP32] = layer->fp32_us > 0 ? layer->fp32_us
                             : timed            ? int8 * (double)step->fp32_us / (double)step->int8_us
                                                : int8 * usual[QD_WAY_FP32];
    if (timed && step->int16_us > 0) /* the tensor counts the conversion of its input */
        out->cost[QD_WAY_INT16] = fmax(int8 * (double)(step->int16_us - step->words_us) / (double)step->int8_us, int8);
    else
        out->cost[QD_WAY_INT16] = fmax(int8 * usual[QD_WAY_INT16], out->cost[QD_WAY_FP32] * WORDS_OF_FP32);
}

static void set_errors(struct qd_budget_layer *out, const struct qd_mixed *m, const struct qd_mixed_layer *layer,
                       double gain)
{
    const double own = ratio(&layer->alone), measured = measured_error(m, layer), n = (double)layer->probed;
    const double error = measured >= 0 ? (measured * n + own * gain * USUAL) / (n + USUAL) : own * gain;
    out->error[QD_WAY_INT8] = error;
    out->error[QD_WAY_INT16] = own > 0 ? error * fmin(pow(10, -WORDS_DB / 10) / own, 0.5) : 0;
    out->error[QD_WAY_FP32] = 0;
}

static bool pinned(const struct qd_model *model, const struct qd_step *step)
{
    for (size_t i = 0; i < model->options.pin_count; i++)
        if (model->options.pins[i].kind == QD_PIN_ASKED && model->options.pins[i].precision != QD_PRECISION_AUTO &&
            strcmp(model->options.pins[i].node, step->node->name) == 0)
            return true;
    return step->pinned || strpbrk(step->node->name, "*?[\\") != NULL; /* a pin takes the name for a pattern */
}

static enum qd_budget_way way_of(const struct qd_plan *plan, const struct qd_step *step)
{
    return step->int16 ? QD_WAY_INT16 : qd_step_errs(plan, step) ? QD_WAY_INT8 : QD_WAY_FP32;
}

/* Every step that is in integers, or was. */
static enum qd_status list_layers(struct qd_rebalance *r)
{
    struct qd_mixed *m = r->model->mixed;
    const struct qd_plan *plan = r->model->plan;
    const double gain = usual_gain(m);
    for (int s = 0; s < plan->step_count; s++) {
        const struct qd_step *step = &plan->steps[s];
        const bool errs = qd_step_errs(plan, step), linear = step->kind == QD_STEP_LINEAR;
        bool known = errs;
        for (size_t i = 0; (linear || step->kind == QD_STEP_OP) && !known && i < m->count; i++)
            known = strcmp(m->layers[i].node, step->node->name) == 0;
        if (!known)
            continue;
        const struct qd_mixed_layer *layer = record_of(m, step->node->name);
        if (!layer)
            return QD_ERR_NO_MEMORY;
        struct qd_budget_layer *out = &r->layers[r->count];
        *out = (struct qd_budget_layer){.now = way_of(plan, step), .fell = layer->fell, .settled = layer->settled};
        set_costs(out, step, layer);
        set_errors(out, m, layer, gain);
        out->may = 1u << out->now;
        if (!pinned(r->model, step)) {
            out->may |= 1u << QD_WAY_FP32 | (layer->probed ? 1u << QD_WAY_INT8 : 0); /* back: only where it is known */
            out->may |= linear && !qd_linear_is_depthwise(step->linear) ? 1u << QD_WAY_INT16 : 0;
        }
        r->follows[r->count] = step->follows && out->now == QD_WAY_FP32;
        r->steps[r->count] = s;
        r->records[r->count++] = (size_t)(layer - m->layers);
    }
    return QD_OK;
}

/* When all records are there: they move when one is added. */
static bool link_layers(struct qd_rebalance *r)
{
    const struct qd_mixed_layer **records = NULL;
    if (qd_arena_create(16 << 10, &r->arena) == QD_OK)
        records = qd_arena_alloc(r->arena, r->count + 1, sizeof *records);
    for (size_t i = 0; records && i < r->count; i++)
        records[i] = &r->model->mixed->layers[r->records[i]];
    return records && qd_mixed_link(r->model->plan, r->layers, r->steps, records, r->count, r->arena);
}

/* ------------------------------------------------------------------ the decision */

static enum qd_precision precision_of(enum qd_budget_way way)
{
    static const enum qd_precision precisions[] = {QD_INT8, QD_INT16, QD_FP32};
    return precisions[way];
}

static const char *node_of(const struct qd_rebalance *r, size_t i)
{
    return r->model->mixed->layers[r->records[i]].node;
}

static bool moves(const struct qd_rebalance *r, const char *node)
{
    for (size_t i = 0; i < r->moved; i++)
        if (strcmp(r->moves[i].node, node) == 0)
            return true;
    return false;
}

static void list_moves(struct qd_rebalance *r)
{
    const struct qd_budget *b = &r->model->mixed->budget;
    double now = 0;
    for (size_t i = 0; i < r->count; i++)
        now += r->layers[i].error[r->layers[i].now];
    const double share = now > 0 ? qd_budget_mean(b) / now / b->target : 0;
    for (size_t i = 0; i < r->count; i++) {
        const struct qd_budget_layer *l = &r->layers[i];
        if (r->ways[i] != l->now)
            r->moves[r->moved++] = (struct qd_precision_move){.node = node_of(r, i),
                                                              .from = precision_of(l->now),
                                                              .to = precision_of(r->ways[i]),
                                                              .error = (l->error[r->ways[i]] - l->error[l->now]) *
                                                                       share,
                                                              .cost_us = l->cost[r->ways[i]] - l->cost[l->now]};
    }
}

static bool has_pin(const struct qd_quant_options *options, const char *node)
{
    for (size_t i = 0; i < options->pin_count; i++)
        if (strcmp(options->pins[i].node, node) == 0)
            return true;
    return false;
}

/* Pins of other kinds, and earlier ones of layers that stay; then the moves; then what users asked for, which counts
 * most, but for "auto" of a layer that moves. */
static void list_pins(struct qd_rebalance *r)
{
    const struct qd_quant_options *now = &r->model->options;
    size_t n = 0;
    for (int asked = 0; asked < 2; asked++) {
        for (size_t i = 0; i < now->pin_count; i++) {
            const struct qd_layer_pin *pin = &now->pins[i];
            const bool is_asked = pin->kind == QD_PIN_ASKED;
            const bool gone = moves(r, pin->node) &&
                              (is_asked ? pin->precision == QD_PRECISION_AUTO : pin->kind == QD_PIN_ACCURACY);
            if (is_asked == (asked == 1) && !gone)
                r->pins[n++] = *pin;
        }
        for (size_t i = 0; asked == 0 && i < r->moved; i++)
            r->pins[n++] = (struct qd_layer_pin){r->moves[i].node, r->moves[i].to, QD_PIN_ACCURACY};
        for (size_t i = 0; asked == 0 && i < r->count; i++) /* not to come back with its neighbours, uncounted */
            if (r->follows[i] && r->ways[i] == QD_WAY_FP32 && !has_pin(now, node_of(r, i)))
                r->pins[n++] = (struct qd_layer_pin){node_of(r, i), QD_FP32, QD_PIN_ACCURACY};
    }
    r->options = *now;
    r->options.pins = r->pins;
    r->options.pin_count = n;
}

static void give_reason(struct qd_rebalance *r)
{
    const struct qd_mixed *m = r->model->mixed;
    const bool over = r->verdict == QD_BUDGET_OVER;
    const unsigned long long n = (unsigned long long)m->budget.observed;
    const double mean = qd_budget_mean(&m->budget);
    if (m->target_cosine > 0)
        snprintf(r->reason, sizeof r->reason, "cosine %.6f to FP32 over %llu requests is %s %g", 1 - mean, n,
                 over ? "below" : "clearly above", 1 - m->budget.target);
    else
        snprintf(r->reason, sizeof r->reason, "%.2f dB to FP32 over %llu requests is %s %g", -10 * log10(mean), n,
                 over ? "below" : "clearly above", m->target_sqnr_db);
}

/* Most layers' parts would be guessed: the next look is soon enough. */
static bool waits_for_probes(const struct qd_rebalance *r)
{
    size_t guessed = 0, count = 0;
    for (size_t i = 0; i < r->count; i++) {
        const bool counts = r->layers[i].now == QD_WAY_INT8;
        count += counts;
        guessed += counts && r->model->mixed->layers[r->records[i]].probed < PROBED_FIRST;
    }
    return r->verdict == QD_BUDGET_OVER && 4 * guessed > count && r->model->mixed->budget.observed < GUESSED_MOST;
}

static bool make_room(struct qd_rebalance *r)
{
    const size_t steps = (size_t)r->model->plan->step_count;
    r->layers = qd_calloc(steps + 1, sizeof *r->layers);
    r->ways = qd_calloc(steps + 1, sizeof *r->ways);
    r->records = qd_calloc(steps + 1, sizeof *r->records);
    r->moves = qd_calloc(steps + 1, sizeof *r->moves);
    r->pins = qd_calloc(r->model->options.pin_count + 2 * steps + 1, sizeof *r->pins);
    r->follows = qd_calloc(steps + 1, sizeof *r->follows);
    r->steps = qd_calloc(steps + 1, sizeof *r->steps);
    return r->follows && r->steps && r->layers && r->ways && r->records && r->moves && r->pins;
}

/* By how much more time than all INT8 the ways would take is beyond what the default target may cost. */
static bool is_dear(const struct qd_rebalance *r, enum qd_budget_way *int8)
{
    for (size_t i = 0; i < r->count; i++)
        int8[i] = r->layers[i].may >> QD_WAY_INT8 & 1 ? QD_WAY_INT8 : r->layers[i].now;
    return qd_budget_cost(r->layers, r->count, r->ways) > QD_TARGET_DEAR * qd_budget_cost(r->layers, r->count, int8);
}

/* The layers' new ways; how many move. A target that nobody asked for gives way where it is dear. */
static size_t decide(struct qd_rebalance *r)
{
    struct qd_mixed *m = r->model->mixed;
    const size_t moves = qd_budget_decide(&m->budget, r->verdict, r->layers, r->count, r->ways);
    enum qd_budget_way *int8 = qd_arena_alloc(r->arena, r->count + 1, sizeof *int8);
    if (!moves || !int8 || m->dear || r->verdict != QD_BUDGET_OVER || r->model->options.target_cosine >= 0 ||
        r->model->options.target_sqnr_db > 0 || !is_dear(r, int8))
        return moves;
    m->dear = true;
    m->budget.target = 1 - QD_TARGET_COSINE_DEAR;
    if (qd_budget_mean(&m->budget) <= m->budget.target)
        return 0;
    return qd_budget_decide(&m->budget, r->verdict, r->layers, r->count, r->ways);
}

enum qd_status qd_rebalance_create(struct qd_model *model, struct qd_rebalance **out, struct qd_error *error)
{
    struct qd_mixed *m = model->mixed;
    *out = NULL;
    if (!m || m->verdict == QD_BUDGET_STAY || !has_target(&model->options) || m->plan != model->plan->digest)
        return QD_OK; /* what was found of another plan decides nothing */
    struct qd_rebalance *r = qd_calloc(1, sizeof *r);
    if (!r)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to choose precisions");
    r->model = qd_model_ref(model);
    r->verdict = m->verdict;
    m->verdict = QD_BUDGET_STAY;
    if (!make_room(r) || list_layers(r) != QD_OK || !link_layers(r)) {
        qd_rebalance_destroy(&r);
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to choose precisions");
    }
    if (waits_for_probes(r)) {
        qd_rebalance_destroy(&r);
        return QD_OK;
    }
    if (decide(r) == 0) {
        qd_rebalance_destroy(&r);
        return QD_OK;
    }
    list_moves(r);
    list_pins(r);
    give_reason(r);
    *out = r;
    return QD_OK;
}

const struct qd_quant_options *qd_rebalance_options(const struct qd_rebalance *r) { return &r->options; }
const char *qd_rebalance_reason(const struct qd_rebalance *r) { return r->reason; }
size_t qd_rebalance_moves(const struct qd_rebalance *r) { return r->moved; }

void qd_rebalance_move(const struct qd_rebalance *r, size_t i, struct qd_precision_move *out) { *out = r->moves[i]; }

void qd_rebalance_adopted(struct qd_rebalance *r)
{
    struct qd_mixed *m = r->model->mixed;
    qd_budget_moved(&m->budget, r->verdict, r->layers, r->count, r->ways);
    for (size_t i = 0; i < r->count; i++) {
        m->layers[r->records[i]].fell = r->layers[i].fell;
        m->layers[r->records[i]].settled = r->layers[i].settled;
    }
    m->plan = r->model->plan->digest;
}

void qd_rebalance_destroy(struct qd_rebalance **rebalance)
{
    struct qd_rebalance *r = *rebalance;
    *rebalance = NULL;
    if (!r)
        return;
    qd_free(r->layers);
    qd_free(r->ways);
    qd_free(r->records);
    qd_free(r->follows);
    qd_free(r->steps);
    qd_arena_destroy(&r->arena);
    qd_free(r->moves);
    qd_free(r->pins);
    qd_model_unref(&r->model);
    qd_free(r);
}
