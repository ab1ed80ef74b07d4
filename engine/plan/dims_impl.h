/* What the rules of dims.c and dims_axes.c share. Private to engine/plan/dims*. */
#ifndef QD_ENGINE_PLAN_DIMS_IMPL_H
#define QD_ENGINE_PLAN_DIMS_IMPL_H

#include "engine/plan/dims.h"

#include <string.h>

struct dims_tracer {
    const struct qd_graph *graph;
    struct qd_dims *dims;
    int64_t symbols; /* given out so far */
};

static inline int64_t dims_fresh(struct dims_tracer *t) { return QD_DIM_SYMBOLS - 1 - t->symbols++; }

static inline const struct qd_dims *dims_input(const struct dims_tracer *t, const struct qd_node *node, int i)
{
    static const struct qd_dims unknown = {.rank = -1, .length = -1};
    return i < node->in_count && node->in[i] != QD_NO_VALUE ? &t->dims[node->in[i]] : &unknown;
}

/* The numbers of input i, a list of constants. */
static inline bool dims_numbers(const struct dims_tracer *t, const struct qd_node *node, int i, int64_t *out,
                                int *count)
{
    const struct qd_dims *in = dims_input(t, node, i);
    for (int k = 0; k < in->length; k++)
        if (!qd_dim_known(out[k] = in->list[k]))
            return false;
    *count = in->length;
    return in->length >= 0;
}

/* Axes by attribute or by input 1. */
static inline bool dims_axes_of(const struct dims_tracer *t, const struct qd_node *node, int64_t *axes, int *count)
{
    size_t given;
    const int64_t *list = qd_attr_ints(node, "axes", &given);
    if (!list)
        return dims_numbers(t, node, 1, axes, count);
    if (given > QD_MAX_RANK)
        return false;
    memcpy(axes, list, given * sizeof *axes);
    *count = (int)given;
    return true;
}

static inline void dims_all_fresh(struct dims_tracer *t, struct qd_dims *out, int rank)
{
    out->rank = rank >= 0 && rank <= QD_MAX_RANK ? rank : -1;
    for (int i = 0; i < out->rank; i++)
        out->dims[i] = dims_fresh(t);
}

/* Rules: they fill out->rank and dims, and lists and numbers where they know them; else leave them alone. */
void qd_dims_squeeze(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out);
void qd_dims_unsqueeze(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out);
void qd_dims_shape(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out);
void qd_dims_concat(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out);
void qd_dims_gather(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out);
void qd_dims_range(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out);
void qd_dims_slice(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out);
void qd_dims_split(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out);

#endif
