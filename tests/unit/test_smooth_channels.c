/* Smoothing of what depthwise convolutions read: channels of very different size get closer to FP32 by it, with every
 * activation between; what somebody else reads too, or whose range was given, is left alone. */
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <math.h>

enum { SIDE = 8, PIXELS = SIDE * SIDE, IN = 4, CHANNELS = 24, ELEMS = IN * PIXELS, ANSWER = CHANNELS * PIXELS };

static struct qd_engine *engine;

struct net {
    struct qd_mb b;
    struct qd_model *model;
};

/* x -> Conv 1x1 -> activation -> depthwise 3x3 -> y; channel c of the first has 1.35^-c of the size. `second`: the
 * tensor between has another reader. */
static struct net net_new(const char *act, const char *attributes, bool second)
{
    struct net n = {0};
    struct qd_quant_options options = qd_quant_defaults();
    float w[CHANNELS * IN], depthwise[CHANNELS * 9];
    qd_mb_fill(w, CHANNELS * IN, 3, 2);
    qd_mb_fill(depthwise, CHANNELS * 9, 4, 1);
    for (int c = 0; c < CHANNELS; c++) { /* every answer as large as the others */
        for (int i = 0; i < IN; i++)
            w[c * IN + i] *= powf(1.35f, (float)-c);
        for (int i = 0; i < 9; i++)
            depthwise[c * 9 + i] *= powf(1.35f, (float)c);
    }
    options.precision = QD_INT8;
    options.min_observations = 1;
    qd_mb_input(&n.b, "x", QD_F32, "N,4,8,8");
    qd_mb_constant(&n.b, "w", QD_F32, "24,4,1,1", w);
    qd_mb_constant(&n.b, "d", QD_F32, "24,1,3,3", depthwise);
    qd_mb_node(&n.b, "Conv", "x w", "made", NULL);
    if (strcmp(act, "Clip") == 0) {
        const float low = 0, high = 3;
        qd_mb_constant(&n.b, "low", QD_F32, "", &low);
        qd_mb_constant(&n.b, "high", QD_F32, "", &high);
        qd_mb_node(&n.b, "Clip", "made low high", "between", attributes);
    } else {
        qd_mb_node(&n.b, act, "made", "between", attributes);
    }
    qd_mb_node(&n.b, "Conv", "between d", "y", "group=24 pads=[1,1,1,1]");
    qd_mb_output(&n.b, "y", QD_F32, "N,24,8,8");
    if (second) {
        qd_mb_weights(&n.b, "v", "8,24,1,1", 5, 1);
        qd_mb_node(&n.b, "Conv", "between v", "z", NULL);
        qd_mb_output(&n.b, "z", QD_F32, "N,8,8,8");
    }
    qd_mb_finish(&n.b, 14);
    n.model = qd_mb_load(&n.b, engine, &options, NULL);
    assert_non_null(n.model);
    return n;
}

static void net_free(struct net *n)
{
    qd_model_unref(&n->model);
    qd_mb_free(&n->b);
}

static void ask(struct net *n, const struct qd_infer_options *options, uint64_t seed, float *y)
{
    float x[ELEMS];
    qd_mb_fill(x, ELEMS, seed, 1);
    struct qd_infer *infer = qd_mb_run(n->model, options, "1,4,8,8", x);
    memcpy(y, qd_infer_output(infer, 0)->data, ANSWER * sizeof *y);
    qd_infer_destroy(&infer);
}

static void teach(struct net *n, int times)
{
    float y[ANSWER];
    for (int i = 0; i < times; i++)
        ask(n, NULL, 100 + (uint64_t)i, y);
}

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

static double error_of(struct net *n)
{
    struct qd_infer_options int8 = qd_infer_defaults(), fp32 = int8;
    float got[ANSWER], want[ANSWER];
    double error = 0;
    int8.observe = fp32.observe = false;
    fp32.precision = QD_FP32;
    for (uint64_t i = 0; i < 10; i++) {
        ask(n, &int8, 900 + i, got);
        ask(n, &fp32, 900 + i, want);
        for (int e = 0; e < ANSWER; e++)
            error += ((double)got[e] - (double)want[e]) * ((double)got[e] - (double)want[e]);
    }
    return error;
}

static bool is_smoothed(const struct net *n, const char *tensor)
{
    struct qd_ranges_summary summary;
    struct qd_range_report range;
    qd_model_ranges(n->model, &summary);
    for (size_t i = 0; i < summary.sites; i++) {
        qd_model_range(n->model, i, &range);
        if (strcmp(range.name, tensor) == 0)
            return range.smoothed;
    }
    return false;
}

static void test_every_activation(void **state)
{
    (void)state;
    static const char *const acts[][2] = {
        {"Relu", NULL}, {"Clip", NULL}, {"HardSwish", NULL}, {"Sigmoid", NULL}, {"LeakyRelu", "alpha=0.1"}};
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++) {
        struct net n = net_new(acts[i][0], acts[i][1], false);
        const bool even = strcmp(acts[i][0], "Sigmoid") == 0; /* its channels are all about as large */
        teach(&n, 15);
        assert_false(smooth(&n));
        teach(&n, 1);
        const double was = error_of(&n);
        assert_int_equal(smooth(&n), !even);
        assert_int_equal(qd_model_smoothed(n.model), !even);
        assert_int_equal(is_smoothed(&n, "between"), !even);
        teach(&n, 40);
        const double is = error_of(&n);
        if (!(is < (even ? 1.1 : 0.1) * was))
            fail_msg("%s: the error was %g, is %g", acts[i][0], was, is);
        assert_false(smooth(&n));
        net_free(&n);
    }
}

static void test_what_is_left_alone(void **state)
{
    (void)state;
    struct net read = net_new("Relu", NULL, true), given = net_new("Relu", NULL, false),
               set = net_new("Relu", NULL, false);
    const struct qd_range_given range = {.tensor = "between", .lo = 0, .hi = 4};
    struct qd_error error;
    teach(&read, 20);
    const double was = error_of(&read);
    (void)smooth(&read); /* listed, but not to be had: another layer reads the tensor as it is */
    teach(&read, 5);
    assert_false(is_smoothed(&read, "between"));
    assert_true(error_of(&read) < 1.2 * was);

    assert_int_equal(qd_model_ranges_set(given.model, &range, 1, &error), QD_OK);
    teach(&given, 20);
    (void)smooth(&given);
    assert_int_equal(qd_model_smoothed(given.model), 0);

    teach(&set, 20);
    assert_true(smooth(&set));
    assert_int_equal(qd_model_ranges_set(set.model, &range, 1, &error), QD_ERR_CONFLICT);
    assert_non_null(strstr(error.text, "smooth"));
    net_free(&read);
    net_free(&given);
    net_free(&set);
}

static void test_with_bias_correction(void **state)
{
    (void)state;
    struct net n = net_new("Clip", NULL, false);
    struct qd_correction *correction;
    struct qd_error error;
    teach(&n, 30);
    assert_true(smooth(&n));
    teach(&n, 40);
    const double was = error_of(&n);
    assert_true(qd_model_correction_due(n.model));
    assert_int_equal(qd_correction_create(n.model, &correction, &error), QD_OK);
    qd_correction_run(correction);
    assert_true(qd_correction_finish(&correction));
    assert_true(error_of(&n) < 1.2 * was);
    net_free(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_activation),
        cmocka_unit_test(test_what_is_left_alone),
        cmocka_unit_test(test_with_bias_correction),
    };
    engine = qd_mb_engine(1);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    qd_engine_destroy(&engine);
    return failed;
}
