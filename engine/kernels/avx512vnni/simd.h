/* Sixteen floats at a time: the names that engine/kernels/epilogue_simd.h, vector_simd.h and gemm_simd.h are written
 * in, for AVX-512. engine/kernels/avx2/simd.h has the same names. min and max return their second operand for NaN and
 * for equal zeros, as requant.h's comparisons do. */
#ifndef QD_ENGINE_KERNELS_AVX512VNNI_SIMD_H
#define QD_ENGINE_KERNELS_AVX512VNNI_SIMD_H

#include "engine/kernels/dot.h"

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QD_SIMD_FLOATS 16

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline vf vf_load_some(const float *p, vm m) { return _mm512_maskz_loadu_ps(m, p); }
static inline void vf_store_some(float *p, vm m, vf x) { _mm512_mask_storeu_ps(p, m, x); }
static inline vf vf_set(float x) { return _mm512_set1_ps(x); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vf_round(vf x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf vf_abs(vf x) { return _mm512_abs_ps(x); }
static inline vf vf_negate(vf x) { return _mm512_xor_ps(_mm512_set1_ps(-0.0f), x); }
static inline vf vf_sqrt(vf x) { return _mm512_sqrt_ps(x); }
static inline float vf_reduce_min(vf x) { return _mm512_reduce_min_ps(x); }
static inline float vf_reduce_max(vf x) { return _mm512_reduce_max_ps(x); }

static inline vi vi_load(const int32_t *p) { return _mm512_loadu_si512(p); }
static inline vi vi_set(int32_t x) { return _mm512_set1_epi32(x); }
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
static inline vi vi_mul(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
static inline vi vi_min(vi a, vi b) { return _mm512_min_epi32(a, b); }
static inline vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
static inline vf vf_from_vi(vi x) { return _mm512_cvtepi32_ps(x); }
static inline vf vf_from_bits(vi x) { return _mm512_castsi512_ps(x); }
static inline vi vi_from_bits(vf x) { return _mm512_castps_si512(x); }
static inline vi vi_from_vf(vf x) { return _mm512_cvtps_epi32(x); } /* to nearest, ties to even */
static inline vi vi_exponent_up(vi x) { return _mm512_slli_epi32(x, 23); }
static inline vi vi_exponent_down(vi x) { return _mm512_srai_epi32(x, 23); }
/* x * 2^k, rounded once; k an integer from -150 to 128, or NaN with x. */
static inline vf vf_scale(vf x, vf k) { return _mm512_scalef_ps(x, k); }

static inline vm vm_first(size_t n) { return (__mmask16)((1u << n) - 1); } /* n <= 16 */
static inline vm vm_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline vm vm_unordered(vf a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
static inline vf vf_pick(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); } /* m ? a : b */
static inline vm vm_and(vm a, vm b) { return _kand_mask16(a, b); }
static inline vm vm_or(vm a, vm b) { return _kor_mask16(a, b); }
static inline vm vm_none(void) { return 0; }
static inline unsigned vm_count(vm m) { return (unsigned)__builtin_popcount(m); }
/* In lanes of m: min(x, into) or max(x, into); elsewhere `into`. */
static inline vf vf_min_some(vf into, vm m, vf x) { return _mm512_mask_min_ps(into, m, x, into); }
static inline vf vf_max_some(vf into, vm m, vf x) { return _mm512_mask_max_ps(into, m, x, into); }

/* Values 0..255 of the first n lanes as bytes. */
static inline void vi_store_u8(uint8_t *p, vi x, size_t n)
{
    __m128i bytes = _mm512_cvtepi32_epi8(x);
    if (n == QD_SIMD_FLOATS)
        _mm_storeu_si128((__m128i *)(void *)p, bytes);
    else
        _mm_mask_storeu_epi8(p, vm_first(n), bytes);
}
/* For vi_store_u8: the bits from 8 on, and those below. */
static inline vi vi_high_bytes(vi x) { return _mm512_srli_epi32(x, 8); }
static inline vi vi_low_byte(vi x) { return x; } /* storing bytes cuts off the rest */
static inline vi vi_load_u8(const uint8_t *p, size_t n)
{
    if (n == QD_SIMD_FLOATS)
        return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(vm_first(n), p));
}
/* out[0, n) = max(out, in) byte by byte, n <= 64. */
static inline void bytes_max(uint8_t *out, const uint8_t *in, size_t n)
{
    __mmask64 m = n == 64 ? ~(__mmask64)0 : ((__mmask64)1 << n) - 1;
    __m512i most = _mm512_max_epu8(_mm512_maskz_loadu_epi8(m, out), _mm512_maskz_loadu_epi8(m, in));
    _mm512_mask_storeu_epi8(out, m, most);
}
#define QD_SIMD_BYTES 64

static inline vi vi_load_bytes(const uint8_t *p) { return _mm512_loadu_si512(p); }
/* sum + the bytes of x, some of them in each lane. */
static inline vi vi_add_bytes(vi sum, vi x) { return vi_add(sum, _mm512_sad_epu8(x, _mm512_setzero_si512())); }
static inline vi vi_load_widened(const uint8_t *p) /* s8 -> s16 */
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline void vi_store(int32_t *p, vi x) { _mm512_storeu_si512(p, x); }

/* sum + what the lanes of x and y give. */
static inline __attribute__((always_inline)) vi vi_dot(const enum dot dot, vi sum, vi x, vi y)
{
    if (dot == DOT_U8S8)
        return _mm512_dpbusd_epi32(sum, x, y);
    if (dot == DOT_S16)
        return _mm512_dpwssd_epi32(sum, x, y);
    return vi_from_bits(vf_fma(vf_from_bits(x), vf_from_bits(y), vf_from_bits(sum)));
}

/* Saturating: 32 bits to 16, parts of a and b in turn; 16 to 8, which brings those of vi_words in order again, a's in
 * the lower half. */
static inline vi vi_words(vi a, vi b) { return _mm512_packs_epi32(a, b); }
static inline vi vi_bytes(vi a, vi b)
{
    const vi order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(a, b));
}
static inline vi vi_add_words(vi a, int16_t b) { return _mm512_adds_epi16(a, _mm512_set1_epi16(b)); }
static inline vi vi_limit_bytes(vi x, vi low, vi high) { return _mm512_min_epu8(_mm512_max_epu8(x, low), high); }
static inline vi vi_set_bytes(uint8_t x) { return _mm512_set1_epi8((char)x); }
/* The first n <= 32 bytes of each half. */
static inline void vi_store_halves(uint8_t *first, uint8_t *second, vi bytes, size_t n)
{
    const __m256i low = _mm512_castsi512_si256(bytes), high = _mm512_extracti64x4_epi64(bytes, 1);
    if (n == 32) {
        _mm256_storeu_si256((__m256i *)(void *)first, low);
        _mm256_storeu_si256((__m256i *)(void *)second, high);
    } else {
        const __mmask32 mask = ((__mmask32)1 << n) - 1;
        _mm256_mask_storeu_epi8(first, mask, low);
        _mm256_mask_storeu_epi8(second, mask, high);
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
    for (size_t i = 0; i < n; i += 32)
        _mm512_storeu_si512(to + 2 * i, vi_load_widened(from + i));
}
/* sums[16] = (first ? 0 : sums) + high * 2^shift + low */
static inline void sums_join(int64_t *sums, vi high, unsigned shift, vi low, bool first)
{
    for (int half = 0; half < 2; half++, sums += 8) {
        const __m512i upper = _mm512_cvtepi32_epi64(half ? _mm512_extracti64x4_epi64(high, 1)
                                                         : _mm512_castsi512_si256(high));
        const __m512i lower = _mm512_cvtepi32_epi64(half ? _mm512_extracti64x4_epi64(low, 1)
                                                         : _mm512_castsi512_si256(low));
        __m512i sum = _mm512_add_epi64(_mm512_sll_epi64(upper, _mm_cvtsi32_si128((int)shift)), lower);
        if (!first)
            sum = _mm512_add_epi64(sum, _mm512_loadu_si512(sums));
        _mm512_storeu_si512(sums, sum);
    }
}
static inline vf vf_from_sums(const int64_t *sums) /* one rounding */
{
    const __m256 low = _mm512_cvtepi64_ps(_mm512_loadu_si512(sums));
    const __m256 high = _mm512_cvtepi64_ps(_mm512_loadu_si512(sums + 8));
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}

/* The upper 16 bits with their sign, and the lower without. */
static inline vi vi_high_words(vi x) { return _mm512_srai_epi32(x, 16); }
static inline vi vi_low_words(vi x) { return _mm512_and_si512(x, _mm512_set1_epi32(0xffff)); }
/* Of words w: high = (w + 128) >> 8 without overflow, low = w - 256 * high. */
static inline vi vi_high_of_words(vi w)
{
    return _mm512_srai_epi16(_mm512_add_epi16(_mm512_srai_epi16(w, 7), _mm512_set1_epi16(1)), 1);
}
static inline vi vi_low_of_words(vi w, vi high) { return _mm512_sub_epi16(w, _mm512_slli_epi16(high, 8)); }
/* Sums of eight lanes each. */
static inline void vi_sums(vi x, int32_t *out)
{
    __m512i sum = _mm512_add_epi32(x, _mm512_shuffle_epi32(x, _MM_PERM_BADC));
    sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, _MM_PERM_CDAB));
    sum = _mm512_add_epi32(sum, _mm512_shuffle_i64x2(sum, sum, 0xb1));
    out[0] = _mm512_cvtsi512_si32(sum);
    out[1] = _mm_cvtsi128_si32(_mm512_extracti32x4_epi32(sum, 2));
}

/* Values of the first n lanes as 16 bits, with saturation. */
static inline void vi_store_s16(int16_t *p, vi x, size_t n)
{
    const __m256i words = _mm512_cvtsepi32_epi16(x);
    if (n == QD_SIMD_FLOATS)
        _mm256_storeu_si256((__m256i *)(void *)p, words);
    else
        _mm256_mask_storeu_epi16(p, vm_first(n), words);
}
#define QD_SIMD_NAME(name) name##__avx512vnni

#endif
