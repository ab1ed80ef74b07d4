/* `quantd quantize FILE --calibrate FOLDER`: runs the folder's data sets in full precision and writes the ranges that a
 * method makes of them, as JSON. It serves nothing and changes no file but its output. */
#include "server/cmd.h"
#include "server/testdata.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static enum qd_status run_set(struct qd_model *model, struct qd_calibration *calibration, const char *folder,
                              unsigned set, struct qd_error *error)
{
    struct qd_testdata data;
    struct qd_infer *infer = NULL;
    struct qd_infer_options options = qd_infer_defaults();
    enum qd_status status = qd_testdata_read(folder, set, model, false, &data, error);
    if (status)
        return status;
    status = qd_infer_create(model, &options, &infer, error);
    if (!status)
        status = qd_infer_calibrate(infer, calibration, error);
    for (size_t i = 0; !status && i < data.input_count; i++)
        if (data.inputs[i].dtype != QD_NONE)
            status = qd_infer_input_borrow(infer, i, &data.inputs[i], error);
    if (!status)
        status = qd_infer_prepare(infer, error);
    if (!status) {
        qd_infer_run(&infer, 1);
        status = qd_infer_status(infer, error);
        qd_infer_finish(infer);
    }
    qd_infer_destroy(&infer);
    qd_testdata_clear(&data);
    return status;
}

enum qd_status qd_cmd_calibrate(struct qd_model *model, struct qd_calibration *calibration, const char *folder,
                                enum qd_method method, double percentile, struct qd_error *error)
{
    enum qd_status status = QD_OK;
    size_t set_count, unset_count;
    unsigned sets = 0;
    for (; !status && qd_testdata_exists(folder, sets); sets++)
        status = run_set(model, calibration, folder, sets, error);
    if (!status && sets == 0)
        status = qd_fail(error, QD_ERR_NOT_FOUND, "there is no test_data_set_0 in %.200s", folder);
    if (!status)
        status = qd_calibration_estimate(calibration, method, percentile, error);
    return status ? status : qd_calibration_publish(calibration, &set_count, &unset_count, error);
}

static bool write_ranges(const struct qd_model *model, const char *method, uint64_t requests, const char *path)
{
    struct qd_ranges_summary summary;
    struct qd_range_report range;
    char digest[17];
    json_int_t left = 0;
    json_t *tensors = json_array();
    qd_model_ranges(model, &summary);
    for (size_t i = 0; i < summary.sites; i++) {
        qd_model_range(model, i, &range);
        if (range.observations == 0) { /* in a body of control flow, or no data set made it */
            left++;
            continue;
        }
        json_array_append_new(tensors,
                              json_pack("{s:s, s:f, s:f, s:f, s:i, s:s}", "name", range.name, "min", range.ema_min,
                                        "max", range.ema_max, "scale", (double)range.scale, "zero_point",
                                        (int)range.zero_point, "dtype", range.dtype == QD_I8 ? "int8" : "uint8"));
    }
    snprintf(digest, sizeof digest, "%016" PRIx64, qd_model_digest(model));
    json_t *all = json_pack("{s:s, s:s, s:s, s:I, s:I, s:o}", "model", qd_model_name(model), "digest", digest, "method",
                            method, "requests", (json_int_t)requests, "left", left, "tensors", tensors);
    FILE *out = path ? fopen(path, "w") : stdout;
    bool good = all && out && json_dumpf(all, out, JSON_INDENT(1)) == 0 && fputc('\n', out) != EOF;
    if (out && out != stdout)
        good = fclose(out) == 0 && good;
    json_decref(all);
    return good;
}

int qd_cmd_quantize(int argc, char **argv)
{
    const char *folder = NULL, *method_name = "minmax", *scheme = "asymmetric", *path = NULL;
    double percentile = QD_DEFAULT_PERCENTILE;
    const struct qd_flag flags[] = {{.name = "calibrate", .text = &folder},
                                    {.name = "method", .text = &method_name},
                                    {.name = "percentile", .number = &percentile},
                                    {.name = "scheme", .text = &scheme},
                                    {.name = "out", .text = &path}};
    struct qd_quant_options quant = qd_quant_defaults();
    struct qd_engine_options options = {.threads = 0};
    struct qd_engine *engine = NULL;
    struct qd_model *model = NULL;
    struct qd_calibration *calibration = NULL;
    struct qd_error error;
    enum qd_method method;
    int files = qd_cmd_flags("quantize", flags, sizeof flags / sizeof flags[0], argc, argv);
    if (files < 0)
        return QD_EXIT_USAGE;
    if (files != 1 || !folder)
        return qd_cmd_say("quantize", QD_EXIT_USAGE, "one FILE and --calibrate FOLDER, please");
    if (!qd_method_from(method_name, &method))
        return qd_cmd_say("quantize", QD_EXIT_USAGE,
                          "--method must be minmax, ema, percentile, entropy or mse, is \"%s\"", method_name);
    if (!qd_scheme_from(scheme, &quant.activation_scheme))
        return qd_cmd_say("quantize", QD_EXIT_USAGE, "--scheme must be asymmetric or symmetric, is \"%s\"", scheme);
    quant.precision = QD_INT8; /* every site that there can be, whatever is faster here */
    enum qd_status status = qd_engine_create(&options, &engine, &error);
    if (!status)
        status = qd_model_load_file(engine, argv[0], argv[0], &quant, &model, &error);
    if (!status)
        status = qd_calibration_create(model, &calibration, &error);
    if (!status)
        status = qd_cmd_calibrate(model, calibration, folder, method, percentile, &error);
    if (!status && !write_ranges(model, method_name, qd_calibration_requests(calibration), path))
        status = qd_fail(&error, QD_ERR_IO, "the ranges can't be written to %.200s", path ? path : "standard output");
    qd_calibration_unref(&calibration);
    qd_model_unref(&model);
    qd_engine_destroy(&engine);
    return status ? qd_cmd_say("quantize", QD_EXIT_FAILED, "%s", error.text) : QD_EXIT_OK;
}
