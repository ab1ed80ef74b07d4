/* What the files of the importer share: the state of one import, its bounded memory and the parts that call each other.
 * Private to engine/onnx. Every function that returns a status has filled `im->error` when it isn't OK. */
#ifndef QD_ENGINE_ONNX_INTERNAL_H
#define QD_ENGINE_ONNX_INTERNAL_H

#include "base/map.h"
#include "engine/onnx/import.h"
#include "engine/onnx/reader.h"

#define QD_IMPORT_MAX_DEPTH  16  /* graphs within graphs */
#define QD_IMPORT_MAX_OPSETS 256 /* rows of opset_import: looked through for each node */
#define QD_IMPORT_MAX_ATTRS  256 /* of one node: looked through for each attribute */

struct qd_opset {
    const char *domain;
    int64_t version;
};

/* One model (or one lone tensor) being imported. */
struct qd_import {
    struct qd_arena *arena;
    struct qd_error *error; /* never NULL */
    size_t
        budget_bytes; /* of the arena; a multiple of the file's size, so that no file makes more than that of itself */
    int opset_count;
    struct qd_opset opsets[QD_IMPORT_MAX_OPSETS];
    struct qd_map functions; /* "domain:name:overload" of the model's own functions */
    int64_t ir_version;
    uint64_t digest;
    bool node_named; /* the error's sentence names a node: the innermost is enough */
};

/* A graph being imported. Its value ids are final; node ids are until the sort. */
struct qd_scope {
    struct qd_import *im;
    struct qd_scope *parent; /* NULL: the outermost */
    struct qd_graph *graph;  /* in the arena; its arrays are set when they are complete */
    struct qd_map names;     /* value name -> id */
    struct qd_value *values; /* grows; becomes graph->values in the end */
    int value_count, value_room, depth;
    struct qd_text *messages; /* of graph->nodes, until they are complete */
};

/* Zeroed memory of the model's arena within the budget; NULL with the error filled. */
void *qd_import_alloc(struct qd_import *im, size_t count, size_t size);
/* The same for tensors: not zeroed, 64-byte aligned. */
void *qd_import_alloc_raw(struct qd_import *im, size_t bytes);
/* A zero-terminated copy; `what` ("a node's name") is for the sentence when it is not UTF-8 or holds a zero byte:
 * FORMAT. */
enum qd_status qd_import_name(struct qd_import *im, struct qd_text bytes, const char *what,
                              const char **out) QD_MUST_CHECK;
/* "ai.onnx" becomes "". */
enum qd_status qd_import_domain(struct qd_import *im, struct qd_text bytes, const char **out) QD_MUST_CHECK;
/* FORMAT: "malformed <what>". */
enum qd_status qd_import_malformed(struct qd_import *im, const char *what);

/* TensorProto.DataType to a dtype; UNDEFINED gives QD_NONE and OK. `kind` and `name` are for the sentence. Errors:
 * UNSUPPORTED. */
enum qd_status qd_import_dtype(struct qd_import *im, int64_t onnx, const char *kind, const char *name,
                               enum qd_dtype *out) QD_MUST_CHECK;
/* A TensorProto. `name` receives its name. Strings: UNSUPPORTED, unless `carry_strings`, then a tensor without data. */
enum qd_status qd_import_tensor(struct qd_import *im, struct qd_text message, bool carry_strings, struct qd_tensor *out,
                                const char **name) QD_MUST_CHECK;

/* A ValueInfoProto; only its name when `info` is NULL. No type gives QD_NONE and rank -1. */
enum qd_status qd_import_value_name(struct qd_import *im, struct qd_text message, const char *what,
                                    const char **name) QD_MUST_CHECK;
enum qd_status qd_import_value_info(struct qd_import *im, struct qd_text message, const char *name,
                                    struct qd_tensor *info, const char *dim_names[QD_MAX_RANK]) QD_MUST_CHECK;

/* The version of the domain's operators; 0 when it isn't imported. */
int64_t qd_import_opset(const struct qd_import *im, const char *domain);
/* Whether the model brings a function of that name: then the node is a call of it. Errors: NO_MEMORY. */
enum qd_status qd_import_find_function(struct qd_import *im, const char *domain, const char *op,
                                       struct qd_text overload, bool *found) QD_MUST_CHECK;

/* An AttributeProto of a node in `scope`. Graphs in it become scopes below. */
enum qd_status qd_import_attr(struct qd_scope *scope, struct qd_text message, struct qd_attr *out) QD_MUST_CHECK;

/* A GraphProto; `parent` is NULL for the outermost. */
enum qd_status qd_import_graph(struct qd_import *im, struct qd_scope *parent, struct qd_text message,
                               struct qd_graph **out) QD_MUST_CHECK;

/* Sorts graph->nodes so that each stands behind what it needs (also by way of its subgraphs) and sets the producers. A
 * file that is sorted keeps its order. Values' producers are ids before the sort. Errors: FORMAT naming a node of a
 * cycle. */
enum qd_status qd_import_sort(struct qd_import *im, struct qd_graph *graph) QD_MUST_CHECK;

#endif
