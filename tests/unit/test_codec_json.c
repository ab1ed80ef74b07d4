/* The push parser and the tensor sink: every document is fed whole, byte by byte and cut in two at every place, and all
 * must agree. Numbers are judged by strtof and strtod, spelled floats by reading them back. */
#include "server/codec_json.h"
#include "server/text.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static enum qd_status note(void *ctx, const struct qd_json_token *token, struct qd_error *error)
{
    static const char marks[] = "{}[]ks#tfn";
    struct qd_text *trace = ctx;
    (void)error;
    qd_text_append(trace, &marks[token->event], 1);
    if (token->text) {
        qd_text_append(trace, token->text, token->length);
        qd_text_append(trace, ";", 1);
    }
    return QD_OK;
}

/* Feeds `text` cut at `cut`, or byte by byte for cut SIZE_MAX. */
static enum qd_status parse(const char *text, size_t n, size_t cut, struct qd_text *trace, struct qd_error *error)
{
    struct qd_json json;
    enum qd_status status = QD_OK;
    qd_json_init(&json, note, trace);
    if (cut == SIZE_MAX) {
        for (size_t i = 0; i < n && !status; i++)
            status = qd_json_feed(&json, text + i, 1, error);
    } else {
        status = qd_json_feed(&json, text, cut, error);
        if (!status)
            status = qd_json_feed(&json, text + cut, n - cut, error);
    }
    if (!status)
        status = qd_json_end(&json, error);
    qd_json_release(&json);
    return status;
}

static void check_document(const char *text, const char *want)
{
    size_t n = strlen(text);
    for (size_t cut = 0; cut <= n + 1; cut++) {
        struct qd_text trace = {0};
        struct qd_error error = {0};
        enum qd_status status = parse(text, n, cut <= n ? cut : SIZE_MAX, &trace, &error);
        if (want) {
            assert_string_equal(error.text, "");
            assert_int_equal(status, QD_OK);
            assert_string_equal(trace.bytes ? trace.bytes : "", want);
        } else if (status != QD_ERR_FORMAT)
            fail_msg("'%s' cut at %zu gave status %d", text, cut, (int)status);
        qd_text_free(&trace);
    }
}

static void test_accepts(void **state)
{
    (void)state;
    check_document("{}", "{}");
    check_document(" [ ] ", "[]");
    check_document("17", "#17;");
    check_document("-0.5e+3 ", "#-0.5e+3;");
    check_document("true", "t");
    check_document("[true,false,null]", "[tfn]");
    check_document("{\"a\":{\"b\":[1,[2,\"x\"]]},\"c\":\"\"}", "{ka;{kb;[#1;[#2;sx;]]}kc;s;}");
    check_document("\"\\u0041\\n\\\"\\\\\\/\\uD83D\\ude00 \xc3\xa9\"", "sA\n\"\\/\xf0\x9f\x98\x80 \xc3\xa9;");
    check_document("[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]", "[[[[[[[[[[[[[[[[#1;]]]]]]]]]]]]]]]]");
}

static void test_refuses(void **state)
{
    static const char *const texts[] = {"",
                                        " ",
                                        "{",
                                        "[1",
                                        "[1,]",
                                        "[,1]",
                                        "{\"a\"}",
                                        "{\"a\":}",
                                        "{\"a\":1,}",
                                        "{a:1}",
                                        "[1 2]",
                                        "[1]]",
                                        "{}{}",
                                        "1 2",
                                        "tru",
                                        "True",
                                        "nul",
                                        "NaN",
                                        "[NaN]",
                                        "[Infinity]",
                                        "[-Infinity]",
                                        "-",
                                        "[-]",
                                        "01",
                                        "[1.]",
                                        "[.5]",
                                        "[1e]",
                                        "[1e+]",
                                        "[+1]",
                                        "[1-2]",
                                        "[0x10]",
                                        "\"",
                                        "\"\\",
                                        "\"\\x\"",
                                        "\"\\u12\"",
                                        "\"\\u12g4\"",
                                        "\"\\ud800\"",
                                        "\"\\ud800x\"",
                                        "\"\\udc00\"",
                                        "\"\\ud800\\n\"",
                                        "\"\\u0000\"",
                                        "\"\x01\"",
                                        "\"\n\"",
                                        "\"\xff\"",
                                        "\"\xc3\"",
                                        "\"\xc0\x80\"",
                                        "\"\xed\xa0\x80\"",
                                        "\"\xf5\x80\x80\x80\"",
                                        "\xef\xbb\xbf{}",
                                        "[1}",
                                        "{\"a\":1]",
                                        "]",
                                        "}",
                                        ":",
                                        "{\"a\":1 \"b\":2}",
                                        "[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]",
                                        "{\"a\":1}x",
                                        "[1,\t\v2]",
                                        "'a'",
                                        "[1,2",
                                        "[true false]",
                                        "truefalse"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        check_document(texts[i], NULL);
}

static void test_bounds(void **state)
{
    struct qd_text text = {0}, trace = {0};
    struct qd_error error = {0};
    (void)state;
    qd_text_puts(&text, "[\"");
    for (int i = 0; i < QD_JSON_MAX_STRING_BYTES + 1; i++)
        qd_text_append(&text, "a", 1);
    qd_text_puts(&text, "\"]");
    assert_int_equal(parse(text.bytes, text.length, 5, &trace, &error), QD_ERR_FORMAT);
    text.length = 1;
    for (int i = 0; i < QD_JSON_MAX_NUMBER_BYTES + 1; i++)
        qd_text_append(&text, "1", 1);
    qd_text_puts(&text, "]");
    assert_int_equal(parse(text.bytes, text.length, 5, &trace, &error), QD_ERR_FORMAT);
    assert_int_equal(parse(text.bytes, text.length, 0, &trace, &error), QD_ERR_FORMAT);
    text.length = 0;
    for (int i = 0; i < 100000; i++)
        qd_text_append(&text, "[", 1);
    assert_int_equal(parse(text.bytes, text.length, 7, &trace, &error), QD_ERR_FORMAT);
    assert_non_null(strstr(error.text, "nested deeper"));
    qd_text_free(&text);
    qd_text_free(&trace);
}

/* ------------------------------------------------------------------ numbers */

static uint64_t seed = 20240611;
static uint64_t draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static struct qd_json_token number(const char *text)
{
    struct qd_json_token token = {.event = QD_JSON_NUMBER, .text = text, .length = strlen(text)};
    assert_true(qd_json_number_read(text, strlen(text), &token.number));
    return token;
}

static void check_number(const char *text)
{
    struct qd_json_token token = number(text);
    float got_float = 0, want_float = strtof(text, NULL);
    double got_double = 0, want_double = strtod(text, NULL);
    assert_int_equal(qd_json_number_float(&token, &got_float), isfinite(want_float));
    assert_int_equal(qd_json_number_double(&token, &got_double), isfinite(want_double));
    if (memcmp(&got_float, &want_float, 4) != 0 || memcmp(&got_double, &want_double, 8) != 0)
        fail_msg("%s reads as %a and %a, wanted %a and %a", text, (double)got_float, got_double, (double)want_float,
                 want_double);
}

static void test_floats_are_correctly_rounded(void **state)
{
    static const char *const texts[] = {"0",
                                        "-0",
                                        "0.0",
                                        "-0.0",
                                        "0e999",
                                        "1",
                                        "0.1",
                                        "1e22",
                                        "1e23",
                                        "9007199254740993",
                                        "1.00000005960464477539",
                                        "1.000000059604644775390625",
                                        "1.0000000596046447753906250000000000000000000001",
                                        "1.00000005960464477539062499999",
                                        "3.4028235e38",
                                        "3.4028235677973366e38",
                                        "3.4028234663852886e+38",
                                        "3.4028236e38",
                                        "1e39",
                                        "1e308",
                                        "1e309",
                                        "1e999",
                                        "-1e999",
                                        "1e-45",
                                        "7e-46",
                                        "7.006492321624085e-46",
                                        "7.006492321624086e-46",
                                        "1.1754943508222875e-38",
                                        "1e-400",
                                        "5e-324",
                                        "2.4703282292062328e-324",
                                        "123456789012345678901234567890",
                                        "0.000000000000000000000000000000123456789",
                                        "16777217",
                                        "16777217.0000000001",
                                        "16777219",
                                        "33554435",
                                        "9223372036854775807",
                                        "18446744073709551615"};
    char text[64];
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        check_number(texts[i]);
    for (int i = 0; i < 300000; i++) {
        uint64_t r = draw();
        double scaled = (double)(r >> 11) / (double)(UINT64_C(1) << (draw() % 63));
        uint32_t bits = (uint32_t)draw();
        float value;
        memcpy(&value, &bits, 4);
        switch (i % 4) {
        case 0: /* digits as JSON writers print doubles */
            snprintf(text, sizeof text, "%.17g", scaled);
            break;
        case 1: /* any float */
            snprintf(text, sizeof text, "%.9g", isfinite(value) ? (double)value : 1.5);
            break;
        case 2: /* just at the middle between two floats */
            snprintf(text, sizeof text, "%.*f", (int)(draw() % 30), ((double)(r >> 40 | 1 << 23) + 0.5) / 1024);
            break;
        default: /* any mantissa, any exponent */
            snprintf(text, sizeof text, "%llu.%llue%d", (unsigned long long)(r % 100000), (unsigned long long)draw(),
                     (int)(draw() % 90) - 45);
        }
        check_number(text);
    }
}

static void test_written_floats_read_back(void **state)
{
    char text[QD_NUMBER_TEXT_BYTES + 1];
    static const float values[] = {0.1f,  0.5f,  1.0f,  3.0f,      100.0f,   1e9f,
                                   1e10f, 0.25f, 1e-5f, 123456.0f, 1.4e-45f, 3.4028235e38f};
    static const char *const spelled[] = {"0.1",  "0.5",  "1.0",     "3.0",      "100.0",      "1e9",
                                          "1e10", "0.25", "0.00001", "123456.0", "1.4013e-45", "3.40282347e38"};
    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        text[qd_format_float(text, values[i])] = 0;
        assert_true(strtof(text, NULL) == values[i]);
        if (i < 10)
            assert_string_equal(text, spelled[i]);
    }
    for (uint64_t i = 0; i < 2000000; i++) {
        uint32_t bits = i < 600000 ? (uint32_t)(i / 2 << 23) + (uint32_t)(i % 4) - 1 : (uint32_t)draw();
        float value, back;
        memcpy(&value, &bits, 4);
        if (!isfinite(value))
            continue;
        size_t n = qd_format_float(text, value);
        text[n] = 0;
        assert_true(n < 20);
        back = strtof(text, NULL);
        if (memcmp(&back, &value, 4) != 0)
            fail_msg("%a is spelled %s", (double)value, text);
    }
}

static void test_integers(void **state)
{
    int64_t i64;
    uint64_t u64;
    struct qd_json_token token;
    (void)state;
    token = number("9223372036854775807");
    assert_true(qd_json_number_i64(&token, &i64) && i64 == INT64_MAX);
    token = number("-9223372036854775808");
    assert_true(qd_json_number_i64(&token, &i64) && i64 == INT64_MIN);
    token = number("9223372036854775808");
    assert_false(qd_json_number_i64(&token, &i64));
    assert_true(qd_json_number_u64(&token, &u64) && u64 == UINT64_C(9223372036854775808));
    token = number("18446744073709551615");
    assert_true(qd_json_number_u64(&token, &u64) && u64 == UINT64_MAX);
    token = number("18446744073709551616");
    assert_false(qd_json_number_u64(&token, &u64));
    token = number("-1");
    assert_false(qd_json_number_u64(&token, &u64));
    token = number("-0");
    assert_true(qd_json_number_u64(&token, &u64) && u64 == 0);
    token = number("1.0");
    assert_false(qd_json_number_i64(&token, &i64));
    token = number("1e2");
    assert_false(qd_json_number_u64(&token, &u64));
}

/* ------------------------------------------------------------------ tensors */

static enum qd_status to_tensor(void *ctx, const struct qd_json_token *token, struct qd_error *error)
{
    return qd_json_tensor_token(ctx, token, error);
}

static enum qd_status fill(enum qd_dtype dtype, struct qd_shape shape, const char *text, void *data)
{
    struct qd_json json;
    struct qd_json_tensor tensor;
    struct qd_error error = {0};
    qd_json_tensor_init(&tensor, "x", dtype, &shape, data);
    qd_json_init(&json, to_tensor, &tensor);
    enum qd_status status = qd_json_feed(&json, text, strlen(text), &error);
    if (!status)
        status = qd_json_end(&json, &error);
    qd_json_release(&json);
    if (!status) {
        assert_true(tensor.done);
        assert_int_equal(tensor.filled, tensor.elems);
    } else
        assert_true(error.text[0]);
    return status;
}

#define SHAPE(...)                                                                                                     \
    (struct qd_shape)                                                                                                  \
    {                                                                                                                  \
        sizeof((int64_t[]){__VA_ARGS__}) / 8, { __VA_ARGS__ }                                                          \
    }

static void test_nesting(void **state)
{
    float x[8];
    static const char *const good[] = {"[1,2,3,4,5,6]", "[[1,2,3],[4,5,6]]"};
    static const char *const bad[] = {
        "[1,2,3,4,5]",     "[1,2,3,4,5,6,7]", "[[1,2],[3,4],[5,6]]", "[[1,2,3],[4,5]]",
        "[[1,2,3],4,5,6]", "[1,2,3,[4,5,6]]", "[[[1,2,3],[4,5,6]]]", "[]",
        "[[],[]]",         "[[1,2,3],[]]",    "[[1,2,3]]",           "[[1,2,3],[4,5,6],[]]"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        memset(x, 0, sizeof x);
        assert_int_equal(fill(QD_F32, SHAPE(2, 3), good[i], x), QD_OK);
        for (int k = 0; k < 6; k++)
            assert_true(x[k] == (float)(k + 1));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (fill(QD_F32, SHAPE(2, 3), bad[i], x) != QD_ERR_SHAPE)
            fail_msg("%s was taken as [2, 3]", bad[i]);
    assert_int_equal(fill(QD_F32, (struct qd_shape){0}, "[7]", x), QD_OK);
    assert_true(x[0] == 7);
    assert_int_equal(fill(QD_F32, (struct qd_shape){0}, "[]", x), QD_ERR_SHAPE);
    assert_int_equal(fill(QD_F32, (struct qd_shape){0}, "7", x), QD_ERR_TYPE);
    assert_int_equal(fill(QD_F32, SHAPE(1, 2, 2), "[[1,2,3,4]]", x), QD_OK);
    assert_int_equal(fill(QD_F32, SHAPE(1, 2, 2), "[[1,2],[3,4]]", x), QD_ERR_SHAPE);
    assert_int_equal(fill(QD_F32, SHAPE(2, 0), "[]", x), QD_OK);
    assert_int_equal(fill(QD_F32, SHAPE(2, 0), "[[],[]]", x), QD_OK);
    assert_int_equal(fill(QD_F32, SHAPE(2, 0), "[[],[],[]]", x), QD_ERR_SHAPE);
    assert_int_equal(fill(QD_F32, SHAPE(2, 0), "[[1]]", x), QD_ERR_SHAPE);
}

static void test_types(void **state)
{
    static const struct {
        enum qd_dtype dtype;
        const char *text;
        bool good;
        uint64_t bits;
    } rows[] = {{QD_U8, "[255]", true, 255},
                {QD_U8, "[256]", false, 0},
                {QD_U8, "[-1]", false, 0},
                {QD_I8, "[-128]", true, 0x80},
                {QD_I8, "[128]", false, 0},
                {QD_U16, "[65535]", true, 65535},
                {QD_U16, "[65536]", false, 0},
                {QD_I16, "[-32768]", true, 0x8000},
                {QD_I16, "[32768]", false, 0},
                {QD_U32, "[4294967295]", true, UINT32_MAX},
                {QD_U32, "[4294967296]", false, 0},
                {QD_I32, "[-2147483648]", true, 0x80000000},
                {QD_I32, "[2147483648]", false, 0},
                {QD_U64, "[18446744073709551615]", true, UINT64_MAX},
                {QD_U64, "[18446744073709551616]", false, 0},
                {QD_I64, "[-9223372036854775808]", true, UINT64_C(1) << 63},
                {QD_I64, "[9223372036854775808]", false, 0},
                {QD_I64, "[1.5]", false, 0},
                {QD_I64, "[1e3]", false, 0},
                {QD_BOOL, "[true]", true, 1},
                {QD_BOOL, "[false]", true, 0},
                {QD_BOOL, "[1]", true, 1},
                {QD_BOOL, "[2]", false, 0},
                {QD_F32, "[1]", true, 0x3f800000},
                {QD_F32, "[1e39]", false, 0},
                {QD_F32, "[true]", false, 0},
                {QD_F32, "[\"1\"]", false, 0},
                {QD_F32, "[null]", false, 0},
                {QD_F64, "[-2]", true, UINT64_C(0xc000000000000000)},
                {QD_F64, "[1e309]", false, 0},
                {QD_F64, "[{}]", false, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t bits = 0;
        enum qd_status status = fill(rows[i].dtype, SHAPE(1), rows[i].text, &bits);
        if ((status == QD_OK) != rows[i].good || (rows[i].good && bits != rows[i].bits))
            fail_msg("%s as %s: status %d, bits %llx", rows[i].text, qd_dtype_name(rows[i].dtype), (int)status,
                     (unsigned long long)bits);
        if (!rows[i].good)
            assert_int_equal(status, QD_ERR_TYPE);
    }
    assert_false(qd_json_dtype_has_text(QD_F16) || qd_json_dtype_has_text(QD_BF16));
    assert_true(qd_json_dtype_has_text(QD_STR));
}

static void test_writing_strings(void **state)
{
    struct qd_text text = {0};
    (void)state;
    qd_text_json_string(&text, "a\"\\\n\x1f\xc3\xa9\xff/");
    assert_string_equal(text.bytes, "\"a\\\"\\\\\\u000a\\u001f\xc3\xa9\xef\xbf\xbd/\"");
    text.length = 0;
    qd_text_json_double(&text, (double)NAN);
    qd_text_puts(&text, " ");
    qd_text_json_double(&text, 0.1);
    qd_text_puts(&text, " ");
    qd_text_json_double(&text, 3);
    qd_text_puts(&text, " ");
    qd_text_json_time(&text, 1767225600123);
    assert_string_equal(text.bytes, "null 0.1 3.0 \"2026-01-01T00:00:00.123Z\"");
    qd_text_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_floats_are_correctly_rounded),
        cmocka_unit_test(test_written_floats_read_back),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_writing_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
