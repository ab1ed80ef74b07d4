/* Outcomes: the table made into lookups, and the one place that formats error sentences. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct row {
    int http;
    const char *text;
};

static const struct row rows[QD_STATUS_COUNT] = {
#define QD_STATUS(name, http, text) [QD_##name] = {http, text},
#include "base/status.def"
#undef QD_STATUS
};

const char *qd_status_text(enum qd_status status)
{
    return (unsigned)status < QD_STATUS_COUNT ? rows[status].text : "unknown status";
}

int qd_status_http(enum qd_status status) { return (unsigned)status < QD_STATUS_COUNT ? rows[status].http : 500; }

/* No control characters, and no half UTF-8 sequence where a long text was cut. */
static void make_clean(char *text)
{
    char *end = text;
    for (; *end; end++)
        if ((unsigned char)*end < 0x20 || *end == 0x7f)
            *end = '?';
    char *lead = end;
    while (lead > text && end - lead < 4 && ((unsigned char)lead[-1] & 0xc0) == 0x80)
        lead--;
    unsigned char first = lead > text ? (unsigned char)*--lead : 0;
    int whole = first < 0xc0 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (end - lead < whole)
        *lead = 0;
}

enum qd_status qd_fail(struct qd_error *error, enum qd_status status, const char *format, ...)
{
    if (error) {
        va_list args;
        va_start(args, format);
        vsnprintf(error->text, sizeof error->text, format, args);
        va_end(args);
        make_clean(error->text);
        error->status = status;
    }
    return status;
}

enum qd_status qd_error_prefix(struct qd_error *error, const char *format, ...)
{
    char old[QD_ERROR_TEXT_BYTES];
    memcpy(old, error->text, sizeof old);
    va_list args;
    va_start(args, format);
    int used = vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    if (used >= 0 && (size_t)used + 3 < sizeof error->text) {
        size_t room = sizeof error->text - (size_t)used - 3, n = strnlen(old, room);
        memcpy(error->text + used, ": ", 2);
        memcpy(error->text + used + 2, old, n);
        error->text[(size_t)used + 2 + n] = 0;
    }
    make_clean(error->text);
    return error->status;
}
