/* The list of changed layers. See audit.h. */
#include "server/audit.h"

#include "base/log.h"
#include "base/mem.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

struct entry {
    int64_t unix_ms;
    char *node, *reason;
    enum qd_precision from, to;
};

/* A ring: the entry after the last is at (first + count) % QD_AUDIT_ENTRIES. */
struct qd_audit {
    size_t first, count;
    struct entry entries[QD_AUDIT_ENTRIES];
};

struct layer {
    char *node;
    bool follows;
    enum qd_precision precision;
};

struct qd_audit_before {
    size_t count;
    struct layer layers[];
};

static int64_t unix_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static char *copy_of(const char *text) { return qd_strndup(text, strlen(text)); }

/* Conversions come and go with the layers: they are none, though they bear their names. */
static bool is_layer(const struct qd_step_report *step)
{
    return strcmp(step->op, "QuantizeLinear") != 0 && strcmp(step->op, "DequantizeLinear") != 0 &&
           strcmp(step->op, "Transpose") != 0;
}

struct qd_audit_before *qd_audit_look(const struct qd_model_entry *entry)
{
    struct qd_plan_report plan;
    qd_model_plan(entry->model, &plan);
    struct qd_audit_before *before = qd_calloc(1, sizeof *before + plan.steps * sizeof before->layers[0]);
    for (size_t i = 0; before && i < plan.steps; i++) {
        struct qd_step_report step;
        qd_model_step(entry->model, i, &step);
        struct layer *layer = &before->layers[before->count];
        if (!is_layer(&step) || !(layer->node = copy_of(step.node)))
            continue;
        layer->precision = step.precision;
        layer->follows = step.follows;
        before->count++;
    }
    return before;
}

void qd_audit_drop(struct qd_audit_before **before)
{
    struct qd_audit_before *b = *before;
    *before = NULL;
    for (size_t i = 0; b && i < b->count; i++)
        qd_free(b->layers[i].node);
    qd_free(b);
}

static void release(struct entry *e)
{
    qd_free(e->node);
    qd_free(e->reason);
    *e = (struct entry){0};
}

void qd_audit_free(struct qd_audit **audit)
{
    for (size_t i = 0; *audit && i < QD_AUDIT_ENTRIES; i++)
        release(&(*audit)->entries[i]);
    qd_free(*audit);
    *audit = NULL;
}

static void note(struct qd_model_entry *entry, const struct qd_step_report *step, enum qd_precision from,
                 const char *reason)
{
    const char *why = reason ? reason : step->reason ? step->reason : "";
    struct qd_audit *a = entry->audit;
    qd_log(QD_LOG_INFO, "model '%s': layer '%s' runs in %s from now on, not %s: %s", entry->name, step->node,
           qd_precision_name(step->precision), qd_precision_name(from), why);
    if (!a && !(a = entry->audit = qd_calloc(1, sizeof *a)))
        return;
    struct entry e = {unix_ms(), copy_of(step->node), copy_of(why), from, step->precision};
    if (!e.node || !e.reason) {
        release(&e);
        return;
    }
    if (a->count == QD_AUDIT_ENTRIES)
        a->first = (a->first + 1) % QD_AUDIT_ENTRIES;
    else
        a->count++;
    struct entry *place = &a->entries[(a->first + a->count - 1) % QD_AUDIT_ENTRIES];
    release(place);
    *place = e;
}

void qd_audit_note(struct qd_model_entry *entry, struct qd_audit_before **before, const char *reason)
{
    struct qd_plan_report plan;
    struct qd_audit_before *b = *before;
    qd_model_plan(entry->model, &plan);
    for (size_t i = 0, from = 0; b && i < plan.steps; i++) {
        struct qd_step_report step;
        qd_model_step(entry->model, i, &step);
        if (!is_layer(&step))
            continue;
        for (size_t n = 0; n < b->count; n++) { /* the order is the same */
            const struct layer *layer = &b->layers[(from + n) % b->count];
            if (strcmp(layer->node, step.node) != 0)
                continue;
            from = (from + n + 1) % b->count;
            if (layer->precision != step.precision && !(layer->follows && step.follows))
                note(entry, &step, layer->precision, reason);
            break;
        }
    }
    qd_audit_drop(before);
}

void qd_audit_write(struct qd_text *out, const struct qd_model_entry *entry)
{
    const struct qd_audit *a = entry->audit;
    qd_text_puts(out, "[");
    for (size_t i = 0; a && i < a->count; i++) {
        const struct entry *e = &a->entries[(a->first + i) % QD_AUDIT_ENTRIES];
        qd_text_printf(out, "%s{\"unix_ms\":%" PRId64 ",\"node\":", i ? "," : "", e->unix_ms);
        qd_text_json_string(out, e->node);
        qd_text_printf(out, ",\"from\":\"%s\",\"to\":\"%s\",\"reason\":", qd_precision_name(e->from),
                       qd_precision_name(e->to));
        qd_text_json_string(out, e->reason);
        qd_text_puts(out, "}");
    }
    qd_text_puts(out, "]");
}
