// bf16 queries on a bf16 cache: products of pairs, probabilities rounded to bf16 (and summed as rounded, so that they still
// add up to one).
#include "attention_avx512_lanes.h"
#include "attention_impl.h"

namespace {

struct PairsDot {
  static constexpr int kUnits = 1;
  static constexpr bool kPairs = true;
  template <int R, int J, int RowStride, int UnitStride>
  static INLINE_MEMBER void step(__m512 (&a)[R][J], const char* const (&line)[J], const uint32_t* x) {
    __m512i w[J];
    UNROLL for (int j = 0; j < J; j++) w[j] = _mm512_load_si512(line[j]);
    UNROLL for (int r = 0; r < R; r++) dotPairs<J>(a[r], w, x + r * RowStride);
  }
};

RowState softmaxPairs(float* s, uint32_t* p, int lo, int hi, const RowView& view, const Scoring& scoring) {
  // Two pages at a time: the one that nobody asked for is masked.
  if (lo & 1) {
    lo--;
    _mm512_store_ps(s + lo * 16, _mm512_set1_ps(-kInfinity));
  }
  if (hi & 1) {
    _mm512_store_ps(s + hi * 16, _mm512_set1_ps(-kInfinity));
    hi++;
  }
  const float scale = adjust(s, lo, hi, view, scoring);
  const float top = greatestScore(s, lo, hi), most = top * scale, shift = top == -kInfinity ? 0.0f : -most;
  const __m512 factor = _mm512_set1_ps(scale), minus = _mm512_set1_ps(shift);
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
  __m512 total = _mm512_setzero_ps();
  for (int i = lo * 16; i < hi * 16; i += 32) {
    __m512 a = Lanes::roughExp2(_mm512_fmadd_ps(_mm512_load_ps(s + i), factor, minus));
    __m512 b = Lanes::roughExp2(_mm512_fmadd_ps(_mm512_load_ps(s + i + 16), factor, minus));
    __m512bh both = _mm512_cvtne2ps_pbh(b, a);
    _mm512_store_si512(p + i / 2, (__m512i)both);
    total = _mm512_dpbf16_ps(total, both, ones);
  }
  return {most, Lanes::sum(total)};
}

constexpr AttentionTable<PairsDot, 6, 24> kPairs;

}  // namespace

extern const AttentionKernel attentionPairsAvx512Bf16 = kernelOf(kPairs, softmaxPairs);
