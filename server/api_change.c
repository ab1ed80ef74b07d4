/* PATCH .../quantization: other options for a model that goes on serving. The body is checked whole, a worker compiles
 * the new plan, the loop puts it in force between two requests and answers with it. */
#include "server/api.h"

#include "base/mem.h"
#include "server/audit.h"
#include "server/job.h"
#include "server/layers.h"
#include "server/quant_options.h"
#include "server/routes.h"
#include "server/serve.h"

#include <jansson.h>
#include <string.h>

/* The handler's state of one request; freed with the request, which the job keeps alive. */
struct change_state {
    struct qd_job job;
    struct qd_http_request *request;
    struct qd_model_entry *entry;
    struct qd_model *model; /* a reference */
    json_t *body;           /* names in the lists point into it */
    struct qd_quant_options options;
    struct qd_layers layers; /* of the model now, then those of the body */
    struct qd_change *change;
    struct qd_error error; /* of the worker's part */
    enum qd_status status;
};

static void free_state(void *state)
{
    struct change_state *s = state;
    qd_change_discard(&s->change);
    qd_model_unref(&s->model);
    json_decref(s->body);
    qd_layers_free(&s->layers);
    qd_free(s);
}

/* ------------------------------------------------------------------ the body */

/* {"conv1": ...}: each name with what stands there. */
static enum qd_status take_layers(struct change_state *s, const char *key, json_t *layers, struct qd_error *error)
{
    const bool words = strcmp(key, "precision") == 0;
    const char *node;
    json_t *value;
    json_object_foreach(layers, node, value)
    {
        struct qd_layer_pin pin = {.node = node};
        enum qd_status status = !words ? qd_layers_take(&s->layers, node, value, error)
                                : json_is_string(value) && qd_precision_from(json_string_value(value), &pin.precision)
                                    ? qd_layers_pin(&s->layers, pin, error)
                                    : qd_fail(error, QD_ERR_INVALID, "'%.60s' has a precision that it can't have",
                                              node);
        if (status)
            return status;
    }
    return QD_OK;
}

static enum qd_status take_key(struct change_state *s, const char *key, json_t *value, struct qd_error *error)
{
    const bool layers = strcmp(key, "layers") == 0;
    if (layers && !json_is_object(value))
        return qd_fail(error, QD_ERR_INVALID, "'layers' must be an object of names of nodes");
    if (layers || (strcmp(key, "precision") == 0 && json_is_object(value)))
        return take_layers(s, key, value, error);
    return qd_quant_options_take(key, value, &s->options, error);
}

static enum qd_status read_body(struct change_state *s, struct qd_error *error)
{
    json_error_t where;
    const char *key;
    json_t *value;
    s->body = json_loadb((const char *)s->request->body, s->request->body_bytes, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(s->body))
        return qd_fail(error, QD_ERR_INVALID, "the body must be a JSON object of options");
    enum qd_status status = qd_layers_begin(&s->layers, &s->options, error);
    if (status)
        return status;
    json_object_foreach(s->body, key, value)
    {
        status = take_key(s, key, value, error);
        if (status)
            return status;
    }
    qd_layers_use(&s->layers, &s->options);
    if (!s->options.smoothing)
        s->options.smoothed_count = 0; /* turned on again, it is found anew */
    return QD_OK;
}

/* ------------------------------------------------------------------ the job */

static struct change_state *state_of(struct qd_job *job)
{
    return (struct change_state *)((char *)job - offsetof(struct change_state, job));
}

static void run_jobs(struct qd_job *const *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct change_state *s = state_of(jobs[i]);
        s->status = qd_change_create(s->model, &s->options, &s->change, &s->error);
    }
}

static void job_done(struct qd_job *job)
{
    struct change_state *s = state_of(job);
    struct qd_http_request *request = s->request;
    struct qd_text text = {0};
    s->entry->changing = false;
    if (job->outcome != QD_OK)
        s->status = qd_fail(&s->error, job->outcome, "the change was given up before a worker was free");
    struct qd_audit_before *before = qd_audit_look(s->entry);
    if (!s->status)
        s->status = qd_change_adopt(&s->change, &s->error);
    if (s->status) {
        qd_audit_drop(&before);
        qd_http_fail(request, &s->error);
    } else {
        qd_audit_note(s->entry, &before, NULL);
        qd_api_write_quantization(&text, s->entry);
        qd_api_respond_json(request, &text);
    }
    qd_http_request_unref(&request);
}

void qd_handle_quantization_change(struct qd_http_request *request)
{
    struct qd_error error = {0};
    struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    struct change_state *s = entry ? qd_calloc(1, sizeof *s) : NULL;
    if (entry && !s)
        qd_fail(&error, QD_ERR_NO_MEMORY, "out of memory for a request");
    if (!s) {
        qd_http_fail(request, &error);
        return;
    }
    *s = (struct change_state){.request = request,
                               .entry = entry,
                               .model = qd_model_ref(entry->model),
                               .options = qd_model_options(entry->model),
                               .job = {.run = run_jobs, .done = job_done}};
    request->state = s;
    request->state_free = free_state;
    s->job.group = s; /* runs alone */
    enum qd_status status = read_body(s, &error);
    if (!status && entry->changing)
        status = qd_fail(&error, QD_ERR_CONFLICT, "another change of this model is being made");
    if (!status) {
        qd_http_request_ref(request);
        status = qd_jobs_submit(request->server->jobs, &s->job, &error);
        if (status) {
            struct qd_http_request *mine = request;
            qd_http_request_unref(&mine);
        }
    }
    if (status) {
        qd_http_fail(request, &error);
        return;
    }
    entry->changing = true;
    qd_http_suspend(request, &s->job);
}
