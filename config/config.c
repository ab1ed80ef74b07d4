/* Configuration as a whole: defaults, the file, the environment and the flags, one layer over the other; and --help.
 * Single values are checked in option.c, JSON is read in config_json.c. */
#include "config/config.h"

#include "base/mem.h"
#include "config/nearest.h"
#include "config/option.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LARGEST_FILE_BYTES (1u << 20)
#define PREFIX             "QUANTD_"
#define PREFIX_LENGTH      (sizeof PREFIX - 1)

/* ------------------------------------------------------------------ defaults and clearing */

void qd_config_clear(struct qd_config *config)
{
    for (size_t i = 0; i < config->models_count; i++) {
        qd_free(config->models[i].name);
        qd_free(config->models[i].file);
    }
    qd_free(config->models);
    for (size_t i = 0; i < qd_option_count; i++) {
        enum qd_option_kind kind = qd_options[i].kind;
        if (kind == QD_OPTION_IS_WORD || kind == QD_OPTION_IS_ADDRESS || kind == QD_OPTION_IS_ANY)
            qd_free(*(char **)((char *)config + qd_options[i].offset));
        else if (kind == QD_OPTION_IS_RULES)
            qd_option_free_rules(config, &qd_options[i]);
    }
    memset(config, 0, sizeof *config);
}

enum qd_status qd_config_defaults(struct qd_config *out, struct qd_error *error)
{
    struct qd_layer layer = {.source = QD_LAYER_DEFAULT, .config = out, .error = error};
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < qd_option_count; i++) {
        if (!qd_options[i].fallback)
            continue;
        enum qd_status status = qd_layer_set(&layer, &qd_options[i], qd_options[i].fallback);
        if (status) {
            qd_config_clear(out);
            return status;
        }
    }
    return QD_OK;
}

/* ------------------------------------------------------------------ the file */

enum qd_status qd_config_parse(const char *name, const char *text, size_t size, struct qd_config *out,
                               struct qd_error *error)
{
    struct qd_layer layer = {.source = QD_LAYER_FILE, .file = name, .config = out, .error = error};
    enum qd_status status = qd_config_defaults(out, error);
    if (!status)
        status = qd_layer_json(&layer, text, size);
    if (status)
        qd_config_clear(out);
    return status;
}

static enum qd_status read_file(const char *path, struct qd_config *out, struct qd_error *error)
{
    enum qd_status status;
    char *text = NULL;
    FILE *file = fopen(path, "rb");
    if (!file)
        return qd_fail(error, errno == ENOENT ? QD_ERR_NOT_FOUND : QD_ERR_IO, "configuration file %s: %s", path,
                       strerror(errno));
    text = qd_calloc(LARGEST_FILE_BYTES + 1, 1);
    size_t size = text ? fread(text, 1, LARGEST_FILE_BYTES + 1, file) : 0;
    if (!text)
        status = qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the configuration");
    else if (ferror(file))
        status = qd_fail(error, QD_ERR_IO, "configuration file %s: %s", path, strerror(errno));
    else if (size > LARGEST_FILE_BYTES)
        status = qd_fail(error, QD_ERR_TOO_LARGE, "configuration file %s: larger than 1 MiB", path);
    else
        status = qd_config_parse(path, text, size, out, error);
    qd_free(text);
    fclose(file);
    return status;
}

/* ------------------------------------------------------------------ the environment */

static const char *environment_get(char *const *environment, const char *name)
{
    size_t length = strlen(name);
    for (; environment && *environment; environment++)
        if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=')
            return *environment + length + 1;
    return NULL;
}

static void lower(const char *from, size_t length, char *to, size_t room)
{
    size_t i = 0;
    for (; i < length && i + 1 < room; i++)
        to[i] = (char)(from[i] >= 'A' && from[i] <= 'Z' ? from[i] + ('a' - 'A') : from[i]);
    to[i] = 0;
}

/* A variable with our prefix that is no option may be somebody else's (Kubernetes makes QUANTD_PORT for a service of
 * this name), so it is refused only when it looks like one of ours mistyped. */
static enum qd_status unknown_variable(const char *name, size_t length, const char *key, struct qd_error *error)
{
    struct qd_nearest nearest = qd_nearest_to(key);
    for (size_t i = 0; i < qd_option_count; i++)
        if (qd_options[i].key)
            qd_nearest_offer(&nearest, qd_options[i].key);
    if (!nearest.best || nearest.distance > 2)
        return QD_OK;
    return qd_fail(error, QD_ERR_INVALID, "environment variable %.*s: there is no such option; did you mean \"%s\"?",
                   (int)length, name, nearest.best);
}

static enum qd_status environment_layer(char *const *environment, struct qd_config *config, struct qd_error *error)
{
    struct qd_layer layer = {.source = QD_LAYER_ENVIRONMENT, .config = config, .error = error};
    enum qd_status status = QD_OK;
    for (; environment && *environment && !status; environment++) {
        const char *name = *environment;
        size_t length = strcspn(name, "=");
        char key[64];
        if (strncmp(name, PREFIX, PREFIX_LENGTH) != 0 || !name[length] || !name[length + 1])
            continue; /* set to nothing counts as not set, which is what compose files make of a missing value */
        lower(name + PREFIX_LENGTH, length - PREFIX_LENGTH, key, sizeof key);
        const struct qd_option *option = qd_option_by_key(key, length - PREFIX_LENGTH);
        if (option)
            status = qd_layer_set(&layer, option, name + length + 1);
        else if (strcmp(key, "config") != 0)
            status = unknown_variable(name, length, key, error);
    }
    return status;
}

/* ------------------------------------------------------------------ flags */

struct special {
    const char *flag, *help;
    enum qd_config_action action; /* SERVE: takes a value */
};

static const struct special specials[] = {
    {"config", "JSON file of options; also QUANTD_CONFIG, or quantd.json in $CONFIGURATION_DIRECTORY", QD_CONFIG_SERVE},
    {"check-config", "check all options and the files they name, serve nothing; exit 0 or 1", QD_CONFIG_CHECK},
    {"print-schema", "write a JSON schema of the file", QD_CONFIG_SCHEMA},
    {"help", "this text", QD_CONFIG_HELP},
};
#define SPECIALS (sizeof specials / sizeof specials[0])

static const struct special *find_special(const char *name, size_t length)
{
    for (size_t i = 0; i < SPECIALS; i++)
        if (strlen(specials[i].flag) == length && memcmp(specials[i].flag, name, length) == 0)
            return &specials[i];
    return NULL;
}

static const struct qd_option *find_flag(const char *name, size_t length)
{
    char flag[64];
    for (size_t i = 0; i < qd_option_count; i++)
        if (qd_options[i].key && strlen(qd_option_flag(&qd_options[i], flag, sizeof flag)) == length &&
            memcmp(flag, name, length) == 0)
            return &qd_options[i];
    return NULL;
}

static enum qd_status unknown_flag(const char *argument, size_t length, struct qd_error *error)
{
    char flags[64][64], word[64];
    snprintf(word, sizeof word, "%.*s", (int)length, argument);
    struct qd_nearest nearest = qd_nearest_to(word);
    for (size_t i = 0; i < SPECIALS; i++)
        qd_nearest_offer(&nearest, specials[i].flag);
    for (size_t i = 0; i < qd_option_count && i < sizeof flags / sizeof flags[0]; i++)
        if (qd_options[i].key)
            qd_nearest_offer(&nearest, qd_option_flag(&qd_options[i], flags[i], sizeof flags[i]));
    if (nearest.best)
        return qd_fail(error, QD_ERR_INVALID, "unknown option --%s; did you mean --%s?", word, nearest.best);
    return qd_fail(error, QD_ERR_INVALID, "unknown option --%s; see quantd serve --help", word);
}

struct flags {
    int argc;
    char *const *argv;
    int at; /* the argument after the one being read */
};

/* The value of a flag: after its '=' or the next argument; NULL when there is none. */
static const char *flag_value(struct flags *flags, const char *name, size_t length)
{
    if (name[length] == '=')
        return name + length + 1;
    return flags->at < flags->argc ? flags->argv[flags->at++] : NULL;
}

/* One flag. With config == NULL only the special ones have an effect: they decide what else is read. */
static enum qd_status one_flag(struct flags *flags, struct qd_layer *layer, const char **file,
                               enum qd_config_action *action)
{
    const char *argument = flags->argv[flags->at++];
    if (strcmp(argument, "-h") == 0)
        argument = "--help";
    if (strncmp(argument, "--", 2) != 0 || !argument[2])
        return qd_fail(layer->error, QD_ERR_INVALID, "unexpected argument \"%.60s\"; see quantd serve --help",
                       argument);
    const char *name = argument + 2;
    size_t length = strcspn(name, "=");
    const struct special *special = find_special(name, length);
    if (special && special->action != QD_CONFIG_SERVE) {
        if (name[length])
            return qd_fail(layer->error, QD_ERR_INVALID, "--%s: takes no value", special->flag);
        *action = special->action;
        return QD_OK;
    }
    const struct qd_option *option = special ? NULL : find_flag(name, length);
    if (!special && !option)
        return unknown_flag(name, length, layer->error);
    bool alone = option && option->kind == QD_OPTION_IS_BOOL && !name[length];
    const char *value = alone ? "true" : flag_value(flags, name, length);
    if (!value)
        return qd_fail(layer->error, QD_ERR_INVALID, "--%.*s: needs a value", (int)length, name);
    if (special)
        *file = value;
    return option && layer->config ? qd_layer_set(layer, option, value) : QD_OK;
}

static enum qd_status flag_layer(int argc, char *const *argv, struct qd_config *config, const char **file,
                                 enum qd_config_action *action, struct qd_error *error)
{
    struct flags flags = {argc, argv, 0};
    struct qd_layer layer = {.source = QD_LAYER_FLAGS, .config = config, .error = error};
    enum qd_status status = QD_OK;
    while (!status && flags.at < argc)
        status = one_flag(&flags, &layer, file, action);
    return status;
}

/* ------------------------------------------------------------------ all layers */

/* The file's layer, over the defaults. */
static enum qd_status file_layer(const char *flag, char *const *environment, struct qd_config *out,
                                 struct qd_error *error)
{
    const char *path = flag ? flag : environment_get(environment, "QUANTD_CONFIG");
    const char *folder = environment_get(environment, "CONFIGURATION_DIRECTORY");
    char inside[4096];
    if (path && *path)
        return read_file(path, out, error);
    if (folder && *folder && snprintf(inside, sizeof inside, "%s/quantd.json", folder) < (int)sizeof inside &&
        access(inside, F_OK) == 0)
        return read_file(inside, out, error);
    return qd_config_defaults(out, error);
}

enum qd_status qd_config_load(int argc, char *const *argv, char *const *environment, struct qd_config *out,
                              enum qd_config_action *action, struct qd_error *error)
{
    const char *file = NULL;
    *action = QD_CONFIG_SERVE;
    memset(out, 0, sizeof *out);
    enum qd_status status = flag_layer(argc, argv, NULL, &file, action, error);
    if (status)
        return status;
    if (*action == QD_CONFIG_HELP || *action == QD_CONFIG_SCHEMA)
        return qd_config_defaults(out, error);
    status = file_layer(file, environment, out, error);
    if (status)
        return status;
    status = environment_layer(environment, out, error);
    if (!status)
        status = flag_layer(argc, argv, out, &file, action, error);
    if (status)
        qd_config_clear(out);
    return status;
}

enum qd_status qd_config_check_files(const struct qd_config *config, struct qd_error *error)
{
    struct stat about;
    for (size_t i = 0; i < config->models_count; i++) {
        const struct qd_config_model *model = &config->models[i];
        if (stat(model->file, &about) != 0 || access(model->file, R_OK) != 0)
            return qd_fail(error, QD_ERR_NOT_FOUND, "model \"%s\": %s: %s", model->name, model->file, strerror(errno));
        if (!S_ISREG(about.st_mode))
            return qd_fail(error, QD_ERR_NOT_FOUND, "model \"%s\": %s is not a file", model->name, model->file);
    }
    const char *folder = config->model_repository;
    if (!*folder)
        return QD_OK;
    if (stat(folder, &about) != 0 || access(folder, R_OK | X_OK) != 0)
        return qd_fail(error, QD_ERR_NOT_FOUND, "model_repository: %s: %s", folder, strerror(errno));
    if (!S_ISDIR(about.st_mode))
        return qd_fail(error, QD_ERR_NOT_FOUND, "model_repository: %s is not a folder", folder);
    return QD_OK;
}

enum qd_log_level qd_config_log_level(const struct qd_config *config)
{
    for (int level = 0; level < QD_LOG_LEVEL_COUNT; level++)
        if (strcmp(qd_log_level_name((enum qd_log_level)level), config->log_level) == 0)
            return (enum qd_log_level)level;
    return QD_LOG_INFO;
}

bool qd_config_value(const struct qd_config *config, const char *key, const char **word, double *number)
{
    const struct qd_option *option = qd_option_by_key(key, strlen(key));
    const void *field = option ? (const char *)config + option->offset : NULL;
    *word = NULL;
    switch (option ? option->kind : QD_OPTION_IS_GROUP) {
    case QD_OPTION_IS_BOOL:
        *number = *(const bool *)field;
        return true;
    case QD_OPTION_IS_U32:
        *number = *(const uint32_t *)field;
        return true;
    case QD_OPTION_IS_U64:
        *number = (double)*(const uint64_t *)field;
        return true;
    case QD_OPTION_IS_REAL:
        *number = *(const double *)field;
        return true;
    case QD_OPTION_IS_WORD:
    case QD_OPTION_IS_ADDRESS:
    case QD_OPTION_IS_ANY:
        *word = *(char *const *)field;
        return true;
    case QD_OPTION_IS_GROUP:
    case QD_OPTION_IS_MODELS:
    case QD_OPTION_IS_RULES:
    case QD_OPTION_IS_ONE_MINUS:
        break;
    }
    return false;
}

/* ------------------------------------------------------------------ help */

static const char *value_name(const struct qd_option *option)
{
    static const char *const names[] = {
        [QD_OPTION_IS_U32] = "N",
        [QD_OPTION_IS_U64] = "N",
        [QD_OPTION_IS_REAL] = "X",
        [QD_OPTION_IS_WORD] = "WORD",
        [QD_OPTION_IS_ADDRESS] = "ADDR:PORT",
        [QD_OPTION_IS_ANY] = "DIR",
        [QD_OPTION_IS_BOOL] = "",
        [QD_OPTION_IS_MODELS] = "NAME=FILE",
        [QD_OPTION_IS_RULES] = "",
        [QD_OPTION_IS_ONE_MINUS] = "X",
    };
    return option->wanted ? option->wanted : names[option->kind];
}

static void print_row(FILE *out, const char *flag, const char *value, const char *help)
{
    char left[80];
    snprintf(left, sizeof left, "--%s%s%s", flag, *value ? " " : "", value);
    fprintf(out, "  %-28s%s%s\n", left, strlen(left) > 27 ? "\n                              " : "", help);
}

void qd_config_print_help(FILE *out)
{
    char flag[64], allowed[96];
    fputs("usage: quantd serve [options]\n\n"
          "Every option is a flag, a key of the configuration file (JSON) and an environment variable: "
          "--max-body-bytes,\n"
          "\"max_body_bytes\", QUANTD_MAX_BODY_BYTES. A flag goes before the environment, that before the file.\n"
          "Models: \"models\": {\"NAME\": \"FILE\"} in the file, QUANTD_MODELS=NAME=FILE,NAME=FILE in the "
          "environment.\n\n",
          out);
    for (size_t i = 0; i < SPECIALS; i++)
        print_row(out, specials[i].flag, specials[i].action == QD_CONFIG_SERVE ? "FILE" : "", specials[i].help);
    for (size_t i = 0; i < qd_option_count; i++) {
        const struct qd_option *option = &qd_options[i];
        if (option->kind == QD_OPTION_IS_GROUP) {
            fprintf(out, "\n%s\n", option->help);
            continue;
        }
        print_row(out, qd_option_flag(option, flag, sizeof flag), value_name(option), option->help);
        qd_option_allowed(option, allowed, sizeof allowed);
        bool fallback = option->fallback && *option->fallback;
        if (*allowed || fallback)
            fprintf(out, "                              %s%s%s%s\n", allowed, *allowed && fallback ? "; " : "",
                    fallback ? "default " : "", fallback ? option->fallback : "");
    }
}
