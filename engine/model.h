/* What a loaded model and a request are made of. Private to the engine folder: users see engine/engine.h. */
#ifndef QD_ENGINE_MODEL_H
#define QD_ENGINE_MODEL_H

#include "base/mem.h"
#include "base/ref.h"
#include "engine/engine.h"
#include "engine/onnx/import.h"
#include "engine/plan/exec.h"
#include "engine/plan/team.h"
#include "engine/quant/epoch.h"

struct qd_engine {
    const struct qd_kernels *kernels;
    struct qd_team *team;
    size_t request_bytes;
};

/* Plans that were in force before, with the epochs that are still kept of them. */
#define QD_GENERATIONS_KEPT 4

struct qd_generation {
    struct qd_plan *plan; /* NULL: none */
    struct qd_learner *learner;
};

/* Sums over shadow runs: squares of what FP32 gives, and of the differences. */
struct qd_squares {
    double signal, noise;
};

/* 10 log10(signal / noise); NaN without a signal, infinity without noise. */
double qd_squares_db(const struct qd_squares *squares);

/* What shadow runs have found since the plan came into force. */
struct qd_accuracy {
    uint64_t sampled, rows, agreed;
    double cosine_sum, cosine_min;
    struct qd_squares answer, *layers; /* [step_count] */
};

struct qd_means; /* of INT8 layers' inputs, by channel (engine/correct.c) */

/* The means that one request shows; look() of the probe gets it back. */
struct qd_averaging {
    struct qd_probe probe;  /* first */
    uint64_t number;        /* of the request: which of its rows is kept */
    float **mean, **sample; /* [step_count] in the request's arena; NULL: not seen */
};

struct qd_model {
    struct qd_ref ref;
    struct qd_engine *engine;        /* borrowed */
    struct qd_quant_options options; /* a copy of its own */
    unsigned smoothing_tried;        /* QD_SMOOTHED_..., not to be tried again by itself [loop] */
    char *name;
    struct qd_file file;            /* mapped, or bytes == NULL when the bytes are the caller's */
    struct qd_externals *externals; /* of a model from a file */
    size_t file_bytes;
    struct qd_text bytes; /* the ONNX file's, mapped or the caller's */
    struct qd_graph *graph;
    struct qd_io *inputs, *outputs; /* in the graph's arena */
    struct qd_plan *plan;
    struct qd_plan *plan_fp32; /* compiled when first asked for, under the lock */
    unsigned watched;          /* shadow runs for the target in force */
    pthread_mutex_t fp32_lock;
    struct qd_choice *choices; /* times of layers, taken once; under the next lock */
    int choice_count;
    pthread_mutex_t choices_lock;
    struct qd_learner *learner;  /* [loop] */
    struct qd_accuracy accuracy; /* [loop] */
    struct qd_means *means;      /* [loop] */
    struct qd_mixed *mixed;      /* [loop] NULL: never had a target */
    float *utilization;          /* [site_count] of the last request; [loop] */
    uint64_t *step_macs;         /* [qd_plan_all_steps] at the signature's shape; in the plan's arena */
    struct qd_generation older[QD_GENERATIONS_KEPT]; /* the latest first; [loop] */
};

struct qd_infer {
    struct qd_model *model; /* a reference */
    struct qd_infer_options options;
    struct qd_epoch *epoch; /* a reference */
    enum qd_guard guard;    /* of the model's options when the request was made, as is the next */
    double guard_tolerance;
    struct qd_plan *base; /* a reference: the plan its epoch belongs to */
    struct qd_plan *plan; /* a reference: the one it runs under, `base` or the one in full precision */
    struct qd_shaped *shaped;
    struct qd_arena *arena;
    struct qd_tensor *inputs; /* [input_count] dtype QD_NONE: not given */
    struct qd_lane lane;
    struct qd_plan *twin_plan; /* of the guard `escalate`, else NULL: references to what answers in FP32 ... */
    struct qd_shaped *twin_shaped;
    struct qd_lane twin;                /* ... and its lane, bound when a guard event asks for it */
    struct qd_calibration *calibration; /* a reference, or NULL */
    struct qd_observation *seen;        /* [calibration's sites] of this request */
    struct qd_tap tap;
    struct qd_averaging averaging;
    uint64_t deadline_ns;
    bool averages; /* its inputs' means are wanted */
    bool prepared, ran, finished;
    bool escalated; /* the answer is the twin's */
};

/* The plan in full precision, made at the first call: a reference. [any] */
enum qd_status qd_model_plan_fp32(struct qd_model *model, struct qd_plan **out, struct qd_error *error) QD_MUST_CHECK;
/* Checks options; errors as qd_change_create's. */
enum qd_status qd_options_check(const struct qd_quant_options *options, struct qd_error *error) QD_MUST_CHECK;
/* With copies of its lists and their names, which qd_options_free frees and empties. Errors: NO_MEMORY, then *out has
 * no lists. */
enum qd_status qd_options_copy(const struct qd_quant_options *from, struct qd_quant_options *out,
                               struct qd_error *error) QD_MUST_CHECK;
void qd_options_free(struct qd_quant_options *options);
/* A plan for these options, layers chosen by time when the precision is auto; *macs lies in its arena. [any] */
enum qd_status qd_model_compile(struct qd_model *model, const struct qd_quant_options *options, struct qd_plan **plan,
                                uint64_t **macs, struct qd_error *error) QD_MUST_CHECK;
/* The mapped weights leave the resident set until they are read again. [any] */
void qd_model_release_weights(struct qd_model *model);
/* The site of a tensor of that name; -1: none. */
int qd_site_named(const struct qd_plan *plan, const char *name);
/* An entry as the learner keeps it; its tensor is not read. Errors: INVALID. */
enum qd_status qd_given_read(const struct qd_range_given *entry, bool symmetric, struct qd_given *out,
                             struct qd_error *error) QD_MUST_CHECK;
/* A calibrating request's values go into its calibration as it runs: makes infer->tap for infer->plan. [worker] */
enum qd_status qd_calibration_tap(struct qd_infer *infer, struct qd_error *error) QD_MUST_CHECK;
/* Counts the request and folds its bounds into the moving averages. [loop] */
void qd_calibration_fold(struct qd_infer *infer);
/* NULL: out of memory. */
struct qd_means *qd_means_create(const struct qd_plan *plan);
void qd_means_destroy(struct qd_means **means);
void qd_means_reset(struct qd_means *means); /* to nothing seen [loop] */
/* Fresh means take what `old` has learned of the same layers, by name. [loop] */
void qd_means_continue(struct qd_means *means, const struct qd_plan *plan, struct qd_means *old,
                       const struct qd_plan *old_plan);
/* What is smoothed: columns of rows, channels. */
enum { QD_SMOOTHED_ROWS = 1, QD_SMOOTHED_CHANNELS = 2 };
/* Has enough been averaged to smooth by: columns of rows, or channels? */
bool qd_means_enough(const struct qd_means *means, bool rows);
/* Of a step that reads rows, or of a depthwise convolution; false: not seen. */
struct qd_columns_seen {
    const float *largest, *square; /* [columns] averages: of the largest magnitude in a request, of the squares */
    const float *samples;          /* [sample_count][columns] rows, of a request each; none of channels */
    int sample_count;
};
bool qd_means_columns(const struct qd_means *means, const struct qd_plan *plan, int step, struct qd_columns_seen *out);
/* Is the next request to be averaged? [loop] Its lane, bound: looks from now on. [worker] Folds what it saw, unless
 * `seen` (by site) is far from the ranges learned before. [loop] */
bool qd_means_wanted(const struct qd_model *model);
void qd_averaging_begin(struct qd_averaging *averaging, struct qd_lane *lane);
void qd_means_fold(struct qd_model *model, const struct qd_averaging *averaging, const struct qd_observation *seen);
/* Are these biases in force, and is it yet to be seen whether answers are better by them? [loop] */
bool qd_correction_is_tried(const struct qd_model *model, const struct qd_biases *biases);
/* The error of one request's answer with these biases, and with each layer's own. [loop] */
void qd_correction_compare(struct qd_model *model, const struct qd_biases *biases, double with, double without);
struct qd_range_rules qd_range_rules_of(const struct qd_quant_options *options);
enum qd_status qd_model_learner(const struct qd_quant_options *options, const struct qd_plan *plan,
                                struct qd_learner **out) QD_MUST_CHECK;

#endif
