/* Multiply-adds a second of gemm_q8 (u8 out, observed) and gemm_f32 (float out) per level and shape, one thread, beside
 * the ceiling of the level's best instruction measured in the same run. Every result enters the checksum printed at the
 * end, so that nothing can be left out. `bench_kernels [seconds per shape]`. */
#include "base/mem.h"
#include "engine/kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t checksum;

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Twelve independent accumulators held in registers by the assembler constraints: in plain C they are merged. */
#define TWELVE(one) one(0) one(1) one(2) one(3) one(4) one(5) one(6) one(7) one(8) one(9) one(10) one(11)
#define DPBUSD(i)   "vpdpbusd %%zmm30, %%zmm31, %%zmm" #i "\n\t"
#define FMA512(i)   "vfmadd231ps %%zmm30, %%zmm31, %%zmm" #i "\n\t"
#define FMA256(i)   "vfmadd231ps %%ymm14, %%ymm15, %%ymm" #i "\n\t"
/* vpmaddwd needs a place for the product: ymm12 and ymm13 in turns. */
#define MADD(i) "vpmaddwd %%ymm14, %%ymm15, %%ymm12\n\tvpaddd %%ymm12, %%ymm" #i ", %%ymm" #i "\n\t"
#define CLOBBERS                                                                                                       \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",         \
        "xmm14", "xmm15"

static void loop_dpbusd(uint64_t n)
{
    __asm__ volatile("1:\n\t" TWELVE(DPBUSD) "dec %0\n\tjnz 1b" : "+r"(n)::CLOBBERS);
}
static void loop_fma512(uint64_t n)
{
    __asm__ volatile("1:\n\t" TWELVE(FMA512) "dec %0\n\tjnz 1b" : "+r"(n)::CLOBBERS);
}
static void loop_fma256(uint64_t n)
{
    __asm__ volatile("1:\n\t" TWELVE(FMA256) "dec %0\n\tjnz 1b" : "+r"(n)::CLOBBERS);
}
static void loop_madd(uint64_t n) { __asm__ volatile("1:\n\t" TWELVE(MADD) "dec %0\n\tjnz 1b" : "+r"(n)::CLOBBERS); }

static const struct {
    const char *q8_name, *f32_name;
    void (*q8)(uint64_t), (*f32)(uint64_t);
    double q8_macs, f32_macs; /* an instruction */
} CEILINGS[QD_ISA_COUNT] = {
    [QD_ISA_AVX2] = {"vpmaddwd + vpaddd ymm", "vfmadd231ps ymm", loop_madd, loop_fma256, 16, 8},
    [QD_ISA_AVX512VNNI] = {"vpdpbusd zmm", "vfmadd231ps zmm", loop_dpbusd, loop_fma512, 64, 16},
};

static double ceiling_gmacs(void (*loop)(uint64_t), double macs)
{
    double best = 0.0;
    for (int i = 0; i < 5; i++) {
        uint64_t n = 2000000;
        double start = now_seconds();
        loop(n);
        double rate = (double)n * 12.0 * macs / (now_seconds() - start) * 1e-9;
        best = rate > best ? rate : best;
    }
    return best;
}

struct work {
    void *a, *b, *packed, *scratch, *out;
    float *ones;
    int32_t *sums;
};

/* Best of many runs: the machine is shared. Returns 0 when memory is out. */
static double gemm_gmacs(const struct qd_kernels *kernels, size_t m, size_t n, size_t k, bool integer, double seconds)
{
    const struct qd_gemm_q8 *q8 = &kernels->gemm_q8;
    const struct qd_gemm_f32 *f32 = &kernels->gemm_f32;
    size_t elem = integer ? 1 : sizeof(float);
    struct work w = {qd_alloc_aligned(m * k * elem),
                     qd_alloc_aligned(n * k * elem),
                     qd_alloc_aligned(integer ? q8->packed_bytes(n, k) : f32->packed_bytes(n, k)),
                     qd_alloc_aligned(integer ? q8->scratch_bytes(k) : f32->scratch_bytes(k)),
                     qd_alloc_aligned(m * n * elem),
                     qd_calloc(n, sizeof(float)),
                     qd_calloc(n, sizeof(int32_t))};
    double best = 0.0;
    if (!w.a || !w.b || !w.packed || !w.scratch || !w.out || !w.ones || !w.sums)
        goto fail;
    for (size_t j = 0; j < n; j++)
        w.ones[j] = 0.001f;
    for (size_t i = 0; i < m * k; i++)
        if (integer)
            ((uint8_t *)w.a)[i] = (uint8_t)(i * 37 >> 3);
        else
            ((float *)w.a)[i] = (float)(i % 13) - 6.0f;
    for (size_t i = 0; i < n * k; i++)
        if (integer)
            ((int8_t *)w.b)[i] = (int8_t)(i * 73 >> 4);
        else
            ((float *)w.b)[i] = (float)(i % 11) - 5.0f;
    if (integer)
        q8->pack(n, k, w.b, k, 1, w.packed, w.sums);
    else
        f32->pack(n, k, w.b, k, 1, NULL, w.packed);
    const struct qd_qparams qp = {1e4f, 128, 0, 255};
    struct qd_observation seen = qd_observation_empty();
    struct qd_gemm_args args = {.m = m,
                                .n = n,
                                .k = k,
                                .row_end = m,
                                .col_end = n,
                                .b = w.packed,
                                .scratch = w.scratch,
                                .a = {.base = w.a, .stride_bytes = k * elem, .taps = 1, .tap_bytes = k * elem},
                                .epilogue = {.acc_init = w.sums,
                                             .scale = w.ones,
                                             .bias = w.ones,
                                             .out = w.out,
                                             .out_stride_elems = n,
                                             .quantize = integer ? &qp : NULL,
                                             .observe = integer ? &seen : NULL}};
    double until = now_seconds() + seconds;
    do {
        double start = now_seconds();
        if (integer)
            q8->run(&args);
        else
            f32->run(&args);
        double rate = (double)m * (double)n * (double)k / (now_seconds() - start) * 1e-9;
        best = rate > best ? rate : best;
    } while (now_seconds() < until);
    for (size_t i = 0; i < m * n * elem; i++)
        checksum = checksum * 31 + ((const uint8_t *)w.out)[i];
    checksum += seen.elems + (uint64_t)(seen.max > 0.0f);
fail:
    qd_free(w.a);
    qd_free(w.b);
    qd_free(w.packed);
    qd_free(w.scratch);
    qd_free(w.out);
    qd_free(w.ones);
    qd_free(w.sums);
    return best;
}

int main(int argc, char **argv)
{
    const size_t shapes[][3] = {{132, 384, 384},    {132, 1536, 384}, {132, 384, 1536},
                                {1024, 1024, 1024}, {3132, 64, 64},   {1, 4096, 4096}};
    double seconds = argc > 1 ? atof(argv[1]) : 0.2;
    for (int isa = 0; isa < QD_ISA_COUNT; isa++) {
        const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)isa);
        if (!kernels)
            continue;
        double q8_most = 0.0, f32_most = 0.0;
        printf("%s\n", kernels->isa_name);
        if (CEILINGS[isa].q8) {
            q8_most = ceiling_gmacs(CEILINGS[isa].q8, CEILINGS[isa].q8_macs);
            f32_most = ceiling_gmacs(CEILINGS[isa].f32, CEILINGS[isa].f32_macs);
            printf("  ceilings: %s %.1f G/s, %s %.1f G/s\n", CEILINGS[isa].q8_name, q8_most, CEILINGS[isa].f32_name,
                   f32_most);
        }
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            size_t m = shapes[i][0], n = shapes[i][1], k = shapes[i][2];
            double q8 = gemm_gmacs(kernels, m, n, k, true, seconds), f32 = gemm_gmacs(kernels, m, n, k, false, seconds);
            printf("  %4zu x %4zu x %4zu: int8 %6.1f G/s", m, n, k, q8);
            if (q8_most > 0.0)
                printf(" (%.0f %%)", 100.0 * q8 / q8_most);
            printf(", float %6.1f G/s", f32);
            if (f32_most > 0.0)
                printf(" (%.0f %%)", 100.0 * f32 / f32_most);
            printf("\n");
        }
    }
    printf("checksum %016llx\n", (unsigned long long)checksum);
    return 0;
}
