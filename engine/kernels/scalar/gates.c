/* Gates of recurrent cells in portable C. */
#include "engine/kernels/gates.h"
#include "engine/kernels/dispatch.h"

void qd_lstm_gates__scalar(const struct qd_gates *g, float *c, float *h)
{
    for (size_t j = 0, n = g->n; j < n; j++) { /* i, o, f, c */
        c[j] = gates_cell(gates_sum(g, j), gates_sum(g, 2 * n + j), gates_sum(g, 3 * n + j), c[j]);
        h[j] = gates_out(gates_sum(g, n + j), c[j]);
    }
}

void qd_gru_reset__scalar(const struct qd_gates *g, const float *h, float *out)
{
    for (size_t j = 0; j < g->n; j++)
        out[j] = gates_sigmoid(gates_sum(g, g->n + j)) * h[j];
}

void qd_gru_gates__scalar(const struct qd_gates *g, float *h)
{
    for (size_t j = 0, n = g->n; j < n; j++) { /* z, r, h */
        float z = gates_sigmoid(gates_sum(g, j)), past = fmaf(g->r_new[j], g->r_new_scale, g->bias_new[j]);
        past = g->reset_after ? gates_sigmoid(gates_sum(g, n + j)) * past : past;
        float fresh = gates_tanh(fmaf(g->x[2 * n + j], g->x_scale, g->bias[2 * n + j]) + past);
        h[j] = fmaf(z, fmaf(fresh, -1.0f, h[j]), fresh);
    }
}

void qd_rnn_gates__scalar(const struct qd_gates *g, float *h)
{
    for (size_t j = 0; j < g->n; j++)
        h[j] = gates_tanh(gates_sum(g, j));
}
