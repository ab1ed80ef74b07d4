/* Growing text and number spelling. The float writer works in double arithmetic: a candidate of few digits is taken
 * when it lies inside the interval of reals that round to the value, with a margin far above double's own error; nine
 * digits always do. Not a general shortest-digits algorithm, and it needs no tables beyond powers of ten. */
#include "server/text.h"

#include "base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bool qd_text_reserve(struct qd_text *text, size_t n)
{
    size_t need = 0;
    if (text->failed)
        return false;
    if (!qd_size_add(text->length, n, &need) || !qd_size_add(need, 1, &need)) {
        text->failed = true;
        return false;
    }
    if (need <= text->room)
        return true;
    size_t room = text->room < SIZE_MAX / 2 && text->room * 2 > need ? text->room * 2 : need;
    char *bytes = qd_realloc(text->bytes, room < 256 ? 256 : room, 1);
    if (!bytes) {
        text->failed = true;
        return false;
    }
    text->bytes = bytes;
    text->room = room < 256 ? 256 : room;
    text->bytes[text->length] = 0;
    return true;
}

void qd_text_append(struct qd_text *text, const char *bytes, size_t n)
{
    if (!qd_text_reserve(text, n))
        return;
    if (n)
        memcpy(text->bytes + text->length, bytes, n);
    text->length += n;
    text->bytes[text->length] = 0;
}

void qd_text_puts(struct qd_text *text, const char *string) { qd_text_append(text, string, strlen(string)); }

void qd_text_printf(struct qd_text *text, const char *format, ...)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        va_list args;
        size_t room = text->room > text->length ? text->room - text->length : 0;
        va_start(args, format);
        int n = vsnprintf(room ? text->bytes + text->length : NULL, room, format, args);
        va_end(args);
        if (text->failed || n < 0) {
            text->failed = true;
            return;
        }
        if ((size_t)n < room) {
            text->length += (size_t)n;
            return;
        }
        if (!qd_text_reserve(text, (size_t)n + 1))
            return;
    }
}

void qd_text_free(struct qd_text *text)
{
    qd_free(text->bytes);
    *text = (struct qd_text){0};
}

/* ------------------------------------------------------------------ UTF-8 and strings */

static size_t utf8_length(const unsigned char *p, size_t n)
{
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        return n >= 2 && (p[1] & 0xc0) == 0x80 ? 2 : 0;
    if ((p[0] & 0xf0) == 0xe0) {
        if (n < 3 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80)
            return 0;
        bool overlong = p[0] == 0xe0 && p[1] < 0xa0, surrogate = p[0] == 0xed && p[1] > 0x9f;
        return overlong || surrogate ? 0 : 3;
    }
    if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        if (n < 4 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80 || (p[3] & 0xc0) != 0x80)
            return 0;
        bool overlong = p[0] == 0xf0 && p[1] < 0x90, beyond = p[0] == 0xf4 && p[1] > 0x8f;
        return overlong || beyond ? 0 : 4;
    }
    return 0;
}

size_t qd_utf8_prefix(const char *bytes, size_t n)
{
    size_t at = 0;
    while (at < n) {
        size_t length = utf8_length((const unsigned char *)bytes + at, n - at);
        if (!length)
            break;
        at += length;
    }
    return at;
}

void qd_text_json_string(struct qd_text *text, const char *string) { qd_text_json_bytes(text, string, strlen(string)); }

void qd_text_json_bytes(struct qd_text *text, const char *string, size_t n)
{
    qd_text_append(text, "\"", 1);
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)string[i];
        size_t length = utf8_length((const unsigned char *)string + i, n - i);
        if (!length)
            qd_text_puts(text, "\xef\xbf\xbd");
        else if (c == '"' || c == '\\')
            qd_text_printf(text, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            qd_text_printf(text, "\\u%04x", c);
        else
            qd_text_append(text, string + i, length);
        i += length ? length : 1;
    }
    qd_text_append(text, "\"", 1);
}

void qd_text_json_time(struct qd_text *text, int64_t unix_ms)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm tm;
    if (unix_ms <= 0 || !gmtime_r(&seconds, &tm)) {
        qd_text_puts(text, "null");
        return;
    }
    qd_text_printf(text, "\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\"", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
                   tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(unix_ms % 1000));
}

/* ------------------------------------------------------------------ numbers */

size_t qd_format_u64(char *out, uint64_t value)
{
    char reversed[20];
    size_t n = 0;
    do {
        reversed[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    for (size_t i = 0; i < n; i++)
        out[i] = reversed[n - 1 - i];
    return n;
}

size_t qd_format_i64(char *out, int64_t value)
{
    if (value >= 0)
        return qd_format_u64(out, (uint64_t)value);
    out[0] = '-';
    return 1 + qd_format_u64(out + 1, 0 - (uint64_t)value);
}

/* Powers that scaling a float to nine digits may need: 10^0 .. 10^53, each the nearest double. */
static const double pow10_table[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11, 1e12, 1e13,
                                     1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 1e24, 1e25, 1e26, 1e27,
                                     1e28, 1e29, 1e30, 1e31, 1e32, 1e33, 1e34, 1e35, 1e36, 1e37, 1e38, 1e39, 1e40, 1e41,
                                     1e42, 1e43, 1e44, 1e45, 1e46, 1e47, 1e48, 1e49, 1e50, 1e51, 1e52, 1e53};

static double scale10(double x, int power) { return power >= 0 ? x * pow10_table[power] : x / pow10_table[-power]; }

/* Writes digits * 10^(point - count) where count = number of digits: "0.00123", "12.5", "1.25e-9". */
static size_t place_point(char *out, const char *digits, int count, int point)
{
    char *p = out;
    if (point > -5 && point <= 0) {
        *p++ = '0';
        *p++ = '.';
        for (int i = point; i < 0; i++)
            *p++ = '0';
        memcpy(p, digits, (size_t)count);
        return (size_t)(p + count - out);
    }
    if (point > 0 && point <= 9) {
        for (int i = 0; i < point; i++)
            *p++ = i < count ? digits[i] : '0';
        *p++ = '.';
        if (count <= point)
            *p++ = '0';
        for (int i = point; i < count; i++)
            *p++ = digits[i];
        return (size_t)(p - out);
    }
    *p++ = digits[0];
    if (count > 1) {
        *p++ = '.';
        memcpy(p, digits + 1, (size_t)count - 1);
        p += count - 1;
    }
    *p++ = 'e';
    p += qd_format_i64(p, point - 1);
    return (size_t)(p - out);
}

size_t qd_format_float(char *out, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    size_t sign = bits >> 31;
    if (sign)
        out[0] = '-';
    bits &= 0x7fffffff;
    if (!bits) {
        memcpy(out + sign, "0.0", 3);
        return sign + 3;
    }
    double x = fabs((double)value);
    int binary = bits >> 23 ? (int)(bits >> 23) - 127 : -126; /* of the leading bit's weight; subnormals share one */
    int normalized = 0;
    (void)frexp(x, &normalized); /* x = f * 2^normalized, f in [0.5, 1) */
    int decimal = (int)floor((normalized - 1) * 0.30102999566398120);
    double scaled = scale10(x, 8 - decimal);
    if (scaled >= 999999999.5)
        scaled = scale10(x, 8 - ++decimal);
    /* Half the gap to the next float (the gap below a power of two is half as wide), in units of the ninth digit. */
    double half_gap = scale10(ldexp(1.0, binary - 24), 8 - decimal);
    if ((bits & 0x7fffff) == 0)
        half_gap /= 2;
    half_gap *= 0.99999;
    double digits = 0, unit = 1;
    for (unit = 1000; unit >= 1; unit /= 10) {
        digits = rint(scaled / unit) * unit;
        if (fabs(digits - scaled) < half_gap)
            break;
    }
    uint64_t integer = (uint64_t)digits;
    char text[24];
    size_t n = qd_format_u64(text, integer);
    int point = decimal + 1 + (int)n - 9;
    while (n > 1 && text[n - 1] == '0')
        n--;
    return sign + place_point(out + sign, text, (int)n, point);
}

size_t qd_format_double(char *out, double value)
{
    int n = 0;
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(out, QD_NUMBER_TEXT_BYTES, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            break;
    }
    if (n > 0 && !memchr(out, '.', (size_t)n) && !memchr(out, 'e', (size_t)n)) {
        memcpy(out + n, ".0", 2);
        n += 2;
    }
    return (size_t)n;
}

void qd_text_json_double(struct qd_text *text, double value)
{
    if (!isfinite(value))
        qd_text_puts(text, "null");
    else if (qd_text_reserve(text, QD_NUMBER_TEXT_BYTES)) {
        text->length += qd_format_double(text->bytes + text->length, value);
        text->bytes[text->length] = 0;
    }
}
