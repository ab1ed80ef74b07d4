/* Surveys: counting what is in a graph, its bodies included; and the figures of a shaped plan. */
#include "engine/survey.h"

#include "engine/model.h"
#include "engine/plan/contrib.h"
#include "engine/plan/control.h"

#include <stdlib.h>
#include <string.h>

struct owned {
    struct qd_survey survey; /* first: what callers see */
    struct qd_survey_operator *operators;
    size_t room;
    struct qd_file file;
    struct qd_externals *externals;
    struct qd_graph *graph; /* the names are its own */
};

static bool served(const struct qd_node *node)
{
    struct qd_error ignored;
    return qd_control_kind(node) != QD_CONTROL_NONE || qd_contrib_knows(node) || qd_op_find(node, &ignored);
}

static bool count_node(struct owned *o, const struct qd_node *node)
{
    o->survey.nodes++;
    for (size_t i = 0; i < o->survey.operator_count; i++) {
        struct qd_survey_operator *known = &o->operators[i];
        if (known->opset == node->opset && strcmp(known->op, node->op) == 0 &&
            strcmp(known->domain, node->domain) == 0) {
            known->nodes++;
            return true;
        }
    }
    if (o->survey.operator_count == o->room) {
        size_t room = o->room ? 2 * o->room : 32;
        struct qd_survey_operator *more = qd_calloc(room, sizeof *more);
        if (!more)
            return false;
        if (o->operators)
            memcpy(more, o->operators, o->room * sizeof *more);
        qd_free(o->operators);
        o->operators = more;
        o->room = room;
    }
    o->operators[o->survey.operator_count++] = (struct qd_survey_operator){.domain = node->domain,
                                                                           .op = node->op,
                                                                           .opset = node->opset,
                                                                           .nodes = 1,
                                                                           .served = served(node),
                                                                           .first = node->name};
    return true;
}

static bool count_graph(struct owned *o, const struct qd_graph *graph)
{
    for (int v = 0; v < graph->value_count; v++) {
        const struct qd_value *value = &graph->values[v];
        if (!value->constant || value->outer != QD_NO_VALUE)
            continue;
        o->survey.weights[value->info.dtype].tensors++;
        o->survey.weights[value->info.dtype].bytes += qd_tensor_bytes(&value->info);
    }
    for (int n = 0; n < graph->node_count; n++) {
        const struct qd_node *node = &graph->nodes[n];
        if (!count_node(o, node))
            return false;
        for (int a = 0; a < node->attr_count; a++) /* as deep as the importer lets graphs nest */
            if (node->attrs[a].type == QD_ATTR_GRAPH && !count_graph(o, node->attrs[a].g))
                return false;
    }
    return true;
}

static int by_name(const void *a, const void *b)
{
    const struct qd_survey_operator *x = a, *y = b;
    int order = strcmp(x->domain, y->domain);
    order = order ? order : strcmp(x->op, y->op);
    return order ? order : (x->opset > y->opset) - (x->opset < y->opset);
}

enum qd_status qd_survey_create(const char *path, struct qd_survey **out, struct qd_error *error)
{
    struct owned *o = qd_calloc(1, sizeof *o);
    if (!o)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to look at the model");
    struct qd_survey *survey = &o->survey;
    enum qd_status status = qd_file_map(path, &o->file, error);
    if (!status)
        status = qd_externals_open(path, &o->externals, error);
    if (!status)
        status = qd_onnx_import_beneath(o->file.bytes, o->file.size, o->externals, &o->graph, error);
    if (!status && !count_graph(o, o->graph))
        status = qd_fail(error, QD_ERR_NO_MEMORY, "no memory to look at the model");
    if (status) {
        qd_survey_destroy(&survey);
        return status;
    }
    if (survey->operator_count)
        qsort(o->operators, survey->operator_count, sizeof *o->operators, by_name);
    for (size_t i = 0; i < survey->operator_count; i++)
        survey->missing_count += !o->operators[i].served;
    survey->operators = o->operators;
    survey->opset = o->graph->opset;
    survey->ir_version = o->graph->ir_version;
    survey->file_bytes = o->file.size + qd_externals_bytes(o->externals);
    *out = survey;
    return QD_OK;
}

void qd_survey_destroy(struct qd_survey **survey)
{
    struct owned *o = (struct owned *)*survey;
    *survey = NULL;
    if (!o)
        return;
    qd_graph_destroy(&o->graph);
    qd_externals_close(&o->externals);
    qd_file_unmap(&o->file);
    qd_free(o->operators);
    qd_free(o);
}

enum qd_status qd_model_at_shapes(struct qd_model *model, const struct qd_shape *shapes, struct qd_shapes_report *out,
                                  uint64_t *step_macs, struct qd_error *error)
{
    struct qd_plan *plan = model->plan;
    struct qd_shaped *shaped;
    enum qd_status status = qd_plan_shape(plan, shapes, &shaped, error);
    if (status)
        return status;
    *out = (struct qd_shapes_report){.workspace_bytes = shaped->workspace_bytes,
                                     .unknown_steps = (size_t)(plan->step_count - shaped->static_steps)};
    for (int i = 0; i < plan->graph.input_count; i++)
        out->input_bytes += qd_tensor_bytes(&(struct qd_tensor){.dtype = model->inputs[i].dtype, .shape = shapes[i]});
    for (int i = 0; i < plan->graph.output_count; i++)
        out->output_bytes += qd_tensor_bytes(&shaped->slots[plan->output_slots[i]]);
    if (step_macs)
        qd_plan_all_macs(plan, shaped, step_macs);
    qd_shaped_unref(&shaped);
    return QD_OK;
}
