/* A map from names to numbers, for tables that grow with somebody else's file: open addressing, amortised O(1), hashed
 * with a seed of the process so that chosen names can't make it slow. Nothing is ever removed, and nobody iterates,
 * because the order differs from run to run. Not for tables known at compile time. */
#ifndef QD_BASE_MAP_H
#define QD_BASE_MAP_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

struct qd_map_slot;

struct qd_map { /* all zero: empty */
    struct qd_map_slot *slots;
    size_t room, count;
};

/* False when the key is absent; *value is then untouched. [any] */
bool qd_map_find(const struct qd_map *map, const char *key, size_t length, int *value);
/* Adds a key that must be absent. The bytes of `key` are borrowed until qd_map_clear. Errors: NO_MEMORY. One thread at
 * a time. */
enum qd_status qd_map_put(struct qd_map *map, const char *key, size_t length, int value) QD_MUST_CHECK;
/* Frees the table; the map is empty afterwards. */
void qd_map_clear(struct qd_map *map);

#endif
