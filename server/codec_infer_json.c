/* The JSON of an infer request, token by token: one function per place in the document. Elements of `data` go straight
 * to the tensor's memory when name, type and shape are already known; otherwise their text is kept until they are. */
#include "server/codec_infer_internal.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

typedef enum qd_status place_handler(struct qd_infer_call *call, const struct qd_json_token *token,
                                     struct qd_error *error);

enum root_key { ROOT_ID, ROOT_PARAMETERS, ROOT_INPUTS, ROOT_OUTPUTS };
static const char *const root_keys[] = {"id", "parameters", "inputs", "outputs", NULL};
enum item_key { ITEM_NAME, ITEM_PARAMETERS, ITEM_SHAPE, ITEM_TYPE, ITEM_DATA };
static const char *const input_keys[] = {"name", "parameters", "shape", "datatype", "data", NULL};
static const char *const output_keys[] = {"name", "parameters", NULL};

static bool opens(const struct qd_json_token *token)
{
    return token->event == QD_JSON_OBJECT || token->event == QD_JSON_ARRAY;
}
static bool closes(const struct qd_json_token *token)
{
    return token->event == QD_JSON_OBJECT_END || token->event == QD_JSON_ARRAY_END;
}

/* Whatever comes next is read past, back to the present place. */
static enum qd_status skip(struct qd_infer_call *call, const struct qd_json_token *token)
{
    if (opens(token)) {
        call->back = call->place;
        call->place = QD_PLACE_SKIP;
        call->skip_depth = 1;
    }
    return QD_OK;
}

static enum qd_status in_skip(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    (void)error;
    call->skip_depth += opens(token) - closes(token);
    if (!call->skip_depth)
        call->place = call->back;
    return QD_OK;
}

/* Notes which key of the table comes; a known one may come once. */
static enum qd_status note_key(struct qd_infer_call *call, const struct qd_json_token *token, const char *const *keys,
                               uint32_t *seen, struct qd_error *error)
{
    call->key = -1;
    for (int i = 0; keys[i]; i++)
        if (strcmp(token->text, keys[i]) == 0) {
            if (*seen >> i & 1)
                return qd_fail(error, QD_ERR_INVALID, "key '%s' comes twice", keys[i]);
            *seen |= 1u << i;
            call->key = i;
        }
    return QD_OK;
}

static enum qd_status wrong_kind(const char *key, const char *kind, struct qd_error *error)
{
    return qd_fail(error, QD_ERR_INVALID, "'%s' must be %s", key, kind);
}

static enum qd_status open_parameters(struct qd_infer_call *call, const struct qd_json_token *token,
                                      struct qd_error *error)
{
    if (token->event == QD_JSON_NULL)
        return QD_OK;
    if (token->event != QD_JSON_OBJECT)
        return wrong_kind("parameters", "an object", error);
    call->owner = call->place;
    call->place = QD_PLACE_PARAMETERS;
    call->hash_count = 0;
    return QD_OK;
}

static enum qd_status in_start(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    if (token->event != QD_JSON_OBJECT)
        return qd_fail(error, QD_ERR_INVALID, "an infer request must be a JSON object");
    call->place = QD_PLACE_ROOT;
    return QD_OK;
}

static enum qd_status take_id(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    if (token->event == QD_JSON_NULL)
        return QD_OK;
    if (token->event != QD_JSON_STRING)
        return wrong_kind("id", "a string", error);
    if (token->length > QD_INFER_MAX_NAME_BYTES)
        return qd_fail(error, QD_ERR_INVALID, "'id' is longer than %d bytes", QD_INFER_MAX_NAME_BYTES);
    call->id = token->length ? qd_strndup(token->text, token->length) : NULL;
    return token->length && !call->id ? qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for a request") : QD_OK;
}

static enum qd_status in_root(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    if (token->event == QD_JSON_OBJECT_END)
        return QD_OK;
    if (token->event == QD_JSON_KEY)
        return note_key(call, token, root_keys, &call->seen, error);
    switch (call->key) {
    case ROOT_ID:
        return take_id(call, token, error);
    case ROOT_PARAMETERS:
        return open_parameters(call, token, error);
    case ROOT_INPUTS:
        call->place = QD_PLACE_INPUTS;
        return token->event == QD_JSON_ARRAY ? QD_OK : wrong_kind("inputs", "an array of objects", error);
    case ROOT_OUTPUTS:
        if (token->event == QD_JSON_NULL)
            return QD_OK;
        call->place = QD_PLACE_OUTPUTS;
        return token->event == QD_JSON_ARRAY ? QD_OK : wrong_kind("outputs", "an array of objects", error);
    default:
        return skip(call, token);
    }
}

/* ------------------------------------------------------------------ parameters */

static enum qd_status set_epoch(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    if (token->event != QD_JSON_NUMBER || !qd_json_number_u64(token, &call->options.epoch) || !call->options.epoch)
        return wrong_kind("quant_epoch", "a positive integer", error);
    return QD_OK;
}

static enum qd_status set_precision(struct qd_infer_call *call, const struct qd_json_token *token,
                                    struct qd_error *error)
{
    enum qd_precision precision;
    if (token->event != QD_JSON_STRING || !qd_precision_from(token->text, &precision) ||
        (precision != QD_FP32 && precision != QD_PRECISION_AUTO))
        return wrong_kind("quant_precision", "\"auto\" or \"fp32\"", error);
    call->options.precision = precision;
    return QD_OK;
}

static enum qd_status set_mode(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    const bool own = token->event == QD_JSON_STRING && strcmp(token->text, "request") == 0;
    if (!own && (token->event != QD_JSON_STRING || strcmp(token->text, "auto") != 0))
        return wrong_kind("quant_mode", "\"auto\" or \"request\"", error);
    call->options.own_ranges = own;
    return QD_OK;
}

static enum qd_status set_guard(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    const bool is_auto = token->event == QD_JSON_STRING && strcmp(token->text, "auto") == 0;
    if (!is_auto && (token->event != QD_JSON_STRING || !qd_guard_from(token->text, &call->options.guard)))
        return wrong_kind("quant_guard", "\"auto\", \"widen\", \"clip\", \"reject\" or \"escalate\"", error);
    call->options.has_guard = !is_auto;
    return QD_OK;
}

static enum qd_status set_bool(const struct qd_json_token *token, const char *key, bool *out, struct qd_error *error)
{
    if (token->event != QD_JSON_TRUE && token->event != QD_JSON_FALSE)
        return wrong_kind(key, "true or false", error);
    *out = token->event == QD_JSON_TRUE;
    return QD_OK;
}

static enum qd_status set_observe(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    return set_bool(token, "quant_observe", &call->options.observe, error);
}

static enum qd_status set_timeout(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    if (token->event != QD_JSON_NUMBER || !qd_json_number_u64(token, &call->timeout_us))
        return wrong_kind("timeout", "a number of microseconds", error);
    return QD_OK;
}

static enum qd_status set_binary_default(struct qd_infer_call *call, const struct qd_json_token *token,
                                         struct qd_error *error)
{
    return set_bool(token, "binary_data_output", &call->binary_default, error);
}

static enum qd_status set_binary_size(struct qd_infer_call *call, const struct qd_json_token *token,
                                      struct qd_error *error)
{
    call->item.binary = 1;
    if (token->event != QD_JSON_NUMBER || !qd_json_number_u64(token, &call->item.binary_bytes))
        return wrong_kind("binary_data_size", "a number of bytes", error);
    return QD_OK;
}

static enum qd_status set_binary(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    bool binary = false;
    enum qd_status status = set_bool(token, "binary_data", &binary, error);
    call->item.binary = binary;
    return status;
}

static enum qd_status no_classes(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    uint64_t count = 0;
    (void)call;
    if (token->event == QD_JSON_NUMBER && qd_json_number_u64(token, &count) && !count)
        return QD_OK; /* 0 means: not wanted */
    return qd_fail(error, QD_ERR_UNSUPPORTED, "the classification extension is not supported");
}

static enum qd_status no_shared_memory(struct qd_infer_call *call, const struct qd_json_token *token,
                                       struct qd_error *error)
{
    (void)call;
    (void)token;
    return qd_fail(error, QD_ERR_UNSUPPORTED, "shared memory is not enabled");
}

static const struct {
    enum qd_infer_place owner;
    const char *name;
    place_handler *set;
} parameter_rows[] = {
    {QD_PLACE_ROOT, "quant_epoch", set_epoch},
    {QD_PLACE_ROOT, "quant_precision", set_precision},
    {QD_PLACE_ROOT, "quant_mode", set_mode},
    {QD_PLACE_ROOT, "quant_guard", set_guard},
    {QD_PLACE_ROOT, "quant_observe", set_observe},
    {QD_PLACE_ROOT, "timeout", set_timeout},
    {QD_PLACE_ROOT, "binary_data_output", set_binary_default},
    {QD_PLACE_INPUT, "binary_data_size", set_binary_size},
    {QD_PLACE_INPUT, "shared_memory_region", no_shared_memory},
    {QD_PLACE_OUTPUT, "binary_data", set_binary},
    {QD_PLACE_OUTPUT, "classification", no_classes},
    {QD_PLACE_OUTPUT, "shared_memory_region", no_shared_memory},
};

static enum qd_status parameter_key(struct qd_infer_call *call, const struct qd_json_token *token,
                                    struct qd_error *error)
{
    uint64_t hash = UINT64_C(
        14695981039346656037); /* FNV-1a: equal keys are refused, unequal ones never collide by chance */
    if (token->length > QD_INFER_MAX_NAME_BYTES)
        return qd_fail(error, QD_ERR_INVALID, "a parameter's name is longer than %d bytes", QD_INFER_MAX_NAME_BYTES);
    if (strncmp(token->text, "triton_", 7) == 0)
        return qd_fail(error, QD_ERR_INVALID, "parameter '%.64s': names starting with triton_ are reserved",
                       token->text);
    for (size_t i = 0; i < token->length; i++)
        hash = (hash ^ (unsigned char)token->text[i]) * UINT64_C(1099511628211);
    for (size_t i = 0; i < call->hash_count; i++)
        if (call->hashes[i] == hash)
            return qd_fail(error, QD_ERR_INVALID, "parameter '%.64s' comes twice", token->text);
    if (call->hash_count == QD_INFER_MAX_TENSORS)
        return qd_fail(error, QD_ERR_INVALID, "more than %d parameters", QD_INFER_MAX_TENSORS);
    call->hashes[call->hash_count++] = hash;
    memcpy(call->parameter, token->text, token->length + 1);
    return QD_OK;
}

static enum qd_status in_parameters(struct qd_infer_call *call, const struct qd_json_token *token,
                                    struct qd_error *error)
{
    if (token->event == QD_JSON_OBJECT_END) {
        call->place = call->owner;
        return QD_OK;
    }
    if (token->event == QD_JSON_KEY)
        return parameter_key(call, token, error);
    if (token->event != QD_JSON_NULL)
        for (size_t i = 0; i < sizeof parameter_rows / sizeof parameter_rows[0]; i++)
            if (parameter_rows[i].owner == call->owner && strcmp(parameter_rows[i].name, call->parameter) == 0)
                return parameter_rows[i].set(call, token, error);
    return skip(call, token);
}

/* ------------------------------------------------------------------ inputs */

static enum qd_status begin_item(struct qd_infer_call *call, const struct qd_json_token *token,
                                 enum qd_infer_place place, struct qd_error *error)
{
    const char *list = place == QD_PLACE_INPUT ? "inputs" : "outputs";
    size_t count = place == QD_PLACE_INPUT ? call->input_count : call->wanted_count;
    if (token->event == QD_JSON_ARRAY_END) {
        call->place = QD_PLACE_ROOT;
        return QD_OK;
    }
    if (token->event != QD_JSON_OBJECT)
        return wrong_kind(list, "an array of objects", error);
    if (count == QD_INFER_MAX_TENSORS)
        return qd_fail(error, QD_ERR_INVALID, "more than %d %s", QD_INFER_MAX_TENSORS, list);
    struct qd_text capture = call->item.capture;
    memset(&call->item, 0, sizeof call->item);
    call->item.capture = capture;
    call->item.capture.length = 0;
    call->item.binary = place == QD_PLACE_INPUT ? 0 : -1;
    call->place = place;
    return QD_OK;
}

static enum qd_status in_inputs(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    return begin_item(call, token, QD_PLACE_INPUT, error);
}

static enum qd_status take_name(struct qd_infer_item *item, const struct qd_json_token *token, struct qd_error *error)
{
    if (token->event != QD_JSON_STRING || !token->length)
        return wrong_kind("name", "a string that is not empty", error);
    if (token->length > QD_INFER_MAX_NAME_BYTES)
        return qd_fail(error, QD_ERR_INVALID, "a tensor's name is longer than %d bytes", QD_INFER_MAX_NAME_BYTES);
    memcpy(item->name, token->text, token->length + 1);
    item->has_name = true;
    return QD_OK;
}

static enum qd_status take_type(struct qd_infer_item *item, const struct qd_json_token *token, struct qd_error *error)
{
    if (token->event != QD_JSON_STRING)
        return wrong_kind("datatype", "a string", error);
    item->dtype = qd_dtype_from_name(token->text, token->length);
    item->has_type = true;
    return item->dtype != QD_NONE ? QD_OK : qd_fail(error, QD_ERR_TYPE, "unknown datatype '%.40s'", token->text);
}

static enum qd_status in_shape(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    struct qd_infer_item *item = &call->item;
    int64_t size = 0;
    if (token->event == QD_JSON_ARRAY_END) {
        int64_t elems = 0;
        call->place = QD_PLACE_INPUT;
        item->has_shape = true;
        return qd_shape_elems(&item->shape, &elems)
                   ? QD_OK
                   : qd_fail(error, QD_ERR_SHAPE, "input '%s': the product of its shape is too large", item->name);
    }
    if (token->event != QD_JSON_NUMBER || !qd_json_number_i64(token, &size) || size < 0)
        return qd_fail(error, QD_ERR_SHAPE, "input '%s': shape may hold only integers from 0 up", item->name);
    if (item->shape.rank == QD_MAX_RANK)
        return qd_fail(error, QD_ERR_SHAPE, "input '%s': shape has more than %d dimensions", item->name, QD_MAX_RANK);
    item->shape.dims[item->shape.rank++] = size;
    return QD_OK;
}

/* Finds the model's input for the item, once. */
static enum qd_status find_input(const struct qd_infer_call *call, size_t *index, struct qd_error *error)
{
    size_t count = qd_model_input_count(call->model), i = 0;
    while (i < count && strcmp(qd_model_input(call->model, i)->name, call->item.name) != 0)
        i++;
    if (i == count)
        return qd_fail(error, QD_ERR_INVALID, "model '%s' has no input '%s'", qd_model_name(call->model),
                       call->item.name);
    for (size_t k = 0; k < call->input_count; k++)
        if (call->inputs[k] == i)
            return qd_fail(error, QD_ERR_INVALID, "input '%s' comes twice", call->item.name);
    *index = i;
    return QD_OK;
}

static void *take_bytes(void *infer, size_t bytes) { return qd_infer_take(infer, bytes); }

/* Name, type and shape are known: memory for the elements, but no more of it than `possible` bytes of text can fill. */
static enum qd_status begin_data(struct qd_infer_call *call, uint64_t possible, struct qd_error *error)
{
    struct qd_infer_item *item = &call->item;
    size_t index = 0;
    int64_t elems = 0;
    void *data = NULL;
    enum qd_status status = find_input(call, &index, error);
    if (status)
        return status;
    if (!qd_json_dtype_has_text(item->dtype))
        return qd_fail(error, QD_ERR_TYPE, "input '%s': %s has no JSON form, send binary data", item->name,
                       qd_dtype_name(item->dtype));
    if (!qd_shape_elems(&item->shape, &elems) || (uint64_t)elems > possible)
        return qd_fail(error, QD_ERR_SHAPE,
                       "input '%s': its shape has %" PRId64 " elements, more than its data can hold", item->name,
                       elems);
    status = qd_infer_call_alloc(call, index, item->dtype, &item->shape, &data, error);
    if (status)
        return status;
    qd_json_tensor_init(&item->tensor, item->name, item->dtype, &item->shape, data);
    item->tensor.take = take_bytes;
    item->tensor.take_ctx = call->infer;
    return QD_OK;
}

/* Keeps a token of `data` as JSON text, for later. */
static enum qd_status capture(struct qd_infer_item *item, const struct qd_json_token *token, struct qd_error *error)
{
    struct qd_text *text = &item->capture;
    item->tensor.depth += (token->event == QD_JSON_ARRAY) - (token->event == QD_JSON_ARRAY_END);
    if (token->event != QD_JSON_ARRAY_END && text->length && text->bytes[text->length - 1] != '[')
        qd_text_append(text, ",", 1);
    switch (token->event) {
    case QD_JSON_ARRAY:
        qd_text_append(text, "[", 1);
        break;
    case QD_JSON_ARRAY_END:
        qd_text_append(text, "]", 1);
        break;
    case QD_JSON_NUMBER:
        qd_text_append(text, token->text, token->length);
        break;
    case QD_JSON_STRING:
        qd_text_json_bytes(text, token->text, token->length);
        break;
    case QD_JSON_TRUE:
        qd_text_puts(text, "true");
        break;
    case QD_JSON_FALSE:
        qd_text_puts(text, "false");
        break;
    default:
        return qd_fail(error, QD_ERR_TYPE, "'data' may hold only arrays, numbers, strings, true and false");
    }
    return text->failed ? qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for a request") : QD_OK;
}

static enum qd_status in_data(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    struct qd_infer_item *item = &call->item;
    enum qd_status status = item->capturing ? capture(item, token, error)
                                            : qd_json_tensor_token(&item->tensor, token, error);
    if (!status && token->event == QD_JSON_ARRAY_END && !item->tensor.depth)
        call->place = QD_PLACE_INPUT;
    return status;
}

static enum qd_status open_data(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    struct qd_infer_item *item = &call->item;
    enum qd_status status = QD_OK;
    if (token->event != QD_JSON_ARRAY)
        return wrong_kind("data", "an array", error);
    item->has_data = true;
    /* Without a Content-Length a short body could promise much: then memory is taken only once the text is here. */
    item->capturing = !item->has_name || !item->has_type || !item->has_shape || !call->framing.body_exact;
    if (!item->capturing)
        status = begin_data(call, call->framing.body_bytes - call->json.offset, error);
    call->place = QD_PLACE_DATA;
    return status ? status : in_data(call, token, error);
}

static enum qd_status replay_token(void *ctx, const struct qd_json_token *token, struct qd_error *error)
{
    return qd_json_tensor_token(ctx, token, error);
}

static enum qd_status replay_capture(struct qd_infer_call *call, struct qd_error *error)
{
    struct qd_infer_item *item = &call->item;
    struct qd_json json;
    enum qd_status status = begin_data(call, item->capture.length, error);
    if (status)
        return status;
    qd_json_init(&json, replay_token, &item->tensor);
    status = qd_json_feed(&json, item->capture.bytes, item->capture.length, error);
    if (!status)
        status = qd_json_end(&json, error);
    qd_json_release(&json);
    return status;
}

/* The input's bytes follow behind the JSON: check the promise, take the memory. */
static enum qd_status expect_binary(struct qd_infer_call *call, struct qd_error *error)
{
    struct qd_infer_item *item = &call->item;
    size_t index = 0;
    int64_t elems = 0, bytes = 0;
    enum qd_status status = find_input(call, &index, error);
    if (status)
        return status;
    const bool strings = item->dtype == QD_STR; /* at least a length for each */
    const size_t least = strings ? QD_INFER_LENGTH_BYTES : qd_dtype_bytes(item->dtype);
    if (!qd_shape_elems(&item->shape, &elems) || !qd_i64_mul(elems, (int64_t)least, &bytes) ||
        (strings && elems ? (uint64_t)bytes > item->binary_bytes : (uint64_t)bytes != item->binary_bytes))
        return qd_fail(error, QD_ERR_INVALID,
                       "input '%s': binary_data_size is %" PRIu64 " but its shape and type need %" PRId64 " bytes%s",
                       item->name, item->binary_bytes, bytes, strings ? " or more" : "");
    call->pending_bytes += item->binary_bytes; /* each at most body_bytes and 64 of them: no overflow */
    if (call->json_bytes == UINT64_MAX)
        return qd_fail(error, QD_ERR_INVALID, "binary_data_size needs the Inference-Header-Content-Length header");
    if (item->binary_bytes > call->framing.body_bytes ||
        call->pending_bytes > call->framing.body_bytes - call->json_bytes)
        return qd_fail(error, QD_ERR_INVALID, "input '%s': the body is too short for its binary data", item->name);
    return qd_infer_call_await(call, index, item->dtype, &item->shape, (size_t)item->binary_bytes, error);
}

static enum qd_status finish_input(struct qd_infer_call *call, struct qd_error *error)
{
    const struct qd_infer_item *item = &call->item;
    call->place = QD_PLACE_INPUTS;
    if (!item->has_name)
        return qd_fail(error, QD_ERR_INVALID, "an input has no name");
    if (!item->has_type || !item->has_shape)
        return qd_fail(error, QD_ERR_INVALID, "input '%s' has no %s", item->name,
                       item->has_shape ? "datatype" : "shape");
    if (item->has_data && item->binary)
        return qd_fail(error, QD_ERR_INVALID, "input '%s' has both data and binary_data_size", item->name);
    if (item->binary)
        return expect_binary(call, error);
    if (!item->has_data)
        return qd_fail(error, QD_ERR_INVALID, "input '%s' has no data", item->name);
    return item->capturing ? replay_capture(call, error) : QD_OK;
}

static enum qd_status in_input(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    if (token->event == QD_JSON_OBJECT_END)
        return finish_input(call, error);
    if (token->event == QD_JSON_KEY)
        return note_key(call, token, input_keys, &call->item.seen, error);
    switch (call->key) {
    case ITEM_NAME:
        return take_name(&call->item, token, error);
    case ITEM_PARAMETERS:
        return open_parameters(call, token, error);
    case ITEM_SHAPE:
        call->place = QD_PLACE_SHAPE;
        return token->event == QD_JSON_ARRAY ? QD_OK : wrong_kind("shape", "an array of integers", error);
    case ITEM_TYPE:
        return take_type(&call->item, token, error);
    case ITEM_DATA:
        return open_data(call, token, error);
    default:
        return skip(call, token);
    }
}

/* ------------------------------------------------------------------ outputs */

static enum qd_status in_outputs(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    call->outputs_listed |= token->event == QD_JSON_OBJECT;
    return begin_item(call, token, QD_PLACE_OUTPUT, error);
}

static enum qd_status finish_output(struct qd_infer_call *call, struct qd_error *error)
{
    size_t count = qd_model_output_count(call->model), i = 0;
    call->place = QD_PLACE_OUTPUTS;
    if (!call->item.has_name)
        return qd_fail(error, QD_ERR_INVALID, "an output has no name");
    while (i < count && strcmp(qd_model_output(call->model, i)->name, call->item.name) != 0)
        i++;
    if (i == count)
        return qd_fail(error, QD_ERR_INVALID, "model '%s' has no output '%s'", qd_model_name(call->model),
                       call->item.name);
    for (size_t k = 0; k < call->wanted_count; k++)
        if (call->wanted[k].output == i)
            return qd_fail(error, QD_ERR_INVALID, "output '%s' comes twice", call->item.name);
    call->wanted[call->wanted_count++] = (struct qd_infer_wanted){.output = i, .binary = call->item.binary};
    return QD_OK;
}

static enum qd_status in_output(struct qd_infer_call *call, const struct qd_json_token *token, struct qd_error *error)
{
    if (token->event == QD_JSON_OBJECT_END)
        return finish_output(call, error);
    if (token->event == QD_JSON_KEY)
        return note_key(call, token, output_keys, &call->item.seen, error);
    if (call->key == ITEM_NAME)
        return take_name(&call->item, token, error);
    if (call->key == ITEM_PARAMETERS)
        return open_parameters(call, token, error);
    return skip(call, token);
}

static place_handler *const places[QD_PLACE_COUNT] = {
    [QD_PLACE_START] = in_start,     [QD_PLACE_ROOT] = in_root,     [QD_PLACE_INPUTS] = in_inputs,
    [QD_PLACE_INPUT] = in_input,     [QD_PLACE_SHAPE] = in_shape,   [QD_PLACE_DATA] = in_data,
    [QD_PLACE_OUTPUTS] = in_outputs, [QD_PLACE_OUTPUT] = in_output, [QD_PLACE_PARAMETERS] = in_parameters,
    [QD_PLACE_SKIP] = in_skip,
};

enum qd_status qd_infer_call_token(void *ctx, const struct qd_json_token *token, struct qd_error *error)
{
    struct qd_infer_call *call = ctx;
    return places[call->place](call, token, error);
}
