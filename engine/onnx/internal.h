/* What the files of the importer share: the state of one import, its bounded memory and the parts that call each other.
 * Private to engine/onnx. Every function that returns a status has filled `im->error` when it isn't OK. */
#ifndef QD_ENGINE_ONNX_INTERNAL_H
#define QD_ENGINE_ONNX_INTERNAL_H

#include "base/map.h"
#include "engine/onnx/external.h"
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
    struct qd_map functions;       /* "domain:name:overload" of the model's own functions: index in function_list */
    struct qd_text *function_list; /* FunctionProtos */
    int function_count, function_room;
    struct qd_call_space *calls; /* all of them */
    int64_t ir_version;
    uint64_t digest;
    struct qd_externals *externals; /* NULL: there are none to be had */
    size_t mix_left_bytes;          /* of other files, into the digest: each file's size once */
    bool node_named;                /* the error's sentence names a node: the innermost is enough */
};

/* One call of a function, whose body's nodes stand in the graph in the place of the call. */
struct qd_call_space {
    struct qd_call_space *caller;  /* of the call itself: the function it stands in, or NULL */
    struct qd_scope *scope;        /* the graph that receives the nodes */
    struct qd_text function, call; /* FunctionProto, NodeProto */
    const char *name;              /* the call's: what the body's names are shown behind */
    struct qd_map names;           /* of the body -> value ids in scope */
    const struct qd_text *inputs, *outputs, *given_inputs, *given_outputs; /* the function's names, the call's */
    int input_count, output_count, given_input_count, given_output_count, opset_count, depth;
    struct qd_opset *opsets;
    struct qd_call_space *next;
};

/* A node whose inputs and attributes are still to be read, once every name is declared. */
struct qd_pending {
    struct qd_text message; /* NULL bytes: a node that hands on what `handed_on` names */
    struct qd_text handed_on;
    struct qd_call_space *space;
};

/* A graph being imported. Its value ids are final; node ids are until the sort. */
struct qd_scope {
    struct qd_import *im;
    struct qd_scope *parent;     /* NULL: the outermost */
    struct qd_graph *graph;      /* in the arena; its arrays are set when they are complete */
    struct qd_call_space *space; /* of the node that has this graph as an attribute, or NULL */
    struct qd_call_space *now;   /* of the node being read */
    struct qd_map names;         /* value name -> id */
    struct qd_value *values;     /* grows; becomes graph->values in the end */
    int value_count, value_room, depth;
    struct qd_pending *pending; /* of graph->nodes, until they are complete */
    int node_room;
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

/* Mixes the bytes of another file into the digest. */
void qd_import_mix(struct qd_import *im, const void *bytes, size_t size);

/* TensorProto.DataType to a dtype; UNDEFINED gives QD_NONE and OK. `kind` and `name` are for the sentence. Errors:
 * UNSUPPORTED. */
enum qd_status qd_import_dtype(struct qd_import *im, int64_t onnx, const char *kind, const char *name,
                               enum qd_dtype *out) QD_MUST_CHECK;
/* A TensorProto. `name` receives its name. Strings are views into the message. */
enum qd_status qd_import_tensor(struct qd_import *im, struct qd_text message, struct qd_tensor *out,
                                const char **name) QD_MUST_CHECK;

/* A ValueInfoProto. No type gives QD_NONE and rank -1; so does a sequence between nodes (`inner`). */
enum qd_status qd_import_value_name(struct qd_import *im, struct qd_text message, const char *what,
                                    const char **name) QD_MUST_CHECK;
enum qd_status qd_import_value_info(struct qd_import *im, struct qd_text message, const char *name,
                                    struct qd_tensor *info, const char *dim_names[QD_MAX_RANK],
                                    bool inner) QD_MUST_CHECK;

/* The version of the domain's operators, in a function's body by the function's own list; 0 when it isn't imported. */
int64_t qd_import_opset(const struct qd_import *im, const struct qd_call_space *space, const char *domain);
enum qd_status qd_import_read_opset(struct qd_import *im, struct qd_text message, struct qd_opset *out) QD_MUST_CHECK;

enum qd_status qd_import_add_function(struct qd_import *im, struct qd_text message) QD_MUST_CHECK;
/* The model's function of that name, of which the node is a call then; -1: none. Errors: NO_MEMORY. */
enum qd_status qd_import_find_function(struct qd_import *im, const char *domain, const char *op,
                                       struct qd_text overload, int *function) QD_MUST_CHECK;
/* Opens a call of a function in `scope`. Errors: FORMAT (it calls itself, too many inputs), UNSUPPORTED (depth). */
enum qd_status qd_import_open_call(struct qd_scope *scope, struct qd_call_space *caller, int function,
                                   struct qd_text call, const char *name, struct qd_call_space **out) QD_MUST_CHECK;
/* The AttributeProto that a reference in *space means, and the space its own names stand in; false: it is left out. */
bool qd_import_dereference(struct qd_call_space **space, struct qd_text reference, struct qd_text *message);

/* A value of that name in the graph. */
enum qd_status qd_scope_add(struct qd_scope *scope, const char *name, int *id) QD_MUST_CHECK;
/* What a name means to a node of `space`; a value of a graph around gets a value of its own here. Not *found: nobody
 * has it. *found and QD_NO_VALUE: an input that a call leaves out. */
enum qd_status qd_scope_find(struct qd_scope *scope, const struct qd_call_space *space, struct qd_text name, int *id,
                             bool *found) QD_MUST_CHECK;
/* A node's output. *taken: there is such a value already. */
enum qd_status qd_scope_declare(struct qd_scope *scope, struct qd_call_space *space, struct qd_text name, int *id,
                                bool *taken) QD_MUST_CHECK;
/* *name becomes "call/name" in a call's body. */
enum qd_status qd_scope_qualify(struct qd_import *im, const struct qd_call_space *space,
                                const char **name) QD_MUST_CHECK;

/* An AttributeProto of a node in `scope`, of scope->now. Graphs in it become scopes below. *given stays false when it
 * refers to an attribute that the call leaves out. */
enum qd_status qd_import_attr(struct qd_scope *scope, struct qd_text message, struct qd_attr *out,
                              bool *given) QD_MUST_CHECK;

/* A GraphProto; `parent` is NULL for the outermost. */
enum qd_status qd_import_graph(struct qd_import *im, struct qd_scope *parent, struct qd_text message,
                               struct qd_graph **out) QD_MUST_CHECK;

/* Sorts graph->nodes so that each stands behind what it needs (also by way of its subgraphs) and sets the producers. A
 * file that is sorted keeps its order. Values' producers are ids before the sort. Errors: FORMAT naming a node of a
 * cycle. */
enum qd_status qd_import_sort(struct qd_import *im, struct qd_graph *graph) QD_MUST_CHECK;

#endif
