/* `quantd test`: runs folders of the ONNX backend-test layout and compares as the standard's own runner does. One line
 * per folder; a skip only for what the engine says it does not support, and nothing passes by finding nothing. */
#include "server/cmd.h"
#include "server/testdata.h"

#include "base/mem.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DEEPEST 6 /* folders of folders */

struct run {
    struct qd_engine *engine;
    struct qd_quant_options quant;
    double rtol, atol, cosine; /* cosine < 0: by tolerance */
    unsigned passed, failed, skipped;
};

/* The outputs of one data set. `cosines` (by output) add up over the sets of a folder. */
static enum qd_status compare_outputs(const struct run *run, const struct qd_infer *infer,
                                      const struct qd_testdata *data, unsigned set, double *cosines,
                                      struct qd_error *error)
{
    for (size_t i = 0; i < data->output_count; i++) {
        const struct qd_tensor *got = qd_infer_output(infer, i), *want = &data->outputs[i];
        struct qd_difference d = qd_testdata_compare(got, want, run->rtol, run->atol);
        char a[128], b[128];
        if (!d.comparable)
            return qd_fail(error, QD_ERR_SHAPE, "test_data_set_%u: output %zu is %s %s, expected %s %s", set, i,
                           qd_dtype_name(got->dtype), qd_shape_text(&got->shape, a, sizeof a),
                           qd_dtype_name(want->dtype), qd_shape_text(&want->shape, b, sizeof b));
        cosines[i] += d.cosine;
        if (run->cosine < 0 && !d.same)
            return qd_fail(error, QD_ERR_INVALID,
                           "test_data_set_%u: output %zu differs in %lld elements, by %.6g at most", set, i,
                           (long long)d.different, d.worst);
    }
    return QD_OK;
}

static enum qd_status run_set(const struct run *run, struct qd_model *model, const char *folder, unsigned set,
                              double *cosines, struct qd_error *error)
{
    struct qd_testdata data;
    struct qd_infer *infer = NULL;
    enum qd_status status = qd_testdata_read(folder, set, model, true, &data, error);
    if (status)
        return status;
    status = qd_testdata_infer(model, &data, &infer, error);
    if (!status) {
        qd_infer_run(&infer, 1);
        status = qd_infer_status(infer, error);
        qd_infer_finish(infer);
        if (!status)
            status = compare_outputs(run, infer, &data, set, cosines, error);
        qd_infer_destroy(&infer);
    }
    qd_testdata_clear(&data);
    return status;
}

static enum qd_status run_sets(const struct run *run, struct qd_model *model, const char *folder,
                               struct qd_error *error)
{
    size_t outputs = qd_model_output_count(model);
    double *cosines = qd_calloc(outputs + 1, sizeof *cosines);
    unsigned sets = 0;
    enum qd_status status = cosines ? QD_OK : qd_fail(error, QD_ERR_NO_MEMORY, "no memory");
    for (; !status && qd_testdata_exists(folder, sets); sets++)
        status = run_set(run, model, folder, sets, cosines, error);
    if (!status && !sets)
        status = qd_fail(error, QD_ERR_NOT_FOUND, "there is no test_data_set_0");
    for (size_t i = 0; i < outputs && !status && run->cosine >= 0; i++)
        if (!(cosines[i] / sets >= run->cosine))
            status = qd_fail(error, QD_ERR_INVALID, "output %zu: mean cosine %.6f is below %g", i, cosines[i] / sets,
                             run->cosine);
    qd_free(cosines);
    return status;
}

static void run_folder(struct run *run, const char *folder, const char *model_path)
{
    struct qd_model *model = NULL;
    struct qd_error error;
    const char *slash = strrchr(folder, '/');
    const char *name = slash && slash[1] ? slash + 1 : folder;
    enum qd_status status = qd_model_load_file(run->engine, name, model_path, &run->quant, &model, &error);
    if (!status)
        status = run_sets(run, model, folder, &error);
    qd_model_unref(&model);
    const char *word = status == QD_OK ? "PASS" : status == QD_ERR_UNSUPPORTED ? "SKIP" : "FAIL";
    run->passed += status == QD_OK;
    run->skipped += status == QD_ERR_UNSUPPORTED;
    run->failed += status != QD_OK && status != QD_ERR_UNSUPPORTED;
    printf("%s %s%s%s\n", word, name, status ? ": " : "", status ? error.text : "");
    fflush(stdout);
}

static int is_candidate(const struct dirent *entry) { return entry->d_name[0] != '.'; }

/* Returns how many model folders there were at and below `folder`. */
static unsigned walk(struct run *run, const char *folder, int depth)
{
    char path[QD_TESTDATA_PATH_BYTES];
    struct stat about;
    struct dirent **entries = NULL;
    unsigned found = 0;
    if (snprintf(path, sizeof path, "%s/model.onnx", folder) < (int)sizeof path && stat(path, &about) == 0) {
        run_folder(run, folder, path);
        return 1;
    }
    int count = depth < DEEPEST ? scandir(folder, &entries, is_candidate, alphasort) : 0;
    for (int i = 0; i < count; i++) {
        if (snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name) < (int)sizeof path &&
            stat(path, &about) == 0 && S_ISDIR(about.st_mode))
            found += walk(run, path, depth + 1);
        free(entries[i]);
    }
    free(entries);
    return found;
}

static void walk_argument(struct run *run, char *folder)
{
    for (size_t n = strlen(folder); n > 1 && folder[n - 1] == '/'; n--)
        folder[n - 1] = 0; /* so that the last part is the name */
    if (walk(run, folder, 0))
        return;
    printf("FAIL %s: there is no model.onnx in it\n", folder);
    run->failed++;
}

int qd_cmd_test(int argc, char **argv)
{
    struct run run = {.quant = qd_quant_defaults(), .rtol = 1e-3, .atol = 1e-7, .cosine = -1};
    const char *precision = "fp32";
    const struct qd_flag flags[] = {{.name = "precision", .text = &precision},
                                    {.name = "rtol", .number = &run.rtol},
                                    {.name = "atol", .number = &run.atol},
                                    {.name = "cosine", .number = &run.cosine}};
    struct qd_engine_options options = {.threads = 0};
    struct qd_error error;
    int folders = qd_cmd_flags("test", flags, sizeof flags / sizeof flags[0], argc, argv);
    if (folders < 0)
        return QD_EXIT_USAGE;
    if (folders == 0)
        return qd_cmd_say("test", QD_EXIT_USAGE, "at least one folder, please");
    if (!qd_precision_from(precision, &run.quant.precision))
        return qd_cmd_say("test", QD_EXIT_USAGE, "--precision must be auto, int8, int16, fp32 or fake, is \"%s\"",
                          precision);
    if (run.cosine > 1)
        return qd_cmd_say("test", QD_EXIT_USAGE, "--cosine must be at most 1");
    if (qd_engine_create(&options, &run.engine, &error))
        return qd_cmd_say("test", QD_EXIT_FAILED, "%s", error.text);
    for (int i = 0; i < folders; i++)
        walk_argument(&run, argv[i]);
    qd_engine_destroy(&run.engine);
    printf("%u passed, %u failed, %u skipped\n", run.passed, run.failed, run.skipped);
    return run.failed ? QD_EXIT_FAILED : QD_EXIT_OK;
}
