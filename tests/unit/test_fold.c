/* Constant folding: what depends on constants only is computed once and gone from the plan; what does not stays. */
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct qd_engine *engine;

static size_t steps(struct qd_model *model)
{
    struct qd_plan_report plan;
    qd_model_plan(model, &plan);
    return plan.steps;
}

/* Weights made by nodes: Transpose, Mul; then they count as constant weights of an INT8 layer. */
static void test_computed_weights(void **state)
{
    (void)state;
    static const float w[6] = {1, 2, 3, 4, 5, 6}, two = 2, x[2] = {1, -1};
    struct qd_mb b = {0};
    struct qd_step_report step;
    struct qd_infer_options fp32 = {.precision = QD_FP32};
    qd_mb_input(&b, "x", QD_F32, "1,2");
    qd_mb_constant(&b, "w", QD_F32, "3,2", w);
    qd_mb_constant(&b, "two", QD_F32, "", &two);
    qd_mb_node(&b, "Transpose", "w", "wt", "perm=[1,0]");
    qd_mb_node(&b, "Mul", "wt two", "w2", NULL);
    qd_mb_node(&b, "MatMul", "x w2", "y", NULL);
    qd_mb_output(&b, "y", QD_F32, "1,3");
    qd_mb_finish(&b, 13);
    struct qd_model *model = qd_mb_load(&b, engine, NULL, NULL);
    assert_non_null(model);
    assert_int_equal(steps(model), 2);
    qd_model_step(model, 1, &step);
    assert_string_equal(step.op, "MatMul");
    assert_int_equal(step.precision, QD_INT8);
    struct qd_infer *infer = qd_mb_run(model, &fp32, "1,2", x);
    const float *y = qd_infer_output(infer, 0)->data;
    for (int j = 0; j < 3; j++)
        assert_true(y[j] == 2 * (w[2 * j] - w[2 * j + 1]));
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_mb_free(&b);
}

/* A default of an input is no constant: the request may give another. */
static void test_defaults_are_not_folded(void **state)
{
    (void)state;
    for (int input = 0; input < 2; input++) {
        static const float one[2] = {1, 2}, x[2] = {0, 0};
        struct qd_mb b = {0};
        qd_mb_input(&b, "x", QD_F32, "2");
        if (input)
            qd_mb_input(&b, "k", QD_F32, "2");
        qd_mb_constant(&b, "k", QD_F32, "2", one);
        qd_mb_node(&b, "Floor", "k", "n", NULL);
        qd_mb_node(&b, "Add", "x n", "y", NULL);
        qd_mb_output(&b, "y", QD_F32, "2");
        qd_mb_finish(&b, 13);
        struct qd_model *model = qd_mb_load(&b, engine, NULL, NULL);
        assert_int_equal(steps(model), input ? 2 : 1);
        struct qd_infer *infer = qd_mb_run(model, NULL, "2", x);
        const float *y = qd_infer_output(infer, 0)->data;
        assert_true(y[0] == 1 && y[1] == 2);
        qd_infer_destroy(&infer);
        qd_model_unref(&model);
        qd_mb_free(&b);
    }
}

/* Shape of a known shape folds; of an unknown one it does not. The model's output may itself be folded. */
static void test_shapes(void **state)
{
    (void)state;
    for (int known = 0; known < 2; known++) {
        struct qd_mb b = {0};
        float x[6] = {0};
        qd_mb_input(&b, "x", QD_F32, known ? "2,3" : "N,3");
        qd_mb_node(&b, "Shape", "x", "s", NULL);
        qd_mb_node(&b, "Add", "s s", "y", NULL);
        qd_mb_output(&b, "y", QD_I64, "2");
        qd_mb_finish(&b, 13);
        struct qd_model *model = qd_mb_load(&b, engine, NULL, NULL);
        assert_int_equal(steps(model), known ? 0 : 2);
        struct qd_infer *infer = qd_mb_run(model, NULL, "2,3", x);
        const int64_t *y = qd_infer_output(infer, 0)->data;
        assert_true(y[0] == 4 && y[1] == 6);
        qd_infer_destroy(&infer);
        qd_model_unref(&model);
        qd_mb_free(&b);
    }
}

/* An impossible computation among constants is found when the model is loaded, by name. */
static void test_mistakes_are_named(void **state)
{
    (void)state;
    static const int64_t nine = 9;
    struct qd_mb b = {0};
    struct qd_error error = {0};
    qd_mb_input(&b, "x", QD_F32, "2");
    qd_mb_weights(&b, "k", "4", 1, 1);
    qd_mb_constant(&b, "nine", QD_I64, "", &nine);
    qd_mb_node(&b, "Gather", "k nine", "g", "axis=0");
    qd_mb_node(&b, "Add", "x g", "y", NULL);
    qd_mb_output(&b, "y", QD_F32, "2");
    qd_mb_finish(&b, 13);
    assert_null(qd_mb_load(&b, engine, NULL, &error));
    assert_non_null(strstr(error.text, "'g'"));
    qd_mb_free(&b);
}

/* What a few bytes would make minutes of is left to the requests: all with all of two constants (a diagonal stays an
 * Einsum); a small one is not. */
static void test_long_work_is_left(void **state)
{
    (void)state;
    for (int large = 0; large < 2; large++) {
        struct qd_mb b = {0};
        qd_mb_input(&b, "x", QD_F32, "1");
        qd_mb_weights(&b, "k", large ? "300,300" : "3,3", 1, 1);
        qd_mb_node(&b, "Einsum", "k k", "e", "equation=aa,bb->");
        qd_mb_node(&b, "Add", "x e", "y", NULL);
        qd_mb_output(&b, "y", QD_F32, "1");
        qd_mb_finish(&b, 13);
        struct qd_model *model = qd_mb_load(&b, engine, NULL, NULL);
        assert_non_null(model);
        assert_int_equal(steps(model), large ? 2 : 1);
        qd_model_unref(&model);
        qd_mb_free(&b);
    }
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
        cmocka_unit_test(test_computed_weights),
        cmocka_unit_test(test_defaults_are_not_folded),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_mistakes_are_named),
        cmocka_unit_test(test_long_work_is_left),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
