/* The file layer: JSON read with jansson, each key checked against the table; and the table as a JSON schema. */
#include "config/nearest.h"
#include "config/option.h"

#include <jansson.h>
#include <string.h>

static const char *type_name(const json_t *value)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a string", [JSON_INTEGER] = "a number",
        [JSON_REAL] = "a number",    [JSON_TRUE] = "a boolean", [JSON_FALSE] = "a boolean", [JSON_NULL] = "null",
    };
    return names[json_typeof(value)];
}

/* What the row's kind is called, and whether the JSON value is of it. */
static const char *wanted_type(const struct qd_option *option, const json_t *value, bool *fits)
{
    switch (option->kind) {
    case QD_OPTION_IS_BOOL:
        *fits = json_is_boolean(value);
        return "true or false";
    case QD_OPTION_IS_U32:
    case QD_OPTION_IS_U64:
        *fits = json_is_integer(value);
        return "a whole number";
    case QD_OPTION_IS_REAL:
    case QD_OPTION_IS_ONE_MINUS:
        *fits = json_is_number(value);
        return "a number";
    case QD_OPTION_IS_MODELS:
        *fits = json_is_object(value);
        return "an object of {\"name\": \"file\"}";
    case QD_OPTION_IS_RULES:
        *fits = json_is_object(value);
        return "an object of objects of options";
    default:
        *fits = json_is_string(value);
        return "a string";
    }
}

static enum qd_status set_models(struct qd_layer *layer, const struct qd_option *option, const json_t *models)
{
    for (void *at = json_object_iter((json_t *)models); at; at = json_object_iter_next((json_t *)models, at)) {
        const char *name = json_object_iter_key(at);
        const json_t *file = json_object_iter_value(at);
        if (!json_is_string(file))
            return qd_layer_fail(layer, option, "the file of model \"%.60s\" must be a string, is %s", name,
                                 type_name(file));
        enum qd_status status = qd_layer_add_model(layer, option, name, strlen(name), json_string_value(file),
                                                   json_string_length(file));
        if (status)
            return status;
    }
    return QD_OK;
}

/* A value as a flag would have it. */
static const char *text_of(const json_t *value, char *text, size_t room)
{
    if (json_is_string(value))
        return json_string_value(value);
    if (json_is_boolean(value))
        return json_is_true(value) ? "true" : "false";
    if (json_is_integer(value))
        snprintf(text, room, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else
        snprintf(text, room, "%.17g", json_real_value(value));
    return text;
}

/* {"conv1": {"guard": "clip"}} */
static enum qd_status set_rules(struct qd_layer *layer, const struct qd_option *option, const json_t *rules)
{
    const char *where, *key;
    json_t *options, *value;
    char text[64];
    json_object_foreach((json_t *)(uintptr_t)rules, where, options)
    {
        if (!json_is_object(options))
            return qd_layer_fail(layer, option, "\"%.60s\" must be an object of options, is %s", where,
                                 type_name(options));
        json_object_foreach(options, key, value)
        {
            if (json_is_object(value) || json_is_array(value) || json_is_null(value))
                return qd_layer_fail(layer, option, "%.40s of \"%.60s\" can't be %s", key, where, type_name(value));
            const char *as_text = text_of(value, text, sizeof text);
            enum qd_status status = qd_layer_add_rule(layer, option, where, strlen(where), key, strlen(key), as_text,
                                                      strlen(as_text));
            if (status)
                return status;
        }
    }
    return QD_OK;
}

static enum qd_status set_value(struct qd_layer *layer, const struct qd_option *option, const json_t *value)
{
    char text[64];
    bool fits;
    const char *wanted = wanted_type(option, value, &fits);
    if (!fits && json_is_real(value))
        return qd_layer_fail(layer, option, "must be %s, is %.15g", wanted, json_real_value(value));
    if (!fits)
        return qd_layer_fail(layer, option, "must be %s, is %s", wanted, type_name(value));
    if (json_is_object(value))
        return (option->kind == QD_OPTION_IS_RULES ? set_rules : set_models)(layer, option, value);
    return qd_layer_set(layer, option, text_of(value, text, sizeof text));
}

static enum qd_status unknown_key(const struct qd_layer *layer, const char *key)
{
    struct qd_nearest nearest = qd_nearest_to(key);
    for (size_t i = 0; i < qd_option_count; i++)
        if (qd_options[i].key)
            qd_nearest_offer(&nearest, qd_options[i].key);
    return qd_fail(layer->error, QD_ERR_INVALID, "%s: key \"%.60s\": there is no such option%s%s%s", layer->file, key,
                   nearest.best ? "; did you mean \"" : "", nearest.best ? nearest.best : "",
                   nearest.best ? "\"?" : "");
}

enum qd_status qd_layer_json(struct qd_layer *layer, const char *text, size_t size)
{
    json_error_t where;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return qd_fail(layer->error,
                       json_error_code(&where) == json_error_out_of_memory ? QD_ERR_NO_MEMORY : QD_ERR_FORMAT,
                       "%s:%d:%d: %s", layer->file, where.line, where.column, where.text);
    enum qd_status status = QD_OK;
    if (!json_is_object(root))
        status = qd_fail(layer->error, QD_ERR_FORMAT, "%s: must be a JSON object, is %s", layer->file, type_name(root));
    for (void *at = json_object_iter(root); at && !status; at = json_object_iter_next(root, at)) {
        const char *key = json_object_iter_key(at);
        const struct qd_option *option = qd_option_by_key(key, strlen(key));
        if (strncmp(key, "//", 2) == 0 || strcmp(key, "$schema") == 0)
            continue; /* JSON has no comments, and a file without any explains nothing */
        status = option ? set_value(layer, option, json_object_iter_value(at)) : unknown_key(layer, key);
    }
    json_decref(root);
    return status;
}

/* ------------------------------------------------------------------ the schema */

static json_t *schema_words(const char *words)
{
    json_t *list = json_array();
    for (const char *word = words; list && *word; word += *word == '|') {
        size_t length = strcspn(word, "|");
        if (json_array_append_new(list, json_stringn(word, length)) < 0) {
            json_decref(list);
            return NULL;
        }
        word += length;
    }
    return list;
}

static json_t *schema_number(const struct qd_option *option)
{
    bool whole = option->kind == QD_OPTION_IS_U32 || option->kind == QD_OPTION_IS_U64;
    const char *low = option->above ? "exclusiveMinimum" : "minimum";
    const char *high = option->below ? "exclusiveMaximum" : "maximum";
    return json_pack("{s:s, s:o, s:o}", "type", whole ? "integer" : "number", low,
                     whole ? json_integer((json_int_t)option->low) : json_real(option->low), high,
                     whole ? json_integer((json_int_t)option->high) : json_real(option->high));
}

/* The default of a row, as JSON; NULL when it has none. */
static json_t *schema_default(const struct qd_option *option)
{
    if (option->kind == QD_OPTION_IS_WORD || option->kind == QD_OPTION_IS_ADDRESS || option->kind == QD_OPTION_IS_ANY)
        return json_string(option->fallback);
    return option->fallback ? json_loads(option->fallback, JSON_DECODE_ANY, NULL) : NULL;
}

static json_t *schema_property(const struct qd_option *option)
{
    json_t *property;
    if (option->kind == QD_OPTION_IS_WORD)
        property = json_pack("{s:s, s:o}", "type", "string", "enum", schema_words(option->words));
    else if (option->kind == QD_OPTION_IS_MODELS)
        property = json_pack("{s:s, s:{s:s}}", "type", "object", "additionalProperties", "type", "string");
    else if (option->kind == QD_OPTION_IS_RULES)
        property = json_pack("{s:s, s:{s:s}}", "type", "object", "additionalProperties", "type", "object");
    else if (option->kind == QD_OPTION_IS_BOOL)
        property = json_pack("{s:s}", "type", "boolean");
    else if (option->kind == QD_OPTION_IS_ADDRESS || option->kind == QD_OPTION_IS_ANY)
        property = json_pack("{s:s}", "type", "string");
    else
        property = schema_number(option);
    json_t *fallback = schema_default(option);
    if (json_object_set_new(property, "description", json_string(option->help)) < 0 ||
        (fallback && json_object_set(property, "default", fallback) < 0)) {
        json_decref(property);
        property = NULL;
    }
    json_decref(fallback);
    return property;
}

enum qd_status qd_config_print_schema(FILE *out, struct qd_error *error)
{
    json_t *properties = json_pack("{s:{s:s}}", "$schema", "type", "string");
    int bad = !properties;
    for (size_t i = 0; i < qd_option_count && !bad; i++)
        if (qd_options[i].key)
            bad = json_object_set_new(properties, qd_options[i].key, schema_property(&qd_options[i]));
    json_t *schema = json_pack("{s:s, s:s, s:s, s:o, s:{s:{}}, s:b}", "$schema",
                               "https://json-schema.org/draft/2020-12/schema", "title", "quantd.json", "type", "object",
                               "properties", properties, "patternProperties", "^//", "additionalProperties", 0);
    if (bad || !schema) {
        json_decref(schema);
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the schema");
    }
    int written = json_dumpf(schema, out, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    json_decref(schema);
    if (written < 0 || fputc('\n', out) == EOF || fflush(out) != 0)
        return qd_fail(error, QD_ERR_IO, "the schema could not be written");
    return QD_OK;
}
