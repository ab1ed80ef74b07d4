/* The wire format of protocol buffers: fields, packed lists and the check of names. Not for what fields mean. */
#include "engine/onnx/reader.h"

#define MAX_FIELD_NUMBER ((1u << 29) - 1)

bool qd_wire_next(struct qd_cursor *message, struct qd_wire_field *field)
{
    if (qd_cursor_left(message) == 0)
        return false;
    uint64_t tag = qd_cursor_varint(message);
    *field = (struct qd_wire_field){.number = (uint32_t)(tag >> 3 & MAX_FIELD_NUMBER),
                                    .type = (enum qd_wire_type)(tag & 7)};
    if (message->bad || tag >> 3 > MAX_FIELD_NUMBER || field->number == 0) {
        message->bad = true;
        return false;
    }
    switch (tag & 7) {
    case QD_WIRE_VARINT:
        field->value = qd_cursor_varint(message);
        break;
    case QD_WIRE_FIXED64:
        field->value = qd_cursor_u64le(message);
        break;
    case QD_WIRE_FIXED32:
        field->value = qd_cursor_u32le(message);
        break;
    case QD_WIRE_BYTES: {
        uint64_t length = qd_cursor_varint(message);
        field->bytes.bytes = (const char *)qd_cursor_take(message, length);
        field->bytes.length = message->bad ? 0 : length;
        break;
    }
    default: /* groups: gone since 2001, and the only way to nest without a length */
        message->bad = true;
    }
    return !message->bad;
}

static size_t width(enum qd_wire_type element)
{
    return element == QD_WIRE_FIXED32 ? 4 : element == QD_WIRE_FIXED64 ? 8 : 1;
}

bool qd_wire_count(const struct qd_wire_field *field, enum qd_wire_type element, size_t *count)
{
    size_t here = 1;
    if (field->type == QD_WIRE_BYTES && element != QD_WIRE_BYTES) {
        if (field->bytes.length % width(element) != 0)
            return false;
        here = field->bytes.length / width(element);
        if (element == QD_WIRE_VARINT) {
            here = 0;
            for (size_t i = 0; i < field->bytes.length; i++)
                here += !((unsigned char)field->bytes.bytes[i] & 0x80);
        }
    } else if (field->type != element) {
        return false;
    }
    return qd_size_add(*count, here, count);
}

struct qd_wire_list qd_wire_values(const struct qd_wire_field *field, enum qd_wire_type element)
{
    bool packed = field->type == QD_WIRE_BYTES;
    return (struct qd_wire_list){.packed = packed ? qd_wire_open(field->bytes) : qd_cursor_make("", 0),
                                 .element = element,
                                 .single = !packed,
                                 .value = field->value};
}

bool qd_wire_value(struct qd_wire_list *list, uint64_t *value)
{
    if (list->single) {
        list->single = false;
        *value = list->value;
        return true;
    }
    if (qd_cursor_left(&list->packed) == 0)
        return false;
    *value = list->element == QD_WIRE_VARINT    ? qd_cursor_varint(&list->packed)
             : list->element == QD_WIRE_FIXED32 ? qd_cursor_u32le(&list->packed)
                                                : qd_cursor_u64le(&list->packed);
    return !list->packed.bad;
}

/* Bytes of the well-formed UTF-8 sequence at p (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF), 0
 * if none. */
static size_t sequence(const unsigned char *p, size_t left)
{
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if (n == 0 || n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

bool qd_wire_is_text(struct qd_text bytes)
{
    const unsigned char *p = (const unsigned char *)bytes.bytes;
    for (size_t i = 0, n; i < bytes.length; i += n) {
        n = p[i] ? sequence(p + i, bytes.length - i) : 0;
        if (n == 0)
            return false;
    }
    return true;
}
