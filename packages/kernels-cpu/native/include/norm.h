// Norms of one group of n contiguous elements. Sums run over 64 lanes and one tree, whatever surrounds the group.
#pragma once
#include <stdint.h>
#include "context.h"
#include "dtype.h"

struct NormKernels {
  /// With a residual: residual += x, rounded to its type, and that is what is normed; out may be x or residual. `normed` is the
  /// type of what is normed, the residual or else x: f32 or t, which is that of all others.
  void (*rms)(DType t, DType normed, void* out, void* residual, const void* x, const void* weight, float eps, float weightOffset, int64_t n);
  /// bias may be null.
  void (*layer)(DType t, void* out, const void* x, const void* weight, const void* bias, float eps, int64_t n);
};
const NormKernels& normKernels(Isa isa);
