/* "Did you mean": the nearest of the words offered to one that was mistyped. Not a general string library. */
#ifndef QD_CONFIG_NEAREST_H
#define QD_CONFIG_NEAREST_H

#include <stddef.h>

struct qd_nearest {
    const char *word; /* borrowed: what the user wrote */
    const char *best; /* borrowed: nearest so far that is near enough to be meant, or NULL */
    size_t distance;
};

struct qd_nearest qd_nearest_to(const char *word);
/* Case, '-' and '_' make no difference. [any] */
void qd_nearest_offer(struct qd_nearest *nearest, const char *candidate);

#endif
