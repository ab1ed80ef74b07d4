/* u8 x s8 -> s32 matrix product where there is no VNNI: both sides widened to 16 bits, vpmaddwd, exact (vpmaddubsw
 * would saturate). Tiles of 5 rows by 16 columns: ten registers of accumulators; with six rows gcc 12 keeps some in
 * memory. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/gemm_simd.h"

enum { MR = 5, NR = 16, KR = 4 };

static size_t units_of(size_t k) { return (k + KR - 1) / KR; }

static size_t packed_bytes(size_t n, size_t k) { return (n + NR - 1) / NR * NR * units_of(k) * KR; }

/* Panels of 16 columns: [unit of four deep][pair][column][2], as bytes: widened when they are read, for memory costs
 * more. */
static void pack(size_t n, size_t k, const int8_t *w, size_t row_stride, size_t col_stride, void *packed, int32_t *sums)
{
    int8_t *to = packed;
    for (size_t j = 0; j < n; j++)
        sums[j] = 0;
    for (size_t col = 0; col < n; col += NR)
        for (size_t unit = 0; unit < units_of(k); unit++)
            for (size_t pair = unit * KR; pair < unit * KR + KR; pair += 2)
                for (size_t j = col; j < col + NR; j++)
                    for (size_t p = pair; p < pair + 2; p++) {
                        int8_t weight = j < n && p < k ? w[j * row_stride + p * col_stride] : 0;
                        if (j < n)
                            sums[j] += weight;
                        *to++ = weight;
                    }
}

/* `rows` is a constant wherever this is inlined; two vectors of accumulators a row. Pair sums of at most 2 * 255 * 128
 * are exact. */
QD_INLINE void tile_rows(const size_t rows, size_t units, const void *a_panel, const void *b_panel, int32_t *acc)
{
    const size_t lanes = gemm_lanes(rows);
    const uint8_t *a = a_panel;
    const int8_t *b = b_panel;
    __m256i sum[MR][2];
#pragma GCC unroll 5
    for (size_t i = 0; i < rows; i++)
        sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    for (size_t unit = 0; unit < units; unit++, a += lanes * KR * 2)
        for (size_t pair = 0; pair < KR / 2; pair++, b += NR * 2) {
            const __m256i b0 = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)b));
            const __m256i b1 = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(b + 16)));
#pragma GCC unroll 5
            for (size_t i = 0; i < rows; i++) {
                int32_t two;
                memcpy(&two, a + i * KR * 2 + pair * 4, sizeof two);
                const __m256i x = _mm256_set1_epi32(two);
                sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(x, b0));
                sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(x, b1));
            }
        }
#pragma GCC unroll 5
    for (size_t i = 0; i < rows; i++) {
        _mm256_storeu_si256((__m256i *)(void *)(acc + i * NR), sum[i][0]);
        _mm256_storeu_si256((__m256i *)(void *)(acc + i * NR + 8), sum[i][1]);
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
    default:
        tile_rows(MR, units, a, b, acc);
        break;
    }
}

static const struct gemm_shape SHAPE = {
    .mr = MR, .nr = NR, .unit_bytes = 2 * UNIT_BYTES, .integer = true, .tile = tile};

static size_t scratch_bytes(size_t k) { return gemm_scratch_bytes(&SHAPE, units_of(k)); }

static void run(const struct qd_gemm_args *args) { gemm_run(&SHAPE, args, units_of(args->k)); }

const struct qd_gemm_q8 qd_gemm_q8__avx2 = {
    .name = "qd_gemm_u8s8_5x16x4__avx2",
    .mr = MR,
    .nr = NR,
    .kr = KR,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
