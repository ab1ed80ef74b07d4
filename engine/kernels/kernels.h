/* The table of kernels. Portable C fills it, each instruction set overrides what it does better
 * (engine/kernels/<isa>/init.c); tests/kernels proves each entry against plain arithmetic under every QUANTD_ISA.
 * Kernels see no graph, allocate nothing, log nothing and cannot fail: whoever compiles a plan has checked sizes.
 * Integer kernels give the same bytes on every ISA.
 *
 * Work is split by the caller over rows and columns of the output, never over k. */
#ifndef QD_ENGINE_KERNELS_KERNELS_H
#define QD_ENGINE_KERNELS_KERNELS_H

#include "base/status.h"
#include "engine/kernels/pointwise.h"
#include "engine/kernels/products.h"
#include "engine/quant/qparams.h"
#include "engine/quant/requant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum qd_isa { QD_ISA_SCALAR, QD_ISA_AVX2, QD_ISA_AVX512VNNI, QD_ISA_AMX, QD_ISA_COUNT };

/* Rows of n floats one behind the other, normalized one by one. y may be x. */
struct qd_norm {
    const float *x;
    size_t rows, n;
    const float *scale, *bias; /* [n], or NULL for 1 and 0 */
    float epsilon;
    float *y;
    float *mean, *inv; /* [rows], or NULL: the mean; 1 / sqrt(variance + epsilon) */
};

enum qd_reduction { QD_SUM_OF, QD_SUM_OF_ABS, QD_SUM_OF_SQUARES, QD_MAX_OF, QD_MIN_OF, QD_REDUCTION_COUNT };

/* What one step of a recurrent cell of n units gets. Gate by gate, n values each: the sum in front of gate g's
 * activation is x * x_scale + bias + r * r_scale, x from the input, r from the state. GRU's new gate takes r_new *
 * r_new_scale + bias_new instead of r, multiplied by the reset gate when `reset_after` (else it is in r_new already).
 */
struct qd_gates {
    size_t n;
    const float *x, *r, *bias;
    float x_scale, r_scale;
    const float *r_new, *bias_new;
    float r_new_scale;
    bool reset_after;
};

/* out[i * out_stride + j] = (a[i * n + j] + b[i * n + j]) * factor[i] + shift, rounded at each step; b may be NULL. */
struct qd_join {
    const float *a, *b;
    size_t rows, n;
    const float *factor;
    float shift;
    float *out;
    size_t out_stride;
};

struct qd_kernels {
    const char *isa_name; /* of the highest level that contributed */
    enum qd_isa isa;
    struct qd_gemm_q8 gemm_q8;
    struct qd_gemm_q16 gemm_q16;
    struct qd_gemm_f32 gemm_f32;
    struct qd_depthwise_q8 depthwise_q8;
    struct qd_depthwise_f32 depthwise_f32;
    /* x[n] -> q[n] by (1); merges into *obs when not NULL. */
    void (*quantize_u8)(const float *x, size_t n, const struct qd_qparams *qp, uint8_t *q, struct qd_observation *obs);
    /* The same to 16 bits, zero point 0 (equation (4)). */
    void (*quantize_s16)(const float *x, size_t n, const struct qd_qparams *qp, int16_t *q, struct qd_observation *obs);
    /* quantize_u8 by (8): multiplied by the reciprocal of the scale, as epilogues do. */
    void (*requantize_u8)(const float *x, size_t n, const struct qd_qparams *qp, uint8_t *q,
                          struct qd_observation *obs);
    /* Each of `rows` rows of n floats, `stride` floats apart, multiplied by by[n] (NULL: as it is), by its own range
     * (section 5 of docs/QUANTIZATION.md) and (8): q[rows * n], its scale and zero point in scales[rows]. What is not
     * finite is left out of a row's range. Merges into *obs when not NULL. */
    void (*quantize_rows_u8)(const float *x, size_t stride, const float *by, size_t rows, size_t n, bool symmetric,
                             uint8_t *q, struct qd_row_scale *scales, struct qd_observation *obs);
    /* sums[i] = sum of the bytes of row i. */
    void (*sum_rows_u8)(const struct qd_rows *a, size_t rows, int32_t *sums);
    /* q[n] -> r[n] by (2). */
    void (*dequantize_u8)(const uint8_t *q, size_t n, const struct qd_qparams *qp, float *r);
    /* min, max, counts of x[n]; clipping against qp when not NULL. */
    void (*observe_f32)(const float *x, size_t n, const struct qd_qparams *qp, struct qd_observation *obs);
    /* out[j] = max over i of in[i][j], j < n: one output pixel of a max pool, channels last. rows >= 1; out may be
     * in[0]. */
    void (*max_rows_u8)(const uint8_t *const *in, size_t rows, size_t n, uint8_t *out);
    /* The same in float: a NaN wins, of equal zeros the first. */
    void (*max_rows_f32)(const float *const *in, size_t rows, size_t n, float *out);
    /* out[j] = (in[0][j] + in[1][j] + ...) * factor, added in this order. rows >= 1. */
    void (*mean_rows_f32)(const float *const *in, size_t rows, size_t n, float factor, float *out);
    /* out[j] = (float)(offset + in[0][j] + in[1][j] + ...) * factor; the sum stays within int32. */
    void (*mean_rows_u8)(const uint8_t *const *in, size_t rows, size_t n, int32_t offset, float factor, float *out);
    /* out[j] = in[0][j] * weight[0] + in[1][j] * weight[1] + ..., two roundings a term. rows >= 1. */
    void (*weigh_rows_f32)(const float *const *in, const float *weight, size_t rows, size_t n, float *out);
    /* Columns with a scale each: scale[j] = the largest |x| of column j / 127 (1 for 0; NaN where something is not
     * finite), q[i * n + j] = x[i * stride + j] / scale[j], rounded; never -128. */
    void (*quantize_columns_s8)(const float *x, size_t rows, size_t stride, size_t n, int8_t *q, float *scale);
    void (*join_rows)(const struct qd_join *join);
    /* Rows of n scores, `stride` apart, become exp(x - the row's largest) in place; sums[i] of row i, in sixteen parts
     * by column that a tree joins. What a softmax divides comes later. */
    void (*exp_rows_f32)(float *x, size_t rows, size_t n, size_t stride, float *sums);
    /* The same as integers w = round(65535 exp(x - largest)) within 7.5e-5 of them and a half; NaN gives 0. Their high
     * and low bytes, in rows out_stride apart with zeros from n to the next multiple of four; sums of w. n <= 65536. */
    void (*exp_rows_u16)(const float *x, size_t rows, size_t n, size_t stride, uint8_t *high, uint8_t *low,
                         size_t out_stride, float *sums);
    /* out[c * out_stride + r] = in[r * in_stride + c], r < rows, c < cols; strides in elements. */
    void (*transpose_u8)(const uint8_t *in, size_t in_stride, size_t rows, size_t cols, uint8_t *out,
                         size_t out_stride);
    void (*transpose_f32)(const float *in, size_t in_stride, size_t rows, size_t cols, float *out, size_t out_stride);
    const struct qd_pw_kernel *pointwise; /* [QD_PW_COUNT] */
    /* Rows of floats (rows_simd.h): sums run in 64 parts that one tree joins, so every ISA gives the same bits. n >= 1.
     * y = (x - mean) * inv * scale + bias; by the root of the mean square, without mean and bias: y = x * inv * scale.
     */
    void (*layer_norm)(const struct qd_norm *norm);
    void (*rms_norm)(const struct qd_norm *norm);
    /* y = e^(x - m) / sum, or (x - m) - log(sum) when `logarithm`, m being a row's largest value; y may be x. */
    void (*softmax)(const float *x, size_t rows, size_t n, bool logarithm, float *y);
    /* Mean and variance (by n) of x[n]. */
    void (*moments)(const float *x, size_t n, float *mean, float *variance);
    /* y[i] = (x[i] - mean) * factor + bias; y may be x. */
    void (*centre)(const float *x, size_t n, float mean, float factor, float bias, float *y);
    /* out[i] = the reduction of row i; out[j] = that of column j of rows `stride` floats apart, rows in order. A NaN
     * makes the result NaN. */
    void (*reduce_rows)(enum qd_reduction kind, const float *x, size_t rows, size_t n, float *out);
    void (*reduce_columns)(enum qd_reduction kind, const float *x, size_t rows, size_t stride, size_t n, float *out);
    /* One row of a step with sigmoid and tanh in their usual places: gates i, o, f, c; the cell c[n] goes on, the state
     * h[n] is written. */
    void (*lstm_gates)(const struct qd_gates *g, float *c, float *h);
    /* Gates z, r, h: out[n] = r * h; then the new state from the old in h[n]. */
    void (*gru_reset)(const struct qd_gates *g, const float *h, float *out);
    void (*gru_gates)(const struct qd_gates *g, float *h);
    void (*rnn_gates)(const struct qd_gates *g, float *h);
};

/* What CPU and operating system (CPUID, XCR0, for AMX a permission that the process asks for) offer, and-ed with
 * QUANTD_ISA (scalar|avx2|avx512vnni|amx; an unknown name is an error). Detected once; the table is const afterwards.
 * [any] */
enum qd_status qd_kernels_get(const struct qd_kernels **out, struct qd_error *error) QD_MUST_CHECK;
/* The table at or below `isa`, or NULL when this CPU can't run it: for tests and benchmarks. [any] */
const struct qd_kernels *qd_kernels_at(enum qd_isa isa);
const char *qd_isa_name(enum qd_isa isa);

/* Every entry of `kernels` against plain arithmetic on seeded adversarial data. Errors: INTERNAL naming the kernel.
 * [any] */
enum qd_status qd_kernels_selftest(const struct qd_kernels *kernels, uint64_t seed,
                                   struct qd_error *error) QD_MUST_CHECK;

#endif
