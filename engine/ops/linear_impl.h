/* What a linear layer is made of. Private to linear*.c: linear.c reads nodes and infers shapes, linear_pack.c quantizes
 * and packs, linear_taps.c and linear_transposed.c find the input under a window,
 * linear_depthwise.c and linear_run.c run. */
#ifndef QD_ENGINE_OPS_LINEAR_IMPL_H
#define QD_ENGINE_OPS_LINEAR_IMPL_H

#include "engine/ops/linear.h"

#define QD_MAX_SPATIAL 3

enum qd_auto_pad { QD_PAD_EXPLICIT, QD_PAD_VALID, QD_PAD_SAME_UPPER, QD_PAD_SAME_LOWER };

struct qd_geometry {
    int spatial; /* dimensions of the image: 1..3 */
    enum qd_auto_pad auto_pad;
    int64_t kernel[QD_MAX_SPATIAL], stride[QD_MAX_SPATIAL], dilation[QD_MAX_SPATIAL];
    int64_t pad_begin[QD_MAX_SPATIAL], pad_end[QD_MAX_SPATIAL];
    int64_t out_padding[QD_MAX_SPATIAL]; /* transposed convolutions */
    int64_t taps;                        /* product of kernel */
};

enum qd_linear_kind {
    QD_LINEAR_ROWS,      /* Gemm, MatMul */
    QD_LINEAR_CONV,      /* one product a group; small groups are joined to one product with zeros between them */
    QD_LINEAR_DEPTHWISE, /* one channel a group, one output each */
    QD_LINEAR_TILED, /* transposed, stride as wide as the kernel: one product a kernel row, its columns side by side */
    QD_LINEAR_TRANSPOSED, /* one product a phase (linear_transposed.c) */
};

struct qd_linear {
    const struct qd_kernels *kernels;
    const char *name; /* of the node */
    enum qd_linear_kind kind;
    bool int8;
    int weight_bits; /* INT16: of the weights; else 0 */
    int fake_bits;   /* FP32 with weights that integers of so many bits stand for; else 0 */
    bool lines;      /* pixels are too small to be pointed at: rows of A are copied together, padded to whole units of 4
                        bytes */
    /* As products: `groups` of them, each n columns of depth k = taps * channels. Depthwise: groups = 1, n = channels,
     * k = taps. Tiled: groups = kernel rows, n = kernel width * outputs. Transposed: groups = phases. */
    size_t groups, n, k, channels;
    size_t joined;  /* groups of the node that one product covers */
    size_t outputs; /* channels (columns) of the output tensor */
    size_t inputs;  /* channels (columns) of the input tensor */
    size_t depth;   /* multiply-adds of one output element, on average */
    struct qd_geometry geometry;
    unsigned char *packed; /* groups * group_bytes */
    size_t group_bytes;
    bool asymmetric;       /* INT8 and fake: weights have zero points */
    int32_t *weight_zeros; /* [groups * n] of INT8 then, as s8; else NULL */
    int32_t *sums;         /* [groups * n] INT8: column sums of w - weight_zeros */
    float *weight_scale;   /* [groups * n] INT8 */
    float *bias;           /* [groups * n] or NULL */
    struct qd_activation act;
};

/* Bytes of an element of the input. */
static inline size_t qd_linear_element(const struct qd_linear *l)
{
    return l->int8 ? 1 : l->weight_bits ? sizeof(int16_t) : sizeof(float);
}

static inline bool qd_linear_has_window(const struct qd_linear *l)
{
    return l->kind == QD_LINEAR_CONV || l->kind == QD_LINEAR_DEPTHWISE;
}

/* Kernel rows (all dimensions but the last together) and columns. */
static inline size_t qd_kernel_columns(const struct qd_geometry *g) { return (size_t)g->kernel[g->spatial - 1]; }
static inline size_t qd_kernel_rows(const struct qd_geometry *g) { return (size_t)g->taps / qd_kernel_columns(g); }

/* Where padding begins and how large the output is, for one input shape [N, C, d...]. False when it would not be
 * positive. */
bool qd_geometry_resolve(const struct qd_geometry *geometry, const struct qd_shape *in, int64_t *begin, int64_t *out);

/* Weight i of the given ones, which is output `output`'s, without its zero point: -128..127. */
int32_t qd_given_weight(const struct qd_given_weights *given, size_t output, size_t i);

/* Quantizes (or copies) and packs spec's weights into l->packed, l->sums and l->weight_scale. Errors: NO_MEMORY,
 * UNSUPPORTED when a scale is not finite. */
enum qd_status qd_linear_pack(const struct qd_linear_spec *spec, struct qd_linear *l, struct qd_arena *arena);

/* One run. */
struct qd_linear_run {
    const struct qd_linear *l;
    const struct qd_linear_call *call;
    size_t images, rows; /* rows: output pixels of one image (tiled: input pixels; transposed: of the largest
                            phase), or rows of the matrix */
    size_t width;        /* rows that lie together in input and output: all, or those of one line of the image */
    size_t row_step, row_blocks, col_step, col_blocks, tasks;
    int64_t begin[QD_MAX_SPATIAL], out_dims[QD_MAX_SPATIAL];
    bool direct; /* rows of A lie in the input as they are */
    size_t element_bytes;
    float *scale;                /* [groups * n] Sx * Sw; NULL in FP32 */
    int32_t *acc_init;           /* [groups * n] */
    void *padding;               /* one pixel of zero points */
    struct qd_observation *seen; /* [tasks] */
    unsigned char *task_scratch;
    size_t task_bytes;
};

/* Bytes of one input pixel, of one image. */
static inline size_t qd_linear_pixel_bytes(const struct qd_linear_run *r) { return r->l->inputs * r->element_bytes; }
static inline const unsigned char *qd_linear_image(const struct qd_linear_run *r, size_t image)
{
    size_t pixels = (size_t)qd_shape_span(&r->call->in->shape, 2, r->call->in->shape.rank);
    return (const unsigned char *)r->call->in->data + image * pixels * qd_linear_pixel_bytes(r);
}

/* The epilogue for columns from `col` on (counted over all products); its out and residual are at element `at`, rows
 * `stride` elements apart. */
struct qd_epilogue qd_linear_epilogue(const struct qd_linear_run *r, size_t col, size_t at, size_t stride,
                                      struct qd_observation *seen);

/* ---- linear_taps.c */
/* table[i * taps + t]: the input pixel under tap t (rows of the kernel one after the other) of output pixel first + i,
 * or r->padding. */
void qd_taps_table(const struct qd_linear_run *r, const unsigned char *image, size_t first, size_t count,
                   const void **table);
/* Columns of kernel_rows pointers under `count` output pixels of one line, from pixel `first` on: column x of pixel i
 * is at i * step + x, step as wide as the stride where pixels share columns. */
void qd_taps_columns(const struct qd_linear_run *r, const unsigned char *image, size_t first, size_t count, size_t step,
                     const void **table);
/* Rows of A copied together, channels from offset_bytes on of each tap; lines are `stride` bytes apart, of which up to
 * 15 behind the taps are written too. */
void qd_taps_lines(const struct qd_linear_run *r, const unsigned char *image, size_t first, size_t count,
                   size_t offset_bytes, size_t stride, unsigned char *lines);

/* ---- linear_transposed.c */
/* Taps that a phase has in dimension d, those that fall beyond the kernel (weight 0) included. */
static inline int64_t qd_phase_taps(const struct qd_geometry *g, int d)
{
    return (g->kernel[d] + g->stride[d] - 1) / g->stride[d];
}
/* Of each dimension: the first tap (the others follow a stride apart), the first output position and how many there are
 * (a stride apart), the input position that meets the first of both. */
struct qd_phase {
    int64_t tap[QD_MAX_SPATIAL], first[QD_MAX_SPATIAL], count[QD_MAX_SPATIAL], input[QD_MAX_SPATIAL];
};
struct qd_phase qd_phase_of(const struct qd_linear_run *r, size_t phase);
/* qd_geometry_resolve for transposed convolutions. */
bool qd_transposed_resolve(const struct qd_geometry *g, const struct qd_shape *in, int64_t *begin, int64_t *out);
/* qd_taps_table for pixels [first, first + count) of the phase's line at[] (all dimensions but the last). */
void qd_phase_table(const struct qd_linear_run *r, const unsigned char *image, const struct qd_phase *p,
                    const int64_t *at, size_t first, size_t count, const void **table);

/* ---- linear_depthwise.c */
/* Output pixels that one block takes when an image should give `share` blocks: whole lines, or less than one. */
size_t qd_depthwise_block_pixels(const struct qd_linear *l, const int64_t *out_dims, size_t share);
/* Bytes of a block's table. */
size_t qd_depthwise_table_bytes(const struct qd_linear_run *r);
/* Output pixels [first, first + count) of an image: of whole lines, or of one. */
void qd_depthwise_block(const struct qd_linear_run *r, size_t image, size_t first, size_t count, const void **table,
                        struct qd_observation *seen);

#endif
