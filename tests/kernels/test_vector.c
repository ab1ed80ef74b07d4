/* quantize_u8, quantize_s16, dequantize_u8, observe_f32 and max_rows_u8 of every level against requant.h, bit by bit,
 * with NaN, infinities, zeros of both signs, ties and values at the limits; buffers of exactly the stated length
 * between canaries. */
#include "engine/kernels/kernels.h"
#include "tests/kernels/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEED = 4711, MAX = 1300, GUARD = 64, CANARY = 0xa5 };

static const struct qd_qparams RANGES[] = {{0.5f, 0, 0, 255},    {0.5f, 255, 0, 255},          {0.037f, 121, 0, 255},
                                           {0.25f, 128, 1, 255}, {1.17549435e-38f, 3, 0, 255}, {3e38f, 9, 0, 255}};
enum { RANGE_COUNT = sizeof RANGES / sizeof *RANGES };

static void fill(uint64_t *s, float *x, size_t n, const struct qd_qparams *qp, bool wild)
{
    const float rare[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 3.4e38f, -3.4e38f, 1e-45f};
    for (size_t i = 0; i < n; i++) {
        x[i] = qp->scale * ((float)(draw(s) % 520) - 260.0f) * 0.5f; /* half of them ties */
        if (wild && draw(s) % 40 == 0)
            x[i] = rare[draw(s) % 8];
    }
}

/* The same to 16 bits, with and without an observation. */
static bool words_agree(const struct qd_kernels *kernels, const float *x, size_t n, const struct qd_qparams *like)
{
    const struct qd_qparams qp = {.scale = like->scale / 256, .qmin = -32767, .qmax = 32767};
    struct qd_observation wanted = qd_observation_empty(), seen = wanted;
    int16_t q[MAX + GUARD], again[MAX + GUARD];
    memset(q, CANARY, sizeof q);
    memset(again, CANARY, sizeof again);
    kernels->quantize_s16(x, n, &qp, q, &seen);
    kernels->quantize_s16(x, n, &qp, again, NULL);
    bool good = memcmp(q, again, sizeof q) == 0;
    for (size_t i = 0; i < n; i++) {
        qd_observe_one(&wanted, x[i], x[i] / qp.scale, &qp);
        good = good && q[i] == qd_quantize_one_s16(x[i], &qp);
    }
    for (size_t i = n; i < MAX + GUARD; i++)
        good = good && q[i] == (int16_t)(CANARY << 8 | CANARY);
    return good && same_observation(&seen, &wanted);
}

static void quantize_and_observe(void **unused)
{
    (void)unused;
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (uint64_t round = 0; kernels && round < 600; round++) {
            uint64_t s = SEED + round;
            size_t n = round < 80 ? round : draw(&s) % MAX;
            const struct qd_qparams *qp = &RANGES[round % RANGE_COUNT];
            float *x = malloc(n * 4 + 1), back[MAX];
            assert_non_null(x);
            uint8_t q[GUARD + MAX + GUARD];
            memset(q, CANARY, sizeof q);
            for (size_t i = 0; i < MAX; i++)
                back[i] = -77.0f;
            fill(&s, x, n, qp, round % 3 == 0);
            struct qd_observation wanted = qd_observation_empty(), seen = wanted, alone = wanted, unclipped = wanted,
                                  plain = wanted;
            for (size_t i = 0; i < n; i++) {
                qd_observe_one(&wanted, x[i], x[i] / qp->scale, qp);
                qd_observe_one(&plain, x[i], 0.0f, NULL);
            }
            kernels->quantize_u8(x, n, qp, q + GUARD, &seen);
            kernels->observe_f32(x, n, qp, &alone);
            kernels->observe_f32(x, n, NULL, &unclipped);
            kernels->dequantize_u8(q + GUARD, n, qp, back);
            bool good = same_observation(&seen, &wanted) && same_observation(&alone, &wanted) &&
                        same_observation(&unclipped, &plain);
            for (size_t i = 0; i < n; i++) {
                float real = qd_dequantize_one(q[GUARD + i], qp);
                good = good && q[GUARD + i] == qd_quantize_one(x[i], qp) && same_floats(&back[i], &real, 1);
            }
            for (size_t i = 0; i < GUARD; i++)
                good = good && q[i] == CANARY && q[GUARD + n + i] == CANARY;
            for (size_t i = n; i < MAX; i++)
                good = good && back[i] == -77.0f;
            uint8_t again[MAX];
            kernels->quantize_u8(x, n, qp, again, NULL);
            good = good && memcmp(again, q + GUARD, n) == 0 && words_agree(kernels, x, n, qp);
            free(x);
            if (!good)
                fail_msg("%s: seed %llu, n %zu", kernels->isa_name, (unsigned long long)(SEED + round), n);
        }
    }
}

static void observation_merges(void **unused)
{
    (void)unused;
    const float x[] = {1.0f, 2.0f};
    for (int isa = 0; isa < QD_ISA_COUNT; isa++)
        if (qd_kernels_at((enum qd_isa)isa)) {
            struct qd_observation seen = {.min = -5.0f, .max = 1.5f, .elems = 7, .nonfinite = 2, .clipped_low = 3};
            qd_kernels_at((enum qd_isa)isa)->observe_f32(x, 2, NULL, &seen);
            assert_true(seen.min == -5.0f && seen.max == 2.0f && seen.elems == 9 && seen.nonfinite == 2 &&
                        seen.clipped_low == 3);
        }
}

static void max_rows(void **unused)
{
    (void)unused;
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (uint64_t round = 0; kernels && round < 300; round++) {
            uint64_t s = SEED + round;
            size_t rows = 1 + draw(&s) % 9, n = draw(&s) % 200;
            uint8_t *in[9], out[GUARD + 200 + GUARD];
            memset(out, CANARY, sizeof out);
            for (size_t i = 0; i < rows; i++) {
                in[i] = malloc(n + 1);
                assert_non_null(in[i]);
                for (size_t j = 0; j < n; j++)
                    in[i][j] = draw_u8(&s, (enum kind)(draw(&s) % KIND_COUNT));
            }
            kernels->max_rows_u8((const uint8_t *const *)in, rows, n, out + GUARD);
            for (size_t j = 0; j < n; j++) {
                uint8_t most = 0;
                for (size_t i = 0; i < rows; i++)
                    most = in[i][j] > most ? in[i][j] : most;
                assert_int_equal(out[GUARD + j], most);
            }
            for (size_t i = 0; i < GUARD; i++)
                assert_true(out[i] == CANARY && out[GUARD + n + i] == CANARY);
            for (size_t i = 0; i < rows; i++)
                free(in[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(quantize_and_observe), cmocka_unit_test(observation_merges),
                                       cmocka_unit_test(max_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
