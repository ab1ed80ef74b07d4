/* FunctionProto: the model's own functions. A call of one gives way to the nodes of its body, read as if they stood in
 * the caller's graph; here is what a name or an attribute means in one such call. Not for putting the nodes in
 * (graph_proto.c). */
#include "engine/onnx/internal.h"

#include <string.h>

enum { NAME = 1, INPUT = 4, OUTPUT = 5, OPSET = 9, DOMAIN = 10, DEFAULT = 11, OVERLOAD = 13 };
enum { CALL_INPUT = 1, CALL_OUTPUT = 2, CALL_ATTRIBUTE = 5, ATTR_NAME = 1, ATTR_REFERENCE = 21 };

static enum qd_status no_memory(struct qd_import *im)
{
    return qd_fail(im->error, QD_ERR_NO_MEMORY, "no memory to import the model");
}

/* What tells functions apart, in one text; names hold no zero byte, so that can stand between them. */
static size_t function_key(char *to, struct qd_text domain, struct qd_text name, struct qd_text overload)
{
    const struct qd_text parts[] = {domain, name, overload};
    size_t n = 0;
    for (int i = 0; i < 3; i++) {
        if (to && parts[i].length)
            memcpy(to + n, parts[i].bytes, parts[i].length);
        n += parts[i].length + 1;
    }
    return n;
}

static enum qd_status keep(struct qd_import *im, struct qd_text message)
{
    if (im->function_count == im->function_room) {
        int room = im->function_room ? im->function_room * 2 : 8;
        struct qd_text *more = qd_import_alloc(im, (size_t)room, sizeof *more);
        if (!more)
            return im->error->status;
        if (im->function_count)
            memcpy(more, im->function_list, (size_t)im->function_count * sizeof *more);
        im->function_list = more;
        im->function_room = room;
    }
    im->function_list[im->function_count++] = message;
    return QD_OK;
}

enum qd_status qd_import_add_function(struct qd_import *im, struct qd_text message)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text name = {0}, domain_bytes = {0}, overload = {0};
    const char *domain;
    int value;
    bool sound = true;
    while (qd_wire_next(&cursor, &field)) {
        bool text = field.number == NAME || field.number == DOMAIN || field.number == OVERLOAD;
        sound = sound && (!text || field.type == QD_WIRE_BYTES);
        if (field.number == NAME)
            name = field.bytes;
        else if (field.number == DOMAIN)
            domain_bytes = field.bytes;
        else if (field.number == OVERLOAD)
            overload = field.bytes;
    }
    if (cursor.bad || !sound)
        return qd_import_malformed(im, "function");
    enum qd_status status = qd_import_domain(im, domain_bytes, &domain);
    if (status)
        return status;
    struct qd_text domain_text = {domain, strlen(domain)};
    size_t length = function_key(NULL, domain_text, name, overload);
    char *key = qd_import_alloc(im, length, 1);
    if (!key)
        return im->error->status;
    function_key(key, domain_text, name, overload);
    if (qd_map_find(&im->functions, key, length, &value))
        return qd_fail(im->error, QD_ERR_FORMAT, "two functions are called '%.*s'", (int)name.length, name.bytes);
    if (qd_map_put(&im->functions, key, length, im->function_count) != QD_OK)
        return no_memory(im);
    return keep(im, message);
}

enum qd_status qd_import_find_function(struct qd_import *im, const char *domain, const char *op,
                                       struct qd_text overload, int *function)
{
    *function = -1;
    if (im->functions.count == 0)
        return QD_OK;
    struct qd_text domain_text = {domain, strlen(domain)}, name = {op, strlen(op)};
    size_t length = function_key(NULL, domain_text, name, overload);
    char *key = qd_calloc(length, 1);
    if (!key)
        return no_memory(im);
    function_key(key, domain_text, name, overload);
    qd_map_find(&im->functions, key, length, function);
    qd_free(key);
    return QD_OK;
}

/* The texts (or messages) of one field, in the file's order; NULL with the error filled. */
static struct qd_text *list(struct qd_import *im, struct qd_text message, uint32_t number, int *count)
{
    struct qd_wire_field field;
    size_t n = 0;
    for (struct qd_cursor cursor = qd_wire_open(message); qd_wire_next(&cursor, &field);)
        n += field.number == number;
    struct qd_text *texts = qd_import_alloc(im, n, sizeof *texts);
    *count = 0;
    for (struct qd_cursor cursor = qd_wire_open(message); texts && qd_wire_next(&cursor, &field);)
        if (field.number == number) {
            if (field.type != QD_WIRE_BYTES) {
                qd_import_malformed(im, "function");
                return NULL;
            }
            texts[(*count)++] = field.bytes;
        }
    return texts;
}

enum qd_status qd_import_open_call(struct qd_scope *scope, struct qd_call_space *caller, int function,
                                   struct qd_text call, const char *name, struct qd_call_space **out)
{
    struct qd_import *im = scope->im;
    struct qd_text body = im->function_list[function];
    int depth = caller ? caller->depth + 1 : 1, opsets;
    for (const struct qd_call_space *up = caller; up; up = up->caller)
        if (up->function.bytes == body.bytes)
            return qd_fail(im->error, QD_ERR_FORMAT, "node '%s': a function of the model calls itself", name);
    if (depth > QD_IMPORT_MAX_DEPTH)
        return qd_fail(im->error, QD_ERR_UNSUPPORTED, "node '%s': more than %d calls of functions within each other",
                       name, QD_IMPORT_MAX_DEPTH);
    struct qd_call_space *space = qd_import_alloc(im, 1, sizeof *space);
    if (!space)
        return im->error->status;
    *space = (struct qd_call_space){.caller = caller, .scope = scope, .function = body, .call = call, .depth = depth};
    space->next = im->calls; /* whose map goes when the import is done */
    im->calls = space;
    space->name = name;
    space->inputs = list(im, body, INPUT, &space->input_count);
    space->outputs = space->inputs ? list(im, body, OUTPUT, &space->output_count) : NULL;
    space->given_inputs = space->outputs ? list(im, call, CALL_INPUT, &space->given_input_count) : NULL;
    space->given_outputs = space->given_inputs ? list(im, call, CALL_OUTPUT, &space->given_output_count) : NULL;
    struct qd_text *rows = space->given_outputs ? list(im, body, OPSET, &opsets) : NULL;
    space->opsets = rows ? qd_import_alloc(im, (size_t)opsets, sizeof *space->opsets) : NULL;
    if (!space->opsets)
        return im->error->status;
    if (space->given_input_count > space->input_count || space->given_output_count > space->output_count)
        return qd_fail(im->error, QD_ERR_FORMAT, "node '%s' has %d inputs and %d outputs, its function %d and %d", name,
                       space->given_input_count, space->given_output_count, space->input_count, space->output_count);
    for (int i = 0; i < opsets; i++) {
        enum qd_status status = qd_import_read_opset(im, rows[i], &space->opsets[space->opset_count++]);
        if (status)
            return status;
    }
    *out = space;
    return QD_OK;
}

/* Name and reference of an AttributeProto. */
static void read_attr_names(struct qd_text message, struct qd_text *name, struct qd_text *reference)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    *name = *reference = (struct qd_text){0};
    while (qd_wire_next(&cursor, &field))
        if (field.number == ATTR_NAME && field.type == QD_WIRE_BYTES)
            *name = field.bytes;
        else if (field.number == ATTR_REFERENCE && field.type == QD_WIRE_BYTES)
            *reference = field.bytes;
}

/* The attribute of that name among the messages of one field. */
static bool find_attr(struct qd_text in, uint32_t number, struct qd_text wanted, struct qd_text *found,
                      struct qd_text *reference)
{
    struct qd_cursor cursor = qd_wire_open(in);
    struct qd_wire_field field;
    struct qd_text name;
    while (qd_wire_next(&cursor, &field)) {
        if (field.number != number || field.type != QD_WIRE_BYTES)
            continue;
        read_attr_names(field.bytes, &name, reference);
        *found = field.bytes;
        if (name.length == wanted.length && (name.length == 0 || memcmp(name.bytes, wanted.bytes, name.length) == 0))
            return true;
    }
    return false;
}

bool qd_import_dereference(struct qd_call_space **space, struct qd_text reference, struct qd_text *message)
{
    while (*space) { /* as deep as calls nest */
        struct qd_text next;
        if (!find_attr((*space)->call, CALL_ATTRIBUTE, reference, message, &next))
            return find_attr((*space)->function, DEFAULT, reference, message, &next) && next.length == 0;
        *space = (*space)->caller; /* what the caller wrote means what it means there */
        if (next.length == 0)
            return true;
        reference = next;
    }
    return false;
}
