/* Which kernels run here: what the CPU has (CPUID), what the operating system saves (XCR0), what QUANTD_ISA leaves. One
 * table per level is built and checked once and is const afterwards. Compiled without any ISA's flags; holds no kernel.
 */
#include "engine/kernels/dispatch.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Bits of XCR0: state that the operating system saves from thread to thread. */
enum { XCR0_YMM = 0x06, XCR0_ZMM = 0xe6, XCR0_TILES = 0x60000 };
/* CPUID leaf 1 ecx; leaf 7 ebx, ecx and edx. */
enum { CPU1_FMA = 1 << 12, CPU1_POPCNT = 1 << 23, CPU1_OSXSAVE = 1 << 27, CPU1_AVX = 1 << 28, CPU1_F16C = 1 << 29 };
enum {
    CPU7_AVX2 = 1 << 5,
    CPU7_AVX512F = 1 << 16,
    CPU7_AVX512DQ = 1 << 17,
    CPU7_AVX512BW = 1 << 30,
    CPU7_VNNI = 1 << 11,
    CPU7_AMX_TILE = 1 << 24,
    CPU7_AMX_INT8 = 1 << 25
};
static const unsigned CPU7_AVX512VL = 1u << 31;

static bool has_all(unsigned value, unsigned bits) { return (value & bits) == bits; }

static unsigned read_xcr0(void)
{
    unsigned low, high;
    /* The intrinsic needs a compiler flag that would let the compiler use more than the oldest CPU has. */
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* Linux keeps tiles from a process until it asks for them (arch_prctl, ARCH_REQ_XCOMP_PERM), for all its threads. */
static bool tiles_permitted(void)
{
#if defined(__linux__)
    enum { REQUEST = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}

static enum qd_isa detect(void)
{
    unsigned a, b, c, d, b7, c7, d7 = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_all(c, CPU1_OSXSAVE | CPU1_AVX))
        return QD_ISA_SCALAR;
    unsigned xcr0 = read_xcr0();
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) || !has_all(b7, CPU7_AVX2) || !has_all(xcr0, XCR0_YMM) ||
        !has_all(c, CPU1_FMA | CPU1_POPCNT | CPU1_F16C))
        return QD_ISA_SCALAR;
    if (!has_all(b7, CPU7_AVX512F | CPU7_AVX512DQ | CPU7_AVX512BW | CPU7_AVX512VL) || !has_all(c7, CPU7_VNNI) ||
        !has_all(xcr0, XCR0_ZMM))
        return QD_ISA_AVX2;
    if (!has_all(d7, CPU7_AMX_TILE | CPU7_AMX_INT8) || !has_all(xcr0, XCR0_TILES) || !tiles_permitted())
        return QD_ISA_AVX512VNNI;
    return QD_ISA_AMX;
}
#else
static enum qd_isa detect(void) { return QD_ISA_SCALAR; }
#endif

static const struct {
    const char *name;
    void (*init)(struct qd_kernels *kernels);
} LEVELS[QD_ISA_COUNT] = {
    [QD_ISA_SCALAR] = {"scalar", qd_kernels_init__scalar},
#if defined(__x86_64__)
    [QD_ISA_AVX2] = {"avx2", qd_kernels_init__avx2},
    [QD_ISA_AVX512VNNI] = {"avx512vnni", qd_kernels_init__avx512vnni},
    [QD_ISA_AMX] = {"amx", qd_kernels_init__amx},
#else
    [QD_ISA_AVX2] = {"avx2", NULL},
    [QD_ISA_AVX512VNNI] = {"avx512vnni", NULL},
    [QD_ISA_AMX] = {"amx", NULL},
#endif
};

static struct {
    pthread_once_t once;
    enum qd_isa best;
    struct qd_kernels tables[QD_ISA_COUNT];
} state = {.once = PTHREAD_ONCE_INIT};

static void build_tables(void)
{
    state.best = detect();
    for (unsigned level = 0; level <= (unsigned)state.best; level++) {
        if (level)
            state.tables[level] = state.tables[level - 1];
        LEVELS[level].init(&state.tables[level]);
    }
}

enum qd_status qd_kernels_check(const struct qd_kernels *kernels, struct qd_error *error)
{
    const struct qd_gemm_q8 *q8 = &kernels->gemm_q8;
    const struct qd_gemm_q16 *q16 = &kernels->gemm_q16;
    const struct qd_gemm_f32 *f32 = &kernels->gemm_f32;
    const struct qd_depthwise_q8 *depth_q8 = &kernels->depthwise_q8;
    const struct qd_depthwise_f32 *depth_f32 = &kernels->depthwise_f32;
    const struct {
        const char *what;
        bool good;
    } rows[] = {
        {"isa_name", kernels->isa_name != NULL},
        {"gemm_q8: a NULL member", q8->name && q8->packed_bytes && q8->pack && q8->scratch_bytes && q8->run},
        {"gemm_q8: a tile without size", q8->mr && q8->nr && q8->kr},
        {"gemm_q16: a NULL member", q16->name && q16->packed_bytes && q16->pack && q16->scratch_bytes && q16->run},
        {"gemm_q16: a tile without size", q16->mr && q16->nr && q16->kr},
        {"gemm_f32: a NULL member", f32->name && f32->packed_bytes && f32->pack && f32->scratch_bytes && f32->run},
        {"gemm_f32: a tile without size", f32->mr && f32->nr},
        {"depthwise_q8: a NULL member", depth_q8->name && depth_q8->packed_bytes && depth_q8->pack && depth_q8->run},
        {"depthwise_f32: a NULL member",
         depth_f32->name && depth_f32->packed_bytes && depth_f32->pack && depth_f32->run},
        {"depthwise: a tile without size", depth_q8->tile && depth_f32->tile},
        {"quantize_u8", kernels->quantize_u8 != NULL},
        {"quantize_s16", kernels->quantize_s16 != NULL},
        {"quantize_rows_u8", kernels->quantize_rows_u8 != NULL},
        {"sum_rows_u8", kernels->sum_rows_u8 != NULL},
        {"dequantize_u8", kernels->dequantize_u8 != NULL},
        {"observe_f32", kernels->observe_f32 != NULL},
        {"max_rows_u8", kernels->max_rows_u8 != NULL},
        {"max_rows_f32", kernels->max_rows_f32 != NULL},
        {"mean_rows_f32", kernels->mean_rows_f32 != NULL},
        {"mean_rows_u8", kernels->mean_rows_u8 != NULL},
        {"weigh_rows_f32", kernels->weigh_rows_f32 != NULL},
        {"quantize_columns_s8", kernels->quantize_columns_s8 != NULL},
        {"join_rows", kernels->join_rows != NULL},
        {"exp_rows_f32", kernels->exp_rows_f32 != NULL},
        {"exp_rows_u16", kernels->exp_rows_u16 != NULL},
        {"transpose_u8", kernels->transpose_u8 != NULL},
        {"transpose_f32", kernels->transpose_f32 != NULL},
        {"pointwise", kernels->pointwise != NULL},
        {"layer_norm", kernels->layer_norm != NULL},
        {"rms_norm", kernels->rms_norm != NULL},
        {"softmax", kernels->softmax != NULL},
        {"moments", kernels->moments != NULL},
        {"centre", kernels->centre != NULL},
        {"reduce_rows", kernels->reduce_rows != NULL},
        {"reduce_columns", kernels->reduce_columns != NULL},
        {"lstm_gates", kernels->lstm_gates != NULL},
        {"gru_reset", kernels->gru_reset != NULL},
        {"gru_gates", kernels->gru_gates != NULL},
        {"rnn_gates", kernels->rnn_gates != NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!rows[i].good)
            return qd_fail(error, QD_ERR_INTERNAL, "kernel table %s: %s", kernels->isa_name ? kernels->isa_name : "?",
                           rows[i].what);
    /* One whole tile and one column more: what is packed must be whole tiles. */
    size_t depth = q8->kr, n = q8->nr + 1;
    if (q8->packed_bytes(q8->nr, depth) < q8->nr * depth || q8->packed_bytes(n, depth + 1) < 2 * q8->nr * (depth + 1))
        return qd_fail(error, QD_ERR_INTERNAL, "%s: packed_bytes is smaller than its tiles", q8->name);
    if (f32->packed_bytes(f32->nr + 1, 1) < 2 * f32->nr * sizeof(float))
        return qd_fail(error, QD_ERR_INTERNAL, "%s: packed_bytes is smaller than its tiles", f32->name);
    return QD_OK;
}

const char *qd_isa_name(enum qd_isa isa) { return (unsigned)isa < QD_ISA_COUNT ? LEVELS[isa].name : "unknown"; }

const struct qd_kernels *qd_kernels_at(enum qd_isa isa)
{
    pthread_once(&state.once, build_tables);
    return (unsigned)isa <= (unsigned)state.best ? &state.tables[isa] : NULL;
}

enum qd_status qd_kernels_get(const struct qd_kernels **out, struct qd_error *error)
{
    pthread_once(&state.once, build_tables);
    enum qd_isa level = state.best;
    const char *mask = getenv("QUANTD_ISA");
    if (mask && *mask) {
        unsigned wanted = 0;
        while (wanted < QD_ISA_COUNT && strcmp(mask, LEVELS[wanted].name) != 0)
            wanted++;
        if (wanted == QD_ISA_COUNT)
            return qd_fail(error, QD_ERR_INVALID, "QUANTD_ISA is \"%s\"; known are scalar, avx2, avx512vnni, amx",
                           mask);
        level = wanted < (unsigned)level ? (enum qd_isa)wanted : level;
    }
    enum qd_status status = qd_kernels_check(&state.tables[level], error);
    if (status == QD_OK)
        *out = &state.tables[level];
    return status;
}
