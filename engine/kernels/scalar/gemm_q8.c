/* u8 x s8 -> s32 matrix product in portable C: the second judge of every other ISA, and what runs where no ISA is
 * known. B stands in panels of four columns [k][4]; rows of A are read in place two at a time. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/epilogue.h"
#include "engine/kernels/rows.h"

enum { MR = 2, NR = 4 };

static size_t packed_bytes(size_t n, size_t k) { return (n + NR - 1) / NR * NR * k; }

static void pack(size_t n, size_t k, const int8_t *w, size_t row_stride, size_t col_stride, void *packed, int32_t *sums)
{
    int8_t *to = packed;
    for (size_t j = 0; j < n; j++)
        sums[j] = 0;
    for (size_t col = 0; col < n; col += NR)
        for (size_t p = 0; p < k; p++)
            for (size_t j = col; j < col + NR; j++) {
                int8_t weight = j < n ? w[j * row_stride + p * col_stride] : 0;
                if (j < n)
                    sums[j] += weight;
                *to++ = weight;
            }
}

static size_t scratch_bytes(size_t k) { return MR * k; }

static void tile(size_t k, const uint8_t *a0, const uint8_t *a1, const int8_t *b, int32_t acc[MR][NR])
{
    int32_t c00 = 0, c01 = 0, c02 = 0, c03 = 0, c10 = 0, c11 = 0, c12 = 0, c13 = 0;
    for (size_t p = 0; p < k; p++, b += NR) {
        int32_t x0 = a0[p], x1 = a1[p];
        c00 += x0 * b[0];
        c01 += x0 * b[1];
        c02 += x0 * b[2];
        c03 += x0 * b[3];
        c10 += x1 * b[0];
        c11 += x1 * b[1];
        c12 += x1 * b[2];
        c13 += x1 * b[3];
    }
    const int32_t sums[MR][NR] = {{c00, c01, c02, c03}, {c10, c11, c12, c13}};
    memcpy(acc, sums, sizeof sums);
}

static void run(const struct qd_gemm_args *args)
{
    const struct qd_epilogue *e = &args->epilogue;
    const float inv_scale = epilogue_inv_scale(e);
    struct qd_observation seen = qd_observation_empty();
    uint8_t *line = args->scratch;
    for (size_t row = args->row_begin; row < args->row_end; row += MR) {
        size_t rows = args->row_end - row < MR ? args->row_end - row : MR;
        const uint8_t *a0 = rows_line(&args->a, row, line);
        const uint8_t *a1 = rows > 1 ? rows_line(&args->a, row + 1, line + args->k) : a0;
        for (size_t col = args->col_begin; col < args->col_end; col += NR) {
            size_t cols = args->col_end - col < NR ? args->col_end - col : NR;
            int32_t acc[MR][NR];
            tile(args->k, a0, a1, (const int8_t *)args->b + col * args->k, acc);
            for (size_t i = 0; i < rows; i++)
                for (size_t j = 0; j < cols; j++) {
                    float bias = e->bias ? e->bias[col + j] : 0.0f;
                    if (e->weight_zeros)
                        acc[i][j] -= e->weight_zeros[col + j] * e->row_sums[row + i];
                    if (!e->rows)
                        acc[i][j] += e->acc_init[col + j];
                    float real = e->rows ? epilogue_row_real(e, acc[i][j], row + i, col + j, bias)
                                         : qd_real_one(acc[i][j], e->scale[col + j], bias);
                    epilogue_finish_integer(e, inv_scale, acc[i][j], real, row + i, col + j, &seen);
                }
        }
    }
    if (e->observe)
        observation_publish(&seen, e->observe);
}

const struct qd_gemm_q8 qd_gemm_q8__scalar = {
    .name = "qd_gemm_u8s8_2x4x1__scalar",
    .mr = MR,
    .nr = NR,
    .kr = 1,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
