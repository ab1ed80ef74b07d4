/* The table's rows as data, and the checks and storage of one value. Where values come from is config.c's (flags,
 * environment) and config_json.c's business. */
#include "config/option.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define ABOVE      true
#define FROM       false
#define FIELD(key) .offset = offsetof(struct qd_config, key)

const struct qd_option qd_options[] = {
#define QD_OPTION_GROUP(title) {.kind = QD_OPTION_IS_GROUP, .help = title},
#define QD_OPTION_BOOL(name, value, text)                                                                              \
    {.key = #name, .help = text, .kind = QD_OPTION_IS_BOOL, FIELD(name), .fallback = #value},
#define QD_OPTION_U32(name, value, from, to, text)                                                                     \
    {.key = #name, .help = text, .kind = QD_OPTION_IS_U32, FIELD(name), .low = from, .high = to, .fallback = #value},
#define QD_OPTION_U64(name, value, from, to, text)                                                                     \
    {.key = #name, .help = text, .kind = QD_OPTION_IS_U64, FIELD(name), .low = from, .high = to, .fallback = #value},
#define QD_OPTION_REAL(name, value, bound, from, to, text)                                                             \
    {.key = #name,                                                                                                     \
     .help = text,                                                                                                     \
     .kind = QD_OPTION_IS_REAL,                                                                                        \
     FIELD(name),                                                                                                      \
     .low = from,                                                                                                      \
     .high = to,                                                                                                       \
     .above = bound,                                                                                                   \
     .fallback = #value},
#define QD_OPTION_WORD(name, value, list, text)                                                                        \
    {.key = #name, .help = text, .kind = QD_OPTION_IS_WORD, FIELD(name), .words = list, .fallback = value},
#define QD_OPTION_TEXT(name, value, check, text)                                                                       \
    {.key = #name, .help = text, .kind = QD_OPTION_IS_##check, FIELD(name), .fallback = value},
#define QD_OPTION_MODELS(name, one, text)                                                                              \
    {.key = #name, .help = text, .kind = QD_OPTION_IS_MODELS, FIELD(name), .flag = one},
#define QD_OPTION_RULES(name, one, form, text)                                                                         \
    {.key = #name,                                                                                                     \
     .help = text,                                                                                                     \
     .kind = QD_OPTION_IS_RULES,                                                                                       \
     FIELD(name),                                                                                                      \
     .flag = one,                                                                                                      \
     .count = offsetof(struct qd_config, name##_count),                                                                \
     .wanted = form},
#define QD_OPTION_ONE_MINUS(name, target, text)                                                                        \
    {.key = #name,                                                                                                     \
     .help = text,                                                                                                     \
     .kind = QD_OPTION_IS_ONE_MINUS,                                                                                   \
     FIELD(target),                                                                                                    \
     .high = 1,                                                                                                        \
     .below = true,                                                                                                    \
     .of = #target},
#include "config/options.def"
};
const size_t qd_option_count = sizeof qd_options / sizeof qd_options[0];
_Static_assert(sizeof qd_options / sizeof qd_options[0] <= QD_LAYER_SETTERS, "more rows than a layer notes");

/* ------------------------------------------------------------------ names and places */

const struct qd_option *qd_option_by_key(const char *key, size_t length)
{
    for (size_t i = 0; i < qd_option_count; i++)
        if (qd_options[i].key && strlen(qd_options[i].key) == length && memcmp(qd_options[i].key, key, length) == 0)
            return &qd_options[i];
    return NULL;
}

static void copy_mapped(const char *from, char *to, size_t room, bool upper)
{
    size_t i = 0;
    for (; from[i] && i + 1 < room; i++)
        to[i] = upper ? (char)toupper((unsigned char)from[i]) : from[i] == '_' ? '-' : from[i];
    to[i] = 0;
}

const char *qd_option_flag(const struct qd_option *option, char *text, size_t room)
{
    copy_mapped(option->flag ? option->flag : option->key, text, room, false);
    return text;
}

const char *qd_option_allowed(const struct qd_option *option, char *text, size_t room)
{
    text[0] = 0;
    if (option->words)
        snprintf(text, room, "%s", option->words);
    else if (option->high > option->low)
        snprintf(text, room, "%s %.15g and %s %.15g", option->above ? ">" : ">=", option->low,
                 option->below ? "<" : "<=", option->high);
    return text;
}

enum qd_status qd_layer_fail(const struct qd_layer *layer, const struct qd_option *option, const char *format, ...)
{
    char text[QD_ERROR_TEXT_BYTES], name[64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    switch (layer->source) {
    case QD_LAYER_FILE:
        return qd_fail(layer->error, QD_ERR_INVALID, "%s: key \"%s\": %s", layer->file, option->key, text);
    case QD_LAYER_ENVIRONMENT:
        copy_mapped(option->key, name, sizeof name, true);
        return qd_fail(layer->error, QD_ERR_INVALID, "environment variable QUANTD_%s: %s", name, text);
    case QD_LAYER_FLAGS:
        return qd_fail(layer->error, QD_ERR_INVALID, "--%s: %s", qd_option_flag(option, name, sizeof name), text);
    case QD_LAYER_DEFAULT:
        break;
    }
    return qd_fail(layer->error, QD_ERR_INTERNAL, "the default of \"%s\": %s", option->key, text);
}

/* ------------------------------------------------------------------ values */

static enum qd_status no_memory(const struct qd_layer *layer)
{
    return qd_fail(layer->error, QD_ERR_NO_MEMORY, "no memory for the configuration");
}

/* Plain decimal notation only: strtod alone would take " 1", "0x10", "nan" and "inf". */
static bool parse_number(const char *text, bool whole, double *out)
{
    const char *allowed = whole ? "0123456789" : "0123456789.+-eE";
    size_t start = text[0] == '-';
    if (!isdigit((unsigned char)text[start]) || text[start + strspn(text + start, allowed)])
        return false;
    char *end;
    errno = 0;
    *out = strtod(text, &end);
    return !*end && isfinite(*out);
}

static enum qd_status set_number(struct qd_layer *layer, const struct qd_option *option, const char *text)
{
    bool whole = option->kind == QD_OPTION_IS_U32 || option->kind == QD_OPTION_IS_U64;
    char allowed[96];
    double value;
    if (!parse_number(text, whole, &value))
        return qd_layer_fail(layer, option, "must be a %s, is \"%.60s\"", whole ? "whole number" : "number", text);
    if (value < option->low || value > option->high || (option->above && value <= option->low) ||
        (option->below && value >= option->high))
        return qd_layer_fail(layer, option, "must be %s, is %.60s", qd_option_allowed(option, allowed, sizeof allowed),
                             text);
    void *field = (char *)layer->config + option->offset;
    /* Whole numbers of the table end far below 2^53, so the way over a double is exact. */
    if (option->kind == QD_OPTION_IS_U32)
        *(uint32_t *)field = (uint32_t)value;
    else if (option->kind == QD_OPTION_IS_U64)
        *(uint64_t *)field = (uint64_t)value;
    else
        *(double *)field = option->kind == QD_OPTION_IS_ONE_MINUS ? 1 - value : value;
    return QD_OK;
}

static enum qd_status set_bool(struct qd_layer *layer, const struct qd_option *option, const char *text)
{
    bool yes = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
    if (!yes && strcmp(text, "false") != 0 && strcmp(text, "0") != 0)
        return qd_layer_fail(layer, option, "must be true or false, is \"%.60s\"", text);
    *(bool *)((char *)layer->config + option->offset) = yes;
    return QD_OK;
}

static enum qd_status set_text(struct qd_layer *layer, const struct qd_option *option, const char *text)
{
    struct sockaddr_storage address;
    socklen_t length;
    struct qd_error why;
    if (option->kind == QD_OPTION_IS_ADDRESS && qd_config_address(text, &address, &length, &why))
        return qd_layer_fail(layer, option, "%s", why.text);
    char *copy = qd_strndup(text, strlen(text));
    if (!copy)
        return no_memory(layer);
    char **field = (char **)((char *)layer->config + option->offset);
    qd_free(*field);
    *field = copy;
    return QD_OK;
}

static enum qd_status set_word(struct qd_layer *layer, const struct qd_option *option, const char *text)
{
    size_t length = strlen(text);
    bool listed = false;
    for (const char *word = option->words; *word && !listed; word += strcspn(word, "|"), word += *word == '|')
        listed = strcspn(word, "|") == length && memcmp(word, text, length) == 0;
    if (!listed)
        return qd_layer_fail(layer, option, "must be one of %s, is \"%.60s\"", option->words, text);
    return set_text(layer, option, text);
}

/* NAME=FILE, several with commas between in the environment. */
static enum qd_status set_models(struct qd_layer *layer, const struct qd_option *option, const char *text)
{
    bool list = layer->source == QD_LAYER_ENVIRONMENT;
    do {
        size_t piece = list ? strcspn(text, ",") : strlen(text), name = strcspn(text, "=");
        if (name >= piece)
            return qd_layer_fail(layer, option, "must be NAME=FILE, is \"%.*s\"", (int)(piece < 60 ? piece : 60), text);
        enum qd_status status = qd_layer_add_model(layer, option, text, name, text + name + 1, piece - name - 1);
        if (status)
            return status;
        text += piece;
    } while (*text++ == ',');
    return QD_OK;
}

/* WHERE:OPTION=VALUE, several with commas between in the environment. A node's name may have colons. */
static enum qd_status set_rules(struct qd_layer *layer, const struct qd_option *option, const char *text)
{
    const bool list = layer->source == QD_LAYER_ENVIRONMENT;
    do {
        const size_t piece = list ? strcspn(text, ",") : strlen(text);
        size_t colon = piece, equals;
        while (colon > 0 && text[colon - 1] != ':')
            colon--;
        for (equals = colon; equals < piece && text[equals] != '=';)
            equals++;
        if (colon < 2 || equals == piece)
            return qd_layer_fail(layer, option, "must be %s, is \"%.*s\"", option->wanted,
                                 (int)(piece < 60 ? piece : 60), text);
        enum qd_status status = qd_layer_add_rule(layer, option, text, colon - 1, text + colon, equals - colon,
                                                  text + equals + 1, piece - equals - 1);
        if (status)
            return status;
        text += piece;
    } while (*text++ == ',');
    return QD_OK;
}

enum qd_status qd_layer_set(struct qd_layer *layer, const struct qd_option *option, const char *text)
{
    static enum qd_status (*const setters[])(struct qd_layer *, const struct qd_option *, const char *) = {
        [QD_OPTION_IS_BOOL] = set_bool,   [QD_OPTION_IS_U32] = set_number,    [QD_OPTION_IS_U64] = set_number,
        [QD_OPTION_IS_REAL] = set_number, [QD_OPTION_IS_WORD] = set_word,     [QD_OPTION_IS_ADDRESS] = set_text,
        [QD_OPTION_IS_ANY] = set_text,    [QD_OPTION_IS_MODELS] = set_models, [QD_OPTION_IS_ONE_MINUS] = set_number,
        [QD_OPTION_IS_RULES] = set_rules,
    };
    if (option->kind == QD_OPTION_IS_MODELS || option->kind == QD_OPTION_IS_RULES)
        return setters[option->kind](layer, option, text); /* notes itself, one by one */
    enum qd_status status = qd_layer_note(layer, option);
    return status ? status : setters[option->kind](layer, option, text);
}

enum qd_status qd_layer_note(struct qd_layer *layer, const struct qd_option *option)
{
    for (size_t i = 0; i < qd_option_count; i++) {
        const struct qd_option *other = layer->setters[i];
        if (other && other != option && other->offset == option->offset)
            return qd_layer_fail(layer, option, "says the same as %s, give one of them", other->key);
    }
    layer->setters[option - qd_options] = option;
    return QD_OK;
}

static bool good_name(const char *name, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (name[i] <= ' ' || name[i] > '~' || strchr("/\\\"'", name[i]))
            return false;
    return length >= 1 && length <= 100 && name[0] != '.';
}

enum qd_status qd_layer_add_model(struct qd_layer *layer, const struct qd_option *option, const char *name,
                                  size_t name_length, const char *file, size_t file_length)
{
    struct qd_config *config = layer->config;
    if (!good_name(name, name_length))
        return qd_layer_fail(layer, option,
                             "a model's name is 1 to 100 printable ASCII characters without / \\ ' \" and space, not "
                             "beginning with a dot, is \"%.*s\"",
                             (int)(name_length < 60 ? name_length : 60), name);
    if (!file_length)
        return qd_layer_fail(layer, option, "model \"%.*s\" has no file", (int)name_length, name);
    if (!layer->setters[option - qd_options]) {
        for (size_t i = 0; i < config->models_count; i++) {
            qd_free(config->models[i].name);
            qd_free(config->models[i].file);
        }
        config->models_count = 0;
        layer->setters[option - qd_options] = option;
    }
    for (size_t i = 0; i < config->models_count; i++)
        if (strlen(config->models[i].name) == name_length && memcmp(config->models[i].name, name, name_length) == 0)
            return qd_layer_fail(layer, option, "the model \"%.*s\" is named twice", (int)name_length, name);
    struct qd_config_model *grown = qd_realloc(config->models, config->models_count + 1, sizeof *grown);
    if (!grown)
        return no_memory(layer);
    config->models = grown;
    struct qd_config_model model = {qd_strndup(name, name_length), qd_strndup(file, file_length)};
    if (!model.name || !model.file) {
        qd_free(model.name);
        qd_free(model.file);
        return no_memory(layer);
    }
    grown[config->models_count++] = model;
    return QD_OK;
}

static void free_rule(struct qd_config_rule *rule)
{
    qd_free(rule->where);
    qd_free(rule->option);
    qd_free(rule->value);
}

void qd_option_free_rules(struct qd_config *config, const struct qd_option *option)
{
    struct qd_config_rule **list = (struct qd_config_rule **)((char *)config + option->offset);
    size_t *count = (size_t *)((char *)config + option->count);
    for (size_t i = 0; i < *count; i++)
        free_rule(&(*list)[i]);
    qd_free(*list);
    *list = NULL;
    *count = 0;
}

enum qd_status qd_layer_add_rule(struct qd_layer *layer, const struct qd_option *option, const char *where,
                                 size_t where_length, const char *key, size_t key_length, const char *value,
                                 size_t value_length)
{
    struct qd_config_rule **list = (struct qd_config_rule **)((char *)layer->config + option->offset);
    size_t *count = (size_t *)((char *)layer->config + option->count);
    if (!where_length || !qd_option_by_key(key, key_length))
        return qd_layer_fail(layer, option, "must be %s with an option of this list, is \"%.*s\" for \"%.*s\"",
                             option->wanted, (int)(key_length < 60 ? key_length : 60), key,
                             (int)(where_length < 60 ? where_length : 60), where);
    if (!layer->setters[option - qd_options])
        qd_option_free_rules(layer->config, option);
    layer->setters[option - qd_options] = option;
    struct qd_config_rule *grown = qd_realloc(*list, *count + 1, sizeof *grown);
    if (!grown)
        return no_memory(layer);
    *list = grown;
    struct qd_config_rule rule = {qd_strndup(where, where_length), qd_strndup(key, key_length),
                                  qd_strndup(value, value_length)};
    if (!rule.where || !rule.option || !rule.value) {
        free_rule(&rule);
        return no_memory(layer);
    }
    grown[(*count)++] = rule;
    return QD_OK;
}

/* ------------------------------------------------------------------ addresses */

static bool parse_port(const char *text, in_port_t *out)
{
    size_t digits = strspn(text, "0123456789");
    long port = digits && digits <= 5 && !text[digits] ? strtol(text, NULL, 10) : -1;
    *out = htons((uint16_t)port);
    return port >= 0 && port <= 65535;
}

enum qd_status qd_config_address(const char *text, struct sockaddr_storage *out, socklen_t *length,
                                 struct qd_error *error)
{
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    char host[64];
    bool brackets = text[0] == '[';
    const char *end = strrchr(text, brackets ? ']' : ':');
    const char *port = end ? end + (brackets ? 2 : 1) : NULL;
    memset(out, 0, sizeof *out);
    if (!end || (brackets && end[1] != ':') || (size_t)(end - text) >= sizeof host)
        goto fail;
    memcpy(host, text + brackets, (size_t)(end - text) - brackets);
    host[(size_t)(end - text) - brackets] = 0;
    if (brackets && inet_pton(AF_INET6, host, &v6->sin6_addr) == 1 && parse_port(port, &v6->sin6_port)) {
        v6->sin6_family = AF_INET6;
        *length = sizeof *v6;
        return QD_OK;
    }
    if (!brackets && inet_pton(AF_INET, host, &v4->sin_addr) == 1 && parse_port(port, &v4->sin_port)) {
        v4->sin_family = AF_INET;
        *length = sizeof *v4;
        return QD_OK;
    }
fail:
    return qd_fail(error, QD_ERR_INVALID,
                   "must be a numeric address and a port, as 127.0.0.1:8080 or [::1]:8080, is \"%.60s\"", text);
}
