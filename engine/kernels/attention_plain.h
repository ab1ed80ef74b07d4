/* Exponentials of a softmax that end as bytes, one value at a time: what attention_simd.h does many at a time, in the
 * same operations, so that every ISA writes the same bytes. Private to engine/kernels. */
#ifndef QD_ENGINE_KERNELS_ATTENTION_PLAIN_H
#define QD_ENGINE_KERNELS_ATTENTION_PLAIN_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* 255 * 2^f for |f| <= 1/2 by a polynomial: within 7.5e-5 of it, relatively, a fiftieth of a byte. */
#define ATTENTION_C0    254.981658f
#define ATTENTION_C1    176.781558f
#define ATTENTION_C2    61.8658355f
#define ATTENTION_C3    14.0687668f
#define ATTENTION_LOG2E 1.44269504f
#define ATTENTION_LEAST (-20.0f)    /* powers of two below give 0 */
#define ATTENTION_ROUND 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer */

enum { ATTENTION_PARTS = 16 };

/* `below`: x less the row's largest. */
static inline uint8_t attention_byte(float below)
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
    return (uint8_t)rintf(p);
}

static inline float attention_largest(const float *x, size_t n)
{
    float most = -INFINITY;
    for (size_t j = 0; j < n; j++)
        most = x[j] > most ? x[j] : most;
    return most;
}

static inline float attention_join(float parts[ATTENTION_PARTS])
{
    for (size_t half = ATTENTION_PARTS / 2; half; half /= 2)
        for (size_t i = 0; i < half; i++)
            parts[i] += parts[i + half];
    return parts[0];
}

#endif
