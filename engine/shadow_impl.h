/* What the parts of a shadow run share: engine/shadow.c runs and compares, engine/shadow_layers.c measures single
 * layers. Private to the engine folder. */
#ifndef QD_ENGINE_SHADOW_IMPL_H
#define QD_ENGINE_SHADOW_IMPL_H

#include "engine/mixed_impl.h"

/* Two answers against each other, all FP32 outputs together. */
struct qd_comparison {
    struct qd_squares squares;
    double dot, got; /* for the cosine */
    uint64_t rows, agreed;
};

struct qd_shadow;

/* A lane's probe. The first lane's measures every layer; each other lane is in FP32 but for one layer. */
struct qd_shadow_probe {
    struct qd_probe probe; /* first: look() gets it back */
    struct qd_shadow *shadow;
    int only; /* the step of shadow->plan whose result goes on in place of FP32's; -1: all are measured, none goes on */
    struct qd_comparison answer;
};

struct qd_shadow {
    struct qd_model *model;
    struct qd_plan *plan; /* references, as the next */
    struct qd_epoch *epoch;
    bool widens; /* the guard does not cut */
    double guard_tolerance;
    struct qd_arena *arena, *step_arena; /* of the copies and the lanes; of one layer's measurement */
    struct qd_tensor *inputs, *answers;
    struct qd_layer_found *layers;      /* [step_count] of `plan` */
    int *twins;                         /* [step_count] of the plan in FP32: the step of `plan` that is measured; -1 */
    struct qd_comparison answer, plain; /* the next: what biases that aren't corrected would have answered */
    struct qd_exec_rules rules;         /* of the request */
    double in_us[QD_TIMED_INPUTS];      /* of the layer that is measured */
    bool wants_plain, has_plain;
    struct qd_shadow_probe lanes[1 + QD_PROBES];
    int lane_count;
    double fp32_us;  /* of a lane */
    bool times_fp32; /* each step in FP32 that stands for one of the plan is run once more, to be timed */
    bool measured;
};

/* Processor time of this thread. */
double qd_thread_us(void);
/* Does a step compute in integers, so that it may err? */
bool qd_step_errs(const struct qd_plan *plan, const struct qd_step *step);
/* Which step of the plan stands for each of the plan in FP32: by node and merged nodes. */
void qd_shadow_match(struct qd_shadow *shadow, const struct qd_plan *fp32);
/* qd_probe's look for a lane of the shadow's. [worker] */
void qd_shadow_look(struct qd_probe *probe, const struct qd_lane *lane, const struct qd_step *step);

#endif
