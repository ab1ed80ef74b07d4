/* Shadow runs. See shadow.h. */
#include "engine/model.h"
#include "engine/plan/convert.h"

#include <math.h>
#include <string.h>

/* The INT8 layers of a plan, in the order of its steps: their sums of squares stand at the same index. */
struct qd_shadow {
    struct qd_probe probe; /* first: look() gets it back */
    struct qd_model *model;
    struct qd_plan *plan; /* references, as the next */
    struct qd_epoch *epoch;
    struct qd_arena *arena, *step_arena; /* of the copies and the lane; of one layer's measurement */
    struct qd_tensor *inputs, *answers;
    struct qd_squares *layers; /* [step_count] of `plan` */
    struct qd_squares answer;
    double dot, got; /* for the cosine */
    uint64_t rows, agreed;
    bool measured;
};

static bool is_measured(const struct qd_step *step) { return step->kind == QD_STEP_LINEAR && step->int8; }

static bool copy_tensor(struct qd_arena *arena, const struct qd_tensor *from, struct qd_tensor *to)
{
    size_t bytes = 0;
    *to = *from;
    if (from->dtype == QD_NONE || qd_tensor_bytes(from) == 0)
        return true;
    void *block = qd_tensor_block_bytes(from, &bytes) ? qd_arena_alloc_raw(arena, bytes) : NULL;
    if (block)
        *to = qd_tensor_copy(from, block);
    return block != NULL;
}

static enum qd_status copy_request(struct qd_shadow *s, const struct qd_infer *infer)
{
    const size_t inputs = qd_model_input_count(s->model), outputs = qd_model_output_count(s->model);
    enum qd_status status = qd_arena_create(64 << 10, &s->arena);
    if (!status)
        status = qd_arena_create(64 << 10, &s->step_arena);
    if (status)
        return status;
    s->inputs = qd_arena_alloc(s->arena, inputs, sizeof *s->inputs);
    s->answers = qd_arena_alloc(s->arena, outputs, sizeof *s->answers);
    s->layers = qd_arena_alloc(s->arena, (size_t)s->plan->step_count, sizeof *s->layers);
    bool good = s->inputs && s->answers && s->layers;
    for (size_t i = 0; good && i < inputs; i++)
        good = copy_tensor(s->arena, &infer->inputs[i], &s->inputs[i]);
    for (size_t o = 0; good && o < outputs; o++)
        good = copy_tensor(s->arena, qd_infer_output(infer, o), &s->answers[o]);
    return good ? QD_OK : QD_ERR_NO_MEMORY;
}

static void destroy(struct qd_shadow **shadow)
{
    struct qd_shadow *s = *shadow;
    *shadow = NULL;
    qd_arena_destroy(&s->arena);
    qd_arena_destroy(&s->step_arena);
    qd_epoch_unref(&s->epoch);
    qd_plan_unref(&s->plan);
    qd_model_unref(&s->model);
    qd_free(s);
}

enum qd_status qd_shadow_create(const struct qd_infer *infer, struct qd_shadow **out, struct qd_error *error)
{
    if (!infer->ran || infer->lane.status || infer->escalated || infer->plan != infer->base ||
        infer->plan->options.fp32)
        return qd_fail(error, QD_ERR_INVALID, "the request was not served in INT8");
    struct qd_shadow *s = qd_calloc(1, sizeof *s);
    if (!s)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to measure the error");
    s->model = qd_model_ref(infer->model);
    s->plan = qd_plan_ref(infer->plan);
    s->epoch = qd_epoch_ref(infer->epoch);
    if (copy_request(s, infer) != QD_OK) {
        destroy(&s);
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to measure the error");
    }
    *out = s;
    return QD_OK;
}

/* ------------------------------------------------------------------ one layer */

static void add_squares(struct qd_squares *sum, const float *want, const float *got, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double error = (double)got[i] - (double)want[i];
        sum->signal += (double)want[i] * (double)want[i];
        sum->noise += error * error;
    }
}

/* The input's scale: the epoch's, or this tensor's own while the site warms up. */
static struct qd_qparams scale_for(const struct qd_shadow *s, int site, const struct qd_tensor *in)
{
    if (s->epoch->sites[site].ready)
        return s->epoch->sites[site].qp;
    double lo = 0, hi = 0;
    for (int64_t i = 0; i < qd_tensor_elems(in); i++) {
        const double v = (double)((const float *)in->data)[i];
        lo = v < lo ? v : lo;
        hi = v > hi ? v : hi;
    }
    return isfinite(lo) && isfinite(hi) ? qd_qparams_from_range(lo, hi, s->plan->options.symmetric)
                                        : qd_qparams_from_range(0, 0, s->plan->options.symmetric);
}

/* The INT8 layer on the input and residual that the FP32 step had, against what that step made. */
static void measure(struct qd_shadow *s, const struct qd_lane *lane, const struct qd_step *fp32,
                    const struct qd_step *int8, struct qd_squares *sum)
{
    const struct qd_tensor *in = &lane->slots[fp32->in[0]], *want = &lane->slots[fp32->out[0]];
    struct qd_tensor bytes = *in, got = *want;
    const int residual = qd_step_residual(fp32);
    const bool rows = qd_step_rows(int8) != QD_NO_VALUE;
    struct qd_observation ignored = qd_observation_empty();
    const size_t elems = (size_t)qd_tensor_elems(in);
    const size_t scratch_bytes = qd_linear_scratch_bytes(int8->linear, &in->shape, s->plan->parallel->threads);
    bytes.dtype = QD_U8;
    bytes.data = qd_arena_alloc_raw(s->step_arena, elems + 1);
    got.data = qd_arena_alloc_raw(s->step_arena, qd_tensor_bytes(want) + 1);
    void *scratch = qd_arena_alloc_raw(s->step_arena, (scratch_bytes > elems ? scratch_bytes : elems) + 1);
    struct qd_row_scale *scales = qd_arena_alloc(s->step_arena, elems + 1, rows ? sizeof *scales : 1);
    if (bytes.data && got.data && scratch && scales) {
        const struct qd_qparams qp = scale_for(s, s->plan->slots[int8->in[0]].site, in);
        if (rows)
            qd_convert_quantize_rows(s->plan->kernels, in, &bytes, int8->by, scales, s->plan->options.symmetric,
                                     &ignored, s->plan->parallel);
        else
            qd_convert_quantize(s->plan->kernels, in, &bytes, &qp, &ignored, scratch, s->plan->parallel);
        const struct qd_linear_call call = {.in = &bytes,
                                            .out = &got,
                                            .in_qp = &qp,
                                            .rows = rows ? scales : NULL,
                                            .bias = s->epoch->biases ? s->epoch->biases->of[int8 - s->plan->steps]
                                                                     : NULL,
                                            .residual = residual == QD_NO_VALUE ? NULL : &lane->slots[residual],
                                            .scratch = scratch,
                                            .parallel = s->plan->parallel};
        qd_linear_run(int8->linear, &call);
        add_squares(sum, want->data, got.data, qd_tensor_elems(want));
    }
    qd_arena_reset(s->step_arena);
}

/* After each linear step of the FP32 run: the same unit of the INT8 plan, when it is one. */
static void look(struct qd_probe *probe, const struct qd_lane *lane, const struct qd_step *step)
{
    struct qd_shadow *s = (struct qd_shadow *)probe;
    for (int i = 0; i < s->plan->step_count; i++) {
        const struct qd_step *mine = &s->plan->steps[i];
        if (is_measured(mine) && strcmp(mine->node->name, step->node->name) == 0 &&
            strcmp(mine->fused, step->fused) == 0 &&
            (qd_step_residual(mine) == QD_NO_VALUE) == (qd_step_residual(step) == QD_NO_VALUE)) {
            measure(s, lane, step, mine, &s->layers[i]);
            return;
        }
    }
}

/* ------------------------------------------------------------------ the answers */

static int64_t largest(const float *row, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        best = row[i] > row[best] ? i : best;
    return best;
}

static void compare(struct qd_shadow *s, size_t output, const struct qd_tensor *want)
{
    const struct qd_tensor *got = &s->answers[output];
    if (want->dtype != QD_F32 || got->dtype != QD_F32 || !qd_shape_equal(&want->shape, &got->shape))
        return;
    const float *a = got->data, *b = want->data;
    const int64_t n = qd_tensor_elems(want);
    add_squares(&s->answer, b, a, n);
    for (int64_t i = 0; i < n; i++) {
        s->dot += (double)a[i] * (double)b[i];
        s->got += (double)a[i] * (double)a[i];
    }
    const int64_t columns = want->shape.rank ? want->shape.dims[want->shape.rank - 1] : 1;
    for (int64_t i = 0; output == 0 && columns > 1 && i + columns <= n; i += columns) {
        s->rows++;
        s->agreed += largest(a + i, columns) == largest(b + i, columns);
    }
}

void qd_shadow_run(struct qd_shadow *s)
{
    struct qd_error ignored;
    struct qd_plan *plan;
    struct qd_shaped *shaped;
    qd_team_leave();
    const size_t inputs = qd_model_input_count(s->model);
    struct qd_shape *shapes = qd_arena_alloc(s->arena, inputs, sizeof *shapes);
    if (!shapes || qd_model_plan_fp32(s->model, &plan, &ignored) != QD_OK)
        return;
    for (size_t i = 0; i < inputs; i++)
        shapes[i] = s->inputs[i].dtype == QD_NONE ? qd_model_input(s->model, i)->shape : s->inputs[i].shape;
    if (qd_plan_shape(plan, shapes, &shaped, &ignored) != QD_OK)
        return;
    s->probe.look = look;
    struct qd_lane lane = {.plan = plan, .shaped = shaped, .arena = s->arena, .probe = &s->probe}, *lanes[] = {&lane};
    if (qd_lane_bind(&lane, s->inputs, &ignored) == QD_OK) {
        qd_exec_run(lanes, 1);
        s->measured = lane.status == QD_OK;
        for (size_t o = 0; s->measured && o < qd_model_output_count(s->model); o++)
            compare(s, o, &lane.slots[plan->output_slots[o]]);
    }
    qd_lane_release(&lane);
    qd_shaped_unref(&shaped);
}

/* ------------------------------------------------------------------ the figures */

void qd_shadow_finish(struct qd_shadow **shadow)
{
    struct qd_shadow *s = *shadow;
    struct qd_accuracy *a = &s->model->accuracy;
    const double product = s->answer.signal * s->got;
    if (s->measured && s->plan == s->model->plan && isfinite(product) && isfinite(s->answer.noise)) {
        const double cosine = product > 0 ? s->dot / sqrt(product) : s->answer.signal == s->got;
        a->cosine_min = a->sampled == 0 || cosine < a->cosine_min ? cosine : a->cosine_min;
        a->cosine_sum += cosine;
        a->sampled++;
        a->rows += s->rows;
        a->agreed += s->agreed;
        a->answer.signal += s->answer.signal;
        a->answer.noise += s->answer.noise;
        for (int i = 0; i < s->plan->step_count; i++) {
            a->layers[i].signal += s->layers[i].signal;
            a->layers[i].noise += s->layers[i].noise;
        }
    }
    destroy(shadow);
}

double qd_squares_db(const struct qd_squares *s)
{
    return s->signal > 0 ? (s->noise > 0 ? 10 * log10(s->signal / s->noise) : INFINITY) : NAN;
}

/* Wilson's score interval: center and half width of a share of n, z = 1.96. */
static void wilson(uint64_t agreed, uint64_t rows, double *low, double *high)
{
    const double z = 1.959964, n = (double)rows, p = (double)agreed / n, zz = z * z / n;
    const double centre = (p + zz / 2) / (1 + zz), half = z / (1 + zz) * sqrt(p * (1 - p) / n + zz / (4 * n));
    *low = centre - half > 0 ? centre - half : 0;
    *high = centre + half < 1 ? centre + half : 1;
}

void qd_model_accuracy(const struct qd_model *model, struct qd_accuracy_report *out)
{
    const struct qd_accuracy *a = &model->accuracy;
    *out = (struct qd_accuracy_report){.sampled = a->sampled,
                                       .cosine_mean = a->sampled ? a->cosine_sum / (double)a->sampled : NAN,
                                       .cosine_min = a->sampled ? a->cosine_min : NAN,
                                       .sqnr_db = qd_squares_db(&a->answer),
                                       .rows = a->rows,
                                       .rows_agreed = a->agreed};
    out->top1 = a->rows ? (double)a->agreed / (double)a->rows : NAN;
    out->top1_low = out->top1_high = NAN;
    if (a->rows)
        wilson(a->agreed, a->rows, &out->top1_low, &out->top1_high);
    for (int i = 0; i < model->plan->step_count; i++)
        out->layers += is_measured(&model->plan->steps[i]);
}

void qd_model_layer_accuracy(const struct qd_model *model, size_t i, struct qd_layer_accuracy *out)
{
    int step = 0;
    for (size_t seen = 0;; step++)
        if (is_measured(&model->plan->steps[step]) && seen++ == i)
            break;
    const struct qd_step *layer = &model->plan->steps[step];
    *out = (struct qd_layer_accuracy){.node = layer->node->name,
                                      .int8_us = (double)layer->int8_us,
                                      .fp32_us = (double)layer->fp32_us,
                                      .sqnr_db = qd_squares_db(&model->accuracy.layers[step])};
}
