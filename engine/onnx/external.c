/* Files that hold tensors of a model: found beneath the model's folder and nowhere else, mapped read-only, each once.
 * The system resolves the path in one go (openat2), so no spelling of it can lead out; where the system lacks that, the
 * path is walked a folder at a time. Not for what TensorProto says about them (tensor_proto.c). */
#include "engine/onnx/external.h"

#include "base/map.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(SYS_openat2) && __has_include(<linux/openat2.h>)
#include <linux/openat2.h>
#endif

#define MOST_FILES      16384
#define MOST_PATH_BYTES 4096

struct qd_external_file {
    char *location;
    struct qd_file file;
};

struct qd_externals {
    int folder;
    struct qd_map names;
    struct qd_external_file *files;
    int count, room;
};

enum qd_status qd_externals_open(const char *model_path, struct qd_externals **out, struct qd_error *error)
{
    const char *slash = strrchr(model_path, '/');
    size_t length = !slash ? 1 : slash == model_path ? 1 : (size_t)(slash - model_path);
    char *folder = qd_strndup(slash ? model_path : ".", length);
    struct qd_externals *made = folder ? qd_calloc(1, sizeof *made) : NULL;
    enum qd_status status = QD_OK;
    if (!made)
        status = qd_fail(error, QD_ERR_NO_MEMORY, "no memory to load the model");
    else if ((made->folder = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
        status = qd_fail(error, QD_ERR_IO, "can't open the model's folder: %s", strerror(errno));
    qd_free(folder);
    if (status)
        qd_free(made);
    else
        *out = made;
    return status;
}

void qd_externals_close(struct qd_externals **externals)
{
    struct qd_externals *e = *externals;
    *externals = NULL;
    if (!e)
        return;
    for (int i = 0; i < e->count; i++) {
        qd_file_unmap(&e->files[i].file);
        qd_free(e->files[i].location);
    }
    close(e->folder);
    qd_map_clear(&e->names);
    qd_free(e->files);
    qd_free(e);
}

void qd_externals_release(const struct qd_externals *externals)
{
    for (int i = 0; i < externals->count; i++)
        qd_file_release(&externals->files[i].file);
}

size_t qd_externals_bytes(const struct qd_externals *externals)
{
    size_t bytes = 0;
    for (int i = 0; i < externals->count; i++)
        bytes += externals->files[i].file.size;
    return bytes;
}

/* One folder at a time, never up and never through a link. */
static int walk(int folder, char *path)
{
    int at = -1, flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW;
    for (char *part = path, *slash; part; part = slash ? slash + 1 : NULL) {
        slash = strchr(part, '/');
        if (slash)
            *slash = 0;
        int next = -1;
        if (*part && strcmp(part, "..") != 0)
            next = openat(at < 0 ? folder : at, part, flags | (slash ? O_PATH | O_DIRECTORY : O_NONBLOCK | O_NOCTTY));
        else
            errno = EXDEV;
        int why = errno;
        if (at >= 0)
            close(at);
        errno = why;
        if (next < 0)
            return -1;
        at = next;
    }
    return at;
}

int qd_open_beneath(int folder, const char *path, bool walked)
{
    char copy[MOST_PATH_BYTES];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof copy || path[0] == '/') {
        errno = length >= sizeof copy ? ENAMETOOLONG : EXDEV;
        return -1;
    }
#ifdef RESOLVE_BENEATH
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    if (!walked) {
        int fd = (int)syscall(SYS_openat2, folder, path, &how, sizeof how);
        if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) /* EPERM: how sandboxes refuse a call they don't know */
            return fd;
    }
#else
    (void)walked;
#endif
    memcpy(copy, path, length + 1);
    return walk(folder, copy);
}

static enum qd_status map_beneath(int folder, const char *location, struct qd_file *out, struct qd_error *error)
{
    struct stat about;
    enum qd_status status = QD_OK;
    int fd = qd_open_beneath(folder, location, false);
    if (fd < 0 && (errno == EXDEV || errno == ELOOP))
        return qd_fail(error, QD_ERR_INVALID, "'%s' leads out of the model's folder, or through a link", location);
    if (fd < 0)
        return qd_fail(error, errno == ENOENT ? QD_ERR_NOT_FOUND : QD_ERR_IO,
                       "can't open '%s' in the model's folder: %s", location, strerror(errno));
    if (fstat(fd, &about) != 0)
        status = qd_fail(error, QD_ERR_IO, "can't look at '%s': %s", location, strerror(errno));
    else if (!S_ISREG(about.st_mode))
        status = qd_fail(error, QD_ERR_INVALID, "'%s' is not a regular file", location);
    else if (about.st_nlink > 1) /* a hard link leads anywhere on the same disk */
        status = qd_fail(error, QD_ERR_INVALID, "'%s' has another name elsewhere: a copy would do", location);
    else if (about.st_size < 0 || (uintmax_t)about.st_size > SIZE_MAX)
        status = qd_fail(error, QD_ERR_TOO_LARGE, "'%s' is too large to be mapped", location);
    *out = (struct qd_file){.size = status ? 0 : (size_t)about.st_size};
    if (status == QD_OK && out->size > 0) {
        void *bytes = mmap(NULL, out->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED)
            status = qd_fail(error, errno == ENOMEM ? QD_ERR_NO_MEMORY : QD_ERR_IO, "can't map '%s': %s", location,
                             strerror(errno));
        else
            out->bytes = bytes;
    }
    close(fd);
    return status;
}

enum qd_status qd_externals_find(struct qd_externals *externals, const char *location, const struct qd_file **out,
                                 bool *first, struct qd_error *error)
{
    int at;
    *first = !qd_map_find(&externals->names, location, strlen(location), &at);
    if (!*first) {
        *out = &externals->files[at].file;
        return QD_OK;
    }
    if (externals->count == MOST_FILES)
        return qd_fail(error, QD_ERR_TOO_LARGE, "more than %d files of tensors", MOST_FILES);
    if (externals->count == externals->room) {
        int room = externals->room ? externals->room * 2 : 4;
        struct qd_external_file *files = qd_realloc(externals->files, (size_t)room, sizeof *files);
        if (!files)
            return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to load the model");
        externals->files = files;
        externals->room = room;
    }
    struct qd_external_file *file = &externals->files[externals->count];
    enum qd_status status = map_beneath(externals->folder, location, &file->file, error);
    if (status)
        return status;
    file->location = qd_strndup(location, strlen(location));
    if (!file->location || qd_map_put(&externals->names, file->location, strlen(location), externals->count) != QD_OK) {
        qd_file_unmap(&file->file);
        qd_free(file->location);
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to load the model");
    }
    externals->count++;
    *out = &file->file;
    return QD_OK;
}
