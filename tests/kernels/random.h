/* Seeded adversarial data for the kernel tests: buffers by kind, because uniform noise never meets saturation. */
#ifndef QD_TESTS_KERNELS_RANDOM_H
#define QD_TESTS_KERNELS_RANDOM_H

#include "engine/quant/requant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kind { KIND_UNIFORM, KIND_ZEROS, KIND_NEAR_MIN, KIND_NEAR_MAX, KIND_EXTREMES, KIND_COUNT };

static inline uint32_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static inline uint8_t draw_u8(uint64_t *s, enum kind kind)
{
    switch (kind) {
    case KIND_ZEROS:
        return 0;
    case KIND_NEAR_MIN:
        return (uint8_t)(draw(s) % 4);
    case KIND_NEAR_MAX:
        return (uint8_t)(255 - draw(s) % 4);
    case KIND_EXTREMES:
        return 255;
    default:
        return (uint8_t)draw(s);
    }
}

/* Weights: -127 throughout for KIND_EXTREMES. */
static inline int8_t draw_s8(uint64_t *s, enum kind kind)
{
    switch (kind) {
    case KIND_ZEROS:
        return 0;
    case KIND_NEAR_MIN:
        return (int8_t)((int)(draw(s) % 4) - 127);
    case KIND_NEAR_MAX:
        return (int8_t)(127 - (int)(draw(s) % 4));
    case KIND_EXTREMES:
        return -127;
    default:
        return (int8_t)((int)(draw(s) % 255) - 127);
    }
}

static inline float draw_f32(uint64_t *s, float width) { return ((float)(draw(s) % 65536) / 65536.0f - 0.5f) * width; }

/* Numerically the same observation (the judge may have met -0 first). */
static inline bool same_observation(const struct qd_observation *a, const struct qd_observation *b)
{
    return a->min == b->min && a->max == b->max && a->elems == b->elems && a->nonfinite == b->nonfinite &&
           a->clipped_low == b->clipped_low && a->clipped_high == b->clipped_high;
}

/* Bits of floats, any NaN as good as another. */
static inline bool same_floats(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(a[i] == b[i] && signbit(a[i]) == signbit(b[i])) && !(isnan(a[i]) && isnan(b[i])))
            return false;
    return true;
}

#endif
