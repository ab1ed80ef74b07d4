/* u8 x s8 -> s32 matrix product by tdpbusd: tiles of 16 rows by 64 bytes of A times 64 bytes by 16 columns of B, exact.
 * Two by two of them make a block of 32 by 32, which the epilogue of AVX512-VNNI ends. B is packed as AVX512-VNNI packs
 * it, whose kernel also takes what is too small for tiles. */
#include "engine/kernels/amx/tiles.h"
#include "engine/kernels/dispatch.h"
#include "engine/kernels/rows.h"

enum {
    TAP_STEP_MIN = 12,
    DEPTH_UNITS = 192, /* of a panel of B that stays in the first cache: 24 KB */
    ROWS_MOST = 256,   /* that meet a panel of B one after the other */
    COPY_BYTES = 1024 * 1024,
    ROWS_MIN = 8, /* below, and for shorter products, vectors are as fast */
    UNITS_MIN = 8,
    FAR_BYTES = 64 * 1024
};

/* Depth in equal steps of `units`; the last has `last`, fewer where the whole can't be divided. Rows in place are read
 * by steps of their taps. */
struct steps {
    size_t count, units, last;
    bool by_taps;
};

/* Sixteen rows of A: where each step of the first begins. */
struct group {
    const uint8_t **at;
    size_t stride;
};

struct call {
    const struct qd_gemm_args *args;
    struct steps steps;
    size_t units, row, rows; /* of the rows that are being worked on */
    struct group groups[ROWS_MOST / GROUP_ROWS];
    uint8_t *copy, *last; /* rows of A; the last step of a panel of B, filled up with zeros */
    size_t copy_stride;
    bool far;
    int32_t *acc;
    struct tile_epilogue epilogue;
};

static size_t units_of(size_t k) { return ceil_div(k, UNIT_BYTES); }

/* The fewest equal steps that add up, if that is at most a third more than the fewest; else count 0. */
static struct steps steps_equal(size_t units)
{
    const size_t fewest = ceil_div(units, STEP_UNITS);
    for (size_t count = fewest; 3 * count <= 4 * fewest; count++)
        if (units % count == 0)
            return (struct steps){count, units / count, units / count, false};
    return (struct steps){0};
}

static struct steps steps_of(const struct qd_rows *a, size_t units)
{
    if (a->table && a->tap_bytes % UNIT_BYTES == 0) {
        struct steps tap = steps_equal(a->tap_bytes / UNIT_BYTES);
        if (tap.count && (tap.units >= TAP_STEP_MIN || a->taps == 1))
            return (struct steps){tap.count * a->taps, tap.units, tap.units, true};
    }
    struct steps whole = steps_equal(units);
    if (whole.count)
        return whole;
    whole.count = ceil_div(units, STEP_UNITS);
    whole.units = ceil_div(units, whole.count);
    whole.last = units - (whole.count - 1) * whole.units;
    return whole;
}

static size_t rows_most(size_t units)
{
    const size_t rows = COPY_BYTES / copy_stride_of(units) / BLOCK_ROWS * BLOCK_ROWS;
    return rows < BLOCK_ROWS ? BLOCK_ROWS : rows > ROWS_MOST ? ROWS_MOST : rows;
}

static size_t steps_most(size_t units) { return ceil_div(units, TAP_STEP_MIN) + 1; }

/* The parts of the scratch, one behind the other. */
static size_t copy_bytes(size_t units) { return rows_most(units) * copy_stride_of(units); }
static size_t last_bytes(void) { return STEP_UNITS * UNIT_COLS_BYTES; }
static size_t acc_bytes(size_t units) { return rows_most(units) * NR * sizeof(int32_t); }
static size_t at_bytes(size_t units)
{
    return rows_most(units) / GROUP_ROWS * steps_most(units) * sizeof(const uint8_t *);
}

static size_t scratch_bytes(size_t k)
{
    const size_t units = units_of(k), vectors = qd_gemm_q8__avx512vnni.scratch_bytes(k);
    const size_t tiles = copy_bytes(units) + last_bytes() + acc_bytes(units) + at_bytes(units);
    return tiles > vectors ? tiles : vectors;
}

/* ---------------------------------------------------------------- rows of A */

/* memcpy by whole vectors: of a pixel's channels, without a call. */
static void copy_piece(uint8_t *to, const uint8_t *from, size_t bytes)
{
    for (; bytes >= 64; bytes -= 64, to += 64, from += 64)
        _mm512_storeu_si512(to, _mm512_loadu_si512(from));
    if (bytes) {
        const __mmask64 some = ((__mmask64)1 << bytes) - 1;
        _mm512_mask_storeu_epi8(to, some, _mm512_maskz_loadu_epi8(some, from));
    }
}

static void group_copy(struct call *r, size_t at, size_t rows, struct group *g)
{
    const struct qd_rows *a = &r->args->a;
    uint8_t *to = r->copy + at * r->copy_stride;
    for (size_t s = 0; s < r->steps.count; s++)
        g->at[s] = to + s * r->steps.units * UNIT_BYTES;
    g->stride = r->copy_stride;
    for (size_t i = 0; i < rows; i++, to += r->copy_stride)
        for (size_t tap = 0; tap < a->taps; tap++)
            copy_piece(to + tap * a->tap_bytes, rows_piece(a, r->row + at + i, tap), a->tap_bytes);
    /* A depth that isn't whole units: the packed weights behind it are 0. */
}

/* Do sixteen rows of pointers lie the same distance apart in every tap? */
static bool table_is_even(const void *const *table, size_t taps, ptrdiff_t *stride)
{
    const __m512i distance = _mm512_set1_epi64(*stride = (const char *)table[taps] - (const char *)table[0]);
    for (size_t i = 0; i < (GROUP_ROWS - 1) * taps; i += 8) {
        const size_t left = (GROUP_ROWS - 1) * taps - i;
        const __mmask8 some = (__mmask8)(left < 8 ? (1u << left) - 1 : 0xff);
        const __m512i here = _mm512_maskz_loadu_epi64(some, table + i);
        const __m512i next = _mm512_maskz_loadu_epi64(some, table + i + taps);
        if (_mm512_mask_cmpneq_epi64_mask(some, _mm512_sub_epi64(next, here), distance))
            return false;
    }
    return true;
}

/* Reads sixteen whole rows where they are, if they can be. */
static bool group_in_place(const struct call *r, size_t row, struct group *g)
{
    const struct qd_rows *a = &r->args->a;
    const struct steps *s = &r->steps;
    if (s->last != s->units)
        return false;
    if (!a->table) {
        g->stride = a->stride_bytes;
        for (size_t i = 0; i < s->count; i++)
            g->at[i] = rows_piece(a, row, 0) + i * s->units * UNIT_BYTES;
        return a->taps == 1 && a->tap_bytes % UNIT_BYTES == 0 && a->stride_bytes % 4096 != 0;
    }
    ptrdiff_t stride;
    if (!s->by_taps || !table_is_even(a->table + row * a->taps, a->taps, &stride))
        return false;
    const size_t each = s->count / a->taps;
    for (size_t i = 0; i < s->count; i++)
        g->at[i] = rows_piece(a, row, i / each) + i % each * s->units * UNIT_BYTES;
    g->stride = (size_t)stride;
    return true;
}

static void take_rows(struct call *r, size_t row, size_t rows)
{
    r->row = row;
    r->rows = rows;
    for (size_t at = 0; at < rows; at += GROUP_ROWS) {
        struct group *g = &r->groups[at / GROUP_ROWS];
        if (rows - at < GROUP_ROWS || !group_in_place(r, row + at, g))
            group_copy(r, at, rows - at < GROUP_ROWS ? rows - at : GROUP_ROWS, g);
    }
}

/* ---------------------------------------------------------------- tiles */

/* A block of tiles: steps [begin, end) of two groups of rows (the second NULL: none) and a panel of B. */
struct tiles {
    const struct group *low, *high;
    size_t begin, end;
    const uint8_t *b;    /* the panel at step `begin` */
    const uint8_t *last; /* NULL, or what stands for the panel's last step */
    size_t b_step;
    const uint8_t *ahead; /* asked for meanwhile, ahead_lines a step */
    size_t ahead_lines;
    const int32_t *from; /* what the accumulators begin with, row by row from_step bytes apart */
    size_t from_step;
    int32_t *acc;
};

/* `high` and `right` are constants wherever the next two are inlined: a second group of rows, a second vector of
 * columns. */
QD_INLINE void tiles_begin(const struct tiles *t, const bool high, const bool right)
{
    const char *from = (const char *)t->from, *below = from + GROUP_ROWS * t->from_step;
    atomic_signal_fence(memory_order_seq_cst);
    _tile_loadd(0, from, t->from_step);
    if (right)
        _tile_loadd(1, from + 64, t->from_step);
    if (high)
        _tile_loadd(2, below, t->from_step);
    if (high && right)
        _tile_loadd(3, below + 64, t->from_step);
}

QD_INLINE void tiles_multiply(const struct tiles *t, const bool high, const bool right)
{
    const uint8_t *const *low_at = t->low->at, *const *high_at = high ? t->high->at : NULL;
    const size_t low_stride = t->low->stride, high_stride = high ? t->high->stride : 0, ahead_lines = t->ahead_lines;
    const uint8_t *b = t->b, *ahead = t->ahead;
    atomic_signal_fence(memory_order_seq_cst);
    for (size_t s = t->begin; s < t->end; s++, b += t->b_step) {
        if (t->last && s + 1 == t->end)
            b = t->last;
        for (size_t line = 0; line < ahead_lines; line++, ahead += 64)
            _mm_prefetch((const char *)ahead, _MM_HINT_T1);
        _tile_loadd(4, low_at[s], low_stride);
        _tile_loadd(6, b, UNIT_COLS_BYTES);
        _tile_dpbusd(0, 4, 6);
        if (right) {
            _tile_loadd(7, b + 64, UNIT_COLS_BYTES);
            _tile_dpbusd(1, 4, 7);
        }
        if (high) {
            _tile_loadd(5, high_at[s], high_stride);
            _tile_dpbusd(2, 5, 6);
        }
        if (high && right)
            _tile_dpbusd(3, 5, 7);
    }
}

QD_INLINE void tiles_end(const struct tiles *t, const bool high, const bool right)
{
    int32_t *below = t->acc + GROUP_ROWS * NR;
    _tile_stored(0, t->acc, ACC_STEP);
    if (right)
        _tile_stored(1, t->acc + 16, ACC_STEP);
    if (high)
        _tile_stored(2, below, ACC_STEP);
    if (high && right)
        _tile_stored(3, below + 16, ACC_STEP);
    atomic_signal_fence(memory_order_seq_cst);
}

QD_INLINE void tiles_run(const struct tiles *t, const bool high, const bool right)
{
    tiles_begin(t, high, right);
    tiles_multiply(t, high, right);
    tiles_end(t, high, right);
}

static void tiles_2x2(const struct tiles *t) { tiles_run(t, true, true); }
static void tiles_2x1(const struct tiles *t) { tiles_run(t, true, false); }
static void tiles_1x2(const struct tiles *t) { tiles_run(t, false, true); }
static void tiles_1x1(const struct tiles *t) { tiles_run(t, false, false); }

/* ---------------------------------------------------------------- loops around them */

/* A panel of B and what its accumulators begin with. */
struct columns {
    size_t col, cols;
    const uint8_t *b, *last;
    const int32_t *start;
};

/* Steps [begin, end) of all rows. */
static void multiply(struct call *r, const struct columns *c, size_t begin, size_t end)
{
    static void (*const RUN[2][2])(const struct tiles *t) = {{tiles_1x1, tiles_1x2}, {tiles_2x1, tiles_2x2}};
    const size_t b_step = r->steps.units * UNIT_COLS_BYTES, blocks = ceil_div(r->rows, BLOCK_ROWS);
    const bool first = begin == 0, final = end == r->steps.count, whole = first && final;
    const uint8_t *ahead = c->b + end * b_step;
    const size_t ahead_lines = r->far ? ceil_div(b_step, blocks * 64) : 0;
    for (size_t at = 0, block = 0; at < r->rows; at += BLOCK_ROWS, block++) {
        const size_t rows = r->rows - at < BLOCK_ROWS ? r->rows - at : BLOCK_ROWS;
        int32_t *acc = r->acc + (whole ? 0 : at) * NR;
        struct tiles t = {
            .low = &r->groups[at / GROUP_ROWS],
            .high = &r->groups[at / GROUP_ROWS + 1],
            .begin = begin,
            .end = end,
            .b = c->b + begin * b_step,
            .last = final ? c->last : NULL,
            .b_step = b_step,
            .ahead = ahead + block * ahead_lines * 64 * (end - begin),
            .ahead_lines = ahead_lines,
            .from = first ? c->start : acc,
            .from_step = first ? 0 : ACC_STEP,
            .acc = acc,
        };
        RUN[rows > GROUP_ROWS][c->cols > 16](&t);
        if (final)
            tile_epilogue_run(&r->epilogue, &(struct tile_block){acc, rows, c->cols, r->row + at, c->col});
    }
}

static void columns_run(struct call *r, size_t col, size_t cols)
{
    const struct steps *s = &r->steps;
    const int32_t *init = r->args->epilogue.rows ? NULL : r->args->epilogue.acc_init;
    int32_t room[NR] = {0};
    struct columns c = {col, cols, (const uint8_t *)r->args->b + col / NR * r->units * UNIT_COLS_BYTES, NULL, room};
    if (init && cols == NR)
        c.start = init + col;
    else if (init)
        memcpy(room, init + col, cols * sizeof *init);
    if (s->last != s->units) {
        memcpy(r->last, c.b + (s->count - 1) * s->units * UNIT_COLS_BYTES, s->last * UNIT_COLS_BYTES);
        c.last = r->last;
    }
    const size_t depths = r->units <= DEPTH_UNITS + DEPTH_UNITS / 2 ? 1 : ceil_div(r->units, DEPTH_UNITS);
    for (size_t d = 0; d < depths; d++)
        multiply(r, &c, d * s->count / depths, (d + 1) * s->count / depths);
}

static void run(const struct qd_gemm_args *args)
{
    const size_t units = units_of(args->k), rows = args->row_end - args->row_begin;
    if (rows < ROWS_MIN || units < UNITS_MIN) {
        qd_gemm_q8__avx512vnni.run(args);
        return;
    }
    const size_t most = rows_most(units),
                 block = ceil_div(ceil_div(rows, ceil_div(rows, most)), BLOCK_ROWS) * BLOCK_ROWS;
    struct call r = {.args = args, .steps = steps_of(&args->a, units), .units = units, .copy = args->scratch};
    r.copy_stride = copy_stride_of(units);
    r.last = r.copy + copy_bytes(units);
    r.acc = (int32_t *)(void *)(r.last + last_bytes());
    const uint8_t **at = (const uint8_t **)(void *)((uint8_t *)r.acc + acc_bytes(units));
    for (size_t g = 0; g < most / GROUP_ROWS; g++)
        r.groups[g].at = at + g * r.steps.count;
    memset(r.last, 0, last_bytes());
    r.far = (args->col_end - args->col_begin) * units * UNIT_BYTES > FAR_BYTES;
    QD_SIMD_NAME(qd_tile_epilogue_begin)
    (&r.epilogue, &args->epilogue, true, args->col_begin, args->col_end, (float)args->k * (255 * 128));
    tiles_configure(r.steps.units);
    for (size_t row = args->row_begin; row < args->row_end; row += block) {
        take_rows(&r, row, args->row_end - row < block ? args->row_end - row : block);
        for (size_t col = args->col_begin; col < args->col_end; col += NR)
            columns_run(&r, col, args->col_end - col < NR ? args->col_end - col : NR);
    }
    _tile_release();
    QD_SIMD_NAME(qd_tile_epilogue_end)
    (&r.epilogue, (uint64_t)rows * (args->col_end - args->col_begin));
}

static size_t packed_bytes(size_t n, size_t k) { return qd_gemm_q8__avx512vnni.packed_bytes(n, k); }

static void pack(size_t n, size_t k, const int8_t *w, size_t row_stride, size_t col_stride, void *packed, int32_t *sums)
{
    qd_gemm_q8__avx512vnni.pack(n, k, w, row_stride, col_stride, packed, sums);
}

const struct qd_gemm_q8 qd_gemm_q8__amx = {
    .name = "qd_gemm_u8s8_32x32x64__amx",
    .mr = BLOCK_ROWS,
    .nr = NR,
    .kr = UNIT_BYTES,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
