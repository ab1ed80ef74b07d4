/* Counters, gauges and histograms in families that one table names (metrics.def), written as Prometheus text or
 * OpenMetrics. Labels come only from names the daemon knows (models, routes, states), never from a request. Bounded in
 * number. */
#ifndef QD_SERVER_METRICS_H
#define QD_SERVER_METRICS_H

#include "server/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QD_METRICS_MAX_SERIES  8192
#define QD_METRICS_LABEL_BYTES 640
#define QD_METRICS_MAX_TENSORS 64 /* of one model that range families tell of */

#define QD_METRICS_TEXT_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define QD_METRICS_OPEN_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"

enum qd_metric {
#define QD_METRIC(id, type, name, unit, help) QD_METRIC_##id,
#include "server/metrics.def"
#undef QD_METRIC
    QD_METRIC_COUNT
};

struct qd_metrics;
struct qd_series; /* one family with one set of labels; lives as long as the metrics */

enum qd_status qd_metrics_create(struct qd_metrics **out, struct qd_error *error) QD_MUST_CHECK;
void qd_metrics_destroy(struct qd_metrics **metrics);

/* name="value" pairs, separated by commas and escaped, from name, value, name, value, ..., NULL. Cut values stay well
 * formed. */
const char *qd_metrics_labels(char text[QD_METRICS_LABEL_BYTES], ...) __attribute__((sentinel));
/* Finds or makes the series; `labels` "" for none. NULL when the table is full or memory is out: the functions below
 * then do nothing. The result may be kept. [loop] */
struct qd_series *qd_metrics_series(struct qd_metrics *metrics, enum qd_metric metric, const char *labels);
/* Counters and gauges; counters only grow. [any] */
void qd_series_add(struct qd_series *series, double value);
/* Gauges, and counters that are kept elsewhere. [any] */
void qd_series_set(struct qd_series *series, double value);
/* Histograms. [any] */
void qd_series_observe(struct qd_series *series, double value);
/* The three above for a series that is looked up. [loop] */
void qd_metrics_add(struct qd_metrics *metrics, enum qd_metric metric, const char *labels, double value);
void qd_metrics_set(struct qd_metrics *metrics, enum qd_metric metric, const char *labels, double value);
void qd_metrics_observe(struct qd_metrics *metrics, enum qd_metric metric, const char *labels, double value);

/* One answered HTTP request. `route` is the route's template, `method` a method the server knows. [loop] */
void qd_metrics_http(struct qd_metrics *metrics, const char *route, const char *method, int code,
                     uint64_t request_bytes, uint64_t response_bytes);

/* All families that have a series, in the table's order. [loop] */
void qd_metrics_write(const struct qd_metrics *metrics, bool openmetrics, struct qd_text *out);
/* Whether an Accept header (may be NULL) prefers OpenMetrics over plain text. */
bool qd_metrics_wants_openmetrics(const char *accept);

#endif
