/* The route table: which handler a method and a path lead to, what is 404 and what 405, and the parts of a path that
 * handlers ask for. Not the handlers: those are asked over HTTP by tests/e2e. */
#include "server/routes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct qd_route *find(const char *method, const char *raw, struct qd_target *target, char *allowed,
                                   size_t room)
{
    struct qd_error error = {0};
    assert_int_equal(qd_target_parse(raw, target, &error), QD_OK);
    return qd_routes_find(method, target, allowed, room);
}

/* Every row is reached by the path that its own pattern spells, with each {name} filled, and by no other method. */
static void test_every_row(void **state)
{
    (void)state;
    assert_true(qd_route_count > 10);
    for (size_t i = 0; i < qd_route_count; i++) {
        char path[200] = "", allowed[64];
        struct qd_target target;
        const char *at = qd_routes[i].pattern;
        for (size_t n = 0; *at; at++) {
            if (*at != '{') {
                path[n++] = *at;
                continue;
            }
            path[n++] = 'x';
            at = strchr(at, '}');
        }
        assert_ptr_equal(find(qd_routes[i].method, path, &target, allowed, sizeof allowed), &qd_routes[i]);
        assert_non_null(qd_routes[i].handle);
        assert_int_equal(!qd_routes[i].body, !qd_routes[i].begin);
        assert_null(find("TRACE", path, &target, allowed, sizeof allowed));
        assert_non_null(strstr(allowed, qd_routes[i].method));
        for (size_t other = 0; other < i; other++)
            assert_false(strcmp(qd_routes[i].method, qd_routes[other].method) == 0 &&
                         strcmp(qd_routes[i].pattern, qd_routes[other].pattern) == 0);
    }
}

static void test_found(void **state)
{
    static const struct {
        const char *method, *path, *pattern;
    } rows[] = {
        {"GET", "/v2", "/v2"},
        {"GET", "/v2/", "/v2"},
        {"HEAD", "/v2/health/live", "/v2/health/live"},
        {"GET", "/v2/models/stats", "/v2/models/stats"}, /* the word comes before a model of that name */
        {"GET", "/v2/models/stats/config", "/v2/models/{model}/config"},
        {"GET", "/v2/models/versions", "/v2/models/{model}"},
        {"GET", "/v2/models/a", "/v2/models/{model}"},
        {"GET", "/v2/models/a/versions/1", "/v2/models/{model}"},
        {"GET", "/v2/models/a/versions/1/ready", "/v2/models/{model}/ready"},
        {"POST", "/v2/models/a/versions/1/infer", "/v2/models/{model}/infer"},
        {"POST", "/v2/models/a%20b/infer", "/v2/models/{model}/infer"},
        {"POST", "/v2/models/versions/versions/1/infer", "/v2/models/{model}/infer"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct qd_target target;
        char allowed[64];
        const struct qd_route *route = find(rows[i].method, rows[i].path, &target, allowed, sizeof allowed);
        if (!route || strcmp(route->pattern, rows[i].pattern) != 0)
            fail_msg("%s %s leads to %s", rows[i].method, rows[i].path, route ? route->pattern : "nothing");
    }
}

static void test_not_found(void **state)
{
    static const struct {
        const char *method, *path, *allowed;
    } rows[] = {
        {"GET", "/", ""},
        {"GET", "/V2", ""},
        {"GET", "/v2x", ""},
        {"GET", "/v2/health", ""},
        {"GET", "/v2/health/live/x", ""},
        {"GET", "/v2/models", ""},
        {"GET", "/v2/models/a/b", ""},
        {"GET", "/v2/models/a/versions", ""},
        {"GET", "/v2/models/a/versions/2", ""},
        {"GET", "/v2/models/a/versions/01", ""},
        {"GET", "/v2/models/a/versions/1/versions/1", ""},
        {"POST", "/v2/models/a/versions/2/infer", ""},
        {"GET", "/v2/%7Bmodel%7D", ""},
        {"POST", "/v2/health/live", "GET, HEAD"},
        {"get", "/v2/health/live", "GET, HEAD"},
        {"OTHER", "/v2", "GET, HEAD"},
        {"GET", "/v2/models/a/infer", "POST"},
        {"HEAD", "/v2/models/a/versions/1/infer", "POST"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct qd_target target;
        char allowed[64] = "not written";
        if (find(rows[i].method, rows[i].path, &target, allowed, sizeof allowed) ||
            strcmp(allowed, rows[i].allowed) != 0)
            fail_msg("%s %s: found, or allows '%s'", rows[i].method, rows[i].path, allowed);
    }
}

/* However little room there is, the list ends with a zero inside it. */
static void test_little_room(void **state)
{
    (void)state;
    for (size_t room = 1; room < 12; room++) {
        struct qd_target target;
        char allowed[16];
        memset(allowed, '#', sizeof allowed);
        assert_null(find("PUT", "/v2/health/live", &target, allowed, room));
        assert_non_null(memchr(allowed, 0, room));
        for (size_t i = room; i < sizeof allowed; i++)
            assert_int_equal(allowed[i], '#');
    }
}

static void test_params(void **state)
{
    struct qd_target target;
    char allowed[64];
    (void)state;
    const struct qd_route *route = find("POST", "/v2/models/m%C3%A9/versions/1/infer?model=q", &target, allowed,
                                        sizeof allowed);
    assert_non_null(route);
    assert_string_equal(qd_route_param(route, &target, "model"), "m\xc3\xa9");
    assert_null(qd_route_param(route, &target, "mode"));
    assert_null(qd_route_param(route, &target, "models"));
    assert_null(qd_route_param(route, &target, ""));
    route = find("GET", "/v2/health/live", &target, allowed, sizeof allowed);
    assert_null(qd_route_param(route, &target, "model"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row),   cmocka_unit_test(test_found),  cmocka_unit_test(test_not_found),
        cmocka_unit_test(test_little_room), cmocka_unit_test(test_params),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
