/* Models in 16 bits, from outside: how close they are to FP32, what is learned, that neither threads nor neighbours
 * change a byte, that no value is ever cut, and single layers pinned to 16 bits. The layers' arithmetic is in
 * test_linear.c. */
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <math.h>

static struct qd_engine *engine;

/* x [N,8,12,12] -> Conv 3x3, Relu -> grouped Conv -> depthwise Conv, + c -> ConvTranspose -> Flatten -> Gemm -> MatMul
 * -> y [N,10] */
struct net {
    struct qd_mb b;
    struct qd_model *model;
};

enum { IMAGE = 8 * 12 * 12, OUT = 10 };
static const char SHAPE[] = "1,8,12,12";

static struct net net_new(struct qd_engine *on, const struct qd_quant_options *options)
{
    struct net n = {0};
    qd_mb_input(&n.b, "x", QD_F32, "N,8,12,12");
    qd_mb_weights(&n.b, "w1", "16,8,3,3", 1, 0.2f);
    qd_mb_weights(&n.b, "b1", "16", 2, 0.5f);
    qd_mb_weights(&n.b, "w2", "16,4,3,3", 3, 0.2f);
    qd_mb_weights(&n.b, "w3", "16,1,3,3", 4, 0.4f);
    qd_mb_weights(&n.b, "w4", "16,6,2,2", 5, 0.3f);
    qd_mb_weights(&n.b, "w5", "32,3456", 6, 0.05f);
    qd_mb_weights(&n.b, "w6", "32,10", 7, 0.3f);
    qd_mb_node(&n.b, "Conv", "x w1 b1", "a", "pads=[1,1,1,1]");
    qd_mb_node(&n.b, "Relu", "a", "r", NULL);
    qd_mb_node(&n.b, "Conv", "r w2", "c", "pads=[1,1,1,1] group=4");
    qd_mb_node(&n.b, "Conv", "c w3", "d", "pads=[1,1,1,1] group=16");
    qd_mb_node(&n.b, "Add", "d c", "e", NULL);
    qd_mb_node(&n.b, "ConvTranspose", "e w4", "f", "strides=[2,2]");
    qd_mb_node(&n.b, "Flatten", "f", "g", NULL);
    qd_mb_node(&n.b, "Gemm", "g w5", "h", "transB=1");
    qd_mb_node(&n.b, "MatMul", "h w6", "y", NULL);
    qd_mb_output(&n.b, "y", QD_F32, "N,10");
    qd_mb_finish(&n.b, 13);
    n.model = qd_mb_load(&n.b, on, options, NULL);
    assert_non_null(n.model);
    return n;
}

static void net_free(struct net *n)
{
    qd_model_unref(&n->model);
    qd_mb_free(&n->b);
}

static struct qd_quant_options in_16_bits(int weight_bits)
{
    struct qd_quant_options options = qd_quant_defaults();
    options.precision = QD_INT16;
    options.weight_bits = weight_bits;
    return options;
}

static struct qd_infer_report ask(struct qd_model *model, const float *x, float *answer, enum qd_precision precision)
{
    const struct qd_infer_options options = {.precision = precision, .observe = true};
    struct qd_infer_report report;
    struct qd_infer *infer = qd_mb_run(model, &options, SHAPE, x);
    qd_infer_report(infer, &report);
    memcpy(answer, qd_infer_output(infer, 0)->data, OUT * sizeof *answer);
    qd_infer_destroy(&infer);
    return report;
}

static double sqnr_db(struct qd_model *model, int requests, float spread)
{
    float x[IMAGE], a[OUT], b[OUT];
    double signal = 0, noise = 0;
    for (int r = 0; r < requests; r++) {
        qd_mb_fill(x, IMAGE, 100 + (uint64_t)r, 1 + spread * (float)(r % 7));
        assert_int_equal(ask(model, x, a, QD_PRECISION_AUTO).precision, QD_INT16);
        assert_int_equal(ask(model, x, b, QD_FP32).precision, QD_FP32);
        for (int e = 0; e < OUT; e++) {
            signal += (double)b[e] * (double)b[e];
            noise += ((double)a[e] - (double)b[e]) * ((double)a[e] - (double)b[e]);
        }
    }
    assert_true(noise > 0);
    return 10 * log10(signal / noise);
}

/* Also when requests are of very different sizes: 16 bits leave room to never cut a value. */
static void test_error(void **state)
{
    static const struct {
        int bits;
        double db;
    } rows[] = {{8, 35}, {14, 70}, {16, 75}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct qd_quant_options options = in_16_bits(rows[i].bits);
        struct net n = net_new(engine, &options);
        double steady = sqnr_db(n.model, 30, 0), wild = sqnr_db(n.model, 30, 2);
        print_message("weights of %d bits: SQNR %.1f dB, %.1f dB of wild traffic\n", rows[i].bits, steady, wild);
        assert_true(steady > rows[i].db && wild > rows[i].db - 3);
        net_free(&n);
    }
}

static void test_reports(void **state)
{
    (void)state;
    struct qd_quant_options options = in_16_bits(12);
    struct net n = net_new(engine, &options);
    struct qd_plan_report plan;
    struct qd_step_report step;
    struct qd_ranges_summary summary;
    int words = 0;
    qd_model_plan(n.model, &plan);
    for (size_t i = 0; i < plan.steps; i++) {
        qd_model_step(n.model, i, &step);
        assert_int_not_equal(step.precision, QD_INT8);
        if (strcmp(step.node, "d") == 0 && step.weight_bits) {
            assert_int_equal(step.precision, QD_FP32);
            assert_non_null(strstr(step.reason, "depthwise"));
        } else if (step.weight_bits) {
            assert_int_equal(step.precision, QD_INT16);
            assert_int_equal(step.weight_bits, 12);
            words++;
        }
    }
    assert_int_equal(words, 5);
    assert_true(plan.macs[QD_INT16] > 0 && plan.macs[QD_INT8] == 0);
    float x[IMAGE], y[OUT];
    qd_mb_fill(x, IMAGE, 5, 1);
    for (int i = 0; i < 12; i++)
        ask(n.model, x, y, QD_PRECISION_AUTO);
    qd_model_ranges(n.model, &summary);
    assert_int_equal(summary.sites, 5);
    for (size_t i = 0; i < summary.sites; i++) {
        struct qd_range_report range;
        qd_model_range(n.model, i, &range);
        double most = fmax(-range.ema_min, range.ema_max);
        assert_int_equal(range.dtype, QD_I16);
        assert_int_equal(range.scheme, QD_SYMMETRIC);
        assert_int_equal(range.zero_point, 0);
        assert_true(fabs((double)range.scale * 32767 - most) < 1e-6 * most); /* equation (4) */
        assert_int_equal(range.consumer_count, 1);
    }
    net_free(&n);
}

/* The same bytes alone on one thread, and on three beside neighbours of any kind. */
static void test_invariance(void **state)
{
    (void)state;
    static const float kinds[] = {1, 1e30f, NAN, INFINITY};
    struct qd_engine *three = qd_mb_engine(3);
    struct qd_quant_options options = in_16_bits(QD_WEIGHT_BITS);
    struct net n = net_new(engine, &options), other = net_new(three, &options);
    float x[IMAGE], y[IMAGE], alone[OUT];
    qd_mb_fill(x, IMAGE, 9, 1);
    qd_mb_teach(n.model, SHAPE, x, 12);
    qd_mb_teach(other.model, SHAPE, x, 12);
    qd_mb_fill(x, IMAGE, 10, 0.9f);
    const struct qd_infer_options unseen = {.precision = QD_PRECISION_AUTO};
    struct qd_infer *single = qd_mb_run(n.model, &unseen, SHAPE, x);
    memcpy(alone, qd_infer_output(single, 0)->data, sizeof alone);
    qd_infer_destroy(&single);
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        struct qd_infer *lanes[3];
        for (int l = 0; l < 3; l++) {
            qd_mb_fill(y, IMAGE, 20 + (uint64_t)l, 1);
            for (int e = 0; l != 1 && e < IMAGE; e += 7)
                y[e] *= kinds[k];
            lanes[l] = qd_mb_request(other.model, &unseen, SHAPE, l == 1 ? x : y);
        }
        qd_infer_run(lanes, 3);
        assert_memory_equal(qd_infer_output(lanes[1], 0)->data, alone, sizeof alone);
        for (int l = 0; l < 3; l++)
            qd_infer_destroy(&lanes[l]);
    }
    net_free(&n);
    net_free(&other);
    qd_engine_destroy(&three);
}

/* Beyond the learned range but within the tolerance: no event, yet nothing is cut; `clip` cuts. */
static void test_nothing_is_cut(void **state)
{
    (void)state;
    for (int clip = 0; clip < 2; clip++) {
        struct qd_quant_options options = in_16_bits(QD_WEIGHT_BITS);
        options.guard = clip ? QD_GUARD_CLIP : QD_GUARD_WIDEN;
        struct net n = net_new(engine, &options);
        float x[IMAGE], a[OUT], b[OUT];
        qd_mb_fill(x, IMAGE, 9, 1);
        qd_mb_teach(n.model, SHAPE, x, 12);
        for (int e = 0; e < IMAGE; e++)
            x[e] *= 1.08f;
        struct qd_infer_report report = ask(n.model, x, a, QD_PRECISION_AUTO);
        ask(n.model, x, b, QD_FP32);
        double signal = 0, noise = 0;
        for (int e = 0; e < OUT; e++) {
            signal += (double)b[e] * (double)b[e];
            noise += ((double)a[e] - (double)b[e]) * ((double)a[e] - (double)b[e]);
        }
        assert_int_equal(report.guarded, 0);
        assert_true(clip ? signal < noise * 1e7 : signal > noise * 1e7);
        net_free(&n);
    }
}

/* One layer in 16 bits among layers in 8, and one in 8 among layers in 16. */
static void test_pins(void **state)
{
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        const struct qd_layer_pin pins[] = {{.node = "c", .precision = wide ? QD_INT8 : QD_INT16}};
        struct qd_quant_options options = in_16_bits(QD_WEIGHT_BITS);
        options.precision = wide ? QD_INT16 : QD_INT8;
        options.pins = pins;
        options.pin_count = 1;
        struct net n = net_new(engine, &options);
        struct qd_plan_report plan;
        struct qd_step_report step;
        int found = 0, others = 0;
        qd_model_plan(n.model, &plan);
        for (size_t i = 0; i < plan.steps; i++) {
            qd_model_step(n.model, i, &step);
            if (!step.weight_bits || strcmp(step.node, "d") == 0)
                continue;
            if (strcmp(step.node, "c") == 0) {
                found += step.pinned && step.precision == pins[0].precision;
            } else {
                assert_int_equal(step.precision, options.precision);
                others++;
            }
        }
        assert_int_equal(found, 1);
        assert_int_equal(others, 4);
        float x[IMAGE], a[OUT], b[OUT];
        double off = 0, size = 0;
        for (uint64_t r = 0; r < 12; r++) {
            qd_mb_fill(x, IMAGE, 50 + r, 1);
            ask(n.model, x, a, QD_PRECISION_AUTO);
            ask(n.model, x, b, QD_FP32);
            for (int e = 0; e < OUT; e++) {
                off += fabs((double)a[e] - (double)b[e]);
                size += fabs((double)b[e]);
            }
        }
        assert_true(off > 0 && off < 0.05 * size);
        net_free(&n);
    }
}

int main(void)
{
    engine = qd_mb_engine(1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_error), cmocka_unit_test(test_reports),
                                       cmocka_unit_test(test_invariance), cmocka_unit_test(test_nothing_is_cut),
                                       cmocka_unit_test(test_pins)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    qd_engine_destroy(&engine);
    return failed;
}
