// Packing of rows one number at a time, for the instruction sets that have no transposition of their own.
#pragma once
#include "linear.h"

namespace {

/// Row r's units [from, units) to every R-th place; toFloat is the instruction set's conversion.
template <class ToFloat>
INLINE void scatterRow(uint32_t* to, const char* x, DType type, int64_t k, int64_t from, int64_t units, int R, bool pairs, ToFloat&& toFloat) {
  if (pairs) {
    for (int64_t u = from; u < units; u++) {
      uint32_t v = 0;
      if (2 * u < k) memcpy(&v, x + 4 * u, 2 * u + 1 < k ? 4 : 2);
      to[u * R] = v;
    }
    return;
  }
  constexpr int64_t kRun = 256;
  alignas(64) float run[kRun];
  for (int64_t u = from; u < units; u += kRun) {
    int64_t n = units - u < kRun ? units - u : kRun, real = k - u < n ? (k > u ? k - u : 0) : n;
    if (type == DType::f32) memcpy(run, x + 4 * u, size_t(real) * 4);
    else toFloat(run, x + u * sizeOf(type), type, real);
    for (int64_t i = real; i < n; i++) run[i] = 0;
    for (int64_t i = 0; i < n; i++) memcpy(to + (u + i) * R, run + i, 4);
  }
}

}  // namespace
