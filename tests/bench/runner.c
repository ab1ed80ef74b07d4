/* One engine with one model, driven through a pipe, so that a benchmark can let several take turns:
 *
 *     runner quantd|ort MODEL [--precision int8|fp32] [--threads N] [--library FILE]
 *
 * Commands, one a line:          answers, one a line:
 *     inputs FOLDER                  ok            reads FOLDER/input_0.pb, input_1.pb, ...
 *     run N                          ok NS         N requests, the median time of one
 *     save FOLDER                    ok            writes the last outputs' elements to FOLDER/output_J.raw
 *     freeze, unfreeze               ok            learns no more, and again
 * The first line printed is `ok VERSION`. Whatever fails answers `error SENTENCE`. Not part of what is installed. */
#include "tests/bench/runner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_RUNS 100000

static const struct bench_backend *backend;
static struct bench_inputs inputs;
static double times_ns[MAX_RUNS];

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void *read_file(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    char *bytes = NULL;
    long end = 0;
    if (f && fseek(f, 0, SEEK_END) == 0 && (end = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0)
        bytes = malloc((size_t)end + 1);
    if (bytes && fread(bytes, 1, (size_t)end, f) != (size_t)end) {
        free(bytes);
        bytes = NULL;
    }
    if (f)
        fclose(f);
    *size = (size_t)end;
    return bytes;
}

static enum qd_status read_inputs(const char *folder, struct qd_error *error)
{
    for (size_t i = 0; i < inputs.count; i++)
        qd_tensor_proto_free(&inputs.tensors[i]);
    for (inputs.count = 0; inputs.count < BENCH_MAX_IO; inputs.count++) {
        char path[4096];
        size_t size;
        snprintf(path, sizeof path, "%s/input_%zu.pb", folder, inputs.count);
        void *bytes = read_file(path, &size);
        if (!bytes)
            break;
        enum qd_status status = qd_tensor_proto_read(bytes, size, &inputs.tensors[inputs.count],
                                                     inputs.names[inputs.count], sizeof *inputs.names, error);
        free(bytes);
        if (status)
            return status;
    }
    return inputs.count ? backend->set_inputs(&inputs, error)
                        : qd_fail(error, QD_ERR_NOT_FOUND, "no input_0.pb in the folder");
}

static enum qd_status run(size_t runs, double *median_ns, struct qd_error *error)
{
    enum qd_status status = runs && runs <= MAX_RUNS ? QD_OK : qd_fail(error, QD_ERR_INVALID, "run 1 to %d", MAX_RUNS);
    for (size_t i = 0; i < runs && !status; i++) {
        double start = now_ns();
        status = backend->run(error);
        times_ns[i] = now_ns() - start;
    }
    if (!status) {
        qsort(times_ns, runs, sizeof *times_ns, ascending);
        *median_ns = times_ns[runs / 2];
    }
    return status;
}

static enum qd_status save(const char *folder, struct qd_error *error)
{
    for (size_t i = 0; i < backend->output_count(); i++) {
        char path[4096];
        struct qd_tensor tensor;
        enum qd_status status = backend->output(i, &tensor, error);
        if (status)
            return status;
        size_t bytes = qd_tensor_bytes(&tensor);
        snprintf(path, sizeof path, "%s/output_%zu.raw", folder, i);
        FILE *f = fopen(path, "wb");
        bool written = f && (!bytes || fwrite(tensor.data, 1, bytes, f) == bytes);
        if (!f || fclose(f) != 0 || !written)
            return qd_fail(error, QD_ERR_IO, "output %zu can't be written", i);
    }
    return QD_OK;
}

static void answer(const char *command, const char *argument)
{
    struct qd_error error = {0};
    double ns = 0.0;
    enum qd_status status = QD_OK;
    if (strcmp(command, "inputs") == 0)
        status = read_inputs(argument, &error);
    else if (strcmp(command, "run") == 0)
        status = run(strtoul(argument, NULL, 10), &ns, &error);
    else if (strcmp(command, "save") == 0)
        status = save(argument, &error);
    else if (strcmp(command, "freeze") == 0 && backend->freeze)
        status = backend->freeze(&error);
    else if (strcmp(command, "unfreeze") == 0 && backend->unfreeze)
        status = backend->unfreeze(&error);
    else
        status = qd_fail(&error, QD_ERR_INVALID, "no such command");
    if (status)
        printf("error %s\n", error.text);
    else if (ns > 0.0)
        printf("ok %.0f\n", ns);
    else
        printf("ok\n");
    fflush(stdout);
}

static bool parse(int argc, char **argv, struct bench_options *options)
{
    *options = (struct bench_options){.threads = 1, .precision = qd_quant_defaults().precision};
    if (argc < 3 || argc % 2 == 0)
        return false;
    backend = strcmp(argv[1], "ort") == 0 ? &bench_ort : strcmp(argv[1], "quantd") == 0 ? &bench_quantd : NULL;
    options->model = argv[2];
    for (int i = 3; i < argc; i += 2)
        if (strcmp(argv[i], "--threads") == 0)
            options->threads = (uint32_t)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--library") == 0)
            options->library = argv[i + 1];
        else if (strcmp(argv[i], "--precision") != 0 || !qd_precision_from(argv[i + 1], &options->precision))
            return false;
    return backend && options->threads && (backend != &bench_ort || options->library);
}

int main(int argc, char **argv)
{
    struct bench_options options;
    struct qd_error error = {0};
    char line[4200];
    if (!parse(argc, argv, &options)) {
        fprintf(stderr, "runner quantd|ort MODEL [--precision int8|fp32] [--threads N] [--library FILE]\n");
        return 2;
    }
    if (backend->load(&options, &error)) {
        printf("error %s\n", error.text);
        return 1;
    }
    printf("ok %s\n", backend->version());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        char *argument = strchr(line, ' ');
        if (argument)
            *argument++ = '\0';
        answer(line, argument ? argument : "");
    }
    return 0;
}
