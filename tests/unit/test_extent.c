/* Extents: which tensors surely have the same shape. Claims are checked against the shapes that running gives, so a
 * claim too many is found; the table says which must be made. */
#include "engine/onnx/import.h"
#include "engine/plan/extent.h"
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <string.h>

/* One network on x [N, 4, H, W]; every value is compared with every other. */
static struct qd_mb network(void)
{
    static const struct {
        const char *op, *inputs, *output, *attributes;
    } nodes[] = {
        {"Conv", "x k3", "keeps", "pads=[1,1,1,1]"},
        {"Relu", "keeps", "relu", NULL},
        {"Add", "relu x", "sum", NULL},
        {"Conv", "x k3", "half3", "pads=[1,1,1,1] strides=[2,2]"},
        {"Conv", "x k1", "half1", "strides=[2,2]"},
        {"MaxPool", "x", "half2", "kernel_shape=[2,2] strides=[2,2]"},
        {"Conv", "x k3", "shrinks", NULL},
        {"Conv", "x k3", "dilated", "pads=[2,2,2,2] dilations=[2,2]"},
        {"Conv", "x wide", "wider", "pads=[1,1,1,1]"},
        {"Conv", "x k3", "same", "auto_pad=SAME_UPPER"},
        {"GlobalAveragePool", "keeps", "mean", NULL},
        {"Conv", "mean k1", "squeezed", NULL},
        {"Sigmoid", "squeezed", "gate", NULL},
        {"Mul", "keeps gate", "gated", NULL},
        {"Mul", "gated perchannel", "scaled", NULL},
        {"Mul", "x row", "rows", NULL},
        {"Transpose", "x", "turned", "perm=[0,1,3,2]"},
    };
    struct qd_mb b = {0};
    qd_mb_input(&b, "x", QD_F32, "N,4,H,W");
    qd_mb_weights(&b, "k3", "4,4,3,3", 1, 1);
    qd_mb_weights(&b, "k1", "4,4,1,1", 2, 1);
    qd_mb_weights(&b, "wide", "6,4,3,3", 3, 1);
    qd_mb_weights(&b, "perchannel", "4,1,1", 4, 1);
    qd_mb_weights(&b, "row", "1,1,1,8", 5, 1);
    for (size_t i = 0; i < sizeof nodes / sizeof nodes[0]; i++) {
        qd_mb_node(&b, nodes[i].op, nodes[i].inputs, nodes[i].output, nodes[i].attributes);
        qd_mb_output(&b, nodes[i].output, QD_F32, "");
    }
    qd_mb_finish(&b, 15);
    return b;
}

static int value_of(const struct qd_graph *graph, const char *name)
{
    for (int v = 0; v < graph->value_count; v++)
        if (strcmp(graph->values[v].name, name) == 0)
            return v;
    fail_msg("no value '%s'", name);
    return -1;
}

static void test_claims(void **state)
{
    (void)state;
    static const char *const equal[][2] = {
        {"x", "keeps"}, {"keeps", "relu"}, {"x", "sum"},        {"half3", "half1"},   {"x", "dilated"},
        {"x", "same"},  {"x", "gated"},    {"gated", "scaled"}, {"mean", "squeezed"}, {"squeezed", "gate"},
    };
    struct qd_mb b = network();
    struct qd_graph *graph;
    struct qd_arena *arena;
    struct qd_error error;
    assert_int_equal(qd_onnx_import(b.model.bytes, b.model.size, &graph, &error), QD_OK);
    assert_int_equal(qd_arena_create(4096, &arena), QD_OK);
    struct qd_extent *extents = qd_extents(graph, arena);
    assert_non_null(extents);
    for (size_t i = 0; i < sizeof equal / sizeof equal[0]; i++)
        if (!qd_extent_equal(extents[value_of(graph, equal[i][0])], extents[value_of(graph, equal[i][1])]))
            fail_msg("%s and %s have the same shape", equal[i][0], equal[i][1]);

    /* no claim that running doesn't bear out, at a size where rounding shows */
    static float x[2 * 4 * 7 * 8];
    struct qd_engine *engine = qd_mb_engine(1);
    struct qd_quant_options options = qd_quant_defaults();
    options.precision = QD_FP32;
    struct qd_model *model = qd_mb_load(&b, engine, &options, NULL);
    qd_mb_fill(x, sizeof x / sizeof x[0], 9, 1);
    struct qd_infer *infer = qd_mb_run(model, NULL, "2,4,7,8", x);
    int claims = 0;
    for (size_t i = 0; i < qd_model_output_count(model); i++)
        for (size_t j = 0; j < i; j++) {
            int a = value_of(graph, qd_model_output(model, i)->name),
                c = value_of(graph, qd_model_output(model, j)->name);
            if (!qd_extent_equal(extents[a], extents[c]))
                continue;
            claims++;
            if (!qd_shape_equal(&qd_infer_output(infer, i)->shape, &qd_infer_output(infer, j)->shape))
                fail_msg("%s and %s don't have the same shape", graph->values[a].name, graph->values[c].name);
        }
    assert_true(claims > 10);
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_engine_destroy(&engine);
    qd_arena_destroy(&arena);
    qd_graph_destroy(&graph);
    qd_mb_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_claims)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
