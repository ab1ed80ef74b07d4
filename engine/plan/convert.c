/* Conversion steps between the forms of one tensor. */
#include "engine/plan/convert.h"

#include <string.h>

#define BLOCK 16 /* elements a side: both sides of a block stay in the first-level cache */

/* out[c][r] = in[r][c], blocked. */
#define TRANSPOSE(name, type)                                                                                          \
    static void name(const type *in, size_t rows, size_t cols, type *out)                                              \
    {                                                                                                                  \
        for (size_t r0 = 0; r0 < rows; r0 += BLOCK)                                                                    \
            for (size_t c0 = 0; c0 < cols; c0 += BLOCK)                                                                \
                for (size_t r = r0; r < rows && r < r0 + BLOCK; r++)                                                   \
                    for (size_t c = c0; c < cols && c < c0 + BLOCK; c++)                                               \
                        out[c * rows + r] = in[r * cols + c];                                                          \
    }
TRANSPOSE(transpose_u8, uint8_t)
TRANSPOSE(transpose_f32, float)

/* Both layouts are matrices per image: plain [C, S], channels last [S, C]. */
static void relayout(const void *in, const struct qd_shape *shape, enum qd_layout from, size_t bytes, void *out)
{
    size_t images = (size_t)shape->dims[0], channels = (size_t)shape->dims[1];
    size_t span = (size_t)qd_shape_span(shape, 2, shape->rank);
    size_t rows = from == QD_PLAIN ? channels : span, cols = from == QD_PLAIN ? span : channels;
    if (rows == 1 || cols == 1) {
        if (images > 0 && rows > 0 && cols > 0)
            memcpy(out, in, images * rows * cols * bytes);
        return;
    }
    for (size_t i = 0; i < images; i++) {
        size_t at = i * rows * cols;
        if (bytes == 1)
            transpose_u8((const uint8_t *)in + at, rows, cols, (uint8_t *)out + at);
        else
            transpose_f32((const float *)in + at, rows, cols, (float *)out + at);
    }
}

void qd_convert_relayout(const struct qd_tensor *in, struct qd_tensor *out)
{
    relayout(in->data, &in->shape, in->layout, qd_dtype_bytes(in->dtype), out->data);
}

void qd_convert_quantize(const struct qd_kernels *kernels, const struct qd_tensor *in, struct qd_tensor *out,
                         const struct qd_qparams *qp, struct qd_observation *observe, void *scratch)
{
    size_t n = (size_t)qd_tensor_elems(in);
    bool turn = in->layout != out->layout;
    kernels->quantize_u8(in->data, n, qp, turn ? scratch : out->data, observe);
    if (turn)
        relayout(scratch, &in->shape, in->layout, 1, out->data);
}

void qd_convert_dequantize(const struct qd_kernels *kernels, const struct qd_tensor *in, struct qd_tensor *out,
                           const struct qd_qparams *qp, void *scratch)
{
    size_t n = (size_t)qd_tensor_elems(in);
    const void *plain = in->data;
    if (in->layout != out->layout) {
        relayout(in->data, &in->shape, in->layout, 1, scratch);
        plain = scratch;
    }
    kernels->dequantize_u8(plain, n, qp, out->data);
}
