// The ring of the kernels for sm_90: one warp streams the block's rows of the weight through shared memory, far ahead of every
// dependency; eight warps multiply, each every eighth line. The weight is the right operand of mma.m16n8k16 as it lies in memory;
// the order of columns inside 32 is permuted in the same way for both operands.
#pragma once
#include "linear_small_finish.cuh"

struct Ring {
  uint32_t data, full, empty;
  int stages, slot;
  uint32_t phase;
  __device__ __forceinline__ void next() {
    if (++slot == stages) slot = 0, phase ^= 1;
  }
};

/// The feeding warp. It knows nothing of x.
template <int ABREAST> __device__ __forceinline__ void feed(Ring& q, const SmallCall& a, const Part& part) {
  const int lane = threadIdx.x & 31, kp = int(a.op.kp);
  const char* w = static_cast<const char*>(a.op.w);
  for (int u = 0; u < part.units; u += ABREAST)
    for (int line = part.line0; line < part.line1; line += a.lines) {
      const int column = line * kLine, bytes = (min(min(line + a.lines, part.line1) * kLine, kp) - column) * 2;
#pragma unroll 1
      for (int v = u; v < min(part.units, u + ABREAST); v++) {
        const int count = part.count(a, v);
        const char* from = w + (int64_t(part.row(a, v)) * kp + column) * 2;
        barrierWait(q.empty + q.slot * 8, q.phase ^ 1);
        const uint32_t bar = q.full + q.slot * 8, to = q.data + q.slot * a.slotBytes;
        if (lane == 0) barrierExpect(bar, count * bytes);
        __syncwarp();
        if (a.whole) {
          if (lane == 0) bulkLoad(to, from, count * bytes, bar);
        } else if (lane < count) bulkLoad(to + lane * a.pitch, from + int64_t(lane) * kp * 2, bytes, bar);
        q.next();
      }
    }
}

/// Frees a slot. The arrival depends on products of all that was read from it: otherwise the compiler puts it before the mma, while
/// loads are still under way, and the copy engine overwrites what they read.
__device__ __forceinline__ void release(uint32_t bar, float dependence) {
  __syncwarp();
  if ((threadIdx.x & 31) == 0) barrierArrive(bar + (__float_as_uint(dependence) == 0x7fc12345u ? 8 : 0));
}

/// A block's barriers; the first thread sets them up.
struct SmallBars {
  uint64_t full[kMostStages], empty[kMostStages], received;
};
__device__ __forceinline__ Ring openRing(const SmallCall& a, const void* data, SmallBars& bars) {
  Ring q{sharedAddress(data), sharedAddress(bars.full), sharedAddress(bars.empty), a.stages, 0, 0};
  if (threadIdx.x == 0) {
    for (int i = 0; i < a.stages; i++) barrierInit(q.full + i * 8, 1), barrierInit(q.empty + i * 8, kConsumers);
    barrierInit(sharedAddress(&bars.received), kConsumers * a.cluster);
    barrierInitFence();
  }
  __syncthreads();
  return q;
}
// All threads of a cluster's blocks: nobody writes into a block before it has set up its barriers.
__device__ __forceinline__ void clusterArrive(const SmallCall& a) {
#if __CUDA_ARCH__ >= 900
  if (a.cluster > 1) asm volatile("barrier.cluster.arrive.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void clusterWait(const SmallCall& a) {
#if __CUDA_ARCH__ >= 900
  if (a.cluster > 1) asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
#endif
}

/// 8 rows × 32 columns of the weight for the lane, from the two halves of a line. Rows whose stride is a multiple of all banks:
/// odd ones read the halves in the other order.
struct LineReader {
  bool swap;
  uint32_t lane, early, late;
  __device__ LineReader(const SmallCall& a, int g, int t) {
    swap = a.pitch % 128 == 0 && (g & 1);
    early = swap ? 64 : 0, late = 64 - early, lane = g * a.pitch + t * 16;
  }
  __device__ __forceinline__ void read(uint32_t at, uint4& w0, uint4& w1) const {
    const uint4 v0 = loadShared16(at + early), v1 = loadShared16(at + late);
    w0 = swap ? v1 : v0, w1 = swap ? v0 : v1;
  }
};
/// The products of 32 columns.
template <class T> __device__ __forceinline__ void multiply(float (&c)[2][4], const uint4& x0, const uint4& x1, const uint4& w) {
  mma<T>(c[0], x0.x, x1.x, x0.y, x1.y, w.x, w.y);
  mma<T>(c[1], x0.z, x1.z, x0.w, x1.w, w.z, w.w);
}
