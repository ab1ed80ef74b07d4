/* Bias correction on a thread of its own. See corrections.h. */
#include "server/corrections.h"

#include "base/log.h"
#include "base/mem.h"

#include <inttypes.h>

#define WAITED_BYTES (64u << 20) /* of packed weights: takes a fraction of a second */

struct correcting {
    uv_work_t work;
    struct qd_model_entry *entry;
    struct qd_correction *correction;
    void (*done)(void *ctx); /* NULL: nobody waits */
    void *ctx;
};

static void on_thread(uv_work_t *work)
{
    struct correcting *c = work->data;
    qd_correction_run(c->correction);
}

static void on_made(uv_work_t *work, int status)
{
    struct correcting *c = work->data;
    struct qd_correction_report report;
    (void)status;
    c->entry->correcting = false;
    if (qd_correction_finish(&c->correction)) {
        qd_model_correction(c->entry->model, &report);
        qd_log(QD_LOG_INFO, "model '%s': biases of %zu layers corrected, by the inputs of %" PRIu64 " requests",
               c->entry->name, report.layers, report.requests);
    }
    if (c->done)
        c->done(c->ctx);
    qd_free(c);
}

bool qd_corrections_check(struct qd_server *server, struct qd_model_entry *entry, void (*done)(void *ctx), void *ctx)
{
    struct qd_error error;
    struct qd_plan_report plan;
    if (entry->correcting || server->draining || !qd_model_correction_due(entry->model))
        return false;
    qd_model_plan(entry->model, &plan);
    struct correcting *c = qd_calloc(1, sizeof *c);
    if (!c || qd_correction_create(entry->model, &c->correction, &error) != QD_OK) {
        qd_free(c);
        return false; /* the biases stay as they are; tried again later */
    }
    c->entry = entry;
    c->done = plan.packed_bytes <= WAITED_BYTES ? done : NULL;
    c->ctx = ctx;
    c->work.data = c;
    entry->correcting = uv_queue_work(server->loop, &c->work, on_thread, on_made) == 0;
    if (!entry->correcting) {
        (void)qd_correction_finish(&c->correction);
        qd_free(c);
        return false;
    }
    return c->done != NULL;
}
