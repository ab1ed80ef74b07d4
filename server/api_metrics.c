/* GET /metrics: brings gauges up to date from where their truth lies (the process, the log, models and their ranges),
 * then writes the table of metrics. Labels are names of models and of their tensors, at most QD_METRICS_MAX_TENSORS
 * each. */
#include "server/api.h"

#include "server/job.h"
#include "server/routes.h"
#include "server/serve.h"
#include "server/snapshots.h"

#include "base/log.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#ifndef QD_VERSION
#define QD_VERSION "unknown"
#endif
#ifndef QD_REVISION
#define QD_REVISION "unknown"
#endif

/* Start of the process, from the kernel's boot-relative ticks; 0 when /proc is not there. */
static double process_start(void)
{
    static double cached;
    char text[1024];
    FILE *file = cached > 0 ? NULL : fopen("/proc/self/stat", "r");
    if (!file)
        return cached;
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = 0;
    const char *at = strrchr(text, ')'); /* the name may hold blanks */
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    struct timespec now, boot;
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    if (at)
        cached = (double)(now.tv_sec - boot.tv_sec) + (double)(now.tv_nsec - boot.tv_nsec) / 1e9 +
                 strtod(at + 1, NULL) / (double)sysconf(_SC_CLK_TCK);
    return cached;
}

static double open_files(void)
{
    double count = 0;
    DIR *folder = opendir("/proc/self/fd");
    if (!folder)
        return 0;
    for (const struct dirent *entry = readdir(folder); entry; entry = readdir(folder))
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count - 1; /* the folder itself */
}

static double seconds(struct timeval time) { return (double)time.tv_sec + (double)time.tv_usec / 1e6; }

static void collect_process(struct qd_metrics *metrics)
{
    struct rusage usage;
    struct rlimit limit;
    unsigned long pages = 0, resident = 0;
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        qd_metrics_set(metrics, QD_METRIC_PROCESS_CPU, "", seconds(usage.ru_utime) + seconds(usage.ru_stime));
    FILE *file = fopen("/proc/self/statm", "r");
    if (file) {
        if (fscanf(file, "%lu %lu", &pages, &resident) == 2) {
            double page_bytes = (double)sysconf(_SC_PAGESIZE);
            qd_metrics_set(metrics, QD_METRIC_PROCESS_VIRTUAL, "", (double)pages * page_bytes);
            qd_metrics_set(metrics, QD_METRIC_PROCESS_RESIDENT, "", (double)resident * page_bytes);
        }
        fclose(file);
    }
    qd_metrics_set(metrics, QD_METRIC_PROCESS_OPEN_FDS, "", open_files());
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        qd_metrics_set(metrics, QD_METRIC_PROCESS_MAX_FDS, "", (double)limit.rlim_cur);
    qd_metrics_set(metrics, QD_METRIC_PROCESS_START, "", process_start());
}

static void collect_tensor(struct qd_metrics *metrics, const char *model, const struct qd_range_report *range)
{
    char labels[QD_METRICS_LABEL_BYTES];
    double clipped = (double)(range->clipped_low + range->clipped_high);
    qd_metrics_labels(labels, "model", model, "version", QD_MODEL_VERSION, "tensor", range->name, NULL);
    qd_metrics_set(metrics, QD_METRIC_RANGE_MIN, labels, range->ema_min);
    qd_metrics_set(metrics, QD_METRIC_RANGE_MAX, labels, range->ema_max);
    qd_metrics_set(metrics, QD_METRIC_RANGE_SATURATION, labels,
                   range->elements ? clipped / (double)range->elements : 0);
    qd_metrics_set(metrics, QD_METRIC_RANGE_GUARDED, labels, (double)range->guarded);
    qd_metrics_set(metrics, QD_METRIC_RANGE_NONFINITE, labels, (double)range->nonfinite);
}

static void collect_ranges(struct qd_metrics *metrics, const struct qd_model_entry *entry, const char *labels)
{
    struct qd_ranges_summary summary;
    qd_model_ranges(entry->model, &summary);
    qd_metrics_set(metrics, QD_METRIC_RANGE_EPOCH, labels, (double)summary.epoch);
    qd_metrics_set(metrics, QD_METRIC_RANGE_UPDATES, labels, (double)summary.requests);
    qd_metrics_set(metrics, QD_METRIC_RANGE_FROZEN, labels, summary.frozen);
    qd_metrics_set(metrics, QD_METRIC_RANGE_SNAPSHOTS, labels, (double)qd_snapshots_count(entry));
    qd_metrics_set(metrics, QD_METRIC_RANGE_DRIFT, labels, entry->drift > 0 ? entry->drift : 0);
    qd_metrics_set(metrics, QD_METRIC_RANGE_DRIFTING, labels, entry->drifting);
    struct qd_accuracy_report accuracy;
    qd_model_accuracy(entry->model, &accuracy);
    if (accuracy.sampled) {
        qd_metrics_set(metrics, QD_METRIC_ACCURACY_SAMPLED, labels, (double)accuracy.sampled);
        qd_metrics_set(metrics, QD_METRIC_ACCURACY_COSINE, labels, accuracy.cosine_mean);
    }
    for (size_t i = 0; i < summary.sites && i < QD_METRICS_MAX_TENSORS; i++) {
        struct qd_range_report range;
        qd_model_range(entry->model, i, &range);
        collect_tensor(metrics, entry->name, &range);
    }
}

static void collect_model(struct qd_metrics *metrics, const struct qd_model_entry *entry)
{
    char labels[QD_METRICS_LABEL_BYTES], info[QD_METRICS_LABEL_BYTES], digest[16];
    struct qd_plan_report plan;
    qd_metrics_labels(labels, "model", entry->name, "version", QD_MODEL_VERSION, NULL);
    qd_metrics_set(metrics, QD_METRIC_MODEL_READY, labels, entry->state == QD_STATE_READY);
    qd_metrics_set(metrics, QD_METRIC_MODEL_LOAD_TIME, labels, (double)entry->load_ns / 1e9);
    if (!entry->model)
        return;
    qd_model_plan(entry->model, &plan);
    snprintf(digest, sizeof digest, "%08x", (unsigned)plan.digest);
    qd_metrics_labels(info, "model", entry->name, "version", QD_MODEL_VERSION, "precision",
                      plan.macs[QD_INT8] ? "int8" : "fp32", "plan", digest, NULL);
    qd_metrics_set(metrics, QD_METRIC_MODEL_INFO, info, 1);
    qd_metrics_set(metrics, QD_METRIC_MODEL_MEMORY, labels, (double)plan.packed_bytes);
    qd_metrics_set(metrics, QD_METRIC_INFERENCES, labels, (double)entry->stats.inference_count);
    qd_metrics_set(metrics, QD_METRIC_EXECUTIONS, labels, (double)entry->stats.execution_count);
    collect_ranges(metrics, entry, labels);
}

void qd_api_collect(struct qd_metrics *metrics, struct qd_repository *repository)
{
    char labels[QD_METRICS_LABEL_BYTES];
    double loads[2] = {0, 0};
    qd_metrics_labels(labels, "version", QD_VERSION, "revision", QD_REVISION, "isa",
                      qd_engine_isa(qd_repository_engine(repository)), NULL);
    qd_metrics_set(metrics, QD_METRIC_BUILD_INFO, labels, 1);
    for (size_t i = 0; i < qd_repository_count(repository); i++) {
        const struct qd_model_entry *entry = qd_repository_at(repository, i);
        loads[entry->state == QD_STATE_UNAVAILABLE]++;
        collect_model(metrics, entry);
    }
    qd_metrics_set(metrics, QD_METRIC_MODEL_LOADS, qd_metrics_labels(labels, "result", "ok", NULL), loads[0]);
    qd_metrics_set(metrics, QD_METRIC_MODEL_LOADS, qd_metrics_labels(labels, "result", "error", NULL), loads[1]);
    for (int level = 0; level < QD_LOG_LEVEL_COUNT; level++)
        qd_metrics_set(metrics, QD_METRIC_LOG_MESSAGES,
                       qd_metrics_labels(labels, "level", qd_log_level_name((enum qd_log_level)level), NULL),
                       (double)qd_log_count((enum qd_log_level)level));
    collect_process(metrics);
}

static void collect_saves(struct qd_metrics *metrics, const struct qd_state *state)
{
    char labels[QD_METRICS_LABEL_BYTES];
    const struct qd_state_saves saves = qd_state_saves(state);
    qd_metrics_set(metrics, QD_METRIC_STATE_SAVES, qd_metrics_labels(labels, "result", "ok", NULL), (double)saves.done);
    qd_metrics_set(metrics, QD_METRIC_STATE_SAVES, qd_metrics_labels(labels, "result", "error", NULL),
                   (double)saves.failed);
    if (saves.last_unix_s)
        qd_metrics_set(metrics, QD_METRIC_STATE_SAVED, "", (double)saves.last_unix_s);
}

/* ------------------------------------------------------------------ handlers */

void qd_handle_metrics(struct qd_http_request *request)
{
    struct qd_server *server = request->server;
    struct qd_text text = {0};
    bool openmetrics = qd_metrics_wants_openmetrics(qd_http_header(request, "Accept"));
    qd_metrics_set(server->metrics, QD_METRIC_QUEUE_DEPTH, "",
                   server->jobs ? (double)qd_jobs_waiting(server->jobs) : 0);
    qd_api_collect(server->metrics, server->repository);
    if (server->state)
        collect_saves(server->metrics, server->state);
    qd_metrics_write(server->metrics, openmetrics, &text);
    qd_api_respond(request, 200, openmetrics ? QD_METRICS_OPEN_TYPE : QD_METRICS_TEXT_TYPE, &text);
}
