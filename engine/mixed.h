/* Mixed precision by itself: from measured errors (engine/shadow.h) and measured times, each layer in int8, int16 or
 * fp32 so that answers are as close to FP32 as target_cosine or target_sqnr_db says, at least cost. The engine decides;
 * the caller makes the plan when it wants to. Part of the installed interface, by engine/engine.h.
 * docs/QUANTIZATION.md, section 10. */
#ifndef QD_ENGINE_MIXED_H
#define QD_ENGINE_MIXED_H

#include "base/status.h"
#include "engine/options.h"

#include <stdbool.h>

struct qd_model;
struct qd_rebalance; /* a decision that is not in force */

struct qd_precision_move {
    const char *node; /* lives as long as the decision */
    enum qd_precision from, to;
    double error;   /* share of the target that the layer was predicted to cost, before less after */
    double cost_us; /* time predicted after, less before */
};

/* The model has a target, and its plan is not known to meet it yet: requests should be measured. [loop] */
bool qd_model_wants_shadow(const struct qd_model *model);
/* Nobody will measure soon: the plan in FP32 is given back once nobody runs it, unless a guard needs it. [loop] */
void qd_model_forget_fp32(struct qd_model *model);

/* After qd_shadow_finish: *out is what to change, or NULL when nothing is. Errors: NO_MEMORY. [loop] */
enum qd_status qd_rebalance_create(struct qd_model *model, struct qd_rebalance **out,
                                   struct qd_error *error) QD_MUST_CHECK;
/* For qd_change_create; borrowed. [any] */
const struct qd_quant_options *qd_rebalance_options(const struct qd_rebalance *rebalance);
/* Why, one phrase; lives as long as the decision. */
const char *qd_rebalance_reason(const struct qd_rebalance *rebalance);
size_t qd_rebalance_moves(const struct qd_rebalance *rebalance);
void qd_rebalance_move(const struct qd_rebalance *rebalance, size_t i, struct qd_precision_move *out); /* i < moves */
/* The change is adopted: without this call the decision is made again later. [loop] */
void qd_rebalance_adopted(struct qd_rebalance *rebalance);
void qd_rebalance_destroy(struct qd_rebalance **rebalance); /* clears the pointer [loop] */

#endif
