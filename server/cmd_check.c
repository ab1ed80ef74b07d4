/* `quantd check FILE`: loads a model as the daemon would and shows what is in the file, its signature, what it takes,
 * and its plan, as text or JSON. A model that is refused is shown as far as it can be read, with what is missing. */
#include "base/mem.h"
#include "engine/engine.h"
#include "server/cmd.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check {
    const char *name, *isa;
    const struct qd_survey *survey;
    struct qd_model *model;  /* NULL: refused, ... */
    struct qd_error refusal; /* ... because */
    struct qd_shape *shapes; /* of the inputs, all known: given by --shapes, 1 where nothing is known */
    bool given;
    struct qd_shapes_report at;
    struct qd_error at_error; /* why these shapes can't be, or empty */
    uint64_t *step_macs, macs[4];
};

/* What steps of one precision have in common. */
struct group {
    enum qd_precision precision;
    const char *reason;
    size_t steps;
    uint64_t macs;
};

/* ------------------------------------------------------------------ shapes */

static bool read_dims(const char *text, size_t length, struct qd_shape *out)
{
    out->rank = 0;
    for (const char *end = text + length; text < end; out->rank++) {
        char *behind;
        if (out->rank >= QD_MAX_RANK || *text < '0' || *text > '9')
            return false;
        out->dims[out->rank] = strtoll(text, &behind, 10);
        if (behind > end || (behind < end && *behind != ',') || behind + 1 == end)
            return false;
        text = behind + 1;
    }
    return true;
}

static int input_named(const struct qd_model *model, const char *name, size_t length)
{
    for (size_t i = 0; i < qd_model_input_count(model); i++) {
        const char *own = qd_model_input(model, i)->name;
        if (strlen(own) == length && memcmp(own, name, length) == 0)
            return (int)i;
    }
    return -1;
}

/* "image=2,3,224,224;mask=2,7": false after saying what is wrong. */
static bool read_shapes(struct check *c, const char *text)
{
    for (const char *end; *text; text = *end ? end + 1 : end) {
        end = text + strcspn(text, ";");
        const char *equals = memchr(text, '=', (size_t)(end - text));
        size_t length = equals ? (size_t)(equals - text) : 0;
        int i = equals ? input_named(c->model, text, length) : -1;
        struct qd_shape shape;
        if (i < 0 || !read_dims(equals + 1, (size_t)(end - equals - 1), &shape)) {
            qd_cmd_say("check", 0,
                       i < 0 && equals ? "--shapes: the model has no input \"%.*s\""
                                       : "--shapes: \"%.*s\" is not NAME=SIZE,SIZE,...",
                       (int)(i < 0 && equals ? length : (size_t)(end - text)), text);
            return false;
        }
        const struct qd_io *io = qd_model_input(c->model, (size_t)i);
        bool fits = shape.rank == io->shape.rank;
        for (int d = 0; fits && d < shape.rank; d++)
            fits = io->shape.dims[d] < 0 || io->shape.dims[d] == shape.dims[d];
        char want[160];
        if (!fits) {
            qd_cmd_say("check", 0, "--shapes: input \"%s\" wants %s", io->name,
                       qd_shape_text(&io->shape, want, sizeof want));
            return false;
        }
        c->shapes[i] = shape;
        c->given = true;
    }
    return true;
}

/* The figures at those shapes; false when the command was called wrongly. */
static bool measure(struct check *c, const char *shapes)
{
    struct qd_plan_report plan;
    size_t inputs = qd_model_input_count(c->model);
    qd_model_plan(c->model, &plan);
    c->shapes = qd_calloc(inputs, sizeof *c->shapes);
    c->step_macs = qd_calloc(plan.steps, sizeof *c->step_macs);
    if (!c->shapes || !c->step_macs) {
        qd_cmd_say("check", 0, "no memory");
        return false;
    }
    for (size_t i = 0; i < inputs; i++) {
        c->shapes[i] = qd_model_input(c->model, i)->shape;
        for (int d = 0; d < c->shapes[i].rank; d++)
            if (c->shapes[i].dims[d] < 0)
                c->shapes[i].dims[d] = 1;
    }
    if (shapes && !read_shapes(c, shapes))
        return false;
    if (qd_model_at_shapes(c->model, c->shapes, &c->at, c->step_macs, &c->at_error))
        return true;
    c->at_error.text[0] = 0;
    for (size_t i = 0; i < plan.steps; i++) {
        struct qd_step_report step;
        qd_model_step(c->model, i, &step);
        c->macs[step.precision] += c->step_macs[i];
    }
    return true;
}

/* Steps by precision and reason, in order of appearance; returns their number, at most `room`. */
static size_t make_groups(const struct check *c, struct group *groups, size_t room)
{
    struct qd_plan_report plan;
    struct qd_step_report step;
    size_t count = 0;
    qd_model_plan(c->model, &plan);
    for (size_t i = 0; i < plan.steps; i++) {
        size_t g = 0;
        qd_model_step(c->model, i, &step);
        while (g < count && (groups[g].precision != step.precision || strcmp(groups[g].reason, step.reason) != 0))
            g++;
        if (g == count && count == room)
            continue;
        if (g == count)
            groups[count++] = (struct group){.precision = step.precision, .reason = step.reason};
        groups[g].steps++;
        groups[g].macs += c->step_macs[i];
    }
    return count;
}

#define MOST_GROUPS 64 /* reasons are a few dozen phrases */

/* ------------------------------------------------------------------ text */

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

/* "Conv 52, com.microsoft.Gelu 12, ..." of those that are served, or of those that aren't. */
static void print_operators(const struct qd_survey *survey, bool served)
{
    const char *between = "";
    for (size_t i = 0; i < survey->operator_count; i++) {
        const struct qd_survey_operator *o = &survey->operators[i];
        if (o->served != served)
            continue;
        printf("%s%s%s%s %zu", between, o->domain, *o->domain ? "." : "", o->op, o->nodes);
        if (*o->domain || !served)
            printf(" (version %" PRId64 "%s%s%s)", o->opset, served ? "" : ", first '", served ? "" : o->first,
                   served ? "" : "'");
        between = ", ";
    }
    putchar('\n');
}

static void print_file(const struct check *c)
{
    const struct qd_survey *s = c->survey;
    printf("model     %s: opset %" PRId64 ", %zu nodes, %" PRIu64 " bytes\n", c->name, s->opset, s->nodes,
           s->file_bytes);
    printf("operators ");
    print_operators(s, true);
    if (s->missing_count) {
        printf("missing   ");
        print_operators(s, false);
    }
    const char *between = "weights   ";
    for (int t = 0; t < QD_DTYPE_COUNT; t++)
        if (s->weights[t].tensors) {
            printf("%s%s %zu tensors, %" PRIu64 " bytes", between, qd_dtype_name((enum qd_dtype)t),
                   s->weights[t].tensors, s->weights[t].bytes);
            between = "; ";
        }
    if (between[0] == ';')
        putchar('\n');
}

static void print_shapes(const struct check *c)
{
    char text[160];
    printf("at shapes ");
    for (size_t i = 0; i < qd_model_input_count(c->model); i++)
        printf("%s%s %s", i ? ", " : "", qd_model_input(c->model, i)->name,
               qd_shape_text(&c->shapes[i], text, sizeof text));
    puts(c->given ? "" : " (unknown sizes as 1; --shapes gives others)");
    if (c->at_error.text[0]) {
        printf("          can't run: %s\n", c->at_error.text);
        return;
    }
    printf("memory    of a request: inputs %" PRIu64 ", outputs %" PRIu64 ", workspace %" PRIu64 " bytes",
           c->at.input_bytes, c->at.output_bytes, c->at.workspace_bytes);
    printf(c->at.unknown_steps ? "; the last %zu steps have shapes that depend on data\n" : "\n", c->at.unknown_steps);
    printf("multiply-adds int8 %" PRIu64 ", int16 %" PRIu64 ", fp32 %" PRIu64 ", fake %" PRIu64 "\n", c->macs[QD_INT8],
           c->macs[QD_INT16], c->macs[QD_FP32], c->macs[QD_FAKE]);
}

static void print_steps(const struct check *c, const struct qd_plan_report *plan)
{
    struct qd_step_report step;
    printf("\n%4s  %-9s %-20s %14s  %s\n", "step", "precision", "operator", "multiply-adds", "node; fused; reason");
    for (size_t i = 0; i < plan->steps; i++) {
        qd_model_step(c->model, i, &step);
        printf("%4zu  %-9s %-20s %14" PRIu64 "  %s", i, qd_precision_name(step.precision), step.op, c->step_macs[i],
               *step.node ? step.node : "(unnamed)");
        if (*step.fused)
            printf("; + %s", step.fused);
        printf("; %s", step.reason);
        if (step.int8_us > 0)
            printf(" (int8 %.1f us, fp32 %.1f us)", step.int8_us, step.fp32_us);
        putchar('\n');
    }
}

static void print_text(const struct check *c)
{
    struct qd_plan_report plan;
    struct group groups[MOST_GROUPS];
    print_file(c);
    if (!c->model)
        return;
    qd_model_plan(c->model, &plan);
    for (size_t i = 0; i < qd_model_input_count(c->model); i++)
        print_io("input", qd_model_input(c->model, i));
    for (size_t i = 0; i < qd_model_output_count(c->model); i++)
        print_io("output", qd_model_output(c->model, i));
    printf("plan      %08" PRIx32 ": %zu steps, %" PRIu64 " bytes of packed weights, kernels %s\n", plan.digest,
           plan.steps, plan.packed_bytes, c->isa);
    print_shapes(c);
    size_t count = make_groups(c, groups, MOST_GROUPS);
    for (size_t g = 0; g < count; g++)
        printf("%s%-5s %4zu steps, %" PRIu64 " multiply-adds: %s\n", g ? "          " : "precision ",
               qd_precision_name(groups[g].precision), groups[g].steps, groups[g].macs, groups[g].reason);
    print_steps(c, &plan);
}

/* ------------------------------------------------------------------ JSON */

static json_t *json_shape(const struct qd_shape *shape)
{
    json_t *dims = json_array();
    for (int i = 0; i < shape->rank; i++)
        json_array_append_new(dims, json_integer(shape->dims[i]));
    return dims;
}

static json_t *json_io(const struct qd_io *io)
{
    json_t *names = json_array();
    for (int i = 0; i < io->shape.rank; i++)
        json_array_append_new(names, io->dim_names[i] ? json_string(io->dim_names[i]) : json_null());
    return json_pack("{s:s, s:s, s:o, s:o, s:b}", "name", io->name, "datatype", qd_dtype_name(io->dtype), "shape",
                     json_shape(&io->shape), "dim_names", names, "optional", io->optional);
}

static json_t *json_step(const struct check *c, size_t i)
{
    struct qd_step_report step;
    qd_model_step(c->model, i, &step);
    json_t *times = step.int8_us > 0 ? json_pack("{s:f, s:f}", "int8", step.int8_us, "fp32", step.fp32_us)
                                     : json_null();
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:I, s:o}", "node", step.node, "op", step.op, "fused", step.fused,
                     "precision", qd_precision_name(step.precision), "reason", step.reason, "weight_bits",
                     step.weight_bits, "macs", (json_int_t)c->step_macs[i], "time_us", times);
}

static json_t *json_survey(const struct check *c)
{
    const struct qd_survey *s = c->survey;
    json_t *operators = json_array(), *weights = json_object();
    for (size_t i = 0; i < s->operator_count; i++) {
        const struct qd_survey_operator *o = &s->operators[i];
        json_array_append_new(operators, json_pack("{s:s, s:s, s:I, s:I, s:b, s:s}", "domain", o->domain, "op", o->op,
                                                   "version", (json_int_t)o->opset, "nodes", (json_int_t)o->nodes,
                                                   "served", o->served, "first_node", o->first));
    }
    for (int t = 0; t < QD_DTYPE_COUNT; t++)
        if (s->weights[t].tensors)
            json_object_set_new(weights, qd_dtype_name((enum qd_dtype)t),
                                json_pack("{s:I, s:I}", "tensors", (json_int_t)s->weights[t].tensors, "bytes",
                                          (json_int_t)s->weights[t].bytes));
    if (json_array_size(operators) != s->operator_count) {
        json_decref(operators);
        json_decref(weights);
        return NULL;
    }
    return json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:o, s:o}", "model", c->name, "served", c->model != NULL, "opset",
                     (json_int_t)s->opset, "ir_version", (json_int_t)s->ir_version, "nodes", (json_int_t)s->nodes,
                     "model_file_bytes", (json_int_t)s->file_bytes, "operators", operators, "weights", weights);
}

static json_t *json_macs(const uint64_t *macs)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "int8", (json_int_t)macs[QD_INT8], "int16", (json_int_t)macs[QD_INT16],
                     "fp32", (json_int_t)macs[QD_FP32], "fake", (json_int_t)macs[QD_FAKE]);
}

/* Memory and multiply-adds at the shapes asked about; an object with "error" where they can't be. */
static json_t *json_at(const struct check *c)
{
    json_t *shapes = json_object();
    for (size_t i = 0; i < qd_model_input_count(c->model); i++)
        json_object_set_new(shapes, qd_model_input(c->model, i)->name, json_shape(&c->shapes[i]));
    if (c->at_error.text[0])
        return json_pack("{s:o, s:s}", "shapes", shapes, "error", c->at_error.text);
    return json_pack("{s:o, s:I, s:I, s:I, s:I}", "shapes", shapes, "input_bytes", (json_int_t)c->at.input_bytes,
                     "output_bytes", (json_int_t)c->at.output_bytes, "workspace_bytes",
                     (json_int_t)c->at.workspace_bytes, "unknown_steps", (json_int_t)c->at.unknown_steps);
}

static json_t *json_groups(const struct check *c)
{
    struct group groups[MOST_GROUPS];
    size_t count = make_groups(c, groups, MOST_GROUPS);
    json_t *list = json_array();
    for (size_t g = 0; g < count; g++)
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:I, s:I}", "precision", qd_precision_name(groups[g].precision),
                                        "reason", groups[g].reason, "steps", (json_int_t)groups[g].steps, "macs",
                                        (json_int_t)groups[g].macs));
    return list;
}

/* Adds what only a loaded model has; false when something could not be made. */
static bool add_model(json_t *root, const struct check *c)
{
    struct qd_plan_report plan;
    char digest[16];
    json_t *inputs = json_array(), *outputs = json_array(), *steps = json_array();
    qd_model_plan(c->model, &plan);
    snprintf(digest, sizeof digest, "%08" PRIx32, plan.digest);
    for (size_t i = 0; i < qd_model_input_count(c->model); i++)
        json_array_append_new(inputs, json_io(qd_model_input(c->model, i)));
    for (size_t i = 0; i < qd_model_output_count(c->model); i++)
        json_array_append_new(outputs, json_io(qd_model_output(c->model, i)));
    for (size_t i = 0; i < plan.steps; i++)
        json_array_append_new(steps, json_step(c, i));
    bool whole = json_array_size(steps) == plan.steps && json_array_size(inputs) == qd_model_input_count(c->model) &&
                 json_array_size(outputs) == qd_model_output_count(c->model);
    json_t *more = json_pack("{s:o, s:o, s:s, s:s, s:I, s:o, s:o, s:o, s:o}", "inputs", inputs, "outputs", outputs,
                             "plan", digest, "isa", c->isa, "packed_bytes", (json_int_t)plan.packed_bytes, "at",
                             json_at(c), "macs", json_macs(c->macs), "precisions", json_groups(c), "steps", steps);
    whole = whole && more && json_object_update(root, more) == 0;
    json_decref(more);
    return whole;
}

static int print_json(const struct check *c)
{
    json_t *root = json_survey(c);
    bool whole = root && (c->model ? add_model(root, c)
                                   : json_object_set_new(root, "error", json_string(c->refusal.text)) == 0);
    int failed = !whole || json_dumpf(root, stdout, JSON_INDENT(2)) < 0;
    json_decref(root);
    putchar('\n');
    /* A name that is not UTF-8 has no JSON, and no memory has none either: say so rather than show a part. */
    return failed ? qd_cmd_say("check", QD_EXIT_FAILED, "the report could not be written as JSON") : QD_EXIT_OK;
}

/* ------------------------------------------------------------------ the command */

static int report(struct check *c, const char *shapes, bool json)
{
    int code = QD_EXIT_OK;
    if (c->model && !measure(c, shapes))
        return QD_EXIT_USAGE;
    if (json)
        code = print_json(c);
    else
        print_text(c);
    if (!c->model)
        return qd_cmd_say("check", QD_EXIT_FAILED, "%s", c->refusal.text);
    return code                              ? code
           : c->given && c->at_error.text[0] ? qd_cmd_say("check", QD_EXIT_FAILED, "%s", c->at_error.text)
                                             : QD_EXIT_OK;
}

int qd_cmd_check(int argc, char **argv)
{
    bool json = false;
    const char *precision = "auto", *shapes = NULL;
    const struct qd_flag flags[] = {
        {.name = "json", .on = &json}, {.name = "precision", .text = &precision}, {.name = "shapes", .text = &shapes}};
    struct qd_engine_options engine_options = {.threads = 1};
    struct qd_quant_options options = qd_quant_defaults();
    struct qd_engine *engine = NULL;
    struct qd_survey *survey = NULL;
    struct qd_error error;
    int left = qd_cmd_flags("check", flags, sizeof flags / sizeof flags[0], argc, argv), code;
    if (left < 0)
        return QD_EXIT_USAGE;
    if (left != 1)
        return qd_cmd_say("check", QD_EXIT_USAGE, "one model file, please");
    if (!qd_precision_from(precision, &options.precision))
        return qd_cmd_say("check", QD_EXIT_USAGE, "--precision must be auto, int8, int16, fp32 or fake, is \"%s\"",
                          precision);
    const char *slash = strrchr(argv[0], '/');
    if (qd_engine_create(&engine_options, &engine, &error))
        return qd_cmd_say("check", QD_EXIT_FAILED, "%s", error.text);
    struct check check = {.name = slash ? slash + 1 : argv[0], .isa = qd_engine_isa(engine)};
    if (qd_survey_create(argv[0], &survey, &error)) {
        code = qd_cmd_say("check", QD_EXIT_FAILED, "%s", error.text);
    } else {
        check.survey = survey;
        if (qd_model_load_file(engine, check.name, argv[0], &options, &check.model, &check.refusal))
            check.model = NULL;
        code = report(&check, shapes, json);
    }
    qd_free(check.shapes);
    qd_free(check.step_macs);
    qd_model_unref(&check.model);
    qd_survey_destroy(&survey);
    qd_engine_destroy(&engine);
    return code;
}
