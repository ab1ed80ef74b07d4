/* Linear layers with constant weights, in their fused form: y = act(factor[j] * (x . w)[j] + bias[j]). Conv,
 * ConvTranspose, Gemm and MatMul come here when their weights are constants; batch normalization has become factor and
 * bias, a following Relu or Clip the activation. One object serves INT8 (packed s8 weights), INT16
 * (s16 activations and weights) or FP32 (packed floats).
 * Not for products of two activations (ops.def's MatMul). */
#ifndef QD_ENGINE_OPS_LINEAR_H
#define QD_ENGINE_OPS_LINEAR_H

#include "engine/ops/op.h"

/* Integers that a quantized file gives as weights: w = (q - zero) * scale. Borrowed as the spec's are. */
struct qd_given_weights {
    const struct qd_tensor *q;    /* U8 or I8, of the weights' shape; NULL: none are given */
    const struct qd_tensor *zero; /* of q's type, one or [outputs]; NULL: 0 */
    const float *scale;           /* one or [outputs], positive */
    bool one_scale;
};

/* What fusing found out about a node. Pointers are borrowed until qd_linear_create returns. */
struct qd_linear_spec {
    const struct qd_node *node;
    const struct qd_tensor *weights; /* the node's constant input 1, F32 */
    struct qd_given_weights given;   /* INT8 takes these as they are, with their scales */
    const float *factor, *bias;      /* [outputs], or NULL for 1 and 0; bias includes the node's own input 2 */
    struct qd_activation act;
    const float *columns; /* of a matrix or a depthwise convolution: what the weights of each input column or channel
                             are multiplied by; or NULL */
    bool residual;        /* calls bring a second operand, added before the activation */
    bool int8;            /* else FP32 */
    int weight_bits;      /* not 0: 16-bit activations and weights of so many bits, 8..16; int8 is false then */
    int fake_bits;        /* not 0: FP32 arithmetic with the weights that integers of so many bits stand for, 2..8 */
    bool per_tensor;      /* one weight scale for all outputs instead of one each (of w * factor) */
    bool asymmetric;      /* INT8 weights with a zero point, equation (3), where the layer can: qd_linear_asymmetric */
};

struct qd_linear; /* immutable after create; any number of threads run it */

/* Output channels of a Conv, ConvTranspose, Gemm or MatMul node with constant weights; 0 when this node has no linear
 * form (weights not constant, not F32, MatMul weights not of rank 2, Gemm with transA or alpha/beta other than 1 that
 * can't be folded, ConvTranspose in groups, dilated, with an explicit output shape or a stride beyond its kernel, rank
 * unsupported...): it then runs as an ordinary FP32 operator. */
int64_t qd_linear_outputs(const struct qd_graph *graph, const struct qd_node *node);
/* True for a node whose linear form is a convolution: its input 1 has the rank of the image. */
bool qd_linear_node_is_conv(const struct qd_node *node);
/* A Conv of one channel a group and one output each. */
bool qd_linear_node_is_depthwise(const struct qd_graph *graph, const struct qd_node *node);
/* Why it can't run in INT8 (a phrase), or NULL when it can: k too large for exact int32, no inputs... */
const char *qd_linear_int8_refusal(const struct qd_graph *graph, const struct qd_node *node);

/* The integers that the node's weights were in the file; NULL, or why INT8 can't take them as they are (a phrase):
 * none, scales that don't follow the outputs, values beyond -128..127 without their zero point. */
const char *qd_linear_given(const struct qd_graph *graph, const struct qd_node *node, struct qd_given_weights *out);

/* The same for 16-bit activations. */
const char *qd_linear_int16_refusal(const struct qd_graph *graph, const struct qd_node *node);

/* Quantizes (w * factor, s8, equation (4) or (3)) or copies, and packs. The weights are read once, never kept.
 * Memory from `arena`. Errors: NO_MEMORY, SHAPE, UNSUPPORTED naming the node. */
enum qd_status qd_linear_create(const struct qd_linear_spec *spec, const struct qd_kernels *kernels,
                                struct qd_arena *arena, struct qd_linear **out, struct qd_error *error) QD_MUST_CHECK;
/* Do its weights have zero points? Not of depthwise layers, nor of those deeper than QD_ASYMMETRIC_K. */
bool qd_linear_asymmetric(const struct qd_linear *linear);
/* Bytes of packed weights; multiply-adds for an output of that shape. */
size_t qd_linear_packed_bytes(const struct qd_linear *linear);
uint64_t qd_linear_macs(const struct qd_linear *linear, const struct qd_shape *out);
/* True: a convolution of either kind; reads and writes QD_CHANNELS_LAST. False: rows in QD_PLAIN. */
bool qd_linear_is_conv(const struct qd_linear *linear);
/* True: one input channel for each output channel; it has no form in 16 bits. */
bool qd_linear_is_depthwise(const struct qd_linear *linear);

/* Output shape for an input shape. Errors: SHAPE naming the node. */
enum qd_status qd_linear_infer(const struct qd_linear *linear, const struct qd_shape *in, struct qd_shape *out,
                               struct qd_error *error) QD_MUST_CHECK;
/* Bytes of scratch for this input shape and this many threads; contents are rebuilt by every run. */
size_t qd_linear_scratch_bytes(const struct qd_linear *linear, const struct qd_shape *in, unsigned threads);

/* How many channels (columns) an input has, how many taps a window (0: none), how long a bias of the layer is. */
size_t qd_linear_inputs(const struct qd_linear *linear);
size_t qd_linear_taps(const struct qd_linear *linear);
size_t qd_linear_bias_count(const struct qd_linear *linear);
/* share[qd_linear_taps]: of the outputs of such an input, those under which the tap doesn't meet padding. */
void qd_linear_tap_shares(const struct qd_linear *linear, const struct qd_shape *in, float *share);
/* bias[qd_linear_bias_count]: the INT8 layer's own, and what its weights' rounding errors take from the outputs when
 * channel c of the input is mean[c] on average: bias[j] + sum over the depth of (w - Sw q) mean share
 * (docs/QUANTIZATION.md, equation (9)). `spec` as at create. Errors: NO_MEMORY. [any] */
enum qd_status qd_linear_correct(const struct qd_linear_spec *spec, const struct qd_linear *linear, const float *mean,
                                 const float *share, float *bias) QD_MUST_CHECK;

/* Shows the weights of each output of a layer, times its factor, [depth] floats one after the other. Errors: NO_MEMORY.
 * [any] */
enum qd_status qd_linear_visit(const struct qd_linear_spec *spec, const struct qd_linear *linear,
                               void (*see)(void *ctx, const float *weights), void *ctx) QD_MUST_CHECK;

/* Of an INT8 layer's weights, in the model's order: scale[outputs], as packing finds them; returns the axis of the
 * output channels. Then elements [first, first + count) as integers. [any] */
int qd_linear_weight_scales(const struct qd_linear_spec *spec, float *scale);
void qd_linear_weight_integers(const struct qd_linear_spec *spec, const float *scale, size_t first, size_t count,
                               int8_t *out);

struct qd_linear_call {
    const struct qd_tensor *in;           /* INT8: u8 as carried; INT16: s16; FP32: float */
    struct qd_tensor *out;                /* dtype QD_U8 (INT8 only) or QD_F32 */
    const struct qd_qparams *in_qp;       /* INT8, INT16: of the input */
    const struct qd_row_scale *rows;      /* INT8, a matrix: of each row of the input, in in_qp's place; or NULL */
    const struct qd_qparams *out_qp;      /* when out is QD_U8 */
    const struct qd_tensor *residual;     /* of the output's shape and layout, U8 or F32; NULL without */
    const struct qd_qparams *residual_qp; /* when it is QD_U8 */
    const float *by;                      /* what outputs are multiplied by behind the activation; or NULL */
    const float *bias;                    /* in the place of the layer's own, as qd_linear_correct makes it; or NULL */
    struct qd_observation *observe; /* NULL, or merged into: all real outputs after the activation, before clamping */
    void *scratch;
    struct qd_parallel *parallel;
};

/* Runs; cannot fail; same bytes for any number of threads. [worker] */
void qd_linear_run(const struct qd_linear *linear, const struct qd_linear_call *call);

#endif
