/* Float matrix product, tiles of 6 rows by 16 columns. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/gemm_simd.h"

enum { MR = 6, NR = 16 };

static size_t packed_bytes(size_t n, size_t k) { return (n + NR - 1) / NR * NR * k * sizeof(float); }

static void pack(size_t n, size_t k, const float *w, size_t row_stride, size_t col_stride, const float *factor,
                 void *packed)
{
    float *to = packed;
    for (size_t col = 0; col < n; col += NR)
        for (size_t p = 0; p < k; p++)
            for (size_t j = col; j < col + NR; j++)
                *to++ = j < n ? w[j * row_stride + p * col_stride] * (factor ? factor[j] : 1.0f) : 0.0f;
}

/* `rows` is a constant wherever this is inlined. One fused chain an output, p ascending: the bits depend on k only. */
QD_INLINE void tile_rows(const size_t rows, size_t units, const void *a_panel, const void *b_panel, int32_t *acc)
{
    const size_t lanes = gemm_lanes(rows);
    const float *a = a_panel, *b = b_panel;
    vf sum[MR][2];
#pragma GCC unroll 6
    for (size_t i = 0; i < rows; i++)
        sum[i][0] = sum[i][1] = vf_set(0.0f);
    for (size_t unit = 0; unit < units; unit++, a += lanes, b += NR) {
        const vf b0 = vf_load(b), b1 = vf_load(b + NR / 2);
#pragma GCC unroll 6
        for (size_t i = 0; i < rows; i++) {
            const vf x = vf_set(a[i]);
            sum[i][0] = vf_fma(x, b0, sum[i][0]);
            sum[i][1] = vf_fma(x, b1, sum[i][1]);
        }
    }
#pragma GCC unroll 6
    for (size_t i = 0; i < rows; i++) {
        vf_store((float *)(void *)acc + i * NR, sum[i][0]);
        vf_store((float *)(void *)acc + i * NR + NR / 2, sum[i][1]);
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
    default:
        tile_rows(MR, units, a, b, acc);
        break;
    }
}

static const struct gemm_shape SHAPE = {.mr = MR, .nr = NR, .unit_bytes = UNIT_BYTES, .integer = false, .tile = tile};

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
