/* quantd's engine: load an ONNX model, run requests in INT8 under learned ranges, read what was learned.
 * The one public header of the library; it knows nothing of HTTP, JSON, event loops or files of configuration.
 *
 * Threads: one thread (or one lock) owns a model's learning: every function marked [loop] is called from there.
 * [worker] functions may run anywhere, at the same time, for different requests. [any] = no rule.
 * A request's life: create [loop] -> inputs -> run [worker] -> finish [loop] -> read outputs -> destroy.
 * Formulas and words (site, epoch, guard, observation): docs/QUANTIZATION.md. */
#ifndef QD_ENGINE_ENGINE_H
#define QD_ENGINE_ENGINE_H

#include "base/status.h"
#include "engine/calibrate.h"
#include "engine/correct.h"
#include "engine/export.h"
#include "engine/given.h"
#include "engine/ir/tensor.h"
#include "engine/kept.h"
#include "engine/mixed.h"
#include "engine/options.h"
#include "engine/shadow.h"
#include "engine/smooth.h"
#include "engine/survey.h"
#include "engine/testdata.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qd_engine_options {
    uint32_t threads;       /* of one request's parallel steps; 0 = what affinity and the cgroup allow */
    uint64_t request_bytes; /* most memory the tensors of one request may take, its inputs aside; 0 = 2 GiB */
};

/* ------------------------------------------------------------------ engine and models */

struct qd_engine; /* the thread team and the chosen kernels; outlives its models */
struct qd_model;  /* graph, plan, epochs, ranges; reference counted */

enum qd_status qd_engine_create(const struct qd_engine_options *options, struct qd_engine **out,
                                struct qd_error *error) QD_MUST_CHECK;
void qd_engine_destroy(struct qd_engine **engine);
/* "scalar", "avx2", "avx512vnni", "amx": the kernels in use. [any] */
const char *qd_engine_isa(const struct qd_engine *engine);
/* Threads in use, the caller's included. [any] */
uint32_t qd_engine_threads(const struct qd_engine *engine);

/* Maps and compiles a model. `name` is what errors and reports call it. A node that is not supported fails the load
 * with its operator, name and opset. Slow (quantizes and packs all weights); any thread, nothing shared. */
enum qd_status qd_model_load_file(struct qd_engine *engine, const char *name, const char *path,
                                  const struct qd_quant_options *options, struct qd_model **out,
                                  struct qd_error *error) QD_MUST_CHECK;
/* The same from bytes that stay valid and unchanged until the last unref. */
enum qd_status qd_model_load_memory(struct qd_engine *engine, const char *name, const void *bytes, size_t size,
                                    const struct qd_quant_options *options, struct qd_model **out,
                                    struct qd_error *error) QD_MUST_CHECK;
struct qd_model *qd_model_ref(struct qd_model *model);
void qd_model_unref(struct qd_model **model); /* clears the pointer; the last one frees */

/* One input or output of the model. Strings live as long as the model. */
struct qd_io {
    const char *name;
    enum qd_dtype dtype;
    struct qd_shape shape;              /* -1: any size */
    const char *dim_names[QD_MAX_RANK]; /* symbolic name of an unknown dimension, or NULL */
    bool optional;                      /* an input with a default (an initializer of the same name) */
};
const char *qd_model_name(const struct qd_model *model);
size_t qd_model_input_count(const struct qd_model *model);
size_t qd_model_output_count(const struct qd_model *model);
const struct qd_io *qd_model_input(const struct qd_model *model, size_t i);
const struct qd_io *qd_model_output(const struct qd_model *model, size_t i);

/* ------------------------------------------------------------------ requests */

struct qd_infer_options {
    uint64_t epoch;              /* 0: the current one; otherwise replay, QD_ERR_CONFLICT when it is no longer kept */
    enum qd_precision precision; /* QD_PRECISION_AUTO: the plan's; QD_FP32: this answer in full precision */
    bool observe;                /* learn from this request */
    bool own_ranges;             /* mode `request` for this one; ranges that are given stay */
    bool has_guard;              /* `guard`, whatever the model and its layers say */
    enum qd_guard guard;
};
struct qd_infer_options qd_infer_defaults(void);

/* One request: its inputs, its memory, its answer. One thread at a time; freed in one go. */
struct qd_infer;

/* Borrows the model's current plan and epoch. [loop] */
enum qd_status qd_infer_create(struct qd_model *model, const struct qd_infer_options *options, struct qd_infer **out,
                               struct qd_error *error) QD_MUST_CHECK;
/* Changes the options of a request before qd_infer_prepare (they may come after its inputs). Errors: CONFLICT when the
 * epoch is no longer kept, INVALID after prepare; the request then keeps its old options. [loop] */
enum qd_status qd_infer_set_options(struct qd_infer *infer, const struct qd_infer_options *options,
                                    struct qd_error *error) QD_MUST_CHECK;
/* When the request's time is over, by CLOCK_MONOTONIC in nanoseconds; 0: never. Loops within a model end by it, with
 * QD_ERR_DEADLINE; straight runs are not interrupted. Before the run. [any] */
void qd_infer_set_deadline(struct qd_infer *infer, uint64_t deadline_ns);
/* Checks dtype and shape against the signature and gives memory for the input's elements (plain row-major layout, as
 * many bytes as qd_tensor_bytes says), to be filled before the run. Errors: TYPE, SHAPE, TOO_LARGE, NO_MEMORY, INVALID
 * when set twice. [any] */
enum qd_status qd_infer_input_alloc(struct qd_infer *infer, size_t input, enum qd_dtype dtype,
                                    const struct qd_shape *shape, void **data, struct qd_error *error) QD_MUST_CHECK;
/* The same with the caller's memory, borrowed until destroy, aligned for its type. [any] */
enum qd_status qd_infer_input_borrow(struct qd_infer *infer, size_t input, const struct qd_tensor *tensor,
                                     struct qd_error *error) QD_MUST_CHECK;
/* The request's memory, for the bytes of an input's strings; NULL: there is none left. Not while it runs. [any] */
void *qd_infer_take(struct qd_infer *infer, size_t bytes);
/* Checks that all inputs are there and agree on named dimensions, and prepares what the shapes need (memory,
 * shape-specialised layout): all that can fail fails here. [worker] */
enum qd_status qd_infer_prepare(struct qd_infer *infer, struct qd_error *error) QD_MUST_CHECK;
/* Runs prepared requests together ("lanes"; all of one model). No lane sees another: its bytes are the same alone. Each
 * lane's own outcome (QD_OK, or QD_ERR_OUT_OF_RANGE by the guard `reject`) is its qd_infer_status. [worker] */
void qd_infer_run(struct qd_infer *const *lanes, size_t count);
/* The lane's outcome; fills *error (may be NULL) with the sentence. [any] */
enum qd_status qd_infer_status(const struct qd_infer *infer, struct qd_error *error);
/* Folds what the request observed into the model's ranges, may publish an epoch. Once, after the run, in order of
 * completion; a failed or unobserving request only counts. [loop] */
void qd_infer_finish(struct qd_infer *infer);
/* Plain-layout tensor in the request's memory, valid until destroy. [any] */
const struct qd_tensor *qd_infer_output(const struct qd_infer *infer, size_t output);

/* What a response tells of how it was made. */
struct qd_infer_report {
    uint64_t epoch;              /* quant_epoch */
    uint32_t plan;               /* quant_plan: the plan's digest */
    uint32_t guarded;            /* quant_guarded: guard events */
    uint64_t nonfinite;          /* non-finite elements met at sites */
    enum qd_precision precision; /* quant_precision */
};

void qd_infer_report(const struct qd_infer *infer, struct qd_infer_report *out);
void qd_infer_destroy(struct qd_infer **infer); /* [any] */

/* ------------------------------------------------------------------ what was learned [loop] */

struct qd_ranges_summary {
    uint64_t epoch, requests; /* requests = folded by qd_infer_finish */
    enum qd_mode mode;
    enum qd_compat compat;
    double averaging_constant;
    bool frozen;
    size_t sites;
};

#define QD_MAX_CONSUMERS 16

/* One site, field by field as docs/QUANTIZATION.md and /ranges name them. Strings live as long as the model. */
struct qd_range_report {
    const char *name; /* the tensor */
    const char *consumers[QD_MAX_CONSUMERS];
    size_t consumer_count;
    enum qd_mode mode; /* static: frozen, or given */
    enum qd_scheme scheme;
    enum qd_dtype dtype; /* QD_U8, QD_I8 or QD_I16 */
    enum qd_granularity granularity;
    bool smoothed; /* columns were divided before: ranges are of what came of it */
    double ema_min, ema_max, observed_min, observed_max, last_min, last_max; /* 0 before the first observation */
    float scale;                                                             /* of the epoch in force, byte for byte */
    int32_t zero_point;                                                      /* in dtype's own range */
    uint64_t observations, elements, clipped_low, clipped_high, nonfinite, guarded;
    double utilization;      /* share of the integer range the last request used */
    int64_t updated_unix_ms; /* 0: never */
};

void qd_model_ranges(const struct qd_model *model, struct qd_ranges_summary *out);
/* i < summary.sites. */
void qd_model_range(const struct qd_model *model, size_t i, struct qd_range_report *out);
/* Forget everything learned; the epoch number still grows. Errors: NO_MEMORY, then nothing has changed. */
enum qd_status qd_model_ranges_reset(struct qd_model *model, struct qd_error *error) QD_MUST_CHECK;
/* Stop learning and serve the learned ranges as `static`. Errors: CONFLICT before every site has an observation. */
enum qd_status qd_model_ranges_freeze(struct qd_model *model, struct qd_error *error) QD_MUST_CHECK;
/* Learn again from where it stopped. */
enum qd_status qd_model_ranges_unfreeze(struct qd_model *model, struct qd_error *error) QD_MUST_CHECK;

/* Of the file's bytes: which model this is. [any] */
uint64_t qd_model_digest(const struct qd_model *model);

/* ------------------------------------------------------------------ other options for a loaded model */

/* The options in force; pins are borrowed until the next adoption. [loop] */
struct qd_quant_options qd_model_options(const struct qd_model *model);

/* A plan made with other options that is not in force yet. */
struct qd_change;

/* Compiles the model again. Slow; requests go on meanwhile. The model must outlive the change. Errors: INVALID and
 * UNSUPPORTED (options), NOT_FOUND (a pin that fits no node), those of loading. [any] */
enum qd_status qd_change_create(struct qd_model *model, const struct qd_quant_options *options, struct qd_change **out,
                                struct qd_error *error) QD_MUST_CHECK;
/* Puts the plan in force: an epoch is published under which requests run from now on; tensors keep what they have
 * learned, by name. Requests under way end under their own plan and epoch (they are counted, not learned from); an
 * epoch that is still kept is replayed with the plan it belongs to. Clears the pointer when it succeeds. Errors:
 * NO_MEMORY, then nothing has changed. [loop] */
enum qd_status qd_change_adopt(struct qd_change **change, struct qd_error *error) QD_MUST_CHECK;
void qd_change_discard(struct qd_change **change); /* clears the pointer [any] */

/* ------------------------------------------------------------------ the plan [loop] */

struct qd_step_report {
    const char *node, *op; /* of the model, not of our fusion */
    const char *fused;     /* names of nodes merged into this step, comma separated; "" when none */
    enum qd_precision precision;
    const char *reason;   /* why this precision, one phrase */
    bool pinned, follows; /* the precision was given; it is only that of its neighbours */
    double sqnr_db;       /* of the layer alone, by shadow runs; NaN: not measured */
    bool reads;           /* integers: mode, guard (of one range for a tensor) and granularity are theirs */
    enum qd_mode mode;
    enum qd_guard guard;
    enum qd_granularity activation_granularity;
    enum qd_scheme activation_scheme, weight_scheme;
    enum qd_granularity weight_granularity;
    int weight_bits;                   /* 0: no weights */
    double int8_us, int16_us, fp32_us; /* of a layer that was timed while loading, else 0 */
    uint64_t macs;                     /* multiply-adds at the signature's shape with unknown dimensions taken as 1 */
};

struct qd_plan_report {
    uint32_t digest;
    size_t steps;
    uint64_t model_file_bytes, packed_bytes; /* of the file, of the packed weights held */
    uint64_t macs[4];                        /* by enum qd_precision int8, int16, fp32, fake */
    int64_t opset;                           /* of the default domain */
    size_t nodes;                            /* of the model */
};

void qd_model_plan(const struct qd_model *model, struct qd_plan_report *out);
void qd_model_step(const struct qd_model *model, size_t i, struct qd_step_report *out); /* i < steps */

#endif
