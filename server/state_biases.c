/* Floats as text and back. See state_biases.h. */
#include "server/state_biases.h"

#include "base/mem.h"

#include <string.h>

#define DIGITS 8 /* of a float */

static json_t *floats_json(const float *values, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    char *text = qd_calloc(n, DIGITS);
    json_t *string = NULL;
    for (size_t i = 0; text && i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        for (int d = 0; d < DIGITS; d++)
            text[i * DIGITS + (size_t)d] = hex[bits >> (28 - 4 * d) & 15];
    }
    if (text)
        string = json_stringn(text, n * DIGITS);
    qd_free(text);
    return string;
}

/* NULL with *n = 0: no such floats, or no memory. The caller frees. */
static float *floats_of(const json_t *string, size_t *n)
{
    const char *text = json_string_value(string);
    const size_t length = json_string_length(string);
    *n = 0;
    if (!text || length == 0 || length % DIGITS || strspn(text, "0123456789abcdef") != length)
        return NULL;
    float *values = qd_calloc(length / DIGITS, sizeof *values);
    for (size_t i = 0; values && i < length; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i / DIGITS], sizeof bits);
        bits = bits << 4 | (uint32_t)(text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10);
        memcpy(&values[i / DIGITS], &bits, sizeof bits);
    }
    *n = values ? length / DIGITS : 0;
    return values;
}

json_t *qd_state_biases(const struct qd_model *model)
{
    struct qd_correction_report report;
    struct qd_layer_correction layer;
    json_t *list = json_array();
    qd_model_correction(model, &report);
    for (size_t i = 0; list && i < report.steps; i++) {
        if (!qd_model_layer_correction(model, i, &layer))
            continue;
        json_t *one = json_pack("{s:s, s:I, s:o}", "node", layer.node, "n", (json_int_t)layer.n, "mean",
                                floats_json(layer.mean, layer.mean_count));
        if (one && layer.bias)
            json_object_set_new(one, "bias", floats_json(layer.bias, layer.bias_count));
        json_array_append_new(list, one);
    }
    return json_pack("{s:I, s:I, s:o}", "requests", (json_int_t)report.requests, "made", (json_int_t)report.made,
                     "layers", list);
}

enum qd_status qd_state_biases_restore(struct qd_model *model, const json_t *biases, bool same_plan,
                                       struct qd_error *error)
{
    const json_t *list = json_object_get(biases, "layers");
    const size_t n = json_array_size(list);
    struct qd_layer_correction *layers = qd_calloc(n + 1, sizeof *layers);
    if (!layers)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for its biases");
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(list, i);
        const char *node = json_string_value(json_object_get(one, "node"));
        layers[i].node = node ? node : "";
        layers[i].n = (uint64_t)json_integer_value(json_object_get(one, "n"));
        layers[i].mean = floats_of(json_object_get(one, "mean"), &layers[i].mean_count);
        if (same_plan)
            layers[i].bias = floats_of(json_object_get(one, "bias"), &layers[i].bias_count);
    }
    enum qd_status status = qd_model_restore_corrections(
        model, layers, n, (uint64_t)json_integer_value(json_object_get(biases, "requests")),
        (uint64_t)json_integer_value(json_object_get(biases, "made")), error);
    for (size_t i = 0; i < n; i++) {
        qd_free((void *)(uintptr_t)layers[i].mean);
        qd_free((void *)(uintptr_t)layers[i].bias);
    }
    qd_free(layers);
    return status;
}

json_t *qd_state_smoothed(const struct qd_quant_options *options)
{
    json_t *list = json_array();
    for (size_t i = 0; i < options->smoothed_count; i++)
        json_array_append_new(list, json_pack("{s:s, s:o}", "tensor", options->smoothed[i].tensor, "s",
                                              floats_json(options->smoothed[i].s, options->smoothed[i].columns)));
    return list;
}

/* Neither zero, nor infinite, nor the like. */
static bool are_divisors(const float *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(s[i] >= 1e-30f && s[i] <= 1e30f))
            return false;
    return true;
}

size_t qd_state_smoothed_read(const json_t *list, struct qd_smoothed_tensor *smoothed)
{
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        struct qd_smoothed_tensor tensor = {.tensor = json_string_value(json_object_get(one, "tensor"))};
        tensor.s = floats_of(json_object_get(one, "s"), &tensor.columns);
        if (tensor.tensor && tensor.s && are_divisors(tensor.s, tensor.columns))
            smoothed[count++] = tensor;
        else
            qd_free((void *)(uintptr_t)tensor.s);
    }
    return count;
}

void qd_state_smoothed_free(struct qd_smoothed_tensor *smoothed, size_t count)
{
    for (size_t i = 0; smoothed && i < count; i++)
        qd_free((void *)(uintptr_t)smoothed[i].s);
    qd_free(smoothed);
}
