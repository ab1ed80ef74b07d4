/* POST .../infer: the body becomes a request of the engine as it arrives, a worker runs it (perhaps together with
 * others of the same model), and the loop folds what it observed, spells the answer and counts. */
#include "server/api.h"

#include "base/mem.h"
#include "server/corrections.h"
#include "server/job.h"
#include "server/routes.h"
#include "server/serve.h"

#include <stdio.h>
#include <string.h>

/* The handler's state of one request; freed with the request, which the job keeps alive. */
struct infer_state {
    struct qd_job job;
    struct qd_http_request *request;
    struct qd_model_entry *entry;
    struct qd_infer_call *call;
    struct qd_error error; /* of the worker's part */
    enum qd_status status;
    uint64_t parse_ns;
};

/* What an answer's bytes lie in, from the moment it is queued until it is sent. */
struct sent_answer {
    struct qd_infer_call *call;
    struct qd_infer_reply reply;
};

static void free_state(void *state)
{
    struct infer_state *s = state;
    qd_infer_call_destroy(&s->call);
    qd_free(s);
}

static void free_answer(void *ctx)
{
    struct sent_answer *answer = ctx;
    qd_infer_reply_free(&answer->reply);
    qd_infer_call_destroy(&answer->call);
    qd_free(answer);
}

/* ------------------------------------------------------------------ counting */

static void count_answer(const struct infer_state *s, int code, const struct qd_request_times *times)
{
    struct qd_metrics *metrics = s->request->server->metrics;
    char model[QD_METRICS_LABEL_BYTES], labels[QD_METRICS_LABEL_BYTES], status[16];
    snprintf(status, sizeof status, "%d", code);
    qd_metrics_labels(labels, "model", s->entry->name, "version", QD_MODEL_VERSION, "code", status, NULL);
    qd_metrics_add(metrics, QD_METRIC_REQUESTS, labels, 1);
    qd_metrics_labels(model, "model", s->entry->name, "version", QD_MODEL_VERSION, NULL);
    qd_metrics_observe(metrics, QD_METRIC_REQUEST_DURATION, model, (double)times->total / 1e9);
    if (code != 200) {
        qd_model_stats_fail(&s->entry->stats, times->total);
        return;
    }
    const struct {
        const char *name;
        uint64_t ns;
    } stages[] = {
        {"parse", times->input}, {"queue", times->queue}, {"infer", times->infer}, {"serialize", times->output}};
    for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++) {
        qd_metrics_labels(labels, "model", s->entry->name, "version", QD_MODEL_VERSION, "stage", stages[i].name, NULL);
        qd_metrics_observe(metrics, QD_METRIC_STAGE_DURATION, labels, (double)stages[i].ns / 1e9);
    }
    if (s->job.first)
        qd_metrics_observe(metrics, QD_METRIC_BATCH_SIZE, model, (double)s->job.joined);
    qd_model_stats_success(&s->entry->stats, qd_infer_call_batch(s->call), s->job.first ? 1 : 0, times);
}

static void count_failure(const struct infer_state *s, enum qd_status status)
{
    struct qd_request_times times = {.total = qd_now_ns() - s->request->started_ns};
    count_answer(s, qd_status_http(status), &times);
}

static void count_rejected(const struct infer_state *s, const char *reason)
{
    char labels[QD_METRICS_LABEL_BYTES];
    qd_metrics_labels(labels, "reason", reason, NULL);
    qd_metrics_add(s->request->server->metrics, QD_METRIC_QUEUE_REJECTED, labels, 1);
}

/* ------------------------------------------------------------------ the body arrives */

enum qd_status qd_infer_begin(struct qd_http_request *request, struct qd_error *error)
{
    struct qd_model_entry *entry = qd_api_ready_model(request, error);
    if (!entry)
        return error->status;
    struct infer_state *s = qd_calloc(1, sizeof *s);
    if (!s)
        return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for a request");
    s->request = request;
    s->entry = entry;
    request->state = s;
    request->state_free = free_state;
    struct qd_infer_framing framing = {
        .header_length = qd_http_header(request, "Inference-Header-Content-Length"),
        .body_bytes = request->content_length >= 0 ? (uint64_t)request->content_length : request->body_limit,
        .body_exact = request->content_length >= 0,
        .nonfinite_tokens = strcmp(request->server->config->json_nonfinite, "token") == 0,
    };
    enum qd_status status = qd_infer_call_create(entry->model, &framing, &s->call, error);
    if (status)
        count_failure(s, status);
    return status;
}

enum qd_status qd_infer_body(struct qd_http_request *request, const void *bytes, size_t n, struct qd_error *error)
{
    struct infer_state *s = request->state;
    uint64_t start = qd_now_ns();
    enum qd_status status = qd_infer_call_feed(s->call, bytes, n, error);
    s->parse_ns += qd_now_ns() - start;
    if (status)
        count_failure(s, status);
    return status;
}

/* ------------------------------------------------------------------ on the worker */

static struct infer_state *state_of(struct qd_job *job)
{
    return (struct infer_state *)((char *)job - offsetof(struct infer_state, job));
}

static void run_jobs(struct qd_job *const *jobs, size_t count)
{
    struct qd_infer *lanes[QD_JOBS_MAX_JOINED];
    size_t n = 0;
    for (size_t i = 0; i < count && i < QD_JOBS_MAX_JOINED; i++) {
        struct infer_state *s = state_of(jobs[i]);
        struct qd_infer *infer = qd_infer_call_infer(s->call);
        s->status = qd_infer_prepare(infer, &s->error);
        if (!s->status)
            lanes[n++] = infer;
    }
    if (n)
        qd_infer_run(lanes, n);
}

/* ------------------------------------------------------------------ back on the loop */

static void fail(struct infer_state *s, struct qd_error *error)
{
    count_failure(s, error->status);
    qd_http_fail(s->request, error);
}

/* Spells the answer and hands its memory, the call included, to the response. */
static void answer(struct infer_state *s)
{
    struct qd_error error = {0};
    struct qd_http_piece pieces[QD_INFER_MAX_TENSORS + 1];
    uint64_t start = qd_now_ns();
    struct sent_answer *sent = qd_calloc(1, sizeof *sent);
    struct qd_http_piece *all = pieces;
    enum qd_status status = sent ? qd_infer_call_encode(s->call, &sent->reply, &error)
                                 : qd_fail(&error, QD_ERR_NO_MEMORY, "out of memory for an answer");
    if (!status && sent->reply.piece_count > QD_INFER_MAX_TENSORS) {
        all = qd_calloc(sent->reply.piece_count + 1, sizeof *all);
        if (!all) {
            qd_infer_reply_free(&sent->reply);
            status = qd_fail(&error, QD_ERR_NO_MEMORY, "out of memory for an answer");
        }
    }
    if (status) {
        qd_free(sent);
        fail(s, &error);
        return;
    }
    const struct qd_infer_reply *reply = &sent->reply;
    all[0] = (struct qd_http_piece){reply->json.bytes, reply->json.length};
    for (size_t i = 0; i < reply->piece_count; i++)
        all[i + 1] = (struct qd_http_piece){reply->pieces[i].bytes, reply->pieces[i].n};
    uint64_t now = qd_now_ns();
    const struct qd_job *job = &s->job;
    struct qd_request_times times = {.total = now - s->request->started_ns,
                                     .queue = job->started_ns - job->queued_ns,
                                     .input = s->parse_ns,
                                     .infer = job->ended_ns - job->started_ns,
                                     .output = now - start};
    count_answer(s, 200, &times);
    char length[QD_NUMBER_TEXT_BYTES];
    size_t count = reply->piece_count + 1;
    bool binary = reply->binary;
    length[qd_format_u64(length, reply->json.length)] = 0;
    sent->call = s->call;
    s->call = NULL;
    qd_http_respond(s->request, 200, binary ? "application/octet-stream" : "application/json", all, count, free_answer,
                    sent);
    if (binary)
        qd_http_respond_header(s->request, "Inference-Header-Content-Length", length);
    if (all != pieces)
        qd_free(all);
}

/* The answer, or the error, once nothing is to be waited for any more. */
static void conclude(void *ctx)
{
    struct infer_state *s = ctx;
    struct qd_http_request *request = s->request;
    if (s->status)
        fail(s, &s->error);
    else
        answer(s);
    qd_http_request_unref(&request);
}

static void job_done(struct qd_job *job)
{
    struct infer_state *s = state_of(job);
    struct qd_http_request *request = s->request;
    bool waits = false;
    if (job->outcome == QD_OK) {
        struct qd_infer *infer = qd_infer_call_infer(s->call);
        qd_infer_finish(infer);
        if (!s->status)
            s->status = qd_infer_status(infer, &s->error);
        if (!s->status)
            qd_api_shadow(request->server, s->entry, infer);
        waits = qd_corrections_check(request->server, s->entry, conclude, s);
    } else {
        count_rejected(s, job->cancelled ? "cancelled" : job->outcome == QD_ERR_DEADLINE ? "deadline" : "stopping");
        s->status = qd_fail(&s->error, job->outcome,
                            job->cancelled                    ? "the client closed its side while the request waited"
                            : job->outcome == QD_ERR_DEADLINE ? "the request's time was over before a worker was free"
                                                              : "the server is stopping");
    }
    if (!waits)
        conclude(s);
}

void qd_handle_infer(struct qd_http_request *request)
{
    struct infer_state *s = request->state;
    struct qd_error error = {0};
    uint64_t start = qd_now_ns();
    enum qd_status status = qd_infer_call_end(s->call, &error);
    uint64_t now = qd_now_ns(), limit_ns = (uint64_t)request->server->config->request_timeout_ms * 1000000u;
    uint64_t timeout_us = qd_infer_call_timeout_us(s->call);
    s->parse_ns += now - start;
    if (status) {
        fail(s, &error);
        return;
    }
    if (timeout_us && timeout_us < limit_ns / 1000)
        limit_ns = timeout_us * 1000;
    s->job = (struct qd_job){
        .group = s->entry->model, .deadline_ns = now + limit_ns, .run = run_jobs, .done = job_done};
    qd_infer_set_deadline(qd_infer_call_infer(s->call), s->job.deadline_ns);
    qd_http_request_ref(request);
    status = qd_jobs_submit(request->server->jobs, &s->job, &error);
    if (status) {
        struct qd_http_request *mine = request;
        count_rejected(s, "full");
        fail(s, &error);
        qd_http_request_unref(&mine);
        return;
    }
    qd_http_suspend(request, &s->job);
}
