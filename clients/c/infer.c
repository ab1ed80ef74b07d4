/*
 * Inference by the binary tensor extension: a JSON head, then the tensors' bytes as they lie in memory, both ways.
 * Nothing is converted; the shapes and sizes of the answer are checked before a byte of it is believed.
 */
#include "clients/c/internal/wire.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors go over the wire as they lie in memory, which must be little-endian"
#endif

enum { MAX_INPUTS = 60, ALIGN_BYTES = 64 };

struct answer {
    struct quantd_client_answer shown;
    json_t *root;
    void *data; /* of all outputs */
};

/* ------------------------------------------------------------------ the request */

static enum quantd_client_status check_input(const struct quantd_client_tensor *tensor,
                                             struct quantd_client_error *error)
{
    size_t bytes = 0;
    if (!tensor->name)
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID, "an input needs a name");
    if (tensor->bytes && !tensor->data)
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID, "input '%.128s' has no data", tensor->name);
    if (tensor->rank < 0 || tensor->rank > QUANTD_CLIENT_MAX_RANK)
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID,
                                  "input '%.128s' has %d dimensions, at most %d are possible", tensor->name,
                                  tensor->rank, QUANTD_CLIENT_MAX_RANK);
    if (tensor->datatype == QUANTD_CLIENT_BYTES)
        return QUANTD_CLIENT_OK;
    if (!quantd_client_tensor_bytes(tensor->datatype, tensor->rank, tensor->shape, &bytes))
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID, "input '%.128s' has a shape that can't be",
                                  tensor->name);
    if (bytes != tensor->bytes)
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID,
                                  "input '%.128s' has %zu bytes, its shape in %s needs %zu", tensor->name,
                                  tensor->bytes, quantd_client_datatype_name(tensor->datatype), bytes);
    return QUANTD_CLIENT_OK;
}

static void write_input(struct quantd_client_text *text, const struct quantd_client_tensor *tensor)
{
    quantd_client_text_printf(text, "{\"name\":");
    quantd_client_text_json(text, tensor->name);
    quantd_client_text_printf(text, ",\"datatype\":\"%s\",\"shape\":[", quantd_client_datatype_name(tensor->datatype));
    for (int i = 0; i < tensor->rank; i++)
        quantd_client_text_printf(text, "%s%" PRId64, i ? "," : "", tensor->shape[i]);
    quantd_client_text_printf(text, "],\"parameters\":{\"binary_data_size\":%zu}}", tensor->bytes);
}

static void write_request(struct quantd_client_text *text, const struct quantd_client_request *request)
{
    quantd_client_text_printf(text, "{");
    if (request->id) {
        quantd_client_text_printf(text, "\"id\":");
        quantd_client_text_json(text, request->id);
        quantd_client_text_printf(text, ",");
    }
    quantd_client_text_printf(text, "\"parameters\":{\"binary_data_output\":true");
    if (request->epoch)
        quantd_client_text_printf(text, ",\"quant_epoch\":%" PRIu64, request->epoch);
    if (request->unobserved)
        quantd_client_text_printf(text, ",\"quant_observe\":false");
    if (request->precision) {
        quantd_client_text_printf(text, ",\"quant_precision\":");
        quantd_client_text_json(text, request->precision);
    }
    quantd_client_text_printf(text, "},\"inputs\":[");
    for (size_t i = 0; i < request->input_count; i++) {
        quantd_client_text_printf(text, "%s", i ? "," : "");
        write_input(text, &request->inputs[i]);
    }
    quantd_client_text_printf(text, "]%s", request->output_count ? ",\"outputs\":[" : "");
    for (size_t i = 0; i < request->output_count; i++) {
        quantd_client_text_printf(text, "%s{\"name\":", i ? "," : "");
        quantd_client_text_json(text, request->outputs[i]);
        quantd_client_text_printf(text, ",\"parameters\":{\"binary_data\":true}}");
    }
    quantd_client_text_printf(text, "%s}", request->output_count ? "]" : "");
}

/* ------------------------------------------------------------------ the answer */

/* One output: what the JSON says of it, checked. */
static enum quantd_client_status read_output(const json_t *object, struct quantd_client_tensor *tensor,
                                             struct quantd_client_error *error)
{
    static const struct quantd_client_field name[] = {
        {"name", QUANTD_CLIENT_TEXT, offsetof(struct quantd_client_tensor, name), false}};
    enum quantd_client_status status = quantd_client_read_fields(object, name, 1, tensor, "an output", error);
    if (status == QUANTD_CLIENT_OK)
        status = quantd_client_read_datatype(object, &tensor->datatype, tensor->name, error);
    if (status == QUANTD_CLIENT_OK)
        status = quantd_client_read_shape(object, &tensor->rank, tensor->shape, tensor->name, error);
    if (status != QUANTD_CLIENT_OK)
        return status;
    const json_t *size = json_object_get(json_object_get(object, "parameters"), "binary_data_size");
    size_t bytes = 0;
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return quantd_client_fail(error, QUANTD_CLIENT_PROTOCOL, "output '%.128s' did not come in binary",
                                  tensor->name);
    tensor->bytes = (size_t)json_integer_value(size);
    if (tensor->datatype != QUANTD_CLIENT_BYTES &&
        (!quantd_client_tensor_bytes(tensor->datatype, tensor->rank, tensor->shape, &bytes) || bytes != tensor->bytes))
        return quantd_client_fail(error, QUANTD_CLIENT_PROTOCOL,
                                  "output '%.128s' has %zu bytes, which is not what its shape needs", tensor->name,
                                  tensor->bytes);
    return QUANTD_CLIENT_OK;
}

static size_t aligned(size_t bytes) { return (bytes + ALIGN_BYTES) / ALIGN_BYTES * ALIGN_BYTES; }

/* The binary rest of the body into one aligned block, each output at its place. */
static enum quantd_client_status take_data(struct answer *answer, const char *bytes, size_t length,
                                           struct quantd_client_error *error)
{
    size_t total = ALIGN_BYTES, left = length, at = 0;
    for (size_t i = 0; i < answer->shown.output_count; i++) {
        size_t need = answer->shown.outputs[i].bytes;
        if (need > left)
            return quantd_client_fail(error, QUANTD_CLIENT_PROTOCOL, "the answer ends before output '%.128s' does",
                                      answer->shown.outputs[i].name);
        left -= need;
        total += aligned(need);
    }
    if (left)
        return quantd_client_fail(error, QUANTD_CLIENT_PROTOCOL, "%zu bytes follow the last output", left);
    answer->data = aligned_alloc(ALIGN_BYTES, total);
    if (!answer->data)
        return quantd_client_fail(error, QUANTD_CLIENT_MEMORY, "no memory for the outputs");
    for (size_t i = 0; i < answer->shown.output_count; i++) {
        struct quantd_client_tensor *tensor = &answer->shown.outputs[i];
        tensor->data = (char *)answer->data + at;
        if (tensor->bytes)
            memcpy((char *)answer->data + at, bytes, tensor->bytes);
        bytes += tensor->bytes;
        at += aligned(tensor->bytes);
    }
    return QUANTD_CLIENT_OK;
}

static enum quantd_client_status read_answer(struct answer *answer, const struct quantd_client_reply *reply,
                                             struct quantd_client_error *error)
{
    static const struct quantd_client_field fields[] = {
        {"model_name", QUANTD_CLIENT_TEXT, offsetof(struct quantd_client_answer, model), false},
        {"model_version", QUANTD_CLIENT_TEXT, offsetof(struct quantd_client_answer, version), true},
        {"id", QUANTD_CLIENT_TEXT, offsetof(struct quantd_client_answer, id), true}};
    static const struct quantd_client_field parameters[] = {
        {"quant_epoch", QUANTD_CLIENT_COUNT, offsetof(struct quantd_client_answer, epoch), true},
        {"quant_guarded", QUANTD_CLIENT_INTEGER, offsetof(struct quantd_client_answer, guarded), true},
        {"quant_plan", QUANTD_CLIENT_TEXT, offsetof(struct quantd_client_answer, plan), true},
        {"quant_precision", QUANTD_CLIENT_TEXT, offsetof(struct quantd_client_answer, precision), true}};
    struct quantd_client_answer *shown = &answer->shown;
    shown->version = shown->id = shown->plan = shown->precision = "";
    enum quantd_client_status status = quantd_client_parse(reply->body.bytes, reply->json_bytes, &answer->root, error);
    if (status == QUANTD_CLIENT_OK)
        status = quantd_client_read_fields(answer->root, fields, 3, shown, "the answer", error);
    const json_t *extra = json_object_get(answer->root, "parameters");
    if (status == QUANTD_CLIENT_OK && extra)
        status = quantd_client_read_fields(extra, parameters, 4, shown, "\"parameters\"", error);
    if (status != QUANTD_CLIENT_OK)
        return status;
    const json_t *outputs = json_object_get(answer->root, "outputs");
    if (!json_is_array(outputs))
        return quantd_client_fail(error, QUANTD_CLIENT_PROTOCOL, "the answer has no \"outputs\"");
    shown->outputs = calloc(json_array_size(outputs) + 1, sizeof *shown->outputs);
    if (!shown->outputs)
        return quantd_client_fail(error, QUANTD_CLIENT_MEMORY, "no memory for the outputs");
    shown->output_count = json_array_size(outputs);
    for (size_t i = 0; i < shown->output_count; i++) {
        status = read_output(json_array_get(outputs, i), &shown->outputs[i], error);
        if (status != QUANTD_CLIENT_OK)
            return status;
    }
    return take_data(answer, reply->body.bytes + reply->json_bytes, reply->body.length - reply->json_bytes, error);
}

/* ------------------------------------------------------------------ public */

static enum quantd_client_status send_request(struct quantd_client *client, const struct quantd_client_request *request,
                                              struct quantd_client_reply *reply, struct quantd_client_error *error)
{
    struct quantd_client_piece pieces[MAX_INPUTS + 1];
    struct quantd_client_text json = {0}, path = {0};
    enum quantd_client_status status;
    write_request(&json, request);
    quantd_client_text_printf(&path, "/v2/models/");
    quantd_client_text_segment(&path, request->model);
    quantd_client_text_printf(&path, "/infer");
    pieces[0] = (struct quantd_client_piece){json.bytes, json.length};
    for (size_t i = 0; i < request->input_count; i++)
        pieces[i + 1] = (struct quantd_client_piece){request->inputs[i].data, request->inputs[i].bytes};
    struct quantd_client_exchange exchange = {.method = "POST",
                                              .path = path.bytes,
                                              .pieces = pieces,
                                              .piece_count = request->input_count + 1,
                                              .json_bytes = json.length};
    status = json.failed || path.failed ? quantd_client_fail(error, QUANTD_CLIENT_MEMORY, "no memory for the request")
                                        : quantd_client_ask(client, &exchange, reply, error);
    quantd_client_text_free(&json);
    quantd_client_text_free(&path);
    return status;
}

enum quantd_client_status quantd_client_infer(struct quantd_client *client, const struct quantd_client_request *request,
                                              struct quantd_client_answer **out, struct quantd_client_error *error)
{
    struct quantd_client_reply reply;
    enum quantd_client_status status = QUANTD_CLIENT_OK;
    *out = NULL;
    if (!request->model || !*request->model)
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID, "a model needs a name");
    if (request->input_count > MAX_INPUTS)
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID, "at most %d inputs fit into a request", MAX_INPUTS);
    for (size_t i = 0; status == QUANTD_CLIENT_OK && i < request->input_count; i++)
        status = check_input(&request->inputs[i], error);
    if (status == QUANTD_CLIENT_OK)
        status = send_request(client, request, &reply, error);
    if (status != QUANTD_CLIENT_OK)
        return status;
    struct answer *answer = calloc(1, sizeof *answer);
    status = answer ? read_answer(answer, &reply, error)
                    : quantd_client_fail(error, QUANTD_CLIENT_MEMORY, "no memory for the answer");
    quantd_client_text_free(&reply.body);
    struct quantd_client_answer *shown = answer ? &answer->shown : NULL;
    if (status != QUANTD_CLIENT_OK)
        quantd_client_answer_destroy(&shown);
    *out = shown;
    return status;
}

void quantd_client_answer_destroy(struct quantd_client_answer **answer)
{
    if (!answer || !*answer)
        return;
    struct answer *whole = (struct answer *)(void *)*answer;
    free(whole->shown.outputs);
    free(whole->data);
    json_decref(whole->root);
    free(whole);
    *answer = NULL;
}

const struct quantd_client_tensor *quantd_client_answer_find(const struct quantd_client_answer *answer,
                                                             const char *name)
{
    for (size_t i = 0; i < answer->output_count; i++)
        if (strcmp(answer->outputs[i].name, name) == 0)
            return &answer->outputs[i];
    return NULL;
}
