/* `quantd selftest`: every entry of a table against plain arithmetic on this CPU. A smaller version of tests/kernels:
 * fixed buffers on the stack, small shapes, seeded data with the extremes that saturate. Not a benchmark. */
#include "engine/kernels/kernels.h"

#include <string.h>

enum {
    MAX_M = 27,
    MAX_N = 40,
    MAX_K = 37,
    PADDED_N = 128,
    PADDED_K = 64,
    VALUES = 1037,
    SCRATCH_BYTES = 192 * 1024,
    ROUNDS = 12,
    DEPTHWISE_PIXELS = 6,
    DEPTHWISE_ENTRIES = (DEPTHWISE_PIXELS + 2) * 3
};

struct bench {
    const struct qd_kernels *kernels;
    uint64_t state;
    size_t m, n, k;
    struct qd_qparams qp;
    uint8_t a[MAX_M * MAX_K], u8[MAX_M * MAX_N];
    int8_t w[MAX_N * MAX_K];
    int32_t init[MAX_N], sums[MAX_N];
    float scale[MAX_N], bias[MAX_N], a_f32[MAX_M * MAX_K], w_f32[MAX_N * MAX_K], f32[MAX_M * MAX_N];
    _Alignas(64) unsigned char packed[PADDED_N * PADDED_K * sizeof(float)], scratch[SCRATCH_BYTES];
};

static uint32_t draw(struct bench *b)
{
    b->state = b->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(b->state >> 33);
}

static bool same(const struct qd_observation *a, const struct qd_observation *b)
{
    return a->min == b->min && a->max == b->max && a->elems == b->elems && a->nonfinite == b->nonfinite &&
           a->clipped_low == b->clipped_low && a->clipped_high == b->clipped_high;
}

static void fill(struct bench *b, unsigned round)
{
    b->m = 1 + draw(b) % MAX_M;
    b->n = 1 + draw(b) % MAX_N;
    b->k = 1 + draw(b) % MAX_K;
    b->qp = (struct qd_qparams){0.7f, (int32_t)(draw(b) % 256), 0, 255};
    for (size_t i = 0; i < b->m * b->k; i++) {
        b->a[i] = round == 0 ? 255 : (uint8_t)draw(b);
        b->a_f32[i] = (float)(draw(b) % 64) - 32.0f; /* sums of small integers are exact in any order */
    }
    for (size_t i = 0; i < b->n * b->k; i++) {
        b->w[i] = (int8_t)(round == 0 ? -127 : (int32_t)(draw(b) % 255) - 127);
        b->w_f32[i] = (float)(draw(b) % 64) - 32.0f;
    }
    for (size_t j = 0; j < b->n; j++) {
        b->init[j] = (int32_t)(draw(b) % 20000) - 10000;
        b->scale[j] = 0.0005f * (float)(1 + draw(b) % 9);
        b->bias[j] = round == 3 && j == 0 ? INFINITY : (float)(draw(b) % 100) - 50.0f;
    }
}

static struct qd_gemm_args args_of(struct bench *b, const void *a, size_t elem_bytes, struct qd_observation *seen)
{
    return (struct qd_gemm_args){
        .m = b->m,
        .n = b->n,
        .k = b->k,
        .row_end = b->m,
        .col_end = b->n,
        .a = {.base = a, .stride_bytes = b->k * elem_bytes, .taps = 1, .tap_bytes = b->k * elem_bytes},
        .b = b->packed,
        .epilogue =
            {.acc_init = b->init, .scale = b->scale, .bias = b->bias, .out_stride_elems = b->n, .observe = seen},
        .scratch = b->scratch};
}

static uint8_t folded_byte(const struct bench *b, int32_t acc, size_t j)
{
    const struct qd_folded folded = qd_fold(b->scale[j], b->bias[j], 1.0f / b->qp.scale, b->qp.zero_point);
    return qd_requantize_folded(acc, folded, b->qp.qmin, b->qp.qmax);
}

static bool check_gemm_q8(struct bench *b)
{
    const struct qd_gemm_q8 *g = &b->kernels->gemm_q8;
    if (g->packed_bytes(b->n, b->k) > sizeof b->packed || g->scratch_bytes(b->k) > sizeof b->scratch)
        return false;
    g->pack(b->n, b->k, b->w, b->k, 1, b->packed, b->sums);
    struct qd_observation seen = qd_observation_empty(), wanted = qd_observation_empty();
    struct qd_gemm_args args = args_of(b, b->a, 1, &seen);
    args.epilogue.out = b->u8;
    args.epilogue.quantize = &b->qp;
    g->run(&args);
    for (size_t i = 0; i < b->m; i++)
        for (size_t j = 0; j < b->n; j++) {
            int32_t acc = b->init[j], sum = 0;
            for (size_t p = 0; p < b->k; p++) {
                acc += b->a[i * b->k + p] * b->w[j * b->k + p];
                sum += b->w[j * b->k + p];
            }
            float real = qd_real_one(acc, b->scale[j], b->bias[j]), inv = 1.0f / b->qp.scale;
            qd_observe_one(&wanted, real, real * inv, &b->qp);
            if (sum != b->sums[j] || b->u8[i * b->n + j] != folded_byte(b, acc, j))
                return false;
        }
    return same(&seen, &wanted);
}

/* The bytes of A, widened and spread to both signs. */
static bool check_gemm_q16(struct bench *b)
{
    const struct qd_gemm_q16 *g = &b->kernels->gemm_q16;
    int16_t a[MAX_M * MAX_K];
    if (g->packed_bytes(b->n, b->k) > sizeof b->packed || g->scratch_bytes(b->k) > sizeof b->scratch)
        return false;
    for (size_t i = 0; i < b->m * b->k; i++)
        a[i] = (int16_t)((b->a[i] - 128) * 255);
    g->pack(b->n, b->k, b->w, NULL, b->k, 1, b->packed);
    struct qd_observation seen = qd_observation_empty(), wanted = qd_observation_empty();
    struct qd_gemm_args args = args_of(b, a, sizeof *a, &seen);
    args.epilogue.out = b->f32;
    g->run(&args);
    for (size_t i = 0; i < b->m; i++)
        for (size_t j = 0; j < b->n; j++) {
            int32_t acc = 0;
            for (size_t p = 0; p < b->k; p++)
                acc += a[i * b->k + p] * b->w[j * b->k + p];
            float real = qd_real_one(acc, b->scale[j], b->bias[j]);
            qd_observe_one(&wanted, real, 0.0f, NULL);
            if (b->f32[i * b->n + j] != real)
                return false;
        }
    return same(&seen, &wanted);
}

static bool check_gemm_f32(struct bench *b)
{
    const struct qd_gemm_f32 *g = &b->kernels->gemm_f32;
    if (g->packed_bytes(b->n, b->k) > sizeof b->packed || g->scratch_bytes(b->k) > sizeof b->scratch)
        return false;
    g->pack(b->n, b->k, b->w_f32, b->k, 1, NULL, b->packed);
    struct qd_observation seen = qd_observation_empty(), wanted = qd_observation_empty();
    struct qd_gemm_args args = args_of(b, b->a_f32, sizeof(float), &seen);
    args.epilogue.out = b->f32;
    g->run(&args);
    for (size_t i = 0; i < b->m; i++)
        for (size_t j = 0; j < b->n; j++) {
            float acc = 0.0f;
            for (size_t p = 0; p < b->k; p++)
                acc += b->a_f32[i * b->k + p] * b->w_f32[j * b->k + p];
            float real = acc * b->scale[j] + b->bias[j];
            qd_observe_one(&wanted, real, 0.0f, NULL);
            if (b->f32[i * b->n + j] != real)
                return false;
        }
    return same(&seen, &wanted);
}

/* 3 x 3, neighbouring pixels sharing columns; the table points anywhere into a. */
static struct qd_depthwise_args depthwise_args(struct bench *b, const void **table, const void *a, size_t elem_bytes,
                                               struct qd_observation *seen)
{
    size_t channels = b->n < b->m * b->k ? b->n : b->m * b->k, places = b->m * b->k - channels + 1;
    for (size_t i = 0; i < DEPTHWISE_ENTRIES; i++)
        table[i] = (const unsigned char *)a + draw(b) % places * elem_bytes;
    return (struct qd_depthwise_args){
        .rows = 1,
        .pixels = DEPTHWISE_PIXELS,
        .kh = 3,
        .kw = 3,
        .channels = channels,
        .channel_end = channels,
        .table = table,
        .row_entries = DEPTHWISE_ENTRIES,
        .pixel_entries = 3,
        .weights = b->packed,
        .epilogue = {
            .acc_init = b->init, .scale = b->scale, .bias = b->bias, .out_stride_elems = channels, .observe = seen}};
}

static bool check_depthwise_q8(struct bench *b)
{
    const struct qd_depthwise_q8 *d = &b->kernels->depthwise_q8;
    const void *table[DEPTHWISE_ENTRIES];
    struct qd_observation seen = qd_observation_empty(), wanted = qd_observation_empty();
    struct qd_depthwise_args args = depthwise_args(b, table, b->a, 1, &seen);
    if (d->packed_bytes(args.channels, 3, 3) > sizeof b->packed)
        return false;
    d->pack(args.channels, 3, 3, b->w, b->packed, b->sums);
    args.epilogue.out = b->u8;
    args.epilogue.quantize = &b->qp;
    d->run(&args);
    for (size_t i = 0; i < DEPTHWISE_PIXELS; i++)
        for (size_t c = 0; c < args.channels; c++) {
            int32_t acc = b->init[c];
            for (size_t t = 0; t < 9; t++)
                acc += ((const uint8_t *)table[i * 3 + t])[c] * b->w[c * 9 + t % 3 * 3 + t / 3];
            float real = qd_real_one(acc, b->scale[c], b->bias[c]), inv = 1.0f / b->qp.scale;
            qd_observe_one(&wanted, real, real * inv, &b->qp);
            if (b->u8[i * args.channels + c] != folded_byte(b, acc, c))
                return false;
        }
    return same(&seen, &wanted);
}

static bool check_depthwise_f32(struct bench *b)
{
    const struct qd_depthwise_f32 *d = &b->kernels->depthwise_f32;
    const void *table[DEPTHWISE_ENTRIES];
    struct qd_observation seen = qd_observation_empty(), wanted = qd_observation_empty();
    struct qd_depthwise_args args = depthwise_args(b, table, b->a_f32, sizeof(float), &seen);
    if (d->packed_bytes(args.channels, 3, 3) > sizeof b->packed)
        return false;
    d->pack(args.channels, 3, 3, b->w_f32, b->packed);
    args.epilogue.out = b->f32;
    d->run(&args);
    for (size_t i = 0; i < DEPTHWISE_PIXELS; i++)
        for (size_t c = 0; c < args.channels; c++) {
            float acc = 0.0f;
            for (size_t t = 0; t < 9; t++)
                acc += ((const float *)table[i * 3 + t])[c] * b->w_f32[c * 9 + t % 3 * 3 + t / 3];
            float real = acc * b->scale[c] + b->bias[c];
            qd_observe_one(&wanted, real, 0.0f, NULL);
            if (b->f32[i * args.channels + c] != real)
                return false;
        }
    return same(&seen, &wanted);
}

static bool check_quantize(struct bench *b)
{
    float x[VALUES], back[VALUES];
    uint8_t q[VALUES];
    size_t n = 1 + draw(b) % VALUES;
    for (size_t i = 0; i < n; i++)
        x[i] = ((float)(draw(b) % 4096) - 2048.0f) * 0.0625f;
    if (n > 7) {
        x[3] = NAN;
        x[5] = -INFINITY;
    }
    struct qd_observation seen = qd_observation_empty(), alone = qd_observation_empty(),
                          wanted = qd_observation_empty();
    b->kernels->quantize_u8(x, n, &b->qp, q, &seen);
    b->kernels->observe_f32(x, n, &b->qp, &alone);
    b->kernels->dequantize_u8(q, n, &b->qp, back);
    for (size_t i = 0; i < n; i++) {
        qd_observe_one(&wanted, x[i], x[i] / b->qp.scale, &b->qp);
        if (q[i] != qd_quantize_one(x[i], &b->qp) || back[i] != qd_dequantize_one(q[i], &b->qp))
            return false;
    }
    return same(&seen, &wanted) && same(&alone, &wanted);
}

static bool check_max_rows(struct bench *b)
{
    const uint8_t *rows[3] = {b->a, b->a + 1, b->a + 2};
    size_t n = b->m * b->k > 3 ? b->m * b->k - 2 : 0;
    uint8_t out[MAX_M * MAX_K];
    b->kernels->max_rows_u8(rows, 3, n, out);
    for (size_t j = 0; j < n; j++) {
        uint8_t most = b->a[j] > b->a[j + 1] ? b->a[j] : b->a[j + 1];
        if (out[j] != (most > b->a[j + 2] ? most : b->a[j + 2]))
            return false;
    }
    return true;
}

/* Against the portable kernels, bit by bit (any NaN is as good as another). */
static bool check_pointwise(struct bench *b)
{
    const struct qd_kernels *plain = qd_kernels_at(QD_ISA_SCALAR);
    float x[VALUES], y[VALUES], got[VALUES], want[VALUES];
    const size_t n = 1 + draw(b) % VALUES;
    for (size_t i = 0; i < n; i++) {
        x[i] = ((float)(draw(b) % 4096) - 2048.0f) * 0.0625f;
        y[i] = ((float)(draw(b) % 4096) - 2048.0f) * 0.001f;
    }
    x[n / 2] = NAN;
    x[n / 3] = -INFINITY;
    for (int op = 0; op < QD_PW_COUNT; op++) {
        plain->pointwise[op].run(x, y, -0.5f, 1.25f, want, n);
        b->kernels->pointwise[op].run(x, y, -0.5f, 1.25f, got, n);
        for (size_t i = 0; i < n; i++)
            if (got[i] == want[i] ? signbit(got[i]) != signbit(want[i]) : !isnan(got[i]) || !isnan(want[i]))
                return false;
    }
    return true;
}

enum qd_status qd_kernels_selftest(const struct qd_kernels *kernels, uint64_t seed, struct qd_error *error)
{
    const struct {
        const char *name;
        bool (*check)(struct bench *b);
    } rows[] = {{kernels->gemm_q8.name, check_gemm_q8},
                {kernels->gemm_q16.name, check_gemm_q16},
                {kernels->gemm_f32.name, check_gemm_f32},
                {kernels->depthwise_q8.name, check_depthwise_q8},
                {kernels->depthwise_f32.name, check_depthwise_f32},
                {"quantize_u8, dequantize_u8 and observe_f32", check_quantize},
                {"max_rows_u8", check_max_rows},
                {"pointwise", check_pointwise}};
    struct bench bench = {.kernels = kernels, .state = seed};
    for (unsigned round = 0; round < ROUNDS; round++) {
        fill(&bench, round);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            if (!rows[i].check(&bench))
                return qd_fail(error, QD_ERR_INTERNAL,
                               "kernel %s (%s) differs from plain arithmetic: seed %llu, round %u, %zu x %zu x %zu",
                               rows[i].name, kernels->isa_name, (unsigned long long)seed, round, bench.m, bench.n,
                               bench.k);
    }
    return QD_OK;
}
