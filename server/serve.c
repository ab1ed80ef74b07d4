/* `quantd serve`: start, run the loop, drain, stop.
 * Stopping: a signal makes the daemon not ready but still serving for drain_delay, so that load balancers notice; then
 * it accepts no more, finishes what is in flight within the grace, and leaves. A second signal skips the waiting. */
#include "server/serve.h"

#include "base/log.h"
#include "engine/engine.h"
#include "server/http.h"
#include "server/job.h"
#include "server/quant_options.h"
#include "server/range_formats.h"
#include "server/state.h"
#include "server/watch.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#define STOP_TICK_MS 20

enum phase { PHASE_SERVING, PHASE_DELAY, PHASE_FINISHING, PHASE_DONE };

struct daemon {
    struct qd_server server;
    uv_loop_t loop;
    uv_signal_t on_term, on_int;
    uv_timer_t tick; /* runs while stopping */
    enum phase phase;
    uint64_t phase_end_ns;
};

/* One datagram to systemd, when it started us; nothing otherwise. */
static void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@')
        address.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (sendto(fd, state, strlen(state), 0, (struct sockaddr *)&address,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))) < 0)
        qd_log(QD_LOG_DEBUG, "systemd was not told %s: %s", state, strerror(errno));
    close(fd);
}

/* ------------------------------------------------------------------ stopping */

static void stop_loop_handles(struct daemon *d)
{
    uv_timer_stop(&d->tick);
    uv_close((uv_handle_t *)&d->tick, NULL);
    uv_close((uv_handle_t *)&d->on_term, NULL);
    uv_close((uv_handle_t *)&d->on_int, NULL);
}

static void on_tick(uv_timer_t *timer)
{
    struct daemon *d = timer->data;
    uint64_t now = qd_now_ns();
    if (d->phase == PHASE_DELAY && now >= d->phase_end_ns) {
        d->phase = PHASE_FINISHING;
        d->phase_end_ns = now + (uint64_t)d->server.config->grace_ms * 1000000u;
    }
    if (d->phase != PHASE_FINISHING)
        return;
    qd_watch_end_streams(d->server.watch);
    bool late = now >= d->phase_end_ns, closed = qd_http_quiesce(d->server.http, late);
    if (!late)
        qd_http_close_quiet(d->server.http);
    if (late || (closed && qd_jobs_in_flight(d->server.jobs) == 0 && qd_http_idle(d->server.http))) {
        if (late)
            qd_log(QD_LOG_WARNING, "not waiting any longer: %u connections are open, %zu requests wait or run",
                   qd_http_connections(d->server.http), qd_jobs_in_flight(d->server.jobs));
        d->phase = PHASE_DONE;
        uv_stop(&d->loop);
    }
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct daemon *d = handle->data;
    if (d->phase == PHASE_SERVING) {
        qd_log(QD_LOG_INFO, "%s: stopping; still serving for %u ms", number == SIGTERM ? "SIGTERM" : "SIGINT",
               d->server.config->drain_delay_ms);
        notify("STOPPING=1");
        d->server.draining = true;
        d->phase = PHASE_DELAY;
        d->phase_end_ns = qd_now_ns() + (uint64_t)d->server.config->drain_delay_ms * 1000000u;
        uv_timer_start(&d->tick, on_tick, 1, STOP_TICK_MS);
        return;
    }
    qd_log(QD_LOG_WARNING, "a second signal");
    d->phase_end_ns = 0; /* the next tick finds the grace over */
    d->phase = PHASE_FINISHING;
}

/* ------------------------------------------------------------------ starting */

static bool is_served(void *ctx, const char *name) { return qd_repository_find(ctx, name, strlen(name)) != NULL; }

static enum qd_status load_models(struct qd_server *server, struct qd_error *error)
{
    const struct qd_config *config = server->config;
    enum qd_status status = QD_OK;
    for (size_t i = 0; !status && i < config->models_count; i++)
        status = qd_repository_add_file(server->repository, config->models[i].name, config->models[i].file, error);
    if (!status && config->model_repository[0])
        status = qd_repository_add_directory(server->repository, config->model_repository, error);
    if (!status && config->models_count == 0 && !config->model_repository[0])
        status = qd_repository_add_builtin(server->repository, error);
    return status ? status : qd_config_check_models(config, is_served, server->repository, error);
}

static void after_jobs(void *ctx)
{
    struct qd_server *server = ctx;
    if (server->http) /* not while a failed start is taken back */
        qd_http_pump(server->http);
}

static enum qd_status start(struct daemon *d, unsigned *port, struct qd_error *error)
{
    struct qd_server *server = &d->server;
    const struct qd_config *config = server->config;
    struct qd_engine_options engine_options = {.threads = config->threads};
    struct qd_quant_options quant;
    int fd = -1;
    enum qd_status status = qd_engine_create(&engine_options, &server->engine, error);
    if (!status)
        status = qd_http_listen(config->listen, &fd, port, error); /* a port in use is said before models are loaded */
    if (status)
        return status;
    qd_config_quant(config, &quant);
    status = qd_repository_create(server->engine, &quant, config, &server->repository, error);
    if (!status)
        status = qd_metrics_create(&server->metrics, error);
    if (!status)
        status = load_models(server, error);
    if (!status)
        status = qd_state_create(&d->loop, server->repository, config->state_dir, config->state_interval_s,
                                 &server->state, error);
    if (!status) {
        qd_state_restore(server->state);
        status = qd_range_format_start(server->repository, config->ranges, error);
    }
    struct qd_jobs_options jobs = {.workers = config->workers ? config->workers : qd_engine_threads(server->engine),
                                   .queue_size = config->queue_size,
                                   .batch_max = config->batch_max,
                                   .batch_delay_ns = (uint64_t)config->batch_delay_us * 1000u};
    if (!status)
        status = qd_jobs_create(&d->loop, &jobs, after_jobs, server, &server->jobs, error);
    if (!status)
        status = qd_watch_create(&d->loop, server, &server->watch, error);
    if (!status)
        status = qd_http_create(&d->loop, server, fd, &server->http, error);
    if (status && fd >= 0)
        close(fd);
    return status;
}

static void start_signals(struct daemon *d)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGHUP, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL); /* a state file larger than may be is an error, not the end */
    uv_signal_init(&d->loop, &d->on_term);
    uv_signal_init(&d->loop, &d->on_int);
    uv_timer_init(&d->loop, &d->tick);
    d->on_term.data = d->on_int.data = d->tick.data = d;
    uv_signal_start(&d->on_term, on_signal, SIGTERM);
    uv_signal_start(&d->on_int, on_signal, SIGINT);
}

/* Jobs first, so that no request is suspended when the HTTP daemon stops; then the handles that close with the loop's
 * last turns. */
static void stop(struct daemon *d)
{
    qd_jobs_destroy(&d->server.jobs);
    qd_watch_destroy(&d->server.watch);
    if (d->server.http)
        qd_http_pump(d->server.http);
    qd_http_destroy(&d->server.http);
    qd_state_destroy(&d->server.state);
    stop_loop_handles(d);
    uv_run(&d->loop, UV_RUN_DEFAULT);
    uv_loop_close(&d->loop);
    qd_repository_destroy(&d->server.repository);
    qd_metrics_destroy(&d->server.metrics);
    qd_engine_destroy(&d->server.engine);
}

int qd_serve(const struct qd_config *config)
{
    struct daemon d = {.server = {.config = config}};
    struct qd_error error = {0};
    unsigned port = 0;
    if (uv_loop_init(&d.loop) != 0) {
        fputs("quantd serve: no event loop can be made\n", stderr);
        return 1;
    }
    d.server.loop = &d.loop;
    start_signals(&d);
    enum qd_status status = start(&d, &port, &error);
    if (status) {
        fprintf(stderr, "quantd serve: %s\n", error.text);
    } else {
        qd_log(QD_LOG_INFO, "listening on %s (port %u), %zu models, kernels %s, %u threads", config->listen, port,
               qd_repository_count(d.server.repository), qd_engine_isa(d.server.engine),
               qd_engine_threads(d.server.engine));
        notify("READY=1");
        uv_run(&d.loop, UV_RUN_DEFAULT);
    }
    stop(&d);
    if (!status)
        qd_log(QD_LOG_INFO, "stopped");
    return status ? 1 : 0;
}
