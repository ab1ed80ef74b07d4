/* Models of other floating types: computed with in FP32 and INT8 inside, read and written in their own. Halves are told
 * apart from floats by their bits, written out here. */
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define HALF_ONE  0x3c00u
#define HALF_FOUR 0x4400u

static struct qd_infer *request_of(struct qd_model *model, enum qd_dtype dtype, const char *shape, const void *data)
{
    struct qd_infer *infer;
    struct qd_error error;
    struct qd_infer_options options = qd_infer_defaults();
    const struct qd_tensor tensor = {.dtype = dtype, .shape = qd_mb_shape(shape), .data = (void *)(uintptr_t)data};
    assert_int_equal(qd_infer_create(model, &options, &infer, &error), QD_OK);
    assert_int_equal(qd_infer_input_borrow(infer, 0, &tensor, &error), QD_OK);
    assert_int_equal(qd_infer_prepare(infer, &error), QD_OK);
    qd_infer_run(&infer, 1);
    assert_int_equal(qd_infer_status(infer, &error), QD_OK);
    qd_infer_finish(infer);
    return infer;
}

/* Weights of 16 bits become INT8 like any other: y = x . W with every element 1 is the depth, here 4. */
static void test_half_weights_run_in_int8(void **state)
{
    (void)state;
    struct qd_engine *engine = qd_mb_engine(1);
    struct qd_quant_options options = qd_quant_defaults();
    options.precision = QD_INT8;
    uint16_t ones[4 * 16], x[2 * 4];
    for (size_t i = 0; i < 64; i++)
        ones[i] = HALF_ONE;
    for (size_t i = 0; i < 8; i++)
        x[i] = HALF_ONE;
    struct qd_mb b = {0};
    qd_mb_input(&b, "x", QD_F16, "N,4");
    qd_mb_output(&b, "y", QD_F16, "N,16");
    qd_mb_constant(&b, "w", QD_F16, "4,16", ones);
    qd_mb_node(&b, "MatMul", "x w", "y", "");
    qd_mb_finish(&b, 17);
    struct qd_model *model = qd_mb_load(&b, engine, &options, NULL);
    assert_non_null(model);
    struct qd_plan_report plan;
    qd_model_plan(model, &plan);
    size_t integer = 0;
    for (size_t i = 0; i < plan.steps; i++) {
        struct qd_step_report step;
        qd_model_step(model, i, &step);
        integer += step.precision == QD_INT8 && strcmp(step.op, "MatMul") == 0;
    }
    assert_int_equal(integer, 1);
    struct qd_infer *infer = request_of(model, QD_F16, "2,4", x);
    const struct qd_tensor *y = qd_infer_output(infer, 0);
    assert_int_equal(y->dtype, QD_F16);
    for (size_t i = 0; i < 32; i++)
        assert_int_equal(((const uint16_t *)y->data)[i], HALF_FOUR);
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_mb_free(&b);
    qd_engine_destroy(&engine);
}

/* The model's own casts still round: 1/3 in FP64, through FP16, is not 1/3. */
static void test_casts_round(void **state)
{
    (void)state;
    struct qd_engine *engine = qd_mb_engine(1);
    struct qd_quant_options options = qd_quant_defaults();
    const double x[2] = {1.0 / 3, 0};
    struct qd_mb b = {0};
    qd_mb_input(&b, "x", QD_F64, "2");
    qd_mb_output(&b, "y", QD_F64, "2");
    qd_mb_node(&b, "Neg", "x", "n", "");
    qd_mb_node(&b, "Cast", "n", "h", "to=10");
    qd_mb_node(&b, "Neg", "h", "m", "");
    qd_mb_node(&b, "Cast", "m", "y", "to=11");
    qd_mb_finish(&b, 17);
    struct qd_model *model = qd_mb_load(&b, engine, &options, NULL);
    assert_non_null(model);
    struct qd_infer *infer = request_of(model, QD_F64, "2", x);
    const double *y = qd_infer_output(infer, 0)->data;
    assert_true(y[0] == 1365.0 / 4096); /* the nearest of 11 bits */
    assert_true(y[1] == 0);
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_mb_free(&b);
    qd_engine_destroy(&engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half_weights_run_in_int8),
        cmocka_unit_test(test_casts_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
