/* The moving average of one site: each rule of docs/QUANTIZATION.md, section 3, with numbers worked by hand. */
#include "engine/quant/range.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct qd_range_rules rules = {.averaging_constant = 0.01, .max_step = 2};

/* PyTorch's: no warm-up, no winsorising, in float. */
static const struct qd_range_rules like_torch = {0.01, 2, {QD_COMPAT_TORCH, false, 0.01f}};

static struct qd_observation seen(float min, float max)
{
    struct qd_observation o = qd_observation_empty();
    o.min = min;
    o.max = max;
    o.elems = 10;
    return o;
}

static void fold(struct qd_range *range, float min, float max)
{
    struct qd_observation o = seen(min, max);
    qd_range_fold(range, &rules, &o, 0, 1000);
}

static void test_first_observation_sets_the_range(void **state)
{
    (void)state;
    struct qd_range range = {0};
    fold(&range, -1.5f, 4);
    assert_true(range.lo == -1.5 && range.hi == 4.0);
    assert_int_equal(range.n, 1);
}

/* c_n = max(c, 1 / (n + 1)): the second observation weighs a half, the third a third: a plain mean until c takes over.
 */
static void test_warm_up_is_a_plain_mean(void **state)
{
    (void)state;
    struct qd_range range = {0};
    fold(&range, -1, 3);
    fold(&range, -2, 5);
    assert_true(range.lo == -1.5 && range.hi == 4.0);
    fold(&range, -3, 7);
    assert_true(fabs(range.lo - -2.0) < 1e-12 && fabs(range.hi - 5.0) < 1e-12);
}

static void test_rate_falls_to_the_constant_and_stays(void **state)
{
    (void)state;
    assert_true(qd_range_rate(&rules, 1) == 0.5);
    assert_true(qd_range_rate(&rules, 98) == 1.0 / 99);
    assert_true(qd_range_rate(&rules, 99) == 0.01);
    assert_true(qd_range_rate(&rules, 1000000) == 0.01);
}

static void test_equations_5_and_6_after_warm_up(void **state)
{
    (void)state;
    struct qd_range range = {.lo = -2, .hi = 6, .n = 500, .updated_unix_ms = 1, .observed_min = -2, .observed_max = 6};
    fold(&range, -3, 8);
    assert_true(fabs(range.lo - (-2 + 0.01 * (-3 - -2))) < 1e-15);
    assert_true(fabs(range.hi - (6 + 0.01 * (8 - 6))) < 1e-15);
    fold(&range, -1, 4); /* it shrinks as readily as it grows */
    assert_true(range.lo > -2.01 && range.hi < 6.02);
}

/* Width 8, c_n = .01, max_step = 2: one request far out moves nothing, and of several in a row the third .16 at most.
 */
static void test_outliers_are_winsorised(void **state)
{
    (void)state;
    struct qd_range range = {.lo = -2, .hi = 6, .n = 500, .updated_unix_ms = 1};
    fold(&range, -2, 1e30f);
    fold(&range, -2, 1e30f);
    assert_true(range.lo == -2 && range.hi == 6);
    fold(&range, -1e30f, 1e30f);
    assert_true(fabs(range.lo - -2.16) < 1e-12 && fabs(range.hi - 6.16) < 1e-12);
    fold(&range, -2.16f, 6.16f);
    fold(&range, -2, 1e30f);
    assert_true(range.hi < 6.1601);
    struct qd_range edge = {.lo = -2, .hi = 6, .n = 500, .updated_unix_ms = 1};
    fold(&edge, -2, 22); /* two widths beyond: not far */
    assert_true(fabs(edge.hi - 6.16) < 1e-12);
}

/* A fifth of the observations a hundred times too large: the width grows by less than an eighth (1 dB) on average. */
static void test_poison_hardly_widens(void **state)
{
    (void)state;
    struct qd_range range = {0};
    uint64_t random = 88172645463325252u;
    double sum = 0;
    for (int i = 0; i < 20000; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        const float by = i > 8 && random % 5 == 0 ? 100 : 1;
        fold(&range, -1 * by, 3 * by);
        sum += range.hi - range.lo;
    }
    assert_true(sum / 20000 < 4 * 1.122);
}

/* Width counts zero in: [5, 5] has width 5, so a range that never held zero can still move. */
static void test_width_includes_zero(void **state)
{
    (void)state;
    assert_true(qd_range_width(5, 5) == 5 && qd_range_width(-3, -1) == 3 && qd_range_width(-1, 2) == 3);
    struct qd_range range = {.n = 500, .updated_unix_ms = 1};
    fold(&range, -4, 4); /* [0, 0] so far: nothing to measure a step in, so the move is not cut */
    assert_true(range.lo == -0.04 && range.hi == 0.04);
}

static void test_nonfinite_values_never_enter(void **state)
{
    (void)state;
    struct qd_range range = {0};
    struct qd_observation none = qd_observation_empty();
    none.elems = none.nonfinite = 7;
    qd_range_fold(&range, &rules, &none, 0, 5);
    assert_int_equal(range.n, 0);
    assert_int_equal(range.nonfinite, 7);
    assert_int_equal(range.updated_unix_ms, 0);
    fold(&range, 1, 2);
    qd_range_fold(&range, &rules, &none, 0, 6);
    assert_true(range.lo == 1 && range.hi == 2 && range.n == 1);
    assert_int_equal(range.nonfinite, 14);
}

static void test_counting_moves_no_average(void **state)
{
    (void)state;
    struct qd_range range = {0};
    fold(&range, -1, 1);
    struct qd_observation o = seen(-9, 9);
    o.clipped_low = 2;
    o.clipped_high = 3;
    qd_range_count(&range, &o, 1, 2000);
    assert_true(range.lo == -1 && range.hi == 1 && range.n == 1);
    assert_true(range.observed_min == -9 && range.observed_max == 9 && range.last_min == -9 && range.last_max == 9);
    assert_int_equal(range.elems, 20);
    assert_int_equal(range.clipped_low, 2);
    assert_int_equal(range.clipped_high, 3);
    assert_int_equal(range.guarded, 1);
    assert_int_equal(range.updated_unix_ms, 2000);
}

static void test_another_library_has_its_own_average(void **state)
{
    (void)state;
    struct qd_range range = {0};
    const float values[][2] = {{-1, 2}, {-100, 300}, {-3, 4}};
    float lo = -1, hi = 2;
    for (int i = 0; i < 3; i++) {
        struct qd_observation o = seen(values[i][0], values[i][1]);
        qd_range_fold(&range, &like_torch, &o, 0, 1000);
        if (i > 0) {
            lo += 0.01f * (values[i][0] - lo);
            hi += 0.01f * (values[i][1] - hi);
        }
    }
    assert_true(range.lo == (double)lo && range.hi == (double)hi);
    assert_int_equal(range.n, 3);
}

/* 3e38 - -3e38 is infinite in float: that observation is counted and left out, and learning goes on. */
static void test_another_librarys_average_stays_finite(void **state)
{
    (void)state;
    struct qd_range range = {0};
    const float values[][2] = {{-3e38f, 1}, {3e38f, 3e38f}, {-3e38f, 2}};
    for (int i = 0; i < 3; i++) {
        struct qd_observation o = seen(values[i][0], values[i][1]);
        qd_range_fold(&range, &like_torch, &o, 0, 1000);
    }
    assert_true(range.lo == (double)-3e38f && isfinite(range.hi));
    assert_int_equal(range.n, 2);
    assert_true(range.observed_max == (double)3e38f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_observation_sets_the_range),
        cmocka_unit_test(test_warm_up_is_a_plain_mean),
        cmocka_unit_test(test_rate_falls_to_the_constant_and_stays),
        cmocka_unit_test(test_equations_5_and_6_after_warm_up),
        cmocka_unit_test(test_outliers_are_winsorised),
        cmocka_unit_test(test_poison_hardly_widens),
        cmocka_unit_test(test_width_includes_zero),
        cmocka_unit_test(test_nonfinite_values_never_enter),
        cmocka_unit_test(test_counting_moves_no_average),
        cmocka_unit_test(test_another_library_has_its_own_average),
        cmocka_unit_test(test_another_librarys_average_stays_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
