/* Files that hold tensors of a model, beneath the model's folder. What import.h declares as qd_externals; here is what
 * the importer asks of them. Private to engine/onnx. */
#ifndef QD_ENGINE_ONNX_EXTERNAL_H
#define QD_ENGINE_ONNX_EXTERNAL_H

#include "engine/onnx/import.h"

#include <stdbool.h>

/* The file of that location, mapped now (then *first) or before. Borrowed until the externals are closed, but for the
 * struct itself: until the next call. Errors: INVALID (a path that leads out, a link, no regular file), NOT_FOUND, IO,
 * TOO_LARGE, NO_MEMORY. */
enum qd_status qd_externals_find(struct qd_externals *externals, const char *location, const struct qd_file **out,
                                 bool *first, struct qd_error *error) QD_MUST_CHECK;

/* A file beneath a folder, read-only; -1 and errno: EXDEV for a path that leads out, ELOOP for one through a symbolic
 * link. `walked`: by the way for systems without openat2, for tests. [any] */
int qd_open_beneath(int folder, const char *path, bool walked);

#endif
