/* The epilogue of every matrix product of every level: each activation with and without its affine tail, residuals in
 * bytes and floats, every output, observation and clipping, against plain arithmetic and functions.h value by value.
 * Everything must be equal to the last bit, with ordinary scales and with infinities and NaN among them. */
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

enum { MAX_M = 15, MAX_N = 70, MAX_K = 12, MAX_STRIDE = MAX_N + 3, CELLS = MAX_M * MAX_STRIDE, CANARY = 0xc3 };
enum type { Q8, Q16, F32, TYPES };
enum output { OUT_F32, OUT_U8, OUT_S16, OUTPUTS };
enum residual { RESIDUAL_NONE, RESIDUAL_U8, RESIDUAL_F32, RESIDUALS };
static const size_t ELEM_BYTES[TYPES] = {1, 2, 4}, OUT_BYTES[OUTPUTS] = {4, 1, 2};

struct problem {
    enum type type;
    enum output output;
    enum residual residual;
    bool observe, special, multiplied;
    struct qd_activation act;
    size_t m, n, k, stride;
    uint8_t a8[MAX_M * MAX_K], residual_u8[CELLS];
    int16_t a16[MAX_M * MAX_K];
    int8_t w8[MAX_N * MAX_K];
    int32_t init[MAX_N];
    float a32[MAX_M * MAX_K], w32[MAX_N * MAX_K], scale[MAX_N], bias[MAX_N], by[MAX_N], residual_f32[CELLS],
        real[CELLS];
    struct qd_qparams qp, residual_qp;
    unsigned char wanted[CELLS * 4];
    struct qd_observation seen;
};

static void fill(struct problem *p, uint64_t *s)
{
    const float rare[] = {INFINITY, -INFINITY, NAN, 0.0f, -0.0f, 3e38f, 1e-40f, 1e30f};
    p->m = 1 + draw(s) % MAX_M;
    p->n = 1 + draw(s) % MAX_N;
    p->k = 1 + draw(s) % MAX_K;
    p->stride = p->n + draw(s) % 4;
    p->multiplied = draw(s) % 2;
    for (size_t i = 0; i < p->m * p->k; i++) {
        p->a8[i] = (uint8_t)draw(s);
        p->a16[i] = (int16_t)((int32_t)(draw(s) % 400) - 200);
        p->a32[i] = (float)(draw(s) % 400) - 200.0f; /* small integers: exact in any order */
    }
    for (size_t i = 0; i < p->n * p->k; i++) {
        p->w8[i] = draw_s8(s, KIND_UNIFORM);
        p->w32[i] = p->w8[i];
    }
    for (size_t j = 0; j < p->n; j++) {
        p->init[j] = p->type == Q8 ? (int32_t)(draw(s) % 4000) - 2000 : 0;
        p->scale[j] = 0.0002f * (1.0f + draw_f32(s, 1.0f));
        p->bias[j] = draw_f32(s, 4.0f);
        p->by[j] = 1.0f + 0.99f * draw_f32(s, 1.0f);
        if (draw(s) % 8 == 0)
            p->scale[j] *= 3000.0f; /* far beyond 16 bits when scaled */
        if (p->special && draw(s) % 4 == 0)
            p->scale[j] = rare[draw(s) % 8];
        if (p->special && draw(s) % 4 == 0)
            p->bias[j] = rare[draw(s) % 8];
    }
    for (size_t i = 0; i < CELLS; i++) {
        p->residual_u8[i] = (uint8_t)draw(s);
        p->residual_f32[i] = p->special && draw(s) % 16 == 0 ? rare[draw(s) % 8] : draw_f32(s, 6.0f);
    }
    p->residual_qp = (struct qd_qparams){0.021f, (int32_t)(draw(s) % 256), 0, 255};
    /* Ranges that cut some values. */
    p->qp = draw(s) % 2 ? (struct qd_qparams){0.017f, (int32_t)(draw(s) % 256), 0, 255}
                        : (struct qd_qparams){0.011f, 128, 1, 255};
    if (p->output == OUT_S16)
        p->qp = (struct qd_qparams){4e-5f, 0, -32767, 32767};
}

static float sum_of(const struct problem *p, size_t i, size_t j)
{
    int64_t sum = p->init[j];
    for (size_t d = 0; d < p->k; d++) {
        const int32_t a = p->type == Q8    ? p->a8[i * p->k + d]
                          : p->type == Q16 ? p->a16[i * p->k + d]
                                           : (int32_t)p->a32[i * p->k + d];
        sum += a * p->w8[j * p->k + d];
    }
    return (float)sum;
}

/* (8a): integer products with nothing but limits between (7) and (8). */
static bool folds(const struct problem *p)
{
    return p->type == Q8 && p->residual == RESIDUAL_NONE && !p->act.affine &&
           (p->act.kind == QD_ACT_NONE || p->act.kind == QD_ACT_CLIP);
}

static void judge(struct problem *p)
{
    const float inv = 1.0f / p->qp.scale;
    p->seen = qd_observation_empty();
    memset(p->wanted, CANARY, sizeof p->wanted);
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < p->n; j++) {
            const size_t at = i * p->stride + j;
            float real = sum_of(p, i, j) * p->scale[j];
            real = real + p->bias[j];
            if (p->residual == RESIDUAL_U8)
                real += qd_dequantize_one(p->residual_u8[at], &p->residual_qp);
            if (p->residual == RESIDUAL_F32)
                real += p->residual_f32[at];
            real = qd_act_one(&p->act, real);
            if (p->multiplied)
                real *= p->by[j];
            qd_observe_one(&p->seen, real, real * inv, p->output == OUT_F32 ? NULL : &p->qp);
            const int16_t word = (int16_t)qd_round_clamp(real * inv, &p->qp);
            const float clip[2] = {p->act.a, p->act.b};
            const uint8_t byte = folds(p) ? folded_byte(sum_of(p, i, j), p->scale[j], p->bias[j],
                                                        p->multiplied ? p->by[j] : 1.0f,
                                                        p->act.kind == QD_ACT_CLIP ? clip : NULL, &p->qp)
                                          : (uint8_t)word;
            const void *values[OUTPUTS] = {&real, &byte, &word};
            memcpy(p->wanted + at * OUT_BYTES[p->output], values[p->output], OUT_BYTES[p->output]);
            p->real[at] = real;
        }
}

struct buffers {
    void *packed, *scratch;
    unsigned char out[CELLS * 4];
};

static void pack(const struct problem *p, const struct qd_kernels *kernels, struct buffers *b)
{
    const struct qd_gemm_q8 *q8 = &kernels->gemm_q8;
    const struct qd_gemm_q16 *q16 = &kernels->gemm_q16;
    const struct qd_gemm_f32 *f32 = &kernels->gemm_f32;
    const size_t packed[TYPES] = {q8->packed_bytes(p->n, p->k), q16->packed_bytes(p->n, p->k),
                                  f32->packed_bytes(p->n, p->k)};
    const size_t scratch[TYPES] = {q8->scratch_bytes(p->k), q16->scratch_bytes(p->k), f32->scratch_bytes(p->k)};
    int32_t sums[MAX_N];
    b->packed = qd_alloc_aligned(packed[p->type]);
    b->scratch = qd_alloc_aligned(scratch[p->type]);
    assert_true(b->packed && b->scratch);
    if (p->type == Q8)
        q8->pack(p->n, p->k, p->w8, p->k, 1, b->packed, sums);
    else if (p->type == Q16)
        q16->pack(p->n, p->k, p->w8, NULL, p->k, 1, b->packed);
    else
        f32->pack(p->n, p->k, p->w32, p->k, 1, NULL, b->packed);
}

static bool matches(const struct problem *p, const struct qd_kernels *kernels)
{
    static struct buffers b;
    struct qd_observation seen = qd_observation_empty();
    const void *left[TYPES] = {p->a8, p->a16, p->a32};
    const size_t row_bytes = p->k * ELEM_BYTES[p->type];
    pack(p, kernels, &b);
    memset(b.out, CANARY, sizeof b.out);
    struct qd_gemm_args args = {
        .m = p->m,
        .n = p->n,
        .k = p->k,
        .row_end = p->m,
        .col_end = p->n,
        .b = b.packed,
        .scratch = b.scratch,
        .a = {.base = left[p->type], .stride_bytes = row_bytes, .taps = 1, .tap_bytes = row_bytes},
        .epilogue = {.acc_init = p->init,
                     .scale = p->scale,
                     .bias = p->bias,
                     .act = p->act,
                     .by = p->multiplied ? p->by : NULL,
                     .out = b.out,
                     .out_stride_elems = p->stride,
                     .quantize = p->output == OUT_F32 ? NULL : &p->qp,
                     .out_s16 = p->output == OUT_S16,
                     .observe = p->observe ? &seen : NULL}};
    if (p->residual != RESIDUAL_NONE)
        args.epilogue.residual = (struct qd_residual){.data = p->residual == RESIDUAL_U8 ? (const void *)p->residual_u8
                                                                                         : p->residual_f32,
                                                      .stride_elems = p->stride,
                                                      .qp = p->residual == RESIDUAL_U8 ? &p->residual_qp : NULL};
    (p->type == Q8 ? kernels->gemm_q8.run : p->type == Q16 ? kernels->gemm_q16.run : kernels->gemm_f32.run)(&args);
    bool good = !p->observe || same_observation(&seen, &p->seen);
    if (p->output != OUT_F32)
        good = good && memcmp(b.out, p->wanted, sizeof b.out) == 0;
    for (size_t i = 0; p->output == OUT_F32 && i < p->m; i++) {
        float line[MAX_STRIDE];
        const size_t at = i * p->stride, beyond = (at + p->n) * 4;
        memcpy(line, b.out + at * 4, p->n * 4);
        good = good && same_floats(line, p->real + at, p->n) &&
               memcmp(b.out + beyond, p->wanted + beyond, (p->stride - p->n) * 4) == 0;
    }
    qd_free(b.packed);
    qd_free(b.scratch);
    return good;
}

static const struct qd_activation ACTS[] = {
    {.kind = QD_ACT_NONE},
    {.kind = QD_ACT_CLIP, .a = 0.0f, .b = INFINITY},
    {.kind = QD_ACT_CLIP, .a = -0.75f, .b = 1.5f},
    {.kind = QD_ACT_CLIP, .a = 0.0f, .b = 1.25f},
    {.kind = QD_ACT_CLIP, .a = 0.0f, .b = -0.5f},
    {.kind = QD_ACT_HARD_SIGMOID, .a = 0.2f, .b = 0.5f},
    {.kind = QD_ACT_HARD_SWISH, .a = 1.0f / 6.0f, .b = 0.5f},
    {.kind = QD_ACT_SIGMOID},
    {.kind = QD_ACT_SILU},
    {.kind = QD_ACT_GELU},
    {.kind = QD_ACT_GELU_TANH},
    {.kind = QD_ACT_TANH},
    {.kind = QD_ACT_LEAKY_RELU, .a = 0.1f},
};

static void check_all(bool special, uint64_t seed)
{
    static struct problem p;
    uint64_t s = seed;
    bool used[QD_ACT_COUNT] = {false};
    for (size_t act = 0; act < sizeof ACTS / sizeof *ACTS; act++)
        for (unsigned way = 0; way < TYPES * OUTPUTS * RESIDUALS * 2 * 2; way++) {
            p = (struct problem){.type = (enum type)(way % TYPES),
                                 .output = (enum output)(way / TYPES % OUTPUTS),
                                 .residual = (enum residual)(way / TYPES / OUTPUTS % RESIDUALS),
                                 .observe = way / TYPES / OUTPUTS / RESIDUALS % 2,
                                 .special = special,
                                 .act = ACTS[act]};
            if (way / TYPES / OUTPUTS / RESIDUALS / 2)
                p.act.affine = true, p.act.mul = -1.25f, p.act.add = 0.3f;
            used[p.act.kind] = true;
            fill(&p, &s);
            judge(&p);
            for (int isa = 0; isa < QD_ISA_COUNT; isa++)
                if (qd_kernels_at((enum qd_isa)isa) && !matches(&p, qd_kernels_at((enum qd_isa)isa)))
                    fail_msg("%s: seed %llu, activation %zu, type %d, output %d, residual %d, observe %d, affine %d, "
                             "%zu x %zu",
                             qd_isa_name((enum qd_isa)isa), (unsigned long long)seed, act, p.type, p.output, p.residual,
                             p.observe, p.act.affine, p.m, p.n);
        }
    for (int kind = 0; kind < QD_ACT_COUNT; kind++)
        assert_true(used[kind]);
}

static void ordinary_values(void **unused)
{
    (void)unused;
    for (uint64_t seed = 17; seed < 21; seed++)
        check_all(false, seed);
}

static void values_that_are_not_finite(void **unused)
{
    (void)unused;
    for (uint64_t seed = 31; seed < 35; seed++)
        check_all(true, seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ordinary_values), cmocka_unit_test(values_that_are_not_finite)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
