/* The metrics' table and its two text formats: values, labels, buckets, bounds and negotiation. */
#include "server/metrics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int set_up(void **state)
{
    struct qd_metrics *metrics = NULL;
    if (qd_metrics_create(&metrics, NULL) != QD_OK)
        return -1;
    *state = metrics;
    return 0;
}

static int tear_down(void **state)
{
    struct qd_metrics *metrics = *state;
    qd_metrics_destroy(&metrics);
    assert_null(metrics);
    return 0;
}

static void check_text(struct qd_metrics *metrics, bool openmetrics, const char *want)
{
    struct qd_text text = {0};
    qd_metrics_write(metrics, openmetrics, &text);
    assert_false(text.failed);
    assert_string_equal(text.bytes ? text.bytes : "", want);
    qd_text_free(&text);
}

static void test_formats(void **state)
{
    struct qd_metrics *metrics = *state;
    check_text(metrics, false, "");
    check_text(metrics, true, "# EOF\n");
    qd_metrics_add(metrics, QD_METRIC_HTTP_REQUEST_BYTES, "", 10);
    qd_metrics_add(metrics, QD_METRIC_HTTP_REQUEST_BYTES, "", 0.5);
    qd_metrics_set(metrics, QD_METRIC_QUEUE_DEPTH, "", 3);
    qd_metrics_set(metrics, QD_METRIC_QUEUE_DEPTH, "", 2);
    check_text(metrics, false,
               "# HELP quantd_http_request_bytes_total Bytes of request bodies received.\n"
               "# TYPE quantd_http_request_bytes_total counter\nquantd_http_request_bytes_total 10.5\n"
               "# HELP quantd_queue_depth Inference requests waiting for a worker.\n# TYPE quantd_queue_depth gauge\n"
               "quantd_queue_depth 2\n");
    check_text(
        metrics, true,
        "# HELP quantd_http_request_bytes Bytes of request bodies received.\n# TYPE quantd_http_request_bytes counter\n"
        "# UNIT quantd_http_request_bytes bytes\nquantd_http_request_bytes_total 10.5\n"
        "# HELP quantd_queue_depth Inference requests waiting for a worker.\n# TYPE quantd_queue_depth gauge\n"
        "quantd_queue_depth 2\n# EOF\n");
}

static void test_labels(void **state)
{
    struct qd_metrics *metrics = *state;
    char labels[QD_METRICS_LABEL_BYTES], longer[2 * QD_METRICS_LABEL_BYTES];
    assert_string_equal(qd_metrics_labels(labels, "a", "x\"\\\ny", "b", "", NULL), "a=\"x\\\"\\\\\\ny\",b=\"\"");
    memset(longer, '"', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    qd_metrics_labels(labels, "model", longer, "more", "x", NULL);
    size_t n = strlen(labels);
    assert_true(n < sizeof labels && labels[n - 1] == '"' && labels[n - 2] == '"' && labels[n - 3] == '\\');
    qd_metrics_labels(labels, "a", "\xff", NULL);
    assert_string_equal(labels, "a=\"\"");
    qd_metrics_http(metrics, "/v2", "GET", 200, 0, 7);
    qd_metrics_http(metrics, "/v2", "GET", 200, 0, 7);
    qd_metrics_http(metrics, "/v2", "GET", 404, 0, 0);
    struct qd_text text = {0};
    qd_metrics_write(metrics, false, &text);
    assert_non_null(strstr(text.bytes, "quantd_http_requests_total{route=\"/v2\",method=\"GET\",code=\"200\"} 2\n"
                                       "quantd_http_requests_total{route=\"/v2\",method=\"GET\",code=\"404\"} 1\n"));
    assert_non_null(strstr(text.bytes, "quantd_http_response_bytes_total 14\n"));
    qd_text_free(&text);
}

static void test_histograms(void **state)
{
    struct qd_metrics *metrics = *state;
    struct qd_text text = {0};
    struct qd_series *series = qd_metrics_series(metrics, QD_METRIC_REQUEST_DURATION, "model=\"m\"");
    assert_ptr_equal(series, qd_metrics_series(metrics, QD_METRIC_REQUEST_DURATION, "model=\"m\""));
    qd_series_observe(series, 0.00005); /* on the bound: inside */
    qd_series_observe(series, 0.00006);
    qd_series_observe(series, 1000);
    qd_series_observe(series, (double)NAN);
    qd_metrics_write(metrics, false, &text);
    assert_non_null(strstr(text.bytes, "quantd_request_duration_seconds_bucket{model=\"m\",le=\"5e-05\"} 1\n"
                                       "quantd_request_duration_seconds_bucket{model=\"m\",le=\"0.0001\"} 2\n"));
    assert_non_null(strstr(text.bytes,
                           ",le=\"13.1072\"} 2\nquantd_request_duration_seconds_bucket{model=\"m\",le=\"+Inf\"} 3\n"
                           "quantd_request_duration_seconds_sum{model=\"m\"} 1000.00011\n"
                           "quantd_request_duration_seconds_count{model=\"m\"} 3\n"));
    qd_text_free(&text);
    qd_metrics_observe(metrics, QD_METRIC_BATCH_SIZE, "", 4);
    qd_metrics_write(metrics, true, &text);
    assert_non_null(
        strstr(text.bytes, "quantd_batch_size_bucket{le=\"2.0\"} 0\nquantd_batch_size_bucket{le=\"4.0\"} 1\n"));
    assert_non_null(strstr(text.bytes, "quantd_batch_size_sum 4\nquantd_batch_size_count 1\n"));
    qd_text_free(&text);
}

static void test_bounded(void **state)
{
    struct qd_metrics *metrics = *state;
    char labels[32];
    size_t made = 0;
    for (int i = 0; i < 100000; i++) {
        snprintf(labels, sizeof labels, "code=\"%d\"", i);
        struct qd_series *series = qd_metrics_series(metrics, QD_METRIC_REQUESTS, labels);
        qd_series_add(series, 1); /* harmless when there is none */
        made += series != NULL;
    }
    assert_int_equal(made, QD_METRICS_MAX_SERIES);
    assert_non_null(qd_metrics_series(metrics, QD_METRIC_REQUESTS, "code=\"5\""));
}

static void test_every_family_is_clean(void **state)
{
    static const struct {
        const char *name, *unit;
    } rows[] = {
#define QD_METRIC(id, type, name, unit, help) {name, unit},
#include "server/metrics.def"
#undef QD_METRIC
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t n = strlen(rows[i].name), unit = strlen(rows[i].unit);
        assert_true(strncmp(rows[i].name, "quantd_", 7) == 0 || strncmp(rows[i].name, "process_", 8) == 0);
        assert_null(strstr(rows[i].name, "_total"));
        assert_true(!unit || (n > unit && strcmp(rows[i].name + n - unit, rows[i].unit) == 0));
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(rows[i].name, rows[k].name);
    }
}

static void test_negotiation(void **state)
{
    (void)state;
    assert_false(qd_metrics_wants_openmetrics(NULL));
    assert_false(qd_metrics_wants_openmetrics(""));
    assert_false(qd_metrics_wants_openmetrics("*/*"));
    assert_false(qd_metrics_wants_openmetrics("text/plain"));
    assert_true(qd_metrics_wants_openmetrics("application/openmetrics-text"));
    assert_true(qd_metrics_wants_openmetrics(
        "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"));
    assert_false(qd_metrics_wants_openmetrics("application/openmetrics-text;q=0.1, text/plain;q=0.5"));
    assert_false(qd_metrics_wants_openmetrics("application/openmetrics-text;q=0"));
    assert_false(qd_metrics_wants_openmetrics("application/openmetrics-textual"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_formats, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_labels, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_histograms, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bounded, set_up, tear_down),
        cmocka_unit_test(test_every_family_is_clean),
        cmocka_unit_test(test_negotiation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
