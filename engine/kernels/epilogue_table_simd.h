/* Which instance of the epilogue a call gets: the functions that <isa>/epilogue.c compiles from epilogue_tile_simd.h,
 * and the test of scales and biases that chooses among them. Included once per ISA. */
#ifndef QD_ENGINE_KERNELS_EPILOGUE_TABLE_SIMD_H
#define QD_ENGINE_KERNELS_EPILOGUE_TABLE_SIMD_H

#include "engine/kernels/epilogue_folded_simd.h"
#include "engine/kernels/epilogue_prepare_simd.h"

#ifdef QD_SIMD_FLOATS

#define PREPARE(name, kind)                                                                                            \
    static void prepare_##name(struct tile_epilogue *t, const struct tile_block *b)                                    \
    {                                                                                                                  \
        tile_prepare(t, b, kind, false);                                                                               \
    }                                                                                                                  \
    static void prepare_rows_##name(struct tile_epilogue *t, const struct tile_block *b)                               \
    {                                                                                                                  \
        tile_prepare(t, b, kind, true);                                                                                \
    }
PREPARE(none, QD_ACT_NONE)
PREPARE(clip, QD_ACT_CLIP)
PREPARE(hard_sigmoid, QD_ACT_HARD_SIGMOID)
PREPARE(hard_swish, QD_ACT_HARD_SWISH)
PREPARE(sigmoid, QD_ACT_SIGMOID)
PREPARE(silu, QD_ACT_SILU)
PREPARE(gelu, QD_ACT_GELU)
PREPARE(gelu_tanh, QD_ACT_GELU_TANH)
PREPARE(tanh, QD_ACT_TANH)
PREPARE(leaky_relu, QD_ACT_LEAKY_RELU)

/* For rows of one scale, and for rows with scales of their own. */
static void (*const PREPARES[QD_ACT_COUNT][2])(struct tile_epilogue *t, const struct tile_block *b) = {
    [QD_ACT_NONE] = {prepare_none, prepare_rows_none},
    [QD_ACT_CLIP] = {prepare_clip, prepare_rows_clip},
    [QD_ACT_HARD_SIGMOID] = {prepare_hard_sigmoid, prepare_rows_hard_sigmoid},
    [QD_ACT_HARD_SWISH] = {prepare_hard_swish, prepare_rows_hard_swish},
    [QD_ACT_SIGMOID] = {prepare_sigmoid, prepare_rows_sigmoid},
    [QD_ACT_SILU] = {prepare_silu, prepare_rows_silu},
    [QD_ACT_GELU] = {prepare_gelu, prepare_rows_gelu},
    [QD_ACT_GELU_TANH] = {prepare_gelu_tanh, prepare_rows_gelu_tanh},
    [QD_ACT_TANH] = {prepare_tanh, prepare_rows_tanh},
    [QD_ACT_LEAKY_RELU] = {prepare_leaky_relu, prepare_rows_leaky_relu},
};

#define FINISH(name, source, act, quantize, observe, sure, adds)                                                       \
    static void finish_##name(struct tile_epilogue *t, const struct tile_block *b)                                     \
    {                                                                                                                  \
        tile_finish(t, b, (struct tile_kind){source, act, quantize, observe, sure, adds, false});                      \
    }
#define FINISH_F32(name, source, act, sure, adds)                                                                      \
    FINISH(name##_f32, source, act, false, false, sure, adds)                                                          \
    FINISH(name##_f32_seen, source, act, false, true, sure, adds)
#define FINISH_U8(name, source, act, sure, adds)                                                                       \
    FINISH(name##_u8, source, act, true, false, sure, adds)                                                            \
    FINISH(name##_u8_seen, source, act, true, true, sure, adds)
FINISH_F32(integer, SOURCE_INTEGER, QD_ACT_NONE, true, false)
FINISH_F32(integer_clip, SOURCE_INTEGER, QD_ACT_CLIP, true, false)
FINISH_F32(added, SOURCE_INTEGER, QD_ACT_NONE, true, true)
FINISH_U8(added, SOURCE_INTEGER, QD_ACT_NONE, true, true)
FINISH_F32(added_clip, SOURCE_INTEGER, QD_ACT_CLIP, true, true)
FINISH_U8(added_clip, SOURCE_INTEGER, QD_ACT_CLIP, true, true)
FINISH_F32(real, SOURCE_REAL, QD_ACT_NONE, true, false)
FINISH_U8(real, SOURCE_REAL, QD_ACT_NONE, true, false)
FINISH_F32(any, SOURCE_REAL, QD_ACT_NONE, false, false)
FINISH_U8(any, SOURCE_REAL, QD_ACT_NONE, false, false)
FINISH(float, SOURCE_FLOAT, QD_ACT_NONE, false, false, true, false)
FINISH(float_clip, SOURCE_FLOAT, QD_ACT_CLIP, false, false, true, false)

typedef void finish_function(struct tile_epilogue *t, const struct tile_block *b);

/* As float, observed, as u8, both. Of integers: plain, and with a residual of bytes, each without and with CLIP; then
 * of prepared values. */
#define FOUR(name) finish_##name##_f32, finish_##name##_f32_seen, finish_##name##_u8, finish_##name##_u8_seen
static finish_function *const FINISHES[][4] = {
    {finish_integer_f32, finish_integer_f32_seen, finish_folded, finish_folded_seen},
    {finish_integer_clip_f32, finish_integer_clip_f32_seen, finish_folded, finish_folded_seen},
    {FOUR(added)},
    {FOUR(added_clip)}};
static finish_function *const FINISHES_PREPARED[][4] = {{FOUR(any)}, {FOUR(real)}};

static float largest(const float *x, size_t n)
{
    vf most = vf_set(0.0f);
    for (size_t i = 0; i < n; i += QD_SIMD_FLOATS) {
        /* A NaN stays where it is: max gives its second operand. */
        vf here = vf_abs(vf_load_some(x + i, vm_first(n - i < QD_SIMD_FLOATS ? n - i : QD_SIMD_FLOATS)));
        if (vm_count(vm_unordered(here)))
            return INFINITY;
        most = vf_max(most, here);
    }
    return vf_reduce_max(most);
}

static bool grows(const float *scale, size_t n)
{
    for (size_t i = 0; scale && i < n; i += QD_SIMD_FLOATS)
        if (vm_count(vm_lt(vf_load_some(scale + i, vm_first(n - i < QD_SIMD_FLOATS ? n - i : QD_SIMD_FLOATS)),
                           vf_set(0.0f))))
            return false;
    return true;
}

static float largest_of_ints(const int32_t *x, size_t n)
{
    vf most = vf_set(0.0f);
    size_t i = 0;
    for (; i + QD_SIMD_FLOATS <= n; i += QD_SIMD_FLOATS)
        most = vf_max(most, vf_abs(vf_from_vi(vi_load(x + i))));
    float all = vf_reduce_max(most);
    for (; i < n; i++)
        all = fmaxf(all, fabsf((float)x[i]));
    return all;
}

static double largest_of_rows(const struct qd_epilogue *e)
{
    float most = 0.0f;
    for (size_t i = 0; i < e->row_count; i++)
        most = e->rows[i].scale > most ? e->rows[i].scale : most;
    return (double)most;
}

/* No |value| after the activation is larger; infinite or NaN when nobody knows. In double, so that it does not
 * overflow. */
static double bound_of(const struct qd_epilogue *e, size_t begin, size_t end, float depth_bound)
{
    const struct qd_activation *act = &e->act;
    const size_t n = end - begin;
    double acc = (double)depth_bound +
                 (e->acc_init && !e->rows ? (double)largest_of_ints(e->acc_init + begin, n) : 0.0);
    if (e->weight_zeros) /* 255 * 255 * k, whatever is taken off in which order */
        acc = 2.0 * (double)depth_bound;
    if (e->rows) /* zero points are at most 255, as are the integers: the difference is no larger than either */
        acc = (e->weight_zeros ? 2.0 : 1.0) * (double)depth_bound * largest_of_rows(e);
    double real = acc * (double)(e->scale ? largest(e->scale + begin, n) : 1.0f) +
                  (double)(e->bias ? largest(e->bias + begin, n) : 0.0f);
    if (e->residual.data)
        real = e->residual.qp ? real + 256.0 * (double)fabsf(e->residual.qp->scale) : INFINITY;
    const double a = fabs((double)act->a), b = fabs((double)act->b);
    if (act->kind == QD_ACT_CLIP) {
        if (!(act->a < INFINITY && act->b > -INFINITY))
            return INFINITY;
        real = fmax(real, fmax(a < INFINITY ? a : 0.0, b < INFINITY ? b : 0.0));
    } else if (act->kind != QD_ACT_NONE) { /* no function grows faster than its argument, or than 1 */
        real = fmax(real, 1.0) * fmax(a, 1.0) + b;
    }
    real = act->affine ? real * fabs((double)act->mul) + fabs((double)act->add) : real;
    return e->by ? real * (double)largest(e->by + begin, n) : real;
}

void QD_SIMD_NAME(qd_tile_epilogue_begin)(struct tile_epilogue *t, const struct qd_epilogue *e, bool integer,
                                          size_t col_begin, size_t col_end, float depth_bound)
{
    const float inv_scale = epilogue_inv_scale(e);
    const bool words = e->quantize && e->out_s16, adds = e->residual.data && e->residual.qp,
               clip = e->act.kind == QD_ACT_CLIP, folds = integer && epilogue_folds(e),
               plain = (!e->residual.data || (adds && integer)) && !e->act.affine && !words && !e->by && !e->rows &&
                       (clip || e->act.kind == QD_ACT_NONE),
               careless = !e->quantize && !e->observe;
    t->e = e;
    t->prepare = NULL;
    t->finish = NULL;
    t->scaling = scaling_of(e->quantize, inv_scale);
    t->integer = integer;
    t->centre = integer && e->weight_zeros;
    t->low = false;
    t->folded[0].cols = t->folded[1].cols = 0;
    t->folded[0].seen = t->folded[1].seen = false;
    t->seen = observing_begin();
    double bound = integer && !careless ? bound_of(e, col_begin, col_end, depth_bound) : INFINITY;
    /* Far from the ends of float and, scaled, of int32. */
    bool sure = bound < 1e30 && (!e->quantize || bound * (double)inv_scale < 2e9);
    const unsigned what = (e->quantize ? 2 : 0) + (e->observe ? 1 : 0);
    if (folds && !(sure && grows(e->scale + col_begin, col_end - col_begin))) {
        t->finish = finish_plainly;
    } else if (folds || (plain && (sure || careless))) {
        t->finish = integer ? FINISHES[(adds ? 2 : 0) + clip][what] : clip ? finish_float_clip : finish_float;
    } else {
        t->prepare = PREPARES[e->act.kind][e->rows != NULL];
        if (!careless)
            t->finish = words ? tile_finish_s16 : FINISHES_PREPARED[sure][what];
    }
}

void QD_SIMD_NAME(qd_tile_epilogue_end)(struct tile_epilogue *t, uint64_t elems)
{
    for (size_t i = 0; i < 2; i++)
        tile_folded_end(t, &t->folded[i]);
    if (t->e->observe)
        observing_end(&t->seen, elems, t->e->observe);
}

#endif
#endif
