/* `quantd bench`: median and 99th percentile of a request per precision. The precisions take turns, run by run, so that
 * a machine that slows down slows all of them. A run is a request's whole life in the engine: create to finish. */
#include "server/cmd.h"
#include "server/testdata.h"

#include "base/mem.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define PRECISIONS  4
#define WARM_UP     12 /* runs: past min_observations, so that learned ranges are what is measured */
#define MOST_RUNS   200000
#define FEWEST_RUNS 5
#define MOST_SETS   16

struct lane {
    struct qd_model *model;
    double *us;
    size_t runs;
};

struct bench {
    struct qd_engine *engine;
    enum qd_precision precisions[PRECISIONS];
    size_t count;
    double seconds;
    json_t *results; /* NULL: text */
};

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static enum qd_status run_once(struct lane *lane, const struct qd_testdata *data, bool count, struct qd_error *error)
{
    struct qd_infer *infer = NULL;
    double start_us = now_us();
    enum qd_status status = qd_testdata_infer(lane->model, data, &infer, error);
    if (status)
        return status;
    qd_infer_run(&infer, 1);
    status = qd_infer_status(infer, error);
    qd_infer_finish(infer);
    double took_us = now_us() - start_us;
    qd_infer_destroy(&infer);
    if (count && !status)
        lane->us[lane->runs++] = took_us;
    return status;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Nearest rank. */
static double percentile(const double *sorted, size_t n, unsigned percent)
{
    size_t rank = (n * percent + 99) / 100;
    return sorted[rank ? rank - 1 : 0];
}

static void report(const struct bench *bench, const char *name, const char *inputs, enum qd_precision precision,
                   struct lane *lane)
{
    struct qd_plan_report plan;
    qd_model_plan(lane->model, &plan);
    qsort(lane->us, lane->runs, sizeof *lane->us, by_value);
    double median = percentile(lane->us, lane->runs, 50), p99 = percentile(lane->us, lane->runs, 99);
    double macs = (double)(plan.macs[QD_INT8] + plan.macs[QD_INT16] + plan.macs[QD_FP32] + plan.macs[QD_FAKE]);
    if (bench->results)
        json_array_append_new(bench->results, json_pack("{s:s, s:s, s:s, s:i, s:s, s:I, s:f, s:f, s:f}", "model", name,
                                                        "precision", qd_precision_name(precision), "inputs", inputs,
                                                        "threads", (int)qd_engine_threads(bench->engine), "isa",
                                                        qd_engine_isa(bench->engine), "runs", (json_int_t)lane->runs,
                                                        "median_us", median, "p99_us", p99, "macs", macs));
    else
        printf("%-28s %-9s %-6s %8zu %12.1f %12.1f\n", name, qd_precision_name(precision), inputs, lane->runs, median,
               p99);
}

static enum qd_status measure(const struct bench *bench, struct lane *lanes, const struct qd_testdata *sets,
                              size_t count, struct qd_error *error)
{
    enum qd_status status = QD_OK;
    double end_us = 0;
    for (size_t round = 0; round < MOST_RUNS + WARM_UP && !status; round++) {
        if (round == WARM_UP)
            end_us = now_us() + bench->seconds * 1e6;
        if (round >= WARM_UP + FEWEST_RUNS && now_us() >= end_us)
            break;
        for (size_t i = 0; i < bench->count && !status; i++)
            status = run_once(&lanes[i], &sets[round % count], round >= WARM_UP, error);
    }
    return status;
}

/* Real inputs where the folder has them, else made-up ones. The data suits every precision: the signature is one. */
static enum qd_status get_inputs(const char *folder, const struct qd_model *model, struct qd_testdata *sets,
                                 size_t *count, struct qd_error *error)
{
    enum qd_status status = QD_OK;
    for (*count = 0; *count < MOST_SETS && !status && folder && qd_testdata_exists(folder, (unsigned)*count);) {
        status = qd_testdata_read(folder, (unsigned)*count, model, false, &sets[*count], error);
        *count += !status;
    }
    if (!status && !*count) {
        status = qd_testdata_random(model, 1, &sets[0], error);
        *count = !status;
    }
    return status;
}

static enum qd_status bench_model(const struct bench *bench, const char *name, const char *path, const char *folder,
                                  struct qd_error *error)
{
    struct lane lanes[PRECISIONS] = {{0}};
    struct qd_testdata sets[MOST_SETS];
    size_t count = 0;
    enum qd_status status = QD_OK;
    for (size_t i = 0; i < bench->count && !status; i++) {
        struct qd_quant_options options = qd_quant_defaults();
        options.precision = bench->precisions[i];
        status = qd_model_load_file(bench->engine, name, path, &options, &lanes[i].model, error);
        lanes[i].us = qd_calloc(MOST_RUNS, sizeof *lanes[i].us);
        if (!status && !lanes[i].us)
            status = qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the measurements");
    }
    if (!status)
        status = get_inputs(folder, lanes[0].model, sets, &count, error);
    if (!status)
        status = measure(bench, lanes, sets, count, error);
    const char *inputs = folder && qd_testdata_exists(folder, 0) ? "real" : "random";
    for (size_t i = 0; i < bench->count; i++) {
        if (!status)
            report(bench, name, inputs, bench->precisions[i], &lanes[i]);
        qd_model_unref(&lanes[i].model);
        qd_free(lanes[i].us);
    }
    for (size_t i = 0; i < count; i++)
        qd_testdata_clear(&sets[i]);
    return status;
}

/* A file, or a folder holding model.onnx. */
static int bench_argument(const struct bench *bench, char *path)
{
    char model[QD_TESTDATA_PATH_BYTES];
    struct stat about;
    struct qd_error error;
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
        path[n - 1] = 0;
    bool folder = stat(path, &about) == 0 && S_ISDIR(about.st_mode);
    const char *slash = strrchr(path, '/'), *name = slash && slash[1] ? slash + 1 : path;
    if (snprintf(model, sizeof model, "%s%s", path, folder ? "/model.onnx" : "") >= (int)sizeof model)
        return qd_cmd_say("bench", QD_EXIT_FAILED, "the path is too long");
    if (bench_model(bench, name, model, folder ? path : NULL, &error))
        return qd_cmd_say("bench", QD_EXIT_FAILED, "%s: %s", name, error.text);
    return QD_EXIT_OK;
}

static bool parse_precisions(const char *text, struct bench *bench)
{
    char word[16];
    do {
        size_t length = strcspn(text, ",");
        if (bench->count == PRECISIONS || length >= sizeof word)
            return false;
        memcpy(word, text, length);
        word[length] = 0;
        if (!qd_precision_from(word, &bench->precisions[bench->count++]))
            return false;
        text += length;
    } while (*text++ == ',');
    return true;
}

static int run_all(struct bench *bench, int count, char **paths, bool json)
{
    int code = QD_EXIT_OK;
    bench->results = json ? json_array() : NULL;
    if (!json)
        printf("kernels %s, %u threads\n%-28s %-9s %-6s %8s %12s %12s\n", qd_engine_isa(bench->engine),
               qd_engine_threads(bench->engine), "model", "precision", "inputs", "runs", "median_us", "p99_us");
    for (int i = 0; i < count; i++)
        if (bench_argument(bench, paths[i]))
            code = QD_EXIT_FAILED;
    if (!json)
        return code;
    if (!bench->results || json_dumpf(bench->results, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) < 0)
        code = qd_cmd_say("bench", QD_EXIT_FAILED, "the results could not be written as JSON");
    putchar('\n');
    json_decref(bench->results);
    return code;
}

int qd_cmd_bench(int argc, char **argv)
{
    struct bench bench = {.seconds = 3};
    double threads = 0;
    bool json = false;
    const char *precisions = "int8,fp32";
    const struct qd_flag flags[] = {{.name = "precision", .text = &precisions},
                                    {.name = "threads", .number = &threads},
                                    {.name = "seconds", .number = &bench.seconds},
                                    {.name = "json", .on = &json}};
    struct qd_error error;
    int paths = qd_cmd_flags("bench", flags, sizeof flags / sizeof flags[0], argc, argv);
    if (paths < 0)
        return QD_EXIT_USAGE;
    if (paths == 0)
        return qd_cmd_say("bench", QD_EXIT_USAGE, "at least one model file or folder, please");
    if (!parse_precisions(precisions, &bench))
        return qd_cmd_say("bench", QD_EXIT_USAGE,
                          "--precision must be a list of auto, int8, int16, fp32 and fake, is \"%s\"", precisions);
    if (threads > 1024 || threads != (double)(uint32_t)threads)
        return qd_cmd_say("bench", QD_EXIT_USAGE, "--threads must be a whole number up to 1024");
    struct qd_engine_options options = {.threads = (uint32_t)threads};
    if (qd_engine_create(&options, &bench.engine, &error))
        return qd_cmd_say("bench", QD_EXIT_FAILED, "%s", error.text);
    int code = run_all(&bench, paths, argv, json);
    qd_engine_destroy(&bench.engine);
    return code;
}
