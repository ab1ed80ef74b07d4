/* What each instruction set's folder hands to the table, and the table's own check. Private to engine/kernels and its
 * tests; everybody else asks qd_kernels_get (kernels.h). Prototypes are written out, one block an ISA, so that a
 * missing kernel is an error of the linker and never a NULL. */
#ifndef QD_ENGINE_KERNELS_DISPATCH_H
#define QD_ENGINE_KERNELS_DISPATCH_H

#include "engine/kernels/kernels.h"

/* No member is NULL, tiles have a size, packed matrices are as long as their tiles say. Errors: INTERNAL naming the
 * member. [any] */
enum qd_status qd_kernels_check(const struct qd_kernels *kernels, struct qd_error *error) QD_MUST_CHECK;

/* Each overrides what it does better; called in the order of enum qd_isa on the same table. */
void qd_kernels_init__scalar(struct qd_kernels *kernels);
void qd_kernels_init__avx2(struct qd_kernels *kernels);
void qd_kernels_init__avx512vnni(struct qd_kernels *kernels);
void qd_kernels_init__amx(struct qd_kernels *kernels);

extern const struct qd_gemm_q8 qd_gemm_q8__scalar;
extern const struct qd_gemm_q16 qd_gemm_q16__scalar;
extern const struct qd_gemm_f32 qd_gemm_f32__scalar;
extern const struct qd_depthwise_q8 qd_depthwise_q8__scalar;
extern const struct qd_depthwise_f32 qd_depthwise_f32__scalar;
extern const struct qd_pw_kernel qd_pointwise__scalar[QD_PW_COUNT];
void qd_quantize_u8__scalar(const float *x, size_t n, const struct qd_qparams *qp, uint8_t *q,
                            struct qd_observation *obs);
void qd_quantize_s16__scalar(const float *x, size_t n, const struct qd_qparams *qp, int16_t *q,
                             struct qd_observation *obs);
void qd_requantize_u8__scalar(const float *x, size_t n, const struct qd_qparams *qp, uint8_t *q,
                              struct qd_observation *obs);
void qd_quantize_rows_u8__scalar(const float *x, size_t stride, const float *by, size_t rows, size_t n, bool symmetric,
                                 uint8_t *q, struct qd_row_scale *scales, struct qd_observation *obs);
void qd_sum_rows_u8__scalar(const struct qd_rows *a, size_t rows, int32_t *sums);
void qd_dequantize_u8__scalar(const uint8_t *q, size_t n, const struct qd_qparams *qp, float *r);
void qd_observe_f32__scalar(const float *x, size_t n, const struct qd_qparams *qp, struct qd_observation *obs);
void qd_max_rows_u8__scalar(const uint8_t *const *in, size_t rows, size_t n, uint8_t *out);
void qd_max_rows_f32__scalar(const float *const *in, size_t rows, size_t n, float *out);
void qd_mean_rows_f32__scalar(const float *const *in, size_t rows, size_t n, float factor, float *out);
void qd_mean_rows_u8__scalar(const uint8_t *const *in, size_t rows, size_t n, int32_t offset, float factor, float *out);
void qd_weigh_rows_f32__scalar(const float *const *in, const float *weight, size_t rows, size_t n, float *out);
void qd_lstm_gates__scalar(const struct qd_gates *g, float *c, float *h);
void qd_gru_reset__scalar(const struct qd_gates *g, const float *h, float *out);
void qd_gru_gates__scalar(const struct qd_gates *g, float *h);
void qd_rnn_gates__scalar(const struct qd_gates *g, float *h);
void qd_join_rows__scalar(const struct qd_join *join);
void qd_quantize_columns_s8__scalar(const float *x, size_t rows, size_t stride, size_t n, int8_t *q, float *scale);
void qd_exp_rows_f32__scalar(float *x, size_t rows, size_t n, size_t stride, float *sums);
void qd_exp_rows_u16__scalar(const float *x, size_t rows, size_t n, size_t stride, uint8_t *high, uint8_t *low,
                             size_t out_stride, float *sums);
void qd_transpose_u8__scalar(const uint8_t *in, size_t in_stride, size_t rows, size_t cols, uint8_t *out,
                             size_t out_stride);
void qd_transpose_f32__scalar(const float *in, size_t in_stride, size_t rows, size_t cols, float *out,
                              size_t out_stride);
void qd_layer_norm__scalar(const struct qd_norm *norm);
void qd_rms_norm__scalar(const struct qd_norm *norm);
void qd_softmax__scalar(const float *x, size_t rows, size_t n, bool logarithm, float *y);
void qd_moments__scalar(const float *x, size_t n, float *mean, float *variance);
void qd_centre__scalar(const float *x, size_t n, float mean, float factor, float bias, float *y);
void qd_reduce_rows__scalar(enum qd_reduction kind, const float *x, size_t rows, size_t n, float *out);
void qd_reduce_columns__scalar(enum qd_reduction kind, const float *x, size_t rows, size_t stride, size_t n,
                               float *out);

extern const struct qd_gemm_q8 qd_gemm_q8__avx2;
extern const struct qd_gemm_q16 qd_gemm_q16__avx2;
extern const struct qd_gemm_f32 qd_gemm_f32__avx2;
extern const struct qd_depthwise_q8 qd_depthwise_q8__avx2;
extern const struct qd_depthwise_f32 qd_depthwise_f32__avx2;
extern const struct qd_pw_kernel qd_pointwise__avx2[QD_PW_COUNT];
void qd_quantize_u8__avx2(const float *x, size_t n, const struct qd_qparams *qp, uint8_t *q,
                          struct qd_observation *obs);
void qd_quantize_s16__avx2(const float *x, size_t n, const struct qd_qparams *qp, int16_t *q,
                           struct qd_observation *obs);
void qd_requantize_u8__avx2(const float *x, size_t n, const struct qd_qparams *qp, uint8_t *q,
                            struct qd_observation *obs);
void qd_quantize_rows_u8__avx2(const float *x, size_t stride, const float *by, size_t rows, size_t n, bool symmetric,
                               uint8_t *q, struct qd_row_scale *scales, struct qd_observation *obs);
void qd_sum_rows_u8__avx2(const struct qd_rows *a, size_t rows, int32_t *sums);
void qd_dequantize_u8__avx2(const uint8_t *q, size_t n, const struct qd_qparams *qp, float *r);
void qd_observe_f32__avx2(const float *x, size_t n, const struct qd_qparams *qp, struct qd_observation *obs);
void qd_join_rows__avx2(const struct qd_join *join);
void qd_quantize_columns_s8__avx2(const float *x, size_t rows, size_t stride, size_t n, int8_t *q, float *scale);
void qd_exp_rows_f32__avx2(float *x, size_t rows, size_t n, size_t stride, float *sums);
void qd_exp_rows_u16__avx2(const float *x, size_t rows, size_t n, size_t stride, uint8_t *high, uint8_t *low,
                           size_t out_stride, float *sums);
void qd_max_rows_u8__avx2(const uint8_t *const *in, size_t rows, size_t n, uint8_t *out);
void qd_max_rows_f32__avx2(const float *const *in, size_t rows, size_t n, float *out);
void qd_mean_rows_f32__avx2(const float *const *in, size_t rows, size_t n, float factor, float *out);
void qd_mean_rows_u8__avx2(const uint8_t *const *in, size_t rows, size_t n, int32_t offset, float factor, float *out);
void qd_weigh_rows_f32__avx2(const float *const *in, const float *weight, size_t rows, size_t n, float *out);
void qd_lstm_gates__avx2(const struct qd_gates *g, float *c, float *h);
void qd_gru_reset__avx2(const struct qd_gates *g, const float *h, float *out);
void qd_gru_gates__avx2(const struct qd_gates *g, float *h);
void qd_rnn_gates__avx2(const struct qd_gates *g, float *h);
void qd_transpose_u8__avx2(const uint8_t *in, size_t in_stride, size_t rows, size_t cols, uint8_t *out,
                           size_t out_stride);
void qd_transpose_f32__avx2(const float *in, size_t in_stride, size_t rows, size_t cols, float *out, size_t out_stride);
void qd_layer_norm__avx2(const struct qd_norm *norm);
void qd_rms_norm__avx2(const struct qd_norm *norm);
void qd_softmax__avx2(const float *x, size_t rows, size_t n, bool logarithm, float *y);
void qd_moments__avx2(const float *x, size_t n, float *mean, float *variance);
void qd_centre__avx2(const float *x, size_t n, float mean, float factor, float bias, float *y);
void qd_reduce_rows__avx2(enum qd_reduction kind, const float *x, size_t rows, size_t n, float *out);
void qd_reduce_columns__avx2(enum qd_reduction kind, const float *x, size_t rows, size_t stride, size_t n, float *out);

extern const struct qd_gemm_q8 qd_gemm_q8__avx512vnni;
extern const struct qd_gemm_q16 qd_gemm_q16__avx512vnni;
extern const struct qd_gemm_f32 qd_gemm_f32__avx512vnni;
extern const struct qd_depthwise_q8 qd_depthwise_q8__avx512vnni;
extern const struct qd_depthwise_f32 qd_depthwise_f32__avx512vnni;
extern const struct qd_pw_kernel qd_pointwise__avx512vnni[QD_PW_COUNT];
void qd_quantize_u8__avx512vnni(const float *x, size_t n, const struct qd_qparams *qp, uint8_t *q,
                                struct qd_observation *obs);
void qd_quantize_s16__avx512vnni(const float *x, size_t n, const struct qd_qparams *qp, int16_t *q,
                                 struct qd_observation *obs);
void qd_requantize_u8__avx512vnni(const float *x, size_t n, const struct qd_qparams *qp, uint8_t *q,
                                  struct qd_observation *obs);
void qd_quantize_rows_u8__avx512vnni(const float *x, size_t stride, const float *by, size_t rows, size_t n,
                                     bool symmetric, uint8_t *q, struct qd_row_scale *scales,
                                     struct qd_observation *obs);
void qd_sum_rows_u8__avx512vnni(const struct qd_rows *a, size_t rows, int32_t *sums);
void qd_dequantize_u8__avx512vnni(const uint8_t *q, size_t n, const struct qd_qparams *qp, float *r);
void qd_observe_f32__avx512vnni(const float *x, size_t n, const struct qd_qparams *qp, struct qd_observation *obs);
void qd_join_rows__avx512vnni(const struct qd_join *join);
void qd_quantize_columns_s8__avx512vnni(const float *x, size_t rows, size_t stride, size_t n, int8_t *q, float *scale);
void qd_exp_rows_f32__avx512vnni(float *x, size_t rows, size_t n, size_t stride, float *sums);
void qd_exp_rows_u16__avx512vnni(const float *x, size_t rows, size_t n, size_t stride, uint8_t *high, uint8_t *low,
                                 size_t out_stride, float *sums);
void qd_max_rows_u8__avx512vnni(const uint8_t *const *in, size_t rows, size_t n, uint8_t *out);
void qd_max_rows_f32__avx512vnni(const float *const *in, size_t rows, size_t n, float *out);
void qd_mean_rows_f32__avx512vnni(const float *const *in, size_t rows, size_t n, float factor, float *out);
void qd_mean_rows_u8__avx512vnni(const uint8_t *const *in, size_t rows, size_t n, int32_t offset, float factor,
                                 float *out);
void qd_weigh_rows_f32__avx512vnni(const float *const *in, const float *weight, size_t rows, size_t n, float *out);
void qd_layer_norm__avx512vnni(const struct qd_norm *norm);
void qd_rms_norm__avx512vnni(const struct qd_norm *norm);
void qd_softmax__avx512vnni(const float *x, size_t rows, size_t n, bool logarithm, float *y);
void qd_moments__avx512vnni(const float *x, size_t n, float *mean, float *variance);
void qd_centre__avx512vnni(const float *x, size_t n, float mean, float factor, float bias, float *y);
void qd_reduce_rows__avx512vnni(enum qd_reduction kind, const float *x, size_t rows, size_t n, float *out);
void qd_reduce_columns__avx512vnni(enum qd_reduction kind, const float *x, size_t rows, size_t stride, size_t n,
                                   float *out);
void qd_lstm_gates__avx512vnni(const struct qd_gates *g, float *c, float *h);
void qd_gru_reset__avx512vnni(const struct qd_gates *g, const float *h, float *out);
void qd_gru_gates__avx512vnni(const struct qd_gates *g, float *h);
void qd_rnn_gates__avx512vnni(const struct qd_gates *g, float *h);

extern const struct qd_gemm_q8 qd_gemm_q8__amx;
extern const struct qd_gemm_q16 qd_gemm_q16__amx;

#endif
