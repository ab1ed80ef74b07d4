/* Raw targets and framing headers: byte-level judgements. */
#include "server/target.h"

#include <string.h>
#include <strings.h>

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decodes %XX (and + in queries) from raw[0..n) to *out, zero-terminated. NULL and *why on a bad escape or an unwanted
 * byte. */
static char *decode(const char *raw, size_t n, bool query, char **out, const char **why)
{
    char *start = *out, *at = start;
    for (size_t i = 0; i < n; i++) {
        int c = (unsigned char)raw[i];
        if (c == '%') {
            int high = i + 1 < n ? hex(raw[i + 1]) : -1, low = i + 2 < n ? hex(raw[i + 2]) : -1;
            if (high < 0 || low < 0) {
                *why = "the request target has a bad % escape";
                return NULL;
            }
            c = high * 16 + low;
            i += 2;
        } else if (query && c == '+') {
            c = ' ';
        }
        if (c < 0x20 || c == 0x7f || (!query && c == '/')) {
            *why = "the request target has a control byte or an encoded slash";
            return NULL;
        }
        *at++ = (char)c;
    }
    *at++ = 0;
    *out = at;
    return start;
}

static const char *parse_path(const char *raw, size_t n, struct qd_target *target, char **at)
{
    const char *why = NULL;
    for (size_t i = 1; i < n;) {
        size_t length = 0;
        while (i + length < n && raw[i + length] != '/')
            length++;
        if (length == 0)
            return "the request target has an empty path segment";
        if (target->segment_count == QD_TARGET_MAX_SEGMENTS)
            return "the request target has too many path segments";
        char *segment = decode(raw + i, length, false, at, &why);
        if (!segment)
            return why;
        if (strcmp(segment, ".") == 0 || strcmp(segment, "..") == 0)
            return "the request target has a dot segment";
        target->segments[target->segment_count++] = segment;
        i += length + 1;
    }
    return NULL;
}

static const char *parse_query(const char *raw, struct qd_target *target, char **at)
{
    const char *why = NULL;
    while (*raw) {
        size_t length = strcspn(raw, "&"), key = 0;
        while (key < length && raw[key] != '=')
            key++;
        if (length) {
            if (target->param_count == QD_TARGET_MAX_PARAMS)
                return "the request target has too many query parameters";
            target->keys[target->param_count] = decode(raw, key, true, at, &why);
            if (!why)
                target->values[target->param_count] = decode(raw + key + (key < length), length - key - (key < length),
                                                             true, at, &why);
            if (why)
                return why;
            target->param_count++;
        }
        raw += length + (raw[length] == '&');
    }
    return NULL;
}

enum qd_status qd_target_parse(const char *raw, struct qd_target *out, struct qd_error *error)
{
    size_t length = strlen(raw), path = strcspn(raw, "?");
    char *at = out->bytes;
    const char *why = raw[0] == '/' ? NULL : "the request target must be a path";
    out->segment_count = out->param_count = 0;
    if (length >
        sizeof out->bytes - 2 * QD_TARGET_MAX_PARAMS - QD_TARGET_MAX_SEGMENTS) /* decoded, with zeros, it fits */
        return qd_fail(error, QD_ERR_URI, "the request target is too long");
    for (size_t i = 0; !why && i < length; i++)
        if ((unsigned char)raw[i] <= 0x20 || raw[i] == 0x7f || raw[i] == '#')
            why = "the request target has a byte that must be escaped";
    if (!why)
        why = parse_path(raw, path, out, &at);
    if (!why && raw[path] == '?')
        why = parse_query(raw + path + 1, out, &at);
    return why ? qd_fail(error, QD_ERR_INVALID, "%s", why) : QD_OK;
}

static bool named(const char *name, size_t length, const char *header)
{
    return length == strlen(header) && strncasecmp(name, header, length) == 0;
}

void qd_framing_add(struct qd_framing *framing, const char *name, size_t name_length, const char *value,
                    size_t value_length)
{
    framing->count++;
    framing->bytes += name_length + value_length;
    for (size_t i = 0; i < name_length; i++)
        if ((unsigned char)name[i] <= 0x20 || name[i] == 0x7f)
            framing->bad_character = true;
    for (size_t i = 0; i < value_length; i++)
        if (((unsigned char)value[i] < 0x20 && value[i] != '\t') || value[i] == 0x7f)
            framing->bad_character = true;
    if (name_length == 0)
        framing->bad_character = true;
    if (named(name, name_length, "Content-Length"))
        framing->content_length++;
    else if (named(name, name_length, "Host"))
        framing->host++;
    else if (named(name, name_length, "Transfer-Encoding")) {
        framing->transfer_encoding++;
        if (!named(value, value_length, "chunked"))
            framing->bad_encoding = true;
    }
}

bool qd_framing_too_large(const struct qd_framing *framing)
{
    return framing->count > QD_HEADERS_MAX || framing->bytes > QD_HEADERS_BYTES;
}

const char *qd_framing_fault(const struct qd_framing *framing, bool http_1_1)
{
    if (framing->bad_character)
        return "a header has a control character or a blank where none may be";
    if (framing->content_length > 1)
        return "more than one Content-Length";
    if (framing->transfer_encoding > 1 || framing->bad_encoding)
        return "Transfer-Encoding must be chunked, once";
    if (framing->content_length && framing->transfer_encoding)
        return "Content-Length and Transfer-Encoding exclude each other";
    if (framing->transfer_encoding && !http_1_1)
        return "Transfer-Encoding needs HTTP/1.1";
    if (framing->host > 1 || (http_1_1 && framing->host == 0))
        return "exactly one Host header is required";
    return NULL;
}
