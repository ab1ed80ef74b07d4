/* The writer of protocol buffers against the reader: every kind of field, messages within messages, and sinks that stop
 * taking bytes. */
#include "engine/onnx/reader.h"
#include "engine/onnx/writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

struct sink {
    unsigned char bytes[4096];
    size_t size, most;
};

static bool take(void *user, const void *bytes, size_t size)
{
    struct sink *sink = user;
    if (size > sink->most - sink->size)
        return false;
    memcpy(sink->bytes + sink->size, bytes, size);
    sink->size += size;
    return true;
}

static const uint64_t numbers[] = {0, 1, 127, 128, 300, 16383, 16384, UINT32_MAX, 1ull << 63, UINT64_MAX};
enum { NUMBERS = sizeof numbers / sizeof numbers[0] };

struct nest {
    int depth;
    size_t padding; /* bytes in the innermost */
};

static void emit(struct qd_writer *w, const void *context)
{
    const struct nest *n = context;
    qd_write_varint(w, 1, (uint64_t)n->depth);
    if (n->depth > 0) {
        qd_write_message(w, 2, emit, &(struct nest){n->depth - 1, n->padding});
        return;
    }
    qd_write_head(w, 3, n->padding);
    if (!w->put) {
        qd_write_pass(w, n->padding);
        return;
    }
    for (size_t i = 0; i < n->padding; i++)
        qd_write_raw(w, "x", 1);
}

static void test_fields(void **state)
{
    (void)state;
    struct sink sink = {.most = sizeof sink.bytes};
    struct qd_writer w = {.put = take, .user = &sink}, length = {.put = NULL};
    struct qd_writer *both[] = {&w, &length};
    for (int b = 0; b < 2; b++) {
        for (int i = 0; i < NUMBERS; i++) {
            qd_write_varint(both[b], (uint32_t)i + 1, numbers[i]);
            qd_write_fixed32(both[b], 100 + (uint32_t)i, (uint32_t)numbers[i]);
            qd_write_fixed64(both[b], (1u << 29) - 1, numbers[i]);
        }
        qd_write_text(both[b], 7, "text");
        qd_write_bytes(both[b], 8, NULL, 0);
    }
    assert_true(!w.failed && w.size == sink.size && length.size == w.size);
    struct qd_cursor cursor = qd_cursor_make(sink.bytes, sink.size);
    struct qd_wire_field field;
    for (int i = 0; i < NUMBERS; i++) {
        assert_true(qd_wire_next(&cursor, &field));
        assert_true(field.number == (uint32_t)i + 1 && field.type == QD_WIRE_VARINT && field.value == numbers[i]);
        assert_true(qd_wire_next(&cursor, &field));
        assert_true(field.number == 100 + (uint32_t)i && field.type == QD_WIRE_FIXED32);
        assert_true(field.value == (uint32_t)numbers[i]);
        assert_true(qd_wire_next(&cursor, &field));
        assert_true(field.number == (1u << 29) - 1 && field.type == QD_WIRE_FIXED64 && field.value == numbers[i]);
    }
    assert_true(qd_wire_next(&cursor, &field) && field.number == 7 && field.bytes.length == 4);
    assert_memory_equal(field.bytes.bytes, "text", 4);
    assert_true(qd_wire_next(&cursor, &field) && field.number == 8 && field.bytes.length == 0);
    assert_true(!qd_wire_next(&cursor, &field) && !cursor.bad);
}

static void test_nested(void **state)
{
    (void)state;
    static const size_t paddings[] = {0, 1, 126, 127, 128, 3000}; /* lengths of one byte and of two, at every level */
    for (size_t p = 0; p < sizeof paddings / sizeof paddings[0]; p++) {
        struct sink sink = {.most = sizeof sink.bytes};
        struct qd_writer w = {.put = take, .user = &sink};
        emit(&w, &(struct nest){5, paddings[p]});
        assert_true(!w.failed && w.size == sink.size);
        struct qd_cursor cursor = qd_cursor_make(sink.bytes, sink.size);
        struct qd_wire_field field;
        for (int depth = 5; depth >= 0; depth--) {
            assert_true(qd_wire_next(&cursor, &field) && field.number == 1 && field.value == (uint64_t)depth);
            assert_true(qd_wire_next(&cursor, &field) && field.number == (depth ? 2u : 3u));
            assert_int_equal(qd_cursor_left(&cursor), 0);
            cursor = qd_wire_open(field.bytes);
        }
        assert_int_equal(field.bytes.length, paddings[p]);
    }
}

static void test_a_sink_that_stops(void **state)
{
    (void)state;
    struct sink whole = {.most = sizeof whole.bytes};
    struct qd_writer w = {.put = take, .user = &whole};
    emit(&w, &(struct nest){3, 40});
    for (size_t most = 0; most < whole.size; most++) {
        struct sink sink = {.most = most};
        struct qd_writer cut = {.put = take, .user = &sink};
        emit(&cut, &(struct nest){3, 40});
        assert_true(cut.failed && sink.size <= most);
        assert_memory_equal(sink.bytes, whole.bytes, sink.size);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_nested),
        cmocka_unit_test(test_a_sink_that_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
