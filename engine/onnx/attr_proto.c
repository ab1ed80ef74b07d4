/* AttributeProto: one attribute of a node, with lists as views where the file holds them as memory does. Not for what a
 * particular operator makes of it. */
#include "engine/onnx/internal.h"

#include <string.h>

/* By AttributeProto.AttributeType, whose numbers are those of enum qd_attr_type. */
struct attr_row {
    uint32_t field;
    enum qd_wire_type element;
    bool list;
    const char *name;
};

enum { TYPE_COUNT = 15 };

static const struct attr_row rows[TYPE_COUNT] = {
    [QD_ATTR_FLOAT] = {2, QD_WIRE_FIXED32, false, "float"},
    [QD_ATTR_INT] = {3, QD_WIRE_VARINT, false, "int"},
    [QD_ATTR_STRING] = {4, QD_WIRE_BYTES, false, "string"},
    [QD_ATTR_TENSOR] = {5, QD_WIRE_BYTES, false, "tensor"},
    [QD_ATTR_GRAPH] = {6, QD_WIRE_BYTES, false, "graph"},
    [QD_ATTR_FLOATS] = {7, QD_WIRE_FIXED32, true, "floats"},
    [QD_ATTR_INTS] = {8, QD_WIRE_VARINT, true, "ints"},
    [QD_ATTR_STRINGS] = {9, QD_WIRE_BYTES, true, "strings"},
    [QD_ATTR_TENSORS] = {10, QD_WIRE_BYTES, true, "tensors"},
    [QD_ATTR_GRAPHS] = {11, QD_WIRE_BYTES, true, "graphs"},
    /* Types of the standard that we have not: no row of ours, but a name for the sentence. */
    [11] = {0, QD_WIRE_BYTES, false, "sparse tensor"},
    [12] = {0, QD_WIRE_BYTES, true, "sparse tensors"},
    [13] = {0, QD_WIRE_BYTES, false, "type"},
    [14] = {0, QD_WIRE_BYTES, true, "types"},
};

/* The name, the type, and the name of the function's attribute that it refers to. */
static enum qd_status read_head(struct qd_import *im, struct qd_text message, const char **name, int64_t *type,
                                struct qd_text *reference)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text text = {0};
    bool sound = true;
    *type = 0;
    *reference = (struct qd_text){0};
    while (qd_wire_next(&cursor, &field)) {
        if (field.number == 1) {
            sound = sound && field.type == QD_WIRE_BYTES;
            text = field.bytes;
        } else if (field.number == 20) {
            sound = sound && field.type == QD_WIRE_VARINT;
            *type = (int32_t)(uint32_t)field.value;
        } else if (field.number == 21) {
            sound = sound && field.type == QD_WIRE_BYTES;
            *reference = field.bytes;
        }
    }
    if (cursor.bad || !sound)
        return qd_import_malformed(im, "attribute");
    enum qd_status status = qd_import_name(im, text, "an attribute's name", name);
    if (status)
        return status;
    if (!**name)
        return qd_fail(im->error, QD_ERR_FORMAT, "an attribute has no name");
    if (*type <= 0 || *type >= TYPE_COUNT)
        return qd_fail(im->error, QD_ERR_FORMAT, "attribute '%s' has %s type", *name, *type == 0 ? "no" : "an unknown");
    if (rows[*type].field == 0)
        return qd_fail(im->error, QD_ERR_UNSUPPORTED, "attribute '%s': a %s is not supported", *name, rows[*type].name);
    return QD_OK;
}

static enum qd_status malformed(struct qd_import *im, const struct qd_attr *attr)
{
    return qd_fail(im->error, QD_ERR_FORMAT, "attribute '%s': malformed", attr->name);
}

/* A tensor or a graph, alone or of a list. Tensors of attributes are nameless, so the attribute's name helps. */
static enum qd_status take_part(struct qd_scope *scope, struct qd_text message, const struct qd_attr *attr, void *out)
{
    const char *name;
    bool tensor = attr->type == QD_ATTR_TENSOR || attr->type == QD_ATTR_TENSORS;
    enum qd_status status = tensor ? qd_import_tensor(scope->im, message, out, &name)
                                   : qd_import_graph(scope->im, scope, message, out);
    return status && tensor ? qd_error_prefix(scope->im->error, "attribute '%s'", attr->name) : status;
}

static enum qd_status take_single(struct qd_scope *scope, struct qd_text message, struct qd_attr *attr)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field, last = {0};
    while (qd_wire_next(&cursor, &field)) {
        if (field.number != rows[attr->type].field)
            continue;
        if (field.type != rows[attr->type].element)
            return malformed(scope->im, attr);
        last = field;
    }
    attr->count = 1;
    uint32_t low = (uint32_t)last.value;
    switch (attr->type) { /* an absent number or string is zero or empty, as writers of proto3 leave those out */
    case QD_ATTR_FLOAT:
        memcpy(&attr->f, &low, sizeof attr->f);
        return QD_OK;
    case QD_ATTR_INT:
        attr->i = (int64_t)last.value;
        return QD_OK;
    case QD_ATTR_STRING:
        attr->s = last.number ? last.bytes : (struct qd_text){"", 0};
        return QD_OK;
    default:
        break;
    }
    if (!last.number)
        return qd_fail(scope->im->error, QD_ERR_FORMAT, "attribute '%s' has no %s", attr->name, rows[attr->type].name);
    return take_part(scope, last.bytes, attr, attr->type == QD_ATTR_TENSOR ? (void *)&attr->t : (void *)&attr->g);
}

static enum qd_status count_list(struct qd_import *im, struct qd_text message, struct qd_attr *attr,
                                 struct qd_text *packed)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    size_t occurrences = 0;
    while (qd_wire_next(&cursor, &field)) {
        if (field.number != rows[attr->type].field)
            continue;
        if (!qd_wire_count(&field, rows[attr->type].element, &attr->count))
            return malformed(im, attr);
        *packed = ++occurrences == 1 ? field.bytes : (struct qd_text){0};
    }
    return QD_OK;
}

/* The numbers of one occurrence behind the first `*done` of the list. */
static bool put_numbers(void *to, const struct qd_attr *attr, const struct qd_wire_field *field, size_t *done)
{
    struct qd_wire_list list = qd_wire_values(field, rows[attr->type].element);
    size_t size = attr->type == QD_ATTR_FLOATS ? sizeof(float) : sizeof(int64_t);
    for (uint64_t value; *done < attr->count && qd_wire_value(&list, &value); ++*done)
        memcpy((unsigned char *)to + *done * size, &value, size); /* little endian: the low half first */
    return !list.packed.bad;
}

static const size_t list_sizes[] = {
    [QD_ATTR_FLOATS] = sizeof(float),
    [QD_ATTR_INTS] = sizeof(int64_t),
    [QD_ATTR_STRINGS] = sizeof(struct qd_text),
    [QD_ATTR_TENSORS] = sizeof(struct qd_tensor),
    [QD_ATTR_GRAPHS] = sizeof(struct qd_graph *),
};

static enum qd_status take_list(struct qd_scope *scope, struct qd_text message, struct qd_attr *attr)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text packed = {0};
    size_t done = 0;
    enum qd_status status = count_list(scope->im, message, attr, &packed);
    if (status || attr->count == 0)
        return status;
    if (attr->type == QD_ATTR_FLOATS && packed.length && (uintptr_t)packed.bytes % sizeof(float) == 0) {
        attr->floats = (const float *)(const void *)packed.bytes;
        return QD_OK;
    }
    void *list = qd_import_alloc(scope->im, attr->count, list_sizes[attr->type]);
    if (!list)
        return scope->im->error->status;
    while (status == QD_OK && qd_wire_next(&cursor, &field)) {
        if (field.number != rows[attr->type].field)
            continue;
        if (attr->type == QD_ATTR_STRINGS)
            ((struct qd_text *)list)[done++] = field.bytes;
        else if (attr->type == QD_ATTR_TENSORS)
            status = take_part(scope, field.bytes, attr, &((struct qd_tensor *)list)[done++]);
        else if (attr->type == QD_ATTR_GRAPHS)
            status = take_part(scope, field.bytes, attr, &((struct qd_graph **)list)[done++]);
        else if (!put_numbers(list, attr, &field, &done))
            status = malformed(scope->im, attr);
    }
    if (status == QD_OK && done != attr->count)
        status = malformed(scope->im, attr);
    attr->floats = list; /* the union's pointers share their place */
    return status;
}

/* What the attribute refers to, in its place. */
static enum qd_status follow(struct qd_scope *scope, struct qd_text reference, struct qd_attr *out, int64_t type,
                             struct qd_text *message, bool *given)
{
    int64_t found;
    const char *name;
    if (!scope->now)
        return qd_fail(scope->im->error, QD_ERR_FORMAT,
                       "attribute '%s' refers to an attribute of a function, outside of one", out->name);
    *given = qd_import_dereference(&scope->now, reference, message);
    if (!*given)
        return QD_OK;
    enum qd_status status = read_head(scope->im, *message, &name, &found, &reference);
    if (status == QD_OK && found != type)
        return qd_fail(scope->im->error, QD_ERR_FORMAT, "attribute '%s' refers to one of another type", out->name);
    return status;
}

enum qd_status qd_import_attr(struct qd_scope *scope, struct qd_text message, struct qd_attr *out, bool *given)
{
    int64_t type;
    struct qd_text reference;
    struct qd_call_space *now = scope->now;
    *out = (struct qd_attr){.name = ""};
    *given = true;
    enum qd_status status = read_head(scope->im, message, &out->name, &type, &reference);
    if (status == QD_OK && reference.length > 0)
        status = follow(scope, reference, out, type, &message, given);
    out->type = status ? QD_ATTR_NONE : (enum qd_attr_type)type;
    if (status == QD_OK && *given)
        status = rows[type].list ? take_list(scope, message, out) : take_single(scope, message, out);
    scope->now = now; /* a graph that the caller gives was read by the caller's names */
    return status;
}
