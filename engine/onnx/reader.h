/* The wire format of protocol buffers, read in place: a message is a cursor, a field a view. Knows nothing of ONNX.
 * Every read is bounded; a malformed field sets the cursor's `bad` and ends the walk, so loops check it once, after
 * them. */
#ifndef QD_ENGINE_ONNX_READER_H
#define QD_ENGINE_ONNX_READER_H

#include "base/cursor.h"
#include "engine/ir/graph.h"

enum qd_wire_type { QD_WIRE_VARINT = 0, QD_WIRE_FIXED64 = 1, QD_WIRE_BYTES = 2, QD_WIRE_FIXED32 = 5 };

struct qd_wire_field {
    uint32_t number;
    enum qd_wire_type type;
    uint64_t value;       /* of a varint or a fixed-size field; a fixed32 sits in the low half */
    struct qd_text bytes; /* of QD_WIRE_BYTES: a string, a message or packed values; empty otherwise */
};

/* A walk over the values of one occurrence of a repeated number, packed or not. */
struct qd_wire_list {
    struct qd_cursor packed;
    enum qd_wire_type element;
    bool single;
    uint64_t value;
};

static inline struct qd_cursor qd_wire_open(struct qd_text message)
{
    return qd_cursor_make(message.bytes, message.length);
}

/* The next field, of any number; false at the end and when malformed (message->bad tells): groups, field number 0, a
 * length beyond the end. Fields that the caller doesn't know are simply not looked at. [any] */
bool qd_wire_next(struct qd_cursor *message, struct qd_wire_field *field);

/* Adds to *count how many values of type `element` this occurrence holds; false when it can't hold such values. The
 * varints themselves are checked by the walk. The count never exceeds the bytes read. [any] */
bool qd_wire_count(const struct qd_wire_field *field, enum qd_wire_type element, size_t *count);
struct qd_wire_list qd_wire_values(const struct qd_wire_field *field, enum qd_wire_type element);
/* The next value; false at the end and when malformed (list->packed.bad tells). [any] */
bool qd_wire_value(struct qd_wire_list *list, uint64_t *value);

/* Whether the bytes are UTF-8 without a zero byte, so that a zero-terminated copy says the same. [any] */
bool qd_wire_is_text(struct qd_text bytes);

#endif
