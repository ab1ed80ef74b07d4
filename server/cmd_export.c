/* `quantd export FILE`: what a daemon has learned (its --state-dir) or what a folder of data sets shows, as a finished
 * QDQ ONNX model or as a table of ranges. It serves nothing and changes no file but its output. */
#include "server/cmd.h"
#include "server/range_formats.h"
#include "server/state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct task {
    const char *file, *folder, *state_dir, *name, *method_name, *scheme, *precision, *format_name, *path;
    enum qd_method method;
    double percentile;
    enum qd_range_format format;
    struct qd_quant_options quant;
};

static bool put_file(void *file, const void *bytes, size_t size) { return fwrite(bytes, 1, size, file) == size; }

static enum qd_status write_model(struct qd_export *export, FILE *out, struct qd_error *error)
{
    struct qd_export_report report;
    enum qd_status status = qd_export_write(export, put_file, out, error);
    qd_export_report(export, &report);
    if (!status)
        fprintf(stderr,
                "quantd export: epoch %" PRIu64
                ", %zu layers in INT8 (of %zu the weights alone), %zu left in floats, %zu tensors\n",
                report.epoch, report.layers, report.rows, report.left, report.tensors);
    return status;
}

static enum qd_status write_table(const struct qd_export *export, enum qd_range_format format, FILE *out,
                                  struct qd_error *error)
{
    struct qd_text text = {0};
    enum qd_status status = qd_range_format_write(&text, export, format, error);
    if (!status && (text.failed || !put_file(out, text.bytes, text.length) || fputc('\n', out) == EOF))
        status = qd_fail(error, QD_ERR_IO, "the table can't be written");
    qd_text_free(&text);
    return status;
}

/* Beside its place first, so that a failure leaves what was there. */
static enum qd_status write_output(const struct task *task, struct qd_model *model, struct qd_error *error)
{
    char beside[4096];
    if ((size_t)snprintf(beside, sizeof beside, "%s.part", task->path) >= sizeof beside)
        return qd_fail(error, QD_ERR_INVALID, "the path of --out is too long");
    struct qd_export *export;
    enum qd_status status = qd_export_create(model, 0, &export, error);
    if (status)
        return status;
    FILE *out = fopen(beside, "wb");
    if (out)
        status = task->format == QD_RANGES_QDQ ? write_model(export, out, error)
                                               : write_table(export, task->format, out, error);
    else
        status = qd_fail(error, QD_ERR_IO, "%.200s: %s", beside, strerror(errno));
    qd_export_destroy(&export);
    if (!out)
        return status;
    const bool closed = fclose(out) == 0;
    if (!status && (!closed || rename(beside, task->path) != 0))
        status = qd_fail(error, QD_ERR_IO, "%.200s: %s", task->path, strerror(errno));
    if (status)
        (void)remove(beside);
    return status;
}

static enum qd_status from_calibration(const struct task *task, struct qd_engine *engine, struct qd_error *error)
{
    struct qd_model *model = NULL;
    struct qd_calibration *calibration = NULL;
    enum qd_status status = qd_model_load_file(engine, task->file, task->file, &task->quant, &model, error);
    if (!status)
        status = qd_calibration_create(model, &calibration, error);
    if (!status)
        status = qd_cmd_calibrate(model, calibration, task->folder, task->method, task->percentile, error);
    if (!status)
        status = write_output(task, model, error);
    qd_calibration_unref(&calibration);
    qd_model_unref(&model);
    return status;
}

/* The model as a daemon would go on with it. */
static enum qd_status from_state(const struct task *task, struct qd_engine *engine, struct qd_error *error)
{
    uv_loop_t loop;
    struct qd_repository *repository = NULL;
    struct qd_state *state = NULL;
    struct qd_ranges_summary summary;
    enum qd_status status = QD_OK;
    if (uv_loop_init(&loop) != 0)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for an event loop");
    status = qd_repository_create(engine, &task->quant, NULL, &repository, error);
    if (!status)
        status = qd_repository_add_file(repository, task->name, task->file, error);
    if (!status)
        status = qd_state_create(&loop, repository, task->state_dir, 3600, &state, error);
    if (!status) {
        struct qd_model *model = qd_repository_at(repository, 0)->model;
        qd_state_restore(state);
        qd_model_ranges(model, &summary);
        status = summary.requests == 0 && summary.epoch <= 1
                     ? qd_fail(error, QD_ERR_NOT_FOUND, "%.200s holds nothing learned of a model '%s' with these bytes",
                               task->state_dir, task->name)
                     : write_output(task, model, error);
    }
    qd_state_destroy(&state);
    uv_run(&loop, UV_RUN_DEFAULT);
    qd_repository_destroy(&repository);
    uv_loop_close(&loop);
    return status;
}

static int check(struct task *task)
{
    if (!task->path || (!task->folder == !task->state_dir))
        return qd_cmd_say("export", QD_EXIT_USAGE, "one FILE, --calibrate or --state-dir, and --out, please");
    if (!qd_method_from(task->method_name, &task->method))
        return qd_cmd_say("export", QD_EXIT_USAGE,
                          "--method must be minmax, ema, percentile, entropy or mse, is \"%s\"", task->method_name);
    if (!qd_scheme_from(task->scheme, &task->quant.activation_scheme))
        return qd_cmd_say("export", QD_EXIT_USAGE, "--scheme must be asymmetric or symmetric, is \"%s\"", task->scheme);
    if (!qd_precision_from(task->precision, &task->quant.precision))
        return qd_cmd_say("export", QD_EXIT_USAGE, "--precision must be int8 or auto, is \"%s\"", task->precision);
    if (!qd_range_format_from(task->format_name, &task->format))
        return qd_cmd_say("export", QD_EXIT_USAGE,
                          "--format must be qdq, quantd, ort-calibration, torch or tf, is \"%s\"", task->format_name);
    return QD_EXIT_OK;
}

int qd_cmd_export(int argc, char **argv)
{
    struct task task = {.name = NULL,
                        .method_name = "minmax",
                        .scheme = "asymmetric",
                        .precision = "int8",
                        .format_name = "qdq",
                        .percentile = QD_DEFAULT_PERCENTILE,
                        .quant = qd_quant_defaults()};
    const struct qd_flag flags[] = {{.name = "calibrate", .text = &task.folder},
                                    {.name = "state-dir", .text = &task.state_dir},
                                    {.name = "name", .text = &task.name},
                                    {.name = "method", .text = &task.method_name},
                                    {.name = "percentile", .number = &task.percentile},
                                    {.name = "scheme", .text = &task.scheme},
                                    {.name = "precision", .text = &task.precision},
                                    {.name = "format", .text = &task.format_name},
                                    {.name = "out", .text = &task.path}};
    struct qd_engine_options options = {.threads = 0};
    struct qd_engine *engine = NULL;
    struct qd_error error;
    int files = qd_cmd_flags("export", flags, sizeof flags / sizeof flags[0], argc, argv);
    if (files < 0)
        return QD_EXIT_USAGE;
    if (files != 1)
        return qd_cmd_say("export", QD_EXIT_USAGE, "one FILE, --calibrate or --state-dir, and --out, please");
    int code = check(&task);
    if (code)
        return code;
    task.file = argv[0];
    if (!task.name) { /* the file's, as the daemon's users tend to call it */
        static char stem[QD_MODEL_NAME_BYTES + 1];
        const char *slash = strrchr(task.file, '/');
        snprintf(stem, sizeof stem, "%s", slash ? slash + 1 : task.file);
        char *dot = strrchr(stem, '.');
        if (dot && dot != stem)
            *dot = 0;
        task.name = stem;
    }
    enum qd_status status = qd_engine_create(&options, &engine, &error);
    if (!status)
        status = task.folder ? from_calibration(&task, engine, &error) : from_state(&task, engine, &error);
    qd_engine_destroy(&engine);
    return status ? qd_cmd_say("export", QD_EXIT_FAILED, "%s", error.text) : QD_EXIT_OK;
}
