/* ONNX Runtime behind the benchmark's seam, through the C interface that its shared library exports, so that Python's
 * overhead counts for nobody. Declared here is only what is used of version 1 of its table of functions, whose order
 * never changes (later versions append); the gaps are counted in pointers. */
#include "tests/bench/runner.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* Objects of the library that are only handed back to it. */
struct ort_status;
struct ort_env;
struct ort_options;
struct ort_session;
struct ort_value;
struct ort_info;
struct ort_memory;
struct ort_allocator;

/* Every function that returns a status returns NULL when it succeeded. */
typedef struct ort_status *ort_result;

struct ort_table {
    void *entry_0[2];
    const char *(*message)(const struct ort_status *status); /* 2 */
    ort_result (*create_env)(int log_level, const char *log_id, struct ort_env **out);
    void *entry_4[3];
    ort_result (*create_session)(const struct ort_env *env, const char *path, const struct ort_options *options,
                                 struct ort_session **out); /* 7 */
    void *entry_8[1];
    ort_result (*run)(struct ort_session *session, const void *run_options, const char *const *input_names,
                      const struct ort_value *const *inputs, size_t input_count, const char *const *output_names,
                      size_t output_count, struct ort_value **outputs); /* 9 */
    ort_result (*create_options)(struct ort_options **out);
    void *entry_11[13];
    ort_result (*set_threads)(struct ort_options *options, int threads); /* 24 */
    void *entry_25[5];
    ort_result (*input_count)(const struct ort_session *session, size_t *out); /* 30 */
    ort_result (*output_count)(const struct ort_session *session, size_t *out);
    void *entry_32[4];
    ort_result (*input_name)(const struct ort_session *session, size_t i, struct ort_allocator *allocator,
                             char **out); /* 36 */
    ort_result (*output_name)(const struct ort_session *session, size_t i, struct ort_allocator *allocator, char **out);
    void *entry_38[11];
    ort_result (*tensor_over_data)(const struct ort_memory *memory, void *data, size_t bytes, const int64_t *dims,
                                   size_t rank, int type, struct ort_value **out); /* 49 */
    void *entry_50[1];
    ort_result (*tensor_data)(struct ort_value *value, void **out); /* 51 */
    void *entry_52[8];
    ort_result (*element_type)(const struct ort_info *info, int *out); /* 60 */
    ort_result (*rank)(const struct ort_info *info, size_t *out);
    ort_result (*dimensions)(const struct ort_info *info, int64_t *dims, size_t rank);
    void *entry_63[2];
    ort_result (*type_and_shape)(const struct ort_value *value, struct ort_info **out); /* 65 */
    void *entry_66[3];
    ort_result (*cpu_memory)(int allocator_type, int memory_type, struct ort_memory **out); /* 69 */
    void *entry_70[8];
    ort_result (*default_allocator)(struct ort_allocator **out); /* 78 */
    void *entry_79[14];
    void (*release_status)(struct ort_status *status); /* 93 */
    void *entry_94[2];
    void (*release_value)(struct ort_value *value); /* 96 */
    void *entry_97[2];
    void (*release_info)(struct ort_info *info); /* 99 */
};

struct ort_base {
    const struct ort_table *(*table)(uint32_t version);
    const char *(*version)(void);
};

enum { LOG_FATAL = 4, DEVICE_ALLOCATOR = 0, DEFAULT_MEMORY = 0 };

static const struct ort_base *base;
static const struct ort_table *ort;
static struct ort_session *session;
static struct ort_memory *memory;
static size_t model_inputs, model_outputs, given_inputs;
static char *model_input_names[BENCH_MAX_IO], *output_names[BENCH_MAX_IO];
static const char *input_names[BENCH_MAX_IO];
static struct ort_value *inputs[BENCH_MAX_IO], *outputs[BENCH_MAX_IO];

static enum qd_status failed(ort_result result, struct qd_error *error)
{
    if (!result)
        return QD_OK;
    (void)qd_fail(error, QD_ERR_INTERNAL, "%s", ort->message(result));
    ort->release_status(result);
    return QD_ERR_INTERNAL;
}

static enum qd_status open_library(const char *path, struct qd_error *error)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const struct ort_base *(*get_base)(void) = NULL;
    if (library)
        *(void **)&get_base = dlsym(library, "OrtGetApiBase");
    if (!get_base)
        return qd_fail(error, QD_ERR_NOT_FOUND, "%s", dlerror());
    base = get_base();
    ort = base->table(1);
    return ort ? QD_OK : qd_fail(error, QD_ERR_UNSUPPORTED, "the library has no version 1 of the C interface");
}

static enum qd_status read_names(struct qd_error *error)
{
    struct ort_allocator *allocator;
    enum qd_status status = failed(ort->default_allocator(&allocator), error);
    if (!status)
        status = failed(ort->input_count(session, &model_inputs), error);
    if (!status)
        status = failed(ort->output_count(session, &model_outputs), error);
    if (!status && (model_inputs > BENCH_MAX_IO || model_outputs > BENCH_MAX_IO))
        status = qd_fail(error, QD_ERR_TOO_LARGE, "more than %d inputs or outputs", BENCH_MAX_IO);
    for (size_t i = 0; i < model_inputs && !status; i++)
        status = failed(ort->input_name(session, i, allocator, &model_input_names[i]), error);
    for (size_t i = 0; i < model_outputs && !status; i++)
        status = failed(ort->output_name(session, i, allocator, &output_names[i]), error);
    return status;
}

static enum qd_status load(const struct bench_options *options, struct qd_error *error)
{
    struct ort_env *env;
    struct ort_options *session_options;
    enum qd_status status = open_library(options->library, error);
    if (!status)
        status = failed(ort->create_env(LOG_FATAL, "bench", &env), error);
    if (!status)
        status = failed(ort->create_options(&session_options), error);
    if (!status)
        status = failed(ort->set_threads(session_options, (int)options->threads), error);
    if (!status)
        status = failed(ort->create_session(env, options->model, session_options, &session), error);
    if (!status)
        status = failed(ort->cpu_memory(DEVICE_ALLOCATOR, DEFAULT_MEMORY, &memory), error);
    return status ? status : read_names(error);
}

static enum qd_status set_inputs(const struct bench_inputs *new_inputs, struct qd_error *error)
{
    enum qd_status status = QD_OK;
    for (size_t i = 0; i < given_inputs; i++)
        ort->release_value(inputs[i]);
    given_inputs = 0;
    for (size_t i = 0; i < new_inputs->count && !status; i++) {
        const struct qd_tensor *tensor = &new_inputs->tensors[i];
        if (!new_inputs->names[i][0] && i >= model_inputs)
            return qd_fail(error, QD_ERR_INVALID, "the model has only %zu inputs", model_inputs);
        input_names[i] = new_inputs->names[i][0] ? new_inputs->names[i] : model_input_names[i];
        status = failed(ort->tensor_over_data(memory, tensor->data, qd_tensor_bytes(tensor), tensor->shape.dims,
                                              (size_t)tensor->shape.rank, qd_dtype_to_onnx(tensor->dtype), &inputs[i]),
                        error);
        given_inputs += status == QD_OK;
    }
    return status;
}

static enum qd_status run(struct qd_error *error)
{
    for (size_t i = 0; i < model_outputs; i++) {
        if (outputs[i])
            ort->release_value(outputs[i]);
        outputs[i] = NULL;
    }
    return failed(ort->run(session, NULL, input_names, (const struct ort_value *const *)inputs, given_inputs,
                           (const char *const *)output_names, model_outputs, outputs),
                  error);
}

static size_t output_count(void) { return model_outputs; }

static enum qd_status output(size_t i, struct qd_tensor *out, struct qd_error *error)
{
    struct ort_info *info = NULL;
    int type = 0;
    size_t rank = 0;
    memset(out, 0, sizeof *out);
    enum qd_status status = outputs[i] ? QD_OK : qd_fail(error, QD_ERR_INVALID, "nothing has run yet");
    if (!status)
        status = failed(ort->type_and_shape(outputs[i], &info), error);
    if (!status)
        status = failed(ort->element_type(info, &type), error);
    if (!status)
        status = failed(ort->rank(info, &rank), error);
    if (!status && rank > QD_MAX_RANK)
        status = qd_fail(error, QD_ERR_SHAPE, "an output of rank %zu", rank);
    if (!status)
        status = failed(ort->dimensions(info, out->shape.dims, rank), error);
    if (!status)
        status = failed(ort->tensor_data(outputs[i], &out->data), error);
    out->dtype = qd_dtype_from_onnx(type);
    out->shape.rank = (int)rank;
    if (info)
        ort->release_info(info);
    return status;
}

static const char *version(void) { return base->version(); }

const struct bench_backend bench_ort = {.name = "ort",
                                        .load = load,
                                        .set_inputs = set_inputs,
                                        .run = run,
                                        .output_count = output_count,
                                        .output = output,
                                        .version = version};
