/* Shaped plans: the cache, shapes that come from data, sentences for shapes that don't fit, and a workspace in which
 * living tensors never share a byte. Looks into the plan; what runs is test_exec's. */
#include "engine/model.h"
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct qd_engine *engine;

static struct qd_model *load(struct qd_mb *b)
{
    struct qd_quant_options options = qd_quant_defaults();
    options.activation_granularity = QD_PER_TENSOR; /* whatever is known of ranks */
    qd_mb_finish(b, 13);
    struct qd_model *model = qd_mb_load(b, engine, &options, NULL);
    assert_non_null(model);
    return model;
}

/* x [N, 3, H, W] -> two branches of convolutions, added, pooled, flattened. Shape chain: Shape, Gather, Unsqueeze,
 * Concat, Reshape. */
static struct qd_mb branches(void)
{
    static const int64_t zero = 0, minus = -1;
    struct qd_mb b = {0};
    qd_mb_input(&b, "x", QD_F32, "N,3,H,W");
    qd_mb_weights(&b, "w1", "8,3,3,3", 1, 0.4f);
    qd_mb_weights(&b, "w2", "8,8,3,3", 2, 0.2f);
    qd_mb_weights(&b, "w3", "8,3,1,1", 3, 0.4f);
    qd_mb_weights(&b, "w4", "8,5", 4, 0.4f);
    qd_mb_constant(&b, "zero", QD_I64, "", &zero);
    qd_mb_constant(&b, "minus", QD_I64, "1", &minus);
    qd_mb_constant(&b, "axis", QD_I64, "1", &zero);
    qd_mb_node(&b, "Conv", "x w1", "c1", "pads=[1,1,1,1]");
    qd_mb_node(&b, "Relu", "c1", "r1", NULL);
    qd_mb_node(&b, "Conv", "r1 w2", "c2", "pads=[1,1,1,1]");
    qd_mb_node(&b, "Conv", "x w3", "c3", NULL);
    qd_mb_node(&b, "Add", "c2 c3", "s", NULL);
    qd_mb_node(&b, "Relu", "s", "r2", NULL);
    qd_mb_node(&b, "MaxPool", "r2", "p", "kernel_shape=[2,2] strides=[2,2]");
    qd_mb_node(&b, "GlobalAveragePool", "p", "g", NULL);
    qd_mb_node(&b, "Shape", "x", "sh", NULL);
    qd_mb_node(&b, "Gather", "sh zero", "n", "axis=0");
    qd_mb_node(&b, "Unsqueeze", "n axis", "n1", NULL);
    qd_mb_node(&b, "Concat", "n1 minus", "target", "axis=0");
    qd_mb_node(&b, "Reshape", "g target", "f", NULL);
    qd_mb_node(&b, "MatMul", "f w4", "m", NULL);
    qd_mb_node(&b, "Softmax", "m", "y", "axis=1");
    qd_mb_output(&b, "y", QD_F32, "N,5");
    return b;
}

static int cached(const struct qd_plan *plan)
{
    int n = 0;
    for (const struct qd_shaped *s = plan->cache; s; s = s->next)
        n++;
    return n;
}

static bool is_cached(const struct qd_plan *plan, const struct qd_shaped *shaped)
{
    for (const struct qd_shaped *s = plan->cache; s; s = s->next)
        if (s == shaped)
            return true;
    return false;
}

static struct qd_shaped *shaped_for(struct qd_plan *plan, int64_t n)
{
    struct qd_shape shape = {4, {n, 3, 8, 8}};
    struct qd_shaped *s = NULL;
    assert_int_equal(qd_plan_shape(plan, &shape, &s, NULL), QD_OK);
    return s;
}

static void test_cache(void **state)
{
    (void)state;
    struct qd_mb b = branches();
    struct qd_model *model = load(&b);
    struct qd_plan *plan = model->plan;
    struct qd_shaped *hot = shaped_for(plan, 1), *held = shaped_for(plan, 2), *again;
    assert_ptr_not_equal(hot, held);
    assert_true(is_cached(plan, held));
    for (int64_t n = 3; n < 80; n++) {
        struct qd_shaped *s = shaped_for(plan, n);
        assert_true(is_cached(plan, s) && cached(plan) <= QD_SHAPES_KEPT);
        qd_shaped_unref(&s);
        again = shaped_for(plan, 1); /* in use all the time: stays */
        assert_ptr_equal(again, hot);
        qd_shaped_unref(&again);
    }
    assert_int_equal(cached(plan), QD_SHAPES_KEPT);
    assert_false(is_cached(plan, held)); /* gone from the cache, still ours */
    assert_int_equal(held->inputs[0].dims[0], 2);
    assert_true(held->workspace_bytes > 0);
    again = shaped_for(plan, 2);
    assert_ptr_not_equal(again, held);
    assert_int_equal(again->workspace_bytes, held->workspace_bytes);
    /* the least recently used goes first: after 80, 1 and 2 the oldest is 50 (32 kept: 1, 2 and 50..79 are) */
    struct qd_shaped *last = plan->cache;
    while (last->next)
        last = last->next;
    assert_int_equal(last->inputs[0].dims[0], 50);
    qd_shaped_unref(&again);
    qd_shaped_unref(&held);
    qd_shaped_unref(&hot);
    qd_model_unref(&model);
    qd_mb_free(&b);
}

static int root(const struct qd_shaped *s, int slot)
{
    while (s->alias[slot] >= 0)
        slot = s->alias[slot];
    return slot;
}

/* First step that writes the slot, last that reads it or a view of it. */
static void life(const struct qd_plan *plan, const struct qd_shaped *s, int slot, int *first, int *last)
{
    *first = plan->step_count + 1;
    *last = -1;
    for (int i = 0; i < plan->step_count; i++) {
        const struct qd_step *step = &plan->steps[i];
        for (int k = 0; k < step->out_count; k++)
            if (step->out[k] != QD_NO_VALUE && root(s, step->out[k]) == slot) {
                *first = i < *first ? i : *first;
                *last = i;
            }
        for (int k = 0; k < step->in_count; k++)
            if (step->in[k] != QD_NO_VALUE && root(s, step->in[k]) == slot)
                *last = i;
    }
    for (int i = 0; i < plan->graph.output_count; i++)
        if (root(s, plan->output_slots[i]) == slot)
            *last = plan->step_count;
}

static void test_living_tensors_never_overlap(void **state)
{
    (void)state;
    struct qd_mb b = branches();
    struct qd_model *model = load(&b);
    struct qd_plan *plan = model->plan;
    size_t whole = 0;
    int pairs = 0;
    struct qd_shaped *s = shaped_for(plan, 3);
    for (int i = 0; i < plan->slot_count; i++) {
        if (s->offsets[i] == SIZE_MAX)
            continue;
        int first, last, other_first, other_last;
        size_t bytes = qd_tensor_bytes(&s->slots[i]);
        whole += bytes;
        assert_true(s->offsets[i] % QD_ALIGN_BYTES == 0 && s->offsets[i] + bytes <= s->scratch_offset);
        life(plan, s, i, &first, &last);
        for (int j = 0; j < i; j++) {
            if (s->offsets[j] == SIZE_MAX)
                continue;
            life(plan, s, j, &other_first, &other_last);
            if (first > other_last || other_first > last)
                continue;
            pairs++;
            if (s->offsets[i] < s->offsets[j] + qd_tensor_bytes(&s->slots[j]) && s->offsets[j] < s->offsets[i] + bytes)
                fail_msg("slots %d and %d live at the same time and overlap", i, j);
        }
    }
    assert_true(pairs > 4);
    assert_true(s->scratch_offset < whole); /* memory is reused at all */
    assert_true(s->scratch_offset + s->scratch_bytes <= s->workspace_bytes);
    assert_int_equal(s->static_steps, plan->step_count); /* the chain of shapes needs no data */
    int known = 0;
    for (int i = 0; i < plan->step_count; i++)
        known += plan->steps[i].kind == QD_STEP_OP && s->done[i];
    assert_true(known >= 5); /* Shape, Gather, Unsqueeze, Concat were computed, Reshape is a view */
    qd_shaped_unref(&s);
    qd_model_unref(&model);
    qd_mb_free(&b);
}

/* Prepares, runs; the first status that is no QD_OK, with its sentence. */
static enum qd_status attempt(struct qd_model *model, const char *shape, const int64_t *target, size_t count,
                              struct qd_error *error, float *answer, struct qd_shape *answer_shape)
{
    struct qd_infer_options options = qd_infer_defaults();
    struct qd_shape x = qd_mb_shape(shape), t = {1, {(int64_t)count}};
    struct qd_infer *infer;
    void *data;
    assert_int_equal(qd_infer_create(model, &options, &infer, error), QD_OK);
    enum qd_status status = qd_infer_input_alloc(infer, 0, QD_F32, &x, &data, error);
    if (!status) {
        struct qd_tensor view = {.dtype = QD_F32, .shape = x};
        qd_mb_fill(data, (size_t)qd_tensor_elems(&view), 5, 1);
    }
    if (!status && target) {
        status = qd_infer_input_alloc(infer, 1, QD_I64, &t, &data, error);
        if (!status)
            memcpy(data, target, count * sizeof *target);
    }
    if (!status)
        status = qd_infer_prepare(infer, error);
    if (!status) {
        qd_infer_run(&infer, 1);
        status = qd_infer_status(infer, error);
    }
    if (!status && answer) {
        const struct qd_tensor *out = qd_infer_output(infer, 0);
        memcpy(answer, out->data, qd_tensor_bytes(out));
        *answer_shape = out->shape;
    }
    qd_infer_finish(infer);
    qd_infer_destroy(&infer);
    return status;
}

/* Reshape by an input, then integer layers: their shapes come while running. */
static void test_shape_from_data(void **state)
{
    (void)state;
    struct qd_mb b = {0}, c = {0};
    struct qd_error error = {0};
    float dynamic[64], fixed[64];
    struct qd_shape shape, other;
    qd_mb_input(&b, "x", QD_F32, "N,M");
    qd_mb_input(&b, "target", QD_I64, "R");
    qd_mb_weights(&b, "w", "6,5", 1, 0.5f);
    qd_mb_weights(&b, "v", "5,4", 2, 0.5f);
    qd_mb_node(&b, "Reshape", "x target", "r", NULL);
    qd_mb_node(&b, "MatMul", "r w", "m", NULL);
    qd_mb_node(&b, "Relu", "m", "h", NULL);
    qd_mb_node(&b, "MatMul", "h v", "y", NULL);
    qd_mb_output(&b, "y", QD_F32, "");
    struct qd_model *model = load(&b);
    qd_mb_input(&c, "x", QD_F32, "N,6");
    qd_mb_weights(&c, "w", "6,5", 1, 0.5f);
    qd_mb_weights(&c, "v", "5,4", 2, 0.5f);
    qd_mb_node(&c, "MatMul", "x w", "m", NULL);
    qd_mb_node(&c, "Relu", "m", "h", NULL);
    qd_mb_node(&c, "MatMul", "h v", "y", NULL);
    qd_mb_output(&c, "y", QD_F32, "");
    struct qd_model *plain = load(&c);
    assert_int_equal(attempt(model, "4,9", (int64_t[]){2, -1, 6}, 3, &error, dynamic, &shape), QD_OK);
    assert_true(shape.rank == 3 && shape.dims[0] == 2 && shape.dims[1] == 3 && shape.dims[2] == 4);
    assert_int_equal(attempt(plain, "6,6", NULL, 0, &error, fixed, &other), QD_OK);
    assert_memory_equal(dynamic, fixed, 24 * sizeof(float));
    assert_int_equal(attempt(model, "4,9", (int64_t[]){6, 6}, 2, &error, dynamic, &shape),
                     QD_OK); /* same shapes, other data */
    assert_int_equal(shape.rank, 2);
    assert_memory_equal(dynamic, fixed, 24 * sizeof(float));
    assert_int_equal(attempt(model, "4,9", (int64_t[]){5, 7}, 2, &error, NULL, NULL), QD_ERR_SHAPE);
    assert_non_null(strstr(error.text, "'r'"));
    assert_int_equal(attempt(model, "4,9", (int64_t[]){4, 9}, 2, &error, NULL, NULL), QD_ERR_SHAPE);
    assert_non_null(strstr(error.text, "'m'"));
    struct qd_ranges_summary summary;
    struct qd_range_report range;
    qd_model_ranges(model, &summary);
    qd_model_range(model, 0, &range);
    assert_int_equal(summary.requests, 4);
    assert_int_equal(range.observations, 2);
    qd_model_unref(&model);
    qd_model_unref(&plain);
    qd_mb_free(&b);
    qd_mb_free(&c);
}

static void test_wrong_shapes_name_the_node(void **state)
{
    (void)state;
    struct qd_mb b = branches();
    struct qd_error error = {0};
    struct qd_model *model = load(&b);
    assert_int_equal(attempt(model, "1,3,1,8", NULL, 0, &error, NULL, NULL), QD_ERR_SHAPE);
    assert_non_null(strstr(error.text, "'p'"));
    assert_int_equal(attempt(model, "1,3,0,8", NULL, 0, &error, NULL, NULL), QD_ERR_SHAPE);
    assert_non_null(strstr(error.text, "'c1'"));
    assert_int_equal(attempt(model, "1,3,8,8", NULL, 0, &error, NULL, NULL), QD_OK); /* the model is none the worse */
    assert_int_equal(attempt(model, "0,3,8,8", NULL, 0, &error, NULL, NULL), QD_ERR_SHAPE); /* -1 of no elements */
    assert_non_null(strstr(error.text, "node '"));
    qd_model_unref(&model);
    qd_mb_free(&b);
}

static void test_overflow(void **state)
{
    (void)state;
    static const int64_t targets[][2] = {{INT64_C(1) << 40, INT64_C(1) << 40},
                                         {INT64_C(1) << 31, INT64_C(1) << 30},
                                         {INT64_C(1) << 30, INT64_C(1) << 30}};
    for (int i = 0; i < 3; i++)
        for (int from_data = 0; from_data < 2; from_data++) {
            struct qd_mb b = {0};
            struct qd_error error = {0};
            qd_mb_input(&b, "x", QD_F32, "1,1");
            if (from_data)
                qd_mb_input(&b, "t", QD_I64, "2");
            else
                qd_mb_constant(&b, "t", QD_I64, "2", targets[i]);
            qd_mb_node(&b, "Expand", "x t", "big", NULL);
            qd_mb_node(&b, "Relu", "big", "y", NULL);
            qd_mb_output(&b, "y", QD_F32, "");
            struct qd_model *model = load(&b);
            enum qd_status status = attempt(model, "1,1", from_data ? targets[i] : NULL, 2, &error, NULL, NULL);
            if (status != QD_ERR_TOO_LARGE && !(i > 0 && status == QD_ERR_NO_MEMORY))
                fail_msg("row %d, %d: status %d, '%s'", i, from_data, (int)status, error.text);
            assert_true(error.text[0] != 0);
            qd_model_unref(&model);
            qd_mb_free(&b);
        }
}

static int setup(void **state)
{
    (void)state;
    engine = qd_mb_engine(2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    qd_engine_destroy(&engine);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache),           cmocka_unit_test(test_living_tensors_never_overlap),
        cmocka_unit_test(test_shape_from_data), cmocka_unit_test(test_wrong_shapes_name_the_node),
        cmocka_unit_test(test_overflow),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
