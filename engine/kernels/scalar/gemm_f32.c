/* Float matrix product in portable C. Each sum runs over k in ascending order with one accumulator, whatever the tile,
 * so that a row's bits never depend on its neighbours. B stands in panels of four columns [k][4]. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/epilogue.h"
#include "engine/kernels/rows.h"

enum { MR = 2, NR = 4 };

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

/* Rows are copied: a caller's pieces have no alignment that a float may be read with. */
static size_t scratch_bytes(size_t k) { return MR * k * sizeof(float); }

static void tile(size_t k, const float *a0, const float *a1, const float *b, float acc[MR][NR])
{
    float c00 = 0, c01 = 0, c02 = 0, c03 = 0, c10 = 0, c11 = 0, c12 = 0, c13 = 0;
    for (size_t p = 0; p < k; p++, b += NR) {
        float x0 = a0[p], x1 = a1[p];
        c00 += x0 * b[0];
        c01 += x0 * b[1];
        c02 += x0 * b[2];
        c03 += x0 * b[3];
        c10 += x1 * b[0];
        c11 += x1 * b[1];
        c12 += x1 * b[2];
        c13 += x1 * b[3];
    }
    const float sums[MR][NR] = {{c00, c01, c02, c03}, {c10, c11, c12, c13}};
    memcpy(acc, sums, sizeof sums);
}

static const float *copy_row(const struct qd_rows *rows, size_t row, size_t k, float *line)
{
    const uint8_t *from = rows_line(rows, row, (uint8_t *)line);
    if (from != (const uint8_t *)line)
        memcpy(line, from, k * sizeof(float));
    return line;
}

static void run(const struct qd_gemm_args *args)
{
    const struct qd_epilogue *e = &args->epilogue;
    const float inv_scale = epilogue_inv_scale(e);
    struct qd_observation seen = qd_observation_empty();
    float *line = args->scratch;
    for (size_t row = args->row_begin; row < args->row_end; row += MR) {
        size_t rows = args->row_end - row < MR ? args->row_end - row : MR;
        const float *a0 = copy_row(&args->a, row, args->k, line);
        const float *a1 = rows > 1 ? copy_row(&args->a, row + 1, args->k, line + args->k) : a0;
        for (size_t col = args->col_begin; col < args->col_end; col += NR) {
            size_t cols = args->col_end - col < NR ? args->col_end - col : NR;
            float acc[MR][NR];
            tile(args->k, a0, a1, (const float *)args->b + col * args->k, acc);
            for (size_t i = 0; i < rows; i++)
                for (size_t j = 0; j < cols; j++) {
                    float scale = e->scale ? e->scale[col + j] : 1.0f, bias = e->bias ? e->bias[col + j] : 0.0f;
                    epilogue_finish(e, inv_scale, acc[i][j] * scale + bias, row + i, col + j, &seen);
                }
        }
    }
    if (e->observe)
        observation_publish(&seen, e->observe);
}

const struct qd_gemm_f32 qd_gemm_f32__scalar = {
    .name = "qd_gemm_f32_2x4__scalar",
    .mr = MR,
    .nr = NR,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
