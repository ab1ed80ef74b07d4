/* One HTTP request: looking things up and answering. */
#include "server/request.h"

#include "base/mem.h"
#include "server/http.h"
#include "server/routes.h"
#include "server/serve.h"
#include "server/text.h"

#include <microhttpd.h>
#include <string.h>

const char *qd_http_param(const struct qd_http_request *request, const char *name)
{
    return request->route ? qd_route_param(request->route, &request->target, name) : NULL;
}

const char *qd_http_query(const struct qd_http_request *request, const char *key, size_t i)
{
    for (size_t p = 0; p < request->target.param_count; p++)
        if (strcmp(request->target.keys[p], key) == 0 && i-- == 0)
            return request->target.values[p];
    return NULL;
}

const char *qd_http_header(const struct qd_http_request *request, const char *name)
{
    return request->connection ? qd_connection_header(request->connection, name) : NULL;
}

void qd_http_respond(struct qd_http_request *request, int code, const char *content_type,
                     const struct qd_http_piece *pieces, size_t count, void (*free_fn)(void *ctx), void *ctx)
{
    struct MHD_IoVec *vector = request->response ? NULL : qd_calloc(count ? count : 1, sizeof *vector);
    size_t used = 0;
    request->response_bytes = 0;
    for (size_t i = 0; vector && i < count; i++)
        if (pieces[i].n) {
            vector[used++] = (struct MHD_IoVec){pieces[i].bytes, pieces[i].n};
            request->response_bytes += pieces[i].n;
        }
    struct MHD_Response *response = vector ? MHD_create_response_from_iovec(vector, (unsigned)used, free_fn, ctx)
                                           : NULL;
    qd_free(vector);
    if (!response) {
        if (free_fn)
            free_fn(ctx);
        if (request->response)
            return;
        request->response_bytes = 0;
        response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
        code = 503;
    }
    request->response = response;
    request->code = code;
    if (content_type && response)
        qd_http_respond_header(request, "Content-Type", content_type);
    if (response && request->server->draining)
        qd_http_respond_header(request, "Connection", "close");
    qd_http_on_answer(request);
}

void qd_http_respond_header(struct qd_http_request *request, const char *name, const char *value)
{
    for (const char *at = value; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            return;
    if (request->response && MHD_add_response_header(request->response, name, value) != MHD_YES)
        return; /* memory is out: the answer goes without it */
}

void qd_http_respond_json(struct qd_http_request *request, int code, const char *text, size_t n)
{
    char *copy = qd_strndup(text, n);
    struct qd_http_piece piece = {copy, copy ? n : 0};
    qd_http_respond(request, copy ? code : 503, "application/json", &piece, 1, qd_free, copy);
}

void qd_http_fail(struct qd_http_request *request, const struct qd_error *error)
{
    struct qd_text text = {0};
    int code = qd_status_http(error->status);
    qd_text_puts(&text, "{\"error\":");
    qd_text_json_string(&text, error->text[0] ? error->text : qd_status_text(error->status));
    qd_text_puts(&text, "}");
    struct qd_http_piece piece = {text.bytes, text.failed ? 0 : text.length};
    qd_http_respond(request, code, "application/json", &piece, 1, qd_free, text.bytes);
    if (code == 503)
        qd_http_respond_header(request, "Retry-After", "1");
}

void qd_http_suspend(struct qd_http_request *request, struct qd_job *job)
{
    request->suspended = true;
    if (request->connection)
        qd_connection_watch(request->connection, job);
}

void qd_http_request_ref(struct qd_http_request *request) { request->refs++; }

void qd_http_request_unref(struct qd_http_request **request)
{
    struct qd_http_request *r = *request;
    *request = NULL;
    if (!r || --r->refs > 0)
        return;
    if (r->response)
        MHD_destroy_response(r->response);
    if (r->state_free && r->state)
        r->state_free(r->state);
    qd_free(r->body);
    qd_free(r);
}
