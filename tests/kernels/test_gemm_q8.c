/* gemm_q8 of every level this CPU has: against three plain loops with the zero points written in, and against the
 * scalar set. Everything must be equal to the last bit. The seed is printed on failure; QD_TEST_SEED repeats it. */
#include "base/mem.h"
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

enum { CANARY = 0xa5, GUARD = 64 };

struct problem {
    uint64_t seed;
    size_t m, n, k, taps, offset_bytes, stride; /* stride of out */
    enum kind a_kind, w_kind;
    bool indirect, quantize, special; /* special: infinities and NaN in scale and bias */
    enum qd_act act;
    int32_t a_zero;
    uint8_t *a_bytes; /* rows, plain */
    uint8_t *pieces;  /* the same bytes where the table points to */
    const void **table;
    int8_t *w;
    int32_t *init;
    float *scale, *bias, *real;
    struct qd_qparams qp;
    uint8_t *wanted; /* bytes of the expected output, m * stride elements */
    struct qd_observation wanted_seen;
};

static size_t elem_bytes(const struct problem *p) { return p->quantize ? 1 : sizeof(float); }

static void make(struct problem *p)
{
    uint64_t s = p->seed;
    size_t tap = p->k / p->taps;
    p->a_bytes = qd_calloc(p->m * p->k + 1, 1);
    p->pieces = qd_calloc(p->m * p->taps, tap + p->offset_bytes);
    p->table = qd_calloc(p->m * p->taps + 1, sizeof *p->table);
    p->w = qd_calloc(p->n * p->k + 1, 1);
    p->init = qd_calloc(p->n, sizeof *p->init);
    p->scale = qd_calloc(p->n, sizeof *p->scale);
    p->bias = qd_calloc(p->n, sizeof *p->bias);
    p->real = qd_calloc(p->m * p->n, sizeof *p->real);
    p->wanted = qd_calloc(p->m * p->stride, elem_bytes(p));
    assert_true(p->a_bytes && p->pieces && p->table && p->w && p->init && p->scale && p->bias && p->real && p->wanted);
    for (size_t i = 0; i < p->m * p->k; i++)
        p->a_bytes[i] = draw_u8(&s, p->a_kind);
    for (size_t i = 0; i < p->n * p->k; i++)
        p->w[i] = draw_s8(&s, p->w_kind);
    /* Pieces in reverse order, each as long as it must be and not a byte longer: a read past its end meets the
     * sanitizer at the last one, and wrong bytes at the others. */
    for (size_t t = 0; t < p->m * p->taps; t++) {
        uint8_t *home = p->pieces + (p->m * p->taps - 1 - t) * (tap + p->offset_bytes);
        memset(home, CANARY, p->offset_bytes);
        memcpy(home + p->offset_bytes, p->a_bytes + t * tap, tap);
        p->table[t] = home;
    }
    p->a_zero = (int32_t)(draw(&s) % 256);
}

/* Plain arithmetic: acc = sum (a - Za) w, then requant.h. Scales come from the accumulators, so that outputs spread. */
static void judge(struct problem *p)
{
    uint64_t s = p->seed ^ 0x5bd1e995;
    int64_t *acc = qd_calloc(p->m * p->n, sizeof *acc);
    assert_non_null(acc);
    int64_t most = 1;
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < p->n; j++) {
            int64_t sum = 0;
            for (size_t d = 0; d < p->k; d++)
                sum += (int64_t)(p->a_bytes[i * p->k + d] - p->a_zero) * p->w[j * p->k + d];
            acc[i * p->n + j] = sum;
            most = llabs(sum) > most ? llabs(sum) : most;
        }
    const float rare[] = {INFINITY, -INFINITY, NAN, 0.0f, -0.0f, 3e38f, 1e-40f};
    for (size_t j = 0; j < p->n; j++) {
        int64_t sum = 0;
        for (size_t d = 0; d < p->k; d++)
            sum += p->w[j * p->k + d];
        p->init[j] = (int32_t)(-p->a_zero * sum);
        p->scale[j] = 100.0f / (float)most * (0.5f + draw_f32(&s, 1.0f) * 0.5f);
        p->bias[j] = draw_f32(&s, 20.0f);
        if (p->special && draw(&s) % 3 == 0)
            p->scale[j] = rare[draw(&s) % 7];
        if (p->special && draw(&s) % 3 == 0)
            p->bias[j] = rare[draw(&s) % 7];
    }
    p->qp = (struct qd_qparams){0.61f, (int32_t)(60 + draw(&s) % 140), 0, 255}; /* cuts some, not most */
    if (draw(&s) % 3 == 0)
        p->qp = (struct qd_qparams){0.53f, 128, 1, 255};
    p->wanted_seen = qd_observation_empty();
    memset(p->wanted, CANARY, p->m * p->stride * elem_bytes(p));
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < p->n; j++) {
            static const float clip[2] = {-20.0f, 30.0f};
            float real = (float)(int32_t)acc[i * p->n + j] * p->scale[j];
            real = real + p->bias[j];
            if (p->act == QD_ACT_CLIP)
                real = fminf(isnan(real) ? -20.0f : real > -20.0f ? real : -20.0f, 30.0f);
            float scaled = real * (1.0f / p->qp.scale);
            qd_observe_one(&p->wanted_seen, real, scaled, p->quantize ? &p->qp : NULL);
            p->real[i * p->n + j] = real;
            if (p->quantize)
                p->wanted[i * p->stride + j] = folded_byte((float)(int32_t)acc[i * p->n + j], p->scale[j], p->bias[j],
                                                           1.0f, p->act == QD_ACT_CLIP ? clip : NULL, &p->qp);
            else
                memcpy(p->wanted + (i * p->stride + j) * 4, &real, 4);
        }
    qd_free(acc);
}

static void drop(struct problem *p)
{
    void *blocks[] = {p->a_bytes, p->pieces, p->table, p->w, p->init, p->scale, p->bias, p->real, p->wanted};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        qd_free(blocks[i]);
}

/* In one block, or split at drawn places. */
static void run_split(const struct qd_gemm_q8 *g, struct qd_gemm_args *args, bool split, uint64_t *s)
{
    size_t row = split ? draw(s) % (args->m + 1) : args->m;
    size_t col = split ? draw(s) % (args->n / g->nr + 1) * g->nr : 0;
    for (int block = 0; block < 4; block++) {
        args->row_begin = block & 1 ? row : 0;
        args->row_end = block & 1 ? args->m : row;
        args->col_begin = block & 2 ? col : 0;
        args->col_end = block & 2 ? args->n : col;
        if (args->row_begin < args->row_end && args->col_begin < args->col_end)
            g->run(args);
    }
}

static bool matches(struct problem *p, const struct qd_kernels *kernels, bool split, struct qd_observation *seen)
{
    const struct qd_gemm_q8 *g = &kernels->gemm_q8;
    uint64_t s = p->seed + 77;
    size_t out_bytes = p->m * p->stride * elem_bytes(p);
    size_t packed_bytes = g->packed_bytes(p->n, p->k), scratch_bytes = g->scratch_bytes(p->k);
    unsigned char *packed = qd_alloc_aligned(packed_bytes + GUARD), *scratch = qd_alloc_aligned(scratch_bytes + GUARD);
    unsigned char *out = qd_alloc_aligned(out_bytes + 2 * GUARD), *direct = malloc(p->m * p->k);
    int32_t *sums = qd_calloc(p->n, sizeof *sums);
    assert_true(packed && scratch && out && direct && sums);
    memset(packed, CANARY, packed_bytes + GUARD);
    memset(scratch, CANARY, scratch_bytes + GUARD);
    memset(out, CANARY, out_bytes + 2 * GUARD);
    memcpy(direct, p->a_bytes, p->m * p->k); /* of exactly this size */
    g->pack(p->n, p->k, p->w, p->k, 1, packed, sums);
    *seen = qd_observation_empty();
    size_t tap = p->k / p->taps;
    struct qd_gemm_args args = {
        .m = p->m,
        .n = p->n,
        .k = p->k,
        .b = packed,
        .scratch = scratch,
        .a = p->indirect ? (struct qd_rows){.table = p->table,
                                            .taps = p->taps,
                                            .tap_bytes = tap,
                                            .offset_bytes = p->offset_bytes}
                         : (struct qd_rows){.base = direct, .stride_bytes = p->k, .taps = 1, .tap_bytes = p->k},
        .epilogue = {.acc_init = p->init,
                     .scale = p->scale,
                     .bias = p->bias,
                     .act = {p->act, .a = -20.0f, .b = 30.0f},
                     .out = out + GUARD,
                     .out_stride_elems = p->stride,
                     .quantize = p->quantize ? &p->qp : NULL,
                     .observe = seen}};
    run_split(g, &args, split, &s);
    bool good = same_observation(seen, &p->wanted_seen);
    if (p->quantize)
        good = good && memcmp(out + GUARD, p->wanted, out_bytes) == 0;
    else
        for (size_t i = 0; i < p->m && good; i++) {
            size_t at = i * p->stride * 4;
            good = same_floats((float *)(void *)(out + GUARD + at), p->real + i * p->n, p->n) &&
                   memcmp(out + GUARD + at + p->n * 4, p->wanted + at + p->n * 4, (p->stride - p->n) * 4) == 0;
        }
    for (size_t j = 0; j < p->n; j++) {
        int32_t sum = 0;
        for (size_t d = 0; d < p->k; d++)
            sum += p->w[j * p->k + d];
        good = good && sums[j] == sum;
    }
    for (size_t i = 0; i < GUARD; i++)
        good = good && out[i] == CANARY && out[GUARD + out_bytes + i] == CANARY && packed[packed_bytes + i] == CANARY &&
               scratch[scratch_bytes + i] == CANARY;
    qd_free(packed);
    qd_free(scratch);
    qd_free(out);
    free(direct);
    qd_free(sums);
    return good;
}

static void check(struct problem p)
{
    make(&p);
    judge(&p);
    struct qd_observation first, seen;
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (int split = 0; kernels && split < 2; split++) {
            bool good = matches(&p, kernels, split, &seen);
            if (isa == 0 && split == 0)
                first = seen;
            if (!good || memcmp(&first, &seen, sizeof seen) != 0)
                fail_msg("%s: seed %llu, %zu x %zu x %zu, taps %zu, indirect %d, u8 %d, special %d, split %d",
                         kernels->gemm_q8.name, (unsigned long long)p.seed, p.m, p.n, p.k, p.taps, p.indirect,
                         p.quantize, p.special, split);
        }
    }
    if (p.quantize && !p.special && p.a_kind == KIND_UNIFORM && p.w_kind == KIND_UNIFORM && p.m * p.n > 200) {
        bool used[256] = {false};
        size_t values = 0;
        for (size_t i = 0; i < p.m; i++)
            for (size_t j = 0; j < p.n; j++) {
                values += !used[p.wanted[i * p.stride + j]];
                used[p.wanted[i * p.stride + j]] = true;
            }
        assert_true(values > 20); /* the data is no accident of constants */
    }
    drop(&p);
}

static uint64_t first_seed(void)
{
    const char *text = getenv("QD_TEST_SEED");
    return text ? strtoull(text, NULL, 10) : 20240607;
}

static void small_shapes(void **unused)
{
    (void)unused;
    for (uint64_t i = 0; i < 1500; i++) {
        uint64_t s = first_seed() + i * 7919;
        struct problem p = {.seed = s};
        p.m = 1 + draw(&s) % 40;
        p.n = 1 + draw(&s) % 40;
        p.taps = 1 + draw(&s) % 9;
        p.indirect = draw(&s) % 2;
        p.k = p.taps * (1 + draw(&s) % 40);
        p.offset_bytes = draw(&s) % 5;
        p.stride = p.n + draw(&s) % 7;
        p.a_kind = (enum kind)(i % KIND_COUNT);
        p.w_kind = (enum kind)(draw(&s) % KIND_COUNT);
        p.quantize = draw(&s) % 4 != 0;
        p.special = draw(&s) % 4 == 0;
        p.act = draw(&s) % 2 ? QD_ACT_CLIP : QD_ACT_NONE;
        check(p);
    }
}

static void larger_shapes(void **unused)
{
    (void)unused;
    const size_t shapes[][3] = {{132, 96, 384}, {61, 130, 257}, {250, 64, 64}, {1, 300, 513}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check((struct problem){.seed = first_seed() + i,
                               .m = shapes[i][0],
                               .n = shapes[i][1],
                               .k = shapes[i][2],
                               .taps = 1,
                               .stride = shapes[i][1],
                               .quantize = true});
}

/* Taps that share a block of the depth, that have one each, that are cut; strides that a cache can't hold. */
static void deep_shapes(void **unused)
{
    (void)unused;
    const size_t shapes[][4] = {{25, 40, 9 * 256, 9},  {13, 33, 9 * 400, 9}, {14, 70, 2 * 3000, 2}, {26, 64, 2048, 1},
                                {12, 16, 5 * 1024, 5}, {40, 24, 4096, 1},    {7, 50, 9 * 18, 9}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int indirect = 0; indirect < 2; indirect++)
            check((struct problem){.seed = first_seed() + i,
                                   .m = shapes[i][0],
                                   .n = shapes[i][1],
                                   .k = shapes[i][2],
                                   .taps = indirect ? shapes[i][3] : 1,
                                   .indirect = indirect,
                                   .stride = shapes[i][1],
                                   .quantize = true});
}

static void depth_at_the_limit(void **unused)
{
    (void)unused;
    check((struct problem){.seed = first_seed(),
                           .m = 3,
                           .n = 5,
                           .k = 66000,
                           .taps = 1,
                           .stride = 5,
                           .quantize = true,
                           .a_kind = KIND_EXTREMES,
                           .w_kind = KIND_EXTREMES});
}

static void unknown_isa_is_an_error(void **unused)
{
    (void)unused;
    const struct qd_kernels *kernels = NULL;
    struct qd_error error;
    assert_int_equal(setenv("QUANTD_ISA", "sse9", 1), 0);
    assert_int_equal(qd_kernels_get(&kernels, &error), QD_ERR_INVALID);
    assert_non_null(strstr(error.text, "sse9"));
    assert_int_equal(setenv("QUANTD_ISA", "scalar", 1), 0);
    assert_int_equal(qd_kernels_get(&kernels, &error), QD_OK);
    assert_int_equal(kernels->isa, QD_ISA_SCALAR);
    assert_int_equal(unsetenv("QUANTD_ISA"), 0);
}

static void broken_run(const struct qd_gemm_args *args)
{
    qd_kernels_at(QD_ISA_SCALAR)->gemm_q8.run(args);
    ((uint8_t *)args->epilogue.out)[0] ^= 1;
}

static void selftest_passes_and_can_fail(void **unused)
{
    (void)unused;
    struct qd_error error;
    for (int isa = 0; isa < QD_ISA_COUNT; isa++)
        if (qd_kernels_at((enum qd_isa)isa))
            assert_int_equal(qd_kernels_selftest(qd_kernels_at((enum qd_isa)isa), first_seed(), &error), QD_OK);
    struct qd_kernels broken = *qd_kernels_at(QD_ISA_SCALAR);
    broken.gemm_q8.run = broken_run;
    assert_int_equal(qd_kernels_selftest(&broken, first_seed(), &error), QD_ERR_INTERNAL);
    assert_non_null(strstr(error.text, "qd_gemm_u8s8"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_shapes),
        cmocka_unit_test(larger_shapes),
        cmocka_unit_test(deep_shapes),
        cmocka_unit_test(depth_at_the_limit),
        cmocka_unit_test(unknown_isa_is_an_error),
        cmocka_unit_test(selftest_passes_and_can_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
