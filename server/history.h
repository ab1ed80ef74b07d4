/* How a model's ranges moved: a ring of points for each tensor, thinned out as it fills, so that it spans the whole
 * life of the model in bounded memory; and since when tensors have left the baseline. [loop] */
#ifndef QD_SERVER_HISTORY_H
#define QD_SERVER_HISTORY_H

#include "server/repository.h"

#define QD_HISTORY_POINTS  128
#define QD_HISTORY_TENSORS 4096 /* of one model; others have no history */

struct qd_history_point {
    int64_t unix_ms;
    uint64_t epoch, requests;
    double min, max, ema_min, ema_max; /* of the last request, and the moving average */
};

/* Adds a point to each tensor when the model has changed since the last one. Call it at most once a second. */
void qd_history_record(struct qd_model_entry *entry, int64_t unix_ms);
/* The points of a tensor, the oldest first; 0: none. Valid until the next record. */
size_t qd_history_points(const struct qd_history *history, const char *tensor, const struct qd_history_point **out);
/* Has a tensor left the baseline, which is known by when it was made? Times are forgotten when it is another one. */
void qd_history_mark(struct qd_history *history, int64_t baseline_unix_ms, const char *tensor, bool left,
                     int64_t unix_ms);
/* Since when it has left it; 0: it has not, or nobody knows. */
int64_t qd_history_left_since(const struct qd_history *history, const char *tensor);
void qd_history_destroy(struct qd_history **history); /* clears the pointer, which may be NULL */

#endif
