/* The elementwise kernels of pointwise.def on vectors; each ISA's pointwise.c compiles them. Private to the kernel
 * folders. */
#ifndef QD_ENGINE_KERNELS_POINTWISE_SIMD_H
#define QD_ENGINE_KERNELS_POINTWISE_SIMD_H

#include "engine/kernels/functions_simd.h"

#ifdef QD_SIMD_FLOATS

#define QD_PW1(NAME, name, value)                                                                                      \
    static void pw_##name(const float *a_, const float *b_, float p_, float q_, float *out, size_t n)                  \
    {                                                                                                                  \
        const vf p = vf_set(p_), q = vf_set(q_);                                                                       \
        size_t i = 0;                                                                                                  \
        for (; i + QD_SIMD_FLOATS <= n; i += QD_SIMD_FLOATS) {                                                         \
            const vf a = vf_load(a_ + i);                                                                              \
            vf_store(out + i, value);                                                                                  \
        }                                                                                                              \
        if (i < n) {                                                                                                   \
            const vf a = vf_load_some(a_ + i, vm_first(n - i));                                                        \
            vf_store_some(out + i, vm_first(n - i), value);                                                            \
        }                                                                                                              \
        (void)b_, (void)p, (void)q;                                                                                    \
    }
#define QD_PW2(NAME, name, value)                                                                                      \
    static void pw_##name(const float *a_, const float *b_, float p_, float q_, float *out, size_t n)                  \
    {                                                                                                                  \
        size_t i = 0;                                                                                                  \
        for (; i + QD_SIMD_FLOATS <= n; i += QD_SIMD_FLOATS) {                                                         \
            const vf a = vf_load(a_ + i), b = vf_load(b_ + i);                                                         \
            vf_store(out + i, value);                                                                                  \
        }                                                                                                              \
        if (i < n) {                                                                                                   \
            const vm some = vm_first(n - i);                                                                           \
            const vf a = vf_load_some(a_ + i, some), b = vf_load_some(b_ + i, some);                                   \
            vf_store_some(out + i, some, value);                                                                       \
        }                                                                                                              \
        (void)p_, (void)q_;                                                                                            \
    }
#include "engine/kernels/pointwise.def"
#undef QD_PW1
#undef QD_PW2

#define QD_PW1(NAME, name, value) [QD_PW_##NAME] = {pw_##name},
#define QD_PW2(NAME, name, value) [QD_PW_##NAME] = {pw_##name},
const struct qd_pw_kernel QD_SIMD_NAME(qd_pointwise)[QD_PW_COUNT] = {
#include "engine/kernels/pointwise.def"
};
#undef QD_PW1
#undef QD_PW2

#endif
#endif
