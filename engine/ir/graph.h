/* The graph of a model: values and nodes are ids into arrays; nothing changes after the import.
 * Attributes are views into the mapped file. Not for execution order beyond the topological one (engine/plan). */
#ifndef QD_ENGINE_IR_GRAPH_H
#define QD_ENGINE_IR_GRAPH_H

#include "base/mem.h"
#include "engine/ir/tensor.h"

#define QD_NO_VALUE (-1)

struct qd_graph;

enum qd_attr_type {
    QD_ATTR_NONE,
    QD_ATTR_FLOAT,
    QD_ATTR_INT,
    QD_ATTR_STRING,
    QD_ATTR_TENSOR,
    QD_ATTR_GRAPH,
    QD_ATTR_FLOATS,
    QD_ATTR_INTS,
    QD_ATTR_STRINGS,
    QD_ATTR_TENSORS,
    QD_ATTR_GRAPHS,
};

struct qd_text { /* not zero-terminated; laid out as struct qd_string, so a list of them is a tensor's data */
    const char *bytes;
    size_t length;
};

struct qd_attr {
    const char *name;
    enum qd_attr_type type;
    size_t count; /* of the list types; 1 otherwise */
    union {
        float f;
        int64_t i;
        struct qd_text s;
        struct qd_tensor t;
        struct qd_graph *g; /* owned by the enclosing graph */
        const float *floats;
        const int64_t *ints;
        const struct qd_text *strings;
        const struct qd_tensor *tensors;
        struct qd_graph *const *graphs;
    };
};

/* What DequantizeLinear made a constant of floats from, by value ids: (q - zero) * scale. */
struct qd_integers {
    int q, scale, zero; /* q: U8 or I8, of the floats' shape; zero: QD_NO_VALUE without */
    int axis;           /* along which there are several scales; one scale: not read */
};

struct qd_value {
    const char *name;                   /* "" for a nameless one */
    struct qd_tensor info;              /* dtype, shape (-1 unknown, rank -1: unknown rank); data != NULL: a constant */
    const char *dim_names[QD_MAX_RANK]; /* symbolic names, or NULL */
    int producer;                       /* node id, -1 for inputs, constants and values of an outer graph */
    bool constant;                      /* initializer (of any size, so data may be NULL when it has no elements) */
    bool is_input, is_output;
    int outer;                          /* in a subgraph: value id in the parent graph, else QD_NO_VALUE */
    const struct qd_integers *integers; /* of a plan's constants (engine/plan/qdq.h), else NULL */
};

struct qd_node {
    const char *name, *op, *domain; /* a nameless node bears its first output's name; domain "" for the standard's */
    int64_t opset;                  /* version imported for its domain */
    int in_count, out_count, attr_count;
    const int *in, *out; /* value ids; QD_NO_VALUE = absent */
    const struct qd_attr *attrs;
    const void *program; /* of a node that the plan made itself (domain "quantd"), else NULL */
};

struct qd_graph {
    struct qd_arena *arena; /* of the whole model; owned by the outermost graph */
    struct qd_graph *parent;
    const char *name;
    int node_count, value_count, input_count, output_count;
    struct qd_node *nodes; /* topologically sorted */
    struct qd_value *values;
    int *inputs, *outputs;     /* value ids, in the model's order; inputs include those with an initializer */
    int64_t opset, ir_version; /* of the default domain; of the file */
    uint64_t digest;           /* of the file's bytes (FNV-1a 64) */
};

/* The attribute of that name and type, or NULL. A wrong type counts as absent: qd_attr_check tells them apart. [any] */
const struct qd_attr *qd_attr_find(const struct qd_node *node, const char *name);
int64_t qd_attr_int(const struct qd_node *node, const char *name, int64_t otherwise);
float qd_attr_float(const struct qd_node *node, const char *name, float otherwise);
/* List of ints; *count 0 and NULL when absent. */
const int64_t *qd_attr_ints(const struct qd_node *node, const char *name, size_t *count);
const float *qd_attr_floats(const struct qd_node *node, const char *name, size_t *count);
/* True when the string attribute equals `text`; an absent one equals `otherwise`. */
bool qd_attr_is(const struct qd_node *node, const char *name, const char *otherwise, const char *text);

/* An operator of the standard's domain, by its type. [any] */
bool qd_node_is(const struct qd_node *node, const char *op);
/* "Conv 'conv1' (opset 17)" for error sentences. Returns text. */
const char *qd_node_text(const struct qd_node *node, char *text, size_t room);

/* Reads a whole constant tensor of ints (I32 or I64) into out[], at most `room`; false when it is no such tensor. */
bool qd_tensor_ints(const struct qd_tensor *tensor, int64_t *out, size_t room, size_t *count);

/* Frees the outermost graph with all its subgraphs and its arena. */
void qd_graph_destroy(struct qd_graph **graph);

#endif
