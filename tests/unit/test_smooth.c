/* Smoothing: rows with a few large columns get closer to FP32 by it, nothing else changes the numbers, an epoch of the
 * plan before is replayed without it, and what is not worth it is left alone. */
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <math.h>

enum { ROWS = 6, DEPTH = 64, ELEMS = ROWS * DEPTH, WIDTH = 48, ANSWER = ROWS * WIDTH };

static struct qd_engine *engine;

struct net {
    struct qd_mb b;
    struct qd_model *model;
};

/* x -> MatMul -> y, and x -> Gemm-like MatMul -> z: two readers of one tensor. */
static struct net net_new(bool smoothing)
{
    struct net n = {0};
    struct qd_quant_options options = qd_quant_defaults();
    options.precision = QD_INT8;
    options.smoothing = smoothing;
    options.min_observations = 1000; /* ranges are not what is tested */
    qd_mb_input(&n.b, "x", QD_F32, "N,S,64");
    qd_mb_weights(&n.b, "w", "64,48", 1, 0.3f);
    qd_mb_weights(&n.b, "v", "64,16", 2, 0.5f);
    qd_mb_node(&n.b, "MatMul", "x w", "y", NULL);
    qd_mb_node(&n.b, "MatMul", "x v", "z", NULL);
    qd_mb_output(&n.b, "y", QD_F32, "N,S,48");
    qd_mb_output(&n.b, "z", QD_F32, "N,S,16");
    qd_mb_finish(&n.b, 13);
    n.model = qd_mb_load(&n.b, engine, &options, NULL);
    assert_non_null(n.model);
    return n;
}

static void net_free(struct net *n)
{
    qd_model_unref(&n->model);
    qd_mb_free(&n->b);
}

/* Columns of about one size, or three that are far larger. */
static void inputs(float *x, uint64_t seed, bool outliers)
{
    qd_mb_fill(x, ELEMS, seed, 1);
    for (int i = 0; outliers && i < ELEMS; i++)
        x[i] *= i % DEPTH == 5 || i % DEPTH == 17 || i % DEPTH == 40 ? 60 : 1;
}

static void ask(struct net *n, const struct qd_infer_options *options, const float *x, float *y)
{
    struct qd_infer *infer = qd_mb_run(n->model, options, "1,6,64", x);
    memcpy(y, qd_infer_output(infer, 0)->data, ANSWER * sizeof *y);
    qd_infer_destroy(&infer);
}

static void teach(struct net *n, int times, bool outliers)
{
    float x[ELEMS], y[ANSWER];
    for (int i = 0; i < times; i++) {
        inputs(x, 100 + (uint64_t)i, outliers);
        ask(n, NULL, x, y);
    }
}

/* As the server does. */
static bool smooth(struct net *n)
{
    struct qd_smoothing *smoothing;
    struct qd_error error;
    if (!qd_model_smoothing_due(n->model, true))
        return false;
    assert_int_equal(qd_smoothing_create(n->model, true, &smoothing, &error), QD_OK);
    qd_smoothing_run(smoothing);
    return qd_smoothing_finish(&smoothing);
}

/* Squared error against FP32 over a few inputs. */
static double error_of(struct net *n, bool outliers)
{
    struct qd_infer_options int8 = qd_infer_defaults(), fp32 = int8;
    float x[ELEMS], got[ANSWER], want[ANSWER];
    double error = 0;
    int8.observe = fp32.observe = false;
    fp32.precision = QD_FP32;
    for (uint64_t i = 0; i < 20; i++) {
        inputs(x, 900 + i, outliers);
        ask(n, &int8, x, got);
        ask(n, &fp32, x, want);
        for (int e = 0; e < ANSWER; e++)
            error += ((double)got[e] - (double)want[e]) * ((double)got[e] - (double)want[e]);
    }
    return error;
}

static void test_outliers(void **state)
{
    (void)state;
    struct net n = net_new(true);
    struct qd_range_report range;
    struct qd_plan_report before, after;
    struct qd_ranges_summary summary;
    struct qd_infer_options replay = qd_infer_defaults();
    float x[ELEMS], old[ANSWER], now[ANSWER], again[ANSWER];
    teach(&n, 31, true);
    assert_false(smooth(&n));
    teach(&n, 1, true);
    const double was = error_of(&n, true);
    inputs(x, 7, true);
    ask(&n, NULL, x, old);
    qd_model_ranges(n.model, &summary);
    replay.epoch = summary.epoch;
    qd_model_plan(n.model, &before);
    assert_true(smooth(&n));
    qd_model_plan(n.model, &after);
    assert_int_not_equal(before.digest, after.digest);
    assert_int_equal(qd_model_smoothed(n.model), 1);
    qd_model_range(n.model, 0, &range);
    assert_true(range.smoothed && range.observations == 0);
    const double is = error_of(&n, true);
    if (!(is < 0.25 * was)) /* 6 dB */
        fail_msg("the error was %g, is %g", was, is);
    ask(&n, NULL, x, now);
    ask(&n, &replay, x, again);
    assert_memory_equal(old, again, sizeof old);
    assert_memory_not_equal(old, now, sizeof old);
    assert_false(smooth(&n)); /* once */
    net_free(&n);
}

static void test_what_is_left_alone(void **state)
{
    (void)state;
    struct net even = net_new(true), off = net_new(false);
    teach(&even, 64, false);
    const double was = error_of(&even, false);
    (void)smooth(&even);
    assert_true(error_of(&even, false) < 1.1 * was);
    teach(&off, 70, true);
    assert_false(smooth(&off));
    assert_int_equal(qd_model_smoothed(off.model), 0);
    net_free(&even);
    net_free(&off);
}

/* Bias correction goes on from the same means, in the new columns' units. */
static void test_with_bias_correction(void **state)
{
    (void)state;
    struct net n = net_new(true);
    struct qd_correction *correction;
    struct qd_correction_report report;
    struct qd_error error;
    teach(&n, 64, true);
    assert_true(smooth(&n));
    const double was = error_of(&n, true);
    assert_true(qd_model_correction_due(n.model));
    assert_int_equal(qd_correction_create(n.model, &correction, &error), QD_OK);
    qd_correction_run(correction);
    assert_true(qd_correction_finish(&correction));
    qd_model_correction(n.model, &report);
    assert_int_equal(report.layers, 2);
    assert_true(error_of(&n, true) < 1.2 * was);
    net_free(&n);
}

static void test_undo_and_options(void **state)
{
    (void)state;
    struct net n = net_new(true);
    struct qd_smoothing *undo;
    struct qd_error error;
    struct qd_change *change;
    teach(&n, 64, true);
    assert_true(smooth(&n));
    const double smoothed = error_of(&n, true);
    struct qd_quant_options options = qd_model_options(n.model); /* other options keep what is smoothed */
    options.guard_tolerance = 0.5;
    assert_int_equal(qd_change_create(n.model, &options, &change, &error), QD_OK);
    assert_int_equal(qd_change_adopt(&change, &error), QD_OK);
    assert_int_equal(qd_model_smoothed(n.model), 1);
    assert_true(error_of(&n, true) == smoothed);

    assert_int_equal(qd_smoothing_undo(n.model, 0, &undo, &error), QD_OK);
    qd_smoothing_run(undo);
    assert_true(qd_smoothing_finish(&undo));
    assert_int_equal(qd_model_smoothed(n.model), 0);
    assert_true(error_of(&n, true) > 2 * smoothed);
    teach(&n, 10, true);
    assert_false(smooth(&n)); /* for good */

    for (int on = 0; on < 2; on++) { /* but for who turns it off and on */
        options = qd_model_options(n.model);
        options.smoothing = on;
        assert_int_equal(qd_change_create(n.model, &options, &change, &error), QD_OK);
        assert_int_equal(qd_change_adopt(&change, &error), QD_OK);
    }
    teach(&n, 400, true);
    assert_true(smooth(&n));
    net_free(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outliers),
        cmocka_unit_test(test_what_is_left_alone),
        cmocka_unit_test(test_with_bias_correction),
        cmocka_unit_test(test_undo_and_options),
    };
    engine = qd_mb_engine(1);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    qd_engine_destroy(&engine);
    return failed;
}
