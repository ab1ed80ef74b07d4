/*
 * quantctl: asks a running quantd from the command line. This file: arguments, the short commands, and what goes to the
 * terminal. `quantctl help` is its manual.
 */
#include "clients/cli/quantctl.h"

#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "quantctl [--url http://127.0.0.1:8080] [--timeout SECONDS] COMMAND\n"
    "\n"
    "  models                     what the daemon serves, with inputs and outputs\n"
    "  ready [MODEL]              exit status 0 if it is\n"
    "  infer MODEL --input NAME=FILE.npy|FILE.json|FILE.raw|JSON ... [--shape [NAME=]1,1,28,28]\n"
    "        [--output NAME[=FILE.npy]] ... [--json] [--epoch N] [--precision fp32] [--no-observe]\n"
    "  ranges MODEL [--watch [SECONDS]] [--count N] [--json|--csv]\n"
    "                             the learned ranges; --watch redraws them (every 2 seconds), --count times\n"
    "  freeze MODEL               stop learning, serve the ranges as they stand\n"
    "  unfreeze MODEL             learn again\n"
    "  reset MODEL                forget what was learned\n"
    "  export MODEL [--format qdq|quantd|ort-calibration|torch|tf] [--epoch N] [--file FILE]\n"
    "                             the model as QDQ ONNX with what it learned, or its ranges as a table\n"
    "  set-ranges MODEL --file FILE.json   serve tensors by the ranges of a table\n"
    "  clear-ranges MODEL         take given ranges back\n"
    "  snapshots MODEL [--json]   what was kept of it by name\n"
    "  snapshot MODEL NAME [--delete]  keep what was learned by that name, or forget it\n"
    "  rollback MODEL NAME        a snapshot in force again, as a new epoch\n"
    "  diff MODEL [FROM [TO]] [--json]  how ranges differ between two snapshots, or one and now\n"
    "  drift MODEL [BASELINE] [--json]  how far ranges have moved from the baseline; exit status 1 on alarm\n"
    "  state MODEL                all that was learned, as JSON\n"
    "  merge MODEL [--no-self] FILE ...  average it with what other replicas have learned (their states)\n"
    "  quantization MODEL [--json]  which node runs in which precision, and why\n"
    "\n"
    "QUANTD_URL in the environment stands for --url. Exit status: 0 done, 1 the daemon said no, 2 wrong use,\n"
    "3 the daemon can't be reached or gives no sense.\n";

/* ------------------------------------------------------------------ texts of others on the terminal */

/* Bytes of the character at `text`; 0 for one that a terminal could take as a command, or that is no UTF-8. */
static size_t character(const char *text)
{
    unsigned char c = (unsigned char)*text;
    size_t length = c < 0x80                ? 1
                    : c >= 0xc2 && c < 0xe0 ? 2
                    : c >= 0xe0 && c < 0xf0 ? 3
                    : c >= 0xf0 && c < 0xf5 ? 4
                                            : 0;
    for (size_t i = 1; i < length; i++)
        if (((unsigned char)text[i] & 0xc0) != 0x80)
            return 0;
    bool control = c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)text[1] < 0xa0);
    return control ? 0 : length;
}

void quantd_ctl_print(FILE *out, const char *text)
{
    while (*text) {
        size_t length = character(text);
        fprintf(out, "%.*s", length ? (int)length : 1, length ? text : "?");
        text += length ? length : 1;
    }
}

int quantd_ctl_columns(const char *text)
{
    int columns = 0;
    for (; *text; columns++) {
        size_t length = character(text);
        text += length ? length : 1;
    }
    return columns;
}

void quantd_ctl_print_column(FILE *out, const char *text, int width)
{
    int columns = 0;
    bool cut = quantd_ctl_columns(text) > width;
    for (; *text && columns < (cut ? width - 1 : width); columns++) {
        size_t length = character(text);
        fprintf(out, "%.*s", length ? (int)length : 1, length ? text : "?");
        text += length ? length : 1;
    }
    fprintf(out, "%s%*s", cut ? "~" : "", width - columns - cut, "");
}

int quantd_ctl_say(int status, const char *format, ...)
{
    char text[2048];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    fprintf(stderr, "quantctl: ");
    quantd_ctl_print(stderr, text);
    fprintf(stderr, "\n");
    return status;
}

int quantd_ctl_failed(const struct quantd_client_error *error)
{
    int status = error->status == QUANTD_CLIENT_REFUSED   ? QUANTD_CTL_REFUSED
                 : error->status == QUANTD_CLIENT_INVALID ? QUANTD_CTL_USAGE
                                                          : QUANTD_CTL_UNREACHED;
    if (error->http_status)
        return quantd_ctl_say(status, "%s (%d)", error->text, error->http_status);
    return quantd_ctl_say(status, "%s", error->text);
}

/* ------------------------------------------------------------------ the short commands */

static void print_signatures(const char *what, const struct quantd_client_signature *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        printf("  %-6s ", what);
        quantd_ctl_print(stdout, list[i].name);
        printf(" %s [", quantd_client_datatype_name(list[i].datatype));
        for (int k = 0; k < list[i].rank; k++)
            printf("%s%" PRId64, k ? "," : "", list[i].shape[k]);
        printf("]\n");
    }
}

static int run_models(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    struct quantd_client_error error;
    struct quantd_client_models *models = NULL;
    int status = QUANTD_CTL_OK;
    (void)arguments;
    if (quantd_client_models(client, &models, &error) != QUANTD_CLIENT_OK)
        return quantd_ctl_failed(&error);
    for (size_t i = 0; i < models->count && status == QUANTD_CTL_OK; i++) {
        struct quantd_client_metadata *metadata = NULL;
        quantd_ctl_print(stdout, models->models[i].name);
        printf(" ");
        quantd_ctl_print(stdout, models->models[i].version);
        printf(" ");
        quantd_ctl_print(stdout, models->models[i].state);
        printf("%s", *models->models[i].reason ? ": " : "");
        quantd_ctl_print(stdout, models->models[i].reason);
        printf("\n");
        if (strcmp(models->models[i].state, "READY") != 0)
            continue;
        if (quantd_client_metadata(client, models->models[i].name, &metadata, &error) != QUANTD_CLIENT_OK)
            status = quantd_ctl_failed(&error);
        else {
            print_signatures("input", metadata->inputs, metadata->input_count);
            print_signatures("output", metadata->outputs, metadata->output_count);
        }
        quantd_client_metadata_destroy(&metadata);
    }
    quantd_client_models_destroy(&models);
    return status;
}

static int run_ready(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    struct quantd_client_error error;
    bool ready = false;
    if (quantd_client_ready(client, arguments->model, &ready, &error) != QUANTD_CLIENT_OK)
        return quantd_ctl_failed(&error);
    printf("%s", ready ? "ready" : "not ready: ");
    quantd_ctl_print(stdout, ready ? "" : error.text);
    printf("\n");
    return ready ? QUANTD_CTL_OK : QUANTD_CTL_REFUSED;
}

static int run_learning(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    static const struct {
        const char *command;
        enum quantd_client_status (*call)(struct quantd_client *, const char *, struct quantd_client_learning *,
                                          struct quantd_client_error *);
        const char *done;
    } changes[] = {{"freeze", quantd_client_freeze, "frozen"},
                   {"unfreeze", quantd_client_unfreeze, "learning"},
                   {"reset", quantd_client_reset, "reset"}};
    struct quantd_client_error error;
    struct quantd_client_learning now;
    size_t i = 0;
    while (strcmp(changes[i].command, arguments->command) != 0)
        i++;
    if (changes[i].call(client, arguments->model, &now, &error) != QUANTD_CLIENT_OK)
        return quantd_ctl_failed(&error);
    quantd_ctl_print(stdout, arguments->model);
    printf(": %s, epoch %" PRIu64 ", %" PRIu64 " requests%s\n", changes[i].done, now.epoch, now.requests,
           now.frozen && i > 0 ? ", frozen" : "");
    return QUANTD_CTL_OK;
}

static int print_plan(const struct quantd_client_quantization *plan)
{
    quantd_ctl_print(stdout, plan->model);
    printf(": plan ");
    quantd_ctl_print(stdout, plan->plan);
    printf(", %" PRIu64 " bytes of model, %" PRIu64 " bytes packed\n", plan->model_file_bytes, plan->packed_bytes);
    printf("%-24s %-18s %-9s %14s  %s\n", "node", "operator", "precision", "multiply-adds", "why");
    for (size_t i = 0; i < plan->count; i++) {
        quantd_ctl_print_column(stdout, plan->steps[i].node, 24);
        printf(" ");
        quantd_ctl_print_column(stdout, plan->steps[i].op, 18);
        printf(" ");
        quantd_ctl_print_column(stdout, plan->steps[i].precision, 9);
        printf(" %14" PRIu64 "  ", plan->steps[i].multiply_adds);
        quantd_ctl_print(stdout, plan->steps[i].reason);
        printf("\n");
    }
    return QUANTD_CTL_OK;
}

static int run_quantization(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    struct quantd_client_error error;
    struct quantd_client_quantization *plan = NULL;
    if (arguments->json)
        return quantd_ctl_print_path(client, arguments->model, "/quantization");
    if (quantd_client_quantization(client, arguments->model, &plan, &error) != QUANTD_CLIENT_OK)
        return quantd_ctl_failed(&error);
    int status = print_plan(plan);
    quantd_client_quantization_destroy(&plan);
    return status;
}

static size_t add_encoded(char path[QUANTD_CTL_PATH_BYTES], size_t at, const char *text)
{
    for (; *text && at + 4 < QUANTD_CTL_PATH_BYTES; text++)
        at += (size_t)snprintf(path + at, 4, "%%%02X", (unsigned char)*text);
    return *text ? QUANTD_CTL_PATH_BYTES : at;
}

bool quantd_ctl_path(char path[QUANTD_CTL_PATH_BYTES], const char *model, const char *rest, const char *name)
{
    size_t at = add_encoded(path, (size_t)snprintf(path, QUANTD_CTL_PATH_BYTES, "/v2/models/"), model);
    if (at + strlen(rest) >= QUANTD_CTL_PATH_BYTES)
        return false;
    at += (size_t)snprintf(path + at, QUANTD_CTL_PATH_BYTES - at, "%s", rest);
    return add_encoded(path, at, name ? name : "") < QUANTD_CTL_PATH_BYTES;
}

int quantd_ctl_get_path(struct quantd_client *client, const char *model, const char *rest, char **text, size_t *length)
{
    struct quantd_client_error error;
    char path[QUANTD_CTL_PATH_BYTES];
    if (!quantd_ctl_path(path, model, rest, NULL))
        return quantd_ctl_say(QUANTD_CTL_USAGE, "the model's name is too long");
    return quantd_client_get(client, path, text, length, &error) == QUANTD_CLIENT_OK ? QUANTD_CTL_OK
                                                                                     : quantd_ctl_failed(&error);
}

int quantd_ctl_print_path(struct quantd_client *client, const char *model, const char *rest)
{
    char *text = NULL;
    size_t length = 0;
    int status = quantd_ctl_get_path(client, model, rest, &text, &length);
    if (status != QUANTD_CTL_OK)
        return status;
    fwrite(text, 1, length, stdout);
    if (length == 0 || text[length - 1] != '\n')
        putchar('\n');
    free(text);
    return QUANTD_CTL_OK;
}

/* ------------------------------------------------------------------ arguments */

static const struct command {
    const char *name;
    int (*run)(struct quantd_client *, const struct quantd_ctl_arguments *);
    enum { NO_MODEL, MAY_MODEL, MUST_MODEL } model;
    const char *options; /* those it takes, between blanks */
    size_t least_names, most_names;
} commands[] = {
    {"models", run_models, NO_MODEL, " ", 0, 0},
    {"ready", run_ready, MAY_MODEL, " ", 0, 0},
    {"infer", quantd_ctl_infer, MUST_MODEL, " --input --output --shape --json --epoch --precision --no-observe ", 0, 0},
    {"ranges", quantd_ctl_ranges, MUST_MODEL, " --watch --count --json --csv ", 0, 0},
    {"freeze", run_learning, MUST_MODEL, " ", 0, 0},
    {"unfreeze", run_learning, MUST_MODEL, " ", 0, 0},
    {"reset", run_learning, MUST_MODEL, " ", 0, 0},
    {"export", quantd_ctl_export, MUST_MODEL, " --format --epoch --file ", 0, 0},
    {"set-ranges", quantd_ctl_set_ranges, MUST_MODEL, " --file ", 0, 0},
    {"clear-ranges", quantd_ctl_set_ranges, MUST_MODEL, " ", 0, 0},
    {"quantization", run_quantization, MUST_MODEL, " --json ", 0, 0},
    {"snapshots", quantd_ctl_snapshots, MUST_MODEL, " --json ", 0, 0},
    {"snapshot", quantd_ctl_snapshot, MUST_MODEL, " --delete ", 1, 1},
    {"rollback", quantd_ctl_rollback, MUST_MODEL, " ", 1, 1},
    {"diff", quantd_ctl_diff, MUST_MODEL, " --json ", 0, 2},
    {"drift", quantd_ctl_drift, MUST_MODEL, " --json ", 0, 1},
    {"state", quantd_ctl_state, MUST_MODEL, " ", 0, 0},
    {"merge", quantd_ctl_merge, MUST_MODEL, " --no-self ", 1, QUANTD_CTL_MAX_NAMES},
};

static bool parse_seconds(const char *text, double *seconds)
{
    char *end;
    *seconds = strtod(text, &end);
    return end != text && *end == 0 && *seconds > 0 && *seconds <= 1e6;
}

static bool parse_count(const char *text, uint64_t *count)
{
    char *end;
    *count = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == 0 && *count > 0;
}

/* NAME=VALUE; a '[' or no '=' before means that there is only a value. */
static bool add_pair(struct quantd_ctl_pair *pairs, size_t *count, char *text)
{
    if (*count == QUANTD_CTL_MAX_TENSORS)
        return false;
    char *equals = *text == '[' ? NULL : strchr(text, '=');
    if (equals)
        *equals = 0;
    pairs[(*count)++] = equals ? (struct quantd_ctl_pair){text, equals + 1} : (struct quantd_ctl_pair){NULL, text};
    return true;
}

/* An option that takes a value; false if the value is no good. */
static bool take_value(struct quantd_ctl_arguments *arguments, const char *option, char *value)
{
    if (strcmp(option, "--url") == 0)
        arguments->url = value;
    else if (strcmp(option, "--timeout") == 0)
        return parse_seconds(value, &arguments->timeout_seconds);
    else if (strcmp(option, "--input") == 0)
        return add_pair(arguments->inputs, &arguments->input_count, value);
    else if (strcmp(option, "--shape") == 0)
        return add_pair(arguments->shapes, &arguments->shape_count, value);
    else if (strcmp(option, "--output") == 0) {
        if (!add_pair(arguments->outputs, &arguments->output_count, value))
            return false;
        struct quantd_ctl_pair *last = &arguments->outputs[arguments->output_count - 1];
        if (!last->name) /* only the name: no file */
            *last = (struct quantd_ctl_pair){last->value, NULL};
    } else if (strcmp(option, "--precision") == 0)
        arguments->precision = value;
    else if (strcmp(option, "--format") == 0)
        arguments->format = value;
    else if (strcmp(option, "--file") == 0)
        arguments->file = value;
    else if (strcmp(option, "--epoch") == 0)
        return parse_count(value, &arguments->epoch);
    else
        return parse_count(value, &arguments->frames);
    return true;
}

static bool allowed(const struct command *command, const char *option)
{
    char blanked[32];
    snprintf(blanked, sizeof blanked, " %s ", option);
    return strcmp(option, "--url") == 0 || strcmp(option, "--timeout") == 0 ||
           (command && strstr(command->options, blanked));
}

static int parse_option(struct quantd_ctl_arguments *arguments, const struct command *command, char **argv, int *at)
{
    static const char values[] =
        " --url --timeout --input --output --shape --epoch --precision --count --format --file ";
    const char *option = argv[*at];
    char blanked[32];
    snprintf(blanked, sizeof blanked, " %s ", option);
    if (!allowed(command, option))
        return quantd_ctl_say(QUANTD_CTL_USAGE, "%s%s takes no option '%s'",
                              command ? "" : "before the command, quantctl", command ? command->name : "", option);
    if (strstr(values, blanked)) {
        char *value = argv[++*at];
        if (!value || !take_value(arguments, option, value))
            return quantd_ctl_say(QUANTD_CTL_USAGE, "%s needs a value that fits, see quantctl help", option);
        return QUANTD_CTL_OK;
    }
    arguments->json |= strcmp(option, "--json") == 0;
    arguments->csv |= strcmp(option, "--csv") == 0;
    arguments->unobserved |= strcmp(option, "--no-observe") == 0;
    arguments->remove |= strcmp(option, "--delete") == 0;
    arguments->not_self |= strcmp(option, "--no-self") == 0;
    if (strcmp(option, "--watch") == 0) {
        arguments->watch = true;
        if (argv[*at + 1] && argv[*at + 1][0] >= '0' && argv[*at + 1][0] <= '9' &&
            !parse_seconds(argv[++*at], &arguments->watch_seconds))
            return quantd_ctl_say(QUANTD_CTL_USAGE, "--watch takes seconds, not '%s'", argv[*at]);
    }
    return QUANTD_CTL_OK;
}

static int parse(struct quantd_ctl_arguments *arguments, char **argv, const struct command **command)
{
    for (int at = 1; argv[at]; at++) {
        if (argv[at][0] == '-') {
            int status = parse_option(arguments, *command, argv, &at);
            if (status != QUANTD_CTL_OK)
                return status;
        } else if (!*command) {
            arguments->command = argv[at];
            for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
                if (strcmp(commands[i].name, argv[at]) == 0)
                    *command = &commands[i];
            if (!*command)
                return quantd_ctl_say(QUANTD_CTL_USAGE, "there is no command '%s', see quantctl help", argv[at]);
        } else if (!arguments->model && (*command)->model != NO_MODEL)
            arguments->model = argv[at];
        else if (arguments->model && arguments->name_count < (*command)->most_names)
            arguments->names[arguments->name_count++] = argv[at];
        else
            return quantd_ctl_say(QUANTD_CTL_USAGE, "%s: '%s' is one argument too many", (*command)->name, argv[at]);
    }
    if (!*command)
        return quantd_ctl_say(QUANTD_CTL_USAGE, "a command is needed, see quantctl help");
    if ((*command)->model == MUST_MODEL && !arguments->model)
        return quantd_ctl_say(QUANTD_CTL_USAGE, "%s needs the name of a model", (*command)->name);
    if (arguments->name_count < (*command)->least_names)
        return quantd_ctl_say(QUANTD_CTL_USAGE, "%s needs more than a model, see quantctl help", (*command)->name);
    if (arguments->json && arguments->csv)
        return quantd_ctl_say(QUANTD_CTL_USAGE, "--json and --csv exclude each other");
    return QUANTD_CTL_OK;
}

int main(int argc, char **argv)
{
    struct quantd_ctl_arguments arguments = {.url = getenv("QUANTD_URL"), .watch_seconds = 2, .timeout_seconds = 60};
    const struct command *command = NULL;
    struct quantd_client *client = NULL;
    struct quantd_client_error error;
    setlocale(LC_CTYPE, ""); /* what the terminal can show; numbers keep their points */
    if (argc == 2 && (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0)) {
        fputs(usage, stdout);
        return QUANTD_CTL_OK;
    }
    int status = parse(&arguments, argv, &command);
    if (status != QUANTD_CTL_OK)
        return status;
    struct quantd_client_options options = {.timeout_ms = (int)ceil(fmin(arguments.timeout_seconds, 1e6) * 1000)};
    const char *url = arguments.url && *arguments.url ? arguments.url : "http://127.0.0.1:8080";
    if (quantd_client_create(&client, url, &options, &error) != QUANTD_CLIENT_OK)
        return quantd_ctl_failed(&error);
    status = command->run(client, &arguments);
    quantd_client_destroy(&client);
    if (fflush(stdout) != 0 && status == QUANTD_CTL_OK)
        status = quantd_ctl_say(QUANTD_CTL_UNREACHED, "can't write the output: %m");
    return status;
}
