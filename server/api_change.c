/* PATCH .../quantization: other options for a model that goes on serving. The body is checked whole, a worker compiles
 * the new plan, the loop puts it in force between two requests and answers with it. */
#include "server/api.h"

#include "base/mem.h"
#include "server/audit.h"
#include "server/job.h"
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
    json_t *body;           /* names in the pins point into it */
    struct qd_quant_options options;
    struct qd_layer_pin *pins; /* of the model now, then those of the body */
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
    qd_free(s->pins);
    qd_free(s);
}

/* ------------------------------------------------------------------ the body */

static enum qd_status bad_value(const char *key, struct qd_error *error)
{
    return qd_fail(error, QD_ERR_INVALID, "'%.60s' has a value that it can't have", key);
}

static enum qd_status take_pin(struct change_state *s, const char *node, const json_t *value, struct qd_error *error)
{
    struct qd_layer_pin pin = {.node = node};
    if (!json_is_string(value) || !qd_precision_from(json_string_value(value), &pin.precision))
        return bad_value(node, error);
    size_t kept = 0; /* what was said of this node before counts no more */
    for (size_t i = 0; i < s->options.pin_count; i++)
        if (strcmp(s->pins[i].node, node) != 0)
            s->pins[kept++] = s->pins[i];
    s->pins[kept++] = pin;
    s->options.pin_count = kept;
    return QD_OK;
}

static enum qd_status take_key(struct change_state *s, const char *key, json_t *value, struct qd_error *error)
{
    const char *node;
    json_t *word;
    if (strcmp(key, "precision") != 0 || !json_is_object(value)) /* a value for the whole model */
        return qd_quant_options_take(key, value, &s->options, error);
    json_object_foreach(value, node, word)
    {
        enum qd_status status = take_pin(s, node, word, error);
        if (status)
            return status;
    }
    return QD_OK;
}

static enum qd_status read_body(struct change_state *s, struct qd_error *error)
{
    json_error_t where;
    const char *key;
    json_t *value;
    s->body = json_loadb((const char *)s->request->body, s->request->body_bytes, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(s->body))
        return qd_fail(error, QD_ERR_INVALID, "the body must be a JSON object of options");
    const json_t *precision = json_object_get(s->body, "precision");
    const size_t room = s->options.pin_count + (json_is_object(precision) ? json_object_size(precision) : 0);
    s->pins = qd_calloc(room + 1, sizeof *s->pins);
    if (!s->pins)
        return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for a request");
    if (s->options.pin_count)
        memcpy(s->pins, s->options.pins, s->options.pin_count * sizeof *s->pins);
    s->options.pins = s->pins;
    json_object_foreach(s->body, key, value)
    {
        enum qd_status status = take_key(s, key, value, error);
        if (status)
            return status;
    }
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
