/* What running a Loop and running a Scan share: one body run again and again, values carried from one iteration to the
 * next, outputs handed to the lane. Private to engine/plan. Functions that return false have filled lane->status. */
#ifndef QD_ENGINE_PLAN_CONTROL_RUN_H
#define QD_ENGINE_PLAN_CONTROL_RUN_H

#include "engine/plan/control.h"

/* Iterations of all loops of one request: what bounds its time. A fuzzer under sanitizers should not wait for them. */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
#define QD_MAX_ITERATIONS ((uint64_t)1 << 12)
#else
#define QD_MAX_ITERATIONS ((uint64_t)1 << 20)
#endif

/* A body on its way. Its workspace is used again by each iteration; carried values live in two arenas by turns, so that
 * a value may pass through a body unchanged or change places with another. */
struct qd_body_run {
    struct qd_lane *lane; /* the lane that has the step */
    const struct qd_step *step;
    const struct qd_branch *branch;
    struct qd_shaped *shaped;
    struct qd_tensor *inputs; /* [plan's inputs] the first branch->declared are the caller's to set */
    struct qd_shape *shapes;
    enum qd_dtype *dtypes;
    struct qd_arena *work, *carry[2]; /* NULL in an If, which works in the request's arena */
    size_t carried_bytes[2];
    int turn; /* carry[turn] receives the next values */
    struct qd_lane body;
};

/* Makes the arrays and binds what the body captures. */
bool qd_body_open(struct qd_body_run *run, struct qd_lane *lane, const struct qd_step *step, int branch, bool repeats);
/* One iteration, on run->inputs. */
bool qd_body_run(struct qd_body_run *run);
/* The shapes of run->inputs as the body's: run->shaped. */
bool qd_body_shape(struct qd_body_run *run);
void qd_body_close(struct qd_body_run *run);
/* The body's output after a run; valid until the next. */
const struct qd_tensor *qd_body_output(const struct qd_body_run *run, int output);
/* What is known of an output when the body never ran; dtype QD_NONE: nothing. */
struct qd_tensor qd_body_unrun(const struct qd_body_run *run, int output);
/* Starts a turn: memory of the values before the last is used again. */
void qd_body_turn(struct qd_body_run *run);
/* Copies an output to where the next iteration may read it. `was`: the value before, whose type it must have. */
bool qd_body_carry(struct qd_body_run *run, int output, struct qd_tensor *was);

/* Memory for output `output` of the step, of that type and shape: where the plan has put it, or the request's. An
 * output that nobody reads is passed over by give, and gets memory all the same by make. */
bool qd_control_make(struct qd_lane *lane, const struct qd_step *step, int output, struct qd_tensor *tensor);
bool qd_control_give(struct qd_lane *lane, const struct qd_step *step, int output, const struct qd_tensor *from);
void qd_control_bind(struct qd_lane *lane, const struct qd_step *step, int output, const struct qd_tensor *tensor);
/* Shape of `part` with `count` put in at `axis`; false with a sentence when the rank grows too large. */
bool qd_control_stack_shape(struct qd_lane *lane, const struct qd_step *step, const struct qd_shape *part, int axis,
                            int64_t count, struct qd_shape *out);

/* A Loop's trip count or condition as the body declares it: some exporters write [1] for what the standard has as a
 * scalar. */
void qd_loop_declare(const struct qd_branch *branch, int input, struct qd_tensor *tensor);

void qd_scan_run(struct qd_lane *lane, const struct qd_step *step);

#endif
