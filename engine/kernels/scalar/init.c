/* The portable set: it fills every entry of the table, so that no later level can leave one empty. */
#include "engine/kernels/dispatch.h"

void qd_kernels_init__scalar(struct qd_kernels *kernels)
{
    *kernels = (struct qd_kernels){
        .isa_name = "scalar",
        .isa = QD_ISA_SCALAR,
        .gemm_q8 = qd_gemm_q8__scalar,
        .gemm_q16 = qd_gemm_q16__scalar,
        .gemm_f32 = qd_gemm_f32__scalar,
        .depthwise_q8 = qd_depthwise_q8__scalar,
        .depthwise_f32 = qd_depthwise_f32__scalar,
        .pointwise = qd_pointwise__scalar,
        .quantize_u8 = qd_quantize_u8__scalar,
        .quantize_s16 = qd_quantize_s16__scalar,
        .requantize_u8 = qd_requantize_u8__scalar,
        .quantize_rows_u8 = qd_quantize_rows_u8__scalar,
        .dequantize_u8 = qd_dequantize_u8__scalar,
        .observe_f32 = qd_observe_f32__scalar,
        .max_rows_u8 = qd_max_rows_u8__scalar,
        .max_rows_f32 = qd_max_rows_f32__scalar,
        .mean_rows_f32 = qd_mean_rows_f32__scalar,
        .mean_rows_u8 = qd_mean_rows_u8__scalar,
        .weigh_rows_f32 = qd_weigh_rows_f32__scalar,
        .quantize_columns_s8 = qd_quantize_columns_s8__scalar,
        .join_rows = qd_join_rows__scalar,
        .exp_rows_f32 = qd_exp_rows_f32__scalar,
        .exp_rows_u16 = qd_exp_rows_u16__scalar,
        .transpose_u8 = qd_transpose_u8__scalar,
        .transpose_f32 = qd_transpose_f32__scalar,
        .layer_norm = qd_layer_norm__scalar,
        .rms_norm = qd_rms_norm__scalar,
        .softmax = qd_softmax__scalar,
        .moments = qd_moments__scalar,
        .centre = qd_centre__scalar,
        .reduce_rows = qd_reduce_rows__scalar,
        .reduce_columns = qd_reduce_columns__scalar,
        .lstm_gates = qd_lstm_gates__scalar,
        .gru_reset = qd_gru_reset__scalar,
        .gru_gates = qd_gru_gates__scalar,
        .rnn_gates = qd_rnn_gates__scalar,
    };
}
