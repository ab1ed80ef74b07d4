/* Models that come quantized: one layer between scales of the file against plain integer arithmetic, what the plan is,
 * why layers stay FP32, and what their fixed ranges outlive. Whole files against onnxruntime: tests/nodes/test_qdq.py.
 */
#include "engine/given.h"
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct qd_engine *engine;

enum { ROWS = 5, DEPTH = 24, OUT = 6 };
static const char SHAPE[] = "5,24";
static const float SX = 0.03125f, SY = 0.0625f;
enum { ZX = 117, ZY = -9 };

/* x -> pair (u8) -> MatMul -> Add -> pair (s8) -> y, and what varies. */
struct variant {
    const char *label, *reason; /* of the MatMul */
    enum qd_dtype type;         /* of the weights */
    int zero;                   /* theirs */
    int low, high;              /* of the integers without it */
    const char *axis;           /* an attribute; NULL: one scale */
    float first_scale;          /* of the weights; 0: like the others */
    bool bare;                  /* x isn't quantized */
};

struct net {
    struct qd_mb b;
    struct qd_model *model;
    int w[DEPTH * OUT];
    float scales[DEPTH], bias[OUT], x[ROWS * DEPTH];
};

static void fill(struct net *n, const struct variant *v, uint8_t *bytes)
{
    uint64_t state = 9;
    for (int i = 0; i < DEPTH * OUT; i++) {
        n->w[i] = v->low + (int)(qd_mb_random(&state) % (uint64_t)(v->high - v->low + 1));
        bytes[i] = (uint8_t)(n->w[i] + v->zero);
    }
    for (int i = 0; i < DEPTH; i++)
        n->scales[i] = 0.01f * (float)(i % OUT + 1);
    if (v->first_scale != 0)
        n->scales[0] = v->first_scale;
    qd_mb_fill(n->bias, OUT, 4, 1);
    qd_mb_fill(n->x, ROWS * DEPTH, 5, 3);
    n->x[0] = 1e6f; /* far outside */
}

static void open_net(struct net *n, const struct variant *v, const struct qd_quant_options *options)
{
    const bool several = v->axis != NULL, by_input = several && strcmp(v->axis, "axis=0") == 0;
    const uint8_t zx = ZX, zeros[DEPTH] = {(uint8_t)v->zero, (uint8_t)v->zero, (uint8_t)v->zero,
                                           (uint8_t)v->zero, (uint8_t)v->zero, (uint8_t)v->zero};
    const int8_t zy = ZY;
    uint8_t bytes[DEPTH * OUT];
    const char *shape = by_input ? "24" : several ? "6" : "";
    *n = (struct net){0};
    fill(n, v, bytes);
    qd_mb_input(&n->b, "x", QD_F32, "N,24");
    qd_mb_constant(&n->b, "sx", QD_F32, "", &SX);
    qd_mb_constant(&n->b, "zx", QD_U8, "", &zx);
    qd_mb_constant(&n->b, "sy", QD_F32, "", &SY);
    qd_mb_constant(&n->b, "zy", QD_I8, "", &zy);
    qd_mb_constant(&n->b, "w", v->type, "24,6", bytes);
    qd_mb_constant(&n->b, "sw", QD_F32, shape, n->scales);
    qd_mb_constant(&n->b, "zw", v->type, shape, zeros);
    qd_mb_constant(&n->b, "bias", QD_F32, "6", n->bias);
    qd_mb_node(&n->b, "QuantizeLinear", "x sx zx", "xq", NULL);
    qd_mb_node(&n->b, "DequantizeLinear", "xq sx zx", "xr", NULL);
    qd_mb_node(&n->b, "DequantizeLinear", "w sw zw", "wr", v->axis);
    qd_mb_node(&n->b, "MatMul", v->bare ? "x wr" : "xr wr", "m", NULL);
    qd_mb_node(&n->b, "Add", "m bias", "a", NULL);
    qd_mb_node(&n->b, "QuantizeLinear", "a sy zy", "yq", NULL);
    qd_mb_node(&n->b, "DequantizeLinear", "yq sy zy", "y", NULL);
    qd_mb_output(&n->b, "y", QD_F32, "N,6");
    qd_mb_output(&n->b, "yq", QD_I8, "N,6");
    qd_mb_finish(&n->b, 13);
    struct qd_error error = {0};
    n->model = qd_mb_load(&n->b, engine, options, &error);
    if (!n->model)
        fail_msg("%s: %s", v->label, error.text);
}

static void close_net(struct net *n)
{
    qd_model_unref(&n->model);
    qd_mb_free(&n->b);
}

static int clamped(double v, int low, int high) { return v < low ? low : v > high ? high : (int)rint(v); }

/* The answers to one quantum of what the file says, in double. */
static void assert_answers(const struct net *n, const struct variant *v, struct qd_infer *infer)
{
    const float *y = qd_infer_output(infer, 0)->data;
    const int8_t *q = qd_infer_output(infer, 1)->data;
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < OUT; j++) {
            double sum = (double)n->bias[j];
            for (int i = 0; i < DEPTH; i++) {
                const double real = (double)n->x[r * DEPTH + i];
                const int xq = clamped(real / (double)SX + ZX, 0, 255);
                const double scale = (double)n->scales[!v->axis ? 0 : strcmp(v->axis, "axis=0") ? j : i];
                sum += scale * n->w[i * OUT + j] * (v->bare ? real : (double)SX * (xq - ZX));
            }
            const int want = clamped(sum / (double)SY + ZY, -128, 127), at = r * OUT + j;
            if (abs(q[at] - want) > 1 || y[at] != SY * (float)(q[at] - ZY))
                fail_msg("%s: output %d is %d (%g), want %d", v->label, at, q[at], (double)y[at], want);
        }
}

static const struct qd_step_report *step_of(const struct net *n, const char *op)
{
    static struct qd_step_report step;
    struct qd_plan_report plan;
    qd_model_plan(n->model, &plan);
    for (size_t i = 0; i < plan.steps; i++) {
        qd_model_step(n->model, i, &step);
        if (strcmp(step.op, op) == 0)
            return &step;
    }
    fail_msg("no step %s", op);
    return NULL;
}

static const struct variant by_output = {"a scale per output", NULL, QD_I8, 0, -100, 90, "axis=1", 0, false};
static const struct variant variants[] = {
    {"one scale", NULL, QD_I8, 0, -128, 127, NULL, 0, false},
    {"shifted by a zero point", NULL, QD_I8, -5, -100, 120, "axis=1", 0, false},
    {"u8 around 128", NULL, QD_U8, 128, -128, 127, "axis=-1", 0, false},
    {"u8 beyond s8", "take more than 8 bits", QD_U8, 40, -40, 200, NULL, 0, false},
    {"a scale per input", "several scales for one output", QD_I8, 0, -100, 100, "axis=0", 0, false},
    {"a negative scale", "no positive, finite, normal number", QD_I8, 0, -100, 100, "axis=1", -0.01f, false},
    {"a tiny scale", "no positive, finite, normal number", QD_I8, 0, -100, 100, "axis=1", 1e-42f, false},
    {"x is real", "its input is in full precision", QD_I8, 0, -100, 100, "axis=1", 0, true},
};

static void run_variant(const struct variant *v, enum qd_precision precision)
{
    struct qd_quant_options options = qd_quant_defaults();
    struct net n;
    options.precision = precision;
    open_net(&n, v, &options);
    struct qd_infer *infer = qd_mb_run(n.model, NULL, SHAPE, n.x);
    assert_answers(&n, v, infer);
    qd_infer_destroy(&infer);
    const struct qd_step_report *step = step_of(&n, "MatMul");
    const bool integers = precision != QD_FP32 && !v->reason;
    const char *reason = precision == QD_FP32 ? "full precision was asked for"
                         : v->reason          ? v->reason
                                              : "quantized in the file";
    if (step->precision != (integers ? QD_INT8 : QD_FP32) || !strstr(step->reason, reason))
        fail_msg("%s: %s", v->label, step->reason);
    close_net(&n);
}

static void test_variants(void **state)
{
    (void)state;
    run_variant(&by_output, QD_FP32);
    run_variant(&by_output, QD_INT8);
    run_variant(&by_output, QD_PRECISION_AUTO);
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        run_variant(&variants[i], QD_FP32);
        run_variant(&variants[i], QD_PRECISION_AUTO);
    }
}

static struct qd_range_report range_of(const struct net *n, const char *name)
{
    struct qd_ranges_summary summary;
    struct qd_range_report range;
    qd_model_ranges(n->model, &summary);
    for (size_t i = 0; i < summary.sites; i++) {
        qd_model_range(n->model, i, &range);
        if (strcmp(range.name, name) == 0)
            return range;
    }
    fail_msg("no site %s", name);
    return range;
}

/* The file's scale serves from the first request on, whatever the mode; nothing is learned, and no guard minds what is
 * cut. Another range may be given, and taken back. */
static void test_ranges(void **state)
{
    (void)state;
    struct qd_quant_options options = qd_quant_defaults();
    struct qd_error error = {0};
    struct net n;
    options.mode = QD_MODE_REQUEST;
    options.guard = QD_GUARD_REJECT;
    open_net(&n, &by_output, &options);
    for (int i = 0; i < 30; i++) {
        struct qd_infer *infer = qd_mb_run(n.model, NULL, SHAPE, n.x);
        struct qd_infer_report report;
        qd_infer_report(infer, &report);
        assert_int_equal(report.guarded, 0);
        assert_answers(&n, &by_output, infer);
        qd_infer_destroy(&infer);
    }
    struct qd_range_report x = range_of(&n, "x");
    assert_int_equal(x.mode, QD_MODE_STATIC);
    assert_true(x.scale == SX && x.zero_point == ZX && x.observations == 0);
    const struct qd_range_given other = {.tensor = "x", .lo = -1, .hi = 1}, back = {.tensor = "x", .learn = true};
    assert_int_equal(qd_model_ranges_set(n.model, &other, 1, &error), QD_OK);
    assert_true(range_of(&n, "x").scale == (float)(2.0 / 255.0));
    assert_int_equal(qd_model_ranges_set(n.model, &back, 1, &error), QD_OK);
    x = range_of(&n, "x");
    assert_true(x.mode == QD_MODE_STATIC && x.scale == SX && x.zero_point == ZX);
    close_net(&n);
}

/* Reshape and MaxPool of integers, between two layers, pass them on; two DequantizeLinear share one site. */
static void test_integers_pass(void **state)
{
    (void)state;
    const uint8_t zero = 100;
    const int8_t w[8 * 8] = {1, -2, 3, -4, 5, -6, 7, -8, 9, 10, -11, 12, 127, -128};
    const int64_t shape[2] = {-1, 8};
    const float scale = 0.05f;
    struct qd_mb b = {0};
    float x[16 * 8];
    qd_mb_fill(x, 16 * 8, 3, 4);
    qd_mb_input(&b, "x", QD_F32, "2,8,8");
    qd_mb_constant(&b, "s", QD_F32, "", &scale);
    qd_mb_constant(&b, "z", QD_U8, "", &zero);
    qd_mb_constant(&b, "w", QD_I8, "8,8", w);
    qd_mb_constant(&b, "shape", QD_I64, "2", shape);
    qd_mb_node(&b, "QuantizeLinear", "x s z", "q", NULL);
    qd_mb_node(&b, "Reshape", "q shape", "r", NULL);
    qd_mb_node(&b, "DequantizeLinear", "r s z", "d1", NULL);
    qd_mb_node(&b, "DequantizeLinear", "r s z", "d2", NULL);
    qd_mb_node(&b, "DequantizeLinear", "w s", "wd", NULL);
    qd_mb_node(&b, "MatMul", "d1 wd", "m1", NULL);
    qd_mb_node(&b, "Gemm", "d2 wd", "m2", "transB=1");
    qd_mb_output(&b, "m1", QD_F32, "16,8");
    qd_mb_output(&b, "m2", QD_F32, "16,8");
    qd_mb_finish(&b, 13);
    struct qd_model *model = qd_mb_load(&b, engine, NULL, NULL);
    assert_non_null(model);
    struct qd_ranges_summary summary;
    struct qd_plan_report plan;
    qd_model_ranges(model, &summary);
    qd_model_plan(model, &plan);
    assert_int_equal(summary.sites, 1);
    assert_int_equal(plan.steps, 4); /* one quantize step, the Reshape, two layers */
    struct qd_infer *infer = qd_mb_run(model, NULL, "2,8,8", x);
    const float *m1 = qd_infer_output(infer, 0)->data, *m2 = qd_infer_output(infer, 1)->data;
    for (int r = 0; r < 16; r++)
        for (int j = 0; j < 8; j++) {
            int sum1 = 0, sum2 = 0;
            for (int i = 0; i < 8; i++) {
                const int q = clamped((double)(x[r * 8 + i] / scale) + zero, 0, 255) - zero;
                sum1 += q * w[i * 8 + j];
                sum2 += q * w[j * 8 + i];
            }
            assert_true(fabsf(m1[r * 8 + j] - scale * scale * (float)sum1) <= 1e-6f * fabsf(m1[r * 8 + j]));
            assert_true(fabsf(m2[r * 8 + j] - scale * scale * (float)sum2) <= 1e-6f * fabsf(m2[r * 8 + j]));
        }
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_mb_free(&b);
}

static int start(void **state)
{
    (void)state;
    engine = qd_mb_engine(2);
    return 0;
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
        cmocka_unit_test(test_variants),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_integers_pass),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
