/* Expressions against nodes. An expression is a term:
 *   x            any value; the same letter again: the same value
 *   $x           a constant of floats along the last dimension (all others 1), bound to x
 *   @x           one constant number, bound to numbers[x]
 *   #1.5         the constant number 1.5
 *   Op(a,b)      a node of the standard's domain with just these inputs; Add, Mul, Max and Min take them in either
 * order Times(t,c)   t multiplied by the number c, or divided by its reciprocal Clamp(t,c,c) Clip between two numbers,
 * as attributes or inputs; Relu counts as Clamp(t,#0,#inf) Mean(t)      ReduceMean over the last axis that keeps its
 * place; so Total (ReduceSum) and Most (ReduceMax) Sixth(t)     HardSigmoid with alpha 1/6 and beta 1/2 Square(t)... a
 * name of the table below: any of its expressions, with _ for t The first way that fits a part is taken; only the order
 * of operands is tried again. */
#include "engine/plan/patterns_impl.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DEPTH = 64, MOST_ARGUMENTS = 4, MOST_WAYS = 5 };

static const struct {
    const char *name, *ways[MOST_WAYS];
} names[] = {
    {"Square", {"Pow(_,#2)", "Mul(_,_)"}},
    {"Cube", {"Pow(_,#3)", "Mul(_,Square(_))"}},
    {"Root", {"Sqrt(_)", "Pow(_,#0.5)"}},
    {"OverRoot", {"Reciprocal(Root(_))", "Div(#1,Root(_))", "Pow(_,#-0.5)"}},
    {"Cap6", {"Clamp(_,#0,#6)", "Min(Clamp(_,#0,#inf),#6)"}},
    {"Centred", {"Sub(_,Mean(_))"}},
    {"Variance", {"Mean(Square(Centred(_)))", "Sub(Mean(Square(_)),Square(Mean(_)))"}},
    {"Normed", {"Div(Centred(_),Root(Add(Variance(_),@e)))", "Mul(Centred(_),OverRoot(Add(Variance(_),@e)))"}},
    {"Gain", {"Mul(OverRoot(Add(Variance(_),@e)),$g)"}},
    {"Rms", {"Div(_,Root(Add(Mean(Square(_)),@e)))", "Mul(_,OverRoot(Add(Mean(Square(_)),@e)))"}},
    {"ErfHalf", {"Add(Erf(Times(_,#0.70710678)),#1)"}},
    {"TanhArgument",
     {"Times(Add(_,Times(Cube(_),#0.044715)),#0.79788456)",
      "Times(Add(_,Mul(_,Mul(_,Times(_,#0.044715)))),#0.79788456)",
      "Times(Add(_,Mul(Times(_,#0.044715),Square(_))),#0.79788456)",
      "Mul(Times(_,#0.79788456),Add(Times(Square(_),#0.044715),#1))",
      "Times(Mul(_,Add(Times(Square(_),#0.044715),#1)),#0.79788456)"}},
    {"TanhHalf", {"Add(Tanh(TanhArgument(_)),#1)"}},
};

/* What _ stands for. */
struct frame {
    const char *argument;
    const struct frame *up;
};

struct matcher {
    const struct qd_finder *f;
    struct qd_match *m;
    int depth;
};

static bool term(struct matcher *s, int value, int rank, const char *p, const struct frame *frame);

/* The end of the term that starts at p. */
static const char *skip(const char *p)
{
    int open = 0;
    for (; *p; p++) {
        open += *p == '(';
        if (*p == ')' && --open < 0)
            return p;
        if (*p == ',' && open == 0)
            return p;
    }
    return p;
}

/* Terms between the parentheses at p, which stands behind "(". */
static int arguments(const char *p, const char *at[MOST_ARGUMENTS])
{
    int count = 0;
    for (;; p++) {
        if (count < MOST_ARGUMENTS)
            at[count++] = p;
        p = skip(p);
        if (*p != ',')
            return count;
    }
}

static bool named(const char *p, const char *open, const char *name)
{
    return strlen(name) == (size_t)(open - p) && memcmp(p, name, (size_t)(open - p)) == 0;
}

static bool close_to(double a, double b) { return a == b || fabs(a - b) <= 1e-5 * fabs(b); }

/* A number against #c or @x; NaN and infinities are no factors, but an infinite bound is a bound. */
static bool number(struct matcher *s, double value, const char *p)
{
    if (*p == '#')
        return close_to(value, strtod(p + 1, NULL));
    if (*p != '@' || isnan(value))
        return false;
    s->m->numbers[p[1] - 'a'] = value;
    return true;
}

static bool add_node(struct matcher *s, int n)
{
    for (int i = 0; i < s->m->node_count; i++)
        if (s->m->nodes[i] == n)
            return true;
    if (s->m->node_count == QD_PATTERN_NODES)
        return false;
    s->m->nodes[s->m->node_count++] = n;
    return true;
}

static int rank_of(const struct matcher *s, int value) { return value == QD_NO_VALUE ? -1 : s->f->rank[value]; }

static bool inputs(struct matcher *s, const struct qd_node *node, const char *const *at, int count,
                   const struct frame *frame)
{
    static const char *const either[] = {"Add", "Mul", "Max", "Min"};
    bool swaps = false;
    for (size_t i = 0; i < sizeof either / sizeof either[0]; i++)
        swaps = swaps || (count == 2 && strcmp(node->op, either[i]) == 0);
    int in[MOST_ARGUMENTS];
    if (node->in_count != count)
        return false;
    for (int i = 0; i < count; i++)
        in[i] = qd_finder_in(s->f, node, i);
    for (int order = 0; order < (swaps ? 2 : 1); order++) {
        struct qd_match before = *s->m;
        bool ok = true;
        for (int i = 0; ok && i < count; i++) {
            int other = count == 2 ? in[(i + order + 1) % 2] : in[0];
            ok = term(s, in[(i + order) % count], rank_of(s, other), at[i], frame);
        }
        if (ok)
            return true;
        *s->m = before;
    }
    return false;
}

static bool times(struct matcher *s, const struct qd_node *node, const char *const *at, const struct frame *frame)
{
    bool division = qd_node_is(node, "Div");
    double factor;
    if ((!division && !qd_node_is(node, "Mul")) || node->in_count != 2)
        return false;
    for (int i = division ? 1 : 0; i < 2; i++) { /* i: where the number is */
        int other = qd_finder_in(s->f, node, 1 - i);
        struct qd_match before = *s->m;
        if (qd_finder_number(s->f, qd_finder_in(s->f, node, i), rank_of(s, other), &factor) && isfinite(factor) &&
            factor != 0 && number(s, division ? 1 / factor : factor, at[1]) && term(s, other, -1, at[0], frame))
            return true;
        *s->m = before;
    }
    return false;
}

static bool clamp(struct matcher *s, const struct qd_node *node, const char *const *at, const struct frame *frame)
{
    double bound[2] = {0, (double)INFINITY};
    if (qd_node_is(node, "Clip")) {
        bound[0] = -(double)INFINITY;
        if (node->opset < 11) {
            bound[0] = (double)qd_attr_float(node, "min", -INFINITY);
            bound[1] = (double)qd_attr_float(node, "max", INFINITY);
        }
        for (int i = 1; node->opset >= 11 && i < 3; i++) {
            int value = qd_finder_in(s->f, node, i);
            if (value != QD_NO_VALUE && !qd_finder_number(s->f, value, 1, &bound[i - 1]))
                return false;
        }
    } else if (!qd_node_is(node, "Relu")) {
        return false;
    }
    return number(s, bound[0], at[1]) && number(s, bound[1], at[2]) &&
           term(s, qd_finder_in(s->f, node, 0), -1, at[0], frame);
}

static bool over_last(struct matcher *s, const struct qd_node *node, const char *const *at, const struct frame *frame)
{
    int64_t axis;
    size_t count;
    const int64_t *axes = qd_attr_ints(node, "axes", &count);
    int value = qd_finder_in(s->f, node, 0);
    if (value == QD_NO_VALUE || qd_attr_int(node, "keepdims", 1) == 0)
        return false;
    if (node->in_count > 1) {
        if (!qd_finder_ints(s->f, node, 1, &axis, 1, &count))
            return false;
        axes = &axis;
    }
    return count == 1 && (axes[0] == -1 || (axes[0] >= 0 && axes[0] == rank_of(s, value) - 1)) &&
           term(s, value, -1, at[0], frame);
}

static bool sixth(struct matcher *s, const struct qd_node *node, const char *const *at, const struct frame *frame)
{
    return close_to((double)qd_attr_float(node, "alpha", 0.2f), 1.0 / 6) &&
           close_to((double)qd_attr_float(node, "beta", 0.5f), 0.5) &&
           term(s, qd_finder_in(s->f, node, 0), -1, at[0], frame);
}

/* Terms that look at more than a node's name and inputs; op NULL: they look at that too. */
static const struct {
    const char *name, *op;
    bool (*fits)(struct matcher *s, const struct qd_node *node, const char *const *at, const struct frame *frame);
} forms[] = {
    {"Times", NULL, times},
    {"Clamp", NULL, clamp},
    {"Mean", "ReduceMean", over_last},
    {"Total", "ReduceSum", over_last},
    {"Most", "ReduceMax", over_last},
    {"Sixth", "HardSigmoid", sixth},
};

static bool node_term(struct matcher *s, int n, const char *p, const char *open, const struct frame *frame)
{
    const struct qd_node *node = &s->f->graph->nodes[n];
    const char *at[MOST_ARGUMENTS];
    int count = arguments(open + 1, at);
    if (!add_node(s, n))
        return false;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (named(p, open, forms[i].name))
            return (!forms[i].op || qd_node_is(node, forms[i].op)) && forms[i].fits(s, node, at, frame);
    return named(p, open, node->op) && qd_node_is(node, node->op) && inputs(s, node, at, count, frame);
}

static bool along_last(const struct qd_tensor *t, int rank)
{
    if (!t || t->dtype != QD_F32 || t->shape.rank < 1 || t->shape.rank > (rank > 0 ? rank : 1))
        return false;
    for (int i = 0; i < t->shape.rank - 1; i++)
        if (t->shape.dims[i] != 1)
            return false;
    return t->shape.dims[t->shape.rank - 1] > 0;
}

static bool bind(struct matcher *s, char name, int value)
{
    int *var = &s->m->vars[name - 'a'];
    if (*var != QD_NO_VALUE)
        return *var == value;
    *var = value;
    return true;
}

/* A name of the table, or a node. */
static bool compound(struct matcher *s, int value, const char *p, const struct frame *frame)
{
    const char *open = strchr(p, '(');
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!named(p, open, names[i].name))
            continue;
        struct frame inner = {open + 1, frame};
        for (int w = 0; w < MOST_WAYS && names[i].ways[w]; w++) {
            struct qd_match before = *s->m;
            if (term(s, value, -1, names[i].ways[w], &inner))
                return true;
            *s->m = before;
        }
        return false;
    }
    return qd_finder_maker(s->f, value) && node_term(s, s->f->producer[value], p, open, frame);
}

/* `rank` is that of the value which a constant number at this place is combined with; -1: not known. */
static bool term(struct matcher *s, int value, int rank, const char *p, const struct frame *frame)
{
    double found;
    if (value == QD_NO_VALUE || s->depth == MOST_DEPTH)
        return false;
    s->depth++;
    bool ok;
    if (*p == '_')
        ok = term(s, value, rank, frame->argument, frame->up);
    else if (*p == '#' || *p == '@')
        ok = qd_finder_number(s->f, value, rank, &found) && number(s, found, p);
    else if (*p == '$')
        ok = along_last(qd_finder_constant(s->f, value), rank) && bind(s, p[1], value);
    else
        ok = islower((unsigned char)*p) ? bind(s, *p, value) : compound(s, value, p, frame);
    s->depth--;
    return ok;
}

/* Every matched node but the root feeds matched nodes only. */
static bool closed(const struct qd_finder *f, const struct qd_match *m)
{
    for (int i = 1; i < m->node_count; i++) {
        int out = f->graph->nodes[m->nodes[i]].out[0], inside = 0;
        for (int j = 0; j < m->node_count; j++) {
            const struct qd_node *reader = &f->graph->nodes[m->nodes[j]];
            for (int k = 0; k < reader->in_count; k++)
                inside += qd_finder_in(f, reader, k) == out;
        }
        if (inside != f->readers[out])
            return false;
    }
    return true;
}

bool qd_patterns_match(const struct qd_finder *f, int n, const char *expression, struct qd_match *m)
{
    struct matcher s = {.f = f, .m = m};
    const struct qd_node *node = &f->graph->nodes[n];
    m->node_count = 0;
    for (int i = 0; i < QD_PATTERN_VARS; i++)
        m->vars[i] = QD_NO_VALUE;
    if (node->out_count < 1 || node->out[0] == QD_NO_VALUE || f->extra[n].op)
        return false;
    return term(&s, node->out[0], -1, expression, NULL) && m->node_count > 0 && m->nodes[0] == n && closed(f, m);
}
