/* The sink of codec_json.h: numbers from text to a tensor's memory, correctly rounded, range checked, and the rule of
 * which brackets fit a shape. */
#include "server/codec_json.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EXACT_POWERS 22 /* 10^22 is the last power of ten that a double holds exactly */

static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* ------------------------------------------------------------------ reading a number */

struct digits {
    const char *at, *end;
    uint64_t mantissa;
    int significant; /* digits in the mantissa, leading zeros not counted */
    int32_t dropped; /* digits behind the 19th */
    bool truncated;
};

/* Eats a run of decimal digits; the number of digits eaten. */
static int32_t eat_digits(struct digits *d)
{
    const char *from = d->at;
    for (; d->at < d->end && *d->at >= '0' && *d->at <= '9'; d->at++) {
        if (d->significant < 19) {
            d->mantissa = d->mantissa * 10 + (uint64_t)(*d->at - '0');
            d->significant += d->mantissa != 0;
        } else {
            d->dropped++;
            d->truncated |= *d->at != '0';
        }
    }
    return (int32_t)(d->at - from);
}

/* e[+-]digits; false when malformed. Saturates far outside of what any type holds. */
static bool eat_exponent(struct digits *d, int32_t *exponent)
{
    bool minus = false;
    int32_t value = 0;
    d->at++;
    if (d->at < d->end && (*d->at == '+' || *d->at == '-'))
        minus = *d->at++ == '-';
    if (d->at == d->end)
        return false;
    for (; d->at < d->end && *d->at >= '0' && *d->at <= '9'; d->at++)
        value = value < 100000 ? value * 10 + (*d->at - '0') : value;
    *exponent = minus ? -value : value;
    return d->at[-1] >= '0' && d->at[-1] <= '9';
}

bool qd_json_number_read(const char *text, size_t n, struct qd_json_number *out)
{
    struct digits d = {.at = text, .end = text + n};
    *out = (struct qd_json_number){.integer = true};
    if (n > QD_JSON_MAX_NUMBER_BYTES)
        return false;
    if (n && *text == '-') {
        out->negative = true;
        d.at++;
    }
    const char *first = d.at;
    int32_t whole = eat_digits(&d);
    if (!whole || (whole > 1 && *first == '0'))
        return false;
    out->exponent = d.dropped;
    if (d.at < d.end && *d.at == '.') {
        int32_t before = d.dropped;
        d.at++;
        out->integer = false;
        int32_t fraction = eat_digits(&d);
        if (!fraction)
            return false;
        out->exponent -= fraction - (d.dropped - before);
    }
    if (d.at < d.end && (*d.at == 'e' || *d.at == 'E')) {
        int32_t exponent = 0;
        out->integer = false;
        if (!eat_exponent(&d, &exponent))
            return false;
        out->exponent += exponent;
    }
    out->mantissa = d.mantissa;
    out->truncated = d.truncated;
    return d.at == d.end;
}

/* strtod wants a terminating zero; the token's length was bounded when it was read. */
static void copy_token(const struct qd_json_token *token, char text[QD_JSON_MAX_NUMBER_BYTES + 1])
{
    size_t n = token->length <= QD_JSON_MAX_NUMBER_BYTES ? token->length : QD_JSON_MAX_NUMBER_BYTES;
    memcpy(text, token->text, n);
    text[n] = 0;
}

bool qd_json_number_double(const struct qd_json_token *token, double *out)
{
    const struct qd_json_number *number = &token->number;
    if (!number->truncated && number->mantissa <= (UINT64_C(1) << 53) && abs(number->exponent) <= EXACT_POWERS) {
        /* Both operands are exact, so the one rounding is the right one (Clinger 1990). */
        double value = (double)number->mantissa;
        value = number->exponent < 0 ? value / powers[-number->exponent] : value * powers[number->exponent];
        *out = number->negative ? -value : value;
        return true;
    }
    char text[QD_JSON_MAX_NUMBER_BYTES + 1];
    copy_token(token, text);
    *out = strtod(text, NULL);
    return isfinite(*out);
}

bool qd_json_number_float(const struct qd_json_token *token, float *out)
{
    const struct qd_json_number *number = &token->number;
    if (number->mantissa == 0) {
        *out = number->negative ? -0.0f : 0.0f;
        return true;
    }
    if (abs(number->exponent) <= EXACT_POWERS) {
        /* At most two roundings and 19 digits: within 2 units of the double's last place. The float is then certain
         * unless the double lies that near to the middle between two floats (bit 28 of the 29 that get cut). */
        double value = (double)number->mantissa;
        value = number->exponent < 0 ? value / powers[-number->exponent] : value * powers[number->exponent];
        uint64_t bits;
        memcpy(&bits, &value, sizeof bits);
        uint64_t cut = bits & ((UINT64_C(1) << 29) - 1), middle = UINT64_C(1) << 28;
        if ((cut < middle - 8 || cut > middle + 8) && value > 2 * (double)FLT_MIN && value < (double)FLT_MAX / 2) {
            *out = (float)(number->negative ? -value : value);
            return true;
        }
    }
    char text[QD_JSON_MAX_NUMBER_BYTES + 1];
    copy_token(token, text);
    *out = strtof(text, NULL);
    return isfinite(*out);
}

bool qd_json_number_u64(const struct qd_json_token *token, uint64_t *out)
{
    uint64_t value = 0;
    if (!token->number.integer || (token->number.negative && (token->number.mantissa || token->number.truncated)))
        return false;
    for (size_t i = token->number.negative; i < token->length; i++)
        if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(token->text[i] - '0'), &value))
            return false;
    *out = value;
    return true;
}

bool qd_json_number_i64(const struct qd_json_token *token, int64_t *out)
{
    int64_t value = 0;
    bool negative = token->number.negative;
    if (!token->number.integer)
        return false;
    for (size_t i = negative; i < token->length; i++) {
        int64_t digit = token->text[i] - '0';
        if (__builtin_mul_overflow(value, INT64_C(10), &value) ||
            __builtin_add_overflow(value, negative ? -digit : digit, &value))
            return false;
    }
    *out = value;
    return true;
}

/* ------------------------------------------------------------------ storing an element */

bool qd_json_dtype_has_text(enum qd_dtype dtype)
{
    return dtype != QD_NONE && dtype != QD_F16 && dtype != QD_BF16 && dtype < QD_DTYPE_COUNT;
}

/* Inclusive bounds of the integer types; QD_U64 is handled apart. */
static const struct {
    int64_t low, high;
} bounds[QD_DTYPE_COUNT] = {
    [QD_U8] = {0, UINT8_MAX},          [QD_I8] = {INT8_MIN, INT8_MAX},
    [QD_U16] = {0, UINT16_MAX},        [QD_I16] = {INT16_MIN, INT16_MAX},
    [QD_I32] = {INT32_MIN, INT32_MAX}, [QD_U32] = {0, UINT32_MAX},
    [QD_I64] = {INT64_MIN, INT64_MAX}, [QD_BOOL] = {0, 1},
};

/* The wire's order is little-endian and so is every machine that quantd runs on, so the low bytes come first. */
static bool store_integer(struct qd_json_tensor *tensor, const struct qd_json_token *token)
{
    size_t bytes = qd_dtype_bytes(tensor->dtype);
    char *to = (char *)tensor->data + (size_t)tensor->filled * bytes;
    if (tensor->dtype == QD_U64) {
        uint64_t value = 0;
        if (!qd_json_number_u64(token, &value))
            return false;
        memcpy(to, &value, sizeof value);
        return true;
    }
    int64_t value = 0;
    if (!qd_json_number_i64(token, &value) || value < bounds[tensor->dtype].low || value > bounds[tensor->dtype].high)
        return false;
    memcpy(to, &value, bytes);
    return true;
}

static enum qd_status store_number(struct qd_json_tensor *tensor, const struct qd_json_token *token,
                                   struct qd_error *error)
{
    bool stored = false;
    if (tensor->dtype == QD_F32)
        stored = qd_json_number_float(token, (float *)tensor->data + tensor->filled);
    else if (tensor->dtype == QD_F64)
        stored = qd_json_number_double(token, (double *)tensor->data + tensor->filled);
    else
        stored = store_integer(tensor, token);
    if (stored)
        return QD_OK;
    return qd_fail(error, QD_ERR_TYPE, "input '%s': element %" PRId64 ": %.*s is not a value of %s", tensor->name,
                   tensor->filled, token->length < 40 ? (int)token->length : 40, token->text,
                   qd_dtype_name(tensor->dtype));
}

static enum qd_status store_string(struct qd_json_tensor *tensor, const struct qd_json_token *token,
                                   struct qd_error *error)
{
    struct qd_string *to = (struct qd_string *)tensor->data + tensor->filled;
    char *bytes = tensor->take(tensor->take_ctx, token->length);
    if (!bytes)
        return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for a request");
    if (token->length)
        memcpy(bytes, token->text, token->length);
    *to = (struct qd_string){bytes, token->length};
    return QD_OK;
}

/* ------------------------------------------------------------------ brackets */

void qd_json_tensor_init(struct qd_json_tensor *tensor, const char *name, enum qd_dtype dtype,
                         const struct qd_shape *shape, void *data)
{
    *tensor = (struct qd_json_tensor){.name = name, .dtype = dtype, .shape = *shape, .data = data};
    if (!qd_shape_elems(shape, &tensor->elems))
        tensor->elems = 0;
}

static enum qd_status open_bracket(struct qd_json_tensor *tensor, struct qd_error *error)
{
    int deepest = tensor->shape.rank > 1 ? tensor->shape.rank : 1;
    if (tensor->depth >= deepest || (tensor->leaf_depth && tensor->depth >= tensor->leaf_depth))
        return qd_fail(error, QD_ERR_SHAPE, "input '%s': data is nested deeper than its shape or unevenly",
                       tensor->name);
    if (tensor->depth) {
        if (tensor->counts[tensor->depth] && !tensor->brackets[tensor->depth])
            return qd_fail(error, QD_ERR_SHAPE, "input '%s': data mixes numbers and arrays", tensor->name);
        tensor->counts[tensor->depth]++;
        tensor->brackets[tensor->depth] = true;
    }
    tensor->depth++;
    tensor->counts[tensor->depth] = 0;
    tensor->brackets[tensor->depth] = false;
    return QD_OK;
}

static enum qd_status close_bracket(struct qd_json_tensor *tensor, struct qd_error *error)
{
    int level = tensor->depth;
    int64_t want = tensor->brackets[level] ? tensor->shape.dims[level - 1]
                                           : qd_shape_span(&tensor->shape, level - 1, tensor->shape.rank);
    if (tensor->counts[level] != want) {
        char shape[128];
        return qd_fail(error, QD_ERR_SHAPE,
                       "input '%s': data has %" PRId64 " values where shape %s needs %" PRId64 " (array level %d)",
                       tensor->name, tensor->counts[level], qd_shape_text(&tensor->shape, shape, sizeof shape), want,
                       level);
    }
    tensor->done = --tensor->depth == 0;
    return QD_OK;
}

static enum qd_status element(struct qd_json_tensor *tensor, const struct qd_json_token *token, struct qd_error *error)
{
    if (!tensor->depth)
        return qd_fail(error, QD_ERR_TYPE, "input '%s': data must be an array", tensor->name);
    if (tensor->leaf_depth != tensor->depth) {
        if (tensor->leaf_depth || tensor->brackets[tensor->depth])
            return qd_fail(error, QD_ERR_SHAPE, "input '%s': data is nested unevenly", tensor->name);
        tensor->leaf_depth = tensor->depth;
    }
    if (tensor->filled >= tensor->elems)
        return qd_fail(error, QD_ERR_SHAPE, "input '%s': data has more than the %" PRId64 " elements of its shape",
                       tensor->name, tensor->elems);
    enum qd_status status = QD_OK;
    if (tensor->dtype == QD_STR || token->event == QD_JSON_STRING)
        status = tensor->dtype == QD_STR && token->event == QD_JSON_STRING
                     ? store_string(tensor, token, error)
                     : qd_fail(error, QD_ERR_TYPE, "input '%s': element %" PRId64 " is %s, not a value of %s",
                               tensor->name, tensor->filled, token->event == QD_JSON_STRING ? "a string" : "no string",
                               qd_dtype_name(tensor->dtype));
    else if (token->event == QD_JSON_NUMBER)
        status = store_number(tensor, token, error);
    else if (tensor->dtype == QD_BOOL)
        ((uint8_t *)tensor->data)[tensor->filled] = token->event == QD_JSON_TRUE;
    else
        status = qd_fail(error, QD_ERR_TYPE, "input '%s': data holds a boolean, not %s", tensor->name,
                         qd_dtype_name(tensor->dtype));
    tensor->filled++;
    tensor->counts[tensor->depth]++;
    return status;
}

enum qd_status qd_json_tensor_token(struct qd_json_tensor *tensor, const struct qd_json_token *token,
                                    struct qd_error *error)
{
    switch (token->event) {
    case QD_JSON_ARRAY:
        return open_bracket(tensor, error);
    case QD_JSON_ARRAY_END:
        return close_bracket(tensor, error);
    case QD_JSON_NUMBER:
    case QD_JSON_STRING:
    case QD_JSON_TRUE:
    case QD_JSON_FALSE:
        return element(tensor, token, error);
    default:
        return qd_fail(error, QD_ERR_TYPE, "input '%s': data of type %s may hold only %s", tensor->name,
                       qd_dtype_name(tensor->dtype),
                       tensor->dtype == QD_BOOL  ? "numbers, true and false"
                       : tensor->dtype == QD_STR ? "strings"
                                                 : "numbers");
    }
}
