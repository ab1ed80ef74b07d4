/* Operators of independent rows: integers are equation (8) of the floats, observations see every value, and any number
 * of threads gives the same bytes; reductions of channels-last tensors are those of plain ones. */
#include "engine/ops/op.h"
#include "tests/kernels/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 65536 };

static void backwards(struct qd_parallel *parallel, size_t tasks, void (*fn)(void *ctx, size_t task), void *ctx)
{
    (void)parallel;
    while (tasks-- > 0)
        fn(ctx, tasks);
}

static const struct row {
    const char *op;
    int64_t opset;
    struct qd_attr attr;
    int rank;
    int64_t dims[4];
    int in_count;
    int64_t vector; /* elements of inputs 1 and 2 */
} rows[] = {
    {"LayerNormalization", 17, {.name = "axis", .type = QD_ATTR_INT, .i = -1}, 3, {2, 150, 96}, 3, 96},
    {"LayerNormalization", 17, {.name = "axis", .type = QD_ATTR_INT, .i = 1}, 3, {9, 30, 20}, 2, 1},
    {"RMSNormalization", 23, {.name = "axis", .type = QD_ATTR_INT, .i = -1}, 3, {3, 70, 100}, 2, 100},
    {"Softmax", 13, {.name = "axis", .type = QD_ATTR_INT, .i = -1}, 3, {4, 50, 77}, 1, 0},
    {"Softmax", 13, {.name = "axis", .type = QD_ATTR_INT, .i = 1}, 3, {40, 12, 30}, 1, 0},
    {"LogSoftmax", 11, {.name = "axis", .type = QD_ATTR_INT, .i = 1}, 3, {50, 12, 30}, 1, 0},
    {"InstanceNormalization", 6, {.name = "epsilon", .type = QD_ATTR_FLOAT, .f = 0.01f}, 4, {2, 6, 30, 40}, 3, 6},
    {"GroupNormalization", 21, {.name = "num_groups", .type = QD_ATTR_INT, .i = 3}, 4, {2, 6, 30, 40}, 3, 6},
};

/* Runs into out; with qp as integers. */
static void run(const struct row *r, unsigned threads, const struct qd_qparams *qp, void *out,
                struct qd_observation *seen)
{
    static float x[MOST], vectors[2][128];
    static const int ids[3] = {0, 1, 2};
    struct qd_attr attr = r->attr;
    struct qd_node node = {.name = "node",
                           .op = r->op,
                           .domain = "",
                           .opset = r->opset < 7 ? 7 : r->opset,
                           .in_count = r->in_count,
                           .out_count = 1,
                           .in = ids,
                           .out = ids,
                           .attrs = &attr,
                           .attr_count = 1};
    struct qd_tensor in[3] = {{.dtype = QD_F32, .shape = {.rank = r->rank}, .data = x}}, result = {.dtype = QD_NONE};
    struct qd_parallel parallel = {threads, backwards};
    struct qd_error error = {0};
    struct qd_arena *arena;
    void *prep = NULL;
    uint64_t s = 5;
    memcpy(in[0].shape.dims, r->dims, sizeof r->dims);
    for (size_t i = 0; i < MOST; i++)
        x[i] = draw_f32(&s, 6) + 0.5f;
    for (int i = 1; i < r->in_count; i++) {
        in[i] = (struct qd_tensor){.dtype = QD_F32, .shape = {.rank = 1, .dims = {r->vector}}, .data = vectors[i - 1]};
        for (int64_t j = 0; j < r->vector; j++)
            vectors[i - 1][j] = draw_f32(&s, 2);
    }
    const struct qd_op *op = qd_op_find(&node, &error);
    assert_non_null(op);
    assert_true(op->flags & QD_OP_WRITES_Q8);
    assert_int_equal(qd_arena_create(1 << 16, &arena), QD_OK);
    if (op->prepare)
        assert_int_equal(op->prepare(&node, arena, &prep, &error), QD_OK);
    struct qd_call call = {
        .node = &node, .prep = prep, .in_count = r->in_count, .out_count = 1, .in = in, .out = &result};
    call.kernels = qd_kernels_at(QD_ISA_SCALAR);
    call.parallel = &parallel;
    assert_int_equal(op->infer(&call, &error), QD_OK);
    result.dtype = qp ? QD_U8 : QD_F32;
    result.data = out;
    call.scratch = qd_arena_alloc_raw(arena, op->scratch(&call) + 1);
    call.out_qp = qp;
    call.observe = seen;
    assert_int_equal(op->run(&call, &error), QD_OK);
    qd_arena_destroy(&arena);
}

static void integers(void **state)
{
    (void)state;
    static float real[MOST];
    static uint8_t bytes[2][MOST];
    const struct qd_qparams qp = {.scale = 0.011f, .zero_point = 90, .qmin = 0, .qmax = 255};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        size_t n = 1;
        for (int d = 0; d < r->rank; d++)
            n *= (size_t)r->dims[d];
        assert_true(n <= MOST);
        struct qd_observation want = qd_observation_empty();
        memset(real, 0, sizeof real);
        run(r, 1, NULL, real, NULL);
        for (size_t e = 0; e < n; e++)
            qd_observe_one(&want, real[e], real[e] * (1.0f / qp.scale), &qp);
        for (unsigned threads = 1; threads <= 3; threads += 2) {
            struct qd_observation seen = qd_observation_empty();
            static float again[MOST];
            run(r, threads, &qp, bytes[threads > 1], &seen);
            run(r, threads, NULL, again, NULL);
            assert_true(same_floats(again, real, n));
            if (!same_observation(&seen, &want))
                fail_msg("%s, %u threads: another observation", r->op, threads);
            for (size_t e = 0; e < n; e++)
                if (bytes[threads > 1][e] != qd_requantize_one(real[e], 1.0f / qp.scale, &qp))
                    fail_msg("%s, %u threads: element %zu", r->op, threads, e);
        }
    }
}

/* Every set of axes of a tensor [2, 5, 3, 4] in both layouts, with keepdims. */
static void layouts(void **state)
{
    (void)state;
    static const char *const ops[] = {"ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp"};
    static const int ids[1] = {0};
    float plain[120], last[120], want[120], got[120];
    int64_t axes[4];
    uint64_t s = 3;
    for (int i = 0; i < 120; i++) {
        plain[i] = draw_f32(&s, 4) + 0.25f;
        last[(i / 60 * 12 + i % 12) * 5 + i / 12 % 5] = plain[i];
    }
    for (unsigned set = 1; set < 16; set++) {
        struct qd_attr attr = {.name = "axes", .type = QD_ATTR_INTS, .ints = axes};
        for (int64_t d = 0; d < 4; d++)
            if (set >> d & 1)
                axes[attr.count++] = d;
        for (size_t k = 0; k < sizeof ops / sizeof ops[0]; k++) {
            struct qd_node node = {.name = "node", .op = ops[k], .domain = "", .opset = 13};
            node.in_count = node.out_count = node.attr_count = 1;
            node.in = node.out = ids;
            node.attrs = &attr;
            struct qd_error error = {0};
            struct qd_arena *arena;
            struct qd_parallel parallel = {2, backwards};
            struct qd_tensor out[2];
            void *prep;
            const struct qd_op *op = qd_op_find(&node, &error);
            assert_non_null(op);
            op = op->choose ? op->choose(&node) : op;
            assert_true(op->flags & QD_OP_CHANNELS_LAST);
            assert_int_equal(qd_arena_create(1 << 12, &arena), QD_OK);
            assert_int_equal(op->prepare(&node, arena, &prep, &error), QD_OK);
            for (int l = 0; l < 2; l++) {
                struct qd_tensor in = {.dtype = QD_F32, .shape = {4, {2, 5, 3, 4}}, .data = l ? last : plain};
                in.layout = l ? QD_CHANNELS_LAST : QD_PLAIN;
                struct qd_call call = {.node = &node, .prep = prep, .in_count = 1, .out_count = 1, .in = &in};
                call.out = &out[l];
                call.kernels = qd_kernels_at(QD_ISA_SCALAR);
                call.parallel = &parallel;
                assert_int_equal(op->infer(&call, &error), QD_OK);
                assert_int_equal(out[l].layout, in.layout);
                out[l].data = l ? got : want;
                assert_int_equal(op->run(&call, &error), QD_OK);
            }
            assert_true(qd_shape_equal(&out[0].shape, &out[1].shape));
            const int64_t *dims = out[0].shape.dims;
            for (int64_t i = 0, n = qd_tensor_elems(&out[0]), plane = dims[2] * dims[3]; i < n; i++) {
                int64_t c = i / plane % dims[1], image = i / plane / dims[1];
                float other = got[(image * plane + i % plane) * dims[1] + c];
                if (fabsf(other - want[i]) > 1e-5f * (1 + fabsf(want[i])))
                    fail_msg("%s, axes %x: %.9g, plain %.9g", ops[k], set, (double)other, (double)want[i]);
            }
            qd_arena_destroy(&arena);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(integers), cmocka_unit_test(layouts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
