/* Fuzz target: any bytes as a model that is loaded, compiled and run twice (once to learn, once in full precision) on
 * inputs of ones. Nothing may crash, whatever the graph says; what can't run must say why. Seeds are
 * made by make_corpus.py. */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#define MAX_INPUT_BYTES (1u << 16) /* of one input: the target is about graphs, not about waiting */
#define MAX_MACS        (1u << 24)
#define MAX_BYTES       (1u << 24) /* of a request */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct qd_engine *engine;

static void must(bool that)
{
    if (!that)
        abort();
}

/* Fills every input with ones; false when one is too large to be worth it or can't be given. */
static bool give_inputs(const struct qd_model *model, struct qd_infer *infer)
{
    for (size_t i = 0; i < qd_model_input_count(model); i++) {
        const struct qd_io *io = qd_model_input(model, i);
        struct qd_tensor tensor = {.dtype = io->dtype, .shape = io->shape};
        int64_t elems;
        for (int d = 0; d < io->shape.rank; d++)
            tensor.shape.dims[d] = io->shape.dims[d] < 0 ? 2 : io->shape.dims[d];
        if (!qd_shape_elems(&tensor.shape, &elems) || elems > (int64_t)(MAX_INPUT_BYTES / 8))
            return false;
        void *to;
        struct qd_error error;
        if (qd_infer_input_alloc(infer, i, tensor.dtype, &tensor.shape, &to, &error) != QD_OK)
            return false;
        size_t bytes = qd_tensor_bytes(&tensor);
        if (tensor.dtype == QD_F32)
            for (int64_t e = 0; e < elems; e++)
                ((float *)to)[e] = 1;
        else if (bytes)
            memset(to, tensor.dtype == QD_BOOL ? 1 : 0, bytes);
    }
    return true;
}

static void run(struct qd_model *model, enum qd_precision precision)
{
    struct qd_infer_options options = qd_infer_defaults();
    struct qd_infer *infer;
    struct qd_error error = {0};
    options.precision = precision;
    must(qd_infer_create(model, &options, &infer, &error) == QD_OK);
    if (give_inputs(model, infer)) {
        if (qd_infer_prepare(infer, &error) != QD_OK) {
            must(error.text[0] != 0);
        } else {
            qd_infer_run(&infer, 1);
            must(qd_infer_status(infer, &error) == QD_OK || error.text[0] != 0);
            qd_infer_finish(infer);
        }
    }
    qd_infer_destroy(&infer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct qd_error error = {0};
    struct qd_quant_options options = qd_quant_defaults();
    struct qd_engine_options single = {.threads = 1, .request_bytes = MAX_BYTES};
    struct qd_model *model;
    if (!engine)
        must(qd_engine_create(&single, &engine, &error) == QD_OK);
    if (qd_model_load_memory(engine, "fuzz", data, size, &options, &model, &error) != QD_OK) {
        must(error.text[0] != 0);
        return 0;
    }
    struct qd_plan_report plan;
    qd_model_plan(model, &plan);
    if (plan.macs[QD_INT8] + plan.macs[QD_FP32] < MAX_MACS) {
        run(model, QD_PRECISION_AUTO);
        run(model, QD_FP32);
    }
    qd_model_unref(&model);
    return 0;
}
