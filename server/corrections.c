/* Bias correction and smoothing on a thread. See corrections.h. */
#include "server/corrections.h"

#include "base/log.h"
#include "base/mem.h"

#include <inttypes.h>

#define ENOUGH       16          /* measured requests */
#define HARM         1.25        /* times the error before: sixteen requests aren't sixteen others */
#define WAITED_BYTES (64u << 20) /* of packed weights: takes a fraction of a second */

struct correcting {
    uv_work_t work;
    struct qd_model_entry *entry;
    struct qd_correction *correction; /* one of them is NULL */
    struct qd_smoothing *smoothing;
    void (*done)(void *ctx); /* NULL: nobody waits */
    void *ctx;
    double cosine;   /* as measured when it began */
    size_t smoothed; /* tensors then */
};

static void on_thread(uv_work_t *work)
{
    struct correcting *c = work->data;
    if (c->smoothing)
        qd_smoothing_run(c->smoothing);
    else
        qd_correction_run(c->correction);
}

static void put_in_force(struct correcting *c)
{
    struct qd_correction_report report;
    if (c->smoothing && qd_smoothing_finish(&c->smoothing)) {
        qd_log(QD_LOG_INFO, "model '%s': %zu tensors are smoothed from now on", c->entry->name,
               qd_model_smoothed(c->entry->model));
        c->entry->unsmoothed = qd_model_smoothed(c->entry->model) > c->smoothed ? c->cosine : 0;
        c->entry->smoothed = c->smoothed;
    }
    if (!c->correction || !qd_correction_finish(&c->correction))
        return;
    qd_model_correction(c->entry->model, &report);
    qd_log(QD_LOG_INFO, "model '%s': biases of %zu layers corrected, by the inputs of %" PRIu64 " requests",
           c->entry->name, report.layers, report.requests);
}

static void on_made(uv_work_t *work, int status)
{
    struct correcting *c = work->data;
    (void)status;
    c->entry->changing &= c->smoothing == NULL;
    c->entry->correcting = false;
    put_in_force(c);
    if (c->done)
        c->done(c->ctx);
    qd_free(c);
}

/* Mean cosine to FP32 under the plan in force; 0: not measured often enough. */
static double measured(const struct qd_model_entry *entry)
{
    struct qd_accuracy_report report;
    qd_model_accuracy(entry->model, &report);
    return report.sampled < ENOUGH ? 0 : report.cosine_mean;
}

/* Where the error is measured, it is so before and after smoothing that could harm. */
static bool is_known(const struct qd_server *server, const struct qd_model_entry *entry)
{
    return (server->config->shadow_rate == 0 && !qd_model_wants_shadow(entry->model)) || measured(entry) > 0;
}

/* To a thread; false: nothing was begun, or it failed: tried again later. `c` is gone then. */
static bool begin(struct qd_server *server, struct correcting *c, struct qd_model_entry *entry)
{
    c->entry = entry;
    c->cosine = measured(entry);
    c->smoothed = qd_model_smoothed(entry->model);
    c->work.data = c;
    entry->changing |= c->smoothing != NULL;
    entry->correcting = uv_queue_work(server->loop, &c->work, on_thread, on_made) == 0;
    if (entry->correcting)
        return true;
    entry->changing &= c->smoothing == NULL;
    put_in_force(c); /* what was not made changes nothing */
    qd_free(c);
    return false;
}

/* *known: as is_known, which only smoothing asks. */
static bool smoothing_due(const struct qd_server *server, const struct qd_model_entry *entry, bool *known)
{
    *known = !entry->changing && qd_model_smoothing_due(entry->model, true) && is_known(server, entry);
    return !entry->changing && qd_model_smoothing_due(entry->model, *known);
}

bool qd_corrections_check(struct qd_server *server, struct qd_model_entry *entry, void (*done)(void *ctx), void *ctx)
{
    struct qd_error error;
    struct qd_plan_report plan;
    bool known;
    const bool smooth = smoothing_due(server, entry, &known);
    if (entry->correcting || server->draining || (!smooth && !qd_model_correction_due(entry->model)))
        return false;
    struct correcting *c = qd_calloc(1, sizeof *c);
    if (!c || (smooth ? qd_smoothing_create(entry->model, known, &c->smoothing, &error)
                      : qd_correction_create(entry->model, &c->correction, &error)) != QD_OK) {
        qd_free(c);
        return false;
    }
    qd_model_plan(entry->model, &plan);
    const bool waits = plan.packed_bytes <= WAITED_BYTES;
    c->done = waits ? done : NULL;
    c->ctx = ctx;
    return begin(server, c, entry) && waits;
}

static void judge_biases(struct qd_model_entry *entry)
{
    struct qd_correction_report report;
    if (!qd_model_correction_harms(entry->model) || entry->changing || entry->correcting)
        return;
    qd_model_correction(entry->model, &report);
    if (qd_model_correction_undo(entry->model))
        qd_log(QD_LOG_INFO,
               "model '%s': correction of the biases is taken back: cosine to FP32 of %" PRIu64
               " requests is %.6f with it, %.6f without",
               entry->name, report.compared, 1 - report.with, 1 - report.without);
}

void qd_corrections_judge(struct qd_server *server, struct qd_model_entry *entry)
{
    struct qd_error error;
    const double before = entry->unsmoothed, now = measured(entry);
    if (!server->draining)
        judge_biases(entry);
    if (before == 0 || now == 0 || entry->changing || entry->correcting || server->draining)
        return;
    entry->unsmoothed = 0;
    if (1 - now <= HARM * (1 - before))
        return;
    struct correcting *c = qd_calloc(1, sizeof *c);
    if (!c || qd_smoothing_undo(entry->model, entry->smoothed, &c->smoothing, &error) != QD_OK) {
        qd_free(c);
        return;
    }
    qd_log(QD_LOG_INFO, "model '%s': smoothing is taken back: it made the cosine to FP32 %.6f from %.6f", entry->name,
           now, before);
    (void)begin(server, c, entry);
}
