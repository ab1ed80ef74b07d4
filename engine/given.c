/* Ranges given by tensor name. How a site is served by one: engine/quant/epoch.h. */
#include "engine/model.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

static enum qd_status exact(const struct qd_range_given *entry, bool symmetric, struct qd_given *out,
                            struct qd_error *error)
{
    const int32_t top = symmetric ? 0 : 255;
    if (!(entry->scale >= FLT_MIN && entry->scale <= FLT_MAX))
        return qd_fail(error, QD_ERR_INVALID, "the scale of tensor '%.128s' must be a positive, finite, normal number",
                       entry->tensor);
    if (entry->zero_point < 0 || entry->zero_point > top)
        return qd_fail(error, QD_ERR_INVALID,
                       "the zero point of tensor '%.128s' is %" PRId32 ", it must be in 0..%" PRId32, entry->tensor,
                       entry->zero_point, top);
    out->exact = true;
    out->qp = symmetric ? (struct qd_qparams){entry->scale, QD_CARRIER_OFFSET, 1, 255}
                        : (struct qd_qparams){entry->scale, entry->zero_point, 0, 255};
    out->lo = qd_qparams_lo(&out->qp);
    out->hi = qd_qparams_hi(&out->qp);
    return QD_OK;
}

enum qd_status qd_given_read(const struct qd_range_given *entry, bool symmetric, struct qd_given *out,
                             struct qd_error *error)
{
    *out = (struct qd_given){.set = !entry->learn, .cuts = entry->cuts, .lo = entry->lo, .hi = entry->hi};
    if (entry->learn) {
        *out = (struct qd_given){.set = false};
        return QD_OK;
    }
    if (entry->scale != 0)
        return exact(entry, symmetric, out, error);
    if (!isfinite(entry->lo) || !isfinite(entry->hi) || entry->lo > entry->hi || fabs(entry->lo) > (double)FLT_MAX ||
        fabs(entry->hi) > (double)FLT_MAX)
        return qd_fail(error, QD_ERR_INVALID, "the range [%.9g, %.9g] of tensor '%.128s' is none: min <= max, finite",
                       entry->lo, entry->hi, entry->tensor);
    return QD_OK;
}

int qd_site_named(const struct qd_plan *plan, const char *name)
{
    for (int i = 0; i < plan->site_count; i++)
        if (strcmp(plan->sites[i].name, name) == 0)
            return i;
    return -1;
}

enum qd_status qd_model_ranges_set(struct qd_model *model, const struct qd_range_given *entries, size_t count,
                                   struct qd_error *error)
{
    const struct qd_plan *plan = model->plan;
    enum qd_status status = QD_OK;
    struct qd_given *given = qd_calloc((size_t)plan->site_count, sizeof *given);
    if (!given)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the model's ranges");
    for (int i = 0; i < plan->site_count; i++)
        given[i] = *qd_learner_given(model->learner, (size_t)i);
    for (size_t e = 0; e < count && !status; e++) {
        int site = qd_site_named(plan, entries[e].tensor);
        status = site < 0 ? qd_fail(error, QD_ERR_NOT_FOUND, "model '%s' observes no tensor '%.128s'", model->name,
                                    entries[e].tensor)
                 : plan->sites[site].rows
                     ? qd_fail(error, QD_ERR_CONFLICT,
                               "tensor '%.128s' is quantized row by row: it can have a range under the activation "
                               "granularity 'tensor'",
                               entries[e].tensor)
                 : plan->sites[site].smoothed
                     ? qd_fail(error, QD_ERR_CONFLICT,
                               "tensor '%.128s' has smoothed channels: it can have a range with smoothing turned off",
                               entries[e].tensor)
                     : qd_given_read(&entries[e], plan->sites[site].symmetric, &given[site], error);
    }
    if (!status && count && qd_learner_give(model->learner, given) != QD_OK)
        status = qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the model's ranges");
    qd_free(given);
    return status;
}

bool qd_model_range_given(const struct qd_model *model, size_t i, struct qd_range_given *out)
{
    const struct qd_given *given = qd_learner_given(model->learner, i);
    const int32_t offset = model->plan->sites[i].symmetric ? QD_CARRIER_OFFSET : 0;
    *out = (struct qd_range_given){.tensor = model->plan->sites[i].name,
                                   .learn = !given->set,
                                   .cuts = given->cuts,
                                   .scale = given->exact ? given->qp.scale : 0,
                                   .zero_point = given->exact ? given->qp.zero_point - offset : 0,
                                   .lo = given->lo,
                                   .hi = given->hi};
    return given->set;
}
