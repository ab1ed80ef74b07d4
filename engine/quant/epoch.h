/* Epochs: immutable sets of scale and zero point for all sites of a model, and the learner that publishes them
 * (docs/QUANTIZATION.md, section 4). The learner belongs to one thread [loop]; a published epoch is read by any number.
 */
#ifndef QD_ENGINE_QUANT_EPOCH_H
#define QD_ENGINE_QUANT_EPOCH_H

#include "base/ref.h"
#include "base/status.h"
#include "engine/quant/qparams.h"
#include "engine/quant/range.h"

#include <stddef.h>

struct qd_site_params {
    struct qd_qparams qp;
    double lo, hi; /* the range it was made from, zero included */
    bool ready;    /* false: serve each request by its own range (warm-up, or mode `request`) */
    bool cuts;     /* values outside are cut, whatever the guard */
    bool given;    /* it was not learned */
};

/* A range that was given, not learned: the site is served by it and learns nothing. */
struct qd_given {
    bool set, cuts;
    bool own;             /* each request is served by its own range, whatever the mode */
    bool exact;           /* qp as given; else made from lo and hi by the rules' scheme */
    double lo, hi;        /* zero included; of exact ones: what the integers reach */
    struct qd_qparams qp; /* as carried */
};

/* Biases of a plan's layers with their weights' rounding errors taken out (docs/QUANTIZATION.md, section 4). */
struct qd_biases {
    struct qd_ref ref;
    size_t count;
    float *of[]; /* [count] by step of the plan; NULL: the layer keeps its own. Freed with the object. */
};

/* Without any bias yet; NULL: out of memory. [any] */
struct qd_biases *qd_biases_create(size_t count);
struct qd_biases *qd_biases_ref(struct qd_biases *biases);
void qd_biases_unref(struct qd_biases **biases); /* clears the pointer, which may be NULL */

struct qd_epoch {
    struct qd_ref ref;
    uint64_t id;
    bool frozen;
    struct qd_biases *biases; /* a reference, or NULL */
    size_t site_count;
    struct qd_site_params sites[];
};

struct qd_epoch *qd_epoch_ref(struct qd_epoch *epoch); /* [any] */
void qd_epoch_unref(struct qd_epoch **epoch);          /* [any] clears the pointer */

/* What a rule says of how one site is served; of several the largest counts. */
enum qd_site_mode {
    QD_SITE_AS_ALL, /* nothing */
    QD_SITE_STATIC, /* it learns until it is ready; what it has learned then stays */
    QD_SITE_EMA,
    QD_SITE_REQUEST, /* each request by its own range, also while the learner is frozen */
};

struct qd_learner_site {
    bool wide;      /* carried in 16 bits */
    bool symmetric; /* else: the scheme */
    int bits;       /* and of the integers, 2..8 */
    enum qd_site_mode mode;
    struct qd_given fixed; /* what the model itself gives, where nothing else is */
};

struct qd_learner_rules {
    struct qd_range_rules range;
    double publish_tolerance;            /* share of the width */
    uint32_t min_observations;           /* before a site is ready */
    uint32_t epochs_kept;                /* >= 1 */
    bool always_own_range;               /* mode `request`: no site ever gets ready */
    bool symmetric;                      /* scheme of the sites, where `sites` is NULL: then they learn, in 8 bits */
    const struct qd_learner_site *sites; /* [sites] copied */
};

struct qd_learner;

/* Starts with epoch 1, in which no site is ready. */
enum qd_status qd_learner_create(const struct qd_learner_rules *rules, size_t site_count,
                                 struct qd_learner **out) QD_MUST_CHECK;
void qd_learner_destroy(struct qd_learner **learner);
/* A fresh learner takes ranges that were learned in an earlier run (sites of n = 0: nothing), and the epoch that was in
 * force then: `sites` by their lo, hi and ready, unless a range is given. Errors: NO_MEMORY. */
enum qd_status qd_learner_restore(struct qd_learner *learner, const struct qd_range *ranges,
                                  const struct qd_site_params *sites, const struct qd_given *given, uint64_t epoch,
                                  uint64_t requests, bool frozen) QD_MUST_CHECK;
/* A learner at work takes them, as its next epoch, and goes on from there. `sites` NULL: the epoch is made from the
 * ranges. Errors: NO_MEMORY, then nothing has changed. */
enum qd_status qd_learner_adopt(struct qd_learner *learner, const struct qd_range *ranges,
                                const struct qd_site_params *sites, const struct qd_given *given,
                                bool frozen) QD_MUST_CHECK;
/* A fresh learner goes on where another stands: site i has learned, or was given, what old_site[i] of `old` has (-1:
 * nothing), epochs count on from there, frozen stays frozen; publishes an epoch. An exact scale is made anew from its
 * range when the scheme is another. Errors: NO_MEMORY. */
enum qd_status qd_learner_continue(struct qd_learner *learner, const struct qd_learner *old,
                                   const int *old_site) QD_MUST_CHECK;

/* Folds one request (observations and guard events by site) and publishes a new epoch when a bound moved enough or a
 * site got ready. When memory is out the epoch in force stays and publishing is tried again at the next fold. */
void qd_learner_fold(struct qd_learner *learner, const struct qd_observation *observations, const uint32_t *guarded,
                     int64_t now_unix_ms);
/* A request was served, or rejected by the guard, whose observations are not to be learned; its guard events are
 * counted (NULL: none). */
void qd_learner_skip(struct qd_learner *learner, const uint32_t *guarded);

/* The epoch in force, or the kept one of that id; borrowed, NULL when it is gone. */
struct qd_epoch *qd_learner_current(const struct qd_learner *learner);
struct qd_epoch *qd_learner_find(const struct qd_learner *learner, uint64_t id);
const struct qd_range *qd_learner_range(const struct qd_learner *learner, size_t site);
const struct qd_given *qd_learner_given(const struct qd_learner *learner, size_t site);
/* What was given or, without that, the model's own. */
const struct qd_given *qd_learner_static(const struct qd_learner *learner, size_t site);
/* Replaces what is given, for all sites (set == false: the model's own, or the site goes on learning from where it
 * stands), and publishes an epoch. Errors: NO_MEMORY, then nothing has changed. */
enum qd_status qd_learner_give(struct qd_learner *learner, const struct qd_given *given) QD_MUST_CHECK;
/* Puts biases in force (NULL: each layer's own), a reference of the caller's, and publishes an epoch. Errors:
 * NO_MEMORY, then nothing has changed. */
enum qd_status qd_learner_correct(struct qd_learner *learner, struct qd_biases *biases) QD_MUST_CHECK;
/* The same without an epoch: the next that is published has them. */
void qd_learner_start_with(struct qd_learner *learner, struct qd_biases *biases);
uint64_t qd_learner_requests(const struct qd_learner *learner);
bool qd_learner_frozen(const struct qd_learner *learner);

/* Errors of the four: NO_MEMORY, then nothing has changed. */
enum qd_status qd_learner_reset(struct qd_learner *learner) QD_MUST_CHECK;
/* CONFLICT while one of the first `needed` sites, or every site, has no observation and no given range: there would be
 * nothing to serve it by. The others go on by each request's own range until they are seen. */
enum qd_status qd_learner_freeze(struct qd_learner *learner, size_t needed, size_t *unseen_site) QD_MUST_CHECK;
/* Ranges from outside take the place of what sites have learned (n = 0: that site's stays) and are served at once, as a
 * frozen epoch. Unfrozen, learning goes on from them as from `n` observations. */
struct qd_given_range {
    double lo, hi; /* finite, lo <= hi */
    uint64_t n;
};
enum qd_status qd_learner_set(struct qd_learner *learner, const struct qd_given_range *given) QD_MUST_CHECK;
enum qd_status qd_learner_unfreeze(struct qd_learner *learner) QD_MUST_CHECK;

#endif
