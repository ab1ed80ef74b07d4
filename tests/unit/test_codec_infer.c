/* Infer requests from bytes to tensors and answers back to bytes, on a model of Identity nodes in every element type.
 * Each request is fed whole and byte by byte; both ways must end alike. */
#include "base/mem.h"
#include "server/codec_infer.h"
#include "tests/unit/identity_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct qd_engine *engine;
static struct qd_model *many, *one, *fixed,
    *words; /* x FP32 [n, 2], i INT64 [n], b BOOL [n], u UINT64 [n], d FP64 [n] · x alone · x [2, 2] · s BYTES [n] */
static char *many_bytes, *one_bytes, *fixed_bytes, *words_bytes;

static int set_up(void **state)
{
    static const struct qd_io rows[] = {{"x", QD_F32, {2, {-1, 2}}, {"n", NULL}, false},
                                        {"i", QD_I64, {1, {-1}}, {"k"}, false},
                                        {"b", QD_BOOL, {1, {-1}}, {"m"}, false},
                                        {"u", QD_U64, {1, {-1}}, {"p"}, false},
                                        {"d", QD_F64, {1, {-1}}, {"q"}, false}};
    static const struct qd_io square = {"x", QD_F32, {2, {2, 2}}, {NULL}, false};
    static const struct qd_io text = {"s", QD_STR, {1, {-1}}, {NULL}, false};
    struct qd_engine_options options = {.threads = 1};
    struct qd_error error = {0};
    (void)state;
    if (qd_engine_create(&options, &engine, &error) != QD_OK)
        return -1;
    many = qd_test_identity_model(engine, rows, 5, &many_bytes, &error);
    one = many ? qd_test_identity_model(engine, rows, 1, &one_bytes, &error) : NULL;
    fixed = one ? qd_test_identity_model(engine, &square, 1, &fixed_bytes, &error) : NULL;
    words = fixed ? qd_test_identity_model(engine, &text, 1, &words_bytes, &error) : NULL;
    if (!words)
        fprintf(stderr, "%s\n", error.text);
    return words ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    qd_model_unref(&many);
    qd_model_unref(&one);
    qd_model_unref(&fixed);
    qd_model_unref(&words);
    qd_free(words_bytes);
    qd_free(many_bytes);
    qd_free(one_bytes);
    qd_free(fixed_bytes);
    qd_engine_destroy(&engine);
    return 0;
}

/* Decodes; `step` bytes a time. The call is NULL after an error. */
static enum qd_status decode(struct qd_model *model, const char *header, const void *body, size_t n, size_t step,
                             bool exact, struct qd_infer_call **call, struct qd_error *error)
{
    struct qd_infer_framing framing = {.header_length = header, .body_bytes = exact ? n : 1 << 20, .body_exact = exact};
    enum qd_status status = qd_infer_call_create(model, &framing, call, error);
    for (size_t at = 0; at < n && !status; at += step)
        status = qd_infer_call_feed(*call, (const char *)body + at, n - at < step ? n - at : step, error);
    if (!status)
        status = qd_infer_call_end(*call, error);
    if (status)
        qd_infer_call_destroy(call);
    return status;
}

/* Decodes, runs and spells the answer, all three ways of feeding; returns the last one's JSON and pieces joined (free
 * it). */
static char *answer(struct qd_model *model, const char *header, const void *body, size_t n, bool *binary,
                    size_t *json_bytes)
{
    char *last = NULL;
    for (int way = 0; way < 3; way++) {
        struct qd_infer_call *call = NULL;
        struct qd_error error = {0};
        struct qd_infer_reply reply;
        if (way == 2 && header && strcmp(header, "0") == 0)
            break; /* a raw body needs its length */
        enum qd_status status = decode(model, header, body, n, way ? 1 : n ? n : 1, way < 2, &call, &error);
        if (status)
            fail_msg("%s: %s", (const char *)body, error.text);
        struct qd_infer *infer = qd_infer_call_infer(call);
        assert_int_equal(qd_infer_prepare(infer, &error), QD_OK);
        qd_infer_run(&infer, 1);
        assert_int_equal(qd_infer_status(infer, &error), QD_OK);
        qd_infer_finish(infer);
        status = qd_infer_call_encode(call, &reply, &error);
        if (status)
            fail_msg("%s: %s", (const char *)body, error.text);
        struct qd_text joined = {0};
        qd_text_append(&joined, reply.json.bytes, reply.json.length);
        for (size_t i = 0; i < reply.piece_count; i++)
            qd_text_append(&joined, reply.pieces[i].bytes, reply.pieces[i].n);
        assert_int_equal(joined.length, reply.json.length + reply.piece_bytes);
        *binary = reply.binary;
        *json_bytes = reply.json.length;
        char *outputs = strstr(joined.bytes, "\"outputs\"");
        assert_non_null(outputs);
        if (last)
            assert_string_equal(strstr(last, "\"outputs\""), outputs);
        qd_free(last);
        last = joined.bytes;
        qd_infer_reply_free(&reply);
        qd_infer_call_destroy(&call);
    }
    return last;
}

static void check_answer(struct qd_model *model, const char *body, const char *part)
{
    bool binary;
    size_t json_bytes;
    char *text = answer(model, NULL, body, strlen(body), &binary, &json_bytes);
    assert_false(binary);
    if (!strstr(text, part))
        fail_msg("%s\nanswers %s\nwithout %s", body, text, part);
    qd_free(text);
}

#define X "\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,2]"

static void test_json(void **state)
{
    (void)state;
    check_answer(one, "{\"inputs\":[{" X ",\"data\":[0.1,-2]}]}",
                 "\"outputs\":[{\"name\":\"out_x\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[0.1,-2.0]}]}");
    check_answer(one, "{\"inputs\":[{\"data\":[[0.1,-2]]," X "}]}", "\"data\":[0.1,-2.0]");
    check_answer(one, "{\"inputs\":[{\"shape\":[2,2],\"data\":[[1,2],[3,4]],\"datatype\":\"FP32\",\"name\":\"x\"}]}",
                 "\"shape\":[2,2],\"data\":[1.0,2.0,3.0,4.0]");
    check_answer(
        one, "{\"id\":\"a\\\"b\",\"inputs\":[{" X ",\"data\":[1,2]}]}",
        "{\"model_name\":\"identity\",\"model_version\":\"1\",\"id\":\"a\\\"b\",\"parameters\":{\"quant_epoch\":");
    check_answer(one, "{\"id\":\"\",\"inputs\":[{" X ",\"data\":[1,2]}]}", "\"model_version\":\"1\",\"parameters\"");
    check_answer(
        one,
        "{\"parameters\":{\"sequence_id\":7,\"mine\":{\"a\":[1,{}]},\"quant_observe\":false,\"timeout\":5},\"x\":[[]],"
        "\"inputs\":[{" X ",\"parameters\":{\"p\":1},\"data\":[1,2]}],\"outputs\":[{\"name\":\"out_x\"}]}",
        "\"data\":[1.0,2.0]");
    check_answer(one,
                 "{\"id\":null,\"parameters\":null,\"outputs\":null,\"inputs\":[{" X
                 ",\"parameters\":null,\"data\":[1,2]}]}",
                 "\"data\":[1.0,2.0]");
    check_answer(
        many,
        "{\"inputs\":[{\"name\":\"u\",\"datatype\":\"UINT64\",\"shape\":[1],\"data\":[18446744073709551615]},"
        "{\"name\":\"b\",\"datatype\":\"BOOL\",\"shape\":[3],\"data\":[true,false,1]},{\"name\":\"d\",\"datatype\":"
        "\"FP64\","
        "\"shape\":[1],\"data\":[0.1]},{\"name\":\"i\",\"datatype\":\"INT64\",\"shape\":[2],\"data\":[-"
        "9223372036854775808,5]},"
        "{" X ",\"data\":[1,2]}],\"outputs\":[{\"name\":\"out_i\"},{\"name\":\"out_u\"},{\"name\":\"out_b\"},{\"name\":"
        "\"out_d\"}]}",
        "\"outputs\":[{\"name\":\"out_i\",\"datatype\":\"INT64\",\"shape\":[2],\"data\":[-9223372036854775808,5]},"
        "{\"name\":\"out_u\",\"datatype\":\"UINT64\",\"shape\":[1],\"data\":[18446744073709551615]},"
        "{\"name\":\"out_b\",\"datatype\":\"BOOL\",\"shape\":[3],\"data\":[true,false,true]},"
        "{\"name\":\"out_d\",\"datatype\":\"FP64\",\"shape\":[1],\"data\":[0.1]}]}");
}

static void test_binary(void **state)
{
    static const char head[] = "{\"inputs\":[{" X ",\"parameters\":{\"binary_data_size\":8}}],"
                               "\"parameters\":{\"binary_data_output\":true}}";
    const float x[] = {1.5f, (float)NAN};
    char body[512], header[16];
    size_t n = sizeof head - 1, json_bytes;
    bool binary;
    (void)state;
    memcpy(body, head, n);
    memcpy(body + n, x, 8);
    body[n + 8] = 0;
    snprintf(header, sizeof header, "%zu", n);
    char *text = answer(one, header, body, n + 8, &binary, &json_bytes);
    assert_true(binary);
    assert_memory_equal(text + json_bytes, x, 8);
    text[json_bytes] = 0;
    assert_non_null(strstr(text, "\"shape\":[1,2],\"parameters\":{\"binary_data_size\":8}}]}"));
    qd_free(text);
    text = answer(one, "0", x, 8, &binary, &json_bytes);
    assert_true(binary);
    assert_memory_equal(text + json_bytes, x, 8);
    qd_free(text);
}

static void test_nonfinite_answers(void **state)
{
    static const char head[] = "{\"inputs\":[{" X ",\"parameters\":{\"binary_data_size\":8}}]}";
    const float x[] = {-(float)INFINITY, (float)NAN};
    char body[512], header[16];
    size_t n = sizeof head - 1;
    (void)state;
    memcpy(body, head, n);
    memcpy(body + n, x, 8);
    snprintf(header, sizeof header, "%zu", n);
    for (int tokens = 0; tokens < 2; tokens++) {
        struct qd_infer_framing framing = {header, n + 8, true, tokens};
        struct qd_infer_call *call;
        struct qd_error error = {0};
        struct qd_infer_reply reply;
        assert_int_equal(qd_infer_call_create(one, &framing, &call, &error), QD_OK);
        assert_int_equal(qd_infer_call_feed(call, body, n + 8, &error), QD_OK);
        assert_int_equal(qd_infer_call_end(call, &error), QD_OK);
        struct qd_infer *infer = qd_infer_call_infer(call);
        assert_int_equal(qd_infer_prepare(infer, &error), QD_OK);
        qd_infer_run(&infer, 1);
        enum qd_status status = qd_infer_call_encode(call, &reply, &error);
        if (tokens) {
            assert_int_equal(status, QD_OK);
            assert_non_null(strstr(reply.json.bytes, "\"data\":[-Infinity,NaN]"));
            qd_infer_reply_free(&reply);
        } else {
            assert_int_equal(status, QD_ERR_OUT_OF_RANGE);
            assert_non_null(strstr(error.text, "request binary_data"));
        }
        qd_infer_call_destroy(&call);
    }
}

static void check_refused(struct qd_model *model, const char *header, const char *body, size_t n, const char *word)
{
    for (int way = 0; way < 3; way++) {
        struct qd_infer_call *call = NULL;
        struct qd_error error = {0};
        if (way == 2 && header)
            break; /* lengths can't be checked before the end then */
        enum qd_status status = decode(model, header, body, n, way ? 1 : n ? n : 1, way < 2, &call, &error);
        if (status == QD_OK) {
            qd_infer_call_destroy(&call);
            fail_msg("taken: %.*s", (int)n, body);
        }
        assert_true(qd_status_http(status) >= 400 && qd_status_http(status) < 502 && qd_status_http(status) != 500);
        if (!strstr(error.text, word))
            fail_msg("%.*s\nsays: %s\nwithout: %s", (int)n, body, error.text, word);
        assert_null(call);
    }
}

static void test_refused(void **state)
{
    static const struct {
        const char *body, *word;
    } rows[] = {
        {"", "ends in the middle"},
        {"[]", "must be a JSON object"},
        {"{}", "no inputs"},
        {"{\"inputs\":[]}", "no inputs"},
        {"{\"inputs\":{}}", "'inputs' must be"},
        {"{\"inputs\":[1]}", "'inputs' must be"},
        {"{\"inputs\":[{}]}", "no name"},
        {"{\"inputs\":[{\"name\":\"x\"}]}", "no shape"},
        {"{\"inputs\":[{" X "}]}", "no data"},
        {"{\"inputs\":[{" X ",\"data\":[1,2]}]} x", "follows behind"},
        {"{\"inputs\":[{" X ",\"data\":[1,2]}],\"inputs\":[]}", "'inputs' comes twice"},
        {"{\"inputs\":[{" X ",\"data\":[1,2]},{" X ",\"data\":[1,2]}]}", "input 'x' comes twice"},
        {"{\"inputs\":[{" X ",\"name\":\"x\",\"data\":[1,2]}]}", "'name' comes twice"},
        {"{\"inputs\":[{" X ",\"data\":[1,2],\"data\":[1,2]}]}", "'data' comes twice"},
        {"{\"inputs\":[{" X ",\"data\":[1]}]}", "needs 2"},
        {"{\"inputs\":[{" X ",\"data\":[1,2,3]}]}", "input 'x'"},
        {"{\"inputs\":[{" X ",\"data\":[1,\"2\"]}]}", "element 1 is a string"},
        {"{\"inputs\":[{" X ",\"data\":[1,NaN]}]}", "NaN"},
        {"{\"inputs\":[{" X ",\"data\":[1,1e999]}]}", "1e999"},
        {"{\"inputs\":[{" X ",\"data\":7}]}", "'data' must be an array"},
        {"{\"inputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[1,2]}]}", "no input 'y'"},
        {"{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP33\",\"shape\":[1,2],\"data\":[1,2]}]}", "FP33"},
        {"{\"inputs\":[{\"name\":\"x\",\"datatype\":\"BYTES\",\"shape\":[1,2],\"data\":[\"a\",\"b\"]}]}", "BYTES"},
        {"{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP16\",\"shape\":[1,2],\"data\":[1,2]}]}", "binary"},
        {"{\"inputs\":[{\"name\":\"x\",\"datatype\":\"INT32\",\"shape\":[1,2],\"data\":[1,2]}]}", "INT32"},
        {"{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,-2],\"data\":[1,2]}]}", "from 0 up"},
        {"{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,2.0],\"data\":[1,2]}]}", "from 0 up"},
        {"{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data\":[1,2]}]}",
         "more than 8"},
        {"{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[4611686018427387904,4],\"data\":[1,2]}]}",
         "too large"},
        {"{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1000000000,2],\"data\":[1,2]}]}",
         "more than its data"},
        {"{\"inputs\":[{\"data\":[1,2],\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1000000000,2]}]}",
         "more than its data"},
        {"{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[2],\"data\":[1,2]}]}", "shape"},
        {"{\"inputs\":[{" X ",\"parameters\":{\"binary_data_size\":8}}]}", "Inference-Header-Content-Length"},
        {"{\"inputs\":[{" X ",\"data\":[1,2],\"parameters\":{\"binary_data_size\":8}}]}", "both data and"},
        {"{\"inputs\":[{" X ",\"parameters\":{\"shared_memory_region\":\"a\"}}]}", "shared memory"},
        {"{\"parameters\":{\"triton_x\":1},\"inputs\":[{" X ",\"data\":[1,2]}]}", "triton_"},
        {"{\"parameters\":{\"a\":1,\"a\":2},\"inputs\":[{" X ",\"data\":[1,2]}]}", "'a' comes twice"},
        {"{\"parameters\":{\"quant_epoch\":-1},\"inputs\":[{" X ",\"data\":[1,2]}]}", "quant_epoch"},
        {"{\"parameters\":{\"quant_epoch\":999999},\"inputs\":[{" X ",\"data\":[1,2]}]}", "999999"},
        {"{\"inputs\":[{" X ",\"data\":[1,2]}],\"parameters\":{\"quant_epoch\":999999}}", "999999"},
        {"{\"parameters\":{\"quant_precision\":\"int4\"},\"inputs\":[{" X ",\"data\":[1,2]}]}", "quant_precision"},
        {"{\"parameters\":{\"quant_observe\":1},\"inputs\":[{" X ",\"data\":[1,2]}]}", "quant_observe"},
        {"{\"parameters\":[],\"inputs\":[{" X ",\"data\":[1,2]}]}", "'parameters' must be"},
        {"{\"id\":7,\"inputs\":[{" X ",\"data\":[1,2]}]}", "'id' must be"},
        {"{\"inputs\":[{" X ",\"data\":[1,2]}],\"outputs\":[{\"name\":\"y\"}]}", "no output 'y'"},
        {"{\"inputs\":[{" X ",\"data\":[1,2]}],\"outputs\":[{}]}", "no name"},
        {"{\"inputs\":[{" X ",\"data\":[1,2]}],\"outputs\":[{\"name\":\"out_x\"},{\"name\":\"out_x\"}]}",
         "output 'out_x' comes twice"},
        {"{\"inputs\":[{" X
         ",\"data\":[1,2]}],\"outputs\":[{\"name\":\"out_x\",\"parameters\":{\"classification\":2}}]}",
         "classification"},
        {"{\"inputs\":[{\"name\":\"x\\ud800\"}]}", "surrogate"},
        {"{\"inputs\":[[[[[[[[[[[[[[[[[[[[[[[[", "'inputs' must be"},
        {"{\"x\":[[[[[[[[[[[[[[[[[[[[[[[[", "nested deeper"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(rows[i].word, "'data'") == 0)
            check_refused(one, NULL, rows[i].body, strlen(rows[i].body),
                          "data"); /* worded by where the token was met */
        else
            check_refused(one, NULL, rows[i].body, strlen(rows[i].body), rows[i].word);
}

#define S "\"name\":\"s\",\"datatype\":\"BYTES\""

/* Strings in JSON, in the order of keys that lets them go straight to memory and in the one that keeps their text. */
static void test_strings_in_json(void **state)
{
    (void)state;
    check_answer(words, "{\"inputs\":[{" S ",\"shape\":[3],\"data\":[\"a\",\"\",\"\\u00e9\\n\\\"x\"]}]}",
                 "\"datatype\":\"BYTES\",\"shape\":[3],\"data\":[\"a\",\"\",\"\xc3\xa9\\u000a\\\"x\"]");
    check_answer(words, "{\"inputs\":[{\"data\":[\"b\\\\\",\"c\"],\"shape\":[2]," S "}]}",
                 "\"shape\":[2],\"data\":[\"b\\\\\",\"c\"]");
    check_answer(words, "{\"inputs\":[{" S ",\"shape\":[0],\"data\":[]}]}", "\"shape\":[0],\"data\":[]");
    static const struct {
        const char *body, *word;
    } rows[] = {{"{\"inputs\":[{" S ",\"shape\":[2],\"data\":[\"a\",1]}]}", "element 1 is no string"},
                {"{\"inputs\":[{" S ",\"shape\":[1],\"data\":[true]}]}", "element 0 is no string"},
                {"{\"inputs\":[{" S ",\"shape\":[1],\"data\":[null]}]}", "data"},
                {"{\"inputs\":[{" S ",\"shape\":[2],\"data\":[\"a\"]}]}", "needs 2"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_refused(words, NULL, rows[i].body, strlen(rows[i].body), rows[i].word);
}

/* Behind the JSON each string has a length of four bytes before it; any bytes may be in it. */
static void test_strings_in_binary(void **state)
{
    static const char head[] = "{\"inputs\":[{" S ",\"shape\":[2],\"parameters\":{\"binary_data_size\":11}}],"
                               "\"parameters\":{\"binary_data_output\":true}}";
    static const char data[] = "\3\0\0\0a\0\xff\0\0\0";
    char body[512], header[16];
    size_t n = sizeof head - 1, json_bytes;
    bool binary;
    (void)state;
    memcpy(body, head, n);
    memcpy(body + n, data, 11); /* the last zero is the literal's own */
    snprintf(header, sizeof header, "%zu", n);
    char *text = answer(words, header, body, n + 11, &binary, &json_bytes);
    assert_true(binary);
    assert_non_null(strstr(text, "\"binary_data_size\":11"));
    assert_memory_equal(text + json_bytes, data, 11);
    qd_free(text);
    static const char one_word[] = "\2\0\0\0hi";
    text = answer(words, "0", one_word, 6, &binary, &json_bytes);
    assert_memory_equal(text + json_bytes, one_word, 6);
    qd_free(text);
    body[n] = 4; /* longer than what is there */
    check_refused(words, header, body, n + 11, "end within element");
    body[n] = 1; /* shorter: bytes are left */
    check_refused(words, header, body, n + 11, "s'");
    check_refused(words, "0", "\2\0\0\0hix", 7, "are left behind");
    check_refused(words, "0", "\2\0", 2, "end within element 0 of 1");
}

static void test_framing(void **state)
{
    static const char head[] = "{\"inputs\":[{" X ",\"parameters\":{\"binary_data_size\":8}}]}";
    static const char *const bad[] = {"",    "-1", "+1", " 1", "1 ", "1x", "0x1", "01", "1.0", "18446744073709551616",
                                      "1000"};
    char body[512] = {0}, header[16];
    size_t n = sizeof head - 1;
    uint64_t value;
    (void)state;
    memcpy(body, head, n);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        check_refused(one, bad[i], body, n + 8, "Inference-Header-Content-Length");
    assert_true(qd_infer_header_length("18446744073709551615", &value) && value == UINT64_MAX);
    snprintf(header, sizeof header, "%zu", n);
    check_refused(one, header, body, n + 7, "too short");
    check_refused(one, header, body, n + 9, "follow the JSON");
    snprintf(header, sizeof header, "%zu", n - 1);
    check_refused(one, header, body, n + 8, "byte");
    snprintf(header, sizeof header, "%zu", n + 1);
    check_refused(one, header, body, n + 9, "byte");
    check_refused(one, "0", body, 7, "does not fit");
    check_refused(one, "0", body, 0, "does not fit");
    check_refused(many, "0", body, 8, "one input");
    check_refused(fixed, "0", body, 24, "does not fit");
}

static void test_binary_bool(void **state)
{
    static const char head[] =
        "{\"inputs\":[{\"name\":\"b\",\"datatype\":\"BOOL\",\"shape\":[2],\"parameters\":{\"binary_data_size\":2}}]}";
    char body[256], header[16];
    size_t n = sizeof head - 1;
    (void)state;
    memcpy(body, head, n);
    body[n] = 1;
    body[n + 1] = 2;
    snprintf(header, sizeof header, "%zu", n);
    check_refused(many, header, body, n + 2, "BOOL");
}

/* A short body may promise much; no more memory than the body can fill is taken for it. */
static void test_no_memory_for_promises(void **state)
{
    static const char body[] =
        "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[500000,2],\"data\":[1]}]}";
    (void)state;
    check_refused(one, NULL, body, sizeof body - 1, "more than its data");
}

/* Every allocation fails once: a status each time, nothing lost (the sanitizers look). */
static void test_out_of_memory(void **state)
{
    static const char body[] = "{\"id\":\"abc\",\"inputs\":[{\"data\":[1,2]," X
                               "}],\"parameters\":{\"quant_observe\":false}}";
    bool finished = false;
    (void)state;
    for (uint64_t n = 1; n < 1000 && !finished; n++) {
        struct qd_infer_call *call = NULL;
        struct qd_error error = {0};
        qd_mem_fail_at(n, false);
        enum qd_status status = decode(one, NULL, body, sizeof body - 1, 7, true, &call, &error);
        finished = qd_mem_count() < n;
        qd_mem_fail_at(0, false);
        if (finished)
            assert_int_equal(status, QD_OK);
        else if (status)
            assert_int_equal(status, QD_ERR_NO_MEMORY);
        qd_infer_call_destroy(&call);
    }
    assert_true(finished);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_binary),
        cmocka_unit_test(test_nonfinite_answers),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_strings_in_json),
        cmocka_unit_test(test_strings_in_binary),
        cmocka_unit_test(test_framing),
        cmocka_unit_test(test_binary_bool),
        cmocka_unit_test(test_no_memory_for_promises),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
