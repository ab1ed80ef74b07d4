/* The interface by which a step splits its work over threads; engine/plan/team implements it. Tasks must write disjoint
 * memory and give the same bytes in any order, so that answers don't depend on the number of threads. */
#ifndef QD_BASE_PARALLEL_H
#define QD_BASE_PARALLEL_H

#include <stddef.h>

struct qd_parallel {
    unsigned threads; /* that may work at once, the caller's included; 1: run is a plain loop */
    /* Calls fn(ctx, 0) ... fn(ctx, tasks - 1), each once, on some thread; returns when all are done. */
    void (*run)(struct qd_parallel *parallel, size_t tasks, void (*fn)(void *ctx, size_t task), void *ctx);
};

#endif
