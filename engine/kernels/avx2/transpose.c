/* Transposition in registers: 8 x 8 floats, 16 x 16 bytes, and bytes of three rows (the channels of an image) side by
 * side. Edges go one by one. Later levels use it too. */
#include "engine/kernels/dispatch.h"

#include <immintrin.h>
#include <string.h>

/* ------------------------------------------------------------------ floats */

static inline void block_f32(const float *in, size_t in_stride, float *out, size_t out_stride)
{
    __m256 r[8], t[8];
#define LOAD(i, at)                                                                                                    \
    r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(in + (at)*in_stride)),                             \
                                _mm_loadu_ps(in + ((at) + 4) * in_stride), 1);                                         \
    r[(i) + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(in + (at)*in_stride + 4)),                   \
                                      _mm_loadu_ps(in + ((at) + 4) * in_stride + 4), 1)
    LOAD(0, 0);
    LOAD(1, 1);
    LOAD(2, 2);
    LOAD(3, 3);
#undef LOAD
    for (int h = 0; h < 8; h += 4) {
        t[h] = _mm256_unpacklo_ps(r[h], r[h + 1]);
        t[h + 1] = _mm256_unpackhi_ps(r[h], r[h + 1]);
        t[h + 2] = _mm256_unpacklo_ps(r[h + 2], r[h + 3]);
        t[h + 3] = _mm256_unpackhi_ps(r[h + 2], r[h + 3]);
    }
    for (int h = 0; h < 8; h += 4) {
        float *to = out + (size_t)h * out_stride;
        _mm256_storeu_ps(to, _mm256_shuffle_ps(t[h], t[h + 2], 0x44));
        _mm256_storeu_ps(to + out_stride, _mm256_shuffle_ps(t[h], t[h + 2], 0xee));
        _mm256_storeu_ps(to + 2 * out_stride, _mm256_shuffle_ps(t[h + 1], t[h + 3], 0x44));
        _mm256_storeu_ps(to + 3 * out_stride, _mm256_shuffle_ps(t[h + 1], t[h + 3], 0xee));
    }
}

void qd_transpose_f32__avx2(const float *in, size_t in_stride, size_t rows, size_t cols, float *out, size_t out_stride)
{
    size_t whole_rows = rows & ~(size_t)7, whole_cols = cols & ~(size_t)7;
    for (size_t r = 0; r < whole_rows; r += 8) {
        for (size_t c = 0; c < whole_cols; c += 8)
            block_f32(in + r * in_stride + c, in_stride, out + c * out_stride + r, out_stride);
        for (size_t c = whole_cols; c < cols; c++)
            for (size_t i = r; i < r + 8; i++)
                out[c * out_stride + i] = in[i * in_stride + c];
    }
    for (size_t c = 0; c < cols && whole_rows < rows; c++)
        for (size_t r = whole_rows; r < rows; r++)
            out[c * out_stride + r] = in[r * in_stride + c];
}

/* ------------------------------------------------------------------ bytes */

static inline __m128i load16(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
static inline void store16(uint8_t *p, __m128i x) { _mm_storeu_si128((__m128i *)(void *)p, x); }

/* Four times each register of the first half is interleaved with its partner of the second: 16 rows become 16 columns.
 */
static inline void block_u8(const uint8_t *in, size_t in_stride, uint8_t *out, size_t out_stride)
{
    __m128i a[16], b[16];
    for (int i = 0; i < 16; i++)
        a[i] = load16(in + (size_t)i * in_stride);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 8; i++) {
            b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
            b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
        }
        for (int i = 0; i < 8; i++) {
            a[2 * i] = _mm_unpacklo_epi8(b[i], b[i + 8]);
            a[2 * i + 1] = _mm_unpackhi_epi8(b[i], b[i + 8]);
        }
    }
    for (int i = 0; i < 16; i++)
        store16(out + (size_t)i * out_stride, a[i]);
}

/* Bytes of three rows, 16 columns at a time: r0 r1 r2 r0 r1 r2 ... Returns the columns done. */
static size_t three_rows(const uint8_t *in, size_t in_stride, size_t cols, uint8_t *out)
{
    char place[3][3][16]; /* [piece of 16 outputs][row]: which column goes where, -1 none */
    for (int piece = 0; piece < 3; piece++)
        for (int row = 0; row < 3; row++)
            for (int i = 0; i < 16; i++)
                place[piece][row][i] = (char)((piece * 16 + i) % 3 == row ? (piece * 16 + i) / 3 : -1);
    size_t c = 0;
    for (; c + 16 <= cols; c += 16, out += 48) {
        const __m128i x0 = load16(in + c), x1 = load16(in + in_stride + c), x2 = load16(in + 2 * in_stride + c);
        for (int piece = 0; piece < 3; piece++) {
            const __m128i y0 = _mm_shuffle_epi8(x0, load16((const uint8_t *)place[piece][0]));
            const __m128i y1 = _mm_shuffle_epi8(x1, load16((const uint8_t *)place[piece][1]));
            const __m128i y2 = _mm_shuffle_epi8(x2, load16((const uint8_t *)place[piece][2]));
            store16(out + 16 * piece, _mm_or_si128(y0, _mm_or_si128(y1, y2)));
        }
    }
    return c;
}

/* Fewer than 16 rows or columns: through a block on the stack. */
static void edge_u8(const uint8_t *in, size_t in_stride, size_t rows, size_t cols, uint8_t *out, size_t out_stride)
{
    uint8_t from[256], to[256];
    if (rows < 4 || cols < 4) {
        for (size_t c = 0; c < cols; c++)
            for (size_t r = 0; r < rows; r++)
                out[c * out_stride + r] = in[r * in_stride + c];
        return;
    }
    memset(from, 0, sizeof from);
    for (size_t r = 0; r < rows; r++)
        memcpy(from + 16 * r, in + r * in_stride, cols);
    block_u8(from, 16, to, 16);
    for (size_t c = 0; c < cols; c++)
        if (rows == 8)
            memcpy(out + c * out_stride, to + 16 * c, 8);
        else
            memcpy(out + c * out_stride, to + 16 * c, rows);
}

void qd_transpose_u8__avx2(const uint8_t *in, size_t in_stride, size_t rows, size_t cols, uint8_t *out,
                           size_t out_stride)
{
    size_t done = rows == 3 && out_stride == 3 ? three_rows(in, in_stride, cols, out) : 0;
    for (size_t r = 0; r < rows; r += 16)
        for (size_t c = done; c < cols; c += 16) {
            size_t some_rows = rows - r < 16 ? rows - r : 16, some_cols = cols - c < 16 ? cols - c : 16;
            if (some_rows == 16 && some_cols == 16)
                block_u8(in + r * in_stride + c, in_stride, out + c * out_stride + r, out_stride);
            else
                edge_u8(in + r * in_stride + c, in_stride, some_rows, some_cols, out + c * out_stride + r, out_stride);
        }
}
