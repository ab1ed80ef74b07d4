/* Placing tensors in one workspace so that those alive at the same time never overlap. Knows only sizes and lifetimes.
 */
#ifndef QD_ENGINE_PLAN_MEMORY_H
#define QD_ENGINE_PLAN_MEMORY_H

#include "base/status.h"

#include <stddef.h>

struct qd_block {
    size_t bytes;    /* a multiple of QD_ALIGN_BYTES; 0: needs no place */
    int first, last; /* steps during which it is alive, both inclusive */
    size_t offset;   /* out */
};

/* Largest first, each at the lowest gap between the neighbours alive with it. *total: bytes of the workspace.
 * Errors: TOO_LARGE on overflow, NO_MEMORY. */
enum qd_status qd_memory_place(struct qd_block *blocks, size_t count, size_t *total) QD_MUST_CHECK;

#endif
