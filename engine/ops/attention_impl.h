/* What the two halves of the attention operator share: its sizes for one call, and how the scratch is laid out.
 * Private to engine/ops/attention*.c. */
#ifndef QD_ENGINE_OPS_ATTENTION_IMPL_H
#define QD_ENGINE_OPS_ATTENTION_IMPL_H

#include "engine/ops/attention.h"
#include "engine/ops/helpers.h"

enum {
    ATTENTION_BLOCK_BYTES = 256 * 1024, /* of scores and weights of a block of rows */
    ATTENTION_ROWS_MAX = 96,
};

/* Q, K or V: head h of batch b begins at offset + b * batch_stride + h * head_stride, its rows are row_stride apart, in
 * elements. A dimension that is repeated has stride 0. */
struct attention_side {
    int64_t dims[4]; /* batch, heads, rows, depth */
    int64_t batch_stride, head_stride, row_stride, offset;
};

struct attention {
    int64_t batch, heads, m, n, d, dv; /* m queries and n keys of depth d, values of depth dv */
    struct attention_side q, k, v;
    bool masked, integer; /* integer: Q and K are bytes; V is, or becomes some with a scale a column */
    bool by_row;          /* integer, and Q and K are made bytes here: each row of a head has a scale */
    int64_t mask_strides[4];
    int64_t out_batch, out_head, out_row;
    float scale;
};

/* Scratch: scales, start values of zero | of each head: packed K, packed V, start values, scales of V twice | of each
 * task: signed copies while packing, then a block's scores, weights, results twice, their bytes, factors, the products'
 * own, by row queries and their scales; its observation | inputs as floats. By row a head has scales of K, too. */
struct attention_memory {
    size_t rows, depth;                               /* rows of a block; n, in whole units of the integer product */
    size_t score_bytes, weight_bytes;                 /* from row to row */
    size_t block_bytes;                               /* of a block's scores and weights */
    size_t k_bytes, v_bytes, start_bytes, head_bytes; /* of a head */
    size_t key_scale_bytes, query_bytes;              /* by row: of a head, of a block */
    size_t signed_bytes, gemm_bytes, task_bytes, scale_bytes;
    size_t float_bytes[3];
};

/* False: the shapes don't fit. */
bool qd_attention_fit(const struct qd_call *call, struct attention *a);
void qd_attention_memory(const struct qd_call *call, const struct attention *a, struct attention_memory *memory);
enum qd_status qd_attention_run(const struct qd_call *call, struct qd_error *error);

#endif
