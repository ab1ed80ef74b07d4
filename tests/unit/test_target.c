/* Raw request targets and framing headers: what is taken apart, what is refused. */
#include "server/target.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void refuse(const char *raw)
{
    struct qd_target target;
    struct qd_error error = {0};
    if (qd_target_parse(raw, &target, &error) != QD_ERR_INVALID)
        fail_msg("'%.60s' was not refused", raw);
    assert_true(strlen(error.text) > 10);
}

static void test_refused(void **state)
{
    static const char *const targets[] = {
        "",        "*",       "v2",     "http://a/v2", "a:80",   "//",      "/v2//ready", "//v2",     "/v2/models//",
        "/.",      "/..",     "/v2/..", "/v2/./live",  "/%2e",   "/%2E%2e", "/a/.%2e/b",  "/%00",     "/v2/a%00b",
        "/a%0d",   "/a%0A",   "/a%7f",  "/a%1f",       "/a%2fb", "/a%2F",   "/a%",        "/a%2",     "/a%zz",
        "/a%2x",   "/a b",    "/a\tb",  "/a\rb",       "/a\x7f", "/a#b",    "/a?b=%00",   "/a?b=%0a", "/a?%",
        "/a?b=%2", "/a?b=c d"};
    (void)state;
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        refuse(targets[i]);
}

static void test_segments(void **state)
{
    struct qd_target target;
    struct qd_error error;
    (void)state;
    assert_int_equal(qd_target_parse("/v2/models/a%2Db.c~%C3%A4/infer", &target, &error), QD_OK);
    assert_int_equal(target.segment_count, 4);
    assert_string_equal(target.segments[0], "v2");
    assert_string_equal(target.segments[2], "a-b.c~\xc3\xa4");
    assert_string_equal(target.segments[3], "infer");
    assert_int_equal(target.param_count, 0);
    assert_int_equal(qd_target_parse("/v2/", &target, &error), QD_OK);
    assert_int_equal(target.segment_count, 1);
    assert_int_equal(qd_target_parse("/", &target, &error), QD_OK);
    assert_int_equal(target.segment_count, 0);
    assert_int_equal(qd_target_parse("/a+b/...", &target, &error), QD_OK);
    assert_string_equal(target.segments[0], "a+b");
    assert_string_equal(target.segments[1], "...");
}

static void test_query(void **state)
{
    struct qd_target target;
    struct qd_error error;
    (void)state;
    assert_int_equal(qd_target_parse("/a?q=1+2&&tensor=x%2Fy&flag&e=&=v&u=a?b/..", &target, &error), QD_OK);
    static const char *const expected[][2] = {{"q", "1 2"}, {"tensor", "x/y"}, {"flag", ""},
                                              {"e", ""},    {"", "v"},         {"u", "a?b/.."}};
    assert_int_equal(target.param_count, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(target.keys[i], expected[i][0]);
        assert_string_equal(target.values[i], expected[i][1]);
    }
}

/* The limits, each at its last good value and one more. */
static void test_limits(void **state)
{
    char raw[3 * QD_TARGET_BYTES] = "";
    struct qd_target target;
    struct qd_error error;
    (void)state;
    for (size_t i = 0; i < QD_TARGET_MAX_SEGMENTS; i++)
        strcat(raw, "/a");
    assert_int_equal(qd_target_parse(raw, &target, &error), QD_OK);
    assert_int_equal(target.segment_count, QD_TARGET_MAX_SEGMENTS);
    strcat(raw, "/a");
    refuse(raw);
    strcpy(raw, "/a?b");
    for (size_t i = 1; i < QD_TARGET_MAX_PARAMS; i++)
        strcat(raw, "&b=1");
    assert_int_equal(qd_target_parse(raw, &target, &error), QD_OK);
    assert_int_equal(target.param_count, QD_TARGET_MAX_PARAMS);
    strcat(raw, "&b=1");
    refuse(raw);
    size_t longest = 0;
    for (size_t n = 2; n < QD_TARGET_BYTES + 100; n++) {
        memset(raw, 'a', n);
        raw[0] = '/';
        raw[n] = 0;
        if (qd_target_parse(raw, &target, &error) == QD_OK) {
            assert_int_equal(strlen(target.segments[0]), n - 1);
            longest = n;
        }
    }
    assert_true(longest > QD_TARGET_BYTES / 2 && longest < QD_TARGET_BYTES);
}

/* All texts stay inside `bytes`, whatever comes; the sanitized builds see any step outside. */
static void test_random_bytes(void **state)
{
    static const char alphabet[] = "/%2e.?&=+a0fF\x01\x7f#\x80";
    struct qd_target *target = malloc(sizeof *target);
    struct qd_error error;
    uint32_t random = 12345;
    size_t taken = 0;
    (void)state;
    for (int round = 0; round < 200000; round++) {
        char raw[64];
        size_t n = 1;
        raw[0] = '/';
        for (random = random * 1664525u + 1013904223u; n < 2 + (random >> 24) % 60; n++)
            raw[n] = alphabet[((random = random * 1664525u + 1013904223u) >> 16) % (sizeof alphabet - 1)];
        raw[n] = 0;
        if (qd_target_parse(raw, target, &error) != QD_OK)
            continue;
        taken++;
        for (size_t i = 0; i < target->segment_count + 2 * target->param_count; i++) {
            size_t p = i - target->segment_count;
            const char *text = i < target->segment_count ? target->segments[i]
                               : p % 2                   ? target->keys[p / 2]
                                                         : target->values[p / 2];
            assert_true(text >= target->bytes && text + strlen(text) < target->bytes + sizeof target->bytes);
            if (i < target->segment_count)
                assert_true(*text && strcmp(text, ".") != 0 && strcmp(text, "..") != 0 && !strchr(text, '/'));
        }
    }
    assert_true(taken > 100);
    free(target);
}

/* ------------------------------------------------------------------ framing */

struct header {
    const char *name, *value;
};

static const char *fault(const struct header *headers, size_t count, bool http_1_1)
{
    struct qd_framing framing = {0};
    for (size_t i = 0; i < count; i++)
        qd_framing_add(&framing, headers[i].name, strlen(headers[i].name), headers[i].value, strlen(headers[i].value));
    return qd_framing_fault(&framing, http_1_1);
}

static void test_framing(void **state)
{
    static const struct {
        struct header headers[4];
        bool sound;
    } cases[] = {
        {{{"Host", "a"}}, true},
        {{{"hOST", "a"}, {"content-length", "3"}}, true},
        {{{"Host", "a"}, {"Transfer-Encoding", "Chunked"}}, true},
        {{{"Host", "a"}, {"Foo", "b\tc \xff"}}, true},
        {{{"Host", "a"}, {"Inference-Header-Content-Length", "3"}, {"Content-Length", "3"}}, true},
        {{{"Foo", "a"}}, false},
        {{{"Host", "a"}, {"Host", "a"}}, false},
        {{{"Host", "a"}, {"Content-Length", "3"}, {"CONTENT-LENGTH", "3"}}, false},
        {{{"Host", "a"}, {"Content-Length", "3"}, {"Transfer-Encoding", "chunked"}}, false},
        {{{"Host", "a"}, {"Transfer-Encoding", "chunked"}, {"Transfer-Encoding", "chunked"}}, false},
        {{{"Host", "a"}, {"Transfer-Encoding", "gzip, chunked"}}, false},
        {{{"Host", "a"}, {"Transfer-Encoding", "xchunked"}}, false},
        {{{"Host", "a"}, {"Transfer-Encoding", "chunked "}}, false},
        {{{"Host", "a"}, {"Transfer-Encoding", ""}}, false},
        {{{"Host", "a"}, {"Foo ", "b"}}, false},
        {{{"Host", "a"}, {"Fo\to", "b"}}, false},
        {{{"Host", "a"}, {"", "b"}}, false},
        {{{"Host", "a"}, {"Foo", "b\rc"}}, false},
        {{{"Host", "a"}, {"Foo", "b\nc"}}, false},
        {{{"Host", "a"}, {"Foo", "b\x7f"}}, false},
        {{{"Host", "a\x0b"}}, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n = 0;
        while (n < 4 && cases[i].headers[n].name)
            n++;
        const char *why = fault(cases[i].headers, n, true);
        if ((why == NULL) != cases[i].sound)
            fail_msg("case %zu: %s", i, why ? why : "was not refused");
    }
}

static void test_framing_by_version_and_length(void **state)
{
    struct header foo = {"Foo", "a"}, chunked = {"Transfer-Encoding", "chunked"};
    struct qd_framing framing = {0};
    (void)state;
    assert_null(fault(&foo, 1, false));
    assert_non_null(fault(&chunked, 1, false));
    qd_framing_add(&framing, "Host", 4, "a\0b", 3);
    assert_non_null(qd_framing_fault(&framing, true));
    framing = (struct qd_framing){0};
    qd_framing_add(&framing, "Host\0", 5, "a", 1);
    assert_non_null(qd_framing_fault(&framing, true));
    framing = (struct qd_framing){0};
    qd_framing_add(&framing, "Host", 4, NULL, 0);
    assert_null(qd_framing_fault(&framing, true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_framing),
        cmocka_unit_test(test_framing_by_version_and_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
