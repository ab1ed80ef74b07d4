/* The epilogue of a tile, many values at a time: equations (7) and (8) of docs/QUANTIZATION.md, bit by bit what
 * epilogue.h does. A multiply is never fused with the addition after it. Two rows are finished together, because their
 * bytes fill one vector. Whether values can be infinite or NaN, or leave int32 when scaled, is found out once per call
 * from scales and biases ("sure"): then nothing is tested value by value. Only for <isa>/epilogue.c. */
#ifndef QD_ENGINE_KERNELS_EPILOGUE_TILE_SIMD_H
#define QD_ENGINE_KERNELS_EPILOGUE_TILE_SIMD_H

#include "engine/kernels/epilogue_simd.h"
#include "engine/kernels/functions_simd.h"

#ifdef QD_SIMD_FLOATS

enum tile_source {
    SOURCE_INTEGER,
    SOURCE_FLOAT,
    SOURCE_REAL /* prepared */
};

/* What an instance of finish knows beforehand. act: NONE or CLIP; adds: a residual of bytes, before it; by: columns are
 * multiplied after it (of prepared values they are already). */
struct tile_kind {
    enum tile_source source;
    enum qd_act act;
    bool quantize, observe, sure, adds, by;
};

/* A residual of bytes at the block's first row and column, by value as the columns. */
struct tile_added {
    const uint8_t *from;
    size_t stride;
    vf scale;
    vi zero_point;
};

QD_INLINE struct tile_columns tile_columns_of(const struct qd_epilogue *e, const struct tile_block *b, size_t v)
{
    struct tile_columns c = {vf_set(1.0f), vf_set(0.0f), vf_set(1.0f), vm_none(), 0};
    const size_t at = v * QD_SIMD_FLOATS, left = b->cols > at ? b->cols - at : 0;
    c.count = left < QD_SIMD_FLOATS ? left : QD_SIMD_FLOATS;
    if (!c.count)
        return c;
    c.mask = vm_first(c.count);
    if (e->scale)
        c.scale = vf_load_some(e->scale + b->col + at, c.mask);
    if (e->bias)
        c.bias = vf_load_some(e->bias + b->col + at, c.mask);
    if (e->by)
        c.by = vf_load_some(e->by + b->col + at, c.mask);
    return c;
}

QD_INLINE int32_t *tile_acc(const struct tile_block *b, size_t i, size_t v)
{
    return b->acc + i * TILE_COLS + v * QD_SIMD_FLOATS;
}

QD_INLINE vf tile_value(const int32_t *acc, bool integer)
{
    return integer ? vf_from_vi(vi_load(acc)) : vf_from_bits(vi_load(acc));
}

/* (7), before residual and activation. */
QD_INLINE vf tile_scaled(vf value, const struct tile_columns *c) { return vf_add(vf_mul(value, c->scale), c->bias); }

/* ... and after them. */
QD_INLINE vf tile_activated(const struct qd_epilogue *e, vf real, const struct tile_columns *c,
                            const struct tile_kind k)
{
    if (k.act == QD_ACT_CLIP)
        real = vf_min(vf_max(real, vf_set(e->act.a)), vf_set(e->act.b));
    return k.by ? vf_mul(real, c->by) : real;
}

QD_INLINE struct tile_added tile_added_of(const struct qd_residual *r, const struct tile_block *b, const bool adds)
{
    if (!adds)
        return (struct tile_added){NULL, 0, vf_set(0.0f), vi_set(0)};
    return (struct tile_added){(const uint8_t *)r->data + b->row * r->stride_elems + b->col, r->stride_elems,
                               vf_set(r->qp->scale), vi_set(r->qp->zero_point)};
}

/* Of row i of the block, vector v. */
QD_INLINE vf tile_real(const struct qd_epilogue *e, const struct tile_block *b, size_t i, size_t v,
                       const struct tile_columns *c, const struct tile_added *added, const struct tile_kind k)
{
    const int32_t *acc = tile_acc(b, i, v);
    if (k.source == SOURCE_REAL)
        return vf_from_bits(vi_load(acc));
    vf real = tile_scaled(tile_value(acc, k.source == SOURCE_INTEGER), c);
    if (k.adds) {
        const vi q = vi_load_u8(added->from + i * added->stride + v * QD_SIMD_FLOATS, c->count);
        real = vf_add(real, vf_mul(added->scale, vf_from_vi(vi_sub(q, added->zero_point))));
    }
    return tile_activated(e, real, c, k);
}

/* Values that were cut or are not finite, counted one by one: rare. */
QD_INLINE void tile_count(struct tile_epilogue *t, const struct tile_block *b, const struct tile_kind k)
{
    const struct tile_added added = tile_added_of(&t->e->residual, b, k.adds);
    for (size_t v = 0; v * QD_SIMD_FLOATS < b->cols; v++) {
        const struct tile_columns c = tile_columns_of(t->e, b, v);
        for (size_t i = 0; i < b->rows; i++)
            observing_count(&t->seen, tile_real(t->e, b, i, v, &c, &added, k), c.mask, &t->scaling, false);
    }
}

/* Clipping before (8), which is monotone, is limiting the bytes after it. */
static inline struct qd_qparams tile_clipped_bytes(const struct qd_epilogue *e)
{
    struct qd_qparams qp = *e->quantize;
    const float inv_scale = epilogue_inv_scale(e);
    qp.qmin = qd_requantize_one(e->act.a, inv_scale, e->quantize);
    qp.qmax = qd_requantize_one(e->act.b, inv_scale, e->quantize);
    return qp;
}

/* (8) of two rows, as bytes: the first in the lower half. */
QD_INLINE vi tile_bytes(const struct scaling *s, const struct qd_qparams *qp, vf real[2][TILE_VECTORS], const bool sure)
{
    vi q[2][TILE_VECTORS];
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++)
#pragma GCC unroll 2
        for (size_t v = 0; v < TILE_VECTORS; v++) {
            vf scaled = vf_mul(real[i][v], s->factor);
            if (!sure)
                scaled = vf_min(vf_max(scaled, s->lo), s->hi);
            q[i][v] = vi_from_vf(scaled);
        }
    return vi_pack_u8(q[0], q[1], qp->zero_point, qp->qmin, qp->qmax);
}

/* `whole`: all columns of the tile exist. */
QD_INLINE void tile_store(const struct qd_epilogue *e, size_t at, vf real[TILE_VECTORS], const struct tile_columns *c,
                          const bool whole)
{
#pragma GCC unroll 2
    for (size_t v = 0; v < TILE_VECTORS; v++) {
        float *to = (float *)e->out + at + v * QD_SIMD_FLOATS;
        if (whole)
            vf_store(to, real[v]);
        else if (c[v].count)
            vf_store_some(to, c[v].mask, real[v]);
    }
}

/* Both rows in a tree: one step of the chain from row to row. low: nobody asks for the least value. */
QD_INLINE void tile_see(struct piece *piece, vf real[2][TILE_VECTORS], const struct tile_columns *c, const bool whole,
                        const bool sure, const bool low)
{
    if (whole && sure) {
        const vf min0 = vf_min(real[0][0], real[0][1]), min1 = vf_min(real[1][0], real[1][1]);
        const vf max0 = vf_max(real[0][0], real[0][1]), max1 = vf_max(real[1][0], real[1][1]);
        if (!low)
            piece->min = vf_min(vf_min(min0, min1), piece->min);
        piece->max = vf_max(vf_max(max0, max1), piece->max);
        return;
    }
#pragma GCC unroll 2
    for (size_t r = 0; r < 2; r++)
#pragma GCC unroll 2
        for (size_t v = 0; v < TILE_VECTORS; v++)
            if (sure)
                piece_add_finite(piece, real[r][v], c[v].mask);
            else
                piece_add(piece, real[r][v], c[v].mask);
}

QD_INLINE void tile_finish_columns(struct tile_epilogue *t, const struct tile_block *b, const struct tile_kind kind,
                                   const bool whole, const bool low)
{
    const struct qd_epilogue *e = t->e;
    const size_t stride = e->out_stride_elems, at = b->row * stride + b->col;
    const struct scaling s = t->scaling;
    /* Clips bytes, and min and max. */
    const bool late = whole && kind.quantize && kind.sure && kind.act == QD_ACT_CLIP;
    const struct tile_kind k = {
        kind.source, late ? QD_ACT_NONE : kind.act, kind.quantize, kind.observe, kind.sure, kind.adds, false};
    const struct qd_qparams qp = late ? tile_clipped_bytes(e) : k.quantize ? *e->quantize : (struct qd_qparams){0};
    struct tile_columns c[TILE_VECTORS] = {tile_columns_of(e, b, 0), tile_columns_of(e, b, 1)};
    const struct tile_added added = tile_added_of(&e->residual, b, k.adds);
    for (size_t v = 0; whole && v < TILE_VECTORS; v++)
        c[v].count = QD_SIMD_FLOATS;
    const bool second = whole || c[1].count;
    struct piece piece = piece_begin();
    for (size_t i = 0; i < b->rows; i += 2) {
        const size_t row[2] = {i, i + 1 < b->rows ? i + 1 : i}; /* a last odd row is finished twice, alike */
        vf real[2][TILE_VECTORS];
#pragma GCC unroll 2
        for (size_t r = 0; r < 2; r++) {
            real[r][0] = tile_real(e, b, row[r], 0, &c[0], &added, k);
            real[r][1] = second ? tile_real(e, b, row[r], 1, &c[1], &added, k) : real[r][0];
            if (!k.quantize)
                tile_store(e, at + row[r] * stride, real[r], c, whole);
        }
        if (k.observe)
            tile_see(&piece, real, c, whole, k.sure, low);
        if (k.quantize) {
            const vi bytes = tile_bytes(&s, &qp, real, k.sure);
            uint8_t *to = (uint8_t *)e->out + at;
            vi_store_halves(to + row[0] * stride, to + row[1] * stride, bytes, whole ? TILE_COLS : b->cols);
        }
    }
    if (k.observe && late) {
        piece.min = low ? vf_set(e->act.a) : vf_min(vf_max(piece.min, vf_set(e->act.a)), vf_set(e->act.b));
        piece.max = vf_min(vf_max(piece.max, vf_set(e->act.a)), vf_set(e->act.b));
    }
    if (k.observe && !observing_take(&t->seen, &piece, &s, false))
        tile_count(t, b, kind);
    else if (k.observe && late && !low)
        t->low = vf_reduce_min(piece.min) <= e->act.a && e->act.a <= e->act.b;
}

QD_INLINE void tile_finish(struct tile_epilogue *t, const struct tile_block *b, const struct tile_kind k)
{
    if (b->cols != TILE_COLS)
        tile_finish_columns(t, b, k, false, false);
    else if (k.observe && k.quantize && k.sure && k.act == QD_ACT_CLIP && t->low)
        tile_finish_columns(t, b, k, true, true);
    else
        tile_finish_columns(t, b, k, true, false);
}

#endif
#endif
