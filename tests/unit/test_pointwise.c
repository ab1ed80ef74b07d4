/* Fused elementwise programs. Random programs on randomly broadcast inputs against the portable kernels applied value
 * by value: floats and integers, both layouts, tails, any order of tasks, to the last bit. And which nodes become one
 * program: answers of models against libm, and the units that are left. */
#include "engine/ops/pointwise.h"

#include "engine/onnx/import.h"
#include "engine/ops/op.h"
#include "engine/plan/convert.h"
#include "engine/plan/pointwise.h"
#include "tests/kernels/random.h"
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { INPUTS = 4 };

static const struct qd_qparams SCALES[] = {{0.04f, 117, 0, 255}, {0.11f, 0, 0, 255}, {0.02f, 128, 1, 255}};

static void backwards(struct qd_parallel *parallel, size_t tasks, void (*fn)(void *ctx, size_t task), void *ctx)
{
    (void)parallel;
    while (tasks-- > 0)
        fn(ctx, tasks);
}

/* A program with its inputs; integers[i]: input i is carried as u8 under SCALES[i % 3]. */
struct trial {
    struct qd_pointwise_program program;
    struct qd_tensor in[INPUTS];
    bool integers[INPUTS];
    int in_count;
    struct qd_arena *arena;
};

static void *space(struct qd_arena *arena, size_t bytes)
{
    void *block = qd_arena_alloc_raw(arena, bytes + 1);
    assert_non_null(block);
    return block;
}

/* Shapes of `out` with dimensions taken away; input 0 is whole. */
static void draw_trial(struct trial *t, uint64_t *s, const struct qd_shape *out)
{
    static const enum qd_pw ops[] = {QD_PW_ADD, QD_PW_MUL, QD_PW_SUB,  QD_PW_MAX,        QD_PW_CLIP,  QD_PW_MUL_P_ADD_Q,
                                     QD_PW_ABS, QD_PW_MIN, QD_PW_TANH, QD_PW_HARD_SWISH, QD_PW_PRELU, QD_PW_SIGMOID};
    t->in_count = 1 + (int)(draw(s) % INPUTS);
    for (int i = 0; i < t->in_count; i++) {
        struct qd_tensor *in = &t->in[i];
        *in = (struct qd_tensor){.dtype = QD_F32, .shape = *out};
        const int cut = i && draw(s) % 3 == 0 ? (int)(draw(s) % (unsigned)(out->rank + 1)) : 0;
        in->shape.rank = out->rank - cut;
        for (int d = 0; d < in->shape.rank; d++)
            in->shape.dims[d] = i && draw(s) % 2 ? 1 : out->dims[d + cut];
        float *x = in->data = space(t->arena, qd_tensor_bytes(in));
        for (int64_t k = 0; k < qd_tensor_elems(in); k++)
            x[k] = draw_f32(s, 8.0f);
        t->integers[i] = draw(s) % 3 == 0;
    }
    t->program.step_count = 1 + (int)(draw(s) % 9);
    for (int k = 0; k < t->program.step_count; k++) {
        struct qd_pointwise_step *step = &t->program.steps[k];
        *step = (struct qd_pointwise_step){.op = ops[draw(s) % (sizeof ops / sizeof *ops)], .p = -0.5f, .q = 1.25f};
        const unsigned from = (unsigned)(t->in_count + k);
        step->a = (int)(draw(s) % from);
        step->b = k ? t->in_count + k - 1 : (int)(draw(s) % from); /* the result before is mostly used */
        step->a = step->a >= t->in_count ? ~(step->a - t->in_count) : step->a;
        step->b = step->b >= t->in_count ? ~(step->b - t->in_count) : step->b;
    }
}

/* Index into a plain tensor of the element that stands at `index` (by axis) of the broadcast shape. */
static size_t element(const struct qd_shape *shape, const struct qd_shape *out, const int64_t *index)
{
    int64_t at = 0;
    for (int d = 0; d < shape->rank; d++)
        at = at * shape->dims[d] + (shape->dims[d] == 1 ? 0 : index[out->rank - shape->rank + d]);
    return (size_t)at;
}

/* The program's real value at an index. */
static float value_at(const struct trial *t, const struct qd_shape *out, const int64_t *index)
{
    float in[INPUTS] = {0}, made[QD_POINTWISE_STEPS];
    for (int i = 0; i < t->in_count; i++) {
        in[i] = ((const float *)t->in[i].data)[element(&t->in[i].shape, out, index)];
        if (t->integers[i])
            in[i] = qd_dequantize_one(qd_quantize_one(in[i], &SCALES[i % 3]), &SCALES[i % 3]);
    }
    const struct qd_kernels *plain = qd_kernels_at(QD_ISA_SCALAR);
    for (int k = 0; k < t->program.step_count; k++) {
        const struct qd_pointwise_step *s = &t->program.steps[k];
        const float *a = s->a < 0 ? &made[~s->a] : &in[s->a], *b = s->b < 0 ? &made[~s->b] : &in[s->b];
        plain->pointwise[s->op].run(a, b, s->p, s->q, &made[k], 1);
    }
    return made[t->program.step_count - 1];
}

struct way {
    enum qd_layout layout;
    const struct qd_qparams *out_qp;
    unsigned threads;
    enum qd_isa isa;
};

/* Inputs as `way` carries them: full rank channels last, but those that stand for constants (the odd ones of one number
 * a channel) plain. */
static void carry(const struct trial *t, const struct way *way, int rank, struct qd_tensor in[INPUTS])
{
    const struct qd_kernels *plain = qd_kernels_at(QD_ISA_SCALAR);
    for (int i = 0; i < t->in_count; i++) {
        in[i] = t->in[i];
        if (t->integers[i]) {
            in[i].dtype = QD_U8;
            in[i].data = space(t->arena, qd_tensor_bytes(&in[i]));
            plain->quantize_u8(t->in[i].data, (size_t)qd_tensor_elems(&t->in[i]), &SCALES[i % 3], in[i].data, NULL);
        }
        if (way->layout == QD_CHANNELS_LAST && in[i].shape.rank == rank && i != 3) {
            struct qd_tensor turned = in[i];
            turned.layout = QD_CHANNELS_LAST;
            turned.data = space(t->arena, qd_tensor_bytes(&in[i]));
            qd_convert_relayout(plain, &in[i], &turned, NULL);
            in[i] = turned;
        }
    }
}

static struct qd_tensor run(struct trial *t, const struct way *way, int rank, struct qd_observation *seen)
{
    static const int ids[INPUTS + 1] = {0, 1, 2, 3, 4};
    struct qd_error error = {.status = QD_OK};
    struct qd_node node = {.name = "node",
                           .op = "Pointwise",
                           .domain = "quantd",
                           .opset = 1,
                           .in_count = t->in_count,
                           .out_count = 1,
                           .in = ids,
                           .out = ids + INPUTS,
                           .program = &t->program};
    struct qd_tensor in[INPUTS], as_real[INPUTS], out = {.dtype = QD_NONE};
    const struct qd_qparams *in_qp[INPUTS];
    struct qd_parallel parallel = {way->threads, backwards};
    carry(t, way, rank, in);
    memcpy(as_real, in, sizeof in);
    for (int i = 0; i < t->in_count; i++) {
        in_qp[i] = t->integers[i] ? &SCALES[i % 3] : NULL;
        as_real[i].dtype = QD_F32;
    }
    struct qd_call call = {.node = &node,
                           .in_count = t->in_count,
                           .out_count = 1,
                           .in = as_real,
                           .out = &out,
                           .in_qp = in_qp,
                           .out_qp = way->out_qp,
                           .observe = way->out_qp ? seen : NULL,
                           .kernels = qd_kernels_at(way->isa),
                           .parallel = &parallel};
    const struct qd_op *op = qd_op_find(&node, &error);
    void *prep = NULL;
    assert_non_null(op);
    assert_int_equal(op->prepare(&node, t->arena, &prep, &error), QD_OK);
    call.prep = prep;
    assert_int_equal(op->infer(&call, &error), QD_OK);
    call.in = in;
    out.dtype = way->out_qp ? QD_U8 : QD_F32;
    out.data = space(t->arena, qd_tensor_bytes(&out));
    call.scratch = space(t->arena, op->scratch(&call));
    assert_int_equal(op->run(&call, &error), QD_OK);
    struct qd_tensor plain = out;
    plain.layout = QD_PLAIN;
    plain.data = space(t->arena, qd_tensor_bytes(&out));
    if (out.layout == QD_PLAIN)
        return out;
    qd_convert_relayout(qd_kernels_at(QD_ISA_SCALAR), &out, &plain, NULL);
    return plain;
}

static bool same_results(const struct trial *t, const struct qd_shape *shape, const struct qd_tensor *out,
                         const struct qd_qparams *qp, const struct qd_observation *seen)
{
    struct qd_observation wanted = qd_observation_empty();
    int64_t index[QD_MAX_RANK] = {0};
    for (int64_t k = 0; k < qd_tensor_elems(out); k++) {
        int64_t rest = k;
        for (int d = shape->rank - 1; d >= 0; d--) {
            index[d] = rest % shape->dims[d];
            rest /= shape->dims[d];
        }
        const float value = value_at(t, shape, index), inverse = qp ? 1.0f / qp->scale : 0;
        if (qp)
            qd_observe_one(&wanted, value, value * inverse, qp);
        if (qp ? ((const uint8_t *)out->data)[k] != qd_requantize_one(value, inverse, qp)
               : !same_floats((const float *)out->data + k, &value, 1))
            return false;
    }
    return !qp || same_observation(seen, &wanted);
}

static void test_programs(void **state)
{
    (void)state;
    static const struct qd_shape shapes[] = {
        {0, {0}},
        {1, {1}},
        {1, {5000}},
        {2, {3, 1536}},
        {2, {130, 24}},
        {4, {2, 5, 7, 9}},
        {4, {1, 24, 40, 3}},
        {3, {2, 1, 33}},
        {4, {2, 96, 1, 1}},
        {5, {2, 3, 4, 5, 6}},
        {3, {4, 1030, 3}},
        {4, {1, 8, 64, 64}},
        {2, {0, 3}},
    };
    for (uint64_t round = 0; round < 400; round++) {
        uint64_t s = 99 + round;
        const struct qd_shape *shape = &shapes[round % (sizeof shapes / sizeof *shapes)];
        struct trial t = {0};
        assert_int_equal(qd_arena_create(1 << 16, &t.arena), QD_OK);
        draw_trial(&t, &s, shape);
        for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
            if (!qd_kernels_at((enum qd_isa)isa))
                continue;
            const struct way way = {.layout = round % 2 && shape->rank >= 3 ? QD_CHANNELS_LAST : QD_PLAIN,
                                    .out_qp = round / 2 % 2 ? &SCALES[round % 3] : NULL,
                                    .threads = 1 + (unsigned)(draw(&s) % 3),
                                    .isa = (enum qd_isa)isa};
            struct qd_observation seen = qd_observation_empty();
            const struct qd_tensor out = run(&t, &way, shape->rank, &seen);
            assert_true(qd_shape_equal(&out.shape, shape));
            if (!same_results(&t, shape, &out, way.out_qp, &seen))
                fail_msg("round %d under %s", (int)round, qd_isa_name((enum qd_isa)isa));
        }
        qd_arena_destroy(&t.arena);
    }
}

/* ------------------------------------------------------------------ which nodes become one program */

struct row {
    const char *op, *inputs, *output, *attributes;
};

/* The units that are left of nodes on x [N, 8, H, W] (the last node makes the output): "name(merged)" each. */
static void units_of(const struct row *rows, size_t count, uint64_t opset, char *text, size_t room)
{
    struct qd_mb b = {0};
    struct qd_error error;
    struct qd_graph *graph;
    struct qd_arena *arena;
    struct qd_unit *units;
    int unit_count;
    const float two = 2, half = 0.5f, numbers[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    qd_mb_input(&b, "x", QD_F32, "N,8,H,W");
    qd_mb_input(&b, "ints", QD_I64, "4");
    qd_mb_constant(&b, "two", QD_F32, "", &two);
    qd_mb_constant(&b, "half", QD_F32, "1", &half);
    qd_mb_constant(&b, "channels", QD_F32, "8,1,1", numbers);
    qd_mb_constant(&b, "vector", QD_F32, "8", numbers);
    for (size_t i = 0; i < count; i++)
        qd_mb_node(&b, rows[i].op, rows[i].inputs, rows[i].output, rows[i].attributes);
    qd_mb_output(&b, rows[count - 1].output, QD_F32, "");
    qd_mb_finish(&b, opset);
    assert_int_equal(qd_onnx_import(b.model.bytes, b.model.size, &graph, &error), QD_OK);
    assert_int_equal(qd_arena_create(4096, &arena), QD_OK);
    assert_int_equal(qd_fuse(graph, arena, &units, &unit_count, &error), QD_OK);
    assert_int_equal(qd_fuse_pointwise(graph, arena, units, &unit_count, &error), QD_OK);
    text[0] = 0;
    for (int u = 0; u < unit_count; u++) {
        const struct qd_node *node = &graph->nodes[units[u].node];
        const size_t at = strlen(text);
        assert_string_equal(node->domain, strcmp(node->op, "Pointwise") ? "" : "quantd");
        snprintf(text + at, room - at, "%s%s%s(%s)", u ? " " : "", strcmp(node->op, "Pointwise") ? node->op : "",
                 node->name, units[u].fused);
    }
    qd_arena_destroy(&arena);
    qd_graph_destroy(&graph);
    qd_mb_free(&b);
}

#define EXPECT(wanted, ...)                                                                                            \
    do {                                                                                                               \
        const struct row rows[] = {__VA_ARGS__};                                                                       \
        char text[256];                                                                                                \
        units_of(rows, sizeof rows / sizeof *rows, 18, text, sizeof text);                                             \
        assert_string_equal(text, wanted);                                                                             \
    } while (0)

static void test_units(void **state)
{
    (void)state;
    /* A chain; a branch that joins again; numbers are parameters. */
    EXPECT("c(a,b)", {"Relu", "x", "a", NULL}, {"Exp", "a", "b", NULL}, {"Neg", "b", "c", NULL});
    EXPECT("c(a,b)", {"Mul", "x two", "a", NULL}, {"Sigmoid", "a", "b", NULL}, {"Mul", "a b", "c", NULL});
    /* A gate of one number a channel is not computed for every pixel. */
    EXPECT("GlobalAveragePoolg() s(a) y()", {"GlobalAveragePool", "x", "g", NULL}, {"Mul", "g half", "a", NULL},
           {"Sigmoid", "a", "s", NULL}, {"Mul", "x s", "y", NULL});
    EXPECT("ReduceMeanm() d() ReduceMeanv() s(e) y()", {"ReduceMean", "x", "m", "axes=[3]"}, {"Sub", "x m", "d", NULL},
           {"ReduceMean", "d", "v", "axes=[3]"}, {"Add", "v half", "e", NULL}, {"Sqrt", "e", "s", NULL},
           {"Div", "d s", "y", NULL});
    /* A value that someone else reads stays; so does what is not known to be float. */
    EXPECT("a() GlobalMaxPoolg() y(b)", {"Relu", "x", "a", NULL}, {"GlobalMaxPool", "a", "g", NULL},
           {"Neg", "a", "b", NULL}, {"Add", "b g", "y", NULL});
    EXPECT("Addi() Castf() y()", {"Add", "ints ints", "i", NULL}, {"Cast", "i", "f", "to=1"},
           {"Mul", "f two", "y", NULL});
    /* Operators without a program, powers by exponent. */
    EXPECT("Atana() y(p)", {"Atan", "x", "a", NULL}, {"Pow", "a two", "p", NULL}, {"Sqrt", "p", "y", NULL});
    EXPECT("Powp() y()", {"Pow", "x channels", "p", NULL}, {"Sqrt", "p", "y", NULL});
    EXPECT("y(n)", {"BatchNormalization", "x vector vector vector vector", "n", NULL},
           {"Add", "n channels", "y", NULL});
}

/* ------------------------------------------------------------------ answers */

static double plain_answer(double x, double c)
{
    double n = (x - c) * (c / sqrt(c + 1e-5)) + c, h = n * fmin(fmax(n / 6 + 0.5, 0), 1), e = (h * 0.5 + 2) / 3;
    return fmin(fmax(e * e - log1p(exp(-n)) + 4 / (2 + fabs(h)), -3), 9) / 8 - (1.5 - tanh(n));
}

/* Everything in one net of branches: against libm. */
static void test_answers(void **state)
{
    (void)state;
    const float six = 6, half = 0.5f, two = 2, three = 3, four = 4, eight = 8, one = 1, zero = 0, low = -3, high = 9,
                most = 1.5f, channels[3] = {0.5f, 1, 2};
    struct qd_mb b = {0};
    struct qd_engine *engine = qd_mb_engine(2);
    struct qd_quant_options options = qd_quant_defaults();
    struct qd_error error = {.status = QD_OK};
    options.precision = QD_FP32;
    qd_mb_input(&b, "x", QD_F32, "N,3,H,W");
    const struct {
        const char *name;
        const float *value;
    } numbers[] = {{"six", &six}, {"half", &half}, {"two", &two}, {"three", &three}, {"four", &four}, {"eight", &eight},
                   {"one", &one}, {"zero", &zero}, {"low", &low}, {"high", &high},   {"most", &most}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        qd_mb_constant(&b, numbers[i].name, QD_F32, "", numbers[i].value);
    qd_mb_constant(&b, "c", QD_F32, "3", channels);
    static const struct row rows[] = {
        {"BatchNormalization", "x c c c c", "n", NULL},
        {"Div", "n six", "d", NULL},
        {"Add", "d half", "p", NULL},
        {"Max", "p zero", "m", NULL},
        {"Min", "m one", "g", NULL},
        {"Mul", "n g", "h", NULL},
        {"Mul", "h half", "t", NULL},
        {"Add", "t two", "u", NULL},
        {"Div", "u three", "e", NULL},
        {"Pow", "e two", "q", NULL},
        {"Neg", "n", "i", NULL},
        {"Softplus", "i", "s", NULL},
        {"Sub", "q s", "r", NULL},
        {"Abs", "h", "a", NULL},
        {"Add", "two a", "k", NULL},
        {"Div", "four k", "f", NULL},
        {"Sum", "r f zero", "v", NULL},
        {"Clip", "v low high", "w", NULL},
        {"Div", "w eight", "z", NULL},
        {"Tanh", "n", "th", NULL},
        {"Sub", "most th", "o", NULL},
        {"Sub", "z o", "y", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        qd_mb_node(&b, rows[i].op, rows[i].inputs, rows[i].output, rows[i].attributes);
    qd_mb_output(&b, "y", QD_F32, "");
    qd_mb_finish(&b, 15);
    struct qd_model *model = qd_mb_load(&b, engine, &options, &error);
    if (!model)
        fail_msg("%s", error.text);
    enum { ELEMS = 2 * 3 * 37 * 41 };
    float *x = test_malloc(ELEMS * sizeof *x);
    qd_mb_fill(x, ELEMS, 7, 6);
    struct qd_infer *infer = qd_mb_run(model, NULL, "2,3,37,41", x);
    const float *y = qd_infer_output(infer, 0)->data;
    for (size_t i = 0; i < ELEMS; i++) {
        const double wanted = plain_answer((double)x[i], (double)channels[i / (37 * 41) % 3]);
        if (!(fabs((double)y[i] - wanted) <= 2e-5 * (1 + fabs(wanted))))
            fail_msg("%zu: %.9g instead of %.9g", i, (double)y[i], wanted);
    }
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_engine_destroy(&engine);
    qd_mb_free(&b);
    test_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_programs), cmocka_unit_test(test_units),
                                       cmocka_unit_test(test_answers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
