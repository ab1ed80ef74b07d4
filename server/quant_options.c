/* Quantization options from the configuration, from the body of a PATCH, and to and from the state file. */
#include "server/quant_options.h"

#include "server/layers.h"
#include "server/repository.h"

#include <stdlib.h>
#include <string.h>

void qd_config_quant(const struct qd_config *config, struct qd_quant_options *out)
{
    *out = qd_quant_defaults();
    for (size_t i = 0; i < qd_quant_table_count; i++) {
        struct qd_quant_value value = {0};
        if (qd_config_value(config, qd_quant_table[i].key, &value.word, &value.number))
            /* options.def lists nothing that the engine refuses: tests/unit/test_config.c tries each row */
            (void)!qd_quant_option_set(&qd_quant_table[i], value, out, NULL);
    }
}

/* ------------------------------------------------------------------ of one model */

/* The model of "MODEL=NODE" (false: all models), and the node. */
static bool split(const char *where, char *model, size_t room, const char **node)
{
    const size_t length = strcspn(where, "=");
    *node = where;
    if (!where[length] || length >= room)
        return false;
    memcpy(model, where, length);
    model[length] = 0;
    if (strcmp(model, "*") != 0 && !qd_model_name_valid(model))
        return false; /* the sign belongs to the node's name */
    *node = where + length + 1;
    return strcmp(model, "*") != 0;
}

static bool is_for(const char *where, const char *model, const char **node)
{
    char name[QD_MODEL_NAME_BYTES + 1];
    return !split(where, name, sizeof name, node) || strcmp(name, model) == 0;
}

static enum qd_status value_of_text(const struct qd_config_rule *rule, const struct qd_quant_option **option,
                                    struct qd_quant_value *out, struct qd_error *error)
{
    char *end;
    *option = qd_quant_option_by_key(rule->option);
    if (!*option)
        return qd_fail(error, QD_ERR_INVALID, "'%.60s' is no option of quantization", rule->option);
    *out = (struct qd_quant_value){.word = rule->value};
    if ((*option)->kind == QD_QUANT_WORD)
        return QD_OK;
    const bool yes = strcmp(rule->value, "true") == 0;
    out->number = (*option)->kind == QD_QUANT_BOOL ? yes : strtod(rule->value, &end);
    if ((*option)->kind == QD_QUANT_BOOL ? yes || strcmp(rule->value, "false") == 0 : *rule->value && !*end)
        out->word = NULL; /* else the engine says what it must be */
    return QD_OK;
}

enum qd_status qd_config_quant_of(const struct qd_config *config, const char *model, struct qd_layers *layers,
                                  struct qd_quant_options *out, struct qd_error *error)
{
    const struct qd_quant_option *option;
    struct qd_quant_value value;
    struct qd_error why = {0};
    const char *node;
    enum qd_status status = qd_layers_begin(layers, out, error);
    for (size_t i = 0; !status && i < config->model_options_count; i++) {
        const struct qd_config_rule *rule = &config->model_options[i];
        if (strcmp(rule->where, model) != 0)
            continue;
        status = value_of_text(rule, &option, &value, &why);
        if (!status)
            status = qd_quant_option_set(option, value, out, &why);
        if (status)
            qd_fail(error, status, "option for model '%s': %s", model, why.text);
    }
    for (size_t i = 0; !status && i < config->layers_count; i++) {
        if (!is_for(config->layers[i].where, model, &node))
            continue;
        status = value_of_text(&config->layers[i], &option, &value, &why);
        if (!status)
            status = qd_layers_put(layers, node, option, value, &why);
        if (status)
            qd_fail(error, status, "option for layer '%.100s': %s", node, why.text);
    }
    if (!status)
        qd_layers_use(layers, out);
    return status;
}

static enum qd_status check_model(const struct qd_config *config, const char *model, struct qd_error *error)
{
    struct qd_quant_options options = qd_quant_defaults();
    struct qd_layers layers;
    enum qd_status status = qd_config_quant_of(config, model, &layers, &options, error);
    qd_layers_free(&layers);
    return status;
}

enum qd_status qd_config_check_rules(const struct qd_config *config, struct qd_error *error)
{
    char name[QD_MODEL_NAME_BYTES + 1];
    const char *node;
    enum qd_status status = check_model(config, "", error); /* what is said of all */
    for (size_t i = 0; !status && i < config->model_options_count; i++)
        status = check_model(config, config->model_options[i].where, error);
    for (size_t i = 0; !status && i < config->layers_count; i++)
        if (split(config->layers[i].where, name, sizeof name, &node))
            status = check_model(config, name, error);
    return status;
}

enum qd_status qd_config_check_models(const struct qd_config *config, bool (*has)(void *ctx, const char *name),
                                      void *ctx, struct qd_error *error)
{
    char name[QD_MODEL_NAME_BYTES + 1];
    const char *node;
    for (size_t i = 0; i < config->model_options_count; i++)
        if (!has(ctx, config->model_options[i].where))
            return qd_fail(error, QD_ERR_NOT_FOUND, "--model-option: there is no model '%.60s'",
                           config->model_options[i].where);
    for (size_t i = 0; i < config->layers_count; i++)
        if (split(config->layers[i].where, name, sizeof name, &node) && !has(ctx, name))
            return qd_fail(error, QD_ERR_NOT_FOUND, "--layer: there is no model '%.60s'", name);
    return QD_OK;
}

/* ------------------------------------------------------------------ JSON */

enum qd_status qd_quant_value_of(const struct qd_quant_option *option, const json_t *json, struct qd_quant_value *out,
                                 struct qd_error *error)
{
    const enum qd_quant_kind kind = option->kind;
    const bool fits = kind == QD_QUANT_WORD   ? json_is_string(json)
                      : kind == QD_QUANT_BOOL ? json_is_boolean(json)
                      : kind == QD_QUANT_REAL ? json_is_number(json)
                                              : json_is_integer(json);
    *out = (struct qd_quant_value){.word = json_string_value(json),
                                   .number = json_is_boolean(json) ? json_is_true(json) : json_number_value(json)};
    return fits ? QD_OK
                : qd_fail(error, QD_ERR_INVALID, "'%s' has a value of another type than it can have", option->key);
}

json_t *qd_quant_value_json(const struct qd_quant_option *option, struct qd_quant_value value)
{
    const enum qd_quant_kind kind = option->kind;
    return kind == QD_QUANT_WORD   ? json_string(value.word)
           : kind == QD_QUANT_BOOL ? json_boolean(value.number != 0)
           : kind == QD_QUANT_REAL ? json_real(value.number)
                                   : json_integer((json_int_t)value.number);
}

static bool is_group(const char *key)
{
    for (size_t i = 0; i < qd_quant_table_count; i++)
        if (qd_quant_table[i].group && strcmp(qd_quant_table[i].group, key) == 0)
            return true;
    return false;
}

enum qd_status qd_quant_visit(const char *key, const json_t *json,
                              enum qd_status (*take)(void *ctx, const struct qd_quant_option *option,
                                                     const json_t *json, struct qd_error *error),
                              void *ctx, struct qd_error *error)
{
    const struct qd_quant_option *option = qd_quant_option_by_name(NULL, key);
    const char *name;
    json_t *inner;
    if (option)
        return take(ctx, option, json, error);
    if (!is_group(key))
        return qd_fail(error, QD_ERR_INVALID, "'%.60s' is no option that can be changed", key);
    if (!json_is_object(json) || !json_object_size(json))
        return qd_fail(error, QD_ERR_INVALID, "'%s' must be an object of options", key);
    json_object_foreach((json_t *)(uintptr_t)json, name, inner)
    {
        option = qd_quant_option_by_name(key, name);
        enum qd_status status = option ? take(ctx, option, inner, error)
                                       : qd_fail(error, QD_ERR_INVALID, "'%s.%.60s' is no option that can be changed",
                                                 key, name);
        if (status)
            return status;
    }
    return QD_OK;
}

static enum qd_status take_one(void *ctx, const struct qd_quant_option *option, const json_t *json,
                               struct qd_error *error)
{
    struct qd_quant_value value;
    enum qd_status status = qd_quant_value_of(option, json, &value, error);
    return status ? status : qd_quant_option_set(option, value, ctx, error);
}

enum qd_status qd_quant_options_take(const char *key, const json_t *value, struct qd_quant_options *out,
                                     struct qd_error *error)
{
    return qd_quant_visit(key, value, take_one, out, error);
}

json_t *qd_quant_overrides(const struct qd_quant_options *base, const struct qd_quant_options *now)
{
    json_t *out = json_object();
    for (size_t i = 0; i < qd_quant_table_count; i++) {
        const struct qd_quant_option *option = &qd_quant_table[i];
        json_t *mine = option->name ? qd_quant_value_json(option, qd_quant_option_get(option, now)) : NULL,
               *theirs = option->name ? qd_quant_value_json(option, qd_quant_option_get(option, base)) : NULL;
        if (mine && !json_equal(mine, theirs))
            json_object_set(out, option->key, mine);
        json_decref(mine);
        json_decref(theirs);
    }
    return out;
}

enum qd_status qd_quant_overrides_read(const json_t *overrides, struct qd_quant_options *out, struct qd_error *error)
{
    for (size_t i = 0; i < qd_quant_table_count; i++) {
        const struct qd_quant_option *option = &qd_quant_table[i];
        const json_t *value = option->name ? json_object_get(overrides, option->key) : NULL;
        enum qd_status status = value ? take_one(out, option, value, error) : QD_OK;
        if (status)
            return status;
    }
    return QD_OK;
}
