/* How far a model's ranges are from those of a snapshot, or two snapshots from each other, tensor by tensor. Arithmetic
 * only: equation (13) of docs/QUANTIZATION.md, section 8. [loop] */
#ifndef QD_SERVER_DRIFT_H
#define QD_SERVER_DRIFT_H

#include "server/snapshots.h"

/* One side of a comparison. Strings are the document's, or the plan's. */
struct qd_ranges_side {
    const char *name; /* of the snapshot; NULL: now */
    uint64_t epoch, requests;
    char plan[12];
    struct qd_range_state *ranges; /* owned */
    size_t count;
    const json_t *document; /* NULL: now */
};

/* `snapshot` NULL: the model as it stands. Errors: NO_MEMORY. */
enum qd_status qd_ranges_side(const struct qd_model_entry *entry, const struct qd_snapshot *snapshot,
                              struct qd_ranges_side *out, struct qd_error *error) QD_MUST_CHECK;
void qd_ranges_side_free(struct qd_ranges_side *side);

/* One tensor on both sides; NULL where it has learned nothing and was given nothing. */
struct qd_range_pair {
    const struct qd_range_state *from, *to;
    double distance; /* 0 unless both are there and of the same values */
    bool other;      /* smoothed under one plan and not, or otherwise, under the other: not the same values */
};

/* Largest distance first, then by name; *out is qd_free'd by the caller. Errors: NO_MEMORY. */
enum qd_status qd_ranges_compare(const struct qd_ranges_side *from, const struct qd_ranges_side *to,
                                 struct qd_range_pair **out, size_t *count, struct qd_error *error) QD_MUST_CHECK;
/* The bounds that count: the given ones, else the moving average. */
void qd_range_bounds(const struct qd_range_state *range, double *lo, double *hi);
/* The larger of both bounds' moves, in widths of the first range, zero included (a range of no width: 0 or 1). */
double qd_range_distance(const struct qd_range_state *from, const struct qd_range_state *to);

#endif
