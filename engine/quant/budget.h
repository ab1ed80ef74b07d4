/* Which layers run in which precision, so that a model's error stays under a target at least cost. Two parts: the
 * choice itself, and when to make one, from a stream of measured errors (docs/QUANTIZATION.md, section 10). Pure
 * arithmetic on what the caller measured: no clock, no threads, no plans; the same stream gives the same decisions. */
#ifndef QD_ENGINE_QUANT_BUDGET_H
#define QD_ENGINE_QUANT_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum qd_budget_way { QD_WAY_INT8, QD_WAY_INT16, QD_WAY_FP32, QD_WAYS };

/* A tensor between layers. It is bytes where all that read it run in INT8, and what makes it does too or writes bytes
 * in any precision; else it is floats, of which bytes are made for those in INT8 that read it, and words for those in
 * INT16: once each, whoever reads them. */
struct qd_budget_tensor {
    double cost[2];     /* of making bytes, words; the layers' unit */
    double floats_cost; /* of being floats, to what makes it */
    bool floats;        /* something that is no layer makes it, or reads it, as floats */
    bool written;       /* its maker writes bytes in any precision */
    size_t makers;      /* in `ends`, before ... */
    size_t readers;     /* ... those that read it in their own precision, before ... */
    size_t others;      /* ... those that in INT8 take floats as well */
    const size_t *ends; /* layers: indices; one at least */
};

struct qd_budget_layer {
    double cost[QD_WAYS];  /* time of the layer in each precision, any unit */
    double error[QD_WAYS]; /* what it then adds to the answer's error, any unit; errors of layers add up */
    unsigned may;          /* bit w: it may run in precision w; that of `now` is set */
    enum qd_budget_way now;
    bool fell;    /* a decision has put it into a cheaper precision ... */
    bool settled; /* ... and a later one had to take it back: it does not fall again */
    /* That it makes or reads, each once; borrowed. None: its precision costs others nothing. */
    const struct qd_budget_tensor *const *tensors;
    size_t tensor_count;
};

/* Of layers and conversions. */
double qd_budget_cost(const struct qd_budget_layer *layers, size_t count, const enum qd_budget_way *ways);

/* The ways (in *ways, [count]) of least cost found whose errors sum to at most `most`, of those that layers may run in:
 * from each layer's cheapest on, always the step that removes most error for its cost; then steps that were not needed
 * are taken back, the dearest first. A step moves one layer, or two that share a tensor. When none is good enough: the
 * least error. Returns the sum of errors. */
double qd_budget_solve(const struct qd_budget_layer *layers, size_t count, double most, enum qd_budget_way *ways);

/* Looked at after 8 observations of a plan, then after 16, 32, ..., and for ever after each 512. */
#define QD_BUDGET_FIRST  8
#define QD_BUDGET_WINDOW 512

enum qd_budget_verdict { QD_BUDGET_STAY, QD_BUDGET_OVER, QD_BUDGET_UNDER };

/* When: one per model. Zeroed but for `target`, or by qd_budget_aim. */
struct qd_budget {
    double target; /* most error: sum of observed errors by sum of their weights */
    /* of the window: sums of errors e, weights w, and products */
    double e, w, ee, ew, ww;
    uint64_t observed, next_look;
    double scale;       /* observed error by the sum of the layers' as they are known, where it was largest; 0: never */
    unsigned raised;    /* decisions for more accuracy, since the last time that the target was met */
    unsigned regretted; /* decisions for less cost that had to be taken back */
    bool lowered;       /* the last decision was one for less cost */
};

/* Starts anew for a target above 0. */
void qd_budget_aim(struct qd_budget *budget, double target);
/* The window's mean error; NaN without an observation. */
double qd_budget_mean(const struct qd_budget *budget);
/* One request's error and its weight: 1 - cosine and 1, or squared error and squared signal. OVER: the mean is above
 * the target, at first by more than chance. UNDER: it is clearly below half of it, and has been for long enough. */
enum qd_budget_verdict qd_budget_observe(struct qd_budget *budget, double error, double weight);
/* After OVER or UNDER: the layers' new ways and how many of them move. OVER moves layers to less error only, UNDER to
 * less cost only, by predicted error, and only where that is worth a new plan. With 0 the caller goes on observing;
 * otherwise it puts the ways in force and calls qd_budget_moved. */
size_t qd_budget_decide(const struct qd_budget *budget, enum qd_budget_verdict verdict,
                        const struct qd_budget_layer *layers, size_t count, enum qd_budget_way *ways);
/* The ways are in force: layers are marked and set to them, and the plan is observed from nothing. */
void qd_budget_moved(struct qd_budget *budget, enum qd_budget_verdict verdict, struct qd_budget_layer *layers,
                     size_t count, const enum qd_budget_way *ways);
/* Another plan came into force by other hands. */
void qd_budget_restart(struct qd_budget *budget);

#endif
