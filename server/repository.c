/* Models by name: loading from files, from a folder and from the binary itself, states and statistics. */
#include "server/repository.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/audit.h"
#include "server/history.h"
#include "server/quant_options.h"
#include "server/snapshots.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PATH_BYTES   4096
#define BUILTIN_NAME "digits"

struct qd_repository {
    struct qd_engine *engine; /* borrowed */
    struct qd_quant_options options;
    const struct qd_config *config;  /* borrowed, or NULL */
    struct qd_model_entry **entries; /* pointers, so that entries don't move */
    size_t count, room;
};

const char *qd_model_state_name(enum qd_model_state state)
{
    static const char *const names[] = {"UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING"};
    return (unsigned)state < sizeof names / sizeof names[0] ? names[state] : names[0];
}

enum qd_status qd_repository_create(struct qd_engine *engine, const struct qd_quant_options *options,
                                    const struct qd_config *config, struct qd_repository **out, struct qd_error *error)
{
    struct qd_repository *repository = qd_calloc(1, sizeof *repository);
    *out = NULL;
    if (!repository)
        return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for the models' table");
    repository->engine = engine;
    repository->options = *options;
    repository->config = config;
    *out = repository;
    return QD_OK;
}

void qd_repository_destroy(struct qd_repository **repository)
{
    struct qd_repository *r = *repository;
    if (!r)
        return;
    for (size_t i = 0; i < r->count; i++) {
        qd_calibration_unref(&r->entries[i]->calibration);
        qd_snapshots_destroy(&r->entries[i]->snapshots);
        qd_history_destroy(&r->entries[i]->history);
        qd_audit_free(&r->entries[i]->audit);
        if (r->entries[i]->model)
            qd_model_unref(&r->entries[i]->model);
        qd_layers_free(&r->entries[i]->layers);
        qd_free(r->entries[i]);
    }
    qd_free(r->entries);
    qd_free(r);
    *repository = NULL;
}

static bool is_alnum(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

bool qd_model_name_valid(const char *name)
{
    size_t n = strnlen(name, QD_MODEL_NAME_BYTES + 1);
    if (n == 0 || n > QD_MODEL_NAME_BYTES || !is_alnum(name[0]))
        return false;
    for (size_t i = 1; i < n; i++)
        if (!is_alnum(name[i]) && name[i] != '.' && name[i] != '_' && name[i] != '-')
            return false;
    return true;
}

struct qd_model_entry *qd_repository_find(struct qd_repository *repository, const char *name, size_t length)
{
    for (size_t i = 0; i < repository->count; i++) {
        struct qd_model_entry *entry = repository->entries[i];
        if (strlen(entry->name) == length && memcmp(entry->name, name, length) == 0)
            return entry;
    }
    return NULL;
}

size_t qd_repository_count(const struct qd_repository *repository) { return repository->count; }
struct qd_model_entry *qd_repository_at(struct qd_repository *repository, size_t i) { return repository->entries[i]; }
const struct qd_engine *qd_repository_engine(const struct qd_repository *repository) { return repository->engine; }

bool qd_repository_ready(const struct qd_repository *repository)
{
    size_t ready = 0;
    for (size_t i = 0; i < repository->count; i++) {
        if (repository->entries[i]->state == QD_STATE_LOADING)
            return false;
        ready += repository->entries[i]->state == QD_STATE_READY;
    }
    return ready > 0;
}

/* ------------------------------------------------------------------ loading */

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* At random: two that are the same would pass for one replica and not be merged, which harms nobody. */
static void name_origin(char origin[QD_ORIGIN_BYTES + 1])
{
    uint64_t bits = 0;
    if (getrandom(&bits, sizeof bits, GRND_NONBLOCK) != (ssize_t)sizeof bits)
        bits = monotonic_ns() ^ (uint64_t)getpid() << 48;
    snprintf(origin, QD_ORIGIN_BYTES + 1, "%016" PRIx64, bits);
}

bool qd_origin_valid(const char *origin)
{
    return strlen(origin) == QD_ORIGIN_BYTES && strspn(origin, "0123456789abcdef") == QD_ORIGIN_BYTES;
}

static enum qd_status new_entry(struct qd_repository *repository, const char *name, struct qd_model_entry **out,
                                struct qd_error *error)
{
    if (!qd_model_name_valid(name))
        return qd_fail(
            error, QD_ERR_INVALID,
            "'%.64s' is no model name: letters, digits, '.', '_' and '-', at most %d, a letter or digit first", name,
            QD_MODEL_NAME_BYTES);
    if (qd_repository_find(repository, name, strlen(name)))
        return qd_fail(error, QD_ERR_CONFLICT, "there is a model named '%s' already", name);
    if (repository->count == repository->room) {
        size_t room = repository->room ? repository->room * 2 : 8;
        void *grown = qd_realloc(repository->entries, room, sizeof repository->entries[0]);
        if (!grown)
            return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for the models' table");
        repository->entries = grown;
        repository->room = room;
    }
    struct qd_model_entry *entry = qd_calloc(1, sizeof *entry);
    if (!entry)
        return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for the models' table");
    memcpy(entry->name, name, strlen(name) + 1);
    entry->state = QD_STATE_LOADING;
    entry->drift = -1;
    name_origin(entry->origin);
    repository->entries[repository->count++] = entry;
    *out = entry;
    return QD_OK;
}

/* From a file, or from memory when `path` is NULL. */
static enum qd_status load(struct qd_repository *repository, const char *name, const char *path, const void *bytes,
                           size_t size, struct qd_error *error)
{
    struct qd_model_entry *entry = NULL;
    struct qd_error reason = {0};
    uint64_t start = monotonic_ns();
    enum qd_status status = new_entry(repository, name, &entry, error);
    if (status)
        return status;
    entry->base = repository->options;
    if (repository->config)
        status = qd_config_quant_of(repository->config, name, &entry->layers, &entry->base, &reason);
    if (!status && path)
        status = qd_model_load_file(repository->engine, name, path, &entry->base, &entry->model, &reason);
    else if (!status)
        status = qd_model_load_memory(repository->engine, name, bytes, size, &entry->base, &entry->model, &reason);
    entry->load_ns = monotonic_ns() - start;
    entry->state = status ? QD_STATE_UNAVAILABLE : QD_STATE_READY;
    if (status) {
        entry->reason = reason;
        if (error)
            *error = reason;
        qd_log(QD_LOG_ERROR, "model '%s' can't be served: %s", name, reason.text);
        return status;
    }
    qd_log(QD_LOG_INFO, "model '%s' is ready after %.1f ms", name, (double)entry->load_ns / 1e6);
    return QD_OK;
}

enum qd_status qd_repository_add_file(struct qd_repository *repository, const char *name, const char *path,
                                      struct qd_error *error)
{
    return load(repository, name, path, NULL, 0, error);
}

enum qd_status qd_repository_add_builtin(struct qd_repository *repository, struct qd_error *error)
{
    return load(repository, BUILTIN_NAME, NULL, qd_builtin_digits_onnx, qd_builtin_digits_onnx_size, error);
}

static bool is_file(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

/* The model that an entry of the folder stands for: its name and its file. */
static bool find_model(const char *directory, const char *entry, char *name, char *path)
{
    static const char *const inside[] = {"1/model.onnx", "model.onnx"};
    size_t n = strlen(entry);
    if (n > 5 && n - 5 <= QD_MODEL_NAME_BYTES && strcmp(entry + n - 5, ".onnx") == 0) {
        int length = snprintf(path, PATH_BYTES, "%s/%s", directory, entry);
        if (length > 0 && length < PATH_BYTES && is_file(path)) {
            memcpy(name, entry, n - 5);
            name[n - 5] = 0;
            return true;
        }
    }
    if (n > QD_MODEL_NAME_BYTES)
        return false;
    memcpy(name, entry, n + 1);
    for (size_t i = 0; i < sizeof inside / sizeof inside[0]; i++) {
        int length = snprintf(path, PATH_BYTES, "%s/%s/%s", directory, entry, inside[i]);
        if (length > 0 && length < PATH_BYTES && is_file(path))
            return true;
    }
    return false;
}

static int not_hidden(const struct dirent *entry) { return entry->d_name[0] != '.'; }

enum qd_status qd_repository_add_directory(struct qd_repository *repository, const char *path, struct qd_error *error)
{
    struct dirent **found = NULL;
    size_t models = 0;
    int count = scandir(path, &found, not_hidden, alphasort);
    if (count < 0)
        return qd_fail(error, QD_ERR_IO, "the model repository can't be read: %s", strerror(errno));
    for (int i = 0; i < count; i++) {
        char name[QD_MODEL_NAME_BYTES + 1], file[PATH_BYTES];
        struct qd_error reason = {0};
        if (find_model(path, found[i]->d_name, name, file)) {
            models++;
            enum qd_status status = load(repository, name, file, NULL, 0, &reason);
            if (status == QD_ERR_INVALID || status == QD_ERR_CONFLICT)
                qd_log(QD_LOG_WARNING, "model repository: %s", reason.text);
        } else
            qd_log(QD_LOG_WARNING, "model repository: '%s' holds no model.onnx", found[i]->d_name);
        free(found[i]);
    }
    free(found);
    return models ? QD_OK : qd_fail(error, QD_ERR_NOT_FOUND, "the model repository holds no model");
}

/* ------------------------------------------------------------------ statistics */

static void add(struct qd_duration *duration, uint64_t ns)
{
    duration->count++;
    duration->ns += ns;
}

static uint64_t unix_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

void qd_model_stats_success(struct qd_model_stats *stats, uint64_t rows, uint64_t runs,
                            const struct qd_request_times *times)
{
    stats->last_inference_ms = unix_ms();
    stats->inference_count += rows;
    stats->execution_count += runs;
    add(&stats->success, times->total);
    add(&stats->queue, times->queue);
    add(&stats->compute_input, times->input);
    add(&stats->compute_infer, times->infer);
    add(&stats->compute_output, times->output);
    size_t i = 0;
    while (i < stats->batch_count && stats->batches[i].size != rows)
        i++;
    if (i == QD_BATCH_KINDS)
        return; /* sizes beyond the first kinds are counted in the totals only */
    if (i == stats->batch_count)
        stats->batches[stats->batch_count++].size = rows;
    add(&stats->batches[i].input, times->input);
    add(&stats->batches[i].infer, times->infer);
    add(&stats->batches[i].output, times->output);
}

void qd_model_stats_fail(struct qd_model_stats *stats, uint64_t total_ns) { add(&stats->fail, total_ns); }
