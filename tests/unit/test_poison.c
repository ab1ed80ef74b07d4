/* What hostile traffic does to what is learned: after a million observations of any bits the state is finite and every
 * scale can be used, under every library's average. What it does to answers is in tests/e2e. */
#include "engine/quant/epoch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <string.h>

enum { SITES = 4, OBSERVATIONS = 1000000 };

static uint64_t next(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

/* A float of any bits. */
static float any_float(uint64_t *s)
{
    uint32_t bits = (uint32_t)(next(s) >> 32);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* As kernels observe: of finite values alone. Half are ordinary. */
static struct qd_observation any_observation(uint64_t *s)
{
    struct qd_observation o = qd_observation_empty();
    const bool wild = next(s) & 1;
    for (int i = 0; i < 2; i++)
        qd_observe_one(&o, wild ? any_float(s) : (float)(next(s) % 2001) / 1000.0f - 1, 0, NULL);
    return o;
}

static void check(const struct qd_learner *learner, bool wide_first)
{
    const struct qd_epoch *epoch = qd_learner_current(learner);
    for (size_t i = 0; i < SITES; i++) {
        const struct qd_range *range = qd_learner_range(learner, i);
        const struct qd_site_params *site = &epoch->sites[i];
        const bool wide = wide_first && i == 0;
        assert_true(isfinite(range->lo) && isfinite(range->hi) && range->lo <= range->hi);
        assert_true(isfinite(range->observed_min) && isfinite(range->observed_max));
        assert_true(isfinite(site->lo) && isfinite(site->hi) && site->lo <= 0 && site->hi >= 0);
        assert_true(isfinite(site->qp.scale) && site->qp.scale >= FLT_MIN);
        assert_true(site->qp.zero_point >= (wide ? 0 : site->qp.qmin) && site->qp.zero_point <= site->qp.qmax);
    }
}

static void run(enum qd_compat compat, bool symmetric, bool own_range, const int *bits)
{
    struct qd_learner_site sites[SITES];
    for (int i = 0; i < SITES; i++)
        sites[i] = (struct qd_learner_site){.wide = i == 0, .symmetric = symmetric, .bits = bits ? bits[i] : 8};
    const struct qd_learner_rules rules = {
        .range = {.averaging_constant = 0.01, .max_step = 2, .observer = {compat, symmetric, 0.01f}},
        .publish_tolerance = 0.01,
        .min_observations = 8,
        .epochs_kept = 2,
        .always_own_range = own_range,
        .sites = sites,
    };
    const uint32_t guarded[SITES] = {0};
    struct qd_learner *learner;
    uint64_t s = 88172645463325252u;
    assert_int_equal(qd_learner_create(&rules, SITES, &learner), QD_OK);
    for (int n = 0; n < OBSERVATIONS / SITES; n++) {
        struct qd_observation o[SITES];
        for (int i = 0; i < SITES; i++)
            o[i] = any_observation(&s);
        qd_learner_fold(learner, o, guarded, n + 1);
        if (n % 1000 == 0 || n < 100)
            check(learner, true);
    }
    check(learner, true);
    assert_true(qd_learner_range(learner, 0)->nonfinite > 0 && qd_learner_range(learner, 0)->n > 1000);
    qd_learner_destroy(&learner);
}

static void test_state_stays_finite(void **state)
{
    (void)state;
    static const int few[SITES] = {8, 2, 3, 4};
    for (enum qd_compat compat = QD_COMPAT_QUANTD; compat <= QD_COMPAT_ORT; compat++)
        for (int symmetric = 0; symmetric < 2; symmetric++)
            run(compat, symmetric, false, NULL);
    run(QD_COMPAT_QUANTD, false, true, NULL);
    run(QD_COMPAT_QUANTD, false, false, few);
    run(QD_COMPAT_QUANTD, true, false, few);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_state_stays_finite)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
