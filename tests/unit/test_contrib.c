/* The contrib pass on nodes that no optimizer wrote: any number of inputs, absent ones, ranks that fit nothing,
 * attributes of other types, no memory. It ends in a sound graph of standard operators or in one sentence that names
 * the node. What the operators compute is compared elsewhere (tests/nodes/test_contrib.py). */
#include "base/mem.h"
#include "engine/ops/op.h"
#include "engine/plan/contrib_impl.h"
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { MOST_IN = 24, MOST_OUT = 4, VALUES = MOST_IN + MOST_OUT };

/* One node of a row, written out on demand. */
struct trial {
    const struct qd_contrib *row;
    int in_count, out_count, absent, rank; /* absent: which input, or -1 */
    int64_t dim;
    enum qd_dtype dtype;
    const struct qd_attr *attrs;
    int attr_count;
};

static struct qd_graph graph_of(const struct trial *t, struct qd_arena *arena)
{
    struct qd_graph graph = {.arena = arena, .name = "g", .node_count = 1, .value_count = VALUES, .opset = 16};
    struct qd_node *node = qd_arena_alloc(arena, 1, sizeof *node);
    int *ids = qd_arena_alloc(arena, VALUES, sizeof *ids);
    graph.values = qd_arena_alloc(arena, VALUES, sizeof *graph.values);
    graph.inputs = ids;
    graph.outputs = ids + MOST_IN;
    if (!node || !ids || !graph.values)
        abort();
    for (int v = 0; v < VALUES; v++) {
        struct qd_value *value = &graph.values[v];
        *value = (struct qd_value){.name = "v", .producer = -1, .outer = QD_NO_VALUE, .info.shape.rank = -1};
        if (v < MOST_IN) {
            value->info.dtype = t->dtype;
            value->info.shape.rank = t->rank;
            for (int d = 0; d < t->rank; d++)
                value->info.shape.dims[d] = t->dim;
        }
        value->is_input = v < MOST_IN;
        value->is_output = !value->is_input;
        ids[v] = v == t->absent ? QD_NO_VALUE : v;
    }
    *node = (struct qd_node){.name = "the node", .op = t->row->op, .domain = t->row->domain, .opset = 1};
    node->in = ids;
    node->in_count = t->in_count;
    node->out = ids + MOST_IN;
    node->out_count = t->out_count;
    node->attrs = t->attrs;
    node->attr_count = t->attr_count;
    graph.nodes = node;
    return graph;
}

/* Standard operators only, every value there before it is read and made once, the node's name kept. */
static void assert_sound(const struct qd_graph *graph, const struct trial *t)
{
    bool *there = calloc((size_t)graph->value_count, sizeof *there), named = false;
    if (!there)
        abort();
    for (int v = 0; v < graph->value_count; v++)
        there[v] = v < MOST_IN || graph->values[v].constant;
    for (int n = 0; n < graph->node_count; n++) {
        const struct qd_node *node = &graph->nodes[n];
        struct qd_error error = {0};
        if (!qd_op_find(node, &error))
            fail_msg("%s: %s", t->row->op, error.text);
        assert_string_equal(node->domain, "");
        named |= strcmp(node->name, "the node") == 0;
        for (int i = 0; i < node->in_count; i++) {
            if (node->in[i] == QD_NO_VALUE)
                continue;
            assert_in_range(node->in[i], 0, graph->value_count - 1);
            assert_true(there[node->in[i]]);
        }
        for (int o = 0; o < node->out_count; o++) {
            if (node->out[o] == QD_NO_VALUE)
                continue;
            assert_in_range(node->out[o], 0, graph->value_count - 1);
            assert_false(there[node->out[o]]);
            there[node->out[o]] = true;
        }
    }
    assert_true(named);
    assert_true(there[MOST_IN]);
    free(there);
}

static enum qd_status attempt(const struct trial *t)
{
    struct qd_error error = {0};
    struct qd_arena *arena = NULL;
    assert_int_equal(qd_arena_create(4096, &arena), QD_OK);
    struct qd_graph graph = graph_of(t, arena);
    enum qd_status status = qd_contrib_rewrite(&graph, arena, &error);
    if (status) {
        assert_int_equal(error.status, status);
        assert_true(status == QD_ERR_INVALID || status == QD_ERR_UNSUPPORTED);
        assert_non_null(strstr(error.text, "the node"));
        assert_null(strchr(error.text, '\n'));
    } else {
        assert_sound(&graph, t);
    }
    qd_arena_destroy(&arena);
    return status;
}

/* f on every row of every part. */
static void each_row(void (*f)(const struct qd_contrib *row))
{
    for (size_t i = 0; i < qd_contrib_fused_count; i++)
        f(&qd_contrib_fused[i]);
    for (size_t i = 0; i < qd_contrib_quantized_count; i++)
        f(&qd_contrib_quantized[i]);
    for (size_t i = 0; i < qd_contrib_attention_count; i++)
        f(&qd_contrib_attention[i]);
}

#define INT(n, v)                                                                                                      \
    {                                                                                                                  \
        .name = (n), .type = QD_ATTR_INT, .count = 1, .i = (v)                                                         \
    }
#define FLOAT(n, v)                                                                                                    \
    {                                                                                                                  \
        .name = (n), .type = QD_ATTR_FLOAT, .count = 1, .f = (v)                                                       \
    }

static const float PARAMS[] = {.1f, .9f};
static const int64_t AXES[] = {1, 2}, SIZES[] = {4, 4, 4};

/* Attributes as optimizers write them, and then each of them with another type. */
static const struct qd_attr USUAL[] = {
    INT("num_heads", 4),
    INT("transA", 1),
    INT("transB", 1),
    INT("transBatchB", 1),
    INT("channels_last", 1),
    INT("unidirectional", 1),
    INT("axis", 1),
    INT("keepdims", 1),
    INT("opset", 12),
    FLOAT("alpha", .5f),
    FLOAT("epsilon", .5f),
    FLOAT("scale", .5f),
    FLOAT("mask_filter_value", -100),
    FLOAT("activation_alpha", .5f),
    FLOAT("activation_beta", .5f),
    {.name = "activation", .type = QD_ATTR_STRING, .count = 1, .s = {"Clip", 4}},
    {.name = "activation_params", .type = QD_ATTR_FLOATS, .count = 2, .floats = PARAMS},
    {.name = "axes", .type = QD_ATTR_INTS, .count = 2, .ints = AXES},
    {.name = "qkv_hidden_sizes", .type = QD_ATTR_INTS, .count = 3, .ints = SIZES},
};
enum { USUAL_COUNT = sizeof USUAL / sizeof *USUAL };

static void every_shape(const struct qd_contrib *row)
{
    static const int64_t dims[] = {-1, 0, 12};
    int most = row->most + 1 < MOST_IN ? row->most + 1 : MOST_IN, passed = 0;
    for (int inputs = 0; inputs <= most; inputs++)
        for (int absent = -1; absent < inputs; absent++)
            for (int rank = -1; rank <= QD_MAX_RANK; rank++)
                for (int outputs = 0; outputs <= MOST_OUT; outputs++) {
                    struct trial t = {.row = row, .in_count = inputs, .out_count = outputs, .absent = absent};
                    t.rank = rank;
                    t.dim = dims[(inputs + outputs + rank + 1) % 3];
                    t.dtype = (inputs + outputs) % 2 ? QD_I8 : QD_F32;
                    t.attrs = USUAL;
                    t.attr_count = absent >= 0 && (absent + outputs) % 2 ? 0 : USUAL_COUNT;
                    enum qd_status status = attempt(&t);
                    passed += status == QD_OK;
                    if (inputs < row->least || inputs > row->most || outputs == 0 ||
                        (absent >= 0 && absent < row->least))
                        assert_int_equal(status, QD_ERR_INVALID);
                }
    if (passed == 0)
        fail_msg("%s never passed", row->op);
}

static void test_shapes(void **state)
{
    (void)state;
    each_row(every_shape);
}

static void every_attribute(const struct qd_contrib *row)
{
    static const struct qd_attr others[] = {INT("", INT64_MIN),
                                            FLOAT("", 0),
                                            {.name = "", .type = QD_ATTR_STRING, .count = 1, .s = {"", 0}},
                                            {.name = "", .type = QD_ATTR_NONE},
                                            {.name = "", .type = QD_ATTR_INTS, .count = 0},
                                            {.name = "", .type = QD_ATTR_FLOATS, .count = 0}};
    struct qd_attr attrs[USUAL_COUNT];
    for (int changed = 0; changed < USUAL_COUNT; changed++)
        for (size_t to = 0; to < sizeof others / sizeof *others; to++)
            for (int rank = 1; rank <= 4; rank++) {
                struct trial t = {.row = row, .out_count = 1, .absent = -1, .rank = rank, .dim = 12, .dtype = QD_F32};
                t.in_count = row->most < 11 ? row->most : 11;
                memcpy(attrs, USUAL, sizeof attrs);
                attrs[changed] = others[to];
                attrs[changed].name = USUAL[changed].name;
                t.attrs = attrs;
                t.attr_count = USUAL_COUNT;
                attempt(&t);
            }
}

static void test_attributes(void **state)
{
    (void)state;
    each_row(every_attribute);
}

static const struct qd_contrib *row_of(const char *op)
{
    for (size_t i = 0; i < qd_contrib_attention_count; i++)
        if (strcmp(qd_contrib_attention[i].op, op) == 0)
            return &qd_contrib_attention[i];
    for (size_t i = 0; i < qd_contrib_fused_count; i++)
        if (strcmp(qd_contrib_fused[i].op, op) == 0)
            return &qd_contrib_fused[i];
    abort();
}

/* Nothing is known of the operands' ranks: a transpose still has a spelling, a turn of the batch has none. */
static void test_unknown_ranks(void **state)
{
    static const struct qd_attr attrs[] = {INT("transA", 1), INT("transB", 1), INT("transBatchB", 1)};
    struct trial t = {.row = row_of("FusedMatMul"), .in_count = 2, .out_count = 1, .absent = -1, .rank = -1};
    (void)state;
    t.attrs = attrs;
    t.attr_count = 2;
    assert_int_equal(attempt(&t), QD_OK);
    t.attr_count = 3;
    assert_int_equal(attempt(&t), QD_ERR_UNSUPPORTED);
}

static void test_wrong_type(void **state)
{
    static const struct qd_attr text[] = {{.name = "alpha", .type = QD_ATTR_STRING, .count = 1, .s = {"x", 1}}};
    struct trial t = {.row = row_of("FusedMatMul"), .in_count = 2, .out_count = 1, .absent = -1, .rank = 2, .dim = 4};
    (void)state;
    t.attrs = text;
    assert_int_equal(attempt(&t), QD_OK);
    t.attr_count = 1;
    assert_int_equal(attempt(&t), QD_ERR_INVALID);
}

static void test_no_memory(void **state)
{
    static const struct qd_attr attrs[] = {INT("num_heads", 4), INT("unidirectional", 1)};
    struct trial t = {.row = row_of("MultiHeadAttention"), .in_count = 5, .out_count = 3, .absent = -1, .rank = 3};
    bool done = false;
    (void)state;
    t.dim = 12;
    t.dtype = QD_F32;
    t.attrs = attrs;
    t.attr_count = 2;
    for (uint64_t at = 1; !done; at++) {
        struct qd_error error = {0};
        struct qd_arena *arena = NULL;
        assert_int_equal(qd_arena_create(64, &arena), QD_OK);
        struct qd_graph graph = graph_of(&t, arena);
        qd_mem_fail_at(at, true);
        enum qd_status status = qd_contrib_rewrite(&graph, arena, &error);
        qd_mem_fail_at(0, false);
        done = status == QD_OK;
        if (!done)
            assert_int_equal(status, QD_ERR_NO_MEMORY);
        else
            assert_sound(&graph, &t);
        qd_arena_destroy(&arena);
        assert_true(at < 100000);
    }
}

/* A whole file: what the user reads. */
static void refusal(const char *domain, const char *op, const char *const *inputs, char *text, size_t room)
{
    struct qd_engine *engine = qd_mb_engine(1);
    struct qd_mb b = {0};
    struct wire n = {0}, opset = {0};
    struct qd_error error = {0};
    qd_mb_input(&b, "x", QD_F32, "2,3");
    for (; *inputs; inputs++)
        put_text(&n, 1, *inputs);
    put_text(&n, 2, "y");
    put_text(&n, 3, "the node");
    put_text(&n, 4, op);
    put_text(&n, 7, domain);
    put_message(&b.graph, 1, &n);
    qd_mb_output(&b, "y", QD_F32, "?");
    qd_mb_finish(&b, 17);
    put_text(&opset, 1, domain);
    put_varint(&opset, 2, 1);
    put_message(&b.model, 8, &opset);
    assert_null(qd_mb_load(&b, engine, NULL, &error));
    snprintf(text, room, "%s", error.text);
    qd_mb_free(&b);
    qd_engine_destroy(&engine);
}

static void test_sentences(void **state)
{
    char text[512];
    (void)state;
    refusal("com.microsoft", "FusedMatMul", (const char *const[]){"x", NULL}, text, sizeof text);
    assert_non_null(strstr(text, "FusedMatMul node 'the node' has 1 inputs, not 2 to 2"));
    refusal("com.microsoft", "FusedMatMul", (const char *const[]){"x", "", NULL}, text, sizeof text);
    assert_non_null(strstr(text, "FusedMatMul node 'the node' lacks input 1"));
    refusal("com.microsoft", "Nothing", (const char *const[]){"x", NULL}, text, sizeof text);
    assert_non_null(strstr(text, "com.microsoft.Nothing (node 'the node'"));
    refusal("com.microsoft.nchwc", "Conv", (const char *const[]){"x", "x", NULL}, text, sizeof text);
    assert_non_null(strstr(text, "'the node' is com.microsoft.nchwc.Conv"));
    assert_non_null(strstr(text, "'extended'"));
    refusal("com.microsoft", "Gelu", (const char *const[]){"y", NULL}, text, sizeof text); /* reads itself */
    assert_non_null(strstr(text, "the node"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),        cmocka_unit_test(test_attributes), cmocka_unit_test(test_wrong_type),
        cmocka_unit_test(test_unknown_ranks), cmocka_unit_test(test_no_memory),  cmocka_unit_test(test_sentences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
