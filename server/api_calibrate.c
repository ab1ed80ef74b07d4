/* POST .../calibrate: representative requests, each answered by how many there were; {"done": true} estimates ranges
 * from all of them and serves these frozen. ?method= and ?percentile= say how; the last one said counts. */
#include "server/api.h"

#include "base/mem.h"
#include "server/job.h"
#include "server/routes.h"
#include "server/serve.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

#define DONE_BODY_BYTES 256 /* longest body that is read as {"done": true} first */

/* The handler's state of one request; freed with the request, which the job keeps alive. */
struct calibrate_state {
    struct qd_job job;
    struct qd_http_request *request;
    struct qd_model_entry *entry;
    struct qd_infer_call *call; /* NULL: done */
    struct qd_calibration *calibration;
    enum qd_method method; /* when done */
    double percentile;
    struct qd_error error; /* of the worker's part */
    enum qd_status status;
};

static void free_state(void *state)
{
    struct calibrate_state *s = state;
    qd_infer_call_destroy(&s->call);
    qd_calibration_unref(&s->calibration);
    qd_free(s);
}

static struct calibrate_state *state_of(struct qd_job *job)
{
    return (struct calibrate_state *)((char *)job - offsetof(struct calibrate_state, job));
}

/* ------------------------------------------------------------------ the request */

static enum qd_status read_query(struct calibrate_state *s, struct qd_error *error)
{
    const char *method = qd_http_query(s->request, "method", 0);
    const char *percentile = qd_http_query(s->request, "percentile", 0);
    struct qd_model_entry *entry = s->entry;
    char *end = NULL;
    if (method && !qd_method_from(method, &s->method))
        return qd_fail(error, QD_ERR_INVALID, "method '%.40s' is none of minmax, ema, percentile, entropy, mse",
                       method);
    if (percentile)
        s->percentile = strtod(percentile, &end);
    if (percentile && (*end || end == percentile || !(s->percentile >= 50 && s->percentile <= 100)))
        return qd_fail(error, QD_ERR_INVALID, "percentile '%.40s' is no number in 50..100", percentile);
    entry->calibration_method = s->method;
    entry->calibration_percentile = s->percentile;
    return QD_OK;
}

static bool says_done(const struct qd_http_request *request)
{
    json_error_t where;
    if (request->body_bytes > DONE_BODY_BYTES || qd_http_header(request, "Inference-Header-Content-Length"))
        return false;
    json_t *body = json_loadb((const char *)request->body, request->body_bytes, JSON_REJECT_DUPLICATES, &where);
    bool done = json_object_size(body) == 1 && json_is_true(json_object_get(body, "done"));
    json_decref(body);
    return done;
}

/* Ends the calibration: later requests begin another one. */
static enum qd_status take_done(struct calibrate_state *s, struct qd_error *error)
{
    if (!s->entry->calibration)
        return qd_fail(error, QD_ERR_CONFLICT, "no request has been calibrated with yet");
    if (s->entry->calibrating)
        return qd_fail(error, QD_ERR_CONFLICT, "%zu calibrating requests are still under way", s->entry->calibrating);
    s->calibration = qd_calibration_ref(s->entry->calibration);
    return QD_OK;
}

static enum qd_status take_request(struct calibrate_state *s, struct qd_error *error)
{
    struct qd_http_request *request = s->request;
    struct qd_infer_framing framing = {
        .header_length = qd_http_header(request, "Inference-Header-Content-Length"),
        .body_bytes = request->body_bytes,
        .body_exact = true,
    };
    enum qd_status status = qd_infer_call_create(s->entry->model, &framing, &s->call, error);
    if (!status)
        status = qd_infer_call_feed(s->call, request->body, request->body_bytes, error);
    if (!status)
        status = qd_infer_call_end(s->call, error);
    if (!status && !s->entry->calibration)
        status = qd_calibration_create(s->entry->model, &s->entry->calibration, error);
    if (status)
        return status;
    s->calibration = qd_calibration_ref(s->entry->calibration);
    return qd_infer_calibrate(qd_infer_call_infer(s->call), s->calibration, error);
}

/* ------------------------------------------------------------------ the job */

static void run_jobs(struct qd_job *const *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct calibrate_state *s = state_of(jobs[i]);
        if (!s->call) {
            s->status = qd_calibration_estimate(s->calibration, s->method, s->percentile, &s->error);
            continue;
        }
        struct qd_infer *infer = qd_infer_call_infer(s->call);
        s->status = qd_infer_prepare(infer, &s->error);
        if (!s->status)
            qd_infer_run(&infer, 1);
    }
}

static void answer(const struct calibrate_state *s, size_t set, size_t unset)
{
    struct qd_ranges_summary summary;
    struct qd_text text = {0};
    qd_model_ranges(s->entry->model, &summary);
    qd_text_puts(&text, "{\"model\":");
    qd_text_json_string(&text, s->entry->name);
    qd_text_printf(&text, ",\"version\":\"" QD_MODEL_VERSION "\",\"method\":\"%s\",\"requests\":%" PRIu64,
                   qd_method_name(s->method), qd_calibration_requests(s->calibration));
    if (!s->call)
        qd_text_printf(&text, ",\"tensors\":%zu,\"left\":%zu", set, unset);
    qd_text_printf(&text, ",\"done\":%s,\"epoch\":%" PRIu64 ",\"frozen\":%s}", s->call ? "false" : "true",
                   summary.epoch, summary.frozen ? "true" : "false");
    qd_api_respond_json(s->request, &text);
}

static void job_done(struct qd_job *job)
{
    struct calibrate_state *s = state_of(job);
    struct qd_http_request *request = s->request;
    size_t set = 0, unset = 0;
    if (s->call)
        s->entry->calibrating--;
    else
        s->entry->estimating = false;
    if (job->outcome != QD_OK)
        s->status = qd_fail(&s->error, job->outcome, "the request was given up before a worker was free");
    if (!s->status && s->call) {
        qd_infer_finish(qd_infer_call_infer(s->call));
        s->status = qd_infer_status(qd_infer_call_infer(s->call), &s->error);
    } else if (!s->status) {
        s->status = qd_calibration_publish(s->calibration, &set, &unset, &s->error);
        if (!s->status)
            qd_calibration_unref(&s->entry->calibration);
    }
    if (s->status)
        qd_http_fail(request, &s->error);
    else
        answer(s, set, unset);
    qd_http_request_unref(&request);
}

void qd_handle_calibrate(struct qd_http_request *request)
{
    struct qd_error error = {0};
    struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    struct calibrate_state *s = entry ? qd_calloc(1, sizeof *s) : NULL;
    if (entry && !s)
        qd_fail(&error, QD_ERR_NO_MEMORY, "out of memory for a request");
    if (!s) {
        qd_http_fail(request, &error);
        return;
    }
    *s = (struct calibrate_state){.request = request,
                                  .entry = entry,
                                  .method = entry->calibration_method,
                                  .percentile = entry->calibration_percentile > 0 ? entry->calibration_percentile
                                                                                  : QD_DEFAULT_PERCENTILE,
                                  .job = {.run = run_jobs, .done = job_done}};
    request->state = s;
    request->state_free = free_state;
    s->job.group = s; /* runs alone */
    enum qd_status status = entry->estimating ? qd_fail(&error, QD_ERR_CONFLICT, "ranges are being estimated just now")
                                              : read_query(s, &error);
    if (!status)
        status = says_done(request) ? take_done(s, &error) : take_request(s, &error);
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
    if (s->call)
        entry->calibrating++;
    else
        entry->estimating = true;
    qd_http_suspend(request, &s->job);
}
