/* The wire format of protocol buffers, written. See writer.h. */
#include "engine/onnx/writer.h"

#include <string.h>

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

void qd_write_pass(struct qd_writer *writer, uint64_t size) { writer->size += size; }

void qd_write_raw(struct qd_writer *writer, const void *bytes, size_t size)
{
    if (writer->failed || size == 0)
        return;
    writer->size += size;
    if (writer->put && !writer->put(writer->user, bytes, size))
        writer->failed = true;
}

static void write_number(struct qd_writer *writer, uint64_t value)
{
    unsigned char bytes[10];
    size_t n = 0;
    for (; value > 0x7f; value >>= 7)
        bytes[n++] = (unsigned char)(value | 0x80);
    bytes[n++] = (unsigned char)value;
    qd_write_raw(writer, bytes, n);
}

static void write_tag(struct qd_writer *writer, uint32_t number, unsigned type)
{
    write_number(writer, (uint64_t)number << 3 | type);
}

static void write_little_endian(struct qd_writer *writer, uint64_t value, size_t size)
{
    unsigned char bytes[8];
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)(value >> (8 * i));
    qd_write_raw(writer, bytes, size);
}

void qd_write_varint(struct qd_writer *writer, uint32_t number, uint64_t value)
{
    write_tag(writer, number, VARINT);
    write_number(writer, value);
}

void qd_write_fixed32(struct qd_writer *writer, uint32_t number, uint32_t value)
{
    write_tag(writer, number, FIXED32);
    write_little_endian(writer, value, 4);
}

void qd_write_fixed64(struct qd_writer *writer, uint32_t number, uint64_t value)
{
    write_tag(writer, number, FIXED64);
    write_little_endian(writer, value, 8);
}

void qd_write_head(struct qd_writer *writer, uint32_t number, uint64_t size)
{
    write_tag(writer, number, BYTES);
    write_number(writer, size);
}

void qd_write_bytes(struct qd_writer *writer, uint32_t number, const void *bytes, size_t size)
{
    qd_write_head(writer, number, size);
    qd_write_raw(writer, bytes, size);
}

void qd_write_text(struct qd_writer *writer, uint32_t number, const char *text)
{
    qd_write_bytes(writer, number, text, strlen(text));
}

void qd_write_message(struct qd_writer *writer, uint32_t number, void (*emit)(struct qd_writer *, const void *),
                      const void *context)
{
    struct qd_writer length = {.put = NULL};
    emit(&length, context);
    qd_write_head(writer, number, length.size);
    emit(writer, context);
}
