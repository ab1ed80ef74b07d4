/* PATCH .../quantization: other options for a model that goes on serving. The body is checked whole, a worker compiles
 * the new plan, the loop puts it in force between two requests and answers with it. */
#include "server/api.h"

#include "base/mem.h"
#include "server/audit.h"
#include "server/job.h"
#include "server/routes.h"
#include "server/serve.h"

#include <jansson.h>
#include <math.h>
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

/* One number option, which qd_change_create checks against its bounds. */
static enum qd_status take_number(const json_t *value, const char *key, double *out, struct qd_error *error)
{
    if (!json_is_number(value))
        return bad_value(key, error);
    *out = json_number_value(value);
    return QD_OK;
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

/* A word for the whole model, or an object of nodes. */
static enum qd_status take_precision(struct change_state *s, const json_t *value, struct qd_error *error)
{
    const char *node;
    json_t *word;
    if (json_is_string(value))
        return qd_precision_from(json_string_value(value), &s->options.precision) ? QD_OK
                                                                                  : bad_value("precision", error);
    if (!json_is_object(value))
        return bad_value("precision", error);
    json_object_foreach((json_t *)(uintptr_t)value, node, word)
    {
        enum qd_status status = take_pin(s, node, word, error);
        if (status)
            return status;
    }
    return QD_OK;
}

/* Is it {"<key>": <integer>}? The bounds are qd_change_create's to check. */
static bool one_integer(const json_t *value, const char *key, int *out)
{
    const json_t *number = json_object_get(value, key);
    if (!json_is_integer(number) || json_object_size(value) != 1)
        return false;
    const json_int_t n = json_integer_value(number);
    *out = n < 0 || n > 64 ? 0 : (int)n;
    return true;
}

/* {"scheme": "..."} or {"granularity": "..."}: an object of one known key. */
static enum qd_status only_key(const char *key, const json_t *value, const char *inner, const char **out,
                               struct qd_error *error)
{
    const json_t *word = json_object_get(value, inner);
    if (!json_is_object(value) || json_object_size(value) != 1 || !json_is_string(word))
        return bad_value(key, error);
    *out = json_string_value(word);
    return QD_OK;
}

static enum qd_status take_activation(struct change_state *s, const json_t *value, struct qd_error *error)
{
    const char *word;
    if (one_integer(value, "fake_bits", &s->options.fake_activation_bits))
        return QD_OK;
    if (json_object_get(value, "granularity")) {
        enum qd_status status = only_key("activation", value, "granularity", &word, error);
        return status || qd_granularity_from(word, &s->options.activation_granularity) ? status
                                                                                       : bad_value("activation", error);
    }
    enum qd_status status = only_key("activation", value, "scheme", &word, error);
    return status || qd_scheme_from(word, &s->options.activation_scheme) ? status : bad_value("activation", error);
}

static enum qd_status take_weights(struct change_state *s, const json_t *value, struct qd_error *error)
{
    const char *word;
    if (one_integer(value, "bits", &s->options.weight_bits) ||
        one_integer(value, "fake_bits", &s->options.fake_weight_bits))
        return QD_OK;
    if (json_object_get(value, "scheme")) {
        enum qd_status status = only_key("weights", value, "scheme", &word, error);
        return status || qd_scheme_from(word, &s->options.weight_scheme) ? status : bad_value("weights", error);
    }
    enum qd_status status = only_key("weights", value, "granularity", &word, error);
    return status || qd_granularity_from(word, &s->options.weight_granularity) ? status : bad_value("weights", error);
}

static enum qd_status take_mode(struct change_state *s, const json_t *value, struct qd_error *error)
{
    return json_is_string(value) && qd_mode_from(json_string_value(value), &s->options.mode) ? QD_OK
                                                                                             : bad_value("mode", error);
}

static enum qd_status take_guard(struct change_state *s, const json_t *value, struct qd_error *error)
{
    bool known = json_is_string(value) && qd_guard_from(json_string_value(value), &s->options.guard);
    return known ? QD_OK : bad_value("guard", error);
}

static enum qd_status take_constant(struct change_state *s, const json_t *value, struct qd_error *error)
{
    return take_number(value, "averaging_constant", &s->options.averaging_constant, error);
}

static enum qd_status take_tolerance(struct change_state *s, const json_t *value, struct qd_error *error)
{
    return take_number(value, "guard_tolerance", &s->options.guard_tolerance, error);
}

static enum qd_status take_target(struct change_state *s, const json_t *value, struct qd_error *error)
{
    return take_number(value, "target_cosine", &s->options.target_cosine, error);
}

static enum qd_status take_smoothing(struct change_state *s, const json_t *value, struct qd_error *error)
{
    s->options.smoothing = json_is_true(value);
    if (!s->options.smoothing)
        s->options.smoothed_count = 0; /* turned on again, it is found anew */
    return json_is_boolean(value) ? QD_OK : bad_value("smoothing", error);
}

static enum qd_status take_bias_correction(struct change_state *s, const json_t *value, struct qd_error *error)
{
    s->options.bias_correction = json_is_true(value);
    return json_is_boolean(value) ? QD_OK : bad_value("bias_correction", error);
}

static enum qd_status take_target_db(struct change_state *s, const json_t *value, struct qd_error *error)
{
    return take_number(value, "target_sqnr_db", &s->options.target_sqnr_db, error);
}

static const struct {
    const char *key;
    enum qd_status (*take)(struct change_state *s, const json_t *value, struct qd_error *error);
} keys[] = {
    {"mode", take_mode},
    {"averaging_constant", take_constant},
    {"guard", take_guard},
    {"activation", take_activation},
    {"guard_tolerance", take_tolerance},
    {"precision", take_precision},
    {"weights", take_weights},
    {"target_cosine", take_target},
    {"bias_correction", take_bias_correction},
    {"smoothing", take_smoothing},
    {"target_sqnr_db", take_target_db},
};

static enum qd_status take_key(struct change_state *s, const char *key, const json_t *value, struct qd_error *error)
{
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strcmp(keys[i].key, key) == 0)
            return keys[i].take(s, value, error);
    return qd_fail(error, QD_ERR_INVALID, "'%.60s' is no option that can be changed", key);
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
