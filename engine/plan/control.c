/* Control flow in a plan: bodies compiled, their sites joined to the plan's. Not for graphs (control_graph.c) or
 * running (control_run.c, control_scan.c). */
#include "engine/plan/control.h"

#include <stdio.h>
#include <string.h>

const struct qd_op qd_control_op = {0};

static enum qd_status no_memory(struct qd_error *error)
{
    return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
}

static enum qd_status wrong_count(const struct qd_node *node, const char *what, int have, int want,
                                  struct qd_error *error)
{
    return qd_fail(error, QD_ERR_FORMAT, "%s node '%s': %s, has %d of %d", node->op, node->name, what, have, want);
}

/* Inputs and outputs that the standard asks of an If's and a Loop's bodies. */
static enum qd_status check_counts(const struct qd_control *control, struct qd_error *error)
{
    const struct qd_node *node = control->node;
    const struct qd_bodies *bodies = node->program;
    bool loop = control->kind == QD_CONTROL_LOOP;
    if (loop && control->own_inputs < 2)
        return wrong_count(node, "needs a trip count and a condition", control->own_inputs, 2, error);
    if (!loop && (control->own_inputs != 1 || node->in[0] == QD_NO_VALUE))
        return wrong_count(node, "needs a condition", control->own_inputs == 1 ? 0 : control->own_inputs, 1, error);
    int inputs = loop ? control->own_inputs : 0, outputs = node->out_count + loop;
    int carried = loop ? control->own_inputs - 2 : 0;
    for (int b = 0; b < bodies->count; b++) {
        const struct qd_body *body = &bodies->bodies[b];
        if (body->declared != inputs)
            return wrong_count(node, "its body's inputs don't fit", body->declared, inputs, error);
        if (body->graph.output_count < outputs || body->graph.output_count < carried + loop)
            return wrong_count(node, "its body has too few outputs", body->graph.output_count, outputs, error);
    }
    return QD_OK;
}

static const int64_t *scan_list(const struct qd_node *node, const char *name, int count, struct qd_arena *arena,
                                enum qd_status *status, struct qd_error *error)
{
    size_t given;
    const int64_t *list = qd_attr_ints(node, name, &given);
    if (*status)
        return NULL;
    if (list && given != (size_t)count)
        *status = qd_fail(error, QD_ERR_FORMAT, "Scan node '%s': %s has %zu entries of %d", node->name, name, given,
                          count);
    if (!list && !(list = qd_arena_alloc(arena, (size_t)count, sizeof *list)))
        *status = no_memory(error);
    return list;
}

static enum qd_status prepare_scan(struct qd_control *control, struct qd_arena *arena, struct qd_error *error)
{
    const struct qd_node *node = control->node;
    const struct qd_body *body = &((const struct qd_bodies *)node->program)->bodies[0];
    struct qd_scan *scan = qd_arena_alloc(arena, 1, sizeof *scan);
    if (!scan)
        return no_memory(error);
    scan->batched = node->opset < 9;
    int given = control->own_inputs - scan->batched;
    int64_t inputs = qd_attr_int(node, "num_scan_inputs", 0);
    if (inputs < 1 || inputs > given)
        return qd_fail(error, QD_ERR_FORMAT, "Scan node '%s': num_scan_inputs is not one of its %d inputs", node->name,
                       given);
    scan->inputs = (int)inputs;
    scan->states = given - scan->inputs;
    if (body->declared != given)
        return wrong_count(node, "its body's inputs don't fit", body->declared, given, error);
    if (body->graph.output_count < scan->states || body->graph.output_count < node->out_count)
        return wrong_count(node, "its body has too few outputs", body->graph.output_count,
                           scan->states > node->out_count ? scan->states : node->out_count, error);
    scan->outputs = body->graph.output_count - scan->states;
    enum qd_status status = QD_OK;
    const char *directions = scan->batched ? "directions" : "scan_input_directions";
    scan->in_axes = scan_list(node, "scan_input_axes", scan->inputs, arena, &status, error);
    scan->in_reverse = scan_list(node, directions, scan->inputs, arena, &status, error);
    scan->out_axes = scan_list(node, "scan_output_axes", scan->outputs, arena, &status, error);
    scan->out_reverse = scan_list(node, "scan_output_directions", scan->outputs, arena, &status, error);
    control->scan = scan;
    return status;
}

/* The body with the captured constants that folding has found by now; fills branch->source. */
static enum qd_status take_constants(const struct qd_plan *plan, const struct qd_node *node, struct qd_branch *branch,
                                     struct qd_graph *graph, struct qd_error *error)
{
    const struct qd_body *body = branch->body;
    int inputs = body->graph.input_count, *source = NULL;
    *graph = body->graph;
    graph->values = qd_arena_alloc(plan->arena, (size_t)graph->value_count, sizeof *graph->values);
    graph->inputs = qd_arena_alloc(plan->arena, (size_t)inputs, sizeof *graph->inputs);
    source = qd_arena_alloc(plan->arena, (size_t)inputs, sizeof *source);
    if (!graph->values || !graph->inputs || !source)
        return no_memory(error);
    if (graph->value_count)
        memcpy(graph->values, body->graph.values, (size_t)graph->value_count * sizeof *graph->values);
    graph->input_count = body->declared;
    for (int i = 0; i < inputs; i++) {
        int id = body->graph.inputs[i];
        if (i < body->declared) {
            graph->inputs[i] = id;
            continue;
        }
        int at = body->captured_at + i - body->declared;
        const struct qd_value *outer = &plan->graph.values[node->in[at]];
        if (outer->constant && !outer->is_input) {
            graph->values[id].info = outer->info;
            graph->values[id].constant = true;
            graph->values[id].is_input = false;
        } else {
            source[graph->input_count - body->declared] = at;
            graph->inputs[graph->input_count++] = id;
        }
    }
    branch->declared = body->declared;
    branch->source = source;
    return QD_OK;
}

enum qd_status qd_control_compile(struct qd_plan *plan, const struct qd_node *node, const struct qd_control **out,
                                  struct qd_error *error)
{
    const struct qd_bodies *bodies = node->program;
    struct qd_control *control = qd_arena_alloc(plan->arena, 1, sizeof *control);
    if (!control)
        return no_memory(error);
    control->kind = qd_control_kind(node);
    control->node = node;
    control->own_inputs = bodies->own_inputs;
    control->next = plan->controls;
    plan->controls = control;
    enum qd_status status = control->kind == QD_CONTROL_SCAN ? prepare_scan(control, plan->arena, error)
                                                             : check_counts(control, error);
    for (int b = 0; !status && b < bodies->count; b++) {
        struct qd_branch *branch = &control->branches[control->branch_count++];
        struct qd_graph *graph = qd_arena_alloc(plan->arena, 1, sizeof *graph);
        if (!graph)
            return no_memory(error);
        branch->body = &bodies->bodies[b];
        struct qd_plan_options options = plan->options;
        const struct qd_choice *choice = qd_plan_choice(plan, node);
        options.choices = choice ? choice->bodies[b] : NULL;
        options.choice_count = choice ? choice->body_counts[b] : 0;
        status = take_constants(plan, node, branch, graph, error);
        if (!status)
            status = qd_plan_compile(graph, plan->kernels, plan->parallel, &options, &branch->plan, error);
        if (!status)
            plan->packed_bytes += branch->plan->packed_bytes;
    }
    *out = control;
    return status;
}

/* "loop.body/conv1_out": names of different bodies may be the same. */
static const char *qualify(struct qd_plan *plan, const struct qd_control *control, const struct qd_branch *branch,
                           const char *name)
{
    size_t room = strlen(control->node->name) + strlen(branch->body->attr) + strlen(name) + 3;
    char *text = qd_arena_alloc(plan->arena, room, 1);
    if (text)
        snprintf(text, room, "%s.%s/%s", control->node->name, branch->body->attr, name);
    return text;
}

enum qd_status qd_control_join_sites(struct qd_plan *plan, struct qd_error *error)
{
    int count = plan->site_count;
    for (const struct qd_control *c = plan->controls; c; c = c->next)
        for (int b = 0; b < c->branch_count; b++)
            count += c->branches[b].plan->site_count;
    struct qd_site *sites = qd_arena_alloc(plan->arena, (size_t)count, sizeof *sites);
    if (!sites)
        return no_memory(error);
    if (plan->site_count)
        memcpy(sites, plan->sites, (size_t)plan->site_count * sizeof *sites);
    plan->sites = sites;
    for (struct qd_control *c = plan->controls; c; c = c->next)
        for (int b = 0; b < c->branch_count; b++) {
            struct qd_branch *branch = &c->branches[b];
            branch->site_base = plan->site_count;
            for (int s = 0; s < branch->plan->site_count; s++) {
                struct qd_site *site = &sites[plan->site_count++];
                *site = branch->plan->sites[s];
                site->value = site->slot = -1; /* of another graph */
                site->name = qualify(plan, c, branch, site->name);
                if (!site->name)
                    return no_memory(error);
            }
        }
    return QD_OK;
}

bool qd_control_int8(const struct qd_control *control)
{
    for (int b = 0; b < control->branch_count; b++)
        for (int s = 0; s < control->branches[b].plan->step_count; s++)
            if (control->branches[b].plan->steps[s].int8 && !control->branches[b].plan->steps[s].fake)
                return true;
    return false;
}

size_t qd_plan_all_steps(const struct qd_plan *plan) { return plan->all_steps; }

const struct qd_step *qd_plan_any_step(const struct qd_plan *plan, size_t index, const struct qd_plan **owner)
{
    for (int s = 0; s < plan->step_count; s++) {
        const struct qd_control *control = plan->steps[s].control;
        if (index-- == 0) {
            *owner = plan;
            return &plan->steps[s];
        }
        for (int b = 0; control && b < control->branch_count; b++) {
            size_t inner = qd_plan_all_steps(control->branches[b].plan);
            if (index < inner)
                return qd_plan_any_step(control->branches[b].plan, index, owner);
            index -= inner;
        }
    }
    return NULL;
}

void qd_plan_all_macs(const struct qd_plan *plan, const struct qd_shaped *shaped, uint64_t *macs)
{
    for (int s = 0; s < plan->step_count; s++) {
        const struct qd_control *control = plan->steps[s].control;
        *macs++ = shaped && s < shaped->static_steps ? qd_step_macs(plan, &plan->steps[s], shaped) : 0;
        for (int b = 0; control && b < control->branch_count; b++) {
            const struct qd_plan *body = control->branches[b].plan;
            qd_plan_all_macs(body, body->cache, macs);
            macs += qd_plan_all_steps(body);
        }
    }
}

void qd_control_release(struct qd_plan *plan)
{
    for (struct qd_control *c = plan->controls; c; c = c->next)
        for (int b = 0; b < c->branch_count; b++)
            qd_plan_unref(&c->branches[b].plan);
}
