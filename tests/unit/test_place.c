/* Placing: which tensors are handed over as integers, which sites there are and who reads them, what stays FP32 and
 * why. */
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <math.h>

static struct qd_engine *engine;

/* "Conv(a)8 MaxPool(b)8 ..." : every step with its precision in bits. */
static void steps_text(struct qd_model *model, char *text, size_t room)
{
    struct qd_plan_report plan;
    struct qd_step_report step;
    size_t n = 0;
    qd_model_plan(model, &plan);
    text[0] = 0;
    for (size_t i = 0; i < plan.steps && n < room; i++) {
        qd_model_step(model, i, &step);
        n += (size_t)snprintf(text + n, room - n, "%s%s(%s)%d", i ? " " : "", step.op, step.node,
                              step.precision == QD_INT8 ? 8 : 32);
    }
}

/* "x:a b:c,d": every site with its consumers. */
static void sites_text(struct qd_model *model, char *text, size_t room)
{
    struct qd_ranges_summary summary;
    struct qd_range_report range;
    size_t n = 0;
    qd_model_ranges(model, &summary);
    text[0] = 0;
    for (size_t i = 0; i < summary.sites && n < room; i++) {
        qd_model_range(model, i, &range);
        n += (size_t)snprintf(text + n, room - n, "%s%s:", i ? " " : "", range.name);
        for (size_t c = 0; c < range.consumer_count && n < room; c++)
            n += (size_t)snprintf(text + n, room - n, "%s%s", c ? "," : "", range.consumers[c]);
    }
}

struct row {
    const char *label, *in;
    struct {
        const char *op, *inputs, *output, *attributes;
    } nodes[6];
    const char *outputs[3];
    const char *steps, *sites;
};

#define CONV_A                                                                                                         \
    {                                                                                                                  \
        "Conv", "x w3", "a", "pads=[1,1,1,1]"                                                                          \
    }
static const struct row rows[] = {
    {.label = "two layers",
     .in = "1,3,8,8",
     .nodes = {CONV_A, {"Conv", "a w4", "b", NULL}},
     .outputs = {"b"},
     .steps = "QuantizeLinear(a)8 Conv(a)8 Conv(b)8 Transpose(b)32",
     .sites = "x:a a:b"},
    {.label = "pool passes",
     .in = "1,3,8,8",
     .nodes = {CONV_A, {"MaxPool", "a", "p", "kernel_shape=[2,2] strides=[2,2]"}, {"Conv", "p w4", "b", NULL}},
     .outputs = {"b"},
     .steps = "QuantizeLinear(a)8 Conv(a)8 MaxPool(p)8 Conv(b)8 Transpose(b)32",
     .sites = "x:a a:p,b"},
    {.label = "flatten passes",
     .in = "1,3,2,2",
     .nodes = {CONV_A, {"Flatten", "a", "f", NULL}, {"Gemm", "f g16", "b", NULL}},
     .outputs = {"b"},
     .steps = "QuantizeLinear(a)8 Conv(a)8 Transpose(f)8 Flatten(f)8 Gemm(b)8",
     .sites = "x:a a:f,b"},
    {.label = "also read as floats",
     .in = "1,3,8,8",
     .nodes = {CONV_A, {"Conv", "a w4", "b", NULL}, {"Sin", "a", "t", NULL}},
     .outputs = {"b", "t"},
     .steps = "QuantizeLinear(a)8 Conv(a)8 QuantizeLinear(b)8 Conv(b)8 Transpose(t)32 Sin(t)32 Transpose(t)32",
     .sites = "x:a a:b"},
    {.label = "also an output",
     .in = "1,3,8,8",
     .nodes = {CONV_A, {"Conv", "a w4", "b", NULL}},
     .outputs = {"b", "a"},
     .steps = NULL,
     .sites = "x:a a:b"},
    {.label = "two integer readers",
     .in = "1,3,8,8",
     .nodes = {CONV_A, {"Conv", "a w4", "b", NULL}, {"Conv", "a w4", "d", NULL}},
     .outputs = {"b", "d"},
     .steps = NULL,
     .sites = "x:a a:b,d"},
    {.label = "one quantize for both",
     .in = "1,3,8,8",
     .nodes = {CONV_A, {"Conv", "x w3", "b", NULL}},
     .outputs = {"a", "b"},
     .steps = NULL,
     .sites = "x:a,b"},
    {.label = "pool with two readers",
     .in = "1,3,8,8",
     .nodes =
         {CONV_A, {"MaxPool", "a", "p", "kernel_shape=[2,2]"}, {"Conv", "p w4", "b", NULL}, {"Sin", "p", "t", NULL}},
     .outputs = {"b", "t"},
     .steps = NULL,
     .sites = "x:a p:b"},
    {.label = "nothing linear",
     .in = "1,3,8,8",
     .nodes = {{"Sin", "x", "t", NULL}},
     .outputs = {"t"},
     .steps = "Sin(t)32",
     .sites = ""},
    {.label = "float between",
     .in = "2,4",
     .nodes = {{"MatMul", "x m44", "a", NULL}, {"Hardmax", "a", "s", NULL}, {"Gemm", "s m44", "b", NULL}},
     .outputs = {"b"},
     .steps = "QuantizeLinear(a)8 MatMul(a)8 Hardmax(s)32 QuantizeLinear(b)8 Gemm(b)8",
     .sites = "x:a s:b"},
};

static struct qd_mb build(const struct row *row)
{
    struct qd_mb b = {0};
    qd_mb_input(&b, "x", QD_F32, row->in);
    qd_mb_weights(&b, "w3", "4,3,3,3", 1, 0.3f);
    qd_mb_weights(&b, "w4", "5,4,3,3", 2, 0.3f);
    qd_mb_weights(&b, "g16", "16,3", 3, 0.3f);
    qd_mb_weights(&b, "m44", "4,4", 4, 0.3f);
    for (int i = 0; i < 6 && row->nodes[i].op; i++)
        qd_mb_node(&b, row->nodes[i].op, row->nodes[i].inputs, row->nodes[i].output, row->nodes[i].attributes);
    for (int i = 0; i < 3 && row->outputs[i]; i++)
        qd_mb_output(&b, row->outputs[i], QD_F32, "");
    qd_mb_finish(&b, 13);
    return b;
}

/* The INT8 answer lies near the FP32 one: the forms are not only listed, they carry the numbers. */
static void assert_close(const struct row *row, struct qd_model *model)
{
    static float x[4096];
    struct qd_infer_options fp32 = qd_infer_defaults();
    fp32.precision = QD_FP32;
    qd_mb_fill(x, 4096, 7, 1);
    struct qd_infer *a = qd_mb_run(model, NULL, row->in, x), *b = qd_mb_run(model, &fp32, row->in, x);
    for (size_t o = 0; o < qd_model_output_count(model); o++) {
        const struct qd_tensor *p = qd_infer_output(a, o), *q = qd_infer_output(b, o);
        double noise = 0, signal = 0;
        assert_true(qd_shape_equal(&p->shape, &q->shape) && p->layout == QD_PLAIN && q->layout == QD_PLAIN);
        for (int64_t i = 0; i < qd_tensor_elems(p); i++) {
            double want = (double)((float *)q->data)[i], got = (double)((float *)p->data)[i];
            noise += (got - want) * (got - want);
            signal += want * want;
        }
        if (!(signal > 0 && noise < signal * 1e-3))
            fail_msg("%s: output %zu is off by %g of %g", row->label, o, noise, signal);
    }
    qd_infer_destroy(&a);
    qd_infer_destroy(&b);
}

static void test_rows(void **state)
{
    (void)state;
    char text[512];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct qd_mb b = build(&rows[i]);
        struct qd_model *model = qd_mb_load(&b, engine, NULL, NULL);
        assert_non_null(model);
        steps_text(model, text, sizeof text);
        if (rows[i].steps && strcmp(text, rows[i].steps) != 0)
            fail_msg("%s: steps are\n  %s\nwant\n  %s", rows[i].label, text, rows[i].steps);
        sites_text(model, text, sizeof text);
        if (strcmp(text, rows[i].sites) != 0)
            fail_msg("%s: sites are '%s', want '%s'", rows[i].label, text, rows[i].sites);
        assert_close(&rows[i], model);
        qd_model_unref(&model);
        qd_mb_free(&b);
    }
}

/* Layers that can't be integers stay FP32 and say why. */
static void refuses(const char *shape, size_t k, float poison, const char *reason)
{
    struct qd_mb b = {0};
    struct qd_plan_report plan;
    struct qd_step_report step;
    float *w = test_calloc(2 * k, sizeof *w);
    char in[32];
    qd_mb_fill(w, 2 * k, 3, 0.01f);
    w[k + 1] = poison;
    snprintf(in, sizeof in, "1,%zu", k);
    qd_mb_input(&b, "x", QD_F32, in);
    qd_mb_constant(&b, "w", QD_F32, shape, w);
    qd_mb_node(&b, "MatMul", "x w", "a", NULL);
    qd_mb_output(&b, "a", QD_F32, "1,2");
    qd_mb_finish(&b, 13);
    struct qd_model *model = qd_mb_load(&b, engine, NULL, NULL);
    assert_non_null(model);
    qd_model_plan(model, &plan);
    assert_int_equal(plan.steps, reason ? 1 : 2);
    qd_model_step(model, plan.steps - 1, &step);
    assert_int_equal(step.precision, reason ? QD_FP32 : QD_INT8);
    assert_int_equal(step.weight_bits, reason ? 32 : 8);
    assert_int_equal(step.macs, 2 * k);
    assert_int_equal(plan.macs[reason ? QD_FP32 : QD_INT8], 2 * k);
    assert_non_null(strstr(step.reason, reason ? reason : "constant weights"));
    qd_model_unref(&model);
    qd_mb_free(&b);
    test_free(w);
}

static void test_reasons(void **state)
{
    (void)state;
    refuses("66000,2", 66000, 0, NULL);
    refuses("66001,2", 66001, 0, "too deep");
    refuses("8,2", 8, NAN, "not finite");
    refuses("8,2", 8, INFINITY, "not finite");
    refuses("8,2", 8, 1, NULL);
}

static void test_fp32_plan(void **state)
{
    (void)state;
    char text[512];
    struct qd_quant_options options = qd_quant_defaults();
    struct qd_step_report step;
    struct qd_mb b = build(&rows[1]);
    options.precision = QD_FP32;
    struct qd_model *model = qd_mb_load(&b, engine, &options, NULL);
    assert_non_null(model);
    steps_text(model, text, sizeof text);
    assert_null(strchr(text, '8'));
    sites_text(model, text, sizeof text);
    assert_string_equal(text, "");
    qd_model_step(model, 1, &step);
    assert_string_equal(step.op, "Conv");
    assert_string_equal(step.reason, "full precision was asked for");
    qd_model_unref(&model);
    qd_mb_free(&b);
}

/* Pools and the like have integers because their neighbours do; pinned, they have floats, and their neighbours stay. */
static void test_followers_can_be_pinned(void **state)
{
    (void)state;
    static const struct row row = {
        .in = "1,3,8,8",
        .nodes = {CONV_A, {"AveragePool", "a", "p", "kernel_shape=[2,2] strides=[2,2]"}, {"Conv", "p w4", "b", NULL}},
        .outputs = {"b"}};
    static const struct {
        enum qd_precision pin;
        const char *steps, *sites;
    } cases[] = {
        {QD_PRECISION_AUTO, "QuantizeLinear(a)8 Conv(a)8 AveragePool(p)8 Conv(b)8 Transpose(b)32", "x:a a:p p:b"},
        {QD_FP32, "QuantizeLinear(a)8 Conv(a)8 AveragePool(p)32 QuantizeLinear(b)8 Conv(b)8 Transpose(b)32", "x:a p:b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        struct qd_quant_options options = qd_quant_defaults();
        const struct qd_layer_pin pin = {"p", cases[i].pin, QD_PIN_ASKED};
        struct qd_step_report step;
        struct qd_mb b = build(&row);
        options.precision = QD_INT8;
        options.pins = &pin;
        options.pin_count = 1;
        struct qd_model *model = qd_mb_load(&b, engine, &options, NULL);
        assert_non_null(model);
        steps_text(model, text, sizeof text);
        assert_string_equal(text, cases[i].steps);
        sites_text(model, text, sizeof text);
        assert_string_equal(text, cases[i].sites);
        qd_model_step(model, 2, &step);
        assert_int_equal(step.pinned, cases[i].pin == QD_FP32);
        assert_int_equal(step.follows, cases[i].pin != QD_FP32);
        qd_model_unref(&model);
        qd_mb_free(&b);
    }
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
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_fp32_plan),
        cmocka_unit_test(test_followers_can_be_pinned),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
