/* max_rows_f32, mean_rows_*, weigh_rows_f32 and transpose_* of every level against plain arithmetic, with NaN,
 * infinities and zeros of both signs; outputs between canaries. */
#include "engine/kernels/kernels.h"
#include "tests/kernels/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_ROWS = 11, MAX_N = 150, GUARD = 32 };
static const float CANARY = -77.0f;

static float wild(uint64_t *s)
{
    const float rare[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f};
    return draw(s) % 10 ? draw_f32(s, 20.0f) : rare[draw(s) % 5];
}

struct rows {
    size_t count, n;
    float *f[MAX_ROWS], weight[MAX_ROWS];
    uint8_t *q[MAX_ROWS];
};

static void make(uint64_t *s, struct rows *r)
{
    r->count = 1 + draw(s) % MAX_ROWS;
    r->n = draw(s) % MAX_N;
    for (size_t i = 0; i < r->count; i++) {
        r->f[i] = malloc(r->n * 4 + 1); /* exactly as long as it says, for the sanitizer */
        r->q[i] = malloc(r->n + 1);
        assert_true(r->f[i] && r->q[i]);
        r->weight[i] = draw_f32(s, 2.0f);
        for (size_t j = 0; j < r->n; j++) {
            r->f[i][j] = wild(s);
            r->q[i][j] = draw_u8(s, (enum kind)(draw(s) % KIND_COUNT));
        }
    }
}

static void check(const struct qd_kernels *k, const float *out, const float *wanted, size_t n, uint64_t round)
{
    bool good = same_floats(out + GUARD, wanted, n);
    for (size_t i = 0; i < GUARD; i++)
        good = good && out[i] == CANARY && out[GUARD + n + i] == CANARY;
    if (!good)
        fail_msg("%s: round %llu, n %zu", k->isa_name, (unsigned long long)round, n);
}

static void clear(float *out)
{
    for (size_t i = 0; i < GUARD + MAX_N + GUARD; i++)
        out[i] = CANARY;
}

static void judge_rows(const struct rows *r, int32_t offset, float factor, float wanted[4][MAX_N])
{
    for (size_t j = 0; j < r->n; j++) {
        float best = r->f[0][j], sum = r->f[0][j], weighed = r->f[0][j] * r->weight[0];
        int32_t total = offset + r->q[0][j];
        for (size_t i = 1; i < r->count; i++) {
            float v = r->f[i][j];
            best = v > best || isnan(v) ? v : best;
            sum += v;
            weighed += v * r->weight[i];
            total += r->q[i][j];
        }
        wanted[0][j] = best;
        wanted[1][j] = sum * factor;
        wanted[2][j] = (float)total * factor;
        wanted[3][j] = weighed;
    }
}

static void rows_of_floats_and_bytes(void **unused)
{
    (void)unused;
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *k = qd_kernels_at((enum qd_isa)isa);
        for (uint64_t round = 0; k && round < 400; round++) {
            uint64_t s = 99 + round;
            struct rows r;
            float out[GUARD + MAX_N + GUARD], wanted[4][MAX_N], factor = draw_f32(&s, 3.0f);
            int32_t offset = (int32_t)(draw(&s) % 5000) - 2500;
            make(&s, &r);
            judge_rows(&r, offset, factor, wanted);
            clear(out);
            k->max_rows_f32((const float *const *)r.f, r.count, r.n, out + GUARD);
            check(k, out, wanted[0], r.n, round);
            k->mean_rows_f32((const float *const *)r.f, r.count, r.n, factor, out + GUARD);
            check(k, out, wanted[1], r.n, round);
            k->mean_rows_u8((const uint8_t *const *)r.q, r.count, r.n, offset, factor, out + GUARD);
            check(k, out, wanted[2], r.n, round);
            k->weigh_rows_f32((const float *const *)r.f, r.weight, r.count, r.n, out + GUARD);
            check(k, out, wanted[3], r.n, round);
            /* A maximum that goes on from what it has. */
            if (r.n)
                memcpy(out + GUARD, r.f[0], r.n * sizeof(float));
            const float *again[MAX_ROWS];
            for (size_t i = 0; i < r.count; i++)
                again[i] = i ? r.f[i] : out + GUARD;
            k->max_rows_f32(again, r.count, r.n, out + GUARD);
            check(k, out, wanted[0], r.n, round);
            for (size_t i = 0; i < r.count; i++) {
                free(r.f[i]);
                free(r.q[i]);
            }
        }
    }
}

static void transposition(void **unused)
{
    (void)unused;
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *k = qd_kernels_at((enum qd_isa)isa);
        for (uint64_t round = 0; k && round < 400; round++) {
            uint64_t s = 7 + round;
            size_t rows = round % 4 ? 1 + draw(&s) % 70 : 3, cols = 1 + draw(&s) % 70;
            size_t in_stride = cols + draw(&s) % 3, out_stride = rows + (round % 3 ? 0 : draw(&s) % 3);
            size_t in_size = (rows - 1) * in_stride + cols, out_size = (cols - 1) * out_stride + rows;
            uint8_t *in = malloc(in_size), *out = malloc(out_size);
            float *fin = malloc(in_size * 4), *fout = malloc(out_size * 4);
            assert_true(in && out && fin && fout);
            for (size_t i = 0; i < in_size; i++) {
                in[i] = (uint8_t)draw(&s);
                fin[i] = (float)draw(&s);
            }
            memset(out, 0xa5, out_size);
            for (size_t i = 0; i < out_size; i++)
                fout[i] = CANARY;
            k->transpose_u8(in, in_stride, rows, cols, out, out_stride);
            k->transpose_f32(fin, in_stride, rows, cols, fout, out_stride);
            for (size_t i = 0; i < out_size; i++) {
                size_t c = i / out_stride, r = i % out_stride;
                uint8_t one = r < rows ? in[r * in_stride + c] : 0xa5;
                float real = r < rows ? fin[r * in_stride + c] : CANARY;
                if (out[i] != one || fout[i] != real)
                    fail_msg("%s: %zu x %zu, element %zu", k->isa_name, rows, cols, i);
            }
            free(in);
            free(out);
            free(fin);
            free(fout);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_floats_and_bytes),
        cmocka_unit_test(transposition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
