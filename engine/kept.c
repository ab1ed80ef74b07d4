/* Ranges out of a model and back into one; merging replicas'. See kept.h. */
#include "engine/model.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

void qd_model_range_state(const struct qd_model *model, size_t i, struct qd_range_state *out)
{
    const struct qd_range *r = qd_learner_range(model->learner, i);
    const struct qd_site_params *site = &qd_learner_current(model->learner)->sites[i];
    *out = (struct qd_range_state){.epoch_lo = site->lo,
                                   .epoch_hi = site->hi,
                                   .ready = site->ready,
                                   .name = model->plan->sites[i].name,
                                   .smoothed = model->plan->sites[i].smoothed,
                                   .lo = r->lo,
                                   .hi = r->hi,
                                   .observed_min = r->observed_min,
                                   .observed_max = r->observed_max,
                                   .last_min = r->last_min,
                                   .last_max = r->last_max,
                                   .n = r->n,
                                   .elements = r->elems,
                                   .nonfinite = r->nonfinite,
                                   .clipped_low = r->clipped_low,
                                   .clipped_high = r->clipped_high,
                                   .guarded = r->guarded,
                                   .updated_unix_ms = r->updated_unix_ms};
    out->is_given = qd_model_range_given(model, i, &out->given);
}

static struct qd_range range_of(const struct qd_range_state *s)
{
    return (struct qd_range){.lo = s->lo,
                             .hi = s->hi,
                             .n = s->n,
                             .observed_min = s->observed_min,
                             .observed_max = s->observed_max,
                             .last_min = s->last_min,
                             .last_max = s->last_max,
                             .elems = s->elements,
                             .nonfinite = s->nonfinite,
                             .clipped_low = s->clipped_low,
                             .clipped_high = s->clipped_high,
                             .guarded = s->guarded,
                             .updated_unix_ms = s->updated_unix_ms};
}

/* What is to be put into a learner, by site. */
struct intake {
    struct qd_range *ranges;
    struct qd_site_params *sites;
    struct qd_given *given;
    size_t found;
};

static void intake_free(struct intake *intake)
{
    qd_free(intake->given);
    qd_free(intake->sites);
    qd_free(intake->ranges);
}

/* False: out of memory. */
static bool intake_alloc(struct intake *intake, size_t sites)
{
    *intake = (struct intake){.ranges = qd_calloc(sites, sizeof *intake->ranges),
                              .sites = qd_calloc(sites, sizeof *intake->sites),
                              .given = qd_calloc(sites, sizeof *intake->given)};
    return intake->ranges && intake->sites && intake->given;
}

/* The states in place of what stands there, by name. */
static void take_states(const struct qd_plan *plan, const struct qd_range_state *states, size_t count,
                        struct intake *intake)
{
    for (int i = 0; i < plan->site_count; i++)
        for (size_t s = 0; s < count; s++)
            if (strcmp(states[s].name, plan->sites[i].name) == 0 && states[s].smoothed == plan->sites[i].smoothed) {
                struct qd_error unsound; /* of a file: then nothing is given */
                intake->ranges[i] = range_of(&states[s]);
                intake->sites[i] = (struct qd_site_params){
                    .lo = states[s].epoch_lo, .hi = states[s].epoch_hi, .ready = states[s].ready};
                if (!states[s].is_given ||
                    qd_given_read(&states[s].given, plan->sites[i].symmetric, &intake->given[i], &unsound) != QD_OK)
                    intake->given[i] = (struct qd_given){.set = false};
                intake->found++;
                break;
            }
}

enum qd_status qd_model_restore(struct qd_model *model, const struct qd_range_state *states, size_t count,
                                uint64_t epoch, uint64_t requests, bool frozen, size_t *restored,
                                struct qd_error *error)
{
    const size_t sites = (size_t)model->plan->site_count;
    struct intake intake;
    enum qd_status status = QD_ERR_NO_MEMORY;
    *restored = 0;
    if (intake_alloc(&intake, sites)) {
        take_states(model->plan, states, count, &intake);
        *restored = intake.found;
        epoch = (epoch ? epoch : 1) + (*restored != sites);
        status = qd_learner_restore(model->learner, intake.ranges, intake.sites, intake.given, epoch, requests, frozen);
    }
    intake_free(&intake);
    return status ? qd_fail(error, status, "no memory for the model's ranges") : QD_OK;
}

enum qd_status qd_model_adopt(struct qd_model *model, const struct qd_range_state *states, size_t count, bool as_served,
                              bool frozen, size_t *adopted, struct qd_error *error)
{
    const size_t sites = (size_t)model->plan->site_count;
    const struct qd_epoch *now = qd_learner_current(model->learner);
    struct intake intake;
    enum qd_status status = QD_ERR_NO_MEMORY;
    *adopted = 0;
    if (intake_alloc(&intake, sites)) {
        for (size_t i = 0; i < sites; i++) {
            intake.ranges[i] = *qd_learner_range(model->learner, i);
            intake.sites[i] = now->sites[i];
            intake.given[i] = *qd_learner_given(model->learner, i);
        }
        take_states(model->plan, states, count, &intake);
        *adopted = intake.found;
        status = qd_learner_adopt(model->learner, intake.ranges, as_served ? intake.sites : NULL, intake.given, frozen);
    }
    intake_free(&intake);
    return status ? qd_fail(error, status, "no memory for the model's ranges") : QD_OK;
}

enum qd_status qd_model_rollback(struct qd_model *model, uint64_t id, struct qd_error *error)
{
    const size_t sites = (size_t)model->plan->site_count;
    const struct qd_epoch *epoch = qd_learner_find(model->learner, id);
    struct intake intake;
    enum qd_status status = QD_ERR_NO_MEMORY;
    if (!epoch)
        return qd_fail(error, QD_ERR_CONFLICT, "epoch %" PRIu64 " of model '%s' is not kept under this plan", id,
                       model->name);
    if (intake_alloc(&intake, sites)) {
        for (size_t i = 0; i < sites; i++) {
            intake.ranges[i] = *qd_learner_range(model->learner, i);
            intake.sites[i] = epoch->sites[i];
            intake.given[i] = *qd_learner_given(model->learner, i);
            if (epoch->sites[i].ready) {
                intake.ranges[i].lo = epoch->sites[i].lo;
                intake.ranges[i].hi = epoch->sites[i].hi;
            }
        }
        status = qd_learner_adopt(model->learner, intake.ranges, intake.sites, intake.given, epoch->frozen);
    }
    intake_free(&intake);
    return status ? qd_fail(error, status, "no memory for the model's ranges") : QD_OK;
}

bool qd_range_state_sound(const struct qd_range_state *s)
{
    const double pairs[][2] = {
        {s->lo, s->hi}, {s->observed_min, s->observed_max}, {s->last_min, s->last_max}, {s->epoch_lo, s->epoch_hi}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if (!(fabs(pairs[i][0]) <= (double)FLT_MAX) || !(fabs(pairs[i][1]) <= (double)FLT_MAX) ||
            pairs[i][0] > pairs[i][1])
            return false;
    return true;
}

struct qd_range_state qd_range_state_merge(const struct qd_range_state *own, const struct qd_range_state *parts,
                                           size_t count, double averaging_constant)
{
    struct qd_range_state out = *own;
    const double window = 1 / averaging_constant;
    double weights = 0;
    uint64_t longest = 0;
    bool first = true;
    for (size_t i = 0; i < count; i++) {
        const struct qd_range_state *p = &parts[i];
        if (p->n == 0)
            continue;
        const double weight = (double)p->n < window ? (double)p->n : window, share = weight / (weights + weight);
        out.lo = first ? p->lo : out.lo + share * (p->lo - out.lo);
        out.hi = first ? p->hi : out.hi + share * (p->hi - out.hi);
        out.observed_min = first || p->observed_min < out.observed_min ? p->observed_min : out.observed_min;
        out.observed_max = first || p->observed_max > out.observed_max ? p->observed_max : out.observed_max;
        weights += weight;
        longest = p->n > longest ? p->n : longest;
        first = false;
    }
    if (first)
        return out;
    const uint64_t stands_for = (uint64_t)ceil(weights < window ? weights : window);
    out.n = stands_for > longest ? stands_for : longest;
    return out;
}
