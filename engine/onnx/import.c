/* ModelProto: versions, opsets and the way in for whole models and lone tensors. The memory of
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

/* ---------------------------------------------------------------- opsets */

int64_t qd_import_opset(const struct qd_import *im, const struct qd_call_space *space, const char *domain)
{
    const struct qd_opset *opsets = space ? space->opsets : im->opsets;
    int count = space ? space->opset_count : im->opset_count;
    for (int i = 0; i < count; i++)
        if (strcmp(opsets[i].domain, domain) == 0)
            return opsets[i].version;
    return 0;
}

static const char *shown(const char *domain) { return *domain ? domain : "ai.onnx"; }

enum qd_status qd_import_read_opset(struct qd_import *im, struct qd_text message, struct qd_opset *out)
{
    struct qd_cursor cursor = qd_wire_open(message);
    struct qd_wire_field field;
    struct qd_text domain = {0};
    bool sound = true;
    out->version = 0;
    while (qd_wire_next(&cursor, &field)) {
        if (field.number == 1) {
            sound = sound && field.type == QD_WIRE_BYTES;
            domain = field.bytes;
        } else if (field.number == 2) {
            sound = sound && field.type == QD_WIRE_VARINT;
            out->version = (int64_t)field.value;
        }
    }
    if (cursor.bad || !sound)
        return qd_import_malformed(im, "opset_import");
    enum qd_status status = qd_import_domain(im, domain, &out->domain);
    if (status == QD_OK && out->version <= 0)
        return qd_fail(im->error, QD_ERR_FORMAT, "opset %" PRId64 " of domain '%s'", out->version, shown(out->domain));
    return status;
}

static enum qd_status add_opset(struct qd_import *im, struct qd_text message)
{
    struct qd_opset *opset = &im->opsets[im->opset_count];
    if (im->opset_count == QD_IMPORT_MAX_OPSETS)
        return qd_fail(im->error, QD_ERR_UNSUPPORTED, "more than %d imported opsets", QD_IMPORT_MAX_OPSETS);
    enum qd_status status = qd_import_read_opset(im, message, opset);
    if (status)
        return status;
    int64_t before = qd_import_opset(im, NULL, opset->domain);
    if (before && before != opset->version)
        return qd_fail(im->error, QD_ERR_FORMAT, "two opsets of domain '%s' are imported", shown(opset->domain));
    im->opset_count += before == 0;
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

void qd_import_mix(struct qd_import *im, const void *bytes, size_t size)
{
    const unsigned char *at = bytes;
    size_t words = size / sizeof(uint64_t);
    for (size_t i = 0; i < words; i++) { /* by words: such files are large */
        uint64_t word;
        memcpy(&word, at + i * sizeof word, sizeof word);
        im->digest = (im->digest ^ word ^ (word >> 32)) * 0x100000001b3u;
    }
    for (size_t i = words * sizeof(uint64_t); i < size; i++)
        im->digest = (im->digest ^ at[i]) * 0x100000001b3u;
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
            status = qd_import_add_function(im, field.bytes);
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
    return qd_onnx_import_beneath(bytes, size, NULL, out, error);
}

enum qd_status qd_onnx_import_beneath(const void *bytes, size_t size, struct qd_externals *externals,
                                      struct qd_graph **out, struct qd_error *error)
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
    im.externals = externals;
    im.digest = fnv1a(bytes, size);
    status = read_model(&im, (struct qd_text){bytes, size}, &graph);
    if (status == QD_OK)
        status = qd_import_graph(&im, NULL, graph, &root);
    if (status == QD_OK)
        root->digest = im.digest; /* with what other files held */
    qd_map_clear(&im.functions);
    for (struct qd_call_space *call = im.calls; call; call = call->next)
        qd_map_clear(&call->names);
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
    return qd_import_tensor(&im, (struct qd_text){bytes, size}, out, name);
}
