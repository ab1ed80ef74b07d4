/* One float as a vector of one lane: simd.h's operations in portable C, so that text written in its names can be
 * compiled for a single value too (lane_names.h gives them those names). Private to engine/kernels. */
#ifndef QD_ENGINE_KERNELS_LANE_H
#define QD_ENGINE_KERNELS_LANE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline float qd_lane_set(float x) { return x; }
static inline float qd_lane_add(float a, float b) { return a + b; }
static inline float qd_lane_sub(float a, float b) { return a - b; }
static inline float qd_lane_mul(float a, float b) { return a * b; }
static inline float qd_lane_div(float a, float b) { return a / b; }
static inline float qd_lane_fma(float a, float b, float c) { return fmaf(a, b, c); }
static inline float qd_lane_min(float a, float b) { return a < b ? a : b; }
static inline float qd_lane_max(float a, float b) { return a > b ? a : b; }
static inline float qd_lane_abs(float x) { return fabsf(x); }
static inline float qd_lane_negate(float x) { return -x; }
static inline float qd_lane_sqrt(float x) { return sqrtf(x); }
static inline bool qd_lane_lt(float a, float b) { return a < b; }
static inline bool qd_lane_unordered(float x) { return x != x; }
static inline float qd_lane_pick(bool m, float a, float b) { return m ? a : b; }
static inline int32_t qd_lane_bits(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float qd_lane_from_bits(int32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline int32_t qd_lane_int(int32_t x) { return x; }
static inline int32_t qd_lane_int_sub(int32_t a, int32_t b) { return (int32_t)((uint32_t)a - (uint32_t)b); }
static inline float qd_lane_from_int(int32_t x) { return (float)x; }
static inline int32_t qd_lane_exponent_up(int32_t x) { return (int32_t)((uint32_t)x << 23); }
static inline int32_t qd_lane_exponent_down(int32_t x) { return x >> 23; }
/* x * 2^k, rounded once; k an integer from -150 to 128, or NaN with x. */
static inline float qd_lane_scale(float x, float k)
{
    const int32_t whole = k > -151.0f ? (int32_t)k : 0, half = whole >> 1;
    return x * qd_lane_from_bits(qd_lane_exponent_up(half + 127)) *
           qd_lane_from_bits(qd_lane_exponent_up(whole - half + 127));
}

#endif
