/* LSTM, GRU and RNN: attributes and shapes. Not for packing weights (recurrent_pack.c) or running (recurrent_run.c). */
#include "engine/ops/recurrent.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <strings.h>

/* ------------------------------------------------------------------ activations */

static float relu(float x, float a, float b) { return (void)a, (void)b, x > 0 ? x : 0; }
static float tanh_of(float x, float a, float b) { return (void)a, (void)b, tanhf(x); }
static float affine(float x, float a, float b) { return a * x + b; }
static float leaky(float x, float a, float b) { return (void)b, x >= 0 ? x : a * x; }
static float threshold(float x, float a, float b) { return (void)b, x > a ? x : 0; }
static float scaled_tanh(float x, float a, float b) { return a * tanhf(b * x); }
static float elu(float x, float a, float b) { return (void)b, x >= 0 ? x : a * expm1f(x); }
static float softsign(float x, float a, float b) { return (void)a, (void)b, x / (1 + fabsf(x)); }
static float softplus(float x, float a, float b)
{
    return (void)a, (void)b, x > 0 ? x + log1pf(expf(-x)) : log1pf(expf(x));
}
static float sigmoid(float x, float a, float b)
{
    (void)a, (void)b;
    return x >= 0 ? 1 / (1 + expf(-x)) : expf(x) / (1 + expf(x));
}
static float hard_sigmoid(float x, float a, float b)
{
    float y = a * x + b;
    return y < 0 ? 0 : y > 1 ? 1 : y;
}

static const struct activation_row {
    const char *name;
    struct qd_cell_act act;
    bool alpha, beta; /* takes the next value of activation_alpha, activation_beta */
} activations[] = {
    {"Sigmoid", {sigmoid, 0, 0}, false, false},
    {"Tanh", {tanh_of, 0, 0}, false, false},
    {"Relu", {relu, 0, 0}, false, false},
    {"Affine", {affine, 1, 0}, true, true},
    {"LeakyRelu", {leaky, 0.01f, 0}, true, false},
    {"ThresholdedRelu", {threshold, 1, 0}, true, false},
    {"ScaledTanh", {scaled_tanh, 1, 1}, true, true},
    {"HardSigmoid", {hard_sigmoid, 0.2f, 0.5f}, true, true},
    {"Elu", {elu, 1, 0}, true, false},
    {"Softsign", {softsign, 0, 0}, false, false},
    {"Softplus", {softplus, 0, 0}, false, false},
};

static bool same_word(struct qd_text text, const char *word)
{
    return strlen(word) == text.length && strncasecmp(word, text.bytes, text.length) == 0;
}

/* The attribute lists of names, alphas and betas into acts[]; defaults where there are none. */
static enum qd_status read_activations(const struct qd_node *node, struct qd_recurrent *r, struct qd_error *error)
{
    static const char *const defaults[3][3] = {{"Sigmoid", "Tanh", "Tanh"}, {"Sigmoid", "Tanh", ""}, {"Tanh", "", ""}};
    static const int counts[3] = {3, 2, 1};
    int each = counts[r->cell];
    size_t alphas = 0, betas = 0, alpha = 0, beta = 0;
    const float *alpha_list = qd_attr_floats(node, "activation_alpha", &alphas);
    const float *beta_list = qd_attr_floats(node, "activation_beta", &betas);
    const struct qd_attr *names = qd_attr_find(node, "activations");
    names = names && names->type == QD_ATTR_STRINGS && names->count ? names : NULL;
    if (names && names->count != (size_t)(each * r->directions))
        return qd_op_refuse(node, error, QD_ERR_INVALID, "has %zu activations, not %d", names->count,
                            each * r->directions);
    for (int i = 0; i < each * r->directions; i++) {
        const char *otherwise = defaults[r->cell][i % each];
        struct qd_text name = names ? names->strings[i] : (struct qd_text){otherwise, strlen(otherwise)};
        const struct activation_row *row = NULL;
        for (size_t k = 0; k < sizeof activations / sizeof activations[0]; k++)
            row = same_word(name, activations[k].name) ? &activations[k] : row;
        if (!row)
            return qd_op_refuse(node, error, QD_ERR_UNSUPPORTED, "activation '%.*s' is not supported",
                                name.length < 40 ? (int)name.length : 40, name.bytes);
        r->acts[i] = row->act;
        if (row->alpha && alpha < alphas)
            r->acts[i].alpha = alpha_list[alpha++];
        if (row->beta && beta < betas)
            r->acts[i].beta = beta_list[beta++];
    }
    return QD_OK;
}

static enum qd_status prepare(const struct qd_node *node, struct qd_arena *arena, void **prep, struct qd_error *error)
{
    struct qd_recurrent *r = QD_PREP_NEW(arena, struct qd_recurrent);
    if (!r)
        return qd_op_no_memory(node, error);
    r->cell = strcmp(node->op, "LSTM") == 0 ? QD_CELL_LSTM : strcmp(node->op, "GRU") == 0 ? QD_CELL_GRU : QD_CELL_RNN;
    r->gates = r->cell == QD_CELL_LSTM ? 4 : r->cell == QD_CELL_GRU ? 3 : 1;
    r->reverse = qd_attr_is(node, "direction", "forward", "reverse");
    bool both = qd_attr_is(node, "direction", "forward", "bidirectional");
    if (!both && !r->reverse && !qd_attr_is(node, "direction", "forward", "forward"))
        return qd_op_refuse(node, error, QD_ERR_INVALID, "direction is none of forward, reverse, bidirectional");
    r->directions = both ? 2 : 1;
    r->batch_first = node->opset >= 14 && qd_attr_int(node, "layout", 0) != 0;
    r->reset_after = qd_attr_int(node, "linear_before_reset", 0) != 0;
    r->couple = qd_attr_int(node, "input_forget", 0) != 0;
    r->hidden_asked = qd_attr_int(node, "hidden_size", 0);
    r->clip = qd_attr_float(node, "clip", 0);
    if (!(r->clip >= 0))
        return qd_op_refuse(node, error, QD_ERR_INVALID, "clip is negative");
    *prep = r;
    enum qd_status status = read_activations(node, r, error);
    r->usual = !r->couple && r->clip == 0;
    for (int i = 0; i < 6 && !status; i++) {
        int each = r->cell == QD_CELL_LSTM ? 3 : r->cell == QD_CELL_GRU ? 2 : 1;
        bool gate = i % each == 0 && r->cell != QD_CELL_RNN;
        r->usual = r->usual && (i >= each * r->directions || r->acts[i].fn == (gate ? sigmoid : tanh_of));
    }
    return status;
}

/* ------------------------------------------------------------------ sizes */

struct sizes {
    int64_t steps, batch, input, hidden, gates; /* gates: rows of W for one direction, gates * hidden */
};

static struct sizes sizes_of(const struct qd_call *call)
{
    const struct qd_recurrent *r = call->prep;
    const struct qd_shape *x = &call->in[0].shape;
    int64_t hidden = call->in[2].shape.dims[2];
    return (struct sizes){x->dims[r->batch_first ? 1 : 0], x->dims[r->batch_first ? 0 : 1], x->dims[2], hidden,
                          hidden * r->gates};
}

static enum qd_status expect(const struct qd_call *call, int i, int rank, int64_t a, int64_t b, int64_t c,
                             struct qd_error *error)
{
    struct qd_shape want = {.rank = rank, .dims = {a, b, c}};
    char is[160], must[160];
    if (!qd_op_has(call, i) || qd_shape_equal(&want, &call->in[i].shape))
        return QD_OK;
    return qd_op_fail(call, error, QD_ERR_SHAPE, "input %d has shape %s, must have %s", i,
                      qd_shape_text(&call->in[i].shape, is, sizeof is), qd_shape_text(&want, must, sizeof must));
}

/* All products of sizes that scratch and run form fit with room to spare. */
static bool countable(const struct sizes *s)
{
    int64_t rows, all;
    return s->hidden <= (int64_t)1 << 24 && s->input <= (int64_t)1 << 32 && qd_i64_mul(s->steps, s->batch, &rows) &&
           qd_i64_mul(rows, s->gates, &all) && all <= (int64_t)1 << 48 && rows <= (int64_t)1 << 40 &&
           qd_i64_mul(s->gates, s->input, &all) && all <= (int64_t)1 << 48;
}

static enum qd_status infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_recurrent *r = call->prep;
    int dirs = r->directions;
    enum qd_status status = QD_OK;
    if (call->in_count > (r->cell == QD_CELL_LSTM ? 8 : 6) || !qd_op_has(call, 0) || !qd_op_has(call, 1) ||
        !qd_op_has(call, 2))
        return qd_op_fail(call, error, QD_ERR_INVALID, "needs an input, weights and recurrent weights");
    for (int i = 0; i < 8 && !status; i++)
        status = qd_op_types(call, i, i == 4 ? QD_BIT(QD_I32) : QD_TYPES_FLOAT, error);
    if (status)
        return status;
    if (call->in[0].shape.rank != 3 || call->in[2].shape.rank != 3)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the input and the recurrent weights must be of rank 3");
    struct sizes s = sizes_of(call);
    bool sane = s.hidden > 0 && s.hidden <= (int64_t)1 << 24 && (!r->hidden_asked || r->hidden_asked == s.hidden);
    if (!sane || !countable(&s))
        return qd_op_fail(call, error, QD_ERR_SHAPE,
                          "a hidden size of %" PRId64 " is not what the attribute says, or the sizes are too large",
                          s.hidden);
    int64_t first = r->batch_first ? s.batch : dirs, second = r->batch_first ? dirs : s.batch;
    if ((status = expect(call, 1, 3, dirs, s.gates, s.input, error)) ||
        (status = expect(call, 2, 3, dirs, s.gates, s.hidden, error)) ||
        (status = expect(call, 3, 2, dirs, 2 * s.gates, 0, error)) ||
        (status = expect(call, 4, 1, s.batch, 0, 0, error)) ||
        (status = expect(call, 5, 3, first, second, s.hidden, error)) ||
        (status = expect(call, 6, 3, first, second, s.hidden, error)) ||
        (status = expect(call, 7, 2, dirs, 3 * s.hidden, 0, error)))
        return status;
    struct qd_shape y = {.rank = 4, .dims = {s.steps, dirs, s.batch, s.hidden}};
    struct qd_shape last = {.rank = 3, .dims = {first, second, s.hidden}};
    if (r->batch_first)
        y = (struct qd_shape){.rank = 4, .dims = {s.batch, s.steps, dirs, s.hidden}};
    if (call->out_count > (r->cell == QD_CELL_LSTM ? 3 : 2))
        return qd_op_fail(call, error, QD_ERR_INVALID, "has %d outputs", call->out_count);
    for (int i = 0; i < call->out_count && !status; i++)
        if (qd_op_wants(call, i))
            status = qd_op_out(call, i, QD_F32, i == 0 ? &y : &last, error);
    return status;
}

const struct qd_op qd_op_recurrent = {.flags = QD_OP_INT8_INSIDE,
                                      .prepare = prepare,
                                      .pack = qd_recurrent_pack,
                                      .infer = infer,
                                      .scratch = qd_recurrent_scratch,
                                      .run = qd_recurrent_run};
