/* quantd's engine behind the benchmark's seam: the calls a server makes for one request, without the server. */
#include "tests/bench/runner.h"

#include <string.h>

static struct qd_engine *engine;
static struct qd_model *model;
static struct qd_infer *infer; /* the last request */
static const struct bench_inputs *inputs;
static size_t input_index[BENCH_MAX_IO];

static enum qd_status load(const struct bench_options *options, struct qd_error *error)
{
    const struct qd_engine_options engine_options = {.threads = options->threads};
    struct qd_quant_options quant = qd_quant_defaults();
    quant.precision = options->precision;
    enum qd_status status = qd_engine_create(&engine_options, &engine, error);
    return status ? status : qd_model_load_file(engine, "bench", options->model, &quant, &model, error);
}

static enum qd_status set_inputs(const struct bench_inputs *new_inputs, struct qd_error *error)
{
    inputs = new_inputs;
    for (size_t i = 0; i < inputs->count; i++) {
        size_t at = i;
        if (inputs->names[i][0])
            for (at = 0; at < qd_model_input_count(model); at++)
                if (strcmp(qd_model_input(model, at)->name, inputs->names[i]) == 0)
                    break;
        if (at >= qd_model_input_count(model))
            return qd_fail(error, QD_ERR_NOT_FOUND, "the model has no input \"%s\"", inputs->names[i]);
        input_index[i] = at;
    }
    return QD_OK;
}

/* As the server does, but at once. */
static enum qd_status correct(struct qd_error *error)
{
    struct qd_correction *correction;
    struct qd_smoothing *smoothing;
    if (qd_model_smoothing_due(model, true)) {
        enum qd_status made = qd_smoothing_create(model, true, &smoothing, error);
        if (made)
            return made;
        qd_smoothing_run(smoothing);
        (void)qd_smoothing_finish(&smoothing);
    }
    if (!qd_model_correction_due(model))
        return QD_OK;
    enum qd_status status = qd_correction_create(model, &correction, error);
    if (!status) {
        qd_correction_run(correction);
        (void)qd_correction_finish(&correction);
    }
    return status;
}

static enum qd_status run(struct qd_error *error)
{
    const struct qd_infer_options options = qd_infer_defaults();
    qd_infer_destroy(&infer);
    enum qd_status status = qd_infer_create(model, &options, &infer, error);
    for (size_t i = 0; i < inputs->count && !status; i++)
        status = qd_infer_input_borrow(infer, input_index[i], &inputs->tensors[i], error);
    if (!status)
        status = qd_infer_prepare(infer, error);
    if (status)
        return status;
    qd_infer_run(&infer, 1);
    status = qd_infer_status(infer, error);
    qd_infer_finish(infer);
    return status ? status : correct(error);
}

static size_t output_count(void) { return qd_model_output_count(model); }

static enum qd_status output(size_t i, struct qd_tensor *out, struct qd_error *error)
{
    if (!infer)
        return qd_fail(error, QD_ERR_INVALID, "nothing has run yet");
    *out = *qd_infer_output(infer, i);
    return QD_OK;
}

static enum qd_status freeze(struct qd_error *error) { return qd_model_ranges_freeze(model, error); }

static enum qd_status unfreeze(struct qd_error *error) { return qd_model_ranges_unfreeze(model, error); }

static const char *version(void) { return qd_engine_isa(engine); }

const struct bench_backend bench_quantd = {.name = "quantd",
                                           .load = load,
                                           .set_inputs = set_inputs,
                                           .run = run,
                                           .output_count = output_count,
                                           .output = output,
                                           .freeze = freeze,
                                           .unfreeze = unfreeze,
                                           .version = version};
