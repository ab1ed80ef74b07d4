/* s16 x s8 or s16 matrix product by vpmaddwd and vpaddd: two multiply-adds a lane. All of it is gemm_q16_simd.h. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/gemm_q16_simd.h"

enum { MR = TILE_ROWS, NR = TILE_COLS, KR = 2 };

static size_t packed_bytes(size_t n, size_t k) { return q16_packed_bytes(n, k, NR); }

static void pack(size_t n, size_t k, const int8_t *w8, const int16_t *w16, size_t row_stride, size_t col_stride,
                 void *packed)
{
    q16_pack(n, k, NR, w8, w16, row_stride, col_stride, packed);
}

Q16_TILE_OF(1)
Q16_TILE_OF(2)
Q16_TILE_OF(3)
Q16_TILE_OF(4)
Q16_TILE_OF(5)
Q16_TILE_OF(6)

static void (*const TILES[])(const struct q16_tile *t) = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};

static void run(const struct qd_gemm_args *args) { q16_run(TILES, args); }

const struct qd_gemm_q16 qd_gemm_q16__avx2 = {
    .name = "qd_gemm_s16_6x16x2__avx2",
    .mr = MR,
    .nr = NR,
    .kr = KR,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = q16_scratch_bytes,
    .run = run,
};
