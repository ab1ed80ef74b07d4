/* The tensors that layers hand to each other, for what a choice of precisions costs beside the layers: making integers
 * of floats where neighbours run in different precisions (engine/quant/budget.h). Found by values of the graph, which
 * are the same under every plan; not by the conversions of the plan in force, which are this plan's. */
#include "engine/mixed_impl.h"

#include <string.h>

/* How a layer stands to a tensor; readers of OTHER take floats as well in INT8. */
enum role { MAKER, READER, OTHER, ROLES };

struct linker {
    const struct qd_plan *plan;
    struct qd_arena *arena;
    int *root;                        /* [value_count] the tensor whose elements a value has: views and moves */
    struct qd_budget_tensor *tensors; /* [value_count] by root */
    size_t *filled;                   /* [value_count][ROLES] ends so far */
    int *layer_of;                    /* [step_count] -1: the step is no layer */
    size_t count;
};

static int root_of(const struct linker *k, int value)
{
    while (k->root[value] != value)
        value = k->root[value];
    return value;
}

/* The tensor in a slot; NULL: a constant, or none. */
static struct qd_budget_tensor *tensor_in(const struct linker *k, int slot)
{
    if (slot == QD_NO_VALUE || k->plan->slots[slot].constant || k->plan->slots[slot].value < 0)
        return NULL;
    return &k->tensors[root_of(k, k->plan->slots[slot].value)];
}

static bool is_conversion(const struct qd_step *step)
{
    return step->kind != QD_STEP_OP && step->kind != QD_STEP_LINEAR && step->kind != QD_STEP_CONTROL;
}

/* Its output is its first input's elements, integers where that is integers. */
static bool hands_on(const struct linker *k, int s)
{
    const struct qd_step *step = &k->plan->steps[s];
    return step->kind == QD_STEP_OP && k->layer_of[s] < 0 && (step->op->flags & (QD_OP_MOVES | QD_OP_VIEW)) &&
           step->in_count > 0 && step->out_count == 1 && step->in[0] != QD_NO_VALUE && step->out[0] != QD_NO_VALUE;
}

static void find_roots(struct linker *k)
{
    for (int v = 0; v < k->plan->graph.value_count; v++)
        k->root[v] = v;
    for (int s = 0; s < k->plan->step_count; s++) {
        const struct qd_step *step = &k->plan->steps[s];
        if (hands_on(k, s) && tensor_in(k, step->in[0]))
            k->root[k->plan->slots[step->out[0]].value] = root_of(k, k->plan->slots[step->in[0]].value);
    }
}

/* What isn't a layer's takes and gives floats. */
static void note_floats(struct linker *k)
{
    const struct qd_plan *plan = k->plan;
    struct qd_budget_tensor *tensor;
    for (int i = 0; i < plan->slot_count; i++)
        if (plan->slots[i].input >= 0 && (tensor = tensor_in(k, i)))
            tensor->floats = true;
    for (int i = 0; i < plan->graph.output_count; i++)
        if ((tensor = tensor_in(k, plan->output_slots[i])))
            tensor->floats = true;
    for (int s = 0; s < plan->step_count; s++) {
        const struct qd_step *step = &plan->steps[s];
        if (is_conversion(step) || k->layer_of[s] >= 0 || hands_on(k, s))
            continue;
        for (int i = 0; i < step->in_count + step->out_count; i++)
            if ((tensor = tensor_in(k, i < step->in_count ? step->in[i] : step->out[i - step->in_count])))
                tensor->floats = true;
    }
}

/* Every end of every layer is visited by f; the same one may come twice. */
static void visit(struct linker *k,
                  void (*f)(struct linker *k, struct qd_budget_tensor *t, enum role role, size_t layer))
{
    for (int s = 0; s < k->plan->step_count; s++) {
        const struct qd_step *step = &k->plan->steps[s];
        const int sum = step->kind == QD_STEP_LINEAR ? qd_step_residual(step) : QD_NO_VALUE;
        const int scales = step->kind == QD_STEP_LINEAR ? qd_step_rows(step) : QD_NO_VALUE;
        struct qd_budget_tensor *t;
        for (int i = 0; k->layer_of[s] >= 0 && i < step->out_count; i++)
            if ((t = tensor_in(k, step->out[i])))
                f(k, t, MAKER, (size_t)k->layer_of[s]);
        for (int i = 0; k->layer_of[s] >= 0 && i < step->in_count; i++)
            if (step->in[i] != scales && (t = tensor_in(k, step->in[i])))
                f(k, t, step->in[i] == sum ? OTHER : READER, (size_t)k->layer_of[s]);
    }
}

static void count_end(struct linker *k, struct qd_budget_tensor *t, enum role role, size_t layer)
{
    (void)layer;
    k->filled[(size_t)(t - k->tensors) * ROLES + role]++;
}

static void add_end(struct linker *k, struct qd_budget_tensor *t, enum role role, size_t layer)
{
    size_t *filled = &k->filled[(size_t)(t - k->tensors) * ROLES];
    const size_t first = role == MAKER ? 0 : role == READER ? t->makers : t->makers + t->readers;
    ((size_t *)t->ends)[first + filled[role]++] = layer;
}

static bool make_ends(struct linker *k)
{
    visit(k, count_end);
    for (int v = 0; v < k->plan->graph.value_count; v++) {
        struct qd_budget_tensor *t = &k->tensors[v];
        size_t *filled = &k->filled[(size_t)v * ROLES];
        t->makers = filled[MAKER];
        t->readers = filled[READER];
        t->others = filled[OTHER];
        t->ends = qd_arena_alloc(k->arena, t->makers + t->readers + t->others + 1, sizeof *t->ends);
        if (!t->ends)
            return false;
        memset(filled, 0, ROLES * sizeof *filled);
    }
    visit(k, add_end);
    return true;
}

static void set_cost(struct linker *k, const struct qd_step *step, const struct qd_mixed_layer *record)
{
    struct qd_budget_tensor *out = step->kind == QD_STEP_LINEAR ? tensor_in(k, step->out[0]) : NULL;
    if (out)
        out->floats_cost = record->float_us;
    for (int i = 0; i < step->in_count && i < QD_TIMED_INPUTS; i++) {
        struct qd_budget_tensor *t = tensor_in(k, step->in[i]);
        if (!t || record->in_us[i] <= t->cost[QD_WAY_INT8])
            continue;
        t->cost[QD_WAY_INT8] = record->in_us[i];
        t->cost[QD_WAY_INT16] = record->in_us[i] * QD_WORDS_TIME;
    }
}

/* The layer's list, each tensor once. */
static bool list_tensors(struct linker *k, const struct qd_step *step, struct qd_budget_layer *layer)
{
    const int most = step->in_count + step->out_count;
    const struct qd_budget_tensor **list = qd_arena_alloc(k->arena, (size_t)most + 1, sizeof *list);
    const int scales = step->kind == QD_STEP_LINEAR ? qd_step_rows(step) : QD_NO_VALUE;
    size_t n = 0;
    for (int i = 0; list && i < most; i++) {
        const int slot = i < step->in_count ? step->in[i] : step->out[i - step->in_count];
        const struct qd_budget_tensor *t = slot == scales ? NULL : tensor_in(k, slot);
        bool there = t == NULL;
        for (size_t j = 0; !there && j < n; j++)
            there = list[j] == t;
        if (!there)
            list[n++] = t;
    }
    layer->tensors = list;
    layer->tensor_count = n;
    return list != NULL;
}

bool qd_mixed_link(const struct qd_plan *plan, struct qd_budget_layer *layers, const int *steps,
                   const struct qd_mixed_layer *const *records, size_t count, struct qd_arena *arena)
{
    const size_t values = (size_t)plan->graph.value_count;
    struct linker k = {.plan = plan,
                       .arena = arena,
                       .root = qd_arena_alloc(arena, values + 1, sizeof *k.root),
                       .tensors = qd_arena_alloc(arena, values + 1, sizeof *k.tensors),
                       .filled = qd_arena_alloc(arena, (values + 1) * ROLES, sizeof *k.filled),
                       .layer_of = qd_arena_alloc(arena, (size_t)plan->step_count + 1, sizeof *k.layer_of),
                       .count = count};
    if (!k.root || !k.tensors || !k.filled || !k.layer_of)
        return false;
    for (int s = 0; s < plan->step_count; s++)
        k.layer_of[s] = -1;
    for (size_t i = 0; i < count; i++)
        k.layer_of[steps[i]] = (int)i;
    find_roots(&k);
    note_floats(&k);
    if (!make_ends(&k))
        return false;
    for (size_t i = 0; i < count; i++) {
        const struct qd_step *step = &plan->steps[steps[i]];
        set_cost(&k, step, records[i]);
        if (step->kind == QD_STEP_LINEAR && tensor_in(&k, step->out[0]))
            tensor_in(&k, step->out[0])->written = true;
        if (step->kind == QD_STEP_LINEAR && records[i]->rows) /* it makes its rows' integers of floats, always */
            tensor_in(&k, step->in[0])->floats = true;
        if (!list_tensors(&k, step, &layers[i]))
            return false;
    }
    return true;
}
