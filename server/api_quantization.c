/* The plan as users see it: which node runs in which precision, and why. */
#include "server/api.h"

#include "server/audit.h"
#include "server/layers.h"
#include "server/routes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* "a,b" as ["a","b"] */
static void write_names(struct qd_text *out, const char *names)
{
    char one[256];
    qd_text_puts(out, "[");
    for (bool first = true; names && *names; first = false) {
        size_t n = strcspn(names, ","), copied = n < sizeof one - 1 ? n : sizeof one - 1;
        memcpy(one, names, copied);
        one[copied] = 0;
        qd_text_puts(out, first ? "" : ",");
        qd_text_json_string(out, one);
        names += n + (names[n] == ',');
    }
    qd_text_puts(out, "]");
}

/* ,"key":"word", or null */
static void write_word(struct qd_text *out, const char *key, const char *word)
{
    qd_text_printf(out, word ? ",\"%s\":\"%s\"" : ",\"%s\":null", key, word);
}

static void write_step(struct qd_text *out, const struct qd_step_report *step)
{
    qd_text_puts(out, "{\"node\":");
    qd_text_json_string(out, step->node);
    qd_text_puts(out, ",\"op\":");
    qd_text_json_string(out, step->op);
    qd_text_puts(out, ",\"fused\":");
    write_names(out, step->fused);
    qd_text_printf(out, ",\"precision\":\"%s\",\"reason\":", qd_precision_name(step->precision));
    qd_text_json_string(out, step->reason ? step->reason : "");
    write_word(out, "scheme", step->precision == QD_FP32 ? NULL : qd_scheme_name(step->activation_scheme));
    const bool rows = step->activation_granularity == QD_PER_ROW; /* nothing to guard */
    write_word(out, "mode", step->reads ? qd_mode_name(step->mode) : NULL);
    write_word(out, "guard", step->reads && !rows ? qd_guard_name(step->guard) : NULL);
    write_word(out, "granularity", step->reads ? qd_granularity_name(step->activation_granularity) : NULL);
    if (step->weight_bits)
        qd_text_printf(out, ",\"weights\":{\"scheme\":\"%s\",\"granularity\":\"%s\",\"bits\":%d}",
                       qd_scheme_name(step->weight_scheme), qd_granularity_name(step->weight_granularity),
                       step->weight_bits);
    else
        qd_text_puts(out, ",\"weights\":null");
    if (step->int8_us > 0)
        qd_text_printf(out,
                       step->int16_us > 0 ? ",\"time_us\":{\"int8\":%.1f,\"fp32\":%.1f,\"int16\":%.1f}"
                                          : ",\"time_us\":{\"int8\":%.1f,\"fp32\":%.1f}",
                       step->int8_us, step->fp32_us, step->int16_us);
    else
        qd_text_puts(out, ",\"time_us\":null");
    qd_text_puts(out, ",\"sqnr_db\":");
    qd_text_json_double(out, step->sqnr_db); /* null: not measured, or no error at all */
    qd_text_printf(out, ",\"macs\":%" PRIu64 ",\"pinned\":%s}", step->macs, step->pinned ? "true" : "false");
}

static void write_correction(struct qd_text *out, const struct qd_model *model)
{
    struct qd_correction_report report;
    qd_model_correction(model, &report);
    qd_text_printf(
        out, ",\"bias_correction\":{\"enabled\":%s,\"layers\":%zu,\"requests\":%" PRIu64 ",\"made\":%" PRIu64,
        qd_model_options(model).bias_correction ? "true" : "false", report.layers, report.requests, report.made);
    qd_text_printf(out, ",\"compared\":%" PRIu64 ",\"undone\":%s}", report.compared, report.undone ? "true" : "false");
    qd_text_printf(out, ",\"smoothing\":{\"enabled\":%s,\"tensors\":%zu}",
                   qd_model_options(model).smoothing ? "true" : "false", qd_model_smoothed(model));
}

static void write_layers(struct qd_text *out, const struct qd_model *model)
{
    const struct qd_quant_options options = qd_model_options(model);
    json_t *layers = qd_layers_json(&options);
    char *text = json_dumps(layers, JSON_COMPACT);
    qd_text_puts(out, ",\"layers\":");
    qd_text_puts(out, text ? text : "{}");
    free(text);
    json_decref(layers);
}

void qd_api_write_quantization(struct qd_text *out, const struct qd_model_entry *entry)
{
    struct qd_plan_report plan;
    qd_model_plan(entry->model, &plan);
    qd_text_puts(out, "{\"model\":");
    qd_text_json_string(out, entry->name);
    qd_text_printf(out, ",\"version\":\"" QD_MODEL_VERSION "\",\"plan\":\"%08" PRIx32 "\",\"steps\":[", plan.digest);
    for (size_t i = 0; i < plan.steps; i++) {
        struct qd_step_report step;
        qd_model_step(entry->model, i, &step);
        qd_text_puts(out, i ? "," : "");
        write_step(out, &step);
    }
    qd_text_printf(out,
                   "],\"totals\":{\"model_file_bytes\":%" PRIu64 ",\"packed_bytes\":%" PRIu64
                   ",\"macs\":{\"int8\":%" PRIu64 ",\"int16\":%" PRIu64 ",\"fp32\":%" PRIu64 ",\"fake\":%" PRIu64
                   "},\"nodes\":%zu,\"opset\":%" PRId64 "}",
                   plan.model_file_bytes, plan.packed_bytes, plan.macs[QD_INT8], plan.macs[QD_INT16],
                   plan.macs[QD_FP32], plan.macs[QD_FAKE], plan.nodes, plan.opset);
    write_correction(out, entry->model);
    write_layers(out, entry->model);
    qd_text_puts(out, ",\"changes\":");
    qd_audit_write(out, entry);
    qd_text_puts(out, "}");
}

/* ------------------------------------------------------------------ handlers */

void qd_handle_quantization(struct qd_http_request *request)
{
    struct qd_error error = {0};
    struct qd_text text = {0};
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    if (!entry) {
        qd_http_fail(request, &error);
        return;
    }
    qd_api_write_quantization(&text, entry);
    qd_api_respond_json(request, &text);
}
