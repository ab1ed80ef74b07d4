/* A forest of decision trees as it is run, and its way there. Private to engine/ops: trees.c runs it, trees_read.c
 * makes it of attributes. */
#ifndef QD_ENGINE_OPS_TREES_H
#define QD_ENGINE_OPS_TREES_H

#include "engine/ops/classical.h"

enum qd_branch_mode { /* the numbers of TreeEnsemble's nodes_modes */
                      QD_BRANCH_LEQ,
                      QD_BRANCH_LT,
                      QD_BRANCH_GTE,
                      QD_BRANCH_GT,
                      QD_BRANCH_EQ,
                      QD_BRANCH_NEQ,
                      QD_BRANCH_MEMBER,
                      QD_BRANCH_MODES,
};

enum qd_aggregate { /* the numbers of TreeEnsemble's aggregate_function */
                    QD_AGGREGATE_AVERAGE,
                    QD_AGGREGATE_SUM,
                    QD_AGGREGATE_MIN,
                    QD_AGGREGATE_MAX,
                    QD_AGGREGATES,
};

struct qd_branch {
    int32_t feature;
    int32_t yes, no; /* >= 0: a branch; below: leaf ~n */
    union {
        float split;
        uint32_t first_member; /* MEMBER */
    };
    uint32_t member_count;
    uint8_t mode;
    bool missing_yes; /* where NaN goes */
};

struct qd_leaf {
    uint32_t first, count; /* of its weights */
};

struct qd_leaf_weight {
    uint32_t target;
    float weight;
};

/* No branch is reached from more than one other, and no root from any: a walk ends. Every index lies in its table. */
struct qd_forest {
    struct qd_branch *branches;
    struct qd_leaf *leaves;
    struct qd_leaf_weight *weights; /* by leaf, in the file's order */
    const float *members;
    int32_t *roots;
    size_t branch_count, leaf_count, root_count, targets;
    const float *base; /* base values: none, one per target, or one for two classes */
    size_t base_count;
    int32_t last_feature; /* the largest that is asked for; -1: none */
    enum qd_aggregate aggregate;
    enum qd_transform transform;
    struct qd_labels labels; /* count 0: regression; two of them even for one class */
    bool one_class_weighted; /* two classes, weights for one of them only */
    bool weights_positive;
};

enum qd_status qd_trees_infer(const struct qd_call *call, struct qd_error *error);
size_t qd_trees_scratch(const struct qd_call *call);
enum qd_status qd_trees_run(const struct qd_call *call, struct qd_error *error);

#endif
