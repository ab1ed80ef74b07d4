/* The server itself: alive, ready, who it is; its own description; and what all handlers share (finding the model,
 * answering text). */
#include "server/api.h"

#include "base/mem.h"
#include "server/routes.h"
#include "server/serve.h"

#include <string.h>

#ifndef QD_VERSION
#define QD_VERSION "unknown"
#endif

/* ------------------------------------------------------------------ shared */

struct qd_model_entry *qd_api_model(const struct qd_http_request *request, struct qd_error *error)
{
    const char *name = qd_http_param(request, "model");
    struct qd_model_entry *entry = name ? qd_repository_find(request->server->repository, name, strlen(name)) : NULL;
    if (!entry)
        qd_fail(error, QD_ERR_NOT_FOUND, "there is no model '%.128s'", name ? name : "");
    return entry;
}

struct qd_model_entry *qd_api_ready_model(const struct qd_http_request *request, struct qd_error *error)
{
    struct qd_model_entry *entry = qd_api_model(request, error);
    if (!entry || entry->state == QD_STATE_READY)
        return entry;
    qd_fail(error, QD_ERR_UNAVAILABLE, "model '%s' is %s%s%.300s", entry->name, qd_model_state_name(entry->state),
            entry->reason.text[0] ? ": " : "", entry->reason.text);
    return NULL;
}

void qd_api_respond(struct qd_http_request *request, int code, const char *content_type, struct qd_text *text)
{
    if (text->failed) {
        struct qd_error error;
        qd_fail(&error, QD_ERR_NO_MEMORY, "out of memory for an answer");
        qd_text_free(text);
        qd_http_fail(request, &error);
        return;
    }
    struct qd_http_piece piece = {text->bytes, text->length};
    qd_http_respond(request, code, content_type, &piece, text->length ? 1 : 0, qd_free, text->bytes);
    *text = (struct qd_text){0};
}

void qd_api_respond_json(struct qd_http_request *request, struct qd_text *text)
{
    qd_api_respond(request, 200, "application/json", text);
}

/* ------------------------------------------------------------------ handlers */

static void respond_constant(struct qd_http_request *request, const char *text)
{
    qd_http_respond_json(request, 200, text, strlen(text));
}

void qd_handle_live(struct qd_http_request *request) { respond_constant(request, "{\"live\":true}"); }

void qd_handle_ready(struct qd_http_request *request)
{
    struct qd_error error;
    if (!request->server->draining && qd_repository_ready(request->server->repository)) {
        respond_constant(request, "{\"live\":true,\"ready\":true}");
        return;
    }
    qd_fail(&error, QD_ERR_UNAVAILABLE, request->server->draining ? "the server is stopping" : "no model is ready");
    qd_http_fail(request, &error);
}

void qd_handle_server(struct qd_http_request *request)
{
    respond_constant(request,
                     "{\"name\":\"quantd\",\"version\":\"" QD_VERSION "\",\"extensions\":[\"binary_tensor_data\","
                     "\"model_configuration\",\"parameters\",\"statistics\"]}");
}
