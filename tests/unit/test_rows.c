/* Matrix layers whose input is quantized row by row: equation (7b) recomputed here, rows apart from each other whatever
 * they hold, one quantize step for all who read the tensor, which layers get it, and how ranges show it. */
#include "engine/model.h"
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <math.h>

enum { BATCH = 2, ROWS = 5, DEPTH = 24, WIDTH = 40, ELEMS = BATCH * ROWS * DEPTH, ANSWER = BATCH * ROWS * WIDTH };

static struct qd_engine *engine;

/* x -> MatMul w, Add b -> a; x -> MatMul w2 -> b2; y = Relu(a) ; z = b2: two layers read x. */
struct net {
    struct qd_mb b;
    struct qd_model *model;
    float w[DEPTH * WIDTH], bias[WIDTH];
};

static struct net net_with(const char *shape, enum qd_granularity granularity, enum qd_scheme scheme,
                           enum qd_scheme weights)
{
    struct net n = {0};
    struct qd_quant_options options = qd_quant_defaults();
    options.precision = QD_INT8;
    options.bias_correction = false;
    options.activation_granularity = granularity;
    options.activation_scheme = scheme;
    options.weight_scheme = weights;
    qd_mb_fill(n.w, DEPTH * WIDTH, 3, 0.5f);
    qd_mb_fill(n.bias, WIDTH, 4, 1);
    qd_mb_input(&n.b, "x", QD_F32, shape);
    qd_mb_constant(&n.b, "w", QD_F32, "24,40", n.w);
    qd_mb_constant(&n.b, "b", QD_F32, "40", n.bias);
    qd_mb_weights(&n.b, "w2", "24,8", 5, 0.5f);
    qd_mb_node(&n.b, "MatMul", "x w", "m", NULL);
    qd_mb_node(&n.b, "Add", "m b", "a", NULL);
    qd_mb_node(&n.b, "Relu", "a", "y", NULL);
    qd_mb_node(&n.b, "MatMul", "x w2", "z", NULL);
    qd_mb_output(&n.b, "y", QD_F32, strlen(shape) > 4 ? "?,?,?" : "?,?");
    qd_mb_output(&n.b, "z", QD_F32, strlen(shape) > 4 ? "?,?,?" : "?,?");
    qd_mb_finish(&n.b, 13);
    n.model = qd_mb_load(&n.b, engine, &options, NULL);
    assert_non_null(n.model);
    return n;
}

static struct net net_new(const char *shape, enum qd_granularity granularity)
{
    return net_with(shape, granularity, QD_ASYMMETRIC, QD_SYMMETRIC);
}

static void net_free(struct net *n)
{
    qd_model_unref(&n->model);
    qd_mb_free(&n->b);
}

static void inputs(float *x, uint64_t seed)
{
    qd_mb_fill(x, ELEMS, seed, 1);
    for (int r = 0; r < BATCH * ROWS; r++) /* rows of very different sizes */
        for (int i = 0; i < DEPTH; i++)
            x[r * DEPTH + i] *= powf(10, (float)(r % 7) - 3);
}

static void ask(struct net *n, const float *x, float *y)
{
    struct qd_infer *infer = qd_mb_run(n->model, NULL, "2,5,24", x);
    struct qd_infer_report report;
    qd_infer_report(infer, &report);
    assert_int_equal(report.guarded, 0);
    memcpy(y, qd_infer_output(infer, 0)->data, ANSWER * sizeof *y);
    qd_infer_destroy(&infer);
}

/* (3) or (4), (1) with a multiplication, (6), (6b), (7b): one row. */
static void expect_row(const struct net *n, const float *x, enum qd_scheme scheme, enum qd_scheme weights, float *y)
{
    float lo = 0, hi = 0;
    int32_t q[DEPTH];
    for (int i = 0; i < DEPTH; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    const struct qd_qparams qp = qd_qparams_from_range((double)lo, (double)hi, scheme == QD_SYMMETRIC);
    for (int i = 0; i < DEPTH; i++) {
        const float scaled = rintf(x[i] * (1.0f / qp.scale)) + (float)qp.zero_point;
        q[i] = (int32_t)fminf(fmaxf(scaled, (float)qp.qmin), (float)qp.qmax);
    }
    for (int j = 0; j < WIDTH; j++) {
        int32_t acc = 0;
        lo = hi = 0;
        for (int i = 0; i < DEPTH; i++) {
            lo = fminf(lo, n->w[i * WIDTH + j]);
            hi = fmaxf(hi, n->w[i * WIDTH + j]);
        }
        const struct qd_qparams w = qd_qparams_from_range((double)lo, (double)hi, weights == QD_SYMMETRIC);
        for (int i = 0; i < DEPTH; i++) {
            const float least = (float)(w.qmin - w.zero_point), most = (float)(w.qmax - w.zero_point);
            const float whole = fminf(fmaxf(rintf(n->w[i * WIDTH + j] / w.scale), least), most);
            acc += (q[i] - qp.zero_point) * (int32_t)whole;
        }
        const float product = (float)acc * (qp.scale * w.scale);
        y[j] = fmaxf(product + n->bias[j], 0);
    }
}

static void test_arithmetic(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        const enum qd_scheme scheme = k & 1 ? QD_SYMMETRIC : QD_ASYMMETRIC,
                             weights = k & 2 ? QD_SYMMETRIC : QD_ASYMMETRIC;
        struct net n = net_with("N,S,24", QD_GRANULARITY_AUTO, scheme, weights);
        float x[ELEMS], y[ANSWER], want[ANSWER];
        for (uint64_t seed = 1; seed < 20; seed++) {
            inputs(x, seed);
            ask(&n, x, y);
            for (int r = 0; r < BATCH * ROWS; r++)
                expect_row(&n, x + r * DEPTH, scheme, weights, want + r * WIDTH);
            for (int i = 0; i < ANSWER; i++)
                if (memcmp(&y[i], &want[i], sizeof y[i]) != 0)
                    fail_msg("schemes %d, seed %d: element %d is %.9g, want %.9g", k, (int)seed, i, (double)y[i],
                             (double)want[i]);
        }
        net_free(&n);
    }
}

static void test_rows_are_apart(void **state)
{
    (void)state;
    static const float odd[] = {NAN, INFINITY, -INFINITY, 1e30f, 3.4e38f, 0};
    struct net n = net_new("N,S,24", QD_GRANULARITY_AUTO);
    float x[ELEMS], y[ANSWER], clean[ANSWER];
    inputs(x, 7);
    ask(&n, x, clean);
    for (size_t k = 0; k < sizeof odd / sizeof odd[0]; k++) {
        for (int i = 0; i < DEPTH; i++)
            x[4 * DEPTH + i] = odd[k];
        ask(&n, x, y);
        assert_memory_equal(y, clean, 4 * WIDTH * sizeof *y);
        assert_memory_equal(y + 5 * WIDTH, clean + 5 * WIDTH, (ANSWER - 5 * WIDTH) * sizeof *y);
    }
    net_free(&n);
}

static int steps_of(const struct net *n, enum qd_step_kind kind)
{
    int count = 0;
    for (int s = 0; s < n->model->plan->step_count; s++)
        count += n->model->plan->steps[s].kind == kind;
    return count;
}

static void test_who_gets_it(void **state)
{
    (void)state;
    static const struct {
        const char *shape;
        enum qd_granularity granularity;
        int rows, tensors; /* quantize steps */
    } cases[] = {
        {"N,S,24", QD_GRANULARITY_AUTO, 1, 0},
        {"N,24", QD_GRANULARITY_AUTO, 0, 1},
        {"N,S,24", QD_PER_TENSOR, 0, 1},
        {"N,24", QD_PER_ROW, 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct net n = net_new(cases[i].shape, cases[i].granularity);
        struct qd_range_report range;
        assert_int_equal(steps_of(&n, QD_STEP_QUANTIZE_ROWS), cases[i].rows);
        assert_int_equal(steps_of(&n, QD_STEP_QUANTIZE), cases[i].tensors);
        qd_model_range(n.model, 0, &range);
        assert_string_equal(range.name, "x");
        assert_int_equal(range.granularity, cases[i].rows ? QD_PER_ROW : QD_PER_TENSOR);
        assert_int_equal(range.mode, cases[i].rows ? QD_MODE_REQUEST : QD_MODE_EMA);
        assert_int_equal(range.consumer_count, 2);
        net_free(&n);
    }
}

static void test_ranges_are_seen(void **state)
{
    (void)state;
    struct net n = net_new("N,S,24", QD_GRANULARITY_AUTO);
    struct qd_range_report range;
    struct qd_error error;
    float x[ELEMS], y[ANSWER], lo = 0, hi = 0;
    inputs(x, 9);
    for (int i = 0; i < ELEMS; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    ask(&n, x, y);
    qd_model_range(n.model, 0, &range);
    assert_true(range.last_min == (double)lo && range.last_max == (double)hi);
    assert_int_equal(range.elements, ELEMS);
    assert_int_equal(range.clipped_low + range.clipped_high, 0);
    const struct qd_range_given given = {.tensor = "x", .lo = -1, .hi = 1};
    assert_int_equal(qd_model_ranges_set(n.model, &given, 1, &error), QD_ERR_CONFLICT);
    assert_non_null(strstr(error.text, "row by row"));
    net_free(&n);
}

static void test_weights_are_shown(void **state)
{
    (void)state;
    uint32_t digests[2];
    for (int k = 0; k < 2; k++) {
        struct net n = net_with("N,S,24", QD_GRANULARITY_AUTO, QD_ASYMMETRIC, k ? QD_ASYMMETRIC : QD_SYMMETRIC);
        struct qd_plan_report plan;
        int layers = 0;
        qd_model_plan(n.model, &plan);
        digests[k] = plan.digest;
        for (size_t i = 0; i < plan.steps; i++) {
            struct qd_step_report step;
            qd_model_step(n.model, i, &step);
            if (!step.weight_bits)
                continue;
            assert_int_equal(step.weight_scheme, k ? QD_ASYMMETRIC : QD_SYMMETRIC);
            layers++;
        }
        assert_int_equal(layers, 2);
        net_free(&n);
    }
    assert_int_not_equal(digests[0], digests[1]);
}

/* A graph of tokens: a residual inside the layer, GELU between two layers, in any number of threads the same. */
static void test_feed_forward(void **state)
{
    (void)state;
    float x[BATCH * ROWS * DEPTH], first[BATCH * ROWS * DEPTH], error = 0, most = 0;
    inputs(x, 11);
    for (unsigned threads = 1; threads < 4; threads++) {
        struct qd_engine *mine = qd_mb_engine(threads);
        struct qd_quant_options options = qd_quant_defaults();
        struct qd_infer_options fp32 = qd_infer_defaults();
        struct qd_mb b = {0};
        options.precision = QD_INT8;
        fp32.precision = QD_FP32;
        qd_mb_input(&b, "x", QD_F32, "N,S,24");
        qd_mb_weights(&b, "w1", "24,96", 1, 0.2f);
        qd_mb_weights(&b, "w2", "96,24", 2, 0.1f);
        qd_mb_node(&b, "MatMul", "x w1", "h", NULL);
        qd_mb_node(&b, "Sigmoid", "h", "s", NULL);
        qd_mb_node(&b, "Mul", "h s", "g", NULL);
        qd_mb_node(&b, "MatMul", "g w2", "m", NULL);
        qd_mb_node(&b, "Add", "m x", "y", NULL);
        qd_mb_output(&b, "y", QD_F32, "?,?,?");
        qd_mb_finish(&b, 13);
        struct qd_model *model = qd_mb_load(&b, mine, &options, NULL);
        assert_non_null(model);
        struct qd_infer *int8 = qd_mb_run(model, NULL, "2,5,24", x), *real = qd_mb_run(model, &fp32, "2,5,24", x);
        const float *got = qd_infer_output(int8, 0)->data, *want = qd_infer_output(real, 0)->data;
        if (threads == 1)
            memcpy(first, got, sizeof first);
        assert_memory_equal(first, got, sizeof first);
        for (int i = 0; i < ELEMS; i++) {
            error += (got[i] - want[i]) * (got[i] - want[i]);
            most += want[i] * want[i];
        }
        assert_true(error < 1e-4f * most);
        qd_infer_destroy(&int8);
        qd_infer_destroy(&real);
        qd_model_unref(&model);
        qd_mb_free(&b);
        qd_engine_destroy(&mine);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arithmetic),   cmocka_unit_test(test_rows_are_apart),
        cmocka_unit_test(test_who_gets_it),  cmocka_unit_test(test_ranges_are_seen),
        cmocka_unit_test(test_feed_forward), cmocka_unit_test(test_weights_are_shown),
    };
    engine = qd_mb_engine(1);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    qd_engine_destroy(&engine);
    return failed;
}
