/* Running a plan: the same bytes whatever memory held before, however many threads and neighbours; inputs and
 * outputs of every kind; and every allocation that can fail, failed. */
#include "engine/model.h"
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <math.h>

/* Convolutions with batch normalization, a residual addition, pools, a view, a linear layer, Softmax; FP32 and INT8
 * mixed. */
static struct qd_mb network(void)
{
    struct qd_mb b = {0};
    static const float variance[8] = {1, 2, 0.5f, 1, 1, 3, 1, 0.25f};
    qd_mb_input(&b, "x", QD_F32, "N,3,10,10");
    qd_mb_weights(&b, "w1", "8,3,3,3", 1, 0.4f);
    qd_mb_weights(&b, "w2", "8,8,3,3", 2, 0.2f);
    qd_mb_weights(&b, "w3", "8,1,3,3", 3, 0.4f);
    qd_mb_weights(&b, "w4", "10,200", 4, 0.1f);
    qd_mb_weights(&b, "s", "8", 5, 1);
    qd_mb_weights(&b, "t", "8", 6, 1);
    qd_mb_constant(&b, "v", QD_F32, "8", variance);
    qd_mb_node(&b, "Conv", "x w1 t", "c1", "pads=[1,1,1,1]");
    qd_mb_node(&b, "BatchNormalization", "c1 s t s v", "n1", NULL);
    qd_mb_node(&b, "Relu", "n1", "r1", NULL);
    qd_mb_node(&b, "Conv", "r1 w2", "c2", "pads=[1,1,1,1]");
    qd_mb_node(&b, "Add", "c2 r1", "a", NULL);
    qd_mb_node(&b, "Conv", "a w3", "c3", "group=8 pads=[1,1,1,1]");
    qd_mb_node(&b, "Relu", "c3", "r3", NULL);
    qd_mb_node(&b, "MaxPool", "r3", "p", "kernel_shape=[2,2] strides=[2,2]");
    qd_mb_node(&b, "Flatten", "p", "f", NULL);
    qd_mb_node(&b, "Gemm", "f w4", "g", "transB=1");
    qd_mb_node(&b, "Softmax", "g", "y", "axis=1");
    qd_mb_output(&b, "y", QD_F32, "N,10");
    qd_mb_finish(&b, 13);
    return b;
}

enum { IMAGE = 3 * 10 * 10, CLASSES = 10 };

/* One run over the plan itself, in an arena that held `rubbish` before. */
static void run_in_dirty_memory(struct qd_model *model, float *x, int rubbish, float *answer)
{
    struct qd_shape shape = {4, {2, 3, 10, 10}};
    struct qd_tensor input = {.dtype = QD_F32, .shape = shape, .data = x};
    struct qd_lane lane = {.plan = model->plan,
                           .epoch = qd_learner_current(model->learner),
                           .rules = {.action = QD_GUARDED_WIDEN, .tolerance = 0.25}};
    struct qd_lane *lanes[] = {&lane};
    assert_int_equal(qd_plan_shape(model->plan, &shape, &lane.shaped, NULL), QD_OK);
    assert_int_equal(qd_arena_create(64 << 10, &lane.arena), QD_OK);
    size_t room = lane.shaped->workspace_bytes; /* what the plan keeps for requests is what the lane will get */
    void *dirt = qd_workspace_take(&model->plan->workspaces, &room);
    assert_non_null(dirt);
    memset(dirt, rubbish, room);
    qd_workspace_give(&model->plan->workspaces, dirt, room);
    assert_int_equal(qd_lane_bind(&lane, &input, NULL), QD_OK);
    assert_ptr_equal(lane.workspace, dirt);
    qd_exec_run(lanes, 1);
    assert_int_equal(lane.status, QD_OK);
    memcpy(answer, lane.slots[model->plan->output_slots[0]].data, 2 * CLASSES * sizeof *answer);
    qd_lane_release(&lane);
    qd_shaped_unref(&lane.shaped);
    qd_arena_destroy(&lane.arena);
}

static void test_memory_before_does_not_matter(void **state)
{
    (void)state;
    static const int rubbish[] = {0, 0xff, 0x7f, 0xa5};
    static float x[2 * IMAGE];
    float first[2 * CLASSES], answer[2 * CLASSES];
    struct qd_engine *engine = qd_mb_engine(2);
    struct qd_mb b = network();
    struct qd_model *model = qd_mb_load(&b, engine, NULL, NULL);
    assert_non_null(model);
    qd_mb_fill(x, 2 * IMAGE, 9, 1);
    for (int warm = 0; warm < 2; warm++) {
        for (int i = 0; i < 4; i++) {
            run_in_dirty_memory(model, x, rubbish[i], i ? answer : first);
            if (i && memcmp(first, answer, sizeof first) != 0)
                fail_msg("memory that held 0x%x changes the answer", rubbish[i]);
        }
        qd_mb_teach(model, "2,3,10,10", x, 10);
    }
    double sum = 0;
    for (int i = 0; i < CLASSES; i++)
        sum += (double)first[i];
    assert_true(fabs(sum - 1) < 1e-5);
    qd_model_unref(&model);
    qd_mb_free(&b);
    qd_engine_destroy(&engine);
}

/* Threads, neighbours, their number and order: the same bytes, and the same ranges afterwards. */
static void test_threads_and_neighbours_do_not_matter(void **state)
{
    (void)state;
    enum { LANES = 70 }; /* more than are run side by side */
    static float x[LANES][2 * IMAGE], want[LANES][2 * CLASSES];
    static struct qd_infer *lanes[LANES];
    static const unsigned threads[] = {1, 2, 3, 5};
    double ema_max = 0;
    for (size_t i = 0; i < LANES; i++)
        qd_mb_fill(x[i], 2 * IMAGE, 100 + i, 0.5f + (float)(i % 5));
    for (int t = 0; t < 4; t++) {
        struct qd_engine *engine = qd_mb_engine(threads[t]);
        struct qd_mb b = network();
        struct qd_model *model = qd_mb_load(&b, engine, NULL, NULL);
        struct qd_range_report range;
        assert_int_equal(qd_engine_threads(engine), threads[t]);
        qd_mb_teach(model, "2,3,10,10", x[1], 9);
        for (size_t i = 0; i < LANES; i++)
            lanes[i] = qd_mb_request(model, NULL, i % 7 ? "2,3,10,10" : "1,3,10,10", x[i]);
        if (t == 0)
            for (size_t i = 0; i < LANES; i++) /* alone */
                qd_infer_run(&lanes[i], 1);
        else
            qd_infer_run(lanes, LANES);
        for (size_t i = 0; i < LANES; i++) {
            size_t bytes = (i % 7 ? 2 : 1) * CLASSES * sizeof(float);
            assert_int_equal(qd_infer_status(lanes[i], NULL), QD_OK);
            if (t == 0)
                memcpy(want[i], qd_infer_output(lanes[i], 0)->data, bytes);
            else if (memcmp(want[i], qd_infer_output(lanes[i], 0)->data, bytes) != 0)
                fail_msg("lane %zu of %u threads has other bytes than alone", i, threads[t]);
            qd_infer_finish(lanes[i]);
            qd_infer_destroy(&lanes[i]);
        }
        qd_model_range(model, 2, &range);
        assert_true(t == 0 || range.ema_max == ema_max);
        ema_max = range.ema_max;
        qd_model_unref(&model);
        qd_mb_free(&b);
        qd_engine_destroy(&engine);
    }
}

static void test_no_images(void **state)
{
    (void)state;
    struct qd_engine *engine = qd_mb_engine(2);
    struct qd_mb b = network();
    struct qd_model *model = qd_mb_load(&b, engine, NULL, NULL);
    float x[IMAGE];
    struct qd_range_report range;
    qd_mb_fill(x, IMAGE, 3, 1);
    for (int i = 0; i < 2; i++) {
        struct qd_infer *infer = qd_mb_run(model, NULL, "0,3,10,10", x);
        assert_int_equal(qd_infer_output(infer, 0)->shape.dims[0], 0);
        qd_infer_destroy(&infer);
        qd_model_range(model, 0, &range);
        assert_int_equal(range.observations, i ? 10 : 0);
        qd_mb_teach(model, "1,3,10,10", x, i ? 0 : 10);
    }
    qd_model_unref(&model);
    qd_mb_free(&b);
    qd_engine_destroy(&engine);
}

/* ---------------------------------------------------------------- inputs */

/* a [N, 2] and b [N, 2] with a default for b; out: a + b, a itself, a constant, b. */
struct pair {
    struct qd_engine *engine;
    struct qd_mb b;
    struct qd_model *model;
};

static void pair_free(struct pair *n)
{
    qd_model_unref(&n->model);
    qd_mb_free(&n->b);
    qd_engine_destroy(&n->engine);
}

static struct pair pair_new(void)
{
    struct pair n = {.engine = qd_mb_engine(1)};
    static const float two[4] = {1, 2, 3, 4};
    qd_mb_input(&n.b, "a", QD_F32, "N,2");
    qd_mb_input(&n.b, "b", QD_F32, "N,2");
    qd_mb_input(&n.b, "d", QD_F32, "2");
    qd_mb_constant(&n.b, "d", QD_F32, "2", two);
    qd_mb_constant(&n.b, "k", QD_F32, "2,2", two);
    qd_mb_node(&n.b, "Add", "a b", "s", NULL);
    qd_mb_node(&n.b, "Add", "s d", "t", NULL);
    qd_mb_output(&n.b, "t", QD_F32, "N,2");
    qd_mb_output(&n.b, "a", QD_F32, "N,2");
    qd_mb_output(&n.b, "k", QD_F32, "2,2");
    qd_mb_output(&n.b, "d", QD_F32, "2");
    qd_mb_finish(&n.b, 13);
    n.model = qd_mb_load(&n.b, n.engine, NULL, NULL);
    assert_non_null(n.model);
    return n;
}

static void test_outputs_and_defaults(void **state)
{
    (void)state;
    struct pair n = pair_new();
    struct qd_infer_options options = qd_infer_defaults();
    float a[2] = {10, 20}, b[2] = {100, 200}, d[2] = {0.5f, 0.25f};
    assert_true(qd_model_input(n.model, 2)->optional && !qd_model_input(n.model, 0)->optional);
    assert_string_equal(qd_model_input(n.model, 0)->dim_names[0], "N");
    for (int given = 0; given < 2; given++) {
        struct qd_infer *infer;
        struct qd_tensor t = {.dtype = QD_F32, .shape = {2, {1, 2}}, .data = a};
        assert_int_equal(qd_infer_create(n.model, &options, &infer, NULL), QD_OK);
        assert_int_equal(qd_infer_input_borrow(infer, 0, &t, NULL), QD_OK);
        t.data = b;
        assert_int_equal(qd_infer_input_borrow(infer, 1, &t, NULL), QD_OK);
        t = (struct qd_tensor){.dtype = QD_F32, .shape = {1, {2}}, .data = d};
        if (given)
            assert_int_equal(qd_infer_input_borrow(infer, 2, &t, NULL), QD_OK);
        assert_int_equal(qd_infer_prepare(infer, NULL), QD_OK);
        assert_int_equal(qd_infer_status(infer, NULL), QD_ERR_INVALID); /* has not run */
        qd_infer_run(&infer, 1);
        assert_int_equal(qd_infer_status(infer, NULL), QD_OK);
        const float *out[4];
        for (size_t o = 0; o < 4; o++)
            out[o] = qd_infer_output(infer, o)->data;
        assert_true(out[0][0] == 110 + (given ? 0.5f : 1) && out[0][1] == 220 + (given ? 0.25f : 2));
        assert_true(out[1][0] == 10 && out[1][1] == 20);
        assert_true(out[2][0] == 1 && out[2][3] == 4);
        assert_true(out[3][1] == (given ? 0.25f : 2));
        qd_infer_finish(infer);
        qd_infer_destroy(&infer);
    }
    pair_free(&n);
}

static void test_wrong_inputs(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b; /* shapes; NULL: not given, "type", "twice" */
        enum qd_status status;
        const char *text;
    } rows[] = {
        {"1,2", NULL, QD_ERR_INVALID, "input 'b' is missing"},
        {"1,2", "2,2", QD_ERR_SHAPE, "dimension 'N' is 2 in input 'b' and 1 in input 'a'"},
        {"1,3", NULL, QD_ERR_SHAPE, "input 'a' has shape [1, 3], the model wants [N, 2]"},
        {"2", NULL, QD_ERR_SHAPE, "input 'a' has shape [2], the model wants [N, 2]"},
        {"-1,2", NULL, QD_ERR_SHAPE, "input 'a' has shape [?, 2], the model wants [N, 2]"},
        {"type", NULL, QD_ERR_TYPE, "input 'a' has datatype INT64, the model wants FP32"},
        {"twice", NULL, QD_ERR_INVALID, "input 'a' is given twice"},
        {"9223372036854775807,2", NULL, QD_ERR_TOO_LARGE, "input 'a' has shape [9223372036854775807, 2]: too large"},
        {"9000000000000,2", NULL, QD_ERR_TOO_LARGE, "input 'a' has shape [9000000000000, 2]: too large"},
        {"0,2", "0,2", QD_OK, ""},
    };
    struct pair n = pair_new();
    struct qd_infer_options options = qd_infer_defaults();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct qd_error error = {0};
        struct qd_infer *infer;
        void *data;
        bool twice = strcmp(rows[i].a, "twice") == 0, type = strcmp(rows[i].a, "type") == 0;
        struct qd_shape shape = qd_mb_shape(twice || type ? "1,2" : rows[i].a);
        assert_int_equal(qd_infer_create(n.model, &options, &infer, &error), QD_OK);
        enum qd_status status = qd_infer_input_alloc(infer, 0, type ? QD_I64 : QD_F32, &shape, &data, &error);
        if (twice) {
            assert_int_equal(status, QD_OK);
            status = qd_infer_input_alloc(infer, 0, QD_F32, &shape, &data, &error);
        }
        if (!status && rows[i].b) {
            shape = qd_mb_shape(rows[i].b);
            status = qd_infer_input_alloc(infer, 1, QD_F32, &shape, &data, &error);
        }
        if (!status)
            status = qd_infer_prepare(infer, &error);
        if (status != rows[i].status || strcmp(error.text, rows[i].text) != 0)
            fail_msg("row %zu: status %d, '%s'", i, (int)status, error.text);
        if (!status) {
            qd_infer_run(&infer, 1);
            assert_int_equal(qd_infer_status(infer, NULL), QD_OK);
            assert_int_equal(qd_tensor_elems(qd_infer_output(infer, 0)), 0);
            qd_infer_finish(infer);
        }
        qd_infer_destroy(&infer);
    }
    struct qd_infer *infer;
    struct qd_shape shape = qd_mb_shape("1,2");
    struct qd_error error;
    void *data;
    assert_int_equal(qd_infer_create(n.model, &options, &infer, &error), QD_OK);
    assert_int_equal(qd_infer_input_alloc(infer, 3, QD_F32, &shape, &data, &error), QD_ERR_INVALID);
    assert_string_equal(error.text, "the model has no input 3");
    qd_infer_destroy(&infer);
    pair_free(&n);
}

/* ---------------------------------------------------------------- every allocation fails once */

static uint64_t failures;

/* OK, or NO_MEMORY with a sentence; anything else fails the test. */
static bool went(enum qd_status status, const struct qd_error *error, uint64_t n, const char *what)
{
    if (status == QD_OK)
        return true;
    failures++;
    if (status != QD_ERR_NO_MEMORY || error->status != QD_ERR_NO_MEMORY || !error->text[0])
        fail_msg("%s, allocation %llu: status %d, '%s'", what, (unsigned long long)n, (int)status, error->text);
    return false;
}

static void test_out_of_memory_while_loading(void **state)
{
    (void)state;
    struct qd_quant_options options = qd_quant_defaults();
    struct qd_engine *engine = qd_mb_engine(1);
    struct qd_mb b = network();
    struct qd_plan_report want, got;
    struct qd_model *model = qd_mb_load(&b, engine, NULL, NULL);
    qd_model_plan(model, &want);
    qd_model_unref(&model);
    failures = 0;
    for (int way = 0; way < 4; way++)
        for (uint64_t n = 1;; n++) {
            struct qd_error error = {0};
            options.precision = way & 2 ? QD_PRECISION_AUTO : QD_INT8; /* AUTO: layers are timed as well */
            qd_mem_fail_at(n, way & 1);
            enum qd_status status = qd_model_load_memory(engine, "m", b.model.bytes, b.model.size, &options, &model,
                                                         &error);
            uint64_t count = qd_mem_count();
            qd_mem_fail_at(0, false);
            if (!went(status, &error, n, "load"))
                continue;
            qd_model_plan(model, &got); /* what came through is whole */
            if (options.precision == QD_INT8 && (got.digest != want.digest || got.macs[QD_INT8] != want.macs[QD_INT8] ||
                                                 got.packed_bytes != want.packed_bytes))
                fail_msg("load, allocation %llu: another plan", (unsigned long long)n);
            qd_model_unref(&model);
            if (count < n)
                break;
        }
    assert_true(failures > 20);
    qd_mb_free(&b);
    qd_engine_destroy(&engine);
}

static enum qd_status whole_request(struct qd_model *model, enum qd_precision precision, const float *x, float *answer,
                                    struct qd_error *error)
{
    struct qd_infer_options options = {.precision = precision, .observe = true};
    struct qd_shape shape = {4, {2, 3, 10, 10}};
    struct qd_infer *infer = NULL;
    void *data;
    enum qd_status status = qd_infer_create(model, &options, &infer, error);
    if (!status)
        status = qd_infer_input_alloc(infer, 0, QD_F32, &shape, &data, error);
    if (!status) {
        memcpy(data, x, 2 * IMAGE * sizeof *x);
        status = qd_infer_prepare(infer, error);
        if (status == QD_ERR_NO_MEMORY) {
            struct qd_error again;
            enum qd_status second = qd_infer_prepare(infer, &again); /* tried once more: works, or fails alike */
            status = second ? status : QD_OK;
        }
    }
    if (!status) {
        qd_infer_run(&infer, 1);
        status = qd_infer_status(infer, error);
        qd_infer_finish(infer); /* may fail to publish: the epoch in force stays */
        if (!status)
            memcpy(answer, qd_infer_output(infer, 0)->data, 2 * CLASSES * sizeof *answer);
    }
    qd_infer_destroy(&infer);
    return status;
}

static void test_out_of_memory_in_requests(void **state)
{
    (void)state;
    static float x[2 * IMAGE];
    float want[2 * CLASSES], got[2 * CLASSES];
    struct qd_quant_options options = qd_quant_defaults();
    struct qd_engine *engine = qd_mb_engine(1);
    struct qd_mb b = network();
    struct qd_error error = {0};
    qd_mb_fill(x, 2 * IMAGE, 77, 1);
    options.min_observations = 1; /* the first request publishes */
    failures = 0;
    for (int way = 0; way < 4; way++) {
        enum qd_precision precision = way & 1 ? QD_FP32 : QD_PRECISION_AUTO;
        for (uint64_t n = 0;; n++) { /* n = 0: nothing fails, for the answer */
            struct qd_model *model = qd_mb_load(&b, engine, &options, NULL);
            qd_mem_fail_at(n, way & 2);
            enum qd_status status = whole_request(model, precision, x, n ? got : want, &error);
            uint64_t count = qd_mem_count();
            qd_mem_fail_at(0, false);
            if (went(status, &error, n, "request") && n)
                assert_memory_equal(got, want, sizeof want);
            /* whatever happened, the model still works and learns; an epoch that could not be made is made now */
            struct qd_ranges_summary summary;
            assert_int_equal(whole_request(model, QD_PRECISION_AUTO, x, got, &error), QD_OK);
            qd_model_ranges(model, &summary);
            assert_true(summary.epoch >= 2);
            qd_model_unref(&model);
            if (n && count < n)
                break;
        }
    }
    assert_true(failures > 10);
    qd_mb_free(&b);
    qd_engine_destroy(&engine);
}

static void test_out_of_memory_in_learning(void **state)
{
    (void)state;
    static enum qd_status (*const calls[])(struct qd_model *, struct qd_error *) = {
        qd_model_ranges_freeze, qd_model_ranges_unfreeze, qd_model_ranges_reset};
    static float x[2 * IMAGE];
    struct qd_engine *engine = qd_mb_engine(1);
    struct qd_mb b = network();
    struct qd_model *model = qd_mb_load(&b, engine, NULL, NULL);
    struct qd_ranges_summary before, after;
    struct qd_range_report range, same;
    struct qd_error error = {0};
    qd_mb_fill(x, 2 * IMAGE, 78, 1);
    qd_mb_teach(model, "2,3,10,10", x, 3);
    for (size_t c = 0; c < 3; c++) {
        failures = 0;
        for (uint64_t n = 1;; n++) {
            qd_model_ranges(model, &before);
            qd_model_range(model, 0, &range);
            qd_mem_fail_at(n, false);
            enum qd_status status = calls[c](model, &error);
            qd_mem_fail_at(0, false);
            if (went(status, &error, n, "learning"))
                break;
            qd_model_ranges(model, &after); /* then nothing has changed */
            qd_model_range(model, 0, &same);
            assert_true(before.epoch == after.epoch && before.frozen == after.frozen &&
                        before.requests == after.requests);
            assert_true(range.observations == same.observations && range.ema_max == same.ema_max);
            assert_true(range.elements == same.elements && range.scale == same.scale && range.mode == same.mode);
        }
        assert_true(failures >= 1);
        qd_model_ranges(model, &after);
        assert_true(after.epoch == before.epoch + 1 && after.frozen == (c == 0));
    }
    qd_model_unref(&model);
    qd_mb_free(&b);
    qd_engine_destroy(&engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_before_does_not_matter),
        cmocka_unit_test(test_threads_and_neighbours_do_not_matter),
        cmocka_unit_test(test_no_images),
        cmocka_unit_test(test_outputs_and_defaults),
        cmocka_unit_test(test_wrong_inputs),
        cmocka_unit_test(test_out_of_memory_while_loading),
        cmocka_unit_test(test_out_of_memory_in_requests),
        cmocka_unit_test(test_out_of_memory_in_learning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
