/* Calibration: representative requests run in full precision, ranges are estimated from what their tensors looked like
 * and served frozen. Also ranges given from outside. Part of the engine's public header, engine/engine.h.
 * Methods: docs/QUANTIZATION.md, section 11. Memory: 64 KiB for each site, whatever the number of requests. */
#ifndef QD_ENGINE_CALIBRATE_H
#define QD_ENGINE_CALIBRATE_H

#include "base/status.h"
#include "engine/quant/estimate.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qd_model;
struct qd_infer;
struct qd_calibration; /* what was seen so far; reference counted; keeps its model */

/* "minmax", "ema", "percentile", "entropy", "mse"; NULL out of range. [any] */
const char *qd_method_name(enum qd_method method);
bool qd_method_from(const char *name, enum qd_method *out);

/* For the plan in force. Errors: INVALID (it has no site), NO_MEMORY. [loop] */
enum qd_status qd_calibration_create(struct qd_model *model, struct qd_calibration **out,
                                     struct qd_error *error) QD_MUST_CHECK;
struct qd_calibration *qd_calibration_ref(struct qd_calibration *calibration); /* [any] */
void qd_calibration_unref(struct qd_calibration **calibration);                /* clears the pointer [any] */
/* Makes a request a calibrating one: it runs in full precision, its answer is the exact one, and the model learns
 * nothing else from it. Before qd_infer_prepare, or INVALID. One that fails may have been seen in part. [loop] */
enum qd_status qd_infer_calibrate(struct qd_infer *infer, struct qd_calibration *calibration,
                                  struct qd_error *error) QD_MUST_CHECK;
/* Requests that were finished. [loop] */
uint64_t qd_calibration_requests(const struct qd_calibration *calibration);

/* Ranges from all that was seen. Slow for QD_METHOD_MSE (some 50 ms a site). Errors: CONFLICT (nothing seen yet),
 * INVALID (percentile outside 50..100). [worker, alone] */
enum qd_status qd_calibration_estimate(struct qd_calibration *calibration, enum qd_method method, double percentile,
                                       struct qd_error *error) QD_MUST_CHECK;
/* Serves the estimated ranges as a frozen epoch. *set: sites that got a range; *unset: sites without (bodies of control
 * flow, tensors no request made), which go on by what they have. Errors: CONFLICT (nothing estimated), NO_MEMORY, then
 * nothing has changed. [loop] */
enum qd_status qd_calibration_publish(struct qd_calibration *calibration, size_t *set, size_t *unset,
                                      struct qd_error *error) QD_MUST_CHECK;

/* One tensor's range, from outside. */
struct qd_range_setting {
    const char *tensor;
    double lo, hi;   /* finite, lo <= hi */
    uint64_t weight; /* observations it counts as when learning goes on; at least 1 */
};

/* Serves these ranges as a frozen epoch; other sites keep what they have. Tensors that are no site of the plan in force
 * are passed over; *set counts the others. Errors: INVALID, NO_MEMORY, then nothing has changed. [loop] */
enum qd_status qd_model_ranges_freeze_at(struct qd_model *model, const struct qd_range_setting *settings, size_t count,
                                         size_t *set, struct qd_error *error) QD_MUST_CHECK;

#endif
