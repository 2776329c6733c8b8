// Small device functions that every kernel uses: launch order, conversions, reductions.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>
#include "dtype.h"

using bf16 = __nv_bfloat16;
using f16 = __half;

// Programmatic dependent launch. trigger: the next kernel's blocks may start. wait: every earlier kernel is complete and what
// it wrote is visible. Every block of every kernel calls both; see launch.h.
__device__ __forceinline__ void pdlTrigger() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ __forceinline__ void pdlWait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ float toFloat(float v) { return v; }
__device__ __forceinline__ float toFloat(bf16 v) { return __bfloat162float(v); }
__device__ __forceinline__ float toFloat(f16 v) { return __half2float(v); }
/// To nearest, ties to even.
template <class T> __device__ __forceinline__ T fromFloat(float v);
template <> __device__ __forceinline__ float fromFloat<float>(float v) { return v; }
template <> __device__ __forceinline__ bf16 fromFloat<bf16>(float v) { return __float2bfloat16_rn(v); }
template <> __device__ __forceinline__ f16 fromFloat<f16>(float v) { return __float2half_rn(v); }

/// N elements that lie together: one load or store of up to 16 bytes.
template <class T, int N> struct alignas(sizeof(T) * N) Vec { T v[N]; };
template <class T> constexpr int kVec = 16 / sizeof(T);

__device__ __forceinline__ float warpSum(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
  return v;
}
__device__ __forceinline__ float warpMax(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(~0u, v, o));
  return v;
}

/// Calls f.operator()<T>() with the C++ type of a float dtype (host side).
template <class F> void withFloat(DType t, F f) {
  if (t == DType::f32) f(float{});
  else if (t == DType::bf16) f(bf16{});
  else f(f16{});
}
