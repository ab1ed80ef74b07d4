/* A growing piece of text and the few JSON spellings the server writes: strings, numbers, tensors' elements.
 * A failed append (memory out) sets `failed`, and later appends do nothing, so that writers check once at the end.
 * Not a JSON tree: commas and braces are the caller's. [any], one thread at a time. */
#ifndef QD_SERVER_TEXT_H
#define QD_SERVER_TEXT_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qd_text {
    char *bytes; /* owned; zero-terminated when not NULL; free with qd_free or qd_text_free */
    size_t length, room;
    bool failed;
};

/* Makes room for n more bytes; false (and failed) when memory is out. */
bool qd_text_reserve(struct qd_text *text, size_t n);
void qd_text_append(struct qd_text *text, const char *bytes, size_t n);
void qd_text_puts(struct qd_text *text, const char *string);
void qd_text_printf(struct qd_text *text, const char *format, ...) QD_PRINTF(2, 3);
void qd_text_free(struct qd_text *text);

/* "..." with JSON escapes; bytes that are not UTF-8 become U+FFFD. */
void qd_text_json_string(struct qd_text *text, const char *string);
void qd_text_json_bytes(struct qd_text *text, const char *bytes, size_t n); /* which may hold zeros */
/* The shortest decimal that reads back as the same double; a non-finite value is written as null. */
void qd_text_json_double(struct qd_text *text, double value);
/* RFC 3339 in UTC with quotes; null for 0. */
void qd_text_json_time(struct qd_text *text, int64_t unix_ms);

/* Room that one number of the functions below may take. */
#define QD_NUMBER_TEXT_BYTES 40
/* Spell one finite number (always with a '.', an 'e' or both for floats), not zero-terminated; return its length.
 * The float is the shortest of 6 to 9 significant digits that reads back as the same bits. */
size_t qd_format_float(char *out, float value);
size_t qd_format_double(char *out, double value);
size_t qd_format_u64(char *out, uint64_t value);
size_t qd_format_i64(char *out, int64_t value);

/* Length of the longest valid UTF-8 prefix of n bytes (no overlong forms, no surrogates). */
size_t qd_utf8_prefix(const char *bytes, size_t n);

#endif
