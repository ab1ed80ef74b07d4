/* u8 x s8 -> s32 matrix product by vpdpbusd: four multiply-adds a lane, exact. Tiles of 12 rows by 32 columns: 24
 * registers of accumulators, two of B, one of A. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/gemm_simd.h"

enum { MR = 12, NR = 32, KR = 4 };

static size_t units_of(size_t k) { return (k + KR - 1) / KR; }

static size_t packed_bytes(size_t n, size_t k) { return (n + NR - 1) / NR * NR * units_of(k) * KR; }

/* Panels of 32 columns: [unit of four deep][column][4]. */
static void pack(size_t n, size_t k, const int8_t *w, size_t row_stride, size_t col_stride, void *packed, int32_t *sums)
{
    int8_t *to = packed;
    for (size_t j = 0; j < n; j++)
        sums[j] = 0;
    for (size_t col = 0; col < n; col += NR)
        for (size_t unit = 0; unit < units_of(k); unit++)
            for (size_t j = col; j < col + NR; j++)
                for (size_t p = unit * KR; p < unit * KR + KR; p++) {
                    int8_t weight = j < n && p < k ? w[j * row_stride + p * col_stride] : 0;
                    if (j < n)
                        sums[j] += weight;
                    *to++ = weight;
                }
}

/* `rows` is a constant wherever this is inlined; two vectors of accumulators a row. */
QD_INLINE void tile_rows(const size_t rows, size_t units, const void *a_panel, const void *b_panel, int32_t *acc)
{
    const size_t lanes = gemm_lanes(rows);
    const uint8_t *a = a_panel;
    const int8_t *b = b_panel;
    __m512i sum[MR][2];
#pragma GCC unroll 12
    for (size_t i = 0; i < rows; i++)
        sum[i][0] = sum[i][1] = _mm512_setzero_si512();
    for (size_t unit = 0; unit < units; unit++, a += lanes * KR, b += NR * KR) {
        const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 64);
#pragma GCC unroll 12
        for (size_t i = 0; i < rows; i++) {
            int32_t four;
            memcpy(&four, a + i * KR, sizeof four);
            const __m512i x = _mm512_set1_epi32(four);
            sum[i][0] = _mm512_dpbusd_epi32(sum[i][0], x, b0);
            sum[i][1] = _mm512_dpbusd_epi32(sum[i][1], x, b1);
        }
    }
#pragma GCC unroll 12
    for (size_t i = 0; i < rows; i++) {
        _mm512_storeu_si512(acc + i * NR, sum[i][0]);
        _mm512_storeu_si512(acc + i * NR + 16, sum[i][1]);
    }
}

static void tile(size_t rows, size_t units, const void *a, const void *b, int32_t *acc)
{
    switch (rows) {
    case 1:
        tile_rows(1, units, a, b, acc);
        break;
    case 2:
        tile_rows(2, units, a, b, acc);
        break;
    case 3:
        tile_rows(3, units, a, b, acc);
        break;
    case 4:
        tile_rows(4, units, a, b, acc);
        break;
    case 5:
        tile_rows(5, units, a, b, acc);
        break;
    case 6:
        tile_rows(6, units, a, b, acc);
        break;
    case 7:
        tile_rows(7, units, a, b, acc);
        break;
    case 8:
        tile_rows(8, units, a, b, acc);
        break;
    case 9:
        tile_rows(9, units, a, b, acc);
        break;
    case 10:
        tile_rows(10, units, a, b, acc);
        break;
    case 11:
        tile_rows(11, units, a, b, acc);
        break;
    default:
        tile_rows(MR, units, a, b, acc);
        break;
    }
}

static const struct gemm_shape SHAPE = {.mr = MR, .nr = NR, .unit_bytes = UNIT_BYTES, .integer = true, .tile = tile};

static size_t scratch_bytes(size_t k) { return gemm_scratch_bytes(&SHAPE, units_of(k)); }

static void run(const struct qd_gemm_args *args) { gemm_run(&SHAPE, args, units_of(args->k)); }

const struct qd_gemm_q8 qd_gemm_q8__avx512vnni = {
    .name = "qd_gemm_u8s8_12x32x4__avx512vnni",
    .mr = MR,
    .nr = NR,
    .kr = KR,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
