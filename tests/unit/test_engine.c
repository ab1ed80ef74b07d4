/* The engine from outside, through engine/engine.h: warm-up, modes, guards, epochs, freezing, what a request teaches
 * and what it must not. Inputs and their sentences are in test_exec.c. */
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <math.h>

static struct qd_engine *engine;

/* x [N, 6] -> MatMul, Relu -> MatMul, Relu -> MatMul -> y [N, 4]; sites x, h1, h2. */
struct net {
    struct qd_mb b;
    struct qd_model *model;
};

enum { WIDTH = 6, OUT = 4 };

static struct net net_new(const struct qd_quant_options *options)
{
    struct net n = {0};
    qd_mb_input(&n.b, "x", QD_F32, "N,6");
    qd_mb_weights(&n.b, "w1", "6,32", 1, 0.5f);
    qd_mb_weights(&n.b, "w2", "32,32", 2, 0.3f);
    qd_mb_weights(&n.b, "w3", "32,4", 3, 0.3f);
    qd_mb_node(&n.b, "MatMul", "x w1", "m1", NULL);
    qd_mb_node(&n.b, "Relu", "m1", "h1", NULL);
    qd_mb_node(&n.b, "MatMul", "h1 w2", "m2", NULL);
    qd_mb_node(&n.b, "Relu", "m2", "h2", NULL);
    qd_mb_node(&n.b, "MatMul", "h2 w3", "y", NULL);
    qd_mb_output(&n.b, "y", QD_F32, "N,4");
    qd_mb_finish(&n.b, 13);
    n.model = qd_mb_load(&n.b, engine, options, NULL);
    assert_non_null(n.model);
    return n;
}

static void net_free(struct net *n)
{
    qd_model_unref(&n->model);
    qd_mb_free(&n->b);
}

static const char SHAPE[] = "8,6";
enum { ELEMS = 8 * WIDTH, ANSWER = 8 * OUT };

/* Runs once; copies the answer and the report; observing as told. */
static struct qd_infer_report ask(struct qd_model *model, const float *x, float *answer, bool observe,
                                  enum qd_precision precision, uint64_t epoch)
{
    struct qd_infer_options options = {.epoch = epoch, .precision = precision, .observe = observe};
    struct qd_infer_report report;
    struct qd_infer *infer = qd_mb_run(model, &options, SHAPE, x);
    qd_infer_report(infer, &report);
    if (answer)
        memcpy(answer, qd_infer_output(infer, 0)->data, ANSWER * sizeof *answer);
    qd_infer_destroy(&infer);
    return report;
}

static struct qd_ranges_summary summary_of(struct qd_model *model)
{
    struct qd_ranges_summary summary;
    qd_model_ranges(model, &summary);
    return summary;
}

static struct qd_range_report range_of(struct qd_model *model, size_t i)
{
    struct qd_range_report range;
    qd_model_range(model, i, &range);
    return range;
}

static void test_warm_up(void **state)
{
    (void)state;
    struct net n = net_new(NULL), own;
    struct qd_quant_options options = qd_quant_defaults();
    options.mode = QD_MODE_REQUEST;
    own = net_new(&options);
    float x[ELEMS], a[ANSWER], b[ANSWER];
    assert_int_equal(summary_of(n.model).sites, 3);
    assert_string_equal(range_of(n.model, 0).name, "x");
    assert_string_equal(range_of(n.model, 1).name, "h1");
    assert_string_equal(range_of(n.model, 2).name, "h2");
    assert_int_equal(range_of(n.model, 0).updated_unix_ms, 0);
    for (int i = 0; i < 8; i++) { /* min_observations requests under their own ranges, wildly different */
        qd_mb_fill(x, ELEMS, 50 + (uint64_t)i, i & 1 ? 100.0f : 0.01f);
        assert_int_equal(ask(n.model, x, a, true, QD_PRECISION_AUTO, 0).epoch, 1);
        ask(own.model, x, b, true, QD_PRECISION_AUTO, 0);
        assert_memory_equal(a, b, sizeof a);
    }
    assert_int_equal(summary_of(n.model).epoch, 2);
    assert_int_equal(summary_of(own.model).epoch, 1);
    qd_mb_fill(x, ELEMS, 60, 0.01f); /* from here the average: far too coarse for this one */
    assert_int_equal(ask(n.model, x, a, true, QD_PRECISION_AUTO, 0).epoch, 2);
    ask(own.model, x, b, true, QD_PRECISION_AUTO, 0);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(range_of(n.model, 0).observations, 9);
    assert_int_equal(range_of(n.model, 0).elements, 9 * ELEMS);
    assert_int_equal(summary_of(n.model).requests, 9);
    assert_true(range_of(n.model, 0).updated_unix_ms > 0);
    net_free(&n);
    net_free(&own);
}

/* The first observations' average is (5) exactly. */
static void test_average_by_hand(void **state)
{
    (void)state;
    struct net n = net_new(NULL);
    float x[ELEMS];
    double lo = 0, hi = 0;
    for (int i = 0; i < 5; i++) {
        qd_mb_fill(x, ELEMS, 70 + (uint64_t)i, 1 + (float)i * 0.1f);
        double min = INFINITY, max = -INFINITY;
        for (int e = 0; e < ELEMS; e++) {
            min = fmin(min, (double)x[e]);
            max = fmax(max, (double)x[e]);
        }
        qd_mb_teach(n.model, SHAPE, x, 1);
        lo = i ? lo + (min - lo) / (i + 1) : min;
        hi = i ? hi + (max - hi) / (i + 1) : max;
        struct qd_range_report r = range_of(n.model, 0);
        assert_true(fabs(r.ema_min - lo) < 1e-12 && fabs(r.ema_max - hi) < 1e-12);
        assert_true(r.last_min == min && r.last_max == max);
    }
    net_free(&n);
}

static void test_precision(void **state)
{
    (void)state;
    float x[ELEMS], a[ANSWER], b[ANSWER];
    static const struct {
        enum qd_scheme scheme;
        enum qd_granularity granularity;
        double sqnr_db;
        enum qd_mode mode;
        double tolerance; /* of the guard: values left clipped cost more than rounding */
    } rows[] = {
        {QD_ASYMMETRIC, QD_PER_CHANNEL, 30, QD_MODE_EMA, 0},     {QD_SYMMETRIC, QD_PER_CHANNEL, 25, QD_MODE_EMA, 0},
        {QD_ASYMMETRIC, QD_PER_TENSOR, 30, QD_MODE_EMA, 0},      {QD_ASYMMETRIC, QD_PER_CHANNEL, 30, QD_MODE_EMA, 0.1},
        {QD_ASYMMETRIC, QD_PER_CHANNEL, 30, QD_MODE_REQUEST, 0}, {QD_SYMMETRIC, QD_PER_TENSOR, 25, QD_MODE_REQUEST, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct qd_quant_options options = qd_quant_defaults();
        options.mode = rows[i].mode;
        options.guard_tolerance = rows[i].tolerance;
        options.activation_scheme = rows[i].scheme;
        options.weight_granularity = rows[i].granularity;
        struct net n = net_new(&options);
        double signal = 0, noise = 0;
        for (uint64_t r = 0; r < 40; r++) {
            qd_mb_fill(x, ELEMS, 1000 + r, 1);
            struct qd_infer_report q = ask(n.model, x, a, true, QD_PRECISION_AUTO, 0);
            struct qd_infer_report f = ask(n.model, x, b, true, QD_FP32, 0);
            assert_int_equal(q.precision, QD_INT8);
            assert_int_equal(f.precision, QD_FP32);
            assert_int_not_equal(q.plan, f.plan);
            for (int e = 0; r >= 10 && e < ANSWER; e++) {
                signal += (double)b[e] * (double)b[e];
                noise += ((double)a[e] - (double)b[e]) * ((double)a[e] - (double)b[e]);
            }
        }
        double db = 10 * log10(signal / noise);
        print_message("scheme %d, granularity %d: SQNR %.1f dB\n", (int)rows[i].scheme, (int)rows[i].granularity, db);
        assert_true(noise > 0 && db > rows[i].sqnr_db);
        assert_int_equal(range_of(n.model, 0).observations, 40); /* FP32 answers teach nothing */
        assert_int_equal(summary_of(n.model).requests, 80);
        struct qd_range_report range = range_of(n.model, 0);
        assert_int_equal(range.dtype, rows[i].scheme == QD_SYMMETRIC ? QD_I8 : QD_U8);
        assert_int_equal(range.scheme, rows[i].scheme);
        if (rows[i].mode == QD_MODE_REQUEST) { /* nothing is ever in force */
            assert_int_equal(summary_of(n.model).epoch, 1);
        } else if (rows[i].scheme == QD_SYMMETRIC) {
            assert_int_equal(range.zero_point, 0);
            assert_true(range.scale >= 0.9f / 127 && range.scale <= 1.0f / 127);
        } else {
            assert_in_range(range.zero_point, 118, 138);
        }
        net_free(&n);
    }
}

/* A request's own range during the warm-up makes the scale that the same range makes when it is frozen. */
static void test_own_range_is_quantized_alike(void **state)
{
    (void)state;
    float x[ELEMS], own[ANSWER], frozen[ANSWER];
    for (int symmetric = 0; symmetric < 2; symmetric++) {
        struct qd_quant_options options = qd_quant_defaults();
        options.activation_scheme = symmetric ? QD_SYMMETRIC : QD_ASYMMETRIC;
        struct net n = net_new(&options);
        qd_mb_fill(x, ELEMS, 31, 1);
        x[5] = 1.75f; /* lopsided */
        ask(n.model, x, own, true, QD_PRECISION_AUTO, 0);
        assert_int_equal(qd_model_ranges_freeze(n.model, NULL), QD_OK);
        ask(n.model, x, frozen, true, QD_PRECISION_AUTO, 0);
        assert_memory_equal(own, frozen, sizeof own);
        net_free(&n);
    }
}

/* A model that has seen uniform [-1, 1] `times` times; returns x of that kind. */
static struct net taught(const struct qd_quant_options *options, float *x, int times)
{
    struct net n = net_new(options);
    qd_mb_fill(x, ELEMS, 5, 1);
    x[0] = -1;
    x[1] = 1;
    qd_mb_teach(n.model, SHAPE, x, times);
    return n;
}

static void test_guard_widen_and_clip(void **state)
{
    (void)state;
    float x[ELEMS], wide[ELEMS], full[ANSWER], got[2][ANSWER];
    double off[2] = {0, 0};
    for (int g = 0; g < 2; g++) {
        struct qd_quant_options options = qd_quant_defaults();
        options.guard = g ? QD_GUARD_CLIP : QD_GUARD_WIDEN;
        struct net n = taught(&options, x, 10);
        memcpy(wide, x, sizeof x);
        wide[0] = -6; /* row 0 only */
        struct qd_infer_report report = ask(n.model, wide, got[g], true, QD_PRECISION_AUTO, 0);
        ask(n.model, wide, full, false, QD_FP32, 0);
        assert_true(report.guarded >= 1);
        assert_int_equal(range_of(n.model, 0).guarded, 1);
        assert_int_equal(range_of(n.model, 0).clipped_low, 1);
        assert_int_equal(range_of(n.model, 0).clipped_high, 0);
        for (int e = 0; e < ANSWER; e++)
            off[g] += fabs((double)got[g][e] - (double)full[e]);
        net_free(&n);
    }
    assert_true(off[1] > 5 * off[0]); /* clipping hurts, widening does not */
}

static void test_guard_tolerance_boundary(void **state)
{
    (void)state;
    float x[ELEMS];
    struct qd_quant_options options = qd_quant_defaults();
    options.guard_tolerance = 0.25; /* the range is [-1, 1]: half a unit */
    struct net n = taught(&options, x, 10);
    x[1] = 1.5f;
    assert_int_equal(ask(n.model, x, NULL, false, QD_PRECISION_AUTO, 0).guarded, 0);
    x[1] = nextafterf(1.5f, 2);
    struct qd_infer_options quiet = {.precision = QD_PRECISION_AUTO, .observe = false};
    struct qd_infer *infer = qd_mb_run(n.model, &quiet, SHAPE, x);
    struct qd_infer_report report;
    qd_infer_report(infer, &report);
    assert_true(report.guarded >= 1);
    qd_infer_destroy(&infer);
    net_free(&n);
}

static void test_guard_reject(void **state)
{
    (void)state;
    float x[ELEMS], good[ANSWER], again[ANSWER];
    struct qd_quant_options options = qd_quant_defaults();
    options.guard = QD_GUARD_REJECT;
    struct net n = taught(&options, x, 10);
    ask(n.model, x, good, false, QD_PRECISION_AUTO, 0);
    struct qd_range_report before = range_of(n.model, 0), after;
    float wide[ELEMS];
    struct qd_error error = {0};
    memcpy(wide, x, sizeof x);
    wide[7] = 9;
    struct qd_infer *lanes[2] = {qd_mb_request(n.model, NULL, SHAPE, wide), qd_mb_request(n.model, NULL, SHAPE, x)};
    qd_infer_run(lanes, 2);
    assert_int_equal(qd_infer_status(lanes[0], &error), QD_ERR_OUT_OF_RANGE);
    assert_int_equal(qd_status_http(QD_ERR_OUT_OF_RANGE), 422);
    assert_string_equal(error.text, "tensor 'x' left its learned range [-1, 1]: it reached [-1, 9]");
    assert_int_equal(qd_infer_status(lanes[1], &error), QD_OK); /* the neighbour is untouched */
    memcpy(again, qd_infer_output(lanes[1], 0)->data, sizeof again);
    assert_memory_equal(good, again, sizeof good);
    qd_infer_finish(lanes[0]);
    after = range_of(n.model, 0);
    assert_true(before.ema_max == after.ema_max && before.observed_max == after.observed_max);
    assert_int_equal(before.observations, after.observations);
    assert_int_equal(summary_of(n.model).requests, 12);
    qd_infer_destroy(&lanes[0]);
    qd_infer_destroy(&lanes[1]);
    net_free(&n);
}

/* Answered as in FP32, to the byte; the ranges learn as under `widen`; requests within the range stay in integers, also
 * beside one that is redone. */
static void test_guard_escalate(void **state)
{
    (void)state;
    float x[ELEMS], wide[ELEMS], full[ANSWER], got[ANSWER], quiet[ANSWER];
    struct qd_range_report learned[2];
    for (int g = 0; g < 2; g++) {
        struct qd_quant_options options = qd_quant_defaults();
        options.guard = g ? QD_GUARD_ESCALATE : QD_GUARD_WIDEN;
        struct net n = taught(&options, x, 10);
        memcpy(wide, x, sizeof x);
        wide[0] = -6;
        ask(n.model, wide, full, false, QD_FP32, 0);
        struct qd_infer_report report = ask(n.model, x, quiet, false, QD_PRECISION_AUTO, 0);
        assert_true(report.guarded == 0 && report.precision == QD_INT8);
        struct qd_infer *pair[] = {qd_mb_request(n.model, NULL, SHAPE, wide), qd_mb_request(n.model, NULL, SHAPE, x)};
        qd_infer_run(pair, 2);
        for (int i = 0; i < 2; i++)
            qd_infer_finish(pair[i]);
        qd_infer_report(pair[0], &report);
        assert_true(report.guarded >= 1);
        assert_int_equal(report.precision, g ? QD_FP32 : QD_INT8);
        memcpy(got, qd_infer_output(pair[0], 0)->data, sizeof got);
        assert_int_equal(memcmp(got, full, sizeof got) == 0, g);
        assert_memory_equal(qd_infer_output(pair[1], 0)->data, quiet, sizeof quiet);
        qd_infer_destroy(&pair[0]);
        qd_infer_destroy(&pair[1]);
        learned[g] = range_of(n.model, 2);
        net_free(&n);
    }
    assert_true(learned[0].ema_max == learned[1].ema_max && learned[0].observations == learned[1].observations &&
                learned[0].guarded == learned[1].guarded);
}

static void test_nonfinite(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e30f};
    float x[ELEMS], alone[ANSWER], poisoned[ELEMS];
    for (int warm = 0; warm < 2; warm++) {
        struct net n = taught(NULL, x, warm ? 10 : 3);
        ask(n.model, x, alone, false, QD_PRECISION_AUTO, 0);
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            struct qd_infer_report report;
            struct qd_range_report before = range_of(n.model, 0);
            memcpy(poisoned, x, sizeof x);
            poisoned[9] = bad[i];
            struct qd_infer *lanes[3] = {qd_mb_request(n.model, NULL, SHAPE, poisoned),
                                         qd_mb_request(n.model, NULL, SHAPE, x),
                                         qd_mb_request(n.model, NULL, SHAPE, poisoned)};
            qd_infer_run(lanes, 3);
            assert_memory_equal(qd_infer_output(lanes[1], 0)->data, alone, sizeof alone);
            qd_infer_report(lanes[0], &report);
            assert_true(isfinite(bad[i]) ? report.nonfinite == 0 : report.nonfinite >= 1);
            qd_infer_finish(lanes[0]);
            struct qd_range_report after = range_of(n.model, 0);
            assert_int_equal(after.nonfinite - before.nonfinite, isfinite(bad[i]) ? 0 : 1);
            assert_true(isfinite(after.ema_min) && isfinite(after.ema_max) && isfinite(after.scale));
            assert_true(isfinite(after.observed_min) && isfinite(after.observed_max));
            assert_true(after.ema_max <= before.ema_max && after.ema_min >= before.ema_min); /* one moves nothing */
            for (int l = 0; l < 3; l++)
                qd_infer_destroy(&lanes[l]);
            ask(n.model, x, alone, false, QD_PRECISION_AUTO, 0);
        }
        net_free(&n);
    }
}

static void test_not_observing(void **state)
{
    (void)state;
    float x[ELEMS];
    struct net n = taught(NULL, x, 3);
    struct qd_range_report before = range_of(n.model, 1), after;
    qd_mb_fill(x, ELEMS, 6, 3);
    ask(n.model, x, NULL, false, QD_PRECISION_AUTO, 0);
    after = range_of(n.model, 1);
    assert_true(before.observations == after.observations && before.elements == after.elements);
    assert_true(before.ema_min == after.ema_min && before.ema_max == after.ema_max &&
                before.last_max == after.last_max);
    assert_int_equal(summary_of(n.model).requests, 4);
    struct qd_infer *infer = qd_mb_run(n.model, NULL, SHAPE, x);
    qd_infer_finish(infer); /* the second time is nothing */
    assert_int_equal(summary_of(n.model).requests, 5);
    assert_int_equal(range_of(n.model, 1).observations, 4);
    qd_infer_destroy(&infer);
    net_free(&n);
}

static void test_epochs(void **state)
{
    (void)state;
    float x[ELEMS], wide[ELEMS], first[ANSWER], later[ANSWER];
    struct qd_error error = {0};
    struct qd_quant_options options = qd_quant_defaults();
    options.averaging_constant = 0.5;
    options.epochs_kept = 3;
    struct net n = taught(&options, x, 8);
    uint64_t epoch = summary_of(n.model).epoch;
    assert_int_equal(ask(n.model, x, first, false, QD_PRECISION_AUTO, 0).epoch, epoch);
    memcpy(wide, x, sizeof x);
    wide[3] = -3;
    wide[4] = 3;
    qd_mb_teach(n.model, SHAPE, wide, 1);
    assert_int_equal(summary_of(n.model).epoch, epoch + 1);
    ask(n.model, x, later, false, QD_PRECISION_AUTO, 0);
    assert_memory_not_equal(first, later, sizeof first);
    assert_int_equal(ask(n.model, x, later, false, QD_PRECISION_AUTO, epoch).epoch, epoch);
    assert_memory_equal(first, later, sizeof first); /* replayed */
    qd_mb_teach(n.model, SHAPE, wide, 1);
    struct qd_infer_options old = {.epoch = epoch, .precision = QD_FP32, .observe = false}, now = qd_infer_defaults();
    struct qd_infer *infer = NULL, *kept = NULL;
    assert_int_equal(qd_infer_create(n.model, &old, &kept, &error), QD_OK); /* borrowed before it goes */
    qd_mb_teach(n.model, SHAPE, wide, 1);
    assert_int_equal(qd_infer_create(n.model, &old, &infer, &error), QD_ERR_CONFLICT);
    char want[96];
    snprintf(want, sizeof want, "epoch %d is not kept; the current one is %d", (int)epoch, (int)epoch + 3);
    assert_string_equal(error.text, want);
    assert_null(infer);
    /* a refused change of options leaves the old ones */
    assert_int_equal(qd_infer_create(n.model, &now, &infer, &error), QD_OK);
    assert_int_equal(qd_infer_set_options(infer, &old, &error), QD_ERR_CONFLICT);
    struct qd_shape shape = qd_mb_shape(SHAPE);
    void *data;
    assert_int_equal(qd_infer_input_alloc(infer, 0, QD_F32, &shape, &data, &error), QD_OK);
    memcpy(data, x, sizeof x);
    assert_int_equal(qd_infer_prepare(infer, &error), QD_OK);
    assert_int_equal(qd_infer_set_options(infer, &now, &error), QD_ERR_INVALID);
    assert_int_equal(qd_infer_prepare(infer, &error), QD_ERR_INVALID);
    qd_infer_run(&infer, 1);
    qd_infer_finish(infer);
    struct qd_infer_report report;
    qd_infer_report(infer, &report);
    assert_int_equal(report.precision, QD_INT8);
    assert_int_equal(report.epoch, epoch + 3);
    assert_int_equal(range_of(n.model, 0).observations, 12); /* it still observed */
    qd_infer_destroy(&infer);
    qd_infer_destroy(&kept);
    net_free(&n);
}

static void test_freeze_unfreeze_reset(void **state)
{
    (void)state;
    float x[ELEMS], wide[ELEMS], frozen[ANSWER], later[ANSWER];
    struct qd_error error = {0};
    struct net n = net_new(NULL);
    assert_int_equal(qd_model_ranges_freeze(n.model, &error), QD_ERR_CONFLICT);
    assert_non_null(strstr(error.text, "'x'"));
    net_free(&n);
    n = taught(NULL, x, 3); /* fewer than min_observations: freezing ends the warm-up */
    assert_int_equal(qd_model_ranges_freeze(n.model, &error), QD_OK);
    struct qd_ranges_summary summary = summary_of(n.model);
    assert_true(summary.frozen && summary.mode == QD_MODE_STATIC && summary.epoch == 2);
    assert_int_equal(range_of(n.model, 0).mode, QD_MODE_STATIC);
    ask(n.model, x, frozen, true, QD_PRECISION_AUTO, 0);
    struct qd_range_report before = range_of(n.model, 0);
    memcpy(wide, x, sizeof x);
    wide[2] = 2;
    qd_mb_teach(n.model, SHAPE, wide, 20);
    struct qd_range_report after = range_of(n.model, 0);
    assert_true(after.ema_max == before.ema_max && after.observed_max == 2 &&
                after.observations == before.observations);
    assert_int_equal(after.guarded, 20); /* counters go on */
    ask(n.model, x, later, true, QD_PRECISION_AUTO, 0);
    assert_memory_equal(frozen, later, sizeof frozen);
    assert_int_equal(summary_of(n.model).epoch, 2);
    assert_int_equal(qd_model_ranges_freeze(n.model, &error), QD_OK); /* again: nothing */
    assert_int_equal(summary_of(n.model).epoch, 2);
    assert_int_equal(qd_model_ranges_unfreeze(n.model, &error), QD_OK);
    assert_int_equal(summary_of(n.model).epoch, 3);
    assert_int_equal(summary_of(n.model).mode, QD_MODE_EMA);
    qd_mb_teach(n.model, SHAPE, wide, 1);
    assert_true(range_of(n.model, 0).ema_max > before.ema_max);
    assert_int_equal(qd_model_ranges_reset(n.model, &error), QD_OK);
    summary = summary_of(n.model);
    assert_true(summary.epoch == 4 && summary.requests == 0 && !summary.frozen);
    struct qd_range_report empty = range_of(n.model, 0);
    assert_true(empty.observations == 0 && empty.elements == 0 && empty.ema_max == 0 && empty.observed_max == 0 &&
                empty.guarded == 0 && empty.utilization == 0 && empty.scale == 1);
    net_free(&n);
}

static void test_refused_options(void **state)
{
    (void)state;
    struct qd_quant_options options[9];
    for (int i = 0; i < 9; i++)
        options[i] = qd_quant_defaults();
    options[0].mode = QD_MODE_STATIC;
    options[1].weight_bits = 7;
    options[2].averaging_constant = 0;
    options[3].averaging_constant = NAN;
    options[4].max_step = 0;
    options[5].guard_tolerance = NAN;
    options[6].publish_tolerance = -1;
    options[7].epochs_kept = 0;
    options[8].epochs_kept = 65;
    struct net n = net_new(NULL);
    for (int i = 0; i < 9; i++) {
        struct qd_error error = {0};
        assert_null(qd_mb_load(&n.b, engine, &options[i], &error));
        assert_true(error.status == QD_ERR_INVALID || error.status == QD_ERR_UNSUPPORTED);
    }
    net_free(&n);
}

static int setup(void **state)
{
    (void)state;
    engine = qd_mb_engine(2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    qd_engine_destroy(&engine);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_warm_up),
        cmocka_unit_test(test_average_by_hand),
        cmocka_unit_test(test_precision),
        cmocka_unit_test(test_own_range_is_quantized_alike),
        cmocka_unit_test(test_guard_widen_and_clip),
        cmocka_unit_test(test_guard_tolerance_boundary),
        cmocka_unit_test(test_guard_reject),
        cmocka_unit_test(test_guard_escalate),
        cmocka_unit_test(test_nonfinite),
        cmocka_unit_test(test_not_observing),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_freeze_unfreeze_reset),
        cmocka_unit_test(test_refused_options),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
