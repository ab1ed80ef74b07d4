/* The raw request target and the framing headers on arbitrary bytes: first line of the input is the target, the others
 * are "name:value" headers. What is accepted must be safe to use, lie within the struct, and survive being spelled
 * again. */
#include "server/routes.h"
#include "server/target.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int sound)
{
    if (!sound)
        abort();
}

static void check_text(const struct qd_target *target, const char *text)
{
    must(text >= target->bytes && text < target->bytes + sizeof target->bytes);
    must(memchr(text, 0, (size_t)(target->bytes + sizeof target->bytes - text)) != NULL);
    for (; *text; text++)
        must((unsigned char)*text >= 0x20 && *text != 0x7f);
}

/* Writes %XX for every byte; returns where it ends. */
static char *spell(char *at, const char *text)
{
    for (; *text; text++)
        at += sprintf(at, "%%%02x", (unsigned)(unsigned char)*text);
    return at;
}

/* Parsing is idempotent: what was taken apart, fully escaped, is taken apart into the same. */
static void check_again(const struct qd_target *target)
{
    static char text[3 * QD_TARGET_BYTES + 256];
    static struct qd_target again;
    struct qd_error error = {0};
    char *at = text;
    for (size_t i = 0; i < target->segment_count; i++) {
        *at++ = '/';
        at = spell(at, target->segments[i]);
    }
    if (target->segment_count == 0)
        *at++ = '/';
    for (size_t i = 0; i < target->param_count; i++) {
        *at++ = i ? '&' : '?';
        at = spell(at, target->keys[i]);
        *at++ = '=';
        at = spell(at, target->values[i]);
    }
    *at = 0;
    if (qd_target_parse(text, &again, &error) != QD_OK) {
        must(strlen(text) > QD_TARGET_BYTES / 2); /* escaping made it too long: the only reason allowed */
        return;
    }
    must(again.segment_count == target->segment_count && again.param_count == target->param_count);
    for (size_t i = 0; i < target->segment_count; i++)
        must(strcmp(again.segments[i], target->segments[i]) == 0);
    for (size_t i = 0; i < target->param_count; i++)
        must(strcmp(again.keys[i], target->keys[i]) == 0 && strcmp(again.values[i], target->values[i]) == 0);
}

static void check_target(const char *raw)
{
    static struct qd_target target;
    struct qd_error error = {0};
    char allowed[64];
    memset(&target, 0xa5, sizeof target);
    if (qd_target_parse(raw, &target, &error) != QD_OK) {
        must((error.status == QD_ERR_INVALID || strlen(raw) > QD_TARGET_BYTES / 2) && error.text[0] &&
             !strchr(error.text, '\n'));
        return;
    }
    must(raw[0] == '/' && target.segment_count <= QD_TARGET_MAX_SEGMENTS && target.param_count <= QD_TARGET_MAX_PARAMS);
    for (size_t i = 0; i < target.segment_count; i++) {
        const char *segment = target.segments[i];
        check_text(&target, segment);
        must(segment[0] && !strchr(segment, '/') && strcmp(segment, ".") != 0 && strcmp(segment, "..") != 0);
    }
    for (size_t i = 0; i < target.param_count; i++) {
        check_text(&target, target.keys[i]);
        check_text(&target, target.values[i]);
    }
    const struct qd_route *route = qd_routes_find("POST", &target, allowed, sizeof allowed);
    must(!route || strcmp(route->method, "POST") == 0);
    if (route && strstr(route->pattern, "{model}"))
        must(qd_route_param(route, &target, "model") == target.segments[2]);
    check_again(&target);
}

/* Returns whether the framing of these headers is sound, and checks that no sound one could be read in two ways. */
static void check_headers(const char *text, size_t size)
{
    struct qd_framing framing = {0};
    const char *end = text + size;
    unsigned odd = 0;
    while (text < end) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        line_end = line_end ? line_end : end;
        const char *colon = memchr(text, ':', (size_t)(line_end - text));
        const char *value = colon ? colon + 1 : line_end;
        size_t name_length = (size_t)((colon ? colon : line_end) - text);
        odd += name_length == 0 || memchr(text, 0, name_length) || memchr(text, ' ', name_length) ||
               memchr(value, 0, (size_t)(line_end - value)) || memchr(value, '\r', (size_t)(line_end - value));
        qd_framing_add(&framing, text, name_length, value, (size_t)(line_end - value));
        text = line_end + (line_end < end);
    }
    for (int http_1_1 = 0; http_1_1 < 2; http_1_1++) {
        const char *fault = qd_framing_fault(&framing, http_1_1);
        must(!fault || fault[0]);
        must(fault || (!odd && framing.content_length + framing.transfer_encoding <= 1 && framing.host <= 1));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *line_end = size ? memchr(data, '\n', size) : NULL;
    size_t n = line_end ? (size_t)(line_end - data) : size;
    char *raw = malloc(n + 1); /* of exactly this size, so that a read beyond it is seen */
    if (!raw)
        return 0;
    if (n)
        memcpy(raw, data, n);
    raw[n] = 0;
    check_target(raw);
    free(raw);
    if (line_end)
        check_headers((const char *)line_end + 1, size - n - 1);
    return 0;
}
