/* Gates of recurrent cells for this instruction set: engine/kernels/gates_simd.h compiled for it, under its names. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/gates_simd.h"

void qd_lstm_gates__avx512vnni(const struct qd_gates *g, float *c, float *h) { gates_lstm(g, c, h); }

void qd_gru_reset__avx512vnni(const struct qd_gates *g, const float *h, float *out) { gates_gru_reset(g, h, out); }

void qd_gru_gates__avx512vnni(const struct qd_gates *g, float *h) { gates_gru(g, h); }

void qd_rnn_gates__avx512vnni(const struct qd_gates *g, float *h) { gates_rnn(g, h); }
