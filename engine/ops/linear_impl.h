/* What a linear layer is made of. Private to linear.c (building) and linear_run.c (running). */
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
    int64_t taps; /* product of kernel */
};

struct qd_linear {
    const struct qd_kernels *kernels;
    const char *name; /* of the node */
    bool int8, conv;
    size_t groups, n, k; /* of one group: output columns, depth (taps * channels) */
    size_t channels;     /* of one group's input; matrix products: k */
    struct qd_geometry geometry;
    unsigned char *packed; /* groups * group_bytes */
    size_t group_bytes;
    int32_t *sums;       /* [groups * n] INT8: column sums */
    float *weight_scale; /* [groups * n] INT8 */
    float *bias;         /* [groups * n] or NULL */
    struct qd_activation act;
};

/* Where padding begins and how large the output is, for one input shape [N, C, d...]. False when it would not be
 * positive. */
bool qd_geometry_resolve(const struct qd_geometry *geometry, const struct qd_shape *in, int64_t *begin, int64_t *out);

#endif
