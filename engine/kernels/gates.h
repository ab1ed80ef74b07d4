/* The gates of recurrent cells for one unit, in plain C: the judge of gates_simd.h, which does the same operations in
 * the same order. e^x - 1 with a relative error below 3e-7 carries sigmoid and tanh. Private to engine/kernels. */
#ifndef QD_ENGINE_KERNELS_GATES_H
#define QD_ENGINE_KERNELS_GATES_H

#include "engine/kernels/kernels.h"

#include <math.h>
#include <string.h>

/* x = n ln 2 + r, |r| <= ln 2 / 2; ln 2 in two parts, the first of which has few bits; a minimax fit
 * of e^r from r^2 onwards. */
#define GATES_LOG2E  1.44269504f
#define GATES_LN2_HI 0.693145752f
#define GATES_LN2_LO 1.42860677e-6f
#define GATES_LOW    -87.0f
#define GATES_HIGH   29.0f
#define GATES_2P23   8388608.0f
#define GATES_C2     0.499999940f
#define GATES_C3     0.166665211f
#define GATES_C4     0.0416683890f
#define GATES_C5     0.00836874545f
#define GATES_C6     0.00138145406f

/* e^x - 1; beyond the limits what it is there (sigmoid stays within 3e-13, products of three stay finite). NaN stays.
 */
static inline float gates_expm1(float x)
{
    if (isnan(x))
        return x;
    x = x < GATES_LOW ? GATES_LOW : x > GATES_HIGH ? GATES_HIGH : x;
    float n = rintf(x * GATES_LOG2E);
    float r = fmaf(n, -GATES_LN2_LO, fmaf(n, -GATES_LN2_HI, x));
    float q = fmaf(GATES_C6, r, GATES_C5);
    q = fmaf(q, r, GATES_C4);
    q = fmaf(q, r, GATES_C3);
    q = fmaf(q, r, GATES_C2);
    float p = fmaf(r * r, q, r), scale;
    int32_t bits = (int32_t)((n + 127.0f) * GATES_2P23); /* 2^n */
    memcpy(&scale, &bits, sizeof scale);
    return fmaf(scale, p, scale - 1.0f);
}

static inline float gates_sigmoid(float x) { return 1.0f / (2.0f + gates_expm1(x * -1.0f)); }

static inline float gates_tanh(float x)
{
    float e = gates_expm1(x * 2.0f);
    return e / (2.0f + e);
}

/* LSTM's cell with one division: f c + i g, where i, f = 1 / d with d = 2 + e^-x - 1, and g = e / (2 + e). */
static inline float gates_cell(float i_sum, float f_sum, float g_sum, float c)
{
    float di = 2.0f + gates_expm1(i_sum * -1.0f), df = 2.0f + gates_expm1(f_sum * -1.0f);
    float e = gates_expm1(g_sum * 2.0f), both = di * (2.0f + e);
    return fmaf(c, both, e * df) / (df * both);
}

/* sigmoid(o) tanh(c) with one division. */
static inline float gates_out(float o_sum, float c)
{
    float e = gates_expm1(c * 2.0f);
    return e / ((2.0f + gates_expm1(o_sum * -1.0f)) * (2.0f + e));
}

/* The sum in front of the activation of unit k of all gates. */
static inline float gates_sum(const struct qd_gates *g, size_t k)
{
    return fmaf(g->r[k], g->r_scale, fmaf(g->x[k], g->x_scale, g->bias[k]));
}

#endif
