/* Shaped plans: what one set of input shapes fixes, and the cache of them. */
#include "engine/plan/memory.h"
#include "engine/plan/plan.h"
#include "engine/plan/work.h"

#include <string.h>

/* Values that follow from shapes alone are computed beforehand up to this size. */
#define MAX_KNOWN_ELEMS (1 << 16)
#define MAX_KNOWN_WORK  ((double)(1 << 24)) /* of one step */

void qd_shaped_unref(struct qd_shaped **shaped)
{
    struct qd_shaped *s = *shaped;
    *shaped = NULL;
    if (s && qd_ref_drop(&s->ref)) {
        struct qd_arena *arena = s->arena;
        qd_arena_destroy(&arena);
    }
}

static enum qd_status start(const struct qd_plan *plan, const struct qd_shape *inputs, const enum qd_dtype *dtypes,
                            struct qd_shaped **out)
{
    struct qd_arena *arena;
    enum qd_status status = qd_arena_create(16 << 10, &arena);
    if (status)
        return status;
    size_t slots = (size_t)plan->slot_count, n = (size_t)plan->graph.input_count;
    struct qd_shaped *s = qd_arena_alloc(arena, 1, sizeof *s);
    if (!s)
        goto fail;
    s->arena = arena;
    s->inputs = qd_arena_alloc(arena, n, sizeof *s->inputs);
    s->dtypes = qd_arena_alloc(arena, n, sizeof *s->dtypes);
    s->slots = qd_arena_alloc(arena, slots, sizeof *s->slots);
    s->offsets = qd_arena_alloc(arena, slots, sizeof *s->offsets);
    s->alias = qd_arena_alloc(arena, slots, sizeof *s->alias);
    s->done = qd_arena_alloc(arena, (size_t)plan->step_count, sizeof *s->done);
    if (!s->inputs || !s->dtypes || !s->slots || !s->offsets || !s->alias || !s->done)
        goto fail;
    qd_ref_init(&s->ref);
    for (size_t i = 0; i < n; i++) {
        s->inputs[i] = inputs[i];
        s->dtypes[i] = dtypes ? dtypes[i] : plan->graph.values[plan->graph.inputs[i]].info.dtype;
    }
    for (int i = 0; i < plan->slot_count; i++) {
        const struct qd_slot *slot = &plan->slots[i];
        s->offsets[i] = SIZE_MAX;
        s->alias[i] = -1;
        if (slot->input >= 0)
            s->slots[i] = (struct qd_tensor){.dtype = s->dtypes[slot->input], .shape = inputs[slot->input]};
        else if (slot->constant)
            s->slots[i] = *slot->constant;
        if (slot->input >= 0)
            qd_plan_place_empty(&s->slots[i]);
    }
    *out = s;
    return QD_OK;
fail:
    qd_arena_destroy(&arena);
    return QD_ERR_NO_MEMORY;
}

static bool is_view(const struct qd_step *step) { return step->kind == QD_STEP_OP && (step->op->flags & QD_OP_VIEW); }

/* Runs a generic step now when all it reads is known; its outputs' data then lies in the shaped plan's arena. */
static enum qd_status run_if_known(const struct qd_plan *plan, struct qd_shaped *s, const struct qd_step *step,
                                   bool *known, struct qd_error *error)
{
    struct qd_tensor in[QD_MAX_STEP_TENSORS], out[QD_MAX_OUTPUTS];
    struct qd_call call;
    *known = false;
    if (step->kind != QD_STEP_OP || step->int8)
        return QD_OK;
    qd_step_call(plan, step, s->slots, in, out, &call);
    for (int i = 0; i < step->in_count; i++)
        if (step->in[i] != QD_NO_VALUE && !in[i].data && qd_tensor_elems(&in[i]) != 0 &&
            !(step->op->flags & QD_OP_SHAPE_ONLY))
            return QD_OK;
    for (int i = 0; i < step->out_count; i++)
        if (qd_tensor_elems(&out[i]) > MAX_KNOWN_ELEMS || out[i].dtype == QD_STR ||
            (step->in_count == 0 && step->out_count == 0))
            return QD_OK;
    if (qd_op_work(&call) > MAX_KNOWN_WORK)
        return QD_OK;
    size_t scratch = step->op->scratch ? step->op->scratch(&call) : 0;
    if (scratch > plan->options.request_bytes || qd_arena_bytes(s->arena) > plan->options.request_bytes)
        return QD_ERR_TOO_LARGE;
    for (int i = 0; i < step->out_count; i++) {
        out[i].data = qd_arena_alloc_raw(s->arena, qd_tensor_bytes(&out[i]));
        if (!out[i].data)
            return QD_ERR_NO_MEMORY;
    }
    call.scratch = qd_arena_alloc_raw(s->arena, scratch);
    if (!call.scratch)
        return QD_ERR_NO_MEMORY;
    enum qd_status status = step->op->run(&call, error);
    for (int i = 0; !status && i < step->out_count; i++)
        if (step->out[i] != QD_NO_VALUE)
            s->slots[step->out[i]].data = out[i].data;
    *known = !status;
    return status;
}

static int root_of(const struct qd_shaped *s, int slot)
{
    while (s->alias[slot] >= 0)
        slot = s->alias[slot];
    return slot;
}

/* Shapes of all steps in order, up to the first that needs data. */
static enum qd_status infer_all(const struct qd_plan *plan, struct qd_shaped *s, struct qd_error *error)
{
    for (s->static_steps = 0; s->static_steps < plan->step_count; s->static_steps++) {
        const struct qd_step *step = &plan->steps[s->static_steps];
        enum qd_status status = qd_step_infer(plan, step, s->slots, error);
        if (status == QD_ERR_NEEDS_DATA)
            return QD_OK;
        if (status)
            return status;
        bool known;
        status = run_if_known(plan, s, step, &known, error);
        if (status)
            return status;
        s->done[s->static_steps] = known;
        if (known)
            continue;
        if (is_view(step) && step->out[0] != QD_NO_VALUE) {
            s->alias[step->out[0]] = step->in[0];
            s->done[s->static_steps] = step->out_count == 1;
        }
        size_t scratch = qd_step_scratch(plan, step, s->slots);
        s->scratch_bytes = scratch > s->scratch_bytes ? scratch : s->scratch_bytes;
    }
    return QD_OK;
}

/* One block per slot that a static step writes; a view prolongs the life of what it looks at. */
static enum qd_status place_memory(const struct qd_plan *plan, struct qd_shaped *s)
{
    struct qd_block *blocks = qd_calloc((size_t)plan->slot_count, sizeof *blocks);
    if (!blocks)
        return QD_ERR_NO_MEMORY;
    for (int i = 0; i < s->static_steps; i++) {
        const struct qd_step *step = &plan->steps[i];
        for (int o = 0; o < step->out_count; o++) {
            int slot = step->out[o];
            if (slot == QD_NO_VALUE || s->slots[slot].data || s->alias[slot] >= 0)
                continue;
            blocks[slot] = (struct qd_block){
                .bytes = qd_align_up(qd_tensor_bytes(&s->slots[slot])), .first = i, .last = i};
        }
    }
    for (int i = 0; i < plan->slot_count; i++) {
        struct qd_block *block = &blocks[root_of(s, i)];
        if (block->bytes && plan->last_use[i] > block->last)
            block->last = plan->last_use[i];
    }
    size_t end = 0;
    enum qd_status status = qd_memory_place(blocks, (size_t)plan->slot_count, &end);
    for (int i = 0; !status && i < plan->slot_count; i++)
        if (blocks[i].bytes)
            s->offsets[i] = blocks[i].offset;
    qd_free(blocks);
    s->scratch_offset = end;
    if (!status && (!qd_size_add(end, qd_align_up(s->scratch_bytes), &s->workspace_bytes) ||
                    s->workspace_bytes > plan->options.request_bytes))
        status = QD_ERR_TOO_LARGE;
    return status;
}

static struct qd_shaped *find(struct qd_plan *plan, const struct qd_shape *inputs, const enum qd_dtype *dtypes)
{
    for (struct qd_shaped **link = &plan->cache; *link; link = &(*link)->next) {
        struct qd_shaped *s = *link;
        int i = 0;
        while (i < plan->graph.input_count && qd_shape_equal(&s->inputs[i], &inputs[i]) &&
               (!dtypes || dtypes[i] == s->dtypes[i]))
            i++;
        if (i < plan->graph.input_count)
            continue;
        *link = s->next; /* to the front */
        s->next = plan->cache;
        plan->cache = s;
        qd_ref_take(&s->ref);
        return s;
    }
    return NULL;
}

static void keep(struct qd_plan *plan, struct qd_shaped *s)
{
    int count = 1;
    qd_ref_take(&s->ref);
    s->next = plan->cache;
    plan->cache = s;
    for (struct qd_shaped *last = s; last->next; last = last->next)
        if (++count > QD_SHAPES_KEPT) {
            struct qd_shaped *oldest = last->next; /* the list never grows by more than one */
            last->next = NULL;
            qd_shaped_unref(&oldest);
            break;
        }
}

enum qd_status qd_plan_shape(struct qd_plan *plan, const struct qd_shape *inputs, struct qd_shaped **out,
                             struct qd_error *error)
{
    return qd_plan_shape_typed(plan, inputs, NULL, out, error);
}

enum qd_status qd_plan_shape_typed(struct qd_plan *plan, const struct qd_shape *inputs, const enum qd_dtype *dtypes,
                                   struct qd_shaped **out, struct qd_error *error)
{
    pthread_mutex_lock(&plan->cache_lock);
    struct qd_shaped *s = find(plan, inputs, dtypes);
    pthread_mutex_unlock(&plan->cache_lock);
    if (s) {
        *out = s;
        return QD_OK;
    }
    for (int i = 0; i < plan->graph.input_count; i++) {
        int64_t elems, bytes;
        if (!qd_shape_elems(&inputs[i], &elems) || !qd_i64_mul(elems, 8, &bytes))
            return qd_fail(error, QD_ERR_TOO_LARGE, "input '%s' is too large to address",
                           plan->graph.values[plan->graph.inputs[i]].name);
    }
    enum qd_status status = start(plan, inputs, dtypes, &s);
    if (status)
        return qd_fail(error, status, "no memory for a plan of these shapes");
    status = infer_all(plan, s, error);
    if (!status)
        status = place_memory(plan, s);
    if (status) {
        qd_shaped_unref(&s);
        if (status == QD_ERR_NO_MEMORY || status == QD_ERR_TOO_LARGE)
            return qd_fail(error, status, "the tensors of these shapes take more memory than the %zu MiB of a request",
                           plan->options.request_bytes >> 20);
        return status;
    }
    pthread_mutex_lock(&plan->cache_lock);
    keep(plan, s);
    pthread_mutex_unlock(&plan->cache_lock);
    *out = s;
    return QD_OK;
}
