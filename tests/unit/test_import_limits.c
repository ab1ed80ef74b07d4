/* Models that are large, deep, damaged, cut off or meet a machine without memory: bounded, and never without a
 * sentence. What the importer makes of sound ones is in test_import.c. */
#include "engine/onnx/import.h"
#include "tests/unit/wire.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define CORPUS "tests/fuzz/corpus/onnx"

static struct qd_error error;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* 10^5 nodes in the worst order, and one node of 10^5 inputs. Quadratic work would take minutes. */
static void test_many_nodes(void **state)
{
    (void)state;
    enum { N = 100000 };
    struct wire g = {0}, sum = node("Sum", NULL, "total", NULL), m;
    char in[16], out[16];
    put_value(&g, 11, "v0");
    for (int i = N; i > 0; i--) {
        snprintf(in, sizeof in, "v%d", i - 1);
        snprintf(out, sizeof out, "v%d", i);
        put_node(&g, "Relu", in, out, NULL);
        put_text(&sum, 1, out);
    }
    put_message(&g, 1, &sum);
    m = model_of(&g, 17);
    size_t size = m.size;
    double start = seconds();
    struct qd_graph *graph = NULL;
    assert_int_equal(qd_onnx_import(m.bytes, m.size, &graph, &error), QD_OK);
    assert_true(seconds() - start < 20);
    assert_int_equal(graph->node_count, N + 1);
    assert_int_equal(graph->nodes[N].in_count, N);
    assert_string_equal(graph->nodes[0].name, "v1");
    assert_true(qd_arena_bytes(graph->arena) < 64 * size);
    qd_graph_destroy(&graph);
    drop(&m);
}

/* Names that cost 3 bytes and would become structs in each of 16 graphs: bounded by the budget, not by luck. */
static void test_memory_is_bounded(void **state)
{
    (void)state;
    struct wire inner = {0}, sum = node("Sum", NULL, "v", NULL), g = {0}, m;
    char name[16];
    for (int i = 0; i < 20000; i++) {
        snprintf(name, sizeof name, "%x", i);
        put_text(&sum, 1, name);
    }
    put_message(&inner, 1, &sum);
    for (int level = 1; level < 16; level++) {
        struct wire n = node("If", NULL, "v", NULL), outer = {0};
        put_attr(&n, "b", 5, 6, &inner);
        put_message(&outer, 1, &n);
        inner = outer;
    }
    g = inner;
    sum = node("Split", NULL, NULL, "all");
    for (int i = 0; i < 20000; i++) {
        snprintf(name, sizeof name, "%x", i);
        put_text(&sum, 2, name);
    }
    put_message(&g, 1, &sum);
    m = model_of(&g, 17);
    struct qd_graph *graph = NULL;
    assert_int_equal(qd_onnx_import(m.bytes, m.size, &graph, &error), QD_ERR_TOO_LARGE);
    assert_non_null(strstr(error.text, "times its file's size in memory"));
    drop(&m);
}

/* A model of about 2 KB with something of everything. */
static struct wire two_kilobytes(void)
{
    unsigned char data[900] = {1, 2, 3};
    struct wire g = relu(), n = node("Conv", "x", "c", "conv"), inner = {0}, m, t, s = {0}, id = opset_id("own", 2);
    t = tensor_proto("w", 1, 2, (int64_t[]){15, 15}, data, sizeof data);
    put_message(&g, 5, &t);
    t = tensor_proto("typed", 7, 1, (int64_t[]){3}, NULL, 0);
    put_bytes(&t, 7, "\1\2\3", 3);
    put_message(&g, 5, &t);
    put_text(&n, 1, "w");
    put_bytes(&s, 8, "\1\1\2\2", 4);
    put_varint(&s, 8, 7);
    struct wire a = {0};
    put_text(&a, 1, "pads");
    put_varint(&a, 20, 7);
    put_raw(&a, s.bytes, s.size);
    drop(&s);
    put_message(&n, 5, &a);
    put_message(&g, 1, &n);
    put_node(&inner, "Mul", "c", "p", "deep");
    put_value(&inner, 12, "p");
    n = node("If", "x", "q", "if");
    put_attr(&n, "then_branch", 5, 6, &inner);
    put_message(&g, 1, &n);
    for (int i = 0; i < 12; i++) {
        char in[16], out[16], name[40];
        snprintf(in, sizeof in, i ? "k%d" : "c", i - 1);
        snprintf(out, sizeof out, "k%d", i);
        snprintf(name, sizeof name, "layer/%d/activation", i);
        put_node(&g, "Sigmoid", in, out, name);
        put_value(&g, 13, out);
    }
    put_value(&g, 12, "k11");
    put_text(&g, 2, "sample");
    m = model_of(&g, 17);
    put_message(&m, 8, &id);
    return m;
}

/* Imports a copy of exactly that size, so that a sanitizer sees a read beyond it. */
static bool judge(const unsigned char *bytes, size_t size)
{
    struct qd_graph *graph = NULL;
    unsigned char *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    if (size)
        memcpy(copy, bytes, size);
    error = (struct qd_error){0};
    enum qd_status status = qd_onnx_import(copy, size, &graph, &error);
    if (status ? graph || error.status != status || !error.text[0] : !graph)
        fail_msg("status %d without a sentence, or with a graph", status);
    if (graph && qd_arena_bytes(graph->arena) > 64 * size + ((size_t)1 << 20))
        fail_msg("%zu bytes of arena for %zu", qd_arena_bytes(graph->arena), size);
    qd_graph_destroy(&graph);
    free(copy);
    return status == QD_OK;
}

static void damage(struct wire *w, bool every_bit)
{
    assert_true(judge(w->bytes, w->size));
    for (size_t i = 0; i < w->size; i++) {
        assert_false(judge(w->bytes, i) && i == 0); /* a cut between two fields of the model may leave a model */
        for (int bit = every_bit ? 0 : 7; bit < 9; bit++) {
            unsigned char flip = (unsigned char)(bit == 8 ? 0xff : 1 << bit);
            w->bytes[i] ^= flip;
            judge(w->bytes, w->size);
            w->bytes[i] ^= flip;
        }
    }
}

static void test_every_flip_and_every_cut(void **state)
{
    (void)state;
    struct wire m = two_kilobytes();
    assert_in_range(m.size, 1800, 2600);
    damage(&m, true);
    drop(&m);
}

static struct wire read_file(const char *path)
{
    struct wire w = {0};
    struct qd_file file;
    assert_int_equal(qd_file_map(path, &file, &error), QD_OK);
    put_raw(&w, file.bytes, file.size);
    qd_file_unmap(&file);
    return w;
}

/* The seeds of the fuzz target: names with bad_ are refused, the others read, and no damage to them does harm. */
static void test_seeds(void **state)
{
    (void)state;
    DIR *folder = opendir(CORPUS);
    int seen = 0;
    if (!folder)
        fail_msg("no " CORPUS ": run this from the repository's root");
    for (struct dirent *entry; (entry = readdir(folder));) {
        char path[512];
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || strcmp(dot, ".onnx") != 0)
            continue;
        snprintf(path, sizeof path, CORPUS "/%s", entry->d_name);
        struct wire w = read_file(path);
        bool good = strncmp(entry->d_name, "bad_", 4) != 0;
        if (judge(w.bytes, w.size) != good)
            fail_msg("%s: %s", entry->d_name, good ? error.text : "was accepted");
        if (good)
            damage(&w, false);
        drop(&w);
        seen++;
    }
    closedir(folder);
    assert_true(seen >= 20);
}

/* Each allocation of the import fails once, and then all after it. */
static void test_memory_runs_out(void **state)
{
    (void)state;
    struct wire m = two_kilobytes();
    for (int persistent = 0; persistent < 2; persistent++) {
        enum qd_status status = QD_ERR_NO_MEMORY;
        int failures = 0;
        for (uint64_t n = 1; status != QD_OK; n++, failures++) {
            struct qd_graph *graph = NULL;
            error = (struct qd_error){0};
            qd_mem_fail_at(n, persistent);
            status = qd_onnx_import(m.bytes, m.size, &graph, &error);
            qd_mem_fail_at(0, false);
            assert_true(status == QD_OK || (status == QD_ERR_NO_MEMORY && error.text[0] && !graph));
            qd_graph_destroy(&graph);
            assert_true(n < 1000);
        }
        assert_true(failures > 5);
    }
    drop(&m);
}

static void test_files(void **state)
{
    (void)state;
    char folder[] = "quantd-test-XXXXXX", path[64];
    struct qd_file file = {0};
    assert_int_equal(qd_file_map("no/such/model.onnx", &file, &error), QD_ERR_NOT_FOUND);
    assert_non_null(strstr(error.text, "'model.onnx'"));
    assert_null(strstr(error.text, "no/"));
    assert_int_equal(qd_file_map("tests", &file, &error), QD_ERR_IO);
    assert_int_equal(qd_file_map("/dev/null", &file, &error), QD_ERR_IO);
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/empty", folder);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fclose(out);
    assert_int_equal(qd_file_map(path, &file, &error), QD_ERR_FORMAT);
    out = fopen(path, "w");
    assert_non_null(out);
    fputs("weights", out);
    fclose(out);
    assert_int_equal(qd_file_map(path, &file, &error), QD_OK);
    assert_int_equal(file.size, 7);
    qd_file_release(&file);
    assert_memory_equal(file.bytes, "weights", 7);
    qd_file_unmap(&file);
    assert_null(file.bytes);
    unlink(path);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_nodes),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_every_flip_and_every_cut),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_memory_runs_out),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
