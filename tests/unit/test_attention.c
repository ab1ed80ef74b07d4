/* Attention: what is found in graphs as exporters write them gives what the pieces give, near misses stay as they are,
 * and answers depend neither on threads nor on the rest of a batch. The pieces come from the same graph with the
 * probabilities made an output. */
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

enum { BATCH = 2, ROWS = 5, HEADS = 2, DEPTH = 4, WIDTH = HEADS * DEPTH, ELEMS = BATCH * ROWS * WIDTH };

struct piece {
    const char *op, *inputs, *output, *attributes;
};

struct graph {
    const char *label;
    bool found;
    int left; /* Transposes that stay */
    struct piece pieces[28];
};

#define LINEARS                                                                                                        \
    {"MatMul", "x wq", "q0", NULL}, {"MatMul", "x wk", "k0", NULL}, { "MatMul", "x wv", "v0", NULL }
#define SPLIT(n, perm)                                                                                                 \
    {"Reshape", n "0 heads", n "1", NULL}, { "Transpose", n "1", n "2", perm }
#define HEADED SPLIT("q", "perm=[0,2,1,3]"), SPLIT("k", "perm=[0,2,3,1]"), SPLIT("v", "perm=[0,2,1,3]")
#define PRODUCT                                                                                                        \
    {                                                                                                                  \
        "MatMul", "q2 k2", "s0", NULL                                                                                  \
    }
#define SOFTMAX(x)                                                                                                     \
    {                                                                                                                  \
        "Softmax", x, "p", "axis=-1"                                                                                   \
    }
#define END                                                                                                            \
    {"MatMul", "p v2", "o", NULL}, {"Transpose", "o", "ot", "perm=[0,2,1,3]"}, { "Reshape", "ot joined", "y", NULL }
#define PART(n, i)                                                                                                     \
    {                                                                                                                  \
        "Gather", "packed i" i, n "2", "axis=0"                                                                        \
    }

static const struct graph graphs[] = {
    {"scale by Mul", true, 0, {LINEARS, HEADED, PRODUCT, {"Mul", "s0 c", "s1", NULL}, SOFTMAX("s1"), END}},
    {"scale by Div, mask of columns",
     true,
     0,
     {LINEARS, HEADED, PRODUCT, {"Div", "s0 c", "s1", NULL}, {"Add", "s1 row", "s2", NULL}, SOFTMAX("s2"), END}},
    {"mask of batches first",
     true,
     0,
     {LINEARS, HEADED, PRODUCT, {"Mul", "c s0", "s1", NULL}, {"Add", "full s1", "s2", NULL}, SOFTMAX("s2"), END}},
    {"mask of rows", true, 0, {LINEARS, HEADED, PRODUCT, {"Add", "s0 column", "s2", NULL}, SOFTMAX("s2"), END}},
    {"scale on both sides",
     true,
     0,
     {LINEARS,
      SPLIT("q", "perm=[0,2,1,3]"),
      {"Mul", "q2 c", "q3", NULL},
      SPLIT("k", "perm=[0,2,1,3]"),
      {"Mul", "k2 c", "k3", NULL},
      {"Transpose", "k3", "k4", "perm=[0,1,3,2]"},
      SPLIT("v", "perm=[0,2,1,3]"),
      {"MatMul", "q3 k4", "s0", NULL},
      SOFTMAX("s0"),
      END}},
    {"computed shapes",
     true,
     0,
     {LINEARS,
      {"Shape", "q0", "sh", NULL},
      {"Gather", "sh zero", "b", NULL},
      {"Gather", "sh first", "r", NULL},
      {"Unsqueeze", "b ax", "b1", NULL},
      {"Unsqueeze", "r ax", "r1", NULL},
      {"Concat", "b1 r1 two four", "t", "axis=0"},
      {"Reshape", "q0 t", "q1", NULL},
      {"Transpose", "q1", "q2", "perm=[0,2,1,3]"},
      SPLIT("k", "perm=[0,2,3,1]"),
      SPLIT("v", "perm=[0,2,1,3]"),
      PRODUCT,
      SOFTMAX("s0"),
      {"MatMul", "p v2", "o", NULL},
      {"Transpose", "o", "ot", "perm=[0,2,1,3]"},
      {"Concat", "b1 r1 least", "t2", "axis=0"},
      {"Reshape", "ot t2", "y", NULL}}},
    {"packed, parts by Gather",
     true,
     0,
     {{"MatMul", "x w3", "all", NULL},
      {"Reshape", "all heads3", "all1", NULL},
      {"Transpose", "all1", "packed", "perm=[2,0,3,1,4]"},
      PART("q", "0"),
      PART("k3", "1"),
      PART("v", "2"),
      {"Transpose", "k32", "k2", "perm=[0,1,3,2]"},
      PRODUCT,
      {"Mul", "s0 c", "s1", NULL},
      SOFTMAX("s1"),
      END}},
    {"packed, parts by Split",
     true,
     0,
     {{"MatMul", "x w3", "all", NULL},
      {"Split", "all", "q0 k0 v0", "axis=-1"},
      HEADED,
      PRODUCT,
      {"Mul", "s0 c", "s1", NULL},
      SOFTMAX("s1"),
      END}},
    {"heads stay apart",
     true,
     1,
     {LINEARS,
      HEADED,
      PRODUCT,
      SOFTMAX("s0"),
      {"MatMul", "p v2", "o", NULL},
      {"Transpose", "o", "ot", "perm=[0,2,3,1]"},
      {"Transpose", "ot", "ou", "perm=[3,2,1,0]"},
      {"Relu", "ou", "y", NULL}}},
    {"no heads",
     true,
     0,
     {LINEARS,
      {"Transpose", "k0", "k2", "perm=[0,2,1]"},
      {"MatMul", "q0 k2", "s0", NULL},
      {"Mul", "s0 c", "s1", NULL},
      SOFTMAX("s1"),
      {"MatMul", "p v0", "y", NULL}}},
    {"softmax over queries", false, 4, {LINEARS, HEADED, PRODUCT, {"Softmax", "s0", "p", "axis=2"}, END}},
    {"a vector as scale", false, 4, {LINEARS, HEADED, PRODUCT, {"Mul", "s0 row", "s1", NULL}, SOFTMAX("s1"), END}},
    {"probabilities read twice",
     false,
     4,
     {LINEARS,
      HEADED,
      PRODUCT,
      SOFTMAX("s0"),
      {"MatMul", "p v2", "o", NULL},
      {"ReduceSum", "p", "total", NULL},
      {"Transpose", "o", "ot", "perm=[0,2,1,3]"},
      {"Reshape", "ot joined", "y0", NULL},
      {"Add", "y0 total", "y", NULL}}},
    {"keys not turned",
     false,
     4,
     {LINEARS,
      SPLIT("q", "perm=[0,2,1,3]"),
      SPLIT("k", "perm=[0,2,1,3]"),
      {"Reshape", "k2 turned", "k3", NULL},
      SPLIT("v", "perm=[0,2,1,3]"),
      {"MatMul", "q2 k3", "s0", NULL},
      SOFTMAX("s0"),
      END}},
};

static struct qd_mb build(const struct graph *g, bool separate)
{
    static const float c = 0.37f;
    static const int64_t heads[] = {0, -1, HEADS, DEPTH}, heads3[] = {0, -1, 3, HEADS, DEPTH},
                         joined[] = {0, -1, WIDTH}, turned[] = {0, HEADS, DEPTH, -1}, index[] = {0, 1, 2}, two = HEADS,
                         four = DEPTH, least = -1;
    float full[BATCH * ROWS * ROWS];
    struct qd_mb b = {0};
    qd_mb_input(&b, "x", QD_F32, "B,S,8");
    qd_mb_weights(&b, "wq", "8,8", 1, 1);
    qd_mb_weights(&b, "wk", "8,8", 2, 1);
    qd_mb_weights(&b, "wv", "8,8", 3, 1);
    qd_mb_weights(&b, "w3", "8,24", 4, 1);
    qd_mb_weights(&b, "row", "5", 5, 1);
    qd_mb_weights(&b, "column", "1,2,5,1", 6, 1);
    qd_mb_fill(full, BATCH * ROWS * ROWS, 7, 1);
    for (int i = 0; i < BATCH * ROWS * ROWS; i += 4)
        full[i] = -3.4e38f;
    qd_mb_constant(&b, "full", QD_F32, "2,1,5,5", full);
    qd_mb_constant(&b, "c", QD_F32, "", &c);
    qd_mb_constant(&b, "heads", QD_I64, "4", heads);
    qd_mb_constant(&b, "heads3", QD_I64, "5", heads3);
    qd_mb_constant(&b, "joined", QD_I64, "3", joined);
    qd_mb_constant(&b, "turned", QD_I64, "4", turned);
    qd_mb_constant(&b, "i0", QD_I64, "", &index[0]);
    qd_mb_constant(&b, "i1", QD_I64, "", &index[1]);
    qd_mb_constant(&b, "i2", QD_I64, "", &index[2]);
    qd_mb_constant(&b, "zero", QD_I64, "", &index[0]);
    qd_mb_constant(&b, "first", QD_I64, "", &index[1]);
    qd_mb_constant(&b, "ax", QD_I64, "1", &index[0]);
    qd_mb_constant(&b, "two", QD_I64, "1", &two);
    qd_mb_constant(&b, "four", QD_I64, "1", &four);
    qd_mb_constant(&b, "least", QD_I64, "1", &least);
    for (int i = 0; g->pieces[i].op; i++)
        qd_mb_node(&b, g->pieces[i].op, g->pieces[i].inputs, g->pieces[i].output, g->pieces[i].attributes);
    qd_mb_output(&b, "y", QD_F32, "");
    if (separate)
        qd_mb_output(&b, "p", QD_F32, "");
    qd_mb_finish(&b, 17);
    return b;
}

static int steps_of(struct qd_model *model, const char *op)
{
    struct qd_plan_report plan;
    struct qd_step_report step;
    int count = 0;
    qd_model_plan(model, &plan);
    for (size_t i = 0; i < plan.steps; i++) {
        qd_model_step(model, i, &step);
        count += strcmp(step.op, op) == 0;
    }
    return count;
}

/* How a model is loaded: in floats, in integers with a scale a tensor, or a row. */
enum form { FLOATS, TENSORS, TOKENS };

static struct qd_quant_options options_of(enum form form)
{
    struct qd_quant_options options = qd_quant_defaults();
    options.precision = form == FLOATS ? QD_FP32 : QD_INT8;
    options.activation_granularity = form == TENSORS ? QD_PER_TENSOR : QD_GRANULARITY_AUTO;
    return options;
}

/* Output 0; rows of the batch from `first` on. */
static void answer(const struct graph *g, enum form form, unsigned threads, bool separate, int first, int batch,
                   float *out)
{
    struct qd_engine *engine = qd_mb_engine(threads);
    struct qd_quant_options options = options_of(form);
    struct qd_mb b = build(g, separate);
    float x[ELEMS];
    struct qd_model *model = qd_mb_load(&b, engine, &options, NULL);
    assert_non_null(model);
    int found = steps_of(model, "Attention");
    if (found != (g->found && !separate))
        fail_msg("%s: %d nodes of attention", g->label, found);
    if (form == FLOATS && !separate && steps_of(model, "Transpose") != g->left)
        fail_msg("%s: %d transposes stay", g->label, steps_of(model, "Transpose"));
    qd_mb_fill(x, ELEMS, 42, 2);
    struct qd_infer *infer = qd_mb_run(model, NULL, batch == 2 ? "2,5,8" : "1,5,8", x + first * ROWS * WIDTH);
    const struct qd_tensor *t = qd_infer_output(infer, 0);
    assert_int_equal(qd_tensor_elems(t), batch * ROWS * WIDTH);
    memcpy(out, t->data, (size_t)(batch * ROWS * WIDTH) * sizeof *out);
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_mb_free(&b);
    qd_engine_destroy(&engine);
}

static double cosine(const float *a, const float *b, int n)
{
    double ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return ab / sqrt(aa * bb);
}

static void test_graphs(void **state)
{
    (void)state;
    float got[ELEMS], want[ELEMS], int8[ELEMS];
    for (size_t i = 0; i < sizeof graphs / sizeof graphs[0]; i++) {
        const struct graph *g = &graphs[i];
        answer(g, FLOATS, 1, false, 0, BATCH, got);
        answer(g, FLOATS, 1, true, 0, BATCH, want);
        for (int e = 0; e < ELEMS; e++)
            if (!(fabsf(got[e] - want[e]) <= 2e-5f * (1 + fabsf(want[e]))))
                fail_msg("%s: element %d is %.9g, the pieces give %.9g", g->label, e, (double)got[e], (double)want[e]);
        for (enum form form = TENSORS; form <= TOKENS; form++) {
            answer(g, form, 1, false, 0, BATCH, int8);
            if (!(cosine(int8, want, ELEMS) > (form == TOKENS ? 0.999 : 0.997)))
                fail_msg("%s: cosine of integers, form %d: %.6f", g->label, form, cosine(int8, want, ELEMS));
        }
    }
}

static void test_threads_change_nothing(void **state)
{
    (void)state;
    float one[ELEMS], three[ELEMS];
    for (size_t i = 0; i < sizeof graphs / sizeof graphs[0]; i++)
        for (enum form form = FLOATS; form <= TOKENS; form++) {
            answer(&graphs[i], form, 1, false, 0, BATCH, one);
            answer(&graphs[i], form, 3, false, 0, BATCH, three);
            assert_memory_equal(one, three, sizeof one);
        }
}

/* Each half of a batch alone; not where the mask is of two batches. With a scale a row that holds in integers, too. */
static void test_batch_changes_nothing(void **state)
{
    (void)state;
    float both[ELEMS], alone[ELEMS];
    for (size_t i = 0; i < sizeof graphs / sizeof graphs[0]; i++) {
        if (!graphs[i].found || graphs[i].left || strstr(graphs[i].label, "batches"))
            continue;
        for (enum form form = FLOATS; form <= TOKENS; form += TOKENS) {
            answer(&graphs[i], form, 1, false, 0, BATCH, both);
            answer(&graphs[i], form, 1, false, 0, 1, alone);
            answer(&graphs[i], form, 1, false, 1, 1, alone + ELEMS / 2);
            assert_memory_equal(both, alone, sizeof both);
        }
    }
}

/* The two products alone, of tensors as they come: [1, HEADS, ROWS, DEPTH]. */
static void attend(enum form form, const float *q, const float *k, const float *v, float *out)
{
    struct qd_engine *engine = qd_mb_engine(1);
    struct qd_quant_options options = options_of(form);
    struct qd_mb b = {0};
    struct qd_infer *infer;
    struct qd_error error;
    qd_mb_input(&b, "q", QD_F32, "1,2,5,4");
    qd_mb_input(&b, "k", QD_F32, "1,2,5,4");
    qd_mb_input(&b, "v", QD_F32, "1,2,5,4");
    qd_mb_node(&b, "Transpose", "k", "kt", "perm=[0,1,3,2]");
    qd_mb_node(&b, "MatMul", "q kt", "s", NULL);
    qd_mb_node(&b, "Softmax", "s", "p", "axis=-1");
    qd_mb_node(&b, "MatMul", "p v", "y", NULL);
    qd_mb_output(&b, "y", QD_F32, "");
    qd_mb_finish(&b, 17);
    struct qd_model *model = qd_mb_load(&b, engine, &options, NULL);
    assert_non_null(model);
    assert_int_equal(steps_of(model, "Attention"), 1);
    assert_int_equal(steps_of(model, "QuantizeLinear"), form == TENSORS ? 2 : 0);
    const struct qd_infer_options defaults = qd_infer_defaults();
    const float *data[] = {q, k, v};
    assert_int_equal(qd_infer_create(model, &defaults, &infer, &error), QD_OK);
    for (size_t i = 0; i < 3; i++) {
        const struct qd_shape shape = qd_mb_shape("1,2,5,4");
        void *room;
        assert_int_equal(qd_infer_input_alloc(infer, i, QD_F32, &shape, &room, &error), QD_OK);
        memcpy(room, data[i], ELEMS / 2 * sizeof **data);
    }
    assert_int_equal(qd_infer_prepare(infer, &error), QD_OK);
    qd_infer_run(&infer, 1);
    assert_int_equal(qd_infer_status(infer, &error), QD_OK);
    qd_infer_finish(infer);
    memcpy(out, qd_infer_output(infer, 0)->data, ELEMS / 2 * sizeof *out);
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_mb_free(&b);
    qd_engine_destroy(&engine);
}

/* Queries and keys of very different sizes: each has its own scale, and an odd query leaves the others as they are. */
static void test_tokens_are_apart(void **state)
{
    (void)state;
    static const float odd[] = {NAN, INFINITY, 1e30f, 0};
    enum { N = ELEMS / 2, ODD = 3 };
    float q[N], k[N], v[N], clean[N], want[N], tensor[N], got[N];
    qd_mb_fill(q, N, 1, 1);
    qd_mb_fill(k, N, 2, 1);
    qd_mb_fill(v, N, 3, 1);
    for (int i = 0; i < N; i++) {
        q[i] *= powf(8, (float)(i / DEPTH % ROWS));
        k[i] *= powf(4, (float)(ROWS - 1 - i / DEPTH % ROWS)) / 64;
    }
    attend(FLOATS, q, k, v, want);
    attend(TENSORS, q, k, v, tensor);
    attend(TOKENS, q, k, v, clean);
    if (!(cosine(clean, want, N) > 0.9995 && cosine(clean, want, N) > cosine(tensor, want, N)))
        fail_msg("by row %.6f, by tensor %.6f", cosine(clean, want, N), cosine(tensor, want, N));
    for (size_t o = 0; o < sizeof odd / sizeof odd[0]; o++) {
        for (int i = 0; i < DEPTH; i++)
            q[ODD * DEPTH + i] = odd[o];
        attend(TOKENS, q, k, v, got);
        assert_memory_equal(got, clean, ODD * DEPTH * sizeof *got);
        assert_memory_equal(got + (ODD + 1) * DEPTH, clean + (ODD + 1) * DEPTH, (N - (ODD + 1) * DEPTH) * sizeof *got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_graphs),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_batch_changes_nothing),
        cmocka_unit_test(test_tokens_are_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
