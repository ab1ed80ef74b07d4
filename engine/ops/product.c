/* A matrix product in float with B packed at run time. See product.h. */
#include "engine/ops/product.h"

#include <string.h>

size_t qd_product_bytes(const struct qd_kernels *kernels, size_t n, size_t k)
{
    if (n == 0 || k == 0)
        return 0;
    return qd_align_up(kernels->gemm_f32.packed_bytes(n, k)) + qd_align_up(kernels->gemm_f32.scratch_bytes(k));
}

void qd_product_run(const struct qd_product *p, const struct qd_kernels *kernels, void *scratch)
{
    if (p->m == 0 || p->n == 0)
        return;
    if (p->k == 0) {
        for (size_t i = 0; i < p->m; i++)
            memset(p->out + i * p->out_stride, 0, p->n * sizeof(float));
        return;
    }
    char *packed = scratch;
    kernels->gemm_f32.pack(p->n, p->k, p->b, p->b_column, p->b_depth, NULL, packed);
    struct qd_gemm_args args = {
        .m = p->m,
        .n = p->n,
        .k = p->k,
        .row_end = p->m,
        .col_end = p->n,
        .a = {.base = p->a, .stride_bytes = p->a_stride * sizeof(float), .taps = 1, .tap_bytes = p->k * sizeof(float)},
        .b = packed,
        .epilogue = {.out = p->out, .out_stride_elems = p->out_stride},
        .scratch = packed + qd_align_up(kernels->gemm_f32.packed_bytes(p->n, p->k)),
    };
    kernels->gemm_f32.run(&args);
}
