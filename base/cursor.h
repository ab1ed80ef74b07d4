/* Bounded reads from bytes somebody else wrote (ONNX files, request bodies, state files). A cursor never reads past
 * its end: the first failed read sets `bad` and every later one returns zero, so callers may check once at the end. */
#ifndef QD_BASE_CURSOR_H
#define QD_BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct qd_cursor {
    const uint8_t *at, *end; /* borrowed */
    bool bad;
};

static inline struct qd_cursor qd_cursor_make(const void *bytes, size_t n)
{
    return (struct qd_cursor){bytes, bytes ? (const uint8_t *)bytes + n : NULL, false};
}
static inline size_t qd_cursor_left(const struct qd_cursor *c) { return c->bad ? 0 : (size_t)(c->end - c->at); }

/* n bytes in place, or NULL (and bad) when fewer are left. */
static inline const uint8_t *qd_cursor_take(struct qd_cursor *c, size_t n)
{
    if (n > qd_cursor_left(c)) {
        c->bad = true;
        return NULL;
    }
    const uint8_t *piece = c->at;
    c->at += n;
    return piece;
}
static inline uint32_t qd_cursor_u32le(struct qd_cursor *c)
{
    const uint8_t *p = qd_cursor_take(c, 4);
    return p ? (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24 : 0;
}
static inline uint64_t qd_cursor_u64le(struct qd_cursor *c)
{
    uint64_t low = qd_cursor_u32le(c);
    return low | (uint64_t)qd_cursor_u32le(c) << 32;
}
/* A protocol-buffers varint of at most ten bytes; bits beyond 64 make it bad. */
static inline uint64_t qd_cursor_varint(struct qd_cursor *c)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        const uint8_t *p = qd_cursor_take(c, 1);
        if (!p)
            return 0;
        if (shift == 63 && *p > 1)
            break;
        value |= (uint64_t)(*p & 0x7f) << shift;
        if (!(*p & 0x80))
            return value;
    }
    c->bad = true;
    return 0;
}

#endif
