/* What a model has learned: its ranges as JSON and CSV with an entity tag; forgetting, freezing and learning again. */
#include "server/api.h"

#include "server/routes.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool wanted(const struct qd_api_filter *filter, const char *name)
{
    for (size_t i = 0; i < filter->count; i++)
        if (strcmp(filter->tensors[i], name) == 0)
            return true;
    return filter->count == 0;
}

enum qd_status qd_api_check_filter(const struct qd_model *model, const struct qd_api_filter *filter,
                                   struct qd_error *error)
{
    struct qd_ranges_summary summary;
    qd_model_ranges(model, &summary);
    for (size_t i = 0; i < filter->count; i++) {
        struct qd_range_report range;
        size_t k = 0;
        for (; k < summary.sites; k++) {
            qd_model_range(model, k, &range);
            if (strcmp(range.name, filter->tensors[i]) == 0)
                break;
        }
        if (k == summary.sites)
            return qd_fail(error, QD_ERR_NOT_FOUND, "model '%s' observes no tensor '%.128s'", qd_model_name(model),
                           filter->tensors[i]);
    }
    return QD_OK;
}

static double clipped_ratio(const struct qd_range_report *range)
{
    return range->elements ? (double)(range->clipped_low + range->clipped_high) / (double)range->elements : 0;
}

static const char *lower_dtype(enum qd_dtype dtype) { return dtype == QD_I8 ? "int8" : "uint8"; }

/* The two formats share one list of numbers, so that neither can forget one. */
static void write_numbers(struct qd_text *out, const struct qd_range_report *range, bool json)
{
    const struct {
        const char *name;
        double value;
    } reals[] = {{"ema_min", range->ema_min},           {"ema_max", range->ema_max},
                 {"observed_min", range->observed_min}, {"observed_max", range->observed_max},
                 {"last_min", range->last_min},         {"last_max", range->last_max}};
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {{"observations", range->observations},
                  {"elements", range->elements},
                  {"clipped_low", range->clipped_low},
                  {"clipped_high", range->clipped_high}};
    char scale[QD_NUMBER_TEXT_BYTES];
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
        qd_text_printf(out, json ? ",\"%s\":" : ",", reals[i].name);
        qd_text_json_double(out, reals[i].value);
    }
    scale[qd_format_float(scale, range->scale)] = 0;
    qd_text_printf(out, json ? ",\"scale\":%s,\"zero_point\":%" PRId32 : ",%s,%" PRId32, scale, range->zero_point);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        if (json)
            qd_text_printf(out, ",\"%s\":%" PRIu64, counts[i].name, counts[i].value);
        else
            qd_text_printf(out, ",%" PRIu64, counts[i].value);
    qd_text_puts(out, json ? ",\"clipped_ratio\":" : ",");
    qd_text_json_double(out, clipped_ratio(range));
    qd_text_printf(out, json ? ",\"nonfinite\":%" PRIu64 ",\"guarded\":%" PRIu64 : ",%" PRIu64 ",%" PRIu64,
                   range->nonfinite, range->guarded);
    qd_text_puts(out, json ? ",\"utilization\":" : ",");
    qd_text_json_double(out, range->utilization);
}

static void write_range(struct qd_text *out, const struct qd_range_report *range)
{
    qd_text_puts(out, "{\"name\":");
    qd_text_json_string(out, range->name);
    qd_text_puts(out, ",\"consumers\":[");
    for (size_t i = 0; i < range->consumer_count; i++) {
        qd_text_puts(out, i ? "," : "");
        qd_text_json_string(out, range->consumers[i]);
    }
    qd_text_printf(out, "],\"mode\":\"%s\",\"scheme\":\"%s\",\"dtype\":\"%s\",\"granularity\":\"%s\",\"smoothed\":%s",
                   qd_mode_name(range->mode), qd_scheme_name(range->scheme), lower_dtype(range->dtype),
                   qd_granularity_name(range->granularity), range->smoothed ? "true" : "false");
    write_numbers(out, range, true);
    qd_text_puts(out, ",\"updated\":");
    qd_text_json_time(out, range->updated_unix_ms);
    qd_text_puts(out, "}");
}

void qd_api_write_ranges(struct qd_text *out, const struct qd_model_entry *entry, const struct qd_api_filter *filter)
{
    struct qd_ranges_summary summary;
    struct qd_range_report range;
    bool first = true;
    qd_model_ranges(entry->model, &summary);
    qd_text_puts(out, "{\"model\":");
    qd_text_json_string(out, entry->name);
    qd_text_printf(out,
                   ",\"version\":\"" QD_MODEL_VERSION "\",\"epoch\":%" PRIu64
                   ",\"mode\":\"%s\",\"compat\":\"%s\",\"averaging_constant\":",
                   summary.epoch, qd_mode_name(summary.mode), qd_compat_name(summary.compat));
    qd_text_json_double(out, summary.averaging_constant);
    qd_text_printf(out, ",\"requests\":%" PRIu64 ",\"frozen\":%s,\"tensors\":[", summary.requests,
                   summary.frozen ? "true" : "false");
    for (size_t i = 0; i < summary.sites; i++) {
        qd_model_range(entry->model, i, &range);
        if (!wanted(filter, range.name))
            continue;
        qd_text_puts(out, first ? "" : ",");
        write_range(out, &range);
        first = false;
    }
    qd_text_puts(out, "]}");
}

static void write_csv_name(struct qd_text *out, const char *name)
{
    qd_text_puts(out, "\"");
    for (; *name; name++)
        qd_text_append(out, *name == '"' ? "\"\"" : name, *name == '"' ? 2 : 1);
    qd_text_puts(out, "\"");
}

void qd_api_write_ranges_csv(struct qd_text *out, const struct qd_model_entry *entry,
                             const struct qd_api_filter *filter)
{
    struct qd_ranges_summary summary;
    struct qd_range_report range;
    qd_model_ranges(entry->model, &summary);
    qd_text_puts(
        out,
        "name,mode,scheme,dtype,granularity,ema_min,ema_max,observed_min,observed_max,last_min,last_max,scale,"
        "zero_point,observations,elements,clipped_low,clipped_high,clipped_ratio,nonfinite,guarded,utilization\r\n");
    for (size_t i = 0; i < summary.sites; i++) {
        qd_model_range(entry->model, i, &range);
        if (!wanted(filter, range.name))
            continue;
        write_csv_name(out, range.name);
        qd_text_printf(out, ",%s,%s,%s,%s", qd_mode_name(range.mode), qd_scheme_name(range.scheme),
                       lower_dtype(range.dtype), qd_granularity_name(range.granularity));
        write_numbers(out, &range, false);
        qd_text_puts(out, "\r\n");
    }
}

void qd_api_ranges_etag(char out[96], const struct qd_model_entry *entry)
{
    struct qd_ranges_summary summary;
    struct qd_plan_report plan;
    qd_model_ranges(entry->model, &summary);
    qd_model_plan(entry->model, &plan);
    snprintf(out, 96, "\"%08" PRIx32 "-%" PRIu64 "-%" PRIu64 "-%d\"", plan.digest, summary.epoch, summary.requests,
             summary.frozen);
}

bool qd_api_etag_matches(const char *if_none_match, const char *etag)
{
    size_t n = strlen(etag);
    for (const char *at = if_none_match; at && *at;) {
        at += strspn(at, " \t,");
        if (*at == '*')
            return true;
        if (strncmp(at, "W/", 2) == 0)
            at += 2;
        size_t length = strcspn(at, ", \t");
        if (length == n && memcmp(at, etag, n) == 0)
            return true;
        at += length;
    }
    return false;
}

/* ------------------------------------------------------------------ handlers */

static enum qd_status read_query(const struct qd_http_request *request, const struct qd_model *model,
                                 struct qd_api_filter *filter, bool *csv, struct qd_error *error)
{
    const char *format = qd_http_query(request, "format", 0), *tensor;
    *csv = format && strcmp(format, "csv") == 0;
    if (format && !*csv && strcmp(format, "json") != 0)
        return qd_fail(error, QD_ERR_INVALID, "format must be json or csv, not '%.40s'", format);
    filter->count = 0;
    while ((tensor = qd_http_query(request, "tensor", filter->count)) != NULL) {
        filter->tensors[filter->count++] = tensor;
        if (filter->count == QD_API_MAX_FILTERS)
            break;
    }
    return qd_api_check_filter(model, filter, error);
}

void qd_handle_ranges(struct qd_http_request *request)
{
    struct qd_error error = {0};
    struct qd_text text = {0};
    struct qd_api_filter filter;
    char etag[96];
    bool csv = false;
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    if (!entry || read_query(request, entry->model, &filter, &csv, &error) != QD_OK) {
        qd_http_fail(request, &error);
        return;
    }
    qd_api_ranges_etag(etag, entry);
    if (qd_api_etag_matches(qd_http_header(request, "If-None-Match"), etag))
        qd_http_respond(request, 304, NULL, NULL, 0, NULL, NULL);
    else if (csv) {
        qd_api_write_ranges_csv(&text, entry, &filter);
        qd_api_respond(request, 200, "text/csv; charset=utf-8", &text);
    } else {
        qd_api_write_ranges(&text, entry, &filter);
        qd_api_respond_json(request, &text);
    }
    qd_http_respond_header(request, "ETag", etag);
}

/* reset, freeze, unfreeze: one change of the engine, answered with where the model stands now. */
static void change(struct qd_http_request *request, enum qd_status (*fn)(struct qd_model *, struct qd_error *))
{
    struct qd_error error = {0};
    struct qd_text text = {0};
    struct qd_ranges_summary summary;
    const struct qd_model_entry *entry = qd_api_ready_model(request, &error);
    if (!entry || fn(entry->model, &error) != QD_OK) {
        qd_http_fail(request, &error);
        return;
    }
    qd_model_ranges(entry->model, &summary);
    qd_text_puts(&text, "{\"model\":");
    qd_text_json_string(&text, entry->name);
    qd_text_printf(
        &text, ",\"version\":\"" QD_MODEL_VERSION "\",\"epoch\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"frozen\":%s}",
        summary.epoch, summary.requests, summary.frozen ? "true" : "false");
    qd_api_respond_json(request, &text);
}

void qd_handle_ranges_reset(struct qd_http_request *request) { change(request, qd_model_ranges_reset); }
void qd_handle_ranges_freeze(struct qd_http_request *request) { change(request, qd_model_ranges_freeze); }
void qd_handle_ranges_unfreeze(struct qd_http_request *request) { change(request, qd_model_ranges_unfreeze); }
