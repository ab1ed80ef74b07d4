/* What the parts of the contrib pass share: a writer of standard nodes in the place of one contrib node, and the rows
 * of each part. Private to engine/plan/contrib* and
 * qdq.c. After a failure every function does nothing and returns harmless
 * values, so a rewrite reads like a formula; contrib.c looks at the status at its end. */
#ifndef QD_ENGINE_PLAN_CONTRIB_IMPL_H
#define QD_ENGINE_PLAN_CONTRIB_IMPL_H

#include "engine/plan/contrib.h"

#define QD_RW_NEW   (-2) /* as an output: a new value */
#define QD_RW_OPSET 23   /* of the nodes made: the standard's, as this code reads it */

struct qd_rewriter {
    struct qd_graph *graph;
    struct qd_arena *arena;
    struct qd_error *error;
    enum qd_status status;
    struct qd_node node; /* that is being replaced */
    const struct qd_contrib *row;
    struct qd_node *nodes;       /* [room] the graph's new nodes */
    int count, room, value_room; /* value_room: of graph->values */
    int first;                   /* the first node made for `node` */
    bool named;                  /* the name was given to one of them */
    int walked;                  /* parts of sequences that were looked at */
    int looks;                   /* times that the whole graph was searched for ranks */
    struct qd_arena *aside;      /* for those searches, or NULL */
};

struct qd_contrib {
    const char *domain, *op, *main; /* main: the operator that inherits the node's name */
    int least, most;                /* inputs; the first `least` must be there */
    void (*rewrite)(struct qd_rewriter *r);
    int64_t until; /* the opset in which the standard has it itself; 0: never */
};

/* One per part; count behind it. */
extern const struct qd_contrib qd_contrib_fused[], qd_contrib_quantized[], qd_contrib_attention[], qd_contrib_einsum[],
    qd_contrib_flex[], qd_contrib_sequence[];
extern const size_t qd_contrib_fused_count, qd_contrib_quantized_count, qd_contrib_attention_count,
    qd_contrib_einsum_count, qd_contrib_flex_count, qd_contrib_sequence_count;

/* ------------------------------------------------------------------ reading the node */

/* Input or output i; QD_NO_VALUE when absent. qd_rw_need fails when it is absent. */
int qd_rw_in(const struct qd_rewriter *r, int i);
int qd_rw_need(struct qd_rewriter *r, int i);
int qd_rw_out(const struct qd_rewriter *r, int i);
/* Attributes; one of another type is a failure. Texts and lists: NULL when absent. */
int64_t qd_rw_get_int(struct qd_rewriter *r, const char *name, int64_t otherwise);
float qd_rw_get_float(struct qd_rewriter *r, const char *name, float otherwise);
const struct qd_text *qd_rw_get_text(struct qd_rewriter *r, const char *name);
const struct qd_attr *qd_rw_get_list(struct qd_rewriter *r, const char *name, enum qd_attr_type type);
bool qd_rw_text_is(const struct qd_text *text, const char *to);
/* Element type and rank of a value as far as known: QD_NONE, -1. */
enum qd_dtype qd_rw_dtype(struct qd_rewriter *r, int value);
int qd_rw_rank(struct qd_rewriter *r, int value);
/* A dimension that is declared, or of a constant; -1: not known. Negative axes count from the end. */
int64_t qd_rw_dim(const struct qd_rewriter *r, int value, int axis);
/* "OP node 'NAME' <text>". */
void qd_rw_fail(struct qd_rewriter *r, enum qd_status status, const char *format, ...) QD_PRINTF(3, 4);
/* UNSUPPORTED when an input or output i.. that isn't served is there. */
void qd_rw_no_inputs(struct qd_rewriter *r, int from);
void qd_rw_no_outputs(struct qd_rewriter *r, int from);

/* ------------------------------------------------------------------ writing nodes */

/* Appends a node with one output (QD_RW_NEW: a new value) and returns the output; absent inputs at the end are left
 * out. */
int qd_rw_make(struct qd_rewriter *r, const char *op, int out, const int *in, int count);
#define QD_RW(r, op, out, ...)                                                                                         \
    qd_rw_make(r, op, out, (const int[]){__VA_ARGS__}, (int)(sizeof((const int[]){__VA_ARGS__}) / sizeof(int)))
/* Appends a node as it is; a new value. */
bool qd_rw_append(struct qd_rewriter *r, const struct qd_node *node);
int qd_rw_new_value(struct qd_rewriter *r, const char *name);
/* Gives the last node these outputs; QD_RW_NEW becomes a new value. */
void qd_rw_outputs(struct qd_rewriter *r, int *out, int count);
/* Attributes of the last node. qd_rw_keep takes over the contrib node's one of that name, if there. */
void qd_rw_int(struct qd_rewriter *r, const char *name, int64_t i);
void qd_rw_float(struct qd_rewriter *r, const char *name, float f);
void qd_rw_ints(struct qd_rewriter *r, const char *name, const int64_t *ints, size_t count);
void qd_rw_text(struct qd_rewriter *r, const char *name, const char *text);
void qd_rw_keep(struct qd_rewriter *r, const char *name);
/* Constants: a list of ints (rank 1), one int (scalar), one float, one zero of 8 bits. */
int qd_rw_list(struct qd_rewriter *r, const int64_t *ints, size_t count);
#define QD_RW_LIST(r, ...)                                                                                             \
    qd_rw_list(r, (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))
int qd_rw_one_int(struct qd_rewriter *r, int64_t i);
int qd_rw_one_float(struct qd_rewriter *r, float f);
int qd_rw_zero(struct qd_rewriter *r, enum qd_dtype dtype);
/* From another graph: a value (a new one, with what it is), and a node whose values `map` gives. */
int qd_rw_copy_value(struct qd_rewriter *r, const struct qd_value *value);
void qd_rw_copy_node(struct qd_rewriter *r, const struct qd_node *node, const int *map);
void qd_rw_no_memory(struct qd_rewriter *r);
/* Shorthands. */
int qd_rw_transpose(struct qd_rewriter *r, int x, const int64_t *perm, size_t rank);
int qd_rw_cast(struct qd_rewriter *r, int out, int x, enum qd_dtype to);
/* Dimension `axis` of x: a list of one. */
int qd_rw_size(struct qd_rewriter *r, int x, int64_t axis);

#endif
