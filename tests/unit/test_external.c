/* External data: found beneath the model's folder by either road, refused by every other way, bounds kept. */
#include "engine/engine.h"
#include "engine/onnx/external.h"
#include "tests/unit/model_builder.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char top[64], folder[96]; /* folder: <top>/model */

static void write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int setup(void **state)
{
    (void)state;
    float numbers[64];
    char path[256];
    for (int i = 0; i < 64; i++)
        numbers[i] = (float)i;
    snprintf(top, sizeof top, "%s/external-XXXXXX", P_tmpdir);
    assert_non_null(mkdtemp(top));
    snprintf(folder, sizeof folder, "%s/model", top);
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(mkdir(in_folder("deep"), 0700), 0);
    write_file(in_folder("data.bin"), numbers, sizeof numbers);
    write_file(in_folder("deep/data.bin"), numbers, sizeof numbers);
    write_file(in_folder("twin.bin"), numbers, sizeof numbers);
    snprintf(path, sizeof path, "%s/outside.bin", top);
    write_file(path, numbers, sizeof numbers);
    assert_int_equal(symlink(path, in_folder("link.bin")), 0);
    assert_int_equal(symlink("data.bin", in_folder("inner.bin")), 0);
    assert_int_equal(symlink("..", in_folder("up")), 0);
    snprintf(path, sizeof path, "%s/other.bin", top);
    assert_int_equal(link(in_folder("twin.bin"), path), 0);
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    static const char *const names[] = {"model/deep/data.bin", "model/data.bin", "model/twin.bin", "model/link.bin",
                                        "model/inner.bin",     "model/up",       "model/pipe",     "model/m.onnx",
                                        "outside.bin",         "other.bin"};
    char path[256];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", top, names[i]);
        unlink(path);
    }
    rmdir(in_folder("deep"));
    rmdir(folder);
    return rmdir(top);
}

static void put_entry(struct wire *tensor, const char *key, const char *value)
{
    struct wire entry = {0};
    put_text(&entry, 1, key);
    put_text(&entry, 2, value);
    put_message(tensor, 13, &entry);
}

/* x + c, c a constant [4] in another file. NULL: leave the key out. */
static void put_model(struct qd_mb *b, const char *location, const char *offset, const char *length, const char *more)
{
    struct wire tensor = {0};
    *b = (struct qd_mb){0};
    put_varint(&tensor, 1, 4);
    put_varint(&tensor, 2, 1);
    put_text(&tensor, 8, "c");
    if (location)
        put_entry(&tensor, "location", location);
    if (offset)
        put_entry(&tensor, "offset", offset);
    if (length)
        put_entry(&tensor, "length", length);
    if (more)
        put_entry(&tensor, more, "1");
    put_varint(&tensor, 14, 1);
    put_message(&b->graph, 5, &tensor);
    qd_mb_input(b, "x", QD_F32, "4");
    qd_mb_output(b, "y", QD_F32, "4");
    qd_mb_node(b, "Add", "x c", "y", "");
    qd_mb_finish(b, 17);
}

static enum qd_status load(struct qd_mb *b, struct qd_engine *engine, struct qd_model **model, struct qd_error *error)
{
    struct qd_quant_options options = qd_quant_defaults();
    write_file(in_folder("m.onnx"), b->model.bytes, b->model.size);
    return qd_model_load_file(engine, "m", in_folder("m.onnx"), &options, model, error);
}

static void test_data_is_found(void **state)
{
    (void)state;
    static const struct {
        const char *location, *offset, *length;
        float first;
    } cases[] = {{"data.bin", NULL, NULL, 0},
                 {"data.bin", "16", "16", 4},
                 {"deep/data.bin", "240", "16", 60},
                 {"deep/data.bin", "240", NULL, 60},
                 {"./data.bin", "0", "16", 0}};
    const float x[4] = {1, 1, 1, 1};
    struct qd_engine *engine = qd_mb_engine(1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct qd_mb b;
        struct qd_model *model;
        struct qd_error error = {0};
        put_model(&b, cases[i].location, cases[i].offset, cases[i].length, NULL);
        if (load(&b, engine, &model, &error) != QD_OK)
            fail_msg("%s", error.text);
        struct qd_infer *infer = qd_mb_run(model, NULL, "4", x);
        const float *y = qd_infer_output(infer, 0)->data;
        for (int k = 0; k < 4; k++)
            assert_true(y[k] == cases[i].first + (float)k + 1);
        qd_infer_destroy(&infer);
        qd_model_unref(&model);
        qd_mb_free(&b);
    }
    qd_engine_destroy(&engine);
}

/* A table of 2.2 GB, a hole but for its last row: mapped, never copied, found by 64-bit offsets. */
static void test_more_than_two_gigabytes(void **state)
{
    (void)state;
    const int64_t rows = (int64_t)129 << 20, ids[2] = {rows - 1, 0};
    const float last[4] = {1, 2, 3, 4};
    int fd = open(in_folder("large.bin"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    if (ftruncate(fd, rows * 16) != 0 || pwrite(fd, last, 16, (rows - 1) * 16) != 16) {
        print_message("no room for a file with a hole: %s\n", strerror(errno));
        close(fd);
        skip();
    }
    close(fd);
    struct wire tensor = {0};
    struct qd_mb b = {0};
    put_varint(&tensor, 1, (uint64_t)rows);
    put_varint(&tensor, 1, 4);
    put_varint(&tensor, 2, 1);
    put_text(&tensor, 8, "table");
    put_entry(&tensor, "location", "large.bin");
    put_varint(&tensor, 14, 1);
    put_message(&b.graph, 5, &tensor);
    qd_mb_input(&b, "ids", QD_I64, "n");
    qd_mb_output(&b, "y", QD_F32, "n,4");
    qd_mb_node(&b, "Gather", "table ids", "y", "axis=0");
    qd_mb_finish(&b, 17);
    struct qd_engine *engine = qd_mb_engine(1);
    struct qd_model *model;
    struct qd_error error = {0};
    if (load(&b, engine, &model, &error) != QD_OK)
        fail_msg("%s", error.text);
    struct qd_infer_options options = qd_infer_defaults();
    struct qd_infer *infer;
    struct qd_tensor given = {.dtype = QD_I64, .shape = {1, {2}}, .data = (void *)(uintptr_t)ids};
    assert_int_equal(qd_infer_create(model, &options, &infer, &error), QD_OK);
    assert_int_equal(qd_infer_input_borrow(infer, 0, &given, &error), QD_OK);
    assert_int_equal(qd_infer_prepare(infer, &error), QD_OK);
    qd_infer_run(&infer, 1);
    assert_int_equal(qd_infer_status(infer, &error), QD_OK);
    const float *y = qd_infer_output(infer, 0)->data;
    for (int k = 0; k < 4; k++)
        assert_true(y[k] == last[k] && y[4 + k] == 0);
    qd_infer_finish(infer);
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_engine_destroy(&engine);
    qd_mb_free(&b);
    unlink(in_folder("large.bin"));
}

static void test_everything_else_is_refused(void **state)
{
    (void)state;
    char absolute[256];
    snprintf(absolute, sizeof absolute, "%s/data.bin", folder);
    const struct {
        const char *location, *offset, *length, *more, *says;
    } cases[] = {
        {"../outside.bin", NULL, NULL, NULL, "out of the model's folder"},
        {"deep/../../outside.bin", NULL, NULL, NULL, "out of the model's folder"},
        {absolute, NULL, NULL, NULL, "out of the model's folder"},
        {"link.bin", NULL, NULL, NULL, "through a link"},
        {"inner.bin", NULL, NULL, NULL, "through a link"},
        {"up/outside.bin", NULL, NULL, NULL, "through a link"},
        {"twin.bin", NULL, NULL, NULL, "another name"},
        {"pipe", NULL, NULL, NULL, "not a regular file"},
        {"deep", NULL, NULL, NULL, "not a regular file"},
        {"none.bin", NULL, NULL, NULL, "No such file"},
        {"data.bin", "252", NULL, NULL, "256 bytes"},
        {"data.bin", "257", "0", NULL, "256 bytes"},
        {"data.bin", "18446744073709551608", "16", NULL, "256 bytes"},
        {"data.bin", "18446744073709551616", "16", NULL, "malformed"},
        {"data.bin", "-1", "16", NULL, "malformed"},
        {"data.bin", "0", "18446744073709551615", NULL, "256 bytes"},
        {"data.bin", "0", "12", NULL, "12 bytes"},
        {"data.bin", "0", "20", NULL, "20 bytes"},
        {"data.bin", NULL, NULL, "surprise", "malformed"},
        {NULL, "0", "16", NULL, "without a location"},
    };
    struct qd_engine *engine = qd_mb_engine(1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct qd_mb b;
        struct qd_model *model;
        struct qd_error error = {0};
        put_model(&b, cases[i].location, cases[i].offset, cases[i].length, cases[i].more);
        assert_int_not_equal(load(&b, engine, &model, &error), QD_OK);
        if (!strstr(error.text, cases[i].says) || !strstr(error.text, "tensor 'c'"))
            fail_msg("case %zu: '%s', not '%s'", i, error.text, cases[i].says);
        qd_mb_free(&b);
    }
    qd_engine_destroy(&engine);
}

static void test_memory_has_no_folder(void **state)
{
    (void)state;
    struct qd_engine *engine = qd_mb_engine(1);
    struct qd_error error = {0};
    struct qd_mb b;
    put_model(&b, "data.bin", NULL, NULL, NULL);
    assert_null(qd_mb_load(&b, engine, NULL, &error));
    assert_int_equal(error.status, QD_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "tensor 'c'"));
    qd_mb_free(&b);
    qd_engine_destroy(&engine);
}

/* Both roads open and refuse the same. */
static void test_roads_agree(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        bool opens;
    } cases[] = {{"data.bin", true},  {"deep/data.bin", true}, {"deep/../data.bin", false}, {"../outside.bin", false},
                 {"link.bin", false}, {"inner.bin", false},    {"up/outside.bin", false},   {"none", false},
                 {"", false},         {"/etc/hosts", false},   {"data.bin/x", false}};
    int at = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(at >= 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int walked = 0; walked < 2; walked++) {
            int fd = qd_open_beneath(at, cases[i].path, walked);
            bool inside = !walked && strcmp(cases[i].path, "deep/../data.bin") == 0; /* the system may see that it is */
            if ((fd >= 0) != cases[i].opens && !inside)
                fail_msg("'%s', %s: %s", cases[i].path, walked ? "walked" : "openat2", strerror(errno));
            if (fd >= 0)
                close(fd);
        }
    close(at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_data_is_found),
                                       cmocka_unit_test(test_more_than_two_gigabytes),
                                       cmocka_unit_test(test_everything_else_is_refused),
                                       cmocka_unit_test(test_memory_has_no_folder), cmocka_unit_test(test_roads_agree)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
