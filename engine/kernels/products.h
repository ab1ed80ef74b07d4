/* Products with weights: what a matrix product or a depthwise convolution is given, and what its accumulators become.
 * Part of the table of kernels (kernels.h), whose rules hold here too. */
#ifndef QD_ENGINE_KERNELS_PRODUCTS_H
#define QD_ENGINE_KERNELS_PRODUCTS_H

#include "engine/quant/qparams.h"
#include "engine/quant/requant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Activations of an epilogue, on real values, with their parameters a and b. The functions are functions.h's, the same
 * bits on every ISA. */
enum qd_act {
    QD_ACT_NONE,
    QD_ACT_CLIP,         /* min(max(x, a), b) (Relu: 0, +inf); NaN gives a */
    QD_ACT_HARD_SIGMOID, /* min(max(a x + b, 0), 1) */
    QD_ACT_HARD_SWISH,   /* x * min(max(a x + b, 0), 1) */
    QD_ACT_SIGMOID,
    QD_ACT_SILU,      /* x * sigmoid(x) */
    QD_ACT_GELU,      /* by erf */
    QD_ACT_GELU_TANH, /* by tanh */
    QD_ACT_TANH,
    QD_ACT_LEAKY_RELU, /* x < 0 ? a x : x */
    QD_ACT_COUNT,
};

/* r = kind(x); then, when `affine`, r = r * mul + add (two roundings). All zero: nothing. */
struct qd_activation {
    enum qd_act kind;
    float a, b;
    bool affine;
    float mul, add;
};

/* A second operand of an epilogue: element (row i, column j) is data[i * stride_elems + j], counted like the output's;
 * uint8_t as carried when qp is there (equation (2)), else float. data NULL: none. */
struct qd_residual {
    const void *data;
    size_t stride_elems;
    const struct qd_qparams *qp;
};

/* Where the rows of A come from. Row i is `taps` pieces of `tap_bytes` contiguous bytes, k = taps * tap_bytes / element
 * size. direct (table == NULL): taps == 1, the piece starts at base + i * stride_bytes. indirect: piece t starts at
 * table[i * taps + t] + offset_bytes; a tap in the padding points into a caller's buffer that holds the zero point (u8)
 * or 0.0 (f32), long enough for offset_bytes + tap_bytes. */
struct qd_rows {
    const void *base;
    size_t stride_bytes;
    const void *const *table;
    size_t taps, tap_bytes, offset_bytes;
};

/* What happens to accumulators, per column j in [0, n):  r = act(((float)acc * scale[j] + bias[j]) + residual)
 * * by[j]. f32 GEMM: the same with its float accumulator, scale may be NULL (1). */
struct qd_epilogue {
    const int32_t *acc_init; /* [n] added to the integer accumulator: -Zx * column sum of w; ignored by f32 */
    const float *scale;      /* [n] Sx * Sw[j] */
    const float *bias;       /* [n], or NULL for 0 */
    /* NULL, or (u8 GEMM only) row i of A has a scale and a zero point of its own, equation (7b): the real value is
     * (float)(acc - rows[i].zero_point * sums[j]) * (rows[i].scale * scale[j]) + bias[j]; acc_init is then ignored. */
    const struct qd_row_scale *rows;
    size_t row_count;    /* of rows */
    const int32_t *sums; /* [n] of w - weight_zeros, with rows */
    /* NULL, or (u8 GEMM only) the weights of column j have a zero point, and row i of A adds up to row_sums[i]: before
     * anything else weight_zeros[j] * row_sums[i] is taken off, equation (6b). k is at most QD_ASYMMETRIC_K then. */
    const int32_t *weight_zeros; /* [n] in -128..127 */
    const int32_t *row_sums;     /* of the rows of A, as sum_rows_u8 makes them */
    struct qd_activation act;
    const float *by; /* [n] positive; or NULL for 1 */
    struct qd_residual residual;
    void *out;               /* element (row 0, column 0): uint8_t or int16_t when `quantize`, else float */
    size_t out_stride_elems; /* from row to row */
    const struct qd_qparams
        *quantize; /* NULL: write r as float; else write equation (8) with inv_scale = 1 / S in float */
    bool out_s16;  /* with quantize: written as int16_t, qmin and qmax within its range; else uint8_t */
    struct qd_observation *observe; /* NULL, or merged into: every r of the block (elems counted) */
};

/* Deepest product with zero points of weights: k * 255 * 255 stays below 2^31. */
#define QD_ASYMMETRIC_K 33000

struct qd_gemm_args {
    size_t m, n, k;            /* of the whole product */
    size_t row_begin, row_end; /* the block to compute; any split gives the same bytes */
    size_t col_begin, col_end; /* col_begin a multiple of nr */
    struct qd_rows a;          /* [m, k]: uint8_t, int16_t or float */
    const void *b;             /* packed whole B */
    struct qd_epilogue epilogue;
    void *scratch; /* scratch_bytes(k), 64-byte aligned, one per thread */
};

/* y[m, n] = epilogue(A u8 [m, k] . B s8 [k, n]), accumulated in int32 exactly: k * 255 * 127 must stay below 2^31 (k <=
 * 66,000). Packed B is panel after panel of nr columns: columns from a multiple c of nr on stand packed_bytes(c, k)
 * bytes behind the first, so that a matrix can be packed in pieces. A is row-major without padding: a kernel may not
 * read past row ends. */
struct qd_gemm_q8 {
    const char *name; /* "qd_gemm_u8s8_12x32x4__avx512vnni" */
    size_t mr, nr, kr;
    size_t (*packed_bytes)(size_t n, size_t k);
    /* w[j * row_stride + p * col_stride] is the weight of output column j at depth p. Writes the panels and sums[j] =
     * sum_p w. */
    void (*pack)(size_t n, size_t k, const int8_t *w, size_t row_stride, size_t col_stride, void *packed,
                 int32_t *sums);
    size_t (*scratch_bytes)(size_t k);
    void (*run)(const struct qd_gemm_args *args);
};

/* y[m, n] = epilogue(A s16 [m, k] . B s8 or s16 [k, n]), exact for any values and any k below 2^31, then one rounding
 * to float. Zero points are 0 (equation (4)): acc_init is ignored. Packed B can be packed in pieces, as that of
 * qd_gemm_q8.
 */
struct qd_gemm_q16 {
    const char *name; /* "qd_gemm_s16_12x32x2__avx512vnni" */
    size_t mr, nr, kr;
    size_t (*packed_bytes)(size_t n, size_t k);
    /* One of w8 and w16 is NULL; indexed as in qd_gemm_q8. */
    void (*pack)(size_t n, size_t k, const int8_t *w8, const int16_t *w16, size_t row_stride, size_t col_stride,
                 void *packed);
    size_t (*scratch_bytes)(size_t k);
    void (*run)(const struct qd_gemm_args *args); /* a: int16_t */
};

/* The same in float. Order of summation depends on k only, so rows, columns, threads and batch never change a result.
 */
struct qd_gemm_f32 {
    const char *name;
    size_t mr, nr;
    size_t (*packed_bytes)(size_t n, size_t k);
    /* Each weight is multiplied by factor[j] when factor is not NULL. */
    void (*pack)(size_t n, size_t k, const float *w, size_t row_stride, size_t col_stride, const float *factor,
                 void *packed);
    size_t (*scratch_bytes)(size_t k);
    void (*run)(const struct qd_gemm_args *args);
};

/* Depthwise convolution, channels last: channel j of an output pixel is the sum over taps of channel j of its input
 * pixels times the tap's weight. Taps stand column by column, (y, x) at x * kh + y, so that neighbouring pixels share
 * columns: the taps of pixel i of row r are the kh * kw pointers from table[r * row_entries + i * pixel_entries] on,
 * each to an input pixel (its channel 0). A tap in the padding points to `channels` zero points (u8) or zeros (f32). */
struct qd_depthwise_args {
    size_t rows, pixels; /* output rows of this call, output pixels a row; written one after the other */
    size_t kh, kw, channels;
    size_t channel_begin,
        channel_end; /* what to compute; begin a multiple of the tile; any split gives the same bytes */
    const void *const *table;
    size_t row_entries, pixel_entries; /* pixel_entries: horizontal stride * kh where columns are shared */
    const void *weights;               /* packed */
    struct qd_epilogue epilogue;       /* columns are channels; out and residual: pixel 0, channel 0 */
};

struct qd_depthwise_q8 {
    const char *name;
    size_t tile; /* channels */
    size_t (*packed_bytes)(size_t channels, size_t kh, size_t kw);
    /* w[channel][kh * kw], rows of the kernel one after the other; sums[channel] = sum of its weights. */
    void (*pack)(size_t channels, size_t kh, size_t kw, const int8_t *w, void *packed, int32_t *sums);
    void (*run)(const struct qd_depthwise_args *args);
};

/* The same in float: one fused chain a channel in the order of the table, the same bits on every ISA. */
struct qd_depthwise_f32 {
    const char *name;
    size_t tile;
    size_t (*packed_bytes)(size_t channels, size_t kh, size_t kw);
    void (*pack)(size_t channels, size_t kh, size_t kw, const float *w, void *packed);
    void (*run)(const struct qd_depthwise_args *args);
};

#endif
