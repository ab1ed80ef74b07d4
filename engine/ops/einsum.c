/* Einsum: sums of products over named dimensions, any number of inputs up to the limit below, with ellipses and
 * repeated letters (diagonals). One plain loop nest in a fixed order: right for every equation, not made for large
 * products (exporters write those as MatMul). */
#include "engine/ops/helpers.h"

#include <string.h>

#define MAX_TERMS    8
#define MAX_PRODUCTS ((int64_t)1 << 34) /* a minute or two: more is no model, but a trap */
/* Letters, then the dimensions an ellipsis stands for, from the last backwards. */
#define MAX_LABELS (52 + QD_MAX_RANK)

struct plan {
    int terms, labels; /* labels in order of the loops: the output's first, then the summed ones */
    int outer;         /* how many of them are the output's */
    int64_t dims[MAX_LABELS];
    int64_t strides[MAX_TERMS][MAX_LABELS];
    struct qd_shape out;
};

static int letter_of(char c) { return c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= 'A' && c <= 'Z' ? c - 'A' : -1; }

/* One term's labels, one for each of `rank` dimensions; rank < 0: as many as there are, `dots` for an ellipsis. Returns
 * their number, -1 for nonsense. */
static int read_term(const char *text, size_t length, int rank, int dots, int labels[QD_MAX_RANK])
{
    int letters = 0, count = 0, dotted = 0;
    for (size_t i = 0; i < length; i++)
        letters += letter_of(text[i]) >= 0;
    if (rank >= 0)
        dots = rank - letters;
    for (size_t i = 0; i < length; i++) {
        if (text[i] == ' ')
            continue;
        if (letter_of(text[i]) >= 0) {
            if (count >= QD_MAX_RANK)
                return -1;
            labels[count++] = letter_of(text[i]);
        } else if (i + 2 < length && text[i] == '.' && text[i + 1] == '.' && text[i + 2] == '.' && !dotted++) {
            for (int d = dots - 1; d >= 0; d--) {
                if (count >= QD_MAX_RANK)
                    return -1;
                labels[count++] = 52 + d;
            }
            i += 2;
        } else {
            return -1;
        }
    }
    return rank >= 0 && count != rank ? -1 : count;
}

struct reading {
    int labels[MAX_TERMS][QD_MAX_RANK];
    int64_t dims[MAX_LABELS]; /* -1: not met */
    int met[MAX_LABELS];      /* how often a letter was met in the inputs */
    int dots;                 /* dimensions of the widest ellipsis */
};

/* Reads the inputs' terms; false when they don't fit the inputs. *rest: what stands behind them. */
static bool read_inputs(const struct qd_call *call, struct qd_text equation, struct reading *r, struct qd_text *rest)
{
    size_t at = 0;
    for (int i = 0; i < MAX_LABELS; i++) {
        r->dims[i] = -1;
        r->met[i] = 0;
    }
    r->dots = 0;
    for (int t = 0; t < call->in_count; t++) {
        size_t from = at;
        const struct qd_shape *shape = &call->in[t].shape;
        while (at < equation.length && equation.bytes[at] != ',' && equation.bytes[at] != '-')
            at++;
        if (read_term(equation.bytes + from, at - from, shape->rank, 0, r->labels[t]) < 0)
            return false;
        for (int d = 0; d < shape->rank; d++) {
            int label = r->labels[t][d];
            bool ellipsis = label >= 52;
            if (r->dims[label] >= 0 && r->dims[label] != shape->dims[d] && shape->dims[d] != 1 && r->dims[label] != 1)
                return false;
            r->dims[label] = r->dims[label] < 0 || r->dims[label] == 1 ? shape->dims[d] : r->dims[label];
            r->met[label]++;
            r->dots = ellipsis && label - 52 + 1 > r->dots ? label - 52 + 1 : r->dots;
        }
        bool more = at < equation.length && equation.bytes[at] == ',';
        if (more != (t + 1 < call->in_count))
            return false;
        at += more;
    }
    *rest = (struct qd_text){equation.bytes + at, equation.length - at};
    return true;
}

/* The output's labels, given or (without an arrow) all letters met once, in alphabetical order. */
static int read_output(const struct reading *r, struct qd_text rest, int labels[QD_MAX_RANK])
{
    int count = 0;
    if (rest.length >= 2 && rest.bytes[0] == '-' && rest.bytes[1] == '>')
        return read_term(rest.bytes + 2, rest.length - 2, -1, r->dots, labels);
    for (int d = r->dots - 1; d >= 0; d--)
        labels[count++] = 52 + d;
    for (int i = 0; i < 52; i++)
        if (r->met[i] == 1) {
            if (count >= QD_MAX_RANK)
                return -1;
            labels[count++] = i;
        }
    return rest.length ? -1 : count;
}

static bool make_plan(const struct qd_call *call, struct plan *plan)
{
    const struct qd_attr *equation = qd_attr_find(call->node, "equation");
    struct reading r;
    struct qd_text rest;
    int order[MAX_LABELS], out[QD_MAX_RANK];
    memset(plan, 0, sizeof *plan);
    if (!equation || equation->type != QD_ATTR_STRING || !read_inputs(call, equation->s, &r, &rest))
        return false;
    int outer = read_output(&r, rest, out);
    bool seen[MAX_LABELS] = {false};
    for (int i = 0; i < outer; i++) {
        if (seen[out[i]] || r.dims[out[i]] < 0)
            return false;
        seen[out[i]] = true;
        order[plan->labels++] = out[i];
        plan->out.dims[i] = r.dims[out[i]];
    }
    for (int i = 0; i < MAX_LABELS; i++)
        if (r.dims[i] >= 0 && !seen[i])
            order[plan->labels++] = i;
    if (outer < 0)
        return false;
    plan->out.rank = plan->outer = outer;
    plan->terms = call->in_count;
    for (int t = 0; t < plan->terms; t++) {
        int64_t own[QD_MAX_RANK] = {0};
        qd_op_strides(&call->in[t].shape, own);
        for (int d = 0; d < call->in[t].shape.rank; d++)
            for (int l = 0; l < plan->labels; l++)
                if (order[l] == r.labels[t][d] && call->in[t].shape.dims[d] != 1)
                    plan->strides[t][l] += own[d];
    }
    for (int l = 0; l < plan->labels; l++)
        plan->dims[l] = r.dims[order[l]];
    int64_t all = 1;
    for (int l = 0; l < plan->labels; l++)
        if (!qd_i64_mul(all, plan->dims[l], &all) || all > MAX_PRODUCTS)
            return false;
    return true;
}

static enum qd_status infer(const struct qd_call *call, struct qd_error *error)
{
    struct plan plan;
    enum qd_status status = qd_op_inputs(call, 1, MAX_TERMS, error);
    for (int i = 0; i < call->in_count && !status; i++) {
        if (!qd_op_has(call, i))
            return qd_op_fail(call, error, QD_ERR_INVALID, "input %d is missing", i);
        status = qd_op_types(call, i, QD_TYPES_FLOAT, error);
    }
    if (status)
        return status;
    if (!make_plan(call, &plan))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "its equation doesn't fit the inputs, or has too many products");
    return qd_op_out(call, 0, QD_F32, &plan.out, error);
}

struct work {
    const struct qd_call *call;
    struct plan plan;
};

/* The sum over all inner labels, operands at at[]. */
static double sum_at(const struct work *w, const int64_t *first)
{
    const struct plan *p = &w->plan;
    int64_t index[MAX_LABELS] = {0}, at[MAX_TERMS];
    double sum = 0;
    memcpy(at, first, sizeof at);
    for (int l = p->outer; l < p->labels; l++)
        if (p->dims[l] == 0)
            return 0;
    for (;;) {
        double product = 1;
        for (int t = 0; t < p->terms; t++)
            product *= (double)((const float *)w->call->in[t].data)[at[t]];
        sum += product;
        int l = p->labels - 1;
        for (; l >= p->outer; l--) {
            bool wraps = ++index[l] == p->dims[l];
            for (int t = 0; t < p->terms; t++)
                at[t] += wraps ? -(p->dims[l] - 1) * p->strides[t][l] : p->strides[t][l];
            if (!wraps)
                break;
            index[l] = 0;
        }
        if (l < p->outer)
            return sum;
    }
}

static void part(void *ctx, int64_t begin, int64_t end)
{
    const struct work *w = ctx;
    const struct plan *p = &w->plan;
    for (int64_t i = begin; i < end; i++) {
        int64_t at[MAX_TERMS] = {0}, rest = i;
        for (int l = p->outer - 1; l >= 0; l--) {
            for (int t = 0; t < p->terms; t++)
                at[t] += rest % p->dims[l] * p->strides[t][l];
            rest /= p->dims[l];
        }
        ((float *)w->call->out[0].data)[i] = (float)sum_at(w, at);
    }
}

static enum qd_status run(const struct qd_call *call, struct qd_error *error)
{
    struct work work = {.call = call};
    if (!make_plan(call, &work.plan))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "its equation doesn't fit the inputs, or has too many products");
    qd_op_split(call, qd_tensor_elems(&call->out[0]), 64, part, &work);
    return QD_OK;
}

const struct qd_op qd_op_einsum = {.infer = infer, .run = run};
