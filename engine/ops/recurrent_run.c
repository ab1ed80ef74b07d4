/* Running LSTM, GRU and RNN: the inputs of all steps go through one product, then each step multiplies the state by the
 * recurrent weights and turns the sums into the next state. With INT8 weights every row (a step of a sequence) is
 * quantized by its own largest value, so a sequence's result depends on nothing but itself; gates, cells and states
 * are floats. Not for weights (recurrent_pack.c). */
#include "engine/ops/recurrent.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

struct sizes {
    size_t steps, batch, input, hidden, gates; /* gates: rows of W for one direction, gates * hidden */
};

static struct sizes sizes_of(const struct qd_call *call)
{
    const struct qd_recurrent *r = call->prep;
    const int64_t *x = call->in[0].shape.dims;
    size_t hidden = (size_t)call->in[2].shape.dims[2];
    return (struct sizes){(size_t)x[r->batch_first ? 1 : 0], (size_t)x[r->batch_first ? 0 : 1], (size_t)x[2], hidden,
                          hidden * (size_t)r->gates};
}

/* ------------------------------------------------------------------ scratch */

/* Offsets in bytes into the memory of one direction. */
struct layout {
    size_t xw, x_bytes, x_scale;      /* products of the input, its rows as integers, their scales */
    size_t products, fresh;           /* of the state; of GRU's new gate when it resets first */
    size_t state, cell, mix, bias;    /* bias: gates, then GRU's recurrent bias of the new gate */
    size_t bytes, scale, fresh_scale; /* rows of the state as integers and their scales */
    size_t fine, row_bias;            /* product of the state with `fine`; the bias of each row with it */
    size_t weights, gemm, gemm_each, end;
};

static size_t take(size_t *end, size_t bytes)
{
    size_t at = *end;
    *end += qd_align_up(bytes);
    return at;
}

static size_t gemm_bytes(const struct qd_call *call, size_t k)
{
    const struct qd_recurrent *r = call->prep;
    size_t f32 = call->kernels->gemm_f32.scratch_bytes(k), q8 = r->int8 ? call->kernels->gemm_q8.scratch_bytes(k) : 0;
    return qd_align_up(f32 > q8 ? f32 : q8);
}

static struct layout layout_of(const struct qd_call *call)
{
    const struct qd_recurrent *r = call->prep;
    struct sizes s = sizes_of(call);
    size_t rows = s.steps * s.batch, end = 0, most = s.input > s.hidden ? s.input : s.hidden;
    struct layout at = {0};
    at.xw = take(&end, rows * s.gates * sizeof(float));
    at.x_bytes = take(&end, r->int8 ? rows * s.input : 0);
    at.x_scale = take(&end, rows * sizeof(float));
    at.products = take(&end, s.batch * s.gates * sizeof(float));
    at.fresh = take(&end, s.batch * s.hidden * sizeof(float));
    at.state = take(&end, s.batch * s.hidden * sizeof(float));
    at.cell = take(&end, s.batch * s.hidden * sizeof(float));
    at.mix = take(&end, s.batch * s.hidden * sizeof(float));
    at.bias = take(&end, (s.gates + s.hidden) * sizeof(float));
    at.bytes = take(&end, r->int8 ? s.batch * s.hidden : 0);
    at.scale = take(&end, s.batch * sizeof(float));
    at.fresh_scale = take(&end, s.batch * sizeof(float));
    bool fine = r->weights[0].fine.n;
    at.fine = take(&end, fine ? s.batch * s.hidden * sizeof(float) : 0);
    at.row_bias = take(&end, fine ? s.batch * s.gates * sizeof(float) : 0);
    at.weights = take(&end, r->packed ? 0 : qd_recurrent_weight_bytes(r, call->kernels, s.hidden, s.input));
    at.gemm_each = gemm_bytes(call, most);
    at.gemm = take(&end, at.gemm_each * (r->directions == 1 ? qd_op_threads(call) : 1));
    at.end = end;
    return at;
}

size_t qd_recurrent_scratch(const struct qd_call *call)
{
    return layout_of(call).end * (size_t)((const struct qd_recurrent *)call->prep)->directions;
}

/* ------------------------------------------------------------------ products */

struct pass {
    const struct qd_call *call;
    const struct qd_recurrent *r;
    struct sizes s;
    size_t dir;
    bool backwards;
    const struct qd_cell_act *acts;
    struct qd_cell_weights weights;
    const float *peep; /* of this direction, or NULL */
    float *xw, *x_scale, *products, *fresh, *state, *cell, *mix, *bias, *scale, *fresh_scale, *fine, *row_bias;
    uint8_t *x_bytes, *bytes;
    char *gemm;
    size_t gemm_each;
};

/* out[rows][stride] = left[rows][k] times a matrix, but for the rows' scales. */
struct multiply {
    const struct qd_kernels *kernels;
    const struct qd_cell_matrix *matrix;
    const float *left;
    uint8_t *bytes; /* [rows][k], INT8 only */
    float *scale;   /* [rows] */
    float *out;
    size_t rows, out_stride;
    bool ready; /* bytes and scale are there already */
};

/* One row to integers with a symmetric scale of its own. */
static float quantize_row(const struct qd_kernels *kernels, const float *row, size_t n, uint8_t *out)
{
    struct qd_observation seen = qd_observation_empty();
    kernels->observe_f32(row, n, NULL, &seen);
    float most = seen.min <= seen.max ? fmaxf(-seen.min, seen.max) : 0;
    const struct qd_qparams qp = {
        .scale = qd_weight_scale_s8(most), .zero_point = QD_CARRIER_OFFSET, .qmin = 1, .qmax = 255};
    kernels->requantize_u8(row, n, &qp, out, NULL);
    return qp.scale;
}

/* Rows [begin, end). */
static void multiply(const struct multiply *m, size_t begin, size_t end, void *scratch)
{
    const struct qd_cell_matrix *b = m->matrix;
    for (size_t i = begin; i < end && !m->ready; i++)
        m->scale[i] = b->scale && b->n ? quantize_row(m->kernels, m->left + i * b->k, b->k, m->bytes + i * b->k) : 1;
    if (b->n == 0) {
        for (size_t i = begin; i < end; i++)
            memset(m->out + i * m->out_stride, 0, m->out_stride * sizeof(float));
        return;
    }
    size_t row_bytes = b->k * (b->scale ? 1 : sizeof(float));
    struct qd_gemm_args args = {
        .m = m->rows,
        .n = b->n,
        .k = b->k,
        .row_begin = begin,
        .row_end = end,
        .col_end = b->n,
        .a = {.base = b->scale ? (const void *)m->bytes : m->left,
              .stride_bytes = row_bytes,
              .taps = 1,
              .tap_bytes = row_bytes},
        .b = b->packed,
        .epilogue = {.acc_init = b->init, .scale = b->scale, .out = m->out, .out_stride_elems = m->out_stride},
        .scratch = scratch,
    };
    if (b->scale)
        m->kernels->gemm_q8.run(&args);
    else
        m->kernels->gemm_f32.run(&args);
}

static void multiply_state(const struct pass *p, const float *left, const struct qd_cell_matrix *matrix, float *scale,
                           float *out, size_t out_stride)
{
    struct multiply m = {p->call->kernels, matrix, left, p->bytes, scale, out, p->s.batch, out_stride, false};
    multiply(&m, 0, p->s.batch, p->gemm);
}

struct input_work {
    struct multiply m;
    char *gemm;
    size_t gemm_each, tasks;
};

static void input_part(void *ctx, int64_t begin, int64_t end)
{
    const struct input_work *w = ctx;
    for (size_t task = (size_t)begin; task < (size_t)end; task++)
        multiply(&w->m, task * w->m.rows / w->tasks, (task + 1) * w->m.rows / w->tasks, w->gemm + task * w->gemm_each);
}

/* The input of all steps; on all threads when they aren't taken by the directions. */
static void multiply_input(const struct pass *p)
{
    size_t rows = p->s.steps * p->s.batch, threads = p->r->directions == 1 ? qd_op_threads(p->call) : 1;
    struct input_work work = {.m = {p->call->kernels, &p->weights.w, p->call->in[0].data, p->x_bytes, p->x_scale, p->xw,
                                    rows, p->s.gates, false},
                              .gemm = p->gemm,
                              .gemm_each = p->gemm_each,
                              .tasks = threads < rows / 16 ? threads : rows / 16};
    work.tasks = work.tasks ? work.tasks : 1;
    if (work.tasks == 1)
        input_part(&work, 0, 1);
    else
        qd_op_split(p->call, (int64_t)work.tasks, 1, input_part, &work);
}

/* ------------------------------------------------------------------ gates in their general form */

static float squash(const struct pass *p, int act, float x)
{
    float clip = p->r->clip;
    if (clip > 0)
        x = x > clip ? clip : x < -clip ? -clip : x;
    return p->acts[act].fn(x, p->acts[act].alpha, p->acts[act].beta);
}

/* The sum in front of gate g's activation for unit j. */
static float sum_at(const struct qd_gates *g, size_t gate, size_t j)
{
    size_t k = gate * g->n + j;
    return g->x[k] * g->x_scale + g->bias[k] + g->r[k] * g->r_scale;
}

static void lstm_row(const struct pass *p, const struct qd_gates *g, float *c, float *h)
{
    size_t n = g->n;
    for (size_t j = 0; j < n; j++) { /* gates i, o, f, c; peepholes i, o, f */
        float i = sum_at(g, 0, j), o = sum_at(g, 1, j), f = sum_at(g, 2, j);
        float fresh = squash(p, 1, sum_at(g, 3, j));
        i = squash(p, 0, p->peep ? i + p->peep[j] * c[j] : i);
        f = p->r->couple ? 1 - i : squash(p, 0, p->peep ? f + p->peep[2 * n + j] * c[j] : f);
        c[j] = f * c[j] + i * fresh;
        o = squash(p, 0, p->peep ? o + p->peep[n + j] * c[j] : o);
        h[j] = o * p->acts[2].fn(c[j], p->acts[2].alpha, p->acts[2].beta);
    }
}

static void gru_row(const struct pass *p, const struct qd_gates *g, float *h)
{
    for (size_t j = 0; j < g->n; j++) {
        size_t k = 2 * g->n + j;
        float z = squash(p, 0, sum_at(g, 0, j)), past = g->r_new[j] * g->r_new_scale + g->bias_new[j];
        past = g->reset_after ? squash(p, 0, sum_at(g, 1, j)) * past : past;
        float fresh = squash(p, 1, g->x[k] * g->x_scale + g->bias[k] + past);
        h[j] = (1 - z) * fresh + z * h[j];
    }
}

/* ------------------------------------------------------------------ steps */

static size_t length_of(const struct pass *p, size_t b)
{
    return qd_op_has(p->call, 4) ? (size_t)((const int32_t *)p->call->in[4].data)[b] : p->s.steps;
}

/* Which step of the sequence is read as number `step`. Beyond the sequence's end any row will do. */
static size_t place_of(const struct pass *p, size_t step, size_t b)
{
    size_t length = length_of(p, b);
    return p->backwards && step < length ? length - 1 - step : step;
}

static struct qd_gates gates_of(const struct pass *p, size_t step, size_t b)
{
    size_t t = place_of(p, step, b), row = p->r->batch_first ? b * p->s.steps + t : t * p->s.batch + b;
    bool after = p->r->reset_after, gru = p->r->cell == QD_CELL_GRU;
    const float *products = p->products + b * p->s.gates;
    return (struct qd_gates){.n = p->s.hidden,
                             .x = p->xw + row * p->s.gates,
                             .r = products,
                             .bias = p->weights.fine.n ? p->row_bias + b * p->s.gates : p->bias,
                             .x_scale = p->x_scale[row],
                             .r_scale = p->scale[b],
                             .r_new = after ? products + (gru ? 2 * p->s.hidden : 0) : p->fresh + b * p->s.hidden,
                             .bias_new = p->bias + p->s.gates,
                             .r_new_scale = after ? p->scale[b] : p->fresh_scale[b],
                             .reset_after = after};
}

/* GRU's new gate out of (r . h): the reset gate goes first. */
static void reset(const struct pass *p, size_t step)
{
    size_t n = p->s.hidden;
    for (size_t b = 0; b < p->s.batch; b++) {
        struct qd_gates g = gates_of(p, step, b);
        if (p->r->usual)
            p->call->kernels->gru_reset(&g, p->state + b * n, p->mix + b * n);
        else
            for (size_t j = 0; j < n; j++)
                p->mix[b * n + j] = squash(p, 0, sum_at(&g, 1, j)) * p->state[b * n + j];
    }
    multiply_state(p, p->mix, &p->weights.r_new, p->fresh_scale, p->fresh, n);
}

static void write_y(const struct pass *p, size_t step, size_t b, const float *h)
{
    if (!qd_op_wants(p->call, 0))
        return;
    size_t t = place_of(p, step, b), dirs = (size_t)p->r->directions;
    size_t row = p->r->batch_first ? (b * p->s.steps + t) * dirs + p->dir : (t * dirs + p->dir) * p->s.batch + b;
    float *y = (float *)p->call->out[0].data + row * p->s.hidden;
    if (h)
        memcpy(y, h, p->s.hidden * sizeof(float));
    else
        memset(y, 0, p->s.hidden * sizeof(float));
}

static void advance(const struct pass *p, const struct qd_gates *g, float *c, float *h)
{
    const struct qd_kernels *kernels = p->call->kernels;
    bool usual = p->r->usual && !p->peep;
    if (p->r->cell == QD_CELL_LSTM && usual)
        kernels->lstm_gates(g, c, h);
    else if (p->r->cell == QD_CELL_LSTM)
        lstm_row(p, g, c, h);
    else if (p->r->cell == QD_CELL_GRU && usual)
        kernels->gru_gates(g, h);
    else if (p->r->cell == QD_CELL_GRU)
        gru_row(p, g, h);
    else if (usual)
        kernels->rnn_gates(g, h);
    else
        for (size_t j = 0; j < g->n; j++)
            h[j] = squash(p, 0, sum_at(g, 0, j));
}

/* Adds to the cell gate's bias what its 8-bit weights lack for the present state, whose integers are there. */
static void refine(const struct pass *p, size_t step)
{
    size_t n = p->s.hidden, gates = p->s.gates;
    struct multiply m = {p->call->kernels, &p->weights.fine, p->state, p->bytes, p->scale,
                         p->fine,          p->s.batch,       n,        true};
    multiply(&m, 0, p->s.batch, p->gemm);
    for (size_t b = 0; b < p->s.batch; b++) {
        float *bias = p->row_bias + b * gates;
        if (step == 0)
            memcpy(bias, p->bias, (gates - n) * sizeof *bias);
        for (size_t j = 0; j < n; j++)
            bias[gates - n + j] = p->bias[gates - n + j] + p->fine[b * n + j] * p->scale[b];
    }
}

static void run_step(const struct pass *p, size_t step)
{
    size_t hidden = p->s.hidden;
    multiply_state(p, p->state, &p->weights.r, p->scale, p->products, p->s.gates);
    if (p->weights.fine.n && step % QD_FINE_STEPS == 0)
        refine(p, step);
    if (p->weights.r_new.n)
        reset(p, step);
    for (size_t b = 0; b < p->s.batch; b++) {
        float *h = p->state + b * hidden;
        if (step >= length_of(p, b)) {
            write_y(p, step, b, NULL);
            continue;
        }
        struct qd_gates g = gates_of(p, step, b);
        advance(p, &g, p->cell + b * hidden, h);
        write_y(p, step, b, h);
    }
}

/* ------------------------------------------------------------------ one direction */

/* The states of one direction between [batch, hidden] and [dirs, batch, hidden] or [batch, dirs, hidden]. */
static size_t state_row(const struct pass *p, size_t b)
{
    return p->r->batch_first ? b * (size_t)p->r->directions + p->dir : p->dir * p->s.batch + b;
}

static void load_state(const struct pass *p, int input, float *to)
{
    size_t n = p->s.hidden;
    for (size_t b = 0; b < p->s.batch; b++) {
        if (qd_op_has(p->call, input))
            memcpy(to + b * n, (const float *)p->call->in[input].data + state_row(p, b) * n, n * sizeof *to);
        else
            memset(to + b * n, 0, n * sizeof *to);
    }
}

static void store_state(const struct pass *p, int output, const float *from)
{
    size_t n = p->s.hidden;
    for (size_t b = 0; b < p->s.batch && qd_op_wants(p->call, output); b++)
        memcpy((float *)p->call->out[output].data + state_row(p, b) * n, from + b * n, n * sizeof *from);
}

/* Both biases together, but for GRU's new gate when the recurrent one is inside the reset. */
static void load_bias(const struct pass *p)
{
    size_t gates = p->s.gates, n = p->s.hidden, apart = p->r->cell == QD_CELL_GRU && p->r->reset_after ? n : 0;
    memset(p->bias, 0, (gates + n) * sizeof(float));
    if (!qd_op_has(p->call, 3))
        return;
    const float *w = (const float *)p->call->in[3].data + p->dir * 2 * gates, *r = w + gates;
    for (size_t k = 0; k < gates - apart; k++)
        p->bias[k] = w[k] + r[k];
    for (size_t k = gates - apart; k < gates; k++) {
        p->bias[k] = w[k];
        p->bias[k + apart] = r[k];
    }
}

static void start(struct pass *p, const struct qd_call *call, size_t dir)
{
    const struct layout at = layout_of(call);
    char *base = (char *)call->scratch + dir * at.end;
    *p = (struct pass){.call = call, .r = call->prep, .s = sizes_of(call), .dir = dir};
    float **const floats[] = {&p->xw,  &p->x_scale, &p->products, &p->fresh,       &p->state, &p->cell,
                              &p->mix, &p->bias,    &p->scale,    &p->fresh_scale, &p->fine,  &p->row_bias};
    const size_t places[] = {at.xw,  at.x_scale, at.products, at.fresh,       at.state, at.cell,
                             at.mix, at.bias,    at.scale,    at.fresh_scale, at.fine,  at.row_bias};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        *floats[i] = (float *)(void *)(base + places[i]);
    p->x_bytes = (uint8_t *)base + at.x_bytes;
    p->bytes = (uint8_t *)base + at.bytes;
    p->gemm = base + at.gemm;
    p->gemm_each = at.gemm_each;
    p->acts = p->r->acts + dir * (p->r->cell == QD_CELL_LSTM ? 3 : p->r->cell == QD_CELL_GRU ? 2 : 1);
    p->backwards = p->r->reverse || dir == 1;
    p->peep = qd_op_has(call, 7) ? (const float *)call->in[7].data + dir * 3 * p->s.hidden : NULL;
    if (p->r->packed) {
        p->weights = p->r->weights[dir];
        return;
    }
    const float *w = call->in[1].data, *recurrent = (const float *)call->in[2].data + dir * p->s.gates * p->s.hidden;
    qd_recurrent_pack_now(p->r, call->kernels, p->s.input ? w + dir * p->s.gates * p->s.input : NULL, recurrent,
                          p->s.hidden, p->s.input, base + at.weights, &p->weights);
}

static void run_directions(void *ctx, int64_t begin, int64_t end)
{
    for (int64_t dir = begin; dir < end; dir++) {
        struct pass p;
        start(&p, ctx, (size_t)dir);
        load_bias(&p);
        load_state(&p, 5, p.state);
        if (p.r->cell == QD_CELL_LSTM)
            load_state(&p, 6, p.cell);
        multiply_input(&p);
        for (size_t step = 0; step < p.s.steps; step++)
            run_step(&p, step);
        store_state(&p, 1, p.state);
        if (p.r->cell == QD_CELL_LSTM)
            store_state(&p, 2, p.cell);
    }
}

enum qd_status qd_recurrent_run(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_recurrent *r = call->prep;
    const struct sizes s = sizes_of(call);
    for (size_t b = 0; b < s.batch && qd_op_has(call, 4); b++) {
        int32_t length = ((const int32_t *)call->in[4].data)[b];
        if (length < 0 || (size_t)length > s.steps)
            return qd_op_fail(call, error, QD_ERR_INVALID, "sequence_lens has %" PRId32 ", the input %zu steps", length,
                              s.steps);
    }
    if (s.batch)
        qd_op_split(call, r->directions, 1, run_directions, (void *)(uintptr_t)call);
    return QD_OK;
}
