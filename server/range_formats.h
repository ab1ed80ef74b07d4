/* Ranges as others write them: quantd's own table, ONNX Runtime's calibration data, PyTorch observers' state and
 * TensorFlow's fake_quant arguments, all JSON by tensor name. Not for QDQ models (engine/export.h).
 * Documented with what reads them in docs/EXPORT.md. */
#ifndef QD_SERVER_RANGE_FORMATS_H
#define QD_SERVER_RANGE_FORMATS_H

#include "engine/engine.h"
#include "server/text.h"

#include <jansson.h>

enum qd_range_format { QD_RANGES_QDQ, QD_RANGES_QUANTD, QD_RANGES_ORT, QD_RANGES_TORCH, QD_RANGES_TF };

/* "qdq", "quantd", "ort-calibration", "torch", "tf". False: unknown. [any] */
bool qd_range_format_from(const char *name, enum qd_range_format *out);

/* Appends the ranges of the export's epoch in a format other than QDQ. Errors: CONFLICT when no tensor has a range.
 * [any] */
enum qd_status qd_range_format_write(struct qd_text *out, const struct qd_export *export, enum qd_range_format format,
                                     struct qd_error *error) QD_MUST_CHECK;

struct qd_ranges_taken {
    size_t set, taken_back; /* tensors that got a range; that learn again */
    size_t ignored;         /* entries of tensors that no integer step reads here */
};

/* Gives a model the ranges of a document in any of the formats (which, it shows by itself), or of a plain object
 * {TENSOR: [min, max] | {"min", "max"} | {"scale", "zero_point"} | null}; null takes a range back. `cuts` as in
 * engine/given.h. Scale and zero point count before minimum and maximum where they are of the tensor's own type.
 * Errors: INVALID naming the tensor, NOT_FOUND when entries are there but none fits; then nothing has changed. [loop]
 */
enum qd_status qd_range_format_read(const json_t *root, struct qd_model *model, bool cuts,
                                    struct qd_ranges_taken *taken, struct qd_error *error) QD_MUST_CHECK;
/* The same from a file; at most 64 MiB. */
enum qd_status qd_range_format_read_file(const char *path, struct qd_model *model, struct qd_ranges_taken *taken,
                                         struct qd_error *error) QD_MUST_CHECK;

struct qd_repository;
/* The option `ranges`: "NAME=FILE,NAME=FILE", or "FILE" for the only model. Errors: those of the file, NOT_FOUND (a
 * name that is no READY model's). Before the loop runs. */
enum qd_status qd_range_format_start(struct qd_repository *repository, const char *option,
                                     struct qd_error *error) QD_MUST_CHECK;

#endif
