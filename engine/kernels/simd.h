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

#endif
