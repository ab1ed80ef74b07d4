/* Plans by measured error. See auto_precision.h. */
#include "server/auto_precision.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/audit.h"

struct moving {
    uv_work_t work;
    struct qd_model_entry *entry;
    struct qd_model *model; /* a reference */
    struct qd_rebalance *rebalance;
    struct qd_change *change;
    struct qd_error error;
    enum qd_status status;
};

static void destroy(struct moving *m)
{
    qd_change_discard(&m->change);
    qd_rebalance_destroy(&m->rebalance);
    qd_model_unref(&m->model);
    qd_free(m);
}

static void on_thread(uv_work_t *work)
{
    struct moving *m = work->data;
    m->status = qd_change_create(m->model, qd_rebalance_options(m->rebalance), &m->change, &m->error);
}

static void on_compiled(uv_work_t *work, int status)
{
    struct moving *m = work->data;
    struct qd_audit_before *before = qd_audit_look(m->entry);
    (void)status;
    m->entry->changing = false;
    if (!m->status)
        m->status = qd_change_adopt(&m->change, &m->error);
    if (m->status) {
        qd_log(QD_LOG_WARNING, "model '%s' keeps its plan: %s", m->entry->name, m->error.text);
        qd_audit_drop(&before);
    } else {
        qd_rebalance_adopted(m->rebalance);
        qd_audit_note(m->entry, &before, qd_rebalance_reason(m->rebalance));
    }
    destroy(m);
}

static void announce(const struct moving *m)
{
    const char *name = m->entry->name;
    double error = 0, cost_us = 0;
    for (size_t i = 0; i < qd_rebalance_moves(m->rebalance); i++) {
        struct qd_precision_move move;
        qd_rebalance_move(m->rebalance, i, &move);
        error += move.error;
        cost_us += move.cost_us;
        qd_log(QD_LOG_DEBUG, "model '%s': '%s' from %s to %s: %+.3f of the error allowed, %+.1f us", name, move.node,
               qd_precision_name(move.from), qd_precision_name(move.to), move.error, move.cost_us);
    }
    qd_log(QD_LOG_INFO, "model '%s': %s: %zu layers are to move, for %+.2f of the error allowed and %+.0f us", name,
           qd_rebalance_reason(m->rebalance), qd_rebalance_moves(m->rebalance), error, cost_us);
}

void qd_auto_precision(struct qd_server *server, struct qd_model_entry *entry)
{
    struct qd_error error = {0};
    struct qd_rebalance *rebalance = NULL;
    if (entry->changing || server->draining || qd_model_smoothing_awaited(entry->model))
        return;
    if (qd_rebalance_create(entry->model, &rebalance, &error) != QD_OK)
        qd_log(QD_LOG_WARNING, "model '%s': %s", entry->name, error.text);
    struct moving *m = rebalance ? qd_calloc(1, sizeof *m) : NULL;
    if (!m) {
        qd_rebalance_destroy(&rebalance);
        return;
    }
    *m = (struct moving){.entry = entry, .model = qd_model_ref(entry->model), .rebalance = rebalance, .work.data = m};
    announce(m);
    entry->changing = uv_queue_work(server->loop, &m->work, on_thread, on_compiled) == 0;
    if (!entry->changing)
        destroy(m);
}
