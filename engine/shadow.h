/* The error against FP32, measured on served requests: a copy of a request is run once more in full precision, aside;
 * the answers are compared, and each integer layer is given the real inputs it would have had in FP32. Part of the
 * installed interface, by engine/engine.h. Which requests, and when: the caller's. */
#ifndef QD_ENGINE_SHADOW_H
#define QD_ENGINE_SHADOW_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct qd_infer;
struct qd_model;
struct qd_shadow;

/* Copies inputs and answer of a request that was served in INT8. Errors: INVALID when it was not, NO_MEMORY. [loop] */
enum qd_status qd_shadow_create(const struct qd_infer *infer, struct qd_shadow **out,
                                struct qd_error *error) QD_MUST_CHECK;
/* The run in FP32 (the first compiles that plan) and the comparison. Never uses the engine's other threads. [any] */
void qd_shadow_run(struct qd_shadow *shadow);
/* Adds what was found to the model's figures, unless its plan is another by now. Clears the pointer. [loop] */
void qd_shadow_finish(struct qd_shadow **shadow);

struct qd_accuracy_report {
    uint64_t sampled;                 /* requests; 0: the rest says nothing */
    double cosine_mean, cosine_min;   /* of all FP32 outputs of a request together */
    double sqnr_db;                   /* of the answers: 10 log10 (sum of squares / sum of squared errors) */
    uint64_t rows, rows_agreed;       /* rows of the first output with two columns or more; same largest element */
    double top1, top1_low, top1_high; /* share of agreed rows, and Wilson's interval of 95 % */
    size_t layers;
};

struct qd_layer_accuracy {
    const char *node;                  /* lives as long as the plan */
    double int8_us, int16_us, fp32_us; /* as timed while loading; 0: not timed */
    double sqnr_db; /* of the layer alone, on FP32 inputs; NaN: not measured yet, infinity: no error */
};

/* Since the plan came into force. [loop] */
void qd_model_accuracy(const struct qd_model *model, struct qd_accuracy_report *out);
void qd_model_layer_accuracy(const struct qd_model *model, size_t i, struct qd_layer_accuracy *out); /* i < layers */

#endif
