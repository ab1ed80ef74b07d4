/* The budget of errors: the choice against all combinations, and the decisions over long simulated streams: the target
 * is met soon, at little more than least cost, and then nothing moves any more. */
#include "engine/quant/budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

enum { LAYERS = 30, STREAM = 100000, SEEDS = 60 };
enum { ALL = 7 };

static uint64_t seed;

static double uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return ((double)(seed >> 11) + 0.5) / 9007199254740992.0;
}

static double normal(void) { return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform()); }

/* A layer as they are: 16 bits cost about twice as much as 8, FP32 four times; some are faster in FP32. */
static struct qd_budget_layer random_layer(double error)
{
    const double time = exp(normal()), fp32 = uniform() < 0.1 ? 0.8 : 2.5 + 1.5 * uniform();
    return (struct qd_budget_layer){
        .cost = {time, time * (1.6 + uniform()), time * fp32}, .error = {error, error * 1e-4, 0}, .may = ALL};
}

static double cost_of(const struct qd_budget_layer *layers, size_t count, const enum qd_budget_way *ways)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += layers[i].cost[ways[i]];
    return sum;
}

/* ------------------------------------------------------------------ the choice */

/* Least cost of all combinations that are good enough. */
static double least_cost(const struct qd_budget_layer *layers, size_t count, double most)
{
    double best = INFINITY;
    size_t all = 1;
    for (size_t i = 0; i < count; i++)
        all *= 3;
    for (size_t c = 0; c < all; c++) {
        enum qd_budget_way ways[16];
        double error = 0;
        for (size_t i = 0, rest = c; i < count; i++, rest /= 3) {
            ways[i] = (enum qd_budget_way)(rest % 3);
            error += layers[i].error[rest % 3];
        }
        const double cost = qd_budget_cost(layers, count, ways);
        if (error <= most && cost < best)
            best = cost;
    }
    return best;
}

static void test_the_choice_is_near_the_best(void **state)
{
    (void)state;
    double ratio = 0;
    for (int round = 0; round < 200; round++) {
        struct qd_budget_layer layers[7];
        enum qd_budget_way ways[7];
        double sum = 0;
        seed = (uint64_t)round;
        for (int i = 0; i < 7; i++) {
            layers[i] = random_layer(exp(2 * normal()));
            sum += layers[i].error[0];
        }
        const double most = sum * (0.05 + 0.5 * uniform());
        assert_true(qd_budget_solve(layers, 7, most, ways) <= most);
        const double best = least_cost(layers, 7, most), mine = cost_of(layers, 7, ways);
        assert_true(mine < best * 1.5);
        ratio += mine / best;
    }
    assert_true(ratio / 200 < 1.02);
}

static void test_only_what_may_be(void **state)
{
    (void)state;
    struct qd_budget_layer layers[3] = {random_layer(1), random_layer(1), random_layer(1)};
    enum qd_budget_way ways[3];
    layers[1].may = 1 << QD_WAY_INT8; /* pinned */
    layers[2].may = 1 << QD_WAY_INT8 | 1 << QD_WAY_FP32;
    const double least = layers[0].error[QD_WAY_FP32] + layers[1].error[QD_WAY_INT8] + layers[2].error[QD_WAY_FP32];
    assert_true(qd_budget_solve(layers, 3, 1e-9, ways) == least); /* can't be met: as good as it gets */
    assert_int_equal(ways[1], QD_WAY_INT8);
    assert_int_equal(ways[2], QD_WAY_FP32);
}

static void test_sixteen_bits_where_they_do(void **state)
{
    (void)state;
    struct qd_budget_layer layer = {.cost = {1, 2, 4}, .error = {1, 1e-4, 0}, .may = ALL};
    enum qd_budget_way way;
    qd_budget_solve(&layer, 1, 2, &way);
    assert_int_equal(way, QD_WAY_INT8);
    qd_budget_solve(&layer, 1, 1e-3, &way);
    assert_int_equal(way, QD_WAY_INT16);
    qd_budget_solve(&layer, 1, 1e-5, &way);
    assert_int_equal(way, QD_WAY_FP32);
}

/* Layers in a row, i reads what i - 1 makes; the first reads floats, the last makes them. */
struct row {
    struct qd_budget_layer layers[7];
    struct qd_budget_tensor tensors[8];
    const struct qd_budget_tensor *lists[7][2];
    size_t ends[8][2];
};

static void row_make(struct row *r, double conversion)
{
    for (size_t t = 0; t < 8; t++) {
        const bool made = t > 0, read = t < 7;
        r->ends[t][0] = made ? t - 1 : t;
        r->ends[t][1] = t;
        r->tensors[t] = (struct qd_budget_tensor){.cost = {conversion, 1.2 * conversion},
                                                  .floats = !made || !read,
                                                  .makers = made,
                                                  .readers = read,
                                                  .ends = r->ends[t]};
    }
    for (size_t i = 0; i < 7; i++) {
        r->lists[i][0] = &r->tensors[i];
        r->lists[i][1] = &r->tensors[i + 1];
        r->layers[i] = (struct qd_budget_layer){
            .cost = {1, 2, 4}, .error = {1, 1e-4, 0}, .may = ALL, .tensors = r->lists[i], .tensor_count = 2};
    }
}

static void test_conversions_are_counted_once(void **state)
{
    (void)state;
    const enum qd_budget_way b = QD_WAY_INT8, w = QD_WAY_INT16, f = QD_WAY_FP32;
    const struct {
        enum qd_budget_way ways[7];
        double cost;
    } cases[] = {{{b, b, b, b, b, b, b}, 7 + 10},      {{f, f, f, f, f, f, f}, 28},
                 {{b, b, f, b, b, b, b}, 10 + 20},     {{b, b, f, f, b, b, b}, 13 + 20},
                 {{b, w, b, b, b, b, b}, 8 + 10 + 22}, {{f, b, b, b, b, b, b}, 10 + 10}};
    struct row r;
    row_make(&r, 10);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_true(fabs(qd_budget_cost(r.layers, 7, cases[i].ways) - cases[i].cost) < 1e-9);

    /* two layers and, as the second operand of its sum, a third read what another makes */
    const size_t ends[4] = {0, 1, 2, 3};
    struct qd_budget_tensor shared = {.cost = {10, 12}, .makers = 1, .readers = 2, .others = 1, .ends = ends};
    const struct qd_budget_tensor *list[1] = {&shared};
    struct qd_budget_layer four[4];
    for (size_t i = 0; i < 4; i++)
        four[i] = (struct qd_budget_layer){.cost = {1, 1, 1}, .may = ALL, .tensors = list, .tensor_count = 1};
    assert_true(fabs(qd_budget_cost(four, 4, (enum qd_budget_way[]){b, b, b, b}) - 4) < 1e-9);
    assert_true(fabs(qd_budget_cost(four, 4, (enum qd_budget_way[]){f, b, b, b}) - 14) < 1e-9);
    assert_true(fabs(qd_budget_cost(four, 4, (enum qd_budget_way[]){f, b, w, b}) - 26) < 1e-9);
    assert_true(fabs(qd_budget_cost(four, 4, (enum qd_budget_way[]){b, b, b, f}) - 14) < 1e-9);
    assert_true(fabs(qd_budget_cost(four, 4, (enum qd_budget_way[]){b, f, f, b}) - 4) < 1e-9);

    /* floats take longer to write, whoever makes them */
    shared.floats_cost = 3;
    assert_true(fabs(qd_budget_cost(four, 4, (enum qd_budget_way[]){b, b, b, b}) - 4) < 1e-9);
    assert_true(fabs(qd_budget_cost(four, 4, (enum qd_budget_way[]){b, f, f, b}) - 7) < 1e-9);
    shared.floats_cost = 0;

    /* its maker writes bytes even in floating point: as long as nobody reads floats */
    shared.written = true;
    assert_true(fabs(qd_budget_cost(four, 4, (enum qd_budget_way[]){f, b, b, b}) - 4) < 1e-9);
    assert_true(fabs(qd_budget_cost(four, 4, (enum qd_budget_way[]){f, b, f, b}) - 14) < 1e-9);
    assert_true(fabs(qd_budget_cost(four, 4, (enum qd_budget_way[]){f, b, b, f}) - 14) < 1e-9);
}

static void test_neighbours_move_together(void **state)
{
    (void)state;
    struct row r;
    enum qd_budget_way ways[7];
    for (int dear = 0; dear < 2; dear++) { /* layers 3 and 6 have to move; integers again between them */
        row_make(&r, dear ? 10 : 0.1);
        for (int i = 0; i < 7; i++)
            r.layers[i].error[QD_WAY_INT8] = i == 3 || i == 6 ? 1 : 1e-3;
        assert_true(qd_budget_solve(r.layers, 7, 0.5, ways) <= 0.5);
        for (int i = 0; i < 7; i++) {
            const bool has_to = i == 3 || i == 6, between = i == 4 || i == 5;
            assert_true((ways[i] != QD_WAY_INT8) == (has_to || (dear && between)));
            assert_true(!dear || ways[i] == QD_WAY_INT8 || ways[i] == QD_WAY_FP32); /* 16 bits would be converted to */
        }
    }
}

static void test_with_conversions_near_the_best(void **state)
{
    (void)state;
    double ratio = 0;
    for (int round = 0; round < 200; round++) {
        struct row r;
        enum qd_budget_way ways[7];
        double sum = 0;
        seed = 300u + (uint64_t)round;
        row_make(&r, 0.5);
        for (int i = 0; i < 7; i++) {
            const struct qd_budget_layer l = random_layer(exp(2 * normal()));
            memcpy(r.layers[i].cost, l.cost, sizeof l.cost);
            memcpy(r.layers[i].error, l.error, sizeof l.error);
            sum += l.error[0];
        }
        for (int t = 0; t < 8; t++)
            for (int k = 0; k < 2; k++)
                r.tensors[t].cost[k] *= 2 * uniform();
        const double most = sum * (0.05 + 0.5 * uniform());
        assert_true(qd_budget_solve(r.layers, 7, most, ways) <= most);
        ratio += qd_budget_cost(r.layers, 7, ways) / least_cost(r.layers, 7, most);
    }
    assert_true(ratio / 200 < 1.03);
}

/* ------------------------------------------------------------------ decisions over a stream */

struct stream {
    struct qd_budget budget;
    struct qd_budget_layer layers[LAYERS]; /* as the caller believes them to be */
    double truth[LAYERS];                  /* by what their errors really differ */
    double spread;                         /* of single requests: sigma of the logarithm */
    int plans, last, directions[LAYERS];   /* changes of plan, when the last was; turns up and down of each layer */
    bool rose[LAYERS], moved[LAYERS];
};

static double error_of(const struct stream *s)
{
    double sum = 1e-6; /* of what no layer can help */
    for (int i = 0; i < LAYERS; i++)
        sum += s->layers[i].error[s->layers[i].now] * s->truth[i];
    return sum;
}

/* Errors of layers over three decades, known to a factor of two or so; together `over` times the target. */
static struct stream stream_new(double over, double target)
{
    struct stream s = {.spread = 0.2 + 0.8 * uniform()};
    double sum = 0;
    for (int i = 0; i < LAYERS; i++) {
        s.layers[i] = random_layer(exp(1.5 * normal()));
        s.truth[i] = exp(0.6 * normal());
        sum += s.layers[i].error[0] * s.truth[i];
    }
    for (int i = 0; i < LAYERS; i++)
        for (int w = 0; w < QD_WAYS; w++)
            s.layers[i].error[w] *= over * target / sum;
    qd_budget_aim(&s.budget, target);
    return s;
}

static void note_moves(struct stream *s, const enum qd_budget_way *ways)
{
    for (int i = 0; i < LAYERS; i++) {
        const bool up = s->layers[i].error[ways[i]] < s->layers[i].error[s->layers[i].now];
        if (ways[i] == s->layers[i].now)
            continue;
        s->directions[i] += s->moved[i] && s->rose[i] != up;
        s->rose[i] = up;
        s->moved[i] = true;
    }
}

static void observe(struct stream *s, int count, int from)
{
    for (int t = from; t < from + count; t++) {
        const double request = error_of(s) * exp(s->spread * normal() - s->spread * s->spread / 2);
        const enum qd_budget_verdict verdict = qd_budget_observe(&s->budget, request, 1);
        enum qd_budget_way ways[LAYERS];
        if (verdict == QD_BUDGET_STAY || qd_budget_decide(&s->budget, verdict, s->layers, LAYERS, ways) == 0)
            continue;
        note_moves(s, ways);
        qd_budget_moved(&s->budget, verdict, s->layers, LAYERS, ways);
        s->plans++;
        s->last = t;
    }
}

static void test_met_soon_and_kept(void **state)
{
    (void)state;
    double soon = 0;
    for (int round = 0; round < SEEDS; round++) {
        seed = 1000u + (uint64_t)round;
        struct stream s = stream_new(2 + 50 * uniform(), 1e-3);
        observe(&s, 500, 0);
        soon += error_of(&s) <= 1e-3;
        observe(&s, STREAM - 500, 500);
        assert_true(error_of(&s) <= 1e-3);
        assert_true(s.plans <= 8);
        assert_true(s.last < STREAM / 4);
        for (int i = 0; i < LAYERS; i++)
            assert_true(s.directions[i] <= 2); /* up, down, and up for good */
    }
    assert_true(soon >= SEEDS * 0.95);
}

static void test_cheap_in_the_end(void **state)
{
    (void)state;
    double ratio = 0;
    for (int round = 0; round < SEEDS; round++) {
        seed = 5000u + (uint64_t)round;
        struct stream s = stream_new(10, 1e-3);
        for (int i = 0; i < LAYERS; i++)
            s.truth[i] = 1; /* well measured */
        observe(&s, 5000, 0);
        enum qd_budget_way ways[LAYERS], now[LAYERS];
        for (int i = 0; i < LAYERS; i++)
            now[i] = s.layers[i].now;
        qd_budget_solve(s.layers, LAYERS, 0.95e-3, ways);
        ratio += cost_of(s.layers, LAYERS, now) / cost_of(s.layers, LAYERS, ways);
    }
    assert_true(ratio / SEEDS < 1.25);
}

static void test_nothing_moves_under_the_target(void **state)
{
    (void)state;
    for (int round = 0; round < 10; round++) {
        seed = 9000u + (uint64_t)round;
        struct stream s = stream_new(0.7, 1e-3);
        observe(&s, STREAM, 0);
        assert_true(s.plans <= 1); /* by an unlucky first look */
    }
}

/* Traffic that gets harder later is answered; traffic that gets easy again brings layers back, once. */
static void test_traffic_that_changes(void **state)
{
    (void)state;
    seed = 77;
    struct stream s = stream_new(0.5, 1e-3);
    observe(&s, 5000, 0);
    assert_int_equal(s.plans, 0);
    for (int i = 0; i < LAYERS; i++)
        s.truth[i] *= 10;
    observe(&s, 1500, 5000);
    assert_true(s.plans > 0 && error_of(&s) <= 1e-3);
    enum qd_budget_way then[LAYERS], now[LAYERS];
    for (int i = 0; i < LAYERS; i++) {
        then[i] = s.layers[i].now;
        s.truth[i] /= 20;
    }
    observe(&s, 3000, 6500);
    for (int i = 0; i < LAYERS; i++)
        now[i] = s.layers[i].now;
    assert_true(cost_of(s.layers, LAYERS, now) < cost_of(s.layers, LAYERS, then));
    assert_true(error_of(&s) <= 1e-3);
}

static void test_nonsense_is_not_observed(void **state)
{
    (void)state;
    struct qd_budget b;
    qd_budget_aim(&b, 1e-3);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(qd_budget_observe(&b, NAN, 1), QD_BUDGET_STAY);
        assert_int_equal(qd_budget_observe(&b, INFINITY, 1), QD_BUDGET_STAY);
    }
    assert_true(isnan(qd_budget_mean(&b)));
    for (int i = 0; i < QD_BUDGET_FIRST - 1; i++)
        assert_int_equal(qd_budget_observe(&b, 4, 2), QD_BUDGET_STAY);
    assert_int_equal(qd_budget_observe(&b, 4, 2), QD_BUDGET_OVER);
    assert_true(qd_budget_mean(&b) == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_choice_is_near_the_best),
        cmocka_unit_test(test_only_what_may_be),
        cmocka_unit_test(test_sixteen_bits_where_they_do),
        cmocka_unit_test(test_conversions_are_counted_once),
        cmocka_unit_test(test_neighbours_move_together),
        cmocka_unit_test(test_with_conversions_near_the_best),
        cmocka_unit_test(test_met_soon_and_kept),
        cmocka_unit_test(test_cheap_in_the_end),
        cmocka_unit_test(test_nothing_moves_under_the_target),
        cmocka_unit_test(test_traffic_that_changes),
        cmocka_unit_test(test_nonsense_is_not_observed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
