/* Exponentials of a softmax that end as 16-bit integers, one value at a time: what attention_simd.h does many at a
 * time, in the same operations, so that every ISA writes the same ones. Private to engine/kernels. */
#ifndef QD_ENGINE_KERNELS_ATTENTION_PLAIN_H
#define QD_ENGINE_KERNELS_ATTENTION_PLAIN_H

#include "engine/quant/qparams.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* 65535 * 2^f for |f| <= 1/2 by a polynomial: within 7.5e-5 of it, relatively, and never above. */
#define ATTENTION_C0    65530.2863f
#define ATTENTION_C1    45432.8591f
#define ATTENTION_C2    15899.5197f
#define ATTENTION_C3    3615.67308f
#define ATTENTION_LOG2E 1.44269504f
#define ATTENTION_LEAST (-20.0f)    /* powers of two below give 0 */
#define ATTENTION_ROUND 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer */

enum { ATTENTION_PARTS = 16 };

/* `below`: x less the row's largest. */
static inline uint32_t attention_weight(float below)
{
    float y = below * ATTENTION_LOG2E;
    y = y > ATTENTION_LEAST ? y : ATTENTION_LEAST;
    const float rounded = y + ATTENTION_ROUND, f = y - (rounded - ATTENTION_ROUND);
    float p = fmaf(fmaf(fmaf(ATTENTION_C3, f, ATTENTION_C2), f, ATTENTION_C1), f, ATTENTION_C0);
    uint32_t bits, power;
    memcpy(&bits, &p, sizeof bits);
    memcpy(&power, &rounded, sizeof power);
    bits += power << 23; /* the integer's low bits stand at the bottom of the sum's */
    memcpy(&p, &bits, sizeof p);
    return (uint32_t)rintf(p);
}

/* Columns from `j` on, with zeros up to a multiple of four. Returns their sum. */
static inline uint32_t attention_rest(const float *x, size_t j, size_t n, float most, uint8_t *high, uint8_t *low)
{
    uint32_t sum = 0;
    for (; j < n || j % 4; j++) {
        const uint32_t weight = j < n ? attention_weight(x[j] - most) : 0;
        high[j] = (uint8_t)(weight >> 8);
        low[j] = (uint8_t)(weight & 255);
        sum += weight;
    }
    return sum;
}

static inline float attention_largest(const float *x, size_t n)
{
    float most = -INFINITY;
    for (size_t j = 0; j < n; j++)
        most = x[j] > most ? x[j] : most;
    return most;
}

/* One column of quantize_columns_s8. */
static inline void attention_column(const float *x, size_t rows, size_t stride, int8_t *q, size_t q_stride,
                                    float *scale)
{
    float most = 0.0f, poison = 0.0f;
    for (size_t i = 0; i < rows; i++) {
        const float a = fabsf(x[i * stride]);
        most = a > most ? a : most;
        poison = fmaf(x[i * stride], 0.0f, poison);
    }
    const float step = qd_weight_scale_s8(most), inv = 1.0f / step;
    *scale = step + poison;
    for (size_t i = 0; i < rows; i++) {
        float y = x[i * stride] * inv;
        y = y > -127.0f ? y : -127.0f;
        y = y < 127.0f ? y : 127.0f;
        q[i * q_stride] = (int8_t)rintf(y);
    }
}

static inline float attention_join(float parts[ATTENTION_PARTS])
{
    for (size_t half = ATTENTION_PARTS / 2; half; half /= 2)
        for (size_t i = 0; i < half; i++)
            parts[i] += parts[i + half];
    return parts[0];
}

#endif
