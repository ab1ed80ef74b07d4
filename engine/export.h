/* A model with what it has learned, as a finished quantized ONNX model in QDQ form (QuantizeLinear and DequantizeLinear
 * around INT8 layers), which other engines run. Part of the installed interface, by engine/engine.h. What becomes of
 * which layer: docs/EXPORT.md. */
#ifndef QD_ENGINE_EXPORT_H
#define QD_ENGINE_EXPORT_H

#include "base/status.h"
#include "engine/ir/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qd_model;
struct qd_export;

/* Takes hold of an epoch (0: the one in force) and of the plan it belongs to. Errors: CONFLICT (not kept), NO_MEMORY.
 * [loop] */
enum qd_status qd_export_create(struct qd_model *model, uint64_t epoch, struct qd_export **out,
                                struct qd_error *error) QD_MUST_CHECK;
void qd_export_destroy(struct qd_export **export); /* clears the pointer [any] */

/* Writes the model as one stream of bytes: put() takes them in order and returns false when it can take no more.
 * Quantizes all weights. Errors: CONFLICT (a tensor has no range yet), UNSUPPORTED (opset before 10),
 * TOO_LARGE (a file of this format ends at 2 GiB),
 * IO (put), NO_MEMORY. [any, one thread at a time] */
enum qd_status qd_export_write(struct qd_export *export, bool (*put)(void *user, const void *bytes, size_t size),
                               void *user, struct qd_error *error) QD_MUST_CHECK;

/* What one tensor's integers stand for under the epoch. */
struct qd_export_range {
    const char *name; /* lives as long as the export */
    bool ready;       /* it has a range */
    double lo, hi;    /* that the scale was made from */
    float scale;
    int32_t zero_point, qmin, qmax; /* in dtype's own range */
    enum qd_dtype dtype;            /* QD_U8, QD_I8 or QD_I16 */
};

size_t qd_export_range_count(const struct qd_export *export);                                /* [any] */
void qd_export_range(const struct qd_export *export, size_t i, struct qd_export_range *out); /* [any] */

struct qd_export_report {
    const char *model; /* its name; lives as long as the export */
    uint64_t digest, epoch;
    size_t layers;  /* in INT8 in the file; these four after writing */
    size_t rows;    /* of them, those with integers as weights alone: rows with a scale each have no such form */
    size_t left;    /* in integers here, but in floats in the file */
    size_t tensors; /* between QuantizeLinear and DequantizeLinear */
};

void qd_export_report(const struct qd_export *export, struct qd_export_report *out); /* [any] */

#endif
