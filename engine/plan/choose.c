/* Timing layers. The least of a few runs counts: noise only adds. FP32 must win by a margin, so that the choice is the
 * same the next time. */
#include "engine/plan/choose.h"

#include "engine/plan/control.h"
#include "engine/plan/convert.h"
#include "engine/plan/fuse.h"
#include "engine/plan/rules.h"

#include <string.h>
#include <time.h>

#define RUNS      3
#define LONG_NS   5000000u /* runs as long as this are two: one might have been interrupted */
#define MARGIN_NS 3000.0   /* by so much, and by a tenth, FP32 must be faster */

struct bench {
    const struct qd_plan *plan;
    bool words; /* 16 bits too */
    const struct qd_shaped *shaped;
    struct qd_arena *arena; /* of one step */
    uint64_t start_ns;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A slot's tensor with zeros for data, as `dtype`. False: out of memory. */
static bool made(const struct bench *b, int slot, enum qd_dtype dtype, struct qd_tensor *out)
{
    *out = b->shaped->slots[slot];
    out->dtype = dtype;
    size_t bytes = qd_tensor_bytes(out);
    out->data = qd_arena_alloc_raw(b->arena, bytes + 1);
    if (out->data)
        memset(out->data, 0, bytes);
    return out->data != NULL;
}

static const struct qd_qparams bytes_scale = {.scale = 1, .zero_point = 128, .qmin = 0, .qmax = 255};
static const struct qd_qparams words_scale = {.scale = 1, .qmin = -32767, .qmax = 32767};

/* Least time of a run of `linear` in the place of `step`, its input being `taken`; 0: out of memory. */
static double time_linear(const struct bench *b, const struct qd_step *step, const struct qd_linear *linear,
                          enum qd_dtype taken)
{
    const struct qd_qparams *in_qp = taken == QD_U8 ? &bytes_scale : taken == QD_I16 ? &words_scale : NULL;
    struct qd_tensor in, out, residual = {.dtype = QD_NONE}, scales = {.dtype = QD_NONE};
    struct qd_observation seen = qd_observation_empty();
    bool u8_out = taken == QD_U8 && b->shaped->slots[step->out[0]].dtype == QD_U8;
    if (!made(b, step->in[0], taken, &in) || !made(b, step->out[0], u8_out ? QD_U8 : QD_F32, &out))
        return 0;
    const int sum = qd_step_residual(step), rows = taken == QD_U8 ? qd_step_rows(step) : QD_NO_VALUE;
    const bool bytes = taken == QD_U8 && sum != QD_NO_VALUE && b->shaped->slots[sum].dtype == QD_U8;
    if ((sum != QD_NO_VALUE && !made(b, sum, bytes ? QD_U8 : QD_F32, &residual)) ||
        (rows != QD_NO_VALUE && !made(b, rows, QD_I64, &scales)))
        return 0;
    void *scratch = qd_arena_alloc_raw(b->arena,
                                       qd_linear_scratch_bytes(linear, &in.shape, b->plan->parallel->threads) + 1);
    if (!scratch)
        return 0;
    struct qd_linear_call call = {.in = &in,
                                  .out = &out,
                                  .in_qp = in_qp,
                                  .rows = scales.data,
                                  .out_qp = u8_out ? &bytes_scale : NULL,
                                  .residual = residual.dtype == QD_NONE ? NULL : &residual,
                                  .residual_qp = residual.dtype == QD_U8 ? &bytes_scale : NULL,
                                  .observe = u8_out ? &seen : NULL,
                                  .scratch = scratch,
                                  .parallel = b->plan->parallel};
    double best = 0;
    for (int run = 0; run < RUNS; run++) {
        uint64_t start = now_ns();
        qd_linear_run(linear, &call);
        double took = (double)(now_ns() - start) + 1;
        best = run == 0 || took < best ? took : best;
        if (took > LONG_NS && run > 0)
            break;
    }
    return best;
}

/* This step's part of quantizing its input, where a step of its own does that; 16 bits are always made by one. */
static double time_quantize(const struct bench *b, const struct qd_step *step, enum qd_dtype taken)
{
    const struct qd_plan *plan = b->plan;
    int slot = step->in[0], readers = 0;
    bool quantized = taken == QD_I16;
    for (int s = 0; s < plan->step_count; s++) {
        const enum qd_step_kind kind = plan->steps[s].kind;
        quantized |= (kind == QD_STEP_QUANTIZE || kind == QD_STEP_QUANTIZE_ROWS) && plan->steps[s].out[0] == slot;
        readers += plan->steps[s].kind == QD_STEP_LINEAR && plan->steps[s].in[0] == slot;
    }
    struct qd_tensor in, out, scales;
    const int rows = taken == QD_U8 ? qd_step_rows(step) : QD_NO_VALUE;
    struct qd_observation seen = qd_observation_empty();
    if (!quantized || !made(b, slot, QD_F32, &in) || !made(b, slot, taken, &out) ||
        (rows != QD_NO_VALUE && !made(b, rows, QD_I64, &scales)))
        return 0;
    uint64_t start = now_ns();
    if (rows != QD_NO_VALUE)
        qd_convert_quantize_rows(plan->kernels, &in, &out, step->by, scales.data, false, &seen, plan->parallel);
    else
        qd_convert_quantize(plan->kernels, &in, &out, taken == QD_I16 ? &words_scale : &bytes_scale, &seen, NULL,
                            plan->parallel); /* one layout: no scratch */
    return (double)(now_ns() - start) / readers;
}

/* The step in another precision than its own: one that takes `taken`. */
static enum qd_status time_twin(const struct bench *b, const struct qd_step *step, enum qd_dtype taken, double *ns,
                                struct qd_error *error)
{
    struct qd_linear *twin;
    struct qd_linear_spec spec = qd_unit_spec(&b->plan->graph, step->unit);
    spec.int8 = false;
    spec.weight_bits = taken == QD_I16
                           ? qd_plan_rule(b->plan, step->node, QD_RULE_WEIGHT_BITS, b->plan->options.weight_bits)
                           : 0;
    enum qd_status status = qd_linear_create(&spec, b->plan->kernels, b->arena, &twin, error);
    if (!status)
        *ns = time_linear(b, step, twin, taken);
    return status;
}

/* In nanoseconds; int16 and words stay 0 where 16 bits are not asked for or not to be had. */
struct times {
    double int8, int16, fp32;
    double words; /* of int16: making its input's words */
};

static enum qd_status time_step(const struct bench *b, const struct qd_step *step, struct times *t,
                                struct qd_error *error)
{
    const bool words = b->words && !qd_linear_int16_refusal(&b->plan->graph, step->node);
    enum qd_status status = time_twin(b, step, QD_F32, &t->fp32, error);
    if (!status && words)
        status = time_twin(b, step, QD_I16, &t->int16, error);
    if (status)
        return status;
    t->int8 = time_linear(b, step, step->linear, QD_U8);
    if (t->int8 == 0 || t->fp32 == 0 || (words && t->int16 == 0))
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to time node '%s'", step->node->name);
    t->int8 += time_quantize(b, step, QD_U8);
    t->words = words ? time_quantize(b, step, QD_I16) : 0;
    t->int16 += t->words;
    return QD_OK;
}

static enum qd_status time_all(struct qd_plan *plan, struct bench *b, struct qd_choice *choices, bool *changes,
                               struct qd_error *error);

/* The bodies of a control-flow step, under the shapes that they were asked for last. */
static enum qd_status time_bodies(struct qd_plan *plan, const struct bench *b, const struct qd_step *step,
                                  struct qd_choice *choice, bool *changes, struct qd_error *error)
{
    enum qd_status status = QD_OK;
    for (int i = 0; !status && i < step->control->branch_count; i++) {
        struct qd_plan *body = step->control->branches[i].plan;
        struct bench inner = *b;
        if (!body->cache)
            continue;
        inner.plan = body;
        inner.shaped = body->cache;
        struct qd_choice *choices = qd_arena_alloc(plan->arena, (size_t)body->graph.node_count, sizeof *choices);
        if (!choices)
            return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to time the layers");
        choice->bodies[i] = choices;
        choice->body_counts[i] = body->graph.node_count;
        status = time_all(body, &inner, choices, changes, error);
    }
    return status;
}

static enum qd_status time_all(struct qd_plan *plan, struct bench *b, struct qd_choice *choices, bool *changes,
                               struct qd_error *error)
{
    enum qd_status status = QD_OK;
    for (int s = 0; !status && s < plan->step_count && now_ns() - b->start_ns < QD_CHOOSE_BUDGET_NS; s++) {
        struct qd_step *step = &plan->steps[s];
        struct times t = {.int8 = 0};
        if (step->kind == QD_STEP_CONTROL) {
            status = time_bodies(plan, b, step, &choices[step->node - plan->graph.nodes], changes, error);
            continue;
        }
        if (step->kind != QD_STEP_LINEAR || !step->int8 || step->given || s >= b->shaped->static_steps)
            continue;
        status = time_step(b, step, &t, error);
        step->int8_us = (float)(t.int8 / 1e3);
        step->int16_us = (float)(t.int16 / 1e3);
        step->fp32_us = (float)(t.fp32 / 1e3);
        step->words_us = (float)(t.words / 1e3);
        bool slower = !status && t.int8 > t.fp32 * 1.1 && t.int8 - t.fp32 > MARGIN_NS;
        choices[step->node - plan->graph.nodes] = (struct qd_choice){.fp32 = slower,
                                                                     .int8_us = step->int8_us,
                                                                     .int16_us = step->int16_us,
                                                                     .fp32_us = step->fp32_us,
                                                                     .words_us = step->words_us};
        *changes |= slower;
        qd_arena_reset(b->arena);
    }
    return status;
}

enum qd_status qd_plan_time(struct qd_plan *plan, const struct qd_shape *inputs, bool words,
                            const struct qd_choice **choices, bool *changes, struct qd_error *error)
{
    struct qd_error ignored;
    struct qd_shaped *shaped;
    struct bench b = {.plan = plan, .words = words, .start_ns = now_ns()};
    *changes = false;
    *choices = NULL;
    enum qd_status status = qd_plan_shape(plan, inputs, &shaped, &ignored);
    if (status)
        return status == QD_ERR_NO_MEMORY ? qd_fail(error, status, "no memory to time the layers") : QD_OK;
    b.shaped = shaped;
    struct qd_choice *made_choices = qd_arena_alloc(plan->arena, (size_t)plan->graph.node_count, sizeof *made_choices);
    status = made_choices ? qd_arena_create(1 << 20, &b.arena) : QD_ERR_NO_MEMORY;
    if (status)
        status = qd_fail(error, status, "no memory to time the layers");
    else
        status = time_all(plan, &b, made_choices, changes, error);
    if (!status)
        *choices = made_choices;
    qd_arena_destroy(&b.arena);
    qd_shaped_unref(&shaped);
    return status;
}

/* ------------------------------------------------------------------ kept */

struct qd_choice *qd_choices_copy(const struct qd_choice *choices, int count)
{
    struct qd_choice *copy = qd_calloc((size_t)count + 1, sizeof *copy);
    for (int i = 0; copy && i < count; i++) {
        copy[i] = choices[i];
        memset(copy[i].bodies, 0, sizeof copy[i].bodies);
        for (int b = 0; copy && b < 2; b++) {
            if (!choices[i].bodies[b])
                continue;
            copy[i].bodies[b] = qd_choices_copy(choices[i].bodies[b], choices[i].body_counts[b]);
            if (!copy[i].bodies[b])
                qd_choices_free(&copy, count);
        }
    }
    return copy;
}

void qd_choices_free(struct qd_choice **choices, int count)
{
    struct qd_choice *all = *choices;
    *choices = NULL;
    for (int i = 0; all && i < count; i++)
        for (int b = 0; b < 2; b++) {
            struct qd_choice *body = (struct qd_choice *)(uintptr_t)all[i].bodies[b];
            qd_choices_free(&body, all[i].body_counts[b]);
        }
    qd_free(all);
}

bool qd_choices_have_words(const struct qd_choice *choices, int count)
{
    for (int i = 0; i < count; i++) {
        if (choices[i].int16_us > 0)
            return true;
        for (int b = 0; b < 2; b++)
            if (choices[i].bodies[b] && qd_choices_have_words(choices[i].bodies[b], choices[i].body_counts[b]))
                return true;
    }
    return false;
}
