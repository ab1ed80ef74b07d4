/* What an exported model is made of. Private to export*.c: export.c takes hold of plan and epoch, export_find.c matches
 * the plan's layers with the file's nodes, export_write.c writes. */
#ifndef QD_ENGINE_EXPORT_IMPL_H
#define QD_ENGINE_EXPORT_IMPL_H

#include "base/map.h"
#include "engine/export.h"
#include "engine/model.h"
#include "engine/onnx/reader.h"
#include "engine/onnx/writer.h"

/* A tensor that gets a QuantizeLinear and a DequantizeLinear. */
struct qd_export_tensor {
    const char *name; /* NULL: this value has none */
    const struct qd_qparams *qp;
    const float *by; /* of one with smoothed channels: what they are multiplied by before; or NULL */
    size_t channels;
    int spatial; /* dimensions behind its channels */
    bool whole;  /* its integers are all there is: every reader reads them */
    bool live;
};

/* A node of the file. */
struct qd_export_node {
    struct qd_text message, op, domain;
    struct qd_text *in, *out;
    int in_count, out_count;
    int *tensor;     /* [in_count] value whose dequantized form is read instead, or -1 */
    int layer;       /* that is written in its place, or -1 */
    bool superseded; /* a layer makes its output */
    bool live;
    int visit; /* the last search that came by */
};

/* An INT8 layer. */
struct qd_export_layer {
    struct qd_linear_spec spec;
    const char *name;     /* of what it makes */
    int node;             /* of the file, whose place and attributes it takes */
    int input;            /* value; -1: it reads floats, only its weights are integers */
    struct qd_text reads; /* when not the input's dequantized form itself: a name that follows from it */
    int axis;             /* of the output channels, in the weights */
    size_t outputs;
    float *scale, *bias; /* [outputs]; bias NULL: none */
    const float *by;     /* of a smoothed layer: what its input's columns are multiplied by; or NULL */
    float *bias_scale;   /* [outputs]; NULL: the bias stays a float */
    bool live;
};

struct qd_export {
    struct qd_model *model; /* a reference, as are the next two */
    struct qd_plan *plan;
    struct qd_epoch *epoch;
    struct qd_export_report report;
    /* of a write */
    struct qd_arena *arena;
    struct qd_error *error;
    struct qd_text graph; /* GraphProto */
    int64_t opset;        /* of the default domain */
    bool has_contrib;     /* the file imports com.microsoft */
    char prefix[24];      /* of new names: no name of the file begins with it */
    struct qd_map makers; /* name -> node of the file */
    struct qd_map inputs; /* names of the graph's inputs */
    struct qd_map values; /* name -> value of the plan */
    struct qd_map layers_by_name;
    struct qd_map needed; /* names that something live reads */
    struct qd_export_node *nodes;
    struct qd_export_layer *layers;
    struct qd_export_tensor *tensors; /* [plan's value_count] */
    int node_count, layer_count, search;
    size_t weights_room;
    int8_t *integers; /* a piece of a layer's weights */
};

/* Quantization operators of the standard know axes from this version on; before it, those of com.microsoft do. */
#define QD_EXPORT_FIRST_OPSET 13
/* Before this one no engine has integer convolutions to make of them. */
#define QD_EXPORT_LEAST_OPSET 10
/* Elements of weights that are quantized at a time. */
#define QD_EXPORT_PIECE ((size_t)64 << 10)

/* Reads the file, finds layers and tensors and what is still needed. */
enum qd_status qd_export_find(struct qd_export *x) QD_MUST_CHECK;
/* The whole ModelProto. */
void qd_export_emit_model(struct qd_writer *writer, const struct qd_export *x);
/* Visits names that a node's bodies (If, Loop, Scan) may take from outside. */
bool qd_export_names_inside(struct qd_text node, bool (*visit)(struct qd_export *x, struct qd_text name),
                            struct qd_export *x);

#endif
