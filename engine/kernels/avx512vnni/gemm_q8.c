/* u8 x s8 -> s32 matrix product by vpdpbusd: four multiply-adds a lane, exact. Tiles of 12 rows by 32 columns: 24
 * registers of accumulators, two of B, one of A. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/gemm_run_simd.h"

enum { MR = TILE_ROWS, NR = TILE_COLS, KR = 4 };

static size_t units_of(size_t k) { return (k + KR - 1) / KR; }

static size_t packed_bytes(size_t n, size_t k) { return (n + NR - 1) / NR * NR * units_of(k) * KR; }

/* Sums of the columns of a panel, by a product with ones. */
static void panel_sums(const int8_t *panel, size_t units, int32_t *sums)
{
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i low = _mm512_setzero_si512(), high = low;
    for (size_t unit = 0; unit < units; unit++, panel += NR * KR) {
        low = _mm512_dpbusd_epi32(low, ones, _mm512_loadu_si512(panel));
        high = _mm512_dpbusd_epi32(high, ones, _mm512_loadu_si512(panel + 64));
    }
    _mm512_storeu_si512(sums, low);
    _mm512_storeu_si512(sums + 16, high);
}

/* Depth is contiguous: units of four bytes are transposed as if they were floats. */
static void panel_of_rows(size_t units, const int8_t *w, size_t row_stride, int8_t *to)
{
    qd_transpose_f32__avx2((const float *)(const void *)w, row_stride / 4, NR, units, (float *)(void *)to, NR);
}

/* Columns are contiguous: the bytes of four rows are interleaved. */
static void panel_of_columns(size_t units, const int8_t *w, size_t col_stride, int8_t *to)
{
    const __m512i order = _mm512_setr_epi64(0, 1, 4, 5, 2, 3, 6, 7);
    for (size_t unit = 0; unit < units; unit++, w += KR * col_stride, to += NR * KR) {
        __m256i row[KR];
        for (size_t p = 0; p < KR; p++)
            row[p] = _mm256_loadu_si256((const __m256i *)(const void *)(w + p * col_stride));
        const __m256i ab_low = _mm256_unpacklo_epi8(row[0], row[1]), ab_high = _mm256_unpackhi_epi8(row[0], row[1]);
        const __m256i cd_low = _mm256_unpacklo_epi8(row[2], row[3]), cd_high = _mm256_unpackhi_epi8(row[2], row[3]);
        /* columns 0..3 and 16..19, 4..7 and 20..23, 8..11 and 24..27, 12..15 and 28..31 */
        const __m512i first = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_unpacklo_epi16(ab_low, cd_low)),
                                                 _mm256_unpackhi_epi16(ab_low, cd_low), 1);
        const __m512i second = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_unpacklo_epi16(ab_high, cd_high)),
                                                  _mm256_unpackhi_epi16(ab_high, cd_high), 1);
        const __m512i x = _mm512_permutexvar_epi64(order, first), y = _mm512_permutexvar_epi64(order, second);
        _mm512_storeu_si512(to, _mm512_inserti64x4(x, _mm512_castsi512_si256(y), 1));
        _mm512_storeu_si512(to + 64, _mm512_inserti64x4(y, _mm512_extracti64x4_epi64(x, 1), 0));
    }
}

/* One column of a panel, element by element. */
static void pack_column(size_t k, const int8_t *w, size_t col_stride, int8_t *to, int32_t *sum)
{
    *sum = 0;
    for (size_t p = 0; p < units_of(k) * KR; p++) {
        const int8_t weight = p < k ? w[p * col_stride] : 0;
        *sum += weight;
        to[p / KR * NR * KR + p % KR] = weight;
    }
}

/* Panels of 32 columns: [unit of four deep][column][4]. */
static void pack(size_t n, size_t k, const int8_t *w, size_t row_stride, size_t col_stride, void *packed, int32_t *sums)
{
    const size_t units = units_of(k);
    const bool rows = col_stride == 1 && row_stride % KR == 0 && k % KR == 0 && (uintptr_t)w % KR == 0;
    const bool columns = row_stride == 1 && k % KR == 0;
    for (size_t col = 0; col < n; col += NR) {
        int8_t *to = (int8_t *)packed + col * units * KR;
        const int8_t *from = w + col * row_stride;
        if (n - col >= NR && (rows || columns)) {
            if (rows)
                panel_of_rows(units, from, row_stride, to);
            else
                panel_of_columns(units, from, col_stride, to);
            panel_sums(to, units, sums + col);
            continue;
        }
        if (n - col < NR)
            memset(to, 0, units * KR * NR);
        for (size_t j = 0; j < NR && col + j < n; j++)
            pack_column(k, from + j * row_stride, col_stride, to + j * KR, sums + col + j);
    }
}

TILE_OF(tile, DOT_U8S8, 1, 1)
TILE_OF(tile, DOT_U8S8, 2, 1)
TILE_OF(tile, DOT_U8S8, 3, 1)
TILE_OF(tile, DOT_U8S8, 4, 1)
TILE_OF(tile, DOT_U8S8, 5, 1)
TILE_OF(tile, DOT_U8S8, 6, 1)
TILE_OF(tile, DOT_U8S8, 7, 1)
TILE_OF(tile, DOT_U8S8, 8, 1)
TILE_OF(tile, DOT_U8S8, 9, 1)
TILE_OF(tile, DOT_U8S8, 10, 1)
TILE_OF(tile, DOT_U8S8, 11, 1)
TILE_OF(tile, DOT_U8S8, 12, 1)
TAPS_OF(taps, DOT_U8S8, 1)
TAPS_OF(taps, DOT_U8S8, 2)
TAPS_OF(taps, DOT_U8S8, 3)
TAPS_OF(taps, DOT_U8S8, 4)
TAPS_OF(taps, DOT_U8S8, 5)
TAPS_OF(taps, DOT_U8S8, 6)
TAPS_OF(taps, DOT_U8S8, 7)
TAPS_OF(taps, DOT_U8S8, 8)
TAPS_OF(taps, DOT_U8S8, 9)
TAPS_OF(taps, DOT_U8S8, 10)
TAPS_OF(taps, DOT_U8S8, 11)
TAPS_OF(taps, DOT_U8S8, 12)

static void wide(const struct tile *t) { tile_wide(DOT_U8S8, 1, t); }

static void (*const TILES[])(const struct tile *t) = {tile_1, tile_2, tile_3, tile_4,  tile_5,  tile_6,
                                                      tile_7, tile_8, tile_9, tile_10, tile_11, tile_12};
static void (*const TAPS[])(const struct tile *t) = {taps_1, taps_2, taps_3, taps_4,  taps_5,  taps_6,
                                                     taps_7, taps_8, taps_9, taps_10, taps_11, taps_12};

static const struct gemm_shape SHAPE = {
    .mr = MR, .tiles = TILES, .taps = TAPS, .wide = wide, .integer = true, .product_max = 255 * 128, .growth = 1};

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
