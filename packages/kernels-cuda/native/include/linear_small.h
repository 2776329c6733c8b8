// Products of few rows with a 16-bit weight: limited by the reading of the weight, so that norms, activations and the residual
// sum beside it cost next to nothing when they are part of the same kernel. docs/linear-small.md has the reasons and the numbers.
#pragma once
#include "context.h"
#include "dtype.h"

enum SmallEpilogue : int {
  kStore,     // out = y
  kResidual,  // out += y, in place
  kGated,     // out[:, i] = activation(y[:, i]) · y[:, n / 2 + i]
};

struct SmallLinear {
  // y [tokens, n] = x [tokens, k] · w [n, kp]ᵀ (+ bias); strides in elements
  const void* w;
  DType format;  // bf16 or f16
  int64_t n, k, kp;
  const void* x;
  DType xType;
  int64_t xStride, tokens;
  const void* bias;  // [n] or null
  DType biasType;
  // x is normalised first: x / sqrt(mean(x²) + eps) · (g + gOffset); g null: it is not
  const void* g;  // [k]
  DType gType;
  float eps, gOffset;
  int epilogue;    // SmallEpilogue
  int activation;  // ACTIVATION_CODE of @aphrodite/tensor
  void* out;       // [tokens, n], for kGated [tokens, n / 2]
  DType outType;
  int64_t outStride;
};

enum SmallKind : int {
  kDirect,    // weights in registers: every target
  kResident,  // weights through a ring in shared memory, filled by bulk copies (sm_90)
  kTiles,     // the same for what decode steps ask for most, by shorter code and 16 rows at a time
};

/// How a product is divided. Every plan that `planFits` is right; which is fastest depends on the card.
struct SmallPlan {
  int kind;         // SmallKind
  int lines;        // lines of 64 columns that a slot of the ring holds of each of its 8 or 16 rows, at most
  int sharedBytes;  // shared memory to use at most
};

/// Whether these kernels can do it, and are the better choice for it. Null addresses count as well aligned ones.
bool smallLinearFits(const Context& c, const SmallLinear& a);
/// Enqueues it. Only for what fits.
void smallLinear(Context& c, const SmallLinear& a);

SmallPlan planSmallLinear(const Context& c, const SmallLinear& a);
bool planFits(const Context& c, const SmallLinear& a, const SmallPlan& plan);
void smallLinear(Context& c, const SmallLinear& a, const SmallPlan& plan);
