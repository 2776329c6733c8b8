// Where the sums of a product go: plus bias, rounded once to the output's type.
#pragma once
#include "device.cuh"
#include "linear.h"

/// A number of a type known at run time.
__device__ __forceinline__ float loadAs(DType type, const char* p, int64_t i) {
  if (type == DType::f32) return reinterpret_cast<const float*>(p)[i];
  if (type == DType::bf16) return toFloat(reinterpret_cast<const bf16*>(p)[i]);
  return toFloat(reinterpret_cast<const f16*>(p)[i]);
}
__device__ __forceinline__ void storeAs(DType type, char* p, int64_t i, float v) {
  if (type == DType::f32) reinterpret_cast<float*>(p)[i] = v;
  else if (type == DType::bf16) reinterpret_cast<bf16*>(p)[i] = fromFloat<bf16>(v);
  else reinterpret_cast<f16*>(p)[i] = fromFloat<f16>(v);
}

struct GemmOut {
  char* p;
  DType type;
  int64_t stride;
  const char* bias;
  DType biasType;
  explicit GemmOut(const LinearCall& a) : p(a.out), type(a.outType), stride(a.outStride), bias(a.bias), biasType(a.biasType) {}
  __device__ __forceinline__ void store(int64_t row, int64_t col, float sum) const {
    if (bias) sum += loadAs(biasType, bias, col);
    storeAs(type, p, row * stride + col, sum);
  }
};
