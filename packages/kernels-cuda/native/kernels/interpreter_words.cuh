// Words: how activations go from op to op inside the interpreter. interpreter_list.h says what they are.
#pragma once
#include "device.cuh"

namespace interpreter {

__device__ __forceinline__ uint2 loadWord(const uint64_t* p) {
  uint64_t a;
  asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(a) : "l"(p) : "memory");
  return make_uint2(uint32_t(a), uint32_t(a >> 32));
}
/// Two words.
__device__ __forceinline__ uint4 loadWords(const uint64_t* p) {
  uint64_t a, b;
  asm volatile("ld.relaxed.gpu.global.v2.b64 {%0,%1}, [%2];" : "=l"(a), "=l"(b) : "l"(p) : "memory");
  return make_uint4(uint32_t(a), uint32_t(a >> 32), uint32_t(b), uint32_t(b >> 32));
}
__device__ __forceinline__ void storeWord(uint64_t* p, uint32_t value, uint32_t tag) {
  asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(p), "l"(uint64_t(tag) << 32 | value) : "memory");
}
__device__ __forceinline__ uint32_t pairOf(float a, float b) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&v);
}
__device__ __forceinline__ float lowOf(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float highOf(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

/// A word that never comes ends the kernel with an error (after seconds) instead of holding the GPU.
struct Patience {
  int left = 4000000;
  __device__ __forceinline__ void operator()() {
    if (--left < 0) __trap();
  }
};

/// For each of `count` pairs of words i = tid, tid + 256, …: put(i, first, second, before(i)), when both have this tag. before(i) is
/// asked for ahead of the wait. kEach at a time; while it waits a thread asks for four at most, so that waiting does not load the L2.
template <int kEach, class Before, class Put>
__device__ __forceinline__ void awaitWords(const uint64_t* p, int count, uint32_t tag, int tid, Before before, Put put) {
  constexpr int kHot = kEach <= 4 ? kEach : 2;
  for (int first = tid; first < count; first += kEach * 256) {
    uint4 w[kEach];
    uint32_t other[kEach];
    Patience patience;
    auto get = [&](int i) {
      if (first + i * 256 < count) w[i] = loadWords(p + (first + i * 256) * 2);
    };
    auto there = [&](int i) { return first + i * 256 >= count || (w[i].y == tag && w[i].w == tag); };
#pragma unroll
    for (int i = 0; i < kEach; i++) other[i] = first + i * 256 < count ? before(first + i * 256) : 0;
#pragma unroll
    for (int i = 0; i < kEach; i++) get(i);
    while (true) {
      bool all = true;
#pragma unroll
      for (int i = 0; i < kHot; i++) all &= there(i);
      if (all) break;
      patience();
#pragma unroll
      for (int i = 0; i < kHot; i++) get(i);
    }
    while (kEach > kHot) {
      bool all = true;
#pragma unroll
      for (int i = kHot; i < kEach; i++) all &= there(i);
      if (all) break;
      patience();
#pragma unroll
      for (int i = kHot; i < kEach; i++) get(i);
    }
#pragma unroll
    for (int i = 0; i < kEach; i++)
      if (first + i * 256 < count) put(first + i * 256, w[i].x, w[i].z, other[i]);
  }
}

}  // namespace interpreter
