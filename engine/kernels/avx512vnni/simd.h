/* Sixteen floats at a time: the names that engine/kernels/epilogue_simd.h, vector_simd.h and gemm_simd.h are written
 * in, for AVX-512. engine/kernels/avx2/simd.h has the same names. min and max return their second operand for NaN and
 * for equal zeros, as requant.h's comparisons do. */
#ifndef QD_ENGINE_KERNELS_AVX512VNNI_SIMD_H
#define QD_ENGINE_KERNELS_AVX512VNNI_SIMD_H

#include <immintrin.h>
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
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vf_round(vf x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf vf_abs(vf x) { return _mm512_abs_ps(x); }
static inline float vf_reduce_min(vf x) { return _mm512_reduce_min_ps(x); }
static inline float vf_reduce_max(vf x) { return _mm512_reduce_max_ps(x); }

static inline vi vi_load(const int32_t *p) { return _mm512_loadu_si512(p); }
static inline vi vi_set(int32_t x) { return _mm512_set1_epi32(x); }
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
static inline vf vf_from_vi(vi x) { return _mm512_cvtepi32_ps(x); }
static inline vf vf_from_bits(vi x) { return _mm512_castsi512_ps(x); }
static inline vi vi_from_vf(vf x) { return _mm512_cvtps_epi32(x); } /* to nearest, ties to even */

static inline vm vm_first(size_t n) { return (__mmask16)((1u << n) - 1); } /* n <= 16 */
static inline vm vm_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline vm vm_unordered(vf a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
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
static inline vi vi_load_u8(const uint8_t *p, size_t n)
{
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

#endif
