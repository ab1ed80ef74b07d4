/* Memory: the one seam to malloc, with a fault injector for tests, and chunked arenas. */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CHUNK_BYTES ((size_t)64 << 20)

static atomic_uint_fast64_t alloc_count;
static atomic_uint_fast64_t fail_at;
static atomic_bool fail_persistent;

void qd_mem_fail_at(uint64_t n, bool persistent)
{
    atomic_store(&alloc_count, 0);
    atomic_store(&fail_persistent, persistent);
    atomic_store(&fail_at, n);
}

uint64_t qd_mem_count(void) { return atomic_load(&alloc_count); }

static bool should_fail(void)
{
    uint64_t at = atomic_load_explicit(&fail_at, memory_order_relaxed);
    uint64_t count = atomic_fetch_add_explicit(&alloc_count, 1, memory_order_relaxed) + 1;
    return at != 0 && (count == at || (count > at && atomic_load(&fail_persistent)));
}

void *qd_calloc(size_t count, size_t size)
{
    size_t bytes;
    if (!qd_size_mul(count, size, &bytes) || should_fail())
        return NULL;
    return calloc(bytes ? bytes : 1, 1);
}

void *qd_alloc_aligned(size_t bytes)
{
    size_t rounded = qd_align_up(bytes ? bytes : 1);
    return rounded == SIZE_MAX || should_fail() ? NULL : aligned_alloc(QD_ALIGN_BYTES, rounded);
}

void *qd_realloc(void *block, size_t count, size_t size)
{
    size_t bytes;
    if (!qd_size_mul(count, size, &bytes) || should_fail())
        return NULL;
    return realloc(block, bytes ? bytes : 1);
}

void qd_free(void *block) { free(block); }

char *qd_strndup(const char *text, size_t n)
{
    char *copy = n < SIZE_MAX ? qd_calloc(n + 1, 1) : NULL;
    if (copy && n)
        memcpy(copy, text, n);
    return copy;
}

struct chunk {
    struct chunk *next;
    size_t size, used; /* payload bytes */
    _Alignas(QD_ALIGN_BYTES) unsigned char bytes[];
};

struct qd_arena {
    struct chunk *head; /* the chunk that serves; older ones behind it */
    size_t next_bytes, held_bytes;
};

enum qd_status qd_arena_create(size_t chunk_bytes, struct qd_arena **out)
{
    struct qd_arena *arena = qd_calloc(1, sizeof *arena);
    if (!arena)
        return QD_ERR_NO_MEMORY;
    arena->next_bytes = chunk_bytes < 256 ? 256 : chunk_bytes;
    *out = arena;
    return QD_OK;
}

static struct chunk *add_chunk(struct qd_arena *arena, size_t at_least)
{
    size_t payload = qd_align_up(at_least > arena->next_bytes ? at_least : arena->next_bytes), bytes;
    if (payload == SIZE_MAX || !qd_size_add(payload, sizeof(struct chunk), &bytes))
        return NULL;
    struct chunk *chunk = qd_alloc_aligned(bytes);
    if (!chunk)
        return NULL;
    chunk->next = arena->head;
    chunk->size = payload;
    chunk->used = 0;
    arena->head = chunk;
    arena->held_bytes += bytes;
    if (arena->next_bytes < MAX_CHUNK_BYTES)
        arena->next_bytes *= 2;
    return chunk;
}

static void *take(struct qd_arena *arena, size_t bytes, size_t align)
{
    struct chunk *chunk = arena->head;
    size_t start = chunk ? (chunk->used + align - 1) & ~(align - 1) : 0;
    if (!chunk || start > chunk->size || bytes > chunk->size - start) {
        chunk = add_chunk(arena, bytes);
        if (!chunk)
            return NULL;
        start = 0;
    }
    chunk->used = start + bytes;
    return chunk->bytes + start;
}

void *qd_arena_alloc(struct qd_arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (!qd_size_mul(count, size, &bytes))
        return NULL;
    void *piece = take(arena, bytes, bytes >= QD_ALIGN_BYTES ? QD_ALIGN_BYTES : 16);
    if (piece)
        memset(piece, 0, bytes);
    return piece;
}

void *qd_arena_alloc_raw(struct qd_arena *arena, size_t bytes) { return take(arena, bytes, QD_ALIGN_BYTES); }

char *qd_arena_strndup(struct qd_arena *arena, const char *text, size_t n)
{
    char *copy = n < SIZE_MAX ? take(arena, n + 1, 1) : NULL;
    if (copy) {
        if (n)
            memcpy(copy, text, n);
        copy[n] = 0;
    }
    return copy;
}

void qd_arena_reset(struct qd_arena *arena)
{
    struct chunk *keep = arena->head;
    for (struct chunk *c = arena->head; c; c = c->next)
        if (c->size > keep->size)
            keep = c;
    for (struct chunk *c = arena->head, *next; c; c = next) {
        next = c->next;
        if (c != keep) {
            arena->held_bytes -= c->size + sizeof *c;
            qd_free(c);
        }
    }
    arena->head = keep;
    if (keep) {
        keep->next = NULL;
        keep->used = 0;
    }
}

size_t qd_arena_bytes(const struct qd_arena *arena) { return arena->held_bytes; }

void qd_arena_destroy(struct qd_arena **arena)
{
    if (!*arena)
        return;
    for (struct chunk *c = (*arena)->head, *next; c; c = next) {
        next = c->next;
        qd_free(c);
    }
    qd_free(*arena);
    *arena = NULL;
}
