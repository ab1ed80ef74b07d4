/* What of a request's head can be judged from bytes alone: the raw target, and the framing headers. Pure functions,
 * fuzzed. libmicrohttpd accepts more than it should (request smuggling, truncated paths): this is where it is refused.
 */
#ifndef QD_SERVER_TARGET_H
#define QD_SERVER_TARGET_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

#define QD_TARGET_MAX_SEGMENTS 16
#define QD_TARGET_MAX_PARAMS   64
#define QD_TARGET_BYTES        4096
#define QD_HEADERS_MAX         128
#define QD_HEADERS_BYTES       (32u << 10)

/* A decoded request target. Texts lie in `bytes`. */
struct qd_target {
    char bytes[QD_TARGET_BYTES];
    const char *segments[QD_TARGET_MAX_SEGMENTS];
    size_t segment_count;
    const char *keys[QD_TARGET_MAX_PARAMS], *values[QD_TARGET_MAX_PARAMS];
    size_t param_count;
};

/* Takes a raw target apart. One slash at the end is allowed. Errors: URI when it is too long; INVALID for forms other
 * than /path[?query], control bytes, %00 and encoded control bytes, bad escapes, empty segments, "." and ".." (also
 * encoded), an encoded slash, too many segments or parameters. [any] */
enum qd_status qd_target_parse(const char *raw, struct qd_target *out, struct qd_error *error) QD_MUST_CHECK;

/* Counts of what framing depends on, over all headers of a request. */
struct qd_framing {
    unsigned content_length, transfer_encoding, host;
    size_t count, bytes; /* of all headers: names and values */
    bool bad_encoding;   /* Transfer-Encoding other than chunked */
    bool bad_character;  /* no name, a control byte or a blank in a name, a control byte other than TAB in a value */
};

/* Adds one header. Lengths are the real ones, so that a NUL inside is seen. [any] */
void qd_framing_add(struct qd_framing *framing, const char *name, size_t name_length, const char *value,
                    size_t value_length);
/* NULL when the framing is sound, else the sentence. `http_1_1`: the Host header is required. [any] */
const char *qd_framing_fault(const struct qd_framing *framing, bool http_1_1);
/* More headers than QD_HEADERS_MAX, or more than QD_HEADERS_BYTES of them. [any] */
bool qd_framing_too_large(const struct qd_framing *framing);

#endif
