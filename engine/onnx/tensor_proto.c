/* TensorProto to struct qd_tensor. Every tensor of a file passes through finish(), the one place that sets data: it has
 * compared what is stored with product(dims) * size. Not for types of values without data (value_info.c). */
#include "engine/onnx/internal.h"

#include <inttypes.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "views show a file's little-endian numbers as they lie");

enum storage { STORED_FLOAT, STORED_INT32, STORED_INT64, STORED_DOUBLE, STORED_UINT64, STORED_STRING, STORAGE_COUNT };

struct storage_row {
    uint32_t field; /* of TensorProto */
    const char *name;
    enum qd_wire_type element;
};

static const struct storage_row storages[STORAGE_COUNT] = {
    [STORED_FLOAT] = {4, "float_data", QD_WIRE_FIXED32},    [STORED_INT32] = {5, "int32_data", QD_WIRE_VARINT},
    [STORED_STRING] = {6, "string_data", QD_WIRE_BYTES},    [STORED_INT64] = {7, "int64_data", QD_WIRE_VARINT},
    [STORED_DOUBLE] = {10, "double_data", QD_WIRE_FIXED64}, [STORED_UINT64] = {11, "uint64_data", QD_WIRE_VARINT},
};

/* Where the standard puts elements of a type that are not raw, and for narrow types in int32_data the values allowed.
 */
struct type_row {
    enum storage storage;
    int64_t least, most;
};

static const struct type_row types[QD_DTYPE_COUNT] = {
    [QD_F32] = {STORED_FLOAT, 0, 0},
    [QD_F64] = {STORED_DOUBLE, 0, 0},
    [QD_I64] = {STORED_INT64, 0, 0},
    [QD_U64] = {STORED_UINT64, 0, 0},
    [QD_U32] = {STORED_UINT64, 0, UINT32_MAX},
    [QD_I32] = {STORED_INT32, INT32_MIN, INT32_MAX},
    [QD_I16] = {STORED_INT32, INT16_MIN, INT16_MAX},
    [QD_U16] = {STORED_INT32, 0, UINT16_MAX},
    [QD_I8] = {STORED_INT32, INT8_MIN, INT8_MAX},
    [QD_U8] = {STORED_INT32, 0, UINT8_MAX},
    [QD_BOOL] = {STORED_INT32, 0, 1},
    [QD_F16] = {STORED_INT32, 0, UINT16_MAX},
    [QD_BF16] = {STORED_INT32, 0, UINT16_MAX},
    [QD_STR] = {STORED_STRING, 0, 0},
};

/* Types of the standard that the engine has not, by TensorProto.DataType. */
static const char *const refused_types[] = {
    [14] = "COMPLEX64",      [15] = "COMPLEX128", [17] = "FLOAT8E4M3FN", [18] = "FLOAT8E4M3FNUZ", [19] = "FLOAT8E5M2",
    [20] = "FLOAT8E5M2FNUZ", [21] = "UINT4",      [22] = "INT4",         [23] = "FLOAT4E2M1",     [24] = "FLOAT8E8M0",
    [25] = "UINT2",          [26] = "INT2",       [27] = "FLOAT6E2M3",   [28] = "FLOAT6E3M2",
};

/* What a TensorProto says, before it is believed. */
struct proto {
    const char *name;
    int64_t onnx_type;
    struct qd_shape shape;
    size_t dims, stored[STORAGE_COUNT];
    bool has_raw, segmented;
    int64_t data_location; /* 1: in another file */
    size_t external_keys;
    struct qd_text raw;
};

enum qd_status qd_import_dtype(struct qd_import *im, int64_t onnx, const char *kind, const char *name,
                               enum qd_dtype *out)
{
    *out = qd_dtype_from_onnx(onnx);
    if (*out != QD_NONE || onnx == 0)
        return QD_OK;
    bool known = onnx > 0 && onnx < (int64_t)(sizeof refused_types / sizeof refused_types[0]) && refused_types[onnx];
    if (known)
        return qd_fail(im->error, QD_ERR_UNSUPPORTED, "%s '%s': type %s is not supported", kind, name,
                       refused_types[onnx]);
    return qd_fail(im->error, QD_ERR_UNSUPPORTED, "%s '%s': unknown data type %" PRId64, kind, name, onnx);
}

static bool read_dims(struct proto *p, const struct qd_wire_field *field)
{
    struct qd_wire_list list = qd_wire_values(field, QD_WIRE_VARINT);
    uint64_t value;
    if (!qd_wire_count(field, QD_WIRE_VARINT, &(size_t){0}))
        return false;
    for (; qd_wire_value(&list, &value); p->dims++)
        if (p->dims < QD_MAX_RANK)
            p->shape.dims[p->dims] = (int64_t)value;
    return !list.packed.bad;
}

/* One field. False when its wire type is not the one of its number. */
static bool read_field(struct proto *p, const struct qd_wire_field *field, struct qd_text *name)
{
    for (int s = 0; s < STORAGE_COUNT; s++)
        if (storages[s].field == field->number)
            return qd_wire_count(field, storages[s].element, &p->stored[s]);
    switch (field->number) {
    case 1:
        return read_dims(p, field);
    case 2:
        p->onnx_type = (int32_t)(uint32_t)field->value; /* as the format's own readers cut an int32 */
        return field->type == QD_WIRE_VARINT;
    case 3:
        p->segmented = true;
        return field->type == QD_WIRE_BYTES;
    case 8:
        *name = field->bytes;
        return field->type == QD_WIRE_BYTES;
    case 9:
        p->raw = field->bytes;
        p->has_raw = true;
        return field->type == QD_WIRE_BYTES;
    case 13:
        p->external_keys++;
        return field->type == QD_WIRE_BYTES;
    case 14:
        p->data_location = (int32_t)(uint32_t)field->value;
        return field->type == QD_WIRE_VARINT;
    default:
        return true;
    }
}

static enum qd_status read_proto(struct qd_import *im, struct qd_text message, struct proto *p)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text name = {0};
    bool sound = true;
    while (qd_wire_next(&cursor, &field))
        sound = read_field(p, &field, &name) && sound;
    enum qd_status status = qd_import_name(im, name, "a tensor's name", &p->name);
    if (status == QD_OK && (cursor.bad || !sound))
        return qd_fail(im->error, QD_ERR_FORMAT, "tensor '%s': malformed", p->name);
    return status;
}

/* Bools are read as 0 or 1; a file may say true by any other byte as well. */
static enum qd_status normalise_bools(struct qd_import *im, struct qd_tensor *out, size_t bytes)
{
    const unsigned char *from = out->data;
    size_t i = 0;
    while (i < bytes && from[i] <= 1)
        i++;
    if (i == bytes)
        return QD_OK;
    unsigned char *to = qd_import_alloc_raw(im, bytes);
    if (!to)
        return im->error->status;
    for (i = 0; i < bytes; i++)
        to[i] = from[i] != 0;
    out->data = to;
    return QD_OK;
}

static enum qd_status take_raw(struct qd_import *im, const struct proto *p, size_t bytes, struct qd_tensor *out)
{
    size_t size = qd_dtype_bytes(out->dtype);
    bool large = out->dtype == QD_F32 && bytes >= QD_ONNX_VIEW_BYTES;
    if ((uintptr_t)p->raw.bytes % size == 0 || large) {
        out->data = (void *)(uintptr_t)p->raw.bytes;
    } else {
        out->data = qd_import_alloc_raw(im, bytes);
        if (!out->data)
            return im->error->status;
        memcpy(out->data, p->raw.bytes, bytes);
    }
    return out->dtype == QD_BOOL ? normalise_bools(im, out, bytes) : QD_OK;
}

/* Stores one element of a typed field; false when the type can't hold it. */
static bool put(unsigned char *to, size_t size, const struct type_row *type, uint64_t value)
{
    if (type->storage == STORED_INT32) {
        int64_t number = (int32_t)(uint32_t)value; /* as the format's own readers cut an int32 */
        if (number < type->least || number > type->most)
            return false;
    } else if (size == 4 && type->storage == STORED_UINT64 && value > (uint64_t)type->most) {
        return false;
    }
    memcpy(to, &value, size);
    return true;
}

static enum qd_status take_typed(struct qd_import *im, const struct proto *p, struct qd_text message, size_t bytes,
                                 struct qd_tensor *out)
{
    const struct type_row *type = &types[out->dtype];
    const struct storage_row *storage = &storages[type->storage];
    size_t size = qd_dtype_bytes(out->dtype), done = 0;
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    unsigned char *data = qd_import_alloc_raw(im, bytes);
    if (!data)
        return im->error->status;
    while (qd_wire_next(&cursor, &field)) {
        if (field.number != storage->field)
            continue;
        struct qd_wire_list list = qd_wire_values(&field, storage->element);
        for (uint64_t value; done < bytes && qd_wire_value(&list, &value); done += size)
            if (!put(data + done, size, type, value))
                return qd_fail(im->error, QD_ERR_FORMAT, "tensor '%s': element %zu of %s is not a value of %s", p->name,
                               done / size, storage->name, qd_dtype_name(out->dtype));
    }
    if (done != bytes) /* a varint in it was malformed */
        return qd_fail(im->error, QD_ERR_FORMAT, "tensor '%s': malformed %s", p->name, storage->name);
    out->data = data;
    return QD_OK;
}

/* One field per element, which check_amount has counted. */
static enum qd_status take_strings(struct qd_import *im, struct qd_text message, size_t elems, struct qd_tensor *out)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    size_t done = 0;
    struct qd_string *data = qd_import_alloc(im, elems, sizeof *data);
    if (!data)
        return im->error->status;
    while (done < elems && qd_wire_next(&cursor, &field))
        if (field.number == storages[STORED_STRING].field)
            data[done++] = (struct qd_string){field.bytes.bytes, field.bytes.length};
    out->data = data;
    return QD_OK;
}

/* What external_data says, before it is believed. */
struct place {
    struct qd_text location;
    uint64_t offset, length;
    bool has_length;
};

static bool read_number(struct qd_text text, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < text.length; i++) {
        unsigned digit = (unsigned)(unsigned char)text.bytes[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(*out, 10u, out) || __builtin_add_overflow(*out, digit, out))
            return false;
    }
    return text.length > 0;
}

static bool is_key(struct qd_text key, const char *name)
{
    return key.length == strlen(name) && memcmp(key.bytes, name, key.length) == 0;
}

/* One key and its value. Unknown keys are refused: nobody can say what was meant. */
static bool read_entry(struct qd_text message, struct place *place)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text key = {0}, value = {0};
    while (qd_wire_next(&cursor, &field))
        if (field.type == QD_WIRE_BYTES && field.number == 1)
            key = field.bytes;
        else if (field.type == QD_WIRE_BYTES && field.number == 2)
            value = field.bytes;
    if (cursor.bad)
        return false;
    if (is_key(key, "location"))
        place->location = value;
    else if (is_key(key, "offset"))
        return read_number(value, &place->offset);
    else if (is_key(key, "length"))
        return (place->has_length = read_number(value, &place->length));
    else
        return is_key(key, "checksum"); /* of the whole file, by SHA-1: for tools */
    return true;
}

static enum qd_status read_place(struct qd_import *im, struct qd_text message, const struct proto *p,
                                 struct place *place)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    *place = (struct place){.offset = 0};
    while (qd_wire_next(&cursor, &field))
        if (field.number == 13 && !read_entry(field.bytes, place))
            return qd_fail(im->error, QD_ERR_FORMAT, "tensor '%s': malformed external_data", p->name);
    if (place->location.length == 0)
        return qd_fail(im->error, QD_ERR_FORMAT, "tensor '%s': external_data without a location", p->name);
    return QD_OK;
}

/* Data in another file become the tensor's raw data; what is there is then checked like any other. */
static enum qd_status take_external(struct qd_import *im, struct qd_text message, struct proto *p, size_t bytes)
{
    struct place place;
    const char *location;
    const struct qd_file *file;
    bool first;
    if (!im->externals)
        return qd_fail(im->error, QD_ERR_UNSUPPORTED,
                       "tensor '%s': its data lie in another file, which only a model loaded from a file may have",
                       p->name);
    if (p->has_raw)
        return qd_fail(im->error, QD_ERR_FORMAT, "tensor '%s': raw_data and external_data at once", p->name);
    enum qd_status status = read_place(im, message, p, &place);
    if (status == QD_OK)
        status = qd_import_name(im, place.location, "a location of external data", &location);
    if (status)
        return status;
    if (qd_externals_find(im->externals, location, &file, &first, im->error) != QD_OK)
        return qd_error_prefix(im->error, "tensor '%s'", p->name);
    if (first) {
        im->mix_left_bytes += file->size;
        if (!qd_size_add(im->budget_bytes, file->size, &im->budget_bytes))
            im->budget_bytes = SIZE_MAX;
    }
    uint64_t length = place.has_length ? place.length : bytes;
    if (place.offset > file->size || length > file->size - place.offset)
        return qd_fail(im->error, QD_ERR_FORMAT,
                       "tensor '%s': '%s' has %zu bytes, %" PRIu64 " at offset %" PRIu64 " are wanted", p->name,
                       location, file->size, length, place.offset);
    qd_import_mix(im, place.location.bytes, place.location.length);
    qd_import_mix(im, &place.offset, sizeof place.offset);
    if (length <= im->mix_left_bytes && length > 0) { /* what tensors share is read once */
        qd_import_mix(im, (const char *)file->bytes + place.offset, (size_t)length);
        im->mix_left_bytes -= (size_t)length;
    }
    p->has_raw = true;
    p->raw = length ? (struct qd_text){(const char *)file->bytes + place.offset, (size_t)length}
                    : (struct qd_text){"", 0};
    return QD_OK;
}

/* The sentences of section "what is stored is what the shape says". */
static enum qd_status check_amount(struct qd_import *im, const struct proto *p, const struct qd_tensor *t, size_t elems,
                                   size_t bytes)
{
    char text[128];
    enum storage storage = types[t->dtype].storage;
    bool typed = false;
    qd_shape_text(&t->shape, text, sizeof text);
    for (int s = 0; s < STORAGE_COUNT; s++) {
        if (p->stored[s] && s != (int)storage)
            return qd_fail(im->error, QD_ERR_FORMAT, "tensor '%s': %s can't hold elements of %s", p->name,
                           storages[s].name, qd_dtype_name(t->dtype));
        typed = typed || p->stored[s];
    }
    if (p->has_raw && (typed || t->dtype == QD_STR))
        return qd_fail(im->error, QD_ERR_FORMAT, "tensor '%s': raw_data %s", p->name,
                       typed ? "and typed data at once" : "can't hold strings");
    if (p->has_raw && p->raw.length != bytes)
        return qd_fail(im->error, QD_ERR_FORMAT, "tensor '%s': raw_data has %zu bytes, shape %s of %s needs %zu",
                       p->name, p->raw.length, text, qd_dtype_name(t->dtype), bytes);
    if (!p->has_raw && p->stored[storage] != elems)
        return qd_fail(im->error, QD_ERR_FORMAT, "tensor '%s': %zu elements stored, shape %s needs %zu", p->name,
                       p->stored[storage], text, elems);
    return QD_OK;
}

/* The constructor: the only place that makes a tensor out of a file's bytes. */
static enum qd_status finish(struct qd_import *im, struct proto *p, struct qd_text message, struct qd_tensor *out)
{
    int64_t elems;
    size_t bytes;
    for (int i = 0; i < out->shape.rank; i++)
        if (out->shape.dims[i] < 0)
            return qd_fail(im->error, QD_ERR_FORMAT, "tensor '%s': dimension %d is negative", p->name, i);
    if (!qd_shape_elems(&out->shape, &elems) || !qd_size_mul((size_t)elems, qd_dtype_bytes(out->dtype), &bytes))
        return qd_fail(im->error, QD_ERR_FORMAT, "tensor '%s': the product of its dimensions is too large", p->name);
    enum qd_status status = p->data_location ? take_external(im, message, p, bytes) : QD_OK;
    if (status == QD_OK)
        status = check_amount(im, p, out, (size_t)elems, bytes);
    if (status || bytes == 0)
        return status;
    if (out->dtype == QD_STR)
        return take_strings(im, message, (size_t)elems, out);
    return p->has_raw ? take_raw(im, p, bytes, out) : take_typed(im, p, message, bytes, out);
}

enum qd_status qd_import_tensor(struct qd_import *im, struct qd_text message, struct qd_tensor *out, const char **name)
{
    struct proto p = {0};
    *out = (struct qd_tensor){0};
    *name = "";
    enum qd_status status = read_proto(im, message, &p);
    if (status)
        return status;
    *name = p.name;
    if (p.data_location < 0 || p.data_location > 1 || (p.external_keys && !p.data_location))
        return qd_fail(im->error, QD_ERR_FORMAT, "tensor '%s': external_data and data_location don't agree", p.name);
    if (p.segmented)
        return qd_fail(im->error, QD_ERR_UNSUPPORTED, "tensor '%s': data in segments is not supported", p.name);
    status = qd_import_dtype(im, p.onnx_type, "tensor", p.name, &out->dtype);
    if (status)
        return status;
    if (out->dtype == QD_NONE)
        return qd_fail(im->error, QD_ERR_FORMAT, "tensor '%s': has no data type", p.name);
    if (p.dims > QD_MAX_RANK)
        return qd_fail(im->error, QD_ERR_UNSUPPORTED, "tensor '%s': rank %zu, more than %d is not supported", p.name,
                       p.dims, QD_MAX_RANK);
    out->shape = p.shape;
    out->shape.rank = (int)p.dims;
    return finish(im, &p, message, out);
}
