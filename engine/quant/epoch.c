/* Epochs and the learner. */
#include "engine/quant/epoch.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

struct qd_learner {
    struct qd_learner_rules rules;
    size_t site_count;
    struct qd_range *ranges;       /* [site_count] */
    struct qd_given *given;        /* [site_count] */
    struct qd_learner_site *sites; /* [site_count] */
    struct qd_epoch **kept;        /* ring of rules.epochs_kept; epoch `id` lies at id % epochs_kept */
    uint64_t newest, requests;
    bool frozen;
    struct qd_biases *biases; /* a reference, or NULL */
};

struct qd_biases *qd_biases_create(size_t count)
{
    size_t bytes;
    if (!qd_size_mul(count, sizeof(float *), &bytes) || !qd_size_add(bytes, sizeof(struct qd_biases), &bytes))
        return NULL;
    struct qd_biases *biases = qd_calloc(1, bytes);
    if (biases) {
        qd_ref_init(&biases->ref);
        biases->count = count;
    }
    return biases;
}

struct qd_biases *qd_biases_ref(struct qd_biases *biases)
{
    qd_ref_take(&biases->ref);
    return biases;
}

void qd_biases_unref(struct qd_biases **biases)
{
    struct qd_biases *b = *biases;
    *biases = NULL;
    if (!b || !qd_ref_drop(&b->ref))
        return;
    for (size_t i = 0; i < b->count; i++)
        qd_free(b->of[i]);
    qd_free(b);
}

struct qd_epoch *qd_epoch_ref(struct qd_epoch *epoch)
{
    qd_ref_take(&epoch->ref);
    return epoch;
}

void qd_epoch_unref(struct qd_epoch **epoch)
{
    if (*epoch && qd_ref_drop(&(*epoch)->ref)) {
        qd_biases_unref(&(*epoch)->biases);
        qd_free(*epoch);
    }
    *epoch = NULL;
}

/* Ours, or the other library's where it has one. Zero included: that changes none of them. */
static struct qd_qparams scale_of(const struct qd_learner *learner, size_t site, double lo, double hi)
{
    const struct qd_learner_site *at = &learner->sites[site];
    struct qd_observer_rules other = learner->rules.range.observer;
    struct qd_observer observer = {(float)lo, (float)hi};
    struct qd_qparams qp;
    if (at->wide)
        return qd_qparams_from_range_s16(lo, hi);
    other.symmetric = at->symmetric;
    if (at->bits != 8 || other.compat == QD_COMPAT_QUANTD || !qd_observer_qparams(&observer, &other, &qp))
        qp = qd_qparams_from_range_bits(lo, hi, at->symmetric, at->bits);
    return qp;
}

static struct qd_site_params given_params(const struct qd_learner *learner, size_t site, const struct qd_given *given)
{
    return (struct qd_site_params){
        .qp = given->exact && !learner->sites[site].wide && learner->sites[site].bits == 8
                  ? given->qp
                  : scale_of(learner, site, given->lo, given->hi),
        .lo = given->lo < 0 ? given->lo : 0,
        .hi = given->hi > 0 ? given->hi : 0,
        .ready = !given->own,
        .cuts = given->cuts,
        .given = true,
    };
}

/* Is each request served by its own range, whatever the site has learned? */
static bool own_range(const struct qd_learner *learner, size_t i, bool frozen)
{
    const enum qd_site_mode mode = learner->sites[i].mode;
    return mode == QD_SITE_REQUEST || (mode == QD_SITE_AS_ALL && learner->rules.always_own_range && !frozen);
}

static struct qd_site_params site_params(const struct qd_learner *learner, size_t i, bool frozen)
{
    const struct qd_range *range = &learner->ranges[i];
    const struct qd_given *given = qd_learner_static(learner, i);
    if (given->set)
        return given_params(learner, i, given);
    struct qd_site_params site = {.qp = scale_of(learner, i, 0, 0)};
    if (range->n == 0)
        return site;
    site.lo = range->lo < 0 ? range->lo : 0;
    site.hi = range->hi > 0 ? range->hi : 0;
    site.qp = scale_of(learner, i, site.lo, site.hi);
    site.ready = (frozen || range->n >= learner->rules.min_observations) && !own_range(learner, i, frozen);
    return site;
}

static enum qd_status publish(struct qd_learner *learner, bool frozen)
{
    size_t bytes;
    if (!qd_size_mul(learner->site_count, sizeof(struct qd_site_params), &bytes) ||
        !qd_size_add(bytes, sizeof(struct qd_epoch), &bytes))
        return QD_ERR_NO_MEMORY;
    struct qd_epoch *epoch = qd_calloc(1, bytes);
    if (!epoch)
        return QD_ERR_NO_MEMORY;
    qd_ref_init(&epoch->ref);
    epoch->id = ++learner->newest;
    epoch->frozen = frozen;
    epoch->site_count = learner->site_count;
    epoch->biases = learner->biases ? qd_biases_ref(learner->biases) : NULL;
    for (size_t i = 0; i < learner->site_count; i++)
        epoch->sites[i] = site_params(learner, i, frozen);

    struct qd_epoch **slot = &learner->kept[epoch->id % learner->rules.epochs_kept];
    qd_epoch_unref(slot);
    *slot = epoch;
    learner->frozen = frozen;
    return QD_OK;
}

enum qd_status qd_learner_create(const struct qd_learner_rules *rules, size_t site_count, struct qd_learner **out)
{
    enum qd_status status = QD_ERR_NO_MEMORY;
    struct qd_learner *learner = qd_calloc(1, sizeof *learner);
    if (!learner)
        return status;
    learner->rules = *rules;
    learner->site_count = site_count;
    learner->ranges = qd_calloc(site_count, sizeof *learner->ranges);
    learner->given = qd_calloc(site_count, sizeof *learner->given);
    learner->sites = qd_calloc(site_count, sizeof *learner->sites);
    learner->kept = qd_calloc(rules->epochs_kept, sizeof(struct qd_epoch *));
    if (!learner->ranges || !learner->given || !learner->sites || !learner->kept)
        goto fail;
    for (size_t i = 0; i < site_count; i++)
        learner->sites[i] = rules->sites ? rules->sites[i]
                                         : (struct qd_learner_site){.bits = 8, .symmetric = rules->symmetric};
    learner->rules.sites = NULL; /* the caller's */
    status = publish(learner, false);
    if (status)
        goto fail;
    *out = learner;
    return QD_OK;
fail:
    qd_learner_destroy(&learner);
    return status;
}

void qd_learner_destroy(struct qd_learner **learner)
{
    if (!*learner)
        return;
    for (uint32_t i = 0; (*learner)->kept && i < (*learner)->rules.epochs_kept; i++)
        qd_epoch_unref(&(*learner)->kept[i]);
    qd_free((*learner)->kept);
    qd_free((*learner)->given);
    qd_free((*learner)->sites);
    qd_free((*learner)->ranges);
    qd_biases_unref(&(*learner)->biases);
    qd_free(*learner);
    *learner = NULL;
}

enum qd_status qd_learner_continue(struct qd_learner *learner, const struct qd_learner *old, const int *old_site)
{
    for (size_t i = 0; i < learner->site_count; i++)
        if (old_site[i] >= 0) {
            learner->ranges[i] = old->ranges[old_site[i]];
            learner->given[i] = old->given[old_site[i]];
            learner->given[i].exact &= learner->sites[i].symmetric == old->sites[old_site[i]].symmetric;
        }
    for (uint32_t i = 0; i < learner->rules.epochs_kept; i++)
        qd_epoch_unref(&learner->kept[i]);
    learner->newest = old->newest;
    learner->requests = old->requests;
    return publish(learner, old->frozen);
}

/* The epoch just published, which nobody has read yet, serves sites by ranges of another epoch. */
static void serve_by(struct qd_learner *learner, const struct qd_site_params *sites)
{
    struct qd_epoch *now = qd_learner_current(learner);
    for (size_t i = 0; i < learner->site_count; i++) {
        if (qd_learner_static(learner, i)->set)
            continue;
        now->sites[i] = sites[i];
        now->sites[i].ready &= learner->sites[i].mode != QD_SITE_REQUEST;
        now->sites[i].qp = scale_of(learner, i, sites[i].lo, sites[i].hi);
    }
}

enum qd_status qd_learner_restore(struct qd_learner *learner, const struct qd_range *ranges,
                                  const struct qd_site_params *sites, const struct qd_given *given, uint64_t epoch,
                                  uint64_t requests, bool frozen)
{
    memcpy(learner->ranges, ranges, learner->site_count * sizeof *ranges);
    memcpy(learner->given, given, learner->site_count * sizeof *given);
    for (uint32_t i = 0; i < learner->rules.epochs_kept; i++)
        qd_epoch_unref(&learner->kept[i]);
    learner->newest = epoch - 1;
    learner->requests = requests;
    enum qd_status status = publish(learner, frozen);
    if (!status)
        serve_by(learner, sites);
    return status;
}

enum qd_status qd_learner_adopt(struct qd_learner *learner, const struct qd_range *ranges,
                                const struct qd_site_params *sites, const struct qd_given *given, bool frozen)
{
    struct qd_range *old_ranges = learner->ranges, *mine = qd_calloc(learner->site_count, sizeof *mine);
    struct qd_given *old_given = learner->given, *my_given = qd_calloc(learner->site_count, sizeof *my_given);
    enum qd_status status = QD_ERR_NO_MEMORY;
    if (mine && my_given) {
        memcpy(mine, ranges, learner->site_count * sizeof *mine);
        memcpy(my_given, given, learner->site_count * sizeof *my_given);
        learner->ranges = mine;
        learner->given = my_given;
        status = publish(learner, frozen);
    }
    if (status) {
        learner->ranges = old_ranges;
        learner->given = old_given;
        qd_free(mine);
        qd_free(my_given);
        return status;
    }
    qd_free(old_ranges);
    qd_free(old_given);
    if (sites)
        serve_by(learner, sites);
    return QD_OK;
}

/* Has the range left what the epoch in force was made from, or has the site just warmed up? */
static bool moved(const struct qd_learner *learner, size_t i, const struct qd_site_params *now)
{
    const struct qd_range *range = &learner->ranges[i];
    if (range->n == 0 || own_range(learner, i, false))
        return false;
    if (!now->ready)
        return range->n >= learner->rules.min_observations;
    double lo = range->lo < 0 ? range->lo : 0, hi = range->hi > 0 ? range->hi : 0;
    double tolerance = learner->rules.publish_tolerance * (now->hi - now->lo);
    return fabs(lo - now->lo) > tolerance || fabs(hi - now->hi) > tolerance;
}

void qd_learner_fold(struct qd_learner *learner, const struct qd_observation *observations, const uint32_t *guarded,
                     int64_t now_unix_ms)
{
    learner->requests++;
    const struct qd_epoch *epoch = qd_learner_current(learner);
    bool changed = false;
    for (size_t i = 0; i < learner->site_count; i++) {
        const bool stays = learner->sites[i].mode == QD_SITE_STATIC && epoch->sites[i].ready;
        if (learner->frozen || stays || qd_learner_static(learner, i)->set) {
            qd_range_count(&learner->ranges[i], &observations[i], guarded[i], now_unix_ms);
            continue;
        }
        qd_range_fold(&learner->ranges[i], &learner->rules.range, &observations[i], guarded[i], now_unix_ms);
        changed |= moved(learner, i, &epoch->sites[i]);
    }
    if (changed && publish(learner, false) != QD_OK)
        return; /* the epoch in force stays; `moved` will be true again */
}

void qd_learner_skip(struct qd_learner *learner, const uint32_t *guarded)
{
    learner->requests++;
    for (size_t i = 0; guarded && i < learner->site_count; i++)
        learner->ranges[i].guarded += guarded[i];
}

struct qd_epoch *qd_learner_find(const struct qd_learner *learner, uint64_t id)
{
    struct qd_epoch *epoch = learner->kept[id % learner->rules.epochs_kept];
    return epoch && epoch->id == id ? epoch : NULL;
}

struct qd_epoch *qd_learner_current(const struct qd_learner *learner)
{
    return qd_learner_find(learner, learner->newest);
}
const struct qd_range *qd_learner_range(const struct qd_learner *learner, size_t site)
{
    return &learner->ranges[site];
}

const struct qd_given *qd_learner_given(const struct qd_learner *learner, size_t site) { return &learner->given[site]; }

const struct qd_given *qd_learner_static(const struct qd_learner *learner, size_t site)
{
    return learner->given[site].set ? &learner->given[site] : &learner->sites[site].fixed;
}

enum qd_status qd_learner_give(struct qd_learner *learner, const struct qd_given *given)
{
    struct qd_given *mine = qd_calloc(learner->site_count, sizeof *mine), *old = learner->given;
    if (!mine)
        return QD_ERR_NO_MEMORY;
    memcpy(mine, given, learner->site_count * sizeof *mine);
    learner->given = mine;
    enum qd_status status = publish(learner, learner->frozen);
    if (status)
        learner->given = old;
    qd_free(status ? mine : old);
    return status;
}

enum qd_status qd_learner_correct(struct qd_learner *learner, struct qd_biases *biases)
{
    struct qd_biases *old = learner->biases;
    learner->biases = biases;
    enum qd_status status = publish(learner, learner->frozen);
    if (status)
        learner->biases = old;
    else
        qd_biases_unref(&old);
    return status;
}

void qd_learner_start_with(struct qd_learner *learner, struct qd_biases *biases)
{
    qd_biases_unref(&learner->biases);
    learner->biases = biases;
}

uint64_t qd_learner_requests(const struct qd_learner *learner) { return learner->requests; }
bool qd_learner_frozen(const struct qd_learner *learner) { return learner->frozen; }

enum qd_status qd_learner_reset(struct qd_learner *learner)
{
    struct qd_range *empty = qd_calloc(learner->site_count, sizeof *empty), *old = learner->ranges;
    struct qd_biases *biases = learner->biases;
    if (!empty)
        return QD_ERR_NO_MEMORY;
    learner->ranges = empty;
    learner->biases = NULL;
    enum qd_status status = publish(learner, false);
    if (status) {
        learner->ranges = old;
        learner->biases = biases;
        qd_free(empty);
        return status;
    }
    learner->requests = 0;
    qd_biases_unref(&biases);
    qd_free(old);
    return QD_OK;
}

enum qd_status qd_learner_set(struct qd_learner *learner, const struct qd_given_range *given)
{
    struct qd_range *ranges = qd_calloc(learner->site_count, sizeof *ranges), *old = learner->ranges;
    if (!ranges)
        return QD_ERR_NO_MEMORY;
    for (size_t i = 0; i < learner->site_count; i++) {
        ranges[i] = old[i];
        if (given[i].n == 0)
            continue;
        ranges[i].lo = given[i].lo;
        ranges[i].hi = given[i].hi;
        ranges[i].n = given[i].n;
    }
    learner->ranges = ranges;
    enum qd_status status = publish(learner, true);
    if (status)
        learner->ranges = old;
    qd_free(status ? ranges : old);
    return status;
}

enum qd_status qd_learner_freeze(struct qd_learner *learner, size_t needed, size_t *unseen_site)
{
    bool any = learner->site_count == 0;
    *unseen_site = 0;
    for (size_t i = 0; i < learner->site_count; i++) {
        bool seen = learner->ranges[i].n > 0 || qd_learner_static(learner, i)->set;
        any |= seen;
        if (i < needed && !seen) {
            *unseen_site = i;
            return QD_ERR_CONFLICT;
        }
    }
    if (!any)
        return QD_ERR_CONFLICT;
    return learner->frozen ? QD_OK : publish(learner, true);
}

enum qd_status qd_learner_unfreeze(struct qd_learner *learner)
{
    return learner->frozen ? publish(learner, false) : QD_OK;
}
