/* What a plan decides before it places anything: which units run in integers, which tensors lie channels last, which
 * are handed over as integers only. Not for making slots and steps (engine/plan/place.c). */
#ifndef QD_ENGINE_PLAN_FORMS_H
#define QD_ENGINE_PLAN_FORMS_H

#include "engine/ops/round_trip.h"
#include "engine/plan/fuse.h"
#include "engine/plan/plan.h"

struct qd_forms {
    /* of each unit */
    const struct qd_op **ops;
    bool *int8;          /* a linear unit in INT8, or an operator that asked for integers and gets them */
    bool *int16;         /* a linear unit in 16 bits: it reads s16 */
    bool *fake;          /* a unit that int8 says, but on floats: those its integers would stand for */
    bool *rows;          /* a linear unit in INT8 whose input is quantized row by row, or an operator that does so */
    bool *real;          /* an operator that could pass integers on is pinned to FP32 */
    unsigned *wants;     /* inputs that such an operator asked for, a bit each */
    bool *pinned;        /* its precision was given */
    bool *given;         /* a linear unit that the file itself quantizes */
    bool *takes_over;    /* a RoundTrip whose input is written by its scale at once, by whoever makes it */
    bool *channels_last; /* it writes channels last */
    const char **reason; /* of the precision */
    /* of each value */
    int *rank;                          /* of a channels-last tensor; 0: it lies plain */
    bool *only_q8;                      /* every reader takes integers, and one wants them */
    const struct qd_round_trip **fixed; /* how the file makes integers of it, or NULL */
    bool *faked;                        /* a unit in fake quantization reads its integers, or what is made of them */
};

/* Arrays in the plan's arena. Errors: UNSUPPORTED naming a node without an operator, NO_MEMORY. */
enum qd_status qd_forms_find(const struct qd_plan *plan, const struct qd_unit *units, int unit_count,
                             struct qd_forms *forms, struct qd_error *error) QD_MUST_CHECK;

/* Constants among a node's inputs, for packing; NULL where an input is none. NULL: out of memory. */
const struct qd_tensor **qd_forms_constants(const struct qd_plan *plan, const struct qd_node *node);

#endif
