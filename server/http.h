/* libmicrohttpd inside the libuv loop: one daemon in external epoll mode, pumped from the loop, with deadlines of our
 * own. Each fault of the library that this works around has its test in tests/e2e/http_*.py. All [loop]. */
#ifndef QD_SERVER_HTTP_H
#define QD_SERVER_HTTP_H

#include "base/status.h"
#include "server/request.h"

#include <uv.h>

struct qd_http;

/* Starts answering on a listening socket (owned from now on). `server` outlives it. Errors: UNAVAILABLE, NO_MEMORY. */
enum qd_status qd_http_create(uv_loop_t *loop, struct qd_server *server, int listen_fd, struct qd_http **out,
                              struct qd_error *error) QD_MUST_CHECK;
/* Lets libmicrohttpd do what is due: after answers were given from outside its own callbacks. */
void qd_http_pump(struct qd_http *http);
unsigned qd_http_connections(const struct qd_http *http);
/* Takes in the clients that have connected already, then accepts no more; connections that are open go on. False: some
 * still wait to be taken in (the connection limit), so call it again; `force` does not wait for them. */
bool qd_http_quiesce(struct qd_http *http, bool force);
/* Closes the connections that have had no request for a moment and none on its way. */
void qd_http_close_quiet(struct qd_http *http);
/* True when no connection is left. */
bool qd_http_idle(const struct qd_http *http);
/* Stops the daemon. No request may be suspended (answer them first). Handles close with the next turns of the loop. */
void qd_http_destroy(struct qd_http **http);

/* Binds and listens on a numeric address, or takes the socket that systemd passed ($LISTEN_FDS). *port gets the real
 * port. Errors: INVALID, UNAVAILABLE (address in use...). */
enum qd_status qd_http_listen(const char *address, int *fd, unsigned *port, struct qd_error *error) QD_MUST_CHECK;

/* Has the peer closed its side, with nothing left to read? */
bool qd_http_at_end(int fd);
/* Lets no new connection reach the listener; those that clients already have open wait there for accept. */
void qd_http_refuse_newcomers(int listen_fd);
/* As many connections as wanted, but never so many that no descriptor is left for files: running out makes accept fail,
 * and libmicrohttpd without a connection then spins. Raises the soft limit of open files to the hard one. */
unsigned qd_http_connection_limit(unsigned wanted);

/* For request.c. */
void qd_http_on_answer(struct qd_http_request *request);
void qd_connection_watch(struct qd_connection *connection, struct qd_job *job);
const char *qd_connection_header(const struct qd_connection *connection, const char *name);

#endif
