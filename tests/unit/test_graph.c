/* The graph's helpers: attributes by name and type, texts, constants as ints. */
#include "engine/ir/graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const int64_t ints[] = {3, -4};
static const float floats[] = {0.5f};
static const struct qd_attr attrs[] = {
    {.name = "i", .type = QD_ATTR_INT, .count = 1, .i = -7},
    {.name = "f", .type = QD_ATTR_FLOAT, .count = 1, .f = 1.5f},
    {.name = "s", .type = QD_ATTR_STRING, .count = 1, .s = {"SAME_UPPER!", 10}},
    {.name = "is", .type = QD_ATTR_INTS, .count = 2, .ints = ints},
    {.name = "fs", .type = QD_ATTR_FLOATS, .count = 1, .floats = floats},
    {.name = "none", .type = QD_ATTR_INTS, .count = 0},
};
static const struct qd_node sample = {
    .name = "conv1", .op = "Conv", .domain = "", .opset = 17, .attr_count = 6, .attrs = attrs};

static void test_attributes_by_name(void **state)
{
    (void)state;
    size_t count = 99;
    assert_int_equal(qd_attr_int(&sample, "i", 1), -7);
    assert_int_equal(qd_attr_int(&sample, "absent", 1), 1);
    assert_true(qd_attr_float(&sample, "f", 0) == 1.5f);
    assert_true(qd_attr_float(&sample, "absent", 2.5f) == 2.5f);
    assert_ptr_equal(qd_attr_ints(&sample, "is", &count), ints);
    assert_int_equal(count, 2);
    assert_null(qd_attr_ints(&sample, "absent", &count));
    assert_int_equal(count, 0);
    assert_ptr_equal(qd_attr_floats(&sample, "fs", &count), floats);
    assert_int_equal(count, 1);
    qd_attr_ints(&sample, "none", &count);
    assert_int_equal(count, 0);
    assert_ptr_equal(qd_attr_find(&sample, "s"), &attrs[2]);
    assert_null(qd_attr_find(&sample, "S"));
}

static void test_a_wrong_type_counts_as_absent(void **state)
{
    (void)state;
    size_t count = 99;
    assert_int_equal(qd_attr_int(&sample, "f", 5), 5);
    assert_true(qd_attr_float(&sample, "i", 5) == 5);
    assert_null(qd_attr_ints(&sample, "fs", &count));
    assert_int_equal(count, 0);
    assert_true(qd_attr_is(&sample, "i", "x", "x"));
}

static void test_strings(void **state)
{
    (void)state;
    assert_true(qd_attr_is(&sample, "s", "NOTSET", "SAME_UPPER"));
    assert_false(qd_attr_is(&sample, "s", "NOTSET", "SAME_UPPER!"));
    assert_false(qd_attr_is(&sample, "s", "NOTSET", "SAME"));
    assert_false(qd_attr_is(&sample, "s", "NOTSET", "NOTSET"));
    assert_true(qd_attr_is(&sample, "absent", "NOTSET", "NOTSET"));
    assert_false(qd_attr_is(&sample, "absent", "NOTSET", "VALID"));
}

static void test_node_text(void **state)
{
    (void)state;
    char text[96], name[400], tiny[8];
    struct qd_node node = sample;
    assert_string_equal(qd_node_text(&node, text, sizeof text), "Conv 'conv1' (opset 17)");
    node.domain = "own";
    assert_string_equal(qd_node_text(&node, text, sizeof text), "own:Conv 'conv1' (opset 17)");
    for (size_t i = 0; i + 1 < sizeof name; i += 2)
        memcpy(name + i, "\xc3\xa9", 2);
    name[sizeof name - 2] = 0;
    node.name = name;
    qd_node_text(&node, text, sizeof text);
    assert_non_null(strstr(text, "\xa9' (opset 17)")); /* cut between letters, and the rest still there */
    qd_node_text(&node, tiny, sizeof tiny);
    assert_true(strlen(tiny) < sizeof tiny);
}

static void test_tensor_ints(void **state)
{
    (void)state;
    int32_t narrow[] = {-1, 5};
    int64_t out[4];
    size_t count;
    struct qd_tensor t = {.dtype = QD_I32, .shape = {.rank = 1, .dims = {2}}, .data = narrow};
    assert_true(qd_tensor_ints(&t, out, 4, &count));
    assert_int_equal(count, 2);
    assert_int_equal(out[0], -1);
    assert_int_equal(out[1], 5);
    assert_false(qd_tensor_ints(&t, out, 1, &count));
    t = (struct qd_tensor){.dtype = QD_I64, .shape = {.rank = 0}, .data = &(int64_t){INT64_MIN}};
    assert_true(qd_tensor_ints(&t, out, 4, &count));
    assert_true(count == 1 && out[0] == INT64_MIN);
    t = (struct qd_tensor){.dtype = QD_I64, .shape = {.rank = 1, .dims = {0}}};
    assert_true(qd_tensor_ints(&t, out, 0, &count));
    assert_int_equal(count, 0);
    t = (struct qd_tensor){.dtype = QD_I64, .shape = {.rank = 1, .dims = {2}}};
    assert_false(qd_tensor_ints(&t, out, 4, &count)); /* no data yet */
    t.data = out;
    t.shape.dims[0] = -1;
    assert_false(qd_tensor_ints(&t, out, 4, &count));
    t.shape.rank = -1;
    assert_false(qd_tensor_ints(&t, out, 4, &count));
    t = (struct qd_tensor){.dtype = QD_F32, .shape = {.rank = 1, .dims = {2}}, .data = out};
    assert_false(qd_tensor_ints(&t, out, 4, &count));
}

static void test_destroy_of_nothing(void **state)
{
    (void)state;
    struct qd_graph *graph = NULL;
    qd_graph_destroy(&graph);
    assert_null(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attributes_by_name),
        cmocka_unit_test(test_a_wrong_type_counts_as_absent),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_node_text),
        cmocka_unit_test(test_tensor_ints),
        cmocka_unit_test(test_destroy_of_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
