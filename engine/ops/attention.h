/* Attention of many heads as one operator: softmax(scale Q K^T + mask) V, without the heads' transposes and without all
 * scores in memory. The plan makes such nodes (engine/plan/attention.h), in domain "quantd"; their program is the
 * struct below, their inputs are Q, K, V and, if there is one, a mask to add. */
#ifndef QD_ENGINE_OPS_ATTENTION_H
#define QD_ENGINE_OPS_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

/* How one of Q, K, V lies. rows: a tensor [B, S, C]; head h of a row is its columns from offset + h * head_stride on.
 * Else a tensor [B, H, S, D], or [B, S, D] of one head. */
struct qd_attention_side {
    bool rows;
    int64_t offset, head_stride;
};

struct qd_attention {
    int rank;                        /* of the products' operands: 4, or 3 without heads */
    int64_t heads, size, value_size; /* of sides that are rows; else by shape */
    float scale;
    struct qd_attention_side q, k, v;
    bool by_row;   /* set when packed: Q and K come as floats, their rows become integers by a scale each */
    bool out_rows; /* the output is [B, S, H * D] instead of [B, H, S, D] or [B, S, D] */
};

#endif
