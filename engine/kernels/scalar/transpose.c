/* Transposition in portable C, in blocks that stay in the first-level cache. */
#include "engine/kernels/dispatch.h"

enum { SIDE = 16 };

#define TRANSPOSE(name, type)                                                                                          \
    void name(const type *in, size_t in_stride, size_t rows, size_t cols, type *out, size_t out_stride)                \
    {                                                                                                                  \
        for (size_t r0 = 0; r0 < rows; r0 += SIDE)                                                                     \
            for (size_t c0 = 0; c0 < cols; c0 += SIDE)                                                                 \
                for (size_t c = c0; c < cols && c < c0 + SIDE; c++)                                                    \
                    for (size_t r = r0; r < rows && r < r0 + SIDE; r++)                                                \
                        out[c * out_stride + r] = in[r * in_stride + c];                                               \
    }
TRANSPOSE(qd_transpose_u8__scalar, uint8_t)
TRANSPOSE(qd_transpose_f32__scalar, float)
