/*
 * `quantctl export`, `set-ranges` and `clear-ranges`: what a model learned, out to a file and in from one.
 */
#include "clients/cli/quantctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 8 << 20 }; /* that the daemon takes */

int quantd_ctl_export(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    char rest[256], *text = NULL;
    size_t length = 0;
    const char *format = arguments->format ? arguments->format : "qdq";
    for (const char *c = format; *c; c++)
        if (!((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '-') || c - format > 40)
            return quantd_ctl_say(QUANTD_CTL_USAGE, "--format takes a word, see quantctl help");
    int n = snprintf(rest, sizeof rest, "/export?format=%s", format);
    if (arguments->epoch)
        snprintf(rest + n, sizeof rest - (size_t)n, "&epoch=%" PRIu64, arguments->epoch);
    int status = quantd_ctl_get_path(client, arguments->model, rest, &text, &length);
    if (status != QUANTD_CTL_OK)
        return status;
    FILE *out = arguments->file ? fopen(arguments->file, "wb") : stdout;
    bool good = out && fwrite(text, 1, length, out) == length;
    if (out && out != stdout)
        good = fclose(out) == 0 && good;
    if (!good)
        status = quantd_ctl_say(QUANTD_CTL_UNREACHED, "%s can't be written: %m",
                                arguments->file ? arguments->file : "the output");
    free(text);
    return status;
}

/* The whole file with a 0 behind it; NULL with errno. */
static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = file ? calloc(1, MOST_BYTES + 2) : NULL;
    size_t length = text ? fread(text, 1, MOST_BYTES + 1, file) : 0;
    bool good = text && !ferror(file) && length <= MOST_BYTES;
    if (file)
        fclose(file);
    if (good)
        return text;
    if (length > MOST_BYTES)
        errno = EFBIG;
    free(text);
    return NULL;
}

int quantd_ctl_set_ranges(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    struct quantd_client_error error;
    struct quantd_client_given given;
    const bool sets = strcmp(arguments->command, "set-ranges") == 0;
    if (sets && !arguments->file)
        return quantd_ctl_say(QUANTD_CTL_USAGE, "set-ranges needs --file FILE.json");
    char *json = sets ? read_file(arguments->file) : NULL;
    if (sets && !json)
        return quantd_ctl_say(QUANTD_CTL_USAGE, "%s: %m", arguments->file);
    enum quantd_client_status status = quantd_client_set_ranges(client, arguments->model, json, &given, &error);
    free(json);
    if (status != QUANTD_CLIENT_OK)
        return quantd_ctl_failed(&error);
    quantd_ctl_print(stdout, arguments->model);
    printf(": %" PRIu64 " tensors %s, epoch %" PRIu64, sets ? given.set : given.taken_back,
           sets ? "given" : "taken back", given.epoch);
    if (given.ignored)
        printf(", %" PRIu64 " others passed over", given.ignored);
    putchar('\n');
    return QUANTD_CTL_OK;
}
