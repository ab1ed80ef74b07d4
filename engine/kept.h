/* What a model has learned, taken out of it and put back: over a restart, from an earlier moment, from other replicas
 * of it. Part of the engine's public header, engine/engine.h. As text: server/state_document.h. Formula of a merge:
 * docs/QUANTIZATION.md, section 8. */
#ifndef QD_ENGINE_KEPT_H
#define QD_ENGINE_KEPT_H

#include "base/status.h"
#include "engine/given.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qd_model;

/* All that one site has learned: what a later run needs to go on from. */
struct qd_range_state {
    const char *name;
    double lo, hi, observed_min, observed_max, last_min, last_max; /* lo, hi: the moving average */
    double epoch_lo, epoch_hi;                                     /* what the epoch in force was made from */
    bool ready;    /* served by the epoch, not by a request's own range */
    bool smoothed; /* of values whose columns were divided: only under the same plan is it that tensor's */
    bool is_given; /* a range was given: ... */
    struct qd_range_given given; /* ... this; its `tensor` is not read */
    uint64_t n, elements, nonfinite, clipped_low, clipped_high, guarded;
    int64_t updated_unix_ms;
};

/* i < summary.sites; n = 0: it has learned nothing. The name lives as long as the plan. */
void qd_model_range_state(const struct qd_model *model, size_t i, struct qd_range_state *out);
/* A model without requests goes on from there, by names of tensors (others are passed over): under the epoch `epoch`
 * when each site is found, under the next one otherwise. Returns through *restored how many sites were found. Errors:
 * NO_MEMORY. */
enum qd_status qd_model_restore(struct qd_model *model, const struct qd_range_state *states, size_t count,
                                uint64_t epoch, uint64_t requests, bool frozen, size_t *restored,
                                struct qd_error *error) QD_MUST_CHECK;
/* A model that serves takes them as well, as a new epoch; sites that are not named keep what they have, and the count
 * of requests goes on. `as_served`: the epoch is made from what the states' epochs were made from, not from their
 * averages, so that its scales are theirs to the byte. Returns through *adopted how many sites were found. Errors:
 * NO_MEMORY, then nothing has changed. [loop] */
enum qd_status qd_model_adopt(struct qd_model *model, const struct qd_range_state *states, size_t count, bool as_served,
                              bool frozen, size_t *adopted, struct qd_error *error) QD_MUST_CHECK;

/* Serves as an epoch did that is still kept, as a new one, and goes on learning from its bounds; the observations stay
 * counted. Errors: CONFLICT (no longer kept, or of another plan), NO_MEMORY, then nothing has changed. [loop] */
enum qd_status qd_model_rollback(struct qd_model *model, uint64_t epoch, struct qd_error *error) QD_MUST_CHECK;

/* One site as several replicas have learned it (equations (14) to (16)): averages weighted by the observations they
 * stand for, at most 1 / averaging_constant each; the widest observed bounds. All else is `own`'s, which is a part only
 * where it stands among them. The sums run in the order of `parts`; those without observations are passed over. [any]
 */
struct qd_range_state qd_range_state_merge(const struct qd_range_state *own, const struct qd_range_state *parts,
                                           size_t count, double averaging_constant);
/* Are its bounds finite floats in their order? What comes from outside has to be asked. [any] */
bool qd_range_state_sound(const struct qd_range_state *state);

#endif
