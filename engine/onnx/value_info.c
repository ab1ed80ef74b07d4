/* ValueInfoProto: the declared type and shape of an input, an output or a value between nodes. Not for tensors with
 * data. */
#include "engine/onnx/internal.h"

#include <inttypes.h>

enum { TYPE_TENSOR = 1, TYPE_SEQUENCE = 4, TYPE_DENOTATION = 6 };

/* Kinds of values of the standard that are not tensors, by their field of TypeProto. */
static const char *const other_kinds[] = {
    [4] = "a sequence", [5] = "a map", [7] = "an opaque type", [8] = "a sparse tensor", [9] = "an optional",
};

enum qd_status qd_import_value_name(struct qd_import *im, struct qd_text message, const char *what, const char **name)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text text = {0};
    bool sound = true;
    while (qd_wire_next(&cursor, &field))
        if (field.number == 1) {
            text = field.bytes;
            sound = field.type == QD_WIRE_BYTES;
        }
    if (cursor.bad || !sound)
        return qd_import_malformed(im, what);
    enum qd_status status = qd_import_name(im, text, what, name);
    if (status == QD_OK && !**name)
        return qd_fail(im->error, QD_ERR_FORMAT, "%s has no name", what);
    return status;
}

/* One Dimension: a number, a symbol, or neither. */
static enum qd_status read_dim(struct qd_import *im, struct qd_text message, const char *name, int64_t *dim,
                               const char **symbol)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text text = {0};
    bool sound = true;
    *dim = -1;
    while (qd_wire_next(&cursor, &field)) {
        if (field.number == 1) {
            sound = sound && field.type == QD_WIRE_VARINT;
            *dim = (int64_t)field.value;
            text = (struct qd_text){0}; /* of the two the later one counts */
        } else if (field.number == 2) {
            sound = sound && field.type == QD_WIRE_BYTES;
            *dim = -1;
            text = field.bytes;
        }
    }
    if (cursor.bad || !sound)
        return qd_fail(im->error, QD_ERR_FORMAT, "value '%s': malformed shape", name);
    if (*dim < -1) /* -1 is how some exporters say "unknown" */
        return qd_fail(im->error, QD_ERR_FORMAT, "value '%s': dimension %" PRId64, name, *dim);
    if (text.length == 0)
        return QD_OK;
    return qd_import_name(im, text, "the name of a dimension", symbol);
}

static enum qd_status read_shape(struct qd_import *im, struct qd_text message, const char *name, struct qd_shape *shape,
                                 const char *dim_names[QD_MAX_RANK])
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    shape->rank = 0;
    while (qd_wire_next(&cursor, &field)) {
        if (field.number != 1)
            continue;
        if (field.type != QD_WIRE_BYTES)
            return qd_fail(im->error, QD_ERR_FORMAT, "value '%s': malformed shape", name);
        if (shape->rank == QD_MAX_RANK)
            return qd_fail(im->error, QD_ERR_UNSUPPORTED, "value '%s': a rank of more than %d is not supported", name,
                           QD_MAX_RANK);
        enum qd_status status = read_dim(im, field.bytes, name, &shape->dims[shape->rank], &dim_names[shape->rank]);
        if (status)
            return status;
        shape->rank++;
    }
    return cursor.bad ? qd_fail(im->error, QD_ERR_FORMAT, "value '%s': malformed shape", name) : QD_OK;
}

static enum qd_status read_tensor_type(struct qd_import *im, struct qd_text message, const char *name,
                                       struct qd_tensor *info, const char *dim_names[QD_MAX_RANK])
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text shape = {0};
    bool sound = true, shaped = false;
    int64_t type = 0;
    while (qd_wire_next(&cursor, &field)) {
        if (field.number == 1) {
            sound = sound && field.type == QD_WIRE_VARINT;
            type = (int32_t)(uint32_t)field.value;
        } else if (field.number == 2) {
            sound = sound && field.type == QD_WIRE_BYTES;
            shape = field.bytes;
            shaped = true;
        }
    }
    if (cursor.bad || !sound)
        return qd_fail(im->error, QD_ERR_FORMAT, "value '%s': malformed type", name);
    enum qd_status status = qd_import_dtype(im, type, "value", name, &info->dtype);
    return status || !shaped ? status : read_shape(im, shape, name, &info->shape, dim_names);
}

static enum qd_status read_type(struct qd_import *im, struct qd_text message, const char *name, struct qd_tensor *info,
                                const char *dim_names[QD_MAX_RANK], bool inner)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text tensor = {0};
    uint32_t kind = 0;
    while (qd_wire_next(&cursor, &field)) {
        if (field.number == TYPE_DENOTATION || field.type != QD_WIRE_BYTES)
            continue;
        bool known = field.number < sizeof other_kinds / sizeof other_kinds[0] && other_kinds[field.number];
        if (field.number != TYPE_TENSOR && !known)
            continue;
        kind = field.number;
        tensor = field.bytes;
    }
    if (cursor.bad)
        return qd_fail(im->error, QD_ERR_FORMAT, "value '%s': malformed type", name);
    if (kind == TYPE_SEQUENCE && inner)
        return QD_OK;
    if (kind > TYPE_TENSOR)
        return qd_fail(im->error, QD_ERR_UNSUPPORTED, "value '%s' is %s: only tensors are supported", name,
                       other_kinds[kind]);
    return kind ? read_tensor_type(im, tensor, name, info, dim_names) : QD_OK;
}

enum qd_status qd_import_value_info(struct qd_import *im, struct qd_text message, const char *name,
                                    struct qd_tensor *info, const char *dim_names[QD_MAX_RANK], bool inner)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text type = {0};
    *info = (struct qd_tensor){.shape.rank = -1};
    for (int i = 0; i < QD_MAX_RANK; i++)
        dim_names[i] = NULL;
    while (qd_wire_next(&cursor, &field)) {
        if (field.number != 2)
            continue;
        if (field.type != QD_WIRE_BYTES)
            return qd_fail(im->error, QD_ERR_FORMAT, "value '%s': malformed type", name);
        type = field.bytes;
    }
    return type.length ? read_type(im, type, name, info, dim_names, inner) : QD_OK;
}
