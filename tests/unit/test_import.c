/* Whole models: what the importer makes of good ones, and the sentence it has for each bad one. */
#include "engine/onnx/import.h"
#include "tests/unit/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct qd_error error;

/* Imports and empties the wire. The bytes live until the next call. */
static struct qd_graph *import_wire(struct wire *w, enum qd_status expected)
{
    static struct wire kept;
    struct qd_graph *graph = NULL;
    drop(&kept);
    kept = *w;
    *w = (struct wire){0};
    memset(&error, 0, sizeof error);
    enum qd_status status = qd_onnx_import(kept.bytes, kept.size, &graph, &error);
    if (status != expected)
        print_message("status %d: %s\n", status, error.text);
    assert_int_equal(status, expected);
    assert_int_equal(graph != NULL, expected == QD_OK);
    return graph;
}

static void refuse(struct wire *w, enum qd_status expected, const char *sentence)
{
    import_wire(w, expected);
    if (!strstr(error.text, sentence))
        print_message("not '%s' but: %s\n", sentence, error.text);
    assert_non_null(strstr(error.text, sentence));
}

static const struct qd_value *value_of(const struct qd_graph *graph, const char *name)
{
    for (int i = 0; i < graph->value_count; i++)
        if (strcmp(graph->values[i].name, name) == 0)
            return &graph->values[i];
    fail_msg("no value '%s'", name);
    return NULL;
}

static void test_smallest_model(void **state)
{
    (void)state;
    struct wire g = relu(), m = model_of(&g, 17);
    struct qd_graph *graph = import_wire(&m, QD_OK);
    assert_int_equal(graph->node_count, 1);
    assert_int_equal(graph->value_count, 2);
    assert_int_equal(graph->opset, 17);
    assert_int_equal(graph->ir_version, 8);
    assert_string_equal(graph->nodes[0].op, "Relu");
    assert_string_equal(graph->nodes[0].name, "act");
    assert_int_equal(graph->nodes[0].opset, 17);
    assert_int_equal(graph->nodes[0].in[0], graph->inputs[0]);
    assert_int_equal(graph->nodes[0].out[0], graph->outputs[0]);
    const struct qd_value *x = value_of(graph, "x");
    assert_true(x->is_input && !x->is_output && !x->constant && x->producer == -1 && x->outer == QD_NO_VALUE);
    assert_int_equal(x->info.dtype, QD_F32);
    assert_int_equal(x->info.shape.rank, 1);
    assert_int_equal(x->info.shape.dims[0], 2);
    assert_int_equal(value_of(graph, "y")->producer, 0);
    qd_graph_destroy(&graph);
    assert_null(graph);
}

static void test_digest_is_fnv1a(void **state)
{
    (void)state;
    struct wire g = relu(), m = model_of(&g, 17);
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < m.size; i++)
        hash = (hash ^ m.bytes[i]) * 0x100000001b3u;
    struct qd_graph *graph = import_wire(&m, QD_OK);
    assert_true(graph->digest == hash);
    qd_graph_destroy(&graph);
}

static void test_not_a_model(void **state)
{
    (void)state;
    struct wire w = {0};
    refuse(&w, QD_ERR_FORMAT, "no graph");
    put_raw(&w, "{\"json\": true}", 14);
    refuse(&w, QD_ERR_FORMAT, "not an ONNX model");
    put_varint(&w, 1, 8);
    refuse(&w, QD_ERR_FORMAT, "no graph");
    put_bytes(&w, 7, "", 0);
    refuse(&w, QD_ERR_FORMAT, "no ir_version");
    put_text(&w, 1, "8");
    refuse(&w, QD_ERR_FORMAT, "not an ONNX model");
}

static void test_opsets(void **state)
{
    (void)state;
    struct wire g = relu(), m = model_of(&g, 0), id;
    refuse(&m, QD_ERR_FORMAT, "opset 0");
    g = relu(), m = model_of(&g, 7);
    struct qd_graph *graph = import_wire(&m, QD_OK);
    qd_graph_destroy(&graph);
    g = relu(), m = model_of(&g, 999);
    graph = import_wire(&m, QD_OK);
    assert_int_equal(graph->nodes[0].opset, 999);
    qd_graph_destroy(&graph);
    put_varint(&m, 1, 8);
    g = relu();
    put_message(&m, 7, &g);
    refuse(&m, QD_ERR_FORMAT, "node 'act': the model imports no opset of domain 'ai.onnx'");
    put_varint(&m, 1, 8);
    g = relu();
    put_message(&m, 7, &g);
    id = opset_id("ai.onnx", 13); /* stands behind the graph, and spelt out */
    put_message(&m, 8, &id);
    graph = import_wire(&m, QD_OK);
    assert_int_equal(graph->nodes[0].opset, 13);
    assert_int_equal(graph->opset, 13);
    qd_graph_destroy(&graph);
    g = relu(), m = model_of(&g, 17);
    id = opset_id("ai.onnx", 18);
    put_message(&m, 8, &id);
    refuse(&m, QD_ERR_FORMAT, "two opsets of domain 'ai.onnx'");
    g = relu(), m = model_of(&g, 17);
    for (int i = 0; i < 300; i++) {
        char name[16];
        snprintf(name, sizeof name, "d%d", i);
        id = opset_id(name, 1);
        put_message(&m, 8, &id);
    }
    refuse(&m, QD_ERR_UNSUPPORTED, "more than 256 imported opsets");
}

static void test_own_domain(void **state)
{
    (void)state;
    struct wire g = {0}, n = node("Thing", NULL, "t", NULL), m, id = opset_id("own", 3);
    put_text(&n, 7, "own");
    put_message(&g, 1, &n);
    m = model_of(&g, 17);
    put_message(&m, 8, &id);
    struct qd_graph *graph = import_wire(&m, QD_OK);
    assert_string_equal(graph->nodes[0].domain, "own");
    assert_string_equal(graph->nodes[0].name, "t"); /* named by its output */
    assert_int_equal(graph->nodes[0].opset, 3);
    qd_graph_destroy(&graph);
}

static void test_names_must_be_text(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
    } bad[] = {{"a\0b", 3}, {"\xff", 1}, {"\xe2\x82", 2}};
    for (size_t i = 0; i < 3; i++) {
        struct wire g = relu(), n = {0}, m;
        put_text(&n, 4, "Relu");
        put_bytes(&n, 2, bad[i].bytes, bad[i].n);
        put_message(&g, 1, &n);
        m = model_of(&g, 17);
        refuse(&m, QD_ERR_FORMAT, "not UTF-8 or holds a zero byte");
    }
}

static void test_names_that_clash_or_lack(void **state)
{
    (void)state;
    struct wire g = relu(), m, t;
    put_node(&g, "Neg", "x", "y", "again");
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "Neg 'again' (opset 17): output 'y' has a name that is taken");
    g = relu();
    put_node(&g, "Neg", "y", "x", "back");
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "Neg 'back' (opset 17): output 'x' has a name that is taken");
    g = relu();
    put_node(&g, "Neg", "nothing", "z", "lost");
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "Neg 'lost' (opset 17): input 'nothing' comes from nowhere");
    g = relu();
    put_value(&g, 12, "z");
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "output 'z' is produced by no node");
    g = relu();
    put_value(&g, 11, "x");
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "two inputs are called 'x'");
    g = relu();
    put_value(&g, 12, "y");
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "two outputs are called 'y'");
    g = relu();
    put_node(&g, "", "x", "z", "void");
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "node 'void' names no operator");
    g = relu();
    for (int i = 0; i < 2; i++) {
        t = tensor_proto("w", 1, 0, NULL, "\0\0\0\0", 4);
        put_message(&g, 5, &t);
    }
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "two initializers are called 'w'");
}

static void test_unsorted_is_sorted_and_a_cycle_refused(void **state)
{
    (void)state;
    struct wire g = {0}, m;
    put_value(&g, 11, "x");
    put_node(&g, "Neg", "b", "c", "third");
    put_node(&g, "Neg", "a", "b", "second");
    put_node(&g, "Neg", "x", "a", "first");
    m = model_of(&g, 17);
    struct qd_graph *graph = import_wire(&m, QD_OK);
    assert_string_equal(graph->nodes[0].name, "first");
    assert_string_equal(graph->nodes[2].name, "third");
    assert_int_equal(value_of(graph, "b")->producer, 1);
    qd_graph_destroy(&graph);
    put_value(&g, 11, "x");
    put_node(&g, "Neg", "r2", "after", "behind"); /* hangs on the cycle but isn't of it */
    put_node(&g, "Neg", "r2", "r1", "ring");
    put_node(&g, "Neg", "r1", "r2", "ring");
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "cycle through Neg 'ring'");
    put_node(&g, "Neg", "self", "self", "own");
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "cycle through Neg 'own'");
}

static void test_last_of_a_singular_field_counts(void **state)
{
    (void)state;
    struct wire g = relu(), n = node("Neg", "x", "z", "early"), m;
    put_text(&n, 3, "late");
    put_text(&n, 4, "Abs");
    put_varint(&n, 999, 5); /* a field nobody knows */
    put_float(&n, 998, 5);
    put_message(&g, 1, &n);
    m = model_of(&g, 17);
    put_varint(&m, 1, 9);
    put_text(&m, 500, "unknown");
    struct qd_graph *graph = import_wire(&m, QD_OK);
    assert_int_equal(graph->ir_version, 9);
    assert_string_equal(graph->nodes[1].name, "late");
    assert_string_equal(graph->nodes[1].op, "Abs");
    qd_graph_destroy(&graph);
}

static void test_constant_nodes_vanish(void **state)
{
    (void)state;
    float two[] = {1, 2};
    struct wire g = {0}, n = node("Constant", NULL, "k", NULL), m;
    struct wire t = tensor_proto("", 1, 1, (int64_t[]){2}, two, sizeof two);
    put_attr(&n, "value", 4, 5, &t);
    put_message(&g, 1, &n);
    put_node(&g, "Relu", "k", "y", NULL);
    m = model_of(&g, 17);
    struct qd_graph *graph = import_wire(&m, QD_OK);
    assert_int_equal(graph->node_count, 1);
    const struct qd_value *k = value_of(graph, "k");
    assert_true(k->constant && k->producer == -1 && k->info.dtype == QD_F32);
    assert_memory_equal(k->info.data, two, sizeof two);
    qd_graph_destroy(&graph);
    n = node("Constant", NULL, "k", NULL);
    put_message(&g, 1, &n);
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "a constant has one attribute and one output");
    n = node("Constant", NULL, "k", NULL);
    put_attr(&n, "value_string", 3, 4, NULL);
    put_message(&g, 1, &n);
    m = model_of(&g, 17);
    graph = import_wire(&m, QD_OK);
    k = value_of(graph, "k");
    assert_true(k->constant && k->info.dtype == QD_STR && k->info.shape.rank == 0);
    assert_int_equal(((const struct qd_string *)k->info.data)->length, 0);
    qd_graph_destroy(&graph);
    n = node("Constant", NULL, "k", NULL);
    put_attr(&n, "value", 2, 3, NULL);
    put_message(&g, 1, &n);
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "attribute 'value' makes no constant");
}

static void test_attributes_refused(void **state)
{
    (void)state;
    static const struct {
        int type;
        enum qd_status status;
        const char *sentence;
    } cases[] = {
        {0, QD_ERR_FORMAT, "attribute 'a' has no type"},     {99, QD_ERR_FORMAT, "attribute 'a' has an unknown type"},
        {4, QD_ERR_FORMAT, "attribute 'a' has no tensor"},   {5, QD_ERR_FORMAT, "attribute 'a' has no graph"},
        {11, QD_ERR_UNSUPPORTED, "attribute 'a': a sparse"}, {13, QD_ERR_UNSUPPORTED, "attribute 'a': a type"},
        {-1, QD_ERR_FORMAT, "attribute 'a' has an unknown"}};
    struct wire g = {0}, n, m;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        n = node("Thing", NULL, "y", "it");
        put_attr(&n, "a", cases[i].type, 0, NULL);
        put_message(&g, 1, &n);
        m = model_of(&g, 17);
        refuse(&m, cases[i].status, cases[i].sentence);
        assert_non_null(strstr(error.text, "Thing 'it'"));
    }
    n = node("Thing", NULL, "y", "it");
    put_attr(&n, "a", 2, 0, NULL);
    put_attr(&n, "a", 2, 0, NULL);
    put_message(&g, 1, &n);
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "two attributes are called 'a'");
}

/* A node with a subgraph, `levels` deep, whose innermost node reads `x` of the outermost graph. */
static struct wire nested(int levels)
{
    struct wire inner = {0};
    put_node(&inner, "Neg", "x", "v", NULL);
    put_value(&inner, 12, "v");
    for (int i = 1; i < levels; i++) {
        struct wire n = node("If", NULL, "v", NULL), outer = {0};
        put_attr(&n, "then_branch", 5, 6, &inner);
        put_message(&outer, 1, &n);
        put_value(&outer, 12, "v");
        inner = outer;
    }
    put_value(&inner, 11, "x");
    return model_of(&inner, 17);
}

static void test_nesting_has_a_limit(void **state)
{
    (void)state;
    struct wire m = nested(16);
    struct qd_graph *graph = import_wire(&m, QD_OK);
    const struct qd_graph *at = graph;
    for (int level = 1; level < 16; level++) {
        const struct qd_graph *inner = qd_attr_find(&at->nodes[0], "then_branch")->g;
        assert_ptr_equal(inner->parent, at);
        assert_string_equal(at->values[value_of(inner, "x")->outer].name, "x"); /* handed down step by step */
        at = inner;
    }
    assert_string_equal(at->nodes[0].op, "Neg");
    qd_graph_destroy(&graph);
    m = nested(17);
    refuse(&m, QD_ERR_UNSUPPORTED, "more than 16 graphs within each other");
}

/* The subgraph reads `late`, which a node after it makes: that is a dependency like any other. */
static void test_subgraphs_count_in_the_order(void **state)
{
    (void)state;
    struct wire inner = {0}, g = {0}, n = node("If", "x", "y", "if"), m,
                t = tensor_proto("w", 1, 0, NULL, "\0\0\0\0", 4);
    put_node(&inner, "Add", "late", "v", NULL);
    put_node(&inner, "Neg", "w", "u", NULL);
    put_attr(&n, "then_branch", 5, 6, &inner);
    put_message(&g, 1, &n);
    put_message(&g, 5, &t);
    put_node(&g, "Abs", "x", "late", "maker");
    put_value(&g, 11, "x");
    m = model_of(&g, 17);
    struct qd_graph *graph = import_wire(&m, QD_OK);
    assert_string_equal(graph->nodes[0].name, "maker");
    const struct qd_graph *branch = qd_attr_find(&graph->nodes[1], "then_branch")->g;
    assert_string_equal(graph->values[value_of(branch, "late")->outer].name, "late");
    assert_true(value_of(branch, "w")->constant && value_of(branch, "w")->info.data);
    assert_false(value_of(branch, "late")->constant);
    qd_graph_destroy(&graph);
    put_node(&inner, "Add", "y", "v", NULL); /* and a node whose subgraph reads its own output is a cycle */
    n = node("If", "x", "y", "if");
    put_attr(&n, "then_branch", 5, 6, &inner);
    put_message(&g, 1, &n);
    put_value(&g, 11, "x");
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "cycle through If 'if'");
}

static void test_input_with_a_default(void **state)
{
    (void)state;
    float two[] = {1, 2};
    struct wire g = relu(), t = tensor_proto("b", 1, 1, (int64_t[]){2}, two, sizeof two), m;
    put_value(&g, 11, "b");
    put_message(&g, 5, &t);
    m = model_of(&g, 17);
    struct qd_graph *graph = import_wire(&m, QD_OK);
    assert_int_equal(graph->input_count, 2);
    assert_true(value_of(graph, "b")->is_input && value_of(graph, "b")->constant && value_of(graph, "b")->info.data);
    qd_graph_destroy(&graph);
    g = relu();
    t = tensor_proto("b", 1, 1, (int64_t[]){1}, two, 4); /* declared [2] */
    put_value(&g, 11, "b");
    put_message(&g, 5, &t);
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "input 'b': its initializer has another type or shape");
}

static void test_value_types(void **state)
{
    (void)state;
    struct wire g = {0}, v = {0}, kind = {0}, m;
    put_bytes(&kind, 4, "", 0);
    put_text(&v, 1, "s");
    put_message(&v, 2, &kind);
    put_message(&g, 11, &v);
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_UNSUPPORTED, "value 's' is a sequence");
    put_text(&v, 1, "s");
    put_message(&g, 11, &v);
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "input 's' has no type");
    v = value_info("s", 22);
    put_message(&g, 11, &v);
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_UNSUPPORTED, "value 's': type INT4 is not supported");
    v = value_info("s", 77);
    put_message(&g, 11, &v);
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_UNSUPPORTED, "value 's': unknown data type 77");
    v = value_info("", 1);
    put_message(&g, 11, &v);
    m = model_of(&g, 17);
    refuse(&m, QD_ERR_FORMAT, "an input has no name");
}

/* [N, ?, -1, 3] of the four ways to write a dimension, and too many of them. */
static void test_dimensions(void **state)
{
    (void)state;
    for (int more = 0; more < 2; more++) {
        struct wire d[4] = {{0}}, shape = {0}, t = {0}, kind = {0}, v = {0}, g = {0}, m;
        put_text(&d[0], 2, "N");
        put_varint(&d[2], 1, UINT64_MAX);
        put_varint(&d[3], 1, 3);
        for (int i = 0; i < 4; i++)
            put_message(&shape, 1, &d[i]);
        for (int i = 0; more && i < 5; i++)
            put_bytes(&shape, 1, "", 0);
        put_varint(&t, 1, 1);
        put_message(&t, 2, &shape);
        put_message(&kind, 1, &t);
        put_text(&v, 1, "x");
        put_message(&v, 2, &kind);
        put_message(&g, 11, &v);
        m = model_of(&g, 17);
        if (more) {
            refuse(&m, QD_ERR_UNSUPPORTED, "value 'x': a rank of more than 8");
            break;
        }
        struct qd_graph *graph = import_wire(&m, QD_OK);
        const struct qd_value *x = value_of(graph, "x");
        assert_int_equal(x->info.shape.rank, 4);
        assert_true(x->info.shape.dims[0] == -1 && x->info.shape.dims[1] == -1 && x->info.shape.dims[2] == -1);
        assert_int_equal(x->info.shape.dims[3], 3);
        assert_string_equal(x->dim_names[0], "N");
        assert_null(x->dim_names[1]);
        qd_graph_destroy(&graph);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smallest_model),
        cmocka_unit_test(test_digest_is_fnv1a),
        cmocka_unit_test(test_not_a_model),
        cmocka_unit_test(test_opsets),
        cmocka_unit_test(test_own_domain),
        cmocka_unit_test(test_names_must_be_text),
        cmocka_unit_test(test_names_that_clash_or_lack),
        cmocka_unit_test(test_unsorted_is_sorted_and_a_cycle_refused),
        cmocka_unit_test(test_last_of_a_singular_field_counts),
        cmocka_unit_test(test_constant_nodes_vanish),
        cmocka_unit_test(test_attributes_refused),
        cmocka_unit_test(test_nesting_has_a_limit),
        cmocka_unit_test(test_subgraphs_count_in_the_order),
        cmocka_unit_test(test_input_with_a_default),
        cmocka_unit_test(test_value_types),
        cmocka_unit_test(test_dimensions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
