/* The listening socket: a numeric address of ours, or the one systemd passed. */
#include "config/config.h"
#include "server/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 1024
#define SYSTEMD_FIRST_FD 3

/* Socket activation: LISTEN_PID names us and LISTEN_FDS says how many sockets begin at descriptor 3; we take the first. */
static int inherited_socket(void)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    if (!pid || !count || strtol(pid, NULL, 10) != (long)getpid() || strtol(count, NULL, 10) < 1)
        return -1;
    return SYSTEMD_FIRST_FD;
}

static unsigned port_of(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        return 0;
    return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                               : ((struct sockaddr_in *)&address)->sin_port);
}

enum qd_status qd_http_listen(const char *address, int *fd, unsigned *port, struct qd_error *error)
{
    struct sockaddr_storage target;
    socklen_t length;
    int on = 1, socket_fd = inherited_socket();
    if (socket_fd < 0) {
        enum qd_status status = qd_config_address(address, &target, &length, error);
        if (status)
            return status;
        socket_fd = socket(target.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (socket_fd < 0 || setsockopt(socket_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
            bind(socket_fd, (struct sockaddr *)&target, length) != 0 || listen(socket_fd, BACKLOG) != 0) {
            int why = errno;
            if (socket_fd >= 0)
                close(socket_fd);
            return qd_fail(error, QD_ERR_UNAVAILABLE, "can't listen on %s: %s", address, strerror(why));
        }
    } else if (fcntl(socket_fd, F_SETFL, O_NONBLOCK) != 0 || fcntl(socket_fd, F_SETFD, FD_CLOEXEC) != 0) {
        return qd_fail(error, QD_ERR_UNAVAILABLE, "the socket passed by LISTEN_FDS can't be used: %s", strerror(errno));
    }
    *fd = socket_fd;
    *port = port_of(socket_fd);
    return QD_OK;
}
