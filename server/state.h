/* What models have learned, kept over restarts: a file per model in --state-dir, named after the model and its digest.
 * Written whole beside the old one, then renamed over it. A damaged file is set aside. All [loop], or before it runs.
 */
#ifndef QD_SERVER_STATE_H
#define QD_SERVER_STATE_H

#include "server/repository.h"
#include "server/state_file.h"

#include <jansson.h>
#include <uv.h>

struct qd_state;

/* `directory` must exist; "" keeps nothing. Errors: IO when it can't be written to, NO_MEMORY. */
enum qd_status qd_state_create(uv_loop_t *loop, struct qd_repository *repository, const char *directory,
                               uint32_t interval_s, struct qd_state **out, struct qd_error *error) QD_MUST_CHECK;
/* Every READY model goes on from its file, when there is one. What can't be used is said in one warning. */
void qd_state_restore(struct qd_state *state);
/* Writes what has changed, waits for writes under way, closes its handle with the loop's next turns. */
void qd_state_destroy(struct qd_state **state);

/* Where what is kept of a model lies: NAME-DIGEST<rest>.json; false when that is too long. The model must be there. */
bool qd_state_path(const struct qd_state *state, const struct qd_model_entry *entry, const char *rest,
                   char path[QD_STATE_PATH_BYTES]) QD_MUST_CHECK;
const char *qd_state_directory(const struct qd_state *state);
/* A document as the text of a file, qd_free'd by the caller; NULL: out of memory. [any] */
char *qd_state_text(json_t *document);

/* Files of ranges that were written since the start, and that could not be. */
struct qd_state_saves {
    uint64_t done, failed;
    int64_t last_unix_s; /* 0: none yet */
};

struct qd_state_saves qd_state_saves(const struct qd_state *state);

#endif
