/* Ranges that are given by tensor name: what serves them, what they leave alone, and what they outlive (other plans,
 * restarts). */
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

static struct qd_engine *engine;

static const char SHAPE[] = "8,6";
enum { ELEMS = 8 * 6, ANSWER = 8 * 4, X = 0, H = 1, SITES = 2 };

struct net {
    struct qd_mb b;
    struct qd_model *model;
    float x[ELEMS];
};

/* x [N, 6] -> MatMul, Relu -> MatMul -> y [N, 4]; sites x in [-1, 1] and h. */
static void open_net(struct net *n)
{
    struct qd_quant_options options = qd_quant_defaults();
    options.precision = QD_INT8;
    *n = (struct net){0};
    qd_mb_input(&n->b, "x", QD_F32, "N,6");
    qd_mb_weights(&n->b, "w1", "6,32", 1, 0.5f);
    qd_mb_weights(&n->b, "w2", "32,4", 2, 0.3f);
    qd_mb_node(&n->b, "MatMul", "x w1", "m1", NULL);
    qd_mb_node(&n->b, "Relu", "m1", "h", NULL);
    qd_mb_node(&n->b, "MatMul", "h w2", "y", NULL);
    qd_mb_output(&n->b, "y", QD_F32, "N,4");
    qd_mb_finish(&n->b, 13);
    n->model = qd_mb_load(&n->b, engine, &options, NULL);
    assert_non_null(n->model);
    qd_mb_fill(n->x, ELEMS, 5, 1);
    n->x[0] = -1;
    n->x[1] = 1;
}

static void close_net(struct net *n)
{
    qd_model_unref(&n->model);
    qd_mb_free(&n->b);
}

static struct qd_range_report range_of(const struct net *n, size_t site)
{
    struct qd_range_report range;
    qd_model_range(n->model, site, &range);
    return range;
}

static uint64_t epoch_of(const struct net *n)
{
    struct qd_ranges_summary summary;
    qd_model_ranges(n->model, &summary);
    assert_int_equal(summary.sites, SITES);
    return summary.epoch;
}

static void set(struct net *n, struct qd_range_given entry)
{
    struct qd_error error = {0};
    assert_int_equal(qd_model_ranges_set(n->model, &entry, 1, &error), QD_OK);
}

/* One request that teaches nothing, under an epoch (0: the current one). */
static struct qd_infer_report ask(struct net *n, uint64_t epoch, float answer[ANSWER])
{
    struct qd_infer_options options = {.epoch = epoch, .precision = QD_PRECISION_AUTO, .observe = false};
    struct qd_infer_report report;
    struct qd_infer *infer = qd_mb_run(n->model, &options, SHAPE, n->x);
    qd_infer_report(infer, &report);
    memcpy(answer, qd_infer_output(infer, 0)->data, ANSWER * sizeof *answer);
    qd_infer_destroy(&infer);
    return report;
}

static void test_given_is_static_and_the_others_learn(void **state)
{
    (void)state;
    struct net n;
    open_net(&n);
    set(&n, (struct qd_range_given){.tensor = "x", .lo = -3, .hi = 2});
    assert_int_equal(epoch_of(&n), 2);
    const struct qd_range_report given = range_of(&n, X);
    assert_int_equal(given.mode, QD_MODE_STATIC);
    assert_int_equal(range_of(&n, H).mode, QD_MODE_EMA);
    assert_true(given.scale == (float)(5.0 / 255.0) && given.zero_point == 153);
    qd_mb_teach(n.model, SHAPE, n.x, 50);
    const struct qd_range_report later = range_of(&n, X);
    assert_true(later.scale == given.scale && later.zero_point == given.zero_point);
    assert_true(later.observations == 0 && later.observed_max == 1 && later.elements == 50 * ELEMS);
    assert_int_equal(range_of(&n, H).observations, 50);
    set(&n, (struct qd_range_given){.tensor = "x", .learn = true});
    assert_int_equal(range_of(&n, X).mode, QD_MODE_EMA);
    qd_mb_teach(n.model, SHAPE, n.x, 20);
    assert_true(range_of(&n, X).ema_max == 1 && range_of(&n, X).observations == 20);
    close_net(&n);
}

static void test_exact_scale_byte_for_byte(void **state)
{
    (void)state;
    struct net n;
    float before[ANSWER], after[ANSWER], replay[ANSWER];
    open_net(&n);
    qd_mb_teach(n.model, SHAPE, n.x, 10);
    const uint64_t old = epoch_of(&n);
    ask(&n, 0, before);
    set(&n, (struct qd_range_given){.tensor = "x", .scale = 0.012345678f, .zero_point = 77});
    assert_true(range_of(&n, X).scale == 0.012345678f && range_of(&n, X).zero_point == 77);
    ask(&n, 0, after);
    assert_memory_not_equal(before, after, sizeof before);
    assert_int_equal(ask(&n, old, replay).epoch, old);
    assert_memory_equal(before, replay, sizeof before);
    close_net(&n);
}

static void test_cut_without_a_guard_event(void **state)
{
    (void)state;
    struct net n;
    float cut[ANSWER], widened[ANSWER];
    open_net(&n);
    set(&n, (struct qd_range_given){.tensor = "h", .lo = 0, .hi = 100, .cuts = true});
    set(&n, (struct qd_range_given){.tensor = "x", .lo = -0.5, .hi = 0.5, .cuts = true});
    assert_int_equal(ask(&n, 0, cut).guarded, 0);
    set(&n, (struct qd_range_given){.tensor = "x", .lo = -0.5, .hi = 0.5});
    assert_int_equal(ask(&n, 0, widened).guarded, 1);
    assert_memory_not_equal(cut, widened, sizeof cut);
    close_net(&n);
}

static void test_all_or_none(void **state)
{
    (void)state;
    static const struct {
        struct qd_range_given bad;
        enum qd_status status;
        const char *word;
    } cases[] = {
        {{.tensor = "y", .hi = 1}, QD_ERR_NOT_FOUND, "'y'"},
        {{.tensor = "h", .lo = 1, .hi = 0}, QD_ERR_INVALID, "min <= max"},
        {{.tensor = "h", .lo = 0, .hi = (double)INFINITY}, QD_ERR_INVALID, "'h'"},
        {{.tensor = "h", .lo = (double)NAN, .hi = 1}, QD_ERR_INVALID, "'h'"},
        {{.tensor = "h", .lo = 0, .hi = 1e300}, QD_ERR_INVALID, "'h'"},
        {{.tensor = "h", .scale = -1}, QD_ERR_INVALID, "scale"},
        {{.tensor = "h", .scale = NAN}, QD_ERR_INVALID, "scale"},
        {{.tensor = "h", .scale = 1, .zero_point = 256}, QD_ERR_INVALID, "0..255"},
    };
    struct net n;
    open_net(&n);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qd_error error = {0};
        const struct qd_range_given entries[] = {{.tensor = "x", .lo = -1, .hi = 1}, cases[i].bad};
        assert_int_equal(qd_model_ranges_set(n.model, entries, 2, &error), cases[i].status);
        assert_non_null(strstr(error.text, cases[i].word));
        assert_int_equal(epoch_of(&n), 1);
        assert_int_equal(range_of(&n, X).mode, QD_MODE_EMA);
    }
    close_net(&n);
}

static void test_kept_by_another_plan(void **state)
{
    (void)state;
    struct net n;
    struct qd_error error = {0};
    open_net(&n);
    qd_mb_teach(n.model, SHAPE, n.x, 10);
    set(&n, (struct qd_range_given){.tensor = "x", .scale = 0.01f, .zero_point = 100});
    for (int symmetric = 0; symmetric < 2; symmetric++) {
        struct qd_change *change = NULL;
        struct qd_quant_options options = qd_model_options(n.model);
        options.weight_granularity = QD_PER_TENSOR;
        options.activation_scheme = symmetric ? QD_SYMMETRIC : QD_ASYMMETRIC;
        const uint64_t before = epoch_of(&n);
        assert_int_equal(qd_change_create(n.model, &options, &change, &error), QD_OK);
        assert_int_equal(qd_change_adopt(&change, &error), QD_OK);
        assert_int_equal(epoch_of(&n), before + 1);
        const struct qd_range_report x = range_of(&n, X);
        assert_int_equal(x.mode, QD_MODE_STATIC);
        if (symmetric) /* [-1, 1.55] in the other scheme */
            assert_true(fabs((double)x.scale - 1.55 / 127) < 1e-8 && x.zero_point == 0 && x.dtype == QD_I8);
        else
            assert_true(x.scale == 0.01f && x.zero_point == 100);
    }
    close_net(&n);
}

static void test_kept_over_a_restart(void **state)
{
    (void)state;
    struct net n, again;
    struct qd_range_state states[SITES];
    struct qd_error error = {0};
    size_t restored = 0;
    float before[ANSWER], after[ANSWER];
    open_net(&n);
    qd_mb_teach(n.model, SHAPE, n.x, 10);
    set(&n, (struct qd_range_given){.tensor = "x", .scale = 0.0123f, .zero_point = 90, .cuts = true});
    ask(&n, 0, before);
    for (size_t i = 0; i < SITES; i++)
        qd_model_range_state(n.model, i, &states[i]);
    open_net(&again);
    assert_int_equal(qd_model_restore(again.model, states, SITES, epoch_of(&n), 10, false, &restored, &error), QD_OK);
    assert_int_equal(restored, SITES);
    assert_int_equal(ask(&again, 0, after).epoch, epoch_of(&n));
    assert_memory_equal(before, after, sizeof before);
    struct qd_range_given given;
    assert_true(qd_model_range_given(again.model, X, &given));
    assert_true(given.cuts && given.scale == 0.0123f && given.zero_point == 90);
    assert_false(qd_model_range_given(again.model, H, &given));
    close_net(&again);
    states[X].given.scale = -1; /* a file may hold anything: then the tensor learns */
    open_net(&again);
    assert_int_equal(qd_model_restore(again.model, states, SITES, epoch_of(&n), 10, false, &restored, &error), QD_OK);
    assert_false(qd_model_range_given(again.model, X, &given));
    close_net(&again);
    close_net(&n);
}

static int start(void **state)
{
    (void)state;
    struct qd_error error;
    return qd_engine_create(&(struct qd_engine_options){.threads = 1}, &engine, &error) != QD_OK;
}

static int stop(void **state)
{
    (void)state;
    qd_engine_destroy(&engine);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_given_is_static_and_the_others_learn),
        cmocka_unit_test(test_exact_scale_byte_for_byte),
        cmocka_unit_test(test_cut_without_a_guard_event),
        cmocka_unit_test(test_all_or_none),
        cmocka_unit_test(test_kept_by_another_plan),
        cmocka_unit_test(test_kept_over_a_restart),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
