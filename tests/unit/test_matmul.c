/* MatMul of two activations: broadcast batches, vectors, many columns and rows, against plain sums; threads change
 * nothing. */
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

enum { MOST = 1 << 18 };

static float a[MOST], b[MOST], one[MOST], three[MOST];

static const struct {
    const char *a, *b, *batch; /* the batch's dimensions, padded to two */
    int m, k, n;
} cases[] = {
    {"3,4,5", "3,5,6", "1,3", 4, 5, 6},
    {"2,1,7,9", "3,9,33", "2,3", 7, 9, 33},
    {"4,17", "2,17,5", "1,2", 4, 17, 5},
    {"1,3,2,8", "2,1,8,70", "2,3", 2, 8, 70},
    {"9", "9,40", "1,1", 1, 9, 40},
    {"5,9", "9", "1,1", 5, 9, 1},
    {"300,20", "20,600", "1,1", 300, 20, 600},
    {"2,3,200,11", "11,13", "2,3", 200, 11, 13},
    {"130,64", "64,32", "1,1", 130, 64, 32},
};

/* y of A and B as two inputs. */
static size_t run(const char *a_shape, const char *b_shape, unsigned threads, float *out)
{
    struct qd_engine *engine = qd_mb_engine(threads);
    struct qd_infer_options options = qd_infer_defaults();
    struct qd_error error = {0};
    struct qd_infer *infer;
    struct qd_mb m = {0};
    const char *shapes[] = {a_shape, b_shape};
    qd_mb_input(&m, "a", QD_F32, a_shape);
    qd_mb_input(&m, "b", QD_F32, b_shape);
    qd_mb_node(&m, "MatMul", "a b", "y", NULL);
    qd_mb_output(&m, "y", QD_F32, "");
    qd_mb_finish(&m, 13);
    struct qd_model *model = qd_mb_load(&m, engine, NULL, &error);
    assert_non_null(model);
    assert_int_equal(qd_infer_create(model, &options, &infer, &error), QD_OK);
    for (size_t i = 0; i < 2; i++) {
        struct qd_shape shape = qd_mb_shape(shapes[i]);
        int64_t elems;
        void *data;
        assert_true(qd_shape_elems(&shape, &elems));
        assert_int_equal(qd_infer_input_alloc(infer, i, QD_F32, &shape, &data, &error), QD_OK);
        memcpy(data, i ? b : a, (size_t)elems * sizeof(float));
    }
    assert_int_equal(qd_infer_prepare(infer, &error), QD_OK);
    struct qd_infer *const lanes[] = {infer};
    qd_infer_run(lanes, 1);
    qd_infer_finish(infer);
    const struct qd_tensor *t = qd_infer_output(infer, 0);
    size_t n = (size_t)qd_tensor_elems(t);
    assert_true(n <= MOST);
    memcpy(out, t->data, n * sizeof *out);
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_mb_free(&m);
    qd_engine_destroy(&engine);
    return n;
}

/* How often a shape's matrices repeat along the two batch dimensions: strides in matrices. */
static void batch_strides(const char *text, int strides[2])
{
    struct qd_shape shape = qd_mb_shape(text);
    int64_t d0 = shape.rank > 3 ? shape.dims[shape.rank - 4] : 1, d1 = shape.rank > 2 ? shape.dims[shape.rank - 3] : 1;
    strides[1] = d1 > 1 ? 1 : 0;
    strides[0] = d0 > 1 ? (int)d1 : 0;
}

static void test_products(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct qd_shape batch = qd_mb_shape(cases[c].batch);
        int m = cases[c].m, k = cases[c].k, n = cases[c].n, sa[2], sb[2];
        qd_mb_fill(a, MOST, c + 1, 1);
        qd_mb_fill(b, MOST, c + 100, 1);
        batch_strides(cases[c].a, sa);
        batch_strides(cases[c].b, sb);
        assert_int_equal(run(cases[c].a, cases[c].b, 1, one), batch.dims[0] * batch.dims[1] * m * n);
        for (int64_t i = 0; i < batch.dims[0] * batch.dims[1] * m * n; i++) {
            int64_t matrix = i / (m * n), row = i / n % m, column = i % n, b0 = matrix / batch.dims[1];
            int64_t b1 = matrix % batch.dims[1], at = (b0 * sa[0] + b1 * sa[1]) * m * k + row * k;
            int64_t bt = (b0 * sb[0] + b1 * sb[1]) * k * n + column;
            double want = 0;
            for (int p = 0; p < k; p++)
                want += (double)a[at + p] * (double)b[bt + (int64_t)p * n];
            if (fabs(want - (double)one[i]) > 1e-4)
                fail_msg("%s by %s: element %d is %g, not %g", cases[c].a, cases[c].b, (int)i, (double)one[i], want);
        }
        size_t elems = run(cases[c].a, cases[c].b, 3, three);
        assert_memory_equal(one, three, elems * sizeof *one);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_products)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
