/* What a model has learned, for others and from others: GET .../export as a QDQ model or a table, PUT and DELETE of
 * .../ranges. A worker makes the export; requests go on meanwhile. */
#include "server/api.h"

#include "base/mem.h"
#include "server/job.h"
#include "server/range_formats.h"
#include "server/routes.h"
#include "server/serve.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_TABLE_BYTES (8 << 20) /* read on the loop */

/* The handler's state of one request; freed with the request, which the job keeps alive. */
struct export_state {
    struct qd_job job;
    struct qd_http_request *request;
    struct qd_export *export;
    enum qd_range_format format;
    char file_name[QD_MODEL_NAME_BYTES + 32];
    struct qd_text text;
    struct qd_error error; /* of the worker's part */
    enum qd_status status;
};

static void free_state(void *state)
{
    struct export_state *s = state;
    qd_export_destroy(&s->export);
    qd_text_free(&s->text);
    qd_free(s);
}

/* ------------------------------------------------------------------ GET export */

static bool put_text(void *text, const void *bytes, size_t size)
{
    qd_text_append(text, bytes, size);
    return !((struct qd_text *)text)->failed;
}

static struct export_state *state_of(struct qd_job *job)
{
    return (struct export_state *)((char *)job - offsetof(struct export_state, job));
}

static void run_jobs(struct qd_job *const *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct export_state *s = state_of(jobs[i]);
        s->status = s->format == QD_RANGES_QDQ ? qd_export_write(s->export, put_text, &s->text, &s->error)
                                               : qd_range_format_write(&s->text, s->export, s->format, &s->error);
    }
}

static void job_done(struct qd_job *job)
{
    struct export_state *s = state_of(job);
    struct qd_http_request *request = s->request;
    struct qd_export_report report;
    char number[24];
    qd_export_report(s->export, &report);
    if (job->outcome != QD_OK)
        s->status = qd_fail(&s->error, job->outcome, "the export was given up before a worker was free");
    if (!s->status && s->text.failed)
        s->status = qd_fail(&s->error, QD_ERR_NO_MEMORY, "out of memory for an answer");
    if (s->status) {
        qd_http_fail(request, &s->error);
    } else {
        qd_api_respond(request, 200, s->format == QD_RANGES_QDQ ? "application/octet-stream" : "application/json",
                       &s->text);
        snprintf(number, sizeof number, "%" PRIu64, report.epoch);
        qd_http_respond_header(request, "Quant-Epoch", number);
        qd_http_respond_header(request, "Content-Disposition", s->file_name);
    }
    qd_http_request_unref(&request);
}

static enum qd_status read_query(const struct qd_http_request *request, enum qd_range_format *format, uint64_t *epoch,
                                 struct qd_error *error)
{
    const char *name = qd_http_query(request, "format", 0), *number = qd_http_query(request, "epoch", 0);
    char *end = NULL;
    *format = QD_RANGES_QDQ;
    *epoch = 0;
    if (name && !qd_range_format_from(name, format))
        return qd_fail(error, QD_ERR_INVALID, "format '%.40s' is none of qdq, quantd, ort-calibration, torch, tf",
                       name);
    if (number)
        *epoch = strtoull(number, &end, 10);
    if (number && (*number < '0' || *number > '9' || *end || *epoch == 0 || *epoch == UINT64_MAX))
        return qd_fail(error, QD_ERR_INVALID, "epoch '%.40s' is no epoch's number", number);
    return QD_OK;
}

void qd_handle_export(struct qd_http_request *request)
{
    struct qd_error error = {0};
    uint64_t epoch = 0;
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    struct export_state *s = entry ? qd_calloc(1, sizeof *s) : NULL;
    if (entry && !s)
        qd_fail(&error, QD_ERR_NO_MEMORY, "out of memory for a request");
    if (!s) {
        qd_http_fail(request, &error);
        return;
    }
    *s = (struct export_state){.request = request, .job = {.run = run_jobs, .done = job_done}};
    s->job.group = s; /* runs alone */
    request->state = s;
    request->state_free = free_state;
    enum qd_status status = read_query(request, &s->format, &epoch, &error);
    snprintf(s->file_name, sizeof s->file_name, "attachment; filename=\"%s.%s\"", entry->name,
             s->format == QD_RANGES_QDQ ? "onnx" : "json");
    if (!status)
        status = qd_export_create(entry->model, epoch, &s->export, &error);
    if (!status) {
        qd_http_request_ref(request);
        status = qd_jobs_submit(request->server->jobs, &s->job, &error);
        if (status) {
            struct qd_http_request *mine = request;
            qd_http_request_unref(&mine);
        }
    }
    if (status)
        qd_http_fail(request, &error);
    else
        qd_http_suspend(request, &s->job);
}

/* ------------------------------------------------------------------ PUT and DELETE ranges */

static void respond_taken(struct qd_http_request *request, const struct qd_model_entry *entry,
                          const struct qd_ranges_taken *taken)
{
    struct qd_ranges_summary summary;
    struct qd_text text = {0};
    qd_model_ranges(entry->model, &summary);
    qd_text_puts(&text, "{\"model\":");
    qd_text_json_string(&text, entry->name);
    qd_text_printf(&text,
                   ",\"version\":\"" QD_MODEL_VERSION "\",\"epoch\":%" PRIu64
                   ",\"set\":%zu,\"taken_back\":%zu,\"ignored\":%zu}",
                   summary.epoch, taken->set, taken->taken_back, taken->ignored);
    qd_api_respond_json(request, &text);
}

void qd_handle_ranges_put(struct qd_http_request *request)
{
    struct qd_error error = {0};
    struct qd_ranges_taken taken;
    json_error_t where;
    const char *cuts = qd_http_query(request, "cuts", 0);
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    const bool cut = cuts && strcmp(cuts, "true") == 0;
    enum qd_status status = entry ? QD_OK : error.status;
    if (!status && cuts && !cut && strcmp(cuts, "false") != 0)
        status = qd_fail(&error, QD_ERR_INVALID, "cuts must be true or false, not '%.40s'", cuts);
    json_t *root = status
                       ? NULL
                       : json_loadb((const char *)request->body, request->body_bytes, JSON_REJECT_DUPLICATES, &where);
    if (!status && !root)
        status = qd_fail(&error, QD_ERR_INVALID, "the body must be a JSON object of ranges: %s", where.text);
    if (!status)
        status = qd_range_format_read(root, entry->model, cut, &taken, &error);
    json_decref(root);
    if (status)
        qd_http_fail(request, &error);
    else
        respond_taken(request, entry, &taken);
}

/* The tensors that the query names, or all that were given a range. */
static enum qd_status take_back(const struct qd_http_request *request, struct qd_model *model,
                                struct qd_ranges_taken *taken, struct qd_error *error)
{
    struct qd_ranges_summary summary;
    const char *tensor;
    size_t named = 0, count = 0;
    qd_model_ranges(model, &summary);
    while (qd_http_query(request, "tensor", named))
        named++;
    struct qd_range_given *entries = qd_calloc(named + summary.sites + 1, sizeof *entries);
    if (!entries)
        return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for a request");
    for (size_t i = 0; (tensor = qd_http_query(request, "tensor", i)) != NULL; i++)
        entries[count++] = (struct qd_range_given){.tensor = tensor, .learn = true};
    for (size_t i = 0; named == 0 && i < summary.sites; i++)
        if (qd_model_range_given(model, i, &entries[count]))
            entries[count++].learn = true;
    *taken = (struct qd_ranges_taken){.taken_back = count};
    enum qd_status status = qd_model_ranges_set(model, entries, count, error);
    qd_free(entries);
    return status;
}

void qd_handle_ranges_delete(struct qd_http_request *request)
{
    struct qd_error error = {0};
    struct qd_ranges_taken taken;
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    if (!entry || take_back(request, entry->model, &taken, &error) != QD_OK)
        qd_http_fail(request, &error);
    else
        respond_taken(request, entry, &taken);
}

enum qd_status qd_ranges_begin(struct qd_http_request *request, struct qd_error *error)
{
    if (request->content_length > MOST_TABLE_BYTES)
        return qd_fail(error, QD_ERR_TOO_LARGE, "a table of ranges has at most %d bytes", MOST_TABLE_BYTES);
    return QD_OK;
}

/* Tables of large models are larger than what other routes take. */
enum qd_status qd_ranges_body(struct qd_http_request *request, const void *bytes, size_t n, struct qd_error *error)
{
    if (n > request->body_room - request->body_bytes) {
        size_t room = request->body_room * 2 + n;
        if (request->body_bytes + n > MOST_TABLE_BYTES)
            return qd_fail(error, QD_ERR_TOO_LARGE, "a table of ranges has at most %d bytes", MOST_TABLE_BYTES);
        unsigned char *grown = qd_realloc(request->body, room, 1);
        if (!grown)
            return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the body");
        request->body = grown;
        request->body_room = room;
    }
    memcpy(request->body + request->body_bytes, bytes, n);
    request->body_bytes += n;
    return QD_OK;
}
