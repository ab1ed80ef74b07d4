/* LSTM, GRU and RNN in FP32: the inputs of all steps go through one product, then each step multiplies the state by
 * recurrent weights packed once per direction. Rows are (step, sequence) pairs and sums run over features only, so a
 * sequence's result does not depend on the others. Not for quantized weights. */
#include "engine/ops/product.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <strings.h>

enum cell { LSTM, GRU, RNN };

struct activation {
    float (*fn)(float x, float alpha, float beta);
    float alpha, beta;
};

struct recurrent {
    enum cell cell;
    int gates, directions;
    bool reverse, batch_first, reset_after, couple; /* `reverse`: the only direction runs backwards */
    int64_t hidden_asked;                           /* 0: not given */
    float clip;                                     /* 0: none */
    struct activation acts[6];                      /* up to three for each direction */
};

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
    struct activation act;
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
static enum qd_status read_activations(const struct qd_node *node, struct recurrent *r, struct qd_error *error)
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
    struct recurrent *r = QD_PREP_NEW(arena, struct recurrent);
    if (!r)
        return qd_op_no_memory(node, error);
    r->cell = strcmp(node->op, "LSTM") == 0 ? LSTM : strcmp(node->op, "GRU") == 0 ? GRU : RNN;
    r->gates = r->cell == LSTM ? 4 : r->cell == GRU ? 3 : 1;
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
    return read_activations(node, r, error);
}

/* ------------------------------------------------------------------ sizes */

struct sizes {
    int64_t steps, batch, input, hidden, gates; /* gates: rows of W for one direction, gates * hidden */
};

static struct sizes sizes_of(const struct qd_call *call)
{
    const struct recurrent *r = call->prep;
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
    const struct recurrent *r = call->prep;
    int dirs = r->directions;
    enum qd_status status = QD_OK;
    if (call->in_count > (r->cell == LSTM ? 8 : 6) || !qd_op_has(call, 0) || !qd_op_has(call, 1) || !qd_op_has(call, 2))
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
    if (call->out_count > (r->cell == LSTM ? 3 : 2))
        return qd_op_fail(call, error, QD_ERR_INVALID, "has %d outputs", call->out_count);
    for (int i = 0; i < call->out_count && !status; i++)
        if (qd_op_wants(call, i))
            status = qd_op_out(call, i, QD_F32, i == 0 ? &y : &last, error);
    return status;
}

/* ------------------------------------------------------------------ scratch */

struct layout {
    size_t xw, gates, state, cell, mix; /* offsets in bytes */
    size_t packed, packed_new, gemm, product, end;
};

static size_t take(size_t *end, size_t bytes)
{
    size_t at = *end;
    *end += qd_align_up(bytes);
    return at;
}

static struct layout layout_of(const struct qd_call *call)
{
    const struct recurrent *r = call->prep;
    const struct qd_gemm_f32 *gemm = &call->kernels->gemm_f32;
    struct sizes s = sizes_of(call);
    size_t batch = (size_t)s.batch, hidden = (size_t)s.hidden, gates = (size_t)s.gates, end = 0;
    struct layout at = {0};
    at.xw = take(&end, (size_t)s.steps * batch * gates * sizeof(float));
    at.gates = take(&end, batch * gates * sizeof(float));
    at.state = take(&end, batch * hidden * sizeof(float));
    at.cell = take(&end, batch * hidden * sizeof(float));
    at.mix = take(&end, batch * hidden * sizeof(float));
    /* GRU's new gate may need another left side than the other two: its weights are packed apart. */
    size_t first = r->cell == GRU ? 2 * hidden : gates;
    at.packed = take(&end, gemm->packed_bytes(first, hidden));
    at.packed_new = take(&end, r->cell == GRU ? gemm->packed_bytes(hidden, hidden) : 0);
    at.gemm = take(&end, gemm->scratch_bytes(hidden));
    at.product = take(&end, qd_product_bytes(call->kernels, gates, (size_t)s.input));
    at.end = end;
    return at;
}

static size_t scratch(const struct qd_call *call) { return layout_of(call).end; }

/* ------------------------------------------------------------------ one direction */

struct pass {
    const struct qd_call *call;
    const struct recurrent *r;
    struct sizes s;
    int dir;
    bool backwards;
    const struct activation *acts;
    const float *bias_w, *bias_r, *peep; /* of this direction, or NULL */
    float *xw, *gates, *state, *cell, *mix;
    void *packed, *packed_new, *gemm_scratch;
};

static float squash(const struct pass *p, int act, float x)
{
    float clip = p->r->clip;
    if (clip > 0)
        x = x > clip ? clip : x < -clip ? -clip : x;
    return p->acts[act].fn(x, p->acts[act].alpha, p->acts[act].beta);
}

/* out[batch, columns], rows of `gates` floats, = left[batch, hidden] times packed recurrent weights. */
static void multiply(const struct pass *p, const float *left, const void *packed, size_t columns, float *out)
{
    size_t hidden = (size_t)p->s.hidden;
    struct qd_gemm_args args = {
        .m = (size_t)p->s.batch,
        .n = columns,
        .k = hidden,
        .row_end = (size_t)p->s.batch,
        .col_end = columns,
        .a = {.base = left, .stride_bytes = hidden * sizeof(float), .taps = 1, .tap_bytes = hidden * sizeof(float)},
        .b = packed,
        .epilogue = {.out = out, .out_stride_elems = (size_t)p->s.gates},
        .scratch = p->gemm_scratch,
    };
    p->call->kernels->gemm_f32.run(&args);
}

/* The sum in front of gate g's activation for unit j, without the recurrent bias of GRU's new gate. */
static float sum_at(const struct pass *p, const float *xw, const float *gates, int g, int64_t j)
{
    int64_t k = g * p->s.hidden + j;
    float sum = xw[k] + gates[k];
    return sum + (p->bias_w ? p->bias_w[k] : 0) + (p->bias_r ? p->bias_r[k] : 0);
}

static void lstm_row(const struct pass *p, const float *xw, const float *gates, float *h, float *c)
{
    int64_t n = p->s.hidden;
    for (int64_t j = 0; j < n; j++) { /* gates i, o, f, c; peepholes i, o, f */
        float i = sum_at(p, xw, gates, 0, j), o = sum_at(p, xw, gates, 1, j), f = sum_at(p, xw, gates, 2, j);
        float fresh = squash(p, 1, sum_at(p, xw, gates, 3, j));
        i = squash(p, 0, p->peep ? i + p->peep[j] * c[j] : i);
        f = p->r->couple ? 1 - i : squash(p, 0, p->peep ? f + p->peep[2 * n + j] * c[j] : f);
        c[j] = f * c[j] + i * fresh;
        o = squash(p, 0, p->peep ? o + p->peep[n + j] * c[j] : o);
        h[j] = o * p->acts[2].fn(c[j], p->acts[2].alpha, p->acts[2].beta);
    }
}

/* The update gate z and the reset gate r of one row, in place of their sums. */
static void gru_gates(const struct pass *p, const float *xw, float *gates)
{
    int64_t n = p->s.hidden;
    for (int g = 0; g < 2; g++)
        for (int64_t j = 0; j < n; j++)
            gates[g * n + j] = squash(p, 0, sum_at(p, xw, gates, g, j));
}

static void gru_row(const struct pass *p, const float *xw, const float *gates, float *h)
{
    int64_t n = p->s.hidden;
    for (int64_t j = 0; j < n; j++) {
        int64_t k = 2 * n + j;
        float past = gates[k] + (p->bias_r ? p->bias_r[k] : 0);
        past = p->r->reset_after ? gates[n + j] * past : past;
        float fresh = squash(p, 1, xw[k] + (p->bias_w ? p->bias_w[k] : 0) + past);
        h[j] = (1 - gates[j]) * fresh + gates[j] * h[j];
    }
}

static int64_t length_of(const struct pass *p, int64_t b)
{
    return qd_op_has(p->call, 4) ? ((const int32_t *)p->call->in[4].data)[b] : p->s.steps;
}

/* Which step of the sequence is read as number `step`. Beyond the sequence's end any row will do. */
static int64_t place_of(const struct pass *p, int64_t step, int64_t b)
{
    int64_t length = length_of(p, b);
    return p->backwards && step < length ? length - 1 - step : step;
}

static const float *xw_at(const struct pass *p, int64_t step, int64_t b)
{
    int64_t t = place_of(p, step, b);
    return p->xw + (p->r->batch_first ? b * p->s.steps + t : t * p->s.batch + b) * p->s.gates;
}

/* GRU's new gate: (r . h) R, or h R with r applied afterwards. */
static void gru_mix(const struct pass *p, int64_t step)
{
    int64_t n = p->s.hidden;
    for (int64_t b = 0; b < p->s.batch; b++) {
        float *gates = p->gates + b * p->s.gates;
        gru_gates(p, xw_at(p, step, b), gates);
        for (int64_t j = 0; j < n; j++)
            p->mix[b * n + j] = p->state[b * n + j] * (p->r->reset_after ? 1 : gates[n + j]);
    }
    multiply(p, p->mix, p->packed_new, (size_t)n, p->gates + 2 * n);
}

static void write_y(const struct pass *p, int64_t step, int64_t b, const float *h)
{
    if (!qd_op_wants(p->call, 0))
        return;
    int64_t t = place_of(p, step, b), dirs = p->r->directions;
    int64_t row = p->r->batch_first ? (b * p->s.steps + t) * dirs + p->dir : (t * dirs + p->dir) * p->s.batch + b;
    float *y = (float *)p->call->out[0].data + row * p->s.hidden;
    if (h)
        memcpy(y, h, (size_t)p->s.hidden * sizeof(float));
    else
        memset(y, 0, (size_t)p->s.hidden * sizeof(float));
}

static void run_step(const struct pass *p, int64_t step)
{
    size_t hidden = (size_t)p->s.hidden;
    multiply(p, p->state, p->packed, p->r->cell == GRU ? 2 * hidden : (size_t)p->s.gates, p->gates);
    if (p->r->cell == GRU)
        gru_mix(p, step);
    for (int64_t b = 0; b < p->s.batch; b++) {
        const float *xw = xw_at(p, step, b), *gates = p->gates + b * p->s.gates;
        float *h = p->state + (size_t)b * hidden;
        if (step >= length_of(p, b)) {
            write_y(p, step, b, NULL);
            continue;
        }
        if (p->r->cell == LSTM)
            lstm_row(p, xw, gates, h, p->cell + (size_t)b * hidden);
        else if (p->r->cell == GRU)
            gru_row(p, xw, gates, h);
        else
            for (int64_t j = 0; j < p->s.hidden; j++)
                h[j] = squash(p, 0, sum_at(p, xw, gates, 0, j));
        write_y(p, step, b, h);
    }
}

/* The states of one direction between [batch, hidden] and [dirs, batch, hidden] or [batch, dirs, hidden]. */
static int64_t state_row(const struct pass *p, int64_t b)
{
    return p->r->batch_first ? b * p->r->directions + p->dir : p->dir * p->s.batch + b;
}

static void load_state(const struct pass *p, int input, float *to)
{
    size_t bytes = (size_t)p->s.hidden * sizeof(float);
    for (int64_t b = 0; b < p->s.batch; b++) {
        if (qd_op_has(p->call, input))
            memcpy(to + b * p->s.hidden, (const float *)p->call->in[input].data + state_row(p, b) * p->s.hidden, bytes);
        else
            memset(to + b * p->s.hidden, 0, bytes);
    }
}

static void store_state(const struct pass *p, int output, const float *from)
{
    for (int64_t b = 0; b < p->s.batch && qd_op_wants(p->call, output); b++)
        memcpy((float *)p->call->out[output].data + state_row(p, b) * p->s.hidden, from + b * p->s.hidden,
               (size_t)p->s.hidden * sizeof(float));
}

static void run_direction(struct pass *p, void *product_scratch)
{
    const struct qd_call *call = p->call;
    const struct qd_kernels *kernels = call->kernels;
    size_t hidden = (size_t)p->s.hidden, gates = (size_t)p->s.gates, input = (size_t)p->s.input;
    const float *w = call->in[1].data, *recurrent = (const float *)call->in[2].data + (size_t)p->dir * gates * hidden;
    const float *bias = qd_op_has(call, 3) ? (const float *)call->in[3].data + (size_t)p->dir * 2 * gates : NULL;
    p->bias_w = bias;
    p->bias_r = bias ? bias + gates : NULL;
    p->peep = qd_op_has(call, 7) ? (const float *)call->in[7].data + (size_t)p->dir * 3 * hidden : NULL;
    p->acts = p->r->acts + p->dir * (p->r->cell == LSTM ? 3 : p->r->cell == GRU ? 2 : 1);
    p->backwards = p->r->reverse || p->dir == 1;
    size_t first = p->r->cell == GRU ? 2 * hidden : gates;
    kernels->gemm_f32.pack(first, hidden, recurrent, hidden, 1, NULL, p->packed);
    if (p->r->cell == GRU)
        kernels->gemm_f32.pack(hidden, hidden, recurrent + 2 * hidden * hidden, hidden, 1, NULL, p->packed_new);
    load_state(p, 5, p->state);
    if (p->r->cell == LSTM)
        load_state(p, 6, p->cell);
    struct qd_product product = {
        .m = (size_t)(p->s.steps * p->s.batch),
        .n = gates,
        .k = input,
        .a = call->in[0].data,
        .a_stride = input,
        .b = input ? w + (size_t)p->dir * gates * input : w,
        .b_depth = 1,
        .b_column = input,
        .out = p->xw,
        .out_stride = gates,
    };
    qd_product_run(&product, kernels, product_scratch);
    for (int64_t step = 0; step < p->s.steps; step++)
        run_step(p, step);
    store_state(p, 1, p->state);
    if (p->r->cell == LSTM)
        store_state(p, 2, p->cell);
}

static enum qd_status run(const struct qd_call *call, struct qd_error *error)
{
    struct layout at = layout_of(call);
    char *base = call->scratch;
    struct pass pass = {.call = call, .r = call->prep, .s = sizes_of(call)};
    for (int64_t b = 0; b < pass.s.batch; b++)
        if (length_of(&pass, b) < 0 || length_of(&pass, b) > pass.s.steps)
            return qd_op_fail(call, error, QD_ERR_INVALID, "sequence_lens has %" PRId64 ", the input %" PRId64 " steps",
                              length_of(&pass, b), pass.s.steps);
    if (pass.s.batch == 0)
        return QD_OK;
    pass.xw = (float *)(void *)(base + at.xw);
    pass.gates = (float *)(void *)(base + at.gates);
    pass.state = (float *)(void *)(base + at.state);
    pass.cell = (float *)(void *)(base + at.cell);
    pass.mix = (float *)(void *)(base + at.mix);
    pass.packed = base + at.packed;
    pass.packed_new = base + at.packed_new;
    pass.gemm_scratch = base + at.gemm;
    for (pass.dir = 0; pass.dir < pass.r->directions; pass.dir++)
        run_direction(&pass, base + at.product);
    return QD_OK;
}

const struct qd_op qd_op_recurrent = {.prepare = prepare, .infer = infer, .scratch = scratch, .run = run};
