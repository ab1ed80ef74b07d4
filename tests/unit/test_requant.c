/* requant.h: every equation against numbers worked by hand. */
#include "engine/quant/requant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct qd_qparams U8 = {0.5f, 10, 0, 255}, S8 = {0.5f, 128, 1, 255};

static void quantize_equation_1(void **unused)
{
    (void)unused;
    assert_int_equal(qd_quantize_one(0.0f, &U8), 10);
    assert_int_equal(qd_quantize_one(3.0f, &U8), 16);
    assert_int_equal(qd_quantize_one(0.25f, &U8), 10);  /* .5 -> 0 */
    assert_int_equal(qd_quantize_one(0.75f, &U8), 12);  /* 1.5 -> 2 */
    assert_int_equal(qd_quantize_one(-0.25f, &U8), 10); /* -.5 -> 0 */
    assert_int_equal(qd_quantize_one(-0.75f, &U8), 8);  /* -1.5 -> -2 */
    assert_int_equal(qd_quantize_one(-5.0f, &U8), 0);
    assert_int_equal(qd_quantize_one(-5.5f, &U8), 0);
    assert_int_equal(qd_quantize_one(122.5f, &U8), 255);
    assert_int_equal(qd_quantize_one(1e30f, &U8), 255);
    assert_int_equal(qd_quantize_one(-63.5f, &S8), 1);
    assert_int_equal(qd_quantize_one(-64.0f, &S8), 1);
    assert_int_equal(qd_quantize_one(63.5f, &S8), 255);
}

static void what_is_not_finite(void **unused)
{
    (void)unused;
    assert_int_equal(qd_quantize_one(NAN, &U8), 0);
    assert_int_equal(qd_quantize_one(NAN, &S8), 1);
    assert_int_equal(qd_quantize_one(INFINITY, &U8), 255);
    assert_int_equal(qd_quantize_one(-INFINITY, &S8), 1);
}

static void dequantize_equation_2(void **unused)
{
    (void)unused;
    assert_true(qd_dequantize_one(10, &U8) == 0.0f);
    assert_true(qd_dequantize_one(0, &U8) == -5.0f);
    assert_true(qd_dequantize_one(255, &U8) == 122.5f);
}

static void real_equation_7(void **unused)
{
    (void)unused;
    assert_true(qd_real_one(7, 0.5f, 0.25f) == 3.75f);
    /* 2^24 + 1 has no float: it becomes 2^24 before the multiply. */
    assert_true(qd_real_one(16777217, 1.0f, 0.0f) == 16777216.0f);
    /* Two roundings: 3 * 0x1.555556p-1 = 2 + 2^-24 rounds to 2 first; a fused addition would leave 2^-24 over. */
    volatile float scale = 0x1.555556p-1f;
    volatile float product = 3.0f * scale;
    assert_true(qd_real_one(3, scale, -product) == 0.0f);
}

static void requantize_equation_8(void **unused)
{
    (void)unused;
    assert_int_equal(qd_requantize_one(3.0f, 2.0f, &U8), 16);
    assert_int_equal(qd_requantize_one(1e38f, 100.0f, &U8), 255); /* overflows to infinity first */
    /* 45.5 / 7 is a tie, 6.5 -> 6; times the float nearest to 1 / 7 it lies just above: 7. The two are different
     * functions. */
    const struct qd_qparams seven = {7.0f, 0, 0, 255};
    assert_int_equal(qd_quantize_one(45.5f, &seven), 6);
    assert_int_equal(qd_requantize_one(45.5f, 1.0f / 7.0f, &seven), 7);
    assert_int_equal(qd_requantize_one(NAN, 2.0f, &S8), 1);
}

static void observing_counts_what_is_cut(void **unused)
{
    (void)unused;
    struct qd_observation seen = qd_observation_empty();
    const float reals[] = {-5.25f, -5.5f, 122.5f, 122.75f, 123.0f, NAN, INFINITY, 0.0f};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        qd_observe_one(&seen, reals[i], reals[i] * 2.0f, &U8);
    assert_int_equal(seen.elems, 8);
    assert_int_equal(seen.nonfinite, 2);
    assert_int_equal(seen.clipped_low, 1);  /* -10.5 rounds to -10, which is qmin; -11 is cut */
    assert_int_equal(seen.clipped_high, 2); /* 245.5 rounds to 246, which is cut, as is 246; 245 is qmax */
    assert_true(seen.min == -5.5f && seen.max == 123.0f);
}

static void observations_merge(void **unused)
{
    (void)unused;
    struct qd_observation a = {.min = 1, .max = 2, .elems = 3, .nonfinite = 1, .clipped_low = 4, .clipped_high = 5};
    struct qd_observation b = {.min = -1, .max = 1, .elems = 10, .nonfinite = 2, .clipped_low = 1, .clipped_high = 1};
    qd_observation_merge(&a, &b);
    assert_true(a.min == -1.0f && a.max == 2.0f);
    assert_int_equal(a.elems, 13);
    assert_int_equal(a.nonfinite, 3);
    assert_int_equal(a.clipped_low, 5);
    assert_int_equal(a.clipped_high, 6);
    struct qd_observation none = qd_observation_empty();
    qd_observation_merge(&a, &none);
    assert_true(a.min == -1.0f && a.max == 2.0f && a.elems == 13);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantize_equation_1),   cmocka_unit_test(what_is_not_finite),
        cmocka_unit_test(dequantize_equation_2), cmocka_unit_test(real_equation_7),
        cmocka_unit_test(requantize_equation_8), cmocka_unit_test(observing_counts_what_is_cut),
        cmocka_unit_test(observations_merge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
