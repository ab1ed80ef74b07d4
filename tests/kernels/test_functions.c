/* Elementary functions of functions.h: their stated bounds against libm in double over the whole range of float, and
 * every elementwise kernel of every level against the portable one, bit by bit, with tails of every length. */
#include "engine/kernels/functions.h"
#include "tests/kernels/random.h"

#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { PIECE = 4096, STRIDE = 2003 }; /* two million bit patterns, and every boundary */

static double sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }
static double rsqrt(double x) { return 1 / sqrt(x); }
static double softplus(double x) { return fmax(x, 0) + log1p(exp(-fabs(x))); }
static double elu(double x) { return x < 0 ? expm1(x) : x; }
static double silu(double x) { return x < -1000 ? 0 : x * sigmoid(x); }
static double gelu(double x) { return x < -1000 ? 0 : 0.5 * x * erfc(-x * sqrt(0.5)); }
static double gelu_tanh(double x)
{
    return x < -1000 ? 0 : x * sigmoid(2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x));
}

/* elu with a = 1. `units`: ULP of the result, or of x where `of_x`. */
static float elu_1(float x) { return qd_f_elu(x, 1.0f); }
static const struct function {
    const char *name;
    float (*fn)(float);
    double (*exact)(double);
    double units;
    bool of_x;
} FUNCTIONS[] = {
    {"exp", qd_f_exp, exp, 1.1, false},
    {"log", qd_f_log, log, 1.0, false},
    {"tanh", qd_f_tanh, tanh, 5.0, false},
    {"erf", qd_f_erf, erf, 6.0, false},
    {"sigmoid", qd_f_sigmoid, sigmoid, 2.5, false},
    {"rsqrt", qd_f_rsqrt, rsqrt, 1.5, false},
    {"softplus", qd_f_softplus, softplus, 2.5, false},
    {"elu", elu_1, elu, 2.5, false},
    {"silu", qd_f_silu, silu, 3.5, false},
    {"gelu", qd_f_gelu, gelu, 2.0, true},
    {"gelu_tanh", qd_f_gelu_tanh, gelu_tanh, 2.0, true},
};
enum { FUNCTION_COUNT = sizeof FUNCTIONS / sizeof *FUNCTIONS };

static float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Distance of consecutive floats at x. */
static double unit_at(double x)
{
    int exponent;
    (void)frexp(fmin(fabs(x), FLT_MAX), &exponent);
    return ldexp(1.0, (x == 0 || exponent < -125 ? -125 : exponent) - 24);
}

/* In units; infinite where a NaN or an infinity is missing or wrong. */
static double error_of(const struct function *f, float x)
{
    const double got = f->fn(x), exact = f->exact(x);
    if (isnan(got) || isnan(exact))
        return isnan(got) && isnan(exact) ? 0 : INFINITY;
    double unit = unit_at(f->of_x ? x : exact);
    if (got == 0 && fabs(exact) < (double)FLT_MIN * (f->fn == qd_f_silu ? fmax(1, fabs((double)x)) : 1))
        return 0;
    if (isinf(got)) /* the next float after the largest would be the result */
        return got * exact > 0 && fabs(exact) >= FLT_MAX
                   ? (isinf(exact) ? 0 : fmax(0, (FLT_MAX + unit - fabs(exact)) / unit))
                   : INFINITY;
    if (got == 0 && exact == 0)
        return 0;
    return fabs(got - exact) / unit;
}

/* Calls `see` with every float that is tried: all bit patterns STRIDE apart, and what is near a power of two, near a
 * limit of a function, or special. */
static void each(void (*see)(void *ctx, float x), void *ctx)
{
    static const float NEAR[] = {
        0.0f,  FLT_MIN, FLT_MAX, INFINITY, NAN,   1.0f,   88.722839f,  87.336544f, 103.97208f,  103.27893f,  104.0f,
        89.0f, 9.02f,   3.93f,   5.558f,   16.0f, 128.0f, 0.34657359f, 40.0f,      0.70710678f, 1.41421356f, 16.63553f};
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += STRIDE)
        see(ctx, from_bits((uint32_t)bits));
    for (uint32_t exponent = 0; exponent < 512; exponent++)
        for (uint32_t around = 0; around < 64; around++)
            see(ctx, from_bits((exponent << 23) + around - 32));
    for (size_t i = 0; i < sizeof NEAR / sizeof *NEAR; i++)
        for (uint32_t around = 0; around < 2000; around++) {
            uint32_t bits;
            memcpy(&bits, &NEAR[i], sizeof bits);
            see(ctx, from_bits(bits + around - 1000));
            see(ctx, from_bits((bits ^ 0x80000000u) + around - 1000));
        }
}

struct worst {
    const struct function *f;
    double error;
    float at;
};

static void see_error(void *ctx, float x)
{
    struct worst *w = ctx;
    double error = error_of(w->f, x);
    if (error > w->error) {
        w->error = error;
        w->at = x;
    }
}

static void stay_within_bounds(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < FUNCTION_COUNT; i++) {
        struct worst w = {&FUNCTIONS[i], 0, 0};
        each(see_error, &w);
        print_message("%s: %.3f of %.1f at %.9g\n", w.f->name, w.error, w.f->units, (double)w.at);
        if (w.error > w.f->units)
            fail_msg("%s(%.9g): %.3f units", w.f->name, (double)w.at, w.error);
    }
}

/* Values that have no error: signs of zero, limits, and no result outside the function's range. */
static void keep_exact_values(void **unused)
{
    (void)unused;
    assert_true(qd_f_exp(0.0f) == 1.0f && qd_f_exp(-INFINITY) == 0.0f && isinf(qd_f_exp(INFINITY)));
    assert_true(qd_f_log(1.0f) == 0.0f && qd_f_log(0.0f) == -INFINITY && qd_f_log(-0.0f) == -INFINITY);
    assert_true(isnan(qd_f_log(-1.0f)) && isnan(qd_f_log(-INFINITY)) && isinf(qd_f_log(INFINITY)));
    assert_true(signbit(qd_f_tanh(-0.0f)) && signbit(qd_f_erf(-0.0f)));
    assert_true(qd_f_tanh(INFINITY) == 1.0f && qd_f_tanh(-INFINITY) == -1.0f);
    assert_true(qd_f_erf(INFINITY) == 1.0f && qd_f_erf(-INFINITY) == -1.0f);
    assert_true(qd_f_sigmoid(INFINITY) == 1.0f && qd_f_sigmoid(-INFINITY) == 0.0f && qd_f_sigmoid(0.0f) == 0.5f);
    assert_true(qd_f_silu(-INFINITY) == 0.0f && qd_f_gelu(-INFINITY) == 0.0f && qd_f_gelu_tanh(-INFINITY) == 0.0f);
    for (float x = 3.0f; x < 10.0f; x = nextafterf(x, 100.0f))
        if (qd_f_tanh(x) > 1.0f || qd_f_erf(x) > 1.0f)
            fail_msg("above 1 at %.9g", (double)x);
}

struct piece {
    float x[PIECE], y[PIECE];
    size_t n;
    bool good;
};

static void compare_piece(struct piece *p)
{
    static const float PARAMETERS[][2] = {{0.2f, 0.5f}, {-1.5f, 2.25f}, {INFINITY, 0.0f}};
    const struct qd_kernels *plain = qd_kernels_at(QD_ISA_SCALAR);
    float want[PIECE], got[PIECE];
    for (int isa = 1; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (int op = 0; kernels && op < QD_PW_COUNT; op++) {
            const float *q = PARAMETERS[(size_t)op % 3 == 2 ? 1 : 0];
            plain->pointwise[op].run(p->x, p->y, q[0], q[1], want, p->n);
            kernels->pointwise[op].run(p->x, p->y, q[0], q[1], got, p->n);
            if (!same_floats(got, want, p->n))
                fail_msg("%s: operation %d differs", kernels->isa_name, op);
        }
    }
}

static void see_compare(void *ctx, float x)
{
    struct piece *p = ctx;
    p->x[p->n] = x;
    p->y[p->n] = p->x[(p->n * 7 + 3) % (p->n + 1)];
    if (++p->n == PIECE) {
        compare_piece(p);
        p->n = 0;
    }
}

static void equal_portable_ones(void **unused)
{
    (void)unused;
    static struct piece p;
    each(see_compare, &p);
    compare_piece(&p);
}

/* No value behind the end is read or written, at any length; in place and not. */
static void handle_tails(void **unused)
{
    (void)unused;
    uint64_t s = 4711;
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (size_t n = 0; kernels && n < 70; n++)
            for (int op = 0; op < QD_PW_COUNT; op++) {
                float *a = malloc(n * 4 + 1), *b = malloc(n * 4 + 1), *out = malloc(n * 4 + 1), want[70];
                assert_true(a && b && out);
                for (size_t i = 0; i < n; i++) {
                    a[i] = draw_f32(&s, 9.0f);
                    b[i] = draw_f32(&s, 9.0f);
                }
                for (size_t i = 0; i < n; i++)
                    qd_kernels_at(QD_ISA_SCALAR)->pointwise[op].run(a + i, b + i, -0.5f, 1.5f, want + i, 1);
                kernels->pointwise[op].run(a, b, -0.5f, 1.5f, out, n);
                bool good = same_floats(out, want, n);
                kernels->pointwise[op].run(a, b, -0.5f, 1.5f, op % 2 ? a : b, n);
                good = good && same_floats(op % 2 ? a : b, want, n);
                free(a);
                free(b);
                free(out);
                if (!good)
                    fail_msg("%s: operation %d, %zu values", kernels->isa_name, op, n);
            }
    }
}

static void activations_are_the_functions(void **unused)
{
    (void)unused;
    for (float x = -7.0f; x < 7.0f; x += 0.173f) {
        const struct qd_activation none = {0}, clip = {.kind = QD_ACT_CLIP, .a = 0.0f, .b = 6.0f},
                                   silu = {.kind = QD_ACT_SILU, .affine = true, .mul = 3.0f, .add = -1.0f},
                                   swish = {.kind = QD_ACT_HARD_SWISH, .a = 1.0f / 6.0f, .b = 0.5f};
        assert_true(qd_act_one(&none, x) == x);
        assert_true(qd_act_one(&clip, x) == fminf(fmaxf(x, 0.0f), 6.0f));
        assert_true(qd_act_one(&silu, x) == qd_f_silu(x) * 3.0f + -1.0f);
        float gate = fminf(fmaxf(x / 6.0f + 0.5f, 0.0f), 1.0f);
        assert_true(fabsf(qd_act_one(&swish, x) - x * gate) <= 1e-6f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stay_within_bounds),
        cmocka_unit_test(keep_exact_values),
        cmocka_unit_test(equal_portable_ones),
        cmocka_unit_test(handle_tails),
        cmocka_unit_test(activations_are_the_functions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
