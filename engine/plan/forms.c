/* Forms. Layouts go forwards from the convolutions; integers go backwards from those who want them: a tensor that only
 * integer steps read is handed over as u8 and becomes a site of whoever writes it; one that somebody also reads as
 * floats is written as floats, and a quantize step makes the u8 for the others. */
#include "engine/plan/forms.h"

#include "engine/plan/control.h"
#include "engine/plan/dims.h"
#include "engine/plan/rules.h"
#include "engine/plan/types.h"

#include <string.h>

struct finder {
    const struct qd_plan *plan;
    const struct qd_unit *units;
    int unit_count;
    struct qd_forms *forms;
    struct qd_error *error;
    bool quantized;              /* the file quantizes activations itself */
    const struct qd_type *types; /* by value */
};

static enum qd_status no_memory(struct qd_error *error)
{
    return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to compile the model");
}

static const struct qd_node *node_of(const struct finder *f, int u) { return &f->plan->graph.nodes[f->units[u].node]; }

const struct qd_tensor **qd_forms_constants(const struct qd_plan *plan, const struct qd_node *node)
{
    const struct qd_graph *graph = &plan->graph;
    const struct qd_tensor **constants = qd_arena_alloc(plan->arena, (size_t)node->in_count + 1, sizeof *constants);
    for (int i = 0; constants && i < node->in_count; i++)
        if (node->in[i] != QD_NO_VALUE && graph->values[node->in[i]].constant && !graph->values[node->in[i]].is_input)
            constants[i] = &graph->values[node->in[i]].info;
    return constants;
}

/* ------------------------------------------------------------------ what the file gives */

static bool moves_only(const struct finder *f, int u)
{
    return !f->units[u].linear && (f->forms->ops[u]->flags & (QD_OP_MOVES | QD_OP_VIEW)) &&
           node_of(f, u)->out_count == 1 && node_of(f, u)->in_count > 0 && node_of(f, u)->in[0] != QD_NO_VALUE;
}

struct facts {
    int *maker,
        *readers; /* [value_count] the unit that makes it, or -1; how often it is read, the model's outputs too */
};

static bool find_facts(const struct finder *f, struct facts *facts)
{
    const struct qd_graph *graph = &f->plan->graph;
    facts->maker = qd_arena_alloc(f->plan->arena, (size_t)graph->value_count, sizeof *facts->maker);
    facts->readers = qd_arena_alloc(f->plan->arena, (size_t)graph->value_count, sizeof *facts->readers);
    if (!facts->maker || !facts->readers)
        return false;
    for (int v = 0; v < graph->value_count; v++)
        facts->maker[v] = -1;
    for (int u = 0; u < f->unit_count; u++) {
        const struct qd_node *node = node_of(f, u);
        for (int i = 0; i < node->in_count; i++)
            if (node->in[i] != QD_NO_VALUE)
                facts->readers[node->in[i]]++;
        if (f->units[u].residual != QD_NO_VALUE)
            facts->readers[f->units[u].residual]++;
        if (f->units[u].out != QD_NO_VALUE)
            facts->maker[f->units[u].out] = u;
    }
    for (int i = 0; i < graph->output_count; i++)
        facts->readers[graph->outputs[i]]++;
    return true;
}

/* A RoundTrip's input, when only it reads it, is written by its scale; so is what that one is moved from. Where it is
 * moved from integers of another scale it stays real. */
static bool take_over(struct finder *f, const struct facts *facts, int value, const struct qd_round_trip *trip)
{
    const struct qd_round_trip **fixed = f->forms->fixed;
    int v = value;
    if (fixed[value]) /* it is another's, or was moved from it */
        return qd_round_trip_same(fixed[value], trip);
    while (facts->maker[v] >= 0 && moves_only(f, facts->maker[v]) && facts->readers[v] == 1)
        v = node_of(f, facts->maker[v])->in[0];
    if (facts->readers[v] != 1 || trip->own || f->plan->graph.values[v].constant)
        return false;
    for (int at = value; at != v; at = node_of(f, facts->maker[at])->in[0])
        fixed[at] = trip;
    fixed[v] = trip;
    return true;
}

/* Scales that the file gives, forwards: of RoundTrips, of what is only moved from them, and of what they take over. */
static enum qd_status find_fixed(struct finder *f)
{
    struct facts facts;
    if (!find_facts(f, &facts))
        return no_memory(f->error);
    for (int u = 0; u < f->unit_count; u++) {
        const struct qd_node *node = node_of(f, u);
        const struct qd_round_trip *trip = qd_round_trip_of(node);
        f->quantized |= trip || qd_node_is(node, "QuantizeLinear") || qd_node_is(node, "DequantizeLinear");
        if (trip) {
            f->forms->takes_over[u] = take_over(f, &facts, node->in[0], trip);
            f->forms->fixed[node->out[0]] = trip;
        } else if (moves_only(f, u) && node->out[0] != QD_NO_VALUE) {
            f->forms->fixed[node->out[0]] = f->forms->fixed[node->in[0]];
        }
    }
    return QD_OK;
}

/* Why a unit of a file that quantizes activations itself doesn't run in integers there, or NULL. */
static const char *file_refusal(const struct finder *f, int u)
{
    const struct qd_node *node = node_of(f, u);
    struct qd_given_weights given;
    if (f->units[u].linear)
        return !f->forms->fixed[node->in[0]] ? "its input is in full precision in the file"
                                             : qd_linear_given(&f->plan->graph, node, &given);
    for (int i = 0; i < node->in_count && i < 32; i++)
        if ((f->forms->wants[u] >> i & 1) && !f->forms->fixed[node->in[i]])
            return "its input is in full precision in the file";
    return f->forms->ops[u]->flags & QD_OP_INT8_INSIDE ? "in full precision in the file" : NULL;
}

/* ------------------------------------------------------------------ precisions */

static enum qd_status find_ops(struct finder *f)
{
    for (int u = 0; u < f->unit_count; u++) {
        const struct qd_node *node = node_of(f, u);
        f->forms->ops[u] = qd_control_kind(node) ? &qd_control_op : qd_op_find(node, f->error);
        if (!f->forms->ops[u])
            return f->error->status;
    }
    return QD_OK;
}

/* Why a node is left alone that has nothing to quantize: what it makes are shapes, indices, truth values. */
static const char *no_form(const struct finder *f, const struct qd_node *node)
{
    int out = node->out_count ? node->out[0] : QD_NO_VALUE;
    enum qd_dtype dtype = out == QD_NO_VALUE ? QD_NONE : f->types[out].dtype;
    bool floats = dtype == QD_NONE || dtype == QD_F32 || dtype == QD_F16 || dtype == QD_BF16 || dtype == QD_F64;
    return floats ? "no integer form of this operator" : "its results are no floats";
}

/* Precision of each unit and its reason: linear units, and operators that ask for integers. */
static enum qd_status choose(struct finder *f)
{
    for (int u = 0; u < f->unit_count; u++) {
        const struct qd_node *node = node_of(f, u);
        const struct qd_op *op = f->forms->ops[u];
        bool linear = f->units[u].linear;
        const char *refusal = no_form(f, node);
        bool inside = op->flags & QD_OP_INT8_INSIDE, integer = linear || op->wants_q8 || inside;
        const bool may_read = integer || (op->flags & QD_OP_READS_Q8);
        const struct qd_pin *pin = may_read ? qd_plan_pin(f->plan, node) : NULL;
        const bool words = integer && (pin ? pin->int16 : f->plan->options.int16);
        const bool fake = integer && (pin ? pin->fake : f->plan->options.fake);
        if (pin && !pin->int8 && !pin->int16 && !pin->fake) {
            refusal = pin->reason;
            f->forms->real[u] = !integer;
        } else if (integer && f->plan->options.fp32) {
            refusal = "full precision was asked for";
        } else if (words) {
            refusal = linear ? qd_linear_int16_refusal(&f->plan->graph, node)
                             : "no 16-bit form of this operator, and 8 bits would cost accuracy";
        } else if (linear) {
            const struct qd_choice *choice = qd_plan_choice(f->plan, node);
            refusal = choice && choice->fp32 && !pin && !f->quantized ? "FP32 is faster here, measured while loading"
                                                                      : qd_linear_int8_refusal(&f->plan->graph, node);
        } else if (inside && fake) {
            refusal = "its integers are made inside of it: fake quantization leaves it in FP32";
        } else if (inside) {
            const struct qd_tensor **constants = qd_forms_constants(f->plan, node);
            if (!constants)
                return no_memory(f->error);
            refusal = node->in_count > 2 && constants[1] && constants[2] ? NULL : "weights are not constant";
        } else if (op->wants_q8) {
            struct qd_packing packing = {.node = node,
                                         .constants = qd_forms_constants(f->plan, node),
                                         .kernels = f->plan->kernels,
                                         .arena = f->plan->arena,
                                         .int8 = true};
            if (!packing.constants)
                return no_memory(f->error);
            f->forms->wants[u] = op->wants_q8(&packing);
            refusal = f->forms->wants[u] ? NULL : "this form of the operator has no integer form";
        }
        bool file = false; /* the file quantizes it */
        if (integer && f->quantized && !words && !refusal) {
            const char *why = file_refusal(f, u);
            refusal = pin ? NULL : why;
            file = !why;
        }
        if (refusal)
            f->forms->wants[u] = 0;
        f->forms->given[u] = file && linear;
        f->forms->int16[u] = words && !refusal;
        f->forms->int8[u] = !words && !refusal;
        f->forms->fake[u] = fake && !refusal;
        f->forms->pinned[u] = pin && pin->asked && (pin->int8 || pin->int16 || pin->fake) == !refusal;
        f->forms->reason[u] = refusal                             ? refusal
                              : pin && (pin->asked || pin->int16) ? pin->reason
                              : file                              ? "quantized in the file"
                              : linear                            ? "linear layer with constant weights"
                                                                  : "products in integers";
    }
    return QD_OK;
}

/* Who else wants integers of a value would want them by one scale. */
static bool others_want_integers(const struct finder *f, int value)
{
    for (int u = 0; u < f->unit_count; u++) {
        const struct qd_node *node = node_of(f, u);
        if (f->units[u].linear && node->in[0] == value && f->forms->int8[u] && qd_linear_node_is_conv(node))
            return true;
        for (int i = 0; i < node->in_count && i < 32; i++)
            if (node->in[i] == value && (f->forms->wants[u] >> i & 1))
                return true;
    }
    return false;
}

static bool is_matrix_layer(const struct finder *f, int u)
{
    return f->units[u].linear && f->forms->int8[u] && !qd_linear_node_is_conv(node_of(f, u));
}

/* Of a value: what the rules of the matrix layers that read it say, else the plan's. */
static enum qd_rows_rule rows_rule(const struct finder *f, int value)
{
    int rule = -1;
    for (int u = 0; f->plan->options.rule_count && u < f->unit_count; u++) {
        const int own = is_matrix_layer(f, u) && node_of(f, u)->in[0] == value
                            ? qd_plan_rule(f->plan, node_of(f, u), QD_RULE_ROWS, -1)
                            : -1;
        rule = own > rule ? own : rule;
    }
    return rule < 0 ? f->plan->options.rows : (enum qd_rows_rule)rule;
}

static enum qd_status choose_rows(struct finder *f)
{
    if (f->plan->options.rows == QD_ROWS_NEVER && !f->plan->options.rule_count)
        return QD_OK;
    const struct qd_dims *dims = qd_dims_find(&f->plan->graph, f->plan->arena);
    if (!dims)
        return no_memory(f->error);
    for (int u = 0; u < f->unit_count; u++) { /* attention, whose rows are tokens */
        const struct qd_node *node = node_of(f, u);
        if (!f->units[u].linear && f->forms->int8[u] && (f->forms->ops[u]->flags & QD_OP_ROWS_INSIDE) &&
            !f->forms->fixed[node->in[0]] && !f->forms->fixed[node->in[1]] &&
            qd_plan_rule(f->plan, node, QD_RULE_ROWS, (int)f->plan->options.rows) != QD_ROWS_NEVER) {
            f->forms->rows[u] = true;
            f->forms->wants[u] = 0;
        }
    }
    for (int u = 0; u < f->unit_count; u++) {
        const struct qd_node *node = node_of(f, u);
        if (!is_matrix_layer(f, u) || f->forms->fixed[node->in[0]])
            continue;
        const int rank = dims[node->in[0]].rank;
        const enum qd_rows_rule rule = rows_rule(f, node->in[0]);
        const bool tokens = rank >= 3 || (rank < 0 && qd_node_is(node, "MatMul"));
        f->forms->rows[u] = (rule == QD_ROWS_ALWAYS || (rule == QD_ROWS_AUTO && tokens)) &&
                            !others_want_integers(f, node->in[0]);
    }
    return QD_OK;
}

/* The rank in which a generic operator runs with channels last, 0 when it runs plain. With ALL_CHANNELS_LAST the other
 * inputs must be constants, or of a known rank: those of the full rank are turned. */
static int channels_last_rank(const struct finder *f, int u)
{
    const struct qd_node *node = node_of(f, u);
    const struct qd_graph *graph = &f->plan->graph;
    bool all = f->forms->ops[u]->flags & QD_OP_ALL_CHANNELS_LAST;
    int rank = 0;
    if (!(f->forms->ops[u]->flags & QD_OP_CHANNELS_LAST))
        return 0;
    for (int i = 0; i < (all ? node->in_count : 1) && i < node->in_count; i++)
        if (node->in[i] != QD_NO_VALUE && f->forms->rank[node->in[i]] > rank)
            rank = f->forms->rank[node->in[i]];
    for (int i = 0; all && i < node->in_count; i++) {
        if (node->in[i] == QD_NO_VALUE || graph->values[node->in[i]].constant)
            continue;
        int turned = f->forms->rank[node->in[i]], plain = graph->values[node->in[i]].info.shape.rank;
        if (turned ? turned != rank : plain < 0 || plain > rank)
            return 0;
    }
    return rank;
}

static void find_layouts(struct finder *f)
{
    for (int u = 0; u < f->unit_count; u++) {
        const struct qd_unit *unit = &f->units[u];
        const struct qd_node *node = node_of(f, u);
        int rank = !unit->linear                  ? channels_last_rank(f, u)
                   : qd_linear_node_is_conv(node) ? f->plan->graph.values[node->in[1]].info.shape.rank
                                                  : 0;
        f->forms->channels_last[u] = rank > 0;
        if (unit->linear)
            f->forms->rank[unit->out] = rank;
        for (int i = 0; !unit->linear && i < node->out_count; i++)
            if (node->out[i] != QD_NO_VALUE)
                f->forms->rank[node->out[i]] = rank;
    }
}

enum taking { FLOATS, EITHER, INTEGERS };

/* How a generic unit takes its input i, when what becomes of its output is known. */
static enum taking takes(const struct finder *f, int u, int i)
{
    const struct qd_node *node = node_of(f, u);
    const struct qd_op *op = f->forms->ops[u];
    bool q8_out = node->out_count > 0 && node->out[0] != QD_NO_VALUE && f->forms->only_q8[node->out[0]];
    if (i < 32 && (f->forms->wants[u] >> i & 1))
        return INTEGERS;
    if (qd_round_trip_of(node))
        return f->forms->takes_over[u] ? INTEGERS : FLOATS;
    if (f->forms->real[u])
        return FLOATS;
    bool turned = f->forms->channels_last[u] && (i == 0 || (op->flags & QD_OP_ALL_CHANNELS_LAST)); /* others: sizes */
    if ((op->flags & QD_OP_READS_Q8) && (turned || (f->forms->fixed[node->in[i]] && !op->wants_q8)))
        return q8_out ? INTEGERS : EITHER;
    bool moves = (op->flags & (QD_OP_MOVES | QD_OP_VIEW)) && node->out_count == 1 && i == 0;
    return moves && q8_out ? INTEGERS : FLOATS;
}

static bool hands_on_faked(const struct finder *f, int u)
{
    const struct qd_node *node = node_of(f, u);
    return !f->units[u].linear && node->out_count > 0 && node->out[0] != QD_NO_VALUE && f->forms->faked[node->out[0]];
}

/* Backwards over the units: all readers of a unit's output are known when its inputs are looked at. */
static enum qd_status find_only_q8(struct finder *f)
{
    const struct qd_graph *graph = &f->plan->graph;
    struct qd_forms *forms = f->forms;
    bool *floats = qd_arena_alloc(f->plan->arena, (size_t)graph->value_count, sizeof *floats);
    if (!floats)
        return no_memory(f->error);
    for (int v = 0; v < graph->value_count; v++)
        floats[v] = graph->values[v].constant || graph->values[v].info.dtype == QD_STR;
    for (int i = 0; i < graph->output_count; i++)
        floats[graph->outputs[i]] = true;
    for (int u = f->unit_count - 1; u >= 0; u--) {
        const struct qd_unit *unit = &f->units[u];
        const struct qd_node *node = node_of(f, u);
        for (int o = 0; o < node->out_count; o++) /* from here on only_q8 is what the comment in forms.h says */
            if (node->out[o] != QD_NO_VALUE && (floats[node->out[o]] || forms->real[u]))
                forms->only_q8[node->out[o]] = false;
        if (unit->linear && floats[unit->out])
            forms->only_q8[unit->out] = false;
        if (qd_round_trip_of(node) && !f->plan->options.fp32) /* integers in any case */
            forms->only_q8[unit->out] = !floats[unit->out];
        for (int i = 0; i < (unit->linear ? 1 : node->in_count); i++) {
            enum taking how = unit->linear ? (forms->int8[u] && !forms->rows[u] ? INTEGERS : FLOATS) : takes(f, u, i);
            if (node->in[i] == QD_NO_VALUE)
                continue;
            forms->only_q8[node->in[i]] |= how == INTEGERS;
            forms->faked[node->in[i]] |= forms->fake[u] ? how == INTEGERS : how != FLOATS && hands_on_faked(f, u);
            floats[node->in[i]] |= how == FLOATS;
        }
        if (unit->linear && unit->residual != QD_NO_VALUE) {
            bool q8 = forms->int8[u] && forms->only_q8[unit->out];
            forms->only_q8[unit->residual] |= q8;
            forms->faked[unit->residual] |= q8 && forms->fake[u];
            floats[unit->residual] |= !forms->int8[u];
        }
    }
    for (int v = 0; v < graph->value_count; v++)
        forms->only_q8[v] = forms->only_q8[v] && !floats[v];
    return QD_OK;
}

enum qd_status qd_forms_find(const struct qd_plan *plan, const struct qd_unit *units, int unit_count,
                             struct qd_forms *forms, struct qd_error *error)
{
    struct qd_error local;
    struct qd_arena *arena = plan->arena;
    size_t values = (size_t)plan->graph.value_count, n = (size_t)unit_count;
    struct finder f = {plan, units, unit_count, forms, error ? error : &local, false, qd_types(&plan->graph, arena)};
    *forms = (struct qd_forms){.ops = qd_arena_alloc(arena, n, sizeof *forms->ops),
                               .int8 = qd_arena_alloc(arena, n, sizeof *forms->int8),
                               .int16 = qd_arena_alloc(arena, n, sizeof *forms->int16),
                               .fake = qd_arena_alloc(arena, n, sizeof *forms->fake),
                               .rows = qd_arena_alloc(arena, n, sizeof *forms->rows),
                               .real = qd_arena_alloc(arena, n, sizeof *forms->real),
                               .wants = qd_arena_alloc(arena, n, sizeof *forms->wants),
                               .pinned = qd_arena_alloc(arena, n, sizeof *forms->pinned),
                               .given = qd_arena_alloc(arena, n, sizeof *forms->given),
                               .takes_over = qd_arena_alloc(arena, n, sizeof *forms->takes_over),
                               .fixed = qd_arena_alloc(arena, values, sizeof(struct qd_round_trip *)),
                               .channels_last = qd_arena_alloc(arena, n, sizeof *forms->channels_last),
                               .reason = qd_arena_alloc(arena, n, sizeof *forms->reason),
                               .rank = qd_arena_alloc(arena, values, sizeof *forms->rank),
                               .only_q8 = qd_arena_alloc(arena, values, sizeof *forms->only_q8),
                               .faked = qd_arena_alloc(arena, values, sizeof *forms->faked)};
    if (!forms->ops || !forms->int8 || !forms->int16 || !forms->fake || !forms->rows || !forms->real || !forms->wants ||
        !forms->pinned || !forms->channels_last || !forms->reason || !forms->rank || !forms->only_q8 || !forms->given ||
        !forms->takes_over || !forms->fixed || !forms->faked || !f.types)
        return no_memory(f.error);
    enum qd_status status = find_ops(&f);
    if (!status && !plan->options.fp32)
        status = find_fixed(&f);
    if (!status)
        status = choose(&f);
    if (!status)
        status = choose_rows(&f);
    if (status)
        return status;
    find_layouts(&f);
    return find_only_q8(&f);
}
