/* Rows with scales of their own: quantize_rows_u8 of every level against requant.h, and gemm_q8 with row scales against
 * plain loops, bit by bit; a row that holds NaN or 1e30 changes no other, and rows alone are rows together. */
#include "base/mem.h"
#include "engine/kernels/functions.h"
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

#include <math.h>

enum { ROWS = 9, MAX = 400, CANARY = 0xa5 };

static void fill(uint64_t *s, float *x, size_t n, bool wild)
{
    const float rare[] = {NAN, INFINITY, -INFINITY, 1e30f, -0.0f, 3.4e38f, -3.4e38f, 1e-45f};
    const float width = (float)(1 + draw(s) % 100), shift = draw_f32(s, 2.0f) * width;
    for (size_t i = 0; i < n; i++)
        x[i] = wild && draw(s) % 20 == 0 ? rare[draw(s) % 8] : draw_f32(s, width) + shift;
}

static void rows_by_arithmetic(void **unused)
{
    (void)unused;
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (uint64_t seed = 1; kernels && seed < 500; seed++) {
            uint64_t s = seed;
            const size_t n = seed < 140 ? seed : 1 + draw(&s) % MAX;
            const bool symmetric = seed & 1;
            float *x = malloc(ROWS * n * sizeof *x); /* exactly: a read past it meets the sanitizer */
            uint8_t q[ROWS * MAX + 1];
            struct qd_row_scale scales[ROWS];
            struct qd_observation wanted = qd_observation_empty(), seen = wanted;
            assert_non_null(x);
            for (size_t i = 0; i < ROWS; i++)
                fill(&s, x + i * n, n, draw(&s) % 3 == 0);
            float *factors = malloc(n * sizeof *factors), *by = seed % 3 ? factors : NULL;
            assert_non_null(factors);
            for (size_t j = 0; j < n; j++)
                factors[j] = 0.1f + 3 * fabsf(draw_f32(&s, 1));
            memset(q, CANARY, sizeof q);
            kernels->quantize_rows_u8(x, n, by, ROWS, n, symmetric, q, scales, &seen);
            bool good = q[ROWS * n] == CANARY;
            for (size_t i = 0; i < ROWS; i++) {
                struct qd_observation row = qd_observation_empty();
                for (size_t j = 0; j < n; j++) {
                    x[i * n + j] *= by ? by[j] : 1;
                    qd_observe_one(&row, x[i * n + j], 0.0f, NULL);
                }
                const bool finite = row.min <= row.max;
                const struct qd_qparams qp = qd_qparams_from_range(finite ? (double)row.min : 0.0,
                                                                   finite ? (double)row.max : 0.0, symmetric);
                good = good && scales[i].scale == qp.scale && scales[i].zero_point == qp.zero_point;
                for (size_t j = 0; j < n; j++)
                    good = good && q[i * n + j] == qd_requantize_one(x[i * n + j], 1.0f / qp.scale, &qp);
                qd_observation_merge(&wanted, &row);
            }
            good = good && same_observation(&seen, &wanted);
            free(factors);
            free(x);
            if (!good)
                fail_msg("%s: seed %llu, n %zu", kernels->isa_name, (unsigned long long)seed, n);
        }
    }
}

static void a_poisoned_row_is_alone(void **unused)
{
    (void)unused;
    enum { N = 100 };
    const float poisons[] = {NAN, INFINITY, 1e30f};
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        uint64_t s = 5;
        float x[ROWS * N];
        uint8_t clean[ROWS * N], q[ROWS * N], alone[N];
        struct qd_row_scale clean_scales[ROWS], scales[ROWS], own;
        fill(&s, x, ROWS * N, false);
        if (!kernels)
            continue;
        kernels->quantize_rows_u8(x, N, NULL, ROWS, N, false, clean, clean_scales, NULL);
        for (size_t p = 0; p < 3; p++) {
            x[4 * N + 7] = poisons[p];
            kernels->quantize_rows_u8(x, N, NULL, ROWS, N, false, q, scales, NULL);
            for (size_t i = 0; i < ROWS; i++) {
                kernels->quantize_rows_u8(x + i * N, N, NULL, 1, N, false, alone, &own, NULL);
                assert_memory_equal(alone, q + i * N, N);
                assert_memory_equal(&own, &scales[i], sizeof own);
                if (i == 4)
                    continue;
                assert_memory_equal(q + i * N, clean + i * N, N);
                assert_memory_equal(&scales[i], &clean_scales[i], sizeof own);
            }
        }
    }
}

struct problem {
    size_t m, n, k;
    bool quantize, observe, residual;
    enum qd_act act;
    uint8_t *a;
    int8_t *w;
    struct qd_row_scale *rows;
    float *scale, *bias, *add;
    uint8_t *wanted, *out;
    struct qd_observation seen;
};

static const struct qd_qparams OUT = {0.05f, 110, 0, 255};

static void make(struct problem *p, uint64_t *s)
{
    static const float scales[] = {0.01f, 0.3f, 1e-20f, 3e37f};
    p->a = qd_calloc(p->m * p->k, 1);
    p->w = qd_calloc(p->n * p->k, 1);
    p->rows = qd_calloc(p->m, sizeof *p->rows);
    p->scale = qd_calloc(p->n, sizeof *p->scale);
    p->bias = qd_calloc(p->n, sizeof *p->bias);
    p->add = qd_calloc(p->m * p->n, sizeof *p->add);
    p->wanted = qd_calloc(p->m * p->n, sizeof(float));
    p->out = qd_calloc(p->m * p->n, sizeof(float));
    assert_true(p->a && p->w && p->rows && p->scale && p->bias && p->add && p->wanted && p->out);
    const enum kind kind = (enum kind)(draw(s) % KIND_COUNT);
    const bool wild = draw(s) % 4 == 0; /* scales that overflow float */
    for (size_t i = 0; i < p->m * p->k; i++)
        p->a[i] = draw_u8(s, kind);
    for (size_t i = 0; i < p->n * p->k; i++)
        p->w[i] = draw_s8(s, kind);
    for (size_t i = 0; i < p->m; i++)
        p->rows[i] = (struct qd_row_scale){scales[draw(s) % (wild ? 4 : 2)], (int32_t)(draw(s) % 256)};
    for (size_t j = 0; j < p->n; j++) {
        p->scale[j] = 0.001f + draw_f32(s, 0.001f);
        p->bias[j] = draw_f32(s, 2.0f);
    }
    for (size_t i = 0; i < p->m * p->n; i++)
        p->add[i] = draw_f32(s, 2.0f);
}

static void judge(struct problem *p, const struct qd_activation *act)
{
    p->seen = qd_observation_empty();
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < p->n; j++) {
            int32_t acc = 0;
            for (size_t d = 0; d < p->k; d++)
                acc += ((int32_t)p->a[i * p->k + d] - p->rows[i].zero_point) * p->w[j * p->k + d];
            float factor = p->rows[i].scale * p->scale[j], real = (float)acc * factor;
            real = real + p->bias[j];
            if (p->residual)
                real = real + p->add[i * p->n + j];
            real = qd_act_one(act, real);
            qd_observe_one(&p->seen, real, real * (1.0f / OUT.scale), p->quantize ? &OUT : NULL);
            if (p->quantize)
                p->wanted[i * p->n + j] = qd_requantize_one(real, 1.0f / OUT.scale, &OUT);
            else
                memcpy(p->wanted + (i * p->n + j) * sizeof real, &real, sizeof real);
        }
}

static bool matches(struct problem *p, const struct qd_kernels *kernels, const struct qd_activation *act,
                    const int32_t *sums, const void *packed, void *scratch, size_t split)
{
    struct qd_observation seen = qd_observation_empty();
    struct qd_gemm_args args = {
        .m = p->m,
        .n = p->n,
        .k = p->k,
        .col_end = p->n,
        .a = {.base = p->a, .stride_bytes = p->k, .taps = 1, .tap_bytes = p->k},
        .b = packed,
        .epilogue = {.acc_init = sums, /* to be ignored */
                     .scale = p->scale,
                     .bias = p->bias,
                     .rows = p->rows,
                     .row_count = p->m,
                     .sums = sums,
                     .act = *act,
                     .residual = {.data = p->residual ? p->add : NULL, .stride_elems = p->n},
                     .out = p->out,
                     .out_stride_elems = p->n,
                     .quantize = p->quantize ? &OUT : NULL,
                     .observe = p->observe ? &seen : NULL},
        .scratch = scratch,
    };
    memset(p->out, CANARY, p->m * p->n * sizeof(float));
    for (size_t from = 0; from < p->m; from = args.row_end) {
        args.row_begin = from;
        args.row_end = from + split < p->m ? from + split : p->m;
        kernels->gemm_q8.run(&args);
    }
    if (p->observe && !same_observation(&seen, &p->seen))
        return false;
    if (p->quantize)
        return memcmp(p->out, p->wanted, p->m * p->n) == 0;
    return same_floats((const float *)(const void *)p->out, (const float *)(const void *)p->wanted, p->m * p->n);
}

static bool works(struct problem *p, const struct qd_kernels *kernels, const struct qd_activation *act, uint64_t *s)
{
    const struct qd_gemm_q8 *g = &kernels->gemm_q8;
    void *packed = qd_alloc_aligned(g->packed_bytes(p->n, p->k)), *scratch = qd_alloc_aligned(g->scratch_bytes(p->k));
    int32_t *sums = qd_calloc(p->n, sizeof *sums);
    assert_true(packed && scratch && sums);
    g->pack(p->n, p->k, p->w, p->k, 1, packed, sums);
    bool good = matches(p, kernels, act, sums, packed, scratch, p->m) &&
                matches(p, kernels, act, sums, packed, scratch, 1 + draw(s) % p->m);
    qd_free(packed);
    qd_free(scratch);
    qd_free(sums);
    return good;
}

static void products_of_rows(void **unused)
{
    (void)unused;
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (uint64_t seed = 1; kernels && seed < 160; seed++) {
            uint64_t s = seed;
            struct problem p = {.m = 1 + draw(&s) % 40, .n = 1 + draw(&s) % 150, .k = 1 + draw(&s) % 70};
            if (seed % 40 == 0) /* the depth is cut; one row, several panels */
                p = (struct problem){.m = seed % 80 ? 1 : 14, .n = 140, .k = 1500};
            p.quantize = seed & 1;
            p.observe = seed & 2;
            p.residual = seed & 4;
            const struct qd_activation act = {.kind = (enum qd_act)(seed / 8 % QD_ACT_COUNT), .a = -0.3f, .b = 0.8f};
            make(&p, &s);
            judge(&p, &act);
            bool good = works(&p, kernels, &act, &s);
            void *blocks[] = {p.a, p.w, p.rows, p.scale, p.bias, p.add, p.wanted, p.out};
            for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
                qd_free(blocks[i]);
            if (!good)
                fail_msg("%s: seed %llu", kernels->isa_name, (unsigned long long)seed);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_by_arithmetic), cmocka_unit_test(a_poisoned_row_is_alone),
                                       cmocka_unit_test(products_of_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
