/* What rounding the weights costs on average, taken out of the biases while a model serves (docs/QUANTIZATION.md,
 * section 4): INT8 layers' inputs are averaged by channel, on a share of the requests; what the weights' rounding
 * errors make of the averages goes into the biases, as a new epoch. Part of the installed interface, by
 * engine/engine.h. When: the caller's, who is told by qd_model_correction_due. */
#ifndef QD_ENGINE_CORRECT_H
#define QD_ENGINE_CORRECT_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qd_model;
struct qd_correction;

/* The averages have seen enough, or have moved away from those that the biases were made of. [loop] */
bool qd_model_correction_due(const struct qd_model *model);
/* Copies the averages. Errors: NO_MEMORY. [loop] */
enum qd_status qd_correction_create(struct qd_model *model, struct qd_correction **out,
                                    struct qd_error *error) QD_MUST_CHECK;
/* Makes the biases: quantizes the weights once more. [any] */
void qd_correction_run(struct qd_correction *correction);
/* Puts them in force by publishing an epoch, unless the plan is another by now; true when it did. Clears the pointer.
 * [loop] */
bool qd_correction_finish(struct qd_correction **correction);

/* The compared requests say that answers were better without it: it is to be undone. [loop] */
bool qd_model_correction_harms(const struct qd_model *model);
/* Each layer's own bias again, as an epoch; not corrected again under this plan before qd_model_reset. False: out of
 * memory. [loop] */
bool qd_model_correction_undo(struct qd_model *model);

struct qd_correction_report {
    uint64_t requests;    /* whose inputs were averaged, since the plan came into force */
    uint64_t made;        /* how often biases were put in force */
    size_t layers;        /* whose biases are corrected now */
    size_t steps;         /* of the plan */
    uint64_t compared;    /* measured requests that were also answered without the biases in force */
    double with, without; /* their mean 1 - cosine to FP32; NaN: none */
    bool undone;          /* they harmed, and are not made again under this plan */
};

void qd_model_correction(const struct qd_model *model, struct qd_correction_report *out); /* [loop] */

/* What one layer's correction is made of, to be kept over a restart. */
struct qd_layer_correction {
    const char *node;
    uint64_t n; /* requests averaged */
    size_t mean_count, bias_count;
    const float *mean, *bias; /* the model's own until the next call that is [loop]; bias NULL: not corrected */
};

/* False: step i (< steps) has nothing to keep. [loop] */
bool qd_model_layer_correction(const struct qd_model *model, size_t i, struct qd_layer_correction *out);
/* A model without requests goes on from there; layers that don't fit the plan are passed over. The biases come into
 * force with the next epoch: before qd_model_restore. Errors: NO_MEMORY. [loop] */
enum qd_status qd_model_restore_corrections(struct qd_model *model, const struct qd_layer_correction *layers,
                                            size_t count, uint64_t requests, uint64_t made,
                                            struct qd_error *error) QD_MUST_CHECK;

#endif
