/* libmicrohttpd inside the libuv loop. One uv_poll watches the daemon's epoll descriptor, one timer waits for what
 * libmicrohttpd says is next, and one is the heartbeat that keeps our own deadlines; every call of libmicrohttpd is
 * made on the loop's thread. */
#include "server/http.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/job.h"
#include "server/routes.h"
#include "server/serve.h"

#include <inttypes.h>
#include <microhttpd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define PUMP_ROUNDS       8   /* MHD_run calls before other events get their turn */
#define HEARTBEAT_MS      250 /* deadlines are kept to this */
#define CONNECTION_MEMORY (128u << 10)
#define MIN_RATE_AFTER_NS 5000000000u
#define SMALL_BODY_BYTES  (64u << 10) /* largest body of routes that expect little */
#define LINGER_NS         500000000u  /* while stopping: how long a connection must be quiet before it is closed */
/* Before 1.0, strict means no more than the Host header, which we check with a better answer; later it means real
 * strictness. */
#define STRICT (MHD_VERSION >= 0x01000000 ? 1 : 0)

struct qd_connection {
    struct qd_connection *next, **link;
    struct qd_http *http;
    struct MHD_Connection *mhd;
    int fd;
    char *target;         /* raw, of the request under way, from its first line to its end; owned */
    uintptr_t target_at;  /* where it stood in libmicrohttpd's buffer */
    uint64_t deadline_ns; /* 0: none */
    uint64_t quiet_ns;    /* since when no request is under way */
    bool expired;
    uint64_t end_seen_ns;            /* quiet_ns at the heartbeat that found nothing more will come; 0: none did */
    struct qd_http_request *request; /* the one under way; MHD's reference */
    uv_poll_t *watch;                /* while suspended: has the client gone? */
    struct qd_job *job;
};

struct qd_http {
    struct qd_server *server;
    struct MHD_Daemon *daemon;
    uv_poll_t poll;
    uv_timer_t timer, heartbeat;
    int listen_fd;
    bool pumping, quiesced;
    struct qd_connection *connections;
    unsigned count;
};

static uint64_t ms(uint64_t milliseconds) { return milliseconds * 1000000u; }

/* ------------------------------------------------------------------ pump */

static void on_timer(uv_timer_t *timer);

/* Bounded: a connection that always claims to be ready (half a TLS handshake) must not starve the loop. The last
 * MHD_run puts a listener that was paused at the connection limit back; without it the daemon may never accept again.
 */
void qd_http_pump(struct qd_http *http)
{
    MHD_UNSIGNED_LONG_LONG wait = 0;
    enum MHD_Result due = MHD_NO;
    if (http->pumping)
        return; /* called from one of MHD's own callbacks */
    http->pumping = true;
    for (int i = 0; i < PUMP_ROUNDS; i++) {
        MHD_run(http->daemon);
        due = MHD_get_timeout(http->daemon, &wait);
        if (due != MHD_YES || wait != 0)
            break;
    }
    MHD_run(http->daemon);
    due = MHD_get_timeout(http->daemon, &wait);
    http->pumping = false;
    if (due == MHD_YES)
        uv_timer_start(&http->timer, on_timer, wait ? wait : 1, 0); /* a zero timer would starve libuv 1.44 */
    else
        uv_timer_stop(&http->timer);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    qd_http_pump(poll->data);
}

/* Is the body too slow? Judged after the first seconds, from the bytes that came since the headers. */
static bool too_slow(const struct qd_connection *c, uint64_t now)
{
    const struct qd_http_request *request = c->request;
    uint32_t rate = c->http->server->config->body_min_rate_bytes;
    if (!request || !c->deadline_ns || !rate || request->response || request->suspended)
        return false;
    uint64_t elapsed = now - request->started_ns;
    return elapsed > MIN_RATE_AFTER_NS && request->received_bytes < (elapsed / 1000000000u) * rate;
}

/* Has the client closed its side, with nothing left to read and no answer on its way? libmicrohttpd misses it when the
 * end came together with the last bytes (its epoll is edge-triggered). Found at two heartbeats in a row, so that what
 * it has already read was dealt with in between. */
static bool has_ended(struct qd_connection *c)
{
    bool waits = !c->request || (!c->request->response && !c->request->suspended);
    uint64_t before = c->end_seen_ns;
    c->end_seen_ns = waits && qd_http_at_end(c->fd) ? c->quiet_ns : 0;
    return c->end_seen_ns && c->end_seen_ns == before;
}

/* libmicrohttpd knows only inactivity, and not even that of suspended connections. A connection past its deadline is
 * shut down; libmicrohttpd then closes it in its own time. */
static void check_deadlines(struct qd_http *http)
{
    uint64_t now = qd_now_ns();
    for (struct qd_connection *c = http->connections; c; c = c->next) {
        bool late = (c->deadline_ns && now > c->deadline_ns) || too_slow(c, now);
        if (c->expired || (!late && !has_ended(c)))
            continue;
        c->expired = true;
        if (late)
            qd_log(QD_LOG_DEBUG, "a connection was closed: its request came or its answer left too slowly");
        shutdown(c->fd, SHUT_RDWR);
    }
}

static void on_timer(uv_timer_t *timer) { qd_http_pump(timer->data); }

/* A timer of its own, because the pump restarts the other one: a busy daemon would never come to its deadlines. */
static void on_heartbeat(uv_timer_t *timer)
{
    struct qd_http *http = timer->data;
    check_deadlines(http);
    qd_jobs_expire(http->server->jobs);
    qd_http_pump(http);
}

/* ------------------------------------------------------------------ connections */

static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct qd_http *http = cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        struct qd_connection *c = qd_calloc(1, sizeof *c);
        *context = c;
        if (!c)
            return; /* its requests will be refused */
        c->http = http;
        c->mhd = mhd;
        c->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        c->quiet_ns = qd_now_ns();
        c->deadline_ns = c->quiet_ns + ms(http->server->config->header_timeout_ms);
        c->next = http->connections;
        c->link = &http->connections;
        if (c->next)
            c->next->link = &c->next;
        http->connections = c;
        http->count++;
        qd_metrics_set(http->server->metrics, QD_METRIC_HTTP_CONNECTIONS, "", http->count);
        return;
    }
    struct qd_connection *c = *context;
    *context = NULL;
    if (!c)
        return;
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    http->count--;
    qd_metrics_set(http->server->metrics, QD_METRIC_HTTP_CONNECTIONS, "", http->count);
    qd_free(c->target);
    qd_free(c);
}

static struct qd_connection *connection_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

const char *qd_connection_header(const struct qd_connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection->mhd, MHD_HEADER_KIND, name);
}

/* A request begins: libmicrohttpd shows the raw target here and nowhere else. */
static void *on_request_line(void *cls, const char *target, struct MHD_Connection *mhd)
{
    struct qd_http *http = cls;
    struct qd_connection *c = connection_of(mhd);
    if (c) {
        qd_free(c->target);
        c->target = qd_strndup(target, strlen(target));
        c->target_at = (uintptr_t)target;
        c->deadline_ns = qd_now_ns() + ms(http->server->config->header_timeout_ms);
    }
    return NULL;
}

static void free_handle(uv_handle_t *handle) { qd_free(handle); }

static void stop_watching(struct qd_connection *c)
{
    if (c->watch) {
        uv_poll_stop(c->watch);
        uv_close((uv_handle_t *)c->watch, free_handle);
    }
    c->watch = NULL;
    c->job = NULL;
}

/* The client has gone while its request waits or runs: libmicrohttpd will only notice when the answer is sent. */
static void on_gone(uv_poll_t *poll, int status, int events)
{
    struct qd_connection *c = poll->data;
    if (status == 0 && !(events & UV_DISCONNECT))
        return;
    if (c->job)
        qd_jobs_cancel(c->http->server->jobs, c->job);
    uv_poll_stop(poll);
}

void qd_connection_watch(struct qd_connection *c, struct qd_job *job)
{
    MHD_suspend_connection(c->mhd);
    c->job = job;
    c->watch = qd_calloc(1, sizeof *c->watch);
    if (c->watch && uv_poll_init(c->http->timer.loop, c->watch, c->fd) != 0) {
        qd_free(c->watch);
        c->watch = NULL;
    }
    if (!c->watch)
        return; /* a client that goes is then noticed when its answer is sent */
    c->watch->data = c;
    uv_poll_start(c->watch, UV_DISCONNECT, on_gone);
}

/* ------------------------------------------------------------------ requests */

static const char *known_method(const char *method)
{
    static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (strcmp(method, methods[i]) == 0)
            return methods[i];
    return "OTHER";
}

static enum MHD_Result add_header(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_length,
                                  const char *value, size_t value_length)
{
    (void)kind;
    qd_framing_add(cls, name, name_length, value, value ? value_length : 0);
    return MHD_YES;
}

static struct qd_http_request *new_request(struct qd_connection *c, const char *method)
{
    struct qd_http_request *request = qd_calloc(1, sizeof *request);
    if (!request)
        return NULL;
    request->refs = 1;
    request->server = c->http->server;
    request->connection = c;
    request->method = known_method(method);
    request->content_length = -1;
    request->started_ns = qd_now_ns();
    c->request = request;
    return request;
}

static enum MHD_Result queue_answer(struct qd_connection *c, struct qd_http_request *request)
{
    const struct qd_config *config = c->http->server->config;
    uint64_t rate = config->body_min_rate_bytes ? config->body_min_rate_bytes : 1024;
    c->deadline_ns = qd_now_ns() + ms(config->body_timeout_ms) + request->response_bytes / rate * 1000000000u;
    return MHD_queue_response(c->mhd, (unsigned)request->code, request->response);
}

/* Answers an error with the headers that belong to its status. */
static void fail(struct qd_http_request *request, const struct qd_error *error)
{
    char allowed[64];
    qd_http_fail(request, error);
    if (error->status == QD_ERR_METHOD) {
        qd_routes_find(request->method, &request->target, allowed, sizeof allowed);
        qd_http_respond_header(request, "Allow", allowed);
    } else if (error->status == QD_ERR_ENCODING) {
        qd_http_respond_header(request, "Accept-Encoding", "identity");
    }
}

/* Answers an error at once and closes the connection: what follows on it can't be trusted, or is not worth reading. */
static enum MHD_Result refuse(struct qd_connection *c, struct qd_http_request *request, const struct qd_error *error)
{
    fail(request, error);
    qd_http_respond_header(request, "Connection", "close");
    return queue_answer(c, request);
}

/* Finds the route and what may be refused before the body. False: *error is to be answered at once, closing. */
static bool open_request(struct qd_connection *c, struct qd_http_request *request, struct qd_error *error)
{
    char allowed[64];
    request->route = qd_routes_find(request->method, &request->target, allowed, sizeof allowed);
    request->body_limit = request->route && request->route->body ? c->http->server->config->max_body_bytes
                                                                 : SMALL_BODY_BYTES;
    if (request->content_length > 0 && (uint64_t)request->content_length > request->body_limit) {
        qd_fail(error, QD_ERR_TOO_LARGE, "the body has %" PRId64 " bytes, at most %" PRIu64 " are taken",
                request->content_length, request->body_limit);
        return false;
    }
    const char *encoding = qd_http_header(request, "Content-Encoding");
    if (!request->route) {
        qd_fail(&request->refusal, allowed[0] ? QD_ERR_METHOD : QD_ERR_NOT_FOUND,
                allowed[0] ? "this path takes the methods %s" : "there is no such path%.0s", allowed);
    } else if (encoding && strcasecmp(encoding, "identity") != 0) {
        qd_fail(&request->refusal, QD_ERR_ENCODING,
                "the body's Content-Encoding '%.40s' is not understood: send it as it is", encoding);
    } else if (request->route->begin) {
        struct qd_error failure = {0};
        if (request->route->begin(request, &failure) != QD_OK)
            request->refusal = failure;
    }
    if (request->refusal.status && qd_http_header(request, "Expect")) {
        *error = request->refusal; /* the client asks before it sends: tell it now */
        return false;
    }
    return true;
}

/* A NUL byte cuts the target that we are shown. The version stands behind the whole of it in the same buffer, one blank
 * away. */
static bool target_is_cut(const struct qd_connection *c, const char *version)
{
    uintptr_t distance = (uintptr_t)version - c->target_at;
    return distance < CONNECTION_MEMORY && distance != strlen(c->target) + 1;
}

static enum MHD_Result first_call(struct qd_connection *c, struct qd_http_request *request, const char *version)
{
    struct qd_framing framing = {0};
    struct qd_error error = {0};
    MHD_get_connection_values_n(c->mhd, MHD_HEADER_KIND, add_header, &framing);
    const char *fault = qd_framing_fault(&framing, strcmp(version, MHD_HTTP_VERSION_1_1) == 0);
    if (fault) {
        qd_fail(&error, QD_ERR_INVALID, "%s", fault);
        return refuse(c, request, &error);
    }
    if (qd_framing_too_large(&framing)) {
        qd_fail(&error, QD_ERR_HEADERS, "the request has more than %d headers, or more than %u bytes of them",
                QD_HEADERS_MAX, QD_HEADERS_BYTES);
        return refuse(c, request, &error);
    }
    if (!c->target || qd_target_parse(c->target, &request->target, &error) != QD_OK) {
        if (!c->target)
            qd_fail(&error, QD_ERR_NO_MEMORY, "no memory for the request");
        return refuse(c, request, &error);
    }
    if (target_is_cut(c, version)) {
        qd_fail(&error, QD_ERR_INVALID, "the request target has a control byte");
        return refuse(c, request, &error);
    }
    const char *length = qd_http_header(request, "Content-Length");
    request->content_length = length ? strtoll(length, NULL, 10) : framing.transfer_encoding ? -1 : 0;
    c->deadline_ns = qd_now_ns() + ms(c->http->server->config->body_timeout_ms);
    if (!open_request(c, request, &error))
        return refuse(c, request, &error);
    return MHD_YES;
}

/* Keeps a piece of a body that a route wants whole. Sized from Content-Length, else by doubling up to the limit. */
static enum qd_status keep(struct qd_http_request *request, const char *bytes, size_t n, struct qd_error *error)
{
    if (n > request->body_room - request->body_bytes) {
        size_t room = request->content_length > 0 ? (size_t)request->content_length : request->body_room * 2 + n;
        room = room < request->body_bytes + n ? request->body_bytes + n : room;
        unsigned char *grown = qd_realloc(request->body, room, 1);
        if (!grown)
            return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the body");
        request->body = grown;
        request->body_room = room;
    }
    memcpy(request->body + request->body_bytes, bytes, n);
    request->body_bytes += n;
    return QD_OK;
}

static void body_call(struct qd_http_request *request, const char *bytes, size_t n)
{
    struct qd_error error = {0};
    request->received_bytes += n;
    if (request->refusal.status)
        return; /* decided; the rest is only read away */
    enum qd_status status;
    if (request->received_bytes > request->body_limit)
        status = qd_fail(&error, QD_ERR_TOO_LARGE, "the body has more than %" PRIu64 " bytes", request->body_limit);
    else
        status = request->route->body ? request->route->body(request, bytes, n, &error)
                                      : keep(request, bytes, n, &error);
    if (status)
        request->refusal = error;
}

static enum MHD_Result last_call(struct qd_connection *c, struct qd_http_request *request)
{
    c->deadline_ns = 0;
    if (!request->response && request->refusal.status)
        fail(request, &request->refusal);
    else if (!request->response)
        request->route->handle(request);
    return request->suspended && !request->response ? MHD_YES : queue_answer(c, request);
}

/* The access handler: headers, then pieces of the body, then once more with none. After a resume, once more again. */
static enum MHD_Result on_access(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
                                 const char *version, const char *upload, size_t *upload_size, void **state)
{
    (void)cls;
    (void)url; /* decoded and cut at %00: the raw target is used instead */
    struct qd_connection *c = connection_of(mhd);
    struct qd_http_request *request = *state;
    if (!c)
        return MHD_NO;
    if (!request) {
        request = *state = new_request(c, method);
        return request ? first_call(c, request, version) : MHD_NO;
    }
    if (*upload_size) {
        body_call(request, upload, *upload_size);
        /* No answer may be given here, so a body that was refused is read away, but not without end. */
        bool endless = request->refusal.status && request->received_bytes > 2 * request->body_limit;
        *upload_size = 0;
        return endless ? MHD_NO : MHD_YES;
    }
    return last_call(c, request);
}

/* Answers from outside the access handler wake the connection up. */
void qd_http_on_answer(struct qd_http_request *request)
{
    if (!request->suspended)
        return;
    request->suspended = false;
    if (request->connection) {
        stop_watching(request->connection);
        MHD_resume_connection(request->connection->mhd);
    }
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **state, enum MHD_RequestTerminationCode code)
{
    struct qd_http *http = cls;
    struct qd_http_request *request = *state;
    struct qd_connection *c = connection_of(mhd);
    (void)code;
    *state = NULL;
    if (c) {
        uint64_t idle_s = http->server->config->idle_timeout_s;
        c->quiet_ns = qd_now_ns();
        c->deadline_ns = c->quiet_ns + ms(idle_s * 1000 + http->server->config->header_timeout_ms);
        c->request = NULL;
        qd_free(c->target);
        c->target = NULL;
        stop_watching(c);
    }
    if (!request)
        return;
    request->connection = NULL;
    qd_metrics_http(http->server->metrics, request->route ? request->route->pattern : "_other", request->method,
                    request->code, request->received_bytes, request->response_bytes);
    qd_http_request_unref(&request);
}

/* ------------------------------------------------------------------ daemon */

static void on_panic(void *cls, const char *file, unsigned int line, const char *reason)
{
    (void)cls;
    qd_log(QD_LOG_ERROR, "libmicrohttpd gave up at %s:%u: %s", file, line, reason ? reason : "no reason given");
    abort();
}

static void on_log(void *cls, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
static void on_log(void *cls, const char *format, va_list args)
{
    char text[256];
    (void)cls;
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\r\n")] = 0;
    qd_log(QD_LOG_DEBUG, "libmicrohttpd: %s", text);
}

static struct MHD_Daemon *start_daemon(struct qd_http *http, int listen_fd)
{
    const struct qd_config *config = http->server->config;
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_TURBO;
    return MHD_start_daemon(flags, 0, NULL, NULL, on_access, http, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
                            MHD_OPTION_LISTEN_SOCKET, listen_fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, http,
                            MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_URI_LOG_CALLBACK,
                            on_request_line, http, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
                            MHD_OPTION_CONNECTION_LIMIT, qd_http_connection_limit(config->max_connections),
                            MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)config->max_connections_per_ip,
                            MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)config->idle_timeout_s,
                            MHD_OPTION_STRICT_FOR_CLIENT, STRICT, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
}

enum qd_status qd_http_create(uv_loop_t *loop, struct qd_server *server, int listen_fd, struct qd_http **out,
                              struct qd_error *error)
{
    struct qd_http *http = qd_calloc(1, sizeof *http);
    if (!http)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the HTTP server");
    http->server = server;
    http->listen_fd = listen_fd;
    MHD_set_panic_func(on_panic, NULL);
    http->daemon = start_daemon(http, listen_fd);
    const union MHD_DaemonInfo *info = http->daemon ? MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD)
                                                    : NULL;
    if (!info || uv_poll_init(loop, &http->poll, info->epoll_fd) != 0) {
        if (http->daemon)
            MHD_stop_daemon(http->daemon);
        qd_free(http);
        return qd_fail(error, QD_ERR_UNAVAILABLE, "the HTTP server can't start");
    }
    uv_timer_init(loop, &http->timer);
    uv_timer_init(loop, &http->heartbeat);
    http->poll.data = http->timer.data = http->heartbeat.data = http;
    uv_poll_start(&http->poll, UV_READABLE, on_poll);
    uv_timer_start(&http->heartbeat, on_heartbeat, 1, HEARTBEAT_MS);
    *out = http;
    return QD_OK;
}

unsigned qd_http_connections(const struct qd_http *http) { return http->count; }
bool qd_http_idle(const struct qd_http *http) { return http->count == 0; }

bool qd_http_quiesce(struct qd_http *http, bool force)
{
    if (http->quiesced)
        return true;
    struct pollfd waiting = {.fd = http->listen_fd, .events = POLLIN};
    qd_http_refuse_newcomers(http->listen_fd);
    for (int i = 0; i < PUMP_ROUNDS && poll(&waiting, 1, 0) > 0; i++)
        qd_http_pump(http);
    if (!force && poll(&waiting, 1, 0) > 0)
        return false;
    http->quiesced = true;
    int fd = MHD_quiesce_daemon(http->daemon);
    if (fd >= 0)
        close(fd);
    return true;
}

void qd_http_close_quiet(struct qd_http *http)
{
    uint64_t now = qd_now_ns();
    for (struct qd_connection *c = http->connections; c; c = c->next) {
        int unread = 0;
        if (c->request || c->target || now - c->quiet_ns < LINGER_NS)
            continue;
        if (ioctl(c->fd, FIONREAD, &unread) != 0 || unread == 0)
            shutdown(c->fd, SHUT_RDWR);
    }
    qd_http_pump(http);
}

static void free_http(uv_handle_t *handle) { qd_free(handle->data); }
static void close_heartbeat(uv_handle_t *handle)
{
    struct qd_http *http = handle->data;
    uv_close((uv_handle_t *)&http->heartbeat, free_http);
}
static void close_timer(uv_handle_t *handle)
{
    struct qd_http *http = handle->data;
    uv_close((uv_handle_t *)&http->timer, close_heartbeat);
}

void qd_http_destroy(struct qd_http **http)
{
    struct qd_http *h = *http;
    *http = NULL;
    if (!h)
        return;
    uv_timer_stop(&h->timer);
    uv_timer_stop(&h->heartbeat);
    uv_poll_stop(&h->poll);
    MHD_stop_daemon(h->daemon);
    uv_close((uv_handle_t *)&h->poll, close_timer);
}
