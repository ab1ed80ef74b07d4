/* Points of tensors' ranges over time. See history.h. */
#include "server/history.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

struct track {
    char *tensor;
    size_t count;
    int64_t left_unix_ms;   /* the baseline; 0: it is within */
    uint32_t every, passed; /* one point of so many is kept; passed over since the last */
    struct qd_history_point points[QD_HISTORY_POINTS];
};

struct qd_history {
    uint64_t epoch, requests; /* at the last record */
    uint32_t plan;
    int64_t baseline_unix_ms;
    struct track **tracks; /* by site of the plan, then those of plans before */
    size_t count;
};

static struct track *track_of(const struct qd_history *history, const char *tensor)
{
    for (size_t i = 0; i < history->count; i++)
        if (strcmp(history->tracks[i]->tensor, tensor) == 0)
            return history->tracks[i];
    return NULL;
}

static struct track *track_new(const char *tensor)
{
    struct track *track = qd_calloc(1, sizeof *track);
    if (track && !(track->tensor = qd_strndup(tensor, strlen(tensor)))) {
        qd_free(track);
        return NULL;
    }
    if (track)
        track->every = 1;
    return track;
}

/* A full track keeps every second of its points, and from now on takes half as many. */
static void add_point(struct track *track, const struct qd_history_point *point)
{
    if (++track->passed < track->every)
        return;
    track->passed = 0;
    if (track->count == QD_HISTORY_POINTS) {
        track->count /= 2;
        for (size_t i = 0; i < track->count; i++)
            track->points[i] = track->points[2 * i];
        track->every *= 2;
    }
    track->points[track->count++] = *point;
}

/* A track for each site of the plan in force; those of sites that it has no more stay. When memory is out some have
 * none. */
static void follow_plan(struct qd_history *history, const struct qd_model *model, size_t sites)
{
    for (size_t i = 0; i < sites && history->count < QD_HISTORY_TENSORS; i++) {
        struct qd_range_report range;
        qd_model_range(model, i, &range);
        if (track_of(history, range.name))
            continue;
        struct track **grown = qd_realloc(history->tracks, history->count + 1, sizeof(struct track *));
        struct track *track = grown ? track_new(range.name) : NULL;
        if (grown)
            history->tracks = grown;
        if (!track)
            return;
        history->tracks[history->count++] = track;
    }
}

void qd_history_record(struct qd_model_entry *entry, int64_t unix_ms)
{
    struct qd_ranges_summary now;
    struct qd_plan_report plan;
    struct qd_range_report range;
    if (entry->state != QD_STATE_READY || (!entry->history && !(entry->history = qd_calloc(1, sizeof *entry->history))))
        return;
    struct qd_history *history = entry->history;
    qd_model_ranges(entry->model, &now);
    if (now.requests == 0 || (now.epoch == history->epoch && now.requests == history->requests))
        return;
    qd_model_plan(entry->model, &plan);
    if (plan.digest != history->plan || history->count == 0)
        follow_plan(history, entry->model, now.sites);
    history->plan = plan.digest;
    history->epoch = now.epoch;
    history->requests = now.requests;
    for (size_t i = 0; i < now.sites; i++) {
        qd_model_range(entry->model, i, &range);
        struct track *track = i < history->count && strcmp(history->tracks[i]->tensor, range.name) == 0
                                  ? history->tracks[i]
                                  : track_of(history, range.name);
        if (!track || range.observations == 0)
            continue;
        const struct qd_history_point point = {unix_ms,        now.epoch,     now.requests, range.last_min,
                                               range.last_max, range.ema_min, range.ema_max};
        add_point(track, &point);
    }
}

size_t qd_history_points(const struct qd_history *history, const char *tensor, const struct qd_history_point **out)
{
    const struct track *track = history ? track_of(history, tensor) : NULL;
    *out = track ? track->points : NULL;
    return track ? track->count : 0;
}

void qd_history_mark(struct qd_history *history, int64_t baseline_unix_ms, const char *tensor, bool left,
                     int64_t unix_ms)
{
    struct track *track = history ? track_of(history, tensor) : NULL;
    if (!track)
        return;
    if (history->baseline_unix_ms != baseline_unix_ms)
        for (size_t i = 0; i < history->count; i++)
            history->tracks[i]->left_unix_ms = 0;
    history->baseline_unix_ms = baseline_unix_ms;
    if (!left)
        track->left_unix_ms = 0;
    else if (!track->left_unix_ms)
        track->left_unix_ms = unix_ms;
}

int64_t qd_history_left_since(const struct qd_history *history, const char *tensor)
{
    const struct track *track = history ? track_of(history, tensor) : NULL;
    return track ? track->left_unix_ms : 0;
}

void qd_history_destroy(struct qd_history **history)
{
    struct qd_history *h = *history;
    *history = NULL;
    for (size_t i = 0; h && i < h->count; i++) {
        qd_free(h->tracks[i]->tensor);
        qd_free(h->tracks[i]);
    }
    if (h)
        qd_free(h->tracks);
    qd_free(h);
}
