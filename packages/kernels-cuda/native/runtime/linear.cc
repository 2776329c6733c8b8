// Which kernel a product gets.
#include "linear.h"
#include <stdlib.h>
#include <string.h>
#include "blas.h"
#include "gemm.h"
#include "linear_small.h"

namespace {

/// Rows of x up to which f32 arithmetic for one after the other beats cuBLASLt.
constexpr int64_t kBestGemvRows = 4;
/// Rows of x up to which the gated product by wgmma is limited by the reading of the weights.
constexpr int64_t kMostGated = 128;

bool rowsAligned(const LinearCall& a) { return uintptr_t(a.x) % 16 == 0 && a.xStride % 8 == 0 && a.xStride >= a.w.k; }

bool trySmall(Context& c, const LinearCall& a) {
  SmallLinear s{};
  s.w = a.w.p, s.format = a.w.format, s.n = a.w.n, s.k = a.w.k, s.kp = a.w.kp();
  s.x = a.x, s.xType = a.xType, s.xStride = a.xStride, s.tokens = a.m;
  s.bias = a.bias, s.biasType = a.biasType;
  s.epilogue = kStore, s.activation = -1;
  s.out = a.out, s.outType = a.outType, s.outStride = a.outStride;
  if (!smallLinearFits(c, s)) return false;
  smallLinear(c, s);
  return true;
}

}  // namespace

void linear(Context& c, const LinearCall& a) {
  if (a.m == 0 || trySmall(c, a)) return;
  const bool tensor = gemmTensorFits(a);
  if (a.m <= kBestGemvRows && !tensor) return gemvFloat(c, a);
  if (c.blas && c.blas->multiply(c, a)) return;
  if (a.m <= kGemvRows) return gemvFloat(c, a);
  if (gemmWgmmaFits(c, a)) return gemmWgmma(c, a);
  if (tensor) return gemmTensor(c, a);
  gemmFloat(c, a);
}

bool linearGatedFits(const Context& c, const LinearCall& a) {
  static const bool wanted = [] {
    const char* v = getenv("APHRODITE_WGMMA");
    return v && strcmp(v, "1") == 0;
  }();
  if (!wanted) return false;  // docs/gemm.md says why
  LinearCall there = a;  // as it is where rows have to be copied
  if (!rowsAligned(a)) there.x = nullptr, there.xStride = a.w.kp();
  return a.activation >= 0 && a.w.n % 2 == 0 && a.m >= 1 && a.m <= kMostGated && gemmWgmmaFits(c, there) &&
         size_t(a.m * a.w.kp()) * 2 <= Context::kScratchBytes;
}

void linearGated(Context& c, const LinearCall& a) { gemmWgmma(c, rowsAligned(a) ? a : alignRows(c, a, 0)); }
