// The kernel for sm_90: one warp streams the block's rows of the weight through a ring in shared memory, far ahead of every
// dependency; eight warps multiply, each a part of the columns. The weight is the right operand of mma.m16n8k16 as it lies in
// memory; the order of columns inside 32 is permuted in the same way for both operands.
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

template <class F, int ABREAST> __global__ __launch_bounds__(kConsumerThreads + 32, 1) void smallLinearRing(const __grid_constant__ SmallCall a) {
#if __CUDA_ARCH__ >= 900
  using T = typename F::Weight;
  extern __shared__ __align__(128) char shared[];
  __shared__ uint64_t bars[2 * kMostStages + 2];
  __shared__ float sums[kMostNormed * kConsumers];
  const int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31, g = lane >> 2, t = lane & 3;
  pdlTrigger();
  Ring q{sharedAddress(shared), sharedAddress(bars), sharedAddress(bars + kMostStages), a.stages, 0, 0};
  const uint32_t receivedBar = sharedAddress(bars + 2 * kMostStages);
  if (tid == 0) {
    for (int i = 0; i < a.stages; i++) barrierInit(q.full + i * 8, 1), barrierInit(q.empty + i * 8, kConsumers);
    barrierInit(receivedBar, kConsumers * a.cluster);
    barrierInitFence();
  }
  __syncthreads();
  if (a.cluster > 1) asm volatile("barrier.cluster.arrive.aligned;" ::: "memory");
  const Part part(a);
  if (warp == kConsumers) {
    feed<ABREAST>(q, a, part);
    pdlWait();
    if (a.cluster > 1) asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
    return;
  }
  prefetchSmallWeights(a, part, tid);
  pdlWait();
  const uint32_t xs = q.data + a.xAt;
  loadInput<T, F::split>(a, part, xs, sums, tid);
  Finish<F, F::P == 2 ? 4 : 2> finish(a, part, reinterpret_cast<float*>(shared + a.partsAt), reinterpret_cast<float*>(shared + a.receivedAt), receivedBar, sums, tid);
  finish.prepare(0);
  barSync(1, kConsumerThreads);
  if (a.cluster > 1) asm volatile("barrier.cluster.wait.aligned;" ::: "memory");

  const int tokens = int(a.op.tokens);
  // Rows whose stride is a multiple of all banks: odd ones read the halves of a line in the other order.
  const bool swap = a.pitch % 128 == 0 && (g & 1);
  const uint32_t early = swap ? 64 : 0, late = 64 - early, wLane = g * a.pitch + t * 16;
  bool live[F::P][2];
  uint32_t xLane[F::P][2];
#pragma unroll
  for (int p = 0; p < F::P; p++) {
    live[p][0] = p * 16 + g < tokens;
    live[p][1] = F::split ? g < tokens : p * 16 + 8 + g < tokens;
    xLane[p][0] = xs + (p * 16 + g) * a.xPitch + t * 16;
    xLane[p][1] = xs + (F::split ? tokens + g : p * 16 + 8 + g) * a.xPitch + t * 16;
  }
  int held = 0;  // units since the last flush
  for (int u = 0; u < part.units; u += ABREAST) {
    float c[ABREAST][F::P][2][4] = {};
    const int abreast = ABREAST == 1 ? 1 : min(ABREAST, part.units - u);
    for (int line0 = part.line0; line0 < part.line1; line0 += a.lines) {
      const int lines = min(a.lines, part.line1 - line0);
      uint32_t at[ABREAST], bar[ABREAST];
#pragma unroll
      for (int m = 0; m < ABREAST; m++) {
        at[m] = bar[m] = 0;
        if (m >= abreast) break;
        barrierWait(q.full + q.slot * 8, q.phase);
        at[m] = q.data + q.slot * a.slotBytes + wLane, bar[m] = q.empty + q.slot * 8;
        q.next();
      }
#pragma unroll 2
      for (int l = warp; l < lines; l += kConsumers) {
        const uint32_t xLine = (line0 - part.line0 + l) * 128;
        const bool second = (line0 + l) * kLine + 32 < a.op.kp;
        uint4 x[F::P][2][2];
#pragma unroll
        for (int p = 0; p < F::P; p++)
#pragma unroll
          for (int h = 0; h < 2; h++) {
            x[p][0][h] = x[p][1][h] = make_uint4(0, 0, 0, 0);
            if (live[p][0]) x[p][0][h] = loadShared16(xLane[p][0] + xLine + h * 64);
            if (F::upper && live[p][1]) x[p][1][h] = loadShared16(xLane[p][1] + xLine + h * 64);
          }
#pragma unroll
        for (int m = 0; m < ABREAST; m++) {
          if (m >= abreast) break;
          const uint4 v0 = loadShared16(at[m] + l * 128 + early), v1 = loadShared16(at[m] + l * 128 + late);
          const uint4 w0 = swap ? v1 : v0, w1 = swap ? v0 : v1;
#pragma unroll
          for (int p = 0; p < F::P; p++) {
            mma<T>(c[m][p][0], x[p][0][0].x, x[p][1][0].x, x[p][0][0].y, x[p][1][0].y, w0.x, w0.y);
            mma<T>(c[m][p][1], x[p][0][0].z, x[p][1][0].z, x[p][0][0].w, x[p][1][0].w, w0.z, w0.w);
          }
          if (second)
#pragma unroll
            for (int p = 0; p < F::P; p++) {
              mma<T>(c[m][p][0], x[p][0][1].x, x[p][1][1].x, x[p][0][1].y, x[p][1][1].y, w1.x, w1.y);
              mma<T>(c[m][p][1], x[p][0][1].z, x[p][1][1].z, x[p][0][1].w, x[p][1][1].w, w1.z, w1.w);
            }
        }
      }
#pragma unroll
      for (int m = 0; m < ABREAST; m++) {
        if (m >= abreast) break;
        release(bar[m], c[m][F::P - 1][0][0] + c[m][F::P - 1][1][0]);
      }
    }
#pragma unroll
    for (int m = 0; m < ABREAST; m++)
      if (m < abreast) finish.put(held + m, c[m]);
    held += abreast;
    const bool last = u + ABREAST >= part.units;
    if (held < a.flush && !last) continue;
    finish.flush(last);
    held = 0;
    if (!last) finish.prepare(u + ABREAST);
  }
#endif
}
