/* s16 x s8 or s16 matrix product by vpmaddwd and vpaddd: two multiply-adds a lane. Weights of 16 bits are two planes
 * (pack_q16.h); sums that could leave int32 are continued in int64. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/gemm_run_simd.h"
#include "engine/kernels/pack_q16.h"

enum { MR = TILE_ROWS, NR = TILE_COLS, KR = 2 };

static size_t packed_bytes(size_t n, size_t k, bool wide) { return q16_packed_bytes(n, k, NR, wide); }

static void pack(size_t n, size_t k, const int8_t *w8, const int16_t *w16, size_t row_stride, size_t col_stride,
                 void *packed)
{
    q16_pack(n, k, NR, w8, w16, row_stride, col_stride, packed);
}

TILE_OF(tile, DOT_S16, 1, 1)
TILE_OF(tile, DOT_S16, 2, 1)
TILE_OF(tile, DOT_S16, 3, 1)
TILE_OF(tile, DOT_S16, 4, 1)
TILE_OF(tile, DOT_S16, 5, 1)
TILE_OF(tile, DOT_S16, 6, 1)
TAPS_OF(taps, DOT_S16, 1)
TAPS_OF(taps, DOT_S16, 2)
TAPS_OF(taps, DOT_S16, 3)
TAPS_OF(taps, DOT_S16, 4)
TAPS_OF(taps, DOT_S16, 5)
TAPS_OF(taps, DOT_S16, 6)

static void wide(const struct tile *t) { tile_wide(DOT_S16, 1, t); }

static void (*const TILES[])(const struct tile *t) = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
static void (*const TAPS[])(const struct tile *t) = {taps_1, taps_2, taps_3, taps_4, taps_5, taps_6};

static const struct gemm_shape SHAPE = {.mr = MR,
                                        .tiles = TILES,
                                        .taps = TAPS,
                                        .wide = wide,
                                        .integer = true,
                                        .continues = true,
                                        .product_max = 32768 * 128,
                                        .growth = 1};

static size_t scratch_bytes(size_t k) { return gemm_scratch_bytes(&SHAPE, q16_pairs(k)); }

static void run(const struct qd_gemm_args *args)
{
    struct qd_gemm_args plain = *args;
    plain.b = (const uint8_t *)args->b + Q16_HEAD_BYTES;
    plain.epilogue.acc_init = NULL;
    const uint32_t planes = ((const struct q16_head *)args->b)->planes;
    const size_t pairs = q16_pairs(args->k);
    gemm_run(&SHAPE, &plain, pairs, planes > 1 || pairs > Q16_PAIRS_MAX ? planes : 0);
}

const struct qd_gemm_q16 qd_gemm_q16__avx2 = {
    .name = "qd_gemm_s16_6x16x2__avx2",
    .mr = MR,
    .nr = NR,
    .kr = KR,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
