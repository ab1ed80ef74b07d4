/* Calibration from outside: what it sees is what the plan in full precision computes, every method publishes a frozen
 * epoch, a calibrating request is answered in full precision and teaches the moving average nothing. */
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <math.h>

static struct qd_engine *engine;

/* x [N, 6] -> MatMul, Relu -> h1 -> MatMul -> y [N, 4]; h1 is an output too, so its values are known. */
struct net {
    struct qd_mb b;
    struct qd_model *model;
};

static struct net net_new(bool symmetric)
{
    struct net n = {0};
    struct qd_quant_options options = qd_quant_defaults();
    options.precision = QD_INT8;
    options.activation_scheme = symmetric ? QD_SYMMETRIC : QD_ASYMMETRIC;
    qd_mb_input(&n.b, "x", QD_F32, "N,6");
    qd_mb_weights(&n.b, "w1", "6,32", 1, 0.5f);
    qd_mb_weights(&n.b, "w2", "32,4", 2, 0.3f);
    qd_mb_node(&n.b, "MatMul", "x w1", "m1", NULL);
    qd_mb_node(&n.b, "Relu", "m1", "h1", NULL);
    qd_mb_node(&n.b, "MatMul", "h1 w2", "y", NULL);
    qd_mb_output(&n.b, "y", QD_F32, "N,4");
    qd_mb_output(&n.b, "h1", QD_F32, "N,32");
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

enum { ROWS = 8, ELEMS = ROWS * 6, HIDDEN = ROWS * 32, ANSWER = ROWS * 4 };

static void inputs(float *x, uint32_t seed, float scale)
{
    for (int i = 0; i < ELEMS; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = scale * ((float)(seed >> 8) / 8388608.0f - 1);
    }
}

/* One request, calibrating when `c` is given, in full precision otherwise; answers copied. */
static void ask(struct qd_model *model, struct qd_calibration *c, const float *x, float *y, float *h)
{
    struct qd_infer_options options = qd_infer_defaults();
    struct qd_tensor in = {.dtype = QD_F32, .shape = {.rank = 2, .dims = {ROWS, 6}}, .data = (void *)(uintptr_t)x};
    struct qd_infer *infer;
    struct qd_error error;
    options.precision = c ? QD_PRECISION_AUTO : QD_FP32;
    options.observe = false;
    assert_int_equal(qd_infer_create(model, &options, &infer, &error), QD_OK);
    if (c)
        assert_int_equal(qd_infer_calibrate(infer, c, &error), QD_OK);
    assert_int_equal(qd_infer_input_borrow(infer, 0, &in, &error), QD_OK);
    assert_int_equal(qd_infer_prepare(infer, &error), QD_OK);
    if (c)
        assert_int_equal(qd_infer_calibrate(infer, c, &error), QD_ERR_INVALID);
    qd_infer_run(&infer, 1);
    assert_int_equal(qd_infer_status(infer, &error), QD_OK);
    memcpy(y, qd_infer_output(infer, 0)->data, ANSWER * sizeof *y);
    memcpy(h, qd_infer_output(infer, 1)->data, HIDDEN * sizeof *h);
    qd_infer_finish(infer);
    qd_infer_destroy(&infer);
}

static struct qd_range_report range_named(const struct qd_model *model, const char *name)
{
    struct qd_ranges_summary summary;
    struct qd_range_report range = {.name = NULL};
    qd_model_ranges(model, &summary);
    for (size_t i = 0; i < summary.sites; i++) {
        qd_model_range(model, i, &range);
        if (strcmp(range.name, name) == 0)
            return range;
    }
    fail_msg("no site '%s'", name);
    return range;
}

static void test_min_max_is_what_the_tensors_had(void **state)
{
    (void)state;
    struct net n = net_new(false);
    struct qd_calibration *c;
    struct qd_error error;
    struct qd_ranges_summary summary;
    float x[ELEMS], y[ANSWER], h[HIDDEN], exact[ANSWER], xlo = INFINITY, xhi = -INFINITY, hhi = -INFINITY,
                                                         hlo = INFINITY;
    size_t set, unset;
    assert_int_equal(qd_calibration_create(n.model, &c, &error), QD_OK);
    assert_int_equal(qd_calibration_estimate(c, QD_METHOD_MINMAX, 100, &error), QD_ERR_CONFLICT);
    assert_int_equal(qd_calibration_publish(c, &set, &unset, &error), QD_ERR_CONFLICT);
    for (uint32_t r = 0; r < 20; r++) {
        inputs(x, r, 1 + (float)r / 10);
        ask(n.model, NULL, x, exact, h);
        ask(n.model, c, x, y, h);
        assert_memory_equal(y, exact, sizeof y);
        for (int i = 0; i < ELEMS; i++) {
            xlo = fminf(xlo, x[i]);
            xhi = fmaxf(xhi, x[i]);
        }
        for (int i = 0; i < HIDDEN; i++) {
            hlo = fminf(hlo, h[i]);
            hhi = fmaxf(hhi, h[i]);
        }
    }
    assert_int_equal(qd_calibration_requests(c), 20);
    qd_model_ranges(n.model, &summary);
    assert_int_equal(summary.epoch, 1);
    assert_int_equal(range_named(n.model, "x").observations, 0);
    assert_int_equal(qd_calibration_estimate(c, QD_METHOD_MINMAX, 100, &error), QD_OK);
    assert_int_equal(qd_calibration_publish(c, &set, &unset, &error), QD_OK);
    assert_int_equal(set, summary.sites);
    assert_int_equal(unset, 0);
    qd_model_ranges(n.model, &summary);
    assert_true(summary.frozen && summary.mode == QD_MODE_STATIC && summary.epoch == 2);
    struct qd_range_report rx = range_named(n.model, "x"), rh = range_named(n.model, "h1");
    assert_true(rx.ema_min == (double)xlo && rx.ema_max == (double)xhi);
    assert_true(rh.ema_min == (double)hlo && rh.ema_max == (double)hhi);
    assert_true(rx.scale == (float)(((double)xhi - (double)xlo) / 255));
    qd_calibration_unref(&c);
    net_free(&n);
}

/* Each method's range holds most of what came and is within it; the average lies inside min-max. */
static void test_every_method_publishes(void **state)
{
    (void)state;
    for (int symmetric = 0; symmetric < 2; symmetric++) {
        struct net n = net_new(symmetric);
        struct qd_calibration *c;
        struct qd_error error;
        struct qd_ranges_summary summary;
        float x[ELEMS], y[ANSWER], h[HIDDEN];
        size_t set, unset;
        assert_int_equal(qd_calibration_create(n.model, &c, &error), QD_OK);
        for (uint32_t r = 0; r < 20; r++) {
            inputs(x, r, r % 2 ? 1.0f : 2.0f);
            ask(n.model, c, x, y, h);
        }
        for (int method = QD_METHOD_MINMAX; method <= QD_METHOD_MSE; method++) {
            assert_int_equal(qd_calibration_estimate(c, (enum qd_method)method, 99.9, &error), QD_OK);
            assert_int_equal(qd_calibration_publish(c, &set, &unset, &error), QD_OK);
            qd_model_ranges(n.model, &summary);
            assert_int_equal(summary.epoch, 2 + (uint64_t)method);
            struct qd_range_report range = range_named(n.model, "x");
            assert_true(range.ema_max <= 2 && range.ema_max > 1 && range.ema_min >= -2 && range.ema_min < -1);
            if (method == QD_METHOD_EMA)
                assert_true(range.ema_max < 1.8);
        }
        qd_calibration_unref(&c);
        net_free(&n);
    }
}

static void test_ranges_from_outside(void **state)
{
    (void)state;
    struct net n = net_new(false);
    struct qd_error error;
    struct qd_ranges_summary summary;
    size_t set;
    struct qd_range_setting settings[] = {{"x", -1, 3, 10}, {"nowhere", 0, 1, 1}};
    assert_int_equal(qd_model_ranges_freeze_at(n.model, settings, 2, &set, &error), QD_OK);
    assert_int_equal(set, 1);
    qd_model_ranges(n.model, &summary);
    assert_true(summary.frozen && summary.epoch == 2);
    assert_true(range_named(n.model, "x").scale == (float)(4.0 / 255));
    assert_int_equal(range_named(n.model, "x").observations, 10);
    assert_int_equal(range_named(n.model, "h1").observations, 0);
    settings[0].hi = NAN;
    assert_int_equal(qd_model_ranges_freeze_at(n.model, settings, 1, &set, &error), QD_ERR_INVALID);
    settings[0] = (struct qd_range_setting){"x", 2, 1, 1};
    assert_int_equal(qd_model_ranges_freeze_at(n.model, settings, 1, &set, &error), QD_ERR_INVALID);
    qd_model_ranges(n.model, &summary);
    assert_int_equal(summary.epoch, 2);
    net_free(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_min_max_is_what_the_tensors_had),
        cmocka_unit_test(test_every_method_publishes),
        cmocka_unit_test(test_ranges_from_outside),
    };
    struct qd_engine_options options = {.threads = 2};
    struct qd_error error;
    if (qd_engine_create(&options, &engine, &error) != QD_OK)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    qd_engine_destroy(&engine);
    return failed;
}
