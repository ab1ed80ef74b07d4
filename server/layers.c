/* Pins and rules of single layers. See layers.h. */
#include "server/layers.h"

#include "base/mem.h"
#include "server/quant_options.h"

#include <string.h>

static enum qd_status no_memory(struct qd_error *error)
{
    return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the options of layers");
}

static const struct qd_quant_option *precision(void) { return qd_quant_option_by_key("precision"); }

/* ------------------------------------------------------------------ the lists */

enum qd_status qd_layers_begin(struct qd_layers *layers, const struct qd_quant_options *options, struct qd_error *error)
{
    *layers = (struct qd_layers){.pins = qd_calloc(options->pin_count, sizeof *layers->pins),
                                 .rules = qd_calloc(options->rule_count, sizeof *layers->rules)};
    if (!layers->pins || !layers->rules)
        return no_memory(error);
    if (options->pin_count)
        memcpy(layers->pins, options->pins, options->pin_count * sizeof *layers->pins);
    if (options->rule_count)
        memcpy(layers->rules, options->rules, options->rule_count * sizeof *layers->rules);
    layers->pin_count = options->pin_count;
    layers->rule_count = options->rule_count;
    return QD_OK;
}

void qd_layers_free(struct qd_layers *layers)
{
    qd_free(layers->pins);
    qd_free(layers->rules);
    *layers = (struct qd_layers){0};
}

void qd_layers_use(const struct qd_layers *layers, struct qd_quant_options *options)
{
    options->pins = layers->pins;
    options->pin_count = layers->pin_count;
    options->rules = layers->rules;
    options->rule_count = layers->rule_count;
}

static void drop_pins(struct qd_layers *layers, const char *node, bool asked)
{
    size_t kept = 0;
    for (size_t i = 0; i < layers->pin_count; i++)
        if (strcmp(layers->pins[i].node, node) != 0 || (asked && layers->pins[i].kind != QD_PIN_ASKED))
            layers->pins[kept++] = layers->pins[i];
    layers->pin_count = kept;
}

enum qd_status qd_layers_pin(struct qd_layers *layers, struct qd_layer_pin pin, struct qd_error *error)
{
    drop_pins(layers, pin.node, false);
    struct qd_layer_pin *grown = qd_realloc(layers->pins, layers->pin_count + 1, sizeof *grown);
    if (!grown)
        return no_memory(error);
    layers->pins = grown;
    grown[layers->pin_count++] = pin;
    return QD_OK;
}

void qd_layers_drop(struct qd_layers *layers, const char *node, const struct qd_quant_option *option)
{
    size_t kept = 0;
    if (!option || option == precision())
        drop_pins(layers, node, true);
    for (size_t i = 0; i < layers->rule_count; i++)
        if (strcmp(layers->rules[i].node, node) != 0 || (option && layers->rules[i].option != option))
            layers->rules[kept++] = layers->rules[i];
    layers->rule_count = kept;
}

enum qd_status qd_layers_put(struct qd_layers *layers, const char *node, const struct qd_quant_option *option,
                             struct qd_quant_value value, struct qd_error *error)
{
    struct qd_layer_rule rule = {.node = node};
    if (option == precision()) {
        struct qd_quant_options read = qd_quant_defaults();
        enum qd_status status = qd_quant_option_set(option, value, &read, error);
        return status ? status
                      : qd_layers_pin(layers, (struct qd_layer_pin){.node = node, .precision = read.precision}, error);
    }
    enum qd_status status = qd_layer_rule_set(&rule, option, value, error);
    if (status)
        return status;
    qd_layers_drop(layers, node, option);
    struct qd_layer_rule *grown = qd_realloc(layers->rules, layers->rule_count + 1, sizeof *grown);
    if (!grown)
        return no_memory(error);
    layers->rules = grown;
    grown[layers->rule_count++] = rule;
    return QD_OK;
}

/* ------------------------------------------------------------------ PATCH */

struct taker {
    struct qd_layers *layers;
    const char *node;
};

static enum qd_status take_one(void *ctx, const struct qd_quant_option *option, const json_t *json,
                               struct qd_error *error)
{
    const struct taker *t = ctx;
    struct qd_quant_value value;
    if (json_is_null(json)) {
        qd_layers_drop(t->layers, t->node, option);
        return QD_OK;
    }
    enum qd_status status = qd_quant_value_of(option, json, &value, error);
    return status ? status : qd_layers_put(t->layers, t->node, option, value, error);
}

enum qd_status qd_layers_take(struct qd_layers *layers, const char *node, const json_t *value, struct qd_error *error)
{
    struct taker taker = {layers, node};
    struct qd_error why = {0};
    const char *key;
    json_t *inner;
    if (json_is_null(value)) {
        qd_layers_drop(layers, node, NULL);
        return QD_OK;
    }
    if (!json_is_object(value))
        return qd_fail(error, QD_ERR_INVALID, "layer '%.100s' must be an object of options, or null", node);
    json_object_foreach((json_t *)(uintptr_t)value, key, inner)
    {
        enum qd_status status = qd_quant_visit(key, inner, take_one, &taker, &why);
        if (status)
            return qd_fail(error, status, "layer '%.100s': %s", node, why.text);
    }
    return QD_OK;
}

/* {"name": value}, or {"group": {"name": value}}, into one pattern's object. */
static void set_option(json_t *layer, const struct qd_quant_option *option, struct qd_quant_value value)
{
    json_t *into = layer;
    if (option->group && !(into = json_object_get(layer, option->group))) {
        json_object_set_new(layer, option->group, json_object());
        into = json_object_get(layer, option->group);
    }
    json_object_set_new(into, option->name, qd_quant_value_json(option, value));
}

static json_t *layer_of(json_t *all, const char *node)
{
    if (!json_object_get(all, node))
        json_object_set_new(all, node, json_object());
    return json_object_get(all, node);
}

json_t *qd_layers_json(const struct qd_quant_options *options)
{
    json_t *all = json_object();
    for (size_t i = 0; i < options->pin_count; i++)
        if (options->pins[i].kind == QD_PIN_ASKED && options->pins[i].precision != QD_PRECISION_AUTO)
            set_option(layer_of(all, options->pins[i].node), precision(),
                       (struct qd_quant_value){.word = qd_precision_name(options->pins[i].precision)});
    for (size_t i = 0; i < options->rule_count; i++)
        set_option(layer_of(all, options->rules[i].node), options->rules[i].option,
                   qd_layer_rule_get(&options->rules[i]));
    return all;
}

/* ------------------------------------------------------------------ the state file */

/* Is there a rule of the same pattern and option, and (with `same`) value? */
static bool has(const struct qd_quant_options *options, const struct qd_layer_rule *rule, bool same)
{
    for (size_t i = 0; i < options->rule_count; i++) {
        const struct qd_layer_rule *other = &options->rules[i];
        if (other->option == rule->option && strcmp(other->node, rule->node) == 0)
            return !same || other->value == rule->value;
    }
    return false;
}

static json_t *rule_json(const struct qd_layer_rule *rule, json_t *value)
{
    return json_pack("{s:s, s:s, s:o}", "node", rule->node, "option", rule->option->key, "value", value);
}

json_t *qd_layers_overrides(const struct qd_quant_options *base, const struct qd_quant_options *now)
{
    json_t *list = json_array();
    for (size_t i = 0; i < base->rule_count; i++)
        if (!has(now, &base->rules[i], false))
            json_array_append_new(list, rule_json(&base->rules[i], json_null()));
    for (size_t i = 0; i < now->rule_count; i++)
        if (!has(base, &now->rules[i], true))
            json_array_append_new(
                list, rule_json(&now->rules[i],
                                qd_quant_value_json(now->rules[i].option, qd_layer_rule_get(&now->rules[i]))));
    return list;
}

enum qd_status qd_layers_overrides_read(struct qd_layers *layers, const json_t *list, struct qd_error *error)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i), *value = json_object_get(one, "value");
        const char *node = json_string_value(json_object_get(one, "node")),
                   *key = json_string_value(json_object_get(one, "option"));
        const struct qd_quant_option *option = key ? qd_quant_option_by_key(key) : NULL;
        struct taker taker = {layers, node};
        if (!node || !*node || !option || !value)
            return qd_fail(error, QD_ERR_INVALID, "entry %zu of 'rules' has no node, known option and value", i);
        enum qd_status status = take_one(&taker, option, value, error);
        if (status)
            return status;
    }
    return QD_OK;
}
