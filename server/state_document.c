/* Learned state as JSON and back. See state_document.h. */
#include "server/state_document.h"

#include "base/mem.h"
#include "server/layers.h"
#include "server/quant_options.h"
#include "server/state_biases.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ------------------------------------------------------------------ as JSON */

static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }
static json_t *count(uint64_t value) { return json_integer((json_int_t)value); }

/* A given range, NULL for none. */
static json_t *given_json(const struct qd_range_state *r)
{
    if (!r->is_given)
        return NULL;
    return json_pack("{s:b, s:o, s:i, s:o, s:o}", "cuts", r->given.cuts, "scale", number((double)r->given.scale),
                     "zero_point", (int)r->given.zero_point, "min", number(r->given.lo), "max", number(r->given.hi));
}

static json_t *tensor_json(const struct qd_range_state *r)
{
    return json_pack(
        "{s:s, s:b, s:[o,o], s:[o,o], s:[o,o], s:[o,o], s:o, s:o, s:o, s:[o,o], s:o, s:I, s:o*, s:o*}", "name", r->name,
        "ready", r->ready, "epoch", number(r->epoch_lo), number(r->epoch_hi), "average", number(r->lo), number(r->hi),
        "observed", number(r->observed_min), number(r->observed_max), "last", number(r->last_min), number(r->last_max),
        "observations", count(r->n), "elements", count(r->elements), "nonfinite", count(r->nonfinite), "clipped",
        count(r->clipped_low), count(r->clipped_high), "guarded", count(r->guarded), "updated_unix_ms",
        (json_int_t)r->updated_unix_ms, "given", given_json(r), "smoothed", r->smoothed ? json_true() : NULL);
}

static json_t *tensors_json(const struct qd_model *model)
{
    struct qd_ranges_summary summary;
    json_t *list = json_array();
    qd_model_ranges(model, &summary);
    for (size_t i = 0; i < summary.sites; i++) {
        struct qd_range_state range;
        qd_model_range_state(model, i, &range);
        json_array_append_new(list, tensor_json(&range));
    }
    return list;
}

static json_t *pin_json(const char *node, enum qd_precision precision)
{
    return json_pack("{s:s, s:s}", "node", node, "precision", qd_precision_name(precision));
}

static json_t *pins_json(const struct qd_quant_options *options, enum qd_pin_kind kind)
{
    json_t *list = json_array();
    for (size_t i = 0; i < options->pin_count; i++)
        if (options->pins[i].kind == kind)
            json_array_append_new(list, pin_json(options->pins[i].node, options->pins[i].precision));
    return list;
}

/* What somebody asked for that the configuration doesn't; what it does and somebody took back is "auto". */
static json_t *asked_json(const struct qd_quant_options *base, const struct qd_quant_options *now)
{
    json_t *theirs = pins_json(base, QD_PIN_ASKED), *mine = pins_json(now, QD_PIN_ASKED), *list = json_array();
    json_t *pin, *other;
    size_t i, j;
    json_array_foreach(theirs, i, pin)
    {
        bool kept = false;
        json_array_foreach(mine, j, other)
            kept |= json_equal(json_object_get(other, "node"), json_object_get(pin, "node"));
        if (!kept)
            json_array_append_new(list, pin_json(json_string_value(json_object_get(pin, "node")), QD_PRECISION_AUTO));
    }
    json_array_foreach(mine, i, pin)
    {
        bool same = false;
        json_array_foreach(theirs, j, other) same |= json_equal(other, pin);
        if (!same)
            json_array_append(list, pin);
    }
    json_decref(theirs);
    json_decref(mine);
    return list;
}

/* The precision of every layer with weights, whoever chose it: the same plan comes of it again. */
static json_t *layers_json(const struct qd_model *model)
{
    struct qd_plan_report plan;
    json_t *list = json_array();
    qd_model_plan(model, &plan);
    for (size_t i = 0; i < plan.steps; i++) {
        struct qd_step_report step;
        qd_model_step(model, i, &step);
        if (step.weight_bits && step.int8_us > 0)
            json_array_append_new(list, pin_json(step.node, step.precision));
    }
    return list;
}

static json_t *merged_json(const struct qd_model_entry *entry)
{
    json_t *list = json_array();
    for (size_t i = 0; i < entry->merged_count; i++)
        json_array_append_new(list, json_pack("{s:s, s:o}", "origin", entry->merged[i].origin, "requests",
                                              count(entry->merged[i].requests)));
    return list;
}

json_t *qd_state_document(const struct qd_model_entry *entry)
{
    const struct qd_quant_options *base = &entry->base;
    struct qd_ranges_summary summary;
    struct qd_plan_report plan;
    const struct qd_quant_options now = qd_model_options(entry->model);
    char digest[20], plan_digest[12];
    qd_model_ranges(entry->model, &summary);
    qd_model_plan(entry->model, &plan);
    snprintf(digest, sizeof digest, "%016" PRIx64, qd_model_digest(entry->model));
    snprintf(plan_digest, sizeof plan_digest, "%08" PRIx32, plan.digest);
    return json_pack("{s:i, s:s, s:s, s:s, s:s, s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
                     "quantd_state", QD_STATE_VERSION, "model", entry->name, "digest", digest, "plan", plan_digest,
                     "origin", entry->origin, "epoch", count(summary.epoch), "requests", count(summary.requests),
                     "frozen", summary.frozen, "merged", merged_json(entry), "options", qd_quant_overrides(base, &now),
                     "pins", asked_json(base, &now), "rules", qd_layers_overrides(base, &now), "accurate",
                     pins_json(&now, QD_PIN_ACCURACY), "layers", layers_json(entry->model), "tensors",
                     tensors_json(entry->model), "biases", qd_state_biases(entry->model), "smoothed",
                     qd_state_smoothed(&now));
}

/* ------------------------------------------------------------------ from JSON */

static double number_at(const json_t *list, size_t i) { return json_number_value(json_array_get(list, i)); }

static uint64_t count_of(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));
    return value > 0 ? (uint64_t)value : 0;
}

static struct qd_range_given given_of(const json_t *given)
{
    return (struct qd_range_given){
        .cuts = json_is_true(json_object_get(given, "cuts")),
        .scale = (float)json_number_value(json_object_get(given, "scale")),
        .zero_point = (int32_t)json_integer_value(json_object_get(given, "zero_point")),
        .lo = json_number_value(json_object_get(given, "min")),
        .hi = json_number_value(json_object_get(given, "max")),
    };
}

static struct qd_range_state range_of(const json_t *t)
{
    const json_t *average = json_object_get(t, "average"), *epoch = json_object_get(t, "epoch"),
                 *observed = json_object_get(t, "observed"), *last = json_object_get(t, "last"),
                 *clipped = json_object_get(t, "clipped");
    const char *name = json_string_value(json_object_get(t, "name"));
    const bool sound = number_at(average, 0) <= number_at(average, 1) && number_at(epoch, 0) <= number_at(epoch, 1);
    return (struct qd_range_state){
        .name = name ? name : "",
        .epoch_lo = number_at(epoch, 0),
        .epoch_hi = number_at(epoch, 1),
        .ready = sound && json_is_true(json_object_get(t, "ready")),
        .smoothed = json_is_true(json_object_get(t, "smoothed")),
        .is_given = json_is_object(json_object_get(t, "given")),
        .given = given_of(json_object_get(t, "given")),
        .lo = number_at(average, 0),
        .hi = number_at(average, 1),
        .observed_min = number_at(observed, 0),
        .observed_max = number_at(observed, 1),
        .last_min = number_at(last, 0),
        .last_max = number_at(last, 1),
        .n = sound ? count_of(t, "observations") : 0,
        .elements = count_of(t, "elements"),
        .nonfinite = count_of(t, "nonfinite"),
        .clipped_low = (uint64_t)number_at(clipped, 0),
        .clipped_high = (uint64_t)number_at(clipped, 1),
        .guarded = count_of(t, "guarded"),
        .updated_unix_ms = (int64_t)json_integer_value(json_object_get(t, "updated_unix_ms")),
    };
}

static const char *word_of(const json_t *object, const char *key)
{
    const char *word = json_string_value(json_object_get(object, key));
    return word ? word : "";
}

static enum qd_status take_pins(struct qd_layers *layers, const json_t *list, enum qd_pin_kind kind,
                                struct qd_error *error)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct qd_layer_pin pin = {.node = word_of(json_array_get(list, i), "node"), .kind = kind};
        if (!*pin.node || !qd_precision_from(word_of(json_array_get(list, i), "precision"), &pin.precision))
            continue;
        enum qd_status status = qd_layers_pin(layers, pin, error);
        if (status)
            return status;
    }
    return QD_OK;
}

/* Pins and rules, of which the last said counts: what the plan was made of, the configuration, what was changed. */
static enum qd_status take_layers(struct qd_layers *layers, const struct qd_quant_options *base, const json_t *root,
                                  struct qd_error *error)
{
    struct qd_quant_options rules = *base;
    rules.pin_count = 0;
    enum qd_status status = qd_layers_begin(layers, &rules, error);
    if (!status)
        status = take_pins(layers, json_object_get(root, "layers"), QD_PIN_TIMED, error);
    if (!status)
        status = take_pins(layers, json_object_get(root, "accurate"), QD_PIN_ACCURACY, error);
    for (size_t i = 0; !status && i < base->pin_count; i++)
        status = qd_layers_pin(layers, base->pins[i], error);
    if (!status)
        status = take_pins(layers, json_object_get(root, "pins"), QD_PIN_ASKED, error);
    return status ? status : qd_layers_overrides_read(layers, json_object_get(root, "rules"), error);
}

enum qd_status qd_state_document_change(struct qd_model *model, const struct qd_quant_options *base, const json_t *root,
                                        struct qd_change **out, struct qd_error *error)
{
    const json_t *list = json_object_get(root, "smoothed");
    struct qd_quant_options options = *base;
    struct qd_layers layers;
    struct qd_smoothed_tensor *smoothed = qd_calloc(json_array_size(list) + 1, sizeof *smoothed);
    const size_t smoothed_count = smoothed ? qd_state_smoothed_read(list, smoothed) : 0;
    enum qd_status status = take_layers(&layers, base, root, error);
    if (!smoothed)
        status = qd_fail(error, QD_ERR_NO_MEMORY, "no memory for its options");
    qd_layers_use(&layers, &options);
    options.smoothed = smoothed;
    options.smoothed_count = smoothed_count;
    if (!status)
        status = qd_quant_overrides_read(json_object_get(root, "options"), &options, error);
    if (!status)
        status = qd_change_create(model, &options, out, error);
    qd_state_smoothed_free(smoothed, smoothed_count);
    qd_layers_free(&layers);
    return status;
}

bool qd_state_document_has_plan(const struct qd_model *model, const json_t *root)
{
    struct qd_plan_report plan;
    char digest[12];
    qd_model_plan(model, &plan);
    snprintf(digest, sizeof digest, "%08" PRIx32, plan.digest);
    return strcmp(digest, word_of(root, "plan")) == 0;
}

enum qd_status qd_state_document_ranges(const json_t *root, struct qd_range_state **out, size_t *n,
                                        struct qd_error *error)
{
    const json_t *tensors = json_object_get(root, "tensors");
    *n = json_array_size(tensors);
    *out = qd_calloc(*n + 1, sizeof **out);
    if (!*out)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for its ranges");
    for (size_t i = 0; i < *n; i++)
        (*out)[i] = range_of(json_array_get(tensors, i));
    return QD_OK;
}

enum qd_status qd_state_document_check(const json_t *root, const struct qd_model *model, struct qd_error *error)
{
    char digest[20];
    snprintf(digest, sizeof digest, "%016" PRIx64, qd_model_digest(model));
    if (!json_is_object(root))
        return qd_fail(error, QD_ERR_INVALID, "it is no JSON object");
    if (json_integer_value(json_object_get(root, "quantd_state")) != QD_STATE_VERSION)
        return qd_fail(error, QD_ERR_UNSUPPORTED, "it is of another version");
    if (strcmp(word_of(root, "digest"), digest) != 0)
        return qd_fail(error, QD_ERR_CONFLICT, "it is of another model: digest '%.20s', not %s",
                       word_of(root, "digest"), digest);
    const json_t *tensors = json_object_get(root, "tensors");
    if (!json_is_array(tensors))
        return qd_fail(error, QD_ERR_INVALID, "it has no list 'tensors'");
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        const struct qd_range_state range = range_of(json_array_get(tensors, i));
        if (!*range.name || !qd_range_state_sound(&range))
            return qd_fail(error, QD_ERR_INVALID, "tensor %zu ('%.100s') has bounds that can't be", i, range.name);
    }
    return QD_OK;
}

void qd_state_document_merged(const json_t *root, struct qd_model_entry *entry)
{
    const json_t *list = json_object_get(root, "merged");
    entry->merged_count = 0;
    for (size_t i = 0; i < json_array_size(list) && entry->merged_count < QD_MERGED_MAX; i++) {
        const json_t *one = json_array_get(list, i);
        const char *origin = word_of(one, "origin");
        if (qd_origin_valid(origin)) {
            struct qd_merged *to = &entry->merged[entry->merged_count++];
            memcpy(to->origin, origin, sizeof to->origin);
            to->requests = count_of(one, "requests");
        }
    }
}

uint64_t qd_state_document_count(const json_t *root, const char *key) { return count_of(root, key); }
const char *qd_state_document_word(const json_t *root, const char *key) { return word_of(root, key); }
