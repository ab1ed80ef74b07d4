/* s16 x s8 or s16 matrix product by AMX's tiles, which multiply bytes: x = 256 xh + xl and w = 256 wh + wl, so that x w
 * = 65536 xh wh + 256 (xh wl + xl wh) + xl wl, four products of bytes in three exact sums. They are joined in int64 and
 * become floats by one rounding, as everywhere. B is packed as AVX512-VNNI packs it, whose kernel also takes what is
 * too small for tiles or so deep that a sum might leave int32. */
#include "engine/kernels/amx/tiles.h"
#include "engine/kernels/dispatch.h"
#include "engine/kernels/pack_q16.h"
#include "engine/kernels/rows.h"

enum {
    ROWS_MOST = 128, /* that meet a panel of B one after the other */
    COPY_BYTES = 512 * 1024,
    ROWS_MIN = 8,
    K_MIN = 16,
    K_MOST = 32768, /* 2 * 128 * 255 a product stays below 2^31 */
    SUM_BYTES = BLOCK_ROWS * NR * sizeof(int32_t)
};

enum { HIGH, LOW, PLANES };
enum { SUM_HIGH, SUM_MIDDLE, SUM_LOW, SUMS };

struct call {
    const struct qd_gemm_args *args;
    size_t steps, units; /* of the depth, filled up with zeros in B's planes; of a step */
    size_t stride;       /* of rows of A's planes */
    uint8_t *a[PLANES], *b[PLANES];
    int32_t *sums[SUMS]; /* [BLOCK_ROWS][NR] */
    struct tile_epilogue epilogue;
};

static size_t units_of(size_t k) { return ceil_div(k, UNIT_BYTES); }
static size_t steps_of(size_t k) { return ceil_div(units_of(k), STEP_UNITS); }

static size_t rows_most(size_t k)
{
    const size_t rows = COPY_BYTES / copy_stride_of(units_of(k)) / BLOCK_ROWS * BLOCK_ROWS;
    return rows < BLOCK_ROWS ? BLOCK_ROWS : rows > ROWS_MOST ? ROWS_MOST : rows;
}

static size_t a_bytes(size_t k) { return rows_most(k) * copy_stride_of(units_of(k)); }
static size_t b_bytes(size_t k) { return steps_of(k) * STEP_UNITS * UNIT_COLS_BYTES; }

static size_t scratch_bytes(size_t k)
{
    const size_t tiles = PLANES * (a_bytes(k) + b_bytes(k)) + SUMS * SUM_BYTES;
    const size_t vectors = qd_gemm_q16__avx512vnni.scratch_bytes(k);
    return tiles > vectors ? tiles : vectors;
}

/* ---------------------------------------------------------------- planes of bytes */

static void split_words(const uint8_t *words, size_t n, uint8_t *high, uint8_t *low)
{
    for (size_t i = 0; i < n; i += 32) {
        const __mmask32 some = n - i < 32 ? (1u << (n - i)) - 1 : 0xffffffff;
        const __m512i x = _mm512_maskz_loadu_epi16(some, words + 2 * i);
        _mm256_mask_storeu_epi8(low + i, some, _mm512_cvtepi16_epi8(x));
        _mm256_mask_storeu_epi8(high + i, some, _mm512_cvtepi16_epi8(_mm512_srai_epi16(x, 8)));
    }
}

static void take_rows(const struct call *r, size_t row, size_t rows)
{
    const struct qd_rows *a = &r->args->a;
    const size_t n = a->tap_bytes / sizeof(int16_t);
    for (size_t i = 0; i < rows; i++)
        for (size_t tap = 0; tap < a->taps; tap++) {
            const size_t at = i * r->stride + tap * n;
            split_words(rows_piece(a, row + i, tap), n, r->a[HIGH] + at, r->a[LOW] + at);
        }
}

/* Bytes of two pairs of sixteen columns: [column][4]. */
static __m512i join_pairs(__m512i first, __m512i second)
{
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_cvtepi16_epi8(first));
    return _mm512_or_si512(low, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_cvtepi16_epi8(second)), 16));
}

/* A panel of B, [pair][column][2] words, as [unit][column][4] bytes twice. */
static void take_columns(const struct call *r, const uint8_t *words)
{
    const size_t pairs = q16_pairs(r->args->k), whole = r->steps * r->units;
    for (size_t unit = 0; unit < whole; unit++)
        for (size_t v = 0; v < 2; v++) {
            const uint8_t *from = words + 2 * unit * UNIT_COLS_BYTES + v * 64;
            const size_t to = unit * UNIT_COLS_BYTES + v * 64;
            __m512i first = _mm512_setzero_si512(), second = first;
            if (2 * unit < pairs)
                first = _mm512_loadu_si512(from);
            if (2 * unit + 1 < pairs)
                second = _mm512_loadu_si512(from + UNIT_COLS_BYTES);
            _mm512_storeu_si512(r->b[LOW] + to, join_pairs(first, second));
            _mm512_storeu_si512(r->b[HIGH] + to, join_pairs(_mm512_srai_epi16(first, 8), _mm512_srai_epi16(second, 8)));
        }
}

/* ---------------------------------------------------------------- tiles */

static void tiles_zero(void)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

static void tiles_store(int32_t *sum)
{
    _tile_stored(0, sum, ACC_STEP);
    _tile_stored(1, sum + 16, ACC_STEP);
    _tile_stored(2, sum + GROUP_ROWS * NR, ACC_STEP);
    _tile_stored(3, sum + GROUP_ROWS * NR + 16, ACC_STEP);
}

/* All of the depth of one plane by another. A macro, as the instruction differs by signs. */
#define MULTIPLY(name, dot)                                                                                            \
    static void multiply_##name(const struct call *r, const uint8_t *a, const uint8_t *b)                              \
    {                                                                                                                  \
        const uint8_t *below = a + GROUP_ROWS * r->stride;                                                             \
        for (size_t s = 0, at = 0; s < r->steps; s++, at += r->units * UNIT_BYTES, b += r->units * UNIT_COLS_BYTES) {  \
            _tile_loadd(4, a + at, r->stride);                                                                         \
            _tile_loadd(6, b, UNIT_COLS_BYTES);                                                                        \
            dot(0, 4, 6);                                                                                              \
            _tile_loadd(7, b + 64, UNIT_COLS_BYTES);                                                                   \
            dot(1, 4, 7);                                                                                              \
            _tile_loadd(5, below + at, r->stride);                                                                     \
            dot(2, 5, 6);                                                                                              \
            dot(3, 5, 7);                                                                                              \
        }                                                                                                              \
    }
MULTIPLY(ss, _tile_dpbssd)
MULTIPLY(su, _tile_dpbsud)
MULTIPLY(us, _tile_dpbusd)
MULTIPLY(uu, _tile_dpbuud)

/* Rows [at, at + BLOCK_ROWS) of A's planes by the panel in B's. */
static void make_sums(const struct call *r, size_t at)
{
    const uint8_t *high = r->a[HIGH] + at * r->stride, *low = r->a[LOW] + at * r->stride;
    atomic_signal_fence(memory_order_seq_cst);
    tiles_zero();
    multiply_ss(r, high, r->b[HIGH]);
    tiles_store(r->sums[SUM_HIGH]);
    tiles_zero();
    multiply_su(r, high, r->b[LOW]);
    multiply_us(r, low, r->b[HIGH]);
    tiles_store(r->sums[SUM_MIDDLE]);
    tiles_zero();
    multiply_uu(r, low, r->b[LOW]);
    tiles_store(r->sums[SUM_LOW]);
    atomic_signal_fence(memory_order_seq_cst);
}

static __m512i eight_of(const int32_t *sum) { return _mm512_cvtepi32_epi64(_mm256_loadu_si256((const void *)sum)); }

/* The exact sums, each rounded once, in the place of the first. */
static void join_sums(const struct call *r, size_t rows)
{
    for (size_t i = 0; i < rows * NR; i += 8) {
        const __m512i high = _mm512_slli_epi64(eight_of(r->sums[SUM_HIGH] + i), 16);
        const __m512i middle = _mm512_slli_epi64(eight_of(r->sums[SUM_MIDDLE] + i), 8);
        const __m512i sum = _mm512_add_epi64(_mm512_add_epi64(high, middle), eight_of(r->sums[SUM_LOW] + i));
        _mm256_storeu_ps((float *)(void *)(r->sums[SUM_HIGH] + i), _mm512_cvtepi64_ps(sum));
    }
}

/* ---------------------------------------------------------------- loops around them */

static void place_scratch(struct call *r)
{
    const size_t k = r->args->k;
    uint8_t *at = r->args->scratch;
    for (int p = 0; p < PLANES; p++, at += a_bytes(k))
        r->a[p] = at;
    for (int p = 0; p < PLANES; p++, at += b_bytes(k))
        r->b[p] = at;
    for (int s = 0; s < SUMS; s++, at += SUM_BYTES)
        r->sums[s] = (int32_t *)(void *)at;
}

static void multiply_rows(struct call *r, size_t row, size_t rows)
{
    const struct qd_gemm_args *args = r->args;
    const size_t panel_bytes = q16_panel_bytes(args->k, NR);
    take_rows(r, row, rows);
    for (size_t col = args->col_begin; col < args->col_end; col += NR) {
        const size_t cols = args->col_end - col < NR ? args->col_end - col : NR;
        take_columns(r, (const uint8_t *)args->b + col / NR * panel_bytes);
        for (size_t at = 0; at < rows; at += BLOCK_ROWS) {
            const size_t here = rows - at < BLOCK_ROWS ? rows - at : BLOCK_ROWS;
            make_sums(r, at);
            join_sums(r, here);
            tile_epilogue_run(&r->epilogue, &(struct tile_block){r->sums[SUM_HIGH], here, cols, row + at, col});
        }
    }
}

static void run(const struct qd_gemm_args *args)
{
    const size_t k = args->k, rows = args->row_end - args->row_begin, most = rows_most(k);
    if (rows < ROWS_MIN || k < K_MIN || k > K_MOST) {
        qd_gemm_q16__avx512vnni.run(args);
        return;
    }
    struct call r = {.args = args, .steps = steps_of(k), .stride = copy_stride_of(units_of(k))};
    r.units = ceil_div(units_of(k), r.steps);
    place_scratch(&r);
    QD_SIMD_NAME(qd_tile_epilogue_begin)(&r.epilogue, &args->epilogue, false, args->col_begin, args->col_end, 0);
    tiles_configure(r.units);
    for (size_t row = args->row_begin; row < args->row_end; row += most)
        multiply_rows(&r, row, args->row_end - row < most ? args->row_end - row : most);
    _tile_release();
    QD_SIMD_NAME(qd_tile_epilogue_end)
    (&r.epilogue, (uint64_t)rows * (args->col_end - args->col_begin));
}

static size_t packed_bytes(size_t n, size_t k) { return qd_gemm_q16__avx512vnni.packed_bytes(n, k); }

static void pack(size_t n, size_t k, const int8_t *w8, const int16_t *w16, size_t row_stride, size_t col_stride,
                 void *packed)
{
    qd_gemm_q16__avx512vnni.pack(n, k, w8, w16, row_stride, col_stride, packed);
}

const struct qd_gemm_q16 qd_gemm_q16__amx = {
    .name = "qd_gemm_s16_32x32x64__amx",
    .mr = BLOCK_ROWS,
    .nr = NR,
    .kr = 2,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
