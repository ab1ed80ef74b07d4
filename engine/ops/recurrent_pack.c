/* Packing the weights of recurrent cells: once when a plan is compiled and they are constants (FP32 or INT8 with a
 * scale per row of a gate), or for each run. Not for biases: they are added up while running. */
#include "engine/ops/recurrent.h"

#include <math.h>

enum {
    MOST_DEPTH_INT8 = 66000, /* engine/kernels/kernels.h: exact sums */
    SHALLOW = 64             /* an input of fewer features costs little in FP32, and is often a model's own (spectra:
                              * their many orders of magnitude don't fit into 8 bits) */
};

/* The matrices of a direction: which rows of W and R they take. */
struct piece {
    struct qd_cell_matrix *matrix;
    const float *from; /* [n][k] */
    size_t n, k;
};

static void pieces_of(const struct qd_recurrent *r, struct qd_cell_weights *weights, const float *w,
                      const float *recurrent, size_t hidden, size_t input, struct piece pieces[3])
{
    size_t gates = (size_t)r->gates * hidden, first = (size_t)qd_recurrent_first_gates(r) * hidden;
    pieces[0] = (struct piece){&weights->w, w, input ? gates : 0, input};
    pieces[1] = (struct piece){&weights->r, recurrent, first, hidden};
    pieces[2] = (struct piece){&weights->r_new, recurrent ? recurrent + first * hidden : NULL, gates - first, hidden};
}

static bool pack_fp32(const struct qd_packing *packing, const struct piece *p, size_t *bytes)
{
    const struct qd_gemm_f32 *gemm = &packing->kernels->gemm_f32;
    size_t here = gemm->packed_bytes(p->n, p->k);
    *p->matrix = (struct qd_cell_matrix){.n = p->n, .k = p->k, .packed = qd_arena_alloc_raw(packing->arena, here)};
    *bytes += here;
    if (p->matrix->packed)
        gemm->pack(p->n, p->k, p->from, p->k, 1, NULL, p->matrix->packed);
    return p->matrix->packed;
}

/* One row to s8; its scale, which is not finite when a weight is not. */
static float quantize_row(const float *row, size_t k, int8_t *out)
{
    float most = 0;
    for (size_t i = 0; i < k; i++)
        most = fabsf(row[i]) > most || isnan(row[i]) ? fabsf(row[i]) : most;
    if (!isfinite(most))
        return most;
    const float scale = qd_weight_scale_s8(most);
    const struct qd_qparams qp = {.scale = scale, .zero_point = 0, .qmin = -127, .qmax = 127};
    for (size_t i = 0; i < k; i++)
        out[i] = (int8_t)qd_round_clamp(row[i] / scale, &qp);
    return scale;
}

/* *finite: false when a weight is not; nothing is packed then. */
static bool pack_int8(const struct qd_packing *packing, const struct piece *p, size_t *bytes, bool *finite)
{
    const struct qd_gemm_q8 *gemm = &packing->kernels->gemm_q8;
    size_t here = gemm->packed_bytes(p->n, p->k);
    void *packed = qd_arena_alloc_raw(packing->arena, here);
    float *scale = qd_arena_alloc(packing->arena, p->n, sizeof *scale);
    int32_t *init = qd_arena_alloc(packing->arena, p->n, sizeof *init);
    int8_t *quantized = qd_calloc(p->n, p->k);
    bool good = packed && scale && init && quantized;
    for (size_t j = 0; good && *finite && j < p->n; j++) {
        scale[j] = quantize_row(p->from + j * p->k, p->k, quantized + j * p->k);
        *finite = isfinite(scale[j]);
    }
    if (good && *finite) {
        gemm->pack(p->n, p->k, quantized, p->k, 1, packed, init);
        for (size_t j = 0; j < p->n; j++)
            init[j] *= -QD_CARRIER_OFFSET;
        *p->matrix = (struct qd_cell_matrix){.n = p->n, .k = p->k, .packed = packed, .scale = scale, .init = init};
        *bytes += here;
    }
    qd_free(quantized);
    return good;
}

/* What rounding left of the cell gate's rows, [hidden][hidden], packed like other rows. */
static bool pack_fine(const struct qd_packing *packing, const float *recurrent, size_t hidden,
                      struct qd_cell_weights *weights, size_t *bytes, bool *finite)
{
    float *left = qd_calloc(hidden * sizeof *left, hidden);
    int8_t *row = qd_calloc(hidden, sizeof *row);
    bool good = left && row;
    for (size_t j = 0; good && j < hidden; j++) {
        const float *from = recurrent + (3 * hidden + j) * hidden; /* gates i, o, f, c */
        float scale = quantize_row(from, hidden, row);
        for (size_t k = 0; k < hidden; k++)
            left[j * hidden + k] = from[k] - scale * (float)row[k];
    }
    const struct piece piece = {&weights->fine, left, hidden, hidden};
    good = good && pack_int8(packing, &piece, bytes, finite);
    qd_free(left);
    qd_free(row);
    return good;
}

static bool wants_int8(const struct qd_recurrent *r, const struct piece *p)
{
    bool input = p->matrix == &r->weights[0].w || p->matrix == &r->weights[1].w;
    return r->int8 && (!input || p->k >= SHALLOW);
}

static bool pack_all(const struct qd_packing *packing, struct qd_recurrent *r, bool *finite, size_t *bytes)
{
    const struct qd_tensor *w = packing->constants[1], *recurrent = packing->constants[2];
    size_t input = (size_t)w->shape.dims[2], hidden = (size_t)recurrent->shape.dims[2];
    size_t gates = (size_t)r->gates * hidden;
    for (int d = 0; d < r->directions; d++) {
        struct piece pieces[3];
        const float *rows = (const float *)recurrent->data + (size_t)d * gates * hidden;
        pieces_of(r, &r->weights[d], input ? (const float *)w->data + (size_t)d * gates * input : NULL, rows, hidden,
                  input, pieces);
        for (int i = 0; i < 3 && *finite; i++)
            if (pieces[i].n && !(wants_int8(r, &pieces[i]) ? pack_int8(packing, &pieces[i], bytes, finite)
                                                           : pack_fp32(packing, &pieces[i], bytes)))
                return false;
        if (r->int8 && r->cell == QD_CELL_LSTM && *finite &&
            !pack_fine(packing, rows, hidden, &r->weights[d], bytes, finite))
            return false;
    }
    return true;
}

/* Weights of the shapes that infer will want; what it refuses is not packed. */
static bool fits(const struct qd_packing *packing, const struct qd_recurrent *r)
{
    const struct qd_tensor *const *in = packing->constants;
    if (packing->node->in_count < 3 || !in[1] || !in[2])
        return false;
    const struct qd_shape *w = &in[1]->shape, *recurrent = &in[2]->shape;
    return in[1]->dtype == QD_F32 && in[2]->dtype == QD_F32 && w->rank == 3 && recurrent->rank == 3 &&
           w->dims[0] == r->directions && recurrent->dims[0] == r->directions && recurrent->dims[2] > 0 &&
           recurrent->dims[2] <= INT32_MAX && w->dims[1] == r->gates * recurrent->dims[2] &&
           recurrent->dims[1] == w->dims[1];
}

enum qd_status qd_recurrent_pack(const struct qd_packing *packing, void **prep, struct qd_error *error)
{
    struct qd_recurrent *r = *prep;
    if (!fits(packing, r))
        return QD_OK;
    size_t bytes = 0;
    bool finite = true;
    r->int8 = packing->int8 && packing->constants[1]->shape.dims[2] <= MOST_DEPTH_INT8 &&
              packing->constants[2]->shape.dims[2] <= MOST_DEPTH_INT8;
    if (!pack_all(packing, r, &finite, &bytes))
        return qd_op_no_memory(packing->node, error);
    if (!finite) {
        r->int8 = false;
        finite = true;
        if (!pack_all(packing, r, &finite, &bytes))
            return qd_op_no_memory(packing->node, error);
    }
    r->packed = true;
    return QD_OK;
}

size_t qd_recurrent_weight_bytes(const struct qd_recurrent *r, const struct qd_kernels *kernels, size_t hidden,
                                 size_t input)
{
    struct qd_cell_weights weights;
    struct piece pieces[3];
    size_t bytes = 0;
    pieces_of(r, &weights, NULL, NULL, hidden, input, pieces);
    for (int i = 0; i < 3; i++)
        bytes += pieces[i].n ? qd_align_up(kernels->gemm_f32.packed_bytes(pieces[i].n, pieces[i].k)) : 0;
    return bytes;
}

void qd_recurrent_pack_now(const struct qd_recurrent *r, const struct qd_kernels *kernels, const float *w,
                           const float *recurrent, size_t hidden, size_t input, void *block,
                           struct qd_cell_weights *weights)
{
    struct piece pieces[3];
    char *at = block;
    pieces_of(r, weights, w, recurrent, hidden, input, pieces);
    for (int i = 0; i < 3; i++) {
        const struct piece *p = &pieces[i];
        *p->matrix = (struct qd_cell_matrix){.n = p->n, .k = p->k, .packed = at};
        if (!p->n)
            continue;
        kernels->gemm_f32.pack(p->n, p->k, p->from, p->k, 1, NULL, at);
        at += qd_align_up(kernels->gemm_f32.packed_bytes(p->n, p->k));
    }
}
