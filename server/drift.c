/* Distances between learned ranges. See drift.h. */
#include "server/drift.h"

#include "base/mem.h"
#include "server/state_document.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum qd_status qd_ranges_side(const struct qd_model_entry *entry, const struct qd_snapshot *snapshot,
                              struct qd_ranges_side *out, struct qd_error *error)
{
    *out = (struct qd_ranges_side){.name = NULL};
    if (snapshot) {
        out->name = snapshot->name;
        out->document = snapshot->document;
        out->epoch = qd_state_document_count(snapshot->document, "epoch");
        out->requests = qd_state_document_count(snapshot->document, "requests");
        snprintf(out->plan, sizeof out->plan, "%s", qd_state_document_word(snapshot->document, "plan"));
        return qd_state_document_ranges(snapshot->document, &out->ranges, &out->count, error);
    }
    struct qd_ranges_summary now;
    struct qd_plan_report plan;
    qd_model_ranges(entry->model, &now);
    qd_model_plan(entry->model, &plan);
    out->epoch = now.epoch;
    out->requests = now.requests;
    out->count = now.sites;
    snprintf(out->plan, sizeof out->plan, "%08" PRIx32, plan.digest);
    out->ranges = qd_calloc(now.sites + 1, sizeof *out->ranges);
    if (!out->ranges)
        return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for a comparison");
    for (size_t i = 0; i < now.sites; i++)
        qd_model_range_state(entry->model, i, &out->ranges[i]);
    return QD_OK;
}

void qd_ranges_side_free(struct qd_ranges_side *side)
{
    qd_free(side->ranges);
    side->ranges = NULL;
}

void qd_range_bounds(const struct qd_range_state *range, double *lo, double *hi)
{
    const bool by_epoch = range->is_given; /* of an exact scale: what its integers reach */
    *lo = by_epoch ? range->epoch_lo : range->lo;
    *hi = by_epoch ? range->epoch_hi : range->hi;
}

double qd_range_distance(const struct qd_range_state *from, const struct qd_range_state *to)
{
    double lo, hi, to_lo, to_hi;
    qd_range_bounds(from, &lo, &hi);
    qd_range_bounds(to, &to_lo, &to_hi);
    const double width = fmax(hi, 0) - fmin(lo, 0), moved = fmax(fabs(to_lo - lo), fabs(to_hi - hi));
    return width > 0 ? moved / width : moved > 0;
}

static bool is_there(const struct qd_range_state *range) { return range->n > 0 || range->is_given; }

static const struct qd_range_state *named(const struct qd_ranges_side *side, const char *name, size_t hint)
{
    const struct qd_range_state *found = NULL;
    if (hint < side->count && strcmp(side->ranges[hint].name, name) == 0)
        found = &side->ranges[hint];
    for (size_t i = 0; !found && i < side->count; i++)
        if (strcmp(side->ranges[i].name, name) == 0)
            found = &side->ranges[i];
    return found && is_there(found) ? found : NULL;
}

static int worst_first(const void *a, const void *b)
{
    const struct qd_range_pair *x = a, *y = b;
    if (x->distance != y->distance)
        return x->distance < y->distance ? 1 : -1;
    return strcmp((x->from ? x->from : x->to)->name, (y->from ? y->from : y->to)->name);
}

enum qd_status qd_ranges_compare(const struct qd_ranges_side *from, const struct qd_ranges_side *to,
                                 struct qd_range_pair **out, size_t *count, struct qd_error *error)
{
    struct qd_range_pair *pairs = qd_calloc(from->count + to->count + 1, sizeof *pairs);
    *out = pairs;
    *count = 0;
    if (!pairs)
        return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for a comparison");
    for (size_t i = 0; i < from->count; i++)
        if (is_there(&from->ranges[i])) {
            const struct qd_range_state *one = &from->ranges[i], *other = named(to, one->name, i);
            const bool differ = other && (one->smoothed || other->smoothed) && strcmp(from->plan, to->plan) != 0;
            pairs[(*count)++] = (struct qd_range_pair){one, other, other && !differ ? qd_range_distance(one, other) : 0,
                                                       differ};
        }
    for (size_t i = 0; i < to->count; i++)
        if (is_there(&to->ranges[i]) && !named(from, to->ranges[i].name, i))
            pairs[(*count)++] = (struct qd_range_pair){.to = &to->ranges[i]};
    qsort(pairs, *count, sizeof *pairs, worst_first);
    return QD_OK;
}
