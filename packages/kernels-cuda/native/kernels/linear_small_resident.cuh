// The kernel for sm_90: x in shared memory, the weight through the ring, one unit after the other.
#pragma once
#include "linear_small_ring.cuh"

template <class F> __global__ __launch_bounds__(kConsumerThreads + 32, 1) void smallLinearResident(const __grid_constant__ SmallCall a) {
#if __CUDA_ARCH__ >= 900
  using T = typename F::Weight;
  extern __shared__ __align__(128) char shared[];
  __shared__ SmallBars bars;
  __shared__ float sums[kMostNormed * kConsumers];
  const int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31, g = lane >> 2, t = lane & 3;
  pdlTrigger();
  Ring q = openRing(a, shared, bars);
  const Part part(a);
  if (warp == kConsumers) {
    feed(q, a, part);
    pdlWait();
    return;
  }
  prefetchSmallWeights(a, part, tid);
  pdlWait();
  const uint32_t xs = q.data + a.xAt;
  loadInput<T, F::split>(a, xs, sums, tid);
  Finish<F> finish(a, part, reinterpret_cast<float*>(shared + a.partsAt), sums, tid);
  finish.prepare(0);
  barSync(1, kConsumerThreads);
  finish.normalise();

  const int tokens = int(a.op.tokens);
  const LineReader reader(a, g, t);
  const bool live = g < tokens;
  const uint32_t xLane = xs + g * a.xPitch + t * 16, restLane = xLane + tokens * a.xPitch;
  int held = 0;  // units since the last flush
  for (int u = 0; u < part.units; u++) {
    float c[2][4] = {};
    for (int line0 = 0; line0 < part.lines; line0 += a.lines) {
      const int lines = min(a.lines, part.lines - line0);
      const uint32_t at = q.data + q.slot * a.slotBytes + reader.lane;
      barrierWait(q.full + q.slot * 8, q.phase);
#pragma unroll 2
      for (int l = warp; l < lines; l += kConsumers) {
        const uint32_t xLine = (line0 + l) * 128;
        uint4 x[2], rest[2], w0, w1;
#pragma unroll
        for (int h = 0; h < 2; h++) {
          x[h] = rest[h] = make_uint4(0, 0, 0, 0);
          if (live) x[h] = loadShared16(xLane + xLine + h * 64);
          if (F::split && live) rest[h] = loadShared16(restLane + xLine + h * 64);
        }
        reader.read(at + l * 128, w0, w1);
        multiply<T>(c, x[0], rest[0], w0);
        if ((line0 + l) * kLine + 32 < a.op.kp) multiply<T>(c, x[1], rest[1], w1);
      }
      release(q.empty + q.slot * 8, c[0][0] + c[1][0]);
      q.next();
    }
    finish.put(held++, c);
    const bool last = u + 1 == part.units;
    if (held < a.flush && !last) continue;
    finish.flush(last);
    held = 0;
    if (!last) finish.prepare(u + 1);
  }
#endif
}
