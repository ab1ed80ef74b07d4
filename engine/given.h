/* Ranges that are given to a model, by tensor: from a calibration, from a quantized model or a file, or by hand. A
 * tensor with a given range is served by it, whatever the model's mode, and learns nothing; the others go on as they
 * are. */
#ifndef QD_ENGINE_GIVEN_H
#define QD_ENGINE_GIVEN_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qd_model;

struct qd_range_given {
    const char *tensor; /* its name, as qd_model_range reports it; borrowed during the call */
    bool learn;         /* take back what was given: the tensor learns again from where it stopped */
    bool cuts;          /* values outside are cut without a guard event, as other libraries' static models do */
    float scale;        /* above 0: this scale and zero point exactly. 0: made from lo and hi by the model's scheme */
    int32_t zero_point; /* in the tensor's own type: 0..255 for u8, 0 for s8 */
    double lo, hi;      /* finite, lo <= hi; zero is included. Not read with a scale */
};

/* Gives ranges, all or none, and publishes an epoch with them; of two entries for one tensor the later counts. Errors:
 * NOT_FOUND (a tensor that no integer step reads), INVALID (a range or scale that cannot be), NO_MEMORY. [loop] */
enum qd_status qd_model_ranges_set(struct qd_model *model, const struct qd_range_given *entries, size_t count,
                                   struct qd_error *error) QD_MUST_CHECK;
/* What was given to site i of qd_model_ranges' `sites`; false: nothing, it learns. The name lives as long as the plan.
 * [loop] */
bool qd_model_range_given(const struct qd_model *model, size_t i, struct qd_range_given *out);

#endif
