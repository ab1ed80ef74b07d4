/* An operator: how its attributes are read, how output shapes follow from inputs, and how it runs. One vtable per
 * operator, in its family's file; one row in ops.def. Control flow (If, Loop, Scan) is engine/plan's. Quantized linear
 * operators (Conv, Gemm, MatMul with constant weights) have a second, fused form in engine/ops/linear.h. */
#ifndef QD_ENGINE_OPS_OP_H
#define QD_ENGINE_OPS_OP_H

#include "base/mem.h"
#include "base/parallel.h"
#include "engine/ir/graph.h"
#include "engine/kernels/kernels.h"

#define QD_MAX_OUTPUTS 64

/* Memory for what run makes when only data tell how much: the bytes of strings. It lives as long as the lane's tensors;
 * NULL when the request may have no more. */
struct qd_lender {
    void *(*take)(struct qd_lender *lender, size_t bytes);
};

/* One application of an operator to tensors. Views are borrowed. */
struct qd_call {
    const struct qd_node *node;
    const void *prep; /* what prepare made, or NULL */
    int in_count, out_count;
    const struct qd_tensor
        *in;               /* dtype QD_NONE = absent; data NULL while shapes are inferred and the value is not known */
    struct qd_tensor *out; /* infer fills dtype and shape (layout too when it is not plain); run writes to data */
    /* Integers, for operators with QD_OP_READS_Q8 or QD_OP_WRITES_Q8: in_qp[i] is there where in[i] is u8 as carried;
     * with out_qp output 0 is written as u8 by equation (8), and every real value of it goes into *observe (may be
     * NULL) before clamping. infer sees all of these tensors as F32. */
    const struct qd_qparams *const *in_qp; /* [in_count] or NULL */
    const struct qd_qparams *out_qp;
    struct qd_observation *observe;
    void *scratch;            /* scratch() bytes, 64-byte aligned */
    struct qd_lender *lender; /* for operators with outputs of strings, which run nowhere but in a lane */
    const struct qd_kernels *kernels;
    struct qd_parallel *parallel;
};

enum qd_op_flags {
    QD_OP_VIEW = 1,       /* output 0 is input 0's bytes under another shape (Reshape, Flatten, Squeeze, Identity...) */
    QD_OP_SHAPE_ONLY = 2, /* the output depends on shapes only, never on data (Shape, Size) */
    QD_OP_MOVES =
        4, /* output 0 holds only elements of input 0: an integer tensor keeps its scale (MaxPool, Transpose...) */
    QD_OP_CHANNELS_LAST =
        8, /* run also takes input 0 in QD_CHANNELS_LAST and then writes output 0 so (Split: every output) */
    QD_OP_ELEMENTWISE = 16, /* unary, any layout, may run in place */
    QD_OP_READS_Q8 = 32,    /* F32 data inputs may come as u8 with in_qp */
    QD_OP_WRITES_Q8 = 64,   /* output 0, when it is F32, may be asked for as u8 with out_qp */
    QD_OP_ALL_CHANNELS_LAST =
        128, /* with CHANNELS_LAST: every data input comes channels last, not only input 0 (Concat, pointwise) */
    QD_OP_INT8_INSIDE = 256, /* with constant inputs 1 and 2 packed in INT8 it quantizes what it multiplies itself, row
                              * by row: integers neither come nor go (LSTM, GRU, RNN) */
    QD_OP_ROWS_INSIDE = 512, /* what wants_q8 asks for may come in floats instead: run quantizes it row by row */
};

/* What an operator may pack when a plan is compiled. */
struct qd_packing {
    const struct qd_node *node;
    const struct qd_tensor *const *constants; /* [in_count] NULL where the input is no constant */
    const struct qd_kernels *kernels;
    struct qd_arena *arena;
    bool int8; /* integers will come for what wants_q8 asked for, or QD_OP_INT8_INSIDE is to do what it says */
    bool rows; /* QD_OP_ROWS_INSIDE: what wants_q8 asked for comes in floats, to be quantized row by row */
};

struct qd_op {
    unsigned flags;
    /* Another vtable for this node, when flags depend on its attributes (Resize); NULL: this one serves all. */
    const struct qd_op *(*choose)(const struct qd_node *node);
    /* Reads and checks attributes once, when the plan is compiled; *prep lives in the arena. NULL: no attributes. */
    enum qd_status (*prepare)(const struct qd_node *node, struct qd_arena *arena, void **prep, struct qd_error *error);
    /* Inputs (bit i: input i) that are to be quantized at a site each, so that run gets them as u8; asked when the plan
     * is compiled for INT8, before pack. NULL: none is asked for, though integers may come (QD_OP_READS_Q8). */
    unsigned (*wants_q8)(const struct qd_packing *packing);
    /* After prepare, once: packs constant inputs; may replace *prep. NULL: nothing to pack. */
    enum qd_status (*pack)(const struct qd_packing *packing, void **prep, struct qd_error *error);
    /* Checks dtypes and shapes and fills call->out[].dtype/.shape. Input shapes are fully known. May read in[i].data
     * where it is not NULL; QD_ERR_NEEDS_DATA (no sentence needed) when the shape depends on data that is NULL: then it
     * is asked again when the data is there. Everything run relies on is checked here. */
    enum qd_status (*infer)(const struct qd_call *call, struct qd_error *error);
    /* Bytes run wants at call->scratch; NULL: none. After infer. */
    size_t (*scratch)(const struct qd_call *call);
    /* Computes. Never fails but for what is found in data: indices (Gather) and words (Cast): QD_ERR_INVALID. No
     * allocation but by the lender. */
    enum qd_status (*run)(const struct qd_call *call, struct qd_error *error);
};

/* A row of ops.def: this vtable serves `type` of `domain` from opset `since` on, until the next row of the same type.
 */
struct qd_op_row {
    const char *domain, *type;
    int64_t since;
    const struct qd_op *op;
};

/* The vtable for a node, by domain, type and opset. NULL and *error ("operator Foo (node 'bar', opset 17) is not
 * supported") when there is none. [any] */
const struct qd_op *qd_op_find(const struct qd_node *node, struct qd_error *error);
/* All rows, for listings. */
const struct qd_op_row *qd_op_rows(size_t *count);

/* Helpers for infer functions: a sentence that names the node. */
enum qd_status qd_op_fail(const struct qd_call *call, struct qd_error *error, enum qd_status status, const char *format,
                          ...) QD_PRINTF(4, 5);
/* Numpy broadcasting of two known shapes; false when they don't fit. */
bool qd_broadcast(const struct qd_shape *a, const struct qd_shape *b, struct qd_shape *out);

#endif
