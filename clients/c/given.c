/*
 * Ranges that are given to a model, and taken back. Not for reading what it learned (reports.c).
 */
#include "clients/c/internal/wire.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum quantd_client_status quantd_client_set_ranges(struct quantd_client *client, const char *model, const char *json,
                                                   struct quantd_client_given *given, struct quantd_client_error *error)
{
    static const struct quantd_client_field fields[] = {
        {"epoch", QUANTD_CLIENT_COUNT, offsetof(struct quantd_client_given, epoch), false},
        {"set", QUANTD_CLIENT_COUNT, offsetof(struct quantd_client_given, set), false},
        {"taken_back", QUANTD_CLIENT_COUNT, offsetof(struct quantd_client_given, taken_back), false},
        {"ignored", QUANTD_CLIENT_COUNT, offsetof(struct quantd_client_given, ignored), false}};
    struct quantd_client_given unused;
    struct quantd_client_reply reply;
    struct quantd_client_text path = {0};
    json_t *root = NULL;
    if (!model || !*model)
        return quantd_client_fail(error, QUANTD_CLIENT_INVALID, "a model needs a name");
    quantd_client_text_printf(&path, "/v2/models/");
    quantd_client_text_segment(&path, model);
    quantd_client_text_printf(&path, "/ranges");
    const struct quantd_client_piece piece = {json, json ? strlen(json) : 0};
    const struct quantd_client_exchange exchange = {
        .method = json ? "PUT" : "DELETE", .path = path.bytes, .pieces = &piece, .piece_count = json ? 1 : 0};
    enum quantd_client_status status = path.failed ? quantd_client_fail(error, QUANTD_CLIENT_MEMORY, "out of memory")
                                                   : quantd_client_ask(client, &exchange, &reply, error);
    quantd_client_text_free(&path);
    if (status != QUANTD_CLIENT_OK)
        return status;
    status = quantd_client_parse(reply.body.bytes, reply.body.length, &root, error);
    quantd_client_text_free(&reply.body);
    if (status == QUANTD_CLIENT_OK)
        status = quantd_client_read_fields(root, fields, sizeof fields / sizeof fields[0], given ? given : &unused,
                                           "the answer", error);
    json_decref(root);
    return status;
}
