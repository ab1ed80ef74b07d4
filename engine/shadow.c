/* Shadow runs. See shadow.h. */
#include "engine/shadow_impl.h"

#include <math.h>
#include <string.h>

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

/* The lanes of the run: one in FP32, and one for each layer whose error in the answer is wanted. */
static void probe_layers(struct qd_shadow *s)
{
    int steps[QD_PROBES];
    const int count = qd_mixed_next(s->model, steps);
    s->times_fp32 = qd_mixed_wants_times(s->model);
    for (int i = 0; i < count; i++)
        s->lanes[s->lane_count++] = (struct qd_shadow_probe){.probe = {qd_shadow_look}, .shadow = s, .only = steps[i]};
}

enum qd_status qd_shadow_create(const struct qd_infer *infer, struct qd_shadow **out, struct qd_error *error)
{
    if (!infer->ran || infer->lane.status || infer->escalated || infer->plan != infer->base ||
        infer->plan->options.fp32 || infer->options.own_ranges || infer->options.has_guard)
        return qd_fail(error, QD_ERR_INVALID, "the request was not served in INT8");
    struct qd_shadow *s = qd_calloc(1, sizeof *s);
    if (!s)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to measure the error");
    s->lanes[s->lane_count++] = (struct qd_shadow_probe){.probe = {qd_shadow_look}, .shadow = s, .only = -1};
    s->model = qd_model_ref(infer->model);
    s->plan = qd_plan_ref(infer->plan);
    s->epoch = qd_epoch_ref(infer->epoch);
    s->widens = infer->guard != QD_GUARD_CLIP;
    s->guard_tolerance = infer->guard_tolerance;
    s->rules = infer->lane.rules;
    s->wants_plain = s->plan == s->model->plan && qd_correction_is_tried(s->model, s->epoch->biases);
    if (s->plan == s->model->plan)
        probe_layers(s);
    if (copy_request(s, infer) != QD_OK) {
        destroy(&s);
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to measure the error");
    }
    s->model->watched++;
    *out = s;
    return QD_OK;
}

/* ------------------------------------------------------------------ the answers */

static int64_t largest(const float *row, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        best = row[i] > row[best] ? i : best;
    return best;
}

static void compare(struct qd_comparison *c, size_t output, const struct qd_tensor *got, const struct qd_tensor *want)
{
    if (want->dtype != QD_F32 || got->dtype != QD_F32 || !qd_shape_equal(&want->shape, &got->shape))
        return;
    const float *a = got->data, *b = want->data;
    const int64_t n = qd_tensor_elems(want);
    for (int64_t i = 0; i < n; i++) {
        const double error = (double)a[i] - (double)b[i];
        c->squares.signal += (double)b[i] * (double)b[i];
        c->squares.noise += error * error;
        c->dot += (double)a[i] * (double)b[i];
        c->got += (double)a[i] * (double)a[i];
    }
    const int64_t columns = want->shape.rank ? want->shape.dims[want->shape.rank - 1] : 1;
    for (int64_t i = 0; output == 0 && columns > 1 && i + columns <= n; i += columns) {
        c->rows++;
        c->agreed += largest(a + i, columns) == largest(b + i, columns);
    }
}

static bool bind(struct qd_shadow *s, struct qd_plan *plan, struct qd_shaped *shaped, struct qd_lane *lanes)
{
    struct qd_error ignored;
    bool good = true;
    for (int i = 0; i < s->lane_count; i++) {
        lanes[i] = (struct qd_lane){.plan = plan, .shaped = shaped, .arena = s->arena, .probe = &s->lanes[i].probe};
        good = good && qd_lane_bind(&lanes[i], s->inputs, &ignored) == QD_OK;
    }
    return good;
}

/* The served answer, and the answers with one layer in integers, against the one in FP32. */
static void judge(struct qd_shadow *s, const struct qd_plan *plan, const struct qd_lane *lanes)
{
    for (int i = 0; i < s->lane_count; i++)
        if (lanes[i].status != QD_OK)
            return;
    s->measured = true;
    for (size_t o = 0; o < qd_model_output_count(s->model); o++) {
        const struct qd_tensor *want = &lanes[0].slots[plan->output_slots[o]];
        compare(&s->answer, o, &s->answers[o], want);
        for (int i = 1; i < s->lane_count; i++)
            compare(&s->lanes[i].answer, o, &lanes[i].slots[plan->output_slots[o]], want);
    }
}

/* The request once more as it was served, but with each layer's own bias, against `fp32`, the lane that ran. */
static void run_plain(struct qd_shadow *s, const struct qd_shape *shapes, const struct qd_plan *plan,
                      const struct qd_lane *fp32)
{
    struct qd_error ignored;
    struct qd_shaped *shaped = NULL;
    const size_t bytes = s->epoch->site_count * sizeof s->epoch->sites[0];
    struct qd_epoch *epoch = qd_arena_alloc(s->arena, 1, sizeof *epoch + bytes);
    if (!epoch || qd_plan_shape(s->plan, shapes, &shaped, &ignored) != QD_OK)
        return;
    epoch->id = s->epoch->id; /* not its references: others change them meanwhile */
    epoch->frozen = s->epoch->frozen;
    epoch->site_count = s->epoch->site_count;
    if (bytes)
        memcpy(epoch->sites, s->epoch->sites, bytes);
    struct qd_lane lane = {.plan = s->plan, .shaped = shaped, .epoch = epoch, .rules = s->rules, .arena = s->arena};
    struct qd_lane *running = &lane;
    if (qd_lane_bind(&lane, s->inputs, &ignored) == QD_OK) {
        qd_exec_run(&running, 1);
        for (size_t o = 0; lane.status == QD_OK && o < qd_model_output_count(s->model); o++)
            compare(&s->plain, o, &lane.slots[s->plan->output_slots[o]], &fp32->slots[plan->output_slots[o]]);
        s->has_plain = lane.status == QD_OK;
    }
    qd_lane_release(&lane);
    qd_shaped_unref(&shaped);
}

static void run_beside(struct qd_shadow *s, struct qd_plan *plan)
{
    struct qd_error ignored;
    struct qd_shaped *shaped;
    struct qd_lane lanes[1 + QD_PROBES], *running[1 + QD_PROBES];
    const size_t inputs = qd_model_input_count(s->model);
    struct qd_shape *shapes = qd_arena_alloc(s->arena, inputs, sizeof *shapes);
    s->twins = qd_arena_alloc(s->arena, (size_t)plan->step_count, sizeof *s->twins);
    if (!shapes || !s->twins)
        return;
    for (size_t i = 0; i < inputs; i++)
        shapes[i] = s->inputs[i].dtype == QD_NONE ? qd_model_input(s->model, i)->shape : s->inputs[i].shape;
    if (qd_plan_shape(plan, shapes, &shaped, &ignored) != QD_OK)
        return;
    qd_shadow_match(s, plan);
    if (bind(s, plan, shaped, lanes)) {
        for (int i = 0; i < s->lane_count; i++)
            running[i] = &lanes[i];
        const double start = qd_thread_us();
        qd_exec_run(running, (size_t)s->lane_count);
        s->fp32_us = (qd_thread_us() - start) / s->lane_count;
        judge(s, plan, lanes);
        if (s->measured && s->wants_plain)
            run_plain(s, shapes, plan, &lanes[0]);
    }
    for (int i = 0; i < s->lane_count; i++)
        qd_lane_release(&lanes[i]);
    qd_shaped_unref(&shaped);
}

void qd_shadow_run(struct qd_shadow *s)
{
    struct qd_error ignored;
    struct qd_plan *plan = NULL;
    qd_team_leave();
    if (qd_model_plan_fp32(s->model, &plan, &ignored) == QD_OK)
        run_beside(s, plan);
    qd_plan_unref(&plan);
}

/* ------------------------------------------------------------------ the figures */

/* 1 where both are nothing. */
static double cosine(const struct qd_comparison *c)
{
    const double product = c->squares.signal * c->got;
    return product > 0 ? c->dot / sqrt(product) : c->squares.signal == c->got;
}

static bool sound(const struct qd_comparison *c)
{
    return isfinite(c->squares.signal * c->got) && isfinite(c->squares.noise);
}

/* What the choice of precisions is to know. */
static void tell(const struct qd_shadow *s)
{
    struct qd_mixed_found found = {
        .cosine = cosine(&s->answer), .fp32_us = s->fp32_us, .answer = s->answer.squares, .layers = s->layers};
    for (int i = 1; i < s->lane_count; i++) {
        const struct qd_comparison *c = &s->lanes[i].answer;
        if (!sound(c))
            continue;
        found.probes[found.probe_count].step = s->lanes[i].only;
        found.probes[found.probe_count].cosine = cosine(c);
        found.probes[found.probe_count++].answer = c->squares;
    }
    qd_mixed_fold(s->model, &found);
}

void qd_shadow_finish(struct qd_shadow **shadow)
{
    struct qd_shadow *s = *shadow;
    struct qd_accuracy *a = &s->model->accuracy;
    if (s->measured && s->plan == s->model->plan && sound(&s->answer)) {
        const double c = cosine(&s->answer);
        a->cosine_min = a->sampled == 0 || c < a->cosine_min ? c : a->cosine_min;
        a->cosine_sum += c;
        a->sampled++;
        a->rows += s->answer.rows;
        a->agreed += s->answer.agreed;
        a->answer.signal += s->answer.squares.signal;
        a->answer.noise += s->answer.squares.noise;
        for (int i = 0; i < s->plan->step_count; i++) {
            a->layers[i].signal += s->layers[i].squares.signal;
            a->layers[i].noise += s->layers[i].squares.noise;
        }
        tell(s);
        if (s->has_plain && sound(&s->plain))
            qd_correction_compare(s->model, s->epoch->biases, 1 - c, 1 - cosine(&s->plain));
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
        out->layers += qd_step_errs(model->plan, &model->plan->steps[i]);
}

void qd_model_layer_accuracy(const struct qd_model *model, size_t i, struct qd_layer_accuracy *out)
{
    int step = 0;
    for (size_t seen = 0;; step++)
        if (qd_step_errs(model->plan, &model->plan->steps[step]) && seen++ == i)
            break;
    const struct qd_step *layer = &model->plan->steps[step];
    *out = (struct qd_layer_accuracy){.node = layer->node->name,
                                      .int8_us = (double)layer->int8_us,
                                      .int16_us = (double)layer->int16_us,
                                      .fp32_us = (double)layer->fp32_us,
                                      .sqnr_db = qd_squares_db(&model->accuracy.layers[step])};
}
