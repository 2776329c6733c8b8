// The micro-kernel of the linear layer and its table, for the kernel files: each includes this once, with its own flags, so
// all of it is in an unnamed namespace.
#pragma once
#include "linear.h"

namespace {

/// An Op says how a step of weights meets R rows:
///   Acc, kParts            a register of sums; how many make a panel of 16
///   kUnits                 units of x in a step
///   zero(), load(p), save(p, acc)     16 / kParts floats
///   multiply<R, J>(a, w, panelBytes, x)   a[R][J * kParts] += one step
///   finish(out, row, col, a)   adds the bias, rounds, writes the kParts registers of a panel
template <class Op, int R, int J, int F>
void micro(const char* w, size_t panel, const uint32_t* x, int64_t steps, float* tile, bool first, bool last, const LinearOut& out,
           int64_t row, int64_t col, const char* ahead) {
  constexpr int P = J * Op::kParts, kLanes = kPanel / Op::kParts;
  typename Op::Acc a[R][P];
  if (first) {
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int j = 0; j < P; j++) a[r][j] = Op::zero();
  } else {
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int j = 0; j < P; j++) a[r][j] = Op::load(tile + (r * P + j) * kLanes);
  }
  for (int64_t u = 0; u < steps; u++, w += kStepBytes, x += R * Op::kUnits) {
    UNROLL for (int f = 0; f < F; f++) __builtin_prefetch(ahead + f * panel, 0, 3);
    if (F) ahead += kStepBytes;
    Op::template multiply<R, J>(a, w, panel, x);
  }
  if (last) {
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int j = 0; j < J; j++) Op::finish(out, row + r, col + kPanel * j, a[r] + j * Op::kParts);
  } else {
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int j = 0; j < P; j++) Op::save(tile + (r * P + j) * kLanes, a[r][j]);
  }
}

/// The kernels whose sums fit the registers. Constant data: no code of this instruction set runs when the addon is loaded.
template <class Op, int MostRows, int MostTile> struct Table {
  LinearMicro at[MostRows + 1][kMostPanels + 1][kMostPanels + 1] = {};
  constexpr Table() { fill<1, 1, 0>(); }
  template <int R, int J, int F> constexpr void fill() {
    if constexpr (R <= MostRows) {
      if constexpr (R * J <= MostTile) at[R][J][F] = &micro<Op, R, J, F>;
      if constexpr (F < J) fill<R, J, F + 1>();
      else if constexpr (J < kMostPanels && R * (J + 1) <= MostTile) fill<R, J + 1, 0>();
      else fill<R + 1, 1, 0>();
    }
  }
};

/// A finished panel of one row, as 16 floats in memory: the path of the last panel, and of what has no masked stores.
INLINE void finishFloats(const LinearOut& out, int64_t row, int64_t col, const float* sums) {
  int64_t n = out.n - col < kPanel ? out.n - col : kPanel;
  char* to = out.p + (row * out.stride + col) * sizeOf(out.type);
  for (int64_t i = 0; i < n; i++) storeFloat(out.type, to + i * sizeOf(out.type), out.bias ? sums[i] + out.bias[col + i] : sums[i]);
}

}  // namespace
