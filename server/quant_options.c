/* Quantization options from the configuration, from the body of a PATCH, and to and from the state file. */
#include "server/quant_options.h"

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

/* ------------------------------------------------------------------ JSON */

static bool value_of(enum qd_quant_kind kind, const json_t *json, struct qd_quant_value *out)
{
    *out = (struct qd_quant_value){.word = json_string_value(json),
                                   .number = json_is_boolean(json) ? json_is_true(json) : json_number_value(json)};
    return kind == QD_QUANT_WORD   ? json_is_string(json)
           : kind == QD_QUANT_BOOL ? json_is_boolean(json)
           : kind == QD_QUANT_REAL ? json_is_number(json)
                                   : json_is_integer(json);
}

static json_t *json_of(enum qd_quant_kind kind, struct qd_quant_value value)
{
    return kind == QD_QUANT_WORD   ? json_string(value.word)
           : kind == QD_QUANT_BOOL ? json_boolean(value.number != 0)
           : kind == QD_QUANT_REAL ? json_real(value.number)
                                   : json_integer((json_int_t)value.number);
}

enum qd_status qd_quant_option_take(const struct qd_quant_option *option, const json_t *value,
                                    struct qd_quant_options *out, struct qd_error *error)
{
    struct qd_quant_value taken;
    if (!value_of(option->kind, value, &taken))
        return qd_fail(error, QD_ERR_INVALID, "'%s' has a value of another type than it can have", option->key);
    return qd_quant_option_set(option, taken, out, error);
}

static bool is_group(const char *key)
{
    for (size_t i = 0; i < qd_quant_table_count; i++)
        if (qd_quant_table[i].group && strcmp(qd_quant_table[i].group, key) == 0)
            return true;
    return false;
}

enum qd_status qd_quant_options_take(const char *key, const json_t *value, struct qd_quant_options *out,
                                     struct qd_error *error)
{
    const struct qd_quant_option *option = qd_quant_option_by_name(NULL, key);
    if (option)
        return qd_quant_option_take(option, value, out, error);
    if (!is_group(key))
        return qd_fail(error, QD_ERR_INVALID, "'%.60s' is no option that can be changed", key);
    if (!json_is_object(value) || !json_object_size(value))
        return qd_fail(error, QD_ERR_INVALID, "'%s' must be an object of options", key);
    for (void *at = json_object_iter((json_t *)(uintptr_t)value); at;
         at = json_object_iter_next((json_t *)(uintptr_t)value, at)) {
        option = qd_quant_option_by_name(key, json_object_iter_key(at));
        if (!option)
            return qd_fail(error, QD_ERR_INVALID, "'%s.%.60s' is no option that can be changed", key,
                           json_object_iter_key(at));
        enum qd_status status = qd_quant_option_take(option, json_object_iter_value(at), out, error);
        if (status)
            return status;
    }
    return QD_OK;
}

json_t *qd_quant_overrides(const struct qd_quant_options *base, const struct qd_quant_options *now)
{
    json_t *out = json_object();
    for (size_t i = 0; i < qd_quant_table_count; i++) {
        const struct qd_quant_option *option = &qd_quant_table[i];
        json_t *mine = option->name ? json_of(option->kind, qd_quant_option_get(option, now)) : NULL,
               *theirs = option->name ? json_of(option->kind, qd_quant_option_get(option, base)) : NULL;
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
        enum qd_status status = value ? qd_quant_option_take(option, value, out, error) : QD_OK;
        if (status)
            return status;
    }
    return QD_OK;
}
