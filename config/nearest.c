/* Edit distance for "did you mean"; words longer than an option's name are never near. */
#include "config/nearest.h"

#include <ctype.h>
#include <string.h>

#define LONGEST 48

struct qd_nearest qd_nearest_to(const char *word) { return (struct qd_nearest){.word = word, .distance = LONGEST}; }

static char plain(char c) { return c == '-' ? '_' : (char)tolower((unsigned char)c); }

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Levenshtein, one row at a time; both words are at most LONGEST long. */
static size_t edits(const char *a, size_t a_length, const char *b, size_t b_length)
{
    size_t row[LONGEST + 1];
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t changed = diagonal + (plain(a[i - 1]) != plain(b[j - 1]));
            diagonal = row[j];
            row[j] = least(changed, 1 + least(row[j], row[j - 1]));
        }
    }
    return row[b_length];
}

void qd_nearest_offer(struct qd_nearest *nearest, const char *candidate)
{
    size_t a = strnlen(nearest->word, LONGEST + 1), b = strnlen(candidate, LONGEST + 1);
    if (a > LONGEST || b > LONGEST)
        return;
    size_t distance = edits(nearest->word, a, candidate, b);
    /* A third of the word may be wrong; the beginning of a longer name counts as near as well. */
    if (distance > b / 3 && a >= 4 && b > a && edits(nearest->word, a, candidate, a) == 0)
        distance = b / 3;
    if (distance <= b / 3 && distance < nearest->distance) {
        nearest->best = candidate;
        nearest->distance = distance;
    }
}
