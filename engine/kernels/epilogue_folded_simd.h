/* The end of a tile of integers whose bytes come from the accumulators at once (8a): no residual, no function but a
 * clip. What is observed are the real values of (7), which grow with the accumulators, so a column's least and largest
 * accumulator stand for all. Only for <isa>/epilogue.c, and where the caller is sure (epilogue_tile_simd.h). */
#ifndef QD_ENGINE_KERNELS_EPILOGUE_FOLDED_SIMD_H
#define QD_ENGINE_KERNELS_EPILOGUE_FOLDED_SIMD_H

#include "engine/kernels/epilogue_tile_simd.h"

#ifdef QD_SIMD_FLOATS

/* (8) of the bound x of a clip in each column, as bytes; *inside: the range has it in every column. */
static inline vi tile_bound(const struct tile_epilogue *t, const struct tile_columns c[TILE_VECTORS], float x,
                            bool *inside)
{
    const struct qd_qparams *qp = t->e->quantize;
    vi q[TILE_VECTORS];
    vm cut = vm_none();
    for (size_t v = 0; v < TILE_VECTORS; v++) {
        const vf scaled = vf_mul(vf_mul(vf_set(x), c[v].by), t->scaling.factor), rounded = vf_round(scaled);
        cut = vm_or(cut, vm_and(c[v].mask, vm_or(vm_lt(rounded, t->scaling.lo), vm_lt(t->scaling.hi, rounded))));
        q[v] = vi_from_vf(vf_min(vf_max(scaled, t->scaling.lo), t->scaling.hi));
    }
    *inside = vm_count(cut) == 0;
    return vi_pack_u8(q, q, qp->zero_point, qp->qmin, qp->qmax);
}

static inline void tile_folded_begin(const struct tile_epilogue *t, const struct tile_block *b, struct tile_folded *f)
{
    const struct qd_epilogue *e = t->e;
    const bool clip = e->act.kind == QD_ACT_CLIP;
    const vf zero_point = vf_set((float)e->quantize->zero_point);
    f->col = b->col;
    f->cols = b->cols;
    f->seen = false;
    for (size_t v = 0; v < TILE_VECTORS; v++) {
        struct tile_columns *c = &f->columns[v];
        *c = tile_columns_of(e, b, v);
        f->scale[v] = vf_mul(vf_mul(c->scale, c->by), t->scaling.factor);
        f->bias[v] = vf_add(vf_mul(vf_mul(c->bias, c->by), t->scaling.factor), zero_point);
        f->least[v] = vi_set(INT32_MAX);
        f->most[v] = vi_set(INT32_MIN);
    }
    f->bounded_low = f->bounded_high = false;
    f->low = clip ? tile_bound(t, f->columns, e->act.a, &f->bounded_low) : vi_set_bytes((uint8_t)e->quantize->qmin);
    f->high = clip ? tile_bound(t, f->columns, e->act.b, &f->bounded_high) : vi_set_bytes((uint8_t)e->quantize->qmax);
}

/* The real values of accumulators, as observed. */
static inline struct piece tile_observed(const struct tile_epilogue *t, const struct tile_folded *f,
                                         const vi least[TILE_VECTORS], const vi most[TILE_VECTORS])
{
    const struct tile_kind k = {SOURCE_INTEGER, t->e->act.kind, true, true, true, false, true};
    struct piece piece = piece_begin();
    for (size_t v = 0; v < TILE_VECTORS; v++) {
        const struct tile_columns *c = &f->columns[v];
        const vf low = tile_activated(t->e, tile_scaled(vf_from_vi(least[v]), c), c, k);
        const vf high = tile_activated(t->e, tile_scaled(vf_from_vi(most[v]), c), c, k);
        piece.min = vf_min_some(piece.min, c->mask, low);
        piece.max = vf_max_some(piece.max, c->mask, high);
    }
    return piece;
}

/* Brings to real values what blocks of these columns have shown. */
static inline void tile_folded_end(struct tile_epilogue *t, struct tile_folded *f)
{
    if (!f->seen)
        return;
    const struct piece piece = tile_observed(t, f, f->least, f->most);
    t->seen.min = vf_min(piece.min, t->seen.min);
    t->seen.max = vf_max(piece.max, t->seen.max);
    f->seen = false;
}

/* Could a value be cut? At a quarter of a quantum: more than rounding can differ by. */
QD_INLINE bool tile_may_cut(const struct tile_epilogue *t, const struct tile_folded *f, const vi least[TILE_VECTORS],
                            const vi most[TILE_VECTORS])
{
    const vf low = vf_set((float)t->e->quantize->qmin - 0.25f), high = vf_set((float)t->e->quantize->qmax + 0.25f);
    vm cut = vm_none();
#pragma GCC unroll 2
    for (size_t v = 0; v < TILE_VECTORS; v++) {
        const vm mask = f->columns[v].mask;
        if (!f->bounded_low)
            cut = vm_or(cut, vm_and(mask, vm_lt(vf_fma(vf_from_vi(least[v]), f->scale[v], f->bias[v]), low)));
        if (!f->bounded_high)
            cut = vm_or(cut, vm_and(mask, vm_lt(high, vf_fma(vf_from_vi(most[v]), f->scale[v], f->bias[v]))));
    }
    return vm_count(cut) != 0;
}

/* A block of which a value may be cut, by itself. */
static inline void tile_see_block(struct tile_epilogue *t, const struct tile_block *b, const struct tile_folded *f)
{
    vi least[TILE_VECTORS] = {vi_set(INT32_MAX), vi_set(INT32_MAX)};
    vi most[TILE_VECTORS] = {vi_set(INT32_MIN), vi_set(INT32_MIN)};
    for (size_t i = 0; i < b->rows; i++)
        for (size_t v = 0; v < TILE_VECTORS; v++) {
            least[v] = vi_min(least[v], vi_load(tile_acc(b, i, v)));
            most[v] = vi_max(most[v], vi_load(tile_acc(b, i, v)));
        }
    const struct piece piece = tile_observed(t, f, least, most);
    if (!observing_take(&t->seen, &piece, &t->scaling, false))
        tile_count(t, b, (struct tile_kind){SOURCE_INTEGER, t->e->act.kind, true, true, true, false, true});
}

/* After a block that nothing is cut of: was the least value seen that CLIP allows? (Multiplied, only 0 is the same for
 * all columns.) */
static inline void tile_look_for_bound(struct tile_epilogue *t, const struct tile_folded *f)
{
    const struct qd_activation *act = &t->e->act;
    if (!f->bounded_low || !(act->a <= act->b) || (t->e->by && act->a != 0.0f))
        return;
    const struct piece piece = tile_observed(t, f, f->least, f->most);
    t->low = vf_reduce_min(piece.min) <= act->a;
    if (t->low)
        t->seen.min = vf_min(piece.min, t->seen.min);
}

/* low: nobody asks for the least values. */
QD_INLINE void tile_finish_folded(struct tile_epilogue *t, const struct tile_block *b, const bool observe,
                                  const bool low)
{
    const size_t stride = t->e->out_stride_elems, cols = b->cols;
    uint8_t *const to = (uint8_t *)t->e->out + b->row * stride + b->col;
    struct tile_folded *const f = &t->folded[b->col / TILE_COLS % 2];
    if (f->cols != cols || f->col != b->col) {
        tile_folded_end(t, f);
        tile_folded_begin(t, b, f);
    }
    const vf scale[TILE_VECTORS] = {f->scale[0], f->scale[1]}, bias[TILE_VECTORS] = {f->bias[0], f->bias[1]};
    const vi bottom = f->low, top = f->high;
    vi least[TILE_VECTORS] = {f->least[0], f->least[1]}, most[TILE_VECTORS] = {f->most[0], f->most[1]};
    for (size_t i = 0; i < b->rows; i += 2) {
        const size_t row[2] = {i, i + 1 < b->rows ? i + 1 : i}; /* a last odd row is finished twice, alike */
        vi q[2][TILE_VECTORS];
#pragma GCC unroll 2
        for (size_t r = 0; r < 2; r++)
#pragma GCC unroll 2
            for (size_t v = 0; v < TILE_VECTORS; v++) {
                const vi acc = vi_load(tile_acc(b, row[r], v));
                q[r][v] = vi_from_vf(vf_fma(vf_from_vi(acc), scale[v], bias[v]));
                if (observe)
                    most[v] = vi_max(most[v], acc);
                if (observe && !low)
                    least[v] = vi_min(least[v], acc);
            }
        vi_store_halves(to + row[0] * stride, to + row[1] * stride, vi_limit_bytes(vi_pack(q[0], q[1]), bottom, top),
                        cols);
    }
    if (!observe)
        return;
    if (tile_may_cut(t, f, least, most)) {
        tile_see_block(t, b, f);
        return;
    }
    f->seen = true;
#pragma GCC unroll 2
    for (size_t v = 0; v < TILE_VECTORS; v++) {
        f->least[v] = least[v];
        f->most[v] = most[v];
    }
    if (!low)
        tile_look_for_bound(t, f);
}

static void finish_folded(struct tile_epilogue *t, const struct tile_block *b)
{
    tile_finish_folded(t, b, false, true);
}

static void finish_folded_seen(struct tile_epilogue *t, const struct tile_block *b)
{
    if (t->low)
        tile_finish_folded(t, b, true, true);
    else
        tile_finish_folded(t, b, true, false);
}

/* What may not be finite, value by value as epilogue.h has it. */
static void finish_plainly(struct tile_epilogue *t, const struct tile_block *b)
{
    const struct qd_epilogue *e = t->e;
    struct qd_observation seen = qd_observation_empty();
    for (size_t i = 0; i < b->rows; i++)
        for (size_t j = 0; j < b->cols; j++) {
            const int32_t acc = b->acc[i * TILE_COLS + j];
            const float real = qd_real_one(acc, e->scale[b->col + j], e->bias ? e->bias[b->col + j] : 0.0f);
            epilogue_finish_integer(e, epilogue_inv_scale(e), acc, real, b->row + i, b->col + j, &seen);
        }
    t->seen.rare.nonfinite += seen.nonfinite;
    t->seen.rare.clipped_low += seen.clipped_low;
    t->seen.rare.clipped_high += seen.clipped_high;
    t->seen.min = vf_min(vf_set(seen.min), t->seen.min);
    t->seen.max = vf_max(vf_set(seen.max), t->seen.max);
}

#endif
#endif
