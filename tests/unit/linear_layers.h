/* Layers that test_linear.c runs: what a model says about each. Not how they are built or judged. */
#ifndef QD_TESTS_UNIT_LINEAR_LAYERS_H
#define QD_TESTS_UNIT_LINEAR_LAYERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One layer, as a model would say it. Convolutions: w is [M, C / groups, k...]. */
struct qd_test_layer {
    const char *label, *op, *in, *w; /* shapes */
    int64_t groups, strides[3], dilations[3], pads[6], out_padding[3];
    const char *auto_pad;
    float alpha, beta; /* Gemm; 0: absent */
    bool trans_b, bias, relu6, factor;
    enum { NO_RESIDUAL, RESIDUAL_U8, RESIDUAL_F32 } residual; /* of the INT8 form; FP32 takes floats */
};

extern const struct qd_test_layer qd_test_layers[]; /* the last is the deepest that INT8 takes */
extern const size_t qd_test_layer_count;

#endif
