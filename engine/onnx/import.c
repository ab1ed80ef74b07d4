/* ModelProto: versions, opsets, the model's functions, and the way in for whole models and lone tensors. The memory of
 * an import is bounded here by a multiple of the file. Not for graphs (graph_proto.c) or tensors (tensor_proto.c). */
#include "engine/onnx/internal.h"

#include <inttypes.h>
#include <string.h>

#define ARENA_CHUNK_BYTES ((size_t)16 << 10)
#define BUDGET_TIMES      64 /* the greediest parts of a file: a value of 3 bytes becomes a struct qd_value of 180 */
#define BUDGET_BASE_BYTES ((size_t)1 << 20)

enum { MODEL_IR_VERSION = 1, MODEL_GRAPH = 7, MODEL_OPSET = 8, MODEL_FUNCTION = 25 };

/* ---------------------------------------------------------------- memory and names */

static bool spend(struct qd_import *im, size_t count, size_t size)
{
    size_t bytes, whole;
    if (!qd_size_mul(count, size, &bytes) || !qd_size_add(bytes, 16, &whole) || whole > im->budget_bytes) {
        qd_fail(im->error, QD_ERR_TOO_LARGE, "the model needs more than %d times its file's size in memory",
                BUDGET_TIMES);
        return false;
    }
    im->budget_bytes -= whole;
    return true;
}

static void *or_no_memory(struct qd_import *im, void *piece)
{
    if (!piece)
        qd_fail(im->error, QD_ERR_NO_MEMORY, "no memory to import the model");
    return piece;
}

void *qd_import_alloc(struct qd_import *im, size_t count, size_t size)
{
    return spend(im, count, size) ? or_no_memory(im, qd_arena_alloc(im->arena, count, size)) : NULL;
}

void *qd_import_alloc_raw(struct qd_import *im, size_t bytes)
{
    return spend(im, bytes, 1) ? or_no_memory(im, qd_arena_alloc_raw(im->arena, bytes)) : NULL;
}

enum qd_status qd_import_malformed(struct qd_import *im, const char *what)
{
    return qd_fail(im->error, QD_ERR_FORMAT, "malformed %s", what);
}

enum qd_status qd_import_name(struct qd_import *im, struct qd_text bytes, const char *what, const char **out)
{
    *out = "";
    if (bytes.length == 0)
        return QD_OK;
    if (!qd_wire_is_text(bytes))
        return qd_fail(im->error, QD_ERR_FORMAT, "%s is not UTF-8 or holds a zero byte", what);
    if (!spend(im, bytes.length, 1))
        return im->error->status;
    const char *name = or_no_memory(im, qd_arena_strndup(im->arena, bytes.bytes, bytes.length));
    if (!name)
        return im->error->status;
    *out = name;
    return QD_OK;
}

enum qd_status qd_import_domain(struct qd_import *im, struct qd_text bytes, const char **out)
{
    static const char standard[] = "ai.onnx";
    if (bytes.length == sizeof standard - 1 && memcmp(bytes.bytes, standard, bytes.length) == 0)
        bytes.length = 0;
    return qd_import_name(im, bytes, "a domain's name", out);
}

/* ---------------------------------------------------------------- opsets and functions */

int64_t qd_import_opset(const struct qd_import *im, const char *domain)
{
    for (int i = 0; i < im->opset_count; i++)
        if (strcmp(im->opsets[i].domain, domain) == 0)
            return im->opsets[i].version;
    return 0;
}

static enum qd_status add_opset(struct qd_import *im, struct qd_text message)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text domain = {0};
    struct qd_opset *opset = &im->opsets[im->opset_count];
    int64_t version = 0;
    bool sound = true;
    while (qd_wire_next(&cursor, &field)) {
        if (field.number == 1) {
            sound = sound && field.type == QD_WIRE_BYTES;
            domain = field.bytes;
        } else if (field.number == 2) {
            sound = sound && field.type == QD_WIRE_VARINT;
            version = (int64_t)field.value;
        }
    }
    if (cursor.bad || !sound)
        return qd_import_malformed(im, "opset_import");
    if (im->opset_count == QD_IMPORT_MAX_OPSETS)
        return qd_fail(im->error, QD_ERR_UNSUPPORTED, "more than %d imported opsets", QD_IMPORT_MAX_OPSETS);
    enum qd_status status = qd_import_domain(im, domain, &opset->domain);
    if (status)
        return status;
    const char *shown = *opset->domain ? opset->domain : "ai.onnx";
    if (version <= 0)
        return qd_fail(im->error, QD_ERR_FORMAT, "opset %" PRId64 " of domain '%s'", version, shown);
    int64_t before = qd_import_opset(im, opset->domain);
    if (before && before != version)
        return qd_fail(im->error, QD_ERR_FORMAT, "two opsets of domain '%s' are imported", shown);
    opset->version = version;
    im->opset_count += before == 0;
    return QD_OK;
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

static enum qd_status add_function(struct qd_import *im, struct qd_text message)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text name = {0}, domain_bytes = {0}, overload = {0};
    const char *domain;
    int value;
    while (qd_wire_next(&cursor, &field)) {
        if (field.number == 1)
            name = field.bytes;
        else if (field.number == 10)
            domain_bytes = field.bytes;
        else if (field.number == 13)
            overload = field.bytes;
    }
    if (cursor.bad)
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
    if (!qd_map_find(&im->functions, key, length, &value) && qd_map_put(&im->functions, key, length, 0) != QD_OK)
        return qd_fail(im->error, QD_ERR_NO_MEMORY, "no memory to import the model");
    return QD_OK;
}

enum qd_status qd_import_find_function(struct qd_import *im, const char *domain, const char *op,
                                       struct qd_text overload, bool *found)
{
    int value;
    *found = false;
    if (im->functions.count == 0)
        return QD_OK;
    struct qd_text domain_text = {domain, strlen(domain)}, name = {op, strlen(op)};
    size_t length = function_key(NULL, domain_text, name, overload);
    char *key = qd_calloc(length, 1);
    if (!key)
        return qd_fail(im->error, QD_ERR_NO_MEMORY, "no memory to import the model");
    function_key(key, domain_text, name, overload);
    *found = qd_map_find(&im->functions, key, length, &value);
    qd_free(key);
    return QD_OK;
}

/* ---------------------------------------------------------------- the model */

static uint64_t fnv1a(const unsigned char *bytes, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

static enum qd_status read_model(struct qd_import *im, struct qd_text file, struct qd_text *graph)
{
    struct qd_cursor cursor = qd_wire_open(file);
    struct qd_wire_field field;
    bool found = false;
    enum qd_status status = QD_OK;
    while (status == QD_OK && qd_wire_next(&cursor, &field)) {
        bool message = field.number == MODEL_GRAPH || field.number == MODEL_OPSET || field.number == MODEL_FUNCTION;
        bool number = field.number == MODEL_IR_VERSION;
        if ((message && field.type != QD_WIRE_BYTES) || (number && field.type != QD_WIRE_VARINT)) {
            status = qd_fail(im->error, QD_ERR_FORMAT, "not an ONNX model");
        } else if (number) {
            im->ir_version = (int64_t)field.value;
        } else if (field.number == MODEL_GRAPH) {
            *graph = field.bytes;
            found = true;
        } else if (field.number == MODEL_OPSET) {
            status = add_opset(im, field.bytes);
        } else if (field.number == MODEL_FUNCTION) {
            status = add_function(im, field.bytes);
        }
    }
    if (status)
        return status;
    if (cursor.bad)
        return qd_fail(im->error, QD_ERR_FORMAT, "not an ONNX model, or cut off");
    if (!found || im->ir_version <= 0)
        return qd_fail(im->error, QD_ERR_FORMAT, "not an ONNX model: it has no %s", found ? "ir_version" : "graph");
    return QD_OK;
}

static enum qd_status open_import(struct qd_import *im, size_t size, struct qd_error *error)
{
    *im = (struct qd_import){.error = error};
    if (!qd_size_mul(size, BUDGET_TIMES, &im->budget_bytes) ||
        !qd_size_add(im->budget_bytes, BUDGET_BASE_BYTES, &im->budget_bytes))
        return qd_fail(error, QD_ERR_TOO_LARGE, "the file is too large");
    return QD_OK;
}

enum qd_status qd_onnx_import(const void *bytes, size_t size, struct qd_graph **out, struct qd_error *error)
{
    struct qd_error local;
    struct qd_import im;
    struct qd_text graph = {0};
    struct qd_graph *root = NULL;
    enum qd_status status = open_import(&im, size, error ? error : &local);
    if (status)
        return status;
    if (qd_arena_create(ARENA_CHUNK_BYTES, &im.arena) != QD_OK)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory to import the model");
    im.digest = fnv1a(bytes, size);
    status = read_model(&im, (struct qd_text){bytes, size}, &graph);
    if (status == QD_OK)
        status = qd_import_graph(&im, NULL, graph, &root);
    qd_map_clear(&im.functions);
    if (status)
        qd_arena_destroy(&im.arena);
    else
        *out = root;
    return status;
}

enum qd_status qd_onnx_tensor(const void *bytes, size_t size, struct qd_arena *arena, struct qd_tensor *out,
                              const char **name, struct qd_error *error)
{
    struct qd_error local;
    struct qd_import im;
    enum qd_status status = open_import(&im, size, error ? error : &local);
    if (status)
        return status;
    im.arena = arena;
    return qd_import_tensor(&im, (struct qd_text){bytes, size}, false, out, name);
}
