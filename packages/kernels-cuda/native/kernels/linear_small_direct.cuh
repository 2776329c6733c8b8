// The kernel for every target: the weight goes from memory to registers, several lines at a time.
#pragma once
#include "linear_small_finish.cuh"

/// Read once: not kept in the first-level cache.
__device__ __forceinline__ uint4 loadStream16(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}

template <class F> __global__ __launch_bounds__(kConsumerThreads, 2) void smallLinearDirect(const __grid_constant__ SmallCall a) {
  using T = typename F::Weight;
  extern __shared__ __align__(128) char shared[];
  __shared__ float sums[kMostNormed * kConsumers];
  const int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31, g = lane >> 2, t = lane & 3;
  pdlTrigger();
  const Part part(a);
  prefetchSmallWeights(a, part, tid);
  pdlWait();
  const uint32_t xs = sharedAddress(shared) + a.xAt;
  loadInput<T, F::split>(a, xs, sums, tid);
  Finish<F> finish(a, part, reinterpret_cast<float*>(shared + a.partsAt), sums, tid);
  finish.prepare(0);
  barSync(1, kConsumerThreads);
  finish.normalise();

  const int tokens = int(a.op.tokens), kp = int(a.op.kp);
  const bool live = g < tokens;
  const uint32_t xLane = xs + g * a.xPitch + t * 16, restLane = xLane + tokens * a.xPitch;
  constexpr int kAhead = 4;  // lines asked for at once
  int held = 0;              // units since the last flush
  for (int u = 0; u < part.units; u++) {
    float c[2][4] = {};
    // For a row that is not there, the last one: its products are not used.
    const char* w = static_cast<const char*>(a.op.w) + (int64_t(part.row(a, u) + min(g, part.count(a, u) - 1)) * kp + t * 8) * 2;
    for (int l0 = warp; l0 < part.lines; l0 += kConsumers * kAhead) {
      uint4 v[kAhead][2];
#pragma unroll
      for (int i = 0; i < kAhead; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const int l = l0 + i * kConsumers;
          v[i][h] = make_uint4(0, 0, 0, 0);
          if (l * kLine + h * 32 < kp) v[i][h] = loadStream16(w + int64_t(l) * 128 + h * 64);
        }
#pragma unroll
      for (int i = 0; i < kAhead; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const int l = l0 + i * kConsumers;
          if (l * kLine + h * 32 >= kp) continue;
          uint4 x = make_uint4(0, 0, 0, 0), rest = x;
          if (live) x = loadShared16(xLane + l * 128 + h * 64);
          if (F::split && live) rest = loadShared16(restLane + l * 128 + h * 64);
          multiply<T>(c, x, rest, v[i][h]);
        }
    }
    finish.put(held++, c);
    const bool last = u + 1 == part.units;
    if (held < a.flush && !last) continue;
    finish.flush(last);
    held = 0;
    if (!last) finish.prepare(u + 1);
  }
}
