#include "rows_scatter.h"

namespace {

void toFloat(float* to, const char* from, DType type, int64_t n) {
  if (type == DType::f32) {
    memcpy(to, from, size_t(n) * 4);
    return;
  }
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i));
    _mm256_storeu_ps(to + i, type == DType::f16 ? _mm256_cvtph_ps(h) : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)));
  }
  for (; i < n; i++) to[i] = loadReal(type, from + 2 * i);
}

/// To nearest even, as floatToBf16 does.
INLINE __m128i roundToBf16(__m256 v) {
  __m256i u = _mm256_castps_si256(v), upper = _mm256_srli_epi32(u, 16);
  __m256i r = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), _mm256_and_si256(upper, _mm256_set1_epi32(1)));
  __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  r = _mm256_blendv_epi8(_mm256_srli_epi32(r, 16), _mm256_or_si256(upper, _mm256_set1_epi32(0x40)), nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}
void fromFloat(char* to, DType type, const float* from, int64_t n) {
  if (type == DType::f32) {
    memcpy(to, from, size_t(n) * 4);
    return;
  }
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    __m256 v = _mm256_loadu_ps(from + i);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 2 * i),
                     type == DType::f16 ? _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT) : roundToBf16(v));
  }
  for (; i < n; i++) storeFloat(type, to + 2 * i, from[i]);
}

void packRows(uint32_t* to, const char* x, DType type, int64_t stride, int64_t k, int64_t units, int R, bool pairs) {
  for (int r = 0; r < R; r++) scatterRow(to + r, x + r * stride, type, k, 0, units, R, pairs, toFloat);
}

}  // namespace

extern const RowKernels rowsAvx2 = {toFloat, fromFloat, packRows};
