/*
 * quantd_client: asks a quantd daemon for answers, and for what it has learned, from C.
 * It speaks the Open Inference Protocol over HTTP/1.1 (no TLS) with tensors in binary; it needs libc and jansson only.
 *
 * Threads    a client holds one connection: use it from one thread at a time. Several clients need no lock.
 * Ownership  what a function hands out through a `struct x **` is yours until its _destroy; everything that it points
 *            to belongs to it. What you pass in is only read during the call. No function keeps a pointer of yours.
 * Errors     every function returns a status; anything but OK leaves the outputs NULL or untouched and, if `error` is
 * not NULL, one sentence in it. The connection is made again when needed: a client survives every error. Repeats    a
 * question (GET) that finds its kept connection closed is asked once more. An infer, freeze or reset is never repeated:
 * after CONNECT, TIMEOUT or PROTOCOL it may or may not have happened. Units      times in milliseconds, sizes in bytes,
 * shapes in elements. Tensors are dense, row-major, little-endian.
 */
#ifndef QUANTD_CLIENT_H
#define QUANTD_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QUANTD_CLIENT_MAX_RANK 8

enum quantd_client_status {
    QUANTD_CLIENT_OK,
    QUANTD_CLIENT_INVALID,  /* an argument of the call can't be used; nothing was sent */
    QUANTD_CLIENT_MEMORY,   /* out of memory */
    QUANTD_CLIENT_CONNECT,  /* nobody there, or the connection broke */
    QUANTD_CLIENT_TIMEOUT,  /* no whole answer in time */
    QUANTD_CLIENT_PROTOCOL, /* the answer is too large, or not what a quantd says */
    QUANTD_CLIENT_REFUSED,  /* the daemon said no: error.http_status and its own sentence in error.text */
};

struct quantd_client_error {
    enum quantd_client_status status;
    int http_status; /* 0 unless REFUSED */
    char text[512];  /* UTF-8, ends with 0; may hold whatever a server sent: filter it before a terminal sees it */
};

/* The datatypes of the protocol. BYTES elements are each a 32-bit length and that many bytes. */
enum quantd_client_datatype {
    QUANTD_CLIENT_BOOL,
    QUANTD_CLIENT_UINT8,
    QUANTD_CLIENT_UINT16,
    QUANTD_CLIENT_UINT32,
    QUANTD_CLIENT_UINT64,
    QUANTD_CLIENT_INT8,
    QUANTD_CLIENT_INT16,
    QUANTD_CLIENT_INT32,
    QUANTD_CLIENT_INT64,
    QUANTD_CLIENT_FP16,
    QUANTD_CLIENT_FP32,
    QUANTD_CLIENT_FP64,
    QUANTD_CLIENT_BF16,
    QUANTD_CLIENT_BYTES,
};

/* "FP32" and so on. [any thread] */
const char *quantd_client_datatype_name(enum quantd_client_datatype type);
/* The size of one element in bytes; 0 for BYTES, which has none. [any thread] */
size_t quantd_client_datatype_bytes(enum quantd_client_datatype type);
/* The datatype of that name; false if there is none. [any thread] */
bool quantd_client_datatype_find(const char *name, enum quantd_client_datatype *type);

/* ------------------------------------------------------------------ the client */

struct quantd_client;

struct quantd_client_options {
    int connect_timeout_ms; /* to reach the daemon, per address; 0: 5000 */
    int timeout_ms;         /* for a whole call, from its first byte sent to its last received; 0: 60000 */
    size_t max_reply_bytes; /* a larger answer is an error; 0: 256 MiB */
};

/*
 * url: http://HOST[:PORT][/PREFIX] with a name, an IPv4 address or an IPv6 address in brackets; the port is 80 if not
 * given. options: NULL for the defaults. Nothing is sent: the first call connects. INVALID, MEMORY.
 */
enum quantd_client_status quantd_client_create(struct quantd_client **client, const char *url,
                                               const struct quantd_client_options *options,
                                               struct quantd_client_error *error);
void quantd_client_destroy(struct quantd_client **client);

/*
 * model NULL: is the daemon ready; else, is this model ready. Not ready is OK with *ready false and the reason in
 * error->text; an unknown model is REFUSED.
 */
enum quantd_client_status quantd_client_ready(struct quantd_client *client, const char *model, bool *ready,
                                              struct quantd_client_error *error);

/* ------------------------------------------------------------------ models */

struct quantd_client_model {
    const char *name, *version, *state, *reason; /* state: READY, LOADING, UNLOADING, UNAVAILABLE or UNKNOWN */
};
struct quantd_client_models {
    size_t count;
    struct quantd_client_model *models;
};
/* Every model the daemon knows of. */
enum quantd_client_status quantd_client_models(struct quantd_client *client, struct quantd_client_models **models,
                                               struct quantd_client_error *error);
void quantd_client_models_destroy(struct quantd_client_models **models);

struct quantd_client_signature {
    const char *name;
    enum quantd_client_datatype datatype;
    int rank;
    int64_t shape[QUANTD_CLIENT_MAX_RANK]; /* -1: any size */
};
struct quantd_client_metadata {
    const char *name, *platform;
    size_t input_count, output_count;
    struct quantd_client_signature *inputs, *outputs;
};
/* What a model takes and gives. */
enum quantd_client_status quantd_client_metadata(struct quantd_client *client, const char *model,
                                                 struct quantd_client_metadata **metadata,
                                                 struct quantd_client_error *error);
void quantd_client_metadata_destroy(struct quantd_client_metadata **metadata);

/* ------------------------------------------------------------------ inference */

struct quantd_client_tensor {
    const char *name;
    enum quantd_client_datatype datatype;
    int rank;
    int64_t shape[QUANTD_CLIENT_MAX_RANK];
    const void *data; /* in an answer: aligned for its datatype, never NULL */
    size_t bytes;     /* product of shape * size of the datatype (BYTES: whatever its elements take) */
};

struct quantd_client_request {
    const char *model;
    const struct quantd_client_tensor *inputs;
    size_t input_count;
    const char *const *outputs; /* names of the outputs wanted; with output_count 0: all of them */
    size_t output_count;
    const char *id;        /* NULL: none; comes back in the answer */
    uint64_t epoch;        /* 0: the newest; else answer exactly as this epoch of the ranges did */
    const char *precision; /* NULL: as the model is served; "fp32": this answer in full precision */
    bool unobserved;       /* do not learn from this request */
};

struct quantd_client_answer {
    const char *model, *version, *id;
    size_t output_count;
    struct quantd_client_tensor *outputs;
    uint64_t epoch; /* of the ranges that the answer was made with: give it in a request to get the same bytes again */
    const char *plan;      /* digest of the quantization plan */
    const char *precision; /* what it was computed in, "int8" or "fp32" */
    int64_t guarded;       /* tensors where this request left the learned range by so much that the guard stepped in */
};

enum quantd_client_status quantd_client_infer(struct quantd_client *client, const struct quantd_client_request *request,
                                              struct quantd_client_answer **answer, struct quantd_client_error *error);
void quantd_client_answer_destroy(struct quantd_client_answer **answer);
/* The output of that name, or NULL. Belongs to the answer. */
const struct quantd_client_tensor *quantd_client_answer_find(const struct quantd_client_answer *answer,
                                                             const char *name);

/* ------------------------------------------------------------------ what was learned */

struct quantd_client_range {
    const char *name, *mode, *scheme, *dtype, *granularity, *updated; /* updated: RFC 3339, UTC */
    double ema_min, ema_max;                                          /* the moving average */
    double observed_min, observed_max;                                /* the extremes since the last reset */
    double last_min, last_max;                                        /* of the last request */
    double scale;                                                     /* of the epoch in force */
    int64_t zero_point;
    uint64_t observations, elements, clipped_low, clipped_high, nonfinite, guarded;
    double clipped_ratio;
    double utilization; /* share of the integer range that the last request used, 0..1 */
};
struct quantd_client_ranges {
    const char *model, *mode;
    uint64_t epoch, requests;
    double averaging_constant;
    bool frozen;
    size_t count;
    struct quantd_client_range *ranges;
};
/* The learned range of every quantized tensor. */
enum quantd_client_status quantd_client_ranges(struct quantd_client *client, const char *model,
                                               struct quantd_client_ranges **ranges, struct quantd_client_error *error);
void quantd_client_ranges_destroy(struct quantd_client_ranges **ranges);

struct quantd_client_learning {
    uint64_t epoch, requests;
    bool frozen;
};
/* freeze: stop learning, serve as it stands. unfreeze: learn again. reset: forget. now: where the model stands, or
 * NULL. */
enum quantd_client_status quantd_client_freeze(struct quantd_client *client, const char *model,
                                               struct quantd_client_learning *now, struct quantd_client_error *error);
enum quantd_client_status quantd_client_unfreeze(struct quantd_client *client, const char *model,
                                                 struct quantd_client_learning *now, struct quantd_client_error *error);
enum quantd_client_status quantd_client_reset(struct quantd_client *client, const char *model,
                                              struct quantd_client_learning *now, struct quantd_client_error *error);

struct quantd_client_given {
    uint64_t epoch, set, taken_back, ignored; /* in tensors; ignored: no integer layer reads those */
};
/* Gives ranges by tensor: a table that /export writes or {"TENSOR": [min, max]}, docs/EXPORT.md. json NULL: takes all
 * given ranges back. given: what became of them, or NULL. */
enum quantd_client_status quantd_client_set_ranges(struct quantd_client *client, const char *model, const char *json,
                                                   struct quantd_client_given *given,
                                                   struct quantd_client_error *error);

struct quantd_client_step {
    const char *node, *op, *precision, *reason;
    uint64_t multiply_adds;
};
struct quantd_client_quantization {
    const char *model, *plan;
    uint64_t model_file_bytes, packed_bytes;
    size_t count;
    struct quantd_client_step *steps;
};
/* Which node runs in which precision, and why. */
enum quantd_client_status quantd_client_quantization(struct quantd_client *client, const char *model,
                                                     struct quantd_client_quantization **quantization,
                                                     struct quantd_client_error *error);
void quantd_client_quantization_destroy(struct quantd_client_quantization **quantization);

/*
 * Any GET, for what this header has no struct for: path as in "/v2/models/digits/ranges?format=csv". *text ends with a
 * 0 that *text_bytes does not count; free() it.
 */
enum quantd_client_status quantd_client_get(struct quantd_client *client, const char *path, char **text,
                                            size_t *text_bytes, struct quantd_client_error *error);
/* The same by another method ("POST", "PUT", "DELETE"), with `body` as its JSON (NULL: none). */
enum quantd_client_status quantd_client_send(struct quantd_client *client, const char *method, const char *path,
                                             const char *body, char **text, size_t *text_bytes,
                                             struct quantd_client_error *error);

#ifdef __cplusplus
}
#endif

#endif
