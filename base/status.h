/* Outcomes. Every fallible function returns an enum qd_status; cold paths also fill a struct qd_error with
 * one sentence that names the node, tensor or key. Not for control flow inside kernels: run paths cannot fail. */
#ifndef QD_BASE_STATUS_H
#define QD_BASE_STATUS_H

enum qd_status {
#define QD_STATUS(name, http, text) QD_##name,
#include "base/status.def"
#undef QD_STATUS
    QD_STATUS_COUNT
};

#define QD_MUST_CHECK        __attribute__((warn_unused_result))
#define QD_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

#define QD_ERROR_TEXT_BYTES 512

struct qd_error {
    enum qd_status status;
    char text[QD_ERROR_TEXT_BYTES]; /* one sentence, no newline, never a path or pointer of ours */
};

/* The row's text, never NULL. [any] */
const char *qd_status_text(enum qd_status status);

/* The HTTP status the server answers for it. [any] */
int qd_status_http(enum qd_status status);

/* Fills *error (may be NULL) and returns `status`, so that callers can `return qd_fail(...)`. Control
 * characters in the formatted text become '?'; longer texts are cut. [any] */
enum qd_status qd_fail(struct qd_error *error, enum qd_status status, const char *format, ...) QD_PRINTF(3, 4);

/* Puts "prefix: " before the text already in *error; returns its status. [any] */
enum qd_status qd_error_prefix(struct qd_error *error, const char *format, ...) QD_PRINTF(2, 3);

#endif
