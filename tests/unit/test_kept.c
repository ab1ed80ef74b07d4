/* States of replicas merged by the formula of docs/QUANTIZATION.md, section 8, and files that must be whole: every bit
 * of a sealed text turned, and the text cut off at every place. */
#include "base/mem.h"
#include "engine/engine.h"
#include "server/state_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct qd_range_state part(double lo, double hi, uint64_t n)
{
    return (struct qd_range_state){
        .name = "t", .lo = lo, .hi = hi, .n = n, .observed_min = lo - 1, .observed_max = hi + 1, .elements = 7 * n};
}

static void test_weights(void **state)
{
    (void)state;
    const struct qd_range_state few[] = {part(-1, 4, 10), part(-3, 8, 30)};
    struct qd_range_state out = qd_range_state_merge(&few[0], few, 2, .01);
    assert_true(fabs(out.lo + 2.5) < 1e-12 && fabs(out.hi - 7) < 1e-12);
    assert_int_equal(out.n, 40);
    assert_true(out.observed_min == -4 && out.observed_max == 9);
    assert_int_equal(out.elements, 70); /* its own */

    const struct qd_range_state many[] = {part(0, 1, 1000000), part(0, 3, 100), part(0, 5, 50)};
    out = qd_range_state_merge(&many[1], many, 3, .01);
    assert_true(fabs(out.hi - (100 * 1 + 100 * 3 + 50 * 5) / 250.0) < 1e-12);
    assert_int_equal(out.n, 1000000); /* never less than the longest, never more than 1 / c by adding */
    out = qd_range_state_merge(&many[1], many + 1, 2, .01);
    assert_int_equal(out.n, 100);
}

static void test_nothing_and_the_same(void **state)
{
    (void)state;
    const struct qd_range_state own = part(-2, 2, 5), none[] = {part(9, 9, 0)};
    struct qd_range_state out = qd_range_state_merge(&own, none, 1, .01);
    assert_true(out.lo == -2 && out.hi == 2 && out.n == 5);
    const struct qd_range_state same[] = {part(-.1, .3, 11), part(-.1, .3, 12), part(-.1, .3, 400)};
    out = qd_range_state_merge(&own, same, 3, .01);
    assert_true(out.lo == -.1 && out.hi == .3); /* to the bit */
    const struct qd_range_state extreme[] = {part((double)-FLT_MAX, (double)FLT_MAX, 3), part(0, 0, 1)};
    out = qd_range_state_merge(&own, extreme, 2, 1);
    assert_true(qd_range_state_sound(&(struct qd_range_state){.lo = out.lo, .hi = out.hi}));
    assert_false(qd_range_state_sound(&(struct qd_range_state){.lo = 1, .hi = 0}));
    assert_false(qd_range_state_sound(&(struct qd_range_state){.hi = 1e39}));
    assert_false(qd_range_state_sound(&(struct qd_range_state){.hi = NAN}));
}

static void test_every_bit(void **state)
{
    (void)state;
    char *sealed = qd_state_file_seal("{\"quantd_state\":1,\"tensors\":[]}");
    assert_non_null(sealed);
    const size_t n = strlen(sealed);
    char *copy = test_malloc(n + 1);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        memcpy(copy, sealed, n + 1);
        copy[bit / 8] = (char)(copy[bit / 8] ^ 1 << bit % 8);
        assert_false(qd_state_file_unseal(copy, n));
    }
    for (size_t cut = 0; cut < n; cut++) {
        memcpy(copy, sealed, n + 1);
        copy[cut] = 0;
        assert_false(qd_state_file_unseal(copy, cut));
    }
    memcpy(copy, sealed, n + 1);
    assert_true(qd_state_file_unseal(copy, n));
    assert_string_equal(copy, "{\"quantd_state\":1,\"tensors\":[]}");
    test_free(copy);
    qd_free(sealed);
}

static void test_files(void **state)
{
    (void)state;
    const char *where = getenv("TMPDIR"), *phrase;
    char folder[512], path[600];
    snprintf(folder, sizeof folder, "%s/kept-XXXXXX", where && strlen(where) < 400 ? where : P_tmpdir);
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.json", folder);
    assert_null(qd_state_file_read(path, &phrase));
    assert_null(phrase); /* there is none: nothing is wrong */
    char *one = qd_state_file_seal("one"), *two = qd_state_file_seal("two");
    assert_int_equal(qd_state_file_write(path, one), 0);
    assert_int_equal(qd_state_file_write(path, two), 0);
    char *read = qd_state_file_read(path, &phrase);
    assert_string_equal(read, "two");
    qd_free(read);
    assert_int_not_equal(qd_state_file_write("/nowhere/at/all.json", one), 0);
    assert_int_equal(qd_state_file_remove(path), 0);
    assert_int_equal(qd_state_file_remove(path), 0);
    assert_int_equal(rmdir(folder), 0); /* nothing was left beside it */
    qd_free(one);
    qd_free(two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_nothing_and_the_same),
        cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
