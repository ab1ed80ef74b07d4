/* The timer of once a second. See watch.h. */
#include "server/watch.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/drift.h"
#include "server/history.h"
#include "server/http.h"
#include "server/job.h"
#include "server/request.h"

#include <time.h>

#define TICK_MS 1000
#define WAIT_NS (uint64_t)25000000000 /* below the idle limits of common proxies */

struct waiter {
    struct qd_http_request *request; /* a reference */
    const struct qd_model_entry *entry;
    struct qd_stream_seen seen;
    uint64_t deadline_ns;
};

struct qd_watch {
    uv_timer_t timer;
    struct qd_server *server;
    struct waiter waiters[QD_STREAMS_MAX];
    size_t count;
};

static int64_t unix_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The distance of each tensor from the baseline; crossing the threshold is logged once, either way. */
static void measure_drift(struct qd_model_entry *entry, double threshold, int64_t now_ms)
{
    struct qd_ranges_side from = {.name = NULL}, to = {.name = NULL};
    struct qd_range_pair *pairs = NULL;
    struct qd_error error = {0};
    size_t count = 0;
    const struct qd_snapshot *baseline = qd_snapshots_baseline(entry);
    entry->drift = baseline ? 0 : -1;
    if (baseline && qd_ranges_side(entry, baseline, &from, &error) == QD_OK &&
        qd_ranges_side(entry, NULL, &to, &error) == QD_OK &&
        qd_ranges_compare(&from, &to, &pairs, &count, &error) == QD_OK) {
        for (size_t i = 0; i < count; i++)
            qd_history_mark(entry->history, baseline->created_unix_ms,
                            (pairs[i].from ? pairs[i].from : pairs[i].to)->name, pairs[i].distance > threshold, now_ms);
        entry->drift = count ? pairs[0].distance : 0;
    }
    const bool drifting = entry->drift > threshold;
    if (drifting && !entry->drifting)
        qd_log(QD_LOG_WARNING, "model '%s': the range of tensor '%s' is %.3g widths away from the snapshot '%s'",
               entry->name, pairs[0].from->name, entry->drift, baseline->name);
    else if (!drifting && entry->drifting)
        qd_log(QD_LOG_INFO, "model '%s': the ranges are near the baseline again", entry->name);
    entry->drifting = drifting;
    qd_free(pairs);
    qd_ranges_side_free(&from);
    qd_ranges_side_free(&to);
}

static void answer(struct qd_watch *watch, size_t i)
{
    struct waiter waiter = watch->waiters[i];
    watch->waiters[i] = watch->waiters[--watch->count];
    qd_api_respond_events(waiter.request, waiter.entry, &waiter.seen);
    qd_http_request_unref(&waiter.request);
}

static void on_timer(uv_timer_t *timer)
{
    struct qd_watch *watch = timer->data;
    const int64_t now_ms = unix_ms();
    const uint64_t now_ns = qd_now_ns();
    size_t before = watch->count;
    for (size_t i = 0; i < qd_repository_count(watch->server->repository); i++) {
        struct qd_model_entry *entry = qd_repository_at(watch->server->repository, i);
        if (entry->state != QD_STATE_READY)
            continue;
        qd_history_record(entry, now_ms);
        measure_drift(entry, watch->server->config->drift_threshold, now_ms);
    }
    for (size_t i = watch->count; i-- > 0;) {
        const struct waiter *w = &watch->waiters[i];
        if (!w->request->connection || now_ns >= w->deadline_ns || qd_api_has_events(w->entry, &w->seen))
            answer(watch, i);
    }
    if (before != watch->count)
        qd_http_pump(watch->server->http);
}

enum qd_status qd_watch_create(uv_loop_t *loop, struct qd_server *server, struct qd_watch **out, struct qd_error *error)
{
    struct qd_watch *watch = qd_calloc(1, sizeof *watch);
    if (!watch)
        return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for the server");
    watch->server = server;
    uv_timer_init(loop, &watch->timer);
    watch->timer.data = watch;
    uv_timer_start(&watch->timer, on_timer, TICK_MS, TICK_MS);
    *out = watch;
    return QD_OK;
}

enum qd_status qd_watch_wait(struct qd_watch *watch, struct qd_http_request *request,
                             const struct qd_model_entry *entry, const struct qd_stream_seen *seen,
                             struct qd_error *error)
{
    if (watch->count == QD_STREAMS_MAX)
        return qd_fail(error, QD_ERR_UNAVAILABLE, "%d clients wait for events already", QD_STREAMS_MAX);
    qd_http_request_ref(request);
    watch->waiters[watch->count++] = (struct waiter){
        .request = request, .entry = entry, .seen = *seen, .deadline_ns = qd_now_ns() + WAIT_NS};
    qd_http_suspend(request, NULL);
    return QD_OK;
}

void qd_watch_end_streams(struct qd_watch *watch)
{
    if (!watch || !watch->count)
        return;
    while (watch->count)
        answer(watch, watch->count - 1);
    if (watch->server->http)
        qd_http_pump(watch->server->http);
}

static void on_closed(uv_handle_t *handle) { qd_free(handle->data); }

void qd_watch_destroy(struct qd_watch **watch)
{
    struct qd_watch *w = *watch;
    *watch = NULL;
    if (!w)
        return;
    qd_watch_end_streams(w);
    uv_timer_stop(&w->timer);
    uv_close((uv_handle_t *)&w->timer, on_closed);
}
