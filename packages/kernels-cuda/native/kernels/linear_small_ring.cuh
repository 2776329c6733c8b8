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
__device__ __forceinline__ void feed(Ring& q, const SmallCall& a, const Part& part) {
  const int lane = threadIdx.x & 31, kp = int(a.op.kp);
  for (int u = 0; u < part.units; u++) {
    const int count = part.count(a, u);
    const char* w = static_cast<const char*>(a.op.w) + int64_t(part.row(a, u)) * kp * 2;
    for (int line = 0; line < part.lines; line += a.lines) {
      const int column = line * kLine, bytes = (min(column + a.lines * kLine, kp) - column) * 2;
      barrierWait(q.empty + q.slot * 8, q.phase ^ 1);
      const uint32_t bar = q.full + q.slot * 8, to = q.data + q.slot * a.slotBytes;
      if (lane == 0) barrierExpect(bar, count * bytes);
      __syncwarp();
      if (a.whole) {
        if (lane == 0) bulkLoad(to, w, count * bytes, bar);
      } else if (lane < count) bulkLoad(to + lane * a.pitch, w + (int64_t(lane) * kp + column) * 2, bytes, bar);
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
  uint64_t full[kMostStages], empty[kMostStages];
};
__device__ __forceinline__ Ring openRing(const SmallCall& a, const void* data, SmallBars& bars) {
  Ring q{sharedAddress(data), sharedAddress(bars.full), sharedAddress(bars.empty), a.stages, 0, 0};
  if (threadIdx.x == 0) {
    for (int i = 0; i < a.stages; i++) barrierInit(q.full + i * 8, 1), barrierInit(q.empty + i * 8, kConsumers);
    barrierInitFence();
  }
  __syncthreads();
  return q;
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
