/* Equations (3) and (4): scale and zero point of a range, against numbers worked by hand. */
#include "engine/quant/qparams.h"
#include "tests/kernels/random.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void is(struct qd_qparams qp, float scale, int zero_point, int qmin, int qmax)
{
    assert_true(qp.scale == scale);
    assert_int_equal(qp.zero_point, zero_point);
    assert_int_equal(qp.qmin, qmin);
    assert_int_equal(qp.qmax, qmax);
}

static void asymmetric_equation_3(void **unused)
{
    (void)unused;
    is(qd_qparams_from_range(-1.0, 254.0, false), 1.0f, 1, 0, 255);
    is(qd_qparams_from_range(0.0, 127.5, false), 0.5f, 0, 0, 255);
    is(qd_qparams_from_range(-127.5, 0.0, false), 0.5f, 255, 0, 255);
    is(qd_qparams_from_range(-63.75, 63.75, false), 0.5f, 128, 0, 255); /* 255 - 127.5 = 127.5, a tie: to even */
    is(qd_qparams_from_range(-64.25, 63.25, false), 0.5f, 128, 0, 255); /* 255 - 126.5 = 128.5, a tie: to even */
}

static void asymmetric_includes_zero(void **unused)
{
    (void)unused;
    is(qd_qparams_from_range(10.0, 127.5, false), 0.5f, 0, 0, 255);
    is(qd_qparams_from_range(-127.5, -3.0, false), 0.5f, 255, 0, 255);
}

static void symmetric_equation_4(void **unused)
{
    (void)unused;
    is(qd_qparams_from_range(-127.0, 3.0, true), 1.0f, 128, 1, 255);
    is(qd_qparams_from_range(-1.0, 31.75, true), 0.25f, 128, 1, 255);
}

static void constants_and_tiny_ranges(void **unused)
{
    (void)unused;
    is(qd_qparams_from_range(0.0, 0.0, false), 1.0f, 0, 0, 255);
    is(qd_qparams_from_range(0.0, 0.0, true), 1.0f, 128, 1, 255);
    is(qd_qparams_from_range(0.0, 1e-37, false), 1.0f, 0, 0, 255); /* 1e-37 / 255 is no normal float */
    is(qd_qparams_from_range(-1e-37, 0.0, true), 1.0f, 128, 1, 255);
}

static void widest_ranges_stay_finite(void **unused)
{
    (void)unused;
    struct qd_qparams qp = qd_qparams_from_range(-(double)FLT_MAX, (double)FLT_MAX, false);
    assert_true(qp.scale > 2.6e36f && qp.scale < 2.7e36f);
    assert_in_range(qp.zero_point, 127, 128);
    assert_true(qd_qparams_from_range(-1e300, 1e300, true).scale == FLT_MAX);
}

static void limits_of_the_integers(void **unused)
{
    (void)unused;
    struct qd_qparams qp = {0.5f, 100, 0, 255};
    assert_true(qd_qparams_lo(&qp) == -50.0 && qd_qparams_hi(&qp) == 77.5);
    qp = (struct qd_qparams){2.0f, 128, 1, 255};
    assert_true(qd_qparams_lo(&qp) == -254.0 && qd_qparams_hi(&qp) == 254.0);
}

static void weights(void **unused)
{
    (void)unused;
    assert_true(qd_weight_scale_s8(127.0f) == 1.0f);
    assert_true(qd_weight_scale_s8(63.5f) == 0.5f);
    assert_true(qd_weight_scale_s8(0.0f) == 1.0f);
}

/* (4b) written plainly. */
static double cost_of_window(const struct qd_window_weights *weights, float scale, double *moved)
{
    double cost = 0;
    *moved = 0;
    for (size_t c = 0; c < weights->channels; c++) {
        double sum = 0;
        for (size_t t = 0; t < weights->taps; t++) {
            const float w = weights->w[c * weights->channel_step + t * weights->tap_step];
            const double error = (double)w - (double)scale * (double)rintf(w / scale);
            sum += error;
            cost += error * error;
        }
        *moved += sum * sum;
    }
    return cost + 16 * *moved;
}

/* No scale of the 64 costs less, and the taps' sum hardly moves. */
static void scales_of_windows(void **unused)
{
    (void)unused;
    uint64_t state = 7;
    double moved = 0, moved_before = 0;
    for (int round = 0; round < 200; round++) {
        float w[3 * 9];
        for (size_t i = 0; i < 27; i++)
            w[i] = (float)((double)(int64_t)(draw(&state) % 2001) / 1000 - 1);
        const struct qd_window_weights weights = {w, round % 3 + 1, 9, 9, 1};
        const float scale = qd_weight_scale_window(&weights, 8);
        float absmax = 0;
        for (size_t i = 0; i < weights.channels * 9; i++)
            absmax = fmaxf(absmax, fabsf(w[i]));
        const float least = absmax / 127;
        double mine, other;
        const double cost = cost_of_window(&weights, scale, &mine);
        moved += mine;
        assert_true(scale >= least && scale <= least * 1.125f);
        for (int i = 0; i < 64; i++) {
            assert_true(cost <= cost_of_window(&weights, (float)((double)least * (1 + i / 512.0)), &other));
            moved_before += i ? 0 : other;
        }
    }
    assert_true(moved < 0.2 * moved_before);
    const float zeros[9] = {0};
    assert_true(qd_weight_scale_window(&(struct qd_window_weights){zeros, 1, 9, 9, 1}, 8) == 1.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(asymmetric_equation_3),
        cmocka_unit_test(asymmetric_includes_zero),
        cmocka_unit_test(symmetric_equation_4),
        cmocka_unit_test(constants_and_tiny_ranges),
        cmocka_unit_test(widest_ranges_stay_finite),
        cmocka_unit_test(limits_of_the_integers),
        cmocka_unit_test(weights),
        cmocka_unit_test(scales_of_windows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
