/* Memory: checked size arithmetic, aligned blocks and arenas freed in one go. All allocation of the project
 * passes here, so that tests can fail the N-th one. Not for tensors' meaning (engine/ir) or lifetimes (base/ref). */
#ifndef QD_BASE_MEM_H
#define QD_BASE_MEM_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QD_ALIGN_BYTES 64 /* one cache line, one zmm register */

/* *out = a * b or a + b; false on overflow, *out then undefined. [any] */
static inline bool qd_size_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool qd_size_add(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }
static inline bool qd_i64_mul(int64_t a, int64_t b, int64_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool qd_i64_add(int64_t a, int64_t b, int64_t *out) { return !__builtin_add_overflow(a, b, out); }

/* `bytes` rounded up to a multiple of QD_ALIGN_BYTES; SIZE_MAX on overflow, which no allocation satisfies. [any] */
static inline size_t qd_align_up(size_t bytes)
{
    return bytes > SIZE_MAX - (QD_ALIGN_BYTES - 1) ? SIZE_MAX
                                                   : (bytes + QD_ALIGN_BYTES - 1) & ~(size_t)(QD_ALIGN_BYTES - 1);
}

/* Zeroed blocks of count * size bytes; NULL when it overflows or memory is out. Free with qd_free. [any] */
void *qd_calloc(size_t count, size_t size);
/* Uninitialised, aligned to QD_ALIGN_BYTES. Free with qd_free. [any] */
void *qd_alloc_aligned(size_t bytes);
/* Grows or shrinks a qd_calloc block to count * size bytes; NULL leaves the old block valid. New bytes are undefined.
 * [any] */
void *qd_realloc(void *block, size_t count, size_t size);
void qd_free(void *block);
/* A copy of the first n bytes and a terminating zero; NULL when memory is out. [any] */
char *qd_strndup(const char *text, size_t n);

/* Tests: the n-th allocation from now fails, and every one after it while `persistent`; 0 switches it off. [any] */
void qd_mem_fail_at(uint64_t n, bool persistent);
/* Allocations counted since the last qd_mem_fail_at. [any] */
uint64_t qd_mem_count(void);

/* An arena hands out aligned pieces of growing chunks and frees them all at once. One thread at a time. */
struct qd_arena;

/* `chunk_bytes`: size of the first chunk, later ones grow; allocated on first use. */
enum qd_status qd_arena_create(size_t chunk_bytes, struct qd_arena **out) QD_MUST_CHECK;
/* Zeroed, aligned to 16 bytes (64 from one cache line upwards); lives until the arena goes; NULL when memory is out. */
void *qd_arena_alloc(struct qd_arena *arena, size_t count, size_t size);
/* As qd_arena_alloc but not zeroed and always 64-byte aligned: for tensors. */
void *qd_arena_alloc_raw(struct qd_arena *arena, size_t bytes);
/* Zero-terminated copy of n bytes. */
char *qd_arena_strndup(struct qd_arena *arena, const char *text, size_t n);
/* Forgets every piece and keeps the largest chunk for reuse. */
void qd_arena_reset(struct qd_arena *arena);
/* Bytes held from the system. */
size_t qd_arena_bytes(const struct qd_arena *arena);
void qd_arena_destroy(struct qd_arena **arena);

#endif
