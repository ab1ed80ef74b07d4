/* GET .../ranges/stream, as server-sent events, and .../ranges/{tensor}/history. A stream is a chain of answers: each
 * waits until there is something new, tells it and ends; a client of server-sent events asks again by itself, a second
 * later, with the id of the last event. So no answer has an unknown end, and no connection holds a buffer. */
#include "server/api.h"

#include "server/history.h"
#include "server/routes.h"
#include "server/watch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define EVENTS_TYPE "text/event-stream"
#define RETRY_MS    1000

/* ------------------------------------------------------------------ the stream */

bool qd_api_has_events(const struct qd_model_entry *entry, const struct qd_stream_seen *seen)
{
    struct qd_ranges_summary now;
    qd_model_ranges(entry->model, &now);
    return now.epoch != seen->epoch || (!seen->epochs_only && now.requests != seen->requests);
}

static void write_epoch(struct qd_text *out, const struct qd_model_entry *entry, const struct qd_ranges_summary *now,
                        uint64_t seen)
{
    struct qd_plan_report plan;
    struct qd_range_report range;
    uint64_t guarded = 0;
    qd_model_plan(entry->model, &plan);
    for (size_t i = 0; i < now->sites; i++) {
        qd_model_range(entry->model, i, &range);
        guarded += range.guarded;
    }
    qd_text_puts(out, "event: epoch\ndata: {\"model\":");
    qd_text_json_string(out, entry->name);
    qd_text_printf(out,
                   ",\"epoch\":%" PRIu64 ",\"published\":%" PRIu64 ",\"requests\":%" PRIu64
                   ",\"frozen\":%s,\"plan\":\"%08" PRIx32 "\",\"guarded\":%" PRIu64 "}\n\n",
                   now->epoch, seen && now->epoch > seen ? now->epoch - seen : 1, now->requests,
                   now->frozen ? "true" : "false", plan.digest, guarded);
}

void qd_api_respond_events(struct qd_http_request *request, const struct qd_model_entry *entry,
                           const struct qd_stream_seen *seen)
{
    static const struct qd_api_filter all = {.count = 0};
    struct qd_ranges_summary now;
    struct qd_text text = {0};
    qd_model_ranges(entry->model, &now);
    qd_text_printf(&text, "retry: %d\nid: %" PRIu64 "-%" PRIu64 "\n", RETRY_MS, now.epoch, now.requests);
    if (now.epoch != seen->epoch)
        write_epoch(&text, entry, &now, seen->epoch);
    if (!seen->epochs_only && now.requests != seen->requests) {
        qd_text_puts(&text, "event: ranges\ndata: ");
        qd_api_write_ranges(&text, entry, &all);
        qd_text_puts(&text, "\n\n");
    }
    if (!qd_api_has_events(entry, seen))
        qd_text_puts(&text, ": nothing new\n\n");
    qd_api_respond(request, 200, EVENTS_TYPE, &text);
    qd_http_respond_header(request, "Cache-Control", "no-store");
}

/* "EPOCH-REQUESTS" of the last event, or nothing seen yet. */
static enum qd_status read_seen(const struct qd_http_request *request, struct qd_stream_seen *seen,
                                struct qd_error *error)
{
    const char *id = qd_http_header(request, "Last-Event-ID"), *events = qd_http_query(request, "events", 0);
    char rest;
    *seen = (struct qd_stream_seen){.epochs_only = events && strcmp(events, "epoch") == 0};
    if (events && !seen->epochs_only && strcmp(events, "all") != 0)
        return qd_fail(error, QD_ERR_INVALID, "events must be epoch or all, not '%.40s'", events);
    if (!id)
        id = qd_http_query(request, "last_event_id", 0);
    if (id && sscanf(id, "%" SCNu64 "-%" SCNu64 "%c", &seen->epoch, &seen->requests, &rest) != 2)
        return qd_fail(error, QD_ERR_INVALID, "'%.40s' is no id of an event", id);
    return QD_OK;
}

void qd_handle_stream(struct qd_http_request *request)
{
    struct qd_error error = {0};
    struct qd_stream_seen seen;
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    enum qd_status status = entry ? read_seen(request, &seen, &error) : error.status;
    if (!status && (qd_api_has_events(entry, &seen) || request->server->draining))
        qd_api_respond_events(request, entry, &seen);
    else if (!status)
        status = qd_watch_wait(request->server->watch, request, entry, &seen, &error);
    if (status)
        qd_http_fail(request, &error);
}

/* ------------------------------------------------------------------ history */

void qd_handle_history(struct qd_http_request *request)
{
    struct qd_error error = {0};
    struct qd_text text = {0};
    const struct qd_history_point *points;
    const struct qd_api_filter filter = {.tensors = {qd_http_param(request, "tensor")}, .count = 1};
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    if (!entry || qd_api_check_filter(entry->model, &filter, &error)) {
        qd_http_fail(request, &error);
        return;
    }
    const size_t count = qd_history_points(entry->history, filter.tensors[0], &points);
    qd_text_puts(&text, "{\"model\":");
    qd_text_json_string(&text, entry->name);
    qd_text_puts(&text, ",\"version\":\"" QD_MODEL_VERSION "\",\"tensor\":");
    qd_text_json_string(&text, filter.tensors[0]);
    qd_text_puts(&text, ",\"points\":[");
    for (size_t i = 0; i < count; i++) {
        const struct qd_history_point *p = &points[i];
        const double numbers[] = {p->min, p->max, p->ema_min, p->ema_max};
        static const char *const names[] = {"min", "max", "ema_min", "ema_max"};
        qd_text_puts(&text, i ? ",{\"time\":" : "{\"time\":");
        qd_text_json_time(&text, p->unix_ms);
        qd_text_printf(&text, ",\"epoch\":%" PRIu64 ",\"requests\":%" PRIu64, p->epoch, p->requests);
        for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++) {
            qd_text_printf(&text, ",\"%s\":", names[k]);
            qd_text_json_double(&text, numbers[k]);
        }
        qd_text_puts(&text, "}");
    }
    qd_text_puts(&text, "]}");
    qd_api_respond_json(request, &text);
}
