/* Bias correction: with inputs that are the same all over a channel, the corrected layer's outputs are FP32's on
 * average, for every kind of layer, padding included; an epoch brings it, replay goes back before it, and what ends it
 * ends it. */
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <math.h>

static struct qd_engine *engine;

/* One layer y = op(x, w), and how its input is seen: [outer, channels, inner]. */
static const struct row {
    const char *label, *op, *in, *w, *attributes;
    int outer, channels, inner, outputs; /* outputs: channels of y */
} rows[] = {
    {"matrix", "MatMul", "5,7", "7,9", NULL, 5, 7, 1, 9},
    {"gemm", "Gemm", "3,16", "12,16", "transB=1", 3, 16, 1, 12},
    {"padded", "Conv", "1,3,5,4", "8,3,3,3", "pads=[1,1,1,1]", 1, 3, 20, 8},
    {"strided", "Conv", "2,4,6,6", "6,4,5,5", "pads=[2,2,2,2] strides=[2,2]", 2, 4, 36, 6},
    {"grouped", "Conv", "1,8,3,3", "4,4,3,3", "pads=[1,1,1,1] group=2", 1, 8, 9, 4},
    {"depthwise", "Conv", "1,6,3,7", "6,1,5,5", "pads=[2,2,2,2] group=6", 1, 6, 21, 6},
    {"dilated", "Conv", "1,4,8", "5,4,3", "pads=[2,2] dilations=[2]", 1, 4, 8, 5},
    {"tiled", "ConvTranspose", "1,4,3,3", "4,5,2,2", "strides=[2,2]", 1, 4, 9, 5},
    {"transposed", "ConvTranspose", "1,4,3", "4,5,3", "strides=[3]", 1, 4, 3, 5},
};

struct net {
    const struct row *row;
    struct qd_mb b;
    struct qd_model *model;
    float x[512];
};

static struct net net_with(const struct row *row, bool corrected, enum qd_scheme weights)
{
    struct net n = {.row = row};
    struct qd_quant_options options = qd_quant_defaults();
    options.precision = QD_INT8;
    options.bias_correction = corrected;
    options.weight_scheme = weights;
    qd_mb_input(&n.b, "x", QD_F32, row->in);
    qd_mb_weights(&n.b, "w", row->w, 5, 0.5f);
    qd_mb_node(&n.b, row->op, "x w", "y", row->attributes);
    qd_mb_output(&n.b, "y", QD_F32,
                 strcmp(row->op, "Conv") && strcmp(row->op, "ConvTranspose") ? "?,?"
                 : qd_mb_shape(row->in).rank == 3                            ? "?,?,?"
                                                                             : "?,?,?,?");
    qd_mb_finish(&n.b, 13);
    n.model = qd_mb_load(&n.b, engine, &options, NULL);
    assert_non_null(n.model);
    for (int o = 0; o < row->outer; o++) /* multiples of the range's quantum, 1 / 255: nothing is lost in quantizing */
        for (int c = 0; c < row->channels; c++)
            for (int i = 0; i < row->inner; i++)
                n.x[(o * row->channels + c) * row->inner + i] = (float)(c == 0 ? 255 : c * 37 % 256) / 255.0f;
    return n;
}

static struct net net_new(const struct row *row, bool corrected) { return net_with(row, corrected, QD_SYMMETRIC); }

static void net_free(struct net *n)
{
    qd_model_unref(&n->model);
    qd_mb_free(&n->b);
}

/* The answer's mean by output channel, and its bytes when asked for. */
static void answer(struct net *n, const struct qd_infer_options *options, double *mean, float *bytes)
{
    struct qd_infer *infer = qd_mb_run(n->model, options, n->row->in, n->x);
    const struct qd_tensor *y = qd_infer_output(infer, 0);
    const int64_t elems = qd_tensor_elems(y), inner = qd_shape_span(&y->shape, 2, y->shape.rank);
    for (int j = 0; j < n->row->outputs; j++)
        mean[j] = 0;
    for (int64_t i = 0; i < elems; i++)
        mean[i / inner % n->row->outputs] += (double)((const float *)y->data)[i] * n->row->outputs / (double)elems;
    if (bytes)
        memcpy(bytes, y->data, (size_t)elems * sizeof *bytes);
    qd_infer_destroy(&infer);
}

static void teach(struct net *n, int times) { qd_mb_teach(n->model, n->row->in, n->x, times); }

/* As the server does. */
static bool correct(struct net *n)
{
    struct qd_correction *correction;
    struct qd_error error;
    if (!qd_model_correction_due(n->model))
        return false;
    assert_int_equal(qd_correction_create(n->model, &correction, &error), QD_OK);
    qd_correction_run(correction);
    return qd_correction_finish(&correction);
}

static uint64_t epoch_of(const struct net *n)
{
    struct qd_ranges_summary summary;
    qd_model_ranges(n->model, &summary);
    return summary.epoch;
}

static struct qd_correction_report report_of(const struct net *n)
{
    struct qd_correction_report report;
    qd_model_correction(n->model, &report);
    return report;
}

static double worst(const double *a, const double *b, int n)
{
    double most = 0;
    for (int i = 0; i < n; i++)
        most = fabs(a[i] - b[i]) > most ? fabs(a[i] - b[i]) : most;
    return most;
}

static void test_means_are_right_again(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2 * sizeof rows / sizeof rows[0]; k++) {
        const size_t r = k / 2;
        struct net n = net_with(&rows[r], true, k % 2 ? QD_ASYMMETRIC : QD_SYMMETRIC);
        struct qd_infer_options fp32 = qd_infer_defaults();
        double want[32], before[32], after[32];
        fp32.precision = QD_FP32;
        fp32.observe = false;
        teach(&n, 15);
        assert_false(correct(&n));
        answer(&n, NULL, before, NULL);
        answer(&n, &fp32, want, NULL);
        const uint64_t epoch = epoch_of(&n);
        assert_true(correct(&n));
        assert_int_equal(epoch_of(&n), epoch + 1);
        assert_int_equal(report_of(&n).layers, 1);
        answer(&n, NULL, after, NULL);
        double was = worst(before, want, rows[r].outputs), is = worst(after, want, rows[r].outputs);
        if (was < 5e-5 || is > 2e-6)
            fail_msg("%s %d: the mean was off by %g, is by %g", rows[r].label, (int)(k % 2), was, is);
        net_free(&n);
    }
}

static void test_epochs_keep_their_biases(void **state)
{
    (void)state;
    struct net n = net_new(&rows[2], true);
    float before[512], again[512], after[512];
    double mean[32];
    const size_t bytes = 8 * 20 * sizeof(float);
    teach(&n, 15);
    answer(&n, NULL, mean, before);
    struct qd_infer_options replay = qd_infer_defaults();
    replay.epoch = epoch_of(&n);
    replay.observe = false;
    assert_true(correct(&n));
    answer(&n, NULL, mean, after);
    answer(&n, &replay, mean, again);
    assert_memory_not_equal(before, after, bytes);
    assert_memory_equal(before, again, bytes);
    net_free(&n);
}

static void test_stationary_traffic_changes_nothing(void **state)
{
    (void)state;
    struct net n = net_new(&rows[0], true);
    uint64_t made = 0;
    for (int i = 0; i < 20000; i++) {
        teach(&n, 1);
        made += correct(&n);
    }
    assert_int_equal(made, 2); /* after 16 and 64 requests */
    assert_int_equal(report_of(&n).made, 2);
    for (size_t i = 0; i < 35; i++)
        n.x[i] = 1 - n.x[i];
    for (int i = 0; i < 20000; i++) {
        teach(&n, 1);
        made += correct(&n);
    }
    assert_in_range(made, 3, 8); /* other traffic: again */
    net_free(&n);
}

static void test_what_ends_it(void **state)
{
    (void)state;
    struct net n = net_new(&rows[0], true);
    struct qd_error error;
    struct qd_change *change;
    teach(&n, 16);
    assert_int_equal(qd_model_ranges_freeze(n.model, &error), QD_OK);
    assert_false(correct(&n));
    assert_int_equal(qd_model_ranges_unfreeze(n.model, &error), QD_OK);
    assert_true(correct(&n));
    assert_int_equal(qd_model_ranges_reset(n.model, &error), QD_OK);
    assert_int_equal(report_of(&n).layers, 0);
    teach(&n, 15);
    assert_false(correct(&n));
    teach(&n, 1);
    assert_true(correct(&n));

    struct qd_quant_options options = qd_model_options(
        n.model); /* another plan: biases of its own, from the same means */
    options.weight_granularity = QD_PER_TENSOR;
    assert_int_equal(qd_change_create(n.model, &options, &change, &error), QD_OK);
    assert_int_equal(qd_change_adopt(&change, &error), QD_OK);
    assert_int_equal(report_of(&n).layers, 0);
    assert_true(correct(&n));
    assert_int_equal(report_of(&n).layers, 1);

    options.bias_correction = false;
    assert_int_equal(qd_change_create(n.model, &options, &change, &error), QD_OK);
    assert_int_equal(qd_change_adopt(&change, &error), QD_OK);
    teach(&n, 100);
    assert_false(correct(&n));
    assert_int_equal(report_of(&n).layers, 0);
    net_free(&n);
}

static void test_a_plan_that_went_meanwhile(void **state)
{
    (void)state;
    struct net n = net_new(&rows[0], true);
    struct qd_error error;
    struct qd_change *change;
    struct qd_correction *correction;
    const struct qd_quant_options options = qd_model_options(n.model);
    teach(&n, 16);
    assert_int_equal(qd_correction_create(n.model, &correction, &error), QD_OK);
    assert_int_equal(qd_change_create(n.model, &options, &change, &error), QD_OK);
    assert_int_equal(qd_change_adopt(&change, &error), QD_OK);
    qd_correction_run(correction);
    assert_false(qd_correction_finish(&correction));
    assert_int_equal(report_of(&n).layers, 0);
    net_free(&n);
}

/* After the first 64, whichever of four requests comes round: each is averaged about as often. */
static void test_traffic_that_repeats_itself(void **state)
{
    (void)state;
    for (int period = 2; period <= 24; period *= 2 + (period == 4)) {
        struct net n = net_new(&rows[0], true);
        uint64_t before = 0, most = 0, sum = 0, seen[24] = {0};
        teach(&n, 64);
        for (int i = 0; i < 4800; i++) {
            before = report_of(&n).requests;
            teach(&n, 1);
            seen[i % period] += report_of(&n).requests - before;
        }
        for (int i = 0; i < period; i++) {
            sum += seen[i];
            most = seen[i] > most ? seen[i] : most;
        }
        assert_in_range(sum, 290, 310);
        assert_true(most * (uint64_t)period < 2 * sum);
        net_free(&n);
    }
}

static void run_in(struct net *n, enum qd_precision precision)
{
    struct qd_error error;
    struct qd_change *change;
    struct qd_quant_options options = qd_model_options(n->model);
    options.precision = precision;
    assert_int_equal(qd_change_create(n->model, &options, &change, &error), QD_OK);
    assert_int_equal(qd_change_adopt(&change, &error), QD_OK);
}

/* A layer that was in FP32 meanwhile is corrected at once by what it had seen; one that comes to INT8 for the first
 * time is not corrected by the one request it has seen since. */
static void test_a_layer_that_comes_back(void **state)
{
    (void)state;
    struct net n = net_new(&rows[0], true);
    teach(&n, 20);
    assert_true(correct(&n));
    run_in(&n, QD_FP32);
    teach(&n, 100);
    assert_false(correct(&n));
    assert_int_equal(report_of(&n).layers, 0);
    run_in(&n, QD_INT8);
    assert_true(correct(&n));
    assert_int_equal(report_of(&n).layers, 1);
    net_free(&n);

    n = net_new(&rows[0], true);
    run_in(&n, QD_FP32);
    teach(&n, 20);
    run_in(&n, QD_INT8);
    for (int i = 0; i < 15; i++) {
        teach(&n, 1);
        assert_false(correct(&n));
    }
    teach(&n, 1);
    assert_true(correct(&n));
    assert_int_equal(report_of(&n).layers, 1);
    assert_false(correct(&n));
    net_free(&n);
}

/* A second model goes on where the first one stopped, to the bit. */
static void test_kept_over_a_restart(void **state)
{
    (void)state;
    struct net a = net_new(&rows[4], true), b = net_new(&rows[4], true);
    struct qd_error error;
    struct qd_layer_correction layers[16];
    struct qd_range_state ranges[16];
    struct qd_ranges_summary summary;
    size_t count = 0, restored;
    float before[512] = {0}, after[512] = {0};
    double mean[32];
    teach(&a, 16);
    assert_true(correct(&a));
    answer(&a, NULL, mean, before);
    for (size_t i = 0; i < report_of(&a).steps; i++)
        count += qd_model_layer_correction(a.model, i, &layers[count]);
    assert_int_equal(count, 1);
    qd_model_ranges(a.model, &summary);
    for (size_t i = 0; i < summary.sites; i++)
        qd_model_range_state(a.model, i, &ranges[i]);
    assert_int_equal(qd_model_restore_corrections(b.model, layers, count, 17, 1, &error), QD_OK);
    assert_int_equal(
        qd_model_restore(b.model, ranges, summary.sites, summary.epoch, summary.requests, false, &restored, &error),
        QD_OK);
    answer(&b, NULL, mean, after);
    assert_memory_equal(before, after, sizeof before);
    assert_int_equal(report_of(&b).layers, 1);
    assert_int_equal(epoch_of(&b), epoch_of(&a));

    float bad[64] = {0};
    layers[0].mean_count--; /* what doesn't fit is passed over */
    assert_int_equal(qd_model_restore_corrections(b.model, layers, count, 17, 1, &error), QD_OK);
    layers[0].mean_count++;
    bad[3] = NAN;
    layers[0].mean = bad;
    assert_int_equal(qd_model_restore_corrections(b.model, layers, count, 17, 1, &error), QD_OK);
    assert_int_equal(qd_model_ranges_freeze(b.model, &error), QD_OK); /* an epoch: without any bias now */
    assert_int_equal(report_of(&b).layers, 0);
    net_free(&a);
    net_free(&b);
}

/* Requests that are measured and not learned from. */
static void measure(struct net *n, int times)
{
    struct qd_infer_options options = qd_infer_defaults();
    options.observe = false;
    for (int i = 0; i < times; i++) {
        struct qd_error error;
        struct qd_shadow *shadow;
        struct qd_infer *infer = qd_mb_run(n->model, &options, n->row->in, n->x);
        assert_int_equal(qd_shadow_create(infer, &shadow, &error), QD_OK);
        qd_infer_destroy(&infer);
        qd_shadow_run(shadow);
        qd_shadow_finish(&shadow);
    }
}

/* What the means were learned from is answered better by them; inputs of one channel alone are answered worse. */
static void test_undone_where_it_harms(void **state)
{
    (void)state;
    struct net n = net_new(&rows[0], true);
    struct qd_error error;
    double plain[32], corrected[32];
    teach(&n, 15);
    measure(&n, 3);
    assert_int_equal(report_of(&n).compared, 0); /* nothing to compare yet */
    teach(&n, 1);
    assert_true(correct(&n));
    measure(&n, 100);
    assert_false(qd_model_correction_harms(n.model));
    assert_int_equal(report_of(&n).compared, 64);
    assert_true(report_of(&n).with < 0.5 * report_of(&n).without);

    teach(&n, 48);
    assert_true(correct(&n)); /* others: judged anew */
    assert_int_equal(report_of(&n).compared, 0);
    for (int i = 0; i < 35; i++)
        n.x[i] = i % 7 == 1 ? n.x[i] : 0;
    const uint64_t epoch = epoch_of(&n);
    answer(&n, NULL, corrected, NULL);
    measure(&n, 15);
    assert_false(qd_model_correction_harms(n.model));
    measure(&n, 1);
    assert_true(report_of(&n).with > report_of(&n).without);
    assert_true(qd_model_correction_harms(n.model));
    assert_int_equal(qd_model_ranges_freeze(n.model, &error), QD_OK); /* frozen models keep what they have */
    assert_false(qd_model_correction_harms(n.model));
    assert_int_equal(qd_model_ranges_unfreeze(n.model, &error), QD_OK);
    assert_true(qd_model_correction_undo(n.model));
    assert_false(qd_model_correction_harms(n.model));
    assert_true(epoch_of(&n) > epoch && report_of(&n).undone && report_of(&n).layers == 0);
    answer(&n, NULL, plain, NULL);
    assert_true(worst(plain, corrected, n.row->outputs) > 0);
    teach(&n, 400);
    assert_false(correct(&n));
    assert_int_equal(report_of(&n).layers, 0);

    assert_int_equal(qd_model_ranges_reset(n.model, &error), QD_OK);
    teach(&n, 16);
    assert_true(correct(&n));
    net_free(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_means_are_right_again),
        cmocka_unit_test(test_epochs_keep_their_biases),
        cmocka_unit_test(test_stationary_traffic_changes_nothing),
        cmocka_unit_test(test_what_ends_it),
        cmocka_unit_test(test_kept_over_a_restart),
        cmocka_unit_test(test_a_plan_that_went_meanwhile),
        cmocka_unit_test(test_undone_where_it_harms),
        cmocka_unit_test(test_a_layer_that_comes_back),
        cmocka_unit_test(test_traffic_that_repeats_itself),
    };
    engine = qd_mb_engine(1);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    qd_engine_destroy(&engine);
    return failed;
}
