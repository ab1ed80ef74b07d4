/* Element types, shapes and tensor views. A view owns nothing: whoever made the memory says how long it lives.
 * Shapes are the model's own (logical) shapes; `layout` says in which order the elements lie in memory.
 * Part of the installed interface. Not for graphs (engine/ir/graph.h) or quantization (engine/quant). */
#ifndef QD_ENGINE_IR_TENSOR_H
#define QD_ENGINE_IR_TENSOR_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QD_MAX_RANK 8

enum qd_dtype {
#define QD_DTYPE(name, onnx, bytes, oip) QD_##name,
#include "engine/ir/dtype.def"
#undef QD_DTYPE
    QD_DTYPE_COUNT
};

enum qd_layout {
    QD_PLAIN,         /* row major in the order of the shape */
    QD_CHANNELS_LAST, /* shape [N, C, d1..dn], memory [N, d1..dn, C] */
};

/* Dimensions; -1 = not known yet (only in graphs and signatures, never in a tensor that runs). */
struct qd_shape {
    int rank;
    int64_t dims[QD_MAX_RANK];
};

/* An element of a tensor of strings: any bytes, without a zero at the end. The tensor holds views only; the bytes
 * belong to whoever made the tensor and live as long as its data: constants' in the model's file, inputs' in the
 * request's memory (qd_infer_take), those that a step makes in its lane's (qd_call.lender). So operators that move
 * elements move views, and nothing is ever freed one by one. */
struct qd_string {
    const char *bytes; /* may be NULL when length is 0 */
    size_t length;
};

struct qd_tensor {
    enum qd_dtype dtype; /* QD_NONE: an absent optional tensor */
    enum qd_layout layout;
    struct qd_shape shape;
    void *data; /* borrowed; NULL while only type and shape are known, or when there are no elements */
};

/* Bytes of one element; 0 for QD_NONE. [any] */
size_t qd_dtype_bytes(enum qd_dtype dtype);
/* "FP32", "INT64", ...; "" for QD_NONE. [any] */
const char *qd_dtype_name(enum qd_dtype dtype);
/* The inverse of qd_dtype_name; QD_NONE when unknown. [any] */
enum qd_dtype qd_dtype_from_name(const char *name, size_t length);
/* From and to TensorProto.DataType; QD_NONE (or 0) when there is none. [any] */
enum qd_dtype qd_dtype_from_onnx(int64_t onnx);
int qd_dtype_to_onnx(enum qd_dtype dtype);

/* Elements of a fully known shape; false when a dimension is negative or the product overflows. A scalar has one. [any]
 */
bool qd_shape_elems(const struct qd_shape *shape, int64_t *elems);
bool qd_shape_equal(const struct qd_shape *a, const struct qd_shape *b);
bool qd_shape_known(const struct qd_shape *shape);
/* "[1, 3, ?, 224]" into text; always zero-terminated. Returns text. */
const char *qd_shape_text(const struct qd_shape *shape, char *text, size_t room);
/* Product of dims[from..to); the caller has checked the whole shape with qd_shape_elems. */
int64_t qd_shape_span(const struct qd_shape *shape, int from, int to);

/* Elements and bytes of a tensor whose shape was checked. */
int64_t qd_tensor_elems(const struct qd_tensor *tensor);
size_t qd_tensor_bytes(const struct qd_tensor *tensor);
/* A copy that depends on nobody: the size of a block for the elements with, behind them, the bytes of strings (false:
 * too large to count), and the copy into it. The tensor has data; the block becomes the copy's data. [any] */
bool qd_tensor_block_bytes(const struct qd_tensor *tensor, size_t *bytes);
struct qd_tensor qd_tensor_copy(const struct qd_tensor *tensor, void *block);

#endif
