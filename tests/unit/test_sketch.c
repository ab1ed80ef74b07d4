/* The sketch: known counts, and a state that depends on nothing but which values came. */
#include "engine/quant/sketch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct qd_sketch a, b, whole;

static void fill(float *values, size_t count)
{
    uint32_t seed = 1;
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        values[i] = ldexpf((float)(int32_t)seed / 2147483648.0f, (int)(seed >> 8 & 63) - 40);
    }
}

static void test_counts_are_exact(void **state)
{
    (void)state;
    const float values[] = {1.0f, 1.5f, -1.5f, 0.0f, -0.0f, INFINITY, NAN, 1e-30f};
    qd_sketch_init(&a);
    qd_sketch_add(&a, values, 8);
    assert_int_equal(a.elems, 8);
    assert_int_equal(a.nonfinite, 2);
    assert_int_equal(a.zeros, 2);
    assert_int_equal(a.small, 1);
    assert_true(a.min == -1.5f && a.max == 1.5f);
    size_t one = QD_SKETCH_BINS - (1 << QD_SKETCH_BITS), half = one + (1 << QD_SKETCH_BITS) / 2;
    assert_true(qd_sketch_edge(&a, one) == 1.0 && qd_sketch_edge(&a, half) == 1.5);
    assert_true(qd_sketch_edge(&a, QD_SKETCH_BINS) == 2.0);
    assert_int_equal(a.bins[0][one], 1);
    assert_int_equal(a.bins[0][half], 1);
    assert_int_equal(a.bins[1][half], 1);
}

static void test_order_and_splits_do_not_matter(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    static float values[COUNT], backwards[COUNT];
    fill(values, COUNT);
    values[17] = -3e38f;
    for (size_t i = 0; i < COUNT; i++)
        backwards[i] = values[COUNT - 1 - i];
    qd_sketch_init(&whole);
    qd_sketch_add(&whole, values, COUNT);
    qd_sketch_init(&a);
    qd_sketch_add(&a, backwards, COUNT);
    assert_memory_equal(&a, &whole, sizeof a);
    for (size_t cut = 0; cut <= COUNT; cut += 1000) {
        qd_sketch_init(&a);
        qd_sketch_init(&b);
        qd_sketch_add(&a, values, cut);
        qd_sketch_add(&b, values + cut, COUNT - cut);
        qd_sketch_merge(&a, &b);
        assert_memory_equal(&a, &whole, sizeof a);
    }
}

static void test_an_outlier_leaves_the_rest_sharp(void **state)
{
    (void)state;
    const float values[] = {1.0f, 1.25f, 1000.0f};
    size_t used = 0;
    qd_sketch_init(&a);
    qd_sketch_add(&a, values, 3);
    for (size_t i = 0; i < QD_SKETCH_BINS; i++)
        used += a.bins[0][i] == 1;
    assert_int_equal(used, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts_are_exact),
        cmocka_unit_test(test_order_and_splits_do_not_matter),
        cmocka_unit_test(test_an_outlier_leaves_the_rest_sharp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
