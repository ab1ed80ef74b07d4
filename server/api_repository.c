/* The repository index: which models there are and why one can't be served. Loading and unloading by request do not
 * exist yet. */
#include "server/api.h"

#include "server/codec_json.h"
#include "server/routes.h"
#include "server/serve.h"

#include <string.h>

void qd_api_write_index(struct qd_text *out, struct qd_repository *repository, bool ready_only)
{
    bool first = true;
    qd_text_puts(out, "[");
    for (size_t i = 0; i < qd_repository_count(repository); i++) {
        const struct qd_model_entry *entry = qd_repository_at(repository, i);
        if (ready_only && entry->state != QD_STATE_READY)
            continue;
        qd_text_puts(out, first ? "{\"name\":" : ",{\"name\":");
        qd_text_json_string(out, entry->name);
        qd_text_printf(out, ",\"version\":\"" QD_MODEL_VERSION "\",\"state\":\"%s\",\"reason\":",
                       qd_model_state_name(entry->state));
        qd_text_json_string(out, entry->reason.text);
        qd_text_puts(out, "}");
        first = false;
    }
    qd_text_puts(out, "]");
}

/* ------------------------------------------------------------------ handlers */

/* The body: nothing, or {"ready": bool}; other keys are ignored. */
struct index_body {
    int depth;
    bool is_ready_key, ready_only, wrong;
};

static enum qd_status index_token(void *ctx, const struct qd_json_token *token, struct qd_error *error)
{
    struct index_body *body = ctx;
    bool value = body->depth == 1 && body->is_ready_key && token->event != QD_JSON_KEY &&
                 token->event != QD_JSON_OBJECT_END;
    if (body->depth == 0 && token->event != QD_JSON_OBJECT)
        return qd_fail(error, QD_ERR_INVALID, "the body must be a JSON object");
    if (value && token->event != QD_JSON_TRUE && token->event != QD_JSON_FALSE)
        return qd_fail(error, QD_ERR_INVALID, "'ready' must be true or false");
    if (value)
        body->ready_only = token->event == QD_JSON_TRUE;
    if (token->event == QD_JSON_OBJECT || token->event == QD_JSON_ARRAY)
        body->depth++;
    else if (token->event == QD_JSON_OBJECT_END || token->event == QD_JSON_ARRAY_END)
        body->depth--;
    body->is_ready_key = token->event == QD_JSON_KEY && body->depth == 1 && strcmp(token->text, "ready") == 0;
    return QD_OK;
}

void qd_handle_index(struct qd_http_request *request)
{
    struct index_body body = {0};
    struct qd_error error = {0};
    struct qd_text text = {0};
    enum qd_status status = QD_OK;
    if (request->body_bytes) {
        struct qd_json json;
        qd_json_init(&json, index_token, &body);
        status = qd_json_feed(&json, request->body, request->body_bytes, &error);
        if (!status)
            status = qd_json_end(&json, &error);
        qd_json_release(&json);
    }
    if (status) {
        qd_http_fail(request, &error);
        return;
    }
    qd_api_write_index(&text, request->server->repository, body.ready_only);
    qd_api_respond_json(request, &text);
}
