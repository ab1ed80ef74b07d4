/* Snapshots over HTTP: made, listed, shown, deleted. A worker writes the file, so that the loop doesn't wait for the
 * disk; the answer comes when it is there. Taking one back into force: server/api_state.c. */
#include "server/api.h"

#include "base/mem.h"
#include "server/job.h"
#include "server/routes.h"
#include "server/serve.h"
#include "server/snapshots.h"
#include "server/state_document.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The handler's state of one request; freed with the request, which the job keeps alive. */
struct keep_state {
    struct qd_job job;
    struct qd_http_request *request;
    struct qd_model_entry *entry;
    char name[QD_SNAPSHOT_NAME_BYTES + 1], path[QD_STATE_PATH_BYTES]; /* path "": nothing is kept on the disk */
    json_t *document;                                                 /* NULL: it is to be removed */
    char *text;
    size_t bytes;
    int failure; /* errno */
};

static void free_state(void *state)
{
    struct keep_state *s = state;
    json_decref(s->document);
    qd_free(s->text);
    qd_free(s);
}

static void write_snapshot(struct qd_text *out, const struct qd_snapshot *snapshot)
{
    qd_text_puts(out, "{\"name\":");
    qd_text_json_string(out, snapshot->name);
    qd_text_puts(out, ",\"created\":");
    qd_text_json_time(out, snapshot->created_unix_ms);
    qd_text_printf(out, ",\"epoch\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"plan\":",
                   qd_state_document_count(snapshot->document, "epoch"),
                   qd_state_document_count(snapshot->document, "requests"));
    qd_text_json_string(out, qd_state_document_word(snapshot->document, "plan"));
    qd_text_printf(out, ",\"frozen\":%s,\"tensors\":%zu,\"bytes\":%zu,\"persisted\":%s}",
                   json_is_true(json_object_get(snapshot->document, "frozen")) ? "true" : "false",
                   json_array_size(json_object_get(snapshot->document, "tensors")), snapshot->bytes,
                   snapshot->persisted ? "true" : "false");
}

void qd_handle_snapshots(struct qd_http_request *request)
{
    struct qd_error error = {0};
    struct qd_text text = {0};
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    if (!entry) {
        qd_http_fail(request, &error);
        return;
    }
    qd_text_puts(&text, "{\"model\":");
    qd_text_json_string(&text, entry->name);
    qd_text_puts(&text, ",\"version\":\"" QD_MODEL_VERSION "\",\"snapshots\":[");
    for (size_t i = 0; i < qd_snapshots_count(entry); i++) {
        qd_text_puts(&text, i ? "," : "");
        write_snapshot(&text, qd_snapshots_at(entry, i));
    }
    qd_text_puts(&text, "]}");
    qd_api_respond_json(request, &text);
}

enum qd_status qd_api_snapshot(const struct qd_model_entry *entry, const char *name, const struct qd_snapshot **out,
                               struct qd_error *error)
{
    *out = qd_snapshots_find(entry, name);
    return *out ? QD_OK : qd_fail(error, QD_ERR_NOT_FOUND, "model '%s' has no snapshot '%.64s'", entry->name, name);
}

/* The whole document, as PUT .../ranges/state takes it. */
void qd_handle_snapshot(struct qd_http_request *request)
{
    struct qd_error error = {0};
    const struct qd_snapshot *snapshot;
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    if (!entry || qd_api_snapshot(entry, qd_http_param(request, "snapshot"), &snapshot, &error))
        qd_http_fail(request, &error);
    else
        qd_api_respond_document(request, snapshot->document);
}

/* ------------------------------------------------------------------ the job */

static struct keep_state *state_of(struct qd_job *job)
{
    return (struct keep_state *)((char *)job - offsetof(struct keep_state, job));
}

static void run_jobs(struct qd_job *const *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct keep_state *s = state_of(jobs[i]);
        if (*s->path)
            s->failure = s->document ? qd_state_file_write(s->path, s->text) : qd_state_file_remove(s->path);
    }
}

static void answer_removed(const struct keep_state *s)
{
    struct qd_text text = {0};
    qd_snapshots_remove(s->entry, s->name);
    qd_text_puts(&text, "{\"model\":");
    qd_text_json_string(&text, s->entry->name);
    qd_text_puts(&text, ",\"deleted\":");
    qd_text_json_string(&text, s->name);
    qd_text_puts(&text, "}");
    qd_api_respond_json(s->request, &text);
}

static void job_done(struct qd_job *job)
{
    struct keep_state *s = state_of(job);
    struct qd_http_request *request = s->request;
    struct qd_error error = {0};
    struct qd_text text = {0};
    enum qd_status status = QD_OK;
    s->entry->keeping = false;
    if (job->outcome)
        status = qd_fail(&error, job->outcome, "the snapshot was given up before a worker was free");
    else if (s->failure)
        status = qd_fail(&error, QD_ERR_IO, "the snapshot can't be %s: %s", s->document ? "written" : "removed",
                         strerror(s->failure));
    else if (s->document) {
        status = qd_snapshots_add(s->entry, s->document, s->bytes, *s->path != 0, &error);
        s->document = NULL;
        if (!status) {
            write_snapshot(&text, qd_snapshots_find(s->entry, s->name));
            qd_api_respond_json(request, &text);
        }
    } else
        answer_removed(s);
    if (status)
        qd_http_fail(request, &error);
    qd_http_request_unref(&request);
}

/* {"name": "..."} */
static enum qd_status read_name(const struct qd_http_request *request, char name[QD_SNAPSHOT_NAME_BYTES + 1],
                                struct qd_error *error)
{
    json_t *body = json_loadb((const char *)request->body, request->body_bytes, JSON_REJECT_DUPLICATES, NULL);
    const json_t *value = json_object_get(body, "name");
    enum qd_status status = QD_OK;
    if (!json_is_string(value) || json_object_size(body) != 1)
        status = qd_fail(error, QD_ERR_INVALID, "the body must be {\"name\": \"...\"}");
    else if (!qd_snapshot_name_valid(json_string_value(value)))
        status = qd_fail(error, QD_ERR_INVALID,
                         "'%.64s' is no name of a snapshot: letters, digits, '.', '_' and '-', at most %d, a letter or "
                         "digit first",
                         json_string_value(value), QD_SNAPSHOT_NAME_BYTES);
    else
        snprintf(name, QD_SNAPSHOT_NAME_BYTES + 1, "%s", json_string_value(value));
    json_decref(body);
    return status;
}

static enum qd_status make(struct keep_state *s, struct qd_error *error)
{
    enum qd_status status = read_name(s->request, s->name, error);
    if (!status)
        status = qd_snapshots_make(s->entry, s->name, &s->document, &s->text, error);
    if (!status)
        s->bytes = strlen(s->text);
    return status;
}

static enum qd_status find_it(struct keep_state *s, struct qd_error *error)
{
    const struct qd_snapshot *snapshot;
    enum qd_status status = qd_api_snapshot(s->entry, qd_http_param(s->request, "snapshot"), &snapshot, error);
    if (!status)
        memcpy(s->name, snapshot->name, sizeof s->name);
    return status;
}

static enum qd_status submit(struct keep_state *s, struct qd_error *error)
{
    const struct qd_state *kept = s->request->server->state;
    if (s->entry->keeping)
        return qd_fail(error, QD_ERR_CONFLICT, "another snapshot of this model is being written");
    if (kept && !qd_snapshots_path(kept, s->entry, s->name, s->path))
        return qd_fail(error, QD_ERR_INVALID, "the path of the snapshot is too long");
    qd_http_request_ref(s->request);
    enum qd_status status = qd_jobs_submit(s->request->server->jobs, &s->job, error);
    if (status) {
        struct qd_http_request *mine = s->request;
        qd_http_request_unref(&mine);
        return status;
    }
    s->entry->keeping = true;
    qd_http_suspend(s->request, NULL); /* it is done also when the client goes */
    return QD_OK;
}

static void handle(struct qd_http_request *request, enum qd_status (*prepare)(struct keep_state *, struct qd_error *))
{
    struct qd_error error = {0};
    struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    struct keep_state *s = entry ? qd_calloc(1, sizeof *s) : NULL;
    if (entry && !s)
        qd_fail(&error, QD_ERR_NO_MEMORY, "out of memory for a request");
    if (!s) {
        qd_http_fail(request, &error);
        return;
    }
    *s = (struct keep_state){.request = request, .entry = entry, .job = {.run = run_jobs, .done = job_done}};
    s->job.group = s; /* runs alone */
    request->state = s;
    request->state_free = free_state;
    enum qd_status status = prepare(s, &error);
    if (!status)
        status = submit(s, &error);
    if (status)
        qd_http_fail(request, &error);
}

void qd_handle_snapshot_make(struct qd_http_request *request) { handle(request, make); }
void qd_handle_snapshot_delete(struct qd_http_request *request) { handle(request, find_it); }
