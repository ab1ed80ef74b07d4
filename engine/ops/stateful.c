/* Operators that hand a state from call to call: LinearAttention and CausalConvWithState, in FP32. Not for LSTM and its
 * kind (recurrent.c). */
#include "engine/ops/helpers.h"

#include <math.h>
#include <string.h>

/* ------------------------------------------------------------------ LinearAttention: state[head] of keys x values */

enum input { IN_Q, IN_K, IN_V, IN_STATE, IN_DECAY, IN_BETA };

struct linear {
    int64_t batch, rows, q_heads, kv_heads, keys, values; /* keys, values: of a head */
    int64_t decays, betas;                                /* last dimensions; 0: absent */
};

/* Which rules take a decay and a beta. */
static bool rule_of(const struct qd_node *node, bool *decays, bool *corrects)
{
    static const struct {
        const char *name;
        bool decays, corrects;
    } rules[] = {{"linear", false, false}, {"gated", true, false}, {"delta", false, true}, {"gated_delta", true, true}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (qd_attr_is(node, "update_rule", "gated_delta", rules[i].name)) {
            *decays = rules[i].decays;
            *corrects = rules[i].corrects;
            return true;
        }
    return false;
}

/* Input i is [batch, rows, width]. */
static bool is_rows(const struct qd_call *call, int i, const struct linear *l, int64_t width)
{
    const struct qd_shape *s = &call->in[i].shape;
    return s->rank == 3 && s->dims[0] == l->batch && s->dims[1] == l->rows && s->dims[2] == width;
}

static bool linear_read(const struct qd_call *call, struct linear *l)
{
    const struct qd_shape *q = &call->in[IN_Q].shape, *v = &call->in[IN_V].shape;
    *l = (struct linear){.q_heads = qd_attr_int(call->node, "q_num_heads", 0),
                         .kv_heads = qd_attr_int(call->node, "kv_num_heads", 0)};
    if (q->rank != 3 || v->rank != 3 || l->q_heads < 1 || l->kv_heads < 1 || l->q_heads % l->kv_heads ||
        q->dims[2] % l->q_heads || v->dims[2] % l->kv_heads)
        return false;
    l->batch = q->dims[0];
    l->rows = q->dims[1];
    l->keys = q->dims[2] / l->q_heads;
    l->values = v->dims[2] / l->kv_heads;
    l->decays = qd_op_has(call, IN_DECAY) ? call->in[IN_DECAY].shape.dims[2] : 0;
    l->betas = qd_op_has(call, IN_BETA) ? call->in[IN_BETA].shape.dims[2] : 0;
    const struct qd_shape state = {.rank = 4, .dims = {l->batch, l->kv_heads, l->keys, l->values}};
    return is_rows(call, IN_K, l, l->kv_heads * l->keys) && is_rows(call, IN_V, l, l->kv_heads * l->values) &&
           (!l->decays || l->decays == l->kv_heads || l->decays == l->kv_heads * l->keys) &&
           (!l->betas || l->betas == l->kv_heads || l->betas == 1) &&
           (!qd_op_has(call, IN_DECAY) || is_rows(call, IN_DECAY, l, l->decays)) &&
           (!qd_op_has(call, IN_BETA) || is_rows(call, IN_BETA, l, l->betas)) &&
           (!qd_op_has(call, IN_STATE) || qd_shape_equal(&call->in[IN_STATE].shape, &state));
}

static enum qd_status linear_infer(const struct qd_call *call, struct qd_error *error)
{
    struct linear l;
    bool decays, corrects;
    enum qd_status status = qd_op_inputs(call, 3, 6, error);
    for (int i = 0; i < call->in_count && !status; i++)
        status = qd_op_types(call, i, QD_TYPES_FLOAT, error);
    if (status)
        return status;
    if (!rule_of(call->node, &decays, &corrects))
        return qd_op_fail(call, error, QD_ERR_INVALID, "update_rule is none of linear, gated, delta, gated_delta");
    if (decays != qd_op_has(call, IN_DECAY) || corrects != qd_op_has(call, IN_BETA))
        return qd_op_fail(call, error, QD_ERR_INVALID, "decay and beta don't fit its update_rule");
    for (int i = IN_DECAY; i <= IN_BETA; i++)
        if (qd_op_has(call, i) && call->in[i].shape.rank != 3)
            return qd_op_fail(call, error, QD_ERR_SHAPE, "decay and beta must have rank 3");
    if (!linear_read(call, &l))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the shapes of its inputs don't fit together");
    const struct qd_shape y = {.rank = 3, .dims = {l.batch, l.rows, l.q_heads * l.values}};
    const struct qd_shape state = {.rank = 4, .dims = {l.batch, l.kv_heads, l.keys, l.values}};
    status = qd_op_out(call, 0, QD_F32, &y, error);
    return status || !qd_op_wants(call, 1) ? status : qd_op_out(call, 1, QD_F32, &state, error);
}

/* States that no output holds, and a row of corrected values a head. */
static size_t linear_scratch(const struct qd_call *call)
{
    struct linear l;
    if (!linear_read(call, &l))
        return 0; /* refused when the shape was inferred */
    size_t heads = (size_t)(l.batch * l.kv_heads);
    return heads * ((size_t)l.keys + 1) * (size_t)l.values * sizeof(float);
}

struct linear_work {
    const struct qd_call *call;
    struct linear l;
    float *states, *rows, scale;
};

static const float *row_of(const struct linear_work *w, int input, int64_t row)
{
    return (const float *)w->call->in[input].data + row * w->call->in[input].shape.dims[2];
}

/* state[k][v] *= exp(decay of k) */
static void decay(const struct linear_work *w, int64_t row, int64_t head, float *state)
{
    const struct linear *l = &w->l;
    const float *d = row_of(w, IN_DECAY, row);
    for (int64_t k = 0; k < l->keys; k++) {
        const float factor = expf(d[l->decays == l->kv_heads ? head : head * l->keys + k]);
        for (int64_t v = 0; v < l->values; v++)
            state[k * l->values + v] *= factor;
    }
}

/* The row's values, less what the state says already, into `value`. */
static void correct(const struct linear_work *w, int64_t row, int64_t head, const float *state, const float *key,
                    float *value)
{
    const struct linear *l = &w->l;
    const float beta = row_of(w, IN_BETA, row)[l->betas == 1 ? 0 : head];
    for (int64_t v = 0; v < l->values; v++) {
        float known = 0;
        for (int64_t k = 0; k < l->keys; k++)
            known += state[k * l->values + v] * key[k];
        value[v] = beta * (value[v] - known);
    }
}

static void linear_row(const struct linear_work *w, int64_t row, int64_t head, float *state, float *value)
{
    const struct linear *l = &w->l;
    const float *key = row_of(w, IN_K, row) + head * l->keys;
    memcpy(value, row_of(w, IN_V, row) + head * l->values, (size_t)l->values * sizeof *value);
    if (l->decays)
        decay(w, row, head, state);
    if (l->betas)
        correct(w, row, head, state, key, value);
    for (int64_t k = 0; k < l->keys; k++)
        for (int64_t v = 0; v < l->values; v++)
            state[k * l->values + v] += key[k] * value[v];
    const int64_t group = l->q_heads / l->kv_heads;
    for (int64_t h = head * group; h < (head + 1) * group; h++) {
        const float *query = row_of(w, IN_Q, row) + h * l->keys;
        float *y = (float *)w->call->out[0].data + (row * l->q_heads + h) * l->values;
        for (int64_t v = 0; v < l->values; v++) {
            float sum = 0;
            for (int64_t k = 0; k < l->keys; k++)
                sum += query[k] * state[k * l->values + v];
            y[v] = w->scale * sum;
        }
    }
}

static void linear_heads(void *ctx, int64_t begin, int64_t end)
{
    const struct linear_work *w = ctx;
    const struct linear *l = &w->l;
    const int64_t size = l->keys * l->values;
    for (int64_t i = begin; i < end; i++) {
        float *state = w->states + i * size;
        if (qd_op_has(w->call, IN_STATE))
            qd_op_copy(state, (const float *)w->call->in[IN_STATE].data + i * size, (size_t)size * sizeof *state);
        else
            memset(state, 0, (size_t)size * sizeof *state);
        for (int64_t r = 0; r < l->rows; r++)
            linear_row(w, i / l->kv_heads * l->rows + r, i % l->kv_heads, state, w->rows + i * l->values);
    }
}

static enum qd_status linear_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    struct linear_work w = {.call = call, .scale = qd_attr_float(call->node, "scale", 0)};
    if (!linear_read(call, &w.l) || w.l.keys * w.l.values == 0)
        return QD_OK;
    const int64_t heads = w.l.batch * w.l.kv_heads;
    w.scale = w.scale != 0 ? w.scale : 1 / sqrtf((float)w.l.keys);
    w.rows = call->scratch;
    w.states = qd_op_wants(call, 1) ? call->out[1].data : w.rows + heads * w.l.values;
    qd_op_split(call, heads, 1, linear_heads, &w);
    return QD_OK;
}

const struct qd_op qd_op_linear_attention = {.infer = linear_infer, .scratch = linear_scratch, .run = linear_run};

/* ------------------------------------------------------------------ CausalConvWithState: a channel's own past */

enum conv_input { IN_X, IN_W, IN_BIAS, IN_PAST };

static enum qd_status causal_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 2, 4, error);
    for (int i = 0; i < call->in_count && !status; i++)
        status = qd_op_types(call, i, QD_TYPES_FLOAT, error);
    if (status)
        return status;
    const struct qd_shape *x = &call->in[IN_X].shape, *w = &call->in[IN_W].shape;
    if (x->rank != 3 || w->rank != 3 || w->dims[0] != x->dims[1] || w->dims[1] != 1 || w->dims[2] < 1)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "needs an input [N, C, L] and weights [C, 1, k]");
    const struct qd_shape state = {.rank = 3, .dims = {x->dims[0], x->dims[1], w->dims[2] - 1}};
    if ((qd_op_has(call, IN_BIAS) && qd_tensor_elems(&call->in[IN_BIAS]) != x->dims[1]) ||
        (qd_op_has(call, IN_PAST) && !qd_shape_equal(&call->in[IN_PAST].shape, &state)))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the bias or the past state doesn't fit the input");
    if (!qd_attr_is(call->node, "activation", "none", "none") &&
        !qd_attr_is(call->node, "activation", "none", "silu") && !qd_attr_is(call->node, "activation", "none", "swish"))
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "activation must be none, silu or swish");
    status = qd_op_out(call, 0, QD_F32, x, error);
    return status || !qd_op_wants(call, 1) ? status : qd_op_out(call, 1, QD_F32, &state, error);
}

/* Element i of a channel, counted from the start of what came before it. */
static float with_past(const float *past, int64_t before, const float *x, int64_t i)
{
    return i >= before ? x[i - before] : past ? past[i] : 0;
}

static void causal_channels(void *ctx, int64_t begin, int64_t end)
{
    const struct qd_call *call = ctx;
    const int64_t *dims = call->in[IN_X].shape.dims, length = dims[2], taps = call->in[IN_W].shape.dims[2];
    const bool silu = !qd_attr_is(call->node, "activation", "none", "none");
    for (int64_t i = begin; i < end; i++) {
        const float *x = (const float *)call->in[IN_X].data + i * length,
                    *w = (const float *)call->in[IN_W].data + i % dims[1] * taps,
                    *past = qd_op_has(call, IN_PAST) ? (const float *)call->in[IN_PAST].data + i * (taps - 1) : NULL;
        float *y = (float *)call->out[0].data + i * length;
        for (int64_t o = 0; o < length; o++) {
            float sum = qd_op_has(call, IN_BIAS) ? ((const float *)call->in[IN_BIAS].data)[i % dims[1]] : 0;
            for (int64_t t = 0; t < taps; t++)
                sum += w[t] * with_past(past, taps - 1, x, o + t);
            y[o] = silu ? sum / (1 + expf(-sum)) : sum;
        }
        for (int64_t t = 0; qd_op_wants(call, 1) && t < taps - 1; t++)
            ((float *)call->out[1].data)[i * (taps - 1) + t] = with_past(past, taps - 1, x, length + t);
    }
}

static enum qd_status causal_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    qd_op_split(call, qd_shape_span(&call->in[IN_X].shape, 0, 2), 4, causal_channels, (void *)(uintptr_t)call);
    return QD_OK;
}

const struct qd_op qd_op_causal_conv = {.infer = causal_infer, .run = causal_run};
