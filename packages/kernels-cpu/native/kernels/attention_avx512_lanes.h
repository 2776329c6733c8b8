// Sixteen lanes in one register, for the AVX-512 kernels of paged attention.
#pragma once
#include "linear_avx512.h"

namespace {

/// 2^f for f in [0, 1], exactly 1 for 0: relative error 1.5e-7, and 1e-4 (a twentieth of what rounding to bf16 costs).
INLINE __m512 power(__m512 f) {
  __m512 y = _mm512_fmadd_ps(_mm512_set1_ps(0.00187931862f), f, _mm512_set1_ps(0.00899099465f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.0558186769f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.240159273f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.693151712f));
  return _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.0f));
}
INLINE __m512 roughPower(__m512 f) {
  __m512 y = _mm512_fmadd_ps(_mm512_set1_ps(0.0782679692f), f, _mm512_set1_ps(0.226307675f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.695424318f));
  return _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.0f));
}

struct Lanes {
  using Reg = __m512;
  static constexpr int kWidth = 16;
  static INLINE_MEMBER Reg zero() { return _mm512_setzero_ps(); }
  static INLINE_MEMBER Reg splat(float x) { return _mm512_set1_ps(x); }
  static INLINE_MEMBER Reg load(const float* p) { return _mm512_load_ps(p); }
  static INLINE_MEMBER void store(float* p, Reg a) { _mm512_store_ps(p, a); }
  static INLINE_MEMBER Reg loadBf16Of(const char* line, int odd) {
    __m512i v = _mm512_load_si512(line);
    return _mm512_castsi512_ps(odd ? _mm512_and_si512(v, _mm512_set1_epi32(int(0xffff0000))) : _mm512_slli_epi32(v, 16));
  }
  static INLINE_MEMBER Reg loadHalves(const char* p) { return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p))); }
  template <DType Type> static INLINE_MEMBER Reg loadBytes(const char* p) {
    const __m256i high = _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(p))), 8);
    if (Type == DType::f8e5m2) return _mm512_cvtph_ps(high);
    // As a half with 8 taken from the exponent; all ones are a NaN.
    const __m256i magnitude = _mm256_srli_epi16(_mm256_slli_epi16(high, 1), 2);
    const __m256i nan = _mm256_and_si256(_mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x3f80)), _mm256_set1_epi16(0x7e00));
    const __m256i sign = _mm256_and_si256(high, _mm256_set1_epi16(int16_t(0x8000)));
    return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_or_si256(_mm256_or_si256(magnitude, sign), nan)), _mm512_set1_ps(256.0f));
  }
  static INLINE_MEMBER Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static INLINE_MEMBER Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  static INLINE_MEMBER Reg divide(Reg a, Reg b) { return _mm512_div_ps(a, b); }
  static INLINE_MEMBER Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static INLINE_MEMBER Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
  static INLINE_MEMBER Reg min(Reg a, Reg b) { return _mm512_min_ps(a, b); }
  static INLINE_MEMBER Reg numbered(int i) {
    return _mm512_add_ps(_mm512_set1_ps(float(i)), _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  }
  static INLINE_MEMBER Reg within(Reg x, int first, int from, int to) {
    __m512i i = _mm512_add_epi32(_mm512_set1_epi32(first), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    __mmask16 inside = _mm512_cmpge_epi32_mask(i, _mm512_set1_epi32(from)) & _mm512_cmplt_epi32_mask(i, _mm512_set1_epi32(to));
    return _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), inside, x);
  }
  static INLINE_MEMBER Reg exp2(Reg x) {
    x = _mm512_max_ps(_mm512_set1_ps(-200.0f), x);
    return _mm512_scalef_ps(power(_mm512_reduce_ps(x, 1)), x);  // 1: what is left above floor(x)
  }
  static INLINE_MEMBER Reg roughExp2(Reg x) {
    x = _mm512_max_ps(_mm512_set1_ps(-200.0f), x);
    return _mm512_scalef_ps(roughPower(_mm512_reduce_ps(x, 1)), x);
  }
  static INLINE_MEMBER void round(char* to, DType type, Reg x) {
    if (type == DType::f32) _mm512_storeu_ps(to, x);
    else _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), type == DType::bf16 ? roundToBf16(x) : _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
  }
  static INLINE_MEMBER float first(Reg a) { return _mm512_cvtss_f32(a); }
  static INLINE_MEMBER float greatest(Reg a) { return _mm512_reduce_max_ps(a); }
  static INLINE_MEMBER float sum(Reg a) {
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
  }
  template <int N> static INLINE_MEMBER void multiplyAdd(Reg* a, const Reg* w, const uint32_t* x) {
    __m512i v[N];
    UNROLL for (int j = 0; j < N; j++) v[j] = _mm512_castps_si512(w[j]);
    dotF32<N>(a, v, x);
  }
};

}  // namespace
