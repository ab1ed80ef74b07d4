/* Gates of recurrent cells, many units at a time; each ISA's gates.c gives them their names. Bit by bit what gates.h
 * does. Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_GATES_SIMD_H
#define QD_ENGINE_KERNELS_GATES_SIMD_H

#include "engine/kernels/gates.h"
#include "engine/kernels/simd.h"

#ifdef QD_SIMD_FLOATS

/* vf_min and vf_max give their second operand for NaN: it stays. */
QD_INLINE vf v_expm1(vf x)
{
    x = vf_min(vf_set(GATES_HIGH), vf_max(vf_set(GATES_LOW), x));
    vf n = vf_round(vf_mul(x, vf_set(GATES_LOG2E)));
    vf r = vf_fma(n, vf_set(-GATES_LN2_LO), vf_fma(n, vf_set(-GATES_LN2_HI), x));
    vf q = vf_fma(vf_set(GATES_C6), r, vf_set(GATES_C5));
    q = vf_fma(q, r, vf_set(GATES_C4));
    q = vf_fma(q, r, vf_set(GATES_C3));
    q = vf_fma(q, r, vf_set(GATES_C2));
    vf p = vf_fma(vf_mul(r, r), q, r);
    vf scale = vf_from_bits(vi_from_vf(vf_mul(vf_add(n, vf_set(127.0f)), vf_set(GATES_2P23))));
    return vf_fma(scale, p, vf_add(scale, vf_set(-1.0f)));
}

QD_INLINE vf v_sigmoid(vf x) { return vf_div(vf_set(1.0f), vf_add(vf_set(2.0f), v_expm1(vf_mul(x, vf_set(-1.0f))))); }

QD_INLINE vf v_tanh(vf x)
{
    vf e = v_expm1(vf_mul(x, vf_set(2.0f)));
    return vf_div(e, vf_add(vf_set(2.0f), e));
}

QD_INLINE vf v_sum(const struct qd_gates *g, size_t k, vm m)
{
    vf x = vf_fma(vf_load_some(g->x + k, m), vf_set(g->x_scale), vf_load_some(g->bias + k, m));
    return vf_fma(vf_load_some(g->r + k, m), vf_set(g->r_scale), x);
}

QD_INLINE vm v_lanes(const struct qd_gates *g, size_t j)
{
    return vm_first(g->n - j < QD_SIMD_FLOATS ? g->n - j : QD_SIMD_FLOATS);
}

/* Two loops: one chain through both divisions would be longer than what a CPU looks ahead. */
QD_INLINE void gates_lstm(const struct qd_gates *g, float *c, float *h)
{
    const vf two = vf_set(2.0f), minus = vf_set(-1.0f);
    const size_t n = g->n;
    for (size_t j = 0; j < n; j += QD_SIMD_FLOATS) {
        vm m = v_lanes(g, j);
        vf di = vf_add(two, v_expm1(vf_mul(v_sum(g, j, m), minus)));
        vf df = vf_add(two, v_expm1(vf_mul(v_sum(g, 2 * n + j, m), minus)));
        vf e = v_expm1(vf_mul(v_sum(g, 3 * n + j, m), two)), both = vf_mul(di, vf_add(two, e));
        vf cell = vf_fma(vf_load_some(c + j, m), both, vf_mul(e, df));
        vf_store_some(c + j, m, vf_div(cell, vf_mul(df, both)));
    }
    for (size_t j = 0; j < n; j += QD_SIMD_FLOATS) {
        vm m = v_lanes(g, j);
        vf e = v_expm1(vf_mul(vf_load_some(c + j, m), two));
        vf d = vf_add(two, v_expm1(vf_mul(v_sum(g, n + j, m), minus)));
        vf_store_some(h + j, m, vf_div(e, vf_mul(d, vf_add(two, e))));
    }
}

QD_INLINE void gates_gru_reset(const struct qd_gates *g, const float *h, float *out)
{
    for (size_t j = 0; j < g->n; j += QD_SIMD_FLOATS) {
        vm m = v_lanes(g, j);
        vf_store_some(out + j, m, vf_mul(v_sigmoid(v_sum(g, g->n + j, m)), vf_load_some(h + j, m)));
    }
}

QD_INLINE void gates_gru(const struct qd_gates *g, float *h)
{
    for (size_t j = 0, n = g->n; j < n; j += QD_SIMD_FLOATS) {
        vm m = v_lanes(g, j);
        vf z = v_sigmoid(v_sum(g, j, m));
        vf past = vf_fma(vf_load_some(g->r_new + j, m), vf_set(g->r_new_scale), vf_load_some(g->bias_new + j, m));
        if (g->reset_after)
            past = vf_mul(v_sigmoid(v_sum(g, n + j, m)), past);
        vf x = vf_fma(vf_load_some(g->x + 2 * n + j, m), vf_set(g->x_scale), vf_load_some(g->bias + 2 * n + j, m));
        vf fresh = v_tanh(vf_add(x, past));
        vf_store_some(h + j, m, vf_fma(z, vf_fma(fresh, vf_set(-1.0f), vf_load_some(h + j, m)), fresh));
    }
}

QD_INLINE void gates_rnn(const struct qd_gates *g, float *h)
{
    for (size_t j = 0; j < g->n; j += QD_SIMD_FLOATS) {
        vm m = v_lanes(g, j);
        vf_store_some(h + j, m, v_tanh(v_sum(g, j, m)));
    }
}

#endif
#endif
