/* Other libraries' observers against recordings of those libraries (tests/reference/observers.py writes them). The file
 * is tests/unit/observers.txt, or what OBSERVER_STREAMS names: tests/e2e/test_observers.py records afresh that way. */
#include "engine/quant/observers.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const names[] = {[QD_COMPAT_TORCH] = "torch",
                                    [QD_COMPAT_TORCH_FUSED] = "torch_fused",
                                    [QD_COMPAT_TF] = "tf",
                                    [QD_COMPAT_ORT] = "ort"};

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Bit for bit; one NaN is as good as another. */
static bool same(float a, uint32_t bits)
{
    float b = from_bits(bits);
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

static enum qd_compat compat_of(const char *name)
{
    for (size_t i = QD_COMPAT_TORCH; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0)
            return (enum qd_compat)i;
    fail_msg("no observer '%s'", name);
    return QD_COMPAT_QUANTD;
}

static void compare(int line, const struct qd_observer *observer, const struct qd_observer_rules *rules,
                    const uint32_t row[5], int zero_point)
{
    struct qd_qparams qp = {0, 0, 0, 0};
    bool usable = qd_observer_qparams(observer, rules, &qp);
    int offset = rules->symmetric && rules->compat != QD_COMPAT_TF ? QD_CARRIER_OFFSET : 0;
    bool right = same(observer->lo, row[2]) && same(observer->hi, row[3]) && usable == (row[4] != 0);
    if (usable)
        right = right && same(qp.scale, row[4]) && qp.zero_point - offset == zero_point;
    if (!right)
        fail_msg("line %d, %s%s: lo %a, hi %a, scale %a, zero point %d; the package has %a, %a, %a, %d", line,
                 names[rules->compat], rules->symmetric ? " symmetric" : "", (double)observer->lo, (double)observer->hi,
                 (double)qp.scale, qp.zero_point - offset, (double)from_bits(row[2]), (double)from_bits(row[3]),
                 (double)from_bits(row[4]), zero_point);
}

static void test_recorded_streams(void **state)
{
    (void)state;
    const char *path = getenv("OBSERVER_STREAMS");
    FILE *file = fopen(path ? path : "tests/unit/observers.txt", "r");
    assert_non_null(file);
    struct qd_observer_rules rules = {QD_COMPAT_QUANTD, false, 0};
    struct qd_observer observer = {0, 0};
    char text[200];
    int streams = 0, rows = 0;
    for (int line = 1; fgets(text, sizeof text, file); line++) {
        char name[32];
        int symmetric, zero_point;
        double c;
        uint32_t row[5];
        if (sscanf(text, "# %31s %d %lf", name, &symmetric, &c) == 3) {
            rules = (struct qd_observer_rules){compat_of(name), symmetric != 0, (float)c};
            observer = qd_observer_start(&rules);
            streams++;
        } else if (sscanf(text, "%" SCNx32 " %" SCNx32 " %" SCNx32 " %" SCNx32 " %" SCNx32 " %d", &row[0], &row[1],
                          &row[2], &row[3], &row[4], &zero_point) == 6) {
            qd_observer_fold(&observer, &rules, from_bits(row[0]), from_bits(row[1]));
            compare(line, &observer, &rules, row, zero_point);
            rows++;
        } else
            fail_msg("line %d cannot be read: %s", line, text);
    }
    fclose(file);
    print_message("%d streams, %d observations\n", streams, rows);
    assert_true(streams > 0 && rows > streams);
}

/* The limits of what is carried: PyTorch's and TensorFlow's symmetric range has -128, ONNX Runtime's has not. */
static void test_limits(void **state)
{
    (void)state;
    for (int i = QD_COMPAT_TORCH; i <= QD_COMPAT_ORT; i++)
        for (int symmetric = 0; symmetric < 2; symmetric++) {
            struct qd_observer_rules rules = {(enum qd_compat)i, symmetric != 0, 1.0f};
            struct qd_observer observer = qd_observer_start(&rules);
            struct qd_qparams qp;
            qd_observer_fold(&observer, &rules, -1, 3);
            assert_true(qd_observer_qparams(&observer, &rules, &qp));
            assert_int_equal(qp.qmin, symmetric && i == QD_COMPAT_ORT ? 1 : 0);
            assert_int_equal(qp.qmax, 255);
            assert_int_equal(qp.zero_point, symmetric ? 128 : 64);
        }
}

static void test_a_range_that_overflowed_gives_none(void **state)
{
    (void)state;
    struct qd_observer_rules rules = {QD_COMPAT_TORCH, false, 0.5f};
    struct qd_observer observer = qd_observer_start(&rules);
    struct qd_qparams qp;
    assert_false(qd_observer_qparams(&observer, &rules, &qp));
    qd_observer_fold(&observer, &rules, -3e38f, -3e38f);
    assert_true(qd_observer_qparams(&observer, &rules, &qp));
    qd_observer_fold(&observer, &rules, 3e38f, 3e38f); /* 3e38 - -3e38 overflows there too */
    assert_true(isinf(observer.lo));
    assert_false(qd_observer_qparams(&observer, &rules, &qp));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded_streams),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_a_range_that_overflowed_gives_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
