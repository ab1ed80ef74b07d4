/* The table of families, a hash table of series, and the two text formats. Values are atomic, so workers may count;
 * only the loop makes series and writes them out, so no lock is needed. */
#include "server/metrics.h"

#include "base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SLOTS       (QD_METRICS_MAX_SERIES * 2)
#define MAX_BUCKETS 20

enum type { COUNTER, GAUGE, SECONDS, COUNTS };

static const struct family {
    enum type type;
    const char *name, *unit, *help;
} families[QD_METRIC_COUNT] = {
#define QD_METRIC(id, type, name, unit, help) [QD_METRIC_##id] = {type, name, unit, help},
#include "server/metrics.def"
#undef QD_METRIC
};

struct qd_series {
    enum qd_metric metric;
    char *labels;
    struct qd_series *next;     /* of the same family, in order of creation */
    _Atomic uint64_t value;     /* bits of a double: the value, or a histogram's sum */
    _Atomic uint64_t buckets[]; /* histograms: MAX_BUCKETS + 1, not cumulated; the last is +Inf */
};

struct qd_metrics {
    struct qd_series *slots[SLOTS];
    struct qd_series *first[QD_METRIC_COUNT], *last[QD_METRIC_COUNT];
    size_t count;
};

static bool is_histogram(enum qd_metric metric) { return families[metric].type >= SECONDS; }
static int bucket_count(enum qd_metric metric) { return families[metric].type == SECONDS ? 19 : 11; }
static double bucket_bound(enum qd_metric metric, int i)
{
    return families[metric].type == SECONDS ? (double)(50 << i) / 1e6 : (double)(1 << i);
}

enum qd_status qd_metrics_create(struct qd_metrics **out, struct qd_error *error)
{
    *out = qd_calloc(1, sizeof **out);
    return *out ? QD_OK : qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for metrics");
}

void qd_metrics_destroy(struct qd_metrics **metrics)
{
    struct qd_metrics *m = *metrics;
    if (!m)
        return;
    for (size_t i = 0; i < SLOTS; i++)
        if (m->slots[i]) {
            qd_free(m->slots[i]->labels);
            qd_free(m->slots[i]);
        }
    qd_free(m);
    *metrics = NULL;
}

const char *qd_metrics_labels(char text[QD_METRICS_LABEL_BYTES], ...)
{
    size_t used = 0;
    va_list args;
    va_start(args, text);
    for (const char *name = va_arg(args, const char *); name; name = va_arg(args, const char *)) {
        const char *value = va_arg(args, const char *);
        if (used + strlen(name) + 5 > QD_METRICS_LABEL_BYTES)
            break;
        used += (size_t)snprintf(text + used, QD_METRICS_LABEL_BYTES - used, "%s%s=\"", used ? "," : "", name);
        size_t n = qd_utf8_prefix(value, strlen(value));
        for (size_t i = 0; i < n && used + 4 < QD_METRICS_LABEL_BYTES; i++) {
            if (value[i] == '\\' || value[i] == '"' || value[i] == '\n')
                text[used++] = '\\';
            text[used++] = value[i];
            if (value[i] == '\n')
                text[used - 1] = 'n';
        }
        text[used++] = '"';
    }
    va_end(args);
    text[used] = 0;
    return text;
}

static uint64_t hash_of(enum qd_metric metric, const char *labels)
{
    uint64_t hash = UINT64_C(14695981039346656037) ^ (uint64_t)metric;
    for (; *labels; labels++)
        hash = (hash ^ (unsigned char)*labels) * UINT64_C(1099511628211);
    return hash ^ hash >> 29;
}

struct qd_series *qd_metrics_series(struct qd_metrics *metrics, enum qd_metric metric, const char *labels)
{
    size_t slot = hash_of(metric, labels) % SLOTS;
    for (; metrics->slots[slot]; slot = (slot + 1) % SLOTS)
        if (metrics->slots[slot]->metric == metric && strcmp(metrics->slots[slot]->labels, labels) == 0)
            return metrics->slots[slot];
    if (metrics->count == QD_METRICS_MAX_SERIES)
        return NULL;
    size_t extra = is_histogram(metric) ? (MAX_BUCKETS + 1) * sizeof(uint64_t) : 0;
    struct qd_series *series = qd_calloc(1, sizeof *series + extra);
    char *copy = qd_strndup(labels, strlen(labels));
    if (!series || !copy) {
        qd_free(series);
        qd_free(copy);
        return NULL;
    }
    series->metric = metric;
    series->labels = copy;
    if (metrics->last[metric])
        metrics->last[metric]->next = series;
    else
        metrics->first[metric] = series;
    metrics->last[metric] = series;
    metrics->slots[slot] = series;
    metrics->count++;
    return series;
}

/* ------------------------------------------------------------------ values */

static double to_double(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t to_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

void qd_series_add(struct qd_series *series, double value)
{
    if (!series || !isfinite(value))
        return;
    uint64_t old = atomic_load_explicit(&series->value, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&series->value, &old, to_bits(to_double(old) + value),
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

void qd_series_set(struct qd_series *series, double value)
{
    if (series)
        atomic_store_explicit(&series->value, to_bits(value), memory_order_relaxed);
}

void qd_series_observe(struct qd_series *series, double value)
{
    if (!series || !is_histogram(series->metric) || !isfinite(value))
        return;
    int i = 0;
    while (i < bucket_count(series->metric) && value > bucket_bound(series->metric, i))
        i++;
    atomic_fetch_add_explicit(&series->buckets[i], 1, memory_order_relaxed);
    qd_series_add(series, value);
}

void qd_metrics_add(struct qd_metrics *metrics, enum qd_metric metric, const char *labels, double value)
{
    qd_series_add(qd_metrics_series(metrics, metric, labels), value);
}
void qd_metrics_set(struct qd_metrics *metrics, enum qd_metric metric, const char *labels, double value)
{
    qd_series_set(qd_metrics_series(metrics, metric, labels), value);
}
void qd_metrics_observe(struct qd_metrics *metrics, enum qd_metric metric, const char *labels, double value)
{
    qd_series_observe(qd_metrics_series(metrics, metric, labels), value);
}

void qd_metrics_http(struct qd_metrics *metrics, const char *route, const char *method, int code,
                     uint64_t request_bytes, uint64_t response_bytes)
{
    char labels[QD_METRICS_LABEL_BYTES], status[16];
    snprintf(status, sizeof status, "%d", code);
    qd_metrics_labels(labels, "route", route, "method", method, "code", status, NULL);
    qd_metrics_add(metrics, QD_METRIC_HTTP_REQUESTS, labels, 1);
    qd_metrics_add(metrics, QD_METRIC_HTTP_REQUEST_BYTES, "", (double)request_bytes);
    qd_metrics_add(metrics, QD_METRIC_HTTP_RESPONSE_BYTES, "", (double)response_bytes);
}

/* ------------------------------------------------------------------ text */

static void write_value(struct qd_text *out, double value)
{
    if (isnan(value))
        qd_text_puts(out, "NaN");
    else if (isinf(value))
        qd_text_puts(out, value < 0 ? "-Inf" : "+Inf");
    else if (value == rint(value) && fabs(value) < 9007199254740992.0)
        qd_text_printf(out, "%.0f", value == 0 ? 0.0 : value);
    else
        qd_text_json_double(out, value);
    qd_text_puts(out, "\n");
}

static void write_sample(struct qd_text *out, const struct family *family, const char *suffix, const char *labels,
                         const char *more, double value)
{
    qd_text_printf(out, "%s%s", family->name, suffix);
    if (*labels || *more)
        qd_text_printf(out, "{%s%s%s}", labels, *labels && *more ? "," : "", more);
    qd_text_puts(out, " ");
    write_value(out, value);
}

static void write_histogram(struct qd_text *out, const struct family *family, const struct qd_series *series)
{
    uint64_t total = 0;
    int buckets = bucket_count(series->metric);
    for (int i = 0; i <= buckets; i++) {
        char bound[QD_NUMBER_TEXT_BYTES] = "+Inf", label[QD_NUMBER_TEXT_BYTES + 8];
        total += atomic_load_explicit(&series->buckets[i], memory_order_relaxed);
        if (i < buckets)
            bound[qd_format_double(bound, bucket_bound(series->metric, i))] = 0;
        snprintf(label, sizeof label, "le=\"%s\"", bound);
        write_sample(out, family, "_bucket", series->labels, label, (double)total);
    }
    write_sample(out, family, "_sum", series->labels, "",
                 to_double(atomic_load_explicit(&series->value, memory_order_relaxed)));
    write_sample(out, family, "_count", series->labels, "", (double)total);
}

static void write_family(struct qd_text *out, enum qd_metric metric, const struct qd_series *series, bool openmetrics)
{
    static const char *const types[] = {"counter", "gauge", "histogram", "histogram"};
    const struct family *family = &families[metric];
    const char *total = family->type == COUNTER ? "_total" : "", *head = openmetrics ? "" : total;
    qd_text_printf(out, "# HELP %s%s %s\n# TYPE %s%s %s\n", family->name, head, family->help, family->name, head,
                   types[family->type]);
    if (openmetrics && *family->unit)
        qd_text_printf(out, "# UNIT %s %s\n", family->name, family->unit);
    for (; series; series = series->next)
        if (is_histogram(metric))
            write_histogram(out, family, series);
        else
            write_sample(out, family, total, series->labels, "",
                         to_double(atomic_load_explicit(&series->value, memory_order_relaxed)));
}

void qd_metrics_write(const struct qd_metrics *metrics, bool openmetrics, struct qd_text *out)
{
    for (int i = 0; i < QD_METRIC_COUNT; i++)
        if (metrics->first[i])
            write_family(out, (enum qd_metric)i, metrics->first[i], openmetrics);
    if (openmetrics)
        qd_text_puts(out, "# EOF\n");
}

/* The q of a media range, 1 when it has none. */
static double quality(const char *range, size_t n)
{
    for (size_t i = 0; i + 3 < n; i++)
        if (range[i] == ';') {
            size_t at = i + 1;
            while (at < n && range[at] == ' ')
                at++;
            if (at + 2 < n && (range[at] == 'q' || range[at] == 'Q') && range[at + 1] == '=')
                return strtod(range + at + 2, NULL);
        }
    return 1;
}

bool qd_metrics_wants_openmetrics(const char *accept)
{
    double open = 0, text = 0;
    for (const char *at = accept; at && *at;) {
        at += strspn(at, " \t,");
        size_t n = strcspn(at, ","), type = strcspn(at, ";, \t");
        double q = quality(at, n);
        if (type == 28 && strncasecmp(at, "application/openmetrics-text", type) == 0)
            open = q > open ? q : open;
        else if ((type == 10 && strncasecmp(at, "text/plain", type) == 0) || (type == 3 && strncmp(at, "*/*", 3) == 0))
            text = q > text ? q : text;
        at += n;
    }
    return open > 0 && open >= text;
}
