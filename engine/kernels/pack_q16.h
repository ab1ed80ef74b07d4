/* Packed weights of the 16-bit product, the same for every ISA but for the width of a panel: a head, then one plane of
 * 8-bit weights, or two: w = 256 * high + low with low in [-128, 127], high in [-128, 128]. A plane stands in panels of
 * nr columns, [pair of depth][column][2], 16 bits each, so that sums of 255 pairs fit int32:
 * 255 * 2 * 32768 * 128 < 2^31. Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_PACK_Q16_H
#define QD_ENGINE_KERNELS_PACK_Q16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { Q16_HEAD_BYTES = 64, Q16_PAIRS_MAX = 255, Q16_PLANE_BITS = 8 };

struct q16_head {
    uint32_t planes; /* the higher first */
};

static inline size_t q16_pairs(size_t k) { return (k + 1) / 2; }

static inline size_t q16_plane_bytes(size_t n, size_t k, size_t nr)
{
    return (n + nr - 1) / nr * nr * q16_pairs(k) * 2 * sizeof(int16_t);
}

static inline size_t q16_packed_bytes(size_t n, size_t k, size_t nr, bool wide)
{
    return Q16_HEAD_BYTES + q16_plane_bytes(n, k, nr) * (wide ? 2 : 1);
}

static inline int32_t q16_low(int32_t weight) { return ((weight + 128) & 255) - 128; }

static inline void q16_pack(size_t n, size_t k, size_t nr, const int8_t *w8, const int16_t *w16, size_t row_stride,
                            size_t col_stride, void *packed)
{
    int16_t *to = (int16_t *)(void *)((uint8_t *)packed + Q16_HEAD_BYTES);
    uint32_t planes = w16 ? 2 : 1;
    ((struct q16_head *)packed)->planes = planes;
    for (uint32_t plane = 0; plane < planes; plane++)
        for (size_t col = 0; col < n; col += nr)
            for (size_t pair = 0; pair < k; pair += 2)
                for (size_t j = col; j < col + nr; j++)
                    for (size_t p = pair; p < pair + 2; p++) {
                        int32_t weight = 0;
                        if (j < n && p < k)
                            weight = w8 ? w8[j * row_stride + p * col_stride] : w16[j * row_stride + p * col_stride];
                        int32_t low = q16_low(weight);
                        *to++ = (int16_t)(plane + 1 == planes ? low : (weight - low) / 256);
                    }
}

#endif
