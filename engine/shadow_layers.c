/* Single layers of a shadow run: the integer layer on the tensors that the FP32 step had, against what that step made.
 * Its inputs are quantized as they would be where its plan hands them over as integers, so the layer's error is that of
 * its inputs' rounding, its weights and its arithmetic; not what came to it from layers before. */
#include "engine/shadow_impl.h"

#include "engine/plan/convert.h"

#include <math.h>
#include <string.h>
#include <time.h>

bool qd_step_errs(const struct qd_plan *plan, const struct qd_step *step)
{
    if (step->kind == QD_STEP_LINEAR)
        return step->int8 || step->int16;
    if (step->kind != QD_STEP_OP || !step->int8)
        return false;
    if (step->op->flags & QD_OP_INT8_INSIDE)
        return true;
    const int own = step->out[0] == QD_NO_VALUE ? -1 : plan->slots[step->out[0]].site;
    bool reads = false;
    for (int i = 0; i < step->in_count; i++) {
        const int site = step->in[i] == QD_NO_VALUE ? -1 : plan->slots[step->in[i]].site;
        reads |= site >= 0;
        if (site >= 0 && site == own) /* moves integers unchanged */
            return false;
    }
    return reads;
}

/* The same inputs, the scales of rows aside, and outputs. */
static bool alike(const struct qd_step *a, const struct qd_step *b)
{
    if (a->kind == QD_STEP_LINEAR)
        return (qd_step_residual(a) == QD_NO_VALUE) == (qd_step_residual(b) == QD_NO_VALUE);
    return a->in_count == b->in_count && a->out_count == b->out_count;
}

void qd_shadow_match(struct qd_shadow *s, const struct qd_plan *fp32)
{
    for (int f = 0, from = 0; f < fp32->step_count; f++) {
        const struct qd_step *theirs = &fp32->steps[f];
        s->twins[f] = -1;
        if (theirs->kind != QD_STEP_LINEAR && theirs->kind != QD_STEP_OP)
            continue;
        for (int n = 0; n < s->plan->step_count; n++) { /* in nearly the same order */
            const int i = (from + n) % s->plan->step_count;
            const struct qd_step *mine = &s->plan->steps[i];
            if (mine->kind != theirs->kind || strcmp(mine->node->name, theirs->node->name) != 0)
                continue;
            from = i;
            if (strcmp(mine->fused, theirs->fused) == 0 && alike(mine, theirs) && qd_step_errs(s->plan, mine))
                s->twins[f] = i;
            break;
        }
    }
}

/* The scale a tensor would be served by: the epoch's; its own while the site warms up; both joined by the guard. */
static struct qd_qparams scale_for(const struct qd_shadow *s, int site, const struct qd_tensor *in)
{
    const struct qd_site_params *params = &s->epoch->sites[site];
    const float *values = in->data;
    double lo = 0, hi = 0;
    for (int64_t i = 0; i < qd_tensor_elems(in); i++) {
        const double v = (double)values[i];
        lo = v < lo ? v : lo;
        hi = v > hi ? v : hi;
    }
    if (!isfinite(lo) || !isfinite(hi))
        lo = hi = 0;
    const bool wide = s->plan->sites[site].wide;
    const int rule = s->plan->sites[site].guard;
    const bool widens = rule < 0 ? s->widens : rule != QD_GUARDED_CLIP;
    if (params->ready) {
        const double out = fmax(params->lo - lo, hi - params->hi), width = params->hi - params->lo;
        if (params->cuts || !widens || !(out > (wide ? 0 : s->guard_tolerance) * width))
            return params->qp;
        lo = fmin(lo, params->lo);
        hi = fmax(hi, params->hi);
    }
    return wide ? qd_qparams_from_range_s16(lo, hi) : qd_qparams_from_range(lo, hi, s->plan->sites[site].symmetric);
}

static void note_conversion(struct qd_shadow *s, int i, double us)
{
    if (i < QD_TIMED_INPUTS)
        s->in_us[i] = us;
}

static void *take(struct qd_shadow *s, size_t bytes) { return qd_arena_alloc_raw(s->step_arena, bytes + 1); }

/* The tensor as the slot carries it: quantized, or as it is. Input `i` of a layer: how long that took is noted. False:
 * out of memory. */
static bool carried(struct qd_shadow *s, int i, int slot, const struct qd_tensor *in, struct qd_tensor *out,
                    struct qd_qparams *qp)
{
    const int site = slot == QD_NO_VALUE ? -1 : s->plan->slots[slot].site;
    *out = *in;
    if (site < 0 || in->dtype != QD_F32)
        return true;
    const size_t elems = (size_t)qd_tensor_elems(in);
    struct qd_observation ignored = qd_observation_empty();
    *qp = scale_for(s, site, in);
    out->dtype = s->plan->sites[site].wide ? QD_I16 : QD_U8;
    out->data = take(s, qd_tensor_bytes(out));
    void *scratch = take(s, elems);
    const double start = qd_thread_us();
    if (out->data && scratch)
        qd_convert_quantize(s->plan->kernels, in, out, qp, &ignored, scratch, s->plan->parallel);
    note_conversion(s, i, qd_thread_us() - start);
    return out->data && scratch;
}

double qd_thread_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* Channels last, each multiplied: as its maker writes a tensor whose channels are smoothed. False: out of memory. */
static bool divided(struct qd_shadow *s, const struct qd_tensor *in, const float *by, size_t channels,
                    struct qd_tensor *out)
{
    const float *from = in->data;
    float *to = take(s, qd_tensor_bytes(in));
    *out = *in;
    out->data = to;
    for (int64_t at = 0; to && at < qd_tensor_elems(in); at += (int64_t)channels)
        s->plan->kernels->pointwise[QD_PW_MUL].run(from + at, by, 0.0f, 0.0f, to + at, channels);
    return to != NULL;
}

/* The tensor in u8, each row by its own range. False: out of memory. */
static bool carried_in_rows(struct qd_shadow *s, const struct qd_tensor *in, struct qd_tensor *out,
                            const struct qd_step *step, struct qd_row_scale **scales)
{
    const size_t elems = (size_t)qd_tensor_elems(in);
    const int site = s->plan->slots[step->in[0]].site;
    struct qd_observation ignored = qd_observation_empty();
    *out = *in;
    out->dtype = QD_U8;
    out->data = take(s, elems);
    *scales = qd_arena_alloc(s->step_arena, elems + 1, sizeof **scales);
    const double start = qd_thread_us();
    if (out->data && *scales)
        qd_convert_quantize_rows(s->plan->kernels, in, out, step->by, *scales, s->plan->sites[site].symmetric, &ignored,
                                 s->plan->parallel);
    note_conversion(s, 0, qd_thread_us() - start);
    return out->data && *scales;
}

static double timed_run(const struct qd_linear *linear, const struct qd_linear_call *call)
{
    const double start = qd_thread_us();
    qd_linear_run(linear, call);
    return qd_thread_us() - start;
}

/* Once more, its data at hand as those of the step in FP32 are when that is timed: writing floats, then bytes. */
static void time_linear(struct qd_shadow *s, const struct qd_step *mine, struct qd_linear_call call,
                        struct qd_layer_found *found)
{
    const int site = s->plan->slots[mine->out[0]].site;
    struct qd_tensor bytes = *call.out;
    struct qd_observation ignored = qd_observation_empty();
    found->us = timed_run(mine->linear, &call);
    bytes.dtype = QD_U8;
    if (site < 0 || !s->epoch->sites[site].ready || !(bytes.data = take(s, qd_tensor_bytes(&bytes))))
        return;
    call.out = &bytes;
    call.out_qp = &s->epoch->sites[site].qp;
    call.observe = &ignored;
    const double less = timed_run(mine->linear, &call);
    found->float_us = less < found->us ? found->us - less : 0;
    found->us -= found->float_us;
}

static bool run_linear(struct qd_shadow *s, const struct qd_lane *lane, const struct qd_step *fp32,
                       const struct qd_step *mine, struct qd_tensor *got, struct qd_layer_found *found)
{
    const int sum = qd_step_residual(fp32);
    const struct qd_tensor *from = &lane->slots[fp32->in[0]];
    struct qd_tensor in, residual, channels;
    struct qd_qparams in_qp = {.scale = 1}, residual_qp = {.scale = 1};
    struct qd_row_scale *rows = NULL;
    if (mine->by && qd_step_rows(mine) == QD_NO_VALUE) {
        if (!divided(s, from, mine->by, qd_linear_inputs(mine->linear), &channels))
            return false;
        from = &channels;
    }
    const bool made = qd_step_rows(mine) == QD_NO_VALUE ? carried(s, 0, mine->in[0], from, &in, &in_qp)
                                                        : carried_in_rows(s, from, &in, mine, &rows);
    *got = lane->slots[fp32->out[0]];
    if (!made || (sum != QD_NO_VALUE && !carried(s, 1, mine->in[1], &lane->slots[sum], &residual, &residual_qp)))
        return false;
    got->data = take(s, qd_tensor_bytes(got));
    void *scratch = take(s, qd_linear_scratch_bytes(mine->linear, &in.shape, s->plan->parallel->threads));
    if (!got->data || !scratch)
        return false;
    const struct qd_biases *biases = mine->int8 ? s->epoch->biases : NULL;
    const struct qd_linear_call call = {.in = &in,
                                        .out = got,
                                        .in_qp = &in_qp,
                                        .rows = rows,
                                        .bias = biases ? biases->of[mine - s->plan->steps] : NULL,
                                        .residual = sum == QD_NO_VALUE ? NULL : &residual,
                                        .residual_qp = sum != QD_NO_VALUE && residual.dtype == QD_U8 ? &residual_qp
                                                                                                     : NULL,
                                        .scratch = scratch,
                                        .parallel = s->plan->parallel};
    found->us = timed_run(mine->linear, &call);
    if (s->times_fp32)
        time_linear(s, mine, call, found);
    return true;
}

static bool run_op(struct qd_shadow *s, const struct qd_lane *lane, const struct qd_step *fp32,
                   const struct qd_step *mine, struct qd_tensor *got, struct qd_layer_found *found)
{
    struct qd_tensor in[QD_MAX_STEP_TENSORS];
    struct qd_qparams scales[QD_MAX_STEP_TENSORS];
    const struct qd_qparams *in_qp[QD_MAX_STEP_TENSORS];
    struct qd_error ignored;
    for (int i = 0; i < mine->in_count; i++) {
        const bool there = fp32->in[i] != QD_NO_VALUE;
        in_qp[i] = NULL;
        in[i] = (struct qd_tensor){.dtype = QD_NONE};
        if (there && !carried(s, i, mine->in[i], &lane->slots[fp32->in[i]], &in[i], &scales[i]))
            return false;
        if (there && in[i].dtype == QD_U8 && lane->slots[fp32->in[i]].dtype == QD_F32)
            in_qp[i] = &scales[i];
    }
    for (int o = 0; o < mine->out_count; o++) {
        got[o] = fp32->out[o] == QD_NO_VALUE ? (struct qd_tensor){.dtype = QD_NONE} : lane->slots[fp32->out[o]];
        if (got[o].dtype != QD_NONE && !(got[o].data = take(s, qd_tensor_bytes(&got[o]))))
            return false;
    }
    struct qd_call call = {.node = mine->node,
                           .prep = mine->prep,
                           .in_count = mine->in_count,
                           .out_count = mine->out_count,
                           .in = in,
                           .out = got,
                           .in_qp = in_qp,
                           .kernels = s->plan->kernels,
                           .parallel = s->plan->parallel};
    call.scratch = take(s, mine->op->scratch ? mine->op->scratch(&call) : 0);
    if (!call.scratch)
        return false;
    bool good = true;
    for (int run = 0; good && run < 1 + s->times_fp32; run++) { /* timed with its data at hand, as FP32's step is */
        const double start = qd_thread_us();
        good = mine->op->run(&call, &ignored) == QD_OK;
        found->us = qd_thread_us() - start;
    }
    return good;
}

/* The step in FP32 once more, into memory of its own; 0: out of memory. */
static double time_fp32(struct qd_shadow *s, const struct qd_lane *lane, const struct qd_step *step)
{
    struct qd_tensor in[QD_MAX_STEP_TENSORS], out[QD_MAX_OUTPUTS];
    struct qd_call call;
    struct qd_error ignored;
    qd_step_call(lane->plan, step, lane->slots, in, out, &call);
    call.scratch = take(s, qd_step_scratch(lane->plan, step, lane->slots));
    bool good = call.scratch != NULL;
    for (int o = 0; good && o < step->out_count; o++)
        if (out[o].dtype != QD_NONE)
            good = (out[o].data = take(s, qd_tensor_bytes(&out[o]))) != NULL;
    if (!good)
        return 0;
    const int sum = step->kind == QD_STEP_LINEAR ? qd_step_residual(step) : QD_NO_VALUE;
    const struct qd_linear_call linear = {.in = &in[0],
                                          .out = &out[0],
                                          .residual = sum == QD_NO_VALUE ? NULL : &lane->slots[sum],
                                          .scratch = call.scratch,
                                          .parallel = lane->plan->parallel};
    const double start = qd_thread_us();
    if (step->kind == QD_STEP_LINEAR)
        qd_linear_run(step->linear, &linear);
    else if (step->op->run(&call, &ignored) != QD_OK)
        return 0;
    return qd_thread_us() - start;
}

/* Adds what differs, and with `go_on` puts the integer layer's result in the place of the FP32 step's. */
static void judge(const struct qd_lane *lane, const struct qd_step *fp32, const struct qd_tensor *got, bool go_on,
                  struct qd_squares *sum)
{
    for (int o = 0; o < fp32->out_count; o++) {
        if (fp32->out[o] == QD_NO_VALUE || got[o].dtype != QD_F32)
            continue;
        float *want = lane->slots[fp32->out[o]].data;
        const float *values = got[o].data;
        for (int64_t i = 0; i < qd_tensor_elems(&got[o]); i++) {
            const double error = (double)values[i] - (double)want[i];
            sum->signal += (double)want[i] * (double)want[i];
            sum->noise += error * error;
        }
        if (go_on && qd_tensor_elems(&got[o]))
            memcpy(want, values, qd_tensor_bytes(&got[o]));
    }
}

void qd_shadow_look(struct qd_probe *probe, const struct qd_lane *lane, const struct qd_step *step)
{
    const struct qd_shadow_probe *p = (const struct qd_shadow_probe *)probe;
    struct qd_shadow *s = p->shadow;
    const int i = s->twins[step - lane->plan->steps];
    struct qd_tensor got[QD_MAX_OUTPUTS];
    if (i < 0 || (p->only >= 0 && p->only != i))
        return;
    const struct qd_step *mine = &s->plan->steps[i];
    struct qd_layer_found found = {.us = 0};
    memset(s->in_us, 0, sizeof s->in_us);
    if (step->kind == QD_STEP_LINEAR ? run_linear(s, lane, step, mine, got, &found)
                                     : run_op(s, lane, step, mine, got, &found)) {
        struct qd_squares ignored = {0};
        judge(lane, step, got, p->only >= 0, p->only >= 0 ? &ignored : &s->layers[i].squares);
        if (p->only < 0) {
            s->layers[i].us = found.us;
            s->layers[i].float_us = found.float_us;
            memcpy(s->layers[i].in_us, s->in_us, sizeof s->in_us);
            s->layers[i].fp32_us = s->times_fp32 ? time_fp32(s, lane, step) : 0;
        }
    }
    qd_arena_reset(s->step_arena);
}
