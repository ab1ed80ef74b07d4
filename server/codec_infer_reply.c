/* The answer to an infer request: its JSON (with data, or with the sizes of the binary pieces behind it). */
#include "server/codec_infer_internal.h"

#include "base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static const char *nonfinite_token(double value) { return isnan(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity"; }

static enum qd_status write_float(struct qd_text *text, const struct qd_io *io, const struct qd_tensor *tensor,
                                  int64_t i, bool tokens, struct qd_error *error)
{
    double value = tensor->dtype == QD_F32 ? (double)((const float *)tensor->data)[i]
                                           : ((const double *)tensor->data)[i];
    char *to = text->bytes + text->length;
    if (!isfinite(value)) {
        if (!tokens)
            return qd_fail(error, QD_ERR_OUT_OF_RANGE,
                           "output '%s': element %" PRId64 " is not finite and has no JSON form; request binary_data",
                           io->name, i);
        const char *token = nonfinite_token(value);
        size_t n = strlen(token);
        memcpy(to, token, n);
        text->length += n;
    } else if (tensor->dtype == QD_F32)
        text->length += qd_format_float(to, (float)value);
    else
        text->length += qd_format_double(to, value);
    return QD_OK;
}

static int64_t signed_at(const struct qd_tensor *tensor, int64_t i)
{
    switch (tensor->dtype) {
    case QD_I8:
        return ((const int8_t *)tensor->data)[i];
    case QD_I16:
        return ((const int16_t *)tensor->data)[i];
    case QD_I32:
        return ((const int32_t *)tensor->data)[i];
    default:
        return ((const int64_t *)tensor->data)[i];
    }
}

static uint64_t unsigned_at(const struct qd_tensor *tensor, int64_t i)
{
    switch (tensor->dtype) {
    case QD_U8:
        return ((const uint8_t *)tensor->data)[i];
    case QD_U16:
        return ((const uint16_t *)tensor->data)[i];
    case QD_U32:
        return ((const uint32_t *)tensor->data)[i];
    default:
        return ((const uint64_t *)tensor->data)[i];
    }
}

static enum qd_status write_element(struct qd_text *text, const struct qd_io *io, const struct qd_tensor *tensor,
                                    int64_t i, bool tokens, struct qd_error *error)
{
    char *to = text->bytes + text->length;
    switch (tensor->dtype) {
    case QD_F32:
    case QD_F64:
        return write_float(text, io, tensor, i, tokens, error);
    case QD_BOOL: {
        bool set = ((const uint8_t *)tensor->data)[i] != 0;
        memcpy(to, set ? "true" : "false", 5);
        text->length += set ? 4 : 5;
        return QD_OK;
    }
    case QD_I8:
    case QD_I16:
    case QD_I32:
    case QD_I64:
        text->length += qd_format_i64(to, signed_at(tensor, i));
        return QD_OK;
    default:
        text->length += qd_format_u64(to, unsigned_at(tensor, i));
        return QD_OK;
    }
}

#define MOST_STRING_BYTES ((size_t)1 << 30) /* elements are views: many may show the same bytes */

/* All strings of an output, each with the length before it. */
static enum qd_status count_strings(const struct qd_io *io, const struct qd_tensor *tensor, size_t *bytes,
                                    struct qd_error *error)
{
    const struct qd_string *strings = tensor->data;
    *bytes = 0;
    for (int64_t i = 0, n = qd_tensor_elems(tensor); i < n; i++) {
        if (strings[i].length > MOST_STRING_BYTES - QD_INFER_LENGTH_BYTES ||
            *bytes > MOST_STRING_BYTES - QD_INFER_LENGTH_BYTES - strings[i].length)
            return qd_fail(error, QD_ERR_TOO_LARGE, "output '%s' has more than %zu bytes of strings", io->name,
                           MOST_STRING_BYTES);
        *bytes += QD_INFER_LENGTH_BYTES + strings[i].length;
    }
    return QD_OK;
}

static enum qd_status write_strings(struct qd_text *text, const struct qd_io *io, const struct qd_tensor *tensor,
                                    struct qd_error *error)
{
    const struct qd_string *strings = tensor->data;
    size_t bytes;
    enum qd_status status = count_strings(io, tensor, &bytes, error);
    qd_text_puts(text, ",\"data\":[");
    for (int64_t i = 0, n = qd_tensor_elems(tensor); i < n && !status; i++) {
        if (strings[i].length && qd_utf8_prefix(strings[i].bytes, strings[i].length) != strings[i].length)
            return qd_fail(error, QD_ERR_OUT_OF_RANGE,
                           "output '%s': element %" PRId64 " is not UTF-8 and has no JSON form; request binary_data",
                           io->name, i);
        qd_text_puts(text, i ? "," : "");
        qd_text_json_bytes(text, strings[i].bytes, strings[i].length);
    }
    qd_text_puts(text, "]");
    return status;
}

/* A binary tensor of strings, in the request's memory. */
static enum qd_status pack_strings(struct qd_infer *infer, const struct qd_io *io, const struct qd_tensor *tensor,
                                   struct qd_infer_piece *piece, struct qd_error *error)
{
    const struct qd_string *strings = tensor->data;
    enum qd_status status = count_strings(io, tensor, &piece->n, error);
    uint8_t *to = status ? NULL : qd_infer_take(infer, piece->n);
    piece->bytes = to;
    if (!to)
        return status ? status : qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for an answer");
    for (int64_t i = 0, n = qd_tensor_elems(tensor); i < n; i++) {
        const uint32_t length = (uint32_t)strings[i].length;
        memcpy(to, &length, QD_INFER_LENGTH_BYTES);
        to += QD_INFER_LENGTH_BYTES;
        if (length)
            memcpy(to, strings[i].bytes, length);
        to += length;
    }
    return QD_OK;
}

static enum qd_status write_data(struct qd_text *text, const struct qd_io *io, const struct qd_tensor *tensor,
                                 bool tokens, struct qd_error *error)
{
    int64_t elems = qd_tensor_elems(tensor);
    if (!qd_json_dtype_has_text(tensor->dtype))
        return qd_fail(error, QD_ERR_TYPE, "output '%s': %s has no JSON form; request binary_data", io->name,
                       qd_dtype_name(tensor->dtype));
    if (tensor->dtype == QD_STR)
        return write_strings(text, io, tensor, error);
    qd_text_puts(text, ",\"data\":[");
    for (int64_t i = 0; i < elems; i++) {
        if (!qd_text_reserve(text, QD_NUMBER_TEXT_BYTES + 1))
            return QD_OK; /* `failed` is looked at once, at the end */
        if (i)
            text->bytes[text->length++] = ',';
        enum qd_status status = write_element(text, io, tensor, i, tokens, error);
        if (status)
            return status;
    }
    qd_text_puts(text, "]");
    return QD_OK;
}

static enum qd_status write_output(struct qd_infer_call *call, struct qd_infer_reply *reply,
                                   struct qd_infer_wanted wanted, struct qd_error *error)
{
    const struct qd_io *io = qd_model_output(call->model, wanted.output);
    const struct qd_tensor *tensor = qd_infer_output(call->infer, wanted.output);
    struct qd_text *text = &reply->json;
    bool binary = wanted.binary < 0 ? call->binary_default : wanted.binary != 0;
    enum qd_status status = QD_OK;
    qd_text_puts(text, "{\"name\":");
    qd_text_json_string(text, io->name);
    qd_text_printf(text, ",\"datatype\":\"%s\",\"shape\":[", qd_dtype_name(tensor->dtype));
    for (int i = 0; i < tensor->shape.rank; i++)
        qd_text_printf(text, "%s%" PRId64, i ? "," : "", tensor->shape.dims[i]);
    qd_text_puts(text, "]");
    if (binary) {
        struct qd_infer_piece piece = {tensor->data, qd_tensor_bytes(tensor)};
        if (tensor->dtype == QD_STR)
            status = pack_strings(call->infer, io, tensor, &piece, error);
        qd_text_printf(text, ",\"parameters\":{\"binary_data_size\":%zu}", piece.n);
        if (piece.n && !status) {
            reply->pieces[reply->piece_count++] = piece;
            reply->piece_bytes += piece.n;
            reply->binary = true;
        }
    } else
        status = write_data(text, io, tensor, call->framing.nonfinite_tokens, error);
    qd_text_puts(text, "}");
    return status;
}

static void write_head(const struct qd_infer_call *call, struct qd_text *text)
{
    struct qd_infer_report report;
    qd_infer_report(call->infer, &report);
    qd_text_puts(text, "{\"model_name\":");
    qd_text_json_string(text, qd_model_name(call->model));
    qd_text_puts(text, ",\"model_version\":\"1\"");
    if (call->id) {
        qd_text_puts(text, ",\"id\":");
        qd_text_json_string(text, call->id);
    }
    const char *precision = qd_precision_name(report.precision);
    qd_text_printf(text,
                   ",\"parameters\":{\"quant_epoch\":%" PRIu64 ",\"quant_plan\":\"%08" PRIx32
                   "\",\"quant_guarded\":%" PRIu32 ",\"quant_precision\":\"%s\"",
                   report.epoch, report.plan, report.guarded, precision ? precision : "");
    if (report.nonfinite)
        qd_text_printf(text, ",\"quant_nonfinite\":%" PRIu64, report.nonfinite);
    qd_text_puts(text, "},\"outputs\":[");
}

enum qd_status qd_infer_call_encode(struct qd_infer_call *call, struct qd_infer_reply *reply, struct qd_error *error)
{
    size_t count = call->outputs_listed ? call->wanted_count : qd_model_output_count(call->model);
    enum qd_status status = QD_OK;
    *reply = (struct qd_infer_reply){0};
    reply->pieces = qd_calloc(count ? count : 1, sizeof reply->pieces[0]);
    if (!reply->pieces)
        return qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for an answer");
    write_head(call, &reply->json);
    for (size_t i = 0; i < count && !status; i++) {
        struct qd_infer_wanted wanted = {.output = i, .binary = -1};
        if (i)
            qd_text_puts(&reply->json, ",");
        status = write_output(call, reply, call->outputs_listed ? call->wanted[i] : wanted, error);
    }
    qd_text_puts(&reply->json, "]}");
    if (!status && reply->json.failed)
        status = qd_fail(error, QD_ERR_NO_MEMORY, "out of memory for an answer");
    if (status)
        qd_infer_reply_free(reply);
    return status;
}

void qd_infer_reply_free(struct qd_infer_reply *reply)
{
    qd_text_free(&reply->json);
    qd_free(reply->pieces);
    *reply = (struct qd_infer_reply){0};
}
