/* Running a plan: lanes (requests) go through the steps side by side, never joined in memory, so no lane can change
 * another's bytes. The guard and the warm-up redo a site's step with a lane's own scale; nothing of that is visible to
 * other lanes. [worker] */
#ifndef QD_ENGINE_PLAN_EXEC_H
#define QD_ENGINE_PLAN_EXEC_H

#include "engine/plan/plan.h"
#include "engine/quant/epoch.h"

struct qd_lane;

/* Looks at a lane right after one of its operators or linear steps has run. */
struct qd_probe {
    void (*look)(struct qd_probe *probe, const struct qd_lane *lane, const struct qd_step *step);
};

struct qd_exec_rules {
    enum qd_guard_action action; /* of sites whose readers' rules say nothing; `asked`: of all */
    double tolerance;            /* share of the width in force */
    bool asked;
    bool own; /* each tensor by its own range, unless one was given */
};

/* Looks at the tensors of a request as soon as each is there. [worker] */
struct qd_tap {
    const int *wanted; /* [slot_count] what `see` gets for the slot; -1: not wanted */
    void (*see)(void *ctx, int wanted, const struct qd_tensor *tensor);
    void *ctx;
};

/* One request on its way through a plan. The caller fills the first part. */
struct qd_lane {
    struct qd_plan *plan;     /* borrowed */
    struct qd_shaped *shaped; /* borrowed */
    struct qd_epoch *epoch;   /* borrowed; NULL for a plan without sites */
    struct qd_exec_rules rules;
    struct qd_probe *probe;   /* borrowed; NULL: none */
    const struct qd_tap *tap; /* borrowed, or NULL; slots of bodies are not seen */
    struct qd_arena *arena;   /* of the request: lane arrays, and tensors whose shape depends on data */
    /* its own */
    unsigned char *workspace; /* from the plan's set */
    size_t workspace_bytes;
    /* results */
    enum qd_status status;
    struct qd_error error;
    const struct qd_site_params *params; /* [site_count] the epoch's */
    struct qd_observation *observations; /* [site_count] */
    uint32_t *guarded;                   /* [site_count] guard events */
    struct qd_qparams *qparams;          /* [site_count] in force for this lane */
    float *utilization;                  /* [site_count] share of the integers' span between the observed min and max */
    struct qd_tensor *slots;             /* [slot_count] */
    void *scratch;                       /* shared by the lane's static steps */
    size_t taken_bytes;                  /* of the plan's request_bytes */
    uint64_t iterations;                 /* of loops, bodies included */
    uint64_t deadline_ns;                /* CLOCK_MONOTONIC, looked at between iterations; 0: none */
};

/* What the guard does at a site of the lane's plan. */
static inline enum qd_guard_action qd_lane_guard(const struct qd_lane *lane, int site)
{
    const int rule = lane->rules.asked ? -1 : lane->plan->sites[site].guard;
    return rule < 0 ? lane->rules.action : (enum qd_guard_action)rule;
}
/* Makes the lane's arrays in its arena, takes a workspace and binds the inputs (by graph.inputs; dtype QD_NONE = the
 * default's). Errors: NO_MEMORY. The caller releases the lane in any case. */
enum qd_status qd_lane_bind(struct qd_lane *lane, const struct qd_tensor *inputs, struct qd_error *error) QD_MUST_CHECK;
/* Gives the workspace back; the lane's tensors are gone with it. */
void qd_lane_release(struct qd_lane *lane);
/* The same for a body of control flow: its sites are the parent's from site_base on, and its memory counts on top of
 * lane->taken_bytes, which the caller has set. */
enum qd_status qd_lane_bind_body(struct qd_lane *lane, const struct qd_lane *parent, int site_base,
                                 const struct qd_tensor *inputs, struct qd_error *error) QD_MUST_CHECK;
/* Memory of the request's arena that counts; NULL when the request may not have more. */
void *qd_lane_take(struct qd_lane *lane, size_t bytes);
/* Runs bound lanes of one plan. Outcomes are in lane->status. */
void qd_exec_run(struct qd_lane *const *lanes, size_t count);

#endif
