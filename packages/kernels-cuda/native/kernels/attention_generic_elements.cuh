// Elements of any float type, read and written by a dtype that is known at run time only: what the generic kernels use, where
// the branch (the same for a whole grid) costs less than a kernel for every pair of types.
#pragma once
#include <cuda_fp8.h>
#include "device.cuh"

__device__ __forceinline__ float loadElement(DType type, const char* p, int64_t i) {
  switch (type) {
    case DType::f32: return reinterpret_cast<const float*>(p)[i];
    case DType::bf16: return toFloat(reinterpret_cast<const bf16*>(p)[i]);
    default: return toFloat(reinterpret_cast<const f16*>(p)[i]);
  }
}
__device__ __forceinline__ void storeElement(DType type, char* p, int64_t i, float v) {
  switch (type) {
    case DType::f32: reinterpret_cast<float*>(p)[i] = v; break;
    case DType::bf16: reinterpret_cast<bf16*>(p)[i] = fromFloat<bf16>(v); break;
    default: reinterpret_cast<f16*>(p)[i] = fromFloat<f16>(v);
  }
}

/// The elements of 16 bytes of a cache row: 4, 8 or 16 of them.
__device__ __forceinline__ void unpackChunk(DType type, uint4 chunk, float (&to)[16]) {
  const uint32_t words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
  for (int w = 0; w < 4; w++) {
    const uint32_t u = words[w];
    if (type == DType::f32) {
      to[w] = __uint_as_float(u);
    } else if (type == DType::bf16) {
      to[2 * w] = __uint_as_float(u << 16), to[2 * w + 1] = __uint_as_float(u & 0xffff0000);
    } else if (type == DType::f16) {
      const float2 f = __half22float2(*reinterpret_cast<const __half2*>(&u));
      to[2 * w] = f.x, to[2 * w + 1] = f.y;
    } else {
      const auto kind = type == DType::f8e4m3 ? __NV_E4M3 : __NV_E5M2;
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const __half2_raw raw = __nv_cvt_fp8x2_to_halfraw2(__nv_fp8x2_storage_t(u >> (16 * h)), kind);
        const float2 f = __half22float2(__half2(raw));
        to[4 * w + 2 * h] = f.x, to[4 * w + 2 * h + 1] = f.y;
      }
    }
  }
}
/// 16 bytes of a cache row from its elements. 8-bit floats saturate: they have no use for infinities.
__device__ __forceinline__ uint4 packChunk(DType type, const float (&from)[16]) {
  uint32_t words[4];
#pragma unroll
  for (int w = 0; w < 4; w++) {
    if (type == DType::f32) {
      words[w] = __float_as_uint(from[w]);
    } else if (type == DType::bf16) {
      const __nv_bfloat162 v = __floats2bfloat162_rn(from[2 * w], from[2 * w + 1]);
      words[w] = *reinterpret_cast<const uint32_t*>(&v);
    } else if (type == DType::f16) {
      const __half2 v = __floats2half2_rn(from[2 * w], from[2 * w + 1]);
      words[w] = *reinterpret_cast<const uint32_t*>(&v);
    } else {
      const auto kind = type == DType::f8e4m3 ? __NV_E4M3 : __NV_E5M2;
      const uint32_t a = __nv_cvt_float2_to_fp8x2(make_float2(from[4 * w], from[4 * w + 1]), __NV_SATFINITE, kind);
      const uint32_t b = __nv_cvt_float2_to_fp8x2(make_float2(from[4 * w + 2], from[4 * w + 3]), __NV_SATFINITE, kind);
      words[w] = a | b << 16;
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}
