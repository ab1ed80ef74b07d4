/* The epilogue in plain C, value by value: equations (7) and (8) of docs/QUANTIZATION.md by requant.h's functions. What
 * the scalar kernels do and what every other ISA must equal to the last bit. Private to engine/kernels. */
#ifndef QD_ENGINE_KERNELS_EPILOGUE_H
#define QD_ENGINE_KERNELS_EPILOGUE_H

#include "engine/kernels/kernels.h"

/* Zero has one sign in an observation, so that the order of values can't show in its bytes. */
static inline void observation_publish(const struct qd_observation *seen, struct qd_observation *into)
{
    struct qd_observation plain = *seen;
    plain.min += 0.0f;
    plain.max += 0.0f;
    qd_observation_merge(into, &plain);
}

/* kernels.h: CLIP = min(max(r, a), b), NaN gives a. */
static inline float epilogue_act(const struct qd_epilogue *e, float real)
{
    if (e->act.kind == QD_ACT_CLIP) {
        real = real > e->act.a ? real : e->act.a;
        real = real < e->act.b ? real : e->act.b;
    }
    return real;
}

/* Activation, observation, output of one real value; `inv_scale` = 1 / S when e->quantize. */
static inline void epilogue_finish(const struct qd_epilogue *e, float inv_scale, float real, size_t at,
                                   struct qd_observation *seen)
{
    real = epilogue_act(e, real);
    if (e->observe)
        qd_observe_one(seen, real, real * inv_scale, e->quantize);
    if (e->quantize)
        ((uint8_t *)e->out)[at] = qd_requantize_one(real, inv_scale, e->quantize);
    else
        ((float *)e->out)[at] = real;
}

static inline float epilogue_inv_scale(const struct qd_epilogue *e)
{
    return e->quantize ? 1.0f / e->quantize->scale : 0.0f;
}

#endif
