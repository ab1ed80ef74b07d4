/* The operators of `ai.onnx.ml` one by one on numbers worked out by hand, and on attributes that no converter writes:
 * lists of other lengths, ids and numbers that lead nowhere, trees that walk in circles. Those are refused when the
 * plan is compiled, in one sentence that names the node. Whole models: tests/nodes/test_sklearn.py. */
#include "base/mem.h"
#include "engine/ops/op.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { MOST_ATTRS = 16 };

#define INTS(n, ...)                                                                                                   \
    (struct qd_attr)                                                                                                   \
    {                                                                                                                  \
        .name = n, .type = QD_ATTR_INTS, .count = sizeof(int64_t[]){__VA_ARGS__} / sizeof(int64_t),                    \
        .ints = (const int64_t[])                                                                                      \
        {                                                                                                              \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define FLOATS(n, ...)                                                                                                 \
    (struct qd_attr)                                                                                                   \
    {                                                                                                                  \
        .name = n, .type = QD_ATTR_FLOATS, .count = sizeof(float[]){__VA_ARGS__} / sizeof(float),                      \
        .floats = (const float[])                                                                                      \
        {                                                                                                              \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define TEXT(t)                                                                                                        \
    {                                                                                                                  \
        t, sizeof(t) - 1                                                                                               \
    }
#define STRINGS(n, ...)                                                                                                \
    (struct qd_attr)                                                                                                   \
    {                                                                                                                  \
        .name = n, .type = QD_ATTR_STRINGS, .count = sizeof(struct qd_text[]){__VA_ARGS__} / sizeof(struct qd_text),   \
        .strings = (const struct qd_text[])                                                                            \
        {                                                                                                              \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define STRING(n, t) ((struct qd_attr){.name = n, .type = QD_ATTR_STRING, .count = 1, .s = TEXT(t)})
#define INT(n, v)    ((struct qd_attr){.name = n, .type = QD_ATTR_INT, .count = 1, .i = v})
#define TENSOR(n, kind, length, values)                                                                                \
    ((struct qd_attr){.name = n,                                                                                       \
                      .type = QD_ATTR_TENSOR,                                                                          \
                      .count = 1,                                                                                      \
                      .t = {.dtype = kind, .shape = {1, {length}}, .data = (void *)(uintptr_t)(values)}})

struct fixture {
    struct qd_arena *arena;
    struct qd_error error;
    struct qd_node node;
    struct qd_attr attrs[MOST_ATTRS];
    struct qd_tensor out[2];
    struct qd_lender lender;
};

static int out_ids[2] = {1, 2}, in_ids[2] = {0, 3};
static struct qd_arena *lent;
static void *lend(struct qd_lender *lender, size_t bytes)
{
    (void)lender;
    return qd_arena_alloc_raw(lent, bytes);
}

static int set_up(void **state)
{
    static struct fixture f;
    f = (struct fixture){.lender = {lend}};
    *state = &f;
    if (qd_arena_create(1 << 12, &f.arena) != QD_OK)
        return -1;
    lent = f.arena;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    qd_arena_destroy(&f->arena);
    return 0;
}

/* Compiles, infers and runs one node. */
static enum qd_status apply(struct fixture *f, const char *op, int64_t opset, const struct qd_tensor *in, int in_count,
                            int out_count)
{
    void *prep = NULL;
    const bool standard = strncmp(op, "String", 6) == 0 || strcmp(op, "Cast") == 0;
    f->node = (struct qd_node){.name = "the node",
                               .op = op,
                               .domain = standard ? "" : "ai.onnx.ml",
                               .opset = opset,
                               .in = in_ids,
                               .out = out_ids,
                               .in_count = in_count,
                               .out_count = out_count,
                               .attrs = f->attrs};
    while (f->node.attr_count < MOST_ATTRS && f->attrs[f->node.attr_count].name)
        f->node.attr_count++;
    f->error = (struct qd_error){0};
    const struct qd_op *vtable = qd_op_find(&f->node, &f->error);
    assert_non_null(vtable);
    enum qd_status status = vtable->prepare ? vtable->prepare(&f->node, f->arena, &prep, &f->error) : QD_OK;
    struct qd_call call = {.node = &f->node,
                           .prep = prep,
                           .in = in,
                           .in_count = in_count,
                           .out = f->out,
                           .out_count = out_count,
                           .lender = &f->lender};
    memset(f->out, 0, sizeof f->out);
    if (!status)
        status = vtable->infer(&call, &f->error);
    for (int o = 0; o < out_count && !status; o++)
        f->out[o].data = qd_arena_alloc_raw(f->arena, qd_tensor_bytes(&f->out[o]) + 1);
    if (!status) {
        call.scratch = vtable->scratch ? qd_arena_alloc_raw(f->arena, vtable->scratch(&call) + 1) : NULL;
        status = vtable->run(&call, &f->error);
    }
    return status;
}

static struct qd_tensor matrix(const float *x, int64_t rows, int64_t columns)
{
    return (struct qd_tensor){.dtype = QD_F32, .shape = {2, {rows, columns}}, .data = (void *)(uintptr_t)x};
}

static void set_attrs(struct fixture *f, const struct qd_attr *attrs, size_t n)
{
    static const size_t sizes[] = {
        [QD_ATTR_FLOATS] = sizeof(float), [QD_ATTR_INTS] = sizeof(int64_t), [QD_ATTR_STRINGS] = sizeof(struct qd_text)};
    memset(f->attrs, 0, sizeof f->attrs);
    memcpy(f->attrs, attrs, n * sizeof *attrs);
    for (size_t i = 0; i < n; i++) /* the lists live as long as the caller's block */
        if (attrs[i].type >= QD_ATTR_FLOATS) {
            void *list = qd_arena_alloc(f->arena, attrs[i].count, sizes[attrs[i].type]);
            assert_non_null(list);
            f->attrs[i].floats = memcpy(list, attrs[i].floats, attrs[i].count * sizes[attrs[i].type]);
        }
}
#define ATTRS(f, ...)                                                                                                  \
    set_attrs(f, (const struct qd_attr[]){__VA_ARGS__}, sizeof(struct qd_attr[]){__VA_ARGS__} / sizeof(struct qd_attr))

static void refused(struct fixture *f, const char *op, int64_t opset, const char *part)
{
    const float x[4] = {0};
    const struct qd_tensor in = matrix(x, 1, 4);
    if (apply(f, op, opset, &in, 1, strstr(op, "Classifier") ? 2 : 1) == QD_OK)
        fail_msg("%s was taken, not refused for '%s'", op, part);
    if (!strstr(f->error.text, "the node") || !strstr(f->error.text, part))
        fail_msg("'%s' does not name the node and '%s'", f->error.text, part);
}

static void near(const struct qd_tensor *t, const float *want, size_t n)
{
    assert_int_equal(t->dtype, QD_F32);
    assert_int_equal(qd_tensor_elems(t), n);
    for (size_t i = 0; i < n; i++)
        if (fabsf(((const float *)t->data)[i] - want[i]) > 1e-6f)
            fail_msg("element %zu is %g, not %g", i, (double)((const float *)t->data)[i], (double)want[i]);
}

/* ------------------------------------------------------------------ trees */

/* Two trees. 0: x0 <= 1 ? (x1 < 2, NaN too ? 10 : 20) : 30. 1: x0 == 5 ? 1 : 2. */
static void two_trees(struct fixture *f)
{
    ATTRS(f, INTS("nodes_treeids", 0, 0, 0, 0, 0, 7, 7, 7), INTS("nodes_nodeids", 0, 1, 2, 3, 4, 0, 1, 2),
          INTS("nodes_featureids", 0, 1, 0, 0, 0, 0, 0, 0), FLOATS("nodes_values", 1, 2, 0, 0, 0, 5, 0, 0),
          STRINGS("nodes_modes", TEXT("BRANCH_LEQ"), TEXT("BRANCH_LT"), TEXT("LEAF"), TEXT("LEAF"), TEXT("LEAF"),
                  TEXT("BRANCH_EQ"), TEXT("LEAF"), TEXT("LEAF")),
          INTS("nodes_truenodeids", 1, 3, 0, 0, 0, 1, 0, 0), INTS("nodes_falsenodeids", 2, 4, 0, 0, 0, 2, 0, 0),
          INTS("nodes_missing_value_tracks_true", 0, 1, 0, 0, 0, 0, 0, 0), INTS("target_treeids", 0, 0, 0, 7, 7),
          INTS("target_nodeids", 3, 4, 2, 1, 2), INTS("target_ids", 0, 0, 0, 0, 0),
          FLOATS("target_weights", 10, 20, 30, 1, 2), INT("n_targets", 1));
}

static void test_trees(void **state)
{
    struct fixture *f = *state;
    const float x[] = {0, 0, 0, 3, 1, NAN, 5, 0, NAN, 0}, sums[] = {12, 22, 12, 31, 32};
    const struct qd_tensor in = matrix(x, 5, 2);
    two_trees(f);
    assert_int_equal(apply(f, "TreeEnsembleRegressor", 3, &in, 1, 1), QD_OK);
    near(&f->out[0], sums, 5);
    const int64_t ints[] = {0, 0, 5, 9};
    const struct qd_tensor whole = {.dtype = QD_I64, .shape = {2, {2, 2}}, .data = (void *)(uintptr_t)ints};
    assert_int_equal(apply(f, "TreeEnsembleRegressor", 3, &whole, 1, 1), QD_OK);
    near(&f->out[0], (const float[]){12, 31}, 2);
    f->attrs[13] = STRING("aggregate_function", "AVERAGE");
    f->attrs[14] = FLOATS("base_values", 0.5f);
    assert_int_equal(apply(f, "TreeEnsembleRegressor", 3, &in, 1, 1), QD_OK);
    near(&f->out[0], (const float[]){6.5f, 11.5f, 6.5f, 16, 16.5f}, 5);
    f->attrs[13] = STRING("aggregate_function", "MIN");
    assert_int_equal(apply(f, "TreeEnsembleRegressor", 3, &in, 1, 1), QD_OK);
    near(&f->out[0], (const float[]){2.5f, 2.5f, 2.5f, 1.5f, 2.5f}, 5);
}

static void test_tree_classes(void **state)
{
    struct fixture *f = *state;
    const float x[] = {-1, 1};
    const struct qd_tensor in = matrix(x, 2, 1);
    ATTRS(f, INTS("nodes_treeids", 0, 0, 0), INTS("nodes_nodeids", 0, 1, 2), INTS("nodes_featureids", 0, 0, 0),
          FLOATS("nodes_values", 0, 0, 0), STRINGS("nodes_modes", TEXT("BRANCH_LEQ"), TEXT("LEAF"), TEXT("LEAF")),
          INTS("nodes_truenodeids", 1, 0, 0), INTS("nodes_falsenodeids", 2, 0, 0), INTS("class_treeids", 0, 0),
          INTS("class_nodeids", 1, 2), INTS("class_ids", 0, 0), FLOATS("class_weights", 0.25f, 0.75f),
          STRINGS("classlabels_strings", TEXT("no"), TEXT("yes")));
    assert_int_equal(apply(f, "TreeEnsembleClassifier", 3, &in, 1, 2), QD_OK);
    const struct qd_string *labels = f->out[0].data;
    assert_int_equal(f->out[0].dtype, QD_STR);
    assert_memory_equal(labels[0].bytes, "no", labels[0].length);
    assert_memory_equal(labels[1].bytes, "yes", labels[1].length);
    near(&f->out[1], (const float[]){0.75f, 0.25f, 0.25f, 0.75f}, 4);
    f->attrs[9] = INTS("class_ids", 0, 2);
    f->attrs[11] = INTS("classlabels_int64s", 5, 6, 7);
    f->attrs[12] = FLOATS("base_values", 0, 0.5f, 0);
    assert_int_equal(apply(f, "TreeEnsembleClassifier", 3, &in, 1, 2), QD_OK);
    assert_int_equal(((const int64_t *)f->out[0].data)[0], 6);
    assert_int_equal(((const int64_t *)f->out[0].data)[1], 7);
    near(&f->out[1], (const float[]){0.25f, 0.5f, 0, 0, 0.5f, 0.75f}, 6);
}

/* TreeEnsemble: x0 in {1, 3} ? leaf 0 : x0 > 7 ? leaf 1 : leaf 2, of two targets. */
static void placed_tree(struct fixture *f)
{
    static const uint8_t modes[] = {6, 3};
    static const float splits[] = {0, 7}, weights[] = {1, 2, 4}, members[] = {1, 3, NAN};
    ATTRS(f, INTS("tree_roots", 0), INTS("nodes_featureids", 0, 0), TENSOR("nodes_modes", QD_U8, 2, modes),
          TENSOR("nodes_splits", QD_F32, 2, splits), INTS("nodes_truenodeids", 0, 1), INTS("nodes_falsenodeids", 1, 2),
          INTS("nodes_trueleafs", 1, 1), INTS("nodes_falseleafs", 0, 1), INTS("leaf_targetids", 0, 1, 0),
          TENSOR("leaf_weights", QD_F32, 3, weights), TENSOR("membership_values", QD_F32, 3, members),
          INT("n_targets", 2));
}

static void test_placed_trees(void **state)
{
    struct fixture *f = *state;
    const float x[] = {3, 8, 7};
    const struct qd_tensor in = matrix(x, 3, 1);
    placed_tree(f);
    assert_int_equal(apply(f, "TreeEnsemble", 5, &in, 1, 1), QD_OK);
    near(&f->out[0], (const float[]){1, 0, 0, 2, 4, 0}, 6);
}

static void test_hostile_trees(void **state)
{
    struct fixture *f = *state;
    const struct {
        int at;
        struct qd_attr attr;
        const char *part;
    } rows[] = {
        {1, INTS("nodes_nodeids", 0, 1, 2, 3, 4, 0, 1, 1), "the same id"},
        {1, INTS("nodes_nodeids", 0, 1, 2, 3, 4, 0, 1), "nodes_nodeids has 7 elements, 8 are needed"},
        {2, INTS("nodes_featureids", 0, -1, 0, 0, 0, 0, 0, 0), "columns"},
        {2, INTS("nodes_featureids", 0, 1, 0, 0, 0, INT64_MAX, 0, 0), "columns"},
        {2, INTS("nodes_featureids", 0, 4, 0, 0, 0, 0, 0, 0), "feature 4, rows have 4"},
        {4, STRINGS("nodes_modes", TEXT("BRANCH_LEQ")), "a mode for each node"},
        {4,
         STRINGS("nodes_modes", TEXT("BRANCH_LEQ"), TEXT("BRANCH_XY"), TEXT("LEAF"), TEXT("LEAF"), TEXT("LEAF"),
                 TEXT("BRANCH_EQ"), TEXT("LEAF"), TEXT("LEAF")),
         "mode"},
        {5, INTS("nodes_truenodeids", 0, 3, 0, 0, 0, 1, 0, 0), "circle"},
        {5, INTS("nodes_truenodeids", 1, 1, 0, 0, 0, 1, 0, 0), "reached from two"},
        {5, INTS("nodes_truenodeids", 1, 0, 0, 0, 0, 1, 0, 0), "circle"},
        {5, INTS("nodes_truenodeids", 1, 9, 0, 0, 0, 1, 0, 0), "not in its tree"},
        {5, INTS("nodes_truenodeids", 1, INT64_MIN, 0, 0, 0, 1, 0, 0), "not in its tree"},
        {8, INTS("target_treeids", 0, 0, 0, 1, 7), "a node that is not there"},
        {10, INTS("target_ids", 0, 0, 0, 0, 1), "target or class that is not there"},
        {10, INTS("target_ids", 0, 0, -1, 0, 0), "target or class that is not there"},
        {11, FLOATS("target_weights", 1, 2), "target_weights has 2"},
        {12, INT("n_targets", 0), "n_targets"},
        {12, INT("n_targets", INT64_MAX), "n_targets"},
        {13, FLOATS("base_values", 1, 2, 3), "base_values has 3"},
        {13, STRING("aggregate_function", "MEDIAN"), "aggregate_function"},
        {13, STRING("post_transform", "SQUARE"), "post_transform"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        two_trees(f);
        f->attrs[rows[i].at] = rows[i].attr;
        refused(f, "TreeEnsembleRegressor", 3, rows[i].part);
    }
}

static void test_hostile_placed_trees(void **state)
{
    struct fixture *f = *state;
    static const uint8_t unknown[] = {6, 7};
    static const float unended[] = {1, 2, 3};
    const struct {
        int at;
        struct qd_attr attr;
        const char *part;
    } rows[] = {
        {0, INTS("tree_roots", 2), "not there"},
        {0, INTS("tree_roots", 1), "circle"},
        {2, TENSOR("nodes_modes", QD_U8, 2, unknown), "mode"},
        {2, TENSOR("nodes_modes", QD_U8, 1, unknown), "nodes_modes"},
        {3, TENSOR("nodes_splits", QD_U8, 2, unknown), "not supported"},
        {4, INTS("nodes_truenodeids", 3, 1), "not there"},
        {5, INTS("nodes_falsenodeids", 0, 2), "circle"},
        {5, INTS("nodes_falsenodeids", -1, 2), "not there"},
        {8, INTS("leaf_targetids", 0, 2, 0), "target"},
        {10, TENSOR("membership_values", QD_F32, 3, unended), "membership_values"},
        {12, INT("aggregate_function", 9), "aggregate_function"},
        {12, INT("post_transform", -1), "post_transform"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        placed_tree(f);
        f->attrs[rows[i].at] = rows[i].attr;
        refused(f, "TreeEnsemble", 5, rows[i].part);
    }
}

/* ------------------------------------------------------------------ linear models, vector machines, features */

static void test_linear_models(void **state)
{
    struct fixture *f = *state;
    const float x[] = {1, 2, -3, 1};
    const struct qd_tensor in = matrix(x, 2, 2);
    ATTRS(f, FLOATS("coefficients", 1, 0, 0, 1, 1, 1), FLOATS("intercepts", 0, 0, 0.5f),
          INTS("classlabels_ints", 4, 5, 6));
    assert_int_equal(apply(f, "LinearClassifier", 1, &in, 1, 2), QD_OK);
    near(&f->out[1], (const float[]){1, 2, 3.5f, -3, 1, -1.5f}, 6);
    assert_int_equal(((const int64_t *)f->out[0].data)[0], 6);
    assert_int_equal(((const int64_t *)f->out[0].data)[1], 5);
    ATTRS(f, FLOATS("coefficients", 1, 1), INTS("classlabels_ints", 0, 1), FLOATS("intercepts", 0),
          STRING("post_transform", "LOGISTIC"));
    assert_int_equal(apply(f, "LinearClassifier", 1, &in, 1, 2), QD_OK);
    near(&f->out[1], (const float[]){0.0474259f, 0.9525741f, 0.8807971f, 0.1192029f}, 4);
    ATTRS(f, FLOATS("coefficients", 1, 2, 3), INTS("classlabels_ints", 0, 1));
    refused(f, "LinearClassifier", 1, "3 coefficients for 2 targets");
    ATTRS(f, FLOATS("coefficients", 1, 2), INTS("classlabels_ints", 0, 1));
    refused(f, "LinearClassifier", 1, "coefficients for 1 features, rows have 4");
    ATTRS(f, FLOATS("coefficients", 1, 2, 3, 4));
    refused(f, "LinearClassifier", 1, "0 labels");
    ATTRS(f, FLOATS("coefficients", 1, 2, 3, 4), INT("targets", 0));
    refused(f, "LinearRegressor", 1, "targets");
}

static void test_vector_machines(void **state)
{
    struct fixture *f = *state;
    const float x[] = {1, 2};
    const struct qd_tensor in = matrix(x, 1, 2);
    ATTRS(f, FLOATS("support_vectors", 1, 0, 0, 1), FLOATS("coefficients", 2, -1), FLOATS("rho", 0.5f),
          INT("n_supports", 2), STRING("kernel_type", "POLY"), FLOATS("kernel_params", 1, 1, 2));
    assert_int_equal(apply(f, "SVMRegressor", 1, &in, 1, 1), QD_OK);
    near(&f->out[0], (const float[]){2 * 4 - 9 + 0.5f}, 1);
    f->attrs[3] = INT("n_supports", 3);
    refused(f, "SVMRegressor", 1, "3 vectors");
    f->attrs[3] = INT("n_supports", INT64_MAX);
    refused(f, "SVMRegressor", 1, "n_supports");
    ATTRS(f, FLOATS("support_vectors", 1, 0, 0, 1), FLOATS("coefficients", 2, -1), FLOATS("rho", 0.5f),
          INTS("vectors_per_class", 1, 1), INTS("classlabels_ints", 3, 4));
    assert_int_equal(apply(f, "SVMClassifier", 1, &in, 1, 2), QD_OK);
    near(&f->out[1], (const float[]){-0.5f, 0.5f}, 2);
    assert_int_equal(*(const int64_t *)f->out[0].data, 3);
    f->attrs[3] = INTS("vectors_per_class", 3, -1);
    refused(f, "SVMClassifier", 1, "vectors_per_class");
    f->attrs[3] = INTS("vectors_per_class", 1, 2);
    refused(f, "SVMClassifier", 1, "don't fit 3 vectors");
    f->attrs[3] = INTS("vectors_per_class", INT64_MAX, INT64_MAX);
    refused(f, "SVMClassifier", 1, "vectors_per_class");
}

static void test_features(void **state)
{
    struct fixture *f = *state;
    const float x[] = {1, NAN, -3, 4};
    const struct qd_tensor in = matrix(x, 2, 2);
    ATTRS(f, FLOATS("offset", 1), FLOATS("scale", 2, 10));
    assert_int_equal(apply(f, "Scaler", 1, &in, 1, 1), QD_OK);
    near(&f->out[0], (const float[]){0, NAN, -8, 30}, 4);
    ATTRS(f, FLOATS("scale", 1, 2, 3));
    refused(f, "Scaler", 1, "scale has 3 elements, rows have 4");
    ATTRS(f, FLOATS("imputed_value_floats", 8, 9),
          (struct qd_attr){.name = "replaced_value_float", .type = QD_ATTR_FLOAT, .count = 1, .f = NAN});
    assert_int_equal(apply(f, "Imputer", 1, &in, 1, 1), QD_OK);
    near(&f->out[0], (const float[]){1, 9, -3, 4}, 4);
    ATTRS(f, STRING("norm", "L1"));
    const struct qd_tensor row = matrix(x + 2, 1, 2);
    assert_int_equal(apply(f, "Normalizer", 1, &row, 1, 1), QD_OK);
    near(&f->out[0], (const float[]){-3.0f / 7, 4.0f / 7}, 2);
    const int64_t columns[] = {1, 1, 0, 2};
    struct qd_tensor pair[2] = {row, {.dtype = QD_I64, .shape = {1, {3}}, .data = (void *)(uintptr_t)columns}};
    ATTRS(f, STRING("unused", ""));
    assert_int_equal(apply(f, "ArrayFeatureExtractor", 1, pair, 2, 1), QD_OK);
    near(&f->out[0], (const float[]){4, 4, -3}, 3);
    pair[1].shape.dims[0] = 4;
    assert_int_equal(apply(f, "ArrayFeatureExtractor", 1, pair, 2, 1), QD_ERR_INVALID);
    ATTRS(f, INTS("inputdimensions", INT64_MAX));
    refused(f, "FeatureVectorizer", 1, "too large");
    ATTRS(f, INTS("classlabels_int64s", 1, 2, 3));
    refused(f, "ZipMap", 1, "3 labels for 4 columns");
}

/* ------------------------------------------------------------------ categories and strings */

static void words(const struct qd_tensor *t, const char *const *want, size_t n)
{
    assert_int_equal(t->dtype, QD_STR);
    assert_int_equal(qd_tensor_elems(t), n);
    for (size_t i = 0; i < n; i++) {
        const struct qd_string *s = &((const struct qd_string *)t->data)[i];
        if (s->length != strlen(want[i]) || (s->length && memcmp(s->bytes, want[i], s->length) != 0))
            fail_msg("element %zu is '%.*s', not '%s'", i, (int)s->length, s->length ? s->bytes : "", want[i]);
    }
}

static struct qd_tensor strings(const struct qd_string *s, int64_t n)
{
    return (struct qd_tensor){.dtype = QD_STR, .shape = {1, {n}}, .data = (void *)(uintptr_t)s};
}

static void test_encoders(void **state)
{
    struct fixture *f = *state;
    const struct qd_string s[] = {TEXT("b"), TEXT("a"), TEXT("none"), {NULL, 0}};
    const struct qd_tensor in = strings(s, 4);
    ATTRS(f, STRINGS("keys_strings", TEXT("a"), TEXT("b"), TEXT("a"), TEXT("")), INTS("values_int64s", 1, 2, 3, 4),
          INT("default_int64", -7));
    assert_int_equal(apply(f, "LabelEncoder", 2, &in, 1, 1), QD_OK);
    assert_memory_equal(f->out[0].data, ((const int64_t[]){2, 1, -7, 4}), 4 * sizeof(int64_t));
    ATTRS(f, FLOATS("keys_floats", NAN, 2), STRINGS("values_strings", TEXT("nothing"), TEXT("two")));
    const float x[] = {2, NAN, 3};
    const struct qd_tensor numbers = matrix(x, 1, 3);
    assert_int_equal(apply(f, "LabelEncoder", 4, &numbers, 1, 1), QD_OK);
    words(&f->out[0], (const char *const[]){"two", "nothing", "_Unused"}, 3);
    assert_int_equal(apply(f, "LabelEncoder", 4, &in, 1, 1), QD_ERR_TYPE);
    ATTRS(f, FLOATS("keys_floats", 1, 2), STRINGS("values_strings", TEXT("two")));
    refused(f, "LabelEncoder", 4, "2 keys for 1 values");
    ATTRS(f, STRINGS("cats_strings", TEXT("a"), TEXT("b")), INTS("cats_int64s", 8, 9));
    assert_int_equal(apply(f, "CategoryMapper", 1, &in, 1, 1), QD_OK);
    assert_memory_equal(f->out[0].data, ((const int64_t[]){9, 8, -1, -1}), 4 * sizeof(int64_t));
    ATTRS(f, STRINGS("cats_strings", TEXT("a"), TEXT("b")));
    assert_int_equal(apply(f, "OneHotEncoder", 1, &in, 1, 1), QD_OK);
    near(&f->out[0], (const float[]){0, 1, 1, 0, 0, 0, 0, 0}, 8);
    f->attrs[1] = INT("zeros", 0);
    assert_int_equal(apply(f, "OneHotEncoder", 1, &in, 1, 1), QD_ERR_INVALID);
    ATTRS(f, INT("zeros", 0));
    refused(f, "OneHotEncoder", 1, "categories");
}

static void test_strings(void **state)
{
    struct fixture *f = *state;
    const struct qd_string s[] = {TEXT("Ab c"), TEXT(" d  "), {NULL, 0}, TEXT("\xc3\xa9\xff")};
    const struct qd_tensor in = strings(s, 4), pair[2] = {in, strings(s, 1)};
    ATTRS(f, STRING("unused", ""));
    assert_int_equal(apply(f, "StringConcat", 20, pair, 2, 1), QD_OK);
    words(&f->out[0],
          (const char *const[]){"Ab cAb c", " d  Ab c", "Ab c",
                                "\xc3\xa9\xff"
                                "Ab c"},
          4);
    assert_int_equal(apply(f, "StringSplit", 20, &in, 1, 2), QD_OK);
    words(&f->out[0], (const char *const[]){"Ab", "c", "d", "", "", "", "\xc3\xa9\xff", ""}, 8);
    assert_memory_equal(f->out[1].data, ((const int64_t[]){2, 1, 0, 1}), 4 * sizeof(int64_t));
    ATTRS(f, STRING("case_change_action", "UPPER"), STRINGS("stopwords", TEXT(" D  "), TEXT("x")));
    assert_int_equal(apply(f, "StringNormalizer", 10, &in, 1, 1), QD_OK);
    words(&f->out[0], (const char *const[]){"AB C", "", "\xc3\x89\xff"}, 3);
    ATTRS(f, INT("maxsplit", -1));
    assert_int_equal(apply(f, "StringSplit", 20, &in, 1, 2), QD_ERR_INVALID);
}

static void test_casts(void **state)
{
    struct fixture *f = *state;
    const float x[] = {1, -0.5f, 1e20f, NAN, -INFINITY};
    const struct qd_tensor in = matrix(x, 1, 5);
    ATTRS(f, INT("to", 8));
    assert_int_equal(apply(f, "Cast", 13, &in, 1, 1), QD_OK);
    words(&f->out[0], (const char *const[]){"1", "-0.5", "1e+20", "NaN", "-INF"}, 5);
    const struct qd_string s[] = {TEXT("12"), TEXT(" -3"), TEXT("1e2")};
    const struct qd_tensor text = strings(s, 3);
    ATTRS(f, INT("to", 1));
    assert_int_equal(apply(f, "Cast", 13, &text, 1, 1), QD_OK);
    near(&f->out[0], (const float[]){12, -3, 100}, 3);
    ATTRS(f, INT("to", 3));
    assert_int_equal(apply(f, "Cast", 13, &text, 1, 1), QD_OK);
    assert_memory_equal(f->out[0].data, ((const int8_t[]){12, -3, 1}), 3);
    const struct qd_string bad[] = {TEXT("300"), TEXT("x"), {NULL, 0}};
    for (size_t i = 0; i < 3; i++) {
        const struct qd_tensor one = strings(&bad[i], 1);
        assert_int_equal(apply(f, "Cast", 13, &one, 1, 1), QD_ERR_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_trees, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tree_classes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_placed_trees, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hostile_trees, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hostile_placed_trees, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_linear_models, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_vector_machines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_features, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_encoders, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_strings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_casts, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
