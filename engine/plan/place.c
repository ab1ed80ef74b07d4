/* Placing: slots and steps in the forms that were decided, with the conversions between them. */
#include "engine/plan/place.h"

#include "engine/ops/round_trip.h"
#include "engine/plan/control.h"
#include "engine/plan/forms.h"
#include "engine/plan/rules.h"
#include "engine/plan/smoothed.h"

#include <stdio.h>
#include <string.h>

struct placer {
    struct qd_plan *plan;
    const struct qd_unit *units;
    int unit_count;
    struct qd_forms forms;
    int (*slot_of)[QD_FORM_COUNT]; /* [value_count] slot ids, -1 none */
    int slot_room, step_room, site_room;
    struct qd_error *error;
};

static enum qd_status no_memory(struct placer *p)
{
    return qd_fail(p->error, QD_ERR_NO_MEMORY, "no memory to compile the model");
}

/* Grows an array in the arena by doubling; the old copy stays with the arena. */
static bool grow(struct placer *p, void **array, int count, int *room, size_t size)
{
    if (count < *room)
        return true;
    int wanted = *room ? *room * 2 : 64;
    void *bigger = qd_arena_alloc(p->plan->arena, (size_t)wanted, size);
    if (!bigger)
        return false;
    if (count)
        memcpy(bigger, *array, (size_t)count * size);
    *array = bigger;
    *room = wanted;
    return true;
}

static int add_slot(struct placer *p, int value, enum qd_form form, int site)
{
    if (!grow(p, (void **)&p->plan->slots, p->plan->slot_count, &p->slot_room, sizeof *p->plan->slots))
        return -1;
    int id = p->plan->slot_count++;
    p->plan->slots[id] = (struct qd_slot){.value = value, .form = form, .site = site, .input = -1};
    p->slot_of[value][form] = id;
    return id;
}

static int add_site(struct placer *p, int value)
{
    if (!grow(p, (void **)&p->plan->sites, p->plan->site_count, &p->site_room, sizeof *p->plan->sites))
        return -1;
    int id = p->plan->site_count++;
    const struct qd_round_trip *trip = p->forms.fixed[value];
    const bool few = p->forms.faked[value] && !trip; /* a file says how many it has itself */
    p->plan->sites[id] = (struct qd_site){.name = p->plan->graph.values[value].name,
                                          .value = value,
                                          .slot = -1,
                                          .guard = -1,
                                          .bits = few ? p->plan->options.fake_activation_bits : 8};
    if (trip && !trip->own)
        p->plan->sites[id].fixed = &trip->qp;
    return id;
}

static struct qd_step *add_step(struct placer *p, enum qd_step_kind kind, const struct qd_node *node, int in_count,
                                int out_count)
{
    if (!grow(p, (void **)&p->plan->steps, p->plan->step_count, &p->step_room, sizeof *p->plan->steps))
        return NULL;
    int *ids = qd_arena_alloc(p->plan->arena, (size_t)(in_count + out_count) + 1, sizeof *ids);
    if (!ids)
        return NULL;
    struct qd_step *step = &p->plan->steps[p->plan->step_count++];
    *step = (struct qd_step){.kind = kind,
                             .node = node,
                             .fused = "",
                             .reason = "",
                             .in_count = in_count,
                             .out_count = out_count,
                             .in = ids,
                             .out = ids + in_count,
                             .site = -1};
    return step;
}

static enum qd_form form_of(bool q8, bool channels_last)
{
    return q8 ? (channels_last ? QD_FORM_Q8_CL : QD_FORM_Q8) : channels_last ? QD_FORM_REAL_CL : QD_FORM_REAL;
}

static enum qd_form fake_form(bool channels_last) { return channels_last ? QD_FORM_FAKE_CL : QD_FORM_FAKE; }

static bool is_q8(enum qd_form form) { return form == QD_FORM_Q8 || form == QD_FORM_Q8_CL; }
static bool is_q16(enum qd_form form) { return form == QD_FORM_Q16 || form == QD_FORM_Q16_CL; }

/* False: out of memory. */
static bool smooth(struct placer *p, const struct qd_smoothed *smoothed, const float **columns, const float **by)
{
    float *s = qd_arena_alloc(p->plan->arena, smoothed->columns, sizeof *s);
    float *inverse = qd_arena_alloc(p->plan->arena, smoothed->columns, sizeof *inverse);
    for (size_t c = 0; s && inverse && c < smoothed->columns; c++) {
        s[c] = smoothed->s[c];
        inverse[c] = 1 / smoothed->s[c];
    }
    *columns = s;
    *by = inverse;
    return s && inverse;
}

static const struct qd_smoothed *channels_of(const struct placer *p, int value)
{
    return qd_smoothed_channels(p->plan, p->units, p->unit_count, &p->forms, value);
}

/* u8 of each row's own range from floats; returns the slot of the integers, that of the scales is beside it. */
static int quantize_rows(struct placer *p, int value, int from, const struct qd_node *node)
{
    const struct qd_smoothed *smoothed = qd_smoothed_rows(p->plan, value, node);
    int site = add_site(p, value);
    int out = site < 0 ? -1 : add_slot(p, value, QD_FORM_Q8_ROWS, site);
    int scales = out < 0 ? -1 : add_slot(p, value, QD_FORM_ROW_SCALES, -1);
    struct qd_step *step = scales < 0 ? NULL : add_step(p, QD_STEP_QUANTIZE_ROWS, node, 1, 2);
    if (!step)
        return -1;
    ((int *)step->in)[0] = from;
    ((int *)step->out)[0] = out;
    ((int *)step->out)[1] = scales;
    step->int8 = true;
    step->site = site;
    if (smoothed && !smooth(p, smoothed, &step->columns, &step->by))
        return -1;
    p->plan->sites[site].rows = true;
    p->plan->sites[site].smoothed = smoothed != NULL;
    p->plan->sites[site].slot = out;
    return out;
}

/* Floats of each row's own range, for a layer in fake quantization. */
static int fake_rows(struct placer *p, int from, const struct qd_node *node)
{
    int value = p->plan->slots[from].value, site = add_site(p, value);
    int out = site < 0 ? -1 : add_slot(p, value, QD_FORM_FAKE_ROWS, site);
    struct qd_step *step = out < 0 ? NULL : add_step(p, QD_STEP_FAKE_ROWS, node, 1, 1);
    if (!step)
        return -1;
    ((int *)step->in)[0] = from;
    ((int *)step->out)[0] = out;
    step->fake = true;
    step->site = site;
    p->plan->sites[site].rows = true;
    p->plan->sites[site].slot = out;
    p->plan->sites[site].bits = p->plan->options.fake_activation_bits;
    return out;
}

/* One conversion from an existing slot of a value to `form`; returns the new slot. The slot may be another value's that
 * the same bytes are of (place_round_trip). */
static int convert(struct placer *p, enum qd_step_kind kind, int value, int from, enum qd_form form,
                   const struct qd_node *node)
{
    bool keeps = is_q8(form) || form == QD_FORM_FAKE || form == QD_FORM_FAKE_CL;
    int site = keeps ? p->plan->slots[from].site : -1;
    if (kind == QD_STEP_QUANTIZE)
        site = add_site(p, value);
    if (keeps && site < 0)
        return -1;
    int slot = add_slot(p, value, form, site);
    struct qd_step *step = slot < 0 ? NULL : add_step(p, kind, node, 1, 1);
    if (!step)
        return -1;
    ((int *)step->in)[0] = from;
    ((int *)step->out)[0] = slot;
    step->int8 = is_q8(form);
    step->int16 = is_q16(form);
    step->fake = form == QD_FORM_FAKE || form == QD_FORM_FAKE_CL || (step->int8 && p->forms.faked[value]);
    if (kind == QD_STEP_QUANTIZE) {
        step->site = site;
        p->plan->sites[site].wide = is_q16(form);
        p->plan->sites[site].slot = slot;
    }
    return slot;
}

/* The slot of a value in a form, converted from the nearest form there is. -1: out of memory. */
static int get_slot(struct placer *p, int value, enum qd_form form, const struct qd_node *node)
{
    static const struct {
        enum qd_form want, have;
        enum qd_step_kind kind;
    } roads[] = {
        {QD_FORM_REAL, QD_FORM_REAL_CL, QD_STEP_RELAYOUT},    {QD_FORM_REAL, QD_FORM_Q8, QD_STEP_DEQUANTIZE},
        {QD_FORM_REAL, QD_FORM_Q8_CL, QD_STEP_DEQUANTIZE},    {QD_FORM_Q8, QD_FORM_Q8_CL, QD_STEP_RELAYOUT},
        {QD_FORM_REAL_CL, QD_FORM_REAL, QD_STEP_RELAYOUT},    {QD_FORM_Q8, QD_FORM_REAL, QD_STEP_QUANTIZE},
        {QD_FORM_Q8_CL, QD_FORM_Q8, QD_STEP_RELAYOUT},        {QD_FORM_Q8_CL, QD_FORM_REAL_CL, QD_STEP_QUANTIZE},
        {QD_FORM_Q8_CL, QD_FORM_REAL, QD_STEP_QUANTIZE},      {QD_FORM_REAL_CL, QD_FORM_Q8_CL, QD_STEP_DEQUANTIZE},
        {QD_FORM_Q16, QD_FORM_REAL, QD_STEP_QUANTIZE},        {QD_FORM_Q16_CL, QD_FORM_REAL_CL, QD_STEP_QUANTIZE},
        {QD_FORM_FAKE, QD_FORM_Q8, QD_STEP_DEQUANTIZE},       {QD_FORM_FAKE, QD_FORM_Q8_CL, QD_STEP_DEQUANTIZE},
        {QD_FORM_FAKE_CL, QD_FORM_Q8_CL, QD_STEP_DEQUANTIZE}, {QD_FORM_FAKE_CL, QD_FORM_Q8, QD_STEP_DEQUANTIZE},
    };
    if (p->slot_of[value][form] >= 0)
        return p->slot_of[value][form];
    for (size_t i = 0; i < sizeof roads / sizeof roads[0]; i++)
        if (roads[i].want == form && p->slot_of[value][roads[i].have] >= 0)
            return convert(p, roads[i].kind, value, p->slot_of[value][roads[i].have], form, node);
    if (form == QD_FORM_REAL_CL && p->slot_of[value][QD_FORM_Q8] >= 0)
        return get_slot(p, value, QD_FORM_Q8_CL, node) < 0 ? -1 : get_slot(p, value, form, node);
    if (form == QD_FORM_Q8 && p->slot_of[value][QD_FORM_REAL_CL] >= 0)
        return get_slot(p, value, QD_FORM_REAL, node) < 0 ? -1 : get_slot(p, value, form, node);
    if (form == QD_FORM_Q8_ROWS) {
        int from = get_slot(p, value, QD_FORM_REAL, node);
        return from < 0 ? -1 : quantize_rows(p, value, from, node);
    }
    if (form == QD_FORM_FAKE || form == QD_FORM_FAKE_CL) { /* by way of the integers */
        enum qd_form integers = form == QD_FORM_FAKE ? QD_FORM_Q8 : QD_FORM_Q8_CL;
        return get_slot(p, value, integers, node) < 0 ? -1 : get_slot(p, value, form, node);
    }
    if (is_q16(form)) { /* made of floats that lie in the same order */
        enum qd_form floats = form == QD_FORM_Q16 ? QD_FORM_REAL : QD_FORM_REAL_CL;
        return get_slot(p, value, floats, node) < 0 ? -1 : get_slot(p, value, form, node);
    }
    return -1;
}

static enum qd_status add_roots(struct placer *p)
{
    const struct qd_graph *graph = &p->plan->graph;
    for (int v = 0; v < graph->value_count; v++)
        for (int f = 0; f < QD_FORM_COUNT; f++)
            p->slot_of[v][f] = -1;
    for (int v = 0; v < graph->value_count; v++)
        if (graph->values[v].constant && !graph->values[v].is_input) {
            int slot = add_slot(p, v, QD_FORM_REAL, -1);
            if (slot < 0)
                return no_memory(p);
            p->plan->slots[slot].constant = &graph->values[v].info;
        }
    for (int i = 0; i < graph->input_count; i++) {
        int slot = add_slot(p, graph->inputs[i], QD_FORM_REAL, -1);
        if (slot < 0)
            return no_memory(p);
        p->plan->slots[slot].input = i;
        if (graph->values[graph->inputs[i]].constant)
            p->plan->slots[slot].constant = &graph->values[graph->inputs[i]].info; /* its default */
    }
    return QD_OK;
}

/* The step that made the integers of a slot of rows. */
static int quantizer_of(const struct qd_plan *plan, int slot)
{
    int s = 0;
    while (plan->steps[s].out_count == 0 || plan->steps[s].out[0] != slot)
        s++;
    return s;
}

struct qd_linear_spec qd_place_spec(const struct qd_plan *plan, const struct qd_unit *unit, bool int8, bool int16)
{
    struct qd_linear_spec spec = qd_unit_spec(&plan->graph, unit);
    spec.int8 = int8;
    const struct qd_plan_options *o = &plan->options;
    const struct qd_node *node = &plan->graph.nodes[unit->node];
    spec.weight_bits = int16 ? qd_plan_rule(plan, node, QD_RULE_WEIGHT_BITS, o->weight_bits) : 0;
    spec.per_tensor = qd_plan_rule(plan, node, QD_RULE_WEIGHTS_PER_TENSOR, o->weights_per_tensor);
    spec.asymmetric = qd_plan_rule(plan, node, QD_RULE_WEIGHTS_ASYMMETRIC, o->weights_asymmetric);
    return spec;
}

/* What a linear layer in fake quantization reads. */
static int get_fake(struct placer *p, int u, bool channels_last)
{
    const struct qd_node *node = &p->plan->graph.nodes[p->units[u].node];
    const int value = node->in[0];
    if (!p->forms.rows[u])
        return get_slot(p, value, fake_form(channels_last), node);
    if (p->slot_of[value][QD_FORM_FAKE_ROWS] >= 0)
        return p->slot_of[value][QD_FORM_FAKE_ROWS];
    const int from = get_slot(p, value, QD_FORM_REAL, node);
    return from < 0 ? -1 : fake_rows(p, from, node);
}

static enum qd_status place_linear(struct placer *p, int u)
{
    const struct qd_unit *unit = &p->units[u];
    const struct qd_node *node = &p->plan->graph.nodes[unit->node];
    const bool fake = p->forms.fake[u], int8 = p->forms.int8[u] && !fake, int16 = p->forms.int16[u],
               rows = p->forms.rows[u] && !fake, sum = unit->residual != QD_NO_VALUE;
    struct qd_linear_spec spec = qd_place_spec(p->plan, unit, int8, int16);
    const struct qd_smoothed *smoothed = rows   ? qd_smoothed_rows(p->plan, node->in[0], node)
                                         : int8 ? channels_of(p, node->in[0])
                                                : NULL;
    spec.columns = smoothed ? smoothed->s : NULL;
    spec.fake_bits = fake && !p->forms.given[u] ? p->plan->options.fake_weight_bits : 0;
    struct qd_linear *linear;
    enum qd_status status = qd_linear_create(&spec, p->plan->kernels, p->plan->arena, &linear, p->error);
    if (status)
        return status;
    bool cl = qd_linear_is_conv(linear);
    enum qd_form taken = rows ? QD_FORM_Q8_ROWS : int16 ? (cl ? QD_FORM_Q16_CL : QD_FORM_Q16) : form_of(int8, cl);
    const bool q8_sum = sum && p->forms.only_q8[unit->residual];
    int in = fake ? get_fake(p, u, cl) : get_slot(p, node->in[0], taken, node);
    int residual = sum ? get_slot(p, unit->residual, fake && q8_sum ? fake_form(cl) : form_of(q8_sum, cl), node) : 0;
    const bool out_q8 = p->forms.only_q8[unit->out] && (int8 || (!fake && !p->forms.faked[unit->out]));
    int site = out_q8 ? add_site(p, unit->out) : -1;
    enum qd_form form = form_of(out_q8, cl);
    int out = in < 0 || residual < 0 || (out_q8 && site < 0) ? -1 : add_slot(p, unit->out, form, site);
    struct qd_step *step = out < 0 ? NULL : add_step(p, QD_STEP_LINEAR, node, rows ? 3 : sum ? 2 : 1, 1);
    if (!step)
        return no_memory(p);
    ((int *)step->in)[0] = in;
    if (rows)
        ((int *)step->in)[2] = p->slot_of[node->in[0]][QD_FORM_ROW_SCALES];
    if (rows || sum)
        ((int *)step->in)[1] = sum ? residual : QD_NO_VALUE;
    ((int *)step->out)[0] = out;
    step->fused = unit->fused;
    step->reason = p->forms.reason[u];
    step->int8 = int8;
    step->int16 = int16;
    step->fake = fake;
    step->pinned = p->forms.pinned[u];
    step->given = p->forms.given[u];
    step->linear = linear;
    if (smoothed && rows) {
        const struct qd_step *quantizer = &p->plan->steps[quantizer_of(p->plan, in)];
        step->columns = quantizer->columns;
        step->by = quantizer->by;
    } else if (smoothed && !smooth(p, smoothed, &step->columns, &step->by)) {
        return no_memory(p);
    }
    const struct qd_smoothed *channels = out_q8 ? channels_of(p, unit->out) : NULL;
    const float *unused;
    if (channels && !smooth(p, channels, &unused, &step->out_by))
        return no_memory(p);
    step->unit = unit;
    const struct qd_choice *choice = qd_plan_choice(p->plan, node);
    step->int8_us = choice ? choice->int8_us : 0;
    step->int16_us = choice ? choice->int16_us : 0;
    step->words_us = choice ? choice->words_us : 0;
    step->fp32_us = choice ? choice->fp32_us : 0;
    step->site = site;
    if (out_q8) {
        p->plan->sites[site].slot = out;
        p->plan->sites[site].smoothed = channels != NULL;
    }
    p->plan->packed_bytes += qd_linear_packed_bytes(linear);
    return QD_OK;
}

/* Attributes and constant inputs of a generic operator, read and packed. */
static enum qd_status prepare(struct placer *p, int u, void **prep)
{
    const struct qd_node *node = &p->plan->graph.nodes[p->units[u].node];
    const struct qd_op *op = p->forms.ops[u];
    enum qd_status status = op->prepare ? op->prepare(node, p->plan->arena, prep, p->error) : QD_OK;
    if (status || !op->pack)
        return status;
    struct qd_packing packing = {.node = node,
                                 .constants = qd_forms_constants(p->plan, node),
                                 .kernels = p->plan->kernels,
                                 .arena = p->plan->arena,
                                 .int8 = p->forms.int8[u] && !p->forms.fake[u],
                                 .rows = p->forms.rows[u]};
    size_t before = qd_arena_bytes(p->plan->arena);
    status = packing.constants ? op->pack(&packing, prep, p->error) : no_memory(p);
    p->plan->packed_bytes += qd_arena_bytes(p->plan->arena) - before;
    return status;
}

/* The form in which a generic operator takes its input i. */
static enum qd_form taken_form(const struct placer *p, int u, int i)
{
    const struct qd_graph *graph = &p->plan->graph;
    const struct qd_node *node = &graph->nodes[p->units[u].node];
    int value = node->in[i];
    unsigned flags = p->forms.ops[u]->flags;
    bool q8 = p->forms.only_q8[value] || (i < 32 && (p->forms.wants[u] >> i & 1));
    bool turned = p->forms.channels_last[u] && (i == 0 || (flags & QD_OP_ALL_CHANNELS_LAST)) &&
                  !graph->values[value].constant;
    int rank = p->forms.rank[value] ? p->forms.rank[value] : graph->values[value].info.shape.rank;
    const bool fake = q8 && p->forms.fake[u];
    for (int o = 0; o < node->out_count; o++)
        if (node->out[o] != QD_NO_VALUE) {
            turned &= rank == p->forms.rank[node->out[o]];
            return fake ? fake_form(turned) : form_of(q8, turned);
        }
    return fake ? QD_FORM_FAKE : form_of(q8, false);
}

static enum qd_status take_inputs(struct placer *p, int u, int *slots)
{
    const struct qd_node *node = &p->plan->graph.nodes[p->units[u].node];
    for (int i = 0; i < node->in_count; i++) {
        slots[i] = node->in[i] == QD_NO_VALUE ? QD_NO_VALUE : get_slot(p, node->in[i], taken_form(p, u, i), node);
        if (slots[i] < 0 && node->in[i] != QD_NO_VALUE)
            return no_memory(p);
    }
    return QD_OK;
}

/* The site of a generic operator's output 0: its own, its input's when it only moves elements, or none. */
static int site_of(struct placer *p, int u, const int *slots)
{
    const struct qd_node *node = &p->plan->graph.nodes[p->units[u].node];
    unsigned flags = p->forms.ops[u]->flags;
    int value = node->out_count ? node->out[0] : QD_NO_VALUE;
    if (value == QD_NO_VALUE || !p->forms.only_q8[value])
        return -1;
    if (flags & (QD_OP_MOVES | QD_OP_VIEW))
        return node->out_count == 1 && node->in_count && slots[0] >= 0 ? p->plan->slots[slots[0]].site : -1;
    return flags & QD_OP_WRITES_Q8 ? add_site(p, value) : -1;
}

static enum qd_status place_op(struct placer *p, int u)
{
    const struct qd_node *node = &p->plan->graph.nodes[p->units[u].node];
    int slots[QD_MAX_STEP_TENSORS];
    void *prep = NULL;
    if (node->in_count > QD_MAX_STEP_TENSORS || node->out_count > QD_MAX_OUTPUTS)
        return qd_fail(p->error, QD_ERR_UNSUPPORTED, "node '%s' has more than %d inputs or %d outputs", node->name,
                       QD_MAX_STEP_TENSORS, QD_MAX_OUTPUTS);
    enum qd_status status = prepare(p, u, &prep);
    if (!status)
        status = take_inputs(p, u, slots);
    if (status)
        return status;
    int site = site_of(p, u, slots);
    bool moves = site >= 0 && p->plan->sites[site].slot >= 0, cl = p->forms.channels_last[u];
    struct qd_step *step = add_step(p, QD_STEP_OP, node, node->in_count, node->out_count);
    if (!step)
        return no_memory(p);
    memcpy((int *)step->in, slots, (size_t)node->in_count * sizeof slots[0]);
    for (int i = 0; i < node->out_count; i++) {
        int own = i == 0 ? site : -1;
        ((int *)step->out)[i] = node->out[i] == QD_NO_VALUE ? QD_NO_VALUE
                                                            : add_slot(p, node->out[i], form_of(own >= 0, cl), own);
        if (step->out[i] < 0 && node->out[i] != QD_NO_VALUE)
            return no_memory(p);
    }
    step->fused = p->units[u].fused;
    step->op = p->forms.ops[u];
    step->prep = prep;
    step->int8 = (site >= 0 || p->forms.int8[u]) && !p->forms.fake[u];
    step->fake = p->forms.fake[u] || (site >= 0 && p->forms.faked[node->out[0]]);
    step->pinned = p->forms.pinned[u];
    step->follows = !step->op->wants_q8 && !(step->op->flags & QD_OP_INT8_INSIDE) && !p->forms.real[u];
    step->reason = moves                            ? "moves integers unchanged"
                   : site >= 0 && !p->forms.int8[u] ? "between integer layers"
                                                    : p->forms.reason[u];
    step->site = moves ? -1 : site;
    if (step->site >= 0)
        p->plan->sites[site].slot = step->out[0];
    return QD_OK;
}

/* What the file quantizes: bytes by its scale, whoever reads them. Where the input was written so, they are its. */
static enum qd_status place_round_trip(struct placer *p, int u)
{
    const struct qd_node *node = &p->plan->graph.nodes[p->units[u].node];
    const int x = node->in[0], y = node->out[0], *have = p->slot_of[x];
    if (p->forms.takes_over[u] && (have[QD_FORM_Q8] >= 0 || have[QD_FORM_Q8_CL] >= 0)) {
        p->slot_of[y][QD_FORM_Q8] = have[QD_FORM_Q8];
        p->slot_of[y][QD_FORM_Q8_CL] = have[QD_FORM_Q8_CL];
        return QD_OK;
    }
    const bool cl = have[QD_FORM_REAL_CL] >= 0;
    const int from = get_slot(p, x, cl ? QD_FORM_REAL_CL : QD_FORM_REAL, node);
    const int site = from < 0 ? -1 : add_site(p, p->forms.takes_over[u] ? x : y);
    const int slot = site < 0 ? -1 : add_slot(p, y, form_of(true, cl), site);
    struct qd_step *step = slot < 0 ? NULL : add_step(p, QD_STEP_QUANTIZE, node, 1, 1);
    if (!step)
        return no_memory(p);
    ((int *)step->in)[0] = from;
    ((int *)step->out)[0] = slot;
    step->reason = "quantized in the file";
    step->int8 = true;
    step->site = site;
    p->plan->sites[site].slot = slot;
    p->plan->sites[site].own = p->forms.fixed[y]->own;
    return QD_OK;
}

/* If, Loop, Scan: everything in and out as real numbers. */
static enum qd_status place_control(struct placer *p, int u)
{
    const struct qd_node *node = &p->plan->graph.nodes[p->units[u].node];
    const struct qd_control *control;
    enum qd_status status = qd_control_compile(p->plan, node, &control, p->error);
    if (status)
        return status;
    int *slots = qd_arena_alloc(p->plan->arena, (size_t)node->in_count, sizeof *slots);
    for (int i = 0; slots && i < node->in_count; i++) {
        slots[i] = node->in[i] == QD_NO_VALUE ? QD_NO_VALUE : get_slot(p, node->in[i], QD_FORM_REAL, node);
        if (slots[i] < 0 && node->in[i] != QD_NO_VALUE)
            return no_memory(p);
    }
    struct qd_step *step = slots ? add_step(p, QD_STEP_CONTROL, node, node->in_count, node->out_count) : NULL;
    if (!step)
        return no_memory(p);
    memcpy((int *)step->in, slots, (size_t)node->in_count * sizeof slots[0]);
    for (int i = 0; i < node->out_count; i++) {
        int slot = node->out[i] == QD_NO_VALUE ? QD_NO_VALUE : add_slot(p, node->out[i], QD_FORM_REAL, -1);
        if (slot < 0 && node->out[i] != QD_NO_VALUE)
            return no_memory(p);
        ((int *)step->out)[i] = slot;
    }
    step->control = control;
    step->int8 = qd_control_int8(control);
    step->reason = step->int8 ? "linear layers in its bodies" : "control flow";
    return QD_OK;
}

/* Lists, per site, the nodes that read its integers. */
static enum qd_status list_consumers(struct placer *p)
{
    struct qd_plan *plan = p->plan;
    for (int pass = 0; pass < 2; pass++) {
        for (int s = 0; s < plan->step_count; s++) {
            const struct qd_step *step = &plan->steps[s];
            bool reads = step->kind == QD_STEP_LINEAR || step->kind == QD_STEP_OP;
            for (int i = 0; reads && i < step->in_count; i++) {
                int id = step->in[i] < 0 ? -1 : plan->slots[step->in[i]].site;
                if (id < 0)
                    continue;
                if (pass == 1)
                    ((const char **)plan->sites[id].consumers)[plan->sites[id].consumer_count] = step->node->name;
                plan->sites[id].consumer_count++;
            }
        }
        for (int i = 0; pass == 0 && i < plan->site_count; i++) {
            plan->sites[i].consumers = qd_arena_alloc(plan->arena, (size_t)plan->sites[i].consumer_count + 1,
                                                      sizeof(const char *));
            if (!plan->sites[i].consumers)
                return no_memory(p);
            plan->sites[i].consumer_count = 0;
        }
    }
    return QD_OK;
}

static enum qd_status place_outputs(struct placer *p)
{
    struct qd_plan *plan = p->plan;
    plan->output_slots = qd_arena_alloc(plan->arena, (size_t)plan->graph.output_count, sizeof(int));
    if (!plan->output_slots)
        return no_memory(p);
    for (int i = 0; i < plan->graph.output_count; i++) {
        int value = plan->graph.outputs[i];
        const struct qd_node *node = plan->graph.node_count ? &plan->graph.nodes[plan->graph.node_count - 1] : NULL;
        plan->output_slots[i] = get_slot(p, value, QD_FORM_REAL, node);
        if (plan->output_slots[i] < 0)
            return no_memory(p);
    }
    return QD_OK;
}

enum qd_status qd_place(struct qd_plan *plan, const struct qd_unit *units, int unit_count, struct qd_error *error)
{
    struct qd_error local;
    struct qd_arena *arena = plan->arena;
    size_t values = (size_t)plan->graph.value_count;
    struct placer p = {.plan = plan,
                       .units = units,
                       .unit_count = unit_count,
                       .error = error ? error : &local,
                       .slot_of = qd_arena_alloc(arena, values, sizeof(int[QD_FORM_COUNT]))};
    if (!p.slot_of)
        return no_memory(&p);
    enum qd_status status = qd_forms_find(plan, units, unit_count, &p.forms, p.error);
    if (!status)
        status = add_roots(&p);
    for (int u = 0; !status && u < unit_count; u++)
        status = units[u].linear                                                              ? place_linear(&p, u)
                 : qd_control_kind(&plan->graph.nodes[units[u].node])                         ? place_control(&p, u)
                 : qd_round_trip_of(&plan->graph.nodes[units[u].node]) && !plan->options.fp32 ? place_round_trip(&p, u)
                                                                                              : place_op(&p, u);
    if (!status)
        status = place_outputs(&p);
    if (!status)
        qd_rules_apply(plan);
    return status ? status : list_consumers(&p);
}
