/* Control flow against arithmetic: captured values, nested bodies, iterations, joined results, ranges of bodies, plans
 * that know shapes beforehand and plans that don't. */
#include "base/mem.h"
#include "engine/engine.h"
#include "tests/unit/model_builder.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct qd_engine *engine;

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

/* A node named `name` with bodies; attribute names and bodies by turns, NULL at the end. Empties the bodies. */
static void put_control(struct qd_mb *b, const char *op, const char *const *in, const char *const *out,
                        const char *attr, struct qd_mb *body, const char *attr2, struct qd_mb *body2)
{
    struct wire n = {0};
    for (; *in; in++)
        put_text(&n, 1, *in);
    for (; *out; out++)
        put_text(&n, 2, *out);
    put_text(&n, 3, op);
    put_text(&n, 4, op);
    put_attr(&n, attr, 5, 6, &body->graph);
    if (attr2)
        put_attr(&n, attr2, 5, 6, &body2->graph);
    put_message(&b->graph, 1, &n);
}

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static struct qd_model *load(struct qd_mb *b, bool fp32)
{
    struct qd_quant_options options = qd_quant_defaults();
    struct qd_error error = {0};
    options.precision = fp32 ? QD_FP32 : QD_PRECISION_AUTO;
    qd_mb_finish(b, 17);
    struct qd_model *model = qd_mb_load(b, engine, &options, &error);
    if (!model)
        fail_msg("%s", error.text);
    return model;
}

/* A request with a float vector and, when there is a second input, one number for it. */
static struct qd_infer *ask(struct qd_model *model, const char *shape, const float *x, int64_t second,
                            enum qd_status wanted)
{
    struct qd_infer_options options = qd_infer_defaults();
    struct qd_infer *infer;
    struct qd_error error = {0};
    struct qd_tensor given = {.dtype = QD_F32, .shape = qd_mb_shape(shape), .data = (void *)(uintptr_t)x};
    unsigned char truth = second != 0;
    assert_int_equal(qd_infer_create(model, &options, &infer, &error), QD_OK);
    assert_int_equal(qd_infer_input_borrow(infer, 0, &given, &error), QD_OK);
    if (qd_model_input_count(model) > 1) {
        void *data;
        enum qd_dtype dtype = qd_model_input(model, 1)->dtype;
        assert_int_equal(qd_infer_input_alloc(infer, 1, dtype, &(struct qd_shape){.rank = 0}, &data, &error), QD_OK);
        memcpy(data, dtype == QD_BOOL ? (void *)&truth : (void *)&second, dtype == QD_BOOL ? 1 : 8);
    }
    if (qd_infer_prepare(infer, &error) != QD_OK)
        fail_msg("%s", error.text);
    qd_infer_run(&infer, 1);
    if (qd_infer_status(infer, &error) != wanted)
        fail_msg("status %d: %s", error.status, error.text);
    qd_infer_finish(infer);
    return infer;
}

static const float *floats_of(const struct qd_infer *infer, size_t output, int64_t elems)
{
    const struct qd_tensor *tensor = qd_infer_output(infer, output);
    assert_int_equal(tensor->dtype, QD_F32);
    assert_int_equal(qd_tensor_elems(tensor), elems);
    return tensor->data;
}

/* if (c) x + late, else if (c) never, else x - late; late = -x is made behind the If in the file. */
static void test_if_captures(void **state)
{
    (void)state;
    const float x[2] = {3, -5};
    struct qd_mb b = {0}, then = {0}, other = {0}, inner[2] = {{{0}, {0}}, {{0}, {0}}};
    qd_mb_output(&then, "t", QD_F32, "N");
    qd_mb_node(&then, "Add", "x late", "t", "");
    for (int i = 0; i < 2; i++) {
        qd_mb_output(&inner[i], "n", QD_F32, "N");
        qd_mb_node(&inner[i], i ? "Sub" : "Add", "x late", "n", "");
    }
    qd_mb_output(&other, "e", QD_F32, "N");
    put_control(&other, "If", NAMES("c"), NAMES("e"), "then_branch", &inner[0], "else_branch", &inner[1]);
    qd_mb_input(&b, "x", QD_F32, "N");
    qd_mb_input(&b, "c", QD_BOOL, "");
    qd_mb_output(&b, "y", QD_F32, "N");
    put_control(&b, "If", NAMES("c"), NAMES("y"), "then_branch", &then, "else_branch", &other);
    qd_mb_node(&b, "Neg", "x", "late", "");
    struct qd_model *model = load(&b, true);
    for (int c = 0; c < 2; c++) {
        struct qd_infer *infer = ask(model, "2", x, c, QD_OK);
        const float *y = floats_of(infer, 0, 2);
        for (int i = 0; i < 2; i++)
            assert_true(y[i] == (c ? 0 : 2 * x[i]));
        qd_infer_destroy(&infer);
    }
    qd_model_unref(&model);
    qd_mb_free(&b);
}

/* An If of a constant condition is no step: its branch stands there, also where that only hands something on. */
static void test_known_if_is_inlined(void **state)
{
    (void)state;
    const float x[2] = {3, -5}, seven[1] = {7};
    const unsigned char yes[1] = {1};
    struct qd_mb b = {0}, then = {0}, other = {0};
    qd_mb_output(&then, "t", QD_F32, "2");
    qd_mb_output(&then, "x", QD_F32, "2");
    qd_mb_output(&then, "k", QD_F32, "1");
    qd_mb_constant(&then, "k", QD_F32, "1", seven);
    qd_mb_node(&then, "Add", "x k", "t", "");
    qd_mb_output(&other, "a", QD_F32, "2");
    qd_mb_output(&other, "a", QD_F32, "2");
    qd_mb_output(&other, "a", QD_F32, "2");
    qd_mb_node(&other, "Abs", "x", "a", "");
    qd_mb_input(&b, "x", QD_F32, "2");
    qd_mb_constant(&b, "yes", QD_BOOL, "", yes);
    qd_mb_output(&b, "p", QD_F32, "2");
    qd_mb_output(&b, "q", QD_F32, "2");
    qd_mb_output(&b, "r", QD_F32, "1");
    put_control(&b, "If", NAMES("yes"), NAMES("p", "q", "r"), "then_branch", &then, "else_branch", &other);
    struct qd_model *model = load(&b, true);
    struct qd_plan_report plan;
    qd_model_plan(model, &plan);
    for (size_t i = 0; i < plan.steps; i++) {
        struct qd_step_report step;
        qd_model_step(model, i, &step);
        assert_string_not_equal(step.op, "If");
    }
    struct qd_infer *infer = ask(model, "2", x, 0, QD_OK);
    assert_true(floats_of(infer, 0, 2)[0] == 10 && floats_of(infer, 0, 2)[1] == 2);
    assert_true(floats_of(infer, 1, 2)[0] == 3 && floats_of(infer, 1, 2)[1] == -5);
    assert_true(floats_of(infer, 2, 1)[0] == 7);
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_mb_free(&b);
}

/* Body of: a, b = b, a + b; the sum is joined. */
static void put_fibonacci(struct qd_mb *body)
{
    qd_mb_input(body, "i", QD_I64, "");
    qd_mb_input(body, "go", QD_BOOL, "");
    qd_mb_input(body, "a", QD_F32, "1");
    qd_mb_input(body, "b", QD_F32, "1");
    qd_mb_output(body, "still", QD_BOOL, "");
    qd_mb_output(body, "b", QD_F32, "1");
    qd_mb_output(body, "sum", QD_F32, "1");
    qd_mb_output(body, "sum", QD_F32, "1");
    qd_mb_node(body, "Identity", "go", "still", "");
    qd_mb_node(body, "Add", "a b", "sum", "");
}

static void test_loop_carries_and_joins(void **state)
{
    (void)state;
    const float one[1] = {1};
    struct qd_mb b = {0}, body = {0};
    put_fibonacci(&body);
    qd_mb_input(&b, "x", QD_F32, "1");
    qd_mb_input(&b, "n", QD_I64, "");
    qd_mb_output(&b, "p", QD_F32, "1");
    qd_mb_output(&b, "q", QD_F32, "1");
    qd_mb_output(&b, "all", QD_F32, "?,1");
    put_control(&b, "Loop", NAMES("n", "", "x", "x"), NAMES("p", "q", "all"), "body", &body, NULL, NULL);
    struct qd_model *model = load(&b, true);
    for (int64_t n = 0; n < 30; n += 1 + n / 3) {
        struct qd_infer *infer = ask(model, "1", one, n, QD_OK);
        const float *all = floats_of(infer, 2, n);
        assert_int_equal(qd_infer_output(infer, 2)->shape.rank, 2);
        float p = 1, q = 1;
        for (int64_t i = 0; i < n; i++) {
            float sum = p + q;
            assert_true(all[i] == sum);
            p = q;
            q = sum;
        }
        assert_true(floats_of(infer, 0, 1)[0] == p && floats_of(infer, 1, 1)[0] == q);
        qd_infer_destroy(&infer);
    }
    qd_model_unref(&model);
    qd_mb_free(&b);
}

/* A value that grows, until the body says stop. */
static void test_loop_grows_and_stops(void **state)
{
    (void)state;
    const float x[1] = {2};
    const int64_t most[1] = {9};
    struct qd_mb b = {0}, body = {0};
    qd_mb_input(&body, "i", QD_I64, "1");
    qd_mb_input(&body, "go", QD_BOOL, "1");
    qd_mb_input(&body, "v", QD_F32, "M");
    qd_mb_output(&body, "still", QD_BOOL, "1");
    qd_mb_output(&body, "longer", QD_F32, "L");
    qd_mb_constant(&body, "most", QD_I64, "1", most);
    qd_mb_node(&body, "Concat", "v x", "longer", "axis=0");
    qd_mb_node(&body, "Less", "i most", "still", "");
    qd_mb_input(&b, "x", QD_F32, "1");
    qd_mb_output(&b, "y", QD_F32, "L");
    put_control(&b, "Loop", NAMES("", "", "x"), NAMES("y"), "body", &body, NULL, NULL);
    struct qd_model *model = load(&b, true);
    struct qd_infer *infer = ask(model, "1", x, 0, QD_OK);
    const float *y = floats_of(infer, 0, 11);
    for (int i = 0; i < 11; i++)
        assert_true(y[i] == 2);
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_mb_free(&b);
}

static void test_endless_loop_ends(void **state)
{
    (void)state;
    const float x[1] = {0};
    struct qd_mb b = {0}, body = {0};
    put_fibonacci(&body);
    qd_mb_input(&b, "x", QD_F32, "1");
    qd_mb_output(&b, "p", QD_F32, "1");
    put_control(&b, "Loop", NAMES("", "", "x", "x"), NAMES("p"), "body", &body, NULL, NULL);
    struct qd_model *model = load(&b, true);
    struct qd_infer *infer = ask(model, "1", x, 0, QD_ERR_TOO_LARGE);
    qd_infer_destroy(&infer);
    struct qd_infer_options options = qd_infer_defaults();
    struct qd_error error = {0};
    infer = qd_mb_request(model, &options, "1", x);
    qd_infer_set_deadline(infer, 1); /* long ago */
    qd_infer_run(&infer, 1);
    assert_int_equal(qd_infer_status(infer, &error), QD_ERR_DEADLINE);
    assert_non_null(strstr(error.text, "after 1 iterations"));
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_mb_free(&b);
}

/* A matrix product in a loop's body: its site is the model's, learns, and gives the same bytes again. */
static void test_ranges_of_bodies(void **state)
{
    (void)state;
    float x[4 * 32], exact[4 * 32];
    const int64_t three[1] = {3};
    struct qd_mb b = {0}, body = {0};
    qd_mb_input(&body, "i", QD_I64, "");
    qd_mb_input(&body, "go", QD_BOOL, "");
    qd_mb_input(&body, "s", QD_F32, "4,32");
    qd_mb_output(&body, "still", QD_BOOL, "");
    qd_mb_output(&body, "next", QD_F32, "4,32");
    qd_mb_node(&body, "Identity", "go", "still", "");
    qd_mb_node(&body, "MatMul", "s w", "product", "");
    qd_mb_node(&body, "Neg", "product", "next", "");
    qd_mb_input(&b, "x", QD_F32, "4,32");
    qd_mb_constant(&b, "n", QD_I64, "", three);
    qd_mb_weights(&b, "w", "32,32", 5, 0.3f);
    qd_mb_output(&b, "y", QD_F32, "4,32");
    put_control(&b, "Loop", NAMES("n", "", "x"), NAMES("y"), "body", &body, NULL, NULL);
    struct qd_model *model = load(&b, false);
    struct qd_ranges_summary ranges;
    struct qd_range_report range;
    qd_mb_fill(x, 4 * 32, 9, 1);
    qd_model_ranges(model, &ranges);
    assert_true(ranges.sites >= 1);
    qd_model_range(model, 0, &range);
    assert_string_equal(range.name, "Loop.body/s");
    struct qd_infer_options full = qd_infer_defaults();
    full.precision = QD_FP32;
    struct qd_infer *infer = qd_mb_run(model, &full, "4,32", x);
    memcpy(exact, floats_of(infer, 0, 4 * 32), sizeof exact);
    qd_infer_destroy(&infer);
    qd_mb_teach(model, "4,32", x, 20);
    qd_model_range(model, 0, &range);
    assert_true(range.observations >= 20 && range.ema_min < 0 && range.ema_max > 0);
    float first[4 * 32];
    for (int i = 0; i < 2; i++) {
        struct qd_infer_report report;
        infer = ask(model, "4,32", x, 0, QD_OK);
        qd_infer_report(infer, &report);
        assert_int_equal(report.precision, QD_INT8);
        const float *y = floats_of(infer, 0, 4 * 32);
        for (int k = 0; k < 4 * 32; k++)
            assert_true(fabsf(y[k] - exact[k]) < 0.05f);
        if (i == 0)
            memcpy(first, y, sizeof first);
        else
            assert_memory_equal(first, y, sizeof first);
        qd_infer_destroy(&infer);
    }
    qd_model_unref(&model);
    qd_mb_free(&b);
}

/* Backwards along the last axis, results stacked along the last: sums from the end. */
static void test_scan_by_axes(void **state)
{
    (void)state;
    const float x[6] = {1, 2, 3, 10, 20, 30}, zero[2] = {0, 0};
    struct qd_mb b = {0}, body = {0};
    struct wire n = {0};
    qd_mb_input(&body, "s", QD_F32, "2");
    qd_mb_input(&body, "e", QD_F32, "2");
    qd_mb_output(&body, "sum", QD_F32, "2");
    qd_mb_output(&body, "out", QD_F32, "2");
    qd_mb_node(&body, "Add", "s e", "sum", "");
    qd_mb_node(&body, "Identity", "sum", "out", "");
    qd_mb_input(&b, "x", QD_F32, "2,T");
    qd_mb_constant(&b, "zero", QD_F32, "2", zero);
    qd_mb_output(&b, "total", QD_F32, "2");
    qd_mb_output(&b, "sums", QD_F32, "2,T");
    put_text(&n, 1, "zero");
    put_text(&n, 1, "x");
    put_text(&n, 2, "total");
    put_text(&n, 2, "sums");
    put_text(&n, 4, "Scan");
    put_attr(&n, "body", 5, 6, &body.graph);
    static const struct {
        const char *name;
        uint64_t value;
        bool one;
    } attrs[] = {{"num_scan_inputs", 1, true},
                 {"scan_input_axes", (uint64_t)-1, false},
                 {"scan_input_directions", 1, false},
                 {"scan_output_axes", 1, false},
                 {"scan_output_directions", 1, false}};
    for (size_t i = 0; i < sizeof attrs / sizeof attrs[0]; i++) {
        struct wire a = {0};
        put_text(&a, 1, attrs[i].name);
        put_varint(&a, 20, attrs[i].one ? 2 : 7);
        put_varint(&a, attrs[i].one ? 3 : 8, attrs[i].value);
        put_message(&n, 5, &a);
    }
    put_message(&b.graph, 1, &n);
    struct qd_model *model = load(&b, true);
    struct qd_infer *infer = ask(model, "2,3", x, 0, QD_OK);
    const float *total = floats_of(infer, 0, 2), *sums = floats_of(infer, 1, 6);
    const float wanted[6] = {6, 5, 3, 60, 50, 30};
    assert_true(total[0] == 6 && total[1] == 60);
    assert_memory_equal(sums, wanted, sizeof wanted);
    qd_infer_destroy(&infer);
    infer = ask(model, "2,0", x, 0, QD_OK);
    assert_true(floats_of(infer, 0, 2)[0] == 0);
    floats_of(infer, 1, 0);
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_mb_free(&b);
}

/* One allocation after the other fails while a model with bodies is loaded and run: a status each time, never more. */
static void test_memory_runs_out(void **state)
{
    (void)state;
    const float x[2] = {1, 2};
    struct qd_mb b = {0}, body = {0}, then = {0}, other = {0};
    qd_mb_output(&then, "t", QD_F32, "2");
    qd_mb_node(&then, "Add", "v x", "t", "");
    qd_mb_output(&other, "e", QD_F32, "2");
    qd_mb_node(&other, "Neg", "v", "e", "");
    qd_mb_input(&body, "i", QD_I64, "");
    qd_mb_input(&body, "go", QD_BOOL, "");
    qd_mb_input(&body, "v", QD_F32, "2");
    qd_mb_output(&body, "go", QD_BOOL, "");
    qd_mb_output(&body, "next", QD_F32, "2");
    qd_mb_output(&body, "v", QD_F32, "2");
    put_control(&body, "If", NAMES("go"), NAMES("next"), "then_branch", &then, "else_branch", &other);
    qd_mb_input(&b, "x", QD_F32, "2");
    qd_mb_input(&b, "n", QD_I64, "");
    qd_mb_output(&b, "y", QD_F32, "2");
    qd_mb_output(&b, "all", QD_F32, "?,2");
    put_control(&b, "Loop", NAMES("n", "", "x"), NAMES("y", "all"), "body", &body, NULL, NULL);
    qd_mb_finish(&b, 17);
    enum qd_status status = QD_ERR_NO_MEMORY;
    for (uint64_t n = 1; status != QD_OK; n++) {
        struct qd_model *model = NULL;
        struct qd_infer *infer = NULL;
        struct qd_infer_options options = qd_infer_defaults();
        struct qd_quant_options quant = qd_quant_defaults();
        struct qd_error error = {0};
        void *data;
        assert_true(n < 5000);
        qd_mem_fail_at(n, true);
        status = qd_model_load_memory(engine, "m", b.model.bytes, b.model.size, &quant, &model, &error);
        if (!status)
            status = qd_infer_create(model, &options, &infer, &error);
        if (!status && !(status = qd_infer_input_alloc(infer, 0, QD_F32, &(struct qd_shape){1, {2}}, &data, &error)))
            memcpy(data, x, sizeof x);
        if (!status && !(status = qd_infer_input_alloc(infer, 1, QD_I64, &(struct qd_shape){.rank = 0}, &data, &error)))
            *(int64_t *)data = 3;
        if (!status)
            status = qd_infer_prepare(infer, &error);
        if (!status) {
            qd_infer_run(&infer, 1);
            status = qd_infer_status(infer, &error);
        }
        qd_mem_fail_at(0, false);
        if (status == QD_OK)
            assert_true(floats_of(infer, 0, 2)[1] == 8 && floats_of(infer, 1, 6)[4] == 3);
        else if (status != QD_ERR_NO_MEMORY)
            fail_msg("status %d: %s", status, error.text);
        if (infer)
            qd_infer_destroy(&infer);
        if (model)
            qd_model_unref(&model);
    }
    qd_mb_free(&b);
}

/* Mistakes are named when the model is loaded. */
static void test_refusals(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct qd_mb b = {0}, body = {0};
        struct qd_error error = {0};
        put_fibonacci(&body);
        qd_mb_input(&b, "x", QD_F32, "1");
        qd_mb_input(&b, "c", QD_BOOL, "");
        qd_mb_output(&b, "y", QD_F32, "1");
        if (i == 0)
            put_control(&b, "Loop", NAMES("", "c", "x"), NAMES("y"), "body", &body, NULL, NULL);
        else if (i == 1)
            put_control(&b, "If", NAMES("c"), NAMES("y"), "then_branch", &body, NULL, NULL);
        else
            put_control(&b, "Scan", NAMES("x", "x"), NAMES("y"), "body", &body, NULL, NULL);
        qd_mb_finish(&b, 17);
        assert_null(qd_mb_load(&b, engine, NULL, &error));
        assert_int_equal(error.status, QD_ERR_FORMAT);
        assert_non_null(strstr(error.text, i == 0 ? "Loop" : i == 1 ? "else_branch" : "num_scan_inputs"));
        qd_mb_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_if_captures),
                                       cmocka_unit_test(test_known_if_is_inlined),
                                       cmocka_unit_test(test_loop_carries_and_joins),
                                       cmocka_unit_test(test_loop_grows_and_stops),
                                       cmocka_unit_test(test_endless_loop_ends),
                                       cmocka_unit_test(test_ranges_of_bodies),
                                       cmocka_unit_test(test_scan_by_axes),
                                       cmocka_unit_test(test_memory_runs_out),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
