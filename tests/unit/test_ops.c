/* The operators where the standard's node tests don't look: hostile shapes and indices, data-dependent shapes without
 * data, integer traps, layouts, and equal bytes for any number of threads. */
#include "engine/ops/op.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void backwards(struct qd_parallel *parallel, size_t tasks, void (*fn)(void *ctx, size_t task), void *ctx)
{
    (void)parallel;
    while (tasks-- > 0)
        fn(ctx, tasks);
}

/* One node with its tensors. */
struct one {
    struct qd_node node;
    struct qd_call call;
    struct qd_parallel parallel;
    struct qd_tensor in[4], out[2];
    struct qd_attr attrs[6];
    struct qd_error error;
    struct qd_arena *arena;
    const struct qd_op *op;
};

static struct one *one_new(const char *op, int64_t opset, int in_count)
{
    static const int ids[4] = {0, 1, 2, 3};
    struct one *o = test_calloc(1, sizeof *o);
    o->node = (struct qd_node){
        .name = "node", .op = op, .domain = "", .opset = opset, .in_count = in_count, .out_count = 1};
    o->node.in = o->node.out = ids;
    o->node.attrs = o->attrs;
    o->parallel = (struct qd_parallel){1, backwards};
    o->call = (struct qd_call){.node = &o->node, .in_count = in_count, .out_count = 1, .in = o->in, .out = o->out};
    o->call.kernels = qd_kernels_at(QD_ISA_SCALAR);
    o->call.parallel = &o->parallel;
    assert_int_equal(qd_arena_create(1 << 16, &o->arena), QD_OK);
    return o;
}

static void one_free(struct one *o)
{
    qd_arena_destroy(&o->arena);
    test_free(o);
}

static void tensor(struct one *o, int i, enum qd_dtype dtype, const void *data, int rank, const int64_t *dims)
{
    o->in[i] = (struct qd_tensor){.dtype = dtype, .shape = {.rank = rank}, .data = (void *)(uintptr_t)data};
    for (int d = 0; d < rank; d++)
        o->in[i].shape.dims[d] = dims[d];
}

static void attr_ints(struct one *o, const char *name, size_t count, const int64_t *ints)
{
    int64_t *copy = qd_arena_alloc(o->arena, count, sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, ints, count * sizeof *copy);
    o->attrs[o->node.attr_count++] = (struct qd_attr){.name = name, .type = QD_ATTR_INTS, .count = count, .ints = copy};
}

#define DIMS(...)                                                                                                      \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]) { __VA_ARGS__ }
#define LIST(...)                                                                                                      \
    sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (const int64_t[]) { __VA_ARGS__ }

static enum qd_status one_infer(struct one *o)
{
    void *prep = NULL;
    enum qd_status status;
    if (!(o->op = qd_op_find(&o->node, &o->error)))
        return QD_ERR_UNSUPPORTED;
    if (o->op->prepare && (status = o->op->prepare(&o->node, o->arena, &prep, &o->error)))
        return status;
    o->call.prep = prep;
    return o->op->infer(&o->call, &o->error);
}

static enum qd_status one_run(struct one *o)
{
    enum qd_status status = one_infer(o);
    if (status)
        return status;
    o->out[0].data = qd_arena_alloc_raw(o->arena, qd_tensor_bytes(&o->out[0]) + 1);
    size_t scratch = o->op->scratch ? o->op->scratch(&o->call) : 0;
    o->call.scratch = qd_arena_alloc_raw(o->arena, scratch + 1);
    assert_non_null(o->call.scratch);
    return o->op->run(&o->call, &o->error);
}

/* ------------------------------------------------------------------ the registry */

static void test_lookup_takes_the_newest_row_not_above_the_opset(void **state)
{
    (void)state;
    struct qd_node clip = {.name = "n", .op = "Clip", .domain = "", .opset = 10};
    struct qd_error error;
    const struct qd_op *old = qd_op_find(&clip, &error);
    clip.opset = 11;
    const struct qd_op *now = qd_op_find(&clip, &error);
    clip.opset = 99;
    assert_true(old && now && old != now && qd_op_find(&clip, &error) == now);
}

static void test_a_missing_operator_is_named(void **state)
{
    (void)state;
    struct qd_node node = {.name = "bar", .op = "Foo", .domain = "", .opset = 17};
    struct qd_error error;
    assert_null(qd_op_find(&node, &error));
    assert_string_equal(error.text, "operator Foo (node 'bar', opset 17) is not supported");
    node.domain = "com.example";
    node.op = "Relu";
    assert_null(qd_op_find(&node, &error));
}

/* Two rows of one type and opset would hide each other. */
static void test_no_row_twice(void **state)
{
    (void)state;
    size_t count;
    const struct qd_op_row *rows = qd_op_rows(&count);
    assert_true(count > 100);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++)
            assert_true(rows[i].since != rows[j].since || strcmp(rows[i].type, rows[j].type) != 0);
}

/* ------------------------------------------------------------------ hostile models */

static void refused(struct one *o, enum qd_status status)
{
    assert_int_equal(one_infer(o), status);
    assert_non_null(strstr(o->error.text, "node")); /* the node's name */
    one_free(o);
}

static void test_sizes_that_overflow_are_refused(void **state)
{
    (void)state;
    const int64_t huge = (int64_t)1 << 62, big[2] = {huge, 2}, pads[4] = {INT64_MAX, 0, 1, 0};
    struct one *o = one_new("Tile", 13, 2);
    tensor(o, 0, QD_F32, NULL, DIMS(4));
    tensor(o, 1, QD_I64, &huge, DIMS(1));
    refused(o, QD_ERR_SHAPE);
    o = one_new("ConstantOfShape", 9, 1);
    tensor(o, 0, QD_I64, big, DIMS(2));
    refused(o, QD_ERR_TOO_LARGE);
    o = one_new("Expand", 13, 2);
    tensor(o, 0, QD_F32, NULL, DIMS(1));
    tensor(o, 1, QD_I64, big, DIMS(2));
    refused(o, QD_ERR_TOO_LARGE);
    o = one_new("Pad", 13, 2);
    tensor(o, 0, QD_F32, NULL, DIMS(2, 2));
    tensor(o, 1, QD_I64, pads, DIMS(4));
    refused(o, QD_ERR_SHAPE);
}

static void test_windows_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t count;
        int64_t ints[4];
    } wrong[] = {
        {"strides", 2, {0, 1}},           {"strides", 2, {-1, 1}},    {"dilations", 2, {1, 0}},  {"strides", 1, {1}},
        {"dilations", 2, {INT64_MAX, 1}}, {"pads", 4, {-1, 0, 0, 0}}, {"pads", 4, {0, 0, 7, 0}}, {"pads", 2, {0, 0}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct one *o = one_new("MaxPool", 12, 1);
        tensor(o, 0, QD_F32, NULL, DIMS(1, 1, 4, 4));
        attr_ints(o, "kernel_shape", LIST(2, 2));
        attr_ints(o, wrong[i].name, wrong[i].count, wrong[i].ints);
        refused(o, QD_ERR_SHAPE);
    }
    struct one *o = one_new("Conv", 11, 2);
    tensor(o, 0, QD_F32, NULL, DIMS(1, 1, 2, 2));
    tensor(o, 1, QD_F32, NULL, DIMS(1, 1, 3, 3));
    refused(o, QD_ERR_SHAPE);
    o = one_new("AveragePool", 11, 1);
    tensor(o, 0, QD_F32, NULL, DIMS(1, 1, 4, 4));
    attr_ints(o, "kernel_shape", LIST(2, INT64_MAX));
    refused(o, QD_ERR_SHAPE);
}

static void test_lists_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    const int64_t two_free[2] = {-1, -1}, axis = 5, five = 5;
    struct one *o = one_new("Transpose", 13, 1);
    tensor(o, 0, QD_F32, NULL, DIMS(2, 3));
    attr_ints(o, "perm", LIST(0, 0));
    refused(o, QD_ERR_SHAPE);
    o = one_new("Reshape", 13, 2);
    tensor(o, 0, QD_F32, NULL, DIMS(2, 3));
    tensor(o, 1, QD_I64, two_free, DIMS(2));
    refused(o, QD_ERR_SHAPE);
    o = one_new("Reshape", 13, 2);
    tensor(o, 0, QD_F32, NULL, DIMS(2, 3));
    tensor(o, 1, QD_I64, &five, DIMS(1));
    refused(o, QD_ERR_SHAPE);
    o = one_new("Unsqueeze", 13, 2);
    tensor(o, 0, QD_F32, NULL, DIMS(2, 3));
    tensor(o, 1, QD_I64, &axis, DIMS(1));
    refused(o, QD_ERR_SHAPE);
    o = one_new("Add", 13, 2);
    tensor(o, 0, QD_F32, NULL, DIMS(2, 3));
    tensor(o, 1, QD_F32, NULL, DIMS(2));
    refused(o, QD_ERR_SHAPE);
    o = one_new("MatMul", 13, 2);
    tensor(o, 0, QD_F32, NULL, DIMS(2, 3));
    tensor(o, 1, QD_F32, NULL, DIMS(2, 3));
    refused(o, QD_ERR_SHAPE);
}

static void test_shapes_from_unknown_data_wait_for_it(void **state)
{
    (void)state;
    struct one *o = one_new("Reshape", 13, 2);
    tensor(o, 0, QD_F32, NULL, DIMS(2, 3));
    tensor(o, 1, QD_I64, NULL, DIMS(1));
    assert_int_equal(one_infer(o), QD_ERR_NEEDS_DATA);
    one_free(o);
    o = one_new("Range", 13, 3);
    for (int i = 0; i < 3; i++)
        tensor(o, i, QD_I64, NULL, 0, NULL);
    assert_int_equal(one_infer(o), QD_ERR_NEEDS_DATA);
    one_free(o);
}

static void test_indices_are_checked(void **state)
{
    (void)state;
    const float data[3] = {1, 2, 3};
    static const struct {
        int64_t index;
        enum qd_status status;
    } cases[] = {{2, QD_OK}, {-3, QD_OK}, {3, QD_ERR_INVALID}, {-4, QD_ERR_INVALID}, {INT64_MIN, QD_ERR_INVALID}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct one *o = one_new("Gather", 13, 2);
        tensor(o, 0, QD_F32, data, DIMS(3));
        tensor(o, 1, QD_I64, &cases[i].index, DIMS(1));
        assert_int_equal(one_run(o), cases[i].status);
        if (cases[i].status)
            assert_non_null(strstr(o->error.text, "out of range"));
        one_free(o);
    }
}

/* Data that changes between infer and run must not be trusted. */
static void test_a_changed_shape_input_is_noticed(void **state)
{
    (void)state;
    const float data[6] = {1, 2, 3, 4, 5, 6};
    int64_t start = 4, end = 6;
    struct one *o = one_new("Slice", 13, 3);
    tensor(o, 0, QD_F32, data, DIMS(6));
    tensor(o, 1, QD_I64, &start, DIMS(1));
    tensor(o, 2, QD_I64, &end, DIMS(1));
    assert_int_equal(one_run(o), QD_OK);
    assert_true(((float *)o->out[0].data)[1] == 6.0f);
    start = 0;
    assert_int_equal(o->op->run(&o->call, &o->error), QD_ERR_SHAPE);
    one_free(o);
}

static void test_extreme_slices(void **state)
{
    (void)state;
    const float data[4] = {1, 2, 3, 4};
    static const struct {
        int64_t start, end, step, count;
        float first;
    } cases[] = {
        {INT64_MAX, INT64_MIN, INT64_MIN, 1, 4},
        {INT64_MIN, INT64_MAX, INT64_MAX, 1, 1},
        {INT64_MAX, INT64_MIN, -1, 4, 4},
        {0, INT64_MAX, 3, 2, 1},
        {2, 2, 1, 0, 0},
        {-1, -5, -2, 2, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int64_t axis = 0;
        struct one *o = one_new("Slice", 13, 5);
        struct qd_tensor in[5];
        o->call.in = in;
        tensor(o, 0, QD_F32, data, DIMS(4));
        tensor(o, 1, QD_I64, &cases[i].start, DIMS(1));
        tensor(o, 2, QD_I64, &cases[i].end, DIMS(1));
        tensor(o, 3, QD_I64, &axis, DIMS(1));
        memcpy(in, o->in, sizeof o->in);
        tensor(o, 0, QD_I64, &cases[i].step, DIMS(1));
        in[4] = o->in[0];
        assert_int_equal(one_run(o), QD_OK);
        assert_int_equal(o->out[0].shape.dims[0], cases[i].count);
        if (cases[i].count)
            assert_true(*(float *)o->out[0].data == cases[i].first);
        one_free(o);
    }
}

/* ------------------------------------------------------------------ numbers, layouts, threads */

static void test_integer_division_never_traps(void **state)
{
    (void)state;
    const int32_t a[4] = {7, -7, INT32_MIN, 5}, b[4] = {2, 2, -1, 0};
    struct one *o = one_new("Div", 14, 2);
    tensor(o, 0, QD_I32, a, DIMS(4));
    tensor(o, 1, QD_I32, b, DIMS(4));
    assert_int_equal(one_run(o), QD_OK);
    const int32_t *y = o->out[0].data;
    assert_int_equal(y[0], 3);
    assert_int_equal(y[1], -3);
    assert_int_equal(y[2], INT32_MIN);
    assert_int_equal(y[3], 0);
    one_free(o);
}

/* [1, 3, 4, 4] plain and channels last give the same pool. */
static void test_max_pool_in_both_layouts(void **state)
{
    (void)state;
    uint8_t plain[48], last[48];
    for (int c = 0; c < 3; c++)
        for (int p = 0; p < 16; p++)
            plain[c * 16 + p] = last[p * 3 + c] = (uint8_t)((c * 16 + p) * 37 % 251);
    struct one *a = one_new("MaxPool", 12, 1), *b = one_new("MaxPool", 12, 1);
    tensor(a, 0, QD_U8, plain, DIMS(1, 3, 4, 4));
    tensor(b, 0, QD_U8, last, DIMS(1, 3, 4, 4));
    b->in[0].layout = QD_CHANNELS_LAST;
    b->parallel.threads = 3;
    struct one *both[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        attr_ints(both[i], "kernel_shape", LIST(3, 3));
        attr_ints(both[i], "pads", LIST(1, 1, 1, 1));
        attr_ints(both[i], "strides", LIST(2, 2));
        assert_int_equal(one_run(both[i]), QD_OK);
    }
    assert_int_equal(b->out[0].layout, QD_CHANNELS_LAST);
    for (int c = 0; c < 3; c++)
        for (int p = 0; p < 4; p++)
            assert_int_equal(((uint8_t *)a->out[0].data)[c * 4 + p], ((uint8_t *)b->out[0].data)[p * 3 + c]);
    one_free(a);
    one_free(b);
}

static void fill(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((int)(i * 7919 % 1009) - 504) / 77.0f;
}

/* The same bytes for one thread and five, and one image's for any batch. */
static void test_conv_and_matmul_do_not_depend_on_threads_or_batch(void **state)
{
    (void)state;
    static float x[3 * 4 * 9 * 9], w[6 * 2 * 3 * 3];
    fill(x, sizeof x / sizeof x[0]);
    fill(w, sizeof w / sizeof w[0]);
    for (int matmul = 0; matmul < 2; matmul++) {
        struct one *o[3];
        for (int i = 0; i < 3; i++) {
            o[i] = one_new(matmul ? "MatMul" : "Conv", 13, 2);
            o[i]->parallel.threads = i == 1 ? 5 : 1;
            if (matmul) {
                tensor(o[i], 0, QD_F32, i == 2 ? x + 81 * 4 : x, DIMS(i == 2 ? 1 : 3, 36, 9));
                tensor(o[i], 1, QD_F32, w, DIMS(9, 12));
            } else {
                tensor(o[i], 0, QD_F32, i == 2 ? x + 81 * 4 : x, DIMS(i == 2 ? 1 : 3, 4, 9, 9));
                tensor(o[i], 1, QD_F32, w, DIMS(6, 2, 3, 3));
                o[i]->attrs[o[i]->node.attr_count++] = (struct qd_attr){
                    .name = "group", .type = QD_ATTR_INT, .count = 1, .i = 2};
                attr_ints(o[i], "pads", LIST(1, 1, 1, 1));
            }
            assert_int_equal(one_run(o[i]), QD_OK);
        }
        size_t bytes = qd_tensor_bytes(&o[0]->out[0]);
        assert_memory_equal(o[0]->out[0].data, o[1]->out[0].data, bytes);
        assert_memory_equal((char *)o[0]->out[0].data + bytes / 3, o[2]->out[0].data, bytes / 3);
        for (int i = 0; i < 3; i++)
            one_free(o[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lookup_takes_the_newest_row_not_above_the_opset),
        cmocka_unit_test(test_a_missing_operator_is_named),
        cmocka_unit_test(test_no_row_twice),
        cmocka_unit_test(test_sizes_that_overflow_are_refused),
        cmocka_unit_test(test_windows_that_do_not_fit_are_refused),
        cmocka_unit_test(test_lists_that_do_not_fit_are_refused),
        cmocka_unit_test(test_shapes_from_unknown_data_wait_for_it),
        cmocka_unit_test(test_indices_are_checked),
        cmocka_unit_test(test_a_changed_shape_input_is_noticed),
        cmocka_unit_test(test_extreme_slices),
        cmocka_unit_test(test_integer_division_never_traps),
        cmocka_unit_test(test_max_pool_in_both_layouts),
        cmocka_unit_test(test_conv_and_matmul_do_not_depend_on_threads_or_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
