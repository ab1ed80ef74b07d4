/*
 * One HTTP/1.1 request and its reply over a kept connection: what a quantd and the proxies before it say, strictly read
 * (lengths in decimal, no two of them, limits on head and body). No redirects, no cookies, no compression, no TLS.
 */
#include "clients/c/internal/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { MAX_LINE_BYTES = 8192, MAX_HEADERS = 128, READ_BYTES = 16384, MAX_PIECES = 64, MAX_INTERIM = 8 };

struct reader {
    int fd;
    int64_t deadline_ms;
    size_t limit_bytes; /* of the body */
    size_t at, end, seen;
    struct quantd_client_error *error;
    char bytes[READ_BYTES];
};

/* What the head of a reply says about its body and the connection. */
struct head {
    int status;
    size_t length, json_bytes;
    bool has_length, has_json_bytes, chunked, close;
};

static enum quantd_client_status garbled(struct reader *r, const char *what)
{
    return quantd_client_fail(r->error, QUANTD_CLIENT_PROTOCOL, "the answer can't be read: %s", what);
}

/* More bytes into an empty buffer; at the end of the stream CONNECT. */
static enum quantd_client_status refill(struct reader *r)
{
    size_t got = 0;
    enum quantd_client_status status = quantd_client_socket_receive(r->fd, r->bytes, sizeof r->bytes, &got,
                                                                    r->deadline_ms, r->error);
    if (status != QUANTD_CLIENT_OK)
        return status;
    r->at = 0;
    r->end = got;
    r->seen += got;
    if (got == 0)
        return quantd_client_fail(r->error, QUANTD_CLIENT_CONNECT, "the daemon closed the connection %s",
                                  r->seen ? "in the middle of its answer" : "without an answer");
    return QUANTD_CLIENT_OK;
}

/* A line without its end. */
static enum quantd_client_status read_line(struct reader *r, char line[MAX_LINE_BYTES])
{
    size_t length = 0;
    for (;;) {
        if (r->at == r->end) {
            enum quantd_client_status status = refill(r);
            if (status != QUANTD_CLIENT_OK)
                return status;
        }
        char c = r->bytes[r->at++];
        if (c == '\n')
            break;
        if (c == 0)
            return garbled(r, "a zero byte in its head");
        if (length + 1 >= MAX_LINE_BYTES)
            return garbled(r, "a line of its head is too long");
        line[length++] = c;
    }
    if (length && line[length - 1] == '\r')
        length--;
    line[length] = 0;
    return QUANTD_CLIENT_OK;
}

static enum quantd_client_status read_body(struct reader *r, size_t length, struct quantd_client_text *body)
{
    if (length > r->limit_bytes || body->length > r->limit_bytes - length)
        return quantd_client_fail(r->error, QUANTD_CLIENT_PROTOCOL, "the answer is larger than %zu bytes",
                                  r->limit_bytes);
    while (length > 0) {
        if (r->at == r->end) {
            enum quantd_client_status status = refill(r);
            if (status != QUANTD_CLIENT_OK)
                return status;
        }
        size_t n = r->end - r->at < length ? r->end - r->at : length;
        quantd_client_text_put(body, r->bytes + r->at, n);
        if (body->failed)
            return quantd_client_fail(r->error, QUANTD_CLIENT_MEMORY, "no memory for the answer");
        r->at += n;
        length -= n;
    }
    return QUANTD_CLIENT_OK;
}

/* All digits of that base, nothing else, no overflow. */
static bool parse_size(const char *text, size_t digits, size_t base, size_t *value)
{
    size_t n = 0;
    if (digits == 0)
        return false;
    for (size_t i = 0; i < digits; i++) {
        char c = text[i];
        size_t digit = c >= '0' && c <= '9'   ? (size_t)(c - '0')
                       : c >= 'a' && c <= 'f' ? (size_t)(c - 'a' + 10)
                       : c >= 'A' && c <= 'F' ? (size_t)(c - 'A' + 10)
                                              : 99;
        if (digit >= base || __builtin_mul_overflow(n, base, &n) || __builtin_add_overflow(n, digit, &n))
            return false;
    }
    *value = n;
    return true;
}

static enum quantd_client_status read_status(struct reader *r, const char *line, struct head *head)
{
    size_t code = 0;
    if (strncmp(line, "HTTP/1.", 7) != 0 || (line[7] != '0' && line[7] != '1') || line[8] != ' ' ||
        strnlen(line + 9, 3) < 3 || !parse_size(line + 9, 3, 10, &code) || (line[12] != ' ' && line[12] != 0) ||
        code < 100)
        return garbled(r, "this is not HTTP/1.1");
    head->status = (int)code;
    head->close = line[7] == '0';
    return QUANTD_CLIENT_OK;
}

static enum quantd_client_status read_length(struct reader *r, const char *value, bool *has, size_t *length)
{
    size_t n = 0;
    if (!parse_size(value, strlen(value), 10, &n) || (*has && n != *length))
        return garbled(r, "a length in its head is no number, or there are two");
    *has = true;
    *length = n;
    return QUANTD_CLIENT_OK;
}

static enum quantd_client_status read_header(struct reader *r, char *line, struct head *head)
{
    char *value = strchr(line, ':');
    if (!value || value == line || line[0] == ' ' || line[0] == '\t')
        return garbled(r, "a line of its head has no name");
    *value++ = 0;
    value += strspn(value, " \t");
    for (size_t n = strlen(value); n && (value[n - 1] == ' ' || value[n - 1] == '\t'); n--)
        value[n - 1] = 0;
    if (strcasecmp(line, "Content-Length") == 0)
        return read_length(r, value, &head->has_length, &head->length);
    if (strcasecmp(line, "Inference-Header-Content-Length") == 0)
        return read_length(r, value, &head->has_json_bytes, &head->json_bytes);
    if (strcasecmp(line, "Connection") == 0 && strcasecmp(value, "close") == 0)
        head->close = true;
    if (strcasecmp(line, "Transfer-Encoding") == 0) {
        if (strcasecmp(value, "chunked") != 0 || head->chunked)
            return garbled(r, "its transfer encoding is unknown");
        head->chunked = true;
    }
    if (strcasecmp(line, "Content-Encoding") == 0 && strcasecmp(value, "identity") != 0)
        return garbled(r, "it is compressed, which was not asked for");
    return QUANTD_CLIENT_OK;
}

static enum quantd_client_status read_head(struct reader *r, struct head *head)
{
    char line[MAX_LINE_BYTES];
    for (int interim = 0; interim < MAX_INTERIM; interim++) {
        *head = (struct head){0};
        enum quantd_client_status status = read_line(r, line);
        if (status == QUANTD_CLIENT_OK)
            status = read_status(r, line, head);
        for (int headers = 0; status == QUANTD_CLIENT_OK; headers++) {
            status = read_line(r, line);
            if (status != QUANTD_CLIENT_OK || line[0] == 0)
                break;
            status = headers < MAX_HEADERS ? read_header(r, line, head) : garbled(r, "its head has too many lines");
        }
        if (status != QUANTD_CLIENT_OK || head->status >= 200) /* 1xx: the real answer follows */
            return status;
    }
    return garbled(r, "it never comes to the point");
}

static enum quantd_client_status read_chunks(struct reader *r, struct quantd_client_text *body)
{
    char line[MAX_LINE_BYTES];
    for (size_t length = 1; length > 0;) {
        enum quantd_client_status status = read_line(r, line);
        if (status == QUANTD_CLIENT_OK && !parse_size(line, strcspn(line, "; \t"), 16, &length))
            status = garbled(r, "a chunk of it has no length");
        if (status == QUANTD_CLIENT_OK)
            status = read_body(r, length, body);
        if (status == QUANTD_CLIENT_OK && length > 0) {
            status = read_line(r, line);
            if (status == QUANTD_CLIENT_OK && line[0])
                status = garbled(r, "a chunk of it does not end where it should");
        }
        if (status != QUANTD_CLIENT_OK)
            return status;
    }
    for (int trailers = 0; trailers < MAX_HEADERS; trailers++) {
        enum quantd_client_status status = read_line(r, line);
        if (status != QUANTD_CLIENT_OK || line[0] == 0)
            return status;
    }
    return garbled(r, "its tail has too many lines");
}

static enum quantd_client_status read_to_end(struct reader *r, struct quantd_client_text *body)
{
    for (;;) {
        enum quantd_client_status status = read_body(r, r->end - r->at, body);
        if (status != QUANTD_CLIENT_OK)
            return status;
        size_t got = 0;
        status = quantd_client_socket_receive(r->fd, r->bytes, sizeof r->bytes, &got, r->deadline_ms, r->error);
        r->at = 0;
        r->end = got;
        if (status != QUANTD_CLIENT_OK || got == 0)
            return status;
    }
}

static enum quantd_client_status read_reply(struct reader *r, struct quantd_client_reply *reply, bool *keep)
{
    struct head head;
    enum quantd_client_status status = read_head(r, &head);
    if (status != QUANTD_CLIENT_OK)
        return status;
    bool empty = head.status == 204 || head.status == 304;
    if (head.chunked && head.has_length)
        status = garbled(r, "it has a length and chunks");
    else if (empty)
        status = QUANTD_CLIENT_OK;
    else if (head.chunked)
        status = read_chunks(r, &reply->body);
    else if (head.has_length)
        status = read_body(r, head.length, &reply->body);
    else {
        head.close = true;
        status = read_to_end(r, &reply->body);
    }
    if (status == QUANTD_CLIENT_OK && head.has_json_bytes && head.json_bytes > reply->body.length)
        status = garbled(r, "its Inference-Header-Content-Length is larger than its body");
    quantd_client_text_put(&reply->body, "", 0); /* so that an empty body is an empty string */
    if (status == QUANTD_CLIENT_OK && reply->body.failed)
        status = quantd_client_fail(r->error, QUANTD_CLIENT_MEMORY, "no memory for the answer");
    reply->status = head.status;
    reply->json_bytes = head.has_json_bytes ? head.json_bytes : reply->body.length;
    *keep = !head.close && r->at == r->end;
    return status;
}

static void write_head(const struct quantd_client *client, const struct quantd_client_exchange *exchange,
                       size_t body_bytes, struct quantd_client_text *text)
{
    quantd_client_text_printf(text, "%s %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: quantd-client\r\n", exchange->method,
                              client->prefix, exchange->path, client->authority);
    if (exchange->json_bytes)
        quantd_client_text_printf(text, "Inference-Header-Content-Length: %zu\r\n", exchange->json_bytes);
    if (strcmp(exchange->method, "GET") != 0)
        quantd_client_text_printf(text, "Content-Type: application/%s\r\nContent-Length: %zu\r\n",
                                  exchange->json_bytes ? "octet-stream" : "json", body_bytes);
    quantd_client_text_put(text, "\r\n", 2);
}

/* One try. *untouched: the kept connection broke before a byte of an answer came. */
static enum quantd_client_status try_once(struct quantd_client *client, const struct quantd_client_piece *pieces,
                                          size_t count, int64_t deadline_ms, struct quantd_client_reply *reply,
                                          bool *untouched, struct quantd_client_error *error)
{
    struct reader r = {
        .fd = client->fd, .deadline_ms = deadline_ms, .limit_bytes = client->options.max_reply_bytes, .error = error};
    struct quantd_client_error unsent;
    bool keep = false, answered = false;
    enum quantd_client_status sent = quantd_client_socket_send(client->fd, pieces, count, deadline_ms, &answered,
                                                               &unsent);
    if (sent == QUANTD_CLIENT_CONNECT) /* a daemon that refuses a body may answer, close, and never read it */
        r.deadline_ms = quantd_client_now_ms() + 1000 < deadline_ms ? quantd_client_now_ms() + 1000 : deadline_ms;
    enum quantd_client_status status = sent == QUANTD_CLIENT_TIMEOUT ? QUANTD_CLIENT_TIMEOUT
                                                                     : read_reply(&r, reply, &keep);
    if (status != QUANTD_CLIENT_OK && sent != QUANTD_CLIENT_OK)
        status = quantd_client_fail(error, sent, "%s", unsent.text);
    *untouched = status == QUANTD_CLIENT_CONNECT && r.seen == 0;
    if (status != QUANTD_CLIENT_OK)
        quantd_client_text_free(&reply->body);
    if (status != QUANTD_CLIENT_OK || sent != QUANTD_CLIENT_OK || answered || !keep)
        quantd_client_http_close(client);
    return status;
}

enum quantd_client_status quantd_client_http_ask(struct quantd_client *client,
                                                 const struct quantd_client_exchange *exchange,
                                                 struct quantd_client_reply *reply, struct quantd_client_error *error)
{
    int64_t deadline_ms = quantd_client_now_ms() + client->options.timeout_ms;
    struct quantd_client_piece pieces[MAX_PIECES];
    struct quantd_client_text head = {0};
    enum quantd_client_status status = QUANTD_CLIENT_OK;
    size_t body_bytes = 0;
    if (exchange->piece_count >= MAX_PIECES)
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID, "more than %d tensors in one request", MAX_PIECES - 2);
    for (size_t i = 0; i < exchange->piece_count; i++) {
        pieces[i + 1] = exchange->pieces[i];
        body_bytes += exchange->pieces[i].length;
    }
    *reply = (struct quantd_client_reply){0};
    write_head(client, exchange, body_bytes, &head);
    if (head.failed)
        status = quantd_client_fail(error, QUANTD_CLIENT_MEMORY, "no memory for a request");
    pieces[0] = (struct quantd_client_piece){head.bytes, head.length};
    if (client->fd >= 0 && !quantd_client_socket_idle(client->fd))
        quantd_client_http_close(client);
    for (bool again = status == QUANTD_CLIENT_OK; again;) {
        bool reused = client->fd >= 0, untouched = false;
        again = false;
        if (!reused)
            status = quantd_client_socket_open(client->host, client->port, client->options.connect_timeout_ms,
                                               &client->fd, error);
        if (status == QUANTD_CLIENT_OK || reused) {
            status = try_once(client, pieces, exchange->piece_count + 1, deadline_ms, reply, &untouched, error);
            again = reused && untouched && strcmp(exchange->method, "GET") == 0;
            if (again)
                status = QUANTD_CLIENT_OK;
        }
    }
    quantd_client_text_free(&head);
    return status;
}

void quantd_client_http_close(struct quantd_client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
}
