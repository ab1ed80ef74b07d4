/* A model's file, mapped read-only. Not for what is in it. */
#include "engine/onnx/import.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Sentences show a file's name without its folders, which are nobody's business but the caller's. */
static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

enum qd_status qd_file_map(const char *path, struct qd_file *out, struct qd_error *error)
{
    struct stat about;
    enum qd_status status = QD_OK;
    const char *name = last_part(path);
    /* Without O_NONBLOCK the open of a pipe would wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return qd_fail(error, errno == ENOENT ? QD_ERR_NOT_FOUND : QD_ERR_IO, "can't open '%s': %s", name,
                       strerror(errno));
    if (fstat(fd, &about) != 0)
        status = qd_fail(error, QD_ERR_IO, "can't look at '%s': %s", name, strerror(errno));
    else if (!S_ISREG(about.st_mode))
        status = qd_fail(error, QD_ERR_IO, "'%s' is not a regular file", name);
    else if (about.st_size <= 0)
        status = qd_fail(error, QD_ERR_FORMAT, "'%s' is empty", name);
    else if ((uintmax_t)about.st_size > SIZE_MAX)
        status = qd_fail(error, QD_ERR_TOO_LARGE, "'%s' is too large to be mapped", name);
    if (status == QD_OK) {
        size_t size = (size_t)about.st_size;
        void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED)
            status = qd_fail(error, errno == ENOMEM ? QD_ERR_NO_MEMORY : QD_ERR_IO, "can't map '%s': %s", name,
                             strerror(errno));
        else
            *out = (struct qd_file){bytes, size};
    }
    close(fd);
    return status;
}

void qd_file_unmap(struct qd_file *file)
{
    if (file->bytes)
        munmap((void *)(uintptr_t)file->bytes, file->size);
    *file = (struct qd_file){0};
}

void qd_file_release(const struct qd_file *file)
{
    /* The pages are clean, so dropping them costs nothing but a later read. A kernel that refuses is no error. */
    if (file->bytes)
        (void)madvise((void *)(uintptr_t)file->bytes, file->size, MADV_DONTNEED);
}
