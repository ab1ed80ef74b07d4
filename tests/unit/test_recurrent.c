/* LSTM, GRU and RNN against their equations in double: directions, layouts, lengths, initial states, constant weights
 * packed beforehand or not, FP32 and INT8; rows of a batch and threads don't change a byte. */
#include "engine/ops/op.h"
#include "tests/kernels/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { LSTM, GRU, RNN };
enum { MOST = 1 << 14 };

static void backwards(struct qd_parallel *parallel, size_t tasks, void (*fn)(void *ctx, size_t task), void *ctx)
{
    (void)parallel;
    while (tasks-- > 0)
        fn(ctx, tasks);
}

/* A node and its data; steps first, or batches when `layout`. */
struct trial {
    int cell, gates, dirs;
    bool layout, reverse, after, lengths, states, peepholes, bias;
    size_t steps, batch, input, hidden;
    float x[MOST], w[MOST], r[MOST], b[512], h0[512], c0[512], peep[512];
    int32_t length[8];
    struct qd_attr attrs[8];
    struct qd_node node;
};

static void attr(struct trial *t, struct qd_attr value) { t->attrs[t->node.attr_count++] = value; }

static void text(struct trial *t, const char *name, const char *value)
{
    attr(t, (struct qd_attr){.name = name, .type = QD_ATTR_STRING, .count = 1, .s = {value, strlen(value)}});
}

static void number(struct trial *t, const char *name, int64_t value)
{
    attr(t, (struct qd_attr){.name = name, .type = QD_ATTR_INT, .count = 1, .i = value});
}

static void fill(uint64_t *s, float *x, size_t n, float width)
{
    for (size_t i = 0; i < n; i++)
        x[i] = draw_f32(s, width);
}

static void make(struct trial *t, uint64_t seed)
{
    static const int ids[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    static const char *const names[] = {"LSTM", "GRU", "RNN"}, *const ways[] = {"forward", "reverse", "bidirectional"};
    uint64_t s = seed;
    memset(t, 0, sizeof *t);
    t->cell = (int)(seed % 3);
    t->gates = t->cell == LSTM ? 4 : t->cell == GRU ? 3 : 1;
    int way = (int)(seed / 3 % 3);
    t->dirs = way == 2 ? 2 : 1;
    t->reverse = way == 1;
    t->layout = draw(&s) % 3 == 0;
    t->after = t->cell == GRU && draw(&s) % 2;
    t->lengths = draw(&s) % 3 == 0;
    t->states = draw(&s) % 2;
    t->bias = draw(&s) % 4;
    t->peepholes = t->cell == LSTM && draw(&s) % 4 == 0;
    t->steps = 1 + draw(&s) % 7;
    t->batch = 1 + draw(&s) % 3;
    t->input = seed % 4 ? 1 + draw(&s) % 20 : 66;
    t->hidden = 1 + draw(&s) % 21;
    t->node = (struct qd_node){.name = "node",
                               .op = names[t->cell],
                               .domain = "",
                               .opset = 14,
                               .in = ids,
                               .out = ids,
                               .in_count = t->cell == LSTM ? 8 : 6,
                               .out_count = t->cell == LSTM ? 3 : 2,
                               .attrs = t->attrs};
    text(t, "direction", ways[way]);
    number(t, "hidden_size", (int64_t)t->hidden);
    number(t, "layout", t->layout);
    number(t, "linear_before_reset", t->after);
    size_t rows = (size_t)(t->dirs * t->gates) * t->hidden;
    fill(&s, t->x, t->steps * t->batch * t->input, 4);
    fill(&s, t->w, rows * t->input, 1);
    fill(&s, t->r, rows * t->hidden, 1);
    fill(&s, t->b, 2 * rows, 1);
    fill(&s, t->h0, (size_t)t->dirs * t->batch * t->hidden, 2);
    fill(&s, t->c0, (size_t)t->dirs * t->batch * t->hidden, 2);
    fill(&s, t->peep, (size_t)t->dirs * 3 * t->hidden, 1);
    for (size_t i = 0; i < t->batch; i++)
        t->length[i] = (int32_t)(t->lengths ? draw(&s) % (t->steps + 1) : t->steps);
}

struct result {
    float y[MOST], h[512], c[512];
};

/* ------------------------------------------------------------------ the equations */

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

/* W x + R h + both biases (or one of the three) in front of gate g, unit j. */
static double part(const struct trial *t, int dir, int g, size_t j, const float *x, const double *h, bool of_x,
                   bool of_h)
{
    size_t rows = (size_t)t->gates * t->hidden, row = (size_t)g * t->hidden + j, all = (size_t)dir * rows + row;
    double sum = 0;
    for (size_t k = 0; of_x && k < t->input; k++)
        sum += (double)t->w[all * t->input + k] * (double)x[k];
    for (size_t k = 0; of_h && k < t->hidden; k++)
        sum += (double)t->r[all * t->hidden + k] * h[k];
    if (t->bias)
        sum += (of_x ? (double)t->b[(size_t)dir * 2 * rows + row] : 0) +
               (of_h ? (double)t->b[(size_t)dir * 2 * rows + rows + row] : 0);
    return sum;
}

static void one_step(const struct trial *t, int dir, const float *x, double *h, double *c)
{
    double next[32], masked[32];
    const float *peep = t->peep + (size_t)dir * 3 * t->hidden;
    for (size_t j = 0; j < t->hidden && t->cell == GRU; j++)
        masked[j] = sigmoid(part(t, dir, 1, j, x, h, true, true)) * h[j];
    for (size_t j = 0; j < t->hidden; j++) {
        double first = part(t, dir, 0, j, x, h, true, true);
        if (t->cell == RNN) {
            next[j] = tanh(first);
        } else if (t->cell == GRU) {
            double z = sigmoid(first), r = sigmoid(part(t, dir, 1, j, x, h, true, true));
            double past = t->after ? r * part(t, dir, 2, j, x, h, false, true)
                                   : part(t, dir, 2, j, x, masked, false, true);
            next[j] = (1 - z) * tanh(part(t, dir, 2, j, x, h, true, false) + past) + z * h[j];
        } else {
            double p[3] = {0};
            for (size_t k = 0; k < 3 && t->peepholes; k++)
                p[k] = (double)peep[k * t->hidden + j];
            double i = sigmoid(first + p[0] * c[j]), f = sigmoid(part(t, dir, 2, j, x, h, true, true) + p[2] * c[j]);
            c[j] = f * c[j] + i * tanh(part(t, dir, 3, j, x, h, true, true));
            next[j] = sigmoid(part(t, dir, 1, j, x, h, true, true) + p[1] * c[j]) * tanh(c[j]);
        }
    }
    memcpy(h, next, t->hidden * sizeof *h);
}

static void equations(const struct trial *t, struct result *out)
{
    memset(out, 0, sizeof *out);
    for (int dir = 0; dir < t->dirs; dir++)
        for (size_t b = 0; b < t->batch; b++) {
            size_t d = (size_t)dir, dirs = (size_t)t->dirs, length = (size_t)t->length[b];
            size_t state = (t->layout ? b * dirs + d : d * t->batch + b) * t->hidden;
            double h[32] = {0}, c[32] = {0};
            for (size_t j = 0; j < t->hidden && t->states; j++) {
                h[j] = (double)t->h0[state + j];
                c[j] = (double)t->c0[state + j];
            }
            for (size_t step = 0; step < length; step++) {
                size_t at = t->reverse || dir == 1 ? length - 1 - step : step;
                size_t row = t->layout ? b * t->steps + at : at * t->batch + b;
                one_step(t, dir, t->x + row * t->input, h, c);
                size_t y = t->layout ? (b * t->steps + at) * dirs + d : (at * dirs + d) * t->batch + b;
                for (size_t j = 0; j < t->hidden; j++)
                    out->y[y * t->hidden + j] = (float)h[j];
            }
            for (size_t j = 0; j < t->hidden; j++) {
                out->h[state + j] = (float)h[j];
                out->c[state + j] = (float)c[j];
            }
        }
}

/* ------------------------------------------------------------------ the operator */

struct way {
    bool pack, int8;
    unsigned threads;
    enum qd_isa isa;
};

static void inputs(struct trial *t, struct qd_tensor in[8])
{
    int64_t dirs = t->dirs, rows = t->gates * (int64_t)t->hidden, batch = (int64_t)t->batch, n = (int64_t)t->hidden;
    int64_t a = t->layout ? batch : dirs, b = t->layout ? dirs : batch;
    memset(in, 0, 8 * sizeof *in);
    in[0] = (struct qd_tensor){QD_F32, QD_PLAIN, {3, {(int64_t)t->steps, batch, (int64_t)t->input}}, t->x};
    if (t->layout)
        in[0].shape = (struct qd_shape){3, {batch, (int64_t)t->steps, (int64_t)t->input}};
    in[1] = (struct qd_tensor){QD_F32, QD_PLAIN, {3, {dirs, rows, (int64_t)t->input}}, t->w};
    in[2] = (struct qd_tensor){QD_F32, QD_PLAIN, {3, {dirs, rows, n}}, t->r};
    if (t->bias)
        in[3] = (struct qd_tensor){QD_F32, QD_PLAIN, {2, {dirs, 2 * rows}}, t->b};
    if (t->lengths)
        in[4] = (struct qd_tensor){QD_I32, QD_PLAIN, {1, {batch}}, t->length};
    if (t->states) {
        in[5] = (struct qd_tensor){QD_F32, QD_PLAIN, {3, {a, b, n}}, t->h0};
        in[6] = (struct qd_tensor){QD_F32, QD_PLAIN, {3, {a, b, n}}, t->c0};
    }
    if (t->peepholes)
        in[7] = (struct qd_tensor){QD_F32, QD_PLAIN, {2, {dirs, 3 * n}}, t->peep};
}

static void run(struct trial *t, const struct way *way, struct result *result)
{
    struct qd_error error = {.status = QD_OK};
    struct qd_tensor in[8], out[3] = {{0}};
    struct qd_parallel parallel = {way->threads, backwards};
    struct qd_arena *arena;
    void *prep = NULL;
    assert_int_equal(qd_arena_create(1 << 14, &arena), QD_OK);
    inputs(t, in);
    const struct qd_op *op = qd_op_find(&t->node, &error);
    assert_non_null(op);
    assert_int_equal(op->prepare(&t->node, arena, &prep, &error), QD_OK);
    const struct qd_tensor *constants[8] = {NULL, &in[1], &in[2]};
    const struct qd_packing packing = {.node = &t->node,
                                       .constants = constants,
                                       .kernels = qd_kernels_at(way->isa),
                                       .arena = arena,
                                       .int8 = way->int8};
    if (way->pack)
        assert_int_equal(op->pack(&packing, &prep, &error), QD_OK);
    struct qd_call call = {.node = &t->node,
                           .prep = prep,
                           .in_count = t->node.in_count,
                           .out_count = t->node.out_count,
                           .in = in,
                           .out = out,
                           .kernels = packing.kernels,
                           .parallel = &parallel};
    if (op->infer(&call, &error))
        fail_msg("%s", error.text);
    memset(result, 0, sizeof *result);
    float *const to[3] = {result->y, result->h, result->c};
    for (int i = 0; i < call.out_count; i++)
        out[i].data = to[i];
    size_t bytes = op->scratch(&call);
    call.scratch = qd_arena_alloc_raw(arena, bytes); /* of exactly that size */
    assert_non_null(call.scratch);
    memset(call.scratch, 0xff, bytes); /* NaN wherever something is read that nobody wrote */
    if (op->run(&call, &error))
        fail_msg("%s", error.text);
    qd_arena_destroy(&arena);
}

static void near(const struct trial *t, const struct result *got, const struct result *wanted, float tolerance,
                 uint64_t seed)
{
    size_t states = (size_t)t->dirs * t->batch * t->hidden, all = states * t->steps;
    float worst = 0;
    for (size_t i = 0; i < all; i++)
        worst = !(fabsf(got->y[i] - wanted->y[i]) <= worst) ? fabsf(got->y[i] - wanted->y[i]) : worst;
    for (size_t i = 0; i < states; i++) {
        worst = !(fabsf(got->h[i] - wanted->h[i]) <= worst) ? fabsf(got->h[i] - wanted->h[i]) : worst;
        if (t->cell == LSTM)
            worst = !(fabsf(got->c[i] - wanted->c[i]) <= worst) ? fabsf(got->c[i] - wanted->c[i]) : worst;
    }
    if (!(worst <= tolerance))
        fail_msg("%s, seed %d: %g away", t->node.op, (int)seed, (double)worst);
}

static struct trial trial;
static struct result wanted, got, other;

static void test_every_form_against_the_equations(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 360; seed++) {
        make(&trial, seed);
        equations(&trial, &wanted);
        for (int isa = 0; isa < QD_ISA_COUNT && qd_kernels_at((enum qd_isa)isa); isa++) {
            run(&trial, &(struct way){.threads = 1, .isa = (enum qd_isa)isa}, &got);
            near(&trial, &got, &wanted, 2e-5f, seed);
            run(&trial, &(struct way){.pack = true, .threads = 1, .isa = (enum qd_isa)isa}, &other);
            assert_memory_equal(&other, &got, sizeof got); /* packed beforehand or not */
            run(&trial, &(struct way){.pack = true, .int8 = true, .threads = 1, .isa = (enum qd_isa)isa}, &got);
            near(&trial, &got, &wanted, 0.08f, seed);
        }
    }
}

static void test_threads_change_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 90; seed++)
        for (int int8 = 0; int8 < 2; int8++) {
            make(&trial, seed);
            run(&trial, &(struct way){.pack = true, .int8 = int8, .threads = 1}, &got);
            run(&trial, &(struct way){.pack = true, .int8 = int8, .threads = 4}, &other);
            assert_memory_equal(&other, &got, sizeof got);
        }
}

/* Integer products are the same on every level, and so are the gates. */
static void test_levels_give_the_same_bytes_in_int8(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 90; seed++)
        for (int isa = 1; isa < QD_ISA_COUNT && qd_kernels_at((enum qd_isa)isa); isa++) {
            make(&trial, seed);
            if (trial.input < 64) /* a shallow input is multiplied in floats */
                continue;
            run(&trial, &(struct way){.pack = true, .int8 = true, .threads = 1}, &got);
            run(&trial, &(struct way){.pack = true, .int8 = true, .threads = 1, .isa = (enum qd_isa)isa}, &other);
            assert_memory_equal(&other, &got, sizeof got);
        }
}

/* The first sequence of a batch alone, and with neighbours that hold something terrible. */
static void test_neighbours_change_nothing(void **state)
{
    (void)state;
    static struct trial alone;
    size_t tried = 0;
    for (uint64_t seed = 0; seed < 360; seed++)
        for (int int8 = 0; int8 < 2; int8++) {
            make(&trial, seed);
            if (trial.batch == 1 || trial.layout || trial.dirs == 2)
                continue;
            tried++;
            alone = trial;
            alone.node.attrs = alone.attrs;
            alone.batch = 1;
            for (size_t step = 0; step < trial.steps; step++)
                for (size_t k = 0; k < trial.input; k++) {
                    alone.x[step * trial.input + k] = trial.x[step * trial.batch * trial.input + k];
                    trial.x[(step * trial.batch + 1) * trial.input + k] = k % 2 ? 1e30f : -INFINITY;
                }
            struct way way = {.pack = true, .int8 = int8, .threads = 1, .isa = QD_ISA_COUNT - 1};
            while (!qd_kernels_at(way.isa))
                way.isa--;
            run(&trial, &way, &got);
            run(&alone, &way, &other);
            size_t bytes = trial.hidden * sizeof(float);
            for (size_t step = 0; step < trial.steps; step++)
                assert_memory_equal(got.y + step * trial.batch * trial.hidden, other.y + step * trial.hidden, bytes);
            assert_memory_equal(got.h, other.h, bytes);
            assert_memory_equal(got.c, other.c, bytes);
        }
    assert_true(tried > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_form_against_the_equations),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_levels_give_the_same_bytes_in_int8),
        cmocka_unit_test(test_neighbours_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
