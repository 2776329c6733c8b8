#include "dtype.h"

namespace {

/// Eight lanes: two registers are a panel's width.
struct Lanes {
  using Reg = __m256;
  static constexpr int kWidth = 8;
  static INLINE_MEMBER Reg zero() { return _mm256_setzero_ps(); }
  static INLINE_MEMBER Reg splat(float x) { return _mm256_set1_ps(x); }
  static INLINE_MEMBER Reg load(const float* p) { return _mm256_load_ps(p); }
  static INLINE_MEMBER void store(float* p, Reg a) { _mm256_store_ps(p, a); }
  static INLINE_MEMBER Reg loadBf16Of(const char* line, int odd) {
    __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(line));
    return _mm256_castsi256_ps(odd ? _mm256_and_si256(v, _mm256_set1_epi32(int(0xffff0000))) : _mm256_slli_epi32(v, 16));
  }
  static INLINE_MEMBER Reg loadHalves(const char* p) { return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(p))); }
  template <DType Type> static INLINE_MEMBER Reg loadBytes(const char* p) {
    const __m128i b = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), high = _mm_unpacklo_epi8(_mm_setzero_si128(), b);
    if (Type == DType::f8e5m2) return _mm256_cvtph_ps(high);
    // As a half with 8 taken from the exponent; all ones are a NaN.
    const __m128i magnitude = _mm_srli_epi16(_mm_slli_epi16(high, 1), 2);
    const __m128i nan = _mm_and_si128(_mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x3f80)), _mm_set1_epi16(0x7e00));
    const __m128i sign = _mm_and_si128(high, _mm_set1_epi16(int16_t(0x8000)));
    return _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(_mm_or_si128(magnitude, sign), nan)), _mm256_set1_ps(256.0f));
  }
  static INLINE_MEMBER Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  static INLINE_MEMBER Reg mul(Reg a, Reg b) { return _mm256_mul_ps(a, b); }
  static INLINE_MEMBER Reg divide(Reg a, Reg b) { return _mm256_div_ps(a, b); }
  static INLINE_MEMBER Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  static INLINE_MEMBER Reg max(Reg a, Reg b) { return _mm256_max_ps(a, b); }
  static INLINE_MEMBER Reg min(Reg a, Reg b) { return _mm256_min_ps(a, b); }
  static INLINE_MEMBER Reg numbered(int i) { return _mm256_add_ps(splat(float(i)), _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7)); }
  static INLINE_MEMBER Reg within(Reg x, int first, int from, int to) {
    __m256i i = _mm256_add_epi32(_mm256_set1_epi32(first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    __m256i inside = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(from), i), _mm256_cmpgt_epi32(_mm256_set1_epi32(to), i));
    return _mm256_blendv_ps(splat(-__builtin_inff()), x, _mm256_castsi256_ps(inside));
  }
  static INLINE_MEMBER Reg exp2(Reg x) {
    x = _mm256_max_ps(splat(-127.0f), x);  // 2^-127 is 0 below
    Reg n = _mm256_floor_ps(x), f = _mm256_sub_ps(x, n);
    Reg y = fma(splat(0.00187931862f), f, splat(0.00899099465f));
    y = fma(y, f, splat(0.0558186769f));
    y = fma(y, f, splat(0.240159273f));
    y = fma(y, f, splat(0.693151712f));
    y = fma(y, f, splat(1.0f));
    __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    Reg r = mul(y, _mm256_castsi256_ps(exponent));
    return _mm256_blendv_ps(r, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  }
  static INLINE_MEMBER void round(char* to, DType type, Reg x) {
    if (type == DType::f32) return _mm256_storeu_ps(reinterpret_cast<float*>(to), x);
    __m128i halves = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
    if (type == DType::bf16) {
      __m256i u = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
      __m256i r = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
      __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
      r = _mm256_blendv_epi8(r, _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40)), nan);
      halves = _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), halves);
  }
  static INLINE_MEMBER float first(Reg a) { return _mm256_cvtss_f32(a); }
  static INLINE_MEMBER float greatest(Reg a) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
  static INLINE_MEMBER float sum(Reg a) {
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
  }
  template <int N> static INLINE_MEMBER void multiplyAdd(Reg* a, const Reg* w, const uint32_t* x) {
    Reg b = _mm256_broadcast_ss(reinterpret_cast<const float*>(x));
    UNROLL for (int j = 0; j < N; j++) a[j] = _mm256_fmadd_ps(w[j], b, a[j]);
  }
};

}  // namespace

#include "attention_impl.h"

namespace {
template <class Lines> constexpr AttentionTable<FloatDot<Lines>, 6, 6> kTable;
template <class Lines> constexpr AttentionKernel kKernel = kernelOf(kTable<Lines>, softmaxFloats);
}  // namespace

extern const AttentionKernels attentionAvx2 = {kKernel<F32Lines>, kKernel<Bf16Lines>, kKernel<F16Lines>, kKernel<ByteLines<DType::f8e4m3>>, kKernel<ByteLines<DType::f8e5m2>>};
