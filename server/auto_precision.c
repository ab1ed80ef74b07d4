/* Choosing layers by their measured error and time. See auto_precision.h. */
#include "server/auto_precision.h"

#include "base/log.h"
#include "base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ENOUGH 16 /* measured requests under a plan before anything is concluded */

struct moving {
    uv_work_t work;
    struct qd_model_entry *entry;
    struct qd_model *model; /* a reference */
    struct qd_quant_options options;
    struct qd_layer_pin *pins;
    size_t moved; /* the last pins of the options */
    struct qd_change *change;
    struct qd_error error;
    enum qd_status status;
};

/* Error that a layer adds, by the time that FP32 costs more: the first to go has most. */
static double worth(const struct qd_layer_accuracy *layer)
{
    const double error = isfinite(layer->sqnr_db) ? pow(10, -layer->sqnr_db / 10) : 0;
    const double cost = layer->fp32_us - layer->int8_us;
    return error / (cost > 1 ? cost : 1);
}

static int worst_first(const void *a, const void *b)
{
    const double x = worth(a), y = worth(b);
    return (x < y) - (x > y);
}

/* Layers of the plan, worst first; NULL: no memory. */
static struct qd_layer_accuracy *ranking(const struct qd_model *model, size_t count)
{
    struct qd_layer_accuracy *layers = qd_calloc(count + 1, sizeof *layers);
    for (size_t i = 0; layers && i < count; i++)
        qd_model_layer_accuracy(model, i, &layers[i]);
    if (layers)
        qsort(layers, count, sizeof *layers, worst_first);
    return layers;
}

static bool asked_for(const struct qd_quant_options *options, const char *node)
{
    for (size_t i = 0; i < options->pin_count; i++)
        if (options->pins[i].kind == QD_PIN_ASKED && strcmp(options->pins[i].node, node) == 0)
            return true;
    return false;
}

/* A sixth of the layers that are left, at least one: few plans are made, and few layers more than needed move. */
static bool choose(struct moving *m, const struct qd_layer_accuracy *layers, size_t count)
{
    const size_t old = m->options.pin_count, most = count / 6 + 1;
    m->pins = qd_calloc(old + most, sizeof *m->pins);
    if (!m->pins)
        return false;
    if (old)
        memcpy(m->pins, m->options.pins, old * sizeof *m->pins);
    for (size_t i = 0; i < count && m->moved < most; i++)
        if (worth(&layers[i]) > 0 && !asked_for(&m->options, layers[i].node))
            m->pins[old + m->moved++] = (struct qd_layer_pin){layers[i].node, QD_FP32, QD_PIN_ACCURACY};
    m->options.pins = m->pins;
    m->options.pin_count = old + m->moved;
    return m->moved > 0;
}

static void destroy(struct moving *m)
{
    qd_change_discard(&m->change);
    qd_model_unref(&m->model);
    qd_free(m->pins);
    qd_free(m);
}

static void on_thread(uv_work_t *work)
{
    struct moving *m = work->data;
    m->status = qd_change_create(m->model, &m->options, &m->change, &m->error);
}

static void on_compiled(uv_work_t *work, int status)
{
    struct moving *m = work->data;
    (void)status;
    m->entry->changing = false;
    for (size_t i = 0; !m->status && i < m->moved; i++) /* before the names' plan may go */
        qd_log(QD_LOG_INFO, "model '%s': layer '%s' runs in fp32 from now on, for target_cosine %g", m->entry->name,
               m->pins[m->options.pin_count - m->moved + i].node, m->options.target_cosine);
    if (!m->status)
        m->status = qd_change_adopt(&m->change, &m->error);
    if (m->status)
        qd_log(QD_LOG_WARNING, "model '%s' keeps its plan: %s", m->entry->name, m->error.text);
    destroy(m);
}

void qd_auto_precision(struct qd_server *server, struct qd_model_entry *entry)
{
    struct qd_accuracy_report report;
    const struct qd_quant_options options = qd_model_options(entry->model);
    qd_model_accuracy(entry->model, &report);
    if (options.target_cosine <= 0 || entry->changing || server->draining || report.sampled < ENOUGH ||
        report.cosine_mean >= options.target_cosine || report.layers == 0)
        return;
    struct qd_layer_accuracy *layers = ranking(entry->model, report.layers);
    struct moving *m = layers ? qd_calloc(1, sizeof *m) : NULL;
    if (m) {
        *m = (struct moving){.entry = entry, .model = qd_model_ref(entry->model), .options = options, .work.data = m};
        entry->changing = choose(m, layers, report.layers) &&
                          uv_queue_work(server->loop, &m->work, on_thread, on_compiled) == 0;
        if (entry->changing)
            qd_log(QD_LOG_INFO, "model '%s': cosine %.6f to FP32 over %" PRIu64 " requests is below %g", entry->name,
                   report.cosine_mean, report.sampled, options.target_cosine);
        else
            destroy(m);
    }
    qd_free(layers);
}
