/* A matrix product in float on kernels->gemm_f32 with B packed at run time: what Gemm, MatMul and Conv come down to
 * when their weights are no constants. Private to engine/ops; constant weights are packed once, in linear.h. */
#ifndef QD_ENGINE_OPS_PRODUCT_H
#define QD_ENGINE_OPS_PRODUCT_H

#include "engine/ops/helpers.h"

/* out[i][j] = sum over p of a[i][p] * b(p, j), i < m, j < n, p < k. Strides in elements. */
struct qd_product {
    size_t m, n, k;
    const float *a; /* rows of k */
    size_t a_stride;
    const float *b; /* element (p, j) at p * b_depth + j * b_column */
    size_t b_depth, b_column;
    float *out; /* rows of n */
    size_t out_stride;
};

/* Bytes of scratch for one product of that size at a time (64-byte multiples). */
size_t qd_product_bytes(const struct qd_kernels *kernels, size_t n, size_t k);
/* Computes on this thread. k = 0 gives zeros. */
void qd_product_run(const struct qd_product *product, const struct qd_kernels *kernels, void *scratch);

#endif
