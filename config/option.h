/* Inside of config/: the rows of options.def as data, and how a value found in one layer (file, environment, flags) is
 * checked and stored. Others include config/config.h. All functions: [any]. */
#ifndef QD_CONFIG_OPTION_H
#define QD_CONFIG_OPTION_H

#include "config/config.h"

enum qd_option_kind {
    QD_OPTION_IS_GROUP,
    QD_OPTION_IS_BOOL,
    QD_OPTION_IS_U32,
    QD_OPTION_IS_U64,
    QD_OPTION_IS_REAL,
    QD_OPTION_IS_WORD,
    QD_OPTION_IS_ADDRESS,
    QD_OPTION_IS_ANY,
    QD_OPTION_IS_MODELS,
    QD_OPTION_IS_RULES,
    QD_OPTION_IS_ONE_MINUS,
};

struct qd_option {
    const char *key, *help; /* of a group: NULL and its title */
    enum qd_option_kind kind;
    size_t offset;        /* of its field in struct qd_config; a ONE_MINUS row has that of the row it stands for */
    double low, high;     /* numbers: both inclusive unless `above` */
    bool above, below;    /* low, high itself is not allowed */
    const char *words;    /* "a|b|c" */
    const char *fallback; /* as text; NULL: none of its own */
    const char *flag;     /* when it isn't the key */
    const char *of;       /* ONE_MINUS: the key it stands for */
    size_t count;         /* RULES: offset of their number */
    const char *wanted;   /* RULES: their form as text */
};

extern const struct qd_option qd_options[];
extern const size_t qd_option_count;

/* NULL when there is none; groups are never found. */
const struct qd_option *qd_option_by_key(const char *key, size_t length);
/* "max-body-bytes" into text, zero-terminated. Returns text. */
const char *qd_option_flag(const struct qd_option *option, char *text, size_t room);
/* "0 to 64", "> 0 and <= 1", "error|token": what may be given; "" when anything may. Returns text. */
const char *qd_option_allowed(const struct qd_option *option, char *text, size_t room);

enum qd_layer_source { QD_LAYER_DEFAULT, QD_LAYER_FILE, QD_LAYER_ENVIRONMENT, QD_LAYER_FLAGS };

#define QD_LAYER_SETTERS 64

/* One pass over one source. Zero-initialised but for these four. */
struct qd_layer {
    enum qd_layer_source source;
    const char *file; /* FILE: its name */
    struct qd_config *config;
    struct qd_error *error;
    const struct qd_option *setters[QD_LAYER_SETTERS]; /* by row: what set it in this layer, to find two spellings */
};

/* Fails with the place in front: `quantd.json: key "x"`, `environment variable QUANTD_X` or `--x`. */
enum qd_status qd_layer_fail(const struct qd_layer *layer, const struct qd_option *option, const char *format, ...)
    QD_PRINTF(3, 4);
/* A value given as text, as flags and variables are; any kind. Errors: INVALID, NO_MEMORY. */
enum qd_status qd_layer_set(struct qd_layer *layer, const struct qd_option *option, const char *text) QD_MUST_CHECK;
/* One model of a list; the first one of a layer drops what lower layers listed. */
enum qd_status qd_layer_add_model(struct qd_layer *layer, const struct qd_option *option, const char *name,
                                  size_t name_length, const char *file, size_t file_length) QD_MUST_CHECK;
/* One rule of a list; the first one of a layer drops what lower layers listed. */
enum qd_status qd_layer_add_rule(struct qd_layer *layer, const struct qd_option *option, const char *where,
                                 size_t where_length, const char *key, size_t key_length, const char *value,
                                 size_t value_length) QD_MUST_CHECK;
void qd_option_free_rules(struct qd_config *config, const struct qd_option *option);
/* Notes that this layer sets the row's field. Errors: INVALID when another spelling of it already has. */
enum qd_status qd_layer_note(struct qd_layer *layer, const struct qd_option *option) QD_MUST_CHECK;

/* The layers. Errors: INVALID, FORMAT, NO_MEMORY. */
enum qd_status qd_layer_json(struct qd_layer *layer, const char *text, size_t size) QD_MUST_CHECK;

#endif
