/* Elementwise float operations over a piece of memory: one function each (pointwise.def), the steps of fused programs
 * (engine/ops/pointwise.h). Not for layouts or broadcasting: whoever calls brings operands of the same length. */
#ifndef QD_ENGINE_KERNELS_POINTWISE_H
#define QD_ENGINE_KERNELS_POINTWISE_H

#include <stddef.h>

#define QD_PW1(NAME, name, value) QD_PW_##NAME,
#define QD_PW2(NAME, name, value) QD_PW_##NAME,
enum qd_pw {
#include "engine/kernels/pointwise.def"
    QD_PW_COUNT
};
#undef QD_PW1
#undef QD_PW2

/* out[i] = operation on a[i] and b[i], or on a[i], p and q (then b is not read), i < n; out may be a or b. The same
 * bits on every ISA. */
struct qd_pw_kernel {
    void (*run)(const float *a, const float *b, float p, float q, float *out, size_t n);
};

#endif
