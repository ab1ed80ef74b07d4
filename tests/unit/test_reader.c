/* The wire format: every kind of field, its bounds, packed lists, the check of names. */
#include "engine/onnx/reader.h"
#include "tests/unit/wire.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct qd_cursor open_wire(const struct wire *w)
{
    return qd_wire_open((struct qd_text){(const char *)w->bytes, w->size});
}

static void test_fields_of_each_type(void **state)
{
    (void)state;
    struct wire w = {0};
    struct qd_wire_field field;
    put_varint(&w, 1, 300);
    put_tag(&w, 2, 1);
    put_raw(&w, "\1\2\3\4\5\6\7\x88", 8);
    put_text(&w, 3, "abc");
    put_float(&w, (1u << 29) - 1, 1.0f);
    struct qd_cursor c = open_wire(&w);
    assert_true(qd_wire_next(&c, &field) && field.number == 1 && field.type == QD_WIRE_VARINT && field.value == 300);
    assert_true(qd_wire_next(&c, &field) && field.type == QD_WIRE_FIXED64 && field.value == 0x8807060504030201u);
    assert_true(qd_wire_next(&c, &field) && field.type == QD_WIRE_BYTES && field.bytes.length == 3);
    assert_memory_equal(field.bytes.bytes, "abc", 3);
    assert_true(qd_wire_next(&c, &field) && field.number == (1u << 29) - 1 && field.value == 0x3f800000u);
    assert_false(qd_wire_next(&c, &field));
    assert_false(c.bad);
    drop(&w);
}

static void test_malformed_fields(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {
        {"\x08", 1},                                              /* a varint that never comes */
        {"\x80", 1},                                              /* half a tag */
        {"\x00\x01", 2},                                          /* field number 0 */
        {"\x0b", 1},                                              /* a group opens */
        {"\x0c", 1},                                              /* a group closes */
        {"\x0e\x00", 2},                                          /* type 6 */
        {"\x0f\x00", 2},                                          /* type 7 */
        {"\x0d\x00\x00\x00", 4},                                  /* three of four bytes */
        {"\x09\x00\x00\x00\x00\x00\x00\x00", 8},                  /* seven of eight */
        {"\x0a\x02\x00", 3},                                      /* length beyond the end */
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},     /* length 2^64 - 1 */
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11},     /* bits beyond 64 */
        {"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 12}, /* eleven bytes */
        {"\x80\x80\x80\x80\x10\x01", 6},                          /* field number 2^29 */
        {"\x88\x80\x80\x80\x80\x01\x01", 7}, /* a tag beyond 32 bits that would fold into field 1 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct qd_cursor c = qd_cursor_make(cases[i].bytes, cases[i].size);
        struct qd_wire_field field;
        assert_false(qd_wire_next(&c, &field));
        assert_true(c.bad);
        assert_false(qd_wire_next(&c, &field));
    }
}

static size_t sum_of(const struct wire *w, enum qd_wire_type element, uint64_t *sum, bool *bad)
{
    struct qd_cursor c = open_wire(w);
    struct qd_wire_field field;
    size_t count = 0, walked = 0;
    *sum = 0;
    *bad = false;
    while (qd_wire_next(&c, &field)) {
        if (!qd_wire_count(&field, element, &count)) {
            *bad = true;
            return 0;
        }
        struct qd_wire_list list = qd_wire_values(&field, element);
        for (uint64_t value; qd_wire_value(&list, &value); walked++)
            *sum += value;
        *bad = *bad || list.packed.bad;
    }
    assert_true(*bad || walked == count);
    return count;
}

static void test_packed_and_single_values_mix(void **state)
{
    (void)state;
    struct wire w = {0};
    uint64_t sum;
    bool bad;
    put_varint(&w, 1, 5);
    put_bytes(&w, 1, "\x01\xac\x02\x00", 4); /* 1, 300, 0 */
    put_bytes(&w, 1, "", 0);
    put_varint(&w, 1, 4);
    assert_int_equal(sum_of(&w, QD_WIRE_VARINT, &sum, &bad), 5);
    assert_int_equal(sum, 310);
    assert_false(bad);
    drop(&w);
    put_bytes(&w, 1, "\1\0\0\0\2\0\0\0", 8);
    assert_int_equal(sum_of(&w, QD_WIRE_FIXED32, &sum, &bad), 2);
    assert_int_equal(sum, 3);
    assert_int_equal(sum_of(&w, QD_WIRE_FIXED64, &sum, &bad), 1);
    assert_true(sum == 0x200000001u);
    drop(&w);
}

static void test_malformed_lists(void **state)
{
    (void)state;
    struct wire w = {0};
    uint64_t sum;
    bool bad;
    put_bytes(&w, 1, "\1\0\0\0\2", 5);
    sum_of(&w, QD_WIRE_FIXED32, &sum, &bad);
    assert_true(bad);
    drop(&w);
    put_bytes(&w, 1, "\x01\x80", 2); /* ends in the middle of a varint */
    sum_of(&w, QD_WIRE_VARINT, &sum, &bad);
    assert_true(bad);
    drop(&w);
    put_varint(&w, 1, 1);
    sum_of(&w, QD_WIRE_FIXED32, &sum, &bad);
    assert_true(bad);
    drop(&w);
}

static void test_text(void **state)
{
    (void)state;
    static const char *const good[] = {
        "", "plain", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf", "\x7f"};
    static const char *const bad[] = {"\x80",
                                      "\xc3",
                                      "\xc0\xaf",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "a\xe2\x82",
                                      "\xe2\x28\xa1"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(qd_wire_is_text((struct qd_text){good[i], strlen(good[i])}));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(qd_wire_is_text((struct qd_text){bad[i], strlen(bad[i])}));
    assert_false(qd_wire_is_text((struct qd_text){"a\0b", 3}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields_of_each_type),
        cmocka_unit_test(test_malformed_fields),
        cmocka_unit_test(test_packed_and_single_values_mix),
        cmocka_unit_test(test_malformed_lists),
        cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
