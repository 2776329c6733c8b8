// Which kernel a product gets.
#include "linear.h"
#include "blas.h"
#include "gemm.h"

void linear(Context& c, const LinearCall& a) {
  if (a.m == 0) return;
  // f32 by one row after the other is what a small batch is bound by: reading the weights. cuBLASLt is slower there.
  const bool tensor = gemmTensorFits(a);
  if (a.m <= kGemvRows && !tensor) return gemvFloat(c, a);
  if (c.blas && c.blas->multiply(c, a)) return;
  if (a.m <= kGemvRows) return gemvFloat(c, a);
  if (tensor) return gemmTensor(c, a);
  gemmFloat(c, a);
}
