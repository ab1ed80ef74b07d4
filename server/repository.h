/* The models that the daemon serves, by name: where they came from, their state, what they have done. Every model has
 * the one version "1". Not for learning (that is the engine's) and not for HTTP. All [loop], or before the loop runs.
 */
#ifndef QD_SERVER_REPOSITORY_H
#define QD_SERVER_REPOSITORY_H

#include "config/config.h"
#include "engine/engine.h"
#include "server/layers.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QD_MODEL_NAME_BYTES 128 /* longest name */
#define QD_MODEL_VERSION    "1"
#define QD_BATCH_KINDS      32 /* different batch sizes that statistics tell apart */

/* The model that is compiled into the binary (made from server/builtin/digits.onnx). */
extern const unsigned char qd_builtin_digits_onnx[];
extern const size_t qd_builtin_digits_onnx_size;

enum qd_model_state { QD_STATE_UNKNOWN, QD_STATE_READY, QD_STATE_UNAVAILABLE, QD_STATE_LOADING, QD_STATE_UNLOADING };
/* "READY", ... as the protocol spells it. */
const char *qd_model_state_name(enum qd_model_state state);

struct qd_duration {
    uint64_t count, ns;
};

struct qd_batch_stats {
    uint64_t size;
    struct qd_duration input, infer, output;
};

struct qd_model_stats {
    uint64_t last_inference_ms; /* Unix time, 0: never */
    uint64_t inference_count;   /* rows */
    uint64_t execution_count;   /* runs; requests that the batcher joined share one */
    struct qd_duration success, fail, queue, compute_input, compute_infer, compute_output;
    struct qd_batch_stats batches[QD_BATCH_KINDS];
    size_t batch_count;
};

/* What of a model was last written to its state file. */
struct qd_saved {
    uint64_t epoch, requests;
    uint32_t plan;
    bool any;
};

/* A replica whose state was merged into this one's, and how far it had come. */
#define QD_ORIGIN_BYTES 16
#define QD_MERGED_MAX   32

struct qd_merged {
    char origin[QD_ORIGIN_BYTES + 1];
    uint64_t requests;
};

struct qd_snapshots; /* server/snapshots.h */
struct qd_history;   /* server/history.h */
struct qd_audit;

struct qd_model_entry {
    char name[QD_MODEL_NAME_BYTES + 1];
    enum qd_model_state state;
    struct qd_quant_options base; /* of the configuration: what it was loaded with */
    struct qd_layers layers;      /* whose lists these are */
    struct qd_error reason;       /* why it is UNAVAILABLE; text "" otherwise */
    struct qd_model *model;       /* a reference; NULL unless READY */
    double shadow_due;            /* grows by shadow_rate a request; at 1 one is measured */
    bool unmeasured;              /* nobody asked for a rate, and memory doesn't suffice to measure by itself */
    bool changing;                /* another plan is being compiled */
    bool correcting;              /* other biases, or a smoothed plan, are being made */
    double unsmoothed; /* measured cosine before the plan was smoothed, which is still to be judged; 0: nothing is */
    size_t smoothed;   /* tensors that were smoothed before */
    bool keeping;      /* a snapshot is being written or removed */
    bool saving;       /* its state file is being written */
    bool save_failed;  /* the last time */
    char origin[QD_ORIGIN_BYTES + 1]; /* this run of the model, 16 hexadecimal digits at random */
    struct qd_merged merged[QD_MERGED_MAX];
    size_t merged_count;
    struct qd_snapshots *snapshots; /* NULL: none */
    struct qd_history *history;     /* NULL: nothing yet */
    double drift;                   /* largest distance from the baseline snapshot; negative: there is none */
    bool drifting;                  /* it is above the threshold */
    struct qd_saved saved;
    struct qd_audit *audit;             /* layers that changed their precision; NULL: none yet */
    struct qd_calibration *calibration; /* begun and not yet published, or NULL */
    enum qd_method calibration_method;  /* as the last request said */
    double calibration_percentile;      /* 0: never said */
    size_t calibrating;                 /* its requests under way */
    bool estimating;                    /* ranges are being made from it */
    struct qd_model_stats stats;
    uint64_t load_ns;
};

struct qd_repository;

/* Models are loaded with `options` and what `config` (borrowed; NULL: nothing) says of them and their layers. */
enum qd_status qd_repository_create(struct qd_engine *engine, const struct qd_quant_options *options,
                                    const struct qd_config *config, struct qd_repository **out,
                                    struct qd_error *error) QD_MUST_CHECK;
void qd_repository_destroy(struct qd_repository **repository);

/* ^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$ */
bool qd_model_name_valid(const char *name);

/* 16 lower-case hexadecimal digits */
bool qd_origin_valid(const char *origin);

/* Load one model, slow. A failed load keeps an entry that is UNAVAILABLE with its reason, unless the name itself is bad
 * or taken. Errors: INVALID (name), CONFLICT (name taken), the engine's. */
enum qd_status qd_repository_add_file(struct qd_repository *repository, const char *name, const char *path,
                                      struct qd_error *error) QD_MUST_CHECK;
enum qd_status qd_repository_add_builtin(struct qd_repository *repository, struct qd_error *error) QD_MUST_CHECK;
/* Loads all of a folder, in order of name: NAME/1/model.onnx, NAME/model.onnx and NAME.onnx. Models that fail are kept
 * as UNAVAILABLE and logged. Errors: IO when the folder can't be read, NOT_FOUND when it holds no model at all. */
enum qd_status qd_repository_add_directory(struct qd_repository *repository, const char *path,
                                           struct qd_error *error) QD_MUST_CHECK;

/* `length` bytes of a name; NULL when unknown. The entry lives as long as the repository. */
struct qd_model_entry *qd_repository_find(struct qd_repository *repository, const char *name, size_t length);
size_t qd_repository_count(const struct qd_repository *repository);
struct qd_model_entry *qd_repository_at(struct qd_repository *repository, size_t i);
/* True when no model is LOADING and at least one is READY. */
bool qd_repository_ready(const struct qd_repository *repository);
const struct qd_engine *qd_repository_engine(const struct qd_repository *repository);

/* What one request took, in nanoseconds. */
struct qd_request_times {
    uint64_t total, queue, input, infer, output;
};

/* Counts a request that was answered; `rows` = size of its first dimension, `runs` = 1 for the first of joined
 * requests, 0 for the others. */
void qd_model_stats_success(struct qd_model_stats *stats, uint64_t rows, uint64_t runs,
                            const struct qd_request_times *times);
void qd_model_stats_fail(struct qd_model_stats *stats, uint64_t total_ns);

#endif
