/* GET .../ranges/diff and .../drift: snapshots compared with each other and with now. */
#include "server/api.h"

#include "base/mem.h"
#include "server/drift.h"
#include "server/history.h"
#include "server/routes.h"
#include "server/serve.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ diff */

static void write_side(struct qd_text *out, const char *key, const struct qd_ranges_side *side)
{
    qd_text_printf(out, "\"%s\":{\"name\":", key);
    if (side->name)
        qd_text_json_string(out, side->name);
    else
        qd_text_puts(out, "null");
    qd_text_printf(out, ",\"epoch\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"plan\":", side->epoch, side->requests);
    qd_text_json_string(out, side->plan);
    qd_text_puts(out, "},");
}

static void write_bounds(struct qd_text *out, const char *key, const struct qd_range_state *range)
{
    double lo, hi;
    if (!range)
        return;
    qd_range_bounds(range, &lo, &hi);
    qd_text_printf(out, ",\"%s\":{\"min\":", key);
    qd_text_json_double(out, lo);
    qd_text_puts(out, ",\"max\":");
    qd_text_json_double(out, hi);
    qd_text_puts(out, ",\"width\":");
    qd_text_json_double(out, (hi > 0 ? hi : 0) - (lo < 0 ? lo : 0));
    qd_text_printf(out, ",\"observations\":%" PRIu64 "}", range->n);
}

static void write_pair(struct qd_text *out, const struct qd_range_pair *pair)
{
    const char *status = !pair->from ? "appeared" : !pair->to ? "vanished" : pair->distance > 0 ? "changed" : "same";
    qd_text_puts(out, "{\"name\":");
    qd_text_json_string(out, (pair->from ? pair->from : pair->to)->name);
    qd_text_printf(out, ",\"status\":\"%s\"", status);
    write_bounds(out, "from", pair->from);
    write_bounds(out, "to", pair->to);
    qd_text_puts(out, ",\"distance\":");
    qd_text_json_double(out, pair->distance);
    qd_text_puts(out, "}");
}

/* ?from=NAME, ?to=NAME; without one: now. */
static enum qd_status read_side(const struct qd_http_request *request, const char *key,
                                const struct qd_model_entry *entry, struct qd_ranges_side *out, struct qd_error *error)
{
    const char *name = qd_http_query(request, key, 0);
    const struct qd_snapshot *snapshot = NULL;
    enum qd_status status = name ? qd_api_snapshot(entry, name, &snapshot, error) : QD_OK;
    return status ? status : qd_ranges_side(entry, snapshot, out, error);
}

void qd_handle_diff(struct qd_http_request *request)
{
    struct qd_error error = {0};
    struct qd_text text = {0};
    struct qd_ranges_side from = {.name = NULL}, to = {.name = NULL};
    struct qd_range_pair *pairs = NULL;
    size_t count = 0;
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    enum qd_status status = entry ? read_side(request, "from", entry, &from, &error) : error.status;
    if (!status)
        status = read_side(request, "to", entry, &to, &error);
    if (!status)
        status = qd_ranges_compare(&from, &to, &pairs, &count, &error);
    if (status) {
        qd_http_fail(request, &error);
    } else {
        qd_text_puts(&text, "{\"model\":");
        qd_text_json_string(&text, entry->name);
        qd_text_puts(&text, ",\"version\":\"" QD_MODEL_VERSION "\",");
        write_side(&text, "from", &from);
        write_side(&text, "to", &to);
        qd_text_printf(&text, "\"plan_changed\":%s,\"tensors\":[", strcmp(from.plan, to.plan) != 0 ? "true" : "false");
        for (size_t i = 0; i < count; i++) {
            qd_text_puts(&text, i ? "," : "");
            write_pair(&text, &pairs[i]);
        }
        qd_text_puts(&text, "]}");
        qd_api_respond_json(request, &text);
    }
    qd_free(pairs);
    qd_ranges_side_free(&from);
    qd_ranges_side_free(&to);
}

/* ------------------------------------------------------------------ drift */

static enum qd_status read_threshold(const struct qd_http_request *request, double *threshold, struct qd_error *error)
{
    const char *text = qd_http_query(request, "threshold", 0);
    char *end = NULL;
    *threshold = request->server->config->drift_threshold;
    if (text)
        *threshold = strtod(text, &end);
    if (text && (end == text || *end || !(*threshold > 0 && *threshold <= 1e6)))
        return qd_fail(error, QD_ERR_INVALID, "threshold must be a number above 0, not '%.40s'", text);
    return QD_OK;
}

static enum qd_status read_baseline(const struct qd_http_request *request, const struct qd_model_entry *entry,
                                    const struct qd_snapshot **out, struct qd_error *error)
{
    const char *name = qd_http_query(request, "baseline", 0);
    if (name)
        return qd_api_snapshot(entry, name, out, error);
    *out = qd_snapshots_baseline(entry);
    return *out ? QD_OK
                : qd_fail(error, QD_ERR_CONFLICT, "model '%s' has no snapshot to measure drift from: make one first",
                          entry->name);
}

/* Since when a tensor has been further away than the configured threshold, from the default baseline. */
static int64_t since(const struct qd_model_entry *entry, const struct qd_snapshot *baseline, const char *tensor)
{
    return baseline == qd_snapshots_baseline(entry) ? qd_history_left_since(entry->history, tensor) : 0;
}

/* The tensor that left first of those beyond the threshold; without times the one that is furthest away. */
static const struct qd_range_pair *first_mover(const struct qd_model_entry *entry, const struct qd_snapshot *baseline,
                                               const struct qd_range_pair *pairs, size_t count, double threshold)
{
    const struct qd_range_pair *first = NULL;
    int64_t earliest = 0;
    for (size_t i = 0; i < count && pairs[i].distance > threshold; i++) {
        const int64_t left = since(entry, baseline, pairs[i].from->name);
        if (!first || (left && (!earliest || left < earliest))) {
            first = &pairs[i];
            earliest = left;
        }
    }
    return first;
}

static void write_drift(struct qd_text *out, const struct qd_model_entry *entry, const struct qd_snapshot *baseline,
                        const struct qd_range_pair *pairs, size_t count, double threshold)
{
    const struct qd_range_pair *first = first_mover(entry, baseline, pairs, count, threshold);
    qd_text_puts(out, "{\"model\":");
    qd_text_json_string(out, entry->name);
    qd_text_puts(out, ",\"version\":\"" QD_MODEL_VERSION "\",\"baseline\":{\"name\":");
    qd_text_json_string(out, baseline->name);
    qd_text_puts(out, ",\"created\":");
    qd_text_json_time(out, baseline->created_unix_ms);
    qd_text_puts(out, "},\"threshold\":");
    qd_text_json_double(out, threshold);
    qd_text_printf(out, ",\"alarm\":%s,\"distance\":", first ? "true" : "false");
    qd_text_json_double(out, count ? pairs[0].distance : 0);
    qd_text_puts(out, ",\"first_mover\":");
    if (first)
        qd_text_json_string(out, first->from->name);
    else
        qd_text_puts(out, "null");
    qd_text_puts(out, ",\"tensors\":[");
    for (size_t i = 0, written = 0; i < count; i++) {
        if (!pairs[i].from || !pairs[i].to || pairs[i].other)
            continue;
        qd_text_puts(out, written++ ? ",{\"name\":" : "{\"name\":");
        qd_text_json_string(out, pairs[i].from->name);
        qd_text_puts(out, ",\"distance\":");
        qd_text_json_double(out, pairs[i].distance);
        write_bounds(out, "from", pairs[i].from);
        write_bounds(out, "to", pairs[i].to);
        qd_text_puts(out, ",\"since\":");
        qd_text_json_time(out, since(entry, baseline, pairs[i].from->name));
        qd_text_puts(out, "}");
    }
    qd_text_puts(out, "]}");
}

void qd_handle_drift(struct qd_http_request *request)
{
    struct qd_error error = {0};
    struct qd_text text = {0};
    struct qd_ranges_side from = {.name = NULL}, to = {.name = NULL};
    struct qd_range_pair *pairs = NULL;
    const struct qd_snapshot *baseline = NULL;
    double threshold = 0;
    size_t count = 0;
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    enum qd_status status = entry ? read_threshold(request, &threshold, &error) : error.status;
    if (!status)
        status = read_baseline(request, entry, &baseline, &error);
    if (!status)
        status = qd_ranges_side(entry, baseline, &from, &error);
    if (!status)
        status = qd_ranges_side(entry, NULL, &to, &error);
    if (!status)
        status = qd_ranges_compare(&from, &to, &pairs, &count, &error);
    if (status) {
        qd_http_fail(request, &error);
    } else {
        write_drift(&text, entry, baseline, pairs, count, threshold);
        qd_api_respond_json(request, &text);
    }
    qd_free(pairs);
    qd_ranges_side_free(&from);
    qd_ranges_side_free(&to);
}
