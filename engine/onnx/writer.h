/* The wire format of protocol buffers, written: fields go to a sink as they come, nothing is kept. Lengths stand before
 * contents, so a message is written by a function that is called twice: for its length, then for its bytes.
 * Shares nothing with the reader but field numbers and knows nothing of ONNX. One thread at a time. */
#ifndef QD_ENGINE_ONNX_WRITER_H
#define QD_ENGINE_ONNX_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qd_writer {
    bool (*put)(void *user, const void *bytes, size_t size); /* false: no more can be taken; NULL: lengths only */
    void *user;
    uint64_t size; /* bytes so far */
    bool failed;   /* a put was refused; all later writes do nothing */
};

/* Fields. A number is 1 or more. */
void qd_write_varint(struct qd_writer *writer, uint32_t number, uint64_t value);
void qd_write_fixed32(struct qd_writer *writer, uint32_t number, uint32_t value);
void qd_write_fixed64(struct qd_writer *writer, uint32_t number, uint64_t value);
void qd_write_bytes(struct qd_writer *writer, uint32_t number, const void *bytes, size_t size);
void qd_write_text(struct qd_writer *writer, uint32_t number, const char *text);
/* A message: `emit` writes its fields, the same each time; while writer->put is NULL only the lengths count. */
void qd_write_message(struct qd_writer *writer, uint32_t number, void (*emit)(struct qd_writer *, const void *),
                      const void *context);

/* Head of a bytes field whose `size` bytes follow by qd_write_raw or qd_write_pass. */
void qd_write_head(struct qd_writer *writer, uint32_t number, uint64_t size);
void qd_write_raw(struct qd_writer *writer, const void *bytes, size_t size);
/* Counts bytes without writing any: for a writer that wants lengths only. */
void qd_write_pass(struct qd_writer *writer, uint64_t size);

#endif
