/* The memory planner: tensors alive at the same time never overlap, and memory is reused where it can be. */
#include "engine/plan/memory.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void check_no_overlap(const struct qd_block *b, size_t n, size_t total)
{
    for (size_t i = 0; i < n; i++) {
        if (!b[i].bytes)
            continue;
        assert_true(b[i].offset + b[i].bytes <= total);
        for (size_t j = 0; j < i; j++) {
            bool together = b[i].first <= b[j].last && b[j].first <= b[i].last;
            bool apart = b[i].offset + b[i].bytes <= b[j].offset || b[j].offset + b[j].bytes <= b[i].offset;
            assert_true(!b[j].bytes || !together || apart);
        }
    }
}

static void test_chain_needs_two_neighbours(void **state)
{
    (void)state;
    struct qd_block b[4] = {{64, 0, 1, 0}, {64, 1, 2, 0}, {64, 2, 3, 0}, {64, 3, 4, 0}};
    size_t total;
    assert_int_equal(qd_memory_place(b, 4, &total), QD_OK);
    check_no_overlap(b, 4, total);
    assert_int_equal(total, 128);
}

static void test_gap_between_neighbours_is_used(void **state)
{
    (void)state;
    struct qd_block b[4] = {{256, 0, 9, 0}, {128, 0, 2, 0}, {192, 3, 9, 0}, {64, 3, 5, 0}};
    size_t total;
    assert_int_equal(qd_memory_place(b, 4, &total), QD_OK);
    check_no_overlap(b, 4, total);
    assert_int_equal(total, 256 + 192 + 64);
}

static void test_random_plans(void **state)
{
    (void)state;
    uint32_t seed = 12345;
    for (int round = 0; round < 200; round++) {
        struct qd_block b[60];
        size_t total, sum = 0, most = 0;
        for (size_t i = 0; i < 60; i++) {
            seed = seed * 1664525u + 1013904223u;
            int first = (int)(seed >> 16) % 40;
            b[i] = (struct qd_block){
                .bytes = 64 * ((seed >> 8) % 20), .first = first, .last = first + (int)(seed >> 24) % 8};
            sum += b[i].bytes;
        }
        for (int step = 0; step < 50; step++) {
            size_t alive = 0;
            for (size_t i = 0; i < 60; i++)
                alive += b[i].first <= step && step <= b[i].last ? b[i].bytes : 0;
            most = alive > most ? alive : most;
        }
        assert_int_equal(qd_memory_place(b, 60, &total), QD_OK);
        check_no_overlap(b, 60, total);
        assert_true(total >= most && total <= sum);
    }
}

static void test_overflow_and_no_memory_are_outcomes(void **state)
{
    (void)state;
    struct qd_block b[2] = {{SIZE_MAX / 4 - 63, 0, 1, 0}, {SIZE_MAX / 4 - 63, 0, 1, 0}};
    size_t total;
    assert_int_equal(qd_memory_place(b, 2, &total), QD_ERR_TOO_LARGE);
    for (uint64_t n = 1; n <= 2; n++) {
        qd_mem_fail_at(n, false);
        assert_int_equal(qd_memory_place(b, 2, &total), QD_ERR_NO_MEMORY);
    }
    qd_mem_fail_at(0, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain_needs_two_neighbours),
        cmocka_unit_test(test_gap_between_neighbours_is_used),
        cmocka_unit_test(test_random_plans),
        cmocka_unit_test(test_overflow_and_no_memory_are_outcomes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
