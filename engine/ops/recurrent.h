/* Recurrent cells: what attributes, packing (recurrent_pack.c) and running (recurrent_run.c) share. Private to
 * engine/ops. */
#ifndef QD_ENGINE_OPS_RECURRENT_H
#define QD_ENGINE_OPS_RECURRENT_H

#include "engine/ops/helpers.h"

enum qd_cell { QD_CELL_LSTM, QD_CELL_GRU, QD_CELL_RNN };

struct qd_cell_act {
    float (*fn)(float x, float alpha, float beta);
    float alpha, beta;
};

/* A matrix of weights packed for products with rows of k values. INT8: weights s8 per column, rows as carried u8 with
 * zero point 128 (a row's scale is its own); out = product without the row's scale. */
struct qd_cell_matrix {
    size_t n, k;
    void *packed;
    const float *scale;  /* [n] INT8; NULL: FP32 */
    const int32_t *init; /* [n] INT8: -128 * column sum */
};

/* Of one direction. GRU whose reset gate comes first multiplies another left side by the new gate's weights: they stand
 * in r_new, else in r with the others. `fine`: what 8 bits left of the weights of LSTM's cell gate, whose errors add up
 * from step to step in the cell; none but in INT8. */
struct qd_cell_weights {
    struct qd_cell_matrix w, r, r_new, fine;
};

/* The product with `fine` is renewed every so many steps: a state changes slowly, and what is left is small. */
enum { QD_FINE_STEPS = 4 };

struct qd_recurrent {
    enum qd_cell cell;
    int gates, directions;
    bool reverse, batch_first, reset_after, couple; /* `reverse`: the only direction runs backwards */
    bool usual;                 /* sigmoid and tanh where they are by default, no clip, no coupling */
    int64_t hidden_asked;       /* 0: not given */
    float clip;                 /* 0: none */
    struct qd_cell_act acts[6]; /* up to three for each direction */
    bool packed, int8;          /* weights were constant and stand in `weights` */
    struct qd_cell_weights weights[2];
};

/* Columns of r: all gates, or those that a GRU needs before it can reset. */
static inline int qd_recurrent_first_gates(const struct qd_recurrent *r)
{
    return r->cell == QD_CELL_GRU && !r->reset_after ? 2 : r->gates;
}

/* engine/ops/op.h: pack. */
enum qd_status qd_recurrent_pack(const struct qd_packing *packing, void **prep, struct qd_error *error);
/* Bytes that weights of one direction take when they are packed while running (FP32), and doing so. */
size_t qd_recurrent_weight_bytes(const struct qd_recurrent *r, const struct qd_kernels *kernels, size_t hidden,
                                 size_t input);
void qd_recurrent_pack_now(const struct qd_recurrent *r, const struct qd_kernels *kernels, const float *w,
                           const float *recurrent, size_t hidden, size_t input, void *block,
                           struct qd_cell_weights *weights);

/* engine/ops/op.h: scratch and run, for shapes that infer has accepted. */
size_t qd_recurrent_scratch(const struct qd_call *call);
enum qd_status qd_recurrent_run(const struct qd_call *call, struct qd_error *error);

#endif
