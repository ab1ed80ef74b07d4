/* Deciding precisions. See budget.h. */
#include "engine/quant/budget.h"

#include <math.h>

#define AIM       0.8 /* share of the target that a plan for more accuracy is predicted to reach */
#define AIM_AGAIN 0.8 /* and by so much less after each one that was not enough */
#define SURELY    2   /* standard errors above the target that count, ... */
#define FAR       3.0 /* ..., half as many where the mean is so many times the target ... */
#define SOON      32  /* ... and from here on, ... */
#define SURE      64  /* ... until so many observations of a plan: then any mean above it does */
#define LOWER_AIM 0.8 /* the same for a plan of less cost */
#define CLEARLY   0.7 /* "clearly below": share of the target that mean and three standard errors stay below */
#define LONG      64  /* observations of a plan before it may be made cheaper; eight times as many after each regret */
#define LONG_MOST (1u << 20)
#define WORTH     0.02 /* of the model's cost that a cheaper plan saves at least */

#define PAIRED_MOST  8    /* layers at a tensor: of those with more none are moved in pairs */
#define LEAST_SAVING 1e-9 /* of the cost around a move: less is rounding */

/* May a layer run in precision w? For more accuracy or for less cost only in what brings it, or as it does. */
static bool may(const struct qd_budget_layer *l, enum qd_budget_verdict verdict, int w)
{
    if (!(l->may >> w & 1) || verdict == QD_BUDGET_STAY || w == (int)l->now)
        return l->may >> w & 1;
    return verdict == QD_BUDGET_OVER ? l->error[w] < l->error[l->now] : l->cost[w] < l->cost[l->now] && !l->settled;
}

struct problem {
    const struct qd_budget_layer *layers;
    size_t count;
    enum qd_budget_verdict verdict;
    double most;
    enum qd_budget_way *ways;
};

static double total_error(const struct problem *p)
{
    double sum = 0;
    for (size_t i = 0; i < p->count; i++)
        sum += p->layers[i].error[p->ways[i]];
    return sum;
}

/* ------------------------------------------------------------------ cost */

static bool in_bytes(const struct qd_budget_tensor *t, const enum qd_budget_way *ways)
{
    bool bytes = !t->floats && t->makers > 0;
    for (size_t e = t->written ? t->makers : 0; bytes && e < t->makers + t->readers + t->others; e++)
        bytes = ways[t->ends[e]] == QD_WAY_INT8;
    return bytes;
}

static double conversions(const struct qd_budget_tensor *t, const enum qd_budget_way *ways)
{
    const bool bytes = in_bytes(t, ways);
    double sum = bytes ? 0 : t->floats_cost;
    for (int w = QD_WAY_INT8; w <= QD_WAY_INT16; w++) {
        bool wanted = false;
        for (size_t e = t->makers; !wanted && e < t->makers + t->readers; e++)
            wanted = (int)ways[t->ends[e]] == w;
        sum += wanted && !bytes ? t->cost[w] : 0;
    }
    return sum;
}

double qd_budget_cost(const struct qd_budget_layer *layers, size_t count, const enum qd_budget_way *ways)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += layers[i].cost[ways[i]];
        for (size_t t = 0; t < layers[i].tensor_count; t++)
            sum += layers[i].tensors[t]->ends[0] == i ? conversions(layers[i].tensors[t], ways) : 0;
    }
    return sum;
}

/* One layer that moves, or two. */
struct move {
    size_t layer[2];
    enum qd_budget_way way[2];
    int count;
    double removed, more; /* error, cost */
};

static bool touches(const struct qd_budget_layer *l, const struct qd_budget_tensor *tensor)
{
    for (size_t t = 0; t < l->tensor_count; t++)
        if (l->tensors[t] == tensor)
            return true;
    return false;
}

/* Cost of what a move can change. */
static double cost_around(const struct problem *p, const struct move *m)
{
    double sum = 0;
    for (int k = 0; k < m->count; k++) {
        const struct qd_budget_layer *l = &p->layers[m->layer[k]];
        sum += l->cost[p->ways[m->layer[k]]];
        for (size_t t = 0; t < l->tensor_count; t++)
            if (k == 0 || !touches(&p->layers[m->layer[0]], l->tensors[t]))
                sum += conversions(l->tensors[t], p->ways);
    }
    return sum;
}

static void apply(const struct problem *p, const struct move *m)
{
    for (int k = 0; k < m->count; k++)
        p->ways[m->layer[k]] = m->way[k];
}

/* What the move would change; the ways are as before. */
static void weigh(const struct problem *p, struct move *m)
{
    struct move back = *m;
    m->removed = 0;
    for (int k = 0; k < m->count; k++) {
        const struct qd_budget_layer *l = &p->layers[m->layer[k]];
        back.way[k] = p->ways[m->layer[k]];
        m->removed += l->error[back.way[k]] - l->error[m->way[k]];
    }
    const double before = cost_around(p, m);
    apply(p, m);
    m->more = cost_around(p, m) - before;
    apply(p, &back);
}

/* The best move so far, by `better`, which a candidate is compared with it by. */
struct search {
    const struct problem *p;
    double room; /* of best_saving */
    bool saves;
    double best;
    struct move found;
};

static void consider(struct search *s, struct move m)
{
    weigh(s->p, &m);
    double worth;
    if (s->saves)
        worth = -m.removed <= s->room && m.more < -LEAST_SAVING * cost_around(s->p, &m) ? -m.more : 0;
    else
        worth = m.removed > 0 ? m.removed / fmax(m.more, 1e-9) : 0;
    if (worth > s->best) {
        s->best = worth;
        s->found = m;
    }
}

/* Layer i to `way` together with each layer beside it. */
static void consider_pairs(struct search *s, size_t i, enum qd_budget_way way)
{
    const struct qd_budget_layer *l = &s->p->layers[i];
    for (size_t t = 0; t < l->tensor_count; t++) {
        const struct qd_budget_tensor *tensor = l->tensors[t];
        const size_t ends = tensor->makers + tensor->readers + tensor->others;
        for (size_t e = 0; ends <= PAIRED_MOST && e < ends; e++)
            for (int w = 0; w < QD_WAYS; w++) {
                const size_t j = tensor->ends[e];
                if (j != i && w != (int)s->p->ways[j] && may(&s->p->layers[j], s->p->verdict, w))
                    consider(s, (struct move){{i, j}, {way, (enum qd_budget_way)w}, 2, 0, 0});
            }
    }
}

static bool best_move(struct search *s)
{
    s->best = 0;
    for (size_t i = 0; i < s->p->count; i++)
        for (int w = 0; w < QD_WAYS; w++) {
            if (w == (int)s->p->ways[i] || !may(&s->p->layers[i], s->p->verdict, w))
                continue;
            consider(s, (struct move){{i, i}, {(enum qd_budget_way)w}, 1, 0, 0});
            consider_pairs(s, i, (enum qd_budget_way)w);
        }
    return s->best > 0;
}

/* Cheapest way by itself; of two that cost the same the one of less error. */
static enum qd_budget_way cheapest(const struct problem *p, size_t i)
{
    const struct qd_budget_layer *l = &p->layers[i];
    int best = (int)l->now;
    for (int w = 0; w < QD_WAYS; w++)
        if (may(l, p->verdict, w) &&
            (l->cost[w] < l->cost[best] || (l->cost[w] <= l->cost[best] && l->error[w] < l->error[best])))
            best = w;
    return (enum qd_budget_way)best;
}

static double solve(const struct problem *p)
{
    struct search step = {.p = p}, saving = {.p = p, .saves = true};
    for (size_t i = 0; i < p->count; i++)
        p->ways[i] = p->verdict == QD_BUDGET_OVER ? p->layers[i].now : cheapest(p, i);
    while (total_error(p) > p->most && best_move(&step))
        apply(p, &step.found);
    while ((saving.room = p->most - total_error(p)) >= 0 && best_move(&saving))
        apply(p, &saving.found);
    return total_error(p);
}

double qd_budget_solve(const struct qd_budget_layer *layers, size_t count, double most, enum qd_budget_way *ways)
{
    return solve(&(struct problem){layers, count, QD_BUDGET_STAY, most, ways});
}

/* ------------------------------------------------------------------ when */

void qd_budget_restart(struct qd_budget *b)
{
    b->e = b->w = b->ee = b->ew = b->ww = 0;
    b->observed = 0;
    b->next_look = QD_BUDGET_FIRST;
}

void qd_budget_aim(struct qd_budget *b, double target)
{
    *b = (struct qd_budget){.target = target};
    qd_budget_restart(b);
}

double qd_budget_mean(const struct qd_budget *b) { return b->w > 0 ? b->e / b->w : (double)NAN; }

/* Standard error of the mean, a ratio of sums: of the residuals e - mean w. */
static double standard_error(const struct qd_budget *b)
{
    const double mean = qd_budget_mean(b), squares = b->ee - 2 * mean * b->ew + mean * mean * b->ww;
    return squares > 0 ? sqrt(squares) / b->w : 0;
}

static bool long_enough(const struct qd_budget *b)
{
    uint64_t wanted = LONG;
    for (unsigned i = 0; i < b->regretted && wanted < LONG_MOST; i++)
        wanted *= 8;
    return b->observed >= wanted;
}

/* A window is as long as QD_BUDGET_WINDOW, then another begins; how long the plan has been observed counts on. */
static void look_later(struct qd_budget *b)
{
    if (b->next_look < QD_BUDGET_WINDOW) {
        b->next_look *= 2;
        return;
    }
    b->next_look = b->observed + QD_BUDGET_WINDOW;
    b->e = b->w = b->ee = b->ew = b->ww = 0;
}

enum qd_budget_verdict qd_budget_observe(struct qd_budget *b, double error, double weight)
{
    if (!isfinite(error) || !isfinite(weight) || weight < 0)
        return QD_BUDGET_STAY;
    if (b->observed == b->next_look) /* the decision is made: see below */
        look_later(b);
    b->observed++;
    b->e += error;
    b->w += weight;
    b->ee += error * error;
    b->ew += error * weight;
    b->ww += weight * weight;
    if (b->observed < b->next_look)
        return QD_BUDGET_STAY; /* the sums stay until the next observation: qd_budget_decide reads them */
    const double mean = qd_budget_mean(b);
    const bool less = b->observed >= SOON || mean > FAR * b->target;
    const double surely = b->observed < SURE ? SURELY / (less ? 2 : 1) * standard_error(b) : 0;
    if (mean > b->target + surely)
        return QD_BUDGET_OVER;
    if (mean > b->target)
        return QD_BUDGET_STAY; /* a few bad requests? the next look tells */
    b->raised = 0;
    return long_enough(b) && mean + 3 * standard_error(b) < CLEARLY * b->target ? QD_BUDGET_UNDER : QD_BUDGET_STAY;
}

static double sum_of_errors(const struct qd_budget_layer *layers, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += layers[i].error[layers[i].now];
    return sum;
}

/* For more accuracy errors are taken in proportion: the sum of the layers' errors stands for what was observed. For
 * less cost that would say nothing, as hardly any error is left: what comes on top counts as it is known, or as it was
 * when there was too much of it. */
static double most_error(const struct qd_budget *b, enum qd_budget_verdict verdict, double now)
{
    const double mean = qd_budget_mean(b), scale = b->scale > 0 ? b->scale : 1;
    if (verdict == QD_BUDGET_OVER)
        return mean > 0 ? now * AIM * pow(AIM_AGAIN, b->raised) * b->target / mean : INFINITY;
    return now + (LOWER_AIM * b->target - mean) / scale;
}

size_t qd_budget_decide(const struct qd_budget *b, enum qd_budget_verdict verdict, const struct qd_budget_layer *layers,
                        size_t count, enum qd_budget_way *ways)
{
    size_t moves = 0;
    for (size_t i = 0; i < count; i++)
        ways[i] = layers[i].now;
    if (verdict == QD_BUDGET_STAY || !(b->w > 0))
        return 0;
    const double before = qd_budget_cost(layers, count, ways);
    const double most = most_error(b, verdict, sum_of_errors(layers, count));
    solve(&(struct problem){layers, count, verdict, most, ways});
    if (verdict == QD_BUDGET_UNDER && !(before - qd_budget_cost(layers, count, ways) >= WORTH * before))
        return 0;
    for (size_t i = 0; i < count; i++)
        moves += ways[i] != layers[i].now;
    return moves;
}

void qd_budget_moved(struct qd_budget *b, enum qd_budget_verdict verdict, struct qd_budget_layer *layers, size_t count,
                     const enum qd_budget_way *ways)
{
    const double now = sum_of_errors(layers, count);
    if (verdict == QD_BUDGET_OVER && now > 0)
        b->scale = fmax(b->scale, qd_budget_mean(b) / now);
    for (size_t i = 0; i < count; i++) {
        if (ways[i] == layers[i].now)
            continue;
        layers[i].settled |= verdict == QD_BUDGET_OVER && layers[i].fell;
        layers[i].fell |= verdict == QD_BUDGET_UNDER;
        layers[i].now = ways[i];
    }
    if (verdict == QD_BUDGET_OVER) {
        b->raised++;
        b->regretted += b->lowered;
    }
    b->lowered = verdict == QD_BUDGET_UNDER;
    qd_budget_restart(b);
}
