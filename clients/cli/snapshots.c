/*
 * quantctl's commands about what a model has learned over time: snapshots, rollback, diff, drift, state and merge.
 */
#include "clients/cli/quantctl.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_WIDTH = 32 };

/* Asks and parses the answer, an object that the caller decrefs. */
static int ask(struct quantd_client *client, const char *method, const char *path, const char *body, json_t **root)
{
    struct quantd_client_error error;
    char *text = NULL;
    size_t length = 0;
    enum quantd_client_status status = method ? quantd_client_send(client, method, path, body, &text, &length, &error)
                                              : quantd_client_get(client, path, &text, &length, &error);
    *root = NULL;
    if (status != QUANTD_CLIENT_OK)
        return quantd_ctl_failed(&error);
    *root = json_loadb(text, length, 0, NULL);
    free(text);
    if (json_is_object(*root))
        return QUANTD_CTL_OK;
    json_decref(*root);
    *root = NULL;
    return quantd_ctl_say(QUANTD_CTL_UNREACHED, "the answer is no JSON object");
}

static int ask_model(struct quantd_client *client, const struct quantd_ctl_arguments *arguments, const char *method,
                     const char *rest, const char *name, const char *body, json_t **root)
{
    char path[QUANTD_CTL_PATH_BYTES];
    if (!quantd_ctl_path(path, arguments->model, rest, name))
        return quantd_ctl_say(QUANTD_CTL_USAGE, "the names are too long");
    return ask(client, method, path, body, root);
}

static const char *word(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static int64_t whole(const json_t *object, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(object, key));
}

static double real(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }

static void print_json(const json_t *root)
{
    json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
}

static void print_epoch(const struct quantd_ctl_arguments *arguments, const char *done, const json_t *root)
{
    quantd_ctl_print(stdout, arguments->model);
    printf(": %s, epoch %" PRId64 ", %" PRId64 " tensors\n", done, whole(root, "epoch"), whole(root, "tensors"));
}

/* ------------------------------------------------------------------ snapshots */

int quantd_ctl_snapshots(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    json_t *root, *row;
    size_t i;
    int status = ask_model(client, arguments, NULL, "/ranges/snapshots", NULL, NULL, &root);
    if (status != QUANTD_CTL_OK)
        return status;
    if (arguments->json)
        print_json(root);
    else
        printf("%-*s %-24s %8s %9s %-9s %s\n", NAME_WIDTH, "snapshot", "made", "epoch", "requests", "plan", "on disk");
    json_array_foreach(json_object_get(root, "snapshots"), i, row)
    {
        if (arguments->json)
            break;
        quantd_ctl_print_column(stdout, word(row, "name"), NAME_WIDTH);
        printf(" ");
        quantd_ctl_print_column(stdout, word(row, "created"), 24);
        printf(" %8" PRId64 " %9" PRId64 " ", whole(row, "epoch"), whole(row, "requests"));
        quantd_ctl_print_column(stdout, word(row, "plan"), 9);
        printf(" %s\n", json_is_true(json_object_get(row, "persisted")) ? "yes" : "no");
    }
    json_decref(root);
    return QUANTD_CTL_OK;
}

/* {"name": "..."}; free() it, NULL when memory is out. */
static char *name_body(const char *name)
{
    json_t *body = json_pack("{s:s}", "name", name);
    char *text = body ? json_dumps(body, 0) : NULL;
    json_decref(body);
    return text;
}

static int send_name(struct quantd_client *client, const struct quantd_ctl_arguments *arguments, const char *rest,
                     json_t **root)
{
    char *body = name_body(arguments->names[0]);
    if (!body)
        return quantd_ctl_say(QUANTD_CTL_USAGE, "'%s' is no name", arguments->names[0]);
    int status = ask_model(client, arguments, "POST", rest, NULL, body, root);
    free(body);
    return status;
}

int quantd_ctl_snapshot(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    json_t *root;
    int status = arguments->remove
                     ? ask_model(client, arguments, "DELETE", "/ranges/snapshots/", arguments->names[0], NULL, &root)
                     : send_name(client, arguments, "/ranges/snapshots", &root);
    if (status != QUANTD_CTL_OK)
        return status;
    if (arguments->remove) {
        quantd_ctl_print(stdout, arguments->model);
        printf(": snapshot forgotten\n");
    } else
        print_epoch(arguments, "snapshot made", root);
    json_decref(root);
    return QUANTD_CTL_OK;
}

int quantd_ctl_rollback(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    json_t *root;
    int status = send_name(client, arguments, "/ranges/rollback", &root);
    if (status == QUANTD_CTL_OK)
        print_epoch(arguments, "rolled back", root);
    json_decref(root);
    return status;
}

/* ------------------------------------------------------------------ distances */

static void print_distances(const json_t *tensors)
{
    json_t *row;
    size_t i;
    printf("%-*s %9s %11s %11s %11s %11s\n", NAME_WIDTH, "tensor", "distance", "min", "max", "min then", "max then");
    json_array_foreach((json_t *)(uintptr_t)tensors, i, row)
    {
        const json_t *from = json_object_get(row, "from"), *to = json_object_get(row, "to");
        quantd_ctl_print_column(stdout, word(row, "name"), NAME_WIDTH);
        printf(" %9.4g %11.4g %11.4g %11.4g %11.4g  ", real(row, "distance"), real(to, "min"), real(to, "max"),
               real(from, "min"), real(from, "max"));
        quantd_ctl_print(stdout, *word(row, "status") ? word(row, "status") : word(row, "since"));
        putchar('\n');
    }
}

/* Snapshots' names are letters, digits and ._-, so that a query needs no %XX; others are the daemon's to refuse. */
static bool add_query(char *rest, size_t room, const char *key, const char *value)
{
    const size_t used = strlen(rest);
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    if (!value)
        return true;
    if (strspn(value, plain) != strlen(value) || strlen(value) > 64)
        return false;
    snprintf(rest + used, room - used, "%c%s=%s", strchr(rest, '?') ? '&' : '?', key, value);
    return true;
}

int quantd_ctl_diff(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    char rest[256] = "/ranges/diff";
    json_t *root;
    if (!add_query(rest, sizeof rest, "from", arguments->name_count > 0 ? arguments->names[0] : NULL) ||
        !add_query(rest, sizeof rest, "to", arguments->name_count > 1 ? arguments->names[1] : NULL))
        return quantd_ctl_say(QUANTD_CTL_USAGE, "a snapshot's name has letters, digits and ._- only");
    int status = ask_model(client, arguments, NULL, rest, NULL, NULL, &root);
    if (status == QUANTD_CTL_OK && arguments->json)
        print_json(root);
    else if (status == QUANTD_CTL_OK)
        print_distances(json_object_get(root, "tensors"));
    json_decref(root);
    return status;
}

int quantd_ctl_drift(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    char rest[256] = "/drift";
    json_t *root;
    if (!add_query(rest, sizeof rest, "baseline", arguments->name_count ? arguments->names[0] : NULL))
        return quantd_ctl_say(QUANTD_CTL_USAGE, "a snapshot's name has letters, digits and ._- only");
    int status = ask_model(client, arguments, NULL, rest, NULL, NULL, &root);
    if (status != QUANTD_CTL_OK)
        return status;
    const bool alarm = json_is_true(json_object_get(root, "alarm"));
    if (arguments->json) {
        print_json(root);
    } else {
        print_distances(json_object_get(root, "tensors"));
        printf("%s the threshold of %g widths from ", alarm ? "above" : "below", real(root, "threshold"));
        quantd_ctl_print(stdout, word(json_object_get(root, "baseline"), "name"));
        printf("%s", alarm ? ", first: " : "");
        quantd_ctl_print(stdout, word(root, "first_mover"));
        putchar('\n');
    }
    json_decref(root);
    return alarm ? QUANTD_CTL_REFUSED : QUANTD_CTL_OK;
}

/* ------------------------------------------------------------------ states */

int quantd_ctl_state(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    return quantd_ctl_print_path(client, arguments->model, "/ranges/state");
}

int quantd_ctl_merge(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    json_t *states = json_array(), *body, *root = NULL;
    int status = QUANTD_CTL_OK;
    for (size_t i = 0; i < arguments->name_count && status == QUANTD_CTL_OK; i++) {
        json_error_t why;
        json_t *state = json_load_file(arguments->names[i], 0, &why);
        if (!state)
            status = quantd_ctl_say(QUANTD_CTL_USAGE, "'%s' is no state: %s", arguments->names[i], why.text);
        json_array_append_new(states, state);
    }
    body = json_pack("{s:o, s:b}", "states", states, "self", !arguments->not_self);
    char *text = body ? json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    if (status == QUANTD_CTL_OK && !text)
        status = quantd_ctl_say(QUANTD_CTL_USAGE, "no memory for the states");
    if (status == QUANTD_CTL_OK)
        status = ask_model(client, arguments, "POST", "/ranges/merge", NULL, text, &root);
    if (status == QUANTD_CTL_OK) {
        quantd_ctl_print(stdout, arguments->model);
        printf(": %" PRId64 " states merged, %" PRId64 " known already, epoch %" PRId64 "\n", whole(root, "merged"),
               whole(root, "skipped"), whole(root, "epoch"));
    }
    free(text);
    json_decref(body);
    json_decref(root);
    return status;
}
