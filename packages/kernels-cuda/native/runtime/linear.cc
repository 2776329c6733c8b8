// Which kernel a product gets.
#include "linear.h"
#include "blas.h"
#include "gemm.h"
#include "linear_small.h"

namespace {

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
  // f32 by one row after the other is what a small batch is bound by: reading the weights. cuBLASLt is slower there.
  const bool tensor = gemmTensorFits(a);
  if (a.m <= kGemvRows && !tensor) return gemvFloat(c, a);
  if (c.blas && c.blas->multiply(c, a)) return;
  if (a.m <= kGemvRows) return gemvFloat(c, a);
  if (gemmWgmmaFits(c, a)) return gemmWgmma(c, a);
  if (tensor) return gemmTensor(c, a);
  gemmFloat(c, a);
}
