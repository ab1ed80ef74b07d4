/* The model's own functions: names and attributes of a call, calls within calls and graphs, what is refused. */
#include "engine/engine.h"
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct qd_engine *engine;

static int setup(void **state)
{
    (void)state;
    engine = qd_mb_engine(1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    qd_engine_destroy(&engine);
    return 0;
}

static void put_list(struct wire *w, unsigned field, const char *names)
{
    char text[128];
    snprintf(text, sizeof text, "%s", names);
    for (char *name = text, *rest; name; name = rest) {
        rest = strchr(name, ' ');
        if (rest)
            *rest++ = 0;
        put_text(w, field, strcmp(name, "-") == 0 ? "" : name);
    }
}

/* A NodeProto with at most one float attribute: a value, or (when `reference` is there) a reference. */
static struct wire make_node(const char *domain, const char *op, const char *in, const char *out, const char *attr,
                             const char *reference, float value)
{
    struct wire n = {0}, a = {0};
    put_list(&n, 1, in);
    put_list(&n, 2, out);
    put_text(&n, 4, op);
    put_text(&n, 7, domain);
    if (attr) {
        put_text(&a, 1, attr);
        put_varint(&a, 20, 1);
        if (reference)
            put_text(&a, 21, reference);
        else
            put_float(&a, 2, value);
        put_message(&n, 5, &a);
    }
    return n;
}

/* FunctionProto without nodes. */
static struct wire make_function(const char *name, const char *in, const char *out)
{
    struct wire f = {0}, standard = opset_id("", 17), own = opset_id("own", 1);
    put_text(&f, 1, name);
    put_list(&f, 4, in);
    put_list(&f, 5, out);
    put_message(&f, 9, &standard);
    put_message(&f, 9, &own);
    put_text(&f, 10, "own");
    return f;
}

static void put_body(struct wire *function, struct wire node) { put_message(function, 7, &node); }

/* x -> the given calls -> y, with these functions. */
static void make_model(struct qd_mb *b, struct wire *calls, int call_count, struct wire *functions, int function_count)
{
    struct wire own = opset_id("own", 1);
    *b = (struct qd_mb){0};
    qd_mb_input(b, "x", QD_F32, "3");
    qd_mb_output(b, "y", QD_F32, "3");
    for (int i = 0; i < call_count; i++)
        put_message(&b->graph, 1, &calls[i]);
    qd_mb_finish(b, 17);
    put_message(&b->model, 8, &own);
    for (int i = 0; i < function_count; i++)
        put_message(&b->model, 25, &functions[i]);
}

static void expect(struct qd_mb *b, const float *wanted)
{
    const float x[3] = {-1, 0, 2};
    struct qd_error error = {0};
    struct qd_model *model = qd_mb_load(b, engine, NULL, &error);
    if (!model)
        fail_msg("%s", error.text);
    struct qd_infer *infer = qd_mb_run(model, NULL, "3", x);
    assert_memory_equal(qd_infer_output(infer, 0)->data, wanted, 3 * sizeof *wanted);
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_mb_free(b);
}

/* leaky(a) = LeakyRelu(a) with alpha = slope, whose default is .25; twice(a) = leaky(leaky(a), slope .5). */
static void make_pair(struct wire *functions)
{
    struct wire a = {0};
    functions[0] = make_function("leaky", "a", "b");
    put_body(&functions[0], make_node("", "LeakyRelu", "a", "b", "alpha", "slope", 0));
    put_text(&a, 1, "slope");
    put_varint(&a, 20, 1);
    put_float(&a, 2, 0.25f);
    put_message(&functions[0], 11, &a);
    functions[1] = make_function("twice", "a", "b");
    put_body(&functions[1], make_node("own", "leaky", "a", "t", NULL, NULL, 0));
    put_body(&functions[1], make_node("own", "leaky", "t", "b", "slope", NULL, 0.5f));
}

static void test_attributes_and_names(void **state)
{
    (void)state;
    struct qd_mb b;
    struct wire functions[2], calls[3];
    make_pair(functions);
    calls[0] = make_node("own", "twice", "x", "a", NULL, NULL, 0); /* -1 -> -.25 -> -.125 */
    calls[1] = make_node("own", "leaky", "a", "t", "slope", NULL, 4);
    calls[2] = make_node("own", "leaky", "t", "y", NULL, NULL, 0);
    make_model(&b, calls, 3, functions, 2);
    expect(&b, (const float[3]){-0.125f, 0, 2});
}

/* An output that is an input, an input that a call leaves out, a call that comes before what it reads. */
static void test_edges(void **state)
{
    (void)state;
    struct qd_mb b;
    struct wire functions[2], calls[2];
    functions[0] = make_function("pass", "a b", "b a n");
    put_body(&functions[0], make_node("", "Neg", "a", "n", NULL, NULL, 0));
    functions[1] = make_function("clip", "a low high", "r");
    put_body(&functions[1], make_node("", "Clip", "a low high", "r", NULL, NULL, 0));
    calls[0] = make_node("own", "clip", "n", "y", NULL, NULL, 0);
    calls[1] = make_node("own", "pass", "x", "- m n", NULL, NULL, 0);
    make_model(&b, calls, 2, functions, 2);
    expect(&b, (const float[3]){1, -0.0f, -2});
    calls[0] = make_node("own", "pass", "x x", "- y -", NULL, NULL, 0);
    functions[0] = make_function("pass", "a b", "b a n");
    put_body(&functions[0], make_node("", "Neg", "a", "n", NULL, NULL, 0));
    make_model(&b, calls, 1, functions, 1);
    expect(&b, (const float[3]){-1, 0, 2});
}

static void test_refusals(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct qd_mb b;
        struct wire functions[40], call;
        struct qd_error error = {0};
        static const char *const says[] = {"calls itself", "its function 1 and 1", "never makes output 0",
                                           "within each other", "for its size"};
        int count = i < 3 ? 1 : i == 3 ? 20 : 16;
        functions[0] = make_function("f0", "a", "b");
        if (i == 2)
            put_body(&functions[0], make_node("", "Neg", "a", "c", NULL, NULL, 0));
        else
            put_body(&functions[0], make_node(i == 0 ? "own" : "", i == 0 ? "f0" : "Neg", "a", "b", NULL, NULL, 0));
        for (int f = 1; f < count; f++) { /* a chain, or a tree of 4^15 leaves */
            char name[8], inner[8];
            snprintf(name, sizeof name, "f%d", f);
            snprintf(inner, sizeof inner, "f%d", f - 1);
            functions[f] = make_function(name, "a", "b");
            for (int k = 0; i == 4 && k < 3; k++)
                put_body(&functions[f], make_node("own", inner, "a", k == 0 ? "u" : k == 1 ? "v" : "w", NULL, NULL, 0));
            put_body(&functions[f], make_node("own", inner, "a", "b", NULL, NULL, 0));
        }
        char last[8];
        snprintf(last, sizeof last, "f%d", count - 1);
        call = make_node("own", last, i == 1 ? "x x" : "x", "y", NULL, NULL, 0);
        make_model(&b, &call, 1, functions, count);
        assert_null(qd_mb_load(&b, engine, NULL, &error));
        if (!strstr(error.text, says[i]))
            fail_msg("case %d: '%s'", i, error.text);
        qd_mb_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_attributes_and_names), cmocka_unit_test(test_edges),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
