/* s16 x s8 or s16 matrix product in portable C: the judge of every other ISA. Sums in int64, one output at a time;
 * weights as the ISAs pack them, in panels of one column. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/epilogue.h"
#include "engine/kernels/pack_q16.h"
#include "engine/kernels/rows.h"

static size_t packed_bytes(size_t n, size_t k) { return q16_packed_bytes(n, k, 1); }

static void pack(size_t n, size_t k, const int8_t *w8, const int16_t *w16, size_t row_stride, size_t col_stride,
                 void *packed)
{
    q16_pack(n, k, 1, w8, w16, row_stride, col_stride, packed);
}

/* Rows are copied: a caller's pieces have no alignment that 16 bits may be read with. */
static size_t scratch_bytes(size_t k) { return k * sizeof(int16_t); }

static int64_t dot(const int16_t *a, const int16_t *w, size_t k)
{
    int64_t sum = 0;
    for (size_t p = 0; p < k; p++)
        sum += (int32_t)a[p] * w[p];
    return sum;
}

static void run(const struct qd_gemm_args *args)
{
    const struct qd_epilogue *e = &args->epilogue;
    const float inv_scale = epilogue_inv_scale(e);
    const size_t column_bytes = q16_panel_bytes(args->k, 1);
    struct qd_observation seen = qd_observation_empty();
    int16_t *line = args->scratch;
    for (size_t row = args->row_begin; row < args->row_end; row++) {
        rows_gather(&args->a, row, (uint8_t *)line);
        for (size_t col = args->col_begin; col < args->col_end; col++) {
            const uint8_t *w = (const uint8_t *)args->b + col * column_bytes;
            int64_t acc = dot(line, (const int16_t *)(const void *)w, args->k);
            float real = (float)acc * e->scale[col] + (e->bias ? e->bias[col] : 0.0f);
            epilogue_finish(e, inv_scale, real, row, col, &seen);
        }
    }
    if (e->observe)
        observation_publish(&seen, e->observe);
}

const struct qd_gemm_q16 qd_gemm_q16__scalar = {
    .name = "qd_gemm_s16_1x1x2__scalar",
    .mr = 1,
    .nr = 1,
    .kr = 2,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
