/* The error against FP32: which requests are measured (a share of those served, one at a time, on a thread that runs
 * when nobody else wants to), and GET .../accuracy. The measuring itself is the engine's (engine/shadow.h). */
#include "server/api.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/auto_precision.h"
#include "server/corrections.h"
#include "server/routes.h"
#include "server/serve.h"
#include "server/spare_memory.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <uv.h>

#define SPARE_BYTES (64u << 20)

struct measuring {
    uv_work_t work;
    struct qd_server *server;
    struct qd_model_entry *entry;
    struct qd_shadow *shadow;
};

static void on_thread(uv_work_t *work)
{
    const struct sched_param none = {0};
    struct measuring *m = work->data;
    (void)pthread_setschedparam(pthread_self(), SCHED_IDLE, &none); /* where that is forbidden it runs all the same */
    qd_shadow_run(m->shadow);
}

static void on_measured(uv_work_t *work, int status)
{
    struct measuring *m = work->data;
    (void)status;
    m->server->shadowing = false;
    qd_shadow_finish(&m->shadow);
    qd_corrections_judge(m->server, m->entry);
    qd_auto_precision(m->server, m->entry);
    if (m->server->config->shadow_rate == 0 && !qd_model_wants_shadow(m->entry->model))
        qd_model_forget_fp32(m->entry->model);
    qd_free(m);
}

/* Measuring that nobody asked for must not cost the container its life: the plan in FP32 takes as much as the file, and
 * runs of it some more. */
static bool measures_itself(struct qd_model_entry *entry)
{
    struct qd_plan_report plan;
    if (!qd_model_wants_shadow(entry->model))
        return false;
    qd_model_plan(entry->model, &plan);
    const uint64_t needed = 2 * plan.model_file_bytes + SPARE_BYTES, spare = qd_spare_memory();
    const bool suffices = spare >= needed;
    if (!suffices && !entry->unmeasured)
        qd_log(QD_LOG_WARNING,
               "model '%s': its error is not measured and its precision stays: of %" PRIu64
               " MB that this takes %" PRIu64 " are free",
               entry->name, needed >> 20, spare >> 20);
    entry->unmeasured = !suffices;
    return suffices;
}

void qd_api_shadow(struct qd_server *server, struct qd_model_entry *entry, const struct qd_infer *infer)
{
    struct qd_error error;
    const bool busy = server->shadowing || server->draining;
    entry->shadow_due += !busy && measures_itself(entry) ? 1 : server->config->shadow_rate;
    if (entry->shadow_due < 1 || busy)
        return;
    struct measuring *m = qd_calloc(1, sizeof *m);
    if (!m || qd_shadow_create(infer, &m->shadow, &error) != QD_OK) {
        qd_free(m); /* this one can't be measured; the next may */
        return;
    }
    entry->shadow_due -= floor(entry->shadow_due);
    m->server = server;
    m->entry = entry;
    m->work.data = m;
    server->shadowing = true;
    if (uv_queue_work(server->loop, &m->work, on_thread, on_measured) != 0) {
        server->shadowing = false;
        qd_shadow_finish(&m->shadow);
        qd_free(m);
    }
}

/* ------------------------------------------------------------------ GET .../accuracy */

static int worst_first(const void *a, const void *b)
{
    const double x = ((const struct qd_layer_accuracy *)a)->sqnr_db, y = ((const struct qd_layer_accuracy *)b)->sqnr_db;
    return isnan(x) || isnan(y) ? isnan(x) - isnan(y) : (x > y) - (x < y);
}

static void write_layers(struct qd_text *out, const struct qd_model *model, size_t count)
{
    struct qd_layer_accuracy *layers = qd_calloc(count + 1, sizeof *layers);
    if (!layers) {
        out->failed = true;
        return;
    }
    for (size_t i = 0; i < count; i++)
        qd_model_layer_accuracy(model, i, &layers[i]);
    qsort(layers, count, sizeof *layers, worst_first);
    for (size_t i = 0; i < count; i++) {
        qd_text_puts(out, i ? ",{\"node\":" : "{\"node\":");
        qd_text_json_string(out, layers[i].node);
        qd_text_puts(out, ",\"sqnr_db\":");
        qd_text_json_double(out, layers[i].sqnr_db);
        qd_text_puts(out, "}");
    }
    qd_free(layers);
}

void qd_api_write_accuracy(struct qd_text *out, const struct qd_model_entry *entry)
{
    struct qd_accuracy_report a;
    qd_model_accuracy(entry->model, &a);
    const struct {
        const char *before;
        double value;
    } numbers[] = {
        {",\"cosine\":{\"mean\":", a.cosine_mean},   {",\"min\":", a.cosine_min}, {"},\"sqnr_db\":", a.sqnr_db},
        {",\"top1_agreement\":{\"value\":", a.top1}, {",\"low\":", a.top1_low},   {",\"high\":", a.top1_high}};
    qd_text_puts(out, "{\"model\":");
    qd_text_json_string(out, entry->name);
    qd_text_printf(out, ",\"version\":\"" QD_MODEL_VERSION "\",\"sampled\":%" PRIu64, a.sampled);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        qd_text_puts(out, numbers[i].before);
        qd_text_json_double(out, numbers[i].value);
    }
    qd_text_printf(out, ",\"rows\":%" PRIu64 "},\"layers\":[", a.rows);
    write_layers(out, entry->model, a.layers);
    qd_text_puts(out, "]}");
}

void qd_handle_accuracy(struct qd_http_request *request)
{
    struct qd_error error = {0};
    struct qd_text text = {0};
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    if (!entry) {
        qd_http_fail(request, &error);
        return;
    }
    qd_api_write_accuracy(&text, entry);
    qd_api_respond_json(request, &text);
}
