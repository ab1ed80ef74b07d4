/* What finding elementwise programs (pointwise.c) and writing them (pointwise_write.c) share. Private to
 * engine/plan/pointwise*. */
#ifndef QD_ENGINE_PLAN_POINTWISE_IMPL_H
#define QD_ENGINE_PLAN_POINTWISE_IMPL_H

#include "engine/ops/pointwise.h"
#include "engine/plan/pointwise.h"
#include "engine/plan/types.h"

/* The graph under work. Arrays by value know only the values that were there before. */
struct qd_pw_finder {
    struct qd_graph *graph;
    struct qd_arena *arena;
    const struct qd_type *types;
    const int *readers; /* [value_count] inputs that read it; many more where it must stay */
    int (*norms)[2];    /* [node_count] constants made of a batch normalization's parameters; 0: not yet */
    bool out_of_memory;
};

/* A program being written. */
struct qd_pw_writer {
    struct qd_pw_finder *finder;
    struct qd_pointwise_program program;
    int in_count, inputs[QD_POINTWISE_INPUTS]; /* values */
    int made_count, made[QD_POINTWISE_STEPS];  /* values that the nodes so far make */
    int made_at[QD_POINTWISE_STEPS];           /* by which step */
};

/* Appends the steps of a node. False: it has no program, or there is no room; the writer is then of no more use. */
bool qd_pw_write(struct qd_pw_writer *w, int node);

#endif
