/* The vector operations of the ISA that this file is being compiled for, under one set of names (QD_SIMD_FLOATS lanes);
 * none in a portable file. The one place that looks at the compiler's ISA macros. Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_SIMD_H
#define QD_ENGINE_KERNELS_SIMD_H

#if defined(__AVX512VNNI__)
#include "engine/kernels/avx512vnni/simd.h"
#elif defined(__AVX2__)
#include "engine/kernels/avx2/simd.h"
#endif

#define QD_INLINE static inline __attribute__((always_inline))

#ifdef QD_SIMD_FLOATS

/* Two rows of integers as bytes; row a in the lower half. Exact, for every step saturates. */
QD_INLINE vi vi_pack(const vi a[2], const vi b[2]) { return vi_bytes(vi_words(a[0], a[1]), vi_words(b[0], b[1])); }

/* The same of min(max(x + zero_point, qmin), qmax). */
QD_INLINE vi vi_pack_u8(const vi a[2], const vi b[2], int32_t zero_point, int32_t qmin, int32_t qmax)
{
    const int16_t zero = (int16_t)zero_point;
    const vi bytes = vi_bytes(vi_add_words(vi_words(a[0], a[1]), zero), vi_add_words(vi_words(b[0], b[1]), zero));
    if (qmin <= 0 && qmax >= 255)
        return bytes;
    return vi_limit_bytes(bytes, vi_set_bytes((uint8_t)qmin), vi_set_bytes((uint8_t)qmax));
}

#endif

#endif
