/* What automatic mixed precision knows of a model's layers, over all plans it has had. Private to the engine folder;
 * the outside is engine/mixed.h, the arithmetic engine/quant/budget.h. */
#ifndef QD_ENGINE_MIXED_IMPL_H
#define QD_ENGINE_MIXED_IMPL_H

#include "engine/model.h"
#include "engine/quant/budget.h"

/* Most layers whose error in the answer one shadow run measures: so many where a run in FP32 takes no time to speak of,
 * two where it does. */
#define QD_PROBES 8

/* Inputs of a layer whose conversion is timed: the first so many. */
#define QD_TIMED_INPUTS 4

/* What one shadow run found of a step that computes in integers. */
struct qd_layer_found {
    struct qd_squares squares;     /* the layer alone, on the inputs it has in FP32 */
    double us, fp32_us;            /* its time then, and that of the step in FP32; 0: not measured */
    double float_us;               /* more when it writes floats instead of bytes */
    double in_us[QD_TIMED_INPUTS]; /* of making its inputs' integers; 0: it takes them as they are */
};

/* One layer, by name, since it was first measured in INT8. */
struct qd_mixed_layer {
    char *node;
    struct qd_squares alone;  /* sums over shadow runs */
    struct qd_squares answer; /* of the answer, everything else in FP32 ... */
    double cosine;            /* ... and the sum of 1 - cosine, over so many runs: */
    uint64_t probed;
    /* Times in INT8, in FP32, of writing floats, and of making its inputs' bytes: all of the one shadow run in which
     * they were least, for requests differ in size. 0: none. */
    double us, fp32_us, float_us, in_us[QD_TIMED_INPUTS];
    bool rows; /* in INT8 it reads rows by their own ranges */
    bool fell, settled;
};

struct qd_mixed {
    struct qd_budget budget;
    enum qd_budget_verdict verdict; /* of the last observation, until it is decided on */
    double target_cosine, target_sqnr_db;
    bool dear;      /* the default target costs too much: QD_TARGET_COSINE_DEAR is in force */
    unsigned held;  /* requests not looked at yet: biases were still to be corrected */
    unsigned timed; /* runs in which steps in FP32 were timed */
    double fp32_us; /* of the last run, whole */
    uint32_t plan;  /* the digest of what was observed */
    size_t count, room;
    struct qd_mixed_layer *layers;
};

/* One request's result, for the model's plan in force. */
struct qd_mixed_found {
    double cosine, fp32_us;
    struct qd_squares answer;
    const struct qd_layer_found *layers; /* [step_count] */
    struct {
        int step;
        double cosine;
        struct qd_squares answer;
    } probes[QD_PROBES];
    int probe_count;
};

/* A 16-bit integer of a float takes this many times a byte's time: six bytes move, not five. */
#define QD_WORDS_TIME 1.2

/* The tensors between layers, as the budget counts conversions of them: fills in layers[i].tensors, in the arena.
 * Layer i is step steps[i] of the plan, records[i] is its record. False: out of memory. */
bool qd_mixed_link(const struct qd_plan *plan, struct qd_budget_layer *layers, const int *steps,
                   const struct qd_mixed_layer *const *records, size_t count, struct qd_arena *arena);

/* Steps (of model->plan, into *steps) whose error in the answer is to be measured next; returns how many, at most
 * QD_PROBES. [loop] */
int qd_mixed_next(struct qd_model *model, int steps[QD_PROBES]);
/* Are FP32's steps to be timed as well? [loop] */
bool qd_mixed_wants_times(const struct qd_model *model);
/* Adds what was found, while the model has a target. Out of memory: a layer is left out. [loop] */
void qd_mixed_fold(struct qd_model *model, const struct qd_mixed_found *found);
void qd_mixed_free(struct qd_mixed **mixed);

#endif
