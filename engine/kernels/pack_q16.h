/* Packed weights of the 16-bit product, the same for every ISA but for the width of a panel: panel after panel of nr
 * columns, [pair of depth][column][2] words of 16 bits, then for each block of depth the largest sum of squares that a
 * column has in it, rounded up: what tells how long a sum may go on in int32. Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_PACK_Q16_H
#define QD_ENGINE_KERNELS_PACK_Q16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { Q16_BLOCK_PAIRS = 8, Q16_ALIGN = 64 };

static inline size_t q16_pairs(size_t k) { return (k + 1) / 2; }
static inline size_t q16_blocks(size_t k) { return (q16_pairs(k) + Q16_BLOCK_PAIRS - 1) / Q16_BLOCK_PAIRS; }
static inline size_t q16_words_bytes(size_t k, size_t nr) { return q16_pairs(k) * 2 * nr * sizeof(int16_t); }

static inline size_t q16_panel_bytes(size_t k, size_t nr)
{
    size_t bytes = q16_words_bytes(k, nr) + q16_blocks(k) * sizeof(float);
    return (bytes + Q16_ALIGN - 1) / Q16_ALIGN * Q16_ALIGN;
}

static inline size_t q16_packed_bytes(size_t n, size_t k, size_t nr)
{
    return (n + nr - 1) / nr * q16_panel_bytes(k, nr);
}

/* The weights of one panel; `count` of its columns exist. */
static inline void q16_pack_words(size_t count, size_t k, size_t nr, const int8_t *w8, const int16_t *w16,
                                  size_t row_stride, size_t col_stride, int16_t *to)
{
    for (size_t p = 0; p < q16_pairs(k) * 2; p++)
        for (size_t j = 0; j < nr; j++) {
            int16_t weight = 0;
            if (j < count && p < k)
                weight = w8 ? w8[j * row_stride + p * col_stride] : w16[j * row_stride + p * col_stride];
            to[(p / 2 * nr + j) * 2 + p % 2] = weight;
        }
}

static inline void q16_pack_squares(size_t k, size_t nr, const int16_t *words, float *squares)
{
    for (size_t block = 0; block < q16_blocks(k); block++) {
        const size_t begin = block * Q16_BLOCK_PAIRS, end = begin + Q16_BLOCK_PAIRS;
        double most = 0;
        for (size_t j = 0; j < nr; j++) {
            double sum = 0;
            for (size_t pair = begin; pair < end && pair < q16_pairs(k); pair++)
                for (size_t i = 0; i < 2; i++)
                    sum += (double)words[(pair * nr + j) * 2 + i] * words[(pair * nr + j) * 2 + i];
            most = sum > most ? sum : most;
        }
        squares[block] = (float)(most * 1.000001);
    }
}

static inline void q16_pack(size_t n, size_t k, size_t nr, const int8_t *w8, const int16_t *w16, size_t row_stride,
                            size_t col_stride, void *packed)
{
    for (size_t col = 0; col < n; col += nr) {
        uint8_t *panel = (uint8_t *)packed + col / nr * q16_panel_bytes(k, nr);
        int16_t *words = (int16_t *)(void *)panel;
        q16_pack_words(n - col < nr ? n - col : nr, k, nr, w8 ? w8 + col * row_stride : NULL,
                       w16 ? w16 + col * row_stride : NULL, row_stride, col_stride, words);
        q16_pack_squares(k, nr, words, (float *)(void *)(panel + q16_words_bytes(k, nr)));
    }
}

#endif
