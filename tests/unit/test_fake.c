/* Fake quantization: that rounding to integers and back is PyTorch's to the last bit (recorded by
 * tests/reference/fake_quantize.py), that a model in it answers as the integers do within their rounding, learns the
 * same ranges, replays, and takes fewer bits; layers of both kinds in one model. */
#include "engine/kernels/kernels.h"
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

static struct qd_engine *engine;

/* ------------------------------------------------------------------ the rounding itself */

/* A line: kind (tensor or channel), scale, zero point, limits, count; then the values; then what they become. Floats
 * are written as their bits in hexadecimal. */
static float read_float(FILE *file)
{
    unsigned bits = 0;
    float value;
    assert_int_equal(fscanf(file, "%x", &bits), 1);
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void test_torch(void **state)
{
    (void)state;
    enum { MOST = 64 };
    FILE *file = fopen("tests/unit/fake_quantize.txt", "r");
    assert_non_null(file);
    int cases = 0, zero_point, low, high, count;
    while (fscanf(file, "%d %d %d %d", &count, &zero_point, &low, &high) == 4) {
        float x[MOST], want[MOST], got[MOST];
        uint8_t q[MOST];
        assert_true(count > 0 && count <= MOST);
        /* Signed integers are carried as u8, 128 higher. */
        const int offset = low < 0 ? QD_CARRIER_OFFSET : 0;
        struct qd_qparams qp = {read_float(file), zero_point + offset, low + offset, high + offset};
        for (int i = 0; i < count; i++)
            x[i] = read_float(file);
        for (int i = 0; i < count; i++)
            want[i] = read_float(file);
        for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
            const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
            if (!kernels) /* this processor hasn't it */
                continue;
            kernels->requantize_u8(x, (size_t)count, &qp, q, NULL);
            kernels->dequantize_u8(q, (size_t)count, &qp, got);
            for (int i = 0; i < count; i++)
                if (memcmp(&got[i], &want[i], sizeof got[i]) != 0 && !(got[i] == 0 && want[i] == 0))
                    fail_msg("case %d, value %a: %a, PyTorch says %a", cases, (double)x[i], (double)got[i],
                             (double)want[i]);
        }
        cases++;
    }
    fclose(file);
    assert_true(cases >= 100);
}

/* ------------------------------------------------------------------ models */

/* x [N,8,12,12] -> Conv, Relu -> MaxPool -> Conv of groups + itself -> depthwise Conv -> ConvTranspose -> Flatten ->
 * Gemm -> [N,2,16] -> MatMul by tokens -> y [N,2,10] */
struct net {
    struct qd_mb b;
    struct qd_model *model;
};

enum { IMAGE = 8 * 12 * 12, OUT = 20 };
static const char SHAPE[] = "1,8,12,12";

static struct net net_new(struct qd_engine *on, const struct qd_quant_options *options)
{
    static const int64_t tokens[] = {-1, 2, 16};
    struct net n = {0};
    qd_mb_input(&n.b, "x", QD_F32, "N,8,12,12");
    qd_mb_weights(&n.b, "w1", "16,8,3,3", 1, 0.2f);
    qd_mb_weights(&n.b, "b1", "16", 2, 0.5f);
    qd_mb_weights(&n.b, "w2", "16,4,3,3", 3, 0.2f);
    qd_mb_weights(&n.b, "w3", "16,1,3,3", 4, 0.4f);
    qd_mb_weights(&n.b, "w4", "16,6,2,2", 5, 0.3f);
    qd_mb_weights(&n.b, "w5", "32,864", 6, 0.05f);
    qd_mb_weights(&n.b, "w6", "16,10", 7, 0.3f);
    qd_mb_constant(&n.b, "tokens", QD_I64, "3", tokens);
    qd_mb_node(&n.b, "Conv", "x w1 b1", "a", "pads=[1,1,1,1]");
    qd_mb_node(&n.b, "Relu", "a", "r", NULL);
    qd_mb_node(&n.b, "MaxPool", "r", "p", "kernel_shape=[2,2] strides=[2,2]");
    qd_mb_node(&n.b, "Conv", "p w2", "c", "pads=[1,1,1,1] group=4");
    qd_mb_node(&n.b, "Add", "c p", "e", NULL);
    qd_mb_node(&n.b, "Conv", "e w3", "d", "pads=[1,1,1,1] group=16");
    qd_mb_node(&n.b, "ConvTranspose", "d w4", "f", "strides=[2,2]");
    qd_mb_node(&n.b, "Flatten", "f", "g", NULL);
    qd_mb_node(&n.b, "Gemm", "g w5", "h", "transB=1");
    qd_mb_node(&n.b, "Reshape", "h tokens", "t", NULL);
    qd_mb_node(&n.b, "MatMul", "t w6", "y", NULL);
    qd_mb_output(&n.b, "y", QD_F32, "N,2,10");
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

static struct qd_quant_options in(enum qd_precision precision, int bits)
{
    struct qd_quant_options options = qd_quant_defaults();
    options.precision = precision;
    options.bias_correction = false; /* integer layers alone have it */
    options.fake_weight_bits = options.fake_activation_bits = bits;
    return options;
}

static struct qd_infer_report ask(struct qd_model *model, const float *x, float *answer, uint64_t epoch,
                                  enum qd_precision precision)
{
    const struct qd_infer_options options = {.epoch = epoch, .precision = precision, .observe = epoch == 0};
    struct qd_infer_report report;
    struct qd_infer *infer = qd_mb_run(model, &options, SHAPE, x);
    qd_infer_report(infer, &report);
    memcpy(answer, qd_infer_output(infer, 0)->data, OUT * sizeof *answer);
    qd_infer_destroy(&infer);
    return report;
}

static double db(const float *a, const float *b, size_t n)
{
    double signal = 0, noise = 0;
    for (size_t i = 0; i < n; i++) {
        signal += (double)b[i] * (double)b[i];
        noise += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    }
    return 10 * log10(signal / noise);
}

/* Integers and floats differ where a sum of products lies beside the middle between two integers. */
static void test_agrees_with_integers(void **state)
{
    (void)state;
    enum { REQUESTS = 40 };
    static const struct {
        enum qd_mode mode;
        enum qd_scheme scheme;
        enum qd_granularity weights, rows;
    } rows[] = {{QD_MODE_EMA, QD_ASYMMETRIC, QD_PER_CHANNEL, QD_GRANULARITY_AUTO},
                {QD_MODE_EMA, QD_SYMMETRIC, QD_PER_TENSOR, QD_PER_TENSOR},
                {QD_MODE_REQUEST, QD_SYMMETRIC, QD_PER_CHANNEL, QD_PER_ROW},
                {QD_MODE_REQUEST, QD_ASYMMETRIC, QD_PER_TENSOR, QD_PER_TENSOR}};
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        float x[IMAGE], fake[REQUESTS][OUT], integer[REQUESTS][OUT], real[REQUESTS][OUT];
        struct qd_quant_options options[] = {in(QD_FAKE, 8), in(QD_INT8, 8)};
        for (int i = 0; i < 2; i++) {
            options[i].mode = rows[k].mode;
            options[i].activation_scheme = rows[k].scheme;
            options[i].weight_granularity = rows[k].weights;
            options[i].activation_granularity = rows[k].rows;
        }
        struct net f = net_new(engine, &options[0]), n = net_new(engine, &options[1]);
        for (int r = 0; r < REQUESTS; r++) {
            qd_mb_fill(x, IMAGE, 100 + (uint64_t)r, 1 + 0.3f * (float)(r % 5));
            struct qd_infer_report a = ask(f.model, x, fake[r], 0, QD_PRECISION_AUTO);
            struct qd_infer_report b = ask(n.model, x, integer[r], 0, QD_PRECISION_AUTO);
            assert_int_equal(a.precision, QD_FAKE);
            assert_int_equal(b.precision, QD_INT8);
            assert_int_equal(a.guarded, b.guarded);
            assert_int_equal(a.epoch, b.epoch);
            ask(f.model, x, real[r], 0, QD_FP32);
        }
        double same = db(fake[0], integer[0], REQUESTS * OUT), error = db(integer[0], real[0], REQUESTS * OUT);
        print_message("fake against integers %.1f dB, integers against FP32 %.1f dB\n", same, error);
        assert_true(same > error + 10 && error > 15);
        struct qd_ranges_summary ours, theirs;
        qd_model_ranges(f.model, &ours);
        qd_model_ranges(n.model, &theirs);
        assert_int_equal(ours.sites, theirs.sites);
        for (size_t i = 0; i < ours.sites; i++)
            for (size_t j = 0; j < theirs.sites; j++) {
                struct qd_range_report a, b;
                qd_model_range(f.model, i, &a);
                qd_model_range(n.model, j, &b);
                if (strcmp(a.name, b.name) != 0)
                    continue;
                double width = b.ema_max - b.ema_min;
                assert_true(fabs(a.ema_min - b.ema_min) < 0.01 * width && fabs(a.ema_max - b.ema_max) < 0.01 * width);
                assert_int_equal(a.observations, b.observations);
            }
        net_free(&f);
        net_free(&n);
    }
}

/* Each bit less costs accuracy, of weights and of activations. */
static void test_bits(void **state)
{
    (void)state;
    enum { REQUESTS = 12 };
    for (int which = 0; which < 3; which++) {
        double last = 1e9;
        for (int bits = 8; bits >= 2; bits--) {
            float x[IMAGE], fake[REQUESTS][OUT], real[REQUESTS][OUT];
            struct qd_quant_options options = in(QD_FAKE, 8);
            if (which != 0)
                options.fake_weight_bits = bits;
            if (which != 1)
                options.fake_activation_bits = bits;
            struct net f = net_new(engine, &options);
            for (int r = 0; r < REQUESTS; r++) {
                qd_mb_fill(x, IMAGE, 100 + (uint64_t)r, 1);
                ask(f.model, x, fake[r], 0, QD_PRECISION_AUTO);
                ask(f.model, x, real[r], 0, QD_FP32);
            }
            double now = db(fake[0], real[0], REQUESTS * OUT);
            print_message("%s %d bits: %.1f dB\n",
                          which == 0   ? "activations"
                          : which == 1 ? "weights"
                                       : "both",
                          bits, now);
            assert_true(now < last + 0.5);
            last = now;
            net_free(&f);
        }
        assert_true(last < 12);
    }
}

static void test_reports(void **state)
{
    (void)state;
    struct qd_quant_options options = in(QD_FAKE, 4);
    options.fake_weight_bits = 3;
    struct net n = net_new(engine, &options);
    struct qd_plan_report plan;
    struct qd_step_report step;
    int layers = 0;
    qd_model_plan(n.model, &plan);
    for (size_t i = 0; i < plan.steps; i++) {
        qd_model_step(n.model, i, &step);
        assert_int_not_equal(step.precision, QD_INT8);
        if (!step.weight_bits)
            continue;
        assert_int_equal(step.precision, QD_FAKE);
        assert_int_equal(step.weight_bits, 3);
        layers++;
    }
    assert_int_equal(layers, 6);
    assert_true(plan.macs[QD_FAKE] > 0 && plan.macs[QD_INT8] == 0 && plan.macs[QD_FP32] == 0);
    float x[IMAGE];
    qd_mb_fill(x, IMAGE, 5, 1);
    qd_mb_teach(n.model, SHAPE, x, 12);
    struct qd_ranges_summary summary;
    qd_model_ranges(n.model, &summary);
    for (size_t i = 0; i < summary.sites; i++) {
        struct qd_range_report range;
        qd_model_range(n.model, i, &range);
        double lo = fmin(range.ema_min, 0), hi = fmax(range.ema_max, 0);
        assert_true(fabs((double)range.scale * 15 - (hi - lo)) < 1e-5 * (hi - lo)); /* equation (3), 4 bits */
        assert_true(range.zero_point >= 0 && range.zero_point <= 15);
    }
    net_free(&n);
}

/* An epoch gives the same bytes again; neighbours, their poison and threads change none. */
static void test_replay_and_invariance(void **state)
{
    (void)state;
    static const float kinds[] = {1, 1e30f, NAN, INFINITY};
    struct qd_engine *three = qd_mb_engine(3);
    struct qd_quant_options options = in(QD_FAKE, 5);
    struct net n = net_new(engine, &options), other = net_new(three, &options);
    float x[IMAGE], y[IMAGE], alone[OUT], again[OUT];
    qd_mb_fill(x, IMAGE, 9, 1);
    qd_mb_teach(n.model, SHAPE, x, 12);
    qd_mb_teach(other.model, SHAPE, x, 12);
    qd_mb_fill(x, IMAGE, 10, 0.9f);
    struct qd_infer_report first = ask(n.model, x, alone, 0, QD_PRECISION_AUTO);
    const struct qd_infer_options unseen = {.precision = QD_PRECISION_AUTO, .epoch = first.epoch};
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
    for (int e = 0; e < IMAGE; e++)
        y[e] = x[e] * 1.5f;
    qd_mb_teach(n.model, SHAPE, y, 3);
    ask(n.model, x, again, first.epoch, QD_PRECISION_AUTO);
    assert_memory_equal(again, alone, sizeof alone);
    net_free(&n);
    net_free(&other);
    qd_engine_destroy(&three);
}

static void test_guard(void **state)
{
    (void)state;
    for (enum qd_guard guard = QD_GUARD_WIDEN; guard <= QD_GUARD_ESCALATE; guard++) {
        struct qd_quant_options options = in(QD_FAKE, 8);
        options.guard = guard;
        struct net n = net_new(engine, &options);
        float x[IMAGE], a[OUT], b[OUT];
        struct qd_infer_report report;
        struct qd_error error;
        qd_mb_fill(x, IMAGE, 9, 1);
        qd_mb_teach(n.model, SHAPE, x, 12);
        for (int e = 0; e < IMAGE; e++)
            x[e] *= 4;
        ask(n.model, x, b, 0, QD_FP32);
        const struct qd_infer_options unseen = {.precision = QD_PRECISION_AUTO};
        struct qd_infer *infer = qd_mb_request(n.model, &unseen, SHAPE, x);
        qd_infer_run(&infer, 1);
        qd_infer_report(infer, &report);
        assert_true(report.guarded > 0);
        if (guard == QD_GUARD_REJECT) {
            assert_int_equal(qd_infer_status(infer, &error), QD_ERR_OUT_OF_RANGE);
        } else {
            assert_int_equal(qd_infer_status(infer, &error), QD_OK);
            memcpy(a, qd_infer_output(infer, 0)->data, sizeof a);
            double sqnr = db(a, b, OUT);
            assert_true(guard == QD_GUARD_WIDEN ? sqnr > 20 : guard == QD_GUARD_CLIP ? sqnr < 15 : isinf(sqnr));
        }
        qd_infer_destroy(&infer);
        net_free(&n);
    }
}

/* One layer of another kind than the model. */
static void test_pins(void **state)
{
    (void)state;
    for (int fake = 0; fake < 2; fake++) {
        const struct qd_layer_pin pins[] = {{.node = "c", .precision = fake ? QD_FAKE : QD_INT8}};
        struct qd_quant_options options = in(fake ? QD_INT8 : QD_FAKE, 8);
        options.pins = pins;
        options.pin_count = 1;
        struct net n = net_new(engine, &options);
        struct qd_plan_report plan;
        struct qd_step_report step;
        int found = 0;
        qd_model_plan(n.model, &plan);
        for (size_t i = 0; i < plan.steps; i++) {
            qd_model_step(n.model, i, &step);
            if (step.weight_bits && strcmp(step.node, "c") == 0)
                found += step.pinned && step.precision == pins[0].precision;
            else if (step.weight_bits)
                assert_int_equal(step.precision, options.precision);
        }
        assert_int_equal(found, 1);
        float x[IMAGE], a[OUT], b[OUT];
        for (uint64_t r = 0; r < 12; r++) {
            qd_mb_fill(x, IMAGE, 50 + r, 1);
            ask(n.model, x, a, 0, QD_PRECISION_AUTO);
            ask(n.model, x, b, 0, QD_FP32);
            assert_true(db(a, b, OUT) > 15);
        }
        net_free(&n);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    struct qd_error error;
    for (int bits = 1; bits <= 9; bits += 8) {
        struct qd_quant_options options = in(QD_FAKE, 8);
        options.fake_weight_bits = bits;
        struct net n = net_new(engine, NULL);
        struct qd_change *change;
        assert_int_equal(qd_change_create(n.model, &options, &change, &error), QD_ERR_INVALID);
        net_free(&n);
    }
}

int main(void)
{
    engine = qd_mb_engine(1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_torch), cmocka_unit_test(test_agrees_with_integers),
                                       cmocka_unit_test(test_bits),  cmocka_unit_test(test_reports),
                                       cmocka_unit_test(test_guard), cmocka_unit_test(test_replay_and_invariance),
                                       cmocka_unit_test(test_pins),  cmocka_unit_test(test_refusals)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    qd_engine_destroy(&engine);
    return failed;
}
