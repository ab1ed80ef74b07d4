/* Weights with zero points: sum_rows_u8 of every level against plain sums, and gemm_q8 with weight_zeros against plain
 * loops over (x - Zx) (w - Zw), bit by bit: per tensor and per row, rows in place and by taps, cut in any way, down to
 * the deepest product with the largest numbers. */
#include "base/mem.h"
#include "engine/kernels/functions.h"
#include "engine/kernels/kernels.h"
#include "tests/kernels/folded.h"
#include "tests/kernels/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CANARY = 0x5a };

static const struct qd_qparams OUT = {0.05f, 110, 0, 255};

/* One product. Row i of A lies in `a`, k bytes long, or is gathered from it by `table`. */
struct problem {
    size_t m, n, k, taps;
    bool by_row, quantize, observe, extreme;
    enum qd_act act;
    uint8_t *a;
    const void **table; /* [m * taps] or NULL */
    int8_t *w;
    int32_t *zeros, zero_point;
    struct qd_row_scale *rows;
    float *scale, *bias;
    uint8_t *wanted, *out;
    struct qd_observation seen;
};

static void make(struct problem *p, uint64_t *s)
{
    const size_t tap = p->k / p->taps;
    p->a = qd_calloc(p->m * p->k, 1);
    p->table = p->taps > 1 ? qd_calloc(p->m * p->taps, sizeof *p->table) : NULL;
    p->w = qd_calloc(p->n * p->k, 1);
    p->zeros = qd_calloc(p->n, sizeof *p->zeros);
    p->rows = qd_calloc(p->m, sizeof *p->rows);
    p->scale = qd_calloc(p->n, sizeof *p->scale);
    p->bias = qd_calloc(p->n, sizeof *p->bias);
    p->wanted = qd_calloc(p->m * p->n, sizeof(float));
    p->out = qd_calloc(p->m * p->n, sizeof(float));
    assert_true(p->a && (p->table || p->taps == 1) && p->w && p->zeros && p->rows && p->scale && p->bias && p->wanted &&
                p->out);
    const enum kind kind = (enum kind)(draw(s) % KIND_COUNT);
    for (size_t i = 0; i < p->m * p->k; i++)
        p->a[i] = p->extreme ? 255 : draw_u8(s, kind);
    for (size_t i = 0; i < p->n * p->k; i++)
        p->w[i] = p->extreme ? 127 : (int8_t)(draw_u8(s, (enum kind)(draw(s) % KIND_COUNT)) - 128);
    for (size_t i = 0; p->table && i < p->m * p->taps; i++)
        p->table[i] = p->a + draw(s) % (p->m * p->taps) * tap;
    p->zero_point = p->extreme ? 0 : (int32_t)(draw(s) % 256);
    for (size_t i = 0; i < p->m; i++)
        p->rows[i] = (struct qd_row_scale){0.01f + draw_f32(s, 0.01f), p->extreme ? 0 : (int32_t)(draw(s) % 256)};
    for (size_t j = 0; j < p->n; j++) {
        p->zeros[j] = p->extreme ? -128 : (int32_t)(draw(s) % 256) - 128;
        p->scale[j] = 0.001f + draw_f32(s, 0.001f);
        p->bias[j] = draw_f32(s, 2.0f);
    }
}

static void drop(struct problem *p)
{
    void *blocks[] = {p->a, (void *)p->table, p->w, p->zeros, p->rows, p->scale, p->bias, p->wanted, p->out};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        qd_free(blocks[i]);
}

static uint8_t element(const struct problem *p, size_t i, size_t d)
{
    const size_t tap = p->k / p->taps;
    return p->table ? ((const uint8_t *)p->table[i * p->taps + d / tap])[d % tap] : p->a[i * p->k + d];
}

static void judge(struct problem *p, const struct qd_activation *act)
{
    const float clip[2] = {act->a, act->b};
    const bool folds = !p->by_row && !act->affine && (act->kind == QD_ACT_NONE || act->kind == QD_ACT_CLIP);
    p->seen = qd_observation_empty();
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < p->n; j++) {
            const int64_t zero = p->by_row ? p->rows[i].zero_point : p->zero_point;
            int64_t acc = 0;
            for (size_t d = 0; d < p->k; d++)
                acc += (element(p, i, d) - zero) * (p->w[j * p->k + d] - (int64_t)p->zeros[j]);
            assert_true(acc == (int32_t)acc);
            float factor = p->by_row ? p->rows[i].scale * p->scale[j] : p->scale[j], real = (float)acc * factor;
            real = qd_act_one(act, real + p->bias[j]);
            qd_observe_one(&p->seen, real, real * (1.0f / OUT.scale), p->quantize ? &OUT : NULL);
            if (p->quantize)
                p->wanted[i * p->n + j] = folds ? folded_byte((float)acc, factor, p->bias[j], 1.0f,
                                                              act->kind == QD_ACT_CLIP ? clip : NULL, &OUT)
                                                : qd_requantize_one(real, 1.0f / OUT.scale, &OUT);
            else
                memcpy(p->wanted + (i * p->n + j) * sizeof real, &real, sizeof real);
        }
}

/* What a caller makes of sums of weights, before a run. */
struct sides {
    const void *packed;
    void *scratch;
    const int32_t *sums, *init, *row_sums;
};

static bool matches(struct problem *p, const struct qd_kernels *kernels, const struct qd_activation *act,
                    const struct sides *sides, size_t row_split, size_t col_split)
{
    struct qd_observation seen = qd_observation_empty();
    struct qd_gemm_args args = {
        .m = p->m,
        .n = p->n,
        .k = p->k,
        .a = {.base = p->a,
              .stride_bytes = p->k,
              .table = (const void *const *)p->table,
              .taps = p->taps,
              .tap_bytes = p->k / p->taps},
        .b = sides->packed,
        .epilogue = {.acc_init = sides->init,
                     .scale = p->scale,
                     .bias = p->bias,
                     .rows = p->by_row ? p->rows : NULL,
                     .row_count = p->m,
                     .sums = sides->sums,
                     .weight_zeros = p->zeros,
                     .row_sums = sides->row_sums,
                     .act = *act,
                     .out = p->out,
                     .out_stride_elems = p->n,
                     .quantize = p->quantize ? &OUT : NULL,
                     .observe = p->observe ? &seen : NULL},
        .scratch = sides->scratch,
    };
    memset(p->out, CANARY, p->m * p->n * sizeof(float));
    for (size_t col = 0; col < p->n; col = args.col_end) {
        args.col_begin = col;
        args.col_end = p->n - col < col_split ? p->n : col + col_split;
        for (size_t row = 0; row < p->m; row = args.row_end) {
            args.row_begin = row;
            args.row_end = p->m - row < row_split ? p->m : row + row_split;
            kernels->gemm_q8.run(&args);
        }
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
    int32_t *sums = qd_calloc(p->n, sizeof *sums), *init = qd_calloc(p->n, sizeof *init),
            *row_sums = qd_calloc(p->m, sizeof *row_sums);
    assert_true(packed && scratch && sums && init && row_sums);
    g->pack(p->n, p->k, p->w, p->k, 1, packed, sums);
    for (size_t j = 0; j < p->n; j++) {
        sums[j] -= (int32_t)p->k * p->zeros[j];
        init[j] = -p->zero_point * sums[j];
    }
    const struct qd_rows a = {.base = p->a,
                              .stride_bytes = p->k,
                              .table = (const void *const *)p->table,
                              .taps = p->taps,
                              .tap_bytes = p->k / p->taps};
    kernels->sum_rows_u8(&a, p->m, row_sums);
    const struct sides sides = {packed, scratch, sums, init, row_sums};
    bool good = matches(p, kernels, act, &sides, p->m, p->n) &&
                matches(p, kernels, act, &sides, 1 + draw(s) % p->m, (1 + draw(s) % 3) * g->nr);
    qd_free(packed);
    qd_free(scratch);
    qd_free(sums);
    qd_free(init);
    qd_free(row_sums);
    return good;
}

static void products(void **unused)
{
    (void)unused;
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (uint64_t seed = 1; kernels && seed < 200; seed++) {
            uint64_t s = seed;
            struct problem p = {.m = 1 + draw(&s) % 40, .n = 1 + draw(&s) % 150, .taps = 1 + draw(&s) % 4};
            p.k = p.taps * (1 + draw(&s) % 40);
            if (seed % 40 == 0) /* the depth is cut; one row, several panels */
                p = (struct problem){.m = seed % 80 ? 1 : 14, .n = 140, .k = 1500, .taps = seed % 160 ? 1 : 2};
            if (seed == 199)
                p = (struct problem){.m = 2, .n = 33, .k = QD_ASYMMETRIC_K, .taps = 1, .extreme = true};
            p.by_row = seed & 1;
            p.quantize = seed & 2;
            p.observe = seed & 4;
            const struct qd_activation act = {.kind = (enum qd_act)(seed / 8 % QD_ACT_COUNT), .a = -0.3f, .b = 0.8f};
            make(&p, &s);
            judge(&p, &act);
            bool good = works(&p, kernels, &act, &s);
            drop(&p);
            if (!good)
                fail_msg("%s: seed %llu", kernels->isa_name, (unsigned long long)seed);
        }
    }
}

static void sums_of_rows(void **unused)
{
    (void)unused;
    enum { MOST = 300 };
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (size_t bytes = 1; kernels && bytes < MOST; bytes++) {
            uint64_t s = bytes;
            uint8_t *a = malloc(3 * bytes); /* exactly: a read past it meets the sanitizer */
            int32_t sums[4] = {[3] = CANARY}, wanted[3] = {0};
            assert_non_null(a);
            for (size_t i = 0; i < 3 * bytes; i++) {
                a[i] = draw_u8(&s, bytes % 2 ? KIND_UNIFORM : KIND_EXTREMES);
                wanted[i / bytes] += a[i];
            }
            kernels->sum_rows_u8(&(struct qd_rows){.base = a, .stride_bytes = bytes, .taps = 1, .tap_bytes = bytes}, 3,
                                 sums);
            free(a);
            assert_memory_equal(sums, wanted, sizeof wanted);
            assert_int_equal(sums[3], CANARY);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(sums_of_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
