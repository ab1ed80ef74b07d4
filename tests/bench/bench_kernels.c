/* Multiply-adds a second of the matrix products per level and shape, one thread, beside the ceiling of the level's best
 * instruction, or for a single row beside the speed at which the same bytes are read. Ceiling and product are measured
 * in turn and the medians of rates and of shares printed, in time of this thread: the machine is shared, its clock
 * varies. Every result enters the checksum printed at the end, so that nothing can be left out.
 * `bench_kernels [seconds per line [isa]]`; a line: type, shape, rate, share, ceiling, what the ceiling is. */
#include "base/mem.h"
#include "engine/kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SAMPLES_MAX = 400 };
#define SAMPLE_SECONDS 3e-4

static uint64_t checksum;

static double now_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ------------------------------------------------------------------ ceilings */

/* Twelve independent accumulators held in registers by the assembler: in plain C they are merged. Operands are noise,
 * two pairs in turn: multiplying the same constants over and over takes so little power that the clock is higher than
 * any real product ever sees, and what happens to lie in a register can be a denormal, a hundred times slower. */
#define TWELVE(one, v)                                                                                                 \
    one(0, v, "14", "15") one(1, v, "13", "12") one(2, v, "14", "15") one(3, v, "13", "12") one(4, v, "14", "15")      \
        one(5, v, "13", "12") one(6, v, "14", "15") one(7, v, "13", "12") one(8, v, "14", "15") one(9, v, "13", "12")  \
            one(10, v, "14", "15") one(11, v, "13", "12")
#define REGISTER(v, i)        "%%" v "mm" i
#define THREE(op, i, v, x, y) op " " REGISTER(v, x) ", " REGISTER(v, y) ", " REGISTER(v, #i) "\n\t"
#define DPBUSD(i, v, x, y)    THREE("vpdpbusd", i, v, x, y)
#define DPWSSD(i, v, x, y)    THREE("vpdpwssd", i, v, x, y)
#define FMA(i, v, x, y)       THREE("vfmadd231ps", i, v, x, y)
#define MADD(i, v, x, y)                                                                                               \
    "vpmaddwd " REGISTER(v, x) ", " REGISTER(v, "14") ", " REGISTER(                                                   \
        v, "12") "\n\t"                                                                                                \
                 "vpaddd " REGISTER(v, "12") ", " REGISTER(v, #i) ", " REGISTER(v, #i) "\n\t"
#define LOOP(name, one, v)                                                                                             \
    static void loop_##name(uint64_t n, const void *noise)                                                             \
    {                                                                                                                  \
        __asm__ volatile("vzeroall\n\tvmovups (%1), %%" v "mm12\n\tvmovups 64(%1), %%" v "mm13\n\t"                    \
                         "vmovups 128(%1), %%" v "mm14\n\tvmovups 192(%1), %%" v "mm15\n\t"                            \
                         "1:\n\t" TWELVE(one, v) "dec %0\n\tjnz 1b\n\tvzeroupper"                                      \
                         : "+r"(n)                                                                                     \
                         : "r"(noise)                                                                                  \
                         : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",     \
                           "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                              \
    }
LOOP(dpbusd_zmm, DPBUSD, "z")
LOOP(dpwssd_zmm, DPWSSD, "z")
LOOP(fma_zmm, FMA, "z")
LOOP(fma_ymm, FMA, "y")
LOOP(madd_ymm, MADD, "y")
/* With EVEX the ymm form belongs to AVX512-VNNI, as the zmm form does. */
#define EVEX_DPBUSD(i, v, x, y) "%{evex%} " DPBUSD(i, v, x, y)
#define EVEX_DPWSSD(i, v, x, y) "%{evex%} " DPWSSD(i, v, x, y)
LOOP(dpbusd_ymm, EVEX_DPBUSD, "y")
LOOP(dpwssd_ymm, EVEX_DPWSSD, "y")

/* Four tiles accumulate, one instruction of each in turn: as many as hide what it waits for. */
#define TDPBUSD(acc, a, b) "tdpbusd %%tmm" #b ", %%tmm" #a ", %%tmm" #acc "\n\t"
#define FOUR               TDPBUSD(0, 4, 6) TDPBUSD(1, 4, 7) TDPBUSD(2, 5, 6) TDPBUSD(3, 5, 7)
static void loop_tdpbusd(uint64_t n, const void *noise)
{
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    __asm__ volatile("ldtilecfg %1\n\t"
                     "tileloadd (%2,%3,1), %%tmm4\n\ttileloadd 4(%2,%3,1), %%tmm5\n\t"
                     "tileloadd 8(%2,%3,1), %%tmm6\n\ttileloadd 12(%2,%3,1), %%tmm7\n\t"
                     "1:\n\t" FOUR FOUR FOUR "dec %0\n\tjnz 1b\n\ttilerelease"
                     : "+r"(n)
                     : "m"(config), "r"(noise), "r"((size_t)12)
                     : "cc", "memory");
}

enum { TYPES = 3, INT8 = 0, INT16 = 1, FLOAT32 = 2 };
static const char *const TYPE_NAMES[TYPES] = {"int8", "int16", "float"};
static const size_t ELEM_BYTES[TYPES] = {1, 2, 4};

struct ceiling {
    const char *name;
    void (*loop)(uint64_t n, const void *noise);
    double macs; /* an instruction, or a pair of them */
};

static const struct ceiling CEILINGS[QD_ISA_COUNT][TYPES][2] = {
    [QD_ISA_AVX2] = {[INT8] = {{"vpmaddwd + vpaddd ymm", loop_madd_ymm, 16}},
                     [INT16] = {{"vpmaddwd + vpaddd ymm", loop_madd_ymm, 16}},
                     [FLOAT32] = {{"vfmadd231ps ymm", loop_fma_ymm, 8}}},
    [QD_ISA_AVX512VNNI] = {[INT8] = {{"vpdpbusd zmm", loop_dpbusd_zmm, 64}, {"vpdpbusd ymm", loop_dpbusd_ymm, 32}},
                           [INT16] = {{"vpdpwssd zmm", loop_dpwssd_zmm, 32}, {"vpdpwssd ymm", loop_dpwssd_ymm, 16}},
                           [FLOAT32] = {{"vfmadd231ps zmm", loop_fma_zmm, 16}, {"vfmadd231ps ymm", loop_fma_ymm, 8}}},
    [QD_ISA_AMX] = {[INT8] = {{"tdpbusd", loop_tdpbusd, 16 * 16 * 64}},
                    [INT16] = {{"four tdpbusd", loop_tdpbusd, 16 * 16 * 64 / 4}}},
};

/* G multiply-adds a second of one short run. */
static double ceiling_rate(const struct ceiling *c)
{
    static float noise[64]; /* between 1 and 2 as floats, anything as bytes */
    for (size_t i = 0; noise[63] == 0.0f && i < 64; i++) {
        checksum = checksum * 6364136223846793005u + 1442695040888963407u;
        noise[i] = 1.0f + (float)(checksum >> 41) / 8388608.0f;
    }
    uint64_t n = (uint64_t)(SAMPLE_SECONDS * 200e9 / 12.0 / c->macs);
    double start = now_seconds(CLOCK_THREAD_CPUTIME_ID);
    c->loop(n, noise);
    return (double)n * 12.0 * c->macs / (now_seconds(CLOCK_THREAD_CPUTIME_ID) - start) * 1e-9;
}

/* The better of the 256- and the 512-bit loop; NULL where there is none. */
static const struct ceiling *best_ceiling(enum qd_isa isa, int type)
{
    const struct ceiling *two = CEILINGS[isa][type];
    if (!two[0].loop || !two[1].loop)
        return two[0].loop ? two : NULL;
    double rates[2] = {0.0, 0.0};
    for (int i = 0; i < 40; i++) {
        double rate = ceiling_rate(&two[i % 2]);
        rates[i % 2] = rate > rates[i % 2] ? rate : rates[i % 2];
    }
    return rates[1] > rates[0] ? &two[1] : &two[0];
}

/* GB a second of reading `bytes` bytes, a multiple of 256, asking for them beforehand. */
static double read_rate(const void *from, size_t bytes)
{
    const char *at = from, *end = at + bytes / 256 * 256;
    double start = now_seconds(CLOCK_THREAD_CPUTIME_ID);
    __asm__ volatile("1:\n\t"
                     "prefetcht0 2048(%0)\n\tprefetcht0 2112(%0)\n\tprefetcht0 2176(%0)\n\tprefetcht0 2240(%0)\n\t"
                     "vmovups (%0), %%ymm0\n\tvmovups 32(%0), %%ymm1\n\tvmovups 64(%0), %%ymm2\n\t"
                     "vmovups 96(%0), %%ymm3\n\tvmovups 128(%0), %%ymm4\n\tvmovups 160(%0), %%ymm5\n\t"
                     "vmovups 192(%0), %%ymm6\n\tvmovups 224(%0), %%ymm7\n\t"
                     "add $256, %0\n\tcmp %1, %0\n\tjb 1b\n\tvzeroupper"
                     : "+r"(at)
                     : "r"(end)
                     : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
    return (double)bytes / (now_seconds(CLOCK_THREAD_CPUTIME_ID) - start) * 1e-9;
}

/* ------------------------------------------------------------------ products */

struct product {
    const struct qd_kernels *kernels;
    int type;
    size_t m, n, k, packed_bytes;
    void *a, *b, *packed, *scratch, *out;
    float *scale;
    int32_t *sums;
    struct qd_qparams qp;
    struct qd_observation seen;
    struct qd_gemm_args args;
};

static void product_free(struct product *p)
{
    void *blocks[] = {p->a, p->b, p->packed, p->scratch, p->out, p->scale, p->sums};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        qd_free(blocks[i]);
}

static void product_fill(struct product *p)
{
    for (size_t i = 0; i < p->m * p->k; i++)
        if (p->type == INT8)
            ((uint8_t *)p->a)[i] = (uint8_t)(i * 37 >> 3);
        else if (p->type == INT16)
            ((int16_t *)p->a)[i] = (int16_t)(i * 7919 >> 5);
        else
            ((float *)p->a)[i] = (float)(i % 13) - 6.0f;
    for (size_t i = 0; i < p->n * p->k; i++)
        if (p->type == FLOAT32)
            ((float *)p->b)[i] = (float)(i % 11) - 5.0f;
        else
            ((int8_t *)p->b)[i] = (int8_t)(i * 73 >> 4);
    for (size_t j = 0; j < p->n; j++)
        p->scale[j] = 0.001f;
}

static bool product_make(struct product *p)
{
    const struct qd_gemm_q8 *q8 = &p->kernels->gemm_q8;
    const struct qd_gemm_q16 *q16 = &p->kernels->gemm_q16;
    const struct qd_gemm_f32 *f32 = &p->kernels->gemm_f32;
    const size_t elem = ELEM_BYTES[p->type];
    const size_t packed_bytes[TYPES] = {q8->packed_bytes(p->n, p->k), q16->packed_bytes(p->n, p->k),
                                        f32->packed_bytes(p->n, p->k)};
    const size_t scratch_bytes[TYPES] = {q8->scratch_bytes(p->k), q16->scratch_bytes(p->k), f32->scratch_bytes(p->k)};
    p->packed_bytes = packed_bytes[p->type];
    p->a = qd_alloc_aligned(p->m * p->k * elem);
    p->b = qd_alloc_aligned(p->n * p->k * elem);
    p->packed = qd_alloc_aligned(p->packed_bytes);
    p->scratch = qd_alloc_aligned(scratch_bytes[p->type]);
    p->out = qd_alloc_aligned(p->m * p->n * elem);
    p->scale = qd_calloc(p->n, sizeof *p->scale);
    p->sums = qd_calloc(p->n, sizeof *p->sums);
    if (!p->a || !p->b || !p->packed || !p->scratch || !p->out || !p->scale || !p->sums)
        return false;
    product_fill(p);
    if (p->type == INT8)
        q8->pack(p->n, p->k, p->b, p->k, 1, p->packed, p->sums);
    else if (p->type == INT16)
        q16->pack(p->n, p->k, p->b, NULL, p->k, 1, p->packed);
    else
        f32->pack(p->n, p->k, p->b, p->k, 1, NULL, p->packed);
    p->qp = p->type == INT8 ? (struct qd_qparams){1e4f, 128, 0, 255} : (struct qd_qparams){1e3f, 0, -32767, 32767};
    p->seen = qd_observation_empty();
    const bool integer = p->type != FLOAT32;
    p->args = (struct qd_gemm_args){
        .m = p->m,
        .n = p->n,
        .k = p->k,
        .row_end = p->m,
        .col_end = p->n,
        .b = p->packed,
        .scratch = p->scratch,
        .a = {.base = p->a, .stride_bytes = p->k * elem, .taps = 1, .tap_bytes = p->k * elem},
        .epilogue = {.acc_init = p->sums,
                     .scale = integer ? p->scale : NULL,
                     .bias = p->scale,
                     .out = p->out,
                     .out_stride_elems = p->n,
                     .quantize = integer ? &p->qp : NULL,
                     .out_s16 = p->type == INT16,
                     .observe = integer ? &p->seen : NULL}};
    return true;
}

static void product_run(struct product *p)
{
    if (p->type == INT8)
        p->kernels->gemm_q8.run(&p->args);
    else if (p->type == INT16)
        p->kernels->gemm_q16.run(&p->args);
    else
        p->kernels->gemm_f32.run(&p->args);
}

/* G multiply-adds a second of about one sample's length. */
static double product_rate(struct product *p, unsigned times)
{
    double start = now_seconds(CLOCK_THREAD_CPUTIME_ID);
    for (unsigned i = 0; i < times; i++)
        product_run(p);
    double seconds = now_seconds(CLOCK_THREAD_CPUTIME_ID) - start;
    return (double)times * (double)p->m * (double)p->n * (double)p->k / seconds * 1e-9;
}

/* ------------------------------------------------------------------ one line */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare);
    return values[n / 2];
}

static bool measure(enum qd_isa isa, int type, size_t m, size_t n, size_t k, double seconds)
{
    static double rates[SAMPLES_MAX], tops[SAMPLES_MAX], shares[SAMPLES_MAX];
    struct product p = {.kernels = qd_kernels_at(isa), .type = type, .m = m, .n = n, .k = k};
    const struct ceiling *ceiling = best_ceiling(isa, type);
    bool good = product_make(&p);
    if (!good)
        goto done;
    product_run(&p);
    double first = product_rate(&p, 1), macs = (double)m * (double)n * (double)k;
    unsigned times = (unsigned)(SAMPLE_SECONDS * first * 1e9 / macs) + 1;
    double until = now_seconds(CLOCK_MONOTONIC) + seconds, bytes_a_mac = (double)p.packed_bytes / macs;
    size_t samples = 0;
    do {
        tops[samples] = m == 1    ? read_rate(p.packed, p.packed_bytes) / bytes_a_mac
                        : ceiling ? ceiling_rate(ceiling)
                                  : 1.0;
        rates[samples] = product_rate(&p, times);
        shares[samples] = rates[samples] / tops[samples];
    } while (++samples < SAMPLES_MAX && now_seconds(CLOCK_MONOTONIC) < until);
    printf("  %-5s %4zu x %4zu x %4zu  %7.1f G/s", TYPE_NAMES[type], m, n, k, median(rates, samples));
    if (m == 1)
        printf("  %4.0f %% of %6.1f GB/s read", 100.0 * median(shares, samples), median(tops, samples) * bytes_a_mac);
    else if (ceiling)
        printf("  %4.0f %% of %6.1f %s", 100.0 * median(shares, samples), median(tops, samples), ceiling->name);
    printf("\n");
    for (size_t i = 0; i < m * n * ELEM_BYTES[type]; i++)
        checksum = checksum * 31 + ((const uint8_t *)p.out)[i];
    checksum += p.seen.elems + (uint64_t)(p.seen.max > 0.0f);
done:
    product_free(&p);
    return good;
}

int main(int argc, char **argv)
{
    const size_t shapes[][3] = {{1024, 1024, 1024}, {128, 384, 384},  {128, 1536, 384}, {128, 384, 1536},
                                {132, 384, 384},    {132, 1536, 384}, {132, 384, 1536}, {3136, 64, 64},
                                {196, 256, 1024},   {784, 128, 512},  {4, 1024, 256},   {1, 4096, 4096}};
    double seconds = argc > 1 ? atof(argv[1]) : 0.2;
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        if (!kernels || (argc > 2 && strcmp(argv[2], kernels->isa_name) != 0))
            continue;
        printf("%s\n", kernels->isa_name);
        for (int type = 0; type < TYPES && (type != FLOAT32 || isa != QD_ISA_AMX); type++) /* that is AVX512's */
            for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
                if (!measure((enum qd_isa)isa, type, shapes[i][0], shapes[i][1], shapes[i][2], seconds))
                    return 1;
    }
    printf("checksum %016llx\n", (unsigned long long)checksum);
    return 0;
}
