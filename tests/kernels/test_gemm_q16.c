/* gemm_q16 of every level this CPU has: against sums in int64 and one rounding to float, with 8- and 16-bit weights, at
 * depths around those where int32 would overflow. Everything must be equal to the last bit. */
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

enum { SEED = 4711, GUARD = 64, CANARY = 0x5a };
enum output { OUT_F32, OUT_S16, OUT_U8, OUTPUTS };
static const size_t OUT_BYTES[OUTPUTS] = {4, 2, 1};

struct problem {
    uint64_t seed;
    size_t m, n, k;
    bool wide, extreme, indirect;
    unsigned bell; /* 0: every value as likely as the others; else what a bell's width is of the whole, as 1 / bell */
    enum output output;
    int16_t *a, *w16;
    int8_t *w8;
    float *scale, *bias;
    const void **table;
    struct qd_qparams qp;
    uint8_t *wanted;
    struct qd_observation seen;
};

static int16_t draw_s16(struct problem *p, uint64_t *s)
{
    if (p->extreme)
        return (int16_t)(draw(s) % 50 == 0 ? 32767 : -32768);
    if (p->bell && draw(s) % 97 != 0) {
        int32_t sum = 0;
        for (int i = 0; i < 12; i++)
            sum += (int32_t)(draw(s) % 65536) - 32768;
        return (int16_t)(sum / (int32_t)(2 * p->bell));
    }
    return (int16_t)((int32_t)(draw(s) % 65536) - 32768);
}

static void make(struct problem *p)
{
    uint64_t s = p->seed;
    p->a = qd_calloc(p->m * p->k, sizeof *p->a);
    p->w16 = qd_calloc(p->n * p->k, sizeof *p->w16);
    p->w8 = qd_calloc(p->n * p->k, 1);
    p->scale = qd_calloc(p->n, sizeof *p->scale);
    p->bias = qd_calloc(p->n, sizeof *p->bias);
    p->table = qd_calloc(p->m, sizeof *p->table);
    p->wanted = qd_calloc(p->m * p->n, OUT_BYTES[p->output]);
    assert_true(p->a && p->w16 && p->w8 && p->scale && p->bias && p->table && p->wanted);
    for (size_t i = 0; i < p->m * p->k; i++)
        p->a[i] = draw_s16(p, &s);
    for (size_t i = 0; i < p->n * p->k; i++) {
        p->w16[i] = draw_s16(p, &s);
        p->w8[i] = p->extreme ? -128 : draw_s8(&s, KIND_UNIFORM);
    }
    for (size_t j = 0; j < p->n; j++) {
        p->scale[j] = (p->wide ? 1e-8f : 1e-6f) * (1.0f + draw_f32(&s, 1.0f));
        p->bias[j] = draw_f32(&s, 20.0f);
    }
    for (size_t i = 0; i < p->m; i++)
        p->table[i] = p->a + i * p->k;
    p->qp = p->output == OUT_S16 ? (struct qd_qparams){0.004f, 0, -32767, 32767}
                                 : (struct qd_qparams){0.7f, 90, 0, 255};
}

static void judge(struct problem *p)
{
    const float inv = 1.0f / p->qp.scale;
    p->seen = qd_observation_empty();
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < p->n; j++) {
            int64_t acc = 0;
            for (size_t d = 0; d < p->k; d++)
                acc += (int64_t)p->a[i * p->k + d] * (p->wide ? p->w16[j * p->k + d] : p->w8[j * p->k + d]);
            float real = (float)acc * p->scale[j];
            real += p->bias[j];
            int16_t word = (int16_t)qd_round_clamp(real * inv, &p->qp);
            uint8_t byte = (uint8_t)word;
            const void *values[OUTPUTS] = {&real, &word, &byte};
            memcpy(p->wanted + (i * p->n + j) * OUT_BYTES[p->output], values[p->output], OUT_BYTES[p->output]);
            qd_observe_one(&p->seen, real, real * inv, p->output == OUT_F32 ? NULL : &p->qp);
        }
}

static bool matches(struct problem *p, const struct qd_gemm_q16 *g, bool split)
{
    uint64_t s = p->seed + 5;
    size_t packed_bytes = g->packed_bytes(p->n, p->k), scratch_bytes = g->scratch_bytes(p->k);
    size_t out_bytes = p->m * p->n * OUT_BYTES[p->output];
    unsigned char *packed = qd_alloc_aligned(packed_bytes + GUARD), *scratch = qd_alloc_aligned(scratch_bytes + GUARD),
                  *out = qd_alloc_aligned(out_bytes + GUARD);
    assert_true(packed && scratch && out);
    memset(packed, CANARY, packed_bytes + GUARD);
    memset(scratch, CANARY, scratch_bytes + GUARD);
    memset(out, CANARY, out_bytes + GUARD);
    g->pack(p->n, p->k, p->wide ? NULL : p->w8, p->wide ? p->w16 : NULL, p->k, 1, packed);
    struct qd_observation seen = qd_observation_empty();
    const size_t row_bytes = p->k * sizeof *p->a;
    struct qd_gemm_args args = {.m = p->m,
                                .n = p->n,
                                .k = p->k,
                                .b = packed,
                                .scratch = scratch,
                                .a = {.base = p->a, .stride_bytes = row_bytes, .taps = 1, .tap_bytes = row_bytes},
                                .epilogue = {.scale = p->scale,
                                             .bias = p->bias,
                                             .out = out,
                                             .out_stride_elems = p->n,
                                             .quantize = p->output == OUT_F32 ? NULL : &p->qp,
                                             .out_s16 = p->output == OUT_S16,
                                             .observe = &seen}};
    if (p->indirect)
        args.a.table = p->table;
    size_t row = split ? draw(&s) % (p->m + 1) : p->m, col = split ? draw(&s) % (p->n / g->nr + 1) * g->nr : 0;
    for (int block = 0; block < 4; block++) {
        args.row_begin = block & 1 ? row : 0;
        args.row_end = block & 1 ? p->m : row;
        args.col_begin = block & 2 ? col : 0;
        args.col_end = block & 2 ? p->n : col;
        if (args.row_begin < args.row_end && args.col_begin < args.col_end)
            g->run(&args);
    }
    bool good = same_observation(&seen, &p->seen) && memcmp(out, p->wanted, out_bytes) == 0;
    for (size_t i = 0; i < GUARD; i++)
        good = good && out[out_bytes + i] == CANARY && packed[packed_bytes + i] == CANARY &&
               scratch[scratch_bytes + i] == CANARY;
    qd_free(packed);
    qd_free(scratch);
    qd_free(out);
    return good;
}

static void check(struct problem p)
{
    make(&p);
    judge(&p);
    for (int isa = 0; isa < QD_ISA_COUNT; isa++)
        for (int split = 0; qd_kernels_at((enum qd_isa)isa) && split < 2; split++) {
            const struct qd_gemm_q16 *g = &qd_kernels_at((enum qd_isa)isa)->gemm_q16;
            if (!matches(&p, g, split))
                fail_msg("%s: seed %llu, %zu x %zu x %zu, wide %d, extreme %d, output %d, split %d", g->name,
                         (unsigned long long)p.seed, p.m, p.n, p.k, p.wide, p.extreme, p.output, split);
        }
    void *blocks[] = {p.a, p.w16, p.w8, p.scale, p.bias, p.table, p.wanted};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        qd_free(blocks[i]);
}

static void small_shapes(void **unused)
{
    (void)unused;
    for (uint64_t i = 0; i < 400; i++) {
        uint64_t s = SEED + 31 * i;
        struct problem p = {.seed = s, .m = 1 + draw(&s) % 30, .n = 1 + draw(&s) % 70, .k = 1 + draw(&s) % 60};
        p.wide = draw(&s) % 2;
        p.indirect = draw(&s) % 2;
        p.extreme = draw(&s) % 4 == 0;
        p.output = (enum output)(draw(&s) % OUTPUTS);
        check(p);
    }
}

/* Sums that run as far as int32 allows: further for narrow bells, block by block or not even so for wide ones. */
static void bells(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < 60; i++) {
        uint64_t s = SEED + 97 * i;
        struct problem p = {.seed = s, .m = 1 + draw(&s) % 40, .n = 1 + draw(&s) % 70, .k = 200 + draw(&s) % 1300};
        p.wide = i % 4 != 0;
        p.indirect = draw(&s) % 2;
        p.bell = 3 + (unsigned)(draw(&s) % 4) * (unsigned)(draw(&s) % 12);
        p.output = (enum output)(draw(&s) % OUTPUTS);
        check(p);
    }
}

/* 510 products of 8-bit weights are the most that int32 surely holds. */
static void depths_around_overflow(void **unused)
{
    (void)unused;
    const size_t depths[] = {384, 509, 510, 511, 512, 575, 577, 768, 1153, 4001};
    for (size_t i = 0; i < sizeof depths / sizeof *depths; i++)
        for (unsigned way = 0; way < 8; way++)
            check((struct problem){.seed = SEED + i,
                                   .m = way & 4 ? 1 : 14,
                                   .n = 33,
                                   .k = depths[i],
                                   .wide = way & 1,
                                   .extreme = way & 2,
                                   .output = (enum output)(i % OUTPUTS)});
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(small_shapes), cmocka_unit_test(bells),
                                       cmocka_unit_test(depths_around_overflow)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
