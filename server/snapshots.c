/* Snapshots in memory and on the disk. See snapshots.h. */
#include "server/snapshots.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/state_document.h"
#include "server/state_file.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct qd_snapshots {
    struct qd_snapshot items[QD_SNAPSHOTS_MAX];
    size_t count, bytes;
};

bool qd_snapshot_name_valid(const char *name)
{
    return strlen(name) <= QD_SNAPSHOT_NAME_BYTES && qd_model_name_valid(name);
}

size_t qd_snapshots_count(const struct qd_model_entry *entry) { return entry->snapshots ? entry->snapshots->count : 0; }

const struct qd_snapshot *qd_snapshots_at(const struct qd_model_entry *entry, size_t i)
{
    return &entry->snapshots->items[i];
}

const struct qd_snapshot *qd_snapshots_find(const struct qd_model_entry *entry, const char *name)
{
    for (size_t i = 0; i < qd_snapshots_count(entry); i++)
        if (strcmp(entry->snapshots->items[i].name, name) == 0)
            return &entry->snapshots->items[i];
    return NULL;
}

const struct qd_snapshot *qd_snapshots_baseline(const struct qd_model_entry *entry)
{
    const struct qd_snapshot *named = qd_snapshots_find(entry, QD_SNAPSHOT_BASELINE);
    return named || !qd_snapshots_count(entry) ? named : qd_snapshots_at(entry, 0);
}

static enum qd_status has_room(const struct qd_model_entry *entry, const char *name, size_t bytes,
                               struct qd_error *error)
{
    if (qd_snapshots_find(entry, name))
        return qd_fail(error, QD_ERR_CONFLICT, "there is a snapshot named '%.64s' already", name);
    if (qd_snapshots_count(entry) == QD_SNAPSHOTS_MAX)
        return qd_fail(error, QD_ERR_CONFLICT, "there are %d snapshots already, as many as there may be: delete one",
                       QD_SNAPSHOTS_MAX);
    if ((entry->snapshots ? entry->snapshots->bytes : 0) + bytes > QD_SNAPSHOTS_BYTES)
        return qd_fail(error, QD_ERR_CONFLICT, "the snapshots would take more than %zu bytes: delete one",
                       QD_SNAPSHOTS_BYTES);
    return QD_OK;
}

enum qd_status qd_snapshots_make(const struct qd_model_entry *entry, const char *name, json_t **document, char **text,
                                 struct qd_error *error)
{
    struct timespec now;
    *document = NULL;
    *text = NULL;
    if (!qd_snapshot_name_valid(name))
        return qd_fail(error, QD_ERR_INVALID,
                       "'%.64s' is no name of a snapshot: letters, digits, '.', '_' and '-', at most %d, a letter or "
                       "digit first",
                       name, QD_SNAPSHOT_NAME_BYTES);
    enum qd_status status = has_room(entry, name, 0, error);
    if (status)
        return status;
    clock_gettime(CLOCK_REALTIME, &now);
    *document = qd_state_document(entry);
    if (*document && json_object_set_new(*document, "snapshot", json_string(name)) == 0 &&
        json_object_set_new(*document, "created_unix_ms",
                            json_integer((json_int_t)now.tv_sec * 1000 + now.tv_nsec / 1000000)) == 0)
        *text = qd_state_text(*document);
    status = *text ? has_room(entry, name, strlen(*text), error)
                   : qd_fail(error, QD_ERR_NO_MEMORY, "no memory for a snapshot");
    if (status) {
        json_decref(*document);
        qd_free(*text);
        *document = NULL;
        *text = NULL;
    }
    return status;
}

enum qd_status qd_snapshots_add(struct qd_model_entry *entry, json_t *document, size_t bytes, bool persisted,
                                struct qd_error *error)
{
    const char *name = qd_state_document_word(document, "snapshot");
    enum qd_status status = has_room(entry, name, bytes, error);
    if (!status && !entry->snapshots && !(entry->snapshots = qd_calloc(1, sizeof *entry->snapshots)))
        status = qd_fail(error, QD_ERR_NO_MEMORY, "no memory for a snapshot");
    if (status) {
        json_decref(document);
        return status;
    }
    struct qd_snapshots *all = entry->snapshots;
    const int64_t created = (int64_t)qd_state_document_count(document, "created_unix_ms");
    size_t at = all->count++;
    for (; at && all->items[at - 1].created_unix_ms > created; at--)
        all->items[at] = all->items[at - 1];
    all->items[at] = (struct qd_snapshot){
        .created_unix_ms = created, .bytes = bytes, .persisted = persisted, .document = document};
    snprintf(all->items[at].name, sizeof all->items[at].name, "%s", name);
    all->bytes += bytes;
    return QD_OK;
}

void qd_snapshots_remove(struct qd_model_entry *entry, const char *name)
{
    const struct qd_snapshot *found = qd_snapshots_find(entry, name);
    struct qd_snapshots *all = entry->snapshots;
    if (!found)
        return;
    const size_t i = (size_t)(found - all->items);
    all->bytes -= found->bytes;
    json_decref(found->document);
    memmove(all->items + i, all->items + i + 1, (--all->count - i) * sizeof all->items[0]);
}

bool qd_snapshots_path(const struct qd_state *state, const struct qd_model_entry *entry, const char *name,
                       char path[QD_STATE_PATH_BYTES])
{
    char rest[QD_SNAPSHOT_NAME_BYTES + 16];
    snprintf(rest, sizeof rest, "+%.64s", name);
    return qd_state_path(state, entry, rest, path);
}

/* ------------------------------------------------------------------ from the disk */

/* NULL, or what is wrong. */
static const char *take_file(struct qd_model_entry *entry, const char *path, struct qd_error *error)
{
    const char *phrase = NULL;
    char *text = qd_state_file_read(path, &phrase);
    if (!text)
        return phrase;
    const size_t bytes = strlen(text);
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    qd_free(text);
    if (qd_state_document_check(root, entry->model, error)) {
        json_decref(root);
        return error->text;
    }
    if (!qd_snapshot_name_valid(qd_state_document_word(root, "snapshot"))) {
        json_decref(root);
        return "it has no name";
    }
    return qd_snapshots_add(entry, root, bytes, true, error) ? error->text : NULL;
}

/* NAME-DIGEST+SNAPSHOT.json */
static bool is_snapshot(const char *file, const char *prefix)
{
    const size_t n = strlen(file), start = strlen(prefix);
    return n > start + 5 && strncmp(file, prefix, start) == 0 && strcmp(file + n - 5, ".json") == 0;
}

void qd_snapshots_read(const struct qd_state *state, struct qd_model_entry *entry)
{
    char prefix[QD_STATE_PATH_BYTES], path[QD_STATE_PATH_BYTES + 256], what[QD_MODEL_NAME_BYTES + 320];
    if (!qd_state_path(state, entry, "+", prefix))
        return;
    prefix[strlen(prefix) - 5] = 0; /* .json */
    DIR *folder = opendir(qd_state_directory(state));
    for (struct dirent *file; folder && (file = readdir(folder));) {
        struct qd_error error = {0};
        if (!is_snapshot(file->d_name, strrchr(prefix, '/') + 1))
            continue;
        snprintf(path, sizeof path, "%s/%s", qd_state_directory(state), file->d_name);
        const char *phrase = take_file(entry, path, &error);
        snprintf(what, sizeof what, "snapshot '%s' of model '%s'", file->d_name, entry->name);
        if (phrase)
            qd_state_file_set_aside(path, what, phrase);
    }
    if (folder)
        closedir(folder);
    if (qd_snapshots_count(entry))
        qd_log(QD_LOG_INFO, "model '%s' has %zu snapshots", entry->name, qd_snapshots_count(entry));
}

void qd_snapshots_destroy(struct qd_snapshots **snapshots)
{
    struct qd_snapshots *all = *snapshots;
    *snapshots = NULL;
    for (size_t i = 0; all && i < all->count; i++)
        json_decref(all->items[i].document);
    qd_free(all);
}
