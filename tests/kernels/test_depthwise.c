/* depthwise_q8 and depthwise_f32 of every level this CPU has: against plain loops, integers to the last bit, floats too
 * (their chain is fixed). Shapes that share columns and shapes that don't, tails of channels and pixels, padding. The
 * seed is printed on failure. */
#include "base/mem.h"
#include "engine/kernels/kernels.h"
#include "tests/kernels/folded.h"
#include "tests/kernels/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CANARY = 0xa5, GUARD = 64 };

struct problem {
    uint64_t seed;
    size_t rows, pixels, kh, kw, stride, channels, out_stride;
    bool integer, quantize, shared, clip;
    enum kind kind;
    size_t columns, row_entries, pixel_entries, input_pixels;
    unsigned char *input, *padding, *wanted;
    const void **table;
    int8_t *w8;
    float *wf, *scale, *bias;
    int32_t *init;
    struct qd_qparams qp;
    struct qd_observation seen;
};

static void make(struct problem *p)
{
    uint64_t s = p->seed;
    size_t elem = p->integer ? 1 : sizeof(float), taps = p->kh * p->kw;
    p->pixel_entries = p->shared ? p->stride * p->kh : taps;
    p->row_entries = (p->pixels - 1) * p->pixel_entries + taps;
    p->input_pixels = p->rows * p->row_entries;
    p->input = malloc(p->input_pixels * p->channels * elem); /* of exactly this size */
    p->padding = malloc(p->channels * elem);
    p->wanted = qd_calloc(p->rows * p->pixels * p->out_stride, sizeof(float));
    p->table = qd_calloc(p->input_pixels, sizeof *p->table);
    p->w8 = qd_calloc(p->channels * taps, 1);
    p->wf = qd_calloc(p->channels * taps, sizeof(float));
    p->scale = qd_calloc(p->channels, sizeof(float));
    p->bias = qd_calloc(p->channels, sizeof(float));
    p->init = qd_calloc(p->channels, sizeof(int32_t));
    assert_true(p->input && p->padding && p->wanted && p->table && p->w8 && p->wf && p->scale && p->bias && p->init);
    for (size_t i = 0; i < p->input_pixels * p->channels; i++)
        if (p->integer)
            p->input[i] = draw_u8(&s, p->kind);
        else
            ((float *)(void *)p->input)[i] = draw_f32(&s, 4.0f);
    memset(p->padding, p->integer ? 77 : 0, p->channels * elem);
    for (size_t i = 0; i < p->channels * taps; i++) {
        p->w8[i] = draw_s8(&s, p->kind);
        p->wf[i] = draw_f32(&s, 2.0f);
    }
    for (size_t i = 0; i < p->input_pixels; i++)
        p->table[i] = draw(&s) % 8 == 0 ? p->padding : p->input + (p->input_pixels - 1 - i) * p->channels * elem;
    for (size_t c = 0; c < p->channels; c++) {
        p->scale[c] = p->integer ? 0.0002f * (float)(1 + draw(&s) % 50) : 1.0f + draw_f32(&s, 1.0f);
        p->bias[c] = draw_f32(&s, 10.0f);
        p->init[c] = (int32_t)(draw(&s) % 20000) - 10000;
    }
    p->qp = (struct qd_qparams){p->integer ? 0.3f : 0.02f, (int32_t)(draw(&s) % 256), 0, 255};
}

static float sum_of(const struct problem *p, const void *const *entries, size_t c)
{
    int32_t sum = p->init[c];
    float acc = 0.0f;
    for (size_t x = 0; x < p->kw; x++)
        for (size_t y = 0; y < p->kh; y++) {
            const unsigned char *pixel = entries[x * p->kh + y];
            size_t at = (c * p->kh + y) * p->kw + x;
            if (p->integer)
                sum += pixel[c] * p->w8[at];
            else
                acc = fmaf(((const float *)(const void *)pixel)[c], p->wf[at], acc);
        }
    return p->integer ? (float)sum : acc;
}

static float real_of(const struct problem *p, const void *const *entries, size_t c)
{
    float real = sum_of(p, entries, c) * p->scale[c];
    real = real + p->bias[c];
    return p->clip ? fminf(fmaxf(real, -3.0f), 4.0f) : real;
}

static void judge(struct problem *p)
{
    static const float clip[2] = {-3.0f, 4.0f};
    p->seen = qd_observation_empty();
    memset(p->wanted, CANARY, p->rows * p->pixels * p->out_stride * sizeof(float));
    for (size_t i = 0; i < p->rows * p->pixels; i++) {
        const void *const *entries = p->table + i / p->pixels * p->row_entries + i % p->pixels * p->pixel_entries;
        for (size_t c = 0; c < p->channels; c++) {
            float real = real_of(p, entries, c), inv = 1.0f / p->qp.scale;
            qd_observe_one(&p->seen, real, real * inv, p->quantize ? &p->qp : NULL);
            if (p->quantize)
                p->wanted[i * p->out_stride + c] = p->integer
                                                       ? folded_byte(sum_of(p, entries, c), p->scale[c], p->bias[c],
                                                                     1.0f, p->clip ? clip : NULL, &p->qp)
                                                       : qd_requantize_one(real, inv, &p->qp);
            else
                memcpy(p->wanted + (i * p->out_stride + c) * sizeof real, &real, sizeof real);
        }
    }
}

static void drop(struct problem *p)
{
    void *blocks[] = {p->wanted, p->table, p->w8, p->wf, p->scale, p->bias, p->init};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        qd_free(blocks[i]);
    free(p->input);
    free(p->padding);
}

static bool matches(const struct problem *p, const struct qd_kernels *kernels, bool split)
{
    const struct qd_depthwise_q8 *q8 = &kernels->depthwise_q8;
    const struct qd_depthwise_f32 *f32 = &kernels->depthwise_f32;
    size_t out_bytes = p->rows * p->pixels * p->out_stride * (p->quantize ? 1 : sizeof(float));
    size_t packed_bytes = p->integer ? q8->packed_bytes(p->channels, p->kh, p->kw)
                                     : f32->packed_bytes(p->channels, p->kh, p->kw);
    unsigned char *packed = qd_alloc_aligned(packed_bytes + GUARD), *out = malloc(out_bytes + 2 * GUARD);
    int32_t *sums = qd_calloc(p->channels, sizeof *sums);
    assert_true(packed && out && sums);
    memset(packed, CANARY, packed_bytes + GUARD);
    memset(out, CANARY, out_bytes + 2 * GUARD);
    struct qd_observation seen = qd_observation_empty();
    struct qd_depthwise_args args = {.rows = p->rows,
                                     .pixels = p->pixels,
                                     .kh = p->kh,
                                     .kw = p->kw,
                                     .channels = p->channels,
                                     .table = p->table,
                                     .row_entries = p->row_entries,
                                     .pixel_entries = p->pixel_entries,
                                     .weights = packed,
                                     .epilogue = {.acc_init = p->init,
                                                  .scale = p->scale,
                                                  .bias = p->bias,
                                                  .act = {p->clip ? QD_ACT_CLIP : QD_ACT_NONE, .a = -3.0f, .b = 4.0f},
                                                  .out = out + GUARD,
                                                  .out_stride_elems = p->out_stride,
                                                  .quantize = p->quantize ? &p->qp : NULL,
                                                  .observe = &seen}};
    bool good = true;
    if (p->integer) {
        q8->pack(p->channels, p->kh, p->kw, p->w8, packed, sums);
        for (size_t c = 0; c < p->channels; c++) {
            int32_t sum = 0;
            for (size_t t = 0; t < p->kh * p->kw; t++)
                sum += p->w8[c * p->kh * p->kw + t];
            good = good && sum == sums[c];
        }
    } else {
        f32->pack(p->channels, p->kh, p->kw, p->wf, packed);
    }
    size_t tile = p->integer ? q8->tile : f32->tile, middle = split ? (p->channels / 2 + tile - 1) / tile * tile : 0;
    middle = middle < p->channels ? middle : 0;
    for (size_t begin = 0, end = middle; begin < p->channels; begin = end) {
        end = begin < middle ? middle : p->channels;
        args.channel_begin = begin;
        args.channel_end = end;
        if (p->integer)
            q8->run(&args);
        else
            f32->run(&args);
    }
    good = good && same_observation(&seen, &p->seen) && memcmp(out + GUARD, p->wanted, out_bytes) == 0;
    for (size_t i = 0; i < GUARD; i++)
        good = good && out[i] == CANARY && out[GUARD + out_bytes + i] == CANARY && packed[packed_bytes + i] == CANARY;
    qd_free(packed);
    free(out);
    qd_free(sums);
    return good;
}

static void check(struct problem p)
{
    make(&p);
    judge(&p);
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        for (int split = 0; kernels && split < 2; split++)
            if (!matches(&p, kernels, split))
                fail_msg(
                    "%s: seed %llu, %zu x %zu pixels, %zu channels, kernel %zu x %zu, stride %zu, shared %d, u8 %d",
                    p.integer ? kernels->depthwise_q8.name : kernels->depthwise_f32.name, (unsigned long long)p.seed,
                    p.rows, p.pixels, p.channels, p.kh, p.kw, p.stride, p.shared, p.quantize);
    }
    drop(&p);
}

static uint64_t first_seed(void)
{
    const char *text = getenv("QD_TEST_SEED");
    return text ? strtoull(text, NULL, 10) : 20240607;
}

static void shapes(bool integer)
{
    static const size_t kernels[][2] = {{3, 3}, {5, 5}, {3, 3}, {1, 3}, {1, 31},
                                        {7, 7}, {3, 5}, {1, 1}, {2, 2}, {6, 1}};
    for (uint64_t i = 0; i < 600; i++) {
        uint64_t s = first_seed() + i * 7919;
        struct problem p = {.seed = s, .integer = integer};
        size_t kernel = draw(&s) % (sizeof kernels / sizeof *kernels);
        p.kh = kernels[kernel][0];
        p.kw = kernels[kernel][1];
        p.stride = 1 + draw(&s) % 3;
        p.shared = draw(&s) % 4 != 0;
        p.rows = 1 + draw(&s) % 3;
        p.pixels = 1 + draw(&s) % 14;
        p.channels = draw(&s) % 3 == 0 ? 64 : draw(&s) % 3 == 0 ? 8 + 8 * (draw(&s) % 20) : 1 + draw(&s) % 150;
        p.out_stride = p.channels + draw(&s) % 5;
        p.kind = (enum kind)(i % KIND_COUNT);
        p.quantize = draw(&s) % 4 != 0;
        p.clip = draw(&s) % 2;
        check(p);
    }
}

static void integers(void **unused)
{
    (void)unused;
    shapes(true);
}

static void floats(void **unused)
{
    (void)unused;
    shapes(false);
}

static void broken_run(const struct qd_depthwise_args *args)
{
    qd_kernels_at(QD_ISA_SCALAR)->depthwise_q8.run(args);
    ((uint8_t *)args->epilogue.out)[args->pixels * args->channels - 1] ^= 1;
}

static void selftest_sees_a_broken_kernel(void **unused)
{
    (void)unused;
    struct qd_error error;
    for (int isa = 0; isa < QD_ISA_COUNT; isa++)
        if (qd_kernels_at((enum qd_isa)isa))
            assert_int_equal(qd_kernels_selftest(qd_kernels_at((enum qd_isa)isa), first_seed(), &error), QD_OK);
    struct qd_kernels broken = *qd_kernels_at(QD_ISA_SCALAR);
    broken.depthwise_q8.run = broken_run;
    assert_int_equal(qd_kernels_selftest(&broken, first_seed(), &error), QD_ERR_INTERNAL);
    assert_non_null(strstr(error.text, "depthwise"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers),
        cmocka_unit_test(floats),
        cmocka_unit_test(selftest_sees_a_broken_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
