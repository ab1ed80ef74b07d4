/* What the small commands share: flags and messages. `serve` has a table of options instead (config/). */
#include "server/cmd.h"

#include "config/nearest.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int qd_cmd_say(const char *command, int code, const char *format, ...)
{
    va_list arguments;
    fflush(stdout);
    fprintf(stderr, "quantd %s: ", command);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return code;
}

static const struct qd_flag *find(const struct qd_flag *flags, size_t count, const char *name, size_t length)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(flags[i].name) == length && memcmp(flags[i].name, name, length) == 0)
            return &flags[i];
    return NULL;
}

static int unknown(const char *command, const struct qd_flag *flags, size_t count, const char *name)
{
    struct qd_nearest nearest = qd_nearest_to(name);
    for (size_t i = 0; i < count; i++)
        qd_nearest_offer(&nearest, flags[i].name);
    return qd_cmd_say(command, -1, "unknown option --%s%s%s%s", name, nearest.best ? "; did you mean --" : "",
                      nearest.best ? nearest.best : "", nearest.best ? "?" : "");
}

static bool parse_number(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return end != text && !*end && isfinite(*out) && *out >= 0;
}

int qd_cmd_flags(const char *command, const struct qd_flag *flags, size_t count, int argc, char **argv)
{
    int kept = 0;
    for (int i = 0; i < argc; i++) {
        char *argument = argv[i];
        if (strcmp(argument, "--") == 0) {
            while (++i < argc)
                argv[kept++] = argv[i];
            break;
        }
        if (argument[0] != '-' || !argument[1]) {
            argv[kept++] = argument;
            continue;
        }
        if (argument[1] != '-')
            return qd_cmd_say(command, -1, "unknown option %s", argument);
        size_t length = strcspn(argument + 2, "=");
        const struct qd_flag *flag = find(flags, count, argument + 2, length);
        if (!flag)
            return unknown(command, flags, count, argument + 2);
        bool joined = argument[2 + length] == '=';
        if (flag->on && joined)
            return qd_cmd_say(command, -1, "--%s takes no value", flag->name);
        const char *value = flag->on ? "" : joined ? argument + 3 + length : i + 1 < argc ? argv[++i] : NULL;
        if (!value)
            return qd_cmd_say(command, -1, "--%s needs a value", flag->name);
        if (flag->on)
            *flag->on = true;
        else if (flag->text)
            *flag->text = value;
        else if (!parse_number(value, flag->number))
            return qd_cmd_say(command, -1, "--%s must be a number and not negative, is \"%s\"", flag->name, value);
    }
    return kept;
}
