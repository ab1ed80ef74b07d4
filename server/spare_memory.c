/* Spare memory. See spare_memory.h. */
#include "server/spare_memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <uv.h>

/* The number in a file of one; UINT64_MAX: no such file, or "max". */
static uint64_t read_number(const char *path)
{
    FILE *file = fopen(path, "re");
    uint64_t number = UINT64_MAX;
    if (file && fscanf(file, "%" SCNu64, &number) != 1)
        number = UINT64_MAX;
    if (file)
        fclose(file);
    return number;
}

uint64_t qd_spare_memory(void)
{
    uint64_t limit = read_number("/sys/fs/cgroup/memory.max"), used = read_number("/sys/fs/cgroup/memory.current");
    size_t resident = 0;
    if (limit == UINT64_MAX || used == UINT64_MAX) {
        limit = uv_get_constrained_memory(); /* 0: none that it knows */
        limit = limit ? limit : UINT64_MAX;
        used = uv_resident_set_memory(&resident) == 0 ? resident : 0;
    }
    const uint64_t machine = uv_get_free_memory(), container = limit > used ? limit - used : 0;
    return machine < container ? machine : container;
}
