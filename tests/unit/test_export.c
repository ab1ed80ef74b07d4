/* Exported models, read back by our own importer and run in FP32, where QuantizeLinear and DequantizeLinear do what
 * they say: they give what the model gave in INT8. Every kind of layer, what is folded into it, old opsets, old files;
 * and failures of memory and of whoever takes the bytes. */
#include "tests/unit/model_builder.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <math.h>

static struct qd_engine *engine;

struct taken {
    unsigned char *bytes;
    size_t size, most;
};

static bool take(void *user, const void *bytes, size_t size)
{
    struct taken *t = user;
    if (size > t->most - t->size)
        return false;
    unsigned char *grown = realloc(t->bytes, t->size + size + 1);
    if (!grown)
        return false;
    t->bytes = grown;
    memcpy(t->bytes + t->size, bytes, size);
    t->size += size;
    return true;
}

/* A layer y = op(x, w[, b]) and what follows it. */
static const struct row {
    const char *label, *in, *w, *b, *op, *attributes;
    const char
        *after; /* letters: r Relu, n BatchNormalization, m Mul by a vector, a Add a vector, s Add of the input */
    int outputs;
    uint64_t opset;
    size_t rows, tensors; /* expected of the report */
} rows[] = {
    {"matrix", "5,7", "7,9", NULL, "MatMul", NULL, "", 9, 13, 0, 1},
    {"matrix with bias", "5,7", "7,9", NULL, "MatMul", NULL, "ar", 9, 13, 0, 1},
    {"tokens", "2,3,7", "7,9", NULL, "MatMul", NULL, "a", 9, 13, 1, 0},
    {"gemm", "3,16", "12,16", "12", "Gemm", "transB=1 alpha=0.5 beta=2.0", "r", 12, 13, 0, 1},
    {"conv", "1,3,5,4", "8,3,3,3", "8", "Conv", "pads=[1,1,1,1]", "r", 8, 13, 0, 1},
    {"old", "1,3,5,4", "8,3,3,3", "8", "Conv", "pads=[1,1,1,1]", "nr", 8, 11, 0, 1},
    {"norm", "1,3,5,4", "8,3,3,3", NULL, "Conv", "pads=[1,1,1,1]", "nr", 8, 17, 0, 1},
    {"scaled", "1,4,5,4", "4,4,3,3", "4", "Conv", "pads=[1,1,1,1]", "mas", 4, 13, 0, 1},
    {"grouped", "1,8,3,3", "4,4,3,3", NULL, "Conv", "pads=[1,1,1,1] group=2", "a", 4, 13, 0, 1},
    {"depthwise", "1,6,3,7", "6,1,5,5", "6", "Conv", "pads=[2,2,2,2] group=6", "sr", 6, 13, 0, 1},
    {"tiled", "1,4,3,3", "4,5,2,2", "5", "ConvTranspose", "strides=[2,2]", "r", 5, 13, 0, 1},
    {"transposed", "1,4,3", "4,5,3", NULL, "ConvTranspose", "strides=[2]", "n", 5, 13, 0, 1},
    {"line", "1,4,8", "5,4,3", "5", "Conv", "pads=[1,1]", "r", 5, 13, 0, 1},
};

static void vector(struct qd_mb *b, const char *name, int n, uint64_t seed, bool conv)
{
    float values[64];
    char shape[32];
    for (int i = 0; i < n; i++)
        values[i] = 0.5f + (float)((seed * 7919 + (uint64_t)i * 104729) % 97) / 97.0f;
    snprintf(shape, sizeof shape, conv ? "%d,1,1" : "%d", n);
    qd_mb_constant(b, name, QD_F32, shape, values);
}

static void follow(struct qd_mb *b, const struct row *row, char *last)
{
    const bool conv = strncmp(row->op, "Conv", 4) == 0 && qd_mb_shape(row->in).rank == 4;
    for (size_t i = 0; row->after[i]; i++) {
        char in[96], out[24];
        snprintf(out, sizeof out, "t%zu", i);
        switch (row->after[i]) {
        case 'r':
            qd_mb_node(b, "Relu", last, out, NULL);
            break;
        case 'n':
            for (int k = 0; k < 4; k++)
                vector(b, (const char *[]){"g", "h", "mean", "var"}[k], row->outputs, (uint64_t)k + 3, false);
            snprintf(in, sizeof in, "%s g h mean var", last);
            qd_mb_node(b, "BatchNormalization", in, out, "epsilon=0.001");
            break;
        case 's':
            snprintf(in, sizeof in, "%s x", last);
            qd_mb_node(b, "Add", in, out, NULL);
            break;
        default:
            vector(b, row->after[i] == 'm' ? "factor" : "summand", row->outputs, 5, conv);
            snprintf(in, sizeof in, "%s %s", last, row->after[i] == 'm' ? "factor" : "summand");
            qd_mb_node(b, row->after[i] == 'm' ? "Mul" : "Add", in, out, NULL);
        }
        snprintf(last, 24, "%s", out);
    }
}

static void build(struct qd_mb *b, const struct row *row)
{
    char inputs[32], last[24] = "p";
    qd_mb_input(b, "x", QD_F32, row->in);
    qd_mb_weights(b, "w", row->w, 5, 0.5f);
    if (row->b)
        qd_mb_weights(b, "b", row->b, 9, 0.7f);
    snprintf(inputs, sizeof inputs, "x w%s", row->b ? " b" : "");
    qd_mb_node(b, row->op, inputs, "p", row->attributes);
    follow(b, row, last);
    qd_mb_node(b, "Identity", last, "y", NULL);
    const int rank = qd_mb_shape(row->in).rank;
    qd_mb_output(b, "y", QD_F32, rank == 2 ? "?,?" : rank == 3 ? "?,?,?" : "?,?,?,?");
    qd_mb_finish(b, row->opset);
}

static struct qd_model *load(struct qd_mb *b, enum qd_precision precision, enum qd_scheme scheme)
{
    struct qd_quant_options options = qd_quant_defaults();
    struct qd_error error = {0};
    options.precision = precision;
    options.activation_scheme = scheme;
    struct qd_model *model = qd_mb_load(b, engine, &options, &error);
    if (!model)
        fail_msg("%s", error.text);
    return model;
}

static void write_model(struct qd_model *model, struct taken *taken, struct qd_export_report *report)
{
    struct qd_export *export;
    struct qd_error error = {0};
    *taken = (struct taken){.most = SIZE_MAX};
    assert_int_equal(qd_export_create(model, 0, &export, &error), QD_OK);
    if (qd_export_write(export, take, taken, &error) != QD_OK)
        fail_msg("%s", error.text);
    qd_export_report(export, report);
    qd_export_destroy(&export);
}

/* Largest difference between two answers, and the largest magnitude. */
static float difference(const struct qd_tensor *a, const struct qd_tensor *b, float *most)
{
    const float *x = a->data, *y = b->data;
    float worst = 0;
    assert_true(qd_shape_equal(&a->shape, &b->shape));
    *most = 0;
    for (int64_t i = 0; i < qd_tensor_elems(a); i++) {
        worst = fmaxf(worst, fabsf(x[i] - y[i]));
        *most = fmaxf(*most, fabsf(x[i]));
    }
    return worst;
}

static void check_row(const struct row *row, enum qd_scheme scheme)
{
    struct qd_mb b = {0};
    struct taken taken;
    struct qd_export_report report;
    struct qd_infer_options quiet = {.precision = QD_PRECISION_AUTO, .observe = false};
    struct qd_model *back;
    struct qd_error error = {0};
    float x[512], most;
    build(&b, row);
    struct qd_model *model = load(&b, QD_INT8, scheme);
    struct qd_quant_options options = qd_quant_defaults();
    options.precision = QD_FP32;
    struct qd_shape shape = qd_mb_shape(row->in);
    int64_t elems;
    assert_true(qd_shape_elems(&shape, &elems));
    qd_mb_fill(x, (size_t)elems, 11, 1);
    qd_mb_teach(model, row->in, x, 20);
    write_model(model, &taken, &report);
    if (report.layers != 1 || report.left || report.rows != row->rows || report.tensors != row->tensors)
        fail_msg("%s: %zu layers, %zu by rows, %zu left, %zu tensors", row->label, report.layers, report.rows,
                 report.left, report.tensors);
    if (qd_model_load_memory(engine, "back", taken.bytes, taken.size, &options, &back, &error) != QD_OK)
        fail_msg("%s: %s", row->label, error.text);
    struct qd_infer *ours = qd_mb_run(model, &quiet, row->in, x), *theirs = qd_mb_run(back, NULL, row->in, x);
    const float off = difference(qd_infer_output(ours, 0), qd_infer_output(theirs, 0), &most);
    const float allowed = row->rows ? 0.02f : 3e-5f; /* by rows: what their quantization costs */
    if (!(off <= allowed * most))
        fail_msg("%s: off by %g of %g", row->label, (double)off, (double)most);
    qd_infer_destroy(&ours);
    qd_infer_destroy(&theirs);
    qd_model_unref(&back);
    qd_model_unref(&model);
    qd_mb_free(&b);
    free(taken.bytes);
}

static void test_every_layer(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_row(&rows[i], QD_ASYMMETRIC);
        check_row(&rows[i], QD_SYMMETRIC);
    }
}

/* What an epoch corrected is in the exported bias. */
static void test_corrected_bias(void **state)
{
    (void)state;
    struct qd_mb b = {0};
    struct qd_correction *correction;
    struct qd_export_report report;
    struct taken before, after;
    float x[64];
    const struct row *row = &rows[4];
    build(&b, row);
    struct qd_model *model = load(&b, QD_INT8, QD_ASYMMETRIC);
    qd_mb_fill(x, 60, 11, 1);
    qd_mb_teach(model, row->in, x, 20);
    write_model(model, &before, &report);
    assert_true(qd_model_correction_due(model));
    assert_int_equal(qd_correction_create(model, &correction, NULL), QD_OK);
    qd_correction_run(correction);
    assert_true(qd_correction_finish(&correction));
    write_model(model, &after, &report);
    assert_int_equal(before.size, after.size);
    size_t changed = 0;
    for (size_t i = 0; i < before.size; i++)
        changed += before.bytes[i] != after.bytes[i];
    assert_true(changed > 0 && changed <= 8 * sizeof(int32_t));
    free(before.bytes);
    free(after.bytes);
    qd_model_unref(&model);
    qd_mb_free(&b);
}

static void test_refusals(void **state)
{
    (void)state;
    struct qd_mb b = {0};
    struct qd_export *export;
    struct qd_error error = {0};
    struct taken taken = {.most = SIZE_MAX};
    build(&b, &rows[0]);
    struct qd_model *model = load(&b, QD_INT8, QD_ASYMMETRIC);
    assert_int_equal(qd_export_create(model, 99, &export, &error), QD_ERR_CONFLICT);
    assert_int_equal(qd_export_create(model, 0, &export, &error), QD_OK);
    assert_int_equal(qd_export_write(export, take, &taken, &error), QD_ERR_CONFLICT);
    assert_non_null(strstr(error.text, "'x'"));
    assert_int_equal(taken.size, 0);
    qd_export_destroy(&export);
    qd_model_unref(&model);
    qd_mb_free(&b);
}

/* At every allocation and at every byte: a status, never half a success. */
static void test_failures(void **state)
{
    (void)state;
    struct qd_mb b = {0};
    struct qd_export *export;
    struct qd_export_report report;
    struct qd_error error;
    struct taken whole;
    float x[64];
    build(&b, &rows[6]);
    struct qd_model *model = load(&b, QD_INT8, QD_ASYMMETRIC);
    qd_mb_fill(x, 60, 11, 1);
    qd_mb_teach(model, rows[6].in, x, 20);
    write_model(model, &whole, &report);
    assert_int_equal(qd_export_create(model, 0, &export, &error), QD_OK);
    for (size_t most = 0; most < whole.size; most += 97) {
        struct taken cut = {.most = most};
        assert_int_equal(qd_export_write(export, take, &cut, &error), QD_ERR_IO);
        assert_memory_equal(cut.bytes ? cut.bytes : whole.bytes, whole.bytes, cut.size);
        free(cut.bytes);
    }
    enum qd_status status = QD_ERR_NO_MEMORY;
    for (uint64_t n = 1; status != QD_OK; n++) {
        struct taken taken = {.most = SIZE_MAX};
        qd_mem_fail_at(n, false);
        status = qd_export_write(export, take, &taken, &error);
        qd_mem_fail_at(0, false);
        assert_true(status == QD_OK || status == QD_ERR_NO_MEMORY);
        if (status == QD_OK) {
            assert_int_equal(taken.size, whole.size);
            assert_memory_equal(taken.bytes, whole.bytes, whole.size);
        }
        free(taken.bytes);
    }
    qd_export_destroy(&export);
    qd_model_unref(&model);
    qd_mb_free(&b);
    free(whole.bytes);
}

static int set_up(void **state)
{
    (void)state;
    engine = qd_mb_engine(1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    qd_engine_destroy(&engine);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_layer),
        cmocka_unit_test(test_corrected_bias),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_failures),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
