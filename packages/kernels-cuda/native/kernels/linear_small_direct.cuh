// The kernel for every target: the weight goes from memory to registers, several lines at a time.
#pragma once
#include "linear_small_finish.cuh"

/// Read once: not kept in the first-level cache.
__device__ __forceinline__ uint4 loadStream16(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}

template <class F, int ABREAST> __global__ __launch_bounds__(kConsumerThreads, 2) void smallLinearDirect(const __grid_constant__ SmallCall a) {
  using T = typename F::Weight;
  extern __shared__ __align__(128) char shared[];
  __shared__ float sums[kMostNormed * kConsumers];
  const int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31, g = lane >> 2, t = lane & 3;
  pdlTrigger();
  const Part part(a);
  prefetchSmallWeights(a, part, tid);
  pdlWait();
  const uint32_t xs = sharedAddress(shared) + a.xAt;
  loadInput<T, F::split>(a, part, xs, sums, tid);
  Finish<F, F::P == 2 ? 4 : 2> finish(a, part, reinterpret_cast<float*>(shared + a.partsAt), nullptr, 0, sums, tid);
  finish.prepare(0);
  barSync(1, kConsumerThreads);
  finish.normalise();

  const int tokens = int(a.op.tokens), kp = int(a.op.kp);
  constexpr int kAhead = 4 / ABREAST;  // lines asked for at once
  int held = 0;
  for (int u = 0; u < part.units; u += ABREAST) {
    float c[ABREAST][F::P][2][4] = {};
    const int abreast = ABREAST == 1 ? 1 : min(ABREAST, part.units - u);
    const char* w[ABREAST];
#pragma unroll
    for (int m = 0; m < ABREAST; m++) {
      const int unit = min(u + m, part.units - 1);  // a row that is not there: any other, its products are not used
      w[m] = static_cast<const char*>(a.op.w) + (int64_t(part.row(a, unit) + min(g, part.count(a, unit) - 1)) * kp + t * 8) * 2;
    }
    for (int l0 = part.line0 + warp; l0 < part.line1; l0 += kConsumers * kAhead) {
      uint4 v[kAhead][ABREAST][2];
#pragma unroll
      for (int i = 0; i < kAhead; i++)
#pragma unroll
        for (int m = 0; m < ABREAST; m++)
#pragma unroll
          for (int h = 0; h < 2; h++) {
            const int l = l0 + i * kConsumers;
            v[i][m][h] = make_uint4(0, 0, 0, 0);
            if (l < part.line1 && l * kLine + h * 32 < kp) v[i][m][h] = loadStream16(w[m] + int64_t(l) * 128 + h * 64);
          }
#pragma unroll
      for (int i = 0; i < kAhead; i++) {
        const int l = l0 + i * kConsumers;
        if (l >= part.line1) break;
#pragma unroll
        for (int h = 0; h < 2; h++) {
          if (l * kLine + h * 32 >= kp) break;
#pragma unroll
          for (int p = 0; p < F::P; p++) {
            uint4 x0 = make_uint4(0, 0, 0, 0), x1 = x0;
            const uint32_t at = xs + (l - part.line0) * 128 + h * 64 + t * 16;
            if (p * 16 + g < tokens) x0 = loadShared16(at + (p * 16 + g) * a.xPitch);
            if (F::upper && (F::split ? g : p * 16 + 8 + g) < tokens) x1 = loadShared16(at + (F::split ? tokens + g : p * 16 + 8 + g) * a.xPitch);
#pragma unroll
            for (int m = 0; m < ABREAST; m++) {
              const uint4 y = v[i][m][h];
              mma<T>(c[m][p][0], x0.x, x1.x, x0.y, x1.y, y.x, y.y);
              mma<T>(c[m][p][1], x0.z, x1.z, x0.w, x1.w, y.z, y.w);
            }
          }
        }
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
}
