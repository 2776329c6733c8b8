// The norm of what a block returns and the norm of the sum that it is added to, in one kernel.
#pragma once
#include "elementwise.h"

struct NormPair {
  int64_t rows, n;
  DType t, sum;  // of out, x and the weights; of residual: f32 or t
  Rows out, residual, x;
  const void *first, *second;  // weights [n]
  float firstEps, firstOffset, secondEps, secondOffset;
};

/// Rows of whole 16-byte vectors, of at most 16,384 elements (8,192 of f32).
bool normPairFits(const NormPair& p);
/// residual += rmsNorm(x, first), rounded to residual's type; out = rmsNorm(residual, second). out may be x.
void normPair(const Context& c, const NormPair& p);
