/* Quantize, dequantize, observe and max pooling, many values at a time; each ISA's vector.c gives them their names. Bit
 * by bit what scalar/vector.c does. Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_VECTOR_SIMD_H
#define QD_ENGINE_KERNELS_VECTOR_SIMD_H

#include "engine/kernels/observe_simd.h"

#ifdef QD_SIMD_FLOATS

#include <string.h>

enum { PIECE_VECTORS = 32 }; /* values that are observed together: counted one by one when something is rare */

static inline size_t lanes_at(size_t i, size_t n) { return n - i < QD_SIMD_FLOATS ? n - i : QD_SIMD_FLOATS; }

/* Equation (1) when `divide`, else (8). q may be NULL (only observe), obs may be NULL (only quantize), qp may be NULL
 * when q is. q: uint8_t, or int16_t when `words`. */
QD_INLINE void vector_quantize_to(const float *x, size_t n, const struct qd_qparams *qp, void *q,
                                  struct qd_observation *obs, const bool divide, const bool words)
{
    const struct scaling s = scaling_of(qp, !qp ? 0.0f : divide ? qp->scale : 1.0f / qp->scale);
    const vi zero_point = vi_set(qp ? qp->zero_point : 0);
    struct observing seen = observing_begin();
    for (size_t begin = 0; begin < n; begin += PIECE_VECTORS * QD_SIMD_FLOATS) {
        size_t end = n - begin < PIECE_VECTORS * QD_SIMD_FLOATS ? n : begin + PIECE_VECTORS * QD_SIMD_FLOATS;
        struct piece piece = piece_begin();
        for (size_t i = begin; i < end; i += QD_SIMD_FLOATS) {
            vm mask = vm_first(lanes_at(i, end));
            vf real = vf_load_some(x + i, mask);
            if (obs)
                piece_add(&piece, real, mask);
            if (q) {
                vf scaled = vf_min(vf_max(scaled_by(&s, real, divide), s.lo), s.hi);
                const vi integers = vi_add(vi_from_vf(scaled), zero_point);
                if (words)
                    vi_store_s16((int16_t *)q + i, integers, lanes_at(i, end));
                else
                    vi_store_u8((uint8_t *)q + i, integers, lanes_at(i, end));
            }
        }
        if (!obs || observing_take(&seen, &piece, &s, divide))
            continue;
        for (size_t i = begin; i < end; i += QD_SIMD_FLOATS) {
            vm mask = vm_first(lanes_at(i, end));
            observing_count(&seen, vf_load_some(x + i, mask), mask, &s, divide);
        }
    }
    if (obs)
        observing_end(&seen, n, obs);
}

QD_INLINE void vector_quantize(const float *x, size_t n, const struct qd_qparams *qp, uint8_t *q,
                               struct qd_observation *obs, const bool divide)
{
    vector_quantize_to(x, n, qp, q, obs, divide, false);
}

QD_INLINE void vector_dequantize(const uint8_t *q, size_t n, const struct qd_qparams *qp, float *r)
{
    const vf scale = vf_set(qp->scale);
    const vi zero_point = vi_set(qp->zero_point);
    for (size_t i = 0; i < n; i += QD_SIMD_FLOATS) {
        size_t lanes = lanes_at(i, n);
        vf_store_some(r + i, vm_first(lanes), vf_mul(scale, vf_from_vi(vi_sub(vi_load_u8(q + i, lanes), zero_point))));
    }
}

QD_INLINE void vector_max_rows(const uint8_t *const *in, size_t rows, size_t n, uint8_t *out)
{
    memcpy(out, in[0], n);
    for (size_t j = 0; j < n; j += QD_SIMD_BYTES)
        for (size_t i = 1; i < rows; i++)
            bytes_max(out + j, in[i] + j, n - j < QD_SIMD_BYTES ? n - j : QD_SIMD_BYTES);
}

#endif
#endif
