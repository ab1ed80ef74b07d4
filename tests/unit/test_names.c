/* The engine's words: every value has a name that leads back to it; nothing else does. */
#include "engine/engine.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define CHECK(type, family, count, ...)                                                                                \
    static void test_##family(void **state)                                                                            \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        static const char *const words[] = {__VA_ARGS__};                                                              \
        enum type value;                                                                                               \
        assert_int_equal(sizeof words / sizeof words[0], count);                                                       \
        for (int i = 0; i < count; i++) {                                                                              \
            assert_string_equal(qd_##family##_name((enum type)i), words[i]);                                           \
            value = (enum type)(count - 1 - i);                                                                        \
            assert_true(qd_##family##_from(words[i], &value));                                                         \
            assert_int_equal(value, i);                                                                                \
        }                                                                                                              \
        assert_null(qd_##family##_name((enum type)count));                                                             \
        assert_null(qd_##family##_name((enum type) - 1));                                                              \
        value = (enum type)1;                                                                                          \
        assert_false(qd_##family##_from("", &value));                                                                  \
        assert_false(qd_##family##_from("EMA", &value));                                                               \
        assert_false(qd_##family##_from(NULL, &value));                                                                \
        assert_int_equal(value, 1);                                                                                    \
    }

CHECK(qd_mode, mode, 3, "ema", "request", "static")
CHECK(qd_guard, guard, 4, "widen", "clip", "reject", "escalate")
CHECK(qd_scheme, scheme, 2, "asymmetric", "symmetric")
CHECK(qd_granularity, granularity, 4, "tensor", "channel", "row", "auto")
CHECK(qd_precision, precision, 5, "int8", "int16", "fp32", "fake", "auto")

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mode),        cmocka_unit_test(test_guard),     cmocka_unit_test(test_scheme),
        cmocka_unit_test(test_granularity), cmocka_unit_test(test_precision),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
