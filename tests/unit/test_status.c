/* Outcomes and their sentences. */
#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_table(void **state)
{
    (void)state;
    for (int i = 0; i < QD_STATUS_COUNT; i++) {
        assert_true(qd_status_text((enum qd_status)i)[0]);
        int http = qd_status_http((enum qd_status)i);
        assert_true(i == QD_OK ? http == 200 : http >= 400 && http < 600);
    }
    assert_int_equal(QD_OK, 0);
    assert_int_equal(qd_status_http(QD_ERR_NOT_FOUND), 404);
    assert_int_equal(qd_status_http((enum qd_status)999), 500);
    assert_string_equal(qd_status_text((enum qd_status) - 1), "unknown status");
}

static void test_fail(void **state)
{
    (void)state;
    struct qd_error error;
    assert_int_equal(qd_fail(&error, QD_ERR_FORMAT, "tensor '%s': %d", "w", 3), QD_ERR_FORMAT);
    assert_int_equal(error.status, QD_ERR_FORMAT);
    assert_string_equal(error.text, "tensor 'w': 3");
    assert_int_equal(qd_fail(NULL, QD_ERR_IO, "x"), QD_ERR_IO);
    qd_fail(&error, QD_ERR_FORMAT, "%s", "a\nb\033[31m\tc\x7f");
    assert_string_equal(error.text, "a?b?[31m?c?");
}

static void test_prefix(void **state)
{
    (void)state;
    struct qd_error error;
    qd_fail(&error, QD_ERR_TYPE, "inner");
    assert_int_equal(qd_error_prefix(&error, "outer %d", 1), QD_ERR_TYPE);
    assert_string_equal(error.text, "outer 1: inner");
    assert_int_equal(error.status, QD_ERR_TYPE);
}

/* Names come from other people's files: a cut must leave valid UTF-8, or no JSON could carry the sentence. */
static void test_long_texts_are_cut_between_letters(void **state)
{
    (void)state;
    char name[2000];
    for (int shift = 0; shift < 4; shift++) {
        struct qd_error error;
        memset(name, 'x', sizeof name);
        for (size_t i = (size_t)shift; i + 5 < sizeof name; i += 4)
            memcpy(name + i, "\xf0\x9f\x98\x80", 4);
        name[sizeof name - 1] = 0;
        qd_fail(&error, QD_ERR_FORMAT, "%s", name);
        size_t n = strlen(error.text);
        assert_in_range(n, QD_ERROR_TEXT_BYTES - 5, QD_ERROR_TEXT_BYTES - 1);
        assert_int_equal((n - (size_t)shift) % 4, 0);
        qd_error_prefix(&error, "node");
        n = strlen(error.text);
        assert_in_range(n, QD_ERROR_TEXT_BYTES - 6, QD_ERROR_TEXT_BYTES - 1);
        assert_int_equal((n - 6 - (size_t)shift) % 4, 0);
        qd_error_prefix(&error, "%s", name);
        assert_int_equal((strlen(error.text) - (size_t)shift) % 4, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table), cmocka_unit_test(test_fail),
                                       cmocka_unit_test(test_prefix),
                                       cmocka_unit_test(test_long_texts_are_cut_between_letters)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
