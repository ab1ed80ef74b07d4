/* Configuration: the table config/options.def, filled from flags, environment and a JSON file, in this order of
 * precedence, over the defaults. Knows nothing of the engine or the server: an engine's word is text here
 * (server/quant_options.h maps it). A list given by a higher layer replaces the list of a lower one. */
#ifndef QD_CONFIG_CONFIG_H
#define QD_CONFIG_CONFIG_H

#include "base/log.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

struct qd_config_model {
    char *name; /* printable ASCII without '/', quotes and spaces */
    char *file;
};

/* An option of quantization for a part of what is served. */
struct qd_config_rule {
    char *where; /* a model, or a layer */
    char *option, *value;
};

/* One field per row of the table. Words, text and lists are owned by the struct. */
struct qd_config {
#define QD_OPTION_GROUP(title)
#define QD_OPTION_BOOL(key, fallback, help)                   bool key;
#define QD_OPTION_U32(key, fallback, low, high, help)         uint32_t key;
#define QD_OPTION_U64(key, fallback, low, high, help)         uint64_t key;
#define QD_OPTION_REAL(key, fallback, bound, low, high, help) double key;
#define QD_OPTION_WORD(key, fallback, words, help)            char *key;
#define QD_OPTION_TEXT(key, fallback, check, help)            char *key;
#define QD_OPTION_MODELS(key, flag, help)                                                                              \
    struct qd_config_model *key;                                                                                       \
    size_t key##_count;
#define QD_OPTION_RULES(key, flag, wanted, help)                                                                       \
    struct qd_config_rule *key;                                                                                        \
    size_t key##_count;
#define QD_OPTION_ONE_MINUS(key, of, help)
#include "config/options.def"
#undef QD_OPTION_GROUP
#undef QD_OPTION_BOOL
#undef QD_OPTION_U32
#undef QD_OPTION_U64
#undef QD_OPTION_REAL
#undef QD_OPTION_WORD
#undef QD_OPTION_TEXT
#undef QD_OPTION_MODELS
#undef QD_OPTION_RULES
#undef QD_OPTION_ONE_MINUS
};

/* What `quantd serve ARGS` asks for. */
enum qd_config_action { QD_CONFIG_SERVE, QD_CONFIG_CHECK, QD_CONFIG_HELP, QD_CONFIG_SCHEMA };

/* All functions: [any], nothing is kept between calls. On an error *out is cleared already; the sentence names the
 * option and where it was set: flag, environment variable, or file and key (line and column for malformed JSON). */

/* The defaults alone. Errors: NO_MEMORY. */
enum qd_status qd_config_defaults(struct qd_config *out, struct qd_error *error) QD_MUST_CHECK;
/* Defaults, then one file's text (JSON, `name` is what errors call it). Errors: FORMAT, INVALID, NO_MEMORY. */
enum qd_status qd_config_parse(const char *name, const char *text, size_t size, struct qd_config *out,
                               struct qd_error *error) QD_MUST_CHECK;
/* All layers. argv: what follows the command's name. environment: NULL-terminated "NAME=value" strings, as environ.
 * The file is --config, QUANTD_CONFIG, or quantd.json in $CONFIGURATION_DIRECTORY (set by systemd) where that exists.
 * With HELP and SCHEMA nothing else is looked at and *out holds the defaults. Errors: INVALID, FORMAT, NOT_FOUND, IO,
 * NO_MEMORY. */
enum qd_status qd_config_load(int argc, char *const *argv, char *const *environment, struct qd_config *out,
                              enum qd_config_action *action, struct qd_error *error) QD_MUST_CHECK;
/* That every file and folder it names is there and can be read. Errors: NOT_FOUND. */
enum qd_status qd_config_check_files(const struct qd_config *config, struct qd_error *error) QD_MUST_CHECK;
/* Frees what the fields own and zeroes the struct. */
void qd_config_clear(struct qd_config *config);

/* The option table as text for people, as a JSON schema (draft 2020-12) of the file. */
void qd_config_print_help(FILE *out);
/* Errors: NO_MEMORY, IO. */
enum qd_status qd_config_print_schema(FILE *out, struct qd_error *error) QD_MUST_CHECK;

/* "127.0.0.1:8080" or "[::1]:8080" to a socket address; numeric only, no resolver is asked. Errors: INVALID. */
enum qd_status qd_config_address(const char *text, struct sockaddr_storage *out, socklen_t *length,
                                 struct qd_error *error) QD_MUST_CHECK;
enum qd_log_level qd_config_log_level(const struct qd_config *config);
/* An option by its key: *word of words and text, else NULL and *number (true and false are 1 and 0). False: there is no
 * such option, or it is a list. */
bool qd_config_value(const struct qd_config *config, const char *key, const char **word, double *number);

#endif
