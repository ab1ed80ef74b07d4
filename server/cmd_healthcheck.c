/* `quantd healthcheck URL`: one GET over a plain socket, for containers that have no curl. Numeric addresses and
 * localhost only: a static binary has no resolver. Not an HTTP client for anything else. */
#include "config/config.h"
#include "server/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_MS 3000
#define SCHEME     "http://"

struct target {
    struct sockaddr_storage address;
    socklen_t length;
    char host[128]; /* as written, with the port, for the Host header */
    const char *path;
};

static bool parse_url(const char *url, struct target *target)
{
    char text[160];
    if (strncmp(url, SCHEME, sizeof SCHEME - 1) != 0)
        return false;
    const char *host = url + sizeof SCHEME - 1;
    size_t length = strcspn(host, "/?#");
    if (!length || length >= sizeof target->host)
        return false;
    memcpy(target->host, host, length);
    target->host[length] = 0;
    target->path = host[length] ? host + length : "/";
    /* What lands in the request line must not end it. */
    for (const char *c = host; *c; c++)
        if (*c <= ' ' || *c > '~')
            return false;
    const char *rest = strncmp(target->host, "localhost", 9) == 0 ? target->host + 9 : NULL;
    bool local = rest && (!*rest || *rest == ':');
    const char *last = strrchr(target->host, ':'), *bracket = strchr(target->host, ']');
    bool port = last && (!bracket || last > bracket);
    snprintf(text, sizeof text, "%s%s%s", local ? "127.0.0.1" : "", local ? rest : target->host, port ? "" : ":80");
    struct qd_error error;
    return target->path[0] == '/' && qd_config_address(text, &target->address, &target->length, &error) == QD_OK;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* True when the socket is ready before the deadline. */
static bool wait_for(int fd, short events, int64_t deadline_ms)
{
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = events};
        int64_t left = deadline_ms - now_ms();
        int n = left > 0 ? poll(&ready, 1, (int)left) : 0;
        if (n > 0)
            return true;
        if (n == 0)
            errno = ETIMEDOUT;
        if (n == 0 || errno != EINTR)
            return false;
    }
}

static bool connect_to(int fd, const struct target *target, int64_t deadline_ms)
{
    if (connect(fd, (const struct sockaddr *)&target->address, target->length) == 0)
        return true;
    int failure = 0;
    socklen_t size = sizeof failure;
    if (errno != EINPROGRESS || !wait_for(fd, POLLOUT, deadline_ms) ||
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) != 0)
        return false;
    errno = failure;
    return failure == 0;
}

static bool send_all(int fd, const char *bytes, size_t size, int64_t deadline_ms)
{
    while (size) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        if (sent < 0 && !wait_for(fd, POLLOUT, deadline_ms))
            return false;
        bytes += sent > 0 ? sent : 0;
        size -= sent > 0 ? (size_t)sent : 0;
    }
    return true;
}

/* The status line's code, or -1 with errno set (0: what came is not HTTP). */
static int read_status(int fd, int64_t deadline_ms)
{
    char line[64];
    size_t used = 0;
    int code;
    while (used < sizeof line - 1 && !memchr(line, '\n', used)) {
        if (!wait_for(fd, POLLIN, deadline_ms))
            return -1;
        ssize_t got = recv(fd, line + used, sizeof line - 1 - used, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        used += (size_t)got;
    }
    line[used] = 0;
    errno = 0;
    if (sscanf(line, "HTTP/1.%*1[01] %3d", &code) != 1 || !memchr(line, '\n', used))
        return -1;
    return code;
}

/* -1 with errno as read_status. */
static int ask(const struct target *target)
{
    char request[2048];
    int64_t deadline_ms = now_ms() + TIMEOUT_MS;
    int code = -1,
        length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nUser-Agent: quantd-healthcheck\r\n\r\n",
                          target->path, target->host);
    if (length < 0 || (size_t)length >= sizeof request) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = socket(target->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (connect_to(fd, target, deadline_ms) && send_all(fd, request, (size_t)length, deadline_ms))
        code = read_status(fd, deadline_ms);
    int failure = errno;
    close(fd);
    errno = failure;
    return code;
}

int qd_cmd_healthcheck(int argc, char **argv)
{
    struct target target;
    int left = qd_cmd_flags("healthcheck", NULL, 0, argc, argv);
    if (left < 0)
        return QD_EXIT_USAGE;
    if (left != 1)
        return qd_cmd_say("healthcheck", QD_EXIT_USAGE, "one URL, as http://127.0.0.1:8080/v2/health/live");
    if (!parse_url(argv[0], &target))
        return qd_cmd_say("healthcheck", QD_EXIT_USAGE,
                          "the URL must be http:// with a numeric address or localhost, is \"%.100s\"", argv[0]);
    int code = ask(&target);
    if (code < 0)
        return qd_cmd_say("healthcheck", QD_EXIT_FAILED, "%s: %s", target.host,
                          errno ? strerror(errno) : "the answer is not HTTP");
    if (code != 200)
        return qd_cmd_say("healthcheck", QD_EXIT_FAILED, "%s: answered %d", target.host, code);
    return QD_EXIT_OK;
}
