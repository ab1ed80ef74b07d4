/* Any bytes as an infer request to the built-in model: up to the first newline the value of
 * Inference-Header-Content-Length (nothing: no header), then the body. It is fed whole and in pieces; both must be
 * taken or both refused. */
#include "server/codec_infer.h"
#include "server/repository.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct qd_engine *engine; /* kept for the whole run */
static struct qd_model *model;

static void load(void)
{
    struct qd_engine_options threads = {.threads = 1};
    struct qd_quant_options options = qd_quant_defaults();
    if (qd_engine_create(&threads, &engine, NULL) != QD_OK ||
        qd_model_load_memory(engine, "digits", qd_builtin_digits_onnx, qd_builtin_digits_onnx_size, &options, &model,
                             NULL) != QD_OK)
        abort();
}

static enum qd_status decode(const char *header, const uint8_t *body, size_t n, size_t step)
{
    struct qd_infer_framing framing = {.header_length = header, .body_bytes = n, .body_exact = true};
    struct qd_infer_call *call = NULL;
    struct qd_error error = {0};
    enum qd_status status = qd_infer_call_create(model, &framing, &call, &error);
    for (size_t at = 0; at < n && !status; at += step)
        status = qd_infer_call_feed(call, body + at, n - at < step ? n - at : step, &error);
    if (!status)
        status = qd_infer_call_end(call, &error);
    if (status ? !error.text[0] || qd_status_http(status) == 500 : !qd_infer_call_infer(call))
        abort();
    qd_infer_call_destroy(&call);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char header[64];
    const uint8_t *line = size ? memchr(data, '\n', size) : NULL;
    size_t length = line ? (size_t)(line - data) : 0;
    if (!line || length >= sizeof header)
        return 0;
    if (!model)
        load();
    memcpy(header, data, length);
    header[length] = 0;
    const uint8_t *body = line + 1;
    size_t n = size - length - 1;
    enum qd_status whole = decode(length ? header : NULL, body, n, n ? n : 1);
    enum qd_status pieces = decode(length ? header : NULL, body, n, 1 + length % 7);
    if ((whole == QD_OK) != (pieces == QD_OK)) /* which of two faults is met first may depend on the cut */
        abort();
    return 0;
}
