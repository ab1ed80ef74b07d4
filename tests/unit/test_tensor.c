/* Element types, shapes, and single tensors of the format: what is stored must be what the shape says. */
#include "engine/onnx/import.h"
#include "tests/unit/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void test_dtypes(void **state)
{
    (void)state;
    for (int i = 1; i < QD_DTYPE_COUNT; i++) {
        enum qd_dtype dtype = (enum qd_dtype)i;
        assert_int_equal(qd_dtype_from_onnx(qd_dtype_to_onnx(dtype)), dtype);
        assert_int_equal(qd_dtype_from_name(qd_dtype_name(dtype), strlen(qd_dtype_name(dtype))), dtype);
        assert_int_not_equal(qd_dtype_bytes(dtype), 0);
    }
    assert_int_equal(qd_dtype_bytes(QD_F32), 4);
    assert_int_equal(qd_dtype_to_onnx(QD_I64), 7);
    assert_int_equal(qd_dtype_from_name("FP321", 4), QD_F32);
    assert_int_equal(qd_dtype_from_name("FP3", 3), QD_NONE);
    assert_int_equal(qd_dtype_from_name("", 0), QD_NONE);
    assert_int_equal(qd_dtype_from_onnx(0), QD_NONE);
    assert_int_equal(qd_dtype_from_onnx(22), QD_NONE);
    assert_int_equal(qd_dtype_from_onnx(-1), QD_NONE);
    assert_string_equal(qd_dtype_name(QD_NONE), "");
    assert_string_equal(qd_dtype_name((enum qd_dtype)999), "");
    assert_int_equal(qd_dtype_bytes((enum qd_dtype) - 1), 0);
}

static void test_shape_elems(void **state)
{
    (void)state;
    static const struct {
        struct qd_shape shape;
        bool ok;
        int64_t elems;
    } cases[] = {
        {{0, {0}}, true, 1},
        {{2, {3, 4}}, true, 12},
        {{3, {3, 0, 4}}, true, 0},
        {{1, {-1}}, false, 0},
        {{2, {0, -1}}, false, 0},
        {{1, {INT64_MAX}}, true, INT64_MAX},
        {{2, {(int64_t)1 << 32, (int64_t)1 << 31}}, false, 0},
        {{3, {0, (int64_t)1 << 62, (int64_t)1 << 62}}, false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t elems = -5;
        assert_int_equal(qd_shape_elems(&cases[i].shape, &elems), cases[i].ok);
        if (cases[i].ok)
            assert_true(elems == cases[i].elems);
    }
}

static void test_shape_helpers(void **state)
{
    (void)state;
    char text[64], tiny[6];
    struct qd_shape a = {3, {1, -1, 224}}, b = {3, {1, 3, 224}}, scalar = {0, {0}};
    assert_string_equal(qd_shape_text(&a, text, sizeof text), "[1, ?, 224]");
    assert_string_equal(qd_shape_text(&scalar, text, sizeof text), "[]");
    qd_shape_text(&a, tiny, sizeof tiny);
    assert_string_equal(tiny, "[1, ?");
    assert_true(qd_shape_equal(&a, &a) && !qd_shape_equal(&a, &b) && !qd_shape_equal(&a, &scalar));
    assert_true(qd_shape_known(&b) && !qd_shape_known(&a) && qd_shape_known(&scalar));
    assert_int_equal(qd_shape_span(&b, 1, 3), 672);
    assert_int_equal(qd_shape_span(&b, 2, 2), 1);
    struct qd_tensor t = {.dtype = QD_F16, .shape = b};
    assert_int_equal(qd_tensor_elems(&t), 672);
    assert_int_equal(qd_tensor_bytes(&t), 1344);
}

/* ---------------------------------------------------------------- TensorProto */

struct fixture {
    struct qd_arena *arena;
    struct qd_error error;
    struct qd_tensor tensor;
    const char *name;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    *state = f;
    return f ? (int)qd_arena_create(1024, &f->arena) : 1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    qd_arena_destroy(&f->arena);
    free(f);
    return 0;
}

static enum qd_status read_tensor(struct fixture *f, const struct wire *w)
{
    f->error = (struct qd_error){0};
    return qd_onnx_tensor(w->bytes, w->size, f->arena, &f->tensor, &f->name, &f->error);
}

static void refuse(struct fixture *f, struct wire *w, enum qd_status status, const char *sentence)
{
    enum qd_status got = read_tensor(f, w);
    if (got != status || !strstr(f->error.text, sentence))
        fail_msg("status %d, not '%s' but: %s", got, sentence, f->error.text);
    drop(w);
}

/* The same bytes at each of eight offsets: where they are aligned the tensor views them, elsewhere it is a copy. */
static void test_raw_data_are_viewed_when_aligned(void **state)
{
    struct fixture *f = *state;
    double numbers[] = {1.5, -2};
    struct wire w = tensor_proto("d", 11, 1, (int64_t[]){2}, numbers, sizeof numbers);
    unsigned char *room = aligned_alloc(64, 192);
    int views = 0;
    assert_non_null(room);
    for (size_t offset = 0; offset < 8; offset++) {
        memcpy(room + offset, w.bytes, w.size);
        assert_int_equal(qd_onnx_tensor(room + offset, w.size, f->arena, &f->tensor, &f->name, &f->error), QD_OK);
        bool view = (unsigned char *)f->tensor.data >= room && (unsigned char *)f->tensor.data < room + 192;
        views += view;
        assert_int_equal((uintptr_t)f->tensor.data % sizeof(double), 0);
        assert_memory_equal(f->tensor.data, numbers, sizeof numbers);
    }
    assert_int_equal(views, 1);
    assert_string_equal(f->name, "d");
    assert_int_equal(f->tensor.dtype, QD_F64);
    free(room);
    drop(&w);
}

static struct wire typed(int type, int64_t elems)
{
    struct wire w = {0};
    put_varint(&w, 1, (uint64_t)elems);
    put_varint(&w, 2, (uint64_t)type);
    put_text(&w, 8, "t");
    return w;
}

static void expect(struct fixture *f, struct wire *w, const void *data, size_t bytes)
{
    if (read_tensor(f, w) != QD_OK)
        fail_msg("%s", f->error.text);
    assert_int_equal(qd_tensor_bytes(&f->tensor), bytes);
    assert_memory_equal(f->tensor.data, data, bytes);
    drop(w);
}

static void test_typed_fields(void **state)
{
    struct fixture *f = *state;
    float f32[] = {1, -2};
    struct wire w = typed(1, 2);
    put_bytes(&w, 4, f32, sizeof f32);
    expect(f, &w, f32, sizeof f32);
    w = typed(1, 2);
    put_float(&w, 4, 1);
    put_float(&w, 4, -2);
    expect(f, &w, f32, sizeof f32);
    static const struct {
        int type;
        unsigned field;
        int64_t values[2];
        unsigned char bytes[16];
        size_t size;
    } cases[] = {
        {3, 5, {-128, 127}, {0x80, 0x7f}, 2},
        {2, 5, {255, 0}, {0xff, 0}, 2},
        {5, 5, {-2, 258}, {0xfe, 0xff, 2, 1}, 4},
        {4, 5, {65535, 1}, {0xff, 0xff, 1, 0}, 4},
        {6, 5, {-1, 16909060}, {0xff, 0xff, 0xff, 0xff, 4, 3, 2, 1}, 8},
        {9, 5, {1, 0}, {1, 0}, 2},
        {10, 5, {0x3c00, 0xbc00}, {0, 0x3c, 0, 0xbc}, 4},
        {16, 5, {0x3f80, 0}, {0x80, 0x3f, 0, 0}, 4},
        {7, 7, {-2, 1}, {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0}, 16},
        {12, 11, {4294967295, 1}, {0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0}, 8},
        {13, 11, {-1, 1}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0}, 16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int packed = 0; packed < 2; packed++) {
            struct wire list = {0};
            w = typed(cases[i].type, 2);
            for (int k = 0; k < 2; k++)
                if (packed)
                    put_number(&list, (uint64_t)cases[i].values[k]);
                else
                    put_varint(&w, cases[i].field, (uint64_t)cases[i].values[k]);
            if (packed)
                put_message(&w, cases[i].field, &list);
            expect(f, &w, cases[i].bytes, cases[i].size);
        }
}

static void test_values_a_type_can_not_hold(void **state)
{
    struct fixture *f = *state;
    static const struct {
        int type;
        unsigned field;
        int64_t value;
        const char *dtype;
    } cases[] = {
        {3, 5, 128, "INT8"}, {3, 5, -129, "INT8"},   {2, 5, -1, "UINT8"},  {5, 5, 32768, "INT16"},
        {9, 5, 2, "BOOL"},   {10, 5, 65536, "FP16"}, {4, 5, -1, "UINT16"}, {12, 11, (int64_t)1 << 32, "UINT32"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char sentence[64];
        struct wire w = typed(cases[i].type, 1);
        put_varint(&w, cases[i].field, (uint64_t)cases[i].value);
        snprintf(sentence, sizeof sentence, "data is not a value of %s", cases[i].dtype);
        refuse(f, &w, QD_ERR_FORMAT, sentence);
    }
}

static void test_any_true_becomes_one(void **state)
{
    struct fixture *f = *state;
    struct wire w = tensor_proto("b", 9, 1, (int64_t[]){4}, "\0\1\2\xff", 4);
    expect(f, &w, "\0\1\1\1", 4);
}

static void test_amounts_that_do_not_fit(void **state)
{
    struct fixture *f = *state;
    static const int64_t square[] = {2, 2}, big[] = {(int64_t)1 << 40, (int64_t)1 << 40},
                         wrap[] = {(int64_t)1 << 62, 1};
    static const int64_t negative[] = {-2, -2}, none[] = {0, 5}, bad_none[] = {0, -1},
                         nine[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    static const unsigned char bytes[32];
    struct wire w = tensor_proto("t", 1, 2, square, bytes, 15);
    refuse(f, &w, QD_ERR_FORMAT, "tensor 't': raw_data has 15 bytes, shape [2, 2] of FP32 needs 16");
    w = tensor_proto("t", 1, 2, square, bytes, 17);
    refuse(f, &w, QD_ERR_FORMAT, "raw_data has 17 bytes");
    w = tensor_proto("t", 1, 2, square, NULL, 0);
    refuse(f, &w, QD_ERR_FORMAT, "0 elements stored, shape [2, 2] needs 4");
    w = tensor_proto("t", 1, 2, big, bytes, 0);
    refuse(f, &w, QD_ERR_FORMAT, "product of its dimensions is too large");
    w = tensor_proto("t", 1, 2, wrap, bytes, 0); /* the elements can be counted, their bytes can not */
    refuse(f, &w, QD_ERR_FORMAT, "product of its dimensions is too large");
    w = tensor_proto("t", 1, 2, negative, bytes, 16);
    refuse(f, &w, QD_ERR_FORMAT, "dimension 0 is negative");
    w = tensor_proto("t", 1, 2, bad_none, bytes, 0);
    refuse(f, &w, QD_ERR_FORMAT, "dimension 1 is negative");
    w = tensor_proto("t", 1, 9, nine, bytes, 4);
    refuse(f, &w, QD_ERR_UNSUPPORTED, "rank 9");
    w = tensor_proto("t", 1, 2, square, bytes, 16);
    put_float(&w, 4, 1);
    refuse(f, &w, QD_ERR_FORMAT, "raw_data and typed data at once");
    w = tensor_proto("t", 1, 2, square, NULL, 0);
    put_varint(&w, 7, 1);
    refuse(f, &w, QD_ERR_FORMAT, "int64_data can't hold elements of FP32");
    w = tensor_proto("t", 1, 2, none, NULL, 0);
    assert_int_equal(read_tensor(f, &w), QD_OK);
    assert_null(f->tensor.data);
    drop(&w);
    w = typed(7, 1);
    put_bytes(&w, 7, "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11); /* counts as one value and is none */
    refuse(f, &w, QD_ERR_FORMAT, "malformed int64_data");
}

static void test_refused_kinds(void **state)
{
    struct fixture *f = *state;
    static const struct {
        int type;
        enum qd_status status;
        const char *sentence;
    } cases[] = {{17, QD_ERR_UNSUPPORTED, "type FLOAT8E4M3FN is not supported"},
                 {22, QD_ERR_UNSUPPORTED, "tensor 't': type INT4 is not supported"},
                 {14, QD_ERR_UNSUPPORTED, "type COMPLEX64"},
                 {28, QD_ERR_UNSUPPORTED, "type FLOAT6E3M2"},
                 {29, QD_ERR_UNSUPPORTED, "unknown data type 29"},
                 {-1, QD_ERR_UNSUPPORTED, "unknown data type -1"},
                 {0, QD_ERR_FORMAT, "has no data type"},
                 {8, QD_ERR_FORMAT, "0 elements stored, shape [1] needs 1"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct wire w = typed(cases[i].type, 1);
        refuse(f, &w, cases[i].status, cases[i].sentence);
    }
    struct wire w = typed(1, 1), entry = {0};
    put_text(&entry, 1, "location");
    put_text(&entry, 2, "../secret");
    put_message(&w, 13, &entry);
    refuse(f, &w, QD_ERR_FORMAT, "tensor 't': external_data and data_location don't agree");
    w = typed(1, 1);
    put_varint(&w, 14, 1);
    refuse(f, &w, QD_ERR_UNSUPPORTED, "data lie in another file");
    w = typed(1, 1);
    put_bytes(&w, 3, "", 0);
    refuse(f, &w, QD_ERR_UNSUPPORTED, "segments");
    w = typed(1, 1);
    put_varint(&w, 9, 1); /* raw_data as a number */
    refuse(f, &w, QD_ERR_FORMAT, "tensor 't': malformed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtypes),
        cmocka_unit_test(test_shape_elems),
        cmocka_unit_test(test_shape_helpers),
        cmocka_unit_test_setup_teardown(test_raw_data_are_viewed_when_aligned, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_typed_fields, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_values_a_type_can_not_hold, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_any_true_becomes_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_amounts_that_do_not_fit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused_kinds, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
