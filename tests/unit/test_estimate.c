/* Ranges from sketches: against the values themselves, and the entropy search against recordings of ONNX Runtime's
 * (tests/reference/entropy.py; the file is tests/unit/entropy.txt, or what ENTROPY_HISTOGRAMS names). */
#include "engine/quant/estimate.h"
#include "engine/quant/requant.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { COUNT = 20000 };
static float values[COUNT];
static struct qd_sketch sketch;

/* A sum of four uniform numbers: a bell of width about 1. */
static float bell(uint32_t *seed)
{
    float sum = -2;
    for (int i = 0; i < 4; i++) {
        *seed = *seed * 1664525u + 1013904223u;
        sum += (float)(*seed >> 8) / 16777216.0f;
    }
    return sum;
}

enum kind { BELL, RELU, NEGATIVE, OUTLIERS, SHIFTED, KINDS };

static void fill(enum kind kind)
{
    uint32_t seed = 7;
    for (int i = 0; i < COUNT; i++) {
        float x = bell(&seed);
        values[i] = kind == RELU       ? (x > 0 ? x : 0)
                    : kind == NEGATIVE ? -fabsf(x) - 0.5f
                    : kind == OUTLIERS ? (i % 2000 ? x : 40 * x)
                    : kind == SHIFTED  ? 3 * x + 2
                                       : x;
    }
    qd_sketch_init(&sketch);
    qd_sketch_add(&sketch, values, COUNT);
}

static struct qd_estimate_rules rules_of(enum qd_method method, bool symmetric, int bits)
{
    return (struct qd_estimate_rules){method, symmetric, bits, 99};
}

static double sampled_error(double lo, double hi, bool symmetric)
{
    struct qd_qparams qp = qd_qparams_from_range(lo, hi, symmetric);
    double sum = 0;
    for (int i = 0; i < COUNT; i++) {
        double e = (double)(values[i] - qd_dequantize_one(qd_quantize_one(values[i], &qp), &qp));
        sum += e * e;
    }
    return sum / COUNT;
}

static int rising(const void *a, const void *b)
{
    const float *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void test_nothing_seen(void **state)
{
    (void)state;
    double lo, hi;
    qd_sketch_init(&sketch);
    for (int method = QD_METHOD_MINMAX; method <= QD_METHOD_MSE; method++) {
        struct qd_estimate_rules rules = rules_of((enum qd_method)method, false, 8);
        assert_false(qd_estimate(&sketch, &rules, &lo, &hi));
    }
}

static void test_zeros_only(void **state)
{
    (void)state;
    const float zeros[3] = {0, 0, 0};
    qd_sketch_init(&sketch);
    qd_sketch_add(&sketch, zeros, 3);
    for (int method = QD_METHOD_MINMAX; method <= QD_METHOD_MSE; method++)
        for (int symmetric = 0; symmetric < 2; symmetric++) {
            struct qd_estimate_rules rules = rules_of((enum qd_method)method, symmetric, 8);
            double lo = 1, hi = -1;
            assert_true(qd_estimate(&sketch, &rules, &lo, &hi));
            assert_true(lo == 0 && hi == 0);
        }
}

static void test_min_max_is_exact(void **state)
{
    (void)state;
    struct qd_estimate_rules rules = rules_of(QD_METHOD_MINMAX, false, 8);
    double lo, hi;
    for (int kind = 0; kind < KINDS; kind++) {
        fill((enum kind)kind);
        assert_true(qd_estimate(&sketch, &rules, &lo, &hi));
        qsort(values, COUNT, sizeof *values, rising);
        assert_true(lo == (double)values[0] && hi == (double)values[COUNT - 1]);
    }
}

/* Within two bins (2 / 256 of the value) of the sorted values. */
static void test_percentile(void **state)
{
    (void)state;
    struct qd_estimate_rules rules = rules_of(QD_METHOD_PERCENTILE, false, 8);
    double lo, hi;
    for (int kind = 0; kind < KINDS; kind++) {
        fill((enum kind)kind);
        assert_true(qd_estimate(&sketch, &rules, &lo, &hi));
        qsort(values, COUNT, sizeof *values, rising);
        double low = (double)values[COUNT / 200], high = (double)values[COUNT - COUNT / 200];
        assert_true(fabs(lo - low) <= fabs(low) / 128 && fabs(hi - high) <= fabs(high) / 128);
    }
    fill(SHIFTED);
    rules.symmetric = true;
    assert_true(qd_estimate(&sketch, &rules, &lo, &hi));
    for (int i = 0; i < COUNT; i++)
        values[i] = fabsf(values[i]);
    qsort(values, COUNT, sizeof *values, rising);
    assert_true(fabs(hi - (double)values[COUNT - COUNT / 100]) <= hi / 128);
}

/* The error computed from the sketch is the samples' own to 2 %, wide ranges and narrow. */
static void test_error_is_that_of_the_values(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++)
        for (int symmetric = 0; symmetric < 2; symmetric++)
            for (int part = 1; part <= 8; part++) {
                fill((enum kind)kind);
                struct qd_estimate_rules rules = rules_of(QD_METHOD_MSE, symmetric, 8);
                double lo = (double)sketch.min * part / 8, hi = (double)sketch.max * part / 8;
                double got = qd_estimate_error(&sketch, &rules, lo, hi), want = sampled_error(lo, hi, symmetric);
                if (fabs(got - want) > 0.02 * want)
                    fail_msg("kind %d, symmetric %d, part %d: %g, the values' own is %g", kind, symmetric, part, got,
                             want);
            }
}

/* No candidate of a fine search is better by more than 2 %. */
static void test_mse_finds_the_least_error(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++)
        for (int symmetric = 0; symmetric < 2; symmetric++) {
            double lo, hi, least = INFINITY;
            struct qd_estimate_rules rules = rules_of(QD_METHOD_MSE, symmetric, 8);
            fill((enum kind)kind);
            assert_true(qd_estimate(&sketch, &rules, &lo, &hi));
            assert_true(lo >= (double)sketch.min && hi <= (double)sketch.max);
            double got = sampled_error(lo, hi, symmetric);
            for (int a = 1; a <= 24; a++)
                for (int b = 1; b <= 24; b++) {
                    double e = sampled_error((double)sketch.min * a / 24, (double)sketch.max * b / 24, symmetric);
                    least = e < least ? e : least;
                }
            if (got > 1.02 * least)
                fail_msg("kind %d, symmetric %d: %g..%g has %g, the least is %g", kind, symmetric, lo, hi, got, least);
        }
}

static void test_outliers_are_cut(void **state)
{
    (void)state;
    for (int method = QD_METHOD_PERCENTILE; method <= QD_METHOD_ENTROPY; method++) {
        struct qd_estimate_rules rules = rules_of((enum qd_method)method, false, 8);
        double lo, hi;
        fill(OUTLIERS);
        assert_true(sketch.max > 10);
        assert_true(qd_estimate(&sketch, &rules, &lo, &hi));
        assert_true(hi < 0.75 * (double)sketch.max && hi > 1 && lo > 0.75 * (double)sketch.min && lo < -1);
    }
}

/* 65,535 levels: cutting anything off costs more than finer steps gain. */
static void test_sixteen_bits_keep_the_range(void **state)
{
    (void)state;
    for (int method = QD_METHOD_ENTROPY; method <= QD_METHOD_MSE; method++) {
        struct qd_estimate_rules rules = rules_of((enum qd_method)method, true, 16);
        double lo, hi;
        fill(BELL);
        assert_true(qd_estimate(&sketch, &rules, &lo, &hi));
        assert_true(fmax(-lo, hi) > 0.95 * fmax(-(double)sketch.min, (double)sketch.max));
        assert_true(qd_estimate_error(&sketch, &rules, lo, hi) <
                    1e-4 * qd_estimate_error(&sketch, &(struct qd_estimate_rules){QD_METHOD_MSE, true, 8, 0}, lo, hi));
    }
}

static void test_entropy_is_onnx_runtimes(void **state)
{
    (void)state;
    const char *path = getenv("ENTROPY_HISTOGRAMS");
    FILE *file = fopen(path ? path : "tests/unit/entropy.txt", "r");
    assert_non_null(file);
    size_t levels, bins, chosen, seen = 0;
    while (fscanf(file, "%zu %zu %zu", &levels, &bins, &chosen) == 3) {
        uint64_t counts[1024];
        assert_true(bins <= sizeof counts / sizeof counts[0]);
        for (size_t i = 0; i < bins; i++)
            assert_int_equal(fscanf(file, "%" SCNu64, &counts[i]), 1);
        size_t got = qd_entropy_threshold(counts, bins, levels);
        if (got != chosen)
            fail_msg("histogram %zu, %zu bins, %zu levels: %zu, ONNX Runtime's is %zu", seen, bins, levels, got,
                     chosen);
        seen++;
    }
    fclose(file);
    assert_true(seen > 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_seen),
        cmocka_unit_test(test_zeros_only),
        cmocka_unit_test(test_min_max_is_exact),
        cmocka_unit_test(test_percentile),
        cmocka_unit_test(test_error_is_that_of_the_values),
        cmocka_unit_test(test_mse_finds_the_least_error),
        cmocka_unit_test(test_outliers_are_cut),
        cmocka_unit_test(test_sixteen_bits_keep_the_range),
        cmocka_unit_test(test_entropy_is_onnx_runtimes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
