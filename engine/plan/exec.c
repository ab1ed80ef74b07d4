/* Running a plan. */
#include "engine/plan/exec.h"

#include "engine/plan/control.h"
#include "engine/plan/convert.h"

#include <math.h>
#include <string.h>

static enum qd_status no_memory(struct qd_error *error)
{
    return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the request");
}

static int root_of(const struct qd_shaped *shaped, int slot)
{
    while (shaped->alias[slot] >= 0)
        slot = shaped->alias[slot];
    return slot;
}

/* Where each slot lies: the request's inputs, constants, or a place in the workspace; views last. */
static void bind_slots(struct qd_lane *lane, const struct qd_tensor *inputs, unsigned char *workspace)
{
    const struct qd_shaped *shaped = lane->shaped;
    memcpy(lane->slots, shaped->slots, (size_t)lane->plan->slot_count * sizeof *lane->slots);
    for (int i = 0; i < lane->plan->slot_count; i++) {
        const struct qd_slot *slot = &lane->plan->slots[i];
        if (slot->input >= 0)
            lane->slots[i].data = inputs[slot->input].dtype == QD_NONE ? slot->constant->data
                                                                       : inputs[slot->input].data;
        else if (shaped->offsets[i] != SIZE_MAX)
            lane->slots[i].data = workspace + shaped->offsets[i];
        qd_plan_place_empty(&lane->slots[i]);
    }
    for (int i = 0; i < lane->plan->slot_count; i++)
        if (shaped->alias[i] >= 0)
            lane->slots[i].data = lane->slots[root_of(shaped, i)].data;
}

/* The lane's slots and its workspace, which counts as the request's. */
static enum qd_status bind_memory(struct qd_lane *lane, const struct qd_tensor *inputs, struct qd_error *error)
{
    size_t bytes = lane->shaped->workspace_bytes;
    size_t most = lane->plan->options.request_bytes;
    if (lane->taken_bytes > most || bytes > most - lane->taken_bytes)
        return qd_fail(error, QD_ERR_TOO_LARGE, "no memory left for the request: it may take %zu MiB", most >> 20);
    lane->workspace_bytes = bytes;
    lane->workspace = qd_workspace_take(&lane->plan->workspaces, &lane->workspace_bytes);
    lane->slots = qd_arena_alloc(lane->arena, (size_t)lane->plan->slot_count, sizeof *lane->slots);
    if (!lane->slots || !lane->workspace)
        return no_memory(error);
    bind_slots(lane, inputs, lane->workspace);
    lane->scratch = lane->workspace + lane->shaped->scratch_offset;
    lane->taken_bytes += bytes;
    lane->status = QD_OK;
    return QD_OK;
}

enum qd_status qd_lane_bind(struct qd_lane *lane, const struct qd_tensor *inputs, struct qd_error *error)
{
    size_t sites = (size_t)lane->plan->site_count;
    lane->observations = qd_arena_alloc(lane->arena, sites, sizeof *lane->observations);
    lane->guarded = qd_arena_alloc(lane->arena, sites, sizeof *lane->guarded);
    lane->qparams = qd_arena_alloc(lane->arena, sites, sizeof *lane->qparams);
    lane->utilization = qd_arena_alloc(lane->arena, sites, sizeof *lane->utilization);
    if (!lane->observations || !lane->guarded || !lane->qparams || !lane->utilization)
        return no_memory(error);
    lane->params = lane->epoch ? lane->epoch->sites : NULL;
    for (size_t i = 0; i < sites; i++) {
        lane->observations[i] = qd_observation_empty();
        lane->qparams[i] = lane->params[i].qp;
    }
    lane->taken_bytes = 0;
    return bind_memory(lane, inputs, error);
}

enum qd_status qd_lane_bind_body(struct qd_lane *lane, const struct qd_lane *parent, int site_base,
                                 const struct qd_tensor *inputs, struct qd_error *error)
{
    lane->params = parent->params ? parent->params + site_base : NULL;
    lane->observations = parent->observations + site_base;
    lane->guarded = parent->guarded + site_base;
    lane->qparams = parent->qparams + site_base;
    lane->utilization = parent->utilization + site_base;
    lane->rules = parent->rules;
    return bind_memory(lane, inputs, error);
}

void qd_lane_release(struct qd_lane *lane)
{
    if (lane->workspace)
        qd_workspace_give(&lane->plan->workspaces, lane->workspace, lane->workspace_bytes);
    lane->workspace = NULL;
}

/* The scale of a slot's integers, NULL for a slot of floats. */
static const struct qd_qparams *scale_of(const struct qd_lane *lane, int slot)
{
    int site = slot == QD_NO_VALUE ? -1 : lane->plan->slots[slot].site;
    return site >= 0 ? &lane->qparams[site] : NULL;
}

/* Bytes of strings lie in the request's arena, within what the request may take. */
struct lane_lender {
    struct qd_lender lender;
    struct qd_lane *lane;
};

static void *lend(struct qd_lender *lender, size_t bytes)
{
    return qd_lane_take(((struct lane_lender *)lender)->lane, bytes);
}

static void run_op(struct qd_lane *lane, const struct qd_step *step, struct qd_observation *observe, void *scratch)
{
    struct qd_tensor in[QD_MAX_STEP_TENSORS], out[QD_MAX_OUTPUTS];
    const struct qd_qparams *in_qp[QD_MAX_STEP_TENSORS];
    struct qd_call call;
    qd_step_call(lane->plan, step, lane->slots, in, out, &call);
    for (int i = 0; i < step->in_count; i++)
        in_qp[i] = scale_of(lane, step->in[i]);
    call.in_qp = in_qp;
    call.out_qp = step->site >= 0 ? &lane->qparams[step->site] : NULL;
    call.observe = observe;
    call.scratch = scratch;
    struct lane_lender lender = {{lend}, lane};
    call.lender = &lender.lender;
    lane->status = step->op->run(&call, &lane->error);
}

/* The epoch's bias of an INT8 layer; NULL: the layer's own. */
static const float *bias_of(const struct qd_lane *lane, const struct qd_step *step)
{
    const struct qd_biases *biases = lane->epoch && step->int8 ? lane->epoch->biases : NULL;
    return biases ? biases->of[step - lane->plan->steps] : NULL;
}

/* One pass of a step, under the lane's present scales. */
static void pass(struct qd_lane *lane, const struct qd_step *step, struct qd_observation *observe, void *scratch)
{
    const struct qd_plan *plan = lane->plan;
    if (step->kind == QD_STEP_OP) {
        run_op(lane, step, observe, scratch);
        return;
    }
    const struct qd_tensor *in = &lane->slots[step->in[0]];
    struct qd_tensor *out = &lane->slots[step->out[0]];
    const struct qd_qparams *in_qp = scale_of(lane, step->in[0]);
    const struct qd_qparams *out_qp = step->site >= 0 ? &lane->qparams[step->site] : NULL;
    switch (step->kind) {
    case QD_STEP_LINEAR: {
        const int residual = qd_step_residual(step), rows = qd_step_rows(step);
        struct qd_linear_call call = {.in = in,
                                      .out = out,
                                      .in_qp = in_qp,
                                      .out_qp = out_qp,
                                      .rows = rows == QD_NO_VALUE ? NULL : lane->slots[rows].data,
                                      .residual = residual == QD_NO_VALUE ? NULL : &lane->slots[residual],
                                      .residual_qp = scale_of(lane, residual),
                                      .by = step->out_by,
                                      .bias = bias_of(lane, step),
                                      .observe = observe,
                                      .scratch = scratch,
                                      .parallel = plan->parallel};
        qd_linear_run(step->linear, &call);
        break;
    }
    case QD_STEP_QUANTIZE:
        (step->fake ? qd_convert_requantize : qd_convert_quantize)(plan->kernels, in, out, out_qp, observe, scratch,
                                                                   plan->parallel);
        break;
    case QD_STEP_QUANTIZE_ROWS:
        qd_convert_quantize_rows(plan->kernels, in, out, step->by, lane->slots[step->out[1]].data,
                                 plan->sites[step->site].symmetric, observe, plan->parallel);
        break;
    case QD_STEP_DEQUANTIZE:
        qd_convert_dequantize(plan->kernels, in, out, in_qp, scratch, plan->parallel);
        break;
    case QD_STEP_FAKE_ROWS:
        qd_convert_fake_rows(plan->kernels, in, out, plan->sites[step->site].symmetric, plan->sites[step->site].bits,
                             observe, scratch, plan->parallel);
        break;
    case QD_STEP_RELAYOUT:
        qd_convert_relayout(plan->kernels, in, out, plan->parallel);
        break;
    case QD_STEP_OP: /* above */
    case QD_STEP_CONTROL:
        break;
    }
}

/* By how much an observation leaves a range, as a share of the range's width. */
static double excess(const struct qd_observation *seen, const struct qd_site_params *site)
{
    double low = site->lo - (double)seen->min, high = (double)seen->max - site->hi;
    double most = low > high ? low : high, width = site->hi - site->lo;
    return most <= 0 ? 0 : width > 0 ? most / width : INFINITY;
}

static float utilization(const struct qd_observation *seen, const struct qd_qparams *qp)
{
    if (!(seen->min <= seen->max))
        return 0;
    int32_t low = qd_round_clamp(seen->min / qp->scale, qp), high = qd_round_clamp(seen->max / qp->scale, qp);
    return (float)(high - low) / (float)(qp->qmax - qp->qmin);
}

/* A scale of the lane's own, in the bits of its site. */
static struct qd_qparams own_scale(const struct qd_lane *lane, int site, double lo, double hi)
{
    const struct qd_site *at = &lane->plan->sites[site];
    return at->wide ? qd_qparams_from_range_s16(lo, hi)
                    : qd_qparams_from_range_bits(lo, hi, at->symmetric && !at->own, at->bits);
}

/* With 16 bits even a single value that is cut costs more than all rounding: under `widen` none ever is. */
static bool cut_words(const struct qd_lane *lane, int site)
{
    const struct qd_observation *seen = &lane->observations[site];
    const enum qd_guard_action guard = qd_lane_guard(lane, site);
    return lane->plan->sites[site].wide && guard != QD_GUARDED_CLIP && guard != QD_GUARDED_REJECT &&
           (seen->clipped_low || seen->clipped_high);
}

/* The guard and the warm-up (docs/QUANTIZATION.md, section 5): the step has run under the epoch's scale and shown its
 * real range; when that scale is not to be used, the step is run again under the lane's own. */
static void run_site(struct qd_lane *lane, const struct qd_step *step, void *scratch)
{
    struct qd_observation *seen = &lane->observations[step->site];
    const struct qd_site_params *site = &lane->params[step->site];
    struct qd_qparams *qp = &lane->qparams[step->site];
    const float min = seen->min, max = seen->max;
    const bool ready = site->ready && (site->given || !lane->rules.own);
    if (ready && site->cuts && lane->plan->sites[step->site].fixed) { /* nobody learns from what is cut */
        pass(lane, step, NULL, scratch);
        return;
    }
    pass(lane, step, seen, scratch);
    bool finite = seen->min <= seen->max;
    bool again = finite && seen->min == min && seen->max == max; /* in a loop: the scale of the last iteration holds */
    if (!ready)
        seen->clipped_low = seen->clipped_high = 0; /* no range was in force */
    if (again)
        return;
    if (!ready) {
        *qp = finite ? own_scale(lane, step->site, (double)seen->min, (double)seen->max)
                     : own_scale(lane, step->site, 0, 0);
        pass(lane, step, NULL, scratch);
    } else if (finite && !site->cuts && (excess(seen, site) > lane->rules.tolerance || cut_words(lane, step->site))) {
        lane->guarded[step->site] += excess(seen, site) > lane->rules.tolerance;
        const enum qd_guard_action guard = qd_lane_guard(lane, step->site);
        if (guard == QD_GUARDED_REJECT) {
            lane->status = qd_fail(&lane->error, QD_ERR_OUT_OF_RANGE,
                                   "tensor '%s' left its learned range [%.9g, %.9g]: it reached [%.9g, %.9g]",
                                   lane->plan->sites[step->site].name, site->lo, site->hi, (double)seen->min,
                                   (double)seen->max);
        } else if (guard != QD_GUARDED_CLIP) {
            double lo = seen->min < site->lo ? seen->min : site->lo, hi = seen->max > site->hi ? seen->max : site->hi;
            *qp = own_scale(lane, step->site, lo, hi);
            pass(lane, step, NULL, scratch);
        }
    }
    lane->utilization[step->site] = utilization(seen, qp);
}

/* Each row uses its whole range: nothing to guard. */
static void run_rows_site(struct qd_lane *lane, const struct qd_step *step, void *scratch)
{
    struct qd_observation *seen = &lane->observations[step->site];
    pass(lane, step, seen, scratch);
    lane->utilization[step->site] = seen->min < seen->max;
}

/* Memory from the request's arena, as long as the request may have more. */
void *qd_lane_take(struct qd_lane *lane, size_t bytes)
{
    size_t most = lane->plan->options.request_bytes;
    if (lane->taken_bytes > most || bytes > most - lane->taken_bytes)
        return NULL;
    lane->taken_bytes += bytes;
    return qd_arena_alloc_raw(lane->arena, bytes);
}

static enum qd_status too_large(struct qd_lane *lane, const struct qd_step *step)
{
    return qd_fail(&lane->error, QD_ERR_TOO_LARGE, "no memory left for node '%s': a request may take %zu MiB",
                   step->node->name, lane->plan->options.request_bytes >> 20);
}

/* A step whose shapes depend on data: inferred now, memory from the request's arena. Returns its scratch through
 * *scratch. */
static enum qd_status prepare_dynamic(struct qd_lane *lane, const struct qd_step *step, void **scratch)
{
    enum qd_status status = qd_step_infer(lane->plan, step, lane->slots, &lane->error);
    if (status == QD_ERR_NEEDS_DATA)
        return qd_fail(&lane->error, QD_ERR_INTERNAL, "node '%s' needs data that never came", step->node->name);
    if (status)
        return status;
    for (int i = 0; i < step->out_count; i++) {
        if (step->out[i] == QD_NO_VALUE)
            continue;
        struct qd_tensor *out = &lane->slots[step->out[i]];
        bool view = i == 0 && step->kind == QD_STEP_OP && (step->op->flags & QD_OP_VIEW);
        out->data = view ? lane->slots[step->in[0]].data : qd_lane_take(lane, qd_tensor_bytes(out));
        if (!out->data && qd_tensor_elems(out))
            return too_large(lane, step);
    }
    size_t bytes = qd_step_scratch(lane->plan, step, lane->slots);
    *scratch = bytes ? qd_lane_take(lane, bytes) : lane->scratch;
    return bytes && !*scratch ? too_large(lane, step) : QD_OK;
}

static void run_step(struct qd_lane *lane, int index)
{
    const struct qd_step *step = &lane->plan->steps[index];
    const struct qd_shaped *shaped = lane->shaped;
    void *scratch = lane->scratch;
    if (step->kind == QD_STEP_CONTROL) {
        qd_control_run(lane, step);
        return;
    }
    if (index < shaped->static_steps) {
        if (shaped->done[index])
            return;
    } else {
        lane->status = prepare_dynamic(lane, step, &scratch);
        if (lane->status)
            return;
    }
    if (step->site >= 0 && lane->plan->sites[step->site].rows)
        run_rows_site(lane, step, scratch);
    else if (step->site >= 0)
        run_site(lane, step, scratch);
    else
        pass(lane, step, NULL, scratch);
    if (lane->probe && lane->status == QD_OK)
        lane->probe->look(lane->probe, lane, step);
}

static void tap_slot(const struct qd_lane *lane, int slot)
{
    const struct qd_tap *tap = lane->tap;
    if (slot != QD_NO_VALUE && tap->wanted[slot] >= 0)
        tap->see(tap->ctx, tap->wanted[slot], &lane->slots[slot]);
}

static void tap_inputs(const struct qd_lane *lane)
{
    for (int i = 0; lane->tap && i < lane->plan->slot_count; i++)
        if (lane->plan->slots[i].input >= 0)
            tap_slot(lane, i);
}

/* Views and steps that were done with the shapes too. */
static void tap_outputs(const struct qd_lane *lane, const struct qd_step *step)
{
    for (int i = 0; lane->tap && lane->status == QD_OK && i < step->out_count; i++)
        tap_slot(lane, step->out[i]);
}

void qd_exec_run(struct qd_lane *const *lanes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        tap_inputs(lanes[i]);
    for (int s = 0; s < lanes[0]->plan->step_count; s++)
        for (size_t i = 0; i < count; i++)
            if (lanes[i]->status == QD_OK) {
                run_step(lanes[i], s);
                tap_outputs(lanes[i], &lanes[i]->plan->steps[s]);
            }
}
