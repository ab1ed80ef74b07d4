/* `quantd serve`: wires engine, models, HTTP, jobs and signals together; starts, drains, stops. */
#ifndef QD_SERVER_SERVE_H
#define QD_SERVER_SERVE_H

#include "config/config.h"
#include "engine/engine.h"
#include "server/metrics.h"
#include "server/repository.h"

#include <stdbool.h>
#include <uv.h>

struct qd_http;
struct qd_jobs;
struct qd_watch;

/* What handlers reach through request->server. All [loop]. */
struct qd_server {
    uv_loop_t *loop;
    const struct qd_config *config;
    struct qd_engine *engine;
    struct qd_repository *repository;
    struct qd_metrics *metrics;
    struct qd_http *http;
    struct qd_jobs *jobs;
    bool shadowing;         /* a request is being run in FP32, aside */
    struct qd_state *state; /* NULL: nothing is kept over a restart */
    struct qd_watch *watch; /* once a second: histories, drift, streams */
    bool draining;          /* SIGTERM came: not ready any more */
};

/* Serves until a signal; returns the process's exit code. Says what is wrong in one line on standard error when it
 * can't start. */
int qd_serve(const struct qd_config *config);

#endif
