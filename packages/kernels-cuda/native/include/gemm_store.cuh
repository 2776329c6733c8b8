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
  bool pairs;  // two numbers at an even column may be stored as one
  explicit GemmOut(const LinearCall& a)
      : p(a.out), type(a.outType), stride(a.outStride), bias(a.bias), biasType(a.biasType), pairs(a.outStride % 2 == 0 && uintptr_t(a.out) % 8 == 0) {}
  __device__ __forceinline__ void store(int64_t row, int64_t col, float sum) const {
    if (bias) sum += loadAs(biasType, bias, col);
    storeAs(type, p, row * stride + col, sum);
  }
  /// Columns col (even) and col + 1, where they are below n.
  __device__ __forceinline__ void storePair(int64_t row, int64_t col, int64_t n, float a, float b) const {
    if (col + 1 >= n || !pairs) {
      if (col < n) store(row, col, a);
      if (col + 1 < n) store(row, col + 1, b);
      return;
    }
    if (bias) a += loadAs(biasType, bias, col), b += loadAs(biasType, bias, col + 1);
    storeTogether(row, col, a, b);
  }
  /// The same without bias.
  __device__ __forceinline__ void storePairPlain(int64_t row, int64_t col, int64_t n, float a, float b) const {
    if (col + 1 < n && pairs) return storeTogether(row, col, a, b);
    if (col < n) storeAs(type, p, row * stride + col, a);
    if (col + 1 < n) storeAs(type, p, row * stride + col + 1, b);
  }
  __device__ __forceinline__ float biasAt(int64_t col, int64_t n) const { return col < n ? loadAs(biasType, bias, col) : 0; }

 private:
  __device__ __forceinline__ void storeTogether(int64_t row, int64_t col, float a, float b) const {
    const int64_t i = (row * stride + col) / 2;
    if (type == DType::f32) reinterpret_cast<float2*>(p)[i] = make_float2(a, b);
    else if (type == DType::bf16) reinterpret_cast<__nv_bfloat162*>(p)[i] = __floats2bfloat162_rn(a, b);
    else reinterpret_cast<__half2*>(p)[i] = __floats2half2_rn(a, b);
  }
};
