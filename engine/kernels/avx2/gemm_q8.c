/* u8 x s8 -> s32 matrix product where there is no VNNI: both sides widened to 16 bits, vpmaddwd, exact (vpmaddubsw
 * would saturate). Pair sums of at most 2 * 255 * 128 are exact. Tiles of 6 rows by 16 columns. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/gemm_run_simd.h"

enum { MR = TILE_ROWS, NR = TILE_COLS, KR = 4 };

static size_t units_of(size_t k) { return (k + KR - 1) / KR; }

static size_t packed_bytes(size_t n, size_t k) { return (n + NR - 1) / NR * NR * units_of(k) * KR; }

/* Panels of 16 columns: [unit of four deep][pair][column][2], as bytes: memory costs more than widening a block of it
 * for many rows. */
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

TILE_OF(tile, DOT_S16, 1, 1)
TILE_OF(tile, DOT_S16, 2, 1)
TILE_OF(tile, DOT_S16, 3, 1)
TILE_OF(tile, DOT_S16, 4, 1)
TILE_OF(tile, DOT_S16, 5, 1)
TILE_OF(tile, DOT_S16, 6, 1)
TILE_OF(narrow, DOT_S16, 1, 2)
TILE_OF(narrow, DOT_S16, 2, 2)
TILE_OF(narrow, DOT_S16, 3, 2)
TILE_OF(narrow, DOT_S16, 4, 2)
TILE_OF(narrow, DOT_S16, 5, 2)
TILE_OF(narrow, DOT_S16, 6, 2)

static void wide(const struct tile *t) { tile_wide(DOT_S16, 2, t); }

static void (*const TILES[])(const struct tile *t) = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
static void (*const NARROW[])(const struct tile *t) = {narrow_1, narrow_2, narrow_3, narrow_4, narrow_5, narrow_6};

static const struct gemm_shape SHAPE = {
    .mr = MR, .tiles = TILES, .wide = wide, .integer = true, .product_max = 255 * 128, .growth = 2, .narrow = NARROW};

static size_t scratch_bytes(size_t k) { return gemm_scratch_bytes(&SHAPE, 2 * units_of(k)); }

static void run(const struct qd_gemm_args *args) { gemm_run(&SHAPE, args, 2 * units_of(args->k)); }

const struct qd_gemm_q8 qd_gemm_q8__avx2 = {
    .name = "qd_gemm_u8s8_6x16x4__avx2",
    .mr = MR,
    .nr = NR,
    .kr = KR,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
