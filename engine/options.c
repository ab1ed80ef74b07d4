/* The options of quantization: the one table of them, defaults, checks. Words are engine/names.c's. */
#include "engine/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct qd_quant_options qd_quant_defaults(void)
{
    return (struct qd_quant_options){
        .mode = QD_MODE_EMA,
        .guard = QD_GUARD_WIDEN,
        .activation_scheme = QD_ASYMMETRIC,
        .activation_granularity = QD_GRANULARITY_AUTO,
        .weight_granularity = QD_PER_CHANNEL,
        .weight_scheme = QD_SYMMETRIC,
        .precision = QD_PRECISION_AUTO,
        .weight_bits = QD_WEIGHT_BITS,
        .fake_weight_bits = 8,
        .fake_activation_bits = 8,
        .averaging_constant = 0.01,
        .max_step = 2,
        .guard_tolerance = 0.1,
        .publish_tolerance = 0.01,
        .min_observations = 8,
        .bias_correction = true,
        .smoothing = true,
        .target_cosine = -1,
        .target_sqnr_db = 0,
        .epochs_kept = 8,
    };
}

/* ------------------------------------------------------------------ lists */

static char *copied(const char *name) { return qd_strndup(name, strlen(name)); }

static bool copy_pins(const struct qd_quant_options *from, struct qd_quant_options *out)
{
    struct qd_layer_pin *pins = qd_calloc(from->pin_count, sizeof *pins);
    bool good = pins != NULL;
    for (size_t i = 0; good && i < from->pin_count; i++) {
        pins[i] = from->pins[i];
        good = (pins[i].node = copied(from->pins[i].node)) != NULL;
    }
    out->pins = pins;
    out->pin_count = pins ? from->pin_count : 0;
    return good;
}

static bool copy_rules(const struct qd_quant_options *from, struct qd_quant_options *out)
{
    struct qd_layer_rule *rules = qd_calloc(from->rule_count, sizeof *rules);
    bool good = rules != NULL;
    for (size_t i = 0; good && i < from->rule_count; i++) {
        rules[i] = from->rules[i];
        good = (rules[i].node = copied(from->rules[i].node)) != NULL;
    }
    out->rules = rules;
    out->rule_count = rules ? from->rule_count : 0;
    return good;
}

static bool copy_smoothed(const struct qd_quant_options *from, struct qd_quant_options *out)
{
    struct qd_smoothed_tensor *smoothed = qd_calloc(from->smoothed_count, sizeof *smoothed);
    bool good = smoothed != NULL;
    for (size_t i = 0; good && i < from->smoothed_count; i++) {
        const struct qd_smoothed_tensor *one = &from->smoothed[i];
        float *s = qd_calloc(one->columns, sizeof *s);
        if (s && one->columns)
            memcpy(s, one->s, one->columns * sizeof *s);
        smoothed[i] = (struct qd_smoothed_tensor){copied(one->tensor), one->columns, s};
        good = s && smoothed[i].tensor;
    }
    out->smoothed = smoothed;
    out->smoothed_count = smoothed ? from->smoothed_count : 0;
    return good;
}

enum qd_status qd_options_copy(const struct qd_quant_options *from, struct qd_quant_options *out,
                               struct qd_error *error)
{
    *out = *from;
    const bool pins = copy_pins(from, out), rules = copy_rules(from, out), smoothed = copy_smoothed(from, out);
    if (pins && rules && smoothed)
        return QD_OK;
    qd_options_free(out);
    return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the options");
}

/* What the lists hold is const to their readers. */
static void release(const void *owned) { qd_free((void *)(uintptr_t)owned); }

void qd_options_free(struct qd_quant_options *o)
{
    for (size_t i = 0; i < o->pin_count; i++)
        release(o->pins[i].node);
    for (size_t i = 0; i < o->rule_count; i++)
        release(o->rules[i].node);
    for (size_t i = 0; i < o->smoothed_count; i++) {
        release(o->smoothed[i].tensor);
        release(o->smoothed[i].s);
    }
    release(o->pins);
    release(o->rules);
    release(o->smoothed);
    o->pins = NULL;
    o->rules = NULL;
    o->smoothed = NULL;
    o->pin_count = o->rule_count = o->smoothed_count = 0;
}

/* ------------------------------------------------------------------ the table */

#define WORDS(noun)                                                                                                    \
    _Static_assert(sizeof(enum qd_##noun) == sizeof(int), "options are read as int");                                  \
    static const char *noun##_word(int value) { return qd_##noun##_name((enum qd_##noun)value); }                      \
    static bool noun##_value(const char *word, int *value)                                                             \
    {                                                                                                                  \
        enum qd_##noun found;                                                                                          \
        bool known = qd_##noun##_from(word, &found);                                                                   \
        if (known)                                                                                                     \
            *value = (int)found;                                                                                       \
        return known;                                                                                                  \
    }
WORDS(mode)
WORDS(guard)
WORDS(scheme)
WORDS(granularity)
WORDS(precision)
WORDS(compat)

#define ALL           (~0u)
#define BIT(value)    (1u << (value))
#define AT(key)       #key, .offset = offsetof(struct qd_quant_options, key)
#define OF(noun, set) .kind = QD_QUANT_WORD, .word_of = noun##_word, .value_of = noun##_value, .words = (set)
#define BOUND(lo, hi) .low = (lo), .high = (hi)

const struct qd_quant_option qd_quant_table[] = {
    {AT(mode), .name = "mode", OF(mode, ALL), .layers = true},
    {AT(guard), .name = "guard", OF(guard, ALL), .layers = true},
    {AT(precision), .name = "precision", OF(precision, ALL)},
    {AT(activation_scheme), .group = "activation", .name = "scheme", OF(scheme, ALL), .layers = true},
    {AT(activation_granularity), .group = "activation", .name = "granularity", OF(granularity, ~BIT(QD_PER_CHANNEL)),
     .layers = true},
    {AT(weight_scheme), .group = "weights", .name = "scheme", OF(scheme, ALL), .layers = true},
    {AT(weight_granularity), .group = "weights", .name = "granularity",
     OF(granularity, BIT(QD_PER_TENSOR) | BIT(QD_PER_CHANNEL)), .layers = true},
    {AT(weight_bits), .group = "weights", .name = "bits", .kind = QD_QUANT_INT, BOUND(8, 16), .layers = true},
    {AT(fake_weight_bits), .group = "weights", .name = "fake_bits", .kind = QD_QUANT_INT, BOUND(2, 8)},
    {AT(fake_activation_bits), .group = "activation", .name = "fake_bits", .kind = QD_QUANT_INT, BOUND(2, 8)},
    {AT(smoothing), .name = "smoothing", .kind = QD_QUANT_BOOL},
    {AT(bias_correction), .name = "bias_correction", .kind = QD_QUANT_BOOL},
    {AT(averaging_constant), .name = "averaging_constant", .kind = QD_QUANT_REAL, BOUND(0, 1), .above = true},
    {AT(guard_tolerance), .name = "guard_tolerance", .kind = QD_QUANT_REAL, BOUND(0, INFINITY)},
    {AT(target_cosine), .name = "target_cosine", .kind = QD_QUANT_REAL, BOUND(-1, 1), .below = true},
    {AT(target_sqnr_db), .name = "target_sqnr_db", .kind = QD_QUANT_REAL, BOUND(0, 200)},
    {AT(compat), OF(compat, ALL)},
    {AT(max_step), .kind = QD_QUANT_REAL, BOUND(0, INFINITY), .above = true},
    {AT(publish_tolerance), .kind = QD_QUANT_REAL, BOUND(0, INFINITY)},
    {AT(min_observations), .kind = QD_QUANT_COUNT, BOUND(0, UINT32_MAX)},
    {AT(epochs_kept), .kind = QD_QUANT_COUNT, BOUND(1, 64)},
};
const size_t qd_quant_table_count = sizeof qd_quant_table / sizeof qd_quant_table[0];

const struct qd_quant_option *qd_quant_option_by_key(const char *key)
{
    for (size_t i = 0; i < qd_quant_table_count; i++)
        if (strcmp(qd_quant_table[i].key, key) == 0)
            return &qd_quant_table[i];
    return NULL;
}

const struct qd_quant_option *qd_quant_option_by_name(const char *group, const char *name)
{
    for (size_t i = 0; i < qd_quant_table_count; i++) {
        const struct qd_quant_option *o = &qd_quant_table[i];
        if (o->name && strcmp(o->name, name) == 0 && strcmp(o->group ? o->group : "", group ? group : "") == 0)
            return o;
    }
    return NULL;
}

/* ------------------------------------------------------------------ values */

struct qd_quant_value qd_quant_option_get(const struct qd_quant_option *option, const struct qd_quant_options *options)
{
    const void *field = (const char *)options + option->offset;
    int value;
    switch (option->kind) {
    case QD_QUANT_BOOL:
        return (struct qd_quant_value){.number = *(const bool *)field};
    case QD_QUANT_COUNT:
        return (struct qd_quant_value){.number = *(const uint32_t *)field};
    case QD_QUANT_REAL:
        return (struct qd_quant_value){.number = *(const double *)field};
    case QD_QUANT_INT:
        return (struct qd_quant_value){.number = *(const int *)field};
    case QD_QUANT_WORD:
        break;
    }
    memcpy(&value, field, sizeof value); /* of an enum */
    const char *word = option->word_of(value);
    return (struct qd_quant_value){.word = word ? word : ""};
}

/* The words an option may be: "tensor, channel". */
static const char *list_words(const struct qd_quant_option *option, char *text, size_t room)
{
    size_t used = 0;
    text[0] = 0;
    for (int value = 0; option->word_of(value) && used < room; value++)
        if (option->words >> value & 1)
            used += (size_t)snprintf(text + used, room - used, "%s%s", used ? ", " : "", option->word_of(value));
    return text;
}

/* A word's number, once it is known to be allowed. */
static enum qd_status read_word(const struct qd_quant_option *option, const char *word, int *value,
                                struct qd_error *error)
{
    char allowed[96];
    if (word && option->value_of(word, value) && (option->words >> *value & 1))
        return QD_OK;
    return qd_fail(error, QD_ERR_INVALID, "%s must be one of %s%s%.40s%s", option->key,
                   list_words(option, allowed, sizeof allowed), word ? ", is '" : "", word ? word : "",
                   word ? "'" : "");
}

static enum qd_status check_number(const struct qd_quant_option *option, double v, struct qd_error *error)
{
    const char *key = option->key;
    if (v >= option->low && v <= option->high && !(option->above && v <= option->low) &&
        !(option->below && v >= option->high))
        return QD_OK;
    if (!option->above && !option->below && isfinite(option->high))
        return qd_fail(error, QD_ERR_INVALID, "%s must lie in %.10g..%.10g", key, option->low, option->high);
    if (!isfinite(option->high))
        return qd_fail(error, QD_ERR_INVALID, "%s must be %s %.10g", key, option->above ? "above" : "at least",
                       option->low);
    return qd_fail(error, QD_ERR_INVALID, "%s must be %s %.10g and %s %.10g", key, option->above ? "above" : "at least",
                   option->low, option->below ? "below" : "at most", option->high);
}

static enum qd_status check_value(const struct qd_quant_option *option, struct qd_quant_value value, int *word,
                                  struct qd_error *error)
{
    const bool whole = option->kind == QD_QUANT_INT || option->kind == QD_QUANT_COUNT;
    if (option->kind == QD_QUANT_WORD)
        return read_word(option, value.word, word, error);
    if (option->kind == QD_QUANT_BOOL)
        return !value.word ? QD_OK : qd_fail(error, QD_ERR_INVALID, "%s must be true or false", option->key);
    if (value.word || !isfinite(value.number) || (whole && value.number != floor(value.number)))
        return qd_fail(error, QD_ERR_INVALID, "%s must be a %s", option->key, whole ? "whole number" : "number");
    return check_number(option, value.number, error);
}

enum qd_status qd_quant_option_set(const struct qd_quant_option *option, struct qd_quant_value value,
                                   struct qd_quant_options *options, struct qd_error *error)
{
    void *field = (char *)options + option->offset;
    int word = 0;
    enum qd_status status = check_value(option, value, &word, error);
    if (status)
        return status;
    switch (option->kind) {
    case QD_QUANT_WORD:
        memcpy(field, &word, sizeof word);
        break;
    case QD_QUANT_BOOL:
        *(bool *)field = value.number != 0;
        break;
    case QD_QUANT_INT:
        *(int *)field = (int)value.number;
        break;
    case QD_QUANT_COUNT:
        *(uint32_t *)field = (uint32_t)value.number;
        break;
    case QD_QUANT_REAL:
        *(double *)field = value.number;
        break;
    }
    return QD_OK;
}

enum qd_status qd_layer_rule_set(struct qd_layer_rule *rule, const struct qd_quant_option *option,
                                 struct qd_quant_value value, struct qd_error *error)
{
    int word = 0;
    if (!option->layers)
        return qd_fail(error, QD_ERR_INVALID, "%s is an option of the whole model, not of single layers", option->key);
    enum qd_status status = check_value(option, value, &word, error);
    rule->option = option;
    rule->value = option->kind == QD_QUANT_WORD ? word : (int)value.number;
    return status;
}

struct qd_quant_value qd_layer_rule_get(const struct qd_layer_rule *rule)
{
    if (rule->option->kind != QD_QUANT_WORD)
        return (struct qd_quant_value){.number = rule->value};
    const char *word = rule->option->word_of(rule->value);
    return (struct qd_quant_value){.word = word ? word : ""};
}

enum qd_status qd_options_check(const struct qd_quant_options *o, struct qd_error *error)
{
    int word;
    if (o->mode == QD_MODE_STATIC)
        return qd_fail(error, QD_ERR_UNSUPPORTED, "mode 'static' is entered by freezing learned ranges");
    if (o->target_cosine > 0 && o->target_sqnr_db > 0)
        return qd_fail(error, QD_ERR_INVALID, "target_cosine and target_sqnr_db can't both be given: one must be 0");
    for (size_t i = 0; i < qd_quant_table_count; i++) {
        enum qd_status status = check_value(&qd_quant_table[i], qd_quant_option_get(&qd_quant_table[i], o), &word,
                                            error);
        if (status)
            return status;
    }
    for (size_t i = 0; i < o->rule_count; i++) {
        struct qd_layer_rule rule = o->rules[i];
        enum qd_status status = qd_layer_rule_set(&rule, rule.option, qd_layer_rule_get(&rule), error);
        if (status)
            return status;
    }
    return QD_OK;
}
