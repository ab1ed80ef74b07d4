/* Rows of floats: normalizations, moments and reductions of every level against plain arithmetic in double within a
 * stated error, and against the portable level bit by bit, with NaN, infinities and tails of every length; buffers of
 * exactly the stated length between canaries. */
#include "engine/kernels/kernels.h"
#include "tests/kernels/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEED = 815, GUARD = 16 };
static const float CANARY = -77.25f;

static const size_t LENGTHS[] = {1,  2,   7,   15,  16,  17,  31,   33,   63,   64,
                                 65, 100, 127, 128, 384, 511, 1000, 4096, 4097, 9999};
enum { LENGTH_COUNT = sizeof LENGTHS / sizeof *LENGTHS };

/* A buffer of n floats between canaries, at an odd place. */
static float *buffer(size_t n)
{
    float *memory = malloc((n + 2 * GUARD) * sizeof *memory);
    assert_non_null(memory);
    for (size_t i = 0; i < n + 2 * GUARD; i++)
        memory[i] = CANARY;
    return memory + GUARD - 1;
}

static void release(float *x, size_t n)
{
    for (size_t i = 0; i < GUARD - 1; i++)
        assert_true(x[-1 - (ptrdiff_t)i] == CANARY);
    for (size_t i = 0; i <= GUARD; i++)
        assert_true(x[n + i] == CANARY);
    free(x - (GUARD - 1));
}

static float *numbers(uint64_t seed, size_t n, float width, float centre, bool wild)
{
    const float rare[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 3.4e38f, 1e-45f};
    float *x = buffer(n);
    uint64_t s = seed;
    for (size_t i = 0; i < n; i++)
        x[i] = wild && draw(&s) % 50 == 0 ? rare[draw(&s) % 7] : draw_f32(&s, width) + centre;
    return x;
}

/* What a correct result may differ by: rounding of sums of n values around `size`. */
static bool near(float got, double want, double size)
{
    return isnan(want) ? isnan(got) : fabs((double)got - want) <= 4e-6 * (size + fabs(want));
}

static double mean_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    return sum / (double)n;
}

static double squares_of(const float *x, size_t n, double mean)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((double)x[i] - mean) * ((double)x[i] - mean);
    return sum / (double)n;
}

/* Layer (centred) or root-mean-square norm of three rows, with and without scale, bias and statistics, in place too. */
static void norms(bool centred)
{
    for (size_t round = 0; round < 4 * LENGTH_COUNT; round++) {
        size_t n = LENGTHS[round / 4], rows = 3, all = rows * n;
        float *x = numbers(SEED + round, all, 4, round % 3 == 0 ? 9 : 0.5f, false);
        float *scale = numbers(SEED + 100 + round, n, 2, 0.25f, false);
        float *bias = numbers(SEED + 200 + round, n, 2, 0, false), *judge = buffer(all), *y = buffer(all);
        float mean[3], inv[3], judge_mean[3], judge_inv[3];
        struct qd_norm norm = {.x = x, .rows = rows, .n = n, .epsilon = 1e-5f, .y = judge};
        norm.scale = round & 1 ? scale : NULL;
        norm.bias = centred && (round & 2) ? bias : NULL;
        norm.mean = judge_mean;
        norm.inv = judge_inv;
        for (int isa = 0; isa < QD_ISA_COUNT && qd_kernels_at((enum qd_isa)isa); isa++) {
            const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
            void (*run)(const struct qd_norm *) = centred ? kernels->layer_norm : kernels->rms_norm;
            if (isa) {
                norm.y = y;
                norm.mean = mean;
                norm.inv = inv;
                if (round % 2) { /* in place */
                    memcpy(y, x, all * sizeof *y);
                    norm.x = y;
                }
            }
            run(&norm);
            norm.x = x;
            if (isa)
                assert_true(same_floats(y, judge, all) && same_floats(mean, judge_mean, rows) &&
                            same_floats(inv, judge_inv, rows));
        }
        for (size_t i = 0; i < all; i++) {
            const float *row = x + i / n * n;
            double m = centred ? mean_of(row, n) : 0, v = 1 / sqrt(squares_of(row, n, m) + 1e-5);
            double want = ((double)x[i] - m) * v * (norm.scale ? (double)scale[i % n] : 1) +
                          (norm.bias ? (double)bias[i % n] : 0);
            if (!near(judge[i], want, (fabs(m) + 1) * v + 1))
                fail_msg("n %zu, element %zu: %.9g, want %.9g", n, i, (double)judge[i], want);
        }
        release(x, all);
        release(scale, n);
        release(bias, n);
        release(judge, all);
        release(y, all);
    }
}

static void layer_norms(void **unused)
{
    (void)unused;
    norms(true);
}

static void rms_norms(void **unused)
{
    (void)unused;
    norms(false);
}

static double reduced(enum qd_reduction kind, const float *x, size_t n, size_t stride)
{
    double all = kind == QD_MAX_OF ? -INFINITY : kind == QD_MIN_OF ? INFINITY : 0;
    for (size_t i = 0; i < n; i++) {
        double v = (double)x[i * stride];
        switch (kind) {
        case QD_SUM_OF:
            all += v;
            break;
        case QD_SUM_OF_ABS:
            all += fabs(v);
            break;
        case QD_SUM_OF_SQUARES:
            all += v * v;
            break;
        case QD_MAX_OF:
            all = v > all || isnan(v) ? v : all;
            break;
        default:
            all = v < all || isnan(v) ? v : all;
            break;
        }
    }
    return all;
}

/* Softmax and its logarithm of three rows, in place too; the last row of some rounds holds something that is no number.
 */
static void softmaxes(void **unused)
{
    (void)unused;
    for (size_t round = 0; round < 4 * LENGTH_COUNT; round++) {
        size_t n = LENGTHS[round / 4], all = 3 * n;
        bool logarithm = round & 1;
        float *x = numbers(SEED + round, all, round % 4 == 3 ? 180 : 9, 2, false), *judge = buffer(all),
              *y = buffer(all);
        const float rare[] = {NAN, INFINITY, -INFINITY};
        if (round % 3)
            x[2 * n + draw(&(uint64_t){round}) % n] = rare[round / 3 % 3];
        for (int isa = 0; isa < QD_ISA_COUNT && qd_kernels_at((enum qd_isa)isa); isa++) {
            memcpy(y, x, all * sizeof *y);
            qd_kernels_at((enum qd_isa)isa)->softmax(round & 2 ? y : x, 3, n, logarithm, isa ? y : judge);
            if (isa)
                assert_true(same_floats(y, judge, all));
            else if (round & 2)
                memcpy(y, x, all * sizeof *y);
        }
        for (size_t i = 0; i < 3; i++) {
            double most = reduced(QD_MAX_OF, x + i * n, n, 1), sum = 0;
            for (size_t j = 0; j < n; j++)
                sum += exp((double)x[i * n + j] - most);
            for (size_t j = 0; j < n; j++) {
                double want = logarithm ? (double)x[i * n + j] - most - log(sum)
                                        : exp((double)x[i * n + j] - most) / sum;
                float got = judge[i * n + j];
                if (isfinite(want)
                        ? fabs((double)got - want) > (logarithm ? 2e-6 * (1 + fabs(want)) : 1e-6 * want + 1e-44)
                        : isnan(want) != isnan(got))
                    fail_msg("n %zu, element %zu, logarithm %d: %.9g, want %.9g", n, j, logarithm, (double)got, want);
            }
        }
        release(x, all);
        release(judge, all);
        release(y, all);
    }
}

static void moments_and_centre(void **unused)
{
    (void)unused;
    for (size_t round = 0; round < LENGTH_COUNT; round++) {
        size_t n = LENGTHS[round];
        float *x = numbers(SEED + round, n, 6, 3, false), *judge = buffer(n), *y = buffer(n), mean[2], variance[2];
        for (int isa = 0; isa < QD_ISA_COUNT && qd_kernels_at((enum qd_isa)isa); isa++) {
            const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
            kernels->moments(x, n, &mean[isa > 0], &variance[isa > 0]);
            kernels->centre(x, n, 2.5f, 0.75f, -3, isa ? y : judge);
            if (isa)
                assert_true(same_floats(y, judge, n) && mean[0] == mean[1] && variance[0] == variance[1]);
        }
        assert_true(near(mean[0], mean_of(x, n), 3) && near(variance[0], squares_of(x, n, mean_of(x, n)), 9));
        for (size_t i = 0; i < n; i++)
            assert_true(near(judge[i], ((double)x[i] - 2.5) * 0.75 - 3, 3));
        release(x, n);
        release(judge, n);
        release(y, n);
    }
}

/* Rows of n with others beside them, and columns: rows r of n, `stride` apart. Wild values in every third round. */
static void reductions(bool columns)
{
    for (size_t round = 0; round < (size_t)LENGTH_COUNT * QD_REDUCTION_COUNT; round++) {
        enum qd_reduction kind = (enum qd_reduction)(round % QD_REDUCTION_COUNT);
        size_t n = LENGTHS[round / QD_REDUCTION_COUNT], other = 1 + round % 7 * 3;
        size_t rows = columns ? n : other, width = columns ? other * 5 : n, stride = columns ? width + 3 : n;
        size_t all = (rows - 1) * stride + width, outs = columns ? width : rows;
        bool wild = round % 3 == 0;
        float *x = numbers(SEED + round, all, 3, 0.25f, wild), *judge = buffer(outs), *y = buffer(outs);
        for (int isa = 0; isa < QD_ISA_COUNT && qd_kernels_at((enum qd_isa)isa); isa++) {
            const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
            if (columns)
                kernels->reduce_columns(kind, x, rows, stride, width, isa ? y : judge);
            else
                kernels->reduce_rows(kind, x, rows, n, isa ? y : judge);
            if (isa && !same_floats(y, judge, outs))
                fail_msg("%s differs from scalar: kind %d, n %zu, columns %d", kernels->isa_name, kind, n, columns);
        }
        for (size_t i = 0; i < outs; i++) {
            double want = reduced(kind, columns ? x + i : x + i * n, n, columns ? stride : 1);
            bool good = wild && fabs(want) > 1e38
                            ? (double)judge[i] == want || fabs((double)judge[i]) > 1e38 || isnan(judge[i])
                        : isfinite(want) ? near(judge[i], want, (double)n)
                                         : isnan(want) == isnan(judge[i]);
            if (!good)
                fail_msg("kind %d, n %zu, columns %d: %.9g, want %.9g", kind, n, columns, (double)judge[i], want);
        }
        release(x, all);
        release(judge, outs);
        release(y, outs);
    }
}

static void rows_reduced(void **unused)
{
    (void)unused;
    reductions(false);
}

static void columns_reduced(void **unused)
{
    (void)unused;
    reductions(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layer_norms), cmocka_unit_test(rms_norms),    cmocka_unit_test(moments_and_centre),
        cmocka_unit_test(softmaxes),   cmocka_unit_test(rows_reduced), cmocka_unit_test(columns_reduced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
