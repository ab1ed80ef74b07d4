/* What this instruction set does better than the levels below it. Not for detection: dispatch.c asks CPU and system. */
#include "engine/kernels/dispatch.h"

void qd_kernels_init__avx512vnni(struct qd_kernels *kernels)
{
    kernels->isa_name = "avx512vnni";
    kernels->isa = QD_ISA_AVX512VNNI;
    kernels->gemm_q8 = qd_gemm_q8__avx512vnni;
    kernels->gemm_q16 = qd_gemm_q16__avx512vnni;
    kernels->gemm_f32 = qd_gemm_f32__avx512vnni;
    kernels->depthwise_q8 = qd_depthwise_q8__avx512vnni;
    kernels->depthwise_f32 = qd_depthwise_f32__avx512vnni;
    kernels->pointwise = qd_pointwise__avx512vnni;
    kernels->quantize_u8 = qd_quantize_u8__avx512vnni;
    kernels->quantize_s16 = qd_quantize_s16__avx512vnni;
    kernels->requantize_u8 = qd_requantize_u8__avx512vnni;
    kernels->quantize_rows_u8 = qd_quantize_rows_u8__avx512vnni;
    kernels->sum_rows_u8 = qd_sum_rows_u8__avx512vnni;
    kernels->dequantize_u8 = qd_dequantize_u8__avx512vnni;
    kernels->observe_f32 = qd_observe_f32__avx512vnni;
    kernels->quantize_columns_s8 = qd_quantize_columns_s8__avx512vnni;
    kernels->join_rows = qd_join_rows__avx512vnni;
    kernels->exp_rows_f32 = qd_exp_rows_f32__avx512vnni;
    kernels->exp_rows_u16 = qd_exp_rows_u16__avx512vnni;
    kernels->max_rows_u8 = qd_max_rows_u8__avx512vnni;
    kernels->max_rows_f32 = qd_max_rows_f32__avx512vnni;
    kernels->mean_rows_f32 = qd_mean_rows_f32__avx512vnni;
    kernels->mean_rows_u8 = qd_mean_rows_u8__avx512vnni;
    kernels->weigh_rows_f32 = qd_weigh_rows_f32__avx512vnni;
    kernels->layer_norm = qd_layer_norm__avx512vnni;
    kernels->rms_norm = qd_rms_norm__avx512vnni;
    kernels->softmax = qd_softmax__avx512vnni;
    kernels->moments = qd_moments__avx512vnni;
    kernels->centre = qd_centre__avx512vnni;
    kernels->reduce_rows = qd_reduce_rows__avx512vnni;
    kernels->reduce_columns = qd_reduce_columns__avx512vnni;
    kernels->lstm_gates = qd_lstm_gates__avx512vnni;
    kernels->gru_reset = qd_gru_reset__avx512vnni;
    kernels->gru_gates = qd_gru_gates__avx512vnni;
    kernels->rnn_gates = qd_rnn_gates__avx512vnni;
}
