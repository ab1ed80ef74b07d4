/* A plan: compiling, references, and what a step makes of shapes. */
#include "engine/plan/plan.h"

#include "engine/plan/attention.h"
#include "engine/plan/contrib.h"
#include "engine/plan/control.h"
#include "engine/plan/floats.h"
#include "engine/plan/patterns.h"
#include "engine/plan/place.h"
#include "engine/plan/pointwise.h"
#include "engine/plan/qdq.h"
#include "engine/plan/rules.h"
#include "engine/plan/work.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

void qd_plan_place_empty(struct qd_tensor *tensor)
{
    static _Alignas(QD_ALIGN_BYTES) unsigned char nowhere[QD_ALIGN_BYTES];
    if (!tensor->data && tensor->dtype != QD_NONE && tensor->shape.rank >= 0 && qd_tensor_elems(tensor) == 0)
        tensor->data = nowhere;
}

/* The plan works on its own arrays of nodes and values, because folding edits them; names and tensors stay the model's.
 */
static enum qd_status copy_graph(struct qd_plan *plan, const struct qd_graph *graph, struct qd_error *error)
{
    plan->graph = *graph;
    plan->graph.nodes = qd_arena_alloc(plan->arena, (size_t)graph->node_count, sizeof *graph->nodes);
    plan->graph.values = qd_arena_alloc(plan->arena, (size_t)graph->value_count, sizeof *graph->values);
    if (!plan->graph.nodes || !plan->graph.values)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
    memcpy(plan->graph.nodes, graph->nodes, (size_t)graph->node_count * sizeof *graph->nodes);
    memcpy(plan->graph.values, graph->values, (size_t)graph->value_count * sizeof *graph->values);
    for (int v = 0; v < graph->value_count; v++)
        if (graph->values[v].constant)
            qd_plan_place_empty(&plan->graph.values[v].info);
    return QD_OK;
}

/* Is a constant read only by those who copy it byte by byte, wherever it lies: linear layers as weights, Gather as a
 * table? */
static bool may_lie_anywhere(const struct qd_graph *graph, int value)
{
    for (int n = 0; n < graph->node_count; n++) {
        const struct qd_node *node = &graph->nodes[n];
        for (int i = 0; i < node->in_count; i++)
            if (node->in[i] == value && !(i == 1 && qd_linear_outputs(graph, node) > 0) &&
                !(i == 0 && qd_node_is(node, "Gather")))
                return false;
    }
    return !graph->values[value].is_output;
}

/* Large constants may lie misaligned in the mapped file (QD_ONNX_VIEW_BYTES); operators get aligned copies. */
static enum qd_status align_constants(struct qd_plan *plan, struct qd_error *error)
{
    for (int v = 0; v < plan->graph.value_count; v++) {
        struct qd_tensor *info = &plan->graph.values[v].info;
        if (!info->data || info->dtype != QD_F32 || (uintptr_t)info->data % sizeof(float) == 0 ||
            may_lie_anywhere(&plan->graph, v))
            continue;
        void *copy = qd_arena_alloc_raw(plan->arena, qd_tensor_bytes(info));
        if (!copy)
            return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
        memcpy(copy, info->data, qd_tensor_bytes(info));
        info->data = copy;
    }
    return QD_OK;
}

static enum qd_status find_last_uses(struct qd_plan *plan, struct qd_error *error)
{
    plan->last_use = qd_arena_alloc(plan->arena, (size_t)plan->slot_count, sizeof(int));
    if (!plan->last_use)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
    for (int i = 0; i < plan->slot_count; i++)
        plan->last_use[i] = -1;
    for (int s = 0; s < plan->step_count; s++) {
        const struct qd_step *step = &plan->steps[s];
        for (int i = 0; i < step->out_count; i++)
            if (step->out[i] != QD_NO_VALUE)
                plan->last_use[step->out[i]] = s;
        for (int i = 0; i < step->in_count; i++)
            if (step->in[i] != QD_NO_VALUE)
                plan->last_use[step->in[i]] = s;
    }
    for (int i = 0; i < plan->graph.output_count; i++)
        plan->last_use[plan->output_slots[i]] = plan->step_count;
    return QD_OK;
}

static uint32_t hash_text(uint32_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 16777619u;
    return (hash ^ 0xffu) * 16777619u;
}

/* FNV-1a over everything that decides an answer's bytes: the model, and of each step its node, kind, precision and
 * merged names. */
static uint32_t digest(const struct qd_plan *plan)
{
    char text[128];
    uint32_t hash = 2166136261u;
    snprintf(text, sizeof text, "%016llx %d %d %d %d", (unsigned long long)plan->graph.digest, plan->options.fp32,
             plan->options.symmetric, plan->options.weights_per_tensor, plan->options.weight_bits);
    hash = hash_text(hash, text);
    if (plan->options.weights_asymmetric)
        hash = hash_text(hash, "asymmetric weights");
    for (int i = 0; i < plan->step_count; i++)
        if (plan->steps[i].fake) {
            snprintf(text, sizeof text, "fake %d %d %d", i, plan->options.fake_weight_bits,
                     plan->options.fake_activation_bits);
            hash = hash_text(hash, text);
        }
    for (int i = 0; i < plan->step_count; i++) {
        const struct qd_step *step = &plan->steps[i];
        snprintf(text, sizeof text, "%d %d %d %d", step->kind, step->int8, step->int16, step->site);
        hash = hash_text(hash_text(hash_text(hash, text), step->node ? step->node->name : ""), step->fused);
        if (*qd_rules_digest(plan, step, text, sizeof text))
            hash = hash_text(hash, text);
        for (size_t c = 0; step->kind == QD_STEP_LINEAR && step->by && c < qd_linear_inputs(step->linear); c++) {
            uint32_t bits;
            memcpy(&bits, &step->by[c], sizeof bits);
            hash = (hash ^ bits) * 16777619u;
        }
        for (int b = 0; step->control && b < step->control->branch_count; b++) {
            snprintf(text, sizeof text, "%08x", step->control->branches[b].plan->digest);
            hash = hash_text(hash, text);
        }
    }
    return hash;
}

enum qd_status qd_plan_compile(const struct qd_graph *graph, const struct qd_kernels *kernels,
                               struct qd_parallel *parallel, const struct qd_plan_options *options,
                               struct qd_plan **out, struct qd_error *error)
{
    struct qd_unit *units;
    int unit_count;
    bool quantized = false;
    struct qd_plan *plan = qd_calloc(1, sizeof *plan);
    if (!plan)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
    qd_ref_init(&plan->ref);
    pthread_mutex_init(&plan->cache_lock, NULL);
    qd_workspaces_init(&plan->workspaces);
    plan->kernels = kernels;
    plan->parallel = parallel;
    plan->options = *options;
    enum qd_status status = qd_arena_create(64 << 10, &plan->arena);
    if (status)
        status = qd_fail(error, status, "no memory to compile the model");
    if (!status)
        status = qd_rules_copy(plan, error);
    if (!status)
        status = copy_graph(plan, graph, error);
    if (!status)
        status = qd_control_open(&plan->graph, plan->arena, error);
    if (!status)
        status = qd_contrib_rewrite(&plan->graph, plan->arena, error);
    if (!status)
        status = qd_unify_floats(&plan->graph, plan->arena, error);
    if (!status)
        status = align_constants(plan, error);
    if (!status)
        status = qd_fold_constants(&plan->graph, plan->arena, kernels, parallel, options->request_bytes, qd_qdq_keeps,
                                   error);
    if (!status)
        status = qd_qdq_rewrite(&plan->graph, plan->arena, &quantized, error);
    if (!status && quantized)
        status = qd_fold_constants(&plan->graph, plan->arena, kernels, parallel, options->request_bytes, NULL, error);
    if (!status)
        status = qd_find_patterns(&plan->graph, plan->arena, error);
    if (!status)
        status = qd_find_attention(&plan->graph, plan->arena, error);
    if (!status)
        status = qd_fuse(&plan->graph, plan->arena, &units, &unit_count, error);
    if (!status)
        status = qd_fuse_pointwise(&plan->graph, plan->arena, units, &unit_count, error);
    if (!status)
        status = qd_place(plan, units, unit_count, error);
    if (!status && plan->controls)
        status = qd_control_join_sites(plan, error);
    if (!status)
        status = find_last_uses(plan, error);
    if (status) {
        qd_plan_unref(&plan);
        return status;
    }
    plan->all_steps = (size_t)plan->step_count;
    for (const struct qd_control *c = plan->controls; c; c = c->next)
        for (int b = 0; b < c->branch_count; b++)
            plan->all_steps += c->branches[b].plan->all_steps;
    plan->digest = digest(plan);
    plan->options.choices = NULL;
    plan->options.pins = NULL;
    plan->options.smoothed = NULL;
    *out = plan;
    return QD_OK;
}

const struct qd_pin *qd_plan_pin(const struct qd_plan *plan, const struct qd_node *node)
{
    for (int i = plan->options.pin_count; plan->options.pins && i-- > 0;)
        if (fnmatch(plan->options.pins[i].node, node->name, 0) == 0)
            return &plan->options.pins[i];
    return NULL;
}

const struct qd_choice *qd_plan_choice(const struct qd_plan *plan, const struct qd_node *node)
{
    ptrdiff_t at = node - plan->graph.nodes;
    return plan->options.choices && at < plan->options.choice_count ? &plan->options.choices[at] : NULL;
}

struct qd_plan *qd_plan_ref(struct qd_plan *plan)
{
    qd_ref_take(&plan->ref);
    return plan;
}

void qd_plan_unref(struct qd_plan **plan)
{
    struct qd_plan *p = *plan;
    *plan = NULL;
    if (!p || !qd_ref_drop(&p->ref))
        return;
    for (struct qd_shaped *shaped = p->cache, *next; shaped; shaped = next) {
        next = shaped->next;
        qd_shaped_unref(&shaped);
    }
    qd_control_release(p);
    pthread_mutex_destroy(&p->cache_lock);
    qd_workspaces_destroy(&p->workspaces);
    qd_arena_destroy(&p->arena);
    qd_free(p);
}

void qd_step_call(const struct qd_plan *plan, const struct qd_step *step, const struct qd_tensor *slots,
                  struct qd_tensor *in, struct qd_tensor *out, struct qd_call *call)
{
    for (int i = 0; i < step->in_count; i++)
        in[i] = step->in[i] == QD_NO_VALUE ? (struct qd_tensor){.dtype = QD_NONE} : slots[step->in[i]];
    for (int i = 0; i < step->out_count; i++)
        out[i] = step->out[i] == QD_NO_VALUE ? (struct qd_tensor){.dtype = QD_NONE} : slots[step->out[i]];
    *call = (struct qd_call){.node = step->node,
                             .prep = step->prep,
                             .in_count = step->in_count,
                             .out_count = step->out_count,
                             .in = in,
                             .out = out,
                             .kernels = plan->kernels,
                             .parallel = plan->parallel};
}

static enum qd_layout form_layout(enum qd_form form)
{
    return form == QD_FORM_REAL_CL || form == QD_FORM_Q8_CL || form == QD_FORM_Q16_CL || form == QD_FORM_FAKE_CL
               ? QD_CHANNELS_LAST
               : QD_PLAIN;
}

static enum qd_status check_elems(const struct qd_step *step, const struct qd_tensor *tensor, struct qd_error *error)
{
    int64_t elems, bytes;
    if (qd_shape_elems(&tensor->shape, &elems) && qd_i64_mul(elems, 16, &bytes))
        return QD_OK;
    return qd_fail(error, QD_ERR_TOO_LARGE, "node '%s' would make a tensor too large to address", step->node->name);
}

static bool is_q8(const struct qd_plan *plan, int slot)
{
    return slot != QD_NO_VALUE && (plan->slots[slot].form == QD_FORM_Q8 || plan->slots[slot].form == QD_FORM_Q8_CL);
}

static bool is_q16(const struct qd_plan *plan, int slot)
{
    return plan->slots[slot].form == QD_FORM_Q16 || plan->slots[slot].form == QD_FORM_Q16_CL;
}

static enum qd_status infer_op(const struct qd_plan *plan, const struct qd_step *step, struct qd_tensor *slots,
                               struct qd_error *error)
{
    struct qd_tensor in[QD_MAX_STEP_TENSORS], out[QD_MAX_OUTPUTS];
    struct qd_call call;
    qd_step_call(plan, step, slots, in, out, &call);
    for (int i = 0; (step->op->flags & QD_OP_READS_Q8) && i < step->in_count; i++)
        if (is_q8(plan, step->in[i]))
            in[i].dtype = QD_F32; /* shapes don't depend on how a tensor is carried */
    for (int i = 0; i < step->out_count; i++)
        out[i] = (struct qd_tensor){.dtype = QD_NONE};
    enum qd_status status = step->op->infer(&call, error);
    for (int i = 0; !status && i < step->out_count; i++) {
        if (step->out[i] == QD_NO_VALUE)
            continue;
        if (out[i].dtype == QD_NONE)
            return qd_fail(error, QD_ERR_INVALID, "%s node '%s' has no output %d", step->node->op, step->node->name, i);
        status = check_elems(step, &out[i], error);
        out[i].data = NULL;
        if (is_q8(plan, step->out[i]))
            out[i].dtype = QD_U8;
        if (!status)
            qd_plan_place_empty(&out[i]);
        slots[step->out[i]] = out[i];
    }
    return status;
}

static enum qd_status needs_floats(const struct qd_plan *plan, const struct qd_step *step, const struct qd_tensor *in,
                                   struct qd_error *error)
{
    return qd_fail(error, QD_ERR_TYPE, "%s node '%s' needs a FP32 tensor '%s', has %s", step->node->op,
                   step->node->name, plan->graph.values[plan->slots[step->in[0]].value].name, qd_dtype_name(in->dtype));
}

static enum qd_status needs_rows(const struct qd_step *step, struct qd_error *error)
{
    return qd_fail(error, QD_ERR_SHAPE, "%s node '%s' needs a tensor with rows", step->node->op, step->node->name);
}

/* The integers, and as many scales as there are rows. */
static enum qd_status infer_rows(const struct qd_plan *plan, const struct qd_step *step, struct qd_tensor *slots,
                                 struct qd_error *error)
{
    const struct qd_tensor *in = &slots[step->in[0]];
    struct qd_tensor *out = &slots[step->out[0]], *scales = &slots[step->out[1]];
    if (in->dtype != QD_F32)
        return needs_floats(plan, step, in, error);
    if (in->shape.rank < 1)
        return needs_rows(step, error);
    *out = (struct qd_tensor){.dtype = QD_U8, .layout = QD_PLAIN, .shape = in->shape};
    *scales = (struct qd_tensor){.dtype = QD_I64, .layout = QD_PLAIN, .shape = in->shape};
    scales->shape.rank--;
    _Static_assert(sizeof(struct qd_row_scale) == sizeof(int64_t), "counted as int64");
    enum qd_status status = check_elems(step, out, error);
    qd_plan_place_empty(out);
    qd_plan_place_empty(scales);
    return status;
}

enum qd_status qd_step_infer(const struct qd_plan *plan, const struct qd_step *step, struct qd_tensor *slots,
                             struct qd_error *error)
{
    if (step->kind == QD_STEP_OP)
        return infer_op(plan, step, slots, error);
    if (step->kind == QD_STEP_CONTROL)
        return qd_control_infer(step, slots, error);
    const struct qd_tensor *in = &slots[step->in[0]];
    struct qd_tensor *out = &slots[step->out[0]];
    enum qd_form form = plan->slots[step->out[0]].form;
    *out = (struct qd_tensor){.dtype = in->dtype, .layout = form_layout(form), .shape = in->shape};
    qd_plan_place_empty(out);
    if (step->kind == QD_STEP_RELAYOUT)
        return QD_OK;
    if (step->kind == QD_STEP_QUANTIZE_ROWS)
        return infer_rows(plan, step, slots, error);
    bool integer_in = step->kind == QD_STEP_DEQUANTIZE || (step->kind == QD_STEP_LINEAR && step->int8);
    bool words_in = step->kind == QD_STEP_LINEAR && step->int16;
    if (step->kind == QD_STEP_FAKE_ROWS && in->shape.rank < 1)
        return needs_rows(step, error);
    if (in->dtype != (integer_in ? QD_U8 : words_in ? QD_I16 : QD_F32))
        return needs_floats(plan, step, in, error);
    out->dtype = is_q8(plan, step->out[0]) ? QD_U8 : is_q16(plan, step->out[0]) ? QD_I16 : QD_F32;
    if (step->kind == QD_STEP_LINEAR) {
        enum qd_status fits = qd_linear_infer(step->linear, &in->shape, &out->shape, error);
        if (fits)
            return fits;
        out->data = NULL;
    }
    if (out->layout == QD_CHANNELS_LAST && out->shape.rank < 2)
        return qd_fail(error, QD_ERR_SHAPE, "%s node '%s' needs a tensor with channels", step->node->op,
                       step->node->name);
    enum qd_status status = check_elems(step, out, error);
    if (!status)
        qd_plan_place_empty(out);
    return status;
}

size_t qd_step_scratch(const struct qd_plan *plan, const struct qd_step *step, const struct qd_tensor *slots)
{
    struct qd_tensor in[QD_MAX_STEP_TENSORS], out[QD_MAX_OUTPUTS];
    struct qd_call call;
    switch (step->kind) {
    case QD_STEP_LINEAR:
        return qd_linear_scratch_bytes(step->linear, &slots[step->in[0]].shape, plan->parallel->threads);
    case QD_STEP_OP:
        if (!step->op->scratch)
            return 0;
        qd_step_call(plan, step, slots, in, out, &call);
        return step->op->scratch(&call);
    case QD_STEP_QUANTIZE:
    case QD_STEP_DEQUANTIZE:
    case QD_STEP_FAKE_ROWS: /* integers on their way between layouts */
        return (size_t)qd_tensor_elems(&slots[step->in[0]]);
    case QD_STEP_QUANTIZE_ROWS:
    case QD_STEP_RELAYOUT:
    case QD_STEP_CONTROL: /* its bodies have workspaces of their own */
        return 0;
    }
    return 0;
}

uint64_t qd_step_macs(const struct qd_plan *plan, const struct qd_step *step, const struct qd_shaped *shaped)
{
    struct qd_tensor in[QD_MAX_STEP_TENSORS], out[QD_MAX_OUTPUTS];
    struct qd_call call;
    if (step->kind == QD_STEP_LINEAR)
        return qd_linear_macs(step->linear, &shaped->slots[step->out[0]].shape);
    if (step->kind != QD_STEP_OP)
        return 0;
    qd_step_call(plan, step, shaped->slots, in, out, &call);
    return qd_op_macs(&call);
}
