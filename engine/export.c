/* Exporting a model: what is taken hold of, and the stream of bytes. See export.h. */
#include "engine/export_impl.h"

#include <inttypes.h>
#include <stdio.h>

enum qd_status qd_export_create(struct qd_model *model, uint64_t epoch, struct qd_export **out, struct qd_error *error)
{
    struct qd_plan *plan = model->plan;
    struct qd_epoch *found = epoch ? qd_learner_find(model->learner, epoch) : qd_learner_current(model->learner);
    for (int i = 0; !found && i < QD_GENERATIONS_KEPT && model->older[i].plan; i++) {
        found = qd_learner_find(model->older[i].learner, epoch);
        plan = model->older[i].plan;
    }
    if (!found)
        return qd_fail(error, QD_ERR_CONFLICT, "epoch %" PRIu64 " is not kept; the current one is %" PRIu64, epoch,
                       qd_learner_current(model->learner)->id);
    struct qd_export *x = qd_calloc(1, sizeof *x);
    if (!x)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to export the model");
    x->model = qd_model_ref(model);
    x->plan = qd_plan_ref(plan);
    x->epoch = qd_epoch_ref(found);
    *out = x;
    return QD_OK;
}

void qd_export_destroy(struct qd_export **export)
{
    struct qd_export *x = *export;
    *export = NULL;
    if (!x)
        return;
    qd_epoch_unref(&x->epoch);
    qd_plan_unref(&x->plan);
    qd_model_unref(&x->model);
    qd_free(x);
}

static void clear(struct qd_export *x)
{
    qd_map_clear(&x->makers);
    qd_map_clear(&x->inputs);
    qd_map_clear(&x->values);
    qd_map_clear(&x->layers_by_name);
    qd_map_clear(&x->needed);
    qd_free(x->integers);
    qd_arena_destroy(&x->arena);
}

/* Protocol buffers end at 2 GiB. */
#define MOST_BYTES ((uint64_t)INT32_MAX)

static enum qd_status emit(struct qd_export *x, bool (*put)(void *user, const void *bytes, size_t size), void *user)
{
    struct qd_writer length = {.put = NULL}, writer = {.put = put, .user = user};
    qd_export_emit_model(&length, x);
    if (length.size > MOST_BYTES)
        return qd_fail(x->error, QD_ERR_TOO_LARGE,
                       "the exported model would have %" PRIu64 " bytes, a file ends at 2 GiB", length.size);
    qd_export_emit_model(&writer, x);
    return writer.failed ? qd_fail(x->error, QD_ERR_IO, "the exported model can't be written") : QD_OK;
}

enum qd_status qd_export_write(struct qd_export *export, bool (*put)(void *user, const void *bytes, size_t size),
                               void *user, struct qd_error *error)
{
    struct qd_export *x = export;
    struct qd_error local;
    *x = (struct qd_export){.model = x->model, .plan = x->plan, .epoch = x->epoch, .error = error ? error : &local};
    enum qd_status status = qd_arena_create(64 << 10, &x->arena);
    x->integers = qd_calloc(QD_EXPORT_PIECE, 1);
    if (status || !x->integers)
        status = qd_fail(x->error, QD_ERR_NO_MEMORY, "no memory to export the model");
    if (!status)
        status = qd_export_find(x);
    if (!status)
        status = emit(x, put, user);
    clear(x);
    x->arena = NULL;
    x->integers = NULL;
    return status;
}

void qd_export_report(const struct qd_export *export, struct qd_export_report *out)
{
    *out = export->report;
    out->model = qd_model_name(export->model);
    out->digest = qd_model_digest(export->model);
    out->epoch = export->epoch->id;
}

size_t qd_export_range_count(const struct qd_export *export) { return (size_t) export->plan->site_count; }

void qd_export_range(const struct qd_export *export, size_t i, struct qd_export_range *out)
{
    const struct qd_site *site = &export->plan->sites[i];
    const struct qd_site_params *params = &export->epoch->sites[i];
    const bool symmetric = site->symmetric && !site->wide;
    const int32_t offset = symmetric ? QD_CARRIER_OFFSET : 0;
    *out = (struct qd_export_range){.name = site->name,
                                    .ready = params->ready,
                                    .lo = params->lo,
                                    .hi = params->hi,
                                    .scale = params->qp.scale,
                                    .zero_point = params->qp.zero_point - offset,
                                    .qmin = params->qp.qmin - offset,
                                    .qmax = params->qp.qmax - offset,
                                    .dtype = site->wide  ? QD_I16
                                             : symmetric ? QD_I8
                                                         : QD_U8};
}
