// Products with weights, rows of tables, and how weights lie in device memory: row-major [n][kp], kp = k rounded up to a
// multiple of 32 elements, the padding zero; so every row starts at a multiple of 64 bytes and may be read in whole vectors.
#pragma once
#include "context.h"
#include "dtype.h"

struct PackedMatrix {
  char* p;
  DType format;  // f32, bf16, f16
  int64_t n, k;
  int64_t kp() const { return (k + 31) / 32 * 32; }
  int64_t rowBytes() const { return kp() * sizeOf(format); }
  int64_t bytes() const { return n * rowBytes(); }
};

/// out [m, n] = x [m, k] · wᵀ (+ bias); gated: out [m, n / 2] = activation(y[:, i]) · y[:, n / 2 + i] of that. Strides in elements; nothing is aligned to more than its dtype, except w.
struct LinearCall {
  char* out;
  DType outType;
  int64_t outStride;
  const char* x;
  DType xType;
  int64_t xStride;
  int64_t m;
  PackedMatrix w;
  const char* bias;  // [n] or null
  DType biasType;
  int activation = -1;  // gated: ACTIVATION_CODE of @aphrodite/tensor. Only gemmWgmma does it.
};

/// Chooses the kernel: small batches, cuBLASLt, our own product.
void linear(Context& c, const LinearCall& call);

/// The gated form, for a few more rows than `smallLinear` takes. A null x counts as an aligned one; others are copied.
bool linearGatedFits(const Context& c, const LinearCall& call);
void linearGated(Context& c, const LinearCall& call);

/// out [m, k] = rows ids[i] - first of the table; zeros where that is outside it.
struct EmbeddingCall {
  char* out;
  DType outType;
  int64_t outStride;
  const int32_t* ids;
  int64_t m;
  PackedMatrix table;
  int64_t first;
};
void embedding(Context& c, const EmbeddingCall& call);

/// A rectangle of numbers in host memory; strides in elements.
struct HostMatrix {
  const char* p;
  DType type;  // f32, f64, bf16, f16, f8e4m3, f8e5m2
  int64_t rows, cols, rowStride, colStride;
};
/// Writes src into rows [row, …) and columns [col, …) of dst. Enqueued; src is not read any more when this returns.
void packWeight(Context& c, const PackedMatrix& dst, const HostMatrix& src, int64_t row, int64_t col);
/// Row-major f32 [n, k] in host memory. Waits.
void unpackWeight(Context& c, float* to, const PackedMatrix& src);
