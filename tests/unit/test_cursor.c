/* Bounded reads: nothing beyond the end, and once bad always bad. */
#include "base/cursor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void test_take(void **state)
{
    (void)state;
    struct qd_cursor c = qd_cursor_make("abcd", 4);
    assert_int_equal(qd_cursor_left(&c), 4);
    assert_memory_equal(qd_cursor_take(&c, 3), "abc", 3);
    assert_int_equal(qd_cursor_left(&c), 1);
    assert_non_null(qd_cursor_take(&c, 0));
    assert_null(qd_cursor_take(&c, 2));
    assert_true(c.bad);
    assert_int_equal(qd_cursor_left(&c), 0);
    assert_null(qd_cursor_take(&c, 1)); /* though one byte was there */
    c = qd_cursor_make("abcd", 4);
    assert_null(qd_cursor_take(&c, SIZE_MAX));
    c = qd_cursor_make(NULL, 0);
    assert_int_equal(qd_cursor_left(&c), 0);
    assert_null(qd_cursor_take(&c, 1));
}

static void test_fixed_numbers(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {1, 2, 3, 0xff, 1, 0, 0, 0, 0, 0, 0, 0x80, 9, 9, 9};
    struct qd_cursor c = qd_cursor_make(bytes, sizeof bytes);
    assert_true(qd_cursor_u32le(&c) == 0xff030201u);
    assert_true(qd_cursor_u64le(&c) == 0x8000000000000001u);
    assert_false(c.bad);
    assert_int_equal(qd_cursor_u32le(&c), 0); /* three left */
    assert_true(c.bad);
    c = qd_cursor_make(bytes, 7);
    qd_cursor_u64le(&c);
    assert_true(c.bad);
}

static void test_varints(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        uint64_t value;
        bool ok;
    } cases[] = {
        {"\x00", 1, 0, true},
        {"\x7f", 1, 127, true},
        {"\x80\x01", 2, 128, true},
        {"\xac\x02", 2, 300, true},
        {"\x80\x00", 2, 0, true}, /* longer than needed is allowed */
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10, UINT64_MAX, true},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10, 0, false},
        {"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 11, 0, false},
        {"\x80", 1, 0, false},
        {"", 0, 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct qd_cursor c = qd_cursor_make(cases[i].bytes, cases[i].size);
        assert_true(qd_cursor_varint(&c) == cases[i].value);
        assert_int_equal(!c.bad, cases[i].ok);
        assert_int_equal(qd_cursor_left(&c), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_take), cmocka_unit_test(test_fixed_numbers),
                                       cmocka_unit_test(test_varints)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
