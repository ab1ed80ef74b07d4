/* Metadata, configuration, readiness and statistics of models, as the Open Inference Protocol and its extensions spell
 * them. */
#include "server/api.h"

#include "server/routes.h"
#include "server/serve.h"

#include <inttypes.h>
#include <string.h>

/* True when the first dimension of all inputs and outputs is one unknown size of the same name: then it is a batch. */
static bool has_batch(const struct qd_model *model)
{
    const char *name = NULL;
    size_t inputs = qd_model_input_count(model), outputs = qd_model_output_count(model);
    for (size_t i = 0; i < inputs + outputs; i++) {
        const struct qd_io *io = i < inputs ? qd_model_input(model, i) : qd_model_output(model, i - inputs);
        if (io->shape.rank < 1 || io->shape.dims[0] >= 0 || !io->dim_names[0])
            return false;
        if (name && strcmp(name, io->dim_names[0]) != 0)
            return false;
        name = io->dim_names[0];
    }
    return name != NULL;
}

static void write_dims(struct qd_text *out, const struct qd_shape *shape, int from)
{
    qd_text_puts(out, "[");
    for (int i = from; i < shape->rank; i++)
        qd_text_printf(out, "%s%" PRId64, i > from ? "," : "", shape->dims[i]);
    qd_text_puts(out, "]");
}

/* What unknown sizes are called: a request's sizes of one name must be equal. Nothing where no size has a name. */
static void write_dim_names(struct qd_text *out, const struct qd_io *io)
{
    bool any = false;
    for (int i = 0; i < io->shape.rank; i++)
        any |= io->dim_names[i] != NULL;
    if (!any)
        return;
    qd_text_puts(out, ",\"parameters\":{\"dim_names\":[");
    for (int i = 0; i < io->shape.rank; i++) {
        qd_text_puts(out, i ? "," : "");
        if (io->dim_names[i])
            qd_text_json_string(out, io->dim_names[i]);
        else
            qd_text_puts(out, "null");
    }
    qd_text_puts(out, "]}");
}

static void write_tensors(struct qd_text *out, const struct qd_model *model, bool outputs)
{
    size_t count = outputs ? qd_model_output_count(model) : qd_model_input_count(model);
    for (size_t i = 0; i < count; i++) {
        const struct qd_io *io = outputs ? qd_model_output(model, i) : qd_model_input(model, i);
        qd_text_puts(out, i ? ",{\"name\":" : "{\"name\":");
        qd_text_json_string(out, io->name);
        qd_text_printf(out, ",\"datatype\":\"%s\",\"shape\":", qd_dtype_name(io->dtype));
        write_dims(out, &io->shape, 0);
        write_dim_names(out, io);
        qd_text_puts(out, "}");
    }
}

void qd_api_write_model(struct qd_text *out, const struct qd_model_entry *entry)
{
    qd_text_puts(out, "{\"name\":");
    qd_text_json_string(out, entry->name);
    qd_text_puts(out, ",\"versions\":[\"" QD_MODEL_VERSION "\"],\"platform\":\"onnx_onnxv1\",\"inputs\":[");
    write_tensors(out, entry->model, false);
    qd_text_puts(out, "],\"outputs\":[");
    write_tensors(out, entry->model, true);
    qd_text_puts(out, "]}");
}

static void write_config_tensors(struct qd_text *out, const struct qd_model *model, bool outputs, bool batch)
{
    size_t count = outputs ? qd_model_output_count(model) : qd_model_input_count(model);
    for (size_t i = 0; i < count; i++) {
        const struct qd_io *io = outputs ? qd_model_output(model, i) : qd_model_input(model, i);
        qd_text_puts(out, i ? ",{\"name\":" : "{\"name\":");
        qd_text_json_string(out, io->name);
        qd_text_printf(
            out, ",\"data_type\":\"TYPE_%s\",\"dims\":", io->dtype == QD_STR ? "STRING" : qd_dtype_name(io->dtype));
        write_dims(out, &io->shape, batch ? 1 : 0);
        if (!outputs)
            qd_text_printf(out, ",\"optional\":%s", io->optional ? "true" : "false");
        qd_text_puts(out, "}");
    }
}

void qd_api_write_config(struct qd_text *out, const struct qd_model_entry *entry, uint32_t batch_max)
{
    bool batch = batch_max > 0 && has_batch(entry->model);
    qd_text_puts(out, "{\"name\":");
    qd_text_json_string(out, entry->name);
    qd_text_printf(out,
                   ",\"platform\":\"onnx_onnxv1\",\"backend\":\"quantd\",\"max_batch_size\":%" PRIu32 ",\"input\":[",
                   batch ? batch_max : 0);
    write_config_tensors(out, entry->model, false, batch);
    qd_text_puts(out, "],\"output\":[");
    write_config_tensors(out, entry->model, true, batch);
    qd_text_puts(out, "]}");
}

/* ------------------------------------------------------------------ statistics */

static void write_duration(struct qd_text *out, const char *name, const struct qd_duration *duration,
                           const char *behind)
{
    qd_text_printf(out, "\"%s\":{\"count\":%" PRIu64 ",\"ns\":%" PRIu64 "}%s", name, duration->count, duration->ns,
                   behind);
}

static void write_batches(struct qd_text *out, const struct qd_model_stats *stats)
{
    for (size_t i = 0; i < stats->batch_count; i++) {
        const struct qd_batch_stats *batch = &stats->batches[i];
        qd_text_printf(out, "%s{\"batch_size\":%" PRIu64 ",", i ? "," : "", batch->size);
        write_duration(out, "compute_input", &batch->input, ",");
        write_duration(out, "compute_infer", &batch->infer, ",");
        write_duration(out, "compute_output", &batch->output, "}");
    }
}

static void write_entry_stats(struct qd_text *out, const struct qd_model_entry *entry)
{
    static const struct qd_duration none;
    const struct qd_model_stats *stats = &entry->stats;
    struct qd_plan_report plan = {0};
    if (entry->model)
        qd_model_plan(entry->model, &plan);
    qd_text_puts(out, "{\"name\":");
    qd_text_json_string(out, entry->name);
    qd_text_printf(out,
                   ",\"version\":\"" QD_MODEL_VERSION "\",\"last_inference\":%" PRIu64 ",\"inference_count\":%" PRIu64
                   ",\"execution_count\":%" PRIu64 ",\"inference_stats\":{",
                   stats->last_inference_ms, stats->inference_count, stats->execution_count);
    write_duration(out, "success", &stats->success, ",");
    write_duration(out, "fail", &stats->fail, ",");
    write_duration(out, "queue", &stats->queue, ",");
    write_duration(out, "compute_input", &stats->compute_input, ",");
    write_duration(out, "compute_infer", &stats->compute_infer, ",");
    write_duration(out, "compute_output", &stats->compute_output, ",");
    write_duration(out, "cache_hit", &none, ",");
    write_duration(out, "cache_miss", &none, "},\"response_stats\":{},\"batch_stats\":[");
    write_batches(out, stats);
    qd_text_printf(out, "],\"memory_usage\":[{\"type\":\"CPU\",\"id\":0,\"byte_size\":%" PRIu64 "}]}",
                   plan.packed_bytes);
}

void qd_api_write_stats(struct qd_text *out, struct qd_repository *repository, const struct qd_model_entry *only)
{
    bool first = true;
    qd_text_puts(out, "{\"model_stats\":[");
    for (size_t i = 0; i < qd_repository_count(repository); i++) {
        const struct qd_model_entry *entry = qd_repository_at(repository, i);
        if ((only && entry != only) || (!only && entry->state != QD_STATE_READY))
            continue;
        qd_text_puts(out, first ? "" : ",");
        write_entry_stats(out, entry);
        first = false;
    }
    qd_text_puts(out, "]}");
}

/* ------------------------------------------------------------------ handlers */

static void answer_model(struct qd_http_request *request, bool config)
{
    struct qd_error error = {0};
    struct qd_text text = {0};
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    if (!entry) {
        qd_http_fail(request, &error);
        return;
    }
    if (config)
        qd_api_write_config(&text, entry, request->server->config->batch_max);
    else
        qd_api_write_model(&text, entry);
    qd_api_respond_json(request, &text);
}

void qd_handle_model(struct qd_http_request *request) { answer_model(request, false); }
void qd_handle_model_config(struct qd_http_request *request) { answer_model(request, true); }

void qd_handle_model_ready(struct qd_http_request *request)
{
    struct qd_error error = {0};
    struct qd_text text = {0};
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    if (entry && request->server->draining) {
        qd_fail(&error, QD_ERR_UNAVAILABLE, "the server is stopping");
        entry = NULL;
    }
    if (!entry) {
        qd_http_fail(request, &error);
        return;
    }
    qd_text_puts(&text, "{\"name\":");
    qd_text_json_string(&text, entry->name);
    qd_text_puts(&text, ",\"ready\":true}");
    qd_api_respond_json(request, &text);
}

void qd_handle_stats(struct qd_http_request *request)
{
    struct qd_error error = {0};
    struct qd_text text = {0};
    const struct qd_model_entry *entry = NULL;
    if (qd_http_param(request, "model")) {
        entry = qd_api_model(request, &error);
        if (!entry) {
            qd_http_fail(request, &error);
            return;
        }
    }
    qd_api_write_stats(&text, request->server->repository, entry);
    qd_api_respond_json(request, &text);
}
