// Attention over parts of a context, and how parts become one: inside a block, across a cluster, through memory.
#pragma once
#include "attention_decode_math.cuh"
#include "ring.cuh"

namespace decode {

// ---- clusters: sm_90 and newer; elsewhere a block is its own cluster ------------------------------------------------------------
__device__ __forceinline__ void clusterArrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void clusterWait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
/// Numbers at an address of this block's shared memory, in the block of another rank.
__device__ __forceinline__ float4 loadOfRank(const float4* p, int rank) {
#if __CUDA_ARCH__ >= 900
  uint32_t there;
  float4 v;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(sharedAddress(p)), "r"(rank));
  asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(there) : "memory");
  return v;
#else
  (void)rank;
  return *p;
#endif
}
__device__ __forceinline__ float2 loadOfRank(const float2* p, int rank) {
#if __CUDA_ARCH__ >= 900
  uint32_t there;
  float2 v;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(sharedAddress(p)), "r"(rank));
  asm volatile("ld.shared::cluster.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(there) : "memory");
  return v;
#else
  (void)rank;
  return *p;
#endif
}

// ---- partial results ------------------------------------------------------------------------------------------------------------
/// A head's softmax over a part of the context: its maximum (in powers of 2), its total, and four of its weighted sums.
struct Part {
  float4 value;
  float2 state;
};
/// Parts in their order; those with a maximum of -infinity count for nothing.
template <int N> __device__ __forceinline__ Part merge(const Part (&parts)[N]) {
  float most = -INFINITY;
#pragma unroll
  for (int i = 0; i < N; i++) most = fmaxf(most, parts[i].state.x);
  const float base = most == -INFINITY ? 0.f : most;
  Part all{make_float4(0, 0, 0, 0), make_float2(most, 0)};
#pragma unroll
  for (int i = 0; i < N; i++) {
    const float f = exp2Fast(parts[i].state.x - base);
    all.state.y = fmaf(f, parts[i].state.y, all.state.y);
    all.value.x = fmaf(f, parts[i].value.x, all.value.x), all.value.y = fmaf(f, parts[i].value.y, all.value.y);
    all.value.z = fmaf(f, parts[i].value.z, all.value.z), all.value.w = fmaf(f, parts[i].value.w, all.value.w);
  }
  return all;
}
/// Part i of `count` comes from load(i), N at a time.
template <int N, class Load> __device__ __forceinline__ Part mergeAll(int count, Load load) {
  const Part none{make_float4(0, 0, 0, 0), make_float2(-INFINITY, 0)};
  Part all = none;
  for (int i0 = 0; i0 < count; i0 += N) {
    Part parts[N + 1];
    parts[0] = all;
#pragma unroll
    for (int i = 0; i < N; i++) parts[i + 1] = i0 + i < count ? load(i0 + i) : none;
    all = merge(parts);
  }
  return all;
}

}  // namespace decode
