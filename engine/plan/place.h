/* Placing: which unit runs in which precision, in which form its tensors lie, and the conversion steps between.
 * Private to engine/plan: fills a plan under construction. */
#ifndef QD_ENGINE_PLAN_PLACE_H
#define QD_ENGINE_PLAN_PLACE_H

#include "engine/plan/fuse.h"
#include "engine/plan/plan.h"

/* Fills plan->slots, steps, sites and output_slots from the units. Errors name the node. */
enum qd_status qd_place(struct qd_plan *plan, const struct qd_unit *units, int unit_count,
                        struct qd_error *error) QD_MUST_CHECK;

/* What the plan's layer is made from. */
struct qd_linear_spec qd_place_spec(const struct qd_plan *plan, const struct qd_unit *unit, bool int8, bool int16);

#endif
