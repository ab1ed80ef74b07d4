/* Kernels of attention: exponentials of rows against libm and, bit by bit, the portable set; columns as signed bytes;
 * rows put together; B packed from rows and from columns gives the same panels. Every level, odd sizes, canaries behind
 * what is written. */
#include "engine/kernels/kernels.h"
#include "tests/kernels/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 3, MOST = 200, STRIDE = 208, CANARY = 0xa5 };

static void fill(uint64_t *s, float *x, size_t n, float width, bool wild)
{
    const float rare[] = {NAN, -INFINITY, -3.4e38f, 0.0f, -0.0f};
    for (size_t i = 0; i < n; i++)
        x[i] = wild && draw(s) % 16 == 0 ? rare[draw(s) % 5] : draw_f32(s, width);
}

static double largest(const float *x, size_t n)
{
    double most = -INFINITY;
    for (size_t j = 0; j < n; j++)
        most = (double)x[j] > most ? (double)x[j] : most;
    return most;
}

static void exponentials_as_floats(void **unused)
{
    (void)unused;
    static float x[ROWS * STRIDE], y[ROWS * STRIDE], want[ROWS * STRIDE];
    float sums[ROWS], want_sums[ROWS];
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (size_t n = 1; kernels && n <= MOST; n++) {
            uint64_t s = n;
            fill(&s, x, ROWS * STRIDE, n % 2 ? 8.0f : 300.0f, n % 5 == 0);
            memcpy(y, x, sizeof x);
            memcpy(want, x, sizeof x);
            qd_kernels_at(QD_ISA_SCALAR)->exp_rows_f32(want, ROWS, n, STRIDE, want_sums);
            kernels->exp_rows_f32(y, ROWS, n, STRIDE, sums);
            assert_true(same_floats(y, want, ROWS * STRIDE) && same_floats(sums, want_sums, ROWS));
            for (size_t i = 0; i < ROWS; i++)
                for (size_t j = 0; j < n; j++) {
                    double exact = exp((double)x[i * STRIDE + j] - largest(x + i * STRIDE, n));
                    if (exact == exact && !(fabs((double)y[i * STRIDE + j] - exact) <= 1e-6 * exact + (double)FLT_MIN))
                        fail_msg("%s: exp is %.9g, not %.9g", kernels->isa_name, (double)y[i * STRIDE + j], exact);
                }
        }
    }
}

static void exponentials_as_integers(void **unused)
{
    (void)unused;
    static float x[ROWS * STRIDE];
    static uint8_t got[2][ROWS * STRIDE], want[2][ROWS * STRIDE];
    float sums[ROWS], want_sums[ROWS];
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (size_t n = 1; kernels && n <= MOST; n++) {
            uint64_t s = n;
            fill(&s, x, ROWS * STRIDE, n % 2 ? 8.0f : 300.0f, n % 5 == 0);
            memset(got, CANARY, sizeof got);
            memset(want, CANARY, sizeof want);
            qd_kernels_at(QD_ISA_SCALAR)->exp_rows_u16(x, ROWS, n, STRIDE, want[0], want[1], STRIDE, want_sums);
            kernels->exp_rows_u16(x, ROWS, n, STRIDE, got[0], got[1], STRIDE, sums);
            assert_memory_equal(got, want, sizeof got);
            assert_memory_equal(sums, want_sums, sizeof sums);
            for (size_t i = 0; i < ROWS; i++) {
                double sum = 0, most = largest(x + i * STRIDE, n);
                for (size_t j = 0; j < n; j++) {
                    double w = got[0][i * STRIDE + j] * 256.0 + got[1][i * STRIDE + j];
                    double exact = 65535 * exp((double)x[i * STRIDE + j] - most);
                    sum += w;
                    assert_true(exact == exact ? fabs(w - exact) <= 7.6e-5 * exact + 0.51 : w == 0);
                }
                assert_true(sums[i] == (float)sum);
                for (size_t j = n; j < (n + 3) / 4 * 4; j++)
                    assert_true(got[0][i * STRIDE + j] == 0 && got[1][i * STRIDE + j] == 0);
                assert_int_equal(got[0][i * STRIDE + (n + 3) / 4 * 4], CANARY);
            }
        }
    }
}

static void columns_as_bytes(void **unused)
{
    (void)unused;
    static float x[40 * 80];
    int8_t got[40 * 70 + 1], want[40 * 70 + 1];
    float scale[70], want_scale[70];
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (size_t n = 1; kernels && n <= 70; n++) {
            uint64_t s = n;
            size_t rows = 1 + n * 7 % 40;
            fill(&s, x, sizeof x / sizeof *x, 5, n % 9 == 0);
            for (size_t i = 0; i < rows; i++)
                x[i * 80] = 0; /* a column of zeros */
            memset(got, CANARY, sizeof got);
            memset(want, CANARY, sizeof want);
            qd_kernels_at(QD_ISA_SCALAR)->quantize_columns_s8(x, rows, 80, n, want, want_scale);
            kernels->quantize_columns_s8(x, rows, 80, n, got, scale);
            assert_memory_equal(got, want, sizeof got);
            assert_true(same_floats(scale, want_scale, n) && scale[0] == 1.0f);
            for (size_t j = 0; j < n; j++) {
                bool finite = true;
                for (size_t i = 0; i < rows; i++)
                    finite = finite && isfinite(x[i * 80 + j]);
                assert_true(finite == isfinite(scale[j]));
                for (size_t i = 0; finite && i < rows; i++)
                    assert_true(fabsf((float)got[i * n + j] * scale[j] - x[i * 80 + j]) <= 0.501f * scale[j]);
            }
        }
    }
}

static void rows_joined(void **unused)
{
    (void)unused;
    static float a[7 * 70], b[7 * 70], got[7 * 90], want[7 * 90];
    float factor[7];
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (size_t n = 1; kernels && n <= 70; n++) {
            uint64_t s = n;
            fill(&s, a, sizeof a / sizeof *a, 5, n % 9 == 0);
            fill(&s, b, sizeof b / sizeof *b, 5, n % 11 == 0);
            fill(&s, factor, 7, 2, false);
            struct qd_join join = {a, n % 3 ? b : NULL, 7, n, factor, 0.3f, got, 90};
            memset(got, CANARY, sizeof got);
            memset(want, CANARY, sizeof want);
            for (size_t i = 0; i < 7; i++)
                for (size_t j = 0; j < n; j++) {
                    float x = n % 3 ? a[i * n + j] + b[i * n + j] : a[i * n + j];
                    want[i * 90 + j] = x * factor[i] + 0.3f;
                }
            kernels->join_rows(&join);
            assert_true(same_floats(got, want, 7 * 90));
        }
    }
}

/* The same matrix given by rows, by columns and spread out. */
static void packing_from_any_side(void **unused)
{
    (void)unused;
    static int8_t rows[100 * 72], columns[100 * 72], spread[2 * 100 * 72 * 2];
    static float frows[100 * 72], fcolumns[100 * 72], fspread[2 * 100 * 72 * 2];
    static const size_t sizes[][2] = {{1, 4}, {31, 8}, {32, 32}, {33, 32}, {96, 64}, {100, 72}, {64, 15}, {70, 33}};
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (size_t c = 0; kernels && c < sizeof sizes / sizeof sizes[0]; c++) {
            size_t n = sizes[c][0], k = sizes[c][1], bytes = kernels->gemm_q8.packed_bytes(n, k);
            size_t fbytes = kernels->gemm_f32.packed_bytes(n, k);
            uint64_t s = c + 1;
            int32_t sums[3][100];
            char *packed[3], *fpacked[3];
            for (size_t j = 0; j < n; j++)
                for (size_t p = 0; p < k; p++) {
                    int8_t w = draw_s8(&s, KIND_UNIFORM);
                    rows[j * k + p] = columns[p * n + j] = spread[(j * k + p) * 2] = w;
                    frows[j * k + p] = fcolumns[p * n + j] = fspread[(j * k + p) * 2] = (float)w;
                }
            for (int i = 0; i < 3; i++) {
                packed[i] = aligned_alloc(64, (bytes + 63) / 64 * 64);
                fpacked[i] = aligned_alloc(64, (fbytes + 63) / 64 * 64);
                assert_true(packed[i] && fpacked[i]);
            }
            kernels->gemm_q8.pack(n, k, rows, k, 1, packed[0], sums[0]);
            kernels->gemm_q8.pack(n, k, columns, 1, n, packed[1], sums[1]);
            kernels->gemm_q8.pack(n, k, spread, 2 * k, 2, packed[2], sums[2]);
            kernels->gemm_f32.pack(n, k, frows, k, 1, NULL, fpacked[0]);
            kernels->gemm_f32.pack(n, k, fcolumns, 1, n, NULL, fpacked[1]);
            kernels->gemm_f32.pack(n, k, fspread, 2 * k, 2, NULL, fpacked[2]);
            for (int i = 0; i < 3; i++) {
                assert_memory_equal(packed[i], packed[2], bytes);
                assert_memory_equal(fpacked[i], fpacked[2], fbytes);
                assert_memory_equal(sums[i], sums[2], n * sizeof sums[0][0]);
            }
            for (int i = 0; i < 3; i++) {
                free(packed[i]);
                free(fpacked[i]);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponentials_as_floats), cmocka_unit_test(exponentials_as_integers),
        cmocka_unit_test(columns_as_bytes),       cmocka_unit_test(rows_joined),
        cmocka_unit_test(packing_from_any_side),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
