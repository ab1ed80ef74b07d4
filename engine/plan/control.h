/* Control flow: If, Loop and Scan. A node with subgraphs ("bodies") becomes a step that owns one plan per body. What a
 * body reads of the graphs around it is made visible first: captured values become inputs of the body and of the node,
 * so that no pass over a graph (liveness, folding, fusing, forms) has to know of bodies. Not for operators. */
#ifndef QD_ENGINE_PLAN_CONTROL_H
#define QD_ENGINE_PLAN_CONTROL_H

#include "engine/plan/exec.h"

#define QD_CONTROL_MAX_BODIES 2

enum qd_control_kind { QD_CONTROL_NONE, QD_CONTROL_IF, QD_CONTROL_LOOP, QD_CONTROL_SCAN };

/* A subgraph whose captured values stand among its inputs, behind the declared ones. */
struct qd_body {
    struct qd_graph graph; /* arrays of its own */
    const char *attr;      /* "then_branch", "body"... */
    int declared;          /* inputs that the file declares */
    int captured_at;       /* node->in[captured_at + i] is what input `declared + i` captures */
};

/* What node->program of an opened control-flow node points to. */
struct qd_bodies {
    int own_inputs; /* of node->in: those of the file */
    int count;
    struct qd_body bodies[QD_CONTROL_MAX_BODIES];
};

/* One body, compiled. */
struct qd_branch {
    struct qd_plan *plan;
    const struct qd_body *body;
    int declared;      /* first inputs of the plan: given anew in each iteration */
    const int *source; /* of the inputs behind them: index into the step's inputs */
    int site_base;     /* its sites among the parent's */
};

/* A control-flow step's own part. */
struct qd_control {
    enum qd_control_kind kind;
    const struct qd_node *node;
    int own_inputs, branch_count;
    struct qd_branch branches[QD_CONTROL_MAX_BODIES];
    struct qd_scan *scan;    /* of a Scan, else NULL */
    struct qd_control *next; /* of the same plan */
};

/* Axes and directions of a Scan, checked when the plan is compiled. */
struct qd_scan {
    int states, inputs, outputs;
    bool batched; /* opset 8: sequence lengths come first, axis 0 is a batch, axis 1 the sequence */
    const int64_t *in_axes, *in_reverse, *out_axes, *out_reverse; /* [inputs], [outputs] */
};

enum qd_control_kind qd_control_kind(const struct qd_node *node);
/* No flags, no functions: how a control-flow node looks where forms are decided. */
extern const struct qd_op qd_control_op;

/* Opens every control-flow node of a graph, at any depth. `graph` has arrays of its own; what is made lies in `arena`.
 * Errors: FORMAT naming the node that lacks a body, NO_MEMORY. */
enum qd_status qd_control_open(struct qd_graph *graph, struct qd_arena *arena, struct qd_error *error) QD_MUST_CHECK;

/* Puts the nodes of one body of an opened If in the place of node `index`, which goes; the body's values get new ids
 * behind the graph's. Errors: FORMAT (an output that the body lacks), NO_MEMORY. */
enum qd_status qd_control_inline(struct qd_graph *graph, int index, int body, struct qd_arena *arena,
                                 struct qd_error *error) QD_MUST_CHECK;

/* Compiles the bodies of an opened node of plan->graph; captured constants become constants of the bodies. The plan
 * owns the result (plan->controls). Errors name the node. */
enum qd_status qd_control_compile(struct qd_plan *plan, const struct qd_node *node, const struct qd_control **out,
                                  struct qd_error *error) QD_MUST_CHECK;
/* Appends the bodies' sites to the plan's own. After placing. Errors: NO_MEMORY. */
enum qd_status qd_control_join_sites(struct qd_plan *plan, struct qd_error *error) QD_MUST_CHECK;
void qd_control_release(struct qd_plan *plan);
/* Whether any body computes in integers. */
bool qd_control_int8(const struct qd_control *control);

/* Types and shapes of a control-flow step's outputs, written to slots[]; QD_ERR_NEEDS_DATA when they show only in
 * running. Also shapes the bodies, whose plans remember it. */
enum qd_status qd_control_infer(const struct qd_step *step, struct qd_tensor *slots,
                                struct qd_error *error) QD_MUST_CHECK;
/* The steps of a plan with those of bodies, each body's behind the step that has it: how many, and the one of an index.
 */
size_t qd_plan_all_steps(const struct qd_plan *plan);
const struct qd_step *qd_plan_any_step(const struct qd_plan *plan, size_t index, const struct qd_plan **owner);
/* Multiply-adds of each of them, of bodies under the shapes they were asked for last; 0 where shapes aren't known. */
void qd_plan_all_macs(const struct qd_plan *plan, const struct qd_shaped *shaped, uint64_t *macs);

/* Runs a control-flow step of a lane and binds its outputs; memory comes from the request's arena and counts as the
 * request's. The outcome is in lane->status. [worker] */
void qd_control_run(struct qd_lane *lane, const struct qd_step *step);

#endif
