/* What comes before the end of an epilogue where that needs more than a scale, a bias and a clip: rows with scales of
 * their own, residuals of floats, activations. Only for <isa>/epilogue.c. */
#ifndef QD_ENGINE_KERNELS_EPILOGUE_PREPARE_SIMD_H
#define QD_ENGINE_KERNELS_EPILOGUE_PREPARE_SIMD_H

#include "engine/kernels/epilogue_tile_simd.h"

#ifdef QD_SIMD_FLOATS

QD_INLINE vf tile_residual(const struct qd_residual *r, size_t at, const struct tile_columns *c)
{
    if (!r->qp)
        return vf_load_some((const float *)r->data + at, c->mask);
    const vi q = vi_sub(vi_load_u8((const uint8_t *)r->data + at, c->count), vi_set(r->qp->zero_point));
    return vf_mul(vf_set(r->qp->scale), vf_from_vi(q));
}

/* (7b). */
QD_INLINE vf tile_row_scaled(const int32_t *acc, const struct tile_columns *c, vi sums, const struct qd_row_scale *own)
{
    const vi sum = vi_sub(vi_load(acc), vi_mul(vi_set(own->zero_point), sums));
    return vf_add(vf_mul(vf_from_vi(sum), vf_mul(vf_set(own->scale), c->scale)), c->bias);
}

QD_INLINE vi tile_sums(const struct qd_epilogue *e, const struct tile_block *b, size_t v, vm mask)
{
    const float *sums = (const float *)(const void *)(e->sums + b->col + v * QD_SIMD_FLOATS);
    return vi_from_bits(vf_load_some(sums, mask));
}

/* In place, or into the output when nothing is left to do with them. `kind` and `rows` (with scales of their own) are
 * constants wherever this is inlined. */
QD_INLINE void tile_prepare(struct tile_epilogue *t, const struct tile_block *b, const enum qd_act kind,
                            const bool rows)
{
    const struct qd_epilogue *e = t->e;
    const struct qd_activation act = {kind, e->act.a, e->act.b, e->act.affine, e->act.mul, e->act.add};
    const struct qd_residual residual = e->residual;
    const size_t stride = t->finish ? TILE_COLS : e->out_stride_elems;
    float *const to = t->finish ? (float *)(void *)b->acc : (float *)e->out + b->row * stride + b->col;
    for (size_t v = 0; v * QD_SIMD_FLOATS < b->cols; v++) {
        const struct tile_columns c = tile_columns_of(e, b, v);
        const vi sums = rows ? tile_sums(e, b, v, c.mask) : vi_set(0);
        for (size_t i = 0; i < b->rows; i++) {
            const int32_t *acc = tile_acc(b, i, v);
            vf real = rows ? tile_row_scaled(acc, &c, sums, e->rows + b->row + i)
                           : tile_scaled(tile_value(acc, t->integer), &c);
            if (residual.data) {
                size_t at = (b->row + i) * residual.stride_elems + b->col + v * QD_SIMD_FLOATS;
                real = vf_add(real, tile_residual(&residual, at, &c));
            }
            vf_store_some(to + i * stride + v * QD_SIMD_FLOATS, c.mask, vf_mul(vf_act(&act, real), c.by));
        }
    }
}

/* Prepared values, written as 16 bits. */
static inline void tile_finish_s16(struct tile_epilogue *t, const struct tile_block *b)
{
    const struct qd_epilogue *e = t->e;
    const struct scaling s = t->scaling;
    const vi zero_point = vi_set(e->quantize->zero_point);
    struct piece piece = piece_begin();
    for (size_t v = 0; v * QD_SIMD_FLOATS < b->cols; v++) {
        const struct tile_columns c = tile_columns_of(e, b, v);
        for (size_t i = 0; i < b->rows; i++) {
            const vf real = vf_from_bits(vi_load(tile_acc(b, i, v)));
            const vf scaled = vf_min(vf_max(vf_mul(real, s.factor), s.lo), s.hi);
            const size_t at = (b->row + i) * e->out_stride_elems + b->col + v * QD_SIMD_FLOATS;
            vi_store_s16((int16_t *)e->out + at, vi_add(vi_from_vf(scaled), zero_point), c.count);
            if (e->observe)
                piece_add(&piece, real, c.mask);
        }
    }
    if (e->observe && !observing_take(&t->seen, &piece, &s, false))
        tile_count(t, b, (struct tile_kind){SOURCE_REAL, QD_ACT_NONE, true, true, false, false, false});
}

#endif
#endif
