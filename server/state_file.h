/* Files that are there whole or not at all: text with a checksum line behind it, written beside the old file, flushed,
 * renamed over it, the folder flushed. Knows nothing of what is in them. [any] */
#ifndef QD_SERVER_STATE_FILE_H
#define QD_SERVER_STATE_FILE_H

#include <stdbool.h>
#include <stddef.h>

#define QD_STATE_PATH_BYTES 4096
#define QD_STATE_FILE_BYTES ((size_t)64 << 20) /* largest file that is read */

/* The text with its checksum line, qd_free'd by the caller; NULL: out of memory. */
char *qd_state_file_seal(const char *text);
/* n bytes that a zero follows: cuts the checksum line off; false when it is not there or wrong. */
bool qd_state_file_unseal(char *text, size_t n);
/* Writes sealed text. Slow: waits for the disk. 0, or errno; then the old file stands as it was. */
int qd_state_file_write(const char *path, const char *text);
/* 0, also when there was none, or errno. */
int qd_state_file_remove(const char *path);
/* The text without its checksum line, qd_free'd by the caller; NULL with a phrase of what is wrong, or with *phrase
 * NULL when there is no file. */
char *qd_state_file_read(const char *path, const char **phrase);
/* Renames a damaged file and says so in one warning: "the WHAT can't be used, PHRASE". */
void qd_state_file_set_aside(const char *path, const char *what, const char *phrase);

#endif
