/* The gates of recurrent cells: every level gives the bits of the portable one, which is held against libm in double;
 * NaN stays, the ends are what they should be. */
#include "engine/kernels/gates.h"
#include "tests/kernels/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MAX = 70, GUARD = 16 };

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static void functions_against_libm(void **unused)
{
    (void)unused;
    double worst[3] = {0};
    for (uint32_t step = 0; step < 400000; step++) {
        float x = ((float)step / 200000.0f - 1.0f) * (step % 3 ? 100.0f : step % 2 ? 1.0f : 1e-3f);
        double want[3] = {expm1((double)x), sigmoid((double)x), tanh((double)x)};
        float got[3] = {gates_expm1(x), gates_sigmoid(x), gates_tanh(x)};
        for (int i = 0; i < 3; i++) {
            bool inside = i == 1 ? x > -29 : i == 2 || (x > -87 && x < 29); /* beyond them e^x - 1 stands still */
            double error = fabs((double)got[i] - want[i]) / (fabs(want[i]) > 1e-36 ? fabs(want[i]) : 1e-36);
            worst[i] = inside && error > worst[i] ? error : worst[i];
        }
    }
    if (worst[0] > 3e-7 || worst[1] > 5e-7 || worst[2] > 6e-7)
        fail_msg("relative errors %g %g %g", worst[0], worst[1], worst[2]);
    assert_true(gates_tanh(INFINITY) == 1 && gates_tanh(-INFINITY) == -1 && gates_sigmoid(INFINITY) == 1);
    assert_true(gates_sigmoid(-INFINITY) >= 0 && gates_sigmoid(-INFINITY) < 3e-13f && gates_tanh(0) == 0);
    assert_true(isnan(gates_tanh(NAN)) && isnan(gates_sigmoid(NAN)));
}

struct data {
    float x[4 * MAX], r[4 * MAX], bias[4 * MAX], r_new[MAX], bias_new[MAX], c[MAX], h[MAX];
};

static void make(uint64_t *s, struct data *d)
{
    float *all = (float *)d;
    for (size_t i = 0; i < sizeof *d / sizeof *all; i++)
        all[i] = draw_f32(s, draw(s) % 20 ? 6.0f : 300.0f);
    if (draw(s) % 4 == 0)
        d->x[draw(s) % MAX] = draw(s) % 2 ? NAN : INFINITY;
}

static void run_all(const struct qd_kernels *k, const struct qd_gates *g, const struct data *d,
                    float out[5][MAX + GUARD])
{
    for (int i = 0; i < 5; i++)
        for (size_t j = 0; j < MAX + GUARD; j++)
            out[i][j] = j < g->n && i < 4 ? (i == 0 ? d->c[j] : d->h[j]) : -77.0f;
    k->lstm_gates(g, out[0], out[1]);
    k->gru_gates(g, out[2]);
    k->rnn_gates(g, out[3]);
    k->gru_reset(g, d->h, out[4]);
}

static void levels_agree(void **unused)
{
    (void)unused;
    for (uint64_t round = 0; round < 300; round++) {
        static struct data d;
        float wanted[5][MAX + GUARD], got[5][MAX + GUARD];
        uint64_t s = 31 + round;
        make(&s, &d);
        const struct qd_gates g = {.n = round % MAX,
                                   .x = d.x,
                                   .r = d.r,
                                   .bias = d.bias,
                                   .x_scale = draw_f32(&s, 2.0f),
                                   .r_scale = draw_f32(&s, 2.0f),
                                   .r_new = d.r_new,
                                   .bias_new = d.bias_new,
                                   .r_new_scale = 0.7f,
                                   .reset_after = round & 1};
        run_all(qd_kernels_at(QD_ISA_SCALAR), &g, &d, wanted);
        for (int isa = 1; isa < QD_ISA_COUNT && qd_kernels_at((enum qd_isa)isa); isa++) {
            run_all(qd_kernels_at((enum qd_isa)isa), &g, &d, got);
            for (int i = 0; i < 5; i++)
                if (!same_floats(got[i], wanted[i], MAX + GUARD))
                    fail_msg("%s: kernel %d, round %d", qd_isa_name((enum qd_isa)isa), i, (int)round);
        }
    }
}

static void cells_against_their_equations(void **unused)
{
    (void)unused;
    for (uint64_t round = 0; round < 100; round++) {
        static struct data d;
        float out[5][MAX + GUARD];
        uint64_t s = 77 + round;
        size_t n = 1 + round % (MAX - 1);
        for (size_t i = 0; i < sizeof d / sizeof(float); i++)
            ((float *)&d)[i] = draw_f32(&s, 4.0f);
        const struct qd_gates g = {.n = n,
                                   .x = d.x,
                                   .r = d.r,
                                   .bias = d.bias,
                                   .x_scale = 0.5f,
                                   .r_scale = 0.25f,
                                   .r_new = d.r_new,
                                   .bias_new = d.bias_new,
                                   .r_new_scale = 0.7f,
                                   .reset_after = round & 1};
        run_all(qd_kernels_at(QD_ISA_SCALAR), &g, &d, out);
        for (size_t j = 0; j < n; j++) {
            double sum[4];
            for (size_t k = 0; k < 4; k++)
                sum[k] = (double)d.x[k * n + j] * 0.5 + (double)d.r[k * n + j] * 0.25 + (double)d.bias[k * n + j];
            double cell = sigmoid(sum[2]) * (double)d.c[j] + sigmoid(sum[0]) * tanh(sum[3]);
            double past = (double)d.r_new[j] * (double)0.7f + (double)d.bias_new[j];
            past *= round & 1 ? sigmoid(sum[1]) : 1;
            double fresh = tanh((double)d.x[2 * n + j] * 0.5 + (double)d.bias[2 * n + j] + past), z = sigmoid(sum[0]);
            double wanted[5] = {cell, sigmoid(sum[1]) * tanh(cell), (1 - z) * fresh + z * (double)d.h[j], tanh(sum[0]),
                                sigmoid(sum[1]) * (double)d.h[j]};
            for (int i = 0; i < 5; i++)
                if (fabs((double)out[i][j] - wanted[i]) > 1e-6)
                    fail_msg("kernel %d, unit %zu: %g, not %g", i, j, (double)out[i][j], wanted[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions_against_libm),
        cmocka_unit_test(levels_agree),
        cmocka_unit_test(cells_against_their_equations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
