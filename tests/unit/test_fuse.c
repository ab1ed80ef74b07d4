/* Fusing: what is merged gives what the separate nodes give, and nothing is merged that must not be. The separate nodes
 * come from the same graph with every intermediate value made an output. */
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <math.h>

static struct qd_engine *engine;

/* One graph: `op` on x with w (and c), then up to three nodes, each reading the one before. Values are a, b, d, e. */
struct chain {
    const char *label, *op, *inputs, *attributes, *in, *w;
    struct {
        const char *op, *inputs, *attributes;
    } next[3];
    const char *fused; /* what is merged into the first, "" for nothing */
    const char *also;  /* more outputs */
    const char *value; /* shape declared for a, or NULL */
};

#define CONV   .op = "Conv", .inputs = "x w c", .attributes = "pads=[1,1,1,1]", .in = "2,3,6,5", .w = "4,3,3,3"
#define GEMM   .op = "Gemm", .inputs = "x w2", .attributes = "transB=1", .in = "3,6", .w = "4,6"
#define MATMUL .op = "MatMul", .inputs = "x wm", .in = "2,5,6", .w = "6,4"

static const struct chain chains[] = {
    {.label = "BN", CONV, .next = {{"BatchNormalization", "a s t m v", "epsilon=0.01"}}, .fused = "b"},
    {.label = "BN Relu",
     CONV,
     .next = {{"BatchNormalization", "a s t m v", NULL}, {"Relu", "b", NULL}},
     .fused = "b,d"},
    {.label = "BN BN Relu",
     CONV,
     .next = {{"BatchNormalization", "a s t m v", NULL},
              {"BatchNormalization", "b t s m v", NULL},
              {"Relu", "d", NULL}},
     .fused = "b,d,e"},
    {.label = "Mul Add Clip",
     CONV,
     .next = {{"Mul", "a k", NULL}, {"Add", "k b", NULL}, {"Clip", "d lo hi", NULL}},
     .value = "2,4,6,5",
     .fused = "b,d,e"},
    {.label = "Sub Div",
     CONV,
     .next = {{"Sub", "a k", NULL}, {"Div", "b k", NULL}},
     .fused = "b,d",
     .value = "2,4,6,5"},
    {.label = "scalars",
     CONV,
     .next = {{"Mul", "a one", NULL}, {"Sub", "b one", NULL}, {"Clip", "d - hi", NULL}},
     .fused = "b,d,e"},
    {.label = "Clip lower only", CONV, .next = {{"Clip", "a lo", NULL}}, .fused = "b"},
    {.label = "Gemm Add Relu", GEMM, .next = {{"Add", "a row", NULL}, {"Relu", "b", NULL}}, .fused = "b,d"},
    {.label = "Gemm with alpha, beta",
     .op = "Gemm",
     .inputs = "x w2 c",
     .attributes = "transB=1 alpha=0.5 beta=2.5",
     .in = "3,6",
     .w = "4,6",
     .next = {{"Add", "row a", NULL}, {"Relu", "b", NULL}},
     .fused = "b,d"},
    {.label = "MatMul Add",
     MATMUL,
     .next = {{"Add", "row a", NULL}, {"Mul", "b row", NULL}, {"Relu", "d", NULL}},
     .fused = "b,d,e"},
    /* not merged */
    {.label = "read twice", CONV, .next = {{"Add", "a a", NULL}}, .fused = ""},
    {.label = "read by two", CONV, .next = {{"Relu", "a", NULL}, {"Add", "a b", NULL}}, .fused = ""},
    {.label = "an output", CONV, .next = {{"Relu", "a", NULL}}, .also = "a", .fused = ""},
    {.label = "an output later",
     CONV,
     .next = {{"BatchNormalization", "a s t m v", NULL}, {"Relu", "b", NULL}},
     .also = "b",
     .fused = "b"},
    {.label = "along the width", CONV, .next = {{"Add", "a width", NULL}}, .fused = "", .value = "2,4,6,5"},
    {.label = "a width of as many",
     .op = "Conv",
     .inputs = "x w c",
     .attributes = "pads=[1,1,1,1]",
     .in = "2,3,6,4",
     .w = "4,3,3,3",
     .next = {{"Add", "a row", NULL}},
     .fused = "",
     .value = "2,4,6,4"},
    {.label = "whole tensor", CONV, .next = {{"Mul", "a whole", NULL}}, .fused = "", .value = "2,4,6,5"},
    {.label = "along the rows", MATMUL, .next = {{"Add", "a column", NULL}}, .fused = "", .value = "2,5,4"},
    {.label = "not a constant", CONV, .next = {{"Add", "a y", NULL}}, .fused = ""},
    {.label = "constant minus", CONV, .next = {{"Sub", "k a", NULL}}, .fused = "", .value = "2,4,6,5"},
    {.label = "constant over", CONV, .next = {{"Div", "k a", NULL}}, .fused = "", .value = "2,4,6,5"},
    {.label = "after the clip",
     CONV,
     .next = {{"Relu", "a", NULL}, {"Mul", "b k", NULL}, {"Relu", "d", NULL}},
     .fused = "b",
     .value = "2,4,6,5"},
    {.label = "bounds crossed", CONV, .next = {{"Clip", "a hi lo", NULL}}, .fused = ""},
    {.label = "division by zero", CONV, .next = {{"Div", "a zeros", NULL}}, .fused = "", .value = "2,4,6,5"},
    {.label = "BN of a Gemm", GEMM, .next = {{"BatchNormalization", "a s t m v", NULL}}, .fused = ""},
    {.label = "a second activation", CONV, .next = {{"Tanh", "a", NULL}, {"Relu", "b", NULL}}, .fused = "b"},
    {.label = "SiLU of another slope", GEMM, .next = {{"Softplus", "a", NULL}}, .fused = ""},
    {.label = "HardSwish, scaled and shifted",
     CONV,
     .next = {{"HardSwish", "a", NULL}, {"Mul", "b one", NULL}, {"Add", "one d", NULL}},
     .fused = "b,d,e"},
    {.label = "HardSigmoid", GEMM, .next = {{"HardSigmoid", "a", "alpha=0.3 beta=0.4"}}, .fused = "b"},
    {.label = "Sigmoid", MATMUL, .next = {{"Sigmoid", "a", NULL}}, .fused = "b"},
    {.label = "LeakyRelu", CONV, .next = {{"LeakyRelu", "a", "alpha=0.25"}}, .fused = "b"},
    {.label = "shifted, then scaled",
     CONV,
     .next = {{"Relu", "a", NULL}, {"Add", "b one", NULL}, {"Mul", "d one", NULL}},
     .fused = "b,d"},
    {.label = "sum, Relu",
     .op = "Conv",
     .inputs = "x w33 -",
     .attributes = "pads=[1,1,1,1]",
     .in = "2,3,6,5",
     .next = {{"Add", "x a", NULL}, {"Relu", "b", NULL}},
     .fused = "b,d"},
    {.label = "sum of another size",
     .op = "Conv",
     .inputs = "x w33 -",
     .in = "2,3,6,5",
     .next = {{"Add", "a corner", NULL}},
     .fused = ""},
};

static struct qd_mb build(const struct chain *c, bool all_outputs)
{
    static const char *const names[] = {"a", "b", "d", "e"};
    static const float lo = -0.5f, hi = 0.75f, one = 1.5f, zeros[4] = {0, 0, 0, 0};
    static const float variance[4] = {0.5f, 1, 2, 0.1f};
    struct qd_mb b = {0};
    int count = 0;
    qd_mb_input(&b, "x", QD_F32, c->in);
    qd_mb_node(&b, c->op, c->inputs, "a", c->attributes);
    for (; count < 3 && c->next[count].op; count++)
        qd_mb_node(&b, c->next[count].op, c->next[count].inputs, names[count + 1], c->next[count].attributes);
    qd_mb_weights(&b, "w", "4,3,3,3", 1, 0.5f);
    qd_mb_weights(&b, "w2", "4,6", 2, 0.5f);
    qd_mb_weights(&b, "w33", "3,3,3,3", 15, 0.5f);
    qd_mb_weights(&b, "corner", "1,1,4,3", 16, 0.5f);
    qd_mb_weights(&b, "wm", "6,4", 3, 0.5f);
    qd_mb_weights(&b, "c", "4", 4, 1);
    qd_mb_weights(&b, "s", "4", 5, 1);
    qd_mb_weights(&b, "t", "4", 6, 1);
    qd_mb_weights(&b, "m", "4", 7, 1);
    qd_mb_constant(&b, "v", QD_F32, "4", variance);
    qd_mb_weights(&b, "k", strcmp(c->op, "Conv") == 0 ? "1,4,1,1" : "4", 9, 1);
    qd_mb_weights(&b, "row", "4", 10, 1);
    qd_mb_weights(&b, "column", "5,1", 11, 1);
    qd_mb_weights(&b, "width", "5", 12, 1);
    qd_mb_weights(&b, "whole", "2,4,6,5", 13, 1);
    qd_mb_constant(&b, "lo", QD_F32, "", &lo);
    qd_mb_constant(&b, "hi", QD_F32, "", &hi);
    qd_mb_constant(&b, "one", QD_F32, "1", &one);
    qd_mb_constant(&b, "zeros", QD_F32, "4,1,1", zeros);
    if (strstr(c->label, "not a constant")) {
        qd_mb_input(&b, "y", QD_F32, "4,1,1");
        qd_mb_weights(&b, "y", "4,1,1", 14, 1); /* a default the request may replace */
    }
    if (c->value)
        qd_mb_value(&b, "a", QD_F32, c->value);
    qd_mb_output(&b, names[count], QD_F32, "");
    if (c->also && !all_outputs)
        qd_mb_output(&b, c->also, QD_F32, "");
    for (int i = 0; all_outputs && i < count; i++)
        qd_mb_output(&b, names[i], QD_F32, "");
    qd_mb_finish(&b, 15);
    return b;
}

/* Output 0 of the chain. */
static size_t answer(const struct chain *c, bool separate, float *out, size_t room, char *fused, size_t fused_room)
{
    struct qd_quant_options options = qd_quant_defaults();
    struct qd_step_report step;
    struct qd_plan_report plan;
    float x[256];
    struct qd_mb b = build(c, separate);
    options.precision = QD_FP32;
    struct qd_model *model = qd_mb_load(&b, engine, &options, NULL);
    assert_non_null(model);
    qd_mb_fill(x, 256, 42, 2);
    struct qd_infer *infer = qd_mb_run(model, NULL, c->in, x);
    const struct qd_tensor *t = qd_infer_output(infer, 0);
    size_t n = (size_t)qd_tensor_elems(t);
    assert_true(n <= room);
    memcpy(out, t->data, n * sizeof *out);
    qd_model_plan(model, &plan);
    for (size_t i = 0; i < plan.steps; i++) {
        qd_model_step(model, i, &step);
        if (strcmp(step.node, "a") == 0 && strcmp(step.op, c->op) == 0)
            snprintf(fused, fused_room, "%s", step.fused);
    }
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_mb_free(&b);
    return n;
}

static void test_chains(void **state)
{
    (void)state;
    static float got[4096], want[4096];
    for (size_t i = 0; i < sizeof chains / sizeof chains[0]; i++) {
        char fused[64] = "none", separate[64] = "none";
        size_t n = answer(&chains[i], false, got, 4096, fused, sizeof fused);
        size_t m = answer(&chains[i], true, want, 4096, separate, sizeof separate);
        if (strcmp(fused, chains[i].fused) != 0 || strcmp(separate, "") != 0 || n != m || n < 6)
            fail_msg("%s: merged '%s', want '%s'; '%s' where all are outputs; %zu and %zu elements", chains[i].label,
                     fused, chains[i].fused, separate, n, m);
        for (size_t e = 0; e < n; e++) {
            bool same = isfinite(want[e]) ? fabsf(got[e] - want[e]) <= 1e-5f * (1 + fabsf(want[e])) * 4
                                          : isnan(want[e]) == isnan(got[e]) && isfinite(got[e]) == 0;
            if (!same)
                fail_msg("%s: element %zu is %.9g, separate nodes give %.9g", chains[i].label, e, (double)got[e],
                         (double)want[e]);
        }
    }
}

/* Clip's bounds are attributes before opset 11. */
static void test_clip_of_opset_6(void **state)
{
    (void)state;
    struct qd_mb b = {0};
    struct qd_step_report step;
    struct qd_plan_report plan;
    float x[3] = {-9, 0.25f, 9}, w[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    qd_mb_input(&b, "x", QD_F32, "1,3");
    qd_mb_constant(&b, "w", QD_F32, "3,3", w);
    qd_mb_node(&b, "MatMul", "x w", "a", NULL);
    qd_mb_node(&b, "Clip", "a", "b", "min=-1.5 max=2.5");
    qd_mb_output(&b, "b", QD_F32, "1,3");
    qd_mb_finish(&b, 10);
    struct qd_quant_options options = qd_quant_defaults();
    options.precision = QD_FP32;
    struct qd_model *model = qd_mb_load(&b, engine, &options, NULL);
    assert_non_null(model);
    struct qd_infer *infer = qd_mb_run(model, NULL, "1,3", x);
    const float *out = qd_infer_output(infer, 0)->data;
    assert_true(out[0] == -1.5f && out[1] == 0.25f && out[2] == 2.5f);
    qd_model_plan(model, &plan);
    assert_int_equal(plan.steps, 1);
    qd_model_step(model, 0, &step);
    assert_string_equal(step.fused, "b");
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_mb_free(&b);
}

/* Its statistics are the batch's, so it stays a step of its own. */
static void test_training_batch_norm_is_not_merged(void **state)
{
    (void)state;
    static const struct chain training = {
        .label = "training BN", CONV, .next = {{"BatchNormalization", "a s t m v", "training_mode=1"}}};
    struct qd_error error = {0};
    struct qd_mb b = build(&training, false);
    struct qd_model *model = qd_mb_load(&b, engine, NULL, &error);
    assert_non_null(model);
    struct qd_plan_report plan;
    bool own_step = false;
    qd_model_plan(model, &plan);
    for (size_t i = 0; i < plan.steps; i++) {
        struct qd_step_report step;
        qd_model_step(model, i, &step);
        own_step = own_step || strcmp(step.op, "BatchNormalization") == 0;
        assert_string_equal(step.fused, "");
    }
    assert_true(own_step);
    qd_model_unref(&model);
    qd_mb_free(&b);
}

/* A convolution's bias must fit; one number is no vector of four. */
static void test_wrong_bias_is_refused(void **state)
{
    (void)state;
    struct qd_mb b = {0};
    struct qd_error error = {0};
    qd_mb_input(&b, "x", QD_F32, "1,3,6,5");
    qd_mb_weights(&b, "w", "4,3,3,3", 1, 1);
    qd_mb_weights(&b, "c", "1", 1, 1);
    qd_mb_node(&b, "Conv", "x w c", "a", NULL);
    qd_mb_output(&b, "a", QD_F32, "");
    qd_mb_finish(&b, 13);
    struct qd_model *model = qd_mb_load(&b, engine, NULL, &error);
    if (model) { /* or when shapes are known */
        struct qd_infer_options options = qd_infer_defaults();
        struct qd_shape shape = qd_mb_shape("1,3,6,5");
        struct qd_infer *infer;
        void *data;
        assert_int_equal(qd_infer_create(model, &options, &infer, &error), QD_OK);
        assert_int_equal(qd_infer_input_alloc(infer, 0, QD_F32, &shape, &data, &error), QD_OK);
        assert_int_equal(qd_infer_prepare(infer, &error), QD_ERR_SHAPE);
        qd_infer_destroy(&infer);
        qd_model_unref(&model);
    }
    assert_non_null(strstr(error.text, "bias"));
    qd_mb_free(&b);
}

static int setup(void **state)
{
    (void)state;
    engine = qd_mb_engine(1);
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
        cmocka_unit_test(test_chains),
        cmocka_unit_test(test_clip_of_opset_6),
        cmocka_unit_test(test_training_batch_norm_is_not_merged),
        cmocka_unit_test(test_wrong_bias_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
