/* Epochs: when one is published, how long it is kept, what freezing and resetting do (docs/QUANTIZATION.md, section 4).
 */
#include "engine/quant/epoch.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct qd_learner_rules defaults(void)
{
    return (struct qd_learner_rules){.range = {.averaging_constant = 0.01, .max_step = 2},
                                     .publish_tolerance = 0.01,
                                     .min_observations = 3,
                                     .epochs_kept = 4};
}

static struct qd_learner *make(const struct qd_learner_rules *rules, size_t sites)
{
    struct qd_learner *learner = NULL;
    assert_int_equal(qd_learner_create(rules, sites, &learner), QD_OK);
    return learner;
}

static void fold(struct qd_learner *learner, float min, float max)
{
    struct qd_observation o = qd_observation_empty();
    uint32_t guarded = 0;
    o.min = min;
    o.max = max;
    o.elems = 1;
    qd_learner_fold(learner, &o, &guarded, 1);
}

static uint64_t current(const struct qd_learner *learner) { return qd_learner_current(learner)->id; }

static void test_site_is_ready_after_min_observations(void **state)
{
    (void)state;
    struct qd_learner_rules rules = defaults();
    struct qd_learner *learner = make(&rules, 1);
    assert_int_equal(current(learner), 1);
    fold(learner, -1, 1);
    fold(learner, -1, 1);
    assert_int_equal(current(learner), 1);
    assert_false(qd_learner_current(learner)->sites[0].ready);
    fold(learner, -1, 1);
    assert_int_equal(current(learner), 2);
    assert_true(qd_learner_current(learner)->sites[0].ready);
    qd_learner_destroy(&learner);
}

static void test_stationary_traffic_stops_publishing(void **state)
{
    (void)state;
    struct qd_learner_rules rules = defaults();
    struct qd_learner *learner = make(&rules, 1);
    for (int i = 0; i < 1000; i++)
        fold(learner, i % 2 ? -1.0f : -1.001f, 1);
    assert_int_equal(current(learner), 2);
    fold(learner, -1, 3); /* moves hi by .02 = 1 % of the width: not more than the tolerance */
    assert_int_equal(current(learner), 2);
    fold(learner, -1, 3);
    assert_int_equal(current(learner), 3);
    assert_int_equal(qd_learner_requests(learner), 1002);
    qd_learner_destroy(&learner);
}

static void test_epoch_is_immutable_and_kept(void **state)
{
    (void)state;
    struct qd_learner_rules rules = defaults();
    rules.min_observations = 1;
    rules.publish_tolerance = 0;
    struct qd_learner *learner = make(&rules, 1);
    fold(learner, -1, 1);
    struct qd_epoch *held = qd_epoch_ref(qd_learner_current(learner));
    struct qd_site_params before = held->sites[0];
    for (int i = 0; i < 3; i++)
        fold(learner, -2, 2 + (float)i);
    assert_ptr_equal(qd_learner_find(learner, held->id), held); /* four kept: itself and three newer */
    fold(learner, -2, 9);
    assert_null(qd_learner_find(learner, held->id));
    assert_memory_equal(&before, &held->sites[0], sizeof before); /* a borrower may go on using it */
    assert_null(qd_learner_find(learner, 1000));
    qd_epoch_unref(&held);
    assert_null(held);
    qd_learner_destroy(&learner);
}

static void test_zero_is_included_when_published(void **state)
{
    (void)state;
    struct qd_learner_rules rules = defaults();
    rules.min_observations = 1;
    struct qd_learner *learner = make(&rules, 1);
    fold(learner, 2, 10);
    assert_true(qd_learner_range(learner, 0)->lo == 2); /* the average itself does not hold zero */
    assert_true(qd_learner_current(learner)->sites[0].lo == 0);
    assert_int_equal(qd_learner_current(learner)->sites[0].qp.zero_point, 0);
    qd_learner_destroy(&learner);
}

static void test_mode_request_never_gets_ready(void **state)
{
    (void)state;
    struct qd_learner_rules rules = defaults();
    rules.always_own_range = true;
    struct qd_learner *learner = make(&rules, 1);
    for (int i = 0; i < 50; i++)
        fold(learner, -1, (float)i);
    assert_int_equal(current(learner), 1);
    assert_false(qd_learner_current(learner)->sites[0].ready);
    assert_int_equal(qd_learner_range(learner, 0)->n, 50);
    qd_learner_destroy(&learner);
}

/* Sites of one learner, each by its own rule. */
static void test_modes_of_single_sites(void **state)
{
    (void)state;
    const struct qd_learner_site sites[] = {
        {.bits = 8},
        {.bits = 8, .mode = QD_SITE_STATIC},
        {.bits = 8, .mode = QD_SITE_REQUEST},
        {.bits = 8, .mode = QD_SITE_EMA, .symmetric = true},
    };
    struct qd_learner_rules rules = defaults();
    for (int own = 0; own < 2; own++) {
        const uint32_t guarded[4] = {0};
        struct qd_learner *learner;
        rules.always_own_range = own;
        rules.sites = sites;
        assert_int_equal(qd_learner_create(&rules, 4, &learner), QD_OK);
        for (int i = 0; i < 40; i++) {
            struct qd_observation o[4];
            for (int s = 0; s < 4; s++) {
                o[s] = qd_observation_empty();
                o[s].min = -1;
                o[s].max = 1 + (float)i;
                o[s].elems = 1;
            }
            qd_learner_fold(learner, o, guarded, 1);
        }
        const struct qd_site_params *now = qd_learner_current(learner)->sites;
        assert_int_equal(now[0].ready, !own);
        assert_true(now[1].ready && !now[2].ready && now[3].ready);
        assert_int_equal(qd_learner_range(learner, 1)->n, rules.min_observations);
        assert_true(qd_learner_range(learner, 1)->hi < qd_learner_range(learner, 3)->hi);
        assert_int_equal(qd_learner_range(learner, 2)->n, 40);
        assert_true(now[3].qp.zero_point == 128 && now[3].qp.qmin == 1 && now[1].qp.qmin == 0);
        size_t unseen;
        assert_int_equal(qd_learner_freeze(learner, 4, &unseen), QD_OK);
        now = qd_learner_current(learner)->sites;
        assert_true(now[0].ready && now[1].ready && !now[2].ready && now[3].ready);
        qd_learner_destroy(&learner);
    }
}

static void test_freeze_needs_observations_and_stops_learning(void **state)
{
    (void)state;
    struct qd_learner_rules rules = defaults();
    struct qd_learner *learner = make(&rules, 2);
    size_t unseen = 99;
    assert_int_equal(qd_learner_freeze(learner, 2, &unseen), QD_ERR_CONFLICT);
    assert_int_equal(unseen, 0);
    struct qd_observation o[2] = {qd_observation_empty(), qd_observation_empty()};
    uint32_t guarded[2] = {0, 0};
    o[0].min = o[1].min = -1;
    o[0].max = o[1].max = 1;
    qd_learner_fold(learner, o, guarded, 1);
    assert_int_equal(qd_learner_freeze(learner, 2, &unseen), QD_OK);
    assert_true(qd_learner_frozen(learner) && qd_learner_current(learner)->frozen);
    assert_true(qd_learner_current(learner)->sites[1].ready); /* frozen before it was warm: served all the same */
    uint64_t frozen = current(learner);
    o[0].max = 100;
    qd_learner_fold(learner, o, guarded, 1);
    assert_true(qd_learner_range(learner, 0)->hi == 1);
    assert_true(qd_learner_range(learner, 0)->observed_max == 100); /* still watched */
    assert_int_equal(current(learner), frozen);
    assert_int_equal(qd_learner_unfreeze(learner), QD_OK);
    assert_false(qd_learner_frozen(learner));
    assert_true(current(learner) > frozen);
    qd_learner_destroy(&learner);
}

static void test_reset_forgets_but_epochs_grow(void **state)
{
    (void)state;
    struct qd_learner_rules rules = defaults();
    rules.min_observations = 1;
    struct qd_learner *learner = make(&rules, 1);
    fold(learner, -1, 1);
    uint64_t before = current(learner);
    assert_int_equal(qd_learner_reset(learner), QD_OK);
    assert_true(current(learner) == before + 1);
    assert_int_equal(qd_learner_range(learner, 0)->n, 0);
    assert_int_equal(qd_learner_requests(learner), 0);
    assert_false(qd_learner_current(learner)->sites[0].ready);
    qd_learner_destroy(&learner);
}

static void test_skipped_request_counts_guard_events_only(void **state)
{
    (void)state;
    struct qd_learner_rules rules = defaults();
    struct qd_learner *learner = make(&rules, 1);
    uint32_t guarded = 3;
    qd_learner_skip(learner, &guarded);
    qd_learner_skip(learner, NULL);
    assert_int_equal(qd_learner_requests(learner), 2);
    assert_int_equal(qd_learner_range(learner, 0)->guarded, 3);
    assert_int_equal(qd_learner_range(learner, 0)->n, 0);
    qd_learner_destroy(&learner);
}

static void test_out_of_memory_changes_nothing(void **state)
{
    (void)state;
    struct qd_learner_rules rules = defaults();
    rules.min_observations = 1;
    struct qd_learner *learner = NULL;
    for (uint64_t n = 1; n <= 5; n++) {
        qd_mem_fail_at(n, false);
        assert_int_equal(qd_learner_create(&rules, 1, &learner), QD_ERR_NO_MEMORY);
    }
    qd_mem_fail_at(0, false);
    learner = make(&rules, 1);
    qd_mem_fail_at(1, true);
    fold(learner, -1, 1);
    assert_int_equal(current(learner), 1);
    assert_int_equal(qd_learner_reset(learner), QD_ERR_NO_MEMORY);
    assert_int_equal(qd_learner_range(learner, 0)->n, 1);
    const struct qd_given given = {.set = true, .lo = -9, .hi = 9};
    for (uint64_t n = 1; n <= 2; n++) {
        qd_mem_fail_at(n, false);
        assert_int_equal(qd_learner_give(learner, &given), QD_ERR_NO_MEMORY);
        assert_false(qd_learner_given(learner, 0)->set);
    }
    assert_int_equal(current(learner), 1);
    qd_mem_fail_at(0, false);
    fold(learner, -1, 1); /* published at the next chance */
    assert_int_equal(current(learner), 2);
    qd_learner_destroy(&learner);
}

/* Ranges -1..3: PyTorch's symmetric scale is 3 / 127.5, ours 3 / 127. */
static void test_another_library_makes_the_scale(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct qd_learner_rules rules = defaults();
        rules.symmetric = true;
        rules.range.observer = (struct qd_observer_rules){i ? QD_COMPAT_TORCH : QD_COMPAT_QUANTD, true, 0.01f};
        struct qd_learner *learner = make(&rules, 1);
        for (int n = 0; n < 3; n++)
            fold(learner, -1, 3);
        const struct qd_site_params *site = &qd_learner_current(learner)->sites[0];
        assert_true(site->ready);
        assert_true(site->qp.scale == (i ? 3 / 127.5f : 3 / 127.0f));
        assert_int_equal(site->qp.qmin, i ? 0 : 1);
        qd_learner_destroy(&learner);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_site_is_ready_after_min_observations),
        cmocka_unit_test(test_stationary_traffic_stops_publishing),
        cmocka_unit_test(test_epoch_is_immutable_and_kept),
        cmocka_unit_test(test_zero_is_included_when_published),
        cmocka_unit_test(test_mode_request_never_gets_ready),
        cmocka_unit_test(test_modes_of_single_sites),
        cmocka_unit_test(test_freeze_needs_observations_and_stops_learning),
        cmocka_unit_test(test_reset_forgets_but_epochs_grow),
        cmocka_unit_test(test_skipped_request_counts_guard_events_only),
        cmocka_unit_test(test_out_of_memory_changes_nothing),
        cmocka_unit_test(test_another_library_makes_the_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
