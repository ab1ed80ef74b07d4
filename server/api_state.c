/* What a model has learned goes out as a document and comes back in: GET and PUT .../ranges/state, POST
 * .../ranges/merge and .../ranges/rollback. Where the document's plan is another one and is wanted, a worker compiles
 * it first. */
#include "server/api.h"

#include "base/mem.h"
#include "server/job.h"
#include "server/routes.h"
#include "server/serve.h"
#include "server/snapshots.h"
#include "server/state_biases.h"
#include "server/state_document.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The handler's state of one request; freed with the request, which the job keeps alive. */
struct adopt_state {
    struct qd_job job;
    struct qd_http_request *request;
    struct qd_model_entry *entry;
    struct qd_model *model; /* a reference */
    json_t *document;       /* a reference */
    struct qd_change *change;
    struct qd_error error; /* of the worker's part */
    enum qd_status status;
};

static void free_state(void *state)
{
    struct adopt_state *s = state;
    qd_change_discard(&s->change);
    qd_model_unref(&s->model);
    json_decref(s->document);
    qd_free(s);
}

void qd_api_respond_document(struct qd_http_request *request, const json_t *document)
{
    struct qd_text text = {0};
    char *body = document ? json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    if (body)
        qd_text_puts(&text, body);
    else
        text.failed = true;
    free(body);
    qd_api_respond_json(request, &text);
}

/* Large bodies, as they come. */
enum qd_status qd_document_begin(struct qd_http_request *request, struct qd_error *error)
{
    struct qd_model_entry *entry = qd_api_ready_model(request, error);
    return entry ? QD_OK : error->status;
}

enum qd_status qd_document_body(struct qd_http_request *request, const void *bytes, size_t n, struct qd_error *error)
{
    if (request->body_bytes + n > request->body_room) {
        size_t room = request->body_room ? request->body_room * 2 : 65536;
        while (room < request->body_bytes + n)
            room *= 2;
        void *grown = qd_realloc(request->body, room, 1);
        if (!grown)
            return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for a request's body");
        request->body = grown;
        request->body_room = room;
    }
    memcpy(request->body + request->body_bytes, bytes, n);
    request->body_bytes += n;
    return QD_OK;
}

static void answer(struct qd_http_request *request, const struct qd_model_entry *entry, const char *word, size_t count)
{
    struct qd_ranges_summary summary;
    struct qd_plan_report plan;
    struct qd_text text = {0};
    qd_model_ranges(entry->model, &summary);
    qd_model_plan(entry->model, &plan);
    qd_text_puts(&text, "{\"model\":");
    qd_text_json_string(&text, entry->name);
    qd_text_printf(&text,
                   ",\"version\":\"" QD_MODEL_VERSION "\",\"epoch\":%" PRIu64 ",\"requests\":%" PRIu64
                   ",\"frozen\":%s,\"plan\":\"%08" PRIx32 "\",\"%s\":%zu}",
                   summary.epoch, summary.requests, summary.frozen ? "true" : "false", plan.digest, word, count);
    qd_api_respond_json(request, &text);
}

/* ------------------------------------------------------------------ one document in force */

/* The ranges, and the biases where the plan is that of the document. */
static enum qd_status adopt(struct qd_model_entry *entry, const json_t *document, size_t *adopted,
                            struct qd_error *error)
{
    struct qd_range_state *ranges = NULL;
    size_t n = 0;
    enum qd_status status = qd_state_document_ranges(document, &ranges, &n, error);
    for (size_t i = n; i-- > 0 && !qd_state_document_has_plan(entry->model, document);)
        if (ranges[i].smoothed) /* of values that this plan doesn't have */
            ranges[i] = ranges[--n];
    if (!status && json_object_get(document, "biases") && qd_state_document_has_plan(entry->model, document))
        status = qd_state_biases_restore(entry->model, json_object_get(document, "biases"), true, error);
    if (!status)
        status = qd_model_adopt(entry->model, ranges, n, true, json_is_true(json_object_get(document, "frozen")),
                                adopted, error);
    qd_free(ranges);
    return status;
}

static struct adopt_state *state_of(struct qd_job *job)
{
    return (struct adopt_state *)((char *)job - offsetof(struct adopt_state, job));
}

static void run_jobs(struct qd_job *const *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct adopt_state *s = state_of(jobs[i]);
        s->status = qd_state_document_change(s->model, &s->entry->base, s->document, &s->change, &s->error);
    }
}

static void job_done(struct qd_job *job)
{
    struct adopt_state *s = state_of(job);
    struct qd_http_request *request = s->request;
    size_t adopted = 0;
    s->entry->changing = false;
    if (job->outcome)
        s->status = qd_fail(&s->error, job->outcome, "the change was given up before a worker was free");
    if (!s->status)
        s->status = qd_change_adopt(&s->change, &s->error);
    if (!s->status)
        s->status = adopt(s->entry, s->document, &adopted, &s->error);
    if (s->status)
        qd_http_fail(request, &s->error);
    else
        answer(request, s->entry, "tensors", adopted);
    qd_http_request_unref(&request);
}

/* Compiles the document's plan, then takes it over with its ranges. */
static enum qd_status adopt_with_plan(struct qd_http_request *request, struct qd_model_entry *entry, json_t *document,
                                      struct qd_error *error)
{
    if (entry->changing)
        return qd_fail(error, QD_ERR_CONFLICT, "another change of this model is being made");
    struct adopt_state *s = qd_calloc(1, sizeof *s);
    if (!s)
        return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for a request");
    *s = (struct adopt_state){.request = request,
                              .entry = entry,
                              .model = qd_model_ref(entry->model),
                              .document = json_incref(document),
                              .job = {.run = run_jobs, .done = job_done}};
    s->job.group = s; /* runs alone */
    request->state = s;
    request->state_free = free_state;
    qd_http_request_ref(request);
    enum qd_status status = qd_jobs_submit(request->server->jobs, &s->job, error);
    if (status) {
        struct qd_http_request *mine = request;
        qd_http_request_unref(&mine);
        return status;
    }
    entry->changing = true;
    qd_http_suspend(request, &s->job);
    return QD_OK;
}

static enum qd_status adopt_document(struct qd_http_request *request, struct qd_model_entry *entry, json_t *document,
                                     bool plan, struct qd_error *error)
{
    size_t adopted = 0;
    if (plan && !qd_state_document_has_plan(entry->model, document))
        return adopt_with_plan(request, entry, document, error);
    enum qd_status status = adopt(entry, document, &adopted, error);
    if (!status)
        answer(request, entry, "tensors", adopted);
    return status;
}

/* ------------------------------------------------------------------ handlers */

void qd_handle_state(struct qd_http_request *request)
{
    struct qd_error error = {0};
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    if (!entry) {
        qd_http_fail(request, &error);
        return;
    }
    json_t *document = qd_state_document(entry);
    qd_api_respond_document(request, document);
    json_decref(document);
}

json_t *qd_api_body(const struct qd_http_request *request, struct qd_error *error)
{
    json_error_t where;
    json_t *body = json_loadb((const char *)request->body, request->body_bytes, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(body)) {
        json_decref(body);
        body = NULL;
        qd_fail(error, QD_ERR_INVALID, "the body must be a JSON object: %.120s", where.text);
    }
    return body;
}

/* ?plan=false */
static enum qd_status read_plan(const struct qd_http_request *request, bool *plan, struct qd_error *error)
{
    const char *word = qd_http_query(request, "plan", 0);
    *plan = !word || strcmp(word, "false") != 0;
    return !word || !*plan || strcmp(word, "true") == 0
               ? QD_OK
               : qd_fail(error, QD_ERR_INVALID, "plan must be true or false, not '%.40s'", word);
}

void qd_handle_state_put(struct qd_http_request *request)
{
    struct qd_error error = {0};
    bool plan = true;
    struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    json_t *body = entry ? qd_api_body(request, &error) : NULL;
    enum qd_status status = body ? read_plan(request, &plan, &error) : error.status;
    if (!status)
        status = qd_state_document_check(body, entry->model, &error);
    if (!status)
        status = adopt_document(request, entry, body, plan, &error);
    if (status)
        qd_http_fail(request, &error);
    json_decref(body);
}

void qd_handle_rollback(struct qd_http_request *request)
{
    struct qd_error error = {0};
    const struct qd_snapshot *snapshot = NULL;
    struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    json_t *body = entry ? qd_api_body(request, &error) : NULL;
    const json_t *name = json_object_get(body, "name"), *epoch = json_object_get(body, "epoch"),
                 *plan = json_object_get(body, "plan");
    const size_t known = (name != NULL) + (epoch != NULL) + (plan != NULL);
    enum qd_status status = error.status;
    if (!status &&
        (known != json_object_size(body) || !name == !epoch || (name && !json_is_string(name)) ||
         (epoch && (!json_is_integer(epoch) || json_integer_value(epoch) < 1)) || (plan && !json_is_boolean(plan))))
        status = qd_fail(&error, QD_ERR_INVALID,
                         "the body must be {\"name\": \"...\"}, with \"plan\": false to leave the plan as it is, or "
                         "{\"epoch\": N}");
    if (!status && name) {
        status = qd_api_snapshot(entry, json_string_value(name), &snapshot, &error);
        if (!status)
            status = adopt_document(request, entry, snapshot->document, !json_is_false(plan), &error);
    } else if (!status) {
        status = qd_model_rollback(entry->model, (uint64_t)json_integer_value(epoch), &error);
        struct qd_ranges_summary summary;
        if (!status) {
            qd_model_ranges(entry->model, &summary);
            answer(request, entry, "tensors", summary.sites);
        }
    }
    if (status)
        qd_http_fail(request, &error);
    json_decref(body);
}
