/* What the parts of pattern finding share: the graph under work with what is known of its values (patterns_facts.c),
 * expressions against nodes (patterns_match.c), the rows of expressions (patterns_table.c), and rewrites that are no
 * expressions (patterns_tidy.c, patterns_move.c). Private to engine/plan/patterns*. */
#ifndef QD_ENGINE_PLAN_PATTERNS_IMPL_H
#define QD_ENGINE_PLAN_PATTERNS_IMPL_H

#include "engine/plan/patterns.h"

struct qd_finder {
    struct qd_graph *graph;
    struct qd_arena *arena;
    int value_room;
    int *alias;            /* [value_room] the value that has taken its place, or itself */
    int *readers;          /* [value_room] inputs that read it; more where it must stay */
    int *producer;         /* [value_room] node, or -1 */
    enum qd_dtype *dtype;  /* [value_room] QD_NONE: not known */
    int *rank, *length;    /* [value_room] -1: not known; length: elements of a tensor of rank 1 */
    bool *removed;         /* [node_count] */
    struct qd_node *extra; /* [node_count] a node that runs right before it; op NULL: none */
    bool out_of_memory;
};

enum { QD_PATTERN_VARS = 26, QD_PATTERN_NODES = 48 };

/* What an expression was bound to: variables a..z are values, or numbers where the expression says @a. */
struct qd_match {
    int vars[QD_PATTERN_VARS]; /* QD_NO_VALUE: not bound */
    double numbers[QD_PATTERN_VARS];
    int nodes[QD_PATTERN_NODES]; /* matched, the root first; each once */
    int node_count;
};

/* ------------------------------------------------------------------ the graph under work (patterns.c) */

/* The value that stands at input i now; QD_NO_VALUE when absent. */
int qd_finder_in(const struct qd_finder *f, const struct qd_node *node, int i);
/* The node that makes a value as its only output, or NULL. */
const struct qd_node *qd_finder_maker(const struct qd_finder *f, int value);
/* A constant of the model (no default of an input) with its data, or NULL. */
const struct qd_tensor *qd_finder_constant(const struct qd_finder *f, int value);
/* The one number of an F32 constant that broadcasts into a tensor of `rank` without raising its rank. */
bool qd_finder_number(const struct qd_finder *f, int value, int rank, double *out);
/* Constant ints at input i. */
bool qd_finder_ints(const struct qd_finder *f, const struct qd_node *node, int i, int64_t *out, size_t room,
                    size_t *count);
/* A new constant; QD_NO_VALUE when there is no room. */
int qd_finder_add(struct qd_finder *f, const struct qd_tensor *tensor);
/* Takes a node out; its inputs lose a reader. */
void qd_finder_remove(struct qd_finder *f, int node);
/* Gives a node another list of inputs; false when memory is out. */
bool qd_finder_set_inputs(struct qd_finder *f, int node, const int *in, int count);
/* The node adds nothing: its output is `value`. False when the output must keep its own tensor. */
bool qd_finder_bypass(struct qd_finder *f, int node, int value);

/* ------------------------------------------------------------------ parts */

/* Types, ranks and lengths of all values, as far as the nodes tell. */
void qd_patterns_facts(struct qd_finder *f);
/* An expression (patterns_match.c says how it reads) against the node and what feeds it; on success every matched node
 * but the root is read by matched nodes only. */
bool qd_patterns_match(const struct qd_finder *f, int node, const char *expression, struct qd_match *match);
/* Each tries to rewrite a node; true when it did. */
bool qd_patterns_table(struct qd_finder *f, int node);
bool qd_patterns_tidy(struct qd_finder *f, int node);
bool qd_patterns_move(struct qd_finder *f, int node);

#endif
