/* State files: text is made on the loop, written on a thread of libuv's. */
#include "server/state.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/snapshots.h"
#include "server/state_biases.h"
#include "server/state_document.h"
#include "server/state_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct qd_state {
    struct qd_repository *repository;
    char directory[QD_STATE_PATH_BYTES];
    uv_timer_t timer;
    size_t writing; /* files under way */
    struct qd_state_saves saves;
};

/* One file on its way to the disk. */
struct writing {
    uv_work_t work;
    struct qd_state *state;
    struct qd_model_entry *entry;
    char path[QD_STATE_PATH_BYTES];
    char *text;
    int failure; /* errno */
};

bool qd_state_path(const struct qd_state *state, const struct qd_model_entry *entry, const char *rest,
                   char path[QD_STATE_PATH_BYTES])
{
    int n = snprintf(path, QD_STATE_PATH_BYTES, "%s/%s-%016" PRIx64 "%s.json", state->directory, entry->name,
                     qd_model_digest(entry->model), rest);
    return n > 0 && n < QD_STATE_PATH_BYTES;
}

const char *qd_state_directory(const struct qd_state *state) { return state->directory; }
struct qd_state_saves qd_state_saves(const struct qd_state *state) { return state->saves; }

char *qd_state_text(json_t *document)
{
    char *body = document ? json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    char *text = body ? qd_state_file_seal(body) : NULL;
    free(body);
    return text;
}

/* ------------------------------------------------------------------ to the disk */

static void on_thread(uv_work_t *work)
{
    struct writing *w = work->data;
    w->failure = qd_state_file_write(w->path, w->text);
}

/* A file that can't be written is said once, until one can be written again. */
static void finish(struct writing *w)
{
    struct qd_state_saves *saves = &w->state->saves;
    if (w->failure) {
        if (!w->entry->save_failed)
            qd_log(QD_LOG_WARNING, "the state of model '%s' can't be written: %s", w->entry->name,
                   strerror(w->failure));
        w->entry->saved.any = false; /* so that it is tried again */
        saves->failed++;
    } else {
        saves->done++;
        saves->last_unix_s = (int64_t)time(NULL);
    }
    w->entry->save_failed = w->failure != 0;
    w->entry->saving = false;
    qd_free(w->text);
    qd_free(w);
}

static void on_written(uv_work_t *work, int status)
{
    struct writing *w = work->data;
    (void)status;
    w->state->writing--;
    finish(w);
}

/* Has anything happened since it was written? */
static bool changed(struct qd_model_entry *entry)
{
    struct qd_ranges_summary now;
    struct qd_plan_report plan;
    qd_model_ranges(entry->model, &now);
    qd_model_plan(entry->model, &plan);
    const struct qd_saved saved = {now.epoch, now.requests, plan.digest, true};
    bool same = entry->saved.any && entry->saved.epoch == saved.epoch && entry->saved.requests == saved.requests &&
                entry->saved.plan == saved.plan;
    entry->saved = saved;
    return !same;
}

static char *text_of(const struct qd_model_entry *entry)
{
    json_t *document = qd_state_document(entry);
    char *text = qd_state_text(document);
    json_decref(document);
    return text;
}

static void save(struct qd_state *state, struct qd_model_entry *entry, bool wait)
{
    if (entry->state != QD_STATE_READY || entry->saving || !changed(entry))
        return;
    struct writing *w = qd_calloc(1, sizeof *w);
    if (!w || !(w->text = text_of(entry)) || !qd_state_path(state, entry, "", w->path)) {
        qd_log(QD_LOG_WARNING, "the state of model '%s' can't be written: no memory", entry->name);
        qd_free(w ? w->text : NULL);
        qd_free(w);
        return;
    }
    w->state = state;
    w->entry = entry;
    w->work.data = w;
    entry->saving = true;
    if (!wait && uv_queue_work(state->timer.loop, &w->work, on_thread, on_written) == 0) {
        state->writing++;
        return;
    }
    w->failure = qd_state_file_write(w->path, w->text);
    finish(w);
}

static void on_timer(uv_timer_t *timer)
{
    struct qd_state *state = timer->data;
    for (size_t i = 0; i < qd_repository_count(state->repository); i++)
        save(state, qd_repository_at(state->repository, i), false);
}

/* ------------------------------------------------------------------ from the disk */

/* The plan of the file, unless the model has it already. */
static enum qd_status restore_plan(struct qd_model_entry *entry, const json_t *root, struct qd_error *error)
{
    struct qd_change *change = NULL;
    const bool same = qd_state_document_has_plan(entry->model, root) &&
                      json_object_size(json_object_get(root, "options")) == 0 &&
                      json_array_size(json_object_get(root, "pins")) == 0 &&
                      json_array_size(json_object_get(root, "rules")) == 0 &&
                      json_array_size(json_object_get(root, "smoothed")) == 0 &&
                      json_array_size(json_object_get(root, "accurate")) == 0;
    if (same)
        return QD_OK;
    enum qd_status status = qd_state_document_change(entry->model, &entry->base, root, &change, error);
    if (!status)
        status = qd_change_adopt(&change, error);
    qd_change_discard(&change);
    return status;
}

static enum qd_status restore(struct qd_model_entry *entry, const json_t *root, struct qd_error *error)
{
    const uint64_t epoch = qd_state_document_count(root, "epoch");
    struct qd_range_state *ranges = NULL;
    size_t n = 0, restored = 0;
    enum qd_status status = qd_state_document_check(root, entry->model, error);
    if (!status)
        status = restore_plan(entry, root, error);
    if (!status)
        status = qd_state_document_ranges(root, &ranges, &n, error);
    if (!status)
        status = qd_state_biases_restore(entry->model, json_object_get(root, "biases"),
                                         qd_state_document_has_plan(entry->model, root), error);
    if (!status)
        status = qd_model_restore(entry->model, ranges, n, epoch, qd_state_document_count(root, "requests"),
                                  json_is_true(json_object_get(root, "frozen")), &restored, error);
    if (!status) {
        qd_state_document_merged(root, entry);
        qd_log(QD_LOG_INFO, "model '%s' goes on from epoch %" PRIu64 ": %zu ranges", entry->name, epoch, restored);
    }
    qd_free(ranges);
    return status;
}

void qd_state_restore(struct qd_state *state)
{
    for (size_t i = 0; state && i < qd_repository_count(state->repository); i++) {
        struct qd_model_entry *entry = qd_repository_at(state->repository, i);
        struct qd_error error = {0};
        char path[QD_STATE_PATH_BYTES], what[QD_MODEL_NAME_BYTES + 32];
        const char *phrase = NULL;
        if (entry->state != QD_STATE_READY || !qd_state_path(state, entry, "", path))
            continue;
        char *text = qd_state_file_read(path, &phrase);
        json_t *root = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
        if (text && restore(entry, root, &error))
            phrase = error.text;
        else if (text)
            phrase = NULL;
        snprintf(what, sizeof what, "state of model '%s'", entry->name);
        if (phrase)
            qd_state_file_set_aside(path, what, phrase);
        json_decref(root);
        qd_free(text);
        (void)changed(entry);
        qd_snapshots_read(state, entry);
    }
}

/* ------------------------------------------------------------------ life */

enum qd_status qd_state_create(uv_loop_t *loop, struct qd_repository *repository, const char *directory,
                               uint32_t interval_s, struct qd_state **out, struct qd_error *error)
{
    *out = NULL;
    if (!*directory)
        return QD_OK;
    if (strlen(directory) >= QD_STATE_PATH_BYTES - QD_MODEL_NAME_BYTES - QD_SNAPSHOT_NAME_BYTES - 64 ||
        access(directory, W_OK | X_OK) != 0)
        return qd_fail(error, QD_ERR_IO, "state_dir '%.200s' can't be written to: %s", directory, strerror(errno));
    struct qd_state *state = qd_calloc(1, sizeof *state);
    if (!state)
        return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for the models' state");
    state->repository = repository;
    snprintf(state->directory, sizeof state->directory, "%s", directory);
    uv_timer_init(loop, &state->timer);
    state->timer.data = state;
    uv_timer_start(&state->timer, on_timer, (uint64_t)interval_s * 1000, (uint64_t)interval_s * 1000);
    *out = state;
    return QD_OK;
}

static void on_closed(uv_handle_t *handle) { qd_free(handle->data); }

void qd_state_destroy(struct qd_state **state)
{
    struct qd_state *s = *state;
    *state = NULL;
    if (!s)
        return;
    uv_timer_stop(&s->timer);
    while (s->writing)
        uv_run(s->timer.loop, UV_RUN_ONCE);
    for (size_t i = 0; i < qd_repository_count(s->repository); i++)
        save(s, qd_repository_at(s->repository, i), true);
    uv_close((uv_handle_t *)&s->timer, on_closed);
}
