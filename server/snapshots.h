/* Named snapshots of what models have learned: whole state documents, in memory, and as a file each beside the state
 * when there is a folder for it. Bounded in number and bytes. Not for HTTP (server/api_snapshots.c). [loop] */
#ifndef QD_SERVER_SNAPSHOTS_H
#define QD_SERVER_SNAPSHOTS_H

#include "server/state.h"

#define QD_SNAPSHOT_NAME_BYTES 64
#define QD_SNAPSHOTS_MAX       32                 /* of a model */
#define QD_SNAPSHOTS_BYTES     ((size_t)64 << 20) /* of a model, as text */
#define QD_SNAPSHOT_BASELINE   "baseline"         /* the one that drift is measured from, when it is there */

struct qd_snapshot {
    char name[QD_SNAPSHOT_NAME_BYTES + 1];
    int64_t created_unix_ms;
    size_t bytes;     /* as text */
    bool persisted;   /* there is a file of it */
    json_t *document; /* a state document with "snapshot" and "created_unix_ms" */
};

/* As a model's name, at most 64 bytes. */
bool qd_snapshot_name_valid(const char *name);
size_t qd_snapshots_count(const struct qd_model_entry *entry);
const struct qd_snapshot *qd_snapshots_at(const struct qd_model_entry *entry, size_t i); /* the oldest first */
const struct qd_snapshot *qd_snapshots_find(const struct qd_model_entry *entry, const char *name); /* or NULL */
/* The one named "baseline", else the oldest, else NULL. */
const struct qd_snapshot *qd_snapshots_baseline(const struct qd_model_entry *entry);

/* The document of a snapshot made now and its file's text (qd_free'd by the caller). Errors: INVALID (name), CONFLICT
 * (the name is taken, or there are as many as there may be), NO_MEMORY. */
enum qd_status qd_snapshots_make(const struct qd_model_entry *entry, const char *name, json_t **document, char **text,
                                 struct qd_error *error) QD_MUST_CHECK;
/* Adds it; takes the document over, also when it fails. Errors: CONFLICT, NO_MEMORY. */
enum qd_status qd_snapshots_add(struct qd_model_entry *entry, json_t *document, size_t bytes, bool persisted,
                                struct qd_error *error) QD_MUST_CHECK;
void qd_snapshots_remove(struct qd_model_entry *entry, const char *name);
/* The file of a snapshot; false when the path is too long. */
bool qd_snapshots_path(const struct qd_state *state, const struct qd_model_entry *entry, const char *name,
                       char path[QD_STATE_PATH_BYTES]) QD_MUST_CHECK;
/* Reads all files of a READY model's snapshots; a damaged one is set aside with one warning. Before the loop runs. */
void qd_snapshots_read(const struct qd_state *state, struct qd_model_entry *entry);
void qd_snapshots_destroy(struct qd_snapshots **snapshots); /* clears the pointer, which may be NULL */

#endif
