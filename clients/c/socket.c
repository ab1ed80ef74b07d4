/*
 * A TCP connection whose every wait has a deadline. The socket blocks by nature; poll() before each step and
 * MSG_DONTWAIT keep one slow peer from holding the caller longer than asked. It knows nothing of HTTP.
 */
#include "clients/c/internal/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int64_t quantd_client_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits for events until the deadline. */
static enum quantd_client_status wait_for(int fd, short events, int64_t deadline_ms, struct quantd_client_error *error)
{
    for (;;) {
        int64_t left = deadline_ms - quantd_client_now_ms();
        struct pollfd one = {.fd = fd, .events = events};
        int ready = poll(&one, 1, left < 0 ? 0 : left > 1000000000 ? 1000000000 : (int)left);
        if (ready > 0)
            return QUANTD_CLIENT_OK;
        if (ready == 0 && left <= 0)
            return quantd_client_fail(error, QUANTD_CLIENT_TIMEOUT, "the daemon did not answer in time");
        if (ready < 0 && errno != EINTR)
            return quantd_client_fail(error, QUANTD_CLIENT_CONNECT, "can't wait for the daemon: %s", strerror(errno));
    }
}

static enum quantd_client_status connect_one(const struct addrinfo *address, int timeout_ms, int *out,
                                             struct quantd_client_error *error)
{
    enum quantd_client_status status = QUANTD_CLIENT_CONNECT;
    int on = 1, broken = 0;
    socklen_t size = sizeof broken;
    int fd = socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->ai_protocol);
    if (fd < 0)
        return quantd_client_fail(error, QUANTD_CLIENT_CONNECT, "can't make a socket: %s", strerror(errno));
    if (connect(fd, address->ai_addr, address->ai_addrlen) != 0) {
        /* An interrupted connect goes on in the background, just like one that would block. */
        broken = errno == EINPROGRESS || errno == EINTR ? 0 : errno;
        if (!broken) {
            status = wait_for(fd, POLLOUT, quantd_client_now_ms() + timeout_ms, error);
            if (status != QUANTD_CLIENT_OK)
                goto fail;
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &broken, &size);
        }
        if (broken) {
            status = quantd_client_fail(error, QUANTD_CLIENT_CONNECT, "%s", strerror(broken));
            goto fail;
        }
    }
    if (fcntl(fd, F_SETFL, 0) != 0) {
        status = quantd_client_fail(error, QUANTD_CLIENT_CONNECT, "can't set up the socket: %s", strerror(errno));
        goto fail;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* only a matter of speed */
    *out = fd;
    return QUANTD_CLIENT_OK;
fail:
    close(fd);
    return status;
}

enum quantd_client_status quantd_client_socket_open(const char *host, const char *port, int timeout_ms, int *fd,
                                                    struct quantd_client_error *error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV}, *list = NULL;
    struct quantd_client_error last = {.text = "it has no address"};
    enum quantd_client_status status = QUANTD_CLIENT_CONNECT;
    int found = getaddrinfo(host, port, &hints, &list);
    if (found == EAI_ADDRFAMILY ||
        found == EAI_NONAME) { /* a machine with only a loopback interface still has 127.0.0.1 */
        hints.ai_flags = AI_NUMERICSERV;
        found = getaddrinfo(host, port, &hints, &list);
    }
    if (found != 0)
        return quantd_client_fail(error, QUANTD_CLIENT_CONNECT, "can't find the host '%.200s': %s", host,
                                  found == EAI_SYSTEM ? strerror(errno) : gai_strerror(found));
    for (const struct addrinfo *at = list; at; at = at->ai_next) {
        status = connect_one(at, timeout_ms, fd, &last);
        if (status == QUANTD_CLIENT_OK)
            break;
    }
    freeaddrinfo(list);
    if (status != QUANTD_CLIENT_OK)
        return quantd_client_fail(error, status, "can't reach quantd at %.200s port %s: %.200s", host, port, last.text);
    return QUANTD_CLIENT_OK;
}

bool quantd_client_socket_idle(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, 0) == 0;
}

enum quantd_client_status quantd_client_socket_send(int fd, const struct quantd_client_piece *pieces, size_t count,
                                                    int64_t deadline_ms, bool *answered,
                                                    struct quantd_client_error *error)
{
    *answered = false;
    for (size_t i = 0; i < count; i++) {
        const char *at = pieces[i].bytes;
        size_t left = pieces[i].length;
        while (left > 0) {
            int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (i + 1 < count ? MSG_MORE : 0);
            ssize_t sent = send(fd, at, left, flags);
            if (sent > 0) {
                at += sent;
                left -= (size_t)sent;
            } else if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
                enum quantd_client_status status = wait_for(fd, POLLOUT | POLLIN, deadline_ms, error);
                if (status != QUANTD_CLIENT_OK)
                    return status;
                if (!quantd_client_socket_idle(fd)) { /* it has heard enough, and may never read the rest */
                    *answered = true;
                    return QUANTD_CLIENT_OK;
                }
            } else if (sent < 0 && errno != EINTR)
                return quantd_client_fail(error, QUANTD_CLIENT_CONNECT, "the connection to the daemon broke: %s",
                                          strerror(errno));
        }
    }
    return QUANTD_CLIENT_OK;
}

enum quantd_client_status quantd_client_socket_receive(int fd, char *bytes, size_t length, size_t *got,
                                                       int64_t deadline_ms, struct quantd_client_error *error)
{
    for (;;) {
        enum quantd_client_status status = wait_for(fd, POLLIN, deadline_ms, error);
        if (status != QUANTD_CLIENT_OK)
            return status;
        ssize_t received = recv(fd, bytes, length, MSG_DONTWAIT);
        if (received >= 0) {
            *got = (size_t)received;
            return QUANTD_CLIENT_OK;
        }
        if (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK)
            return quantd_client_fail(error, QUANTD_CLIENT_CONNECT, "the connection to the daemon broke: %s",
                                      strerror(errno));
    }
}
