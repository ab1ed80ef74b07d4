/* The map from names to numbers: linear probing in a table of a power of two, at most half full. */
#include "base/map.h"

#include "base/mem.h"

#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>

#define FIRST_SLOTS 64

struct qd_map_slot {
    const char *key; /* NULL: free */
    size_t length;
    uint32_t hash;
    int value;
};

/* The kernel hands each process 16 random bytes: no system call, so it works in any sandbox. */
static uint64_t seed(void)
{
    uint64_t bytes = 0x9e3779b97f4a7c15u;
    const void *random = (const void *)getauxval(AT_RANDOM);
    if (random)
        memcpy(&bytes, random, sizeof bytes);
    return bytes;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint32_t hash_of(const char *key, size_t length)
{
    uint64_t key_of_process = seed(), hash = key_of_process ^ length;
    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = 0;
        memcpy(&word, key + i, length - i < 8 ? length - i : 8);
        hash = mix(hash ^ word ^ 0xa0761d6478bd642fu, key_of_process ^ 0xe7037ed1a0b428dbu);
    }
    hash = mix(hash ^ 0x8ebc6af09c88c6e3u, 0x589965cc75374cc3u);
    return (uint32_t)(hash ^ hash >> 32);
}

/* The slot that holds the key, or the free one where it would go. */
static struct qd_map_slot *slot_of(struct qd_map_slot *slots, size_t room, const char *key, size_t length,
                                   uint32_t hash)
{
    for (size_t i = hash & (room - 1);; i = (i + 1) & (room - 1)) {
        struct qd_map_slot *slot = &slots[i];
        if (!slot->key || (slot->hash == hash && slot->length == length && memcmp(slot->key, key, length) == 0))
            return slot;
    }
}

bool qd_map_find(const struct qd_map *map, const char *key, size_t length, int *value)
{
    if (map->count == 0)
        return false;
    const struct qd_map_slot *slot = slot_of(map->slots, map->room, key, length, hash_of(key, length));
    if (!slot->key)
        return false;
    *value = slot->value;
    return true;
}

static enum qd_status grow(struct qd_map *map)
{
    size_t room = map->room ? map->room : FIRST_SLOTS / 2;
    struct qd_map_slot *slots = room <= SIZE_MAX / 2 ? qd_calloc(room * 2, sizeof *slots) : NULL;
    if (!slots)
        return QD_ERR_NO_MEMORY;
    for (size_t i = 0; i < map->room; i++) {
        const struct qd_map_slot *old = &map->slots[i];
        if (old->key)
            *slot_of(slots, room * 2, old->key, old->length, old->hash) = *old;
    }
    qd_free(map->slots);
    map->slots = slots;
    map->room = room * 2;
    return QD_OK;
}

enum qd_status qd_map_put(struct qd_map *map, const char *key, size_t length, int value)
{
    if (map->count >= map->room / 2 && grow(map) != QD_OK)
        return QD_ERR_NO_MEMORY;
    uint32_t hash = hash_of(key, length);
    *slot_of(map->slots, map->room, key, length, hash) = (struct qd_map_slot){key, length, hash, value};
    map->count++;
    return QD_OK;
}

void qd_map_clear(struct qd_map *map)
{
    qd_free(map->slots);
    *map = (struct qd_map){0};
}
