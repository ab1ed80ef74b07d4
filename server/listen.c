/* The listening socket: a numeric address of ours, or the one systemd passed; and how many connections may come in by
 * it. */
#include "base/log.h"
#include "config/config.h"
#include "server/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG          1024
#define RESERVED_FILES   12 /* descriptors kept for models, /proc and the log */
#define SYSTEMD_FIRST_FD 3

/* Socket activation: LISTEN_PID names us and LISTEN_FDS says how many sockets begin at descriptor 3; we take the first.
 */
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

bool qd_http_at_end(int fd)
{
    struct pollfd end = {.fd = fd, .events = POLLRDHUP};
    int unread = 0;
    return poll(&end, 1, 0) > 0 && (end.revents & POLLRDHUP) && ioctl(fd, FIONREAD, &unread) == 0 && unread == 0;
}

void qd_http_refuse_newcomers(int listen_fd)
{
    struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = {1, &drop};
    if (setsockopt(listen_fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) != 0)
        qd_log(QD_LOG_DEBUG, "clients that connect at this moment may be turned away");
}

unsigned qd_http_connection_limit(unsigned wanted)
{
    struct rlimit files;
    int in_use = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0); /* the lowest that is free */
    if (in_use >= 0)
        close(in_use);
    if (in_use < 0 || getrlimit(RLIMIT_NOFILE, &files) != 0)
        return wanted;
    if (files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &files) != 0)
            getrlimit(RLIMIT_NOFILE, &files);
    }
    uint64_t kept = (uint64_t)in_use + RESERVED_FILES;
    uint64_t room = files.rlim_cur > kept ? files.rlim_cur - kept : 1;
    if (room >= wanted)
        return wanted;
    qd_log(QD_LOG_WARNING, "only %" PRIu64 " connections of max_connections = %u: no more files may be open", room,
           wanted);
    return (unsigned)room;
}
