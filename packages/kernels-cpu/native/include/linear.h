// The linear layer's parts: what a kernel file offers, and what the driver (linear.cc) does with it.
//
// Weights are panels of 16 outputs; a panel is a run of "steps" along k, 64 bytes each: 16 outputs times 4 bytes of k.
//
//   f32    | k of outputs 0 … 15 |
//   bf16   | k, k + 1 of output 0 | k, k + 1 of output 1 | …     what vdpbf16ps takes
//   f16    | k of outputs 0 … 15 | k + 1 of outputs 0 … 15 |     what vcvtph2ps takes
//
// n and k are padded with zeros. Rows of x are packed, per block of R rows, as [unit][R] dwords: a unit is one number of k
// as f32, or two as bf16 for the kernels that multiply those; R broadcasts then come from adjacent bytes.
//
// Every output element is ONE lane of ONE accumulator that walks k upwards from 0, whatever rows, panels and blocks are
// around it: so a row has the same bits in every batch and with any number of threads. Cuts decide speed and nothing else.
#pragma once
#include "context.h"
#include "dtype.h"

constexpr int kPanel = 16, kStepBytes = 64;
/// Numbers of k in a step.
INLINE int stepOf(DType format) { return format == DType::f32 ? 1 : 2; }

struct PackedMatrix {
  char* p;
  DType format;
  int64_t n, k;
  int64_t steps() const { return (k + stepOf(format) - 1) / stepOf(format); }
  int64_t panels() const { return (n + kPanel - 1) / kPanel; }
  size_t panelBytes() const { return size_t(steps()) * kStepBytes; }
  int64_t bytes() const { return panels() * steps() * kStepBytes; }
};

/// Where finished sums go.
struct LinearOut {
  char* p;
  DType type;
  int64_t stride;     // elements between rows
  int64_t n;          // outputs: what the last panel may write
  const float* bias;  // or null
};

/// R rows times J panels over `steps` steps. Sums start at zero if `first`, else at `tile`; they end in `out` (at row, col) if
/// `last`, else in `tile`. One line a step of F panels is prefetched, from `ahead` on.
using LinearMicro = void (*)(const char* w, size_t panelBytes, const uint32_t* x, int64_t steps, float* tile, bool first, bool last,
                             const LinearOut& out, int64_t row, int64_t col, const char* ahead);

constexpr int kMostPanels = 4;
/// How one instruction set multiplies one weight format.
struct LinearKernel {
  bool pairs;      // rows are packed as pairs of bf16; else as f32
  int mostRows;    // the greatest R
  int mostTile;    // R * J <= mostTile
  const LinearMicro* at;  // [R][J][F], R from 0, J and F 0 … kMostPanels
  LinearMicro micro(int r, int j, int f) const { return at[(r * (kMostPanels + 1) + j) * (kMostPanels + 1) + f]; }
  /// Panels side by side for blocks of r rows: as many memory streams.
  int panelsFor(int r) const {
    int j = mostTile / r;
    return j > kMostPanels ? kMostPanels : j;
  }
};

/// What an instruction set has besides: conversions of runs of numbers, and the packing of rows.
struct RowKernels {
  void (*toFloat)(float* to, const char* from, DType type, int64_t n);  // f32, bf16, f16
  void (*fromFloat)(char* to, DType type, const float* from, int64_t n);
  /// R <= 16 rows (stride in bytes) of k numbers -> [unit][R]; units is the padded count, filled up with zeros.
  void (*packRows)(uint32_t* to, const char* x, DType type, int64_t stride, int64_t k, int64_t units, int R, bool pairs);
};

extern const RowKernels rowsPortable, rowsAvx2, rowsAvx512;
extern const LinearKernel linearF32Portable, linearBf16Portable, linearF16Portable;
extern const LinearKernel linearF32Avx2, linearBf16Avx2, linearF16Avx2;
extern const LinearKernel linearF32Avx512, linearBf16Avx512, linearF16Avx512, linearPairsAvx512Bf16;

const RowKernels& rowKernels(Isa isa);
const LinearKernel& linearKernel(Isa isa, DType format, DType x);

/// out [m, n] = x [m, k] (stride in elements) times weightᵀ, plus bias.
void linear(Context& context, const LinearOut& out, const char* x, DType xType, int64_t xStride, int64_t m, const PackedMatrix& weight);
/// out [m, k] = rows of the table; ids outside [first, first + n) give zeros.
void embedding(Context& context, char* out, DType type, int64_t stride, const int32_t* ids, int64_t m, const PackedMatrix& table, int64_t first);

/// A rectangle of numbers in host memory; strides in elements.
struct HostMatrix {
  const char* p;
  DType type;
  int64_t rows, cols, rowStride, colStride;
};
/// Writes src into rows [row, …) and columns [col, …) of dst.
void packWeight(Context& context, const PackedMatrix& dst, const HostMatrix& src, int64_t row, int64_t col);
/// Row-major f32 [n, k].
void unpackWeight(Context& context, float* dst, const PackedMatrix& src);
