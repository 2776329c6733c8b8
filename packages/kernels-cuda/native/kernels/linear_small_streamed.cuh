// Several units abreast, x from the second-level cache into registers, a few lines ahead: up to 16 tokens. Nothing but the latency of
// that cache lies between the end of the kernel in front and the first product.
#pragma once
#include "linear_small_ring.cuh"

/// A lane's part of a line of x: columns of tokens g and g + 8.
template <class F> struct XLine {
  uint4 low[2], high[2];
};

template <class F, int ABREAST> __global__ __launch_bounds__(kConsumerThreads + 32, 1) void smallLinearStreamed(const __grid_constant__ SmallCall a) {
#if __CUDA_ARCH__ >= 900
  using T = typename F::Weight;
  static_assert(F::P == 1 && !F::split);
  constexpr int kAhead = F::upper ? 2 : 4;  // lines: 32 registers
  extern __shared__ __align__(128) char shared[];
  __shared__ SmallBars bars;
  const int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31, g = lane >> 2, t = lane & 3;
  pdlTrigger();
  Ring q = openRing(a, shared, bars);
  clusterArrive(a);
  const Part part(a);
  if (warp == kConsumers) {
    feed<ABREAST>(q, a, part);
    pdlWait();
    clusterWait(a);
    return;
  }
  prefetchSmallWeights(a, part, tid);
  const int tokens = int(a.op.tokens), k = int(a.op.k), lines = part.line1 - part.line0;
  // The warp's lines, numbered; the numbers are filled up to a multiple of kAhead, so that a line's registers are known.
  const int own = lines > warp ? (lines - warp + kConsumers - 1) / kConsumers : 0, rounds = (own + kAhead - 1) / kAhead;
  const int chunk = a.lines / kConsumers;  // a slot's lines of a warp
  const unsigned short* xLow = static_cast<const unsigned short*>(a.op.x) + g * a.op.xStride + (part.line0 + warp) * kLine + t * 8;
  const unsigned short* xHigh = xLow + 8 * a.op.xStride;
  const int room = k - (part.line0 + warp) * kLine - t * 8;  // a vector at column c of this is inside x if c < room
  XLine<F> x[kAhead];
  auto load = [&](XLine<F>& to, int i) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int column = i * kConsumers * kLine + h * 32;
      to.low[h] = to.high[h] = make_uint4(0, 0, 0, 0);
      if (g < tokens && column < room) to.low[h] = __ldcg(reinterpret_cast<const uint4*>(xLow + column));
      if (F::upper && g + 8 < tokens && column < room) to.high[h] = __ldcg(reinterpret_cast<const uint4*>(xHigh + column));
    }
  };
  pdlWait();
#pragma unroll
  for (int s = 0; s < kAhead; s++)
    if (s < own) load(x[s], s);
  Finish<F, 2> finish(a, part, reinterpret_cast<float*>(shared + a.partsAt), reinterpret_cast<float*>(shared + a.receivedAt),
                      sharedAddress(&bars.received), nullptr, tid);
  finish.prepare(0);
  clusterWait(a);

  const LineReader reader(a, g, t);
  uint32_t at[ABREAST], bar[ABREAST];
  int held = 0;  // units since the last flush
  for (int u = 0; u < part.units; u += ABREAST) {
    float c[ABREAST][1][2][4] = {};
    const int abreast = ABREAST == 1 ? 1 : min(ABREAST, part.units - u);
    const bool last = u + ABREAST >= part.units;
    // Slots of a chunk of every unit; a unit that is not there is the first one again, and its sums are not used.
    auto open = [&] {
#pragma unroll
      for (int m = 0; m < ABREAST; m++) {
        if (m < abreast) {
          barrierWait(q.full + q.slot * 8, q.phase);
          at[m] = q.data + q.slot * a.slotBytes + reader.lane + warp * 128, bar[m] = q.empty + q.slot * 8;
          q.next();
        } else at[m] = at[0];
      }
    };
    auto close = [&] {
#pragma unroll
      for (int m = 0; m < ABREAST; m++)
        if (m < abreast) release(bar[m], c[m][0][0][0] + c[m][0][1][0]);
    };
    int inChunk = 0, chunks = 0;
    for (int r = 0; r < rounds; r++) {
#pragma unroll
      for (int s = 0; s < kAhead; s++) {
        const int i = r * kAhead + s;
        if (i < own) {
          if (inChunk == 0) open();
#pragma unroll
          for (int m = 0; m < ABREAST; m++) {
            uint4 w0, w1;
            reader.read(at[m] + inChunk * (kConsumers * 128), w0, w1);
            multiply<T>(c[m][0], x[s].low[0], x[s].high[0], w0);
            if ((part.line0 + warp + i * kConsumers) * kLine + 32 < a.op.kp) multiply<T>(c[m][0], x[s].low[1], x[s].high[1], w1);
          }
          if (++inChunk == chunk || i + 1 == own) close(), inChunk = 0, chunks++;
        }
        // Into the registers that are free now; behind the last line comes the first one again, for the next units.
        const int next = i + kAhead < rounds * kAhead ? i + kAhead : last ? own : s;
        if (next < own) load(x[s], next);
      }
    }
    // A slot is free when all warps say so, also those that had no line in it.
    for (; chunks * a.lines < lines; chunks++) open(), close();
#pragma unroll
    for (int m = 0; m < ABREAST; m++)
      if (m < abreast) finish.put(held + m, c[m]);
    held += abreast;
    if (held < a.flush && !last) continue;
    finish.flush(last);
    held = 0;
    if (!last) finish.prepare(u + ABREAST);
  }
#endif
}
