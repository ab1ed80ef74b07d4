/*
 * A client and its address, asking and turning refusals into errors, and the calls that carry no table: ready, freeze,
 * unfreeze, reset, get. Tables are in reports.c, tensors in infer.c.
 */
#include "clients/c/internal/wire.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { CONNECT_TIMEOUT_MS = 5000, TIMEOUT_MS = 60000, MAX_REPLY_BYTES = 1 << 28 };

/* ------------------------------------------------------------------ the address */

static bool printable(const char *text)
{
    for (; *text; text++)
        if (*text <= ' ' || *text > '~')
            return false;
    return true;
}

static bool valid_port(const char *port, size_t length)
{
    return length > 0 && length < 6 && strspn(port, "0123456789") >= length && atoi(port) > 0 && atoi(port) < 65536;
}

/* http://HOST[:PORT][/PREFIX] into the four strings of the client. */
static enum quantd_client_status parse_url(struct quantd_client *client, const char *url,
                                           struct quantd_client_error *error)
{
    if (!printable(url) || strlen(url) > 2000)
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID,
                                  "the URL holds blanks or signs that have no place there");
    if (strncasecmp(url, "https://", 8) == 0)
        return quantd_client_fail(
            error, QUANTD_CLIENT_INVALID,
            "'%.200s': this client speaks no TLS; use http:// to the daemon or to a proxy near it", url);
    if (strncasecmp(url, "http://", 7) != 0)
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID, "'%.200s' does not begin with http://", url);
    const char *authority = url + 7;
    size_t all = strcspn(authority, "/?#");
    const char *host = authority, *rest = authority + all;
    size_t host_bytes = strcspn(host, ":/?#");
    const char *after = host + host_bytes;
    if (*host == '[') {
        host++;
        host_bytes = strcspn(host, "]/?#");
        after = host + host_bytes + (host[host_bytes] == ']');
    }
    const char *port = *after == ':' ? after + 1 : "80";
    size_t port_bytes = *after == ':' ? (size_t)(rest - port) : 2;
    if (host_bytes == 0 || memchr(authority, '@', all) || (after != rest && *after != ':') ||
        !valid_port(port, port_bytes))
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID, "'%.200s' is not http://HOST[:PORT]", url);
    if (strpbrk(rest, "?#"))
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID, "'%.200s': a query has no place in the daemon's URL",
                                  url);
    size_t prefix_bytes = strlen(rest);
    while (prefix_bytes && rest[prefix_bytes - 1] == '/')
        prefix_bytes--;
    client->host = strndup(host, host_bytes);
    client->port = strndup(port, port_bytes);
    client->authority = strndup(authority, all);
    client->prefix = strndup(rest, prefix_bytes);
    if (!client->host || !client->port || !client->authority || !client->prefix)
        return quantd_client_fail(error, QUANTD_CLIENT_MEMORY, "no memory for a client");
    return QUANTD_CLIENT_OK;
}

enum quantd_client_status quantd_client_create(struct quantd_client **out, const char *url,
                                               const struct quantd_client_options *options,
                                               struct quantd_client_error *error)
{
    *out = NULL;
    struct quantd_client *client = calloc(1, sizeof *client);
    if (!client)
        return quantd_client_fail(error, QUANTD_CLIENT_MEMORY, "no memory for a client");
    client->fd = -1;
    if (options)
        client->options = *options;
    if (client->options.connect_timeout_ms <= 0)
        client->options.connect_timeout_ms = CONNECT_TIMEOUT_MS;
    if (client->options.timeout_ms <= 0)
        client->options.timeout_ms = TIMEOUT_MS;
    if (client->options.max_reply_bytes == 0)
        client->options.max_reply_bytes = MAX_REPLY_BYTES;
    enum quantd_client_status status = parse_url(client, url, error);
    if (status != QUANTD_CLIENT_OK)
        quantd_client_destroy(&client);
    *out = client;
    return status;
}

void quantd_client_destroy(struct quantd_client **client)
{
    if (!client || !*client)
        return;
    quantd_client_http_close(*client);
    free((*client)->host);
    free((*client)->port);
    free((*client)->authority);
    free((*client)->prefix);
    free(*client);
    *client = NULL;
}

/* ------------------------------------------------------------------ asking */

enum quantd_client_status quantd_client_parse(const char *bytes, size_t length, json_t **root,
                                              struct quantd_client_error *error)
{
    json_error_t why;
    *root = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, &why);
    if (!*root)
        return quantd_client_fail(error, QUANTD_CLIENT_PROTOCOL, "the answer is not JSON: %s", why.text);
    return QUANTD_CLIENT_OK;
}

/* The daemon's own sentence, {"error":".."}; without one the number must do. */
static enum quantd_client_status refused(const struct quantd_client_reply *reply, struct quantd_client_error *error)
{
    json_t *root = json_loadb(reply->body.bytes, reply->body.length, 0, NULL);
    const char *text = json_string_value(json_object_get(root, "error"));
    if (text)
        quantd_client_fail(error, QUANTD_CLIENT_REFUSED, "%s", text);
    else
        quantd_client_fail(error, QUANTD_CLIENT_REFUSED, "the daemon answered with status %d", reply->status);
    if (error)
        error->http_status = reply->status;
    json_decref(root);
    return QUANTD_CLIENT_REFUSED;
}

enum quantd_client_status quantd_client_ask(struct quantd_client *client, const struct quantd_client_exchange *exchange,
                                            struct quantd_client_reply *reply, struct quantd_client_error *error)
{
    enum quantd_client_status status = quantd_client_http_ask(client, exchange, reply, error);
    if (status == QUANTD_CLIENT_OK && reply->status != 200) {
        status = refused(reply, error);
        quantd_client_text_free(&reply->body);
    }
    return status;
}

/* "/v2/models/MODEL" and the rest; free() it. NULL without memory or for an empty name. */
static char *model_path(const char *model, const char *rest)
{
    struct quantd_client_text path = {0};
    if (!model || !*model)
        return NULL;
    quantd_client_text_printf(&path, "/v2/models/");
    quantd_client_text_segment(&path, model);
    quantd_client_text_put(&path, rest, strlen(rest));
    if (path.failed)
        quantd_client_text_free(&path);
    return path.bytes;
}

enum quantd_client_status quantd_client_ask_json(struct quantd_client *client, const char *method, const char *model,
                                                 const char *rest, json_t **root, struct quantd_client_error *error)
{
    struct quantd_client_reply reply;
    char *path = model_path(model, rest);
    *root = NULL;
    if (!path)
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID, "a model needs a name");
    struct quantd_client_exchange exchange = {.method = method, .path = path};
    enum quantd_client_status status = quantd_client_ask(client, &exchange, &reply, error);
    free(path);
    if (status != QUANTD_CLIENT_OK)
        return status;
    status = quantd_client_parse(reply.body.bytes, reply.body.length, root, error);
    quantd_client_text_free(&reply.body);
    return status;
}

enum quantd_client_status quantd_client_ready(struct quantd_client *client, const char *model, bool *ready,
                                              struct quantd_client_error *error)
{
    struct quantd_client_reply reply;
    struct quantd_client_error why = {0};
    char *path = model ? model_path(model, "/ready") : strdup("/v2/health/ready");
    if (!path)
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID, "a model needs a name");
    struct quantd_client_exchange exchange = {.method = "GET", .path = path};
    enum quantd_client_status status = quantd_client_ask(client, &exchange, &reply, &why);
    free(path);
    if (status == QUANTD_CLIENT_OK)
        quantd_client_text_free(&reply.body);
    bool no = status == QUANTD_CLIENT_REFUSED && why.http_status == 503;
    if (status == QUANTD_CLIENT_OK || no)
        *ready = !no;
    if (error)
        *error = why;
    return no ? QUANTD_CLIENT_OK : status;
}

static enum quantd_client_status exchange_text(struct quantd_client *client,
                                               const struct quantd_client_exchange *exchange, char **text,
                                               size_t *text_bytes, struct quantd_client_error *error)
{
    struct quantd_client_reply reply;
    *text = NULL;
    if (*exchange->path != '/' || !printable(exchange->path))
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID, "a path begins with / and holds no blanks");
    enum quantd_client_status status = quantd_client_ask(client, exchange, &reply, error);
    if (status != QUANTD_CLIENT_OK)
        return status;
    *text = reply.body.bytes;
    *text_bytes = reply.body.length;
    return QUANTD_CLIENT_OK;
}

enum quantd_client_status quantd_client_get(struct quantd_client *client, const char *path, char **text,
                                            size_t *text_bytes, struct quantd_client_error *error)
{
    const struct quantd_client_exchange exchange = {.method = "GET", .path = path};
    return exchange_text(client, &exchange, text, text_bytes, error);
}

enum quantd_client_status quantd_client_send(struct quantd_client *client, const char *method, const char *path,
                                             const char *body, char **text, size_t *text_bytes,
                                             struct quantd_client_error *error)
{
    const struct quantd_client_piece piece = {body, body ? strlen(body) : 0};
    const struct quantd_client_exchange exchange = {
        .method = method, .path = path, .pieces = &piece, .piece_count = body != NULL};
    return exchange_text(client, &exchange, text, text_bytes, error);
}

/* ------------------------------------------------------------------ learning */

static enum quantd_client_status change(struct quantd_client *client, const char *model, const char *rest,
                                        struct quantd_client_learning *now, struct quantd_client_error *error)
{
    static const struct quantd_client_field fields[] = {
        {"epoch", QUANTD_CLIENT_COUNT, offsetof(struct quantd_client_learning, epoch), false},
        {"requests", QUANTD_CLIENT_COUNT, offsetof(struct quantd_client_learning, requests), false},
        {"frozen", QUANTD_CLIENT_FLAG, offsetof(struct quantd_client_learning, frozen), false}};
    struct quantd_client_learning unused;
    json_t *root;
    enum quantd_client_status status = quantd_client_ask_json(client, "POST", model, rest, &root, error);
    if (status == QUANTD_CLIENT_OK)
        status = quantd_client_read_fields(root, fields, sizeof fields / sizeof fields[0], now ? now : &unused,
                                           "the answer", error);
    json_decref(root);
    return status;
}

enum quantd_client_status quantd_client_freeze(struct quantd_client *client, const char *model,
                                               struct quantd_client_learning *now, struct quantd_client_error *error)
{
    return change(client, model, "/ranges/freeze", now, error);
}

enum quantd_client_status quantd_client_unfreeze(struct quantd_client *client, const char *model,
                                                 struct quantd_client_learning *now, struct quantd_client_error *error)
{
    return change(client, model, "/ranges/unfreeze", now, error);
}

enum quantd_client_status quantd_client_reset(struct quantd_client *client, const char *model,
                                              struct quantd_client_learning *now, struct quantd_client_error *error)
{
    return change(client, model, "/ranges/reset", now, error);
}
