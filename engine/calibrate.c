/* Calibrating requests and what becomes of them. */
#include "engine/model.h"

#include <math.h>
#include <string.h>

struct calibrated {
    struct qd_sketch sketch;
    struct qd_range average; /* of the requests' bounds; [loop] */
    double lo, hi;           /* estimated */
    bool estimated;
};

struct qd_calibration {
    struct qd_ref ref;
    struct qd_model *model; /* a reference */
    struct qd_plan *base;   /* a reference: whose sites */
    struct qd_range_rules average;
    bool symmetric;
    pthread_mutex_t lock; /* of the sketches and of `wanted` */
    int *wanted; /* [slots of the plan in full precision] the site of a slot, or -1; made at the first request */
    struct calibrated *sites;
    uint64_t requests; /* [loop] */
    bool estimated;
};

/* ------------------------------------------------------------------ life */

enum qd_status qd_calibration_create(struct qd_model *model, struct qd_calibration **out, struct qd_error *error)
{
    const size_t count = (size_t)model->plan->site_count;
    if (count == 0)
        return qd_fail(error, QD_ERR_INVALID, "model '%s' has no quantized tensor to calibrate", model->name);
    struct qd_calibration *c = qd_calloc(1, sizeof *c);
    struct calibrated *sites = qd_calloc(count, sizeof *sites);
    if (!c || !sites || pthread_mutex_init(&c->lock, NULL) != 0) {
        qd_free(c);
        qd_free(sites);
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for a calibration");
    }
    qd_ref_init(&c->ref);
    c->model = qd_model_ref(model);
    c->base = qd_plan_ref(model->plan);
    c->average = qd_range_rules_of(&model->options);
    c->symmetric = model->options.activation_scheme == QD_SYMMETRIC;
    c->sites = sites;
    for (size_t i = 0; i < count; i++)
        qd_sketch_init(&sites[i].sketch);
    *out = c;
    return QD_OK;
}

struct qd_calibration *qd_calibration_ref(struct qd_calibration *calibration)
{
    qd_ref_take(&calibration->ref);
    return calibration;
}

void qd_calibration_unref(struct qd_calibration **calibration)
{
    struct qd_calibration *c = *calibration;
    *calibration = NULL;
    if (!c || !qd_ref_drop(&c->ref))
        return;
    pthread_mutex_destroy(&c->lock);
    qd_free(c->wanted);
    qd_free(c->sites);
    qd_plan_unref(&c->base);
    qd_model_unref(&c->model);
    qd_free(c);
}

uint64_t qd_calibration_requests(const struct qd_calibration *calibration) { return calibration->requests; }

/* ------------------------------------------------------------------ a calibrating request */

enum qd_status qd_infer_calibrate(struct qd_infer *infer, struct qd_calibration *calibration, struct qd_error *error)
{
    if (infer->prepared || infer->calibration || infer->model != calibration->model)
        return qd_fail(error, QD_ERR_INVALID, "a request is made a calibrating one once, before it is prepared");
    infer->options.precision = QD_FP32;
    infer->options.observe = false;
    infer->calibration = qd_calibration_ref(calibration);
    return QD_OK;
}

/* The plan in full precision names its tensors as the other does. A tensor may lie in two layouts: the first is seen.
 */
static int *find_slots(const struct qd_calibration *c, const struct qd_plan *plan)
{
    int *wanted = qd_calloc((size_t)plan->slot_count, sizeof *wanted);
    for (int slot = 0; wanted && slot < plan->slot_count; slot++)
        wanted[slot] = -1;
    for (int site = 0; wanted && site < c->base->site_count; site++)
        for (int slot = 0; c->base->sites[site].value >= 0 && slot < plan->slot_count; slot++)
            if (!plan->slots[slot].constant &&
                strcmp(plan->graph.values[plan->slots[slot].value].name, c->base->sites[site].name) == 0) {
                wanted[slot] = site;
                break;
            }
    return wanted;
}

static void see(void *ctx, int site, const struct qd_tensor *tensor)
{
    struct qd_infer *infer = ctx;
    struct qd_calibration *c = infer->calibration;
    struct qd_observation seen = qd_observation_empty();
    const float *values = tensor->data;
    if (tensor->dtype != QD_F32)
        return;
    const size_t count = (size_t)qd_tensor_elems(tensor);
    seen.elems = count;
    for (size_t i = 0; i < count; i++)
        if (isfinite(values[i])) {
            seen.min = values[i] < seen.min ? values[i] : seen.min;
            seen.max = values[i] > seen.max ? values[i] : seen.max;
        }
    qd_observation_merge(&infer->seen[site], &seen);
    pthread_mutex_lock(&c->lock);
    qd_sketch_add(&c->sites[site].sketch, values, count);
    pthread_mutex_unlock(&c->lock);
}

enum qd_status qd_calibration_tap(struct qd_infer *infer, struct qd_error *error)
{
    struct qd_calibration *c = infer->calibration;
    const size_t count = (size_t)c->base->site_count;
    pthread_mutex_lock(&c->lock);
    if (!c->wanted)
        c->wanted = find_slots(c, infer->plan);
    infer->tap = (struct qd_tap){c->wanted, see, infer};
    pthread_mutex_unlock(&c->lock);
    infer->seen = qd_arena_alloc(infer->arena, count, sizeof *infer->seen);
    if (!infer->tap.wanted || !infer->seen)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the request");
    for (size_t i = 0; i < count; i++)
        infer->seen[i] = qd_observation_empty();
    return QD_OK;
}

void qd_calibration_fold(struct qd_infer *infer)
{
    struct qd_calibration *c = infer->calibration;
    if (infer->lane.status != QD_OK)
        return;
    for (int i = 0; i < c->base->site_count; i++)
        qd_range_fold(&c->sites[i].average, &c->average, &infer->seen[i], 0, 1);
    c->requests++;
}

/* ------------------------------------------------------------------ ranges */

enum qd_status qd_calibration_estimate(struct qd_calibration *c, enum qd_method method, double percentile,
                                       struct qd_error *error)
{
    if (!(percentile >= 50 && percentile <= 100))
        return qd_fail(error, QD_ERR_INVALID, "a percentile lies in 50..100");
    if (c->requests == 0)
        return qd_fail(error, QD_ERR_CONFLICT, "no request has been calibrated with yet");
    pthread_mutex_lock(&c->lock);
    for (int i = 0; i < c->base->site_count; i++) {
        struct calibrated *site = &c->sites[i];
        if (method == QD_METHOD_EMA) {
            site->estimated = site->average.n > 0;
            site->lo = site->average.lo;
            site->hi = site->average.hi;
        } else {
            const bool wide = c->base->sites[i].wide;
            const struct qd_estimate_rules rules = {method, wide || c->symmetric, wide ? 16 : 8, percentile};
            site->estimated = qd_estimate(&site->sketch, &rules, &site->lo, &site->hi);
        }
    }
    c->estimated = true;
    pthread_mutex_unlock(&c->lock);
    return QD_OK;
}

enum qd_status qd_calibration_publish(struct qd_calibration *c, size_t *set, size_t *unset, struct qd_error *error)
{
    const size_t sites = (size_t)c->base->site_count;
    size_t count = 0;
    if (!c->estimated)
        return qd_fail(error, QD_ERR_CONFLICT, "ranges have not been estimated yet");
    struct qd_range_setting *settings = qd_calloc(sites, sizeof *settings);
    if (!settings)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the model's ranges");
    for (size_t i = 0; i < sites; i++)
        if (c->sites[i].estimated)
            settings[count++] = (struct qd_range_setting){c->base->sites[i].name, c->sites[i].lo, c->sites[i].hi,
                                                          c->requests ? c->requests : 1};
    enum qd_status status = qd_model_ranges_freeze_at(c->model, settings, count, set, error);
    *unset = status ? 0 : (size_t)c->model->plan->site_count - *set;
    qd_free(settings);
    return status;
}

enum qd_status qd_model_ranges_freeze_at(struct qd_model *model, const struct qd_range_setting *settings, size_t count,
                                         size_t *set, struct qd_error *error)
{
    const struct qd_plan *plan = model->plan;
    struct qd_given_range *given = qd_calloc((size_t)plan->site_count, sizeof *given);
    enum qd_status status = QD_OK;
    *set = 0;
    for (size_t i = 0; given && !status && i < count; i++) {
        const struct qd_range_setting *s = &settings[i];
        if (!isfinite(s->lo) || !isfinite(s->hi) || s->lo > s->hi || s->weight == 0)
            status = qd_fail(error, QD_ERR_INVALID, "tensor '%.100s' can't have the range %g to %g", s->tensor, s->lo,
                             s->hi);
        for (int site = 0; !status && site < plan->site_count; site++)
            if (strcmp(plan->sites[site].name, s->tensor) == 0) {
                *set += given[site].n == 0;
                given[site] = (struct qd_given_range){s->lo, s->hi, s->weight};
            }
    }
    if (!status && (!given || qd_learner_set(model->learner, given) != QD_OK))
        status = qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the model's ranges");
    qd_free(given);
    return status;
}
