/* Placing tensors in one workspace, greedily by size. */
#include "engine/plan/memory.h"

#include "base/mem.h"

#include <stdint.h>
#include <stdlib.h>

static int larger_first(const void *a, const void *b)
{
    const struct qd_block *x = *(struct qd_block *const *)a, *y = *(struct qd_block *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x < y ? -1 : x > y; /* stable, so that a plan is the same every time */
}

/* Lowest offset where `block` fits beside the placed ones, which are sorted by offset. */
static size_t lowest_gap(const struct qd_block *block, struct qd_block *const *placed, size_t count)
{
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        const struct qd_block *other = placed[i];
        if (other->last < block->first || other->first > block->last)
            continue;
        if (other->offset >= at && other->offset - at >= block->bytes)
            return at;
        if (other->offset + other->bytes > at)
            at = other->offset + other->bytes;
    }
    return at;
}

enum qd_status qd_memory_place(struct qd_block *blocks, size_t count, size_t *total)
{
    struct qd_block **order = qd_calloc(count, sizeof(void *)), **placed = qd_calloc(count, sizeof(void *));
    enum qd_status status = order && placed ? QD_OK : QD_ERR_NO_MEMORY;
    size_t n = 0, done = 0;
    *total = 0;
    for (size_t i = 0; !status && i < count; i++)
        if (blocks[i].bytes)
            order[n++] = &blocks[i];
    if (!status)
        qsort(order, n, sizeof(void *), larger_first);
    for (size_t i = 0; !status && i < n; i++) {
        size_t end;
        order[i]->offset = lowest_gap(order[i], placed, done);
        if (!qd_size_add(order[i]->offset, order[i]->bytes, &end) || end > SIZE_MAX / 4) {
            status = QD_ERR_TOO_LARGE;
            break;
        }
        *total = end > *total ? end : *total;
        size_t k = done++;
        for (; k > 0 && placed[k - 1]->offset > order[i]->offset; k--)
            placed[k] = placed[k - 1];
        placed[k] = order[i];
    }
    qd_free(order);
    qd_free(placed);
    return status;
}
