// The kernels of paged attention for one instruction set. A file that includes this has defined `Lanes`, a register of f32
// and its operations, in an unnamed namespace (and for AVX-512 a faster Dot of its own).
//
//   Reg, kWidth                             how many lanes; kParts registers make 16
//   zero, splat, load, store                load and store are aligned to the register
//   add, mul, fma(a, b, c) = a · b + c, max(a, b), min(a, b)     b where either is NaN
//   divide, exp2(x), numbered(i)            2^x for x <= 127, exactly 1 for 0, exactly 0 below -126; lanes i, i + 1, …
//   within(x, first, from, to)              -infinity in lanes whose number (lane + first) is outside [from, to)
//   greatest, sum                           across lanes, by a fixed tree
//   loadBytes<type>(p)                      8-bit floats
//   round(to, type, x)                      stores as f32, bf16 or f16, to nearest even; `to` is aligned to nothing
#pragma once
#include "attention.h"

namespace {

constexpr int kParts = 16 / Lanes::kWidth;
using Reg = Lanes::Reg;
constexpr float kInfinity = __builtin_inff();

// Lines of a cache format as f32: kUnits runs of 16 lanes.
struct F32Lines {
  static constexpr int kUnits = 1;
  static INLINE_MEMBER Reg part(const char* line, int, int p) { return Lanes::load(reinterpret_cast<const float*>(line) + p * Lanes::kWidth); }
};
struct Bf16Lines {
  static constexpr int kUnits = 2;
  static INLINE_MEMBER Reg part(const char* line, int unit, int p) { return Lanes::loadBf16Of(line + p * Lanes::kWidth * 4, unit); }
};
struct F16Lines {
  static constexpr int kUnits = 2;
  static INLINE_MEMBER Reg part(const char* line, int unit, int p) { return Lanes::loadHalves(line + unit * 32 + p * Lanes::kWidth * 2); }
};
template <DType Type> struct ByteLines {
  static constexpr int kUnits = 4;
  static INLINE_MEMBER Reg part(const char* line, int unit, int p) { return Lanes::template loadBytes<Type>(line + unit * 16 + p * Lanes::kWidth); }
};

/// acc[r][j] += line[j] · x[r], x as f32: the dword of row r and unit u is x[r * RowStride + u * UnitStride].
template <class Lines> struct FloatDot {
  static constexpr int kUnits = Lines::kUnits;
  static constexpr bool kPairs = false;
  template <int R, int J, int RowStride, int UnitStride>
  static INLINE_MEMBER void step(Reg (&a)[R][J * kParts], const char* const (&line)[J], const uint32_t* x) {
    UNROLL for (int u = 0; u < kUnits; u++) {
      Reg w[J * kParts];
      UNROLL for (int j = 0; j < J; j++) UNROLL for (int p = 0; p < kParts; p++) w[j * kParts + p] = Lines::part(line[j], u, p);
      UNROLL for (int r = 0; r < R; r++) Lanes::template multiplyAdd<J * kParts>(a[r], w, x + r * RowStride + u * UnitStride);
    }
  }
};

constexpr int kBurst = 32;  // lines of a page's run that are prefetched ahead

template <class Dot, int R, int J>
void score(const char* const* keys, const char* const* ahead, int64_t lines, const uint32_t* x, float* scores) {
  Reg a[R][J * kParts];
  const char *k[J], *next[J];
  UNROLL for (int j = 0; j < J; j++) k[j] = keys[j], next[j] = ahead[j];
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int j = 0; j < J * kParts; j++) a[r][j] = Lanes::zero();
  int64_t i = 0;
  for (; i < lines - kBurst; i++) {
    UNROLL for (int j = 0; j < J; j++) __builtin_prefetch(k[j] + kBurst * kLine, 0, 3);
    Dot::template step<R, J, 1, R>(a, k, x);
    UNROLL for (int j = 0; j < J; j++) k[j] += kLine;
    x += R * Dot::kUnits;
  }
  for (; i < lines; i++) {
    UNROLL for (int j = 0; j < J; j++) __builtin_prefetch(next[j], 0, 3), next[j] += kLine;
    Dot::template step<R, J, 1, R>(a, k, x);
    UNROLL for (int j = 0; j < J; j++) k[j] += kLine;
    x += R * Dot::kUnits;
  }
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int j = 0; j < J * kParts; j++)
    Lanes::store(scores + r * kPieceTokens + j * Lanes::kWidth, a[r][j]);
}

/// W of a part's J panels of values, from panel j0 on: as many as there are registers for. kSide neighbouring pages go side by
/// side, line by line: as many streams keep more of the memory's banks busy than one does. A group always begins at a multiple
/// of kSide and pages that nobody sees only drop out of it, so the order of a row's sums is the same in any batch. The group
/// after it is fetched meanwhile: nearer, farther and not at all were slower.
template <class Dot, int R, int J, int W>
INLINE void weighPanels(const char* const* values, int lo, int hi, const uint32_t* p, float* o, int64_t stride, int j0) {
  constexpr int kUnitsOfPage = Dot::kPairs ? kPageTokens / 2 : kPageTokens, kRow = Dot::kPairs ? kPieceTokens / 2 : kPieceTokens;
  constexpr int kLines = kUnitsOfPage / Dot::kUnits;
  Reg a[R][W * kParts];
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int j = 0; j < W * kParts; j++) a[r][j] = Lanes::zero();
  for (int page = lo; page < hi;) {
    const int first = page, end = (page / kSide + 1) * kSide;
    if (end - first == kSide && end <= hi) {
      const char *v[kSide], *next[kSide];
      UNROLL for (int i = 0; i < kSide; i++) v[i] = values[first + i] + j0 * kLine, next[i] = values[end + i] + j0 * kLine;
      const uint32_t* x = p + first * kUnitsOfPage;
      for (int t = 0; t < kLines; t++, x += Dot::kUnits)
        UNROLL for (int i = 0; i < kSide; i++) {
          const char* line[W];
          UNROLL for (int j = 0; j < W; j++) __builtin_prefetch(next[i] + j * kLine, 0, 3), line[j] = v[i] + j * kLine;
          Dot::template step<R, W, kRow, 1>(a, line, x + i * kUnitsOfPage);
          v[i] += J * kLine, next[i] += J * kLine;
        }
      page = end;
      continue;
    }
    const int stop = end < hi ? end : hi;
    for (int t = 0; t < kLines; t++)
      for (page = first; page < stop; page++) {
        const char* line[W];
        UNROLL for (int j = 0; j < W; j++) line[j] = values[page] + (t * J + j0 + j) * kLine;
        Dot::template step<R, W, kRow, 1>(a, line, p + page * kUnitsOfPage + t * Dot::kUnits);
      }
  }
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int j = 0; j < W * kParts; j++)
    Lanes::store(o + r * stride + j0 * 16 + j * Lanes::kWidth, a[r][j]);
}

template <class Dot, int R, int J, int W>
void weigh(const char* const* values, int lo, int hi, const uint32_t* p, float* o, int64_t stride) {
  int j = 0;
  for (; j + W <= J; j += W) weighPanels<Dot, R, J, W>(values, lo, hi, p, o, stride, j);
  if constexpr (J % W != 0) weighPanels<Dot, R, J, J % W>(values, lo, hi, p, o, stride, j);
}

/// Caps, slopes and masks: whatever is more than q · k · scale. Returns the scale that is still to be applied.
INLINE float adjust(float* s, int lo, int hi, const RowView& view, const Scoring& scoring) {
  float scale = scoring.scale;
  if (scoring.cap > 0) {
    // cap · tanh(y) = cap - 2 cap / (1 + e^2y): off by an ulp of cap, as the score itself is.
    const Reg one = Lanes::splat(1.0f), twice = Lanes::splat(scoring.capScale * 2.885390082f), cap = Lanes::splat(scoring.cap);
    const Reg most = Lanes::splat(60.0f), least = Lanes::splat(-60.0f);
    for (int i = lo * 16; i < hi * 16; i += Lanes::kWidth) {
      Reg y = Lanes::max(least, Lanes::min(most, Lanes::mul(Lanes::load(s + i), twice)));
      Reg down = Lanes::divide(Lanes::splat(-2.0f), Lanes::add(one, Lanes::exp2(y)));
      Lanes::store(s + i, Lanes::fma(cap, down, cap));
    }
    scale = 1;
  }
  if (view.slope != 0 || !(scale > 0)) {
    const Reg slope = Lanes::splat(view.slope), factor = Lanes::splat(scale), offset = Lanes::splat(view.offset);
    for (int i = lo * 16; i < hi * 16; i += Lanes::kWidth)
      Lanes::store(s + i, Lanes::fma(slope, Lanes::add(Lanes::numbered(i), offset), Lanes::mul(Lanes::load(s + i), factor)));
    scale = 1;
  }
  for (int page = lo; page < hi; page++) {
    if (page * 16 >= view.from && page * 16 + 16 <= view.to) continue;
    UNROLL for (int p = 0; p < kParts; p++) {
      const int first = page * 16 + p * Lanes::kWidth;
      Lanes::store(s + first, Lanes::within(Lanes::load(s + first), first, view.from, view.to));
    }
  }
  return scale;
}

INLINE float greatestScore(const float* s, int lo, int hi) {
  Reg most[2] = {Lanes::splat(-kInfinity), Lanes::splat(-kInfinity)};
  for (int i = lo * 16; i < hi * 16; i += 16)
    UNROLL for (int p = 0; p < kParts; p++) most[p & 1] = Lanes::max(Lanes::load(s + i + p * Lanes::kWidth), most[p & 1]);
  return Lanes::greatest(Lanes::max(most[0], most[1]));
}

[[maybe_unused]] RowState softmaxFloats(float* s, uint32_t* p, int lo, int hi, const RowView& view, const Scoring& scoring) {
  const float scale = adjust(s, lo, hi, view, scoring);
  const float top = greatestScore(s, lo, hi), most = top * scale, shift = top == -kInfinity ? 0.0f : -most;
  const Reg factor = Lanes::splat(scale), minus = Lanes::splat(shift);
  Reg total[kParts];
  UNROLL for (int k = 0; k < kParts; k++) total[k] = Lanes::zero();
  for (int i = lo * 16; i < hi * 16; i += 16)
    UNROLL for (int k = 0; k < kParts; k++) {
      Reg e = Lanes::exp2(Lanes::fma(Lanes::load(s + i + k * Lanes::kWidth), factor, minus));
      Lanes::store(reinterpret_cast<float*>(p) + i + k * Lanes::kWidth, e);
      total[k] = Lanes::add(total[k], e);
    }
  float sum = 0;
  UNROLL for (int k = 0; k < kParts; k++) sum += Lanes::sum(total[k]);
  return {most, sum};
}

void merge(float* o, RowState& state, const float* piece, const RowState& pieceState, int64_t n) {
  if (pieceState.most == -kInfinity && pieceState.total == 0) return;  // nothing of it can be seen
  if (state.most == -kInfinity && state.total == 0) {
    memcpy(o, piece, size_t(n) * 4);
    state = pieceState;
    return;
  }
  const float most = pieceState.most > state.most ? pieceState.most : state.most;
  const Reg a = Lanes::exp2(Lanes::splat(state.most - most)), b = Lanes::exp2(Lanes::splat(pieceState.most - most));
  for (int64_t i = 0; i < n; i += Lanes::kWidth)
    Lanes::store(o + i, Lanes::fma(Lanes::load(piece + i), b, Lanes::mul(Lanes::load(o + i), a)));
  state = {most, state.total * Lanes::first(a) + pieceState.total * Lanes::first(b)};
}

void finish(char* out, DType type, const float* o, const RowState& state, float sink, int64_t n) {
  float total = state.total;
  Reg factor = Lanes::splat(1.0f);
  if (sink != -kInfinity) {
    const float most = sink > state.most ? sink : state.most;
    factor = Lanes::exp2(Lanes::splat(state.most - most));
    total = total * Lanes::first(factor) + Lanes::first(Lanes::exp2(Lanes::splat(sink - most)));
  }
  factor = Lanes::divide(factor, Lanes::splat(total));
  const int64_t size = sizeOf(type);
  for (int64_t i = 0; i < n; i += 16) {
    // A sum of nothing but -0 and one that also met a masked token's +0 are the same: + 0 makes them so.
    Reg v[kParts];
    UNROLL for (int p = 0; p < kParts; p++) v[p] = Lanes::add(Lanes::mul(Lanes::load(o + i + p * Lanes::kWidth), factor), Lanes::zero());
    alignas(64) char line[64];
    char* const to = n - i < 16 ? line : out + i * size;
    UNROLL for (int p = 0; p < kParts; p++) Lanes::round(to + p * Lanes::kWidth * size, type, v[p]);
    if (to == line) memcpy(out + i * size, line, size_t((n - i) * size));
  }
}

/// The kernels of one cache format whose sums, MostTile panels, fit the registers. Constant data: no code of this instruction
/// set runs when the addon is loaded.
template <class Dot, int MostRows, int MostTile> struct AttentionTable {
  ScoreKernel score[(MostRows + 1) * (kSide + 1)] = {};
  WeighKernel weigh[(MostRows + 1) * (kPartPanels + 1)] = {};
  constexpr AttentionTable() { fill<1, 1>(); }
  template <int R, int J> constexpr void fill() {
    if constexpr (R <= MostRows) {
      constexpr int kAtOnce = MostTile / R < J ? MostTile / R : J;
      if constexpr (kAtOnce == J) score[R * (kSide + 1) + J] = &::score<Dot, R, J>;
      weigh[R * (kPartPanels + 1) + J] = &::weigh<Dot, R, J, kAtOnce>;
      if constexpr (J < kSide) fill<R, J + 1>();
      else fill<R + 1, 1>();
    }
  }
};

using Softmax = RowState (*)(float*, uint32_t*, int, int, const RowView&, const Scoring&);
template <class Dot, int MostRows, int MostTile>
constexpr AttentionKernel kernelOf(const AttentionTable<Dot, MostRows, MostTile>& t, Softmax softmax) {
  return {Dot::kPairs, MostRows, MostTile, t.score, t.weigh, softmax, merge, finish};
}

}  // namespace
