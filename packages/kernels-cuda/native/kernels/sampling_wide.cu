// Sampling, rows whose filters leave many tokens: a pass that finds how far down they go, and one that holds the race. Blocks share
// what there is of such rows, known only on the device; where there are none both passes end at once.
#include "sampling_rows.cuh"
#include "sampling_wide.h"

namespace {

/// Calls f(row, from, to) with this block's share of the slices of wide rows.
template <class F> __device__ __forceinline__ void eachShare(const SampleArgs& p, F f) {
  const int64_t slices = p.scratch.count, all = int64_t(*wideCount(p)) * slices, each = (all + gridDim.x - 1) / gridDim.x;
  const int64_t to = min((int64_t(blockIdx.x) + 1) * each, all);
  for (int64_t i = int64_t(blockIdx.x) * each; i < to;) {
    const int r = p.scratch.wideRows[i / slices], from = int(i % slices), end = int(min(slices, from + (to - i)));
    f(r, from, end);
    i += end - from;
  }
}
__device__ __forceinline__ Row rowOf(const SampleArgs& p, int r) {
  const float* x = p.logits + r * p.stride;
  return {x, p.scratch.groupMax + int64_t(r) * p.scratch.groups, p.n, p.scratch.groups, uintptr_t(x) % 16 == 0};
}
__device__ __forceinline__ bool byCount(const SampleArgs& p, const Options& o) { return o.topK < p.n; }
__device__ __forceinline__ bool byWeight(const Options& o) { return o.topP < 1; }
/// A count is searched among all logits, a weight among those that have any.
__device__ __forceinline__ Steps rowSteps(const SampleArgs& p, const Options& o, const Wide& wide) {
  const float range = wide.max - wide.min;
  return stepsOf(wide.max, byCount(p, o) ? range : fminf(range, 30.0f * o.temperature));
}

/// From the histogram of a row to the step of the last token that is kept; to the token itself where that is not enough.
__device__ void decide(RowShared& s, const SampleArgs& p, int r, const Options& o, Wide& wide) {
  const Steps steps = rowSteps(p, o, wide);
  const Weigher weigher{wide.max, o.temperature, p.weightBits};
  if (!(byCount(p, o) && byWeight(o))) {
    __syncthreads();
    unsigned long long weight = 0, none = 0, all, zero;
    for (int i = threadIdx.x; i < kBuckets; i += kThreads) {
      const unsigned long long w = __ldcg(&wide.weight[i]);
      s.count[i] = __ldcg(&wide.count[i]), s.low[i] = uint32_t(w), s.high[i] = uint32_t(w >> 32);
      weight += w;
    }
    scan(s, weight, none, all, zero);
    const Target target{byWeight(o), (unsigned long long)o.topK, double(o.topP) * double(all)};
    if (!findBucket(s, target, 0, 0)) return;
    if (s.bucketCount <= kListed) {
      if (threadIdx.x == 0) wide.step = s.bucket, wide.heldCount = s.heldCount, wide.heldWeight = s.heldWeight, wide.target = target.weight;
      return;
    }
  }
  const Row row = rowOf(p, r);
  unsigned long long lowest = 0;
  if (byCount(p, o)) lowest = findToken(s, row, steps, weigher, {false, (unsigned long long)o.topK, 0}, 0, 0, ~0ull);
  if (byWeight(o)) {
    const unsigned long long found = findToken(s, row, stepsOf(wide.max, fminf(wide.max - wide.min, 30.0f * o.temperature)), weigher, {true, 0, 0},
                                               double(o.topP), lowest, ~0ull);
    lowest = found > lowest ? found : lowest;
  }
  if (threadIdx.x == 0) wide.lowest = lowest;
}

__global__ void __launch_bounds__(kThreads) weighWideRows(const SampleArgs p) {
  __shared__ RowShared s;
  __shared__ int last;
  pdlTrigger();
  pdlWait();
  eachShare(p, [&](int r, int from, int to) {
    const Options o = optionsOf(p, r);
    Wide& wide = p.scratch.wide[r];
    if (!byCount(p, o) && !byWeight(o)) return;  // min-p alone needs no more than the greatest
    if (!(byCount(p, o) && byWeight(o))) {
      const Steps steps = rowSteps(p, o, wide);
      const Weigher weigher{wide.max, o.temperature, p.weightBits};
      const Row row = rowOf(p, r);
      clearHistogram(s);
      for (int slice = from; slice < to; slice++) {
        float x[4][4];
        const int first = slice * kSlice + tileStart(threadIdx.x / 4);
        loadTile(x, row.x, first, p.n, row.aligned);
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
          for (int i = 0; i < 4; i++) {
            if (first + 16 * j + i >= p.n) continue;
            const unsigned long long weight = byWeight(o) ? weigher.of(x[j][i]) : 0;
            if (weight || byCount(p, o)) addToBucket(s, steps.of(x[j][i]), weight);
          }
      }
      __syncthreads();
      for (int i = threadIdx.x; i < kBuckets; i += kThreads)
        if (s.count[i]) {
          atomicAdd(&wide.count[i], s.count[i]);
          if (byWeight(o)) atomicAdd(&wide.weight[i], (unsigned long long)s.high[i] << 32 | s.low[i]);
        }
    }
    if (lastOfRow(p.scratch.ended + r, unsigned(to - from), unsigned(p.scratch.count), &last)) decide(s, p, r, o, wide);
    __syncthreads();
  });
}

/// The tokens of the list down to the target take part too.
__device__ unsigned long long bestListed(RowShared& s, const SampleArgs& p, const Options& o, const Race& race, const Wide& wide) {
  const int n = min(int(__ldcg(&wide.listed)), kListed);
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += kThreads) s.list[i] = __ldcg(&wide.list[i]);
  __syncthreads();
  sortList(s, n);
  const Target target{byWeight(o), (unsigned long long)o.topK, wide.target};
  const int kept = min(n, placeInList(s, n, target, {race.max, race.temperature, p.weightBits}, wide.heldCount, wide.heldWeight) + 1);
  unsigned long long best = 0;
  for (int i = threadIdx.x; i < kept; i += kThreads) {
    const unsigned long long key = s.list[i], a = arrival(valueOf(key), idOf(key), race, o.minP);
    best = a > best ? a : best;
  }
  return best;
}

/// Which tokens surely pass: those before the last step, or down to the last key; min-p is looked at too.
struct Passes {
  Steps steps;
  int step;
  unsigned long long lowest;
  float minP, max, temperature;
  __device__ bool operator()(float x, int id) const {
    return (step < 0 ? keyOf(x, id) >= lowest : steps.of(x) < step) && (minP == 0 || weightOf(x, max, temperature) >= minP);
  }
};

__global__ void __launch_bounds__(kThreads) raceWideRows(const SampleArgs p) {
  __shared__ RowShared s;
  __shared__ int last;
  pdlTrigger();
  pdlWait();
  if (*wideCount(p) == 0) return;
  eachShare(p, [&](int r, int from, int to) {
    const Options o = optionsOf(p, r);
    Wide& wide = p.scratch.wide[r];
    const Row row = rowOf(p, r);
    const Race race = raceOf(p, r, wide.max, o.temperature);
    const Steps steps = rowSteps(p, o, wide);
    const Weigher weigher{wide.max, o.temperature, p.weightBits};
    const float slope = slopeOf(o.temperature);
    const int step = wide.step;
    const Passes passes{steps, step, wide.lowest, o.minP, wide.max, o.temperature};
    unsigned long long best = 0;
    float reached = -INFINITY;  // by some token of this warp
    for (int slice = from; slice < to; slice++) {
      float x[4][4], most = -INFINITY;
      const int first = slice * kSlice + tileStart(threadIdx.x / 4);
      loadTile(x, row.x, first, p.n, row.aligned);
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float v = x[j][i];
          const int id = first + 16 * j + i;
          if (step >= 0 && steps.of(v) == step && id < p.n && (byCount(p, o) || weigher.of(v) > 0)) {
            const unsigned int place = atomicAdd(&wide.listed, 1u);
            if (place < unsigned(kListed)) wide.list[place] = keyOf(v, id);
          }
          if (!passes(v, id)) x[j][i] = -INFINITY;
          most = fmaxf(most, x[j][i]);
        }
      if (!__any_sync(~0u, (most - race.max) * slope > kHopeless)) continue;
      const TileBounds bounds = tileBounds(x, first, race, slope);
      reached = fmaxf(reached, floatOf(__reduce_max_sync(~0u, orderOf(bounds.lower + 0.0f))));
      const float bar = reached - kBoundSlack;
      if (bounds.upper >= bar) {
        const unsigned long long a = tileArrival(row.x, first, p.n, race, bar, passes);
        best = a > best ? a : best;
      }
    }
    best = blockBest(best, s);
    if (threadIdx.x == 0 && best) atomicMax(&wide.best, best);
    if (lastOfRow(p.scratch.ended + r, unsigned(to - from), unsigned(p.scratch.count), &last)) {
      best = __ldcg(&wide.best);
      if (step >= 0) {
        const unsigned long long listed = bestListed(s, p, o, race, wide);
        best = listed > best ? listed : best;
      }
      best = blockBest(best, s);
      if (threadIdx.x == 0) p.tokens[r] = idOf(best);
    }
    __syncthreads();
  });
  // The last block to get here leaves the counters as it should find them.
  __syncthreads();
  if (threadIdx.x == 0 && atomicAdd(wideBlocks(p), 1u) == gridDim.x - 1) *wideCount(p) = 0, *wideBlocks(p) = 0;
}

}  // namespace

void sampleWideRows(const Context& c, const SampleArgs& args, int64_t rows) {
  const int64_t slices = rows * args.scratch.count, most = 2 * int64_t(c.sms);
  const auto grid = dim3(unsigned(slices < most ? slices : most));
  launch(c, "sample", weighWideRows, grid, dim3(kThreads), 0, args);
  launch(c, "sample", raceWideRows, grid, dim3(kThreads), 0, args);
}
