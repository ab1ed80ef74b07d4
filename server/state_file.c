/* Checked text files: a line with a checksum behind the text, written beside the old file and renamed over it. */
#include "server/state_file.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECKSUM_BYTES (sizeof "\nfnv1a 0123456789abcdef\n" - 1)

static uint64_t fnv1a(const char *bytes, size_t n)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * 1099511628211u;
    return hash;
}

char *qd_state_file_seal(const char *text)
{
    const size_t n = strlen(text);
    char *sealed = qd_calloc(n + CHECKSUM_BYTES + 1, 1);
    if (sealed)
        snprintf(sealed, n + CHECKSUM_BYTES + 1, "%s\nfnv1a %016" PRIx64 "\n", text, fnv1a(text, n));
    return sealed;
}

bool qd_state_file_unseal(char *text, size_t n)
{
    char expected[CHECKSUM_BYTES + 1];
    if (n <= CHECKSUM_BYTES)
        return false;
    snprintf(expected, sizeof expected, "\nfnv1a %016" PRIx64 "\n", fnv1a(text, n - CHECKSUM_BYTES));
    if (memcmp(text + n - CHECKSUM_BYTES, expected, CHECKSUM_BYTES) != 0)
        return false;
    text[n - CHECKSUM_BYTES] = 0;
    return true;
}

static int write_all(int fd, const char *text)
{
    for (size_t left = strlen(text); left;) {
        ssize_t n = write(fd, text, left);
        if (n < 0 && errno != EINTR)
            return errno;
        text += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    return fsync(fd) == 0 ? 0 : errno;
}

/* The folder's own entry of a file that was renamed or removed. */
static int sync_folder(const char *path)
{
    char folder[QD_STATE_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    int fd = open(*folder ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int failure = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    return failure;
}

/* Beside the old file, then over it, then the folder's own entry: at no moment is there half a file under the name. */
int qd_state_file_write(const char *path, const char *text)
{
    char beside[QD_STATE_PATH_BYTES + 8];
    snprintf(beside, sizeof beside, "%s.new", path);
    int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return errno;
    int failure = write_all(fd, text);
    if (close(fd) != 0 && !failure)
        failure = errno;
    if (!failure && rename(beside, path) != 0)
        failure = errno;
    if (failure) {
        unlink(beside);
        return failure;
    }
    return sync_folder(path);
}

int qd_state_file_remove(const char *path)
{
    if (unlink(path) != 0 && errno != ENOENT)
        return errno;
    return sync_folder(path);
}

char *qd_state_file_read(const char *path, const char **phrase)
{
    struct stat info;
    *phrase = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        *phrase = errno == ENOENT ? NULL : strerror(errno);
        return NULL;
    }
    *phrase = "it is no file of a sensible size";
    char *text = NULL;
    size_t n = 0;
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && (size_t)info.st_size <= QD_STATE_FILE_BYTES &&
        (text = qd_calloc((size_t)info.st_size + 1, 1)) != NULL)
        for (ssize_t got; n < (size_t)info.st_size && (got = read(fd, text + n, (size_t)info.st_size - n)) > 0;)
            n += (size_t)got;
    close(fd);
    if (text) {
        *phrase = "its checksum is wrong";
        if (qd_state_file_unseal(text, n))
            return text;
    }
    qd_free(text);
    return NULL;
}

void qd_state_file_set_aside(const char *path, const char *what, const char *phrase)
{
    char aside[QD_STATE_PATH_BYTES + 16];
    snprintf(aside, sizeof aside, "%s.damaged", path);
    bool moved = rename(path, aside) == 0;
    qd_log(QD_LOG_WARNING, "the %s can't be used, %s%s: it starts anew", what, phrase,
           moved ? " (the file was set aside as .damaged)" : "");
}
