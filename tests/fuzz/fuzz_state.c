/* State files on arbitrary bytes, with the checksum line and without it, into the built-in model. What is refused must
 * say why in one line; what is taken must leave every range in force finite, and the model running. */
#include "base/mem.h"
#include "server/state_document.h"
#include "server/state_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct qd_model_entry entry;

static void need(bool holds)
{
    if (!holds)
        abort();
}

static void start(void)
{
    const struct qd_engine_options options = {.threads = 1};
    struct qd_quant_options quant = qd_quant_defaults();
    struct qd_engine *engine;
    struct qd_error error;
    quant.precision = QD_INT8;
    memcpy(entry.name, "digits", sizeof "digits");
    need(qd_engine_create(&options, &engine, &error) == QD_OK);
    need(qd_model_load_memory(engine, "digits", qd_builtin_digits_onnx, qd_builtin_digits_onnx_size, &quant,
                              &entry.model, &error) == QD_OK);
    entry.state = QD_STATE_READY;
}

static void take(const json_t *root)
{
    struct qd_error error = {0};
    struct qd_range_state *ranges = NULL;
    struct qd_ranges_summary summary;
    struct qd_range_report range;
    size_t n = 0, adopted = 0;
    if (qd_state_document_check(root, entry.model, &error)) {
        need(error.text[0] && !strchr(error.text, '\n'));
        return;
    }
    need(qd_state_document_ranges(root, &ranges, &n, &error) == QD_OK);
    need(qd_model_adopt(entry.model, ranges, n, true, false, &adopted, &error) == QD_OK);
    need(qd_model_adopt(entry.model, ranges, n, false, false, &adopted, &error) == QD_OK);
    qd_state_document_merged(root, &entry);
    qd_model_ranges(entry.model, &summary);
    for (size_t i = 0; i < summary.sites; i++) {
        qd_model_range(entry.model, i, &range);
        need(isfinite(range.scale) && range.scale > 0 && range.zero_point >= 0 && range.zero_point <= 255);
        need(isfinite(range.ema_min) && isfinite(range.ema_max) && range.ema_min <= range.ema_max);
    }
    qd_free(ranges);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = qd_calloc(size + 1, 1);
    need(text != NULL);
    if (!entry.model)
        start();
    if (size)
        memcpy(text, data, size);
    if (qd_state_file_unseal(text, size))
        size = strlen(text);
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, NULL);
    if (root)
        take(root);
    json_decref(root);
    qd_free(text);
    return 0;
}
