/* How much more memory this process may take before the machine or its container runs short of it. An estimate, for
 * work that can be left undone. Not for refusing requests. */
#ifndef QD_SERVER_SPARE_MEMORY_H
#define QD_SERVER_SPARE_MEMORY_H

#include <stdint.h>

/* Bytes: what is free, and what the cgroup's limit (v2 or v1) leaves. [any] */
uint64_t qd_spare_memory(void);

#endif
