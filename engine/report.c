/* Reports: what was learned and what the plan is, in the words of engine/engine.h; and test data files. */
#include "engine/model.h"
#include "engine/plan/control.h"
#include "engine/plan/place.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum qd_mode mode_in_force(const struct qd_model *model)
{
    return qd_learner_frozen(model->learner) ? QD_MODE_STATIC : model->options.mode;
}

/* A site by its rule and its file; given ranges apart. */
static enum qd_mode site_mode(const struct qd_model *model, const struct qd_site *site)
{
    if (site->rows || site->own || site->mode == QD_SITE_REQUEST)
        return QD_MODE_REQUEST;
    if (site->fixed || site->mode == QD_SITE_STATIC || qd_learner_frozen(model->learner))
        return QD_MODE_STATIC;
    return site->mode == QD_SITE_EMA ? QD_MODE_EMA : model->options.mode;
}

static enum qd_mode mode_of(const struct qd_model *model, size_t site)
{
    const struct qd_given *given = qd_learner_static(model->learner, site);
    return !given->set ? site_mode(model, &model->plan->sites[site]) : given->own ? QD_MODE_REQUEST : QD_MODE_STATIC;
}

void qd_model_ranges(const struct qd_model *model, struct qd_ranges_summary *out)
{
    *out = (struct qd_ranges_summary){
        .epoch = qd_learner_current(model->learner)->id,
        .requests = qd_learner_requests(model->learner),
        .mode = mode_in_force(model),
        .compat = model->options.compat,
        .averaging_constant = model->options.averaging_constant,
        .frozen = qd_learner_frozen(model->learner),
        .sites = (size_t)model->plan->site_count,
    };
}

void qd_model_range(const struct qd_model *model, size_t i, struct qd_range_report *out)
{
    const struct qd_site *site = &model->plan->sites[i];
    const struct qd_range *range = qd_learner_range(model->learner, i);
    const struct qd_qparams *qp = &qd_learner_current(model->learner)->sites[i].qp;
    bool symmetric = site->wide || site->symmetric;
    *out = (struct qd_range_report){
        .name = site->name,
        .mode = mode_of(model, i),
        .scheme = symmetric ? QD_SYMMETRIC : QD_ASYMMETRIC,
        .dtype = site->wide  ? QD_I16
                 : symmetric ? QD_I8
                             : QD_U8,
        .smoothed = site->smoothed,
        .granularity = site->rows ? QD_PER_ROW : QD_PER_TENSOR,
        .ema_min = range->lo,
        .ema_max = range->hi,
        .observed_min = range->observed_min,
        .observed_max = range->observed_max,
        .last_min = range->last_min,
        .last_max = range->last_max,
        .scale = qp->scale,
        .zero_point = qp->zero_point - (symmetric && !site->wide ? QD_CARRIER_OFFSET : 0),
        .observations = range->n,
        .elements = range->elems,
        .clipped_low = range->clipped_low,
        .clipped_high = range->clipped_high,
        .nonfinite = range->nonfinite,
        .guarded = range->guarded,
        .utilization = (double)model->utilization[i],
        .updated_unix_ms = range->updated_unix_ms,
    };
    for (int c = 0; c < site->consumer_count && c < QD_MAX_CONSUMERS; c++)
        out->consumers[out->consumer_count++] = site->consumers[c];
}

uint64_t qd_model_digest(const struct qd_model *model) { return model->graph->digest; }

enum qd_status qd_model_ranges_reset(struct qd_model *model, struct qd_error *error)
{
    if (qd_learner_reset(model->learner) != QD_OK)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to reset the ranges");
    memset(model->utilization, 0, (size_t)model->plan->site_count * sizeof *model->utilization);
    qd_means_reset(model->means);
    return QD_OK;
}

enum qd_status qd_model_ranges_freeze(struct qd_model *model, struct qd_error *error)
{
    size_t unseen = 0, needed = 0;
    while (needed < (size_t)model->plan->site_count && model->plan->sites[needed].value >= 0)
        needed++; /* behind them stand the sites of bodies, which may never run */
    enum qd_status status = qd_learner_freeze(model->learner, needed, &unseen);
    if (status == QD_ERR_CONFLICT)
        return qd_fail(error, status, "tensor '%s' has no observation yet: send a request before freezing",
                       model->plan->sites[unseen].name);
    return status ? qd_fail(error, status, "no memory to freeze the ranges") : QD_OK;
}

enum qd_status qd_model_ranges_unfreeze(struct qd_model *model, struct qd_error *error)
{
    enum qd_status status = qd_learner_unfreeze(model->learner);
    return status ? qd_fail(error, status, "no memory to unfreeze the ranges") : QD_OK;
}

static enum qd_precision step_precision(const struct qd_step *step)
{
    return step->fake ? QD_FAKE : step->int8 ? QD_INT8 : step->int16 ? QD_INT16 : QD_FP32;
}

void qd_model_plan(const struct qd_model *model, struct qd_plan_report *out)
{
    const struct qd_plan *plan = model->plan, *owner;
    *out = (struct qd_plan_report){
        .digest = plan->digest,
        .steps = qd_plan_all_steps(plan),
        .model_file_bytes = model->file_bytes,
        .packed_bytes = plan->packed_bytes,
        .opset = model->graph->opset,
        .nodes = (size_t)model->graph->node_count,
    };
    for (size_t i = 0; i < out->steps; i++)
        out->macs[step_precision(qd_plan_any_step(plan, i, &owner))] += model->step_macs[i];
}

/* The first integers that a step reads, or makes for the one that does. */
static int input_site(const struct qd_plan *plan, const struct qd_step *step)
{
    const bool own = step->kind == QD_STEP_OP || step->kind == QD_STEP_LINEAR;
    for (int i = 0; own && i < step->in_count; i++)
        if (step->in[i] != QD_NO_VALUE && plan->slots[step->in[i]].site >= 0)
            return plan->slots[step->in[i]].site;
    return own ? -1 : step->site;
}

static void report_input(const struct qd_model *model, const struct qd_plan *plan, const struct qd_step *step,
                         struct qd_step_report *out)
{
    static const enum qd_guard guards[] = {[QD_GUARDED_CLIP] = QD_GUARD_CLIP,
                                           [QD_GUARDED_WIDEN] = QD_GUARD_WIDEN,
                                           [QD_GUARDED_ESCALATE] = QD_GUARD_ESCALATE,
                                           [QD_GUARDED_REJECT] = QD_GUARD_REJECT};
    const int id = input_site(plan, step);
    const struct qd_site *site = &plan->sites[id < 0 ? 0 : id];
    if (id < 0)
        return;
    out->reads = true;
    out->mode = plan == model->plan ? mode_of(model, (size_t)id) : site_mode(model, site);
    out->guard = site->guard < 0 ? model->options.guard : guards[site->guard];
    out->activation_granularity = site->rows ? QD_PER_ROW : QD_PER_TENSOR;
    out->activation_scheme = site->wide || site->symmetric ? QD_SYMMETRIC : QD_ASYMMETRIC;
}

void qd_model_step(const struct qd_model *model, size_t i, struct qd_step_report *out)
{
    static const char *const conversions[] = {[QD_STEP_QUANTIZE] = "QuantizeLinear",
                                              [QD_STEP_QUANTIZE_ROWS] = "DynamicQuantizeLinear",
                                              [QD_STEP_DEQUANTIZE] = "DequantizeLinear",
                                              [QD_STEP_FAKE_ROWS] = "DynamicQuantizeLinear",
                                              [QD_STEP_RELAYOUT] = "Transpose"};
    static const char *const reasons[] = {
        [QD_STEP_QUANTIZE] = "this node reads integers",
        [QD_STEP_QUANTIZE_ROWS] = "this node reads integers, each row by its own range",
        [QD_STEP_DEQUANTIZE] = "this node reads floats",
        [QD_STEP_FAKE_ROWS] = "this node reads what integers stand for, each row by its own range",
        [QD_STEP_RELAYOUT] = "this node wants the other layout"};
    const struct qd_plan *plan;
    const struct qd_step *step = qd_plan_any_step(model->plan, i, &plan);
    const struct qd_linear_spec spec = step->unit ? qd_place_spec(plan, step->unit, step->int8, step->int16)
                                                  : (struct qd_linear_spec){0};
    const bool main = plan == model->plan; /* else a body */
    bool own = step->kind == QD_STEP_OP || step->kind == QD_STEP_LINEAR || step->kind == QD_STEP_CONTROL;
    *out = (struct qd_step_report){
        .node = step->node ? step->node->name : "",
        .op = own ? step->node->op : conversions[step->kind],
        .fused = step->fused,
        .precision = step_precision(step),
        .reason = own || step->reason[0] ? step->reason : reasons[step->kind],
        .pinned = own && step->pinned,
        .follows = !own || step->follows,
        .sqnr_db = main ? qd_squares_db(&model->accuracy.layers[step - plan->steps]) : (double)NAN,
        .activation_scheme = step->int16 || plan->options.symmetric ? QD_SYMMETRIC : QD_ASYMMETRIC,
        .weight_granularity = spec.per_tensor ? QD_PER_TENSOR : QD_PER_CHANNEL,
        .weight_scheme = step->linear && qd_linear_asymmetric(step->linear) ? QD_ASYMMETRIC : QD_SYMMETRIC,
        .weight_bits = step->kind != QD_STEP_LINEAR ? 0
                       : step->fake                 ? plan->options.fake_weight_bits
                       : step->int8                 ? 8
                       : step->int16                ? spec.weight_bits
                                                    : 32,
        .macs = model->step_macs[i],
        .int8_us = (double)step->int8_us,
        .int16_us = (double)step->int16_us,
        .fp32_us = (double)step->fp32_us,
    };
    report_input(model, plan, step, out);
}

enum qd_status qd_tensor_proto_read(const void *bytes, size_t size, struct qd_tensor *out, char *name, size_t name_room,
                                    struct qd_error *error)
{
    struct qd_arena *arena;
    struct qd_tensor view;
    const char *tensor_name = "";
    if (qd_arena_create(4 << 10, &arena) != QD_OK)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for a tensor");
    enum qd_status status = qd_onnx_tensor(bytes, size, arena, &view, &tensor_name, error);
    if (!status) {
        size_t n;
        void *block = qd_tensor_block_bytes(&view, &n) ? qd_alloc_aligned(n) : NULL;
        if (block)
            *out = qd_tensor_copy(&view, block);
        else
            status = qd_fail(error, QD_ERR_NO_MEMORY, "no memory for a tensor");
        snprintf(name, name_room, "%s", tensor_name);
    }
    qd_arena_destroy(&arena);
    return status;
}

void qd_tensor_proto_free(struct qd_tensor *tensor)
{
    qd_free(tensor->data);
    tensor->data = NULL;
}
