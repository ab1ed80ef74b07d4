/* What a model's file asks of the engine, whether it can be served or not; and what a loaded model takes for given
 * shapes of its inputs. Part of the installed interface, by engine/engine.h. Not for running anything. */
#ifndef QD_ENGINE_SURVEY_H
#define QD_ENGINE_SURVEY_H

#include "base/status.h"
#include "engine/ir/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qd_model;

/* One operator of the file, of one domain in one version: how many nodes, bodies of control flow and functions
 * included. */
struct qd_survey_operator {
    const char *domain, *op; /* domain "" is the standard's */
    int64_t opset;           /* the version of its domain that the file imports */
    size_t nodes;
    bool served;       /* the engine knows it; a node may still have a variant that is refused when loading */
    const char *first; /* name of its first node */
};

/* Constants of one element type. */
struct qd_survey_weights {
    size_t tensors;
    uint64_t bytes;
};

struct qd_survey {
    const struct qd_survey_operator *operators;       /* by domain, then by name */
    size_t operator_count, missing_count;             /* missing: those not served */
    size_t nodes;                                     /* of all operators */
    int64_t opset, ir_version;                        /* of the default domain; of the file's format */
    uint64_t file_bytes;                              /* with its external files */
    struct qd_survey_weights weights[QD_DTYPE_COUNT]; /* by enum qd_dtype */
};

/* Reads the file, without compiling it. Errors: those of reading (IO, FORMAT, UNSUPPORTED, NO_MEMORY). [any] */
enum qd_status qd_survey_create(const char *path, struct qd_survey **out, struct qd_error *error) QD_MUST_CHECK;
void qd_survey_destroy(struct qd_survey **survey); /* clears the pointer */

/* What one request of these shapes takes under the model's plan. */
struct qd_shapes_report {
    uint64_t input_bytes, output_bytes; /* output: of those whose shape is known before the run */
    uint64_t workspace_bytes;           /* everything between: activations that share memory, and scratch */
    size_t unknown_steps; /* steps behind the first whose shape depends on data: not in the other figures */
};

/* `shapes`: one of each input, all dimensions known. `step_macs` (may be NULL) gets the multiply-adds of each step of
 * qd_model_plan. Errors: SHAPE naming a node, TOO_LARGE, NO_MEMORY. [any] */
enum qd_status qd_model_at_shapes(struct qd_model *model, const struct qd_shape *shapes, struct qd_shapes_report *out,
                                  uint64_t *step_macs, struct qd_error *error) QD_MUST_CHECK;

#endif
