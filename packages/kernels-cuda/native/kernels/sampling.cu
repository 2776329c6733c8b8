// Sampling, first pass: one read of the logits decides greedy rows, rows without a filter, and rows whose filters leave few tokens;
// sampling_wide.cu does what is left.
#include "sampling_rows.cuh"
#include "sampling_wide.h"

namespace {

/// Lists, sorted, the tokens that top-k, top-p and min-p may leave, where they can be told from the greatest of the groups and are few:
/// how many they leave; -1 where they are not few.
__device__ int keepFew(RowShared& s, const Row& row, const Options& o, const Race& race, float least, double weight, int bits) {
  const Weigher weigher{race.max, race.temperature, bits};
  const bool byCount = o.topK < row.n, byWeight = o.topP < 1;
  const float range = race.max - least;
  const Steps steps = stepsOf(race.max, byCount ? range : fminf(range, 30.0f * race.temperature));
  double target = double(o.topP) * weight * double(1ull << bits);
  int step;
  if (byCount || byWeight) step = stepOfGroups(s, row, steps, weigher, {!byCount, (unsigned long long)o.topK, target * (1 + 1e-6)});
  else step = steps.of(race.max + race.temperature * (logf(o.minP) - 1e-3f) - fabsf(race.max) * 1e-6f);  // a little below the weight minP
  int n = step < 0 ? -1 : listDownTo(s, row, steps, step);
  if (n < 0) return -1;
  if (byCount) {
    n = min(n, o.topK);
    if (byWeight) {
      unsigned long long sum = 0, none = 0, all, zero;
      for (int i = threadIdx.x; i < n; i += kThreads) sum += weigher.of(valueOf(s.list[i]));
      scan(s, sum, none, all, zero);
      target = double(o.topP) * double(all);
    }
  }
  if (byWeight) n = min(n, placeInList(s, n, {true, 0, target}, weigher, 0, 0) + 1);
  return n;
}

/// Leaves a row to the passes behind this one.
__device__ void leave(const SampleArgs& p, int r, float max, float min) {
  Wide& wide = p.scratch.wide[r];
  for (int i = threadIdx.x; i < kBuckets; i += kThreads) wide.weight[i] = 0, wide.count[i] = 0;
  if (threadIdx.x == 0) {
    wide.max = max, wide.min = min, wide.step = -1, wide.listed = 0, wide.lowest = 0, wide.best = 0;
    p.scratch.wideRows[atomicAdd(wideCount(p), 1u)] = r;
  }
}

/// Grid [slices / kSlices, rows], rounded up: a block takes so many slices one after the other, and then all that is rare at once.
template <int kSlices> __global__ void __launch_bounds__(kThreads, 4) sampleSlices(const SampleArgs p) {
  __shared__ RowShared s;
  __shared__ uint32_t parts[2][2][kThreads / 32];
  __shared__ double sums[kThreads / 32];
  __shared__ unsigned long long best[kSlices];
  __shared__ float maxima[kSlices], bars[kSlices];
  __shared__ int likeliest[kSlices], last, filtered;
  __shared__ float rowMax, rowMin;
  __shared__ double rowWeight;
  pdlTrigger();
  if (threadIdx.x < kSlices) best[threadIdx.x] = 0, likeliest[threadIdx.x] = 0x7fffffff;
  pdlWait();

  const int r = blockIdx.y, count = p.scratch.count;
  const float* logits = p.logits + r * p.stride;
  const bool aligned = uintptr_t(logits) % 16 == 0;
  const Options o = optionsOf(p, r);
  Race race = raceOf(p, r, 0, o.temperature);
  const float slope = slopeOf(o.temperature);
  auto firstOf = [](int slice) { return tileStart(slice * (kSlice / kGroup) + threadIdx.x / 4); };
  unsigned int mine = 0;  // slices that this thread may have the winner of
#pragma unroll 1
  for (int i = 0; i < kSlices; i++) {
    const int slice = blockIdx.x * kSlices + i, group = slice * (kSlice / kGroup) + threadIdx.x / 4, first = tileStart(group);
    if (slice >= count) break;
    float x[4][4];
    loadTile<false>(x, logits, first, p.n, aligned);
    float threadMax = -INFINITY;
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) threadMax = fmaxf(threadMax, x[j][e]);
    threadMax += 0.0f;  // no −0
    const float max = blockMax(threadMax, parts[0][i & 1]);
    if (threadMax == max) {
      int id = 0x7fffffff;
#pragma unroll
      for (int j = 3; j >= 0; j--)
#pragma unroll
        for (int e = 3; e >= 0; e--)
          // A NaN counts as -infinity, which is the greatest only where there is nothing else.
          if (x[j][e] == max || (max == -INFINITY && x[j][e] != x[j][e])) id = first + 16 * j + e;
      atomicMin(&likeliest[i], id);
    }
    const bool finite = max > -INFINITY && max < INFINITY;
    float least = INFINITY;
    double weight = 0;
    if (o.way == Way::race && finite) {
      race.max = max;
      TileBounds bounds{-INFINITY, -INFINITY};
      if (__any_sync(~0u, (threadMax - max) * slope > kHopeless)) bounds = tileBounds(x, first, race, slope);
      const float bar = blockMax(bounds.lower + 0.0f, parts[1][i & 1]) - kBoundSlack;
      mine |= unsigned(bounds.upper >= bar) << i;
      if (threadIdx.x == 0) bars[i] = bar;
    } else if (o.way == Way::filtered) {
      storeGroupMax(threadMax, p.scratch.groupMax + int64_t(r) * p.scratch.groups, group, p.scratch.groups);
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) least = fminf(least, x[j][e] > -INFINITY ? x[j][e] : INFINITY);
      least = -blockMax(-least + 0.0f, parts[1][i & 1]);
      if (o.topP < 1 && finite) weight = tileSum(x, sums, [&](float v) { return weightOf(v, max, o.temperature); });
    }
    if (threadIdx.x == 0) {
      Slice& to = p.scratch.slices[int64_t(r) * count + slice];
      maxima[i] = max, to.weight = weight, to.min = least;
    }
  }
  __syncthreads();
  for (; mine; mine &= mine - 1) {
    const int i = __ffs(int(mine)) - 1;
    race.max = maxima[i];
    atomicMax(&best[i], tileArrival(logits, firstOf(blockIdx.x * kSlices + i), p.n, race, bars[i], AllRun{}));
  }
  __syncthreads();
  if (threadIdx.x < kSlices && int(blockIdx.x * kSlices + threadIdx.x) < count) {
    Slice& slice = p.scratch.slices[int64_t(r) * count + blockIdx.x * kSlices + threadIdx.x];
    slice.likeliest = keyOf(maxima[threadIdx.x], likeliest[threadIdx.x]), slice.winner = idOf(best[threadIdx.x]), slice.before = 0;
    __threadfence();
  }
  if (!lastOfRow(p.scratch.ended + r, 1, gridDim.x, &last)) return;
  const Slice* slices = p.scratch.slices + int64_t(r) * count;

  if (threadIdx.x < 32) {
    const RowSummary all = summaryOf(slices, count);
    const bool greedy = o.way == Way::greedy || !(all.max > -INFINITY && all.max < INFINITY);
    if (greedy && threadIdx.x == 0) p.tokens[r] = all.likeliest;
    if (!greedy && o.way == Way::race) {
      race.max = all.max;
      unsigned long long winner = 0;
      for (int i = threadIdx.x; i < count; i += 32) {
        const int id = __ldcg(&slices[i].winner);
        if (id < 0) continue;  // nothing but −infinity
        const unsigned long long a = arrival(cleaned(logits[id]), id, race, 0);
        winner = a > winner ? a : winner;
      }
      winner = warpBest(winner);
      if (threadIdx.x == 0) p.tokens[r] = idOf(winner);
    }
    const double sum = !greedy && o.topP < 1 ? weightOfSlices(slices, count, all.max, o.temperature) : 0;
    if (threadIdx.x == 0) filtered = !greedy && o.way == Way::filtered, rowMax = all.max, rowMin = all.min, rowWeight = sum;
  }
  __syncthreads();
  if (!filtered) return;
  race.max = rowMax;
  const Row row{logits, p.scratch.groupMax + int64_t(r) * p.scratch.groups, p.n, p.scratch.groups, aligned};
  const int kept = keepFew(s, row, o, race, rowMin, rowWeight, p.weightBits);
  if (kept < 0) return leave(p, r, rowMax, rowMin);
  unsigned long long winner = 0;
  for (int i = threadIdx.x; i < kept; i += kThreads) {
    const unsigned long long key = s.list[i], a = arrival(valueOf(key), idOf(key), race, o.minP);
    winner = a > winner ? a : winner;
  }
  winner = blockBest(winner, s);
  if (threadIdx.x == 0) p.tokens[r] = idOf(winner);
}

}  // namespace

void sampleRows(const Context& c, int32_t* tokens, LogitRows logits, SamplingRows o) {
  int64_t rowsAtOnce;
  const RowScratch scratch = rowScratch(c, logits.cols, true, rowsAtOnce);
  for (int64_t r = 0; r < logits.rows; r += rowsAtOnce) {
    const int64_t rows = logits.rows - r < rowsAtOnce ? logits.rows - r : rowsAtOnce;
    const SampleArgs args{logits.p + r * logits.stride, logits.stride, tokens + r,
                          {o.temperature + r, o.topK + r, o.topP + r, o.minP + r, o.seeds + 3 * r}, scratch, int(logits.cols), weightBits(logits.cols)};
    // One after the other where there are many: between a block's start and its end there is little to compute and much to wait for.
    const int64_t rounds = rows * scratch.count / (4 * c.sms);
    const unsigned each = rounds >= 8 ? 4 : rounds >= 4 ? 2 : 1;
    const dim3 grid((unsigned(scratch.count) + each - 1) / each, unsigned(rows));
    launch(c, "sample", each == 4 ? sampleSlices<4> : each == 2 ? sampleSlices<2> : sampleSlices<1>, grid, dim3(kThreads), 0, args);
    sampleWideRows(c, args, rows);
  }
}
