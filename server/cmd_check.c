/* `quantd check FILE`: loads a model as the daemon would and shows its signature and its plan, as text or JSON. */
#include "engine/engine.h"
#include "server/cmd.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* "[batch, 1, 28, 28]": names where the model has them, ? for other unknown sizes. */
static void print_shape(const struct qd_io *io)
{
    putchar('[');
    for (int i = 0; i < io->shape.rank; i++) {
        if (i)
            fputs(", ", stdout);
        if (io->shape.dims[i] >= 0)
            printf("%" PRId64, io->shape.dims[i]);
        else
            fputs(io->dim_names[i] ? io->dim_names[i] : "?", stdout);
    }
    putchar(']');
}

static void print_io(const char *kind, const struct qd_io *io)
{
    printf("%-10s%s %s ", kind, io->name, qd_dtype_name(io->dtype));
    print_shape(io);
    puts(io->optional ? " (optional)" : "");
}

static void print_text(const struct qd_model *model, const char *isa)
{
    struct qd_plan_report plan;
    struct qd_step_report step;
    qd_model_plan(model, &plan);
    printf("model     %s: opset %" PRId64 ", %zu nodes, %" PRIu64 " bytes\n", qd_model_name(model), plan.opset,
           plan.nodes, plan.model_file_bytes);
    for (size_t i = 0; i < qd_model_input_count(model); i++)
        print_io("input", qd_model_input(model, i));
    for (size_t i = 0; i < qd_model_output_count(model); i++)
        print_io("output", qd_model_output(model, i));
    printf("plan      %08" PRIx32 ": %zu steps, %" PRIu64 " bytes of packed weights, kernels %s\n", plan.digest,
           plan.steps, plan.packed_bytes, isa);
    printf("multiply-adds (unknown dimensions as 1): int8 %" PRIu64 ", fp32 %" PRIu64 "\n\n", plan.macs[QD_INT8],
           plan.macs[QD_FP32]);
    printf("%4s  %-9s %-20s %14s  %s\n", "step", "precision", "operator", "multiply-adds", "node; fused; reason");
    for (size_t i = 0; i < plan.steps; i++) {
        qd_model_step(model, i, &step);
        printf("%4zu  %-9s %-20s %14" PRIu64 "  %s", i, qd_precision_name(step.precision), step.op, step.macs,
               *step.node ? step.node : "(unnamed)");
        if (*step.fused)
            printf("; + %s", step.fused);
        printf("; %s", step.reason);
        if (step.int8_us > 0)
            printf(" (int8 %.1f us, fp32 %.1f us)", step.int8_us, step.fp32_us);
        putchar('\n');
    }
}

/* ------------------------------------------------------------------ JSON */

static json_t *json_io(const struct qd_io *io)
{
    json_t *shape = json_array(), *names = json_array();
    for (int i = 0; i < io->shape.rank; i++) {
        json_array_append_new(shape, json_integer(io->shape.dims[i]));
        json_array_append_new(names, io->dim_names[i] ? json_string(io->dim_names[i]) : json_null());
    }
    return json_pack("{s:s, s:s, s:o, s:o, s:b}", "name", io->name, "datatype", qd_dtype_name(io->dtype), "shape",
                     shape, "dim_names", names, "optional", io->optional);
}

static json_t *json_step(const struct qd_model *model, size_t i)
{
    struct qd_step_report step;
    qd_model_step(model, i, &step);
    json_t *times = step.int8_us > 0 ? json_pack("{s:f, s:f}", "int8", step.int8_us, "fp32", step.fp32_us)
                                     : json_null();
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:I, s:o}", "node", step.node, "op", step.op, "fused", step.fused,
                     "precision", qd_precision_name(step.precision), "reason", step.reason, "weight_bits",
                     step.weight_bits, "macs", (json_int_t)step.macs, "time_us", times);
}

static int print_json(const struct qd_model *model, const char *isa)
{
    struct qd_plan_report plan;
    char digest[16];
    json_t *inputs = json_array(), *outputs = json_array(), *steps = json_array();
    qd_model_plan(model, &plan);
    snprintf(digest, sizeof digest, "%08" PRIx32, plan.digest);
    for (size_t i = 0; i < qd_model_input_count(model); i++)
        json_array_append_new(inputs, json_io(qd_model_input(model, i)));
    for (size_t i = 0; i < qd_model_output_count(model); i++)
        json_array_append_new(outputs, json_io(qd_model_output(model, i)));
    for (size_t i = 0; i < plan.steps; i++)
        json_array_append_new(steps, json_step(model, i));
    bool whole = json_array_size(steps) == plan.steps && json_array_size(inputs) == qd_model_input_count(model) &&
                 json_array_size(outputs) == qd_model_output_count(model);
    json_t *root = json_pack("{s:s, s:I, s:I, s:I, s:o, s:o, s:s, s:s, s:I, s:{s:I, s:I, s:I}, s:o}", "model",
                             qd_model_name(model), "opset", (json_int_t)plan.opset, "nodes", (json_int_t)plan.nodes,
                             "model_file_bytes", (json_int_t)plan.model_file_bytes, "inputs", inputs, "outputs",
                             outputs, "plan", digest, "isa", isa, "packed_bytes", (json_int_t)plan.packed_bytes, "macs",
                             "int8", (json_int_t)plan.macs[QD_INT8], "int16", (json_int_t)plan.macs[QD_INT16], "fp32",
                             (json_int_t)plan.macs[QD_FP32], "steps", steps);
    int failed = !whole || !root || json_dumpf(root, stdout, JSON_INDENT(2)) < 0;
    json_decref(root);
    putchar('\n');
    /* A name that is not UTF-8 has no JSON, and no memory has none either: say so rather than show a part. */
    return failed ? qd_cmd_say("check", QD_EXIT_FAILED, "the report could not be written as JSON") : QD_EXIT_OK;
}

int qd_cmd_check(int argc, char **argv)
{
    bool json = false;
    const char *precision = "auto";
    const struct qd_flag flags[] = {{.name = "json", .on = &json}, {.name = "precision", .text = &precision}};
    struct qd_engine_options engine_options = {.threads = 1};
    struct qd_quant_options options = qd_quant_defaults();
    struct qd_engine *engine = NULL;
    struct qd_model *model = NULL;
    struct qd_error error;
    int left = qd_cmd_flags("check", flags, 2, argc, argv), code = QD_EXIT_OK;
    if (left < 0)
        return QD_EXIT_USAGE;
    if (left != 1)
        return qd_cmd_say("check", QD_EXIT_USAGE, "one model file, please");
    if (!qd_precision_from(precision, &options.precision))
        return qd_cmd_say("check", QD_EXIT_USAGE, "--precision must be auto, int8, int16 or fp32, is \"%s\"",
                          precision);
    const char *slash = strrchr(argv[0], '/');
    if (qd_engine_create(&engine_options, &engine, &error))
        return qd_cmd_say("check", QD_EXIT_FAILED, "%s", error.text);
    if (qd_model_load_file(engine, slash ? slash + 1 : argv[0], argv[0], &options, &model, &error))
        code = qd_cmd_say("check", QD_EXIT_FAILED, "%s", error.text);
    else if (json)
        code = print_json(model, qd_engine_isa(engine));
    else
        print_text(model, qd_engine_isa(engine));
    qd_model_unref(&model);
    qd_engine_destroy(&engine);
    return code;
}
