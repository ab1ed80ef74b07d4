/* What this instruction set does better than the levels below it. Not for detection: dispatch.c asks CPU and system. */
#include "engine/kernels/dispatch.h"

void qd_kernels_init__avx2(struct qd_kernels *kernels)
{
    kernels->isa_name = "avx2";
    kernels->isa = QD_ISA_AVX2;
    kernels->gemm_q8 = qd_gemm_q8__avx2;
    kernels->gemm_q16 = qd_gemm_q16__avx2;
    kernels->gemm_f32 = qd_gemm_f32__avx2;
    kernels->depthwise_q8 = qd_depthwise_q8__avx2;
    kernels->depthwise_f32 = qd_depthwise_f32__avx2;
    kernels->pointwise = qd_pointwise__avx2;
    kernels->quantize_u8 = qd_quantize_u8__avx2;
    kernels->quantize_s16 = qd_quantize_s16__avx2;
    kernels->requantize_u8 = qd_requantize_u8__avx2;
    kernels->quantize_rows_u8 = qd_quantize_rows_u8__avx2;
    kernels->sum_rows_u8 = qd_sum_rows_u8__avx2;
    kernels->dequantize_u8 = qd_dequantize_u8__avx2;
    kernels->observe_f32 = qd_observe_f32__avx2;
    kernels->quantize_columns_s8 = qd_quantize_columns_s8__avx2;
    kernels->join_rows = qd_join_rows__avx2;
    kernels->exp_rows_f32 = qd_exp_rows_f32__avx2;
    kernels->exp_rows_u16 = qd_exp_rows_u16__avx2;
    kernels->max_rows_u8 = qd_max_rows_u8__avx2;
    kernels->max_rows_f32 = qd_max_rows_f32__avx2;
    kernels->mean_rows_f32 = qd_mean_rows_f32__avx2;
    kernels->mean_rows_u8 = qd_mean_rows_u8__avx2;
    kernels->weigh_rows_f32 = qd_weigh_rows_f32__avx2;
    kernels->lstm_gates = qd_lstm_gates__avx2;
    kernels->gru_reset = qd_gru_reset__avx2;
    kernels->gru_gates = qd_gru_gates__avx2;
    kernels->rnn_gates = qd_rnn_gates__avx2;
    kernels->transpose_u8 = qd_transpose_u8__avx2;
    kernels->transpose_f32 = qd_transpose_f32__avx2;
    kernels->layer_norm = qd_layer_norm__avx2;
    kernels->rms_norm = qd_rms_norm__avx2;
    kernels->softmax = qd_softmax__avx2;
    kernels->moments = qd_moments__avx2;
    kernels->centre = qd_centre__avx2;
    kernels->reduce_rows = qd_reduce_rows__avx2;
    kernels->reduce_columns = qd_reduce_columns__avx2;
}
