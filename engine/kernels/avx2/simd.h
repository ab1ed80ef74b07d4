/* Eight floats at a time: the names that engine/kernels/epilogue_simd.h, vector_simd.h and gemm_simd.h are written in,
 * for AVX2. engine/kernels/avx512vnni/simd.h has the same names. min and max return their second operand for NaN and
 * for equal zeros, as requant.h's comparisons do. */
#ifndef QD_ENGINE_KERNELS_AVX2_SIMD_H
#define QD_ENGINE_KERNELS_AVX2_SIMD_H

#include "engine/kernels/dot.h"

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define QD_SIMD_FLOATS 8

typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm; /* all bits of a lane, or none */

static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
static inline vf vf_load_some(const float *p, vm m) { return _mm256_maskload_ps(p, _mm256_castps_si256(m)); }
static inline void vf_store_some(float *p, vm m, vf x) { _mm256_maskstore_ps(p, _mm256_castps_si256(m), x); }
static inline vf vf_set(float x) { return _mm256_set1_ps(x); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vf_round(vf x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf vf_abs(vf x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
static inline vf vf_negate(vf x) { return _mm256_xor_ps(_mm256_set1_ps(-0.0f), x); }
static inline vf vf_sqrt(vf x) { return _mm256_sqrt_ps(x); }
static inline float vf_reduce_min(vf x)
{
    __m128 four = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_min_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_min_ss(two, _mm_shuffle_ps(two, two, 1)));
}
static inline float vf_reduce_max(vf x)
{
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

static inline vi vi_load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
static inline vi vi_set(int32_t x) { return _mm256_set1_epi32(x); }
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
static inline vi vi_mul(vi a, vi b) { return _mm256_mullo_epi32(a, b); }
static inline vi vi_min(vi a, vi b) { return _mm256_min_epi32(a, b); }
static inline vi vi_max(vi a, vi b) { return _mm256_max_epi32(a, b); }
static inline vf vf_from_vi(vi x) { return _mm256_cvtepi32_ps(x); }
static inline vf vf_from_bits(vi x) { return _mm256_castsi256_ps(x); }
static inline vi vi_from_bits(vf x) { return _mm256_castps_si256(x); }
static inline vi vi_from_vf(vf x) { return _mm256_cvtps_epi32(x); } /* to nearest, ties to even */
static inline vi vi_exponent_up(vi x) { return _mm256_slli_epi32(x, 23); }
static inline vi vi_exponent_down(vi x) { return _mm256_srai_epi32(x, 23); }
/* x * 2^k, rounded once; k an integer from -150 to 128, or NaN with x. */
static inline vf vf_scale(vf x, vf k)
{
    const vi whole = vi_from_vf(k), half = _mm256_srai_epi32(whole, 1), bias = vi_set(127);
    const vf first = vf_from_bits(vi_exponent_up(vi_add(half, bias)));
    return vf_mul(vf_mul(x, first), vf_from_bits(vi_exponent_up(vi_add(vi_sub(whole, half), bias))));
}

static inline vm vm_first(size_t n) /* n <= 8 */
{
    __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lanes));
}
static inline vm vm_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline vm vm_unordered(vf a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
static inline vf vf_pick(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); } /* m ? a : b */
static inline vm vm_and(vm a, vm b) { return _mm256_and_ps(a, b); }
static inline vm vm_or(vm a, vm b) { return _mm256_or_ps(a, b); }
static inline vm vm_none(void) { return _mm256_setzero_ps(); }
static inline unsigned vm_count(vm m) { return (unsigned)__builtin_popcount((unsigned)_mm256_movemask_ps(m)); }
/* In lanes of m: min(x, into) or max(x, into); elsewhere `into`. */
static inline vf vf_min_some(vf into, vm m, vf x) { return _mm256_blendv_ps(into, _mm256_min_ps(x, into), m); }
static inline vf vf_max_some(vf into, vm m, vf x) { return _mm256_blendv_ps(into, _mm256_max_ps(x, into), m); }

/* Values 0..255 of the first n lanes as bytes. */
static inline void vi_store_u8(uint8_t *p, vi x, size_t n)
{
    __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    __m128i bytes = _mm_packus_epi16(words, words);
    if (n == QD_SIMD_FLOATS) {
        _mm_storel_epi64((__m128i *)(void *)p, bytes);
    } else {
        uint8_t line[16];
        _mm_storeu_si128((__m128i *)(void *)line, bytes);
        for (size_t i = 0; i < n; i++)
            p[i] = line[i];
    }
}
/* For vi_store_u8: the bits from 8 on, and those below. */
static inline vi vi_high_bytes(vi x) { return _mm256_srli_epi32(x, 8); }
static inline vi vi_low_byte(vi x) { return _mm256_and_si256(x, _mm256_set1_epi32(255)); }
static inline vi vi_load_u8(const uint8_t *p, size_t n)
{
    uint8_t line[8] = {0};
    if (n < QD_SIMD_FLOATS) {
        for (size_t i = 0; i < n; i++)
            line[i] = p[i];
        p = line;
    }
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
/* out[0, n) = max(out, in) byte by byte, n <= 32. */
static inline void bytes_max(uint8_t *out, const uint8_t *in, size_t n)
{
    if (n == 32) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)out);
        __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)in);
        _mm256_storeu_si256((__m256i *)(void *)out, _mm256_max_epu8(a, b));
    } else {
        for (size_t i = 0; i < n; i++)
            out[i] = in[i] > out[i] ? in[i] : out[i];
    }
}
#define QD_SIMD_BYTES 32

static inline vi vi_load_bytes(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
/* sum + the bytes of x, some of them in each lane. */
static inline vi vi_add_bytes(vi sum, vi x) { return vi_add(sum, _mm256_sad_epu8(x, _mm256_setzero_si256())); }
static inline vi vi_load_widened(const uint8_t *p) /* s8 -> s16 */
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline void vi_store(int32_t *p, vi x) { _mm256_storeu_si256((__m256i *)(void *)p, x); }

/* sum + what the lanes of x and y give; bytes must have been widened. */
static inline __attribute__((always_inline)) vi vi_dot(const enum dot dot, vi sum, vi x, vi y)
{
    if (dot == DOT_F32)
        return vi_from_bits(vf_fma(vf_from_bits(x), vf_from_bits(y), vf_from_bits(sum)));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(x, y));
}

/* Saturating: 32 bits to 16, parts of a and b in turn; 16 to 8, which brings those of vi_words in order again, a's in
 * the lower half. */
static inline vi vi_words(vi a, vi b) { return _mm256_packs_epi32(a, b); }
static inline vi vi_bytes(vi a, vi b)
{
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
static inline vi vi_add_words(vi a, int16_t b) { return _mm256_adds_epi16(a, _mm256_set1_epi16(b)); }
static inline vi vi_limit_bytes(vi x, vi low, vi high) { return _mm256_min_epu8(_mm256_max_epu8(x, low), high); }
static inline vi vi_set_bytes(uint8_t x) { return _mm256_set1_epi8((char)x); }
static inline void bytes_store_some(uint8_t *p, __m128i bytes, size_t n) /* n < 16 */
{
    uint64_t low = (uint64_t)_mm_cvtsi128_si64(bytes);
    if (n & 8) {
        memcpy(p, &low, 8);
        p += 8;
        low = (uint64_t)_mm_extract_epi64(bytes, 1);
    }
    if (n & 4) {
        memcpy(p, &low, 4);
        p += 4;
        low >>= 32;
    }
    for (; n & 3; n--, low >>= 8)
        *p++ = (uint8_t)low;
}
/* The first n <= 16 bytes of each half. */
static inline void vi_store_halves(uint8_t *first, uint8_t *second, vi bytes, size_t n)
{
    const __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
    if (n == 16) {
        _mm_storeu_si128((__m128i *)(void *)first, low);
        _mm_storeu_si128((__m128i *)(void *)second, high);
    } else {
        bytes_store_some(first, low, n);
        bytes_store_some(second, high, n);
    }
}

/* Bytes to 16 bits, in order, n a multiple of 16. */
static inline void bytes_widen_u8(const uint8_t *from, size_t n, uint8_t *to)
{
    for (size_t i = 0; i < n; i += 16)
        _mm256_storeu_si256((__m256i *)(void *)(to + 2 * i),
                            _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(from + i))));
}
static inline void bytes_widen_s8(const uint8_t *from, size_t n, uint8_t *to)
{
    for (size_t i = 0; i < n; i += 16)
        _mm256_storeu_si256((__m256i *)(void *)(to + 2 * i), vi_load_widened(from + i));
}
/* sums[8] = (first ? 0 : sums) + high * 2^shift + low */
static inline void sums_join(int64_t *sums, vi high, unsigned shift, vi low, bool first)
{
    for (int half = 0; half < 2; half++, sums += 4) {
        const __m256i upper = _mm256_cvtepi32_epi64(half ? _mm256_extracti128_si256(high, 1)
                                                         : _mm256_castsi256_si128(high));
        const __m256i lower = _mm256_cvtepi32_epi64(half ? _mm256_extracti128_si256(low, 1)
                                                         : _mm256_castsi256_si128(low));
        __m256i sum = _mm256_add_epi64(_mm256_sll_epi64(upper, _mm_cvtsi32_si128((int)shift)), lower);
        if (!first)
            sum = _mm256_add_epi64(sum, _mm256_loadu_si256((const __m256i *)(const void *)sums));
        _mm256_storeu_si256((__m256i *)(void *)sums, sum);
    }
}
static inline vf vf_from_sums(const int64_t *sums) /* one rounding */
{
    float f[QD_SIMD_FLOATS];
    for (size_t i = 0; i < QD_SIMD_FLOATS; i++)
        f[i] = (float)sums[i];
    return vf_load(f);
}

/* The upper 16 bits with their sign, and the lower without. */
static inline vi vi_high_words(vi x) { return _mm256_srai_epi32(x, 16); }
static inline vi vi_low_words(vi x) { return _mm256_and_si256(x, _mm256_set1_epi32(0xffff)); }
/* Of words w: high = (w + 128) >> 8 without overflow, low = w - 256 * high. */
static inline vi vi_high_of_words(vi w)
{
    return _mm256_srai_epi16(_mm256_add_epi16(_mm256_srai_epi16(w, 7), _mm256_set1_epi16(1)), 1);
}
static inline vi vi_low_of_words(vi w, vi high) { return _mm256_sub_epi16(w, _mm256_slli_epi16(high, 8)); }
/* Sums of eight lanes each. */
static inline void vi_sums(vi x, int32_t *out)
{
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    out[0] = _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

/* Values of the first n lanes as 16 bits, with saturation. */
static inline void vi_store_s16(int16_t *p, vi x, size_t n)
{
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    if (n == QD_SIMD_FLOATS) {
        _mm_storeu_si128((__m128i *)(void *)p, words);
    } else {
        int16_t line[QD_SIMD_FLOATS];
        _mm_storeu_si128((__m128i *)(void *)line, words);
        memcpy(p, line, n * sizeof *p);
    }
}
#define QD_SIMD_NAME(name) name##__avx2

#endif
