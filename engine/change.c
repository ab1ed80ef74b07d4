/* Plans of a model: compiling them for options, and putting another one in force while requests go on. Loading is in
 * engine/engine.c, requests in engine/infer.c. */
#include "engine/model.h"
#include "engine/plan/choose.h"
#include "engine/plan/control.h"
#include "engine/plan/rules.h"

#include <fnmatch.h>
#include <string.h>

/* What an unknown dimension counts as when layers are timed: a short text, a small image. */
#define TIMED_SIZE 64

struct qd_change {
    struct qd_model *model;          /* borrowed */
    struct qd_quant_options options; /* a copy of its own */
    struct qd_plan *plan;
    struct qd_learner *learner;
    uint64_t *step_macs;
    struct qd_means *means;
    float *utilization;
    struct qd_squares *layers; /* [step_count] for the new plan's accuracy */
    int *old_site;             /* [site_count] filled when adopted */
};

/* ------------------------------------------------------------------ pins */

/* Each pin and rule must fit a node, of the graph or of a body within it: a name with a slip in it would do nothing for
 * ever. */
static bool fits_a_node(const struct qd_graph *graph, const char *pattern)
{
    for (int n = 0; n < graph->node_count; n++) {
        const struct qd_node *node = &graph->nodes[n];
        if (fnmatch(pattern, node->name, 0) == 0)
            return true;
        for (int a = 0; a < node->attr_count; a++)
            if (node->attrs[a].type == QD_ATTR_GRAPH && fits_a_node(node->attrs[a].g, pattern))
                return true;
    }
    return false;
}

static enum qd_status check_node(const struct qd_model *model, const char *pattern, struct qd_error *error)
{
    if (fits_a_node(model->graph, pattern))
        return QD_OK;
    return qd_fail(error, QD_ERR_NOT_FOUND, "the model has no node '%.100s'", pattern);
}

static struct qd_pin plan_pin(const struct qd_layer_pin *pin)
{
    static const char *const choices[] = {
        [QD_PIN_TIMED] = "FP32 was faster when it was timed",
        [QD_PIN_ACCURACY] = "chosen by its error, for target_cosine or target_sqnr_db"};
    static const char *const asked[] = {[QD_INT8] = "pinned to int8",
                                        [QD_INT16] = "pinned to int16",
                                        [QD_FP32] = "pinned to fp32",
                                        [QD_FAKE] = "pinned to fake quantization"};
    return (struct qd_pin){.node = pin->node,
                           .int8 = pin->precision == QD_INT8,
                           .int16 = pin->precision == QD_INT16,
                           .fake = pin->precision == QD_FAKE,
                           .asked = pin->kind == QD_PIN_ASKED,
                           .reason = pin->kind == QD_PIN_ASKED ? asked[pin->precision] : choices[pin->kind]};
}

/* The engine's pins as the plan's, those that are taken back left out with what they take back. A model in FP32 with
 * single layers in INT8 is one in INT8 whose every layer is pinned to FP32 first. NULL: out of memory. */
static struct qd_pin *plan_pins(const struct qd_quant_options *options, int *count)
{
    struct qd_pin *pins = qd_calloc(options->pin_count + 1, sizeof *pins);
    *count = 0;
    if (pins && options->precision == QD_FP32 && options->pin_count)
        pins[(*count)++] = (struct qd_pin){.node = "*", .reason = "full precision was asked for"};
    for (size_t i = 0; pins && i < options->pin_count; i++) {
        bool again = options->pins[i].precision == QD_PRECISION_AUTO;
        for (size_t later = i + 1; later < options->pin_count; later++)
            again |= strcmp(options->pins[i].node, options->pins[later].node) == 0;
        if (!again)
            pins[(*count)++] = plan_pin(&options->pins[i]);
    }
    return pins;
}

/* ------------------------------------------------------------------ rules */

/* A rule in the plan's words. */
static struct qd_plan_rule plan_rule(const struct qd_layer_rule *rule)
{
    static const int modes[] = {
        [QD_MODE_EMA] = QD_SITE_EMA, [QD_MODE_REQUEST] = QD_SITE_REQUEST, [QD_MODE_STATIC] = QD_SITE_STATIC};
    static const int guards[] = {[QD_GUARD_WIDEN] = QD_GUARDED_WIDEN,
                                 [QD_GUARD_CLIP] = QD_GUARDED_CLIP,
                                 [QD_GUARD_REJECT] = QD_GUARDED_REJECT,
                                 [QD_GUARD_ESCALATE] = QD_GUARDED_ESCALATE};
    static const int rows[] = {
        [QD_PER_TENSOR] = QD_ROWS_NEVER, [QD_PER_ROW] = QD_ROWS_ALWAYS, [QD_GRANULARITY_AUTO] = QD_ROWS_AUTO};
    static const int symmetric[] = {[QD_ASYMMETRIC] = false, [QD_SYMMETRIC] = true};
    static const int asymmetric[] = {[QD_ASYMMETRIC] = true, [QD_SYMMETRIC] = false};
    static const int per_tensor[] = {[QD_PER_TENSOR] = true, [QD_PER_CHANNEL] = false};
    static const struct {
        size_t offset;
        enum qd_rule_kind kind;
        const int *values; /* NULL: the value itself */
    } kinds[] = {
        {offsetof(struct qd_quant_options, mode), QD_RULE_MODE, modes},
        {offsetof(struct qd_quant_options, guard), QD_RULE_GUARD, guards},
        {offsetof(struct qd_quant_options, activation_scheme), QD_RULE_SYMMETRIC, symmetric},
        {offsetof(struct qd_quant_options, activation_granularity), QD_RULE_ROWS, rows},
        {offsetof(struct qd_quant_options, weight_scheme), QD_RULE_WEIGHTS_ASYMMETRIC, asymmetric},
        {offsetof(struct qd_quant_options, weight_granularity), QD_RULE_WEIGHTS_PER_TENSOR, per_tensor},
        {offsetof(struct qd_quant_options, weight_bits), QD_RULE_WEIGHT_BITS, NULL}, /* the last: it ends the search */
    };
    size_t k = 0;
    while (k + 1 < sizeof kinds / sizeof kinds[0] && kinds[k].offset != rule->option->offset)
        k++;
    return (struct qd_plan_rule){rule->node, kinds[k].kind,
                                 kinds[k].values ? kinds[k].values[rule->value] : rule->value};
}

static bool may_escalate(const struct qd_quant_options *options)
{
    bool may = options->guard == QD_GUARD_ESCALATE;
    for (size_t i = 0; i < options->rule_count; i++)
        may |= options->rules[i].option->offset == offsetof(struct qd_quant_options, guard) &&
               options->rules[i].value == QD_GUARD_ESCALATE;
    return may;
}

/* ------------------------------------------------------------------ compiling */

/* The signature's input shapes: an unknown first dimension (a batch) is 1, every other unknown one `size`. */
static struct qd_shape *shapes_of(const struct qd_model *model, struct qd_arena *arena, int64_t size)
{
    struct qd_shape *shapes = qd_arena_alloc(arena, (size_t)model->graph->input_count, sizeof *shapes);
    for (int i = 0; shapes && i < model->graph->input_count; i++) {
        shapes[i] = model->inputs[i].shape;
        for (int d = 0; d < shapes[i].rank; d++)
            if (shapes[i].dims[d] < 0)
                shapes[i].dims[d] = d ? size : 1;
    }
    return shapes;
}

/* Times the plan's layers, keeps the times with the model, and compiles once more when some are faster in FP32 here. */
static enum qd_status choose_by_time(struct qd_model *model, struct qd_plan_options options, bool words,
                                     struct qd_plan **plan, struct qd_error *error)
{
    struct qd_shape *shapes = shapes_of(model, (*plan)->arena, TIMED_SIZE);
    struct qd_plan *chosen;
    bool changes;
    if (!shapes)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the model");
    enum qd_status status = qd_plan_time(*plan, shapes, words, &options.choices, &changes, error);
    if (status || !options.choices)
        return status;
    qd_choices_free(&model->choices, model->choice_count);
    options.choice_count = model->choice_count = (*plan)->graph.node_count;
    model->choices = qd_choices_copy(options.choices, options.choice_count); /* without: timed again the next time */
    if (!changes)
        return QD_OK;
    status = qd_plan_compile(model->graph, model->engine->kernels, qd_team_parallel(model->engine->team), &options,
                             &chosen, error);
    if (!status) {
        qd_plan_unref(plan);
        *plan = chosen;
    }
    return status;
}

/* A plan for these options; with precision auto, layers are timed unless that was done before: a choice that was made
 * stays, whatever other options change. */
static enum qd_status compile(struct qd_model *model, const struct qd_quant_options *options,
                              struct qd_plan_options wanted, struct qd_plan **plan, struct qd_error *error)
{
    const bool timing = options->precision == QD_PRECISION_AUTO,
               words = options->target_cosine > 0 || options->target_sqnr_db > 0;
    pthread_mutex_lock(&model->choices_lock);
    const bool known = model->choices && (!words || qd_choices_have_words(model->choices, model->choice_count));
    if (timing && known) {
        wanted.choices = model->choices;
        wanted.choice_count = model->choice_count;
    }
    enum qd_status status = qd_plan_compile(model->graph, model->engine->kernels, qd_team_parallel(model->engine->team),
                                            &wanted, plan, error);
    if (!status && timing && !known)
        status = choose_by_time(model, wanted, words, plan, error);
    pthread_mutex_unlock(&model->choices_lock);
    return status;
}

/* Multiply-adds per step with unknown dimensions taken as 1. A model that such shapes don't fit just reports none. */
static enum qd_status count_macs(struct qd_model *model, struct qd_plan *plan, uint64_t **macs, struct qd_error *error)
{
    struct qd_shaped *shaped;
    struct qd_shape *shapes = shapes_of(model, plan->arena, 1);
    *macs = qd_arena_alloc(plan->arena, qd_plan_all_steps(plan), sizeof **macs);
    if (!shapes || !*macs)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the model");
    enum qd_status status = qd_plan_shape(plan, shapes, &shaped, error);
    if (status)
        return status == QD_ERR_NO_MEMORY ? status : QD_OK;
    qd_plan_all_macs(plan, shaped, *macs);
    qd_shaped_unref(&shaped);
    return QD_OK;
}

void qd_model_release_weights(struct qd_model *model)
{
    if (model->file.bytes) {
        qd_file_release(&model->file);
        qd_externals_release(model->externals);
    }
}

enum qd_status qd_model_compile(struct qd_model *model, const struct qd_quant_options *options, struct qd_plan **plan,
                                uint64_t **macs, struct qd_error *error)
{
    int pin_count;
    struct qd_pin *pins = plan_pins(options, &pin_count);
    struct qd_smoothed *smoothed = qd_calloc(options->smoothed_count, sizeof *smoothed);
    struct qd_plan_rule *rules = qd_calloc(options->rule_count, sizeof *rules);
    const struct qd_plan_options wanted = {
        .fp32 = options->precision == QD_FP32 && pin_count == 0,
        .symmetric = options->activation_scheme == QD_SYMMETRIC,
        .rows = options->compat != QD_COMPAT_QUANTD || options->activation_granularity == QD_PER_TENSOR ? QD_ROWS_NEVER
                : options->activation_granularity == QD_PER_ROW                                         ? QD_ROWS_ALWAYS
                                                                                                        : QD_ROWS_AUTO,
        .weights_per_tensor = options->weight_granularity == QD_PER_TENSOR,
        .weights_asymmetric = options->weight_scheme == QD_ASYMMETRIC,
        .int16 = options->precision == QD_INT16,
        .weight_bits = options->weight_bits,
        .fake = options->precision == QD_FAKE,
        .fake_weight_bits = options->fake_weight_bits,
        .fake_activation_bits = options->fake_activation_bits,
        .pins = pins,
        .pin_count = pin_count,
        .rules = rules,
        .rule_count = (int)options->rule_count,
        .smoothed = smoothed,
        .smoothed_count = options->smoothing ? (int)options->smoothed_count : 0,
        .request_bytes = model->engine->request_bytes,
    };
    for (size_t i = 0; smoothed && i < options->smoothed_count; i++)
        smoothed[i] = (struct qd_smoothed){options->smoothed[i].tensor, options->smoothed[i].columns,
                                           options->smoothed[i].s};
    for (size_t i = 0; rules && i < options->rule_count; i++)
        rules[i] = plan_rule(&options->rules[i]);
    enum qd_status status = pins && smoothed && rules ? QD_OK
                                                      : qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the model");
    for (size_t i = 0; !status && i < options->pin_count; i++)
        status = check_node(model, options->pins[i].node, error);
    for (size_t i = 0; !status && i < options->rule_count; i++)
        status = check_node(model, options->rules[i].node, error);
    *plan = NULL;
    struct qd_plan *twin = NULL; /* stays with the model: no request is to wait for it */
    if (!status && may_escalate(options) && !wanted.fp32)
        status = qd_model_plan_fp32(model, &twin, error);
    qd_plan_unref(&twin);
    if (!status)
        status = compile(model, options, wanted, plan, error);
    if (!status)
        status = count_macs(model, *plan, macs, error);
    if (!status && !(*plan)->options.fp32)
        qd_model_release_weights(model); /* the packed ones are what requests read */
    if (status && *plan)
        qd_plan_unref(plan);
    qd_free(rules);
    qd_free(smoothed);
    qd_free(pins);
    return status;
}

enum qd_status qd_model_plan_fp32(struct qd_model *model, struct qd_plan **out, struct qd_error *error)
{
    const struct qd_plan_options options = {.fp32 = true, .request_bytes = model->engine->request_bytes};
    enum qd_status status = QD_OK;
    pthread_mutex_lock(&model->fp32_lock);
    if (!model->plan_fp32)
        status = qd_plan_compile(model->graph, model->engine->kernels, qd_team_parallel(model->engine->team), &options,
                                 &model->plan_fp32, error);
    if (!status)
        *out = qd_plan_ref(model->plan_fp32);
    pthread_mutex_unlock(&model->fp32_lock);
    return status;
}

void qd_model_forget_fp32(struct qd_model *model)
{
    if (may_escalate(&model->options))
        return;
    pthread_mutex_lock(&model->fp32_lock);
    qd_plan_unref(&model->plan_fp32);
    pthread_mutex_unlock(&model->fp32_lock);
    qd_model_release_weights(model);
}

/* ------------------------------------------------------------------ changes */

struct qd_quant_options qd_model_options(const struct qd_model *model) { return model->options; }

enum qd_status qd_change_create(struct qd_model *model, const struct qd_quant_options *options, struct qd_change **out,
                                struct qd_error *error)
{
    struct qd_change *change;
    enum qd_status status = qd_options_check(options, error);
    if (status)
        return status;
    change = qd_calloc(1, sizeof *change);
    if (!change)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the options");
    change->model = model;
    status = qd_options_copy(options, &change->options, error);
    if (!status)
        status = qd_model_compile(model, &change->options, &change->plan, &change->step_macs, error);
    if (!status) {
        const size_t sites = (size_t)change->plan->site_count;
        change->utilization = qd_calloc(sites, sizeof *change->utilization);
        change->old_site = qd_calloc(sites, sizeof *change->old_site);
        change->layers = qd_calloc((size_t)change->plan->step_count, sizeof *change->layers);
        change->means = qd_means_create(change->plan);
        if (!change->utilization || !change->means || !change->layers || !change->old_site ||
            qd_model_learner(options, change->plan, &change->learner) != QD_OK)
            status = qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the model's ranges");
    }
    if (status)
        qd_change_discard(&change);
    else
        *out = change;
    return status;
}

/* Where the old plan observes the same tensor; what was smoothed otherwise is another one. */
static int same_site(const struct qd_plan *old, const struct qd_plan *plan, int site)
{
    const int found = qd_site_named(old, plan->sites[site].name);
    return found >= 0 && old->sites[found].smoothed == plan->sites[site].smoothed ? found : -1;
}

enum qd_status qd_change_adopt(struct qd_change **change, struct qd_error *error)
{
    struct qd_change *c = *change;
    struct qd_model *model = c->model;
    struct qd_generation *last = &model->older[QD_GENERATIONS_KEPT - 1];
    for (int i = 0; i < c->plan->site_count; i++)
        c->old_site[i] = same_site(model->plan, c->plan, i);
    if (qd_learner_continue(c->learner, model->learner, c->old_site) != QD_OK)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the model's ranges");
    qd_learner_destroy(&last->learner);
    qd_plan_unref(&last->plan);
    memmove(model->older + 1, model->older, (QD_GENERATIONS_KEPT - 1) * sizeof *model->older);
    model->older[0] = (struct qd_generation){model->plan, model->learner};
    qd_means_continue(c->means, c->plan, model->means, model->plan);
    qd_means_destroy(&model->means);
    qd_free(model->utilization);
    qd_free(model->accuracy.layers);
    model->means = c->means;
    model->plan = c->plan;
    model->learner = c->learner;
    model->step_macs = c->step_macs;
    model->utilization = c->utilization;
    model->accuracy = (struct qd_accuracy){.layers = c->layers};
    if (!model->options.smoothing || !c->options.smoothing)
        model->smoothing_tried = 0;
    qd_options_free(&model->options);
    model->options = c->options;
    qd_free(c->old_site);
    qd_free(c);
    *change = NULL;
    return QD_OK;
}

void qd_change_discard(struct qd_change **change)
{
    struct qd_change *c = *change;
    *change = NULL;
    if (!c)
        return;
    qd_learner_destroy(&c->learner);
    qd_plan_unref(&c->plan);
    qd_options_free(&c->options);
    qd_means_destroy(&c->means);
    qd_free(c->utilization);
    qd_free(c->layers);
    qd_free(c->old_site);
    qd_free(c);
}
