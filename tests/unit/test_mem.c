/* Memory: sizes that overflow, the injector, arenas; and the map, which stands on it. */
#include "base/map.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void test_checked_sizes(void **state)
{
    (void)state;
    size_t s;
    int64_t i;
    assert_true(qd_size_mul(SIZE_MAX / 2, 2, &s) && s == SIZE_MAX - 1);
    assert_false(qd_size_mul(SIZE_MAX / 2 + 1, 2, &s));
    assert_true(qd_size_add(SIZE_MAX - 1, 1, &s) && s == SIZE_MAX);
    assert_false(qd_size_add(SIZE_MAX, 1, &s));
    assert_false(qd_i64_mul(INT64_MIN, -1, &i));
    assert_false(qd_i64_add(INT64_MAX, 1, &i));
    assert_true(qd_i64_mul(-3, 4, &i) && i == -12);
    assert_int_equal(qd_align_up(0), 0);
    assert_int_equal(qd_align_up(1), 64);
    assert_int_equal(qd_align_up(64), 64);
    assert_true(qd_align_up(SIZE_MAX - 62) == SIZE_MAX && qd_align_up(SIZE_MAX) == SIZE_MAX);
}

static void test_blocks(void **state)
{
    (void)state;
    unsigned char *block = qd_calloc(3, 5);
    assert_non_null(block);
    for (int i = 0; i < 15; i++)
        assert_int_equal(block[i], 0);
    memset(block, 7, 15);
    block = qd_realloc(block, 1000, 1);
    assert_non_null(block);
    assert_int_equal(block[14], 7);
    assert_null(qd_realloc(block, SIZE_MAX, 2));
    assert_int_equal(block[14], 7);
    qd_free(block);
    assert_null(qd_calloc(SIZE_MAX / 2, 3));
    block = qd_calloc(0, 0);
    assert_non_null(block);
    qd_free(block);
    for (size_t n = 0; n < 130; n += 13) {
        block = qd_alloc_aligned(n);
        assert_true(block && (uintptr_t)block % QD_ALIGN_BYTES == 0);
        memset(block, 1, n);
        qd_free(block);
    }
    assert_null(qd_alloc_aligned(SIZE_MAX - 10));
    char *text = qd_strndup("abcdef", 3);
    assert_string_equal(text, "abc");
    qd_free(text);
    assert_null(qd_strndup("", SIZE_MAX));
}

static void test_the_injector(void **state)
{
    (void)state;
    void *blocks[3];
    qd_mem_fail_at(2, false);
    for (int i = 0; i < 3; i++)
        blocks[i] = qd_calloc(1, 1);
    assert_true(blocks[0] && !blocks[1] && blocks[2]);
    assert_int_equal(qd_mem_count(), 3);
    qd_free(blocks[0]);
    qd_free(blocks[2]);
    qd_mem_fail_at(1, true);
    assert_null(qd_calloc(1, 1));
    assert_null(qd_alloc_aligned(1));
    assert_null(qd_realloc(NULL, 1, 1));
    assert_null(qd_strndup("a", 1));
    struct qd_arena *arena = NULL;
    assert_int_equal(qd_arena_create(100, &arena), QD_ERR_NO_MEMORY);
    qd_mem_fail_at(2, true); /* the arena itself comes, its first chunk does not */
    assert_int_equal(qd_arena_create(100, &arena), QD_OK);
    assert_null(qd_arena_alloc(arena, 1, 1));
    assert_null(qd_arena_strndup(arena, "a", 1));
    qd_mem_fail_at(0, false);
    assert_non_null(qd_arena_alloc(arena, 1, 1));
    qd_arena_destroy(&arena);
}

static void test_arena(void **state)
{
    (void)state;
    struct qd_arena *arena;
    unsigned char *pieces[300];
    assert_int_equal(qd_arena_create(1, &arena), QD_OK);
    assert_int_equal(qd_arena_bytes(arena), 0);
    for (size_t i = 0; i < 300; i++) {
        pieces[i] = qd_arena_alloc(arena, i, 3);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % (i * 3 >= 64 ? 64 : 16), 0);
        for (size_t k = 0; k < i * 3; k++)
            assert_int_equal(pieces[i][k], 0);
        memset(pieces[i], (int)(i & 0xff), i * 3);
    }
    for (size_t i = 0; i < 300; i++) /* nobody wrote into a neighbour */
        for (size_t k = 0; k < i * 3; k++)
            assert_int_equal(pieces[i][k], i & 0xff);
    assert_null(qd_arena_alloc(arena, SIZE_MAX, 2));
    assert_null(qd_arena_alloc(arena, SIZE_MAX, 1));
    assert_null(qd_arena_alloc_raw(arena, SIZE_MAX - 10));
    assert_null(qd_arena_strndup(arena, "", SIZE_MAX));
    size_t held = qd_arena_bytes(arena);
    assert_true(held > 300 * 299 / 2 * 3);
    qd_arena_reset(arena);
    assert_true(qd_arena_bytes(arena) > 0 && qd_arena_bytes(arena) < held);
    held = qd_arena_bytes(arena);
    void *raw = qd_arena_alloc_raw(arena, 1000);
    assert_int_equal((uintptr_t)raw % 64, 0);
    assert_string_equal(qd_arena_strndup(arena, "abcdef", 2), "ab");
    assert_int_equal(qd_arena_bytes(arena), held); /* the chunk that was kept serves again */
    unsigned char *again = qd_arena_alloc(arena, 64, 8);
    for (int k = 0; k < 512; k++)
        assert_int_equal(again[k], 0); /* reused, and zeroed all the same */
    qd_arena_destroy(&arena);
    assert_null(arena);
    qd_arena_destroy(&arena);
}

static void test_map(void **state)
{
    (void)state;
    enum { N = 20000 };
    struct qd_map map = {0};
    static char names[N][12];
    int value = -1;
    assert_false(qd_map_find(&map, "a", 1, &value));
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "%d", i);
        assert_int_equal(qd_map_put(&map, names[i], strlen(names[i]), i), QD_OK);
    }
    for (int i = 0; i < N; i++) {
        assert_true(qd_map_find(&map, names[i], strlen(names[i]), &value));
        assert_int_equal(value, i);
    }
    value = -1;
    assert_false(qd_map_find(&map, "20000", 5, &value));
    assert_false(qd_map_find(&map, "1\0", 2, &value)); /* keys are bytes of a length, not zero-terminated */
    assert_int_equal(value, -1);
    assert_int_equal(qd_map_put(&map, "", 0, 5), QD_OK);
    assert_true(qd_map_find(&map, "", 0, &value) && value == 5);
    assert_int_equal(map.count, N + 1);
    qd_map_clear(&map);
    assert_false(qd_map_find(&map, "1", 1, &value));
}

static void test_map_without_memory(void **state)
{
    (void)state;
    struct qd_map map = {0};
    static char names[100][16];
    int value;
    qd_mem_fail_at(1, true);
    assert_int_equal(qd_map_put(&map, "a", 1, 1), QD_ERR_NO_MEMORY);
    qd_mem_fail_at(2, true); /* the first table comes, the larger one does not */
    int stored = 0;
    for (; stored < 100; stored++) {
        snprintf(names[stored], sizeof names[stored], "n%d", stored);
        if (qd_map_put(&map, names[stored], strlen(names[stored]), stored) != QD_OK)
            break;
    }
    qd_mem_fail_at(0, false);
    assert_in_range(stored, 1, 99);
    for (int i = 0; i < stored; i++)
        assert_true(qd_map_find(&map, names[i], strlen(names[i]), &value) && value == i);
    assert_false(qd_map_find(&map, names[stored], strlen(names[stored]), &value));
    qd_map_clear(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checked_sizes), cmocka_unit_test(test_blocks), cmocka_unit_test(test_the_injector),
        cmocka_unit_test(test_arena),         cmocka_unit_test(test_map),    cmocka_unit_test(test_map_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
