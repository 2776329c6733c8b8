// Elementwise ops on a run of n contiguous elements of type t (f32, bf16 or f16); out may be an input.
#pragma once
#include <stdint.h>
#include "context.h"
#include "dtype.h"

/// As numbered by @aphrodite/tensor's ACTIVATION_CODE.
enum class Activation : int { silu, gelu, geluTanh, relu, relu2, count };

struct ElementwiseKernels {
  void (*add)(DType t, void* out, const void* a, const void* b, int64_t n);
  void (*scale)(DType t, void* out, const void* x, float factor, int64_t n);
  void (*softCap)(DType t, void* out, const void* x, float cap, int64_t n);
  void (*activate)(DType t, Activation f, void* out, const void* x, int64_t n);
  /// out = f(gate) * up
  void (*activateAndMul)(DType t, Activation f, void* out, const void* gate, const void* up, int64_t n);
  void (*convert)(DType to, DType from, void* out, const void* x, int64_t n);
};
const ElementwiseKernels& elementwiseKernels(Isa isa);
