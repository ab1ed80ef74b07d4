/* JSON as it arrives: a push parser with bounded depth and bounded tokens that hands each token to a function, and a
 * sink that turns the tokens of one `data` array into a tensor's elements, one number after another, without any
 * object per number. Strict RFC 8259, UTF-8 only. Not a tree and not for writing (server/text.h). */
#ifndef QD_SERVER_CODEC_JSON_H
#define QD_SERVER_CODEC_JSON_H

#include "base/status.h"
#include "engine/engine.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QD_JSON_MAX_DEPTH        16
#define QD_JSON_MAX_STRING_BYTES 65536 /* of one decoded string */
#define QD_JSON_MAX_NUMBER_BYTES 1024

enum qd_json_event {
    QD_JSON_OBJECT,
    QD_JSON_OBJECT_END,
    QD_JSON_ARRAY,
    QD_JSON_ARRAY_END,
    QD_JSON_KEY,
    QD_JSON_STRING,
    QD_JSON_NUMBER,
    QD_JSON_TRUE,
    QD_JSON_FALSE,
    QD_JSON_NULL,
};

/* value = (negative ? -1 : 1) * mantissa * 10^exponent, up to digits that were dropped behind the 19th. */
struct qd_json_number {
    uint64_t mantissa;
    int32_t exponent;
    bool negative;
    bool integer;   /* spelled without '.' and exponent */
    bool truncated; /* digits other than 0 were dropped */
};

struct qd_json_token {
    enum qd_json_event event;
    const char *text; /* KEY, STRING: decoded, valid UTF-8, no NUL inside; NUMBER: as written. Zero-terminated only for
                         strings */
    size_t length;
    struct qd_json_number number; /* NUMBER only */
};

/* Receives the tokens in order; anything but QD_OK stops the parser with that status. */
typedef enum qd_status qd_json_handler(void *ctx, const struct qd_json_token *token, struct qd_error *error);

struct qd_json {
    qd_json_handler *handler;
    void *ctx;
    int state; /* what may come next */
    int depth;
    uint32_t arrays; /* bit i: level i is an array */
    bool key;        /* the string being read is a key */
    int escape;      /* inside \..: progress of the escape */
    uint32_t unit;   /* \uXXXX being read */
    uint32_t high;   /* first half of a surrogate pair, or 0 */
    char *scratch;   /* a token that is not whole in one feed */
    size_t scratch_bytes, scratch_room;
    uint64_t offset; /* bytes eaten by earlier feeds */
};

/* `handler` is called from feed and end. Free what was allocated with qd_json_release. [any] */
void qd_json_init(struct qd_json *json, qd_json_handler *handler, void *ctx);
void qd_json_release(struct qd_json *json);
/* Parses n more bytes. After an error only qd_json_release may follow. Errors: FORMAT with the byte's offset,
 * NO_MEMORY, or the handler's. */
enum qd_status qd_json_feed(struct qd_json *json, const void *bytes, size_t n, struct qd_error *error) QD_MUST_CHECK;
/* The text ends here: FORMAT when it is not one whole value. */
enum qd_status qd_json_end(struct qd_json *json, struct qd_error *error) QD_MUST_CHECK;

/* Reads the n bytes of a number; false when they do not follow JSON's grammar. */
bool qd_json_number_read(const char *text, size_t n, struct qd_json_number *out);
/* Correctly rounded, independent of the locale; false when it rounds to infinity. */
bool qd_json_number_float(const struct qd_json_token *token, float *out);
bool qd_json_number_double(const struct qd_json_token *token, double *out);
/* Exact; false when it is not spelled as an integer or does not fit. */
bool qd_json_number_i64(const struct qd_json_token *token, int64_t *out);
bool qd_json_number_u64(const struct qd_json_token *token, uint64_t *out);

/* ------------------------------------------------------------------ `data` -> memory */

/* Elements may come flat or nested: at depth d the first d - 1 dimensions are brackets, the rest is flat inside. */
struct qd_json_tensor {
    const char *name; /* of the input, for errors; borrowed */
    enum qd_dtype dtype;
    struct qd_shape shape;
    void *data; /* `elems` elements; borrowed */
    void *(*take)(void *ctx,
                  size_t bytes); /* memory for the bytes of strings, which lives as long as data; BYTES only */
    void *take_ctx;
    int64_t elems, filled;
    int depth;      /* of the brackets open now */
    int leaf_depth; /* where the elements stand; 0: none seen yet */
    bool done;
    int64_t counts[QD_MAX_RANK + 2]; /* children of the open bracket at each level */
    bool brackets[QD_MAX_RANK + 2];  /* whether those children are brackets */
};

/* `shape` is fully known and was checked (qd_shape_elems); `data` has room for its elements of `dtype`. For BYTES the
 * caller sets `take` as well. */
void qd_json_tensor_init(struct qd_json_tensor *tensor, const char *name, enum qd_dtype dtype,
                         const struct qd_shape *shape, void *data);
/* Takes the tokens from the opening bracket to the closing one, then `done`. Errors: SHAPE, TYPE, FORMAT, each naming
 * the input. */
enum qd_status qd_json_tensor_token(struct qd_json_tensor *tensor, const struct qd_json_token *token,
                                    struct qd_error *error) QD_MUST_CHECK;
/* False for types whose elements have no JSON spelling here (FP16, BF16). */
bool qd_json_dtype_has_text(enum qd_dtype dtype);

#endif
