/*
 * Bytes that grow, JSON strings and percent-encoding for requests; the sentence of an error; the table of datatypes.
 * Nothing here touches the network.
 */
#include "clients/c/internal/wire.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum quantd_client_status quantd_client_fail(struct quantd_client_error *error, enum quantd_client_status status,
                                             const char *format, ...)
{
    va_list list;
    if (!error)
        return status;
    error->status = status;
    error->http_status = 0;
    va_start(list, format);
    vsnprintf(error->text, sizeof error->text, format, list);
    va_end(list);
    return status;
}

static bool reserve(struct quantd_client_text *text, size_t more)
{
    if (text->failed || more >= SIZE_MAX / 2 - text->length) {
        text->failed = true;
        return false;
    }
    size_t need = text->length + more + 1;
    if (need <= text->capacity)
        return true;
    size_t capacity = need < 256 ? 256 : need + need / 2;
    char *bytes = realloc(text->bytes, capacity);
    if (!bytes) {
        text->failed = true;
        return false;
    }
    text->bytes = bytes;
    text->capacity = capacity;
    return true;
}

void quantd_client_text_put(struct quantd_client_text *text, const void *bytes, size_t length)
{
    if (!reserve(text, length))
        return;
    if (length)
        memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = 0;
}

void quantd_client_text_printf(struct quantd_client_text *text, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int length = vsnprintf(NULL, 0, format, list);
    va_end(list);
    if (length < 0 || !reserve(text, (size_t)length)) {
        text->failed = true;
        return;
    }
    va_start(list, format);
    vsnprintf(text->bytes + text->length, (size_t)length + 1, format, list);
    va_end(list);
    text->length += (size_t)length;
}

void quantd_client_text_json(struct quantd_client_text *text, const char *string)
{
    quantd_client_text_put(text, "\"", 1);
    for (const char *at = string; *at; at++) {
        unsigned char c = (unsigned char)*at;
        if (c == '"' || c == '\\')
            quantd_client_text_printf(text, "\\%c", c);
        else if (c < 0x20)
            quantd_client_text_printf(text, "\\u%04x", c);
        else
            quantd_client_text_put(text, at, 1);
    }
    quantd_client_text_put(text, "\"", 1);
}

void quantd_client_text_segment(struct quantd_client_text *text, const char *segment)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (const char *at = segment; *at; at++)
        if (strchr(plain, *at))
            quantd_client_text_put(text, at, 1);
        else
            quantd_client_text_printf(text, "%%%02X", (unsigned char)*at);
}

void quantd_client_text_free(struct quantd_client_text *text)
{
    free(text->bytes);
    *text = (struct quantd_client_text){0};
}

/* ------------------------------------------------------------------ datatypes */

static const struct {
    const char *name;
    size_t bytes;
} datatypes[] = {
    [QUANTD_CLIENT_BOOL] = {"BOOL", 1},     [QUANTD_CLIENT_UINT8] = {"UINT8", 1},
    [QUANTD_CLIENT_UINT16] = {"UINT16", 2}, [QUANTD_CLIENT_UINT32] = {"UINT32", 4},
    [QUANTD_CLIENT_UINT64] = {"UINT64", 8}, [QUANTD_CLIENT_INT8] = {"INT8", 1},
    [QUANTD_CLIENT_INT16] = {"INT16", 2},   [QUANTD_CLIENT_INT32] = {"INT32", 4},
    [QUANTD_CLIENT_INT64] = {"INT64", 8},   [QUANTD_CLIENT_FP16] = {"FP16", 2},
    [QUANTD_CLIENT_FP32] = {"FP32", 4},     [QUANTD_CLIENT_FP64] = {"FP64", 8},
    [QUANTD_CLIENT_BF16] = {"BF16", 2},     [QUANTD_CLIENT_BYTES] = {"BYTES", 0},
};
enum { DATATYPES = sizeof datatypes / sizeof datatypes[0] };

const char *quantd_client_datatype_name(enum quantd_client_datatype type)
{
    return (unsigned)type < DATATYPES ? datatypes[type].name : "?";
}

size_t quantd_client_datatype_bytes(enum quantd_client_datatype type)
{
    return (unsigned)type < DATATYPES ? datatypes[type].bytes : 0;
}

bool quantd_client_datatype_find(const char *name, enum quantd_client_datatype *type)
{
    for (size_t i = 0; i < DATATYPES; i++)
        if (strcmp(datatypes[i].name, name) == 0) {
            *type = (enum quantd_client_datatype)i;
            return true;
        }
    return false;
}

bool quantd_client_tensor_bytes(enum quantd_client_datatype type, int rank, const int64_t *shape, size_t *bytes)
{
    size_t product = quantd_client_datatype_bytes(type);
    if (product == 0 || rank < 0 || rank > QUANTD_CLIENT_MAX_RANK)
        return false;
    for (int i = 0; i < rank; i++)
        if (shape[i] < 0 || __builtin_mul_overflow(product, (uint64_t)shape[i], &product))
            return false;
    *bytes = product;
    return true;
}
