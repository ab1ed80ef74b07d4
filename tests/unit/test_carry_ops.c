/* Operators of convolutional networks in every form a tensor is carried in: plain floats are the judge (the standard's
 * node tests hold them), channels last and u8 with different scales must say the same, on any number of threads. */
#include "engine/ops/op.h"
#include "engine/plan/convert.h"
#include "tests/kernels/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 3 };

static void backwards(struct qd_parallel *parallel, size_t tasks, void (*fn)(void *ctx, size_t task), void *ctx)
{
    (void)parallel;
    while (tasks-- > 0)
        fn(ctx, tasks);
}

/* A node and its FP32 inputs in plain layout; inputs from `data_count` on are lists that are not carried. */
struct trial {
    struct qd_node node;
    struct qd_attr attrs[8];
    struct qd_tensor in[4];
    int data_count;
    struct qd_arena *arena;
};

static struct trial *trial_new(const char *op, int64_t opset, int in_count, int out_count, int data_count)
{
    static const int ids[4] = {0, 1, 2, 3};
    struct trial *t = test_calloc(1, sizeof *t);
    assert_int_equal(qd_arena_create(1 << 16, &t->arena), QD_OK);
    t->node = (struct qd_node){
        .name = "node", .op = op, .domain = "", .opset = opset, .in_count = in_count, .out_count = out_count};
    t->node.in = t->node.out = ids;
    t->node.attrs = t->attrs;
    t->data_count = data_count;
    return t;
}

static void trial_free(struct trial *t)
{
    qd_arena_destroy(&t->arena);
    test_free(t);
}

static void *space(struct trial *t, size_t bytes)
{
    void *block = qd_arena_alloc_raw(t->arena, bytes + 1);
    assert_non_null(block);
    return block;
}

static void attr_ints(struct trial *t, const char *name, size_t count, const int64_t *ints)
{
    int64_t *copy = space(t, count * sizeof *copy);
    memcpy(copy, ints, count * sizeof *copy);
    t->attrs[t->node.attr_count++] = (struct qd_attr){.name = name, .type = QD_ATTR_INTS, .count = count, .ints = copy};
}

static void attr_int(struct trial *t, const char *name, int64_t value)
{
    t->attrs[t->node.attr_count++] = (struct qd_attr){.name = name, .type = QD_ATTR_INT, .i = value};
}

static void attr_text(struct trial *t, const char *name, const char *text)
{
    t->attrs[t->node.attr_count++] = (struct qd_attr){
        .name = name, .type = QD_ATTR_STRING, .count = 1, .s = {text, strlen(text)}};
}

#define LIST(...)                                                                                                      \
    sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (const int64_t[]) { __VA_ARGS__ }

static void input(struct trial *t, int i, uint64_t *s, size_t rank, const int64_t *dims)
{
    struct qd_tensor *in = &t->in[i];
    *in = (struct qd_tensor){.dtype = QD_F32, .shape = {.rank = (int)rank}};
    memcpy(in->shape.dims, dims, rank * sizeof *dims);
    float *data = in->data = space(t, qd_tensor_bytes(in));
    for (int64_t k = 0; k < qd_tensor_elems(in); k++)
        data[k] = draw_f32(s, 8.0f);
}

static void input_list(struct trial *t, int i, enum qd_dtype dtype, size_t count, const void *list)
{
    t->in[i] = (struct qd_tensor){.dtype = dtype, .shape = {.rank = 1, .dims = {(int64_t)count}}};
    t->in[i].data = space(t, qd_tensor_bytes(&t->in[i]));
    memcpy(t->in[i].data, list, qd_tensor_bytes(&t->in[i]));
}

/* How a run carries its tensors. */
struct way {
    enum qd_layout layout;
    const struct qd_qparams *in_qp[4], *out_qp; /* NULL: floats */
    bool keeps;                                 /* integers in, integers out under the same scale */
    bool all;                                   /* every data input channels last, not only the first */
    unsigned threads;
    enum qd_isa isa;
};

static struct qd_tensor relaid(struct trial *t, const struct qd_tensor *in, enum qd_layout layout)
{
    struct qd_tensor out = *in;
    out.layout = layout;
    out.data = space(t, qd_tensor_bytes(in));
    qd_convert_relayout(qd_kernels_at(QD_ISA_SCALAR), in, &out, NULL);
    return out;
}

/* Runs the node; outputs come back in plain layout. */
static void run(struct trial *t, const struct way *way, struct qd_tensor out[MOST], struct qd_observation *seen)
{
    struct qd_error error = {.status = QD_OK};
    struct qd_tensor in[4];
    struct qd_parallel parallel = {way->threads, backwards};
    struct qd_call call = {.node = &t->node,
                           .in_count = t->node.in_count,
                           .out_count = t->node.out_count,
                           .in = in,
                           .out = out,
                           .kernels = qd_kernels_at(way->isa),
                           .parallel = &parallel};
    void *prep = NULL;
    const struct qd_op *op = qd_op_find(&t->node, &error);
    assert_non_null(op);
    if (op->prepare)
        assert_int_equal(op->prepare(&t->node, t->arena, &prep, &error), QD_OK);
    call.prep = prep;
    memset(out, 0, MOST * sizeof *out);
    for (int i = 0; i < call.in_count; i++) {
        in[i] = t->in[i];
        if (i >= t->data_count)
            continue;
        if (way->in_qp[i]) {
            in[i].dtype = QD_U8;
            in[i].data = space(t, (size_t)qd_tensor_elems(&in[i]));
            call.kernels->quantize_u8(t->in[i].data, (size_t)qd_tensor_elems(&in[i]), way->in_qp[i], in[i].data, NULL);
        }
        if (i == 0 || way->all)
            in[i] = relaid(t, &in[i], way->layout);
        if (way->in_qp[i] && !way->keeps)
            in[i].dtype = QD_F32; /* as a plan has it while it infers */
    }
    if (op->infer(&call, &error))
        fail_msg("%s", error.text);
    for (int i = 0; i < call.in_count; i++)
        in[i].dtype = i < t->data_count && way->in_qp[i] ? QD_U8 : t->in[i].dtype;
    for (int i = 0; i < call.out_count; i++) {
        out[i].dtype = way->out_qp ? QD_U8 : out[i].dtype;
        assert_int_equal(out[i].layout, way->layout);
        out[i].data = space(t, qd_tensor_bytes(&out[i]));
    }
    call.scratch = space(t, op->scratch ? op->scratch(&call) : 0);
    call.in_qp = way->in_qp;
    call.out_qp = way->out_qp;
    call.observe = way->out_qp ? seen : NULL;
    if (op->run(&call, &error))
        fail_msg("%s", error.text);
    for (int i = 0; i < call.out_count; i++)
        out[i] = relaid(t, &out[i], QD_PLAIN);
}

static const struct qd_qparams SCALES[4] = {
    {0.031f, 131, 0, 255}, {0.02f, 90, 0, 255}, {0.044f, 128, 1, 255}, {0.031f, 131, 0, 255}};

/* Data inputs as the integers stand for them: what the judge gets when integers are carried. */
static void through_integers(struct trial *t)
{
    for (int i = 0; i < t->data_count; i++)
        for (int64_t k = 0; k < qd_tensor_elems(&t->in[i]); k++) {
            float *x = (float *)t->in[i].data + k;
            *x = qd_dequantize_one(qd_quantize_one(*x, &SCALES[i]), &SCALES[i]);
        }
}

static void floats_agree(struct trial *t, const struct qd_tensor *a, const struct qd_tensor *b, float tolerance)
{
    for (int o = 0; o < t->node.out_count; o++) {
        assert_true(qd_shape_equal(&a[o].shape, &b[o].shape));
        for (int64_t k = 0; k < qd_tensor_elems(&a[o]); k++) {
            float x = ((const float *)a[o].data)[k], y = ((const float *)b[o].data)[k];
            if (!(x == y || fabsf(x - y) <= tolerance))
                fail_msg("%s: output %d, element %d: %g, not %g", t->node.op, o, (int)k, (double)x, (double)y);
        }
    }
}

static void same_bytes(struct trial *t, const struct qd_tensor *a, const struct qd_tensor *b)
{
    for (int o = 0; o < t->node.out_count; o++)
        assert_true(qd_tensor_bytes(&a[o]) == 0 || memcmp(a[o].data, b[o].data, qd_tensor_bytes(&a[o])) == 0);
}

/* The integers of `got` must be those of the judge's real values, `off` steps aside at most. */
static void integers_agree(struct trial *t, const struct qd_tensor *got, const struct qd_tensor *judge,
                           const struct qd_qparams *qp, int off)
{
    for (int o = 0; o < t->node.out_count; o++)
        for (int64_t k = 0; k < qd_tensor_elems(&got[o]); k++) {
            int q = ((const uint8_t *)got[o].data)[k];
            int wanted = qd_requantize_one(((const float *)judge[o].data)[k], 1.0f / qp->scale, qp);
            if (q < wanted - off || q > wanted + off)
                fail_msg("%s: output %d, element %d: %d, not %d", t->node.op, o, (int)k, q, wanted);
        }
}

enum { MOVES = 1, ALL = 2 };

/* All ways against plain floats. */
static void all_ways(struct trial *t, unsigned flags, float tolerance, int off)
{
    struct qd_tensor judge[MOST], got[MOST], first[MOST];
    run(t, &(struct way){.threads = 1}, judge, NULL);
    for (unsigned isa = 0; isa < QD_ISA_COUNT && qd_kernels_at((enum qd_isa)isa); isa++)
        for (unsigned threads = 1; threads <= 5; threads += 4) {
            struct way way = {
                .layout = QD_CHANNELS_LAST, .all = flags & ALL, .threads = threads, .isa = (enum qd_isa)isa};
            run(t, &way, got, NULL);
            floats_agree(t, got, judge, tolerance);
        }
    through_integers(t);
    run(t, &(struct way){.threads = 1}, judge, NULL);
    for (unsigned isa = 0; isa < QD_ISA_COUNT && qd_kernels_at((enum qd_isa)isa); isa++)
        for (unsigned form = 0; form < 16; form++) {
            const struct qd_qparams *out_qp = form & 1 ? &SCALES[2] : &SCALES[0];
            struct qd_observation seen = qd_observation_empty(), wanted = seen;
            struct way way = {.layout = form & 2 ? QD_CHANNELS_LAST : QD_PLAIN,
                              .all = flags & ALL,
                              .threads = form & 4 ? 5 : 1,
                              .keeps = flags & MOVES,
                              .out_qp = flags & MOVES ? NULL : out_qp,
                              .isa = (enum qd_isa)isa};
            bool mixed = form & 8 && !(flags & MOVES); /* some inputs in floats */
            for (int i = 0; i < t->data_count; i++)
                way.in_qp[i] = mixed && i % 2 == 0 ? NULL : &SCALES[i];
            run(t, &way, got, &seen);
            integers_agree(t, got, judge, flags & MOVES ? &SCALES[0] : out_qp, off);
            if (form == 0 && isa == 0)
                memcpy(first, got, sizeof first);
            else if (form < 8 && (flags & MOVES || !(form & 1)) && off == 0)
                same_bytes(t, got, first);
            if (flags & MOVES)
                continue;
            qd_kernels_at(QD_ISA_SCALAR)
                ->observe_f32(judge[0].data, (size_t)qd_tensor_elems(&judge[0]), out_qp, &wanted);
            assert_true(seen.elems >= wanted.elems && fabsf(seen.min - wanted.min) <= tolerance &&
                        fabsf(seen.max - wanted.max) <= tolerance && seen.nonfinite == 0);
            way.out_qp = NULL; /* integers in, floats out */
            run(t, &way, got, NULL);
            floats_agree(t, got, judge, tolerance);
        }
    trial_free(t);
}

static const int64_t SHAPES[][4] = {{2, 3, 9, 7}, {1, 17, 6, 11}, {2, 64, 5, 5}, {1, 130, 12, 9}, {1, 1, 8, 8}};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof *SHAPES };

static void test_pools(void **state)
{
    (void)state;
    uint64_t s = 5;
    for (size_t k = 0; k < 4 * SHAPE_COUNT; k++)
        for (int average = 0; average < 2; average++) {
            struct trial *t = trial_new(average ? "AveragePool" : "MaxPool", 19, 1, 1, 1);
            input(t, 0, &s, 4, SHAPES[k % SHAPE_COUNT]);
            attr_ints(t, "kernel_shape", LIST(2 + (int64_t)(k % 2), 3));
            attr_ints(t, "strides", LIST(1 + (int64_t)(k % 3), 2));
            attr_ints(t, "pads", LIST(1, 0, 1, 2));
            attr_int(t, "ceil_mode", k & 1);
            if (average)
                attr_int(t, "count_include_pad", k / 2 % 2);
            all_ways(t, average ? 0 : MOVES, average ? 1e-5f : 0, average);
        }
}

static void test_global_pools(void **state)
{
    (void)state;
    uint64_t s = 6;
    for (size_t k = 0; k < SHAPE_COUNT; k++)
        for (int average = 0; average < 2; average++) {
            struct trial *t = trial_new(average ? "GlobalAveragePool" : "GlobalMaxPool", 13, 1, 1, 1);
            input(t, 0, &s, 4, SHAPES[k]);
            all_ways(t, average ? 0 : MOVES, average ? 1e-5f : 0, average);
        }
}

static void test_concat(void **state)
{
    (void)state;
    uint64_t s = 7;
    for (size_t k = 0; k < SHAPE_COUNT; k++)
        for (int axis = 0; axis < 4; axis++) {
            struct trial *t = trial_new("Concat", 13, 4, 1, 4);
            for (int i = 0; i < 4; i++) {
                int64_t dims[4];
                memcpy(dims, SHAPES[k], sizeof dims);
                dims[axis] = i == 2 ? 0 : 1 + (dims[axis] * (i + 1)) % 19;
                input(t, i, &s, 4, dims);
            }
            attr_int(t, "axis", axis - (k % 2 ? 4 : 0));
            all_ways(t, ALL, 0, 0);
        }
}

static void test_slices_and_splits(void **state)
{
    (void)state;
    uint64_t s = 8;
    for (size_t k = 0; k < SHAPE_COUNT; k++)
        for (int64_t axis = 0; axis < 4; axis++) {
            const int64_t dim = SHAPES[k][axis];
            struct trial *t = trial_new("Slice", 13, 4, 1, 1);
            input(t, 0, &s, 4, SHAPES[k]);
            input_list(t, 1, QD_I64, 2, (int64_t[]){dim / 3, 1});
            input_list(t, 2, QD_I64, 2, (int64_t[]){dim - dim / 4, 5});
            input_list(t, 3, QD_I64, 2, (int64_t[]){axis, (axis + 2) % 4});
            all_ways(t, MOVES, 0, 0);
            t = trial_new("Split", 13, 2, 2, 1);
            input(t, 0, &s, 4, SHAPES[k]);
            input_list(t, 1, QD_I64, 2, (int64_t[]){dim / 3, dim - dim / 3});
            attr_int(t, "axis", axis);
            all_ways(t, MOVES, 0, 0);
        }
}

static void test_resizes(void **state)
{
    (void)state;
    uint64_t s = 9;
    static const float scales[][4] = {{1, 1, 2, 2}, {1, 1, 1.5f, 2.7f}, {1, 1, 4, 1}, {1, 1, 0.5f, 0.6f}, {1, 2, 1, 3}};
    static const char *const modes[] = {"nearest", "linear", "cubic"};
    for (size_t k = 0; k < SHAPE_COUNT; k++)
        for (size_t m = 0; m < 3 * 5; m++) {
            struct trial *t = trial_new("Resize", 13, 3, 1, 1);
            input(t, 0, &s, 4, SHAPES[k]);
            input_list(t, 1, QD_F32, 0, scales);
            input_list(t, 2, QD_F32, 4, scales[m / 3]);
            attr_text(t, "mode", modes[m % 3]);
            attr_text(t, "coordinate_transformation_mode", k % 2 ? "asymmetric" : "half_pixel");
            all_ways(t, m % 3 ? 0 : MOVES, m % 3 ? 1e-5f : 0, m % 3 ? 1 : 0);
        }
}

static void test_pads(void **state)
{
    (void)state;
    uint64_t s = 10;
    static const char *const modes[] = {"constant", "edge", "reflect", "constant"};
    const float value = 1.75f;
    for (size_t k = 0; k < SHAPE_COUNT; k++)
        for (int m = 0; m < 4; m++) {
            struct trial *t = trial_new("Pad", 13, m == 3 ? 3 : 2, 1, 1);
            input(t, 0, &s, 4, SHAPES[k]);
            input_list(t, 1, QD_I64, 8, (int64_t[]){0, 0, 2, 1, 0, m == 3 ? 2 : 0, 1, m == 3 ? -1 : 3});
            if (m == 3)
                input_list(t, 2, QD_F32, 1, &value);
            t->in[2].shape.rank = 0;
            attr_text(t, "mode", modes[m]);
            if (m == 3) { /* what is cut off was observed with the rest: elements are more, the range may be wider */
                struct qd_tensor judge[MOST], got[MOST];
                through_integers(t);
                run(t, &(struct way){.threads = 1}, judge, NULL);
                for (unsigned form = 0; form < 4; form++) {
                    struct qd_observation seen = qd_observation_empty();
                    struct way way = {.layout = form & 1 ? QD_CHANNELS_LAST : QD_PLAIN, .threads = 3};
                    way.in_qp[0] = &SCALES[0];
                    way.out_qp = form & 2 ? &SCALES[1] : NULL;
                    run(t, &way, got, &seen);
                    if (way.out_qp)
                        integers_agree(t, got, judge, way.out_qp, 0);
                    else
                        floats_agree(t, got, judge, 0);
                }
                trial_free(t);
            } else {
                all_ways(t, MOVES, 0, 0);
            }
        }
}

static void test_blocks(void **state)
{
    (void)state;
    uint64_t s = 11;
    for (int64_t block = 2; block <= 3; block++)
        for (int c = 1; c < 20; c += 6)
            for (int kind = 0; kind < 4; kind++) {
                bool to_space = kind & 1;
                struct trial *t = trial_new(to_space ? "DepthToSpace" : "SpaceToDepth", 22, 1, 1, 1);
                const int64_t deep[4] = {2, c * block * block, 4, 5}, wide[4] = {2, c, 2 * block, 3 * block};
                input(t, 0, &s, 4, to_space ? deep : wide);
                attr_int(t, "blocksize", block);
                attr_text(t, "mode", kind & 2 ? "CRD" : "DCR");
                all_ways(t, MOVES, 0, 0);
            }
}

/* Every permutation of four dimensions, element by element. */
static void test_transpositions(void **state)
{
    (void)state;
    static const int64_t shapes[][4] = {{2, 3, 21, 70}, {5, 33, 1, 8}, {1, 130, 4, 17}, {4, 4, 4, 4}};
    uint64_t s = 13;
    for (size_t k = 0; k < 4 * 256; k++) {
        int64_t perm[4] = {(int64_t)k & 3, (int64_t)k >> 2 & 3, (int64_t)k >> 4 & 3, (int64_t)k >> 6 & 3};
        if ((1 << perm[0] | 1 << perm[1] | 1 << perm[2] | 1 << perm[3]) != 15)
            continue;
        for (unsigned form = 0; form < 4; form++) {
            struct trial *t = trial_new("Transpose", 13, 1, 1, 1);
            struct way way = {.threads = k % 2 ? 4 : 1, .keeps = true, .isa = form & 1 ? QD_ISA_AVX2 : QD_ISA_SCALAR};
            struct qd_tensor out[MOST];
            if (!qd_kernels_at(way.isa))
                way.isa = QD_ISA_SCALAR;
            const int64_t *dims = shapes[k / 256];
            input(t, 0, &s, 4, dims);
            through_integers(t);
            way.in_qp[0] = form & 2 ? &SCALES[0] : NULL;
            attr_ints(t, "perm", 4, perm);
            run(t, &way, out, NULL);
            for (int64_t i = 0, n = qd_tensor_elems(&t->in[0]); i < n; i++) {
                int64_t at[4], rest = i, to = 0;
                for (int d = 3; d >= 0; d--) {
                    at[d] = rest % dims[d];
                    rest /= dims[d];
                }
                for (int d = 0; d < 4; d++)
                    to = to * dims[perm[d]] + at[perm[d]];
                float x = ((const float *)t->in[0].data)[i];
                assert_true(form & 2 ? ((const uint8_t *)out[0].data)[to] == qd_quantize_one(x, &SCALES[0])
                                     : ((const float *)out[0].data)[to] == x);
            }
            trial_free(t);
        }
    }
}

/* ------------------------------------------------------------------ conversions of a plan */

static void test_conversions(void **state)
{
    (void)state;
    static const int64_t shapes[][4] = {{1, 3, 224, 225}, {2, 24, 33, 31}, {3, 7, 1, 1}, {1, 1, 9, 9}, {2, 300, 7, 7}};
    uint64_t s = 12;
    for (size_t k = 0; k < 5; k++)
        for (unsigned form = 0; form < 12; form++) {
            const struct qd_kernels *kernels = qd_kernels_at((enum qd_isa)(form % 3));
            struct qd_parallel parallel = {form < 6 ? 1 : 4, backwards};
            if (!kernels)
                continue;
            struct trial *t = trial_new("Identity", 13, 1, 1, 1);
            input(t, 0, &s, 4, shapes[k]);
            struct qd_tensor *plain = &t->in[0], last = relaid(t, plain, QD_CHANNELS_LAST);
            struct qd_tensor q = *plain, ql, back = *plain, from = form & 1 ? last : *plain;
            size_t n = (size_t)qd_tensor_elems(plain), channels = (size_t)shapes[k][1],
                   span = (size_t)(shapes[k][2] * shapes[k][3]);
            for (size_t i = 0; i < n; i++) { /* against plain arithmetic */
                size_t image = i / channels / span, c = i / span % channels, at = i % span;
                assert_true(((float *)last.data)[(image * span + at) * channels + c] == ((float *)plain->data)[i]);
            }
            void *scratch = space(t, n);
            struct qd_observation seen = qd_observation_empty(), wanted = seen;
            kernels->observe_f32(plain->data, n, &SCALES[1], &wanted);
            q.dtype = QD_U8;
            q.layout = form & 2 ? QD_CHANNELS_LAST : QD_PLAIN;
            q.data = space(t, n);
            qd_convert_quantize(kernels, &from, &q, &SCALES[1], &seen, scratch, &parallel);
            assert_true(same_observation(&seen, &wanted));
            ql = relaid(t, &q, QD_PLAIN);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(((uint8_t *)ql.data)[i], qd_quantize_one(((const float *)plain->data)[i], &SCALES[1]));
            back.layout = form & 1 ? QD_CHANNELS_LAST : QD_PLAIN;
            back.data = space(t, n * sizeof(float));
            qd_convert_dequantize(kernels, &q, &back, &SCALES[1], scratch, &parallel);
            back = relaid(t, &back, QD_PLAIN);
            for (size_t i = 0; i < n; i++)
                assert_true(((float *)back.data)[i] == qd_dequantize_one(((uint8_t *)ql.data)[i], &SCALES[1]));
            trial_free(t);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pools),   cmocka_unit_test(test_global_pools),      cmocka_unit_test(test_concat),
        cmocka_unit_test(test_resizes), cmocka_unit_test(test_slices_and_splits), cmocka_unit_test(test_pads),
        cmocka_unit_test(test_blocks),  cmocka_unit_test(test_conversions),       cmocka_unit_test(test_transpositions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
