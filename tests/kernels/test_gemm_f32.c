/* gemm_f32 of every level: close to the sum in double, exact on small integers, and a row's bits the same wherever it
 * stands: alone, in another tile, under another split, read directly or by a table. The seed is printed on failure. */
#include "base/mem.h"
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

enum { SEED = 977, MAX = 40, MAX_K = 90, CANARY_WORDS = 16 };
static const float CANARY = -12345.5f;

struct problem {
    uint64_t seed;
    size_t m, n, k, taps;
    float room[1 + MAX * MAX_K], *a, w[MAX * MAX_K], factor[MAX], scale[MAX], bias[MAX];
    const void *table[MAX * MAX_K];
    struct qd_epilogue epilogue;
};

static void fill(struct problem *p, uint64_t seed, bool integers)
{
    uint64_t s = seed;
    *p = (struct problem){.seed = seed, .m = 1 + draw(&s) % MAX, .n = 1 + draw(&s) % MAX, .taps = 1 + draw(&s) % 3};
    p->a = p->room + 1;
    p->k = p->taps * (1 + draw(&s) % (MAX_K / 3));
    for (size_t i = 0; i < p->m * p->k; i++)
        p->a[i] = integers ? (float)(draw(&s) % 9) - 4.0f : draw_f32(&s, 2.0f);
    for (size_t i = 0; i < p->n * p->k; i++)
        p->w[i] = integers ? (float)(draw(&s) % 9) - 4.0f : draw_f32(&s, 2.0f);
    for (size_t j = 0; j < p->n; j++) {
        p->factor[j] = integers ? 2.0f : 0.5f + draw_f32(&s, 0.5f);
        p->scale[j] = integers ? 0.5f : 1.0f + draw_f32(&s, 1.0f);
        p->bias[j] = integers ? (float)(draw(&s) % 9) : draw_f32(&s, 4.0f);
    }
    for (size_t t = 0; t < p->m * p->taps; t++)
        p->table[t] = p->room + t * (p->k / p->taps); /* one float early: offset_bytes */
    p->epilogue = (struct qd_epilogue){.scale = draw(&s) % 3 ? p->scale : NULL, .bias = draw(&s) % 3 ? p->bias : NULL};
}

struct answer {
    float before[CANARY_WORDS], out[MAX * MAX], after[CANARY_WORDS];
    uint8_t u8[MAX * MAX];
    struct qd_observation seen, seen_u8;
};

static const struct qd_qparams QP = {0.02f, 120, 0, 255};

static void run(const struct qd_kernels *kernels, struct problem *p, bool indirect, size_t row_begin, size_t row_end,
                size_t col, struct answer *answer)
{
    const struct qd_gemm_f32 *g = &kernels->gemm_f32;
    void *packed = qd_alloc_aligned(g->packed_bytes(p->n, p->k)), *scratch = qd_alloc_aligned(g->scratch_bytes(p->k));
    assert_true(packed && scratch);
    g->pack(p->n, p->k, p->w, p->k, 1, p->factor, packed);
    for (size_t i = 0; i < sizeof answer->out / 4; i++)
        answer->out[i] = CANARY;
    for (size_t i = 0; i < CANARY_WORDS; i++)
        answer->before[i] = answer->after[i] = CANARY;
    answer->seen = answer->seen_u8 = qd_observation_empty();
    size_t tap_bytes = p->k / p->taps * sizeof(float);
    struct qd_gemm_args args = {
        .m = p->m,
        .n = p->n,
        .k = p->k,
        .row_begin = row_begin,
        .row_end = row_end,
        .b = packed,
        .scratch = scratch,
        .a = indirect ? (struct qd_rows){.table = p->table,
                                         .taps = p->taps,
                                         .tap_bytes = tap_bytes,
                                         .offset_bytes = sizeof(float)}
                      : (struct qd_rows){.base = p->a, .stride_bytes = p->k * 4, .taps = 1, .tap_bytes = p->k * 4},
        .epilogue = p->epilogue};
    args.epilogue.out_stride_elems = p->n;
    for (int half = 0; half < 2; half++) {
        args.col_begin = half ? col : 0;
        args.col_end = half ? p->n : col;
        if (args.col_begin == args.col_end)
            continue;
        args.epilogue.out = answer->out;
        args.epilogue.observe = &answer->seen;
        args.epilogue.quantize = NULL;
        g->run(&args);
        args.epilogue.out = answer->u8;
        args.epilogue.observe = &answer->seen_u8;
        args.epilogue.quantize = &QP;
        g->run(&args);
    }
    qd_free(packed);
    qd_free(scratch);
}

static void check_values(const struct qd_kernels *kernels, struct problem *p, bool exact)
{
    struct answer answer;
    run(kernels, p, false, 0, p->m, 0, &answer);
    struct qd_observation f32_seen = qd_observation_empty(), u8_seen = qd_observation_empty();
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < p->n; j++) {
            double acc = 0.0, size = 0.0;
            for (size_t d = 0; d < p->k; d++) {
                double product = (double)p->a[i * p->k + d] * (double)p->w[j * p->k + d] * (double)p->factor[j];
                acc += product;
                size += fabs(product);
            }
            double scale = p->epilogue.scale ? (double)p->scale[j] : 1.0,
                   bias = p->epilogue.bias ? (double)p->bias[j] : 0.0;
            double wanted = acc * scale + bias, room = exact ? 0.0 : (size * scale + fabs(bias)) * 1e-5;
            float got = answer.out[i * p->n + j];
            if (!(fabs((double)got - wanted) <= room) ||
                answer.u8[i * p->n + j] != qd_requantize_one(got, 1.0f / QP.scale, &QP))
                fail_msg("%s: seed %llu, (%zu, %zu) is %g, not %g", kernels->gemm_f32.name, (unsigned long long)p->seed,
                         i, j, (double)got, wanted);
            qd_observe_one(&f32_seen, got, 0.0f, NULL);
            qd_observe_one(&u8_seen, got, got * (1.0f / QP.scale), &QP);
        }
    assert_true(same_observation(&f32_seen, &answer.seen) && same_observation(&u8_seen, &answer.seen_u8));
    for (size_t i = 0; i < CANARY_WORDS; i++)
        assert_true(answer.before[i] == CANARY && answer.after[i] == CANARY);
    for (size_t i = p->m * p->n; i < MAX * MAX; i++)
        assert_true(answer.out[i] == CANARY);
}

static void sums_are_right(void **unused)
{
    (void)unused;
    static struct problem p;
    for (int isa = 0; isa < QD_ISA_COUNT; isa++)
        for (uint64_t i = 0; qd_kernels_at((enum qd_isa)isa) && i < 400; i++) {
            fill(&p, SEED + i, i % 2);
            check_values(qd_kernels_at((enum qd_isa)isa), &p, i % 2);
        }
}

static void a_rows_bits_depend_on_nothing_else(void **unused)
{
    (void)unused;
    static struct problem p;
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (uint64_t i = 0; kernels && i < 200; i++) {
            uint64_t s = SEED + 31 * i;
            fill(&p, s, false);
            struct answer whole, part;
            run(kernels, &p, false, 0, p.m, 0, &whole);
            size_t first = draw(&s) % p.m, last = first + 1 + draw(&s) % (p.m - first);
            run(kernels, &p, true, first, last, draw(&s) % (p.n / kernels->gemm_f32.nr + 1) * kernels->gemm_f32.nr,
                &part);
            if (memcmp(whole.out + first * p.n, part.out + first * p.n, (last - first) * p.n * 4) != 0)
                fail_msg("%s: seed %llu, rows %zu..%zu of %zu differ from the whole", kernels->gemm_f32.name,
                         (unsigned long long)p.seed, first, last, p.m);
            for (size_t j = 0; j < MAX * MAX; j++)
                if (j < first * p.n || j >= last * p.n)
                    assert_true(part.out[j] == CANARY);
        }
    }
}

/* Blocks of the depth must not show: every output is one chain in ascending k, fused on every ISA but the scalar. */
static void deep_sums_are_one_chain(void **unused)
{
    (void)unused;
    enum { M = 14, N = 37, DEEP = 9 * 300 };
    const struct {
        size_t k, taps;
    } ways[] = {{400, 1}, {1153, 1}, {9 * 64, 9}, {9 * 300, 9}, {2 * 700, 2}, {1024, 1}};
    static float a[M * DEEP], w[N * DEEP], out[M * N];
    static const void *table[M * 9];
    uint64_t s = SEED;
    for (size_t i = 0; i < M * DEEP; i++)
        a[i] = draw_f32(&s, 2.0f);
    for (size_t i = 0; i < N * DEEP; i++)
        w[i] = draw_f32(&s, 2.0f);
    for (size_t way = 0; way < 2 * sizeof ways / sizeof *ways; way++)
        for (int isa = QD_ISA_SCALAR + 1; isa < QD_ISA_COUNT; isa++) {
            if (!qd_kernels_at((enum qd_isa)isa))
                continue;
            const struct qd_gemm_f32 *g = &qd_kernels_at((enum qd_isa)isa)->gemm_f32;
            const size_t k = ways[way / 2].k, taps = way % 2 ? ways[way / 2].taps : 1;
            void *packed = qd_alloc_aligned(g->packed_bytes(N, k)), *scratch = qd_alloc_aligned(g->scratch_bytes(k));
            assert_true(packed && scratch);
            g->pack(N, k, w, k, 1, NULL, packed);
            for (size_t t = 0; t < M * taps; t++)
                table[t] = a + t * (k / taps);
            struct qd_gemm_args args = {
                .m = M, .n = N, .k = k, .row_end = M, .col_end = N, .b = packed, .scratch = scratch};
            args.a = (struct qd_rows){
                .base = a, .stride_bytes = k * sizeof *a, .taps = taps, .tap_bytes = k / taps * sizeof *a};
            args.a.table = way % 2 ? table : NULL;
            args.epilogue = (struct qd_epilogue){.out = out, .out_stride_elems = N};
            g->run(&args);
            for (size_t i = 0; i < M * N; i++) {
                float sum = 0.0f;
                for (size_t p = 0; p < k; p++)
                    sum = fmaf(a[i / N * k + p], w[i % N * k + p], sum);
                if (out[i] != sum)
                    fail_msg("%s: way %zu, output %zu is not one chain", g->name, way, i);
            }
            qd_free(packed);
            qd_free(scratch);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sums_are_right),
                                       cmocka_unit_test(a_rows_bits_depend_on_nothing_else),
                                       cmocka_unit_test(deep_sums_are_one_chain)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
