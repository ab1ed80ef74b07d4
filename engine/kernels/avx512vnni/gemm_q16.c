/* s16 x s8 or s16 matrix product by vpdpwssd: two multiply-adds a lane. All of it is gemm_q16_simd.h. */
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
Q16_TILE_OF(7)
Q16_TILE_OF(8)
Q16_TILE_OF(9)
Q16_TILE_OF(10)
Q16_TILE_OF(11)
Q16_TILE_OF(12)

static void (*const TILES[])(const struct q16_tile *t) = {tile_1, tile_2, tile_3, tile_4,  tile_5,  tile_6,
                                                          tile_7, tile_8, tile_9, tile_10, tile_11, tile_12};

static void run(const struct qd_gemm_args *args) { q16_run(TILES, args); }

const struct qd_gemm_q16 qd_gemm_q16__avx512vnni = {
    .name = "qd_gemm_s16_12x32x2__avx512vnni",
    .mr = MR,
    .nr = NR,
    .kr = KR,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = q16_scratch_bytes,
    .run = run,
};
