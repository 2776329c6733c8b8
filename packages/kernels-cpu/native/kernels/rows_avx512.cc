#include "linear_avx512.h"
#include "rows_scatter.h"

namespace {

INLINE __m512 widen(const char* p, DType type, __mmask16 mask) {
  __m256i h = _mm256_maskz_loadu_epi16(mask, p);
  return type == DType::f16 ? _mm512_cvtph_ps(h) : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
INLINE __mmask16 upTo(int64_t n) { return n >= 16 ? __mmask16(0xffff) : __mmask16((1u << n) - 1); }

void toFloat(float* to, const char* from, DType type, int64_t n) {
  if (type == DType::f32) memcpy(to, from, size_t(n) * 4);
  else for (int64_t i = 0; i < n; i += 16) _mm512_mask_storeu_ps(to + i, upTo(n - i), widen(from + 2 * i, type, upTo(n - i)));
}
void fromFloat(char* to, DType type, const float* from, int64_t n) {
  if (type == DType::f32) {
    memcpy(to, from, size_t(n) * 4);
    return;
  }
  for (int64_t i = 0; i < n; i += 16) {
    __m512 v = _mm512_maskz_loadu_ps(upTo(n - i), from + i);
    _mm256_mask_storeu_epi16(to + 2 * i, upTo(n - i), type == DType::f16 ? _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT) : roundToBf16(v));
  }
}

/// Rows 0 … R - 1 of 16 dwords each, which get(r) gives, to [16][R].
template <class Get> INLINE void transpose(uint32_t* d, int R, Get&& get) {
  __m512i a[16], b[16];
  UNROLL for (int i = 0; i < 16; i++) a[i] = i < R ? get(i) : _mm512_setzero_si512();
  UNROLL for (int i = 0; i < 16; i += 2) b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  UNROLL for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]), a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]), a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  UNROLL for (int i = 0; i < 4; i++) {  // a[4q + i]: rows 4q … of columns i, 4 + i, 8 + i, 12 + i, one per 128 bits
    b[i] = _mm512_shuffle_i32x4(a[i], a[4 + i], 0x88), b[4 + i] = _mm512_shuffle_i32x4(a[i], a[4 + i], 0xdd);
    b[8 + i] = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0x88), b[12 + i] = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0xdd);
  }
  __mmask16 m = upTo(R);
  UNROLL for (int i = 0; i < 4; i++) {
    _mm512_mask_storeu_epi32(d + i * R, m, _mm512_shuffle_i32x4(b[i], b[8 + i], 0x88));
    _mm512_mask_storeu_epi32(d + (4 + i) * R, m, _mm512_shuffle_i32x4(b[4 + i], b[12 + i], 0x88));
    _mm512_mask_storeu_epi32(d + (8 + i) * R, m, _mm512_shuffle_i32x4(b[i], b[8 + i], 0xdd));
    _mm512_mask_storeu_epi32(d + (12 + i) * R, m, _mm512_shuffle_i32x4(b[4 + i], b[12 + i], 0xdd));
  }
}

void packRows(uint32_t* to, const char* x, DType type, int64_t stride, int64_t k, int64_t units, int R, bool pairs) {
  const bool dwords = pairs || type == DType::f32;
  int64_t done = 0;
  if (R > 1) {
    done = (pairs ? k / 2 : k) & ~int64_t(15);
    for (int64_t u = 0; u < done; u += 16) {
      if (dwords) transpose(to + u * R, R, [&](int r) { return _mm512_loadu_si512(x + r * stride + u * 4); });
      else transpose(to + u * R, R, [&](int r) { return _mm512_castps_si512(widen(x + r * stride + u * 2, type, 0xffff)); });
    }
  }
  for (int r = 0; r < R; r++) scatterRow(to + r, x + r * stride, type, k, done, units, R, pairs, toFloat);
}

}  // namespace

extern const RowKernels rowsAvx512 = {toFloat, fromFloat, packRows};
