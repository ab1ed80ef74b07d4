/* The epilogue of one tile, many values at a time: equations (7) and (8) of docs/QUANTIZATION.md, bit by bit what
 * epilogue.h does. A multiply is never fused with the addition after it. Reads the tile's accumulators from memory, so
 * that the inner loop keeps all registers. Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_EPILOGUE_SIMD_H
#define QD_ENGINE_KERNELS_EPILOGUE_SIMD_H

#include "engine/kernels/observe_simd.h"

#ifdef QD_SIMD_FLOATS

#include <string.h>

enum { TILE_COLS_MAX = 64 };

/* What belongs to the columns of one panel, padded to the panel's width. */
struct tile_columns {
    float scale[TILE_COLS_MAX], bias[TILE_COLS_MAX];
    int32_t init[TILE_COLS_MAX];
    size_t count; /* columns that exist */
};

struct tile_epilogue {
    const struct qd_epilogue *e;
    struct scaling scaling;
    struct observing seen;
};

static inline struct tile_epilogue tile_epilogue_begin(const struct qd_epilogue *e)
{
    return (struct tile_epilogue){e, scaling_of(e->quantize, epilogue_inv_scale(e)), observing_begin()};
}

static inline void tile_epilogue_end(struct tile_epilogue *t, uint64_t elems)
{
    if (t->e->observe)
        observing_end(&t->seen, elems, t->e->observe);
}

static inline void tile_columns_load(struct tile_columns *c, const struct qd_epilogue *e, size_t col, size_t count,
                                     size_t nr)
{
    c->count = count;
    for (size_t j = 0; j < nr; j++) {
        bool there = j < count;
        c->scale[j] = there && e->scale ? e->scale[col + j] : 1.0f;
        c->bias[j] = there && e->bias ? e->bias[col + j] : 0.0f;
        c->init[j] = there && e->acc_init ? e->acc_init[col + j] : 0;
    }
}

/* Constants of one vector of columns, by value: stores of bytes could otherwise change them in the compiler's eyes. */
struct tile_vector {
    vf scale, bias, lo, hi;
    vi init;
    bool clip;
};

QD_INLINE struct tile_vector tile_vector_of(const struct qd_epilogue *e, const struct tile_columns *c, size_t v)
{
    return (struct tile_vector){vf_load(c->scale + v), vf_load(c->bias + v), vf_set(e->act.a),
                                vf_set(e->act.b),      vi_load(c->init + v), e->act.kind == QD_ACT_CLIP};
}

/* Accumulators (int32, or float in the same place) -> real values after the activation. */
QD_INLINE vf tile_real(const struct tile_vector *k, const int32_t *acc, bool integer)
{
    vf value = integer ? vf_from_vi(vi_add(vi_load(acc), k->init)) : vf_from_bits(vi_load(acc));
    vf real = vf_add(vf_mul(value, k->scale), k->bias);
    return k->clip ? vf_min(vf_max(real, k->lo), k->hi) : real;
}

/* acc[rows][nr] -> out, from element `at` on. */
QD_INLINE void tile_epilogue_as(struct tile_epilogue *t, const struct tile_columns *c, const int32_t *acc, size_t nr,
                                size_t rows, size_t at, bool integer, bool quantize, bool observe)
{
    const size_t stride = t->e->out_stride_elems;
    void *const out = t->e->out;
    const struct scaling s = t->scaling;
    const vi zero_point = vi_set(quantize ? t->e->quantize->zero_point : 0);
    struct piece piece = piece_begin();
    for (size_t v = 0; v < c->count; v += QD_SIMD_FLOATS) {
        const size_t lanes = c->count - v < QD_SIMD_FLOATS ? c->count - v : QD_SIMD_FLOATS;
        const vm mask = vm_first(lanes);
        const struct tile_vector k = tile_vector_of(t->e, c, v);
        for (size_t i = 0; i < rows; i++) {
            vf real = tile_real(&k, acc + i * nr + v, integer);
            size_t to = at + i * stride + v;
            if (observe)
                piece_add(&piece, real, mask);
            if (quantize) {
                vf scaled = vf_min(vf_max(vf_mul(real, s.factor), s.lo), s.hi);
                vi_store_u8((uint8_t *)out + to, vi_add(vi_from_vf(scaled), zero_point), lanes);
            } else if (lanes == QD_SIMD_FLOATS) {
                vf_store((float *)out + to, real);
            } else {
                vf_store_some((float *)out + to, mask, real);
            }
        }
    }
    if (!observe || observing_take(&t->seen, &piece, &s, false))
        return;
    for (size_t v = 0; v < c->count; v += QD_SIMD_FLOATS) {
        const vm mask = vm_first(c->count - v < QD_SIMD_FLOATS ? c->count - v : QD_SIMD_FLOATS);
        const struct tile_vector k = tile_vector_of(t->e, c, v);
        for (size_t i = 0; i < rows; i++)
            observing_count(&t->seen, tile_real(&k, acc + i * nr + v, integer), mask, &s, false);
    }
}

QD_INLINE void tile_epilogue_run(struct tile_epilogue *t, const struct tile_columns *c, const int32_t *acc, size_t nr,
                                 size_t rows, size_t at, bool integer)
{
    bool observe = t->e->observe != NULL;
    if (t->e->quantize && observe)
        tile_epilogue_as(t, c, acc, nr, rows, at, integer, true, true);
    else if (t->e->quantize)
        tile_epilogue_as(t, c, acc, nr, rows, at, integer, true, false);
    else if (observe)
        tile_epilogue_as(t, c, acc, nr, rows, at, integer, false, true);
    else
        tile_epilogue_as(t, c, acc, nr, rows, at, integer, false, false);
}

#endif
#endif
