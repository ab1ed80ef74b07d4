/* One Open Inference Protocol request from bytes to a filled qd_infer, and its answer from a run qd_infer to bytes:
 * plain JSON, JSON followed by binary tensors (Inference-Header-Content-Length), and the raw binary request. Knows the
 * engine and the format; knows nothing of connections, queues or threads. All [loop]. */
#ifndef QD_SERVER_CODEC_INFER_H
#define QD_SERVER_CODEC_INFER_H

#include "engine/engine.h"
#include "server/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QD_INFER_MAX_TENSORS    64 /* inputs, outputs or parameters one request may name */
#define QD_INFER_MAX_NAME_BYTES 256

/* What is known of the body before it arrives. */
struct qd_infer_framing {
    const char *header_length; /* value of Inference-Header-Content-Length, NULL when the header is absent */
    uint64_t body_bytes;       /* Content-Length, or the route's limit when it is not known */
    bool body_exact;           /* body_bytes is the Content-Length */
    bool nonfinite_tokens;     /* spell non-finite outputs as NaN, Infinity, -Infinity instead of refusing them */
};

struct qd_infer_call; /* one request; borrows the model until destroyed */

/* Errors: INVALID for a bad header_length, NO_MEMORY. */
enum qd_status qd_infer_call_create(struct qd_model *model, const struct qd_infer_framing *framing,
                                    struct qd_infer_call **out, struct qd_error *error) QD_MUST_CHECK;
/* Takes n more bytes of the body. After an error the call can only be destroyed. Errors: FORMAT, INVALID, TYPE, SHAPE,
 * CONFLICT, TOO_LARGE, UNSUPPORTED, NO_MEMORY: each a sentence for the user. */
enum qd_status qd_infer_call_feed(struct qd_infer_call *call, const void *bytes, size_t n,
                                  struct qd_error *error) QD_MUST_CHECK;
/* The body is complete: checks that nothing is missing and sets the options that the body named. */
enum qd_status qd_infer_call_end(struct qd_infer_call *call, struct qd_error *error) QD_MUST_CHECK;
/* The engine's request, owned by the call; NULL before the first input (never NULL after a good end). */
struct qd_infer *qd_infer_call_infer(const struct qd_infer_call *call);
/* `parameters.timeout` in microseconds; 0: none. */
uint64_t qd_infer_call_timeout_us(const struct qd_infer_call *call);
/* Rows, for statistics: the first dimension of the first input where the model leaves it open, otherwise 1. */
uint64_t qd_infer_call_batch(const struct qd_infer_call *call);
void qd_infer_call_destroy(struct qd_infer_call **call);

struct qd_infer_piece {
    const void *bytes; /* borrowed from the call's qd_infer */
    size_t n;
};

/* The body of the answer: `json`, then the pieces in order. */
struct qd_infer_reply {
    struct qd_text json;
    struct qd_infer_piece *pieces; /* owned */
    size_t piece_count, piece_bytes;
    bool binary; /* Content-Type application/octet-stream and Inference-Header-Content-Length: json.length; else
                    application/json */
};

/* Spells the outputs of a run that succeeded (qd_infer_status is QD_OK). Pieces point into the call, so the call must
 * outlive the reply. Errors: OUT_OF_RANGE for non-finite values in JSON, TYPE for types without a JSON form, NO_MEMORY.
 */
enum qd_status qd_infer_call_encode(struct qd_infer_call *call, struct qd_infer_reply *reply,
                                    struct qd_error *error) QD_MUST_CHECK;
void qd_infer_reply_free(struct qd_infer_reply *reply);

/* A strictly decimal number of bytes ("0", "17"; no sign, no blank, no leading zero); false otherwise. */
bool qd_infer_header_length(const char *text, uint64_t *out);

#endif
