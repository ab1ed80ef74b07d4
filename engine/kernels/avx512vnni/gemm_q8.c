/* u8 x s8 -> s32 matrix product by vpdpbusd: four multiply-adds a lane, exact. Tiles of 12 rows by 32 columns: 24
 * registers of accumulators, two of B, one of A. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/gemm_run_simd.h"

enum { MR = TILE_ROWS, NR = TILE_COLS, KR = 4 };

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

static void run(const struct qd_gemm_args *args) { gemm_run(&SHAPE, args, units_of(args->k), 0); }

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
