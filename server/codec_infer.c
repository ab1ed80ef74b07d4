/* The life of one decoded request: framing by Inference-Header-Content-Length, the binary part behind the JSON, the raw
 * binary request. The JSON itself is read in codec_infer_json.c, the answer is written in codec_infer_reply.c. */
#include "server/codec_infer_internal.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

bool qd_infer_header_length(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    size_t n = strlen(text);
    if (!n || (n > 1 && text[0] == '0'))
        return false;
    for (size_t i = 0; i < n; i++)
        if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
            return false;
    *out = value;
    return true;
}

static enum qd_status begin_raw(struct qd_infer_call *call, struct qd_error *error);

enum qd_status qd_infer_call_create(struct qd_model *model, const struct qd_infer_framing *framing,
                                    struct qd_infer_call **out, struct qd_error *error)
{
    uint64_t json_bytes = UINT64_MAX;
    *out = NULL;
    if (framing->header_length) {
        if (!qd_infer_header_length(framing->header_length, &json_bytes))
            return qd_fail(error, QD_ERR_INVALID,
                           "Inference-Header-Content-Length: '%.40s' is not a decimal number of bytes",
                           framing->header_length);
        if (json_bytes > framing->body_bytes)
            return qd_fail(error, QD_ERR_INVALID,
                           "Inference-Header-Content-Length: %" PRIu64 " is more than the body's %" PRIu64 " bytes",
                           json_bytes, framing->body_bytes);
    }
    struct qd_infer_call *call = qd_calloc(1, sizeof *call);
    if (!call)
        return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for a request");
    call->model = model;
    call->framing = *framing;
    call->framing.header_length = NULL;
    call->options = qd_infer_defaults();
    call->json_bytes = json_bytes;
    call->batch = 1;
    qd_json_init(&call->json, qd_infer_call_token, call);
    if (json_bytes == 0) {
        call->raw = call->json_done = call->binary_default = true;
        enum qd_status status = begin_raw(call, error);
        if (status) {
            qd_infer_call_destroy(&call);
            return status;
        }
    }
    *out = call;
    return QD_OK;
}

void qd_infer_call_destroy(struct qd_infer_call **call)
{
    struct qd_infer_call *c = *call;
    if (!c)
        return;
    qd_json_release(&c->json);
    qd_text_free(&c->item.capture);
    qd_infer_destroy(&c->infer);
    qd_free(c->id);
    qd_free(c);
    *call = NULL;
}

struct qd_infer *qd_infer_call_infer(const struct qd_infer_call *call) { return call->infer; }
uint64_t qd_infer_call_timeout_us(const struct qd_infer_call *call) { return call->timeout_us; }
uint64_t qd_infer_call_batch(const struct qd_infer_call *call) { return call->batch; }

static enum qd_status need_infer(struct qd_infer_call *call, struct qd_error *error)
{
    return call->infer ? QD_OK : qd_infer_create(call->model, &call->options, &call->infer, error);
}

enum qd_status qd_infer_call_alloc(struct qd_infer_call *call, size_t index, enum qd_dtype dtype,
                                   const struct qd_shape *shape, void **data, struct qd_error *error)
{
    enum qd_status status = need_infer(call, error);
    if (status)
        return status;
    const struct qd_io *io = qd_model_input(call->model, index);
    if (call->input_count == 0 && shape->rank > 0 && io->shape.rank > 0 && io->shape.dims[0] < 0)
        call->batch = (uint64_t)shape->dims[0];
    call->inputs[call->input_count++] = index;
    return qd_infer_input_alloc(call->infer, index, dtype, shape, data, error);
}

enum qd_status qd_infer_call_await(struct qd_infer_call *call, size_t index, enum qd_dtype dtype,
                                   const struct qd_shape *shape, size_t bytes, struct qd_error *error)
{
    struct qd_infer_pending piece = {.bytes = bytes, .input = index};
    void *data = NULL;
    enum qd_status status = qd_infer_call_alloc(call, index, dtype, shape, &data, error);
    if (status)
        return status;
    piece.data = data;
    if (dtype == QD_STR) {
        piece.strings = data;
        piece.count = qd_shape_span(shape, 0, shape->rank);
        piece.data = qd_infer_take(call->infer, bytes);
        if (!piece.data)
            return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for a request");
    }
    call->pending[call->pending_count++] = piece;
    return QD_OK;
}

/* ------------------------------------------------------------------ raw binary: the body is one tensor */

/* The signature's shape with its one unknown dimension worked out from the body's length. */
static enum qd_status raw_shape(const struct qd_infer_call *call, const struct qd_io *io, struct qd_shape *shape,
                                struct qd_error *error)
{
    int unknown = -1;
    int64_t known = 1;
    *shape = io->shape;
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dims[i] >= 0) {
            if (!qd_i64_mul(known, shape->dims[i], &known))
                return qd_fail(error, QD_ERR_SHAPE, "input '%s': its shape is too large", io->name);
            continue;
        }
        if (unknown >= 0)
            return qd_fail(error, QD_ERR_INVALID,
                           "a raw binary request needs an input with at most one variable dimension, '%s' has more",
                           io->name);
        unknown = i;
    }
    uint64_t bytes = qd_dtype_bytes(io->dtype), total = call->framing.body_bytes;
    if (io->dtype == QD_STR) { /* their number can't be told from the body's length */
        if (unknown >= 0)
            shape->dims[unknown] = 1;
        return QD_OK;
    }
    uint64_t row = 0;
    if (__builtin_mul_overflow((uint64_t)known, bytes, &row))
        row = 0;
    bool fits = unknown < 0 ? total == row : row && total && total % row == 0;
    if (!fits)
        return qd_fail(error, QD_ERR_INVALID,
                       "raw binary body of %" PRIu64 " bytes does not fit input '%s' (%s%s %" PRIu64 " bytes)", total,
                       io->name, qd_dtype_name(io->dtype), unknown < 0 ? "," : ", a multiple of", row);
    if (unknown >= 0)
        shape->dims[unknown] = (int64_t)(total / row);
    return QD_OK;
}

static enum qd_status begin_raw(struct qd_infer_call *call, struct qd_error *error)
{
    struct qd_shape shape;
    if (qd_model_input_count(call->model) != 1)
        return qd_fail(error, QD_ERR_INVALID, "a raw binary request needs a model with one input, '%s' has %zu",
                       qd_model_name(call->model), qd_model_input_count(call->model));
    if (!call->framing.body_exact)
        return qd_fail(error, QD_ERR_INVALID, "a raw binary request needs a Content-Length");
    const struct qd_io *io = qd_model_input(call->model, 0);
    enum qd_status status = raw_shape(call, io, &shape, error);
    return status ? status : qd_infer_call_await(call, 0, io->dtype, &shape, (size_t)call->framing.body_bytes, error);
}

/* ------------------------------------------------------------------ the body */

/* A length of 4 bytes and as many bytes, element by element, to the last byte. */
static enum qd_status split_strings(const struct qd_infer_pending *piece, const struct qd_io *io,
                                    struct qd_error *error)
{
    const uint8_t *at = piece->data, *end = piece->data + piece->bytes;
    for (int64_t i = 0; i < piece->count; i++) {
        uint32_t length = 0;
        if ((size_t)(end - at) >= QD_INFER_LENGTH_BYTES)
            memcpy(&length, at, QD_INFER_LENGTH_BYTES);
        if ((size_t)(end - at) < QD_INFER_LENGTH_BYTES || length > (size_t)(end - at) - QD_INFER_LENGTH_BYTES)
            return qd_fail(error, QD_ERR_INVALID,
                           "input '%s': its binary data end within element %" PRId64 " of %" PRId64, io->name, i,
                           piece->count);
        at += QD_INFER_LENGTH_BYTES;
        piece->strings[i] = (struct qd_string){(const char *)at, length};
        at += length;
    }
    if (at != end)
        return qd_fail(error, QD_ERR_INVALID, "input '%s': %zu bytes are left behind its %" PRId64 " binary elements",
                       io->name, (size_t)(end - at), piece->count);
    return QD_OK;
}

static enum qd_status piece_filled(const struct qd_infer_call *call, const struct qd_infer_pending *piece,
                                   struct qd_error *error)
{
    const struct qd_io *io = qd_model_input(call->model, piece->input);
    if (piece->strings)
        return split_strings(piece, io, error);
    if (io->dtype != QD_BOOL)
        return QD_OK;
    for (size_t i = 0; i < piece->bytes; i++)
        if (piece->data[i] > 1)
            return qd_fail(error, QD_ERR_TYPE, "input '%s': byte %zu of binary BOOL data is %d, not 0 or 1", io->name,
                           i, piece->data[i]);
    return QD_OK;
}

static enum qd_status feed_binary(struct qd_infer_call *call, const uint8_t *bytes, size_t n, struct qd_error *error)
{
    while (n) {
        if (call->pending_at == call->pending_count)
            return qd_fail(error, QD_ERR_INVALID, "the body has bytes left behind the last binary input");
        struct qd_infer_pending *piece = &call->pending[call->pending_at];
        size_t take = piece->bytes - piece->filled < n ? piece->bytes - piece->filled : n;
        if (take)
            memcpy(piece->data + piece->filled, bytes, take);
        piece->filled += take;
        bytes += take;
        n -= take;
        if (piece->filled == piece->bytes) {
            enum qd_status status = piece_filled(call, piece, error);
            if (status)
                return status;
            call->pending_at++;
        }
    }
    return QD_OK;
}

/* The JSON is complete: what it promised must fit what is still to come. */
static enum qd_status json_ended(struct qd_infer_call *call, struct qd_error *error)
{
    enum qd_status status = qd_json_end(&call->json, error);
    if (status)
        return status;
    call->json_done = true;
    if (call->json_bytes == UINT64_MAX && call->pending_count)
        return qd_fail(error, QD_ERR_INVALID, "binary_data_size needs the Inference-Header-Content-Length header");
    if (call->framing.body_exact && call->json_bytes != UINT64_MAX &&
        call->pending_bytes != call->framing.body_bytes - call->json_bytes)
        return qd_fail(error, QD_ERR_INVALID,
                       "binary_data_size adds up to %" PRIu64 " bytes but %" PRIu64 " follow the JSON",
                       call->pending_bytes, call->framing.body_bytes - call->json_bytes);
    return QD_OK;
}

enum qd_status qd_infer_call_feed(struct qd_infer_call *call, const void *bytes, size_t n, struct qd_error *error)
{
    const uint8_t *at = bytes;
    enum qd_status status = QD_OK;
    if (call->failed)
        return qd_fail(error, QD_ERR_INTERNAL, "a failed request was fed");
    if (n > call->framing.body_bytes - call->consumed) {
        call->failed = true;
        return qd_fail(error, QD_ERR_TOO_LARGE, "the body is longer than %" PRIu64 " bytes", call->framing.body_bytes);
    }
    if (!call->json_done) {
        uint64_t left = call->json_bytes - call->consumed;
        size_t take = left < n ? (size_t)left : n;
        call->consumed += take; /* first, so that `still to come` is never overstated */
        status = qd_json_feed(&call->json, at, take, error);
        if (!status && call->consumed == call->json_bytes)
            status = json_ended(call, error);
        at += take;
        n -= take;
    }
    if (!status && n) {
        call->consumed += n;
        status = feed_binary(call, at, n, error);
    }
    call->failed = status != QD_OK;
    return status;
}

static enum qd_status end_body(struct qd_infer_call *call, struct qd_error *error)
{
    enum qd_status status = QD_OK;
    if (!call->json_done) {
        if (call->json_bytes != UINT64_MAX)
            return qd_fail(error, QD_ERR_INVALID,
                           "the body ends before the %" PRIu64 " bytes of JSON that its header announced",
                           call->json_bytes);
        status = json_ended(call, error);
        if (status)
            return status;
    }
    while (!status && call->pending_at < call->pending_count && call->pending[call->pending_at].bytes == 0)
        status = piece_filled(call, &call->pending[call->pending_at++], error);
    if (status)
        return status;
    if (call->pending_at < call->pending_count) {
        const struct qd_infer_pending *piece = &call->pending[call->pending_at];
        return qd_fail(error, QD_ERR_INVALID, "input '%s': binary data ends after %zu of %zu bytes",
                       qd_model_input(call->model, piece->input)->name, piece->filled, piece->bytes);
    }
    if (!call->input_count && qd_model_input_count(call->model))
        return qd_fail(error, QD_ERR_INVALID, "the request has no inputs");
    status = need_infer(call, error);
    return status ? status : qd_infer_set_options(call->infer, &call->options, error);
}

enum qd_status qd_infer_call_end(struct qd_infer_call *call, struct qd_error *error)
{
    if (call->failed)
        return qd_fail(error, QD_ERR_INTERNAL, "a failed request was ended");
    enum qd_status status = end_body(call, error);
    call->failed = status != QD_OK;
    return status;
}
