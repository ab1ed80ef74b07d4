/*
 * An input of a model from what the user gave: FILE.npy, FILE.json, JSON itself, or a file of raw bytes. Finds the
 * shape out where it can, and converts numbers to the model's datatype where that loses nothing but the precision of a
 * real.
 */
#include "clients/cli/quantctl.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE_BYTES = 1 << 30 };

/* What is being read: for sentences. */
struct input {
    const char *source;
    const struct quantd_client_signature *signature;
    struct quantd_client_tensor *tensor;
};

static int wrong(const struct input *in, const char *why)
{
    return quantd_ctl_say(QUANTD_CTL_USAGE, "input '%s' from '%.200s': %s", in->signature->name, in->source, why);
}

static char *read_file(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    char *bytes = NULL;
    size_t capacity = 0;
    *length = 0;
    if (!file)
        return NULL;
    for (;;) {
        if (*length + 1 >= capacity) {
            capacity = capacity ? capacity * 2 : 65536;
            char *more = capacity <= MAX_FILE_BYTES ? realloc(bytes, capacity) : NULL;
            if (!more) {
                errno = EFBIG;
                break;
            }
            bytes = more;
        }
        size_t got = fread(bytes + *length, 1, capacity - *length - 1, file);
        *length += got;
        if (got == 0) {
            if (ferror(file))
                break;
            fclose(file);
            bytes[*length] = 0;
            return bytes;
        }
    }
    free(bytes);
    fclose(file);
    return NULL;
}

static size_t elements_of(const struct quantd_client_tensor *tensor)
{
    size_t n = 1;
    for (int i = 0; i < tensor->rank; i++)
        if (__builtin_mul_overflow(n, (uint64_t)tensor->shape[i], &n))
            return SIZE_MAX;
    return n;
}

/* "1,1,28,28" */
static int parse_shape(const struct input *in, const char *text)
{
    struct quantd_client_tensor *tensor = in->tensor;
    for (tensor->rank = 0; *text; tensor->rank++) {
        char *end;
        if (tensor->rank == QUANTD_CLIENT_MAX_RANK || *text < '0' || *text > '9')
            return wrong(in, "--shape is a list like 1,1,28,28");
        tensor->shape[tensor->rank] = strtoll(text, &end, 10);
        if ((*end && *end != ',') || (*end == ',' && !end[1]))
            return wrong(in, "--shape is a list like 1,1,28,28");
        text = *end ? end + 1 : end;
    }
    return QUANTD_CTL_OK;
}

/* The model's shape, its one free dimension from the number of elements. */
static int guess_shape(const struct input *in, size_t elements)
{
    const struct quantd_client_signature *signature = in->signature;
    int open = -1;
    size_t known = 1;
    for (int i = 0; i < signature->rank; i++) {
        in->tensor->shape[i] = signature->shape[i];
        if (signature->shape[i] >= 0) {
            if (__builtin_mul_overflow(known, (uint64_t)signature->shape[i], &known))
                return wrong(in, "the model's shape is too large");
        } else if (open < 0)
            open = i;
        else
            return wrong(in, "the model leaves several dimensions open: give --shape");
    }
    if (known == 0 || elements % known != 0 || (open < 0 && elements != known)) {
        char text[128];
        snprintf(text, sizeof text, "it has %zu elements, the model takes %s%zu", elements,
                 open < 0 ? "" : "a multiple of ", known);
        return wrong(in, text);
    }
    if (open >= 0)
        in->tensor->shape[open] = (int64_t)(elements / known);
    in->tensor->rank = signature->rank;
    return QUANTD_CTL_OK;
}

static int allocate(const struct input *in, size_t elements)
{
    size_t item = quantd_client_datatype_bytes(in->tensor->datatype);
    if (__builtin_mul_overflow(elements, item, &in->tensor->bytes) || in->tensor->bytes > MAX_FILE_BYTES)
        return wrong(in, "it is too large");
    in->tensor->data = calloc(in->tensor->bytes + 1, 1);
    return in->tensor->data ? QUANTD_CTL_OK : wrong(in, "there is no memory for it");
}

/* Elements into a tensor whose shape is set by --shape, or guessed now. */
static int settle(const struct input *in, size_t elements, bool shaped)
{
    if (!shaped) {
        int status = guess_shape(in, elements);
        if (status != QUANTD_CTL_OK)
            return status;
    } else if (elements_of(in->tensor) != elements) {
        char text[128];
        snprintf(text, sizeof text, "it has %zu elements, its shape needs %zu", elements, elements_of(in->tensor));
        return wrong(in, text);
    }
    return allocate(in, elements);
}

/* ------------------------------------------------------------------ raw bytes */

static int from_raw(const struct input *in, const char *bytes, size_t length, bool shaped)
{
    size_t item = quantd_client_datatype_bytes(in->signature->datatype);
    if (length % item)
        return wrong(in, "its size is no multiple of the size of an element");
    int status = settle(in, length / item, shaped);
    if (status == QUANTD_CTL_OK && length)
        memcpy((void *)(uintptr_t)in->tensor->data, bytes, length);
    return status;
}

/* ------------------------------------------------------------------ .npy */

static bool npy_datatype(const struct quantd_ctl_npy *npy, enum quantd_client_datatype *type)
{
    for (int i = 0; i < QUANTD_CLIENT_BYTES; i++) {
        const char *name = quantd_client_datatype_name((enum quantd_client_datatype)i);
        char kind = name[0] == 'F' ? 'f' : name[0] == 'I' ? 'i' : name[0] == 'U' ? 'u' : 'b';
        *type = (enum quantd_client_datatype)i;
        if (i != QUANTD_CLIENT_BF16 && kind == npy->kind && quantd_client_datatype_bytes(*type) == npy->item_bytes)
            return true;
    }
    return false;
}

static int from_npy(const struct input *in, const char *bytes, size_t length, bool shaped)
{
    struct quantd_ctl_npy npy = {0};
    enum quantd_client_datatype type = QUANTD_CLIENT_BYTES;
    const char *why = quantd_ctl_npy_read(bytes, length, &npy);
    if (why)
        return wrong(in, why);
    if (!npy_datatype(&npy, &type))
        return wrong(in, "its elements have no datatype of the protocol");
    if (!shaped) { /* the array knows its own */
        in->tensor->rank = npy.rank;
        memcpy(in->tensor->shape, npy.shape, sizeof npy.shape);
    }
    int status = settle(in, npy.data_bytes / npy.item_bytes, true);
    if (status != QUANTD_CTL_OK)
        return status;
    char *data = (char *)(uintptr_t)in->tensor->data;
    size_t item = quantd_client_datatype_bytes(in->tensor->datatype);
    if (type == in->tensor->datatype) {
        memcpy(data, npy.data, npy.data_bytes);
        return QUANTD_CTL_OK;
    }
    for (size_t i = 0; i < npy.data_bytes / npy.item_bytes; i++) {
        struct quantd_ctl_number number;
        quantd_ctl_number_load(type, npy.data + i * npy.item_bytes, &number);
        if (!quantd_ctl_number_store(in->tensor->datatype, number, data + i * item)) {
            char text[128];
            snprintf(text, sizeof text, "it holds %s, the model takes %s: element %zu can't be converted",
                     quantd_client_datatype_name(type), quantd_client_datatype_name(in->tensor->datatype), i);
            return wrong(in, text);
        }
    }
    return QUANTD_CTL_OK;
}

/* ------------------------------------------------------------------ JSON */

/* Nesting gives the shape; every row must have the first one's length. depth is at most MAX_RANK. */
static bool count_json(const json_t *value, int depth, struct quantd_client_tensor *tensor, size_t *elements)
{
    if (!json_is_array(value)) {
        ++*elements;
        return depth == tensor->rank && (json_is_number(value) || json_is_boolean(value));
    }
    if (depth >= tensor->rank || (int64_t)json_array_size(value) != tensor->shape[depth])
        return false;
    for (size_t i = 0; i < json_array_size(value); i++)
        if (!count_json(json_array_get(value, i), depth + 1, tensor, elements))
            return false;
    return true;
}

static bool store_json(const json_t *value, enum quantd_client_datatype type, char **place)
{
    if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++)
            if (!store_json(json_array_get(value, i), type, place))
                return false;
        return true;
    }
    struct quantd_ctl_number number = {.kind = json_is_real(value) ? QUANTD_CTL_REAL : QUANTD_CTL_SIGNED,
                                       .real = json_real_value(value),
                                       .whole = json_is_true(value) ? 1 : json_integer_value(value)};
    bool stored = quantd_ctl_number_store(type, number, *place);
    *place += quantd_client_datatype_bytes(type);
    return stored;
}

static int from_json(const struct input *in, const char *bytes, size_t length, bool shaped)
{
    json_error_t why;
    struct quantd_client_tensor nested = {0};
    size_t elements = 0;
    json_t *root = json_loadb(bytes, length, 0, &why);
    if (!root) {
        char text[256];
        snprintf(text, sizeof text, "it is not JSON: %s (line %d)", why.text, why.line);
        return wrong(in, text);
    }
    int status = QUANTD_CTL_OK;
    for (const json_t *at = root; json_is_array(at); at = json_array_get(at, 0)) {
        if (nested.rank == QUANTD_CLIENT_MAX_RANK) {
            status = wrong(in, "it is nested more than 8 deep");
            goto done;
        }
        nested.shape[nested.rank++] = (int64_t)json_array_size(at);
    }
    if (nested.rank == 0 || !count_json(root, 0, &nested, &elements)) {
        status = wrong(in, "it is no list of numbers, or its rows differ in length");
        goto done;
    }
    if (!shaped && nested.rank > 1) { /* a flat list says nothing of a shape */
        in->tensor->rank = nested.rank;
        memcpy(in->tensor->shape, nested.shape, sizeof nested.shape);
        shaped = true;
    }
    status = settle(in, elements, shaped);
    if (status == QUANTD_CTL_OK) {
        char *place = (char *)(uintptr_t)in->tensor->data;
        if (!store_json(root, in->tensor->datatype, &place))
            status = wrong(in, "a number of it does not fit the model's datatype");
    }
done:
    json_decref(root);
    return status;
}

/* ------------------------------------------------------------------ all of them */

static bool ends_with(const char *text, const char *ending)
{
    size_t n = strlen(text), m = strlen(ending);
    return n >= m && strcmp(text + n - m, ending) == 0;
}

int quantd_ctl_read_tensor(const char *source, const char *shape, const struct quantd_client_signature *signature,
                           struct quantd_client_tensor *tensor)
{
    struct input in = {source, signature, tensor};
    int status = QUANTD_CTL_OK;
    *tensor = (struct quantd_client_tensor){.name = signature->name, .datatype = signature->datatype};
    if (quantd_client_datatype_bytes(signature->datatype) == 0)
        return wrong(&in, "the model takes BYTES, which quantctl can't send");
    if (shape)
        status = parse_shape(&in, shape);
    if (status != QUANTD_CTL_OK)
        return status;
    if (*source == '[')
        return from_json(&in, source, strlen(source), shape != NULL);
    size_t length;
    char *bytes = read_file(source, &length);
    if (!bytes)
        return wrong(&in, strerror(errno));
    if (ends_with(source, ".npy"))
        status = from_npy(&in, bytes, length, shape != NULL);
    else if (ends_with(source, ".json"))
        status = from_json(&in, bytes, length, shape != NULL);
    else
        status = from_raw(&in, bytes, length, shape != NULL);
    free(bytes);
    return status;
}
