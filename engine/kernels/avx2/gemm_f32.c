/* Float matrix product, tiles of 6 rows by 16 columns. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/gemm_run_simd.h"
#include "engine/kernels/pack_simd.h"

enum { MR = TILE_ROWS, NR = TILE_COLS };

static size_t packed_bytes(size_t n, size_t k) { return (n + NR - 1) / NR * NR * k * sizeof(float); }

static void pack(size_t n, size_t k, const float *w, size_t row_stride, size_t col_stride, const float *factor,
                 void *packed)
{
    const size_t done = factor ? 0 : pack_panels_f32(n, k, w, row_stride, col_stride, packed);
    float *to = (float *)packed + done * k;
    for (size_t col = done; col < n; col += NR)
        for (size_t p = 0; p < k; p++)
            for (size_t j = col; j < col + NR; j++)
                *to++ = j < n ? w[j * row_stride + p * col_stride] * (factor ? factor[j] : 1.0f) : 0.0f;
}

/* One fused chain an output, k ascending: the bits depend on k only. */
TILE_OF(tile, DOT_F32, 1, 1)
TILE_OF(tile, DOT_F32, 2, 1)
TILE_OF(tile, DOT_F32, 3, 1)
TILE_OF(tile, DOT_F32, 4, 1)
TILE_OF(tile, DOT_F32, 5, 1)
TILE_OF(tile, DOT_F32, 6, 1)
TAPS_OF(taps, DOT_F32, 1)
TAPS_OF(taps, DOT_F32, 2)
TAPS_OF(taps, DOT_F32, 3)
TAPS_OF(taps, DOT_F32, 4)
TAPS_OF(taps, DOT_F32, 5)
TAPS_OF(taps, DOT_F32, 6)

static void wide(const struct tile *t) { tile_wide(DOT_F32, 1, t); }

static void (*const TILES[])(const struct tile *t) = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
static void (*const TAPS[])(const struct tile *t) = {taps_1, taps_2, taps_3, taps_4, taps_5, taps_6};

static const struct gemm_shape SHAPE = {
    .mr = MR, .tiles = TILES, .taps = TAPS, .wide = wide, .integer = false, .growth = 1};

static size_t scratch_bytes(size_t k) { return gemm_scratch_bytes(&SHAPE, k); }

static void run(const struct qd_gemm_args *args) { gemm_run(&SHAPE, args, args->k); }

const struct qd_gemm_f32 qd_gemm_f32__avx2 = {
    .name = "qd_gemm_f32_6x16__avx2",
    .mr = MR,
    .nr = NR,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
