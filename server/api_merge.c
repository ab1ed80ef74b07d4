/* POST .../ranges/merge: what other replicas of the model have learned is averaged with what this one has, as a new
 * epoch. What may be sent twice, and what overlaps: docs/QUANTIZATION.md, section 8. */
#include "server/api.h"

#include "base/mem.h"
#include "server/routes.h"
#include "server/state_document.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define STATES_MAX 64 /* of one merge */

/* One replica's contribution. */
struct part {
    const char *origin;
    uint64_t requests;
    struct qd_range_state *ranges; /* owned */
    size_t count;
    bool own, other_plan;
};

struct merge {
    struct part parts[STATES_MAX + 1];
    size_t count, skipped;
    bool self; /* the model's own state takes part, and states that it has already are passed over */
};

static void release(struct merge *merge)
{
    for (size_t i = 0; i < merge->count; i++)
        qd_free(merge->parts[i].ranges);
}

/* Has it been merged as far as this? */
static bool is_known(const struct qd_model_entry *entry, const struct merge *merge, const char *origin,
                     uint64_t requests)
{
    if (strcmp(origin, entry->origin) == 0)
        return true;
    for (size_t i = 0; i < entry->merged_count; i++)
        if (strcmp(entry->merged[i].origin, origin) == 0 && entry->merged[i].requests >= requests)
            return true;
    for (size_t i = 0; i < merge->count; i++)
        if (strcmp(merge->parts[i].origin, origin) == 0)
            return true;
    return false;
}

static enum qd_status take_state(struct merge *merge, const struct qd_model_entry *entry, const json_t *document,
                                 struct qd_error *error)
{
    const char *origin = qd_state_document_word(document, "origin");
    const uint64_t requests = qd_state_document_count(document, "requests");
    enum qd_status status = qd_state_document_check(document, entry->model, error);
    if (status)
        return status;
    if (!qd_origin_valid(origin))
        return qd_fail(error, QD_ERR_INVALID, "a state's 'origin' must be 16 hexadecimal digits");
    if (merge->self && is_known(entry, merge, origin, requests)) {
        merge->skipped++;
        return QD_OK;
    }
    struct part *part = &merge->parts[merge->count];
    *part = (struct part){
        .origin = origin, .requests = requests, .other_plan = !qd_state_document_has_plan(entry->model, document)};
    status = qd_state_document_ranges(document, &part->ranges, &part->count, error);
    merge->count += !status;
    return status;
}

/* The model's own, as another's. */
static enum qd_status take_own(struct merge *merge, const struct qd_model_entry *entry, struct qd_error *error)
{
    struct qd_ranges_summary summary;
    qd_model_ranges(entry->model, &summary);
    struct part *part = &merge->parts[merge->count];
    *part = (struct part){.origin = entry->origin, .count = summary.sites, .own = true};
    part->ranges = qd_calloc(summary.sites + 1, sizeof *part->ranges);
    if (!part->ranges)
        return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for a merge");
    for (size_t i = 0; i < summary.sites; i++)
        qd_model_range_state(entry->model, i, &part->ranges[i]);
    merge->count++;
    return QD_OK;
}

/* One state, or {"states": [...], "self": true}. */
static enum qd_status take_body(struct merge *merge, const struct qd_model_entry *entry, const json_t *body,
                                struct qd_error *error)
{
    const json_t *states = json_object_get(body, "states"), *self = json_object_get(body, "self");
    enum qd_status status = QD_OK;
    merge->self = true;
    if (json_object_get(body, "quantd_state"))
        return take_state(merge, entry, body, error);
    if (!json_is_array(states) || json_object_size(body) != 1u + (self != NULL) || (self && !json_is_boolean(self)))
        return qd_fail(error, QD_ERR_INVALID,
                       "the body must be a state, or {\"states\": [...]} with \"self\": false to leave out what this "
                       "model has learned itself");
    if (json_array_size(states) > STATES_MAX)
        return qd_fail(error, QD_ERR_INVALID, "at most %d states are merged at once", STATES_MAX);
    merge->self = !json_is_false(self);
    for (size_t i = 0; !status && i < json_array_size(states); i++)
        status = take_state(merge, entry, json_array_get(states, i), error);
    return status;
}

/* By origin, so that replicas that merge the same states get the same sums. */
static int by_origin(const void *a, const void *b)
{
    const struct part *x = a, *y = b;
    int order = strcmp(x->origin, y->origin);
    return order ? order : (x->requests > y->requests) - (x->requests < y->requests);
}

static const struct qd_range_state *range_named(const struct part *part, const char *name, size_t hint)
{
    if (hint < part->count && strcmp(part->ranges[hint].name, name) == 0)
        return &part->ranges[hint];
    for (size_t i = 0; i < part->count; i++)
        if (strcmp(part->ranges[i].name, name) == 0)
            return &part->ranges[i];
    return NULL;
}

/* Fills `out` with the sites that somebody else has something to say of; their number. */
static size_t merge_sites(const struct merge *merge, const struct qd_model *model, struct qd_range_state *out)
{
    struct qd_ranges_summary summary;
    size_t found = 0;
    qd_model_ranges(model, &summary);
    for (size_t i = 0; i < summary.sites; i++) {
        struct qd_range_state own, parts[STATES_MAX + 1];
        size_t count = 0, others = 0;
        qd_model_range_state(model, i, &own);
        for (size_t p = 0; p < merge->count && !own.is_given; p++) {
            const struct qd_range_state *range = range_named(&merge->parts[p], own.name, i);
            if (!range || range->n == 0 || ((range->smoothed || own.smoothed) && merge->parts[p].other_plan))
                continue;
            parts[count++] = *range;
            others += !merge->parts[p].own;
        }
        if (others)
            out[found++] = qd_range_state_merge(&own, parts, count, summary.averaging_constant);
    }
    return found;
}

/* What was merged is remembered; of too many the one that was heard of longest ago is forgotten. */
static void remember(struct qd_model_entry *entry, const struct part *part)
{
    size_t at = 0;
    while (at < entry->merged_count && strcmp(entry->merged[at].origin, part->origin) != 0)
        at++;
    if (at == entry->merged_count && at == QD_MERGED_MAX)
        at = 0;
    if (at < entry->merged_count)
        memmove(entry->merged + at, entry->merged + at + 1, (--entry->merged_count - at) * sizeof entry->merged[0]);
    struct qd_merged *to = &entry->merged[entry->merged_count++];
    memcpy(to->origin, part->origin, sizeof to->origin);
    to->requests = part->requests;
}

static enum qd_status put_in_force(struct merge *merge, struct qd_model_entry *entry, size_t *tensors,
                                   struct qd_error *error)
{
    struct qd_ranges_summary summary;
    qd_model_ranges(entry->model, &summary);
    *tensors = 0;
    if (summary.frozen)
        return qd_fail(error, QD_ERR_CONFLICT, "the ranges of model '%s' are frozen: unfreeze them first", entry->name);
    const size_t others = merge->count;
    enum qd_status status = others && merge->self ? take_own(merge, entry, error) : QD_OK;
    struct qd_range_state *merged = qd_calloc(summary.sites + 1, sizeof *merged);
    if (!status && !merged)
        status = qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for a merge");
    qsort(merge->parts, merge->count, sizeof merge->parts[0], by_origin);
    const size_t found = status ? 0 : merge_sites(merge, entry->model, merged);
    if (!status && found)
        status = qd_model_adopt(entry->model, merged, found, false, false, tensors, error);
    for (size_t i = 0; !status && i < merge->count; i++)
        if (!merge->parts[i].own && strcmp(merge->parts[i].origin, entry->origin) != 0)
            remember(entry, &merge->parts[i]);
    qd_free(merged);
    return status;
}

static void answer(struct qd_http_request *request, const struct qd_model_entry *entry, const struct merge *merge,
                   size_t tensors)
{
    struct qd_ranges_summary summary;
    struct qd_text text = {0};
    size_t others = 0;
    for (size_t i = 0; i < merge->count; i++)
        others += !merge->parts[i].own;
    qd_model_ranges(entry->model, &summary);
    qd_text_puts(&text, "{\"model\":");
    qd_text_json_string(&text, entry->name);
    qd_text_printf(&text,
                   ",\"version\":\"" QD_MODEL_VERSION "\",\"epoch\":%" PRIu64 ",\"requests\":%" PRIu64
                   ",\"frozen\":%s,\"merged\":%zu,\"skipped\":%zu,\"tensors\":%zu}",
                   summary.epoch, summary.requests, summary.frozen ? "true" : "false", others, merge->skipped, tensors);
    qd_api_respond_json(request, &text);
}

void qd_handle_merge(struct qd_http_request *request)
{
    struct qd_error error = {0};
    struct merge merge = {.count = 0};
    size_t tensors = 0;
    struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    json_t *body = entry ? qd_api_body(request, &error) : NULL;
    enum qd_status status = body ? take_body(&merge, entry, body, &error) : error.status;
    if (!status)
        status = put_in_force(&merge, entry, &tensors, &error);
    if (status)
        qd_http_fail(request, &error);
    else
        answer(request, entry, &merge, tensors);
    release(&merge);
    json_decref(body);
}
