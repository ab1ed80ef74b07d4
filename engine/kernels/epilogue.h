/* The epilogue in plain C, value by value: equations (7) and (8) of docs/QUANTIZATION.md by requant.h's functions. What
 * the scalar kernels do and what every other ISA must equal to the last bit. Private to engine/kernels. */
#ifndef QD_ENGINE_KERNELS_EPILOGUE_H
#define QD_ENGINE_KERNELS_EPILOGUE_H

#include "engine/kernels/functions.h"

/* Zero has one sign in an observation, so that the order of values can't show in its bytes. */
static inline void observation_publish(const struct qd_observation *seen, struct qd_observation *into)
{
    struct qd_observation plain = *seen;
    plain.min += 0.0f;
    plain.max += 0.0f;
    qd_observation_merge(into, &plain);
}

static inline float epilogue_residual(const struct qd_residual *r, size_t row, size_t col)
{
    size_t at = row * r->stride_elems + col;
    return r->qp ? qd_dequantize_one(((const uint8_t *)r->data)[at], r->qp) : ((const float *)r->data)[at];
}

/* (7b): a row with a scale and a zero point of its own. */
static inline float epilogue_row_real(const struct qd_epilogue *e, int32_t acc, size_t row, size_t col, float bias)
{
    const struct qd_row_scale *own = &e->rows[row];
    return qd_real_one(acc - own->zero_point * e->sums[col], own->scale * e->scale[col], bias);
}

/* Residual, activation, observation of one real value; `inv_scale` = 1 / S when e->quantize. */
static inline float epilogue_value(const struct qd_epilogue *e, float inv_scale, float real, size_t row, size_t col,
                                   struct qd_observation *seen)
{
    if (e->residual.data)
        real += epilogue_residual(&e->residual, row, col);
    real = qd_act_one(&e->act, real);
    if (e->by)
        real *= e->by[col];
    if (e->observe)
        qd_observe_one(seen, real, real * inv_scale, e->quantize);
    return real;
}

/* epilogue_value, and where it goes. */
static inline void epilogue_finish(const struct qd_epilogue *e, float inv_scale, float real, size_t row, size_t col,
                                   struct qd_observation *seen)
{
    const size_t at = row * e->out_stride_elems + col;
    real = epilogue_value(e, inv_scale, real, row, col, seen);
    if (e->quantize && e->out_s16)
        ((int16_t *)e->out)[at] = (int16_t)qd_round_clamp(real * inv_scale, e->quantize);
    else if (e->quantize)
        ((uint8_t *)e->out)[at] = qd_requantize_one(real, inv_scale, e->quantize);
    else
        ((float *)e->out)[at] = real;
}

/* Of an integer product: do its bytes come from the accumulators by (8a)? */
static inline bool epilogue_folds(const struct qd_epilogue *e)
{
    return e->quantize && !e->out_s16 && !e->rows && !e->residual.data && !e->act.affine &&
           (e->act.kind == QD_ACT_NONE || e->act.kind == QD_ACT_CLIP);
}

static inline uint8_t epilogue_folded(const struct qd_epilogue *e, float inv_scale, int32_t acc, size_t col)
{
    const float by = e->by ? e->by[col] : 1.0f, bias = e->bias ? e->bias[col] : 0.0f;
    const bool clip = e->act.kind == QD_ACT_CLIP;
    const struct qd_folded folded = qd_fold(e->scale[col] * by, bias * by, inv_scale, e->quantize->zero_point);
    return qd_requantize_folded(acc, folded,
                                clip ? qd_requantize_one(e->act.a * by, inv_scale, e->quantize) : e->quantize->qmin,
                                clip ? qd_requantize_one(e->act.b * by, inv_scale, e->quantize) : e->quantize->qmax);
}

/* epilogue_finish of an integer product, whose accumulator was `acc`. */
static inline void epilogue_finish_integer(const struct qd_epilogue *e, float inv_scale, int32_t acc, float real,
                                           size_t row, size_t col, struct qd_observation *seen)
{
    if (!epilogue_folds(e)) {
        epilogue_finish(e, inv_scale, real, row, col, seen);
        return;
    }
    (void)epilogue_value(e, inv_scale, real, row, col, seen);
    ((uint8_t *)e->out)[row * e->out_stride_elems + col] = epilogue_folded(e, inv_scale, acc, col);
}

static inline float epilogue_inv_scale(const struct qd_epilogue *e)
{
    return e->quantize ? 1.0f / e->quantize->scale : 0.0f;
}

#endif
