/* The push parser. One state says what may come next, one bit per level says object or array; tokens that lie whole in
 * one feed are handed over in place, others gather in a scratch of bounded size. */
#include "server/codec_json.h"

#include "base/mem.h"
#include "server/text.h"

#include <inttypes.h>
#include <string.h>

enum state {
    VALUE,        /* a value */
    VALUE_OR_END, /* after '[' */
    KEY_OR_END,   /* after '{' */
    KEY,          /* after ',' in an object */
    COLON,
    COMMA_OR_END,
    IN_STRING,
    IN_NUMBER,
    IN_LITERAL,
    DONE,
};

void qd_json_init(struct qd_json *json, qd_json_handler *handler, void *ctx)
{
    *json = (struct qd_json){.handler = handler, .ctx = ctx, .state = VALUE};
}

void qd_json_release(struct qd_json *json)
{
    qd_free(json->scratch);
    json->scratch = NULL;
    json->scratch_bytes = json->scratch_room = 0;
}

static bool in_array(const struct qd_json *json) { return json->arrays >> json->depth & 1; }
static bool is_number_byte(char c)
{
    return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E';
}
static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

static enum qd_status scratch_add(struct qd_json *json, const char *bytes, size_t n, size_t limit,
                                  struct qd_error *error)
{
    if (n > limit - json->scratch_bytes)
        return qd_fail(error, QD_ERR_FORMAT, "JSON: a token is longer than %zu bytes", limit);
    if (json->scratch_bytes + n + 1 > json->scratch_room) {
        size_t room = json->scratch_room ? json->scratch_room * 2 : 128;
        while (room < json->scratch_bytes + n + 1)
            room *= 2;
        char *grown = qd_realloc(json->scratch, room, 1);
        if (!grown)
            return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory while reading the JSON body");
        json->scratch = grown;
        json->scratch_room = room;
    }
    if (n)
        memcpy(json->scratch + json->scratch_bytes, bytes, n);
    json->scratch_bytes += n;
    json->scratch[json->scratch_bytes] = 0;
    return QD_OK;
}

static void value_ended(struct qd_json *json) { json->state = json->depth ? COMMA_OR_END : DONE; }

static enum qd_status emit(struct qd_json *json, enum qd_json_event event, struct qd_error *error)
{
    struct qd_json_token token = {.event = event};
    return json->handler(json->ctx, &token, error);
}

static enum qd_status open_level(struct qd_json *json, bool array, struct qd_error *error)
{
    if (json->depth >= QD_JSON_MAX_DEPTH)
        return qd_fail(error, QD_ERR_FORMAT, "JSON: nested deeper than %d levels", QD_JSON_MAX_DEPTH);
    json->depth++;
    json->arrays = array ? json->arrays | 1u << json->depth : json->arrays & ~(1u << json->depth);
    json->state = array ? VALUE_OR_END : KEY_OR_END;
    return emit(json, array ? QD_JSON_ARRAY : QD_JSON_OBJECT, error);
}

static enum qd_status close_level(struct qd_json *json, bool array, struct qd_error *error)
{
    if (!json->depth || in_array(json) != array)
        return qd_fail(error, QD_ERR_FORMAT, "JSON: '%c' closes nothing", array ? ']' : '}');
    json->depth--;
    value_ended(json);
    return emit(json, array ? QD_JSON_ARRAY_END : QD_JSON_OBJECT_END, error);
}

/* ------------------------------------------------------------------ tokens */

static enum qd_status number_ended(struct qd_json *json, const char *text, size_t n, struct qd_error *error)
{
    struct qd_json_token token = {.event = QD_JSON_NUMBER, .text = text, .length = n};
    if (n > QD_JSON_MAX_NUMBER_BYTES)
        return qd_fail(error, QD_ERR_FORMAT, "JSON: a number is longer than %d bytes", QD_JSON_MAX_NUMBER_BYTES);
    if (!qd_json_number_read(text, n, &token.number)) {
        int shown = n < 40 ? (int)n : 40;
        if (n == 1 && *text == '-')
            return qd_fail(error, QD_ERR_FORMAT, "JSON: '-' is not a number (NaN and Infinity are not JSON either)");
        return qd_fail(error, QD_ERR_FORMAT, "JSON: '%.*s' is not a number", shown, text);
    }
    value_ended(json);
    return json->handler(json->ctx, &token, error);
}

static enum qd_status literal_ended(struct qd_json *json, struct qd_error *error)
{
    static const struct {
        const char *text;
        enum qd_json_event event;
    } rows[] = {{"true", QD_JSON_TRUE}, {"false", QD_JSON_FALSE}, {"null", QD_JSON_NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(json->scratch, rows[i].text) == 0) {
            value_ended(json);
            return emit(json, rows[i].event, error);
        }
    if (strcmp(json->scratch, "NaN") == 0 || strcmp(json->scratch, "Infinity") == 0)
        return qd_fail(error, QD_ERR_FORMAT, "JSON: %s is not JSON; send non-finite numbers as binary data",
                       json->scratch);
    return qd_fail(error, QD_ERR_FORMAT, "JSON: unknown word '%.20s'", json->scratch);
}

static enum qd_status string_ended(struct qd_json *json, struct qd_error *error)
{
    if (json->high)
        return qd_fail(error, QD_ERR_FORMAT, "JSON: half a surrogate pair in a string");
    enum qd_status status = scratch_add(json, "", 0, QD_JSON_MAX_STRING_BYTES, error); /* makes it zero-terminated */
    if (status)
        return status;
    if (qd_utf8_prefix(json->scratch, json->scratch_bytes) != json->scratch_bytes)
        return qd_fail(error, QD_ERR_FORMAT, "JSON: a string is not valid UTF-8");
    struct qd_json_token token = {
        .event = json->key ? QD_JSON_KEY : QD_JSON_STRING, .text = json->scratch, .length = json->scratch_bytes};
    if (json->key)
        json->state = COLON;
    else
        value_ended(json);
    return json->handler(json->ctx, &token, error);
}

static enum qd_status add_code_point(struct qd_json *json, uint32_t c, struct qd_error *error)
{
    char out[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(first[n] | c);
    return scratch_add(json, out, n, QD_JSON_MAX_STRING_BYTES, error);
}

static enum qd_status unit_ended(struct qd_json *json, struct qd_error *error)
{
    uint32_t unit = json->unit, high = json->high;
    json->escape = 0;
    json->high = 0;
    if (high) {
        if (unit < 0xdc00 || unit > 0xdfff)
            return qd_fail(error, QD_ERR_FORMAT, "JSON: half a surrogate pair in a string");
        return add_code_point(json, 0x10000 + ((high - 0xd800) << 10) + (unit - 0xdc00), error);
    }
    if (unit >= 0xd800 && unit <= 0xdbff) {
        json->high = unit;
        return QD_OK;
    }
    if ((unit >= 0xdc00 && unit <= 0xdfff) || unit == 0)
        return qd_fail(error, QD_ERR_FORMAT,
                       unit ? "JSON: half a surrogate pair in a string" : "JSON: \\u0000 in a string");
    return add_code_point(json, unit, error);
}

/* One byte inside an escape; `escape` is 1 behind the backslash, 2..5 at the hexadecimal digits. */
static enum qd_status escape_byte(struct qd_json *json, char c, struct qd_error *error)
{
    if (json->escape == 1) {
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        const char *at = c ? strchr(from, c) : NULL;
        if (c == 'u') {
            json->escape = 2;
            json->unit = 0;
            return QD_OK;
        }
        if (!at || json->high)
            return qd_fail(error, QD_ERR_FORMAT, "JSON: bad escape in a string");
        json->escape = 0;
        return scratch_add(json, &to[at - from], 1, QD_JSON_MAX_STRING_BYTES, error);
    }
    uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                     : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                            : 16;
    if (digit > 15)
        return qd_fail(error, QD_ERR_FORMAT, "JSON: bad \\u escape in a string");
    json->unit = json->unit << 4 | digit;
    return ++json->escape == 6 ? unit_ended(json, error) : QD_OK;
}

/* Eats bytes of a string from *at; leaves the state IN_STRING when it goes on in the next feed. */
static enum qd_status eat_string(struct qd_json *json, const char **at, const char *end, struct qd_error *error)
{
    while (*at < end) {
        if (json->escape) {
            enum qd_status status = escape_byte(json, *(*at)++, error);
            if (status)
                return status;
            continue;
        }
        const char *run = *at;
        while (*at < end && **at != '"' && **at != '\\' && (unsigned char)**at >= 0x20)
            ++*at;
        if (*at > run && json->high)
            return qd_fail(error, QD_ERR_FORMAT, "JSON: half a surrogate pair in a string");
        enum qd_status status = scratch_add(json, run, (size_t)(*at - run), QD_JSON_MAX_STRING_BYTES, error);
        if (status || *at == end)
            return status;
        char c = *(*at)++;
        if (c == '"')
            return string_ended(json, error);
        if (c != '\\')
            return qd_fail(error, QD_ERR_FORMAT, "JSON: a control character in a string");
        json->escape = 1;
    }
    return QD_OK;
}

/* A number from *at: handed over in place when its end is in sight, otherwise gathered. */
static enum qd_status eat_number(struct qd_json *json, const char **at, const char *end, struct qd_error *error)
{
    const char *from = *at;
    while (*at < end && is_number_byte(**at))
        ++*at;
    size_t n = (size_t)(*at - from);
    if (*at < end && !json->scratch_bytes)
        return number_ended(json, from, n, error);
    enum qd_status status = scratch_add(json, from, n, QD_JSON_MAX_NUMBER_BYTES, error);
    if (status || *at == end)
        return status;
    return number_ended(json, json->scratch, json->scratch_bytes, error);
}

static enum qd_status eat_literal(struct qd_json *json, const char **at, const char *end, struct qd_error *error)
{
    const char *from = *at;
    while (*at < end && is_letter(**at))
        ++*at;
    enum qd_status status = scratch_add(json, from, (size_t)(*at - from), 32, error);
    if (status || *at == end)
        return status;
    return literal_ended(json, error);
}

/* ------------------------------------------------------------------ between tokens */

static enum qd_status begin_value(struct qd_json *json, const char **at, struct qd_error *error)
{
    char c = **at;
    json->scratch_bytes = 0;
    if (c == '{' || c == '[') {
        ++*at;
        return open_level(json, c == '[', error);
    }
    if (c == '"') {
        ++*at;
        json->key = false;
        json->state = IN_STRING;
    } else if (is_number_byte(c))
        json->state = IN_NUMBER;
    else if (is_letter(c))
        json->state = IN_LITERAL;
    else
        return qd_fail(error, QD_ERR_FORMAT, "JSON: a value was expected");
    return QD_OK;
}

static enum qd_status between(struct qd_json *json, const char **at, struct qd_error *error)
{
    char c = **at;
    switch (json->state) {
    case VALUE_OR_END:
        if (c == ']') {
            ++*at;
            return close_level(json, true, error);
        }
        return begin_value(json, at, error);
    case VALUE:
        return begin_value(json, at, error);
    case KEY_OR_END:
    case KEY:
        ++*at;
        if (c == '}' && json->state == KEY_OR_END)
            return close_level(json, false, error);
        if (c != '"')
            return qd_fail(error, QD_ERR_FORMAT, "JSON: a key in quotes was expected");
        json->scratch_bytes = 0;
        json->key = true;
        json->state = IN_STRING;
        return QD_OK;
    case COLON:
        ++*at;
        json->state = VALUE;
        return c == ':' ? QD_OK : qd_fail(error, QD_ERR_FORMAT, "JSON: ':' was expected behind a key");
    case COMMA_OR_END:
        ++*at;
        if (c == ',') {
            json->state = in_array(json) ? VALUE : KEY;
            return QD_OK;
        }
        if (c == ']' || c == '}')
            return close_level(json, c == ']', error);
        return qd_fail(error, QD_ERR_FORMAT, "JSON: ',' or the closing bracket was expected");
    default:
        return qd_fail(error, QD_ERR_FORMAT, "JSON: something follows behind the value");
    }
}

enum qd_status qd_json_feed(struct qd_json *json, const void *bytes, size_t n, struct qd_error *error)
{
    const char *start = bytes, *at = start, *end = n ? start + n : start;
    enum qd_status status = QD_OK;
    while (at < end && !status) {
        if (json->state == IN_STRING)
            status = eat_string(json, &at, end, error);
        else if (json->state == IN_NUMBER)
            status = eat_number(json, &at, end, error);
        else if (json->state == IN_LITERAL)
            status = eat_literal(json, &at, end, error);
        else if (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')
            at++;
        else
            status = between(json, &at, error);
    }
    json->offset += (uint64_t)(at - start);
    if (status == QD_ERR_FORMAT && error && strncmp(error->text, "JSON: ", 6) == 0)
        return qd_error_prefix(error, "byte %" PRIu64 " of the body", json->offset);
    return status;
}

enum qd_status qd_json_end(struct qd_json *json, struct qd_error *error)
{
    enum qd_status status = QD_OK;
    if (json->state == IN_NUMBER && !json->depth)
        status = number_ended(json, json->scratch, json->scratch_bytes, error);
    else if (json->state == IN_LITERAL && !json->depth)
        status = literal_ended(json, error);
    if (status || json->state == DONE)
        return status;
    return qd_fail(error, QD_ERR_FORMAT, "JSON: the text ends in the middle (after %" PRIu64 " bytes)", json->offset);
}
