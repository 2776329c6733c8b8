// Norms of groups of n contiguous elements; a row holds cols / n of them (the heads of a token).
#pragma once
#include "elementwise.h"

struct NormShape {
  int64_t rows, cols, n;
};
/// `t`: of out and weight, `normed`: of x; f32 or t.
void rmsNormRows(const Context& c, DType t, DType normed, NormShape s, Rows out, Rows x, const void* weight, float eps, float weightOffset);
/// residual += x, rounded to `normed`, which is residual's type; out = rmsNorm(residual). x has out's type.
void addRmsNormRows(const Context& c, DType t, DType normed, NormShape s, Rows out, Rows residual, Rows x, const void* weight, float eps,
                    float weightOffset);
/// bias may be null.
void layerNormRows(const Context& c, DType t, NormShape s, Rows out, Rows x, const void* weight, const void* bias, float eps);
