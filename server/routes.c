/* The route table and its matching. */
#include "server/routes.h"

#include "server/repository.h"

#include <stdio.h>
#include <string.h>

#define MODEL "/v2/models/{model}"

const struct qd_route qd_routes[] = {
    {"GET", "/v2/health/live", qd_handle_live, NULL, NULL},
    {"GET", "/v2/health/ready", qd_handle_ready, NULL, NULL},
    {"GET", "/v2", qd_handle_server, NULL, NULL},
    {"GET", "/v2/models/stats", qd_handle_stats, NULL, NULL},
    {"GET", MODEL, qd_handle_model, NULL, NULL},
    {"GET", MODEL "/ready", qd_handle_model_ready, NULL, NULL},
    {"GET", MODEL "/config", qd_handle_model_config, NULL, NULL},
    {"GET", MODEL "/stats", qd_handle_stats, NULL, NULL},
    {"POST", MODEL "/infer", qd_handle_infer, qd_infer_begin, qd_infer_body},
    {"GET", MODEL "/ranges", qd_handle_ranges, NULL, NULL},
    {"PUT", MODEL "/ranges", qd_handle_ranges_put, qd_ranges_begin, qd_ranges_body},
    {"DELETE", MODEL "/ranges", qd_handle_ranges_delete, NULL, NULL},
    {"GET", MODEL "/export", qd_handle_export, NULL, NULL},
    {"POST", MODEL "/ranges/reset", qd_handle_ranges_reset, NULL, NULL},
    {"POST", MODEL "/ranges/freeze", qd_handle_ranges_freeze, NULL, NULL},
    {"POST", MODEL "/ranges/unfreeze", qd_handle_ranges_unfreeze, NULL, NULL},
    {"GET", MODEL "/ranges/snapshots", qd_handle_snapshots, NULL, NULL},
    {"POST", MODEL "/ranges/snapshots", qd_handle_snapshot_make, NULL, NULL},
    {"GET", MODEL "/ranges/snapshots/{snapshot}", qd_handle_snapshot, NULL, NULL},
    {"DELETE", MODEL "/ranges/snapshots/{snapshot}", qd_handle_snapshot_delete, NULL, NULL},
    {"GET", MODEL "/ranges/diff", qd_handle_diff, NULL, NULL},
    {"POST", MODEL "/ranges/rollback", qd_handle_rollback, NULL, NULL},
    {"GET", MODEL "/ranges/state", qd_handle_state, NULL, NULL},
    {"PUT", MODEL "/ranges/state", qd_handle_state_put, qd_document_begin, qd_document_body},
    {"POST", MODEL "/ranges/merge", qd_handle_merge, qd_document_begin, qd_document_body},
    {"GET", MODEL "/ranges/stream", qd_handle_stream, NULL, NULL},
    {"GET", MODEL "/ranges/{tensor}/history", qd_handle_history, NULL, NULL},
    {"GET", MODEL "/drift", qd_handle_drift, NULL, NULL},
    {"GET", MODEL "/quantization", qd_handle_quantization, NULL, NULL},
    {"GET", MODEL "/accuracy", qd_handle_accuracy, NULL, NULL},
    {"PATCH", MODEL "/quantization", qd_handle_quantization_change, NULL, NULL},
    {"POST", MODEL "/calibrate", qd_handle_calibrate, NULL, NULL},
    {"POST", "/v2/repository/index", qd_handle_index, NULL, NULL},
    {"GET", "/metrics", qd_handle_metrics, NULL, NULL},
    {"GET", "/openapi.yaml", qd_handle_openapi, NULL, NULL},
};
const size_t qd_route_count = sizeof qd_routes / sizeof qd_routes[0];

/* Where the target's segments stand that a pattern is compared with: /versions/V below a model is passed over. */
struct path {
    const char *segments[QD_TARGET_MAX_SEGMENTS];
    size_t count;
    bool wrong_version;
};

static struct path path_of(const struct qd_target *target)
{
    struct path path = {.count = 0};
    size_t n = target->segment_count;
    const char *const *s = target->segments;
    bool versioned = n >= 5 && strcmp(s[0], "v2") == 0 && strcmp(s[1], "models") == 0 && strcmp(s[3], "versions") == 0;
    bool bare = n == 5 && versioned; /* /v2/models/M/versions/V */
    path.wrong_version = (versioned || bare) && strcmp(s[4], QD_MODEL_VERSION) != 0;
    for (size_t i = 0; i < n; i++)
        if (!versioned || (i != 3 && i != 4))
            path.segments[path.count++] = s[i];
    return path;
}

/* Compares pattern and path; with `name`, *value gets the segment under {name}. */
static bool matches(const char *pattern, const struct path *path, const char *name, const char **value)
{
    size_t at = 0;
    for (; *pattern == '/'; at++) {
        size_t n = strcspn(++pattern, "/");
        if (at == path->count)
            return false;
        if (pattern[0] != '{') {
            if (strlen(path->segments[at]) != n || memcmp(path->segments[at], pattern, n) != 0)
                return false;
        } else if (name && strlen(name) == n - 2 && memcmp(pattern + 1, name, n - 2) == 0) {
            *value = path->segments[at];
        }
        pattern += n;
    }
    return at == path->count;
}

const struct qd_route *qd_routes_find(const char *method, const struct qd_target *target, char *allowed,
                                      size_t allowed_room)
{
    struct path path = path_of(target);
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    size_t used = 0;
    allowed[0] = 0;
    if (path.wrong_version)
        return NULL;
    for (size_t i = 0; i < qd_route_count; i++) {
        if (!matches(qd_routes[i].pattern, &path, NULL, NULL))
            continue;
        if (strcmp(qd_routes[i].method, wanted) == 0)
            return &qd_routes[i];
        if (used < allowed_room)
            used += (size_t)snprintf(allowed + used, allowed_room - used, "%s%s", used ? ", " : "",
                                     strcmp(qd_routes[i].method, "GET") == 0 ? "GET, HEAD" : qd_routes[i].method);
    }
    return NULL;
}

const char *qd_route_param(const struct qd_route *route, const struct qd_target *target, const char *name)
{
    struct path path = path_of(target);
    const char *value = NULL;
    return matches(route->pattern, &path, name, &value) ? value : NULL;
}
