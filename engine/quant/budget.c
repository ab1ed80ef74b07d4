/* Deciding precisions. See budget.h. */
#include "engine/quant/budget.h"

#include <math.h>

#define AIM       0.8 /* share of the target that a plan for more accuracy is predicted to reach */
#define AIM_AGAIN 0.8 /* and by so much less after each one that was not enough */
#define SURELY    2   /* standard errors above the target that count, ... */
#define SOON      32  /* ..., half as many from here on, ... */
#define SURE      64  /* ... until so many observations of a plan: then any mean above it does */
#define LOWER_AIM 0.6 /* the same for a plan of less cost */
#define CLEARLY   0.5 /* "clearly below": share of the target that mean and three standard errors stay below */
#define LONG      64  /* observations of a plan before it may be made cheaper; eight times as many after each regret */
#define LONG_MOST (1u << 20)
#define WORTH     0.02 /* of the model's cost that a cheaper plan saves at least */

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

/* Cheapest way; of two that cost the same the one of less error. */
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

/* The step that removes most error for its cost; false: there is none. */
static bool best_step(const struct problem *p, size_t *layer, int *way)
{
    double best = 0;
    for (size_t i = 0; i < p->count; i++)
        for (int w = 0; w < QD_WAYS; w++) {
            const struct qd_budget_layer *l = &p->layers[i];
            const double removed = l->error[p->ways[i]] - l->error[w];
            const double more = fmax(l->cost[w] - l->cost[p->ways[i]], 1e-9);
            if (may(l, p->verdict, w) && removed > 0 && removed / more > best) {
                best = removed / more;
                *layer = i;
                *way = w;
            }
        }
    return best > 0;
}

/* The change that saves most and adds no more error than `room`; false: there is none. */
static bool best_saving(const struct problem *p, double room, size_t *layer, int *way)
{
    double best = 0;
    for (size_t i = 0; i < p->count; i++)
        for (int w = 0; w < QD_WAYS; w++) {
            const struct qd_budget_layer *l = &p->layers[i];
            const double saved = l->cost[p->ways[i]] - l->cost[w];
            if (may(l, p->verdict, w) && saved > best && l->error[w] - l->error[p->ways[i]] <= room) {
                best = saved;
                *layer = i;
                *way = w;
            }
        }
    return best > 0;
}

static double solve(const struct problem *p)
{
    size_t layer = 0;
    int way = 0;
    for (size_t i = 0; i < p->count; i++)
        p->ways[i] = cheapest(p, i);
    while (total_error(p) > p->most && best_step(p, &layer, &way))
        p->ways[layer] = (enum qd_budget_way)way;
    for (double room; (room = p->most - total_error(p)) >= 0 && best_saving(p, room, &layer, &way);)
        p->ways[layer] = (enum qd_budget_way)way;
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
    const double mean = qd_budget_mean(b),
                 surely = b->observed < SURE ? SURELY / (b->observed < SOON ? 1 : 2) * standard_error(b) : 0;
    if (mean > b->target + surely)
        return QD_BUDGET_OVER;
    if (mean > b->target)
        return QD_BUDGET_STAY; /* a few bad requests? the next look tells */
    b->raised = 0;
    return long_enough(b) && mean + 3 * standard_error(b) < CLEARLY * b->target ? QD_BUDGET_UNDER : QD_BUDGET_STAY;
}

static double cost_of(const struct qd_budget_layer *layers, size_t count, const enum qd_budget_way *ways)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += layers[i].cost[ways ? ways[i] : layers[i].now];
    return sum;
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
    const double most = most_error(b, verdict, sum_of_errors(layers, count));
    solve(&(struct problem){layers, count, verdict, most, ways});
    if (verdict == QD_BUDGET_UNDER) {
        const double before = cost_of(layers, count, NULL);
        if (!(before - cost_of(layers, count, ways) >= WORTH * before))
            return 0;
    }
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
