/* State files: JSON, and behind it a line with its checksum. Text is made on the loop, written on a thread of libuv's.
 */
#include "server/state.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/state_biases.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VERSION        1
#define PATH_BYTES     4096
#define LARGEST        ((size_t)64 << 20) /* of a file */
#define CHECKSUM_BYTES (sizeof "\nfnv1a 0123456789abcdef\n" - 1)

struct qd_state {
    struct qd_repository *repository;
    struct qd_quant_options options; /* of the configuration: what differs from them is an override */
    char directory[PATH_BYTES];
    uv_timer_t timer;
    size_t writing; /* files under way */
};

/* One file on its way to the disk. */
struct writing {
    uv_work_t work;
    struct qd_state *state;
    struct qd_model_entry *entry;
    char path[PATH_BYTES], directory[PATH_BYTES];
    char *text;
    int failure; /* errno */
};

static uint64_t fnv1a(const char *bytes, size_t n)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * 1099511628211u;
    return hash;
}

static bool path_of(const struct qd_state *state, const struct qd_model_entry *entry, char path[PATH_BYTES])
{
    int n = snprintf(path, PATH_BYTES, "%s/%s-%016" PRIx64 ".json", state->directory, entry->name,
                     qd_model_digest(entry->model));
    return n > 0 && n < PATH_BYTES;
}

/* ------------------------------------------------------------------ as JSON */

static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }
static json_t *count(uint64_t value) { return json_integer((json_int_t)value); }

/* A given range, NULL for none. */
static json_t *given_json(const struct qd_range_state *r)
{
    if (!r->is_given)
        return NULL;
    return json_pack("{s:b, s:o, s:i, s:o, s:o}", "cuts", r->given.cuts, "scale", number((double)r->given.scale),
                     "zero_point", (int)r->given.zero_point, "min", number(r->given.lo), "max", number(r->given.hi));
}

static json_t *tensor_json(const struct qd_range_state *r)
{
    return json_pack("{s:s, s:b, s:[o,o], s:[o,o], s:[o,o], s:[o,o], s:o, s:o, s:o, s:[o,o], s:o, s:I, s:o*}", "name",
                     r->name, "ready", r->ready, "epoch", number(r->epoch_lo), number(r->epoch_hi), "average",
                     number(r->lo), number(r->hi), "observed", number(r->observed_min), number(r->observed_max), "last",
                     number(r->last_min), number(r->last_max), "observations", count(r->n), "elements",
                     count(r->elements), "nonfinite", count(r->nonfinite), "clipped", count(r->clipped_low),
                     count(r->clipped_high), "guarded", count(r->guarded), "updated_unix_ms",
                     (json_int_t)r->updated_unix_ms, "given", given_json(r));
}

static json_t *tensors_json(const struct qd_model *model)
{
    struct qd_ranges_summary summary;
    json_t *list = json_array();
    qd_model_ranges(model, &summary);
    for (size_t i = 0; i < summary.sites; i++) {
        struct qd_range_state range;
        qd_model_range_state(model, i, &range);
        json_array_append_new(list, tensor_json(&range));
    }
    return list;
}

static json_t *pin_json(const char *node, enum qd_precision precision)
{
    return json_pack("{s:s, s:s}", "node", node, "precision", qd_precision_name(precision));
}

static json_t *pins_json(const struct qd_quant_options *options, enum qd_pin_kind kind)
{
    json_t *list = json_array();
    for (size_t i = 0; i < options->pin_count; i++)
        if (options->pins[i].kind == kind)
            json_array_append_new(list, pin_json(options->pins[i].node, options->pins[i].precision));
    return list;
}

/* The precision of every layer with weights, whoever chose it: the same plan comes of it again. */
static json_t *layers_json(const struct qd_model *model)
{
    struct qd_plan_report plan;
    json_t *list = json_array();
    qd_model_plan(model, &plan);
    for (size_t i = 0; i < plan.steps; i++) {
        struct qd_step_report step;
        qd_model_step(model, i, &step);
        if (step.weight_bits && step.int8_us > 0)
            json_array_append_new(list, pin_json(step.node, step.precision));
    }
    return list;
}

/* Words and numbers that differ from the configuration's. */
static json_t *overrides_json(const struct qd_quant_options *base, const struct qd_quant_options *now)
{
    json_t *o = json_object();
    if (now->mode != base->mode)
        json_object_set_new(o, "mode", json_string(qd_mode_name(now->mode)));
    if (now->guard != base->guard)
        json_object_set_new(o, "guard", json_string(qd_guard_name(now->guard)));
    if (now->precision != base->precision)
        json_object_set_new(o, "precision", json_string(qd_precision_name(now->precision)));
    if (now->activation_scheme != base->activation_scheme)
        json_object_set_new(o, "activation_scheme", json_string(qd_scheme_name(now->activation_scheme)));
    if (now->activation_granularity != base->activation_granularity)
        json_object_set_new(o, "activation_granularity", json_string(qd_granularity_name(now->activation_granularity)));
    if (now->weight_granularity != base->weight_granularity)
        json_object_set_new(o, "weight_granularity", json_string(qd_granularity_name(now->weight_granularity)));
    if (now->weight_bits != base->weight_bits)
        json_object_set_new(o, "weight_bits", json_integer(now->weight_bits));
    if (now->smoothing != base->smoothing)
        json_object_set_new(o, "smoothing", json_boolean(now->smoothing));
    if (now->bias_correction != base->bias_correction)
        json_object_set_new(o, "bias_correction", json_boolean(now->bias_correction));
    if (now->averaging_constant != base->averaging_constant)
        json_object_set_new(o, "averaging_constant", json_real(now->averaging_constant));
    if (now->guard_tolerance != base->guard_tolerance)
        json_object_set_new(o, "guard_tolerance", json_real(now->guard_tolerance));
    return o;
}

/* The whole file; NULL: out of memory. */
static char *file_text(const struct qd_state *state, const struct qd_model_entry *entry)
{
    struct qd_ranges_summary summary;
    struct qd_plan_report plan;
    const struct qd_quant_options now = qd_model_options(entry->model);
    char digest[20], plan_digest[12], *text = NULL;
    qd_model_ranges(entry->model, &summary);
    qd_model_plan(entry->model, &plan);
    snprintf(digest, sizeof digest, "%016" PRIx64, qd_model_digest(entry->model));
    snprintf(plan_digest, sizeof plan_digest, "%08" PRIx32, plan.digest);
    json_t *root = json_pack("{s:i, s:s, s:s, s:s, s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "quantd_state",
                             VERSION, "model", entry->name, "digest", digest, "plan", plan_digest, "epoch",
                             count(summary.epoch), "requests", count(summary.requests), "frozen", summary.frozen,
                             "options", overrides_json(&state->options, &now), "pins", pins_json(&now, QD_PIN_ASKED),
                             "accurate", pins_json(&now, QD_PIN_ACCURACY), "layers", layers_json(entry->model),
                             "tensors", tensors_json(entry->model), "biases", qd_state_biases(entry->model), "smoothed",
                             qd_state_smoothed(&now));
    char *body = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    if (body) {
        const size_t n = strlen(body);
        text = qd_calloc(n + CHECKSUM_BYTES + 1, 1);
        if (text)
            snprintf(text, n + CHECKSUM_BYTES + 1, "%s\nfnv1a %016" PRIx64 "\n", body, fnv1a(body, n));
        free(body);
    }
    return text;
}

/* ------------------------------------------------------------------ to the disk */

static int write_all(int fd, const char *text)
{
    for (size_t left = strlen(text); left;) {
        ssize_t n = write(fd, text, left);
        if (n < 0 && errno != EINTR)
            return errno;
        text += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    return fsync(fd) == 0 ? 0 : errno;
}

/* Beside the old file, then over it, then the folder's own entry: at no moment is there half a file under the name. */
static int write_file(const struct writing *w)
{
    char beside[PATH_BYTES + 8];
    snprintf(beside, sizeof beside, "%s.new", w->path);
    int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return errno;
    int failure = write_all(fd, w->text);
    if (close(fd) != 0 && !failure)
        failure = errno;
    if (!failure && rename(beside, w->path) != 0)
        failure = errno;
    if (failure) {
        unlink(beside);
        return failure;
    }
    fd = open(w->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    failure = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    return failure;
}

static void on_thread(uv_work_t *work)
{
    struct writing *w = work->data;
    w->failure = write_file(w);
}

static void finish(struct writing *w)
{
    if (w->failure)
        qd_log(QD_LOG_WARNING, "the state of model '%s' can't be written: %s", w->entry->name, strerror(w->failure));
    w->entry->saving = false;
    qd_free(w->text);
    qd_free(w);
}

static void on_written(uv_work_t *work, int status)
{
    struct writing *w = work->data;
    (void)status;
    w->state->writing--;
    finish(w);
}

/* Has anything happened since it was written? */
static bool changed(struct qd_model_entry *entry)
{
    struct qd_ranges_summary now;
    struct qd_plan_report plan;
    qd_model_ranges(entry->model, &now);
    qd_model_plan(entry->model, &plan);
    const struct qd_saved saved = {now.epoch, now.requests, plan.digest, true};
    bool same = entry->saved.any && entry->saved.epoch == saved.epoch && entry->saved.requests == saved.requests &&
                entry->saved.plan == saved.plan;
    entry->saved = saved;
    return !same;
}

static void save(struct qd_state *state, struct qd_model_entry *entry, bool wait)
{
    if (entry->state != QD_STATE_READY || entry->saving || !changed(entry))
        return;
    struct writing *w = qd_calloc(1, sizeof *w);
    if (!w || !(w->text = file_text(state, entry)) || !path_of(state, entry, w->path)) {
        qd_log(QD_LOG_WARNING, "the state of model '%s' can't be written: no memory", entry->name);
        qd_free(w ? w->text : NULL);
        qd_free(w);
        return;
    }
    w->state = state;
    w->entry = entry;
    w->work.data = w;
    memcpy(w->directory, state->directory, sizeof w->directory);
    entry->saving = true;
    if (!wait && uv_queue_work(state->timer.loop, &w->work, on_thread, on_written) == 0) {
        state->writing++;
        return;
    }
    w->failure = write_file(w);
    finish(w);
}

static void on_timer(uv_timer_t *timer)
{
    struct qd_state *state = timer->data;
    for (size_t i = 0; i < qd_repository_count(state->repository); i++)
        save(state, qd_repository_at(state->repository, i), false);
}

/* ------------------------------------------------------------------ from the disk */

/* The file's text with its checksum line taken off; NULL with a phrase, or *phrase NULL when there is no file. */
static char *read_file(const char *path, const char **phrase)
{
    struct stat info;
    *phrase = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        *phrase = errno == ENOENT ? NULL : strerror(errno);
        return NULL;
    }
    *phrase = "it is no file of a sensible size";
    char *text = NULL;
    size_t n = 0;
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && (size_t)info.st_size <= LARGEST &&
        (text = qd_calloc((size_t)info.st_size + 1, 1)) != NULL)
        for (ssize_t got; n < (size_t)info.st_size && (got = read(fd, text + n, (size_t)info.st_size - n)) > 0;)
            n += (size_t)got;
    close(fd);
    char expected[CHECKSUM_BYTES + 1];
    if (text && n > CHECKSUM_BYTES) {
        *phrase = "its checksum is wrong";
        snprintf(expected, sizeof expected, "\nfnv1a %016" PRIx64 "\n", fnv1a(text, n - CHECKSUM_BYTES));
        if (memcmp(text + n - CHECKSUM_BYTES, expected, CHECKSUM_BYTES) == 0) {
            text[n - CHECKSUM_BYTES] = 0;
            return text;
        }
    }
    qd_free(text);
    return NULL;
}

static double number_at(const json_t *list, size_t i) { return json_number_value(json_array_get(list, i)); }

static uint64_t count_of(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));
    return value > 0 ? (uint64_t)value : 0;
}

static struct qd_range_given given_of(const json_t *given)
{
    return (struct qd_range_given){
        .cuts = json_is_true(json_object_get(given, "cuts")),
        .scale = (float)json_number_value(json_object_get(given, "scale")),
        .zero_point = (int32_t)json_integer_value(json_object_get(given, "zero_point")),
        .lo = json_number_value(json_object_get(given, "min")),
        .hi = json_number_value(json_object_get(given, "max")),
    };
}

static struct qd_range_state range_of(const json_t *t)
{
    const json_t *average = json_object_get(t, "average"), *epoch = json_object_get(t, "epoch"),
                 *observed = json_object_get(t, "observed"), *last = json_object_get(t, "last"),
                 *clipped = json_object_get(t, "clipped");
    const char *name = json_string_value(json_object_get(t, "name"));
    const bool sound = number_at(average, 0) <= number_at(average, 1) && number_at(epoch, 0) <= number_at(epoch, 1);
    return (struct qd_range_state){
        .name = name ? name : "",
        .epoch_lo = number_at(epoch, 0),
        .epoch_hi = number_at(epoch, 1),
        .ready = sound && json_is_true(json_object_get(t, "ready")),
        .is_given = json_is_object(json_object_get(t, "given")),
        .given = given_of(json_object_get(t, "given")),
        .lo = number_at(average, 0),
        .hi = number_at(average, 1),
        .observed_min = number_at(observed, 0),
        .observed_max = number_at(observed, 1),
        .last_min = number_at(last, 0),
        .last_max = number_at(last, 1),
        .n = sound ? count_of(t, "observations") : 0,
        .elements = count_of(t, "elements"),
        .nonfinite = count_of(t, "nonfinite"),
        .clipped_low = (uint64_t)number_at(clipped, 0),
        .clipped_high = (uint64_t)number_at(clipped, 1),
        .guarded = count_of(t, "guarded"),
        .updated_unix_ms = (int64_t)json_integer_value(json_object_get(t, "updated_unix_ms")),
    };
}

static const char *word_of(const json_t *object, const char *key)
{
    const char *word = json_string_value(json_object_get(object, key));
    return word ? word : "";
}

/* The options of the file: the configuration's, with what was changed while serving. `pins` has room for all. */
static struct qd_quant_options options_of(const struct qd_state *state, const json_t *root, struct qd_layer_pin *pins)
{
    static const struct {
        const char *key;
        enum qd_pin_kind kind;
    } lists[] = {{"layers", QD_PIN_TIMED}, {"accurate", QD_PIN_ACCURACY}, {"pins", QD_PIN_ASKED}}; /* the last counts */
    struct qd_quant_options o = state->options;
    const json_t *changed = json_object_get(root, "options"), *value;
    (void)qd_mode_from(word_of(changed, "mode"), &o.mode);
    (void)qd_guard_from(word_of(changed, "guard"), &o.guard);
    (void)qd_precision_from(word_of(changed, "precision"), &o.precision);
    (void)qd_scheme_from(word_of(changed, "activation_scheme"), &o.activation_scheme);
    (void)qd_granularity_from(word_of(changed, "activation_granularity"), &o.activation_granularity);
    (void)qd_granularity_from(word_of(changed, "weight_granularity"), &o.weight_granularity);
    if (json_is_integer(value = json_object_get(changed, "weight_bits")))
        o.weight_bits = (int)json_integer_value(value);
    if (json_is_boolean(value = json_object_get(changed, "smoothing")))
        o.smoothing = json_is_true(value);
    if (json_is_boolean(value = json_object_get(changed, "bias_correction")))
        o.bias_correction = json_is_true(value);
    if (json_is_number(value = json_object_get(changed, "averaging_constant")))
        o.averaging_constant = json_number_value(value);
    if (json_is_number(value = json_object_get(changed, "guard_tolerance")))
        o.guard_tolerance = json_number_value(value);
    o.pins = pins;
    o.pin_count = 0;
    for (size_t l = 0; l < sizeof lists / sizeof *lists; l++) {
        const json_t *list = json_object_get(root, lists[l].key);
        for (size_t i = 0; i < json_array_size(list); i++) {
            struct qd_layer_pin pin = {.node = word_of(json_array_get(list, i), "node"), .kind = lists[l].kind};
            if (*pin.node && qd_precision_from(word_of(json_array_get(list, i), "precision"), &pin.precision))
                pins[o.pin_count++] = pin;
        }
    }
    return o;
}

static bool has_plan(const struct qd_model *model, const json_t *root)
{
    struct qd_plan_report plan;
    char digest[12];
    qd_model_plan(model, &plan);
    snprintf(digest, sizeof digest, "%08" PRIx32, plan.digest);
    return strcmp(digest, word_of(root, "plan")) == 0;
}

/* The plan of the file, unless the model has it already. */
static enum qd_status restore_plan(const struct qd_state *state, struct qd_model_entry *entry, const json_t *root,
                                   struct qd_error *error)
{
    struct qd_change *change = NULL;
    const bool same = has_plan(entry->model, root) && json_object_size(json_object_get(root, "options")) == 0 &&
                      json_array_size(json_object_get(root, "pins")) == 0 &&
                      json_array_size(json_object_get(root, "smoothed")) == 0 &&
                      json_array_size(json_object_get(root, "accurate")) == 0;
    if (same)
        return QD_OK;
    const size_t room = json_array_size(json_object_get(root, "pins")) +
                        json_array_size(json_object_get(root, "accurate")) +
                        json_array_size(json_object_get(root, "layers"));
    const json_t *list = json_object_get(root, "smoothed");
    struct qd_layer_pin *pins = qd_calloc(room + 1, sizeof *pins);
    struct qd_smoothed_tensor *smoothed = qd_calloc(json_array_size(list) + 1, sizeof *smoothed);
    const size_t smoothed_count = smoothed ? qd_state_smoothed_read(list, smoothed) : 0;
    enum qd_status status = pins && smoothed ? QD_OK : qd_fail(error, QD_ERR_NO_MEMORY, "no memory for its options");
    if (!status) {
        struct qd_quant_options options = options_of(state, root, pins);
        options.smoothed = smoothed;
        options.smoothed_count = smoothed_count;
        status = qd_change_create(entry->model, &options, &change, error);
    }
    if (!status)
        status = qd_change_adopt(&change, error);
    qd_change_discard(&change);
    qd_state_smoothed_free(smoothed, smoothed_count);
    qd_free(pins);
    return status;
}

static enum qd_status restore(const struct qd_state *state, struct qd_model_entry *entry, const json_t *root,
                              struct qd_error *error)
{
    const json_t *tensors = json_object_get(root, "tensors");
    const size_t n = json_array_size(tensors);
    size_t restored = 0;
    if (json_integer_value(json_object_get(root, "quantd_state")) != VERSION)
        return qd_fail(error, QD_ERR_UNSUPPORTED, "it is of another version");
    enum qd_status status = restore_plan(state, entry, root, error);
    struct qd_range_state *ranges = status ? NULL : qd_calloc(n + 1, sizeof *ranges);
    if (!status && !ranges)
        status = qd_fail(error, QD_ERR_NO_MEMORY, "no memory for its ranges");
    for (size_t i = 0; !status && i < n; i++)
        ranges[i] = range_of(json_array_get(tensors, i));
    if (!status)
        status = qd_state_biases_restore(entry->model, json_object_get(root, "biases"), has_plan(entry->model, root),
                                         error);
    if (!status)
        status = qd_model_restore(entry->model, ranges, n, count_of(root, "epoch"), count_of(root, "requests"),
                                  json_is_true(json_object_get(root, "frozen")), &restored, error);
    if (!status)
        qd_log(QD_LOG_INFO, "model '%s' goes on from epoch %" PRIu64 ": %zu ranges", entry->name,
               count_of(root, "epoch"), restored);
    qd_free(ranges);
    return status;
}

static void set_aside(const char *path, const char *name, const char *phrase)
{
    char aside[PATH_BYTES + 16];
    snprintf(aside, sizeof aside, "%s.damaged", path);
    bool moved = rename(path, aside) == 0;
    qd_log(QD_LOG_WARNING, "the state of model '%s' can't be used, %s%s: it starts anew", name, phrase,
           moved ? " (the file was set aside as .damaged)" : "");
}

void qd_state_restore(struct qd_state *state)
{
    for (size_t i = 0; state && i < qd_repository_count(state->repository); i++) {
        struct qd_model_entry *entry = qd_repository_at(state->repository, i);
        struct qd_error error = {0};
        char path[PATH_BYTES];
        const char *phrase = NULL;
        if (entry->state != QD_STATE_READY || !path_of(state, entry, path))
            continue;
        char *text = read_file(path, &phrase);
        json_t *root = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
        if (text && !json_is_object(root))
            phrase = "it is no JSON object";
        else if (text && restore(state, entry, root, &error))
            phrase = error.text;
        else if (text)
            phrase = NULL;
        if (phrase)
            set_aside(path, entry->name, phrase);
        json_decref(root);
        qd_free(text);
        (void)changed(entry);
    }
}

/* ------------------------------------------------------------------ life */

enum qd_status qd_state_create(uv_loop_t *loop, struct qd_repository *repository, const char *directory,
                               const struct qd_quant_options *options, uint32_t interval_s, struct qd_state **out,
                               struct qd_error *error)
{
    *out = NULL;
    if (!*directory)
        return QD_OK;
    if (strlen(directory) >= PATH_BYTES - QD_MODEL_NAME_BYTES - 64 || access(directory, W_OK | X_OK) != 0)
        return qd_fail(error, QD_ERR_IO, "state_dir '%.200s' can't be written to: %s", directory, strerror(errno));
    struct qd_state *state = qd_calloc(1, sizeof *state);
    if (!state)
        return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for the models' state");
    state->repository = repository;
    state->options = *options;
    snprintf(state->directory, sizeof state->directory, "%s", directory);
    uv_timer_init(loop, &state->timer);
    state->timer.data = state;
    uv_timer_start(&state->timer, on_timer, (uint64_t)interval_s * 1000, (uint64_t)interval_s * 1000);
    *out = state;
    return QD_OK;
}

static void on_closed(uv_handle_t *handle) { qd_free(handle->data); }

void qd_state_destroy(struct qd_state **state)
{
    struct qd_state *s = *state;
    *state = NULL;
    if (!s)
        return;
    uv_timer_stop(&s->timer);
    while (s->writing)
        uv_run(s->timer.loop, UV_RUN_ONCE);
    for (size_t i = 0; i < qd_repository_count(s->repository); i++)
        save(s, qd_repository_at(s->repository, i), true);
    uv_close((uv_handle_t *)&s->timer, on_closed);
}
